"""The seal of a finished run: the hash of every file in its folder.

Not sealed, and not told when changed or added: the engine's own folder ``.snakemake``, and files
``*.lock`` anywhere, which come and go with whoever runs or watches.
"""

from collections.abc import Callable, Iterator
from pathlib import Path

from study_lib.errors import StudyError
from study_lib.files import json_text, read_json, sha256_of, write_json

SEAL_FILE = "seal.json"
# What the engine keeps for itself, and what hides while a file is being written or locked.
NOT_SEALED = (".snakemake", ".lock")
UNREADABLE = "cannot be read as a file; a link to nothing or to a folder?"
Digest = Callable[[Path], str | None]


def seal(run_folder: Path) -> None:
    """Write the hash of every file of a run.

    Raises
    ------
    StudyError
        If one cannot be read, such as a link to nothing or to a folder; nothing is sealed then.
    """
    files = {name: digest_of(run_folder / name) for name in sealed_names(run_folder)}
    unreadable = [f"{name}: {UNREADABLE}" for name, digest in files.items() if digest is None]
    if unreadable:
        raise StudyError(
            "\n".join(["the run is not sealed; remove these and run `study resume`:", *unreadable])
        )
    write_json(run_folder / SEAL_FILE, {"sha256": files})


def digest_of(path: Path) -> str | None:
    """Return the hash of a file; none of what cannot be read as one."""
    try:
        return sha256_of(path)
    except OSError:  # a link to nothing or to a folder, or a file that is closed to this user
        return None


def faults_of_seal(run_folder: Path, digest: Digest = digest_of) -> dict[str, str]:
    """Return what is wrong with each file, by its name: missing, changed, extra or unreadable.

    Parameters
    ----------
    run_folder
        The run.
    digest
        What hashes a file: one that remembers spares files that were hashed before.
    """
    path = run_folder / SEAL_FILE
    if not path.is_file():
        return {SEAL_FILE: "missing: the run is not finished; go on with `study resume`"}
    try:
        content = read_json(path)
        known = dict(content["sha256"])
    except (StudyError, KeyError, TypeError, ValueError):
        return {SEAL_FILE: "is not a seal"}
    if path.read_text(encoding="utf-8") != json_text(content) or content.keys() != {"sha256"}:
        return {SEAL_FILE: "is not as it was written"}
    present = set(sealed_names(run_folder))
    faults = dict.fromkeys(known.keys() - present, "missing")
    faults |= dict.fromkeys(present - known.keys(), f"extra: not in {SEAL_FILE}")
    for name in sorted(present & known.keys()):
        found = digest(run_folder / name)
        if found is None:
            faults[name] = UNREADABLE
        elif found != known[name]:
            faults[name] = f"differs from {SEAL_FILE}"
    return faults


def sealed_names(run_folder: Path) -> Iterator[str]:
    """Yield every file of a run but the seal itself, locks and the engine's own, in POSIX form."""
    for path in sorted(run_folder.rglob("*")):
        place = path.relative_to(run_folder)
        is_own = place.parts[0] == NOT_SEALED[0] or path.suffix == NOT_SEALED[1]
        if not is_own and place.as_posix() != SEAL_FILE and (path.is_symlink() or path.is_file()):
            yield place.as_posix()
