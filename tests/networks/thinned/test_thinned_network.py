"""The network that mixes denoised objects: what holds before and after any training."""

from dataclasses import replace

import pytest
import torch

from study_lib.networks.thinned.inputs import MAPS, ThinnedInput
from study_lib.networks.thinned.network import MixingNetwork

CANDIDATES, BASE = 5, 2
SHAPE = (27, 38)  # multiples of nothing


def network_of(seed: int = 0, *, trained: bool = False) -> MixingNetwork:
    torch.manual_seed(seed)
    network = MixingNetwork(candidates=CANDIDATES, base=BASE, widths=(6, 8, 10))
    if trained:
        with torch.no_grad():
            network.output.weight.normal_()
    return network


def input_of(seed: int = 1) -> ThinnedInput:
    torch.manual_seed(seed)
    return ThinnedInput(
        candidates=torch.randn(CANDIDATES, *SHAPE, dtype=torch.complex64),
        phasor=torch.exp(1j * torch.randn(SHAPE)),
        maps=torch.randn(MAPS, *SHAPE),
        lit=torch.rand(SHAPE),
        slow_px=3.0,
        base=BASE,
        noise=0.1,
    )


def test_before_training_it_is_a_mean_in_which_the_base_leads():
    shown = input_of()

    object_ = network_of().object_of(shown)

    lead = torch.e**3
    others = [k for k in range(CANDIDATES) if k != BASE]
    expected = lead * shown.candidates[BASE] + shown.candidates[others].sum(0)
    change = expected / (lead + CANDIDATES - 1) - shown.candidates[BASE]
    expected = shown.phasor * (shown.candidates[BASE] + shown.without_slow(change))
    torch.testing.assert_close(object_, expected)


def test_where_all_candidates_agree_only_the_residual_differs():
    """Trust sums to one in every pixel, whatever the weights."""
    same = input_of()
    same = replace(same, candidates=same.candidates[:1].expand(CANDIDATES, -1, -1))
    network = network_of(trained=True)

    object_ = network.object_of(same)

    with torch.no_grad():
        residual = network(same.channels[None])[0, -2:]
    added = same.without_slow(network.residual_scale * torch.complex(residual[0], residual[1]))
    torch.testing.assert_close(
        object_, same.phasor * (same.candidates[0] + added), rtol=1e-4, atol=1e-4
    )


@pytest.mark.parametrize("turns", range(4))
@pytest.mark.parametrize("mirrored", [False, True])
def test_a_turned_view_gives_an_object_in_the_frame_of_the_input(turns, mirrored):
    """With an output that does not depend on the images, every view gives the same object."""
    shown, network = input_of(), network_of()

    torch.testing.assert_close(network.object_of(shown, turns, mirrored), network.object_of(shown))


def test_a_view_turned_as_the_input_is_turned_gives_the_turned_object():
    """Seen turned by k is: turn the images, look, turn back."""
    shown, network = input_of(), network_of(trained=True)
    images = ("candidates", "phasor", "maps", "lit")
    turned = replace(
        shown, **{name: torch.rot90(getattr(shown, name), 1, (-2, -1)) for name in images}
    )

    there = network.object_of(turned)

    back = torch.rot90(there, -1, (-2, -1))
    torch.testing.assert_close(network.object_of(shown, 1), back, rtol=1e-4, atol=1e-4)
    assert (network.object_of(shown) - back).abs().max() > 1e-3, "the view does matter"


def test_a_window_is_that_part_of_every_image():
    shown = input_of()

    part = shown.window((slice(3, 19), slice(5, 25)))

    torch.testing.assert_close(part.channels, shown.channels[:, 3:19, 5:25])
    torch.testing.assert_close(part.base_object, shown.base_object[3:19, 5:25])
    torch.testing.assert_close(part.lit, shown.lit[3:19, 5:25])


def test_the_layout_in_memory_changes_nothing_but_rounding():
    network, shown = network_of(trained=True), input_of()
    first = network.object_of(shown)
    network.arrange(torch.channels_last)

    torch.testing.assert_close(network.object_of(shown), first, rtol=1e-4, atol=1e-5)
