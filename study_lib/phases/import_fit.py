"""How well probe and object explain measured patterns: the scan, each frame, each pixel."""

from dataclasses import dataclass

import numpy as np
from jaxtyping import Complex, Float
from scipy import ndimage

from study_lib.data.formats.acquisition import Acquisition
from study_lib.physics.likelihood import expected_in_parts

CHUNK = 64
NOISE_SEED = 0  # of the noise that is drawn to be compared with; no result depends on it


@dataclass(frozen=True)
class Fit:
    """How far a model is from the patterns of a scan.

    Parameters
    ----------
    r_factor
        ``sum |sqrt(counts) - sqrt(model)| / sum sqrt(counts)`` over the good values of the scan.
    r_noise
        The same of one draw of Poisson counts from the model: what photon noise alone leaves. None
        for amplitudes without a photon scale.
    r_of_frames : (scan,)
        The same of each pattern; NaN where it has no light.
    noise_of_frames : (scan,)
        What photon noise alone leaves of each; ones for amplitudes without a photon scale.
    misfit : (n, n)
        Mean over the scan of ``sqrt(counts) - sqrt(model)``; zero where nothing is valid.
    """

    r_factor: float
    r_noise: float | None
    r_of_frames: Float[np.ndarray, " scan"]
    noise_of_frames: Float[np.ndarray, " scan"]
    misfit: Float[np.ndarray, "n n"]


FAULT_SIDE_MAX_PX, AROUND_PX = 4, 15
FAULT_CONTRAST = 5.0  # found: 3 at most on good scans, 6 to 9 of hot pixels and blocks


def hot_after_fit(fit: Fit) -> tuple[tuple[int, int, int], ...]:
    """Return where the detector has more than the model, amid pixels where it has less.

    An object spreads light, so that a model that reaches for the counts of hot pixels puts some
    beside them, where none were measured; of diffraction orders it does not.

    Parameters
    ----------
    fit
        Of what was reconstructed.

    Returns
    -------
    tuple
        (row, column, side) of the first pixel of each square, small ones first.
    """
    frames = np.isfinite(fit.r_of_frames).sum()
    off = fit.misfit * 2 * np.sqrt(frames)  # the root of a count is known to a half
    scale = np.maximum(ndimage.median_filter(np.abs(off), AROUND_PX), 1)
    found: list[tuple[int, int, int]] = []
    for side in range(1, FAULT_SIDE_MAX_PX + 1):
        ring = np.ones((side + 2, side + 2), bool)
        ring[1:-1, 1:-1] = False
        inside = ndimage.minimum_filter(off, size=side)
        beside = ndimage.percentile_filter(off, 75, footprint=ring)
        stands_out = (inside > 0) & (beside < 0) & (inside - beside > FAULT_CONTRAST * scale)
        found += [
            (int(row) - side // 2, int(column) - side // 2, side)
            for row, column in np.argwhere(stands_out)
        ]
    return tuple(found)


def fit_of(
    acquisition: Acquisition,
    probe: Complex[np.ndarray, "*modes n n"],
    object_: Complex[np.ndarray, "oy ox"],
    positions_px: Float[np.ndarray, "scan 2"],
) -> Fit:
    """Return how well a probe and an object explain the patterns of an acquisition.

    Parameters
    ----------
    acquisition
        The measurement; its bad pixels are left out, its background is part of the model.
    probe : (n, n) or (modes, n, n)
        Illumination in sqrt(photons) per pixel.
    object_ : (oy, ox)
        Complex transmission.
    positions_px : (scan, 2)
        (row, column) of the patch centres in pixels of this object.

    References
    ----------
    R-factor: Miao et al., Nature 400, 342 (1999), doi:10.1038/22498
    """
    (amplitudes,) = acquisition.require("amplitudes")
    draws = np.random.default_rng(NOISE_SEED)
    off, light, noise, noise_light = np.zeros((4, len(amplitudes)))
    misfit = np.zeros(amplitudes.shape[1:])
    used = np.zeros(amplitudes.shape[1:])
    for part, expected in expected_in_parts(
        object_, probe, positions_px, CHUNK, background=acquisition.background
    ):
        rates = expected.double().numpy()
        good = good_values(acquisition, part)
        measured = amplitudes[part].astype(np.float64) * good
        difference = measured - np.sqrt(rates) * good
        off[part] = np.abs(difference).sum(axis=(1, 2))
        light[part] = measured.sum(axis=(1, 2))
        misfit += difference.sum(axis=0)
        used += np.broadcast_to(good, difference.shape).sum(axis=0)
        if not acquisition.is_normalized:
            drawn = np.sqrt(draws.poisson(np.minimum(rates, 1e15))) * good
            noise[part] = np.abs(drawn - np.sqrt(rates) * good).sum(axis=(1, 2))
            noise_light[part] = drawn.sum(axis=(1, 2))
    with np.errstate(invalid="ignore", divide="ignore"):
        frames = np.where(light > 0, off / light, np.nan)
        by_noise = np.where(noise_light > 0, noise / noise_light, 1.0)
    return Fit(
        r_factor=float(off.sum() / light.sum()),
        r_noise=float(noise.sum() / noise_light.sum()) if noise_light.any() else None,
        r_of_frames=frames,
        noise_of_frames=by_noise,
        misfit=misfit / np.maximum(used, 1),
    )


def good_values(acquisition: Acquisition, part: slice) -> Float[np.ndarray, "#part n n"]:
    """Return 1 for every value of some patterns that counts and 0 for the others."""
    (amplitudes,) = acquisition.require("amplitudes")
    bad = acquisition.bad_pixels
    if bad is None:
        return np.ones((1, *amplitudes.shape[1:]))
    return (~(bad[None] if bad.ndim == 2 else bad[part])).astype(np.float64)


def r_factor(
    acquisition: Acquisition,
    probe: Complex[np.ndarray, "*modes n n"],
    object_: Complex[np.ndarray, "oy ox"],
    positions_px: Float[np.ndarray, "scan 2"],
) -> float:
    """Return ``sum |sqrt(counts) - sqrt(model)| / sum sqrt(counts)``, as :func:`fit_of` has it."""
    return fit_of(acquisition, probe, object_, positions_px).r_factor


DIM_SHARE, DIM_PIXELS_MIN = 0.25, 32  # of the valid pixels: the dimmest
CONTRAST_MAX = 0.15  # squared, from frame to frame; diffracted light has 1
UNEVEN_MAX = 0.03  # squared relative spread from pixel to pixel
PEAK_MIN = 5.0  # brightest pixel over the floor: else all of it may be the disc of a beam


def floor_of(acquisition: Acquisition) -> tuple[float, float]:
    """Return the counts that all dim pixels of all frames have alike, and their share of all.

    Light that an object diffracts differs from frame to frame by as much as its mean, and from
    pixel to pixel: in the dimmest quarter of the pixels neither may be so, beyond photon noise.

    Parameters
    ----------
    acquisition
        With counts; bad pixels have no say.

    Returns
    -------
    tuple
        Zeros where there is no such floor, or a background is known.
    """
    none = 0.0, 0.0
    if acquisition.amplitudes is None or acquisition.is_normalized:
        return none
    if acquisition.background is not None or len(acquisition.amplitudes) < 2:
        return none
    used, first, second = np.zeros((3, *acquisition.amplitudes.shape[1:]))
    for start in range(0, len(acquisition.amplitudes), CHUNK):
        part = slice(start, start + CHUNK)
        counts = acquisition.amplitudes[part].astype(np.float64) ** 2
        good = np.broadcast_to(good_values(acquisition, part), counts.shape)
        used += good.sum(axis=0)
        first += (counts * good).sum(axis=0)
        second += (counts**2 * good).sum(axis=0)
    valid = used > 1
    used, first, second = used[valid], first[valid], second[valid]
    mean = first / used
    variance = (second - first * mean) / (used - 1)
    dim = np.argsort(mean, kind="stable")[: int(DIM_SHARE * len(mean))]
    level = float(mean[dim].mean()) if len(dim) >= DIM_PIXELS_MIN else 0.0
    if not level or mean.max() < PEAK_MIN * level:
        return none
    contrast = (variance - mean)[dim].sum() / (mean[dim] ** 2).sum()
    doubt = np.sqrt(2 / used[dim].sum()) / level
    uneven = (mean[dim].var() - (mean / used)[dim].mean()) / level**2
    is_floor = contrast + 2 * doubt < CONTRAST_MAX and uneven < UNEVEN_MAX
    return (level, min(1.0, level * used.sum() / first.sum())) if is_floor else none
