"""CXI: units, signs and masks are those of the standard, whichever way the detector is turned."""

from dataclasses import replace

import h5py
import numpy as np
import pytest

from study_lib.data.formats.acquisition import ReadChoices
from study_lib.data.formats.cxi import (
    DETECTOR,
    ENTRY,
    EXTENSION,
    SOURCE,
    TRANSLATION,
    read_cxi,
    write_cxi,
)
from study_lib.errors import InputError


@pytest.fixture
def scan(tmp_path, acquisition):
    path = tmp_path / "scan.cxi"
    write_cxi(path, acquisition)
    return path


def changed(path, **content):
    """Put other values in a file; None removes them."""
    with h5py.File(path, "a") as file:
        for name, value in content.items():
            place = {"translation": TRANSLATION, "energy": f"{SOURCE}/energy"}.get(
                name, f"{DETECTOR}/{name}"
            )
            if place in file:
                del file[place]
            if value is not None:
                file[place] = value
    return path


def test_units_are_si_and_classes_are_those_of_nexus(scan, acquisition):
    with h5py.File(scan) as file:
        assert file["cxi_version"][()] == 160
        assert file[f"{SOURCE}/energy"][()] == pytest.approx(8000 * 1.602176634e-19)
        assert file[f"{SOURCE}/wavelength"][()] == pytest.approx(1.5498e-10, rel=1e-4)
        assert file[f"{DETECTOR}/x_pixel_size"][()] == 75e-6
        assert file[ENTRY].attrs["NX_class"] == "NXentry"
        assert file[DETECTOR].attrs["NX_class"] == "NXdetector"
        assert file[f"{DETECTOR}/mask"][2, 13] == 1
        assert file[f"{DETECTOR}/mask"][()].sum() == 1
        np.testing.assert_array_equal(file[f"{ENTRY}/data_1/data"], acquisition.counts())


def test_translations_are_x_y_z_of_the_sample(scan, acquisition):
    """Towards higher rows the sample moves up, +y; towards higher columns along +x."""
    with h5py.File(scan) as file:
        moved = np.diff(file[TRANSLATION][()], axis=0)
    steps = np.diff(acquisition.positions_px, axis=0) * acquisition.geometry.pixel_of_object_m(16)

    np.testing.assert_allclose(moved[:, 1], steps[:, 0], rtol=1e-9)
    np.testing.assert_allclose(moved[:, 0], steps[:, 1], rtol=1e-9)
    assert (moved[:, 2] == 0).all()


@pytest.mark.parametrize(
    ("basis", "signs"),
    [
        ([[0, -1], [-1, 0], [0, 0]], [1, 1]),
        ([[0, 1], [-1, 0], [0, 0]], [1, -1]),
        ([[0, -1], [1, 0], [0, 0]], [-1, 1]),
    ],
)
def test_the_detector_says_which_way_rows_and_columns_run(tmp_path, acquisition, basis, signs):
    bare = replace(acquisition, object_=None, probe=None)
    path = tmp_path / "scan.cxi"
    write_cxi(path, bare)
    changed(path, basis_vectors=75e-6 * np.array(basis))

    found = read_cxi(path, ReadChoices())

    np.testing.assert_allclose(found.positions_px, bare.positions_px * signs, rtol=1e-9)


@pytest.mark.parametrize("sign_y", [-1, 1])
@pytest.mark.parametrize("sign_x", [-1, 1])
def test_the_centre_of_the_object_moves_with_the_translations(scan, sign_y, sign_x):
    """Both are in one frame: moving them alike moves no patch, however the detector is turned."""
    basis = 75e-6 * np.array([[0, sign_x], [sign_y, 0], [0, 0]])
    at_zero = read_cxi(changed(scan, basis_vectors=basis), ReadChoices())
    with h5py.File(scan, "a") as file:
        translation = file[TRANSLATION][()] + [3e-6, -2e-6, 0]
        file[f"{EXTENSION}/object_center_x_m"][...] = 3e-6
        file[f"{EXTENSION}/object_center_y_m"][...] = -2e-6
    moved = read_cxi(changed(scan, translation=translation), ReadChoices())

    np.testing.assert_allclose(moved.positions_px, at_zero.positions_px, rtol=0, atol=1e-6)


def test_basis_vectors_may_lie_the_other_way_or_be_missing(scan, acquisition):
    transposed = changed(scan, basis_vectors=75e-6 * np.array([[0, -1, 0], [-1, 0, 0.0]]))
    first = read_cxi(transposed, ReadChoices())
    second = read_cxi(changed(scan, basis_vectors=None), ReadChoices())

    np.testing.assert_allclose(first.positions_px, acquisition.positions_px, atol=1e-9)
    np.testing.assert_allclose(second.positions_px, acquisition.positions_px, atol=1e-9)


def test_a_pixel_with_signal_above_background_is_good(scan):
    mask = np.zeros((16, 16), np.uint32)
    mask[1, 2], mask[3, 4] = 0x1000, 0x1001

    found = read_cxi(changed(scan, mask=mask), ReadChoices())

    assert np.argwhere(found.bad_pixels).tolist() == [[3, 4]]


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ({"distance": -1.5}, "distance: found -1.5; allowed are 0.0001 to 300 m; lengths are"),
        ({"distance": 0.0}, "distance: found 0; allowed are 0.0001 to 300 m"),
        (
            {"energy": 8000.0},
            r"energy: found 8000, which is 4.\d+e.22 eV; allowed are 10 to 1e.06 eV; CXI keeps "
            "energy in joule",
        ),
        (
            {"distance": None},
            "the positions are lengths .m. and the pixel of the object is not known",
        ),
        ({"y_pixel_size": 50e-6}, "found pixels of 5e-05 x 7.5e-05 m"),
        ({"x_pixel_size": -75e-6, "y_pixel_size": -75e-6}, "square pixels of a positive size"),
        ({"translation": np.zeros((5, 2))}, r"translation: found shape \(5, 2\); give \(scan, 3\)"),
        ({"translation": np.zeros((4, 3))}, "found 5 patterns and 4 positions"),
        ({"translation": np.full((5, 3), np.nan)}, "positions that are no numbers at index 3, 4"),
        ({"basis_vectors": np.zeros((3, 2))}, r"basis_vectors: found shape \(3, 2\); give two"),
        ({"mask": np.zeros((8, 8), np.uint32)}, r"bad pixels: found shape \(8, 8\)"),
        ({"data": np.ones((5, 16))}, r"data: found shape \(5, 16\); expected 3 axes"),
    ],
)
def test_what_is_missing_or_wrong_is_said(scan, content, message):
    with pytest.raises(InputError, match=message):
        read_cxi(changed(scan, **content), ReadChoices())


@pytest.mark.parametrize("name", ["image_1", "image_2"])
@pytest.mark.parametrize("shape", [(), (5,), (0, 16, 16)])
def test_an_image_without_rows_and_columns_is_refused(scan, name, shape):
    with h5py.File(scan, "a") as file:
        del file[f"{ENTRY}/{name}/data"]
        file[f"{ENTRY}/{name}/data"] = np.ones(shape, np.complex64)

    with pytest.raises(InputError, match=rf"{name}/data: found shape .*; expected 2 or more axes"):
        read_cxi(scan, ReadChoices())
