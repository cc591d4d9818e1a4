"""Where and how an object is held against the truth: one mask for every arm, one alignment."""

import math
from typing import Any

import numpy as np
import torch
from jaxtyping import Bool, Complex, Float

from study_lib.physics.forward import illumination
from study_lib.physics.measurement import Measurement
from study_lib.scores.alignment import Registration, align
from study_lib.scores.featureless import FEATURELESS, is_featureless
from study_lib.scores.metrics import score


def light_of(measurement: Measurement) -> Float[np.ndarray, "oy ox"]:
    """Return the photons on each object pixel over the whole scan."""
    return illumination(
        torch.from_numpy(measurement.probe),
        torch.from_numpy(measurement.positions_px),
        measurement.object_shape,
    ).numpy()


def scored_pixels(
    measurement: Measurement, illumination_threshold: float
) -> tuple[tuple[slice, slice], Bool[np.ndarray, "y x"]]:
    """Return the crop and, in it, the mask of pixels on which every arm is scored.

    The crop is the box of the scan positions; the mask leaves out pixels that receive less than a
    share of the median illumination there. Neither depends on any arm.

    Parameters
    ----------
    measurement
        Its positions and probe.
    illumination_threshold
        Share of the median light, 0 to 1, as in :class:`study_lib.design.models.MetricsDesign`.

    Returns
    -------
    Slices of rows and columns of the object, and the mask (y, x) in the crop, True where scored.

    Examples
    --------
    >>> from pathlib import Path
    >>> from tempfile import TemporaryDirectory
    >>> import study_lib as study
    >>> with TemporaryDirectory() as folder:
    ...     condition = study.create_run(Path(folder), study.load_design("smoke")).condition(1e4)
    ...     photons = study.generate(condition)
    ...     measurement, truth = condition.measurement(), condition.truth()
    >>> crop, mask = study.scored_pixels(measurement, 0.1)
    >>> truth[crop].shape == mask.shape
    True

    A higher threshold leaves out more of the dim pixels:

    >>> bool(study.scored_pixels(measurement, 0.9)[1].sum() < mask.sum())
    True
    """
    positions, light = measurement.positions_px, light_of(measurement)
    first = np.ceil(positions.min(axis=0)).astype(int)
    last = np.floor(positions.max(axis=0)).astype(int) + 1
    crop = (slice(int(first[0]), int(last[0])), slice(int(first[1]), int(last[1])))
    mask: np.ndarray = light[crop] > illumination_threshold * np.median(light[crop])
    return crop, mask


def scores_of(
    object_: Complex[np.ndarray, "oy ox"],
    truth: Complex[np.ndarray, "oy ox"],
    crop: tuple[slice, slice],
    mask: Bool[np.ndarray, "y x"],
    *,
    registration_limit_px: float,
    frc_threshold: float,
) -> tuple[dict[str, Any], Complex[np.ndarray, "y x"]]:
    """Return the scores of an object in the frame of the truth, and its aligned crop.

    Parameters
    ----------
    object_, truth : (oy, ox)
        Reconstruction and truth.
    crop, mask : (y, x)
        From :func:`scored_pixels`: slices of the object, and True where they are scored.
    registration_limit_px, frc_threshold
        As in :class:`study_lib.design.models.MetricsDesign`.

    Returns
    -------
    Scores by name, as in the columns of a comparison, and the aligned crop (y, x), complex64.

    Examples
    --------
    What patterns cannot tell, such as a constant phase, costs nothing:

    >>> import numpy as np
    >>> import study_lib as study
    >>> truth = study.scene_of(study.load_design("smoke")).object_
    >>> crop = np.s_[20:52, 20:60]
    >>> mask = np.ones(truth[crop].shape, bool)
    >>> limits = {"registration_limit_px": 3.0, "frc_threshold": 0.5}
    >>> turned = (truth * np.exp(1j)).astype(np.complex64)
    >>> scores, aligned = study.scores_of(turned, truth, crop, mask, **limits)
    >>> round(scores["phase_ssim"], 3), scores["registration"]
    (1.0, 'ok')
    >>> bool(np.abs(aligned - truth[crop]).max() < 1e-3)
    True

    A flat object has no score, which stands where others say how they were registered:

    >>> flat, _ = study.scores_of(np.ones_like(truth), truth, crop, mask, **limits)
    >>> flat["phase_ssim"] < 0.5, flat["registration"]
    (True, 'featureless')
    """
    # A moved image is not known at its edge: align on a wider crop, score on the crop.
    wide, inner = _widened(crop, math.ceil(registration_limit_px), truth.shape)
    wide_mask = np.zeros(object_[wide].shape, dtype=bool)
    wide_mask[inner] = mask
    alignment = align(
        object_[wide], truth[wide], wide_mask, registration_limit_px=registration_limit_px
    )
    aligned = alignment.object_[inner]
    registration = alignment.registration
    scores = {
        **score(aligned, truth[crop], mask, frc_threshold=frc_threshold),
        "shift_row_px": float(registration.shift_px[0]),
        "shift_column_px": float(registration.shift_px[1]),
        "registration": FEATURELESS
        if is_featureless(aligned, truth[crop], mask)
        else describe_registration(registration),
        "phase_spread_rad": float(np.angle(aligned[mask]).std()),
    }
    return scores, aligned.astype(np.complex64)


def describe_registration(registration: Registration) -> str:
    """Return ``ok``, or why a score should not be trusted."""
    if not registration.confident:
        return "uncertain"
    return "at limit" if registration.at_limit else "ok"


def _widened(
    crop: tuple[slice, slice], margin: int, shape: tuple[int, ...]
) -> tuple[tuple[slice, slice], tuple[slice, slice]]:
    """Return a crop wider by a margin where the object allows, and where the old one lies in it."""
    wide = tuple(
        slice(max(part.start - margin, 0), min(part.stop + margin, side))
        for part, side in zip(crop, shape, strict=True)
    )
    inner = tuple(
        slice(part.start - outer.start, part.stop - outer.start)
        for part, outer in zip(crop, wide, strict=True)
    )
    return (wide[0], wide[1]), (inner[0], inner[1])
