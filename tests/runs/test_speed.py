"""What a run will take is known within a third, and what that rests on is said."""

import json
import os
import platform
from pathlib import Path

import pytest

from study_lib.design.presets import load_design
from study_lib.runs import speed
from study_lib.runs.plan import plan_jobs
from study_lib.runs.resources import job_costs
from study_lib.runs.run import create_run

RECORDED = json.loads((Path(__file__).parent / "recorded_jobs.json").read_text(encoding="utf-8"))
RECORDED.pop("what")
# Longest time [s] of a kind in a run of the preset laptop, two jobs at a time on the reference,
# when LSQML took patterns in batches of 96.
LAPTOP_S = {"03_train": 95, "04_reconstruct": 139}
LAPTOP_SIZES = {"baseline": (760, 760), "dense": (640, 640), "sparse": (88, 352)}
LAPTOP_PX = 307 * 234


@pytest.fixture
def no_measurement(monkeypatch, tmp_path):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))


@pytest.mark.parametrize("name", RECORDED)
def test_the_time_of_a_recorded_run_is_estimated_within_a_third(name):
    record = RECORDED[name]
    design = load_design(record["preset"], record["settings"])
    sizes = {}
    for view, (train, train_groups, test, test_groups) in record["sizes"].items():
        sizes[view, "train"] = (train, train_groups)
        sizes[view, "test"] = (test, test_groups)
    jobs = plan_jobs(design)

    costs_s = job_costs(design, sizes, jobs, record["object_px"])
    estimated_s = record["factor"] * sum(costs_s.values())

    recorded_s = sum(record["cpu_s"].values()) + record["notebook_s"] * len(jobs)
    assert estimated_s == pytest.approx(recorded_s, rel=0.3)


def test_the_longest_jobs_of_the_laptop_are_estimated_within_a_third():
    design = load_design("laptop", ["iterative.batch_size=96"])
    sizes = {(v, split): size for v, size in LAPTOP_SIZES.items() for split in ("train", "test")}
    jobs = plan_jobs(design)

    costs_s = job_costs(design, sizes, jobs, LAPTOP_PX)

    for notebook, seconds in LAPTOP_S.items():
        longest_s = max(costs_s[job.name] for job in jobs if job.notebook == notebook)
        assert longest_s == pytest.approx(seconds, rel=0.3)


def finished(folder: Path, factor: float, machine: dict[str, object]) -> None:
    """Make a run whose jobs took so many times what is expected, by their records."""
    run = create_run(folder, load_design("smoke"))
    derived = speed.derived_matrix(run.design, speed.scene_of(run.design))
    for job in plan_jobs(run.design):
        path = folder / job.done
        path.parent.mkdir(parents=True)
        wall_s = factor * derived["estimated_job_cpu_s"][job.name]
        path.write_text(json.dumps({"wall_s": wall_s, "machine": machine}))


def test_earlier_jobs_of_this_machine_are_believed_first(tmp_path, no_measurement, study):
    own = {
        "cores": os.cpu_count(),
        "processor": platform.machine(),
        "system": platform.platform(),
    }
    finished(tmp_path / "reports" / "old", 2.5, own)
    finished(tmp_path / "reports" / "elsewhere", 40.0, own | {"cores": 999})

    found = speed.speed_of(tmp_path / "reports", "float32", 2)
    code, out, _ = study("plan", "--preset", "smoke")

    assert found.of("03_train") == pytest.approx(found.other) == pytest.approx(2.5)
    assert code == 0
    assert "with 2 at the same time (from 24 earlier jobs on this machine; good to a third)" in out


def test_without_earlier_jobs_the_machine_is_measured_once(tmp_path, no_measurement, study):
    first = study("plan", "--preset", "smoke")
    kept = json.loads((tmp_path / "cache" / "study" / "speed.json").read_text())
    second = study("plan", "--preset", "smoke")

    assert (first.code, second.code) == (0, 0)
    assert " s measurement, if nothing else runs; good to a third)" in first.out
    assert "(from a measurement kept for this machine" in second.out
    (entry,) = kept.values()
    assert 0.05 < entry["factor"] < 200


@pytest.mark.parametrize("content", ["{", "[]", '{"x": 1}', "null"])
def test_a_spoilt_measurement_is_made_again(content, tmp_path, no_measurement, monkeypatch):
    monkeypatch.setattr(speed.subprocess, "Popen", Measured)
    cache = tmp_path / "cache" / "study" / "speed.json"
    cache.parent.mkdir(parents=True)
    cache.write_text(content)

    assert speed.speed_of(tmp_path, "auto", 2).of("03_train") == 1.25


class Measured:
    """A process that has measured."""

    def __init__(self, command: list[str], **_: object) -> None:
        self.command = command

    def communicate(self, timeout: float) -> tuple[str, None]:
        return "1.25\n", None
