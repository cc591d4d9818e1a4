"""HDF5 files opened with suspicion, and written in one piece.

A file says which data sets it has and how large they are; what it says is checked before any of it
is read. Links that leave the file are refused: the reader would otherwise take whatever file of
this machine a stranger's file names. A folder that the user names may be reached by external links
and virtual data sets, whose targets are resolved, symbolic links included, before any is opened.
"""

import math
from collections.abc import Collection, Iterator
from contextlib import contextmanager
from pathlib import Path, PurePosixPath
from typing import Any

import h5py
import hdf5plugin  # its filters are known to HDF5 from here on
import numpy as np

from study_lib.data.archive import HDF5, RATIO_FREE_BYTES, RATIO_MAX
from study_lib.errors import InputError
from study_lib.files import atomic_path
from study_lib.system import memory_bytes

IMAGE_RANKS = tuple(range(2, 9))
DEPTH_MAX = 8  # of groups in which arrays are listed
LINKS_MAX = 8
RAISED_BY_H5PY = (OSError, RuntimeError, ValueError, KeyError, TypeError)
USER_BLOCKS = (0, 512, 1024, 2048)  # where HDF5 begins: MATLAB puts 512 bytes of its own before it
FILTER_NAMES = {value: key for key, value in hdf5plugin.FILTERS.items()}
ALLOW = "name the folder that it may lie in with --allow-links FOLDER"


class Hdf5Reader:
    """An open file that hands out arrays only after checking what they claim to be.

    Parameters
    ----------
    path
        The file.
    file
        As h5py has opened it.
    links_below
        The folder in which files that it links to may lie; None: links to files are refused.
    """

    def __init__(self, path: Path, file: h5py.File, links_below: Path | None = None) -> None:
        self.path = path
        self._file = file
        self._links_below = links_below
        self._others: dict[Path, Hdf5Reader] = {}
        self._declared: dict[str, int] = {}

    def close(self) -> None:
        """Close the file and those that were reached from it."""
        for other in self._others.values():
            other.close()
        self._file.close()

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

    def text_attribute(self, name: str, key: str) -> str | None:
        """Return a text kept as an attribute, or None if there is none."""
        owner = self._find(name)
        try:
            value = None if owner is None else owner.attrs.get(key)
        except RAISED_BY_H5PY as error:
            raise self.refusal(name, f"{key}: {_first_line(error)}", "save a text") from None
        if isinstance(value, bytes):
            value = value.decode(errors="replace")
        return value if isinstance(value, str) else None

    def names(self, group: str) -> list[str]:
        """Return the names in a group that are text; none if there is no such group."""
        found = self._find(group)
        if not isinstance(found, h5py.Group):
            return []
        with self._damage_reported(group):
            return sorted(name for name in found if isinstance(name, str))

    def arrays_named(self, most: int) -> list[str]:
        """Return the names of data sets in the file, in all its groups, ``most`` of them at most.

        Links that are not followed are left out.
        """
        found: list[str] = []
        groups = ["/"]
        while groups and len(found) < most:
            group = groups.pop(0)
            if group.count("/") > DEPTH_MAX:
                continue
            for name in self.names(group):
                inside = f"{group.rstrip('/')}/{name}"
                try:
                    item = self._find(inside)
                except InputError:
                    continue
                if isinstance(item, h5py.Dataset):
                    found.append(inside.strip("/"))
                elif item is not None:
                    groups.append(inside)
        return found[:most]

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

    def _followed(self, name: str, followed: int = 0) -> Any:
        parts = [part for part in PurePosixPath(name).parts if part != "/"]
        place = "/"
        while parts:
            part = parts.pop(0)
            group = self._file[place]
            link = group.get(part, getlink=True) if isinstance(group, h5py.Group) else None
            if link is None:
                return None
            if isinstance(link, h5py.ExternalLink | h5py.SoftLink):
                followed += 1
                if followed > LINKS_MAX:
                    raise self.refusal(name, "links lead in a circle", "write it again")
            if isinstance(link, h5py.ExternalLink):
                where = f"{place.rstrip('/')}/{part}"
                other = self._other(where, link.filename, "a link to another file")
                return other._followed("/".join((link.path, *parts)), followed)
            if isinstance(link, h5py.SoftLink):
                target = PurePosixPath(link.path)
                parts = [*(item for item in target.parts if item != "/"), *parts]
                place = "/" if target.is_absolute() else place
            else:
                place = str(PurePosixPath(place) / part)
        return self._file[place]

    def _other(self, name: str, target: str, what: str) -> "Hdf5Reader":
        """Return the reader of a file that this one names, if it lies where the user allows.

        Relative names are those of the folder of this file, as HDF5 has it.

        Raises
        ------
        InputError
            If no folder is allowed, or the file lies outside it, or cannot be read.
        """
        if self._links_below is None:
            remedy = f"copy the data into this file, or {ALLOW}"
            raise self.refusal(name, f"{what}, {target!r}, is not followed", remedy)
        path = (self.path.resolve().parent / target).resolve()
        allowed = self._links_below.resolve()
        if not path.is_relative_to(allowed):
            found = f"{what}, {target!r}, leads to {path}, outside {allowed}"
            raise self.refusal(name, found, ALLOW)
        if not path.is_file():
            raise self.refusal(name, f"{what}, {target!r}, leads to nothing", "put the file there")
        if path not in self._others:
            self._others[path] = _opened(path, self._links_below)
        return self._others[path]

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
        """Refuse what cannot be unpacked, lies elsewhere, would not fit or was blown up."""
        self._check_filters(name, data)
        stored = self._stored_bytes(name, data)
        self._declared[name] = size
        needed, memory = sum(self._declared.values()), memory_bytes()
        if needed > memory:
            raise self.refusal(
                name,
                f"with it the file takes {needed / 2**30:.1f} GiB, this process may use "
                f"{memory / 2**30:.1f} GiB",
                "cut the scan into parts or use a larger machine",
            )
        if size > RATIO_FREE_BYTES and size > RATIO_MAX * max(stored, 1):
            raise self.refusal(
                name,
                f"declares {size / 2**20:.0f} MiB and stores {stored} bytes",
                f"values must be there, packed at most {RATIO_MAX} times",
            )

    def _check_filters(self, name: str, data: h5py.Dataset) -> None:
        created = data.id.get_create_plist()
        for index in range(created.get_nfilters()):
            number, _, _, said = created.get_filter(index)
            if not h5py.h5z.filter_avail(number):
                known = FILTER_NAMES.get(number) or said.decode(errors="replace") or "no name"
                raise self.refusal(
                    name,
                    f"packed by filter {number} ({known}), which is not installed here",
                    "the file is not damaged: unpack it where it was written, with `h5repack -f "
                    "GZIP=4`, or install the plugin of this filter for HDF5",
                )

    def _stored_bytes(self, name: str, data: h5py.Dataset, depth: int = 0) -> int:
        """Return how many bytes hold the values, those of the sources of a virtual data set too.

        Raises
        ------
        InputError
            If they lie in files that may not be reached, or that are not there, where HDF5 would
            put zeros without a word.
        """
        if data.external:
            found = "its values lie in other files that are no HDF5"
            raise self.refusal(name, found, "copy them into this file")
        if not data.is_virtual:
            return int(data.id.get_storage_size())
        if depth > LINKS_MAX:
            raise self.refusal(name, "virtual data sets lead in a circle", "write it again")
        stored = 0
        sources = {(source.file_name, source.dset_name) for source in data.virtual_sources()}
        for file_name, values_name in sorted(sources):
            if "%" in file_name:
                found = f"its values lie in files named by a pattern, {file_name!r}"
                raise self.refusal(name, found, "copy them into this file")
            reader = self
            if file_name != ".":
                what = "its values lie in other files; one of them"
                reader = self._other(name, file_name, what)
            values = reader._find(values_name)
            if not isinstance(values, h5py.Dataset):
                found = f"its values lie in {file_name}, which has no {values_name}"
                raise self.refusal(name, found, "put them there")
            reader._check_filters(values_name, values)
            stored += reader._stored_bytes(values_name, values, depth + 1)
        return stored


@contextmanager
def open_hdf5(path: Path, links_below: Path | None = None) -> Iterator[Hdf5Reader]:
    """Open an HDF5 file for reading.

    Parameters
    ----------
    path
        The file.
    links_below
        The folder in which files that it links to may lie; default: links to files are refused.

    Raises
    ------
    InputError
        If the file is missing, may not be read, is truncated or not HDF5.
    """
    if not path.is_file():
        raise InputError(f"{path}: no such file; give the path of an HDF5 file")
    reader = _opened(path, links_below)
    try:
        yield reader
    except (RuntimeError, KeyError, OSError) as error:  # h5py's own, from structure that lies
        raise InputError(f"{path}: damaged ({_first_line(error)}); write it again") from None
    finally:
        reader.close()


def _opened(path: Path, links_below: Path | None) -> Hdf5Reader:
    try:
        return Hdf5Reader(path, h5py.File(path, "r", locking=False), links_below)
    except PermissionError:
        raise InputError(
            f"{path}: this user may not read it; ask its owner, or change its permissions"
        ) from None
    except OSError as error:
        if error.errno is not None:  # the system's own: a disk or a network that fails
            reason = f"cannot be read ({_first_line(error)}); try again, or copy it to a local disk"
            raise InputError(f"{path}: {reason}") from None
        raise InputError(
            f"{path}: damaged or not an HDF5 file ({_first_line(error)}); write or fetch it again"
        ) from None


@contextmanager
def new_hdf5(path: Path) -> Iterator[h5py.File]:
    """Open a file for writing that replaces ``path`` only if the block succeeds."""
    with atomic_path(path) as temporary, h5py.File(temporary, "w") as file:
        yield file


def is_hdf5(path: Path) -> bool:
    """Return whether a file begins as HDF5 files do, after a block of another program at most."""
    try:
        with path.open("rb") as file:
            start = file.read(USER_BLOCKS[-1] + len(HDF5))
        return any(start[at:].startswith(HDF5) for at in USER_BLOCKS)
    except OSError:  # the next to open the file says why it cannot be read
        return False


def _first_line(error: Exception) -> str:
    return " ".join(str(error).strip("'\"").split())[:200]
