"""The whole study by one command, at smoke size, and what is left behind."""

import csv
import itertools
import json
import os
import subprocess
import sys
import time
from pathlib import Path

import nbformat
import pytest

from study_lib.plan import plan_jobs, read_plan
from study_lib.presets import load_design

pytestmark = [pytest.mark.slow, pytest.mark.notebook]


def study(*arguments, cwd, **environment):
    """Run the command line as a user does."""
    return subprocess.run(
        [sys.executable, "-m", "study_lib", *arguments],
        cwd=cwd,
        env={**os.environ, **environment},
        capture_output=True,
        text=True,
        check=False,
    )


@pytest.fixture(scope="module")
def smoke(tmp_path_factory):
    """A finished smoke run, started in an empty folder with an empty home."""
    folder, home = tmp_path_factory.mktemp("work"), tmp_path_factory.mktemp("home")
    result = study("run", "--preset", "smoke", cwd=folder, HOME=str(home))
    assert result.returncode == 0, result.stdout[-3000:] + result.stderr[-3000:]
    (run_folder,) = (folder / "reports").iterdir()
    return run_folder, home, result.stdout


def test_every_job_leaves_an_executed_notebook_with_figures(smoke):
    run_folder, _, _ = smoke
    jobs = plan_jobs(load_design("smoke"))

    for job in jobs:
        cells = nbformat.read(run_folder / job.executed, as_version=4).cells
        codes = [cell for cell in cells if cell.cell_type == "code"]
        figures = [o for cell in codes for o in cell.outputs if "image/png" in o.get("data", {})]
        assert all(cell.execution_count for cell in codes)
        assert len(figures) >= job.figures > 0


def test_nothing_is_written_outside_the_run_folder(smoke):
    run_folder, home, _ = smoke

    assert list(home.rglob("*")) == []
    assert [path.name for path in run_folder.parent.parent.iterdir()] == ["reports"]


def test_summary_has_one_row_per_condition_and_arm(smoke):
    run_folder, _, printed = smoke
    with (run_folder / "phase_h_summary" / "table.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))

    conditions = [(row["dose"], row["view"], row["arm"]) for row in rows]
    assert sorted(conditions) == sorted(
        ("10000.0", view, arm)
        for view in ("baseline", "dense", "sparse")
        for arm in ("lsqml", "pinn", "solver")
    )
    assert all(row["split"] == "test" for row in rows)
    printed_rows = [
        line.split(" | ") for line in printed.splitlines() if line.startswith("| 10000")
    ]
    assert sum("LSQML" in row for row in printed_rows) == 6, "three views, two splits"
    assert {row[1] for row in printed_rows} == {"baseline", "dense", "sparse"}


def test_every_arm_of_a_comparison_used_the_same_patterns(smoke):
    run_folder, _, _ = smoke
    for path in (run_folder / "phase_g_comparison").glob("dose_*/*/*/metrics.json"):
        rows = json.loads(path.read_text())
        assert len({row["patterns"] for row in rows}) == 1
        assert sorted(row["arm"] for row in rows) == ["lsqml", "pinn", "solver"]


def test_progress_is_printed_while_jobs_run(smoke):
    _, _, printed = smoke

    times = [line[:5] for line in printed.splitlines() if "jobs done" in line]
    seconds = [60 * int(clock[:2]) + int(clock[3:]) for clock in times]
    assert max(later - sooner for sooner, later in itertools.pairwise(seconds)) <= 10


def test_a_second_call_starts_no_kernel(smoke):
    run_folder, _, _ = smoke
    before = {path: path.stat().st_mtime_ns for path in run_folder.rglob("*.ipynb")}

    started = time.monotonic()
    result = study("run", "--preset", "smoke", cwd=run_folder.parent.parent)

    assert result.returncode == 0, result.stderr
    assert {path: path.stat().st_mtime_ns for path in run_folder.rglob("*.ipynb")} == before
    assert time.monotonic() - started < 30


def test_verify_passes_and_names_a_changed_file(smoke):
    run_folder, _, _ = smoke
    assert study("verify", str(run_folder), cwd=run_folder).returncode == 0

    table = run_folder / "phase_h_summary" / "table.csv"
    original = table.read_bytes()
    table.write_bytes(original.replace(b"baseline", b"baselime"))
    changed = study("verify", str(run_folder), cwd=run_folder)
    table.write_bytes(original)

    assert changed.returncode == 1
    assert "table.csv: differs" in changed.stderr


def test_dry_run_of_a_finished_run_lists_only_what_is_missing(smoke):
    run_folder, _, _ = smoke
    model = next(run_folder.rglob("baseline/gs1/model.pt"))
    content = model.read_bytes()
    model.unlink()
    result = study("run", "--preset", "smoke", "--dry-run", cwd=run_folder.parent.parent)
    model.write_bytes(content)

    assert result.returncode == 0, result.stderr
    assert "03_train__dose_10000__baseline\n    because Missing output files" in result.stdout
    assert "01_dataset" not in result.stdout


def test_plan_is_frozen_in_the_run_folder(smoke):
    run_folder, _, _ = smoke
    assert read_plan(run_folder / "plan.json") == plan_jobs(load_design("smoke"))
    assert all(
        not Path(path).is_absolute()
        for job in plan_jobs(load_design("smoke"))
        for path in job.outputs
    )
