"""The study on a real SLURM of one node: whole runs, a killed engine, a job ended from outside."""

import itertools
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path

import loopback
import pandas as pd
import pytest
from killing import working_in
from tiny_runs import processes_of

from study_lib.runs.cluster import PROFILES, run_tag
from study_lib.runs.digest import digest_of_run
from study_lib.runs.evidence import faults_of_run
from study_lib.runs.plan import read_plan
from study_lib.runs.rules import PLAN_FILE

pytestmark = [pytest.mark.slurm, pytest.mark.slow, pytest.mark.notebook]

UNPACKED = Path(__file__).resolve().parents[2] / ".slurm"
CORES = 2
SETTINGS = (
    "views=[{name: baseline, gridsize: 1}]",
    "training.epochs=2",
    "training.steps_min=60",
    "iterative.epochs=3",
)
LAST_S = 400


@pytest.fixture(scope="module")
def cluster() -> Iterator[dict[str, str]]:
    if reason := loopback.why_not(UNPACKED):
        pytest.skip(reason)
    with loopback.slurm(UNPACKED, CORES) as environment:
        yield environment


def study(
    *words: str, cwd: Path, cluster: dict[str, str], interrupt: signal.Handlers = signal.SIG_DFL
) -> subprocess.Popen:
    return subprocess.Popen(
        [sys.executable, "-m", "study_lib", *words],
        cwd=cwd,
        env=cluster,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
        preexec_fn=lambda: signal.signal(signal.SIGINT, interrupt),  # noqa: PLW1509  # no threads here
    )


def start(
    folder: Path, cluster: dict[str, str], interrupt: signal.Handlers = signal.SIG_DFL
) -> subprocess.Popen:
    changes = [part for setting in SETTINGS for part in ("--set", setting)]
    words = ("run", "--preset", "smoke", "--profile", "slurm", *changes)
    return study(*words, cwd=folder, cluster=cluster, interrupt=interrupt)


def ended(process: subprocess.Popen) -> str:
    """Return what a command printed that ended well."""
    output, errors = process.communicate(timeout=LAST_S)
    assert process.returncode == 0, output[-2000:] + errors[-3000:]
    return output


def queue(cluster: dict[str, str], run_folder: Path) -> list[dict[str, str]]:
    """Return every job that SLURM has had of a run, those that ended too."""
    names = {
        "id": "%i",
        "name": "%j",
        "state": "%T",
        "job": "%k",
        "start": "%S",
        "end": "%e",
        "memory": "%m",
    }
    asked = ["squeue", "--noheader", "--states=all", "--format=" + "|".join(names.values())]
    answer = subprocess.run(asked, env=cluster, capture_output=True, text=True, check=True)
    rows = [dict(zip(names, line.split("|"), strict=True)) for line in answer.stdout.splitlines()]
    return [row for row in rows if row["name"].startswith(run_tag(run_folder))]


def run_folder_of(folder: Path, seconds: float = 60) -> Path:
    """Return the folder of the run that was started in a folder, as soon as it has a plan."""
    return wait_for(lambda: next(folder.glob(f"reports/*/{PLAN_FILE}"), None), seconds).parent


def wait_for(found, seconds: float = 60):
    """Return what a function finds, as soon as it does."""
    deadline = time.monotonic() + seconds
    while not (result := found()):
        assert time.monotonic() < deadline, "waited in vain"
        time.sleep(0.2)
    return result


def in_state(cluster: dict[str, str], run_folder: Path, *states: str) -> list[dict[str, str]]:
    return [row for row in queue(cluster, run_folder) if row["state"] in states]


def kill_amid(folder: Path, cluster: dict[str, str]) -> tuple[Path, list[dict[str, str]]]:
    """Kill an engine while two of its jobs run; return its run and the jobs it left behind."""
    process = start(folder, cluster)
    run_folder = run_folder_of(folder)
    wait_for(lambda: len(in_state(cluster, run_folder, "RUNNING")) == CORES)
    wait_for(lambda: len(list(run_folder.glob("jobs/*/running.json"))) == CORES)
    os.kill(process.pid, signal.SIGKILL)
    process.communicate()
    time.sleep(1)
    left = in_state(cluster, run_folder, "RUNNING", "PENDING")
    assert left, "SLURM's jobs outlive their engine; here they did not"
    return run_folder, left


def no_job_ran_twice_at_a_time(cluster: dict[str, str], run_folder: Path) -> bool:
    spans = defaultdict(list)
    for row in queue(cluster, run_folder):
        if row["start"] != "N/A":
            spans[row["job"]].append((row["start"], row["end"]))
    return all(
        before[1] <= after[0]
        for each in spans.values()
        for before, after in itertools.pairwise(sorted(each))
    )


@pytest.fixture(scope="module")
def left_alone(tmp_path_factory, cluster) -> Path:
    """A run that nobody disturbed."""
    folder = tmp_path_factory.mktemp("left_alone")
    ended(start(folder, cluster))
    return run_folder_of(folder)


def test_every_job_of_a_run_is_a_job_of_slurm_and_the_run_is_whole(cluster, left_alone):
    rows = queue(cluster, left_alone)

    assert len(rows) == len(processes_of(left_alone))
    assert {row["state"] for row in rows} == {"COMPLETED"}
    assert faults_of_run(left_alone) == []
    assert ended(study("verify", str(left_alone), cwd=left_alone, cluster=cluster))
    assert list(left_alone.glob("jobs/*/running.json")) == []


def test_resume_waits_for_the_jobs_of_a_killed_engine(tmp_path, cluster, left_alone):
    """None is submitted again, none runs twice at a time, and the results are the same."""
    run_folder, left = kill_amid(tmp_path, cluster)

    said = ended(
        study("resume", str(run_folder), "--profile", "slurm", cwd=tmp_path, cluster=cluster)
    )

    assert "still live, waiting for them" in said
    assert all(f"SLURM {row['id']}," in said for row in left)
    rows = queue(cluster, run_folder)
    names = [row["job"] for row in rows]
    assert all(names.count(row["job"]) == 1 for row in left)
    assert {row["state"] for row in rows} == {"COMPLETED"}
    assert no_job_ran_twice_at_a_time(cluster, run_folder)
    assert faults_of_run(run_folder) == []
    assert digest_of_run(run_folder) == digest_of_run(left_alone)


def test_resume_can_end_the_jobs_of_a_killed_engine(tmp_path, cluster, left_alone):
    run_folder, left = kill_amid(tmp_path, cluster)

    ended(
        study(
            "resume",
            str(run_folder),
            "--profile",
            "slurm",
            "--cancel",
            cwd=tmp_path,
            cluster=cluster,
        )
    )

    states = {row["id"]: row["state"] for row in queue(cluster, run_folder)}
    assert {states[row["id"]] for row in left} <= {"CANCELLED", "COMPLETED"}
    assert "CANCELLED" in states.values()
    assert no_job_ran_twice_at_a_time(cluster, run_folder)
    assert digest_of_run(run_folder) == digest_of_run(left_alone)


def test_a_job_that_was_ended_from_outside_is_tried_again_with_more_memory(
    tmp_path, cluster, left_alone
):
    process = start(tmp_path, cluster)
    run_folder = run_folder_of(tmp_path)
    wait_for(lambda: list(run_folder.glob("jobs/03_train__*/running.json")), 120)
    (training,) = [
        row
        for row in in_state(cluster, run_folder, "RUNNING")
        if "rule_train_wildcards" in row["job"]
    ]

    subprocess.run(["scancel", training["id"]], env=cluster, check=True)
    ended(process)

    first, second = [
        row for row in queue(cluster, run_folder) if "rule_train_wildcards" in row["job"]
    ]
    first, second = sorted((first, second), key=lambda row: int(row["id"]))
    assert first["state"] == "CANCELLED"
    assert second["state"] == "COMPLETED"
    assert int(second["memory"].rstrip("M")) == 2 * int(first["memory"].rstrip("M"))
    assert digest_of_run(run_folder) == digest_of_run(left_alone)


@pytest.mark.parametrize("whole_terminal", [False, True], ids=["terminated", "Ctrl-C"])
def test_a_run_that_is_stopped_takes_its_jobs_along(tmp_path, cluster, whole_terminal):
    """In the background of a script a process ignores Ctrl-C; a request to terminate ends it."""
    process = start(tmp_path, cluster, signal.SIG_DFL if whole_terminal else signal.SIG_IGN)
    run_folder = run_folder_of(tmp_path)
    wait_for(lambda: len(list(run_folder.glob("jobs/*/running.json"))) == CORES)

    if whole_terminal:
        os.killpg(process.pid, signal.SIGINT)
    else:
        process.terminate()
    _, errors = process.communicate(timeout=60)

    assert process.returncode == 130, errors
    wait_for(lambda: not in_state(cluster, run_folder, "RUNNING", "PENDING", "COMPLETING"), 30)
    assert list(run_folder.glob("jobs/*/done.json")) == []
    wait_for(lambda: not working_in(tmp_path), 10)


def in_arrays(cluster: dict[str, str], run_folder: Path) -> set[str]:
    """Return the numbers of the arrays that SLURM has had of a run."""
    ids = (row["id"].partition("_") for row in queue(cluster, run_folder))
    return {array for array, is_task, _ in ids if is_task}


def started(run_folder: Path) -> dict[str, str]:
    """Return when each job began that is done."""
    records = run_folder.glob("jobs/*/done.json")
    return {path.parent.name: json.loads(path.read_text())["started"] for path in records}


def test_a_sweep_of_points_runs_as_arrays_and_goes_on_after_it_was_killed(tmp_path, cluster):
    """60 points of dose and overlap, smallest size, the solver alone: a kernel for each job."""
    profile = shutil.copytree(PROFILES / "slurm", tmp_path / "arrays")
    with (profile / "config.yaml").open("a") as config:
        config.write("slurm-array-jobs: all\n")
    sweep = ("--sobol", "60", "--doses", "1e3..1e5", "--overlaps", "0.2..0.7")
    alone = ("training=null", "thinned=null", "iterative.algorithms=[solver]")
    changes = [part for setting in alone for part in ("--set", setting)]
    words = ("run", "--preset", "smoke", *sweep, *changes, "--profile", str(profile))
    process = study(*words, cwd=tmp_path, cluster=cluster)
    run_folder = run_folder_of(tmp_path, 120)
    wait_for(lambda: len(list(run_folder.glob("jobs/04_*/done.json"))) >= 60, 1800)
    os.kill(process.pid, signal.SIGKILL)
    process.communicate()
    done_before = started(run_folder)

    again = study(
        "resume", str(run_folder), "--profile", str(profile), cwd=tmp_path, cluster=cluster
    )
    output, errors = again.communicate(timeout=2400)

    assert again.returncode == 0, output[-2000:] + errors[-3000:]
    jobs = read_plan(run_folder / PLAN_FILE)
    assert 120 <= len(done_before) < len(jobs)
    assert faults_of_run(run_folder) == []
    assert done_before.items() <= started(run_folder).items(), "nothing ran twice"
    assert len(in_arrays(cluster, run_folder)) >= 4, "datasets, overlaps, objects, comparisons"
    assert started(run_folder).keys() == {job.name for job in jobs}
    table = pd.read_csv(run_folder / "phase_h_summary" / "study_table.csv")
    assert len(table[table["arm"] == "solver"]) == 2 * 60, "a row for each point and split"
