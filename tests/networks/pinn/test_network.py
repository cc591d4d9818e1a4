"""The network predicts one physical patch per pattern, whatever the dose."""

import itertools

import pytest
import torch

from study_lib.networks.pinn.network import PtychoPinn, StandardisedAmplitudes

SIDE = 16


@pytest.fixture
def random() -> torch.Generator:
    return torch.Generator().manual_seed(11)


def network_of(channels: int = 1, side: int = SIDE, filters_scale: int = 1) -> PtychoPinn:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(5)
        return PtychoPinn(
            channels=channels,
            side=side,
            filters_scale=filters_scale,
            inputs=StandardisedAmplitudes(side),
        )


@pytest.mark.parametrize(("side", "channels"), [*itertools.product((16, 32, 64), (1, 4))])
def test_network_gives_one_patch_per_pattern(side, channels, random):
    inputs = torch.rand(2, channels, side, side, generator=random)

    patches = network_of(channels, side)(inputs)

    assert patches.shape == inputs.shape
    assert patches.dtype == torch.complex64


def test_amplitudes_stay_below_one_and_phases_short_of_pi(random):
    """More than 1 would create photons; a phase beyond pi would come out on the other side."""
    network = network_of(channels=4)
    raw = torch.tensor([4.0, -4.0, 1.0, -1.0])
    with torch.no_grad():
        for head in (network.amplitude, network.phase):
            head.centre.weight.zero_()
            head.centre.bias.copy_(raw)
        patches = network(torch.rand(3, 4, SIDE, SIDE, generator=random))
    centre = patches[..., SIDE // 4 : -SIDE // 4, SIDE // 4 : -SIDE // 4]

    assert 0 < patches.abs().min() < patches.abs().max() < 1
    assert (centre.angle().sign() == raw.sign()[:, None, None]).all()
    assert (centre[:, :2].angle().abs() > 3.1).all()
    assert (centre[:, 0].abs() > 0.95).all()
    assert (centre[:, 1].abs() < 0.05).all()


def test_every_channel_of_the_network_sees_every_pattern_of_its_group(random):
    inputs = torch.rand(1, 4, SIDE, SIDE, generator=random, requires_grad=True)
    patches = network_of(channels=4)(inputs)

    for channel in range(4):
        (gradient,) = torch.autograd.grad(
            patches[0, channel].abs().sum(), inputs, retain_graph=True
        )
        assert (gradient[0].abs().amax(dim=(1, 2)) > 0).all()


@pytest.mark.parametrize("side", [16, 64])
def test_twice_the_width_is_about_four_times_the_parameters(side):
    narrow, wide = (
        sum(weight.numel() for weight in network_of(1, side, scale).parameters())
        for scale in (1, 2)
    )
    assert 3.7 < wide / narrow < 4.3
