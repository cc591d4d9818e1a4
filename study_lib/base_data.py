"""Base data from measurements: object and probe that explain the patterns, fit to simulate from."""

from collections.abc import Callable
from dataclasses import replace

import numpy as np
import torch
from jaxtyping import Bool, Complex, Float

from study_lib.acquisition import Acquisition, step
from study_lib.errors import InputError
from study_lib.forward import exit_waves, expected_counts, illumination
from study_lib.processes import memory_bytes
from study_lib.ptychi_engine import reconstruct

MARGIN_PX = 4
CHUNK = 64
WELL_LIT = 0.1
POORLY_LIT = 0.01
AMPLITUDE_PERCENTILE = 99.5
SCALE_TOLERANCE = 0.02
SHOT_NOISE_SIGMAS = 5
OBJECT_SIDE_MAX_PX = 20_000
RECONSTRUCTION_BYTES_PER_PX = 64


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


def with_scaled_probe(acquisition: Acquisition) -> Acquisition:
    """Return the acquisition with a probe that predicts the measured mean power of the patterns.

    The model's power is that behind the object, so that an object of any amplitude is right. A
    probe that predicts the power within 2 %, or within five times the shot noise of all photons
    where they are few, stays as it is; otherwise a remark says how far it was off. Bad pixels
    count in neither power.

    Parameters
    ----------
    acquisition
        With object and probe; without patterns there is nothing to compare with.

    Raises
    ------
    InputError
        If a patch leaves the object.
    """
    probe, object_ = acquisition.require("probe", "object_")
    if acquisition.amplitudes is None or acquisition.probe_is_scaled:
        return acquisition
    good = _good_pixels(acquisition)
    measured = float((acquisition.amplitudes.astype(np.float64) ** 2 * good).sum())
    model = 0.0
    try:
        for part in _parts(len(acquisition.positions_px)):
            waves = _waves(probe, object_, acquisition.positions_px[part])
            model += float((expected_counts(waves).double().numpy() * good).sum())
    except ValueError as error:
        raise InputError(f"{acquisition.metadata.get('source')}: {error}") from None
    noise = 0.0 if acquisition.is_normalized else SHOT_NOISE_SIGMAS * np.sqrt(model)
    if not model or abs(measured - model) <= max(SCALE_TOLERANCE * model, noise):
        return replace(acquisition, probe_is_scaled=bool(model))
    factor = float(np.sqrt(measured / model))
    remark = (
        f"probe and object predict {model / measured:.3g} times the measured power; the probe was "
        f"multiplied by {factor:.4g}"
    )
    record = step("scale probe to the mean power of the patterns", factor=factor)
    return replace(
        acquisition,
        probe=(probe * factor).astype(np.complex64),
        probe_is_scaled=True,
        transformations=(*acquisition.transformations, record),
        remarks=(*acquisition.remarks, remark),
    )


def r_factor(
    acquisition: Acquisition,
    probe: Complex[np.ndarray, "n n"],
    object_: Complex[np.ndarray, "oy ox"],
    positions_px: Float[np.ndarray, "scan 2"],
) -> float:
    """Return ``sum |sqrt(counts) - sqrt(model)| / sum sqrt(counts)`` over the whole scan.

    Parameters
    ----------
    acquisition
        The measurement; its bad pixels are left out.
    probe : (n, n)
        Illumination in sqrt(photons) per pixel.
    object_ : (oy, ox)
        Complex transmission.
    positions_px : (scan, 2)
        (row, column) of the patch centres in pixels of this object.
    """
    (amplitudes,) = acquisition.require("amplitudes")
    good = _good_pixels(acquisition)
    difference, total = 0.0, 0.0
    for part in _parts(len(positions_px)):
        measured = amplitudes[part].astype(np.float64) * good
        waves = _waves(probe, object_, positions_px[part])
        model = np.sqrt(expected_counts(waves).double().numpy()) * good
        difference += float(np.abs(measured - model).sum())
        total += float(measured.sum())
    return difference / total


def reconstructed(
    acquisition: Acquisition,
    *,
    epochs: int = 60,
    batch_size: int = 96,
    seed: int,
    progress: Callable[[int, int, float], None] | None = None,
) -> Acquisition:
    """Return the acquisition with object and probe, found together by LSQML.

    They are then made fit to simulate from: see :func:`fixed_gauge`. Positions move into the frame
    of the object; ``metadata`` says how well the model explains the patterns.

    Parameters
    ----------
    acquisition
        A measurement with counts.
    epochs, batch_size, seed, progress
        As in :func:`study_lib.ptychi_engine.reconstruct`.

    Raises
    ------
    InputError
        If there are no patterns, they carry no photon scale, or the positions ask for an object
        that nobody could reconstruct.
    """
    counts = _counts(acquisition)
    side = acquisition.side_px()
    _check_extent(acquisition, side)
    origin = acquisition.positions_px.min(axis=0) - side // 2 - MARGIN_PX
    positions = acquisition.positions_px - origin
    last = np.round(positions.max(axis=0)).astype(int) - side // 2 + side + MARGIN_PX
    object_shape = (int(last[0]), int(last[1]))
    start = starting_probe(acquisition)
    found = reconstruct(
        amplitudes=np.sqrt(counts),
        positions_px=positions,
        probe=start,
        object_shape=object_shape,
        epochs=epochs,
        batch_size=batch_size,
        noise_model="gaussian",
        seed=seed,
        refine_probe=True,
        bad_pixels=acquisition.bad_pixels,
        progress=progress,
    )
    object_, probe, gauge = fixed_gauge(found.object_, found.probe, positions)
    uniform = np.ones(object_shape, np.complex64)
    record = {
        "patterns": len(counts),
        "photons_per_pattern_median": float(np.median(counts.sum(axis=(1, 2)))),
        "starting_probe": "mean pattern" if acquisition.probe is None else "file",
        "epochs": epochs,
        "final_loss": float(found.losses[-1]),
        "r_factor_start": r_factor(acquisition, start, uniform, positions),
        "r_factor_reconstruction": r_factor(acquisition, found.probe, found.object_, positions),
        "r_factor_base": r_factor(acquisition, probe, object_, positions),
        **gauge,
        "options": found.options,
    }
    steps = (
        step("shift origin of positions", y=-float(origin[0]), x=-float(origin[1])),
        step("reconstruct object and probe", algorithm="LSQML", epochs=epochs, seed=seed),
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
    photons = np.zeros(shape)
    for start in range(0, len(positions_px), CHUNK):
        chunk = torch.from_numpy(positions_px[start : start + CHUNK])
        photons += illumination(torch.from_numpy(probe), chunk, shape).numpy()
    first = np.floor(positions_px.min(axis=0)).astype(int)
    last = np.ceil(positions_px.max(axis=0)).astype(int) + 1
    median = np.median(photons[first[0] : last[0], first[1] : last[1]])
    return photons > WELL_LIT * median, photons < POORLY_LIT * median


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
            f"{found}, which takes {needed / 2**30:.1f} GiB; this machine has "
            f"{memory / 2**30:.1f} GiB; {remedy}, or use a larger machine"
        )


def _good_pixels(acquisition: Acquisition) -> Float[np.ndarray, "..."]:
    """Return 1 for every pixel that counts and 0 for the others."""
    bad = acquisition.bad_pixels
    return np.ones(()) if bad is None else (~bad).astype(np.float64)


def _parts(count: int) -> list[slice]:
    return [slice(start, start + CHUNK) for start in range(0, count, CHUNK)]


def _waves(probe: np.ndarray, object_: np.ndarray, positions_px: np.ndarray) -> torch.Tensor:
    return exit_waves(
        torch.from_numpy(probe), torch.from_numpy(object_), torch.from_numpy(positions_px)
    )
