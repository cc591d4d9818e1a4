"""Figures that follow sliders in JupyterLab, and stand still everywhere else."""

import importlib
import importlib.util
import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import matplotlib.pyplot as plt
from IPython.display import display
from matplotlib.figure import Figure

from study_lib.errors import InputError

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
    if not are_wanted(sliders):
        _show(draw(**{name: choice.first for name, choice in choices.items()}))
        return
    widgets = _widgets()

    def shown(**values: Any) -> None:
        _show(draw(**values))

    controls = _controls(choices)
    picture = widgets.interactive_output(shown, controls)
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


def _show(figure: Figure) -> None:
    display(figure)
    plt.close(figure)
