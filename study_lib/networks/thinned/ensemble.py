"""A trained thinning network: its members, what they are to be trusted with, and their object."""

import json
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Complex, Float, Int
from torch import Tensor

from study_lib.design.methods import ThinnedDesign
from study_lib.errors import InputError
from study_lib.files import atomic_path
from study_lib.networks.checkpoints import content_of
from study_lib.networks.thinned.inputs import (
    BoxedScan,
    ThinnedChoices,
    ThinnedInput,
    ThinnedSet,
    thinned_input,
)
from study_lib.networks.thinned.network import MixingNetwork, mixing_network
from study_lib.networks.thinned.trust import Trust, width_px
from study_lib.physics.likelihood import likelihood_judge
from study_lib.physics.measurement import Measurement, box_of, split_photons
from study_lib.scores.scoring import light_of
from study_lib.solvers.alternating import last_smoothing
from study_lib.solvers.denoising import NONE, Candidate, DenoiserChoice, denoised

Seen = Callable[[ThinnedInput], ThinnedInput]


def as_it_is(shown: ThinnedInput) -> ThinnedInput:
    """Return an input unchanged."""
    return shown


@dataclass(frozen=True)
class Smoothing:
    """What is left to smooth of the network's object: likelihood hardly sees faint texture."""

    family: str = NONE
    strength: float = 0.0
    tried: tuple[Candidate, ...] = ()

    def applied(
        self, object_: Complex[np.ndarray, "y x"], noise: float
    ) -> Complex[np.ndarray, "y x"]:
        """Return a smoothed object; ``noise`` as :func:`study_lib.solvers.denoising.denoised`."""
        return denoised(object_, self.family, self.strength, noise)

    @classmethod
    def by_held_out_counts(
        cls,
        members: Sequence[MixingNetwork],
        shown: ThinnedInput,
        held_out: Measurement,
    ) -> "Smoothing":
        """Return the strongest smoothing that held-out counts do not refuse.

        Parameters
        ----------
        members
            Trained networks.
        shown
            Input made of one part of the counts, in the box of all patches.
        held_out
            The other, independent part of the same counts.
        """
        judge = likelihood_judge(held_out)
        mixed = mean_object(members, shown)
        whole: np.ndarray = np.ones(held_out.object_shape, np.complex64)
        box = box_of(held_out)

        def losses(family: str, strength: float) -> Float[np.ndarray, " scan"]:
            whole[box] = denoised(mixed, family, strength, shown.noise)
            return judge(whole)

        best = last_smoothing(losses)
        return cls(best.family, best.strength, best.tried)


@dataclass(frozen=True)
class ThinnedEnsemble:
    """Everything learned from one measurement.

    ``seen_as`` changes every input before the networks see it; it is not part of a bundle.
    ``choice_cpu_s`` is the part of ``training_cpu_s`` that chose the base.
    """

    members: tuple[MixingNetwork, ...]
    choices: ThinnedChoices
    smoothing: Smoothing
    trust: Trust
    design: ThinnedDesign
    seed: int
    side_px: int
    half_precision: bool
    training_cpu_s: float
    choice_cpu_s: float  # of these, before the network
    measurement_sha256: str = ""
    seen_as: Seen = as_it_is


@dataclass(frozen=True)
class ThinnedResult:
    """What an ensemble makes of a measurement.

    ``object_`` and ``base`` (oy, ox) in the frame of the positions, one where no light falls;
    ``members_rad`` (oy, ox) is the standard deviation of the phase over the members, zero where no
    light falls.
    """

    object_: Complex[np.ndarray, "oy ox"]
    base: Complex[np.ndarray, "oy ox"]
    members_rad: Float[np.ndarray, "oy ox"]


def mean_object(
    members: Sequence[MixingNetwork], shown: ThinnedInput
) -> Complex[np.ndarray, "y x"]:
    """Return the mean object of the members in the box of an input."""
    with torch.no_grad():
        objects = torch.stack([member.object_of(shown) for member in members])
    return objects.mean(dim=0).numpy()


def gains_of(
    members: Sequence[MixingNetwork],
    smoothing: Smoothing,
    sets: Sequence[ThinnedSet],
    boxed: BoxedScan,
    index: Int[Tensor, " patterns"],
) -> Float[np.ndarray, " patterns"]:
    """Return by how many nats patterns are likelier under the members than under the base.

    Parameters
    ----------
    members
        Networks that have never learned from these patterns.
    smoothing
        Of their mean.
    sets
        Thinnings; a pattern's gain is its mean over them.
    boxed, index
        Which patterns.
    """
    gains = []
    with torch.no_grad():
        for one in sets:
            mixed = smoothing.applied(mean_object(members, one.shown), one.shown.noise)
            gains.append(
                one.deviance_nats(one.shown.base_object, boxed, index)
                - one.deviance_nats(torch.from_numpy(mixed), boxed, index)
            )
    found: np.ndarray = torch.stack(gains).mean(dim=0).double().numpy()
    return found


def reconstruct_thinned(
    ensemble: ThinnedEnsemble, measurement: Measurement, *, trust: Trust
) -> ThinnedResult:
    """Return the object that an ensemble makes of a measurement: the base, if it is not trusted.

    Parameters
    ----------
    ensemble
        Learned from a measurement with the same probe.
    measurement
        Patterns, positions, probe.
    trust
        What counts say of it that it has not learned from: ``judged_anew(...)`` of this
        measurement, or ``ensemble.trust`` if it has learned from this one.

    Raises
    ------
    InputError
        If the patterns are of another size than those learned from.
    """
    shown = _shown(ensemble, measurement)
    base = shown.base_object.numpy()
    each: list[np.ndarray] = []
    if trust.given:
        each = _objects_of_members(ensemble, shown)
    mean, spread = base, np.zeros(base.shape, np.float32)
    if each:
        smooth = ensemble.smoothing.applied
        mean = smooth(np.mean(each, axis=0), shown.noise)
        spread = phase_std([smooth(one, shown.noise) for one in each], mean)
    return ThinnedResult(*_pasted(measurement, (mean, 1.0), (base, 1.0), (spread, 0.0)))


def base_of(ensemble: ThinnedEnsemble, measurement: Measurement) -> Complex[np.ndarray, "oy ox"]:
    """Return what an ensemble starts from, in the frame of the positions: no network is used.

    Parameters
    ----------
    ensemble, measurement
        As for :func:`reconstruct_thinned`.
    """
    base: np.ndarray
    (base,) = _pasted(measurement, (_shown(ensemble, measurement).base_object.numpy(), 1.0))
    return base


def judged_anew(
    ensemble: ThinnedEnsemble, measurement: Measurement, random: np.random.Generator
) -> Trust:
    """Return what a measurement's own counts say of an ensemble that has not learned from them.

    Objects are made from a share of the photons, several times; the others judge them.

    Parameters
    ----------
    ensemble, measurement
        As for :func:`reconstruct_thinned`.
    random
        Draws the thinnings.
    """
    share = float(np.mean(ensemble.design.photon_shares))  # as it has learned
    gains = []
    for _ in range(ensemble.design.thinnings):
        part, held_out = split_photons(measurement, share, random)
        shown = _shown(ensemble, part)
        mean = ensemble.smoothing.applied(
            np.mean(_objects_of_members(ensemble, shown), axis=0), shown.noise
        )
        network, base = _pasted(part, (mean, 1.0), (shown.base_object.numpy(), 1.0))
        judge = likelihood_judge(held_out)
        gains.append(judge(base) - judge(network))
    return Trust.of(np.mean(gains, axis=0), measurement.positions_px, width_px(measurement.probe))


def _shown(ensemble: ThinnedEnsemble, measurement: Measurement) -> ThinnedInput:
    """Return what the networks see of a measurement, in its box."""
    side = measurement.probe.shape[-1]
    if side != ensemble.side_px:
        raise InputError(
            f"patterns of {side} pixels, but the thinning network was trained on "
            f"{ensemble.side_px}; use the ensemble of their own view"
        )
    box, with_data = box_of(measurement), ensemble.design.data_steps > 0
    return ensemble.seen_as(thinned_input(measurement, ensemble.choices, box, with_data=with_data))


def _objects_of_members(
    ensemble: ThinnedEnsemble, shown: ThinnedInput
) -> list[Complex[np.ndarray, "y x"]]:
    """Return the object of every member, not smoothed."""
    with torch.no_grad():
        return [member.object_of(shown).numpy() for member in ensemble.members]


def _pasted(measurement: Measurement, *parts: tuple[np.ndarray, float]) -> list[np.ndarray]:
    """Return parts in the frame of the positions, each with its value where no light falls."""
    box = box_of(measurement)
    lit = light_of(measurement)[box] > 0
    wholes = []
    for part, beyond in parts:
        whole: np.ndarray = np.full(measurement.object_shape, beyond, part.dtype)
        whole[box] = np.where(lit, part, beyond)
        wholes.append(whole)
    return wholes


def phase_std(
    objects: Sequence[Complex[np.ndarray, "y x"]], mean: Complex[np.ndarray, "y x"]
) -> Float[np.ndarray, "y x"]:
    """Return the standard deviation of the phase, apart from each object's global phase.

    Parameters
    ----------
    objects
        Two or more; of a single one the spread is zero.
    mean : (y, x)
        Their mean.
    """
    phases = []
    for object_ in objects:
        ratio = object_ * mean.conj()
        phases.append(np.angle(ratio * np.exp(-1j * np.angle(ratio.sum()))))
    spread: np.ndarray = np.std(phases, axis=0, ddof=1 if len(phases) > 1 else 0)
    return spread.astype(np.float32)


# --- As a file that anyone can load, and that runs no code when loaded

ENSEMBLE = "ensemble.pt"
RECIPE = 3  # what weights are made for; another number is another network
AS_THEY_ARE = (
    "seed",
    "side_px",
    "half_precision",
    "training_cpu_s",
    "choice_cpu_s",
    "measurement_sha256",
)


def save_ensemble(path: Path, ensemble: ThinnedEnsemble) -> None:
    """Write weights, choices and origin; loads with ``weights_only=True``."""
    content = {
        "states": [member.state_dict() for member in ensemble.members],
        "candidates": ensemble.members[0].candidates,
        "choices": asdict(ensemble.choices),
        "smoothing": asdict(ensemble.smoothing),
        "trust": asdict(ensemble.trust),
        "design": ensemble.design.model_dump(mode="json"),
        "recipe": RECIPE,
        **{name: getattr(ensemble, name) for name in AS_THEY_ARE},
    }
    with atomic_path(path) as temporary:
        torch.save(content, temporary)


def load_ensemble(path: Path) -> ThinnedEnsemble:
    """Return the ensemble that :func:`save_ensemble` wrote; runs no code from the file.

    Parameters
    ----------
    path
        ``ensemble.pt`` in a condition's folder of the training from thinned counts.

    Returns
    -------
    ThinnedEnsemble
        On the CPU, ready to be applied, with its choices and what it is to be trusted with.

    Raises
    ------
    InputError
        If the file is missing or is not such an ensemble.

    Examples
    --------
    >>> import study_lib as study
    >>> condition = run.condition(1e4, "dense")  # run: study.open_run of a finished run's folder
    >>> ensemble = study.load_ensemble(condition.folder("train_thinned") / "ensemble.pt")
    >>> len(ensemble.members), ensemble.side_px
    (2, 16)

    The object that it makes of patterns it has not learned from, in the frame of the positions,
    if their own counts trust it:

    >>> from study_lib.networks.thinned.ensemble import judged_anew, reconstruct_thinned
    >>> measurement = condition.measurement()
    >>> trust = judged_anew(ensemble, measurement, study.generator(42, "thinnings"))
    >>> found = reconstruct_thinned(ensemble, measurement, trust=trust)
    >>> found.object_.shape == measurement.object_shape
    True
    """
    missing = "no ensemble; run `study train-thinned` for this dose and view"
    with content_of(path, missing, "an ensemble") as content:
        if content.get("recipe") != RECIPE:
            raise InputError(
                f"{path}: a thinning network of recipe {content.get('recipe', 1)}; this version "
                f"reads {RECIPE}; run `study train-thinned` again"
            )
        design = ThinnedDesign.model_validate_json(json.dumps(content["design"]))
        members = []
        for state in content["states"]:
            member = mixing_network(
                design,
                candidates=content["candidates"],
                base=0,
                half_precision=content["half_precision"],
            )
            member.load_state_dict(state)
            members.append(member.requires_grad_(False).eval())
        choices = {
            name: DenoiserChoice.from_record(content["choices"][name])
            for name in ("after", "alternating", "last")
        }
        tried = tuple(Candidate(**candidate) for candidate in content["smoothing"].pop("tried"))
        return ThinnedEnsemble(
            members=tuple(members),
            choices=ThinnedChoices(**choices, epochs=design.epochs_in_turn),
            smoothing=Smoothing(**content["smoothing"], tried=tried),
            trust=Trust(**content["trust"]),
            design=design,
            **{name: content[name] for name in AS_THEY_ARE},
        )
