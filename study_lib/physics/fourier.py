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
    image: Complex[Tensor, "*scan y x"], distances_px: Float[Tensor, "positions 2"]
) -> Complex[Tensor, "*copies y x"]:
    """Return copies of an image moved by (row, column) distances, sub-pixel parts included.

    The image is taken as periodic and band-limited: ``f(r - d)`` has the spectrum
    ``F(q) exp(-2 pi i q d)``. Whole-pixel distances give exactly the rolled image.

    Parameters
    ----------
    image : (y, x), (positions, y, x) or (modes, 1, y, x)
        One image for all distances, or one for each; or several, each for all distances.
    distances_px : (positions, 2)
        Distance along (row, column); positive moves towards larger indices.

    Returns
    -------
    (positions, y, x), or (modes, positions, y, x)
    """
    along_y, along_x = _ramps(image, distances_px)
    spectrum: Tensor = torch.fft.fft2(image)
    shifted: Tensor = torch.fft.ifft2(spectrum * along_y[:, :, None] * along_x[:, None, :])
    return shifted


def shift_adjoint(
    images: Complex[Tensor, "*modes scan y x"], distances_px: Float[Tensor, "scan 2"]
) -> Complex[Tensor, "*modes y x"]:
    """Return the sum over the scan of images moved back by their distances: adjoint of `shift`."""
    along_y, along_x = _ramps(images, -distances_px)
    spectra: Tensor = torch.fft.fft2(images)
    total: Tensor = torch.einsum("sy,...syx,sx->...yx", along_y, spectra, along_x)
    moved: Tensor = torch.fft.ifft2(total)
    return moved


def shift_slopes(image: Complex[Tensor, "*modes y x"]) -> Complex[Tensor, "2 *modes y x"]:
    """Return how an image changes per pixel it is moved along (row, column)."""
    spectrum = torch.fft.fft2(image)
    cycles = torch.meshgrid(
        *(torch.fft.fftfreq(side, dtype=image.real.dtype) for side in image.shape[-2:]),
        indexing="ij",
    )
    turns = (-2j * torch.pi * torch.stack(cycles)).to(spectrum)
    slopes: Tensor = torch.fft.ifft2(torch.stack([spectrum * turn for turn in turns]))
    return slopes


def centring_wave(side: int, dtype: torch.dtype) -> Complex[Tensor, "n n"]:
    """Return the wave that, multiplied in, brings zero frequency to (n // 2, n // 2) of `raw`.

    It takes the place of shifting every spectrum; for an even side it is a chequerboard of +-1.
    """
    cycles = torch.arange(side, dtype=torch.float64) * (side // 2) / side
    ramp = _ramp(-(cycles % 1))
    if side % 2 == 0:
        ramp = ramp.real.round().to(torch.complex128)
    return (ramp[:, None] * ramp).to(dtype)


def raw_fourier(wave: Complex[Tensor, "*batch y x"]) -> Complex[Tensor, "*batch y x"]:
    """Return the unitary transform with all zeros of both sides in the corner; may reuse `wave`."""
    transformed: Tensor = torch.fft.fft2(wave, norm="ortho", out=wave)
    return transformed


def raw_inverse_fourier(wave: Complex[Tensor, "*batch y x"]) -> Complex[Tensor, "*batch y x"]:
    """Return the inverse of :func:`raw_fourier`; may reuse `wave`."""
    transformed: Tensor = torch.fft.ifft2(wave, norm="ortho", out=wave)
    return transformed


def slow_part(
    image: Float[Tensor, "y x"], corner_per_px: float, gain_max: float
) -> Float[Tensor, "y x"]:
    """Return an image whose waves of frequency q are ``(q0 / q)^2`` times as strong.

    The gain is bounded by `gain_max`, at zero frequency; the image is taken as periodic.

    Parameters
    ----------
    image : (y, x)
    corner_per_px
        q0 in cycles per pixel.
    gain_max
        Gain at zero frequency.
    """
    rows, columns = image.shape
    q_y = torch.fft.fftfreq(rows, dtype=image.dtype, device=image.device)
    q_x = torch.fft.rfftfreq(columns, dtype=image.dtype, device=image.device)
    squares = q_y[:, None] ** 2 + q_x**2
    gain = corner_per_px**2 / (squares + corner_per_px**2 / gain_max)
    slow: Tensor = torch.fft.irfft2(torch.fft.rfft2(image) * gain, s=(rows, columns))
    return slow


def _ramps(image: Tensor, distances_px: Float[Tensor, "positions 2"]) -> list[Tensor]:
    """Return what moves a spectrum by (row, column) distances: (positions, y), (positions, x)."""
    frequencies = (
        torch.fft.fftfreq(side, dtype=distances_px.dtype, device=image.device)
        for side in image.shape[-2:]
    )
    return [
        _ramp(along[:, None] * frequency).to(image.dtype)
        for along, frequency in zip(distances_px.unbind(1), frequencies, strict=True)
    ]


def _ramp(cycles: Tensor) -> Tensor:
    return torch.polar(torch.ones_like(cycles), -2 * torch.pi * cycles)
