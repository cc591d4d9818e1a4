"""The denoiser of an iterative algorithm: chosen on the train split, applied to any split."""

import time
from pathlib import Path
from typing import Any

from study_lib.design.models import IterativeDesign
from study_lib.errors import InputError
from study_lib.files import read_json
from study_lib.physics.measurement import Measurement, thinned
from study_lib.seeding import generator
from study_lib.solvers.algorithms import run_algorithm
from study_lib.solvers.denoising import DenoiserChoice, LitPart, choose_denoiser

DENOISER = "denoiser.json"


def choose_for(
    algorithm: str, measurement: Measurement, design: IterativeDesign, *, seed: int
) -> dict[str, Any]:
    """Return the denoiser that suits an algorithm's objects, as plain data, and what it cost.

    The algorithm runs again on a share of the photons; the others judge what denoising makes of it.

    Parameters
    ----------
    algorithm
        As for :func:`study_lib.solvers.algorithms.run_algorithm`.
    measurement
        Of the train split.
    design
        The algorithm's settings, and the share of photons.
    seed
        Of the algorithm, and of the choice of photons.
    """
    started = time.process_time()
    part, held_out = thinned(
        measurement, design.judged_share, generator(seed, "denoiser", algorithm)
    )
    object_ = run_algorithm(algorithm, part, design, seed=seed).object_
    choice = choose_denoiser(object_, LitPart.of(part), held_out)
    return choice.record() | {
        "algorithm": algorithm,
        "judged_share": design.judged_share,
        "choice_cpu_s": time.process_time() - started,
    }


def read_denoiser(path: Path) -> tuple[DenoiserChoice, dict[str, Any]]:
    """Return a choice and all that was written beside it.

    Raises
    ------
    InputError
        If the file is not such a choice.
    """
    content: dict[str, Any] = read_json(path)
    try:
        return DenoiserChoice.from_record(content), content
    except (KeyError, TypeError) as error:
        raise InputError(
            f"{path}: not the choice of a denoiser ({error}); run `study reconstruct --split train`"
        ) from None
