"""When a gain is beyond chance, of patterns that share pixels: laws and limits."""

import numpy as np
import pytest
from scipy.ndimage import convolve
from scipy.stats import t as student

from study_lib.networks.thinned.trust import Trust, block_error, blocks_of, errors_needed

SIDE = 20
PLACES = 5.0 * np.indices((SIDE, SIDE)).reshape(2, -1).T  # 400 positions, 5 pixels apart
PROBE_PX = 12.5  # blocks of 25 pixels: 4 x 4 of them


def test_independent_gains_have_the_usual_error():
    gains = np.random.default_rng(1).standard_normal(len(PLACES))

    found = Trust.of(gains, PLACES, 5.0)

    assert found.gain_nats == gains.mean()
    assert found.blocks == 100
    assert found.standard_error_nats == pytest.approx(gains.std() / SIDE, rel=0.15)


def test_gains_that_are_one_in_each_block_have_the_error_of_the_blocks():
    block = blocks_of(PLACES, 25.0)
    of_block = np.random.default_rng(2).standard_normal(16)
    assert np.array_equal(np.bincount(block), np.full(16, 25))

    found = block_error(of_block[block], block)

    assert found == pytest.approx(of_block.std(ddof=1) / 4, rel=0.1)


def gains_of_overlapping_probes(draws: int) -> np.ndarray:
    """Gains without any mean: noise of the object under discs as wide as the probe."""
    random, per_px = np.random.default_rng(3), 2.5
    y, x = np.indices((9, 9)) - 4
    disc = (np.hypot(y, x) <= PROBE_PX / per_px / 2).astype(float)
    gains = []
    for _ in range(draws):
        sums = convolve(random.standard_normal((60, 60)), disc)
        gains.append(sums[8:48:2, 8:48:2].ravel())
    return np.array(gains)


def test_by_chance_gains_of_overlapping_patterns_are_seldom_trusted():
    """One in forty, if all were known; taken as independent patterns, far more often."""
    drawn = gains_of_overlapping_probes(1000)

    trusted = np.mean([Trust.of(gains, PLACES, PROBE_PX).given for gains in drawn])
    naive = np.mean(drawn.mean(axis=1) > 2 * drawn.std(axis=1) / SIDE)

    assert trusted < 0.05
    assert naive > 2 * trusted


def test_the_fewer_blocks_the_more_errors_are_needed():
    needed = [errors_needed(count) for count in (None, 1000, 16, 4, 2, 1)]

    assert needed[:2] == [2.0, 2.0]
    assert needed == sorted(needed)
    assert needed[3] == pytest.approx(student.ppf(0.975, 3))
    assert np.isinf(needed[-1])


def test_a_gain_beyond_its_scatter_is_trusted():
    gains = np.random.default_rng(4).standard_normal(len(PLACES))
    gains -= gains.mean()

    assert not Trust.of(gains + 0.05, PLACES, 5.0).given
    assert Trust.of(gains + 0.2, PLACES, 5.0).given


def test_where_the_scan_lies_does_not_matter():
    gains = np.random.default_rng(5).standard_normal(len(PLACES))

    assert Trust.of(gains, PLACES, 5.0) == Trust.of(gains, PLACES - 1234.5, 5.0)


@pytest.mark.parametrize("gain", [5.0, 0.0, -5.0])
def test_a_scan_that_is_a_single_block_gives_no_trust(gain):
    """And a number that can be written down."""
    found = Trust.of(np.full(len(PLACES), gain), PLACES, 1000.0)

    assert np.isfinite(found.standard_error_nats)
    assert not found.given
