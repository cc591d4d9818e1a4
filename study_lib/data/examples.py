"""Measured data that anybody can have: where they are, whose, under which licence, and their hash.

Nothing but the command that asks for an example reaches the network. What it gets counts only with
the SHA-256 that stands here.
"""

import shutil
from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path

import pooch

from study_lib.errors import InputError, StudyError
from study_lib.files import atomic_path, require_writable, sha256_of, write_text

SECONDS_MAX = 60


@dataclass(frozen=True)
class Example:
    """One file of measured data.

    Parameters
    ----------
    name
        Of the file.
    url
        At a fixed commit of a public repository.
    sha256
        Of the file; no other content is taken for it.
    licence
        The name of its text in this package.
    about
        What it is, and of whom, in a sentence.
    """

    name: str
    url: str
    sha256: str
    licence: str
    about: str


EXAMPLES = {
    "star": Example(
        name="siemens-star-small.npz.bz2",
        url="https://github.com/AdvancedPhotonSource/tike/raw/"
        "8e1f93724921be1a443edccc669b4c88ae4a9b6a/tests/data/siemens-star-small.npz.bz2",
        sha256="dbce7715c1d4a7c28a48f684dacc7d343fbc5d06fe993d6ea31714ffb5c68d3d",
        licence="siemens-star-small.LICENSE.txt",
        about="a Siemens star, 516 patterns of 128 x 128, measured at the Advanced Photon Source; "
        "test data of tike, by UChicago Argonne, LLC, under a BSD licence",
    )
}


def fetched_example(name: str, folder: Path, source: Path | None = None) -> tuple[Path, Path]:
    """Return the paths of an example and its licence, which are put into a folder.

    A file that is there already and is the example stays.

    Parameters
    ----------
    name
        One of ``EXAMPLES``.
    folder
        Made if need be.
    source
        A copy of the file, where there is no network; default: it is fetched.

    Raises
    ------
    InputError
        If there is no such example, another file is in its place, or ``source`` is not it.
    StudyError
        If it cannot be fetched, or what came is not it.
    """
    if name not in EXAMPLES:
        raise InputError(f"example {name!r} not found; choose one of {', '.join(EXAMPLES)}")
    example = EXAMPLES[name]
    target, licence = folder / example.name, folder / example.licence
    text = files("study_lib.data").joinpath(example.licence).read_text(encoding="utf-8")
    if licence.exists() and licence.read_bytes() != text.encode():
        raise InputError(f"{licence}: another text is there; choose another folder, or move it")
    if target.exists() and sha256_of(target) != example.sha256:
        raise InputError(f"{target}: another file is there; choose another folder, or move it")
    if source is not None and not source.is_file():
        raise InputError(f"{source}: no such file; give a copy of {example.name}")
    if source is not None and (found := sha256_of(source)) != example.sha256:
        raise InputError(
            f"{source}: this is not {example.name}: its SHA-256 is {found}, that of the example "
            f"{example.sha256}; fetch it again from {example.url}"
        )
    require_writable(folder)
    if not target.exists():
        with atomic_path(target) as temporary:
            if source is None:
                _download(example, temporary)
            else:
                shutil.copyfile(source, temporary)
    write_text(licence, text)
    return target, licence


def _download(example: Example, target: Path) -> None:
    downloader = pooch.HTTPDownloader(progressbar=False, timeout=SECONDS_MAX)
    pooch.get_logger().setLevel("ERROR")
    remedy = f"fetch {example.url} by other means, and give it with --from FILE"
    try:
        pooch.retrieve(
            example.url,
            known_hash=f"sha256:{example.sha256}",
            fname=target.name,
            path=target.parent,
            downloader=downloader,
        )
    except OSError as error:
        if error.errno is not None:  # the system's own, of the disk; the network's have none
            raise
        reason = " ".join(str(error).split())[:200]
        raise StudyError(f"{example.name}: could not be fetched ({reason}); {remedy}") from None
    except ValueError as error:  # pooch's own, of another hash
        reason = " ".join(str(error).split())[:200]
        raise StudyError(f"{example.name}: what came is not it ({reason}); {remedy}") from None
