"""From a DATA-001 file to a measurement or an acquisition, and from that back to a file."""

from pathlib import Path
from typing import Any

import numpy as np

from study_lib.data.archive import open_npz
from study_lib.data.contract import (
    ContractReport,
    check_arrays,
    load_dataset,
    prediction_violations,
)
from study_lib.data.formats.acquisition import Acquisition
from study_lib.data.formats.geometry import SPANS, Geometry, plausible_quantity
from study_lib.data.prediction import sampled
from study_lib.data.rules import Violation
from study_lib.errors import InputError
from study_lib.files import write_npz
from study_lib.physics.measurement import Measurement, photon_budget

AT_ONCE = 256  # patterns
LENGTHS = SPANS.keys() - {"wavelength_m"}  # as the energy is there


def pattern_count(path: Path) -> int:
    """Return how many patterns a dataset file holds, by its headers alone.

    Raises
    ------
    InputError
        If the file is missing, damaged, or has no stack of patterns.
    """
    with open_npz(path) as archive:
        member = archive.members.get("diffraction")
        if member is None or len(member.shape) != 3:
            found = "no diffraction" if member is None else f"diffraction of shape {member.shape}"
            raise InputError(f"{path}: {found}; give a dataset with patterns (scan, n, n)")
        return member.shape[0]


def load_measurement(path: Path, *, mapped: bool = False) -> Measurement:
    """Return the measurement in a dataset file; the object in it is not handed on.

    Without ``groups`` in the file, every pattern is a group by itself (gridsize 1).

    Parameters
    ----------
    path
        An NPZ file that holds the contract DATA-001.
    mapped
        True leaves the patterns in the file: the solver on a processor reads them chunk by chunk,
        in every pass, so that a scan may be larger than memory. Everything else that takes a
        measurement makes copies as large as its patterns, and a mask of each pattern is read
        whole. Patterns have to be uncompressed float32, as ``numpy.savez`` and this project write
        them, and the file must not change meanwhile.

    Returns
    -------
    Measurement
        Amplitudes (scan, n, n) in sqrt(photons), positions (scan, 2) in object pixels, probe
        (n, n) or its modes (modes, n, n), groups (group, C) of patterns.

    Raises
    ------
    InputError
        If the file breaks the data contract, or its amplitudes carry no photon scale; if patterns
        cannot stay in the file, or have counts on bad pixels there.

    Examples
    --------
    >>> from pathlib import Path
    >>> from tempfile import TemporaryDirectory
    >>> import study_lib as study
    >>> with TemporaryDirectory() as folder:
    ...     condition = study.create_run(Path(folder), study.load_design("smoke")).condition(1e4)
    ...     photons = study.generate(condition)
    ...     measurement = study.load_measurement(condition.file)
    >>> measurement.amplitudes.shape, measurement.positions_px.shape, measurement.probe.shape
    ((150, 32, 32), (150, 2), (32, 32))
    >>> counts = measurement.counts  # whole photons
    >>> round(float(counts.sum()) / 150) == round(photons["test"]["photons_per_pattern_measured"])
    True
    """
    arrays, metadata = load_dataset(path, mapped=mapped)
    if metadata.get("photon_scale") == "none":
        raise InputError(
            f"{path}: its amplitudes are normalized, their squares are no photons; an arm needs "
            "counts: import the data with their counts, or use them as base data"
        )
    count = len(arrays["diffraction"])
    every = np.arange(count, dtype=np.int64)
    object_shape = arrays["objectGuess"].shape
    bad_pixels = arrays.get("bad_pixels")
    if bad_pixels is not None and mapped:
        _require_dark(path, arrays["diffraction"], bad_pixels)
    elif bad_pixels is not None:
        arrays["diffraction"][..., bad_pixels] = 0
    return Measurement(
        amplitudes=arrays["diffraction"],
        positions_px=np.stack([arrays["ycoords"], arrays["xcoords"]], axis=1),
        probe=arrays["probeGuess"],
        groups=arrays.get("groups", every[:, None]),
        scan_index=arrays.get("scan_index", every),
        object_shape=(object_shape[0], object_shape[1]),
        bad_pixels=bad_pixels,
        background=arrays.get("background"),
    )


def _require_dark(path: Path, patterns: np.ndarray, bad_pixels: np.ndarray) -> None:
    """Refuse counts on bad pixels: in the file they cannot be set to zero."""
    for start in range(0, len(patterns), AT_ONCE):
        part = slice(start, start + AT_ONCE)
        bad = bad_pixels[part] if bad_pixels.ndim == 3 else bad_pixels
        if (patterns[part] * bad).any():
            raise InputError(
                f"{path}: patterns have counts on bad pixels; set them to zero there, or read the "
                "file whole"
            )


def read_dataset(path: Path) -> Acquisition:
    """Return the acquisition in a DATA-001 file, with or without patterns.

    Raises
    ------
    InputError
        If the file breaks the contract.
    """
    with open_npz(path) as archive:
        has_patterns = "diffraction" in archive.members
    arrays, metadata = load_dataset(path, base=not has_patterns)
    return Acquisition(
        positions_px=np.stack([arrays["ycoords"], arrays["xcoords"]], axis=1),
        amplitudes=arrays.get("diffraction"),
        probe=arrays["probeGuess"],
        probe_is_scaled=True,
        object_=arrays["objectGuess"],
        bad_pixels=arrays.get("bad_pixels"),
        background=arrays.get("background"),
        scan_index=arrays.get("scan_index"),
        is_normalized=metadata.get("photon_scale") == "none",
        geometry=geometry_from(path, metadata),
        metadata={"source": path.name},
    )


def write_dataset(
    path: Path, acquisition: Acquisition, source_format: str
) -> tuple[Violation, ...]:
    """Write an acquisition with object and probe as a DATA-001 file that also is base data.

    Returns by how much the model misses the patterns, where it does and that may be meant.

    Parameters
    ----------
    path
        The NPZ file.
    acquisition
        Converted or reconstructed.
    source_format
        The format it came in, for the record.

    Raises
    ------
    InputError
        If the data break the contract; nothing is written.
    """
    probe, object_ = acquisition.require("probe", "object_")
    optional = {
        "diffraction": acquisition.amplitudes,
        "scan_index": acquisition.scan_index,
        "bad_pixels": acquisition.bad_pixels,
        "background": acquisition.background,
    }
    arrays = {
        **{key: array for key, array in optional.items() if array is not None},
        "probeGuess": probe[0] if probe.ndim == 3 and len(probe) == 1 else probe,
        "objectGuess": object_,
        "ycoords": acquisition.positions_px[:, 0].copy(),
        "xcoords": acquisition.positions_px[:, 1].copy(),
    }
    metadata = _metadata(acquisition, source_format)
    serious = check_arrays(arrays, metadata, base=acquisition.amplitudes is None).serious
    notes: tuple[Violation, ...] = ()
    if not serious:
        patterns, count = acquisition.amplitudes, len(acquisition.positions_px)
        chosen = sampled(count, probe.shape[-1])
        some = None if patterns is None else patterns[chosen]
        bad = acquisition.bad_pixels
        masks = {} if bad is None else {"bad_pixels": bad if bad.ndim == 2 else bad[chosen]}
        notes = prediction_violations(arrays | masks, some, chosen, metadata)
        serious = ContractReport(notes).serious
    if serious:
        lines = "\n".join(f"  {violation}" for violation in serious)
        source = acquisition.metadata.get("source", "the data")
        raise InputError(f"{source} cannot become a data set, it breaks DATA-001:\n{lines}")
    write_npz(path, arrays, metadata)
    return notes


def geometry_from(path: Path, metadata: dict[str, Any]) -> Geometry:
    """Return the geometry in a file's metadata, as far as it is there.

    Parameters
    ----------
    path
        The file, for messages.
    metadata
        What it has under ``_metadata``.

    Raises
    ------
    InputError
        If a length or the energy cannot be.
    """
    stated = metadata.get("geometry")
    fields = stated if isinstance(stated, dict) else {}
    return Geometry(
        **{
            name: plausible_quantity(path, f"_metadata: geometry: {name}", _number(value), name)
            for name, value in fields.items()
            if name in LENGTHS and value is not None
        },
        electrons=fields.get("electrons") is True,
    )


def _number(value: Any) -> float:
    """Return a JSON number; NaN for anything else, which no quantity allows."""
    try:
        return float(value) if isinstance(value, int | float) else float("nan")
    except OverflowError:
        return float("inf")


def _metadata(acquisition: Acquisition, source_format: str) -> dict[str, Any]:
    photons = {"photon_scale": "none"} if acquisition.is_normalized else {}
    if acquisition.amplitudes is not None and not acquisition.is_normalized:
        photons = photon_budget(acquisition.amplitudes)
    return {
        **acquisition.metadata,
        **photons,
        "domain": "amplitude",
        "source_format": source_format,
        "geometry": acquisition.geometry.known(),
        "transformations": list(acquisition.transformations),
        "remarks": list(acquisition.remarks),
    }
