"""The phases of the study as commands, with the flags of the original study."""

import json
import math
import sys
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Annotated, Any

import typer

from study_lib.arm_names import THINNING_NET_LABEL
from study_lib.errors import InputError, StudyError
from study_lib.phases.conditions import SkippedView, write_skip_summary

# --- Many jobs: one that fails does not keep the others from running


def run_all(
    jobs: Sequence[Mapping[str, Any]], function: Callable[..., Any], *, dry_run: bool
) -> None:
    """Run every job; one that fails is reported and the others still run.

    Raises
    ------
    StudyError
        If a job failed; an InputError if no job could be done and every failure was one.
    """
    labels = [" ".join(f"{name}={value}" for name, value in job.items()) for job in jobs]
    if dry_run:
        print("\n".join(labels))
        return
    calls = [partial(function, **job) for job in jobs]
    run_labelled(dict(zip(labels, calls, strict=True)), dry_run=False)


def run_labelled(jobs: Mapping[str, Callable[[], Any]], *, dry_run: bool) -> None:
    """Run every job under its label; see :func:`run_all`. A dry run does not call them done.

    Raises
    ------
    StudyError
        If a job failed; an InputError if no job could be done and every failure was one.
    """
    failures: list[StudyError] = []
    for label, job in jobs.items():
        try:
            job()
        except StudyError as error:
            print(f"{label}: failed: {error}", file=sys.stderr)
            failures.append(error)
            continue
        except KeyboardInterrupt as stop:
            print(f"{label}: {stop or 'stopped'}", file=sys.stderr)
            raise
        if not dry_run:
            print(f"{label}: done", flush=True)
    if failures:
        message = f"{len(failures)} of {len(jobs)} jobs failed"
        if len(failures) == len(jobs) and all(isinstance(one, InputError) for one in failures):
            raise InputError(message)
        raise StudyError(message)


def report_skipped(
    skipped: Sequence[SkippedView], artifact_root: Path, *, jobs_left: int, dry_run: bool
) -> None:
    """Print which views are left out, and write it down unless nothing is to be written.

    A dry run has only plans on standard output and lists them on standard error.

    Raises
    ------
    InputError
        If no job is left.
    """
    for missing in skipped:
        print(
            f"skipped dose={missing.dose:g} view={missing.view}: {missing.reason}",
            file=sys.stderr if dry_run else sys.stdout,
        )
    if not dry_run:
        write_skip_summary(artifact_root, skipped)
    if not jobs_left:
        raise InputError("every view that was asked for is missing; run `study overlap` first")


# --- Options that several commands share

PhaseC = Annotated[Path, typer.Option(help="Folder that `study generate` wrote.")]
PhaseD = Annotated[Path, typer.Option(help="Folder that `study overlap` wrote.")]
PhaseE = Annotated[Path, typer.Option(help="Folder that `study train` wrote.")]
PhaseF = Annotated[Path, typer.Option(help="Folder that `study reconstruct` wrote.")]
ArtifactRoot = Annotated[Path, typer.Option(help="Where results and the manifest go.")]
Dose = Annotated[float | None, typer.Option(help="Only this dose; default: all.")]
View = Annotated[str | None, typer.Option(help="Only this view; default: all.")]
Gridsize = Annotated[int | None, typer.Option(help="Only views of this gridsize.")]
Split = Annotated[str | None, typer.Option(help="Only train or test; default: both.")]
Preset = Annotated[str, typer.Option(help="Preset or the path of a YAML file.")]
Settings = Annotated[list[str] | None, typer.Option("--set", help="name=value, repeatable.")]
DryRun = Annotated[bool, typer.Option("--dry-run", help="List the jobs; write nothing.")]

# --- Training


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

    A view whose files are missing is skipped and listed in skip_summary.json. A training that was
    interrupted is taken up where it stopped.
    """
    from study_lib.design.presets import design_of, filtered_jobs
    from study_lib.networks.pinn.config import machine_of
    from study_lib.phases.conditions import TrainingJob, build_training_jobs

    study = design_of(phase_c_root)
    machine = machine_of(device=device, threads=threads, compile=compiled)
    matching = filtered_jobs(study, dose=dose, view=view, gridsize=gridsize)
    jobs, skipped = build_training_jobs(
        study,
        phase_c_root=phase_c_root,
        phase_d_root=phase_d_root,
        artifact_root=artifact_root,
        doses=list(dict.fromkeys(entry["dose"] for entry in matching)),
        views=list(dict.fromkeys(entry["view"] for entry in matching)),
        allow_missing_phase_d=True,
    )
    report_skipped(skipped, artifact_root, jobs_left=len(jobs), dry_run=dry_run)

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
    """Train the thinning network on the train split of each dose and view (phase E).

    It learns from photons that were kept from the solver, and improves the solver's object. A view
    whose files are missing is skipped and listed in skip_summary.json. A training that was
    interrupted is taken up where it stopped.
    """
    from study_lib.design.presets import design_of, filtered_jobs
    from study_lib.phases.conditions import TrainingJob
    from study_lib.phases.train_thinned import build_thinned_jobs

    study = design_of(phase_c_root)
    matching = filtered_jobs(study, dose=dose, view=view, gridsize=gridsize)
    jobs, skipped = build_thinned_jobs(
        study,
        phase_c_root=phase_c_root,
        phase_d_root=phase_d_root,
        artifact_root=artifact_root,
        doses=list(dict.fromkeys(entry["dose"] for entry in matching)),
        views=list(dict.fromkeys(entry["view"] for entry in matching)),
        allow_missing_phase_d=True,
    )
    report_skipped(skipped, artifact_root, jobs_left=len(jobs), dry_run=dry_run)

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

    run_labelled(
        {f"{job.label} {THINNING_NET_LABEL}": partial(run, job) for job in jobs}, dry_run=dry_run
    )


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


# --- Iterative reconstruction


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
        typer.Option(help="Skip views without files and list them in skip_summary.json."),
    ] = True,
    dry_run: DryRun = False,
) -> None:
    """Reconstruct each dose, view and split iteratively from a uniform object (phase F).

    Every algorithm gets all patterns of the view, its positions and its probe, nothing else.
    """
    from study_lib.design.presets import design_of, filtered_jobs, parse_design
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
    matching = filtered_jobs(
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
    report_skipped(skipped, artifact_root, jobs_left=len(jobs), dry_run=dry_run)

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


# --- Each phase


def register(app: typer.Typer) -> None:
    """Add the phase commands to the application."""
    phases = (
        design,
        validate,
        generate,
        overlap,
        train,
        train_thinned,
        check_loss,
        reconstruct,
        compare,
        summarize,
    )
    for command in phases:
        app.command()(command)


def design(
    preset: Preset = "laptop",
    settings: Settings = None,
    base_npz: Annotated[Path | None, typer.Option(help="Base data; default: synthetic.")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print the design as JSON.")] = False,
    schema: Annotated[
        bool, typer.Option("--schema", help="Print the JSON schema of a design file and stop.")
    ] = False,
) -> None:
    """Show a design and what follows from it: jobs, overlaps, counts, cost (phase A)."""
    from study_lib.design.models import StudyDesign
    from study_lib.design.presets import load_design
    from study_lib.runs.plan import plan_jobs
    from study_lib.runs.run import base_data

    if schema:
        print(json.dumps(StudyDesign.model_json_schema(), indent=2, sort_keys=True))
        return
    study = load_design(preset, settings or (), base_data(base_npz) if base_npz else None)

    from study_lib.phases.scene import scene_of
    from study_lib.runs.forecast import check_network, derived_matrix, table_text

    check_network(study)
    derived = derived_matrix(study, scene_of(study, base_npz))
    if as_json:
        content = {
            "design": study.model_dump(mode="json"),
            "derived": derived,
            "jobs": [job.name for job in plan_jobs(study)],
        }
        print(json.dumps(content, indent=2, sort_keys=True))
        return
    print(table_text(derived))


def validate(
    file: Annotated[Path, typer.Argument(help="An NPZ file.")],
    base: Annotated[bool, typer.Option("--base", help="Check it as base data.")] = False,
    strict: Annotated[
        bool,
        typer.Option("--strict", help="Notes count as violations: the contract to the letter."),
    ] = False,
    other: Annotated[
        Path | None, typer.Option(help="The other split: no pattern and no object row is shared.")
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print the report as JSON.")] = False,
) -> None:
    """Check a file against the data contract DATA-001 and list every violation (phase B).

    Without --strict, what can be converted exactly or loses nothing is only noted.
    """
    from study_lib.data.contract import ContractReport, validate_file, validate_splits

    report = validate_file(file, base=base)
    if other and not report.serious:
        report = ContractReport(report.violations + validate_splits(file, other).violations)
    if as_json:
        print(json.dumps(report.as_dict(), indent=2, sort_keys=True))
    counted = report.violations if strict else report.serious
    if not as_json and not strict:
        for entry in report.violations:
            if not entry.serious:
                print(f"{file}: note: {entry}", file=sys.stderr)
    if counted:
        raise InputError("\n".join(f"{file}: {entry}" for entry in counted))
    if not as_json:
        print(f"{file}: holds DATA-001")


def generate(
    output_root: Annotated[Path, typer.Option(help="Where dose folders and the manifest go.")],
    base_npz: Annotated[Path | None, typer.Option(help="Base data; default: synthetic.")] = None,
    dose: Dose = None,
    preset: Preset = "laptop",
    settings: Settings = None,
    dry_run: DryRun = False,
) -> None:
    """Simulate the patterns of every dose and split them (phase C)."""
    from study_lib.design.presets import filtered_jobs, load_design
    from study_lib.phases.dataset import generate_dose
    from study_lib.phases.scene import scene_of
    from study_lib.runs.forecast import check_feasible
    from study_lib.runs.run import base_data

    base = base_data(base_npz) if base_npz else None
    study = load_design(preset, settings or (), base)
    check_feasible(study, scene_of(study, base_npz))
    run_all(
        filtered_jobs(study, dose=dose, axes=("dose",)),
        lambda dose: generate_dose(study, dose, output_root, base_npz),
        dry_run=dry_run,
    )


def overlap(
    phase_c_root: PhaseC,
    output_root: Annotated[Path, typer.Option(help="Where the view files go.")],
    artifact_root: ArtifactRoot,
    dose: Dose = None,
    view: View = None,
    gridsize: Gridsize = None,
    s_img: Annotated[
        float | None, typer.Option(help="Share of positions to keep, instead of the target.")
    ] = None,
    n_groups: Annotated[int | None, typer.Option(help="Groups; default: one a pattern.")] = None,
    neighbor_count: Annotated[
        int | None, typer.Option(help="K nearest neighbours; default: the design's.")
    ] = None,
    probe_diameter_px: Annotated[
        float | None, typer.Option(help="Default: measured on the probe.")
    ] = None,
    rng_seed_subsample: Annotated[
        int | None, typer.Option(help="Seed of the choice; default: the design's.")
    ] = None,
    dry_run: DryRun = False,
) -> None:
    """Choose the patterns of each view, group them and measure their overlap (phase D).

    Without flags the design's views are made: positions are left out until the overlap of each
    pattern with its K nearest comes to the view's target.
    """
    from study_lib.design.presets import design_of, filtered_jobs, overlap_design
    from study_lib.overlap.views import overlap_sentence

    if probe_diameter_px is not None and not 0 < probe_diameter_px < math.inf:
        raise InputError(
            f"--probe-diameter-px {probe_diameter_px:g}: it must be above zero and finite"
        )
    study = design_of(phase_c_root)
    jobs = filtered_jobs(study, dose=dose, view=view, gridsize=gridsize)
    study = overlap_design(
        study,
        views={job["view"] for job in jobs},
        s_img=s_img,
        n_groups=n_groups,
        neighbor_count=neighbor_count,
        subsampling_seed=rng_seed_subsample,
    )

    def run(dose: float, view: str) -> None:
        from study_lib.phases.overlap import write_view

        measured = write_view(
            study,
            dose,
            view,
            phase_c_root=phase_c_root,
            output_root=output_root,
            artifact_root=artifact_root,
            diameter_px=probe_diameter_px,
        )
        for split, metrics in measured.items():
            print(f"  {overlap_sentence(split, metrics)}")

    run_all(jobs, run, dry_run=dry_run)


def compare(
    phase_c_root: PhaseC,
    phase_d_root: PhaseD,
    phase_e_root: PhaseE,
    phase_f_root: PhaseF,
    artifact_root: ArtifactRoot,
    dose: Dose = None,
    view: View = None,
    split: Split = None,
    dry_run: DryRun = False,
) -> None:
    """Align every arm with the truth and score it on one mask (phase G)."""
    from study_lib.design.presets import design_of, filtered_jobs
    from study_lib.phases.compare import compare_view

    study = design_of(phase_c_root)
    run_all(
        filtered_jobs(study, dose=dose, view=view, split=split, axes=("dose", "view", "split")),
        lambda dose, view, split: compare_view(
            study,
            dose,
            view,
            split,
            phase_c_root=phase_c_root,
            phase_d_root=phase_d_root,
            phase_e_root=phase_e_root,
            phase_f_root=phase_f_root,
            artifact_root=artifact_root,
        ),
        dry_run=dry_run,
    )


def summarize(
    phase_g_root: Annotated[Path, typer.Option(help="Folder that `study compare` wrote.")],
    artifact_root: ArtifactRoot,
) -> None:
    """Gather every comparison into one table and one figure per dose (phase H)."""
    from study_lib.phases.summary import write_summary

    write_summary(phase_g_root, artifact_root)
    print(artifact_root / "summary.md")
