"""How much probe discs overlap: the closed form and metrics 1 to 3 (metrics_version 1.0).

The original study's text and code differ; here, as its code has it, metric 1 takes all pairs of a
group and not only those with its first member, and as its text has it, metric 1 of single patterns
is none and a probe diameter must be above zero. Unlike both, metrics 2 and 3 see exactly the
patterns and groups that the arms get.
"""

from itertools import pairwise

import numpy as np
from jaxtyping import Complex, Float, Int
from numpy.typing import ArrayLike
from scipy.spatial import cKDTree

from study_lib.errors import InputError

METRICS_VERSION = "1.0"
PAIRS_AT_ONCE = 2_000_000
DENSITY_SAMPLE = 1_000


def disc_overlap(distance_px: ArrayLike, diameter_px: float) -> Float[np.ndarray, "..."]:
    """Return the share of a disc that another of the same diameter covers.

    ``f(d) = (2 / pi) (arccos u - u sqrt(1 - u^2))`` with ``u = d / D``; 1 at distance 0, 0 from
    ``D`` on.

    Raises
    ------
    InputError
        If the diameter is not a finite number above zero.
    """
    if not 0 < diameter_px < np.inf:
        raise InputError(f"probe diameter {diameter_px:g} px: it must be above zero and finite")
    ratio = np.clip(np.asarray(distance_px, dtype=np.float64) / diameter_px, 0, 1)
    overlap: np.ndarray = (2 / np.pi) * (np.arccos(ratio) - ratio * np.sqrt(1 - ratio**2))
    return overlap


def image_overlap(
    positions_px: Float[np.ndarray, "scan 2"], neighbor_count: int, diameter_px: float
) -> float:
    """Return metric 2: the mean overlap of each pattern with its K nearest others.

    Patterns at exactly one place count once. Where there are no K others, all others are meant; a
    single pattern overlaps nothing, 0.

    Raises
    ------
    InputError
        If a position is not finite, there is none, or K or the diameter is not above zero.
    """
    check_positions(positions_px)
    return float(image_overlaps(positions_px, neighbor_count, diameter_px).mean())


def image_overlaps(
    positions_px: Float[np.ndarray, "scan 2"], neighbor_count: int, diameter_px: float
) -> Float[np.ndarray, " place"]:
    """Return the mean overlap of each place with its K nearest others: metric 2 before its mean."""
    places = _distinct(positions_px)
    if len(places) == 1:
        return np.zeros(1)
    distances_px, _ = nearest_others(places, min(neighbor_count, len(places) - 1))
    overlaps: np.ndarray = disc_overlap(distances_px, diameter_px).mean(axis=1)
    return overlaps


def group_overlap(
    positions_px: Float[np.ndarray, "scan 2"],
    groups: Int[np.ndarray, "group c"],
    diameter_px: float,
) -> float | None:
    """Return metric 1: the mean overlap of the pairs inside groups; None for single patterns."""
    size = groups.shape[1]
    if size == 1:
        return None
    members = positions_px[groups]
    first, second = np.triu_indices(size, k=1)
    distances_px = np.linalg.norm(members[:, first] - members[:, second], axis=-1)
    return float(disc_overlap(distances_px, diameter_px).mean())


def group_to_group_overlap(
    positions_px: Float[np.ndarray, "scan 2"],
    groups: Int[np.ndarray, "group c"],
    diameter_px: float,
) -> tuple[float, float]:
    """Return metric 3, the mean over groups of the mean overlap with groups nearer than D.

    The place of a group is the mean of its members'; a group with no other so near counts as 0.
    Metric 3 hardly depends on how dense a scan is: over a disc of radius D the mean of
    :func:`disc_overlap` is 1/4, so it stays near that as long as there are neighbours at all, and
    above it where groups crowd. What does depend on it is returned second: the mean number of
    groups nearer than D. Pairs are made in strips of the scan, so that memory does not grow with
    their number.
    """
    centres = positions_px[groups].mean(axis=1)
    centres = centres[np.argsort(centres[:, 0], kind="stable")]
    sums, counts = np.zeros(len(centres)), np.zeros(len(centres))
    edges = _strip_edges(centres, diameter_px)
    for start, stop in pairwise(edges):
        reach = int(np.searchsorted(centres[:, 0], centres[stop - 1, 0] + diameter_px, "right"))
        pairs = _near_pairs(centres[start:reach], stop - start, diameter_px)
        distances_px = np.linalg.norm(np.diff(centres[start + pairs], axis=1)[:, 0], axis=1)
        overlaps = disc_overlap(distances_px, diameter_px)
        for end in pairs.T:
            sums[start:reach] += np.bincount(end, overlaps, minlength=reach - start)
            counts[start:reach] += np.bincount(end, minlength=reach - start)
    return float((sums / np.maximum(counts, 1)).mean()), float(counts.mean())


def nearest_others(
    positions_px: Float[np.ndarray, "scan 2"], neighbor_count: int
) -> tuple[Float[np.ndarray, "scan k"], Int[np.ndarray, "scan k"]]:
    """Return distances and indices of each position's K nearest others, nearest first.

    Raises
    ------
    InputError
        If K is not above zero, or there are no K others.
    """
    count = len(positions_px)
    if not 0 < neighbor_count < count:
        raise InputError(
            f"K = {neighbor_count} nearest neighbours of {count} patterns: K must be 1 to "
            f"{count - 1}; lower neighbor_count or use more patterns"
        )
    nearest = cKDTree(positions_px).query(positions_px, k=neighbor_count + 1)
    distances, indices = np.asarray(nearest[0]), np.asarray(nearest[1], dtype=np.int64)
    # A position at the same place as another may not be its own first neighbour.
    is_self = indices == np.arange(count)[:, None]
    is_self[~is_self.any(axis=1), -1] = True
    shape = (count, neighbor_count)
    return distances[~is_self].reshape(shape), indices[~is_self].reshape(shape)


def check_positions(positions_px: Float[np.ndarray, "scan 2"]) -> None:
    """Check that there are positions, all finite.

    Raises
    ------
    InputError
        If there is none, or one is not a number; names the first such.
    """
    if not len(positions_px):
        raise InputError("no position is left; keep more of them, or enlarge the scan")
    broken = ~np.isfinite(positions_px).all(axis=1)
    if broken.any():
        index = int(broken.argmax())
        row, column = positions_px[index].tolist()
        raise InputError(
            f"scan position {index} of {len(positions_px)} is ({row}, {column}); {broken.sum()} "
            "of them are not finite; remove them from the data"
        )


def require_distinct(positions_px: Float[np.ndarray, "scan 2"]) -> None:
    """Check that no two patterns lie at exactly one place: a neighbour there would overlap wholly.

    Raises
    ------
    InputError
        If two do; names the first such pair.
    """
    _, first, which = np.unique(_as_complex(positions_px), return_index=True, return_inverse=True)
    repeated = np.flatnonzero(first[which] != np.arange(len(which)))
    if len(repeated):
        index = int(repeated[0])
        row, column = positions_px[index].tolist()
        raise InputError(
            f"{len(repeated)} of {len(positions_px)} scan positions repeat another exactly, the "
            f"first is {index} at ({row:g}, {column:g}), the place of {first[which[index]]}; keep "
            "one pattern of each place"
        )


def _distinct(positions_px: Float[np.ndarray, "scan 2"]) -> Float[np.ndarray, "place 2"]:
    """Return every place once."""
    distinct = np.unique(_as_complex(positions_px))
    if len(distinct) == len(positions_px):
        return positions_px
    return distinct.view(np.float64).reshape(-1, 2)


def _as_complex(positions_px: Float[np.ndarray, "scan 2"]) -> Complex[np.ndarray, " scan"]:
    """Return (row, column) as one complex number, which sorts much faster than pairs."""
    whole: np.ndarray = np.ascontiguousarray(positions_px, dtype=np.float64).view(np.complex128)
    return whole[:, 0]


def _strip_edges(centres: Float[np.ndarray, "group 2"], diameter_px: float) -> list[int]:
    """Return where to cut centres, sorted by row, into strips of few enough pairs to hold at once.

    Their numbers are those of a sample, each of which stands for the centres up to the next.
    """
    every = max(1, len(centres) // DENSITY_SAMPLE)
    near = cKDTree(centres).query_ball_point(centres[::every], diameter_px, return_length=True)
    strip = np.cumsum(np.repeat(near, every)[: len(centres)]) // PAIRS_AT_ONCE
    return [0, *(np.flatnonzero(np.diff(strip)) + 1).tolist(), len(centres)]


def _near_pairs(
    centres: Float[np.ndarray, "group 2"], strip_length: int, diameter_px: float
) -> Int[np.ndarray, "pair 2"]:
    """Return once each pair nearer than a diameter, of which one is among the first, the strip."""
    tree = cKDTree(centres)
    nearer_px = np.nextafter(diameter_px, 0)
    if len(centres) <= 2 * strip_length:
        among: np.ndarray = tree.query_pairs(nearer_px, output_type="ndarray")
        pairs: np.ndarray = among[among.min(axis=1) < strip_length]
        return pairs
    # A strip much thinner than the diameter: pairs among all the others would be too many to hold.
    strip = cKDTree(centres[:strip_length])
    found = strip.sparse_distance_matrix(tree, nearer_px, output_type="ndarray")
    directed = np.stack([found["i"], found["j"]], axis=1)
    once: np.ndarray = directed[directed[:, 0] < directed[:, 1]]
    return once
