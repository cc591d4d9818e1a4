"""Arrays in files beside the scan: masks, dark frames, positions, frames without anything else."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from skimage.io import imread

from study_lib.data.archive import read_npz
from study_lib.data.hdf5 import is_hdf5, open_hdf5
from study_lib.errors import InputError
from study_lib.system import memory_bytes

TIFF = (".tif", ".tiff")
TABLES = (".csv", ".txt", ".dat")
LISTED_MAX = 12
BEGINNING_OF_NPY = b"\x93NUMPY"


def array_in(
    given: str, what: str, ranks: Sequence[int], links_below: Path | None = None
) -> np.ndarray:
    """Return an array of real numbers from a file of any kind that this environment reads.

    Parameters
    ----------
    given
        ``FILE``, or ``FILE:NAME`` for one array of an NPZ or HDF5 file; ``.npy``, ``.npz``, HDF5,
        TIFF, and tables of numbers as text.
    what
        What it is, for messages: ``--mask``.
    ranks
        The numbers of axes allowed.
    links_below
        As for :func:`study_lib.data.hdf5.open_hdf5`.

    Raises
    ------
    InputError
        If it is missing, damaged, not one array of numbers, or of another number of axes.
    """
    path, name = _split(given)
    if not path.is_file():
        raise InputError(f"{what} {given}: no such file; give FILE, or FILE:NAME of an array in it")
    if is_hdf5(path):
        array = _from_hdf5(path, name, what, links_below)
    elif path.suffix == ".npz":
        array = _from_npz(path, name, what)
    else:
        array = _from_one(path, what)
    if array.dtype.kind not in "biuf" or array.ndim not in ranks or not array.size:
        axes = " or ".join(map(str, ranks))
        raise InputError(
            f"{what} {given}: found {array.dtype} of shape {array.shape}; expected numbers with "
            f"{axes} axes; save it so"
        )
    return array


def table_of_positions(given: str, links_below: Path | None = None) -> np.ndarray:
    """Return positions (scan, 2) from an array (row, column), or a table with columns y and x.

    Raises
    ------
    InputError
        If there are no such columns, or the file is no table.
    """
    path, _ = _split(given)
    if path.suffix not in TABLES or not path.is_file():
        return _two_columns(given, array_in(given, "--positions", [2], links_below))
    lines = [line for line in _text_of(path).splitlines() if line.strip()]
    heads = [line.strip().lstrip("#").replace(",", " ").replace(";", " ").split() for line in lines]
    names = [word.strip("\"'").lower() for word in heads[0]] if heads else []
    rows = heads if not names or _is_number(names[0]) else heads[1:]
    rows = [row for row in rows if row and _is_number(row[0])]
    try:
        table = np.array(rows, dtype=np.float64).reshape(len(rows), -1)
    except ValueError as error:
        raise InputError(f"--positions {given}: no table of numbers ({error}); write one") from None
    found = [
        [at for at, name in enumerate(names) if name == axis or name.startswith(f"{axis}_")]
        for axis in "yx"
    ]
    if all(len(columns) == 1 for columns in found):
        return table[:, [columns[0] for columns in found]]
    return _two_columns(given, table)


def _two_columns(given: str, table: np.ndarray) -> np.ndarray:
    if table.ndim != 2 or table.shape[1] != 2:
        raise InputError(
            f"--positions {given}: found shape {table.shape}; expected (scan, 2), row and column, "
            "or a table whose first line names the columns y and x"
        )
    return table


def _is_number(word: str) -> bool:
    try:
        float(word)
    except ValueError:
        return False
    return True


def _text_of(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8")
    except UnicodeDecodeError as error:
        raise InputError(f"{path}: no text ({error}); write a table of numbers") from None


def _split(given: str) -> tuple[Path, str | None]:
    """Return the file and the name in it; a colon may also belong to the name of the file."""
    whole = Path(given)
    if whole.exists() or ":" not in given:
        return whole, None
    file, name = given.rsplit(":", 1)
    return Path(file), name


def _from_hdf5(path: Path, name: str | None, what: str, links_below: Path | None) -> np.ndarray:
    with open_hdf5(path, links_below) as file:
        if name is None:
            names = file.arrays_named(LISTED_MAX)
            if len(names) != 1:
                raise InputError(
                    f"{what} {path}: found {', '.join(names) or 'nothing'}; say which with "
                    f"{path.name}:NAME"
                )
            name = names[0]
        return file.array(name, "biuf")


def _from_npz(path: Path, name: str | None, what: str) -> np.ndarray:
    arrays, _ = read_npz(path, only=None if name is None else [name])
    if len(arrays) != 1:
        raise InputError(
            f"{what} {path}: found {', '.join(arrays) or 'nothing of this name'}; say which with "
            f"{path.name}:NAME"
        )
    return next(iter(arrays.values()))


def _from_one(path: Path, what: str) -> np.ndarray:
    with path.open("rb") as file:
        is_npy = file.read(len(BEGINNING_OF_NPY)) == BEGINNING_OF_NPY
    try:
        if is_npy:
            mapped = np.load(path, mmap_mode="r", allow_pickle=False)
            if mapped.nbytes > memory_bytes():
                raise InputError(f"{what} {path}: larger than the memory here; cut it into parts")
            return np.array(mapped)
        if path.suffix.lower() in TIFF:
            return tiff_in(path)
        return np.loadtxt(path, delimiter="," if path.suffix == ".csv" else None)
    except (ValueError, EOFError, OSError) as error:
        raise InputError(
            f"{what} {path}: not readable ({str(error).splitlines()[0][:150]}); give .npy, .npz, "
            "HDF5, TIFF or a table of numbers"
        ) from None


def tiff_in(path: Path) -> np.ndarray:
    """Return the pages of a TIFF file as (pages, h, w), or (h, w) if there is one."""
    return np.asarray(imread(path))
