"""What a detector makes of photons: counts, dark counts, saturation, dead pixels."""

import numpy as np
from jaxtyping import Bool, Float

CHUNK = 64


def bad_pixel_mask(
    *,
    side_px: int,
    beamstop_radius_px: float,
    bad_pixel_share: float,
    random: np.random.Generator,
) -> Bool[np.ndarray, "n n"]:
    """Return which pixels give no valid count: a disc behind a beamstop, and dead ones.

    Parameters
    ----------
    side_px
        Side N of the detector; the beam hits pixel ``N // 2``.
    beamstop_radius_px
        Pixels whose centre is nearer than this are hidden.
    bad_pixel_share
        Chance of every pixel to be dead.
    random
        Which ones.
    """
    distance_px = np.arange(side_px) - side_px // 2
    hidden = np.hypot(distance_px[:, None], distance_px) < beamstop_radius_px
    dead = random.random((side_px, side_px)) < bad_pixel_share
    mask: np.ndarray = hidden | dead
    return mask


def count_photons(
    expected: Float[np.ndarray, "scan n n"],
    *,
    dark_counts: float = 0.0,
    saturation_counts: int | None = None,
    bad_pixels: Bool[np.ndarray, "n n"] | None = None,
    random: np.random.Generator,
) -> None:
    """Replace expected photons by amplitudes, the square roots of what is counted, in place.

    Photons and dark counts are independent Poisson numbers, so their sum is one; a pixel counts
    no further than its limit, and bad pixels hold zero.

    Parameters
    ----------
    expected : (scan, n, n)
        Mean photons per pixel; overwritten by sqrt(counts).
    dark_counts
        Mean dark counts per pixel.
    saturation_counts
        The most a pixel can count.
    bad_pixels : (n, n)
        True where no count is valid.
    random
        Drawn from in the order of the patterns, so that the result does not depend on chunks.
    """
    for start in range(0, len(expected), CHUNK):
        part = expected[start : start + CHUNK]
        counts = random.poisson(part + np.float32(dark_counts))
        if bad_pixels is not None:
            counts[:, bad_pixels] = 0
        if saturation_counts is not None:
            np.minimum(counts, saturation_counts, out=counts)
        np.sqrt(counts, out=part, casting="same_kind")
