"""What an arm of the study may know: patterns, positions, probe, groups. Never the object."""

import hashlib
from dataclasses import dataclass, fields

import numpy as np
from jaxtyping import Bool, Complex, Float, Int

Box = tuple[slice, slice]


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


def box_of(measurement: Measurement) -> Box:
    """Return the smallest box of the object that holds every patch."""
    side = measurement.probe.shape[-1]
    corners = np.rint(measurement.positions_px).astype(np.int64) - side // 2
    first, last = corners.min(axis=0), corners.max(axis=0) + side
    return slice(int(first[0]), int(last[0])), slice(int(first[1]), int(last[1]))


def measurement_digest(measurement: Measurement) -> str:
    """Return the SHA-256 of everything an arm may know, whatever file it came from."""
    digest = hashlib.sha256()
    for field in fields(Measurement):
        value = np.asarray(getattr(measurement, field.name))
        digest.update(f"{field.name} {value.dtype} {value.shape}\0".encode())
        if value.dtype != object:  # no mask of bad pixels
            digest.update(np.ascontiguousarray(value).data)
    return digest.hexdigest()
