"""The pair of HDF5 files that pty-chi's examples and PtychoViT use.

``NAME_dp.hdf5`` has ``dp`` (scan, n, n), counts with the zero frequency in the centre;
``NAME_para.hdf5`` has ``object`` (1, oy, ox) with the attributes ``pixel_height_m`` and
``pixel_width_m``, ``probe`` (opr, mode, n, n), and ``probe_position_y_m``, ``probe_position_x_m``
(scan,) from the middle of the object. pty-chi maps position zero to the patch that starts at
``round(length / 2) - 1/2 - (n - 1) / 2``, and its Fourier transform is not unitary: its probe is
ours over n. Whether a probe on file has that scale is not stated: it is compared with the counts.
``bad_pixels``, (n, n) or of each pattern (scan, n, n), and ``scan_index`` (scan,) in
``NAME_para.hdf5`` are an addition of our own, which other readers pass over. As it is measured, a
pair has no object and no probe yet: the pixel of the object then comes from the user.
"""

from pathlib import Path
from typing import NamedTuple

import numpy as np
from jaxtyping import Float

from study_lib.data.formats.acquisition import (
    Acquisition,
    RawScan,
    ReadChoices,
    check_shapes,
    transformation,
)
from study_lib.data.formats.cleaning import acquisition_of
from study_lib.data.formats.geometry import (
    Geometry,
    plausible_quantity,
    resolved_geometry,
    square_side,
)
from study_lib.data.formats.positions import positions_in_px
from study_lib.data.hdf5 import IMAGE_RANKS, Hdf5Reader, new_hdf5, open_hdf5
from study_lib.errors import InputError

PATTERNS, PARAMETERS = "_dp", "_para"


def read_ptychi(path: Path, choices: ReadChoices) -> Acquisition:
    """Return the acquisition in a pair, given either of its files.

    Parameters
    ----------
    path
        ``NAME_dp.hdf5`` or ``NAME_para.hdf5``; the other is found by its name.
    choices
        What the user says.

    Raises
    ------
    InputError
        If one of the files is missing, damaged, or not laid out as above.
    """
    patterns_path, parameters_path = pair_of(path)
    links = choices.links_below
    with open_hdf5(patterns_path, links) as file, open_hdf5(parameters_path, links) as parameters:
        _check_headers(parameters, file)
        product = product_in(parameters)
        bad = parameters.optional_array("bad_pixels", "biu")
        names = parameters.optional_array("scan_index", "iu")
        patterns = file.array("dp")
    side = min(patterns.shape[-2:])
    geometry, remarks = resolved_geometry(path, product.geometry, choices.lengths, side)
    pixel_m = geometry.pixel_of_object_m(side)
    positions, steps = positions_in_px(path, product.positions, "m", choices, pixel_m)
    if product.object_ is not None:
        shape = (product.object_.shape[-2], product.object_.shape[-1])
        origin_px = _origin_px(side, shape)
        positions = positions + origin_px
        y, x = origin_px.tolist()
        steps += (transformation("shift origin of positions", y=y, x=x),)
    probe = product.probe
    if probe is not None:
        probe = probe.astype(np.complex128) * side
        steps += (transformation("scale probe to a unitary Fourier transform", factor=side),)
    raw = RawScan(
        patterns=patterns,
        domain="counts",
        positions_px=positions,
        probe=probe,
        object_=product.object_,
        bad_pixels=None if bad is None else bad.astype(bool),
        scan_index=names,
        position_unit="m",
        geometry=geometry,
        steps=steps,
        remarks=remarks,
    )
    return acquisition_of(path, raw, choices)


def write_ptychi(path: Path, acquisition: Acquisition) -> None:
    """Write both files of a pair.

    Parameters
    ----------
    path
        ``NAME_dp.hdf5`` or ``NAME_para.hdf5``; the other is put beside it.
    acquisition
        With patterns, probe, object and the pixel of the object.

    Raises
    ------
    InputError
        If something is missing, or a name ends otherwise.
    """
    patterns_path, parameters_path = pair_of(path)
    probe, object_, counts = *acquisition.require("probe", "object_"), acquisition.counts()
    (pixel_m,) = acquisition.require_geometry("object_pixel_m")
    side = probe.shape[-1]
    metres = (acquisition.positions_px - _origin_px(side, object_.shape)) * pixel_m
    with new_hdf5(parameters_path) as file:
        file["probe_position_y_m"], file["probe_position_x_m"] = metres.T
        modes = probe.reshape(-1, side, side)
        file["probe"] = (modes / side).astype(np.complex64)[None]
        file["object"] = object_[None]
        file["scan_index"] = acquisition.names.astype(np.int64)
        if acquisition.bad_pixels is not None:
            file["bad_pixels"] = acquisition.bad_pixels
        for name in ("pixel_height_m", "pixel_width_m"):
            file["object"].attrs[name] = pixel_m
            file["probe"].attrs[name] = pixel_m
    with new_hdf5(patterns_path) as file:
        file.create_dataset("dp", data=counts, compression="gzip", shuffle=True)


def pair_of(path: Path) -> tuple[Path, Path]:
    """Return the paths of the patterns and of the parameters, given either.

    Raises
    ------
    InputError
        If the name ends in neither ``_dp`` nor ``_para``.
    """
    for ending in (PATTERNS, PARAMETERS):
        if path.stem.endswith(ending):
            name = path.stem.removesuffix(ending)
            return (
                path.with_name(name + PATTERNS + path.suffix),
                path.with_name(name + PARAMETERS + path.suffix),
            )
    raise InputError(
        f"{path}: the name ends in neither _dp nor _para; a pair is named NAME_dp.hdf5 and "
        "NAME_para.hdf5"
    )


class Product(NamedTuple):
    """What a product holds: object and probe with their axes of modes, if it has them.

    ``positions`` (scan, 2) are (y, x) as they are on file; of ``geometry`` the pixel of the object.
    """

    object_: np.ndarray | None
    probe: np.ndarray | None
    positions: np.ndarray
    geometry: Geometry


def product_in(file: Hdf5Reader) -> Product:
    """Return object, probe, positions and the pixel of the object, as far as they are there.

    Raises
    ------
    InputError
        If one is damaged, or pixels are not square or not positive.
    """
    metres = [file.array(f"probe_position_{axis}_m") for axis in "yx"]
    object_ = file.optional_array("object", "cf")
    pixel_m = None if object_ is None else pixel_of(file, "object")
    return Product(
        object_,
        file.optional_array("probe", "cf"),
        np.stack(metres, axis=1).astype(np.float64),
        Geometry(object_pixel_m=pixel_m),
    )


def pixel_of(file: Hdf5Reader, name: str) -> float | None:
    """Return the pixel size in the attributes of a data set, in metres; None if it is not known.

    Raises
    ------
    InputError
        If pixels are not square or not positive.
    """
    # Zero is how some programs write what they do not know.
    sides = [file.attribute(name, key) or None for key in ("pixel_height_m", "pixel_width_m")]
    pixel_m = square_side(file, name, sides, "resample it")
    return plausible_quantity(file.path, f"{name}: pixel_height_m", pixel_m, "object_pixel_m")


def _check_headers(parameters: Hdf5Reader, patterns: Hdf5Reader) -> None:
    """Refuse a pair whose arrays do not belong together, before any of them is read."""
    probe, positions = product_shapes(parameters)
    check_shapes(
        patterns.path,
        positions=positions,
        patterns=patterns.shape("dp", ranks=[3]),
        bad_pixels=parameters.optional_shape("bad_pixels", "biu"),
        scan_index=parameters.optional_shape("scan_index", "iu"),
        probe=probe,
    )


def product_shapes(file: Hdf5Reader) -> tuple[tuple[int, ...] | None, tuple[int, int]]:
    """Return the shapes of probe, if any, and positions after checking all headers; none is read.

    Raises
    ------
    InputError
        If an array cannot be used, or positions are not one y and one x each.
    """
    file.optional_shape("object", "cf", IMAGE_RANKS)
    probe = file.optional_shape("probe", "cf", IMAGE_RANKS)
    rows, columns = (file.shape(f"probe_position_{axis}_m") for axis in "yx")
    if len(rows) != 1 or rows != columns:
        raise file.refusal(
            "probe_position", f"found shapes {rows} and {columns}", "give one y and one x each"
        )
    return probe, (rows[0], 2)


def _origin_px(side: int, shape: tuple[int, ...]) -> Float[np.ndarray, "2"]:
    """Return the patch centre, pixel ``side // 2``, that pty-chi reads at position zero."""
    origin: np.ndarray = np.round(np.array(shape[-2:]) / 2) - 0.5
    return origin - (side - 1) / 2 + side // 2
