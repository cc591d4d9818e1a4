"""What lessons and previews compute: images of known correlation, patterns before a run."""

from collections.abc import Sequence

import numpy as np
import torch
from jaxtyping import Bool, Complex, Float, Int
from scipy.ndimage import gaussian_filter

from study_lib.overlap.metrics import nearest_px
from study_lib.physics.forward import illumination
from study_lib.physics.simulation import expected_patterns
from study_lib.scores.frc import (
    SEVENTH,
    FourierRingCorrelation,
    frc_crossing,
    half_bit_threshold,
    one_bit_threshold,
    ring_correlation,
)

# --- Images of known ring correlation: noisy pairs, a blurred copy


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
        As of :func:`study_lib.scores.frc.ring_correlation`.

    Raises
    ------
    ValueError
        If there is no pair, or as there.
    """
    if not len(first):
        raise ValueError("no pair of images to correlate; give at least one")
    others = np.broadcast_to(second, first.shape)
    found = [ring_correlation(*pair, mask) for pair in zip(first, others, strict=True)]
    mean = np.mean([frc.correlation for frc in found], axis=0)
    return FourierRingCorrelation(found[0].frequency, mean, found[0].samples)


def thresholds(frc: FourierRingCorrelation) -> dict[str, Float[np.ndarray, " ring"]]:
    """Return the thresholds in use, ring by ring: 1/2, 1/7, half a bit and one bit a sample."""
    level = np.ones_like(frc.frequency)
    return {
        "1/2": level / 2,
        "1/7": SEVENTH * level,
        "half-bit": half_bit_threshold(frc),
        "1-bit": one_bit_threshold(frc),
    }


def crossings(frc: FourierRingCorrelation) -> dict[str, float | None]:
    """Return where the FRC first falls below each threshold, as a fraction of Nyquist.

    None where that is no resolution; :func:`study_lib.scores.frc.frc_crossing` says why.
    """
    return {name: frc_crossing(frc, level).frequency for name, level in thresholds(frc).items()}


# --- What a scene would give: patterns, illumination, coverage


def photons_per_pixel(
    probe: Complex[np.ndarray, "*modes n n"],
    positions_px: Float[np.ndarray, "scan 2"],
    object_shape: tuple[int, int],
) -> Float[np.ndarray, "oy ox"]:
    """Return the photons that land on each object pixel, summed over the scan.

    Parameters
    ----------
    probe : (n, n) or (modes, n, n)
        In sqrt(photons) per pixel; one of unit power gives photons per photon of a pattern.
    positions_px : (scan, 2)
        (row, column) of the patch centres in object pixels.
    object_shape
        (rows, columns) of the object.

    Raises
    ------
    ValueError
        If a patch leaves the object.
    """
    wave = torch.from_numpy(probe.astype(np.complex128))
    landed: np.ndarray = illumination(wave, torch.from_numpy(positions_px), object_shape).numpy()
    return landed


def sample_patterns(
    object_: Complex[np.ndarray, "oy ox"],
    probe: Complex[np.ndarray, "*modes n n"],
    positions_px: Float[np.ndarray, "scan 2"],
    *,
    index: int,
    doses: Sequence[float],
    random: np.random.Generator,
) -> Int[np.ndarray, "dose n n"]:
    """Return the counts of one position of a scan at several doses, by a perfect detector.

    Parameters
    ----------
    object_ : (oy, ox)
        Complex transmission.
    probe : (n, n) or (modes, n, n)
        Of any scale.
    positions_px : (scan, 2)
        (row, column) of the patch centres of the whole scan in object pixels.
    index
        Of the position.
    doses
        Mean photons per pattern over the whole scan.
    random
        Its generator, for the Poisson noise.

    Raises
    ------
    ValueError
        If a patch leaves the object.
    """
    landed = photons_per_pixel(probe, positions_px, object_.shape)
    mean_photons = (landed * np.abs(object_) ** 2).sum() / len(positions_px)
    pattern = expected_patterns(object_, probe, positions_px[index : index + 1])
    expected = pattern * (np.reshape(doses, (-1, 1, 1)) / mean_photons)
    counts: np.ndarray = random.poisson(expected)
    return counts


def evenness(
    positions_px: Float[np.ndarray, "scan 2"], landed: Float[np.ndarray, "oy ox"]
) -> dict[str, float | int]:
    """Return how evenly one block of positions covers the middle half of its rows and columns.

    Parameters
    ----------
    positions_px : (scan, 2)
        (row, column) of one block in object pixels.
    landed : (oy, ox)
        Photons per object pixel.

    Returns
    -------
    Number of positions, smallest and median distance to the nearest other one in pixels, and of the
    photons per pixel there the standard deviation and the minimum, both over the mean.
    """
    distances_px = nearest_px(positions_px)
    low, high = positions_px.min(axis=0), positions_px.max(axis=0)
    first = np.round(low + (high - low) / 4).astype(int)
    last = np.round(high - (high - low) / 4).astype(int) + 1
    field = landed[first[0] : last[0], first[1] : last[1]]
    return {
        "positions": len(positions_px),
        "nearest_smallest_px": float(distances_px.min()),
        "nearest_median_px": float(np.median(distances_px)),
        "photons_std_over_mean": float(field.std() / field.mean()),
        "photons_min_over_mean": float(field.min() / field.mean()),
    }
