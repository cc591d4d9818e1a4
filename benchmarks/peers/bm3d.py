"""BM3D by the package of its authors, which is free for non-commercial use only.

Dabov et al., IEEE Trans. Image Process. 16, 2080 (2007), doi:10.1109/TIP.2007.901238. It denoises
what the solver has reconstructed: real and imaginary part each by itself, as white noise.
"""

from typing import Any

import bm3d
import numpy as np

PACKAGE = "bm3d"
CANDIDATES: list[dict[str, Any]] = [
    {"strength": strength} for strength in (0.5, 0.7, 1.0, 1.4, 2.0, 2.8)
]


def reconstruct(
    object_: np.ndarray, noise: np.ndarray, object_shape: tuple[int, int], strength: float
) -> np.ndarray:
    """Return the object (y, x) with its noise, a standard deviation of each part, taken off."""
    deviation = strength * float(noise)
    real, imaginary = (
        bm3d.bm3d(part.astype(np.float64), sigma_psd=deviation)
        for part in (object_.real, object_.imag)
    )
    found: np.ndarray = (real + 1j * imaginary).reshape(object_shape)
    return found
