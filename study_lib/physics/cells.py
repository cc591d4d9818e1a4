"""Cells on a slide: the thickness of their bodies, membranes, nuclei and granules."""

import numpy as np
from jaxtyping import Float, Int
from scipy.ndimage import distance_transform_edt, gaussian_filter, map_coordinates, maximum_position

CANDIDATES = 12
GRANULES_PER_CELL = 30


def cell_thickness(
    *,
    shape_px: tuple[int, int],
    cell_count: int,
    smallest_cell_px: float,
    largest_cell_px: float,
    random: np.random.Generator,
) -> Float[np.ndarray, "oy ox"]:
    """Return the thickness of cells that touch but do not cover one another, 0 between them.

    Cells are discs cut where they meet, each in one piece (a power diagram), on a plane that is
    then bent smoothly. Membrane and granules are a small part of the cell's radius thick.

    Parameters
    ----------
    shape_px
        (rows, columns).
    cell_count
        Cells per 100 x 100 pixels; where they are crowded they leave one another less room.
    smallest_cell_px, largest_cell_px
        Radii.
    random
        Its generator.

    Returns
    -------
    (oy, ox), thickness in arbitrary units, at least 0.
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
    smooth: np.ndarray = gaussian_filter(bent, 0.7)
    return smooth[margin:-margin, margin:-margin]


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
        first = np.maximum(np.floor(centre - radius).astype(int), 0)
        last = np.ceil(centre + radius).astype(int) + 1
        window = np.s_[first[0] : last[0], first[1] : last[1]]
        y, x = np.ogrid[window]
        y, x = y[: largest[window].shape[0]], x[:, : largest[window].shape[1]]
        power = radius**2 - (y - centre[0]) ** 2 - (x - centre[1]) ** 2
        wins = power > largest[window]
        largest[window][wins] = power[wins]
        owner[window][wins] = index
    return owner


def _depth_inside(owner: Int[np.ndarray, "y x"]) -> Float[np.ndarray, "y x"]:
    """Return the distance of each pixel from the edge of its cell."""
    edge = np.zeros(owner.shape, dtype=bool)
    edge[1:] |= owner[1:] != owner[:-1]
    edge[:, 1:] |= owner[:, 1:] != owner[:, :-1]
    depth: np.ndarray = distance_transform_edt(~edge)
    return depth


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
    bent: np.ndarray = map_coordinates(image, np.indices(image.shape) + shifts, order=1)
    return bent
