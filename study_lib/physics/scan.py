"""Synthetic scan positions: raster, spirals and chance, one block for each split.

Every kind fills a block of ``rows * step`` by ``columns * step`` pixels with one position per
``step`` x ``step`` pixels, so that kinds are compared at the same density.

Positions are (scan, 2), (row, column) in object pixels, float64.

A new kind is a function in SCANS and a word in design/models.ScanDesign.kind.

Examples
--------
>>> import study_lib as study
>>> sorted(study.scan.SCANS)
['fermat', 'raster', 'spiral', 'uniform']
>>> random = study.generator(42, "scan")
>>> raster = study.scan.raster(rows=2, columns=3, step_px=4.0, random=random)
>>> raster.tolist()
[[0.0, 0.0], [0.0, 4.0], [0.0, 8.0], [4.0, 0.0], [4.0, 4.0], [4.0, 8.0]]

Two blocks, one for each split, with a gap that no patch of 16 pixels bridges:

>>> positions = study.scan.two_blocks(
...     kind="raster", rows=2, columns=3, step_px=4.0, jitter_px=0.5, gap_px=17.0, margin_px=8.0,
...     random=random,
... )
>>> first, second = positions[:6], positions[6:]
>>> bool(second[:, 0].min() - first[:, 0].max() >= 17.0)
True
"""

from collections.abc import Callable

import numpy as np
from jaxtyping import Float

GOLDEN_ANGLE_RAD = np.pi * (3 - np.sqrt(5))
NEWTON_STEPS = 6


def raster(
    *, rows: int, columns: int, step_px: float, random: np.random.Generator
) -> Float[np.ndarray, "scan 2"]:
    """Return rows of positions, each row a step below the one before.

    Parameters
    ----------
    rows, columns
        Positions along each axis.
    step_px
        Distance between neighbours.
    random
        Not drawn from: a raster is always the same.

    Returns
    -------
    (rows * columns, 2), (row, column) in pixels from the corner of the block, float64.
    """
    lines = np.meshgrid(np.arange(rows) * step_px, np.arange(columns) * step_px, indexing="ij")
    return np.stack(lines, axis=-1).reshape(-1, 2)


def spiral(
    *, rows: int, columns: int, step_px: float, random: np.random.Generator
) -> Float[np.ndarray, "scan 2"]:
    """Return an Archimedean spiral about the middle of the block, cut to the block.

    Its turns, ``r = step * angle / 2 pi``, are a step apart, and so are its positions along the
    arc, whose length is ``(step / 4 pi) (angle sqrt(1 + angle^2) + arsinh angle)``.

    Parameters
    ----------
    rows, columns
        Sides of the block, in steps.
    step_px
        Distance between turns, and between positions along them.
    random
        Not drawn from: a spiral is always the same.

    Returns
    -------
    (scan, 2), (row, column) in pixels from the corner of the block, float64.
    """
    pitch = 1 / (2 * np.pi)
    arc = np.arange(_count_around(rows, columns)) + 0.5
    angle = np.sqrt(2 * arc / pitch)
    for _ in range(NEWTON_STEPS):
        slope = np.sqrt(1 + angle**2)
        length = pitch / 2 * (angle * slope + np.arcsinh(angle))
        angle -= (length - arc) / (pitch * slope)
    return _cut(pitch * angle, angle, rows, columns) * step_px


def fermat(
    *, rows: int, columns: int, step_px: float, random: np.random.Generator
) -> Float[np.ndarray, "scan 2"]:
    """Return a Fermat spiral about the middle of the block, cut to the block.

    ``r = step sqrt(m / pi)``, each position turned by the golden angle from the one before: an
    even density without rows, hence without the artefacts of a raster [1]_. Here m is 1/2, 3/2,
    ... instead of whole numbers, which keeps the innermost positions as far apart as the rest.

    Parameters
    ----------
    rows, columns
        Sides of the block, in steps.
    step_px
        Root of the area of one position.
    random
        Not drawn from: a spiral is always the same.

    Returns
    -------
    (scan, 2), (row, column) in pixels from the corner of the block, float64.

    References
    ----------
    .. [1] Huang et al., Opt. Express 22, 12634 (2014), doi:10.1364/OE.22.012634
    """
    number = np.arange(_count_around(rows, columns)) + 0.5
    angle = number * GOLDEN_ANGLE_RAD
    return _cut(np.sqrt(number / np.pi), angle, rows, columns) * step_px


def uniform(
    *, rows: int, columns: int, step_px: float, random: np.random.Generator
) -> Float[np.ndarray, "scan 2"]:
    """Return independent random positions: gaps and clusters as chance has them.

    Parameters
    ----------
    rows, columns
        Sides of the block, in steps; there are rows * columns positions.
    step_px
        Root of the mean area of one position.
    random
        Its generator.

    Returns
    -------
    (rows * columns, 2), (row, column) in pixels from the corner of the block, float64.
    """
    return random.uniform((0, 0), (rows, columns), (rows * columns, 2)) * step_px


SCANS: dict[str, Callable[..., np.ndarray]] = {
    "raster": raster,
    "spiral": spiral,
    "fermat": fermat,
    "uniform": uniform,
}


def two_blocks(
    *,
    kind: str,
    rows: int,
    columns: int,
    step_px: float,
    jitter_px: float,
    gap_px: float,
    margin_px: float,
    random: np.random.Generator,
) -> Float[np.ndarray, "scan 2"]:
    """Return two blocks of positions, the second below the first, all of them jittered.

    Parameters
    ----------
    kind
        One of `SCANS`.
    rows, columns
        Sides of one block, in steps.
    step_px
        Root of the area of one position.
    jitter_px
        Largest random shift along each axis; breaks the symmetry of the raster.
    gap_px
        Smallest distance, in rows, between the centres of the two blocks.
    margin_px
        Smallest distance of a centre from row 0 and column 0.
    random
        Its generator.

    Returns
    -------
    (scan, 2), (row, column) of the centres in object pixels, float64; the first block comes first.
    """
    block = {"rows": rows, "columns": columns, "step_px": step_px, "random": random}
    first, second = SCANS[kind](**block), SCANS[kind](**block)
    second[:, 0] += first[:, 0].max() + gap_px + 2 * jitter_px - second[:, 0].min()
    positions = np.concatenate([first, second]) + margin_px + jitter_px
    return positions + random.uniform(-jitter_px, jitter_px, positions.shape)


def _count_around(rows: int, columns: int) -> int:
    """Return the positions that fill the circle around a block, with some to spare."""
    return int(np.pi * (np.hypot(rows, columns) / 2 + 1) ** 2)


def _cut(
    radius: Float[np.ndarray, " scan"], angle: Float[np.ndarray, " scan"], rows: int, columns: int
) -> Float[np.ndarray, "inside 2"]:
    """Return (row, column) from the corner of the block, in steps, of what lies in the block."""
    sides = np.array([rows, columns])
    places = np.stack([radius * np.sin(angle), radius * np.cos(angle)], axis=1) + sides / 2
    return places[((places >= 0) & (places < sides)).all(axis=1)]
