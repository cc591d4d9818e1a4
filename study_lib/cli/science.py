"""The command of the test bed: every specimen, every arm, and what one gains over the others."""

from pathlib import Path
from typing import Annotated

import typer

from study_lib.cli.runs import CORES, Cores, Reports
from study_lib.cli.runs import run as run_study
from study_lib.errors import InputError

ARM = "thinning-net"


def register(app: typer.Typer) -> None:
    """Add the command to the command line."""
    app.command()(science)


def science(
    specimens: Annotated[
        list[str] | None,
        typer.Argument(help="Which; default: those of development, grains and cells."),
    ] = None,
    kept_back: Annotated[
        bool,
        typer.Option(
            "--kept-back",
            help="The three specimens kept back instead: once, when all choices have been made.",
        ),
    ] = False,
    star: Annotated[
        Path | None,
        typer.Option(help="Base data whose object is the specimen measured_star, simulated."),
    ] = None,
    arm: Annotated[str, typer.Option(help="The arm that is held against all others.")] = ARM,
    replicates: Annotated[
        int | None, typer.Option(help="Seeds; default: 3, and 5 of specimens kept back.")
    ] = None,
    preset: Annotated[str, typer.Option(help="Preset, or path of a YAML file.")] = "science",
    settings: Annotated[
        list[str] | None, typer.Option("--set", help="Change one value of every design.")
    ] = None,
    reports: Reports = Path("reports"),
    cores: Cores = CORES,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", "-n", help="Say what would run, and how long.")
    ] = False,
) -> None:
    """Run the test bed: a study of each specimen, then the paired gains of one arm over all others.

    Takes hours, and goes on where it stopped, on any day: what a run below reports/ has done is not
    done again. Tables go to reports/science, with the executed notebook science_summary. Example:

    study science grains --set 'doses=[1e4]' --replicates 2
    """
    from study_lib.design import test_bed

    chosen = tuple(specimens or test_bed.specimens_of(kept_back=kept_back))
    test_bed.require_specimens(chosen)
    for name in chosen:
        if test_bed.SPECIMENS[name].from_file and star is None:
            raise InputError(
                f"specimen {name} is the object of a measurement: give --star star.npz, which "
                "`study example star` and `study import` make, or name other specimens"
            )
    folders: dict[str, Path] = {}
    for name in chosen:
        specimen = test_bed.SPECIMENS[name]
        changes = [*specimen.settings, *(settings or ())]
        count = replicates or specimen.replicates
        print(f"specimen {name}: {count} seeds", flush=True)
        folders[name] = _run_one(
            preset, star if specimen.from_file else None, changes, count, reports, cores, dry_run
        )
    if not dry_run:
        _summarise(folders, arm, reports)


def _run_one(
    preset: str,
    base_npz: Path | None,
    settings: list[str],
    replicates: int,
    reports: Path,
    cores: int,
    dry_run: bool,
) -> Path:
    """Run the study of one specimen and return its folder."""
    from study_lib.cli.designs import changes_of, feasible
    from study_lib.runs.run import run_name

    simulated = base_npz is not None
    changes = changes_of(settings, replicates=replicates, simulated=simulated)
    design, _ = feasible(preset, base_npz, *changes)
    run_study(
        preset=preset,
        base_npz=base_npz,
        simulated=simulated,
        settings=settings,
        replicates=replicates,
        reports=reports,
        cores=cores,
        dry_run=dry_run,
    )
    return reports / run_name(design)


def _summarise(folders: dict[str, Path], arm: str, reports: Path) -> None:
    """Write the tables and the notebook of the test bed, and print its sentences."""
    from study_lib.runs.notebook import SharedKernel, execute_notebook
    from study_lib.runs.science import FOLDER, read_science, write_science

    found = read_science(folders, arm=arm)
    folder = reports / FOLDER
    paths = write_science(found, folder)
    runs = {name: str(path.resolve()) for name, path in folders.items()}
    output = folder / "science_summary.ipynb"
    with SharedKernel() as kernel:
        execute_notebook(
            "science_summary",
            output,
            {"runs": runs, "arm": arm, "split": "test"},
            Path.cwd(),
            kernel,
        )
    for line in found.sentences():
        print(line)
    print(f"tables:   {', '.join(map(str, paths))}")
    print(f"notebook: {output}")
