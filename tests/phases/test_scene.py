"""Scenes, synthetic and from base data, keep every patch on the object and the splits apart."""

import numpy as np
import pytest

from study_lib.data.contract import load_dataset
from study_lib.design.presets import load_design
from study_lib.errors import InputError
from study_lib.phases.scene import scene_of, split_masks
from study_lib.physics.scan import SCANS
from study_lib.physics.specimen import SPECIMENS
from study_lib.runs.forecast import check_feasible
from study_lib.runs.run import base_data

NARROW = ("patch_size_px=16", "scan.rows=5", "scan.columns=4")

every_kind_of_scan = pytest.mark.parametrize("kind", SCANS)


def lit_px(scene, mask) -> tuple[np.ndarray, np.ndarray]:
    """First and last (row, column) of the object that a set of positions lights."""
    side = scene.probe.shape[0]
    corners = np.round(scene.positions_px[mask]).astype(int) - side // 2
    return corners.min(axis=0), corners.max(axis=0) + side - 1


@every_kind_of_scan
@pytest.mark.parametrize("preset", ["smoke", "laptop"])
def test_no_object_row_is_lit_by_both_splits(preset, kind):
    design = load_design(preset, [f"scan.kind={kind}"])
    scene = scene_of(design)

    _, (last_of_train, _) = lit_px(scene, scene.splits["train"])
    (first_of_test, _), _ = lit_px(scene, scene.splits["test"])

    assert last_of_train < first_of_test


@pytest.mark.parametrize("seed", range(20))
def test_the_guard_band_holds_for_any_scan(seed):
    rng = np.random.default_rng(seed)
    side = int(rng.choice([16, 17, 32]))
    positions = np.round(rng.uniform(0, 90, (300, 2)) * 2) / 2
    masks = split_masks(positions, side + 1)

    last_of_train = np.round(positions[masks["train"], 0]).max() - side // 2 + side - 1
    first_of_test = np.round(positions[masks["test"], 0]).min() - side // 2
    assert last_of_train < first_of_test
    assert not (masks["train"] & masks["test"]).any()


@every_kind_of_scan
@pytest.mark.parametrize("preset", ["smoke", "laptop"])
def test_a_synthetic_scan_loses_almost_nothing_to_the_guard_band(preset, kind):
    design = load_design(preset, [f"scan.kind={kind}"])

    planned = design.scan.rows * design.scan.columns
    for mask in scene_of(design).splits.values():
        assert mask.sum() > 0.95 * planned


@every_kind_of_scan
@pytest.mark.parametrize("specimen", SPECIMENS)
def test_every_object_with_every_scan_can_be_studied(specimen, kind):
    design = load_design("smoke", [f"specimen.kind={specimen}", f"scan.kind={kind}"])
    scene = scene_of(design)

    first, last = lit_px(scene, slice(None))

    assert (first >= 0).all()
    assert (last < scene.object_.shape).all()
    check_feasible(design, scene)


def test_a_scan_too_small_for_the_guard_band_is_refused(tiny_design_with, base_file):
    path, _ = base_file(rows_px=30.0)
    design = tiny_design_with(base=base_data(path))

    with pytest.raises(InputError, match="guard band of 17 rows leaves no position for the train"):
        scene_of(design, path)


def test_a_larger_base_probe_is_cropped_and_the_share_recorded(tiny_design_with, base_file):
    path, _ = base_file(side=20)

    scene = scene_of(tiny_design_with(base=base_data(path)), path)

    assert scene.probe.shape == (16, 16)
    assert 0.99 < scene.record["probe_power_kept"] < 1


def test_measured_positions_are_those_of_the_base_file(base_file):
    path, base = base_file()

    scene = scene_of(load_design("smoke", base=base_data(path)), path)

    np.testing.assert_array_equal(scene.positions_px[:, 0], base["ycoords"])
    np.testing.assert_array_equal(scene.positions_px[:, 1], base["xcoords"])


@every_kind_of_scan
def test_a_synthetic_scan_lies_in_the_middle_of_the_base_object(kind, base_file):
    path, base = base_file(rows_px=80.0)
    design = load_design("smoke", [*NARROW, f"scan.kind={kind}"], base_data(path))

    scene = scene_of(design, path)

    np.testing.assert_array_equal(scene.object_, base["objectGuess"])
    first, last = lit_px(scene, slice(None))
    left_over = first, np.array(scene.object_.shape) - 1 - last
    assert (left_over[0] >= 0).all()
    assert np.abs(left_over[0] - left_over[1]).max() <= 1
    assert sum(mask.sum() for mask in scene.splits.values()) > 0.9 * len(scene.positions_px)


@pytest.mark.parametrize("axis", ["rows", "columns"])
def test_the_largest_scan_that_fits_the_base_object_is_taken_and_no_larger_one(axis, base_file):
    path, _ = base_file()

    def scene_with(count: int):
        settings = [*NARROW, "scan.kind=raster", f"scan.{axis}={count}", "scan.jitter_px=0.0"]
        return scene_of(load_design("smoke", settings, base_data(path)), path)

    fits = {"rows": 5, "columns": 6}[axis]  # of steps of 3 pixels, on 61 x 31 pixels
    scene_with(fits)

    with pytest.raises(InputError, match=r"raster blocks .* object of base.npz"):
        scene_with(fits + 1)


def test_a_base_object_too_small_for_the_scan_names_both_sizes(base_file):
    path, _ = base_file()
    design = load_design("smoke", ["patch_size_px=16", "scan.kind=fermat"], base_data(path))

    message = (
        r"two fermat blocks of 10 x 15 steps of 3 pixels, with patches of 16 and the guard band "
        r"between them, need \d+ x \d+ pixels, but the object of base.npz has 61 x 31; lower"
    )
    with pytest.raises(InputError, match=message):
        scene_of(design, path)


def test_an_object_too_small_is_refused_before_any_file_is_written(tmp_path, base_file):
    from study_lib.cli.main import app

    path, _ = base_file()
    with pytest.raises(InputError, match=r"lower scan\.rows"):
        app(
            [
                *("generate", "--base-npz", str(path), "--output-root", str(tmp_path / "C")),
                *("--preset", "smoke", "--set", "scan.kind=raster"),
            ],
            standalone_mode=False,
        )

    assert sorted(entry.name for entry in tmp_path.iterdir()) == [path.name]


def test_measured_positions_without_a_base_file_are_refused(base_file):
    path, _ = base_file()
    design = load_design("smoke", base=base_data(path))

    with pytest.raises(InputError, match=r"scan.kind = measured, but no base file.*--base-npz"):
        scene_of(design)


def test_the_base_object_is_divided_by_its_largest_amplitude(tiny_design_with, base_file):
    path, base = base_file()
    brighter = base | {"objectGuess": base["objectGuess"] * np.float32(2)}
    np.savez(path, **brighter)
    assert np.abs(load_dataset(path, base=True)[0]["objectGuess"]).max() > 1.9

    scene = scene_of(tiny_design_with(base=base_data(path)), path)

    assert np.abs(scene.object_).max() == pytest.approx(1, abs=1e-6)
    assert scene.record["object_divided_by"] == pytest.approx(2, abs=1e-6)
