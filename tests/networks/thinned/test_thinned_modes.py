"""The thinning network's likelihood with incoherent modes, a background, masks of each pattern."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from small_training import SETTINGS, partly_coherent, same_light, true_object

from study_lib.design.methods import ThinnedDesign
from study_lib.design.presets import load_design
from study_lib.networks.thinned.ensemble import reconstruct_thinned
from study_lib.networks.thinned.inputs import (
    DAMPING,
    BoxedScan,
    CountsInBox,
    ThinnedInput,
    counts_in_box,
    thinned_set,
)
from study_lib.networks.thinned.training import train_thinned
from study_lib.networks.thinned.trust import SURE
from study_lib.physics.forward import patterns_expected
from study_lib.physics.measurement import Measurement, box_of
from study_lib.scores.scoring import light_of

SIDE = SETTINGS["side_px"]
BACKGROUND, MASKED = 5.0, 0.1


@pytest.fixture(scope="module")
def measurement() -> Measurement:
    return partly_coherent(photons=1e6, background=BACKGROUND, masked=MASKED)


def truth_of(measurement: Measurement) -> torch.Tensor:
    return torch.from_numpy(true_object()[box_of(measurement)])


def data_of(measurement: Measurement) -> CountsInBox:
    return counts_in_box(measurement, box_of(measurement), light_of(measurement))


def nats_at_truth(
    measurement: Measurement, known: Measurement, *, kept_share: float = 1.0
) -> torch.Tensor:
    """Return the loss of the true object, pattern by pattern, for held-out photons.

    ``known`` is what the model knows of light and detector.
    """
    seen: list[Measurement] = []

    def shown_of(part: Measurement) -> ThinnedInput:
        seen.append(part)
        box = truth_of(measurement)
        return ThinnedInput(box[None], box, box.real[None], torch.ones_like(box.real), 1.0, 0, 0.0)

    held_out = thinned_set(
        measurement,
        shown_of,
        photon_share=0.4,
        kept_share=kept_share,
        random=np.random.default_rng(8),
    )
    boxed = BoxedScan.of(known, box_of(known))
    every = torch.arange(len(measurement.scan_index))
    return held_out.deviance_nats(truth_of(measurement), boxed, every)


def test_the_change_is_the_slope_of_the_likelihood_of_all_modes(measurement):
    """By autograd through the forward model, of the pixels that are good in each pattern."""
    data = data_of(measurement)
    object_ = (0.95 * truth_of(measurement) + 0.02j).requires_grad_()
    offset = 0.02
    rates = patterns_expected(data.probe, object_, data.positions_px, data.background) + offset
    counts = data.counts.double()
    shifted = counts + offset * counts.sign()
    terms = rates.double() - shifted * rates.double().log()
    terms[~data.bad_pixels].sum().backward()

    change = data.change(object_.detach())

    with torch.no_grad():
        slope = -object_.grad / 2 / (data.light + DAMPING * data.light.max())
    assert (change - slope).abs().max() < 1e-3 * slope.abs().max()


def test_another_mixture_of_the_same_light_changes_nothing(measurement):
    mixed = replace(measurement, probe=same_light(measurement.probe))
    object_ = 0.9 * truth_of(measurement)

    ours, theirs = (data_of(part).change(object_) for part in (measurement, mixed))

    assert (ours - theirs).abs().max() < 1e-4 * ours.abs().max()
    torch.testing.assert_close(
        nats_at_truth(measurement, mixed),
        nats_at_truth(measurement, measurement),
        rtol=5e-3,  # rounding: logarithms of 10,000 photons in single precision
        atol=0.05,
    )


def test_a_mode_without_light_changes_nothing(measurement):
    dark = np.concatenate([measurement.probe, 0 * measurement.probe[:1]])
    more = replace(measurement, probe=dark)
    object_ = 0.9 * truth_of(measurement)

    ours, theirs = (data_of(part).change(object_) for part in (measurement, more))

    assert (ours - theirs).abs().max() < 1e-6 * ours.abs().max()
    torch.testing.assert_close(
        nats_at_truth(measurement, more), nats_at_truth(measurement, measurement)
    )


@pytest.mark.parametrize("kept_share", [1.0, 0.5], ids=["all positions", "half of them"])
def test_noise_alone_is_left_at_the_truth(measurement, kept_share):
    """Half a nat per good pixel, of kept photons' rest and of whole patterns that were left out."""
    nats = nats_at_truth(measurement, measurement, kept_share=kept_share)

    good = (~torch.from_numpy(measurement.bad_pixels)).sum(dim=(1, 2))
    assert float(nats.sum() / good.sum()) == pytest.approx(0.5, abs=0.03)


@pytest.mark.parametrize("lacking", ["mode", "background", "masks"])
def test_a_model_that_lacks_something_explains_less(measurement, lacking):
    known = {
        "mode": replace(measurement, probe=measurement.probe[0]),
        "background": replace(measurement, background=None),
        "masks": replace(measurement, bad_pixels=None),
    }[lacking]

    full, less = (float(nats_at_truth(measurement, part).mean()) for part in (measurement, known))

    assert less > 1.2 * full


def test_what_stands_on_the_bad_pixels_of_one_pattern_has_no_say(measurement):
    data = data_of(measurement)
    spoiled = data.counts.float()
    spoiled[data.bad_pixels] = 1e5

    changes = [
        replace(data, counts=counts).change(truth_of(measurement))
        for counts in (data.counts.float(), spoiled)
    ]

    torch.testing.assert_close(*changes)


def test_a_network_trained_with_modes_brings_the_object_nearer_to_the_truth():
    """The smallest training, its base the solver's object, in the model that made the counts."""
    measurement = partly_coherent(photons=1e5, background=BACKGROUND, masked=MASKED)
    smoke = load_design("smoke").thinned
    design = ThinnedDesign(**(smoke.model_dump() | {"steps": 4}))

    ensemble, _ = train_thinned(measurement, design, seed=1)
    found = reconstruct_thinned(ensemble, measurement, trust=SURE).object_

    lit = light_of(measurement) > 1e-3 * light_of(measurement).max()
    overlap = np.vdot(found[lit], true_object()[lit])
    correlation = abs(overlap) / np.linalg.norm(found[lit]) / np.linalg.norm(true_object()[lit])
    assert correlation > 0.97
