"""Whether held-out counts are likelier under a network's object than under its base.

Gains of neighbouring patterns are not independent, for the patterns share pixels of the object.
Their standard error is that of whole blocks of the scan, drawn again and again (block bootstrap:
Künsch, Ann. Statist. 17, 1217 (1989), doi:10.1214/aos/1176347265), and by how many errors a gain
must exceed zero is Student's quantile for so few blocks.
"""

from dataclasses import dataclass

import numpy as np
from jaxtyping import Complex, Float, Int
from scipy.special import stdtrit

from study_lib.physics.probe import probe_diameter_px

POWER_SHARE = 0.9  # of the probe, within its width
BLOCK_WIDTHS = 2.0  # of the probe, in the side of a block
CONFIDENCE = 0.975
LEAST_ERRORS = 2.0
DRAWS = 1000


@dataclass(frozen=True)
class Trust:
    """How much likelier held-out counts are under the network than under its base, per pattern.

    ``blocks`` is how many parts of the scan the standard error is from; None: many.

    Examples
    --------
    >>> from study_lib.networks.thinned.trust import Trust
    >>> Trust(gain_nats=0.3, standard_error_nats=0.1).given
    True
    >>> Trust(gain_nats=0.3, standard_error_nats=0.1, blocks=3).given
    False
    """

    gain_nats: float
    standard_error_nats: float
    blocks: int | None = None

    @property
    def given(self) -> bool:
        """Whether the network is used; else its base is."""
        return self.gain_nats > errors_needed(self.blocks) * self.standard_error_nats

    @classmethod
    def of(
        cls,
        gains: Float[np.ndarray, " patterns"],
        positions_px: Float[np.ndarray, "patterns 2"],
        probe_px: float,
    ) -> "Trust":
        """Return the trust that gains of single patterns give.

        Parameters
        ----------
        gains
            By how many nats the counts of each pattern are likelier.
        positions_px : (patterns, 2)
            Where each was taken.
        probe_px
            The width of the probe, :func:`width_px`; blocks are twice as wide. A scan that is a
            single block gives no trust.

        Examples
        --------
        Four patterns at each place say no more than one would:

        >>> import numpy as np
        >>> from study_lib.networks.thinned.trust import Trust
        >>> places = 10.0 * np.indices((6, 6)).reshape(2, -1).T
        >>> gains = np.random.default_rng(1).standard_normal(36)
        >>> once = Trust.of(gains, places, 5.0)
        >>> often = Trust.of(np.repeat(gains, 4), np.repeat(places, 4, axis=0), 5.0)
        >>> bool(np.isclose(once.standard_error_nats, often.standard_error_nats))
        True
        """
        block = blocks_of(positions_px, BLOCK_WIDTHS * probe_px)
        return cls(float(gains.mean()), block_error(gains, block), int(block.max()) + 1)


SURE = Trust(gain_nats=1.0, standard_error_nats=0.0)  # to see a network as if it were trusted


def errors_needed(blocks: int | None) -> float:
    """Return by how many standard errors a gain must exceed zero: two, or more of few blocks.

    >>> from study_lib.networks.thinned.trust import errors_needed
    >>> errors_needed(None), round(errors_needed(8), 2), errors_needed(1)
    (2.0, 2.36, inf)
    """
    if blocks is None:
        return LEAST_ERRORS
    if blocks < 2:
        return float("inf")
    return max(LEAST_ERRORS, float(stdtrit(blocks - 1, CONFIDENCE)))


def width_px(probe: Complex[np.ndarray, "*modes n n"]) -> float:
    """Return the width of a probe, beyond which patterns share little light."""
    return probe_diameter_px(probe, POWER_SHARE)


def blocks_of(
    positions_px: Float[np.ndarray, "patterns 2"], block_px: float
) -> Int[np.ndarray, " patterns"]:
    """Return the block of each position, counted from 0: a square of this side."""
    places = np.floor((positions_px - positions_px.min(axis=0)) / block_px).astype(int)
    _, block = np.unique(places, axis=0, return_inverse=True)
    return block.reshape(-1)


def block_error(
    values: Float[np.ndarray, " patterns"], block: Int[np.ndarray, " patterns"]
) -> float:
    """Return the standard error of a mean by drawing whole blocks.

    Of a single block there is none: then it is the largest value, which no mean exceeds.

    Parameters
    ----------
    values
        Dependent within a block, independent between blocks.
    block
        Of each, counted from 0.
    """
    count = int(block.max()) + 1
    if count < 2:
        return float(np.abs(values).max())
    sums, sizes = np.bincount(block, values), np.bincount(block)
    drawn = np.random.default_rng(count).integers(count, size=(DRAWS, count))
    means = sums[drawn].sum(axis=1) / sizes[drawn].sum(axis=1)
    # Draws of n blocks scatter about their own mean, with (n - 1) / n of the variance.
    return float(means.std(ddof=1) * np.sqrt(count / (count - 1)))
