"""Steps of the solver and a denoiser in turn: what is known of objects helps the data inside.

Each epoch takes one accelerated, preconditioned step down the Poisson objective, as the solver
does, and denoises what it finds. Where a scan is sparse, a pixel that denoising has improved helps
the data to determine its neighbours. Nothing is learned but a family, its strength and the number
of epochs, by held-out counts.

References
----------
Plug-and-play priors: Venkatakrishnan, Bouman and Wohlberg, GlobalSIP 2013,
doi:10.1109/GlobalSIP.2013.6737048. For phase retrieval of Poisson counts, with BM3D: Chang and
Marchesini, arXiv:1611.01417. More, and what differs: docs/related_work.md.
"""

from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from types import MappingProxyType
from typing import Any

import numpy as np
import torch
from jaxtyping import Complex, Float

from study_lib.physics.likelihood import likelihood_judge
from study_lib.physics.measurement import Measurement
from study_lib.solvers.denoising import (
    NONE,
    STRENGTHS,
    Candidate,
    DenoiserChoice,
    LitPart,
    choose_by_held_out_counts,
    denoised,
    denoised_where_lit,
)
from study_lib.solvers.pattern_model import PatternModel
from study_lib.solvers.solver import SolverSettings, model_of
from study_lib.solvers.steps import (
    next_momentum,
    object_step,
    rms_width_px,
    total_variation,
    tv_curvature,
)

EPOCHS = 40  # nearly converged
STEP = 0.5  # of the solver, for Poisson counts


INSIDE = "total_variation_inside"  # no denoiser: the variation is part of what each step lowers


@dataclass(frozen=True)
class DataSteps:
    """A measurement as the solver's steps see it; one of them serves any number of alternations.

    ``light`` (pixel,) are photons on each pixel of the model's box.
    """

    model: PatternModel
    probe: Complex[torch.Tensor, "*modes n n"]
    positions_px: Float[torch.Tensor, "scan 2"]
    background: Float[torch.Tensor, "n n"] | None
    light: Float[torch.Tensor, " pixel"]
    settings: SolverSettings

    @classmethod
    def of(cls, measurement: Measurement) -> "DataSteps":
        """Return the steps on a measurement, with the solver's usual settings."""
        settings = SolverSettings()
        model, probe, positions = model_of(
            measurement.amplitudes,
            measurement.positions_px,
            measurement.probe,
            measurement.bad_pixels,
            settings,
        )
        dark = measurement.background
        background = None if dark is None else torch.from_numpy(dark.astype(np.float32))
        light = model.illumination(probe, positions)
        return cls(model, probe, positions, background, light, settings)

    def after(
        self, point: Complex[torch.Tensor, " pixel"], variation: float = 0.0
    ) -> Complex[torch.Tensor, " pixel"]:
        """Return the object one step below a point; `variation` photons are the cost of a jump."""
        gradient = self.model.object_gradient(point, self.probe, self.positions_px, self.background)
        if variation:
            gradient = gradient + variation * total_variation(point, self.model.box)[1]
        return point - STEP * object_step(
            point,
            gradient,
            self.light + tv_curvature(variation),
            box=self.model.box,
            damping=self.settings.damping,
            corner_per_px=self.settings.slow_phase / (2 * np.pi * rms_width_px(self.probe)),
        )


def alternate(
    measurement: Measurement,
    start: Complex[np.ndarray, "oy ox"],
    family: str,
    strength: float,
    lit: LitPart,
    *,
    epochs: int = EPOCHS,
) -> Complex[np.ndarray, "oy ox"]:
    """Return the object after epochs of one step and one denoising each.

    Parameters
    ----------
    measurement
        Patterns, positions and probe.
    start : (oy, ox)
        Where to begin: the solver's object.
    family, strength
        As for :func:`study_lib.solvers.denoising.denoised`. Or ``total_variation_inside`` and its
        weight in the same unit: what steps of the solver then lower is the likelihood with the
        variation of the object, and there is no denoising in between.
    lit
        What the measurement lights.
    epochs
        How often.
    """
    steps = DataSteps.of(measurement)
    (result,) = alternations(steps, start, family, strength, lit, (epochs,))
    return result


def alternations(
    steps: DataSteps,
    start: Complex[np.ndarray, "oy ox"],
    family: str,
    strength: float,
    lit: LitPart,
    after_epochs: Sequence[int],
) -> Iterator[Complex[np.ndarray, "oy ox"]]:
    """Yield the objects of :func:`alternate` after each of these rising numbers of epochs."""
    box = steps.model.box

    def smoothed(flat: torch.Tensor) -> torch.Tensor:
        if family == INSIDE:
            return flat
        image = flat.numpy().reshape(box)
        return torch.from_numpy(denoised(image, family, strength, lit.noise)).flatten()

    variation = strength / (2 * lit.noise) if family == INSIDE else 0.0
    current = previous = smoothed(torch.from_numpy(start[lit.box].astype(np.complex64)).flatten())
    age = 1.0
    for epoch in range(1, after_epochs[-1] + 1):
        age, weight = next_momentum(age, steps.settings.momentum)
        point = torch.lerp(previous, current, 1 + weight)
        previous, current = current, smoothed(steps.after(point, variation))
        if epoch in after_epochs:
            result = start.copy()
            result[lit.box] = current.numpy().reshape(box)
            yield result


# --- Which family, strength and number of epochs, and the last smoothing

HALVED_AFTER = (10, 20)  # epochs
STRENGTHS_IN_TURN: Mapping[str, tuple[float, ...]] = MappingProxyType(
    {
        "total_variation": (0.05, 0.07, 0.1, 0.14, 0.2, 0.28, 0.4, 0.56, 0.8),
        "non_local_means": (0.07, 0.1, 0.15, 0.22, 0.33, 0.5),
        "similar_blocks_once": (0.15, 0.22, 0.3, 0.42, 0.6, 0.85),
        INSIDE: (0.1, 0.2, 0.4, 0.8, 1.6),
    }
)
FEWEST_LEFT = 2  # of a family's strengths, when half of them are given up
SMOOTHED_LAST_BY = ("total_variation", "non_local_means", "similar_blocks")
IN_TURN = " in turn, epochs "  # between a family and their number, in the names of candidates
Tried = Callable[[int, int], None]
Judge = Callable[[Complex[np.ndarray, "oy ox"]], Float[np.ndarray, " scan"]]


@dataclass(frozen=True)
class Alternation:
    """What held-out counts chose: a denoiser in turn with the solver's steps, and a last one.

    ``epochs`` 0: the denoiser is applied once, to the solver's object. ``last`` is the strongest
    smoothing that the counts do not refuse, of whatever is left; ``tried`` and ``tried_last`` are
    all candidates, with their gains over the solver's object and over what was left.
    """

    family: str
    strength: float
    epochs: int
    last_family: str
    last_strength: float
    tried: tuple[Candidate, ...]
    tried_last: tuple[Candidate, ...]

    def record(self) -> dict[str, Any]:
        """Return the choice as plain data."""
        return asdict(self)

    @classmethod
    def from_record(cls, content: Mapping[str, Any]) -> "Alternation":
        """Return the choice that :meth:`record` was made from."""
        tried, tried_last = (
            tuple(Candidate(**one) for one in content[name]) for name in ("tried", "tried_last")
        )
        return cls(
            content["family"],
            content["strength"],
            content["epochs"],
            content["last_family"],
            content["last_strength"],
            tried,
            tried_last,
        )

    @property
    def is_none(self) -> bool:
        """Whether nothing made held-out counts likelier: the object is the solver's."""
        return self.family == NONE and self.last_family == NONE

    def applied(
        self, measurement: Measurement, start: Complex[np.ndarray, "oy ox"], lit: LitPart
    ) -> Complex[np.ndarray, "oy ox"]:
        """Return the object made of the solver's (oy, ox) of a measurement."""
        object_ = start
        if self.epochs:
            object_ = alternate(
                measurement, start, self.family, self.strength, lit, epochs=self.epochs
            )
        elif self.family != NONE:
            object_ = denoised_where_lit(start, lit, self.family, self.strength)
        return denoised_where_lit(object_, lit, self.last_family, self.last_strength)


def choose_alternation(
    solved: Complex[np.ndarray, "oy ox"],
    measurement: Measurement,
    held_out: Measurement,
    progress: Tried | None = None,
) -> Alternation:
    """Return the alternation under which held-out counts are likeliest.

    Of each family and number of epochs the strongest that is as good as its best, then what gains
    most, by :func:`study_lib.solvers.denoising.choose_by_held_out_counts`; denoising once is among
    the candidates. After 10 and after 20 epochs the worse half of each family's strengths is given
    up, which saves nearly half of the time. The last smoothing is chosen by the rule of the
    thinning network: the strongest that held-out counts do not refuse.

    Parameters
    ----------
    solved : (oy, ox)
        The solver's object of `measurement`.
    measurement, held_out
        Two independent parts of the same counts.
    progress
        Called with how many runs are done, and of how many.
    """
    lit, judge = LitPart.of(measurement), likelihood_judge(held_out)
    losses: dict[tuple[str, float], Float[np.ndarray, " scan"]] = {
        (_named(family, 0), strength): judge(denoised_where_lit(solved, lit, family, strength))
        for family, strengths in STRENGTHS.items()
        for strength in strengths
    }
    losses |= {
        (_named(family, epochs), strength): loss
        for (family, epochs, strength), loss in losses_in_turn(
            solved, measurement, judge, lit, progress=progress
        ).items()
    }
    first = choose_by_held_out_counts(judge(solved), losses)
    family, _, epochs_text = first.family.partition(IN_TURN)
    unsmoothed = Alternation(
        family, first.strength, int(epochs_text or 0), NONE, 0.0, first.tried, ()
    )
    object_ = unsmoothed.applied(measurement, solved, lit)
    last = last_smoothing(
        lambda family, strength: judge(denoised_where_lit(object_, lit, family, strength))
    )
    return Alternation(
        unsmoothed.family,
        unsmoothed.strength,
        unsmoothed.epochs,
        last.family,
        last.strength,
        first.tried,
        last.tried,
    )


def losses_in_turn(
    solved: Complex[np.ndarray, "oy ox"],
    measurement: Measurement,
    judge: Judge,
    lit: LitPart,
    families: Collection[str] = tuple(STRENGTHS_IN_TURN),
    *,
    epochs: int = EPOCHS,
    progress: Tried | None = None,
) -> dict[tuple[str, int, float], Float[np.ndarray, " scan"]]:
    """Return the losses of held-out counts by family, number of epochs and strength.

    After 10 and after 20 epochs the worse half of each family's strengths is given up.

    Parameters
    ----------
    solved : (oy, ox)
        The solver's object of `measurement`.
    measurement, judge
        What the objects are made from, and what gives the losses of an object (oy, ox).
    lit
        What the measurement lights.
    families
        Of ``STRENGTHS_IN_TURN``, those to try.
    epochs
        Of the longest alternations.
    progress
        As for :func:`choose_alternation`.
    """
    steps, after_epochs = DataSteps.of(measurement), _compared_after(epochs)
    running = {
        family: {
            one: alternations(steps, solved, family, one, lit, after_epochs)
            for one in STRENGTHS_IN_TURN[family]
        }
        for family in families
    }
    tries, _ = tries_of(families, epochs)
    losses = {}
    for done in after_epochs:
        for family, each in running.items():
            means = {}
            for strength, found in each.items():
                losses[family, done, strength] = loss = judge(next(found))
                means[strength] = float(loss.mean())
                if progress is not None:
                    progress(len(losses), tries)
            running[family] = {one: each[one] for one in _best_first(means)[: _left(len(each))]}
    return losses


def _best_first(means: Mapping[float, float]) -> list[float]:
    """Return strengths by the mean loss that each leaves; what is not finite comes last."""
    return sorted(means, key=lambda one: means[one] if np.isfinite(means[one]) else np.inf)


def _left(count: int) -> int:
    """Return how many strengths of a family go on when the worse half is given up."""
    return max(min(count, FEWEST_LEFT), (count + 1) // 2)


def _compared_after(epochs: int) -> tuple[int, ...]:
    """Return after which epochs alternations of so many are compared."""
    return (*(early for early in HALVED_AFTER if early < epochs), epochs)


def tries_of(families: Iterable[str] = STRENGTHS_IN_TURN, epochs: int = EPOCHS) -> tuple[int, int]:
    """Return how many alternations are judged, and the epochs that they take together.

    Parameters
    ----------
    families, epochs
        As for :func:`losses_in_turn`.
    """
    judged = taken = 0
    for family in families:
        count, before = len(STRENGTHS_IN_TURN[family]), 0
        for after in _compared_after(epochs):
            judged, taken = judged + count, taken + count * (after - before)
            count, before = _left(count), after
    return judged, taken


TRIES, EPOCHS_TRIED = tries_of()


def last_smoothing(
    losses_by: Callable[[str, float], Float[np.ndarray, " scan"]],
) -> DenoiserChoice:
    """Return the strongest smoothing that held-out counts do not refuse.

    Likelihood hardly sees faint texture that is left.

    Parameters
    ----------
    losses_by
        Losses (scan,) of held-out counts under what a family and strength leave of an object.
    """
    tried = {
        (family, strength): losses_by(family, strength)
        for family in SMOOTHED_LAST_BY
        for strength in STRENGTHS[family]
    }
    return choose_by_held_out_counts(losses_by(NONE, 0.0), tried, least=True)


def _named(family: str, epochs: int) -> str:
    return f"{family}{IN_TURN}{epochs}" if epochs else family
