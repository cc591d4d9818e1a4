"""What each part of the thinning network is worth, and where the data contradict what it adds."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from types import MappingProxyType
from typing import Any

import numpy as np
import torch
from jaxtyping import Complex, Float

from study_lib.design.methods import ThinnedDesign
from study_lib.networks.thinned.ensemble import (
    Seen,
    Smoothing,
    ThinnedEnsemble,
    as_it_is,
    reconstruct_thinned,
)
from study_lib.networks.thinned.inputs import ALTERNATING, ThinnedInput
from study_lib.networks.thinned.training import train_thinned
from study_lib.networks.thinned.trust import SURE
from study_lib.physics.likelihood import likelihood_judge
from study_lib.physics.measurement import Measurement, split_photons

GRADIENT_MAPS, LIGHT_MAPS = (0, 1), (2, 3)
Scores = Callable[[Complex[np.ndarray, "oy ox"]], Mapping[str, Any]]


@dataclass(frozen=True)
class Part:
    """One part of the recipe, as what taking it away changes."""

    changed: Mapping[str, Any] = field(default_factory=dict)
    seen_as: Seen = as_it_is


def only_the_base(shown: ThinnedInput) -> ThinnedInput:
    """Return an input without any other candidate: nothing is left to mix."""
    kept = slice(shown.base, shown.base + 1)
    return replace(shown, candidates=shown.candidates[kept], names=shown.names[kept], base=0)


def without_alternation(shown: ThinnedInput) -> ThinnedInput:
    """Return an input without the objects that were denoised in every step of the solver.

    If one of them was the base, the last candidate denoised afterwards takes its place.
    """
    kept = [name for name in shown.names if not name.startswith(ALTERNATING)]
    left = shown.candidates[[shown.names.index(name) for name in kept]]
    own = shown.names[shown.base]
    base = kept.index(own) if own in kept else len(kept) - 1
    return replace(shown, candidates=left, names=tuple(kept), base=base)


def blind_to(maps: Sequence[int]) -> Seen:
    """Return what makes some of the maps zero."""

    def changed(shown: ThinnedInput) -> ThinnedInput:
        left = shown.maps.clone()
        left[list(maps)] = 0
        return replace(shown, maps=left)

    return changed


WITHOUT: Mapping[str, Part] = MappingProxyType(
    {
        "nothing left out": Part(),
        "other candidates than the base": Part(seen_as=only_the_base),
        "denoising in every step": Part(seen_as=without_alternation),
        "gradient of the likelihood": Part(seen_as=blind_to(GRADIENT_MAPS)),
        "light and noise level": Part(seen_as=blind_to(LIGHT_MAPS)),
        "residual beside the mixture": Part(changed={"residual_scale": 0.0}),
        "turned and mirrored views": Part(changed={"turned_views": False}),
        "other members than the first": Part(changed={"members": 1}),
    }
)


def ablated(
    train: Measurement,
    test: Measurement,
    scores: Scores,
    design: ThinnedDesign,
    *,
    seed: int,
    parts: Mapping[str, Part] = WITHOUT,
) -> list[dict[str, Any]]:
    """Return one row for the base, and one for each training that lacks a part of the recipe.

    Every network is shown as if it were trusted; ``gain_nats`` is what the held-out counts of the
    train split say of it.

    Parameters
    ----------
    train, test
        What is learned from, and what is scored.
    scores
        Gives the scores of an object of the test split.
    design, seed
        Of the training.
    parts
        What is left out, by name; the first is the whole recipe.
    """
    rows: list[dict[str, Any]] = []
    for done, (name, part) in enumerate(parts.items()):
        changed = design.model_copy(update=dict(part.changed))
        ensemble, _ = train_thinned(train, changed, seed=seed, seen_as=part.seen_as)
        found = reconstruct_thinned(ensemble, test, trust=SURE)
        if not rows:
            rows.append({"left out": "the network", "gain_nats": 0.0, **scores(found.base)})
        row = {"left out": name, "gain_nats": ensemble.trust.gain_nats}
        rows.append(row | dict(scores(found.object_)))
        if done == 0:
            unsmoothed = replace(ensemble, smoothing=Smoothing())
            plain = reconstruct_thinned(unsmoothed, test, trust=SURE)
            row = {"left out": "smoothing afterwards", "gain_nats": ensemble.trust.gain_nats}
            rows.append(row | dict(scores(plain.object_)))
    return rows


def local_gains(
    ensemble: ThinnedEnsemble, measurement: Measurement, random: np.random.Generator
) -> Float[np.ndarray, " scan"]:
    """Return by how many nats the network makes held-out counts likelier than its base.

    Pattern by pattern, of any measurement: where it is clearly negative, the network adds what the
    data do not support.

    Parameters
    ----------
    ensemble
        Trained on whatever it was.
    measurement
        Of what it is tried on; a share of its photons is kept back.
    random
        Chooses them.
    """
    part, held_out = split_photons(measurement, ensemble.design.judged_share, random)
    found = reconstruct_thinned(ensemble, part, trust=SURE)
    judge = likelihood_judge(held_out)
    return judge(found.base) - judge(found.object_)


def trust_map(ensemble: ThinnedEnsemble, shown: ThinnedInput) -> Float[np.ndarray, "k y x"]:
    """Return how far the first member trusts each candidate in each pixel; sums to one.

    Parameters
    ----------
    ensemble
        Its first member.
    shown
        An input.
    """
    member = ensemble.members[0]
    with torch.no_grad():
        found = member(shown.channels[None])[0, : member.candidates]
        trust: np.ndarray = torch.softmax(found, dim=0).numpy()
    return trust
