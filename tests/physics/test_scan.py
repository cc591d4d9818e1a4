"""Scans have the density they state, stay in their blocks and keep their gap, margin and jitter."""

import numpy as np
import pytest
from scipy.integrate import cumulative_simpson
from scipy.spatial import cKDTree

from study_lib.physics.scan import SCANS, two_blocks

BLOCKS = {"small": (10, 15), "long": (20, 38), "high": (40, 9)}
every_kind = pytest.mark.parametrize("kind", SCANS)
every_block = pytest.mark.parametrize("sides", BLOCKS.values(), ids=BLOCKS)


def block(kind: str, rows: int, columns: int, step_px: float = 3.0, seed: int = 0) -> np.ndarray:
    random = np.random.default_rng(seed)
    return SCANS[kind](rows=rows, columns=columns, step_px=step_px, random=random)


def scan(jitter_px: float, seed: int = 0, kind: str = "raster") -> np.ndarray:
    return two_blocks(
        kind=kind,
        rows=4,
        columns=7,
        step_px=3.0,
        jitter_px=jitter_px,
        gap_px=17.0,
        margin_px=8.0,
        random=np.random.default_rng(seed),
    )


def nearest_px(positions: np.ndarray) -> np.ndarray:
    return cKDTree(positions).query(positions, k=2)[0][:, 1]


# --- one block


@every_kind
@every_block
def test_there_is_one_position_per_step_by_step_pixels(kind, sides):
    rows, columns = sides

    assert len(block(kind, rows, columns)) == pytest.approx(rows * columns, rel=0.03)


@every_kind
@every_block
def test_positions_are_float64_inside_the_block(kind, sides):
    positions = block(kind, *sides)

    assert positions.dtype == np.float64
    assert (positions >= 0).all()
    assert (positions <= 3.0 * np.array(sides)).all()


@every_kind
def test_every_part_of_the_block_is_scanned(kind):
    """Sixteen parts with 50 positions each; 6 standard deviations of independent positions."""
    positions = block(kind, 20, 40)

    counts, *_ = np.histogram2d(*positions.T, bins=4, range=((0, 60), (0, 120)))

    assert np.abs(counts - 50).max() < 6 * np.sqrt(50)
    if kind != "uniform":
        assert np.abs(counts - 50).max() <= 10


@every_kind
def test_the_step_only_scales(kind):
    np.testing.assert_allclose(block(kind, 9, 7, 4.0), 4 * block(kind, 9, 7, 1.0), rtol=1e-12)


@pytest.mark.parametrize(("kind", "least"), [("raster", 1.0), ("spiral", 0.8), ("fermat", 0.85)])
@every_block
def test_no_two_positions_are_nearer_than_the_kind_allows(kind, least, sides):
    assert nearest_px(block(kind, *sides)).min() >= 3.0 * least * (1 - 1e-12)


def test_independent_positions_lie_as_near_as_chance_has_them():
    """Mean distance to the nearest of a Poisson process of density 1 / step^2 is step / 2."""
    distances = nearest_px(block("uniform", 80, 80))

    assert distances.mean() == pytest.approx(1.5, rel=0.03)


def test_spiral_turns_are_one_step_apart():
    """Along any ray from the middle, the radius grows by one step per turn."""
    middle_px = 60.0
    offsets = block("spiral", 40, 40) - middle_px
    radius = np.hypot(*offsets.T)
    whole = radius < middle_px
    turns = np.angle(offsets[whole, 1] + 1j * offsets[whole, 0]) / (2 * np.pi)

    remainder = radius[whole] / 3.0 - turns

    np.testing.assert_allclose(remainder, np.round(remainder), atol=1e-9)


def test_spiral_positions_are_one_step_of_arc_apart():
    """Arc length by quadrature of ``sqrt(r^2 + (dr/dangle)^2)``, from the radius of each one."""
    radius = np.sort(np.hypot(*(block("spiral", 40, 40) - 60.0).T))
    pitch_px = 3.0 / (2 * np.pi)
    angle = np.linspace(0, 60 / pitch_px, 200_001)
    length = cumulative_simpson(pitch_px * np.hypot(angle, 1), x=angle, initial=0)

    found = np.interp(radius[radius < 60] / pitch_px, angle, length)

    np.testing.assert_allclose(found, 3.0 * (np.arange(len(found)) + 0.5), rtol=1e-6)


def test_fermat_positions_turn_by_the_golden_angle_and_have_equal_areas():
    offsets = block("fermat", 40, 40) - 60.0
    radius = np.hypot(*offsets.T)
    whole = offsets[radius < 60]
    angles = np.angle(whole[:, 1] + 1j * whole[:, 0])

    turned = np.diff(angles) % (2 * np.pi)
    golden = (np.sqrt(5) - 1) / 2  # the larger part of a golden section of the circle
    np.testing.assert_allclose(turned, 2 * np.pi * (1 - golden), atol=1e-9)
    np.testing.assert_allclose(np.diff(np.pi * (whole**2).sum(axis=1)), 9.0, rtol=1e-9)


@every_kind
def test_only_independent_positions_depend_on_the_seed(kind):
    first, again, other = (block(kind, 6, 8, seed=seed) for seed in (0, 0, 1))

    np.testing.assert_array_equal(first, again)
    assert np.array_equal(first, other) == (kind != "uniform")


# --- two blocks


def test_without_jitter_the_scan_is_the_exact_raster():
    positions = scan(0.0)

    y = [8, 11, 14, 17, 34, 37, 40, 43]
    expected = [(row, 8 + 3 * column) for row in y for column in range(7)]
    np.testing.assert_allclose(positions, expected)


@pytest.mark.parametrize("kind", ["raster", "spiral", "fermat"])
def test_jitter_moves_each_axis_by_at_most_its_bound_and_nearly_reaches_it(kind):
    jitter_px = 0.8
    jittered, exact = (np.split(scan(jitter, kind=kind), 2) for jitter in (jitter_px, 0.0))

    offsets = np.array(jittered) - np.mean(jittered, axis=1, keepdims=True)
    moved = np.abs(offsets - (exact - np.mean(exact, axis=1, keepdims=True)))

    assert 0.7 * jitter_px < moved.max() < 1.3 * jitter_px


@every_kind
@pytest.mark.parametrize("seed", range(5))
def test_gap_and_margin_hold_with_the_largest_jitter(kind, seed):
    positions = scan(1.5, seed, kind)
    first, second = np.split(positions[:, 0], 2)

    assert second.min() - first.max() >= 17
    assert second.min() - first.max() < 17 + 4 * 1.5
    assert positions.min() >= 8


@every_kind
def test_a_seed_gives_the_same_scan(kind):
    np.testing.assert_array_equal(scan(1.0, 3, kind), scan(1.0, 3, kind))
    assert not np.array_equal(scan(1.0, 3, kind), scan(1.0, 4, kind))


def test_the_two_blocks_of_independent_positions_differ():
    first, second = np.split(scan(0.0, kind="uniform"), 2)

    assert not np.allclose(np.diff(first, axis=0), np.diff(second, axis=0))
