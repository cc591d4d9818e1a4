"""Object patches to one object: constant phases brought into agreement, then a weighted mean."""

import torch
from jaxtyping import Complex, Float, Int
from torch import Tensor

from study_lib.forward import add_patches, pixel_indices

SYNCHRONISATION_ROUNDS = 8


def stitch(
    patches: Complex[Tensor, "group c n n"],
    corners_px: Int[Tensor, "group c 2"],
    weights: Float[Tensor, "n n"],
    object_shape: tuple[int, int],
) -> Complex[Tensor, "oy ox"]:
    """Return the object made of the patches of every group; 1 where no patch lies.

    The likelihood of one group does not change with a constant phase over all its patches. These
    constants are found by turning each group's patches towards the mean of all, a few rounds.

    Parameters
    ----------
    patches : (group, c, n, n)
    corners_px : (group, c, 2)
        (row, column) of each patch's first pixel in the object.
    weights : (n, n)
        Positive weight of each patch pixel.
    object_shape
        (rows, columns) of the object.
    """
    side = patches.shape[-1]
    corners = corners_px.flatten(0, 1)
    indices = pixel_indices(corners, side, object_shape).unflatten(0, patches.shape[:2])
    total_weight = add_patches(weights.expand(len(corners), side, side), corners, object_shape)
    covered = total_weight > 0
    safe_weight = torch.where(covered, total_weight, torch.ones_like(total_weight))
    weighted = patches * weights
    for _ in range(SYNCHRONISATION_ROUNDS):
        mean = add_patches(weighted.flatten(0, 1), corners, object_shape) / safe_weight
        under = mean.flatten()[indices.flatten(1)].unflatten(1, patches.shape[1:])
        agreement = (weighted.conj() * under).sum(dim=(1, 2, 3))
        weighted = (
            weighted
            * torch.polar(torch.ones_like(agreement.real), agreement.angle())[:, None, None, None]
        )
    mean = add_patches(weighted.flatten(0, 1), corners, object_shape) / safe_weight
    return torch.where(covered, mean, torch.ones_like(mean))
