"""The phases of the study as commands, with the flags of the original study."""

import json
import math
import sys
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from study_lib.arm_names import algorithm_of
from study_lib.cli.designs import (
    AcceptDoubtful,
    BaseNpz,
    Doses,
    Overlaps,
    Points,
    Preset,
    Settings,
    Simulated,
    Sobol,
    changes_of,
    feasible,
)
from study_lib.errors import InputError, StudyError

if TYPE_CHECKING:
    from study_lib.phases.conditions import Condition

# --- Many jobs: one that fails does not keep the others from running


Jobs = Mapping[str, Callable[[], Any]]


def run_all(
    jobs: Jobs, say: Callable[[Any], None] = lambda _: None, *, dry_run: bool = False
) -> None:
    """Run every job under its label; one that fails is reported and the others still run.

    ``say`` prints what a job returned. In a dry run that is a plan, which is printed as it is, and
    no job is reported as done.

    Raises
    ------
    StudyError
        If a job failed; an InputError if no job could be done and every failure was one.
    """
    failures: list[StudyError] = []
    for label, job in jobs.items():
        try:
            found = job()
        except StudyError as error:
            print(f"{label}: failed: {error}", file=sys.stderr)
            failures.append(error)
            continue
        except KeyboardInterrupt as stop:
            print(f"{label}: {stop or 'stopped'}", file=sys.stderr)
            raise
        if dry_run:
            print(json.dumps(found, sort_keys=True))
            continue
        say(found)
        print(f"{label}: done", flush=True)
    if failures:
        message = f"{len(failures)} of {len(jobs)} jobs failed"
        if len(failures) == len(jobs) and all(isinstance(one, InputError) for one in failures):
            raise InputError(message)
        raise StudyError(message)


def run_or_list(jobs: Jobs, *, dry_run: bool) -> None:
    """Run every job, see :func:`run_all`; a dry run lists their labels."""
    if dry_run:
        print("\n".join(jobs))
        return
    run_all(jobs)


def present(
    conditions: "list[Condition]",
    folder: Path,
    *,
    splits: Sequence[str] = (),
    allow_missing: bool = True,
    dry_run: bool,
) -> "list[Condition]":
    """Return the conditions whose files are there; print which views are left out, and record it.

    A dry run has only plans on standard output: it says so on standard error, and writes nothing.

    Raises
    ------
    InputError
        If none is left, or files are missing that may not be.
    """
    from study_lib.phases.conditions import with_data, write_skip_summary

    found, skipped = with_data(conditions, splits=splits, allow_missing=allow_missing)
    for missing in skipped:
        print(
            f"skipped dose={missing.dose:g} view={missing.view}: {missing.reason}",
            file=sys.stderr if dry_run else sys.stdout,
        )
    if not dry_run:
        write_skip_summary(folder, skipped)
    if not found:
        raise InputError("every view that was asked for is missing; run `study overlap` first")
    return found


# --- Options that several commands share

PhaseC = Annotated[Path, typer.Option(help="Folder that `study generate` wrote.")]
PhaseD = Annotated[Path, typer.Option(help="Folder that `study overlap` wrote.")]
PhaseE = Annotated[Path, typer.Option(help="Folder that `study train` wrote.")]
PhaseF = Annotated[Path, typer.Option(help="Folder that `study reconstruct` wrote.")]
ArtifactRoot = Annotated[Path, typer.Option(help="Where results and the manifest go.")]
Dose = Annotated[float | None, typer.Option(help="Only this dose of the design; default: all.")]
View = Annotated[str | None, typer.Option(help="Only this view; default: all.")]
Gridsize = Annotated[int | None, typer.Option(help="Only views of this gridsize.")]
Split = Annotated[str | None, typer.Option(help="Only train or test; default: both.")]
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
    from study_lib.design.presets import design_of
    from study_lib.networks.pinn.config import machine_of
    from study_lib.phases.conditions import GivenPlaces, conditions_of

    study = design_of(phase_c_root)
    machine = machine_of(device=device, threads=threads, compile=compiled)
    places = GivenPlaces(dataset=phase_c_root, views=phase_d_root, train=artifact_root)
    conditions = present(
        conditions_of(study, places, dose=dose, view=view, gridsize=gridsize),
        artifact_root,
        splits=("train", "test"),
        dry_run=dry_run,
    )

    from study_lib.phases import train as phase

    def say(found: Mapping[str, Any]) -> None:
        print(f"  bundle {found['bundle']}, {found['bundle_bytes']} bytes")
        print(f"  SHA-256 {found['bundle_sha256']}, final loss {found['final_loss']:.6f}")

    run = partial(phase.train, backend=backend, machine=machine, dry_run=dry_run)
    run_all({one.training_label: partial(run, one) for one in conditions}, say, dry_run=dry_run)


def train_thinned(
    phase_c_root: PhaseC,
    phase_d_root: PhaseD,
    artifact_root: ArtifactRoot,
    dose: Dose = None,
    view: View = None,
    split: Annotated[
        str | None,
        typer.Option(
            help="Whose counts teach: train, for the thinning network, or test, for the "
            "self-taught one. Default: train, and test where the design has thinned.self_taught."
        ),
    ] = None,
    gridsize: Gridsize = None,
    dry_run: DryRun = False,
) -> None:
    """Train the thinning network of each dose and view (phase E).

    It learns from photons that were kept from the solver, and improves the solver's object. A view
    whose files are missing is skipped and listed in skip_summary.json. A training that was
    interrupted is taken up where it stopped.
    """
    from study_lib.design.models import require_split
    from study_lib.design.presets import design_of
    from study_lib.phases.conditions import GivenPlaces, conditions_of

    study = design_of(phase_c_root)
    places = GivenPlaces(
        dataset=phase_c_root,
        views=phase_d_root,
        train_thinned=artifact_root,
        train_self_taught=artifact_root,
    )
    chosen = conditions_of(study, places, dose=dose, view=view, gridsize=gridsize)

    from study_lib.phases import train_thinned as phase

    taught_by = phase.thinned_design_of(study).taught_by
    if split is not None:
        taught_by = (require_split(split),)
    conditions = present(chosen, artifact_root, splits=("train", "test"), dry_run=dry_run)

    def say(found: Mapping[str, Any]) -> None:
        trust, scores = found["trust"], found["test"]
        print(
            f"  base {found['base']}; counts kept from the training likelier by "
            f"{trust['gain_nats']:.3g} +- {trust['standard_error_nats']:.2g} nats per pattern: "
            f"{'trusted' if trust['given'] else 'not trusted'} there"
        )
        print(
            f"  test half, phase SSIM {scores['base']['phase_ssim']:.3f} (base), "
            f"{scores['network']['phase_ssim']:.3f} (network), {found['training_cpu_s']:.0f} CPU s"
        )

    run = partial(phase.train_thinned, dry_run=dry_run)
    jobs = {
        f"{one.training_label} {phase.LABELS[teacher]}": partial(run, one, taught_by=teacher)
        for one in conditions
        for teacher in taught_by
    }
    run_all(jobs, say, dry_run=dry_run)


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
    from study_lib.design.presets import design_of, parse_design
    from study_lib.phases.conditions import GivenPlaces, conditions_of

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
    engines = set(map(algorithm_of, algorithms))
    lsqml, of_ptychi = "LSQML" in engines, engines != {"solver"}
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
    places = GivenPlaces(dataset=phase_c_root, views=phase_d_root, reconstruct=artifact_root)
    conditions = present(
        conditions_of(
            study, places, dose=dose, view=view, gridsize=gridsize, split=split, each_split=True
        ),
        artifact_root,
        allow_missing=allow_missing_phase_d,
        dry_run=dry_run,
    )

    from study_lib.phases.reconstruct import reconstruct_by

    if threads is not None:
        import torch

        torch.set_num_threads(threads)

    def say(found: Mapping[str, Any]) -> None:
        print(
            f"  {found['patterns']} patterns, {found['epochs']} epochs ({found['stop']}), loss "
            f"{found['first_loss']:.4g} -> {found['final_loss']:.4g}, half deviance per pixel "
            f"{found['residual']:.4g}, {found['reconstruction_cpu_s']:.1f} CPU s"
        )
        for remark in found["remarks"]:
            print(f"  doubtful: {remark}")

    jobs = {
        f"{one.label} algorithm={algorithm}": partial(
            reconstruct_by, one, algorithm, dry_run=dry_run
        )
        for one in conditions
        for algorithm in algorithms
    }
    run_all(jobs, say, dry_run=dry_run)


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
        reconstruct,
        compare,
        summarize,
    )
    for command in phases:
        app.command()(command)


def design(
    preset: Preset = "laptop",
    doses: Doses = None,
    overlaps: Overlaps = None,
    points: Points = None,
    sobol: Sobol = None,
    settings: Settings = None,
    base_npz: BaseNpz = None,
    simulated: Simulated = False,
    accept_doubtful: AcceptDoubtful = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print the design as JSON.")] = False,
    schema: Annotated[
        bool, typer.Option("--schema", help="Print the JSON schema of a design file and stop.")
    ] = False,
) -> None:
    """Show a design and what follows from it: jobs, overlaps, counts, cost (phase A)."""
    from study_lib.design.models import StudyDesign
    from study_lib.runs.plan import plan_jobs

    if schema:
        print(json.dumps(StudyDesign.model_json_schema(), indent=2, sort_keys=True))
        return
    from study_lib.runs.forecast import derived_matrix, table_text

    changes = changes_of(settings, doses, overlaps, points, sobol, simulated=simulated)
    study, scene = feasible(preset, base_npz, *changes, accept_doubtful=accept_doubtful)
    derived = derived_matrix(study, scene)
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
    from study_lib.data import contract

    report = contract.validate(file, base=base)
    if other and not report.serious:
        report = contract.ContractReport(
            report.violations + contract.validate_splits(file, other).violations
        )
    counted = report.violations if strict else report.serious
    if as_json:
        print(json.dumps(report.as_dict(), indent=2, sort_keys=True))
    elif not strict:
        for entry in report.violations:
            if not entry.serious:
                print(f"{file}: note: {entry}", file=sys.stderr)
    if counted:
        raise InputError("\n".join(f"{file}: {entry}" for entry in counted))
    if not as_json:
        print(f"{file}: holds DATA-001")


def generate(
    output_root: Annotated[Path, typer.Option(help="Where dose folders and the manifest go.")],
    base_npz: BaseNpz = None,
    simulated: Simulated = False,
    accept_doubtful: AcceptDoubtful = False,
    dose: Dose = None,
    preset: Preset = "laptop",
    settings: Settings = None,
    dry_run: DryRun = False,
) -> None:
    """Make the patterns of every dose and split them (phase C): simulated, or measured ones."""
    from study_lib.phases.conditions import GivenPlaces, condition_of
    from study_lib.phases.dataset import generate as simulate

    changes = changes_of(settings, simulated=simulated)
    study, _ = feasible(preset, base_npz, *changes, accept_doubtful=accept_doubtful)
    places = GivenPlaces(dataset=output_root)
    doses = study.doses if dose is None else (study.require_dose(dose),)
    conditions = [
        condition_of(study, places, one, study.views_at(one)[0].name, base_npz=base_npz)
        for one in doses
    ]
    jobs = {f"dose={one.dose}": partial(simulate, one) for one in conditions}
    if study.is_measured:
        from study_lib.phases.reference import make_reference

        jobs = {"reference": partial(make_reference, conditions[0]), **jobs}
    run_or_list(jobs, dry_run=dry_run)


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
    from study_lib.design.presets import design_of, overlap_design
    from study_lib.overlap.views import overlap_sentence
    from study_lib.phases.conditions import GivenPlaces, conditions_of

    if probe_diameter_px is not None and not 0 < probe_diameter_px < math.inf:
        raise InputError(
            f"--probe-diameter-px {probe_diameter_px:g}: it must be above zero and finite"
        )
    study = design_of(phase_c_root)
    places = GivenPlaces(dataset=phase_c_root, views=output_root, overlap=artifact_root)
    filters: dict[str, Any] = {"dose": dose, "view": view, "gridsize": gridsize}
    study = overlap_design(
        study,
        views={one.view.name for one in conditions_of(study, places, **filters)},
        s_img=s_img,
        n_groups=n_groups,
        neighbor_count=neighbor_count,
        subsampling_seed=rng_seed_subsample,
    )

    def run(condition: "Condition") -> None:
        from study_lib.phases.overlap import choose_view

        for split, metrics in choose_view(condition, probe_diameter_px).items():
            print(f"  {overlap_sentence(split, metrics)}")

    jobs = {
        f"dose={one.dose} view={one.view.name}": partial(run, one)
        for one in conditions_of(study, places, **filters)
    }
    run_or_list(jobs, dry_run=dry_run)


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
    from study_lib.design.presets import design_of
    from study_lib.phases.compare import compare as compare_arms
    from study_lib.phases.conditions import GivenPlaces, conditions_of

    places = GivenPlaces(
        dataset=phase_c_root,
        views=phase_d_root,
        train=phase_e_root,
        train_thinned=phase_e_root,
        train_self_taught=phase_e_root,
        reconstruct=phase_f_root,
        compare=artifact_root,
    )

    study = design_of(phase_c_root)
    conditions = conditions_of(study, places, dose=dose, view=view, split=split, each_split=True)
    jobs = {
        f"dose={one.dose} view={one.view.name} split={one.split}": partial(compare_arms, one)
        for one in conditions
        if split is not None or one.split in study.compared_splits
    }
    run_or_list(jobs, dry_run=dry_run)


def summarize(
    phase_g_root: Annotated[Path, typer.Option(help="Folder that `study compare` wrote.")],
    artifact_root: ArtifactRoot,
) -> None:
    """Gather every comparison into one table and one figure per dose (phase H)."""
    from study_lib.phases import summary
    from study_lib.phases.conditions import GivenPlaces

    summary.summarize(GivenPlaces(compare=phase_g_root, summary=artifact_root))
    print(artifact_root / "summary.md")
