"""A job of a plan: its record, its lock, its evidence, and which files are its own."""

import json
import math
import os
import socket
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path, PurePosixPath
from typing import Any

import nbformat
from filelock import FileLock, Timeout

from study_lib.errors import LastingError, StudyError
from study_lib.files import hashes_of, manifest_jobs, open_to_append, read_json, write_json
from study_lib.phases.records import manifests_of, utc_now
from study_lib.runs.plan import PlannedJob
from study_lib.runs.staleness import code_of

# --- The record, and whether it still holds


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
    made_for = record.get("design")
    if not isinstance(made_for, dict) or made_for.get("part_digest") != job.design_part:
        return "it was made by another design"
    return _difference_of_code(record, code_of(job.notebook))


def _difference_of_code(record: Mapping[str, Any], now: Mapping[str, Any]) -> str:
    """Return in what a record's code is not the present one: sources, packages, what was loaded."""
    made_with, loaded = record.get("code"), record.get("versions")
    packages: Any = made_with.get("packages") if isinstance(made_with, dict) else None
    if not isinstance(packages, dict):
        return "its code has changed"
    if isinstance(loaded, dict):
        packages = {name: loaded.get(name, version) for name, version in packages.items()}
    if packages != now["packages"]:
        changed = sorted(dict(packages.items() ^ now["packages"].items()))
        return f"another version is installed of {', '.join(changed)}"
    return "" if made_with == now else "its code has changed"


def reason_to_run(run_folder: Path, job: PlannedJob) -> str:
    """Return why a job has to run; empty if its record, its inputs and its outputs all hold."""
    record = read_record(run_folder / job.done)
    difference = _difference(record, job)
    if difference:
        return difference
    for kind, names, recorded in (
        ("output", [job.executed, *job.outputs], record.get("sha256")),
        ("input", job.inputs, record.get("inputs")),
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


def is_done(run_folder: Path, job: PlannedJob) -> bool:
    """Return whether a job's record is current, its inputs the same and its outputs whole."""
    return not reason_to_run(run_folder, job)


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
            reason = reason_to_run(run_folder, job)
        if reason:
            reasons[job.name] = reason
    return reasons


def computed_with(run_folder: Path, job: PlannedJob, since: str) -> dict[str, list[str]]:
    """Return devices, threads and precisions that the records of a job's work name.

    Parameters
    ----------
    run_folder
        The run.
    job
        Whose work.
    since
        When the job began: older records are of earlier tries.
    """
    found: dict[str, set[str]] = {"device": set(), "threads": set(), "precision": set()}
    for _, record in records_of_work(run_folder, [job]):
        if record["started"] < since:
            continue
        for name, values in found.items():
            value = {**record["results"], **record["machine"]}.get(name)
            values.update([str(value)] if value is not None else [])
    return {name: sorted(values) for name, values in found.items()}


def records_of_work(
    run_folder: Path, plan: Sequence[PlannedJob]
) -> Iterator[tuple[PlannedJob, dict[str, Any]]]:
    """Yield each record of work that was done, from the phases' manifests, with its job."""
    owned = owned_places(plan)
    for manifest in manifests_of(run_folder):
        phase = manifest.parent.relative_to(run_folder).as_posix()
        for key, record in manifest_jobs(manifest).items():
            job = job_owning(f"{phase}/{key}", owned)
            if job and record.get("status") == "done":
                yield job, record


# --- What a notebook has to leave before its job is done


def check_evidence(run_folder: Path, job: PlannedJob, executed: nbformat.NotebookNode) -> None:
    """Check that a notebook which ran to its end has left all that its job promises.

    Raises
    ------
    LastingError
        If a file is missing, figures are too few, or a metric is absent or not a finite number.
    """
    missing = [path for path in job.outputs if not (run_folder / path).is_file()]
    if missing:
        raise LastingError(f"{job.name}: ran to its end but did not write {', '.join(missing)}")
    figures = sum(
        "image/png" in output.get("data", {})
        for cell in executed.cells
        if cell.cell_type == "code"
        for output in cell.outputs
    )
    if figures < job.figures:
        raise LastingError(
            f"{job.name}: ran to its end with {figures} figures, needs {job.figures}"
        )
    for path, names in job.metrics.items():
        content = read_json(run_folder / path)
        for name in names:
            values = list(_values_of(content, name))
            if not values or not all(_is_finite(value) for value in values):
                found = f"holds {values[:3]}" if values else "is missing"
                raise LastingError(
                    f"{job.name}: ran to its end but {name} in {path} {found}; it has to be a "
                    "finite number"
                )


def _values_of(content: Any, name: str) -> Iterator[Any]:
    """Yield every value with a name, at any depth; those of a list one by one.

    Mappings and texts under that name describe the metric or its figure.
    """
    if isinstance(content, list):
        for part in content:
            yield from _values_of(part, name)
    elif isinstance(content, dict):
        for key, value in content.items():
            if key == name:
                values = value if isinstance(value, list) else [value]
                yield from (one for one in values if not isinstance(one, dict | str))
            else:
                yield from _values_of(value, name)


def _is_finite(value: Any) -> bool:
    is_number = isinstance(value, int | float) and not isinstance(value, bool)
    return is_number and math.isfinite(value)


# --- One writer per job: it holds a lock beside the record, and says who it is

LOOK_S = 1.0
SCHEDULER_IDS = {"SLURM_JOB_ID": "SLURM", "PBS_JOBID": "PBS"}
ARRAY_JOB, ARRAY_TASK = "SLURM_ARRAY_JOB_ID", "SLURM_ARRAY_TASK_ID"


@contextmanager
def only_writer(
    run_folder: Path,
    job: PlannedJob,
    say: Callable[[str], None],
    environment: Mapping[str, str] = os.environ,
) -> Iterator[None]:
    """Hold the lock of a job for a block; wait for any other holder, on this machine or another.

    The system frees the lock when its holder ends, however it ends. On shared folders that takes a
    file system with locks across machines.
    """
    lock_path, running = run_folder / job.lock, run_folder / job.running
    lock_path.parent.mkdir(parents=True, exist_ok=True)
    lock = FileLock(lock_path)
    try:
        lock.acquire(timeout=0)
    except Timeout:
        say(f"{job.name}: is being run by {holder_of(run_folder, job)}; waiting for its end")
        lock.acquire(poll_interval=LOOK_S)
    ids = [(name, environment[key]) for key, name in SCHEDULER_IDS.items() if key in environment]
    scheduler, number = ids[0] if ids else (None, None)
    if ARRAY_TASK in environment:  # `squeue` and `scancel` know it by its place in the array
        number = f"{environment[ARRAY_JOB]}_{environment[ARRAY_TASK]}"
    try:
        write_json(running, this_process() | {"scheduler": scheduler, "id": number})
        yield
    finally:
        running.unlink(missing_ok=True)
        lock.release()


def is_held(run_folder: Path, job: PlannedJob) -> bool:
    """Return whether a process holds the lock of a job."""
    path = run_folder / job.lock
    if not path.exists():
        return False
    try:
        with FileLock(path, timeout=0):
            return False
    except Timeout:
        return True


def holder_of(run_folder: Path, job: PlannedJob) -> str:
    """Return who says that it runs a job: scheduler's number, process, machine."""
    return writer_of(run_folder / job.running)


def this_process() -> dict[str, Any]:
    """Return what others can read about this process while it works in a folder."""
    return {"host": socket.gethostname(), "pid": os.getpid(), "since": utc_now()}


def writer_of(path: Path) -> str:
    """Return who wrote a record of :func:`this_process`, with a scheduler's number if any."""
    record = read_record(path)
    if not record:
        return "another process"
    number = f"{record['scheduler']} {record['id']}, " if record.get("scheduler") else ""
    return f"{number}process {record.get('pid')} on {record.get('host')}"


# --- What became of the jobs, line by line: of thousands of files each would have to be looked for

STATES_FILE = "jobs/states.jsonl"
BEGUN, DONE, FAILED = "begun", "done", "failed"


def note_state(run_folder: Path, job: PlannedJob, state: str) -> None:
    """Add to the run's list of what became of its jobs that one has begun, is done or failed.

    The list only shows progress, and no job fails where it cannot be written: what is done is said
    by the record of each job.
    """
    path = run_folder / STATES_FILE
    line = json.dumps({"job": job.name, "state": state})
    # A full disk costs the progress a line, and no job its result.
    with suppress(OSError), FileLock(path.with_suffix(".lock")), open_to_append(path) as states:
        states.write(f"\n{line}\n")  # a writer that was killed may have left half a line


class States:
    """What became of the jobs of a run since this was made, read as the list grows."""

    def __init__(self, run_folder: Path) -> None:
        self._path = run_folder / STATES_FILE
        self._read_bytes = self._path.stat().st_size if self._path.is_file() else 0
        self.by_job: dict[str, str] = {}

    def update(self) -> None:
        """Read what was added."""
        if not self._path.is_file():
            return
        with self._path.open("rb") as states:
            states.seek(self._read_bytes)
            *lines, unfinished = states.read().split(b"\n")
            self._read_bytes = states.tell() - len(unfinished)
        for line in lines:
            with suppress(ValueError, KeyError, TypeError):  # empty, or half a line
                entry = json.loads(line)
                self.by_job[str(entry["job"])] = str(entry["state"])

    def having(self, state: str) -> set[str]:
        """Return the names of the jobs whose last state is this one."""
        return {name for name, last in self.by_job.items() if last == state}


# --- Which job a file of a run belongs to


def owned_places(jobs: Sequence[PlannedJob]) -> dict[PurePosixPath, PlannedJob]:
    """Return the jobs of a plan by what is theirs alone: folder, executed notebook, record."""
    return {
        place: job
        for job in jobs
        for place in (
            PurePosixPath(job.folder),
            PurePosixPath(job.executed),
            PurePosixPath(job.done).parent,
        )
    }


def job_owning(place: str, owned: Mapping[PurePosixPath, PlannedJob]) -> PlannedJob | None:
    """Return the job that a file or folder of a run belongs to: the one with the nearest place.

    What several jobs write, or none, has no owner: the manifests of phases, designs, the plan, the
    report.

    Parameters
    ----------
    place
        Relative to the run's folder.
    owned
        From :func:`owned_places`.
    """
    path = PurePosixPath(place)
    return next((owned[one] for one in (path, *path.parents) if one in owned), None)
