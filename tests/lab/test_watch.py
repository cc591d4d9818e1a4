"""A run watched from outside: losses and states from what its jobs leave."""

import json

import pytest

from study_lib.design.presets import load_design
from study_lib.files import write_json
from study_lib.lab import watch as live
from study_lib.lab.watch import losses_by_job, losses_in, watch
from study_lib.runs.plan import plan_jobs
from study_lib.runs.run import create_run


@pytest.fixture
def run(tmp_path):
    return create_run(tmp_path / "run", load_design("smoke"))


def tell(run, job, *events):
    path = run.folder / job.folder / "events.jsonl"
    path.parent.mkdir(parents=True, exist_ok=True)
    lines = [json.dumps({"phase": "train", "total": 9, **event}) for event in events]
    path.write_text("\n".join(lines) + "\n")
    return path


def test_losses_are_those_of_the_last_try_and_a_torn_line_is_left(run):
    job = next(job for job in plan_jobs(run.design) if job.notebook == "03_train")
    path = tell(
        run,
        job,
        {"step": 1, "loss": 9.0},
        {"step": 2, "loss": 8.0},
        {"step": 1},
        {"step": 1, "loss": 7.0},
        {"step": 3, "loss": 6.0},
    )
    with path.open("a") as file:
        file.write('{"step": 4, "lo')

    assert losses_in(path) == ([1, 3], [7.0, 6.0])


def test_jobs_that_are_done_are_left_out_while_others_run(run):
    jobs = [job for job in plan_jobs(run.design) if job.notebook == "03_train"][:2]
    for job in jobs:
        tell(run, job, {"step": 1, "loss": 2.0})
    write_json(run.folder / jobs[0].done, {})
    names = [job.name.replace("__", " ") for job in jobs]

    assert list(losses_by_job(run.folder, jobs, only_open=True)) == names[1:]
    assert sorted(losses_by_job(run.folder, jobs, only_open=False)) == sorted(names)


@pytest.mark.parametrize("looks", [1, 3])
def test_it_looks_again_until_the_run_stops(run, monkeypatch, looks):
    jobs = plan_jobs(run.design)
    write_json(run.folder / jobs[0].failed, {"error": "no probe"})
    shown, slept, left = [], [], [True] * (looks - 1) + [False]

    class Place:
        """Where an output is; what is shown later takes the place of what was shown first."""

        def display(self, what, **_):
            shown.append((self, "anew", what))

        def update(self, what, **_):
            shown.append((self, "in place", what))

    monkeypatch.setattr(live, "DisplayHandle", Place)
    monkeypatch.setattr(live, "is_being_run", lambda _: left.pop(0))
    monkeypatch.setattr(live.time, "sleep", slept.append)

    watch(run, every_s=0.5, sliders="always")

    assert slept == [0.5] * (looks - 1)
    for outputs in (shown[::2], shown[1::2]):
        assert [how for _, how, _ in outputs] == ["anew", *["in place"] * (looks - 1)]
        assert len({place for place, _, _ in outputs}) == 1
    assert all("failed: 00_design: no probe" in text["text/plain"] for _, _, text in shown[::2])
    bars = [bar.get_width() for bar in shown[-1][2].axes[0].patches]
    assert bars == [0, 1, len(jobs) - 1]
