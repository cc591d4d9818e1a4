"""For any valid dataset: it passes; with any single corruption, the corrupted key is reported."""

import re
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from study_lib.data.contract import check_arrays, load_dataset, save_dataset, validate
from study_lib.errors import InputError

Arrays = dict[str, np.ndarray]


@st.composite
def datasets(draw: Callable[..., Any]) -> tuple[Arrays, dict[str, Any]]:
    """A valid dataset of any size, scan and dose, with or without the optional arrays."""
    random = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    side = 2 * draw(st.integers(2, 6))
    count = 2 * draw(st.integers(2, 6)) + 1  # odd: never the side, which is even
    rows, columns = side + draw(st.integers(8, 30)), side + draw(st.integers(8, 30))
    dose = draw(st.floats(50, 1e5))
    counts = random.poisson(random.dirichlet(np.ones(side**2), count) * dose)
    counts[:, 0] += 2  # a root of two is no whole number
    arrays = {
        "diffraction": np.sqrt(counts.reshape(count, side, side)).astype(np.float32),
        "probeGuess": random.normal(size=(side, side)) + 1j * random.normal(size=(side, side)),
        "objectGuess": np.exp(1j * random.normal(size=(rows, columns))),
        "ycoords": random.uniform(side // 2, rows - side + side // 2, count),
        "xcoords": random.uniform(side // 2, columns - side + side // 2, count),
    }
    if draw(st.booleans()):
        arrays["scan_index"] = random.permutation(100)[:count]
    if draw(st.booleans()):
        arrays["groups"] = np.stack([random.permutation(count)[:4] for _ in range(3)])
    if draw(st.booleans()):
        arrays["bad_pixels"] = random.random((side, side)) < 0.2
    if draw(st.booleans()):
        arrays["Y"] = np.ones((count, side, side), np.complex64)
    for key in ("probeGuess", "objectGuess"):
        arrays[key] = arrays[key].astype(np.complex64)
    measured = float(counts.sum() / count)
    metadata = {
        "domain": "amplitude",
        "photons_per_pattern_measured": measured,
        "photons_per_pattern_requested": measured,
    }
    return arrays, metadata


def set_value(value: complex) -> Callable[[np.ndarray, int], np.ndarray]:
    def change(array: np.ndarray, place: int) -> np.ndarray:
        changed = array.copy()
        changed.reshape(-1)[place % array.size] = value
        return changed

    return change


def drop_last(array: np.ndarray, place: int) -> np.ndarray:
    return array[:-1]


FLOATS = ("diffraction", "probeGuess", "objectGuess", "xcoords", "ycoords")
PER_SCAN = ("diffraction", "scan_index", "Y")
CORRUPTIONS: dict[str, tuple[tuple[str, ...], Callable[[np.ndarray, int], np.ndarray]]] = {
    "NaN": (FLOATS, set_value(np.nan)),
    "infinite": (FLOATS, set_value(-np.inf)),
    "negative": (("diffraction",), set_value(-0.5)),
    "outside": (("xcoords", "ycoords"), set_value(-3.0)),
    "far outside": (("xcoords", "ycoords"), set_value(1e9)),
    "index": (("groups",), set_value(99)),
    "negative index": (("groups",), set_value(-1)),
    "flat": ((*FLOATS, "Y", "groups", "bad_pixels"), lambda array, place: array.reshape(-1, 1)[0]),
    "empty": ((*FLOATS, "scan_index", "groups", "Y"), lambda array, place: array[:0]),
    "text": ((*FLOATS, "scan_index", "groups", "Y"), lambda array, place: array.astype("U9")),
    "complex": (("diffraction", "xcoords", "ycoords"), lambda array, place: array + 1j),
    "whole": (("diffraction",), lambda array, place: np.rint(array**2)),
    "integer": (("diffraction",), lambda array, place: np.rint(array**2).astype(np.uint16)),
    "other side": (("diffraction", "Y", "bad_pixels"), lambda array, place: array[..., 1:]),
    "last axis first": (("diffraction", "Y"), lambda array, place: np.moveaxis(array, 0, -1)),
    "one less": (PER_SCAN, drop_last),
    "not square": (("probeGuess",), drop_last),
    "dark": (("probeGuess", "diffraction"), lambda array, place: np.zeros_like(array)),
    "all bad": (("bad_pixels",), lambda array, place: np.ones_like(array)),
    "more photons": (("diffraction",), lambda array, place: np.float32(1.01) * array),
    "twice": (("scan_index",), lambda array, place: np.full_like(array, array[0])),
    "small object": (("objectGuess",), lambda array, place: array[:3, :3]),
}
# The object decides what is inside; a position outside it may be the fault of either.
BLAMED = {"small object": ("xcoords", "ycoords")}
quick = settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.too_slow])


@quick
@given(data=datasets())
def test_a_valid_dataset_passes(data):
    arrays, metadata = data

    assert check_arrays(arrays, metadata).violations == ()


@pytest.mark.parametrize("name", CORRUPTIONS)
@settings(quick, max_examples=25)
@given(data=datasets(), place=st.integers(0, 10**6), choice=st.integers(0, 10))
def test_any_single_corruption_is_reported_with_its_key(name, data, place, choice):
    arrays, metadata = data
    keys, corrupt = CORRUPTIONS[name]
    present = [key for key in keys if key in arrays]
    if not present:
        return
    key = present[choice % len(present)]

    report = check_arrays(arrays | {key: corrupt(arrays[key], place)}, metadata)

    assert report.serious
    blamed = {entry.key for entry in report.violations}
    expected = BLAMED.get(name, (key, "_metadata") if name == "more photons" else (key,))
    assert blamed & set(expected), report.violations


@quick
@given(data=datasets(), choice=st.integers(0, 4))
def test_a_missing_array_is_reported(data, choice):
    arrays, metadata = data
    key = FLOATS[choice]

    serious = check_arrays({name: arrays[name] for name in arrays if name != key}, metadata).serious

    assert [(entry.key, entry.found) for entry in serious] == [(key, "nothing")]


@settings(quick, max_examples=20)
@given(data=datasets())
def test_a_file_is_judged_like_the_arrays_in_it(data, tmp_path_factory):
    arrays, metadata = data
    path = tmp_path_factory.mktemp("data") / "data.npz"

    save_dataset(path, arrays, metadata)

    # Random arrays predict nothing of random patterns, which only the file is asked for.
    found_more = validate(path).violations
    assert all(re.match("a model that|amplitudes that miss", one.found) for one in found_more)
    loaded, found = load_dataset(path)
    assert found == metadata
    assert all(np.array_equal(loaded[key], arrays[key]) for key in loaded)


@settings(quick, max_examples=40)
@given(data=datasets(), place=st.floats(0, 1, exclude_max=True), bit=st.integers(0, 7))
def test_a_flipped_bit_is_refused_or_changes_nothing(data, place, bit, tmp_path_factory):
    arrays, metadata = data
    path = tmp_path_factory.mktemp("data") / "data.npz"
    save_dataset(path, arrays, metadata)
    content = bytearray(path.read_bytes())
    content[int(place * len(content))] ^= 1 << bit
    path.write_bytes(content)

    try:
        loaded, found = load_dataset(path)
    except InputError:  # refusing is right
        return

    assert found in (metadata, {})
    assert all(np.array_equal(loaded[key], arrays[key]) for key in loaded)
