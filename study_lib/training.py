"""Training the physics-informed network on one view, without ground truth, and using it."""

import math
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Literal

import numpy as np
import torch
from jaxtyping import Bool, Complex, Float
from torch import Tensor

from study_lib.forward import corners_of, expected_counts, probes_at
from study_lib.losses import group_expected_counts, half_deviance, merge_groups, merge_weights
from study_lib.measurement import Measurement
from study_lib.network import PtychoPinn, has_fast_bfloat16
from study_lib.seeding import torch_seed
from study_lib.stitching import stitch

INFERENCE_BATCH = 64
Progress = Callable[[int, int, float], None]
Precision = Literal["float32", "bfloat16", "auto"]


@dataclass(frozen=True)
class History:
    """Half deviance per pixel after every epoch, and what a featureless object would have."""

    train: tuple[float, ...]
    validation: tuple[float, ...]
    learning_rate: tuple[float, ...]
    uniform_object: float


@dataclass(frozen=True)
class TrainedNetwork:
    """A network, what its training took, and the file it was trained on, if known."""

    network: PtychoPinn
    history: History
    training_cpu_s: float
    measurement_sha256: str = ""


@dataclass(frozen=True)
class GroupTensors:
    """A measurement as tensors, indexed by pattern; ``groups`` (group, C) index patterns.

    ``bad_pixels`` (n, n) is None where every pixel is good.
    """

    amplitudes: Float[Tensor, "scan n n"]
    positions_px: Float[Tensor, "scan 2"]
    probe: Complex[Tensor, "n n"]
    groups: Tensor
    bad_pixels: Bool[Tensor, "n n"] | None

    @classmethod
    def of(cls, measurement: Measurement) -> "GroupTensors":
        """Share the arrays of a measurement."""
        return cls(
            torch.from_numpy(measurement.amplitudes),
            torch.from_numpy(measurement.positions_px),
            torch.from_numpy(measurement.probe),
            torch.from_numpy(measurement.groups),
            None if measurement.bad_pixels is None else torch.from_numpy(measurement.bad_pixels),
        )


def train(
    measurement: Measurement,
    *,
    epochs: int,
    steps_min: int,
    batch_size: int,
    learning_rate: float,
    learning_rate_min: float,
    plateau_patience: int,
    filters_scale: int,
    validation_share: float,
    precision: Precision,
    seed: int,
    progress: Progress | None = None,
) -> TrainedNetwork:
    """Train a network so that its object regions explain the counts (Poisson likelihood).

    Adam; the learning rate halves when the validation groups stop improving. The validation groups
    are held out of the gradient, not of the input: they belong to the same view and split.

    Parameters
    ----------
    measurement
        Patterns, positions, probe and groups; the network never sees an object.
    epochs
        Passes over the training groups.
    steps_min
        A view with few groups gets more epochs, until there are as many steps as this.
    batch_size
        Groups per step.
    learning_rate, learning_rate_min
        Start and floor.
    plateau_patience
        Epochs without progress before the rate halves.
    filters_scale
        Width multiplier of the network.
    validation_share
        Share of the groups held out.
    precision
        Of the convolutions; ``auto`` is bfloat16 where the processor has it, else float32.
    seed
        Decides the initial weights, the held-out groups and the order of the groups.
    progress
        Called after every epoch with the epoch, all epochs and the training loss.
    """
    started = time.process_time()
    data = GroupTensors.of(measurement)
    order = torch.Generator().manual_seed(torch_seed(seed, "order"))
    with _own_random_state(torch_seed(seed, "weights")):
        network = PtychoPinn(
            channels=data.groups.shape[1],
            side=data.probe.shape[-1],
            filters_scale=filters_scale,
            half_precision=precision == "bfloat16" or (precision == "auto" and has_fast_bfloat16()),
        )
    network = network.to(memory_format=torch.channels_last)  # type: ignore[call-overload]  # not in the stubs
    shuffled = torch.randperm(len(data.groups), generator=order)
    held_out = max(1, round(validation_share * len(shuffled)))
    validation_groups, train_groups = shuffled[:held_out], shuffled[held_out:]
    network.fit_input(data.amplitudes[data.groups[train_groups].unique()])

    optimizer = torch.optim.Adam(network.parameters(), lr=learning_rate)
    schedule = torch.optim.lr_scheduler.ReduceLROnPlateau(
        optimizer, factor=0.5, patience=plateau_patience, min_lr=learning_rate_min
    )
    epochs = max(epochs, math.ceil(steps_min / math.ceil(len(train_groups) / batch_size)))
    losses: list[tuple[float, float, float]] = []
    for epoch in range(1, epochs + 1):
        permuted = train_groups[torch.randperm(len(train_groups), generator=order)]
        network.train()
        total = 0.0
        for batch in permuted.split(batch_size):
            loss = _loss(network, data, batch)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            total += float(loss.detach()) * len(batch)
        validation = _mean_loss(network, data, validation_groups)
        losses.append((total / len(permuted), validation, optimizer.param_groups[0]["lr"]))
        schedule.step(validation)
        if progress:
            progress(epoch, epochs, losses[-1][0])
    train_loss, validation_loss, rates = zip(*losses, strict=True)
    history = History(train_loss, validation_loss, rates, _uniform_loss(data))
    return TrainedNetwork(network.eval(), history, time.process_time() - started)


def reconstruct(trained: TrainedNetwork, measurement: Measurement) -> Complex[np.ndarray, "oy ox"]:
    """Return the object that the network sees in a measurement, in the frame of its positions.

    Every group is passed through the network once; the patches are stitched with the probe's
    intensity as weight.
    """
    data = GroupTensors.of(measurement)
    weights = merge_weights(data.probe)
    patches, corners = [], []
    with torch.no_grad():
        for batch in data.groups.split(INFERENCE_BATCH):
            predicted = trained.network(data.amplitudes[batch])
            corner = _corners(data, batch)
            patches.append(merge_groups(predicted, corner, weights))
            corners.append(corner)
        object_ = stitch(torch.cat(patches), torch.cat(corners), weights, measurement.object_shape)
    result: np.ndarray = object_.numpy()
    return result


def _corners(data: GroupTensors, batch: Tensor) -> Tensor:
    flat = corners_of(data.positions_px[batch].flatten(0, 1), data.probe.shape[-1])
    return flat.reshape(*batch.shape, *flat.shape[1:])


def _probes(data: GroupTensors, batch: Tensor) -> Tensor:
    flat = probes_at(data.probe, data.positions_px[batch].flatten(0, 1))
    return flat.reshape(*batch.shape, *flat.shape[1:])


def _loss(network: PtychoPinn, data: GroupTensors, rows: Tensor) -> Tensor:
    """Return the half deviance of the groups in ``rows`` of ``data.groups``."""
    batch = data.groups[rows]
    patches = network(data.amplitudes[batch])
    counts = data.amplitudes[batch] ** 2
    weights = merge_weights(data.probe)
    expected = group_expected_counts(patches, _probes(data, batch), _corners(data, batch), weights)
    return half_deviance(expected, counts, data.bad_pixels)


def _mean_loss(network: PtychoPinn, data: GroupTensors, rows: Tensor) -> float:
    network.eval()
    with torch.no_grad():
        parts = [
            float(_loss(network, data, part)) * len(part) for part in rows.split(INFERENCE_BATCH)
        ]
    return sum(parts) / len(rows)


def _uniform_loss(data: GroupTensors) -> float:
    """Return the half deviance of the best featureless object: one amplitude for every pixel."""
    patterns = torch.arange(len(data.amplitudes))[:, None]
    counts = data.amplitudes**2
    ones = torch.ones_like(_probes(data, patterns[:1]))
    plain = expected_counts(data.probe)
    if data.bad_pixels is not None:
        plain = plain.masked_fill(data.bad_pixels, 0)
    power = counts.sum(dim=(1, 2)).mean() / plain.sum()
    weights = merge_weights(data.probe)
    total = 0.0
    for part in patterns.split(INFERENCE_BATCH):
        patches = ones.expand(len(part), -1, -1, -1) * torch.sqrt(power)
        expected = group_expected_counts(
            patches, _probes(data, part), _corners(data, part), weights
        )
        total += float(half_deviance(expected, counts[part], data.bad_pixels)) * len(part)
    return total / len(patterns)


@contextmanager
def _own_random_state(seed: int) -> Iterator[None]:
    """Seed torch's global generator for a block and put it back as it was."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        yield
