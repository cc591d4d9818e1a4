"""Groups of patterns that share an object region: a pattern and some of its nearest others."""

from itertools import combinations
from math import comb

import numpy as np
from jaxtyping import Int

from study_lib.errors import InputError
from study_lib.overlap.metrics import nearest_others

CHOICES_MAX = 1_000_000


def form_groups(
    positions_px: np.ndarray,
    *,
    gridsize: int,
    neighbor_count: int,
    random: np.random.Generator,
    group_count: int | None = None,
    oversampling: bool = False,
) -> Int[np.ndarray, "group c"]:
    """Return groups of ``C = gridsize**2`` patterns, no two of the same members.

    Every group is led by a pattern, its first member, and has ``C - 1`` random ones of the leader's
    K nearest others. Without a count every pattern leads one group; fewer groups are led by random
    patterns, and more only with oversampling, which takes further choices of ``C - 1`` out of K.
    Where others have taken all groups that a pattern could lead, which takes a cluster of hardly
    more than K patterns, it leads none and another leads one more.

    Parameters
    ----------
    positions_px : (scan, 2)
        (row, column) in object pixels.
    gridsize
        1 for single patterns, 2 for groups of four.
    neighbor_count
        K, at least C.
    random
        Chooses leaders and members.
    group_count
        How many groups; None for one per pattern.
    oversampling
        Whether there may be more groups than patterns.

    Raises
    ------
    InputError
        If the gridsize is unknown, there are too few patterns for K or C, K < C (OVERSAMPLING-001),
        K is so large that its choices cannot be listed, or there are not so many different groups.
    """
    count = len(positions_px)
    wanted = count if group_count is None else group_count
    _check(count, gridsize, neighbor_count, wanted, oversampling)
    if gridsize == 1:
        if wanted == count:
            return np.arange(count)[:, None]
        return np.sort(random.choice(count, wanted, replace=False))[:, None]

    size = gridsize**2
    _, neighbors = nearest_others(positions_px, neighbor_count)
    choices = random.permutation(list(combinations(range(neighbor_count), size - 1)))
    first_choice = random.integers(len(choices), size=count)

    def led_by(leaders: np.ndarray, turn: int) -> np.ndarray:
        columns = choices[(first_choice[leaders] + turn) % len(choices)]
        members = np.take_along_axis(neighbors[leaders], columns, axis=1)
        return np.column_stack([leaders, members])

    leaders = np.arange(count) if wanted >= count else random.choice(count, wanted, replace=False)
    missing, found = leaders, np.empty((0, size), dtype=np.int64)
    for turn in range(len(choices)):
        found = _without_repeats(np.vstack([found, led_by(missing, turn)]))
        missing = np.setdiff1d(leaders, found[:, 0])
        if not len(missing):
            break
    turn = 0
    while len(found) < wanted:
        if turn == len(choices):
            raise InputError(
                f"{wanted} groups asked for, but {count} patterns with K = {neighbor_count} have "
                f"only {len(found)} different groups of {size}; lower n_groups or raise "
                "neighbor_count"
            )
        more = led_by(random.permutation(leaders), turn)
        found = _without_repeats(np.vstack([found, more]))
        turn += 1
    found = found[:wanted]
    return found[np.argsort(found[:, 0], kind="stable")]


def _check(count: int, gridsize: int, neighbor_count: int, wanted: int, oversampling: bool) -> None:
    size = gridsize**2
    if gridsize not in (1, 2):
        raise InputError(f"gridsize {gridsize}: choose 1 (single patterns) or 2 (groups of four)")
    if count < size:
        raise InputError(
            f"{count} patterns are left, a group of gridsize {gridsize} needs {size}; keep more "
            "positions"
        )
    if wanted < 1:
        raise InputError(f"n_groups = {wanted}: ask for at least one group")
    if neighbor_count < size:
        raise InputError(
            f"K = {neighbor_count} neighbours for groups of {size} (OVERSAMPLING-001): raise "
            f"neighbor_count to at least {size}"
        )
    choices = comb(neighbor_count, size - 1)
    if choices > CHOICES_MAX:
        raise InputError(
            f"K = {neighbor_count} neighbours give each pattern {choices} choices of {size - 1}, "
            f"at most {CHOICES_MAX} can be listed; lower neighbor_count"
        )
    if wanted > count and (gridsize == 1 or not oversampling):
        remedy = (
            "a pattern by itself can be used once"
            if gridsize == 1
            else "set oversampling: true to choose several groups per pattern"
        )
        raise InputError(f"{wanted} groups asked for, {count} patterns are left; {remedy}")


def _without_repeats(groups: Int[np.ndarray, "group c"]) -> Int[np.ndarray, "kept c"]:
    """Return the groups, each set of members only once, in the same order."""
    members = np.sort(groups, axis=1)
    order = np.lexsort(members.T)
    ordered = members[order]
    first = np.ones(len(groups), dtype=bool)
    first[1:] = (ordered[1:] != ordered[:-1]).any(axis=1)
    return groups[np.sort(order[first])]
