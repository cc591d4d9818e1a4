"""The preview of an import: object, probe, scan, three fits and where the detector is off."""

from dataclasses import dataclass
from typing import Any

import numpy as np
from jaxtyping import Bool, Complex, Float
from matplotlib.axes import Axes
from matplotlib.colors import LogNorm
from matplotlib.figure import Figure

from study_lib.figures.common import PANEL_IN, draw_image, grid

FIT_PANELS = 3


@dataclass(frozen=True)
class FittedPatterns:
    """Some patterns as measured and as the model has them.

    ``measured`` and ``model`` (panel, n, n) are counts, ``names`` those of the frames, ``misfit``
    (n, n) the mean over the scan of ``sqrt(counts) - sqrt(model)``, ``bad`` (n, n) True where most
    frames have no valid count, ``r_of_frames`` (scan,) the R-factor of each pattern.
    """

    measured: Float[np.ndarray, "panel n n"]
    model: Float[np.ndarray, "panel n n"]
    names: tuple[str, ...]
    misfit: Float[np.ndarray, "n n"]
    bad: Bool[np.ndarray, "n n"]
    r_of_frames: Float[np.ndarray, " scan"]


def import_preview(
    object_: Complex[np.ndarray, "oy ox"],
    probe: Complex[np.ndarray, "*modes n n"],
    positions_px: Float[np.ndarray, "scan 2"],
    fitted: FittedPatterns | None,
    *,
    title: str,
) -> Figure:
    """Show what an import wrote, and how well it explains the patterns.

    Parameters
    ----------
    object_ : (oy, ox)
        Complex transmission.
    probe : (n, n) or (modes, n, n)
        The strongest mode is shown.
    positions_px : (scan, 2)
        (row, column) of the patch centres in object pixels.
    fitted
        None for data without patterns.
    title
        Above all of it.
    """
    modes = probe.reshape(-1, *probe.shape[-2:])
    rows = 1 if fitted is None else 3
    figure, axes = grid(rows, 4, (4 * PANEL_IN, rows * PANEL_IN), title)
    top = axes[0]
    _with_scale(top[0], np.angle(object_), "object phase [rad]", cmap="twilight")
    low, high = np.percentile(np.abs(object_), (1, 99))
    _with_scale(top[1], np.abs(object_), "object amplitude", cmap="gray", vmin=low, vmax=high)
    more = "" if len(modes) == 1 else f", mode 1 of {len(modes)}"
    _with_scale(top[2], np.abs(modes[0]), f"probe [sqrt(photons)]{more}", cmap="gray", vmin=0)
    colours = None if fitted is None else fitted.r_of_frames
    points = top[3].scatter(*positions_px.T[::-1], c=colours, s=6, cmap="viridis")
    top[3].set(
        xlim=(0, object_.shape[1]), ylim=(object_.shape[0], 0), aspect="equal", xticks=[], yticks=[]
    )
    top[3].set_title(
        "scan" if fitted is None else "scan: R-factor of each pattern", fontsize="small"
    )
    if fitted is None:
        return figure
    figure.colorbar(points, ax=top[3], shrink=0.8)
    _draw_fits(axes[1:, :FIT_PANELS], fitted)
    limit = float(np.percentile(np.abs(fitted.misfit), 99.8)) or 1.0
    shown = np.where(fitted.bad, np.nan, fitted.misfit)
    _with_scale(
        axes[1, 3],
        shown,
        "detector: mean of sqrt(counts) - sqrt(model)",
        cmap="RdBu_r",
        vmin=-limit,
        vmax=limit,
    )
    last = axes[2, 3]
    last.hist(fitted.r_of_frames[np.isfinite(fitted.r_of_frames)], bins=30, color="gray")
    last.set_xlabel("R-factor", fontsize="small")
    last.set_title("patterns by R-factor", fontsize="small")
    return figure


def _draw_fits(axes: np.ndarray, fitted: FittedPatterns) -> None:
    """Draw measured patterns above their models, each pair on one logarithmic scale."""
    for column, name in enumerate(fitted.names):
        measured, model = fitted.measured[column], fitted.model[column]
        scale = LogNorm(0.5, max(1.0, float(measured.max())), clip=True)
        seen = np.where(fitted.bad, np.nan, measured)
        for axis, image, what in (
            (axes[0, column], seen, "measured"),
            (axes[1, column], model, "model"),
        ):
            shown = draw_image(axis, image, f"frame {name}, {what}", norm=scale, cmap="viridis")
        axes[0, column].figure.colorbar(shown, ax=axes[:, column], label="counts", shrink=0.6)
    for axis in axes[:, len(fitted.names) :].flat:
        axis.set_axis_off()


def _with_scale(axis: Axes, image: np.ndarray, title: str, **colours: Any) -> None:
    shown = draw_image(axis, image, title, **colours)
    axis.figure.colorbar(shown, ax=axis, shrink=0.8)
