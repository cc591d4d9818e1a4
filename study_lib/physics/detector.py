"""What a detector makes of photons: counts, dark counts, saturation, dead pixels."""

import numpy as np
from jaxtyping import Bool, Float

CHUNK = 16  # patterns that fit the processor's cache
DARK_BELOW = 0.3  # photons; fastest between 0.15 and 0.5


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
        Mean photons per pixel, contiguous in C order; overwritten by sqrt(counts).
    dark_counts
        Mean dark counts per pixel.
    saturation_counts
        The most a pixel can count.
    bad_pixels : (n, n)
        True where no count is valid.
    random
        Source of the counts.

    Raises
    ------
    ValueError
        If ``expected`` cannot be flattened without a copy.
    """
    for start in range(0, len(expected), CHUNK):
        part = expected[start : start + CHUNK]
        part += np.float32(dark_counts)
        _draw(part, random)
        if bad_pixels is not None:
            part[:, bad_pixels] = 0
        if saturation_counts is not None:
            np.minimum(part, saturation_counts, out=part)
        np.sqrt(part, out=part)


def _draw(rates: Float[np.ndarray, "scan n n"], random: np.random.Generator) -> None:
    """Replace rates by independent Poisson numbers; dark pixels, which are most, cost little.

    The rates are contiguous in memory, so that what is drawn goes into them and not into a copy.
    All dark pixels together count one Poisson number of photons, each of which falls on a pixel
    with a chance proportional to its rate: exactly the law of independent pixels (splitting of a
    Poisson process; Kingman, Poisson Processes, Oxford 1993, section 5.1).
    """
    flat = np.reshape(rates, -1, copy=False)
    bright = np.flatnonzero(flat >= DARK_BELOW)
    bright_counts = random.poisson(flat[bright])
    flat[bright] = 0
    ladder = np.cumsum(flat, dtype=np.float64)
    photons = random.poisson(ladder[-1])
    # A height in (0, total] always ends on a pixel with a rate above zero; sorted, for the cache.
    heights = np.sort((1 - random.random(photons)) * ladder[-1])
    flat[...] = np.bincount(np.searchsorted(ladder, heights), minlength=flat.size)
    flat[bright] = bright_counts
