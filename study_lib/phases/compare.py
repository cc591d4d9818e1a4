"""Phase G (05_compare): every arm of a condition, scored by one code on one mask."""

import math
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
from jaxtyping import Bool, Complex, Float
from matplotlib.figure import Figure

from study_lib.arm_names import STD, as_fallback
from study_lib.data.archive import open_npz
from study_lib.data.contract import load_object
from study_lib.design.axes import dose_key
from study_lib.design.experiment import mismatch_title
from study_lib.design.models import StudyDesign
from study_lib.errors import InputError, StudyError
from study_lib.figures.common import save_figure
from study_lib.figures.results import condition_figure
from study_lib.files import write_csv, write_json, write_npz
from study_lib.overlap.metrics import image_overlap, linear_overlap
from study_lib.overlap.views import ViewRecord, view_record_of
from study_lib.phases.arms import ArmResult, MissingResultError, arms_of
from study_lib.phases.conditions import (
    COMPARED,
    MISSING_ARMS,
    SECOND_REFERENCE,
    Condition,
    held_against,
)
from study_lib.phases.measured import HeldOutCounts, Reference, reference_of, share_of
from study_lib.phases.mismatch import truly_lit
from study_lib.phases.records import Work, recorded, work_of
from study_lib.physics.likelihood import FreshCounts
from study_lib.physics.measurement import Measurement, patterns_digest, photon_budget
from study_lib.physics.photons import SHARES
from study_lib.physics.probe import probe_diameter_px
from study_lib.scores.frc import ring_correlation, ring_frequencies
from study_lib.scores.metrics import metric_facts
from study_lib.scores.photon_limit import PhotonLimit, photon_limit
from study_lib.scores.scoring import scored_pixels
from study_lib.scores.study_table import unit_of
from study_lib.seeding import generator

# --- The photon limit of a condition, as columns and arrays

LIMIT_SEED = 0  # of the random errors behind a photon limit; no result of the study
LIMIT_COLUMNS = (
    "photon_limit_phase_rad",
    "photon_limit_phase_uncertainty_rad",
    "ideal_limit_phase_rad",
    "shrinking_limit_phase_rad",
    "wiener_phase_rad",
    "photon_limit_amplitude",
    "phase_error_over_limit",
    "phase_error_over_wiener",
    "phase_error_over_shrinking",
    "amplitude_error_over_limit",
)
BOTH_LIMITS_COLUMNS = ("both_limits_phase_rad", "phase_error_over_both_limits")


def limit_of(
    measurement: Measurement,
    truth: Complex[np.ndarray, "oy ox"],
    crop: tuple[slice, slice],
    mask: Bool[np.ndarray, "y x"],
    design: StudyDesign,
) -> PhotonLimit | None:
    """Return the photon limit of the scored pixels, from a measurement as it is really lit.

    None if the true object is zero on one, if a mismatch leaves one in the dark, or if the design
    asks for no limit.
    """
    scored = np.zeros(truth.shape, dtype=bool)
    scored[crop] = mask
    if not truth[scored].all() or not design.metrics.photon_limit_solves:
        return None
    try:
        return photon_limit(
            object_=truth,
            probe=measurement.probe,
            positions_px=measurement.positions_px,
            scored=scored,
            crop=crop,
            seed=LIMIT_SEED,
            solves=design.metrics.photon_limit_solves,
            background=true_background(measurement, design),
            bad_pixels=measurement.bad_pixels,
        )
    except (StudyError, ValueError):
        if not design.mismatch.columns:
            raise
        return None


def true_background(
    measurement: Measurement, design: StudyDesign
) -> float | Float[np.ndarray, "n n"]:
    """Return the counts that do not come from the object: dark ones and a background."""
    dark = design.detector.dark_counts
    return dark if measurement.background is None else measurement.background + np.float32(dark)


def limit_row(limit: PhotonLimit | None, scores: Mapping[str, Any]) -> dict[str, float | None]:
    """Return the photon limits of a condition, and an arm's errors in units of them.

    Errors are roots of mean squares over the scored pixels, as the limits are.
    """
    if limit is None:
        return dict.fromkeys(LIMIT_COLUMNS)
    phase, amplitude = (math.sqrt(scores[name]) for name in ("phase_mse_rad2", "amplitude_mse"))
    values = (
        limit.phase_rms_rad,
        limit.phase_rms_error_rad,
        limit.ideal_phase_rms_rad,
        limit.shrinking_phase_rms_rad,
        limit.wiener_phase_rms_rad,
        limit.amplitude_rms,
        phase / limit.phase_rms_rad,
        phase / limit.wiener_phase_rms_rad,
        phase / limit.shrinking_phase_rms_rad,
        amplitude / limit.amplitude_rms,
    )
    return dict(zip(LIMIT_COLUMNS, values, strict=True))


def both_limits_row(
    limit: PhotonLimit | None, scores: Mapping[str, Any], photons_to_reference: float
) -> dict[str, float | None]:
    """Return the phase error to expect against a reference, of measured counts, and an arm's in it.

    Arm and reference are from photons of their own, so that their errors add in squares; both are
    taken to be at the photon limit, which falls with the root of the photons on the specimen.

    Parameters
    ----------
    limit
        Of the arm's photons.
    scores
        Of the arm against the reference.
    photons_to_reference
        Photons of the arm over those that made the reference, on the same part of the specimen.
    """
    if limit is None:
        return dict.fromkeys(BOTH_LIMITS_COLUMNS)
    both = limit.phase_rms_rad * math.sqrt(1 + photons_to_reference)
    values = both, math.sqrt(scores["phase_mse_rad2"]) / both
    return dict(zip(BOTH_LIMITS_COLUMNS, values, strict=True))


def limit_arrays(
    limit: PhotonLimit | None, crop: tuple[slice, slice], mask: Bool[np.ndarray, "y x"]
) -> dict[str, np.ndarray]:
    """Return the maps of the limit on the crop, and its curves; NaN and empty without one.

    ``photon_limit_frc`` lies on the rings of the FRC; the others on those up to the corner, whose
    frequencies, in fractions of Nyquist, are ``spectrum_frequency``.
    """
    names = (
        "photon_limit_phase_std_rad",
        "photon_limit_phase_std_uncertainty_rad",
        "photon_limit_amplitude_std",
    )
    curves = (
        "photon_limit_frc",
        "spectrum_frequency",
        "photon_limit_phase_spectrum_rad2",
        "true_phase_spectrum_rad2",
    )
    if limit is None:
        nowhere = np.full(mask.shape, np.nan, dtype=np.float32)
        known = {"spectrum_frequency": ring_frequencies(mask.shape, corners=True)}
        return dict.fromkeys(names, nowhere) | dict.fromkeys(curves, np.array([])) | known
    maps = (limit.phase_std_rad, limit.phase_std_uncertainty_rad, limit.amplitude_std)
    spectra = limit.spectra
    values_of_curves = (limit.frc_ceiling, spectra.frequency, spectra.noise, spectra.signal)
    on_crop = {
        name: values[crop].astype(np.float32) for name, values in zip(names, maps, strict=True)
    }
    return on_crop | dict(zip(curves, values_of_curves, strict=True))


# --- One comparison


def compare(condition: Condition) -> list[dict[str, Any]]:
    """Align and score every arm of a condition on the same pixels.

    Writes metrics, aligned objects with truth and mask, a figure and a record. An arm without a
    result has no row, and its reason is in ``missing_arms.json``.

    Parameters
    ----------
    condition
        One dose, view and split; training, reconstruction or both have been done.

    Returns
    -------
    list of dict
        One row an arm: condition, label, scores, cost; plain values.

    Raises
    ------
    InputError
        If a file of an earlier phase is missing or broken, or no arm has a result.
    StudyError
        If the arms did not see the same patterns.

    Examples
    --------
    >>> import study_lib as study
    >>> condition = run.condition(1e4, "dense")  # run: study.open_run of a finished run's folder
    >>> rows = study.compare(condition)
    >>> [row["arm"] for row in rows]
    ['pinn', 'thinning-net', 'solver']
    >>> {row["patterns"] for row in rows} == {len(condition.measurement().scan_index)}
    True

    The photon limit is one for all arms; their errors are given in units of it:

    >>> len({row["photon_limit_phase_rad"] for row in rows})
    1
    >>> all(row["phase_error_over_limit"] > 0 for row in rows)
    True
    """
    design, folder = condition.design, condition.folder("compare")
    work = work_of(
        condition,
        "compare",
        parameters={
            "view": condition.view.name,
            "split": condition.split,
            **design.metrics.model_dump(),
        },
        inputs=sorted({condition.file, condition.of("train").file}),
    )
    with recorded(work):
        measurement = condition.measurement()
        truth, metadata = load_object(condition.file)
        crop, mask = scored_pixels(measurement, design.metrics.illumination_threshold)
        made = view_record_of(metadata, str(condition.file))
        photons = photon_budget(measurement.amplitudes)["photons_per_pattern_measured"]
        row = {
            **({"source": design.source} if design.is_measured else {}),
            "dose": condition.dose,
            "dose_per": design.dose_per,
            "photons_measured": photons,
            "photons_per_object_pixel": _on_area(photons, measurement, metadata),
            "view": condition.view.name,
            **view_overlap(measurement, made, design),
            "chosen_by": None if made is None else condition.view.selection,
            "patterns_sha256": patterns_digest(measurement),
            "split": condition.split,
            "replicate": design.replicate,
            **design.mismatch.columns,
        }
        lit = truly_lit(measurement, metadata, design, condition.file)
        given = (measurement, lit, truth, crop, mask, metadata)
        found, arrays, missing = _score_arms(condition, *given, work)
        rows = [row | arm for arm in found]
        write_csv(folder / "metrics.csv", rows)
        write_json(folder / "metrics.json", rows)
        origin = [int(crop[0].start), int(crop[1].start)]
        write_npz(folder / "aligned.npz", arrays, {"origin_px": origin, **work.parameters})
        write_json(folder / MISSING_ARMS, missing)
        save_figure(comparison_figure(arrays, rows, design), folder / "comparison.png")
        work.outputs += [folder / name for name in COMPARED]
        work.results |= {
            "arms": rows,
            "missing_arms": missing,
            "metrics": metric_facts(design.held_against),
            "scored_pixels": int(mask.sum()),
            "origin_px": origin,
        }
    return rows


def _on_area(photons: float, measurement: Measurement, metadata: Mapping[str, Any]) -> float | None:
    """Return the photons of all patterns over the object pixels that the whole split lights.

    None where the file does not say how many those are.
    """
    lit_px = metadata.get("lit_object_px")
    return photons * len(measurement.scan_index) / lit_px if lit_px else None


def _score_arms(
    condition: Condition,
    measurement: Measurement,
    lit: Measurement,
    truth: np.ndarray,
    crop: tuple[slice, slice],
    mask: np.ndarray,
    metadata: Mapping[str, Any],
    work: Work,
) -> tuple[list[dict[str, Any]], dict[str, np.ndarray], dict[str, str]]:
    """Return a row for each arm, the crop of every object and map, and why arms are missing.

    ``lit`` is the measurement with the true positions and probe, which no arm is given. Of measured
    counts ``truth`` is the reference, and judged is by counts that neither it nor an arm has.
    """
    design = condition.design
    limit = limit_of(lit, truth, crop, mask, design)
    arrays = {design.held_against: truth[crop], "mask": mask, **limit_arrays(limit, crop, mask)}
    judged: Callable[[ArmResult], dict[str, Any]]
    photons_to_reference = None
    if design.is_measured:
        reference = reference_of(condition)
        work.add_inputs(reference.files)
        if reference.second_object is not None:
            _, second = condition.score_on(reference.second_object, truth, crop, mask)
            arrays[SECOND_REFERENCE] = second
        judged = _judged_by_measured(condition, measurement, metadata, reference, crop, mask)
        photons_to_reference = _photons_to_reference(condition, measurement, metadata)
    else:
        fresh = fresh_counts(condition, lit, truth)

        def judged(result: ArmResult) -> dict[str, Any]:
            return {"held_out_excess_nats": fresh.excess_nats(result.object_)}

    rows: list[dict[str, Any]] = []
    missing: dict[str, str] = {}
    registered = arms_of(design)
    for step, (name, arm) in enumerate(registered.items(), start=1):
        try:
            result = arm(condition, measurement, work.sha256_of_input)
        except MissingResultError as error:
            missing[name] = str(error)
            continue
        require_same_patterns(result, measurement)
        scores, aligned = condition.score_on(result.object_, truth, crop, mask)
        std_rad, row_of_spread = own_error_bar(result, aligned, truth[crop], crop, mask)
        rows.append(
            {
                "arm": name,
                "label": result.label,
                "knows": result.knows,
                "patterns": len(result.scan_index),
                **scores,
                "cpu_s": result.cpu_s,
                "training_cpu_s": result.training_cpu_s,
                "refused_training_cpu_s": 0.0,
                "learned_parameters": result.learned_parameters,
                "grouping": result.grouping,
                "fallback": "",
                "fallback_reason": "",
                **judged(result),
                **row_of_spread,
                **limit_row(limit, scores),
            }
        )
        if photons_to_reference is not None:
            rows[-1] |= both_limits_row(limit, scores, photons_to_reference)
        if result.fallback:
            rows[-1] |= as_fallback(rows[-1], result.fallback, result.fallback_reason)
        arrays |= {f"{name}{STD}": std_rad} if std_rad is not None else {}
        arrays[name] = aligned
        work.add_inputs(result.sources)
        work.report_device(result.device)
        work.progress("compare", step, len(registered))
    if not rows:
        raise InputError("no arm has a result: " + "; ".join(missing.values()))
    return rows, arrays, missing


def _photons_to_reference(
    condition: Condition, measurement: Measurement, metadata: Mapping[str, Any]
) -> float:
    """Return the photons of a view over those of the reference at all positions of its split."""
    with open_npz(condition.whole_file) as archive:
        (positions,) = archive.members["xcoords"].shape
    kept = len(measurement.scan_index) / positions
    return share_of(metadata, condition.file) * kept / SHARES["reference"]


def _judged_by_measured(
    condition: Condition,
    measurement: Measurement,
    metadata: Mapping[str, Any],
    reference: Reference,
    crop: tuple[slice, slice],
    mask: np.ndarray,
) -> Callable[[ArmResult], dict[str, Any]]:
    """Return what gives an arm's columns by the judge's counts, and against the other reference.

    These are left out where there is no other.
    """
    counts = HeldOutCounts(condition, measurement, share_of(metadata, condition.file), reference)

    def judged(result: ArmResult) -> dict[str, Any]:
        found = counts.scores(result.object_, result.probe)
        if reference.second_object is None:
            return found
        scores, _ = condition.score_on(result.object_, reference.second_object, crop, mask)
        return found | {
            f"{name}_second_reference": scores[name] for name in ("phase_ssim", "phase_psnr_db")
        }

    return judged


def own_error_bar(
    result: ArmResult,
    aligned: np.ndarray,
    truth: np.ndarray,
    crop: tuple[slice, slice],
    mask: np.ndarray,
) -> tuple[np.ndarray | None, dict[str, float | None]]:
    """Return an arm's own estimate of its phase error on the crop, and how well it holds.

    ``aligned`` and ``truth`` are crops (y, x). The numbers are the root mean square of the estimate
    over the scored pixels, and the shares of these whose true error is at most one, and at most
    two, estimates: .68 and .95 if errors are normal. All None for an arm without an estimate.
    """
    columns = ("phase_std_rad", "phase_within_1_std", "phase_within_2_std")
    if result.phase_std_rad is None:
        return None, dict.fromkeys(columns)
    spread: np.ndarray = np.where(mask, result.phase_std_rad[crop], 0).astype(np.float32)
    errors = np.abs(np.angle(aligned * truth.conj()))[mask]
    values = (
        float(np.sqrt((spread[mask].astype(float) ** 2).mean())),
        *(float((errors <= factor * spread[mask]).mean()) for factor in (1, 2)),
    )
    return spread, dict(zip(columns, values, strict=True))


def fresh_counts(condition: Condition, measurement: Measurement, truth: np.ndarray) -> FreshCounts:
    """Return counts of the condition's positions that no arm has seen: a second draw.

    ``measurement`` has the true positions and probe.
    """
    design = condition.design
    seed, dose = design.noise_seeds.simulation, dose_key(condition.dose)
    return FreshCounts(
        truth=truth,
        probe=measurement.probe,
        positions_px=measurement.positions_px,
        random=generator(seed, "held out", dose, condition.split),
        background=true_background(measurement, design),
        bad_pixels=measurement.bad_pixels,
    )


def comparison_figure(
    arrays: Mapping[str, np.ndarray], rows: list[dict[str, Any]], design: StudyDesign
) -> Figure:
    """Return the picture of one condition, from what is in its ``aligned.npz``."""
    name = held_against(arrays)
    truth, mask = arrays[name], arrays["mask"]
    objects = {row["label"]: arrays[row["arm"]] for row in rows}
    rings = {label: ring_correlation(object_, truth, mask) for label, object_ in objects.items()}
    first = rows[0]
    return condition_figure(
        truth,
        objects,
        mask,
        rings,
        threshold=design.metrics.frc_threshold,
        ceiling=arrays["photon_limit_frc"],
        title=f"{first['view']}, {first['split']} split, {first['dose']:g} {unit_of(rows)}, "
        + ", ".join(filter(None, [f"replicate {first['replicate']}", mismatch_title(first)])),
        void=[row["label"] for row in rows if row["registration"] != "ok"],
        held_against=name,
    )


def view_overlap(
    measurement: Measurement, made: ViewRecord | None, design: StudyDesign
) -> dict[str, float | None]:
    """Return the overlap (metric 2) of the patterns that the arms used, and its target.

    ``overlap_linear`` is the same as a share of the diameter.

    With the neighbours and the probe diameter that the file was chosen with, which need not be
    those of the design; those of the design if nothing was left out.
    """
    if made:
        neighbor_count, diameter_px = made.neighbor_count, made.probe_diameter_px
    else:
        neighbor_count = design.neighbor_count
        diameter_px = probe_diameter_px(measurement.probe, design.probe_power_share)
    overlap = image_overlap(measurement.positions_px, neighbor_count, diameter_px)
    return {
        "overlap": overlap,
        "overlap_linear": linear_overlap(overlap),
        "overlap_target": made.target_overlap if made else None,
    }


def require_same_patterns(result: ArmResult, measurement: Measurement) -> None:
    """Check that an arm used exactly the patterns of the view.

    Raises
    ------
    StudyError
        If it used others.
    """
    if np.array_equal(result.scan_index, measurement.scan_index):
        return
    differing = np.setxor1d(result.scan_index, measurement.scan_index)
    raise StudyError(
        f"{result.label} was made from {len(result.scan_index)} patterns, the view has "
        f"{len(measurement.scan_index)}; {len(differing)} differ; "
        "run `study reconstruct` and the trainings of this view again"
    )
