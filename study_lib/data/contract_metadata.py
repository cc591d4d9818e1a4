"""The rules of DATA-001 for metadata, by themselves and against the photons that were counted."""

from collections.abc import Mapping
from typing import Any, TypeGuard

import numpy as np

from study_lib.data.facts import ArrayFacts
from study_lib.data.rules import Violation

DOSE_TOLERANCE = 0.25
BUDGET_TOLERANCE = 1e-3
SIGMA_MAX = 6.0
ROUNDING = 1e-6
MEASURED = "photons_per_pattern_measured"
EXPECTED = "photons_per_pattern_expected"
REQUESTED = "photons_per_pattern_requested"
PHOTON_NUMBERS = (MEASURED, EXPECTED, REQUESTED)
DETECTOR_SETTINGS = frozenset(
    {"dark_counts", "saturation_counts", "beamstop_radius_px", "bad_pixel_share"}
)


def check_metadata(metadata: Mapping[str, Any], patterns: ArrayFacts | None) -> list[Violation]:
    """Return the violations of the metadata by themselves and against the patterns.

    Parameters
    ----------
    metadata
        The JSON object of the file.
    patterns
        Facts of ``diffraction``, if the file has it.
    """
    if not metadata:
        message = "record domain, source and photons_per_pattern_measured"
        return [Violation("_metadata", "nothing", "a JSON object", message, False)]
    violations = []
    domain = metadata.get("domain")
    if patterns is not None and domain != "amplitude":
        remedy = "store sqrt(counts) and say so; `study import --domain` does both"
        violations.append(
            Violation("_metadata", f"domain {domain!r}", "'amplitude'", remedy, domain is not None)
        )
    violations += _check_detector(metadata)
    if patterns is not None and patterns.totals is not None and not patterns.faulty_count:
        violations += _check_photons(metadata, patterns.totals)
        if not patterns.roots and metadata.get("photon_scale") != "none":
            found = "squares that are no whole numbers"
            remedy = "state photon_scale 'none' if the data carry no counts"
            violations.append(
                Violation("diffraction", found, "square roots of counts", remedy, False)
            )
    return violations


def _check_detector(metadata: Mapping[str, Any]) -> list[Violation]:
    detector = metadata.get("detector", {})
    if isinstance(detector, dict) and set(detector) <= DETECTOR_SETTINGS:
        return []
    expected = f"an object with some of {', '.join(sorted(DETECTOR_SETTINGS))}"
    remedy = "leave it out for an ideal detector"
    return [Violation("_metadata", f"detector {detector!r}"[:80], expected, remedy)]


def _check_photons(metadata: Mapping[str, Any], totals: np.ndarray) -> list[Violation]:
    """Return where the counted photons contradict what the metadata say of them."""
    stated = {name: metadata[name] for name in PHOTON_NUMBERS if name in metadata}
    violations = [
        Violation("_metadata", f"{name} {value!r}"[:80], "a number of 0 or more", "correct it")
        for name, value in stated.items()
        if not _is_number(value)
    ]
    numbers = {name: value for name, value in stated.items() if _is_number(value)}
    mean = float(totals.mean())
    recorded = numbers.get(MEASURED)
    if recorded is not None and abs(mean - recorded) > BUDGET_TOLERANCE * max(mean, recorded):
        found = f"{MEASURED} {recorded:.6g}"
        remedy = "the patterns were changed after they were recorded; write both again"
        violations.append(Violation("_metadata", found, f"{mean:.6g}, as counted", remedy))
    expected = numbers.get(EXPECTED)
    if expected:
        excess = max(0.0, abs(mean - expected) - ROUNDING * expected)
        deviation = np.sign(mean - expected) * excess / np.sqrt(expected / len(totals))
        if abs(deviation) > SIGMA_MAX:
            found = f"{mean:.6g} photons per pattern, {deviation:+.1f} standard deviations away"
            remedy = "the counts are not those of the stated dose; generate them again"
            violations.append(
                Violation("diffraction", found, f"{expected:.6g}, as simulated", remedy)
            )
    requested = numbers.get(REQUESTED)
    # A detector that hides or adds counts changes the number on purpose.
    if requested is None or metadata.get("detector"):
        return violations
    if abs(mean - requested) > DOSE_TOLERANCE * requested:
        # One split, or a few patterns, may lie on a darker part of the object than the whole scan.
        is_wrong = not requested / 2 <= mean <= 2 * requested
        found = f"{mean:.6g} photons per pattern"
        remedy = "the label is not the dose (SYNTH-POISSON-DOSE-001); correct one of them"
        limits = f"{requested:.6g} within {DOSE_TOLERANCE:.0%}"
        violations.append(Violation("diffraction", found, limits, remedy, is_wrong))
    return violations


def _is_number(value: object) -> TypeGuard[float]:
    """Return whether a value from JSON is a finite number of 0 or more."""
    if isinstance(value, bool) or not isinstance(value, int | float):
        return False
    return bool(0 <= value < 1e300)
