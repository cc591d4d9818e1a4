"""Colours of complex numbers: even in phase and amplitude, within the screen's range."""

import numpy as np
from skimage.color import deltaE_ciede2000, rgb2lab

from study_lib.figures.common import colour_wheel, complex_colours

PHASES = np.linspace(-np.pi, np.pi, 361)


def colours_of(values: np.ndarray) -> np.ndarray:
    return rgb2lab(complex_colours(np.atleast_2d(values), 1.0))[0]


def test_lightness_is_the_amplitude_whatever_the_phase():
    amplitudes = np.linspace(0, 1, 11)

    lightness = np.array([colours_of(a * np.exp(1j * PHASES))[:, 0] for a in amplitudes])

    assert np.ptp(lightness, axis=1).max() < 0.5, "some hue leaves the screen's range"
    np.testing.assert_allclose(np.diff(lightness.mean(axis=1)), 7.2, atol=0.1)


def test_hue_is_the_phase_and_closes():
    lab = colours_of(np.exp(1j * PHASES))

    hue = np.arctan2(lab[:, 2], lab[:, 1])

    np.testing.assert_allclose(np.exp(1j * hue), np.exp(1j * PHASES), atol=0.02)


def test_equal_steps_of_phase_look_about_equal():
    """By the difference that CIE recommends, another formula than that of the colours."""
    lab = colours_of(np.exp(1j * PHASES[::10]))

    steps = deltaE_ciede2000(lab[1:], lab[:-1])

    assert steps.max() < 2.5 * steps.min()


def test_larger_amplitudes_than_the_limit_keep_their_phase():
    inside, beyond = (complex_colours(np.full((1, 1), a * 1j), 0.5) for a in (0.5, 3.0))

    np.testing.assert_array_equal(inside, beyond)


def test_the_legend_has_the_colours_of_the_map():
    wheel = colour_wheel(101)

    assert wheel.shape == (101, 101, 4)
    np.testing.assert_allclose(wheel[50, 100, :3], complex_colours(np.ones((1, 1)) + 0j, 1.0)[0, 0])
    assert wheel[0, 0, 3] == 0
    assert wheel[50, 50, 3] == 1
    assert not wheel[50, 50, :3].any(), "zero is black"
