"""What taking a part of the thinning network away changes, and what a strange object says of it."""

import numpy as np
import pytest
import torch
from small_training import measurement_of, true_object
from test_thinned_training import DESIGN

from study_lib.networks.thinned.inputs import MAPS, thinned_input
from study_lib.networks.thinned.studies import (
    WITHOUT,
    Part,
    ablated,
    blind_to,
    local_gains,
    only_the_base,
    trust_map,
    without_alternation,
)
from study_lib.networks.thinned.training import train_thinned
from study_lib.networks.thinned.trust import Trust
from study_lib.physics.measurement import box_of

pytestmark = pytest.mark.slow

SHORT = DESIGN.model_copy(update={"steps": 4, "members": 2})


@pytest.fixture(scope="module")
def measurement():
    return measurement_of(photons=5e3)


@pytest.fixture(scope="module")
def ensemble(measurement):
    return train_thinned(measurement, SHORT, seed=4)[0]


@pytest.fixture(scope="module")
def shown(measurement, ensemble):
    return thinned_input(measurement, ensemble.choices, box_of(measurement))


def test_each_candidate_has_its_name(shown):
    assert len(shown.names) == len(shown.candidates) == len(set(shown.names))
    assert shown.names[0] == "solver"
    assert len(shown.maps) == MAPS


def test_only_the_base_is_left(shown):
    left = only_the_base(shown)

    torch.testing.assert_close(left.base_object, shown.base_object)
    assert left.names == (shown.names[shown.base],)


def test_without_alternation_no_alternating_object_is_left(shown):
    left = without_alternation(shown)

    assert not [name for name in left.names if name.startswith("alternating")]
    assert len(left.names) == len(left.candidates) < len(shown.names)
    assert set(left.names) <= set(shown.names)
    assert left.base < len(left.names)


def test_a_blinded_map_is_zero_and_the_others_stay(shown):
    left = blind_to((0, 2))(shown)

    assert not left.maps[[0, 2]].any()
    torch.testing.assert_close(left.maps[[1, 3]], shown.maps[[1, 3]])
    assert shown.maps[[0, 2]].any(), "the input itself is not changed"


@pytest.mark.parametrize("name", sorted(WITHOUT))
def test_every_part_can_be_left_out(measurement, name):
    """It trains, and gives an object of its own."""
    rows = ablated(
        measurement,
        measurement,
        lambda object_: {"sum": float(np.abs(object_).sum())},
        SHORT,
        seed=4,
        parts={name: WITHOUT[name]},
    )

    assert [row["left out"] for row in rows] == ["the network", name, "smoothing afterwards"]
    assert all(np.isfinite(row["sum"]) for row in rows)
    assert rows[0]["gain_nats"] == 0


def test_leaving_nothing_out_changes_nothing(measurement, ensemble):
    rows = ablated(
        measurement,
        measurement,
        lambda object_: {},
        SHORT,
        seed=4,
        parts={"nothing": Part()},
    )

    assert rows[1]["gain_nats"] == ensemble.trust.gain_nats


def test_trust_is_shared_out_in_every_pixel(ensemble, shown):
    trust = trust_map(ensemble, shown)

    np.testing.assert_allclose(trust.sum(axis=0), 1, atol=1e-5)
    assert trust.min() >= 0
    assert trust.shape[1:] == shown.phasor.shape


def test_held_out_counts_refuse_what_a_network_invents(measurement, ensemble, monkeypatch):
    """Structure that is not there makes the counts that see it less likely, and only those."""
    from study_lib.networks.thinned import studies

    invented = np.zeros(measurement.object_shape, np.complex64)
    invented[12:20, 12:20] = 0.3
    honest = studies.reconstruct_thinned

    def inventing(one, part, *, trust):
        found = honest(one, part, trust=trust)
        truth = true_object()
        return type(found)(truth + invented, truth, found.members_rad)

    monkeypatch.setattr(studies, "reconstruct_thinned", inventing)

    gains = local_gains(ensemble, measurement, np.random.default_rng(1))

    middle = np.linalg.norm(measurement.positions_px - 16, axis=1)
    assert gains[middle < 6].max() < -1
    assert np.abs(gains[middle > 20]).max() < 1
    assert not Trust.of(gains, measurement.positions_px, 4.0).given
