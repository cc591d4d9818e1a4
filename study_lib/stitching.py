"""Object patches to one object: constant phases brought into agreement, then a weighted mean."""

import torch
from jaxtyping import Complex, Float, Int
from torch import Tensor

from study_lib.forward import add_patches, pixel_indices

SYNCHRONISATION_ROUNDS = 2


def stitch(
    patches: Complex[Tensor, "group c n n"],
    corners_px: Int[Tensor, "group c 2"],
    weights: Float[Tensor, "n n"],
    object_shape: tuple[int, int],
) -> Complex[Tensor, "oy ox"]:
    """Return the object made of the patches of every group; 1 where no patch lies.

    The likelihood of one group does not change with a constant phase over all its patches. These
    constants are found by turning each group's patches towards those of the groups nearer to the
    middle, one by one, and then towards the mean of all, a few rounds.

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
    indices = pixel_indices(corners, side, object_shape).reshape(len(patches), -1)
    total_weight = add_patches(weights.expand(len(corners), side, side), corners, object_shape)
    covered = total_weight > 0
    safe_weight = torch.where(covered, total_weight, torch.ones_like(total_weight))
    # Rounds alone carry a phase one patch further each; a large scan needs the way outwards first.
    weighted = _turned_outwards(patches * weights, corners_px, indices, object_shape)
    for _ in range(SYNCHRONISATION_ROUNDS):
        mean = add_patches(weighted.flatten(0, 1), corners, object_shape) / safe_weight
        under = mean.flatten()[indices].reshape(patches.shape)
        agreement = (weighted.conj() * under).sum(dim=(1, 2, 3))
        weighted = weighted * _direction(agreement)[:, None, None, None]
    mean = add_patches(weighted.flatten(0, 1), corners, object_shape) / safe_weight
    return torch.where(covered, mean, torch.ones_like(mean))


def _turned_outwards(
    weighted: Complex[Tensor, "group c n n"],
    corners_px: Int[Tensor, "group c 2"],
    indices: Int[Tensor, "group pixels"],
    object_shape: tuple[int, int],
) -> Complex[Tensor, "group c n n"]:
    """Return each group turned towards the sum of those before it, from the middle outwards."""
    places = corners_px.double().mean(dim=1)
    order = torch.linalg.vector_norm(places - places.mean(dim=0), dim=1).argsort()
    turned = weighted.flatten(1).clone()
    canvas = weighted.new_zeros(object_shape[0] * object_shape[1])
    for group in order.tolist():
        agreement = torch.vdot(turned[group], canvas[indices[group]])
        turned[group] *= _direction(agreement)
        canvas.index_add_(0, indices[group], turned[group])
    return turned.reshape(weighted.shape)


def _direction(values: Complex[Tensor, "..."]) -> Complex[Tensor, "..."]:
    """Return complex numbers of modulus 1 with the same phase; 1 for zero."""
    return torch.polar(torch.ones_like(values.real), values.angle())
