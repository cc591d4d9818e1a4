"""Frames alone, a TIFF or NumPy file, at the positions of another file."""

from pathlib import Path

import numpy as np

from study_lib.data.formats.acquisition import Acquisition, RawScan, ReadChoices, check_shapes
from study_lib.data.formats.beside import array_in, table_of_positions
from study_lib.data.formats.cleaning import acquisition_of
from study_lib.data.formats.geometry import UNKNOWN, resolved_geometry
from study_lib.data.formats.positions import positions_in_px
from study_lib.errors import InputError


def read_stack(path: Path, choices: ReadChoices) -> Acquisition:
    """Return the acquisition of a stack of frames and a file of positions.

    Raises
    ------
    InputError
        If there are no positions, or nothing says what they and the values are.
    """
    if choices.positions is None or choices.position_unit is None or choices.domain is None:
        raise InputError(
            f"{path}: a stack of frames alone says neither where they were taken nor what its "
            "values are; give --positions FILE (.npy, .csv or .txt, row and column of every "
            "frame), --position-unit m, um, nm or px, and --domain counts or amplitude"
        )
    positions = table_of_positions(choices.positions, choices.links_below)
    patterns = array_in(str(path), "frames", [3], choices.links_below)
    check_shapes(path, positions=positions.shape, patterns=patterns.shape)
    side = min(patterns.shape[1:])
    geometry, remarks = resolved_geometry(path, UNKNOWN, choices.lengths, side)
    placed, steps = positions_in_px(
        path, positions, choices.position_unit, choices, geometry.pixel_of_object_m(side)
    )
    is_counts = choices.domain == "counts"
    raw = RawScan(
        positions_px=np.asarray(placed),
        patterns=patterns,
        domain="counts" if is_counts else "amplitude",
        is_normalized=choices.domain == "normalized",
        geometry=geometry,
        steps=steps,
        remarks=remarks,
    )
    return acquisition_of(path, raw, choices)
