"""Figures of what is studied: objects, probe, scans, views. Arrays in, Figure out."""

from collections.abc import Mapping, Sequence
from typing import Any

import matplotlib.pyplot as plt
import numpy as np
from jaxtyping import Complex, Float, Int
from matplotlib.axes import Axes
from matplotlib.colors import LogNorm
from matplotlib.figure import Figure
from matplotlib.patches import Circle
from matplotlib.ticker import MaxNLocator

from study_lib.figures.common import SPLIT_COLOURS, draw_pattern, grid
from study_lib.physics.probe import modes_of, power_of

# --- Objects, probe, scans, coverage

DARK_SHARE = 0.05


def objects_and_probe(
    objects: Mapping[str, Complex[np.ndarray, "oy ox"]], probe: Complex[np.ndarray, "*modes n n"]
) -> Figure:
    """Show phase and amplitude of objects under their titles, and of the probe beside them.

    The probe's phase, that of its strongest mode, is blank where its amplitude is below 5 % of the
    largest.
    """
    count = len(objects) + 1
    figure, axes = grid(2, count, (2.1 * count, 6.8))
    for (upper, lower), (title, object_) in zip(axes.T, objects.items(), strict=False):
        limit = float(np.abs(np.angle(object_)).max())
        _picture(upper, np.angle(object_), "phase [rad]", cmap="RdBu_r", vmin=-limit, vmax=limit)
        _picture(lower, np.abs(object_), "amplitude", cmap="gray")
        upper.set_title(title, fontsize="small")
    upper, lower = axes[:, -1]
    modes = modes_of(probe)
    amplitude = np.sqrt(power_of(probe) / power_of(probe).max())
    phase = np.where(amplitude > DARK_SHARE, np.angle(modes[0]), np.nan)
    _picture(upper, phase, "phase [rad]", cmap="twilight", vmin=-np.pi, vmax=np.pi)
    _picture(lower, amplitude, "amplitude / largest", cmap="gray")
    upper.set_title(_probe_title(modes), fontsize="small")
    return figure


def _probe_title(modes: Complex[np.ndarray, "each n n"]) -> str:
    side = modes.shape[-1]
    counted = "" if len(modes) == 1 else f"{len(modes)} modes, "
    return f"probe, {counted}{side} x {side} pixels"


def patterns_by_dose(
    counts: Mapping[str, Int[np.ndarray, "dose n n"]],
    doses: Sequence[float],
    bright_field_per_px: float,
) -> Figure:
    """Show patterns, a row per object and a column per dose, all on one logarithmic scale.

    Rows and columns of the detector are labelled with the frequency in the object that they hold.
    The dotted circle is the edge of the bright field, the frequency where the pupil ends.
    """
    size_in = (2.3 * len(doses) + 1.2, 2.3 * len(counts))
    figure, axes = grid(len(counts), len(doses), size_in, sharex=True, sharey=True)
    scale = LogNorm(0.3, max(float(pattern.max()) for pattern in counts.values()))
    for line, (name, patterns) in zip(axes, counts.items(), strict=True):
        for axis, pattern in zip(line, patterns, strict=True):
            edge = Circle((0, 0), bright_field_per_px, fill=False, ls=":", color="white", lw=0.8)
            shown = draw_pattern(axis, pattern, scale, edge)
        line[0].set_ylabel(f"{name}\nrow frequency [1/px]")
    for upper, lower, dose in zip(axes[0], axes[-1], doses, strict=True):
        upper.set_title(f"{dose:,.0f} photons per pattern", fontsize="small")
        lower.set_xlabel("column frequency [1/px]")
    figure.colorbar(shown, ax=axes, label="counts; black: none", shrink=0.6)
    return figure


def coverage(
    photons: Float[np.ndarray, "oy ox"],
    patterns: Int[np.ndarray, "oy ox"],
    splits: Mapping[str, Float[np.ndarray, "scan 2"]],
    diameter_px: float,
    *,
    title: str,
) -> Figure:
    """Show photons and patterns per object pixel, with every position and one disc per split."""
    figure, (axes,) = grid(1, 2, (7.6, 6.0), title)
    _picture(axes[0], photons, "photons per object pixel", cmap="gray", vmin=0)
    _picture(axes[1], patterns, "probe discs over each pixel", cmap="gray", vmin=0)
    for axis in axes:
        _scatter(axis, splits, diameter_px)
    axes[0].legend(loc="upper right", fontsize="small", markerscale=2)
    return figure


def scans(
    splits: Mapping[str, Mapping[str, Float[np.ndarray, "scan 2"]]],
    photons: Mapping[str, Float[np.ndarray, "oy ox"]],
    diameter_px: float,
    *,
    title: str,
) -> Figure:
    """Show kinds of scan side by side: positions above, photons per object pixel below."""
    size_in = (2.4 * len(splits) + 1, 7.2)
    figure, axes = grid(2, len(splits), size_in, title, sharex=True, sharey=True)
    for axis, (name, places) in zip(axes[0], splits.items(), strict=True):
        axis.set_facecolor("0.15")
        axis.set_aspect("equal")
        _scatter(axis, places, diameter_px)
        counts = ", ".join(f"{split} {len(block)}" for split, block in places.items())
        axis.set_title(f"{name}: {counts}", fontsize="small")
    draw_photons_below(figure, axes, [photons[name] for name in splits], shrink=0.5)
    return figure


def draw_photons_below(
    figure: Figure,
    axes: np.ndarray,
    photons: Sequence[Float[np.ndarray, "oy ox"]],
    *,
    shrink: float,
) -> None:
    """Draw photons per object pixel on one scale in the lower of two rows; label both rows."""
    largest = max(float(image.max()) for image in photons)
    for axis, image in zip(axes[1], photons, strict=True):
        shown = axis.imshow(image, cmap="viridis", vmin=0, vmax=largest, interpolation="nearest")
        axis.set_facecolor(plt.get_cmap("viridis")(0.0))
        axis.set_xlabel("column [px]")
    for axis in axes[:, 0]:
        axis.set_ylabel("row [px]")
    figure.colorbar(shown, ax=axes, label="photons per object pixel", shrink=shrink)


def _scatter(
    axis: Axes, splits: Mapping[str, Float[np.ndarray, "scan 2"]], diameter_px: float
) -> None:
    """Draw positions in the colour of their split, and the disc of the middle one of each."""
    for name, places in splits.items():
        colour = SPLIT_COLOURS[name]
        axis.scatter(places[:, 1], places[:, 0], s=6, color=colour, lw=0, label=name)
        axis.add_patch(disc_of_middle(places, diameter_px, color=colour, lw=1.5))


def disc_of_middle(
    places: Float[np.ndarray, "scan 2"], diameter_px: float, *, color: str, lw: float
) -> Circle:
    """Return the outline of the probe disc about the position nearest to the middle of a scan."""
    middle = np.linalg.norm(places - places.mean(axis=0), axis=1).argmin()
    row, column = places[middle].tolist()
    return Circle((column, row), diameter_px / 2, fill=False, color=color, lw=lw)


def _picture(axis: Axes, image: np.ndarray, label: str, **colours: Any) -> None:
    """Draw an image on axes in pixels with its own labelled scale."""
    shown = axis.imshow(image, interpolation="nearest", **colours)
    axis.set(xlabel="column [px]", ylabel="row [px]")
    bar = axis.figure.colorbar(shown, ax=axis, label=label, orientation="horizontal", shrink=0.9)
    bar.locator = MaxNLocator(4)


# --- Views: how near and how even their positions are


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
    figure, ((left, right),) = grid(1, 2, (9.0, 3.4), title)
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
