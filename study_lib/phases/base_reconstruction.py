"""Object and probe from measured patterns, both unknown, as base data to simulate from."""

import math
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any, Literal

import numpy as np
from jaxtyping import Complex, Float

from study_lib.data.formats.acquisition import Acquisition, step
from study_lib.errors import InputError
from study_lib.phases.base_data import fixed_gauge, r_factor
from study_lib.physics.measurement import Measurement
from study_lib.solvers import ptychi as ptychi_engine
from study_lib.solvers import solver
from study_lib.solvers.solver import SolverSettings
from study_lib.system import memory_bytes

MARGIN_PX = 4
OBJECT_SIDE_MAX_PX = 20_000
RECONSTRUCTION_BYTES_PER_PX = 64
BATCH_SIZE = 96
BATCHES_MIN = 4
Algorithm = Literal["solver", "LSQML"]
Progress = Callable[[str, int, int, float], None]


@dataclass(frozen=True)
class Task:
    """What an algorithm is told: the measurement in the frame of the object, the probe to begin."""

    measurement: Measurement
    counts: Float[np.ndarray, "scan n n"]
    origin_px: Float[np.ndarray, " 2"]


@dataclass(frozen=True)
class Found:
    """Object (oy, ox), probe (n, n), and how the algorithm ended."""

    object_: Complex[np.ndarray, "oy ox"]
    probe: Complex[np.ndarray, "n n"]
    final_loss: float
    cpu_s: float
    options: dict[str, Any]


def starting_probe(acquisition: Acquisition) -> Complex[np.ndarray, "n n"]:
    """Return the probe to start from, with the power of the median pattern.

    Without a probe in the file it is the inverse transform of the root of the mean pattern: the
    wave with the measured far field and a flat phase there.
    """
    counts = _counts(acquisition)
    photons = np.median(counts.sum(axis=(1, 2), dtype=np.float64))
    if acquisition.probe is None:
        far_field = np.sqrt(counts.mean(axis=0, dtype=np.float64))
        probe = np.fft.fftshift(np.fft.ifft2(np.fft.ifftshift(far_field), norm="ortho"))
    else:
        probe = acquisition.probe.astype(np.complex128)
    scaled: np.ndarray = probe * np.sqrt(photons / (np.abs(probe) ** 2).sum())
    return scaled.astype(np.complex64)


def reconstructed(
    acquisition: Acquisition,
    *,
    algorithm: Algorithm,
    epochs: int,
    seed: int,
    progress: Progress | None = None,
) -> Acquisition:
    """Return the acquisition with object and probe, found together.

    They are then made fit to simulate from: see :func:`study_lib.phases.base_data.fixed_gauge`. Positions
    move into the frame of the object; ``metadata`` says how well the model explains the patterns.

    Parameters
    ----------
    acquisition
        A measurement with counts.
    algorithm
        ``solver`` or ``LSQML``.
    epochs
        Passes over the patterns; the solver may stop before.
    seed
        Order of LSQML's batches.
    progress
        Called after each epoch with (algorithm, epochs done, epochs, loss).

    Raises
    ------
    InputError
        If there are no patterns, they carry no photon scale, or the positions ask for an object
        that nobody could reconstruct.
    """
    task = task_of(acquisition)
    counts, origin, measurement = task.counts, task.origin_px, task.measurement
    positions, start = measurement.positions_px, measurement.probe
    found = solve(measurement, algorithm, epochs, seed, progress, algorithm)
    object_, probe, gauge = fixed_gauge(found.object_, found.probe, positions)
    uniform = np.ones(measurement.object_shape, np.complex64)
    record = {
        "patterns": len(counts),
        "photons_per_pattern_median": float(np.median(counts.sum(axis=(1, 2)))),
        "starting_probe": "mean pattern" if acquisition.probe is None else "file",
        "epochs": epochs,
        "final_loss": found.final_loss,
        "r_factor_start": r_factor(acquisition, start, uniform, positions),
        "r_factor_reconstruction": r_factor(acquisition, found.probe, found.object_, positions),
        "r_factor_base": r_factor(acquisition, probe, object_, positions),
        "reconstruction_cpu_s": found.cpu_s,
        **gauge,
        "options": found.options,
    }
    steps = (
        step("shift origin of positions", y=-float(origin[0]), x=-float(origin[1])),
        step("reconstruct object and probe", algorithm=algorithm, epochs=epochs, seed=seed),
    )
    return replace(
        acquisition,
        positions_px=positions,
        probe=probe,
        probe_is_scaled=True,
        object_=object_,
        transformations=(*acquisition.transformations, *steps),
        metadata={**acquisition.metadata, **record},
    )


def task_of(acquisition: Acquisition) -> Task:
    """Return the measurement in the frame of an object as large as its positions ask for.

    Raises
    ------
    InputError
        As :func:`reconstructed`.
    """
    counts = _counts(acquisition)
    side = acquisition.side_px()
    _check_extent(acquisition, side)
    origin = acquisition.positions_px.min(axis=0) - side // 2 - MARGIN_PX
    positions = acquisition.positions_px - origin
    last = np.round(positions.max(axis=0)).astype(int) - side // 2 + side + MARGIN_PX
    every = np.arange(len(counts))
    measurement = Measurement(
        amplitudes=np.sqrt(counts).astype(np.float32),
        positions_px=positions,
        probe=starting_probe(acquisition),
        groups=every[:, None],
        scan_index=every,
        object_shape=(int(last[0]), int(last[1])),
        bad_pixels=acquisition.bad_pixels,
    )
    return Task(measurement, counts, origin)


def solve(
    measurement: Measurement,
    algorithm: Algorithm,
    epochs: int,
    seed: int,
    progress: Progress | None,
    told: str,
) -> Found:
    """Return object and probe that explain the amplitudes, by ``solver`` or ``LSQML``.

    Amplitudes and not counts: the likelihood of counts would be too sure of what background and
    detector add. ``told`` names the run to ``progress``.
    """

    def epoch(done: int, epochs: int, loss: float) -> None:
        if progress:
            progress(told, done, epochs, loss)

    started = time.process_time()
    arrays: dict[str, Any] = {
        "amplitudes": measurement.amplitudes,
        "positions_px": measurement.positions_px,
        "probe": measurement.probe,
        "object_shape": measurement.object_shape,
        "bad_pixels": measurement.bad_pixels,
        "progress": epoch,
    }
    if algorithm == "solver":
        settings = SolverSettings(
            epochs=epochs, objective="amplitude", seed=seed, refine_probe=True
        )
        solved = solver.reconstruct(**arrays, settings=settings)
        object_, probe, losses = solved.object_, solved.probe, solved.losses
        options = {"algorithm": "solver", "stop": solved.stop, **solved.settings}
    else:
        engine = ptychi_engine.reconstruct(
            **arrays,
            algorithm=algorithm,
            epochs=epochs,
            batch_size=min(BATCH_SIZE, math.ceil(len(measurement.amplitudes) / BATCHES_MIN)),
            noise_model="gaussian",
            seed=seed,
            refine_probe=True,
        )
        object_, probe, losses, options = (
            engine.object_,
            engine.probe,
            engine.losses,
            engine.options,
        )
    return Found(object_, probe, float(losses[-1]), time.process_time() - started, options)


def _counts(acquisition: Acquisition) -> Float[np.ndarray, "scan n n"]:
    if acquisition.is_normalized:
        raise InputError(
            f"{acquisition.metadata.get('source')}: object or probe are missing, and normalized "
            "amplitudes cannot be reconstructed: they carry no photons; give counts"
        )
    return acquisition.counts()


def _check_extent(acquisition: Acquisition, side_px: int) -> None:
    """Refuse positions whose object is beyond any scan or this machine, as a wrong unit makes."""
    rows, columns = np.ptp(acquisition.positions_px, axis=0) + side_px + 2 * MARGIN_PX
    source = acquisition.metadata.get("source")
    found = f"{source}: positions: they ask for an object of {rows:.6g} x {columns:.6g} pixels"
    remedy = "check the unit of the positions and the lengths that turn them into pixels"
    if not max(rows, columns) <= OBJECT_SIDE_MAX_PX:
        allowed = f"at most {OBJECT_SIDE_MAX_PX} x {OBJECT_SIDE_MAX_PX} are allowed"
        raise InputError(f"{found}; {allowed}; {remedy}")
    needed, memory = RECONSTRUCTION_BYTES_PER_PX * rows * columns, memory_bytes()
    if needed > memory:
        raise InputError(
            f"{found}, which takes {needed / 2**30:.1f} GiB; this process may use "
            f"{memory / 2**30:.1f} GiB; {remedy}, or use a larger machine"
        )
