"""The choices of the solver, and whether arrays can be reconstructed at all."""

from dataclasses import dataclass, fields

import numpy as np
import torch

from study_lib.errors import InputError
from study_lib.physics.forward import corners_of, require_inside
from study_lib.solvers.pattern_model import OBJECTIVES, Objective

CHECKED = 256  # patterns at once; the masks of all would take half as much as they do
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
        Whether these are unknowns too.
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

    def record(self) -> dict[str, str | int | float | bool]:
        """Return the settings as plain data."""
        return {field.name: getattr(self, field.name) for field in fields(self)}


def require_solvable(
    amplitudes: np.ndarray,
    positions_px: np.ndarray,
    probe: np.ndarray,
    object_shape: tuple[int, int],
    bad_pixels: np.ndarray | None,
) -> None:
    """Check that the arrays fit together and hold light; shapes as in `solver.reconstruct`.

    Raises
    ------
    InputError
        If shapes differ, a value is not finite, there are no counts, the probe is dark, or a patch
        leaves the object.
    """
    side = probe.shape[-1]
    if probe.shape != (side, side) or not side:
        raise InputError(f"the probe has shape {probe.shape}; give one square probe, (n, n)")
    if amplitudes.shape != (len(amplitudes), side, side) or not len(amplitudes):
        raise InputError(
            f"amplitudes have shape {amplitudes.shape} and the probe {probe.shape}; give at least "
            "one pattern, as (scan, n, n) with the probe's (n, n)"
        )
    if positions_px.shape != (len(amplitudes), 2):
        raise InputError(
            f"positions_px have shape {positions_px.shape} for {len(amplitudes)} patterns; give "
            "one (row, column) per pattern"
        )
    if bad_pixels is not None and bad_pixels.shape != probe.shape:
        raise InputError(
            f"bad_pixels have shape {bad_pixels.shape}, the patterns {probe.shape}; give one mask "
            "for all patterns"
        )
    for start in range(0, len(amplitudes), CHECKED):
        part = amplitudes[start : start + CHECKED]
        sound = (np.isfinite(part) & (part >= 0)).all(axis=(1, 2))
        if not sound.all():
            raise InputError(
                f"amplitudes: pattern {start + int(sound.argmin())} of {len(amplitudes)} has a "
                "value that is negative or not finite; leave the pattern out, or mark the pixel "
                "bad and set it to zero"
            )
    sound = np.isfinite(positions_px).all(axis=1)
    if not sound.all():
        raise InputError(
            f"positions_px: that of pattern {int(sound.argmin())} of {len(sound)} is not finite; "
            "leave the pattern out"
        )
    if not np.isfinite(probe).all():
        raise InputError("the probe has values that are not finite; check the file it came from")
    if not probe.any():
        raise InputError("the probe is zero everywhere; give the illumination in sqrt(photons)")
    good = np.ones(probe.shape, bool) if bad_pixels is None else ~bad_pixels
    if not good.any():
        raise InputError(f"all {good.size} detector pixels are bad; check the mask")
    if not any(part[good].any() for part in amplitudes):
        raise InputError(
            f"none of the {len(amplitudes)} patterns has a count on a good pixel; check the "
            "patterns and the mask"
        )
    try:
        require_inside(corners_of(torch.from_numpy(positions_px), side), side, object_shape)
    except ValueError as error:
        raise InputError(str(error)) from None
