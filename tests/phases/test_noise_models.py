"""Solver and LSQML with either noise model: the laws that tell them apart, and the likelier one."""

import numpy as np
import pytest
from small_training import measurement_of, true_object
from tiny_runs import moved

from study_lib.design.presets import load_design
from study_lib.errors import InputError
from study_lib.files import read_json, sha256_of, write_json
from study_lib.phases.arms import MissingResultError, arms_of
from study_lib.phases.reconstruct import DENOISER, chosen_by_train, reconstruct
from study_lib.runs.run import Run
from study_lib.scores.scoring import light_of
from study_lib.solvers.algorithms import run_algorithm
from study_lib.solvers.solver import SolverSettings, solve, solve_measurement

ALL = "iterative.algorithms=[LSQML, LSQML-poisson, solver, solver-amplitude]"


def design_with(*settings):
    return load_design("smoke", settings).iterative


@pytest.mark.parametrize(
    ("name", "same", "setting"),
    [
        ("solver-amplitude", "solver", "iterative.solver.objective=amplitude"),
        ("LSQML-poisson", "LSQML", "iterative.noise_model=poisson"),
    ],
)
def test_an_algorithm_by_its_other_noise_model_is_that_algorithm_so_set(name, same, setting):
    measurement = measurement_of(photons=1e3)
    short = ("iterative.epochs=4", "iterative.solver.epochs=6")
    found = run_algorithm(name, measurement, design_with(*short), seed=1)
    expected = run_algorithm(same, measurement, design_with(*short, setting), seed=1)
    np.testing.assert_array_equal(found.object_, expected.object_)
    assert found.options == expected.options
    other = run_algorithm(same, measurement, design_with(*short), seed=1)
    assert np.abs(other.object_ - found.object_).max() > 1e-4


def error_of(measurement, objective, amplitudes):
    found = solve(
        amplitudes=amplitudes,
        positions_px=measurement.positions_px,
        probe=measurement.probe,
        object_shape=measurement.object_shape,
        settings=SolverSettings(objective=objective, epochs=300, tolerance=1e-6),
    )
    light = light_of(measurement)
    ratio = (found.object_ * true_object().conj())[light > 0.3 * light.max()]
    phase = np.angle(ratio * np.exp(-1j * np.angle(ratio.sum())))
    return float(phase.std())


def test_without_noise_both_noise_models_have_the_same_minimum():
    """Their difference is what they make of noise: the model and the steps are the same."""
    measurement = measurement_of(photons=1e3)
    clean = measurement_of(photons=1e9)
    scale = np.linalg.norm(measurement.probe) / np.linalg.norm(clean.probe)
    amplitudes = (clean.amplitudes * scale).astype(np.float32)
    errors = [error_of(measurement, name, amplitudes) for name in ("poisson", "amplitude")]
    assert max(errors) < 0.02
    noisy = error_of(measurement, "poisson", measurement.amplitudes)
    assert noisy > 3 * max(errors)


def test_amplitudes_make_faint_pixels_too_faint():
    """The mean root of few counts lies below the root of their mean, and the object follows."""
    measurement = measurement_of(photons=300)
    expected = np.square(measurement.amplitudes, dtype=float).sum()
    photons = {}
    for objective in ("poisson", "amplitude"):
        settings = SolverSettings(objective=objective, epochs=300, tolerance=1e-6)
        found = solve_measurement(measurement, settings)
        photons[objective] = _photons(measurement, found.object_)
    assert photons["poisson"] == pytest.approx(expected, rel=0.01)
    assert photons["amplitude"] < 0.97 * expected


def _photons(measurement, object_):
    """Return the photons of all patterns: exit waves lose none on the way."""
    side = measurement.probe.shape[-1]
    total = 0.0
    for row, column in measurement.positions_px:
        first = int(np.floor(row + 0.5)) - side // 2, int(np.floor(column + 0.5)) - side // 2
        patch = object_[first[0] : first[0] + side, first[1] : first[1] + side]
        total += float((np.abs(patch * measurement.probe) ** 2).sum())
    return total


@pytest.fixture(scope="module")
def condition(tiny_run, tiny_design_with, tmp_path_factory):
    design = tiny_design_with(ALL, "thinned=null", "training=null", "iterative.denoised=true")
    found = moved(
        Run(tiny_run.folder, design).condition(1e4, "dense"),
        reconstruct=tmp_path_factory.mktemp("reconstruct"),
    )
    for split in ("train", "test"):
        reconstruct(found.of(split))
    return found


def result(condition, arm):
    return arms_of(condition.design)[arm](condition, condition.measurement(), sha256_of)


@pytest.mark.parametrize("algorithm", ["solver", "lsqml"])
def test_the_chosen_one_is_what_held_out_counts_of_the_train_split_prefer(condition, algorithm):
    names = {
        "solver": ("solver", "solver-amplitude"),
        "lsqml": ("LSQML", "LSQML-poisson"),
    }[algorithm]
    paths = [chosen_by_train(condition, name, DENOISER) for name in names]
    written = [read_json(path) for path in paths]
    found = result(condition, f"{algorithm}-chosen")
    assert found.training_cpu_s == sum(one["choice_cpu_s"] for one in written)
    none = {"family": "none", "strength": 0.0, "tried": []}
    try:
        for better in (0, 1):
            for index, (path, content) in enumerate(zip(paths, written, strict=True)):
                write_json(path, content | none | {"plain_held_out_nats": 5.0 - (index == better)})
            chosen = result(condition, f"{algorithm}-chosen")
            np.testing.assert_array_equal(
                chosen.object_, result(condition, names[better].lower()).object_
            )
            assert f"noise model ({names[better]})" in chosen.knows
    finally:
        for path, content in zip(paths, written, strict=True):
            write_json(path, content)


def test_a_choice_that_does_not_say_how_likely_the_plain_object_is_is_refused(condition):
    path = chosen_by_train(condition, "solver", DENOISER)
    kept = read_json(path)
    try:
        write_json(path, {k: v for k, v in kept.items() if k != "plain_held_out_nats"})
        with pytest.raises(MissingResultError, match=r"reconstruct --split train"):
            result(condition, "solver-chosen")
    finally:
        write_json(path, kept)


def test_one_algorithm_under_two_names_is_refused():
    for setting, message in (
        ("iterative.noise_model=poisson", "LSQML-poisson is LSQML"),
        ("iterative.solver.objective=amplitude", "solver-amplitude is solver"),
    ):
        with pytest.raises(InputError, match=message):
            design_with(ALL, setting)
