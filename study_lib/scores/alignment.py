"""Remove what diffraction leaves open: phase, phase ramp, scale and shift of a reconstruction."""

from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Complex, Float, Inexact
from scipy.ndimage import distance_transform_edt, fourier_shift
from scipy.optimize import Bounds, minimize

# --- By how much a reconstruction lies beside the truth
#
# Both are crops of the same object frame, on the same pixels. A crop is not periodic: registration
# sees it through a soft window, and shifts extend it by its mirror image.

WINDOW_EDGE = 1 / 8
# Nominal. Unrelated specimens, whose few large waves do not average out: 1 in 1000, measured.
FALSE_ALARM_PROBABILITY = 1e-4
REGISTRATION_ROUNDS = 20
REGISTRATION_TOLERANCE_PX = 0.002
LIMIT_TOLERANCE_PX = 0.02


@dataclass(frozen=True)
class Registration:
    """By how much a reconstruction must be moved, (row, column), onto the truth.

    `correlation` is the modulus of the correlation coefficient after the move, 0 to 1. Without
    confidence the shift is zero; at the limit the true shift may be larger.
    """

    shift_px: tuple[float, float]
    correlation: float
    confident: bool
    at_limit: bool


def register(
    reconstruction: Complex[np.ndarray, "y x"],
    truth: Complex[np.ndarray, "y x"],
    mask: Bool[np.ndarray, "y x"],
    *,
    limit_px: float,
) -> Registration:
    """Return the shift, sub-pixel and bounded, that correlates the reconstruction best with T.

    The peak of the cross-correlation of the two images, windowed and without their means, is
    searched inside ``|shift| <= limit_px`` only [1]_. The search is repeated on the moved
    reconstruction until nothing is left to move: at zero shift the window has no pull.

    The peak is significant if unrelated images of the same power spectra F^2, G^2 (random phases)
    would reach its correlation c anywhere in the search window with a probability below
    `FALSE_ALARM_PROBABILITY`: ``trials (1 - c^2)^(n - 1)``, with one trial per pixel of the search
    window and ``n = sum F^2 sum G^2 / sum F^2 G^2`` independent frequencies, fewer by what the
    window w of N pixels ties together, ``N sum w^4 / (sum w^2)^2``. Else, as for flat images, the
    shift is zero.

    Parameters
    ----------
    reconstruction, truth : (y, x)
        Complex transmission on the same pixels, ramp already removed.
    mask : (y, x)
        Scored pixels.
    limit_px
        Largest shift along each axis; positive.

    Raises
    ------
    ValueError
        If the limit is not positive, shapes differ, the mask is empty, or an image is zero under
        the mask or not finite.

    References
    ----------
    .. [1] Guizar-Sicairos, Thurman and Fienup, Opt. Lett. 33, 156 (2008),
       doi:10.1364/OL.33.000156
    """
    require_comparable(reconstruction, truth, mask)
    if limit_px <= 0:
        raise ValueError(f"limit_px = {limit_px}: the search needs room; give a positive limit")
    window = soft_window(mask, edge_px=max(WINDOW_EDGE * min(mask.shape), limit_px))
    truth_spectrum = np.fft.fft2(without_mean(truth, window))
    frequencies = [2 * np.pi * np.fft.fftfreq(side) for side in mask.shape]
    limit = np.full(2, limit_px)
    shift = np.zeros(2)
    for _ in range(REGISTRATION_ROUNDS):
        spectrum = np.fft.fft2(without_mean(shifted(reconstruction, pair_of(shift)), window))
        step = strongest_wave(
            spectrum * truth_spectrum.conj(),
            *frequencies,
            lower=-limit - shift,
            upper=limit - shift,
            step=np.full(2, min(0.5, limit_px)),
        )
        shift += step
        if np.abs(step).max() < REGISTRATION_TOLERANCE_PX:
            break
    spectrum = np.fft.fft2(without_mean(shifted(reconstruction, pair_of(shift)), window))
    trials = (2 * limit_px + 1) ** 2
    correlation, confident = _significance(spectrum, truth_spectrum, window, trials=trials)
    if not confident:
        return Registration((0.0, 0.0), correlation, confident=False, at_limit=False)
    at_limit = bool((np.abs(shift) >= limit_px - LIMIT_TOLERANCE_PX).any())
    return Registration(pair_of(shift), correlation, confident=True, at_limit=at_limit)


def shifted(
    image: Complex[np.ndarray, "y x"], shift_px: tuple[float, float]
) -> Complex[np.ndarray, "y x"]:
    """Return the image moved by (row, column), band-limited; its mirror image fills the rim."""
    rows, columns = image.shape
    mirrored = np.pad(image, ((0, rows), (0, columns)), mode="symmetric")
    moved: np.ndarray = np.fft.ifft2(fourier_shift(np.fft.fft2(mirrored), shift_px))
    return moved[:rows, :columns]


def soft_window(mask: Bool[np.ndarray, "y x"], *, edge_px: float) -> Float[np.ndarray, "y x"]:
    """Return a window that rises from 0 to 1 over `edge_px` inside mask and crop (Hann flank)."""
    depth: np.ndarray = distance_transform_edt(np.pad(mask, 1))[1:-1, 1:-1]
    return np.sin(np.pi / 2 * np.minimum(depth / (edge_px + 1), 1)) ** 2


def without_mean(
    image: Inexact[np.ndarray, "y x"], window: Float[np.ndarray, "y x"]
) -> Inexact[np.ndarray, "y x"]:
    """Return the windowed image less its windowed mean, so that its sum is zero."""
    difference: np.ndarray = window * (image - (window * image).sum() / window.sum())
    return difference


def tied_by(window: Float[np.ndarray, "y x"]) -> float:
    """Return how many neighbouring frequencies a window ties together: so many fewer are free.

    ``N sum w^4 / (sum w^2)^2`` of a window w of N pixels.
    """
    return float(window.size * (window**4).sum() / (window**2).sum() ** 2)


def require_comparable(
    reconstruction: Complex[np.ndarray, "..."],
    truth: Complex[np.ndarray, "..."],
    mask: Bool[np.ndarray, "..."],
) -> None:
    """Raise a ValueError unless both images are finite and not zero, on one scored crop."""
    if not reconstruction.shape == truth.shape == mask.shape:
        raise ValueError(
            f"reconstruction {reconstruction.shape}, truth {truth.shape} and mask {mask.shape} "
            "must have one shape; cut the same crop out of all three"
        )
    if not mask.any():
        raise ValueError(f"the mask {mask.shape} scores no pixel; lower the illumination threshold")
    for name, image in {"reconstruction": reconstruction, "truth": truth}.items():
        broken = np.argwhere(~np.isfinite(image))
        if len(broken):
            raise ValueError(
                f"{name}: {len(broken)} of {image.size} pixels are not finite, first at (row, "
                f"column) ({broken[0, 0]}, {broken[0, 1]}); check the run that wrote it"
            )
        if not image[mask].any():
            raise ValueError(
                f"{name}: all {mask.sum()} scored pixels are zero; check that it was computed and "
                "cut at the right place"
            )


def strongest_wave(
    values: Complex[np.ndarray, "y x"],
    y: Float[np.ndarray, " y"],
    x: Float[np.ndarray, " x"],
    *,
    lower: Float[np.ndarray, "2"],
    upper: Float[np.ndarray, "2"],
    step: Float[np.ndarray, "2"],
) -> Float[np.ndarray, "2"]:
    """Return the k between the bounds that maximises ``|sum values exp(-i (k0 y + k1 x))|``.

    Samples the sum every `step`, as a matrix product, and climbs from the highest sample to the
    top of its peak by the gradient.

    Parameters
    ----------
    values : (y, x)
        Complex image or spectrum.
    y, x
        Coordinates of rows and columns; with k they give radians.
    lower, upper
        Bounds of (k0, k1).
    step
        Of the samples, along each axis; at most a half of the width of the peak.
    """
    counts = np.ceil((upper - lower) / step).astype(int) + 1
    grid_y, grid_x = (np.linspace(*ends) for ends in zip(lower, upper, counts, strict=True))
    samples = np.abs(np.exp(-1j * np.outer(grid_y, y)) @ values @ np.exp(-1j * np.outer(x, grid_x)))
    best = np.unravel_index(samples.argmax(), samples.shape)
    highest = samples[best]
    if highest == 0:
        return np.clip(np.zeros(2), lower, upper)
    start = np.array([grid_y[best[0]], grid_x[best[1]]])

    def loss(steps: np.ndarray) -> tuple[float, np.ndarray]:
        k = start + steps * step
        wave_y, wave_x = np.exp(-1j * k[0] * y), np.exp(-1j * k[1] * x)
        by_x = values @ wave_x / highest
        total = wave_y @ by_x
        slopes = np.array([(y * wave_y) @ by_x, wave_y @ (values @ (x * wave_x)) / highest])
        return -float(np.abs(total) ** 2), -2 * step * (total.conj() * -1j * slopes).real

    low, high = (np.clip((end - start) / step, -1, 1) for end in (lower, upper))
    found = minimize(
        loss,
        np.zeros(2),
        jac=True,
        method="L-BFGS-B",
        bounds=Bounds(low, high),
        options={"ftol": 1e-15, "gtol": 1e-10},
    )
    strongest: np.ndarray = np.clip(start + found.x * step, lower, upper)
    return strongest


def _significance(
    spectrum: Complex[np.ndarray, "y x"],
    truth_spectrum: Complex[np.ndarray, "y x"],
    window: Float[np.ndarray, "y x"],
    *,
    trials: float,
) -> tuple[float, bool]:
    """Return the correlation coefficient at zero shift and whether it beats chance."""
    power = np.abs(spectrum) ** 2
    truth_power = np.abs(truth_spectrum) ** 2
    norm = power.sum() * truth_power.sum()
    if norm == 0:
        return 0.0, False
    peak = np.abs(np.vdot(truth_spectrum, spectrum)) ** 2
    independent = norm / (power * truth_power).sum() / tied_by(window)
    chance = trials * max(0.0, 1 - peak / norm) ** max(0.0, independent - 1)
    return float(np.sqrt(peak / norm)), bool(chance < FALSE_ALARM_PROBABILITY)


def pair_of(values: Float[np.ndarray, "2"]) -> tuple[float, float]:
    """Return (row, column) as plain numbers."""
    return float(values[0]), float(values[1])


# --- Phase, ramp and scale

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
class Alignment(Aligned):
    """The aligned object, the sums of both ramps, the product of both scales, and the shift."""

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
