"""Light of several wavelengths: each scales the pattern, and all of its photons are counted."""

import numpy as np
import pytest

from study_lib.physics.simulation import TrueLight, blur_by_bandwidth, simulate

SIDE = 64
CENTRE = SIDE // 2


@pytest.fixture
def patterns(rng) -> np.ndarray:
    """Speckle that is dark towards the border of the detector."""
    y, x = np.mgrid[:SIDE, :SIDE] - CENTRE
    envelope = np.exp(-(y**2 + x**2) / (2 * 9.0**2))
    return (1e4 * envelope * rng.exponential(size=(40, SIDE, SIDE))).astype(np.float32)


def blurred(patterns: np.ndarray, bandwidth: float) -> np.ndarray:
    found = patterns.copy()
    blur_by_bandwidth(found, bandwidth)
    return found


@pytest.mark.parametrize("bandwidth", [1e-3, 0.02, 0.2])
def test_every_pattern_keeps_its_photons(patterns, bandwidth):
    found = blurred(patterns, bandwidth)

    np.testing.assert_allclose(found.sum(axis=(1, 2)), patterns.sum(axis=(1, 2)), rtol=1e-5)
    assert (found >= 0).all()
    assert np.abs(found - patterns).max() > 1e-3


def test_one_wavelength_changes_no_bit(patterns):
    assert blurred(patterns, 0.0).tobytes() == patterns.tobytes()


def test_the_zero_frequency_stays_and_a_pattern_without_light_stays_dark():
    peak = np.zeros((2, SIDE, SIDE), np.float32)
    peak[0, CENTRE, CENTRE] = 100

    found = blurred(peak, 0.05)

    y, x = np.indices((SIDE, SIDE))
    assert (found[0] * y).sum() / 100 == pytest.approx(CENTRE, abs=1e-4)
    assert (found[0] * x).sum() / 100 == pytest.approx(CENTRE, abs=1e-4)
    assert found[0, CENTRE, CENTRE] > 97
    assert not found[1].any()


@pytest.mark.parametrize("bandwidth", [0.1, 0.2])
def test_a_peak_becomes_as_long_as_its_distance_from_the_centre_times_the_bandwidth(bandwidth):
    """A flat spectrum of relative width b has the variance (b d)^2 / 12 along the radius."""
    distance = 24
    peak = np.zeros((1, SIDE, SIDE), np.float32)
    peak[0, CENTRE, CENTRE + distance] = 1

    along = blurred(peak, bandwidth)[0].sum(axis=0)

    x = np.arange(SIDE) - CENTRE
    mean = (along * x).sum()
    assert mean == pytest.approx(distance, abs=0.02)
    pixels = 2 / 12  # of the square that a pixel is, and of the pixels it is counted by
    variance = (along * (x - mean) ** 2).sum() - pixels / 2
    assert variance == pytest.approx((bandwidth * distance) ** 2 / 12, abs=0.12)


def test_a_smooth_pattern_is_the_mean_of_its_scaled_copies():
    """A Gaussian, whose copies at other wavelengths are known in closed form."""
    y, x = np.mgrid[:SIDE, :SIDE] - CENTRE
    width, bandwidth = 7.0, 0.2

    def scaled(factor: float) -> np.ndarray:
        return np.exp(-(y**2 + x**2) / (2 * (width * factor) ** 2)) / factor**2

    expected = np.mean([scaled(1 + bandwidth * t) for t in np.linspace(-0.5, 0.5, 201)], axis=0)

    found = blurred(1000 * scaled(1.0).astype(np.float32)[None], bandwidth)[0] / 1000

    assert np.abs(found - expected).max() < 0.01 * expected.max()
    assert np.abs(scaled(1.0) - expected).max() > 0.001 * expected.max()


def test_a_simulated_scan_has_the_dose_at_any_bandwidth_and_a_background_not_given(
    probe, object_, positions_px
):
    places = {"test": positions_px.numpy()}

    def photons(**true: float) -> float:
        scan = simulate(
            object_=object_.numpy(),
            probe=probe.numpy(),
            positions_px=places,
            dose=1e6,
            dark_counts=0.0,
            saturation_counts=None,
            bad_pixels=None,
            random={"test": np.random.default_rng(0)},
            true_light=TrueLight(probe.numpy(), places, {}, **true),
        )
        counted = float((scan.amplitudes["test"] ** 2).sum(axis=(1, 2)).mean())
        assert counted == pytest.approx(scan.photons_expected["test"], rel=5e-3)
        assert scan.photon_ratio == pytest.approx(1)
        return scan.photons_expected["test"]

    assert photons(bandwidth=0.1) == pytest.approx(1e6, rel=1e-4)
    assert photons(background_counts=40.0) == pytest.approx(1e6 + 40 * 16**2, rel=1e-4)
