"""How counts of one pattern spread when it is measured again and again."""

import numpy as np
from jaxtyping import Bool, Float

from study_lib.errors import InputError


def count_statistics(
    pattern: Float[np.ndarray, "n n"],
    dose: float,
    *,
    scattered: Bool[np.ndarray, "n n"],
    draws: int,
    random: np.random.Generator,
) -> dict[str, float]:
    """Return what repeated measurements of one pattern have in common, and how they spread.

    Parameters
    ----------
    pattern : (n, n)
        Expected photons, of any scale.
    dose
        Expected photons of the whole pattern.
    scattered : (n, n)
        True outside the bright field.
    draws
        Number of measurements, at least 2.
    random
        Source of their Poisson noise.

    Returns
    -------
    Relative standard deviation of the photons per measurement, and what the square root of the dose
    predicts for it; mean percentage of pixels with a photon; mean photons outside the bright field.

    Raises
    ------
    InputError
        If the pattern holds no light, or there are fewer than 2 draws.
    """
    if not pattern.sum() > 0:
        raise InputError("the pattern holds no light; choose a position that the probe reaches")
    if draws < 2:
        raise InputError(f"draws = {draws}: one measurement has no spread; draw at least 2")
    share = pattern.astype(np.float64) / pattern.sum(dtype=np.float64)
    counts = random.poisson(dose * share, (draws, *pattern.shape))
    photons = counts.sum(axis=(1, 2))
    return {
        "relative deviation": float(photons.std(ddof=1) / photons.mean()) if photons.any() else 0.0,
        "1 / sqrt(dose)": float(1 / np.sqrt(dose)),
        "pixels with a photon [%]": float(100 * (counts > 0).mean()),
        "photons outside the bright field": float(counts[:, scattered].sum(axis=1).mean()),
    }
