"""CXI 1.6, the exchange format of the Coherent X-ray Imaging Data Bank, in SI units.

Counts, mask and lengths are in ``/entry_1/instrument_1/detector_1``, the energy (J) in
``source_1``, the translations (scan, 3) as x, y, z (m) in ``/entry_1/sample_1/geometry_1``.

Dark frames, as cdtools keeps them, are ``detector_1/data_dark``; further entries (``entry_2``) are
further scans.

Translations are those of the sample. Looked at along the beam, y points up and x to the left, while
rows run down and columns to the right: ``basis_vectors`` says so, (0, -p, 0) for a row and
(-p, 0, 0) for a column. Moving the sample up therefore moves the probe down on it, to a higher row:
with these basis vectors row and column grow with y and x. Probe and object are ``image_1`` and
``image_2``, as Ptychodus keeps them, which also names where it expects pixel sizes and indices.

References
----------
Maia, Nature Methods 9, 854 (2012), doi:10.1038/nmeth.2110
"""

from dataclasses import dataclass
from pathlib import Path

import h5py
import numpy as np
from jaxtyping import Float

from study_lib.data.formats.acquisition import (
    Acquisition,
    RawScan,
    ReadChoices,
    centred_positions,
    check_shapes,
    chosen_entries,
    merged,
    positions_from_centred,
    transformation,
)
from study_lib.data.formats.cleaning import acquisition_of
from study_lib.data.formats.geometry import (
    Geometry,
    Resolved,
    plausible_quantity,
    quantity_in,
    resolved_geometry,
    square_side,
)
from study_lib.data.formats.positions import positions_in_px
from study_lib.data.hdf5 import IMAGE_RANKS, Hdf5Reader, new_hdf5, open_hdf5

ELEMENTARY_CHARGE_C = 1.602176634e-19
VERSION = 160
SIGNAL_ABOVE_BACKGROUND = 0x1000
BAD = 1
ENTRY = "/entry_1"


@dataclass(frozen=True)
class Places:
    """The names of one entry, one scan of a file."""

    entry: str
    detector: str
    source: str
    translation: str
    probe: str
    object_: str
    extension: str
    indexes: str

    @classmethod
    def of(cls, entry: str) -> "Places":
        """Return the names below an entry, ``/entry_1``."""
        return cls(
            entry=entry,
            detector=f"{entry}/instrument_1/detector_1",
            source=f"{entry}/instrument_1/source_1",
            translation=f"{entry}/sample_1/geometry_1/translation",
            probe=f"{entry}/image_1/data",
            object_=f"{entry}/image_2/data",
            extension=f"{entry}/ptychodus",
            indexes=f"{entry}/ptychodus/probe_position_indexes",
        )


FIRST = Places.of(ENTRY)
DETECTOR, SOURCE, TRANSLATION = FIRST.detector, FIRST.source, FIRST.translation
PROBE, OBJECT, EXTENSION, INDEXES = FIRST.probe, FIRST.object_, FIRST.extension, FIRST.indexes
CLASSES = {
    ENTRY: "NXentry",
    f"{ENTRY}/instrument_1": "NXinstrument",
    DETECTOR: "NXdetector",
    SOURCE: "NXsource",
    f"{ENTRY}/sample_1": "NXsample",
    f"{ENTRY}/sample_1/geometry_1": "NXtransformations",
    f"{ENTRY}/data_1": "NXdata",
}


def read_cxi(path: Path, choices: ReadChoices) -> Acquisition:
    """Return the acquisition in a CXI file, which may have no patterns but probe and object.

    Raises
    ------
    InputError
        If the file is missing, damaged, not laid out as above, or lacks a length that the
        conversion to pixels needs, or has several scans of which none is chosen.
    """
    with open_hdf5(path, choices.links_below) as file:
        found = [name for name in file.names("/") if name.startswith("entry_")]
        usable = [name for name in found if _holds_scan(file, f"/{name}")]
        names = chosen_entries(path, usable or found[:1] or [ENTRY.strip("/")], choices.entry)
        scans = [
            _scan_in(file, Places.of(f"/{name}"), choices, with_object=len(names) == 1)
            for name in names
        ]
    return acquisition_of(path, merged(path, names, scans), choices)


def _holds_scan(file: Hdf5Reader, entry: str) -> bool:
    at = Places.of(entry)
    counts, translation = _names(file, at)
    return translation in file and (counts in file or at.probe in file)


def _scan_in(file: Hdf5Reader, at: Places, choices: ReadChoices, *, with_object: bool) -> RawScan:
    """Return the scan of one entry, after all headers were checked.

    Without its object positions are in the frame of the stage, which entries share.
    """
    counts_name, translation_name = _names(file, at)
    side = _check_headers(file, at, counts_name, translation_name)
    translation = file.array(translation_name)
    mask = file.optional_array(f"{at.detector}/mask", "iub")
    probe = file.optional_array(at.probe, "c")
    object_ = file.optional_array(at.object_, "c") if with_object else None
    dark = file.optional_array(f"{at.detector}/data_dark")
    names = file.optional_array(at.indexes, "iu")
    centre = [file.number(f"{at.extension}/object_center_{axis}_m") or 0.0 for axis in "yx"]
    geometry, remarks = _geometry(file, at, choices, side)
    directions = _directions(file, at)
    patterns = file.optional_array(counts_name)
    # The centre is in the frame of the translations: it turns with them.
    origin_m = np.zeros(3) if object_ is None else np.array([centre[1], centre[0], 0.0])
    along = -((translation.astype(np.float64) - origin_m) @ directions.T)
    pixel_m = geometry.pixel_of_object_m(side)
    vectors, steps = positions_in_px(file.path, along, "m", choices, pixel_m)
    if object_ is not None:
        vectors = positions_from_centred(vectors, side, (object_.shape[-2], object_.shape[-1]))
        steps += (transformation("shift origin of positions", to="first pixel of the object"),)
    return RawScan(
        positions_px=vectors,
        patterns=patterns,
        domain=None if patterns is None else "counts",
        probe=probe,
        object_=object_,
        bad_pixels=None if mask is None else (mask != 0) & (mask != SIGNAL_ABOVE_BACKGROUND),
        dark=None if patterns is None else dark,
        scan_index=names,
        position_unit="m",
        geometry=geometry,
        steps=steps,
        remarks=remarks,
    )


def write_cxi(path: Path, acquisition: Acquisition) -> None:
    """Write patterns, positions and lengths, and probe and object where there are any.

    Parameters
    ----------
    path
        The file.
    acquisition
        With patterns, energy, distance and detector pixel.

    Raises
    ------
    InputError
        If something is missing.
    """
    counts, side = acquisition.counts(), acquisition.side_px()
    energy_ev, distance_m, detector_pixel_m, pixel_m = acquisition.require_geometry(
        "photon_energy_ev", "detector_distance_m", "detector_pixel_m", "object_pixel_m"
    )
    vectors = acquisition.positions_px
    if acquisition.object_ is not None:
        vectors = centred_positions(vectors, side, acquisition.object_.shape)
    basis = np.array([[0.0, -detector_pixel_m], [-detector_pixel_m, 0.0], [0.0, 0.0]])
    corner = np.array([0.0, 0.0, distance_m]) - basis.sum(axis=1) * (side // 2)
    with new_hdf5(path) as file:
        file["cxi_version"], file["number_of_entries"] = VERSION, 1
        for name, nexus_class in CLASSES.items():
            file.require_group(name).attrs["NX_class"] = nexus_class
        file[f"{SOURCE}/energy"] = energy_ev * ELEMENTARY_CHARGE_C
        file[f"{SOURCE}/wavelength"] = acquisition.geometry.wavelength_m
        file[f"{DETECTOR}/distance"] = distance_m
        file[f"{DETECTOR}/x_pixel_size"] = file[f"{DETECTOR}/y_pixel_size"] = detector_pixel_m
        file[f"{DETECTOR}/basis_vectors"] = basis
        file[f"{DETECTOR}/corner_position"] = corner
        file.create_dataset(f"{DETECTOR}/data", data=counts, compression="gzip", shuffle=True)
        file[f"{DETECTOR}/data"].attrs["axes"] = "translation:y:x"
        if acquisition.background is not None:
            file[f"{DETECTOR}/data_dark"] = acquisition.background
        if acquisition.bad_pixels is not None:
            file[f"{DETECTOR}/mask"] = np.where(acquisition.bad_pixels, BAD, 0).astype(np.uint32)
        file[TRANSLATION] = np.stack([vectors[:, 1], vectors[:, 0], 0 * vectors[:, 0]], 1) * pixel_m
        for place in (f"{DETECTOR}/translation", f"{ENTRY}/data_1/translation"):
            file[place] = h5py.SoftLink(TRANSLATION)
        file[f"{ENTRY}/data_1/data"] = h5py.SoftLink(f"{DETECTOR}/data")
        file[INDEXES] = acquisition.names.astype(np.int64)
        _write_images(file, acquisition, pixel_m)


def _write_images(file: h5py.File, acquisition: Acquisition, pixel_m: float) -> None:
    if acquisition.probe is not None:
        modes = acquisition.probe.reshape(-1, *acquisition.probe.shape[-2:])
        file[PROBE] = modes[None]
        file[PROBE].attrs["axes"] = "coherent:incoherent:y:x"
        file[f"{SOURCE}/illumination"] = h5py.SoftLink(PROBE)
    if acquisition.object_ is not None:
        file[OBJECT] = acquisition.object_[None]
        file[OBJECT].attrs["axes"] = "layer:y:x"
    for image, name in ((acquisition.probe, "probe"), (acquisition.object_, "object")):
        for length in ("width", "height") if image is not None else ():
            file[f"{EXTENSION}/{name}_pixel_{length}_m"] = pixel_m
    if acquisition.object_ is not None:
        file[f"{EXTENSION}/object_center_x_m"] = file[f"{EXTENSION}/object_center_y_m"] = 0.0


def _names(file: Hdf5Reader, at: Places) -> tuple[str, str]:
    """Return where counts and translations are; both may be in one of two places."""
    counts = f"{at.entry}/data_1/data"
    return (
        counts if counts in file else f"{at.detector}/data",
        at.translation if at.translation in file else f"{at.entry}/data_1/translation",
    )


def _check_headers(file: Hdf5Reader, at: Places, counts_name: str, translation_name: str) -> int:
    """Return the side of the patterns or the probe after checking all shapes; no array is read."""
    counts = file.optional_shape(counts_name, ranks=[3])
    translation = file.shape(translation_name)
    if len(translation) != 2 or translation[1] != 3:
        raise file.refusal(translation_name, f"found shape {translation}", "give (scan, 3)")
    probe = file.optional_shape(at.probe, "c", IMAGE_RANKS)
    file.optional_shape(at.object_, "c", IMAGE_RANKS)
    file.optional_shape(f"{at.detector}/data_dark", ranks=IMAGE_RANKS)
    frame = counts or probe
    if frame is None:
        raise file.missing(f"{at.entry}/data_1/data")
    check_shapes(
        file.path,
        positions=(translation[0], 2),
        patterns=counts,
        bad_pixels=file.optional_shape(f"{at.detector}/mask", "iub"),
        scan_index=file.optional_shape(at.indexes, "iu"),
        probe=probe,
    )
    return min(frame[-2:])


def _geometry(file: Hdf5Reader, at: Places, choices: ReadChoices, side: int) -> Resolved:
    remedy = "CXI keeps energy in joule; say the right one with --energy-ev"
    per_joule = 1 / ELEMENTARY_CHARGE_C
    energy_ev = None
    if choices.lengths.energy_ev is None:
        energy_ev = quantity_in(
            file, f"{at.source}/energy", "photon_energy_ev", factor=per_joule, remedy=remedy
        )
    wavelength_m = quantity_in(file, f"{at.source}/wavelength", "wavelength_m")
    sides = [file.number(f"{at.detector}/{axis}_pixel_size") for axis in "yx"]
    pixel_m = square_side(file, at.detector, sides, "resample the patterns")
    stated = Geometry(
        photon_energy_ev=energy_ev,
        detector_distance_m=quantity_in(file, f"{at.detector}/distance", "detector_distance_m"),
        detector_pixel_m=plausible_quantity(
            file.path, f"{at.detector}/y_pixel_size", pixel_m, "detector_pixel_m"
        ),
        object_pixel_m=None
        if pixel_m is not None
        else quantity_in(file, f"{at.extension}/object_pixel_height_m", "object_pixel_m"),
    )
    return resolved_geometry(file.path, stated, choices.lengths, side, wavelength_m)


def _directions(file: Hdf5Reader, at: Places) -> Float[np.ndarray, "2 3"]:
    """Return the unit vectors (x, y, z) along which rows and columns of the detector grow."""
    name = f"{at.detector}/basis_vectors"
    basis = file.optional_array(name, "f")
    if basis is None:
        return np.array([[0.0, -1.0, 0.0], [-1.0, 0.0, 0.0]])
    rows = basis if basis.shape == (2, 3) else basis.T
    if rows.shape != (2, 3) or not np.isfinite(rows).all() or not rows.any(axis=1).all():
        raise file.refusal(name, f"found shape {basis.shape}", "give two vectors, (3, 2)")
    directions: np.ndarray = rows / np.linalg.norm(rows, axis=1, keepdims=True)
    return directions.astype(np.float64)
