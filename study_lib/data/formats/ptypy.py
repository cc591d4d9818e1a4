"""What ptypy and PtyLab reconstruct from, read only.

Of prepared data of ptypy (``.ptyd``) ``meta`` has energy (keV), distance (m), detector pixel (m,
one or two numbers) and shape; ``chunks/<k>`` has ``data`` (frames, n, n) counts with the zero
frequency in the centre, ``indices``, ``positions`` (frames, 2) as (y, x) in metres, and
``weights``, which are zero for bad pixels and may be empty or missing: then ``meta/weight2d``
stands for every frame.

An input file of PtyLab (``.hdf5``) has ``ptychogram`` (frames, n, n), counts with the zero
frequency in the centre, ``encoder`` (frames, 2), positions (y, x) in metres that grow with rows
and columns, ``wavelength``, ``zo`` (object to detector) and ``dxd`` (detector pixel) in metres.

References
----------
PtyLab: Loetgering et al., Opt. Express 31, 13763 (2023), doi:10.1364/OE.485370
"""

from pathlib import Path

import numpy as np

from study_lib.data.formats.acquisition import (
    Acquisition,
    RawScan,
    ReadChoices,
    check_shapes,
)
from study_lib.data.formats.cleaning import acquisition_of
from study_lib.data.formats.frames import of_all_frames
from study_lib.data.formats.geometry import (
    Geometry,
    plausible_quantity,
    quantity_in,
    resolved_geometry,
    square_side,
)
from study_lib.data.formats.positions import positions_in_px
from study_lib.data.hdf5 import Hdf5Reader, open_hdf5
from study_lib.errors import InputError


def read_ptyd(path: Path, choices: ReadChoices) -> Acquisition:
    """Return the acquisition in prepared data: patterns and positions, no probe and no object.

    Raises
    ------
    InputError
        If the file is missing, damaged, or not laid out as above.
    """
    with open_hdf5(path, choices.links_below) as file:
        chunks = sorted(file.names("chunks"), key=lambda name: (len(name), name))
        if not chunks:
            raise file.missing("chunks")
        frames = {_check_chunk(file, f"chunks/{name}") for name in chunks}
        if len(frames) > 1:
            raise file.refusal("chunks", f"patterns of several shapes, {frames}", "prepare alike")
        parts = [_chunk(file, f"chunks/{name}") for name in chunks]
        data, indices, positions_m, weights = zip(*parts, strict=True)
        shared = file.optional_array("meta/weight2d", "fiub")
        if shared is not None and shared.size and shared.shape != data[0].shape[1:]:
            found = f"found shape {shared.shape}, frames of {data[0].shape[1:]}"
            raise file.refusal("meta/weight2d", found, "prepare the data again")
        stated = _geometry(file, choices)
    patterns, names = np.concatenate(data), np.concatenate(indices).astype(np.int64)
    if len(np.unique(names)) != len(names):
        raise InputError(f"{path}: chunks: an index occurs twice; prepare the data again")
    side = min(patterns.shape[1:])
    geometry, remarks = resolved_geometry(path, stated, choices.lengths, side)
    order = np.argsort(names, kind="stable")
    positions, steps = positions_in_px(
        path, np.concatenate(positions_m)[order], "m", choices, geometry.pixel_of_object_m(side)
    )
    bad = _bad_pixels(list(weights), shared, [len(part) for part in data])
    raw = RawScan(
        positions_px=positions,
        patterns=patterns[order],
        domain="counts",
        bad_pixels=bad[order] if bad is not None and bad.ndim == 3 else bad,
        scan_index=names[order],
        position_unit="m",
        geometry=geometry,
        steps=steps,
        remarks=remarks,
    )
    return acquisition_of(path, raw, choices)


def _check_chunk(file: Hdf5Reader, group: str) -> tuple[int, ...]:
    """Return the shape of the frames after checking all headers; no array is read."""
    data, indices = file.shape(f"{group}/data"), file.shape(f"{group}/indices")
    positions = file.shape(f"{group}/positions")
    if len(data) != 3 or 0 in data or indices != data[:1] or positions != (data[0], 2):
        raise file.refusal(
            group,
            f"data {data}, indices {indices} and positions {positions} do not belong together",
            "give (frames, n, n), (frames,) and (frames, 2)",
        )
    file.optional_shape(f"{group}/weights", "fiub")
    file.optional_shape("meta/weight2d", "fiub")
    return data[1:]


def _chunk(
    file: Hdf5Reader, group: str
) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray | None]:
    """Return patterns, indices, positions in metres, and weights if there are any that fit."""
    data, indices = file.array(f"{group}/data"), file.array(f"{group}/indices")
    positions = file.array(f"{group}/positions").astype(np.float64)
    weights = file.optional_array(f"{group}/weights", "fiub")
    if weights is None or not weights.size or weights.shape[-2:] != data.shape[1:]:
        return data, indices, positions, None
    weights = weights.reshape(-1, *data.shape[1:])
    if len(weights) not in (1, len(data)):
        raise file.refusal(
            f"{group}/weights",
            f"found those of {len(weights)} frames, and {len(data)} frames",
            "prepare the data again",
        )
    return data, indices, positions, weights


def _bad_pixels(
    weights: list[np.ndarray | None], shared: np.ndarray | None, lengths: list[int]
) -> np.ndarray | None:
    """Return the pixels without weight: (n, n) if they are so in all frames, else of each frame.

    A chunk without weights of its own has those that stand for every frame, or only good pixels.
    """
    given = next((part for part in weights if part is not None), shared)
    if given is None or not given.size:
        return None
    frame = given.shape[-2:]
    common = np.zeros(frame, bool) if shared is None or not shared.size else shared <= 0
    masks = [
        np.broadcast_to(common if part is None else part <= 0, (length, *frame))
        for part, length in zip(weights, lengths, strict=True)
    ]
    return of_all_frames(np.concatenate(masks))


def _geometry(file: Hdf5Reader, choices: ReadChoices) -> Geometry:
    remedy = "ptypy keeps energy in keV; say the right one with --energy-ev"
    energy_ev = None
    if choices.lengths.energy_ev is None:
        energy_ev = quantity_in(
            file, "meta/energy", "photon_energy_ev", factor=1000.0, remedy=remedy
        )
    distance_m = quantity_in(file, "meta/distance", "detector_distance_m")
    stated = file.optional_array("meta/psize", ranks=range(3))
    sides = [] if stated is None else stated.ravel().tolist()
    pixel_m = square_side(file, "meta/psize", sides, "prepare the data so")
    return Geometry(
        photon_energy_ev=energy_ev,
        detector_distance_m=distance_m,
        detector_pixel_m=plausible_quantity(file.path, "meta/psize", pixel_m, "detector_pixel_m"),
    )


# --- PtyLab


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
