"""The record of a job of a plan, and whether it still holds."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from study_lib.errors import InputError, StudyError
from study_lib.files import hashes_of, read_json
from study_lib.runs.plan import PLAN_FILE, PlannedJob
from study_lib.runs.staleness import code_of


def job_of(jobs: Sequence[PlannedJob], name: str, run_folder: Path) -> PlannedJob:
    """Return a job of a plan by name.

    Raises
    ------
    InputError
        If the plan has no such job.
    """
    for job in jobs:
        if job.name == name:
            return job
    raise InputError(f"job {name!r} is not in {run_folder / PLAN_FILE}; see `study plan`")


def inputs_of(job: PlannedJob, jobs: Sequence[PlannedJob]) -> list[str]:
    """Return the outputs of the jobs that a job waits for, relative to the run's folder."""
    return [path for one in jobs if one.name in job.after for path in one.outputs]


def read_record(path: Path) -> dict[str, Any]:
    """Return the record of a job; empty if there is none that can be read."""
    try:
        record = read_json(path)
    except StudyError:  # then the job counts as not done, and runs again
        return {}
    return record if isinstance(record, dict) else {}


def is_current(record: Mapping[str, Any], job: PlannedJob) -> bool:
    """Return whether a record is of this job: its parameters, its code and its packages."""
    return not _difference(record, job)


def _difference(record: Mapping[str, Any], job: PlannedJob) -> str:
    """Return in what a record is not of a job as it is now; empty if in nothing."""
    if record.get("status") != "done":
        return "it has not been done"
    if record.get("parameters") != dict(job.parameters):
        return "its parameters have changed"
    made_with, now = record.get("code"), code_of(job.notebook)
    if made_with == now:
        return ""
    packages: Any = made_with.get("packages") if isinstance(made_with, dict) else None
    if not isinstance(packages, dict) or packages == now["packages"]:
        return "its code has changed"
    changed = sorted(dict(packages.items() ^ now["packages"].items()))
    return f"another version is installed of {', '.join(changed)}"


def reason_to_run(run_folder: Path, job: PlannedJob, jobs: Sequence[PlannedJob]) -> str:
    """Return why a job has to run; empty if its record, its inputs and its outputs all hold."""
    record = read_record(run_folder / job.done)
    difference = _difference(record, job)
    if difference:
        return difference
    for kind, names, recorded in (
        ("output", [job.executed, *job.outputs], record.get("sha256")),
        ("input", inputs_of(job, jobs), record.get("inputs")),
    ):
        missing = [name for name in names if not (run_folder / name).is_file()]
        if missing:
            return f"its {kind} {missing[0]} is missing"
        found = hashes_of([run_folder / name for name in names], run_folder)
        if recorded != found:
            known = recorded if isinstance(recorded, dict) else {}
            changed = [name for name in found if known.get(name) != found[name]]
            return f"its {kind} {(changed or names)[0]} has changed"
    return ""


def is_done(run_folder: Path, job: PlannedJob, jobs: Sequence[PlannedJob]) -> bool:
    """Return whether a job's record is current, its inputs the same and its outputs whole."""
    return not reason_to_run(run_folder, job, jobs)


def jobs_to_do(run_folder: Path, jobs: Sequence[PlannedJob]) -> dict[str, str]:
    """Return the names of the jobs that would run, and why, in the order of the plan.

    A job that waits for one of them is among them: its input may be another one then.
    """
    reasons: dict[str, str] = {}
    for job in jobs:
        before = [name for name in job.after if name in reasons]
        if before and is_current(read_record(run_folder / job.done), job):
            reason = f"{before[0]} runs before it"
        else:
            reason = reason_to_run(run_folder, job, jobs)
        if reason:
            reasons[job.name] = reason
    return reasons
