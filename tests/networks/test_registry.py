"""Networks plug in by name, and a name means one network."""

import pytest
import torch

from study_lib.design.presets import load_design
from study_lib.errors import InputError
from study_lib.networks import registry as networks
from study_lib.networks.pinn.network import PtychoPinn
from study_lib.networks.registry import NetworkShape, build_network
from study_lib.runs.forecast import check_network

SHAPE = NetworkShape(channels=4, side_px=16, filters_scale=2, half_precision=False)


@pytest.mark.parametrize("name", ["pinn", "pinn-amplitudes"])
def test_networks_have_the_shape_asked_for(name):
    network = build_network(name, SHAPE)

    assert isinstance(network, PtychoPinn)
    assert network(torch.ones(2, 4, 16, 16)).shape == (2, 4, 16, 16)


def test_another_network_plugs_in(monkeypatch):
    monkeypatch.setattr(networks, "NETWORKS", dict(networks.NETWORKS))
    asked = []

    def builder(shape: NetworkShape) -> PtychoPinn:
        asked.append(shape)
        return networks.pinn(NetworkShape(1, 16, 1, half_precision=False))

    networks.NETWORKS["mine"] = builder

    assert isinstance(build_network("mine", SHAPE), PtychoPinn)
    assert asked == [SHAPE]
    check_network(load_design("smoke", ["training.network=mine"]))


def test_unknown_name_lists_those_that_are_known():
    with pytest.raises(InputError, match="unet: no such network; choose one of pinn"):
        build_network("unet", SHAPE)


def test_a_design_with_an_unknown_network_is_not_feasible():
    with pytest.raises(InputError, match=r"^smoke: training.network: unet: no such network; choo"):
        check_network(load_design("smoke", ["training.network=unet"]))
