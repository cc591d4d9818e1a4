"""The object that a trained network sees in a measurement of any size, in bounded memory."""

from typing import Literal

import numpy as np
import torch
from jaxtyping import Complex, Int
from torch import Tensor

from study_lib.errors import InputError
from study_lib.networks.machine import device_of, repeatable_on
from study_lib.networks.pinn.bundle import TrainedNetwork
from study_lib.networks.pinn.stitching import stitch_streamed
from study_lib.networks.pinn.training_data import GroupTensors
from study_lib.physics.likelihood import merge_groups
from study_lib.physics.measurement import Measurement

BATCH_PATTERNS = 16
KEPT_BYTES = 2**28  # patches that fit are kept; others are computed again in every round
Weighting = Literal["probe", "uniform"]


def reconstruct(
    trained: TrainedNetwork,
    measurement: Measurement,
    *,
    weighting: Weighting = "probe",
    device: str = "auto",
    kept_bytes: int = KEPT_BYTES,
) -> Complex[np.ndarray, "oy ox"]:
    """Return the object that the network sees in a measurement, in the frame of its positions.

    Every group is passed through the network, merged to its region, and stitched. Memory beyond
    the measurement: a few objects, one batch, and at most ``kept_bytes`` of patches; with more
    patches than that, the network computes them once per round instead. The object is the same.

    Parameters
    ----------
    trained
        A network for the gridsize and the pattern size of the measurement.
    measurement
        Its amplitudes may be a memory map; they are read batch by batch.
    weighting
        How patches are averaged: by the probe's intensity in each pixel, or all pixels alike.
    device
        auto, cpu or cuda:n.
    kept_bytes
        Patches kept between the rounds of stitching.

    Raises
    ------
    InputError
        If the network was trained for other groups or patterns, or the device does not exist.
    """
    channels, side = measurement.groups.shape[1], measurement.probe.shape[-1]
    config = trained.config
    if (channels, side) != (config.channels, config.side_px):
        raise InputError(
            f"measurement with {channels} patterns of {side} pixels per group, but the network was "
            f"trained for {config.channels} of {config.side_px}; use the network of its own view"
        )
    target = device_of(device)
    data = GroupTensors.of(measurement, target)
    network = trained.network.to(target)
    weights = data.weights if weighting == "probe" else torch.ones_like(data.weights)

    def regions_of(rows: Int[Tensor, " batch"]) -> Complex[Tensor, "batch c n n"]:
        batch = data.batch(rows)
        return merge_groups(network(batch.amplitudes), batch.corners_px, weights)

    with torch.no_grad(), repeatable_on(target):
        object_ = stitch_streamed(
            regions_of,
            data.corners_of_groups().to(target),
            weights,
            measurement.object_shape,
            batch=max(1, BATCH_PATTERNS // channels),
            kept_bytes=kept_bytes,
        )
    result: np.ndarray = object_.cpu().numpy()
    return result
