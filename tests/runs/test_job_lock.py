"""One writer per job: a second one waits, and finds the work done."""

import json
import os
import signal
import subprocess
import sys
import threading
import time
from dataclasses import replace

import pytest

from study_lib.design.presets import load_design
from study_lib.errors import InputError, StudyError
from study_lib.files import write_json
from study_lib.runs.engine import run_plan
from study_lib.runs.job import holder_of, is_held, only_writer
from study_lib.runs.notebook import run_jobs
from study_lib.runs.plan import plan_content, plan_jobs
from study_lib.runs.progress import leftovers_of, status_lines
from study_lib.runs.rules import PLAN_FILE
from study_lib.runs.run import create_run

HOLD = """
import sys, time
from pathlib import Path
from study_lib.runs.job import only_writer
from study_lib.runs.plan import read_plan
folder = Path(sys.argv[1])
with only_writer(folder, read_plan(folder / "plan.json")[0], print):
    print("held", flush=True)
    time.sleep(float(sys.argv[2]))
"""


@pytest.fixture
def design_job(tmp_path):
    """The folder of a run whose plan is its first job alone, and that job."""
    run = create_run(tmp_path / "run", load_design("smoke"))
    job = plan_jobs(run.design)[0]
    write_json(run.folder / PLAN_FILE, plan_content([job]))
    return run.folder, job


def holder(folder, seconds):
    """Start a process that holds the lock of the first job for a while."""
    process = subprocess.Popen(
        [sys.executable, "-c", HOLD, str(folder), str(seconds)],
        stdout=subprocess.PIPE,
        text=True,
    )
    assert process.stdout.readline() == "held\n"
    return process


@pytest.mark.slow
def test_a_second_writer_waits_and_says_for_whom(design_job):
    folder, job = design_job
    first = holder(folder, 2)
    said = []
    started = time.monotonic()

    with only_writer(folder, job, said.append):
        assert first.wait(timeout=5) == 0
        assert time.monotonic() - started > 1

    assert f"{job.name}: is being run by process {first.pid} on" in said[0]
    assert not is_held(folder, job)
    assert not (folder / job.running).exists()


def test_a_killed_writer_leaves_no_lock(design_job):
    folder, job = design_job
    first = holder(folder, 60)
    assert is_held(folder, job)

    first.send_signal(signal.SIGKILL)
    first.wait()

    assert not is_held(folder, job)
    with only_writer(folder, job, pytest.fail):
        assert str(os.getpid()) in holder_of(folder, job)


def test_the_record_of_a_running_job_names_its_number_on_a_cluster(design_job):
    folder, job = design_job

    with only_writer(folder, job, pytest.fail, environment={"SLURM_JOB_ID": "4711"}):
        record = json.loads((folder / job.running).read_text())
        assert (record["scheduler"], record["id"], record["pid"]) == ("SLURM", "4711", os.getpid())
        assert holder_of(folder, job).startswith("SLURM 4711, process")


@pytest.mark.slow
def test_an_engine_lets_jobs_of_an_earlier_one_end_before_it_begins(design_job):
    folder, job = design_job
    first = holder(folder, 60)
    timer = threading.Timer(3, first.kill)
    timer.start()
    said = []

    def say(text):
        said.append((text, first.poll() is None))

    run_plan(folder, [job], 1, say)

    timer.join()
    first.wait()
    assert said[0][0].startswith("jobs of an earlier `study run` still live, waiting for them")
    assert f"process {first.pid}" in said[0][0]
    assert not any(first_lives for text, first_lives in said if "jobs done" in text)
    assert "1/1 jobs done" in said[-1][0]


@pytest.mark.slow
def test_of_two_processes_with_one_job_one_finds_it_done(design_job):
    folder, job = design_job
    words = [sys.executable, "-m", "study_lib", "job", str(folder), job.name]
    both = [subprocess.Popen(words, stdout=subprocess.PIPE, text=True) for _ in range(2)]

    outputs = [process.communicate(timeout=120)[0] for process in both]

    assert [process.returncode for process in both] == [0, 0]
    assert sum("waiting for its end" in output for output in outputs) == 1
    events = (folder / job.folder / "events.jsonl").read_text()
    assert events.count('"start kernel"') == 1


@pytest.mark.slow
def test_a_failure_that_would_come_again_is_not_tried_again(design_job):
    """The view of a data set that was never generated: its input is missing."""
    folder, _ = design_job
    design = load_design("smoke")
    (job,) = (one for one in plan_jobs(design) if one.name == "02_overlap__dose_10000__dense")
    write_json(folder / PLAN_FILE, plan_content([replace(job, after=())]))
    with pytest.raises(StudyError, match="no such file"):
        run_jobs(folder, [job.name])
    written = (folder / job.failed).stat().st_mtime_ns
    events = (folder / job.folder / "events.jsonl").read_text()

    with pytest.raises(StudyError, match=r"not tried again: cell \d+ failed: .*no such file"):
        run_jobs(folder, [job.name], attempt=2)

    assert (folder / job.folder / "events.jsonl").read_text() == events, "no kernel"
    assert (folder / job.failed).stat().st_mtime_ns == written


def test_a_job_left_behind_is_told_and_nothing_of_it_is_cleaned_away(design_job):
    folder, job = design_job
    first = holder(folder, 60)

    lines = status_lines(folder, [job])
    with pytest.raises(InputError, match="is being run"):
        leftovers_of(folder)
    first.kill()
    first.wait()

    assert "not being run" in lines[0]
    assert any(f"left behind: {job.name}, process {first.pid} on" in line for line in lines)
    assert folder / job.running in leftovers_of(folder)
    assert not any("left behind" in line for line in status_lines(folder, [job]))
