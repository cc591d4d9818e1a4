"""What a detector counted wrongly without its mask saying so: pixels, values, whole frames.

Some faults show in one value: NaN, a negative flag, the largest number of its type. Others show in
the whole scan. In the far field of a probe that is narrower than its window a pattern is sampled
more finely than it can vary, and its mean over the scan is smooth; and what a scan sees at one
place it sees again at the next, so that a value that no other frame comes near is no diffraction.
The tests below take only what stands out by a factor, on pixels that stand alone: a beam, a streak
or the rim of a lens is wider.

A value that is masked has no say; a frame that stands out is left out and named.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from jaxtyping import Bool, Float
from scipy import ndimage

from study_lib.data.formats.acquisition import RawScan, ReadChoices, transformation
from study_lib.errors import InputError

FRAMES_MIN = 10  # below, a scan says too little about its detector
BLOCK_VALUES = 2**24
ALONE_PX = 3  # a fault is at most so wide; the sharpest beam in a window twice its width is wider
BEAM_PX = 4  # from the zero frequency, where the direct beam may be as sharp as a fault
FACTOR = 8.0  # of a mean above its surroundings
NAMED_MAX = 6
ORDERS_ALIKE = 4.0  # ratio of two opposite orders at most
ORDER_FACTOR = 3.0  # of the weaker one above its surroundings
SHARE_MAX = 0.05  # of the detector: more of one kind is no fault of single pixels
STEADY = 0.05  # variance over mean of counts that do not vary; Poisson counts have 1
DEAD_COUNTS = 50.0  # in the surroundings of a pixel that has none in the whole scan
GAP_PX = 24
FLICKER = 30.0  # variance over mean, in units of the surroundings'
SPIKE_FACTOR, SPIKE_COUNTS, SEEN_AGAIN = 20.0, 100.0, 3
BRIGHT_FACTOR, BLANK_SHARE = 3.0, 0.02
PLATEAU_COUNTS, PLATEAU_VALUES, PLATEAU_FACTOR, PLATEAU_FRAMES = 20.0, 10, 10.0, 3
ROUGHNESS = 1e-5  # of a plateau: roots of one level differ in their last digit
LOST_SHARE = 0.9  # of a frame that is masked: the rest says nothing
FRAME_SHARE_MAX = 0.5  # of a frame that is no counts: beyond, the frame is of no use
FLAGS_SCATTERED_MAX = 1e-3  # of all values, on pixels that have counts in other frames
FLAGS = (-1.0, -2.0)  # of a gap and of a bad pixel, as detectors write them in whole numbers

RING = np.ones((5, 5), bool)
RING[1:4, 1:4] = False


@dataclass(frozen=True)
class DetectorFaults:
    """What was found.

    ``bad_pixels`` (h, w) is True where a pixel is bad in every frame, ``bad_values`` (scan, h, w)
    where a single value is, None without any; ``frames`` has the reason for each frame to leave
    out; ``remarks`` say all of it.
    """

    bad_pixels: Bool[np.ndarray, "h w"]
    bad_values: Bool[np.ndarray, "scan h w"] | None = None
    frames: dict[int, str] = field(default_factory=dict)
    remarks: tuple[str, ...] = ()


def invalid_values(
    patterns: np.ndarray, bad: Bool[np.ndarray, "h w"] | None = None
) -> DetectorFaults:
    """Return what cannot be a count: NaN, infinite, flags, the largest number of an integer type.

    Parameters
    ----------
    patterns : (scan, h, w)
        As they are in the file.
    bad : (h, w)
        Pixels that are known to be bad; nothing is said about them.

    Examples
    --------
    >>> import numpy as np
    >>> from study_lib.data.formats.detector_faults import invalid_values
    >>> patterns = np.ones((3, 8, 8), np.uint16)
    >>> patterns[:, 2, 5] = 65535
    >>> found = invalid_values(patterns)
    >>> int(found.bad_pixels.sum()), found.remarks
    (1, ('1 pixel has the largest number of its type in every frame: (2, 5)',))
    """
    known = np.zeros(patterns.shape[1:], bool) if bad is None else bad
    always = np.zeros(patterns.shape[1:], bool)
    values: np.ndarray | None = None
    remarks = []
    for name, is_fault in _kinds_of_invalid(patterns, known).items():
        counted = np.zeros(patterns.shape[1:], np.int64)
        share = np.zeros(len(patterns))
        for part in _frames_at_a_time(patterns):
            found = is_fault(patterns[part]) & ~known
            counted += found.sum(axis=0)
            share[part] = found.mean(axis=(1, 2))
        every = counted == len(patterns)
        if every.mean() > FRAME_SHARE_MAX:
            continue  # no frame is of any use: the next to look says so
        always |= every
        remarks += _said_of_pixels(every, f"{name} in every frame")
        some = (share > every.mean()) & (share - every.mean() <= FRAME_SHARE_MAX)
        if some.any():
            values = np.zeros(patterns.shape, bool) if values is None else values
            for part in _frames_at_a_time(patterns):
                values[part] |= is_fault(patterns[part]) & ~every & ~known & some[part, None, None]
            remarks.append(
                f"{int(values.sum())} values are {name}, in {int(some.sum())} frames: they have no "
                "say there"
            )
    return DetectorFaults(always, values, {}, tuple(remarks))


def _kinds_of_invalid(
    patterns: np.ndarray, known: Bool[np.ndarray, "h w"]
) -> dict[str, Callable[[np.ndarray], np.ndarray]]:
    """Return what no count of this type can be, in words and as a test."""
    if patterns.dtype.kind == "u":
        largest = np.iinfo(patterns.dtype).max
        return {"the largest number of its type": lambda part: part == largest}
    kinds: dict[str, Callable[[np.ndarray], np.ndarray]] = {}
    if patterns.dtype.kind == "i":
        most = np.iinfo(patterns.dtype).max
        kinds["the largest number of its type"] = lambda part: part == most
    else:
        kinds["no number"] = lambda part: ~np.isfinite(part)
    steady = (patterns[0] < 0) & ~np.isin(patterns[0], FLAGS) & ~known
    for part in _frames_at_a_time(patterns):
        steady &= (patterns[part] == patterns[0]).all(axis=0)
    if steady.any():
        kinds["one negative number"] = lambda part: np.broadcast_to(steady, part.shape)
    below = np.zeros(known.shape, np.int64)
    flags = 0
    for part in _frames_at_a_time(patterns):
        negative = (patterns[part] < 0) & ~known & ~steady
        below += negative.sum(axis=0)
        flags += int(np.isin(patterns[part][negative], FLAGS).sum())
    # Other numbers, or negative ones here and there, are what subtracting a dark leaves: to mask
    # them would leave out what is low.
    scattered = below[below < len(patterns)].sum() / patterns.size
    if flags and flags == below.sum() and scattered < FLAGS_SCATTERED_MAX:
        kinds["the flag -1 or -2"] = lambda part: np.isin(part, FLAGS)
    return kinds


def faults_of_scan(
    patterns: np.ndarray,
    bad: np.ndarray | None = None,
    *,
    are_roots: bool = False,
    names: np.ndarray | None = None,
) -> DetectorFaults:
    """Return the pixels, values and frames of a scan that stand out beyond what diffraction does.

    Constant, dead, hot and flickering pixels; spikes such as cosmic rays; a plateau at the largest
    value, which is saturation; frames far brighter than any other, or almost blank. A scan of
    fewer than ten frames is not judged.

    Parameters
    ----------
    patterns : (scan, h, w)
        Counts, or their roots, zero frequency in the centre; finite where `bad` is False.
    bad : (h, w) or (scan, h, w)
        What is known to be bad.
    are_roots
        Whether they are square roots of counts.
    names : (scan,)
        Numbers that remarks give to the frames; their places if None.

    Examples
    --------
    A pixel that has one count, whatever the pattern:

    >>> import numpy as np
    >>> import study_lib as study
    >>> from study_lib.data.formats.detector_faults import faults_of_scan
    >>> patterns = study.generator(42, "counts").poisson(40.0, (20, 16, 16))
    >>> patterns[:, 3, 12] = 5000
    >>> faults_of_scan(patterns).remarks
    ('1 pixel has the same count in every frame: (3, 12)',)
    """
    shape = patterns.shape[1:]
    if len(patterns) < FRAMES_MIN or min(shape) < RING.shape[0]:
        return DetectorFaults(np.zeros(shape, bool))
    counts = _Counts(patterns, bad, are_roots=are_roots)
    highest = _plateau(counts)
    names = np.arange(len(patterns)) if names is None else names
    remarks: list[str] = []
    masks: list[Callable[[np.ndarray], np.ndarray]] = []
    if highest is not None:
        level = highest * (1 - ROUGHNESS)
        masks.append(lambda values: values >= level)
        remarks.append(
            f"{counts.share_at(level):.2g} of all values lie on a plateau at {highest:.6g}, the "
            "largest: they were taken as saturated and have no say; name another level with "
            "--saturation"
        )
    facts = _Facts.of(counts)
    pixels = np.zeros(shape, bool)
    for kind, found in _bad_pixels(facts, counts.always_bad).items():
        share = found.sum() / max(1, (facts.mean > 1).sum()) if kind == CONSTANT else found.mean()
        if share <= (SHARE_MAX if kind in (HOT, FLICKERING) else FRAME_SHARE_MAX):
            pixels |= found
            remarks += _said_of_pixels(found, kind)
        else:
            remarks.append(
                f"{share:.0%} of the lit detector has {kind}: more than a fault of pixels, and "
                "nothing was masked"
            )
    # What three frames reach is seen again and again; a spike is not.
    reached = np.maximum(facts.third_largest, SPIKE_COUNTS / SPIKE_FACTOR)
    spiky = facts.largest > SPIKE_FACTOR * reached
    # What is masked in several frames may have been as bright there: saturated, above all.
    spiky &= ~pixels & (facts.valid_frames > len(patterns) - SEEN_AGAIN)
    if spiky.any():
        masks.append(lambda values: spiky & (values > SPIKE_FACTOR * reached))
    frames = _bad_frames(counts, pixels, reached)
    values = _masked_values(counts, masks)
    spiked = _frames_with(values, spiky, frames)
    if spiked:
        shown = ", ".join(str(names[one]) for one in spiked[:NAMED_MAX])
        more = f" and {len(spiked) - NAMED_MAX} more" if len(spiked) > NAMED_MAX else ""
        remarks.append(
            f"frame {shown}{more}: values over {SPIKE_FACTOR:g} times what the same pixels reach "
            "in other frames, as a cosmic ray leaves them: they have no say there"
        )
    remarks += [f"frame {names[frame]}: {reason}" for frame, reason in frames.items()][:NAMED_MAX]
    if len(frames) > NAMED_MAX:
        remarks.append(f"{len(frames)} of {len(patterns)} frames were left out in all")
    return DetectorFaults(pixels, values, frames, tuple(remarks))


# --- A scan in counts, some frames or rows at a time


class _Counts:
    """A scan as counts with zeros where nothing is valid; never all of it at once."""

    def __init__(self, patterns: np.ndarray, bad: np.ndarray | None, *, are_roots: bool) -> None:
        self.patterns, self.are_roots = patterns, are_roots
        self.bad = None if bad is None else bad.astype(bool)
        self.shape: tuple[int, ...] = patterns.shape

    @property
    def always_bad(self) -> Bool[np.ndarray, "h w"]:
        """Pixels without a valid count in any frame."""
        if self.bad is None:
            return np.zeros(self.shape[1:], bool)
        always: np.ndarray = np.all(self.bad.reshape(-1, *self.shape[1:]), axis=0)
        return always

    @property
    def valid_frames(self) -> Float[np.ndarray, "h w"]:
        """Number of frames in which each pixel has a valid count."""
        count, *shape = self.shape
        if self.bad is None:
            return np.full(shape, float(count))
        valid: np.ndarray = count - np.broadcast_to(self.bad, self.shape).sum(axis=0, dtype=float)
        return valid

    def frames(self) -> Iterator[tuple[slice, np.ndarray]]:
        """Yield counts (frames, h, w) as 64-bit numbers."""
        for part in _frames_at_a_time(self.patterns):
            yield part, self._valid(self.patterns[part], part, slice(None))

    def rows(self) -> Iterator[tuple[slice, np.ndarray]]:
        """Yield counts (scan, rows, w)."""
        step = max(1, BLOCK_VALUES // (self.shape[0] * self.shape[2]))
        for start in range(0, self.shape[1], step):
            part = slice(start, start + step)
            yield part, self._valid(self.patterns[:, part], slice(None), part)

    def share_at(self, level: float) -> float:
        """Return the share of values at a level or above."""
        at = sum(int((counts >= level).sum()) for _, counts in self.frames())
        return at / self.patterns.size

    def _valid(self, values: np.ndarray, frames: slice, rows: slice) -> np.ndarray:
        counts = values.astype(np.float64)
        if self.are_roots:
            counts *= counts
        if self.bad is not None:
            bad = self.bad[rows] if self.bad.ndim == 2 else self.bad[frames, rows]
            counts[np.broadcast_to(bad, counts.shape)] = 0
        return counts


def _frames_at_a_time(patterns: np.ndarray) -> Iterator[slice]:
    step = max(1, BLOCK_VALUES // max(1, patterns[0].size))
    for start in range(0, len(patterns), step):
        yield slice(start, start + step)


@dataclass(frozen=True)
class _Facts:
    """Of each pixel over its valid frames, (h, w); ``usual`` is the mean without the largest."""

    valid_frames: Float[np.ndarray, "h w"]
    mean: Float[np.ndarray, "h w"]
    usual: Float[np.ndarray, "h w"]
    dispersion: Float[np.ndarray, "h w"]
    largest: Float[np.ndarray, "h w"]
    third_largest: Float[np.ndarray, "h w"]

    @classmethod
    def of(cls, counts: _Counts) -> "_Facts":
        """Return them for a scan."""
        mean, dispersion, largest, third = np.zeros((4, *counts.shape[1:]))
        valid = counts.valid_frames
        used = np.maximum(valid, 2)
        for rows, values in counts.rows():
            mean[rows] = values.sum(axis=0) / used[rows]
            # What is masked is zero here, and each differs from the mean by as much.
            squares = ((values - mean[rows]) ** 2).sum(axis=0)
            squares -= (len(values) - used[rows]) * mean[rows] ** 2
            spread = np.maximum(squares, 0) / (used[rows] - 1)
            dispersion[rows] = spread / np.maximum(mean[rows], np.finfo(float).tiny)
            top = np.partition(values, (-3, -1), axis=0)
            largest[rows], third[rows] = top[-1], top[-3]
        usual = (used * mean - largest) / (used - 1)
        return cls(valid, mean, usual, dispersion, largest, third)


# --- Pixels

CONSTANT, DEAD, HOT, FLICKERING = (
    "the same count in every frame",
    "no count in the whole scan, amid pixels that have",
    f"more than {FACTOR:g} times the counts of the pixels around",
    f"counts that vary over {FLICKER:g} times as much as those around",
)


def _bad_pixels(facts: _Facts, known: Bool[np.ndarray, "h w"]) -> dict[str, np.ndarray]:
    """Return the pixels of each kind; each counts once."""
    mean = facts.mean
    around = _around(np.where(known, np.nan, facts.usual))
    beam = np.zeros(mean.shape, bool)
    middle = [slice(side // 2 - BEAM_PX, side // 2 + BEAM_PX + 1) for side in mean.shape]
    beam[tuple(middle)] = True
    # Masked in some frames, beside pixels that are in all: the rim of what is saturated.
    rim = ndimage.binary_dilation(known, np.ones((3, 3), bool))
    beam |= rim & (facts.valid_frames < facts.valid_frames.max())
    steady = (mean > 1) & (facts.dispersion < STEADY)
    found = {CONSTANT: steady & ~known}
    found[DEAD] = _dead(mean * facts.valid_frames, known)
    hot = (facts.usual > FACTOR * around) & (facts.usual > 1) & ~beam
    usual = np.maximum(_around(facts.dispersion), 1)
    wild = (facts.dispersion > FLICKER * usual) & (facts.third_largest > SPIKE_COUNTS)
    wild &= facts.third_largest > FACTOR * _around(facts.third_largest)
    taken = known | found[CONSTANT]
    hot_spots, wild_spots = _alone(hot & ~taken), _alone(wild & ~beam & ~taken)
    orders = _orders(facts.usual, around, hot_spots | wild_spots, middle)
    found[HOT] = (hot_spots & ~orders) | (_hot_lines(facts.usual) & ~known)
    found[FLICKERING] = wild_spots & ~orders & ~found[HOT]
    enough = facts.valid_frames >= FRAMES_MIN
    return {kind: pixels & enough for kind, pixels in found.items()}


def _orders(
    usual: Float[np.ndarray, "h w"],
    around: Float[np.ndarray, "h w"],
    spots: Bool[np.ndarray, "h w"],
    middle: list[slice],
) -> Bool[np.ndarray, "h w"]:
    """Return the bright spots that may be diffraction orders of a grating or a lattice of holes.

    Orders have the width of the direct beam, which is sampled more finely than it can vary: the
    pixels beside them have light. They come in pairs on opposite sides of it; where there is one
    such pair, others may be orders whose partner is weak or off the detector.
    """
    beam = np.unravel_index(usual[tuple(middle)].argmax(), usual[tuple(middle)].shape)
    twice = [2 * (part.start + int(at)) for part, at in zip(middle, beam, strict=True)]
    places = np.argwhere(spots)
    opposite = twice - places
    inside = ((opposite >= 0) & (opposite < usual.shape)).all(axis=1)
    stands_out = np.where(usual > ORDER_FACTOR * around, usual, 0)
    nearby = ndimage.maximum_filter(stands_out, size=3)  # the beam is found to a pixel
    partner = np.zeros(len(places))
    partner[inside] = nearby[tuple(opposite[inside].T)]
    beside = ndimage.rank_filter(usual, -2, size=3, mode="nearest")
    wide = spots & (usual < FACTOR * beside)
    paired = wide[spots] & (partner > usual[spots] / ORDERS_ALIKE)
    return wide if paired.sum() >= 2 else np.zeros(spots.shape, bool)


def _hot_lines(usual: Float[np.ndarray, "h w"]) -> Bool[np.ndarray, "h w"]:
    """Return whole rows and columns far brighter than those beside them, in half of their pixels.

    Light that is brighter along one line is so about the zero frequency, and not at both its ends.
    """
    found = np.zeros(usual.shape, bool)
    for axis in (0, 1):
        lines = usual if axis == 0 else usual.T
        ends = np.r_[0 : lines.shape[1] // 4, -(lines.shape[1] // 4) : 0]
        level = np.median(lines[:, ends], axis=1)
        for line in range(2, len(level) - 2):
            if abs(line - len(level) // 2) <= BEAM_PX:
                continue  # the edges of a window leave a streak there
            beside = max(level[[line - 2, line - 1, line + 1, line + 2]])
            if level[line] > max(FACTOR * beside, 1):
                found[(line, slice(None)) if axis == 0 else (slice(None), line)] = True
    return found


def _around(image: Float[np.ndarray, "h w"]) -> Float[np.ndarray, "h w"]:
    """Return the second largest value two pixels around each pixel; NaN is as bright as beside it.

    Saturated pixels have no value here, and those at their rim are not hot. A streak or a rim
    crosses that ring twice, another fault nearby touches it once.
    """
    filled = np.nan_to_num(image)
    filled = np.where(np.isnan(image), ndimage.maximum_filter(filled, size=3), filled)
    ranked: np.ndarray = ndimage.rank_filter(filled, -2, footprint=RING, mode="nearest")
    return ranked


def _alone(mask: Bool[np.ndarray, "h w"]) -> Bool[np.ndarray, "h w"]:
    """Return what of a mask is at most some pixels long and wide."""
    labels, count = ndimage.label(mask, structure=np.ones((3, 3)))
    if not count:
        return mask
    small = [
        max(part.stop - part.start for part in place) <= ALONE_PX
        for place in ndimage.find_objects(labels)
    ]
    return np.isin(labels, 1 + np.flatnonzero(small))


def _dead(total: np.ndarray, known: np.ndarray) -> Bool[np.ndarray, "h w"]:
    """Return pixels without a count: single ones amid light, and whole rows or columns of a gap."""
    dark = (total == 0) & ~known
    lit = ndimage.percentile_filter(total, 25, footprint=RING, mode="nearest")
    dead: np.ndarray = _alone(dark) & (lit > DEAD_COUNTS)
    for axis in (0, 1):
        profile = total.sum(axis=1 - axis)
        empty = (dark | known).all(axis=1 - axis) & dark.any(axis=1 - axis)
        labels, _ = ndimage.label(empty)
        for (place,) in ndimage.find_objects(labels):
            sides = [place.start - 1, place.stop]
            is_inside = sides[0] >= 0 and sides[1] < len(profile)
            is_narrow = place.stop - place.start <= GAP_PX
            if is_inside and is_narrow and min(profile[sides]) > DEAD_COUNTS:
                dead[(place, slice(None)) if axis == 0 else (slice(None), place)] = True
    found: np.ndarray = dead & ~known
    return found


def _said_of_pixels(mask: Bool[np.ndarray, "h w"], what: str) -> list[str]:
    """Return a sentence on the pixels of a mask, with the first places; none for none."""
    places = np.argwhere(mask)
    if not len(places):
        return []
    shown = ", ".join(f"({row}, {column})" for row, column in places[:NAMED_MAX])
    more = f" and {len(places) - NAMED_MAX} more" if len(places) > NAMED_MAX else ""
    whose = "1 pixel has" if len(places) == 1 else f"{len(places)} pixels have"
    return [f"{whose} {what}: {shown}{more}"]


# --- Saturation, spikes and frames


def _plateau(counts: _Counts) -> float | None:
    """Return the largest value where far more pixels have it than values a little below."""
    largest = max(float(values.max()) for _, values in counts.frames())
    if largest < PLATEAU_COUNTS:
        return None
    level = largest * (1 - ROUGHNESS)
    at = below = frames = 0
    pixels = np.zeros(counts.shape[1:], bool)
    for _, values in counts.frames():
        reached = values >= level
        at += int(reached.sum())
        frames += int(reached.any(axis=(1, 2)).sum())
        pixels |= reached.any(axis=0)
        below += int(((values >= 0.9 * largest) & ~reached).sum())
    each = below / (0.1 * largest)  # values on each whole number below
    is_wide = frames >= PLATEAU_FRAMES and pixels.sum() >= 2
    is_high = at >= PLATEAU_VALUES and at > PLATEAU_FACTOR * (1 + each)
    return largest if is_wide and is_high else None


def _bad_frames(counts: _Counts, pixels: np.ndarray, reached: np.ndarray) -> dict[int, str]:
    """Return the frames to leave out, each with its reason."""
    totals = np.zeros(counts.shape[0])
    lost = np.zeros(counts.shape[0])
    for part, values in counts.frames():
        kept = values * ~pixels
        capped = np.minimum(kept, SPIKE_FACTOR * reached)
        totals[part] = capped.sum(axis=(1, 2))
    if counts.bad is not None and counts.bad.ndim == 3:
        lost[:] = counts.bad.mean(axis=(1, 2))
    median = float(np.median(totals))
    usual = max(float(np.sort(totals)[-3]), median)
    found: dict[int, str] = {}
    for frame in np.flatnonzero(lost > LOST_SHARE):
        found[int(frame)] = f"{lost[frame]:.0%} of it is masked; it was left out"
    blank = np.flatnonzero(totals < BLANK_SHARE * median)
    # Many of them are a specimen that lets nothing through.
    for frame in blank if len(blank) <= SHARE_MAX * len(totals) else ():
        text = f"{totals[frame]:.3g} counts where the median is {median:.3g}; it was left out"
        found.setdefault(int(frame), text)
    for frame in np.flatnonzero(totals > BRIGHT_FACTOR * usual):
        text = f"{totals[frame]:.3g} counts where others have at most {usual:.3g}; it was left out"
        found.setdefault(int(frame), text)
    return found


def _masked_values(
    counts: _Counts, masks: list[Callable[[np.ndarray], np.ndarray]]
) -> np.ndarray | None:
    """Return the values that a mask takes, (scan, h, w); None if there are none."""
    if not masks:
        return None
    found = np.zeros(counts.shape, bool)
    for part, values in counts.frames():
        for mask in masks:
            found[part] |= mask(values)
    return found if found.any() else None


def _frames_with(
    values: np.ndarray | None, spiky: np.ndarray, left_out: dict[int, str]
) -> list[int]:
    """Return the frames that have a masked value on a pixel with spikes."""
    if values is None or not spiky.any():
        return []
    hit = np.flatnonzero(values[:, spiky].any(axis=1))
    return [int(frame) for frame in hit if int(frame) not in left_out]


# --- The same for a scan on its way from a file


def with_invalid_masked(raw: RawScan) -> RawScan:
    """Return the scan with what cannot be a count masked, see :func:`invalid_values`."""
    if raw.patterns is None:
        return raw
    known = raw.bad_pixels
    in_all = known if known is None or known.ndim == 2 else known.astype(bool).all(axis=0)
    found = invalid_values(raw.patterns, None if in_all is None else in_all.astype(bool))
    return _masked(raw, found)


def with_faults_masked(path: Path, raw: RawScan, choices: ReadChoices) -> RawScan:
    """Return the scan without the faults of :func:`faults_of_scan`, unless all is to be kept.

    Parameters
    ----------
    path
        The file, for messages.
    raw
        Zero frequency in the centre.
    choices
        ``keep_all`` says that nothing is masked or left out.

    Raises
    ------
    InputError
        If fewer than two frames are left.
    """
    patterns = raw.patterns
    if patterns is None or choices.keep_all or raw.is_normalized:
        return raw
    found = faults_of_scan(
        patterns, raw.bad_pixels, are_roots=raw.domain == "amplitude", names=raw.names
    )
    raw = _masked(raw, found)
    if not found.frames:
        return raw
    left = len(raw.positions_px) - len(found.frames)
    if left < 2:
        raise InputError(
            f"{path}: {len(found.frames)} of {len(raw.positions_px)} frames are faulty and fewer "
            "than two are left; take all of them with --keep-all"
        )
    reasons = {str(raw.names[one]): why for one, why in found.frames.items()}
    return raw.without_frames(
        np.array(list(found.frames)), transformation("leave out frames", **reasons)
    )


def _masked(raw: RawScan, found: DetectorFaults) -> RawScan:
    """Return the scan with what was found added to its mask, and said."""
    if not (found.bad_pixels.any() or found.bad_values is not None or found.remarks):
        return raw
    bad = np.zeros(found.bad_pixels.shape, bool) if raw.bad_pixels is None else raw.bad_pixels != 0
    bad = bad | found.bad_pixels
    if found.bad_values is not None:
        bad = bad | found.bad_values
    pixels = int(found.bad_pixels.sum())
    values = 0 if found.bad_values is None else int(found.bad_values.sum())
    return raw.after(
        transformation("mask what the detector counted wrongly", pixels=pixels, values=values),
        *found.remarks,
        bad_pixels=bad,
    )
