"""The figures of the lessons show what they are given, on scales that can be compared."""

import matplotlib.pyplot as plt
import numpy as np
import pytest

from study_lib.figures.lessons import (
    correlations_by_chance,
    patterns,
    phases,
    ring_correlations,
    scans,
    waves,
)

SHARE = np.linspace(0.1, 1, 10)


@pytest.fixture(autouse=True)
def closed():
    yield
    plt.close("all")


def test_phase_is_blank_in_the_dark_and_on_one_scale():
    wave = np.exp(1j * np.linspace(-1, 1, 64).reshape(8, 8))
    wave[0] *= 0.01

    figure = waves({"a": wave, "b": 5 * wave})

    (first, second) = (figure.axes[index].images[0] for index in (2, 3))
    assert np.isnan(first.get_array().filled(np.nan)[0]).all()
    np.testing.assert_allclose(first.get_array()[1:], np.angle(wave[1:]))
    assert first.get_clim() == second.get_clim() == (-np.pi, np.pi)


def test_phases_have_the_limits_of_the_first():
    image = np.exp(1j * np.linspace(-1, 0.5, 12).reshape(3, 4))

    axes = phases({"a": image, "b": image**2}).axes

    assert {axis.images[0].get_clim() for axis in axes[:2]} == {(-1.0, 0.5)}
    np.testing.assert_allclose(axes[1].images[0].get_array(), np.angle(image**2))


def test_patterns_share_one_scale_and_centre_frequency_zero():
    counts = np.zeros((8, 8))
    counts[4, 4] = 50

    figure = patterns({"a": counts, "b": 2 * counts}, 0.2, smallest=0.5)

    images = [axis.images[0] for axis in figure.axes[:2]]
    assert {image.get_clim() for image in images} == {(0.5, 100.0)}
    left, right, bottom, top = images[0].get_extent()
    pixel = (right - left) / 8
    assert left + 4.5 * pixel == pytest.approx(0)
    assert top + 4.5 * (bottom - top) / 8 == pytest.approx(0)


def test_scans_are_drawn_row_down_on_one_scale_of_photons():
    places = {"a": np.array([[2.0, 5.0], [4.0, 6.0]]), "b": np.array([[3.0, 7.0]])}
    photons = {"a": np.eye(9), "b": 4 * np.eye(9)}

    axes = scans(places, photons, 3.0, title="t").axes

    np.testing.assert_array_equal(axes[0].collections[0].get_offsets(), places["a"][:, ::-1])
    assert axes[1].patches[0].center == (7.0, 3.0)
    assert axes[0].get_title() == "a: 2 patterns"
    assert [axis.images[0].get_clim() for axis in axes[2:4]] == [(0.0, 4.0)] * 2
    assert axes[0].yaxis_inverted()


def test_every_curve_and_threshold_is_drawn_and_none_is_cut_off():
    curves = {"a": 1 - SHARE, "b": -0.8 * SHARE}

    (axis,) = ring_correlations(SHARE, curves, {"1/2": SHARE * 0 + 0.5}, title="t").axes

    assert [line.get_label() for line in axis.lines] == ["a", "b", "threshold 1/2"]
    np.testing.assert_array_equal(axis.lines[1].get_ydata(), curves["b"])
    assert axis.get_ylim()[0] < -0.8


def test_chance_shows_every_ring_of_every_pair_and_twice_the_deviation():
    correlations = np.random.default_rng(0).uniform(-0.2, 0.2, (3, 10))

    (axis,) = correlations_by_chance(SHARE, correlations, 0.1 / SHARE, {}).axes

    (dots,) = axis.collections
    np.testing.assert_allclose(dots.get_offsets()[:, 1], correlations.ravel())
    np.testing.assert_allclose(axis.lines[1].get_ydata(), 0.2 / SHARE)
