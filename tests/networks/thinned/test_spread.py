"""What a network says of its own error, against the errors of many experiments."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from small_training import SMALL_THINNED, measurement_of, true_object

from study_lib.networks.thinned.ensemble import ThinnedResult, reconstruct_thinned
from study_lib.networks.thinned.spread import phase_spread, redrawn
from study_lib.networks.thinned.training import train_thinned
from study_lib.networks.thinned.trust import SURE, Trust
from study_lib.physics.forward import patterns_expected
from study_lib.scores.alignment import remove_ambiguities
from study_lib.scores.scoring import light_of

REFUSED = Trust(gain_nats=-1.0, standard_error_nats=0.1)
DESIGN = SMALL_THINNED.model_copy(update={"validation_share": 0.3, "thinnings": 4})


@pytest.fixture(scope="module")
def measurement():
    return measurement_of(photons=2e4)


@pytest.fixture(scope="module")
def ensemble(measurement):
    return train_thinned(measurement, DESIGN, seed=4)[0]


def truth_as_found() -> ThinnedResult:
    truth = true_object()
    return ThinnedResult(truth, truth, np.zeros(truth.shape, np.float32))


def test_redrawn_counts_have_the_mean_and_the_variance_that_the_object_gives(measurement):
    background = np.full(measurement.probe.shape, 3.0, np.float32)
    bad = np.zeros(measurement.probe.shape, bool)
    bad[4, 5] = True
    given = replace(measurement, background=background, bad_pixels=bad)
    random = np.random.default_rng(2)

    counts = np.stack([redrawn(given, truth_as_found(), random).counts for _ in range(40)])

    rates = patterns_expected(
        torch.from_numpy(given.probe),
        torch.from_numpy(true_object()),
        torch.from_numpy(given.positions_px),
        torch.from_numpy(background),
    ).numpy()
    assert not counts[..., bad].any()
    good = counts[..., ~bad]
    assert good.mean() == pytest.approx(rates[..., ~bad].mean(), rel=1e-3)
    assert good.var(axis=0, ddof=1).mean() == pytest.approx(rates[..., ~bad].mean(), rel=0.02)
    assert (given.amplitudes == measurement.amplitudes).all()  # the given ones stay


@pytest.mark.slow
@pytest.mark.parametrize("trust", [SURE, REFUSED], ids=["network", "base"])
def test_the_stated_error_is_that_of_many_experiments(measurement, ensemble, trust):
    """Held against the truth, over fresh counts: right within a third, and where it says so."""
    stated_rad = phase_spread(
        ensemble,
        measurement,
        reconstruct_thinned(ensemble, measurement, trust=trust),
        trust,
        np.random.default_rng(1),
    )
    light, truth, random = light_of(measurement), true_object(), np.random.default_rng(9)
    lit = light > 0.1 * light.max()
    errors = []
    for _ in range(8):
        fresh = redrawn(measurement, truth_as_found(), random)
        found = reconstruct_thinned(ensemble, fresh, trust=trust).object_
        aligned = remove_ambiguities(found, truth, lit.astype(float)).object_
        errors.append(np.angle(aligned * truth.conj())[lit])

    ratio = np.sqrt((stated_rad[lit] ** 2).mean() / np.mean(np.square(errors)))
    assert 0.67 < ratio < 1.5
    within = np.mean(np.abs(errors) < 2 * stated_rad[lit])
    assert 0.88 < within <= 1  # .95 of a normal error
    of_pixel_rad = np.sqrt(np.mean(np.square(errors), axis=0))
    assert np.corrcoef(stated_rad[lit], of_pixel_rad)[0, 1] > 0.3  # larger where it is larger
    assert not stated_rad[light == 0].any()


@pytest.mark.slow
def test_fewer_photons_leave_a_larger_error(ensemble, measurement):
    def stated_rad(one):
        found = reconstruct_thinned(ensemble, one, trust=SURE)
        return phase_spread(ensemble, one, found, SURE, np.random.default_rng(1))

    faint = measurement_of(photons=2e3)
    lit = light_of(measurement) > 0
    many, few = (np.sqrt((stated_rad(one)[lit] ** 2).mean()) for one in (measurement, faint))
    assert 1.5 < few / many < 5  # the root of ten, but for what is bias or of the members
