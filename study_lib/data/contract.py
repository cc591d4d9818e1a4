"""The NPZ contract DATA-001: what a dataset holds, checked with every violation at once.

=============  ============  =========  =========================================================
key            shape         dtype      meaning
=============  ============  =========  =========================================================
diffraction    (n, N, N)     float32    amplitude, sqrt(counts), zero frequency at pixel N // 2
probeGuess     (N, N)        complex64  probe scaled so that the model predicts counts; or
               (m, N, N)                its incoherent modes, whose intensities add
objectGuess    (oy, ox)      complex64  object; the truth in simulated data
xcoords        (n,)          float64    column of the patch centre in object pixels
ycoords        (n,)          float64    row of the patch centre in object pixels
scan_index     (n,)          int64      position in the whole scan (optional)
groups         (g, C)        int64      patterns of each group (optional)
bad_pixels     (N, N)        bool       True where the detector counts nothing valid, in all
               (n, N, N)                patterns or in each (optional)
background     (N, N)        float32    expected counts that do not come from the object, in every
                                        pattern; part of the model, still in the counts (optional)
Y              (n, N, N)     complex64  object patches at the positions (optional)
_metadata      ()            unicode    JSON (DATA-002)
=============  ============  =========  =========================================================

Modes are orthogonal, the strongest first; a single one is written as (N, N).

Probe, object and positions predict the patterns, if there are any: see prediction.

A base file gives probe, object and positions; patterns in it are kept but not asked for. Counts
keep their scale: the largest amplitude is not bounded, as it is for normalised data.
"""

from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from study_lib.data.archive import METADATA, NpzArchive, metadata_of, open_npz, read_npz
from study_lib.data.prediction import check_arithmetic, check_prediction, sampled
from study_lib.data.rules import (
    ArraySummary,
    Violation,
    check_metadata,
    check_splits,
    check_together,
    summary_of_array,
    summary_of_entry,
    summary_of_header,
)
from study_lib.errors import InputError
from study_lib.files import write_npz


class Key(NamedTuple):
    """What the contract asks of one array."""

    ranks: tuple[int, ...]
    dtype: np.dtype[Any]


REQUIRED = {
    "diffraction": Key((3,), np.dtype(np.float32)),
    "probeGuess": Key((2, 3), np.dtype(np.complex64)),
    "objectGuess": Key((2,), np.dtype(np.complex64)),
    "xcoords": Key((1,), np.dtype(np.float64)),
    "ycoords": Key((1,), np.dtype(np.float64)),
}
OPTIONAL = {
    "scan_index": Key((1,), np.dtype(np.int64)),
    "groups": Key((2,), np.dtype(np.int64)),
    "bad_pixels": Key((2, 3), np.dtype(np.bool_)),
    "background": Key((2,), np.dtype(np.float32)),
    "Y": Key((3,), np.dtype(np.complex64)),
}
KNOWN = REQUIRED | OPTIONAL
WHOLE_IN_DOUBLE = 2.0**53
LARGEST_INDEX = 2.0**63
READ = tuple(key for key in KNOWN if key != "Y")
HINTS = {
    "diffraction": "rename diff3d to diffraction, or let `study import` do it",
    "probeGuess": "add the probe",
    "objectGuess": "add the object, or let `study import` reconstruct it",
    "xcoords": "add the columns of the patch centres",
    "ycoords": "add the rows of the patch centres",
}


@dataclass(frozen=True)
class ContractReport:
    """Every violation of one file, or of two splits; true if there is none.

    Violations that are not ``serious`` break the letter of the contract and lose nothing: an array
    that can be converted exactly, a blank pattern, metadata that are missing.
    """

    violations: tuple[Violation, ...]

    def __bool__(self) -> bool:
        return not self.violations

    @property
    def serious(self) -> tuple[Violation, ...]:
        """The violations without which nothing can be computed, or not what the file claims."""
        return tuple(entry for entry in self.violations if entry.serious)

    def as_dict(self) -> dict[str, Any]:
        """Return plain data for JSON."""
        return {
            "ok": bool(self),
            "usable": not self.serious,
            "violations": [asdict(entry) for entry in self.violations],
        }


def check_arrays(
    arrays: Mapping[str, np.ndarray],
    metadata: Mapping[str, Any] | None = None,
    *,
    base: bool = False,
) -> ContractReport:
    """Return every violation of DATA-001 in a set of arrays.

    Parameters
    ----------
    arrays
        By key.
    metadata
        What is under ``_metadata``; None leaves it unchecked.
    base
        True for a base file, of which no patterns are asked.
    """
    summaries = {key: summary_of_array(array) for key, array in arrays.items()}
    return ContractReport(tuple(_violations(summaries, metadata, base=base)))


def validate(path: Path, *, base: bool = False) -> ContractReport:
    """Return every violation of DATA-001 in a file, in bounded memory whatever its size.

    Parameters
    ----------
    path
        An NPZ file.
    base
        True for a base file, of which no patterns are asked.

    Returns
    -------
    ContractReport
        True if nothing is violated; otherwise each violation says what to do.

    Raises
    ------
    InputError
        If the file is missing, damaged, hostile or no NPZ file.

    Examples
    --------
    >>> from pathlib import Path
    >>> from tempfile import TemporaryDirectory
    >>> import numpy as np
    >>> import study_lib as study
    >>> with TemporaryDirectory() as folder:
    ...     path = Path(folder, "mine.npz")
    ...     patterns = np.ones((5, 8, 8), np.float32)
    ...     np.savez(path, diffraction=patterns, probeGuess=np.ones((8, 8), np.complex64))
    ...     report = study.validate(path)
    >>> bool(report)
    False
    >>> for violation in report.serious:
    ...     print(f"{violation.key}: {violation.remedy}")
    objectGuess: add the object, or let `study import` reconstruct it
    xcoords: add the columns of the patch centres
    ycoords: add the rows of the patch centres
    """
    with open_npz(path) as archive:
        names = [name for name in archive.members if name != METADATA]
        summaries = {
            name: (summary_of_entry if name in KNOWN else summary_of_header)(archive, name)
            for name in names
        }
        metadata = metadata_of(archive)
        report = ContractReport(tuple(_violations(summaries, metadata, base=base)))
        if report.serious:
            return report
        needed = ("probeGuess", "objectGuess", "xcoords", "ycoords", "background")
        arrays = {name: archive.read(name) for name in needed if name in archive.members}
        member = archive.members.get("diffraction")
        patterns, chosen = None, np.empty(0, np.int64)
        if member is not None:
            chosen = sampled(member.shape[0], arrays["probeGuess"].shape[-1])
            patterns = _entries_of(archive, "diffraction", chosen)
            if "bad_pixels" in archive.members:
                arrays["bad_pixels"] = _entries_of(archive, "bad_pixels", chosen)
        more = prediction_violations(arrays, patterns, chosen, metadata)
        return ContractReport((*report.violations, *more))


def require_valid(path: Path, *, base: bool = False) -> ContractReport:
    """Return the report of a file without serious violations: as :func:`validate`, or refused.

    Raises
    ------
    InputError
        As :func:`validate`, and one line per serious violation.
    """
    report = validate(path, base=base)
    _require_sound(path, report)
    return report


def prediction_violations(
    arrays: Mapping[str, np.ndarray],
    patterns: np.ndarray | None,
    chosen: np.ndarray,
    metadata: Mapping[str, Any],
) -> tuple[Violation, ...]:
    """Return where probe and object cannot be computed with, or do not predict the patterns.

    Parameters
    ----------
    arrays
        By key, without a serious violation by themselves; masks of each pattern, if ``bad_pixels``
        are these, of the patterns ``chosen``.
    patterns : (sample, n, n)
        The patterns ``chosen``; None if there are none.
    chosen
        Their places in the scan.
    metadata
        What is under ``_metadata``.
    """
    faults = tuple(check_arithmetic(arrays["probeGuess"], arrays["objectGuess"]))
    if faults or patterns is None:
        return faults
    return tuple(check_prediction(arrays, patterns, chosen, metadata))


def _entries_of(archive: NpzArchive, name: str, chosen: np.ndarray) -> np.ndarray:
    """Return some entries of a stack in a file, a single image whole. Memory stays bounded."""
    member = archive.members[name]
    if len(member.shape) == 2:
        return archive.read(name)
    if member.fortran:
        some: np.ndarray = archive.read(name)[chosen]
        return some
    parts = [
        slab[chosen[(chosen >= part.start) & (chosen < part.stop)] - part.start]
        for part, slab in archive.slabs(name)
    ]
    return np.concatenate(parts)


def validate_splits(train: Path, test: Path) -> ContractReport:
    """Return every violation between the two splits of one dose: shared patterns or object rows.

    Raises
    ------
    InputError
        If a file cannot be read, or breaks the contract by itself.
    """
    needed = ("probeGuess", "objectGuess", "ycoords", "scan_index")
    parts = []
    for path in (train, test):
        _require_sound(path, validate(path))
        parts.append(_converted(read_npz(path, only=needed)[0]))
    return ContractReport(tuple(check_splits(*parts)))


def load_dataset(
    path: Path, *, base: bool = False, mapped: bool = False
) -> tuple[dict[str, np.ndarray], dict[str, Any]]:
    """Return arrays and metadata of a file that holds DATA-001, but for what converts exactly.

    The arrays have the types of the contract. ``Y`` and unknown members are not read, and of a
    base file no patterns either.

    Parameters
    ----------
    path
        An NPZ file.
    base
        True for a base file.
    mapped
        True leaves the patterns in the file, from which they are read as they are needed; of a
        base file there are none to leave.

    Returns
    -------
    Arrays by key, in the shapes and types of the table above, and what is under ``_metadata``.

    Raises
    ------
    InputError
        One line per serious violation; if patterns cannot stay in the file as they lie there.

    Examples
    --------
    >>> from pathlib import Path
    >>> from tempfile import TemporaryDirectory
    >>> import study_lib as study
    >>> with TemporaryDirectory() as folder:
    ...     condition = study.create_run(Path(folder), study.load_design("smoke")).condition(1e4)
    ...     photons = study.generate(condition)
    ...     arrays, metadata = study.load_dataset(condition.file)
    >>> sorted(arrays)
    ['diffraction', 'objectGuess', 'probeGuess', 'scan_index', 'xcoords', 'ycoords']
    >>> metadata["domain"], arrays["diffraction"].shape
    ('amplitude', (150, 32, 32))
    """
    if mapped and not base:
        return _mapped(path)
    wanted = [key for key in READ if not (base and key == "diffraction")]
    arrays, metadata = read_npz(path, only=wanted)
    _require_sound(path, check_arrays(arrays, metadata, base=base))
    faults = tuple(check_arithmetic(arrays["probeGuess"], arrays["objectGuess"]))
    _require_sound(path, ContractReport(faults))
    return _converted(arrays), metadata


def _mapped(path: Path) -> tuple[dict[str, np.ndarray], dict[str, Any]]:
    """Return arrays and metadata of a file whose patterns stay there; they are checked in parts."""
    with open_npz(path) as archive:
        names = [key for key in READ if key in archive.members]
        metadata = metadata_of(archive)
        mapped = {}
        if "diffraction" in names:
            dtype = archive.members["diffraction"].dtype
            if dtype.newbyteorder("=") != KNOWN["diffraction"].dtype:
                raise InputError(f"{path}: diffraction is {dtype}; store float32, or read it whole")
            mapped["diffraction"] = archive.mapped("diffraction")
        summaries = {name: summary_of_entry(archive, name) for name in names}
        _require_sound(path, ContractReport(tuple(_violations(summaries, metadata, base=False))))
        arrays = {name: archive.read(name) for name in names if name not in mapped}
    faults = tuple(check_arithmetic(arrays["probeGuess"], arrays["objectGuess"]))
    _require_sound(path, ContractReport(faults))
    return _converted(arrays) | mapped, metadata


def load_object(path: Path) -> tuple[np.ndarray, dict[str, Any]]:
    """Return the object (oy, ox) in a file and the file's metadata; nothing else is read.

    For a file whose other arrays have been loaded: what holds between arrays is not looked at.

    Raises
    ------
    InputError
        One line per serious violation of the object.
    """
    arrays, metadata = read_npz(path, only=["objectGuess"])
    found = check_arrays(arrays).violations
    own = tuple(entry for entry in found if entry.key == "objectGuess")
    _require_sound(path, ContractReport(own))
    return _converted(arrays)["objectGuess"], metadata


def save_dataset(
    path: Path, arrays: Mapping[str, np.ndarray], metadata: Mapping[str, Any], *, base: bool = False
) -> None:
    """Write a file that holds DATA-001, converting types where that is exact.

    Raises
    ------
    ValueError
        If the arrays break the contract: the caller is at fault, nothing is written.
    """
    unknown = arrays.keys() - KNOWN.keys()
    if unknown:
        raise ValueError(f"{path.name}: {', '.join(sorted(unknown))} are no keys of DATA-001")
    serious = check_arrays(arrays, metadata, base=base).serious
    if serious:
        raise ValueError(f"{path.name}: {'; '.join(str(entry) for entry in serious)}")
    write_npz(path, _converted(arrays), metadata)


def _require_sound(path: Path, report: ContractReport) -> None:
    if report.serious:
        lines = "\n".join(f"  {violation}" for violation in report.serious)
        raise InputError(f"{path} breaks the data contract DATA-001:\n{lines}")


def _converted(arrays: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Return the arrays in the types of the contract; those that have them are not copied."""
    converted = {key: array.astype(KNOWN[key].dtype, copy=False) for key, array in arrays.items()}
    probe = converted.get("probeGuess")
    if probe is not None and probe.ndim == 3 and len(probe) == 1:
        converted["probeGuess"] = probe[0]
    return converted


def _violations(
    summaries: Mapping[str, ArraySummary], metadata: Mapping[str, Any] | None, *, base: bool
) -> Iterator[Violation]:
    required = [key for key in REQUIRED if not (base and key == "diffraction")]
    for key in required:
        if key not in summaries:
            expected = f"{_listed(REQUIRED[key].ranks)}-D {REQUIRED[key].dtype}"
            yield Violation(key, "nothing", expected, HINTS[key])
    for key, found in summaries.items():
        if key in KNOWN:
            yield from _check_key(key, found)
        else:
            remedy = f"leave it out; known: {', '.join(KNOWN)}"
            yield Violation(key, "an unknown array", "known keys", remedy, False)
    sound = {
        key: found for key, found in summaries.items() if key in KNOWN and _is_sound(key, found)
    }
    if all(key in sound for key in required):
        stated = (metadata or {}).get("domain") == "amplitude"
        yield from check_together(sound, stated_amplitude=stated)
    if metadata is not None:
        yield from check_metadata(metadata, sound.get("diffraction"))


def _check_key(key: str, found: ArraySummary) -> Iterator[Violation]:
    ranks, dtype = KNOWN[key]
    if found.ndim not in ranks:
        expected = f"{_listed(ranks)} axes"
        yield Violation(key, f"shape {found.shape}", expected, "remove or add axes")
    if found.dtype != dtype:
        exact = _converts_exactly(found, dtype)
        remedy = "convert it" if exact or key != "diffraction" else "store sqrt(counts) as float32"
        yield Violation(key, str(found.dtype), str(dtype), remedy, not exact)
    if found.size == 0:
        yield Violation(key, f"shape {found.shape}", "at least one value", "fill it")
    if found.faulty_count:
        where = ", ".join(str(index) for index in found.faulty)
        message = f"{found.faulty_count} NaN or infinite, first at index {where}"
        yield Violation(key, message, "finite values", "drop or mend them")
    if dtype in (np.float32, np.complex64) and found.largest > float(np.finfo(np.float32).max):
        message = f"values up to {found.largest:.3g}"
        yield Violation(key, message, f"values that fit {dtype}", "rescale it")


def _listed(ranks: tuple[int, ...]) -> str:
    return " or ".join(str(rank) for rank in ranks)


def _converts_exactly(found: ArraySummary, dtype: np.dtype[Any]) -> bool:
    """Return whether nothing but precision beyond the contract's is lost in conversion."""
    if dtype == np.float64 and found.dtype.kind in "iu":
        return found.largest <= WHOLE_IN_DOUBLE
    if dtype == np.int64 and found.dtype.kind in "iu":
        return found.largest < LARGEST_INDEX
    return found.dtype.kind == dtype.kind


def _is_sound(key: str, found: ArraySummary) -> bool:
    """Return whether the relations between arrays can be looked at."""
    return found.ndim in KNOWN[key].ranks and found.size > 0 and found.dtype.kind in "biufc"
