"""What jobs ask of a cluster: enough for what was measured, more for more data."""

import json
from dataclasses import replace

import pytest

from study_lib.design.axes import SPLITS
from study_lib.design.presets import load_design
from study_lib.errors import InputError
from study_lib.networks.thinned.inputs import ALTERNATING_FAMILIES
from study_lib.runs.plan import plan_jobs
from study_lib.runs.resources import (
    ALTERNATION_EPOCHS,
    EPOCHS_OF_CHOICE,
    FAMILIES_IN_TURN,
    NOTEBOOK_S,
    JobResources,
    choice_epochs,
    expected_mb,
    job_costs,
    read_resources,
    resources_of,
    write_resources,
)
from study_lib.runs.rules import RESOURCES_FILE
from study_lib.solvers.alternating import EPOCHS, EPOCHS_TRIED, tries_of

OBJECT_PX = 307 * 234  # of the preset laptop
# Largest kernel [MiB] and longest time [s] of each kind of job in a run of the preset laptop with
# two jobs at a time on two cores.
MEASURED = {
    "00_design": (185, 3),
    "01_dataset": (388, 6),
    "02_overlap": (214, 4),
    "03_train": (631, 95),
    "03_train_thinned": (822, 257),
    "04_reconstruct": (827, 139),
    "05_compare": (608, 24),
}


def asked(design, patterns):
    """Return what each job of a design asks for whose views all have so many patterns a split."""
    jobs = plan_jobs(design)
    sizes = {
        (view.name, split): (patterns, patterns)
        for view in design.views
        for split in ("train", "test")
    }
    return resources_of(design, sizes, jobs, job_costs(design, sizes, jobs, OBJECT_PX)), jobs


def test_every_job_of_the_laptop_gets_twice_what_it_was_seen_to_use():
    resources, jobs = asked(load_design("laptop"), 760)

    assert resources.keys() == {job.name for job in jobs}
    for job in jobs:
        if job.notebook in MEASURED:
            memory_mib, seconds = MEASURED[job.notebook]
            assert resources[job.name].mem_mb >= 2 * memory_mib
            assert resources[job.name].runtime_min * 60 >= 2 * seconds


def test_ten_times_the_patterns_ask_for_more_memory_and_time():
    design = load_design("laptop")
    few, jobs = asked(design, 1000)
    many, _ = asked(design, 10000)

    for job in jobs:
        assert many[job.name].mem_mb >= few[job.name].mem_mb
        assert many[job.name].runtime_min >= few[job.name].runtime_min
    train = next(job.name for job in jobs if job.notebook == "03_train")
    compare = next(job.name for job in jobs if job.notebook == "05_compare")
    assert many[compare].mem_mb > 2 * few[compare].mem_mb
    assert many[train].runtime_min > 5 * few[train].runtime_min


def test_what_improves_the_object_by_thinned_counts_costs_wherever_it_is_done():
    """Training ends with an object of the test split; a comparison makes one, others for its
    error bar, and as many again where counts judge that have not taught it.
    """
    design = load_design("laptop")
    more = [
        design.model_copy(update={"thinned": thinned})
        for thinned in (None, design.thinned, changed(design, thinnings=8))
    ]

    without, few, many = (costs(one, {"train": 700, "test": 700}) for one in more)
    tested = costs(design, {"train": 700, "test": 7000})

    thinnings = design.thinned.thinnings
    compared = [name for name in few if name.startswith("05_compare")]
    assert compared
    for compare in compared:
        times = 2 if "__test" in compare else 1
        each_s = (many[compare] - few[compare]) / (times * (8 - thinnings))
        expected_s = (1 + times * thinnings) * each_s
        assert few[compare] - without[compare] == pytest.approx(expected_s)
        assert each_s > 0
    for train in (name for name in few if name.startswith("03_train_thinned")):
        assert tested[train] > few[train]


def test_the_reference_and_the_arms_take_as_long_as_there_are_modes_of_the_probe():
    design = load_design("laptop", ["iterative.denoised=false"])
    jobs = plan_jobs(design)
    reference = replace(
        jobs[0], name="reference", notebook="01_reference", parameters={"run_folder": "."}
    )
    arm = next(job for job in jobs if job.notebook == "04_reconstruct")
    sizes = {(view.name, split): (700, 700) for view in design.views for split in SPLITS}
    for job in (reference, arm):
        one, three = (
            job_costs(design, sizes, [job], OBJECT_PX, modes)[job.name] for modes in (1, 3)
        )
        assert three - NOTEBOOK_S == pytest.approx(3 * (one - NOTEBOOK_S))
        assert expected_mb(design, sizes, job, 3) > expected_mb(design, sizes, job)


def changed(design, **settings):
    return design.thinned.model_copy(update=settings)


def costs(design, patterns):
    """Return what the jobs of a design cost whose views all have so many patterns, by split."""
    sizes = {(view.name, split): (n, n) for view in design.views for split, n in patterns.items()}
    return job_costs(design, sizes, plan_jobs(design), OBJECT_PX)


def test_resources_are_read_back_and_may_be_edited(tmp_path):
    jobs = plan_jobs(load_design("smoke"))
    first, *others = jobs
    assert read_resources(tmp_path, jobs) == {job.name: JobResources() for job in jobs}

    write_resources(tmp_path, {first.name: {"mem_mb": 9000, "gpus": 1}})

    found = read_resources(tmp_path, jobs)
    assert found[first.name] == JobResources(mem_mb=9000, gpus=1)
    assert found[others[0].name] == JobResources()


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ([], r"00_design: found \[\], no table of resources"),
        ({"00_design": 3}, "00_design: found 3, no table of resources"),
        ({"00_design": {"memory": 3}}, "00_design: memory: unknown name; known here: gpus, mem_mb"),
        ({"00_design": {"runtime_min": "60"}}, "runtime_min: '60' is text; .* without quotes"),
        ({"00_design": {"runtime_min": 0}}, "runtime_min: found 0; .* greater than or equal to 1"),
        ({"00_design": {"mem_mb": 1e3}}, "mem_mb: found 1000.0; .* valid integer"),
        ({"00_design": {"threads": True}}, "threads: found True; .* valid integer"),
        ({"00_design": {"gpus": -1}}, "gpus: found -1; .* greater than or equal to 0"),
    ],
)
def test_wrong_resources_are_refused_by_name_with_the_remedy(tmp_path, content, message):
    path = tmp_path / RESOURCES_FILE
    path.write_text(json.dumps(content))

    with pytest.raises(InputError, match=message) as refused:
        read_resources(tmp_path, plan_jobs(load_design("smoke")))

    assert str(refused.value).startswith(f"{path}: 00_design: ")
    assert str(refused.value).endswith(
        f"; correct {path} or remove it, `study run` writes it again"
    )


def test_the_forecast_of_alternations_counts_those_that_are_tried():
    """The forecast answers without torch, so that it has the numbers of its own."""
    assert EPOCHS_TRIED == EPOCHS_OF_CHOICE
    assert EPOCHS == ALTERNATION_EPOCHS
    assert len(ALTERNATING_FAMILIES) == FAMILIES_IN_TURN
    for longest in (4, 10, 15, 20, 30, 40, 60):
        assert choice_epochs(longest) == tries_of(ALTERNATING_FAMILIES, longest)[1]
