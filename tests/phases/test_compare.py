"""Fairness: same patterns, same mask, uniform start, nobody sees the truth; then the tables."""

import csv
import dataclasses
import hashlib
import json
import math
import re
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from scipy.ndimage import fourier_shift
from tiny_runs import generated, moved

from study_lib.arm_names import plain_label
from study_lib.data.archive import read_npz
from study_lib.data.contract import load_dataset, save_dataset
from study_lib.design.axes import SPLITS
from study_lib.design.presets import load_design
from study_lib.errors import InputError, StudyError
from study_lib.figures.common import colours_of
from study_lib.figures.results import condition_figure
from study_lib.files import read_json, sha256_of, write_json, write_npz
from study_lib.networks.pinn.bundle import BUNDLE, load_network
from study_lib.networks.thinned.ensemble import ENSEMBLE, load_ensemble
from study_lib.overlap.metrics import linear_overlap
from study_lib.overlap.views import view_record_of
from study_lib.phases import arms
from study_lib.phases import backends as native_backend
from study_lib.phases.arms import ARMS, ArmResult, arms_of
from study_lib.phases.compare import (
    compare,
    limit_of,
    limit_row,
    require_same_patterns,
    view_overlap,
)
from study_lib.phases.conditions import PHASES, Condition, GivenPlaces, summary_files
from study_lib.phases.overlap import choose_view
from study_lib.phases.reconstruct import reconstruct, reconstructions_of, result_of
from study_lib.phases.summary import summarize
from study_lib.phases.train import train
from study_lib.phases.train_thinned import train_thinned
from study_lib.physics.measurement import Measurement
from study_lib.runs.run import Run
from study_lib.scores.alignment import without_mean
from study_lib.scores.frc import FourierRingCorrelation, ring_correlation, ring_sums, window_of
from study_lib.scores.metrics import SCORES, metric_facts, ms_ssim_scales
from study_lib.scores.scoring import scored_pixels
from study_lib.solvers import ptychi as ptychi_engine
from study_lib.solvers import solver

pytestmark = pytest.mark.slow

DOSE = 1e4
VIEW = "sparse"
ARM_NAMES = {"pinn", "thinning-net", "lsqml", "lsqml-denoised", "solver", "solver-denoised"}
TINY = (
    "patch_size_px=16",
    "scan={kind: raster, rows: 7, columns: 9, step_px: 3.0, jitter_px: 0.6}",
    "probe.defocus_radius_px=3.0",
    "training.epochs=1",
    "training.steps_min=0",
    "training.precision=float32",
    "thinned.steps=4",
    "iterative.epochs=3",
)


def of(run: Run, split: str) -> Condition:
    return run.condition(DOSE, VIEW, split)


def compared(run: Run, split: str, name: str) -> Path:
    return of(run, split).folder("compare") / name


def rows_of(run: Run, split: str) -> list[dict]:
    return read_json(compared(run, split, "metrics.json"))


def weights(run: Run) -> str:
    """Return a hash of every weight of every network."""
    condition, digest = of(run, "train"), hashlib.sha256()
    network = load_network(condition.folder("train") / BUNDLE).network
    for one in (network, *load_ensemble(condition.folder("train_thinned") / ENSEMBLE).members):
        for weight in one.state_dict().values():
            digest.update(weight.contiguous().numpy().tobytes())
    return digest.hexdigest()


def iterated(run: Run, split: str) -> dict[str, np.ndarray]:
    """Return the arrays of every algorithm but the times."""
    found = reconstructions_of(of(run, split))
    assert found.keys() == set(run.design.iterative.algorithms)
    return {
        f"{algorithm} {key}": array
        for algorithm, arrays in found.items()
        for key, array in arrays.items()
        if key != "wall_s"
    }


def reconstruct_and_train(run: Run) -> None:
    train(of(run, "train"))
    train_thinned(of(run, "train"))
    for split in SPLITS:
        reconstruct(of(run, split))


def results_of(condition: Condition) -> dict[str, ArmResult]:
    """Return what every arm makes of a condition and of the files as they are."""
    arms = arms_of(condition.design)
    return {name: arm(condition, condition.measurement(), sha256_of) for name, arm in arms.items()}


@pytest.fixture(scope="module", autouse=True)
def one_thread():
    """Sums depend on how they are cut into threads."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.fixture(scope="module")
def seen() -> dict[str, list[Measurement | dict]]:
    """Every measurement that an arm of the run was given on the way."""
    return {"train": [], "lsqml": [], "solver": [], "pinn": [], "thinned": []}


@pytest.fixture(scope="module")
def run(tmp_path_factory, seen) -> Run:
    """Every phase once, with a witness at the door of each arm."""

    def witness(name, function):
        def call(*arguments, **named):
            measured = [one for one in arguments if isinstance(one, Measurement)]
            seen[name].append(measured[-1] if measured else named)
            return function(*arguments, **named)

        return call

    run = generated(tmp_path_factory.mktemp("run"), load_design("smoke", TINY))
    choose_view(run.condition(DOSE, VIEW))
    with pytest.MonkeyPatch.context() as patch:
        train_network = native_backend.train_network

        def train_seen(measurement, config, **settings):
            seen["train"].append(measurement)
            return train_network(measurement, config, **settings)

        patch.setattr(native_backend, "train_network", train_seen)
        patch.setattr(ptychi_engine, "run_ptychi", witness("lsqml", ptychi_engine.run_ptychi))
        patch.setattr(solver, "solve", witness("solver", solver.solve))
        patch.setattr(arms, "apply_network", witness("pinn", arms.apply_network))
        thinned = witness("thinned", arms.reconstruct_thinned)
        patch.setattr(arms, "reconstruct_thinned", thinned)
        reconstruct_and_train(run)
        for split in SPLITS:
            compare(of(run, split))
    return run


# --- fairness


def test_train_and_test_light_no_common_pixel(run):
    """Whole patches of every pattern of phase C, not only the bright part of the probe."""
    lit = {}
    for split in SPLITS:
        arrays, _ = load_dataset(of(run, split).whole_file)
        side = arrays["probeGuess"].shape[0]
        lit[split] = np.zeros(arrays["objectGuess"].shape, dtype=bool)
        for y, x in zip(arrays["ycoords"], arrays["xcoords"], strict=True):
            row, column = round(float(y)) - side // 2, round(float(x)) - side // 2
            lit[split][row : row + side, column : column + side] = True

    assert lit["train"].sum() > 500
    assert lit["test"].sum() > 500
    assert not (lit["train"] & lit["test"]).any()


def test_sparse_view_leaves_patterns_out(run):
    """Else the tests below could not tell a view from the whole split."""
    for split in SPLITS:
        whole = run.condition(DOSE, "baseline", split).measurement()
        kept = of(run, split).measurement().scan_index
        assert 8 <= len(kept) < len(whole.scan_index)
        assert np.isin(kept, whole.scan_index).all()


def test_every_arm_was_given_the_patterns_of_the_view(run, seen):
    (trained_on,) = seen["train"]
    wanted = {split: load_dataset(of(run, split).file)[0] for split in SPLITS}
    order = ("train", "test")

    assert np.array_equal(trained_on.amplitudes, wanted["train"]["diffraction"])
    assert np.array_equal(trained_on.groups, wanted["train"]["groups"])
    for split, *networks in zip(order, seen["pinn"], seen["thinned"], strict=True):
        # Beside the patterns themselves, thinned ones were seen by the solver and by LSQML.
        iterations = [
            given
            for name in ("lsqml", "solver")
            for given in seen[name]
            if np.array_equal(given["amplitudes"], wanted[split]["diffraction"])
        ]
        assert len(iterations) >= 2
        positions = np.stack([wanted[split]["ycoords"], wanted[split]["xcoords"]], axis=1)
        for given in (*map(vars, networks), *iterations):
            assert np.array_equal(given["amplitudes"], wanted[split]["diffraction"])
            assert np.array_equal(given["positions_px"], positions)
            assert np.array_equal(given["probe"], wanted[split]["probeGuess"])


@pytest.mark.parametrize("split", SPLITS)
def test_every_arm_reports_the_patterns_of_the_view(run, split):
    measurement = of(run, split).measurement()

    results = results_of(of(run, split))

    assert set(results) == ARM_NAMES
    for result in results.values():
        assert np.array_equal(result.scan_index, measurement.scan_index)
        assert result.object_.shape == measurement.object_shape
        assert "positions" in result.knows
    assert len({result.label for result in results.values()}) == len(results)
    assert {row["patterns"] for row in rows_of(run, split)} == {len(measurement.scan_index)}


def test_no_arm_can_see_the_truth(run, tmp_path):
    """Another object in the files, the same counts: not one byte of any result changes."""
    blind = Run(tmp_path, run.design)
    random = np.random.default_rng(1)
    for split in SPLITS:
        arrays, metadata = load_dataset(of(run, split).file)
        noise = random.normal(size=(2, *arrays["objectGuess"].shape))
        poison = arrays | {"objectGuess": (noise[0] + 1j * noise[1]).astype(np.complex64)}
        save_dataset(of(blind, split).file, poison, metadata)

    reconstruct_and_train(blind)

    assert weights(blind) == weights(run)
    for split in SPLITS:
        for key, array in iterated(run, split).items():
            assert iterated(blind, split)[key].tobytes() == array.tobytes(), key
        poisoned = results_of(of(blind, split))
        for name, honest in results_of(of(run, split)).items():
            assert poisoned[name].object_.tobytes() == honest.object_.tobytes(), name


def test_other_counts_do_change_every_arm(run, tmp_path):
    """The blindness test would pass for arms that ignore the file."""
    changed = Run(tmp_path, run.design)
    for split in SPLITS:
        arrays, metadata = load_dataset(of(run, split).file)
        flipped = arrays["diffraction"][:, ::-1].copy()
        save_dataset(of(changed, split).file, arrays | {"diffraction": flipped}, metadata)

    reconstruct_and_train(changed)

    assert weights(changed) != weights(run)
    for algorithm in run.design.iterative.algorithms:
        name = f"{algorithm} object"
        assert not np.array_equal(iterated(changed, "test")[name], iterated(run, "test")[name])


@pytest.mark.parametrize("arm", sorted(ARM_NAMES))
def test_a_result_from_other_data_is_refused(run, arm):
    """New counts at the same positions: the old result must not be scored against them."""
    condition = of(run, "test")
    commands = {"pinn": "train", "thinning-net": "train-thinned"}
    command = commands.get(arm, "reconstruct")

    with pytest.raises(StudyError, match=f"made from other data .* run `study {command}` again"):
        arms_of(run.design)[arm](condition, condition.measurement(), lambda path: "0" * 64)


@pytest.mark.parametrize("split", SPLITS)
def test_mask_is_known_before_any_arm(run, split):
    """Brute force from the file: box of the positions, a tenth of the median illumination."""
    arrays, _ = load_dataset(of(run, split).file)
    probe, side = arrays["probeGuess"], arrays["probeGuess"].shape[0]
    frequency = np.fft.fftfreq(side)
    photons = np.zeros(arrays["objectGuess"].shape)
    for y, x in zip(arrays["ycoords"], arrays["xcoords"], strict=True):
        row, column = round(float(y)), round(float(x))
        ramp = np.exp(-2j * np.pi * np.add.outer(frequency * (y - row), frequency * (x - column)))
        moved = np.fft.ifft2(np.fft.fft2(probe) * ramp)
        corner = (
            slice(row - side // 2, row + side // 2),
            slice(column - side // 2, column + side // 2),
        )
        photons[corner] += np.abs(moved) ** 2
    rows = slice(math.ceil(arrays["ycoords"].min()), math.floor(arrays["ycoords"].max()) + 1)
    columns = slice(math.ceil(arrays["xcoords"].min()), math.floor(arrays["xcoords"].max()) + 1)
    box = photons[rows, columns]

    aligned, metadata = read_npz(compared(run, split, "aligned.npz"))

    expected = box > 0.1 * np.median(box)
    assert (aligned["mask"] == expected).mean() > 0.999  # single precision at the threshold
    assert metadata["origin_px"] == [rows.start, columns.start]
    assert np.array_equal(aligned["truth"], arrays["objectGuess"][rows, columns])
    assert {aligned[name].shape for name in arms_of(run.design)} == {expected.shape}


def test_pixels_without_light_are_not_scored(run):
    """Three patterns; the third lies far from the others and nothing in between is lit."""
    measurement = of(run, "test").measurement()
    positions = np.array([[20.0, 10.0], [26.0, 14.0], [60.0, 30.0]])
    gappy = Measurement(
        amplitudes=measurement.amplitudes[:3],
        positions_px=positions,
        probe=measurement.probe,
        groups=np.arange(3)[:, None],
        scan_index=np.arange(3),
        object_shape=measurement.object_shape,
    )

    crop, mask = scored_pixels(gappy, 0.1)

    assert crop == (slice(20, 61), slice(10, 31))
    assert not mask[15:30].any()
    assert mask[:4].any()
    assert mask[-4:].any()


@pytest.mark.parametrize("change", ["fewer", "other", "order"])
def test_arm_with_other_patterns_stops_the_comparison(change, run):
    measurement = of(run, "test").measurement()
    index = measurement.scan_index
    used = {"fewer": index[1:], "other": index + 1, "order": index[::-1].copy()}[change]
    ones = np.ones(measurement.object_shape, np.complex64)
    result = ArmResult("Cheat", "the rest", ones, used, 0.0, 0.0, ())

    require_same_patterns(dataclasses.replace(result, scan_index=index), measurement)
    with pytest.raises(StudyError, match=r"Cheat was made from \d+ patterns, the view has \d+"):
        require_same_patterns(result, measurement)


def test_comparison_with_a_result_of_another_view_fails_and_says_so(run, tmp_path):
    """The iterative result of the whole split in the place of the view's."""
    condition = of(run, "test")
    there = moved(condition, reconstruct=tmp_path / "F", compare=tmp_path / "G")
    arrays, metadata = read_npz(result_of(condition, "LSQML"))
    path = result_of(there, "LSQML")
    path.parent.mkdir(parents=True)
    shorter = arrays | {"scan_index": arrays["scan_index"][:-1]}
    np.savez(path, **shorter, _metadata=np.array(json.dumps(metadata)))

    with pytest.raises(StudyError, match="LSQML was made from"):
        compare(there)

    (record,) = read_json(tmp_path / "G" / "comparison_manifest.json")["jobs"].values()
    assert record["status"] == "failed"
    assert not (there.folder("compare") / "metrics.json").exists()


# --- scores


def arm_of(change) -> object:
    """Return an arm that hands out a function of the truth."""

    def arm(condition: Condition, measurement: Measurement, hash_of: object) -> ArmResult:
        object_, index = change(condition.truth()), measurement.scan_index
        return ArmResult("Test arm", "the truth", object_, index, 0.0, 0.0, ())

    return arm


def test_perfect_arm_with_another_phase_and_scale_is_perfect(run, tmp_path, monkeypatch):
    """Global phase, phase ramp and scale are not in the patterns and cost nothing."""

    def free_choice(truth: np.ndarray) -> np.ndarray:
        ramp = 0.02 * np.arange(truth.shape[0])[:, None] - 0.03 * np.arange(truth.shape[1])
        return (3.7 * np.exp(1j * (2.1 + ramp)) * truth).astype(np.complex64)

    monkeypatch.setitem(ARMS, "perfect", arm_of(free_choice))

    rows = {row["arm"]: row for row in compare(moved(of(run, "test"), compare=tmp_path))}

    perfect = rows.pop("perfect")
    assert perfect["phase_ms_ssim"] > 0.999
    assert perfect["amplitude_ms_ssim"] > 0.999
    assert perfect["phase_mae_rad"] < 1e-3
    assert perfect["frc_crossing"] is None
    for name, metric in SCORES.items():
        for row in rows.values():
            if perfect[name] is not None:
                assert (perfect[name] > row[name]) == (metric.better == "higher"), name


@pytest.fixture(scope="module")
def scene(tmp_path_factory) -> Run:
    """Patterns of a scene of 47 x 75 pixels; nobody has reconstructed anything."""
    scan = "scan={kind: raster, rows: 16, columns: 24, step_px: 3.0, jitter_px: 0.6}"
    return generated(tmp_path_factory.mktemp("scene"), load_design("smoke", [scan]))


@pytest.mark.parametrize("shift_px", [0.0, 1.3])
def test_an_arm_that_is_the_truth_scores_one_in_everything(shift_px, scene, tmp_path, monkeypatch):
    """Through files, alignment and scores, after phase, ramp, scale and a sub-pixel shift.

    Grains with sharp edges ring when they are moved by a part of a pixel, and a crop cuts the
    ringing off: what comes back differs by two thousandths.
    """
    loss = 5e-3 if shift_px else 1e-6

    def shifted(truth: np.ndarray) -> np.ndarray:
        ramp = 0.02 * np.arange(truth.shape[0])[:, None] - 0.03 * np.arange(truth.shape[1])
        there = np.fft.ifft2(fourier_shift(np.fft.fft2(truth), (shift_px, -shift_px)))
        return (0.4 * np.exp(1j * (ramp - 1.9)) * there).astype(np.complex64)

    monkeypatch.setitem(ARMS, "moved", arm_of(shifted))

    (row,) = compare(moved(scene.condition(DOSE, "baseline"), compare=tmp_path))

    found = np.array([-row["shift_row_px"], row["shift_column_px"]])
    np.testing.assert_allclose(found, shift_px, atol=0.002)
    assert row["registration"] == "ok"
    for name in ("phase_ms_ssim", "phase_ssim", "amplitude_ms_ssim", "amplitude_ssim"):
        assert row[name] == pytest.approx(1, abs=loss), name
    for name in ("frc", "frc_half_bit", "frc_one_bit", "frc_seventh", "spectral_snr"):
        assert row[f"{name}_crossing"] is None, name
        assert row[f"{name}_crossing_outcome"] == "never below", name
    assert row["complex_nrmse"] < loss


def test_two_draws_of_noise_score_as_theory_says(run, tmp_path, monkeypatch):
    """White complex noise: known squared errors, PSNR, FRC with the truth and between the draws."""
    sigma = 0.05  # of real and imaginary part

    def noisy(seed: int):
        def change(truth: np.ndarray) -> np.ndarray:
            rng = np.random.default_rng(seed)
            noise = rng.normal(0, sigma, (2, *truth.shape))
            return (truth + noise[0] + 1j * noise[1]).astype(np.complex64)

        return change

    for seed in (1, 2):
        monkeypatch.setitem(ARMS, f"noise{seed}", arm_of(noisy(seed)))

    condition = moved(of(run, "test"), compare=tmp_path)
    rows = {row["arm"]: row for row in compare(condition)}

    aligned, _ = read_npz(condition.folder("compare") / "aligned.npz")
    truth, mask = aligned["truth"], aligned["mask"]
    modulus = np.abs(truth[mask])
    expected = {"phase_mse_rad2": (sigma**2 / modulus**2).mean(), "amplitude_mse": sigma**2}
    spread = 4 * np.sqrt(2 / mask.sum())  # four standard errors of a variance
    spans = {"phase": np.ptp(np.angle(truth[mask])), "amplitude": np.ptp(modulus)}
    for row in (rows["noise1"], rows["noise2"]):
        for (name, value), (part, span) in zip(expected.items(), spans.items(), strict=True):
            assert row[name] == pytest.approx(value, rel=spread), name
            psnr_db = 10 * np.log10(span**2 / value)
            assert row[f"{part}_psnr_db"] == pytest.approx(psnr_db, abs=4.4 * spread)
    window = window_of(mask)
    spectrum = np.fft.fft2(without_mean(truth, window))
    signal = ring_sums(np.abs(spectrum) ** 2)
    noise = 2 * sigma**2 * (window**2).sum() * ring_sums(np.ones(mask.shape))
    half = ring_correlation(aligned["noise1"], aligned["noise2"], mask)
    whole = ring_correlation(aligned["noise1"], truth, mask)
    chance = 4 / np.sqrt(2 * half.samples)
    assert (np.abs(half.correlation - signal / (signal + noise)) < chance).all()
    assert (np.abs(whole.correlation - np.sqrt(signal / (signal + noise))) < chance).all()


def test_the_likelihood_of_fresh_counts_orders_truth_solver_and_ones(run, tmp_path, monkeypatch):
    monkeypatch.setitem(ARMS, "truth", arm_of(lambda truth: truth))
    monkeypatch.setitem(ARMS, "ones", arm_of(np.ones_like))

    excess = {
        row["arm"]: row["held_out_excess_nats"]
        for row in compare(moved(of(run, "test"), compare=tmp_path))
    }

    assert excess["truth"] == 0
    assert 0 < excess["solver"] < excess["ones"]


def test_each_condition_has_its_picture_and_says_what_its_numbers_mean(run):
    picture = compared(run, "test", "comparison.png").read_bytes()
    assert picture.startswith(b"\x89PNG")
    assert len(picture) > 10_000
    jobs = read_json(of(run, "test").manifest("compare"))["jobs"]
    (job,) = (job for key, job in jobs.items() if key.endswith("test"))
    assert job["results"]["metrics"].keys() == metric_facts().keys()
    for row in rows_of(run, "test"):
        assert row["replicate"] == 0
        assert row["wiener_phase_rad"] < row["shrinking_limit_phase_rad"]
        assert row["shrinking_limit_phase_rad"] <= row["photon_limit_phase_rad"]


def test_arm_that_returns_nothing_but_ones_scores_low_and_harms_nobody(run, tmp_path, monkeypatch):
    monkeypatch.setitem(ARMS, "ones", arm_of(np.ones_like))

    rows = {row["arm"]: row for row in compare(moved(of(run, "test"), compare=tmp_path))}

    ones = rows.pop("ones")
    assert ones["phase_ms_ssim"] < rows["lsqml"]["phase_ms_ssim"]
    assert ones["phase_ms_ssim"] < 0.5
    assert ones["phase_spread_rad"] < 0.05  # the ramp that is fitted to the truth
    assert ones["registration"] == "featureless"
    assert ones["frc_crossing"] is None
    assert ones["frc_half_bit_crossing_outcome"].startswith("below")
    timeless = [key for key in ones if key not in ("cpu_s", "training_cpu_s")]
    for before in rows_of(run, "test"):
        assert [before[key] for key in timeless] == [rows[before["arm"]][key] for key in timeless]


@pytest.mark.parametrize(
    ("change", "message"),
    [(np.zeros_like, "zero"), (lambda truth: truth * np.float32(np.nan), "not finite|NaN|finite")],
)
def test_arm_without_an_object_stops_the_comparison(change, message, run, tmp_path, monkeypatch):
    monkeypatch.setitem(ARMS, "broken", arm_of(change))

    with pytest.raises(ValueError, match=message):
        compare(moved(of(run, "test"), compare=tmp_path))


@pytest.mark.parametrize("split", SPLITS)
def test_metrics_are_finite_or_null(run, split):
    def refuse(text):
        raise AssertionError(f"{text} is not JSON")

    text = compared(run, split, "metrics.json").read_text()
    rows = json.loads(text, parse_constant=refuse)
    aligned, _ = read_npz(compared(run, split, "aligned.npz"))
    scales = ms_ssim_scales(aligned["mask"].shape)

    assert [row["arm"] for row in rows] == list(arms_of(run.design))
    for row in rows:
        assert metric_facts().keys() <= row.keys()
        assert (row["dose"], row["view"], row["split"]) == (DOSE, VIEW, split)
        assert row["ms_ssim_scales"] == scales < 5, "fewer fit, and that is written down"
        numbers = [value for value in row.values() if isinstance(value, float)]
        assert all(map(math.isfinite, numbers))
        assert row["cpu_s"] > 0
    with compared(run, split, "metrics.csv").open(encoding="ascii") as file:
        assert [row["arm"] for row in csv.DictReader(file)] == list(arms_of(run.design))


def test_scores_can_be_checked_from_the_aligned_file(run):
    """Anyone can recompute the mean phase error from what is stored, without this library."""
    aligned, _ = read_npz(compared(run, "test", "aligned.npz"))

    for row in rows_of(run, "test"):
        difference = np.angle(aligned[row["arm"]] * aligned["truth"].conj())[aligned["mask"]]
        assert np.abs(difference).mean() == pytest.approx(row["phase_mae_rad"], rel=1e-3)
        error = np.sqrt((difference**2).mean())
        limit = row["photon_limit_phase_rad"]
        assert error / limit == pytest.approx(row["phase_error_over_limit"], rel=1e-3)
        std_rad = aligned["photon_limit_phase_std_rad"]
        assert np.sqrt((std_rad[aligned["mask"]] ** 2).mean()) == pytest.approx(limit, rel=1e-3)
        assert np.isnan(std_rad[~aligned["mask"]]).all()
        assert std_rad[aligned["mask"]].min() > 0
        uncertainty_rad = aligned["photon_limit_phase_std_uncertainty_rad"][aligned["mask"]]
        assert 0 < np.median(uncertainty_rad) < 0.5 * limit
        assert 0 < row["photon_limit_phase_uncertainty_rad"] < 0.2 * limit


def test_the_photon_limit_is_one_for_all_arms_and_falls_with_the_dose(run):
    (limit_rad,) = {row["photon_limit_phase_rad"] for row in rows_of(run, "test")}
    measurement = of(run, "test").measurement()
    arrays, _ = load_dataset(of(run, "test").file)
    crop, mask = scored_pixels(measurement, run.design.metrics.illumination_threshold)
    brighter = dataclasses.replace(measurement, probe=3 * measurement.probe)

    limit = limit_of(brighter, arrays["objectGuess"], crop, mask, run.design)

    assert limit_rad == pytest.approx(3 * limit.phase_rms_rad, rel=1e-3)
    assert limit.phase_rms_rad > limit.ideal_phase_rms_rad


def test_an_object_with_a_hole_has_no_photon_limit(run):
    measurement = of(run, "test").measurement()
    arrays, _ = load_dataset(of(run, "test").file)
    crop, mask = scored_pixels(measurement, run.design.metrics.illumination_threshold)
    holed = arrays["objectGuess"].copy()
    first = np.argwhere(mask)[0]
    holed[first[0] + crop[0].start, first[1] + crop[1].start] = 0

    limit = limit_of(measurement, holed, crop, mask, run.design)

    assert limit is None
    assert limit_row(limit, {"phase_mse_rad2": 1.0})["phase_error_over_limit"] is None


def test_a_design_that_asks_for_no_photon_limit_gets_none(run, tiny_design_with):
    design = tiny_design_with("metrics.photon_limit_solves=0")
    measurement = of(run, "test").measurement()
    arrays, _ = load_dataset(of(run, "test").file)
    crop, mask = scored_pixels(measurement, run.design.metrics.illumination_threshold)

    assert limit_of(measurement, arrays["objectGuess"], crop, mask, design) is None


@pytest.mark.parametrize(
    ("missing", "arms", "reason"),
    [
        (
            ("train", "train_thinned"),
            {"pinn", "thinning-net"},
            r"(PtychoPINN|thinning network): .*\.pt is not there; run `study train",
        ),
        (
            ("reconstruct",),
            ARM_NAMES - {"pinn", "thinning-net"},
            r"it was not run; run `study reconstruct`",
        ),
    ],
)
def test_a_missing_arm_is_a_missing_row_with_its_reason(missing, arms, reason, run, tmp_path):
    nothing = dict.fromkeys(missing, tmp_path / "nothing")
    places = {"compare": tmp_path / "G", "summary": tmp_path / "H"}
    condition = moved(of(run, "test"), **nothing, **places)

    rows = compare(condition)

    assert {row["arm"] for row in rows} == arms_of(run.design).keys() - arms
    folder = condition.folder("compare")
    written = read_json(folder / "missing_arms.json")
    assert written.keys() == arms
    assert all(re.search(reason, text) for text in written.values())
    assert read_npz(folder / "aligned.npz")[0].keys().isdisjoint(arms)
    assert reason_lines(summarize(condition), tmp_path / "H") == len(arms)


def reason_lines(rows: list[dict], folder: Path) -> int:
    """Return how many missing arms the summary of these rows tells."""
    assert rows
    text = (folder / "summary.md").read_text(encoding="utf-8")
    return sum(line.startswith("- missing: ") for line in text.splitlines())


def test_a_failed_algorithm_is_missing_with_its_error(run, tmp_path):
    """Not a result of an earlier run in its place."""
    condition = moved(of(run, "test"), reconstruct=tmp_path / "F", compare=tmp_path / "G")
    key = result_of(condition, "LSQML").parent.relative_to(tmp_path / "F").as_posix()
    record = {"status": "failed", "error": "StudyError: LSQML diverged"}
    write_json(condition.manifest("reconstruct"), {"jobs": {key: record}})

    compare(condition)

    reasons = read_json(condition.folder("compare") / "missing_arms.json")
    assert reasons["lsqml"] == "LSQML: StudyError: LSQML diverged"


def test_comparison_without_any_arm_says_so(run, tmp_path):
    nothing = dict.fromkeys(("train", "train_thinned", "reconstruct"), tmp_path / "nothing")

    reasons = r"no arm has a result: PtychoPINN: .*; LSQML: .*; solver: "
    with pytest.raises(InputError, match=reasons):
        compare(moved(of(run, "test"), compare=tmp_path, **nothing))


# --- summary


def summarized(run: Run, folder: Path) -> list[dict]:
    """Return the summary of a run, which is written to a folder of its own."""
    return summarize(GivenPlaces(compare=run.root("compare"), summary=folder))


def test_summary_has_one_row_for_each_condition_and_arm(run, tmp_path):
    rows = summarized(run, tmp_path)

    assert len(rows) == 2 * len(arms_of(run.design))
    for name, split in (("table.csv", "test"), ("table_train.csv", "train")):
        with (tmp_path / name).open(encoding="ascii") as file:
            table = list(csv.DictReader(file))
        keys = [(float(row["dose"]), row["view"], row["arm"], row["split"]) for row in table]
        assert sorted(keys) == sorted((DOSE, VIEW, arm, split) for arm in arms_of(run.design))


def test_summary_shows_every_arm_and_existing_figures(run, tmp_path):
    summarized(run, tmp_path)

    text = (tmp_path / "summary.md").read_text(encoding="utf-8")
    for row in rows_of(run, "test"):
        assert text.count(f" | {row['label']} | {row['patterns']} | ") == 2  # test and train
        assert text.count(f" | {row['label']} | ") == (2 if row["arm"] == "lsqml" else 4)
    assert "one replicate, so no spread" in text
    assert "The dose is that of each pattern, so a view of more patterns" in text
    figures = [line.split("](")[1].rstrip(")") for line in text.splitlines() if "![" in line]
    assert len(figures) == 6
    for figure in figures:
        content = (tmp_path / figure).read_bytes()
        assert content.startswith(b"\x89PNG")
        assert len(content) > 10_000
        assert b"<svg" in (tmp_path / figure).with_suffix(".svg").read_bytes()


def test_summary_writes_what_the_plan_expects_and_twice_the_same(run, tmp_path):
    for name in ("once", "twice"):
        summarized(run, tmp_path / name)

    once, twice = (
        {path.name: path.read_bytes() for path in summary_files(tmp_path / name, run.design)}
        for name in ("once", "twice")
    )
    assert once == twice
    recorded = json.loads((tmp_path / "once" / "summary_manifest.json").read_text())
    outputs = recorded["jobs"]["summary"]["outputs"]
    assert {Path(name).name for name in outputs} == once.keys()


def test_summary_as_data_says_what_the_text_says(run, tmp_path):
    table = summarized(run, tmp_path)

    written = json.loads((tmp_path / "summary.json").read_text())
    assert written["study_table"] == table
    assert written["dose_held_fixed"] == "per pattern"
    assert written["metrics"] == metric_facts()
    text = (tmp_path / "summary.md").read_text(encoding="utf-8")
    for split in SPLITS:
        assert len(written["findings"][split]) > 5
        assert all(f"- {line}\n" in text for line in written["findings"][split])
    assert {row["arm"] for row in written["highlights"]} == {
        row["label"] for row in table if row["arm"] != "lsqml"
    }


def test_inventory_lists_what_the_phases_recorded_with_its_hash(run, tmp_path):
    """The whole run is listed, and each file once; a summary does not list itself."""
    copy = Run(tmp_path / "run", run.design)
    shutil.copytree(run.folder, copy.folder)
    for _ in range(2):
        summarize(copy)

    with (copy.root("summary") / "inventory.csv").open(encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    assert len({row["path"] for row in rows}) == len(rows)
    assert [row["path"] for row in rows] == sorted(row["path"] for row in rows)
    for row in rows:
        path = copy.folder / row["path"]
        assert (int(row["bytes"]), row["sha256"]) == (path.stat().st_size, sha256_of(path))
    found = {row["phase"] for row in rows}
    assert found == {copy.root(phase).name for phase in PHASES if phase != "summary"}
    assert any(row["path"].endswith("gs2/model.pt") for row in rows)


def test_replicates_from_before_and_after_an_arm_was_renamed_are_one_arm(run, tmp_path):
    first, second = (Run(tmp_path / place, run.design) for place in ("", "replicate_1"))
    for one in (first, second):
        shutil.copytree(run.root("compare"), one.root("compare"))
    old = {"arm": "pinn-thinned", "label": "PtychoPINN thinned"}
    for split in SPLITS:
        path = compared(first, split, "metrics.json")
        rows = [row | old if row["arm"] == "thinning-net" else row for row in read_json(path)]
        write_json(path, rows)
        arrays, metadata = read_npz(compared(first, split, "aligned.npz"))
        ours = [name for name in arrays if name.startswith("thinning-net")]
        assert len(ours) == 2
        for name in ours:
            arrays[name.replace("thinning-net", "pinn-thinned")] = arrays.pop(name)
        write_npz(compared(first, split, "aligned.npz"), arrays, metadata)
        path = compared(second, split, "metrics.json")
        write_json(path, [row | {"replicate": 1} for row in read_json(path)])

    table = summarized(first, tmp_path / "H")

    assert {row["arm"] for row in table} == ARM_NAMES
    assert {row["replicates"] for row in table} == {2}
    labels = {plain_label(row["label"]) for row in table if row["arm"] == "thinning-net"}
    assert labels == {"thinning network"}


def test_replicates_are_gathered_into_means_and_spreads(run, tmp_path):
    """From the folders that a run keeps its replicates in; figures show the first."""
    first, second = (Run(tmp_path / place, run.design) for place in ("", "replicate_1"))
    scores = {}
    for replicate, one in enumerate((first, second)):
        shutil.copytree(run.root("compare"), one.root("compare"))
        path = compared(one, "test", "metrics.json")
        rows = read_json(path)
        for row in rows:
            row["replicate"] = replicate
            row["phase_ms_ssim"] += 0.01 * replicate
            row["registration"] = "ok"
            scores.setdefault(row["arm"], []).append(row["phase_ms_ssim"])
        write_json(path, rows)

    table = summarized(first, tmp_path / "H")

    for row in (row for row in table if row["split"] == "test"):
        assert row["replicates"] == 2
        assert row["phase_ms_ssim"] == pytest.approx(np.mean(scores[row["arm"]]))
        assert row["phase_ms_ssim_std"] == pytest.approx(0.01 / np.sqrt(2))
    text = (tmp_path / "H" / "summary.md").read_text(encoding="utf-8")
    assert f"{np.mean(scores['lsqml']):.3f} ± 0.007" in text
    with (tmp_path / "H" / "table.csv").open(encoding="utf-8") as file:
        assert {row["replicate"] for row in csv.DictReader(file)} == {"0", "1"}


def test_summary_of_nothing_names_the_command(tmp_path):
    with pytest.raises(InputError, match="no comparison found; run `study compare` first"):
        summarize(GivenPlaces(compare=tmp_path, summary=tmp_path / "H"))
    assert not (tmp_path / "H").exists()


def test_overlap_and_target_are_those_the_patterns_were_chosen_with(run, tmp_path):
    """And not what the design wanted, where `study overlap` was called with another."""
    view = run.design.view(VIEW).model_copy(update={"target_overlap": None, "s_img": 0.7})
    design = run.design.model_copy(update={"views": (view,), "neighbor_count": 5})
    changed = Run(run.folder, design).condition(DOSE, VIEW)
    condition = moved(changed, views=tmp_path, overlap=tmp_path)
    metrics = choose_view(condition, 11.0)["test"]

    made = view_record_of(load_dataset(condition.file)[1], str(condition.file))
    found = view_overlap(condition.measurement(), made, run.design)

    linear = linear_overlap(metrics["metric_2_image"])
    assert found == {
        "overlap": metrics["metric_2_image"],
        "overlap_linear": linear,
        "overlap_target": None,
    }
    assert linear > metrics["metric_2_image"], "a share of the diameter is more than of the area"
    rows = rows_of(run, "test")
    bundle = read_json(of(run, "test").folder("overlap") / "test_metrics.json")
    assert rows[0]["overlap"] == bundle["metric_2_image"]
    assert rows[0]["overlap_target"] == run.design.view(VIEW).target_overlap


def test_a_curve_without_a_crossing_says_why(rng):
    truth = np.exp(1j * rng.normal(size=(12, 16)))
    frequency = np.linspace(0, 1, 8)
    samples = np.arange(2.0, 60.0, 7.5)
    curves = {
        name: FourierRingCorrelation(frequency, values, samples)
        for name, values in {
            "sharp": np.full(8, 0.9),
            "blurred": 1 - frequency,
            "slow": np.where(frequency > 0, 0.9, 0.4),
            "empty": np.zeros(8),
        }.items()
    }

    figure = condition_figure(
        truth,
        dict.fromkeys(curves, truth),
        np.ones(truth.shape, bool),
        curves,
        threshold=0.5,
        ceiling=np.array([]),
        title="t",
    )

    labels = [text.get_text() for text in figure.legends[0].get_texts()]
    assert labels == [
        "sharp, never below",
        "blurred",
        "slow, below at first, then above",
        "empty, below from the first rings",
        "threshold 0.5",
    ]


def test_an_arm_has_one_colour_whether_it_is_called_by_key_or_by_label():
    keys = ["solver", "pinn", "lsqml-denoised", "thinning-net", "lsqml", "solver-denoised"]
    labels = {
        "lsqml": "LSQML",
        "lsqml-denoised": "LSQML denoised",
        "pinn": "PtychoPINN",
        "thinning-net": "thinning network",
        "solver": "solver",
        "solver-denoised": "solver denoised",
    }

    by_key, by_label = colours_of(keys), colours_of(labels.values())

    assert len(set(by_key.values())) == len(keys)
    assert {key: by_label[labels[key]] for key in keys} == by_key
