"""Each photon goes once to one part, doses are nested, parts of Poisson counts are Poisson."""

from itertools import pairwise

import numpy as np
import pytest
from scipy import stats

from study_lib.physics.photons import (
    SHARES,
    divided,
    noise_test,
    share_no_photons,
    thinned,
    whole_share_of_roots,
)

SEED = 42


@pytest.fixture
def counts(rng) -> np.ndarray:
    """Patterns of more than one random stream, dark pixels and bright ones."""
    return rng.poisson(rng.choice([0.0, 0.3, 5.0, 400.0], (130, 8, 8))).astype(np.float32)


@pytest.mark.parametrize("draw", [0, 1, 2, 5])
def test_arms_reference_and_judge_have_each_photon_once(counts, draw):
    parts = divided(counts, draw=draw, seed=SEED)
    assert set(parts) == {"arms", "reference", "judge"}
    np.testing.assert_array_equal(sum(parts.values()), counts)
    assert all((part >= 0).all() for part in parts.values())
    for name, part in parts.items():
        spread = np.sqrt(counts.sum() * SHARES[name] * (1 - SHARES[name]))
        assert abs(part.sum() - SHARES[name] * counts.sum()) < 4 * spread, name


def test_two_draws_of_a_pair_share_no_photon_and_others_share_some(counts):
    arms = [divided(counts, draw=draw, seed=SEED)["arms"] for draw in range(4)]
    np.testing.assert_array_equal(arms[0] + arms[1], counts)
    np.testing.assert_array_equal(arms[2] + arms[3], counts)
    assert ((arms[0] + arms[2]) != counts).any()
    found = {(one, two) for one in range(4) for two in range(4) if share_no_photons(one, two)}
    assert found == {(0, 1), (1, 0), (2, 3), (3, 2)}


def test_parts_of_a_draw_know_nothing_of_one_another():
    # Of Poisson counts of one rate: no correlation, and variance over mean one in each part.
    counts = np.random.default_rng(3).poisson(20.0, (400, 16, 16)).astype(np.float32)
    parts = divided(counts, draw=0, seed=SEED)
    flat = {name: part.ravel().astype(float) for name, part in parts.items()}
    size = counts.size
    for name, part in flat.items():
        assert part.var() / part.mean() == pytest.approx(1, abs=4 * np.sqrt(2 / size)), name
    for one, two in (("arms", "reference"), ("arms", "judge"), ("reference", "judge")):
        assert abs(np.corrcoef(flat[one], flat[two])[0, 1]) < 4 / np.sqrt(size), (one, two)


def test_photons_of_a_lower_dose_are_among_those_of_a_higher_one(counts):
    shares = (1.0, 0.77, 0.5, 0.31, 0.3, 0.05, 1e-3)
    doses = [thinned(counts, share, seed=SEED, draw=0) for share in shares]
    np.testing.assert_array_equal(doses[0], counts)
    for more, fewer in pairwise(doses):
        assert (fewer <= more).all()
        assert fewer.sum() < more.sum()


@pytest.mark.parametrize("share", [0.43, 0.5, 0.0043])
def test_a_thinning_of_poisson_counts_is_poisson_of_the_smaller_rate(share):
    rate = 30.0
    counts = np.random.default_rng(5).poisson(rate, (300, 16, 16))
    kept = thinned(counts, share, seed=SEED, draw=0).ravel().astype(int)
    values = np.arange(int(rate * share + 6 * np.sqrt(rate * share)) + 1)
    found = np.array([(kept == value).sum() for value in values])
    expected = stats.poisson.pmf(values, rate * share) * kept.size
    common = expected > 5
    observed = np.append(found[common], kept.size - found[common].sum())
    wanted = np.append(expected[common], kept.size - expected[common].sum())
    assert stats.chisquare(observed, wanted).pvalue > 1e-3


def test_the_gain_between_two_doses_is_independent_of_the_lower_one():
    # Poisson parts: what a higher dose adds knows nothing of the photons that were there.
    counts = np.random.default_rng(6).poisson(40.0, (200, 16, 16))
    low, high = (thinned(counts, share, seed=SEED, draw=0).ravel() for share in (0.2, 0.6))
    assert abs(np.corrcoef(low, high - low)[0, 1]) < 4 / np.sqrt(counts.size)


def test_equal_seeds_give_equal_photons_and_other_draws_others(counts):
    one, again = (thinned(counts, 0.3, seed=SEED, draw=0) for _ in range(2))
    other = thinned(counts, 0.3, seed=SEED, draw=1)
    assert one.tobytes() == again.tobytes()
    assert (one != other).any()
    parts, once_more = (divided(counts, draw=1, seed=SEED) for _ in range(2))
    assert all(parts[name].tobytes() == once_more[name].tobytes() for name in parts)
    assert (divided(counts, draw=1, seed=SEED + 1)["arms"] != parts["arms"]).any()


def test_whole_counts_are_known_through_the_rounding_of_their_roots(rng):
    counts = rng.integers(0, 400_000, (4, 32, 32))
    assert whole_share_of_roots(np.sqrt(counts).astype(np.float32)) == 1
    assert whole_share_of_roots(np.sqrt(counts * 1.37).astype(np.float32)) < 0.4


GAINS = {"photons": 1.0, "four for each photon": 4.0}


@pytest.mark.parametrize("gain", list(GAINS))
def test_the_dispersion_of_repeated_frames_is_the_gain_of_the_detector(rng, gain):
    rates = rng.uniform(0.5, 50, (16, 16))
    frames = GAINS[gain] * rng.poisson(rates, (60, 16, 16))
    places = np.repeat(rng.uniform(0, 50, (30, 2)), 2, axis=0)
    found = noise_test(np.sqrt(frames), places)
    assert found.dispersion_repeated == pytest.approx(GAINS[gain], rel=0.05)
    assert found.is_poisson is (GAINS[gain] == 1)
    assert found.step == GAINS[gain]
    assert ("NOT Poisson" in found.sentence) is (GAINS[gain] != 1)


def test_faint_pixels_tell_the_noise_where_neighbouring_frames_differ(rng):
    # Every frame another pattern, so that the object's change hides the noise in bright pixels.
    rates = rng.uniform(0, 200, (80, 32, 32))
    rates[:, :16] = 0.06
    places = rng.uniform(0, 100, (80, 2))
    photons = rng.poisson(rates)
    for gain in GAINS.values():
        found = noise_test(np.sqrt(gain * photons), places)
        if gain == 1:
            assert found.dispersion_faint == pytest.approx(1, abs=0.1)
            assert found.is_poisson
            assert "consistent with one count per photon" in found.sentence
        assert found.dispersion_repeated is None
        assert found.dispersion_neighbouring > 10


def test_bad_pixels_take_no_part_in_the_test_of_the_noise(rng):
    frames = rng.poisson(5.0, (40, 16, 16))
    frames[::2, 3, 4] = 60_000
    bad = np.zeros((16, 16), bool)
    bad[3, 4] = True
    places = np.zeros((40, 2))
    assert noise_test(np.sqrt(frames), places).dispersion > 2
    assert noise_test(np.sqrt(frames), places, bad).is_poisson
    each = np.broadcast_to(bad, frames.shape)
    assert noise_test(np.sqrt(frames), places, each).is_poisson


def test_neighbours_that_differ_by_less_than_photons_outweigh_faint_pixels(rng):
    """A detector that smooths over time: bright counts vary less, single photons as ever."""
    frames = np.round(20 + 0.5 * rng.standard_normal((80, 32, 32)) * np.sqrt(20))
    frames[:, :16] = rng.random((80, 16, 32)) < 0.05
    found = noise_test(np.sqrt(frames), rng.uniform(0, 100, (80, 2)))
    assert found.dispersion_faint == pytest.approx(1, abs=0.1)
    assert found.dispersion_neighbouring < 0.5
    assert found.is_poisson is False
    assert "NOT Poisson" in found.sentence


def test_data_that_cannot_tell_say_so(rng):
    rates = rng.uniform(0, 200, (20, 16, 16))
    found = noise_test(np.sqrt(rng.poisson(rates)), rng.uniform(0, 100, (20, 2)))
    assert found.is_poisson is None
    assert "cannot be said" in found.sentence


def test_some_patterns_are_thinned_as_they_are_among_all(rng):
    counts = rng.poisson(20.0, (150, 6, 6))
    every = thinned(counts, 0.3, seed=5, draw=1)
    for rows in (np.array([149, 3, 70, 4]), np.arange(64, 128), np.array([0])):
        some = thinned(counts, 0.3, seed=5, draw=1, rows=rows)
        assert some.tobytes() == every[rows].tobytes()
