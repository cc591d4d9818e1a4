"""Where the patches are: from the unit of a file to pixels of the object, and whether it can be."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float
from scipy.spatial import KDTree

from study_lib.data.formats.acquisition import (
    PositionUnit,
    RawScan,
    ReadChoices,
    transformation,
)
from study_lib.errors import InputError

UNITS_M = {"m": 1.0, "mm": 1e-3, "um": 1e-6, "nm": 1e-9}
OBJECT_SIDE_MAX_PX = 20_000
LENGTH_FLAGS = "--object-pixel-nm, or --energy-ev, --distance-m and --detector-pixel-um"


def positions_in_px(
    path: Path,
    positions: Float[np.ndarray, "scan 2"],
    stated: PositionUnit,
    choices: ReadChoices,
    pixel_m: float | None,
) -> tuple[Float[np.ndarray, "scan 2"], tuple[dict[str, Any], ...]]:
    """Return positions in pixels of the object, and the record of it.

    Parameters
    ----------
    path
        The file, for messages.
    positions : (scan, 2)
        (row, column) in the unit of the file.
    stated
        What the format says of that unit; ``choices.position_unit`` goes before it.
    choices
        What the user says.
    pixel_m
        The pixel of the object, if known.

    Raises
    ------
    InputError
        If they are lengths and the pixel is not known.
    """
    unit = choices.position_unit or stated
    values = positions.astype(np.float64)
    if unit == "px":
        return values, ()
    if pixel_m is None:
        raise InputError(
            f"{path}: the positions are lengths ({unit}) and the pixel of the object is not known; "
            f"give {LENGTH_FLAGS}"
        )
    named = {} if unit == "m" else {"unit": unit}
    record = transformation("positions from metres to pixels", object_pixel_m=pixel_m, **named)
    return values * (UNITS_M[unit] / pixel_m), (record,)


DENSE_EXTENT, DENSE_STEP_PX, DENSE_COUNT = 0.25, 0.5, 10  # of a frame's side; in object pixels


def with_extent_checked(path: Path, raw: RawScan, choices: ReadChoices) -> RawScan:
    """Return the scan with a remark if positions in pixels look like lengths.

    Refuses a scan of one place, and one whose extent no unit of this kind can mean.

    Raises
    ------
    InputError
        With what each other unit would make of the positions.
    """
    count = len(raw.positions_px)
    if raw.patterns is not None and count == 1:
        raise InputError(
            f"{path}: found 1 pattern; ptychography needs several that overlap; give the whole scan"
        )
    rows, columns = np.ptp(raw.positions_px, axis=0)
    if count > 1 and not rows and not columns:
        y, x = raw.positions_px[0]
        raise InputError(
            f"{path}: all {count} positions are the same, ({y:g}, {x:g}); ptychography needs "
            "patterns of different places; give each its own"
        )
    extent_px = max(rows, columns)
    if raw.patterns is None:
        return raw
    if 1 <= extent_px <= OBJECT_SIDE_MAX_PX:
        return _with_doubt_of_unit(raw, choices, extent_px)
    unit = choices.position_unit or raw.position_unit
    found = (
        f"an object of {rows:.6g} x {columns:.6g} pixels"
        if extent_px > OBJECT_SIDE_MAX_PX
        else f"all of them within a pixel ({rows:.3g} x {columns:.3g})"
    )
    raise InputError(
        f"{path}: positions: in {unit} they ask for {found}; allowed are 1 to "
        f"{OBJECT_SIDE_MAX_PX} x {OBJECT_SIDE_MAX_PX}; {_other_units(raw, unit, extent_px)}"
    )


def _with_doubt_of_unit(raw: RawScan, choices: ReadChoices, extent_px: float) -> RawScan:
    places = np.unique(raw.positions_px, axis=0)
    is_stated = choices.position_unit is not None or raw.position_unit != "px"
    is_wide = extent_px > DENSE_EXTENT * min(raw.frames().shape[1:])
    if is_stated or is_wide or len(places) < DENSE_COUNT:
        return raw
    distances = np.asarray(KDTree(places).query(places, k=2)[0])
    step_px = float(np.median(distances[:, 1]))
    if step_px > DENSE_STEP_PX:
        return raw
    remark = (
        f"the positions lie within {extent_px:.3g} object pixels, the nearest {step_px:.2g} apart, "
        "which is hardly a scan; if they are micrometres, say --position-unit um"
    )
    return replace(raw, remarks=(*raw.remarks, remark))


def _other_units(raw: RawScan, unit: PositionUnit, extent_px: float) -> str:
    pixel_m = raw.geometry.pixel_of_object_m(min(raw.frames().shape[1:]))
    if pixel_m is None:
        return f"say --position-unit, with {LENGTH_FLAGS}"
    lengths_px = {name: length_m / pixel_m for name, length_m in UNITS_M.items()} | {"px": 1.0}
    would = ", ".join(
        f"{name} {extent_px / lengths_px[unit] * length_px:.3g}"
        for name, length_px in lengths_px.items()
        if name != unit
    )
    return (
        f"with a pixel of {pixel_m:.4g} m its side would be, by --position-unit: {would} pixels; "
        "or correct the lengths"
    )
