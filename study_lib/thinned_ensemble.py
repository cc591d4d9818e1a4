"""A trained `pinn-thinned`: its members, what they are to be trusted with, and their object."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Complex, Float, Int
from torch import Tensor

from study_lib.denoiser_choice import (
    NONE,
    STRENGTHS,
    Box,
    Candidate,
    DenoiserChoice,
    box_of,
    chosen,
    likelihood_judge,
    light_of,
)
from study_lib.denoising import denoised, noise_level
from study_lib.measurement import Measurement
from study_lib.thinned_design import ThinnedDesign
from study_lib.thinned_input import ThinnedChoices, ThinnedInput, thinned_input
from study_lib.thinned_network import MixingNetwork
from study_lib.thinned_sets import Scene, ThinnedSet
from study_lib.thinning import thinned

SMOOTHED_BY = ("total_variation", "non_local_means")


@dataclass(frozen=True)
class Smoothing:
    """What is left to smooth of the network's object: likelihood hardly sees faint texture."""

    family: str
    strength: float
    tried: tuple[Candidate, ...]

    @classmethod
    def none(cls) -> "Smoothing":
        """Return no smoothing."""
        return cls(NONE, 0.0, ())

    @classmethod
    def chosen(
        cls,
        members: Sequence[MixingNetwork],
        shown: ThinnedInput,
        measurement: Measurement,
        held_out: Measurement,
        box: Box,
    ) -> "Smoothing":
        """Return the strongest smoothing that held-out counts do not refuse.

        Parameters
        ----------
        members
            Trained networks.
        shown
            Input made of `measurement`.
        measurement, held_out
            Two independent parts of the same counts.
        box
            Where the input lies.
        """
        judge, noise = likelihood_judge(held_out), noise_level(light_of(measurement))
        mixed = mean_object(members, shown)
        whole: np.ndarray = np.ones(measurement.object_shape, np.complex64)

        def losses(family: str, strength: float) -> Float[np.ndarray, " scan"]:
            whole[box] = denoised(mixed, family, strength, noise)
            return judge(whole)

        plain = losses(NONE, 0.0)
        tried = {
            (family, strength): losses(family, strength)
            for family in SMOOTHED_BY
            for strength in STRENGTHS[family]
        }
        best: DenoiserChoice = chosen(plain, tried, least=True)
        return cls(best.family, best.strength, best.tried)


@dataclass(frozen=True)
class Trust:
    """Whether held-out counts of the validation strip are likelier than under the base.

    By more than a standard error of the paired difference, per pattern.
    """

    gain_nats: float
    standard_error_nats: float

    @property
    def given(self) -> bool:
        """Whether the network is used; else its base is."""
        return self.gain_nats > self.standard_error_nats


@dataclass(frozen=True)
class ThinnedEnsemble:
    """Everything learned from a train split."""

    members: tuple[MixingNetwork, ...]
    choices: ThinnedChoices
    smoothing: Smoothing
    trust: Trust
    design: ThinnedDesign
    side_px: int
    training_cpu_s: float
    measurement_sha256: str = ""


@dataclass(frozen=True)
class ThinnedResult:
    """What the ensemble makes of a measurement.

    ``object_`` and ``base`` (oy, ox) in the frame of the positions, one where no light falls;
    ``members_rad`` and ``photons_rad`` (oy, ox) are standard deviations of the phase over the
    members and over what the photons happened to be, zero where no light falls.
    """

    object_: Complex[np.ndarray, "oy ox"]
    base: Complex[np.ndarray, "oy ox"]
    members_rad: Float[np.ndarray, "oy ox"]
    photons_rad: Float[np.ndarray, "oy ox"]

    @property
    def phase_std_rad(self) -> Float[np.ndarray, "oy ox"]:
        """Both spreads together."""
        total: np.ndarray = np.hypot(self.members_rad, self.photons_rad)
        return total


def mean_object(
    members: Sequence[MixingNetwork], shown: ThinnedInput
) -> Complex[np.ndarray, "y x"]:
    """Return the mean object of the members in the box of an input."""
    with torch.no_grad():
        objects = torch.stack([member.object_of(shown) for member in members])
    mean: np.ndarray = objects.mean(dim=0).numpy()
    return mean


def trust_of(
    members: Sequence[MixingNetwork],
    smoothing: Smoothing,
    sets: Sequence[ThinnedSet],
    scene: Scene,
    index: Int[Tensor, " patterns"],
) -> Trust:
    """Return how much likelier patterns are under the members than under the base.

    Parameters
    ----------
    members
        Networks that have never learned from these patterns.
    smoothing
        Of their mean.
    sets
        Thinnings; a pattern's gain is its mean over them.
    scene, index
        Which patterns.
    """
    gains = []
    with torch.no_grad():
        for one in sets:
            mixed = mean_object(members, one.shown)
            if smoothing.family != NONE:
                mixed = denoised(mixed, smoothing.family, smoothing.strength, one.shown.noise)
            base = one.shown.phasor * one.shown.candidates[one.shown.base]
            gains.append(
                one.deviance_nats(base, scene, index)
                - one.deviance_nats(torch.from_numpy(mixed), scene, index)
            )
    mean = torch.stack(gains).mean(dim=0).double()
    error = float(mean.std()) / len(mean) ** 0.5
    return Trust(float(mean.mean()), error)


def reconstruct_thinned(
    ensemble: ThinnedEnsemble,
    measurement: Measurement,
    *,
    solved: Complex[np.ndarray, "oy ox"] | None = None,
    random: np.random.Generator | None = None,
) -> ThinnedResult:
    """Return the object that the ensemble makes of a measurement; the base where it is not trusted.

    Parameters
    ----------
    ensemble
        Learned from another measurement with the same probe.
    measurement
        Patterns, positions, probe.
    solved : (oy, ox)
        The solver's object of this measurement, if it has been made.
    random
        Draws the thinnings behind the spread over photons; none: that spread is left at zero.
    """
    box = box_of(measurement)

    def found(one: Measurement, start: np.ndarray | None) -> list[np.ndarray]:
        shown = thinned_input(one, ensemble.choices, box, start)
        base = (shown.phasor * shown.candidates[shown.base]).numpy()
        if not ensemble.trust.given:
            return [base, base]
        with torch.no_grad():
            each = [member.object_of(shown).numpy() for member in ensemble.members]
        smoothing = ensemble.smoothing
        return [base, *(denoised(part, smoothing.family, smoothing.strength, shown.noise)
                        for part in [np.mean(each, axis=0), *each])]

    base, mean, *members = found(measurement, solved)
    spread_members = _phase_std(members, mean) if members else np.zeros(mean.shape)
    spread_photons = np.zeros(mean.shape)
    if random is not None:
        share = ensemble.design.judged_share
        parts = [
            found(thinned(measurement, share, random)[0], None)[1]
            for _ in range(ensemble.design.thinnings)
        ]
        # Given the counts, a part of them with share s scatters by (1 - s) / s of their variance.
        spread_photons = _phase_std(parts, np.mean(parts, axis=0)) * (share / (1 - share)) ** 0.5
    lit = light_of(measurement)[box] > 0
    return ThinnedResult(
        object_=_pasted(np.where(lit, mean, 1), box, measurement.object_shape, np.complex64, 1),
        base=_pasted(np.where(lit, base, 1), box, measurement.object_shape, np.complex64, 1),
        members_rad=_pasted(spread_members * lit, box, measurement.object_shape, np.float32, 0),
        photons_rad=_pasted(spread_photons * lit, box, measurement.object_shape, np.float32, 0),
    )


def _phase_std(
    objects: Sequence[Complex[np.ndarray, "y x"]], mean: Complex[np.ndarray, "y x"]
) -> Float[np.ndarray, "y x"]:
    """Return the standard deviation of the phase, pixel by pixel, without each one's global phase."""
    phases = []
    for object_ in objects:
        ratio = object_ * mean.conj()
        phases.append(np.angle(ratio * np.exp(-1j * np.angle(ratio.sum()))))
    spread: np.ndarray = np.std(phases, axis=0, ddof=1 if len(phases) > 1 else 0)
    return spread


def _pasted(
    part: np.ndarray, box: Box, shape: tuple[int, int], dtype: type, beyond: float
) -> np.ndarray:
    whole: np.ndarray = np.full(shape, beyond, dtype)
    whole[box] = part
    return whole
