"""A run that is killed again and again ends with the same results as one that was left alone."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from run_results import results_of

from study_lib.evidence import faults_of_run

pytestmark = [pytest.mark.slow, pytest.mark.notebook]

KILLS = 5
SETTINGS = (
    "views=[{name: baseline, gridsize: 1}]",
    "training.epochs=2",
    "training.steps_min=60",
    "iterative.epochs=3",
)


def command(*words: str, cwd: Path) -> subprocess.Popen:
    return subprocess.Popen(
        [sys.executable, "-m", "study_lib", *words],
        cwd=cwd,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
    )


def start(folder: Path) -> subprocess.Popen:
    changes = [part for setting in SETTINGS for part in ("--set", setting)]
    return command("run", "--preset", "smoke", *changes, cwd=folder)


def working_in(folder: Path) -> list[str]:
    """Return the processes whose working folder lies below a folder."""
    found = []
    for entry in Path("/proc").iterdir():
        try:
            place = str((entry / "cwd").readlink()) if entry.name.isdigit() else ""
        except OSError:
            continue
        if place.startswith(str(folder)):
            found.append(entry.name)
    return found


def done_jobs(run_folder: Path) -> dict[str, int]:
    return {
        path.parent.name: path.stat().st_mtime_ns for path in run_folder.glob("jobs/*/done.json")
    }


@pytest.mark.skipif(sys.platform != "linux", reason="looks for processes in /proc")
def test_five_kills_change_no_result_lose_no_job_and_leave_no_process(tmp_path):
    left_alone = tmp_path / "left_alone"
    killed = tmp_path / "killed"
    left_alone.mkdir()
    killed.mkdir()
    process = start(left_alone)
    _, errors = process.communicate(timeout=300)
    assert process.returncode == 0, errors
    (expected,) = (left_alone / "reports").iterdir()
    random = np.random.default_rng(11)

    finished: dict[str, int] = {}
    run_folder = killed / "reports" / expected.name
    for number in range(KILLS):
        process = start(killed) if number == 0 else command("resume", str(run_folder), cwd=killed)
        time.sleep(random.uniform(3, 9))
        os.kill(process.pid, signal.SIGKILL)
        process.communicate()
        deadline = time.monotonic() + 5
        while working_in(killed) and time.monotonic() < deadline:
            time.sleep(0.1)
        assert working_in(killed) == [], f"kill {number}"
        now = done_jobs(run_folder)
        assert finished.items() <= now.items(), "a job that had finished ran again"
        finished = now
    process = command("resume", str(run_folder), cwd=killed)
    _, errors = process.communicate(timeout=300)

    assert process.returncode == 0, errors
    assert finished.items() <= done_jobs(run_folder).items()
    assert faults_of_run(run_folder) == []
    assert results_of(run_folder) == results_of(expected)
