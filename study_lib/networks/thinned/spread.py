"""The error bar of an ensemble's phase: a parametric bootstrap, and the scatter of its members."""

from dataclasses import replace

import numpy as np
from jaxtyping import Bool, Float
from scipy.ndimage import gaussian_filter

from study_lib.networks.thinned.ensemble import ThinnedEnsemble, ThinnedResult, reconstruct_thinned
from study_lib.networks.thinned.trust import Trust
from study_lib.physics.likelihood import expected_in_parts
from study_lib.physics.measurement import Measurement
from study_lib.scores.alignment import remove_ambiguities
from study_lib.scores.scoring import light_of
from study_lib.solvers.denoising import LIT_SHARE

NEIGHBOURS_PX = 2.0  # a few draws say little of one pixel, with those of its neighbours enough


def redrawn(
    measurement: Measurement, found: ThinnedResult, random: np.random.Generator
) -> Measurement:
    """Return a measurement with other counts: as Poisson noise draws them if its object were true.

    Parameters
    ----------
    measurement
        Its positions, probe, background and masks stay.
    found
        Whose object (oy, ox) gives the mean counts.
    random
        Draws.
    """
    amplitudes = np.empty_like(measurement.amplitudes)
    for part, rates in expected_in_parts(
        found.object_,
        measurement.probe,
        measurement.positions_px,
        background=measurement.background,
    ):
        amplitudes[part] = np.sqrt(random.poisson(rates.double().numpy()))
    if measurement.bad_pixels is not None:
        amplitudes *= ~measurement.bad_pixels
    return replace(measurement, amplitudes=amplitudes)


def phase_spread(
    ensemble: ThinnedEnsemble,
    measurement: Measurement,
    found: ThinnedResult,
    trust: Trust,
    random: np.random.Generator,
) -> Float[np.ndarray, "oy ox"]:
    """Return the standard deviation of the phase error of an ensemble's object, by its own account.

    A parametric bootstrap: counts are drawn again from the object that was found, and what the
    ensemble makes of them is held against it, so that the bias of smoothing counts as well as the
    scatter of the noise. That bias is too small, for the object drawn from is smooth already.
    Added is the scatter of the members' mean. Weights, trust, base and smoothing are as they are:
    what other noise would make of these is in none of it. Squares are averaged over neighbours.

    Parameters
    ----------
    ensemble, measurement
        As for :func:`study_lib.networks.thinned.ensemble.reconstruct_thinned`.
    found
        What it returned.
    trust
        What it was given: without trust it is the spread of the base.
    random
        Draws the counts, as often as the design has ``thinnings``.

    Returns
    -------
    (oy, ox) in rad, zero where no light falls.

    References
    ----------
    Efron and Tibshirani, An Introduction to the Bootstrap (1993), sections 6.5 and 10.2
    """
    light = light_of(measurement)
    well_lit = light > LIT_SHARE * light.max()
    squares = np.zeros(light.shape)
    for _ in range(ensemble.design.thinnings):
        again = reconstruct_thinned(ensemble, redrawn(measurement, found, random), trust=trust)
        aligned = remove_ambiguities(again.object_, found.object_, well_lit.astype(float)).object_
        squares += np.angle(aligned * found.object_.conj()) ** 2
    of_members = found.members_rad.astype(np.float64) ** 2 / len(ensemble.members)
    variance = squares / ensemble.design.thinnings + of_members
    variance = np.where(well_lit, _mean_of_neighbours(variance, well_lit), variance)
    spread: np.ndarray = np.sqrt(np.where(light > 0, variance, 0)).astype(np.float32)
    return spread


def _mean_of_neighbours(
    values: Float[np.ndarray, "y x"], chosen: Bool[np.ndarray, "y x"]
) -> Float[np.ndarray, "y x"]:
    """Return the mean of the chosen pixels' values under a Gaussian window around each of them."""
    share = gaussian_filter(chosen.astype(float), NEIGHBOURS_PX)
    mean = gaussian_filter(np.where(chosen, values, 0), NEIGHBOURS_PX)
    return np.divide(mean, share, out=np.zeros_like(mean), where=chosen)
