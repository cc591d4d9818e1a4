"""Several scans in a file, NXmx masters and their links, PtyLab, stacks, and what is not read."""

import bz2
import re

import h5py
import numpy as np
import pytest
from scipy.io import savemat
from simulated_scan import (
    DETECTOR_PIXEL_M,
    DISTANCE_M,
    ENERGY_EV,
    PIXEL_M,
    SIDE,
    Scan,
)
from skimage.io import imsave

from study_lib.data.contract import load_dataset

WAVELENGTH_M = 1.239841984332003e-6 / ENERGY_EV


@pytest.fixture(scope="module")
def scan():
    return Scan()


@pytest.fixture
def refused(study, tmp_path):
    def call(*words):
        code, _, error = study("import", *words)
        assert code == 2, error
        assert not (tmp_path / "base.npz").exists()
        return error

    return call


@pytest.fixture
def reconstructed(study, tmp_path, scan):
    """Import what has no object; the model found has to explain the counts to their noise."""

    def call(*words):
        code, out, error = study("import", *words)
        assert code == 0, out + error
        assert scan.r_of(tmp_path / "base.npz") < scan.noise_r()
        return *load_dataset(tmp_path / "base.npz"), out + error

    return call


# --- Entries


def part_of(scan, kept):
    """A scan of some of the positions."""
    part = Scan()
    part.positions, part.counts = scan.positions[kept], scan.counts[kept]
    return part


def test_a_file_with_several_scans_lists_them_and_reads_the_one_that_is_named(
    scan, refused, study, tmp_path
):
    part_of(scan, np.s_[:60]).write_cxi(tmp_path / "scans.cxi", "entry_1")
    scan.write_cxi(tmp_path / "scans.cxi", "entry_2")
    with h5py.File(tmp_path / "scans.cxi", "a") as file:
        file["entry_3/title"] = 1  # no scan

    several = refused("scans.cxi", "base.npz")
    other = refused("scans.cxi", "base.npz", "--entry", "entry_3")
    code, out, error = study("import", "scans.cxi", "base.npz", "--entry", "entry_2")

    assert "found 2 scans, entry_1, entry_2; say which with --entry NAME" in several
    assert "--entry entry_3: found entry_1, entry_2; choose one" in other
    assert code == 0, out + error
    assert len(load_dataset(tmp_path / "base.npz")[0]["diffraction"]) == 120


def test_scans_of_one_object_are_one_scan(scan, reconstructed, tmp_path):
    part_of(scan, np.s_[:70]).write_cxi(tmp_path / "scans.cxi", "entry_1", images=False)
    part_of(scan, np.s_[70:]).write_cxi(tmp_path / "scans.cxi", "entry_2", images=False)

    arrays, _, said = reconstructed("scans.cxi", "base.npz", "--entry", "all")

    np.testing.assert_array_equal(arrays["scan_index"], np.arange(120))
    shift = arrays["ycoords"] - scan.positions[:, 0]
    np.testing.assert_allclose(shift, shift[0], atol=1e-9)
    assert "2 scans were merged: entry_1, entry_2" in said


def test_masks_of_merged_scans_are_those_of_their_frames(scan, study, tmp_path):
    masks = np.zeros((2, SIDE, SIDE), np.uint32)
    masks[0, 1, 2] = masks[1, 3, 4] = 1
    for number, kept in enumerate((np.s_[:70], np.s_[70:])):
        part_of(scan, kept).write_cxi(
            tmp_path / "scans.cxi", f"entry_{number + 1}", images=False, mask=masks[number]
        )

    code, out, error = study("import", "scans.cxi", "base.npz", "--entry", "all")

    assert code == 0, out + error
    expected = np.repeat(masks > 0, [70, 50], axis=0)
    np.testing.assert_array_equal(load_dataset(tmp_path / "base.npz")[0]["bad_pixels"], expected)


def test_scans_that_differ_are_not_merged(scan, refused, tmp_path):
    scan.write_cxi(tmp_path / "scans.cxi", "entry_1")
    scan.write_cxi(tmp_path / "scans.cxi", "entry_2", distance=1.0)

    assert "differ in their frames or lengths" in refused("scans.cxi", "base.npz", "--entry", "all")


# --- NXmx


def write_master(folder, scan, links_to="frames/{}.h5"):
    """Write a master file and two files of frames; return the table of positions."""
    (folder / "frames").mkdir()
    halves = (scan.counts[:70], scan.counts[70:])
    with h5py.File(folder / "master.h5", "w") as file:
        detector = file.create_group("entry/instrument/detector")
        detector["detector_distance"] = DISTANCE_M * 1e3
        detector["detector_distance"].attrs["units"] = "mm"
        detector["x_pixel_size"] = detector["y_pixel_size"] = DETECTOR_PIXEL_M
        mask = np.zeros((SIDE, SIDE), np.uint32)
        mask[0, 5] = 1
        file["entry/instrument/detector/detectorSpecific/pixel_mask"] = mask
        file["entry/instrument/beam/incident_wavelength"] = WAVELENGTH_M * 1e10
        for number, frames in enumerate(halves, start=1):
            name = links_to.format(number)
            link = h5py.ExternalLink(name, "/entry/data/data")
            file[f"entry/data/data_{number:06}"] = link
            with h5py.File(folder / "frames" / f"{number}.h5", "w") as other:
                other["entry/data/data"] = frames
    lines = [f"{y},{x}" for y, x in scan.positions * PIXEL_M * 1e6]
    (folder / "positions.csv").write_text("\n".join(["y_um,x_um", *lines]))


def test_a_master_file_is_read_with_its_links_and_positions_beside(scan, reconstructed, tmp_path):
    write_master(tmp_path, scan)
    positions = ["--positions", "positions.csv", "--position-unit", "um"]

    arrays, metadata, _ = reconstructed(
        "master.h5", "base.npz", *positions, "--allow-links", "frames"
    )

    assert np.argwhere(arrays["bad_pixels"]).tolist() == [[0, 5]]
    assert metadata["source_format"] == "nxmx"
    assert metadata["geometry"]["photon_energy_ev"] == pytest.approx(ENERGY_EV)
    assert metadata["geometry"]["detector_distance_m"] == pytest.approx(DISTANCE_M)


def test_a_master_file_says_what_it_needs(scan, refused, tmp_path):
    write_master(tmp_path, scan)
    np.save(tmp_path / "few.npy", scan.positions[:9])
    words = ["master.h5", "base.npz"]

    without_positions = refused(*words)
    without_unit = refused(*words, "--positions", "positions.csv")
    positions = ["--positions", "positions.csv", "--position-unit", "um"]
    without_links = refused(*words, *positions)
    few = refused(
        *words, "--positions", "few.npy", "--position-unit", "px", "--allow-links", "frames"
    )

    assert "has no positions; give them with --positions FILE" in without_positions
    assert "say in what they are, --position-unit m, um, nm or px" in without_unit
    assert "'frames/1.h5', is not followed; copy the data into this file" in without_links
    assert "--allow-links FOLDER" in without_links
    assert "found 120 frames, and 9 positions in few.npy" in few


@pytest.mark.parametrize("how", ["parent", "absolute", "symbolic link"])
def test_links_out_of_the_allowed_folder_are_refused(how, scan, refused, tmp_path):
    names = {"parent": "frames/../secret/{}.h5", "absolute": f"{tmp_path}/secret/{{}}.h5"}
    write_master(tmp_path, scan, names.get(how, "frames/link/{}.h5"))
    (tmp_path / "secret").mkdir()
    for number in (1, 2):
        (tmp_path / "frames" / f"{number}.h5").rename(tmp_path / "secret" / f"{number}.h5")
    (tmp_path / "frames" / "link").symlink_to(tmp_path / "secret")
    positions = ["--positions", "positions.csv", "--position-unit", "um"]

    error = refused("master.h5", "base.npz", *positions, "--allow-links", "frames")

    assert "secret/1.h5, outside" in error
    assert "--allow-links FOLDER" in error


def test_virtual_data_sets_are_read_if_all_their_sources_may_be(scan, refused, study, tmp_path):
    scan.write_cxi(tmp_path / "scan.cxi")
    (tmp_path / "frames").mkdir()
    layout = h5py.VirtualLayout(scan.counts.shape, scan.counts.dtype)
    for number, part in enumerate((slice(0, 70), slice(70, 120))):
        with h5py.File(tmp_path / "frames" / f"{number}.h5", "w") as file:
            file["data"] = scan.counts[part]
            source = h5py.VirtualSource(f"frames/{number}.h5", "data", file["data"].shape)
        layout[part] = source
    with h5py.File(tmp_path / "scan.cxi", "a") as file:
        del file["entry_1/instrument_1/detector_1/data"]
        file.create_virtual_dataset("entry_1/instrument_1/detector_1/data", layout)
    words = ["scan.cxi", "base.npz", "--allow-links", "frames"]

    (tmp_path / "frames" / "1.h5").rename(tmp_path / "1.h5")
    missing = refused(*words)
    (tmp_path / "frames" / "1.h5").symlink_to(tmp_path / "1.h5")
    escaping = refused(*words)
    (tmp_path / "frames" / "1.h5").unlink()
    (tmp_path / "1.h5").rename(tmp_path / "frames" / "1.h5")
    code, out, error = study("import", *words)

    assert "leads to nothing; put the file there" in missing
    assert "1.h5, outside" in escaping
    assert code == 0, out + error
    found = load_dataset(tmp_path / "base.npz")[0]["diffraction"] ** 2
    np.testing.assert_allclose(found, scan.counts, rtol=1e-6)


# --- PtyLab and stacks


def test_an_input_file_of_ptylab_is_read(scan, reconstructed, tmp_path):
    with h5py.File(tmp_path / "ptylab.hdf5", "w") as file:
        file["ptychogram"], file["encoder"] = scan.counts, (scan.positions - 40) * PIXEL_M
        file["wavelength"], file["zo"], file["dxd"] = WAVELENGTH_M, DISTANCE_M, DETECTOR_PIXEL_M
        file["entrancePupilDiameter"] = 1e-6

    _, metadata, _ = reconstructed("ptylab.hdf5", "base.npz")

    assert metadata["source_format"] == "ptylab"


@pytest.mark.parametrize("kind", ["tif", "npy"])
def test_a_stack_of_frames_is_read_with_positions_beside(kind, scan, reconstructed, tmp_path):
    path = tmp_path / f"frames.{kind}"
    if kind == "tif":
        imsave(path, scan.counts, check_contrast=False)
    else:
        np.save(path, scan.counts)
    np.savetxt(tmp_path / "positions.txt", scan.positions)
    positions = ["--positions", "positions.txt", "--position-unit", "px", "--domain", "counts"]

    _, metadata, _ = reconstructed(path.name, "base.npz", *positions)

    assert metadata["source_format"] == "stack"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("y,x\n1,2,3\n4,5\n", "no table of numbers"),
        ("1,2,3\n4,5,6\n", "found shape (2, 3); expected (scan, 2), row and column"),
        ("x,y\n1,2\n", "found 120 patterns and 1 positions; give one position"),
    ],
)
def test_a_table_of_positions_that_does_not_fit_is_refused(text, message, scan, refused, tmp_path):
    np.save(tmp_path / "frames.npy", scan.counts)
    (tmp_path / "positions.csv").write_text(text)
    words = ["--positions", "positions.csv", "--position-unit", "px", "--domain", "counts"]

    assert message in refused("frames.npy", "base.npz", *words)


# --- Recognised, and what to do


def write_matlab_7(path):
    with h5py.File(path, "w", userblock_size=512) as file:
        file["dp"] = np.zeros((4, 4))
    content = path.read_bytes()
    path.write_bytes(b"MATLAB 7.3 MAT-file".ljust(512) + content[512:])


def write_ptyr(path):
    with h5py.File(path, "w") as file:
        file["content/obj/S00/data"] = file["content/probe/S00/data"] = np.ones((1, 4, 4))


OTHERS = {
    "scan.mat": (
        lambda path: savemat(path, {"dp": np.zeros((4, 4))}),
        "a MATLAB file, .*numpy.savez",
    ),
    "scan7.mat": (write_matlab_7, "a MATLAB file, .*h5py"),
    "scan7.h5": (write_matlab_7, "a MATLAB file"),
    "scan.ptyr": (write_ptyr, "a reconstruction of ptypy, without the patterns .* give .* .ptyd"),
    "scan.tif": (
        lambda path: imsave(path, np.zeros((3, 4, 4), np.uint16), check_contrast=False),
        "give --positions FILE .* --position-unit m, um, nm or px, and --domain counts",
    ),
}


@pytest.mark.parametrize("name", OTHERS)
def test_other_files_are_recognised_and_it_is_said_what_to_do(name, refused, tmp_path):
    write, message = OTHERS[name]
    write(tmp_path / name)

    error = refused(name, "base.npz")

    assert re.search(message, error), error


@pytest.mark.parametrize("name", ["scan.npz.bz2", "scan.cxi"])
def test_measured_data_given_as_base_data_are_named_so(name, scan, study, tmp_path):
    if name.endswith("cxi"):
        scan.write_cxi(tmp_path / name)
    else:
        (tmp_path / name).write_bytes(bz2.compress(b"anything"))

    code, _, error = study("validate", name, "--base")

    assert code == 2
    assert "measured data become a data set by `study import`" in error
