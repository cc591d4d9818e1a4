"""NPZ files of PtychoPINN in all their dialects, DATA-001 among them.

Patterns are ``diffraction`` or ``diff3d``, (scan, n, n) or (n, n, scan), amplitude or counts; the
others are ``probeGuess``, ``objectGuess``, ``xcoords`` (column) and ``ycoords`` (row) in object
pixels. Amplitude or counts is stated by ``domain`` in ``_metadata`` (our own files), or by
``scale_contract_version`` and ``measurement_domain``, always both; without a statement the user is
asked. Legacy amplitudes are normalized: their squares are no counts.
"""

from pathlib import Path
from typing import Any

import numpy as np

from study_lib.data.archive import METADATA, read_npz
from study_lib.data.datasets import geometry_from
from study_lib.data.formats.acquisition import (
    Acquisition,
    Domain,
    RawScan,
    ReadChoices,
    looks_like,
    transformation,
)
from study_lib.data.formats.cleaning import acquisition_of
from study_lib.data.formats.frames import of_all_frames
from study_lib.data.formats.geometry import Geometry, plausible_quantity, resolved_geometry
from study_lib.data.formats.positions import positions_in_px
from study_lib.errors import InputError
from study_lib.files import atomic_path, write_npz

PATTERNS = ("diffraction", "diff3d")
PAIR = ("scale_contract_version", "measurement_domain")
COUNTS_PAIR = ("ci_intensity_v2", "count_intensity")
LEGACY_PAIR = ("legacy_v1", "normalized_amplitude")
LENGTHS = {
    "photon_energy_ev": ("photon_energy_eV", "probe_energy_ev"),
    "detector_distance_m": ("detector_distance_m",),
    "detector_pixel_m": ("detector_pixel_size_m",),
}
METRES_BELOW = 1e-3
KEYS = {*PATTERNS, *PAIR, "probeGuess", "objectGuess", "xcoords", "ycoords", "scan_index"}
KEYS |= {"bad_pixels", "background", *(key for keys in LENGTHS.values() for key in keys)}
KEYS |= {"xcoords_start", "ycoords_start"}


def read_ptychopinn(path: Path, choices: ReadChoices) -> Acquisition:
    """Return the acquisition in an NPZ file.

    Raises
    ------
    InputError
        If the file is missing, damaged, or leaves open what its values or axes are.
    """
    arrays, metadata, said = _contents(path)
    steps: list[dict[str, Any]] = []
    remarks = list(said)
    on_file = _positions(path, arrays, choices)
    key = next((key for key in PATTERNS if key in arrays), None)
    patterns, domain, is_normalized = None, None, False
    if key is not None:
        patterns = _axes(path, key, arrays, len(on_file), choices, steps)
        domain, is_normalized, more = _domain(path, patterns, arrays, metadata, choices)
        remarks += more
        if key != "diffraction":
            steps.append(transformation("rename", **{key: "diffraction"}))
    else:
        remarks.append("the file has no patterns: base data without a measurement")
    names = arrays.get("scan_index")
    if names is not None and (names.shape != on_file.shape[:1] or names.dtype.kind not in "iu"):
        names = None
    probe = arrays.get("probeGuess")
    side = None
    if patterns is not None:
        side = min(patterns.shape[1:])
    elif probe is not None and probe.ndim >= 2:
        side = probe.shape[-1]
    stated = _geometry(path, arrays, metadata)
    geometry, more_remarks = resolved_geometry(path, stated, choices.lengths, side)
    pixel_m = geometry.pixel_of_object_m(side) if side else geometry.object_pixel_m
    positions, records = positions_in_px(path, on_file, "px", choices, pixel_m)
    background = arrays.get("background")
    raw = RawScan(
        positions_px=positions,
        patterns=patterns,
        domain=domain,
        is_normalized=is_normalized,
        probe=probe,
        object_=arrays.get("objectGuess"),
        bad_pixels=_mask(arrays.get("bad_pixels"), patterns),
        background=None if patterns is None else background,
        # Ptychodus gives every frame the number 0: that is no index.
        scan_index=names if names is not None and len(np.unique(names)) == len(names) else None,
        geometry=geometry,
        steps=(*steps, *records),
        remarks=(*remarks, *more_remarks),
        metadata={"source_metadata": metadata} if metadata else {},
    )
    return acquisition_of(path, raw, choices)


def write_ptychopinn(path: Path, acquisition: Acquisition) -> None:
    """Write amplitudes under ``diff3d``, the key of PtychoPINN's core contract.

    Raises
    ------
    InputError
        If patterns or probe are missing.
    """
    (amplitudes,) = acquisition.require("amplitudes")
    pair = dict(zip(PAIR, map(np.array, LEGACY_PAIR), strict=True))
    arrays = {"diff3d": amplitudes} | (pair if acquisition.is_normalized else {})
    _write(path, arrays, acquisition, "amplitude")


def write_ptychopinn_counts(path: Path, acquisition: Acquisition) -> None:
    """Write counts under ``diff3d`` with the pair of keys that says so.

    Raises
    ------
    InputError
        If patterns or probe are missing, or amplitudes carry no photon scale.
    """
    pair = dict(zip(PAIR, map(np.array, COUNTS_PAIR), strict=True))
    _write(path, {"diff3d": acquisition.counts(), **pair}, acquisition, "counts")


def write_slac(path: Path, acquisition: Acquisition) -> None:
    """Write counts as ``diffraction`` (n, n, scan), as Ptychodus reads them under SLAC_NPZ.

    Raises
    ------
    InputError
        If patterns, probe, object, energy, distance or detector pixel are missing.
    """
    probe, object_ = acquisition.strongest_mode(), *acquisition.require("object_")
    _, distance_m, pixel_m = acquisition.require_geometry(
        "photon_energy_ev", "detector_distance_m", "detector_pixel_m"
    )
    energy_ev = np.float64(acquisition.geometry.photons_of_wavelength_ev)
    bad = acquisition.bad_pixels
    with atomic_path(path) as temporary:
        np.savez(
            temporary,
            allow_pickle=False,
            diffraction=np.ascontiguousarray(np.moveaxis(acquisition.counts(), 0, 2)),
            probeGuess=probe,
            objectGuess=object_,
            photon_energy_eV=energy_ev,
            detector_distance_m=distance_m,
            detector_pixel_size_m=pixel_m,
            scan_index=acquisition.names,
            scale_contract_version=COUNTS_PAIR[0],
            measurement_domain=COUNTS_PAIR[1],
            **({} if bad is None else {"bad_pixels": bad}),
            **_coordinates(acquisition),
        )


def _write(
    path: Path, arrays: dict[str, np.ndarray], acquisition: Acquisition, domain: Domain
) -> None:
    optional = {
        "objectGuess": acquisition.object_,
        "bad_pixels": acquisition.bad_pixels,
        "background": acquisition.background,
        "scan_index": acquisition.names,
    }
    found = {key: value for key, value in optional.items() if value is not None}
    content = (
        arrays | {"probeGuess": acquisition.strongest_mode()} | found | _coordinates(acquisition)
    )
    photons = {"photon_scale": "none"} if acquisition.is_normalized else {}
    geometry = {"geometry": acquisition.geometry.known()}
    write_npz(path, content, {"domain": domain, **photons, **geometry})


def _coordinates(acquisition: Acquisition) -> dict[str, np.ndarray]:
    y, x = acquisition.positions_px.T
    named = {"xcoords": x, "ycoords": y, "xcoords_start": x, "ycoords_start": y}
    return {key: np.ascontiguousarray(values) for key, values in named.items()}


def _contents(path: Path) -> tuple[dict[str, np.ndarray], dict[str, Any], list[str]]:
    """Return arrays and metadata; metadata that are a pickled object stay unread."""
    try:
        arrays, metadata = read_npz(path, only=KEYS)
    except InputError as error:
        if METADATA not in str(error) or "pickled" not in str(error):
            raise
        arrays, metadata = read_npz(path, only=KEYS, ignore=[METADATA])
        return arrays, metadata, ["its _metadata are a pickled object and were left unread"]
    return arrays, metadata, []


def _positions(path: Path, arrays: dict[str, np.ndarray], choices: ReadChoices) -> np.ndarray:
    found = []
    for key in ("ycoords", "xcoords"):
        values = arrays.get(key, arrays.get(f"{key}_start"))
        if values is None:
            listed = ", ".join(sorted(arrays)) or "nothing that is known here"
            raise InputError(f"{path}: {key}: found nothing (the file has {listed}); add it")
        if values.ndim != 1 or values.dtype.kind not in "fiu":
            raise InputError(
                f"{path}: {key}: found {values.dtype} of shape {values.shape}; expected one number "
                "per pattern"
            )
        found.append(values.astype(np.float64))
    if len(found[0]) != len(found[1]) or not len(found[0]):
        raise InputError(
            f"{path}: ycoords: found {len(found[0])} values and {len(found[1])} xcoords; pair them"
        )
    positions = np.stack(found, axis=1)
    finite = positions[np.isfinite(positions)]
    is_unsaid = choices.position_unit is None
    if is_unsaid and finite.size and 0 < np.abs(finite).max() < METRES_BELOW:
        raise InputError(
            f"{path}: xcoords, ycoords: found values up to {np.abs(finite).max():g}, which look "
            "like metres; expected object pixels; say --position-unit m, with --object-pixel-nm"
        )
    return positions


def _axes(
    path: Path,
    key: str,
    arrays: dict[str, np.ndarray],
    count: int,
    choices: ReadChoices,
    steps: list[dict[str, Any]],
) -> np.ndarray:
    """Return patterns as (scan, row, column)."""
    patterns = arrays[key]
    if patterns.ndim == 4 and patterns.shape[-1] == 1:
        patterns = patterns[..., 0]
        steps.append(transformation("remove axes of length 1", key=key))
    if patterns.ndim != 3 or patterns.dtype.kind not in "fiu":
        raise InputError(
            f"{path}: {key}: found {patterns.dtype} of shape {patterns.shape}; expected "
            f"({count}, n, n) or (n, n, {count}) real numbers"
        )
    probe = arrays.get("probeGuess")
    squares = [part for part in (probe.shape if probe is not None else ()) if part > 1][-2:]
    fits = {
        name: length == count and (not squares or [*frame] == squares)
        for name, length, frame in (
            ("nhw", patterns.shape[0], patterns.shape[1:]),
            ("hwn", patterns.shape[2], patterns.shape[:2]),
        )
    }
    possible = [name for name, fit in fits.items() if fit]
    if choices.axes is None and len(possible) == 2:
        raise InputError(
            f"{path}: {key}: shape {patterns.shape} is {count} patterns whichever axis counts "
            "them; say --axes nhw for (scan, row, column) or --axes hwn for (row, column, scan)"
        )
    if choices.axes is None and count not in patterns.shape:
        raise InputError(
            f"{path}: {key}: shape {patterns.shape}, and {count} positions, a number that is none "
            f"of its axes: give one position for every pattern; ({count}, n, n) or (n, n, {count}) "
            "would fit"
        )
    if not possible or choices.axes not in (None, *possible):
        asked = f" as {choices.axes}" if choices.axes else ""
        raise InputError(
            f"{path}: {key}: shape {patterns.shape}{asked} does not fit {count} positions"
            f"{f' and a probe of {squares[0]} x {squares[1]}' if len(squares) == 2 else ''}; "
            f"expected ({count}, n, n) or (n, n, {count})"
        )
    if (choices.axes or possible[0]) == "nhw":
        return patterns
    steps.append(transformation("transpose", key=key, from_axes="row, column, scan"))
    return np.moveaxis(patterns, 2, 0)


def _domain(
    path: Path,
    patterns: np.ndarray,
    arrays: dict[str, np.ndarray],
    metadata: dict[str, Any],
    choices: ReadChoices,
) -> tuple[Domain, bool, list[str]]:
    """Return the domain, whether amplitudes are normalized, and remarks."""
    pair = tuple(str(arrays[key]) if key in arrays else metadata.get(key) for key in PAIR)
    stated: Domain | None = None
    is_normalized = metadata.get("photon_scale") == "none"
    if any(value is not None for value in pair):
        if pair not in (COUNTS_PAIR, LEGACY_PAIR):
            raise InputError(
                f"{path}: {PAIR[0]} and {PAIR[1]}: found {pair[0]} and {pair[1]}; expected "
                f"{' and '.join(COUNTS_PAIR)}, or {' and '.join(LEGACY_PAIR)}; state both"
            )
        stated = "counts" if pair == COUNTS_PAIR else "amplitude"
        is_normalized = pair == LEGACY_PAIR
    elif metadata.get("domain") in ("amplitude", "counts"):
        stated = metadata["domain"]
    if stated is not None:
        return stated, is_normalized, []
    if choices.domain == "normalized":
        return "amplitude", True, []
    finite = patterns[np.isfinite(patterns)] if patterns.dtype.kind == "f" else patterns
    seen = looks_like(finite)
    if choices.domain is None:
        raise InputError(
            f"{path}: nothing in the file says whether the patterns are amplitude or counts; they "
            f"are {seen}; say --domain counts, --domain amplitude (roots of counts), or --domain "
            "normalized (amplitudes without a photon scale)"
        )
    if choices.domain == "amplitude" and "whole numbers" not in seen:
        remark = (
            f"amplitudes are {seen}, and their squares are no whole numbers: taken as counts all "
            "the same; if they have no photon scale, say --domain normalized"
        )
        return "amplitude", False, [remark]
    return choices.domain, False, []


def _mask(mask: np.ndarray | None, patterns: np.ndarray | None) -> np.ndarray | None:
    """Return the mask of all frames, or those of each; (n, n, scan) turns with the patterns."""
    if mask is None or patterns is None:
        return None
    flags = mask.astype(bool)
    if flags.ndim == 3 and flags.shape != patterns.shape:
        flags = np.moveaxis(flags, 2, 0)
    return of_all_frames(flags)


def _geometry(path: Path, arrays: dict[str, np.ndarray], metadata: dict[str, Any]) -> Geometry:
    """Return what the metadata state and, where they do not, the keys of Ptychodus."""
    known: dict[str, Any] = {**geometry_from(path, metadata).known()}
    for name, keys in LENGTHS.items():
        for key in keys:
            if key in arrays and arrays[key].size == 1 and arrays[key].dtype.kind in "fiu":
                value = float(arrays[key].reshape(()))
                known.setdefault(name, plausible_quantity(path, key, value, name))
    return Geometry(**known)
