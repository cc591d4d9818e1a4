"""The original study's spacing rule: computed and reported beside the measured overlap, no gate."""

from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float
from scipy.spatial import cKDTree

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
    distances: np.ndarray = np.asarray(cKDTree(positions_px).query(positions_px, k=2)[0])[:, 1]
    return distances


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
