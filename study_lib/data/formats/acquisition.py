"""One scan in the study's conventions, whatever file it came from or goes to."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, replace
from typing import Any

import numpy as np
from jaxtyping import Bool, Complex, Float, Int

from study_lib.errors import InputError

PLANCK_TIMES_LIGHT_EV_M = 1.239841984332003e-6
PIXEL_TOLERANCE = 1e-3
WORDS = {"amplitudes": "patterns", "probe": "probe", "object_": "object"}
FLAGS = {
    "photon_energy_ev": "--energy-ev",
    "detector_distance_m": "--distance-m",
    "detector_pixel_m": "--detector-pixel-um",
    "object_pixel_m": "--object-pixel-nm (or energy, distance and detector pixel)",
}


@dataclass(frozen=True)
class Geometry:
    """Lengths in metres and energy, as far as they are known.

    References
    ----------
    The pixel of the object is ``wavelength * distance / (N * detector pixel)`` in the far field:
    Rodenburg and Maiden, Ptychography, Springer Handbook of Microscopy (2019),
    doi:10.1007/978-3-030-00069-1_17
    """

    photon_energy_ev: float | None = None
    detector_distance_m: float | None = None
    detector_pixel_m: float | None = None
    object_pixel_m: float | None = None

    @property
    def wavelength_m(self) -> float | None:
        """Wavelength, if the energy is known."""
        return PLANCK_TIMES_LIGHT_EV_M / self.photon_energy_ev if self.photon_energy_ev else None

    def pixel_of_object_m(self, side_px: int) -> float | None:
        """Return the pixel of the object: as stated, or from the lengths for N = ``side_px``."""
        if self.object_pixel_m:
            return self.object_pixel_m
        if self.wavelength_m and self.detector_distance_m and self.detector_pixel_m:
            return self.wavelength_m * self.detector_distance_m / (side_px * self.detector_pixel_m)
        return None

    def known(self) -> dict[str, float]:
        """Return what is known, for JSON."""
        return {key: value for key, value in asdict(self).items() if value is not None}


UNKNOWN = Geometry()


@dataclass(frozen=True)
class Acquisition:
    """Patterns, positions and what else a file knows.

    Parameters
    ----------
    positions_px : (scan, 2)
        (row, column) of the patch centres, pixel ``N // 2`` of each patch, in pixels of
        ``object_`` if there is one, else from an origin of their own.
    amplitudes : (scan, n, n)
        sqrt(counts), zero frequency at pixel ``n // 2``; None where a file holds no patterns.
    probe : (n, n)
        Its strongest mode; in sqrt(photons) per pixel if ``probe_is_scaled``.
    object_ : (oy, ox)
        Complex transmission.
    bad_pixels : (n, n)
        True where the detector has no valid count.
    scan_index : (scan,)
        Number of each pattern in the whole scan.
    is_normalized
        True where the amplitudes carry no photon scale, so that their squares are not counts.
    geometry
        Lengths and energy.
    transformations
        What was done to the arrays on the way here, in order: see :func:`step`.
    remarks
        Sentences that the user should read.
    metadata
        What else is worth keeping as JSON.
    """

    positions_px: Float[np.ndarray, "scan 2"]
    amplitudes: Float[np.ndarray, "scan n n"] | None = None
    probe: Complex[np.ndarray, "n n"] | None = None
    probe_is_scaled: bool = False
    object_: Complex[np.ndarray, "oy ox"] | None = None
    bad_pixels: Bool[np.ndarray, "n n"] | None = None
    scan_index: Int[np.ndarray, " scan"] | None = None
    is_normalized: bool = False
    geometry: Geometry = UNKNOWN
    transformations: tuple[dict[str, Any], ...] = ()
    remarks: tuple[str, ...] = ()
    metadata: Mapping[str, Any] = field(default_factory=dict)

    @property
    def names(self) -> Int[np.ndarray, " scan"]:
        """Number of each pattern in the whole scan; its place in the file if there is none."""
        return np.arange(len(self.positions_px)) if self.scan_index is None else self.scan_index

    def counts(self) -> Float[np.ndarray, "scan n n"]:
        """Return photons per detector pixel, whole where the amplitudes are roots of whole numbers.

        Raises
        ------
        InputError
            If there are no patterns, or they carry no photon scale.
        """
        (amplitudes,) = self.require("amplitudes")
        if self.is_normalized:
            raise InputError(
                "the amplitudes are normalized and carry no photon scale, so there are no counts "
                "to write; use the format ptychopinn, which takes amplitudes"
            )
        squares = amplitudes.astype(np.float64) ** 2
        whole = np.round(squares)
        are_roots = np.allclose(squares, whole, rtol=1e-6, atol=1e-3)
        result: np.ndarray = (whole if are_roots else squares).astype(np.float32)
        return result

    def require(self, *names: str) -> list[Any]:
        """Return arrays that a format cannot do without.

        Raises
        ------
        InputError
            If one is missing.
        """
        values = [getattr(self, name) for name in names]
        missing = [WORDS[name] for name, value in zip(names, values, strict=True) if value is None]
        if missing:
            raise InputError(
                f"the data have no {' and no '.join(missing)}, which this format needs"
            )
        return values

    def side_px(self) -> int:
        """Return the side N of a pattern.

        Raises
        ------
        InputError
            If there are neither patterns nor a probe.
        """
        for array in (self.amplitudes, self.probe):
            if array is not None:
                return int(array.shape[-1])
        raise InputError(
            "the data have neither patterns nor a probe; this format needs one of them"
        )

    def require_geometry(self, *names: str) -> list[float]:
        """Return lengths (m) and the energy (eV) by the names of their fields.

        ``object_pixel_m`` is computed from the others where it is not stated.

        Raises
        ------
        InputError
            If one is not known, as lengths are never invented, or they contradict each other.
        """
        known = self.geometry.known()
        computed_m = replace(self.geometry, object_pixel_m=None).pixel_of_object_m(self.side_px())
        pixel_m = known.setdefault("object_pixel_m", computed_m or 0.0)
        if not pixel_m:
            del known["object_pixel_m"]
        elif computed_m and abs(pixel_m / computed_m - 1) > PIXEL_TOLERANCE:
            raise InputError(
                f"the pixel of the object is stated as {pixel_m:.4g} m, but energy, distance and "
                f"detector pixel make it {computed_m:.4g} m; correct one of them"
            )
        missing = [name for name in names if name not in known]
        # The pixel of the object follows once the others are there.
        missing = [name for name in missing if name != "object_pixel_m"] or missing
        if missing:
            flags = ", ".join(FLAGS[name] for name in missing)
            raise InputError(
                f"this format is in metres and the data do not say {', '.join(missing)}; "
                f"give {flags}"
            )
        return [known[name] for name in names]


def step(operation: str, **parameters: Any) -> dict[str, Any]:
    """Return the record of one thing done to the arrays."""
    return {"operation": operation, "parameters": parameters}


def centred_positions(
    positions_px: Float[np.ndarray, "scan 2"], side_px: int, object_shape: tuple[int, int]
) -> Float[np.ndarray, "scan 2"]:
    """Return the vectors from the centre of the object to the centres of the patches, in pixels.

    Both centres are geometric, ``(length - 1) / 2``, and not the pixel ``length // 2`` that names a
    patch here: on an even grid the two are half a pixel apart.

    Parameters
    ----------
    positions_px : (scan, 2)
        (row, column) of pixel ``N // 2`` of each patch.
    side_px
        Side N of a patch.
    object_shape
        (rows, columns).
    """
    vectors: np.ndarray = positions_px - _geometric_origin(side_px, object_shape)
    return vectors


def positions_from_centred(
    vectors_px: Float[np.ndarray, "scan 2"], side_px: int, object_shape: tuple[int, int]
) -> Float[np.ndarray, "scan 2"]:
    """Return patch centres from vectors: the inverse of :func:`centred_positions`."""
    positions: np.ndarray = vectors_px + _geometric_origin(side_px, object_shape)
    return positions


def _geometric_origin(side_px: int, object_shape: tuple[int, int]) -> Float[np.ndarray, "2"]:
    centre: np.ndarray = (np.array(object_shape, np.float64) - 1) / 2
    return centre - (side_px - 1) / 2 + side_px // 2
