"""The photon limit of one condition, as columns and arrays of its comparison."""

import math
from collections.abc import Mapping
from typing import Any

import numpy as np
from jaxtyping import Bool, Complex

from study_lib.design.models import StudyDesign
from study_lib.physics.measurement import Measurement
from study_lib.scores.photon_limit import PhotonLimit, photon_limit

LIMIT_SEED = 0  # of the random signs of an estimate of traces; no result of the study
LIMIT_COLUMNS = (
    "photon_limit_phase_rad",
    "ideal_limit_phase_rad",
    "shrinking_limit_phase_rad",
    "wiener_phase_rad",
    "photon_limit_amplitude",
    "phase_error_over_limit",
    "phase_error_over_shrinking",
    "amplitude_error_over_limit",
)


def limit_of(
    measurement: Measurement,
    truth: Complex[np.ndarray, "oy ox"],
    crop: tuple[slice, slice],
    mask: Bool[np.ndarray, "y x"],
    design: StudyDesign,
) -> PhotonLimit | None:
    """Return the photon limit of the scored pixels.

    None if the true object is zero on one, or if the design asks for no limit.
    """
    scored = np.zeros(truth.shape, dtype=bool)
    scored[crop] = mask
    if not truth[scored].all() or not design.metrics.photon_limit_solves:
        return None
    return photon_limit(
        object_=truth,
        probe=measurement.probe,
        positions_px=measurement.positions_px,
        scored=scored,
        crop=crop,
        seed=LIMIT_SEED,
        solves=design.metrics.photon_limit_solves,
        background=design.detector.dark_counts,
        bad_pixels=measurement.bad_pixels,
    )


def limit_row(limit: PhotonLimit | None, scores: Mapping[str, Any]) -> dict[str, float | None]:
    """Return the photon limits of a condition, and an arm's errors in units of them.

    Errors are roots of mean squares over the scored pixels, as the limits are.
    """
    if limit is None:
        return dict.fromkeys(LIMIT_COLUMNS)
    phase, amplitude = (math.sqrt(scores[name]) for name in ("phase_mse_rad2", "amplitude_mse"))
    values = (
        limit.phase_rms_rad,
        limit.ideal_phase_rms_rad,
        limit.shrinking_phase_rms_rad,
        limit.wiener_phase_rms_rad,
        limit.amplitude_rms,
        phase / limit.phase_rms_rad,
        phase / limit.shrinking_phase_rms_rad,
        amplitude / limit.amplitude_rms,
    )
    return dict(zip(LIMIT_COLUMNS, values, strict=True))


def limit_arrays(
    limit: PhotonLimit | None, crop: tuple[slice, slice], mask: Bool[np.ndarray, "y x"]
) -> dict[str, np.ndarray]:
    """Return the maps of the limit on the crop, and its curves; NaN and empty without a limit.

    ``photon_limit_frc`` lies on the rings of the FRC; the others on those up to the corner, whose
    frequencies, in fractions of Nyquist, are ``spectrum_frequency``.
    """
    names = ("photon_limit_phase_std_rad", "photon_limit_amplitude_std")
    curves = (
        "photon_limit_frc",
        "spectrum_frequency",
        "photon_limit_phase_spectrum_rad2",
        "true_phase_spectrum_rad2",
    )
    if limit is None:
        nowhere = np.full(mask.shape, np.nan, dtype=np.float32)
        return dict.fromkeys(names, nowhere) | dict.fromkeys(curves, np.array([]))
    maps = (limit.phase_std_rad, limit.amplitude_std)
    spectra = limit.spectra
    told = (limit.frc_ceiling, spectra.frequency, spectra.noise, spectra.signal)
    on_crop = {
        name: values[crop].astype(np.float32) for name, values in zip(names, maps, strict=True)
    }
    return on_crop | dict(zip(curves, told, strict=True))
