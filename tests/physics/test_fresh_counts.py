"""Counts nobody saw: the truth predicts them best, others worse by a known divergence."""

import numpy as np
import pytest

from study_lib.physics.likelihood import MOST_PATTERNS, FreshCounts

SIDE = 16


@pytest.fixture
def scene() -> dict[str, np.ndarray]:
    """A lopsided curved probe of 3,000 photons over a phase object."""
    y, x = np.mgrid[:SIDE, :SIDE] - SIDE // 2
    probe = np.exp(-(y**2 / 18 + (x - 0.7) ** 2 / 12) + 1j * (0.15 * y**2 + 0.1 * x**2))
    probe *= np.sqrt(3000 / (np.abs(probe) ** 2).sum())
    rows, columns = np.mgrid[:40, :40]
    truth = 0.9 * np.exp(1j * 0.6 * np.sin(rows / 4 + columns / 6))
    places = np.random.default_rng(2).uniform(8, 31, (60, 2))
    return {
        "truth": truth.astype(np.complex64),
        "probe": probe.astype(np.complex64),
        "positions_px": places,
    }


def expected_by_numpy(object_, probe, positions_px) -> np.ndarray:
    """Return the mean counts by numpy alone; the sub-pixel part shifts the probe."""
    cycles = np.fft.fftfreq(SIDE)
    patterns = []
    for place in positions_px:
        whole = np.rint(place).astype(int)
        rest = place - whole
        ramp = np.exp(-2j * np.pi * (cycles[:, None] * rest[0] + cycles * rest[1]))
        moved = np.fft.ifft2(np.fft.fft2(probe) * ramp)
        first = whole - SIDE // 2
        patch = object_[first[0] : first[0] + SIDE, first[1] : first[1] + SIDE]
        patterns.append(np.fft.fftshift(np.abs(np.fft.fft2(moved * patch, norm="ortho")) ** 2))
    return np.array(patterns)


def test_the_truth_and_its_global_phase_have_no_excess(scene):
    fresh = FreshCounts(**scene, random=np.random.default_rng(0))

    turned = (scene["truth"] * np.exp(0.8j)).astype(np.complex64)

    assert fresh.excess_nats(scene["truth"]) == 0
    assert fresh.excess_nats(turned) == pytest.approx(0, abs=0.05)


@pytest.mark.parametrize("background", [0.0, 0.5])
def test_the_mean_excess_is_the_divergence_of_the_rates(scene, background):
    """Kullback and Leibler: m - l + l log(l / m) for rates l of the truth, m of another."""
    rows = np.mgrid[:40, :40][0]
    other = (scene["truth"] * (1 + 0.05 * np.cos(rows)) * np.exp(0.2j * np.sin(rows / 3))).astype(
        np.complex64
    )
    light = scene["probe"], scene["positions_px"]
    true = expected_by_numpy(scene["truth"], *light) + background
    predicted = expected_by_numpy(other, *light) + background
    divergence = (predicted - true + true * np.log(true / predicted)).sum() / len(true)

    draws = [
        FreshCounts(**scene, random=np.random.default_rng(seed), background=background).excess_nats(
            other
        )
        for seed in range(20)
    ]

    error = np.std(draws, ddof=1) / np.sqrt(len(draws))
    assert error < 0.03 * divergence
    assert np.mean(draws) == pytest.approx(divergence, abs=4 * error)


def test_a_ramp_and_a_scale_cost(scene):
    fresh = FreshCounts(**scene, random=np.random.default_rng(0))
    ramp = np.exp(0.05j * np.arange(40))

    for other in (scene["truth"] * ramp, scene["truth"] * 1.1):
        assert fresh.excess_nats(other.astype(np.complex64)) > 5


def test_bad_pixels_do_not_count(scene):
    """Where only the centre is bad, an object that differs in scale alone costs what is left."""
    bad = np.ones((SIDE, SIDE), dtype=bool)
    bad[3, 4] = False
    scaled = (1.1 * scene["truth"]).astype(np.complex64)

    one = FreshCounts(**scene, random=np.random.default_rng(0), bad_pixels=bad)
    rate = expected_by_numpy(scene["truth"], scene["probe"], scene["positions_px"])[:, 3, 4]

    divergence = (0.21 * rate - rate * np.log(1.21)).mean()
    assert one.excess_nats(scaled) == pytest.approx(divergence, abs=6 * rate.mean() ** 0.5 * 0.19)


def test_a_long_scan_is_thinned_evenly(scene):
    many = np.tile(scene["positions_px"], (40, 1))

    fresh = FreshCounts(**scene | {"positions_px": many}, random=np.random.default_rng(0))

    assert sum(map(len, fresh._counts)) == 800
    assert MOST_PATTERNS >= 800
