"""DATA-001 holds for what is saved, every breach is reported at once, damage never gets in."""

import json
import re

import numpy as np
import pytest
import torch

from study_lib.data.contract import (
    check_arrays,
    load_dataset,
    load_object,
    save_dataset,
    validate,
    validate_splits,
)
from study_lib.data.rules import DETECTOR_SETTINGS, summary_of_array
from study_lib.design.experiment import DetectorDesign
from study_lib.errors import InputError
from study_lib.physics.forward import corners_of, patches_at

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
        "groups": np.stack([random.permutation(COUNT)[:4] for _ in range(COUNT)]),
    }


def with_value(key: str, index: object, value: float) -> dict[str, np.ndarray]:
    arrays = good_arrays()
    arrays[key][index] = value
    return {key: arrays[key]}


def without(key: str) -> dict[str, np.ndarray]:
    return {name: array for name, array in good_arrays().items() if name != key}


NOTES = {
    "double": ({"diffraction": good_arrays()["diffraction"].astype(np.float64)}, "found float64"),
    "big-endian": ({"ycoords": good_arrays()["ycoords"].astype(">f8")}, "found >f8"),
    "whole positions": ({"xcoords": np.arange(9, 9 + COUNT)}, "xcoords: found int64"),
    "blank pattern": (with_value("diffraction", 3, 0), "1 patterns without a photon: 3; "),
    "same place": (
        {"xcoords": np.full(COUNT, 9.0), "ycoords": np.repeat([9.0, 10.0, 11.0], 2)},
        "3 positions that occur before",
    ),
    "unknown": ({"extra": np.ones(3)}, "extra: found an unknown array"),
    "one mode": ({"probeGuess": np.ones((1, 8, 8), np.complex64)}, r"expected (N, N) for one mode"),
    "blind pattern": (
        {"bad_pixels": np.arange(COUNT)[:, None, None] * np.ones((1, SIDE, SIDE), int) == 2},
        "bad_pixels: found 1 patterns without a valid pixel: 2; ",
    ),
}


def report_of(changes: dict[str, np.ndarray]) -> list[str]:
    return [str(entry) for entry in check_arrays(good_arrays() | changes).violations]


BREACHES = {
    "wrong rank": ({"diffraction": np.ones((8, 8), np.float32)}, r"diffraction: .*expected 3 axes"),
    "wrong type": ({"ycoords": np.full(COUNT, 9, np.float32)}, r"ycoords: found float32.*float64"),
    "group twice": (
        {"groups": np.zeros((6, 4), np.int64)},
        r"groups: found 6 groups with one patt",
    ),
    "number twice": ({"scan_index": np.zeros(6, np.int64)}, r"scan_index: found 5 numbers"),
    "counts": ({"diffraction": np.full((6, 8, 8), 7, np.float32)}, r"up to 7: counts.*--domain"),
    "no photon": ({"diffraction": np.zeros((6, 8, 8), np.float32)}, r"diffraction: found all zero"),
    "odd side": (
        {"probeGuess": np.ones((7, 7), np.complex64)},
        r"probeGuess: found side 7; expected an even side",
    ),
    "patches": ({"Y": np.ones((1, 8, 8), np.complex64)}, r"Y: found 1 patches; expected 6"),
    "patch axes": ({"Y": np.ones((1, 8, 8, 1), np.complex64)}, r"Y: found shape .*3 axes"),
    "mask side": ({"bad_pixels": np.zeros((6, 8), bool)}, r"bad_pixels: found shape \(6, 8\)"),
    "mask type": ({"bad_pixels": np.zeros((8, 8), np.uint8)}, r"bad_pixels: found uint8"),
    "all bad in each": (
        {"bad_pixels": np.ones((6, 8, 8), bool)},
        r"bad_pixels: found every pixel; .*invert the masks",
    ),
    "masks of others": (
        {"bad_pixels": np.zeros((5, 8, 8), bool)},
        r"bad_pixels: found shape \(5, 8, 8\); expected .*\(6, 8, 8\) for each pattern its own",
    ),
    "modes last": ({"probeGuess": np.ones((80, 8, 8), np.complex64)}, r"found 80 modes; .*mode, r"),
    "modes not square": ({"probeGuess": np.ones((2, 8, 6), np.complex64)}, r"probeGuess: .*square"),
    "dark side": (
        {"background": np.zeros((6, 8), np.float32)},
        r"background: found shape \(6, 8\)",
    ),
    "less than none": (
        {"background": np.full((8, 8), -1, np.float32)},
        r"background: found 64 neg",
    ),
    "dark axes": ({"background": np.ones((6, 8, 8), np.float32)}, r"background: .*expected 2 axes"),
    "all bad": ({"bad_pixels": np.ones((8, 8), bool)}, r"bad_pixels: found every pixel"),
    "too large": ({"probeGuess": np.full((8, 8), 1e200 + 0j)}, r"values that fit complex64"),
    "empty": ({"xcoords": np.empty(0)}, r"xcoords: .*at least one value"),
    "not a number": (with_value("objectGuess", (3, 3), np.nan), r"objectGuess: found 1 NaN"),
    "infinite": (with_value("diffraction", 2, np.inf), r"diffraction: found 64 NaN or infinite"),
    "probe not square": ({"probeGuess": np.ones((8, 6), np.complex64)}, r"probeGuess: .*a square"),
    "dark probe": ({"probeGuess": np.zeros((8, 8), np.complex64)}, r"probeGuess: found all zero"),
    "unpaired": ({"ycoords": np.full(5, 9.0)}, r"ycoords: found 5 values; expected 6"),
    "other side": ({"probeGuess": np.ones((10, 10), np.complex64)}, r"expected \(n, 10, 10\)"),
    "too few": ({"diffraction": np.ones((4, 8, 8), np.float32)}, r"found 4 patterns; expected 6"),
    "negative": (
        with_value("diffraction", 0, -1),
        r"diffraction: found \d+ negative.*sqrt\(counts\)",
    ),
    "outside": (with_value("ycoords", 2, 27.0), r"ycoords: found 1 of 6.*index 2 \(27.0 px\)"),
    "names": ({"scan_index": np.arange(4)}, r"scan_index: found 4 values; expected 6"),
    "group type": ({"groups": np.zeros((6, 4))}, r"groups: found float64; expected int64"),
    "group index": (with_value("groups", (1, 1), 6), r"groups: found indices 0..6; expected 0..5"),
}


@pytest.mark.parametrize(("changes", "message"), BREACHES.values(), ids=BREACHES)
def test_each_breach_is_reported_with_what_was_found_and_expected(changes, message):
    assert any(re.search(message, line) for line in report_of(changes))


@pytest.mark.parametrize(("changes", "message"), NOTES.values(), ids=NOTES)
def test_what_loses_nothing_is_noted_and_not_serious(changes, message):
    report = check_arrays(good_arrays() | changes)

    assert not report
    assert report.serious == ()
    assert any(message in str(entry) for entry in report.violations)


@pytest.mark.parametrize("key", ["diffraction", "probeGuess", "objectGuess", "xcoords", "ycoords"])
def test_a_missing_array_is_reported(key):
    (violation,) = check_arrays(without(key)).violations

    assert (violation.key, violation.found) == (key, "nothing")


def test_the_names_of_the_field_are_explained():
    (violation,) = check_arrays(without("diffraction")).violations

    assert violation.remedy.startswith("rename diff3d to diffraction")


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
    assert {(entry.key, entry.found.split()[0]) for entry in report.violations} == {
        ("diffraction", "1"),
        ("ycoords", "1"),
        ("xcoords", "float32"),
        ("xcoords", "6"),
    }


def test_good_arrays_have_no_violation():
    report = check_arrays(good_arrays())

    assert report
    assert report.as_dict() == {"ok": True, "usable": True, "violations": []}


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
        assert (not check_arrays(good_arrays() | position).serious) == fits
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

    with pytest.raises(ValueError, match=r"data\.npz: diffraction: found 64 negative"):
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


def test_what_converts_exactly_is_loaded_in_the_types_of_the_contract(tmp_path):
    arrays = good_arrays()
    foreign = {key: array.astype(array.dtype.newbyteorder(">")) for key, array in arrays.items()}
    foreign["diffraction"] = arrays["diffraction"].astype(np.float64)
    foreign["extra"] = np.ones(3)
    np.savez(tmp_path / "data.npz", **foreign)

    loaded, _ = load_dataset(tmp_path / "data.npz")

    assert loaded.keys() == arrays.keys()
    for key, array in arrays.items():
        assert loaded[key].dtype == array.dtype
        np.testing.assert_array_equal(loaded[key], array)


def test_the_object_is_loaded_without_reading_the_rest(tmp_path):
    damaged = with_value("diffraction", 0, np.nan)
    arrays = good_arrays() | {"objectGuess": np.full(OBJECT_SHAPE, 1 - 2j)} | damaged
    np.savez(tmp_path / "data.npz", **arrays, _metadata=np.array('{"view": "dense"}'))

    object_, metadata = load_object(tmp_path / "data.npz")

    assert object_.dtype == np.complex64
    np.testing.assert_array_equal(object_, arrays["objectGuess"])
    assert metadata == {"view": "dense"}


@pytest.mark.parametrize(
    ("arrays", "message"),
    [
        (without("objectGuess"), "found nothing"),
        (good_arrays() | with_value("objectGuess", (0, 0), np.nan), "1 NaN or infinite"),
        (good_arrays() | {"objectGuess": np.ones(5, np.complex64)}, "expected 2 axes"),
    ],
)
def test_an_object_that_breaks_the_contract_is_refused(arrays, message, tmp_path):
    np.savez(tmp_path / "data.npz", **arrays)

    with pytest.raises(InputError, match=f"DATA-001:\n  objectGuess: .*{message}"):
        load_object(tmp_path / "data.npz")


def test_an_unknown_array_is_not_saved(tmp_path):
    with pytest.raises(ValueError, match="extra are no keys of DATA-001"):
        save_dataset(tmp_path / "data.npz", good_arrays() | {"extra": np.ones(3)}, {})


# --- metadata


def recorded_photons() -> float:
    return float((good_arrays()["diffraction"].astype(np.float64) ** 2).sum() / COUNT)


@pytest.mark.parametrize(
    ("metadata", "message"),
    [
        ({"domain": "counts"}, r"_metadata: found domain 'counts'; expected 'amplitude'"),
        (
            {"photons_per_pattern_measured": 1.01 * recorded_photons()},
            r"_metadata: found photons_per_pattern_measured",
        ),
        (
            {"photons_per_pattern_requested": 2.1 * recorded_photons()},
            r"diffraction: found .* photons per pattern; expected .* within 25%; the label",
        ),
        (
            {"photons_per_pattern_expected": 0.8 * recorded_photons()},
            r"diffraction: found .* \+\d+\.\d standard deviations away",
        ),
    ],
)
def test_metadata_that_contradict_the_patterns_are_reported(metadata, message):
    report = check_arrays(good_arrays(), {"domain": "amplitude"} | metadata)

    (violation,) = report.serious
    assert re.search(message, str(violation))


def test_metadata_that_agree_with_the_patterns_pass():
    measured = recorded_photons()
    metadata = {
        "domain": "amplitude",
        "photons_per_pattern_measured": measured,
        "photons_per_pattern_requested": 1.1 * measured,
        "photons_per_pattern_expected": measured + 3 * np.sqrt(measured / COUNT),
    }

    assert check_arrays(good_arrays(), metadata)


@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64, np.uint8])
def test_photons_are_added_up_beyond_the_range_of_the_type_they_are_stored_in(dtype):
    """Half precision ends at 65504, below the photons of a bright pattern."""
    random = np.random.default_rng(1)
    patterns = np.sqrt(random.poisson(2000.0, (COUNT, SIDE, SIDE))).astype(dtype)
    photons = (patterns.astype(np.float64) ** 2).sum(axis=(1, 2))

    totals = summary_of_array(patterns).totals
    report = check_arrays(
        good_arrays() | {"diffraction": patterns},
        {"domain": "amplitude", "photons_per_pattern_measured": photons.mean()},
    )

    assert photons.min() > 65504
    np.testing.assert_allclose(totals, photons, rtol=1e-5)
    assert not [one for one in report.violations if "photons_per_pattern" in one.found]


@pytest.mark.parametrize(
    ("metadata", "message"),
    [
        ({"photons_per_pattern_measured": "many"}, "photons_per_pattern_measured 'many'"),
        ({"photons_per_pattern_expected": -5.0}, r"photons_per_pattern_expected -5\.0"),
        ({"photons_per_pattern_requested": 10**400}, "photons_per_pattern_requested 1000"),
        ({"photons_per_pattern_measured": True}, "photons_per_pattern_measured True"),
        ({"photons_per_pattern_measured": float("nan")}, "photons_per_pattern_measured nan"),
        ({"detector": "x"}, "detector 'x'; expected an object with some of bad_pixel_share"),
        ({"detector": {"switch_off": 1}}, "detector {'switch_off': 1}"),
    ],
)
def test_metadata_that_make_no_sense_are_reported(metadata, message):
    (violation,) = check_arrays(good_arrays(), {"domain": "amplitude"} | metadata).serious

    assert violation.key == "_metadata"
    assert re.search(message, str(violation))


def test_the_settings_of_a_detector_are_those_of_the_design():
    assert set(DetectorDesign.model_fields) == DETECTOR_SETTINGS


def test_what_one_split_may_differ_in_is_noted_only():
    metadata = {"domain": "amplitude", "photons_per_pattern_requested": 1.5 * recorded_photons()}

    report = check_arrays(good_arrays(), metadata)

    assert report.serious == ()
    assert "the label is not the dose" in str(report.violations[0])


def test_squares_that_are_no_counts_are_noted_unless_stated():
    arrays = good_arrays() | {"diffraction": 1.17 * good_arrays()["diffraction"]}

    report = check_arrays(arrays, {"domain": "amplitude"})

    assert report.serious == ()
    assert "squares that are no whole numbers" in str(report.violations[0])
    assert check_arrays(arrays, {"domain": "amplitude", "photon_scale": "none"})


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"scan_index": np.array([0, 1, 2, 3, 4, 2**64 - 1], np.uint64)}, "scan_index: .*uint64"),
        ({"xcoords": np.array([9, 9, 9, 9, 9, 2**60])}, "xcoords: found int64"),
    ],
)
def test_what_does_not_convert_exactly_is_serious(changes, message):
    serious = check_arrays(good_arrays() | changes).serious

    assert any(re.search(message, str(entry)) for entry in serious)


def test_missing_metadata_are_noted():
    report = check_arrays(good_arrays(), {})

    assert [(entry.key, entry.serious) for entry in report.violations] == [("_metadata", False)]


# --- two splits


def split_files(tmp_path, first_test_row: float, **changes: np.ndarray):
    """Train rows 4..8, so that side 8 lights object rows 0..11; test rows from the one given."""
    paths = []
    for name, rows, numbers in (
        ("train", np.linspace(4, 8, COUNT), np.arange(COUNT)),
        ("test", first_test_row + np.linspace(0, 5, COUNT), COUNT + np.arange(COUNT)),
    ):
        arrays = good_arrays() | {"ycoords": rows, "scan_index": numbers}
        arrays |= changes if name == "test" else {}
        paths.append(tmp_path / f"{name}.npz")
        save_dataset(paths[-1], arrays, {})
    return paths


def test_splits_with_a_guard_band_share_nothing(tmp_path):
    train, test = split_files(tmp_path, 16.0)

    assert validate_splits(train, test)
    assert validate_splits(test, train)


@pytest.mark.parametrize(
    ("first_test_row", "changes", "message"),
    [
        (15.0, {}, r"ycoords: found object rows 11..11 lit by both splits.*band of 8 rows"),
        (10.0, {}, r"object rows 6..11 lit by both"),
        (16.0, {"scan_index": np.arange(COUNT)}, r"scan_index: found 6 patterns in both splits"),
        (16.0, {"objectGuess": np.full(OBJECT_SHAPE, 1j, np.complex64)}, r"found two objects"),
    ],
)
def test_what_two_splits_share_is_reported(first_test_row, changes, message, tmp_path):
    report = validate_splits(*split_files(tmp_path, first_test_row, **changes))

    assert any(re.search(message, str(entry)) for entry in report.serious)


def test_a_file_is_validated_without_reading_it_into_memory_at_once(tmp_path, monkeypatch):
    """The verdict does not depend on how many slabs an array comes in."""
    arrays = good_arrays() | with_value("diffraction", (4, 2, 2), np.nan)
    np.savez(tmp_path / "data.npz", **arrays)
    whole = validate(tmp_path / "data.npz")
    monkeypatch.setattr("study_lib.data.archive.SLAB_BYTES", 300)
    monkeypatch.setattr("study_lib.data.rules.SLAB_BYTES", 300)
    monkeypatch.setattr("study_lib.data.rules.KEPT_BYTES", 300)

    in_slabs = validate(tmp_path / "data.npz")

    assert [str(entry) for entry in in_slabs.serious] == [str(entry) for entry in whole.serious]
    assert "1 NaN or infinite, first at index 4" in str(in_slabs.serious[0])


def test_both_splits_hold_the_contract_by_themselves(tmp_path):
    train, test = split_files(tmp_path, 16.0)
    for arrays in (without("objectGuess"), good_arrays() | with_value("ycoords", 2, np.nan)):
        np.savez(test, **arrays)
        with pytest.raises(InputError, match=r"test\.npz breaks the data contract"):
            validate_splits(train, test)
