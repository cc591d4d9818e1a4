"""Results of other runs that decide to the same: found by what made them, copied, verified.

A job's result is another run's if its notebook has the same parameters, the same part of the design
decides it, the code that it reaches and the packages are the same, its inputs have the same hashes,
and it was computed in the type and on the kind of device that would be used here.
"""

import os
import shutil
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from study_lib.files import (
    atomic_path,
    manifest_jobs,
    merge_record,
    read_json,
    sha256_of,
    write_json,
)
from study_lib.phases.conditions import claim_root, runs_within
from study_lib.phases.records import manifests_of
from study_lib.runs.job import (
    is_current,
    job_owning,
    owned_places,
    read_record,
    reason_to_run,
)
from study_lib.runs.plan import PlannedJob
from study_lib.runs.run import DESIGN_FILE, Run, left_out

LARGE = (".npz", ".pt")  # linked where the disk allows it; the library never writes into a file
THREADS_OF_A_JOB = "1"
MADE_ANEW = ("00_design", "06_summary")  # they tell of the whole run


@dataclass(frozen=True)
class Found:
    """A job that another run has done: whose, and the hashes of its outputs there."""

    run_folder: Path
    sha256: Mapping[str, str]


def reusable(run_folder: Path, jobs: Sequence[PlannedJob]) -> dict[str, Found]:
    """Return, by its name, each job that is not done here and that a run beside this one has done.

    By the records alone: that the files are still those is checked when they are taken.

    Parameters
    ----------
    run_folder
        The run, which need not exist; the runs beside it are looked through, the newest first.
    jobs
        Its plan.
    """
    others = _runs_beside(run_folder)
    outputs: dict[str, str] = {}  # hashes of what the jobs of this run have, or would take
    found: dict[str, Found] = {}
    for job in jobs:
        own = read_record(run_folder / job.done)
        if is_current(own, job) and isinstance(own.get("sha256"), dict):
            outputs |= own["sha256"]
            continue
        one = _first(others, job, outputs)
        if one is not None:
            found[job.name] = one
            outputs |= one.sha256
    return found


def take(run: Run, jobs: Sequence[PlannedJob]) -> dict[str, str]:
    """Copy what other runs have done into a run; return from which run each job was taken.

    A result whose files are not as they were recorded is left, and its job runs here. Each record
    says from which run it is.

    Parameters
    ----------
    run
        The run, with its design.
    jobs
        Its plan.
    """
    others = _runs_beside(run.folder)
    owned = owned_places(jobs)
    taken: dict[str, str] = {}
    outputs: dict[str, str] = {}
    for job in jobs:
        if not reason_to_run(run.folder, job):
            outputs |= read_record(run.folder / job.done)["sha256"]
            continue
        one = _first(others, job, outputs)
        if one is None or not _is_whole(one):
            continue
        _copy(one.run_folder, run.folder, job, owned)
        if reason_to_run(run.folder, job):  # spoilt on the way: it runs here
            (run.folder / job.done).unlink(missing_ok=True)
            continue
        taken[job.name] = one.run_folder.name
        outputs |= one.sha256
    if any(job.notebook == "01_dataset" for job in jobs if job.name in taken):
        for within in runs_within(run.design):
            root = Run(run.folder / within.folder, within.design).root("dataset")
            if root.is_dir():
                claim_root(root, within.design)
    return taken


def _runs_beside(run_folder: Path) -> list[Path]:
    """Return the folders of the other runs in the same reports, the newest first."""
    own = run_folder.resolve()
    found = [
        path.parent
        for path in run_folder.parent.glob(f"*/{DESIGN_FILE}")
        if path.parent.resolve() != own and not left_out(path.parent)
    ]
    return sorted(found, key=lambda path: (path / DESIGN_FILE).stat().st_mtime, reverse=True)


def _first(others: Sequence[Path], job: PlannedJob, outputs: Mapping[str, str]) -> Found | None:
    """Return the first run that has done a job from the same inputs."""
    if job.notebook in MADE_ANEW:
        return None
    if not all(name in outputs for name in job.inputs):
        return None
    inputs = {name: outputs[name] for name in job.inputs}
    for folder in others:
        record = read_record(folder / job.done)
        sha256, found = record.get("sha256"), record.get("inputs")
        if (
            is_current(record, job)
            and isinstance(sha256, dict)
            and found == inputs
            and _is_computed_as_here(record)
        ):
            return Found(folder, sha256)
    return None


def _is_computed_as_here(record: Mapping[str, Any]) -> bool:
    """Return whether a record is of a device, a type and threads that this machine would use."""
    made: Any = record.get("computed_with")
    if not isinstance(made, dict):
        return False
    if any(one != THREADS_OF_A_JOB for one in made.get("threads", [])):
        return False
    devices, precisions = set(made.get("device", [])), set(made.get("precision", []))
    if not devices - {"cpu"} and not precisions:
        return True
    from study_lib.networks.machine import device_of, half_precision_on  # imports torch

    device = device_of("auto")
    here = "bfloat16" if half_precision_on(device, "auto") else "float32"
    return devices <= {"cpu", str(device)} and precisions <= {here, "float32"}


def _is_whole(found: Found) -> bool:
    """Return whether the files of a result still have the hashes that were recorded."""
    for name, sha256 in found.sha256.items():
        try:
            if sha256_of(found.run_folder / name) != sha256:
                return False
        except OSError:
            return False
    return True


def _copy(source: Path, target: Path, job: PlannedJob, owned: Mapping[Any, PlannedJob]) -> None:
    """Copy the files and records of a job; its own record last, which says where it is from."""
    for name in _files_of(source, job, owned):
        _bring(source / name, target / name)
    for manifest in manifests_of(source):
        place = manifest.relative_to(source)
        for key, record in manifest_jobs(manifest).items():
            if job_owning(f"{place.parent.as_posix()}/{key}", owned) is job:
                merge_record(target / place, key, record)
    record = read_json(source / job.done)
    record["taken_from"] = record.get("taken_from") or source.name
    write_json(target / job.done, record)


def _files_of(source: Path, job: PlannedJob, owned: Mapping[Any, PlannedJob]) -> Iterator[str]:
    """Yield the files of a run that are a job's own, but for its record and its locks."""
    places = [source / job.folder, source / job.executed, (source / job.done).parent]
    for place in places:
        for path in [place, *place.rglob("*")] if place.is_dir() else [place]:
            name = path.relative_to(source).as_posix()
            is_own = job_owning(name, owned) is job
            is_passing = path.suffix == ".lock" or name in (job.done, job.running)
            if path.is_file() and not path.is_symlink() and is_own and not is_passing:
                yield name


def _bring(source: Path, target: Path) -> None:
    """Link a large file, or copy it; whatever is there is replaced."""
    target.parent.mkdir(parents=True, exist_ok=True)
    with atomic_path(target) as temporary:
        if source.suffix in LARGE:
            with suppress(OSError):  # another disk, or one without links: copied instead
                temporary.unlink(missing_ok=True)
                os.link(source, temporary)
                return
        shutil.copyfile(source, temporary)


def counted_runs(taken: Mapping[str, str]) -> str:
    """Return from which runs jobs are taken, and how many from each, in words."""
    counts: dict[str, int] = {}
    for name in taken.values():
        counts[name] = counts.get(name, 0) + 1
    return ", ".join(f"{count} from {name}" for name, count in sorted(counts.items()))
