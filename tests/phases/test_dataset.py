"""Simulated patterns have the dose, the statistics, the split and the seeds they claim."""

from dataclasses import replace

import numpy as np
import pytest
from scipy.ndimage import fourier_shift
from tiny_runs import generated

from study_lib import seeding
from study_lib.data.contract import load_dataset, validate
from study_lib.design.axes import SPLITS
from study_lib.errors import InputError, StudyError
from study_lib.files import read_json
from study_lib.phases import dataset as generation
from study_lib.phases import scene
from study_lib.phases.dataset import canonicalise, generate
from study_lib.phases.scene import scene_of
from study_lib.physics.simulation import expected_patterns, simulate
from study_lib.runs.run import Run, base_data

DOSE = 1e4


def splits_of(run: Run, dose: float = DOSE) -> dict[str, dict[str, np.ndarray]]:
    return {split: load_dataset(run.condition(dose, split=split).whole_file)[0] for split in SPLITS}


def counts_of(arrays: dict[str, np.ndarray]) -> np.ndarray:
    return np.round(arrays["diffraction"].astype(float) ** 2)


def model_of(arrays: dict[str, np.ndarray]) -> np.ndarray:
    """Expected counts from what is in the file alone, written out with numpy and scipy."""
    probe = arrays["probeGuess"].astype(complex)
    side = len(probe)
    patterns = []
    for position in np.stack([arrays["ycoords"], arrays["xcoords"]], axis=1):
        row, column = np.round(position).astype(int) - side // 2
        patch = arrays["objectGuess"][row : row + side, column : column + side]
        moved = np.fft.ifft2(fourier_shift(np.fft.fft2(probe), position - np.round(position)))
        far_field = np.fft.fftshift(np.fft.fft2(moved * patch, norm="ortho"))
        patterns.append(np.abs(far_field) ** 2)
    return np.array(patterns)


def test_the_mean_over_both_splits_is_the_dose_within_photon_noise(tiny_run):
    counts = np.concatenate([counts_of(arrays) for arrays in splits_of(tiny_run).values()])

    total, requested = counts.sum(), DOSE * len(counts)
    assert abs(total - requested) < 5 * np.sqrt(requested)


def test_the_model_in_the_file_predicts_exactly_the_dose(tiny_run):
    """No hidden normalisation: probe, object and positions give photons, summing to the dose."""
    expected = np.concatenate([model_of(arrays) for arrays in splits_of(tiny_run).values()])

    assert expected.sum() == pytest.approx(DOSE * len(expected), rel=1e-6)


@pytest.mark.parametrize("split", SPLITS)
def test_counts_scatter_about_the_model_as_photons_do(split, tiny_run):
    """sum (n - m)^2 = sum m for Poisson counts, with variance sum m + 2 m^2; over all pixels."""
    arrays = splits_of(tiny_run)[split]
    expected = model_of(arrays)

    squares = ((counts_of(arrays) - expected) ** 2).sum()

    spread = np.sqrt((expected + 2 * expected**2).sum())
    assert abs(squares - expected.sum()) < 5 * spread
    assert spread < 0.1 * expected.sum()


def test_every_pixel_agrees_with_the_model_also_in_the_dark_field(tiny_run):
    arrays = splits_of(tiny_run)["train"]
    summed, expected = counts_of(arrays).sum(axis=0), model_of(arrays).sum(axis=0)

    assert (np.abs(summed - expected) < 5 * np.sqrt(expected) + 5).all()
    assert summed.argmax() != 0


def test_amplitudes_are_roots_of_whole_photons(tiny_run):
    for arrays in splits_of(tiny_run).values():
        squares = arrays["diffraction"].astype(float) ** 2
        np.testing.assert_allclose(squares, np.round(squares), rtol=1e-6)


def test_every_draw_has_a_stream_of_its_own(tmp_path, monkeypatch, tiny_design_with):
    """Different purposes are independent (test_seeding); here no two draws share a purpose."""
    design = tiny_design_with("doses=[1.0e+3, 1.0e+4]")
    purposes = []

    def watched(*purpose: str | int) -> np.random.Generator:
        purposes.append(purpose)
        return seeding.generator(*purpose)

    for module in (generation, scene):
        monkeypatch.setattr(module, "generator", watched)
    generated(tmp_path, design)

    noise = [purpose for purpose in purposes if "noise" in purpose]
    assert len(set(noise)) == len(noise) == 4
    assert len(set(purposes)) == 6


def test_the_same_seeds_give_the_same_bytes_whatever_ran_before(tmp_path, tiny_design_with):
    design = tiny_design_with("doses=[1.0e+3, 1.0e+4]")
    both, alone = generated(tmp_path / "both", design), Run(tmp_path / "alone", design)
    generate(alone.condition(1e4))

    for split in SPLITS:
        first, second = (
            run.condition(1e4, split=split).whole_file.read_bytes() for run in (both, alone)
        )
        assert first == second


def test_doses_share_the_scene_but_not_the_noise(tmp_path, tiny_design_with):
    design = tiny_design_with("doses=[1.0e+4, 1.0001e+4]")
    run = generated(tmp_path, design)
    first, second = (splits_of(run, dose)["train"] for dose in design.doses)

    for key in ("objectGuess", "xcoords", "ycoords", "scan_index"):
        np.testing.assert_array_equal(first[key], second[key])
    bright = model_of(first) > 5
    assert (counts_of(first) != counts_of(second))[bright].mean() > 0.8


def test_another_seed_gives_another_object_scan_and_noise(tmp_path, tiny_run, tiny_design_with):
    other = generated(tmp_path, tiny_design_with("seeds.simulation=43"))
    first, second = splits_of(tiny_run)["train"], splits_of(other)["train"]

    for key in ("objectGuess", "xcoords", "diffraction"):
        assert first[key].tobytes() != second[key].tobytes()


def test_splits_name_different_patterns_of_one_scan(tiny_run, tiny_design):
    positions = scene_of(tiny_design).positions_px
    splits = splits_of(tiny_run)

    assert not np.intersect1d(splits["train"]["scan_index"], splits["test"]["scan_index"]).size
    for arrays in splits.values():
        stored = np.stack([arrays["ycoords"], arrays["xcoords"]], axis=1)
        np.testing.assert_array_equal(stored, positions[arrays["scan_index"]])


def test_a_base_file_gives_object_probe_and_positions(tmp_path, tiny_design_with, base_file):
    path, base = base_file()
    run = generated(tmp_path, tiny_design_with(base=base_data(path)))

    assert run.base_npz == path
    for arrays in splits_of(run).values():
        np.testing.assert_array_equal(arrays["objectGuess"], base["objectGuess"])
        np.testing.assert_array_equal(arrays["ycoords"], base["ycoords"][arrays["scan_index"]])
        np.testing.assert_array_equal(arrays["xcoords"], base["xcoords"][arrays["scan_index"]])
        ratio = arrays["probeGuess"] / base["probeGuess"]
        np.testing.assert_allclose(ratio, ratio[0, 0].real, rtol=1e-5)
        assert counts_of(arrays).sum(axis=(1, 2)).mean() == pytest.approx(DOSE, rel=0.1)


def test_a_dose_outside_the_design_is_refused_and_writes_nothing(tmp_path, tiny_design):
    with pytest.raises(InputError, match="dose 500 is not in the design"):
        generate(Run(tmp_path, tiny_design).condition(500.0))

    assert not list(tmp_path.iterdir())


def test_the_manifest_keeps_every_dose_and_what_was_measured(tmp_path, tiny_design_with):
    design = tiny_design_with("doses=[1.0e+3, 1.0e+4]")
    run = generated(tmp_path, design)

    jobs = read_json(run.root("dataset") / "run_manifest.json")["jobs"]

    assert jobs.keys() == {"dose_1000", "dose_10000"}
    for dose in design.doses:
        job = jobs[f"dose_{int(dose)}"]
        assert job["status"] == "done"
        for split, arrays in splits_of(run, dose).items():
            budget = job["results"][split]
            assert budget["photons_per_pattern_requested"] == dose
            assert budget["photons_per_pattern_measured"] == pytest.approx(
                counts_of(arrays).sum() / len(counts_of(arrays))
            )
            assert f"dose_{int(dose)}/patched_{split}.npz" in job["outputs"]


def test_a_broken_base_leaves_a_record_of_the_failure(tmp_path, tiny_design):
    base = tmp_path / "base.npz"
    np.savez(base, probeGuess=np.ones((16, 16)))
    condition = Run(tmp_path, tiny_design).condition(DOSE)

    with pytest.raises(InputError, match="DATA-001"):
        generate(replace(condition, base_npz=base))

    job = read_json(condition.manifest("dataset"))["jobs"]["dose_10000"]
    assert job["status"] == "failed"
    assert "probeGuess: found float64" in job["error"]
    assert job["outputs"] == {}


def test_another_replicate_has_other_noise_on_the_same_scene(tmp_path, tiny_run, tiny_design_with):
    other = generated(tmp_path, tiny_design_with("replicate=1"))
    first, second = splits_of(tiny_run)["train"], splits_of(other)["train"]

    for key in ("objectGuess", "probeGuess", "xcoords", "ycoords", "scan_index"):
        np.testing.assert_array_equal(first[key], second[key])
    bright = model_of(first) > 5
    assert (counts_of(first) != counts_of(second))[bright].mean() > 0.8


def test_what_is_written_is_what_was_simulated(tmp_path, tiny_design, monkeypatch):
    """A world without noise: the patterns are those of the model."""

    def noise_free(**scene):
        simulated = simulate(**scene)
        patterns = {
            split: np.sqrt(
                expected_patterns(scene["object_"], simulated.probe, positions).round()
            ).astype(np.float32)
            for split, positions in scene["positions_px"].items()
        }
        return replace(simulated, amplitudes=patterns)

    monkeypatch.setattr(generation, "simulate", noise_free)
    run = generated(tmp_path, tiny_design)

    arrays = splits_of(run)["train"]
    assert np.abs(counts_of(arrays) - model_of(arrays)).max() < 0.51


@pytest.mark.parametrize("outside", [(3.0, 20.0), (20.0, 3.0), (37.0, 20.0), (20.0, 37.0)])
def test_no_pattern_is_simulated_beyond_the_object(outside):
    """Neither side wraps to the other, also where the first patterns lie inside."""
    inside = np.full((40, 2), 20.0)
    object_, probe = np.ones((40, 40), np.complex64), np.ones((8, 8), np.complex64)

    with pytest.raises(ValueError, match="scan position 40 of 41 leaves the object"):
        expected_patterns(object_, probe, np.vstack([inside, outside]))


def test_splits_that_share_object_rows_are_not_written(tmp_path, tiny_design, monkeypatch):
    def without_a_gap(*given):
        whole = scene_of(*given)
        rows = whole.positions_px[:, 0]
        middle = np.median(rows)
        return replace(whole, splits={"train": rows < middle, "test": rows >= middle})

    def shifted(**arrays):
        canonical = canonicalise(**arrays)
        return canonical | {"ycoords": np.full(len(canonical["ycoords"]), 20.0)}

    monkeypatch.setattr(generation, "scene_of", without_a_gap)
    monkeypatch.setattr(generation, "canonicalise", shifted)
    with pytest.raises(StudyError, match="lit by both splits"):
        generate(Run(tmp_path, tiny_design).condition(DOSE))

    assert not list(tmp_path.rglob("*.npz"))


def test_true_patches_are_written_on_request(tmp_path, tiny_design_with):
    run = generated(tmp_path, tiny_design_with("object_patches=true"))

    path = run.condition(DOSE, split="train").whole_file
    with np.load(path) as archive:
        patches, object_ = archive["Y"], archive["objectGuess"]
        corners = np.round([archive["ycoords"], archive["xcoords"]]).astype(int).T - 8
    assert validate(path).violations == ()
    for patch, (row, column) in zip(patches, corners, strict=True):
        np.testing.assert_array_equal(patch, object_[row : row + 16, column : column + 16])
