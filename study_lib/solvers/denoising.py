"""Classical denoising of a complex object: what any reconstruction gains without a network.

Real and imaginary part together, after a slow phase has been taken off that would turn the object
around the complex plane; it is put on again unchanged.
"""

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import asdict, dataclass
from types import MappingProxyType
from typing import Any

import numpy as np
import torch
from jaxtyping import Complex, Float
from scipy.ndimage import gaussian_filter, uniform_filter
from skimage.restoration import denoise_nl_means, denoise_tv_chambolle

from study_lib.physics.likelihood import likelihood_judge
from study_lib.physics.measurement import Box, Measurement, box_of
from study_lib.scores.scoring import light_of
from study_lib.solvers.block_matching import by_similar_blocks

SLOW_BOXES_PX = (27, 27, 29)  # odd, or they would shift; together a deviation of 14 px
PATCH_PX, SEARCH_PX = 5, 6  # of non-local means
TV_STEPS = 100
LIT_SHARE = 0.05  # of the brightest pixel's light, from which on a pixel tells of the noise
Parts = Float[np.ndarray, "y x 2"]


def _similar_blocks(parts: Parts, noise: float, **options: Any) -> Parts:
    image = torch.from_numpy(np.ascontiguousarray(np.moveaxis(parts, -1, 0), dtype=np.float32))
    return np.moveaxis(by_similar_blocks(image, noise, **options).numpy(), 0, -1)


FAMILIES: Mapping[str, Callable[[Parts, float], Parts]] = MappingProxyType(
    {
        "gaussian": lambda parts, width_px: gaussian_filter(parts, (width_px, width_px, 0)),
        "total_variation": lambda parts, weight: denoise_tv_chambolle(
            parts, weight, max_num_iter=TV_STEPS, channel_axis=-1
        ),
        "non_local_means": lambda parts, width: denoise_nl_means(
            parts, PATCH_PX, SEARCH_PX, h=width, fast_mode=True, channel_axis=-1
        ),
        "similar_blocks": _similar_blocks,
        # A third of the time, less well: for denoising again and again.
        "similar_blocks_once": lambda parts, noise: _similar_blocks(
            parts, noise, step_px=4, reach_px=6, group=8, again=False
        ),
    }
)


def slow_phasor(object_: Complex[np.ndarray, "y x"]) -> Complex[np.ndarray, "y x"]:
    """Return the phase of the smoothed object as numbers of modulus one."""
    smooth = _smoothed(object_.real) + 1j * _smoothed(object_.imag)
    modulus = np.abs(smooth)
    phasor = np.divide(smooth, modulus, out=np.ones_like(smooth), where=modulus > 0)
    return phasor.astype(object_.dtype)


def _smoothed(image: Float[np.ndarray, "y x"]) -> Float[np.ndarray, "y x"]:
    """Return an image smoothed by three boxes: nearly a Gaussian, in a fifth of its time."""
    for side_px in SLOW_BOXES_PX:
        image = uniform_filter(image, side_px)
    return image


def noise_level(light: Float[np.ndarray, "y x"]) -> float:
    """Return the standard deviation that photons leave in each part of a median lit pixel.

    ``1 / (2 sqrt(photons))``, as if each photon determined one pixel (Wei et al., Phys. Rev. A 102,
    043516 (2020), doi:10.1103/PhysRevA.102.043516): a scale for strengths, not a bound.

    Parameters
    ----------
    light : (y, x)
        Photons on each object pixel, :func:`study_lib.physics.forward.illumination`.
    """
    return float(0.5 / np.sqrt(np.median(light[light > LIT_SHARE * light.max()])))


def denoised(
    object_: Complex[np.ndarray, "y x"], family: str, strength: float, noise: float
) -> Complex[np.ndarray, "y x"]:
    """Return a denoised object.

    Parameters
    ----------
    object_ : (y, x)
        Complex transmission; crop it to what is lit.
    family
        ``gaussian``; ``total_variation`` (Chambolle, J. Math. Imaging Vis. 20, 89 (2004),
        doi:10.1023/B:JMIV.0000011325.36760.1e); ``non_local_means`` (Buades, Coll and Morel, CVPR
        2005, doi:10.1109/CVPR.2005.38); ``similar_blocks`` and ``similar_blocks_once``
        (:mod:`study_lib.solvers.block_matching`); or ``none``.
    strength
        Standard deviation in pixels; weight of the variation, h of the weights and the noise that
        blocks are taken to have, in units of the noise, so that they suit any dose; not used.
    noise
        From :func:`noise_level`.
    """
    if family == "none":
        return object_
    slow = slow_phasor(object_)
    flat = object_ * slow.conj()
    parts = np.stack([flat.real, flat.imag], axis=-1)
    absolute = strength if family == "gaussian" else strength * noise
    smooth = FAMILIES[family](parts, absolute)
    result: np.ndarray = (smooth[..., 0] + 1j * smooth[..., 1]) * slow
    return result.astype(object_.dtype)


# --- Which denoiser, and how strong, by counts held out; never by a truth

STRENGTHS: Mapping[str, tuple[float, ...]] = MappingProxyType(
    {
        "gaussian": (0.5, 0.7, 1.0, 1.4, 2.0, 2.8, 4.0),
        "total_variation": (0.1, 0.15, 0.22, 0.33, 0.5, 0.75, 1.1, 1.7, 2.5),
        "non_local_means": (0.15, 0.22, 0.33, 0.5, 0.75, 1.1, 1.7, 2.5),
        "similar_blocks": (0.25, 0.35, 0.5, 0.7, 1.0, 1.4, 2.0),
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

    @property
    def gain_nats(self) -> float:
        """How much likelier held-out counts are per pattern than without; 0 if none was chosen."""
        gains = {(one.family, one.strength): one.gain_nats for one in self.tried}
        return gains.get((self.family, self.strength), 0.0)

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


def denoised_where_lit(
    object_: Complex[np.ndarray, "oy ox"], lit: LitPart, family: str, strength: float
) -> Complex[np.ndarray, "oy ox"]:
    """Return an object denoised in the box of its patches; beyond it nothing is known."""
    result = object_.copy()
    result[lit.box] = denoised(object_[lit.box], family, strength, lit.noise)
    return result


def choose_denoiser(
    object_: Complex[np.ndarray, "oy ox"],
    lit: LitPart,
    held_out: Measurement,
    families: Collection[str] = tuple(STRENGTHS),
) -> DenoiserChoice:
    """Return the denoiser under which held-out counts are likeliest; none, if none helps.

    Parameters
    ----------
    object_ : (oy, ox)
        Made from one part of the counts, :func:`study_lib.physics.measurement.split_photons`.
    lit
        What that part lights.
    held_out
        The other, independent part of the same counts.
    families
        Of ``STRENGTHS``, those to choose from.
    """
    judge = likelihood_judge(held_out)
    plain = judge(object_)
    losses = {
        (family, strength): judge(denoised_where_lit(object_, lit, family, strength))
        for family in families
        for strength in STRENGTHS[family]
    }
    return choose_by_held_out_counts(plain, losses)


def choose_by_held_out_counts(
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
        if np.isfinite(loss).all()  # an object that is not explains nothing
    )
    if not tried:
        return DenoiserChoice(NONE, 0.0, {}, ())
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
