"""The map of quality over dose and overlap, on made-up curves whose lines are known."""

import math

import numpy as np
import pytest
from made_runs import row_of
from matplotlib.tri import TriContourSet
from scipy.spatial import Delaunay

import study_lib as study
from study_lib.errors import InputError
from study_lib.scores.dose_saving import least_dose

OVERLAPS = (0.2, 0.35, 0.5, 0.65, 0.8)
DOSES = (1e3, 1e4, 1e5)
GRID = [(overlap, dose) for overlap in OVERLAPS for dose in DOSES]


def law(overlap, dose, scale=6.0):
    """Return an error that falls with the root of the dose and exponentially with overlap."""
    return scale * math.exp(-1.5 * overlap) / math.sqrt(dose)


def dose_of(error, overlap, scale=6.0):
    """Return the dose at which the law has an error."""
    return (scale * math.exp(-1.5 * overlap) / error) ** 2


def scattered(count=60):
    random = np.random.default_rng(3)
    places = random.uniform((0.1, 3.0), (0.9, 5.0), (count, 2))
    return [(float(overlap), float(10**log_dose)) for overlap, log_dose in places]


def rows_of(places=GRID, error=law, **columns):
    return [
        row_of(
            **{
                "view": f"overlap {overlap}",
                "overlap": overlap,
                "dose": dose,
                "phase_mse_rad2": error(overlap, dose) ** 2,
                "frc_crossing": min(1.0, 0.005 / error(overlap, dose)),
                **columns,
            }
        )
        for overlap, dose in places
    ]


def map_of(rows, *wanted, **known):
    return study.figures.quality_map(rows, wanted, title="test split", **known)


def sets_of(axis, *, filled):
    return [
        one for one in axis.collections if isinstance(one, TriContourSet) and one.filled == filled
    ]


def line_in(axis, index=0):
    """Return overlap and dose along a line of equal quality."""
    paths = sets_of(axis, filled=False)[index].get_paths()
    overlap, log_dose = np.concatenate([path.vertices for path in paths]).T
    return overlap, 10**log_dose


def area_in(axis):
    """Return the corners (overlap, log10 of dose) of everything that is coloured."""
    (shades,) = sets_of(axis, filled=True)
    return np.concatenate([path.vertices for path in shades.get_paths()])


@pytest.mark.parametrize("places", [GRID, scattered()], ids=["grid", "scattered"])
def test_the_line_of_a_power_law_lies_where_the_law_says(places):
    axis = map_of(rows_of(places), "phase_error=0.02").axes[0]

    overlap, dose = line_in(axis)

    np.testing.assert_allclose(dose, [dose_of(0.02, one) for one in overlap], rtol=1e-6)
    assert np.ptp(overlap) > 0.5


@pytest.mark.parametrize("places", [GRID, scattered()], ids=["grid", "scattered"])
def test_the_line_goes_from_one_edge_of_what_was_computed_to_the_other(places):
    overlap, _ = line_in(map_of(rows_of(places), "phase_error=0.02").axes[0])
    hull = Delaunay([(one, math.log10(two)) for one, two in places])

    for end in (overlap.argmin(), overlap.argmax()):
        beyond = np.sign(overlap[end] - 0.5) * 0.01
        place = overlap[end] + beyond, math.log10(dose_of(0.02, overlap[end] + beyond))
        assert hull.find_simplex(place) == -1


def test_along_one_overlap_the_line_is_at_the_least_dose_of_the_table():
    """Whatever the curve: here it falls ever more slowly."""
    curve = {1e3: 0.2, 1e4: 0.05, 1e5: 0.04}

    overlap, dose = line_in(
        map_of(rows_of(error=lambda _, dose: curve[dose]), "phase_error=0.1").axes[0]
    )

    np.testing.assert_allclose(dose, least_dose(curve, 0.1).value, rtol=1e-6)
    assert (overlap.min(), overlap.max()) == (0.2, 0.8)


def test_each_wanted_quality_has_a_line_of_its_own():
    """The FRC crossing is 0.005 / error: a quarter of Nyquist is an error of 0.02."""
    figure = map_of(rows_of(), "frc=0.25", "phase_error=0.03")

    for index, error in enumerate((0.02, 0.03)):
        overlap, dose = line_in(figure.axes[0], index)
        np.testing.assert_allclose(dose, [dose_of(error, one) for one in overlap], rtol=1e-6)
    first, second, *_ = figure.legends[0].legend_handles
    assert first.get_label() == "FRC crossing 0.25 of Nyquist"
    assert first.get_linestyle() != second.get_linestyle()


@pytest.mark.parametrize("places", [GRID, scattered()], ids=["grid", "scattered"])
def test_nothing_is_drawn_beyond_what_was_computed(places):
    axis = map_of(rows_of(places), "phase_error=0.02").axes[0]
    centre = np.mean([(one, math.log10(two)) for one, two in places], axis=0)
    hull = Delaunay([(one, math.log10(two)) for one, two in places])

    overlap, dose = line_in(axis)
    drawn = np.concatenate([area_in(axis), np.stack([overlap, np.log10(dose)], axis=1)])

    inwards = drawn + 1e-6 * (centre - drawn)
    assert (hull.find_simplex(inwards) >= 0).all()
    assert np.ptp(area_in(axis)[:, 0]) == pytest.approx(np.ptp([one for one, _ in places]))


def test_around_a_condition_without_a_score_nothing_is_drawn():
    rows = rows_of()
    hole = next(row for row in rows if (row["overlap"], row["dose"]) == (0.2, 1e3))
    others = [row for row in rows if row is not hole]
    lost = {**hole, "registration": "uncertain", "phase_mse_rad2": 4.0}

    figure = map_of([*others, lost], "phase_error=0.02")

    area = area_in(figure.axes[0])
    assert not ((area[:, 0] < 0.34) & (area[:, 1] < 3.99)).any()
    (cross,) = [one for one in figure.axes[0].lines if one.get_marker() == "x"]
    assert cross.get_xydata().tolist() == [[0.2, 3.0]]
    assert "no score" in [text.get_text() for text in figure.legends[0].texts]


def test_every_computed_condition_is_marked():
    places = scattered()

    axis = map_of(rows_of(places)).axes[0]

    (dots,) = [one for one in axis.lines if one.get_marker() == "o" and len(one.get_xdata())]
    assert len(dots.get_xydata()) == len(places)


def test_all_panels_have_one_scale_of_colours_doses_and_overlaps():
    rows = rows_of(arm="lsqml", label="LSQML")
    rows += rows_of(GRID[3:], error=lambda *place: 30 * law(*place))

    first, second, bar = map_of(rows).axes

    scales = [sets_of(axis, filled=True)[0] for axis in (first, second)]
    assert scales[0].get_clim() == scales[1].get_clim()
    assert (first.get_xlim(), first.get_ylim()) == (second.get_xlim(), second.get_ylim())
    errors = [law(*one) for one in GRID] + [30 * law(*one) for one in GRID[3:]]
    assert bar.get_ylim() == pytest.approx((min(errors), max(errors)), rel=1e-6)
    assert bar.get_ylabel() == "phase error, root mean square [rad]"
    assert first.get_ylabel() == "dose [photons per pattern]"
    assert [one.get_text() for one in first.get_yticklabels()] == ["1000", "10000", "100000"]


def test_colours_grow_lighter_with_less_error_so_that_they_do_not_depend_on_hue():
    (shades,) = sets_of(map_of(rows_of()).axes[0], filled=True)
    red, green, blue, _ = shades.cmap(np.linspace(0, 1, 64)).T

    lightness = 0.2126 * red + 0.7152 * green + 0.0722 * blue

    assert (np.diff(lightness) < 0).all()


@pytest.mark.parametrize(
    ("places", "reason"),
    [
        ([(one, 1e4) for one in OVERLAPS], "no map: one dose has a score"),
        ([(0.5, one) for one in DOSES], "no map: one overlap has a score"),
        ([(0.2, 1e3), (0.5, 1e4), (0.8, 1e5)], "no map: its scores lie on a line"),
    ],
)
def test_too_few_conditions_have_no_map_and_the_panel_says_why(places, reason):
    axis = map_of(rows_of(places), "phase_error=0.02").axes[0]

    assert sets_of(axis, filled=True) == sets_of(axis, filled=False) == []
    assert reason in axis.get_title()


def test_an_arm_that_held_out_counts_refused_everywhere_has_no_map():
    axis = map_of(rows_of(fallback="LSQML", label="LSQML denoised = LSQML")).axes[0]

    assert axis.get_title().splitlines() == ["LSQML denoised", "no map: no dose has a score"]


def test_a_quality_that_has_no_line_says_where_it_is_reached():
    title = map_of(rows_of(), "phase_error=1", "phase_error=0.0001").axes[0].get_title()

    assert title.splitlines()[1:] == [
        "phase error 1 rad: reached everywhere",
        "phase error 0.0001 rad: reached nowhere",
    ]


def test_two_views_of_one_overlap_are_one_point_and_the_same_patterns_count_once():
    twice = rows_of() + rows_of(error=lambda *place: 4 * law(*place), view="other")
    copy = rows_of(error=lambda *_: 9.0, same_patterns_as="other")

    overlap, dose = line_in(map_of(twice + copy, "phase_error=0.04").axes[0])

    expected = [dose_of(0.04, one, scale=12.0) for one in overlap]  # the geometric mean
    np.testing.assert_allclose(dose, expected, rtol=1e-6)


def test_a_resolution_in_nanometres_needs_the_pixel():
    overlap, dose = line_in(map_of(rows_of(), "frc=40nm", pixel_m=1e-8).axes[0])

    assert dose_of(0.02, overlap[0]) == pytest.approx(dose[0], rel=1e-6)
    with pytest.raises(InputError, match="the size of an object pixel is not known"):
        map_of(rows_of(), "frc=40nm")
