"""Figures of the thinning network: what they show is what they were given."""

import matplotlib.pyplot as plt
import numpy as np
import pytest

from study_lib.figures.reconstruction import (
    binned_spread,
    gains_by_position,
    likelihood_gains,
    spread_and_error,
    trust_panels,
    validation_gains,
)
from study_lib.phases.arms import ArmResult
from study_lib.phases.compare import own_error_bar

SHAPE = (40, 60)
CROP = (slice(2, 38), slice(3, 57))


@pytest.fixture(autouse=True)
def no_figure_is_left():
    yield
    plt.close("all")


@pytest.fixture
def scene(rng):
    """Return truth, an object, the deviation that its errors have, a mask."""
    truth = np.exp(1j * rng.uniform(-0.5, 0.5, SHAPE)).astype(np.complex64)
    std_rad = np.geomspace(0.01, 0.1, SHAPE[1])[None].repeat(SHAPE[0], axis=0).astype(np.float32)
    error = std_rad * rng.standard_normal(SHAPE)
    return truth, (truth * np.exp(1j * error)).astype(np.complex64), std_rad, np.ones(SHAPE, bool)


def test_bins_of_estimated_and_true_deviation_agree_where_it_is_true(scene):
    truth, aligned, std_rad, mask = scene

    expected, found = binned_spread(np.angle(aligned * truth.conj())[mask], std_rad[mask])

    assert np.all(np.diff(expected) > 0)
    np.testing.assert_allclose(found, expected, rtol=0.2)


def test_shares_within_one_and_two_deviations_are_those_of_normal_errors(scene):
    truth, aligned, std_rad, mask = scene
    part = mask[CROP]
    result = ArmResult("x", "", aligned, np.arange(3), 0.0, 0.0, (), std_rad)

    spread, row = own_error_bar(result, aligned[CROP], truth[CROP], CROP, part)

    np.testing.assert_array_equal(spread, std_rad[CROP])
    assert row["phase_within_1_std"] == pytest.approx(0.683, abs=0.03)
    assert row["phase_within_2_std"] == pytest.approx(0.954, abs=0.02)
    assert row["phase_std_rad"] == pytest.approx(np.sqrt((std_rad[CROP] ** 2).mean()), rel=1e-5)


def test_an_arm_that_tells_nothing_has_empty_columns(scene):
    truth, aligned, _, mask = scene
    result = ArmResult("x", "", aligned, np.arange(3), 0.0, 0.0, ())

    spread, row = own_error_bar(result, aligned, truth, (slice(None), slice(None)), mask)

    assert spread is None
    assert set(row.values()) == {None}


def test_spread_figure_has_a_row_for_each_arm_with_an_estimate(scene):
    truth, aligned, std_rad, mask = scene

    figure = spread_and_error(
        {"a": std_rad, "b": std_rad}, {"a": aligned, "b": aligned}, truth, mask, title="t"
    )
    none = spread_and_error({}, {"a": aligned}, truth, mask, title="t")

    titles = [axis.get_title() for axis in figure.axes]
    assert sum(text.startswith("a, ") for text in titles) == 2
    assert sum(text.startswith("b, ") for text in titles) == 2
    assert "no arm estimates" in none.axes[0].texts[0].get_text()


def test_each_family_is_a_line_with_its_errors():
    rows = [
        {"family": family, "strength": strength, "gain_nats": 1.0, "standard_error_nats": 0.2}
        for family in ("gaussian", "total_variation")
        for strength in (0.5, 1.0)
    ]

    figure = likelihood_gains({"once": rows, "twice": rows}, title="t")

    assert [axis.get_title() for axis in figure.axes] == ["once", "twice"]
    assert [text.get_text() for text in figure.axes[0].get_legend().get_texts()] == [
        "gaussian",
        "total variation",
    ]


def test_a_family_has_one_colour_in_every_panel():
    """Though the second panel lacks the first family; and the legend knows those of all panels."""
    row = {"strength": 1.0, "gain_nats": 0.1, "standard_error_nats": 0.1}
    all_, some = (
        [{"family": family} | row for family in families]
        for families in (("gaussian", "total_variation"), ("total_variation", "non_local_means"))
    )

    figure = likelihood_gains({"once": all_, "twice": some}, title="t")

    drawn = [
        {bars.get_label(): bars.lines[0].get_color() for bars in axis.containers}
        for axis in figure.axes
    ]
    assert drawn[0]["total variation"] == drawn[1]["total variation"]
    assert len(set((drawn[0] | drawn[1]).values())) == 3
    labels = [text.get_text() for text in figure.axes[0].get_legend().get_texts()]
    assert labels == ["gaussian", "total variation", "non local means"]


def test_members_and_their_gains_are_drawn():
    history = [
        {"member": m, "step": s, "validation_gain_nats": s / 10, "validation_error_nats": 0.1}
        for m in (1, 2)
        for s in (10, 20)
    ]

    figure = validation_gains(history, title="t")

    labels = [text.get_text() for text in figure.axes[0].get_legend().get_texts()]
    assert set(labels) == {"member 1", "member 2", "base"}


def test_the_most_trusted_candidate_comes_first():
    trust = np.stack([np.full((8, 9), 0.2), np.full((8, 9), 0.7), np.full((8, 9), 0.1)])

    figure = trust_panels(trust, ["solver", "total_variation", "gaussian"], title="t")

    titles = [axis.get_title() for axis in figure.axes if axis.get_title()]
    assert [text.split(",")[0] for text in titles] == ["total variation", "solver", "gaussian"]


def test_gains_are_drawn_where_the_patterns_lie():
    positions = np.array([[1.0, 2.0], [3.0, 4.0], [5.0, 0.0]])

    figure = gains_by_position({"test": np.array([1.0, -2.0, 0.5])}, positions, title="t")

    (points,) = figure.axes[0].collections
    np.testing.assert_array_equal(points.get_offsets(), positions[:, ::-1])
    assert points.get_clim() == (-2.0, 2.0)
