"""Synthetic objects keep their stated ranges, and each kind has the structure it promises."""

from collections.abc import Mapping

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.ndimage import distance_transform_edt, label, map_coordinates

from study_lib.physics.specimen import SPECIMENS

VALUES: Mapping[str, Mapping[str, float]] = {
    "grains": {"grain_count": 80, "smallest_grain_px": 2.0, "largest_grain_px": 15.0},
    "siemens_star": {"spoke_count": 24, "star_diameter_px": 60.0},
    "power_law": {"exponent": 2.0},
    "cells": {"cell_count": 10, "smallest_cell_px": 8.0, "largest_cell_px": 16.0},
}
every_kind = pytest.mark.parametrize("kind", SPECIMENS)


def specimen(
    kind: str, seed: int = 0, shape_px: tuple[int, int] = (70, 90), **changes: float
) -> np.ndarray:
    values = {"phase_range_rad": 1.2, "amplitude_min": 0.7, **VALUES[kind], **changes}
    return SPECIMENS[kind](shape_px=shape_px, random=np.random.default_rng(seed), **values)


def thickness(object_: np.ndarray) -> np.ndarray:
    """From 0 to 1, as the phase shows it."""
    phase_rad = np.angle(object_).astype(float)
    return (phase_rad - phase_rad.min()) / np.ptp(phase_rad)


def radial_power(image: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Frequency and mean power of rings one frequency step wide; the border is faded out."""
    side = len(image)
    fade = np.hanning(side)[:, None] * np.hanning(side)
    power = np.abs(np.fft.fft2((image - image.mean()) * fade)) ** 2
    frequency = np.hypot(np.fft.fftfreq(side)[:, None], np.fft.fftfreq(side))
    ring = np.round(frequency * side).astype(int).ravel()
    mean = np.bincount(ring, power.ravel()) / np.bincount(ring)
    return np.arange(len(mean)) / side, mean


# --- every kind


@every_kind
def test_amplitude_and_phase_have_the_stated_ranges(kind):
    object_ = specimen(kind)

    assert object_.shape == (70, 90)
    assert object_.dtype == np.complex64
    assert np.abs(object_).max() == pytest.approx(1, abs=1e-6)
    assert np.abs(object_).min() == pytest.approx(0.7, abs=1e-6)
    assert np.ptp(np.angle(object_)) == pytest.approx(1.2, abs=1e-6)
    assert np.angle(object_).mean() == pytest.approx(0, abs=1e-6)


@every_kind
@given(
    shape_px=st.tuples(st.integers(33, 80), st.integers(33, 80)),
    phase_range_rad=st.floats(0.01, 3.0),
    amplitude_min=st.floats(0.05, 1.0),
    seed=st.integers(0, 2**32 - 1),
)
@settings(max_examples=15, deadline=None, derandomize=True)
def test_the_ranges_hold_for_any_shape_and_seed(
    kind, shape_px, phase_range_rad, amplitude_min, seed
):
    object_ = specimen(
        kind, seed, shape_px, phase_range_rad=phase_range_rad, amplitude_min=amplitude_min
    )

    assert object_.shape == shape_px
    assert np.abs(object_).max() == pytest.approx(1, abs=1e-6)
    assert np.abs(object_).min() == pytest.approx(amplitude_min, abs=1e-6)
    assert np.ptp(np.angle(object_)) == pytest.approx(phase_range_rad, abs=2e-6)
    assert np.angle(object_).mean() == pytest.approx(0, abs=1e-6)


@every_kind
def test_what_retards_more_absorbs_more(kind):
    object_ = specimen(kind)

    amplitudes = np.abs(object_).ravel()[np.argsort(np.angle(object_).ravel())]

    assert np.diff(amplitudes).max() < 1e-5


@every_kind
def test_a_seed_gives_the_same_bytes_and_another_seed_another_object(kind):
    assert specimen(kind, 1).tobytes() == specimen(kind, 1).tobytes()
    assert specimen(kind, 1).tobytes() != specimen(kind, 2).tobytes()


# --- grains


def test_smaller_grains_put_more_power_at_high_frequency():
    def high_share(object_: np.ndarray) -> float:
        power = np.abs(np.fft.fft2(np.angle(object_))) ** 2
        y, x = np.fft.fftfreq(70)[:, None], np.fft.fftfreq(90)
        return power[np.hypot(y, x) > 0.15].sum() / power.sum()

    fine = specimen("grains", smallest_grain_px=1.0, largest_grain_px=4.0, grain_count=800)
    coarse = specimen("grains", smallest_grain_px=15.0, largest_grain_px=30.0)

    assert high_share(fine) > 3 * high_share(coarse)


# --- Siemens stars: an object one star wide and two stars high, so their middles are known

STAR_PX = 200.0
SPACING_PX = 210
MIDDLES = [((SPACING_PX - 1) / 2 + shift, (SPACING_PX - 1) / 2) for shift in (0, SPACING_PX)]


def stars(spoke_count: int, seed: int = 0) -> np.ndarray:
    shape_px = (2 * SPACING_PX, SPACING_PX)
    object_ = specimen(
        "siemens_star", seed, shape_px, spoke_count=spoke_count, star_diameter_px=STAR_PX
    )
    return thickness(object_)


def circle(image: np.ndarray, middle: tuple[float, float], radius_px: float) -> np.ndarray:
    """Sample an image at 3600 equal angles around a point."""
    angles = np.arange(3600) * 2 * np.pi / 3600
    places = [middle[0] + radius_px * np.sin(angles), middle[1] + radius_px * np.cos(angles)]
    return map_coordinates(image, places, order=1)


@pytest.mark.parametrize("spoke_count", [8, 25, 36])
@pytest.mark.parametrize("middle", MIDDLES, ids=["upper", "lower"])
@pytest.mark.parametrize("radius_px", [40, 70, 95])
def test_every_circle_crosses_every_spoke(spoke_count, middle, radius_px):
    is_spoke = circle(stars(spoke_count), middle, radius_px) > 0.5

    assert (is_spoke & ~np.roll(is_spoke, 1)).sum() == spoke_count
    assert is_spoke.mean() == pytest.approx(0.5, abs=0.02)


@pytest.mark.parametrize("spoke_count", [8, 36])
def test_a_star_turned_by_one_spoke_is_the_same_star(spoke_count):
    around = circle(stars(spoke_count), MIDDLES[0], 80)

    turned = np.roll(around, 3600 // spoke_count)

    assert np.corrcoef(around, turned)[0, 1] > 0.98
    assert np.corrcoef(around, np.roll(around, 1800 // spoke_count))[0, 1] < -0.98


def test_neighbouring_stars_are_turned_differently_and_nothing_lies_between_them():
    image = stars(12)

    upper, lower = (circle(image, middle, 80) for middle in MIDDLES)

    assert np.corrcoef(upper, lower)[0, 1] < 0.9
    assert image[SPACING_PX - 3 : SPACING_PX + 3].max() < 1e-3
    assert circle(image, MIDDLES[0], STAR_PX / 2 + 3).max() < 1e-3


def test_spokes_fade_towards_the_middle_where_pixels_cannot_hold_them():
    """The period is 2 pi r / 36 pixels: 14 at the largest radius, 2 at 11.5, 1 at 5.7."""
    image = stars(36)

    contrast = [circle(image, MIDDLES[0], radius).std() for radius in (80, 25, 12, 5)]

    assert np.all(np.diff(contrast) < 0)
    assert contrast[0] > 0.42
    assert contrast[-1] < 0.1


def test_edges_of_spokes_pass_through_grey():
    """Anti-aliasing: along an oblique edge most values lie strictly between the two levels."""
    image = stars(8)
    values = image[20:180, 20:180]

    grey = (values > 0.1) & (values < 0.9)

    assert 0.03 < grey.mean() < 0.3
    assert len(np.unique(np.round(values[grey], 2))) > 60


# --- power law


@pytest.mark.parametrize("exponent", [1.0, 2.0, 3.0])
def test_power_falls_with_the_stated_exponent(exponent):
    slopes = []
    for seed in range(4):
        image = thickness(specimen("power_law", seed, (256, 256), exponent=exponent))
        frequency, power = radial_power(image)
        fitted = (frequency > 0.02) & (frequency < 0.45)
        slopes.append(np.polyfit(np.log(frequency[fitted]), np.log(power[fitted]), 1)[0])

    assert np.mean(slopes) == pytest.approx(-exponent, abs=0.05)


def test_a_power_law_of_exponent_zero_is_white():
    image = thickness(specimen("power_law", 0, (128, 128), exponent=0.0))

    neighbours = np.corrcoef(image[:, :-1].ravel(), image[:, 1:].ravel())[0, 1]

    assert abs(neighbours) < 0.03


def test_opposite_borders_of_a_power_law_do_not_meet():
    """A periodic field would go on across the border as smoothly as inside."""
    image = thickness(specimen("power_law", 0, (128, 96), exponent=3.0))

    inside = np.abs(np.diff(image, axis=0)).mean()

    assert np.abs(image[0] - image[-1]).mean() > 5 * inside
    assert np.abs(image[:, 0] - image[:, -1]).mean() > 5 * inside


def test_a_long_power_law_is_as_rough_along_as_across():
    image = thickness(specimen("power_law", 0, (60, 400), exponent=2.0))

    along, across = (np.diff(image, axis=axis).std() for axis in (1, 0))

    assert along == pytest.approx(across, rel=0.05)


# --- cells


def test_cells_of_the_defaults_are_weak():
    object_ = specimen("cells", phase_range_rad=0.3, amplitude_min=0.98)

    assert np.abs(object_).min() >= 0.98 - 1e-6
    assert np.abs(object_ - object_.mean()).max() < 0.31


def test_sparse_cells_are_connected_blobs_of_the_stated_sizes():
    """One piece per cell, none with a hole, about as large as a disc of its radius."""
    image = thickness(specimen("cells", 1, (300, 300), cell_count=2))

    pieces, count = label(image > 0.05)
    _, holes = label(image <= 0.05)
    sizes = np.bincount(pieces.ravel())[1:]

    assert 10 <= count <= 30
    assert holes == 1
    assert 0.6 * np.pi * 8**2 < np.median(sizes) < 1.2 * np.pi * 16**2


def test_more_cells_cover_more():
    def covered(cell_count: int) -> float:
        return (thickness(specimen("cells", 0, (200, 200), cell_count=cell_count)) > 0.05).mean()

    shares = [covered(cell_count) for cell_count in (1, 5, 20, 60)]

    assert np.all(np.diff(shares) > 0)
    assert shares[0] < 0.15
    assert shares[-1] > 0.9


def test_cells_are_smooth():
    """No step between neighbouring pixels comes near that of a sharp edge."""
    image = thickness(specimen("cells", 0, (200, 200), smallest_cell_px=12.0, largest_cell_px=30.0))

    assert max(np.abs(np.diff(image, axis=axis)).max() for axis in (0, 1)) < 0.3


def test_from_outside_inwards_a_cell_has_a_membrane_a_body_and_a_nucleus():
    """Mean thickness by depth below the edge of cells of one radius, 30 pixels."""
    image = thickness(
        specimen("cells", 1, (400, 400), cell_count=1, smallest_cell_px=30.0, largest_cell_px=30.0)
    )
    depth = np.round(distance_transform_edt(image > 0.05)).astype(int)

    profile = np.bincount(depth.ravel(), image.ravel()) / np.bincount(depth.ravel())

    membrane, body, nucleus = profile[[4, 9, 20]]
    assert membrane > 1.2 * body
    assert nucleus > 1.3 * membrane


@pytest.mark.parametrize("seed", range(10))
def test_no_object_is_empty(seed):
    object_ = specimen("cells", seed, (33, 33), cell_count=1, smallest_cell_px=4.0)

    assert np.isfinite(object_).all()


@pytest.mark.parametrize("star_diameter_px", [3.0, 40.0, 1000.0])
def test_stars_may_be_small_or_larger_than_the_object(star_diameter_px):
    object_ = specimen("siemens_star", star_diameter_px=star_diameter_px)

    assert np.ptp(np.angle(object_)) == pytest.approx(1.2, abs=1e-6)


def test_cells_are_not_cut_at_the_border():
    """Cells reach over the border as they would on a larger slide: it is as covered as the rest."""
    image = np.mean(
        [thickness(specimen("cells", seed, (120, 120))) > 0.05 for seed in range(20)], axis=0
    )

    border = np.concatenate([image[0], image[-1], image[:, 0], image[:, -1]]).mean()

    assert border == pytest.approx(image[20:-20, 20:-20].mean(), abs=0.08)
