"""No archive gets in that lies, bursts, runs code or is damaged."""

import io
import pickle
import re
import subprocess
import sys
import zipfile
from pathlib import Path

import numpy as np
import pytest
from hostile import Evil

from study_lib.data.archive import MEMBERS_MAX, RATIO_MAX, NpzArchive, open_npz, read_npz
from study_lib.errors import InputError


def npy(array: np.ndarray) -> bytes:
    file = io.BytesIO()
    np.lib.format.write_array(file, array)
    return file.getvalue()


def header(shape: tuple[int, ...], dtype: str = "<f4") -> bytes:
    """Return an array header without data behind it."""
    file = io.BytesIO()
    content = {"descr": dtype, "fortran_order": False, "shape": shape}
    np.lib.format.write_array_header_1_0(file, content)
    return file.getvalue()


def archive_of(
    path: Path, members: list[tuple[str, bytes]], kind: int = zipfile.ZIP_STORED
) -> Path:
    with zipfile.ZipFile(path, "w", kind) as file:
        for name, content in members:
            file.writestr(name, content)
    return path


def some_arrays() -> dict[str, np.ndarray]:
    random = np.random.default_rng(0)
    return {
        "a": random.normal(size=(6, 5, 4)).astype(np.float32),
        "b": random.normal(size=7) + 1j,
        "c": np.arange(3),
        "d": np.array([True, False]),
    }


@pytest.mark.parametrize("save", [np.savez, np.savez_compressed])
def test_arrays_come_back_as_they_were(save, tmp_path):
    save(tmp_path / "data.npz", **some_arrays(), _metadata=np.array('{"x": [1, null]}'))

    arrays, metadata = read_npz(tmp_path / "data.npz")

    assert metadata == {"x": [1, None]}
    assert arrays.keys() == some_arrays().keys()
    for key, expected in some_arrays().items():
        assert arrays[key].dtype == expected.dtype
        np.testing.assert_array_equal(arrays[key], expected)


@pytest.mark.parametrize("shape", [(), (0,), (3, 0, 2), (1,)])
def test_empty_and_scalar_arrays_come_back(shape, tmp_path):
    np.savez(tmp_path / "data.npz", a=np.full(shape, 2.5))

    assert read_npz(tmp_path / "data.npz")[0]["a"].shape == shape


@pytest.mark.parametrize("dtype", [">f4", ">c8", ">i8", "<u2"])
@pytest.mark.parametrize("order", ["C", "F"])
def test_any_byte_order_and_memory_order_is_read_as_numpy_reads_it(dtype, order, tmp_path, rng):
    array = np.asarray(100 * rng.random((5, 4, 3)), order=order).astype(dtype, order="K")
    np.savez(tmp_path / "data.npz", a=array)

    read = read_npz(tmp_path / "data.npz")[0]["a"]

    assert read.dtype.isnative
    assert read.flags.c_contiguous
    np.testing.assert_array_equal(read, array)


@pytest.mark.parametrize("order", ["C", "F"])
def test_slabs_are_the_array_in_parts(order, tmp_path, rng, monkeypatch):
    monkeypatch.setattr("study_lib.data.archive.SLAB_BYTES", 200)
    array = np.asarray(rng.random((7, 5, 6)), order=order)
    np.savez(tmp_path / "data.npz", a=array)

    with open_npz(tmp_path / "data.npz") as archive:
        parts = list(archive.slabs("a"))

    slowest = 0 if order == "C" else 2
    assert len(parts) > 3
    assert [part.start for part, _ in parts[1:]] == [part.stop for part, _ in parts[:-1]]
    np.testing.assert_array_equal(np.concatenate([slab for _, slab in parts], slowest), array)


def test_only_what_is_asked_for_is_read(tmp_path):
    np.savez(tmp_path / "data.npz", **some_arrays())

    assert read_npz(tmp_path / "data.npz", only=["b", "absent"])[0].keys() == {"b"}


# --- what is refused


def test_a_missing_file_is_refused(tmp_path):
    with pytest.raises(InputError, match="no such file; give the path"):
        read_npz(tmp_path / "absent.npz")


@pytest.mark.parametrize("content", [b"", b"PK\x03\x04", b"not an archive", b"\x93NUMPY"])
def test_what_is_not_an_npz_is_refused(content, tmp_path):
    (tmp_path / "data.npz").write_bytes(content)

    with pytest.raises(InputError, match=r"data\.npz: damaged or not an NPZ file"):
        read_npz(tmp_path / "data.npz")


def test_a_single_array_file_is_refused(tmp_path):
    np.save(tmp_path / "data.npy", np.ones(3))

    with pytest.raises(InputError, match="not an NPZ file"):
        read_npz(tmp_path / "data.npy")


def test_pickled_objects_are_refused_by_name_and_not_run(tmp_path):
    target = tmp_path / "written_by_the_pickle"
    np.savez(tmp_path / "data.npz", probeGuess=np.array([Evil(target)], dtype=object))

    with pytest.raises(InputError, match="probeGuess holds pickled objects, which can run code"):
        read_npz(tmp_path / "data.npz")

    assert not target.exists()


def test_a_raw_pickle_is_refused(tmp_path):
    target = tmp_path / "written_by_the_pickle"
    (tmp_path / "data.npz").write_bytes(pickle.dumps(Evil(target)))

    with pytest.raises(InputError, match="not an NPZ file"):
        read_npz(tmp_path / "data.npz")

    assert not target.exists()


def test_a_pickled_member_can_be_left_out(tmp_path):
    np.savez(tmp_path / "data.npz", a=np.ones(2), _metadata=np.array({"n": 1}, dtype=object))

    arrays, metadata = read_npz(tmp_path / "data.npz", ignore=["_metadata"])

    assert arrays.keys() == {"a"}
    assert metadata == {}


def test_a_zip_bomb_is_refused_by_its_directory(tmp_path):
    """64 MiB of zeros in 64 KiB: the sizes say so, nothing is unpacked."""
    path = tmp_path / "data.npz"
    size = 2**26
    with (
        zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as file,
        file.open("a.npy", "w", force_zip64=True) as member,
    ):
        member.write(header((size // 4,)))
        for _ in range(size // 2**24):
            member.write(bytes(2**24))

    with pytest.raises(InputError, match=rf"a\.npy would grow from .* MiB to 64 MiB.*{RATIO_MAX}"):
        read_npz(path)


def test_a_header_that_declares_more_than_there_is_is_refused(tmp_path):
    """391 GiB by the header, 100 bytes in the file."""
    path = archive_of(tmp_path / "data.npz", [("a.npy", header((105_000_000_000,)) + bytes(100))])

    with pytest.raises(InputError, match=r"the header of a declares shape \(105000000000,\)"):
        read_npz(path)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (header((4,)) + bytes(20), "declares shape"),
        (header((-4,)) + bytes(16), "declares shape"),
        (header((2**40, 2**40)), "declares shape"),
        (header((4,), "|O"), "pickled objects"),
        (header((4,), "|S4") + bytes(16), "is of type"),
        (header((0,) * 9), "declares shape"),
        (header((10**17, 0)), "declares shape"),
        (header((10**12, 0, 1)), "declares shape"),
        (b"\x93NUMPY\x09\x00", "is damaged"),
        (b"\x93NUMPY\x01\x00\xff\xff{", "is damaged"),
        (b"\x93NUMPY\x01\x00\x05\x00[1,2]", "is damaged"),
        (b"", "is damaged"),
    ],
)
def test_a_lying_or_broken_header_is_refused(content, message, tmp_path):
    path = archive_of(tmp_path / "data.npz", [("a.npy", content)])

    with pytest.raises(InputError, match=message):
        read_npz(path)


def test_every_bit_of_a_header_may_be_flipped(tmp_path):
    """Only the header is read first, before any checksum: it has to survive on its own."""
    path = tmp_path / "data.npz"
    np.savez(path, a=np.arange(6.0).reshape(2, 3), b=np.ones(2))
    whole = path.read_bytes()
    start = whole.index(b"\x93NUMPY")
    refused = 0
    for place in range(start, start + 128):
        for bit in range(8):
            damaged = bytearray(whole)
            damaged[place] ^= 1 << bit
            path.write_bytes(damaged)
            try:
                read_npz(path)
            except InputError:
                refused += 1
    assert refused == 128 * 8


def test_a_ratio_that_no_pattern_has_is_refused_below_the_largest_possible(tmp_path):
    """Deflate reaches 1030; a body that mixes zeros with a little noise stays below."""
    random = np.random.default_rng(0)
    content = np.zeros(2**23, np.float32)
    content[:: 2**12] = random.random(2**11)
    np.savez_compressed(tmp_path / "data.npz", a=content)
    with zipfile.ZipFile(tmp_path / "data.npz") as file:
        (info,) = file.infolist()
    ratio = info.file_size / info.compress_size

    assert RATIO_MAX < ratio < 950
    with pytest.raises(InputError, match="would grow from"):
        read_npz(tmp_path / "data.npz")


def test_more_members_than_any_data_set_has_are_refused(tmp_path):
    path = archive_of(tmp_path / "data.npz", [(f"a{n}.npy", b"") for n in range(MEMBERS_MAX + 1)])

    with pytest.raises(InputError, match=r"1001 members; keep at most 1000 arrays"):
        read_npz(path)


def test_an_archive_larger_than_memory_in_all_is_refused(tmp_path, monkeypatch):
    np.savez(tmp_path / "data.npz", a=np.ones(1000), b=np.ones(1000))
    monkeypatch.setattr("os.sysconf", lambda name: 100)

    with pytest.raises(InputError, match=r"a, b: .* GiB, this process may use"):
        read_npz(tmp_path / "data.npz")
    assert read_npz(tmp_path / "data.npz", only=["a"])[0].keys() == {"a"}


@pytest.mark.filterwarnings("ignore:Duplicate name")  # zipfile's word on the hostile file made here
def test_a_member_that_occurs_twice_is_refused(tmp_path):
    members = [("a.npy", npy(np.ones(2))), ("a.npy", npy(np.zeros(2)))]

    with pytest.raises(InputError, match=r"member 'a\.npy' occurs twice; keep one"):
        read_npz(archive_of(tmp_path / "data.npz", members))


@pytest.mark.parametrize("name", ["../a.npy", "/a.npy", "sub/a.npy", "a.py", "a", "..\\a.npy"])
def test_a_member_that_is_no_plain_array_is_refused(name, tmp_path):
    path = archive_of(tmp_path / "data.npz", [(name, npy(np.ones(2)))])

    with pytest.raises(InputError, match=r"unexpected member .*; keep arrays"):
        read_npz(path)


def test_an_unknown_compression_is_refused(tmp_path):
    path = archive_of(tmp_path / "data.npz", [("a.npy", npy(np.ones(9)))], zipfile.ZIP_LZMA)

    with pytest.raises(InputError, match="unknown compression; write it with"):
        read_npz(path)


def test_members_that_share_their_bytes_are_refused(tmp_path):
    """The directory of an overlapping bomb points many members at one body."""
    path = archive_of(tmp_path / "data.npz", [("a.npy", npy(np.ones(500))), ("b.npy", b"")])
    with zipfile.ZipFile(path) as file:
        first, second = file.infolist()
        sizes = (first.header_offset, first.compress_size, first.file_size, first.CRC)
    content = bytearray(path.read_bytes())
    entry = content.rindex(b"PK\x01\x02")
    content[entry + 16 : entry + 28] = b"".join(
        value.to_bytes(4, "little") for value in (sizes[3], sizes[1], sizes[2])
    )
    path.write_bytes(content)

    assert second.filename == "b.npy"
    with pytest.raises(InputError, match=r"members of 8256 bytes in a file of|is damaged"):
        read_npz(path)


@pytest.mark.parametrize(
    ("metadata", "message"),
    [
        (np.array("{broken"), "_metadata is not JSON"),
        (np.array('{"a": Infinity}'), "_metadata is not JSON"),
        (np.array('{"a": NaN}'), "_metadata is not JSON"),
        (np.array('{"a": ' + "1" * 5000 + "}"), "_metadata is not JSON"),
        (np.array("[1, 2]"), "_metadata is a JSON list; save an object"),
        (np.array("[" * 100_000), "_metadata is not JSON"),
        (np.array(["{}"]), r"_metadata is <U2 of shape \(1,\); save a 0-d unicode"),
        (np.array(3.0), r"_metadata is float64 of shape \(\)"),
    ],
)
def test_metadata_that_is_not_a_json_object_is_refused(metadata, message, tmp_path):
    np.savez(tmp_path / "data.npz", _metadata=metadata)

    with pytest.raises(InputError, match=message):
        read_npz(tmp_path / "data.npz")


@pytest.mark.parametrize("save", [np.savez, np.savez_compressed])
def test_a_truncated_file_is_refused(save, tmp_path):
    path = tmp_path / "data.npz"
    save(path, **some_arrays())
    whole = path.read_bytes()

    for length in np.linspace(1, len(whole) - 1, 40, dtype=int):
        path.write_bytes(whole[:length])
        with pytest.raises(InputError, match=r"data\.npz: .*; write it again"):
            read_npz(path)


@pytest.mark.slow
@pytest.mark.parametrize("save", [np.savez, np.savez_compressed])
def test_flipped_bits_are_refused_or_change_no_value(save, tmp_path, rng):
    """Some bytes of an archive carry no data (dates, attributes); every other flip is seen."""
    path = tmp_path / "data.npz"
    save(path, **some_arrays())
    whole = path.read_bytes()
    refused = 0
    for place in rng.integers(0, len(whole), 600):
        damaged = bytearray(whole)
        damaged[place] ^= 1 << rng.integers(8)
        path.write_bytes(damaged)
        try:
            arrays, _ = read_npz(path)
        except InputError:
            refused += 1
            continue
        for key in arrays.keys() & some_arrays().keys():
            np.testing.assert_array_equal(arrays[key], some_arrays()[key])
    assert refused > 300


def test_an_array_larger_than_memory_is_refused_before_it_is_allocated(tmp_path, monkeypatch):
    np.savez(tmp_path / "data.npz", a=np.ones(1000))
    monkeypatch.setattr("os.sysconf", lambda name: 50)

    with pytest.raises(InputError, match=r"a: .* GiB, this process may use"):
        read_npz(tmp_path / "data.npz")


# The command line, which says in the end how much memory it took. The number that a parent is given
# of its child begins with the parent's own.
MEASURED = """
import atexit
def tell():
    (line,) = [line for line in open("/proc/self/status") if line.startswith("VmHWM")]
    print("peak", line.split()[1])
atexit.register(tell)
from study_lib.cli.main import main
main()
"""


def validated_alone(path: Path) -> tuple[float, int, str]:
    """Return peak memory in MiB, exit code and errors of `study validate`."""
    command = [sys.executable, "-c", MEASURED, "validate", str(path)]
    result = subprocess.run(command, capture_output=True, text=True, check=False)
    return int(result.stdout.split()[-1]) / 2**10, result.returncode, result.stderr


def write_bomb(path: Path, arrays: dict[str, np.ndarray], size: int) -> None:
    """Write arrays and patterns of zeros, a thousand times as large as the file."""
    np.savez(path, **arrays)
    with (
        zipfile.ZipFile(path, "a", zipfile.ZIP_DEFLATED) as file,
        file.open("diffraction.npy", "w", force_zip64=True) as member,
    ):
        member.write(header((size // 2**14, 64, 64)))
        for _ in range(size // 2**24):
            member.write(bytes(2**24))


FAULTS = {
    "NaN at the end": "diffraction: found 1 NaN or infinite, first at index 19999",
    "bomb": r"diffraction\.npy would grow from 2\.\d MiB to 2048 MiB, \d+ times \(at most 500\)",
    "many positions": "diffraction: found nothing; expected 3-D float32",
    "many arrays": "unknown_0: ",
}


@pytest.mark.slow
@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="peak memory is read from /proc")
@pytest.mark.parametrize(("fault", "message"), FAULTS.items(), ids=FAULTS)
def test_a_bad_file_takes_less_than_300_mb(fault, message, tmp_path):
    """However large the file or what it claims: the command judges it in slabs, or not at all."""
    path = tmp_path / "data.npz"
    arrays = {
        "probeGuess": np.ones((64, 64), np.complex64),
        "objectGuess": np.ones((80, 80), np.complex64),
        "xcoords": np.full(9, 40.0),
        "ycoords": np.full(9, 40.0),
    }
    if fault == "NaN at the end":
        patterns = np.ones((20_000, 64, 64), np.float32)
        patterns[-1, -1, -1] = np.nan
        np.savez(path, **arrays, diffraction=patterns)
    elif fault == "bomb":
        write_bomb(path, arrays, 2**31)
    elif fault == "many positions":
        np.savez(path, **arrays | {"xcoords": np.full(40_000_000, 40.0)})
    else:
        unknown = {f"unknown_{index}": np.zeros(2**24, np.uint8) for index in range(25)}
        np.savez(path, **arrays, **unknown)

    peak_mib, code, error = validated_alone(path)

    assert code == 2
    assert re.search(message, error), error
    assert peak_mib < 300 * 1e6 / 2**20


def test_the_archive_is_closed_after_use(tmp_path):
    np.savez(tmp_path / "data.npz", a=np.ones(2))
    with open_npz(tmp_path / "data.npz") as archive:
        assert isinstance(archive, NpzArchive)
    with pytest.raises(InputError, match="is damaged"):
        archive.read("a")
