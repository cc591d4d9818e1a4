"""A scan simulated: from object, probe and positions to counted patterns (pure, in memory)."""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Bool, Complex, Float
from numpy.lib.stride_tricks import sliding_window_view

from study_lib.physics.detector import count_photons
from study_lib.physics.forward import (
    corners_of,
    expected_counts,
    patches_at,
    probes_at,
    require_inside,
)

CHUNK = 32  # patterns whose waves fit the processor's cache


@dataclass(frozen=True)
class SimulatedScan:
    """The patterns of every split at one dose.

    ``amplitudes`` (scan, n, n) by split are sqrt(counts); ``probe`` (n, n) predicts the photons;
    ``photons_expected`` by split are the mean photons per pattern that reach the valid pixels,
    dark counts included.
    """

    amplitudes: Mapping[str, Float[np.ndarray, "scan n n"]]
    probe: Complex[np.ndarray, "n n"]
    photons_expected: Mapping[str, float]


def expected_patterns(
    object_: Complex[np.ndarray, "oy ox"],
    probe: Complex[np.ndarray, "n n"],
    positions_px: Float[np.ndarray, "scan 2"],
) -> Float[np.ndarray, "scan n n"]:
    """Return the noise-free photons per detector pixel, in single precision.

    Parameters
    ----------
    object_ : (oy, ox)
        Complex transmission.
    probe : (n, n)
        Illumination in sqrt(photons) per pixel.
    positions_px : (scan, 2)
        (row, column) of the patch centres in object pixels.

    Raises
    ------
    ValueError
        If a patch leaves the object; names the first such scan position.
    """
    side = len(probe)
    corners = corners_of(torch.from_numpy(positions_px), side)
    # Indices below zero would wrap to the far side.
    require_inside(corners, side, (object_.shape[0], object_.shape[1]))
    wave = torch.from_numpy(probe.astype(np.complex64))
    # A view of every patch of the object; picking from it copies whole rows of pixels.
    windows = sliding_window_view(object_.astype(np.complex64, copy=False), (side, side))
    patterns = np.empty((len(positions_px), side, side), np.float32)
    for start in range(0, len(positions_px), CHUNK):
        part = slice(start, start + CHUNK)
        positions = torch.from_numpy(positions_px[part])
        rows, columns = corners[part].numpy().T
        waves = probes_at(wave, positions) * torch.from_numpy(windows[rows, columns])
        patterns[part] = expected_counts(waves).numpy()
    return patterns


def simulate(
    *,
    object_: Complex[np.ndarray, "oy ox"],
    probe: Complex[np.ndarray, "n n"],
    positions_px: Mapping[str, Float[np.ndarray, "scan 2"]],
    dose: float,
    dark_counts: float,
    saturation_counts: int | None,
    bad_pixels: Bool[np.ndarray, "n n"] | None,
    random: Mapping[str, np.random.Generator],
) -> SimulatedScan:
    """Return counted patterns whose mean over all splits is ``dose`` photons.

    The dose is what leaves the specimen, before the detector loses or adds anything. One copy of
    the patterns is held.

    Parameters
    ----------
    object_ : (oy, ox)
        Complex transmission.
    probe : (n, n)
        Illumination in any scale.
    positions_px : (scan, 2) by split
        (row, column) of the patch centres in object pixels.
    dose
        Mean photons per pattern.
    dark_counts, saturation_counts, bad_pixels
        As in :func:`study_lib.physics.detector.count_photons`.
    random
        One generator for each split.
    """
    patterns = {
        split: expected_patterns(object_, probe, positions)
        for split, positions in positions_px.items()
    }
    flat = {split: part.reshape(len(part), -1) for split, part in patterns.items()}
    totals = np.concatenate([part.sum(axis=1) for part in flat.values()])
    scale = dose / totals.mean(dtype=np.float64)
    valid = np.ones(probe.shape, bool) if bad_pixels is None else ~bad_pixels
    expected = {}
    for split, part in patterns.items():
        np.multiply(part, np.float32(scale), out=part)
        seen = part.mean(axis=0, dtype=np.float64)[valid]
        expected[split] = float(seen.sum() + dark_counts * valid.sum())
        count_photons(
            part,
            dark_counts=dark_counts,
            saturation_counts=saturation_counts,
            bad_pixels=bad_pixels,
            random=random[split],
        )
    scaled = (probe * np.sqrt(scale)).astype(np.complex64)
    return SimulatedScan(patterns, scaled, expected)


def object_patches(
    object_: Complex[np.ndarray, "oy ox"], positions_px: Float[np.ndarray, "scan 2"], side_px: int
) -> Complex[np.ndarray, "scan n n"]:
    """Return the true object patch of every position, (scan, N, N): ``Y`` of the contract.

    Patches lie on the object's grid; the sub-pixel part of a position belongs to the probe.
    """
    corners = corners_of(torch.from_numpy(positions_px), side_px)
    patches: np.ndarray = patches_at(torch.from_numpy(object_), corners, side_px).numpy()
    return patches
