"""Training as a command, and whether it still trains as well as before."""

import json
from functools import partial
from pathlib import Path
from typing import Annotated

import typer

from study_lib.cli.cli_batch import run_labelled, tell_skipped
from study_lib.cli.cli_options import ArtifactRoot, Dose, DryRun, Gridsize, PhaseC, PhaseD, View
from study_lib.errors import StudyError


def train(
    phase_c_root: PhaseC,
    phase_d_root: PhaseD,
    artifact_root: ArtifactRoot,
    dose: Dose = None,
    view: View = None,
    gridsize: Gridsize = None,
    backend: Annotated[
        str, typer.Option(help="native, or ptychopinn if that package is installed.")
    ] = "native",
    device: Annotated[str, typer.Option(help="auto, cpu, cuda or cuda:1.")] = "auto",
    threads: Annotated[int | None, typer.Option(help="Default: as torch chooses.")] = None,
    compiled: Annotated[
        bool, typer.Option("--compile", help="Let torch.compile translate the network first.")
    ] = False,
    dry_run: DryRun = False,
) -> None:
    """Train the network on the train split of each dose and view (phase E).

    A view whose files are missing is skipped and told in skip_summary.json. A training that was
    interrupted is taken up where it stopped.
    """
    from study_lib.design.presets import chosen, design_of
    from study_lib.networks.pinn.config import machine_of
    from study_lib.phases.conditions import TrainingJob, build_training_jobs

    study = design_of(phase_c_root)
    machine = machine_of(device=device, threads=threads, compile=compiled)
    matching = chosen(study, dose=dose, view=view, gridsize=gridsize)
    jobs, skipped = build_training_jobs(
        study,
        phase_c_root=phase_c_root,
        phase_d_root=phase_d_root,
        artifact_root=artifact_root,
        doses=list(dict.fromkeys(entry["dose"] for entry in matching)),
        views=list(dict.fromkeys(entry["view"] for entry in matching)),
        allow_missing_phase_d=True,
    )
    tell_skipped(skipped, artifact_root, jobs_left=len(jobs), dry_run=dry_run)

    from study_lib.phases.train import run_training_job

    def run(job: TrainingJob) -> None:
        results = run_training_job(
            job,
            design=study,
            artifact_root=artifact_root,
            backend=backend,
            machine=machine,
            dry_run=dry_run,
        )
        if dry_run:
            print(json.dumps(results, sort_keys=True))
            return
        print(f"  bundle {results['bundle']}, {results['bundle_bytes']} bytes")
        print(f"  SHA-256 {results['bundle_sha256']}, final loss {results['final_loss']:.6f}")

    run_labelled({job.label: partial(run, job) for job in jobs}, dry_run=dry_run)


def train_thinned(
    phase_c_root: PhaseC,
    phase_d_root: PhaseD,
    artifact_root: ArtifactRoot,
    dose: Dose = None,
    view: View = None,
    gridsize: Gridsize = None,
    dry_run: DryRun = False,
) -> None:
    """Train pinn-thinned on the train split of each dose and view (phase E).

    It learns from photons that were kept from the solver, and improves the solver's object. A view
    whose files are missing is skipped and told in skip_summary.json. A training that was
    interrupted is taken up where it stopped.
    """
    from study_lib.design.presets import chosen, design_of
    from study_lib.phases.conditions import TrainingJob
    from study_lib.phases.train_thinned import build_thinned_jobs

    study = design_of(phase_c_root)
    matching = chosen(study, dose=dose, view=view, gridsize=gridsize)
    jobs, skipped = build_thinned_jobs(
        study,
        phase_c_root=phase_c_root,
        phase_d_root=phase_d_root,
        artifact_root=artifact_root,
        doses=list(dict.fromkeys(entry["dose"] for entry in matching)),
        views=list(dict.fromkeys(entry["view"] for entry in matching)),
        allow_missing_phase_d=True,
    )
    tell_skipped(skipped, artifact_root, jobs_left=len(jobs), dry_run=dry_run)

    from study_lib.phases.train_thinned import run_thinned_job

    def run(job: TrainingJob) -> None:
        found = run_thinned_job(job, design=study, artifact_root=artifact_root, dry_run=dry_run)
        if dry_run:
            print(json.dumps(found, sort_keys=True))
            return
        trust, scores = found["trust"], found["test"]
        print(
            f"  base {found['base']}; held-out counts likelier by {trust['gain_nats']:.3g} +- "
            f"{trust['standard_error_nats']:.2g} nats per pattern: "
            f"{'trusted' if trust['given'] else 'not trusted, the base is kept'}"
        )
        print(
            f"  test half, phase SSIM {scores['base']['phase_ssim']:.3f} (base) -> "
            f"{scores['object']['phase_ssim']:.3f}, {found['training_cpu_s']:.0f} CPU s"
        )

    run_labelled({f"{job.label} pinn-thinned": partial(run, job) for job in jobs}, dry_run=dry_run)


def check_loss(
    reference: Annotated[Path, typer.Option(help="training_manifest.json to hold against.")],
    candidate: Annotated[Path, typer.Option(help="training_manifest.json to check.")],
    dose: Dose = None,
    view: View = None,
    gridsize: Gridsize = None,
    tolerance: Annotated[
        float, typer.Option(help="How much worse is allowed, as a share of the reference.")
    ] = 0.25,
) -> None:
    """Compare the final losses of two sets of trainings; exit code 1 if one became worse."""
    from study_lib.phases.train import compare_losses

    changes = compare_losses(
        reference, candidate, dose=dose, view=view, gridsize=gridsize, tolerance=tolerance
    )
    for change in changes:
        print(change)
    worse = [change.job for change in changes if not change.passed]
    if worse:
        raise StudyError(
            f"{len(worse)} of {len(changes)} trainings are more than {tolerance:.0%} worse: "
            f"{', '.join(worse)}"
        )
