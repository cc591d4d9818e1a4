"""Figures of an overlap view: how near and how even its positions are. Arrays in, Figure out."""

from collections.abc import Mapping

import matplotlib.pyplot as plt
import numpy as np
from jaxtyping import Complex, Float, Int
from matplotlib.figure import Figure
from matplotlib.patches import Circle

from study_lib.figures.common import SPLIT_COLOURS


def view_positions(
    whole: Mapping[str, Float[np.ndarray, "scan 2"]],
    used: Mapping[str, Float[np.ndarray, "used 2"]],
    object_: Complex[np.ndarray, "oy ox"],
    diameter_px: float,
    *,
    title: str,
) -> Figure:
    """Show the kept positions of every split over the phase of the object, those left out in white.

    The discs of one position of each split and of its nearest are drawn: what they share is the
    overlap.
    """
    figure, axis = plt.subplots(figsize=(6.4, 5.2), layout="constrained")
    axis.imshow(np.angle(object_), cmap="gray", interpolation="nearest")
    for split, places in used.items():
        colour = SPLIT_COLOURS[split]
        every = whole[split]
        axis.scatter(every[:, 1], every[:, 0], s=2, color="white", lw=0)
        axis.scatter(
            places[:, 1], places[:, 0], s=9, color=colour, lw=0, label=f"{split}: {len(places)}"
        )
        from_middle = np.linalg.norm(places - places.mean(axis=0), axis=1)
        middle = places[from_middle.argmin()]
        nearest = np.linalg.norm(places - middle, axis=1).argsort()[:2]
        for row, column in places[nearest].tolist():
            disc = Circle((column, row), diameter_px / 2, fill=True, alpha=0.35, color=colour)
            axis.add_patch(disc)
    axis.set(xlabel="column [px]", ylabel="row [px]", title=title)
    axis.legend(loc="upper right", fontsize="small")
    return figure


def distances_and_overlaps(
    distances_px: Mapping[str, Float[np.ndarray, "..."]],
    overlaps: Mapping[str, Float[np.ndarray, "..."]],
    *,
    diameter_px: float,
    target: float | None,
    title: str,
) -> Figure:
    """Show how far the nearest other position is, and how much each overlaps with its nearest K.

    Parameters
    ----------
    distances_px : (scan,) by split
        To the nearest other position.
    overlaps : (scan,) by split
        Mean disc overlap with the K nearest; their mean, metric 2, is a line.
    diameter_px, target, title
        The disc; the overlap that was wanted, if any; the headline.
    """
    figure, (left, right) = plt.subplots(1, 2, figsize=(9, 3.4), layout="constrained")
    for split, values in distances_px.items():
        left.hist(values, bins=30, alpha=0.6, color=SPLIT_COLOURS[split], label=split)
    left.axvline(diameter_px, ls=":", color="0.3", label=f"probe diameter {diameter_px:.1f} px")
    left.set(xlabel="distance to the nearest other position [px]", ylabel="positions")
    for split, values in overlaps.items():
        colour = SPLIT_COLOURS[split]
        label = f"{split}: mean {values.mean():.3f} (metric 2)"
        right.hist(values, bins=30, range=(0, 1), alpha=0.6, color=colour)
        right.axvline(values.mean(), color=colour, label=label)
    if target is not None:
        right.axvline(target, ls="--", color="black", label=f"target {target:g}")
    right.set(xlabel="mean disc overlap with the K nearest", ylabel="positions")
    for axis in (left, right):
        axis.legend(fontsize="small")
    figure.suptitle(title)
    return figure


def coverage_map(patterns: Int[np.ndarray, "oy ox"], *, title: str) -> Figure:
    """Show how many probe discs reach each object pixel; none is marked in colour."""
    figure, axis = plt.subplots(figsize=(6.4, 5.2), layout="constrained")
    colours = plt.get_cmap("viridis").with_extremes(bad="lightsteelblue")
    lit = np.where(patterns > 0, patterns.astype(float), np.nan)
    shown = axis.imshow(lit, cmap=colours, vmin=0, interpolation="nearest")
    figure.colorbar(shown, ax=axis, label="probe discs over each pixel; pale blue: none")
    axis.set(xlabel="column [px]", ylabel="row [px]", title=title)
    return figure
