"""Phase F (04_reconstruct): iterative reconstructions of a condition, and their denoisers."""

import itertools
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, TypeVar

import numpy as np

from study_lib.arm_names import algorithm_of, key_of
from study_lib.data.archive import read_npz
from study_lib.design.axes import SPLITS
from study_lib.design.methods import IterativeDesign
from study_lib.design.models import StudyDesign
from study_lib.errors import InputError, StudyError
from study_lib.files import manifest_jobs, read_json, write_json, write_npz
from study_lib.overlap.views import view_of
from study_lib.phases.conditions import RECONSTRUCTED, Condition
from study_lib.phases.records import Computed, Work, computed_before, performed, provenance, work_of
from study_lib.phases.scene import Scene
from study_lib.physics.likelihood import likelihood_judge
from study_lib.physics.measurement import Measurement, split_photons
from study_lib.seeding import generator
from study_lib.solvers.algorithms import DEVICE, SOLVER, IterativeResult, run_algorithm
from study_lib.solvers.alternating import Alternation, choose_alternation
from study_lib.solvers.denoising import DenoiserChoice, LitPart, choose_denoiser
from study_lib.solvers.ptychi import background_for, one_mask_of

RESULT = "reconstruction.npz"
SHOWN_OF_CHOICE = (
    "family",
    "strength",
    "epochs",
    "last_family",
    "last_strength",
    "choice_cpu_s",
)
FRAME = "object of the dataset file: pixel (0, 0) is its first, positions are patch centres in it"
LINES_PRINTED = 10
Choice = TypeVar("Choice")
TAKEN = "taken_from_view"  # of the same patterns, in records


def result_of(condition: Condition, algorithm: str) -> Path:
    """Return the file of an algorithm's object."""
    return condition.folder("reconstruct") / key_of(algorithm) / RESULT


def chosen_by_train(condition: Condition, algorithm: str, name: str) -> Path:
    """Return the file of what the train split chose for an algorithm, ``DENOISER`` or another."""
    return condition.of("train").folder("reconstruct") / key_of(algorithm) / name


def why_missing(condition: Condition, algorithm: str) -> str:
    """Return what the record says of a result that is not there."""
    manifest = condition.manifest("reconstruct")
    folder = result_of(condition, algorithm).parent
    key = folder.relative_to(condition.root("reconstruct")).as_posix()
    record = manifest_jobs(manifest).get(key, {}) if manifest.is_file() else {}
    return str(record.get("error") or "it was not run; run `study reconstruct`")


# --- Whether all algorithms of a design model the data, before anything is computed


def check_algorithms(design: StudyDesign, scene: Scene, measurement: Measurement) -> None:
    """Refuse iterative algorithms that do not model the masks or the background of measured data.

    Asked of every view and split, whose masks are those of the positions that it keeps.

    Parameters
    ----------
    design
        Of measured counts.
    scene
        Its positions and splits.
    measurement
        All that was measured.

    Raises
    ------
    InputError
        If there is such an algorithm; it names view, split, and the algorithms that are left.
    """
    engines = [name for name in design.iterative.algorithms if algorithm_of(name) != SOLVER]
    bad, dark = measurement.bad_pixels, measurement.background
    if not engines or (dark is None and (bad is None or bad.ndim == 2)):
        return
    reasons: dict[str, str] = {}
    for view, split in itertools.product(design.views, SPLITS):
        kept = view_of(scene.positions_of(split), scene.probe, view, split, design).kept
        rows = np.flatnonzero(scene.splits[split])[kept]
        some = bad if bad is None or bad.ndim == 2 else bad[rows]
        for name in engines:
            try:
                mask, _ = one_mask_of(name, some)
                background_for(algorithm_of(name), dark, measurement.amplitudes[rows], mask)
            except InputError as error:
                reasons.setdefault(name, f"view {view.name}, {split} split: {error}")
    if not reasons:
        return
    left = [name for name in design.iterative.algorithms if name not in reasons] or ["solver"]
    raise InputError(
        f"iterative.algorithms: {'; '.join(reasons.values())}; give --set "
        f"'iterative.algorithms=[{', '.join(left)}]'"
    )


# --- What is chosen for an algorithm on the train split, and applied to any

DENOISER, ALTERNATION = "denoiser.json", "alternation.json"
PLAIN_NATS = "plain_held_out_nats"  # per pattern, under the object without what was chosen


def choices_of(
    algorithm: str,
    measurement: Measurement,
    design: IterativeDesign,
    *,
    seed: int,
    progress: Callable[[int, int], None] | None = None,
) -> dict[str, dict[str, Any]]:
    """Return the choices that suit an algorithm's objects, each as plain data with its cost.

    The algorithm runs again on a share of the photons; the others judge what denoising makes of it,
    and for the solver what steps and a denoiser in turn make of it. Each choice is charged with
    this run, too. An algorithm with its other noise model is judged by the same photons.

    Parameters
    ----------
    algorithm
        As for :func:`study_lib.solvers.algorithms.run_algorithm`.
    measurement
        Of the train split.
    design
        The algorithm's settings, the share of photons, and what is to be chosen.
    seed
        Of the algorithm, and of the choice of photons.
    progress
        Called with how many of the alternations have been tried, and of how many.

    Returns
    -------
    dict
        By the name of the file that each is written to.
    """
    wanted = {DENOISER: design.denoised, ALTERNATION: design.alternating and algorithm == SOLVER}
    if not any(wanted.values()):
        return {}
    started = time.process_time()
    part, held_out = split_photons(
        measurement, design.judged_share, generator(seed, "denoiser", algorithm_of(algorithm))
    )
    object_ = run_algorithm(algorithm, part, design, seed=seed).object_
    common_s = time.process_time() - started
    plain_nats = float(likelihood_judge(held_out)(object_).mean())
    choosers: dict[str, Callable[[], DenoiserChoice | Alternation]] = {
        DENOISER: lambda: choose_denoiser(object_, LitPart.of(part), held_out),
        ALTERNATION: lambda: choose_alternation(object_, part, held_out, progress),
    }
    found = {}
    for name in (name for name, is_wanted in wanted.items() if is_wanted):
        started = time.process_time()
        choice = choosers[name]().record()
        found[name] = choice | {
            "algorithm": algorithm,
            "judged_share": design.judged_share,
            PLAIN_NATS: plain_nats,
            "choice_cpu_s": common_s + time.process_time() - started,
        }
    return found


def read_denoiser(path: Path) -> tuple[DenoiserChoice, dict[str, Any]]:
    """Return a denoiser's choice and all that was written beside it.

    Raises
    ------
    InputError
        If the file is not such a choice.
    """
    return _read_choice(path, DenoiserChoice.from_record, "the choice of a denoiser")


def read_alternation(path: Path) -> tuple[Alternation, dict[str, Any]]:
    """Return an alternation's choice and all that was written beside it.

    Raises
    ------
    InputError
        If the file is not such a choice.
    """
    return _read_choice(path, Alternation.from_record, "the choice of an alternation")


def _read_choice(
    path: Path, from_record: Callable[[Mapping[str, Any]], Choice], what: str
) -> tuple[Choice, dict[str, Any]]:
    content: dict[str, Any] = read_json(path)
    try:
        float(content["choice_cpu_s"])  # the arm's cost
        return from_record(content), content
    except (KeyError, TypeError, ValueError) as error:
        raise InputError(
            f"{path}: not {what} ({error}); run `study reconstruct --split train`"
        ) from None


# --- One reconstruction, and all of a condition


def reconstruct_by(
    condition: Condition, algorithm: str, *, dry_run: bool = False
) -> dict[str, Any]:
    """Reconstruct the object of a condition by one algorithm, from all its patterns.

    Writes result, log and record.

    Parameters
    ----------
    condition
        Its design gives the algorithm settings and seed.
    algorithm
        One of the design's.
    dry_run
        Whether to return what would be done and write nothing.

    Raises
    ------
    InputError
        If the file is missing, broken or holds nothing to reconstruct.
    StudyError
        If pty-chi is absent, or the numbers do not stay finite.
    """
    condition.require_data()
    design = condition.design
    seed = design.noise_seeds.iterative
    work = work_of(
        condition,
        "reconstruct",
        arm=key_of(algorithm),
        parameters={
            "view": condition.view.name,
            "split": condition.split,
            **design.iterative.model_dump(
                mode="json", exclude={"algorithms", "denoised", "alternating"}
            ),
            "algorithm": algorithm,
        },
        seeds={"iterative": seed},
        inputs=[condition.file],
    )
    if dry_run:
        return work.parameters | {"dry_run": True}
    with performed(work, "reconstruct.log", f"{condition.label} algorithm={algorithm}"):
        work.report_device(DEVICE)
        for name in (RESULT, DENOISER, ALTERNATION):  # never taken for this run's
            (work.folder / name).unlink(missing_ok=True)
        made_from = {"measurement_sha256": work.sha256_of_input(condition.file)}
        earlier = computed_before(condition, "reconstruct", work.parameters, arm=key_of(algorithm))
        if earlier:
            _take(work, earlier, made_from)
            return work.results
        measurement = condition.measurement()

        def epoch(done: int, epochs: int, loss: float) -> None:
            text = f"{algorithm} epoch {done}/{epochs} loss {loss:.6g}"
            work.step(algorithm, done, epochs, text, "epoch", LINES_PRINTED, loss=loss)

        found = run_algorithm(algorithm, measurement, design.iterative, seed=seed, progress=epoch)
        work.results |= _results(found, measurement, design) | made_from
        if condition.split == "train" and design.iterative.chooses:
            work.log.line(f"{algorithm}: what held-out photons choose for it, if anything")

            def tried(done: int, total: int) -> None:
                text = f"{algorithm} alternating {done}/{total}"
                work.step(f"{algorithm} alternating", done, total, text, "choice", LINES_PRINTED)

            choices = choices_of(
                algorithm, measurement, design.iterative, seed=seed, progress=tried
            )
            for name, choice in choices.items():
                write_json(work.folder / name, choice | made_from)
                work.outputs.append(work.folder / name)
                work.results[name.removesuffix(".json")] = {
                    each: choice[each] for each in SHOWN_OF_CHOICE if each in choice
                }
        _write(work, found, measurement, key_of(algorithm))
        work.outputs.append(work.folder / RESULT)
        for remark in found.remarks:
            work.log.line(f"doubtful: {remark}")
    return work.results


def _take(work: Work, earlier: Computed, made_from: Mapping[str, str]) -> None:
    """Write the results of a view with the same patterns as those of this one."""
    own = {**made_from, TAKEN: earlier.view}
    work.log.line(f"the same patterns as view {earlier.view}: its results are taken")
    work.results |= earlier.results | own
    names = [name for name in (RESULT, DENOISER, ALTERNATION) if (earlier.folder / name).is_file()]
    work.add_inputs(earlier.folder / name for name in names)
    for name in names:
        path = work.folder / name
        if name != RESULT:
            write_json(path, read_json(earlier.folder / name) | own)
        else:
            arrays, metadata = read_npz(earlier.folder / name)
            write_npz(path, arrays, metadata | work.parameters | work.results)
        work.outputs.append(path)


def reconstruct(condition: Condition) -> dict[str, dict[str, Any]]:
    """Reconstruct a condition by every algorithm of the design.

    An algorithm that fails does not keep the others from running: its entry has ``failed``, the
    reason, and so has ``reconstructions.json`` beside the results.

    Parameters
    ----------
    condition
        One dose, view and split; its design gives the algorithms, their settings and seed.

    Returns
    -------
    dict
        What the record keeps of each result, by arm; plain values.

    Raises
    ------
    InputError
        If the condition's file is missing.
    StudyError
        If every algorithm failed.

    Examples
    --------
    >>> import study_lib as study
    >>> condition = run.condition(1e4, "dense")  # run: study.open_run of a finished run's folder
    >>> results = study.reconstruct(condition)  # doctest: +ELLIPSIS
    solver epoch 10/100 loss ...
    >>> list(results), results["solver"]["stop"]
    (['solver'], 'converged')
    >>> results["solver"]["final_loss"] < results["solver"]["first_loss"]
    True
    """
    condition.require_data()
    results: dict[str, dict[str, Any]] = {}
    for algorithm in condition.design.iterative.algorithms:
        try:
            found = reconstruct_by(condition, algorithm)
        except StudyError as error:
            found = {"failed": str(error)}
        results[key_of(algorithm)] = {"algorithm": algorithm, **found}
    failures = [f"{arm}: {found['failed']}" for arm, found in results.items() if "failed" in found]
    if len(failures) == len(results):
        raise StudyError("; ".join(failures))
    write_json(condition.folder("reconstruct") / RECONSTRUCTED, results)
    return results


def reconstructions_of(condition: Condition) -> dict[str, dict[str, np.ndarray]]:
    """Return the arrays that each algorithm left of a condition, by its name; none of a failed one.

    ``object`` (oy, ox), ``probe`` (n, n), ``losses`` and ``wall_s`` (epochs,), ``residuals``
    (scan,), ``positions_px`` (scan, 2), ``scan_index`` (scan,).
    """
    paths = {name: result_of(condition, name) for name in condition.design.iterative.algorithms}
    return {name: read_npz(path)[0] for name, path in paths.items() if path.is_file()}


def _results(
    found: IterativeResult, measurement: Measurement, design: StudyDesign
) -> dict[str, Any]:
    """Return what the record keeps of a result."""
    known = design.probe_known
    if design.iterative.probe == "refine":
        known = f"the {known}, refined" if design.is_measured else "a first probe, refined"
    places = "positions"
    if design.iterative.positions == "refine":
        places = "first positions, refined"
    return {
        "patterns": len(measurement.scan_index),
        "epochs": len(found.losses),
        "first_loss": float(found.losses[0]),
        "final_loss": float(found.losses[-1]),
        "residual": float(found.residuals.mean()),
        "stop": found.stop,
        "knows": f"{known}, {places}; uniform start",
        "remarks": list(found.remarks),
        "reconstruction_wall_s": float(found.wall_s[-1]),
        "reconstruction_cpu_s": found.cpu_s,
        "options": found.options,
    }


def _write(work: Work, found: IterativeResult, measurement: Measurement, arm: str) -> None:
    arrays = {
        "object": found.object_,
        "probe": found.probe,
        "losses": found.losses,
        "wall_s": found.wall_s,
        "residuals": found.residuals,
        "positions_px": found.positions_px,
        "scan_index": measurement.scan_index,
    }
    metadata = {
        "arm": arm,
        "frame": FRAME,
        "object_origin_px": [0, 0],
        "versions": provenance()["versions"],
        **work.parameters,
        **work.results,
    }
    write_npz(work.folder / RESULT, arrays, metadata)
