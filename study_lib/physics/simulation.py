"""A scan simulated: from object, probe and positions to counted patterns (pure, in memory).

A new detector fault is a line in count_photons or a mask here, and a number in
design/experiment.DetectorDesign; another way in which the data are not what files say of them is a
part of TrueLight and a number in design/experiment.MismatchDesign.
"""

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Bool, Complex, Float, Int
from numpy.lib.stride_tricks import sliding_window_view

from study_lib.errors import InputError
from study_lib.physics.forward import (
    corners_of,
    counts_of_modes,
    patches_at,
    probes_at,
    require_inside,
)
from study_lib.physics.probe import modes_of

# --- The detector: counts, dark counts, saturation, dead pixels

PATTERNS_AT_A_TIME = 16  # patterns that fit the processor's cache
DARK_BELOW = 0.3  # photons; fastest between 0.15 and 0.5


def bad_pixel_mask(
    *,
    side_px: int,
    beamstop_radius_px: float,
    bad_pixel_share: float,
    random: np.random.Generator,
) -> Bool[np.ndarray, "n n"]:
    """Return which pixels give no valid count: a disc behind a beamstop, and dead ones.

    Parameters
    ----------
    side_px
        Side N of the detector; the beam hits pixel ``N // 2``.
    beamstop_radius_px
        Pixels whose centre is nearer than this are hidden.
    bad_pixel_share
        Chance of every pixel to be dead.
    random
        Which ones.
    """
    distance_px = np.arange(side_px) - side_px // 2
    hidden = np.hypot(distance_px[:, None], distance_px) < beamstop_radius_px
    dead = random.random((side_px, side_px)) < bad_pixel_share
    return hidden | dead


def count_photons(
    expected: Float[np.ndarray, "scan n n"],
    *,
    dark_counts: float | Float[np.ndarray, "n n"] = 0.0,
    saturation_counts: int | None = None,
    bad_pixels: Bool[np.ndarray, "*each n n"] | None = None,
    random: np.random.Generator,
) -> None:
    """Replace expected photons by amplitudes, the square roots of what is counted, in place.

    Photons and dark counts are independent Poisson numbers, so their sum is one; a pixel counts
    no further than its limit, and bad pixels hold zero.

    Parameters
    ----------
    expected : (scan, n, n)
        Mean photons per pixel, contiguous in C order; overwritten by sqrt(counts).
    dark_counts
        Mean counts without light, the same for every pixel or (n, n).
    saturation_counts
        The most a pixel can count.
    bad_pixels : (n, n) or (scan, n, n)
        True where no count is valid, in all patterns or in each.
    random
        Source of the counts.

    Raises
    ------
    ValueError
        If ``expected`` cannot be flattened without a copy.
    """
    for start in range(0, len(expected), PATTERNS_AT_A_TIME):
        part = expected[start : start + PATTERNS_AT_A_TIME]
        part += np.float32(dark_counts)
        _draw(part, random)
        if bad_pixels is not None and bad_pixels.ndim == 2:
            part[:, bad_pixels] = 0
        elif bad_pixels is not None:
            part[bad_pixels[start : start + PATTERNS_AT_A_TIME]] = 0
        if saturation_counts is not None:
            np.minimum(part, saturation_counts, out=part)
        np.sqrt(part, out=part)


def _draw(rates: Float[np.ndarray, "scan n n"], random: np.random.Generator) -> None:
    """Replace rates by independent Poisson numbers; dark pixels, which are most, cost little.

    The rates are contiguous in memory, so that what is drawn goes into them and not into a copy.
    All dark pixels together count one Poisson number of photons, each of which falls on a pixel
    with a chance proportional to its rate: exactly the law of independent pixels (splitting of a
    Poisson process; Kingman, Poisson Processes, Oxford 1993, section 5.1).
    """
    flat = np.reshape(rates, -1, copy=False)
    bright = np.flatnonzero(flat >= DARK_BELOW)
    bright_counts = random.poisson(flat[bright])
    flat[bright] = 0
    ladder = np.cumsum(flat, dtype=np.float64)
    photons = random.poisson(ladder[-1])
    # A height in (0, total] always ends on a pixel with a rate above zero; sorted, for the cache.
    heights = np.sort((1 - random.random(photons)) * ladder[-1])
    flat[...] = np.bincount(np.searchsorted(ladder, heights), minlength=flat.size)
    flat[bright] = bright_counts


# --- The scan: from object, probe and positions to counted patterns

WAVES_AT_A_TIME = 32  # patterns whose waves fit the processor's cache


@dataclass(frozen=True)
class SimulatedScan:
    """The patterns of every split at one dose.

    ``amplitudes`` (scan, n, n) by split are sqrt(counts); ``probe``, (n, n) or of several modes,
    predicts the photons;
    ``photons_expected`` by split are the mean photons per pattern that reach the valid pixels,
    dark counts included; ``photon_ratio`` are the photons of the true probe over those of the given
    one, which is scaled as if it were true.
    """

    amplitudes: Mapping[str, Float[np.ndarray, "scan n n"]]
    probe: Complex[np.ndarray, "*modes n n"]
    photons_expected: Mapping[str, float]
    photon_ratio: float = 1.0


@dataclass(frozen=True)
class TrueLight:
    """How the object is really lit, where that is not what an arm is given.

    ``probe`` in the scale of the given one, which may have fewer modes; ``positions_px`` (scan, 2)
    by split;
    ``brightness`` (scan,) by split is the light of each frame in any unit; ``background_counts``
    per detector pixel are added by nothing that an arm knows; ``bandwidth`` is the relative width
    of the light's flat spectrum.
    """

    probe: Complex[np.ndarray, "*modes n n"]
    positions_px: Mapping[str, Float[np.ndarray, "scan 2"]]
    brightness: Mapping[str, Float[np.ndarray, " scan"]]
    background_counts: float = 0.0
    bandwidth: float = 0.0


def moved_positions(
    positions_px: Float[np.ndarray, "scan 2"],
    *,
    error_px: float,
    scan_index: Int[np.ndarray, " scan"],
    field_px: Float[np.ndarray, "2 2"],
    random: np.random.Generator,
) -> Float[np.ndarray, "scan 2"]:
    """Return where the light falls if each position has a normal error along each axis.

    An error that would lead out of the field points the other way, which keeps its size: no patch
    leaves the object, and two splits stay apart.

    Parameters
    ----------
    positions_px : (scan, 2)
        Nominal (row, column) patch centres.
    error_px
        Root mean square along each axis.
    scan_index : (scan,)
        Number of each position in the whole scan: the same one has the same error in every part.
    field_px : (2, 2)
        Lowest and highest (row, column) of the split.
    random
        Of the errors of the whole scan.
    """
    errors = error_px * random.standard_normal((int(scan_index.max()) + 1, 2))[scan_index]
    low, high = field_px
    moved, turned = positions_px + errors, positions_px - errors
    inside = (moved >= low) & (moved <= high)
    found: np.ndarray = np.clip(np.where(inside, moved, turned), low, high)
    return found


def frame_brightness(
    scan_index: Int[np.ndarray, " scan"], *, jitter: float, random: np.random.Generator
) -> Float[np.ndarray, " scan"]:
    """Return the light of each frame, log-normal with mean 1 and standard deviation ``jitter``.

    Parameters
    ----------
    scan_index : (scan,)
        Number of each frame in the whole scan.
    jitter
        Relative; 0.1 for a tenth.
    random
        Of the whole scan.
    """
    width = np.sqrt(np.log1p(jitter**2))
    normal = random.standard_normal(int(scan_index.max()) + 1)[scan_index]
    light: np.ndarray = np.exp(width * normal - width**2 / 2)
    return light


FEWEST_WAVELENGTHS = 5
FINEST_STEP_PX = 0.5  # by which wavelengths stretch the border of a pattern apart


def blur_by_bandwidth(patterns: Float[np.ndarray, "scan n n"], bandwidth: float) -> None:
    """Replace patterns by those of light with a flat spectrum, in place; their photons stay.

    A wavelength longer by a share stretches the pattern about the zero frequency by that share: a
    pixel is then a larger square, whose photons go to the pixels that it lies on. The mean is over
    wavelengths so near to each other that they take the border half a pixel apart. Photons that
    leave the detector are replaced in proportion to those that do not. Probe and object are taken
    to be the same at all wavelengths.

    Parameters
    ----------
    patterns : (scan, n, n)
        Expected photons; overwritten.
    bandwidth
        Width of the spectrum over the mean wavelength; 0 changes nothing.

    References
    ----------
    A broad spectrum as a sum of scaled patterns: Enders et al., Appl. Phys. Lett. 104, 171104
    (2014), doi:10.1063/1.4874304
    """
    side = patterns.shape[-1]
    if not bandwidth:
        return
    wavelengths = max(FEWEST_WAVELENGTHS, math.ceil(bandwidth * side / 2 / FINEST_STEP_PX))
    middles = (np.arange(wavelengths) + 0.5) / wavelengths - 0.5
    spreads = [
        _stretching(side, 1 + bandwidth * float(middle)).astype(patterns.dtype)
        for middle in middles
    ]
    for start in range(0, len(patterns), WAVES_AT_A_TIME):
        part = patterns[start : start + WAVES_AT_A_TIME]
        before = _photons_of(part)
        blurred = np.mean([spread @ part @ spread.T for spread in spreads], axis=0)
        after = np.maximum(_photons_of(blurred), np.finfo(np.float32).tiny)
        np.multiply(blurred, (before / after)[:, None, None], out=part)


def _stretching(side: int, factor: float) -> Float[np.ndarray, "n n"]:
    """Return what share of each pixel (column) lies on each pixel (row) when stretched."""
    edges = np.arange(side + 1) - side // 2 - 0.5
    low = np.maximum(edges[:-1, None], factor * edges[None, :-1])
    high = np.minimum(edges[1:, None], factor * edges[None, 1:])
    share: np.ndarray = np.clip(high - low, 0, None) / factor
    return share


def expected_patterns(
    object_: Complex[np.ndarray, "oy ox"],
    probe: Complex[np.ndarray, "*modes n n"],
    positions_px: Float[np.ndarray, "scan 2"],
) -> Float[np.ndarray, "scan n n"]:
    """Return the noise-free photons per detector pixel, in single precision.

    Parameters
    ----------
    object_ : (oy, ox)
        Complex transmission.
    probe : (n, n) or (modes, n, n)
        Illumination in sqrt(photons) per pixel.
    positions_px : (scan, 2)
        (row, column) of the patch centres in object pixels.

    Raises
    ------
    ValueError
        If a patch leaves the object; names the first such scan position.
    """
    patterns = np.empty((len(positions_px), *probe.shape[-2:]), np.float32)
    for part, some in _patterns_in_parts(object_, probe, positions_px):
        patterns[part] = some
    return patterns


def _patterns_in_parts(
    object_: Complex[np.ndarray, "oy ox"],
    probe: Complex[np.ndarray, "*modes n n"],
    positions_px: Float[np.ndarray, "scan 2"],
) -> Iterator[tuple[slice, Float[np.ndarray, "part n n"]]]:
    """Yield the patterns of :func:`expected_patterns`, some at a time."""
    side = probe.shape[-1]
    corners = corners_of(torch.from_numpy(positions_px), side)
    # Indices below zero would wrap to the far side.
    require_inside(corners, side, (object_.shape[0], object_.shape[1]))
    wave = torch.from_numpy(probe.astype(np.complex64))
    # A view of every patch of the object; picking from it copies whole rows of pixels.
    windows = sliding_window_view(object_.astype(np.complex64, copy=False), (side, side))
    at_once = max(1, WAVES_AT_A_TIME // len(modes_of(probe)))
    for start in range(0, len(positions_px), at_once):
        part = slice(start, start + at_once)
        positions = torch.from_numpy(positions_px[part])
        rows, columns = corners[part].numpy().T
        waves = probes_at(wave, positions) * torch.from_numpy(windows[rows, columns])
        yield part, counts_of_modes(waves).numpy()


def _photons_of(patterns: Float[np.ndarray, "scan n n"]) -> Float[np.ndarray, " scan"]:
    photons: np.ndarray = patterns.reshape(len(patterns), -1).sum(axis=1)
    return photons


def simulate(
    *,
    object_: Complex[np.ndarray, "oy ox"],
    probe: Complex[np.ndarray, "*modes n n"],
    positions_px: Mapping[str, Float[np.ndarray, "scan 2"]],
    dose: float,
    dark_counts: float | Float[np.ndarray, "n n"],
    saturation_counts: int | None,
    bad_pixels: Bool[np.ndarray, "n n"] | None,
    random: Mapping[str, np.random.Generator],
    true_light: TrueLight | None = None,
) -> SimulatedScan:
    """Return counted patterns whose mean over all splits is ``dose`` photons.

    The dose is what leaves the specimen, before the detector loses or adds anything. One copy of
    the patterns is held.

    Parameters
    ----------
    object_ : (oy, ox)
        Complex transmission.
    probe : (n, n) or (modes, n, n)
        Illumination in any scale.
    positions_px : (scan, 2) by split
        (row, column) of the patch centres in object pixels.
    dose
        Mean photons per pattern.
    dark_counts, saturation_counts, bad_pixels
        As in :func:`count_photons`.
    random
        One generator for each split.
    true_light
        How the object is really lit, if not with ``probe`` at ``positions_px``; of each split in
        these at least. The counts are its own, the probe in the answer is the given one.
    """
    light = true_light or TrueLight(probe, positions_px, {})
    patterns = {
        split: expected_patterns(object_, light.probe, light.positions_px[split])
        for split in positions_px
    }
    if light.bandwidth:
        for part in patterns.values():
            blur_by_bandwidth(part, light.bandwidth)
    for split in positions_px.keys() & light.brightness.keys():
        share = light.brightness[split] / light.brightness[split].mean()
        patterns[split] *= share.astype(np.float32)[:, None, None]
    totals = np.concatenate([_photons_of(part) for part in patterns.values()])
    scale = given_scale = dose / totals.mean(dtype=np.float64)
    if true_light:
        nominal = [
            _photons_of(part)
            for positions in positions_px.values()
            for _, part in _patterns_in_parts(object_, probe, positions)
        ]
        given_scale = dose / np.concatenate(nominal).mean(dtype=np.float64)
    valid = np.ones(probe.shape[-2:], bool) if bad_pixels is None else ~bad_pixels
    dark = dark_counts + light.background_counts if light.background_counts else dark_counts
    expected = {}
    for split, part in patterns.items():
        np.multiply(part, np.float32(scale), out=part)
        seen = part.mean(axis=0, dtype=np.float64)[valid]
        expected[split] = float(seen.sum() + _dark_photons(dark, valid))
        count_photons(
            part,
            dark_counts=dark,
            saturation_counts=saturation_counts,
            bad_pixels=bad_pixels,
            random=random[split],
        )
    scaled = (probe * np.sqrt(given_scale)).astype(np.complex64)
    return SimulatedScan(patterns, scaled, expected, float(scale / given_scale))


def _dark_photons(
    dark_counts: float | Float[np.ndarray, "n n"], valid: Bool[np.ndarray, "n n"]
) -> float:
    if isinstance(dark_counts, np.ndarray):
        return float(dark_counts[valid].sum())
    return float(dark_counts * valid.sum())


def object_patches(
    object_: Complex[np.ndarray, "oy ox"], positions_px: Float[np.ndarray, "scan 2"], side_px: int
) -> Complex[np.ndarray, "scan n n"]:
    """Return the true object patch of every position, (scan, N, N): ``Y`` of the contract.

    Patches lie on the object's grid; the sub-pixel part of a position belongs to the probe.
    """
    corners = corners_of(torch.from_numpy(positions_px), side_px)
    return patches_at(torch.from_numpy(object_), corners, side_px).numpy()


# --- How counts of one pattern spread when it is measured again and again


def count_statistics(
    pattern: Float[np.ndarray, "n n"],
    dose: float,
    *,
    scattered: Bool[np.ndarray, "n n"],
    draws: int,
    random: np.random.Generator,
) -> dict[str, float]:
    """Return what repeated measurements of one pattern have in common, and how they spread.

    Parameters
    ----------
    pattern : (n, n)
        Expected photons, of any scale.
    dose
        Expected photons of the whole pattern.
    scattered : (n, n)
        True outside the bright field.
    draws
        Number of measurements, at least 2.
    random
        Source of their Poisson noise.

    Returns
    -------
    Relative standard deviation of the photons per measurement, and what the square root of the dose
    predicts for it; mean percentage of pixels with a photon; mean photons outside the bright field.

    Raises
    ------
    InputError
        If the pattern holds no light, or there are fewer than 2 draws.
    """
    if not pattern.sum() > 0:
        raise InputError("the pattern holds no light; choose a position that the probe reaches")
    if draws < 2:
        raise InputError(f"draws = {draws}: one measurement has no spread; draw at least 2")
    share = pattern.astype(np.float64) / pattern.sum(dtype=np.float64)
    counts = random.poisson(dose * share, (draws, *pattern.shape))
    photons = counts.sum(axis=(1, 2))
    return {
        "relative deviation": float(photons.std(ddof=1) / photons.mean()) if photons.any() else 0.0,
        "1 / sqrt(dose)": float(1 / np.sqrt(dose)),
        "pixels with a photon [%]": float(100 * (counts > 0).mean()),
        "photons outside the bright field": float(counts[:, scattered].sum(axis=1).mean()),
    }
