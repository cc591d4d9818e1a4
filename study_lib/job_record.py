"""The record of a job of a plan, and whether it still holds."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from study_lib.errors import InputError, StudyError
from study_lib.files import hashes_of, read_json
from study_lib.plan import PLAN_FILE, PlannedJob, code_digest


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
    """Return whether a record is of this job with these parameters and this code."""
    expected = {
        "status": "done",
        "parameters": dict(job.parameters),
        "code": code_digest(job.notebook),
    }
    return {name: record.get(name) for name in expected} == expected


def is_done(run_folder: Path, job: PlannedJob, jobs: Sequence[PlannedJob]) -> bool:
    """Return whether a job's record is current, its inputs the same and its outputs whole."""
    record = read_record(run_folder / job.done)
    if not is_current(record, job):
        return False
    files = [run_folder / name for name in (job.executed, *job.outputs)]
    inputs = [run_folder / name for name in inputs_of(job, jobs)]
    if not all(path.is_file() for path in (*files, *inputs)):
        return False
    return bool(
        record.get("sha256") == hashes_of(files, run_folder)
        and record.get("inputs") == hashes_of(inputs, run_folder)
    )
