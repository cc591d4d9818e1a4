"""Thinning: two independent Poisson measurements of one, and the laws behind that."""

import numpy as np
import pytest
import torch
from small_training import measurement_of

from study_lib.errors import InputError
from study_lib.physics.forward import exit_waves, expected_counts
from study_lib.physics.measurement import at_positions, split_counts, split_photons

DRAWS = 200_000


def drawn(rate: float, share: float) -> tuple[np.ndarray, np.ndarray]:
    random = np.random.default_rng(5)
    counts = random.poisson(rate, DRAWS).astype(np.float64)
    kept, rest = split_counts(counts, share, random)
    np.testing.assert_array_equal(kept + rest, counts)
    return kept, rest


@pytest.mark.parametrize("rate", [0.05, 2.0, 300.0])
@pytest.mark.parametrize("share", [0.2, 0.5, 0.8])
def test_both_parts_are_poisson_and_independent(rate, share):
    """Mean and variance of each are its share of the rate; the covariance vanishes."""
    kept, rest = drawn(rate, share)

    for part, expected in ((kept, share * rate), (rest, (1 - share) * rate)):
        error = (expected / DRAWS) ** 0.5
        assert part.mean() == pytest.approx(expected, abs=5 * error)
        spread = (expected * (1 + 2 * expected) / DRAWS) ** 0.5  # of a Poisson variance
        assert part.var() == pytest.approx(expected, abs=5 * spread)
    correlation = np.corrcoef(kept, rest)[0, 1]
    assert abs(correlation) < 5 / DRAWS**0.5


def test_counts_that_are_no_longer_poisson_give_parts_that_are_not_independent():
    """The check above can fail: of a fixed count, what one part gets the other loses."""
    random = np.random.default_rng(6)
    kept, rest = split_counts(np.full(1000, 50.0), 0.5, random)

    assert np.corrcoef(kept, rest)[0, 1] == pytest.approx(-1)


@pytest.mark.parametrize("share", [0.0, 1.0, -0.1, 1.5])
def test_a_share_that_leaves_one_part_empty_is_refused(share):
    with pytest.raises(InputError, match=rf"share {share} of the photons; choose one between"):
        split_counts(np.ones(3), share, np.random.default_rng(0))


def test_each_part_has_the_probe_of_its_photons():
    """With the same object each part expects its share of the counts: the objects are one."""
    measurement = measurement_of()
    object_ = torch.from_numpy(np.full(measurement.object_shape, 0.8 + 0.3j, np.complex64))
    positions = torch.from_numpy(measurement.positions_px)

    parts = split_photons(measurement, 0.7, np.random.default_rng(1))

    whole = expected_counts(exit_waves(torch.from_numpy(measurement.probe), object_, positions))
    for part, share in zip(parts, (0.7, 0.3), strict=True):
        found = expected_counts(exit_waves(torch.from_numpy(part.probe), object_, positions))
        torch.testing.assert_close(found, share * whole, rtol=1e-4, atol=1e-4)
    np.testing.assert_array_equal(sum(part.counts for part in parts), measurement.counts)


def test_chosen_positions_keep_what_belongs_to_them():
    measurement = measurement_of()
    index = np.array([1, 4, 9])

    part = at_positions(measurement, index)

    np.testing.assert_array_equal(part.scan_index, measurement.scan_index[index])
    np.testing.assert_array_equal(part.positions_px, measurement.positions_px[index])
    np.testing.assert_array_equal(part.counts, measurement.counts[index])
    np.testing.assert_array_equal(part.groups, [[0], [1], [2]])
