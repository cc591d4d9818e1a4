"""Synthetic objects: a thickness, 0 to 1, that retards and absorbs in proportion.

Objects are complex transmissions (oy, ox), complex64, at most 1 in amplitude; lengths are pixels.

A new kind is a function in SPECIMENS and a model in design/models.SpecimenDesign.

Examples
--------
>>> import numpy as np
>>> import study_lib as study
>>> sorted(study.specimen.SPECIMENS)
['cells', 'grains', 'power_law', 'siemens_star']
>>> star = study.specimen.siemens_star(
...     shape_px=(40, 60), spoke_count=8, star_diameter_px=30.0, phase_range_rad=0.8,
...     amplitude_min=0.9, random=study.generator(42, "specimen"),
... )
>>> star.shape, str(star.dtype)
((40, 60), 'complex64')

Phase range and smallest amplitude are what was asked for:

>>> round(float(np.ptp(np.angle(star))), 4), round(float(np.abs(star).min()), 4)
(0.8, 0.9)
"""

from collections.abc import Callable

import numpy as np
from jaxtyping import Complex, Float, Int
from scipy.fft import irfft2, next_fast_len, rfft2
from scipy.ndimage import distance_transform_edt, gaussian_filter, map_coordinates, maximum_position

# --- Cells on a slide: their bodies, membranes, nuclei and granules

CANDIDATES = 12
GRANULES_PER_CELL = 30


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

    They touch but do not cover one another, with nothing between them. Cells are discs cut where
    they meet, each in one piece (a power diagram), on a plane that is then bent smoothly. Membrane
    and granules are a small part of the cell's radius thick.

    Parameters
    ----------
    shape_px
        (rows, columns) of the object.
    cell_count
        Cells per 100 x 100 pixels; where they are crowded they leave one another less room.
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
    margin = int(np.ceil(largest_cell_px)) + 1
    wide = (shape_px[0] + 2 * margin, shape_px[1] + 2 * margin)
    count = max(1, round(cell_count * wide[0] * wide[1] / 1e4))
    radii = random.uniform(smallest_cell_px, largest_cell_px, count)
    centres = _spread(count, wide, random)
    centres[0] = margin + random.uniform((0, 0), shape_px)  # never an empty object
    owner = _owners(centres, radii, wide)
    depth = _depth_inside(owner)
    inside = owner >= 0
    radius = np.where(inside, radii[owner], 1.0)

    membrane_px = np.maximum(0.06 * radius, 0.8)
    body = 0.4 * (1 - np.exp(-depth / (0.35 * radius)))
    membrane = 0.3 * np.exp(-((depth / membrane_px - 1.5) ** 2) / 2)
    nucleus = _nuclei(owner, depth, random)
    room = inside & (nucleus == 0) & (depth > 3 * membrane_px)
    granules = (random.random(wide) < GRANULES_PER_CELL / (np.pi * radius**2)) & room
    granule_px = max(0.05 * float(radii.mean()), 0.7)
    bright = gaussian_filter(granules * random.uniform(0.1, 0.4, wide), granule_px)
    thickness = inside * (body + membrane + 0.4 * nucleus) + bright * 2 * np.pi * granule_px**2

    bent = _bent(thickness, float(radii.mean()), random)
    smooth = gaussian_filter(bent, 0.7)
    return _transmission(smooth[margin:-margin, margin:-margin], phase_range_rad, amplitude_min)


def _spread(
    count: int, shape_px: tuple[int, int], random: np.random.Generator
) -> Float[np.ndarray, "cell 2"]:
    """Return random centres, each the farthest of a few candidates from those before it."""
    centres = random.uniform((0, 0), shape_px, (count, 2))
    for index in range(1, count):
        candidates = random.uniform((0, 0), shape_px, (CANDIDATES, 2))
        offsets = candidates[:, None] - centres[:index]
        centres[index] = candidates[(offsets**2).sum(axis=-1).min(axis=1).argmax()]
    return centres


def _owners(
    centres: Float[np.ndarray, "cell 2"], radii: Float[np.ndarray, " cell"], shape: tuple[int, int]
) -> Int[np.ndarray, "y x"]:
    """Return the cell of each pixel, -1 outside: the one with the largest ``r^2 - distance^2``."""
    owner = np.full(shape, -1)
    largest = np.zeros(shape)
    for index, (centre, radius) in enumerate(zip(centres, radii, strict=True)):
        window, y, x = _around(centre, radius, shape)
        power = radius**2 - y**2 - x**2
        wins = power > largest[window]
        largest[window][wins] = power[wins]
        owner[window][wins] = index
    return owner


def _depth_inside(owner: Int[np.ndarray, "y x"]) -> Float[np.ndarray, "y x"]:
    """Return the distance of each pixel from the edge of its cell."""
    edge = np.zeros(owner.shape, dtype=bool)
    edge[1:] |= owner[1:] != owner[:-1]
    edge[:, 1:] |= owner[:, 1:] != owner[:, :-1]
    return distance_transform_edt(~edge)


def _nuclei(
    owner: Int[np.ndarray, "y x"], depth: Float[np.ndarray, "y x"], random: np.random.Generator
) -> Float[np.ndarray, "y x"]:
    """Return the thickness, 0 to 1, of a ball near the middle of each cell."""
    labels = np.unique(owner[owner >= 0])
    order = np.searchsorted(labels, owner.clip(labels[0]))
    middles = np.array(maximum_position(depth, owner, labels))
    room = np.maximum(depth[tuple(middles.T)], 1.0)
    middles = middles + random.uniform(-0.2, 0.2, middles.shape) * room[:, None]
    radii = random.uniform(0.4, 0.55, len(labels)) * room
    y, x = np.indices(owner.shape)
    squares = (y - middles[order, 0]) ** 2 + (x - middles[order, 1]) ** 2
    ball: np.ndarray = np.sqrt(np.maximum(1 - squares / radii[order] ** 2, 0))
    return ball * (owner >= 0)


def _bent(
    image: Float[np.ndarray, "y x"], scale_px: float, random: np.random.Generator
) -> Float[np.ndarray, "y x"]:
    """Return an image on a plane that is bent over a length, by far less than that length."""
    shifts = gaussian_filter(
        random.standard_normal((2, *image.shape)), (0, 0.6 * scale_px, 0.6 * scale_px)
    )
    shifts *= 0.12 * scale_px / shifts.std()
    return map_coordinates(image, np.indices(image.shape) + shifts, order=1)


# --- Objects: a thickness, 0 to 1, that retards and absorbs in proportion

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
        window, y, x = _around(centre, 1.5 * radius, shape_px)
        along = np.cos(angle) * y + np.sin(angle) * x
        across = np.cos(angle) * x - np.sin(angle) * y
        if bar:
            inside = (np.abs(along) < radius) & (np.abs(across) < 0.3 * radius)
        else:
            inside = along**2 + across**2 < radius**2
        thickness[window][inside] = depth

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


SPECIMENS: dict[str, Callable[..., np.ndarray]] = {
    "grains": grains,
    "siemens_star": siemens_star,
    "power_law": power_law,
    "cells": cells,
}


def _around(
    centre: Float[np.ndarray, "2"], reach_px: float, shape: tuple[int, int]
) -> tuple[tuple[slice, slice], np.ndarray, np.ndarray]:
    """Return the part of an image about a point, and its rows and columns from that point."""
    first = np.maximum(np.floor(centre - reach_px).astype(int), 0)
    last = np.minimum(np.ceil(centre + reach_px).astype(int) + 1, shape)
    window = np.s_[first[0] : last[0], first[1] : last[1]]
    y, x = np.ogrid[window]
    return window, y - centre[0], x - centre[1]


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
