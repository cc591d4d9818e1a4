"""When a gain is beyond chance, of patterns that share pixels: laws and limits."""

import numpy as np
import pytest
from scipy.ndimage import gaussian_filter

from study_lib.networks.thinned.trust import Trust, block_error, blocks_of

SIDE = 20
PLACES = 5.0 * np.indices((SIDE, SIDE)).reshape(2, -1).T  # 400 positions, 5 pixels apart


def test_independent_gains_have_the_usual_error():
    gains = np.random.default_rng(1).standard_normal(len(PLACES))

    found = Trust.of(gains, PLACES, 10.0)  # 4 patterns in each block

    assert found.gain_nats == gains.mean()
    assert found.standard_error_nats == pytest.approx(gains.std() / SIDE, rel=0.15)


def test_gains_that_are_one_in_each_block_have_the_error_of_the_blocks():
    block = blocks_of(PLACES, 25.0)
    of_block = np.random.default_rng(2).standard_normal(16)
    assert np.array_equal(np.bincount(block), np.full(16, 25))

    found = block_error(of_block[block], block)

    assert found == pytest.approx(of_block.std(ddof=1) / 4, rel=0.1)


def fields(draws: int, width_px: float) -> np.ndarray:
    """Gains without any mean, dependent over a width in pixels."""
    random = np.random.default_rng(3)
    white = random.standard_normal((draws, 2 * SIDE, 2 * SIDE))
    smooth = gaussian_filter(white, (0, width_px / 5, width_px / 5))
    return smooth[:, :SIDE, :SIDE].reshape(draws, -1) / smooth.std()


def test_gains_of_neighbours_that_depend_on_one_another_are_trusted_no_more_often_by_chance():
    """One in forty would be by two errors of a normal mean; taken as independent, one in four."""
    drawn = fields(400, width_px=6.0)

    trusted = np.mean([Trust.of(gains, PLACES, 25.0).given for gains in drawn])
    naive = np.mean(drawn.mean(axis=1) > 2 * drawn.std(axis=1) / SIDE)

    assert trusted < 0.08
    assert naive > 0.2


def test_a_gain_beyond_its_scatter_is_trusted():
    gains = np.random.default_rng(4).standard_normal(len(PLACES))
    gains -= gains.mean()

    assert not Trust.of(gains + 0.05, PLACES, 10.0).given
    assert Trust.of(gains + 0.15, PLACES, 10.0).given


def test_where_the_scan_lies_does_not_matter():
    gains = np.random.default_rng(5).standard_normal(len(PLACES))

    assert Trust.of(gains, PLACES, 10.0) == Trust.of(gains, PLACES - 1234.5, 10.0)


def test_a_scan_that_is_a_single_block_gives_no_trust():
    found = Trust.of(np.full(len(PLACES), 5.0), PLACES, 1000.0)

    assert np.isinf(found.standard_error_nats)
    assert not found.given
