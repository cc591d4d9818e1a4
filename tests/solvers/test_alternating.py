"""Steps of the solver and a denoiser in turn."""

import numpy as np
import pytest
from small_training import measurement_of, true_object

from study_lib.physics.likelihood import pattern_residuals
from study_lib.physics.measurement import at_positions, box_of, split_photons
from study_lib.solvers.alternating import (
    EPOCHS_TRIED,
    INSIDE,
    STRENGTHS_IN_TURN,
    TRIES,
    DataSteps,
    alternate,
    choose_alternation,
)
from study_lib.solvers.denoising import LitPart, denoised_where_lit
from study_lib.solvers.solver import solve_measurement


def phase_error(object_: np.ndarray, box: tuple[slice, slice]) -> float:
    ratio = (object_ * true_object().conj())[box]
    weights = np.abs(ratio)
    phase = np.angle(ratio * np.exp(-1j * np.angle(ratio.sum())))
    return float(np.sqrt((weights * phase**2).sum() / weights.sum()))


def test_without_a_denoiser_it_only_explains_the_counts_better():
    measurement = measurement_of(photons=1e4)
    start = np.ones(measurement.object_shape, np.complex64)

    found = alternate(measurement, start, "none", 0.0, LitPart.of(measurement), epochs=6)

    before, after = (
        pattern_residuals(measurement, object_, measurement.probe).mean()
        for object_ in (start, found)
    )
    assert after < 0.5 * before


def test_what_no_pattern_lights_is_left_alone():
    measurement = measurement_of()
    start = np.full(measurement.object_shape, 0.5 + 0.5j, np.complex64)

    found = alternate(measurement, start, "gaussian", 1.0, LitPart.of(measurement), epochs=2)

    outside = np.ones(measurement.object_shape, bool)
    outside[box_of(measurement)] = False
    assert outside.any()
    np.testing.assert_array_equal(found[outside], start[outside])


def total_variation_of(object_: np.ndarray, box: tuple[slice, slice]) -> float:
    inside = object_[box]
    steps = np.hypot(np.abs(np.diff(inside, axis=0))[:, 1:], np.abs(np.diff(inside, axis=1))[1:])
    return float(steps.sum())


def test_variation_inside_the_steps_falls_with_its_weight_and_the_fit_with_it():
    measurement = measurement_of(photons=1e3)
    solved, lit = solve_measurement(measurement).object_, LitPart.of(measurement)
    found = [
        alternate(measurement, solved, INSIDE, strength, lit, epochs=20)
        for strength in (0.05, 0.4, 3.2)
    ]
    variations = [total_variation_of(one, lit.box) for one in found]
    residuals = [pattern_residuals(measurement, one, measurement.probe).mean() for one in found]
    assert variations == sorted(variations, reverse=True)
    assert variations[2] < 0.8 * variations[0]
    assert residuals == sorted(residuals)


def test_a_choice_takes_as_many_epochs_as_it_says_and_the_better_half_goes_on(monkeypatch):
    measurement = measurement_of(photons=1e3)
    part, held_out = split_photons(measurement, 0.8, np.random.default_rng(4))
    taken = []
    step = DataSteps.after

    def counted(steps, point, variation=0.0):
        taken.append(variation)
        return step(steps, point, variation)

    monkeypatch.setattr(DataSteps, "after", counted)
    tried = []
    solved = solve_measurement(part).object_
    choice = choose_alternation(solved, part, held_out, lambda done, of: tried.append((done, of)))
    assert len(taken) - choice.epochs == EPOCHS_TRIED  # and its own, to see what is left to smooth
    assert tried[-1] == (TRIES, TRIES)
    gains = {(one.family, one.strength): one.gain_nats for one in choice.tried}
    for family, strengths in STRENGTHS_IN_TURN.items():
        went_on = [one for one in strengths if (f"{family} in turn, epochs 20", one) in gains]
        ended = set(strengths) - set(went_on)
        first = {one: gains[f"{family} in turn, epochs 10", one] for one in strengths}
        assert len(went_on) >= len(strengths) / 2
        assert min(first[one] for one in went_on) >= max(first[one] for one in ended)


@pytest.mark.parametrize("seed", [0, 1, 2])
def test_few_positions_gain_more_than_by_denoising_afterwards(seed):
    """What is known of one pixel helps the data to determine its neighbours."""
    every = measurement_of(photons=3e3)
    index = np.sort(np.random.default_rng(seed).permutation(len(every.scan_index))[:16])
    measurement = at_positions(every, index)
    solved = solve_measurement(measurement).object_
    lit = LitPart.of(measurement)
    box = lit.box

    after = min(
        phase_error(denoised_where_lit(solved, lit, "total_variation", strength), box)
        for strength in (0.25, 0.5, 1.0, 2.0)
    )
    alternating = min(
        phase_error(alternate(measurement, solved, "total_variation", strength, lit), box)
        for strength in (0.06, 0.12, 0.25, 0.5)
    )

    assert alternating < after < phase_error(solved, box)
