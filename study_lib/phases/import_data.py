"""From a scan as it was read to base data: object and probe, what is known of them, the verdict."""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from matplotlib.figure import Figure

from study_lib.data.formats.acquisition import Acquisition, ReadChoices
from study_lib.data.verdict import VERDICT, Verdict
from study_lib.figures.import_preview import FIT_PANELS, FittedPatterns, import_preview
from study_lib.phases.base_data import with_scaled_probe
from study_lib.phases.blind import (
    OBJECT_AND_PROBE,
    Algorithm,
    Progress,
    Unknowns,
    few_epochs_r_factor,
    reconstructed,
)
from study_lib.phases.import_check import checked
from study_lib.phases.import_fit import Fit, fit_of, good_values, r_factor
from study_lib.phases.import_verdict import (
    AGAINST_FLOOR,
    BETTER,
    EXPLAINED_DOUBTFUL,
    FLOOR_SHARE_MAX,
    ImportFacts,
    explained_share,
    facts_of,
    floor_said,
    judged,
    with_better_orientation,
)
from study_lib.physics.likelihood import expected_in_parts
from study_lib.physics.probe import modes_of
from study_lib.scores.frc import BELOW_FROM_FIRST, OUTCOME

HINT_FACTOR = 1.15
HOT_NAMED_MAX = 6
AS_GIVEN = "object and probe are those of the file"


@dataclass(frozen=True)
class Imported:
    """A scan with object and probe, and whether to believe them.

    ``fit`` is None without patterns; ``report`` is that of
    :func:`study_lib.phases.import_check.checked`, None unless it was asked for.
    """

    acquisition: Acquisition
    facts: ImportFacts
    verdict: Verdict
    fit: Fit | None
    report: Mapping[str, Any] | None = None


def imported(
    acquisition: Acquisition,
    choices: ReadChoices,
    *,
    algorithm: Algorithm,
    epochs: int,
    seed: int,
    unknowns: Unknowns = OBJECT_AND_PROBE,
    progress: Progress | None = None,
) -> Imported:
    """Return a scan with object and probe, its own or reconstructed, and the verdict on them.

    Parameters
    ----------
    acquisition
        As it was read.
    choices
        What the user said of the file: an advice is given on top of it.
    algorithm, epochs, seed, unknowns, progress
        As in :func:`study_lib.phases.blind.reconstructed`.

    Raises
    ------
    InputError
        If the patterns cannot be reconstructed: none overlap, no counts, sizes that do not fit.
    """
    measured = acquisition
    is_given = acquisition.object_ is not None and acquisition.probe is not None
    if is_given:
        found = with_scaled_probe(acquisition)
        r_start = None if found.amplitudes is None else _uniform_r_factor(found)
        stop, done = AS_GIVEN, 0
    else:
        found = reconstructed(
            measured,
            algorithm=algorithm,
            epochs=epochs,
            seed=seed,
            unknowns=unknowns,
            progress=progress,
        )
        r_start = float(found.metadata["r_factor_start"])
        stop, done = str(found.metadata["stop"]), int(found.metadata["epochs"])
    probe, object_ = found.require("probe", "object_")
    fit = None
    if found.amplitudes is not None:
        fit = fit_of(found, probe, object_, found.positions_px)
    facts = facts_of(found, fit, r_start=r_start, stop=stop, epochs=done)
    if fit is not None and explained_share(facts) < EXPLAINED_DOUBTFUL:
        if is_given:
            facts = _with_conjugate(facts, found)
        elif not measured.is_normalized:
            facts = with_better_orientation(
                facts, measured, choices, lambda part: few_epochs_r_factor(part, seed, progress)
            )
    return with_verdict(Imported(found, facts, Verdict("good"), fit), judged(facts))


def with_check(
    found: Imported,
    measured: Acquisition,
    *,
    algorithm: Algorithm,
    epochs: int,
    seed: int,
    unknowns: Unknowns = OBJECT_AND_PROBE,
    progress: Progress | None = None,
) -> Imported:
    """Return an import judged anew by what other reconstructions of its patterns say.

    Those of :func:`study_lib.phases.import_check.checked`: the other algorithm and each half of the
    patterns.

    Parameters
    ----------
    found
        The import.
    measured
        The same scan as it was read.
    algorithm, epochs, seed, unknowns, progress
        As in :func:`study_lib.phases.blind.reconstructed`; as many modes as the import has.
    """
    (probe,) = found.acquisition.require("probe")
    unknowns = replace(unknowns, modes=len(modes_of(probe)))
    report = checked(
        measured,
        algorithm=algorithm,
        epochs=epochs,
        seed=seed,
        unknowns=unknowns,
        progress=progress,
    )
    halves = report["between_halves"][f"crossing_seventh{OUTCOME}"] != BELOW_FROM_FIRST
    best = min(each["r_factor"] for each in report["algorithms"].values())
    is_given = found.facts.stop == AS_GIVEN
    facts = replace(found.facts, halves_agree=halves, r_reconstructed=best if is_given else None)
    return with_verdict(replace(found, facts=facts, report=report), judged(facts))


def with_verdict(found: Imported, verdict: Verdict) -> Imported:
    """Return an import with a verdict, which its metadata keep beside the facts."""
    acquisition = found.acquisition
    said = {
        "level": verdict.level,
        "reasons": list(verdict.reasons),
        "facts": found.facts.as_dict(),
    }
    metadata = {**acquisition.metadata, VERDICT: said}
    return replace(found, acquisition=replace(acquisition, metadata=metadata), verdict=verdict)


def _uniform_r_factor(acquisition: Acquisition) -> float:
    """Return the R-factor of a uniform object that lets through as much light as was measured."""
    probe, object_ = acquisition.require("probe", "object_")
    ones = np.ones(object_.shape, np.complex64)
    measured = model = 0.0
    dark = 0.0 if acquisition.background is None else acquisition.background.astype(np.float64)
    (amplitudes,) = acquisition.require("amplitudes")
    for part, expected in expected_in_parts(ones, probe, acquisition.positions_px):
        good = good_values(acquisition, part)
        model += float((expected.double().numpy() * good).sum())
        measured += float(((amplitudes[part].astype(np.float64) ** 2 - dark) * good).sum())
    modulus = np.float32(np.sqrt(max(measured, 0.0) / model)) if model else np.float32(1)
    return r_factor(acquisition, probe, ones * modulus, acquisition.positions_px)


def _with_conjugate(facts: ImportFacts, acquisition: Acquisition) -> ImportFacts:
    """Return the facts with what is better conjugated: object, probe or both."""
    probe, object_ = acquisition.require("probe", "object_")
    places = acquisition.positions_px
    found = {
        "the object": r_factor(acquisition, probe, object_.conj(), places),
        "the probe": r_factor(acquisition, probe.conj(), object_, places),
        "object and probe": r_factor(acquisition, probe.conj(), object_.conj(), places),
    }
    best = min(found, key=lambda name: found[name])
    if facts.r_end is None or found[best] >= BETTER * facts.r_end:
        return facts
    return replace(facts, r_conjugate=found[best], conjugate_of=best)


# --- What is said and shown


def described(imported_: Imported) -> list[str]:
    """Return what is known of an import, a line each, the verdict last."""
    facts = imported_.facts
    lines = []
    if facts.r_start is not None and facts.r_end is not None:
        noise = "" if facts.r_noise is None else f" (photon noise alone {facts.r_noise:.4f})"
        how = f"{facts.stop} after {facts.epochs} epochs" if facts.epochs else facts.stop
        lines.append(f"R-factor {facts.r_start:.4f} -> {facts.r_end:.4f}{noise}; {how}")
    lines.append(
        f"overlap {facts.overlap:.2f} of the probe's disc ({facts.overlap_linear:.2f} of its "
        f"diameter of {facts.probe_diameter_px:.3g} pixels), {facts.neighbours:.1f} neighbours; "
        f"nearest {facts.positions_apart_px:.3g} pixels apart"
    )
    if facts.photons_per_pattern is not None:
        least, median, most = facts.photons_per_pattern
        lines.append(f"photons per pattern {median:.4g} (from {least:.4g} to {most:.4g})")
    lines.append(
        f"probe at the edge of its window {facts.probe_share_at_edge:.2%}; masked "
        f"{facts.masked_share:.2%} of the values"
    )
    if facts.field_m is not None:
        fresnel = (
            "" if facts.fresnel_number is None else f", Fresnel number {facts.fresnel_number:.2g}"
        )
        pixel_m = facts.field_m / facts.field_px
        lines.append(
            f"field of view {facts.field_m:.4g} m, {facts.field_px} pixels of {pixel_m:.4g} m"
            f"{fresnel}"
        )
    times_noise = facts.r_end / facts.r_noise if facts.r_end and facts.r_noise else 0.0
    if times_noise > HINT_FACTOR and imported_.verdict.level != "wrong":
        lines.append(
            f"R-factor {times_noise:.2f} times that of noise: see what --modes 2, "
            "--refine-positions or, for pixels that stand out in the picture, --mask make of it"
        )
    if facts.hot_after_fit:
        places = ", ".join(
            f"({row}, {column})"
            if side == 1
            else f"({row}-{row + side - 1}, {column}-{column + side - 1})"
            for row, column, side in facts.hot_after_fit[:HOT_NAMED_MAX]
        )
        lines.append(
            f"detector pixels {places} have counts that the object would spread: if they are hot, "
            "name them with --mask"
        )
    if 0 < facts.floor_share <= FLOOR_SHARE_MAX:
        lines.append(f"{floor_said(facts)}: if that is too much, {AGAINST_FLOOR}")
    lines.append(f"verdict: {imported_.verdict}")
    return lines


def preview_of(imported_: Imported, *, title: str) -> Figure:
    """Return the picture of an import: object, probe, scan, three fits, where the detector is off.

    The three patterns are those whose R-factor is least, median and largest.
    """
    found, fit = imported_.acquisition, imported_.fit
    probe, object_ = found.require("probe", "object_")
    if fit is None or found.amplitudes is None:
        return import_preview(object_, probe, found.positions_px, None, title=title)
    order = np.argsort(np.nan_to_num(fit.r_of_frames))
    chosen = np.unique(order[np.linspace(0, len(order) - 1, FIT_PANELS).astype(int)])
    parts = expected_in_parts(
        object_, probe, found.positions_px[chosen], background=found.background
    )
    model = np.concatenate([expected.numpy() for _, expected in parts])
    bad = found.bad_pixels
    is_bad = np.zeros(model.shape[1:], bool)
    if bad is not None:
        is_bad = bad if bad.ndim == 2 else bad.mean(axis=0) > 0.5
    fitted = FittedPatterns(
        measured=found.amplitudes[chosen].astype(np.float64) ** 2,
        model=model,
        names=tuple(str(name) for name in found.names[chosen]),
        misfit=fit.misfit,
        bad=is_bad,
        r_of_frames=fit.r_of_frames,
    )
    return import_preview(object_, probe, found.positions_px, fitted, title=title)
