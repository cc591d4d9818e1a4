"""Phase C of measured counts (01_reference): who gets which photons, and the reference of all arms.

No truth is known of a measurement. A quarter of its photons, which no arm gets, makes an object and
a probe by two algorithms: the reference. Another quarter judges, without any reference.
"""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Complex, Float, Int, Shaped
from matplotlib.figure import Figure

from study_lib.data.archive import metadata_of, open_npz, read_npz
from study_lib.data.datasets import load_measurement
from study_lib.data.formats.acquisition import Acquisition
from study_lib.design.models import StudyDesign
from study_lib.errors import InputError
from study_lib.figures.results import condition_figure
from study_lib.files import write_json, write_npz
from study_lib.phases.blind import ALGORITHMS, Found, solve_blind
from study_lib.phases.conditions import REFERENCE, REFERENCE_FILES, Condition, claim_root
from study_lib.phases.import_fit import fit_of
from study_lib.phases.records import Work, performed
from study_lib.physics.likelihood import likelihood_judge
from study_lib.physics.measurement import Measurement, as_share, at_positions
from study_lib.physics.photons import (
    SHARES,
    WHOLE_SHARE_MIN,
    divided,
    noise_test,
    thinned,
    whole_share_of_roots,
)
from study_lib.scores.frc import ring_correlation
from study_lib.scores.scoring import scored_pixels, scores_of

OBJECTS, PHOTONS, RECORD = REFERENCE_FILES
AMPLITUDE_PERCENTILE = 99.5  # of the object, which is 1 in a reference
LINES_PRINTED = 5
SHARE = "share_of_photons"  # what the metadata of patterns call it: of all that were measured

# --- The reference of a draw


def make_reference(condition: Condition) -> dict[str, Any]:
    """Divide the measured photons, test their noise, and reconstruct the reference from its share.

    Writes ``photons.npz`` with the counts of each part, ``reference.npz`` with the objects and
    probes of both algorithms, and ``reference.json``. The one that explains the judge's counts
    better is *the* reference, the other is kept beside it.

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
        agree; plain values.

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
    ...     print(str(error).partition(": ")[2][:44])
    its counts are simulated, on an object that
    """
    design, folder = condition.design, condition.folder(REFERENCE)
    base_npz = _base_of(condition)
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
        found = {name: _solved(name, given, design, work) for name in ALGORITHMS}
        objects = {name: _settled(one, given, design) for name, one in found.items()}
        nats = {
            name: float(likelihood_judge(replace(judge, probe=probe))(object_).mean())
            for name, (object_, probe) in objects.items()
        }
        first, second = sorted(nats, key=lambda name: nats[name])
        between = _agreement(objects[second][0], objects[first][0], given, design)
        work.results |= {
            "source": base_npz.name,
            "draw": design.replicate,
            "patterns": len(measurement.positions_px),
            "photons_per_pattern": {
                "measured": _photons(measurement.counts),
                **{name: _photons(part) for name, part in parts.items()},
            },
            "noise": noise.record(),
            "first": first,
            "second": second,
            "chosen_by": "counts of the judge",
            "judge_nats_per_pattern": nats,
            "between_algorithms": between,
            "ends": {name: _end_of(one, given) for name, one in found.items()},
            "cpu_s": {name: one.cpu_s for name, one in found.items()},
            "options": {name: one.options for name, one in found.items()},
        }
        _write(folder, work, parts, objects[first], objects[second], given)
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


def _base_of(condition: Condition) -> Path:
    if not condition.design.is_measured:
        raise InputError(
            f"design {condition.design.digest}: its counts are simulated, on an object that is "
            "known; a reference is made of measured counts"
        )
    if condition.base_npz is None:
        raise InputError("source = measured: the counts are in the base data; give --base-npz")
    return condition.base_npz


def base_measurement(condition: Condition) -> Measurement:
    """Return what was measured: all photons of all positions of the base data.

    Raises
    ------
    InputError
        If the design is simulated, or the file is missing or breaks the contract.
    """
    return load_measurement(_base_of(condition))


def require_whole(path: Path, amplitudes: Float[np.ndarray, "scan n n"]) -> None:
    """Check that what was measured are photons: whole numbers.

    Raises
    ------
    InputError
        If more than 1 % are not.
    """
    share = whole_share_of_roots(amplitudes)
    if share < WHOLE_SHARE_MIN:
        raise InputError(
            f"{path}: {100 * share:.3g} % of its counts are whole numbers; at least "
            f"{100 * WHOLE_SHARE_MIN:g} % have to be: what is no number of photons cannot be "
            "divided photon by photon; import raw counts, before dark or gain are corrected, or "
            "choose --simulated"
        )


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


def _photons(counts: Float[np.ndarray, "scan n n"]) -> float:
    return float(counts.sum(dtype=np.float64)) / len(counts)


def _write(
    folder: Path,
    work: Work,
    parts: Mapping[str, Float[np.ndarray, "scan n n"]],
    first: tuple[np.ndarray, np.ndarray],
    second: tuple[np.ndarray, np.ndarray],
    given: Measurement,
) -> None:
    arrays = {
        "object": first[0],
        "probe": first[1],
        "second_object": second[0],
        "second_probe": second[1],
        "positions_px": given.positions_px,
    }
    names = {name: work.results[name] for name in ("source", "first", "second")}
    write_npz(folder / OBJECTS, arrays, {**names, SHARE: SHARES["reference"]})
    largest = max(float(part.max()) for part in parts.values())
    kind = np.uint16 if largest <= np.iinfo(np.uint16).max else np.uint32
    whole = {name: part.astype(kind) for name, part in parts.items()}
    write_npz(folder / PHOTONS, whole, {"draw": work.parameters["draw"], "shares": dict(SHARES)})
    write_json(folder / RECORD, work.results)
    work.outputs += [folder / name for name in REFERENCE_FILES]


@dataclass(frozen=True)
class Reference:
    """The reference of a draw: objects (oy, ox) of two algorithms, and the probe of the first.

    The probe is in roots of the photons of the reference's own share.
    """

    object_: Complex[np.ndarray, "oy ox"]
    probe: Complex[np.ndarray, "..."]
    second_object: Complex[np.ndarray, "oy ox"]
    first: str
    second: str
    files: tuple[Path, ...]


def reference_of(condition: Condition) -> Reference:
    """Return the reference of a condition's draw; it is made if it is not there.

    Raises
    ------
    InputError
        As :func:`make_reference`.
    """
    folder = condition.folder(REFERENCE)
    if not all((folder / name).is_file() for name in REFERENCE_FILES):
        make_reference(condition)
    arrays, metadata = read_npz(folder / OBJECTS)
    return Reference(
        arrays["object"],
        arrays["probe"],
        arrays["second_object"],
        str(metadata["first"]),
        str(metadata["second"]),
        (folder / OBJECTS, folder / PHOTONS),
    )


def reference_figure(condition: Condition) -> Figure:
    """Return the picture of a draw's reference beside the object of its other algorithm."""
    reference, limits = reference_of(condition), condition.design.metrics
    given = replace(base_measurement(condition), probe=reference.probe)
    crop, mask = scored_pixels(given, limits.illumination_threshold)
    scores, second = condition.score_on(reference.second_object, reference.object_, crop, mask)
    first = reference.object_[crop]
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


def counts_of_part(condition: Condition, part: str) -> Shaped[np.ndarray, "scan n n"]:
    """Return the whole counts of one of ``SHARES``, of every position of the base data."""
    path = condition.folder(REFERENCE) / PHOTONS
    return read_npz(path, only=[part])[0][part]


# --- The patterns of a dose


@dataclass(frozen=True)
class ThinnedPatterns:
    """Amplitudes (scan, n, n) of some positions at a dose, probe, and share of all photons."""

    amplitudes: Float[np.ndarray, "scan n n"]
    probe: Complex[np.ndarray, "..."]
    share: float


def patterns_at(
    condition: Condition,
    rows: Int[np.ndarray, " scan"],
    photons_per_pattern: float,
    reference: Reference,
) -> ThinnedPatterns:
    """Return the patterns of some positions with so many photons each, on average.

    They are a thinning of the arms' photons, and those of a lower dose are among those of a higher.

    Parameters
    ----------
    condition
        Its draw names the photons.
    rows
        Numbers of the positions in the base data.
    photons_per_pattern
        Mean over these positions.
    reference
        Whose probe is scaled to these photons.

    Raises
    ------
    InputError
        If the arms' photons are fewer.
    """
    arms = counts_of_part(condition, "arms")
    held = _photons(arms[rows].astype(np.float32))
    asked = photons_per_pattern / held
    if asked > 1 + HELD_TOLERANCE:
        raise InputError(too_many(photons_per_pattern, held, condition.design, condition.label))
    share = min(1.0, asked)
    seed, draw = condition.design.seeds.simulation, condition.design.replicate
    counts = thinned(arms, share, seed=seed, draw=draw)[rows]
    share *= SHARES["arms"]
    scale = np.sqrt(share / SHARES["reference"])
    return ThinnedPatterns(np.sqrt(counts), (reference.probe * scale).astype(np.complex64), share)


def share_of(metadata: Mapping[str, Any], path: Path) -> float:
    """Return which share of all measured photons the patterns of a file have.

    Raises
    ------
    InputError
        If its metadata do not say.
    """
    share = metadata.get(SHARE)
    if not isinstance(share, float) or not 0 < share <= 1:
        raise InputError(
            f"{path}: its metadata do not say which share of the measured photons it has; "
            "generate the data again"
        )
    return share


HELD_TOLERANCE = 0.01  # half of the photons are half only by chance


def too_many(asked: float, held: float, design: StudyDesign, where: str) -> str:
    """Return that a dose is more than the arms' share of the measured photons, and what is not."""
    name = design.base.name if design.base else "the base data"
    return (
        f"{where}: {asked:.4g} photons in a pattern; at most {held:.4g}, half of the "
        f"{held / SHARES['arms']:.4g} that {name} has: the other half makes the reference and "
        "judges; lower --doses"
    )


# --- Counts that judge: measured, and given to no arm and no reference


class HeldOutCounts:
    """The judge's counts at the positions of a view, and at those of its split that it left out.

    Parameters
    ----------
    condition
        One view and split.
    measurement
        Its patterns; the judge's are those of the same positions.
    share
        Of all photons, that these patterns have.
    reference
        What excess is counted from.
    """

    def __init__(
        self, condition: Condition, measurement: Measurement, share: float, reference: Reference
    ) -> None:
        counts = counts_of_part(condition, "judge")
        whole = load_measurement(condition.whole_file)
        with open_npz(condition.whole_file) as archive:
            of_whole = share_of(metadata_of(archive), condition.whole_file)
        is_kept = np.isin(whole.scan_index, measurement.scan_index)
        self._scale = np.sqrt(SHARES["judge"] / share)
        self._parts: dict[str, Measurement] = {}
        for name, chosen in (("", is_kept), (LEFT_OUT, ~is_kept)):
            if chosen.any():
                part = at_positions(whole, np.flatnonzero(chosen))
                some = counts[part.scan_index].astype(np.float32)
                weaker = as_share(part, some, SHARES["judge"] / of_whole)
                self._parts[name] = replace(weaker, probe=reference.probe)
        self._of_reference = self._nats(reference.object_, None)

    def scores(
        self,
        object_: Complex[np.ndarray, "oy ox"],
        probe: Complex[np.ndarray, "..."] | None = None,
    ) -> dict[str, float | None]:
        """Return by how many nats per pattern the counts are less likely than by the reference.

        Parameters
        ----------
        object_ : (oy, ox)
            As the arm gave it.
        probe
            The arm's own, in roots of the photons of its patterns; None: that of the reference.
        """
        found: dict[str, float | None] = dict.fromkeys(JUDGED_COLUMNS)
        for name, nats in self._nats(object_, probe).items():
            more = nats - self._of_reference[name]
            found[f"measured_excess{name}_nats"] = float(more.mean())
            if not name and len(more) > 1:
                error = float(more.std(ddof=1)) / len(more) ** 0.5
                found["measured_excess_error_nats"] = error
        return found

    def _nats(
        self, object_: Complex[np.ndarray, "oy ox"], probe: Complex[np.ndarray, "..."] | None
    ) -> dict[str, Float[np.ndarray, " scan"]]:
        found = {}
        for name, part in self._parts.items():
            lit = part
            if probe is not None:
                lit = replace(part, probe=(probe * self._scale).astype(part.probe.dtype))
            found[name] = likelihood_judge(lit)(object_.astype(np.complex64))
        return found


LEFT_OUT = "_left_out"
JUDGED_COLUMNS = (
    "measured_excess_nats",
    "measured_excess_error_nats",
    f"measured_excess{LEFT_OUT}_nats",
)
