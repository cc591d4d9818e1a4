"""What an NPZ archive declares, compared with the file and with itself before memory is taken."""

import io
import math
import struct
import tokenize
import zipfile
import zlib
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any, cast

import numpy as np

from study_lib.errors import InputError

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
class Member:
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
        raise refused(path, f"{len(infos)} members", f"keep at most {MEMBERS_MAX} arrays")
    seen = set()
    for info in infos:
        name = info.filename
        if not name.endswith(".npy") or PurePosixPath(name).name != name or "\\" in name:
            raise refused(path, f"unexpected member {name!r}", "keep arrays (.npy) only")
        if name in seen:
            raise refused(path, f"member {name!r} occurs twice", "keep one of the two")
        seen.add(name)
        if info.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
            raise refused(path, f"{name} has an unknown compression", "write it with numpy.savez")
        if info.flag_bits & 0x1:
            raise refused(path, f"{name} is encrypted", "save it without a password")
        ratio = info.file_size / max(1, info.compress_size)
        if info.file_size > RATIO_FREE_BYTES and ratio > RATIO_MAX:
            raise refused(
                path,
                f"{name} would grow from {info.compress_size / 2**20:.1f} MiB to "
                f"{info.file_size / 2**20:.0f} MiB, {ratio:.0f} times (at most {RATIO_MAX})",
                "write it with numpy.savez",
            )
    declared = sum(info.compress_size for info in infos)
    if declared > path.stat().st_size:
        found = f"members of {declared} bytes in a file of {path.stat().st_size} bytes"
        raise refused(path, found, "write it again")


def checked_member(path: Path, file: zipfile.ZipFile, info: zipfile.ZipInfo, name: str) -> Member:
    """Return a member whose header and declared size agree.

    Raises
    ------
    InputError
        If they do not, or the member is damaged or no array of numbers or text.
    """
    try:
        with opened(file, info) as stream:
            shape, fortran, dtype = read_header(stream)
            header_bytes = stream.tell()
    except DAMAGE as error:
        raise refused(path, f"{name} is damaged ({error})", "write it again") from None
    if dtype.hasobject:
        raise refused(
            path,
            f"{name} holds pickled objects, which can run code",
            "save plain arrays, and metadata as a 0-d unicode array (DATA-002)",
        )
    if dtype.kind not in "biufcU" or dtype.itemsize == 0:
        raise refused(path, f"{name} is of type {dtype}", "save numbers")
    member = Member(name, shape, dtype, fortran, info)
    declared = header_bytes + member.size_bytes
    longest = max(shape, default=0)
    lies = declared != info.file_size or longest > max(info.file_size, 1)
    if lies or len(shape) > RANK_MAX or min(shape, default=0) < 0:
        raise refused(
            path,
            f"the header of {name} declares shape {shape} of {dtype}, {declared} bytes, "
            f"the archive {info.file_size}",
            "write it again",
        )
    return member


def opened(file: zipfile.ZipFile, info: zipfile.ZipInfo) -> io.BufferedIOBase:
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


def refused(path: Path, found: str, remedy: str) -> InputError:
    """Return the error of an archive that is not read."""
    return InputError(f"{path}: {found}; {remedy}")
