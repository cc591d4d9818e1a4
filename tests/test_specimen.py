"""The synthetic object keeps its stated ranges."""

import numpy as np
import pytest

from study_lib.specimen import grains


def specimen(seed: int = 0, **changes: float) -> np.ndarray:
    values = {
        "grain_count": 80,
        "smallest_grain_px": 2.0,
        "largest_grain_px": 15.0,
        "phase_range_rad": 1.2,
        "amplitude_min": 0.7,
    }
    return grains(shape_px=(70, 90), random=np.random.default_rng(seed), **values | changes)


def test_amplitude_and_phase_have_the_stated_ranges():
    object_ = specimen()

    assert object_.dtype == np.complex64
    assert np.abs(object_).max() == pytest.approx(1, abs=1e-6)
    assert np.abs(object_).min() == pytest.approx(0.7, abs=1e-6)
    assert np.ptp(np.angle(object_)) == pytest.approx(1.2, abs=1e-6)
    assert np.angle(object_).mean() == pytest.approx(0, abs=1e-6)


def test_what_retards_more_absorbs_more():
    object_ = specimen()

    amplitudes = np.abs(object_).ravel()[np.argsort(np.angle(object_).ravel())]

    assert np.diff(amplitudes).max() < 1e-5


def test_a_seed_gives_the_same_bytes_and_another_seed_another_object():
    assert specimen(1).tobytes() == specimen(1).tobytes()
    assert specimen(1).tobytes() != specimen(2).tobytes()


def test_smaller_grains_put_more_power_at_high_frequency():
    def high_share(object_: np.ndarray) -> float:
        power = np.abs(np.fft.fft2(np.angle(object_))) ** 2
        y, x = np.fft.fftfreq(70)[:, None], np.fft.fftfreq(90)
        return power[np.hypot(y, x) > 0.15].sum() / power.sum()

    fine = specimen(smallest_grain_px=1.0, largest_grain_px=4.0, grain_count=800)
    coarse = specimen(smallest_grain_px=15.0, largest_grain_px=30.0)

    assert high_share(fine) > 3 * high_share(coarse)
