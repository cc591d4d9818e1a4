"""Figures of reconstructions, iterated and learned. Matplotlib only: arrays in, Figure out."""

from collections.abc import Mapping, Sequence
from typing import Any

import matplotlib.pyplot as plt
import numpy as np
from jaxtyping import Bool, Complex, Float
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.image import AxesImage

from study_lib.figures.common import (
    NOT_SCORED,
    PANEL_IN,
    colour_wheel,
    colours_of,
    complex_colours,
    plain_log_ticks,
)

# --- Iterations

LEGEND_PLACE = (0.04, 0.07, 0.2, 0.2)  # in shares of a panel
WHOLE_TURN_RAD = 0.9 * np.pi  # largest phase from which on both signs are taken to meet
BRIGHTEST = 99.5  # percentile that gets full lightness


def objects(panels: Mapping[str, Complex[np.ndarray, "y x"]], *, title: str) -> Figure:
    """Show amplitude, phase, and both in one, a row for each algorithm, on common scales."""
    rows_px, columns_px = next(iter(panels.values())).shape
    figure, axes = _grid(len(panels), 3, height=min(1.2 * rows_px / columns_px + 0.15, 1.0))
    low = min(float(np.abs(object_).min()) for object_ in panels.values())
    high = max(float(np.abs(object_).max()) for object_ in panels.values())
    phases = _phase_scale(max(float(np.abs(np.angle(part)).max()) for part in panels.values()))
    for row, (name, object_) in zip(axes, panels.items(), strict=True):
        shown = row[0].imshow(np.abs(object_), cmap="gray", vmin=low, vmax=high)
        _finish(row[0], shown, f"{name}: amplitude")
        shown = row[1].imshow(np.angle(object_), **phases)
        _finish(row[1], shown, f"{name}: phase [rad]")
        draw_complex(row[2], object_, f"{name}: both")
    figure.suptitle(title)
    return figure


def probes(panels: Mapping[str, Complex[np.ndarray, "n n"]], *, title: str) -> Figure:
    """Show amplitude, and amplitude and phase in one, a column for each algorithm."""
    figure, axes = _grid(2, len(panels))
    for column, (name, probe) in zip(axes.T, panels.items(), strict=True):
        shown = column[0].imshow(np.abs(probe), cmap="gray", vmin=0)
        _finish(column[0], shown, f"{name}: amplitude [sqrt(photons)]")
        draw_complex(column[1], probe, f"{name}: amplitude and phase")
    figure.suptitle(title)
    return figure


def convergence(
    losses: Mapping[str, Float[np.ndarray, " epochs"]],
    wall_s: Mapping[str, Float[np.ndarray, " epochs"]],
    *,
    title: str,
) -> Figure:
    """Show each loss, over its first value, against epochs and against seconds."""
    figure, (left, right) = plt.subplots(
        1, 2, figsize=(3 * PANEL_IN, 1.2 * PANEL_IN), layout="constrained", sharey=True
    )
    for name, values in losses.items():
        relative = np.asarray(values) / values[0]
        left.plot(np.arange(1, len(values) + 1), relative, label=name)
        right.plot(wall_s[name], relative, label=name)
    left.set(xlabel="epoch", ylabel="loss / first loss", yscale="log")
    right.set(xlabel="time since start [s]", xscale="log")
    plain_log_ticks(right.xaxis, (1, 3))
    left.legend()
    figure.suptitle(title)
    return figure


def residuals_by_position(
    residuals: Mapping[str, Float[np.ndarray, " scan"]],
    positions_px: Float[np.ndarray, "scan 2"],
    *,
    title: str,
) -> Figure:
    """Show how well each pattern is explained, where it was taken; one colour scale for all."""
    low = min(float(values.min()) for values in residuals.values())
    high = max(float(values.max()) for values in residuals.values())
    figure, axes = _grid(1, len(residuals))
    for axis, (name, values) in zip(axes[0], residuals.items(), strict=True):
        shown = axis.scatter(
            positions_px[:, 1], positions_px[:, 0], c=values, s=14, vmin=low, vmax=high
        )
        axis.invert_yaxis()
        axis.set(aspect="equal", xlabel="x [px]", ylabel="y [px]")
        axis.set_title(name, fontsize="medium")
    figure.colorbar(shown, ax=axes, label="half deviance per detector pixel", shrink=0.8)
    figure.suptitle(title)
    return figure


def _grid(rows: int, columns: int, height: float = 1.0) -> tuple[Figure, np.ndarray]:
    """Return panels; `height` is in shares of the usual one."""
    figure, axes = plt.subplots(
        rows,
        columns,
        figsize=(1.25 * PANEL_IN * columns, height * PANEL_IN * rows),
        layout="constrained",
        squeeze=False,
        gridspec_kw={"wspace": 0.06},  # a colour bar's longest number
    )
    return figure, axes


def _phase_scale(largest_rad: float) -> dict[str, Any]:
    """Return map and limits; a cyclic map would make the ends of less than a turn look alike."""
    if largest_rad > WHOLE_TURN_RAD:
        return {"cmap": "twilight", "vmin": -np.pi, "vmax": np.pi}
    limit = largest_rad or 1.0
    return {"cmap": "gray", "vmin": -limit, "vmax": limit}


def _finish(axis: Axes, shown: AxesImage, title: str) -> None:
    axis.figure.colorbar(shown, ax=axis, shrink=0.8)
    axis.set(xticks=[], yticks=[])
    axis.set_title(title, fontsize="medium")


def draw_complex(axis: Axes, image: Complex[np.ndarray, "y x"], title: str) -> None:
    """Show a complex image with the wheel that explains its colours."""
    largest = float(np.percentile(np.abs(image), BRIGHTEST)) or 1.0
    axis.imshow(complex_colours(image, largest))
    axis.set(xticks=[], yticks=[])
    axis.set_title(title, fontsize="medium")
    legend = axis.inset_axes(LEGEND_PLACE)
    legend.imshow(colour_wheel(), origin="lower")
    legend.set_axis_off()
    _label(legend, ("0", "π/2", "π", "-π/2"))
    axis.text(0.3, 0.03, f"rim: {largest:.3g}", transform=axis.transAxes, fontsize=7, color="w")


def _label(legend: Axes, texts: Sequence[str]) -> None:
    places = ((1.12, 0.5), (0.5, 1.15), (-0.12, 0.5), (0.5, -0.15))
    for text, place in zip(texts, places, strict=True):
        legend.text(
            *place,
            text,
            transform=legend.transAxes,
            ha="center",
            va="center",
            fontsize=6,
            color="w",
        )


# --- The network that thinned counts teach

BINS = 10
LARGEST_ERROR = 99.0  # percentile of the errors at which the scale ends


def likelihood_gains(choices: Mapping[str, Sequence[Mapping[str, Any]]], *, title: str) -> Figure:
    """Show what held-out counts say of each strength, a panel per choice, with standard errors.

    Parameters
    ----------
    choices
        Candidates (family, strength, gain_nats, standard_error_nats) by what was chosen.
    title
        What they belong to.
    """
    figure, axes = plt.subplots(
        1,
        len(choices),
        figsize=(1.3 * PANEL_IN * len(choices), 1.1 * PANEL_IN),
        layout="constrained",
        squeeze=False,
    )
    colours = colours_of(one["family"] for tried in choices.values() for one in tried)
    lines = {}
    for axis, (name, candidates) in zip(axes[0], choices.items(), strict=True):
        for family in dict.fromkeys(one["family"] for one in candidates):
            rows = [one for one in candidates if one["family"] == family]
            lines[family] = axis.errorbar(
                [one["strength"] for one in rows],
                [one["gain_nats"] for one in rows],
                yerr=[one["standard_error_nats"] for one in rows],
                marker="o",
                markersize=3,
                capsize=2,
                color=colours[family],
                label=family.replace("_", " "),
            )
        axis.axhline(0, color="gray", linestyle=":")
        best = max(one["gain_nats"] for one in candidates)
        axis.set_ylim(-1.5 * max(abs(best), 0.1), 1.5 * max(best, 0.1))
        axis.set(xscale="log", xlabel="strength (px, or units of the noise)")
        plain_log_ticks(axis.xaxis)
        axis.set_title(name, fontsize="medium")
    axes[0, 0].set_ylabel("gain of held-out counts\n[nats per pattern]")
    axes[0, 0].legend(handles=list(lines.values()), fontsize="small")
    figure.suptitle(title)
    return figure


def validation_gains(history: Sequence[Mapping[str, float | int]], *, title: str) -> Figure:
    """Show how much likelier each member makes the counts of the validation strip than the base."""
    figure, axis = plt.subplots(figsize=(1.8 * PANEL_IN, 1.2 * PANEL_IN), layout="constrained")
    for member in dict.fromkeys(row["member"] for row in history):
        rows = [row for row in history if row["member"] == member]
        axis.errorbar(
            [row["step"] for row in rows],
            [row["validation_gain_nats"] for row in rows],
            yerr=[row["validation_error_nats"] for row in rows],
            marker="o",
            markersize=3,
            capsize=2,
            label=f"member {member:.0f}",
        )
    axis.axhline(0, color="gray", linestyle=":", label="base")
    axis.set(xlabel="step", ylabel="gain on the validation strip\n[nats per pattern]", title=title)
    axis.legend(fontsize="small")
    return figure


def trust_panels(trust: Float[np.ndarray, "k y x"], names: Sequence[str], *, title: str) -> Figure:
    """Show how far the network trusts each candidate in each pixel; those it trusts most first.

    Parameters
    ----------
    trust : (k, y, x)
        Sums to one in every pixel.
    names
        Of the candidates.
    title
        What they belong to.
    """
    order = np.argsort(-trust.mean(axis=(1, 2)), kind="stable")
    columns = min(len(order), 3)
    rows = -(-len(order) // columns)
    figure, axes = plt.subplots(
        rows,
        columns,
        figsize=(1.4 * PANEL_IN * columns, PANEL_IN * rows),
        layout="constrained",
        squeeze=False,
    )
    for axis in axes.flat:
        axis.set_axis_off()
    for axis, index in zip(axes.flat, order, strict=False):
        shown = axis.imshow(trust[index], cmap="viridis", vmin=0, vmax=1)
        share = trust[index].mean()
        axis.set_title(
            f"{names[index].replace('_', ' ')}, {share:.2f} on average", fontsize="small"
        )
    figure.colorbar(shown, ax=axes, shrink=0.7, label="trust")
    figure.suptitle(title)
    return figure


def gains_by_position(
    gains_nats: Mapping[str, Float[np.ndarray, " scan"]],
    positions_px: Float[np.ndarray, "scan 2"],
    *,
    title: str,
) -> Figure:
    """Show by how much the network makes each pattern's held-out counts likelier; 0 is the base."""
    figure, axes = plt.subplots(
        1,
        len(gains_nats),
        figsize=(1.7 * PANEL_IN * len(gains_nats), 1.1 * PANEL_IN),
        layout="constrained",
        squeeze=False,
    )
    top = max(float(np.abs(gains).max()) for gains in gains_nats.values()) or 1.0
    for axis, (name, gains) in zip(axes[0], gains_nats.items(), strict=True):
        shown = axis.scatter(
            positions_px[:, 1], positions_px[:, 0], c=gains, s=18, cmap="RdBu", vmin=-top, vmax=top
        )
        axis.invert_yaxis()
        axis.set(aspect="equal", xlabel="x [px]", ylabel="y [px]")
        error = gains.std(ddof=1) / len(gains) ** 0.5
        axis.set_title(f"{name}: mean {gains.mean():.3g} ± {error:.2g}", fontsize="medium")
    figure.colorbar(shown, ax=axes, label="gain [nats]", shrink=0.8)
    figure.suptitle(title)
    return figure


def spread_and_error(
    spreads: Mapping[str, Float[np.ndarray, "y x"]],
    aligned: Mapping[str, Complex[np.ndarray, "y x"]],
    truth: Complex[np.ndarray, "y x"],
    mask: Bool[np.ndarray, "y x"],
    *,
    title: str,
) -> Figure:
    """Show each arm's own standard deviation of the phase beside its true error; a row per arm.

    On the right pixels are sorted by the arm's own deviation into bins of equal size; on the dashed
    line the root mean square error of a bin is what the arm estimated.

    Parameters
    ----------
    spreads : (y, x)
        By arm, in radians; of those that have one.
    aligned : (y, x)
        Objects by arm, others too.
    truth, mask : (y, x)
        True object and scored pixels.
    title
        What they belong to.
    """
    figure, axes = plt.subplots(
        max(len(spreads), 1),
        3,
        figsize=(4.4 * PANEL_IN, 1.15 * PANEL_IN * max(len(spreads), 1)),
        layout="constrained",
        squeeze=False,
    )
    figure.suptitle(title)
    if not spreads:
        axes[0, 0].text(0.5, 0.5, "no arm estimates its own error", ha="center")
        for axis in axes[0]:
            axis.set_axis_off()
    for line, (name, spread) in zip(axes, spreads.items(), strict=False):
        error = np.angle(aligned[name] * truth.conj())
        top = float(np.percentile(np.abs(error[mask]), LARGEST_ERROR)) or 1.0
        panels = {
            f"{name}, its own standard deviation [rad]": spread,
            f"{name}, true: |error| [rad]": np.abs(error),
        }
        for axis, (text, image) in zip(line, panels.items(), strict=False):
            shown = axis.imshow(np.where(mask, image, np.nan), cmap="magma", vmin=0, vmax=top)
            axis.set_facecolor(NOT_SCORED)
            axis.set(xticks=[], yticks=[])
            axis.set_title(text, fontsize="medium")
            figure.colorbar(shown, ax=axis, shrink=0.7)
        _draw_calibration(line[2], *binned_spread(error[mask], spread[mask]))
    return figure


def _draw_calibration(
    axis: Axes, estimated: Float[np.ndarray, " bin"], found: Float[np.ndarray, " bin"]
) -> None:
    limits = (0.7 * min(estimated.min(), found.min()), 1.4 * max(estimated.max(), found.max()))
    axis.plot(limits, limits, color="gray", linestyle="--")
    axis.plot(estimated, found, marker="o")
    axis.set(
        xscale="log",
        yscale="log",
        xlabel="estimated by the arm [rad]",
        ylabel="true, root mean square [rad]",
    )
    for one in (axis.xaxis, axis.yaxis):
        plain_log_ticks(one)


def binned_spread(
    error_rad: Float[np.ndarray, " pixel"], std_rad: Float[np.ndarray, " pixel"]
) -> tuple[Float[np.ndarray, " bin"], Float[np.ndarray, " bin"]]:
    """Return root mean squares of an arm's own deviation and its error, in bins of equal size."""
    parts = np.array_split(np.argsort(std_rad, kind="stable"), BINS)
    estimated, found = (
        np.array([np.sqrt((values[part].astype(float) ** 2).mean()) for part in parts])
        for values in (std_rad, error_rad)
    )
    floor = 1e-6  # of a logarithmic axis
    return np.maximum(estimated, floor), np.maximum(found, floor)
