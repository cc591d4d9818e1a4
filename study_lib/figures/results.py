"""Pictures of one condition: every arm beside the truth, with its errors on one scale."""

from collections.abc import Mapping, Sequence

import matplotlib.pyplot as plt
import numpy as np
from jaxtyping import Bool, Complex, Float
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.image import AxesImage

from study_lib.figures.common import NOT_SCORED, PANEL_IN, TITLE_IN, colours_of
from study_lib.scores.frc import first_below

Curves = Mapping[str, tuple[np.ndarray, np.ndarray]]


def condition_figure(
    truth: Complex[np.ndarray, "y x"],
    arms: Mapping[str, Complex[np.ndarray, "y x"]],
    mask: Bool[np.ndarray, "y x"],
    curves: Curves,
    *,
    threshold: float,
    ceiling: Float[np.ndarray, " ring"],
    title: str,
) -> Figure:
    """Show the phases of truth and arms, the arms' phase errors, and their FRC with the truth.

    Phases share the limits of the truth; errors share one scale, the 99th percentile of all.
    """
    columns = 1 + len(arms)
    height_in = TITLE_IN + 1.3 * PANEL_IN * min(truth.shape[0] / truth.shape[1], 1)
    figure, axes = plt.subplots(
        2,
        columns,
        figsize=(columns * 1.5 * PANEL_IN, 2 * max(height_in, 0.8 * PANEL_IN)),
        layout="constrained",
        squeeze=False,
    )
    inside = np.angle(truth)[mask]
    limits = (float(inside.min()), float(inside.max()))
    upper = [
        _panel(axis, np.where(mask, np.angle(object_), np.nan), name, "gray", limits)
        for axis, (name, object_) in zip(axes[0], {"truth": truth, **arms}.items(), strict=True)
    ]
    figure.colorbar(upper[0], ax=list(axes[0]), label="phase [rad]", shrink=0.8, fraction=0.03)
    errors = {name: np.angle(object_ * truth.conj()) for name, object_ in arms.items()}
    wide = max(float(np.percentile(np.abs(error[mask]), 99)) for error in errors.values())
    lower = [
        _panel(
            axis,
            np.where(mask, error, np.nan),
            f"{name}, root mean square {np.sqrt((error[mask] ** 2).mean()):.3g} rad",
            "RdBu_r",
            (-wide, wide),
        )
        for axis, (name, error) in zip(axes[1, 1:], errors.items(), strict=True)
    ]
    figure.colorbar(
        lower[0], ax=list(axes[1, 1:]), label="phase error [rad]", shrink=0.8, fraction=0.03
    )
    _draw_ring_correlations(axes[1, 0], curves, threshold, ceiling)
    lines = axes[1, 0].get_legend_handles_labels()
    figure.legend(*lines, loc="outside lower left", ncols=len(lines[0]), fontsize="small")
    figure.suptitle(title)
    return figure


def phase_error_spectra(
    arms: Mapping[str, Float[np.ndarray, " ring"]],
    frequency: Float[np.ndarray, " ring"],
    *,
    limit: Float[np.ndarray, " ring"],
    signal: Float[np.ndarray, " ring"],
    title: str,
) -> Figure:
    """Show the power of each arm's phase error by frequency, with photon limit and true phase."""
    figure, axis = plt.subplots(figsize=(2.4 * PANEL_IN, 1.2 * PANEL_IN), layout="constrained")
    colours = colours_of(arms)
    for name, power in arms.items():
        axis.plot(frequency, power, color=colours[name], label=name)
    if len(limit):
        axis.plot(frequency, limit, color="black", linestyle="--", label="photon limit")
        axis.plot(frequency, signal, color="black", linestyle=":", label="true phase")
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
    curves: Mapping[str, tuple[np.ndarray, np.ndarray]],
    threshold: float,
    ceiling: Float[np.ndarray, " ring"],
) -> None:
    """Draw every arm's FRC with the truth, the threshold, and the photons' ceiling if any."""
    colours = colours_of(curves)
    for name, (frequency, correlation) in curves.items():
        crosses = first_below(frequency, correlation - threshold) is not None
        label = name if crosses else f"{name}, never below"
        axis.plot(frequency, correlation, color=colours[name], label=label)
    if len(ceiling):
        axis.plot(frequency, ceiling, color="black", linestyle="--", label="photon limit")
    axis.axhline(threshold, linestyle=":", color="gray", label=f"threshold {threshold:g}")
    axis.set(xlabel="frequency / Nyquist", ylabel="FRC with the truth", ylim=(-0.2, 1.02))


def _panel(
    axis: Axes, image: np.ndarray, name: str, colours: str, limits: Sequence[float]
) -> AxesImage:
    shown = axis.imshow(image, cmap=colours, vmin=limits[0], vmax=limits[1])
    axis.set_facecolor(NOT_SCORED)
    axis.set_title(name, fontsize="small")
    axis.set(xticks=[], yticks=[])
    return shown
