"""Whether arrays can be reconstructed, and which patterns overlap with no other."""

import itertools

import numpy as np
import torch
from jaxtyping import Complex, Float
from torch import Tensor

from study_lib.errors import InputError
from study_lib.physics.forward import (
    add_patches,
    corners_of,
    patches_at,
    probe_power,
    require_inside,
)

# --- Patterns that overlap with no other: the counts do not determine what is under them

ISOLATED_SHARE = 0.99
DARK = 1e-12  # of the brightest pixel
PIXELS_AT_A_TIME = 2**21


def isolated_share(
    probe: Complex[Tensor, "*modes n n"],
    positions_px: Float[Tensor, "scan 2"],
    object_shape: tuple[int, int],
) -> Float[Tensor, " scan"]:
    """Return the share of each pattern's light that falls where no other light does.

    Where several probes overlap, a pattern's part of the light counts: 1 is a pattern alone, 1/2
    two patterns at one place. Probes are placed to whole pixels, which is enough for this.

    Parameters
    ----------
    probe : (n, n) or (modes, n, n)
        Illumination.
    positions_px : (scan, 2)
        (row, column) of the patch centres in object pixels.
    object_shape
        (rows, columns).
    """
    side = probe.shape[-1]
    parts = positions_px.split(max(1, PIXELS_AT_A_TIME // side**2))
    power = probe_power(probe)
    light = torch.zeros(object_shape, dtype=probe.real.dtype)
    for part in parts:
        light += add_patches(power.expand(len(part), -1, -1), corners_of(part, side), object_shape)
    shares = []
    for part in parts:
        there = patches_at(light, corners_of(part, side), side)
        shares.append((power**2 / there.clamp_min(DARK * power.max())).sum(dim=(1, 2)))
    return torch.cat(shares) / power.sum()


def remarks_on_isolated_patterns(
    probe: Complex[np.ndarray, "*modes n n"],
    positions_px: Float[np.ndarray, "scan 2"],
    object_shape: tuple[int, int],
) -> tuple[str, ...]:
    """Return a sentence on the patterns that overlap with no other; none if all do."""
    share = isolated_share(torch.from_numpy(probe), torch.from_numpy(positions_px), object_shape)
    isolated = (share > ISOLATED_SHARE).nonzero()[:, 0].tolist()
    if not isolated:
        return ()
    return (
        f"{len(isolated)} of {len(share)} patterns overlap with no other, first pattern "
        f"{isolated[0]}: the object there is not determined by the counts; use a denser scan or "
        "leave them out",
    )


# --- Arrays that fit together

CHECKED = 256  # patterns at once; the masks of all would take half as much as they do


def require_solvable(
    amplitudes: np.ndarray,
    positions_px: np.ndarray,
    probe: np.ndarray,
    object_shape: tuple[int, int],
    bad_pixels: np.ndarray | None,
    background: np.ndarray | None = None,
) -> None:
    """Check that the arrays fit together and hold light; shapes as in `solver.solve`.

    Raises
    ------
    InputError
        If shapes differ, a value is not finite, there are no counts, the probe is dark, or a patch
        leaves the object.
    """
    side = probe.shape[-1]
    if probe.ndim not in (2, 3) or probe.shape[-2:] != (side, side) or not probe.size:
        raise InputError(
            f"the probe has shape {probe.shape}; give one square probe, (n, n), or its modes, "
            "(modes, n, n)"
        )
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
    if bad_pixels is not None and bad_pixels.shape not in ((side, side), amplitudes.shape):
        raise InputError(
            f"bad_pixels have shape {bad_pixels.shape}, the patterns {amplitudes.shape}; give one "
            "mask for all patterns, or one of each"
        )
    _require_background(background, side)
    _require_finite(amplitudes, positions_px, probe)
    _require_counts(amplitudes, bad_pixels)
    try:
        require_inside(corners_of(torch.from_numpy(positions_px), side), side, object_shape)
    except ValueError as error:
        raise InputError(str(error)) from None


def _require_background(background: np.ndarray | None, side: int) -> None:
    if background is None:
        return
    if background.shape != (side, side):
        raise InputError(
            f"the background has shape {background.shape}, the patterns ({side}, {side}); give one "
            "value for every detector pixel"
        )
    if not (np.isfinite(background) & (background >= 0)).all():
        raise InputError(
            "the background has a value that is negative or not finite; it is expected counts, "
            "zero or more"
        )


def _require_finite(amplitudes: np.ndarray, positions_px: np.ndarray, probe: np.ndarray) -> None:
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


def _require_counts(amplitudes: np.ndarray, bad_pixels: np.ndarray | None) -> None:
    good = np.ones(amplitudes.shape[1:], bool) if bad_pixels is None else ~bad_pixels
    if not good.any():
        raise InputError(f"all {good.size} detector pixels are bad; check the mask")
    masks = good if good.ndim == 3 else itertools.repeat(good)
    if not any(part[mask].any() for part, mask in zip(amplitudes, masks, strict=False)):
        raise InputError(
            f"none of the {len(amplitudes)} patterns has a count on a good pixel; check the "
            "patterns and the mask"
        )
