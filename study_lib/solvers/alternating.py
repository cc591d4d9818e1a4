"""The solver's steps and a denoiser in turn: the counts are fitted by objects without much noise.

Each epoch takes one accelerated, preconditioned step down the Poisson objective, as the solver
does, and denoises what it finds. Where a scan is sparse, what denoising tells of one pixel helps
the data to tell its neighbours (Venkatakrishnan, Bouman and Wohlberg, GlobalSIP 2013,
doi:10.1109/GlobalSIP.2013.6737048).
"""

import numpy as np
import torch
from jaxtyping import Complex

from study_lib.physics.measurement import Measurement
from study_lib.solvers.denoiser_choice import LitPart
from study_lib.solvers.denoising import denoised
from study_lib.solvers.solver import pattern_model
from study_lib.solvers.solver_settings import SolverSettings
from study_lib.solvers.solver_steps import next_momentum, object_step, rms_width_px

EPOCHS = 10
STEP = 0.5  # of the solver, for Poisson counts


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
        As for :func:`study_lib.solvers.denoising.denoised`.
    lit
        What the measurement lights.
    epochs
        How often.
    """
    settings = SolverSettings()
    probe = torch.from_numpy(measurement.probe.astype(np.complex64))
    positions = torch.from_numpy(measurement.positions_px.astype(np.float64))
    bad = measurement.bad_pixels
    good = torch.ones(probe.shape, dtype=torch.bool) if bad is None else torch.from_numpy(~bad)
    amplitudes = torch.from_numpy(np.ascontiguousarray(measurement.amplitudes, dtype=np.float32))
    model = pattern_model(amplitudes, positions, good, torch.zeros_like(good), settings)
    light = model.illumination(probe, positions)
    corner = settings.slow_phase / (2 * np.pi * rms_width_px(probe))

    def smoothed(flat: torch.Tensor) -> torch.Tensor:
        image = flat.numpy().reshape(model.box)
        return torch.from_numpy(denoised(image, family, strength, lit.noise)).flatten()

    current = previous = smoothed(torch.from_numpy(start[lit.box].astype(np.complex64)).flatten())
    age = 1.0
    for _ in range(epochs):
        age, weight = next_momentum(age, settings.momentum)
        point = torch.lerp(previous, current, 1 + weight)
        gradient = model.run(point, probe, positions).object_gradient
        step = object_step(
            point,
            gradient,
            light,
            box=model.box,
            damping=settings.damping,
            corner_per_px=corner,
        )
        previous, current = current, smoothed(point - STEP * step)
    result = start.copy()
    result[lit.box] = current.numpy().reshape(model.box)
    return result
