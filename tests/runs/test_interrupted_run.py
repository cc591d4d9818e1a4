"""A run that is killed again and again ends with the same results as one that was left alone."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from killing import command, done_jobs, engine_of, left_after
from tiny_runs import only_run

from study_lib.runs.digest import digest_of_run
from study_lib.runs.evidence import faults_of_run

pytestmark = [pytest.mark.slow, pytest.mark.notebook]

KILLS = 5
SETTINGS = (
    "patch_size_px=16",
    "views=[{name: baseline, gridsize: 1}]",
    "training.epochs=2",
    "training.steps_min=60",
    "iterative.algorithms=[solver]",
    "thinned.steps=4",
)


# Spaces, letters of many languages, what a shell would take for its own, over 200 characters.
ODD = Path("Ordner mit Leerzeichen", "数据 и данные", "it's 'quoted' & $HOME", "x" * 120, "runs")
IN_EVERY_NOTEBOOK = "mean photons per pattern"  # let it be a secret


def start(folder: Path, base: Path, reports: Path) -> subprocess.Popen:
    changes = [part for setting in SETTINGS for part in ("--set", setting)]
    words = ("--preset", "smoke", "--base-npz", str(base), "--reports", str(reports))
    return command("run", *words, *changes, cwd=folder)


def wait_for_work(process: subprocess.Popen, run_folder: Path, finished_jobs: int) -> None:
    """Wait until some jobs of a run have been done, and one is being run."""
    deadline = time.monotonic() + 180
    while not (
        list(run_folder.glob("jobs/*/running.json")) and len(done_jobs(run_folder)) >= finished_jobs
    ):
        assert process.poll() is None, process.communicate()[1]
        assert time.monotonic() < deadline
        time.sleep(0.1)


@pytest.fixture
def linked_base(tmp_path, base_file):
    source, _ = base_file(rows_px=80.0)
    link = tmp_path / "linked base.npz"
    link.symlink_to(source)
    return link


@pytest.mark.skipif(sys.platform != "linux", reason="looks for processes in /proc")
def test_five_kills_change_no_result_lose_no_job_and_leave_no_process(
    tmp_path, linked_base, study, monkeypatch
):
    """Nor does the folder, however odd; and a secret in a notebook is named at the end."""
    left_alone = tmp_path / "left_alone"
    killed = tmp_path / "killed"
    left_alone.mkdir()
    killed.mkdir()
    monkeypatch.setenv("UPLOAD_TOKEN", IN_EVERY_NOTEBOOK)
    long_place = tmp_path / ("t" * 90)  # too long for a socket in it
    long_place.mkdir()
    monkeypatch.setenv("TMPDIR", str(long_place))
    process = start(left_alone, linked_base, ODD)
    monkeypatch.delenv("TMPDIR")
    _, errors = process.communicate(timeout=1200)  # of a slow machine
    assert process.returncode == 0, errors
    assert "notebooks/01_dataset__dose_10000.ipynb holds the value of $UPLOAD_TOKEN" in errors
    assert "do not publish it" in errors
    assert IN_EVERY_NOTEBOOK not in errors
    expected = only_run(left_alone / ODD)
    assert len(str(expected)) > 200
    assert study("verify", expected).code == 0
    random = np.random.default_rng(11)

    finished: dict[str, str] = {}
    run_folder = killed / "reports" / expected.name
    for number in range(KILLS):
        process = (
            start(killed, linked_base, Path("reports"))
            if number == 0
            else command("resume", str(run_folder), cwd=killed)
        )
        wait_for_work(process, run_folder, finished_jobs=number // 2)
        time.sleep(random.uniform(0, 5))
        if number == 1:
            os.kill(engine_of(process.pid), signal.SIGKILL)
            process.communicate(timeout=60)
            assert process.returncode == 1
        else:
            process.kill()
            process.communicate()
            assert process.returncode == -signal.SIGKILL
        assert left_after(killed) == [], f"kill {number}"
        now = done_jobs(run_folder)
        assert finished.items() <= now.items(), "a job that had finished ran again"
        finished = now
    assert len(finished) >= 2
    process = command("resume", str(run_folder), cwd=killed)
    _, errors = process.communicate(timeout=1200)  # of a slow machine

    assert process.returncode == 0, errors
    assert finished.items() <= done_jobs(run_folder).items()
    assert faults_of_run(run_folder) == []
    assert digest_of_run(run_folder) == digest_of_run(expected)
