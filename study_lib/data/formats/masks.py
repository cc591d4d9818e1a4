"""What the detector counted that is no light of the object: bad pixels, saturation, dark counts.

A mask belongs to all patterns or to each its own, and stays so: the union over many frames would
hide pixels that are good in nearly all of them. Dark counts are part of the model, a background
that is added to what the object scatters; subtracted from counts they would leave numbers that are
no Poisson counts, and negative ones.
"""

from pathlib import Path

import numpy as np
from jaxtyping import Bool

from study_lib.data.formats.acquisition import RawScan, ReadChoices, transformation
from study_lib.data.formats.beside import array_in
from study_lib.errors import InputError

MASKED_SHARE_ODD = 0.5
DARK_SHARE = 0.5  # dark frames per pattern: with fewer, their noise is most of the model's


def with_masks_and_dark(path: Path, raw: RawScan, choices: ReadChoices) -> RawScan:
    """Return the scan with the bad pixels and the dark frames that the user names.

    Raises
    ------
    InputError
        If one does not fit the patterns, or there are none.
    """
    flags = {"--mask": choices.mask, "--dark": choices.dark, "--saturation": choices.saturation}
    used = [flag for flag, value in flags.items() if value is not None]
    if raw.patterns is None:
        if used:
            raise InputError(f"{path}: there are no patterns; leave out {', '.join(used)}")
        return raw
    if choices.mask is not None:
        raw = _masked_by_file(path, raw, choices.mask, choices.links_below)
    if choices.saturation is not None:
        raw = _without_saturated(path, raw, choices.saturation)
    if choices.dark is not None:
        raw = raw.after(
            transformation("take dark frames from a file", file=Path(choices.dark).name),
            dark=array_in(choices.dark, "--dark", [2, 3], choices.links_below),
        )
    return _with_one_dark(path, raw)


def combined(
    first: Bool[np.ndarray, "..."] | None, second: Bool[np.ndarray, "..."] | None
) -> Bool[np.ndarray, "..."] | None:
    """Return the bad pixels of two masks, each (h, w) or (scan, h, w); for all frames if it can."""
    if first is None or second is None:
        return first if second is None else second
    return of_all_frames(first.astype(bool) | second.astype(bool))


def of_all_frames(bad: Bool[np.ndarray, "..."]) -> Bool[np.ndarray, "..."]:
    """Return (h, w) for masks of each frame that are all the same; others as they are."""
    alike = bad.ndim == 3 and bool((bad == bad[:1]).all())
    return bad[0] if alike else bad


def _masked_by_file(path: Path, raw: RawScan, given: str, links_below: Path | None) -> RawScan:
    mask = array_in(given, "--mask", [2, 3], links_below)
    frame = raw.frames().shape[1:]
    if mask.ndim == 3 and mask.shape[0] == 1:
        mask = mask[0]
    if mask.shape not in (frame, raw.frames().shape):
        raise InputError(
            f"--mask {given}: found shape {mask.shape}; the patterns of {path} need {frame} or "
            f"{raw.frames().shape}; give one value for every detector pixel"
        )
    bad = mask != 0
    share = float(bad.mean())
    remarks = []
    if share > MASKED_SHARE_ODD:
        remarks = [
            f"--mask declares {share:.0%} of the detector bad; what is not zero is bad here: if "
            "your program has it the other way round, give the opposite"
        ]
    record = transformation("mask bad pixels from a file", file=Path(given).name, share=share)
    both = combined(None if raw.bad_pixels is None else raw.bad_pixels.astype(bool), bad)
    return raw.after(record, *remarks, bad_pixels=both)


def _without_saturated(path: Path, raw: RawScan, saturation: float) -> RawScan:
    if raw.is_normalized:
        raise InputError(f"{path}: normalized amplitudes have no counts; leave out --saturation")
    least = saturation if raw.domain == "counts" else np.sqrt(saturation) * (1 - 1e-6)
    bad = raw.frames() >= least
    if not bad.any():
        return raw.after(transformation("mask saturated counts", at=saturation, values=0))
    record = transformation(
        "mask saturated counts",
        at=saturation,
        values=int(bad.sum()),
        patterns=int(bad.any(axis=(1, 2)).sum()),
    )
    declared = None if raw.bad_pixels is None else raw.bad_pixels.astype(bool)
    return raw.after(record, bad_pixels=combined(declared, bad))


def _with_one_dark(path: Path, raw: RawScan) -> RawScan:
    """Return the scan with the mean of its dark frames, whole and without negative values."""
    if raw.dark is None:
        return raw
    frame, dark = raw.frames().shape[1:], raw.dark
    if dark.shape[-2:] != frame:
        raise InputError(
            f"{path}: dark frames: found shape {dark.shape}; expected (frames, {frame[0]}, "
            f"{frame[1]}), of the same detector; leave them out or correct them"
        )
    if raw.is_normalized:
        raise InputError(
            f"{path}: normalized amplitudes have no counts to which dark counts could be added; "
            "give counts"
        )
    frames = dark.reshape(-1, *frame).astype(np.float64)
    good = np.isfinite(frames)
    counted = np.maximum(good.sum(axis=0), 1)
    mean = np.where(good, frames, 0).sum(axis=0) / counted
    mean = np.maximum(mean, 0)
    if raw.bad_pixels is not None and raw.bad_pixels.ndim == 2:
        mean[raw.bad_pixels.astype(bool)] = 0
    if not mean.any():
        return raw.after(transformation("find dark frames without counts"), dark=None)
    per_pattern = float(mean.sum())
    # A single frame may be a mean already.
    few = len(frames) > 1 and DARK_SHARE * len(raw.frames()) > len(frames)
    noisy = (
        f"; for {len(raw.frames())} patterns they are few, and their noise is in all of them: take "
        "more"
    )
    return raw.after(
        transformation(
            "take the mean of dark frames as the background of the model",
            frames=len(frames),
            counts_per_pattern=per_pattern,
        ),
        f"the mean of {len(frames)} dark frames, {per_pattern:.4g} counts per pattern, is the "
        f"background of the model; nothing was subtracted from the counts{noisy if few else ''}",
        dark=None,
        background=mean.astype(np.float32),
    )
