"""A mismatch put into the data: how the object is really lit, from the design's named seeds.

Files hold the nominal positions and probe, which arms are given. What is true follows from these,
the numbers of the positions and the seed, so that nothing but the comparison needs it again.
"""

import math
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Complex, Float, Int

from study_lib.design.models import StudyDesign
from study_lib.errors import InputError
from study_lib.phases.scene import defocus_radius_px, require_room_for_defocus
from study_lib.physics.measurement import Measurement, require_plain
from study_lib.physics.probe import aberrated_probe, pupil_radius_per_px
from study_lib.physics.simulation import (
    SimulatedScan,
    TrueLight,
    frame_brightness,
    moved_positions,
)
from study_lib.seeding import generator

STATED = "mismatch"  # what metadata say of it
FIELD = "split_field_px"
RATIO = "photon_ratio"


class ScanPart(NamedTuple):
    """Nominal positions (scan, 2), their numbers in the whole scan, and the field of their split.

    ``field_px`` (2, 2) is the lowest and the highest (row, column) of all positions of the split.
    """

    positions_px: Float[np.ndarray, "scan 2"]
    scan_index: Int[np.ndarray, " scan"]
    field_px: Float[np.ndarray, "2 2"]


def field_of(positions_px: Float[np.ndarray, "scan 2"]) -> Float[np.ndarray, "2 2"]:
    """Return the lowest and the highest (row, column) of some positions."""
    field: np.ndarray = np.stack([positions_px.min(axis=0), positions_px.max(axis=0)])
    return field


def true_light(
    design: StudyDesign, probe: Complex[np.ndarray, "*modes n n"], parts: Mapping[str, ScanPart]
) -> TrueLight | None:
    """Return how the object is really lit; None if the design puts in no mismatch.

    Parameters
    ----------
    design
        Its mismatch, and the seed of its replicate.
    probe : (n, n)
        The nominal one, of any scale.
    parts
        By split.

    Raises
    ------
    InputError
        If the probe has no room for its defocus.
    """
    if not design.mismatch.columns:
        return None
    require_room_for_defocus(design, probe)
    amounts = design.mismatch.amounts
    jitter = amounts.get("flux_jitter_percent", 0.0) / 100
    return TrueLight(
        probe=_true_probe(design, probe),
        positions_px={split: _true_positions(design, part) for split, part in parts.items()},
        brightness={
            split: frame_brightness(
                part.scan_index, jitter=jitter, random=_random(design, "brightness")
            )
            for split, part in parts.items()
            if jitter
        },
        background_counts=amounts.get("background_counts", 0.0),
        bandwidth=amounts.get("bandwidth_percent", 0.0) / 100,
    )


def stated_mismatch(
    design: StudyDesign, field_px: Float[np.ndarray, "2 2"], scan: SimulatedScan
) -> dict[str, Any]:
    """Return what the metadata of a simulated scan say of its mismatch; nothing without one.

    ``field_px`` (2, 2) is that of the split.
    """
    if not design.mismatch.columns:
        return {}
    return {STATED: {**design.mismatch.amounts, FIELD: field_px.tolist(), RATIO: scan.photon_ratio}}


def truly_lit(
    measurement: Measurement, metadata: Mapping[str, Any], design: StudyDesign, path: Path
) -> Measurement:
    """Return a measurement with the true positions, probe and background, as no arm is given them.

    The probe has the mean light of all frames; a bandwidth is not in it. Without a mismatch it is
    the measurement as it is.

    Parameters
    ----------
    measurement
        Of a view and split.
    metadata
        Those of its file.
    design
        That the file was made with.
    path
        The file, for messages.

    Raises
    ------
    InputError
        If the metadata do not say how the mismatch was put in.
    """
    if not design.mismatch.columns:
        return measurement
    stated: Any = metadata.get(STATED)
    try:
        field_px = np.array(stated[FIELD], dtype=np.float64).reshape(2, 2)
        scale = math.sqrt(stated[RATIO])
    except (KeyError, TypeError, ValueError):
        raise InputError(
            f"{path}: its metadata do not say how the mismatch of the design was put in; generate "
            "the data again"
        ) from None
    probe = _true_probe(design, measurement.probe) * scale
    part = ScanPart(measurement.positions_px, measurement.scan_index, field_px)
    return replace(
        measurement,
        probe=probe.astype(measurement.probe.dtype),
        positions_px=_true_positions(design, part),
        background=_true_background(design, measurement),
    )


def _true_background(
    design: StudyDesign, measurement: Measurement
) -> Float[np.ndarray, "n n"] | None:
    counts = design.mismatch.amounts.get("background_counts", 0.0)
    if not counts:
        return measurement.background
    given = measurement.background
    none: np.ndarray = np.zeros(measurement.amplitudes.shape[1:], np.float32)
    return (none if given is None else given) + np.float32(counts)


def _true_positions(design: StudyDesign, part: ScanPart) -> Float[np.ndarray, "scan 2"]:
    error_px = design.mismatch.amounts.get("position_error_px")
    if error_px is None:
        return part.positions_px
    return moved_positions(
        part.positions_px,
        error_px=error_px,
        scan_index=part.scan_index,
        field_px=part.field_px,
        random=_random(design, "positions"),
    )


def _true_probe(
    design: StudyDesign, probe: Complex[np.ndarray, "*modes n n"]
) -> Complex[np.ndarray, "*modes n n"]:
    """Return the probe with the errors of its lens.

    Of a probe of base data no pupil is known: its own spectrum has its radius, and half the
    diameter of the probe stands for the radius of its defocus.
    """
    amounts = design.mismatch.amounts
    defocus = amounts.get("defocus_error_percent", 0.0)
    aberrations = amounts.get("aberration_error_percent", 0.0)
    if not (defocus or aberrations):
        return probe
    require_plain("an error of the lens (defocus or aberrations of the mismatch)", probe=probe)
    is_synthetic = design.base is None
    aperture_per_px = design.probe.aperture_per_px if is_synthetic else pupil_radius_per_px(probe)
    radius_px = defocus_radius_px(design, probe)
    return aberrated_probe(
        probe,
        aperture_per_px=aperture_per_px,
        defocus_px=radius_px * defocus / 100,
        aberration_waves=aberrations / 100,
        random=_random(design, "aberrations"),
    )


def _random(design: StudyDesign, what: str) -> np.random.Generator:
    return generator(design.noise_seeds.simulation, "mismatch", what)
