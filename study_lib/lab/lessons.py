"""Images whose Fourier ring correlation is known beforehand: noisy pairs, a blurred copy."""

import numpy as np
from jaxtyping import Bool, Complex, Float
from scipy.ndimage import gaussian_filter

from study_lib.scores.frc import (
    SEVENTH,
    FourierRingCorrelation,
    fourier_ring_correlation,
    frc_crossing,
    half_bit_threshold,
)


def noisy_pairs(
    image: Complex[np.ndarray, "y x"],
    noise_std: float,
    *,
    count: int,
    random: np.random.Generator,
) -> Complex[np.ndarray, "2 pair y x"]:
    """Return pairs of copies of an image, each copy with white complex noise of its own.

    Parameters
    ----------
    image : (y, x)
    noise_std
        Root mean square modulus of the noise; real and imaginary part have equal shares.
    count
        Number of pairs.
    random
        Source of the noise.
    """
    real, imaginary = random.standard_normal((2, 2, count, *image.shape))
    pairs: np.ndarray = image + noise_std / np.sqrt(2) * (real + 1j * imaginary)
    return pairs


def blurred(image: Complex[np.ndarray, "y x"], sigma_px: float) -> Complex[np.ndarray, "y x"]:
    """Return an image convolved with a Gaussian of standard deviation `sigma_px`, as periodic."""
    copy: np.ndarray = gaussian_filter(image.astype(np.complex128), sigma_px, mode="wrap")
    return copy


def mean_frc(
    first: Complex[np.ndarray, "pair y x"],
    second: Complex[np.ndarray, "pair y x"] | Complex[np.ndarray, "y x"],
    mask: Bool[np.ndarray, "y x"],
) -> FourierRingCorrelation:
    """Return the mean FRC of pairs of images, ring by ring: that of one pair with less chance.

    Parameters
    ----------
    first : (pair, y, x)
    second : (pair, y, x) or (y, x)
        The other image of each pair, or one for all of them.
    mask : (y, x)
        As of :func:`study_lib.scores.frc.fourier_ring_correlation`.

    Raises
    ------
    ValueError
        If there is no pair, or as there.
    """
    if not len(first):
        raise ValueError("no pair of images to correlate; give at least one")
    others = np.broadcast_to(second, first.shape)
    found = [fourier_ring_correlation(*pair, mask) for pair in zip(first, others, strict=True)]
    mean = np.mean([frc.correlation for frc in found], axis=0)
    return FourierRingCorrelation(found[0].frequency, mean, found[0].samples)


def thresholds(frc: FourierRingCorrelation) -> dict[str, Float[np.ndarray, " ring"]]:
    """Return the thresholds in use, ring by ring: 1/2, 1/7, and half a bit a sample."""
    level = np.ones_like(frc.frequency)
    return {"1/2": level / 2, "1/7": SEVENTH * level, "half-bit": half_bit_threshold(frc)}


def crossings(frc: FourierRingCorrelation) -> dict[str, float | None]:
    """Return where the FRC first falls below each threshold, as a fraction of Nyquist."""
    return {name: frc_crossing(frc, level) for name, level in thresholds(frc).items()}
