"""How many photons were counted: what a dose label is held against (SYNTH-POISSON-DOSE-001)."""

from typing import Any

import numpy as np
from jaxtyping import Float


def photon_budget(
    amplitudes: Float[np.ndarray, "scan n n"], saturation_counts: int | None = None
) -> dict[str, Any]:
    """Return the photons of a set of patterns.

    Parameters
    ----------
    amplitudes : (scan, n, n)
        sqrt(counts).
    saturation_counts
        The most a pixel can count; if given, the pixels that reached it are counted too.
    """
    flat = amplitudes.reshape(len(amplitudes), -1)
    totals = np.vecdot(flat, flat).astype(np.float64)
    limit = np.inf if saturation_counts is None else np.sqrt(np.float32(saturation_counts))
    saturated = (
        {} if saturation_counts is None else {"saturated_pixels": int((flat >= limit).sum())}
    )
    return {
        "patterns": len(amplitudes),
        "photons_per_pattern_measured": float(totals.mean()),
        "photons_per_pixel_measured": float(totals.mean() / flat.shape[1]),
        "largest_count": round(float(flat.max()) ** 2),
        **saturated,
    }
