"""A run while it goes on, seen from outside: its progress, and how the losses fall.

It reads files and nothing else, so it can watch a run on another machine that shares the folder.
"""

import time
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

import matplotlib.pyplot as plt
from IPython.display import DisplayHandle

from study_lib.figures.lessons import losses_of_jobs
from study_lib.lab.explorer import Sliders, are_wanted
from study_lib.runs.plan import PlannedJob, plan_jobs
from study_lib.runs.progress import event_of, is_being_run, newest_events, states_of, status_lines
from study_lib.runs.run import Run

MOST_CURVES = 6
Curve = tuple[list[int], list[float]]


def watch(run: Run, *, every_s: float = 5.0, sliders: Sliders = "auto") -> None:
    """Show the progress of a run; in JupyterLab anew every few seconds until the run stops.

    Parameters
    ----------
    run
        The run.
    every_s
        Seconds between two looks.
    sliders
        As in :func:`study_lib.lab.explorer.are_wanted`: without a viewer, once is enough.

    Examples
    --------
    Outside JupyterLab it looks once: the state of the jobs as a text, the losses as a figure.

    >>> import study_lib as study
    >>> study.watch(run)  # run: study.open_run of a run's folder  # doctest: +ELLIPSIS
    {'text/plain': '... of 24 jobs done, ...'}
    Figure(...)
    """
    run_folder, jobs = run.folder, plan_jobs(run.design)
    text, picture = DisplayHandle(), DisplayHandle()
    is_shown = False
    while True:
        goes_on = is_being_run(run_folder)
        lines = status_lines(run_folder, jobs)
        states = Counter(states_of(run_folder, jobs).values())
        figure = losses_of_jobs(
            losses_by_job(run_folder, jobs, only_open=goes_on),
            {state: states[state] for state in ("done", "failed", "to do")},
            title=run_folder.name,
        )
        status = {"text/plain": "\n".join(lines)}
        if is_shown:  # in place: the page does not jump
            text.update(status, raw=True)
            picture.update(figure)
        else:
            text.display(status, raw=True)
            picture.display(figure)
        is_shown = True
        plt.close(figure)
        if not (goes_on and are_wanted(sliders)):
            return
        time.sleep(every_s)


def losses_by_job(
    run_folder: Path, jobs: Sequence[PlannedJob], *, only_open: bool
) -> dict[str, Curve]:
    """Return steps and losses that the latest jobs recorded in their last try, by name.

    Parameters
    ----------
    run_folder
        Folder of the run.
    jobs
        Its plan.
    only_open
        Whether to leave out jobs that are done.
    """
    found = []
    for job in jobs:
        if only_open and (run_folder / job.done).is_file():
            continue
        events = newest_events(run_folder / job.folder)
        curve = losses_in(events) if events is not None else ([], [])
        if events is not None and curve[0]:
            found.append((events.stat().st_mtime_ns, job.name.replace("__", " "), curve))
    latest = sorted(found)[-MOST_CURVES:]
    return {name: curve for _, name, curve in latest}


def losses_in(events: Path) -> Curve:
    """Return steps and losses in an events file since it last began anew; a torn line is left."""
    steps: list[int] = []
    losses: list[float] = []
    for line in events.read_bytes().split(b"\n")[:-1]:
        event = event_of(line)
        if event is None or "loss" not in event:
            continue
        if steps and event["step"] <= steps[-1]:
            steps, losses = [], []
        steps.append(event["step"])
        losses.append(float(event["loss"]))
    return steps, losses
