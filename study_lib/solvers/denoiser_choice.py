"""Which denoiser, and how strong, by counts that the object was not made from; never by a truth."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from types import MappingProxyType
from typing import Any

import numpy as np
import torch
from jaxtyping import Complex, Float

from study_lib.physics.forward import illumination
from study_lib.physics.likelihood import likelihood_judge
from study_lib.physics.measurement import Box, Measurement, box_of
from study_lib.solvers.denoising import denoised, noise_level

STRENGTHS: Mapping[str, tuple[float, ...]] = MappingProxyType(
    {
        "gaussian": (0.5, 0.7, 1.0, 1.4, 2.0, 2.8, 4.0),
        "total_variation": (0.1, 0.15, 0.22, 0.33, 0.5, 0.75, 1.1, 1.7, 2.5),
        "non_local_means": (0.15, 0.22, 0.33, 0.5, 0.75, 1.1, 1.7, 2.5),
    }
)
NONE = "none"


@dataclass(frozen=True)
class LitPart:
    """What a measurement lights; found by a pass over the scan, so keep it to denoise often.

    ``box`` holds every patch, ``light`` (oy, ox) are photons on each object pixel, ``noise`` is the
    level of the noise that they leave in it.
    """

    box: Box
    light: Float[np.ndarray, "oy ox"]
    noise: float

    @classmethod
    def of(cls, measurement: Measurement) -> "LitPart":
        """Return what a measurement lights."""
        light = light_of(measurement)
        return cls(box_of(measurement), light, noise_level(light))


@dataclass(frozen=True)
class Candidate:
    """A denoiser and what held-out counts say of it.

    ``gain_nats`` is how much likelier they are per pattern than without denoising, on average over
    the patterns, ``standard_error_nats`` that of this mean of differences.
    """

    family: str
    strength: float
    gain_nats: float
    standard_error_nats: float


@dataclass(frozen=True)
class DenoiserChoice:
    """The chosen denoiser, the best strength of each family, and everything that was tried."""

    family: str
    strength: float
    of_family: Mapping[str, float]
    tried: tuple[Candidate, ...]

    def record(self) -> dict[str, Any]:
        """Return the choice as plain data."""
        return asdict(self)

    @classmethod
    def from_record(cls, content: Mapping[str, Any]) -> "DenoiserChoice":
        """Return the choice that :meth:`record` was made from."""
        tried = tuple(Candidate(**candidate) for candidate in content["tried"])
        return cls(content["family"], content["strength"], dict(content["of_family"]), tried)

    def applied(
        self, object_: Complex[np.ndarray, "oy ox"], lit: LitPart
    ) -> Complex[np.ndarray, "oy ox"]:
        """Return an object denoised where a measurement lights it."""
        return denoised_where_lit(object_, lit, self.family, self.strength)


def light_of(measurement: Measurement) -> Float[np.ndarray, "oy ox"]:
    """Return the photons on each object pixel over the whole scan."""
    light: np.ndarray = illumination(
        torch.from_numpy(measurement.probe),
        torch.from_numpy(measurement.positions_px),
        measurement.object_shape,
    ).numpy()
    return light


def denoised_where_lit(
    object_: Complex[np.ndarray, "oy ox"], lit: LitPart, family: str, strength: float
) -> Complex[np.ndarray, "oy ox"]:
    """Return an object denoised in the box of its patches; beyond it nothing is known."""
    result = object_.copy()
    result[lit.box] = denoised(object_[lit.box], family, strength, lit.noise)
    return result


def choose_denoiser(
    object_: Complex[np.ndarray, "oy ox"], lit: LitPart, held_out: Measurement
) -> DenoiserChoice:
    """Return the denoiser under which held-out counts are likeliest; none, if none helps.

    Parameters
    ----------
    object_ : (oy, ox)
        Made from one part of the counts, :func:`study_lib.physics.measurement.thinned`.
    lit
        What that part lights.
    held_out
        The other, independent part of the same counts.
    """
    judge = likelihood_judge(held_out)
    plain = judge(object_)
    losses = {
        (family, strength): judge(denoised_where_lit(object_, lit, family, strength))
        for family, strengths in STRENGTHS.items()
        for strength in strengths
    }
    return chosen(plain, losses)


def chosen(
    plain: Float[np.ndarray, " scan"],
    losses: Mapping[tuple[str, float], Float[np.ndarray, " scan"]],
    *,
    least: bool = False,
) -> DenoiserChoice:
    """Return the choice by losses pattern by pattern, without denoising and with each candidate.

    Of each family the strongest that is not worse than its best by more than the standard error
    of their difference (the rule of one standard error of Breiman et al., Classification and
    Regression Trees (1984), section 3.4.3): likelihood hardly sees what little noise is left. Then
    the family with the largest gain, if that is larger than its own standard error; with `least`
    even if it is a loss, by no more than its own.
    """
    tried = tuple(
        Candidate(family, strength, *_mean_and_error(plain - loss))
        for (family, strength), loss in losses.items()
    )
    of_family = {
        family: _strongest_good_one([one for one in tried if one.family == family], losses)
        for family in dict.fromkeys(one.family for one in tried)
    }
    best = max(of_family.values(), key=lambda one: one.gain_nats)
    helps = best.gain_nats > best.standard_error_nats * (-1 if least else 1)
    return DenoiserChoice(
        family=best.family if helps else NONE,
        strength=best.strength if helps else 0.0,
        of_family={family: one.strength for family, one in of_family.items()},
        tried=tried,
    )


def _strongest_good_one(
    candidates: Sequence[Candidate],
    losses: Mapping[tuple[str, float], Float[np.ndarray, " scan"]],
) -> Candidate:
    best = max(candidates, key=lambda one: one.gain_nats)
    for one in sorted(candidates, key=lambda one: one.strength, reverse=True):
        worse, error = _mean_and_error(
            losses[one.family, one.strength] - losses[best.family, best.strength]
        )
        if worse <= error:
            return one
    return best


def _mean_and_error(differences: Float[np.ndarray, " scan"]) -> tuple[float, float]:
    spread = float(differences.std(ddof=1)) if len(differences) > 1 else float("inf")
    return float(differences.mean()), spread / len(differences) ** 0.5
