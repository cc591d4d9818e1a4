"""Object and probe from measured patterns, both unknown; and what else may be: modes, positions."""

import math
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from typing import Any, Literal

import numpy as np
from jaxtyping import Bool, Complex, Float

from study_lib.data.formats.acquisition import Acquisition, transformation
from study_lib.errors import InputError
from study_lib.phases.base_data import fixed_gauge
from study_lib.phases.import_fit import r_factor
from study_lib.phases.import_verdict import require_overlap
from study_lib.physics.measurement import Measurement
from study_lib.physics.probe import modes_of, with_more_modes
from study_lib.solvers.ptychi import EngineResult, one_mask_of, run_ptychi
from study_lib.solvers.solver import SolverResult, SolverSettings, solve_measurement
from study_lib.system import memory_bytes

MARGIN_PX = 4
OBJECT_SIDE_MAX_PX = 20_000
RECONSTRUCTION_BYTES_PER_PX = 64
BATCH_SIZE = 96
BATCHES_MIN = 4
TOLERANCE = 2e-4  # relative fall of the objective per epoch below which it has converged
LSQML_TOLERANCE = 1e-3  # its losses are those of batches, and go up and down
FAINT_COUNTS = 0.1  # per pixel, that a background starts from where none is given
Algorithm = Literal["solver", "LSQML"]
ALGORITHMS: tuple[Algorithm, ...] = ("solver", "LSQML")
Progress = Callable[[str, int, int, float], None]


@dataclass(frozen=True)
class Unknowns:
    """What is found besides the object and the first mode of the probe.

    Parameters
    ----------
    modes
        Incoherent modes of the probe; ``auto``: as many as make held-out counts likelier.
    positions, background
        Whether they are refined; a background starts from a count of nearly nothing if there is
        none.
    """

    modes: int | Literal["auto"] = 1
    positions: bool = False
    background: bool = False


OBJECT_AND_PROBE = Unknowns()


@dataclass(frozen=True)
class Found:
    """What an algorithm found, and how it ended.

    ``object_`` (oy, ox), ``probe`` (n, n) or (modes, n, n), ``positions_px`` (scan, 2) and
    ``background`` (n, n) are the given ones where they were not unknown.
    """

    object_: Complex[np.ndarray, "oy ox"]
    probe: Complex[np.ndarray, "*modes n n"]
    positions_px: Float[np.ndarray, "scan 2"]
    background: Float[np.ndarray, "n n"] | None
    final_loss: float
    epochs: int
    stop: str
    cpu_s: float
    options: dict[str, Any]
    remarks: tuple[str, ...] = ()


NOISE_SIGMAS = 3


def algorithms_for(
    bad_pixels: Bool[np.ndarray, "*each n n"] | None,
) -> tuple[tuple[Algorithm, ...], dict[str, str]]:
    """Return the algorithms that model such masks, and why each other one does not.

    The solver takes any; pty-chi has one mask for all patterns.
    """
    reasons: dict[str, str] = {}
    for name in ALGORITHMS:
        if name != "solver":
            try:
                one_mask_of(name, bad_pixels)
            except InputError as error:
                reasons[name] = str(error)
    return tuple(name for name in ALGORITHMS if name not in reasons), reasons


def starting_probe(acquisition: Acquisition) -> Complex[np.ndarray, "n n"]:
    """Return the probe to start from, with the power of the median pattern.

    Without a probe in the file it is the inverse transform of the root of the mean pattern: the
    wave with the measured far field and a flat phase there.
    """
    counts = _counts(acquisition)
    dark = acquisition.background
    dark = np.zeros(counts.shape[1:]) if dark is None else dark.astype(np.float64)
    photons = np.median(counts.sum(axis=(1, 2), dtype=np.float64)) - dark.sum()
    if photons <= 0:
        raise InputError(
            f"{acquisition.metadata.get('source')}: the background has {dark.sum():.4g} counts, "
            "as many as the median pattern or more; give dark frames of the same exposure"
        )
    if acquisition.probe is None:
        bad = acquisition.bad_pixels
        valid = len(counts) if bad is None or bad.ndim == 2 else (~bad).sum(axis=0)
        mean = counts.sum(axis=0, dtype=np.float64) / np.maximum(valid, 1)
        # Where the mean is the noise of the background, its root would be light all over: a spike.
        noise = np.sqrt(mean / np.maximum(valid, 1)) if dark.any() else np.zeros_like(mean)
        light = np.where(mean - dark > NOISE_SIGMAS * noise, mean - dark, 0)
        far_field = np.sqrt(np.maximum(light, 0))
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
    unknowns: Unknowns = OBJECT_AND_PROBE,
    progress: Progress | None = None,
) -> Acquisition:
    """Return the acquisition with object and probe, found together.

    They are then made fit to simulate from: see
    :func:`study_lib.phases.base_data.fixed_gauge`. Positions move into the frame of the object;
    ``metadata`` says how well the model explains the patterns.

    Parameters
    ----------
    acquisition
        A measurement with counts.
    algorithm
        ``solver`` or ``LSQML``; only the solver finds positions and a background.
    epochs
        Passes over the patterns at most; it stops where it has converged.
    seed
        Order of LSQML's batches; which counts are held out; the mixture of further modes.
    unknowns
        What else is found.
    progress
        Called after each epoch with (algorithm, epochs done, epochs, loss).

    Raises
    ------
    InputError
        If there are no patterns, they carry no photon scale, the positions ask for an object that
        cannot be reconstructed, or the algorithm does not find what is unknown.
    """
    if algorithm != "solver" and (unknowns.background or unknowns.positions):
        raise InputError(
            f"algorithm {algorithm}: it finds no background, and nothing keeps the positions that "
            "it finds near the given ones; leave --refine-... out or take --algorithm solver"
        )
    measurement, origin = measurement_of(acquisition)
    require_overlap(acquisition)
    counts = acquisition.counts()
    start, uniform = measurement.probe, np.ones(measurement.object_shape, np.complex64)
    tried: dict[str, float] = {}
    if unknowns.modes == "auto":
        modes, tried = likeliest_modes(measurement, epochs, seed, unknowns, progress)
        unknowns = replace(unknowns, modes=modes)
    found = solve_blind(
        measurement, algorithm, epochs, seed, progress, algorithm, unknowns=unknowns
    )
    positions = found.positions_px
    object_, probe, gauge = fixed_gauge(found.object_, found.probe, positions)
    moved_px = np.hypot(*(positions - measurement.positions_px).T)
    result = replace(
        acquisition,
        positions_px=positions,
        probe=probe,
        probe_is_scaled=True,
        object_=object_,
        background=found.background,
        remarks=(*acquisition.remarks, *found.remarks),
    )
    record = {
        "patterns": len(counts),
        "photons_per_pattern_median": float(np.median(counts.sum(axis=(1, 2)))),
        "starting_probe": "mean pattern" if acquisition.probe is None else "file",
        "modes": len(modes_of(probe)),
        "epochs": found.epochs,
        "stop": found.stop,
        "final_loss": found.final_loss,
        "r_factor_start": r_factor(acquisition, start, uniform, measurement.positions_px),
        "r_factor_reconstruction": r_factor(result, found.probe, found.object_, positions),
        "r_factor_base": r_factor(result, probe, object_, positions),
        "reconstruction_cpu_s": found.cpu_s,
        **gauge,
        "options": found.options,
    }
    if tried:
        record["held_out_by_modes"] = tried
    if unknowns.positions:
        record["positions_moved_px_rms"] = float(np.sqrt((moved_px**2).mean()))
    steps = (
        transformation("shift origin of positions", y=-float(origin[0]), x=-float(origin[1])),
        transformation(
            "reconstruct object and probe",
            algorithm=algorithm,
            epochs=epochs,
            seed=seed,
            modes=unknowns.modes,
            positions=unknowns.positions,
            background=unknowns.background,
        ),
    )
    return replace(
        result,
        transformations=(*acquisition.transformations, *steps),
        metadata={**acquisition.metadata, **record},
    )


MODES_MAX = 6
HELD_OUT_SHARE = 0.05  # of the detector pixels
WORTH = 0.01  # of the held-out objective, that one more mode has to take off


def likeliest_modes(
    measurement: Measurement,
    epochs: int,
    seed: int,
    unknowns: Unknowns,
    progress: Progress | None,
) -> tuple[int, dict[str, float]]:
    """Return how many modes explain held-out counts best, and how well each number does.

    One more is tried as long as the last one took a hundredth off the objective of the held-out
    detector pixels.

    Parameters
    ----------
    measurement
        Patterns, positions and a first probe.
    epochs, seed, unknowns, progress
        As in :func:`reconstructed`.
    """
    tried: dict[str, float] = {}
    best, least = 1, math.inf
    for modes in range(1, MODES_MAX + 1):
        found = _solved(
            measurement,
            epochs,
            seed,
            replace(unknowns, modes=modes),
            partial(progress, f"{modes} modes" if modes > 1 else "1 mode") if progress else None,
            held_out_share=HELD_OUT_SHARE,
        )
        tried[str(modes)] = value = float(np.min(found.held_out))
        if value > (1 - WORTH) * least:
            break
        best, least = modes, value
    return best, tried


FEW_EPOCHS = 60


def few_epochs_r_factor(acquisition: Acquisition, seed: int, progress: Progress | None) -> float:
    """Return the R-factor that some epochs of the solver reach, as an estimate of what is right."""
    measurement, _ = measurement_of(acquisition)
    found = solve_blind(measurement, "solver", FEW_EPOCHS, seed, progress, "orientation")
    return r_factor(acquisition, found.probe, found.object_, measurement.positions_px)


def measurement_of(acquisition: Acquisition) -> tuple[Measurement, Float[np.ndarray, " 2"]]:
    """Return what an algorithm is given, and where its frame lies among the positions.

    The frame is that of an object as large as the positions ask for.

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
        background=acquisition.background,
    )
    return measurement, origin


def solve_blind(
    measurement: Measurement,
    algorithm: Algorithm,
    epochs: int,
    seed: int,
    progress: Progress | None,
    name: str,
    *,
    unknowns: Unknowns = OBJECT_AND_PROBE,
) -> Found:
    """Return object and probe that explain the amplitudes, by ``solver`` or ``LSQML``.

    Amplitudes and not counts: the likelihood of counts would be too sure of what background and
    detector add. ``name`` names the run to ``progress``.
    """
    each_epoch = partial(progress, name) if progress else None
    started = time.process_time()
    if algorithm == "solver":
        solved = _solved(measurement, epochs, seed, unknowns, each_epoch)
        return Found(
            solved.object_,
            solved.probe,
            solved.positions_px,
            solved.background,
            final_loss=float(solved.losses[-1]),
            epochs=len(solved.losses),
            stop=str(solved.stop),
            cpu_s=time.process_time() - started,
            options={"algorithm": "solver", **solved.settings},
            remarks=solved.remarks,
        )
    found: EngineResult = run_ptychi(
        amplitudes=measurement.amplitudes,
        positions_px=measurement.positions_px,
        probe=_with_modes(measurement.probe, unknowns.modes, seed),
        object_shape=measurement.object_shape,
        bad_pixels=measurement.bad_pixels,
        background=measurement.background,
        progress=each_epoch,
        algorithm=algorithm,
        epochs=epochs,
        batch_size=min(BATCH_SIZE, math.ceil(len(measurement.amplitudes) / BATCHES_MIN)),
        noise_model="gaussian",
        seed=seed,
        refine_probe=True,
        tolerance=LSQML_TOLERANCE,
    )
    return Found(
        found.object_,
        found.probe,
        found.positions_px,
        measurement.background,
        final_loss=float(found.losses[-1]),
        epochs=len(found.losses),
        stop=str(found.stop),
        cpu_s=time.process_time() - started,
        options=found.options,
        remarks=found.remarks,
    )


def _with_modes(
    probe: Complex[np.ndarray, "*modes n n"], modes: int | Literal["auto"], seed: int
) -> Complex[np.ndarray, "*more n n"]:
    """Return a first probe with so many modes at least, further ones weak."""
    wanted = max(len(modes_of(probe)), 1 if modes == "auto" else modes)
    return with_more_modes(probe, wanted, seed)


def _solved(
    measurement: Measurement,
    epochs: int,
    seed: int,
    unknowns: Unknowns,
    progress: Callable[[int, int, float], None] | None,
    held_out_share: float = 0.0,
) -> SolverResult:
    """Return what the solver finds, from further modes that are weak at first."""
    probe = _with_modes(measurement.probe, unknowns.modes, seed)
    background = measurement.background
    if unknowns.background and background is None:
        background = np.full(probe.shape[-2:], FAINT_COUNTS, np.float32)
    settings = SolverSettings(
        epochs=epochs,
        objective="amplitude",
        seed=seed,
        refine_probe=True,
        refine_positions=unknowns.positions,
        refine_background=unknowns.background,
        position_limit_px=float(MARGIN_PX),
        tolerance=TOLERANCE,
        held_out_share=held_out_share,
        patience=epochs,  # further modes are slow to come, and held-out counts rise meanwhile
    )
    given = replace(measurement, probe=probe, background=background)
    return solve_measurement(given, settings, progress=progress)


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
