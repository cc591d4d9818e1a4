"""Find by how much a reconstruction lies beside the truth, and move it.

Both are crops of the same object frame, on the same pixels. A crop is not periodic: registration
sees it through a soft window, and shifts extend it by its mirror image.
"""

from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Complex, Float, Inexact
from scipy.ndimage import distance_transform_edt, fourier_shift
from scipy.optimize import Bounds, minimize

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
    window: np.ndarray = np.sin(np.pi / 2 * np.minimum(depth / (edge_px + 1), 1)) ** 2
    return window


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
