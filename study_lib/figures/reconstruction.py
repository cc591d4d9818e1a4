"""Figures of reconstructions, iterated and learned. Matplotlib only: arrays in, Figure out."""

from collections.abc import Mapping, Sequence
from typing import Any

import matplotlib.pyplot as plt
import numpy as np
from jaxtyping import Bool, Complex, Float
from matplotlib.axes import Axes
from matplotlib.collections import PathCollection
from matplotlib.container import ErrorbarContainer
from matplotlib.figure import Figure

from study_lib.figures.common import (
    PANEL_IN,
    colour_wheel,
    colours_of,
    complex_colours,
    draw_image,
    grid,
    plain_log_ticks,
)
from study_lib.physics.probe import mode_shares, modes_of

# --- Iterations

LEGEND_PLACE = (0.04, 0.07, 0.2, 0.2)  # in shares of a panel
WHOLE_TURN_RAD = 0.9 * np.pi  # largest phase from which on both signs are taken to meet
WHEEL_LABELS = {"0": (1.12, 0.5), "π/2": (0.5, 1.15), "π": (-0.12, 0.5), "-π/2": (0.5, -0.15)}
BRIGHTEST = 99.5  # percentile that gets full lightness


def objects(panels: Mapping[str, Complex[np.ndarray, "y x"]], *, title: str) -> Figure:
    """Show amplitude, phase, and both in one, a row for each algorithm, on common scales."""
    rows_px, columns_px = next(iter(panels.values())).shape
    height = min(1.2 * rows_px / columns_px + 0.15, 1.0)
    figure, axes = _wide_grid(len(panels), 3, title, height)
    low = min(float(np.abs(object_).min()) for object_ in panels.values())
    high = max(float(np.abs(object_).max()) for object_ in panels.values())
    phases = _phase_scale(max(float(np.abs(np.angle(part)).max()) for part in panels.values()))
    for row, (name, object_) in zip(axes, panels.items(), strict=True):
        amplitude = np.abs(object_)
        _draw_scaled(row[0], amplitude, f"{name}: amplitude", cmap="gray", vmin=low, vmax=high)
        _draw_scaled(row[1], np.angle(object_), f"{name}: phase [rad]", **phases)
        draw_complex(row[2], object_, f"{name}: both")
    return figure


def probes(panels: Mapping[str, Complex[np.ndarray, "..."]], *, title: str) -> Figure:
    """Show amplitude, and amplitude and phase in one, a column for each mode of each algorithm."""
    modes = {
        name if probe.ndim == 2 else f"{name}, mode {number} ({share:.0%} of the power)": mode
        for name, probe in panels.items()
        for number, (mode, share) in enumerate(
            zip(modes_of(probe), mode_shares(probe), strict=True), start=1
        )
    }
    figure, axes = _wide_grid(2, len(modes), title)
    for column, (name, probe) in zip(axes.T, modes.items(), strict=True):
        text = f"{name}: amplitude [sqrt(photons)]"
        _draw_scaled(column[0], np.abs(probe), text, cmap="gray", vmin=0)
        draw_complex(column[1], probe, f"{name}: amplitude and phase")
    return figure


def convergence(
    losses: Mapping[str, Float[np.ndarray, " epochs"]],
    wall_s: Mapping[str, Float[np.ndarray, " epochs"]],
    *,
    title: str,
) -> Figure:
    """Show each loss, over its first value, against epochs and against seconds."""
    figure, ((left, right),) = grid(1, 2, (3 * PANEL_IN, 1.2 * PANEL_IN), title, sharey=True)
    for name, values in losses.items():
        relative = np.asarray(values) / values[0]
        left.plot(np.arange(1, len(values) + 1), relative, label=name)
        right.plot(wall_s[name], relative, label=name)
    left.set(xlabel="epoch", ylabel="loss / first loss", yscale="log")
    right.set(xlabel="time since start [s]", xscale="log")
    plain_log_ticks(right.xaxis, (1, 3))
    left.legend()
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
    figure, (axes,) = _wide_grid(1, len(residuals), title)
    for axis, (name, values) in zip(axes, residuals.items(), strict=True):
        shown = _draw_places(axis, positions_px, name, c=values, s=14, vmin=low, vmax=high)
    figure.colorbar(shown, ax=axes, label="half deviance per detector pixel", shrink=0.8)
    return figure


def _wide_grid(
    rows: int, columns: int, title: str, height: float = 1.0
) -> tuple[Figure, np.ndarray]:
    """Return panels with room for colour bars; `height` is in shares of the usual one."""
    size_in = (1.25 * PANEL_IN * columns, height * PANEL_IN * rows)
    longest_number = {"wspace": 0.06}  # of a colour bar
    return grid(rows, columns, size_in, title, gridspec_kw=longest_number)


def _draw_places(
    axis: Axes, positions_px: Float[np.ndarray, "scan 2"], title: str, **dots: Any
) -> PathCollection:
    shown = axis.scatter(positions_px[:, 1], positions_px[:, 0], **dots)
    axis.invert_yaxis()
    axis.set(aspect="equal", xlabel="x [px]", ylabel="y [px]")
    axis.set_title(title, fontsize="medium")
    return shown


def _phase_scale(largest_rad: float) -> dict[str, Any]:
    """Return map and limits; a cyclic map would make the ends of less than a turn look alike."""
    if largest_rad > WHOLE_TURN_RAD:
        return {"cmap": "twilight", "vmin": -np.pi, "vmax": np.pi}
    limit = largest_rad or 1.0
    return {"cmap": "gray", "vmin": -limit, "vmax": limit}


def _draw_scaled(
    axis: Axes, image: np.ndarray, title: str, shrink: float = 0.8, **colours: Any
) -> None:
    shown = draw_image(axis, image, title, "medium", **colours)
    axis.figure.colorbar(shown, ax=axis, shrink=shrink)


def draw_complex(axis: Axes, image: Complex[np.ndarray, "y x"], title: str) -> None:
    """Show a complex image with the wheel that explains its colours."""
    largest = float(np.percentile(np.abs(image), BRIGHTEST)) or 1.0
    draw_image(axis, complex_colours(image, largest), title, "medium")
    legend = axis.inset_axes(LEGEND_PLACE)
    legend.imshow(colour_wheel(), origin="lower")
    legend.set_axis_off()
    centred: dict[str, Any] = {"ha": "center", "va": "center", "transform": legend.transAxes}
    for text, place in WHEEL_LABELS.items():
        legend.text(*place, text, fontsize=6, color="w", **centred)
    axis.text(0.3, 0.03, f"rim: {largest:.3g}", transform=axis.transAxes, fontsize=7, color="w")


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
    size_in = (1.3 * PANEL_IN * len(choices), 1.1 * PANEL_IN)
    figure, (axes,) = grid(1, len(choices), size_in, title)
    colours = colours_of(one["family"] for tried in choices.values() for one in tried)
    lines = {}
    for axis, (name, candidates) in zip(axes, choices.items(), strict=True):
        for family in dict.fromkeys(one["family"] for one in candidates):
            rows = [one for one in candidates if one["family"] == family]
            names = ("strength", "gain_nats", "standard_error_nats")
            label = family.replace("_", " ")
            lines[family] = _draw_gains(axis, rows, names, label, color=colours[family])
        axis.axhline(0, color="gray", linestyle=":")
        best = max(one["gain_nats"] for one in candidates)
        axis.set_ylim(-1.5 * max(abs(best), 0.1), 1.5 * max(best, 0.1))
        axis.set(xscale="log", xlabel="strength (px, or units of the noise)")
        plain_log_ticks(axis.xaxis)
        axis.set_title(name, fontsize="medium")
    axes[0].set_ylabel("gain of held-out counts\n[nats per pattern]")
    axes[0].legend(handles=list(lines.values()), fontsize="small")
    return figure


def validation_gains(history: Sequence[Mapping[str, float | int]], *, title: str) -> Figure:
    """Show how much likelier each member makes the counts that it left out than the base does."""
    figure, axis = plt.subplots(figsize=(1.8 * PANEL_IN, 1.2 * PANEL_IN), layout="constrained")
    for member in dict.fromkeys(row["member"] for row in history):
        rows = [row for row in history if row["member"] == member]
        names = ("step", "validation_gain_nats", "validation_error_nats")
        _draw_gains(axis, rows, names, f"member {member:.0f}")
    axis.axhline(0, color="gray", linestyle=":", label="base")
    axis.set(xlabel="step", ylabel="gain on what it left out\n[nats per pattern]", title=title)
    axis.legend(fontsize="small")
    return figure


def _draw_gains(
    axis: Axes,
    rows: Sequence[Mapping[str, Any]],
    names: tuple[str, str, str],
    label: str,
    color: str | None = None,
) -> ErrorbarContainer:
    """Draw a line with error bars; `names` are those of x, y and error in the rows."""
    x, y, error = ([row[name] for row in rows] for name in names)
    dots: dict[str, Any] = {"marker": "o", "markersize": 3, "capsize": 2}
    return axis.errorbar(x, y, yerr=error, color=color, label=label, **dots)


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
    figure, axes = grid(rows, columns, (1.4 * PANEL_IN * columns, PANEL_IN * rows), title)
    for axis in axes.flat:
        axis.set_axis_off()
    for axis, index in zip(axes.flat, order, strict=False):
        shown = axis.imshow(trust[index], cmap="viridis", vmin=0, vmax=1)
        share = trust[index].mean()
        name = names[index].replace("_", " ")
        axis.set_title(f"{name}, {share:.2f} on average", fontsize="small")
    figure.colorbar(shown, ax=axes, shrink=0.7, label="trust")
    return figure


def gains_by_position(
    gains_nats: Mapping[str, Float[np.ndarray, " scan"]],
    positions_px: Float[np.ndarray, "scan 2"],
    *,
    title: str,
) -> Figure:
    """Show by how much the network makes each pattern's held-out counts likelier; 0 is the base."""
    size_in = (1.7 * PANEL_IN * len(gains_nats), 1.1 * PANEL_IN)
    figure, (axes,) = grid(1, len(gains_nats), size_in, title)
    top = max(float(np.abs(gains).max()) for gains in gains_nats.values()) or 1.0
    for axis, (name, gains) in zip(axes, gains_nats.items(), strict=True):
        error = gains.std(ddof=1) / len(gains) ** 0.5
        text = f"{name}: mean {gains.mean():.3g} ± {error:.2g}"
        colours: dict[str, Any] = {"cmap": "RdBu", "vmin": -top, "vmax": top}
        shown = _draw_places(axis, positions_px, text, c=gains, s=18, **colours)
    figure.colorbar(shown, ax=axes, label="gain [nats]", shrink=0.8)
    return figure


def spread_and_error(
    spreads: Mapping[str, Float[np.ndarray, "y x"]],
    aligned: Mapping[str, Complex[np.ndarray, "y x"]],
    truth: Complex[np.ndarray, "y x"],
    mask: Bool[np.ndarray, "y x"],
    *,
    title: str,
    held_against: str = "truth",
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
    held_against
        What ``truth`` is called.
    """
    rows = max(len(spreads), 1)
    true = "true" if held_against == "truth" else f"from the {held_against}"
    figure, axes = grid(rows, 3, (4.4 * PANEL_IN, 1.15 * PANEL_IN * rows), title)
    if not spreads:
        axes[0, 0].text(0.5, 0.5, "no arm estimates its own error", ha="center")
        for axis in axes[0]:
            axis.set_axis_off()
    for line, (name, spread) in zip(axes, spreads.items(), strict=False):
        error = np.angle(aligned[name] * truth.conj())
        top = float(np.percentile(np.abs(error[mask]), LARGEST_ERROR)) or 1.0
        panels = {
            f"{name}, its own standard deviation [rad]": spread,
            f"{name}, {true}: |error| [rad]": np.abs(error),
        }
        for axis, (text, image) in zip(line, panels.items(), strict=False):
            scored = np.where(mask, image, np.nan)
            _draw_scaled(axis, scored, text, shrink=0.7, cmap="magma", vmin=0, vmax=top)
        _draw_calibration(line[2], *binned_spread(error[mask], spread[mask]))
        line[2].set_ylabel(f"{true}, root mean square [rad]")
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
