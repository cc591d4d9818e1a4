"""The arms of the comparison: a registry of ways to an object, each with what it knows."""

import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
from jaxtyping import Complex, Float, Int

from study_lib.arm_names import (
    PINN,
    PINN_LABEL,
    THINNING_NET,
    THINNING_NET_LABEL,
    key_of,
    label_of,
)
from study_lib.data.archive import read_npz
from study_lib.design.models import StudyDesign
from study_lib.errors import InputError, StudyError
from study_lib.files import manifest_jobs
from study_lib.networks.machine import device_of
from study_lib.networks.pinn.bundle import BUNDLE, load_bundle
from study_lib.networks.pinn.inference import apply_network
from study_lib.networks.thinned.ensemble import (
    ENSEMBLE,
    load_ensemble,
    photon_spread,
    reconstruct_thinned,
)
from study_lib.phases.conditions import (
    RECONSTRUCTIONS,
    RESULT,
    arm_folder,
    thinned_folder,
    training_folder,
)
from study_lib.phases.reconstruct import DENOISER, read_denoiser
from study_lib.physics.measurement import Measurement
from study_lib.seeding import generator
from study_lib.solvers.denoising import LitPart


@dataclass(frozen=True)
class ArmRequest:
    """Which object is wanted, and where the phases before left their results.

    ``sha256`` and ``train_sha256`` are of the view's files of this and of the train split.
    """

    dose: float
    view: str
    gridsize: int
    split: str
    measurement: Measurement
    sha256: str
    train_sha256: str
    phase_e_root: Path
    phase_f_root: Path


@dataclass(frozen=True)
class ArmResult:
    """An object in the frame of the dataset, the patterns it was made from, and its cost.

    ``cpu_s`` is processor time for these patterns, ``training_cpu_s`` for what was learned before;
    ``phase_std_rad`` (oy, ox) is the arm's own estimate of its phase error, if it has one;
    ``device`` is what computed it here.
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


Arm = Callable[[ArmRequest], ArmResult]


class MissingResultError(InputError):
    """An arm has no result for a condition; its message says why."""


def pinn(request: ArmRequest) -> ArmResult:
    """Pass the view's patterns through the network trained on the train split of the same view."""
    folder = training_folder(request.phase_e_root, request.dose, request.view, request.gridsize)
    if not (folder / BUNDLE).is_file():
        raise MissingResultError(f"{PINN_LABEL}: {folder / BUNDLE} is not there; run `study train`")
    trained = load_bundle(folder / BUNDLE)
    _require_made_from(trained.measurement_sha256, request.train_sha256, folder / BUNDLE)
    device = str(device_of("auto"))
    started = time.process_time()
    object_ = apply_network(trained, request.measurement, device=device)
    return ArmResult(
        label=PINN_LABEL,
        knows="probe, positions; trained on the train split of this view",
        object_=object_,
        scan_index=request.measurement.scan_index,
        cpu_s=time.process_time() - started,
        training_cpu_s=trained.training_cpu_s,
        sources=(folder / BUNDLE,),
        device=device,
    )


def iterative(algorithm: str, request: ArmRequest) -> ArmResult:
    """Read the reconstruction that an iterative algorithm made of the same patterns."""
    condition = (request.dose, request.view, request.split)
    path = arm_folder(request.phase_f_root, *condition, algorithm) / RESULT
    if not path.is_file():
        raise MissingResultError(
            _why_missing(path, request.phase_f_root / RECONSTRUCTIONS, algorithm)
        )
    arrays, metadata = read_npz(path)
    missing = {"object", "scan_index"} - arrays.keys() | {"knows"} - metadata.keys()
    if missing:
        raise InputError(f"{path}: lacks {', '.join(sorted(missing))}; run `study reconstruct`")
    _require_made_from(str(metadata.get("measurement_sha256")), request.sha256, path)
    return ArmResult(
        label=label_of(algorithm),
        knows=str(metadata["knows"]),
        object_=arrays["object"],
        scan_index=arrays["scan_index"],
        cpu_s=float(metadata["reconstruction_cpu_s"]),
        training_cpu_s=0.0,
        sources=(path,),
    )


def denoised(algorithm: str, request: ArmRequest) -> ArmResult:
    """Denoise the reconstruction of an iterative algorithm as was chosen on the train split."""
    plain = iterative(algorithm, request)
    train = (request.dose, request.view, "train")
    path = arm_folder(request.phase_f_root, *train, algorithm) / DENOISER
    if not path.is_file():
        raise MissingResultError(
            f"{label_of(algorithm, denoised=True)}: {path} is not there; run "
            "`study reconstruct --split train`"
        )
    choice, written = read_denoiser(path)
    _require_made_from(str(written.get("measurement_sha256")), request.train_sha256, path)
    started = time.process_time()
    object_ = choice.applied(plain.object_, LitPart.of(request.measurement))
    return ArmResult(
        label=label_of(algorithm, denoised=True),
        knows=f"{plain.knows}; denoiser ({choice.family}) chosen on the train split of this view",
        object_=object_,
        scan_index=plain.scan_index,
        cpu_s=plain.cpu_s + time.process_time() - started,
        training_cpu_s=float(written["choice_cpu_s"]),
        sources=(*plain.sources, path),
    )


def thinning_net(request: ArmRequest) -> ArmResult:
    """Improve the solver's object by the ensemble that thinned counts of the train split taught."""
    path = thinned_folder(request.phase_e_root, request.dose, request.view) / ENSEMBLE
    if not path.is_file():
        raise MissingResultError(
            f"{THINNING_NET_LABEL}: {path} is not there; run `study train-thinned`"
        )
    ensemble = load_ensemble(path)
    _require_made_from(ensemble.measurement_sha256, request.train_sha256, path)
    measurement = request.measurement
    started = time.process_time()
    found = reconstruct_thinned(ensemble, measurement)
    cpu_s = time.process_time() - started
    photons_rad = photon_spread(
        ensemble, measurement, generator(ensemble.seed, "photon spread", request.split)
    )
    base = "" if ensemble.trust.given else "; its network was not trusted, this is its base"
    return ArmResult(
        label=THINNING_NET_LABEL,
        knows=f"probe, positions; trained on the train split of this view{base}",
        object_=found.object_,
        scan_index=measurement.scan_index,
        cpu_s=cpu_s,
        training_cpu_s=ensemble.training_cpu_s,
        sources=(path,),
        phase_std_rad=np.hypot(found.members_rad, photons_rad),
    )


def arms_of(design: StudyDesign) -> dict[str, Arm]:
    """Return the arms of a study: those registered, and those that the design asks for."""
    arms = dict(ARMS)
    if design.thinned is not None:
        arms[THINNING_NET] = thinning_net
    for name in design.iterative.algorithms:
        arms[key_of(name)] = partial(iterative, name)
        if design.iterative.denoised:
            arms[key_of(name, denoised=True)] = partial(denoised, name)
    return arms


def _why_missing(path: Path, manifest: Path, algorithm: str) -> str:
    """Return what the manifest says of a result that is not there."""
    key = path.parent.relative_to(manifest.parent).as_posix()
    record = manifest_jobs(manifest).get(key, {}) if manifest.is_file() else {}
    reason = record.get("error") or "it was not run; run `study reconstruct`"
    return f"{algorithm}: {reason}"


def _require_made_from(found: str, expected: str, path: Path) -> None:
    """Check that a result was made from the view's file as it is now.

    Raises
    ------
    StudyError
        If it was made from other data.
    """
    if found != expected:
        raise StudyError(
            f"{path} was made from other data (SHA-256 {found[:8]}) than the view now holds "
            f"({expected[:8]}); run its phase again"
        )


ARMS: dict[str, Arm] = {PINN: pinn}  # beside the algorithms of a design
