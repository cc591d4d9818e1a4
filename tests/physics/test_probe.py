"""The probe has the far field, the landing radius and the diameter that optics gives it."""

import numpy as np
import pytest
import torch

from study_lib.errors import InputError
from study_lib.physics.fourier import fourier
from study_lib.physics.probe import (
    central_window,
    probe_diameter_px,
    probe_fwhm_px,
    zone_plate_probe,
)

SIDE = 128
APERTURE = 0.2


def zone_plate(defocus_radius_px: float = 20.0, stop_ratio: float = 0.4) -> np.ndarray:
    return zone_plate_probe(
        side_px=SIDE,
        aperture_per_px=APERTURE,
        stop_ratio=stop_ratio,
        defocus_radius_px=defocus_radius_px,
    )


def radius_px(side: int = SIDE) -> np.ndarray:
    y, x = np.indices((side, side)) - side // 2
    return np.hypot(y, x)


def mean_square_radius(probe: np.ndarray) -> float:
    return float((np.abs(probe) ** 2 * radius_px() ** 2).sum())


@pytest.mark.parametrize("defocus_radius_px", [0.0, 20.0])
def test_the_probe_has_unit_power(defocus_radius_px):
    assert (np.abs(zone_plate(defocus_radius_px)) ** 2).sum() == pytest.approx(1, rel=1e-12)


@pytest.mark.parametrize("defocus_radius_px", [0.0, 20.0])
def test_the_far_field_is_the_annulus_whatever_the_defocus(defocus_radius_px):
    far_field = fourier(torch.from_numpy(zone_plate(defocus_radius_px))).abs().numpy() ** 2
    frequency = radius_px() / SIDE
    in_annulus = (frequency > 0.4 * APERTURE + 1 / SIDE) & (frequency < APERTURE - 1 / SIDE)
    outside = (frequency > APERTURE + 1 / SIDE) | (frequency < 0.4 * APERTURE - 1 / SIDE)

    assert far_field[outside].sum() < 1e-20
    assert far_field[in_annulus].std() < 1e-9 * far_field[in_annulus].mean()


def test_without_a_stop_the_centre_of_the_far_field_is_bright():
    far_field = fourier(torch.from_numpy(zone_plate(stop_ratio=0.0))).abs().numpy()

    assert far_field[SIDE // 2, SIDE // 2] == pytest.approx(far_field.max())


@pytest.mark.parametrize("defocus_radius_px", [10.0, 20.0, 30.0])
@pytest.mark.parametrize("stop_ratio", [0.0, 0.4])
def test_rays_land_where_geometry_sends_them(defocus_radius_px, stop_ratio):
    """Ray q of a uniform annulus lands at R q / q_max, so <r^2> grows by R^2 (1 + s^2) / 2."""
    in_focus = mean_square_radius(zone_plate(0.0, stop_ratio))
    grown = mean_square_radius(zone_plate(defocus_radius_px, stop_ratio)) - in_focus

    assert grown == pytest.approx(defocus_radius_px**2 * (1 + stop_ratio**2) / 2, rel=0.03)


def test_the_light_ends_at_the_edge_ray():
    intensity = np.abs(zone_plate(30.0, stop_ratio=0.0)) ** 2

    assert intensity[radius_px() < 30].sum() > 0.9
    assert intensity[radius_px() < 24].sum() < 0.75


@pytest.mark.parametrize("power_share", [0.5, 0.9])
def test_a_uniform_disc_has_its_own_diameter(power_share):
    """Equal brightness: a share of the power is the same share of the area."""
    disc = (radius_px() < 30.0).astype(complex)

    diameter = probe_diameter_px(disc, power_share)

    assert diameter == pytest.approx(60 * np.sqrt(power_share), rel=0.005)


@pytest.mark.parametrize("power_share", [0.5, 0.9])
def test_a_gaussian_has_the_diameter_of_its_closed_form(power_share):
    """Intensity exp(-r^2 / 2 s^2) holds the share p inside r^2 = -2 s^2 ln(1 - p)."""
    probe = np.exp(-(radius_px() ** 2) / (4 * 10.0**2)).astype(complex)

    expected = 2 * 10.0 * np.sqrt(-2 * np.log(1 - power_share))

    assert probe_diameter_px(probe, power_share) == pytest.approx(expected, rel=0.005)


def test_diameter_depends_neither_on_brightness_nor_on_place():
    probe = zone_plate()

    moved = np.roll(7j * probe, (9, -30), axis=(0, 1))

    assert probe_diameter_px(moved, 0.9) == probe_diameter_px(probe, 0.9)


def test_the_central_window_keeps_the_centre_pixel_and_states_its_share():
    probe = zone_plate(5.0)

    window, share = central_window(probe, 64)

    assert window.shape == (64, 64)
    assert window[32, 32] == probe[SIDE // 2, SIDE // 2]
    assert share == pytest.approx((np.abs(window) ** 2).sum())
    assert 0.9 < share < 1


def test_the_whole_probe_as_its_own_window_loses_nothing():
    probe = zone_plate()

    window, share = central_window(probe, SIDE)

    np.testing.assert_array_equal(window, probe)
    assert share == 1


def test_a_window_that_cuts_the_light_is_refused():
    with pytest.raises(InputError, match=r"32-pixel window keeps \d+\.\d%.*90%.*raise patch_size"):
        central_window(zone_plate(30.0), 32)


def test_a_window_larger_than_the_probe_is_refused():
    with pytest.raises(InputError, match="has 128 pixels a side, the design's patch 256"):
        central_window(zone_plate(), 256)


def test_the_fwhm_of_a_gaussian_is_2_35_sigma():
    y, x = np.indices((128, 128)) - 64.0
    sigma_px = 10.0
    wave = np.exp(-(y**2 + x**2) / (4 * sigma_px**2)).astype(complex)

    assert probe_fwhm_px(wave) == pytest.approx(2 * np.sqrt(2 * np.log(2)) * sigma_px, rel=0.01)
    assert probe_fwhm_px(3j * wave) == probe_fwhm_px(wave)
