"""Training a network on one view, without ground truth, and taking an interrupted one up again."""

import time
import warnings
from pathlib import Path

import torch

from study_lib.errors import InputError
from study_lib.networks.checkpoints import CheckpointFolder, Note
from study_lib.networks.machine import borrowed_process, device_of, half_precision_on, stop_requests
from study_lib.networks.pinn.bundle import TrainedNetwork
from study_lib.networks.pinn.config import TrainingConfig
from study_lib.networks.pinn.training_loop import Progress, TrainingRun, Watch
from study_lib.networks.process_group import joined_processes
from study_lib.physics.measurement import Measurement, measurement_digest
from study_lib.seeding import torch_seed


def train(
    measurement: Measurement,
    config: TrainingConfig,
    *,
    checkpoints: Path | None = None,
    progress: Progress | None = None,
    watch: Watch | None = None,
    note: Note | None = None,
) -> TrainedNetwork:
    """Train a network so that its object regions explain the counts.

    Adam, with a falling learning rate. The validation groups are held out of the gradient, not of
    the input: they belong to the same view and split.
    Processes started together by torchrun share every batch.

    Parameters
    ----------
    measurement
        Patterns, positions, probe and groups; the network never sees an object.
    config
        Every knob; see :class:`TrainingConfig` and :class:`study_lib.design.models.TrainingDesign`.
    checkpoints
        Folder of checkpoints, written after every epoch, every few minutes, and when the process
        is asked to end. A training found there goes on to the weights it would have had without
        the interruption, bit by bit on the same machine.
    progress
        Called after every epoch with its record and the number of all epochs.
    watch
        Called after every epoch with its number and the network, which it must not change.
    note
        Told of damaged checkpoints and of a change of machine; default: a warning.

    Raises
    ------
    InputError
        If the measurement does not fit the configuration, the device or the network does not
        exist, or the checkpoints belong to another training.
    StudyError
        If the loss is no longer a number, or no checkpoint is whole.
    TrainingStopped
        If SIGTERM or Ctrl-C came while there are checkpoints; the last step is in them.
    """
    started = time.process_time()
    device = device_of(config.device)
    half = half_precision_on(device, config.precision)
    config = config.model_copy(update={"precision": "bfloat16" if half else "float32"})
    _require_fit(measurement, config)
    with (
        stop_requests(watched=checkpoints is not None) as stop,
        borrowed_process(device, config.threads, torch_seed(config.seed, "weights")),
        joined_processes(device) as processes,
    ):
        folder = None
        if checkpoints is not None:
            folder = CheckpointFolder(
                checkpoints,
                {**config.decisive, "measurement": measurement_digest(measurement)},
                {
                    "device": device.type,
                    "threads": torch.get_num_threads(),
                    "processes": processes.count,
                    "torch": str(torch.__version__),
                },
                note or _warn,
            )
        run = TrainingRun(measurement, config, device, processes, folder, stop, started)
        state = processes.told_by_leader(folder.load) if folder else None
        if state:
            run.restore(state)
        return run.to_the_end(progress, watch)


def _require_fit(measurement: Measurement, config: TrainingConfig) -> None:
    found = measurement.groups.shape[1], measurement.probe.shape[-1]
    wanted = config.channels, config.side_px
    if found != wanted:
        raise InputError(
            f"measurement with {found[0]} patterns of {found[1]} pixels per group, but the "
            f"training is for {wanted[0]} of {wanted[1]}; use the file of its own view"
        )
    if len(measurement.groups) < 2:
        raise InputError(
            f"measurement with {len(measurement.groups)} group: one has to be held out and one to "
            "be learned from; use a view with more patterns"
        )


def _warn(text: str) -> None:
    warnings.warn(text, stacklevel=3)
