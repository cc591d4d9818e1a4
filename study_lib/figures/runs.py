"""Figures of several runs: what differs from one to another, and a number from run to run."""

import itertools
import math
from collections.abc import Mapping, Sequence

import matplotlib.pyplot as plt
from matplotlib.figure import Figure

from study_lib.figures.common import PANEL_IN, TITLE_IN, colours_of, grid
from study_lib.scores.across_runs import COMMIT_CHARACTERS, PLACE, place_text, title_of
from study_lib.scores.paired import PairedGain
from study_lib.scores.study_table import Row, grouped

ROW_IN = 0.22
PANELS_IN_A_ROW = 4
MARKERS = "os^vDP*X"


def run_differences(rows: Sequence[Row], *, metric: str) -> Figure:
    """Show the differences of a number with their 95 % intervals, a panel for each arm.

    Right of the line a run is above the reference; without replicates there are no intervals.

    Parameters
    ----------
    rows
        From :func:`study_lib.runs.results.compare_runs`, of any numbers.
    metric
        The number that is drawn.

    Examples
    --------
    >>> import study_lib as study
    >>> row = {"metric": "phase_ssim", "better": "higher", "run": "later", "split": "test"}
    >>> row |= {"dose": 1e4, "dose_per": "pattern", "view": "dense", "arm": "solver"}
    >>> row |= {"difference": 0.02, "difference_low": 0.01, "difference_high": 0.03}
    >>> figure = study.figures.run_differences([row], metric="phase_ssim")
    >>> figure.axes[0].get_title(), figure.axes[0].get_yticklabels()[0].get_text()
    ('solver', 'test 10000 dense')
    """
    part = [row for row in rows if row["metric"] == metric and row["difference"] is not None]
    places = list(dict.fromkeys(place_text(row, with_arm=False) for row in part))
    arms = grouped(part, ("arm",))
    columns = max(1, min(len(arms), PANELS_IN_A_ROW))
    lines = max(1, -(-len(arms) // columns))
    size_in = (columns * PANEL_IN, lines * (3 * TITLE_IN + ROW_IN * max(4, len(places))))
    way = {"higher": "right", "lower": "left"}[part[0]["better"]] if part else "right"
    title = f"{title_of(metric)}, run less reference ({way} is better)"
    figure, axes = grid(lines, columns, size_in, title, sharex=True, sharey=True)
    runs = list(dict.fromkeys(row["run"] for row in part))
    colours = {run: f"C{index % 10}" for index, run in enumerate(runs)}
    for axis, ((arm,), found) in zip(axes.ravel(), arms.items(), strict=False):
        axis.axvline(0, color="gray", linestyle=":")
        for run, chosen in ((run, [row for row in found if row["run"] == run]) for run in runs):
            offset = 0.6 * (runs.index(run) - (len(runs) - 1) / 2) / len(runs)
            axis.errorbar(
                [row["difference"] for row in chosen],
                [places.index(place_text(row, with_arm=False)) + offset for row in chosen],
                xerr=_bars(chosen, "difference"),
                fmt="o",
                markersize=4,
                color=colours[run],
                label=run,
            )
        axis.set_title(arm, fontsize="medium")
    for axis in axes.ravel()[len(arms) :]:
        axis.set_axis_off()
    axes[0, 0].set_yticks(range(len(places)), places)
    axes[0, 0].invert_yaxis()
    if len(runs) > 1:
        figure.legend(*axes[0, 0].get_legend_handles_labels(), loc="outside lower left")
    return figure


def gains_over_arms(
    gains: Sequence[PairedGain], labels: Mapping[str, str], *, title: str
) -> Figure:
    """Show what one arm gains over each of the others, a panel for each, a row for each condition.

    Right of the line the arm is better. Thick bars are 95 % intervals, thin ones those corrected
    for the number of conditions; without replicates there are none. Small dots are the single
    differences.

    Parameters
    ----------
    gains
        Of one metric, from :func:`study_lib.scores.paired.paired_gains`.
    labels
        Of arms by their keys.
    title
        Of the number, with its unit.
    """
    part = [one for one in gains if one.gain is not None]
    places = list(dict.fromkeys((one.specimen, one.dose, one.view) for one in part))
    opponents = list(dict.fromkeys(one.opponent for one in part))
    columns = max(1, min(len(opponents), PANELS_IN_A_ROW))
    lines = max(1, -(-len(opponents) // columns))
    size_in = (columns * PANEL_IN, lines * (3 * TITLE_IN + ROW_IN * max(4, len(places))))
    figure, axes = grid(lines, columns, size_in, title, sharex=True, sharey=True)
    specimens = list(dict.fromkeys(specimen for specimen, _, _ in places))
    colours = {specimen: f"C{index % 10}" for index, specimen in enumerate(specimens)}
    for axis, opponent in zip(axes.ravel(), opponents, strict=False):
        axis.axvline(0, color="gray", linestyle=":")
        for one in (one for one in part if one.opponent == opponent):
            height, colour = places.index((one.specimen, one.dose, one.view)), colours[one.specimen]
            for low, high, width in (
                (one.corrected_low, one.corrected_high, 1.0),
                (one.low, one.high, 3.0),
            ):
                if low is not None and high is not None:
                    axis.plot([low, high], [height, height], color=colour, linewidth=width)
            axis.plot(one.values, [height] * len(one.values), ".", color=colour, markersize=3)
            axis.plot(one.gain, height, "o", color=colour, markersize=5)
        axis.set_title(f"over {labels[opponent]}", fontsize="medium")
    for axis in axes.ravel()[len(opponents) :]:
        axis.set_axis_off()
    names = [f"{specimen} {dose:g} {view}" for specimen, dose, view in places]
    axes[0, 0].set_yticks(range(len(places)), names)
    axes[0, 0].invert_yaxis()
    return figure


def metric_history(rows: Sequence[Row], *, title: str) -> Figure:
    """Show a number of one arm over runs, in the order of their dates.

    A colour for each condition; a line joins runs of one design, and a run without a score breaks
    it. Bars are 95 % intervals over replicates.

    Parameters
    ----------
    rows
        From :func:`study_lib.scores.across_runs.history`.
    title
        Of the number.
    """
    runs = sorted({(row["date"], row["run"]): row for row in rows}.items())
    at = {key: index for index, (key, _) in enumerate(runs)}
    names = [
        f"{row['date']:%Y-%m-%d %H:%M}\n{(row['commit'] or 'no commit')[:COMMIT_CHARACTERS]}\n"
        f"{row['design']}"
        for _, row in runs
    ]
    size_in = (PANEL_IN * max(2.0, 0.5 * len(runs)), 1.4 * PANEL_IN)
    figure, axis = plt.subplots(figsize=size_in, layout="constrained")
    places = [place_text(part[0], with_arm=False) for part in grouped(rows, PLACE).values()]
    looks = dict(zip(places, itertools.cycle(MARKERS), strict=False))
    colours = colours_of(places)
    for part in grouped(rows, (*PLACE, "design")).values():
        place = place_text(part[0], with_arm=False)
        axis.errorbar(
            [at[row["date"], row["run"]] for row in part],
            [math.nan if row["value"] is None else row["value"] for row in part],
            yerr=_bars(part, ""),
            marker=looks[place],
            color=colours[place],
            label=place,
        )
    axis.set_xticks(range(len(runs)), names, fontsize="small")
    axis.set(ylabel=title, xlabel="date (UTC), commit, design", xlim=(-0.5, len(runs) - 0.5))
    axis.set_title(f"{rows[0]['arm']}, {rows[0]['split']} split", fontsize="medium")
    handles = dict(zip(*reversed(axis.get_legend_handles_labels()), strict=True))
    figure.legend(handles.values(), handles, loc="outside right upper", fontsize="small")
    return figure


def _bars(rows: Sequence[Row], name: str) -> list[list[float]]:
    """Return how far intervals reach below and above their values; not at all without one."""
    low, high = (f"{name}_{end}" if name else end for end in ("low", "high"))
    value = name or "value"
    below = [0.0 if row[low] is None else row[value] - row[low] for row in rows]
    above = [0.0 if row[high] is None else row[high] - row[value] for row in rows]
    return [below, above]
