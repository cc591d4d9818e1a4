"""The record of a job of a plan, and whether it still holds."""

from collections.abc import Sequence
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


def is_done(run_folder: Path, job: PlannedJob, jobs: Sequence[PlannedJob]) -> bool:
    """Return whether a job's record holds: same parameters, code, inputs, and its outputs whole."""
    try:
        record: dict[str, Any] = read_json(run_folder / job.done)
    except StudyError:
        return False
    files = [run_folder / name for name in (job.executed, *job.outputs)]
    inputs = [run_folder / name for name in inputs_of(job, jobs)]
    if not all(path.is_file() for path in (*files, *inputs)):
        return False
    expected = {
        "status": "done",
        "parameters": dict(job.parameters),
        "code": code_digest(job.notebook),
        "sha256": hashes_of(files, run_folder),
        "inputs": hashes_of(inputs, run_folder),
    }
    return {name: record.get(name) for name in expected} == expected
