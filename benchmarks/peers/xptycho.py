"""PMACE by xptycho: projected multi-agent consensus equilibrium. Positions on whole pixels only.

Its pixel pitch is wavelength x distance / (frame x detector pitch), which is made one; then its
positions are pixels and it places a patch as we do, ``round(position) - n // 2``.
"""

from typing import Any

import numpy as np
import torch
import xptycho

PACKAGE = "xptycho"
CANDIDATES: list[dict[str, Any]] = [
    {"object_data_fit": 0.6, "iterations": 25},
    {"object_data_fit": 0.2, "iterations": 25},
    {"object_data_fit": 0.2, "iterations": 10},
    {"object_data_fit": 0.1, "iterations": 10},
    {"object_data_fit": 0.05, "iterations": 10},
    {"object_data_fit": 0.05, "iterations": 5},
]


def reconstruct(
    amplitudes: np.ndarray,
    positions_px: np.ndarray,
    probe: np.ndarray,
    object_shape: tuple[int, int],
    object_data_fit: float,
    iterations: int,
) -> np.ndarray:
    """Return the object (oy, ox) that the known probe (n, n) explains the amplitudes with."""
    torch.set_num_threads(1)
    side = probe.shape[-1]
    scan = xptycho.Scan(
        amplitudes**2, positions_px, wavelength=1.0, det_distance=side, det_pixel_pitch=1.0
    )
    model = xptycho.PtychoModel.from_scan(scan)
    model.configure_devices(devices=["cpu"])
    model.set_params(
        object_data_fit=object_data_fit, object_shape=object_shape, object_origin=(0.0, 0.0)
    )
    start = np.ones(object_shape, np.complex64)
    made = model.recon(scan, probe=probe, init=start, iterations=iterations, verbose=0)
    found: np.ndarray = made.object
    return found
