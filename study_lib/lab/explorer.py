"""A finished run to look around in: patterns, probe, aligned objects, cuts through them."""

import importlib
import importlib.util
import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache, partial
from typing import Any, Literal

import matplotlib.pyplot as plt
import numpy as np
from IPython.display import display
from jaxtyping import Bool, Complex, Float
from matplotlib.figure import Figure
from skimage.measure import profile_line

from study_lib.data.datasets import pattern_count
from study_lib.errors import InputError
from study_lib.figures import lessons, reconstruction
from study_lib.phases.conditions import (
    SECOND_REFERENCE,
    held_against,
    read_aligned,
    read_scores,
)
from study_lib.physics.measurement import Measurement, counts_of
from study_lib.physics.probe import probe_diameter_px
from study_lib.runs.run import Run

# --- Figures that follow sliders in JupyterLab, and stand still everywhere else

Sliders = Literal["auto", "always", "never"]


@dataclass(frozen=True)
class Choice:
    """What one argument of a figure may be, and what is shown first.

    ``options`` are offered one by one; without any, it is a whole number from 0 to ``highest`` for
    the menus beside it, whose values it is given by name.
    """

    first: Any
    options: Sequence[Any] = ()
    highest: Callable[..., int] = lambda **_: 0


def are_wanted(sliders: Sliders) -> bool:
    """Return whether a figure gets sliders.

    ``auto`` asks for them where ipywidgets is installed and a Jupyter server has started the
    kernel: one that papermill, nbconvert or nbval has started has nobody to move them.
    """
    if sliders == "auto":
        has_server = "JPY_SESSION_NAME" in os.environ
        return has_server and importlib.util.find_spec("ipywidgets") is not None
    return sliders == "always"


def look(
    draw: Callable[..., Figure], choices: Mapping[str, Choice], sliders: Sliders = "auto"
) -> None:
    """Show a figure, with a slider or a menu for each of its arguments where somebody can move it.

    Parameters
    ----------
    draw
        Returns the figure for given arguments.
    choices
        The arguments by name.
    sliders
        ``auto``, ``always`` or ``never``; see :func:`are_wanted`.
    """

    def show(**values: Any) -> None:
        figure = draw(**values)
        display(figure)
        plt.close(figure)

    if not are_wanted(sliders):
        show(**{name: choice.first for name, choice in choices.items()})
        return
    widgets = _widgets()
    controls = _controls(choices)
    picture = widgets.interactive_output(show, controls)
    display(widgets.VBox([widgets.HBox(list(controls.values())), picture]))


def _widgets() -> Any:
    """Return ipywidgets, which only sliders need.

    Raises
    ------
    InputError
        If it is not installed.
    """
    try:
        return importlib.import_module("ipywidgets")
    except ImportError:
        raise InputError(
            "sliders is 'always', but ipywidgets is not installed; install it with "
            "pip install ipywidgets, or set sliders to 'auto'"
        ) from None


def _controls(choices: Mapping[str, Choice]) -> dict[str, Any]:
    """Return a menu or a slider for each choice; sliders end where the menus say."""
    widgets = _widgets()
    menus = {
        name: widgets.Dropdown(
            options=[(_label(value), value) for value in choice.options],
            value=choice.first,
            description=name,
        )
        for name, choice in choices.items()
        if choice.options
    }
    sliders = {
        name: widgets.IntSlider(
            value=choice.first,
            max=choice.highest(**_values(menus)),
            description=name,
            continuous_update=False,
        )
        for name, choice in choices.items()
        if not choice.options
    }

    def end_where_menus_say(_: Any) -> None:
        for name, slider in sliders.items():
            try:
                slider.max = choices[name].highest(**_values(menus))
            except InputError:
                continue  # nothing there to choose from: the figure says why in its own place

    for menu in menus.values():
        menu.observe(end_where_menus_say, "value")
    return {name: (menus | sliders)[name] for name in choices}


def _values(controls: Mapping[str, Any]) -> dict[str, Any]:
    return {name: control.value for name, control in controls.items()}


def _label(value: Any) -> str:
    return f"{value:g}" if isinstance(value, float) else str(value)


# --- The run

KEPT = 4  # conditions in memory


@dataclass(frozen=True)
class Compared:
    """What a comparison left of one dose, view and split.

    ``objects`` (y, x) are the truth, first, and every arm aligned with it, zero where ``mask`` says
    that a pixel is not scored; their first pixel lies at ``origin_px`` (row, column) in the frame
    of the object, in which the positions of ``measurement`` are given. ``labels`` and
    ``phase_ssim`` are the comparison's, by arm; none where the registration is in doubt. Of
    measured counts the reference takes the place of the truth, as ``held_against`` says.
    """

    measurement: Measurement
    diameter_px: float
    origin_px: tuple[int, int]
    mask: Bool[np.ndarray, "y x"]
    objects: Mapping[str, Complex[np.ndarray, "y x"]]
    labels: Mapping[str, str]
    phase_ssim: Mapping[str, float | None]
    held_against: str

    @property
    def arms(self) -> tuple[str, ...]:
        """The arms whose objects are there."""
        return tuple(name for name in self.objects if name != self.held_against)


class Explorer:
    """Figures of one run, each for whatever dose, view and split is asked for.

    Parameters
    ----------
    run
        The run; conditions that were not compared yet are refused with that reason.

    Examples
    --------
    >>> import study_lib as study
    >>> explorer = study.Explorer(run)  # run: study.open_run of a finished run's folder
    >>> explorer.choices(1e4, "dense", "test")["view"].options
    ('baseline', 'dense', 'sparse')
    >>> figure = explorer.objects(1e4, "dense", "test", arm="solver")
    >>> figure.get_suptitle()  # doctest: +ELLIPSIS
    'solver, dense, test, 10000 photons per pattern, phase SSIM 0...'

    The arrays behind the figures, aligned with the truth:

    >>> found = explorer.condition(1e4, "dense", "test")
    >>> list(found.objects)
    ['truth', 'pinn', 'thinning-net', 'solver']
    >>> found.objects["solver"].shape == found.mask.shape
    True
    """

    def __init__(self, run: Run) -> None:
        self.run = run
        self.condition = lru_cache(maxsize=KEPT)(self._condition)

    def choices(self, dose: float, view: str, split: str) -> dict[str, Choice]:
        """Return what can be chosen of a run, with what is shown first."""
        design = self.run.design
        return {
            "dose": Choice(dose, options=design.doses),
            "view": Choice(view, options=tuple(one.name for one in design.views)),
            "split": Choice(split, options=design.compared_splits),
        }

    def pattern_choice(self, index: int) -> dict[str, Choice]:
        """Return the patterns of whatever view is chosen."""
        return {
            "index": Choice(
                index,
                highest=lambda dose, view, split: (
                    pattern_count(self.run.condition(dose, view, split).file) - 1
                ),
            )
        }

    def arm_choice(self, dose: float, view: str, split: str, arm: str) -> dict[str, Choice]:
        """Return the arms of a condition."""
        return {"arm": Choice(arm, options=self.condition(dose, view, split).arms)}

    def row_choice(self, dose: float, view: str, split: str, share: float) -> dict[str, Choice]:
        """Return the rows of a condition's crop; the first one shown lies at a share of them."""
        rows = len(self.condition(dose, view, split).mask)
        return {
            "row": Choice(
                int(share * (rows - 1)),
                highest=lambda dose, view, split: len(self.condition(dose, view, split).mask) - 1,
            )
        }

    def pattern(self, dose: float, view: str, split: str, index: int) -> Figure:
        """Show a pattern on a logarithmic scale, its place in the scan, and the probe."""
        found = self.condition(dose, view, split)
        index = min(index, len(found.measurement.scan_index) - 1)
        return lessons.pattern_and_place(
            counts_of(found.measurement.amplitudes[index]),
            found.measurement.positions_px - found.origin_px,
            index,
            found.objects[found.held_against],
            found.measurement.probe,
            found.diameter_px,
            held_against=found.held_against,
            title=f"pattern {found.measurement.scan_index[index]} of the scan, "
            f"{self._said(dose, view, split)}",
        )

    def objects(self, dose: float, view: str, split: str, arm: str) -> Figure:
        """Show amplitude, phase and both in one of the truth and of an arm, on common scales."""
        found = self.condition(dose, view, split)
        truth, object_ = found.objects[found.held_against], self._object(found, arm)
        label, ssim = found.labels[arm], found.phase_ssim[arm]
        score = "no score: registration uncertain" if ssim is None else f"phase SSIM {ssim:.3f}"
        return reconstruction.objects(
            {found.held_against: truth, label: object_},
            title=f"{label}, {self._said(dose, view, split)}, {score}",
        )

    def cut(self, dose: float, view: str, split: str, row: int) -> Figure:
        """Show the phase of the truth and of every arm along a row of the aligned objects."""
        found = self.condition(dose, view, split)
        rows, columns = found.mask.shape
        row = min(row, rows - 1)
        line = partial(phase_along, start_px=(float(row), 0.0), end_px=(float(row), columns - 1.0))
        return lessons.cuts(
            {found.labels[name]: line(object_) for name, object_ in found.objects.items()},
            found.objects[found.held_against],
            row,
            held_against=found.held_against,
            title=f"row {row + found.origin_px[0]} of the object, {self._said(dose, view, split)}",
        )

    def _said(self, dose: float, view: str, split: str) -> str:
        return f"{view}, {split}, {dose:g} {self.run.design.dose_unit}"

    def _condition(self, dose: float, view: str, split: str) -> Compared:
        """Return one condition.

        Raises
        ------
        InputError
            If the design does not have it, or it was not compared yet.
        """
        design, condition = self.run.design, self.run.condition(dose, view, split)
        folder = condition.folder("compare")
        arrays, metadata = read_aligned(folder)
        rows = {row["arm"]: row for row in read_scores(folder)}
        measurement = condition.measurement()
        mask = arrays["mask"]
        objects = {
            name: np.where(mask, array, 0)
            for name, array in arrays.items()
            if array.shape == mask.shape and np.iscomplexobj(array) and name != SECOND_REFERENCE
        }
        first = held_against(arrays)
        row, column = metadata["origin_px"]
        return Compared(
            measurement=measurement,
            diameter_px=probe_diameter_px(measurement.probe, design.probe_power_share),
            origin_px=(row, column),
            mask=mask,
            objects={first: objects.pop(first), **objects},
            labels={first: first} | {arm: row["label"] for arm, row in rows.items()},
            phase_ssim={
                arm: row["phase_ssim"] if row.get("registration", "ok") == "ok" else None
                for arm, row in rows.items()
            },
            held_against=first,
        )

    @staticmethod
    def _object(found: Compared, arm: str) -> Complex[np.ndarray, "y x"]:
        if arm not in found.objects:
            known = ", ".join(found.arms)
            raise InputError(f"arm {arm!r}: this condition has {known}; choose one")
        return found.objects[arm]


def phase_along(
    object_: Complex[np.ndarray, "y x"],
    start_px: tuple[float, float],
    end_px: tuple[float, float],
) -> Float[np.ndarray, " sample"]:
    """Return the phase along a straight line, a sample each pixel of its length.

    Real and imaginary part are interpolated, not the phase, which may jump by a turn between two
    pixels.

    Parameters
    ----------
    object_ : (y, x)
    start_px, end_px
        (row, column) of the first and of the last sample.

    Returns
    -------
    (sample,), in rad.
    """
    parts = [
        profile_line(part, start_px, end_px, order=1, mode="nearest")
        for part in (object_.real, object_.imag)
    ]
    phase: np.ndarray = np.angle(parts[0] + 1j * parts[1])
    return phase
