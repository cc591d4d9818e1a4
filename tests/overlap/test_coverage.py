"""Discs cover their area; holes are where none reaches inside the scan."""

import numpy as np
import pytest

from study_lib.overlap.metrics import coverage_of, patterns_per_pixel


def test_each_disc_covers_its_area():
    positions = np.array([[20.0, 20.0], [40.0, 20.0]])

    counts = patterns_per_pixel(positions, 16.0, (60, 40))

    assert counts.max() == 1
    assert counts.sum() == pytest.approx(2 * np.pi * 8**2, rel=0.03)
    assert (counts[20, 20], counts[30, 20], counts[0, 0]) == (1, 0, 0)


def test_one_position_twice_counts_twice():
    counts = patterns_per_pixel(np.array([[10.0, 10.0], [10.0, 10.0]]), 6.0, (20, 20))

    assert counts[10, 10] == 2


def ring_of(radius_px: float, count: int = 60) -> np.ndarray:
    angle = np.linspace(0, 2 * np.pi, count, endpoint=False)
    return 50 + radius_px * np.stack([np.sin(angle), np.cos(angle)], axis=1)


def test_a_ring_of_discs_leaves_one_hole_in_its_middle():
    """Discs of radius 6 on a circle of radius 30: what is left has radius 24."""
    found = coverage_of(ring_of(30.0), 12.0, (100, 100))

    assert found.holes == 1
    assert found.largest_hole_diameter_px == pytest.approx(48, rel=0.02)
    assert found.lit_share_of_scanned == pytest.approx(1 - (24 / 30) ** 2, rel=0.03)
    assert found.patterns_per_pixel_min == 0
    assert found.lit_px == pytest.approx(np.pi * (36**2 - 24**2), rel=0.02)
    assert found.scanned_px == pytest.approx(np.pi * 30**2, rel=0.02)


def test_a_disc_in_the_middle_closes_the_hole():
    positions = np.vstack([ring_of(10.0), [[50.0, 50.0]]])

    found = coverage_of(positions, 12.0, (100, 100))

    assert (found.holes, found.largest_hole_diameter_px, found.lit_share_of_scanned) == (0, 0, 1)
    assert 1 <= found.patterns_per_pixel_min <= found.patterns_per_pixel_mean
    assert found.patterns_per_pixel_mean <= found.patterns_per_pixel_max


@pytest.mark.parametrize("count", [1, 2, 5])
def test_positions_on_one_line_scan_no_area_but_their_own_pixels(count):
    line = np.stack([np.full(count, 20.0), 10.0 + 6 * np.arange(count)], axis=1)

    found = coverage_of(line, 4.0, (40, 60))

    assert (found.scanned_px, found.holes, found.lit_share_of_scanned) == (count, 0, 1)
