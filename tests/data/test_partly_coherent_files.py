"""Modes, a background and masks of each pattern: written, checked and read again as they were."""

from dataclasses import replace

import numpy as np
import pytest

from study_lib.data.contract import load_dataset, save_dataset, validate
from study_lib.data.datasets import load_measurement, read_dataset, write_dataset
from study_lib.data.formats.acquisition import Acquisition, check_shapes
from study_lib.errors import InputError
from study_lib.physics.forward import patterns_expected

SIDE = 16


@pytest.fixture
def scan(modes, object_, positions_px, rng) -> Acquisition:
    """Counts of three modes, a background, and dead pixels that differ from pattern to pattern."""
    bright = 50 * modes
    background = rng.uniform(0, 200, (SIDE, SIDE))
    expected = patterns_expected(bright, object_, positions_px).numpy() + background
    bad_pixels = rng.random(expected.shape) < 0.1
    counts = np.where(bad_pixels, 0, rng.poisson(expected))
    return Acquisition(
        positions_px=positions_px.numpy(),
        amplitudes=np.sqrt(counts).astype(np.float32),
        probe=bright.numpy().astype(np.complex64),
        probe_is_scaled=True,
        object_=object_.numpy().astype(np.complex64),
        bad_pixels=bad_pixels,
        background=background.astype(np.float32),
    )


def test_an_acquisition_is_read_as_it_was_written(scan, tmp_path):
    path = tmp_path / "scan.npz"

    notes = write_dataset(path, scan, "ptychi")

    assert not notes
    assert not validate(path).serious
    found = read_dataset(path)
    for name in ("amplitudes", "positions_px", "probe", "object_", "bad_pixels", "background"):
        np.testing.assert_array_equal(getattr(found, name), getattr(scan, name), err_msg=name)


def test_a_measurement_holds_modes_background_and_masks(scan, tmp_path):
    path = tmp_path / "scan.npz"
    write_dataset(path, replace(scan, amplitudes=scan.amplitudes + scan.bad_pixels), "ptychi")

    found = load_measurement(path)

    np.testing.assert_array_equal(found.probe, scan.probe)
    np.testing.assert_array_equal(found.background, scan.background)
    np.testing.assert_array_equal(found.bad_pixels, scan.bad_pixels)
    assert not found.amplitudes[scan.bad_pixels].any()
    np.testing.assert_array_equal(found.amplitudes, scan.amplitudes)


def test_a_single_mode_is_written_without_its_axis(scan, tmp_path):
    path = tmp_path / "scan.npz"

    write_dataset(path, replace(scan, probe=scan.probe[:1]), "ptychi")

    with np.load(path) as arrays:
        assert arrays["probeGuess"].shape == (SIDE, SIDE)


def test_a_single_mode_on_an_axis_of_its_own_is_read_as_a_coherent_probe(scan, tmp_path):
    path = tmp_path / "scan.npz"
    arrays = {
        "probeGuess": scan.probe[:1],
        "objectGuess": scan.object_,
        "ycoords": scan.positions_px[:, 0].copy(),
        "xcoords": scan.positions_px[:, 1].copy(),
    }
    np.savez(path, **arrays)

    assert load_dataset(path, base=True)[0]["probeGuess"].shape == (SIDE, SIDE)


@pytest.mark.parametrize("part", ["background", "weaker modes"])
def test_a_model_that_lacks_a_part_is_noted(scan, part, tmp_path):
    """Either holds more than a tenth of these counts."""
    change = {"background": None} if part == "background" else {"probe": scan.probe[:1]}

    notes = write_dataset(tmp_path / "scan.npz", replace(scan, **change), "ptychi")

    assert any("predicts 0." in note.found for note in notes)


def test_what_stands_on_a_bad_pixel_of_one_pattern_is_not_compared(scan, tmp_path):
    """Of the sampled patterns each is held against its own mask."""
    path = tmp_path / "scan.npz"
    spoilt = np.where(scan.bad_pixels, np.float32(1000), scan.amplitudes)

    assert not write_dataset(path, replace(scan, amplitudes=spoilt), "ptychi")

    assert not validate(path).serious


def test_a_mode_that_leaves_the_range_is_refused(scan, tmp_path):
    wild = scan.probe.copy()
    wild[2] *= 1e20

    with pytest.raises(InputError, match="leave single precision"):
        write_dataset(tmp_path / "scan.npz", replace(scan, probe=wild), "ptychi")


def test_keys_that_are_known_can_be_saved(scan, tmp_path):
    arrays = {
        "probeGuess": scan.probe,
        "objectGuess": scan.object_,
        "ycoords": scan.positions_px[:, 0].copy(),
        "xcoords": scan.positions_px[:, 1].copy(),
        "background": scan.background,
    }
    save_dataset(tmp_path / "base.npz", arrays, {}, base=True)

    assert load_dataset(tmp_path / "base.npz", base=True)[0].keys() == arrays.keys()


@pytest.mark.parametrize(
    ("shapes", "message"),
    [
        ({"bad_pixels": (4, 8, 8)}, r"bad pixels: found shape \(4, 8, 8\); expected \(5, 8, 8\)"),
        ({"bad_pixels": (8, 6)}, r"bad pixels: found shape \(8, 6\); expected \(8, 8\)"),
        ({"background": (5, 8, 8)}, r"background: found shape .*expected \(8, 8\)"),
    ],
)
def test_shapes_that_do_not_belong_together_are_refused(shapes, message, tmp_path):
    with pytest.raises(InputError, match=message):
        check_shapes(tmp_path, positions=(5, 2), patterns=(5, 8, 8), **shapes)

    for masks in ((8, 8), (5, 8, 8)):
        check_shapes(
            tmp_path, positions=(5, 2), patterns=(5, 8, 8), bad_pixels=masks, background=(8, 8)
        )
