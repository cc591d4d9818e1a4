"""Measured data in the layout of Tike's test files.

=======  ==========================  ==========================================================
key      shape                       meaning
=======  ==========================  ==========================================================
data     (1, scan, n, n)             counts, zero frequency in the corner
probe    (1, 1, 1, modes, n, n)      starting probe, in no particular scale
scan     (1, scan, 2)                (row, column) in object pixels, from no particular origin
=======  ==========================  ==========================================================
"""

import bz2
import shutil
import tempfile
from pathlib import Path

import numpy as np

from study_lib.data.archive import RATIO_FREE_BYTES, RATIO_MAX, read_npz
from study_lib.data.formats.acquisition import (
    Acquisition,
    RawScan,
    ReadChoices,
    transformation,
)
from study_lib.data.formats.cleaning import acquisition_of
from study_lib.data.formats.geometry import UNKNOWN, resolved_geometry
from study_lib.data.formats.positions import positions_in_px
from study_lib.errors import InputError
from study_lib.files import atomic_path
from study_lib.system import memory_bytes

RANKS = {"data": 3, "probe": 2, "scan": 2}
DISK_SHARE = 0.5
BLOCK_BYTES = 2**20


def read_tike(path: Path, choices: ReadChoices) -> Acquisition:
    """Return the scan in a Tike file, plain ``.npz`` or compressed again as ``.npz.bz2``.

    Raises
    ------
    InputError
        If the file is missing, damaged, or not laid out as above.
    """
    found = _arrays_in(path)
    missing = [key for key in RANKS if key not in found]
    if missing:
        raise _refused(path, missing[0], f"nothing (the file has {', '.join(found)})", "an array")
    probe = found["probe"]
    modes = probe.reshape(-1, *probe.shape[-2:]) if probe.ndim >= 2 and probe.size else probe
    if probe.dtype.kind not in "fc" or set(probe.shape[:-3]) - {1}:
        found_probe = f"{probe.dtype} of shape {probe.shape}"
        raise _refused(path, "probe", found_probe, "(modes, n, n), any axes before of length 1")
    data, scan = (_without_ones(path, key, found[key]) for key in ("data", "scan"))
    side = data.shape[-1]
    expected = {"data": (len(data), side, side), "scan": (len(data), 2)}
    for key, array in (("data", data), ("scan", scan)):
        if array.shape != expected[key]:
            raise _refused(path, key, f"shape {array.shape}", f"{expected[key]}, as data has it")
    geometry, remarks = resolved_geometry(path, UNKNOWN, choices.lengths, side)
    positions, records = positions_in_px(
        path, scan, "px", choices, geometry.pixel_of_object_m(side)
    )
    raw = RawScan(
        positions_px=positions,
        patterns=data,
        domain="counts",
        zero_frequency="corner",
        probe=modes,
        steps=(
            transformation(
                "rename", data="diffraction", scan="ycoords, xcoords", probe="probeGuess"
            ),
            transformation("remove axes of length 1"),
            *records,
        ),
        geometry=geometry,
        remarks=remarks,
    )
    return acquisition_of(path, raw, choices)


def write_tike(path: Path, acquisition: Acquisition) -> None:
    """Write patterns, positions and probe, compressed again if the name ends in ``.bz2``.

    The layout has no place for an object, for lengths and for indices.

    Raises
    ------
    InputError
        If patterns or probe are missing.
    """
    (probe,) = acquisition.require("probe")
    arrays = {
        "data": np.fft.ifftshift(acquisition.counts(), axes=(-2, -1))[None],
        "probe": probe.reshape(1, 1, 1, -1, *probe.shape[-2:]),
        "scan": acquisition.positions_px[None],
    }
    with atomic_path(path) as temporary:
        is_packed = path.suffix == ".bz2"
        with bz2.open(temporary, "wb") if is_packed else temporary.open("wb") as stream:
            np.savez(stream, allow_pickle=False, **arrays)


def _arrays_in(path: Path) -> dict[str, np.ndarray]:
    if not path.is_file():
        raise InputError(f"{path}: no such file; give the path of a Tike .npz or .npz.bz2 file")
    if path.suffix != ".bz2":
        return read_npz(path, only=RANKS)[0]
    with tempfile.TemporaryDirectory() as folder:
        plain = Path(folder) / path.stem
        _decompress(path, plain)
        try:
            return read_npz(plain, only=RANKS)[0]
        except InputError as error:
            raise InputError(str(error).replace(str(plain), str(path))) from None


def _decompress(path: Path, plain: Path) -> None:
    """Write the content of a bz2 file to a plain one, block by block and up to a limit."""
    written = 0
    room = min(memory_bytes(), int(DISK_SHARE * shutil.disk_usage(plain.parent).free))
    try:
        with (
            path.open("rb") as packed,
            bz2.open(packed, "rb") as source,
            plain.open("wb") as target,
        ):
            while block := source.read(BLOCK_BYTES):
                written += len(block)
                if written > RATIO_FREE_BYTES and written > RATIO_MAX * packed.tell():
                    raise InputError(
                        f"{path}: {packed.tell()} bytes grow to {written / 2**20:.0f} MiB and "
                        f"more; at most {RATIO_MAX} times as many are read; write it with "
                        "bz2.open and numpy.savez"
                    )
                if written > room:
                    raise InputError(
                        f"{path}: grows beyond {room / 2**30:.1f} GiB, the memory or half of the "
                        "disk that is free here; cut the scan into parts"
                    )
                target.write(block)
    except (OSError, EOFError, ValueError) as error:
        raise InputError(f"{path}: damaged or not bz2 ({error}); fetch it again") from None


def _without_ones(path: Path, key: str, array: np.ndarray) -> np.ndarray:
    """Return an array without its leading axes, which must have length one."""
    rank = RANKS[key]
    if array.dtype.kind not in "fiu":
        raise _refused(path, key, f"type {array.dtype}", "numbers")
    if array.ndim < rank or array.size == 0 or set(array.shape[:-rank]) - {1}:
        raise _refused(
            path, key, f"shape {array.shape}", f"{rank} axes, any before them of length 1"
        )
    return array.reshape(array.shape[-rank:])


def _refused(path: Path, key: str, found: str, allowed: str) -> InputError:
    return InputError(
        f"{path}: {key}: found {found}; expected {allowed}; "
        "save data (1, scan, n, n), probe (1, 1, 1, modes, n, n) and scan (1, scan, 2)"
    )
