"""Points: conditions from a table or a Sobol sequence, instead of each dose with each view."""

from pathlib import Path

import numpy as np
import pytest
from scipy.stats import qmc

from study_lib.design.axes import drawn_points, points_of_table, settings_of_points
from study_lib.design.presets import load_design
from study_lib.errors import InputError
from study_lib.phases.conditions import conditions_of
from study_lib.runs.plan import plan_jobs
from study_lib.runs.room import job_count
from study_lib.runs.run import Run

RANGES = ("1e3..1e6", "0.2..0.8")
THREE = ['points=[[1e3, "dense"], [1e4, "dense"], [1e4, "sparse"], [1e4, "baseline"]]']
TWO_DOSES = "doses=[1e3, 1e4]"


def unit_square(points):
    """Return points by the shares of their ranges: log dose, overlap."""
    doses, overlaps = np.array(points).T
    return np.stack([np.log(doses / 1e3) / np.log(1e3), (overlaps - 0.2) / 0.6], axis=1)


def test_drawn_points_fill_the_plane_more_evenly_than_random_ones():
    drawn = unit_square(drawn_points(128, *RANGES))

    random = np.random.default_rng(3)
    by_chance = [qmc.discrepancy(random.random((128, 2))) for _ in range(20)]
    assert qmc.discrepancy(np.clip(drawn, 0, 1)) < min(by_chance)


def test_more_points_of_the_same_ranges_keep_those_that_were_drawn():
    """A study that grows computes what is new alone."""
    few, many = drawn_points(40, *RANGES), drawn_points(60, *RANGES)

    assert many[:40] == few
    assert len(set(many)) == 60


def test_points_share_doses_and_overlaps_within_their_ranges():
    points = drawn_points(60, "150..15000", "0.31..0.64")

    doses, overlaps = ({point[axis] for point in points} for axis in (0, 1))
    ratios = np.diff(np.log10(sorted(doses)))
    assert 150 <= min(doses) <= max(doses) <= 15000
    assert ratios.min() > 0.08, "ten doses per decade, in two digits"
    assert overlaps <= {round(0.02 * step, 2) for step in range(16, 33)}
    assert len(doses) <= 20
    assert len(overlaps) <= 17


def test_every_point_of_a_range_can_be_drawn():
    assert len(set(drawn_points(4 * 3, "100..200", "0.20..0.25"))) == 12


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (
            (10, "1e3", "0.2..0.8"),
            r"--doses 1e3: --sobol draws from a range; write it like 1e3\.\.",
        ),
        ((10, "1e3..1e6/4", "0.2..0.8"), "--doses 1e3..1e6/4: --sobol draws from a range"),
        ((10, "1e3..1e6", "0..0.8"), "--overlaps 0..0.8: --sobol draws from a range"),
        ((10, "1e3..1e6", "0.5..0.5"), "--overlaps"),
        ((0, *RANGES), "--sobol 0: draw 1 to"),
        ((50, "1e3..1.1e3", "0.2..0.22"), "hold only 2 points, of 10 doses per decade"),
    ],
)
def test_ranges_that_hold_no_points_are_refused(call, message):
    with pytest.raises(InputError, match=message):
        drawn_points(*call)


def test_a_table_of_points_is_read_whatever_the_order_of_its_columns(tmp_path):
    table = tmp_path / "points.csv"
    table.write_text("overlap, dose\n0.6, 1e3\n0.25, 2.5e4\n")

    assert points_of_table(table) == [(1e3, 0.6), (2.5e4, 0.25)]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("dose,step\n1,2\n", "columns dose, step; a table of points has dose and overlap"),
        ("", "columns none"),
        ("dose,overlap\n", "no row"),
        ("dose,overlap\n1e3,0.6\nmany,0.6\n", "line 3: many, 0.6: not a dose and an overlap"),
        ("dose,overlap\n1e3\n", "line 2: 1e3, None: not a dose"),
        ("dose,overlap\n1e3,0.6\n1000,0.60\n", r"line 3: 1000, 0\.6 is line 2 again"),
        ("dose,overlap\n1e3,0.6,7\n", "line 2: .*7.*: not a dose and an overlap"),
    ],
)
def test_a_table_with_a_fault_is_refused_by_its_line(tmp_path, text, message):
    table = tmp_path / "points.csv"
    table.write_text(text)

    with pytest.raises(InputError, match=message):
        points_of_table(table)


def test_only_the_points_are_planned_and_each_dose_is_simulated_once():
    design = load_design("smoke", [TWO_DOSES, *THREE])

    jobs = plan_jobs(design)

    compared = {
        (job.parameters["dose"], job.parameters["view"])
        for job in jobs
        if job.notebook == "05_compare"
    }
    assert compared == set(design.points)
    assert sum(job.notebook == "01_dataset" for job in jobs) == 2
    assert len(jobs) == job_count(design)


def test_only_the_test_split_is_scored_where_the_design_says_so():
    both, test_alone = (
        {(job.notebook, job.parameters.get("split")) for job in plan_jobs(design)}
        for design in (load_design("smoke"), load_design("smoke", ["compare_train=false"]))
    )
    assert both - test_alone == {("05_compare", "train")}, "its objects choose, so they are made"


def test_what_is_no_point_of_a_design_is_no_condition_of_it():
    design = load_design("smoke", [TWO_DOSES, *THREE])
    run = Run(Path(), design)

    assert run.condition(1e3).view.name == "dense", "the first view of this dose"
    with pytest.raises(InputError, match="no point of the design; at this dose it has dense"):
        run.condition(1e3, "sparse")
    with pytest.raises(InputError, match="dose 999"):
        run.condition(999.0)
    with pytest.raises(InputError, match=r"dose 1000\.0, view sparse: no point of the design"):
        conditions_of(design, run, dose=1e3, view="sparse")


def test_generate_simulates_every_dose_of_a_design_with_points(study, tmp_path):
    points = 'points=[[1e3, "dense"], [1e4, "sparse"], [1e4, "baseline"]]'
    words = ("--set", TWO_DOSES, "--set", points, "--output-root", str(tmp_path / "c"))

    code, out, error = study("generate", "--preset", "smoke", *words, "--dry-run")

    assert code == 0, error
    assert "dose=1000.0" in out
    assert "dose=10000.0" in out


def test_a_point_more_changes_no_job_that_was_there():
    few = {job.name: job for job in plan_jobs(load_design("smoke", [TWO_DOSES, *THREE]))}
    more = THREE[0].replace("]]", '], [1e3, "sparse"]]')
    many = {job.name: job for job in plan_jobs(load_design("smoke", [TWO_DOSES, more]))}

    alone = {"00_design", "06_summary"}
    changed = {name for name, job in few.items() if job.design_part != many[name].design_part}
    assert changed <= alone
    assert {name for name in many.keys() - few.keys() if "dose_1000__sparse" not in name} == set()


def test_a_design_without_points_is_written_as_before():
    assert "points" not in load_design("smoke").model_dump(mode="json")


@pytest.mark.parametrize(
    ("points", "message"),
    [
        ('[[1e3, "dense"]]', "dose 10000.0 is in no point"),
        ('[[1e5, "dense"]]', "dose 100000.0 is not of the design"),
        ('[[1e3, "dense"], [1e4, "dense"]]', "view baseline is in no point"),
        ('[[1e3, "dense"], [1e4, "denser"]]', "view denser is not of the design"),
        ('[[1e3, "dense"], [1e3, "dense"]]', "one occurs twice"),
        ("[[1e3]]", "points"),
    ],
)
def test_points_of_other_doses_and_views_than_the_designs_are_refused(points, message):
    with pytest.raises(InputError, match=message):
        load_design("smoke", [TWO_DOSES, f"points={points}"])


def test_points_become_doses_views_and_pairs():
    made = settings_of_points([(1e4, 0.3), (1e3, 0.6), (1e3, 0.3)])

    assert made["doses"] == [1e3, 1e4]
    assert [view["target_overlap"] for view in made["views"]] == [0.6, 0.3]
    assert made["points"] == [(1e4, "overlap_30"), (1e3, "overlap_60"), (1e3, "overlap_30")]
