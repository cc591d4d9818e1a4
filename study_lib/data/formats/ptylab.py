"""Input files of PtyLab (``.hdf5``), read only.

``ptychogram`` (frames, n, n) are counts with the zero frequency in the centre, ``encoder``
(frames, 2) positions (y, x) in metres, ``wavelength``, ``zo`` (object to detector) and ``dxd``
(detector pixel) in metres. The patch of position zero starts at the same pixel for all, so that
positions grow with rows and columns.

References
----------
Loetgering et al., Opt. Express 31, 13763 (2023), doi:10.1364/OE.485370
"""

from pathlib import Path

from study_lib.data.formats.acquisition import (
    Acquisition,
    RawScan,
    ReadChoices,
    check_shapes,
)
from study_lib.data.formats.cleaning import acquisition_of
from study_lib.data.formats.geometry import Geometry, quantity_in, resolved_geometry
from study_lib.data.formats.positions import positions_in_px
from study_lib.data.hdf5 import open_hdf5


def read_ptylab(path: Path, choices: ReadChoices) -> Acquisition:
    """Return the acquisition in an input file of PtyLab: patterns and positions.

    Raises
    ------
    InputError
        If the file is missing, damaged, or not laid out as above.
    """
    with open_hdf5(path, choices.links_below) as file:
        shape, positions = file.shape("ptychogram", ranks=[3]), file.shape("encoder", ranks=[2])
        check_shapes(path, positions=positions, patterns=shape)
        side = min(shape[1:])
        stated = Geometry(
            detector_distance_m=quantity_in(file, "zo", "detector_distance_m"),
            detector_pixel_m=quantity_in(file, "dxd", "detector_pixel_m"),
        )
        wavelength_m = quantity_in(file, "wavelength", "wavelength_m")
        geometry, remarks = resolved_geometry(path, stated, choices.lengths, side, wavelength_m)
        encoder, patterns = file.array("encoder"), file.array("ptychogram")
    placed, steps = positions_in_px(path, encoder, "m", choices, geometry.pixel_of_object_m(side))
    raw = RawScan(
        positions_px=placed,
        patterns=patterns,
        domain="counts",
        position_unit="m",
        geometry=geometry,
        steps=steps,
        remarks=remarks,
    )
    return acquisition_of(path, raw, choices)
