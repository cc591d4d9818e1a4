"""Two independent measurements of one: every counted photon is given to one of two detectors.

If the counts of a pixel are Poisson of rate I, those kept with probability s are Poisson of rate
s I, the others of rate (1 - s) I, and both are independent: what is made from the first part can be
judged, or taught, by the second, without any truth.
"""

from dataclasses import replace

import numpy as np
from jaxtyping import Float, Int

from study_lib.errors import InputError
from study_lib.physics.measurement import Measurement


def split_counts(
    counts: Float[np.ndarray, "*shape"], share: float, random: np.random.Generator
) -> tuple[Float[np.ndarray, "*shape"], Float[np.ndarray, "*shape"]]:
    """Return the photons that are kept, each with probability `share`, and the others.

    Their sum is the counts, exactly.

    Parameters
    ----------
    counts
        Whole photons per detector pixel.
    share
        Between 0 and 1, both left out.
    random
        Draws.

    Raises
    ------
    InputError
        If the share is not between 0 and 1.

    References
    ----------
    Splitting of a Poisson process: Kingman, Poisson Processes (1993), section 5.1. To judge without
    truth: Leiner et al., J. Am. Stat. Assoc. 120, 135 (2025), doi:10.1080/01621459.2023.2270748. To
    teach: Lehtinen et al., ICML 2018, arXiv:1803.04189
    """
    if not 0 < share < 1:
        raise InputError(f"share {share} of the photons; choose one between 0 and 1")
    kept = np.zeros_like(counts)
    lit = counts > 0  # most pixels are dark
    kept[lit] = random.binomial(counts[lit].astype(np.int64), share)
    return kept, counts - kept


def thinned(
    measurement: Measurement, share: float, random: np.random.Generator
) -> tuple[Measurement, Measurement]:
    """Return the measurement as a share of its photons tells it, and as the others do.

    Each has the probe that belongs to its photons, so that the object is the same.
    """
    kept, rest = split_counts(measurement.counts, share, random)
    return _weaker(measurement, kept, share), _weaker(measurement, rest, 1 - share)


def at_positions(measurement: Measurement, index: Int[np.ndarray, " kept"]) -> Measurement:
    """Return the patterns of some scan positions, each a group by itself."""
    return replace(
        measurement,
        amplitudes=measurement.amplitudes[index],
        positions_px=measurement.positions_px[index],
        scan_index=measurement.scan_index[index],
        groups=np.arange(len(index), dtype=np.int64)[:, None],
    )


def _weaker(measurement: Measurement, counts: np.ndarray, share: float) -> Measurement:
    probe = (measurement.probe * np.sqrt(share)).astype(measurement.probe.dtype)
    return replace(measurement, amplitudes=np.sqrt(counts), probe=probe)
