"""The centred unitary Fourier transform pair and the sub-pixel shift: the only ``torch.fft``."""

import torch
from jaxtyping import Complex, Float
from torch import Tensor

AXES = (-2, -1)


def fourier(wave: Complex[Tensor, "*batch y x"]) -> Complex[Tensor, "*batch y x"]:
    """Return the unitary transform, zero frequency at pixel (y // 2, x // 2) of both sides.

    Parameters
    ----------
    wave : (..., y, x)
        Complex wave in sqrt(photons) per pixel; the sum of its squared modulus is kept.
    """
    shifted = torch.fft.ifftshift(wave, dim=AXES)
    transformed: Tensor = torch.fft.fftshift(torch.fft.fft2(shifted, norm="ortho"), dim=AXES)
    return transformed


def power_spectrum(wave: Complex[Tensor, "*batch y x"]) -> Float[Tensor, "*batch y x"]:
    """Return the squared modulus of :func:`fourier`, without the shift that only turns phases."""
    transformed = torch.fft.fft2(wave, norm="ortho")
    power: Tensor = transformed.real.square() + transformed.imag.square()
    shifted: Tensor = torch.fft.fftshift(power, dim=AXES)
    return shifted


def inverse_fourier(wave: Complex[Tensor, "*batch y x"]) -> Complex[Tensor, "*batch y x"]:
    """Return the inverse, and so the adjoint, of :func:`fourier`."""
    shifted = torch.fft.ifftshift(wave, dim=AXES)
    transformed: Tensor = torch.fft.fftshift(torch.fft.ifft2(shifted, norm="ortho"), dim=AXES)
    return transformed


def shift(
    image: Complex[Tensor, "y x"], distances_px: Float[Tensor, "scan 2"]
) -> Complex[Tensor, "scan y x"]:
    """Return copies of an image moved by (row, column) distances, sub-pixel parts included.

    The image is taken as periodic and band-limited: ``f(r - d)`` has the spectrum
    ``F(q) exp(-2 pi i q d)``. Whole-pixel distances give exactly the rolled image.

    Parameters
    ----------
    image : (y, x)
    distances_px : (scan, 2)
        Distance along (row, column); positive moves towards larger indices.

    Returns
    -------
    (scan, y, x)
    """
    rows, columns = image.shape
    frequency_y = torch.fft.fftfreq(rows, dtype=distances_px.dtype, device=image.device)
    frequency_x = torch.fft.fftfreq(columns, dtype=distances_px.dtype, device=image.device)
    spectrum: Tensor = torch.fft.fft2(image)
    along_y = _ramp(distances_px[:, 0, None] * frequency_y).to(image.dtype)
    along_x = _ramp(distances_px[:, 1, None] * frequency_x).to(image.dtype)
    shifted: Tensor = torch.fft.ifft2(spectrum * along_y[:, :, None] * along_x[:, None, :])
    return shifted


def _ramp(cycles: Tensor) -> Tensor:
    return torch.polar(torch.ones_like(cycles), -2 * torch.pi * cycles)
