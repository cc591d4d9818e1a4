"""Commands on the results of runs: compare-runs, history, mlflow-export."""

from pathlib import Path
from typing import Annotated

import typer

from study_lib.design.notebooks import ComparedMetric

FIGURES = (".png", ".svg")


def register(app: typer.Typer) -> None:
    """Add the commands to the command line."""
    app.command()(compare_runs)
    app.command()(history)
    app.command()(mlflow_export)


def compare_runs(
    runs: Annotated[list[Path], typer.Argument(help="Folders of runs, the reference first.")],
    metric: Annotated[
        ComparedMetric, typer.Option(help="Its worst and best differences are listed.")
    ] = "phase_ssim",
    output: Annotated[
        Path | None, typer.Option(help="All differences, as FILE.parquet or FILE.csv.")
    ] = None,
) -> None:
    """Show how the results of runs differ from those of the first, and what else differs.

    Rows are paired by condition, arm and replicate; a difference has a 95 % interval over the
    replicates. Example:

    study compare-runs reports/2026-11-29_laptop_267b7a6b reports/2026-12-01_laptop_0123abcd
    """
    from study_lib.runs import results

    if output:
        results.require_suffix(output, results.SUFFIXES)
    compared = results.compare_runs(runs)
    if output:
        results.write_rows(output, compared.rows)
    print("\n".join(compared.lines(metric)))
    if output:
        print(f"all differences: {output}")


def history(
    arm: Annotated[str, typer.Option(help="By its key, like thinning-net or solver-denoised.")],
    metric: Annotated[
        str, typer.Option(help="A column of the study table, or phase_error_rad.")
    ] = "phase_ssim",
    view: Annotated[str | None, typer.Option(help="Only this view; default: all.")] = None,
    dose: Annotated[float | None, typer.Option(help="Only this dose; default: all.")] = None,
    split: Annotated[str, typer.Option(help="train or test.")] = "test",
    reports: Annotated[Path, typer.Option(help="Where runs are kept.")] = Path("reports"),
    output: Annotated[
        Path | None, typer.Option(help="A figure of it, as FILE.png or FILE.svg.")
    ] = None,
) -> None:
    """Show how a number of an arm changed from run to run, by date and commit.

    From what finished runs leave in results/ below reports/. Example:

    study history --arm thinning-net --metric phase_ssim --view dense --dose 1e4
    """
    from study_lib.runs import results
    from study_lib.scores import across_runs

    if output:
        results.require_suffix(output, FIGURES)
    rows = across_runs.history(
        results.read_results(reports), arm=arm, metric=metric, view=view, dose=dose, split=split
    )
    print("\n".join(across_runs.history_lines(rows, metric)))
    if output:
        from study_lib.figures.common import save_figure
        from study_lib.figures.runs import metric_history

        save_figure(metric_history(rows, title=across_runs.title_of(metric)), output)
        print(f"figure: {output}")


def mlflow_export(
    folder: Annotated[Path, typer.Argument(metavar="run", help="Folder of a run.")],
    uri: Annotated[
        str | None,
        typer.Option(
            help="Tracking server or database of MLflow, like sqlite:///mlflow.db; default: "
            "MLFLOW_TRACKING_URI, or else that file in this folder."
        ),
    ] = None,
    experiment: Annotated[
        str, typer.Option(help="Name of the experiment; made if it is not there.")
    ] = "ptychography-dose-study",
) -> None:
    """Write the scores of a run to MLflow: one run there for each row of its comparisons.

    A second export changes nothing, and replaces rows whose numbers have changed since. Needs the
    extra mlflow. Example:

    study mlflow-export reports/2026-11-29_laptop_267b7a6b --uri sqlite:///mlflow.db
    """
    from study_lib.runs.mlflow_export import export

    done = export(folder, uri=uri, experiment=experiment)
    print(
        f"experiment {experiment}: {done.new} new, {done.replaced} replaced, "
        f"{done.unchanged} unchanged of {done.new + done.replaced + done.unchanged} rows"
    )
