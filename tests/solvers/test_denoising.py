"""Denoisers of complex objects: what they must leave alone, what they must take away."""

import numpy as np
import pytest

from study_lib.solvers.denoising import FAMILIES, denoised, noise_level, slow_phasor

NOISE = 0.1
every_family = pytest.mark.parametrize("family", sorted(FAMILIES))


def stepped_object(side: int = 64) -> np.ndarray:
    y, x = np.mgrid[:side, :side]
    inside = (np.abs(y - 30) < 14) & (np.abs(x - 36) < 11)
    return np.where(inside, 0.8 * np.exp(0.4j), 1.0).astype(np.complex64)


def noise_of(shape: tuple[int, int], level: float = NOISE) -> np.ndarray:
    random = np.random.default_rng(2)
    parts = random.standard_normal((2, *shape))
    return (level * (parts[0] + 1j * parts[1])).astype(np.complex64)


@every_family
def test_an_even_object_stays(family):
    object_ = np.full((32, 40), 0.7 * np.exp(0.5j), np.complex64)

    np.testing.assert_allclose(denoised(object_, family, 1.0, NOISE), object_, atol=1e-5)


@every_family
def test_the_global_phase_does_not_matter(family):
    """It cannot be measured, so turning the object must turn the result."""
    object_ = stepped_object() + noise_of((64, 64))
    turn = np.complex64(np.exp(2.1j))

    there = denoised(object_ * turn, family, 1.0, NOISE)

    apart = np.abs(there - turn * denoised(object_, family, 1.0, NOISE))
    if family.startswith("similar_blocks"):  # of blocks that are alike rounding may take another
        assert np.median(apart) < 2e-5
        assert apart.max() < NOISE / 5
    else:
        assert apart.max() < 2e-5


@every_family
def test_hardly_any_strength_changes_hardly_anything(family):
    object_ = stepped_object() + noise_of((64, 64))

    np.testing.assert_allclose(denoised(object_, family, 1e-3, NOISE), object_, atol=1e-3)


def test_none_is_the_object_itself():
    object_ = stepped_object()

    assert denoised(object_, "none", 3.0, NOISE) is object_


@pytest.mark.parametrize("width_px", [1.0, 2.0])
def test_a_gaussian_leaves_the_noise_that_theory_says(width_px):
    """White noise of variance v keeps v / (4 pi w^2) after a Gaussian of width w."""
    object_ = 1 + noise_of((256, 256), 0.01)

    left = (denoised(object_, "gaussian", width_px, NOISE) - 1)[20:-20, 20:-20]

    expected = 0.01 / np.sqrt(4 * np.pi * width_px**2)
    assert left.real.std() == pytest.approx(expected, rel=0.05)


@pytest.mark.parametrize("family", sorted(set(FAMILIES) - {"gaussian"}))
def test_edges_stay_where_flats_are_smoothed(family):
    """On a stepped object the error falls by more than a Gaussian of any width manages."""
    truth = stepped_object()
    object_ = truth + noise_of(truth.shape)

    def error(of_family: str, strength: float) -> float:
        return float(np.abs(denoised(object_, of_family, strength, NOISE) - truth).std())

    least_gaussian = min(error("gaussian", width) for width in (0.5, 0.7, 1.0, 1.4, 2.0))
    least = min(error(family, strength) for strength in (0.5, 0.75, 1.1, 1.7))
    assert least < 0.8 * least_gaussian < np.abs(object_ - truth).std()


@pytest.mark.parametrize("family", ["total_variation", "non_local_means"])
def test_strengths_are_in_units_of_the_noise(family):
    """Twice the noise and twice the contrast about a mean: the same picture, twice as far."""
    small = 0.05 * (stepped_object() - 1) + noise_of((64, 64), 0.01)

    once = denoised(1 + small, family, 1.0, 0.01) - 1
    twice = denoised(1 + 2 * small, family, 1.0, 0.02) - 1

    assert np.abs(twice - 2 * once).max() < 0.15 * np.abs(2 * once).max()


def test_the_slow_phase_is_the_phase_without_its_detail():
    y, x = np.mgrid[:96, :96]
    slow = 1.5 * np.sin(2 * np.pi * x / 192)
    object_ = (0.9 * np.exp(1j * (slow + 0.1 * (-1.0) ** (x + y)))).astype(np.complex64)

    phasor = slow_phasor(object_)

    np.testing.assert_allclose(np.abs(phasor), 1, atol=1e-6)
    inner = slice(30, -30)
    np.testing.assert_allclose(np.angle(phasor)[inner, inner], slow[inner, inner], atol=0.15)


def test_a_phase_is_slow_beyond_fourteen_pixels():
    """One turned pixel is spread by that standard deviation, along either axis, and not moved."""
    object_ = np.ones((129, 129), complex)
    object_[64, 64] = np.exp(1e-3j)

    spread = np.angle(slow_phasor(object_)) / 1e-3

    assert spread.sum() == pytest.approx(1, rel=1e-6)
    for axis in (0, 1):
        along, place = spread.sum(axis=axis), np.arange(129) - 64
        assert (along * place).sum() == pytest.approx(0, abs=1e-6)
        assert np.sqrt((along * place**2).sum()) == pytest.approx(14, abs=0.3)


def test_where_nothing_is_transmitted_no_phase_is_taken_off():
    np.testing.assert_array_equal(slow_phasor(np.zeros((20, 30), np.complex64)), 1)


def test_the_noise_level_is_that_of_a_median_lit_pixel():
    light = np.zeros((20, 20), np.float32)
    light[5:15, 5:15] = 400

    assert noise_level(light) == pytest.approx(0.5 / 20)
