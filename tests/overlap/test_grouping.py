"""Groups are a pattern and some of its nearest, all different, as many as asked for."""

from itertools import combinations

import numpy as np
import pytest

from study_lib.errors import InputError
from study_lib.overlap.sampling import form_groups


def scan_of(count: int, rng: np.random.Generator) -> np.ndarray:
    return rng.uniform(0, 20, (count, 2))


def groups_of(
    positions: np.ndarray,
    *,
    gridsize: int = 2,
    neighbor_count: int = 7,
    seed: int = 0,
    **choice: int | bool | None,
) -> np.ndarray:
    return form_groups(
        positions,
        gridsize=gridsize,
        neighbor_count=neighbor_count,
        random=np.random.default_rng(seed),
        **choice,
    )


def sets_of(groups: np.ndarray) -> set[frozenset[int]]:
    return {frozenset(group) for group in groups.tolist()}


def nearest_of(positions: np.ndarray, index: int, count: int) -> set[int]:
    distances = np.hypot(*(positions - positions[index]).T)
    return set(np.argsort(distances)[: count + 1].tolist())


def test_every_pattern_leads_one_group_of_distinct_near_patterns(rng):
    positions = scan_of(50, rng)

    groups = groups_of(positions)

    np.testing.assert_array_equal(groups[:, 0], np.arange(50))
    for group in groups:
        assert len(set(group)) == 4
        assert set(group) <= nearest_of(positions, group[0], 7)
    assert len(sets_of(groups)) == 50


def test_every_one_of_the_nearest_can_join_a_group(rng):
    positions = scan_of(12, rng)

    joined = {member for seed in range(60) for member in groups_of(positions, seed=seed)[3]}

    assert joined == nearest_of(positions, 3, 7)


@pytest.mark.parametrize("count", [5, 6, 8, 9])
def test_no_group_comes_twice_even_where_patterns_are_few(count, rng):
    """Five patterns have five different groups of four, which all must be found."""
    for seed in range(30):
        groups = groups_of(scan_of(count, rng), neighbor_count=4, seed=seed)
        assert len(groups) == len(sets_of(groups)) == count


def test_patterns_at_one_place_are_grouped_with_others(rng):
    positions = np.concatenate([np.full((10, 2), 5.0), scan_of(10, rng)])

    groups = groups_of(positions)

    np.testing.assert_array_equal(groups[:, 0], np.arange(20))
    assert all(len(set(group)) == 4 for group in groups)


def test_gridsize_1_leaves_each_pattern_by_itself(rng):
    np.testing.assert_array_equal(groups_of(scan_of(9, rng), gridsize=1), np.arange(9)[:, None])


@pytest.mark.parametrize("gridsize", [1, 2])
def test_fewer_groups_are_led_by_random_patterns(gridsize, rng):
    positions = scan_of(60, rng)
    found = [groups_of(positions, gridsize=gridsize, group_count=20, seed=seed) for seed in (0, 1)]

    for groups in found:
        assert groups.shape == (20, gridsize**2)
        assert (np.diff(groups[:, 0]) > 0).all()
    assert not np.array_equal(found[0][:, 0], found[1][:, 0])
    assert found[0][:, 0].max() > 40


def test_oversampling_takes_further_choices_and_repeats_none(rng):
    positions = scan_of(30, rng)

    groups = groups_of(positions, group_count=200, oversampling=True)

    assert len(groups) == len(sets_of(groups)) == 200
    assert set(groups[:, 0]) == set(range(30))
    for group in groups:
        assert set(group) <= nearest_of(positions, group[0], 7)


def test_oversampling_finds_every_group_there_is_and_says_when_there_are_no_more(rng):
    positions = scan_of(8, rng)
    every = {frozenset(members) for members in combinations(range(8), 4)}

    assert sets_of(groups_of(positions, group_count=70, oversampling=True)) == every
    with pytest.raises(InputError, match=r"71 groups .* have only 70 different groups of 4"):
        groups_of(positions, group_count=71, oversampling=True)


@pytest.mark.parametrize(
    ("count", "choice", "message"),
    [
        (30, {"group_count": 31}, "31 groups asked for, 30 .* set oversampling: true"),
        (30, {"group_count": 31, "gridsize": 1, "oversampling": True}, "can be used once"),
        (30, {"group_count": 0}, "n_groups = 0: ask for at least one"),
        (30, {"gridsize": 3}, "gridsize 3: choose 1"),
        (30, {"neighbor_count": 3}, r"K = 3 neighbours for groups of 4 \(OVERSAMPLING-001\)"),
        (30, {"neighbor_count": 30}, "K = 30 nearest neighbours of 30 patterns"),
        (900, {"neighbor_count": 500}, "K = 500 .* 20708500 choices of 3, .*lower neighbor_count"),
        (3, {}, "3 patterns are left, a group of gridsize 2 needs 4"),
        (0, {"gridsize": 1}, "0 patterns are left"),
    ],
)
def test_what_cannot_be_grouped_is_refused(count, choice, message, rng):
    with pytest.raises(InputError, match=message):
        groups_of(scan_of(count, rng), **choice)
