"""Pictures of a whole study, from rows of its table."""

import math
from collections.abc import Sequence

import matplotlib.pyplot as plt
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from study_lib.figures.common import PANEL_IN, colours_of
from study_lib.scores.study_table import VIEW_ORDER, Row, grouped

MARKERS = dict(zip(VIEW_ORDER, "osv", strict=True))
REFERENCES = {
    "photon_limit_phase_rad": ("photon limit", "--", "_"),
    "ideal_limit_phase_rad": ("photon limit, ideal", ":", "1"),
    "wiener_phase_rad": ("Wiener", "-.", "+"),
}


def heat_maps(table: Sequence[Row], *, metric: str, name: str, title: str) -> Figure:
    """Show one metric over dose and overlap, one panel per arm on one scale.

    An empty field is an arm without result; a star marks a registration in doubt.
    """
    arms = grouped(table, ("arm",))
    doses = sorted({row["dose"] for row in table})
    views = [view for view in reversed(VIEW_ORDER) if any(row["view"] == view for row in table)]
    figure, axes = plt.subplots(
        1,
        len(arms),
        figsize=(max(2, len(arms)) * 1.2 * PANEL_IN, PANEL_IN + 0.3 * len(doses)),
        layout="constrained",
        squeeze=False,
    )
    values = [row[metric] for row in table]
    low, high = min(0.0, *values), max(1.0, *values)
    for axis, part in zip(axes[0], arms.values(), strict=True):
        field = np.full((len(doses), len(views)), np.nan)
        labels = dict.fromkeys(views, "")
        for row in part:
            place = doses.index(row["dose"]), views.index(row["view"])
            field[place] = row[metric]
            labels[row["view"]] = f"\n{row['overlap']:.2f}"
            star = "" if row["registration"] == "ok" else "*"
            axis.text(
                place[1],
                place[0],
                f"{row[metric]:.3f}{star}",
                ha="center",
                va="center",
                color="white" if row[metric] < (low + high) / 2 else "black",
            )
        shown = axis.imshow(field, cmap="viridis", vmin=low, vmax=high, aspect="auto")
        axis.set_xticks(range(len(views)), [f"{view}{labels[view]}" for view in views])
        axis.set_yticks(range(len(doses)), [f"{dose:g}" for dose in doses])
        axis.set_title(", ".join(sorted({row["label"] for row in part})), fontsize="small")
        axis.set(xlabel="view and measured overlap")
    axes[0, 0].set_ylabel("photons per pattern")
    figure.colorbar(shown, ax=list(axes[0]), label=name)
    figure.suptitle(title)
    return figure


def phase_error_by_dose(table: Sequence[Row], *, title: str) -> Figure:
    """Show the phase error of every arm against dose, one panel per view, with the photon limit.

    The dose is per pattern. Bars are the standard deviation over replicates, if there are any.
    """
    by_view = grouped(table, ("view",))
    views = [view for view in VIEW_ORDER if (view,) in by_view]
    figure, axes = plt.subplots(
        1,
        len(views),
        figsize=(len(views) * 1.4 * PANEL_IN, 1.4 * PANEL_IN),
        layout="constrained",
        sharey=True,
        squeeze=False,
    )
    colours = colours_of(row["arm"] for row in table)
    for axis, view in zip(axes[0], views, strict=True):
        part = by_view[(view,)]
        for (arm,), rows in grouped(part, ("arm",)).items():
            _draw_errors(axis, rows, arm, colours[arm])
        told = {row["dose"]: row for row in part if row["photon_limit_phase_rad"] is not None}
        for column, (name, style, marker) in REFERENCES.items():
            if told:
                limits = [told[dose][column] for dose in sorted(told)]
                axis.plot(
                    sorted(told),
                    limits,
                    style,
                    color="black",
                    marker=marker,
                    markersize=12,
                    label=name,
                )
        overlap = next(row["overlap"] for row in part)
        axis.set(xscale="log", yscale="log", xlabel="photons per pattern")
        axis.set_title(f"{view}, overlap {overlap:.2f}", fontsize="medium")
    axes[0, 0].set_ylabel("phase error, root mean square [rad]")
    lines = axes[0, -1].get_legend_handles_labels()
    figure.legend(*lines, fontsize="small", loc="outside right center")
    figure.suptitle(title)
    return figure


def quality_by_cost(table: Sequence[Row], *, metric: str, name: str, title: str) -> Figure:
    """Show one metric against processor seconds, one panel per dose.

    A filled mark is the cost of the patterns alone, which is what remains of an arm's cost when its
    training is shared by many scans; the open mark at the end of the line bears it all.
    """
    by_dose = grouped(table, ("dose",))
    figure, axes = plt.subplots(
        1,
        len(by_dose),
        figsize=(max(1.5, len(by_dose)) * 1.4 * PANEL_IN, 1.4 * PANEL_IN),
        layout="constrained",
        sharey=True,
        squeeze=False,
    )
    colours = colours_of(row["arm"] for row in table)
    for axis, ((dose,), rows) in zip(axes[0], by_dose.items(), strict=True):
        for row in rows:
            colour, marker = colours[row["arm"]], MARKERS[row["view"]]
            axis.plot(row["cpu_s"], row[metric], marker, color=colour)
            if row["training_cpu_s"]:
                whole = row["cpu_s"] + row["training_cpu_s"]
                axis.plot([row["cpu_s"], whole], 2 * [row[metric]], color=colour, linewidth=0.7)
                axis.plot(whole, row[metric], marker, color=colour, markerfacecolor="none")
        axis.set(xscale="log", xlabel="processor time [s]")
        axis.set_title(f"{dose:g} photons per pattern", fontsize="medium")
    axes[0, 0].set_ylabel(name)
    handles = [
        *(Line2D([], [], color=colour, marker=".", label=arm) for arm, colour in colours.items()),
        *(
            Line2D([], [], color="gray", marker=marker, linestyle="", label=view)
            for view, marker in MARKERS.items()
            if any(row["view"] == view for row in table)
        ),
        Line2D(
            [],
            [],
            color="gray",
            marker="o",
            markerfacecolor="none",
            linestyle="",
            label="with training",
        ),
    ]
    figure.legend(handles=handles, fontsize="small", loc="outside right center")
    figure.suptitle(title)
    return figure


def _draw_errors(axis: Axes, rows: Sequence[Row], arm: str, colour: str) -> None:
    ordered = sorted(rows, key=lambda row: row["dose"])
    errors = [math.sqrt(row["phase_mse_rad2"]) for row in ordered]
    # Of a root, from that of its square.
    spreads = [
        (row["phase_mse_rad2_std"] or 0.0) / (2 * error)
        for row, error in zip(ordered, errors, strict=True)
    ]
    axis.errorbar(
        [row["dose"] for row in ordered],
        errors,
        yerr=spreads if any(spreads) else None,
        marker="o",
        capsize=3,
        color=colour,
        label=arm,
    )
    for row, error in zip(ordered, errors, strict=True):
        if row["registration"] != "ok":
            axis.plot(row["dose"], error, "x", color="black", markersize=10)
