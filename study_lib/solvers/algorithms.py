"""The iterative algorithms of the study by name; each gets the same patterns, positions, probe."""

import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from jaxtyping import Complex, Float

from study_lib.arm_names import algorithm_of
from study_lib.design.methods import IterativeDesign
from study_lib.errors import StudyError
from study_lib.physics.likelihood import pattern_residuals
from study_lib.physics.measurement import Measurement
from study_lib.solvers import ptychi as ptychi_engine
from study_lib.solvers import solver
from study_lib.solvers.solver import SolverResult, SolverSettings

SOLVER = "solver"
DEVICE = "cpu"  # of every algorithm; pty-chi has it in its options
Progress = Callable[[int, int, float], None]


@dataclass(frozen=True)
class IterativeResult:
    """What an algorithm found.

    ``object_`` (oy, ox) is in the frame of the object of the dataset, one where no pattern falls;
    ``positions_px`` (scan, 2) are the given ones unless refined; ``losses`` and ``wall_s``
    (epochs,) are the algorithm's own loss and the time since its start after each epoch;
    ``residuals`` (scan,) are half deviances per pixel, the same measure for all; ``stop`` says what
    ended the run, ``remarks`` what makes the result doubtful.
    """

    object_: Complex[np.ndarray, "oy ox"]
    probe: Complex[np.ndarray, "*modes n n"]
    positions_px: Float[np.ndarray, "scan 2"]
    losses: Float[np.ndarray, " epochs"]
    wall_s: Float[np.ndarray, " epochs"]
    residuals: Float[np.ndarray, " scan"]
    cpu_s: float
    stop: str
    remarks: tuple[str, ...]
    options: dict[str, Any]


def run_algorithm(
    algorithm: str,
    measurement: Measurement,
    design: IterativeDesign,
    *,
    seed: int,
    progress: Progress | None = None,
) -> IterativeResult:
    """Reconstruct every pattern of a measurement from a uniform object.

    Parameters
    ----------
    algorithm
        ``solver``, or an engine of pty-chi; ``solver-amplitude`` and ``LSQML-poisson`` are these
        two with the noise model of their name.
    measurement
        All that the algorithm is given.
    design
        Epochs, batches, noise model, whether the probe is known.
    seed
        Order of batches, or held-out pixels.
    progress
        Called after each epoch with (epochs done, epochs at most, loss).

    Raises
    ------
    InputError
        If there is nothing to reconstruct, a patch leaves the object, or the algorithm cannot do
        what is asked.
    StudyError
        If pty-chi is absent, or the numbers do not stay finite.
    """
    found: SolverResult | ptychi_engine.EngineResult
    refine_probe, refine_positions = design.probe == "refine", design.positions == "refine"
    engine = algorithm_of(algorithm)
    if engine == SOLVER:
        objective = "amplitude" if algorithm != SOLVER else design.solver.objective
        settings = SolverSettings(
            **design.solver.model_dump() | {"objective": objective},
            seed=seed,
            refine_probe=refine_probe,
            refine_positions=refine_positions,
            device=DEVICE,
        )
        started = time.process_time()
        found = solver.solve_measurement(measurement, settings, progress=progress)
        cpu_s = time.process_time() - started
        wall_s, stop, options = found.wall_s.cumsum(), str(found.stop), found.settings
    else:
        lsqml = engine == "LSQML"
        noise_model = "poisson" if algorithm != engine else design.noise_model
        found = ptychi_engine.run_ptychi(
            algorithm=engine,
            amplitudes=measurement.amplitudes,
            positions_px=measurement.positions_px,
            probe=measurement.probe,
            object_shape=measurement.object_shape,
            bad_pixels=measurement.bad_pixels,
            background=measurement.background,
            epochs=design.epochs,
            batch_size=design.batch_size,
            noise_model=noise_model if lsqml else "gaussian",
            momentum=design.momentum if lsqml else 0.0,
            seed=seed,
            refine_probe=refine_probe,
            refine_positions=refine_positions,
            tolerance=design.tolerance if lsqml else 0.0,
            progress=progress,
        )
        cpu_s, wall_s = found.cpu_s, found.wall_s
        stop, options = found.stop, found.options
    placed = replace(measurement, positions_px=found.positions_px)
    residuals = pattern_residuals(placed, found.object_, found.probe)
    remarks = (*found.remarks, *_doubts(residuals, measurement))
    if not (np.isfinite(found.object_).all() and np.isfinite(found.probe).all()):
        raise StudyError(f"{algorithm}: object or probe are not finite; nothing was written")
    return IterativeResult(
        found.object_,
        found.probe,
        found.positions_px,
        found.losses,
        wall_s,
        residuals,
        cpu_s,
        stop,
        remarks,
        options,
    )


def _doubts(residuals: Float[np.ndarray, " scan"], measurement: Measurement) -> tuple[str, ...]:
    """Return whether an object explains the counts no better than one without features."""
    uniform = pattern_residuals(
        measurement, np.ones(measurement.object_shape, np.complex64), measurement.probe
    )
    if residuals.mean() < uniform.mean():
        return ()
    return (
        f"it explains the counts no better than an object of ones ({residuals.mean():.3g} half "
        f"deviance per pixel, ones {uniform.mean():.3g}): it did not converge",
    )
