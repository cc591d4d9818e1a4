"""What an arm of the study may know: patterns, positions, probe, groups. Never the object."""

import hashlib
from dataclasses import dataclass, fields
from pathlib import Path

import numpy as np
from jaxtyping import Bool, Complex, Float, Int

from study_lib.archive import open_npz
from study_lib.contract import load_dataset
from study_lib.errors import InputError


@dataclass(frozen=True)
class Measurement:
    """The patterns of one view and split.

    ``amplitudes`` (scan, n, n) are sqrt(counts), zero frequency in the centre; ``positions_px``
    (scan, 2) are (row, column) patch centres in the frame of the object, whose ``object_shape`` is
    known; ``groups`` (group, C) index patterns; ``scan_index`` (scan,) names each pattern in the
    whole scan; ``bad_pixels`` (n, n) is True where no count is valid, and the amplitudes are zero
    there; None if every pixel is good.
    """

    amplitudes: Float[np.ndarray, "scan n n"]
    positions_px: Float[np.ndarray, "scan 2"]
    probe: Complex[np.ndarray, "n n"]
    groups: Int[np.ndarray, "group c"]
    scan_index: Int[np.ndarray, " scan"]
    object_shape: tuple[int, int]
    bad_pixels: Bool[np.ndarray, "n n"] | None = None

    @property
    def counts(self) -> Float[np.ndarray, "scan n n"]:
        """Photons per detector pixel of every pattern, computed anew at each access."""
        return counts_of(self.amplitudes)


def counts_of(amplitudes: Float[np.ndarray, "*shape"]) -> Float[np.ndarray, "*shape"]:
    """Return the photons behind amplitudes: whole numbers again after the rounding of the root."""
    counts: np.ndarray = np.round(amplitudes**2)
    return counts


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


def load_measurement(path: Path) -> Measurement:
    """Return the measurement in a dataset file; the object in it is not handed on.

    Without ``groups`` in the file, every pattern is a group by itself (gridsize 1).

    Raises
    ------
    InputError
        If the file breaks the data contract, or its amplitudes carry no photon scale.
    """
    arrays, metadata = load_dataset(path)
    if metadata.get("photon_scale") == "none":
        raise InputError(
            f"{path}: its amplitudes are normalized, their squares are no photons; an arm needs "
            "counts: import the data with their counts, or use them as base data"
        )
    count = len(arrays["diffraction"])
    every = np.arange(count, dtype=np.int64)
    object_shape = arrays["objectGuess"].shape
    bad_pixels = arrays.get("bad_pixels")
    if bad_pixels is not None:
        arrays["diffraction"][:, bad_pixels] = 0
    return Measurement(
        amplitudes=arrays["diffraction"],
        positions_px=np.stack([arrays["ycoords"], arrays["xcoords"]], axis=1),
        probe=arrays["probeGuess"],
        groups=arrays.get("groups", every[:, None]),
        scan_index=arrays.get("scan_index", every),
        object_shape=(object_shape[0], object_shape[1]),
        bad_pixels=bad_pixels,
    )


def measurement_digest(measurement: Measurement) -> str:
    """Return the SHA-256 of everything an arm may know, whatever file it came from."""
    digest = hashlib.sha256()
    for field in fields(Measurement):
        value = np.asarray(getattr(measurement, field.name))
        digest.update(f"{field.name} {value.dtype} {value.shape}\0".encode())
        if value.dtype != object:  # no mask of bad pixels
            digest.update(np.ascontiguousarray(value).data)
    return digest.hexdigest()
