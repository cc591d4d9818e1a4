"""A copy of a finished run that is fit to be shown: no path, host or user, no arrays, sealed anew.

What a reader needs is kept: notebooks, pages, tables, figures, records. Times are in UTC already.
The engine's log stays behind, with what else is no evidence.
"""

import getpass
import re
import shutil
import socket
import sys
from collections.abc import Callable, Mapping
from functools import cache
from pathlib import Path
from typing import Any

import nbformat

from study_lib.errors import InputError, StudyError
from study_lib.files import read_json, require_no_link_out, sha256_of, write_json, write_text
from study_lib.phases.records import manifests_of
from study_lib.runs.crate import CRATE, Credit
from study_lib.runs.evidence import (
    SEAL_FILE,
    digest_of,
    exposed_values,
    faults_of_run,
    finish,
    sealed_names,
)
from study_lib.runs.plan import plan_jobs
from study_lib.runs.report import INDEX, PAGES, write_site
from study_lib.runs.rules import PLAN_FILE
from study_lib.runs.run import ARRAYS, DESIGN_FILE, PUBLISHED_FILE, open_run, require_not_published
from study_lib.system import PROJECT

LEFT_BEHIND = ("engine.log", "running.json", "failed.json")
MADE_AGAIN = (INDEX, CRATE, SEAL_FILE)
TEXTS = (".json", ".jsonl", ".yaml", ".md", ".csv", ".log", ".txt", ".svg")
HOME = re.compile(r"/(?:home|Users)/(?:[^/\n\"'<>\\]{1,64}(?=/)|[^/\s\"'<>\\]+)")
# Two names at least; not the end of a relative path, nor what follows the scheme of an address.
ABSOLUTE = re.compile(r"(?:(?<![\w./])|(?<=-[IL]))/(?:[\w.+@-]+/)+([\w.+@-]+)")
FILE_SCHEME = re.compile(r"file://(?=/)")
PICTURE = re.compile(r"(base64,[A-Za-z0-9+/=\s]+)")
SHORTEST_NAME = 4  # of a host or user that is looked for: a shorter one is in any text by chance
ANYBODY = {"root", "user", "localhost"}
Clean = Callable[[str], str]


def publish(
    run_folder: Path,
    folder: Path,
    environment: Mapping[str, str],
    *,
    credit: Credit,
    with_arrays: bool = False,
) -> int:
    """Write a copy of a run that can be shown; return how many files it has.

    Parameters
    ----------
    run_folder
        A finished run.
    folder
        Where the copy goes; must not exist.
    environment
        Variables whose secret values must not be in it.
    credit
        Authors and license that the crate names.
    with_arrays
        Whether patterns, objects and networks come along.

    Raises
    ------
    InputError
        If the folder exists, or a link leads out of the run.
    StudyError
        If the run is not finished or was changed, or the copy would hold a secret; nothing is left
        then.
    """
    if folder.exists():
        raise InputError(f"{folder}: exists already; choose another folder")
    if folder.resolve().is_relative_to(run_folder.resolve()):
        raise InputError(f"{folder}: lies in the run itself; choose a folder beside it")
    require_not_published(run_folder, "publish the run itself")
    require_no_link_out(run_folder)
    faults = faults_of_run(run_folder)
    if faults:
        raise StudyError("\n".join([f"{run_folder} is not fit to be published:", *faults]))
    try:
        _copy(run_folder, folder, with_arrays=with_arrays)
        leaks = exposed_values(folder, environment)
        if leaks:
            raise StudyError("\n".join(["not published:", *leaks]))
        digest = cache(digest_of)
        write_site(folder, plan_jobs(open_run(folder).design), digest, credit)
        finish(folder, digest)
    except BaseException:
        if folder.exists():
            shutil.rmtree(folder)
        raise
    return len(list(sealed_names(folder)))


def _copy(run_folder: Path, folder: Path, *, with_arrays: bool) -> None:
    """Copy what may be shown, with neutral texts, and have the records vouch for the copies."""
    clean = cleaner(run_folder)
    left_out = []
    for name in sealed_names(run_folder):
        source, target = run_folder / name, folder / name
        if name in MADE_AGAIN or name.startswith(f"{PAGES}/") or source.name in LEFT_BEHIND:
            continue
        if source.suffix in ARRAYS and not with_arrays:
            left_out.append(name)
            continue
        target.parent.mkdir(parents=True, exist_ok=True)
        if source.suffix == ".ipynb":
            _write_notebook(source, target, clean)
        elif source.suffix in TEXTS:
            write_text(target, clean(source.read_text(encoding="utf-8")))
        else:
            shutil.copyfile(source, target)
    _vouch(folder)
    origin = sha256_of(run_folder / SEAL_FILE)
    write_json(folder / PUBLISHED_FILE, {"seal_of_the_run": origin, "left_out": left_out})


def cleaner(run_folder: Path) -> Clean:
    """Return what takes places, host and user out of a text; pictures in it stay.

    Paths in the run become relative to it, any other keeps its last name alone. A name of host or
    user that is also a word of the design or the plan is left, or records would be spoilt.
    """
    places = {str(run_folder.resolve()): ".", str(run_folder.absolute()): "."}
    places[str(PROJECT)] = "project"
    places |= {sys.prefix: "python", str(Path.home()): "home"}
    longest_first = sorted((one for one in places if len(one) > 1), key=len, reverse=True)
    known = re.compile(f"(?:{'|'.join(re.escape(one) for one in longest_first)})(?![\\w+-])")
    files = [(run_folder / name).read_text("utf-8") for name in (DESIGN_FILE, PLAN_FILE)]
    words = {*ANYBODY, *re.findall(r"[^\W_]+|\w+", " ".join(files))}
    people = {_user(): "user", socket.gethostname(): "host"}
    named = {
        name: word
        for name, word in people.items()
        if len(name) >= SHORTEST_NAME and name not in words
    }
    someone = re.compile(r"\b(" + "|".join(re.escape(name) for name in named) + r")\b")

    def clean(text: str) -> str:
        text = FILE_SCHEME.sub("", text)
        text = known.sub(lambda found: places[found[0]], text)
        text = ABSOLUTE.sub(r".../\1", HOME.sub("/home", text))
        return someone.sub(lambda found: named[found[0]], text) if named else text

    def clean_around_pictures(text: str) -> str:
        parts = PICTURE.split(text)
        return "".join(part if place % 2 else clean(part) for place, part in enumerate(parts))

    return clean_around_pictures


def _user() -> str:
    try:
        return getpass.getuser()
    except (KeyError, OSError):  # a container without names of users
        return ""


def _write_notebook(source: Path, target: Path, clean: Clean) -> None:
    """Write a notebook with its texts cleaned; pictures stay as they are."""
    notebook = nbformat.read(source, nbformat.NO_CONVERT)
    notebook.metadata = _cleaned(notebook.metadata, clean)
    for cell in notebook.cells:
        cell.source, cell.metadata = clean(cell.source), _cleaned(cell.metadata, clean)
        for output in cell.get("outputs", ()):
            for name in {"text", "traceback", "evalue"} & output.keys():
                output[name] = _cleaned(output[name], clean)
            if "metadata" in output:
                output.metadata = _cleaned(output.metadata, clean)
            for kind, content in output.get("data", {}).items():
                if kind == "image/svg+xml" or not kind.startswith("image/"):
                    output.data[kind] = _cleaned(content, clean)
    nbformat.write(notebook, target)


def _cleaned(content: Any, clean: Clean) -> Any:
    """Return content with every text in it cleaned."""
    if isinstance(content, str):
        return clean(content)
    if isinstance(content, Mapping):
        return nbformat.from_dict({key: _cleaned(one, clean) for key, one in content.items()})
    if isinstance(content, list):
        return [_cleaned(one, clean) for one in content]
    return content


def _vouch(folder: Path) -> None:
    """Have each record name the hashes of the files beside it; what is not there keeps its own."""
    manifests = manifests_of(folder)
    for path in manifests:
        content = read_json(path)
        for record in content["jobs"].values():
            for files in (record["inputs"], record["outputs"]):
                _rehash(files, path.parent)
        write_json(path, content)
    for path in sorted(folder.glob("jobs/*/done.json")):
        record = read_json(path)
        for files in (record["sha256"], record["inputs"]):
            _rehash(files, folder)
        write_json(path, record)


def _rehash(files: dict[str, str], root: Path) -> None:
    for name in files:
        if (root / name).is_file():
            files[name] = sha256_of(root / name)
