"""The transform pair is centred, unitary and invertible; the shift moves without changing."""

import numpy as np
import pytest
import torch
from scipy.ndimage import fourier_shift

from study_lib.physics.fourier import (
    centring_wave,
    fourier,
    inverse_fourier,
    power_spectrum,
    raw_fourier,
    raw_inverse_fourier,
    shift,
    shift_adjoint,
    shift_slopes,
    slow_part,
)

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


def test_each_of_several_images_has_its_own_shift(probe):
    images = torch.stack([probe, probe.conj().mT])

    together = shift(images, DISTANCES_PX)

    for moved, image, distance in zip(together, images, DISTANCES_PX, strict=True):
        torch.testing.assert_close(moved, shift(image, distance[None])[0])


def test_shift_adjoint_identity(probe, rng):
    """<S f, w> = <f, S* w> for every distance at once."""
    waves = torch.from_numpy(rng.standard_normal((2, 2, 16, 16)))
    waves = torch.complex(waves[0], waves[1])

    lhs = torch.vdot(shift(probe, DISTANCES_PX).flatten(), waves.flatten())
    rhs = torch.vdot(probe.flatten(), shift_adjoint(waves, DISTANCES_PX).flatten())

    torch.testing.assert_close(lhs, rhs, rtol=1e-12, atol=0)


def test_slopes_are_the_limit_of_small_shifts(probe):
    for axis, slope in enumerate(shift_slopes(probe)):
        distance = torch.zeros(1, 2).double()
        distance[0, axis] = 1e-6
        difference = (shift(probe, distance)[0] - shift(probe, -distance)[0]) / 2e-6
        torch.testing.assert_close(slope, difference, rtol=1e-6, atol=1e-8)


@pytest.mark.parametrize("side", [15, 16])
def test_the_centring_wave_stands_for_the_shift_of_the_spectrum(side, rng):
    parts = torch.from_numpy(rng.standard_normal((2, 3, side, side)))
    waves = torch.complex(parts[0], parts[1])
    expected = power_spectrum(waves)

    spectra = raw_fourier(waves * centring_wave(side, torch.complex128))

    torch.testing.assert_close(spectra.abs() ** 2, expected)
    torch.testing.assert_close(
        raw_inverse_fourier(spectra), waves * centring_wave(side, torch.complex128)
    )


def test_slow_waves_grow_as_the_square_of_their_length():
    y = torch.arange(64).double()[:, None].expand(64, 48)

    for periods in (1, 2, 4):
        wave = torch.cos(2 * torch.pi * periods * y / 64)
        slow = slow_part(wave, corner_per_px=1 / 16, gain_max=1e9)
        torch.testing.assert_close(slow, wave * (4 / periods) ** 2, rtol=1e-6, atol=1e-6)
    ones = torch.ones(64, 48).double()
    torch.testing.assert_close(slow_part(ones, corner_per_px=1 / 16, gain_max=100.0), 100 * ones)
