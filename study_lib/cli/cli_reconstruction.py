"""Iterative reconstruction as a command."""

import json
from functools import partial
from typing import Annotated, Any

import typer

from study_lib.cli.cli_batch import run_labelled, tell_skipped
from study_lib.cli.cli_options import (
    ArtifactRoot,
    Dose,
    DryRun,
    Gridsize,
    PhaseC,
    PhaseD,
    Split,
    View,
)
from study_lib.errors import InputError


def reconstruct(
    phase_c_root: PhaseC,
    phase_d_root: PhaseD,
    artifact_root: ArtifactRoot,
    dose: Dose = None,
    view: View = None,
    split: Split = None,
    gridsize: Gridsize = None,
    algorithm: Annotated[
        list[str] | None,
        typer.Option(
            help="solver, or LSQML, PIE, ePIE, rPIE, DM, RAAR, BH or autodiff of pty-chi; "
            "repeatable. Default: the design's."
        ),
    ] = None,
    num_epochs: Annotated[
        int | None, typer.Option(help="Of each algorithm; default: the design's.")
    ] = None,
    batch_size: Annotated[
        int | None, typer.Option(help="Patterns per update of pty-chi's; default: the design's.")
    ] = None,
    noise_model: Annotated[
        str | None, typer.Option(help="Of LSQML, gaussian or poisson; default: the design's.")
    ] = None,
    momentum: Annotated[
        float | None, typer.Option(help="Of LSQML, 0 for none; default: the design's.")
    ] = None,
    probe: Annotated[
        str | None,
        typer.Option(help="known, or refine for every algorithm; default: the design's."),
    ] = None,
    seed: Annotated[
        int | None, typer.Option(help="Order of batches; default: the design's.")
    ] = None,
    threads: Annotated[int | None, typer.Option(min=1, help="Default: as torch chooses.")] = None,
    allow_missing_phase_d: Annotated[
        bool,
        typer.Option(help="Skip views without files and tell them in skip_summary.json."),
    ] = True,
    dry_run: DryRun = False,
) -> None:
    """Reconstruct each dose, view and split iteratively from a uniform object (phase F).

    Every algorithm gets all patterns of the view, its positions and its probe, nothing else.
    """
    from study_lib.design.presets import chosen, design_of, parse_design
    from study_lib.phases.conditions import ReconstructionJob, build_reconstruction_jobs

    content = design_of(phase_c_root).model_dump(mode="json")
    asked = {
        "algorithms": algorithm,
        "epochs": num_epochs,
        "batch_size": batch_size,
        "noise_model": noise_model,
        "momentum": momentum,
        "probe": probe,
    }
    content["iterative"] |= {name: value for name, value in asked.items() if value is not None}
    if num_epochs is not None:
        content["iterative"]["solver"]["epochs"] = num_epochs
    if seed is not None:
        content["seeds"]["iterative"] = seed
    study = parse_design(content, "study reconstruct")
    algorithms = study.iterative.algorithms
    lsqml, of_ptychi = "LSQML" in algorithms, set(algorithms) != {"solver"}
    for flag, value, is_taken, takers in (
        ("--noise-model", noise_model, lsqml, "only LSQML takes it"),
        ("--momentum", momentum, lsqml, "only LSQML takes it"),
        ("--batch-size", batch_size, of_ptychi, "only those of pty-chi take it"),
    ):
        if value is not None and not is_taken:
            raise InputError(
                f"{flag} {value}: {takers}, and the algorithms are {', '.join(algorithms)}; "
                "add --algorithm LSQML or leave it out"
            )
    matching = chosen(
        study, dose=dose, view=view, gridsize=gridsize, split=split, axes=("dose", "view", "split")
    )
    doses, views, splits = (
        list(dict.fromkeys(entry[axis] for entry in matching)) for axis in ("dose", "view", "split")
    )
    jobs, skipped = build_reconstruction_jobs(
        study,
        phase_c_root=phase_c_root,
        phase_d_root=phase_d_root,
        artifact_root=artifact_root,
        doses=doses,
        views=views,
        splits=splits,
        allow_missing_phase_d=allow_missing_phase_d,
    )
    tell_skipped(skipped, artifact_root, jobs_left=len(jobs), dry_run=dry_run)

    from study_lib.phases.reconstruct import run_reconstruction_job

    def run(job: ReconstructionJob) -> None:
        import torch

        if threads is not None:
            torch.set_num_threads(threads)
        found: dict[str, Any] = run_reconstruction_job(
            job, design=study, artifact_root=artifact_root, dry_run=dry_run
        )
        if dry_run:
            print(json.dumps(found, sort_keys=True))
            return
        print(
            f"  {found['patterns']} patterns, {found['epochs']} epochs ({found['stop']}), loss "
            f"{found['first_loss']:.4g} -> {found['final_loss']:.4g}, half deviance per pixel "
            f"{found['residual']:.4g}, {found['reconstruction_cpu_s']:.1f} CPU s"
        )
        for remark in found["remarks"]:
            print(f"  doubtful: {remark}")

    run_labelled({job.label: partial(run, job) for job in jobs}, dry_run=dry_run)
