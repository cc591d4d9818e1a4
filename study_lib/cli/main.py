"""The command ``study``: whole runs, each phase by itself, files, and single notebooks."""

import errno
import signal
import sys
from pathlib import Path
from typing import Annotated, Any

import typer
from typer.core import TyperGroup

from study_lib import __version__
from study_lib.cli import files, phases, results, runs, science
from study_lib.errors import DISK_FULL, StudyError
from study_lib.system import (
    INTERRUPTED,
    end_on_terminate,
    end_with_parent,
    ignore_settings_here,
    keep_freed_memory,
    use_private_folders,
    use_threads,
)

WRONG_PLACE = (PermissionError, NotADirectoryError, IsADirectoryError, FileExistsError)
WRONG_PLACE_NUMBERS = (errno.EROFS, errno.ENAMETOOLONG, errno.ELOOP)

# Under which words `study --help` lists the commands.
GROUPS = {
    "A study": ("run", "plan", "resume", "status", "open", "answer", "report"),
    "Results": ("verify", "publish", "compare-runs", "history", "digest", "clean", "mlflow-export"),
    "Data": ("import", "export", "simulate", "example", "validate"),
    "One phase of a design": (
        *("design", "generate", "overlap", "train", "train-thinned", "reconstruct", "compare"),
        "summarize",
    ),
    "Test bed, notebooks": ("science", "notebook", "params"),
}


class GroupedCommands(TyperGroup):
    """Commands whose help lists them in groups, each with the whole first line of its own."""

    def format_commands(self, ctx: Any, formatter: Any) -> None:
        """Write the groups."""
        for title, names in GROUPS.items():
            found = [(name, self.get_command(ctx, name)) for name in names]
            rows = [(name, (one.help or "").split("\n\n")[0]) for name, one in found if one]
            with formatter.section(title):
                formatter.write_dl([(name, " ".join(text.split())) for name, text in rows])


app = typer.Typer(
    name="study",
    cls=GroupedCommands,
    help="Dose and overlap study of ptychography: networks and iterations on the same patterns.\n\n"
    "Example: study run --preset smoke, then study open",
    epilog="study COMMAND --help says more, with an example.",
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)
runs.register(app)
results.register(app)
files.register(app)
phases.register(app)
science.register(app)


def _print_version(asked: bool) -> bool:
    if asked:
        print(f"study {__version__}")
        raise typer.Exit
    return asked


@app.callback()
def _of_all_commands(
    version: Annotated[
        bool,
        typer.Option("--version", callback=_print_version, is_eager=True, help="Show the version."),
    ] = False,
) -> None:
    """Options of `study` itself."""


@app.command()
def notebook(
    name: Annotated[str, typer.Argument(help="A notebook of the study, like 01_dataset.")],
    output: Annotated[Path, typer.Argument(help="Where the executed notebook goes.")],
    parameter: Annotated[
        list[str] | None,
        typer.Option("--parameter", "-p", help="name=value, like dose=1e4; repeat it."),
    ] = None,
) -> None:
    """Execute one notebook with checked parameters (paths relative to this folder)."""
    from study_lib.design.notebooks import parameters_of
    from study_lib.design.presets import parse_assignments
    from study_lib.runs.kernels import SharedKernel
    from study_lib.runs.notebook import execute_notebook
    from study_lib.runs.run import require_condition

    values = parse_assignments(parameter or [])
    require_condition(parameters_of(name, values))
    with SharedKernel() as kernel:
        execute_notebook(name, output, values, Path.cwd(), kernel)
    print(output)


@app.command(hidden=True)
def job(run_folder: Path, names: list[str], attempt: int = 1, threads: int = 1) -> None:
    """Execute jobs of a run's plan, one after the other; the engine calls this, wherever it is."""
    end_with_parent(signal.SIGTERM)
    use_threads(threads)
    from study_lib.runs.job import is_done
    from study_lib.runs.plan import read_jobs
    from study_lib.runs.rules import PLAN_FILE

    folder = run_folder.resolve()
    jobs = read_jobs(folder / PLAN_FILE, names)
    done = [job.name for job in jobs if is_done(folder, job)]
    for name in done:
        print(f"{name}: already done")
    if len(done) == len(names):
        return
    from study_lib.runs.notebook import run_jobs

    run_jobs(folder, [name for name in names if name not in done], attempt)


REMEDIES = {
    **dict.fromkeys(DISK_FULL, "free some space, then the same command goes on"),
    errno.EROFS: "choose a folder that can be written",
    errno.ENAMETOOLONG: "choose a shorter path",
}


def _message_and_code(error: StudyError | MemoryError | OSError) -> tuple[str, int]:
    """Return what to say of a foreseen error, and the exit code."""
    if isinstance(error, StudyError):
        return str(error), error.exit_code
    if isinstance(error, MemoryError):
        remedy = "use less data, run fewer jobs at a time, or give it more"
        return f"memory ran out ({error}); {remedy}", 1
    remedy = REMEDIES.get(error.errno or 0, "check the path and its permissions")
    wrong_place = isinstance(error, WRONG_PLACE) or error.errno in WRONG_PLACE_NUMBERS
    return f"{error}; {remedy}", 2 if wrong_place else 1


def main() -> None:
    """Run the command line; every foreseen error is one message and an exit code."""
    use_private_folders()
    ignore_settings_here()
    end_on_terminate()
    keep_freed_memory()
    # jsonschema compiles a grammar of web addresses when it finds this package, for some seconds in
    # every job and report; notebooks are checked without it.
    sys.modules.setdefault("rfc3987_syntax", None)  # type: ignore[arg-type]  # None is how Python marks "not to be imported"
    debug = "--debug" in sys.argv
    arguments = [argument for argument in sys.argv[1:] if argument != "--debug"]
    if not arguments:
        print("study: no command given; `study --help` lists them", file=sys.stderr)
        sys.exit(2)
    try:
        code = app(args=arguments, standalone_mode=False)
    except (StudyError, MemoryError, OSError) as error:
        if debug:
            raise
        message, code = _message_and_code(error)
        print(f"study: {message}", file=sys.stderr)
        sys.exit(code)
    except typer.exceptions.TyperException as error:
        message = " ".join(error.format_message().split())
        print(f"study: {message.rstrip('.')}; see `study --help`", file=sys.stderr)
        sys.exit(2)
    except (KeyboardInterrupt, typer.Abort):
        code = INTERRUPTED
    if code == INTERRUPTED:  # what typer makes of a KeyboardInterrupt
        after = "the same command goes on from here"
        if arguments[0] in ("import", "simulate", "export", "example"):
            after = "nothing was written"
        print(f"study: stopped; {after}", file=sys.stderr)
    sys.exit(code if isinstance(code, int) else 0)
