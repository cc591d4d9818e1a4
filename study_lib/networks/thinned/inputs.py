"""What the network of `pinn-thinned` is shown: the object as classical ways see it.

All of it is made from the counts of a measurement and where they were taken, nothing from a truth.
"""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from jaxtyping import Complex, Float
from torch import Tensor

from study_lib.networks.thinned.data_consistency import CountsInBox
from study_lib.physics.measurement import Box, Measurement
from study_lib.solvers.alternating import alternate
from study_lib.solvers.denoiser_choice import (
    NONE,
    DenoiserChoice,
    LitPart,
    choose_denoiser,
    chosen,
    likelihood_judge,
)
from study_lib.solvers.denoising import denoised, slow_phasor
from study_lib.solvers.solver import reconstruct_measurement

# Strengths of the alternating steps, in those that suit one denoising: every step denoises again.
ALTERNATING_SHARES = (0.25, 0.5, 1.0)
ALTERNATING_FAMILIES = ("total_variation", "non_local_means")
# Denoised objects beside the best of each family: the network may take the weaker or stronger one.
BESIDE = (("non_local_means", 0.5), ("non_local_means", 2.0), ("total_variation", 2.0))
MAPS = 4  # images beside the candidates: both parts of the gradient, light, noise


@dataclass(frozen=True)
class ThinnedChoices:
    """What held-out counts of the train split chose before the network: denoiser and alternation.

    ``alternating`` was judged against the solver's object denoised as ``after`` says.
    """

    after: DenoiserChoice
    alternating: DenoiserChoice

    @property
    def base(self) -> str:
        """The candidate that the network starts from, and returns to if it does not help."""
        if self.alternating.family != NONE:
            return f"alternating {self.alternating.family}"
        return "solver" if self.after.family == NONE else self.after.family

    def record(self) -> dict[str, Any]:
        """Return the choices as plain data."""
        return {"after": self.after.record(), "alternating": self.alternating.record()}

    @classmethod
    def from_record(cls, content: Mapping[str, Any]) -> "ThinnedChoices":
        """Return the choices that :meth:`record` was made from."""
        return cls(
            DenoiserChoice.from_record(content["after"]),
            DenoiserChoice.from_record(content["alternating"]),
        )


@dataclass(frozen=True)
class ThinnedInput:
    """Images of one measurement in a box of the object.

    ``candidates`` (k, y, x) are objects over ``phasor`` (y, x), the slow phase of the solver's;
    ``maps`` (4, y, x) both parts of the likelihood's preconditioned gradient at the base, the
    light's logarithm, and the noise it leaves. ``base`` is the index of the base,
    ``noise`` the level of the noise in the solver's object, ``names`` say what each candidate is,
    ``data`` are the counts themselves, if the network asks for them.
    """

    candidates: Complex[Tensor, "k y x"]
    phasor: Complex[Tensor, "y x"]
    maps: Float[Tensor, "maps y x"]
    base: int
    noise: float
    names: tuple[str, ...] = ()
    data: CountsInBox | None = None

    @property
    def channels(self) -> Float[Tensor, "channels y x"]:
        """All images as the network takes them, centred about an object of ones."""
        return torch.cat([self.candidates.real - 1, self.candidates.imag, self.maps])

    @property
    def base_object(self) -> Complex[Tensor, "y x"]:
        """The base with its slow phase."""
        return self.phasor * self.candidates[self.base]

    def window(self, part: Box) -> "ThinnedInput":
        """Return a part of every image."""
        return replace(
            self,
            candidates=self.candidates[:, part[0], part[1]],
            phasor=self.phasor[part],
            maps=self.maps[:, part[0], part[1]],
        )


def choose(
    solved: Complex[np.ndarray, "oy ox"], measurement: Measurement, held_out: Measurement
) -> ThinnedChoices:
    """Return denoiser and alternation under which held-out counts are likeliest.

    Parameters
    ----------
    solved : (oy, ox)
        The solver's object of `measurement`.
    measurement, held_out
        Two independent parts of the same counts.
    """
    lit = LitPart.of(measurement)
    after = choose_denoiser(solved, lit, held_out)
    judge = likelihood_judge(held_out)
    losses = {
        (family, share * after.of_family[family]): judge(
            alternate(measurement, solved, family, share * after.of_family[family], lit)
        )
        for family in ALTERNATING_FAMILIES
        for share in ALTERNATING_SHARES
    }
    return ThinnedChoices(after, chosen(judge(after.applied(solved, lit)), losses))


def thinned_input(
    measurement: Measurement,
    choices: ThinnedChoices,
    box: Box,
    solved: Complex[np.ndarray, "oy ox"] | None = None,
    *,
    with_data: bool = False,
) -> ThinnedInput:
    """Return what the network is shown of a measurement.

    Parameters
    ----------
    measurement
        Patterns, positions, probe.
    choices
        Strengths of everything classical; those of the train split.
    box
        Which part of the object is shown; at least what the measurement lights.
    solved : (oy, ox)
        The solver's object of the measurement, if it has been made.
    with_data
        Whether the counts are part of it.
    """
    if solved is None:
        solved = reconstruct_measurement(measurement).object_
    lit = LitPart.of(measurement)
    of_family, of_alternating = choices.after.of_family, choices.alternating.of_family
    inside = solved[box]
    images = {"solver": inside}
    for family, strength in of_family.items():
        images[family] = denoised(inside, family, strength, lit.noise)
    for family, factor in BESIDE:
        images[f"{factor:g} {family}"] = denoised(
            inside, family, factor * of_family[family], lit.noise
        )
    for family, strength in of_alternating.items():
        whole = alternate(measurement, solved, family, strength, lit)
        images[f"alternating {family}"] = whole[box]
    phasor = slow_phasor(inside)
    data = CountsInBox.of(measurement, box, lit.light)
    gradient = data.change(torch.from_numpy(images[choices.base])).numpy() * phasor.conj()
    maps = (
        gradient.real,
        gradient.imag,
        np.log10(lit.light[box] + 1) / 3 - 0.5,
        np.minimum(0.5 / np.sqrt(lit.light[box] + 1e-3), 1),
    )
    return ThinnedInput(
        candidates=torch.from_numpy(np.stack(list(images.values())) * phasor.conj()),
        phasor=torch.from_numpy(phasor),
        maps=torch.from_numpy(np.stack(maps).astype(np.float32)),
        base=list(images).index(choices.base),
        noise=lit.noise,
        names=tuple(images),
        data=data if with_data else None,
    )
