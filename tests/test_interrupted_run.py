"""A run that is killed again and again ends with the same results as one that was left alone."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from killing import command, done_jobs, left_after
from run_results import results_of

from study_lib.evidence import faults_of_run

pytestmark = [pytest.mark.slow, pytest.mark.notebook]

KILLS = 5
SETTINGS = (
    "views=[{name: baseline, gridsize: 1}]",
    "training.epochs=2",
    "training.steps_min=60",
    "iterative.algorithms=[solver]",
    "thinned.steps=4",
)


def start(folder: Path) -> subprocess.Popen:
    changes = [part for setting in SETTINGS for part in ("--set", setting)]
    return command("run", "--preset", "smoke", *changes, cwd=folder)


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

    finished: dict[str, str] = {}
    run_folder = killed / "reports" / expected.name
    for number in range(KILLS):
        process = start(killed) if number == 0 else command("resume", str(run_folder), cwd=killed)
        time.sleep(random.uniform(3, 9))
        os.kill(process.pid, signal.SIGKILL)
        process.communicate()
        assert left_after(killed) == [], f"kill {number}"
        now = done_jobs(run_folder)
        assert finished.items() <= now.items(), "a job that had finished ran again"
        finished = now
    process = command("resume", str(run_folder), cwd=killed)
    _, errors = process.communicate(timeout=300)

    assert process.returncode == 0, errors
    assert finished.items() <= done_jobs(run_folder).items()
    assert faults_of_run(run_folder) == []
    assert results_of(run_folder) == results_of(expected)
