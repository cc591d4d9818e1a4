"""An interrupted training goes on to the very weights of one that was left alone."""

import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import numpy as np
import pytest
import torch
from killing import command
from small_training import config_of, fingerprint, measurement_of
from tiny_runs import generated

from study_lib.errors import InputError, StudyError
from study_lib.files import read_json
from study_lib.networks import registry as networks
from study_lib.networks.checkpoints import LAST, PREVIOUS, read_checkpoint
from study_lib.networks.machine import TrainingStopped
from study_lib.networks.pinn import training as training_loop
from study_lib.networks.pinn.network import BackPropagation, PtychoPinn
from study_lib.networks.pinn.training import train

pytestmark = pytest.mark.slow

EPOCHS = 5
SLOW_TRAINING = """
import sys, time
from pathlib import Path
from small_training import config_of, fingerprint, measurement_of
from study_lib.networks.pinn.training import train

def progress(record, epochs):
    print("epoch", record.epoch, flush=True)
    time.sleep(0.1)

measurement = measurement_of(step_px=8.0)
config = config_of(measurement, epochs=30, batch_size=3)
trained = train(measurement, config, checkpoints=Path(sys.argv[1]), progress=progress)
print("weights", fingerprint(trained), len(trained.history.records))
"""


class InterruptedPinn(PtychoPinn):
    """A PtychoPINN whose process gets a signal while it looks at a certain batch."""

    countdown = 0
    number = signal.SIGTERM

    def forward(self, amplitudes: torch.Tensor) -> torch.Tensor:
        InterruptedPinn.countdown -= 1
        if InterruptedPinn.countdown == 0:
            signal.raise_signal(self.number)
        dropped = torch.nn.functional.dropout(amplitudes, 0.1, self.training)  # draws numbers too
        return super().forward(dropped)


@pytest.fixture(autouse=True)
def interrupted_network(monkeypatch):
    monkeypatch.setattr(networks, "NETWORKS", dict(networks.NETWORKS))
    networks.NETWORKS["interrupted"] = lambda shape: InterruptedPinn(
        channels=shape.channels,
        side=shape.side_px,
        filters_scale=shape.filters_scale,
        inputs=BackPropagation(shape.side_px),
    )
    InterruptedPinn.countdown = 0


def settings(**changes) -> dict:
    return {
        "network": "interrupted",
        "epochs": EPOCHS,
        "batch_size": 3,
        "schedule": "plateau",
        "plateau_patience": 0,
        "learning_rate": 0.01,
        **changes,
    }


def processes_of_start(handlers=(signal.SIGTERM, signal.SIGINT)) -> tuple:
    return (
        torch.get_rng_state().sum().item(),
        torch.get_num_threads(),
        torch.are_deterministic_algorithms_enabled(),
        *(signal.getsignal(number) for number in handlers),
        np.random.get_state()[1].sum(),
    )


# Calls 1-4 are the steps of epoch 1 (10 groups by 3), call 5 its validation; 10 is validation too.
@pytest.mark.parametrize("call", [1, 3, 4, 5, 6, 10, 13])
@pytest.mark.parametrize("final_weights", ["last", "best"])
def test_stop_between_any_two_steps_leads_to_the_same_weights(call, final_weights, tmp_path):
    measurement = measurement_of(step_px=8.0)
    config = config_of(measurement, **settings(final_weights=final_weights))
    alone = train(measurement, config)
    InterruptedPinn.countdown = call

    with pytest.raises(TrainingStopped, match="it can be taken up there"):
        train(measurement, config, checkpoints=tmp_path)
    state = read_checkpoint(tmp_path / LAST)["state"]
    resumed = train(measurement, config, checkpoints=tmp_path)

    assert 5 * len(state["records"]) + state["step"] == call
    assert fingerprint(resumed) == fingerprint(alone)
    for name in ("train", "validation", "learning_rate"):
        assert getattr(resumed.history, name) == getattr(alone.history, name)


def test_stop_amid_validation_leads_to_the_same_weights(tmp_path, monkeypatch):
    """The steps of the epoch are kept; only the validation is done again."""
    monkeypatch.setattr(training_loop, "EVALUATION_BATCH", 1)
    measurement = measurement_of(step_px=8.0)
    config = config_of(measurement, **settings())
    alone = train(measurement, config)
    InterruptedPinn.countdown = 5  # the first of two held-out groups

    with pytest.raises(TrainingStopped, match="epoch 1, step 4 of 4"):
        train(measurement, config, checkpoints=tmp_path)
    resumed = train(measurement, config, checkpoints=tmp_path)

    assert fingerprint(resumed) == fingerprint(alone)
    assert resumed.history.validation == alone.history.validation


def test_stop_comes_within_one_step_and_is_handed_on(tmp_path):
    measurement = measurement_of(step_px=8.0)
    InterruptedPinn.countdown, InterruptedPinn.number = 2, signal.SIGINT

    with pytest.raises(KeyboardInterrupt, match=r"epoch 1, step 2 of 4"):
        train(measurement, config_of(measurement, **settings()), checkpoints=tmp_path)
    InterruptedPinn.number = signal.SIGTERM


def test_killed_training_goes_on_to_the_same_weights(tmp_path):
    """SIGKILL at some moment, again and again, in processes of their own."""
    command = [sys.executable, "-c", SLOW_TRAINING]
    paths = [str(Path(__file__).parents[2]), str(Path(__file__).parents[3])]
    environment = {"PYTHONPATH": ":".join(paths), "OMP_NUM_THREADS": "1"}

    def finished(folder: Path) -> str:
        run = subprocess.run(
            [*command, folder], env=environment, capture_output=True, text=True, check=True
        )
        return run.stdout.splitlines()[-1]

    for until in (2, 9):
        process = subprocess.Popen(
            [*command, tmp_path / "killed"], env=environment, stdout=subprocess.PIPE, text=True
        )
        for line in process.stdout:
            if line.split()[0] == "weights":
                pytest.fail("ended before it was killed")
            if int(line.split()[1]) >= until:
                break
        time.sleep(0.03)
        process.kill()
        process.communicate()

    again = finished(tmp_path / "killed")

    assert again == finished(tmp_path / "alone")
    assert again.endswith(" 30")


def test_finished_training_is_not_trained_again(tmp_path):
    measurement = measurement_of(step_px=8.0)
    config = config_of(measurement, epochs=2)
    first = train(measurement, config, checkpoints=tmp_path)
    reports = []

    second = train(
        measurement, config, checkpoints=tmp_path, progress=lambda *report: reports.append(report)
    )

    assert reports == []
    assert fingerprint(second) == fingerprint(first)
    assert second.history == first.history
    assert second.training_cpu_s >= first.training_cpu_s


def test_damaged_checkpoint_costs_an_epoch_not_the_weights(tmp_path):
    measurement = measurement_of(step_px=8.0)
    config = config_of(measurement, epochs=4)
    alone = train(measurement, config, checkpoints=tmp_path)
    content = bytearray((tmp_path / LAST).read_bytes())
    content[-1000] ^= 255
    (tmp_path / LAST).write_bytes(content)
    reports, notes = [], []

    again = train(
        measurement,
        config,
        checkpoints=tmp_path,
        progress=lambda record, _: reports.append(record.epoch),
        warn=notes.append,
    )

    assert reports == [4]
    assert "last.ckpt: damaged" in notes[0]
    assert fingerprint(again) == fingerprint(alone)


def test_damage_is_a_warning_when_nobody_listens(tmp_path):
    measurement = measurement_of(step_px=8.0)
    train(measurement, config_of(measurement, epochs=2), checkpoints=tmp_path)
    (tmp_path / LAST).write_bytes(b"")

    with pytest.warns(UserWarning, match="not a checkpoint of this study; previous.ckpt"):
        train(measurement, config_of(measurement, epochs=2), checkpoints=tmp_path)


def test_checkpoints_are_of_one_configuration_and_one_measurement(tmp_path):
    measurement = measurement_of(step_px=8.0)
    train(measurement, config_of(measurement), checkpoints=tmp_path)

    with pytest.raises(InputError, match=r"batch_size: 6 there, 2 here"):
        train(measurement, config_of(measurement, batch_size=2), checkpoints=tmp_path)
    with pytest.raises(InputError, match=r"another training \(measurement: "):
        train(
            measurement_of(step_px=8.0, photons=2e5), config_of(measurement), checkpoints=tmp_path
        )


def test_the_last_two_epochs_are_kept_each_with_the_best_weights_so_far(tmp_path):
    measurement = measurement_of(step_px=8.0)
    history = train(measurement, config_of(measurement, epochs=3), checkpoints=tmp_path).history

    for name, epochs in ((LAST, 3), (PREVIOUS, 2)):
        state = read_checkpoint(tmp_path / name)["state"]
        assert len(state["records"]) == epochs
        assert state["best"]["epoch"] == int(np.argmin(history.validation[:epochs])) + 1
    assert {path.name for path in tmp_path.iterdir()} == {LAST, PREVIOUS}


@pytest.mark.parametrize("ending", ["well", "stopped", "failed"])
def test_process_is_left_as_it_was(ending, tmp_path):
    measurement = measurement_of(step_px=8.0)
    config = config_of(measurement, **settings(threads=2))
    before = processes_of_start()

    if ending == "well":
        train(measurement, config, checkpoints=tmp_path)
    elif ending == "stopped":
        InterruptedPinn.countdown = 3
        with pytest.raises(TrainingStopped):
            train(measurement, config, checkpoints=tmp_path)
    else:
        measurement.amplitudes[:] = np.nan
        with pytest.raises(StudyError):
            train(measurement, config, checkpoints=tmp_path)

    assert processes_of_start() == before


def test_training_in_another_thread_leaves_signals_alone(tmp_path):
    measurement = measurement_of(step_px=8.0)
    results = []
    thread = threading.Thread(
        target=lambda: results.append(
            train(measurement, config_of(measurement), checkpoints=tmp_path)
        )
    )

    thread.start()
    thread.join()

    assert fingerprint(results[0]) == fingerprint(train(measurement, config_of(measurement)))


def test_a_stopped_command_goes_on_to_the_same_weights(tmp_path, tiny_design_with):
    """As by a scheduler whose time is up: it sends SIGTERM."""
    run = generated(tmp_path, tiny_design_with("training.epochs=20"))

    def training(place: str) -> subprocess.Popen:
        data = ("--phase-c-root", run.root("dataset"), "--phase-d-root", run.root("views"))
        roots = (*map(str, data), "--artifact-root", place)
        return command("train", *roots, "--view", "baseline", cwd=tmp_path, stdout=subprocess.PIPE)

    def weights(place: str) -> str:
        (job,) = read_json(tmp_path / place / "training_manifest.json")["jobs"].values()
        assert job["results"]["epochs"] == 20
        return job["results"]["weights_sha256"]

    alone = training("alone")
    assert alone.communicate(timeout=300)[1] == ""
    process = training("stopped")
    while "epoch 5/" not in (line := process.stdout.readline()):
        assert line, process.communicate()[1]
    started = time.monotonic()
    process.terminate()
    _, error = process.communicate(timeout=60)

    assert time.monotonic() - started < 30
    assert process.returncode == 130
    assert error.splitlines()[-1] == "study: stopped; the same command goes on from here"
    (path,) = tmp_path.glob(f"stopped/**/{LAST}")
    assert 4 <= len(read_checkpoint(path)["state"]["records"]) < 20

    again = training("stopped")
    printed, error = again.communicate(timeout=300)
    assert again.returncode == 0, error
    assert "epoch 3/" not in printed
    assert weights("stopped") == weights("alone")
