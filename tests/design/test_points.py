"""Points: conditions from a table or a Sobol sequence, instead of each dose with each view."""

import numpy as np
import pytest
from scipy.stats import qmc

from study_lib.design.axes import drawn_points, points_of_table, settings_of_points
from study_lib.design.presets import load_design
from study_lib.errors import InputError
from study_lib.runs.plan import plan_jobs
from study_lib.runs.room import job_count

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
    assert qmc.discrepancy(np.clip(drawn, 0, 1)) < min(by_chance) / 2
    quarters = [np.histogram(axis, bins=4, range=(0, 1))[0] for axis in drawn.T]
    assert np.ptp(quarters) <= 6, "32 in each quarter of each axis, but for the rounding"


def test_more_points_of_the_same_ranges_keep_those_that_were_drawn():
    """A study that grows computes what is new alone."""
    few, many = drawn_points(40, *RANGES), drawn_points(60, *RANGES)

    assert many[:40] == few
    assert len(set(many)) == 60


def test_points_have_numbers_with_two_digits_within_their_ranges():
    for dose, overlap in drawn_points(100, "150..1500", "0.31..0.64"):
        assert dose == float(f"{dose:.2g}")
        assert overlap == round(overlap, 2)
        assert 150 <= dose <= 1500
        assert 0.31 <= overlap <= 0.64


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
        ((50, "1e3..1.1e3", "0.2..0.22"), "hold only . different points"),
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
