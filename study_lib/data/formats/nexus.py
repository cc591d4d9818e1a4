"""Frames whose positions are in another file: NeXus masters (NXmx) and plain stacks, read only.

NXmx is what Eiger and Jungfrau detectors write. An ``NXentry`` has its frames in ``data/data`` or
in ``data/data_000001`` and so on, external links as a rule, which are followed below the folder
that the user names. Energy or wavelength, distance, pixel size and mask are where the definition
has them; units are those of the attribute ``units``. NXmx is of crystallography and has no
positions of a ptychographic scan.

References
----------
Bernstein et al., IUCrJ 7, 784 (2020), doi:10.1107/S2052252520008672
"""

import re
from dataclasses import replace
from pathlib import Path

import numpy as np

from study_lib.data.formats.acquisition import (
    Acquisition,
    RawScan,
    ReadChoices,
    check_shapes,
    chosen_entries,
    merged,
)
from study_lib.data.formats.beside import array_in, table_of_positions
from study_lib.data.formats.cleaning import acquisition_of
from study_lib.data.formats.geometry import (
    UNKNOWN,
    Geometry,
    plausible_quantity,
    resolved_geometry,
    square_side,
)
from study_lib.data.formats.positions import positions_in_px
from study_lib.data.hdf5 import Hdf5Reader, open_hdf5
from study_lib.errors import InputError

UNITS = {
    "m": 1.0,
    "mm": 1e-3,
    "um": 1e-6,
    "µm": 1e-6,
    "nm": 1e-9,
    "angstrom": 1e-10,
    "angstroms": 1e-10,
    "Å": 1e-10,
    "eV": 1.0,
    "keV": 1e3,
}
ANGSTROM = "angstrom"
NUMBERED = re.compile(r"data_\d+")


def read_nexus(path: Path, choices: ReadChoices) -> Acquisition:
    """Return the acquisition in a master file, at the positions of another file.

    Raises
    ------
    InputError
        If it is missing, damaged, links out of the folder that the user names, or if positions,
        their unit, or a length that they need are not given.
    """
    if choices.positions is None:
        raise InputError(
            f"{path}: an NXmx file has no positions; give them with --positions FILE (.npy, .csv "
            "or .txt, row and column of every frame) and --position-unit"
        )
    if choices.position_unit is None:
        raise InputError(
            f"{path}: --positions {choices.positions}: say in what they are, --position-unit m, "
            "um, nm or px"
        )
    positions = table_of_positions(choices.positions, choices.links_below)
    with open_hdf5(path, choices.links_below) as file:
        names = chosen_entries(path, nexus_entries(file), choices.entry)
        scans = [_scan_in(file, f"/{name}", choices) for name in names]
    counts = [0 if scan.patterns is None else len(scan.patterns) for scan in scans]
    if sum(counts) != len(positions):
        raise InputError(
            f"{path}: found {sum(counts)} frames, and {len(positions)} positions in "
            f"{choices.positions}; give one of each"
        )
    raw = merged(path, names, scans)
    pixel_m = raw.geometry.pixel_of_object_m(min(raw.frames().shape[1:]))
    placed, steps = positions_in_px(path, positions, choices.position_unit, choices, pixel_m)
    raw = replace(raw, positions_px=placed, steps=(*raw.steps, *steps))
    return acquisition_of(path, raw, choices)


def nexus_entries(file: Hdf5Reader) -> list[str]:
    """Return the groups of a file that hold frames as NXmx has them."""
    return [
        name
        for name in file.names("/")
        if f"/{name}/instrument/detector" in file and _frame_names(file, f"/{name}/data")
    ]


def _frame_names(file: Hdf5Reader, group: str) -> list[str]:
    names = file.names(group)
    numbered = sorted(
        (name for name in names if NUMBERED.fullmatch(name)), key=lambda n: (len(n), n)
    )
    return numbered or [name for name in names if name == "data"]


def _scan_in(file: Hdf5Reader, entry: str, choices: ReadChoices) -> RawScan:
    group = f"{entry}/data"
    names = [f"{group}/{name}" for name in _frame_names(file, group)]
    shapes = {file.shape(name, ranks=[3])[1:] for name in names}
    if len(shapes) > 1:
        raise file.refusal(group, f"frames of several shapes, {shapes}", "write them alike")
    (frame,) = shapes
    mask = _mask(file, f"{entry}/instrument/detector", frame)
    geometry, remarks = _geometry(file, entry, choices, min(frame))
    patterns = np.concatenate([file.array(name) for name in names])
    return RawScan(
        positions_px=np.zeros((len(patterns), 2)),
        patterns=patterns,
        domain="counts",
        bad_pixels=mask,
        geometry=geometry,
        remarks=remarks,
    )


def _mask(file: Hdf5Reader, detector: str, frame: tuple[int, ...]) -> np.ndarray | None:
    for name in (f"{detector}/pixel_mask", f"{detector}/detectorSpecific/pixel_mask"):
        mask = file.optional_array(name, "iub")
        if mask is not None:
            if mask.shape != frame:
                found = f"found shape {mask.shape}, frames of {frame}"
                raise file.refusal(name, found, "write one value for every pixel")
            bad: np.ndarray = mask != 0
            return bad
    return None


def _geometry(
    file: Hdf5Reader, entry: str, choices: ReadChoices, side: int
) -> tuple[Geometry, tuple[str, ...]]:
    detector, beam = f"{entry}/instrument/detector", f"{entry}/instrument/beam"
    pixel_m = square_side(
        file,
        detector,
        [_quantity(file, f"{detector}/{axis}_pixel_size", "detector_pixel_m") for axis in "yx"],
        "resample the frames",
    )
    distance_m = None
    for name in ("distance", "detector_distance"):
        distance_m = distance_m or _quantity(file, f"{detector}/{name}", "detector_distance_m")
    wavelength_m = energy_ev = None
    for place in (beam, f"{entry}/sample/beam", f"{entry}/instrument/monochromator"):
        for name in ("incident_wavelength", "wavelength"):
            found = _quantity(file, f"{place}/{name}", "wavelength_m", ANGSTROM)
            wavelength_m = wavelength_m or found
        for name in ("incident_energy", "energy"):
            energy_ev = energy_ev or _quantity(file, f"{place}/{name}", "photon_energy_ev", "eV")
    specific = f"{detector}/detectorSpecific/photon_energy"
    energy_ev = energy_ev or _quantity(file, specific, "photon_energy_ev", "eV")
    stated = Geometry(energy_ev, distance_m, pixel_m)
    return resolved_geometry(file.path, stated, choices.lengths, side, wavelength_m)


def _quantity(file: Hdf5Reader, name: str, quantity: str, unit: str = "m") -> float | None:
    """Return a number in the unit that its attribute names, or in that of the definition."""
    value = file.number(name)
    said = file.text_attribute(name, "units") if value is not None else None
    factor = UNITS.get(said or unit)
    if factor is None:
        raise file.refusal(name, f"found the unit {said!r}", f"write {', '.join(UNITS)}")
    return plausible_quantity(file.path, name, value or None, quantity, factor=factor)


# --- Frames alone


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
