"""How badly object patches explain counts: one region per group, probe, FFT, and a measure.

The patches of a group are merged into the one region they share; every pattern of the group has to
be explained by it. Both measures are 1/2 per pixel where noise alone is left and photons are many.
"""

from collections.abc import Callable, Mapping
from types import MappingProxyType

import torch
from jaxtyping import Bool, Complex, Float, Int
from torch import Tensor

from study_lib.physics.forward import expected_counts

MERGE_FLOOR = 1e-3
COUNT_FLOOR = 1e-6  # photons per pixel below which nothing is told apart; keeps gradients finite


def merge_groups(
    patches: Complex[Tensor, "batch c n n"],
    corners_px: Int[Tensor, "batch c 2"],
    weights: Float[Tensor, "n n"],
) -> Complex[Tensor, "batch c n n"]:
    """Return the patches cut anew from the region that each group shares.

    The region is the weighted mean of the patches where they lie. A single patch is its own region.

    Parameters
    ----------
    patches : (batch, c, n, n)
    corners_px : (batch, c, 2)
        (row, column) of each patch's first pixel.
    weights : (n, n)
        Positive weight of each patch pixel, :func:`merge_weights`.
    """
    batch, channels, side, _ = patches.shape
    if channels == 1:
        return patches
    local = corners_px - corners_px.amin(dim=1, keepdim=True)
    region = side + int(local.max())
    offsets = torch.arange(side, device=patches.device)
    rows, columns = local[..., 0, None] + offsets, local[..., 1, None] + offsets
    first = torch.arange(batch, device=patches.device)[:, None, None, None] * region**2
    indices = (first + rows[..., :, None] * region + columns[..., None, :]).flatten()
    zeros = patches.new_zeros(batch * region**2)
    total = zeros.index_add(0, indices, (patches * weights).flatten())
    spread = weights.expand(patches.shape).flatten()
    weight = zeros.real.index_add(0, indices, spread)
    return (total[indices] / weight[indices]).reshape(patches.shape)


def merge_weights(probe: Complex[Tensor, "n n"]) -> Float[Tensor, "n n"]:
    """Return the probe's intensity with a small floor: how well each patch pixel is known."""
    power = probe.abs() ** 2
    return power + MERGE_FLOOR * power.max()


def half_deviance(
    expected: Float[Tensor, "*batch n n"],
    counts: Float[Tensor, "*batch n n"],
    bad_pixels: Bool[Tensor, "n n"] | None = None,
) -> Float[Tensor, ""]:
    """Return the mean Poisson negative log-likelihood per pixel above that of a perfect model.

    ``lambda - n - n log(lambda / n)``; its gradient is the likelihood's. Where many photons fall
    on every pixel, noise alone gives 1/2. Bad pixels count neither in the sum nor in the mean.
    """
    ratio = torch.xlogy(counts, counts) - torch.xlogy(counts, expected + COUNT_FLOOR)
    terms = expected - counts + ratio
    return _mean_of_good(terms, bad_pixels)


def amplitude_error(
    expected: Float[Tensor, "*batch n n"],
    counts: Float[Tensor, "*batch n n"],
    bad_pixels: Bool[Tensor, "n n"] | None = None,
) -> Float[Tensor, ""]:
    """Return twice the mean squared difference of the amplitudes, ``2 (sqrt(lambda) - sqrt(n))^2``.

    The root of a Poisson count has the variance 1/4, whatever its mean; noise alone gives 1/2 here
    too. Bad pixels count neither in the sum nor in the mean.
    """
    terms = 2 * (torch.sqrt(expected + COUNT_FLOOR) - torch.sqrt(counts)) ** 2
    return _mean_of_good(terms, bad_pixels)


def _mean_of_good(
    terms: Float[Tensor, "*batch n n"], bad_pixels: Bool[Tensor, "n n"] | None
) -> Float[Tensor, ""]:
    if bad_pixels is None:
        return terms.mean()
    return terms.masked_fill(bad_pixels, 0).mean() / (~bad_pixels).float().mean()


def group_expected_counts(
    patches: Complex[Tensor, "batch c n n"],
    probes: Complex[Tensor, "batch c n n"],
    corners_px: Int[Tensor, "batch c 2"],
    weights: Float[Tensor, "n n"],
) -> Float[Tensor, "batch c n n"]:
    """Return the photons that the regions of the groups predict, through probe and FFT."""
    return expected_counts(probes * merge_groups(patches, corners_px, weights))


Measure = Callable[[Tensor, Tensor, Tensor | None], Tensor]
MEASURES: Mapping[str, Measure] = MappingProxyType(
    {"poisson": half_deviance, "amplitude": amplitude_error}
)
