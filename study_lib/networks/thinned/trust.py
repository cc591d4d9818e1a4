"""Whether held-out counts are likelier under a network's object than under its base.

Gains of neighbouring patterns are not independent, for the patterns share pixels of the object.
Their standard error is that of whole blocks of the scan, drawn again and again (block bootstrap:
Künsch, Ann. Statist. 17, 1217 (1989), doi:10.1214/aos/1176347265).
"""

from dataclasses import dataclass

import numpy as np
from jaxtyping import Complex, Float, Int

from study_lib.physics.probe import probe_diameter_px

POWER_SHARE = 0.9  # of the probe, within its width
STANDARD_ERRORS = 2.0  # by which the gain must exceed zero
DRAWS = 1000


@dataclass(frozen=True)
class Trust:
    """How much likelier held-out counts are under the network than under its base, per pattern.

    Examples
    --------
    >>> from study_lib.networks.thinned.trust import Trust
    >>> Trust(gain_nats=0.3, standard_error_nats=0.1).given
    True
    >>> Trust(gain_nats=0.3, standard_error_nats=0.2).given
    False
    """

    gain_nats: float
    standard_error_nats: float

    @property
    def given(self) -> bool:
        """Whether the network is used; else its base is."""
        return self.gain_nats > STANDARD_ERRORS * self.standard_error_nats

    @classmethod
    def of(
        cls,
        gains: Float[np.ndarray, " patterns"],
        positions_px: Float[np.ndarray, "patterns 2"],
        block_px: float,
    ) -> "Trust":
        """Return the trust that gains of single patterns give.

        Parameters
        ----------
        gains
            By how many nats the counts of each pattern are likelier.
        positions_px : (patterns, 2)
            Where each was taken.
        block_px
            Side of the blocks that are drawn: the width of the probe, beyond which patterns share
            little light. Of a scan that is a single block there is no error: it gives no trust.

        Examples
        --------
        Four patterns at each place say no more than one would:

        >>> import numpy as np
        >>> from study_lib.networks.thinned.trust import Trust
        >>> places = 10.0 * np.indices((6, 6)).reshape(2, -1).T
        >>> gains = np.random.default_rng(1).standard_normal(36)
        >>> once = Trust.of(gains, places, 10.0)
        >>> often = Trust.of(np.repeat(gains, 4), np.repeat(places, 4, axis=0), 10.0)
        >>> bool(np.isclose(once.standard_error_nats, often.standard_error_nats))
        True
        """
        return cls(float(gains.mean()), block_error(gains, blocks_of(positions_px, block_px)))


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
    """Return the standard error of a mean by drawing whole blocks; infinite if there is one alone.

    Parameters
    ----------
    values
        Dependent within a block, independent between blocks.
    block
        Of each, counted from 0.
    """
    count = int(block.max()) + 1
    if count < 2:
        return float("inf")
    sums, sizes = np.bincount(block, values), np.bincount(block)
    drawn = np.random.default_rng(count).integers(count, size=(DRAWS, count))
    means = sums[drawn].sum(axis=1) / sizes[drawn].sum(axis=1)
    # Draws of n blocks scatter about their own mean, with (n - 1) / n of the variance.
    return float(means.std(ddof=1) * np.sqrt(count / (count - 1)))
