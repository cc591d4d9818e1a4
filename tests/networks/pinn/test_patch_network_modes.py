"""The patch network's loss with incoherent modes, a background and masks of each pattern."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from scipy.optimize import minimize_scalar
from scipy.special import xlogy
from small_training import SIDE, config_of, cut, partly_coherent, same_light, true_object

from study_lib.networks.pinn.inference import apply_network
from study_lib.networks.pinn.training import GroupTensors, train, uniform_object_loss
from study_lib.physics.likelihood import MEASURES
from study_lib.physics.measurement import Measurement
from study_lib.scores.scoring import light_of

BACKGROUND, MASKED = 5.0, 0.1
LOSSES = pytest.mark.parametrize("loss", ["poisson", "amplitude"])


@pytest.fixture(scope="module", params=[1, 2], ids=["single patterns", "groups of four"])
def measurement(request) -> Measurement:
    return partly_coherent(
        gridsize=request.param, photons=1e6, background=BACKGROUND, masked=MASKED
    )


def loss_of(measurement: Measurement, loss: str, patches: torch.Tensor) -> torch.Tensor:
    """Return the loss of patches (group, c, n, n) of all groups."""
    data = GroupTensors.of(measurement)
    batch = data.batch(torch.arange(len(measurement.groups)))
    expected = data.expected(batch, patches)
    return MEASURES[loss](expected, batch.amplitudes**2, batch.bad_pixels)


def true_patches(measurement: Measurement) -> torch.Tensor:
    patches = cut(true_object(), measurement.positions_px)
    return torch.from_numpy(patches)[torch.from_numpy(measurement.groups)]


@LOSSES
def test_noise_alone_is_left_at_the_truth(measurement, loss):
    value = float(loss_of(measurement, loss, true_patches(measurement)))

    assert value == pytest.approx(0.5, abs=0.03)


@LOSSES
@pytest.mark.parametrize("lacking", ["mode", "background", "masks"])
def test_a_model_that_lacks_something_explains_less(measurement, loss, lacking):
    known = {
        "mode": replace(measurement, probe=measurement.probe[0]),
        "background": replace(measurement, background=None),
        "masks": replace(measurement, bad_pixels=None),
    }[lacking]

    full, less = (loss_of(part, loss, true_patches(part)) for part in (measurement, known))

    assert less > 1.2 * full


@LOSSES
def test_another_mixture_of_the_same_light_has_the_same_loss_and_slope(measurement, loss):
    mixed = replace(measurement, probe=same_light(measurement.probe))
    values, slopes = [], []
    for part in (measurement, mixed):
        patches = (0.9 * true_patches(part)).requires_grad_()
        value = loss_of(part, loss, patches)
        value.backward()
        values.append(float(value.detach()))
        slopes.append(patches.grad)

    assert values[1] == pytest.approx(values[0], rel=1e-4)
    assert (slopes[0] - slopes[1]).abs().max() < 1e-4 * slopes[0].abs().max()


@LOSSES
def test_a_mode_without_light_changes_nothing(measurement, loss):
    dark = np.concatenate([measurement.probe, 0 * measurement.probe[:1]])
    more = replace(measurement, probe=dark)
    patches = 0.9 * true_patches(measurement)

    assert float(loss_of(more, loss, patches)) == pytest.approx(
        float(loss_of(measurement, loss, patches)), rel=1e-6
    )


@LOSSES
def test_what_stands_on_the_bad_pixels_of_one_pattern_has_no_say(measurement, loss):
    spoilt = np.where(measurement.bad_pixels, np.float32(300), measurement.amplitudes)
    patches = true_patches(measurement)

    clean, changed = (
        float(loss_of(part, loss, patches))
        for part in (measurement, replace(measurement, amplitudes=spoilt))
    )

    assert changed == clean


def test_the_uniform_object_is_the_best_constant_of_all_modes():
    """Brute force over amplitudes, by numpy's transform."""
    measurement = partly_coherent(photons=1e5, background=BACKGROUND, masked=MASKED)
    detector = np.fft.fftshift(np.fft.fft2(measurement.probe, norm="ortho"), axes=(-2, -1))
    pattern = (np.abs(detector).astype(np.float64) ** 2).sum(axis=0)
    good, counts = ~measurement.bad_pixels, measurement.counts.astype(np.float64)

    def half_deviance(amplitude: float) -> float:
        expected = amplitude**2 * pattern + measurement.background
        terms = expected - counts + xlogy(counts, counts) - xlogy(counts, expected)
        return float(terms[good].mean())

    best = minimize_scalar(half_deviance, bounds=(0.5, 1.2), method="bounded").fun

    found = uniform_object_loss(GroupTensors.of(measurement), "poisson")
    assert found == pytest.approx(best, rel=0.02)


@pytest.mark.parametrize("gridsize", [1, 2])
def test_a_network_learns_from_partly_coherent_light(gridsize):
    """It explains the counts better than any constant, and makes an object of a measurement."""
    measurement = partly_coherent(gridsize=gridsize, background=BACKGROUND, masked=MASKED)
    config = config_of(
        measurement, epochs=12, batch_size=3, learning_rate=1e-3, gradient_clip_norm=0.5
    )

    trained = train(measurement, config)
    object_ = apply_network(trained, measurement)

    history = trained.history
    assert history.train[-1] < 0.8 * history.uniform_object
    assert history.validation[-1] < 0.5 * history.validation[0]
    lit = light_of(measurement) > 0.1 * np.median(light_of(measurement))
    assert object_.shape == measurement.object_shape
    overlap = np.vdot(object_[lit], true_object()[lit])
    assert abs(overlap) > 0.9 * np.linalg.norm(object_[lit]) * np.linalg.norm(true_object()[lit])
    assert measurement.probe.shape == (2, SIDE, SIDE)
