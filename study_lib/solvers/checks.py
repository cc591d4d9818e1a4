"""Patterns that overlap with no other: the counts do not determine the object under them."""

import torch
from jaxtyping import Complex, Float
from torch import Tensor

from study_lib.physics.forward import add_patches, corners_of, patches_at

LONELY_SHARE = 0.99
DARK = 1e-12  # of the brightest pixel
PIXELS_AT_A_TIME = 2**21


def lonely_share(
    probe: Complex[Tensor, "n n"],
    positions_px: Float[Tensor, "scan 2"],
    object_shape: tuple[int, int],
) -> Float[Tensor, " scan"]:
    """Return the share of each pattern's light that falls where no other light does.

    Where several probes overlap, a pattern's part of the light counts: 1 is a pattern alone, 1/2
    two patterns at one place. Probes are placed to whole pixels, which is enough for this.

    Parameters
    ----------
    probe : (n, n)
        Illumination.
    positions_px : (scan, 2)
        (row, column) of the patch centres in object pixels.
    object_shape
        (rows, columns).
    """
    side = probe.shape[-1]
    parts = positions_px.split(max(1, PIXELS_AT_A_TIME // side**2))
    power = probe.abs() ** 2
    light = torch.zeros(object_shape, dtype=probe.real.dtype)
    for part in parts:
        light += add_patches(power.expand(len(part), -1, -1), corners_of(part, side), object_shape)
    shares = []
    for part in parts:
        there = patches_at(light, corners_of(part, side), side)
        shares.append((power**2 / there.clamp_min(DARK * power.max())).sum(dim=(1, 2)))
    return torch.cat(shares) / power.sum()


def lonely_remarks(
    probe: Complex[Tensor, "n n"],
    positions_px: Float[Tensor, "scan 2"],
    object_shape: tuple[int, int],
) -> tuple[str, ...]:
    """Return a sentence on the patterns that overlap with no other; none if all do."""
    share = lonely_share(probe, positions_px, object_shape)
    lonely = (share > LONELY_SHARE).nonzero()[:, 0].tolist()
    if not lonely:
        return ()
    return (
        f"{len(lonely)} of {len(share)} patterns overlap with no other, first pattern {lonely[0]}: "
        "the object there is not determined by the counts; use a denser scan or leave them out",
    )
