"""The likelihood's gradient as a change of the object, and steps along it."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from small_training import measurement_of, true_object

from study_lib.networks.thinned.inputs import DAMPING, CountsInBox, counts_in_box
from study_lib.networks.thinned.network import LearnedSteps
from study_lib.physics.forward import corners_of, expected_counts, patches_at, probes_at
from study_lib.physics.measurement import box_of
from study_lib.scores.scoring import light_of


@pytest.fixture(scope="module")
def data():
    measurement = measurement_of(photons=1e6)
    return counts_in_box(measurement, box_of(measurement), light_of(measurement))


def rates_of(object_: torch.Tensor, data: CountsInBox) -> torch.Tensor:
    side = data.probe.shape[-1]
    patches = patches_at(object_, corners_of(data.positions_px, side), side)
    return expected_counts(probes_at(data.probe, data.positions_px) * patches)


def truth_of() -> torch.Tensor:
    return torch.from_numpy(true_object()[box_of(measurement_of())])


def test_the_change_is_the_gradient_of_the_likelihood(data):
    """Its product with any direction is the likelihood's slope there, by autograd."""
    object_ = (0.95 * truth_of() + 0.02j).requires_grad_()
    offset = 0.02
    rates, counts = rates_of(object_, data) + offset, data.counts.double()
    shifted = counts + offset * counts.sign()
    (rates.double() - shifted * rates.double().log()).sum().backward()

    change = data.change(object_.detach())

    with torch.no_grad():
        # torch's gradient of a real function in a complex number is twice that in its conjugate.
        slope = -object_.grad / 2 / (data.light + DAMPING * data.light.max())
    assert (change - slope).abs().max() < 1e-3 * slope.abs().max()


def test_where_the_counts_are_explained_nothing_is_to_be_changed(data):
    exact = replace(data, counts=rates_of(truth_of(), data))

    at_truth = exact.change(truth_of()).abs().max()
    beside = exact.change(1.05 * truth_of()).abs().max()

    assert at_truth < 1e-3 * beside


def test_a_step_along_the_change_lowers_the_misfit(data):
    start = torch.ones_like(truth_of())
    counts = data.counts.float()

    def misfit(object_: torch.Tensor) -> float:
        rates = rates_of(object_, data) + 1e-6
        return float((rates - torch.xlogy(counts, rates)).sum(dtype=torch.float64))

    assert misfit(start + 0.3 * data.change(start)) < misfit(start)


def test_bad_pixels_have_no_say(data):
    bad = torch.zeros(data.probe.shape, dtype=torch.bool)
    bad[4, 5:9] = True
    counts = data.counts.float()
    spoiled = counts.clone()
    spoiled[:, bad] = 1e5

    changes = [
        replace(data, counts=part, bad_pixels=bad).change(truth_of()) for part in (counts, spoiled)
    ]

    torch.testing.assert_close(*changes)


def test_before_training_the_steps_are_plain_descent(data):
    """Stages add nothing yet, and there is no momentum."""
    steps = LearnedSteps(3, maps=2, width=4)
    start = torch.ones_like(truth_of())
    phasor = torch.exp(0.1j * torch.arange(start.shape[1])).expand(start.shape)

    with torch.no_grad():
        found = phasor * steps(start, phasor, torch.zeros(2, *start.shape), data, 0.3)

    expected = phasor * start
    for _ in range(3):
        expected = expected + 0.3 * data.change(expected)
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-4)


def test_what_the_counts_say_reaches_every_weight(data):
    steps = LearnedSteps(3, maps=2, width=4)
    with torch.no_grad():
        for weight in steps.parameters():
            weight.add_(
                0.05 * torch.randn(weight.shape, generator=torch.Generator().manual_seed(1))
            )
    start = torch.ones_like(truth_of())
    phasor = torch.ones_like(start)

    found = steps(start, phasor, torch.ones(2, *start.shape), data, 0.3)
    (found - truth_of()).abs().square().sum().backward()

    silent = [
        name
        for name, weight in steps.named_parameters()
        if weight.grad is None or not weight.grad.any()
    ]
    assert silent == []
    assert np.isfinite([float(weight.grad.abs().sum()) for weight in steps.parameters()]).all()
