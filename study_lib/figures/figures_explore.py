"""Figures for looking around in a run. Matplotlib only: arrays in, Figure out."""

from collections.abc import Mapping, Sequence

import matplotlib.pyplot as plt
import numpy as np
from jaxtyping import Complex, Float
from matplotlib.figure import Figure
from matplotlib.patches import Circle

from study_lib.figures.common import PANEL_IN
from study_lib.figures.reconstruction import draw_complex

HERE = "tab:red"


def pattern_and_place(
    counts: Float[np.ndarray, "n n"],
    positions_px: Float[np.ndarray, "scan 2"],
    index: int,
    object_: Complex[np.ndarray, "y x"],
    probe: Complex[np.ndarray, "n n"],
    diameter_px: float,
    *,
    title: str,
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
    probe : (n, n)
        In sqrt(photons) per pixel.
    diameter_px
        Of the probe's disc, drawn around the position.
    title
        Above all panels.
    """
    figure, axes = plt.subplots(
        1,
        3,
        figsize=(4.4 * PANEL_IN, 1.25 * PANEL_IN),
        layout="constrained",
        width_ratios=(1, 1.6, 1),
    )
    shown = axes[0].imshow(np.log10(1 + counts), cmap="viridis")
    figure.colorbar(shown, ax=axes[0], shrink=0.8, label="log10(1 + photons)")
    axes[0].set_title(f"{counts.sum():,.0f} photons", fontsize="medium")
    shown = axes[1].imshow(np.angle(object_), cmap="gray")
    figure.colorbar(shown, ax=axes[1], shrink=0.8, label="phase of the truth [rad]")
    axes[1].scatter(positions_px[:, 1], positions_px[:, 0], s=5, color="tab:cyan", lw=0)
    row, column = positions_px[index].tolist()
    axes[1].scatter([column], [row], s=20, color=HERE)
    disc = Circle((column, row), diameter_px / 2, fill=False, color=HERE, lw=1.5)
    axes[1].add_patch(disc)
    axes[1].set(xlabel="column [px]", ylabel="row [px]")
    axes[1].set_title(f"position {index + 1} of {len(positions_px)}", fontsize="medium")
    draw_complex(axes[2], probe, "probe, amplitude and phase")
    axes[0].set(xticks=[], yticks=[])
    figure.suptitle(title)
    return figure


def cuts(
    phases_rad: Mapping[str, Float[np.ndarray, " sample"]],
    truth: Complex[np.ndarray, "y x"],
    row: int,
    *,
    title: str,
) -> Figure:
    """Show phases along a row, the truth in black, and where the row lies.

    Parameters
    ----------
    phases_rad : (sample,) by name
        Along the row; ``truth`` is one of them.
    truth : (y, x)
        The true object.
    row
        Of `truth`.
    title
        Above both panels.
    """
    figure, (above, below) = plt.subplots(
        2, 1, figsize=(3.2 * PANEL_IN, 2.2 * PANEL_IN), layout="constrained"
    )
    shown = above.imshow(np.angle(truth), cmap="gray")
    figure.colorbar(shown, ax=above, shrink=0.8, label="phase of the truth [rad]")
    above.axhline(row, color=HERE, lw=1)
    above.set(ylabel="row [px]", xlabel="column [px]")
    for name, phase_rad in phases_rad.items():
        is_truth = name == "truth"
        style = {"color": "black", "lw": 2.0, "zorder": 0} if is_truth else {"lw": 1.0}
        below.plot(phase_rad, label=name, **style)
    below.set(xlabel="column [px]", ylabel="phase [rad]", xlim=(0, truth.shape[1] - 1))
    below.legend(fontsize="small")
    figure.suptitle(title)
    return figure


def losses_of_jobs(
    curves: Mapping[str, tuple[Sequence[int], Sequence[float]]],
    counts: Mapping[str, int],
    *,
    title: str,
) -> Figure:
    """Show how many jobs are done, and the losses that running jobs have told, over their first.

    Parameters
    ----------
    curves
        Epochs and losses, by the name of the job.
    counts
        Jobs by their state.
    title
        Above both panels.
    """
    figure, (left, right) = plt.subplots(
        1, 2, figsize=(3.6 * PANEL_IN, 1.2 * PANEL_IN), layout="constrained", width_ratios=(1, 2.6)
    )
    bars = left.barh(list(counts), list(counts.values()), color="gray")
    left.bar_label(bars, padding=3)
    left.set(xlabel="jobs", xlim=(0, 1.2 * max(1, *counts.values())))
    left.invert_yaxis()
    for name, (steps, values) in curves.items():
        right.plot(steps, np.asarray(values) / values[0], marker=".", label=name)
    right.set(xlabel="epoch", ylabel="loss / first loss", yscale="log")
    if curves:
        right.legend(fontsize="small")
    else:
        right.text(0.5, 0.5, "no job tells a loss", ha="center", transform=right.transAxes)
    figure.suptitle(title)
    return figure
