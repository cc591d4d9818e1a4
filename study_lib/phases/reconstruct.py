"""Phase F: one iterative reconstruction from its file to its record, for command and notebook."""

import time
from pathlib import Path
from typing import Any

import numpy as np

from study_lib.arm_names import key_of
from study_lib.data.archive import read_npz
from study_lib.data.datasets import load_measurement
from study_lib.design.models import IterativeDesign, StudyDesign
from study_lib.errors import InputError, StudyError
from study_lib.files import read_json, write_json, write_npz
from study_lib.phases.conditions import (
    RECONSTRUCTIONS,
    RESULT,
    ReconstructionJob,
    build_reconstruction_jobs,
    knowledge_of,
    reconstruction_folder,
)
from study_lib.phases.records import (
    Work,
    logged,
    printed_output_kept,
    provenance,
    recorded,
    somebody_watches,
)
from study_lib.physics.measurement import Measurement, thinned
from study_lib.seeding import generator
from study_lib.solvers.algorithms import DEVICE, IterativeResult, run_algorithm
from study_lib.solvers.denoising import DenoiserChoice, LitPart, choose_denoiser

# --- The denoiser of an algorithm: chosen on the train split, applied to any

DENOISER = "denoiser.json"


def choose_denoiser_of(
    algorithm: str, measurement: Measurement, design: IterativeDesign, *, seed: int
) -> dict[str, Any]:
    """Return the denoiser that suits an algorithm's objects, as plain data, and what it cost.

    The algorithm runs again on a share of the photons; the others judge what denoising makes of it.

    Parameters
    ----------
    algorithm
        As for :func:`study_lib.solvers.algorithms.run_algorithm`.
    measurement
        Of the train split.
    design
        The algorithm's settings, and the share of photons.
    seed
        Of the algorithm, and of the choice of photons.
    """
    started = time.process_time()
    part, held_out = thinned(
        measurement, design.judged_share, generator(seed, "denoiser", algorithm)
    )
    object_ = run_algorithm(algorithm, part, design, seed=seed).object_
    choice = choose_denoiser(object_, LitPart.of(part), held_out)
    return choice.record() | {
        "algorithm": algorithm,
        "judged_share": design.judged_share,
        "choice_cpu_s": time.process_time() - started,
    }


def read_denoiser(path: Path) -> tuple[DenoiserChoice, dict[str, Any]]:
    """Return a choice and all that was written beside it.

    Raises
    ------
    InputError
        If the file is not such a choice.
    """
    content: dict[str, Any] = read_json(path)
    try:
        return DenoiserChoice.from_record(content), content
    except (KeyError, TypeError) as error:
        raise InputError(
            f"{path}: not the choice of a denoiser ({error}); run `study reconstruct --split train`"
        ) from None


# --- One reconstruction job

SUMMARY = "reconstructions.json"
FRAME = "object of the dataset file: pixel (0, 0) is its first, positions are patch centres in it"
LINES_PRINTED = 10


def run_reconstruction_job(
    job: ReconstructionJob,
    *,
    design: StudyDesign,
    artifact_root: Path,
    dry_run: bool = False,
) -> dict[str, Any]:
    """Reconstruct every pattern of one view and split; write result, log and record.

    Parameters
    ----------
    job
        From :func:`build_reconstruction_jobs`.
    design
        Gives the algorithm its settings and seed.
    artifact_root
        Holds the manifest, to which this job's record is added whether it succeeds or not.
    dry_run
        Whether to return what would be done and write nothing.

    Raises
    ------
    InputError
        If the file is broken or holds nothing to reconstruct.
    StudyError
        If pty-chi is absent, or the numbers do not stay finite.
    """
    seed = design.noise_seeds.iterative
    plan = {
        "dose": job.dose,
        "view": job.view,
        "split": job.split,
        "design": design.digest,
        **design.iterative.model_dump(mode="json", exclude={"algorithms", "denoised"}),
        "algorithm": job.algorithm,
    }
    if dry_run:
        return plan | {"dry_run": True}
    work = Work(
        manifest=artifact_root / RECONSTRUCTIONS,
        key=job.artifact_dir.relative_to(artifact_root).as_posix(),
        folder=job.artifact_dir,
        parameters=plan,
        seeds={"iterative": seed},
        inputs=[job.data_path],
    )
    with (
        recorded(work),
        printed_output_kept(job.artifact_dir),
        logged(job.log_path, job.label) as log,
    ):
        work.report_device(DEVICE)
        log.line(f"{job.label} data={job.data_path.name}")
        for name in (RESULT, DENOISER):  # never taken for this run's
            (job.artifact_dir / name).unlink(missing_ok=True)
        measurement = load_measurement(job.data_path)

        def epoch(done: int, epochs: int, loss: float) -> None:
            work.progress(job.algorithm, done, epochs, loss=loss)
            text = f"{job.algorithm} epoch {done}/{epochs} loss {loss:.6g}"
            if somebody_watches() or done % max(1, epochs // LINES_PRINTED) == 0:
                log.show_step(text, done, epochs, "epoch")
            else:
                log.line(text)

        found = run_algorithm(
            job.algorithm, measurement, design.iterative, seed=seed, progress=epoch
        )
        work.results |= _results(found, measurement, design) | {
            "measurement_sha256": work.sha256_of_input(job.data_path)
        }
        if job.split == "train" and design.iterative.denoised:
            log.line(f"{job.algorithm} again on a share of the photons, to choose its denoiser")
            choice = choose_denoiser_of(job.algorithm, measurement, design.iterative, seed=seed)
            choice |= {"measurement_sha256": work.results["measurement_sha256"]}
            write_json(job.artifact_dir / DENOISER, choice)
            work.outputs.append(job.artifact_dir / DENOISER)
            work.results["denoiser"] = {
                name: choice[name] for name in ("family", "strength", "choice_cpu_s")
            }
        _write(job, found, measurement, plan | work.results)
        work.outputs += [job.artifact_dir / RESULT, job.log_path]
        log.line(f"done: {found.stop}, final loss {float(found.losses[-1]):.6g}")
        for remark in found.remarks:
            log.line(f"doubtful: {remark}")
    return work.results


def reconstruct_view(
    design: StudyDesign,
    dose: float,
    view_name: str,
    split: str,
    *,
    phase_c_root: Path,
    phase_d_root: Path,
    artifact_root: Path,
) -> dict[str, dict[str, Any]]:
    """Run every algorithm of the design on one view and split; what the notebook calls.

    An algorithm that fails does not keep the others from running: its entry has ``failed``, the
    reason, and so has ``reconstructions.json`` beside the results.

    Raises
    ------
    InputError
        If dose or view are not in the design, or the view's file is missing.
    StudyError
        If every algorithm failed.
    """
    design.require_dose(dose)
    jobs, _ = build_reconstruction_jobs(
        design,
        phase_c_root=phase_c_root,
        phase_d_root=phase_d_root,
        artifact_root=artifact_root,
        doses=[dose],
        views=[design.view(view_name).name],
        splits=[split],
    )
    results: dict[str, dict[str, Any]] = {}
    for job in jobs:
        try:
            found = run_reconstruction_job(job, design=design, artifact_root=artifact_root)
        except StudyError as error:
            found = {"failed": str(error)}
        results[key_of(job.algorithm)] = {"algorithm": job.algorithm, **found}
    failures = [f"{arm}: {found['failed']}" for arm, found in results.items() if "failed" in found]
    if len(failures) == len(results):
        raise StudyError("; ".join(failures))
    write_json(reconstruction_folder(artifact_root, dose, view_name, split) / SUMMARY, results)
    return results


def found_in(folder: Path, results: dict[str, dict[str, Any]]) -> dict[str, dict[str, np.ndarray]]:
    """Return the arrays that each algorithm left, by its name; none for one that failed.

    Parameters
    ----------
    folder
        Of the dose, view and split.
    results
        What :func:`reconstruct_view` returned.
    """
    return {
        entry["algorithm"]: read_npz(folder / arm / RESULT)[0]
        for arm, entry in results.items()
        if "failed" not in entry
    }


def _results(
    found: IterativeResult, measurement: Measurement, design: StudyDesign
) -> dict[str, Any]:
    """Return what the record keeps of a result."""
    return {
        "patterns": len(measurement.scan_index),
        "epochs": len(found.losses),
        "first_loss": float(found.losses[0]),
        "final_loss": float(found.losses[-1]),
        "residual": float(found.residuals.mean()),
        "stop": found.stop,
        "knows": knowledge_of(design.iterative.probe),
        "remarks": list(found.remarks),
        "reconstruction_wall_s": float(found.wall_s[-1]),
        "reconstruction_cpu_s": found.cpu_s,
        "options": found.options,
    }


def _write(
    job: ReconstructionJob,
    found: IterativeResult,
    measurement: Measurement,
    metadata: dict[str, Any],
) -> None:
    arrays = {
        "object": found.object_,
        "probe": found.probe,
        "losses": found.losses,
        "wall_s": found.wall_s,
        "residuals": found.residuals,
        "positions_px": measurement.positions_px,
        "scan_index": measurement.scan_index,
    }
    stated = {"arm": key_of(job.algorithm), "frame": FRAME, "object_origin_px": [0, 0]}
    versions = provenance()["versions"]
    write_npz(job.artifact_dir / RESULT, arrays, {**stated, "versions": versions, **metadata})
