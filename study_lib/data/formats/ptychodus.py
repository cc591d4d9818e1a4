"""The HDF5 files of Ptychodus 1.7: a product (object, probe, positions) and its patterns.

A product has ``object`` (layer, oy, ox) with the attributes ``center_{x,y}_m`` and
``pixel_{width,height}_m``, ``probe`` (opr, mode, n, n), ``probe_position_{indexes,x_m,y_m}`` and,
as attributes of the file, ``photon_energy_eV`` and ``detector_object_distance_m``. Coordinates run
with rows and columns; the centre of the object is at ``(length - 1) / 2`` and so is that of a
patch. A product has no patterns: they are in a file of their own, ``patterns`` (scan, n, n) counts
with ``indexes`` and ``bad_pixels``, paired by index and not by order.
"""

from dataclasses import replace
from pathlib import Path

import numpy as np

from study_lib.data.formats.acquisition import (
    Acquisition,
    RawScan,
    ReadChoices,
    centred_positions,
    check_shapes,
    pair_by_index,
    positions_from_centred,
    transformation,
)
from study_lib.data.formats.cleaning import acquisition_of
from study_lib.data.formats.geometry import (
    IN_EV,
    POSITIVE,
    Geometry,
    plausible_quantity,
    resolved_geometry,
)
from study_lib.data.formats.positions import positions_in_px
from study_lib.data.formats.ptychi import pixel_of, product_in, product_shapes
from study_lib.data.hdf5 import Hdf5Reader, new_hdf5, open_hdf5
from study_lib.errors import InputError

PIXEL_TOLERANCE = 1e-3


def read_ptychodus(path: Path, choices: ReadChoices, patterns: Path | None = None) -> Acquisition:
    """Return the acquisition in a product, with its patterns if their file is given.

    Parameters
    ----------
    path
        The product.
    choices
        What the user says.
    patterns
        A diffraction file of Ptychodus; its frames are paired with the positions by index.

    Raises
    ------
    InputError
        If a file is missing, damaged, or not laid out as above.
    """
    with open_hdf5(path, choices.links_below) as product:
        probe_shape = _check_product(product)
        if patterns is None:
            return acquisition_of(path, _product(product, choices, None), choices)
        with open_hdf5(patterns, choices.links_below) as file:
            _check_patterns(file, probe_shape)
            detector_pixel_m = _stated(
                file, "patterns", "detector_pixel_width_m", "detector_pixel_m"
            )
            frame = file.shape("patterns")[1:]
            raw = _product(product, choices, detector_pixel_m, min(frame))
            counts, indexes = file.array("patterns"), file.array("indexes", "iu")
            bad = file.optional_array("bad_pixels", "biu")
    names = np.arange(len(raw.positions_px)) if raw.scan_index is None else raw.scan_index
    chosen, placed, records = pair_by_index(patterns, indexes, names)
    each = (chosen,) if bad is not None and bad.ndim == 3 else ()
    raw = replace(
        raw,
        patterns=counts[chosen],
        domain="counts",
        positions_px=raw.positions_px[placed],
        scan_index=names[placed],
        bad_pixels=None if bad is None else bad[each].astype(bool),
        steps=(*raw.steps, *records),
    )
    return acquisition_of(path, raw, choices)


def write_ptychodus(path: Path, acquisition: Acquisition) -> None:
    """Write a product and, where there are patterns, ``<name>_diffraction.h5`` beside it.

    Parameters
    ----------
    path
        The product.
    acquisition
        With probe, object, energy, distance and the pixel of the object.

    Raises
    ------
    InputError
        If something is missing.
    """
    probe, object_ = acquisition.require("probe", "object_")
    _, distance_m, pixel_m = acquisition.require_geometry(
        "photon_energy_ev", "detector_distance_m", "object_pixel_m"
    )
    if acquisition.amplitudes is not None:
        _write_patterns(patterns_path(path), acquisition)
    side = probe.shape[-1]
    metres = centred_positions(acquisition.positions_px, side, object_.shape) * pixel_m
    with new_hdf5(path) as file:
        file.attrs["name"] = path.stem
        file.attrs["comments"] = ""
        file.attrs["photon_energy_eV"] = acquisition.geometry.photons_of_wavelength_ev
        file.attrs["detector_object_distance_m"] = distance_m
        file.attrs["probe_photon_count"] = float((np.abs(probe.astype(np.complex128)) ** 2).sum())
        for name in ("exposure_time_s", "mass_attenuation_m2_per_kg", "tomography_angle_deg"):
            file.attrs[name] = 0.0
        file["probe_position_indexes"] = acquisition.names.astype(np.int64)
        file["probe_position_y_m"], file["probe_position_x_m"] = metres.T
        file["probe"], file["object"] = probe.reshape(1, -1, side, side), object_[None]
        for data in (file["probe"], file["object"]):
            data.attrs["pixel_height_m"] = data.attrs["pixel_width_m"] = pixel_m
        file["object"].attrs["center_x_m"] = file["object"].attrs["center_y_m"] = 0.0
        file["object_layer_spacing_m"] = np.empty(0)
        file["loss_epochs"], file["loss_values"] = np.empty(0, np.int64), np.empty(0)


def patterns_path(path: Path) -> Path:
    """Return where the patterns of a product are written."""
    return path.with_name(f"{path.stem}_diffraction{path.suffix}")


def _write_patterns(path: Path, acquisition: Acquisition) -> None:
    (detector_pixel_m,) = acquisition.require_geometry("detector_pixel_m")
    counts, bad = acquisition.counts(), acquisition.bad_pixels
    with new_hdf5(path) as file:
        file["indexes"] = acquisition.names.astype(np.int64)
        data = file.create_dataset("patterns", data=counts, compression="gzip", shuffle=True)
        for name in ("detector_pixel_height_m", "detector_pixel_width_m"):
            data.attrs[name] = detector_pixel_m
        # One mask for all patterns is all that the format has: bad there are those bad in each.
        none = np.zeros(counts.shape[1:], bool)
        in_all = bad.all(axis=0) if bad is not None and bad.ndim == 3 else bad
        file["bad_pixels"] = none if in_all is None else in_all


def _check_product(file: Hdf5Reader) -> tuple[int, ...] | None:
    """Return the shape of the probe, if any, after checking all headers; no array is read."""
    probe, positions = product_shapes(file)
    names = file.optional_shape("probe_position_indexes", "iu")
    if names not in (None, positions[:1]):
        raise file.refusal(
            "probe_position_indexes", f"found shape {names}", f"give {positions[0]}, one each"
        )
    return probe


def _check_patterns(file: Hdf5Reader, probe: tuple[int, ...] | None) -> None:
    """Refuse patterns that do not fit their indices, their mask or the probe."""
    counts, indexes = file.shape("patterns"), file.shape("indexes", "iu")
    if len(counts) != 3 or indexes != counts[:1]:
        raise InputError(
            f"{file.path}: found patterns of shape {counts} and indexes of shape {indexes}; "
            "give one index per pattern"
        )
    bad = file.optional_shape("bad_pixels", "biu")
    positions = (counts[0], 2)
    check_shapes(file.path, positions=positions, patterns=counts, bad_pixels=bad, probe=probe)


def _product(
    file: Hdf5Reader, choices: ReadChoices, detector_pixel_m: float | None, side: int | None = None
) -> RawScan:
    product = product_in(file)
    probe, object_ = product.probe, product.object_
    if side is None and probe is not None:
        side = probe.shape[-1]
    energy_ev = _stated(file, "/", "photon_energy_eV", "photon_energy_ev", IN_EV)
    if energy_ev is None:
        energy_ev = _stated(file, "/", "probe_energy_eV", "photon_energy_ev", IN_EV)
    stated = Geometry(
        photon_energy_ev=energy_ev,
        detector_distance_m=_stated(file, "/", "detector_object_distance_m", "detector_distance_m"),
        detector_pixel_m=detector_pixel_m,
        object_pixel_m=product.geometry.object_pixel_m,
    )
    geometry, remarks = resolved_geometry(file.path, stated, choices.lengths, side)
    pixel_m = geometry.pixel_of_object_m(side) if side else geometry.object_pixel_m
    probe_pixel_m = None if probe is None else pixel_of(file, "probe")
    if probe_pixel_m and pixel_m and abs(probe_pixel_m / pixel_m - 1) > PIXEL_TOLERANCE:
        raise file.refusal(
            "probe",
            f"its pixel is {probe_pixel_m:g} m, that of the object {pixel_m:g} m",
            "resample one of them, or leave it out with --ignore probe",
        )
    centre = np.zeros(2)
    if object_ is not None:
        centre = np.array([file.attribute("object", f"center_{axis}_m") or 0.0 for axis in "yx"])
    vectors, steps = positions_in_px(file.path, product.positions - centre, "m", choices, pixel_m)
    if object_ is not None and side is not None:
        vectors = positions_from_centred(vectors, side, (object_.shape[-2], object_.shape[-1]))
        steps += (transformation("shift origin of positions", to="first pixel of the object"),)
    return RawScan(
        positions_px=vectors,
        probe=probe,
        object_=object_,
        scan_index=file.optional_array("probe_position_indexes", "iu"),
        position_unit="m",
        geometry=geometry,
        steps=steps,
        remarks=remarks,
    )


def _stated(
    file: Hdf5Reader, name: str, key: str, quantity: str, remedy: str = POSITIVE
) -> float | None:
    """Return an attribute; Ptychodus writes 0 for what it does not know."""
    value = file.attribute(name, key) or None
    return plausible_quantity(file.path, key, value, quantity, remedy=remedy)
