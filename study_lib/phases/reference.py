"""Phase C of measured counts (01_reference): who gets which photons, and the reference of all arms.

No truth is known of a measurement. A quarter of its photons, which no arm gets, makes an object and
a probe by each of two algorithms: the better one is the reference. Another quarter judges, without
any reference.
"""

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Complex, Float
from matplotlib.figure import Figure

from study_lib.data.datasets import load_measurement
from study_lib.data.formats.acquisition import Acquisition
from study_lib.design.models import StudyDesign
from study_lib.figures.common import phases
from study_lib.figures.results import condition_figure
from study_lib.files import write_json, write_npz
from study_lib.phases.blind import Found, algorithms_for, solve_blind
from study_lib.phases.conditions import REFERENCE, REFERENCE_FILES, Condition, claim_root
from study_lib.phases.import_fit import fit_of
from study_lib.phases.measured import (
    OBJECTS,
    PHOTONS,
    RECORD,
    SHARE,
    base_measurement,
    base_of,
    mean_photons,
    reference_of,
    require_whole,
)
from study_lib.phases.records import Work, performed
from study_lib.physics.likelihood import likelihood_judge
from study_lib.physics.measurement import Measurement, as_share
from study_lib.physics.photons import (
    SHARES,
    divided,
    noise_test,
)
from study_lib.scores.frc import ring_correlation
from study_lib.scores.scoring import scored_pixels, scores_of

AMPLITUDE_PERCENTILE = 99.5  # of the object, which is 1 in a reference
LINES_PRINTED = 5

# --- The reference of a draw


def make_reference(condition: Condition) -> dict[str, Any]:
    """Divide the measured photons, test their noise, and reconstruct the reference from its share.

    Writes ``photons.npz`` with the counts of each part, ``reference.npz`` with the objects and
    probes of both algorithms, and ``reference.json``. The one that explains the judge's counts
    better is *the* reference, the other is kept beside it. An algorithm that does not model the
    masks of these data is left out: the other one's object is the reference, with none beside it.

    Both start from the probe of the base data and take its positions, masks and background as they
    are. Those were found, if not measured, from all photons: so much the reference has of the
    arms' and the judge's.

    Parameters
    ----------
    condition
        Of a design with measured counts; its dose, view and split do not matter.

    Returns
    -------
    dict
        Photons of each part, the test of the noise, algorithms, how they ended, and how far they
        agree; plain values. Where an algorithm was left out ``second`` is None, and
        ``between_algorithms`` has ``why_none`` alone.

    Raises
    ------
    InputError
        If the design is simulated, there is no base file, or its values are no whole counts.

    Examples
    --------
    >>> import study_lib as study
    >>> condition = run.condition(1e4)  # run: study.open_run of a finished run's folder
    >>> try:  # of measured counts it returns what the reference is made of
    ...     study.make_reference(condition)
    ... except study.InputError as error:
    ...     print(str(error).partition(": ")[2][:43])
    its counts are simulated, on an object that
    """
    design, folder = condition.design, condition.folder(REFERENCE)
    base_npz = base_of(condition)
    claim_root(condition.root("dataset"), design)
    work = Work(
        manifest=condition.manifest(REFERENCE),
        key=REFERENCE,
        folder=folder,
        parameters={
            "design": design.digest,
            "draw": design.replicate,
            "epochs": design.reference_epochs,
            "shares": dict(SHARES),
        },
        seeds={"photons": design.seeds.simulation, "iterative": design.noise_seeds.iterative},
        inputs=[base_npz],
    )
    with performed(work, "reference.log", f"reference of draw {design.replicate}"):
        measurement = load_measurement(base_npz)
        require_whole(base_npz, measurement.amplitudes)
        noise = noise_test(measurement.amplitudes, measurement.positions_px, measurement.bad_pixels)
        work.log.line(noise.sentence)
        parts = divided(measurement.counts, draw=design.replicate, seed=design.seeds.simulation)
        given = as_share(measurement, parts["reference"], SHARES["reference"])
        judge = as_share(measurement, parts["judge"], SHARES["judge"])
        root = np.float32(np.sqrt(SHARES["judge"] / SHARES["reference"]))
        able, reasons = algorithms_for(given.bad_pixels)
        for name, reason in reasons.items():
            work.log.line(f"reference by {name} is left out: {reason}")
        found = {name: _solved(name, given, design, work) for name in able}
        objects = {name: _settled(one, given, design) for name, one in found.items()}
        nats = {
            name: float(likelihood_judge(replace(judge, probe=root * probe))(object_).mean())
            for name, (object_, probe) in objects.items()
        }
        first, *others = sorted(nats, key=lambda name: nats[name])
        second = others[0] if others else None
        between: dict[str, Any] = {"why_none": "; ".join(reasons.values())}
        if second:
            between = _agreement(objects[second][0], objects[first][0], given, design)
        work.results |= {
            "source": base_npz.name,
            "draw": design.replicate,
            "patterns": len(measurement.positions_px),
            "photons_per_pattern": {
                "measured": mean_photons(measurement.counts),
                **{name: mean_photons(part) for name, part in parts.items()},
            },
            "noise": noise.record(),
            "first": first,
            "second": second,
            "chosen_by": "counts of the judge" if second else "the only algorithm for these masks",
            "judge_nats_per_pattern": nats,
            "between_algorithms": between,
            "ends": {name: _end_of(one, given) for name, one in found.items()},
            "cpu_s": {name: one.cpu_s for name, one in found.items()},
            "options": {name: one.options for name, one in found.items()},
        }
        _write(folder, work, parts, objects[first], objects[second] if second else None, given)
    return work.results


def _end_of(found: Found, given: Measurement) -> dict[str, Any]:
    """Return how an algorithm ended, and the R-factor of what it found beside that of noise."""
    acquisition = Acquisition(
        given.positions_px,
        given.amplitudes,
        bad_pixels=given.bad_pixels,
        background=given.background,
    )
    fit = fit_of(acquisition, found.probe, found.object_, given.positions_px)
    return {
        "stop": found.stop,
        "epochs": found.epochs,
        "remarks": list(found.remarks),
        "r_factor": fit.r_factor,
        "r_noise": fit.r_noise,
    }


def _solved(name: Any, given: Measurement, design: StudyDesign, work: Work) -> Found:
    def epoch(_: str, done: int, epochs: int, loss: float) -> None:
        text = f"reference by {name} epoch {done}/{epochs} loss {loss:.6g}"
        work.step(name, done, epochs, text, "epoch", LINES_PRINTED, loss=loss)

    seed = design.noise_seeds.iterative
    return solve_blind(given, name, design.reference_epochs, seed, epoch, name)


def _settled(
    found: Found, given: Measurement, design: StudyDesign
) -> tuple[Complex[np.ndarray, "oy ox"], Complex[np.ndarray, "..."]]:
    """Return object and probe whose scale and phase, which no pattern tells, are settled.

    The object has the mean phase zero and, where it is scored, an amplitude whose 99.5th percentile
    is 1; nothing else changes, and every pattern stays as it is.
    """
    crop, mask = scored_pixels(given, design.metrics.illumination_threshold)
    lit = found.object_[crop][mask]
    mean = lit.sum(dtype=np.complex128)
    factor = np.percentile(np.abs(lit), AMPLITUDE_PERCENTILE) * mean / np.abs(mean)
    return (
        (found.object_ / factor).astype(np.complex64),
        (found.probe * factor).astype(np.complex64),
    )


def _agreement(
    second: Complex[np.ndarray, "oy ox"],
    first: Complex[np.ndarray, "oy ox"],
    given: Measurement,
    design: StudyDesign,
) -> dict[str, Any]:
    """Return every score of the second object against the first, and their ring correlation."""
    limits = design.metrics
    crop, mask = scored_pixels(given, limits.illumination_threshold)
    scores, aligned = scores_of(
        second,
        first,
        crop,
        mask,
        registration_limit_px=limits.registration_limit_px,
        frc_threshold=limits.frc_threshold,
    )
    rings = ring_correlation(aligned, first[crop], mask)
    return scores | {
        "frequency": rings.frequency.tolist(),
        "correlation": rings.correlation.tolist(),
    }


def _write(
    folder: Path,
    work: Work,
    parts: Mapping[str, Float[np.ndarray, "scan n n"]],
    first: tuple[np.ndarray, np.ndarray],
    second: tuple[np.ndarray, np.ndarray] | None,
    given: Measurement,
) -> None:
    arrays = {"object": first[0], "probe": first[1]}
    if second:
        arrays |= {"second_object": second[0], "second_probe": second[1]}
    arrays["positions_px"] = given.positions_px
    names = {name: work.results[name] for name in ("source", "first", "second")}
    write_npz(folder / OBJECTS, arrays, {**names, SHARE: SHARES["reference"]})
    largest = max(float(part.max()) for part in parts.values())
    kind = np.uint16 if largest <= np.iinfo(np.uint16).max else np.uint32
    whole = {name: part.astype(kind) for name, part in parts.items()}
    write_npz(folder / PHOTONS, whole, {"draw": work.parameters["draw"], "shares": dict(SHARES)})
    write_json(folder / RECORD, work.results)
    work.outputs += [folder / name for name in REFERENCE_FILES]


def reference_figure(condition: Condition) -> Figure:
    """Return the picture of a draw's reference beside the object of its other algorithm, if any."""
    reference, limits = reference_of(condition), condition.design.metrics
    given = replace(base_measurement(condition), probe=reference.probe)
    crop, mask = scored_pixels(given, limits.illumination_threshold)
    first = reference.object_[crop]
    if reference.second is None or reference.second_object is None:
        return phases(
            {f"reference ({reference.first})": np.where(mask, first, np.nan)},
            title=f"reference of draw {condition.design.replicate}, by {reference.first} alone",
        )
    scores, second = condition.score_on(reference.second_object, reference.object_, crop, mask)
    return condition_figure(
        first,
        {reference.second: second},
        mask,
        {reference.second: ring_correlation(second, first, mask)},
        threshold=limits.frc_threshold,
        ceiling=np.array([]),
        title=f"reference of draw {condition.design.replicate}, by {reference.first}: phase SSIM "
        f"{scores['phase_ssim']:.3f} with that by {reference.second}",
        held_against=f"reference ({reference.first})",
    )
