"""Jobs that fail say why, keep their notebook, leave no half result and stop nothing else."""

import json
import os
import re
import signal
import socket
import sys
import time
from contextlib import nullcontext
from dataclasses import replace

import nbformat
import pytest
from filelock import FileLock
from killing import command, engine_of, forked_kernels_in, left_after, working_in

from study_lib.design.presets import load_design
from study_lib.errors import DiskFullError, InputError, StudyError
from study_lib.files import write_json
from study_lib.runs import engine
from study_lib.runs import notebook as runner
from study_lib.runs.engine import run_plan
from study_lib.runs.evidence import faults_of_run
from study_lib.runs.job import BEGUN, STATES_FILE, check_evidence, note_state
from study_lib.runs.kernels import SharedKernel
from study_lib.runs.notebook import execute_notebook, run_jobs
from study_lib.runs.plan import METRICS, PlannedJob, plan_content, plan_jobs
from study_lib.runs.progress import LOCK_FILE, last_event
from study_lib.runs.rules import PLAN_FILE
from study_lib.runs.run import create_run, open_or_create
from study_lib.system import PROJECT

pytestmark = pytest.mark.slow


@pytest.fixture
def run(tmp_path):
    """A run's folder with its design and nothing else."""
    return create_run(tmp_path / "run", load_design("smoke"))


def planned(run, name):
    """Return one job of the run's plan, which is written, without what it waits for."""
    (job,) = (job for job in plan_jobs(run.design) if job.name == name)
    alone = replace(job, after=())
    write_json(run.folder / PLAN_FILE, plan_content([alone]))
    return alone


def test_wrong_parameters_stop_before_a_kernel_starts(tmp_path, monkeypatch):
    monkeypatch.setattr("study_lib.runs.notebook.papermill", None)

    with pytest.raises(InputError, match="dos: unknown name; known here: dose, run_folder"):
        execute_notebook(
            "01_dataset", tmp_path / "out.ipynb", {"dos": 1.0}, tmp_path, SharedKernel()
        )

    assert list(tmp_path.iterdir()) == []


def test_a_failing_cell_is_named_and_its_notebook_kept(run):
    """The view of a data set that was never generated."""
    job = planned(run, "02_overlap__dose_10000__dense")

    with pytest.raises(StudyError, match=r"cell \d+ failed: .*no such file.*\.failed\.ipynb"):
        run_jobs(run.folder, [job.name])

    assert (run.folder / "notebooks" / f"{job.name}.failed.ipynb").is_file()
    assert not (run.folder / job.executed).exists()
    assert not (run.folder / job.done).exists()
    assert "no such file" in json.loads((run.folder / job.failed).read_text())["error"]


def test_a_notebook_without_its_evidence_has_failed(run):
    job = replace(planned(run, "00_design"), outputs=("phase_a_design/nothing.csv",))
    write_json(run.folder / PLAN_FILE, plan_content([job]))

    with pytest.raises(StudyError, match=r"did not write phase_a_design/nothing\.csv"):
        run_jobs(run.folder, [job.name])

    assert not (run.folder / job.done).exists()


def executed_with(figures: int) -> nbformat.NotebookNode:
    data = {"image/png": "", "text/plain": "<Figure>"}
    outputs = [nbformat.v4.new_output("display_data", data=data) for _ in range(figures)]
    return nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell("", outputs=outputs)])


@pytest.mark.parametrize(
    ("content", "figures", "message"),
    [
        ({"dense": {"rows": [{"phase_ssim": 0.5}, {"phase_ssim": 1}]}}, 1, None),
        ({"phase_ssim": [0.1, 0.2]}, 0, "with 0 figures, needs 1"),
        ({"ssim": 0.5}, 1, r"phase_ssim in metrics\.json is missing"),
        ({"rows": []}, 1, r"phase_ssim in metrics\.json is missing"),
        ([{"phase_ssim": 0.5}, {"phase_ssim": None}], 1, r"holds \[0\.5, None\]"),
        ({"phase_ssim": True}, 1, r"holds \[True\]; it has to be a finite number"),
    ],
)
def test_figures_and_finite_metrics_are_evidence(tmp_path, content, figures, message):
    """A notebook that ran to its end on nothing has no score to show."""
    (tmp_path / "metrics.json").write_text(json.dumps(content))
    job = PlannedJob(
        "job", "05_compare", {}, "", (), ".", ("metrics.json",), {"metrics.json": ("phase_ssim",)}
    )

    expected = pytest.raises(StudyError, match=message) if message else nullcontext()
    with expected:
        check_evidence(tmp_path, job, executed_with(figures))


def test_every_phase_with_scores_promises_them(run):
    promised = {job.notebook: job.metrics for job in plan_jobs(run.design)}

    simulated = METRICS.keys() - {"01_reference"}  # the reference of measured counts
    assert all(promised[name] for name in simulated)
    assert set(promised) - simulated == {"00_design", "01_dataset"}


def test_engine_reports_the_cause_and_still_runs_the_others(run):
    jobs = {job.name: job for job in plan_jobs(run.design)}
    dataset, fine = jobs["01_dataset__dose_10000"], jobs["00_design"]
    broken = replace(dataset, outputs=(*dataset.outputs, "never_written.npz"))
    said = []

    with pytest.raises(StudyError, match=r"1 jobs failed, 0 were not run") as caught:
        run_plan(run.folder, [broken, fine], 2, said.append)

    assert f"{broken.name}: ran to its end but did not write never_written" in str(caught.value)
    assert "Traceback" not in str(caught.value)
    assert (run.folder / fine.done).is_file()
    assert any("1/2 jobs done" in line for line in said)


def test_a_job_that_is_killed_has_failed_without_saying_why(run, monkeypatch):
    """One that had begun in an earlier run and waits for it now was not run."""
    killed, waiting = plan_jobs(run.design)[:2]
    note_state(run.folder, waiting, BEGUN)
    begun = json.dumps({"job": killed.name, "state": BEGUN})
    command = ["sh", "-c", 'echo "$1" >> "$0"; exit 137', str(run.folder / STATES_FILE), begun]
    monkeypatch.setattr(engine, "_command", lambda *_: command)

    with pytest.raises(StudyError, match=r"1 jobs failed, 1 were not run") as caught:
        run_plan(run.folder, [killed, waiting], 1, print)

    assert f"{killed.name}: ended without saying why" in str(caught.value)


@pytest.mark.parametrize("refused", ["execute_notebook", "check_evidence", "hashes_of"])
@pytest.mark.parametrize("error", [OSError("no answer"), DiskFullError("no answer")])
def test_a_fault_of_the_system_is_a_record_and_stops_no_other_job(run, monkeypatch, refused, error):
    """Whether papermill, the check or the record meets it."""
    jobs = plan_jobs(run.design)[:2]
    write_json(run.folder / PLAN_FILE, plan_content([replace(job, after=()) for job in jobs]))
    for name, answer in (
        ("execute_notebook", nbformat.v4.new_notebook()),
        ("check_evidence", None),
    ):
        monkeypatch.setattr(runner, name, lambda *_, answer=answer: answer)

    def refuse(*_):
        raise error

    monkeypatch.setattr(runner, refused, refuse)

    with pytest.raises(StudyError, match="no answer") as caught:
        run_jobs(run.folder, [job.name for job in jobs])

    assert all(f"{job.name}: no answer" in str(caught.value) for job in jobs)
    records = [json.loads((run.folder / job.failed).read_text()) for job in jobs]
    assert [(record["error"], record["lasts"]) for record in records] == [("no answer", False)] * 2


def test_a_folder_of_another_design_is_refused(run):
    other = load_design("smoke", ["seeds.simulation=1"])

    with pytest.raises(InputError, match="choose another folder or remove it"):
        create_run(run.folder, other)
    with pytest.raises(
        InputError, match="preset smoke, which differs from laptop in doses, iterat"
    ):
        open_or_create(run.folder, "laptop")


def test_a_preset_is_known_by_its_values_not_by_its_name(tmp_path, run):
    """A file of the same values is the same; a file of the same name may not be."""
    path = tmp_path / "smoke.yaml"
    text = (PROJECT / "parameters" / "presets" / "smoke.yaml").read_text(encoding="utf-8")
    path.write_text(text)

    assert open_or_create(run.folder, str(path)).design == run.design
    assert open_or_create(tmp_path / "new", str(path)) == open_or_create(
        tmp_path / "new", str(path)
    )
    path.write_text(text.replace("neighbor_count: 7", "neighbor_count: 8"))
    with pytest.raises(InputError, match=r"differs from .*smoke\.yaml in neighbor_count; choose"):
        open_or_create(run.folder, str(path))
    assert open_or_create(run.folder, None) == run
    with pytest.raises(InputError, match=r"no design\.json here"):
        open_or_create(tmp_path / "nothing", None)


def test_an_empty_events_file_is_no_event(tmp_path):
    events = tmp_path / "events.jsonl"
    events.write_text("")
    assert last_event(events) is None
    events.write_text('{"phase": "train", "step": 1, "total": 2}\n{"step"')
    assert last_event(events) == {"phase": "train", "step": 1, "total": 2}


def test_an_emptied_plan_does_not_make_a_run_complete(run):
    write_json(run.folder / PLAN_FILE, {"jobs": []})

    faults = faults_of_run(run.folder)

    assert "plan.json: is not the plan that this version makes of the design" in faults
    assert "06_summary: not done" in faults


# An engine that does not end when asked, and its job, bound to it as `study job` is.
DEAF = """
import os, signal, subprocess, sys, time
from pathlib import Path
signal.signal(signal.SIGTERM, signal.SIG_IGN)
os.environ.pop("STUDY_PARENT_PROCESS")
os.chdir(Path(sys.argv[1]).parent)
JOB = (
    "import signal, time; from study_lib.system import end_on_terminate, end_with_parent; "
    "end_on_terminate(1.0); end_with_parent(signal.SIGTERM); print(1, flush=True); time.sleep(600)"
)
job = subprocess.Popen([sys.executable, "-c", JOB], stdout=subprocess.PIPE)
job.stdout.readline()
Path(sys.argv[1]).touch()
time.sleep(600)
"""


@pytest.mark.skipif(sys.platform != "linux", reason="asks Linux to end children with their parent")
def test_an_engine_that_does_not_end_when_asked_is_ended_with_its_jobs(run, tmp_path, monkeypatch):
    """As Snakemake now and then: its handler waits for a lock that its own thread holds."""
    deaf, seen = tmp_path / "deaf", []
    command = [sys.executable, "-c", DEAF, str(deaf)]
    monkeypatch.setattr(engine, "_command", lambda *_: command)
    monkeypatch.setattr(engine, "STOP_S", 0.5)

    def stop_once_deaf(_):
        if deaf.is_file():
            seen.extend(working_in(tmp_path))
            raise KeyboardInterrupt

    monkeypatch.setattr(engine, "REPORT_S", 0.0)
    started = time.monotonic()
    with pytest.raises(KeyboardInterrupt):
        run_plan(run.folder, plan_jobs(run.design), 1, stop_once_deaf)

    assert time.monotonic() - started < 60
    assert len(set(seen)) == 3, "the engine, its job, and what forks kernels"
    assert left_after(tmp_path) == []


@pytest.fixture
def begun_run(tmp_path):
    """A `study run` whose first job has begun, in a kernel that was forked, and its folder."""
    process = command("run", "--preset", "smoke", cwd=tmp_path)
    deadline = time.monotonic() + 120
    while not forked_kernels_in(tmp_path):
        assert process.poll() is None, process.communicate()[1]
        assert time.monotonic() < deadline, "no job began"
        time.sleep(0.1)
    (folder,) = (design.parent for design in tmp_path.glob("reports/*/design.json"))
    yield process, folder
    process.kill()
    process.communicate()


on_linux = pytest.mark.skipif(
    sys.platform != "linux", reason="asks Linux to end children with their parent"
)


@on_linux
@pytest.mark.parametrize(
    ("number", "code"), [(signal.SIGTERM, 130), (signal.SIGINT, 130), (signal.SIGKILL, -9)]
)
def test_nothing_outlives_a_killed_run(begun_run, tmp_path, number, code):
    """Engine, job and kernel end soon after `study run`, however it ended."""
    process, folder = begun_run

    process.send_signal(number)
    _, error = process.communicate(timeout=30)

    assert process.returncode == code
    assert "Traceback" not in error
    assert ("the same command goes on from here" in error) == (code == 130)
    assert left_after(tmp_path) == []
    with FileLock(folder / LOCK_FILE, timeout=0):  # a dead owner leaves no lock
        pass


@on_linux
def test_a_killed_engine_fails_its_run(begun_run, tmp_path):
    process, _ = begun_run

    os.kill(engine_of(process.pid), signal.SIGKILL)
    _, error = process.communicate(timeout=60)

    assert process.returncode == 1
    first, *causes, _ = error.strip().splitlines()
    found = re.fullmatch(r"study: (\d) jobs failed, \d+ were not run; the same .* again", first)
    assert found, error
    assert len(causes) == int(found[1]) > 0
    assert all(cause.endswith(f": {engine.SILENT_END}") for cause in causes)
    assert left_after(tmp_path) == []


def test_a_folder_that_is_being_run_is_refused(begun_run, study):
    """Whether it is called by its preset or by its folder."""
    process, folder = begun_run

    for words in (("run", "--preset", "smoke"), ("resume", folder)):
        code, _, error = study(*words)
        assert code == 2
        assert f"is being run by process {process.pid} on {socket.gethostname()}; wait" in error

    assert f"being run by process {process.pid}" in study("status", folder).out
