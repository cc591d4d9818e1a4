"""The arms of the comparison: a registry of ways to an object, each with what it knows."""

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

import numpy as np
from jaxtyping import Complex, Float, Int
from torch.nn import Module

from study_lib.arm_names import (
    CHOSEN,
    NOT_DENOISED,
    NOT_TRUSTED,
    OTHER_NOISE_MODEL,
    PINN,
    PINN_LABEL,
    SELF_TAUGHT,
    SELF_TAUGHT_BASE,
    SELF_TAUGHT_BASE_LABEL,
    SELF_TAUGHT_LABEL,
    SOLVER_ALTERNATING,
    SOLVER_ALTERNATING_LABEL,
    THINNED_BASE,
    THINNED_BASE_LABEL,
    THINNING_NET,
    THINNING_NET_LABEL,
    key_of,
    label_of,
)
from study_lib.data.archive import read_npz
from study_lib.design.axes import ViewDesign
from study_lib.design.models import StudyDesign
from study_lib.errors import InputError, StudyError
from study_lib.networks.machine import device_of
from study_lib.networks.pinn.bundle import BUNDLE, load_network
from study_lib.networks.pinn.inference import apply_network
from study_lib.networks.thinned.ensemble import (
    ENSEMBLE,
    ThinnedEnsemble,
    base_of,
    judged_anew,
    load_ensemble,
    reconstruct_thinned,
)
from study_lib.networks.thinned.inputs import ALTERNATING, LAST
from study_lib.networks.thinned.spread import phase_spread
from study_lib.phases.conditions import Condition, taught_folder
from study_lib.phases.reconstruct import (
    ALTERNATION,
    DENOISER,
    PLAIN_NATS,
    chosen_by_train,
    read_alternation,
    read_denoiser,
    result_of,
    why_missing,
)
from study_lib.physics.measurement import Measurement
from study_lib.scores.featureless import stayed_text, stays_featureless
from study_lib.seeding import generator
from study_lib.solvers.algorithms import SOLVER
from study_lib.solvers.denoising import NONE, LitPart


@dataclass(frozen=True)
class ArmResult:
    """An object in the frame of the dataset, the patterns it was made from, and its cost.

    ``cpu_s`` is processor time for these patterns, ``training_cpu_s`` for what was learned before,
    ``learned_parameters`` how many numbers that left in networks, of all members together;
    ``phase_std_rad`` (oy, ox) is the arm's own estimate of its phase error, if it has one;
    ``device`` is what computed it here. If held-out counts refused what the arm adds, ``fallback``
    names what its object is instead, and ``fallback_reason`` says why. ``grouping`` says how an arm
    that works on groups of patterns had them grouped. ``probe`` is the arm's own, where it refined
    the one that it was given.
    """

    label: str
    knows: str
    object_: Complex[np.ndarray, "oy ox"]
    scan_index: Int[np.ndarray, " scan"]
    cpu_s: float
    training_cpu_s: float
    sources: tuple[Path, ...]
    phase_std_rad: Float[np.ndarray, "oy ox"] | None = None
    device: str = "cpu"
    fallback: str = ""
    fallback_reason: str = ""
    grouping: str = ""
    probe: Complex[np.ndarray, "..."] | None = None
    learned_parameters: int = 0


SHORT_NAMES = {
    "total_variation": "TV",
    "non_local_means": "NLM",
    "gaussian": "Gaussian",
    "similar_blocks": "blocks",
}
HashOf = Callable[[Path], str]
Arm = Callable[[Condition, Measurement, HashOf], ArmResult]


class MissingResultError(InputError):
    """An arm has no result for a condition; its message says why."""


def pinn(condition: Condition, measurement: Measurement, hash_of: HashOf) -> ArmResult:
    """Pass a condition's patterns through the network trained on the train split of its view."""
    path = _existing(condition.folder("train") / BUNDLE, PINN_LABEL, "train")
    trained = load_network(path)
    made_from = hash_of(condition.of("train").file)
    _require_made_from(trained.measurement_sha256, made_from, path, "train")
    device = str(device_of("auto"))
    history = trained.history
    stayed = (
        f"; {stayed_text(history.train[-1], history.uniform_object)}"
        if stays_featureless(history.train[-1], history.uniform_object)
        else ""
    )
    started = time.process_time()
    object_ = apply_network(trained, measurement, device=device)
    return ArmResult(
        label=PINN_LABEL,
        knows=f"{condition.design.probe_known}, positions; trained on the train split of this "
        f"view{stayed}",
        object_=object_,
        scan_index=measurement.scan_index,
        cpu_s=time.process_time() - started,
        training_cpu_s=trained.training_cpu_s,
        sources=(path,),
        device=device,
        grouping=grouping_of(condition.view),
        learned_parameters=_parameters_of([trained.network]),
    )


def _parameters_of(networks: Sequence[Module]) -> int:
    return sum(each.numel() for network in networks for each in network.parameters())


def grouping_of(view: ViewDesign) -> str:
    """Return how the patterns of a view are grouped, in words."""
    if view.gridsize == 1:
        return "single patterns"
    count = f"{view.n_groups} in all" if view.n_groups else f"{view.groups_per_pattern} a pattern"
    return f"groups of {view.gridsize**2} ({count})"


def iterative(
    algorithm: str, condition: Condition, measurement: Measurement, hash_of: HashOf
) -> ArmResult:
    """Read the reconstruction that an iterative algorithm made of the same patterns."""
    path = result_of(condition, algorithm)
    if not path.is_file():
        raise MissingResultError(f"{algorithm}: {why_missing(condition, algorithm)}")
    arrays, metadata = read_npz(path)
    missing = {"object", "scan_index"} - arrays.keys() | {
        "knows",
        "reconstruction_cpu_s",
    } - metadata.keys()
    if missing:
        raise InputError(f"{path}: lacks {', '.join(sorted(missing))}; run `study reconstruct`")
    made_from = str(metadata.get("measurement_sha256"))
    _require_made_from(made_from, hash_of(condition.file), path, "reconstruct")
    return ArmResult(
        label=label_of(algorithm),
        knows=str(metadata["knows"]),
        object_=arrays["object"],
        scan_index=arrays["scan_index"],
        cpu_s=float(metadata["reconstruction_cpu_s"]),
        training_cpu_s=0.0,
        sources=(path,),
        probe=arrays["probe"] if condition.design.iterative.probe == "refine" else None,
    )


def denoised(
    algorithm: str, condition: Condition, measurement: Measurement, hash_of: HashOf
) -> ArmResult:
    """Denoise the reconstruction of an iterative algorithm as was chosen on the train split."""
    plain = iterative(algorithm, condition, measurement, hash_of)
    label, command = label_of(algorithm, denoised=True), "reconstruct --split train"
    path = _existing(chosen_by_train(condition, algorithm, DENOISER), label, command)
    choice, written = read_denoiser(path)
    made_from = str(written.get("measurement_sha256"))
    _require_made_from(made_from, hash_of(condition.of("train").file), path, command)
    started = time.process_time()
    object_ = choice.applied(plain.object_, LitPart.of(measurement))
    return replace(
        plain,
        label=label,
        knows=f"{plain.knows}; denoiser ({choice.family}) chosen on the train split of this view",
        object_=object_,
        cpu_s=plain.cpu_s + time.process_time() - started,
        training_cpu_s=float(written["choice_cpu_s"]),
        sources=(*plain.sources, path),
        fallback=plain.label if choice.family == NONE else "",
        fallback_reason=NOT_DENOISED if choice.family == NONE else "",
    )


def chosen(
    algorithms: Sequence[str], condition: Condition, measurement: Measurement, hash_of: HashOf
) -> ArmResult:
    """Return the object under which held-out counts are likeliest: which noise model, if denoised.

    All algorithms were judged by the same photons of the train split; what each of the choices cost
    is charged.
    """
    label, command = f"{algorithms[0]} {CHOSEN}", "reconstruct --split train"
    held_out_nats, spent_s = {}, 0.0
    for algorithm in algorithms:
        path = _existing(chosen_by_train(condition, algorithm, DENOISER), label, command)
        choice, written = read_denoiser(path)
        if PLAIN_NATS not in written:
            raise MissingResultError(
                f"{label}: {path} does not say how likely counts are without a denoiser; run "
                f"`study {command}` again"
            )
        nats = float(written[PLAIN_NATS]) - choice.gain_nats
        held_out_nats[algorithm] = nats if np.isfinite(nats) else np.inf
        spent_s += float(written["choice_cpu_s"])
    best = min(held_out_nats, key=lambda algorithm: held_out_nats[algorithm])
    found = denoised(best, condition, measurement, hash_of)
    return replace(
        found,
        label=label,
        knows=f"{found.knows}; noise model ({best}) chosen there too",
        training_cpu_s=spent_s,
        fallback="",
        fallback_reason="",
    )


def alternating(condition: Condition, measurement: Measurement, hash_of: HashOf) -> ArmResult:
    """Improve the solver's object by its steps and a denoiser in turn, as the train split chose."""
    plain = iterative(SOLVER, condition, measurement, hash_of)
    command = "reconstruct --split train"
    written_to = chosen_by_train(condition, SOLVER, ALTERNATION)
    path = _existing(written_to, SOLVER_ALTERNATING_LABEL, command)
    choice, written = read_alternation(path)
    made_from = str(written.get("measurement_sha256"))
    _require_made_from(made_from, hash_of(condition.of("train").file), path, command)
    started = time.process_time()
    object_ = choice.applied(measurement, plain.object_, LitPart.of(measurement))
    in_turn = f"{choice.family}, {choice.epochs} epochs" if choice.epochs else choice.family
    return replace(
        plain,
        label=SOLVER_ALTERNATING_LABEL,
        knows=f"{plain.knows}; denoiser ({in_turn}; last {choice.last_family}) chosen on the train "
        "split of this view",
        object_=object_,
        cpu_s=plain.cpu_s + time.process_time() - started,
        training_cpu_s=float(written["choice_cpu_s"]),
        sources=(*plain.sources, path),
        fallback=plain.label if choice.is_none else "",
        fallback_reason=NOT_DENOISED if choice.is_none else "",
    )


def thinning_net(condition: Condition, measurement: Measurement, hash_of: HashOf) -> ArmResult:
    """Improve the solver's object by the ensemble that thinned counts of the train split taught."""
    return _improved(THINNING_NET_LABEL, "train", condition, measurement, hash_of)


def self_taught(condition: Condition, measurement: Measurement, hash_of: HashOf) -> ArmResult:
    """Improve the solver's object by the ensemble that its own counts taught, thinned.

    Of the train split that is the thinning network.
    """
    return _improved(SELF_TAUGHT_LABEL, condition.split, condition, measurement, hash_of)


def _improved(
    label: str, taught_by: str, condition: Condition, measurement: Measurement, hash_of: HashOf
) -> ArmResult:
    path, ensemble = _ensemble_of(condition, taught_by, hash_of, label)
    started = time.process_time()
    trust = ensemble.trust  # by counts that were kept from its training, if these have taught it
    if taught_by != condition.split:
        random = generator(ensemble.seed, "photon spread", condition.split)  # named as ever
        trust = judged_anew(ensemble, measurement, random)
    found = reconstruct_thinned(ensemble, measurement, trust=trust)
    cpu_s = time.process_time() - started
    random = generator(ensemble.seed, "photons counted again", condition.split)
    base = "" if trust.given else "; its network was not trusted, this is its base"
    stated = f"{trust.gain_nats:+.2f} +- {trust.standard_error_nats:.2f} nats a pattern"
    return ArmResult(
        label=label,
        knows=f"{condition.design.probe_known}, positions; trained on {_teacher(taught_by)}{base}",
        object_=found.object_,
        scan_index=measurement.scan_index,
        cpu_s=cpu_s,
        training_cpu_s=ensemble.training_cpu_s,
        sources=(path,),
        phase_std_rad=phase_spread(ensemble, measurement, found, trust, random),
        learned_parameters=_parameters_of(ensemble.members if trust.given else ()),
        fallback="" if trust.given else f"its base ({base_name(ensemble.choices.base)})",
        fallback_reason="" if trust.given else f"{NOT_TRUSTED} ({stated})",
    )


def thinned_base(condition: Condition, measurement: Measurement, hash_of: HashOf) -> ArmResult:
    """Return what the thinning network starts from: chosen by the same counts, without learning."""
    return _base(THINNED_BASE_LABEL, "train", condition, measurement, hash_of)


def self_taught_base(condition: Condition, measurement: Measurement, hash_of: HashOf) -> ArmResult:
    """Return what the self-taught network starts from: chosen by the very counts it is made of."""
    return _base(SELF_TAUGHT_BASE_LABEL, condition.split, condition, measurement, hash_of)


def _base(
    label: str, taught_by: str, condition: Condition, measurement: Measurement, hash_of: HashOf
) -> ArmResult:
    path, ensemble = _ensemble_of(condition, taught_by, hash_of, label)
    started = time.process_time()
    object_ = base_of(ensemble, measurement)
    base = base_name(ensemble.choices.base)
    return ArmResult(
        label=label,
        knows=f"{condition.design.probe_known}, positions; {base} chosen on {_teacher(taught_by)}",
        object_=object_,
        scan_index=measurement.scan_index,
        cpu_s=time.process_time() - started,
        training_cpu_s=ensemble.choice_cpu_s,
        sources=(path,),
        fallback=label_of(SOLVER) if base == SOLVER else "",
        fallback_reason=NOT_DENOISED if base == SOLVER else "",
    )


def _teacher(taught_by: str) -> str:
    return "these very patterns" if taught_by == "test" else "the train split of this view"


def _ensemble_of(
    condition: Condition, taught_by: str, hash_of: HashOf, label: str
) -> tuple[Path, ThinnedEnsemble]:
    """Return the ensemble that a split has taught and its file, made from the data as they are."""
    command = "train-thinned" + (" --split test" if taught_by == "test" else "")
    path = _existing(taught_folder(condition, taught_by) / ENSEMBLE, label, command)
    ensemble = load_ensemble(path)
    made_from = hash_of(condition.of(taught_by).file)
    _require_made_from(ensemble.measurement_sha256, made_from, path, command)
    return path, ensemble


def base_name(base: str) -> str:
    """Return the candidate that a thinning network starts from, as short as a label needs it."""
    families = base.removeprefix(ALTERNATING).split(LAST)
    return ", ".join(SHORT_NAMES.get(family, family) for family in families)


def arms_of(design: StudyDesign) -> dict[str, Arm]:
    """Return the arms of a study: those registered, and those that the design asks for."""
    arms = dict(ARMS)
    if design.training is None:
        arms.pop(PINN, None)
    if design.thinned is not None:
        arms[THINNING_NET] = thinning_net
        if design.thinned.self_taught:
            arms[SELF_TAUGHT] = self_taught
        if design.thinned.base_shown:
            arms[THINNED_BASE] = thinned_base
            if design.thinned.self_taught:
                arms[SELF_TAUGHT_BASE] = self_taught_base
    for name in design.iterative.algorithms:
        arms[key_of(name)] = partial(iterative, name)
        if design.iterative.denoised:
            arms[key_of(name, denoised=True)] = partial(denoised, name)
    for both in OTHER_NOISE_MODEL.items():
        if design.iterative.is_chosen and set(both) <= set(design.iterative.algorithms):
            arms[key_of(f"{both[0]}-{CHOSEN}")] = partial(chosen, both)
    if design.iterative.alternating:
        arms[SOLVER_ALTERNATING] = alternating
    return arms


def _existing(path: Path, label: str, command: str) -> Path:
    """Return the path of what an arm is made with, which must be there."""
    if not path.is_file():
        raise MissingResultError(f"{label}: {path} is not there; run `study {command}`")
    return path


def _require_made_from(found: str, expected: str, path: Path, command: str) -> None:
    """Check that a result was made from the view's file as it is now.

    Raises
    ------
    StudyError
        If it was made from other data.
    """
    if found != expected:
        raise StudyError(
            f"{path} was made from other data (SHA-256 {found[:8]}) than the view now holds "
            f"({expected[:8]}); run `study {command}` again"
        )


ARMS: dict[str, Arm] = {PINN: pinn}  # beside the algorithms of a design
