"""The command of the test bed: every specimen, every arm, and what one gains over the others."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from study_lib.arm_names import SELF_TAUGHT, THINNING_NET
from study_lib.cli.runs import CORES, Cores, Reports
from study_lib.cli.runs import run as run_study
from study_lib.design.test_bed import PRESET
from study_lib.errors import InputError

if TYPE_CHECKING:
    from study_lib.design.models import StudyDesign


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
            help="The three kept back instead, power_law, siemens_star and measured_star: once, "
            "when all choices have been made.",
        ),
    ] = False,
    star: Annotated[
        Path | None,
        typer.Option(help="Base data whose object is the specimen measured_star, simulated."),
    ] = None,
    arm: Annotated[
        str | None,
        typer.Option(
            help="The arm that is held against all others, like solver-alternating; default: "
            "self-taught, or thinning-net in a design without it."
        ),
    ] = None,
    replicates: Annotated[
        int | None, typer.Option(min=1, help="Seeds; default: 3, and 5 of specimens kept back.")
    ] = None,
    preset: Annotated[str, typer.Option(help="Preset, or path of a YAML file.")] = PRESET,
    settings: Annotated[
        list[str] | None, typer.Option("--set", help="Change one value of every design.")
    ] = None,
    add: Annotated[
        list[Path] | None,
        typer.Option(
            help="A folder of tables that this command wrote on another machine or day, whose "
            "seeds are added; repeat it.",
            exists=True,
            file_okay=False,
        ),
    ] = None,
    reports: Reports = Path("reports"),
    cores: Cores = CORES,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", "-n", help="Say what would run, and how long.")
    ] = False,
) -> None:
    """Run the test bed: a study of each specimen, then the paired gains of one arm over all others.

    Takes hours, and goes on where it stopped, on any day: what a run below reports/ has done is not
    done again. Tables go to a folder of their own below reports/, named for specimens and arm, with
    the executed notebook science_summary. Example:

    study science grains --set 'doses=[1e4]' --replicates 2

    Seeds may be spread over machines, each with its own: --set replicate=1 --replicates 1 is the
    second alone, and --add takes the tables of the others.
    """
    from study_lib.design import test_bed

    if specimens and kept_back:
        raise InputError("--kept-back is all specimens kept back; leave it out, or the names")
    chosen = tuple(dict.fromkeys(specimens or test_bed.specimens_of(kept_back=kept_back)))
    test_bed.require_specimens(chosen)
    from_file = [name for name in chosen if test_bed.SPECIMENS[name].from_file]
    if from_file and star is None:
        raise InputError(
            f"specimen {from_file[0]} is the object of a measurement: give --star star.npz, which "
            "`study example star` and `study import` make, or name other specimens"
        )
    if star is not None and not from_file:
        raise InputError(f"--star {star}: no specimen takes it; add measured_star or leave it out")
    for setting in settings or ():
        if setting.startswith(("specimen", "replicates", "source")):
            raise InputError(
                f"--set {setting}: the test bed sets it; name specimens or --replicates"
            )
    designs = {
        name: _Planned(
            preset,
            star if test_bed.SPECIMENS[name].from_file else None,
            [*test_bed.SPECIMENS[name].settings, *(settings or ())],
            replicates or test_bed.SPECIMENS[name].replicates,
        )
        for name in chosen
    }
    planned = {name: one.design() for name, one in designs.items()}
    arm = _arm_of_all(planned.values(), arm)
    if add:  # refused before the hours, if it has to be
        from study_lib.runs.science import require_addable

        require_addable(add, planned)
    folders: dict[str, Path] = {}
    for name, one in designs.items():
        print(f"specimen {name}: {one.replicates} seeds", flush=True)
        one.run(reports, cores, dry_run=dry_run)
        # A run may end on another day than it began, under whose name its folder is.
        found = sorted(reports.glob(f"*_{planned[name].digest}/design.json"))
        if found:
            folders[name] = found[-1].parent
    if not dry_run:
        _summarise(folders, add or [], arm, reports / f"science_{'-'.join(chosen)}_{arm}")


@dataclass(frozen=True)
class _Planned:
    """The study of one specimen."""

    preset: str
    base_npz: Path | None
    settings: list[str]
    replicates: int

    def design(self) -> "StudyDesign":
        """Return the design."""
        from study_lib.cli.designs import changes_of, feasible

        simulated = self.base_npz is not None
        changes = changes_of(self.settings, replicates=self.replicates, simulated=simulated)
        design, _ = feasible(self.preset, self.base_npz, *changes)
        return design

    def run(self, reports: Path, cores: int, *, dry_run: bool) -> None:
        """Run it, or say what would run."""
        run_study(
            preset=self.preset,
            base_npz=self.base_npz,
            simulated=self.base_npz is not None,
            settings=self.settings,
            replicates=self.replicates,
            reports=reports,
            cores=cores,
            dry_run=dry_run,
        )


def _arm_of_all(designs: Iterable["StudyDesign"], arm: str | None) -> str:
    """Return the arm that is held against the others, which every design must have."""
    from study_lib.phases.arms import arms_of

    for design in designs:
        arms = arms_of(design)
        arm = arm or (SELF_TAUGHT if SELF_TAUGHT in arms else THINNING_NET)
        if arm not in arms:
            raise InputError(f"--arm {arm}: the design has {', '.join(arms)}; choose one")
    return arm or THINNING_NET


def _summarise(folders: dict[str, Path], earlier: Sequence[Path], arm: str, folder: Path) -> None:
    """Write the tables and the notebook of the test bed, and print its sentences."""
    from study_lib.runs.kernels import SharedKernel
    from study_lib.runs.notebook import execute_notebook
    from study_lib.runs.science import read_science
    from study_lib.runs.science_tables import write_science

    found = read_science(folders, earlier=earlier, arm=arm)
    paths = write_science(found, folder)
    runs = {name: str(path.resolve()) for name, path in folders.items()}
    added = [str(path.resolve()) for path in earlier]
    output = folder / "science_summary.ipynb"
    with SharedKernel() as kernel:
        execute_notebook(
            "science_summary",
            output,
            {"runs": runs, "earlier": added, "arm": arm, "split": "test"},
            Path.cwd(),
            kernel,
        )
    for line in (*found.sentences(), *found.origin_lines()):
        print(line)
    print(f"tables:   {', '.join(map(str, paths))}")
    print(f"notebook: {output}")
