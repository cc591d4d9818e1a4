"""Remove what diffraction cannot tell: phase, phase ramp, scale and shift of a reconstruction."""

from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Complex, Float

from study_lib.scores.registration import (
    Registration,
    pair_of,
    register,
    require_comparable,
    shifted,
    strongest_wave,
)

RAMP_LIMIT_RAD_PER_PX = np.pi / 8
RAMP_TOLERANCE_RAD = 1e-3  # over the whole image
ROUNDS = 20


@dataclass(frozen=True)
class Aligned:
    """``scale * exp(-i ramp . (r - centre)) * reconstruction``, and its factors."""

    object_: Complex[np.ndarray, "y x"]
    ramp_rad_per_px: tuple[float, float]
    scale: complex


@dataclass(frozen=True)
class Alignment:
    """The aligned object, the sums of both ramps, the product of both scales, and the shift."""

    object_: Complex[np.ndarray, "y x"]
    ramp_rad_per_px: tuple[float, float]
    scale: complex
    registration: Registration


def align(
    reconstruction: Complex[np.ndarray, "y x"],
    truth: Complex[np.ndarray, "y x"],
    mask: Bool[np.ndarray, "y x"],
    *,
    registration_limit_px: float,
) -> Alignment:
    """Return the reconstruction without ramp, phase, scale and shift against the truth.

    The ramp goes first, because it would pull the correlation apart. Fitted to a truth that lies
    elsewhere it is slightly wrong, and so is the shift found with it: both take turns until the
    ramp stays.

    Parameters
    ----------
    reconstruction, truth : (y, x)
        Complex transmission on the same pixels.
    mask : (y, x)
        Scored pixels. Those nearer to the edge of the crop than the shift receive mirrored
        content; keep the mask `registration_limit_px` away from it.
    registration_limit_px
        Largest shift along each axis.

    Raises
    ------
    ValueError
        If shapes differ, the mask is empty, or an image is zero under the mask or not finite.
    """
    weights = mask.astype(np.float64)
    first = remove_ambiguities(reconstruction, truth, weights)
    ramp, upright = np.array(first.ramp_rad_per_px), first.object_
    for _ in range(ROUNDS):
        registration = register(upright, truth, mask, limit_px=registration_limit_px)
        last = remove_ambiguities(shifted(upright, registration.shift_px), truth, weights)
        left = np.array(last.ramp_rad_per_px)
        ramp += left
        if np.abs(left * truth.shape).max() < RAMP_TOLERANCE_RAD:
            break
        upright = _tilted(upright, -left)
    return Alignment(last.object_, pair_of(ramp), first.scale * last.scale, registration)


def remove_ambiguities(
    reconstruction: Complex[np.ndarray, "y x"],
    truth: Complex[np.ndarray, "y x"],
    weights: Float[np.ndarray, "y x"],
) -> Aligned:
    """Return the reconstruction times the ramp and complex scale that bring it nearest to T.

    The ramp k maximises ``|sum w O conj(T) exp(-i k . r)|`` within `RAMP_LIMIT_RAD_PER_PX`; it and
    the scale ``sum w conj(O) T / sum w |O|^2`` minimise ``sum w |scale exp(-i k . r) O - T|^2``.
    No phase is ever wrapped. That these are free: Guizar-Sicairos et al., Opt. Express 19, 21345
    (2011), doi:10.1364/OE.19.021345.

    Parameters
    ----------
    reconstruction, truth : (y, x)
        Complex transmission O and T on the same pixels.
    weights : (y, x)
        Not negative; zero where a pixel does not count.

    Raises
    ------
    ValueError
        If shapes differ, no weight is positive, or an image is zero there or not finite.
    """
    require_comparable(reconstruction, truth, weights > 0)
    object_ = reconstruction.astype(np.complex128)
    rows, columns = _from_centre(object_.shape)
    limit = np.full(2, RAMP_LIMIT_RAD_PER_PX)
    # A quarter of the width 2 pi / side of the peak: no lobe can hide between two samples.
    step = np.pi / 2 / np.array(object_.shape)
    ramp = strongest_wave(
        weights * object_ * truth.conj(), rows, columns, lower=-limit, upper=limit, step=step
    )
    object_ = _tilted(object_, -ramp)
    scale = complex(
        (weights * object_.conj() * truth).sum() / (weights * np.abs(object_) ** 2).sum()
    )
    return Aligned(scale * object_, pair_of(ramp), scale)


def _tilted(
    image: Complex[np.ndarray, "y x"], ramp_rad_per_px: Float[np.ndarray, "2"]
) -> Complex[np.ndarray, "y x"]:
    """Return the image times a ramp, whose phase is zero at the centre."""
    rows, columns = _from_centre(image.shape)
    ramp = ramp_rad_per_px[0] * rows[:, None] + ramp_rad_per_px[1] * columns
    tilted: np.ndarray = image * np.exp(1j * ramp)
    return tilted


def _from_centre(shape: tuple[int, ...]) -> list[np.ndarray]:
    return [np.arange(side, dtype=np.float64) - side // 2 for side in shape]
