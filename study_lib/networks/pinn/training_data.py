"""A measurement as tensors, batches of its groups, and what objects are judged by on it."""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from jaxtyping import Bool, Complex, Float, Int
from torch import Tensor

from study_lib.physics.forward import corners_of, expected_counts, probes_at
from study_lib.physics.likelihood import MEASURES, group_expected_counts, merge_weights
from study_lib.physics.measurement import Measurement

PROCESSOR = torch.device("cpu")
EVALUATION_BATCH = 64
DEVICE_SHARE = 0.5  # of a CUDA device's free memory that patterns may fill


@dataclass(frozen=True)
class Batch:
    """Some groups on the device: square roots of counts, shifted probes, corners of patches."""

    amplitudes: Float[Tensor, "batch c n n"]
    probes: Complex[Tensor, "batch c n n"]
    corners_px: Int[Tensor, "batch c 2"]


@dataclass(frozen=True)
class GroupTensors:
    """A measurement indexed by pattern; ``groups`` (group, C) index patterns.

    ``bad_pixels`` (n, n) is None where every pixel is good. Patterns that would fill the device
    stay where they are and follow batch by batch.
    """

    amplitudes: Float[Tensor, "scan n n"]
    positions_px: Float[Tensor, "scan 2"]
    groups: Int[Tensor, "group c"]
    probe: Complex[Tensor, "n n"]
    weights: Float[Tensor, "n n"]
    bad_pixels: Bool[Tensor, "n n"] | None
    device: torch.device

    @classmethod
    def of(cls, measurement: Measurement, device: torch.device = PROCESSOR) -> "GroupTensors":
        """Share the arrays of a measurement, or copy them to another device."""
        amplitudes = torch.from_numpy(measurement.amplitudes)
        if device.type == "cuda":
            free, _ = torch.cuda.mem_get_info(device)
            if amplitudes.nbytes < DEVICE_SHARE * free:
                amplitudes = amplitudes.to(device)
        probe = torch.from_numpy(measurement.probe).to(device)
        bad_pixels = measurement.bad_pixels
        return cls(
            amplitudes=amplitudes,
            positions_px=torch.from_numpy(measurement.positions_px),
            groups=torch.from_numpy(measurement.groups),
            probe=probe,
            weights=merge_weights(probe),
            bad_pixels=None if bad_pixels is None else torch.from_numpy(bad_pixels).to(device),
            device=device,
        )

    def batch(self, rows: Int[Tensor, " batch"]) -> Batch:
        """Return the groups in ``rows``, which may lie on any device."""
        return self.batch_of(self.groups[rows.to(self.groups.device)])

    def batch_of(self, groups: Int[Tensor, "batch c"]) -> Batch:
        """Return groups given by their patterns."""
        positions_px = self.positions_px[groups].to(self.device)
        flat = positions_px.flatten(0, 1)
        side = self.probe.shape[-1]
        return Batch(
            self.amplitudes[groups.to(self.amplitudes.device)].to(self.device),
            probes_at(self.probe, flat).reshape(*groups.shape, side, side),
            corners_of(flat, side).reshape(*groups.shape, 2),
        )

    def corners_of_groups(self) -> Int[Tensor, "group c 2"]:
        """Return the (row, column) of the first pixel of every patch of every group."""
        return corners_of(self.positions_px, self.probe.shape[-1])[self.groups]

    def expected(
        self, batch: Batch, patches: Complex[Tensor, "batch c n n"]
    ) -> Float[Tensor, "batch c n n"]:
        """Return the photons that patches predict for their groups."""
        return group_expected_counts(patches, batch.probes, batch.corners_px, self.weights)


def uniform_object_loss(
    data: GroupTensors, loss: str, pause: Callable[[], None] = lambda: None
) -> float:
    """Return the loss of the best featureless object: one amplitude for every pixel.

    ``pause`` is called between batches.
    """
    measure = MEASURES[loss]
    patterns = torch.arange(len(data.amplitudes))[:, None]
    plain = expected_counts(data.probe)
    if data.bad_pixels is not None:
        plain = plain.masked_fill(data.bad_pixels, 0)
    amplitude = _best_amplitude(data, loss, plain, patterns, pause)
    total = 0.0
    for part in patterns.split(EVALUATION_BATCH):
        pause()
        batch = data.batch_of(part)
        expected = expected_counts(batch.probes * amplitude)
        total += float(measure(expected, batch.amplitudes**2, data.bad_pixels)) * len(part)
    return total / len(patterns)


def _best_amplitude(
    data: GroupTensors, loss: str, plain: Tensor, patterns: Tensor, pause: Callable[[], None]
) -> float:
    """Return the amplitude that fits best: the likelihood's from sums of counts, or of roots."""
    found = 0.0
    for part in patterns.split(EVALUATION_BATCH):
        pause()
        amplitudes = data.amplitudes[part[:, 0].to(data.amplitudes.device)].to(data.device)
        if loss == "poisson":
            found += float((amplitudes**2).sum(dtype=torch.float64))
        else:
            found += float((amplitudes * torch.sqrt(plain)).sum(dtype=torch.float64))
    share = found / len(patterns) / float(plain.sum(dtype=torch.float64))
    return float(share**0.5) if loss == "poisson" else share
