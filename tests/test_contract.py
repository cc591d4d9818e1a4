"""DATA-001 holds for what is saved, every breach is reported at once, damage never gets in."""

import json
import re

import numpy as np
import pytest
import torch

from study_lib.contract import check_arrays, load_dataset, read_arrays, save_dataset
from study_lib.errors import InputError
from study_lib.forward import corners_of, patches_at

COUNT, SIDE, OBJECT_SHAPE = 6, 8, (30, 26)


def good_arrays() -> dict[str, np.ndarray]:
    random = np.random.default_rng(0)
    return {
        "diffraction": np.sqrt(random.poisson(3.0, (COUNT, SIDE, SIDE))).astype(np.float32),
        "probeGuess": np.full((SIDE, SIDE), 1 + 2j, dtype=np.complex64),
        "objectGuess": np.ones(OBJECT_SHAPE, dtype=np.complex64),
        "xcoords": random.uniform(4, 21, COUNT),
        "ycoords": random.uniform(4, 25, COUNT),
        "scan_index": np.arange(COUNT, dtype=np.int64),
        "groups": random.integers(0, COUNT, (COUNT, 4)),
    }


def with_value(key: str, index: object, value: float) -> dict[str, np.ndarray]:
    arrays = good_arrays()
    arrays[key][index] = value
    return {key: arrays[key]}


def without(key: str) -> dict[str, np.ndarray]:
    return {name: array for name, array in good_arrays().items() if name != key}


def report_of(changes: dict[str, np.ndarray]) -> list[str]:
    return [str(entry) for entry in check_arrays(good_arrays() | changes).violations]


BREACHES = {
    "wrong rank": ({"diffraction": np.ones((8, 8), np.float32)}, r"diffraction: .*expected 3 axes"),
    "wrong type": ({"ycoords": np.full(COUNT, 9, np.float32)}, r"ycoords: found float32.*float64"),
    "empty": ({"xcoords": np.empty(0)}, r"xcoords: .*at least one value"),
    "not a number": (with_value("objectGuess", (3, 3), np.nan), r"objectGuess: found 1 NaN"),
    "infinite": (with_value("diffraction", 2, np.inf), r"diffraction: found 64 NaN or infinite"),
    "probe not square": ({"probeGuess": np.ones((8, 6), np.complex64)}, r"probeGuess: .*a square"),
    "dark probe": ({"probeGuess": np.zeros((8, 8), np.complex64)}, r"probeGuess: found all zero"),
    "unpaired": ({"ycoords": np.full(5, 9.0)}, r"ycoords: found 5 values; expected 6"),
    "other side": ({"probeGuess": np.ones((10, 10), np.complex64)}, r"expected \(n, 10, 10\)"),
    "too few": ({"diffraction": np.ones((4, 8, 8), np.float32)}, r"found 4 patterns; expected 6"),
    "negative": (with_value("diffraction", 0, -1), r"diffraction: found negative.*sqrt\(counts\)"),
    "outside": (with_value("ycoords", 2, 27.0), r"ycoords: found 1 of 6.*index 2 \(27.0 px\)"),
    "names": ({"scan_index": np.arange(4)}, r"scan_index: found 4 values; expected 6"),
    "group type": ({"groups": np.zeros((6, 4))}, r"groups: found float64; expected int64"),
    "group index": (with_value("groups", (1, 1), 6), r"groups: found indices 0..6; expected 0..5"),
}


@pytest.mark.parametrize(("changes", "message"), BREACHES.values(), ids=BREACHES)
def test_each_breach_is_reported_with_what_was_found_and_expected(changes, message):
    assert any(re.search(message, line) for line in report_of(changes))


@pytest.mark.parametrize("key", ["diffraction", "probeGuess", "objectGuess", "xcoords", "ycoords"])
def test_a_missing_array_is_reported(key):
    (violation,) = check_arrays(without(key)).violations

    assert (violation.key, violation.found) == (key, "nothing")


def test_the_names_of_the_field_are_explained():
    (violation,) = check_arrays(without("diffraction")).violations

    assert violation.remedy == "rename diff3d to diffraction"


def test_all_breaches_are_in_one_report():
    """Wrong values, wrong types and wrong relations, without a second run to find the rest."""
    changes = (
        with_value("diffraction", (0, 0, 0), -1)
        | with_value("ycoords", 0, np.nan)
        | {"xcoords": np.full(COUNT, 90, np.float32)}
    )

    report = check_arrays(good_arrays() | changes)

    assert not report
    assert not report.as_dict()["ok"]
    assert [entry.key for entry in report.violations] == [
        "xcoords",
        "ycoords",
        "diffraction",
        "xcoords",
    ]


def test_good_arrays_have_no_violation():
    report = check_arrays(good_arrays())

    assert report
    assert report.as_dict() == {"ok": True, "violations": []}


def test_contract_and_forward_model_agree_on_which_patches_fit(rng):
    """Also at half pixels, where rounding decides."""
    object_ = torch.ones(OBJECT_SHAPE, dtype=torch.complex64)
    accepted = 0
    for row, column in np.round(rng.uniform(2, 28, (400, 2)) * 4) / 4:
        try:
            patches_at(object_, corners_of(torch.tensor([[row, column]]), SIDE), SIDE)
            fits = True
        except ValueError:
            fits = False
        position = {"ycoords": np.full(COUNT, row), "xcoords": np.full(COUNT, column)}
        assert bool(check_arrays(good_arrays() | position)) == fits
        accepted += fits
    assert 50 < accepted < 350


def test_what_is_saved_is_what_is_loaded(tmp_path):
    path, metadata = tmp_path / "data.npz", {"dose": 1e4, "name": "Zürich"}

    save_dataset(path, good_arrays(), metadata)
    arrays, loaded = load_dataset(path)

    assert loaded == metadata
    assert arrays.keys() == good_arrays().keys()
    for key, expected in good_arrays().items():
        assert arrays[key].dtype == expected.dtype
        np.testing.assert_array_equal(arrays[key], expected)


def test_metadata_needs_no_pickle(tmp_path):
    save_dataset(tmp_path / "data.npz", good_arrays(), {"a": [1, None]})

    with np.load(tmp_path / "data.npz", allow_pickle=False) as archive:
        assert archive["_metadata"].ndim == 0
        assert archive["_metadata"].dtype.kind == "U"
        assert json.loads(str(archive["_metadata"])) == {"a": [1, None]}


def test_saving_a_breach_writes_nothing_and_leaves_the_old_file(tmp_path):
    path = tmp_path / "data.npz"
    save_dataset(path, good_arrays(), {})
    before = path.read_bytes()

    with pytest.raises(ValueError, match=r"data\.npz: diffraction: found negative"):
        save_dataset(path, good_arrays() | with_value("diffraction", 0, -1), {})

    assert path.read_bytes() == before
    assert list(tmp_path.iterdir()) == [path]


def test_loading_a_breach_lists_every_one(tmp_path):
    np.savez(tmp_path / "data.npz", **without("probeGuess") | with_value("ycoords", 0, np.nan))

    with pytest.raises(InputError, match=r"DATA-001:\n  probeGuess: .*\n  ycoords: .*1 NaN"):
        load_dataset(tmp_path / "data.npz")


def test_a_base_file_needs_no_patterns(tmp_path):
    save_dataset(tmp_path / "base.npz", without("diffraction"), {}, base=True)

    assert "diffraction" not in load_dataset(tmp_path / "base.npz", base=True)[0]
    with pytest.raises(InputError, match="diffraction: found nothing"):
        load_dataset(tmp_path / "base.npz")


def test_a_missing_file_is_refused(tmp_path):
    with pytest.raises(InputError, match="no such file; give the path"):
        read_arrays(tmp_path / "absent.npz")


@pytest.mark.parametrize("content", [b"", b"PK\x03\x04", b"not an archive", b"\x93NUMPY"])
def test_what_is_not_an_npz_is_refused(content, tmp_path):
    (tmp_path / "data.npz").write_bytes(content)

    with pytest.raises(InputError, match=r"data\.npz: (refused|damaged)"):
        read_arrays(tmp_path / "data.npz")


def test_a_single_array_file_is_refused(tmp_path):
    np.save(tmp_path / "data.npy", np.ones(3))

    with pytest.raises(InputError, match="not an NPZ file"):
        read_arrays(tmp_path / "data.npy")


def test_pickled_objects_are_refused_with_the_reason(tmp_path):
    np.savez(tmp_path / "data.npz", probeGuess=np.array([{"a": 1}], dtype=object))

    with pytest.raises(InputError, match="pickled objects can run code"):
        read_arrays(tmp_path / "data.npz")


def test_metadata_that_is_not_json_is_refused(tmp_path):
    np.savez(tmp_path / "data.npz", _metadata=np.array("{broken"))

    with pytest.raises(InputError, match="_metadata is not JSON"):
        read_arrays(tmp_path / "data.npz")


@pytest.mark.parametrize("save", [np.savez, np.savez_compressed])
def test_a_truncated_file_is_refused(save, tmp_path):
    path = tmp_path / "data.npz"
    save(path, **good_arrays())
    whole = path.read_bytes()

    for length in np.linspace(1, len(whole) - 1, 40, dtype=int):
        path.write_bytes(whole[:length])
        with pytest.raises(InputError, match=r"data\.npz: (refused|damaged)"):
            read_arrays(path)


@pytest.mark.filterwarnings("ignore:Reading .npy or .npz file required")
@pytest.mark.parametrize("save", [np.savez, np.savez_compressed])
def test_flipped_bits_are_refused_or_change_no_value(save, tmp_path, rng):
    """Some bytes of an archive carry no data (dates, attributes); every other flip is seen."""
    path = tmp_path / "data.npz"
    save(path, **good_arrays())
    whole = path.read_bytes()
    refused = 0
    for place in rng.integers(0, len(whole), 400):
        damaged = bytearray(whole)
        damaged[place] ^= 1 << rng.integers(8)
        path.write_bytes(damaged)
        try:
            arrays, _ = read_arrays(path)
        except InputError:
            refused += 1
            continue
        for key in arrays.keys() & good_arrays().keys():
            np.testing.assert_array_equal(arrays[key], good_arrays()[key])
    assert refused > 200
