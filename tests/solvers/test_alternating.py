"""Steps of the solver and a denoiser in turn."""

import numpy as np
import pytest
from small_training import measurement_of, true_object

from study_lib.physics.likelihood import pattern_residuals
from study_lib.physics.measurement import at_positions, box_of
from study_lib.solvers.alternating import alternate
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
