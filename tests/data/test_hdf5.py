"""Hostile and damaged HDF5 files end in one message and exit code 2, and leave nothing behind."""

import contextlib
import os
import re
from pathlib import Path
from unittest.mock import Mock

import h5py
import hdf5plugin
import numpy as np
import pytest

from study_lib.data import hdf5 as hdf5_files
from study_lib.data.contract import load_dataset
from study_lib.data.formats.cxi import DETECTOR, SOURCE, TRANSLATION, write_cxi
from study_lib.data.hdf5 import is_hdf5, new_hdf5, open_hdf5
from study_lib.errors import InputError

DATA = f"{DETECTOR}/data"


@pytest.fixture
def scan(tmp_path, acquisition):
    """A CXI file that can be imported, open for harm."""
    path = tmp_path / "scan.cxi"
    write_cxi(path, acquisition)
    return path


def replaced(file, name, **dataset):
    """Put another data set in the place of one."""
    del file[name]
    return file.create_dataset(name, **dataset)


def external_link(file):
    del file[DATA]
    file[DATA] = h5py.ExternalLink("secret.h5", "/data")


def linked_group(file):
    del file[DETECTOR]
    file[DETECTOR] = h5py.ExternalLink("secret.h5", "/")


def external_values(file):
    replaced(file, DATA, shape=(5, 16, 16), dtype="f4", external=[("secret.raw", 0, 5120)])


def virtual(file):
    layout = h5py.VirtualLayout(shape=(5, 16, 16), dtype="f4")
    layout[:] = h5py.VirtualSource("secret.h5", "data", shape=(5, 16, 16))
    del file[DATA]
    file.create_virtual_dataset(DATA, layout)


def circle(file):
    del file[DATA]
    file[DATA] = h5py.SoftLink(DATA)


def giant(file):
    replaced(file, DATA, shape=(10**6, 10**4, 10**4), dtype="f4", chunks=(1, 100, 100))


def hollow(file):
    replaced(file, DATA, shape=(5, 1024, 1024), dtype="f4", chunks=(1, 64, 64))


def bomb(file):
    zeros = np.zeros((5, 1024, 1024), np.float32)
    replaced(file, DATA, data=zeros, compression="gzip", compression_opts=9, chunks=zeros.shape)


def words(file):
    replaced(file, DATA, data=["a", "b"])


def references(file):
    replaced(file, DATA, data=[file["entry_1"].ref], dtype=h5py.ref_dtype)


def group(file):
    del file[DATA]
    file.create_group(DATA)


def empty(file):
    replaced(file, DATA, data=h5py.Empty("f4"))


def no_translation(file):
    del file[TRANSLATION]


def two_energies(file):
    replaced(file, f"{SOURCE}/energy", data=[1.0, 2.0])


def infinite_distance(file):
    replaced(file, f"{DETECTOR}/distance", data=np.inf)


HARMS = {
    external_link: r"data: a link to another file, 'secret.h5', is not followed; copy the data",
    linked_group: r"detector_1: a link to another file, 'secret.h5', is not followed",
    external_values: r"data: its values lie in other files that are no HDF5; copy them",
    virtual: r"lie in other files; one of them, 'secret.h5', is not followed; .*--allow-links",
    circle: r"data: links lead in a circle",
    giant: r"data: with it the file takes 372529.0 GiB, this process may use [\d.]+ GiB; cut",
    hollow: r"data: declares 20 MiB and stores 0 bytes; values must be there",
    bomb: r"data: declares 20 MiB and stores 20\d+ bytes",
    words: r"data: found type object; save an array of numbers",
    references: r"data: found type object; save an array of numbers",
    group: r"data: found a group; save an array of numbers",
    empty: r"data: found type float32; save an array of numbers",
    no_translation: r"translation: found nothing \(the file has cxi_version, entry_1, number_of",
    two_energies: r"energy: found 2 values; save one finite number",
    infinite_distance: r"distance: found 1 values; save one finite number",
}


@pytest.mark.parametrize(("harm", "message"), HARMS.items(), ids=[harm.__name__ for harm in HARMS])
def test_a_hostile_file_is_refused_by_the_command(study, scan, harm, message):
    with h5py.File(scan, "a") as file:
        harm(file)

    code, _, error = study("import", "scan.cxi", "base.npz")

    assert code == 2, error
    assert error.startswith("study: scan.cxi: ")
    assert len(error.splitlines()) == 1
    assert re.search(message, error)
    assert [path.name for path in Path.cwd().iterdir()] == ["scan.cxi"]


@pytest.mark.parametrize("kept", [0.1, 0.5, 0.9, 0.999])
def test_a_truncated_file_is_refused(scan, kept):
    os.truncate(scan, int(kept * scan.stat().st_size))

    with pytest.raises(InputError, match=r"scan.cxi: .*damaged"), open_hdf5(scan) as file:
        file.array(DATA)


@pytest.mark.parametrize("seed", range(20))
def test_flipped_bytes_never_end_in_another_error(scan, seed):
    """Either what was read is an array, or the message is ours."""
    content = bytearray(scan.read_bytes())
    random = np.random.default_rng(seed)
    for place in random.integers(0, len(content), 40):
        content[place] ^= 0xFF
    scan.write_bytes(content)

    with contextlib.suppress(InputError), open_hdf5(scan) as file:  # refusing is right
        assert isinstance(file.array(DATA), np.ndarray)


def test_links_inside_the_file_are_followed(scan, acquisition):
    with h5py.File(scan, "a") as file:
        file["alias"] = h5py.SoftLink(DETECTOR)

    with open_hdf5(scan) as file:
        np.testing.assert_array_equal(file.array("alias/data"), acquisition.counts())
        np.testing.assert_array_equal(file.array("entry_1/data_1/data"), acquisition.counts())
        assert "nowhere/at/all" not in file


def test_a_file_that_is_not_there_or_not_hdf5_is_refused(tmp_path):
    (tmp_path / "text.h5").write_text("not an archive")

    with (
        pytest.raises(InputError, match=r"absent.h5: no such file"),
        open_hdf5(tmp_path / "absent.h5"),
    ):
        pytest.fail("it was opened")
    with pytest.raises(InputError, match="not an HDF5 file"), open_hdf5(tmp_path / "text.h5"):
        pytest.fail("it was opened")
    assert not is_hdf5(tmp_path / "text.h5")
    assert not is_hdf5(tmp_path / "absent.h5")


def test_a_file_is_whole_or_absent(tmp_path):
    def fail():
        with new_hdf5(tmp_path / "a.h5") as file:
            file["x"] = 1
            raise RuntimeError("out of beam")

    with pytest.raises(RuntimeError, match="out of beam"):
        fail()

    assert list(tmp_path.iterdir()) == []


def test_all_arrays_of_a_file_share_one_budget(tmp_path, monkeypatch):
    monkeypatch.setattr(hdf5_files, "memory_bytes", lambda: 176)
    with new_hdf5(tmp_path / "a.h5") as file:
        file["ten"], file["eleven"], file["two"] = np.ones(10), np.ones(11), np.ones(2)

    with open_hdf5(tmp_path / "a.h5") as file:
        for _ in range(3):
            np.testing.assert_array_equal(file.array("ten"), np.ones(10))
        assert file.shape("eleven") == (11,)
        with pytest.raises(InputError, match=r"two: with it the file takes 0\.0 GiB, this process"):
            file.shape("two")


def test_odd_types_and_odd_names_are_refused_and_not_raised(tmp_path):
    """Times have no numpy type; a name may be bytes that are no text."""
    with h5py.File(tmp_path / "a.h5", "w") as file:
        space = h5py.h5s.create_simple((3,))
        h5py.h5d.create(file.id, b"time", h5py.h5t.UNIX_D32LE, space)
        h5py.h5g.create(file.id, b"\xff\xfe")
        file["x"] = 1.0

    with open_hdf5(tmp_path / "a.h5") as file:
        assert file.names("/") == ["time", "x"]
        with pytest.raises(InputError, match=r"time: damaged \(No NumPy equivalent"):
            file.array("time")
        with pytest.raises(InputError, match=r"probe: found nothing \(the file has time, x\)"):
            file.array("probe")


@pytest.mark.parametrize("shape", [(), (4,), (0, 4), (2,) * 9])
def test_the_number_of_axes_is_checked_before_reading(tmp_path, shape):
    with new_hdf5(tmp_path / "a.h5") as file:
        file["image"] = np.ones(shape)

    with open_hdf5(tmp_path / "a.h5") as file:
        assert file.shape("image") == shape
        with pytest.raises(InputError, match=r"found shape .*; expected 2 or more axes, none"):
            file.array("image", ranks=hdf5_files.IMAGE_RANKS)


# --- Filters, permissions, links that are allowed


@pytest.mark.parametrize("packing", ["Bitshuffle", "LZ4", "Zstd", "Blosc"])
def test_what_detectors_pack_by_is_unpacked(packing, study, scan, acquisition):
    with h5py.File(scan, "a") as file:
        options = getattr(hdf5plugin, packing)()
        replaced(file, DATA, data=acquisition.counts(), chunks=(1, 16, 16), compression=options)

    code, _, error = study("import", "scan.cxi", "base.npz")

    assert code == 0, error
    found = load_dataset(Path("base.npz"))[0]["diffraction"]
    np.testing.assert_array_equal(found, acquisition.amplitudes)


def test_an_unknown_filter_is_named_with_what_to_do_and_not_called_damage(study, scan):
    """The number is written into the file in the place of one that is known."""
    with h5py.File(scan, "a") as file:
        values = np.arange(1280, dtype=np.float32).reshape(5, 16, 16)
        replaced(file, DATA, data=values, compression=hdf5plugin.Zstd())
    known, unknown = (number.to_bytes(2, "little") for number in (32015, 32099))
    content = scan.read_bytes()
    assert known in content
    scan.write_bytes(content.replace(known, unknown))

    code, _, error = study("import", "scan.cxi", "base.npz")

    assert code == 2
    assert "packed by filter 32099" in error
    assert "which is not installed here; the file is not damaged" in error
    assert "h5repack" in error


def test_a_file_that_may_not_be_read_is_not_called_damaged(tmp_path, monkeypatch):
    path = tmp_path / "a.h5"
    path.write_bytes(b"\x89HDF\r\n\x1a\n")
    monkeypatch.setattr(hdf5_files.h5py, "File", Mock(side_effect=PermissionError(13, "no")))

    with (
        pytest.raises(InputError, match="this user may not read it; ask its owner"),
        open_hdf5(path),
    ):
        pytest.fail("it was opened")


def test_a_disk_that_fails_is_not_called_damage(tmp_path, monkeypatch):
    path = tmp_path / "a.h5"
    path.write_bytes(b"\x89HDF\r\n\x1a\n")
    monkeypatch.setattr(hdf5_files.h5py, "File", Mock(side_effect=OSError(5, "I/O error")))

    with pytest.raises(InputError, match=r"cannot be read .*try again"), open_hdf5(path):
        pytest.fail("it was opened")


def test_allowed_links_lead_from_file_to_file_and_not_in_a_circle(tmp_path):
    for name, other in (("a.h5", "b.h5"), ("b.h5", "a.h5")):
        with h5py.File(tmp_path / name, "w") as file:
            file["values"] = np.arange(3.0)
            file["next"] = h5py.ExternalLink(other, "/values")
            file["circle"] = h5py.ExternalLink(other, "/circle")

    with open_hdf5(tmp_path / "a.h5", tmp_path) as file:
        np.testing.assert_array_equal(file.array("next"), np.arange(3.0))
        with pytest.raises(InputError, match="links lead in a circle"):
            file.array("circle")


def test_a_virtual_data_set_may_not_reach_by_its_source_what_a_link_may_not(tmp_path):
    """The source is a link of the allowed file to one outside: HDF5 itself would follow it."""
    allowed = tmp_path / "allowed"
    allowed.mkdir()
    with h5py.File(tmp_path / "secret.h5", "w") as file:
        file["values"] = np.arange(3.0)
    with h5py.File(allowed / "middle.h5", "w") as file:
        file["values"] = h5py.ExternalLink("../secret.h5", "/values")
    layout = h5py.VirtualLayout((3,), "f8")
    layout[:] = h5py.VirtualSource("middle.h5", "values", (3,))
    with h5py.File(allowed / "a.h5", "w") as file:
        file.create_virtual_dataset("virtual", layout)

    with (
        open_hdf5(allowed / "a.h5", allowed) as file,
        pytest.raises(InputError, match=r"secret.h5, outside"),
    ):
        file.array("virtual")
