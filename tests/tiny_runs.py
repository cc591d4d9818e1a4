"""Runs of a tiny study: with patterns, with views, with phases in folders of their own."""

from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

import pytest

from study_lib.design.models import StudyDesign
from study_lib.phases.conditions import PHASES, Condition, GivenPlaces
from study_lib.phases.dataset import generate
from study_lib.phases.overlap import choose_view
from study_lib.runs.plan import read_plan
from study_lib.runs.rules import PLAN_FILE, Rules, axes_of
from study_lib.runs.run import Run


def only_run(reports: Path) -> Path:
    """Return the folder of the one run below a folder, where results of runs lie too."""
    (design,) = reports.glob("*/design.json")
    return design.parent


def skip_after_midnight(run_folder: Path) -> None:
    """Skip a test that calls `study run` again: on another day, that is another run."""
    if not run_folder.name.startswith(f"{datetime.now(UTC):%Y-%m-%d}_"):
        pytest.skip("midnight (UTC) has passed since the run began: `study run` would begin anew")


def processes_of(run_folder: Path) -> set[tuple[str, ...]]:
    """Return the names of a run's jobs, those together that one process executes."""
    rules, found = Rules(run_folder), set()
    for job in read_plan(run_folder / PLAN_FILE):
        places = type("Wildcards", (), axes_of(job.name))
        found.add(tuple(rules.names(job.notebook, places)))
    return found


def generated(folder: Path, design: StudyDesign) -> Run:
    """Return a run with the patterns of every dose."""
    run = Run(folder, design)
    for dose in design.doses:
        generate(run.condition(dose))
    return run


def with_views(run: Run) -> Run:
    """Return the run with the patterns of every view too."""
    for dose in run.design.doses:
        for view in run.design.views:
            choose_view(run.condition(dose, view.name))
    return run


def moved(condition: Condition, **folders: Path) -> Condition:
    """Return the condition with some phases in other root folders."""
    roots = {phase: condition.root(phase) for phase in PHASES}
    return replace(condition, places=GivenPlaces(**roots | folders))
