"""The project's own iterative solver: full-batch, preconditioned, accelerated gradient descent.

Every epoch is one pass over all patterns (:mod:`study_lib.solvers.pattern_model`) and one step of
the object, and of probe, positions and background if they are unknown. It knows the patterns, their
positions and the probe, one mode or several, and starts from a uniform object.
"""

import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, field, replace
from typing import Any, Literal

import numpy as np
import torch
from jaxtyping import Bool, Complex, Float
from torch import Tensor

from study_lib.errors import InputError, StudyError
from study_lib.physics.forward import expected_counts, summed_over_modes
from study_lib.physics.measurement import Measurement
from study_lib.physics.probe import orthogonal_modes
from study_lib.solvers.checks import remarks_on_isolated_patterns, require_solvable
from study_lib.solvers.pattern_model import OBJECTIVES, Objective, Pass, PatternModel
from study_lib.solvers.steps import (
    next_momentum,
    object_step,
    probe_step,
    rms_width_px,
    total_variation,
    tv_curvature,
)

# --- What is known of a scene

ROUNDING = 1e-6  # relative rise of the objective that is not taken for one


@dataclass(frozen=True)
class Estimate:
    """What is known of the scene.

    Object (pixel,) of the box; probe, (n, n) or of several modes; positions (scan, 2); background
    (n, n), None for none.
    """

    object_: Complex[Tensor, " pixel"]
    probe: Complex[Tensor, "*modes n n"]
    positions_px: Float[Tensor, "scan 2"]
    background: Float[Tensor, "n n"] | None = None

    def beyond(self, previous: "Estimate", weight: float) -> "Estimate":
        """Return the estimate moved on by a share of its last change; the rest stays."""
        if weight == 0:
            return self
        return replace(
            self,
            object_=torch.lerp(previous.object_, self.object_, 1 + weight),
            probe=self.probe
            if self.probe is previous.probe
            else torch.lerp(previous.probe, self.probe, 1 + weight),
        )

    def to(self, device: str) -> "Estimate":
        """Return the estimate on a device."""
        return Estimate(
            self.object_.to(device),
            self.probe.to(device),
            self.positions_px.to(device),
            None if self.background is None else self.background.to(device),
        )


# --- Settings

BOUNDS = {
    "epochs": (1, 10**6),
    "offset": (1e-6, 1e6),
    "damping": (1e-3, 1.0),
    "momentum": (0.0, 0.999),
    "slow_phase": (0.0, 10.0),
    "tolerance": (0.0, 1.0),
    "total_variation": (0.0, 1e9),
    "held_out_share": (0.0, 0.5),
    "patience": (1, 10**6),
    "seed": (0, 2**63 - 1),
    "position_start": (1, 10**6),
    "position_limit_px": (0.0, 100.0),
    "chunk": (0, 10**6),
    "stored_bytes": (0, 2**50),
}


@dataclass(frozen=True)
class SolverSettings:
    """How the solver goes about it.

    Objective, offset, damping, momentum, slow phases and tolerance were chosen by counts held out
    of *training* patterns at 1e3, 1e4 and 1e5 photons, never by an object:
    ``python benchmarks/solver.py --tune``. Momentum from 0.8 to 0.98 makes no difference there.

    Parameters
    ----------
    epochs
        Most passes over the patterns.
    objective
        ``amplitude`` or ``poisson``, see :mod:`study_lib.solvers.pattern_model`.
    offset
        Photons per pixel that bound the gradient of ``poisson``.
    damping
        Share of the brightest pixel's light in the preconditioner of every pixel (rPIE's alpha).
    momentum
        Largest weight of the last change.
    slow_phase
        Up to which wave, relative to one radian across the probe's rms width, slow phases
        of the object take longer steps; 0 for none.
    tolerance
        Relative fall of the objective per epoch, mean of five, below which it has converged.
    total_variation
        Photons that a jump of 1 in the transmission, one pixel long, costs; 0 for none.
    held_out_share
        Share of the detector pixels whose counts are kept back to stop by; 0 for none. They are
        the same for all patterns: kept-back patterns would thin the scan, and every frequency is
        still seen through its neighbours, as a pattern is oversampled.
    patience
        Epochs without better held-out counts before the solver stops.
    seed
        Which detector pixels are held out. Nothing else is random.
    refine_probe, refine_positions
        Whether these are unknowns too; of a probe all its modes.
    refine_background
        Whether the background is an unknown too, from what is given on: a pixel without any gets
        none. It follows the likelihood of the counts under either objective.
    position_start, position_limit_px
        First epoch that moves positions; how far they may go along each axis.
    chunk
        Patterns at once; 0: as many as fit the processor's cache, or 256 on a GPU.
    stored_bytes
        Memory for the shifted probes; where they need more they are made anew in every epoch,
        which takes half as long again.
    device
        ``cpu`` or ``cuda``.
    """

    epochs: int = 100
    objective: Objective = "poisson"
    offset: float = 0.02
    damping: float = 0.3
    momentum: float = 0.9
    slow_phase: float = 1.0
    tolerance: float = 1e-3
    total_variation: float = 0.0
    held_out_share: float = 0.0
    patience: int = 5
    seed: int = 0
    refine_probe: bool = False
    refine_positions: bool = False
    refine_background: bool = False
    position_start: int = 10
    position_limit_px: float = 2.0
    chunk: int = 0
    stored_bytes: int = 2**30
    device: str = "cpu"

    def __post_init__(self) -> None:
        for name, (low, high) in BOUNDS.items():
            value = getattr(self, name)
            if not low <= value <= high:
                raise InputError(f"{name} is {value}; choose from {low:g} to {high:g}")
        if self.objective not in OBJECTIVES:
            raise InputError(
                f"objective is {self.objective!r}; choose one of {', '.join(OBJECTIVES)}"
            )
        if self.device not in {"cpu", "cuda"}:
            raise InputError(f"device is {self.device!r}; choose cpu or cuda")
        if self.device == "cuda" and not torch.cuda.is_available():
            raise InputError("device is cuda, but torch finds no GPU here; choose cpu")


# --- Epochs: momentum, safeguards, and when to stop

Stop = Literal["converged", "held-out counts rose", "epochs used up"]
WINDOW = 5  # epochs over which convergence is judged
SMALLEST_STEP = 2.0**-12  # shorter steps that all rise: rounding is all that is left
FAR = 1.1  # times the lowest objective, beyond which momentum went astray


@dataclass(frozen=True)
class SolverState:
    """All that the next epoch needs: hand it back to go on as if never interrupted.

    It lives on the device of the settings while the solver works, on the CPU in a result.
    ``since`` is the last epoch that shortened the steps; ``lowest`` is where the objective was
    lowest, ``best`` where the held-out counts were explained best. ``losses`` and ``held_out`` are
    the objective and that of held-out counts, per detector pixel, at the start of every epoch.
    """

    current: Estimate
    previous: Estimate
    lowest: Estimate
    best: Estimate
    age: float = 1.0
    weight: float = 0.0
    step: float = 1.0
    since: int = 0
    losses: tuple[float, ...] = ()
    held_out: tuple[float, ...] = ()
    wall_s: tuple[float, ...] = ()
    cpu_s: tuple[float, ...] = ()

    def to(self, device: str) -> "SolverState":
        """Return the state on a device."""
        names = ("current", "previous", "lowest", "best")
        return replace(self, **{name: getattr(self, name).to(device) for name in names})


def next_state(
    model: PatternModel,
    state: SolverState,
    settings: SolverSettings,
    light: Float[Tensor, " pixel"],
    corner: float,
) -> SolverState:
    """Return the state after one pass over the patterns and one step.

    Where the objective rises the momentum is dropped; where it rises without any, or far, the
    solver goes back to where it was lowest and takes a quarter of its steps.
    """
    wall_s, cpu_s = time.perf_counter(), time.process_time()
    point = state.current.beyond(state.previous, state.weight)
    moves = settings.refine_positions and len(state.losses) + 1 >= settings.position_start
    found = model.run(
        point.object_,
        point.probe,
        point.positions_px,
        point.background,
        refine_probe=settings.refine_probe,
        refine_positions=moves,
        refine_background=settings.refine_background,
    )
    loss = found.objective if found.deviance is None else found.deviance
    gradient = found.object_gradient
    if settings.total_variation:
        value, slope = total_variation(point.object_, model.box)
        loss += settings.total_variation * value / model.scored_pixels
        gradient = gradient + settings.total_variation * slope
    if not (np.isfinite(loss) or state.losses):
        raise StudyError(
            f"the objective is {loss} at the uniform start; check the scale of probe and counts"
        )
    rises = bool(state.losses) and not loss <= state.losses[-1] * (1 + ROUNDING)
    lowest = point if loss < min(state.losses, default=np.inf) else state.lowest
    best = state.best
    if found.held_out is not None and found.held_out <= min(state.held_out, default=np.inf):
        best = point
    if rises and (state.weight == 0 or not loss < FAR * min(state.losses)):
        new, previous, age, weight, step = lowest, lowest, 1.0, 0.0, state.step / 4
        since = len(state.losses) + 1
    else:
        step, since, previous = state.step, state.since, state.current
        brightness = light if found.illumination is None else found.illumination
        new = _stepped(model, point, found, gradient, brightness, step, settings, corner)
        against = torch.vdot(gradient, new.object_ - previous.object_).real > 0
        age, weight = (
            (1.0, 0.0) if rises or bool(against) else next_momentum(state.age, settings.momentum)
        )
    return SolverState(
        current=new,
        previous=previous,
        lowest=lowest,
        best=best,
        age=age,
        weight=weight,
        step=step,
        since=since,
        losses=(*state.losses, loss),
        held_out=state.held_out if found.held_out is None else (*state.held_out, found.held_out),
        wall_s=(*state.wall_s, time.perf_counter() - wall_s),
        cpu_s=(*state.cpu_s, time.process_time() - cpu_s),
    )


def _stepped(
    model: PatternModel,
    point: Estimate,
    found: Pass,
    gradient: Complex[Tensor, " pixel"],
    light: Float[Tensor, " pixel"],
    step: float,
    settings: SolverSettings,
    corner: float,
) -> Estimate:
    """Return the estimate one preconditioned step below a point."""
    object_ = point.object_ - step * object_step(
        point.object_,
        gradient,
        light + tv_curvature(settings.total_variation),
        box=model.box,
        damping=settings.damping,
        corner_per_px=corner,
    )
    probe, positions = point.probe, point.positions_px
    if found.probe_gradient is not None and found.probe_weight is not None:
        probe = probe - step * probe_step(
            found.probe_gradient, found.probe_weight, damping=settings.damping
        )
    if found.position_steps_px is not None:
        positions = model.moved(
            positions, step * found.position_steps_px, settings.position_limit_px
        )
    background = point.background
    if background is not None and found.background_share is not None:
        background = background * found.background_share
    return Estimate(object_, probe, positions, background)


def stop_of(state: SolverState, settings: SolverSettings) -> Stop | None:
    """Return why to stop, or None to go on."""
    losses, judged = state.losses, state.held_out
    if judged and len(judged) - 1 - int(np.argmin(judged)) >= settings.patience:
        return "held-out counts rose"
    since = max(state.since, settings.position_start if settings.refine_positions else 0)
    if len(losses) > since + WINDOW:
        before = min(losses[:-WINDOW])
        if before - min(losses) < WINDOW * settings.tolerance * before:
            return "converged"
    if state.step < SMALLEST_STEP:
        return "converged"
    return "epochs used up" if len(losses) >= settings.epochs else None


def answer_of(state: SolverState, stop: Stop) -> Estimate:
    """Return the best of what was visited, by the held-out counts or the objective."""
    if stop == "held-out counts rose":
        return state.best
    has_risen = len(state.losses) > 1 and not state.losses[-1] <= state.losses[-2] * (1 + ROUNDING)
    return state.lowest if has_risen else state.current


# --- Reconstruction

CACHED_PIXELS = 2**16
GPU_CHUNK = 256
LEAST_LIT_SHARE = 1e-3
DEFAULTS = SolverSettings()


@dataclass(frozen=True)
class SolverResult:
    """What the solver found.

    ``object_`` (oy, ox) is in the frame of the positions, one where no light falls; ``probe``,
    (n, n) or (modes, n, n), ``positions_px`` (scan, 2) and ``background`` (n, n) are the given ones
    unless refined; refined modes are orthogonal, the strongest first. ``losses`` (epochs,)
    are means per scored detector pixel at the start of each epoch: squared differences of
    amplitudes, or half deviances, as always where the background is refined; ``held_out`` (epochs,)
    are the objective of held-out counts, empty if none were. ``stop`` says what ended the run,
    ``remarks`` what makes it doubtful.
    """

    object_: Complex[np.ndarray, "oy ox"]
    probe: Complex[np.ndarray, "*modes n n"]
    positions_px: Float[np.ndarray, "scan 2"]
    background: Float[np.ndarray, "n n"] | None
    losses: Float[np.ndarray, " epochs"]
    held_out: Float[np.ndarray, " judged"]
    wall_s: Float[np.ndarray, " epochs"]
    cpu_s: Float[np.ndarray, " epochs"]
    stop: Stop
    remarks: tuple[str, ...]
    settings: dict[str, Any]
    state: SolverState = field(repr=False)


def solve_measurement(
    measurement: Measurement,
    settings: SolverSettings = DEFAULTS,
    *,
    progress: Callable[[int, int, float], None] | None = None,
) -> SolverResult:
    """Return the object that explains a measurement; see :func:`solve`."""
    return solve(
        amplitudes=measurement.amplitudes,
        positions_px=measurement.positions_px,
        probe=measurement.probe,
        object_shape=measurement.object_shape,
        bad_pixels=measurement.bad_pixels,
        background=measurement.background,
        settings=settings,
        progress=progress,
    )


def solve(
    *,
    amplitudes: Float[np.ndarray, "scan n n"],
    positions_px: Float[np.ndarray, "scan 2"],
    probe: Complex[np.ndarray, "*modes n n"],
    object_shape: tuple[int, int],
    bad_pixels: Bool[np.ndarray, "*each n n"] | None = None,
    background: Float[np.ndarray, "n n"] | None = None,
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
    probe : (n, n) or (modes, n, n)
        Illumination in sqrt(photons) per pixel; intensities of modes add. More modes than are
        known: :func:`study_lib.physics.probe.with_more_modes`.
    object_shape
        (rows, columns) of the object, lit or not.
    bad_pixels : (n, n) or (scan, n, n)
        True where no count is valid, in all patterns or in each; such pixels have no say.
    background : (n, n)
        Expected counts that do not come from the object, the same in every pattern.
    settings
        Objective, steps, when to stop, what else is unknown.
    resume
        The state of an earlier result of the same patterns; its epochs count.
    progress
        Called after each epoch with (epochs done, epochs at most, loss).

    Returns
    -------
    SolverResult
        ``object_`` (oy, ox), ``probe`` as given, ``positions_px`` (scan, 2), ``losses`` (epochs,).

    Raises
    ------
    InputError
        If the arrays do not fit together or hold no light, or the state is of other patterns.
    StudyError
        If the numbers leave the range of single precision.

    References
    ----------
    Poisson likelihood of patterns: Thibault and Guizar-Sicairos, New J. Phys. 14, 063004 (2012),
    doi:10.1088/1367-2630/14/6/063004. Modes: Thibault and Menzel, Nature 494, 68 (2013),
    doi:10.1038/nature11806

    Examples
    --------
    Counts of a known scene; from them, the probe and the positions back to its object:

    >>> import numpy as np
    >>> import torch
    >>> import study_lib as study
    >>> scene = study.scene_of(study.load_design("smoke"))
    >>> positions, probe = scene.positions_of("test"), 300 * scene.probe
    >>> waves = study.forward.exit_waves(
    ...     *(torch.from_numpy(array) for array in (probe, scene.object_, positions))
    ... )
    >>> counts = study.generator(42, "noise").poisson(study.forward.expected_counts(waves))
    >>> found = study.solve(
    ...     amplitudes=np.sqrt(counts),
    ...     positions_px=positions,
    ...     probe=probe,
    ...     object_shape=scene.object_.shape,
    ... )
    >>> found.stop, found.remarks
    ('converged', ())
    >>> bool(found.losses[-1] < 0.1 * found.losses[0])
    True

    In the middle of the scan the phase is right, up to a constant and a ramp:

    >>> row, column = positions.mean(axis=0).astype(int)
    >>> middle = (slice(row - 8, row + 8), slice(column - 8, column + 8))
    >>> scores, _ = study.scores_of(
    ...     found.object_, scene.object_, middle, scene.object_[middle] != 0,
    ...     registration_limit_px=3.0, frc_threshold=0.5,
    ... )
    >>> scores["phase_mae_rad"] < 0.05
    True
    """
    require_solvable(amplitudes, positions_px, probe, object_shape, bad_pixels, background)
    model, wave, positions = model_of(amplitudes, positions_px, probe, bad_pixels, settings)
    light = model.illumination(wave, positions)
    remarks = remarks_on_isolated_patterns(probe, positions_px, object_shape)
    corner = settings.slow_phase / (2 * np.pi * rms_width_px(wave))
    dark = None
    if background is not None:
        dark = torch.from_numpy(background.astype(np.float32)).to(settings.device)
    uniform = torch.full_like(light, _uniform_modulus(model, wave, dark), dtype=torch.complex64)
    start = Estimate(uniform, wave, positions, dark)
    step = 0.5 if settings.objective == "poisson" else 1.0
    # Object and probe together: the curvature of a product is at most twice the sum of both.
    step *= 0.5 if settings.refine_probe else 1.0
    state = SolverState(start, start, start, start, step=step)
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
        probe=orthogonal_modes(found.probe.cpu().numpy())
        if settings.refine_probe
        else probe.astype(np.complex64),
        positions_px=found.positions_px.cpu().numpy().astype(np.float64),
        background=None if found.background is None else found.background.cpu().numpy(),
        losses=np.array(state.losses),
        held_out=np.array(state.held_out),
        wall_s=np.array(state.wall_s),
        cpu_s=np.array(state.cpu_s),
        stop=stop,
        remarks=remarks,
        settings=asdict(settings),
        state=state.to("cpu"),
    )


def model_of(
    amplitudes: Float[np.ndarray, "scan n n"],
    positions_px: Float[np.ndarray, "scan 2"],
    probe: Complex[np.ndarray, "*modes n n"],
    bad_pixels: Bool[np.ndarray, "*each n n"] | None,
    settings: SolverSettings,
) -> tuple[PatternModel, Complex[Tensor, "*modes n n"], Float[Tensor, "scan 2"]]:
    """Return patterns, probe and positions as the solver sees them, on its device."""
    device, side = settings.device, probe.shape[-1]
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
    at_once = GPU_CHUNK if device == "cuda" else max(1, CACHED_PIXELS // probe.size)
    positions = torch.from_numpy(positions_px.astype(np.float64)).to(device)
    model = PatternModel(
        amplitudes=torch.from_numpy(np.ascontiguousarray(amplitudes, dtype=np.float32)).to(device),
        positions_px=positions,
        scored=scored.to(device),
        held_out=held_out.to(device),
        objective=settings.objective,
        offset=settings.offset,
        chunk=settings.chunk or at_once,
        stored_bytes=settings.stored_bytes,
    )
    return model, torch.from_numpy(probe.astype(np.complex64)).to(device), positions


def _uniform_modulus(
    model: PatternModel,
    probe: Complex[Tensor, "*modes n n"],
    background: Float[Tensor, "n n"] | None,
) -> float:
    """Return the modulus of the uniform object that gives as many photons as were counted."""
    rates = summed_over_modes(expected_counts(probe).unsqueeze(-3))[0]
    dark = torch.zeros_like(rates) if background is None else background
    predicted = counted = 0.0
    if model.scored.ndim == 2:
        predicted = float(rates[model.scored].sum(dtype=torch.float64)) * model.scan
        counted = sum(
            photons
            for part in model.amplitudes.split(model.chunk)
            for photons in part[:, model.scored].square().sum(dim=1, dtype=torch.float64).tolist()
        )
        unlit = float(dark[model.scored].sum(dtype=torch.float64)) * model.scan
    else:
        times = model.scored.sum(dim=0)
        predicted = float((rates * times).sum(dtype=torch.float64))
        parts = zip(
            model.amplitudes.split(model.chunk), model.scored.split(model.chunk), strict=True
        )
        counted = sum(
            float((part.square() * scored).sum(dtype=torch.float64)) for part, scored in parts
        )
        unlit = float((dark * times).sum(dtype=torch.float64))
    # A background that is as large as the counts leaves some light to start from.
    lit = max(counted - unlit, LEAST_LIT_SHARE * counted)
    return (lit / predicted) ** 0.5 if predicted > 0 else 1.0


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
