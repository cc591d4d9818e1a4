"""The map of quality over dose and overlap, with the lines on which a quality is the same."""

import itertools
import math
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from jaxtyping import Float
from matplotlib.axes import Axes
from matplotlib.cm import ScalarMappable
from matplotlib.colors import LogNorm
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patheffects import withStroke
from matplotlib.tri import TriAnalyzer, Triangulation

from study_lib.arm_names import plain_label
from study_lib.design.wanted import USUAL, wanted_of
from study_lib.figures.common import plain_log_ticks
from study_lib.figures.results import PHASE_ERROR, WIDE_IN, panels
from study_lib.scores.answers import error_and_level
from study_lib.scores.dose_saving import phase_error
from study_lib.scores.study_table import Row, grouped, is_score, mean_of, unit_of

COLOURS = "viridis_r"  # even in lightness, so also for the colour-blind; bright is the least error
SHADES = 64
STYLES = ("-", "--", ":", "-.")
SAME_OVERLAP = 4  # decimals to which two views of one overlap are one point
FLAT = 1e-3  # of a triangle: the ratio of the radii of its two circles
DOSES_ON_AXIS = 8
MARGIN = 0.05  # around the points, as a share of an axis

Values = Float[np.ndarray, " point"]


def quality_map(
    table: Sequence[Row],
    wanted: Sequence[str] = (),
    *,
    pixel_m: float | None = None,
    title: str,
) -> Figure:
    """Show the phase error over overlap and dose, one panel per arm, and where it is good enough.

    Colour is the phase error, on one scale; each line holds one wanted quality. Between the
    conditions that were computed (dots), the logarithm of an error is interpolated linearly over
    overlap and the logarithm of the dose, on triangles of neighbours: along one overlap that is the
    power law of :func:`study_lib.scores.dose_saving.least_dose`. Nothing is drawn outside of them,
    nor on a triangle with a condition without a score (crosses). Conditions may lie on a grid or
    anywhere. Panels of an arm with too few of them say so.

    Parameters
    ----------
    table
        Of one split, a row for each dose, view and arm, as in ``study_table.csv``. A view that
        holds the patterns of another one is left out.
    wanted
        Qualities such as ``phase_error=0.05``; default: those that are usual.
    pixel_m
        Side of an object pixel [m], for a resolution that is wanted in nanometres.
    title
        Above all panels.

    Raises
    ------
    InputError
        If a wanted quality is none, or needs the size of a pixel.

    Examples
    --------
    An error that falls with the root of the dose, and with overlap:

    >>> import study_lib as study
    >>> same = {"view": "v", "arm": "solver", "label": "solver", "registration": "ok"}
    >>> rows = [
    ...     {**same, "overlap": overlap, "dose": dose, "phase_mse_rad2": 10 / dose / overlap}
    ...     for overlap in (0.2, 0.5, 0.8) for dose in (1e3, 1e4)
    ... ]
    >>> figure = study.figures.quality_map(rows, ["phase_error=0.1"], title="test split")
    >>> figure.axes[0].get_title(), figure.axes[0].get_xlabel()
    ('solver', 'overlap (disc area)')
    """
    chosen = [wanted_of(text) for text in wanted or USUAL]
    measures = {one.words: error_and_level(one, pixel_m) for one in chosen}
    once = [row for row in table if not row.get("same_patterns_as")]
    arms = grouped(once, ("arm",))
    label = f"dose [{unit_of(table)}]"
    figure, axes = panels(max(1, len(arms)), WIDE_IN, title, label)
    errors = [phase_error(row) for row in once if is_score(row)]
    known = [math.log10(error) for error in errors if error]
    styles: dict[str, Any] = dict(zip(measures, itertools.cycle(STYLES), strict=False))
    low, high = (min(known), max(known)) if known else (-1.0, 0.0)
    shades = np.linspace(low - 1e-9, max(high, low + 0.01) + 1e-9, SHADES + 1)
    for axis, rows in zip(axes, arms.values(), strict=False):
        points = _Points(rows)
        lines = [plain_label(rows[0]["label"])]
        points.draw(axis)
        reason = points.why_no_map()
        if reason:
            lines.append(f"no map: {reason}")
        else:
            points.shade(axis, shades)
            for words, (error, level) in measures.items():
                found = points.line(axis, error, level, styles[words])
                lines += [f"{words}: {found}"] if found else []
        axis.set_title("\n".join(lines), fontsize="small")
        axis.set(xlabel="overlap (disc area)", xlim=_limits([row["overlap"] for row in once]))
    _label_doses(axes[0], [row["dose"] for row in once])
    scale = ScalarMappable(LogNorm(10 ** shades[0], 10 ** shades[-1]), COLOURS)
    bar = figure.colorbar(scale, ax=list(axes), label=PHASE_ERROR)
    plain_log_ticks(bar.ax.yaxis)
    marks = _legend(styles, once)
    figure.legend(handles=marks, fontsize="small", loc="outside lower center", ncols=len(marks))
    return figure


class _Points:
    """The conditions of one arm as points of the map, and the triangles between them."""

    def __init__(self, rows: Sequence[Row]) -> None:
        found: dict[tuple[float, float], list[Row]] = {}
        for row in rows:
            place = (round(row["overlap"], SAME_OVERLAP), math.log10(row["dose"]))
            found.setdefault(place, []).append(row)
        self.rows = list(found.values())
        self.overlap = np.array([mean_of([row["overlap"] for row in one]) for one in self.rows])
        self.log_dose = np.array([log_dose for _, log_dose in found])
        self.log_error = self.logs_of(phase_error)

    def logs_of(self, error: Callable[[Row], float | None]) -> Values:
        """Return the logarithm of an error at each point, NaN where no row has a score.

        Of several rows at a point, the mean.
        """
        logs = []
        for part in self.rows:
            values = [error(row) for row in part if is_score(row)]
            numbers = [math.log10(value) for value in values if value]
            logs.append(math.fsum(numbers) / len(numbers) if numbers else math.nan)
        return np.array(logs)

    def triangles(self, values: Values) -> Triangulation | None:
        """Return the triangles all of whose corners have a value; None if there is none."""
        spans = [np.ptp(one) for one in (self.overlap, self.log_dose)]
        if min(spans) <= 0:
            return None
        # Neighbours in the figure, where the axes are about as long; not in their units.
        scaled = [
            one / span for one, span in zip((self.overlap, self.log_dose), spans, strict=True)
        ]
        centred = np.stack(scaled) - np.mean(scaled, axis=1, keepdims=True)
        if np.linalg.matrix_rank(centred, tol=1e-6) < 2:
            return None
        neighbours = Triangulation(*scaled)
        mask = TriAnalyzer(neighbours).get_flat_tri_mask(FLAT, rescale=False)
        mask |= np.isnan(values)[neighbours.triangles].any(axis=1)
        if mask.all():
            return None
        return Triangulation(self.overlap, self.log_dose, neighbours.triangles, mask)

    def why_no_map(self) -> str:
        """Return why there is no triangle between scores; empty if there is one."""
        scored = ~np.isnan(self.log_error)
        for name, values in (("dose", self.log_dose), ("overlap", self.overlap)):
            count = len(set(values[scored]))
            if count < 2:
                return f"{('no', 'one')[count]} {name} has a score"
        if self.triangles(self.log_error) is None:
            return "its scores lie on a line, or apart from one another"
        return ""

    def shade(self, axis: Axes, levels: Float[np.ndarray, " level"]) -> None:
        """Fill the triangles with the colours of the phase error."""
        triangles = self.triangles(self.log_error)
        if triangles is not None:
            axis.tricontourf(triangles, self.log_error, levels, cmap=COLOURS)

    def line(
        self, axis: Axes, error: Callable[[Row], float | None], level: float, style: str
    ) -> str:
        """Draw the line of a level of an error; return why there is none, empty if there is."""
        values, log_level = self.logs_of(error), math.log10(level)
        triangles = self.triangles(values)
        if triangles is None:
            return "no number"
        inside = values[np.unique(triangles.get_masked_triangles())]
        if inside.max() <= log_level:
            return "reached everywhere"
        if inside.min() > log_level:
            return "reached nowhere"
        drawn = axis.tricontour(triangles, values, [log_level], colors="black", linestyles=style)
        drawn.set(path_effects=[withStroke(linewidth=3.5, foreground="white")])
        return ""

    def draw(self, axis: Axes) -> None:
        """Mark the conditions that were computed."""
        scored = ~np.isnan(self.log_error)
        for chosen, look in ((scored, COMPUTED), (~scored, NO_SCORE)):
            axis.plot(self.overlap[chosen], self.log_dose[chosen], zorder=3, **look)


COMPUTED: dict[str, Any] = {
    "marker": "o",
    "linestyle": "",
    "color": "black",
    "markeredgecolor": "white",
    "markersize": 5,
    "label": "computed",
}
NO_SCORE: dict[str, Any] = {"marker": "x", "linestyle": "", "color": "gray", "label": "no score"}


def _limits(values: Sequence[float]) -> tuple[float, float]:
    """Return the ends of an axis with some room around the values, so that no mark is cut."""
    low, high = min(values, default=0.0), max(values, default=1.0)
    room = MARGIN * (high - low) or MARGIN
    return low - room, high + room


def _label_doses(axis: Axes, doses: Sequence[float]) -> None:
    """Label the axis of logarithms with doses: those computed, or some round ones if many."""
    values = sorted(set(doses))
    if len(values) > DOSES_ON_AXIS:
        ends = math.floor(math.log10(values[0])), math.ceil(math.log10(values[-1]))
        values = [10.0**power for power in range(ends[0], ends[1] + 1)]
    if not doses:
        return
    axis.set_ylim(_limits([math.log10(dose) for dose in doses]))
    axis.set_yticks([math.log10(dose) for dose in values], [f"{dose:g}" for dose in values])


def _legend(styles: dict[str, Any], rows: Sequence[Row]) -> list[Line2D]:
    """Return the marks of the map; that of conditions without a score only if there are some."""
    lines = [
        Line2D([], [], color="black", linestyle=style, label=words)
        for words, style in styles.items()
    ]
    marks = [COMPUTED] + [NO_SCORE] * any(not is_score(row) for row in rows)
    return lines + [Line2D([], [], **mark) for mark in marks]
