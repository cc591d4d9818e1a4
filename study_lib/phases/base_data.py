"""Base data from measured patterns: object and probe, their scale, and how far to believe them."""

from dataclasses import replace

import numpy as np
import torch
from jaxtyping import Bool, Complex, Float

from study_lib.data.formats.acquisition import Acquisition, transformation
from study_lib.data.prediction import check_arithmetic
from study_lib.errors import InputError
from study_lib.physics.forward import illumination
from study_lib.physics.likelihood import expected_in_parts

# --- How well they explain the patterns; scale and phase settled

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
    count in neither power, and of the measured one the background is left out.

    Parameters
    ----------
    acquisition
        With object and probe; without patterns there is nothing to compare with.

    Raises
    ------
    InputError
        If a patch leaves the object, probe or object are beyond what single precision computes, or
        one of the two powers is zero or not finite.
    """
    probe, object_ = acquisition.require("probe", "object_")
    if acquisition.amplitudes is None or acquisition.probe_is_scaled:
        return acquisition
    source = acquisition.metadata.get("source", "the data")
    faults = list(check_arithmetic(probe, object_))
    if faults:
        lines = "\n".join(f"  {fault}" for fault in faults)
        raise InputError(f"{source} cannot become a data set, it breaks DATA-001:\n{lines}")
    good = _good_pixels(acquisition)
    measured = float((acquisition.amplitudes.astype(np.float64) ** 2 * good).sum())
    dark = 0.0
    if acquisition.background is not None:
        dark = float(
            np.broadcast_to(acquisition.background * good, acquisition.amplitudes.shape).sum()
        )
        measured -= dark
    model = 0.0
    try:
        parts = expected_in_parts(object_, probe, acquisition.positions_px, CHUNK)
        for part, expected in parts:
            valid = good[part] if good.ndim == 3 else good
            model += float((expected.double().numpy() * valid).sum())
    except ValueError as error:
        raise InputError(f"{source}: {error}") from None
    for what, power in (("probe and object predict", model), ("the patterns hold", measured)):
        if not 0 < power < np.inf:
            beside = f" beside the {dark:.4g} of the background" if dark else ""
            raise InputError(
                f"{source}: {what} a power of {power:.4g}{beside}; it has to be more than zero and "
                "finite; check positions, masks and dark frames, or --ignore object,probe"
            )
    noise = 0.0 if acquisition.is_normalized else SHOT_NOISE_SIGMAS * np.sqrt(model + dark)
    if abs(measured - model) <= max(SCALE_TOLERANCE * model, noise):
        return replace(acquisition, probe_is_scaled=True)
    factor = float(np.sqrt(measured / model))
    remark = (
        f"probe and object predict {model / measured:.3g} times the measured power; the probe was "
        f"multiplied by {factor:.4g}"
    )
    record = transformation("scale probe to the mean power of the patterns", factor=factor)
    return replace(
        acquisition,
        probe=(probe * factor).astype(np.complex64),
        probe_is_scaled=True,
        transformations=(*acquisition.transformations, record),
        remarks=(*acquisition.remarks, remark),
    )


def fixed_gauge(
    object_: Complex[np.ndarray, "oy ox"],
    probe: Complex[np.ndarray, "*modes n n"],
    positions_px: Float[np.ndarray, "scan 2"],
) -> tuple[Complex[np.ndarray, "oy ox"], Complex[np.ndarray, "*modes n n"], dict[str, float]]:
    """Return object and probe with scale and phase settled, and what that changed.

    Scale and phase move between object and probe, which leaves every pattern as it is: the object
    gets the mean phase zero and, where it is well lit, an amplitude whose 99.5th percentile is 1.
    Two changes are real: amplitudes above 1 are clipped, and pixels hardly lit, which nothing in
    the data determines, become the mean amplitude at phase zero. A phase ramp stays.

    Parameters
    ----------
    object_ : (oy, ox)
        Complex transmission up to a factor.
    probe : (n, n) or (modes, n, n)
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
