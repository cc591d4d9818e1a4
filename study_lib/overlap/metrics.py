"""How much probe discs overlap: the closed form and metrics 1 to 3 (metrics_version 1.0).

The original study's text and code differ; here, as its code has it, metric 1 takes all pairs of a
group and not only those with its first member, and as its text has it, metric 1 of single patterns
is none and a probe diameter must be above zero. Unlike both, metrics 2 and 3 see exactly the
patterns and groups that the arms get.
"""

from dataclasses import dataclass
from itertools import pairwise

import numpy as np
from jaxtyping import Bool, Complex, Float, Int
from numpy.typing import ArrayLike
from scipy.ndimage import label
from scipy.optimize import brentq
from scipy.spatial import ConvexHull, QhullError, cKDTree
from skimage.draw import polygon2mask

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
    return (2 / np.pi) * (np.arccos(ratio) - ratio * np.sqrt(1 - ratio**2))


def linear_overlap(share: float) -> float:
    """Return the linear overlap ``1 - d / D`` of two discs that share an area.

    The inverse of :func:`disc_overlap`; 60 % of the diameter are 0.50 of the area.

    >>> from study_lib.overlap.metrics import linear_overlap
    >>> round(linear_overlap(0.5046), 3)
    0.6
    """
    if not 0 < share < 1:
        return float(np.clip(share, 0, 1))

    def excess(ratio: float) -> float:
        return float(disc_overlap(np.array([ratio]), 1.0)[0]) - share

    return 1 - float(brentq(excess, 0, 1))


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
    return directed[directed[:, 0] < directed[:, 1]]


# --- Coverage: which pixels the probe discs reach, how often, and where they leave holes


@dataclass(frozen=True)
class Coverage:
    """Coverage of the object by probe discs.

    The scanned field is the convex hull of the positions; a hole is a connected piece of it that
    no disc reaches, and its diameter that of the disc of the same area.
    """

    lit_px: int
    scanned_px: int
    lit_share_of_scanned: float
    patterns_per_pixel_mean: float
    patterns_per_pixel_min: int
    patterns_per_pixel_max: int
    holes: int
    largest_hole_diameter_px: float


def patterns_per_pixel(
    positions_px: Float[np.ndarray, "scan 2"], diameter_px: float, object_shape: tuple[int, int]
) -> Int[np.ndarray, "oy ox"]:
    """Return how many probe discs of a diameter cover each object pixel.

    Parameters
    ----------
    positions_px : (scan, 2)
        (row, column) of the middles of the discs in object pixels.
    diameter_px
        Of the disc.
    object_shape
        (rows, columns) of the object.
    """
    pixels = np.indices(object_shape).reshape(2, -1).T
    within = cKDTree(positions_px).query_ball_point(pixels, diameter_px / 2, return_length=True)
    return np.asarray(within).reshape(object_shape)


def lit_area_px(
    positions_px: Float[np.ndarray, "scan 2"], diameter_px: float, object_shape: tuple[int, ...]
) -> int:
    """Return how many object pixels lie in one probe disc or more.

    Arguments as in :func:`patterns_per_pixel`.
    """
    rows, columns = object_shape
    return int((patterns_per_pixel(positions_px, diameter_px, (rows, columns)) > 0).sum())


def coverage_of(
    positions_px: Float[np.ndarray, "scan 2"], diameter_px: float, object_shape: tuple[int, int]
) -> Coverage:
    """Return how the probe discs cover the object; arguments as in :func:`patterns_per_pixel`."""
    patterns = patterns_per_pixel(positions_px, diameter_px, object_shape)
    scanned = _scanned(positions_px, object_shape)
    inside = patterns[scanned]
    pieces, holes = label(scanned & (patterns == 0))
    largest_px = int(np.bincount(pieces.ravel())[1:].max()) if holes else 0
    return Coverage(
        lit_px=int((patterns > 0).sum()),
        scanned_px=int(scanned.sum()),
        lit_share_of_scanned=float((inside > 0).mean()),
        patterns_per_pixel_mean=float(inside.mean()),
        patterns_per_pixel_min=int(inside.min()),
        patterns_per_pixel_max=int(inside.max()),
        holes=holes,
        largest_hole_diameter_px=float(2 * np.sqrt(largest_px / np.pi)),
    )


def _scanned(
    positions_px: Float[np.ndarray, "scan 2"], object_shape: tuple[int, int]
) -> Bool[np.ndarray, "oy ox"]:
    """Return the pixels in the convex hull of the positions, and those that hold a position."""
    rows, columns = np.rint(positions_px).astype(int).T
    field = np.zeros(object_shape, dtype=bool)
    try:
        corners = positions_px[ConvexHull(positions_px).vertices]
    except QhullError:
        pass  # all on one line: a hull without area has no pixels to add
    else:
        field |= polygon2mask(object_shape, corners)
    field[rows, columns] = True
    return field


# --- The original study's spacing rule: reported beside the overlap, no gate

ROUNDING = 1e-12  # an extent of whole spacings may come out a little short


@dataclass(frozen=True)
class SpacingReport:
    """What the spacing rule says of one set of positions.

    ``packing_bound`` is the most positions that any choice in their bounding box can keep as far
    apart as the threshold; ``direct`` counts positions with no other nearer than it, ``greedy``
    those that its selection in scan order keeps.
    """

    threshold_px: float
    direct_accepted: int
    direct_acceptance_rate: float
    greedy_accepted: int
    greedy_acceptance_rate: float
    packing_bound: int
    packing_bound_rate: float


def legacy_spacing_px(overlap: float, side_px: int) -> float:
    """Return the spacing the original study wanted, ``(1 - f) N``: 38.4 px for 0.7 at N = 128.

    It takes overlap as linear in the patch side, which neither the probe's shape nor its size
    bears out; it is reported, and gates nothing.
    """
    return (1 - overlap) * side_px


def spacing_report(positions_px: Float[np.ndarray, "scan 2"], threshold_px: float) -> SpacingReport:
    """Return what the rule would accept of the positions, and the most it could."""
    count = len(positions_px)
    direct = int((nearest_px(positions_px) >= threshold_px).sum())
    greedy = int(greedy_selection(positions_px, threshold_px).sum())
    bound = min(count, packing_bound(np.ptp(positions_px, axis=0).tolist(), threshold_px))
    return SpacingReport(
        threshold_px=threshold_px,
        direct_accepted=direct,
        direct_acceptance_rate=direct / count,
        greedy_accepted=greedy,
        greedy_acceptance_rate=greedy / count,
        packing_bound=bound,
        packing_bound_rate=bound / count,
    )


def nearest_px(positions_px: Float[np.ndarray, "scan 2"]) -> Float[np.ndarray, " scan"]:
    """Return the distance of each position to its nearest other; infinite if there is none."""
    return np.asarray(cKDTree(positions_px).query(positions_px, k=2)[0])[:, 1]


def greedy_selection(
    positions_px: Float[np.ndarray, "scan 2"], threshold_px: float
) -> Bool[np.ndarray, " scan"]:
    """Return which positions are kept, taken by row and column if all kept ones are far enough.

    Parameters
    ----------
    positions_px : (scan, 2)
        (row, column) in object pixels.
    threshold_px
        The least distance between kept positions.
    """
    tree = cKDTree(positions_px)
    nearer_px = np.nextafter(threshold_px, 0)
    kept, blocked = np.zeros((2, len(positions_px)), dtype=bool)
    for index in np.lexsort((positions_px[:, 1], positions_px[:, 0])).tolist():
        if not blocked[index]:
            kept[index] = True
            blocked[tree.query_ball_point(positions_px[index], nearer_px)] = True
    return kept


def packing_bound(extent_px: tuple[float, float] | list[float], spacing_px: float) -> int:
    """Return the most points of a rectangle that can lie pairwise at least a spacing apart.

    ``2 A / (sqrt(3) S^2) + P / (2 S) + 1`` for area A and perimeter P: the hexagonal packing with
    what its edge adds. (The original study's ``A / (pi (S / 2)^2)`` leaves the edge out, and its
    bound lies below what hexagonal packing reaches.)

    Parameters
    ----------
    extent_px
        (rows, columns) of the rectangle.
    spacing_px
        The least distance S between two points.

    References
    ----------
    Oler, An inequality in the geometry of numbers, Acta Math. 105, 19 (1961)
    """
    rows, columns = extent_px
    area = 2 * rows * columns / (np.sqrt(3) * spacing_px**2)
    edge = (rows + columns) / spacing_px
    return int(np.floor((area + edge + 1) * (1 + ROUNDING)))
