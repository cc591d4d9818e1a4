"""Which object pixels the probe discs of a scan reach, how often, and where they leave holes."""

from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float, Int
from scipy.ndimage import label
from scipy.spatial import ConvexHull, QhullError, cKDTree
from skimage.draw import polygon2mask


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
