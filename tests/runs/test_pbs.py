"""The study through the PBS profile, on a PBS that only pretends: qsub, qstat, qdel, qselect."""

import json
import os
import shutil
import subprocess
import sys
import time
from pathlib import Path

import fake_pbs
import pytest
from tiny_runs import only_run, processes_of

from study_lib.errors import InputError
from study_lib.runs.cluster import PROFILES, cancel, live_jobs, profile_folder, run_tag
from study_lib.runs.evidence import faults_of_run

SETTINGS = (
    "views=[{name: baseline, gridsize: 1}]",
    "training.epochs=2",
    "training.steps_min=60",
    "iterative.algorithms=[solver]",
    "thinned=null",
)
STATUS = PROFILES / "pbs" / "status.sh"

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="PBS and its scripts are Unix's")


@pytest.fixture
def jobs_of_pbs(tmp_path, monkeypatch) -> Path:
    """Put the pretended PBS on the path; return the folder with a record of each of its jobs."""
    programs = fake_pbs.install(tmp_path / "programs")
    folder = tmp_path / "pbs"
    folder.mkdir()
    monkeypatch.setenv("PATH", f"{programs}:{os.environ['PATH']}")
    monkeypatch.setenv("FAKE_PBS", str(folder))
    return folder


def submit(name: str, script: Path, text: str) -> str:
    script.write_text(f"#!/bin/sh\n{text}\n")
    script.chmod(0o755)
    asked = ["qsub", "-N", name, str(script)]
    return subprocess.run(asked, capture_output=True, text=True, check=True).stdout.strip()


def status_of(number: str) -> str:
    answer = subprocess.run([str(STATUS), number], capture_output=True, text=True, check=True)
    return answer.stdout.strip()


def wait_until(happens, seconds: float = 20) -> None:
    deadline = time.monotonic() + seconds
    while not happens():
        assert time.monotonic() < deadline, "waited in vain"
        time.sleep(0.1)


@pytest.mark.slow
@pytest.mark.notebook
def test_a_run_through_pbs_is_whole_and_each_job_asks_for_what_it_needs(tmp_path, jobs_of_pbs):
    """The profile as it is, but asked more often."""
    profile = tmp_path / "my_cluster"
    shutil.copytree(PROFILES / "pbs", profile)
    text = (profile / "config.yaml").read_text()
    seldom = "seconds-between-status-checks: 10"
    assert seldom in text
    (profile / "config.yaml").write_text(text.replace(seldom, seldom.replace("10", "1")))
    changes = [part for setting in SETTINGS for part in ("--set", setting)]

    result = subprocess.run(
        [
            *(sys.executable, "-m", "study_lib", "run", "--preset", "smoke"),
            *("--profile", str(profile), "--cores", "2", *changes),
        ],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=False,
    )

    assert result.returncode == 0, result.stdout[-2000:] + result.stderr[-2000:]
    run_folder = only_run(tmp_path / "reports")
    assert faults_of_run(run_folder) == []
    records = [json.loads(path.read_text()) for path in jobs_of_pbs.glob("*.json")]
    assert len(records) == len(processes_of(run_folder))
    assert {record["name"] for record in records} == {run_tag(run_folder)}
    assert {record["exit"] for record in records} == {0}
    asked = {" ".join(record["asked"]) for record in records}
    assert all(one.startswith("select=1:ncpus=1:mem=") for one in asked)
    assert any("walltime=11:00" in one for one in asked)


def test_jobs_that_an_engine_left_on_pbs_are_found_and_can_be_ended(tmp_path, jobs_of_pbs):
    mine = submit(run_tag(tmp_path), tmp_path / "mine", "exec sleep 60")
    submit("study-another", tmp_path / "other", "exec sleep 3")
    wait_until(lambda: "group" in (jobs_of_pbs / f"{mine}.json").read_text())

    live = live_jobs(tmp_path, [], must_answer=True)
    assert [job.number for job in live] == [mine]

    cancel(live)
    wait_until(lambda: live_jobs(tmp_path, [], must_answer=True) == [])
    assert status_of(mine) == "failed"


@pytest.mark.slow
@pytest.mark.parametrize(("text", "status"), [("exit 0", "success"), ("exit 3", "failed")])
def test_status_tells_how_a_job_ended(tmp_path, jobs_of_pbs, text, status):
    number = submit("x", tmp_path / "script", f"sleep 1; {text}")

    assert status_of(number) == "running"
    wait_until(lambda: status_of(number) != "running")

    assert status_of(number) == status


def test_a_job_that_pbs_has_forgotten_is_judged_by_what_it_wrote(jobs_of_pbs):
    assert status_of("77.here") == "success"


def test_without_qsub_the_profile_is_refused_before_anything_starts(tmp_path, monkeypatch):
    monkeypatch.setenv("PATH", str(tmp_path))

    with pytest.raises(InputError, match="no qsub on this machine; log in to a node"):
        profile_folder("pbs")


def test_a_pbs_that_does_not_answer_is_asked_again(tmp_path, monkeypatch):
    broken = tmp_path / "qstat"
    broken.write_text("#!/bin/sh\necho 'Connection refused' >&2\nexit 111\n")
    broken.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")

    assert status_of("1.here") == "running"
