"""Figures of several runs: every number of their rows is drawn where it belongs, and no other."""

from datetime import UTC, datetime

import numpy as np
import pytest
from matplotlib.colors import to_hex

from study_lib.figures.common import colours_of
from study_lib.figures.runs import metric_history, run_differences


def difference(arm, view, run="later", change=0.1, half_width=0.02, metric="phase_ssim"):
    low, high = (None, None) if half_width is None else (change - half_width, change + half_width)
    return {
        "split": "test",
        "dose": 1e4,
        "dose_per": "pattern",
        "view": view,
        "arm": arm,
        "run": run,
        "metric": metric,
        "better": "higher",
        "difference": change,
        "difference_low": low,
        "difference_high": high,
    }


def drawn(axis):
    """Return (x, y, lowest x, highest x) of each mark with a horizontal bar."""
    found = []
    for container in axis.containers:
        marks, _, (bars,) = container
        for (x, y), segment in zip(marks.get_xydata(), bars.get_segments(), strict=True):
            found.append((x, y, segment[0][0], segment[1][0]))
    return found


def test_each_difference_lies_in_the_panel_of_its_arm_at_its_condition():
    rows = [
        difference("solver", "dense", change=0.1),
        difference("solver", "sparse", change=-0.2),
        difference("pinn", "sparse", change=0.3, half_width=None),
        difference("pinn", "dense", change=9.0, metric="cpu_s"),
        difference("lsqml", "dense", change=None, half_width=None),
    ]

    figure = run_differences(rows, metric="phase_ssim")

    panels = {axis.get_title(): axis for axis in figure.axes if axis.get_title()}
    assert set(panels) == {"solver", "pinn"}
    names = [label.get_text() for label in figure.axes[0].get_yticklabels()]
    assert names == ["test 10000 dense", "test 10000 sparse"]
    np.testing.assert_allclose(
        drawn(panels["solver"]), [(0.1, 0, 0.08, 0.12), (-0.2, 1, -0.22, -0.18)]
    )
    np.testing.assert_allclose(drawn(panels["pinn"]), [(0.3, 1, 0.3, 0.3)])
    assert "right is better" in figure.get_suptitle()


def test_several_runs_stand_beside_one_another_at_a_condition():
    rows = [difference("solver", "dense", run=name) for name in ("b", "c", "d")]

    figure = run_differences(rows, metric="phase_ssim")

    heights = [y for _, y, _, _ in drawn(figure.axes[0])]
    assert len(set(heights)) == 3
    assert np.mean(heights) == pytest.approx(0)
    (legend,) = figure.legends
    assert [text.get_text() for text in legend.get_texts()] == ["b", "c", "d"]


def test_without_a_difference_the_figure_is_empty():
    figure = run_differences([], metric="phase_ssim")

    assert not any(axis.containers for axis in figure.axes)


def step(day, value, view="dense", design="aaaaaaaa", half_width=0.01):
    has_interval = value is not None and half_width is not None
    return {
        "split": "test",
        "dose": 1e4,
        "dose_per": "pattern",
        "view": view,
        "arm": "solver",
        "run": f"run of day {day}",
        "design": design,
        "commit": f"{day}" * 40,
        "date": datetime(2026, 3, day, tzinfo=UTC),
        "value": value,
        "low": value - half_width if has_interval else None,
        "high": value + half_width if has_interval else None,
    }


def test_a_history_has_a_line_for_each_condition_and_design_in_the_order_of_dates():
    """Day 2 has no score, and day 3 is another design: neither is joined to its neighbours."""
    rows = [
        *(step(1, 0.5), step(2, None), step(4, 0.7)),
        step(3, 0.6, design="bbbbbbbb"),
        step(4, 0.2, view="sparse", half_width=None),
    ]

    figure = metric_history(rows, title="phase SSIM")

    (axis,) = figure.axes
    lines = {
        (container.get_label(), len(container[0].get_xdata())): container[0]
        for container in axis.containers
    }
    same, other = lines["test 10000 dense", 3], lines["test 10000 dense", 1]
    np.testing.assert_array_equal(same.get_xdata(), [0, 1, 3])
    np.testing.assert_array_equal(same.get_ydata().astype(float), [0.5, np.nan, 0.7])
    np.testing.assert_array_equal(other.get_xydata(), [[2, 0.6]])
    np.testing.assert_array_equal(lines["test 10000 sparse", 1].get_xydata(), [[3, 0.2]])
    assert same.get_color() == other.get_color() != lines["test 10000 sparse", 1].get_color()
    names = [label.get_text() for label in axis.get_xticklabels()]
    assert names[2] == "2026-03-03 00:00\n333333333333\nbbbbbbbb"
    (legend,) = figure.legends
    assert [text.get_text() for text in legend.get_texts()] == [
        "test 10000 dense",
        "test 10000 sparse",
    ]


def test_twenty_arms_have_twenty_colours_and_the_first_ten_keep_theirs():
    names = [f"arm {index:02d}" for index in range(20)]
    colours = colours_of(names)
    assert len(set(map(to_hex, colours.values()))) == 20
    assert [colours[name] for name in names[:10]] == [f"C{index}" for index in range(10)]
