"""From what a file says to an acquisition: the checks and conversions every format shares.

A reader only finds its arrays and says what they are. What they are worth is judged here: amplitude
or counts, frames that cannot be used, modes of the probe, squares, single precision. Nothing is
guessed: what a file leaves open is refused or asked for, and what is done is recorded.
"""

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Bool, Complex

from study_lib.data.formats.acquisition import (
    WHOLE_SHARE,
    Acquisition,
    Domain,
    RawScan,
    ReadChoices,
    check_shapes,
    transformation,
    whole_share,
)
from study_lib.data.formats.detector_faults import with_faults_masked, with_invalid_masked
from study_lib.data.formats.frames import in_wanted_frames, with_masks_and_dark
from study_lib.data.formats.positions import with_extent_checked
from study_lib.errors import InputError
from study_lib.physics.probe import mode_shares, orthogonal_modes

# --- Frames that cannot be used: left out if they have no valid count, else refused or dropped

NAMED_MAX = 8
WITHOUT_COUNT_MAX = 0.5  # of the frames: more are no accident of single frames
VALUES_AT_A_TIME = 2**22
NO_NUMBERS, NEGATIVE, EMPTY = "NaN or infinite patterns", "negative patterns", "empty patterns"


def without_named_frames(path: Path, raw: RawScan, choices: ReadChoices) -> RawScan:
    """Return the scan without the frames that the user names.

    Raises
    ------
    InputError
        If there is no frame of such a number, or fewer than two frames are left.
    """
    if not choices.leave_out:
        return raw
    names = raw.names
    if raw.patterns is None:
        raise InputError(f"{path}: --leave-out: there are no patterns to leave out")
    wanted = np.zeros(len(names), bool)
    for each in choices.leave_out:
        found = (names >= each.start) & (names < each.stop)
        there = set(names[found].tolist())
        if len(there) < len(each):
            missing = next(one for one in each if one not in there)
            raise InputError(
                f"{path}: --leave-out: found no frame {missing}; the file has {len(names)}, with "
                f"numbers from {names.min()} to {names.max()}"
            )
        wanted |= found
    if (~wanted).sum() < 2:
        raise InputError(
            f"{path}: --leave-out: {wanted.sum()} of {len(names)} frames are to be left out, and "
            "two have to stay at least; name fewer"
        )
    record = transformation("leave out named frames", frames=names[wanted].tolist())
    return raw.without_frames(np.flatnonzero(wanted), record)


def usable_frames(path: Path, raw: RawScan, choices: ReadChoices) -> RawScan:
    """Return the scan without the frames that cannot be used.

    These are frames whose position is no number, and patterns with NaN, infinite or negative
    values, or without a single count, bad pixels aside. Patterns without any value to use are left
    out with a remark if they are half of the scan at most; the others only if the user says so.

    Raises
    ------
    InputError
        If there are others, or too many, and the user did not choose to drop them; if none is left.
    """
    reasons = {"positions that are no numbers": ~np.isfinite(raw.positions_px).all(axis=1)}
    patterns = raw.patterns
    if patterns is not None:
        reasons |= _pattern_faults(patterns, raw.bad_pixels)
    faults = {reason: np.flatnonzero(mask) for reason, mask in reasons.items() if mask.any()}
    if not faults:
        return raw
    bad = np.unique(np.concatenate(list(faults.values())))
    share = len(bad) / len(raw.positions_px)
    are_empty = faults.keys() <= {NO_NUMBERS, EMPTY} and share <= WITHOUT_COUNT_MAX
    if not choices.drop_bad_frames and (choices.keep_all or not are_empty):
        text = "; ".join(
            f"{reason} at {_named(raw.names[where])}" for reason, where in faults.items()
        )
        raise InputError(f"{path}: {text}; {_remedy(raw, faults)}")
    if len(bad) == len(raw.positions_px):
        raise InputError(
            f"{path}: no frame is left after dropping {_named(raw.names[bad])}; mend the file"
        )
    record = transformation(
        "drop frames", **{reason: raw.names[where].tolist() for reason, where in faults.items()}
    )
    why = ", ".join(faults)
    were = "1 frame was" if len(bad) == 1 else f"{len(bad)} frames were"
    return raw.without_frames(bad, record, f"{were} left out: {_named(raw.names[bad])} ({why})")


def _remedy(raw: RawScan, faults: dict[str, np.ndarray]) -> str:
    """Return what to do about frames that cannot be used."""
    usual = "mend them or drop them with --drop-bad-frames"
    if raw.patterns is None or NEGATIVE not in faults:
        return usual
    below = np.zeros(raw.patterns.shape[1:], np.int64)
    for frame in faults[NEGATIVE]:
        below += raw.patterns[frame] < 0
    always = below == len(raw.patterns)
    if always.any() and not below[~always].any():
        places = ", ".join(f"({row}, {column})" for row, column in np.argwhere(always)[:NAMED_MAX])
        return (
            f"{int(always.sum())} detector pixels are negative in every frame, {places}: name them "
            "as bad with --mask"
        )
    if len(faults[NEGATIVE]) > WITHOUT_COUNT_MAX * len(raw.patterns):
        return (
            "values scattered below zero are what subtracting dark frames leaves: give the raw "
            "counts, and the dark frames with --dark, which become part of the model"
        )
    return usual


def _pattern_faults(
    patterns: np.ndarray, bad_pixels: np.ndarray | None
) -> dict[str, Bool[np.ndarray, " scan"]]:
    faults = np.zeros((3, len(patterns)), bool)
    at_a_time = max(1, VALUES_AT_A_TIME // max(1, patterns[0].size if len(patterns) else 1))
    for start in range(0, len(patterns), at_a_time):
        some = slice(start, start + at_a_time)
        part = patterns[some]
        counted = np.ones(part.shape, bool)
        if bad_pixels is not None:
            counted &= ~(bad_pixels if bad_pixels.ndim == 2 else bad_pixels[some]).astype(bool)
        pixels = (1, 2)
        no_number = np.zeros(len(part), bool)
        if patterns.dtype.kind == "f":
            no_number = (counted & ~np.isfinite(part)).any(axis=pixels)
        negative = (counted & (part < 0)).any(axis=pixels)
        lit = (counted & (part != 0)).any(axis=pixels)
        faults[:, some] = no_number, ~no_number & negative, ~no_number & ~negative & ~lit
    return dict(zip((NO_NUMBERS, NEGATIVE, EMPTY), faults, strict=True))


def _named(names: np.ndarray) -> str:
    shown = ", ".join(str(name) for name in names[:NAMED_MAX])
    more = f" and {len(names) - NAMED_MAX} more" if len(names) > NAMED_MAX else ""
    return f"index {shown}{more}"


# --- From what a file says to an acquisition

CENTRAL_SHARE_MIN = 0.25
ORTHOGONAL = 1e-5  # of the product of two norms: what single precision leaves
MODE_SHARE_MIN = 1e-7  # of the power: below, a mode is the rounding of the others


def acquisition_of(path: Path, raw: RawScan, choices: ReadChoices) -> Acquisition:
    """Return the acquisition in a file.

    Parameters
    ----------
    path
        The file, for messages; only its name is kept.
    raw
        What its reader found.
    choices
        What the user says.

    Raises
    ------
    InputError
        If something does not fit together or cannot be used.
    """
    raw = _in_said_domain(_without_ignored(path, raw, choices), choices)
    _check_shapes(path, raw)
    raw = with_masks_and_dark(path, _flipped(path, raw, choices), choices)
    raw = without_named_frames(path, raw, choices)
    raw = usable_frames(path, with_invalid_masked(raw), choices)
    raw = with_extent_checked(path, raw, choices)
    raw = _incoherent_modes(path, raw)
    raw = with_faults_masked(path, _centred(raw, choices), choices)
    raw = in_wanted_frames(path, raw, choices)
    type_changes = _type_changes(raw)
    raw = _amplitudes(path, raw)
    bad = raw.bad_pixels
    return Acquisition(
        positions_px=raw.positions_px.astype(np.float64),
        amplitudes=raw.patterns,
        probe=None if raw.probe is None else raw.probe.astype(np.complex64),
        object_=_single_slice(path, raw.object_),
        bad_pixels=None if bad is None or not bad.any() else bad.astype(bool),
        background=None if raw.background is None else raw.background.astype(np.float32),
        scan_index=None if raw.scan_index is None else raw.scan_index.astype(np.int64),
        is_normalized=raw.is_normalized,
        geometry=raw.geometry,
        transformations=(*raw.steps, *type_changes),
        remarks=raw.remarks,
        metadata={"source": path.name, **_said(path, choices), **(raw.metadata or {})},
    )


def _said(path: Path, choices: ReadChoices) -> dict[str, Any]:
    """Return what the user said of lengths and units, for the record."""
    said: dict[str, Any] = dict(choices.lengths.converted(path))
    if choices.lengths.electrons:
        said["electrons"] = True
    if choices.position_unit:
        said["position_unit"] = choices.position_unit
    return {"said_by_user": said} if said else {}


def _type_changes(raw: RawScan) -> list[dict[str, Any]]:
    wanted = {
        "diffraction": (raw.patterns, np.float32),
        "probeGuess": (raw.probe, np.complex64),
        "objectGuess": (raw.object_, np.complex64),
    }
    return [
        transformation(
            "convert type", array=key, from_type=str(array.dtype), to_type=np.dtype(dtype).name
        )
        for key, (array, dtype) in wanted.items()
        if array is not None and array.dtype != dtype
    ]


def _flipped(path: Path, raw: RawScan, choices: ReadChoices) -> RawScan:
    signs = np.where([choices.flip_y, choices.flip_x], -1.0, 1.0)
    if not (choices.swap_xy or (signs < 0).any()):
        return raw
    if raw.object_ is not None:
        raise InputError(
            f"{path}: the object in this file fixes the axes of the positions; leave out "
            "--swap-xy, --flip-y and --flip-x, or take --ignore object,probe"
        )
    positions = raw.positions_px[:, ::-1] if choices.swap_xy else raw.positions_px
    record = transformation(
        "turn positions", swap_xy=choices.swap_xy, flip_y=choices.flip_y, flip_x=choices.flip_x
    )
    return raw.after(record, positions_px=positions * signs)


def _check_shapes(path: Path, raw: RawScan) -> None:
    arrays = {
        "positions": raw.positions_px,
        "patterns": raw.patterns,
        "bad_pixels": raw.bad_pixels,
        "scan_index": raw.scan_index,
        "probe": raw.probe,
    }
    shapes = {name: array.shape for name, array in arrays.items() if array is not None}
    check_shapes(path, **shapes)
    if raw.patterns is not None and raw.patterns.dtype.kind not in "fiu":
        raise InputError(f"{path}: patterns: found {raw.patterns.dtype}; expected real numbers")


def _without_ignored(path: Path, raw: RawScan, choices: ReadChoices) -> RawScan:
    """Leave out the object and the probe that the user does not want from this file."""
    fields = {"object": raw.object_, "probe": raw.probe}
    left_out = sorted(name for name in choices.ignore if fields[name] is not None)
    if not left_out:
        return raw
    if raw.patterns is None:
        raise InputError(
            f"{path}: without patterns nothing can be reconstructed anew; leave out --ignore"
        )
    names = {"object": "object_", "probe": "probe"}
    record = transformation("ignore", arrays=left_out)
    return raw.after(record, **{names[name]: None for name in left_out})


def _in_said_domain(raw: RawScan, choices: ReadChoices) -> RawScan:
    """Return the scan in the domain that the user says, who has the last word over the file."""
    said = choices.domain
    found = "normalized" if raw.is_normalized else raw.domain
    if raw.patterns is None or said in (None, found):
        return raw
    record = transformation("take the domain from the user", found=found, said=said)
    return raw.after(
        record,
        f"the file holds {found} by its format or its own statement; --domain {said} was taken",
        domain="counts" if said == "counts" else "amplitude",
        is_normalized=said == "normalized",
    )


def _incoherent_modes(path: Path, raw: RawScan) -> RawScan:
    """Return the scan with the incoherent modes of its mean probe."""
    if raw.probe is None:
        return raw
    probe = raw.probe
    if probe.ndim == 3 and probe.shape[2] == 1:
        probe = probe[:, :, 0]
    if probe.ndim < 2 or probe.shape[-1] != probe.shape[-2] or not probe.size:
        raise InputError(
            f"{path}: probe: found shape {probe.shape}; expected a square (n, n), with axes for "
            "modes before it; leave it out with --ignore object,probe, or crop it with its patterns"
        )
    _require_complex(path, "probe", probe)
    varying = int(np.prod(probe.shape[:-3]))
    modes = probe[(0,) * max(0, probe.ndim - 3)].reshape(-1, *probe.shape[-2:])
    if not modes.any():
        raise InputError(f"{path}: probe: all zero; give a probe with some power")
    if varying > 1:
        raw = raw.after(
            transformation("take the mean probe", opr_modes=varying),
            f"the probe varies from pattern to pattern by {varying} OPR modes; their first, the "
            f"mean probe, was taken: of shape {raw.probe.shape} the axes before the last three "
            "count OPR modes; incoherent modes are (modes, n, n)",
        )
    if not _are_orthogonal(modes):
        given = len(modes)
        modes = orthogonal_modes(modes)
        modes = modes[mode_shares(modes) > MODE_SHARE_MIN]
        raw = raw.after(transformation("make probe modes orthogonal", modes=given, kept=len(modes)))
    return replace(raw, probe=modes[0] if len(modes) == 1 else modes)


def _are_orthogonal(modes: Complex[np.ndarray, "modes n n"]) -> bool:
    """Return whether modes are orthogonal and strongest first, but for single precision."""
    flat = modes.reshape(len(modes), -1).astype(np.complex128)
    products = np.abs(flat @ flat.conj().T)
    powers = products.diagonal()
    limits = ORTHOGONAL * np.sqrt(np.outer(powers, powers))
    in_order = bool((powers[1:] <= powers[:-1] * (1 + ORTHOGONAL)).all())
    apart = bool((products - np.diag(powers) <= limits).all())
    return in_order and apart and bool(powers[-1] > MODE_SHARE_MIN * powers.sum())


def _require_complex(path: Path, name: str, image: np.ndarray) -> None:
    if image.dtype.kind not in "fc" or not np.isfinite(image).all():
        raise InputError(
            f"{path}: {name}: found {image.dtype} that is not complex and finite; write it again"
        )


def _single_slice(path: Path, object_: np.ndarray | None) -> Complex[np.ndarray, "oy ox"] | None:
    if object_ is None:
        return None
    if object_.ndim < 2 or set(object_.shape[:-2]) - {1} or not object_.size:
        raise InputError(
            f"{path}: object: found shape {object_.shape}; expected one slice of (rows, columns); "
            "an object of several slices is not a thin specimen, export one of them"
        )
    _require_complex(path, "object", object_)
    return object_.reshape(object_.shape[-2:]).astype(np.complex64)


def _centred(raw: RawScan, choices: ReadChoices) -> RawScan:
    if raw.patterns is None or (choices.zero_frequency or raw.zero_frequency) == "centre":
        return raw
    bad = raw.bad_pixels
    return raw.after(
        transformation("move the zero frequency from the corner to the centre"),
        patterns=np.fft.fftshift(raw.patterns, axes=(-2, -1)),
        bad_pixels=None if bad is None else np.fft.fftshift(bad, axes=(-2, -1)),
        background=None if raw.background is None else np.fft.fftshift(raw.background),
    )


def _amplitudes(path: Path, raw: RawScan) -> RawScan:
    """Return the scan with sqrt(counts) for patterns, and bad pixels at zero."""
    if raw.patterns is None:
        return raw
    steps, remarks = list(raw.steps), list(raw.remarks)
    # Whole numbers of 16 bits would overflow in every sum and square: NORMALIZE-DATA-UINT16-001.
    with np.errstate(over="ignore"):
        values = raw.patterns.astype(np.float32)
    if raw.bad_pixels is not None and raw.bad_pixels.any():
        values[..., raw.bad_pixels.astype(bool)] = 0
        steps.append(transformation("set bad pixels to zero", pixels=int(raw.bad_pixels.sum())))
    _check_power(path, values, raw.domain)
    whole = whole_share(values)
    if raw.domain == "counts" and whole < WHOLE_SHARE:
        remarks.append(f"taken as counts, but {1 - whole:.0%} of the values are not whole numbers")
    if raw.domain == "amplitude" and whole >= WHOLE_SHARE and values.max() > 1:
        remarks.append("taken as amplitude, but all values are whole numbers, as counts are")
    if _central_share(values, raw.domain) < CENTRAL_SHARE_MIN:
        remarks.append(
            "most of the light is away from the middle of the patterns; if the zero frequency is "
            "not where the format has it, say --zero-frequency corner or centre"
        )
    if raw.domain == "counts":
        values = np.sqrt(values)
        steps.append(transformation("take the square root of counts"))
    return replace(raw, patterns=values, steps=tuple(steps), remarks=tuple(remarks))


def _check_power(path: Path, values: np.ndarray, domain: Domain | None) -> None:
    """Refuse patterns whose power is zero, or more than single precision holds."""
    with np.errstate(over="ignore"):
        power = values.sum(dtype=np.float64) if domain == "counts" else np.square(values).sum()
    if not np.isfinite(power) or not power:
        raise InputError(
            f"{path}: patterns: their power is {power:g}; it has to be more than zero and finite "
            f"in single precision; correct their scale, or --domain"
        )


def _central_share(values: np.ndarray, domain: Domain | None) -> float:
    """Return how much of the mean pattern lies in the central half of the detector, each way.

    Of amplitudes the square of the mean is taken for the light; near enough for a warning.
    """
    mean = (values.mean(axis=0, dtype=np.float64)) ** (1 if domain == "counts" else 2)
    rows, columns = mean.shape
    middle = mean[rows // 4 : rows - rows // 4, columns // 4 : columns - columns // 4]
    return float(middle.sum() / mean.sum()) if mean.sum() else 1.0
