"""Figures of the lessons, and to look around in a run. Arrays in, Figure out."""

from collections.abc import Mapping, Sequence

import matplotlib.pyplot as plt
import numpy as np
from jaxtyping import Complex, Float
from matplotlib.axes import Axes
from matplotlib.colors import LogNorm
from matplotlib.figure import Figure
from matplotlib.patches import Circle

from study_lib.figures.common import (
    PANEL_IN,
    draw_bars,
    draw_image,
    draw_pattern,
    grid,
    phase_limits,
)
from study_lib.figures.reconstruction import draw_complex
from study_lib.figures.scene import disc_of_middle, draw_photons_below
from study_lib.physics.probe import modes_of

# --- Lessons: waves, patterns, scans, ring correlations

DARK_SHARE = 0.05
THRESHOLD_STYLES = ("--", "-.", ":", (0, (5, 1, 1, 1, 1, 1)))


def waves(panels: Mapping[str, Complex[np.ndarray, "n n"]]) -> Figure:
    """Show the amplitude and the phase of waves on the same pixels, each under its title.

    The phase is blank where the amplitude is below 5 % of the largest.
    """
    size_in = (2.7 * len(panels) + 0.6, 4.7)
    figure, axes = grid(2, len(panels), size_in, sharex=True, sharey=True)
    for (upper, lower), (title, wave) in zip(axes.T, panels.items(), strict=True):
        amplitude = np.abs(wave)
        shown = upper.imshow(amplitude, cmap="gray", vmin=0, interpolation="nearest")
        figure.colorbar(shown, ax=upper, label="amplitude", shrink=0.75)
        phase_rad = np.where(amplitude > DARK_SHARE * amplitude.max(), np.angle(wave), np.nan)
        turned = lower.imshow(
            phase_rad, cmap="twilight", vmin=-np.pi, vmax=np.pi, interpolation="nearest"
        )
        figure.colorbar(turned, ax=lower, label="phase [rad]", shrink=0.75, ticks=(-2, 0, 2))
        upper.set_title(title, fontsize="medium")
        lower.set_xlabel("column [px]")
    for axis in axes[:, 0]:
        axis.set_ylabel("row [px]")
    return figure


def phases(panels: Mapping[str, Complex[np.ndarray, "y x"]]) -> Figure:
    """Show the phase of images of one size with the limits of the first."""
    rows_px, columns_px = next(iter(panels.values())).shape
    size_in = (2.5 * len(panels) + 0.9, 2.5 * rows_px / columns_px + 0.5)
    figure, (axes,) = grid(1, len(panels), size_in)
    limits = phase_limits(next(iter(panels.values())))
    for axis, (title, image) in zip(axes, panels.items(), strict=True):
        shown = draw_image(
            axis, np.angle(image), title, "medium", interpolation="nearest", **limits
        )
    figure.colorbar(shown, ax=axes, label="phase [rad]", shrink=0.8)
    return figure


def patterns(
    panels: Mapping[str, Float[np.ndarray, "n n"]], bright_field_per_px: float, smallest: float
) -> Figure:
    """Show patterns under their titles on one logarithmic scale, from `smallest` photons on.

    Rows and columns are labelled with the frequency in the object that they hold. The dotted circle
    is the edge of the bright field, the frequency where the pupil ends.
    """
    figure, (axes,) = grid(1, len(panels), (2.7 * len(panels) + 0.9, 2.9), sharey=True)
    scale = LogNorm(smallest, max(float(pattern.max()) for pattern in panels.values()))
    for axis, (title, pattern) in zip(axes, panels.items(), strict=True):
        edge = Circle((0, 0), bright_field_per_px, fill=False, ls=":", color="cyan", lw=1.2)
        shown = draw_pattern(axis, pattern, scale, edge)
        axis.set_title(title, fontsize="medium")
        axis.set_xlabel("column frequency [1/px]")
    axes[0].set_ylabel("row frequency [1/px]")
    figure.colorbar(shown, ax=axes, label="photons", shrink=0.8)
    return figure


def scans(
    places: Mapping[str, Float[np.ndarray, "scan 2"]],
    photons: Mapping[str, Float[np.ndarray, "oy ox"]],
    diameter_px: float,
    *,
    title: str,
) -> Figure:
    """Show scans of one object: positions with one probe disc above, photons per pixel below."""
    size_in = (2.4 * len(places) + 1, 5.4)
    figure, axes = grid(2, len(places), size_in, title, sharex=True, sharey=True)
    for axis, (name, scan) in zip(axes[0], places.items(), strict=True):
        axis.scatter(scan[:, 1], scan[:, 0], s=5, color="tab:orange", lw=0)
        axis.add_patch(disc_of_middle(scan, diameter_px, color="black", lw=1.2))
        axis.set_aspect("equal")
        axis.set_title(f"{name}: {len(scan)} patterns", fontsize="medium")
    draw_photons_below(figure, axes, [photons[name] for name in places], shrink=0.7)
    return figure


def ring_correlations(
    frequency: Float[np.ndarray, " ring"],
    curves: Mapping[str, Float[np.ndarray, " ring"]],
    thresholds: Mapping[str, Float[np.ndarray, " ring"]],
    *,
    title: str,
) -> Figure:
    """Show correlations against frequency in fractions of Nyquist, with thresholds in grey."""
    figure, axis = plt.subplots(figsize=(7.4, 3.8), layout="constrained")
    for label, correlation in curves.items():
        axis.plot(frequency, correlation, label=label, lw=1.4)
    lowest = min(float(correlation.min()) for correlation in curves.values())
    _finish_correlations(axis, frequency, thresholds, title, min(lowest, 0.0))
    return figure


def correlations_by_chance(
    frequency: Float[np.ndarray, " ring"],
    correlations: Float[np.ndarray, "pair ring"],
    deviation: Float[np.ndarray, " ring"],
    thresholds: Mapping[str, Float[np.ndarray, " ring"]],
) -> Figure:
    """Show the correlations of unrelated pairs as dots, and twice the deviation to expect."""
    figure, axis = plt.subplots(figsize=(7.4, 3.8), layout="constrained")
    every = np.broadcast_to(frequency, correlations.shape)
    axis.scatter(every, correlations, s=7, color="tab:blue", alpha=0.35, lw=0, label="a pair")
    for sign in (-1, 1):
        label = "twice the expected deviation" if sign > 0 else None
        axis.plot(frequency, 2 * sign * deviation, color="tab:orange", lw=1.2, label=label)
    title = f"FRC of unrelated noise, {len(correlations)} pairs"
    _finish_correlations(axis, frequency, thresholds, title, -1.0)
    return figure


def _finish_correlations(
    axis: Axes,
    frequency: Float[np.ndarray, " ring"],
    thresholds: Mapping[str, Float[np.ndarray, " ring"]],
    title: str,
    lowest: float,
) -> None:
    """Draw thresholds, then label the axes, which reach from the lowest correlation to 1."""
    for style, (name, level) in zip(THRESHOLD_STYLES, thresholds.items(), strict=False):
        axis.plot(frequency, level, color="0.45", ls=style, lw=1, label=f"threshold {name}")
    axis.set(
        xlabel="frequency / Nyquist",
        ylabel="Fourier ring correlation",
        title=title,
        xlim=(0, 1),
        ylim=(lowest - 0.05, 1.05),
    )
    axis.legend(loc="center left", bbox_to_anchor=(1.0, 0.5), fontsize="small", markerscale=2)


# --- Looking around in a run

HERE = "tab:red"


def pattern_and_place(
    counts: Float[np.ndarray, "n n"],
    positions_px: Float[np.ndarray, "scan 2"],
    index: int,
    object_: Complex[np.ndarray, "y x"],
    probe: Complex[np.ndarray, "*modes n n"],
    diameter_px: float,
    *,
    title: str,
    held_against: str = "truth",
) -> Figure:
    """Show a diffraction pattern, its scan position over the object, and the probe.

    Parameters
    ----------
    counts : (n, n)
        Photons per detector pixel.
    positions_px : (scan, 2)
        (row, column) of every position, in pixels of `object_`.
    index
        Of the position whose pattern it is.
    object_ : (y, x)
        Its phase lies under the positions.
    probe : (n, n) or (modes, n, n)
        In sqrt(photons) per pixel.
    diameter_px
        Of the probe's disc, drawn around the position.
    title
        Above all panels.
    held_against
        What the object is called: truth, or reference.
    """
    size_in = (4.4 * PANEL_IN, 1.25 * PANEL_IN)
    figure, ((left, middle, right),) = grid(1, 3, size_in, title, width_ratios=(1, 1.6, 1))
    shown = left.imshow(np.log10(1 + counts), cmap="viridis")
    figure.colorbar(shown, ax=left, shrink=0.8, label="log10(1 + photons)")
    left.set(xticks=[], yticks=[])
    left.set_title(f"{counts.sum():,.0f} photons", fontsize="medium")
    shown = middle.imshow(np.angle(object_), cmap="gray")
    figure.colorbar(shown, ax=middle, shrink=0.8, label=f"phase of the {held_against} [rad]")
    middle.scatter(positions_px[:, 1], positions_px[:, 0], s=5, color="tab:cyan", lw=0)
    row, column = positions_px[index].tolist()
    middle.scatter([column], [row], s=20, color=HERE)
    disc = Circle((column, row), diameter_px / 2, fill=False, color=HERE, lw=1.5)
    middle.add_patch(disc)
    middle.set(xlabel="column [px]", ylabel="row [px]")
    middle.set_title(f"position {index + 1} of {len(positions_px)}", fontsize="medium")
    text = "probe" if probe.ndim == 2 else f"strongest of the probe's {len(probe)} modes"
    draw_complex(right, modes_of(probe)[0], f"{text}, amplitude and phase")
    return figure


def cuts(
    phases_rad: Mapping[str, Float[np.ndarray, " sample"]],
    truth: Complex[np.ndarray, "y x"],
    row: int,
    *,
    title: str,
    held_against: str = "truth",
) -> Figure:
    """Show phases along a row, the truth in black, and where the row lies.

    Parameters
    ----------
    phases_rad : (sample,) by name
        Along the row; ``held_against`` is one of them.
    truth : (y, x)
        The true object.
    row
        Of `truth`.
    title
        Above both panels.
    held_against
        What the true object is called: truth, or reference.
    """
    figure, ((above,), (below,)) = grid(2, 1, (3.2 * PANEL_IN, 2.2 * PANEL_IN), title)
    shown = above.imshow(np.angle(truth), cmap="gray")
    figure.colorbar(shown, ax=above, shrink=0.8, label=f"phase of the {held_against} [rad]")
    above.axhline(row, color=HERE, lw=1)
    above.set(ylabel="row [px]", xlabel="column [px]")
    for name, phase_rad in phases_rad.items():
        is_truth = name == held_against
        style = {"color": "black", "lw": 2.0, "zorder": 0} if is_truth else {"lw": 1.0}
        below.plot(phase_rad, label=name, **style)
    below.set(xlabel="column [px]", ylabel="phase [rad]", xlim=(0, truth.shape[1] - 1))
    below.legend(fontsize="small")
    return figure


def losses_of_jobs(
    curves: Mapping[str, tuple[Sequence[int], Sequence[float]]],
    counts: Mapping[str, int],
    *,
    title: str,
) -> Figure:
    """Show how many jobs are done, and the losses of the running jobs over their first.

    Parameters
    ----------
    curves
        Epochs and losses, by the name of the job.
    counts
        Jobs by their state.
    title
        Above both panels.
    """
    size_in = (3.6 * PANEL_IN, 1.2 * PANEL_IN)
    figure, ((left, right),) = grid(1, 2, size_in, title, width_ratios=(1, 2.6))
    draw_bars(left, counts, "jobs")
    for name, (steps, values) in curves.items():
        right.plot(steps, np.asarray(values) / values[0], marker=".", label=name)
    right.set(xlabel="epoch", ylabel="loss / first loss", yscale="log")
    if curves:
        right.legend(fontsize="small")
    else:
        right.text(0.5, 0.5, "no job tells a loss", ha="center", transform=right.transAxes)
    return figure
