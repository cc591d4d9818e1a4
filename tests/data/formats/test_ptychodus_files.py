"""Ptychodus' files: pairs by index, old names, its origin; what does not fit is refused."""

from dataclasses import replace

import h5py
import numpy as np
import pytest

from study_lib.data.formats.acquisition import ReadChoices
from study_lib.data.formats.ptychodus import patterns_path, read_ptychodus, write_ptychodus
from study_lib.errors import InputError


@pytest.fixture
def product(tmp_path, acquisition):
    write_ptychodus(tmp_path / "scan.h5", acquisition)
    return tmp_path / "scan.h5"


def read(product, patterns=None):
    return read_ptychodus(product, ReadChoices(), patterns)


def put(path, name, values):
    """Put another data set in the place of one, with its attributes."""
    with h5py.File(path, "a") as file:
        attributes = dict(file[name].attrs)
        del file[name]
        file[name] = values
        file[name].attrs.update(attributes)


def test_a_product_alone_has_no_patterns(product, acquisition):
    found = read(product)

    assert found.amplitudes is None
    np.testing.assert_array_equal(found.object_, acquisition.object_)
    np.testing.assert_array_equal(found.scan_index, [3, 4, 7, 8, 12])


def test_patterns_and_positions_are_paired_by_index(product, acquisition):
    """The diffraction file is in another order, lacks frame 7 and has a frame 99."""
    order = [4, 0, 3, 1, 2]
    names = acquisition.scan_index[order]
    names[4] = 99
    put(patterns_path(product), "indexes", names)
    put(patterns_path(product), "patterns", acquisition.counts()[order])

    found = read(product, patterns_path(product))

    np.testing.assert_array_equal(found.scan_index, [3, 4, 8, 12])
    np.testing.assert_array_equal(found.amplitudes, acquisition.amplitudes[[0, 1, 3, 4]])
    np.testing.assert_allclose(
        found.positions_px, acquisition.positions_px[[0, 1, 3, 4]], atol=1e-9
    )
    (record,) = [step for step in found.transformations if "pair" in step["operation"]]
    assert record["parameters"]["patterns_without_position"] == 1


def test_the_centre_of_the_object_may_lie_anywhere(product, acquisition):
    with h5py.File(product, "a") as file:
        file["object"].attrs["center_x_m"], file["object"].attrs["center_y_m"] = 3e-6, -2e-6
        file["probe_position_x_m"][...] += 3e-6
        file["probe_position_y_m"][...] -= 2e-6

    np.testing.assert_allclose(read(product).positions_px, acquisition.positions_px, atol=1e-6)


def test_the_old_name_of_the_energy_is_known(product):
    with h5py.File(product, "a") as file:
        file.attrs["probe_energy_eV"] = file.attrs["photon_energy_eV"]
        del file.attrs["photon_energy_eV"]

    assert read(product).geometry.photon_energy_ev == 8000.0


def test_modes_in_double_precision_come_as_they_are(product, acquisition):
    first = acquisition.probe.astype(np.complex128)
    second = 0.1 * first.T
    second -= (first.conj() * second).sum() / (np.abs(first) ** 2).sum() * first
    put(product, "probe", np.stack([first, second])[None])

    found = read(product)

    np.testing.assert_array_equal(found.probe, np.stack([first, second]).astype(np.complex64))
    assert found.transformations[-1]["operation"] == "convert type"


@pytest.mark.parametrize(
    ("name", "values", "message"),
    [
        ("object", np.ones((2, 40, 36), complex), r"object: found shape \(2, 40, 36\).*thin"),
        ("object", np.ones((1, 40, 36)) * np.nan, r"object: found float64 that is not complex"),
        ("object", np.ones(4, complex), r"object: found shape \(4,\); expected 2 or more axes"),
        ("probe", np.complex64(1), r"probe: found shape \(\); expected 2 or more axes"),
        ("probe_position_indexes", np.arange(4), r"indexes: found shape \(4,\); give 5, one each"),
        ("probe_position_x_m", np.zeros(4), r"found shapes \(5,\) and \(4,\); give one y and"),
        ("probe_position_x_m", np.full(5, np.nan), r"positions that are no numbers at index 3, 4"),
        ("probe", np.ones((1, 1, 16, 12), complex), r"probe: found shape \(1, 1, 16, 12\)"),
    ],
)
def test_what_does_not_fit_is_refused(product, name, values, message):
    put(product, name, values)

    with pytest.raises(InputError, match=message):
        read(product)


@pytest.mark.parametrize(
    ("name", "key", "value", "message"),
    [
        ("object", "pixel_width_m", 1e-9, "the study needs square pixels"),
        ("probe", "pixel_width_m", None, "its pixel is 3.87.*, that of the object 1.93"),
    ],
)
def test_pixels_that_differ_are_refused(product, name, key, value, message):
    with h5py.File(product, "a") as file:
        attributes = file[name].attrs
        for other in [key] if value else ["pixel_width_m", "pixel_height_m"]:
            attributes[other] = value or 2 * attributes[other]

    with pytest.raises(InputError, match=message):
        read(product)


def test_a_product_without_pixels_is_refused(product):
    with h5py.File(product, "a") as file:
        file["object"].attrs.clear()

    with pytest.raises(InputError, match="is not known; give --object-pixel-nm"):
        read(product)


def test_base_data_without_patterns_become_a_product_alone(tmp_path, acquisition):
    write_ptychodus(tmp_path / "base.h5", replace(acquisition, amplitudes=None))

    assert [path.name for path in tmp_path.iterdir()] == ["base.h5"]


@pytest.mark.parametrize(
    ("place", "key", "value", "message"),
    [
        (
            "/",
            "photon_energy_eV",
            8e9,
            r"photon_energy_eV: found 8e.09; allowed are 10 to 1e.06 eV",
        ),
        ("/", "detector_object_distance_m", -1.5, "distance_m: found -1.5; allowed are 0.0001 to"),
        ("object", "pixel_height_m", 1e-30, "object: found pixels of 1e-30 x"),
    ],
)
def test_lengths_that_cannot_be_are_refused(product, place, key, value, message):
    with h5py.File(product, "a") as file:
        file[place].attrs[key] = value

    with pytest.raises(InputError, match=message):
        read(product)


def test_zero_is_what_ptychodus_writes_for_an_unknown_length(product):
    with h5py.File(product, "a") as file:
        file.attrs["detector_object_distance_m"] = 0.0

    assert read(product).geometry.detector_distance_m is None
