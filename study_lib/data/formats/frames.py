"""Frames as they are wanted: what in them is no count of the object, and their size.

A mask belongs to all patterns or to each its own, and stays so: the union over many frames would
hide pixels that are good in nearly all of them. Dark counts are part of the model, a background
that is added to what the object scatters; subtracted from counts they would leave numbers that are
no Poisson counts, and negative ones.

Cropping and padding keep the pixel of the detector, so that the window of the probe stays as wide
and its pixels become larger or smaller: the pixel of the object is ``wavelength * distance / (N *
detector pixel)``. Binning makes detector pixels larger and keeps N times their size: the pixel of
the object stays, and the window of the probe shrinks. Positions and lengths follow, and a probe is
taken along: of cropped or padded frames its spectrum is cropped or padded, of binned ones the
probe itself.
"""

from dataclasses import replace
from pathlib import Path

import numpy as np
from jaxtyping import Bool, Complex

from study_lib.data.formats.acquisition import RawScan, ReadChoices, transformation
from study_lib.data.formats.beside import array_in
from study_lib.errors import InputError

# --- Bad pixels, saturation, dark frames

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


# --- Cropped, binned, padded about the zero frequency

FRAMES_AT_A_TIME = 64
SHARE_LOST_MAX = 0.01  # of the probe's power, when its window shrinks


def in_wanted_frames(path: Path, raw: RawScan, choices: ReadChoices) -> RawScan:
    """Return the scan with square frames of an even side, as the user wants them.

    Zero frequencies are at pixel ``n // 2`` of each axis, before and after.

    Raises
    ------
    InputError
        If a size does not fit, or the file has an object, whose pixel would change.
    """
    wanted = {"--crop": choices.crop, "--bin": choices.bin_, "--pad": choices.pad}
    if raw.patterns is None:
        used = [flag for flag, value in wanted.items() if value is not None]
        if used:
            raise InputError(f"{path}: there are no patterns; leave out {', '.join(used)}")
        return raw
    if choices.crop is not None:
        raw = _resized(path, raw, _even(choices.crop, "--crop"), "--crop")
    elif len(set(raw.frames().shape[1:])) > 1 and choices.pad is None:
        raw = _squared(raw)
    if choices.bin_ is not None:
        raw = _binned(path, raw, choices.bin_)
    if choices.pad is not None:
        raw = _resized(path, raw, _even(choices.pad, "--pad"), "--pad")
    side = raw.frames().shape[1]
    if side % 2 == 0:
        return raw
    # Of the two even neighbours one is divisible by four, which transforms like.
    even = side - 1 if (side - 1) % 4 == 0 else side + 1
    remark = (
        f"frames of an odd side, {side}, were {'cropped' if even < side else 'padded'} to {even} "
        "about the zero frequency; --crop or --pad choose otherwise"
    )
    resized = _resized(path, raw, even, "an even side")
    return resized.after(transformation("make the side even", to_px=even), remark)


def _even(side: int, flag: str) -> int:
    if side % 2 or side < 2:
        raise InputError(f"{flag} {side}: give an even number of pixels")
    return side


def _squared(raw: RawScan) -> RawScan:
    """Crop patterns that are not square about their zero frequency."""
    frame = raw.frames().shape[1:]
    side = min(frame)
    record = transformation("crop to a square", from_px=list(frame), to_px=side)
    return _windowed(raw, side).after(record)


def _resized(path: Path, raw: RawScan, side: int, flag: str) -> RawScan:
    """Crop or pad all frames to a side; what is added is bad."""
    frame = raw.frames().shape[1:]
    fits = side <= min(frame) if flag == "--crop" else side >= max(frame)
    if not fits and flag.startswith("--"):
        limit = f"at most {min(frame)}" if flag == "--crop" else f"at least {max(frame)}"
        raise InputError(
            f"{path}: {flag} {side}: the frames are {frame[0]} x {frame[1]}; give {limit}"
        )
    if frame == (side, side):
        return raw
    if raw.object_ is not None:
        raise InputError(
            f"{path}: {flag} {side} changes the pixel of the object, and the file has one; leave "
            "it out with --ignore object, and it is reconstructed anew"
        )
    before = min(frame)
    factor = before / side
    record = transformation(
        "crop frames" if side < before else "pad frames with bad pixels",
        from_px=list(frame),
        to_px=side,
    )
    resized = _windowed(raw, side)
    probe = None if raw.probe is None else _spectrum_resized(raw.probe, side)
    remarks = []
    if raw.probe is not None:
        remarks = [f"the probe was resampled to the {side} x {side} pixels of its frames"]
    return resized.after(
        record,
        *remarks,
        probe=probe,
        positions_px=raw.positions_px / factor,
        geometry=raw.geometry.resized(factor),
    )


def _binned(path: Path, raw: RawScan, count: int) -> RawScan:
    """Sum the counts of ``count`` x ``count`` detector pixels; one bad pixel spoils its sum."""
    frame = raw.frames().shape[1:]
    side = frame[0] // count if count > 0 else 0
    if count < 1 or frame[0] != frame[1] or frame[0] % count or side % 2:
        raise InputError(
            f"{path}: --bin {count}: the frames are {frame[0]} x {frame[1]}; both sides have to be "
            f"{count} times the same even number; give --crop as well"
        )
    if count == 1:
        return raw
    blocks = (-1, side, count, side, count)

    def summed(values: np.ndarray) -> np.ndarray:
        total: np.ndarray = values.reshape(blocks).sum(axis=(2, 4), dtype=np.float64)
        return total.reshape(*values.shape[:-2], side, side)

    frames, bad = raw.frames(), raw.bad_pixels
    patterns = np.empty((len(frames), side, side))
    for start in range(0, len(frames), FRAMES_AT_A_TIME):
        some = slice(start, start + FRAMES_AT_A_TIME)
        counts = frames[some]
        if raw.domain == "amplitude":
            counts = counts.astype(np.float64) ** 2
        if bad is not None:  # what a bad pixel holds, NaN perhaps, must not spread
            counts = np.where((bad if bad.ndim == 2 else bad[some]).astype(bool), 0, counts)
        patterns[some] = summed(counts)
    if raw.domain == "amplitude":
        np.sqrt(patterns, out=patterns)
    if bad is not None:
        bad = bad.astype(bool).reshape(blocks).any(axis=(2, 4)).reshape(*bad.shape[:-2], side, side)
    remarks = []
    probe = raw.probe
    if probe is not None:
        probe, lost = _probe_of_binned(probe, side, count)
        if lost > SHARE_LOST_MAX:
            remarks.append(
                f"--bin {count} makes the window of the probe {count} times smaller, and {lost:.0%}"
                " of its power lie outside: bin less, or leave it out with --ignore object,probe"
            )
    return raw.after(
        transformation("sum detector pixels", count=count, from_px=frame[0], to_px=side),
        *remarks,
        patterns=patterns,
        bad_pixels=bad,
        background=None if raw.background is None else summed(raw.background),
        probe=probe,
        geometry=raw.geometry.resized(1.0, binned=count),
    )


def _windowed(raw: RawScan, side: int) -> RawScan:
    """Return the scan with a square window about the zero frequency; what is added is bad."""
    frame = raw.frames().shape[1:]
    bad = raw.bad_pixels
    if side > min(frame):
        whole = np.zeros(frame, bool) if bad is None else bad.astype(bool)
        bad = centred_window(whole, side, fill=True)
    elif bad is not None:
        bad = centred_window(bad.astype(bool), side)
    background = raw.background
    return replace(
        raw,
        patterns=centred_window(raw.frames(), side),
        bad_pixels=bad,
        background=None if background is None else centred_window(background, side),
    )


def centred_window(values: np.ndarray, side: int, fill: float | bool = 0) -> np.ndarray:
    """Return a square window of the last two axes; pixel ``n // 2`` comes to ``side // 2``.

    Parameters
    ----------
    values : (..., h, w)
        Any arrays.
    side
        Of the window; where it is larger than the array, ``fill`` is added.
    fill
        What is added.
    """
    for axis in (-2, -1):
        length = values.shape[axis]
        first = length // 2 - side // 2
        if first > 0 or side < length:
            values = np.take(values, np.arange(first, first + side), axis=axis)
        elif side > length:
            pads = [(0, 0)] * values.ndim
            pads[axis] = (-first, side - length + first)
            values = np.pad(values, pads, constant_values=fill)
    return values


def _spectrum_resized(
    probe: Complex[np.ndarray, "*axes n n"], side: int
) -> Complex[np.ndarray, "*axes m m"]:
    """Return a probe with fewer or more pixels in the same window, and the same far field."""
    inner = np.fft.ifftshift(probe.astype(np.complex128), axes=(-2, -1))
    far = np.fft.fftshift(np.fft.fft2(inner, norm="ortho"), axes=(-2, -1))
    window = np.fft.ifftshift(centred_window(far, side), axes=(-2, -1))
    resampled: np.ndarray = np.fft.fftshift(np.fft.ifft2(window, norm="ortho"), axes=(-2, -1))
    return resampled


def _probe_of_binned(
    probe: Complex[np.ndarray, "*axes n n"], side: int, count: int
) -> tuple[Complex[np.ndarray, "*axes m m"], float]:
    """Return the middle of a probe, and the share of its power outside.

    A sum of pixels has its middle ``(count - 1) / 2`` pixels beside the first of them, where the
    zero frequency is: the phase ramp moves the far field by as much.
    """
    length = probe.shape[-1]
    along = (np.arange(length) - length // 2) * (count - 1) / (2 * length)
    ramp = np.exp(-2j * np.pi * (along[:, None] + along[None]))
    inside = centred_window(probe * ramp, side)
    power = float((np.abs(probe) ** 2).sum())
    return inside, 1 - float((np.abs(inside) ** 2).sum()) / power if power else 0.0
