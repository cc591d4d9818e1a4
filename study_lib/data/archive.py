"""NPZ archives read with suspicion: nothing is unpickled, no header is believed.

An NPZ file is a ZIP of NPY members. What the directory and the headers declare is compared with
each other and with the file before any array is allocated, and arrays can be read in slabs, so
that a file larger than memory can still be judged.
"""

import io
import json
import math
import struct
import tokenize
import zipfile
import zlib
from collections.abc import Collection, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any, cast

import numpy as np

from study_lib.errors import InputError
from study_lib.system import memory_bytes

# --- What an archive declares, held against the file and itself before memory is taken

RATIO_MAX = 500
RATIO_FREE_BYTES = 2**20
HEADER_MAX_BYTES = 10_000
RANK_MAX = 8
MEMBERS_MAX = 1000
# What zipfile and numpy raise on files that are not what they say. The file is refused for it.
DAMAGE = (
    zipfile.BadZipFile,
    zlib.error,
    struct.error,
    EOFError,
    OSError,
    ValueError,
    RuntimeError,  # zipfile, of a member with a password or an unknown compression
    IndexError,
    OverflowError,
    SyntaxError,  # numpy, of a header that is no Python literal; the next one too
    tokenize.TokenError,
    MemoryError,  # the parser, of a header nested too deep; the next one too
    RecursionError,
)


@dataclass(frozen=True)
class ArchiveEntry:
    """One array of an archive, as its header describes it; ``fortran`` is column-major order."""

    name: str
    shape: tuple[int, ...]
    dtype: np.dtype[Any]
    fortran: bool
    info: zipfile.ZipInfo

    @property
    def size_bytes(self) -> int:
        """Bytes the array takes in memory."""
        return math.prod(self.shape) * self.dtype.itemsize


def check_directory(path: Path, infos: list[zipfile.ZipInfo]) -> None:
    """Refuse duplicates, paths, encryption, overlaps and bombs by what the directory says.

    Raises
    ------
    InputError
        If the directory has any of these.
    """
    if len(infos) > MEMBERS_MAX:
        raise refusal(path, f"{len(infos)} members", f"keep at most {MEMBERS_MAX} arrays")
    seen = set()
    for info in infos:
        name = info.filename
        if not name.endswith(".npy") or PurePosixPath(name).name != name or "\\" in name:
            raise refusal(path, f"unexpected member {name!r}", "keep arrays (.npy) only")
        if name in seen:
            raise refusal(path, f"member {name!r} occurs twice", "keep one of the two")
        seen.add(name)
        if info.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
            raise refusal(path, f"{name} has an unknown compression", "write it with numpy.savez")
        if info.flag_bits & 0x1:
            raise refusal(path, f"{name} is encrypted", "save it without a password")
        ratio = info.file_size / max(1, info.compress_size)
        if info.file_size > RATIO_FREE_BYTES and ratio > RATIO_MAX:
            raise refusal(
                path,
                f"{name} would grow from {info.compress_size / 2**20:.1f} MiB to "
                f"{info.file_size / 2**20:.0f} MiB, {ratio:.0f} times (at most {RATIO_MAX})",
                "write it with numpy.savez",
            )
    declared = sum(info.compress_size for info in infos)
    if declared > path.stat().st_size:
        found = f"members of {declared} bytes in a file of {path.stat().st_size} bytes"
        raise refusal(path, found, "write it again")


def checked_member(
    path: Path, file: zipfile.ZipFile, info: zipfile.ZipInfo, name: str
) -> ArchiveEntry:
    """Return a member whose header and declared size agree.

    Raises
    ------
    InputError
        If they do not, or the member is damaged or no array of numbers or text.
    """
    with _damage_reported(path, name), open_member(file, info) as stream:
        shape, fortran, dtype = read_header(stream)
        header_bytes = stream.tell()
    if dtype.hasobject:
        raise refusal(
            path,
            f"{name} holds pickled objects, which can run code",
            "save plain arrays, and metadata as a 0-d unicode array (DATA-002)",
        )
    if dtype.kind not in "biufcU" or dtype.itemsize == 0:
        raise refusal(path, f"{name} is of type {dtype}", "save numbers")
    member = ArchiveEntry(name, shape, dtype, fortran, info)
    declared = header_bytes + member.size_bytes
    longest = max(shape, default=0)
    lies = declared != info.file_size or longest > max(info.file_size, 1)
    if lies or len(shape) > RANK_MAX or min(shape, default=0) < 0:
        raise refusal(
            path,
            f"the header of {name} declares shape {shape} of {dtype}, {declared} bytes, "
            f"the archive {info.file_size}",
            "write it again",
        )
    return member


def open_member(file: zipfile.ZipFile, info: zipfile.ZipInfo) -> io.BufferedIOBase:
    """Return the stream of one member."""
    return cast("io.BufferedIOBase", file.open(info))


def read_header(stream: io.BufferedIOBase) -> tuple[tuple[int, ...], bool, np.dtype[Any]]:
    """Return shape, column-major order and type; leaves the stream at the first value."""
    version = np.lib.format.read_magic(stream)
    if version == (1, 0):
        return np.lib.format.read_array_header_1_0(stream, max_header_size=HEADER_MAX_BYTES)
    if version == (2, 0):
        return np.lib.format.read_array_header_2_0(stream, max_header_size=HEADER_MAX_BYTES)
    raise ValueError(f"version {version[0]}.{version[1]} of the array format is not read")


def refusal(path: Path, found: str, remedy: str) -> InputError:
    """Return the error of an archive that is not read."""
    return InputError(f"{path}: {found}; {remedy}")


@contextmanager
def _damage_reported(path: Path, name: str) -> Iterator[None]:
    try:
        yield
    except DAMAGE as error:
        raise refusal(path, f"{name} is damaged ({error})", "write it again") from None


# --- Reading

METADATA = "_metadata"
HDF5 = b"\x89HDF\r\n\x1a\n"
METADATA_MAX_BYTES = 2**26
SLAB_BYTES = 2**23
LOCAL_HEADER_BYTES = 30  # of a member, before its name and its extra fields


class NpzArchive:
    """An opened archive whose directory and headers have been checked."""

    def __init__(
        self, path: Path, file: zipfile.ZipFile, members: Mapping[str, ArchiveEntry]
    ) -> None:
        self.path = path
        self.members = dict(members)
        self._file = file

    def read(self, name: str) -> np.ndarray:
        """Return one array in native byte order and C order.

        Raises
        ------
        InputError
            If the member is damaged, or larger than this machine's memory.
        """
        member = self.members[name]
        self.require_memory([name])
        flat = np.empty(math.prod(member.shape), member.dtype)
        with self._data_of(member) as stream:
            _fill(stream, flat)
            if stream.read(1):
                raise ValueError("more data than the header declares")
        array = flat.reshape(member.shape, order="F" if member.fortran else "C")
        native = member.dtype.newbyteorder("=")
        return np.ascontiguousarray(array, dtype=native).reshape(member.shape)

    def mapped(self, name: str) -> np.ndarray:
        """Return one array as it lies in the file, read piece by piece where it is looked at.

        The file must stay as it is meanwhile; changes of the array stay in memory.

        Raises
        ------
        InputError
            If the member is compressed or in column-major or foreign byte order. The checksum is
            not compared: who reads all of it by :meth:`slabs` has done that.
        """
        member = self.members[name]
        if member.info.compress_type != zipfile.ZIP_STORED:
            raise refusal(
                self.path, f"{name} is compressed", "write it with numpy.savez, or read it"
            )
        if member.fortran or not member.dtype.isnative:
            found = f"{name} is in column-major or foreign byte order"
            raise refusal(self.path, found, "write it in C order, or read it")
        with self._data_of(member) as stream:
            header_bytes = stream.tell()
        with self.path.open("rb") as file:
            file.seek(member.info.header_offset)
            name_bytes, extra_bytes = struct.unpack("<26xHH", file.read(LOCAL_HEADER_BYTES))
        start = member.info.header_offset + LOCAL_HEADER_BYTES + name_bytes + extra_bytes
        return np.memmap(
            self.path, member.dtype, mode="c", offset=start + header_bytes, shape=member.shape
        )

    def require_memory(self, names: Collection[str]) -> None:
        """Refuse to read members that together take more than this machine's memory.

        Raises
        ------
        InputError
            If they do; nothing has been allocated then.
        """
        needed = sum(self.members[name].size_bytes for name in names)
        memory = memory_bytes()
        if needed > memory:
            raise InputError(
                f"{self.path}: {', '.join(names)}: {needed / 2**30:.1f} GiB, this process may use "
                f"{memory / 2**30:.1f} GiB; use a smaller file or a larger machine"
            )

    def slabs(self, name: str) -> Iterator[tuple[slice, np.ndarray]]:
        """Yield an array in parts of about 8 MiB: the slice of its slowest axis, and the part.

        The slowest axis is the first one, or the last in column-major order.

        Raises
        ------
        InputError
            If the member is damaged.
        """
        member = self.members[name]
        order = member.shape[::-1] if member.fortran else member.shape
        length, rest = (order[0], order[1:]) if order else (1, ())
        row_bytes = max(1, math.prod(rest) * member.dtype.itemsize)
        step = max(1, SLAB_BYTES // row_bytes)
        with self._data_of(member) as stream:
            for start in range(0, length, step):
                part = slice(start, min(start + step, length))
                slab = np.empty((part.stop - part.start, *rest), member.dtype)
                _fill(stream, slab.reshape(-1))
                native = slab.astype(member.dtype.newbyteorder("="), copy=False)
                yield part, native.T if member.fortran else native
            if stream.read(1):  # the checksum is compared when the end is reached
                raise ValueError("more data than the header declares")

    @contextmanager
    def _data_of(self, member: ArchiveEntry) -> Iterator[io.BufferedIOBase]:
        with (
            _damage_reported(self.path, member.name),
            open_member(self._file, member.info) as stream,
        ):
            read_header(stream)
            yield stream


@contextmanager
def open_npz(path: Path, *, ignore: Collection[str] = ()) -> Iterator[NpzArchive]:
    """Open an archive after checking its directory and every header.

    Parameters
    ----------
    path
        The NPZ file.
    ignore
        Members that are left out unread, whatever they are.

    Raises
    ------
    InputError
        If the file is missing, damaged, no NPZ file, or declares what it cannot hold.
    """
    if not path.is_file():
        raise InputError(f"{path}: no such file; give the path of an NPZ file")
    with path.open("rb") as start:
        beginning = start.read(len(HDF5))
    for signature, kind in ((b"BZh", "packed by bzip2"), (HDF5, "an HDF5 file")):
        if beginning.startswith(signature):
            remedy = "measured data become a data set by `study import`"
            raise refusal(path, f"{kind}, not an NPZ file", remedy)
    try:
        file = zipfile.ZipFile(path)
    except DAMAGE as error:
        raise refusal(path, f"damaged or not an NPZ file ({error})", "write it again") from None
    with file:
        infos = file.infolist()
        check_directory(path, infos)
        members = {}
        for info in infos:
            name = info.filename.removesuffix(".npy")
            if name not in ignore:
                members[name] = checked_member(path, file, info, name)
        yield NpzArchive(path, file, members)


def read_npz(
    path: Path, *, ignore: Collection[str] = (), only: Collection[str] | None = None
) -> tuple[dict[str, np.ndarray], dict[str, Any]]:
    """Return the arrays and the metadata of an NPZ file.

    Parameters
    ----------
    path
        The NPZ file.
    ignore
        Members that are left out unread, whatever they are.
    only
        The members to read; default: all. Those that are missing are left out.

    Raises
    ------
    InputError
        If the file is missing, damaged, not an NPZ, or holds pickled objects.
    """
    with open_npz(path, ignore=ignore) as archive:
        metadata = metadata_of(archive)
        names = [name for name in archive.members if name != METADATA]
        wanted = names if only is None else [name for name in names if name in only]
        archive.require_memory(wanted)
        return {name: archive.read(name) for name in wanted}, metadata


def metadata_of(archive: NpzArchive) -> dict[str, Any]:
    """Return the JSON object under ``_metadata``; empty where there is none (DATA-002).

    Raises
    ------
    InputError
        If it is not a text that holds a JSON object.
    """
    member = archive.members.get(METADATA)
    if member is None:
        return {}
    if member.dtype.kind != "U" or member.shape != () or member.size_bytes > METADATA_MAX_BYTES:
        found = f"{METADATA} is {member.dtype} of shape {member.shape}"
        raise refusal(archive.path, found, "save a 0-d unicode array with JSON text")
    try:
        content = json.loads(str(archive.read(METADATA)), parse_constant=_no_number)
    except (ValueError, RecursionError) as error:
        found = f"{METADATA} is not JSON ({error})"
        raise refusal(archive.path, found, "write it again") from None
    if not isinstance(content, dict):
        found = f"{METADATA} is a JSON {type(content).__name__}"
        raise refusal(archive.path, found, "save an object of names and values")
    return content


def _no_number(name: str) -> None:
    raise ValueError(f"{name} is no number in JSON")


def _fill(stream: io.BufferedIOBase, flat: np.ndarray) -> None:
    """Read exactly as many bytes as ``flat`` holds."""
    view = flat.view(np.uint8).data if flat.size else memoryview(b"")
    done = 0
    while done < len(view):
        chunk = stream.read(min(SLAB_BYTES, len(view) - done))
        if not chunk:
            raise EOFError(f"ends after {done} of {len(view)} bytes")
        view[done : done + len(chunk)] = chunk
        done += len(chunk)
