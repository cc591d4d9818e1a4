"""Overlap follows the disc formula, and the metrics the brute-force loops over every pair."""

from itertools import combinations

import numpy as np
import pytest

from study_lib.errors import InputError
from study_lib.overlap import metrics as overlap
from study_lib.overlap.metrics import (
    disc_overlap,
    group_overlap,
    group_to_group_overlap,
    image_overlap,
    nearest_others,
)

DIAMETER_PX = 8.0


def overlap_at(distance_px: float) -> float:
    """Two equal discs, from the area of the lens: 2 r^2 (theta - sin theta cos theta)."""
    if distance_px >= DIAMETER_PX:
        return 0.0
    theta = np.arccos(distance_px / DIAMETER_PX)
    return 2 * (theta - np.sin(theta) * np.cos(theta)) / np.pi


def scan_of(count: int, rng: np.random.Generator, extent_px: float = 20.0) -> np.ndarray:
    return rng.uniform(0, extent_px, (count, 2))


def lattice(side: int, step_px: float) -> np.ndarray:
    return step_px * np.stack(np.mgrid[:side, :side], axis=-1).reshape(-1, 2).astype(float)


@pytest.mark.parametrize(
    ("ratio", "expected"),
    [(0.0, 1.0), (0.5, 2 / 3 - np.sqrt(3) / (2 * np.pi)), (1.0, 0.0), (1.7, 0.0)],
)
def test_disc_overlap_has_its_closed_values(ratio, expected):
    """At D / 2 it is 2/3 - sqrt(3) / 2 pi = 0.391002..."""
    assert disc_overlap([ratio * DIAMETER_PX], DIAMETER_PX) == pytest.approx(expected, abs=1e-12)


def test_disc_overlap_falls_with_distance_and_depends_on_the_ratio_only():
    distances = np.linspace(0, DIAMETER_PX, 200)
    overlaps = disc_overlap(distances, DIAMETER_PX)

    assert (np.diff(overlaps) < 0).all()
    np.testing.assert_allclose(disc_overlap(3 * distances, 3 * DIAMETER_PX), overlaps, atol=1e-12)


@pytest.mark.parametrize("distance_px", [1.0, 3.0, 6.5])
def test_disc_overlap_is_the_share_of_random_points_in_both_discs(distance_px, rng):
    points = rng.uniform(-DIAMETER_PX / 2, DIAMETER_PX / 2, (200_000, 2))
    inside = np.hypot(*points.T) < DIAMETER_PX / 2
    in_other = np.hypot(points[:, 0] - distance_px, points[:, 1]) < DIAMETER_PX / 2

    share = (inside & in_other).sum() / inside.sum()

    assert disc_overlap([distance_px], DIAMETER_PX) == pytest.approx(share, abs=5e-3)


def test_metric_2_of_a_lattice_inner_position_is_that_of_its_four_neighbours():
    """Four positions about a centre: it sees four at a step, they each other at sqrt(2), 2 too."""
    step_px = 2.0
    cross = step_px * np.array([[0, 0], [1, 0], [-1, 0], [0, 1], [0, -1]], dtype=float)

    measured = image_overlap(cross, 4, DIAMETER_PX)

    arm = overlap_at(2.0) + 2 * overlap_at(2 * np.sqrt(2)) + overlap_at(4.0)
    assert measured == pytest.approx((4 * overlap_at(2.0) + 4 * arm) / 20)


def test_metric_2_of_a_large_square_lattice_is_that_of_one_step():
    """With K = 2 every position, edge or corner, has two neighbours one step away."""
    assert image_overlap(lattice(12, 3.0), 2, DIAMETER_PX) == pytest.approx(overlap_at(3.0))


def test_metric_2_agrees_with_brute_force(rng):
    positions = scan_of(40, rng)
    per_pattern = []
    for index, position in enumerate(positions):
        others = np.delete(positions, index, axis=0)
        nearest = sorted(np.hypot(*(others - position).T))[:7]
        per_pattern.append(np.mean([overlap_at(distance) for distance in nearest]))

    assert image_overlap(positions, 7, DIAMETER_PX) == pytest.approx(np.mean(per_pattern))


def test_metric_1_agrees_with_brute_force(rng):
    positions = scan_of(30, rng)
    groups = rng.permuted(np.tile(np.arange(30), (12, 1)), axis=1)[:, :4]
    pairs = [
        overlap_at(float(np.linalg.norm(positions[first] - positions[second])))
        for group in groups
        for first, second in combinations(group, 2)
    ]

    assert group_overlap(positions, groups, DIAMETER_PX) == pytest.approx(np.mean(pairs))


def test_metric_1_of_single_patterns_is_none(rng):
    assert group_overlap(scan_of(9, rng), np.arange(9)[:, None], DIAMETER_PX) is None


@pytest.mark.parametrize("extent_px", [12.0, 60.0])
def test_metric_3_agrees_with_brute_force(extent_px, rng):
    positions = scan_of(40, rng, extent_px)
    groups = rng.permuted(np.tile(np.arange(40), (25, 1)), axis=1)[:, :4]
    centres = [positions[group].mean(axis=0) for group in groups]
    per_group, near_counts = [], []
    for index, centre in enumerate(centres):
        distances = [
            np.linalg.norm(centre - other) for place, other in enumerate(centres) if place != index
        ]
        near = [overlap_at(distance) for distance in distances if distance < DIAMETER_PX]
        per_group.append(np.mean(near) if near else 0.0)
        near_counts.append(len(near))

    measured = group_to_group_overlap(positions, groups, DIAMETER_PX)

    assert measured == pytest.approx((np.mean(per_group), np.mean(near_counts)))


@pytest.mark.parametrize("count", [1_000, 10_000])
def test_metric_3_is_a_quarter_at_any_density(count, rng):
    """The mean of the disc overlap over a disc of radius D, and not a measure of density."""
    positions = scan_of(count, rng, 100.0)

    overlap_3, near = group_to_group_overlap(positions, np.arange(count)[:, None], DIAMETER_PX)

    assert overlap_3 == pytest.approx(0.25, abs=0.01)
    assert near == pytest.approx(count * np.pi * DIAMETER_PX**2 / 100**2, rel=0.15)


def test_metric_3_of_groups_far_apart_is_zero():
    positions = lattice(4, 10 * DIAMETER_PX)

    assert group_to_group_overlap(positions, np.arange(16)[:, None], DIAMETER_PX) == (0, 0)


def test_disc_overlap_does_not_care_which_disc_is_first(rng):
    """It takes distances of any shape, and a distance is the same both ways."""
    positions = scan_of(20, rng)
    distances = np.linalg.norm(positions[:, None] - positions[None], axis=-1)

    overlaps = disc_overlap(distances, DIAMETER_PX)

    np.testing.assert_array_equal(overlaps, overlaps.T)
    np.testing.assert_array_equal(np.diag(overlaps), 1)


def test_metric_3_does_not_depend_on_the_strips(rng, monkeypatch):
    positions = scan_of(300, rng, 60.0)
    groups = np.arange(300)[:, None]
    whole = group_to_group_overlap(positions, groups, DIAMETER_PX)
    monkeypatch.setattr(overlap, "PAIRS_AT_ONCE", 100)

    assert group_to_group_overlap(positions, groups, DIAMETER_PX) == pytest.approx(whole)


def test_metric_3_of_a_wide_disc_holds_few_pairs_at_once(rng, monkeypatch):
    """Strips far thinner than the disc: the pairs beyond a strip must not be made."""
    positions = scan_of(400, rng, 20.0)
    groups = np.arange(400)[:, None]
    whole = group_to_group_overlap(positions, groups, 50.0)
    made = []
    near_pairs = overlap._near_pairs

    def counting(*arguments):
        made.append(near_pairs(*arguments))
        return made[-1]

    monkeypatch.setattr(overlap, "PAIRS_AT_ONCE", 4_000)
    monkeypatch.setattr(overlap, "_near_pairs", counting)

    assert group_to_group_overlap(positions, groups, 50.0) == pytest.approx(whole)
    assert max(len(pairs) for pairs in made) <= 4_000
    assert sum(len(pairs) for pairs in made) == 400 * 399 / 2


def test_metric_3_leaves_out_groups_exactly_a_diameter_away():
    """Three in a row, D / 2 apart: the outer two do not see each other."""
    positions = np.array([[0.0, 0.0], [0.0, DIAMETER_PX / 2], [0.0, DIAMETER_PX]])

    measured = group_to_group_overlap(positions, np.arange(3)[:, None], DIAMETER_PX)

    assert measured == pytest.approx((overlap_at(DIAMETER_PX / 2), 4 / 3))


def test_metric_2_counts_a_place_once_however_many_patterns_lie_there(rng):
    positions = scan_of(20, rng)
    doubled = np.concatenate([positions, positions[:7]])

    once = image_overlap(positions, 7, DIAMETER_PX)

    assert image_overlap(doubled, 7, DIAMETER_PX) == pytest.approx(once)


def test_metric_2_of_few_patterns_takes_the_others_there_are():
    assert image_overlap(np.array([[3.0, 4.0]]), 7, DIAMETER_PX) == 0
    pair = np.array([[0.0, 0.0], [0.0, 3.0]])
    assert image_overlap(pair, 7, DIAMETER_PX) == pytest.approx(overlap_at(3.0))


def test_patterns_at_one_place_are_not_their_own_neighbours(rng):
    """Ten at the same place: none may be its own neighbour, though all are nearest."""
    positions = np.concatenate([np.full((10, 2), 5.0), scan_of(10, rng)])

    distances, indices = nearest_others(positions, 7)

    assert (indices != np.arange(20)[:, None]).all()
    np.testing.assert_array_equal(distances[:10], 0)


@pytest.mark.parametrize("neighbor_count", [-1, 0, 9, 30])
def test_as_many_neighbours_as_patterns_are_refused(neighbor_count, rng):
    with pytest.raises(InputError, match=rf"K = {neighbor_count} .* of 9 patterns: K must be 1 to"):
        nearest_others(scan_of(9, rng), neighbor_count)


def test_no_position_is_refused():
    with pytest.raises(InputError, match="no position is left"):
        image_overlap(np.empty((0, 2)), 7, DIAMETER_PX)


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_a_position_that_is_no_number_is_named(value, rng):
    positions = scan_of(12, rng)
    positions[5, 1] = value

    with pytest.raises(InputError, match=r"scan position 5 of 12 .*not finite"):
        image_overlap(positions, 7, DIAMETER_PX)


@pytest.mark.parametrize("diameter_px", [0.0, -2.0, np.nan, np.inf])
def test_a_disc_without_a_size_is_refused(diameter_px):
    with pytest.raises(InputError, match="it must be above zero"):
        disc_overlap([1.0], diameter_px)
