"""Phase E, the network that thinned counts teach: from the view's file to bundle and record."""

import json
from collections.abc import Collection
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import numpy as np

from study_lib.arm_names import THINNING_NET_LABEL
from study_lib.data.contract import load_object
from study_lib.data.datasets import load_measurement
from study_lib.design.models import StudyDesign, ThinnedDesign
from study_lib.errors import InputError
from study_lib.files import sha256_of, write_csv, write_json
from study_lib.networks.checkpoints import CHECKPOINTS, remove_checkpoints
from study_lib.networks.thinned.ensemble import (
    ENSEMBLE,
    ThinnedEnsemble,
    reconstruct_thinned,
    save_ensemble,
)
from study_lib.networks.thinned.training import DEVICE, ThinnedRecord, train_thinned
from study_lib.phases.conditions import (
    SkippedView,
    TrainingJob,
    build_training_jobs,
    thinned_folder,
)
from study_lib.phases.records import Work, logged, printed_output_kept, recorded, somebody_watches
from study_lib.phases.train import MANIFEST
from study_lib.scores.scoring import scored_pixels, scores_of

CHOICE = "thinned.json"
HISTORY = "history.csv"
LINES_PRINTED = 20
KEPT_SCORES = ("phase_ssim", "phase_ms_ssim", "phase_psnr_db", "registration")


def build_thinned_jobs(
    design: StudyDesign,
    *,
    phase_c_root: Path,
    phase_d_root: Path,
    artifact_root: Path,
    doses: Collection[float] | None = None,
    views: Collection[str] | None = None,
    allow_missing_phase_d: bool = False,
) -> tuple[list[TrainingJob], list[SkippedView]]:
    """Return what is to be trained; as :func:`build_training_jobs`, each in its own folder.

    Raises
    ------
    InputError
        If the design has no such network, or a file is missing that may not be.
    """
    thinned_design_of(design)
    jobs, skipped = build_training_jobs(
        design,
        phase_c_root=phase_c_root,
        phase_d_root=phase_d_root,
        artifact_root=artifact_root,
        doses=doses,
        views=views,
        allow_missing_phase_d=allow_missing_phase_d,
    )
    own = [
        replace(job, artifact_dir=thinned_folder(artifact_root, job.dose, job.view)) for job in jobs
    ]
    return own, skipped


def thinned_design_of(design: StudyDesign) -> ThinnedDesign:
    """Return the numbers behind the network.

    Raises
    ------
    InputError
        If the design has none.
    """
    if design.thinned is None:
        raise InputError(
            "thinned is null in this design, so it has no thinning network; set its fields as in "
            "parameters/presets/laptop.yaml"
        )
    return design.thinned


def run_thinned_job(
    job: TrainingJob, *, design: StudyDesign, artifact_root: Path, dry_run: bool = False
) -> dict[str, Any]:
    """Train, or go on training; write bundle, choices, history, log and record.

    Parameters
    ----------
    job
        From :func:`build_thinned_jobs`.
    design
        Gives knobs and seed.
    artifact_root
        Holds the manifest.
    dry_run
        Whether to return what would be done and write nothing.

    Raises
    ------
    InputError
        If a file is broken or holds too few patterns.
    StudyError
        If the loss is no longer a number.
    """
    thinned = thinned_design_of(design)
    seed = design.noise_seeds.training
    plan = {
        "dose": job.dose,
        "view": job.view,
        "design": design.digest,
        "seed": seed,
        **thinned.model_dump(mode="json"),
    }
    if dry_run:
        return plan | {"dry_run": True}
    folder = job.artifact_dir
    work = Work(
        manifest=artifact_root / MANIFEST,
        key=folder.relative_to(artifact_root).as_posix(),
        folder=folder,
        parameters=plan,
        seeds={"training": seed},
        inputs=[job.train_data_path, job.test_data_path],
    )
    label = f"dose={job.dose:g} view={job.view} {THINNING_NET_LABEL}"
    with recorded(work), printed_output_kept(folder), logged(job.log_path, label) as log:
        work.report_device(str(DEVICE))
        log.line(f"{label} train={job.train_data_path.name}")
        log.line(f"configuration {json.dumps(plan, sort_keys=True)}")

        def report_progress(what: str, done: int, total: int, loss: float) -> None:
            values = {"loss": loss} if np.isfinite(loss) else {}
            work.progress(what, done, total, **values)
            text = f"{what} {done}/{total}"
            if values:
                text += f" loss {loss:.5f} of the base's"
            if somebody_watches() or done % max(1, total // LINES_PRINTED) == 0:
                log.show_step(text, done, total, "step")

        ensemble, records = train_thinned(
            load_measurement(job.train_data_path),
            thinned,
            seed=seed,
            checkpoints=folder / CHECKPOINTS,
            progress=report_progress,
            warn=log.warn,
        )
        ensemble = replace(ensemble, measurement_sha256=work.sha256_of_input(job.train_data_path))
        save_ensemble(folder / ENSEMBLE, ensemble)
        write_csv(folder / HISTORY, [asdict(one) for one in records])
        work.results |= _results(ensemble, records, job, design) | {
            "bundle_sha256": sha256_of(folder / ENSEMBLE)
        }
        write_json(folder / CHOICE, work.results)
        work.outputs += [*(folder / name for name in (ENSEMBLE, CHOICE, HISTORY)), job.log_path]
        log.line(f"done: {json.dumps(work.results['trust'], sort_keys=True)}")
    remove_checkpoints(folder / CHECKPOINTS)
    return work.results


def train_thinned_view(
    design: StudyDesign,
    dose: float,
    view_name: str,
    *,
    phase_c_root: Path,
    phase_d_root: Path,
    artifact_root: Path,
) -> dict[str, Any]:
    """Train on one view as the design says; what the notebook calls.

    Raises
    ------
    InputError
        If dose, view or network are not in the design, or a file is missing or broken.
    """
    design.require_dose(dose)
    jobs, _ = build_thinned_jobs(
        design,
        phase_c_root=phase_c_root,
        phase_d_root=phase_d_root,
        artifact_root=artifact_root,
        doses=[dose],
        views=[design.view(view_name).name],
    )
    return run_thinned_job(jobs[0], design=design, artifact_root=artifact_root)


def _results(
    ensemble: ThinnedEnsemble,
    records: list[ThinnedRecord],
    job: TrainingJob,
    design: StudyDesign,
) -> dict[str, Any]:
    """Return what the record keeps: choices with their evidence, trust, cost, and the test half."""
    trust, metrics = ensemble.trust, design.metrics
    test = load_measurement(job.test_data_path)
    truth, _ = load_object(job.test_data_path)
    crop, mask = scored_pixels(test, metrics.illumination_threshold)
    found = reconstruct_thinned(ensemble, test)

    def scores(object_: np.ndarray) -> dict[str, Any]:
        values, _ = scores_of(
            object_,
            truth,
            crop,
            mask,
            registration_limit_px=metrics.registration_limit_px,
            frc_threshold=metrics.frc_threshold,
        )
        return {name: values[name] for name in KEPT_SCORES}

    return {
        "members": len(ensemble.members),
        "parameters": sum(weight.numel() for weight in ensemble.members[0].parameters()),
        "choices": ensemble.choices.record(),
        "base": ensemble.choices.base,
        "smoothing": asdict(ensemble.smoothing),
        "trust": asdict(trust) | {"given": trust.given},
        "validation_gain_nats": trust.gain_nats,
        "final_loss": records[-1].loss,
        "training_cpu_s": ensemble.training_cpu_s,
        "test": {"base": scores(found.base), "object": scores(found.object_)},
    }
