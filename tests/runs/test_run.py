"""The whole study by one command, at smoke size, and what is left behind."""

import csv
import itertools
import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import nbformat
import numpy as np
import pytest
from tiny_runs import only_run, skip_after_midnight

from study_lib.design.presets import load_design
from study_lib.errors import InputError
from study_lib.phases.records import inventory
from study_lib.runs.evidence import SEAL_FILE, faults_of_run, sealed_names
from study_lib.runs.plan import plan_jobs, read_plan

pytestmark = [pytest.mark.slow, pytest.mark.notebook]

ARMS = ("lsqml", "lsqml-denoised", "pinn", "thinning-net", "solver", "solver-denoised")


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
    run_folder = only_run(folder / "reports")
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
        ("10000.0", view, arm) for view in ("baseline", "dense", "sparse") for arm in ARMS
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
        assert sorted(row["arm"] for row in rows) == sorted(ARMS)


def test_progress_is_printed_while_jobs_run(smoke):
    _, _, printed = smoke

    times = [line[:5] for line in printed.splitlines() if "jobs done" in line]
    seconds = [60 * int(clock[:2]) + int(clock[3:]) for clock in times]
    assert max(later - sooner for sooner, later in itertools.pairwise(seconds)) <= 10


def starts_of_kernels(run_folder: Path) -> int:
    return sum(
        path.read_text().count('"start kernel"') for path in run_folder.rglob("events.jsonl")
    )


def test_a_second_call_starts_no_kernel(smoke):
    run_folder, _, _ = smoke
    skip_after_midnight(run_folder)
    notebooks = {path: path.stat().st_mtime_ns for path in run_folder.rglob("*.ipynb")}
    started = starts_of_kernels(run_folder)

    result = study("run", "--preset", "smoke", cwd=run_folder.parent.parent)

    assert result.returncode == 0, result.stderr
    assert started >= len(list(run_folder.glob("jobs/*/done.json"))) > 0
    assert starts_of_kernels(run_folder) == started
    assert {path: path.stat().st_mtime_ns for path in run_folder.rglob("*.ipynb")} == notebooks


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


def test_verify_finds_every_changed_missing_or_extra_file(smoke, tmp_path):
    """One byte of any file, the seal's own too; and nothing but that file is named."""
    run_folder, _, _ = smoke
    copy = tmp_path / run_folder.name
    shutil.copytree(run_folder, copy)
    assert faults_of_run(copy) == []
    random = np.random.default_rng(5)
    files = [copy / name for name in (*sealed_names(copy), SEAL_FILE)]
    kinds = {path.suffix for path in files}
    assert kinds >= {".json", ".jsonl", ".npz", ".ipynb", ".csv", ".pt", ".png", ".svg", ".log"}

    for path in random.permutation(files)[:40]:
        content = path.read_bytes() or b" "
        place = int(random.integers(len(content)))
        changed = bytes([content[place] ^ (1 << int(random.integers(8)))])
        path.write_bytes(content[:place] + changed + content[place + 1 :])
        try:
            faults = faults_of_run(copy)
        except InputError as error:  # the design itself cannot be read any more
            faults = [str(error)]
        name = path.relative_to(copy).as_posix()
        assert any(name in fault for fault in faults), f"byte {place} of {name}"
        path.write_bytes(content if content != b" " else b"")

    (copy / "phase_h_summary" / "summary.md").rename(copy / "phase_h_summary" / "other.md")
    faults = "\n".join(faults_of_run(copy))
    assert "phase_h_summary/summary.md: missing" in faults
    assert "phase_h_summary/other.md: extra" in faults


def test_report_is_whole_and_links_only_to_itself(smoke):
    """Every picture and link of every page is a file of the run; every notebook has its page."""
    run_folder, _, printed = smoke
    assert f"report:             {Path(*run_folder.parts[-2:]) / 'index.html'}" in printed
    pages = [run_folder / "index.html", *(run_folder / "html").glob("*.html")]
    assert len(pages) == 1 + len(plan_jobs(load_design("smoke")))

    for path in pages:
        text = path.read_text(encoding="utf-8")
        places = re.findall(r'(?:src|href)="([^"]*)"', text)
        assert places
        for place in places:
            if not place.startswith(("data:image/", "#")):
                assert (path.parent / place).is_file(), f"{path.name}: {place}"
        assert "<script" not in text
        assert 'class="error"' not in text

    index = pages[0].read_text(encoding="utf-8")
    assert index.count("<figure>") == 6
    for arm in ("LSQML", "solver", "PtychoPINN"):
        assert f"<td>{arm}</td>" in index


def test_the_crate_names_every_file_that_is_sealed(smoke):
    """But the crate itself, which cannot have its own hash; what jobs recorded has its maker."""
    run_folder, _, _ = smoke
    crate = json.loads((run_folder / "ro-crate-metadata.json").read_text())
    hashes = json.loads((run_folder / SEAL_FILE).read_text())["sha256"]
    hashes.pop("ro-crate-metadata.json")

    files = [entity for entity in crate["@graph"] if entity["@type"] == "File"]
    assert {entity["@id"]: entity["sha256"] for entity in files} == hashes
    actions = [entity for entity in crate["@graph"] if entity["@type"] == "CreateAction"]
    made = [part["@id"] for action in actions for part in action["result"]]
    assert len(made) == len(set(made))
    recorded = {row["path"] for row in inventory(run_folder)}
    assert recorded <= set(made) <= set(hashes)
    assert {part["@id"] for action in actions for part in action.get("object", ())} <= set(hashes)


def test_a_job_that_is_done_starts_no_kernel(smoke):
    run_folder, _, _ = smoke
    executed = run_folder / "notebooks" / "01_dataset__dose_10000.ipynb"
    before = executed.stat().st_mtime_ns
    started = starts_of_kernels(run_folder)

    result = study("job", ".", "01_dataset__dose_10000", cwd=run_folder)

    assert (result.returncode, result.stdout) == (0, "01_dataset__dose_10000: already done\n")
    assert executed.stat().st_mtime_ns == before
    assert starts_of_kernels(run_folder) == started


def test_status_and_plan_of_a_finished_run(smoke):
    run_folder, _, _ = smoke
    here = run_folder.parent.parent

    status = study("status", cwd=here)
    plan = study("plan", "--preset", "smoke", cwd=here)

    assert status.returncode == plan.returncode == 0, status.stderr + plan.stderr
    jobs = len(plan_jobs(load_design("smoke")))
    assert f"{jobs} of {jobs} jobs done, 0 failed, 0 to do; not being run" in status.stdout
    assert f"0 of {jobs} jobs in reports" in plan.stdout


def test_resume_does_only_what_is_missing_and_seals_again(smoke):
    """The summary is lost; nothing else runs, and the run is whole again."""
    run_folder, _, _ = smoke
    before = {path: path.stat().st_mtime_ns for path in run_folder.rglob("*.ipynb")}
    (run_folder / "phase_h_summary" / "summary.md").unlink()
    verified = study("verify", str(run_folder), cwd=run_folder)
    assert verified.returncode == 1
    assert "phase_h_summary/summary.md: missing" in verified.stderr

    result = study("resume", str(run_folder), cwd=run_folder)

    assert result.returncode == 0, result.stderr
    after = {path: path.stat().st_mtime_ns for path in run_folder.rglob("*.ipynb")}
    assert [path.stem for path in after if after[path] != before[path]] == ["06_summary"]
    assert study("verify", str(run_folder), cwd=run_folder).returncode == 0


def test_a_file_changed_after_its_job_is_made_again(smoke):
    """Its time is as before, so that nothing but its hash tells of the change."""
    run_folder, _, _ = smoke
    model = next(run_folder.rglob("baseline/gs1/model.pt"))
    content, times = model.read_bytes(), model.stat()
    digest = study("digest", str(run_folder), cwd=run_folder).stdout
    model.write_bytes(content[:-1] + bytes([content[-1] ^ 1]))
    os.utime(model, ns=(times.st_atime_ns, times.st_mtime_ns))
    verified = study("verify", str(run_folder), cwd=run_folder)

    result = study("resume", str(run_folder), cwd=run_folder)

    assert verified.returncode == 1
    assert "gs1/model.pt: differs" in verified.stderr
    assert result.returncode == 0, result.stderr
    assert study("verify", str(run_folder), cwd=run_folder).returncode == 0
    assert study("digest", str(run_folder), cwd=run_folder).stdout == digest


def test_dry_run_of_a_finished_run_lists_only_what_is_missing(smoke):
    run_folder, _, _ = smoke
    skip_after_midnight(run_folder)
    model = next(run_folder.rglob("baseline/gs1/model.pt"))
    content = model.read_bytes()
    model.unlink()
    result = study("run", "--preset", "smoke", "--dry-run", cwd=run_folder.parent.parent)
    model.write_bytes(content)

    assert result.returncode == 0, result.stderr
    assert "03_train: 1 to do, because an output is missing" in result.stdout
    assert "01_dataset" not in result.stdout


def test_plan_is_frozen_in_the_run_folder(smoke):
    run_folder, _, _ = smoke
    assert read_plan(run_folder / "plan.json") == plan_jobs(load_design("smoke"))
    assert all(
        not Path(path).is_absolute()
        for job in plan_jobs(load_design("smoke"))
        for path in job.outputs
    )
