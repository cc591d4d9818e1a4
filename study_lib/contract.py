"""The NPZ contract DATA-001: load, validate with every violation at once, save.

=============  ============  =========  =========================================================
key            shape         dtype      meaning
=============  ============  =========  =========================================================
diffraction    (n, N, N)     float32    amplitude, sqrt(counts), zero frequency at pixel N // 2
probeGuess     (N, N)        complex64  probe scaled so that the model predicts counts
objectGuess    (oy, ox)      complex64  object; the truth in simulated data
xcoords        (n,)          float64    column of the patch centre in object pixels
ycoords        (n,)          float64    row of the patch centre in object pixels
scan_index     (n,)          int64      position in the whole scan (optional)
groups         (g, C)        int64      patterns of each group (optional)
_metadata      ()            unicode    JSON (DATA-002)
=============  ============  =========  =========================================================
"""

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from study_lib.errors import InputError
from study_lib.files import write_npz

REQUIRED = {
    "diffraction": (3, np.float32),
    "probeGuess": (2, np.complex64),
    "objectGuess": (2, np.complex64),
    "xcoords": (1, np.float64),
    "ycoords": (1, np.float64),
}
OPTIONAL = {"scan_index": (1, np.int64), "groups": (2, np.int64)}
BASE_REQUIRED = {key: REQUIRED[key] for key in REQUIRED if key != "diffraction"}


@dataclass(frozen=True)
class Violation:
    """One breach of the contract."""

    key: str
    found: str
    expected: str
    remedy: str

    def __str__(self) -> str:
        return f"{self.key}: found {self.found}; expected {self.expected}; {self.remedy}"


@dataclass(frozen=True)
class ContractReport:
    """Every violation of one file; empty when it holds."""

    violations: tuple[Violation, ...]

    def __bool__(self) -> bool:
        return not self.violations

    def as_dict(self) -> dict[str, Any]:
        """Return plain data for JSON."""
        return {"ok": bool(self), "violations": [asdict(entry) for entry in self.violations]}


def read_arrays(path: Path) -> tuple[dict[str, np.ndarray], dict[str, Any]]:
    """Return the arrays and the metadata of an NPZ file.

    Raises
    ------
    InputError
        If the file is missing, damaged, not an NPZ, or holds pickled objects.
    """
    if not path.is_file():
        raise InputError(f"{path}: no such file; give the path of an NPZ file")
    try:
        with np.load(path, allow_pickle=False) as archive:
            arrays = {key: archive[key] for key in archive.files}
    except Exception as error:  # zipfile, zlib and the parser of array headers each raise their own
        if "pickle" in str(error):
            reason = f"refused ({error}); pickled objects can run code, save plain arrays"
        else:
            reason = f"damaged or not an NPZ file ({error}); write it again"
        raise InputError(f"{path}: {reason}") from None
    metadata: dict[str, Any] = {}
    if "_metadata" in arrays:
        try:
            metadata = json.loads(str(arrays.pop("_metadata")))
        except json.JSONDecodeError as error:
            raise InputError(f"{path}: _metadata is not JSON ({error}); write it again") from None
    return arrays, metadata


def check_arrays(arrays: Mapping[str, np.ndarray], *, base: bool = False) -> ContractReport:
    """Return every violation of DATA-001 in a set of arrays.

    Parameters
    ----------
    base
        True for a base file, which gives probe, object and positions but no patterns.
    """
    required = BASE_REQUIRED if base else REQUIRED
    known = (
        required if base else required | {key: OPTIONAL[key] for key in OPTIONAL if key in arrays}
    )
    violations = []
    for key, (rank, dtype) in known.items():
        violations += _check_array(key, arrays.get(key), rank, np.dtype(dtype))
    if all(_is_comparable(arrays.get(key), rank) for key, (rank, _) in known.items()):
        violations += _check_together(arrays, base=base)
    return ContractReport(tuple(violations))


def load_dataset(path: Path, *, base: bool = False) -> tuple[dict[str, np.ndarray], dict[str, Any]]:
    """Return arrays and metadata of a file that holds DATA-001.

    Raises
    ------
    InputError
        One line per violation.
    """
    arrays, metadata = read_arrays(path)
    report = check_arrays(arrays, base=base)
    if not report:
        lines = "\n".join(f"  {violation}" for violation in report.violations)
        raise InputError(f"{path} breaks the data contract DATA-001:\n{lines}")
    return arrays, metadata


def save_dataset(
    path: Path, arrays: Mapping[str, np.ndarray], metadata: Mapping[str, Any], *, base: bool = False
) -> None:
    """Write a file that holds DATA-001.

    Raises
    ------
    ValueError
        If the arrays break the contract: the caller is at fault, nothing is written.
    """
    report = check_arrays(arrays, base=base)
    if not report:
        raise ValueError(f"{path.name}: {'; '.join(str(entry) for entry in report.violations)}")
    write_npz(path, arrays, metadata)


def _check_array(
    key: str, array: np.ndarray | None, rank: int, dtype: np.dtype[Any]
) -> list[Violation]:
    if array is None:
        hint = "rename diff3d to diffraction" if key == "diffraction" else f"add {key}"
        return [Violation(key, "nothing", f"{rank}-D {dtype}", hint)]
    violations = []
    if array.ndim != rank:
        violations.append(
            Violation(key, f"shape {array.shape}", f"{rank} axes", "remove or add axes")
        )
    if array.dtype != dtype:
        violations.append(Violation(key, str(array.dtype), str(dtype), "convert it"))
    if array.size == 0:
        violations.append(Violation(key, f"shape {array.shape}", "at least one value", "fill it"))
    elif array.dtype.kind in "fc" and not np.isfinite(array).all():
        count = int((~np.isfinite(array)).sum())
        violations.append(
            Violation(key, f"{count} NaN or infinite", "finite values", "drop or mend them")
        )
    return violations


def _is_comparable(array: np.ndarray | None, rank: int) -> bool:
    """Return whether an array has the axes and the numbers that relations between arrays need."""
    return (
        array is not None and array.ndim == rank and array.size > 0 and array.dtype.kind in "iufc"
    )


def _check_together(arrays: Mapping[str, np.ndarray], *, base: bool) -> list[Violation]:
    violations = []
    probe, object_ = arrays["probeGuess"], arrays["objectGuess"]
    x, y = arrays["xcoords"], arrays["ycoords"]
    side = probe.shape[0]
    if probe.shape != (side, side):
        violations.append(
            Violation("probeGuess", f"shape {probe.shape}", "a square", "crop or pad it")
        )
    if not np.abs(probe).any():
        violations.append(Violation("probeGuess", "all zero", "some power", "give a probe"))
    if len(x) != len(y):
        violations.append(
            Violation(
                "ycoords", f"{len(y)} values", f"{len(x)}, as many as xcoords", "pair the positions"
            )
        )
    if not base:
        violations += _check_patterns(arrays["diffraction"], side, len(x))
        violations += _check_indices(arrays, len(x))
    for key, values, extent in (("ycoords", y, object_.shape[0]), ("xcoords", x, object_.shape[1])):
        corners = np.round(values) - side // 2
        outside = (corners < 0) | (corners + side > extent)
        if outside.any():
            violations.append(
                Violation(
                    key,
                    f"{int(outside.sum())} of {len(values)} patches outside the object, first at "
                    f"index {int(np.argmax(outside))} ({values[outside][0]:.1f} px)",
                    f"{side // 2} to {extent - side + side // 2} px",
                    "positions are patch centres in object pixels; shift them or pad the object",
                )
            )
    return violations


def _check_patterns(diffraction: np.ndarray, side: int, positions: int) -> list[Violation]:
    violations = []
    if diffraction.shape[1:] != (side, side):
        remedy = "order the axes as (scan, row, column)"
        violations.append(
            Violation("diffraction", f"shape {diffraction.shape}", f"(n, {side}, {side})", remedy)
        )
    if diffraction.shape[0] != positions:
        violations.append(
            Violation(
                "diffraction",
                f"{diffraction.shape[0]} patterns",
                f"{positions}, one per scan position",
                "pair patterns and positions",
            )
        )
    if (diffraction < 0).any():
        violations.append(
            Violation("diffraction", "negative values", "amplitudes >= 0", "store sqrt(counts)")
        )
    return violations


def _check_indices(arrays: Mapping[str, np.ndarray], positions: int) -> list[Violation]:
    violations = []
    names, groups = arrays.get("scan_index"), arrays.get("groups")
    if names is not None and len(names) != positions:
        expected = f"{positions}, one per scan position"
        violations.append(
            Violation("scan_index", f"{len(names)} values", expected, "name every pattern")
        )
    if groups is not None and ((groups < 0) | (groups >= positions)).any():
        found = f"indices {groups.min()}..{groups.max()}"
        violations.append(
            Violation("groups", found, f"0..{positions - 1}", "index the patterns of this file")
        )
    return violations
