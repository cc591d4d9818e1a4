"""Figures of iterative reconstructions. Matplotlib only: arrays in, Figure out."""

from collections.abc import Mapping, Sequence
from typing import Any

import matplotlib.pyplot as plt
import numpy as np
from jaxtyping import Complex, Float
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.image import AxesImage

from study_lib.figures.colours import colour_wheel, complex_colours
from study_lib.figures.common import PANEL_IN, plain_log_ticks

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
