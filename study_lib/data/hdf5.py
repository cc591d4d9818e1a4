"""HDF5 files opened with suspicion, and written in one piece.

A file says which data sets it has and how large they are; what it says is checked before any of it
is read. Links that leave the file are refused, whatever they point at: the reader would otherwise
take whatever file of this machine a stranger's file names.
"""

import math
from collections.abc import Collection, Iterator
from contextlib import contextmanager
from pathlib import Path, PurePosixPath
from typing import Any

import h5py
import numpy as np

from study_lib.data.archive import RATIO_FREE_BYTES, RATIO_MAX
from study_lib.errors import InputError
from study_lib.files import atomic_path
from study_lib.system import memory_bytes

IMAGE_RANKS = tuple(range(2, 9))
LINKS_MAX = 8
RAISED_BY_H5PY = (OSError, RuntimeError, ValueError, KeyError, TypeError)
SIGNATURE = b"\x89HDF\r\n\x1a\n"


class Hdf5Reader:
    """An open file that hands out arrays only after checking what they claim to be."""

    def __init__(self, path: Path, file: h5py.File) -> None:
        self.path = path
        self._file = file
        self._declared: dict[str, int] = {}

    def __contains__(self, name: str) -> bool:
        """Return whether there is an object of this name, in the file itself."""
        return self._find(name) is not None

    def array(self, name: str, kinds: str = "fiu", ranks: Collection[int] = ()) -> np.ndarray:
        """Return a data set.

        Parameters
        ----------
        name
            Its path inside the file.
        kinds
            The kinds of numbers allowed: numpy's ``f``, ``i``, ``u``, ``c``, ``b``.
        ranks
            The numbers of axes allowed, none of them empty; default: any.

        Raises
        ------
        InputError
            If it is missing, no array of numbers, too large, or damaged.
        """
        values = self.optional_array(name, kinds, ranks)
        if values is None:
            raise self.missing(name)
        return values

    def optional_array(
        self, name: str, kinds: str = "fiu", ranks: Collection[int] = ()
    ) -> np.ndarray | None:
        """Return a data set, or None if there is none of this name.

        Raises
        ------
        InputError
            As :meth:`array`, apart from a missing one.
        """
        data = self._checked(name, kinds, ranks)
        if data is None:
            return None
        with self._damage_reported(name):
            return np.asarray(data[()])

    def shape(self, name: str, kinds: str = "fiu", ranks: Collection[int] = ()) -> tuple[int, ...]:
        """Return the shape of a data set after all checks of :meth:`array`; no value is read.

        Raises
        ------
        InputError
            As :meth:`array`.
        """
        found = self.optional_shape(name, kinds, ranks)
        if found is None:
            raise self.missing(name)
        return found

    def optional_shape(
        self, name: str, kinds: str = "fiu", ranks: Collection[int] = ()
    ) -> tuple[int, ...] | None:
        """Return the shape of a data set, or None if there is none of this name.

        Raises
        ------
        InputError
            As :meth:`array`, apart from a missing one.
        """
        data = self._checked(name, kinds, ranks)
        return None if data is None else tuple(data.shape)

    def number(self, name: str) -> float | None:
        """Return a single real number, or None if there is none of this name.

        Raises
        ------
        InputError
            If it is more than one number, or not finite.
        """
        shape = self.optional_shape(name)
        if shape is None:
            return None
        if math.prod(shape) != 1:
            raise self.refusal(name, f"found {math.prod(shape)} values", "save one finite number")
        return self._single(name, self.array(name))

    def attribute(self, name: str, key: str) -> float | None:
        """Return a real number kept as an attribute, or None if there is none.

        Raises
        ------
        InputError
            If it is not one finite number.
        """
        owner = self._file if name == "/" else self._find(name)
        try:
            if owner is None or key not in owner.attrs:
                return None
            values = np.asarray(owner.attrs[key], dtype=np.float64)
        except RAISED_BY_H5PY as error:
            raise self.refusal(name, f"{key}: {_first_line(error)}", "save one number") from None
        return self._single(f"{name}: {key}", values)

    def names(self, group: str) -> list[str]:
        """Return the names in a group that are text; none if there is no such group."""
        found = self._find(group)
        if not isinstance(found, h5py.Group):
            return []
        with self._damage_reported(group):
            return sorted(name for name in found if isinstance(name, str))

    def missing(self, name: str) -> InputError:
        """Return the error of a name that is not there."""
        listed = ", ".join(self.names("/")[:12]) or "nothing"
        return self.refusal(name, f"found nothing (the file has {listed})", "add it")

    def refusal(self, name: str, found: str, remedy: str) -> InputError:
        """Return the error of something that cannot be used."""
        return InputError(f"{self.path}: {name}: {found}; {remedy}")

    def _single(self, name: str, values: np.ndarray) -> float:
        if values.size != 1 or not np.isfinite(values).all():
            raise self.refusal(name, f"found {values.size} values", "save one finite number")
        return float(values.reshape(()))

    @contextmanager
    def _damage_reported(self, name: str) -> Iterator[None]:
        """Turn what h5py raises, from structure that lies, into our error."""
        try:
            yield
        except RAISED_BY_H5PY as error:
            raise self.refusal(name, f"damaged ({_first_line(error)})", "write it again") from None

    def _find(self, name: str) -> Any:
        """Return the object of a name, following links that stay in the file."""
        with self._damage_reported(name):
            return self._followed(name)

    def _followed(self, name: str) -> Any:
        parts = [part for part in PurePosixPath(name).parts if part != "/"]
        place, followed = "/", 0
        while parts:
            part = parts.pop(0)
            group = self._file[place]
            link = group.get(part, getlink=True) if isinstance(group, h5py.Group) else None
            if link is None:
                return None
            if isinstance(link, h5py.ExternalLink):
                raise self.refusal(
                    f"{place.rstrip('/')}/{part}",
                    f"a link to another file, {link.filename!r}, is not followed",
                    "copy the data into this file",
                )
            if isinstance(link, h5py.SoftLink):
                followed += 1
                if followed > LINKS_MAX:
                    raise self.refusal(name, "links lead in a circle", "write it again")
                target = PurePosixPath(link.path)
                parts = [*(item for item in target.parts if item != "/"), *parts]
                place = "/" if target.is_absolute() else place
            else:
                place = str(PurePosixPath(place) / part)
        return self._file[place]

    def _checked(self, name: str, kinds: str, ranks: Collection[int]) -> h5py.Dataset | None:
        """Return a data set whose header has been checked, or None if there is none."""
        data = self._find(name)
        if data is None:
            return None
        if not isinstance(data, h5py.Dataset):
            raise self.refusal(name, "found a group", "save an array of numbers")
        with self._damage_reported(name):
            dtype, shape = data.dtype, data.shape
        if dtype.kind not in kinds or shape is None:
            raise self.refusal(name, f"found type {dtype}", "save an array of numbers")
        if ranks and (len(shape) not in ranks or 0 in shape):
            allowed = f"{min(ranks)}{' or more' if len(ranks) > 1 else ''} axes, none empty"
            raise self.refusal(name, f"found shape {shape}; expected {allowed}", "write it so")
        with self._damage_reported(name):
            self._check_storage(name, data, math.prod(shape) * dtype.itemsize)
        return data

    def _check_storage(self, name: str, data: h5py.Dataset, size: int) -> None:
        """Refuse what lies in other files, and what would not fit or was blown up."""
        if data.is_virtual or data.external:
            raise self.refusal(name, "its values lie in other files", "copy them into this file")
        self._declared[name] = size
        needed, memory = sum(self._declared.values()), memory_bytes()
        if needed > memory:
            raise self.refusal(
                name,
                f"with it the file takes {needed / 2**30:.1f} GiB, this process may use "
                f"{memory / 2**30:.1f} GiB",
                "cut the scan into parts or use a larger machine",
            )
        stored = data.id.get_storage_size()
        if size > RATIO_FREE_BYTES and size > RATIO_MAX * max(stored, 1):
            raise self.refusal(
                name,
                f"declares {size / 2**20:.0f} MiB and stores {stored} bytes",
                f"values must be there, packed at most {RATIO_MAX} times",
            )


@contextmanager
def open_hdf5(path: Path) -> Iterator[Hdf5Reader]:
    """Open an HDF5 file for reading.

    Raises
    ------
    InputError
        If the file is missing, truncated or not HDF5.
    """
    if not path.is_file():
        raise InputError(f"{path}: no such file; give the path of an HDF5 file")
    try:
        file = h5py.File(path, "r", locking=False)
    except OSError as error:
        raise InputError(
            f"{path}: damaged or not an HDF5 file ({_first_line(error)}); write or fetch it again"
        ) from None
    with file:
        try:
            yield Hdf5Reader(path, file)
        except (RuntimeError, KeyError, OSError) as error:  # h5py's own, from structure that lies
            raise InputError(f"{path}: damaged ({_first_line(error)}); write it again") from None


@contextmanager
def new_hdf5(path: Path) -> Iterator[h5py.File]:
    """Open a file for writing that replaces ``path`` only if the block succeeds."""
    with atomic_path(path) as temporary, h5py.File(temporary, "w") as file:
        yield file


def is_hdf5(path: Path) -> bool:
    """Return whether a file begins as HDF5 files do."""
    try:
        with path.open("rb") as file:
            return file.read(len(SIGNATURE)) == SIGNATURE
    except OSError:  # the next to open the file says why it cannot be read
        return False


def _first_line(error: Exception) -> str:
    return " ".join(str(error).strip("'\"").split())[:200]
