"""The transform pair is centred, unitary and invertible; the shift moves without changing."""

import numpy as np
import pytest
import torch
from scipy.ndimage import fourier_shift

from study_lib.fourier import fourier, inverse_fourier, shift

SHAPES = [(16, 16), (15, 15), (12, 9)]
DISTANCES_PX = torch.tensor([[0.3, -0.7], [-1.25, 2.5]]).double()


def wave_of(shape: tuple[int, int], rng: np.random.Generator) -> torch.Tensor:
    return torch.from_numpy(rng.standard_normal(shape) + 1j * rng.standard_normal(shape))


def power(wave: torch.Tensor) -> float:
    return float((wave.abs() ** 2).sum())


def gaussian(centre_px: tuple[float, float], side: int = 32, sigma_px: float = 2.5) -> torch.Tensor:
    y, x = np.indices((side, side))
    radius2 = (y - centre_px[0]) ** 2 + (x - centre_px[1]) ** 2
    return torch.from_numpy(np.exp(-radius2 / (2 * sigma_px**2)).astype(complex))


@pytest.mark.parametrize("shape", SHAPES)
def test_photons_are_conserved_by_the_transform(shape, rng):
    wave = wave_of(shape, rng)

    assert power(fourier(wave)) == pytest.approx(power(wave), rel=1e-13)


@pytest.mark.parametrize("shape", SHAPES)
def test_the_pair_is_inverse_both_ways(shape, rng):
    wave = wave_of(shape, rng)

    torch.testing.assert_close(inverse_fourier(fourier(wave)), wave)
    torch.testing.assert_close(fourier(inverse_fourier(wave)), wave)


@pytest.mark.parametrize("shape", SHAPES)
def test_the_inverse_is_the_adjoint(shape, rng):
    wave, other = wave_of(shape, rng), wave_of(shape, rng)

    lhs = torch.vdot(fourier(wave).flatten(), other.flatten())
    rhs = torch.vdot(wave.flatten(), inverse_fourier(other).flatten())

    torch.testing.assert_close(lhs, rhs, rtol=1e-12, atol=0)


@pytest.mark.parametrize("shape", SHAPES)
def test_the_transform_is_the_written_out_sum_about_the_centre(shape, rng):
    wave = wave_of(shape, rng).numpy()
    kernels = []
    for size in shape:
        index = np.arange(size) - size // 2
        kernels.append(np.exp(-2j * np.pi * np.outer(index, index) / size) / np.sqrt(size))

    expected = kernels[0] @ wave @ kernels[1].T

    np.testing.assert_allclose(fourier(torch.from_numpy(wave)).numpy(), expected, atol=1e-12)


@pytest.mark.parametrize("shape", SHAPES)
def test_a_flat_wave_goes_to_the_central_pixel(shape):
    spectrum = fourier(torch.ones(shape, dtype=torch.complex128)).abs()

    centre = shape[0] // 2, shape[1] // 2
    assert spectrum[centre] == pytest.approx(np.sqrt(shape[0] * shape[1]))
    assert spectrum.sum() == pytest.approx(float(spectrum[centre]))


def test_a_gaussian_goes_to_the_reciprocal_gaussian():
    spectrum = fourier(gaussian((16, 16), sigma_px=2.5))

    expected = gaussian((16, 16), sigma_px=32 / (2 * np.pi * 2.5)) * (2 * np.pi * 2.5**2 / 32)
    torch.testing.assert_close(spectrum, expected, atol=1e-7, rtol=0)


@pytest.mark.parametrize("distance_px", [(3, -2), (-5, 0), (16, 1)])
def test_a_shift_by_whole_pixels_is_a_roll(distance_px, probe):
    shifted = shift(probe, torch.tensor([distance_px]).double())[0]

    torch.testing.assert_close(shifted, torch.roll(probe, distance_px, dims=(0, 1)))


def test_sub_pixel_shifts_compose(probe):
    first, second = DISTANCES_PX

    twice = shift(shift(probe, first[None])[0], second[None])

    torch.testing.assert_close(twice, shift(probe, (first + second)[None]))


def test_a_shift_keeps_the_photons(probe):
    for shifted in shift(probe, DISTANCES_PX):
        assert power(shifted) == pytest.approx(power(probe), rel=1e-13)


def test_a_shifted_gaussian_is_the_gaussian_elsewhere():
    shifted = shift(gaussian((16, 16)), DISTANCES_PX)

    for wave, (row, column) in zip(shifted, DISTANCES_PX.tolist(), strict=True):
        torch.testing.assert_close(wave, gaussian((16 + row, 16 + column)), atol=1e-6, rtol=0)


def test_shift_agrees_with_scipy_on_a_lopsided_image(probe):
    for wave, distance_px in zip(shift(probe, DISTANCES_PX), DISTANCES_PX.tolist(), strict=True):
        expected = np.fft.ifft2(fourier_shift(np.fft.fft2(probe.numpy()), distance_px))
        np.testing.assert_allclose(wave.numpy(), expected, atol=1e-12)
