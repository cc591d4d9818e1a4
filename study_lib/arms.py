"""The arms of the comparison: a registry of ways to an object, each with what it knows."""

import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from jaxtyping import Complex, Int

from study_lib.contract import read_arrays
from study_lib.errors import InputError
from study_lib.measurement import Measurement
from study_lib.paths import reconstruction_folder, training_folder
from study_lib.reconstruction_job import RESULT
from study_lib.training import reconstruct
from study_lib.training_job import BUNDLE, load_bundle


@dataclass(frozen=True)
class ArmRequest:
    """Which object is wanted, and where the phases before left their results."""

    dose: float
    view: str
    gridsize: int
    split: str
    measurement: Measurement
    phase_e_root: Path
    phase_f_root: Path


@dataclass(frozen=True)
class ArmResult:
    """An object in the frame of the dataset, the patterns it was made from, and its cost.

    ``seconds`` are for these patterns, ``training_s`` for what was learned before.
    """

    label: str
    knows: str
    object_: Complex[np.ndarray, "oy ox"]
    scan_index: Int[np.ndarray, " scan"]
    seconds: float
    training_s: float
    sources: tuple[Path, ...]


def pinn(request: ArmRequest) -> ArmResult:
    """Pass the view's patterns through the network trained on the train split of the same view."""
    folder = training_folder(request.phase_e_root, request.dose, request.view, request.gridsize)
    trained = load_bundle(folder / BUNDLE)
    started = time.perf_counter()
    object_ = reconstruct(trained, request.measurement)
    return ArmResult(
        label=f"PtychoPINN gs{request.gridsize}",
        knows="probe, positions; trained on the train split of this view",
        object_=object_,
        scan_index=request.measurement.scan_index,
        seconds=time.perf_counter() - started,
        training_s=trained.training_s,
        sources=(folder / BUNDLE,),
    )


def lsqml(request: ArmRequest) -> ArmResult:
    """Read the iterative reconstruction of the same patterns."""
    folder = reconstruction_folder(request.phase_f_root, request.dose, request.view, request.split)
    path = folder / RESULT
    arrays, metadata = read_arrays(path)
    missing = {"object", "scan_index"} - arrays.keys()
    if missing:
        raise InputError(f"{path}: lacks {', '.join(sorted(missing))}; run `study reconstruct`")
    return ArmResult(
        label="LSQML",
        knows="probe, positions; uniform start",
        object_=arrays["object"],
        scan_index=arrays["scan_index"],
        seconds=float(metadata["reconstruction_s"]),
        training_s=0.0,
        sources=(path,),
    )


ARMS: dict[str, Callable[[ArmRequest], ArmResult]] = {"pinn": pinn, "lsqml": lsqml}
