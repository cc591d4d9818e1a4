"""One epoch of the solver after another: momentum, safeguards, and when to stop."""

import time
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np
import torch
from jaxtyping import Complex, Float
from torch import Tensor

from study_lib.errors import StudyError
from study_lib.solvers.pattern_model import Pass, PatternModel
from study_lib.solvers.solver_settings import SolverSettings
from study_lib.solvers.solver_steps import (
    ROUNDING,
    Estimate,
    next_momentum,
    object_step,
    probe_step,
    total_variation,
    tv_curvature,
)

Stop = Literal["converged", "held-out counts rose", "epochs used up"]
WINDOW = 5  # epochs over which convergence is judged
SMALLEST_STEP = 2.0**-12  # shorter steps that all rise: rounding is all that is left
FAR = 1.1  # times the lowest objective, beyond which momentum went astray


@dataclass(frozen=True)
class SolverState:
    """All that the next epoch needs: hand it back to go on as if never interrupted.

    It lives on the device of the settings while the solver works, on the CPU in a result.
    ``since`` is the last epoch that shortened the steps; ``lowest`` is where the objective was
    lowest, ``best`` where the held-out counts were explained best. ``losses`` and ``held_out`` tell
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
        refine_probe=settings.refine_probe,
        refine_positions=moves,
    )
    loss = found.objective
    gradient = found.object_gradient
    if settings.total_variation:
        value, slope = total_variation(point.object_, model.box)
        loss += settings.total_variation * value / model.scored_pixels
        gradient = gradient + settings.total_variation * slope
    if not (np.isfinite(loss) or state.losses):
        raise StudyError(
            f"the objective is {loss} at the uniform start; check the scale of probe and counts"
        )
    rises = not (not state.losses or loss <= state.losses[-1] * (1 + ROUNDING))
    is_lowest = not state.losses or loss < min(state.losses)
    lowest = point if is_lowest else state.lowest
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
    return Estimate(object_, probe, positions)


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
