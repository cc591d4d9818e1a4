"""A figure follows its sliders where somebody can move them, and stands still elsewhere."""

import sys

import ipywidgets
import matplotlib.pyplot as plt
import pytest

from study_lib.errors import InputError
from study_lib.lab import explorer as sliders
from study_lib.lab.explorer import Choice, are_wanted, look

CHOICES = {"dose": Choice(1e4, options=(1e3, 1e4)), "index": Choice(2, highest=lambda dose: 5)}


@pytest.fixture
def drawn():
    """What the figure was asked for."""
    return []


@pytest.fixture
def draw(drawn):
    def figure(**values):
        drawn.append(values)
        return plt.figure()

    return figure


@pytest.fixture
def displayed(monkeypatch):
    found = []
    monkeypatch.setattr(sliders, "display", found.append)
    return found


def test_without_a_server_the_figure_stands_still(monkeypatch, draw, drawn, displayed):
    monkeypatch.delenv("JPY_SESSION_NAME", raising=False)

    look(draw, CHOICES)

    assert drawn == [{"dose": 1e4, "index": 2}]
    assert [type(shown).__name__ for shown in displayed] == ["Figure"]
    assert plt.get_fignums() == [], "it would be shown twice"


def test_without_ipywidgets_the_figure_stands_still(monkeypatch, draw, displayed):
    monkeypatch.setenv("JPY_SESSION_NAME", "explore_run.ipynb")
    assert are_wanted("auto")
    assert not are_wanted("never")
    monkeypatch.setitem(sys.modules, "ipywidgets", None)
    monkeypatch.setattr(sliders.importlib.util, "find_spec", lambda _: None)

    look(draw, CHOICES)

    assert [type(shown).__name__ for shown in displayed] == ["Figure"]
    with pytest.raises(
        InputError, match=r"'always', .* pip install ipywidgets, or set sliders to 'auto'"
    ):
        look(draw, CHOICES, "always")


def test_a_moved_slider_draws_anew(draw, drawn, displayed):
    look(draw, CHOICES, "always")

    box = next(shown for shown in displayed if isinstance(shown, ipywidgets.VBox))
    menu, slider = box.children[0].children
    assert menu.options == (("1000", 1e3), ("10000", 1e4))
    assert (slider.min, slider.max, slider.value) == (0, 5, 2)
    slider.value = 4
    menu.value = 1e3

    assert drawn == [
        {"dose": 1e4, "index": 2},
        {"dose": 1e4, "index": 4},
        {"dose": 1e3, "index": 4},
    ]


def test_a_slider_ends_where_the_menus_say(draw, drawn, displayed):
    last = {1e2: 9, 1e3: 3, 1e4: 5}

    def highest(dose):
        if dose not in last:
            raise InputError("no such condition")
        return last[dose]

    doses = Choice(1e4, options=(1e1, 1e2, 1e3, 1e4))
    look(draw, {"index": Choice(8, highest=highest), "dose": doses}, "always")
    box = next(shown for shown in displayed if isinstance(shown, ipywidgets.VBox))
    slider, menu = box.children[0].children

    assert (slider.max, slider.value) == (5, 5), "what is asked for first may be too high"
    menu.value = 1e3
    assert (slider.max, slider.value) == (3, 3)
    menu.value = 1e2
    assert (slider.max, slider.value) == (9, 3)
    menu.value = 1e1
    assert (slider.max, slider.value) == (9, 3), "the figure tells what is missing"
    assert drawn[-1] == {"index": 3, "dose": 1e1}
