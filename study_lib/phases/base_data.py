"""Base data from measured patterns: object and probe, their scale, and how far to believe them."""

import math
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from typing import Any, Literal

import numpy as np
import torch
from jaxtyping import Bool, Complex, Float

from study_lib.data.formats.acquisition import Acquisition, transformation
from study_lib.data.prediction import check_arithmetic
from study_lib.errors import InputError
from study_lib.phases.import_fit import r_factor
from study_lib.phases.import_verdict import require_overlap
from study_lib.physics.forward import illumination
from study_lib.physics.likelihood import expected_in_parts
from study_lib.physics.measurement import Measurement, at_positions
from study_lib.scores.alignment import align
from study_lib.scores.frc import (
    OUTCOME,
    SEVENTH,
    frc_crossing,
    half_bit_threshold,
    one_bit_threshold,
    ring_correlation,
)
from study_lib.scores.scoring import scored_pixels
from study_lib.solvers.ptychi import EngineResult, run_ptychi
from study_lib.solvers.solver import SolverResult, SolverSettings, solve_measurement
from study_lib.system import memory_bytes

# --- How well they explain the patterns; scale and phase settled

CHUNK = 64
WELL_LIT = 0.1
POORLY_LIT = 0.01
AMPLITUDE_PERCENTILE = 99.5
SCALE_TOLERANCE = 0.02
SHOT_NOISE_SIGMAS = 5


def with_scaled_probe(acquisition: Acquisition) -> Acquisition:
    """Return the acquisition with a probe that predicts the measured mean power of the patterns.

    The model's power is that behind the object, so that an object of any amplitude is right. A
    probe that predicts the power within 2 %, or within five times the shot noise of all photons
    where they are few, stays as it is; otherwise a remark says how far it was off. Bad pixels
    count in neither power, and of the measured one the background is left out.

    Parameters
    ----------
    acquisition
        With object and probe; without patterns there is nothing to compare with.

    Raises
    ------
    InputError
        If a patch leaves the object, probe or object are beyond what single precision computes, or
        one of the two powers is zero or not finite.
    """
    probe, object_ = acquisition.require("probe", "object_")
    if acquisition.amplitudes is None or acquisition.probe_is_scaled:
        return acquisition
    source = acquisition.metadata.get("source", "the data")
    faults = list(check_arithmetic(probe, object_))
    if faults:
        lines = "\n".join(f"  {fault}" for fault in faults)
        raise InputError(f"{source} cannot become a data set, it breaks DATA-001:\n{lines}")
    good = _good_pixels(acquisition)
    measured = float((acquisition.amplitudes.astype(np.float64) ** 2 * good).sum())
    dark = 0.0
    if acquisition.background is not None:
        dark = float(
            np.broadcast_to(acquisition.background * good, acquisition.amplitudes.shape).sum()
        )
        measured -= dark
    model = 0.0
    try:
        parts = expected_in_parts(object_, probe, acquisition.positions_px, CHUNK)
        for part, expected in parts:
            valid = good[part] if good.ndim == 3 else good
            model += float((expected.double().numpy() * valid).sum())
    except ValueError as error:
        raise InputError(f"{source}: {error}") from None
    for what, power in (("probe and object predict", model), ("the patterns hold", measured)):
        if not 0 < power < np.inf:
            beside = f" beside the {dark:.4g} of the background" if dark else ""
            raise InputError(
                f"{source}: {what} a power of {power:.4g}{beside}; it has to be more than zero and "
                "finite; check positions, masks and dark frames, or --ignore object,probe"
            )
    noise = 0.0 if acquisition.is_normalized else SHOT_NOISE_SIGMAS * np.sqrt(model + dark)
    if abs(measured - model) <= max(SCALE_TOLERANCE * model, noise):
        return replace(acquisition, probe_is_scaled=True)
    factor = float(np.sqrt(measured / model))
    remark = (
        f"probe and object predict {model / measured:.3g} times the measured power; the probe was "
        f"multiplied by {factor:.4g}"
    )
    record = transformation("scale probe to the mean power of the patterns", factor=factor)
    return replace(
        acquisition,
        probe=(probe * factor).astype(np.complex64),
        probe_is_scaled=True,
        transformations=(*acquisition.transformations, record),
        remarks=(*acquisition.remarks, remark),
    )


def fixed_gauge(
    object_: Complex[np.ndarray, "oy ox"],
    probe: Complex[np.ndarray, "n n"],
    positions_px: Float[np.ndarray, "scan 2"],
) -> tuple[Complex[np.ndarray, "oy ox"], Complex[np.ndarray, "n n"], dict[str, float]]:
    """Return object and probe with scale and phase settled, and what that changed.

    Scale and phase move between object and probe, which leaves every pattern as it is: the object
    gets the mean phase zero and, where it is well lit, an amplitude whose 99.5th percentile is 1.
    Two changes are real: amplitudes above 1 are clipped, and pixels hardly lit, which nothing in
    the data determines, become the mean amplitude at phase zero. A phase ramp stays.

    Parameters
    ----------
    object_ : (oy, ox)
        Complex transmission up to a factor.
    probe : (n, n)
        Illumination in sqrt(photons) per pixel, up to the inverse of that factor.
    positions_px : (scan, 2)
        (row, column) of the patch centres in object pixels.
    """
    well_lit, poorly_lit = _lit_parts(probe, positions_px, object_.shape)
    scale = np.percentile(np.abs(object_[well_lit]), AMPLITUDE_PERCENTILE)
    mean = object_[well_lit].sum(dtype=np.complex128)
    factor = scale * mean / np.abs(mean)
    settled = object_ / factor
    amplitude = np.abs(settled)
    clipped = (amplitude > 1) & ~poorly_lit
    # A hair below 1: rounding to single precision must not lift a pixel above it again.
    settled[clipped] *= (1 - 1e-6) / amplitude[clipped]
    settled[poorly_lit] = np.abs(settled[well_lit]).mean()
    record = {
        "object_scale_moved_to_probe": float(scale),
        "clipped_share_of_well_lit": float(clipped[well_lit].mean()),
        "clipped_share": float(clipped.mean()),
        "well_lit_share": float(well_lit.mean()),
        "replaced_share": float(poorly_lit.mean()),
    }
    return settled.astype(np.complex64), (probe * factor).astype(np.complex64), record


def _lit_parts(
    probe: np.ndarray, positions_px: np.ndarray, object_shape: tuple[int, ...]
) -> tuple[Bool[np.ndarray, "oy ox"], Bool[np.ndarray, "oy ox"]]:
    """Return which pixels are well and which are hardly lit.

    The measure is the median illumination over the rectangle of the scan positions.
    """
    shape = (object_shape[0], object_shape[1])
    places = torch.from_numpy(positions_px)
    photons: np.ndarray = illumination(torch.from_numpy(probe), places, shape).numpy()
    first = np.floor(positions_px.min(axis=0)).astype(int)
    last = np.ceil(positions_px.max(axis=0)).astype(int) + 1
    median = np.median(photons[first[0] : last[0], first[1] : last[1]])
    return photons > WELL_LIT * median, photons < POORLY_LIT * median


def _good_pixels(acquisition: Acquisition) -> Float[np.ndarray, "..."]:
    """Return 1 for every pixel that counts and 0 for the others."""
    bad = acquisition.bad_pixels
    return np.ones(()) if bad is None else (~bad).astype(np.float64)


# --- Object and probe from measured patterns, both unknown

MARGIN_PX = 4
OBJECT_SIDE_MAX_PX = 20_000
RECONSTRUCTION_BYTES_PER_PX = 64
BATCH_SIZE = 96
BATCHES_MIN = 4
TOLERANCE = 2e-4  # relative fall of the objective per epoch below which it has converged
LSQML_TOLERANCE = 1e-3  # its losses are those of batches, and go up and down
Algorithm = Literal["solver", "LSQML"]
Progress = Callable[[str, int, int, float], None]


@dataclass(frozen=True)
class Found:
    """Object (oy, ox), probe (n, n), and how the algorithm ended."""

    object_: Complex[np.ndarray, "oy ox"]
    probe: Complex[np.ndarray, "n n"]
    final_loss: float
    epochs: int
    stop: str
    cpu_s: float
    options: dict[str, Any]


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
        far_field = np.sqrt(np.maximum(mean - dark, 0))
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

    They are then made fit to simulate from: see :func:`fixed_gauge`. Positions
    move into the frame of the object; ``metadata`` says how well the model explains the patterns.

    Parameters
    ----------
    acquisition
        A measurement with counts.
    algorithm
        ``solver`` or ``LSQML``.
    epochs
        Passes over the patterns at most; it stops where it has converged.
    seed
        Order of LSQML's batches.
    progress
        Called after each epoch with (algorithm, epochs done, epochs, loss).

    Raises
    ------
    InputError
        If there are no patterns, they carry no photon scale, or the positions ask for an object
        that cannot be reconstructed.
    """
    require_overlap(acquisition)
    measurement, origin = measurement_of(acquisition)
    counts = acquisition.counts()
    positions, start = measurement.positions_px, measurement.probe
    found = solve_blind(measurement, algorithm, epochs, seed, progress, algorithm)
    object_, probe, gauge = fixed_gauge(found.object_, found.probe, positions)
    uniform = np.ones(measurement.object_shape, np.complex64)
    record = {
        "patterns": len(counts),
        "photons_per_pattern_median": float(np.median(counts.sum(axis=(1, 2)))),
        "starting_probe": "mean pattern" if acquisition.probe is None else "file",
        "epochs": found.epochs,
        "stop": found.stop,
        "final_loss": found.final_loss,
        "r_factor_start": r_factor(acquisition, start, uniform, positions),
        "r_factor_reconstruction": r_factor(acquisition, found.probe, found.object_, positions),
        "r_factor_base": r_factor(acquisition, probe, object_, positions),
        "reconstruction_cpu_s": found.cpu_s,
        **gauge,
        "options": found.options,
    }
    steps = (
        transformation("shift origin of positions", y=-float(origin[0]), x=-float(origin[1])),
        transformation(
            "reconstruct object and probe", algorithm=algorithm, epochs=epochs, seed=seed
        ),
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
) -> Found:
    """Return object and probe that explain the amplitudes, by ``solver`` or ``LSQML``.

    Amplitudes and not counts: the likelihood of counts would be too sure of what background and
    detector add. ``name`` names the run to ``progress``.
    """
    each_epoch = partial(progress, name) if progress else None
    started = time.process_time()
    found: SolverResult | EngineResult
    if algorithm == "solver":
        settings = SolverSettings(
            epochs=epochs,
            objective="amplitude",
            seed=seed,
            refine_probe=True,
            tolerance=TOLERANCE,
        )
        found = solve_measurement(measurement, settings, progress=each_epoch)
        options = {"algorithm": "solver", **found.settings}
    else:
        found = run_ptychi(
            amplitudes=measurement.amplitudes,
            positions_px=measurement.positions_px,
            probe=measurement.probe,
            object_shape=measurement.object_shape,
            bad_pixels=measurement.bad_pixels,
            progress=each_epoch,
            algorithm=algorithm,
            epochs=epochs,
            batch_size=min(BATCH_SIZE, math.ceil(len(measurement.amplitudes) / BATCHES_MIN)),
            noise_model="gaussian",
            seed=seed,
            refine_probe=True,
            tolerance=LSQML_TOLERANCE,
        )
        options = found.options
    cpu_s = time.process_time() - started
    return Found(
        found.object_,
        found.probe,
        final_loss=float(found.losses[-1]),
        epochs=len(found.losses),
        stop=str(found.stop),
        cpu_s=cpu_s,
        options=options,
    )


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


# --- How far to believe them where no truth is known

SHIFT_LIMIT_PX = 3.0
ILLUMINATION_THRESHOLD = 0.1
ALGORITHMS: tuple[Algorithm, ...] = ("solver", "LSQML")


def checked(
    acquisition: Acquisition,
    *,
    algorithm: Algorithm,
    epochs: int,
    seed: int,
    progress: Progress | None = None,
) -> dict[str, Any]:
    """Return whether another algorithm, and each half of the patterns, give the same object.

    Of measured data no truth is known. Two algorithms that agree share no fault of their own, but
    both see the same noise; two halves of the patterns do not: how far their objects agree is the
    resolution that the data support. All start alike, as :func:`reconstructed` does.

    Parameters
    ----------
    acquisition
        A measurement with counts.
    algorithm, epochs, seed
        As in :func:`reconstructed`; the halves are taken in turn, even and odd, by ``algorithm``.
    progress
        Called after each epoch with (which, epochs done, epochs, loss).

    Returns
    -------
    dict
        For each algorithm its R-factor and processor seconds; the ring correlation between them and
        between the halves, as fractions of Nyquist, and where it first falls below 1/2, 1/7, half a
        bit and one bit, with the outcome in words where that is no resolution.

    References
    ----------
    Halves and 1/7: Rosenthal and Henderson, J. Mol. Biol. 333, 721 (2003),
    doi:10.1016/j.jmb.2003.07.013
    """
    measurement, _ = measurement_of(acquisition)
    objects: dict[str, Complex[np.ndarray, "oy ox"]] = {}
    report: dict[str, Any] = {"algorithms": {}}
    positions = measurement.positions_px
    for each in ALGORITHMS:
        found = solve_blind(measurement, each, epochs, seed, progress, each)
        objects[each] = found.object_
        report["algorithms"][each] = {
            "r_factor": r_factor(acquisition, found.probe, found.object_, positions),
            "cpu_s": found.cpu_s,
        }
    for first, parity in enumerate(("even", "odd")):
        half = at_positions(measurement, np.arange(first, len(positions), 2))
        half_name = f"{algorithm}, {parity} patterns"
        objects[parity] = solve_blind(half, algorithm, epochs, seed, progress, half_name).object_
    for name, pair in (("between_algorithms", ALGORITHMS), ("between_halves", ("even", "odd"))):
        report[name] = _agreement(objects[pair[0]], objects[pair[1]], measurement)
    return report


def _agreement(
    first: Complex[np.ndarray, "oy ox"],
    second: Complex[np.ndarray, "oy ox"],
    measurement: Measurement,
) -> dict[str, Any]:
    """Return shift, ring correlation and its crossings of two objects of one frame."""
    crop, mask = scored_pixels(measurement, ILLUMINATION_THRESHOLD)
    aligned = align(first[crop], second[crop], mask, registration_limit_px=SHIFT_LIMIT_PX)
    rings = ring_correlation(aligned.object_, second[crop], mask)
    crossings = {
        "half": frc_crossing(rings, 0.5),
        "seventh": frc_crossing(rings, SEVENTH),
        "half_bit": frc_crossing(rings, half_bit_threshold(rings)),
        "one_bit": frc_crossing(rings, one_bit_threshold(rings)),
    }
    return {
        "shift_px": list(aligned.registration.shift_px),
        "frequency": rings.frequency.tolist(),
        "correlation": rings.correlation.tolist(),
    } | {
        f"crossing_{name}{end}": value
        for name, crossing in crossings.items()
        for end, value in (("", crossing.frequency), (OUTCOME, crossing.outcome))
    }
