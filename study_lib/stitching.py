"""Object patches to one object: constant phases brought into agreement, then a weighted mean."""

from collections.abc import Callable

import numpy as np
import torch
from jaxtyping import Complex, Float, Int
from scipy.sparse.linalg import LinearOperator, eigsh
from torch import Tensor

from study_lib.forward import add_patches, pixel_indices

EIGENVECTOR_TOLERANCE = 1e-6
FEW_GROUPS = 3


def stitch(
    patches: Complex[Tensor, "group c n n"],
    corners_px: Int[Tensor, "group c 2"],
    weights: Float[Tensor, "n n"],
    object_shape: tuple[int, int],
) -> Complex[Tensor, "oy ox"]:
    """Return the object made of the patches of every group; 1 where no patch lies.

    The likelihood of one group does not change with a constant phase over all its patches. These
    constants are taken from the leading eigenvector of the agreement between groups, the matrix of
    the products of their patches where they overlap: angular synchronisation (Singer, Appl. Comput.
    Harmon. Anal. 30, 20 (2011), doi:10.1016/j.acha.2010.02.001). It settles slow phase over the
    whole field at once, where turning patch after patch towards the mean takes hundreds of rounds.

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
    indices = pixel_indices(corners, side, object_shape).flatten()
    total_weight = add_patches(weights.expand(len(corners), side, side), corners, object_shape)
    covered = total_weight > 0
    safe_weight = torch.where(covered, total_weight, torch.ones_like(total_weight))
    weighted = patches * weights

    def mean_of(turns: Complex[Tensor, " group"]) -> Complex[Tensor, "oy ox"]:
        turned = weighted * turns[:, None, None, None]
        return add_patches(turned.flatten(0, 1), corners, object_shape) / safe_weight

    # Without it the eigenvector keeps to the brightest part, and elsewhere no phase is found.
    root_power = torch.sqrt((weighted.conj() * patches).real.sum(dim=(1, 2, 3))).numpy()
    root_power = np.maximum(root_power, np.finfo(np.float32).tiny)

    def agreement(turns: np.ndarray) -> np.ndarray:
        mean = mean_of(torch.from_numpy(turns.ravel() / root_power).to(patches.dtype))
        under = mean.flatten()[indices].reshape(patches.shape)
        products = (weighted.conj() * under).sum(dim=(1, 2, 3)).numpy()
        agreed: np.ndarray = products / root_power
        return agreed

    turns = _common_phases(agreement, len(patches))
    mean = mean_of(torch.from_numpy(turns).to(patches.dtype))
    return torch.where(covered, mean, torch.ones_like(mean))


def _common_phases(agreement: Callable[[np.ndarray], np.ndarray], count: int) -> np.ndarray:
    """Return the unit factors (group,) that bring all groups to one phase; their sum is real."""
    if count < 3:  # too few for the Lanczos iteration
        matrix = np.stack([agreement(column) for column in np.eye(count)], axis=1)
        leading = np.linalg.eigh(matrix)[1][:, -1]
    else:
        operator = LinearOperator((count, count), matvec=agreement, dtype=np.complex64)
        start = np.ones(count, np.complex64)
        leading = eigsh(operator, k=1, v0=start, tol=EIGENVECTOR_TOLERANCE)[1][:, 0]
    factors = np.exp(1j * np.angle(leading))
    factors *= np.exp(-1j * np.angle(factors.sum()))
    phases: np.ndarray = factors.astype(np.complex64)
    return phases
