"""What the lesson on resolution rests on: known noise, a blur that turns no phase, thresholds."""

import numpy as np
import pytest

from study_lib.lab.lessons import blurred, crossings, mean_frc, noisy_pairs, thresholds
from study_lib.scores.frc import FourierRingCorrelation, ring_correlation, ring_sums

SHAPE = (64, 48)
MASK = np.ones(SHAPE, bool)
SHARE = np.arange(1, 31) / 30


@pytest.fixture
def image(rng) -> np.ndarray:
    """Waves of every frequency, weaker the higher it is."""
    spectrum = rng.standard_normal(SHAPE) + 1j * rng.standard_normal(SHAPE)
    frequency = np.hypot(*np.meshgrid(*map(np.fft.fftfreq, SHAPE), indexing="ij"))
    return np.fft.ifft2(SHAPE[0] * spectrum / (0.02 + frequency))


def test_noise_has_its_level_and_is_independent(image, rng):
    noise = noisy_pairs(image, 0.3, count=50, random=rng) - image

    power = np.mean(np.abs(noise) ** 2)
    cross = np.mean(noise[0] * noise[1].conj())
    square = np.mean(noise**2)  # zero if real and imaginary parts are alike and independent

    assert noise.shape == (2, 50, *SHAPE)
    assert power == pytest.approx(0.09, rel=0.02)
    assert abs(cross) < 0.002
    assert abs(square) < 0.002


def test_a_blur_takes_the_power_of_a_gaussian_and_turns_no_phase(image):
    """Mean over a ring: ``exp(-4 pi^2 sigma^2 f^2)`` of the power; the cross spectrum is real."""
    sigma_px = 1.2
    before, after = np.fft.fft2(image), np.fft.fft2(blurred(image, sigma_px))

    gain = after / before

    frequency = np.hypot(*np.meshgrid(*map(np.fft.fftfreq, SHAPE), indexing="ij"))
    expected = np.exp(-2 * np.pi**2 * sigma_px**2 * frequency**2)
    np.testing.assert_allclose(gain, expected, atol=2e-3)
    cross = ring_sums((before * after.conj()).real)
    norm = np.sqrt(ring_sums(np.abs(before) ** 2) * ring_sums(np.abs(after) ** 2))
    assert (cross / norm)[:24].min() > 0.98


def test_halves_to_a_seventh_ask_what_their_mean_to_a_half_of_the_truth_does(image, rng):
    """With signal-to-noise s: halves correlate to s / (1 + s), the truth to sqrt(2s / (1 + 2s))."""
    halves = noisy_pairs(image, 0.7 * np.abs(image).std(), count=200, random=rng)

    between = mean_frc(*halves, MASK).correlation
    with_truth = mean_frc(halves.mean(axis=0), image, MASK).correlation

    expected = np.sqrt(2 * between / (1 + between))
    known = between > 0.05
    assert known.sum() > 10
    np.testing.assert_allclose(with_truth[known], expected[known], atol=0.03)


def test_the_mean_of_one_pair_is_its_own_correlation(image, rng):
    halves = noisy_pairs(image, 0.5, count=1, random=rng)

    alone = ring_correlation(halves[0, 0], halves[1, 0], MASK)
    mean = mean_frc(*halves, MASK)

    np.testing.assert_array_equal(mean.correlation, alone.correlation)
    np.testing.assert_array_equal(mean.samples, alone.samples)


def test_no_pair_is_refused():
    with pytest.raises(ValueError, match="no pair of images"):
        mean_frc(np.zeros((0, *SHAPE), complex), np.zeros(SHAPE, complex), MASK)


def test_crossings_are_where_a_falling_line_meets_each_threshold():
    """Half-bit of rings without end is 0.2071 / 1.2071, 1-bit 1 / 3."""
    frc = FourierRingCorrelation(SHARE, 1 - SHARE, np.full(len(SHARE), 1e12))

    found = crossings(frc)

    expected = {"1/2": 1 / 2, "1/7": 6 / 7, "half-bit": 1 - 0.2071 / 1.2071, "1-bit": 2 / 3}
    assert found == pytest.approx(expected, abs=1e-5)
    assert crossings(FourierRingCorrelation(SHARE, SHARE * 0 + 1, frc.samples)) == dict.fromkeys(
        expected
    )
    assert thresholds(frc).keys() == expected.keys()
