"""Base data from measurements: how well they explain the patterns, scale and phase settled."""

from dataclasses import replace

import numpy as np
import torch
from jaxtyping import Bool, Complex, Float

from study_lib.data.formats.acquisition import Acquisition, step
from study_lib.errors import InputError
from study_lib.physics.forward import exit_waves, expected_counts, illumination

CHUNK = 64
WELL_LIT = 0.1
POORLY_LIT = 0.01
AMPLITUDE_PERCENTILE = 99.5
SCALE_TOLERANCE = 0.02
SHOT_NOISE_SIGMAS = 5


def with_scaled_probe(acquisition: Acquisition) -> Acquisition:
    """Return the acquisition with a probe that predicts the measured mean power of the patterns.

    The model's power is that behind the object, so that an object of any amplitude is right. A
    probe that predicts the power within 2 %, or within five times the shot noise of all photons
    where they are few, stays as it is; otherwise a remark says how far it was off. Bad pixels
    count in neither power.

    Parameters
    ----------
    acquisition
        With object and probe; without patterns there is nothing to compare with.

    Raises
    ------
    InputError
        If a patch leaves the object.
    """
    probe, object_ = acquisition.require("probe", "object_")
    if acquisition.amplitudes is None or acquisition.probe_is_scaled:
        return acquisition
    good = _good_pixels(acquisition)
    measured = float((acquisition.amplitudes.astype(np.float64) ** 2 * good).sum())
    model = 0.0
    try:
        for part in _parts(len(acquisition.positions_px)):
            waves = _waves(probe, object_, acquisition.positions_px[part])
            model += float((expected_counts(waves).double().numpy() * good).sum())
    except ValueError as error:
        raise InputError(f"{acquisition.metadata.get('source')}: {error}") from None
    noise = 0.0 if acquisition.is_normalized else SHOT_NOISE_SIGMAS * np.sqrt(model)
    if not model or abs(measured - model) <= max(SCALE_TOLERANCE * model, noise):
        return replace(acquisition, probe_is_scaled=bool(model))
    factor = float(np.sqrt(measured / model))
    remark = (
        f"probe and object predict {model / measured:.3g} times the measured power; the probe was "
        f"multiplied by {factor:.4g}"
    )
    record = step("scale probe to the mean power of the patterns", factor=factor)
    return replace(
        acquisition,
        probe=(probe * factor).astype(np.complex64),
        probe_is_scaled=True,
        transformations=(*acquisition.transformations, record),
        remarks=(*acquisition.remarks, remark),
    )


def r_factor(
    acquisition: Acquisition,
    probe: Complex[np.ndarray, "n n"],
    object_: Complex[np.ndarray, "oy ox"],
    positions_px: Float[np.ndarray, "scan 2"],
) -> float:
    """Return ``sum |sqrt(counts) - sqrt(model)| / sum sqrt(counts)`` over the whole scan.

    Parameters
    ----------
    acquisition
        The measurement; its bad pixels are left out.
    probe : (n, n)
        Illumination in sqrt(photons) per pixel.
    object_ : (oy, ox)
        Complex transmission.
    positions_px : (scan, 2)
        (row, column) of the patch centres in pixels of this object.
    """
    (amplitudes,) = acquisition.require("amplitudes")
    good = _good_pixels(acquisition)
    difference, total = 0.0, 0.0
    for part in _parts(len(positions_px)):
        measured = amplitudes[part].astype(np.float64) * good
        waves = _waves(probe, object_, positions_px[part])
        model = np.sqrt(expected_counts(waves).double().numpy()) * good
        difference += float(np.abs(measured - model).sum())
        total += float(measured.sum())
    return difference / total


def fixed_gauge(
    object_: Complex[np.ndarray, "oy ox"],
    probe: Complex[np.ndarray, "n n"],
    positions_px: Float[np.ndarray, "scan 2"],
) -> tuple[Complex[np.ndarray, "oy ox"], Complex[np.ndarray, "n n"], dict[str, float]]:
    """Return object and probe with scale and phase settled, and what that changed.

    Scale and phase move between object and probe, which leaves every pattern as it is: the object
    gets the mean phase zero and, where it is well lit, an amplitude whose 99.5th percentile is 1.
    Two changes are real: amplitudes above 1 are clipped, and pixels hardly lit, which nothing in
    the data determines, become the mean amplitude at phase zero. A phase ramp stays.

    Parameters
    ----------
    object_ : (oy, ox)
        Complex transmission up to a factor.
    probe : (n, n)
        Illumination in sqrt(photons) per pixel, up to the inverse of that factor.
    positions_px : (scan, 2)
        (row, column) of the patch centres in object pixels.
    """
    well_lit, poorly_lit = _lit_parts(probe, positions_px, object_.shape)
    scale = np.percentile(np.abs(object_[well_lit]), AMPLITUDE_PERCENTILE)
    mean = object_[well_lit].sum(dtype=np.complex128)
    factor = scale * mean / np.abs(mean)
    settled = object_ / factor
    amplitude = np.abs(settled)
    clipped = (amplitude > 1) & ~poorly_lit
    # A hair below 1: rounding to single precision must not lift a pixel above it again.
    settled[clipped] *= (1 - 1e-6) / amplitude[clipped]
    settled[poorly_lit] = np.abs(settled[well_lit]).mean()
    record = {
        "object_scale_moved_to_probe": float(scale),
        "clipped_share_of_well_lit": float(clipped[well_lit].mean()),
        "clipped_share": float(clipped.mean()),
        "well_lit_share": float(well_lit.mean()),
        "replaced_share": float(poorly_lit.mean()),
    }
    return settled.astype(np.complex64), (probe * factor).astype(np.complex64), record


def _lit_parts(
    probe: np.ndarray, positions_px: np.ndarray, object_shape: tuple[int, ...]
) -> tuple[Bool[np.ndarray, "oy ox"], Bool[np.ndarray, "oy ox"]]:
    """Return which pixels are well and which are hardly lit.

    The measure is the median illumination over the rectangle of the scan positions.
    """
    shape = (object_shape[0], object_shape[1])
    places = torch.from_numpy(positions_px)
    photons: np.ndarray = illumination(torch.from_numpy(probe), places, shape).numpy()
    first = np.floor(positions_px.min(axis=0)).astype(int)
    last = np.ceil(positions_px.max(axis=0)).astype(int) + 1
    median = np.median(photons[first[0] : last[0], first[1] : last[1]])
    return photons > WELL_LIT * median, photons < POORLY_LIT * median


def _good_pixels(acquisition: Acquisition) -> Float[np.ndarray, "..."]:
    """Return 1 for every pixel that counts and 0 for the others."""
    bad = acquisition.bad_pixels
    return np.ones(()) if bad is None else (~bad).astype(np.float64)


def _parts(count: int) -> list[slice]:
    return [slice(start, start + CHUNK) for start in range(0, count, CHUNK)]


def _waves(probe: np.ndarray, object_: np.ndarray, positions_px: np.ndarray) -> torch.Tensor:
    return exit_waves(
        torch.from_numpy(probe), torch.from_numpy(object_), torch.from_numpy(positions_px)
    )
