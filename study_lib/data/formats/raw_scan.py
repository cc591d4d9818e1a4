"""What a file says about a scan, before any of it is checked, and what the user says about it."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np

from study_lib.data.formats.acquisition import UNKNOWN, Geometry, step
from study_lib.errors import InputError

Domain = Literal["amplitude", "counts"]

WHOLE_SHARE = 0.999


@dataclass(frozen=True)
class ReadChoices:
    """What the user says about a file.

    ``domain`` and ``axes`` say what the file does not; ``zero_frequency`` and the flips say where
    it departs from its format; ``drop_bad_frames`` leaves out what cannot be used.
    """

    domain: Domain | None = None
    axes: Literal["nhw", "hwn"] | None = None
    zero_frequency: Literal["centre", "corner"] | None = None
    flip_y: bool = False
    flip_x: bool = False
    drop_bad_frames: bool = False


@dataclass(frozen=True)
class RawScan:
    """What a file says, in its own types and scales.

    Parameters
    ----------
    positions_px : (scan, 2)
        As in :class:`study_lib.data.formats.acquisition.Acquisition`.
    patterns : (scan, h, w)
        Counts or amplitudes, as ``domain`` says.
    domain
        What the patterns are; None where there are none.
    zero_frequency
        Where the format has it in the patterns.
    is_normalized
        True for amplitudes without a photon scale.
    probe : (..., n, n)
        Modes on any axes before the last two.
    object_ : (..., oy, ox)
        Axes before the last two have length one.
    bad_pixels : (h, w)
        True where the detector has no valid count.
    """

    positions_px: np.ndarray
    patterns: np.ndarray | None = None
    domain: Domain | None = None
    zero_frequency: Literal["centre", "corner"] = "centre"
    is_normalized: bool = False
    probe: np.ndarray | None = None
    object_: np.ndarray | None = None
    bad_pixels: np.ndarray | None = None
    scan_index: np.ndarray | None = None
    geometry: Geometry = UNKNOWN
    steps: tuple[dict[str, Any], ...] = ()
    remarks: tuple[str, ...] = ()
    metadata: dict[str, Any] | None = None


def check_shapes(
    path: Path,
    *,
    positions: tuple[int, ...],
    patterns: tuple[int, ...] | None = None,
    bad_pixels: tuple[int, ...] | None = None,
    scan_index: tuple[int, ...] | None = None,
    probe: tuple[int, ...] | None = None,
) -> None:
    """Refuse arrays that do not belong together; their shapes say so before any is read.

    Raises
    ------
    InputError
        If one does not fit.
    """
    if len(positions) != 2 or positions[1] != 2 or not positions[0]:
        raise InputError(
            f"{path}: positions: found shape {positions}; expected (scan, 2); "
            "give one (row, column) for every pattern"
        )
    if patterns is None:
        return
    if len(patterns) != 3 or patterns[0] != positions[0] or 0 in patterns:
        raise InputError(
            f"{path}: patterns: found shape {patterns}; expected ({positions[0]}, n, n), one "
            "for every position; order the axes as (scan, row, column)"
        )
    frame = patterns[1:]
    if bad_pixels is not None and bad_pixels != frame:
        raise InputError(
            f"{path}: bad pixels: found shape {bad_pixels}; expected {frame}, "
            "one value for every detector pixel"
        )
    if scan_index is not None and scan_index != positions[:1]:
        raise InputError(
            f"{path}: indices: found shape {scan_index}; expected {positions[:1]}, "
            "one for every pattern"
        )
    if probe is not None and probe[-2:] != frame:
        raise InputError(
            f"{path}: probe: found shape {probe}; expected (modes, {frame[0]}, "
            f"{frame[1]}), as large as a pattern; crop or pad it"
        )


def require_domain(path: Path, found: Domain, choices: ReadChoices) -> None:
    """Refuse a ``--domain`` that contradicts what a format or a file states.

    Raises
    ------
    InputError
        If they differ.
    """
    if choices.domain and choices.domain != found:
        raise InputError(
            f"{path}: the file holds {found} by its format or its own statement, not "
            f"{choices.domain}; leave out --domain, or correct the file"
        )


def looks_like(values: np.ndarray) -> str:
    """Return in words what the values of patterns look like; counts are whole numbers."""
    whole = whole_share(values)
    peak = float(values.max()) if values.size else 0.0
    if whole >= WHOLE_SHARE and peak > 1:
        return f"whole numbers up to {peak:g}, which looks like counts"
    squares = whole_share(np.square(values.astype(np.float64)))
    if squares >= WHOLE_SHARE and peak > 1:
        return f"square roots of whole numbers up to {peak:g}, which looks like amplitude"
    return f"{values.dtype} values up to {peak:g}, {whole:.0%} of them whole"


def whole_share(values: np.ndarray) -> float:
    """Return the share of whole numbers among those that are not zero, if any."""
    if values.dtype.kind in "iub":
        return 1.0
    lit = values[np.isfinite(values) & (values != 0)]
    return float(np.isclose(lit, np.round(lit), rtol=0, atol=1e-3).mean()) if lit.size else 1.0


def pair_by_index(
    path: Path, pattern_names: np.ndarray, position_names: np.ndarray
) -> tuple[np.ndarray, np.ndarray, tuple[dict[str, Any], ...]]:
    """Return which patterns and which positions belong together, and the record of it.

    Parameters
    ----------
    path
        The file, for messages.
    pattern_names, position_names : (n,), (m,)
        The number of each pattern and of each position in the whole scan.

    Raises
    ------
    InputError
        If a number occurs twice or none is common.
    """
    for name, values in (("patterns", pattern_names), ("positions", position_names)):
        if len(np.unique(values)) != len(values):
            raise InputError(f"{path}: {name}: an index occurs twice; give every frame its own")
    _, left, right = np.intersect1d(pattern_names, position_names, return_indices=True)
    if not len(left):
        raise InputError(f"{path}: patterns and positions have no index in common; pair them")
    if len(left) == len(pattern_names) == len(position_names) and (left == right).all():
        return left, right, ()
    record = step(
        "pair patterns and positions by index",
        pairs=len(left),
        patterns_without_position=len(pattern_names) - len(left),
        positions_without_pattern=len(position_names) - len(right),
    )
    return left, right, (record,)
