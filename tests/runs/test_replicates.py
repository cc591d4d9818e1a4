"""A run with replicates: the same study again inside its folder, with other seeds."""

import csv
import filecmp
import itertools
import json
import os
import subprocess
import sys
import tracemalloc
from pathlib import Path

import numpy as np
import pytest
from tiny_runs import only_run

from study_lib.data.contract import save_dataset
from study_lib.design.presets import load_design
from study_lib.files import write_json
from study_lib.phases.conditions import replicate_folder
from study_lib.runs.evidence import faults_of_records, faults_of_run
from study_lib.runs.plan import plan_content, plan_jobs
from study_lib.runs.rules import PLAN_FILE
from study_lib.runs.run import BASE_FILE, base_data, create_run, open_run, run_name
from study_lib.seeding import generator


@pytest.fixture
def design():
    return load_design("smoke", ["replicates=3"])


def test_repetitions_count_on_from_the_first_with_seeds_of_their_own(design):
    later = load_design("smoke", ["replicate=4", "replicates=2"])

    assert [one.replicate for one in design.repetitions] == [0, 1, 2]
    assert [one.replicate for one in later.repetitions] == [4, 5]
    assert design.repetitions[0] is design
    assert len({one.noise_seeds.simulation for one in design.repetitions}) == 3
    assert design.repetitions[2] == load_design("smoke", ["replicate=2"])
    draws = {generator(one.noise_seeds.training, "x").random() for one in design.repetitions}
    assert len(draws) == 3


def test_every_replicate_has_every_job_but_design_and_summary(design):
    jobs = plan_jobs(design)
    single = [
        job for job in plan_jobs(load_design("smoke")) if job.notebook[:2] not in ("00", "06")
    ]

    names = [job.name for job in jobs]
    assert len(set(names)) == len(names) == 2 + 3 * len(single)
    outputs = [path for job in jobs for path in job.outputs]
    assert len(set(outputs)) == len(outputs), "never two writers of one file"
    for job, replicate in itertools.product(single, (1, 2)):
        (twin,) = (one for one in jobs if one.name == f"{job.name}__replicate_{replicate}")
        assert twin.parameters == job.parameters | {"run_folder": f"replicate_{replicate}"}
        assert list(twin.outputs) == [f"replicate_{replicate}/{path}" for path in job.outputs]
        assert list(twin.after) == [f"{name}__replicate_{replicate}" for name in job.after]


def test_the_summary_waits_for_every_replicate(design):
    *_, summary = plan_jobs(design)

    assert summary.notebook == "06_summary"
    assert sum("05_compare" in name for name in summary.after) == 3 * 6


def test_each_replicate_is_a_run_of_its_own_with_its_design(design, tmp_path):
    run = create_run(tmp_path / "run", design)

    nested = [open_run(run.folder / replicate_folder(number)).design for number in (1, 2)]
    assert nested == list(design.repetitions[1:])
    assert open_run(run.folder).design == design


def test_replicates_share_the_base_data(tiny_run, tmp_path):
    from study_lib.data.contract import load_dataset

    arrays, metadata = load_dataset(tiny_run.condition(1e4, split="train").whole_file)
    base = tmp_path / "measured.npz"
    save_dataset(base, arrays, metadata)
    design = load_design("smoke", ["replicates=2"], base_data(base))
    run = create_run(tmp_path / "run", design, base)

    nested = open_run(run.folder / "replicate_1")

    assert nested.base_npz is not None
    assert nested.base_npz.samefile(run.folder / BASE_FILE)
    assert [path.name for path in (run.folder / "replicate_1").iterdir()] == ["design.json"]


def test_base_data_larger_than_memory_are_taken_over(design, tmp_path):
    base, size = tmp_path / "measured.npz", 2**25
    with base.open("wb") as file:
        file.write(b"first")
        file.truncate(size - 4)
        file.seek(0, os.SEEK_END)
        file.write(b"last")

    tracemalloc.start()
    try:
        run = create_run(tmp_path / "run", design, base)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()

    assert peak < size / 8
    assert filecmp.cmp(base, run.folder / BASE_FILE, shallow=False)


def test_a_changed_design_of_a_replicate_is_a_fault(design, tmp_path):
    run = create_run(tmp_path / run_name(design), design)
    write_json(run.folder / PLAN_FILE, plan_content(plan_jobs(design)))
    faults = faults_of_records(run.folder)
    assert all(fault.endswith(": not done") for fault in faults)

    path = run.folder / "replicate_1" / "design.json"
    content = json.loads(path.read_text())
    path.write_text(json.dumps(content | {"replicate": 7}))

    new_faults = set(faults_of_records(run.folder)) - set(faults)
    assert new_faults == {"replicate_1/design.json: is not the design of this replicate"}


@pytest.mark.slow
@pytest.mark.notebook
def test_a_study_with_two_replicates_gives_means_and_spreads(tmp_path):
    """One view, a network that is hardly trained: what differs is the noise and its seed."""
    settings = (
        "views=[{name: baseline, gridsize: 1}]",
        "training.epochs=1",
        "training.steps_min=0",
        "iterative.algorithms=[solver]",
        "thinned.steps=4",
    )
    changes = [part for setting in settings for part in ("--set", setting)]
    command = ["run", "--preset", "smoke", "--replicates", "2", *changes]

    result = subprocess.run(
        [sys.executable, "-m", "study_lib", *command],
        cwd=tmp_path,
        env=dict(os.environ),
        capture_output=True,
        text=True,
        check=False,
    )

    assert result.returncode == 0, result.stdout[-2000:] + result.stderr[-2000:]
    assert "2 replicates, each with its own noise" in result.stdout
    folder = only_run(tmp_path / "reports")
    assert faults_of_run(folder) == []
    with (folder / "phase_h_summary" / "table.csv").open(encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    for arm in ("solver", "solver-denoised", "pinn", "thinning-net"):
        first, second = (row for row in rows if row["arm"] == arm)
        assert (first["replicate"], second["replicate"]) == ("0", "1")
        assert first["phase_ms_ssim"] != second["phase_ms_ssim"]
        limits = [float(row["photon_limit_phase_rad"]) for row in (first, second)]
        np.testing.assert_allclose(limits[1], limits[0], rtol=0.01)  # the same scene and probe
    with (folder / "phase_h_summary" / "inventory.csv").open(encoding="utf-8") as file:
        places = {Path(row["path"]).parts[0] for row in csv.DictReader(file)}
    assert {"replicate_1", "phase_g_comparison"} <= places
