"""What a check needs to know of an array, gathered slab by slab so that it need not fit memory."""

import math
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np

from study_lib.data.archive import SLAB_BYTES, NpzArchive

KEPT_BYTES = 2**24
NAMED_INDICES = 5
SAMPLE = 2**16


@dataclass(frozen=True)
class ArrayFacts:
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


def facts_of_array(array: np.ndarray) -> ArrayFacts:
    """Return the facts of an array in memory, without copying it."""
    return _gather(array.shape, array.dtype, _slabs_of(array), 0, array)


def facts_of_header(archive: NpzArchive, name: str) -> ArrayFacts:
    """Return shape and type of an array in an archive, without reading it."""
    member = archive.members[name]
    return ArrayFacts(member.shape, member.dtype)


def facts_of_member(archive: NpzArchive, name: str) -> ArrayFacts:
    """Return the facts of an array in an archive; small ones are kept, large ones never are.

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
) -> ArrayFacts:
    """Return the facts of slabs that follow one another along ``axis``."""
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
    return ArrayFacts(
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
