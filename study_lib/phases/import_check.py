"""How far to believe an object without a truth: other algorithms, and halves of the data."""

from dataclasses import replace
from typing import Any

import numpy as np
from jaxtyping import Complex

from study_lib.data.formats.acquisition import Acquisition
from study_lib.errors import InputError
from study_lib.phases.blind import (
    OBJECT_AND_PROBE,
    Algorithm,
    Progress,
    Unknowns,
    algorithms_for,
    measurement_of,
    solve_blind,
)
from study_lib.phases.import_fit import r_factor
from study_lib.physics.measurement import Measurement, at_positions
from study_lib.scores.alignment import align
from study_lib.scores.frc import (
    OUTCOME,
    SEVENTH,
    frc_crossing,
    half_bit_threshold,
    one_bit_threshold,
    ring_correlation,
)
from study_lib.scores.scoring import scored_pixels

SHIFT_LIMIT_PX = 3.0
ILLUMINATION_THRESHOLD = 0.1


def checked(
    acquisition: Acquisition,
    *,
    algorithm: Algorithm,
    epochs: int,
    seed: int,
    unknowns: Unknowns = OBJECT_AND_PROBE,
    progress: Progress | None = None,
) -> dict[str, Any]:
    """Return whether another algorithm, and each half of the patterns, give the same object.

    Of measured data no truth is known. Two algorithms that agree share no fault of their own, but
    both see the same noise; two halves of the patterns do not: how far their objects agree is the
    resolution that the data support. All start alike, as :func:`reconstructed` does.

    Parameters
    ----------
    acquisition
        A measurement with counts.
    algorithm, epochs, seed, unknowns
        As in :func:`study_lib.phases.blind.reconstructed`; the halves are taken in turn, even and
        odd, by ``algorithm``. LSQML finds object, probe and its modes alone.
    progress
        Called after each epoch with (which, epochs done, epochs, loss).

    Returns
    -------
    dict
        For each algorithm its R-factor and processor seconds; the ring correlation between them and
        between the halves, as fractions of Nyquist, and where it first falls below 1/2, 1/7, half a
        bit and one bit, with the outcome in words where that is no resolution. An algorithm that
        does not model the masks of these data is left out: ``between_algorithms`` has ``why_none``
        alone, which says so.

    Raises
    ------
    InputError
        If it is ``algorithm`` that does not model them.

    References
    ----------
    Halves and 1/7: Rosenthal and Henderson, J. Mol. Biol. 333, 721 (2003),
    doi:10.1016/j.jmb.2003.07.013
    """
    able_algorithms, reasons = algorithms_for(acquisition.bad_pixels)
    if algorithm in reasons:
        raise InputError(f"algorithm {algorithm}: {reasons[algorithm]}")
    measurement, _ = measurement_of(acquisition)
    objects: dict[str, Complex[np.ndarray, "oy ox"]] = {}
    report: dict[str, Any] = {"algorithms": {}}
    positions = measurement.positions_px
    for each in able_algorithms:
        able = unknowns if each == "solver" else Unknowns(unknowns.modes)
        found = solve_blind(measurement, each, epochs, seed, progress, each, unknowns=able)
        objects[each] = found.object_
        modelled = replace(acquisition, background=found.background)
        report["algorithms"][each] = {
            "r_factor": r_factor(modelled, found.probe, found.object_, found.positions_px),
            "cpu_s": found.cpu_s,
        }
    for first, parity in enumerate(("even", "odd")):
        half = at_positions(measurement, np.arange(first, len(positions), 2))
        half_name = f"{algorithm}, {parity} patterns"
        able = unknowns if algorithm == "solver" else Unknowns(unknowns.modes)
        objects[parity] = solve_blind(
            half, algorithm, epochs, seed, progress, half_name, unknowns=able
        ).object_
    if reasons:
        report["between_algorithms"] = {"why_none": "; ".join(reasons.values())}
    else:
        first_object, second_object = (objects[each] for each in able_algorithms)
        report["between_algorithms"] = _agreement(first_object, second_object, measurement)
    report["between_halves"] = _agreement(objects["even"], objects["odd"], measurement)
    return report


def _agreement(
    first: Complex[np.ndarray, "oy ox"],
    second: Complex[np.ndarray, "oy ox"],
    measurement: Measurement,
) -> dict[str, Any]:
    """Return shift, ring correlation and its crossings of two objects of one frame."""
    crop, mask = scored_pixels(measurement, ILLUMINATION_THRESHOLD)
    aligned = align(first[crop], second[crop], mask, registration_limit_px=SHIFT_LIMIT_PX)
    rings = ring_correlation(aligned.object_, second[crop], mask)
    crossings = {
        "half": frc_crossing(rings, 0.5),
        "seventh": frc_crossing(rings, SEVENTH),
        "half_bit": frc_crossing(rings, half_bit_threshold(rings)),
        "one_bit": frc_crossing(rings, one_bit_threshold(rings)),
    }
    return {
        "shift_px": list(aligned.registration.shift_px),
        "frequency": rings.frequency.tolist(),
        "correlation": rings.correlation.tolist(),
    } | {
        f"crossing_{name}{end}": value
        for name, crossing in crossings.items()
        for end, value in (("", crossing.frequency), (OUTCOME, crossing.outcome))
    }
