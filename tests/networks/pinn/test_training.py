"""Training explains counts without an object, is repeatable, and keeps to its own seeds."""

import csv
import dataclasses
import inspect
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from small_training import (
    HELD_OUT_SHARE,
    config_of,
    fingerprint,
    measurement_of,
)

from study_lib.errors import InputError, StudyError
from study_lib.networks import registry as networks
from study_lib.networks.pinn.bundle import History, TrainedNetwork
from study_lib.networks.pinn.network import PtychoPinn
from study_lib.networks.pinn.training import train
from study_lib.physics.measurement import Measurement

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module", autouse=True)
def one_thread():
    """Sums depend on how they are cut into threads."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


def trained_on(measurement: Measurement, *, progress=None, **changes) -> TrainedNetwork:
    return train(measurement, config_of(measurement, **changes), progress=progress)


def test_arms_are_told_no_object():
    fields = {field.name for field in dataclasses.fields(Measurement)}

    assert fields == {
        "amplitudes",
        "positions_px",
        "probe",
        "groups",
        "scan_index",
        "object_shape",
        "bad_pixels",
        "background",
    }
    assert "object_" not in inspect.signature(train).parameters


@pytest.mark.parametrize("gridsize", [1, 2])
def test_network_learns_more_than_a_featureless_object(gridsize):
    measurement = measurement_of(gridsize=gridsize, step_px=5.0)

    history = trained_on(
        measurement, epochs=15, batch_size=3, learning_rate=1e-3, gradient_clip_norm=0.5
    ).history

    assert history.train[0] > history.uniform_object
    assert history.train[-1] < 0.8 * history.uniform_object
    assert history.validation[-1] < 0.5 * history.validation[0]


def test_uniform_object_loss_is_that_of_the_best_constant():
    """Brute force over constant amplitudes: none explains the counts better than the one used."""
    measurement = measurement_of()
    measured = measurement.counts
    detector = np.fft.fftshift(np.fft.fft2(measurement.probe, norm="ortho"), axes=(-2, -1))
    pattern = np.abs(detector).astype(np.float64) ** 2

    def half_deviance(amplitude):
        expected = amplitude**2 * pattern + 1e-6
        ratio = np.log(np.where(measured > 0, measured, 1) / expected)
        return (expected - measured + measured * ratio).mean()

    best = min(half_deviance(amplitude) for amplitude in np.linspace(0.6, 1, 401))

    reported = trained_on(measurement).history.uniform_object
    assert reported == pytest.approx(best, rel=1e-3)


def test_same_seed_gives_the_same_bytes_and_another_seed_does_not():
    measurement = measurement_of()

    first = fingerprint(trained_on(measurement, epochs=2))

    assert fingerprint(trained_on(measurement, epochs=2)) == first
    assert fingerprint(trained_on(measurement, epochs=2, seed=4)) != first


def test_training_neither_reads_nor_moves_the_global_random_state():
    measurement = measurement_of()
    torch.manual_seed(0)
    np.random.seed(0)
    before, before_numpy = torch.get_rng_state(), np.random.get_state()[1].copy()

    first = fingerprint(trained_on(measurement))

    assert torch.equal(torch.get_rng_state(), before)
    assert (np.random.get_state()[1] == before_numpy).all()
    torch.manual_seed(1)
    assert fingerprint(trained_on(measurement)) == first


def test_only_held_out_patterns_leave_the_weights_alone(monkeypatch):
    """Roll one pattern at a time: a fifth of them, the validation groups, changes no weight.

    Mean and deviation of the input are those of all patterns, so they are left out here.
    """
    monkeypatch.setattr(PtychoPinn, "fit_input", lambda network, amplitudes, probe: None)
    measurement = measurement_of(photons=2e3, step_px=7.0)
    count = len(measurement.amplitudes)
    reference = trained_on(measurement)

    without_influence, validation_moved = 0, 0
    for index in range(count):
        amplitudes = measurement.amplitudes.copy()
        amplitudes[index] = np.roll(amplitudes[index], 3, axis=0)
        changed = trained_on(dataclasses.replace(measurement, amplitudes=amplitudes))
        if fingerprint(changed) == fingerprint(reference):
            without_influence += 1
            validation_moved += changed.history.validation != reference.history.validation

    held_out = round(HELD_OUT_SHARE * count)
    assert without_influence == validation_moved == held_out


def test_learning_rate_falls_along_half_a_cosine():
    """Five epochs from 0.01 to 0.002: the ends, the middle between them, and 1/sqrt(2) of it."""
    history = trained_on(
        measurement_of(step_px=8.0), epochs=5, learning_rate=0.01, learning_rate_min=0.002
    ).history

    bend = 0.004 / 2**0.5
    assert history.learning_rate == pytest.approx(
        [0.01, 0.006 + bend, 0.006, 0.006 - bend, 0.002], rel=1e-6
    )


def test_on_a_plateau_the_learning_rate_falls_to_its_floor_and_no_further():
    """Without patience, and at a rate that spoils every step, it halves until the floor."""
    history = trained_on(
        measurement_of(step_px=8.0),
        epochs=12,
        learning_rate=0.4,
        learning_rate_min=0.1,
        schedule="plateau",
        plateau_patience=0,
    ).history

    assert set(history.learning_rate) == {0.4, 0.2, 0.1}
    assert list(history.learning_rate) == sorted(history.learning_rate, reverse=True)
    assert len(history.train) == len(history.validation) == len(history.learning_rate) == 12


def test_small_view_gets_as_many_steps_as_asked_for():
    """Twelve patterns, two held out: ten groups are two steps of six an epoch."""
    measurement = measurement_of(step_px=8.0)
    assert len(measurement.groups) == 12

    assert len(trained_on(measurement, steps_min=9).history.train) == 5
    assert len(trained_on(measurement, steps_min=9, epochs=7).history.train) == 7


def test_progress_reports_every_epoch_with_its_loss():
    reports = []

    def note(*report):
        reports.append(report)

    trained = trained_on(measurement_of(), epochs=3, progress=note)

    assert reports == [(record, 3) for record in trained.history.records]
    assert [record.epoch for record, _ in reports] == [1, 2, 3]


@pytest.mark.parametrize("gridsize", [1, 2])
def test_amplitude_loss_learns_too_and_is_held_against_its_own_uniform_object(gridsize):
    measurement = measurement_of(gridsize=gridsize, step_px=5.0)

    history = trained_on(
        measurement, loss="amplitude", epochs=15, batch_size=3, learning_rate=2e-3
    ).history

    assert history.train[-1] < 0.8 * history.uniform_object
    last = history.records[-1]
    assert last.validation == last.validation_amplitude != last.validation_poisson


def test_best_constant_of_the_amplitude_error_is_found():
    """Brute force over constant amplitudes, as for the likelihood."""
    measurement = measurement_of()
    detector = np.fft.fftshift(np.fft.fft2(measurement.probe, norm="ortho"), axes=(-2, -1))

    best = min(
        2 * ((factor * np.abs(detector) - measurement.amplitudes) ** 2).mean()
        for factor in np.linspace(0.6, 1, 401)
    )

    reported = trained_on(measurement, loss="amplitude").history.uniform_object
    assert reported == pytest.approx(best, rel=1e-3)


def test_clipping_shortens_long_gradients_and_nothing_else():
    measurement = measurement_of(step_px=8.0)
    free = trained_on(measurement, epochs=2)
    longest = max(record.gradient_norm for record in free.history.records)

    unclipped = trained_on(measurement, epochs=2, gradient_clip_norm=1e3 * longest)
    clipped = trained_on(measurement, epochs=2, gradient_clip_norm=0.1 * longest)

    assert fingerprint(unclipped) == fingerprint(free)
    assert fingerprint(clipped) != fingerprint(free)


def test_training_ends_when_validation_no_longer_improves():
    """At a rate that spoils every step; the best weights are those of an earlier epoch."""
    spoiled = {"learning_rate": 0.3, "learning_rate_min": 0.3, "epochs": 30}
    measurement = measurement_of(step_px=8.0)

    trained = trained_on(measurement, **spoiled, early_stopping_patience=3, final_weights="best")

    history = trained.history
    best = int(np.argmin(history.validation)) + 1
    assert history.stopped_early
    assert len(history.records) == best + 3 < 30
    assert history.kept_epoch == best
    shorter = trained_on(measurement, **spoiled | {"epochs": best})
    assert fingerprint(trained) == fingerprint(shorter)


def test_loss_that_is_no_number_is_told_with_its_place():
    measurement = measurement_of(step_px=8.0)
    measurement.amplitudes[:] = np.nan

    with pytest.raises(StudyError, match=r"loss is nan in epoch 1, step 1 of 2; lower learning_r"):
        trained_on(measurement)


def test_another_network_is_trained_by_its_name(monkeypatch):
    monkeypatch.setattr(networks, "NETWORKS", dict(networks.NETWORKS))
    networks.NETWORKS["same"] = networks.pinn
    measurement = measurement_of(step_px=8.0)

    assert fingerprint(trained_on(measurement, network="same")) == fingerprint(
        trained_on(measurement)
    )


def test_measurement_of_another_view_is_refused():
    with pytest.raises(InputError, match=r"1 patterns of 16 pixels per group, .* for 4 of 16"):
        train(measurement_of(gridsize=1), config_of(measurement_of(gridsize=2)))


def test_single_group_is_refused():
    measurement = measurement_of()
    alone = dataclasses.replace(measurement, groups=measurement.groups[:1])

    with pytest.raises(InputError, match="measurement with 1 group: one has to be held out"):
        trained_on(alone)


def test_history_is_written_as_one_ascii_line_per_epoch(tmp_path):
    history = trained_on(measurement_of(step_px=8.0), epochs=3).history

    history.write_csv(tmp_path / "history.csv")

    text = (tmp_path / "history.csv").read_bytes().decode("ascii")
    rows = list(csv.DictReader(text.splitlines()))
    assert [float(row["train"]) for row in rows] == list(history.train)
    assert all(float(row["seconds"]) > 0 and float(row["patterns_per_s"]) > 0 for row in rows)
    assert History.from_dict(json.loads(json.dumps(history.as_dict()))) == history


COMPILED = """
import json, torch
from small_training import config_of, measurement_of
from study_lib.networks.pinn.training import train
torch.set_num_threads(1)
measurement = measurement_of(gridsize=2)
config = config_of(measurement)
for compiles in (False, True):
    run = train(measurement, config.model_copy(update={"compile": compiles}))
    print(json.dumps(run.history.train))
"""


@pytest.mark.slow
@pytest.mark.skipif(shutil.which("g++") is None, reason="torch.compile needs a C++ compiler here")
def test_a_compiled_network_trains_alike(tmp_path):
    """In a process of its own: the types that these tests check at run time cannot be compiled."""
    here = Path(__file__).resolve().parents[2]
    places = os.pathsep.join([str(here), str(here.parent)])
    result = subprocess.run(
        [sys.executable, "-c", COMPILED],
        env=os.environ | {"TORCHINDUCTOR_CACHE_DIR": str(tmp_path), "PYTHONPATH": places},
        capture_output=True,
        text=True,
        check=False,
    )

    assert result.returncode == 0, result.stderr
    plain, compiled = map(json.loads, result.stdout.splitlines())
    np.testing.assert_allclose(compiled, plain, rtol=1e-3)
