"""How badly object patches explain counts: one region per group, probe, FFT, and a measure.

The patches of a group are merged into the one region they share; every pattern of the group has to
be explained by it. Both measures are 1/2 per pixel where noise alone is left and photons are many.
"""

from collections.abc import Callable, Mapping
from types import MappingProxyType

import torch
from jaxtyping import Bool, Float
from torch import Tensor

COUNT_FLOOR = 1e-6  # photons per pixel below which nothing is told apart; keeps gradients finite


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


Measure = Callable[[Tensor, Tensor, Tensor | None], Tensor]
MEASURES: Mapping[str, Measure] = MappingProxyType(
    {"poisson": half_deviance, "amplitude": amplitude_error}
)
