"""phaser's engines in JAX: ePIE and gradients. Positions to a fraction of a pixel.

Its object pixel is made one. A patch starts at ``position - corner - (n - 1) / 2``, so the corner
makes up for our ``n // 2``. Every engine first scales the probe so that the uniform object has the
measured intensity; what the probe was multiplied by is given back to the object.
"""

import logging
from typing import Any

import numpy as np
import pane
from phaser.observer import Observer
from phaser.plan import EngineHook
from phaser.state import (
    IterState,
    Patterns,
    PixelatedObjectState,
    PixelatedProbeState,
    ReconsState,
    ScanState,
)
from phaser.utils.num import Sampling, get_backend_module
from phaser.utils.object import ObjectSampling

PACKAGE = "phaserEM"
CANDIDATES: list[dict[str, Any]] = [
    {"engine": "epie", "step": 1.0, "noise_model": "amplitude", "grouping": 16, "iterations": 25},
    {"engine": "epie", "step": 0.25, "noise_model": "amplitude", "grouping": 16, "iterations": 25},
    {"engine": "adam", "step": 0.03, "noise_model": "poisson", "grouping": 32, "iterations": 25},
    {"engine": "adam", "step": 0.01, "noise_model": "poisson", "grouping": 32, "iterations": 25},
]


def plan_of(
    engine: str, step: float, noise_model: str, grouping: int, iterations: int
) -> EngineHook:
    """Return the engine with its plan."""
    common: dict[str, Any] = {
        "niter": iterations,
        "grouping": grouping,
        "bwlim_frac": None,
        "update_probe": False,
        "calc_error": False,
        "noise_model": noise_model,
        "group_constraints": [],
        "iter_constraints": [],
    }
    if engine == "adam":
        solvers = {"object": {"type": "adam", "learning_rate": step}}
        own: dict[str, Any] = {"type": "gradient", "solvers": solvers, "regularizers": []}
    else:
        own = {"type": "conventional", "solver": {"type": engine, "beta_object": step}}
    return pane.from_data(common | own, EngineHook)


def reconstruct(
    amplitudes: np.ndarray,
    positions_px: np.ndarray,
    probe: np.ndarray,
    object_shape: tuple[int, int],
    **settings: Any,
) -> np.ndarray:
    """Return the object (oy, ox) that the known probe (n, n) explains the amplitudes with."""
    logging.getLogger().setLevel(logging.WARNING)
    side = probe.shape[-1]
    xp = get_backend_module("jax")
    corner = side // 2 - (side - 1) / 2
    state = ReconsState(
        iter=IterState.empty(),
        wavelength=1.0,
        probe=PixelatedProbeState(Sampling((side, side), sampling=(1.0, 1.0)), probe[None].copy()),
        object=PixelatedObjectState(
            ObjectSampling(object_shape, (1.0, 1.0), corner=(corner, corner)),
            np.ones((1, *object_shape), np.complex64),
            np.array([], np.float32),
        ),
        scan=ScanState(positions_px.astype(np.float32), positions_px.astype(np.float32)),
    ).to_xp(xp)
    counts = np.fft.ifftshift(amplitudes**2, axes=(-2, -1))
    made = plan_of(**settings)(
        {
            "data": Patterns(counts, np.ones((side, side), np.float32)),
            "state": state,
            "dtype": np.float32,
            "xp": xp,
            "recons_name": "peer",
            "observer": Observer(),
            "seed": 1,
        }
    ).to_numpy()
    scale = np.linalg.norm(made.probe.data) / np.linalg.norm(probe)
    found: np.ndarray = made.object.data[0] * scale
    return found
