"""One SHA-256 over what a run found: arrays, weights, positions, scores and choices.

Two runs with equal results have equal digests, whatever their date, folder, name and the load of
the machine. Left out is what may differ between runs that found the same: durations, hashes of
files, versions, machines; what repeats the design; and sentences for people. Numbers computed with
other thread counts, or on other machines, may differ in their last bits; then digests differ too.
Arms are called by the names they have today, so that a run from before a name changed has the
digest of one made since.
"""

import csv
import hashlib
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch

from study_lib.arm_names import current_arm, current_array
from study_lib.data.archive import METADATA, metadata_of, open_npz
from study_lib.errors import StudyError
from study_lib.files import read_json
from study_lib.networks.checkpoints import content_of
from study_lib.phases.conditions import MISSING_ARMS, found_within
from study_lib.runs.job import read_record
from study_lib.runs.plan import plan_jobs
from study_lib.runs.run import BASE_FILE, left_out, open_run, require_not_published

# Whole files that describe a run, or repeat what others hold beside times and hashes.
NOT_RESULTS = re.compile(
    r"(_manifest|^skip_summary|^inventory|^design|^matrix|^rank_differences)\.(json|csv)$"
)
# A suffix or word of seconds marks a duration or a speed.
DURATION = re.compile(r"(^|_)(s|seconds)(_(std|low|high))?$")
# Names of what decides nothing; settings are in the design.
HASHES_AND_PLACES = {
    "measurement_sha256",
    "bundle_sha256",
    "sha256",
    "source",
    "origin",
    "path",
    "figures",
    "patterns_sha256",
    "same_patterns_as",
}
MACHINES_AND_VERSIONS = {
    "versions",
    "git",
    "machine",
    "device",
    "default_device",
    "threads",
    "precision",
    "metrics_version",
    "mixed_codes",
}
SETTINGS = {"design", "options", "config", "grouping", "chosen_by"}
SENTENCES = {
    "answers",
    "answer_tables",
    "label",
    "knows",
    "fallback",
    "fallback_reason",
    "remarks",
    "findings",
    "frame",
    "measured",
    "metrics",
    "missing",
    "sentence",
    "probe_diameter_definition",
    "dose_held_fixed",
}
NOT_DECIDING = HASHES_AND_PLACES | MACHINES_AND_VERSIONS | SETTINGS | SENTENCES
# What tells the rows of a table apart; they are compared whatever their order.
ROW_KEYS = ("replicate", "split", "dose", "view", "arm", "reference", "level")


def digest_of_run(run_folder: Path) -> tuple[str, list[str]]:
    """Return the digest of a finished run, and the lines it is taken of: the items, by name.

    Parameters
    ----------
    run_folder
        A run below ``reports/``.

    Returns
    -------
    str
        Hexadecimal SHA-256 of all lines, each ended by a line feed.
    list of str
        One line for each array, weight, and plain value.

    Raises
    ------
    InputError
        If the folder holds no run or a copy without arrays, or a file of it is damaged.
    StudyError
        If a job of the run is not done, or a result of one is missing.
    """
    lines = sorted(f"{name}: {value}" for name, value in _items(run_folder))
    text = "".join(f"{line}\n" for line in lines)
    return hashlib.sha256(text.encode()).hexdigest(), lines


def _items(run_folder: Path) -> Iterator[tuple[str, str]]:
    """Yield each result of a run: its file and its name within, and its value or hash."""
    design = open_run(run_folder).design
    jobs = plan_jobs(design)
    records = {job.name: read_record(run_folder / job.done) for job in jobs}
    waiting = [name for name, record in records.items() if not record]
    if waiting:
        raise StudyError(
            f"{run_folder}: {len(waiting)} of {len(jobs)} jobs are not done, {waiting[0]} first; "
            "finish the run with `study resume`"
        )
    missing = left_out(run_folder)
    if missing:
        require_not_published(run_folder, f"{len(missing)} arrays and networks are not in it")
    made = {name for record in records.values() for name in record.get("sha256", ())}
    results = sorted(name for name in made if Path(name).suffix in READERS)
    gone = [name for name in results if not (run_folder / name).is_file()]
    if gone:
        raise StudyError(
            f"{run_folder}: {len(gone)} files that its jobs made are missing, {gone[0]} first; "
            "`study resume` makes them again"
        )
    base = [run_folder / BASE_FILE] if design.base else []
    found = (path for path in found_within(run_folder, "phase_*/**/*") if path.is_file())
    for path in [*base, *found]:
        if path.name.startswith(".") or NOT_RESULTS.search(path.name):
            continue
        read = READERS.get(path.suffix)
        for name, value in read(path) if read else ():
            yield f"{path.relative_to(run_folder).as_posix()} {name}".rstrip(), value


def _of_npz(path: Path) -> Iterator[tuple[str, str]]:
    with open_npz(path) as archive:
        for name in archive.members:
            if name != METADATA and not DURATION.search(name):
                yield current_array(name), _of_array(archive.read(name))
        yield from _of_values(metadata_of(archive), "")


def _of_weights(path: Path) -> Iterator[tuple[str, str]]:
    with content_of(path, "no such file", "a network") as content:
        found = list(_of_values(content, ""))
    yield from found


def _of_json(path: Path) -> Iterator[tuple[str, str]]:
    content = read_json(path)
    if path.name == MISSING_ARMS:  # which ones are missing; why is a sentence
        content = sorted(map(current_arm, content))
    yield from _of_values(content, "")


def _of_csv(path: Path) -> Iterator[tuple[str, str]]:
    with path.open(newline="", encoding="utf-8") as file:
        yield from _of_values(list(csv.DictReader(file)), "")


READERS = {".npz": _of_npz, ".pt": _of_weights, ".json": _of_json, ".csv": _of_csv}


def _of_values(content: Any, name: str) -> Iterator[tuple[str, str]]:
    """Yield plain values and tensors, at any depth, each under its path."""
    if isinstance(content, Mapping):
        for key, value in content.items():
            if key not in NOT_DECIDING and not DURATION.search(str(key)):
                yield from _of_values(value, f"{name}.{current_arm(str(key))}".lstrip("."))
    elif isinstance(content, torch.Tensor):
        yield name, _of_array(content.contiguous().numpy())
    elif isinstance(content, list | tuple) and any(isinstance(one, Mapping) for one in content):
        for index, row in enumerate(content):
            names = (row[key] for key in ROW_KEYS if isinstance(row, Mapping) and key in row)
            keys = [current_arm(str(name)) for name in names]
            yield from _of_values(row, f"{name}[{' '.join(keys) or index}]")
    elif isinstance(content, list | tuple) and any(
        isinstance(one, list | tuple | torch.Tensor) for one in content
    ):
        for index, part in enumerate(content):
            yield from _of_values(part, f"{name}[{index}]")
    else:
        yield name, repr(current_arm(content) if isinstance(content, str) else content)


def _of_array(array: np.ndarray) -> str:
    """Return type, shape and hash of an array in little-endian C order."""
    plain = np.ascontiguousarray(array, dtype=array.dtype.newbyteorder("<"))
    return f"{array.dtype} {array.shape} {hashlib.sha256(plain.tobytes()).hexdigest()}"
