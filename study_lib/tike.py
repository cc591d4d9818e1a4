"""Measured data in the layout of tike's test files, and the base for simulations made from it.

=======  ==========================  ==========================================================
key      shape                       meaning
=======  ==========================  ==========================================================
data     (1, scan, n, n)             counts, zero frequency in the corner
probe    (1, 1, 1, 1, n, n)          starting probe, in no particular scale
scan     (1, scan, 2)                (row, column) in object pixels, from no particular origin
=======  ==========================  ==========================================================
"""

import bz2
import io
import zipfile
import zlib
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import Bool, Complex, Float

from study_lib.errors import InputError
from study_lib.forward import exit_waves, expected_counts, illumination
from study_lib.lsqml import reconstruct

RANKS = {"data": 3, "probe": 2, "scan": 2}
MARGIN_PX = 4
CHUNK = 64
WELL_LIT = 0.1
POORLY_LIT = 0.01
AMPLITUDE_PERCENTILE = 99.5


@dataclass(frozen=True)
class TikeScan:
    """One measured scan.

    ``counts`` (scan, n, n) have the zero frequency in the centre; ``probe`` (n, n) is a start, not
    scaled to the counts; ``positions_px`` (scan, 2) are (row, column) patch centres in object
    pixels, from an origin of their own; ``source`` is the name of the file.
    """

    counts: Float[np.ndarray, "scan n n"]
    probe: Complex[np.ndarray, "n n"]
    positions_px: Float[np.ndarray, "scan 2"]
    source: str


def read_tike(path: Path) -> TikeScan:
    """Return the scan in a Tike file, plain ``.npz`` or compressed again as ``.npz.bz2``.

    Raises
    ------
    InputError
        If the file is missing, damaged, or not laid out as above.
    """
    arrays = {key: _without_ones(path, key, array) for key, array in _arrays_in(path).items()}
    data, probe, scan = arrays["data"], arrays["probe"], arrays["scan"]
    side = data.shape[-1]
    expected = {"data": (len(data), side, side), "probe": (side, side), "scan": (len(data), 2)}
    for key, shape in expected.items():
        if arrays[key].shape != shape:
            raise _refused(path, key, f"shape {arrays[key].shape}", f"{shape}, as data has it")
        if not np.isfinite(arrays[key]).all():
            raise _refused(path, key, "NaN or infinite values", "finite values")
    if (data < 0).any():
        raise _refused(path, "data", f"a count of {data.min():g}", "counts of 0 or more")
    return TikeScan(
        counts=np.fft.fftshift(data, axes=(-2, -1)).astype(np.float32),
        probe=probe.astype(np.complex64),
        positions_px=scan.astype(np.float64),
        source=path.name,
    )


def scaled_probe(scan: TikeScan) -> Complex[np.ndarray, "n n"]:
    """Return the starting probe with the power of the median pattern."""
    power = (np.abs(scan.probe.astype(np.complex128)) ** 2).sum()
    photons = np.median(scan.counts.sum(axis=(1, 2), dtype=np.float64))
    scaled: np.ndarray = (scan.probe * np.sqrt(photons / power)).astype(np.complex64)
    return scaled


def r_factor(
    scan: TikeScan,
    probe: Complex[np.ndarray, "n n"],
    object_: Complex[np.ndarray, "oy ox"],
    positions_px: Float[np.ndarray, "scan 2"],
) -> float:
    """Return ``sum |sqrt(counts) - sqrt(model)| / sum sqrt(counts)`` over the whole scan.

    Parameters
    ----------
    scan
        The measurement.
    probe : (n, n)
        Illumination in sqrt(photons) per pixel.
    object_ : (oy, ox)
        Complex transmission.
    positions_px : (scan, 2)
        (row, column) of the patch centres in pixels of this object.
    """
    difference, total = 0.0, 0.0
    waves_of = torch.from_numpy(probe), torch.from_numpy(object_)
    for start in range(0, len(positions_px), CHUNK):
        part = slice(start, start + CHUNK)
        waves = exit_waves(*waves_of, torch.from_numpy(positions_px[part]))
        measured = np.sqrt(scan.counts[part].astype(np.float64))
        model = np.sqrt(expected_counts(waves).double().numpy())
        difference += float(np.abs(measured - model).sum())
        total += float(measured.sum())
    return difference / total


def base_from_scan(
    scan: TikeScan,
    *,
    epochs: int = 60,
    batch_size: int = 96,
    seed: int,
    progress: Callable[[int, int, float], None] | None = None,
) -> tuple[dict[str, np.ndarray], dict[str, Any]]:
    """Return the arrays of a base NPZ and what is to be known about them.

    Object and probe are reconstructed together, then made fit to simulate from: see `fixed_gauge`.

    Parameters
    ----------
    scan
        The measurement.
    epochs, batch_size, seed, progress
        As in :func:`study_lib.lsqml.reconstruct`.
    """
    side = scan.probe.shape[0]
    positions = scan.positions_px - scan.positions_px.min(axis=0) + side // 2 + MARGIN_PX
    last = np.round(positions.max(axis=0)).astype(int) - side // 2 + side + MARGIN_PX
    object_shape = (int(last[0]), int(last[1]))
    start = scaled_probe(scan)
    found = reconstruct(
        amplitudes=np.sqrt(scan.counts),
        positions_px=positions,
        probe=start,
        object_shape=object_shape,
        epochs=epochs,
        batch_size=batch_size,
        noise_model="gaussian",
        seed=seed,
        refine_probe=True,
        progress=progress,
    )
    object_, probe, gauge = fixed_gauge(found.object_, found.probe, positions)
    metadata = {
        "source": scan.source,
        "patterns": len(scan.counts),
        "photons_per_pattern_median": float(np.median(scan.counts.sum(axis=(1, 2)))),
        "epochs": epochs,
        "final_loss": float(found.losses[-1]),
        "r_factor_start": r_factor(scan, start, np.ones(object_shape, np.complex64), positions),
        "r_factor_reconstruction": r_factor(scan, found.probe, found.object_, positions),
        "r_factor_base": r_factor(scan, probe, object_, positions),
        **gauge,
        "options": found.options,
    }
    arrays = {
        "probeGuess": probe,
        "objectGuess": object_,
        "xcoords": positions[:, 1].copy(),
        "ycoords": positions[:, 0].copy(),
    }
    return arrays, metadata


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


def _arrays_in(path: Path) -> dict[str, np.ndarray]:
    if not path.is_file():
        raise InputError(f"{path}: no such file; give the path of a Tike .npz or .npz.bz2 file")
    try:
        content = path.read_bytes()
        if path.suffix == ".bz2":
            content = bz2.decompress(content)
        with np.load(io.BytesIO(content), allow_pickle=False) as archive:
            missing = [key for key in RANKS if key not in archive.files]
            if missing:
                names = ", ".join(archive.files) or "nothing"
                raise _refused(path, missing[0], f"nothing (the file has {names})", "an array")
            return {key: archive[key] for key in RANKS}
    except (
        zipfile.BadZipFile,
        zlib.error,
        OSError,
        EOFError,
        ValueError,
        AttributeError,
        TypeError,
    ) as error:
        raise InputError(
            f"{path}: damaged, pickled or not a Tike file ({error}); fetch it again"
        ) from None


def _without_ones(path: Path, key: str, array: np.ndarray) -> np.ndarray:
    """Return an array without its leading axes, which must have length one."""
    rank = RANKS[key]
    if array.dtype.kind not in ("fciu" if key == "probe" else "fiu"):
        raise _refused(path, key, f"type {array.dtype}", "numbers")
    if array.ndim < rank or array.size == 0 or set(array.shape[:-rank]) - {1}:
        raise _refused(
            path, key, f"shape {array.shape}", f"{rank} axes, any before them of length 1"
        )
    return array.reshape(array.shape[-rank:])


def _refused(path: Path, key: str, found: str, allowed: str) -> InputError:
    return InputError(
        f"{path}: {key}: found {found}; expected {allowed}; "
        "save data (1, scan, n, n), probe (1, 1, 1, 1, n, n) and scan (1, scan, 2)"
    )
