"""What the network may change of its base: nothing that is slower than the probe is wide."""

import numpy as np
import pytest
import torch

from study_lib.networks.thinned.inputs import MAPS, ThinnedInput, blurred
from study_lib.networks.thinned.network import MixingNetwork

SHAPE, SLOW_PX = (60, 80), 5.0


def shown_with(lit: torch.Tensor, seed: int = 0) -> ThinnedInput:
    torch.manual_seed(seed)
    candidates = 1 + 0.1 * torch.randn(3, *SHAPE, dtype=torch.complex64)
    return ThinnedInput(
        candidates=candidates,
        phasor=torch.ones(SHAPE, dtype=torch.complex64),
        maps=torch.randn(MAPS, *SHAPE),
        lit=lit,
        slow_px=SLOW_PX,
        base=1,
        noise=0.1,
    )


def wave(period_px: float) -> torch.Tensor:
    """A complex wave along the rows and columns together."""
    y, x = torch.meshgrid(*(torch.arange(side) for side in SHAPE), indexing="ij")
    return torch.exp(2j * np.pi * (y + x) / (period_px * np.sqrt(2))).to(torch.complex64)


def test_a_window_has_unit_weight_and_its_width():
    image = torch.zeros(1, 41, 41)
    image[0, 20, 20] = 1

    found = blurred(image, 3.0)[0].double()

    offsets = torch.arange(41) - 20
    assert float(found.sum()) == pytest.approx(1, abs=1e-6)
    assert float((found.sum(1) * offsets**2).sum()) == pytest.approx(9, rel=0.05)
    torch.testing.assert_close(found, found.mT)


def test_a_constant_change_is_slow_and_a_fine_one_is_not():
    shown = shown_with(torch.ones(SHAPE))
    inner = (slice(20, -20), slice(20, -20))

    assert shown.without_slow(torch.full(SHAPE, 0.3 - 0.2j)).abs().max() < 1e-5
    fine = wave(6.0)
    assert (shown.without_slow(fine) - fine)[inner].abs().max() < 1e-3


@pytest.mark.parametrize("period_px", [20.0, 40.0, 80.0])
def test_of_a_wave_as_much_is_left_as_the_window_takes(period_px):
    """Far from the edge, 1 - exp(-(2 pi width / period)^2 / 2)."""
    shown = shown_with(torch.ones(SHAPE))

    left = shown.without_slow(wave(period_px))[30, 40] / wave(period_px)[30, 40]

    expected = 1 - np.exp(-((2 * np.pi * SLOW_PX / period_px) ** 2) / 2)
    assert complex(left) == pytest.approx(expected, abs=0.02)


def test_what_lies_in_the_dark_does_not_matter():
    lit = torch.ones(SHAPE)
    lit[:, 50:] = 0
    shown, change = shown_with(lit), wave(30.0)
    junk = change.clone()
    junk[:, 50:] = 7 - 9j

    one, two = (shown.without_slow(each)[:, :50] for each in (change, junk))

    torch.testing.assert_close(one, two)


@pytest.mark.parametrize("turns", [0, 1])
def test_whatever_a_network_has_learned_the_slow_part_of_its_base_stays(turns):
    """Weights are random; without the rule the object would move by .67 as a whole."""
    shown = shown_with(torch.ones(SHAPE))
    network = MixingNetwork(candidates=3, base=1, widths=(4, 6, 8))
    with torch.no_grad():
        network.output.weight.normal_()
        network.output.bias[-2:] = torch.tensor([2.0, -1.0])

        change = network.object_of(shown, turns) - shown.base_object

    slow = blurred(torch.stack([change.real, change.imag]), 3 * SLOW_PX)[:, 25:-25, 25:-25]
    assert change.abs().max() > 0.02
    assert slow.abs().max() < 0.002
