"""What a network is shown: the same at every dose, and a weak object where it lies."""

import numpy as np
import pytest
import torch

from study_lib.networks.pinn.network import BackPropagation, NetworkInput, StandardisedAmplitudes
from study_lib.networks.registry import NETWORKS, NetworkShape, build_network
from study_lib.physics.forward import expected_counts

SIDE = 32


@pytest.fixture
def random() -> torch.Generator:
    return torch.Generator().manual_seed(11)


def curved_probe(side: int = SIDE) -> torch.Tensor:
    """Return a lopsided probe with a curved front, centred on pixel N // 2."""
    y, x = torch.meshgrid(*2 * (torch.arange(side) - side // 2,), indexing="ij")
    squares = (y / (side / 6)) ** 2 + (x / (side / 5)) ** 2
    return torch.polar(10 * torch.exp(-squares / 2), 1.5 * squares + 0.3 * x / side)


def shown(inputs: NetworkInput, patterns: torch.Tensor, probe: torch.Tensor) -> torch.Tensor:
    """Return what a network is shown after the input was fitted to these patterns."""
    inputs.fit(patterns, probe)
    images: torch.Tensor = inputs(patterns[:, None])
    return images


@pytest.mark.parametrize("name", NETWORKS)
@pytest.mark.parametrize("factor", [0.1, 30.0])
def test_prediction_does_not_depend_on_the_dose(name, factor, random):
    """More photons scale every amplitude and the probe alike; the object is the same."""
    amplitudes = torch.rand(7, SIDE, SIDE, generator=random)
    probe = curved_probe()
    torch.manual_seed(5)
    network = build_network(name, NetworkShape(1, SIDE, 1, half_precision=False))
    network.fit_input(amplitudes, probe)
    patches = network(amplitudes[:, None])

    network.fit_input(factor * amplitudes, factor * probe)

    torch.testing.assert_close(network(factor * amplitudes[:, None]), patches, rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize("kind", [StandardisedAmplitudes, BackPropagation])
def test_images_of_the_training_patterns_have_mean_zero_and_size_one(kind, random):
    amplitudes = torch.rand(300, SIDE, SIDE, generator=random)  # more than one portion
    probe = curved_probe()

    images = shown(kind(SIDE), amplitudes, probe)

    power = probe.abs() ** 2
    assert images.shape == (300, kind.fields, SIDE, SIDE)
    torch.testing.assert_close(
        images.mean(dim=0), torch.zeros(kind.fields, SIDE, SIDE), rtol=0, atol=1e-3
    )
    assert ((images**2 * power).mean(dim=(0, 1)).sum() / power.sum()) == pytest.approx(1, rel=0.1)


def test_weak_object_is_seen_where_it_lies():
    """A speck of phase in the beam gives an image that is largest at the speck, in its sign."""
    probe = curved_probe()
    specks = [(16, 16), (13, 19), (20, 14), (18, 18)]
    objects = torch.ones(len(specks) + 1, SIDE, SIDE, dtype=torch.complex64)
    for index, (row, column) in enumerate(specks):
        objects[index, row, column] = np.exp(0.3j)
    amplitudes = torch.sqrt(expected_counts(probe * objects))

    images = shown(BackPropagation(SIDE), amplitudes, probe)

    for (row, column), image in zip(specks, images[:, 1], strict=False):
        assert np.unravel_index(int(image.argmax()), image.shape) == (row, column)


def test_back_propagation_of_the_bare_beam_is_the_bare_object(random):
    """With no specimen the counts have the probe's phases: the estimate is one where light is."""
    probe = curved_probe()
    inputs = BackPropagation(SIDE)
    amplitudes = torch.sqrt(expected_counts(probe)).expand(3, SIDE, SIDE)
    inputs.fit(amplitudes, probe)

    mean = torch.view_as_complex(inputs.mean)
    power = probe.abs() ** 2
    floor = 0.05 * power.max()

    torch.testing.assert_close(mean, (power / (power + floor)).to(mean.dtype), rtol=0, atol=1e-4)


def test_patterns_of_a_group_keep_their_order(random):
    """Fields of the first pattern come first: changing one pattern changes its own images only."""
    amplitudes = torch.rand(8, SIDE, SIDE, generator=random)
    inputs = BackPropagation(SIDE)
    inputs.fit(amplitudes, curved_probe())
    group = amplitudes[None, :4].clone()
    before = inputs(group)

    group[0, 2] += 1
    moved = (inputs(group) != before).flatten(2).any(dim=2)[0]

    assert moved.tolist() == [False] * 4 + [True] * 2 + [False] * 2


def test_bad_pixels_and_a_probe_of_zeros_give_finite_numbers():
    amplitudes = torch.zeros(3, SIDE, SIDE)
    for kind in (StandardisedAmplitudes, BackPropagation):
        images = shown(kind(SIDE), amplitudes, torch.zeros(SIDE, SIDE, dtype=torch.complex64))
        assert torch.isfinite(images).all()
