"""Phase E: one training job from its files to its record, for command line and notebook alike."""

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from study_lib.data.archive import metadata_of, open_npz
from study_lib.data.datasets import load_measurement
from study_lib.design.models import StudyDesign
from study_lib.errors import InputError
from study_lib.files import manifest_jobs
from study_lib.networks.checkpoints import CHECKPOINTS, remove_checkpoints
from study_lib.networks.pinn.bundle import EpochRecord
from study_lib.networks.pinn.config import ANY_MACHINE, Machine, training_config
from study_lib.overlap.views import ViewRecord, view_record_of
from study_lib.phases.backends import (
    Backend,
    NativeBackend,
    PtychoPinnBackend,
    TrainingRequest,
    TrainingResult,
)
from study_lib.phases.conditions import TrainingJob, build_training_jobs
from study_lib.phases.records import Work, logged, printed_output_kept, recorded

MANIFEST = "training_manifest.json"
BACKENDS: dict[str, Backend] = {"native": NativeBackend(), "ptychopinn": PtychoPinnBackend()}
Runner = Callable[[TrainingRequest, Backend, Any], TrainingResult]


def execute_training_job(
    request: TrainingRequest, backend: Backend, settings: Any
) -> TrainingResult:
    """Validate and load the files of a job and train for real: the runner of CLI and notebook.

    Parameters
    ----------
    request
        Job, configuration, design, and what is called after every epoch.
    backend
        Who trains.
    settings
        The configuration as the backend has it, from its bridge.

    Raises
    ------
    InputError
        If a file breaks the data contract, or does not fit the configuration.
    """
    train, test = (
        load_measurement(path) for path in (request.job.train_data_path, request.job.test_data_path)
    )
    return backend.train(settings, request, train, test)


def run_training_job(
    job: TrainingJob,
    *,
    design: StudyDesign,
    artifact_root: Path,
    backend: str = "native",
    machine: Machine = ANY_MACHINE,
    runner: Runner | None = None,
    dry_run: bool = False,
) -> dict[str, Any]:
    """Run one job: folder, log, record, the bridge exactly once (CONFIG-001), then the runner.

    Parameters
    ----------
    job
        From :func:`build_training_jobs`.
    design
        Gives the training its knobs and seeds.
    artifact_root
        Holds the manifest, to which this job's record is added whether it succeeds or not.
    backend
        A name in ``BACKENDS``.
    machine
        Device, threads, compilation.
    runner
        Trains; default: :func:`execute_training_job`.
    dry_run
        Whether to return what would be done, and write and configure nothing.

    Raises
    ------
    InputError
        If the backend does not exist or its package is missing, or a file is broken.
    """
    if backend not in BACKENDS:
        raise InputError(f"backend {backend!r}: choose one of {', '.join(sorted(BACKENDS))}")
    config = training_config(
        design, job.view, machine, view_record=_view_record(job.train_data_path)
    )
    plan = {
        "dose": job.dose,
        "view": job.view,
        "gridsize": job.gridsize,
        "backend": backend,
        "design": design.digest,
        **config.model_dump(mode="json"),
    }
    if dry_run:
        return plan | {"dry_run": True}
    chosen = BACKENDS[backend]
    kept = ("train.log", "stdout.log", "stderr.log")
    work = Work(
        manifest=artifact_root / MANIFEST,
        key=job.artifact_dir.relative_to(artifact_root).as_posix(),
        folder=job.artifact_dir,
        parameters=plan,
        seeds={"training": config.seed},
        inputs=[job.train_data_path, job.test_data_path],
    )
    with (
        recorded(work),
        printed_output_kept(job.artifact_dir),
        logged(job.log_path, job.label) as log,
    ):
        log.line(f"{job.label} backend={backend} train={job.train_data_path.name}")
        log.line(f"configuration {json.dumps(plan, sort_keys=True)}")

        def epoch(done: EpochRecord, epochs: int) -> None:
            work.progress("train", done.epoch, epochs, loss=done.train)
            text = (
                f"epoch {done.epoch}/{epochs} {config.loss} loss per pixel {done.train:.6f}, "
                f"validation {done.validation:.6f}, learning rate {done.learning_rate:g}, "
                f"{done.patterns_per_s:.1f} patterns/s"
            )
            log.show_step(text, done.epoch, epochs, "epoch")

        train_sha256 = work.sha256_of_input(job.train_data_path)
        request = TrainingRequest(
            job, config, design, train_sha256, epoch, log.warn, work.report_device
        )
        with chosen.bridged(config, job) as settings:
            result = (runner or execute_training_job)(request, chosen, settings)
        work.results |= result.values
        work.outputs += [*result.files, *(job.artifact_dir / name for name in kept)]
        log.line(f"done: {json.dumps(result.values, sort_keys=True)}")
    remove_checkpoints(job.artifact_dir / CHECKPOINTS)
    return work.results


def _view_record(path: Path) -> ViewRecord | None:
    with open_npz(path) as archive:
        return view_record_of(metadata_of(archive), str(path))


def train_view(
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
        If dose or view are not in the design, or a file of the view is missing or broken.
    """
    design.require_dose(dose)
    jobs, _ = build_training_jobs(
        design,
        phase_c_root=phase_c_root,
        phase_d_root=phase_d_root,
        artifact_root=artifact_root,
        doses=[dose],
        views=[design.view(view_name).name],
    )
    return run_training_job(jobs[0], design=design, artifact_root=artifact_root)


# --- Whether trainings end as well as they did: final losses of two manifests


@dataclass(frozen=True)
class LossChange:
    """One training in two manifests; passed if it is at most a share worse than the reference."""

    job: str
    reference: float
    candidate: float
    passed: bool

    def __str__(self) -> str:
        """Return the change in one line."""
        change = self.candidate / self.reference - 1
        verdict = "ok" if self.passed else "WORSE"
        return (
            f"{self.job}: final loss {self.reference:.6f} -> {self.candidate:.6f} "
            f"({change:+.1%}) {verdict}"
        )


def compare_losses(
    reference: Path,
    candidate: Path,
    *,
    tolerance: float,
    dose: float | None = None,
    view: str | None = None,
    gridsize: int | None = None,
) -> list[LossChange]:
    """Return how the final loss of every training that both manifests hold has changed.

    Parameters
    ----------
    reference, candidate
        Two files ``training_manifest.json``.
    tolerance
        The candidate may be worse by this share of the reference.
    dose, view, gridsize
        Only these trainings; default: all.

    Raises
    ------
    InputError
        If a manifest is missing, broken or incomplete, the tolerance is negative, a training of the
        reference that was asked for is missing or failed in the candidate, or none matches.
    """
    if not tolerance >= 0:
        raise InputError(f"tolerance {tolerance:g}: it must be 0 or more; 0.25 allows 25 %")
    wanted = {"dose": dose, "view": view, "gridsize": gridsize}
    before, after = (
        _losses(path, {name: value for name, value in wanted.items() if value is not None})
        for path in (reference, candidate)
    )
    if not before:
        raise InputError(
            f"{reference}: no finished training matches {wanted}; it holds "
            f"{', '.join(sorted(_losses(reference, {}))) or 'none'}"
        )
    missing = sorted(before.keys() - after.keys())
    if missing:
        raise InputError(f"{candidate}: no finished training {', '.join(missing)}; train it first")
    return [
        LossChange(job, loss, after[job], after[job] <= loss * (1 + tolerance))
        for job, loss in sorted(before.items())
    ]


def _losses(manifest: Path, wanted: Mapping[str, Any]) -> dict[str, float]:
    losses = {}
    for key, job in manifest_jobs(manifest).items():
        try:
            chosen = [job["parameters"].get(name) == value for name, value in wanted.items()]
            if job["status"] == "done" and all(chosen):
                losses[key] = float(job["results"]["final_loss"])
        except (KeyError, TypeError, ValueError, AttributeError):
            raise InputError(
                f"{manifest}: {key}: its record lacks status, parameters or final loss; train it "
                "again with `study train`, or remove it from the manifest"
            ) from None
    return losses
