"""Which scan positions a view keeps, and the groups that they form."""

import heapq
from dataclasses import dataclass
from itertools import combinations
from math import comb

import numpy as np
from jaxtyping import Float, Int
from scipy.spatial import Delaunay, QhullError, cKDTree

from study_lib.design.axes import SelectionName
from study_lib.errors import InputError
from study_lib.overlap.metrics import check_positions, image_overlap, nearest_others

# --- Which positions are kept: the first of an order, cut where the overlap fits


@dataclass(frozen=True)
class Kept:
    """The positions that are kept, and what metric 2 the same order could have reached.

    ``indices`` (kept,) are sorted. ``densest`` is metric 2 of the whole scan, ``sparsest`` that of
    the fewest positions that have K neighbours.
    """

    indices: Int[np.ndarray, " kept"]
    densest: float
    sparsest: float


def selection_order(
    positions_px: Float[np.ndarray, "scan 2"],
    selection: SelectionName,
    random: np.random.Generator,
) -> Int[np.ndarray, " scan"]:
    """Return all positions in the order in which they are kept: any share is its first part.

    ``uniform`` is a random order. ``blue_noise`` starts at a random position and goes on with the
    one farthest from all before: the first m lie evenly, no two of them nearer to each other than
    any other position is to the nearest of them.

    References
    ----------
    Eldar et al., The farthest point strategy for progressive image sampling,
    IEEE Trans. Image Process. 6, 1305 (1997), doi:10.1109/83.623193
    """
    shuffled: np.ndarray = random.permutation(len(positions_px))
    if selection == "uniform":
        return shuffled
    # The shuffle decides which is first, and between equally far ones.
    evenly: np.ndarray = shuffled[_farthest_first(positions_px[shuffled])]
    return evenly


def keep_for_target(
    positions_px: Float[np.ndarray, "scan 2"],
    *,
    target_overlap: float,
    selection: SelectionName,
    neighbor_count: int,
    diameter_px: float,
    random: np.random.Generator,
) -> Kept:
    """Return the positions whose metric 2 comes nearest to a target, found by bisection.

    A target denser than the whole scan keeps every position, one sparser than the fewest positions
    with K neighbours keeps those.

    Raises
    ------
    InputError
        If there are no K neighbours even in the whole scan.
    """
    _require_neighbors(len(positions_px), neighbor_count)
    order = selection_order(positions_px, selection, random)

    def overlap_of(kept: int) -> float:
        return image_overlap(positions_px[order[:kept]], neighbor_count, diameter_px)

    low, high = neighbor_count + 1, len(order)
    sparsest, densest = overlap_of(low), overlap_of(high)
    if densest <= target_overlap:
        low = high
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (low, middle) if overlap_of(middle) > target_overlap else (middle, high)
    best = min((low, high), key=lambda kept: abs(overlap_of(kept) - target_overlap))
    return Kept(np.sort(order[:best]), densest, sparsest)


def keep_number(
    positions_px: Float[np.ndarray, "scan 2"],
    *,
    number: int,
    selection: SelectionName,
    neighbor_count: int,
    diameter_px: float,
    random: np.random.Generator,
) -> Kept:
    """Return as many of the positions as a number says.

    Raises
    ------
    InputError
        If there are not so many, or the number is so small that there are no K neighbours.
    """
    _require_neighbors(len(positions_px), neighbor_count)
    if not neighbor_count < number <= len(positions_px):
        raise InputError(
            f"{number} of {len(positions_px)} positions would be kept; at least "
            f"{neighbor_count + 1} are needed for K = {neighbor_count} neighbours, and there are "
            "no more than all; change what the view keeps, neighbor_count or the scan"
        )
    order = selection_order(positions_px, selection, random)
    densest, sparsest = (
        image_overlap(positions_px[order[:count]], neighbor_count, diameter_px)
        for count in (len(order), neighbor_count + 1)
    )
    return Kept(np.sort(order[:number]), densest, sparsest)


def number_at_step(positions_px: Float[np.ndarray, "scan 2"], step_px: float) -> int:
    """Return how many positions to keep so that there is one per step x step pixels, on average.

    Raises
    ------
    InputError
        If the scan itself has fewer.
    """
    own_px = mean_step_px(positions_px)
    number = round(len(positions_px) * (own_px / step_px) ** 2)
    if number > len(positions_px):
        raise InputError(
            f"a step of {step_px:.3g} pixels is wanted; the scan has one of {own_px:.3g} on "
            "average, which no choice of its positions makes smaller; scan finer or keep a "
            "larger step"
        )
    return number


def mean_step_px(positions_px: Float[np.ndarray, "scan 2"]) -> float:
    """Return the side of the square that each position has to itself, on average.

    Of a raster that is its step: the area of the Delaunay triangles, two for each position, which
    the edge of the scan does not make larger or smaller.

    Raises
    ------
    InputError
        If all positions lie on one line.
    """
    check_positions(positions_px)
    try:
        triangles = positions_px[Delaunay(positions_px).simplices]
    except (QhullError, ValueError):
        raise InputError(
            f"{len(positions_px)} scan positions lie on one line, so there is no area to each; "
            "say otherwise which are kept: s_img, number or target_overlap"
        ) from None
    first, second = triangles[:, 1] - triangles[:, 0], triangles[:, 2] - triangles[:, 0]
    areas = np.abs(first[:, 0] * second[:, 1] - first[:, 1] * second[:, 0]) / 2
    return float(np.sqrt(2 * areas.mean()))


def _require_neighbors(count: int, neighbor_count: int) -> None:
    if count <= neighbor_count:
        raise InputError(
            f"{count} patterns; {neighbor_count + 1} are needed for K = {neighbor_count} "
            "neighbours; enlarge the scan or lower neighbor_count"
        )


def _farthest_first(positions_px: Float[np.ndarray, "scan 2"]) -> Int[np.ndarray, " scan"]:
    """Return the positions from the first on, each the farthest from all before it.

    A new one can only come nearer to positions within the distance it had itself, so each step
    looks at few; the heap may hold distances that have since shrunk, which are put back.
    """
    check_positions(positions_px)
    tree = cKDTree(positions_px)
    distances_px = np.linalg.norm(positions_px - positions_px[0], axis=1)
    heap = [(-distance, index) for index, distance in enumerate(distances_px.tolist())][1:]
    heapq.heapify(heap)
    order = [0]
    while heap:
        stored, index = heap[0]
        current = float(distances_px[index])
        if current < -stored:
            heapq.heapreplace(heap, (-current, index))
            continue
        heapq.heappop(heap)
        order.append(index)
        near = np.asarray(tree.query_ball_point(positions_px[index], current), dtype=np.int64)
        to_new_px = np.linalg.norm(positions_px[near] - positions_px[index], axis=1)
        distances_px[near] = np.minimum(distances_px[near], to_new_px)
    return np.array(order)


# --- Groups of patterns that share an object region: a pattern and some near it

CHOICES_MAX = 1_000_000
GROUPS_PER_PATTERN_MAX = 1000


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
    for turn in range(len(choices)):
        if len(found) >= wanted:
            break
        more = led_by(random.permutation(leaders), turn)
        found = _without_repeats(np.vstack([found, more]))
    if len(found) < wanted:
        raise InputError(
            f"{wanted} groups asked for, but {count} patterns with K = {neighbor_count} have only "
            f"{len(found)} different groups of {size}; lower n_groups or raise neighbor_count"
        )
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
    if wanted > GROUPS_PER_PATTERN_MAX * count:
        raise InputError(
            f"{wanted} groups asked for, {count} patterns are left; at most "
            f"{GROUPS_PER_PATTERN_MAX} groups a pattern are chosen; lower n_groups"
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
