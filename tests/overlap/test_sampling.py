"""What is kept reaches its overlap, evenly or at random, and says what the scan allows."""

import numpy as np
import pytest
from scipy.spatial import cKDTree

from study_lib.errors import InputError
from study_lib.overlap.metrics import image_overlap
from study_lib.overlap.sampling import (
    Kept,
    keep_for_target,
    keep_number,
    mean_step_px,
    number_at_step,
    selection_order,
)

DIAMETER_PX = 8.0
SELECTIONS = ("uniform", "blue_noise")


def lattice(side: int, step_px: float) -> np.ndarray:
    return step_px * np.stack(np.mgrid[:side, :side], axis=-1).reshape(-1, 2).astype(float)


def kept_for(
    positions: np.ndarray, target: float, selection: str = "uniform", seed: int = 0
) -> Kept:
    return keep_for_target(
        positions,
        target_overlap=target,
        selection=selection,
        neighbor_count=7,
        diameter_px=DIAMETER_PX,
        random=np.random.default_rng(seed),
    )


def some_of(positions: np.ndarray, number: int) -> Kept:
    return keep_number(
        positions,
        number=number,
        selection="uniform",
        neighbor_count=7,
        diameter_px=DIAMETER_PX,
        random=np.random.default_rng(0),
    )


def nearest(positions: np.ndarray) -> np.ndarray:
    return cKDTree(positions).query(positions, k=2)[0][:, 1]


@pytest.mark.parametrize("selection", SELECTIONS)
@pytest.mark.parametrize("target", [0.2, 0.4, 0.6])
def test_leaving_positions_out_reaches_the_target(target, selection):
    positions = lattice(20, 1.2)

    kept = kept_for(positions, target, selection).indices

    assert image_overlap(positions[kept], 7, DIAMETER_PX) == pytest.approx(target, abs=0.02)
    assert len(np.unique(kept)) == len(kept) < len(positions)
    assert (np.diff(kept) > 0).all()


@pytest.mark.parametrize("selection", SELECTIONS)
def test_the_same_seed_keeps_the_same_positions_and_a_sparser_target_some_of_them(selection):
    positions = lattice(20, 1.2)
    first, again = (kept_for(positions, 0.4, selection).indices for _ in range(2))

    np.testing.assert_array_equal(first, again)
    assert not np.array_equal(first, kept_for(positions, 0.4, selection, seed=1).indices)
    sparse, dense = (set(kept_for(positions, at, selection).indices) for at in (0.3, 0.5))
    assert sparse < dense


@pytest.mark.parametrize("selection", SELECTIONS)
def test_a_target_denser_than_the_scan_keeps_all_and_says_what_is_possible(selection):
    positions = lattice(10, 2.0)

    kept = kept_for(positions, 0.95, selection)

    np.testing.assert_array_equal(kept.indices, np.arange(100))
    assert kept.densest == pytest.approx(image_overlap(positions, 7, DIAMETER_PX))
    assert kept.sparsest < kept.densest < 0.95


def test_a_target_sparser_than_the_scan_allows_keeps_the_fewest_that_have_neighbours():
    positions = lattice(10, 0.1)

    kept = kept_for(positions, 0.1)

    assert len(kept.indices) == 8
    assert kept.sparsest == pytest.approx(image_overlap(positions[kept.indices], 7, DIAMETER_PX))


def test_so_many_positions_are_kept_as_a_number_says():
    positions = lattice(10, 2.0)

    assert len(some_of(positions, 26).indices) == 26
    np.testing.assert_array_equal(some_of(positions, 100).indices, np.arange(100))


@pytest.mark.parametrize("number", [0, 7, 101])
def test_a_number_that_leaves_no_neighbours_or_is_above_all_is_refused(number):
    with pytest.raises(InputError, match=f"{number} of 100 positions would be kept; at least 8"):
        some_of(lattice(10, 2.0), number)


@pytest.mark.parametrize("angle_rad", [0.0, 0.3])
def test_the_mean_step_of_a_raster_is_its_step_however_it_lies(angle_rad):
    turned = np.array(
        [[np.cos(angle_rad), -np.sin(angle_rad)], [np.sin(angle_rad), np.cos(angle_rad)]]
    )

    assert mean_step_px(lattice(9, 2.5) @ turned.T) == pytest.approx(2.5, rel=1e-9)


def test_twice_the_step_keeps_a_quarter_and_half_of_it_is_refused():
    positions = lattice(20, 1.2)

    assert number_at_step(positions, 2.4) == len(positions) / 4
    assert number_at_step(positions, 1.2) == len(positions)
    with pytest.raises(
        InputError, match=r"a step of 0\.6 pixels is wanted; the scan has one of 1\.2"
    ):
        number_at_step(positions, 0.6)


def test_positions_on_a_line_have_no_area_to_each():
    line = np.column_stack([np.arange(30.0), np.zeros(30)])

    with pytest.raises(InputError, match="30 scan positions lie on one line"):
        mean_step_px(line)


@pytest.mark.parametrize(
    "keep", [lambda part: kept_for(part, 0.2), lambda part: some_of(part, len(part))]
)
def test_too_few_positions_for_k_neighbours_are_refused(keep):
    with pytest.raises(InputError, match="7 patterns; 8 are needed for K = 7"):
        keep(lattice(10, 2.0)[:7])


def test_every_next_position_is_the_farthest_from_all_before(rng):
    """Against the definition, by brute force."""
    positions = rng.uniform(0, 30, (60, 2))

    order = selection_order(positions, "blue_noise", np.random.default_rng(3))

    np.testing.assert_array_equal(np.sort(order), np.arange(60))
    for step in range(1, 60):
        to_kept = np.linalg.norm(positions[:, None] - positions[order[:step]], axis=-1).min(axis=1)
        assert to_kept[order[step]] == pytest.approx(to_kept.max())


def test_even_choices_cover_the_scan_that_random_ones_leave_holes_in(rng):
    positions = rng.uniform(0, 100, (2000, 2))
    worst, closest = {}, {}
    for selection in SELECTIONS:
        kept = positions[selection_order(positions, selection, np.random.default_rng(0))[:100]]
        worst[selection] = cKDTree(kept).query(positions)[0].max()
        closest[selection] = nearest(kept).min()

    assert worst["blue_noise"] < 0.7 * worst["uniform"]
    assert closest["blue_noise"] > 5 * closest["uniform"]
    assert closest["blue_noise"] >= worst["blue_noise"]


def test_positions_at_one_place_are_all_in_the_order(rng):
    positions = np.concatenate([np.full((6, 2), 4.0), rng.uniform(0, 9, (10, 2))])

    order = selection_order(positions, "blue_noise", np.random.default_rng(0))

    np.testing.assert_array_equal(np.sort(order), np.arange(16))
