"""The pair of HDF5 files that pty-chi's examples and PtychoViT use.

``NAME_dp.hdf5`` has ``dp`` (scan, n, n), counts with the zero frequency in the centre;
``NAME_para.hdf5`` has ``object`` (1, oy, ox) with the attributes ``pixel_height_m`` and
``pixel_width_m``, ``probe`` (opr, mode, n, n), and ``probe_position_y_m``, ``probe_position_x_m``
(scan,) from the middle of the object. pty-chi maps position zero to the patch that starts at
``round(length / 2) - 1/2 - (n - 1) / 2``, and its Fourier transform is not unitary: its probe is
ours over n. Whether a probe on file has that scale is not stated: it is compared with the counts.
``bad_pixels`` (n, n) and ``scan_index`` (scan,) in ``NAME_para.hdf5`` are an addition of our own,
which other readers pass over.
"""

from pathlib import Path

import numpy as np
from jaxtyping import Float

from study_lib.data.formats.acquisition import (
    Acquisition,
    Geometry,
    RawScan,
    ReadChoices,
    check_shapes,
    plausible_quantity,
    require_domain,
    square_side,
    transformation,
)
from study_lib.data.formats.cleaning import acquisition_of
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
    require_domain(path, "counts", choices)
    with open_hdf5(patterns_path) as file, open_hdf5(parameters_path) as parameters:
        _check_headers(parameters, file)
        object_, probe, positions_m, pixel_m = product_in(parameters)
        bad = parameters.optional_array("bad_pixels", "biu")
        names = parameters.optional_array("scan_index", "iu")
        patterns = file.array("dp")
    shape = (object_.shape[-2], object_.shape[-1])
    side = probe.shape[-1]
    origin_px = _origin_px(side, shape)
    raw = RawScan(
        patterns=patterns,
        domain="counts",
        positions_px=positions_m / pixel_m + origin_px,
        probe=probe.astype(np.complex128) * side,
        object_=object_,
        bad_pixels=None if bad is None else bad.astype(bool),
        scan_index=names,
        geometry=Geometry(object_pixel_m=pixel_m),
        steps=(
            transformation("positions from metres to pixels", object_pixel_m=pixel_m),
            transformation(
                "shift origin of positions", y=origin_px[0].item(), x=origin_px[1].item()
            ),
            transformation("scale probe to a unitary Fourier transform", factor=side),
        ),
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
    side = probe.shape[0]
    metres = (acquisition.positions_px - _origin_px(side, object_.shape)) * pixel_m
    with new_hdf5(parameters_path) as file:
        file["probe_position_y_m"], file["probe_position_x_m"] = metres.T
        file["probe"] = (probe / side).astype(np.complex64)[None, None]
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


def product_in(file: Hdf5Reader) -> tuple[np.ndarray, np.ndarray, np.ndarray, float]:
    """Return object, probe, positions (scan, 2) in metres, and the pixel of the object in metres.

    Raises
    ------
    InputError
        If one is missing or damaged, or pixels are not square or not positive.
    """
    object_, probe = file.array("object", "cf"), file.array("probe", "cf")
    metres = [file.array(f"probe_position_{axis}_m") for axis in "yx"]
    pixel_m = pixel_of(file, "object")
    if pixel_m is None:
        raise file.refusal(
            "object",
            "found no pixel_height_m",
            "add the pixel size in metres as attributes pixel_height_m and pixel_width_m",
        )
    return object_, probe, np.stack(metres, axis=1).astype(np.float64), pixel_m


def pixel_of(file: Hdf5Reader, name: str) -> float | None:
    """Return the pixel size in the attributes of a data set, in metres; None if there is none.

    Raises
    ------
    InputError
        If pixels are not square or not positive.
    """
    sides = [file.attribute(name, key) for key in ("pixel_height_m", "pixel_width_m")]
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


def product_shapes(file: Hdf5Reader) -> tuple[tuple[int, ...], tuple[int, int]]:
    """Return the shapes of probe and positions after checking all headers; no array is read.

    Raises
    ------
    InputError
        If an array cannot be used, or positions are not one y and one x each.
    """
    file.shape("object", "cf", IMAGE_RANKS)
    probe = file.shape("probe", "cf", IMAGE_RANKS)
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
