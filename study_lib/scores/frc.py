"""Fourier ring correlation of complex images: up to which frequency two of them agree."""

from dataclasses import dataclass
from typing import Literal

import numpy as np
from jaxtyping import Bool, Complex, Float

from study_lib.scores.alignment import (
    WINDOW_EDGE,
    require_comparable,
    soft_window,
    tied_by,
    without_mean,
)

SEVENTH = 1 / 7
HALF_BIT_SNR = 2**0.5 / 2 - 0.5  # of each of two images whose mean carries half a bit, .2071
ONE_BIT_SNR = 0.5
FEW_SAMPLES = 8.0  # chance alone correlates fewer by 1/2 and more, at two standard deviations
ROUNDING = 1e-12

OUTCOME = "_outcome"  # after the name of a crossing: what is to be said of it, in words
Outcome = Literal[
    "crosses",
    "never below",
    "below at first, then above",
    "below from the first rings",
]
CROSSES: Outcome = "crosses"
NEVER_BELOW: Outcome = "never below"
DIPS_AT_FIRST: Outcome = "below at first, then above"
BELOW_FROM_FIRST: Outcome = "below from the first rings"


@dataclass(frozen=True)
class FourierRingCorrelation:
    """Correlation, -1 to 1, against frequency in fractions of Nyquist; one value per ring.

    ``samples`` is how many independent complex frequencies a ring holds: those on it, divided by
    how many the window ties together, never less than one: an estimate on the low side.
    """

    frequency: Float[np.ndarray, " ring"]
    correlation: Float[np.ndarray, " ring"]
    samples: Float[np.ndarray, " ring"]


def ring_correlation(
    object_: Complex[np.ndarray, "y x"],
    truth: Complex[np.ndarray, "y x"],
    mask: Bool[np.ndarray, "y x"],
) -> FourierRingCorrelation:
    """Return ``Re sum F conj(G) / sqrt(sum |F|^2 sum |G|^2)`` over rings of spatial frequency.

    The complex images are taken under a soft window, less their means. A ring is one frequency
    sample of the longer side wide; those from the first to Nyquist count. A ring where either
    image has no power carries no information and has correlation 0.

    Parameters
    ----------
    object_, truth : (y, x)
        Complex transmissions on the same pixels, or two independent reconstructions.
    mask : (y, x)
        True where pixels count.

    Returns
    -------
    FourierRingCorrelation
        Frequency in fractions of Nyquist, correlation and independent samples, all (ring,).

    Raises
    ------
    ValueError
        If shapes differ, the mask is empty, or an image is zero under the mask or not finite.

    References
    ----------
    van Heel and Schatz, J. Struct. Biol. 151, 250 (2005), doi:10.1016/j.jsb.2005.05.009

    Examples
    --------
    Noise of three times the power of the image leaves a correlation of ``1 / sqrt(1 + 3)``:

    >>> import numpy as np
    >>> import study_lib as study
    >>> real, imaginary = study.generator(42, "white").standard_normal((2, 2, 64, 96))
    >>> truth, noise = real + 1j * imaginary
    >>> mask = np.ones(truth.shape, bool)
    >>> same = study.ring_correlation(truth, truth, mask)
    >>> same.frequency.shape, round(float(same.correlation.min()), 6)
    ((48,), 1.0)
    >>> noisy = study.ring_correlation(truth + 3**0.5 * noise, truth, mask)
    >>> round(float(np.average(noisy.correlation, weights=noisy.samples)), 1)
    0.5
    """
    require_comparable(object_, truth, mask)
    window = window_of(mask)

    def spectrum_and_power(image: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        spectrum = np.fft.fft2(without_mean(image, window))
        power = ring_sums(np.abs(spectrum) ** 2)
        rounding = ROUNDING**2 * image.size * (np.abs(window * image) ** 2).sum()
        return spectrum, np.where(power > rounding, power, 0)

    spectrum, power = spectrum_and_power(object_)
    truth_spectrum, truth_power = spectrum_and_power(truth)
    cross = ring_sums((spectrum * truth_spectrum.conj()).real)
    norm = np.sqrt(power * truth_power)
    correlation = np.divide(cross, norm, out=np.zeros_like(cross), where=norm > 0)
    samples = np.maximum(ring_sums(np.ones(mask.shape)) / tied_by(window), 1)
    return FourierRingCorrelation(ring_frequencies(mask.shape), correlation, samples)


def ring_sums(
    values: Float[np.ndarray, "y x"], *, corners: bool = False
) -> Float[np.ndarray, " ring"]:
    """Return the sum over each ring, from the first to Nyquist, of an image of frequencies.

    Zero frequency first, as of :func:`numpy.fft.fft2`; a ring is one sample of the longer side.
    With corners, the rings go on until every frequency but zero is on one.
    """
    side = max(values.shape)
    frequencies = np.hypot(*np.meshgrid(*map(np.fft.fftfreq, values.shape), indexing="ij"))
    rings = np.rint(frequencies * side).astype(int).ravel()
    sums: np.ndarray = np.bincount(rings, weights=values.ravel())[1:]
    return sums if corners else sums[: side // 2]


def ring_frequencies(
    shape: tuple[int, ...], *, corners: bool = False
) -> Float[np.ndarray, " ring"]:
    """Return the middle of each ring of :func:`ring_sums` as a fraction of Nyquist."""
    side = max(shape)
    rings = len(ring_sums(np.zeros(shape), corners=True)) if corners else side // 2
    return np.arange(1, rings + 1) / (side / 2)


def spectral_snr(
    object_: Complex[np.ndarray, "y x"],
    truth: Complex[np.ndarray, "y x"],
    mask: Bool[np.ndarray, "y x"],
) -> Float[np.ndarray, " ring"]:
    """Return the truth's power over the power of the error, on the rings of the FRC.

    Infinite where there is no error. Unlike the FRC it sees a wrong scale.

    Unser et al., Ultramicroscopy 23, 39 (1987), doi:10.1016/0304-3991(87)90225-7

    Raises
    ------
    ValueError
        As :func:`ring_correlation`.
    """
    require_comparable(object_, truth, mask)
    window = window_of(mask)
    signal, error = (
        ring_sums(np.abs(np.fft.fft2(without_mean(image, window))) ** 2)
        for image in (truth, object_ - truth)
    )
    ratio: np.ndarray = np.divide(signal, error, out=np.full_like(error, np.inf), where=error > 0)
    return ratio


def window_of(mask: Bool[np.ndarray, "y x"]) -> Float[np.ndarray, "y x"]:
    """Return the soft window under which images are correlated."""
    return soft_window(mask, edge_px=WINDOW_EDGE * min(mask.shape))


def half_bit_threshold(frc: FourierRingCorrelation) -> Float[np.ndarray, " ring"]:
    """Return the correlation of two noisy images whose mean carries half a bit a sample.

    :func:`information_threshold` of ``2^(1/2) - 1`` in the mean, .2071 in each: .1716 on large
    rings. It was made for two halves of the data; the truth has no noise, so against it the same
    correlation stands for more noise.
    """
    return information_threshold(frc.samples, HALF_BIT_SNR)


def one_bit_threshold(frc: FourierRingCorrelation) -> Float[np.ndarray, " ring"]:
    """Return the correlation of two noisy images whose mean carries one bit a sample.

    :func:`information_threshold` of 1 in the mean, .5 in each image: 1/3 on large rings.
    """
    return information_threshold(frc.samples, ONE_BIT_SNR)


def information_threshold(
    samples: Float[np.ndarray, " ring"], snr: float
) -> Float[np.ndarray, " ring"]:
    """Return the correlation of two images of a signal-to-noise ratio, ring by ring.

    ``(s + (2 sqrt(s) + 1) / sqrt(n)) / (s + 1 + 2 sqrt(s) / sqrt(n))`` for a ratio s of powers in
    each image and n independent samples: ``s / (s + 1)`` on large rings, 1 where n is 1, since
    correlation by chance is larger on small rings.

    van Heel and Schatz, J. Struct. Biol. 151, 250 (2005), doi:10.1016/j.jsb.2005.05.009
    """
    root = np.sqrt(samples)
    cross = 2 * np.sqrt(snr)
    threshold: np.ndarray = (snr + (cross + 1) / root) / (snr + 1 + cross / root)
    return threshold


@dataclass(frozen=True)
class Crossing:
    """Where a curve falls below a threshold, or in words why no such frequency is a resolution.

    ``frequency`` is a fraction of Nyquist, and None unless the outcome is ``crosses``.
    """

    frequency: float | None
    outcome: Outcome


def frc_crossing(
    frc: FourierRingCorrelation, threshold: float | Float[np.ndarray, " ring"]
) -> Crossing:
    """Return where the FRC first falls below a threshold, as :func:`first_crossing`."""
    return first_crossing(frc.frequency, frc.correlation - threshold, frc.samples)


def first_crossing(
    frequency: Float[np.ndarray, " ring"],
    excess: Float[np.ndarray, " ring"],
    samples: Float[np.ndarray, " ring"],
) -> Crossing:
    """Return where values first fall below zero, linear between rings.

    The *first rings* are all before the first of `FEW_SAMPLES` independent samples, and the first
    ring in any case. A curve that is below zero on one of them has no crossing: fewer samples than
    that tell neither that the images agree nor that they do not. If it is above on a later ring it
    is ``below at first, then above``, else ``below from the first rings``. The same is said of a
    later ring of few samples, of which images that are not square have some, if the curve is above
    again on the next ring that has enough.

    Parameters
    ----------
    frequency, excess, samples : (ring,)
        Fractions of Nyquist, value less threshold, independent samples.
    """
    below = np.flatnonzero(excess < 0)
    if not len(below):
        return Crossing(None, NEVER_BELOW)
    first = below[0]
    enough = samples >= FEW_SAMPLES
    if first == 0 or not enough[: first + 1].any():
        later = enough[first + 1 :] & (excess[first + 1 :] >= 0)
        return Crossing(None, DIPS_AT_FIRST if later.any() else BELOW_FROM_FIRST)
    if not enough[first]:
        following = np.flatnonzero(enough[first:])
        if len(following) and excess[first + following[0]] >= 0:
            return Crossing(None, DIPS_AT_FIRST)
    pair = [first, first - 1]
    return Crossing(float(np.interp(0.0, excess[pair], frequency[pair])), CROSSES)
