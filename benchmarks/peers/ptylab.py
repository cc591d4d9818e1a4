"""PtyLab's engines, pattern after pattern. Positions on whole pixels only, object a square.

Its object pixel is wavelength x distance / detector width, which is made one; then positions are
pixels, counted from the middle of the object to the middle of the patch. Its engines always move
the probe; here by a step of zero.

Its repository's licence grants academic, non-commercial use only and names patents; the package on
the registry has none beside it. Read it before you run this; `benchmarks/peers.py` does so only
where it is asked for by name.
"""

from typing import Any

import numpy as np
from PtyLab.Engines import ePIE, mPIE
from PtyLab.ExperimentalData.ExperimentalData import ExperimentalData
from PtyLab.Monitor.Monitor import DummyMonitor
from PtyLab.Params.Params import Params
from PtyLab.Reconstruction.Reconstruction import Reconstruction

PACKAGE = "ptylab"
ENGINES = {"ePIE": ePIE, "mPIE": mPIE}
CANDIDATES: list[dict[str, Any]] = [
    {"engine": "mPIE", "beta": 0.25, "iterations": 25},
    {"engine": "ePIE", "beta": 1.0, "iterations": 25},
    {"engine": "ePIE", "beta": 0.25, "iterations": 25},
    {"engine": "ePIE", "beta": 0.25, "iterations": 10},
]


def reconstruct(
    amplitudes: np.ndarray,
    positions_px: np.ndarray,
    probe: np.ndarray,
    object_shape: tuple[int, int],
    engine: str,
    beta: float,
    iterations: int,
) -> np.ndarray:
    """Return the object (oy, ox) that the known probe (n, n) explains the amplitudes with."""
    middle = max(object_shape) // 2
    data = ExperimentalData(operationMode="CPM")
    data.ptychogram = amplitudes**2
    data.encoder = np.rint(positions_px) - middle
    data.wavelength = data.dxd = 1.0
    data.zo = probe.shape[-1]
    data.entrancePupilDiameter = data.spectralDensity = data.theta = data.emptyBeam = None
    data._setData()
    params = Params()
    made = Reconstruction(data, params)
    made.No = max(object_shape)
    made.initializeObjectProbe()
    made.object = np.ones_like(made.object)
    made.probe = probe.reshape(made.probe.shape).astype(np.complex64)
    solver = ENGINES[engine](made, data, params, DummyMonitor())
    solver.betaProbe, solver.betaObject, solver.numIterations = 0.0, beta, iterations
    solver.reconstruct()
    found: np.ndarray = made.object.reshape(made.No, made.No)
    return found[: object_shape[0], : object_shape[1]]
