"""What a run says of itself while it runs, and what is swept away when it has failed."""

import json
import os

import pytest
from filelock import FileLock

from study_lib.design.presets import load_design
from study_lib.errors import InputError, StudyError
from study_lib.files import merge_record, sha256_of, write_json, write_text
from study_lib.runs import evidence as seals
from study_lib.runs.evidence import faults_of_run, faults_of_seal, seal
from study_lib.runs.job import only_writer
from study_lib.runs.plan import plan_jobs
from study_lib.runs.progress import (
    LOCK_FILE,
    is_being_run,
    leftovers_of,
    remove,
    running_jobs,
    states_of,
    status_lines,
)
from study_lib.runs.run import create_run


@pytest.fixture
def run(tmp_path):
    return create_run(tmp_path / "run", load_design("smoke"))


def test_status_counts_jobs_and_tells_why_one_failed(run):
    jobs = plan_jobs(run.design)
    write_json(run.folder / jobs[0].done, {})
    write_json(run.folder / jobs[1].failed, {"error": "cell 3 failed: no probe"})

    lines = status_lines(run.folder, jobs)

    total = len(jobs)
    assert f"1 of {total} jobs done, 1 failed, {total - 2} to do; not being run" in lines[0]
    assert "  00_design        1/1" in lines
    assert f"  failed: {jobs[1].name}: cell 3 failed: no probe" in lines
    assert states_of(run.folder, jobs)[jobs[2].name] == "to do"


def test_status_of_a_run_that_is_being_run_shows_what_runs(run):
    """Of two jobs that have begun, the one that nobody runs any more was interrupted."""
    jobs = plan_jobs(run.design)
    for job in jobs[1:3]:
        events = run.folder / job.folder / "events.jsonl"
        events.parent.mkdir(parents=True)
        event = {"phase": "generate", "step": 1, "total": 2}
        events.write_text(json.dumps(event) + "\n")
        write_json(run.folder / job.running, {"pid": 1})

    with FileLock(run.folder / LOCK_FILE), only_writer(run.folder, jobs[1], print):
        assert is_being_run(run.folder)
        lines = status_lines(run.folder, jobs)

    assert not is_being_run(run.folder)
    assert lines[0].endswith("; being run by another process")
    running = [line for line in lines if line.startswith("  running: ")]
    assert running == [f"  running: {jobs[1].name.replace('__', ' ')}: generate 1/2"]


def test_a_reconstruction_names_the_arm_that_runs_now(run):
    jobs = plan_jobs(run.design)
    job = next(job for job in jobs if job.notebook == "04_reconstruct")
    for place, phase, time_s in (
        (".", "start kernel", 1),
        ("solver", "solver", 2),
        ("lsqml", "LSQML", 3),
    ):
        events = run.folder / job.folder / place / "events.jsonl"
        events.parent.mkdir(parents=True, exist_ok=True)
        events.write_text(json.dumps({"phase": phase, "step": 4, "total": 9, "loss": 0.5}) + "\n")
        os.utime(events, (time_s, time_s))

    with only_writer(run.folder, job, print):
        statuses = running_jobs(run.folder, jobs)

    assert statuses == [f"{job.name.replace('__', ' ')}: LSQML 4/9 loss 0.5"]


def test_leftovers_are_failed_tries_and_locks_and_nothing_else(run):
    kept = run.folder / "notebooks" / "01_dataset.ipynb"
    gone = [
        run.folder / "notebooks" / "01_dataset.failed.ipynb",
        run.folder / "notebooks" / ".01_dataset.part.ipynb",
        run.folder / "phase_g_comparison" / ".comparison_manifest.json.lock",
        run.folder / "jobs" / "01_dataset" / "failed.json",
    ]
    for path in (kept, *gone):
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(b"1234")

    found = leftovers_of(run.folder)

    assert found == sorted(gone)
    assert remove(found) == 4 * len(gone)
    assert kept.is_file()
    assert (run.folder / "design.json").is_file()
    assert not any(path.exists() for path in gone)


def test_links_among_leftovers_go_and_what_they_lead_to_stays(run, tmp_path):
    """A link in place of a leftover is one; a folder of the run that is a link is not entered."""
    elsewhere = tmp_path / "elsewhere"
    for place in ("checkpoints", "notebooks"):
        (elsewhere / place).mkdir(parents=True)
        (elsewhere / place / "a.failed.ipynb").write_bytes(b"1234")
    checkpoints = run.folder / "jobs" / ".ipynb_checkpoints"
    checkpoints.parent.mkdir()
    checkpoints.symlink_to(elsewhere / "checkpoints")
    (run.folder / "notebooks").symlink_to(elsewhere / "notebooks")

    found = leftovers_of(run.folder)
    remove(found)

    assert found == [checkpoints]
    assert not checkpoints.is_symlink()
    assert len(list(elsewhere.rglob("*.failed.ipynb"))) == 2


def test_a_leftover_in_a_folder_of_leftovers_goes_with_it(run):
    folder = run.folder / "notebooks" / ".ipynb_checkpoints"
    folder.mkdir(parents=True)
    (folder / "a.lock").write_bytes(b"1234")

    found = leftovers_of(run.folder)

    assert remove(found) == 4
    assert not folder.exists()


def test_a_run_that_is_being_run_is_not_cleaned(run):
    with (
        FileLock(run.folder / LOCK_FILE),
        pytest.raises(InputError, match="is being run; wait for it"),
    ):
        leftovers_of(run.folder)


def test_a_seal_names_what_was_changed_added_or_lost(run):
    (run.folder / "a.txt").write_text("a")
    (run.folder / "b.txt").write_text("b")
    assert "not finished" in faults_of_seal(run.folder)["seal.json"]
    seal(run.folder)
    assert faults_of_seal(run.folder) == {}

    (run.folder / "a.txt").write_text("A")
    (run.folder / "b.txt").unlink()
    (run.folder / "c.txt").symlink_to("nowhere")

    faults = faults_of_seal(run.folder)
    assert {name: fault.split(":")[0] for name, fault in faults.items()} == {
        "a.txt": "differs from seal.json",
        "b.txt": "missing",
        "c.txt": "extra",
    }


def test_links_that_lead_to_no_file_are_faults_beside_the_others(run):
    names = ("a.txt", "b.txt", "c.txt")
    for name in names:
        (run.folder / name).write_text(name)
    seal(run.folder)

    (run.folder / "c.txt").write_text("C")
    for name, target in (("a.txt", "."), ("b.txt", "nowhere")):
        (run.folder / name).unlink()
        (run.folder / name).symlink_to(target)

    faults = faults_of_seal(run.folder)
    assert {name: fault.split(";")[0] for name, fault in faults.items()} == {
        "a.txt": "cannot be read as a file",
        "b.txt": "cannot be read as a file",
        "c.txt": "differs from seal.json",
    }
    with pytest.raises(StudyError, match=r"not sealed.*\na\.txt: cannot .*\nb\.txt: cannot"):
        seal(run.folder)


def test_a_file_that_many_records_name_is_hashed_once_and_missed_once(run, monkeypatch):
    shared, lost = run.folder / "phase_c_data" / "shared.npz", "phase_c_data/lost.npz"
    write_text(shared, "shared")
    inputs = {"../phase_c_data/shared.npz": sha256_of(shared), f"../{lost}": "0" * 64}
    for phase in ("phase_d", "phase_e"):
        manifest = run.folder / phase / "d_manifest.json"
        for key in ("one", "other"):
            merge_record(manifest, key, {"status": "done", "inputs": inputs, "outputs": {}})
    seal(run.folder)
    read = []
    monkeypatch.setattr(seals, "sha256_of", lambda path: read.append(path) or sha256_of(path))

    faults = faults_of_run(run.folder)

    assert [fault for fault in faults if fault.startswith("phase_")] == [f"{lost}: missing"]
    assert read.count(shared) == 1


def test_a_seal_that_is_not_as_it_was_written_holds_nothing(run):
    seal(run.folder)
    path = run.folder / "seal.json"
    whole = path.read_text()

    for text in (whole + " ", whole.replace("sha256", "sha255"), "{", "[]", "{}"):
        path.write_text(text)
        assert list(faults_of_seal(run.folder)) == ["seal.json"], text


def test_status_follows_a_run_until_nobody_runs_it(run, study, monkeypatch):
    """It prints again only what has changed."""
    monkeypatch.setattr("study_lib.cli.runs.FOLLOW_S", 0.0)
    looks = iter([True, True, True, False])
    monkeypatch.setattr("study_lib.runs.progress.is_being_run", lambda _: next(looks))
    statuses = iter([["0 of 2"], ["0 of 2"], ["1 of 2"], ["2 of 2"]])
    monkeypatch.setattr("study_lib.runs.progress.status_lines", lambda *_: next(statuses))

    code, printed, _ = study("status", run.folder, "--follow")

    assert code == 0
    assert printed.split("\n") == ["0 of 2", "1 of 2", "2 of 2", ""]
