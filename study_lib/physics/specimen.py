"""Synthetic objects: a thickness, 0 to 1, that retards and absorbs in proportion."""

from collections.abc import Callable

import numpy as np
from jaxtyping import Complex, Float, Int
from scipy.fft import irfft2, next_fast_len, rfft2
from scipy.ndimage import gaussian_filter

from study_lib.physics.cells import cell_thickness

EDGE_PX = 0.6
SAMPLES_PER_PX = 4
STAR_SPACING = 1.05


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
    return _transmission(
        gaussian_filter(0.75 * thickness + 0.25 * slow, EDGE_PX), phase_range_rad, amplitude_min
    )


def siemens_star(
    *,
    shape_px: tuple[int, int],
    spoke_count: int,
    star_diameter_px: float,
    phase_range_rad: float,
    amplitude_min: float,
    random: np.random.Generator,
) -> Complex[np.ndarray, "oy ox"]:
    """Return Siemens stars side by side: one known spatial frequency on every circle.

    At a distance r from the middle of a star the spokes repeat every ``2 pi r / spoke_count``
    pixels; each pixel holds its mean over the spokes, so they fade where they are finer than two
    pixels. The middle row of the object, which no split lights, lies between two rows of stars, if
    there is room for two.

    Parameters
    ----------
    shape_px
        (rows, columns) of the object.
    spoke_count
        Spokes of one star, as many gaps between them.
    star_diameter_px
        Diameter of one star.
    phase_range_rad
        Largest minus smallest phase; the mean phase is zero.
    amplitude_min
        Smallest amplitude; the largest is 1.
    random
        Its generator: turns each star by its own angle.

    Returns
    -------
    (oy, ox), complex64 transmission.
    """
    spacing_px = STAR_SPACING * star_diameter_px
    thickness = np.zeros(shape_px)
    for row in _centres_px(shape_px[0], spacing_px, is_between=shape_px[0] > spacing_px):
        for column in _centres_px(shape_px[1], spacing_px, is_between=False):
            centre = np.array([row, column])
            first = np.floor(centre - spacing_px / 2).astype(int).clip(0, shape_px)
            last = np.ceil(centre + spacing_px / 2).astype(int).clip(0, shape_px)
            turn_rad = random.uniform(0, 2 * np.pi / spoke_count)
            star = _star(first - centre, last - first, spoke_count, star_diameter_px, turn_rad)
            thickness[first[0] : last[0], first[1] : last[1]] += star
    return _transmission(gaussian_filter(thickness, EDGE_PX), phase_range_rad, amplitude_min)


def power_law(
    *,
    shape_px: tuple[int, int],
    exponent: float,
    phase_range_rad: float,
    amplitude_min: float,
    random: np.random.Generator,
) -> Complex[np.ndarray, "oy ox"]:
    """Return texture with random phases and the power spectrum ``frequency^-exponent``.

    Natural images have an exponent near 2 (Field, J. Opt. Soc. Am. A 4, 2379 (1987),
    doi:10.1364/JOSAA.4.002379). The object is a part of a field twice as large, so that it is not
    periodic.

    Parameters
    ----------
    shape_px
        (rows, columns) of the object.
    exponent
        Of the fall of the power with spatial frequency; 0 is white.
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
    # A square field: its lowest frequencies are as low along rows as along columns.
    side = int(next_fast_len(2 * max(shape_px), real=True))
    spectrum = rfft2(random.standard_normal((side, side)))
    y, x = np.fft.fftfreq(side)[:, None], np.fft.rfftfreq(side)
    frequency = np.hypot(y, x)
    frequency[0, 0] = np.inf
    field = irfft2(spectrum / np.abs(spectrum) * frequency ** (-exponent / 2), (side, side))
    return _transmission(field[:rows, :columns], phase_range_rad, amplitude_min)


def cells(
    *,
    shape_px: tuple[int, int],
    cell_count: int,
    smallest_cell_px: float,
    largest_cell_px: float,
    phase_range_rad: float,
    amplitude_min: float,
    random: np.random.Generator,
) -> Complex[np.ndarray, "oy ox"]:
    """Return cells with membrane, nucleus and granules: smooth, a weak phase, hardly absorbing.

    Parameters
    ----------
    shape_px
        (rows, columns) of the object.
    cell_count
        Cells per 100 x 100 pixels.
    smallest_cell_px, largest_cell_px
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
    thickness = cell_thickness(
        shape_px=shape_px,
        cell_count=cell_count,
        smallest_cell_px=smallest_cell_px,
        largest_cell_px=largest_cell_px,
        random=random,
    )
    return _transmission(thickness, phase_range_rad, amplitude_min)


SPECIMENS: dict[str, Callable[..., np.ndarray]] = {
    "grains": grains,
    "siemens_star": siemens_star,
    "power_law": power_law,
    "cells": cells,
}


def _transmission(
    thickness: Float[np.ndarray, "oy ox"], phase_range_rad: float, amplitude_min: float
) -> Complex[np.ndarray, "oy ox"]:
    """Return the wave behind a thickness of any scale: the thickest part absorbs and retards most.

    The phase has mean zero and the stated range, the amplitude goes from 1 to its stated minimum.
    """
    depth = (thickness - thickness.min()) / (thickness.max() - thickness.min())
    phase = phase_range_rad * (depth - depth.mean())
    amplitude = 1 - (1 - amplitude_min) * depth
    transmission: np.ndarray = (amplitude * np.exp(1j * phase)).astype(np.complex64)
    return transmission


def _star(
    first_px: Float[np.ndarray, " 2"],
    shape_px: Int[np.ndarray, " 2"],
    spoke_count: int,
    diameter_px: float,
    turn_rad: float,
) -> Float[np.ndarray, "y x"]:
    """Return the share of each pixel that the spokes of a star about (0, 0) cover."""
    y, x = (
        first - 0.5 + (np.arange(SAMPLES_PER_PX * count) + 0.5) / SAMPLES_PER_PX
        for first, count in zip(first_px, shape_px, strict=True)
    )
    angle_rad = np.arctan2(y[:, None], x) - turn_rad
    is_inside = np.hypot(y[:, None], x) < diameter_px / 2
    is_covered = (np.cos(spoke_count * angle_rad) > 0) & is_inside
    samples = is_covered.reshape(shape_px[0], SAMPLES_PER_PX, shape_px[1], SAMPLES_PER_PX)
    share: np.ndarray = samples.mean(axis=(1, 3))
    return share


def _centres_px(length_px: int, spacing_px: float, *, is_between: bool) -> list[float]:
    """Return the middles of stars along an axis: around its middle, or one in its middle."""
    shift = 0.5 if is_between else 0.0
    reach = int(np.ceil(length_px / (2 * spacing_px)))
    offsets = (np.arange(-reach, reach + 1) + shift) * spacing_px
    centres = (length_px - 1) / 2 + offsets
    return [
        float(centre)
        for centre in centres
        if -spacing_px / 2 < centre + 0.5 < length_px + spacing_px / 2
    ]
