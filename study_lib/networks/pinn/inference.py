"""The object that a trained network sees in a measurement of any size, in bounded memory."""

from collections.abc import Callable, Iterator
from typing import Literal

import numpy as np
import torch
from jaxtyping import Complex, Float, Int
from torch import Tensor

from study_lib.networks.machine import device_of, repeatable_on
from study_lib.networks.pinn.bundle import TrainedNetwork
from study_lib.networks.pinn.training import GroupTensors, merge_groups, require_groups
from study_lib.physics.forward import pixel_indices, require_inside
from study_lib.physics.measurement import Measurement

# --- From patches to one object: phases brought into agreement, a weighted mean

SYNCHRONISATION_ROUNDS = 2
PatchSource = Callable[[Tensor], Tensor]


def stitch(
    patches_of: PatchSource,
    corners_px: Int[Tensor, "group c 2"],
    weights: Float[Tensor, "n n"],
    object_shape: tuple[int, int],
    *,
    batch: int,
    kept_bytes: int,
) -> Complex[Tensor, "oy ox"]:
    """Return the object made of the patches of every group; 1 where no patch lies.

    The likelihood of one group does not change with a constant phase over all its patches. These
    constants are found by turning each group's patches towards the sum of those nearer to the
    middle, one by one, and then towards the mean of all, a few rounds. Only the object is held in
    memory from group to group; patches are asked for again in every round.

    Parameters
    ----------
    patches_of
        Returns the patches (group, c, n, n) of some groups, the same whenever it is asked.
    corners_px : (group, c, 2)
        (row, column) of each patch's first pixel in the object.
    weights : (n, n)
        Positive weight of each patch pixel.
    object_shape
        (rows, columns) of the object.
    batch
        Groups asked for at once.
    kept_bytes
        If all patches together are not larger, they are asked for only once.

    Raises
    ------
    ValueError
        If a patch leaves the object; names the first such scan position.
    """
    side = weights.shape[-1]
    require_inside(corners_px.flatten(0, 1), side, object_shape)  # before they are reordered
    places = corners_px.double().mean(dim=1)
    distance = torch.linalg.vector_norm(places - places.mean(dim=0), dim=1)
    parts = distance.argsort(stable=True).split(batch)
    kept: dict[int, Tensor] = {}
    object_dtype = weights.dtype.to_complex()
    keeps = corners_px[..., 0].numel() * side**2 * object_dtype.itemsize <= kept_bytes

    def weighted_parts() -> Iterator[tuple[Tensor, Tensor]]:
        for number, part in enumerate(parts):
            weighted = kept.get(number)
            if weighted is None:
                weighted = patches_of(part) * weights
            if keeps:
                kept[number] = weighted
            corners = corners_px[part].flatten(0, 1)
            indices = pixel_indices(corners, side, object_shape)
            yield weighted.flatten(1), indices.reshape(len(part), -1)

    # Rounds alone carry a phase one patch further each; a large scan needs the way outwards first.
    total, total_weight = _turned_outwards(weighted_parts(), weights, object_shape)
    covered = total_weight > 0
    safe_weight = torch.where(covered, total_weight, torch.ones_like(total_weight))
    for _ in range(SYNCHRONISATION_ROUNDS):
        mean, total = total / safe_weight, torch.zeros_like(total)
        for weighted, indices in weighted_parts():
            agreement = (weighted.conj() * mean[indices]).sum(dim=1, keepdim=True)
            turned = weighted * _direction(agreement)
            total.index_add_(0, indices.flatten(), turned.flatten())
    object_ = torch.where(covered, total / safe_weight, torch.ones_like(total))
    return object_.reshape(object_shape)


def _turned_outwards(
    parts: Iterator[tuple[Tensor, Tensor]],
    weights: Float[Tensor, "n n"],
    object_shape: tuple[int, int],
) -> tuple[Complex[Tensor, " pixels"], Float[Tensor, " pixels"]]:
    """Return the sum of all groups, each turned towards the sum of those before it, and weights."""
    pixels = object_shape[0] * object_shape[1]
    total_weight = weights.new_zeros(pixels)
    total = torch.zeros(pixels, dtype=weights.dtype.to_complex(), device=weights.device)
    for weighted, indices in parts:
        copies = indices.shape[1] // weights.numel()
        total_weight.index_add_(
            0, indices.flatten(), weights.flatten().repeat(copies * len(indices))
        )
        for group, where in zip(weighted, indices, strict=True):
            agreement = torch.vdot(group, total[where])
            total.index_add_(0, where, group * _direction(agreement))
    return total, total_weight


def _direction(values: Complex[Tensor, "..."]) -> Complex[Tensor, "..."]:
    """Return complex numbers of modulus 1 with the same phase; 1 for zero."""
    return torch.polar(torch.ones_like(values.real), values.angle())


# --- The object of a measurement of any size, in bounded memory

BATCH_PATTERNS = 16
KEPT_BYTES = 2**28  # patches that fit are kept; others are computed again in every round
Weighting = Literal["probe", "uniform"]


def apply_network(
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

    Examples
    --------
    >>> import study_lib as study
    >>> condition = run.condition(1e4, "dense")  # run: study.open_run of a finished run's folder
    >>> trained = study.load_network(condition.folder("train") / "model.pt")
    >>> object_ = study.apply_network(trained, condition.measurement())
    >>> object_.dtype, object_.shape == condition.truth().shape
    (dtype('complex64'), True)
    """
    require_groups(measurement, trained.config, "network was trained", "network")
    target = device_of(device)
    data = GroupTensors.of(measurement, target)
    network = trained.network.to(target)
    weights = data.weights if weighting == "probe" else torch.ones_like(data.weights)

    def regions_of(rows: Int[Tensor, " batch"]) -> Complex[Tensor, "batch c n n"]:
        batch = data.batch(rows)
        return merge_groups(network(batch.amplitudes), batch.corners_px, weights)

    with torch.no_grad(), repeatable_on(target):
        object_ = stitch(
            regions_of,
            data.corners_of_groups().to(target),
            weights,
            measurement.object_shape,
            batch=max(1, BATCH_PATTERNS // trained.config.channels),
            kept_bytes=kept_bytes,
        )
    return object_.cpu().numpy()
