"""Prepared data of ptypy (``.ptyd``), read only.

``meta`` has energy (keV), distance (m), detector pixel (m, one or two numbers) and shape;
``chunks/<k>`` has ``data`` (frames, n, n) counts with the zero frequency in the centre,
``indices``, ``positions`` (frames, 2) as (y, x) in metres, and ``weights``, which are zero for bad
pixels and may be empty or missing: then ``meta/weight2d`` stands for every frame.
"""

from pathlib import Path

import numpy as np

from study_lib.data.formats.acquisition import (
    Acquisition,
    Geometry,
    RawScan,
    ReadChoices,
    plausible_quantity,
    quantity_in,
    require_domain,
    square_side,
    transformation,
)
from study_lib.data.formats.cleaning import acquisition_of
from study_lib.data.hdf5 import Hdf5Reader, open_hdf5
from study_lib.errors import InputError


def read_ptyd(path: Path, choices: ReadChoices) -> Acquisition:
    """Return the acquisition in prepared data: patterns and positions, no probe and no object.

    Raises
    ------
    InputError
        If the file is missing, damaged, or not laid out as above.
    """
    require_domain(path, "counts", choices)
    with open_hdf5(path) as file:
        chunks = sorted(file.names("chunks"), key=lambda name: (len(name), name))
        if not chunks:
            raise file.missing("chunks")
        frames = {_check_chunk(file, f"chunks/{name}") for name in chunks}
        if len(frames) > 1:
            raise file.refusal("chunks", f"patterns of several shapes, {frames}", "prepare alike")
        parts = [_chunk(file, f"chunks/{name}") for name in chunks]
        data, indices, positions_m, weights = zip(*parts, strict=True)
        shared = file.optional_array("meta/weight2d", "fiub")
        geometry = _geometry(file)
    patterns, names = np.concatenate(data), np.concatenate(indices).astype(np.int64)
    if len(np.unique(names)) != len(names):
        raise InputError(f"{path}: chunks: an index occurs twice; prepare the data again")
    pixel_m = geometry.pixel_of_object_m(min(patterns.shape[1:]))
    if pixel_m is None:
        raise InputError(
            f"{path}: meta: energy, distance and psize are not all there, so metres cannot become "
            "pixels; prepare the data with them"
        )
    order = np.argsort(names, kind="stable")
    raw = RawScan(
        positions_px=np.concatenate(positions_m)[order] / pixel_m,
        patterns=patterns[order],
        domain="counts",
        bad_pixels=_bad_pixels([part for part in weights if part is not None], shared),
        scan_index=names[order],
        geometry=geometry,
        steps=(transformation("positions from metres to pixels", object_pixel_m=pixel_m),),
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
    return data, indices, positions, weights.reshape(-1, *data.shape[1:])


def _bad_pixels(weights: list[np.ndarray], shared: np.ndarray | None) -> np.ndarray | None:
    """Return the pixels that some frame gives no weight: the study has one mask for all of them."""
    if weights:
        bad: np.ndarray = np.any([(part <= 0).any(axis=0) for part in weights], axis=0)
        return bad
    return None if shared is None else shared <= 0


def _geometry(file: Hdf5Reader) -> Geometry:
    remedy = "ptypy keeps energy in keV; prepare the data again"
    energy_ev = quantity_in(file, "meta/energy", "photon_energy_ev", factor=1000.0, remedy=remedy)
    distance_m = quantity_in(file, "meta/distance", "detector_distance_m")
    stated = file.optional_array("meta/psize", ranks=range(3))
    sides = [] if stated is None else stated.ravel().tolist()
    pixel_m = square_side(file, "meta/psize", sides, "prepare the data so")
    return Geometry(
        photon_energy_ev=energy_ev,
        detector_distance_m=distance_m,
        detector_pixel_m=plausible_quantity(file.path, "meta/psize", pixel_m, "detector_pixel_m"),
    )
