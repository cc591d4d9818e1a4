"""The original's spacing rule as it was, and a packing bound that is one."""

import numpy as np
import pytest

from study_lib.overlap.metrics import (
    greedy_selection,
    legacy_spacing_px,
    nearest_px,
    packing_bound,
    spacing_report,
)


def hexagonal(rows: int, columns: int, spacing: float) -> np.ndarray:
    row, column = np.mgrid[:rows, :columns]
    places = np.stack([row * np.sqrt(3) / 2, column + 0.5 * (row % 2)], axis=-1)
    return spacing * places.reshape(-1, 2)


def test_the_thresholds_are_those_of_the_original():
    assert legacy_spacing_px(0.7, 128) == pytest.approx(38.4)
    assert legacy_spacing_px(0.2, 128) == pytest.approx(102.4)


def test_the_greedy_choice_is_the_one_by_rows_and_columns(rng):
    """Against the rule itself, by brute force."""
    positions = rng.uniform(0, 50, (300, 2))
    kept: list[int] = []
    for index in sorted(range(300), key=lambda place: tuple(positions[place])):
        if all(np.linalg.norm(positions[index] - positions[other]) >= 6 for other in kept):
            kept.append(index)

    np.testing.assert_array_equal(np.flatnonzero(greedy_selection(positions, 6.0)), sorted(kept))


def test_positions_exactly_at_the_threshold_are_far_enough():
    """The original: 25 positions 64 px apart, of which the sparse threshold 102.4 px keeps 3."""
    lattice = 64.0 * np.stack(np.mgrid[:5, :5], axis=-1).reshape(-1, 2)

    assert greedy_selection(lattice, 64.0).all()
    assert spacing_report(lattice, 64.0).direct_accepted == 25
    assert spacing_report(lattice, 102.4).direct_accepted == 0


def test_the_original_numbers_of_the_bound():
    """Its train box: 56,399 px2 holds 54 positions 38.4 px apart, more than its bound of 48.7."""
    side = np.sqrt(56_399)

    assert packing_bound((side, side), 38.4) == 57
    assert 56_399 / (np.pi * 19.2**2) == pytest.approx(48.7, abs=0.05)


@pytest.mark.parametrize(("rows", "columns"), [(1, 9), (2, 2), (7, 8), (30, 40)])
def test_hexagonal_packing_comes_up_to_the_bound_and_not_above(rows, columns):
    places = hexagonal(rows, columns, 5.0)
    assert len(places) == 1 or nearest_px(places).min() == pytest.approx(5.0)

    bound = packing_bound(np.ptp(places, axis=0).tolist(), 5.0)

    assert len(places) <= bound <= 1.15 * len(places) + 1


def test_a_line_holds_what_fits_on_it():
    assert packing_bound((0.0, 40.0), 10.0) == 5


def test_rounding_does_not_put_the_bound_below_what_was_kept():
    """Ten places a spacing apart, whose extent is 8.999... spacings in double precision."""
    spacing_px, first_px = 14.91974666437757, 0.14892079536404923
    line = np.stack([np.zeros(10), first_px + spacing_px * np.arange(10)], axis=1)
    assert np.ptp(line[:, 1]) / spacing_px < 9

    report = spacing_report(line, spacing_px)

    assert report.greedy_accepted == report.packing_bound == 10


@pytest.mark.parametrize("threshold_px", [3.0, 8.0, 20.0])
def test_no_choice_keeps_more_than_the_bound(threshold_px, rng):
    positions = rng.uniform(0, 60, (500, 2))

    report = spacing_report(positions, threshold_px)

    assert report.direct_accepted <= report.greedy_accepted <= report.packing_bound <= 500
    assert report.greedy_acceptance_rate == report.greedy_accepted / 500
    assert report.packing_bound_rate == report.packing_bound / 500
