"""The project's own iterative solver: full-batch, preconditioned, accelerated gradient descent.

Every epoch is one pass over all patterns (:mod:`study_lib.solvers.pattern_model`) and one step of the
object, and of probe and positions if they are unknown (:mod:`study_lib.solvers.solver_steps`), by the rules
of :mod:`study_lib.solvers.solver_epochs`. It knows the patterns, their positions and the probe, and starts
from a uniform object.
"""

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from jaxtyping import Bool, Complex, Float
from torch import Tensor

from study_lib.errors import InputError, StudyError
from study_lib.physics.forward import expected_counts
from study_lib.physics.measurement import Measurement
from study_lib.solvers.checks import lonely_remarks
from study_lib.solvers.pattern_model import PatternModel
from study_lib.solvers.solver_epochs import SolverState, Stop, answer_of, next_state, stop_of
from study_lib.solvers.solver_settings import SolverSettings, require_solvable
from study_lib.solvers.solver_steps import Estimate, rms_width_px

CACHED_PIXELS = 2**16
GPU_CHUNK = 256
DEFAULTS = SolverSettings()


@dataclass(frozen=True)
class SolverResult:
    """What the solver found.

    ``object_`` (oy, ox) is in the frame of the positions, one where no light falls; ``probe``
    (n, n) and ``positions_px`` (scan, 2) are the given ones unless refined. ``losses`` (epochs,)
    are means per scored detector pixel at the start of each epoch: squared differences of
    amplitudes, or half deviances; ``held_out`` (epochs,) are the same of held-out counts, empty if
    none were. ``stop`` says what ended the run, ``remarks`` what makes it doubtful.
    """

    object_: Complex[np.ndarray, "oy ox"]
    probe: Complex[np.ndarray, "n n"]
    positions_px: Float[np.ndarray, "scan 2"]
    losses: Float[np.ndarray, " epochs"]
    held_out: Float[np.ndarray, " judged"]
    wall_s: Float[np.ndarray, " epochs"]
    cpu_s: Float[np.ndarray, " epochs"]
    stop: Stop
    remarks: tuple[str, ...]
    settings: dict[str, Any]
    state: SolverState = field(repr=False)


def reconstruct_measurement(
    measurement: Measurement,
    settings: SolverSettings = DEFAULTS,
    *,
    progress: Callable[[int, int, float], None] | None = None,
) -> SolverResult:
    """Return the object that explains a measurement; see :func:`reconstruct`."""
    return reconstruct(
        amplitudes=measurement.amplitudes,
        positions_px=measurement.positions_px,
        probe=measurement.probe,
        object_shape=measurement.object_shape,
        bad_pixels=measurement.bad_pixels,
        settings=settings,
        progress=progress,
    )


def reconstruct(
    *,
    amplitudes: Float[np.ndarray, "scan n n"],
    positions_px: Float[np.ndarray, "scan 2"],
    probe: Complex[np.ndarray, "n n"],
    object_shape: tuple[int, int],
    bad_pixels: Bool[np.ndarray, "n n"] | None = None,
    settings: SolverSettings = DEFAULTS,
    resume: SolverState | None = None,
    progress: Callable[[int, int, float], None] | None = None,
) -> SolverResult:
    """Return the object that explains the patterns, from a uniform start.

    Parameters
    ----------
    amplitudes : (scan, n, n)
        Square roots of the counts, zero frequency in the centre.
    positions_px : (scan, 2)
        (row, column) of the patch centres in object pixels.
    probe : (n, n)
        Illumination in sqrt(photons) per pixel.
    object_shape
        (rows, columns) of the object, lit or not.
    bad_pixels : (n, n)
        True where no count is valid; such pixels have no say.
    settings
        Objective, steps, when to stop, what else is unknown.
    resume
        The state of an earlier result of the same patterns; its epochs count.
    progress
        Called after each epoch with (epochs done, epochs at most, loss).

    Raises
    ------
    InputError
        If the arrays do not fit together or hold no light, or the state is of other patterns.
    StudyError
        If the numbers leave the range of single precision.
    """
    require_solvable(amplitudes, positions_px, probe, object_shape, bad_pixels)
    model, state = _prepared(amplitudes, positions_px, probe, bad_pixels, settings)
    light = model.illumination(state.current.probe, state.current.positions_px)
    given = torch.from_numpy(probe), torch.from_numpy(positions_px)
    remarks = lonely_remarks(*given, object_shape)
    corner = settings.slow_phase / (2 * np.pi * rms_width_px(state.current.probe))
    if resume is not None:
        _require_same(resume, state)
        state = resume.to(settings.device)
    stop = stop_of(state, settings)
    while stop is None:
        state = next_state(model, state, settings, light, corner)
        if progress:
            progress(len(state.losses), settings.epochs, state.losses[-1])
        stop = stop_of(state, settings)
    found = answer_of(state, stop)
    return SolverResult(
        object_=_pasted(found, model, object_shape, light),
        probe=found.probe.cpu().numpy() if settings.refine_probe else probe.astype(np.complex64),
        positions_px=found.positions_px.cpu().numpy().astype(np.float64),
        losses=np.array(state.losses),
        held_out=np.array(state.held_out),
        wall_s=np.array(state.wall_s),
        cpu_s=np.array(state.cpu_s),
        stop=stop,
        remarks=remarks,
        settings=settings.record(),
        state=state.to("cpu"),
    )


def _prepared(
    amplitudes: np.ndarray,
    positions_px: np.ndarray,
    probe: np.ndarray,
    bad_pixels: np.ndarray | None,
    settings: SolverSettings,
) -> tuple[PatternModel, SolverState]:
    """Return the model of the patterns and the uniform start."""
    device, side = settings.device, probe.shape[0]
    good = torch.ones(side, side, dtype=torch.bool)
    if bad_pixels is not None:
        good = torch.from_numpy(~bad_pixels)
    draw = torch.rand(side, side, generator=torch.Generator().manual_seed(settings.seed))
    held_out = good & (draw < settings.held_out_share)
    scored = good & ~held_out
    if not bool(scored.any()):
        raise InputError(
            f"all {int(good.sum())} good detector pixels are held out; lower held_out_share"
        )
    roots = torch.from_numpy(np.ascontiguousarray(amplitudes, dtype=np.float32)).to(device)
    wave = torch.from_numpy(probe.astype(np.complex64)).to(device)
    positions = torch.from_numpy(positions_px.astype(np.float64)).to(device)
    model = pattern_model(roots, positions, scored.to(device), held_out.to(device), settings)
    modulus = _uniform_modulus(roots, wave, scored.to(device), model.chunk)
    pixels = model.box[0] * model.box[1]
    start = Estimate(
        torch.full((pixels,), modulus, dtype=torch.complex64, device=device), wave, positions
    )
    step = 0.5 if settings.objective == "poisson" else 1.0
    # Object and probe together: the curvature of a product is at most twice the sum of both.
    step *= 0.5 if settings.refine_probe else 1.0
    return model, SolverState(start, start, start, start, step=step)


def pattern_model(
    amplitudes: Float[Tensor, "scan n n"],
    positions_px: Float[Tensor, "scan 2"],
    scored: Bool[Tensor, "n n"],
    held_out: Bool[Tensor, "n n"],
    settings: SolverSettings,
) -> PatternModel:
    """Return the patterns as the solver sees them; see :class:`PatternModel`."""
    side, on_gpu = amplitudes.shape[-1], settings.device == "cuda"
    chunk = settings.chunk or (GPU_CHUNK if on_gpu else max(1, CACHED_PIXELS // side**2))
    return PatternModel(
        amplitudes=amplitudes,
        positions_px=positions_px,
        scored=scored,
        held_out=held_out,
        objective=settings.objective,
        offset=settings.offset,
        chunk=chunk,
        stored_bytes=settings.stored_bytes,
    )


def _uniform_modulus(
    roots: Float[Tensor, "scan n n"],
    probe: Complex[Tensor, "n n"],
    scored: Bool[Tensor, "n n"],
    chunk: int,
) -> float:
    """Return the modulus of the uniform object that gives as many photons as were counted.

    `chunk` patterns are squared at a time.
    """
    predicted = float(expected_counts(probe)[scored].sum(dtype=torch.float64)) * len(roots)
    counted = sum(
        photons
        for part in roots.split(chunk)
        for photons in part[:, scored].square().sum(dim=1, dtype=torch.float64).tolist()
    )
    return (counted / predicted) ** 0.5 if predicted > 0 else 1.0


def _require_same(resume: SolverState, start: SolverState) -> None:
    for name in ("object_", "probe", "positions_px"):
        found = getattr(resume.current, name).shape
        expected = getattr(start.current, name).shape
        if found != expected:
            raise InputError(
                f"the state to resume has {name} of shape {tuple(found)}, these patterns need "
                f"{tuple(expected)}; resume with the patterns it came from"
            )


def _pasted(
    found: Estimate,
    model: PatternModel,
    object_shape: tuple[int, int],
    light: Float[Tensor, " pixel"],
) -> Complex[np.ndarray, "oy ox"]:
    """Return the object in its own frame, one where no light falls."""
    patch = torch.where(light > 0, found.object_, torch.ones_like(found.object_))
    if not bool(torch.isfinite(torch.view_as_real(patch)).all()):
        raise StudyError("the object is not finite; check the scale of probe and counts")
    object_: np.ndarray = np.ones(object_shape, np.complex64)
    row, column = model.first_px.tolist()
    rows, columns = model.box
    object_[row : row + rows, column : column + columns] = patch.cpu().numpy().reshape(model.box)
    return object_
