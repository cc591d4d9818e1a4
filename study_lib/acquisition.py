"""One scan in the study's conventions, whatever file it came from or goes to."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from jaxtyping import Bool, Complex, Float

PLANCK_TIMES_LIGHT_EV_M = 1.239841984332003e-6


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
    geometry
        Lengths and energy.
    metadata
        What is worth keeping as JSON; ``transformations`` lists what was done to the arrays.
    """

    positions_px: Float[np.ndarray, "scan 2"]
    amplitudes: Float[np.ndarray, "scan n n"] | None = None
    probe: Complex[np.ndarray, "n n"] | None = None
    probe_is_scaled: bool = False
    object_: Complex[np.ndarray, "oy ox"] | None = None
    bad_pixels: Bool[np.ndarray, "n n"] | None = None
    scan_index: np.ndarray | None = None
    geometry: Geometry = Geometry()
    metadata: Mapping[str, Any] = field(default_factory=dict)
