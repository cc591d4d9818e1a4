"""The synthetic object and the synthetic scan."""

import numpy as np
from jaxtyping import Complex
from scipy.ndimage import gaussian_filter


def grains(
    *,
    shape_px: tuple[int, int],
    grain_count: int,
    smallest_grain_px: float,
    largest_grain_px: float,
    phase_range_rad: float,
    amplitude_min: float,
    random: np.random.Generator,
) -> Complex[np.ndarray, "oy ox"]:
    """Return overlapping discs and bars on a smooth background: edges, flats and slow phase.

    Grains are dropped on one another like leaves, their sizes following a power law, which gives
    the image a spectrum close to that of natural ones (Lee, Mumford and Huang, Int. J. Comput.
    Vision 41, 35 (2001), doi:10.1023/A:1011109015675). A grain that retards more also absorbs
    more.

    Parameters
    ----------
    shape_px
        (rows, columns) of the object.
    grain_count
        Grains per 100 x 100 pixels.
    smallest_grain_px, largest_grain_px
        Radii.
    phase_range_rad
        Largest minus smallest phase; the mean phase is zero.
    amplitude_min
        Smallest amplitude; the largest is 1.
    random
        Its generator.

    Returns
    -------
    (oy, ox), complex64 transmission.
    """
    rows, columns = shape_px
    count = max(1, round(grain_count * rows * columns / 1e4))
    exponent = 2.0
    low, high = smallest_grain_px**-exponent, largest_grain_px**-exponent
    radii = random.uniform(high, low, count) ** (-1 / exponent)
    centres = random.uniform((0, 0), shape_px, (count, 2))
    angles = random.uniform(0, np.pi, count)
    is_bar = random.random(count) < 0.5
    depths = random.random(count)

    thickness = np.full(shape_px, 0.5)
    for centre, radius, angle, bar, depth in zip(
        centres, radii, angles, is_bar, depths, strict=True
    ):
        first = np.maximum(np.floor(centre - 1.5 * radius).astype(int), 0)
        last = np.ceil(centre + 1.5 * radius).astype(int) + 1
        window = thickness[first[0] : last[0], first[1] : last[1]]
        y, x = np.ogrid[
            first[0] : first[0] + window.shape[0], first[1] : first[1] + window.shape[1]
        ]
        along = np.cos(angle) * (y - centre[0]) + np.sin(angle) * (x - centre[1])
        across = np.cos(angle) * (x - centre[1]) - np.sin(angle) * (y - centre[0])
        if bar:
            inside = (np.abs(along) < radius) & (np.abs(across) < 0.3 * radius)
        else:
            inside = along**2 + across**2 < radius**2
        window[inside] = depth

    slow = gaussian_filter(random.standard_normal(shape_px), 0.5 * largest_grain_px, mode="reflect")
    slow = (slow - slow.min()) / (slow.max() - slow.min())
    depth = gaussian_filter(0.75 * thickness + 0.25 * slow, 0.6)
    depth = (depth - depth.min()) / (depth.max() - depth.min())
    phase = phase_range_rad * (depth - depth.mean())
    amplitude = 1 - (1 - amplitude_min) * depth
    transmission: np.ndarray = (amplitude * np.exp(1j * phase)).astype(np.complex64)
    return transmission


SPECIMENS = {"grains": grains}
