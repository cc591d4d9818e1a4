"""One writer per job: whoever runs it holds a lock beside its record, and says who it is."""

import os
import socket
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout

from study_lib.files import write_json
from study_lib.phases.records import utc_now
from study_lib.runs.job import read_record
from study_lib.runs.plan import PlannedJob

LOOK_S = 1.0
SCHEDULER_IDS = {"SLURM_JOB_ID": "SLURM", "PBS_JOBID": "PBS"}


@contextmanager
def only_writer(
    run_folder: Path,
    job: PlannedJob,
    say: Callable[[str], None],
    environment: Mapping[str, str] = os.environ,
) -> Iterator[None]:
    """Hold the lock of a job for a block; wait for another holder, whoever and wherever it is.

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
    """Return what others are told of this process while it works in a folder."""
    return {"host": socket.gethostname(), "pid": os.getpid(), "since": utc_now()}


def writer_of(path: Path) -> str:
    """Return who wrote a record of :func:`this_process`, with a scheduler's number if any."""
    record = read_record(path)
    if not record:
        return "another process"
    number = f"{record['scheduler']} {record['id']}, " if record.get("scheduler") else ""
    return f"{number}process {record.get('pid')} on {record.get('host')}"
