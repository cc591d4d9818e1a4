"""Runs that are started, killed and looked at from outside."""

import signal
import subprocess
import sys
import time
from pathlib import Path

from study_lib.runs.cluster import run_tag
from study_lib.runs.engine import TAG

SURVIVAL_S = 5.0  # what is promised: no process of a killed run lives longer


def command(*words: str, cwd: Path, stdout: int = subprocess.DEVNULL) -> subprocess.Popen:
    """Start the command line in a folder.

    Tests that a shell has put into the background ignore Ctrl-C, and would hand that on.
    """
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    process = subprocess.Popen(
        [sys.executable, "-m", "study_lib", *words],
        cwd=cwd,
        stdout=stdout,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,  # so that a signal to its group does not reach the test
    )
    signal.signal(signal.SIGINT, before)
    return process


def working_in(folder: Path) -> list[str]:
    """Return the processes of the runs below a folder, by their working folder or the run's tag."""
    runs = [design.parent for design in folder.rglob("design.json")]
    tags = {f"{TAG}={run_tag(run)}".encode() for run in runs}
    found = []
    for entry in Path("/proc").iterdir():
        try:
            place = str((entry / "cwd").readlink()) if entry.name.isdigit() else ""
            variables = (entry / "environ").read_bytes().split(b"\0") if place else ()
        except OSError:  # it has ended meanwhile, or is not ours
            continue
        if place.startswith(str(folder)) or tags.intersection(variables):
            found.append(entry.name)
    return found


def engine_of(process_id: int) -> int:
    """Return the process of Snakemake that a run has started, on Linux."""
    children = Path(f"/proc/{process_id}/task/{process_id}/children").read_text().split()
    (engine,) = (child for child in children if "snakemake" in words_of(child))
    return int(engine)


def words_of(process_id: int | str) -> str:
    """Return the command line of a process, on Linux; nothing of one that has ended."""
    try:
        return Path(f"/proc/{process_id}/cmdline").read_text().replace("\0", " ")
    except OSError:
        return ""


def forked_kernels_in(folder: Path) -> list[str]:
    """Return the forked kernels that work below a folder: their command is that of the server."""
    found = []
    for number in working_in(folder):
        try:
            place = str(Path(f"/proc/{number}/cwd").readlink())
        except OSError:  # it has ended meanwhile
            continue
        if place.startswith(str(folder)) and "kernel_forks" in words_of(number):
            found.append(number)
    return found


def has_ended(process_id: int, seconds: float = SURVIVAL_S) -> bool:
    """Return whether a process is gone within some seconds, or waits for its parent to notice."""
    deadline = time.monotonic() + seconds
    while True:
        try:
            state = Path(f"/proc/{process_id}/stat").read_text().rpartition(")")[2].split()[0]
        except OSError:
            return True
        if state == "Z" or time.monotonic() >= deadline:
            return state == "Z"
        time.sleep(0.05)


def left_after(folder: Path, seconds: float = SURVIVAL_S) -> list[str]:
    """Return the processes that work in a folder still after some seconds."""
    deadline = time.monotonic() + seconds
    while (left := working_in(folder)) and time.monotonic() < deadline:
        time.sleep(0.1)
    return left


def done_jobs(run_folder: Path) -> dict[str, str]:
    """Return the record of each finished job: when it ran, not when the engine touched the file."""
    return {path.parent.name: path.read_text() for path in run_folder.glob("jobs/*/done.json")}
