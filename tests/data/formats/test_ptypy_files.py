"""Prepared data of ptypy: chunks in order, keV, (y, x) in metres, weights as a mask."""

import h5py
import numpy as np
import pytest

from study_lib.data.formats.acquisition import ReadChoices
from study_lib.data.formats.geometry import PLANCK_TIMES_LIGHT_EV_M
from study_lib.data.formats.ptypy import read_ptyd
from study_lib.errors import InputError

PIXEL_M = PLANCK_TIMES_LIGHT_EV_M / 6200 * 7.0 / (16 * 172e-6)


@pytest.fixture
def counts(rng):
    patterns = rng.poisson(3, (7, 16, 16)).astype(np.int32)
    patterns[:, 8, 8] = 900
    return patterns


@pytest.fixture
def scan(tmp_path, counts):
    """Two chunks, the second written first, with a gap in the indices."""
    path = tmp_path / "sample.ptyd"
    positions = np.stack([np.arange(7.0), 3 * np.arange(7.0)], axis=1) * PIXEL_M
    with h5py.File(path, "w") as file:
        for name, value in {
            "version": "0.1",
            "num_frames": 7,
            "label": "MF",
            "shape": [16, 16],
            "energy": 6.2,
            "distance": 7.0,
            "center": [8.0, 8.0],
            "psize": [172e-6, 172e-6],
        }.items():
            file[f"meta/{name}"] = value
        for name, part, first in (("1", slice(4, 7), 5), ("0", slice(0, 4), 0)):
            length = part.stop - part.start
            file[f"chunks/{name}/data"] = counts[part]
            file[f"chunks/{name}/indices"] = np.arange(length) + first
            file[f"chunks/{name}/positions"] = positions[part]
            file[f"chunks/{name}/weights"] = np.empty(0)
    return path


def put(path, name, values):
    with h5py.File(path, "a") as file:
        if name in file:
            del file[name]
        if values is not None:
            file[name] = values


def read(path, **choices):
    return read_ptyd(path, ReadChoices(**choices))


def test_chunks_come_in_the_order_of_their_indices(scan, counts):
    found = read(scan)

    np.testing.assert_array_equal(found.counts(), counts)
    np.testing.assert_array_equal(found.scan_index, [0, 1, 2, 3, 5, 6, 7])
    expected = np.stack([np.arange(7.0), 3 * np.arange(7.0)], axis=1)
    np.testing.assert_allclose(found.positions_px, expected, rtol=1e-9)
    assert found.probe is None
    assert found.object_ is None


def test_a_chunk_that_came_late_takes_its_place(scan, counts):
    put(scan, "chunks/0/indices", [9, 12, 10, 11])

    found = read(scan)

    np.testing.assert_array_equal(found.scan_index, [5, 6, 7, 9, 10, 11, 12])
    np.testing.assert_array_equal(found.counts(), counts[[4, 5, 6, 0, 2, 3, 1]])
    np.testing.assert_allclose(found.positions_px[:, 0], [4, 5, 6, 0, 2, 3, 1], atol=1e-9)


def test_energy_is_in_kev(scan):
    geometry = read(scan).geometry

    assert geometry.photon_energy_ev == pytest.approx(6200)
    assert geometry.detector_distance_m == 7.0
    assert geometry.detector_pixel_m == 172e-6


def test_one_pixel_size_stands_for_both(scan):
    put(scan, "meta/psize", 172e-6)

    assert read(scan).geometry.detector_pixel_m == 172e-6


def test_a_pixel_without_weight_is_bad_in_its_frame_alone(scan, counts):
    weights = np.ones((4, 16, 16))
    weights[2, 3, 5] = 0
    put(scan, "chunks/0/weights", weights)

    found = read(scan)

    assert np.argwhere(found.bad_pixels).tolist() == [[2, 3, 5]]
    others = np.delete(np.arange(7), 2)
    np.testing.assert_array_equal(found.counts()[others], counts[others])


def test_a_pixel_that_no_frame_weighs_is_bad_in_all(scan):
    weights = np.ones((16, 16))
    weights[3, 5] = 0
    for name, frames in (("0", 4), ("1", 3)):
        put(scan, f"chunks/{name}/weights", np.broadcast_to(weights, (frames, 16, 16)))

    assert np.argwhere(read(scan).bad_pixels).tolist() == [[3, 5]]


def test_the_common_weight_stands_where_chunks_have_none(scan):
    weight = np.ones((16, 16))
    weight[1, 2] = 0
    put(scan, "meta/weight2d", weight)

    assert np.argwhere(read(scan).bad_pixels).tolist() == [[1, 2]]


def test_frames_without_position_are_dropped_only_if_asked(scan):
    positions = np.zeros((4, 2))
    positions[1] = np.nan
    put(scan, "chunks/0/positions", positions)

    with pytest.raises(InputError, match="positions that are no numbers at index 1; mend"):
        read(scan)
    np.testing.assert_array_equal(read(scan, drop_bad_frames=True).scan_index, [0, 2, 3, 5, 6, 7])


@pytest.mark.parametrize(
    ("name", "values", "message"),
    [
        ("chunks", None, "chunks: found nothing"),
        ("meta/energy", None, "the pixel of the object is not known; give"),
        ("meta/energy", 1e-310, r"energy: found 1e-310, which is 1e-307 eV; .* energy in keV"),
        ("meta/energy", 6200.0, r"found 6200, which is 6.2e.06 eV; allowed are 10 to 1e.06 eV"),
        ("meta/distance", -7.0, "meta/distance: found -7; allowed are 0.0001 to 300 m"),
        ("meta/psize", np.nan, "found pixels of nan m"),
        ("meta/psize", [1e-6, 2e-6], "found pixels of 1e-06 x 2e-06 m"),
        ("chunks/0/indices", [5, 6, 7, 8], "an index occurs twice"),
        ("chunks/0/indices", [0, 1], r"indices \(2,\) and positions \(4, 2\) do not belong"),
        ("chunks/0/data", np.ones((4, 8, 8)), "patterns of several shapes"),
    ],
)
def test_what_is_missing_or_wrong_is_said(scan, name, values, message):
    put(scan, name, values)

    with pytest.raises(InputError, match=message):
        read(scan)


def test_chunks_in_other_files_are_refused(scan):
    """ptypy can save every chunk in a file of its own and link it."""
    with h5py.File(scan, "a") as file:
        del file["chunks/0"]
        file["chunks/0"] = h5py.ExternalLink("sample.ptyd.part000", "/")

    with pytest.raises(InputError, match=r"a link to another file, 'sample.ptyd.part000'"):
        read(scan)
