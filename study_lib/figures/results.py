"""Figures of results: one condition, and a whole study. Arrays in, Figure out."""

import itertools
import math
from collections.abc import Collection, Mapping, Sequence
from typing import Any

import matplotlib.pyplot as plt
import numpy as np
from jaxtyping import Bool, Complex, Float
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from study_lib.arm_names import plain_label
from study_lib.figures.common import (
    PANEL_IN,
    TITLE_IN,
    colours_of,
    draw_image,
    grid,
    phase_limits,
)
from study_lib.scores.frc import CROSSES, FourierRingCorrelation, frc_crossing
from study_lib.scores.metrics import said_of
from study_lib.scores.study_table import (
    Row,
    best_places,
    grouped,
    is_score,
    unit_of,
    views_in_order,
)

# --- One condition: every arm beside the truth, with its errors on one scale

Curves = Mapping[str, FourierRingCorrelation]


def condition_figure(
    truth: Complex[np.ndarray, "y x"],
    arms: Mapping[str, Complex[np.ndarray, "y x"]],
    mask: Bool[np.ndarray, "y x"],
    curves: Curves,
    *,
    threshold: float,
    ceiling: Float[np.ndarray, " ring"],
    title: str,
    void: Collection[str] = (),
    held_against: str = "truth",
) -> Figure:
    """Show the phases of truth and arms, the arms' phase errors, and their FRC with the truth.

    Phases share the limits of the truth; errors share one scale, the 99th percentile of all. The
    arms in ``void`` have no score: their place against the truth is not known. ``held_against`` is
    what ``truth`` is called.
    """
    columns = 1 + len(arms)
    height_in = TITLE_IN + 1.3 * PANEL_IN * min(truth.shape[0] / truth.shape[1], 1)
    size_in = (columns * 1.5 * PANEL_IN, 2 * max(height_in, 0.8 * PANEL_IN))
    figure, axes = grid(2, columns, size_in, title)
    limits = phase_limits(truth[mask])
    upper = [
        draw_image(axis, np.where(mask, np.angle(object_), np.nan), name, **limits)
        for axis, (name, object_) in zip(
            axes[0], {held_against: truth, **arms}.items(), strict=True
        )
    ]
    figure.colorbar(upper[0], ax=list(axes[0]), label="phase [rad]", shrink=0.8, fraction=0.03)
    errors = {name: np.angle(object_ * truth.conj()) for name, object_ in arms.items()}
    wide = max(float(np.percentile(np.abs(error[mask]), 99)) for error in errors.values())
    lower = [
        draw_image(
            axis,
            np.where(mask, error, np.nan),
            f"{name}, no score: registration uncertain"
            if name in void
            else f"{name}, root mean square {np.sqrt((error[mask] ** 2).mean()):.4f} rad",
            cmap="RdBu_r",
            vmin=-wide,
            vmax=wide,
        )
        for axis, (name, error) in zip(axes[1, 1:], errors.items(), strict=True)
    ]
    figure.colorbar(
        lower[0], ax=list(axes[1, 1:]), label="phase error [rad]", shrink=0.8, fraction=0.03
    )
    _draw_ring_correlations(axes[1, 0], curves, threshold, ceiling, void)
    axes[1, 0].set_ylabel(f"FRC with the {held_against}")
    lines = axes[1, 0].get_legend_handles_labels()
    figure.legend(*lines, loc="outside lower left", ncols=len(lines[0]), fontsize="small")
    return figure


def phase_error_spectra(
    arms: Mapping[str, Float[np.ndarray, " ring"]],
    frequency: Float[np.ndarray, " ring"],
    *,
    limit: Float[np.ndarray, " known"],
    signal: Float[np.ndarray, " known"],
    title: str,
    held_against: str = "truth",
) -> Figure:
    """Show the power of each arm's phase error by frequency, with photon limit and true phase.

    ``limit`` and ``signal`` are on the rings of ``frequency``, or empty: there is no photon limit.
    ``held_against`` is what an error is an error from.
    """
    figure, axis = plt.subplots(figsize=(2.4 * PANEL_IN, 1.2 * PANEL_IN), layout="constrained")
    colours = colours_of(arms)
    for name, power in arms.items():
        axis.plot(frequency, power, color=colours[name], label=name)
    if len(limit):
        axis.plot(frequency, limit, color="black", linestyle="--", label="photon limit")
        axis.plot(
            frequency,
            signal,
            color="black",
            linestyle=":",
            label=said_of(held_against, "true phase"),
        )
    axis.set(
        xlabel="frequency / Nyquist",
        ylabel="power of the phase error [rad$^2$]",
        title=title,
        yscale="log",
    )
    figure.legend(loc="outside right upper", fontsize="small")
    return figure


def _draw_ring_correlations(
    axis: Axes,
    curves: Curves,
    threshold: float,
    ceiling: Float[np.ndarray, " ring"],
    void: Collection[str],
) -> None:
    """Draw every arm's FRC, the threshold, and the photons' ceiling if any."""
    colours = colours_of(curves)
    for name, rings in curves.items():
        outcome = frc_crossing(rings, threshold).outcome
        label = name if outcome == CROSSES else f"{name}, {outcome}"
        if name in void:
            label = f"{name}, no score"
        faint = 0.3 if name in void else 1.0
        axis.plot(rings.frequency, rings.correlation, color=colours[name], label=label, alpha=faint)
        frequency = rings.frequency
    if len(ceiling):
        axis.plot(frequency, ceiling, color="black", linestyle="--", label="photon limit")
    axis.axhline(threshold, linestyle=":", color="gray", label=f"threshold {threshold:g}")
    axis.set(xlabel="frequency / Nyquist", ylim=(-0.2, 1.02))


# --- A whole study, from rows of its table

MARKERS = "osv^<>Pp*hX8"  # of views, again from the first where there are more
PANELS_IN_A_ROW = 4
NUMBERED_MAX = 12  # doses or views of a map whose fields are large enough for numbers
WIDE_IN = (1.4 * PANEL_IN, 1.4 * PANEL_IN)
PHASE_ERROR = "phase error, root mean square [rad]"
SQUARED = "phase_mse_rad2"  # its root is shown
QUALITIES = {
    SQUARED: PHASE_ERROR,
    "phase_ssim": "phase SSIM",
    "frc_crossing": "FRC crossing / Nyquist",
}
REFERENCES = {
    "photon_limit_phase_rad": ("photon limit", "--", "_"),
    "ideal_limit_phase_rad": ("photon limit, ideal", ":", "1"),
    "wiener_phase_rad": ("Wiener", "-.", "+"),
    "both_limits_phase_rad": ("limit of arm\nand reference", (0, (6, 2)), "x"),  # if measured
}


def heat_maps(table: Sequence[Row], *, metric: str, name: str, title: str) -> Figure:
    """Show one metric over dose and overlap, one panel per arm on one scale.

    An empty field is an arm without result, or one whose registration is in doubt: its number is in
    brackets. Bold is the best score of its dose and view. A fall-back says what it is. Of more than
    twelve doses or views the fields have colours alone.
    """
    arms = grouped(table, ("arm",))
    best = best_places(table, [metric])
    doses = sorted({row["dose"] for row in table})
    views = views_in_order(table)[::-1]
    has_numbers = max(len(doses), len(views)) <= NUMBERED_MAX
    figure, axes = panels(
        len(arms), (1.2 * PANEL_IN, PANEL_IN + 0.3 * len(doses)), title, unit_of(table)
    )
    values = [row[metric] for row in table]
    low, high = min(0.0, *values), max(1.0, *values)
    places = {id(row): index for index, row in enumerate(table)}
    for axis, part in zip(axes, arms.values(), strict=True):
        field = np.full((len(doses), len(views)), np.nan)
        labels = dict.fromkeys(views, "")
        for row in part:
            place = doses.index(row["dose"]), views.index(row["view"])
            labels[row["view"]] = f"\n{row['overlap']:.2f}"
            is_void = row["registration"] != "ok"
            field[place] = np.nan if is_void else row[metric]
            if not has_numbers:
                continue
            number = f"({row[metric]:.3f})" if is_void else f"{row[metric]:.3f}"
            fallback = f"\n= {row['fallback']}" if row.get("fallback") else ""
            dark = row[metric] < (low + high) / 2
            axis.text(
                place[1],
                place[0],
                f"{number}{fallback}",
                ha="center",
                va="center",
                fontsize="small",
                fontweight="bold" if (places[id(row)], metric) in best else "normal",
                color="gray" if is_void else "white" if dark else "black",
            )
        shown = axis.imshow(field, cmap="viridis", vmin=low, vmax=high, aspect="auto")
        angle_deg = 90 if len(views) > PANELS_IN_A_ROW else 0
        names = [f"{view}{labels[view]}" for view in views]
        axis.set_xticks(range(len(views)), names, rotation=angle_deg)
        axis.set_yticks(range(len(doses)), [f"{dose:g}" for dose in doses])
        axis.set_title(_arm_in(part), fontsize="small")
        axis.set(xlabel="view and measured overlap")
    figure.colorbar(shown, ax=list(axes), label=name)
    return figure


def phase_error_by_dose(table: Sequence[Row], *, title: str) -> Figure:
    """Show the phase error of every arm against dose, one panel per view, with the photon limit.

    Bars are the standard deviation over replicates, if there are any. Open
    marks are fall-backs; a grey cross is no score, its registration is in doubt, and in no line.
    """
    by_view = grouped(table, ("view",))
    views = views_in_order(table)
    figure, axes = panels(len(views), WIDE_IN, title, PHASE_ERROR)
    colours = colours_of(row["label"] for row in table)
    names = {arm: _arm_in(rows) for (arm,), rows in grouped(table, ("arm",)).items()}
    for axis, view in zip(axes, views, strict=True):
        part = by_view[(view,)]
        for (arm,), rows in grouped(part, ("arm",)).items():
            colour = colours[rows[0]["label"]]
            _draw_line(axis, rows, names[arm], colour, x="dose", metric=SQUARED)
        with_limit = {row["dose"]: row for row in part if row["photon_limit_phase_rad"] is not None}
        for column, (name, style, marker) in REFERENCES.items():
            found = {
                dose: row[column]
                for dose, row in sorted(with_limit.items())
                if row.get(column) is not None
            }
            if found:
                line: dict[str, Any] = {
                    "color": "black",
                    "marker": marker,
                    "markersize": 12,
                    "label": name,
                }
                axis.plot(list(found), list(found.values()), linestyle=style, **line)
        overlap = next(row["overlap"] for row in part)
        axis.set(xscale="log", yscale="log", xlabel=unit_of(table))
        axis.set_title(f"{view}, overlap {overlap:.2f}", fontsize="medium")
    handles = _handles_of(axes)
    marks = {str(mark.get_label()): mark for mark in _marks_of(table)}
    figure.legend(
        [*handles.values(), *marks.values()],
        [*handles, *marks],
        fontsize="small",
        loc="outside right center",
    )
    return figure


def phase_error_by_photons(table: Sequence[Row], *, title: str) -> Figure:
    """Show the phase error of each arm against the photons on an object pixel, a line per view.

    So views are compared at equal photons, whatever is held fixed. Grey is the photon limit of the
    same view. Rows that are no scores, and those that do not know their area, are left out.
    """
    known = [row for row in table if row.get("photons_per_object_pixel") is not None]
    arms = grouped([row for row in known if is_score(row)], ("arm",))
    figure, axes = panels(max(1, len(arms)), WIDE_IN, title, PHASE_ERROR)
    views = views_in_order(known) if known else []
    markers = dict(zip(views, itertools.cycle(MARKERS), strict=False))
    shades = dict(zip(views, plt.get_cmap("viridis")(np.linspace(0, 0.9, len(views))), strict=True))
    for axis, rows in zip(axes, arms.values(), strict=False):
        for (view,), part in grouped(rows, ("view",)).items():
            ordered = sorted(part, key=lambda row: row["photons_per_object_pixel"])
            photons = [row["photons_per_object_pixel"] for row in ordered]
            errors = [math.sqrt(row["phase_mse_rad2"]) for row in ordered]
            limits = [row["photon_limit_phase_rad"] for row in ordered]
            name = f"{view}, overlap {ordered[0]['overlap']:.2f}"
            axis.plot(photons, errors, marker=markers[view], color=shades[view], label=name)
            if None not in limits:
                grey: dict[str, Any] = {
                    "marker": markers[view],
                    "markersize": 3,
                    "color": "lightgray",
                }
                axis.plot(photons, limits, "--", zorder=1, label="photon limit", **grey)
        axis.set(xscale="log", yscale="log", xlabel="photons per object pixel")
        axis.set_title(_arm_in(rows), fontsize="medium")
    handles = _handles_of(axes)
    if handles:
        figure.legend([*handles.values()], [*handles], fontsize="small", loc="outside right center")
    return figure


def least_dose_by_overlap(least: Sequence[Row], unit: str, *, title: str) -> Figure:
    """Show the least dose that reaches each wanted quality, over overlap, a line for each arm.

    Each line holds one quality: above it the arm is better. A triangle is a bound, the end of the
    doses of the study: downwards where the lowest is good enough, upwards where none is.

    Parameters
    ----------
    least
        From :func:`study_lib.scores.answers.answers_of`.
    unit
        Of the doses.
    """
    by_quality = grouped(least, ("wanted",))
    count, label = max(1, len(by_quality)), f"least dose [{unit}]"
    figure, axes = panels(count, WIDE_IN, title, label)
    colours = colours_of(row["arm"] for row in least)
    marks = {"": "o", "at most": "v", "at least": "^"}
    for axis, ((wanted,), rows) in zip(axes, by_quality.items(), strict=False):
        for (arm,), part in grouped(rows, ("arm",)).items():
            ordered = sorted(part, key=lambda row: row["overlap"])
            places = [row["overlap"] for row in ordered]
            axis.plot(places, [row["dose"] for row in ordered], color=colours[arm], label=arm)
            for row in ordered:
                filled = colours[arm] if not row["bound"] else "none"
                look: dict[str, Any] = {"color": colours[arm], "markerfacecolor": filled}
                axis.plot(row["overlap"], row["dose"], marks[row["bound"]], **look)
        axis.set(yscale="log", xlabel="overlap (disc area)")
        axis.set_title(wanted, fontsize="medium")
    handles = _handles_of(axes)
    if handles:
        figure.legend([*handles.values()], [*handles], fontsize="small", loc="outside right center")
    return figure


def quality_over_mismatch(table: Sequence[Row], *, label: str, title: str) -> Figure:
    """Show each arm's quality over the value of an error that no arm knew of.

    Phase error, phase SSIM, and the FRC crossing where there is any; of each a panel for every pair
    of dose and view in the table, all on one scale. Marks and bars are as in
    :func:`phase_error_by_dose`.

    Parameters
    ----------
    table
        From :func:`study_lib.scores.mismatch_cost.level_table`, of one split.
    label
        What the error is, with its unit.
    title
        Above all panels.
    """
    metrics = [one for one in QUALITIES if any(row.get(one) is not None for row in table)]
    doses, views = sorted({row["dose"] for row in table}), views_in_order(table)
    by_panel = grouped(table, ("dose", "view"))
    pairs = [pair for pair in itertools.product(doses, views) if pair in by_panel]
    is_grid = len(pairs) == len(doses) * len(views) and len(views) <= PANELS_IN_A_ROW
    columns = len(views) if is_grid else min(len(pairs), PANELS_IN_A_ROW)
    lines = len(metrics) * math.ceil(len(pairs) / columns)
    if len(pairs) == 1:
        lines, columns = 1, len(metrics)
    size_in = max(columns, 1.5) * WIDE_IN[0], lines * WIDE_IN[1]
    figure, axes = grid(lines, columns, size_in, title)
    colours = colours_of(row["label"] for row in table)
    names = {arm: _arm_in(rows) for (arm,), rows in grouped(table, ("arm",)).items()}
    for metric, places in zip(metrics, np.split(axes.ravel(), len(metrics)), strict=True):
        for unused in places[len(pairs) :]:
            unused.set_axis_off()
        for number, (axis, pair) in enumerate(zip(places, pairs, strict=False)):
            if number:
                axis.sharey(places[0])
            for (arm,), rows in grouped(by_panel[pair], ("arm",)).items():
                colour = colours[rows[0]["label"]]
                _draw_line(axis, rows, names[arm], colour, x="level", metric=metric)
            axis.set(xlabel=label)
            axis.set_title(f"{pair[1]}, {pair[0]:g} {unit_of(table)}", fontsize="medium")
            if number % columns == 0:
                axis.set_ylabel(QUALITIES[metric])
    handles = _handles_of(list(axes.ravel()))
    handles |= {str(mark.get_label()): mark for mark in _marks_of(table)}
    figure.legend([*handles.values()], [*handles], fontsize="small", loc="outside right upper")
    return figure


def panels(
    count: int, size_in: tuple[float, float], title: str, label: str
) -> tuple[Figure, Sequence[Axes]]:
    """Return a figure and its panels, four in a row at most, with one vertical axis."""
    columns = min(count, PANELS_IN_A_ROW)
    rows = math.ceil(count / columns)
    wide, high = max(columns, 1.5) * size_in[0], rows * size_in[1]
    figure, axes = grid(rows, columns, (wide, high), title, sharey=True)
    flat = list(axes.ravel())
    for unused in flat[count:]:
        unused.set_axis_off()
    for axis in flat[:count:columns]:
        axis.set_ylabel(label)
    return figure, flat[:count]


def _handles_of(axes: Sequence[Axes]) -> dict[str, Any]:
    """Return what the panels have drawn, each name once."""
    handles: dict[str, Any] = {}
    for axis in axes:
        drawn, labels = axis.get_legend_handles_labels()
        handles |= dict(zip(labels, drawn, strict=True))
    return handles


def _marks_of(table: Sequence[Row]) -> list[Line2D]:
    """Return the marks of what is no score of its arm, as far as the table has such rows."""
    grey: dict[str, Any] = {"color": "gray", "linestyle": ""}
    marks = []
    if any(row.get("fallback") for row in table):
        marks.append(Line2D([], [], marker="D", markerfacecolor="none", label="fall-back", **grey))
    if any(row["registration"] != "ok" for row in table):
        label = "no score, registration uncertain"
        marks.append(Line2D([], [], marker="x", label=label, **grey))
    return marks


def _arm_in(rows: Sequence[Row]) -> str:
    """Return the label of an arm over several rows: with its fall-back if it is that in all."""
    labels = {row["label"] for row in rows}
    return labels.pop() if len(labels) == 1 else plain_label(rows[0]["label"])


def quality_by_cost(table: Sequence[Row], *, metric: str, name: str, title: str) -> Figure:
    """Show one metric against processor seconds, one panel per dose.

    A filled mark is the cost of the patterns alone, which is what remains of an arm's cost when its
    training is shared by many scans; the open mark at the end of the line bears it all. Rows whose
    registration is in doubt are no scores and not shown; a diamond is a fall-back, to which no
    training is charged.
    """
    by_dose = grouped(table, ("dose",))
    figure, axes = panels(len(by_dose), WIDE_IN, title, name)
    colours = colours_of(row["label"] for row in table)
    markers = dict(zip(views_in_order(table), itertools.cycle(MARKERS), strict=False))
    for axis, ((dose,), rows) in zip(axes, by_dose.items(), strict=True):
        for row in rows:
            if row["registration"] != "ok":
                continue
            colour, marker = colours[row["label"]], markers[row["view"]]
            axis.plot(row["cpu_s"], row[metric], marker, color=colour)
            if row.get("fallback"):
                _mark_fallback(axis, row["cpu_s"], row[metric], colour)
            if row["training_cpu_s"]:
                whole = row["cpu_s"] + row["training_cpu_s"]
                axis.plot([row["cpu_s"], whole], 2 * [row[metric]], color=colour, linewidth=0.7)
                axis.plot(whole, row[metric], marker, color=colour, markerfacecolor="none")
        axis.set(xscale="log", xlabel="processor time [s]")
        axis.set_title(f"{dose:g} {unit_of(table)}", fontsize="medium")
    grey: dict[str, Any] = {"color": "gray", "linestyle": ""}
    handles = [
        *(
            Line2D([], [], color=colours[rows[0]["label"]], marker=".", label=_arm_in(rows))
            for rows in grouped(table, ("arm",)).values()
        ),
        *(Line2D([], [], marker=marker, label=view, **grey) for view, marker in markers.items()),
        Line2D([], [], marker="o", markerfacecolor="none", label="with training", **grey),
    ]
    handles += [mark for mark in _marks_of(table) if mark.get_marker() == "D"]
    figure.legend(handles=handles, fontsize="small", loc="outside right center")
    return figure


def _mark_fallback(axis: Axes, x: float, y: float, colour: str) -> None:
    axis.plot(x, y, "D", color=colour, markerfacecolor="none", markersize=12)


def _draw_line(
    axis: Axes, rows: Sequence[Row], arm: str, colour: str, *, x: str, metric: str
) -> None:
    """Draw a number of an arm over a column, with its spread; no line joins what is no score."""
    known = [row for row in rows if row.get(metric) is not None]
    ordered = sorted((row for row in known if row["registration"] == "ok"), key=lambda row: row[x])
    values = [_shown_value(row, metric) for row in ordered]
    spreads = [_shown_spread(row, metric) for row in ordered]
    axis.errorbar(
        [row[x] for row in ordered],
        values,
        yerr=spreads if any(spreads) else None,
        marker="o",
        capsize=3,
        color=colour,
        label=arm,
    )
    for row, value in zip(ordered, values, strict=True):
        if row.get("fallback"):
            _mark_fallback(axis, row[x], value, colour)
    for row in known:
        if row["registration"] != "ok":
            axis.plot(row[x], _shown_value(row, metric), "x", color="gray", markersize=10)


def _shown_value(row: Row, metric: str) -> float:
    value = float(row[metric])
    return math.sqrt(value) if metric == SQUARED else value


def _shown_spread(row: Row, metric: str) -> float:
    spread = float(row[f"{metric}_std"] or 0.0)
    # Of a root, from that of its square.
    return spread / (2 * math.sqrt(row[metric])) if metric == SQUARED else spread
