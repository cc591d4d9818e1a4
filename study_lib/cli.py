"""The command ``study``: the whole matrix in one call, and each phase by itself."""

import sys
from functools import partial
from pathlib import Path
from typing import Annotated

import typer

from study_lib import cli_files, cli_phases
from study_lib.errors import StudyError
from study_lib.processes import end_on_terminate, use_private_folders

WRONG_PLACE = (PermissionError, NotADirectoryError, IsADirectoryError, FileExistsError)
INTERRUPTED = 130

app = typer.Typer(
    name="study",
    help="Dose and overlap study of ptychography: PtychoPINN and LSQML on the same patterns.",
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)
cli_files.register(app)
cli_phases.register(app)

Preset = Annotated[
    str, typer.Option(help="Preset (smoke, laptop, fly64) or the path of a YAML file.")
]
Settings = Annotated[
    list[str] | None,
    typer.Option("--set", help="Change one value of the design, like training.epochs=5."),
]
BaseNpz = Annotated[
    Path | None, typer.Option(help="Base data from `study import`; default: the synthetic object.")
]


@app.command()
def run(
    preset: Preset = "laptop",
    base_npz: BaseNpz = None,
    settings: Settings = None,
    replicates: Annotated[
        int | None,
        typer.Option(help="Repetitions with other noise, choice of patterns and training."),
    ] = None,
    reports: Annotated[Path, typer.Option(help="Where runs are kept.")] = Path("reports"),
    cores: Annotated[int, typer.Option(min=1, help="Jobs at the same time.")] = 2,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", "-n", help="List the jobs with reasons; write nothing.")
    ] = False,
) -> None:
    """Run the whole study; a second call on the same day runs only what is missing."""
    from study_lib import engine, plan, presets, runs
    from study_lib.feasibility import check_feasible
    from study_lib.scene import scene_of

    base = runs.base_data(base_npz) if base_npz else None
    changes = [*(settings or ()), *([] if replicates is None else [f"replicates={replicates}"])]
    study = presets.load_design(preset, changes, base)
    check_feasible(study, scene_of(study, base_npz))
    jobs = plan.plan_jobs(study, runs.BASE_FILE if base else None)
    folder = reports / runs.run_name(study)
    if dry_run:
        engine.show_plan(folder, jobs, cores, print)
        print(f"{len(jobs)} jobs in {folder}; nothing was written")
        return
    runs.create_run(folder, study, base_npz)
    print(f"study {study.preset}, {len(jobs)} jobs, report folder {folder}", flush=True)
    engine.run_plan(folder, jobs, cores, partial(print, flush=True))
    summary = runs.Run(folder, study).root("H")
    print((summary / "summary.md").read_text(encoding="utf-8"))
    print(f"executed notebooks: {folder / 'notebooks'}")
    print(f"summary:            {summary / 'summary.md'}")


@app.command()
def verify(
    report: Annotated[Path, typer.Argument(help="Folder of a run below reports/.")],
) -> None:
    """Check that every job of a run is done and every file still has its recorded hash."""
    from study_lib.evidence import faults_of_run

    faults = faults_of_run(report)
    if faults:
        raise StudyError("\n".join(faults))
    print(f"{report}: complete, every hash holds")


@app.command()
def notebook(
    name: Annotated[str, typer.Argument(help="A notebook of the study, like 01_dataset.")],
    output: Annotated[Path, typer.Argument(help="Where the executed notebook goes.")],
    parameter: Annotated[
        list[str] | None,
        typer.Option("--parameter", "-p", help="name=value, like dose=1.0e+4; repeat it."),
    ] = None,
) -> None:
    """Execute one notebook with checked parameters (paths relative to this folder)."""
    from study_lib.presets import parse_assignments
    from study_lib.runner import execute_notebook
    from study_lib.runs import require_condition

    values = parse_assignments(parameter or [])
    require_condition(values)
    execute_notebook(name, output, values, Path.cwd())
    print(output)


@app.command(hidden=True)
def job(run_folder: Path, name: str) -> None:
    """Execute one job of a run's plan; the engine calls this."""
    # jsonschema compiles a grammar of web addresses when it finds this package, for more than a
    # second in every job; notebooks are checked without it.
    sys.modules.setdefault("rfc3987_syntax", None)  # type: ignore[arg-type]  # None is how Python marks "not to be imported"
    from study_lib.runner import run_job

    run_job(run_folder.resolve(), name)


def main() -> None:
    """Run the command line; every foreseen error is one message and an exit code."""
    use_private_folders()
    end_on_terminate()
    debug = "--debug" in sys.argv
    arguments = [argument for argument in sys.argv[1:] if argument != "--debug"]
    if not arguments:
        print("study: no command given; `study --help` lists them", file=sys.stderr)
        sys.exit(2)
    try:
        code = app(args=arguments, standalone_mode=False)
    except StudyError as error:
        if debug:
            raise
        print(f"study: {error}", file=sys.stderr)
        sys.exit(error.exit_code)
    except OSError as error:
        if debug:
            raise
        print(f"study: {error}; check the path and its permissions", file=sys.stderr)
        sys.exit(2 if isinstance(error, WRONG_PLACE) else 1)
    except typer.exceptions.TyperException as error:
        message = " ".join(error.format_message().split())
        print(f"study: {message}; see `study --help`", file=sys.stderr)
        sys.exit(2)
    except (KeyboardInterrupt, typer.Abort):
        code = INTERRUPTED
    if code == INTERRUPTED:  # what typer makes of a KeyboardInterrupt
        print("study: stopped; the same command goes on from here", file=sys.stderr)
    sys.exit(code if isinstance(code, int) else 0)
