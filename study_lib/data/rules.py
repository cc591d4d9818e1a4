"""Rules of DATA-001 between arrays, between splits, of metadata; single arrays: see contract."""

import math
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, TypeGuard

import numpy as np

from study_lib.data.archive import SLAB_BYTES, NpzArchive

# --- Summaries of arrays: what a check needs to know, gathered slab by slab

KEPT_BYTES = 2**24
NAMED_INDICES = 5
SAMPLE = 2**16


@dataclass(frozen=True)
class ArraySummary:
    """Shape, type and the numbers of one array.

    ``faulty`` and ``negative`` list the first few places along the first axis that hold NaN or
    infinite, or negative values; ``*_count`` count the values. ``totals`` (n,) is the sum of
    squares of each entry of a three-dimensional array, in photons for a pattern. ``whole`` is True
    if every real value is a whole number; ``roots``, if the first squares are.
    ``values`` is the array itself if it is small.
    """

    shape: tuple[int, ...]
    dtype: np.dtype[Any]
    faulty: tuple[int, ...] = ()
    faulty_count: int = 0
    negative: tuple[int, ...] = ()
    negative_count: int = 0
    largest: float = 0.0
    whole: bool = False
    roots: bool = True
    totals: np.ndarray | None = None
    values: np.ndarray | None = None

    @property
    def ndim(self) -> int:
        """Number of axes."""
        return len(self.shape)

    @property
    def size(self) -> int:
        """Number of values."""
        return math.prod(self.shape)


def summary_of_array(array: np.ndarray) -> ArraySummary:
    """Return the summary of an array in memory, without copying it."""
    return _gather(array.shape, array.dtype, _slabs_of(array), 0, array)


def summary_of_header(archive: NpzArchive, name: str) -> ArraySummary:
    """Return shape and type of an array in an archive, without reading it."""
    member = archive.members[name]
    return ArraySummary(member.shape, member.dtype)


def summary_of_entry(archive: NpzArchive, name: str) -> ArraySummary:
    """Return the summary of an array in an archive; small ones are kept, large ones never are.

    Raises
    ------
    InputError
        If the member is damaged.
    """
    member = archive.members[name]
    if member.size_bytes <= KEPT_BYTES:
        array = archive.read(name)
        return _gather(member.shape, member.dtype, _slabs_of(array), 0, array)
    axis = len(member.shape) - 1 if member.fortran else 0
    return _gather(member.shape, member.dtype, archive.slabs(name), axis, None)


def _slabs_of(array: np.ndarray) -> Iterator[tuple[slice, np.ndarray]]:
    if array.ndim == 0:
        yield slice(0, 1), array
        return
    row_bytes = max(1, array.nbytes // max(1, len(array)))
    step = max(1, SLAB_BYTES // row_bytes)
    for start in range(0, len(array), step):
        part = slice(start, min(start + step, len(array)))
        yield part, array[part]


def _gather(
    shape: tuple[int, ...],
    dtype: np.dtype[Any],
    slabs: Iterable[tuple[slice, np.ndarray]],
    axis: int,
    values: np.ndarray | None,
) -> ArraySummary:
    """Return the summary of slabs that follow one another along ``axis``."""
    numeric, is_stack = dtype.kind in "biufc", len(shape) == 3
    size = math.prod(shape)
    totals = np.zeros(shape[0]) if numeric and is_stack and size else None
    faulty: set[int] = set()
    negative: set[int] = set()
    faulty_count = negative_count = 0
    largest, whole, roots = 0.0, numeric and dtype.kind != "c", None
    for part, slab in slabs if numeric and size else ():
        start = part.start if axis == 0 else 0
        numbers = _as_real(slab)
        low, high = float(numbers.min()), float(numbers.max())
        if not (np.isfinite(low) and np.isfinite(high)):
            bad = ~np.isfinite(slab)
            faulty_count += int(bad.sum())
            faulty |= _first(bad, start)
            low = float(np.min(numbers, initial=0.0, where=np.isfinite(numbers)))
            high = float(np.max(numbers, initial=0.0, where=np.isfinite(numbers)))
            whole = False
        if low < 0 and dtype.kind != "c":
            below = slab < 0
            negative_count += int(below.sum())
            negative |= _first(below, start)
        largest = max(largest, high, -low)
        whole = whole and bool((numbers == np.rint(numbers)).all())
        if roots is None:
            roots = _squares_are_whole(numbers[:SAMPLE])
        if totals is not None:
            flat = slab.reshape(len(slab), -1)
            flat = flat if flat.dtype.kind in "fc" else flat.astype(np.float64)
            flat = flat.astype(np.result_type(flat, np.float32), copy=False)  # half ends at 65504
            with np.errstate(all="ignore"):  # what is not finite has been counted above
                squares = np.vecdot(flat, flat).real
            totals[part if axis == 0 else slice(None)] += squares
    return ArraySummary(
        shape=shape,
        dtype=dtype,
        faulty=tuple(sorted(faulty)[:NAMED_INDICES]),
        faulty_count=faulty_count,
        negative=tuple(sorted(negative)[:NAMED_INDICES]),
        negative_count=negative_count,
        largest=largest,
        whole=whole,
        roots=bool(roots),
        totals=totals,
        values=values if values is not None and values.nbytes <= KEPT_BYTES else None,
    )


def _as_real(slab: np.ndarray) -> np.ndarray:
    """Return the numbers of a slab in one row; real and imaginary parts count as two."""
    flat = np.ascontiguousarray(slab).reshape(-1)
    return flat.view(flat.real.dtype) if flat.dtype.kind == "c" else flat


def _squares_are_whole(numbers: np.ndarray) -> bool:
    """Return whether the squares are whole numbers, but for the rounding to single precision."""
    with np.errstate(all="ignore"):
        squares = numbers.astype(np.float64) ** 2
        return bool((np.abs(squares - np.rint(squares)) <= 1e-3 + 1e-6 * squares).all())


def _first(mask: np.ndarray, start: int) -> set[int]:
    """Return the first few indices along the first axis at which a mask is True."""
    rows = mask.reshape(len(mask), -1).any(axis=1) if mask.ndim else mask.reshape(1)
    return {start + int(index) for index in np.flatnonzero(rows)[:NAMED_INDICES]}


# --- Between arrays, and between two splits

MODES_MAX = 64


@dataclass(frozen=True)
class Violation:
    """One breach of the contract; one that is not ``serious`` loses nothing."""

    key: str
    found: str
    expected: str
    remedy: str
    serious: bool = True

    def __str__(self) -> str:
        return f"{self.key}: found {self.found}; expected {self.expected}; {self.remedy}"


def check_together(
    summaries: Mapping[str, ArraySummary], *, stated_amplitude: bool
) -> Iterator[Violation]:
    """Yield the violations of the relations between arrays of the right rank.

    Parameters
    ----------
    summaries
        Of ``probeGuess``, ``objectGuess``, ``xcoords``, ``ycoords`` and of what else there is.
    stated_amplitude
        Whether the metadata say that patterns are amplitudes; whole numbers then may be meant.
    """
    probe = summaries["probeGuess"]
    side = probe.shape[-1]
    stacked = [
        summaries[key].shape[0] for key in ("xcoords", "ycoords", "diffraction") if key in summaries
    ]
    # What most arrays agree on is the length of the scan.
    count = max(stacked, key=lambda length: (stacked.count(length), length == stacked[0]))
    if probe.shape[-2:] != (side, side):
        yield Violation("probeGuess", f"shape {probe.shape}", "a square", "crop or pad it")
    if probe.ndim == 3 and probe.shape[0] == 1:
        remedy = "leave out the axis of modes"
        yield Violation("probeGuess", f"shape {probe.shape}", "(N, N) for one mode", remedy, False)
    if probe.ndim == 3 and probe.shape[0] > MODES_MAX:
        remedy = "order the axes as (mode, row, column), and keep the strongest"
        yield Violation("probeGuess", f"{probe.shape[0]} modes", f"at most {MODES_MAX}", remedy)
    if side % 2:
        yield Violation("probeGuess", f"side {side}", "an even side", "crop or pad by one pixel")
    if probe.largest == 0:
        yield Violation("probeGuess", "all zero", "some power", "give a probe")
    for key, other in (("xcoords", "ycoords"), ("ycoords", "xcoords")):
        if summaries[key].shape != (count,):
            expected = f"{count}, as many as {other}"
            found = f"{summaries[key].shape[0]} values"
            yield Violation(key, found, expected, "pair the positions")
    yield from _check_places(summaries, side)
    yield from _check_patterns(summaries, side, count, stated_amplitude=stated_amplitude)
    yield from _check_indices(summaries, count)
    yield from _check_detector(summaries, side, count)


def check_splits(
    train: Mapping[str, np.ndarray], test: Mapping[str, np.ndarray]
) -> list[Violation]:
    """Return what train and test share: patterns, or rows of the object.

    Parameters
    ----------
    train, test
        Arrays of ``probeGuess``, ``objectGuess``, ``ycoords`` and, if known, ``scan_index``.
    """
    violations = []
    if not np.array_equal(train["objectGuess"], test["objectGuess"]):
        remedy = "compare two splits of one dose"
        return [Violation("objectGuess", "two objects", "one object", remedy)]
    both = [arrays.get("scan_index") for arrays in (train, test)]
    if both[0] is not None and both[1] is not None:
        shared = np.intersect1d(both[0], both[1])
        if shared.size:
            found = f"{shared.size} patterns in both splits, first {shared[0]}"
            remedy = "give every pattern to one split"
            violations.append(Violation("scan_index", found, "none", remedy))
    side = train["probeGuess"].shape[-1]
    first, second = sorted((train["ycoords"], test["ycoords"]), key=lambda rows: float(rows.min()))
    last_lit = int(np.round(first.max())) - side // 2 + side - 1
    first_lit = int(np.round(second.min())) - side // 2
    if last_lit >= first_lit:
        found = f"object rows {first_lit}..{last_lit} lit by both splits"
        remedy = f"leave a guard band of {side} rows between their patch centres"
        violations.append(Violation("ycoords", found, "no shared row", remedy))
    return violations


def _check_places(summaries: Mapping[str, ArraySummary], side: int) -> Iterator[Violation]:
    """Yield the violations of single positions and of pairs of them."""
    shape = summaries["objectGuess"].shape
    for key, extent in (("ycoords", shape[0]), ("xcoords", shape[1])):
        values = summaries[key].values
        if values is None:
            found = f"{summaries[key].size} values"
            yield Violation(key, found, "a scan of at most two million", "split the file")
            continue
        corners = np.round(values) - side // 2
        outside = (corners < 0) | (corners + side > extent)
        if outside.any():
            yield Violation(
                key,
                f"{int(outside.sum())} of {len(values)} patches outside the object, first at "
                f"index {int(np.argmax(outside))} ({values[outside][0]:.1f} px)",
                f"{side // 2} to {extent - side + side // 2} px",
                "positions are patch centres in object pixels; shift them or pad the object",
            )
    x, y = summaries["xcoords"].values, summaries["ycoords"].values
    if x is not None and y is not None and x.shape == y.shape:
        repeated = len(x) - len(np.unique(np.stack([y, x]), axis=1).T)
        if repeated:
            found = f"{repeated} positions that occur before"
            remedy = "leave out what was measured twice, unless it was meant"
            yield Violation("xcoords", found, "every position once", remedy, False)


def _check_patterns(
    summaries: Mapping[str, ArraySummary], side: int, count: int, *, stated_amplitude: bool
) -> Iterator[Violation]:
    for key, what in (("diffraction", "patterns"), ("Y", "patches")):
        found = summaries.get(key)
        if found is None:
            continue
        if found.shape[1:] != (side, side):
            hwn = found.shape == (side, side, count)
            remedy = "order the axes as (scan, row, column)" + (
                "; `study import --axes hwn` does it" if hwn else ""
            )
            yield Violation(key, f"shape {found.shape}", f"(n, {side}, {side})", remedy)
        if found.shape[0] != count:
            expected, remedy = f"{count}, one per position", "pair patterns and positions"
            yield Violation(key, f"{found.shape[0]} {what}", expected, remedy)
    patterns = summaries.get("diffraction")
    if patterns is None:
        return
    if patterns.negative_count:
        message = f"{patterns.negative_count} negative values, first in pattern "
        message += str(patterns.negative[0])
        yield Violation("diffraction", message, "amplitudes >= 0", "store sqrt(counts)")
    if patterns.whole and patterns.largest > 1:
        yield Violation(
            "diffraction",
            f"whole numbers only, up to {patterns.largest:.0f}: counts",
            "amplitudes, sqrt(counts)",
            "let `study import --domain counts` take the root",
            not stated_amplitude,
        )
    if patterns.totals is not None and not patterns.faulty_count:
        blank = np.flatnonzero(patterns.totals == 0)
        if len(blank) == len(patterns.totals):
            yield Violation("diffraction", "all zero", "some photons", "give counts")
        elif blank.size:
            message = f"{blank.size} patterns without a photon: {_listed(blank)}"
            remedy = "drop them if the beam was off (`study import --drop-bad-frames`)"
            yield Violation("diffraction", message, "photons in every pattern", remedy, False)


def _check_indices(summaries: Mapping[str, ArraySummary], count: int) -> Iterator[Violation]:
    names, groups = (summaries.get(key) for key in ("scan_index", "groups"))
    if names is not None and names.shape != (count,):
        expected = f"{count}, one per scan position"
        yield Violation("scan_index", f"{names.size} values", expected, "name every pattern")
    if names is not None and names.values is not None:
        repeated = names.size - len(np.unique(names.values))
        if repeated:
            message = f"{repeated} numbers that occur before"
            remedy = "number the patterns anew"
            yield Violation("scan_index", message, "every number once", remedy)
    if groups is not None and groups.values is not None:
        values = groups.values
        if ((values < 0) | (values >= count)).any():
            message = f"indices {values.min()}..{values.max()}"
            remedy = "index the patterns of this file"
            yield Violation("groups", message, f"0..{count - 1}", remedy)
        ordered = np.sort(values, axis=1)
        twice = int((np.diff(ordered, axis=1) == 0).any(axis=1).sum())
        if twice:
            message = f"{twice} groups with one pattern twice"
            yield Violation("groups", message, "C different patterns", "form the groups anew")


def _check_detector(
    summaries: Mapping[str, ArraySummary], side: int, count: int
) -> Iterator[Violation]:
    """Yield the violations of masks and background."""
    bad, background = (summaries.get(key) for key in ("bad_pixels", "background"))
    if bad is not None:
        if bad.shape not in ((side, side), (count, side, side)):
            expected = f"({side}, {side}), or ({count}, {side}, {side}) for each pattern its own"
            yield Violation(
                "bad_pixels", f"shape {bad.shape}", expected, "crop it like the patterns"
            )
        if bad.ndim == 2 and bad.values is not None and bad.values.all():
            yield Violation("bad_pixels", "every pixel", "some valid pixels", "invert the mask")
        if bad.totals is not None:  # of truths: how many pixels of each pattern are bad
            blind = np.flatnonzero(bad.totals >= bad.size / bad.shape[0])
            if len(blind) == len(bad.totals):
                remedy = "invert the masks"
                yield Violation("bad_pixels", "every pixel", "some valid pixels", remedy)
            elif blind.size:
                found = f"{blind.size} patterns without a valid pixel: {_listed(blind)}"
                yield Violation("bad_pixels", found, "some in each", "leave these out", False)
    if background is not None:
        if background.shape != (side, side):
            expected, remedy = f"({side}, {side})", "crop it like the patterns"
            yield Violation("background", f"shape {background.shape}", expected, remedy)
        if background.negative_count:
            found = f"{background.negative_count} negative values"
            remedy = "expected counts are zero or more; clip it"
            yield Violation("background", found, "counts >= 0", remedy)


def _listed(indices: np.ndarray) -> str:
    text = ", ".join(str(index) for index in indices[:NAMED_INDICES])
    return text + (", ..." if len(indices) > NAMED_INDICES else "")


# --- For metadata, by themselves and against the photons that were counted

DOSE_TOLERANCE = 0.25
BUDGET_TOLERANCE = 1e-3
SIGMA_MAX = 6.0
ROUNDING = 1e-6
MEASURED = "photons_per_pattern_measured"
EXPECTED = "photons_per_pattern_expected"
REQUESTED = "photons_per_pattern_requested"
DETECTOR_SETTINGS = frozenset(
    {"dark_counts", "saturation_counts", "beamstop_radius_px", "bad_pixel_share"}
)


def check_metadata(
    metadata: Mapping[str, Any], patterns: ArraySummary | None
) -> Iterator[Violation]:
    """Yield the violations of the metadata by themselves and against the patterns.

    Parameters
    ----------
    metadata
        The JSON object of the file.
    patterns
        Facts of ``diffraction``, if the file has it.
    """
    if not metadata:
        message = "record domain, source and photons_per_pattern_measured"
        yield Violation("_metadata", "nothing", "a JSON object", message, False)
        return
    domain = metadata.get("domain")
    if patterns is not None and domain != "amplitude":
        remedy = "store sqrt(counts) and say so; `study import --domain` does both"
        is_stated = domain is not None
        yield Violation("_metadata", f"domain {domain!r}", "'amplitude'", remedy, is_stated)
    detector = metadata.get("detector", {})
    if not (isinstance(detector, dict) and set(detector) <= DETECTOR_SETTINGS):
        expected = f"an object with some of {', '.join(sorted(DETECTOR_SETTINGS))}"
        remedy = "leave it out for an ideal detector"
        yield Violation("_metadata", f"detector {detector!r}"[:80], expected, remedy)
    if patterns is not None and patterns.totals is not None and not patterns.faulty_count:
        yield from _check_photons(metadata, patterns.totals)
        if not patterns.roots and metadata.get("photon_scale") != "none":
            found = "squares that are no whole numbers"
            remedy = "state photon_scale 'none' if the data carry no counts"
            yield Violation("diffraction", found, "square roots of counts", remedy, False)


def _check_photons(metadata: Mapping[str, Any], totals: np.ndarray) -> Iterator[Violation]:
    """Yield where the counted photons contradict what the metadata say of them."""
    numbers = {}
    for name in (MEASURED, EXPECTED, REQUESTED):
        value = metadata.get(name)
        if _is_number(value):
            numbers[name] = value
        elif name in metadata:
            found = f"{name} {value!r}"[:80]
            yield Violation("_metadata", found, "a number of 0 or more", "correct it")
    mean = float(totals.mean())
    recorded = numbers.get(MEASURED)
    if recorded is not None and abs(mean - recorded) > BUDGET_TOLERANCE * max(mean, recorded):
        found = f"{MEASURED} {recorded:.6g}"
        remedy = "the patterns were changed after they were recorded; write both again"
        yield Violation("_metadata", found, f"{mean:.6g}, as counted", remedy)
    expected = numbers.get(EXPECTED)
    if expected:
        excess = max(0.0, abs(mean - expected) - ROUNDING * expected)
        deviation = np.sign(mean - expected) * excess / np.sqrt(expected / len(totals))
        if abs(deviation) > SIGMA_MAX:
            found = f"{mean:.6g} photons per pattern, {deviation:+.1f} standard deviations away"
            remedy = "the counts are not those of the stated dose; generate them again"
            yield Violation("diffraction", found, f"{expected:.6g}, as simulated", remedy)
    requested = numbers.get(REQUESTED)
    # A detector that hides or adds counts changes the number on purpose.
    if requested is None or metadata.get("detector"):
        return
    if abs(mean - requested) > DOSE_TOLERANCE * requested:
        # One split, or a few patterns, may lie on a darker part of the object than the whole scan.
        is_wrong = not requested / 2 <= mean <= 2 * requested
        found = f"{mean:.6g} photons per pattern"
        remedy = "the label is not the dose (SYNTH-POISSON-DOSE-001); correct one of them"
        limits = f"{requested:.6g} within {DOSE_TOLERANCE:.0%}"
        yield Violation("diffraction", found, limits, remedy, is_wrong)


def _is_number(value: object) -> TypeGuard[float]:
    """Return whether a value from JSON is a finite number of 0 or more."""
    if isinstance(value, bool) or not isinstance(value, int | float):
        return False
    return bool(0 <= value < 1e300)
