"""Frames that cannot be used: refused with their indices, or dropped if that was asked for."""

from dataclasses import replace
from pathlib import Path

import numpy as np
from jaxtyping import Bool

from study_lib.data.formats.acquisition import step
from study_lib.data.formats.raw_scan import RawScan, ReadChoices
from study_lib.errors import InputError

NAMED_MAX = 8


def frames_that_count(path: Path, raw: RawScan, choices: ReadChoices) -> RawScan:
    """Return the scan without the frames that cannot be used.

    These are frames whose position is no number, and patterns with NaN, infinite or negative
    values, or without a single count, bad pixels aside.

    Raises
    ------
    InputError
        If there are any and the user did not choose to drop them, or none is left.
    """
    reasons = {"positions that are no numbers": ~np.isfinite(raw.positions_px).all(axis=1)}
    patterns = raw.patterns
    if patterns is not None:
        reasons |= _pattern_faults(patterns, raw.bad_pixels)
    faults = {reason: np.flatnonzero(mask) for reason, mask in reasons.items() if mask.any()}
    if not faults:
        return raw
    if not choices.drop_bad_frames:
        text = "; ".join(f"{reason} at {_named(where)}" for reason, where in faults.items())
        raise InputError(f"{path}: {text}; mend them or drop them with --drop-bad-frames")
    bad = np.unique(np.concatenate(list(faults.values())))
    keep = np.setdiff1d(np.arange(len(raw.positions_px)), bad)
    if not len(keep):
        raise InputError(f"{path}: no frame is left after dropping {_named(bad)}; mend the file")
    names = np.arange(len(raw.positions_px)) if raw.scan_index is None else raw.scan_index
    record = step(
        "drop frames", **{reason: names[where].tolist() for reason, where in faults.items()}
    )
    return replace(
        raw,
        positions_px=raw.positions_px[keep],
        patterns=None if patterns is None else patterns[keep],
        scan_index=names[keep],
        steps=(*raw.steps, record),
        remarks=(*raw.remarks, f"{len(bad)} frames were dropped: {_named(bad)}"),
    )


def _pattern_faults(
    patterns: np.ndarray, bad_pixels: np.ndarray | None
) -> dict[str, Bool[np.ndarray, " scan"]]:
    counted = np.ones(patterns.shape[1:], bool)
    if bad_pixels is not None:
        counted &= ~bad_pixels.astype(bool)
    faults = np.zeros((3, len(patterns)), bool)
    for index, pattern in enumerate(patterns):
        values = pattern[counted]
        if patterns.dtype.kind == "f" and not np.isfinite(values).all():
            faults[0, index] = True
        elif (values < 0).any():
            faults[1, index] = True
        elif not values.any():
            faults[2, index] = True
    return dict(
        zip(
            ("NaN or infinite patterns", "negative patterns", "empty patterns"), faults, strict=True
        )
    )


def _named(indices: np.ndarray) -> str:
    shown = ", ".join(str(index) for index in indices[:NAMED_MAX])
    more = f" and {len(indices) - NAMED_MAX} more" if len(indices) > NAMED_MAX else ""
    return f"index {shown}{more}"
