"""The phases of the study as commands, with the flags of the original study."""

import json
import math
import sys
from pathlib import Path
from typing import Annotated

import typer

from study_lib.cli.cli_batch import batch
from study_lib.cli.cli_options import (
    ArtifactRoot,
    Dose,
    DryRun,
    Gridsize,
    PhaseC,
    PhaseD,
    PhaseE,
    PhaseF,
    Preset,
    Settings,
    Split,
    View,
)
from study_lib.cli.cli_reconstruction import reconstruct
from study_lib.cli.cli_training import check_loss, train, train_thinned
from study_lib.errors import InputError


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
    from study_lib.design.presets import chosen, load_design
    from study_lib.phases.dataset import generate_dose
    from study_lib.phases.scene import scene_of
    from study_lib.runs.forecast import check_feasible
    from study_lib.runs.run import base_data

    base = base_data(base_npz) if base_npz else None
    study = load_design(preset, settings or (), base)
    check_feasible(study, scene_of(study, base_npz))
    batch(
        chosen(study, dose=dose, axes=("dose",)),
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
    from study_lib.design.presets import chosen, design_of, overlap_design
    from study_lib.overlap.views import overlap_sentence

    if probe_diameter_px is not None and not 0 < probe_diameter_px < math.inf:
        raise InputError(
            f"--probe-diameter-px {probe_diameter_px:g}: it must be above zero and finite"
        )
    study = design_of(phase_c_root)
    jobs = chosen(study, dose=dose, view=view, gridsize=gridsize)
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

    batch(jobs, run, dry_run=dry_run)


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
    from study_lib.design.presets import chosen, design_of
    from study_lib.phases.compare import compare_view

    study = design_of(phase_c_root)
    batch(
        chosen(study, dose=dose, view=view, split=split, axes=("dose", "view", "split")),
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
