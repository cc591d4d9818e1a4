"""What is kept reaches its overlap, evenly or at random, and says what the scan allows."""

import numpy as np
import pytest
from scipy.spatial import cKDTree

from study_lib.errors import InputError
from study_lib.overlap.metrics import image_overlap
from study_lib.overlap.sampling import Kept, keep_for_target, keep_share, selection_order

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


def share_of(positions: np.ndarray, s_img: float) -> Kept:
    return keep_share(
        positions,
        s_img=s_img,
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


def test_a_share_is_rounded_to_whole_positions():
    positions = lattice(10, 2.0)

    assert len(share_of(positions, 0.255).indices) == 26
    np.testing.assert_array_equal(share_of(positions, 1.0).indices, np.arange(100))


@pytest.mark.parametrize("s_img", [0.0, -0.5, 1.01, float("nan")])
def test_a_share_outside_of_0_to_1_is_refused(s_img):
    with pytest.raises(InputError, match=r"s_img = .*: the share of positions to keep"):
        share_of(lattice(10, 2.0), s_img)


def test_a_share_that_leaves_no_neighbours_is_refused():
    with pytest.raises(InputError, match="leaves 7 of 100 positions; 8 are needed for K = 7"):
        share_of(lattice(10, 2.0), 0.07)


@pytest.mark.parametrize(
    "keep", [lambda part: kept_for(part, 0.2), lambda part: share_of(part, 1.0)]
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
