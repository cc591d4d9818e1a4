"""What another run has done is taken from it, if it was made by the same; the rest runs here."""

import shutil
from collections import Counter
from pathlib import Path

import pytest

from study_lib.design.presets import load_design
from study_lib.files import read_json, write_json
from study_lib.runs.plan import plan_jobs
from study_lib.runs.reuse import reusable, take
from study_lib.runs.run import create_run

OF_ONE_DOSE = {
    "01_dataset": 1,
    "02_overlap": 2,
    "03_train": 2,
    "04_reconstruct": 4,
    "05_compare": 4,
}


@pytest.fixture
def beside(sealed_copy, sealed_settings):
    """Return a new run beside the finished one, of its design with some changes, and its jobs."""

    def made(*changes):
        design = load_design("smoke", [*sealed_settings, *changes])
        folder = sealed_copy.with_name(f"2026-01-01_new_{design.digest}")
        return create_run(folder, design), plan_jobs(design)

    return made


@pytest.fixture
def words(sealed_copy, sealed_settings) -> tuple[object, ...]:
    """Return the options of the finished run's design with one more dose, in its reports."""
    changes = [part for one in sealed_settings for part in ("--set", one)]
    reports = ("--reports", sealed_copy.parent)
    return ("--preset", "smoke", *changes, "--doses", "1e4,2e4", *reports)


def kinds(names) -> dict[str, int]:
    return dict(Counter(name.split("__")[0] for name in names))


def test_a_run_of_the_same_design_takes_everything_but_what_tells_of_the_whole_run(beside):
    run, jobs = beside()

    assert kinds(reusable(run.folder, jobs)) == OF_ONE_DOSE


def test_a_dose_that_is_added_leaves_what_was_done(beside):
    run, jobs = beside("doses=[1e4, 2e4]")

    found = reusable(run.folder, jobs)

    assert kinds(found) == OF_ONE_DOSE
    assert all("dose_10000" in name for name in found)


@pytest.mark.parametrize(
    ("change", "left"),
    [
        ("metrics.frc_threshold=0.4", {"05_compare"}),
        ("training.epochs=2", {"03_train", "05_compare"}),
        ("iterative.epochs=3", {"04_reconstruct", "05_compare"}),
        ("seeds.grouping=7", {"02_overlap", "03_train", "04_reconstruct", "05_compare"}),
        ("seeds.simulation=7", set(OF_ONE_DOSE)),
    ],
)
def test_what_a_change_decides_is_made_anew_and_nothing_else(change, left, beside):
    run, jobs = beside(change)

    found = kinds(reusable(run.folder, jobs))

    assert found == {name: count for name, count in OF_ONE_DOSE.items() if name not in left}


def test_what_is_taken_is_whole_and_says_from_where(beside, sealed_copy):
    run, jobs = beside()

    taken = take(run, jobs)

    assert kinds(taken) == OF_ONE_DOSE
    assert set(taken.values()) == {sealed_copy.name}
    for name in taken:
        record = read_json(run.folder / "jobs" / name / "done.json")
        assert record["taken_from"] == sealed_copy.name
    model = "phase_e_training/dose_10000/dense/gs2/model.pt"
    assert (run.folder / model).read_bytes() == (sealed_copy / model).read_bytes()
    assert take(run, jobs) == {}, "what is there is not taken again"


def spoil_file(folder: Path) -> None:
    path = folder / "phase_e_training/dose_10000/dense/gs2/model.pt"
    path.write_bytes(path.read_bytes()[:-1] + b"?")


def spoil_record(*place, to):
    def spoil(folder: Path) -> None:
        path = folder / "jobs/03_train__dose_10000__dense/done.json"
        record = read_json(path)
        node = record
        for name in place[:-1]:
            node = node[name]
        node[place[-1]] = to
        write_json(path, record)

    return spoil


@pytest.mark.parametrize(
    "spoil",
    [
        spoil_file,
        spoil_record("code", "sources", to="another"),
        spoil_record("code", "packages", "torch", to="1.0"),
        spoil_record("computed_with", "threads", to=["7"]),
        spoil_record("computed_with", "device", to=["cuda:0"]),
        spoil_record("computed_with", "precision", to=["float16"]),
        spoil_record("design", "part_digest", to="another"),
        spoil_record("parameters", "dose", to=5.0),
        spoil_record("inputs", to={}),
        spoil_record("status", to="failed"),
    ],
)
def test_what_was_changed_or_computed_otherwise_is_not_taken(spoil, beside, sealed_copy):
    spoil(sealed_copy)
    run, jobs = beside()

    taken = take(run, jobs)

    assert "03_train__dose_10000__dense" not in taken
    assert "03_train__dose_10000__baseline" in taken
    assert "05_compare__dose_10000__dense__test" not in taken, "it waits for one that runs here"
    assert not (run.folder / "jobs/03_train__dose_10000__dense/done.json").exists()


def test_a_published_copy_and_a_folder_without_design_are_no_runs_to_take_from(beside, sealed_copy):
    (sealed_copy / "published.json").write_text('{"left_out": ["a.npz"]}')
    run, jobs = beside()

    assert reusable(run.folder, jobs) == {}


@pytest.mark.slow
def test_the_command_runs_what_is_new_alone_and_the_run_is_whole(sealed_copy, words, study):
    reports = sealed_copy.parent

    planned = study("plan", *words)
    ran = study("run", *words)
    (folder,) = [path for path in reports.glob("*_smoke_*") if path != sealed_copy]
    again = study("plan", *words)

    assert f"03_train: 2 taken from {sealed_copy.name}" in planned.out
    assert "03_train: 2 to do, because it has not been done" in planned.out
    assert ran.code == 0, ran.err
    assert f"13 jobs taken from other runs: 13 from {sealed_copy.name}" in ran.out
    assert study("verify", folder).code == 0
    assert again.out.startswith("0 of 28 jobs")
    page = (folder / "index.html").read_text(encoding="utf-8")
    assert f"13 of 28 jobs were taken from other runs: 13 from {sealed_copy.name}" in page
    shutil.rmtree(sealed_copy)
    assert study("verify", folder).code == 0, "it holds without the run that it took from"


def test_no_reuse_takes_nothing(words, study):
    planned = study("plan", *words, "--no-reuse")

    assert "taken from" not in planned.out
    assert planned.out.splitlines()[-1].startswith("28 of 28 jobs")
