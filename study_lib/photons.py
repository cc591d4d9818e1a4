"""How many photons were counted: what a dose label is held against (SYNTH-POISSON-DOSE-001)."""

from typing import Any

import numpy as np
from jaxtyping import Float


def photon_budget(amplitudes: Float[np.ndarray, "scan n n"]) -> dict[str, Any]:
    """Return the photons of a set of patterns.

    Parameters
    ----------
    amplitudes : (scan, n, n)
        sqrt(counts).
    """
    flat = amplitudes.reshape(len(amplitudes), -1)
    totals = np.vecdot(flat, flat).astype(np.float64)
    return {
        "patterns": len(amplitudes),
        "photons_per_pattern_measured": float(totals.mean()),
        "photons_per_pixel_measured": float(totals.mean() / flat.shape[1]),
        "largest_count": round(float(flat.max()) ** 2),
    }
