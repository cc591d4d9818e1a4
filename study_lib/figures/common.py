"""What figures share: panels, colours, saving, and figures that several notebooks show."""

from collections.abc import Iterable, Mapping, Sequence
from itertools import cycle
from pathlib import Path
from typing import Any

import matplotlib.pyplot as plt
import numpy as np
from jaxtyping import Bool, Complex, Float
from matplotlib.axes import Axes
from matplotlib.axis import Axis
from matplotlib.colors import LogNorm, to_hex
from matplotlib.figure import Figure
from matplotlib.image import AxesImage
from matplotlib.patches import Circle
from matplotlib.ticker import LogLocator, NullFormatter
from skimage.color import lab2rgb

from study_lib.arm_names import plain_label
from study_lib.files import atomic_path
from study_lib.physics.probe import power_of

PHASE_MAP = "twilight"
AMPLITUDE_MAP = "gray"
NOT_SCORED = "#b9d6f0"  # no grey: it must not pass for a value
PANEL_IN = 3.2
SPLIT_COLOURS = {"train": "tab:orange", "test": "tab:cyan"}
TITLE_IN = 0.4


def object_and_probe(
    object_: Complex[np.ndarray, "oy ox"], probe: Complex[np.ndarray, "*modes n n"]
) -> Figure:
    """Show the object's phase and amplitude and the probe's: the root of the power of all modes."""
    figure, (axes,) = grid(1, 3, (3 * PANEL_IN, PANEL_IN))
    _scaled(axes[0], np.angle(object_), "object phase [rad]", PHASE_MAP)
    _scaled(axes[1], np.abs(object_), "object amplitude", AMPLITUDE_MAP)
    _scaled(axes[2], np.sqrt(power_of(probe)), "probe amplitude [sqrt(photons)]", AMPLITUDE_MAP)
    return figure


def patterns(counts: Float[np.ndarray, "panel n n"], titles: Sequence[str]) -> Figure:
    """Show diffraction patterns on a logarithmic scale.

    Parameters
    ----------
    counts : (panel, n, n)
        Photons per detector pixel.
    titles
        One for each panel.

    Examples
    --------
    >>> import numpy as np
    >>> import study_lib as study
    >>> random = study.generator(42, "figure")
    >>> counts = np.stack([random.poisson(mean, (16, 16)) for mean in (2, 200)]).astype(float)
    >>> figure = study.figures.patterns(counts, ["weak", "strong"])
    >>> [axis.get_title() for axis in figure.axes[:2]]
    ['weak: log10(1 + counts)', 'strong: log10(1 + counts)']
    """
    figure, (axes,) = grid(1, len(counts), (len(counts) * PANEL_IN, PANEL_IN))
    for axis, pattern, title in zip(axes, counts, titles, strict=True):
        _scaled(axis, np.log10(1 + pattern), f"{title}: log10(1 + counts)", "viridis")
    return figure


def losses(
    curves: Mapping[str, Sequence[float]],
    levels: Mapping[str, float],
    *,
    ylabel: str,
    title: str,
) -> Figure:
    """Show losses per epoch, and levels to compare them with."""
    figure, axis = plt.subplots(figsize=(1.8 * PANEL_IN, 1.2 * PANEL_IN), layout="constrained")
    for label, values in curves.items():
        axis.plot(range(1, len(values) + 1), values, label=label)
    for label, level in levels.items():
        axis.axhline(level, linestyle=":", color="gray", label=label)
    axis.set(xlabel="epoch", ylabel=ylabel, title=title, yscale="log")
    axis.legend()
    return figure


def phases(panels: Mapping[str, Complex[np.ndarray, "..."]], *, title: str) -> Figure:
    """Show the phase of aligned objects with the limits of the first, usually the truth."""
    rows_px, columns_px = next(iter(panels.values())).shape
    height = min(2 * rows_px / columns_px + 0.12, 1.15)  # with its title; the rest would be empty
    height_in = (height * len(panels) + 0.12) * PANEL_IN
    figure, axes = grid(len(panels), 1, (2 * PANEL_IN, height_in), title)
    _phase_row(axes[:, 0], panels)
    return figure


def patches_by_epoch(
    patches: Complex[np.ndarray, "epoch patch n n"],
    truth: Complex[np.ndarray, "patch n n"],
    epochs: Sequence[int],
    *,
    title: str,
    held_against: str = "truth",
) -> Figure:
    """Show the phase of patches after some epochs, the truth last; constant phases taken off.

    A patch's mean phase cannot be measured: each is turned so that its mean is real.
    ``held_against`` is what ``truth`` is called.
    """
    rows, columns = len(truth), len(epochs) + 1
    figure, axes = grid(rows, columns, (1.5 * columns + 0.6, 1.6 * rows), title)
    shown = [*patches, truth]
    titles = [*(f"epoch {epoch}" for epoch in epochs), held_against]
    turned = [[patch * np.exp(-1j * np.angle(patch.mean())) for patch in part] for part in shown]
    for row, line in enumerate(axes):
        limits = phase_limits(turned[-1][row])
        for axis, part, name in zip(line, turned, titles, strict=True):
            picture = draw_image(axis, np.angle(part[row]), name if row == 0 else "", **limits)
        figure.colorbar(picture, ax=line, label="phase [rad]", shrink=0.8)
    return figure


def phase_grid(rows: Sequence[Mapping[str, Complex[np.ndarray, "..."]]], *, title: str) -> Figure:
    """Show rows of aligned objects; the first panel of each row sets its limits."""
    columns = max(len(row) for row in rows)
    rows_px, columns_px = next(iter(rows[0].values())).shape
    height_in = TITLE_IN + 1.3 * PANEL_IN * min(rows_px / columns_px, 1)
    size_in = (columns * 1.5 * PANEL_IN, len(rows) * height_in + TITLE_IN)
    figure, axes = grid(len(rows), columns, size_in, title)
    for line, row in zip(axes, rows, strict=True):
        _phase_row(line[: len(row)], row)
        for axis in line[len(row) :]:
            axis.set_axis_off()
    return figure


def grid(
    rows: int, columns: int, size_in: tuple[float, float], title: str = "", **options: Any
) -> tuple[Figure, np.ndarray]:
    """Return a figure and its axes (rows, columns), also where there is one row or column."""
    figure, axes = plt.subplots(
        rows, columns, figsize=size_in, layout="constrained", squeeze=False, **options
    )
    if title:
        figure.suptitle(title)
    return figure, axes


def colours_of(names: Iterable[str]) -> dict[str, str]:
    """Return a colour for each name, by its place in the alphabet.

    The arms of a study have the same colours in all its figures, also where one is its fall-back.
    """
    given = list(names)
    ordered = sorted(set(map(plain_label, given)), key=str.casefold)
    lighter = [to_hex(plt.get_cmap("tab20")(index)) for index in range(1, 20, 2)]
    twenty = cycle([*(f"C{index}" for index in range(10)), *lighter])
    colours = dict(zip(ordered, twenty, strict=False))
    return {name: colours[plain_label(name)] for name in given}


def plain_log_ticks(axis: Axis, subs: Sequence[float] = (1, 2, 5)) -> None:
    """Label a logarithmic axis in plain numbers, few of them; powers would overlap one another."""
    axis.set_major_locator(LogLocator(subs=subs))
    axis.set_major_formatter("{x:g}")
    axis.set_minor_formatter(NullFormatter())


def limit_map(
    phase_std_rad: Float[np.ndarray, "y x"],
    errors: Mapping[str, float | None],
    *,
    title: str,
    uncertainty_rad: Float[np.ndarray, "y x"] | None = None,
    mean_uncertainty_rad: float | None = None,
) -> Figure:
    """Show the photon limit of every pixel, and each arm's phase error in units of its mean.

    Parameters
    ----------
    phase_std_rad, uncertainty_rad : (y, x)
        The limit and its standard error, NaN where not scored.
    errors
        Root mean square phase error over the limit's, by arm.
    title
        Above both panels.
    mean_uncertainty_rad
        Standard error of the limit's root mean square over the scored pixels.
    """
    figure, ((left, right),) = grid(
        1, 2, (2.8 * PANEL_IN, 1.2 * PANEL_IN), title, gridspec_kw={"wspace": 0.1}
    )
    in_limits = {label: error for label, error in errors.items() if error is not None}
    if not in_limits:
        reason = "no photon limit: switched off, or the object is zero on a scored pixel"
        left.text(0.5, 0.5, reason, ha="center")
        left.set_axis_off()
        right.set_axis_off()
        return figure
    shown = left.imshow(phase_std_rad, cmap="viridis", vmax=np.nanpercentile(phase_std_rad, 99))
    left.set(xticks=[], yticks=[])
    each = ""
    if uncertainty_rad is not None:
        each = f",\neach pixel ± {100 * np.nanmedian(uncertainty_rad / phase_std_rad):.0f} %"
    left.set_title(f"photon limit of the phase [rad]{each}", fontsize="medium")
    figure.colorbar(shown, ax=left, shrink=0.8)
    mean = ""
    if mean_uncertainty_rad is not None:
        rms_rad = float(np.sqrt(np.nanmean(phase_std_rad**2)))
        mean = f" (± {100 * mean_uncertainty_rad / rms_rad:.1f} %)"
    draw_bars(right, in_limits, f"phase error / photon limit{mean}", fmt="%.2f")
    right.axvline(1, linestyle=":", color="black")
    return figure


def draw_bars(axis: Axes, values: Mapping[str, float | int], xlabel: str, fmt: str = "%g") -> None:
    """Draw a grey bar for each value, the first on top, with its number behind it."""
    bars = axis.barh(list(values), list(values.values()), color="gray")
    axis.bar_label(bars, fmt=fmt, padding=3)
    axis.set(xlabel=xlabel, xlim=(0, 1.2 * max(1, *values.values())))
    axis.invert_yaxis()


def save_figure(figure: Figure, *paths: Path) -> None:
    """Write a figure under each name, in the format of its suffix, and close it."""
    figure.draw_without_rendering()  # which lays it out, once and not twice for each format
    figure.set_layout_engine(None)
    for path in paths:
        with atomic_path(path) as temporary:
            # No date and no random names, so that the same figure is the same file.
            metadata = {"Date": None} if path.suffix == ".svg" else None
            with plt.rc_context({"svg.hashsalt": path.name}):
                figure.savefig(temporary, dpi=110, format=path.suffix[1:], metadata=metadata)
    plt.close(figure)


def masked(
    objects: Mapping[str, Complex[np.ndarray, "y x"]], mask: Bool[np.ndarray, "y x"]
) -> dict[str, np.ndarray]:
    """Return the objects with unscored pixels blank."""
    return {name: np.where(mask, object_, np.nan) for name, object_ in objects.items()}


def _phase_row(axes: Iterable[Axes], panels: Mapping[str, np.ndarray]) -> None:
    axes = list(axes)
    limits = phase_limits(next(iter(panels.values())))
    for axis, (title, object_) in zip(axes, panels.items(), strict=True):
        shown = draw_image(axis, np.angle(object_), title, **limits)
    axes[0].figure.colorbar(shown, ax=axes, shrink=0.8, fraction=0.03, pad=0.01)


def _scaled(axis: Axes, image: np.ndarray, title: str, colours: str) -> None:
    shown = draw_image(axis, image, title, cmap=colours)
    axis.figure.colorbar(shown, ax=axis, shrink=0.8)


def phase_limits(image: np.ndarray) -> dict[str, Any]:
    """Return the map and the limits of grey phases, from the least to the largest of an image."""
    phase_rad = np.angle(image)
    return {
        "cmap": "gray",
        "vmin": float(np.nanmin(phase_rad)),
        "vmax": float(np.nanmax(phase_rad)),
    }


def draw_image(
    axis: Axes, image: np.ndarray, title: str, fontsize: str = "small", **colours: Any
) -> AxesImage:
    """Draw an image under its title, without ticks; what is not scored in a colour of its own."""
    shown = axis.imshow(image, **colours)
    axis.set_facecolor(NOT_SCORED)
    axis.set_title(title, fontsize=fontsize)
    axis.set(xticks=[], yticks=[])
    return shown


def draw_pattern(
    axis: Axes, pattern: Float[np.ndarray, "n n"], counts: LogNorm, edge: Circle
) -> AxesImage:
    """Draw a pattern over the frequencies in the object that its pixels hold, black where none.

    Parameters
    ----------
    axis
        On which it is drawn.
    pattern : (n, n)
        Counts, zero frequency at pixel ``n // 2``.
    counts
        Logarithmic scale of the colours.
    edge
        Of the bright field, in 1/px.
    """
    half_pixel = 0.5 / len(pattern)
    low, high = -0.5 - half_pixel, 0.5 - half_pixel
    shown = axis.imshow(
        np.where(pattern > 0, pattern, np.nan),
        cmap=plt.get_cmap("magma").with_extremes(bad="black", under="black"),
        norm=counts,
        extent=(low, high, high, low),
        interpolation="nearest",
    )
    axis.add_patch(edge)
    return shown


# --- Complex numbers as colours: hue is the phase, lightness the amplitude

LIGHTNESS = 72.0  # of the largest amplitude, on CIELAB's scale to 100
CHROMA = 36.0  # the most that sRGB holds at that lightness for every hue, with some to spare


def complex_colours(
    values: Complex[np.ndarray, "y x"], amplitude_max: float
) -> Float[np.ndarray, "y x 3"]:
    """Return sRGB colours, red to yellow to green to blue as the phase grows from 0 to 2 pi.

    Hue and lightness are those of CIELAB, in which equal steps look about equal; the usual hue of
    HSV has bright bands at some phases that pass for structure.

    Parameters
    ----------
    values : (y, x)
        Complex image.
    amplitude_max
        What gets full lightness; larger ones too. Zero is black.

    References
    ----------
    Kovesi, arXiv:1509.03700 (2015): on colour maps that are even and cyclic.
    """
    amplitude = np.clip(np.abs(values) / amplitude_max, 0, 1)
    phase = np.angle(values)
    lab = np.stack(
        [
            LIGHTNESS * amplitude,
            CHROMA * amplitude * np.cos(phase),
            CHROMA * amplitude * np.sin(phase),
        ],
        axis=-1,
    )
    colours: np.ndarray = lab2rgb(lab)
    return colours


def colour_wheel(side_px: int = 129) -> Float[np.ndarray, "y x 4"]:
    """Return the legend as sRGB with opacity: amplitude along the radius, phase around."""
    axis = np.linspace(-1, 1, side_px)
    disc = axis[None, :] + 1j * axis[:, None]
    opaque = (np.abs(disc) <= 1).astype(float)
    return np.dstack([complex_colours(disc, 1.0), opaque])
