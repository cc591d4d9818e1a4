"""The progress of a run, and the files it leaves behind that are no evidence."""

import json
import shutil
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout

from study_lib.errors import InputError
from study_lib.runs.job import holder_of, is_held, read_record, writer_of
from study_lib.runs.plan import PlannedJob, read_plan
from study_lib.runs.rules import PLAN_FILE
from study_lib.runs.run import open_run

# --- Read from what jobs leave behind while they run

LOCK_FILE = ".engine.lock"
ENGINE_FILE = ".engine.json"  # who holds the lock


def is_being_run(run_folder: Path) -> bool:
    """Return whether a process holds the run's lock."""
    if not (run_folder / LOCK_FILE).exists():
        return False
    try:
        with FileLock(run_folder / LOCK_FILE, timeout=0):
            return False
    except Timeout:
        return True


def running_jobs(run_folder: Path, jobs: Sequence[PlannedJob]) -> list[str]:
    """Return one text for each job that a process runs now: it holds the job's lock."""
    texts = []
    for job in jobs:
        # To ask for a lock is to take it for a moment: only where a holder is on record.
        if not (run_folder / job.running).is_file() or not is_held(run_folder, job):
            continue
        ended = (run_folder / job.done).is_file() or (run_folder / job.failed).is_file()
        events = None if ended else newest_events(run_folder / job.folder)
        event = None if events is None else last_event(events)
        if event is None:
            continue
        loss = f" loss {event['loss']:.4g}" if "loss" in event else ""
        name = job.name.replace("__", " ")
        texts.append(f"{name}: {event['phase']} {event['step']}/{event['total']}{loss}")
    return texts


def newest_events(folder: Path) -> Path | None:
    """Return the events file below a job's folder that was written last.

    A job has its own, and one for each arm whose folder lies deeper.
    """
    found = list(folder.rglob("events.jsonl"))
    return max(found, key=lambda path: path.stat().st_mtime_ns, default=None)


def last_event(path: Path) -> dict[str, Any] | None:
    """Return the last whole line of an events file, if there is one yet and it is an event."""
    lines = path.read_bytes().split(b"\n")[:-1]
    return event_of(lines[-1]) if lines else None


def event_of(line: bytes) -> dict[str, Any] | None:
    """Return the event in a line of an events file, none if something else is written there."""
    try:
        event = json.loads(line)
    except (ValueError, RecursionError):  # a line may be half written while it is read
        return None
    if not isinstance(event, dict) or not isinstance(event.get("phase"), str):
        return None
    numbers = [event.get("step"), event.get("total"), event.get("loss", 0.0)]
    return event if all(isinstance(number, int | float) for number in numbers) else None


def states_of(run_folder: Path, jobs: Sequence[PlannedJob]) -> dict[str, str]:
    """Return ``done``, ``failed`` or ``to do`` for each job by name."""
    states = {}
    for job in jobs:
        done = (run_folder / job.done).is_file()
        failed = (run_folder / job.failed).is_file()
        states[job.name] = "done" if done else "failed" if failed else "to do"
    return states


def status_lines(run_folder: Path, jobs: Sequence[PlannedJob]) -> list[str]:
    """Return the progress of a run: counts by notebook, what runs, what failed and why."""
    states = states_of(run_folder, jobs)
    counts = Counter(states.values())
    by_whom = f"being run by {writer_of(run_folder / ENGINE_FILE)}"
    activity = by_whom if is_being_run(run_folder) else "not being run"
    lines = [
        f"{run_folder}: {counts['done']} of {len(jobs)} jobs done, {counts['failed']} failed, "
        f"{counts['to do']} to do; {activity}"
    ]
    for notebook in dict.fromkeys(job.notebook for job in jobs):
        part = [states[job.name] for job in jobs if job.notebook == notebook]
        lines.append(f"  {notebook:16s} {part.count('done')}/{len(part)}")
    if is_being_run(run_folder):
        lines += [f"  running: {text}" for text in running_jobs(run_folder, jobs)]
    else:
        left = [job for job in jobs if is_held(run_folder, job)]
        lines += [f"  left behind: {job.name}, {holder_of(run_folder, job)}" for job in left]
    for job in jobs:
        if states[job.name] == "failed":
            reason = read_record(run_folder / job.failed).get("error", "its record is damaged")
            lines.append(f"  failed: {job.name}: {reason}")
    return lines


# --- What is no evidence

PATTERNS = (
    "notebooks/*.failed.ipynb",
    "**/.*.part.ipynb",
    "**/.ipynb_checkpoints",
    "**/*.lock",
    ".engine.json",
    "jobs/*/failed.json",
    "jobs/*/running.json",
)


def leftovers_of(run_folder: Path) -> list[Path]:
    """Return files of failed tries, notebook checkpoints and locks, none beyond a link.

    What lies in a folder that is returned is not returned itself: it goes with the folder.

    Raises
    ------
    InputError
        If the folder holds no run, or one that is being run.
    """
    open_run(run_folder)
    plan = run_folder / PLAN_FILE
    jobs = read_plan(plan) if plan.is_file() else []
    if is_being_run(run_folder) or any(is_held(run_folder, job) for job in jobs):
        raise InputError(f"{run_folder} is being run; wait for it, or stop it first")
    found = {path for pattern in PATTERNS for path in run_folder.glob(pattern)}
    own = run_folder.resolve()
    inside = [path for path in found if path.parent.resolve().is_relative_to(own)]
    return sorted(path for path in inside if found.isdisjoint(path.parents))


def remove(paths: list[Path]) -> int:
    """Remove files, folders and links, not what links lead to; return how many bytes that frees."""
    freed = 0
    for path in paths:
        is_folder = path.is_dir() and not path.is_symlink()
        inside = [path, *path.rglob("*")] if is_folder else [path]
        freed += sum(one.lstat().st_size for one in inside if one.is_file())
        if is_folder:
            shutil.rmtree(path)
        else:
            path.unlink()
    return freed
