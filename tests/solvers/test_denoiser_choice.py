"""The choice of a denoiser: likelihood of counts that the object was not made from, no truth."""

import numpy as np
import pytest
from scipy.stats import poisson
from small_training import measurement_of, true_object

from study_lib.networks.thinned.inputs import (
    ALTERNATING_FAMILIES,
    thinned_choices,
    thinned_input,
)
from study_lib.physics.forward import exit_waves, expected_counts, illumination
from study_lib.physics.likelihood import likelihood_judge
from study_lib.physics.measurement import box_of, split_photons
from study_lib.scores.scoring import light_of
from study_lib.solvers.alternating import DataSteps, tries_of
from study_lib.solvers.denoising import (
    NONE,
    DenoiserChoice,
    LitPart,
    choose_by_held_out_counts,
    choose_denoiser,
    denoised_where_lit,
)
from study_lib.solvers.solver import solve_measurement

PATTERNS = 400


def losses_of(gains: dict[float, float], spread: float = 1.0) -> tuple[np.ndarray, dict]:
    """Return losses whose mean gains are exactly these, and whose differences scatter."""
    random = np.random.default_rng(3)
    plain = np.zeros(PATTERNS)
    losses = {}
    for strength, gain in gains.items():
        noise = random.standard_normal(PATTERNS)
        noise = spread * (noise - noise.mean()) / noise.std(ddof=1)
        losses["gaussian", strength] = -gain + noise
    return plain, losses


def test_the_best_strength_is_taken_where_the_others_are_clearly_worse():
    choice = choose_by_held_out_counts(*losses_of({0.5: 0.4, 1.0: 1.0, 2.0: 0.3}))

    assert (choice.family, choice.strength) == ("gaussian", 1.0)
    best = max(choice.tried, key=lambda one: one.gain_nats)
    assert best.gain_nats == pytest.approx(1.0)
    assert best.standard_error_nats == pytest.approx(1 / PATTERNS**0.5)


def test_the_strongest_within_one_standard_error_is_taken():
    """The standard error of the difference of two of these is sqrt(2 / 400) = 0.07."""
    assert choose_by_held_out_counts(*losses_of({1.0: 1.0, 2.0: 0.97, 4.0: 0.6})).strength == 2.0
    assert choose_by_held_out_counts(*losses_of({1.0: 1.0, 2.0: 0.80, 4.0: 0.6})).strength == 1.0


def test_nothing_is_done_where_nothing_helps_by_more_than_its_error():
    choice = choose_by_held_out_counts(*losses_of({1.0: 0.03, 2.0: -0.5}))

    assert (choice.family, choice.strength) == (NONE, 0.0)
    assert choice.of_family == {"gaussian": 1.0}


def test_the_least_harmful_is_taken_if_harm_within_the_error_is_allowed():
    gains = {1.0: -0.03, 2.0: -0.5}

    assert choose_by_held_out_counts(*losses_of(gains), least=True).strength == 1.0
    assert choose_by_held_out_counts(*losses_of({1.0: -0.2}), least=True).family == NONE


def test_the_family_with_the_largest_gain_is_taken():
    plain, losses = losses_of({1.0: 0.5})
    losses["total_variation", 0.5] = np.full(PATTERNS, -0.9)

    choice = choose_by_held_out_counts(plain, losses)

    assert choice.family == "total_variation"
    assert choice.of_family == {"gaussian": 1.0, "total_variation": 0.5}


def test_what_is_not_finite_is_never_chosen():
    plain, losses = losses_of({1.0: 0.5})
    for index, value in enumerate((np.nan, -np.inf)):
        losses["total_variation", float(index)] = np.full(PATTERNS, value)

    choice = choose_by_held_out_counts(plain, losses)

    assert (choice.family, choice.strength) == ("gaussian", 1.0)
    assert {one.family for one in choice.tried} == {"gaussian"}
    del losses["gaussian", 1.0]
    assert choose_by_held_out_counts(plain, losses).family == NONE


def test_a_choice_survives_being_written_down():
    choice = choose_by_held_out_counts(*losses_of({0.5: 0.4, 1.0: 1.0}))

    assert DenoiserChoice.from_record(choice.record()) == choice


def test_the_judge_is_the_likelihood_of_poisson_counts():
    """Differences of the judge equal those of scipy's log-likelihood, pattern by pattern."""
    import torch

    measurement = measurement_of(photons=2e3)
    truth = true_object()
    other = np.full_like(truth, 0.9)

    judge = likelihood_judge(measurement)

    def log_likelihood(object_: np.ndarray) -> np.ndarray:
        waves = exit_waves(
            torch.from_numpy(measurement.probe),
            torch.from_numpy(object_),
            torch.from_numpy(measurement.positions_px),
        )
        rates = expected_counts(waves).numpy().astype(float) + 1e-6
        return poisson.logpmf(measurement.counts, rates).sum(axis=(1, 2))

    found = judge(other) - judge(truth)
    np.testing.assert_allclose(found, log_likelihood(truth) - log_likelihood(other), rtol=1e-3)


def test_few_photons_want_a_denoiser_and_a_perfect_object_wants_none():
    measurement = measurement_of(photons=1e3)
    part, held_out = split_photons(measurement, 0.8, np.random.default_rng(4))
    solved = solve_measurement(part).object_

    lit_part = LitPart.of(part)
    noisy = choose_denoiser(solved, lit_part, held_out)
    perfect = choose_denoiser(true_object(), lit_part, held_out)

    assert noisy.family != NONE
    assert perfect.family == NONE
    truth, light = true_object(), light_of(measurement)
    lit = light > 0.3 * light.max()

    def error(object_: np.ndarray) -> float:
        ratio = (object_ * truth.conj())[lit]
        return float(np.abs(np.angle(ratio * np.exp(-1j * np.angle(ratio.sum())))).mean())

    assert error(noisy.applied(solved, lit_part)) < 0.95 * error(solved)


def test_the_light_of_a_scan_is_summed_once_for_a_choice_and_once_for_an_input(monkeypatch):
    measurement = measurement_of(photons=1e3)
    part, held_out = split_photons(measurement, 0.8, np.random.default_rng(4))
    solved = solve_measurement(part).object_
    passes = []

    def counted(*arguments):
        passes.append(arguments)
        return illumination(*arguments)

    monkeypatch.setattr("study_lib.scores.scoring.illumination", counted)

    choices = thinned_choices(solved, part, held_out, epochs=20)
    assert len(passes) == 1
    thinned_input(part, choices, box_of(part), solved)
    assert len(passes) == 2


def test_an_input_takes_as_many_steps_as_its_alternations_were_chosen_with(monkeypatch):
    measurement = measurement_of(photons=1e3)
    part, held_out = split_photons(measurement, 0.8, np.random.default_rng(4))
    solved = solve_measurement(part).object_
    steps = []
    step = DataSteps.after

    def counted(of, point, variation=0.0):
        steps.append(variation)
        return step(of, point, variation)

    monkeypatch.setattr(DataSteps, "after", counted)
    choices = thinned_choices(solved, part, held_out, epochs=12)
    chosen = len(steps)
    thinned_input(part, choices, box_of(part), solved)

    applied = 0 if choices.alternating.family == NONE else 12  # to choose the last smoothing of it
    assert chosen == tries_of(ALTERNATING_FAMILIES, 12)[1] + applied
    assert len(steps) == chosen + 12 * len(choices.alternating.of_family)


def test_what_no_pattern_lights_is_left_alone():
    measurement = measurement_of()
    object_ = np.random.default_rng(1).random(measurement.object_shape).astype(np.complex64)
    before = object_.copy()

    result = denoised_where_lit(object_, LitPart.of(measurement), "gaussian", 2.0)

    box = box_of(measurement)
    changed = result != object_
    assert changed[box].any()
    changed[box] = False
    assert not changed.any()
    np.testing.assert_array_equal(object_, before)
