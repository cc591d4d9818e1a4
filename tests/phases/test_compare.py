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

from study_lib.data.archive import read_npz
from study_lib.data.contract import load_dataset, save_dataset
from study_lib.data.datasets import load_measurement
from study_lib.design.models import SPLITS, StudyDesign
from study_lib.design.presets import load_design
from study_lib.errors import InputError, StudyError
from study_lib.figures.common import colours_of
from study_lib.figures.results import condition_figure
from study_lib.files import sha256_of, write_npz
from study_lib.networks.pinn.bundle import BUNDLE, load_bundle
from study_lib.networks.thinned.ensemble import ENSEMBLE, load_ensemble
from study_lib.overlap.views import view_record_of
from study_lib.phases import arms
from study_lib.phases import backends as native_backend
from study_lib.phases.arms import ARMS, ArmRequest, ArmResult, arms_of
from study_lib.phases.compare import (
    compare_view,
    limit_of,
    limit_row,
    require_same_patterns,
    view_overlap,
)
from study_lib.phases.conditions import (
    RESULT,
    arm_folder,
    comparison_folder,
    phase_root,
    summary_files,
    thinned_folder,
    training_folder,
    view_path,
)
from study_lib.phases.dataset import generate_dose
from study_lib.phases.overlap import write_view
from study_lib.phases.reconstruct import reconstruct_view
from study_lib.phases.summary import write_summary
from study_lib.phases.train import train_view
from study_lib.phases.train_thinned import train_thinned_view
from study_lib.physics.measurement import Measurement
from study_lib.scores.alignment import without_mean
from study_lib.scores.frc import fourier_ring_correlation, ring_sums, window_of
from study_lib.scores.metrics import METRICS, SCORES, metric_facts, ms_ssim_scales
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


@dataclasses.dataclass
class Run:
    """A finished run of one view, and every measurement that an arm was given on the way."""

    root: Path
    design: StudyDesign
    seen: dict[str, list[Measurement | dict]]

    def source(self, split: str, view: str = VIEW) -> Path:
        return view_path(self.root / "C", self.root / "D", DOSE, view, split)

    def roots(self, *, of: str = "CDEF") -> dict[str, Path]:
        return {f"phase_{phase.lower()}_root": self.root / phase for phase in of}

    def compare(self, split: str, artifact_root: Path, view: str = VIEW) -> list[dict]:
        roots = self.roots()
        return compare_view(self.design, DOSE, view, split, artifact_root=artifact_root, **roots)

    def rows(self, split: str) -> list[dict]:
        return json.loads(self.compared(split, "metrics.json").read_text())

    def compared(self, split: str, name: str) -> Path:
        return comparison_folder(self.root / "G", DOSE, VIEW, split) / name

    def weights(self) -> str:
        path = training_folder(self.root / "E", DOSE, VIEW, 2) / BUNDLE
        digest = hashlib.sha256()
        members = load_ensemble(thinned_folder(self.root / "E", DOSE, VIEW) / ENSEMBLE).members
        for network in (load_bundle(path).network, *members):
            for weight in network.state_dict().values():
                digest.update(weight.contiguous().numpy().tobytes())
        return digest.hexdigest()

    def iterated(self, split: str) -> dict[str, np.ndarray]:
        """Return the arrays of every algorithm but the times."""
        found = {}
        for algorithm in self.design.iterative.algorithms:
            folder = arm_folder(self.root / "F", DOSE, VIEW, split, algorithm)
            arrays, _ = read_npz(folder / RESULT)
            found |= {f"{algorithm} {key}": array for key, array in arrays.items()}
        return {key: array for key, array in found.items() if not key.endswith(" wall_s")}


def reconstruct_and_train(run: Run) -> None:
    roots = run.roots(of="CD")
    train_view(run.design, DOSE, VIEW, artifact_root=run.root / "E", **roots)
    train_thinned_view(run.design, DOSE, VIEW, artifact_root=run.root / "E", **roots)
    for split in SPLITS:
        reconstruct_view(run.design, DOSE, VIEW, split, artifact_root=run.root / "F", **roots)


@pytest.fixture(scope="module", autouse=True)
def one_thread():
    """Sums depend on how they are cut into threads."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


def request_of(run, split):
    """Return what an arm is asked for, with the hashes of the files as they are."""
    return ArmRequest(
        dose=DOSE,
        view=VIEW,
        gridsize=2,
        split=split,
        measurement=load_measurement(run.source(split)),
        sha256=sha256_of(run.source(split)),
        train_sha256=sha256_of(run.source("train")),
        phase_e_root=run.root / "E",
        phase_f_root=run.root / "F",
    )


@pytest.fixture(scope="module")
def run(tmp_path_factory) -> Run:
    """Every phase once, with a witness at the door of each arm."""
    root = tmp_path_factory.mktemp("run")
    design = load_design("smoke", TINY)
    run = Run(root, design, {"train": [], "lsqml": [], "solver": [], "pinn": [], "thinned": []})

    def witness(name, function):
        def call(*arguments, **named):
            measured = [one for one in arguments if isinstance(one, Measurement)]
            run.seen[name].append(measured[-1] if measured else named)
            return function(*arguments, **named)

        return call

    generate_dose(design, DOSE, root / "C")
    write_view(
        design,
        DOSE,
        VIEW,
        phase_c_root=root / "C",
        output_root=root / "D",
        artifact_root=root / "D",
    )
    with pytest.MonkeyPatch.context() as patch:
        train = native_backend.train_network

        def train_seen(measurement, config, **settings):
            run.seen["train"].append(measurement)
            return train(measurement, config, **settings)

        patch.setattr(native_backend, "train_network", train_seen)
        patch.setattr(ptychi_engine, "run_ptychi", witness("lsqml", ptychi_engine.run_ptychi))
        patch.setattr(solver, "solve", witness("solver", solver.solve))
        patch.setattr(arms, "apply_network", witness("pinn", arms.apply_network))
        thinned = witness("thinned", arms.reconstruct_thinned)
        patch.setattr(arms, "reconstruct_thinned", thinned)
        reconstruct_and_train(run)
        for split in SPLITS:
            run.compare(split, root / "G")
    return run


# --- fairness


def test_train_and_test_light_no_common_pixel(run):
    """Whole patches of every pattern of phase C, not only the bright part of the probe."""
    lit = {}
    for split in SPLITS:
        arrays, _ = load_dataset(run.root / "C" / "dose_10000" / f"patched_{split}.npz")
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
        whole = load_measurement(view_path(run.root / "C", run.root / "D", DOSE, "baseline", split))
        kept = load_measurement(run.source(split)).scan_index
        assert 8 <= len(kept) < len(whole.scan_index)
        assert np.isin(kept, whole.scan_index).all()


def test_every_arm_was_given_the_patterns_of_the_view(run):
    (trained_on,) = run.seen["train"]
    wanted = {split: load_dataset(run.source(split))[0] for split in SPLITS}
    order = ("train", "test")

    assert np.array_equal(trained_on.amplitudes, wanted["train"]["diffraction"])
    assert np.array_equal(trained_on.groups, wanted["train"]["groups"])
    for split, *networks in zip(order, run.seen["pinn"], run.seen["thinned"], strict=True):
        # Beside the patterns themselves, thinned ones were seen by the solver and by LSQML.
        iterations = [
            seen
            for name in ("lsqml", "solver")
            for seen in run.seen[name]
            if np.array_equal(seen["amplitudes"], wanted[split]["diffraction"])
        ]
        assert len(iterations) >= 2
        positions = np.stack([wanted[split]["ycoords"], wanted[split]["xcoords"]], axis=1)
        for seen in (*map(vars, networks), *iterations):
            assert np.array_equal(seen["amplitudes"], wanted[split]["diffraction"])
            assert np.array_equal(seen["positions_px"], positions)
            assert np.array_equal(seen["probe"], wanted[split]["probeGuess"])


@pytest.mark.parametrize("split", SPLITS)
def test_every_arm_reports_the_patterns_of_the_view(run, split):
    measurement = load_measurement(run.source(split))
    request = request_of(run, split)

    results = {name: arm(request) for name, arm in arms_of(run.design).items()}

    assert set(results) == ARM_NAMES
    for result in results.values():
        assert np.array_equal(result.scan_index, measurement.scan_index)
        assert result.object_.shape == measurement.object_shape
        assert "positions" in result.knows
    assert len({result.label for result in results.values()}) == len(results)
    assert {row["patterns"] for row in run.rows(split)} == {len(measurement.scan_index)}


def test_no_arm_can_see_the_truth(run, tmp_path):
    """Another object in the files, the same counts: not one byte of any result changes."""
    blind = Run(tmp_path, run.design, {})
    random = np.random.default_rng(1)
    for split in SPLITS:
        arrays, metadata = load_dataset(run.source(split))
        noise = random.normal(size=(2, *arrays["objectGuess"].shape))
        poison = arrays | {"objectGuess": (noise[0] + 1j * noise[1]).astype(np.complex64)}
        save_dataset(blind.source(split), poison, metadata)

    reconstruct_and_train(blind)

    assert blind.weights() == run.weights()
    for split in SPLITS:
        for key, array in run.iterated(split).items():
            assert blind.iterated(split)[key].tobytes() == array.tobytes(), key
        for arm in arms_of(run.design).values():
            poisoned, honest = arm(request_of(blind, split)), arm(request_of(run, split))
            assert poisoned.object_.tobytes() == honest.object_.tobytes()


def test_other_counts_do_change_every_arm(run, tmp_path):
    """The blindness test would pass for arms that ignore the file."""
    changed = Run(tmp_path, run.design, {})
    for split in SPLITS:
        arrays, metadata = load_dataset(run.source(split))
        flipped = arrays["diffraction"][:, ::-1].copy()
        save_dataset(changed.source(split), arrays | {"diffraction": flipped}, metadata)

    reconstruct_and_train(changed)

    assert changed.weights() != run.weights()
    for algorithm in run.design.iterative.algorithms:
        name = f"{algorithm} object"
        assert not np.array_equal(changed.iterated("test")[name], run.iterated("test")[name])


@pytest.mark.parametrize("arm", sorted(ARM_NAMES))
def test_a_result_from_other_data_is_refused(run, arm):
    """New counts at the same positions: the old result must not be scored against them."""
    stale = dataclasses.replace(request_of(run, "test"), sha256="0" * 64, train_sha256="0" * 64)

    with pytest.raises(StudyError, match=r"made from other data .* run its phase again"):
        arms_of(run.design)[arm](stale)


@pytest.mark.parametrize("split", SPLITS)
def test_mask_is_known_before_any_arm(run, split):
    """Brute force from the file: box of the positions, a tenth of the median illumination."""
    arrays, _ = load_dataset(run.source(split))
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

    aligned, metadata = read_npz(run.compared(split, "aligned.npz"))

    expected = box > 0.1 * np.median(box)
    assert (aligned["mask"] == expected).mean() > 0.999  # single precision at the threshold
    assert metadata["origin_px"] == [rows.start, columns.start]
    assert np.array_equal(aligned["truth"], arrays["objectGuess"][rows, columns])
    assert {aligned[name].shape for name in arms_of(run.design)} == {expected.shape}


def test_pixels_without_light_are_not_scored(run):
    """Three patterns; the third lies far from the others and nothing in between is lit."""
    measurement = load_measurement(run.source("test"))
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
    measurement = load_measurement(run.source("test"))
    index = measurement.scan_index
    used = {"fewer": index[1:], "other": index + 1, "order": index[::-1].copy()}[change]
    ones = np.ones(measurement.object_shape, np.complex64)
    result = ArmResult("Cheat", "the rest", ones, used, 0.0, 0.0, ())

    require_same_patterns(dataclasses.replace(result, scan_index=index), measurement)
    with pytest.raises(StudyError, match=r"Cheat was made from \d+ patterns, the view has \d+"):
        require_same_patterns(result, measurement)


def test_comparison_with_a_result_of_another_view_fails_and_says_so(run, tmp_path):
    """The iterative result of the whole split in the place of the view's."""
    folder = arm_folder(tmp_path / "F", DOSE, VIEW, "test", "LSQML")
    before = arm_folder(run.root / "F", DOSE, VIEW, "test", "LSQML")
    arrays, metadata = read_npz(before / RESULT)
    folder.mkdir(parents=True)
    shorter = arrays | {"scan_index": arrays["scan_index"][:-1]}
    np.savez(folder / RESULT, **shorter, _metadata=np.array(json.dumps(metadata)))
    roots = run.roots() | {"phase_f_root": tmp_path / "F"}

    with pytest.raises(StudyError, match="LSQML was made from"):
        compare_view(run.design, DOSE, VIEW, "test", artifact_root=tmp_path / "G", **roots)

    (record,) = json.loads((tmp_path / "G" / "comparison_manifest.json").read_text())[
        "jobs"
    ].values()
    assert record["status"] == "failed"
    assert not (comparison_folder(tmp_path / "G", DOSE, VIEW, "test") / "metrics.json").exists()


# --- scores


def arm_of(run: Run, change, view: str = VIEW) -> object:
    """Return an arm that hands out a function of the truth."""

    def arm(request: ArmRequest) -> ArmResult:
        truth = load_dataset(run.source(request.split, view))[0]["objectGuess"]
        index = request.measurement.scan_index
        return ArmResult("Test arm", "the truth", change(truth), index, 0.0, 0.0, ())

    return arm


def test_perfect_arm_with_another_phase_and_scale_is_perfect(run, tmp_path, monkeypatch):
    """Global phase, phase ramp and scale are not in the patterns and cost nothing."""

    def free_choice(truth: np.ndarray) -> np.ndarray:
        ramp = 0.02 * np.arange(truth.shape[0])[:, None] - 0.03 * np.arange(truth.shape[1])
        return (3.7 * np.exp(1j * (2.1 + ramp)) * truth).astype(np.complex64)

    monkeypatch.setitem(ARMS, "perfect", arm_of(run, free_choice))

    rows = {row["arm"]: row for row in run.compare("test", tmp_path)}

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
    root = tmp_path_factory.mktemp("scene")
    scan = "scan={kind: raster, rows: 16, columns: 24, step_px: 3.0, jitter_px: 0.6}"
    design = load_design("smoke", [scan])
    generate_dose(design, DOSE, root / "C")
    return Run(root, design, {})


@pytest.mark.parametrize("shift_px", [0.0, 1.3])
def test_an_arm_that_is_the_truth_scores_one_in_everything(shift_px, scene, tmp_path, monkeypatch):
    """Through files, alignment and scores, after phase, ramp, scale and a sub-pixel shift.

    Grains with sharp edges ring when they are moved by a part of a pixel, and a crop cuts the
    ringing off: what comes back differs by two thousandths.
    """
    loss = 5e-3 if shift_px else 1e-6

    def moved(truth: np.ndarray) -> np.ndarray:
        ramp = 0.02 * np.arange(truth.shape[0])[:, None] - 0.03 * np.arange(truth.shape[1])
        there = np.fft.ifft2(fourier_shift(np.fft.fft2(truth), (shift_px, -shift_px)))
        return (0.4 * np.exp(1j * (ramp - 1.9)) * there).astype(np.complex64)

    monkeypatch.setitem(ARMS, "moved", arm_of(scene, moved, view="baseline"))

    (row,) = scene.compare("test", tmp_path, view="baseline")

    found = np.array([-row["shift_row_px"], row["shift_column_px"]])
    np.testing.assert_allclose(found, shift_px, atol=0.002)
    assert row["registration"] == "ok"
    for name in ("phase_ms_ssim", "phase_ssim", "amplitude_ms_ssim", "amplitude_ssim"):
        assert row[name] == pytest.approx(1, abs=loss), name
    for name in ("frc", "frc_half_bit", "frc_seventh", "spectral_snr"):
        assert row[f"{name}_crossing"] is None, name
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
        monkeypatch.setitem(ARMS, f"noise{seed}", arm_of(run, noisy(seed)))

    rows = {row["arm"]: row for row in run.compare("test", tmp_path)}

    aligned, _ = read_npz(comparison_folder(tmp_path, DOSE, VIEW, "test") / "aligned.npz")
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
    half = fourier_ring_correlation(aligned["noise1"], aligned["noise2"], mask)
    whole = fourier_ring_correlation(aligned["noise1"], truth, mask)
    chance = 4 / np.sqrt(2 * half.samples)
    assert (np.abs(half.correlation - signal / (signal + noise)) < chance).all()
    assert (np.abs(whole.correlation - np.sqrt(signal / (signal + noise))) < chance).all()


def test_the_likelihood_of_fresh_counts_orders_truth_solver_and_ones(run, tmp_path, monkeypatch):
    monkeypatch.setitem(ARMS, "truth", arm_of(run, lambda truth: truth))
    monkeypatch.setitem(ARMS, "ones", arm_of(run, np.ones_like))

    excess = {row["arm"]: row["held_out_excess_nats"] for row in run.compare("test", tmp_path)}

    assert excess["truth"] == 0
    assert 0 < excess["solver"] < excess["ones"]


def test_each_condition_has_its_picture_and_says_what_its_numbers_mean(run):
    picture = run.compared("test", "comparison.png").read_bytes()
    assert picture.startswith(b"\x89PNG")
    assert len(picture) > 10_000
    manifest = json.loads((run.root / "G" / "comparison_manifest.json").read_text())
    (job,) = (job for key, job in manifest["jobs"].items() if key.endswith("test"))
    assert job["results"]["metrics"].keys() == METRICS.keys()
    for row in run.rows("test"):
        assert row["replicate"] == 0
        assert row["wiener_phase_rad"] < row["shrinking_limit_phase_rad"]
        assert row["shrinking_limit_phase_rad"] <= row["photon_limit_phase_rad"]


def test_arm_that_returns_nothing_but_ones_scores_low_and_harms_nobody(run, tmp_path, monkeypatch):
    monkeypatch.setitem(ARMS, "ones", arm_of(run, np.ones_like))

    rows = {row["arm"]: row for row in run.compare("test", tmp_path)}

    ones = rows.pop("ones")
    assert ones["phase_ms_ssim"] < rows["lsqml"]["phase_ms_ssim"]
    assert ones["phase_ms_ssim"] < 0.5
    assert ones["phase_spread_rad"] < 0.05  # the ramp that is fitted to the truth
    assert ones["registration"] == "uncertain"
    assert ones["frc_crossing"] < 0.2
    timeless = [key for key in ones if key not in ("cpu_s", "training_cpu_s")]
    for before in run.rows("test"):
        assert [before[key] for key in timeless] == [rows[before["arm"]][key] for key in timeless]


@pytest.mark.parametrize(
    ("change", "message"),
    [(np.zeros_like, "zero"), (lambda truth: truth * np.float32(np.nan), "not finite|NaN|finite")],
)
def test_arm_without_an_object_stops_the_comparison(change, message, run, tmp_path, monkeypatch):
    monkeypatch.setitem(ARMS, "broken", arm_of(run, change))

    with pytest.raises(ValueError, match=message):
        run.compare("test", tmp_path)


@pytest.mark.parametrize("split", SPLITS)
def test_metrics_are_finite_or_null(run, split):
    def refuse(text):
        raise AssertionError(f"{text} is not JSON")

    text = run.compared(split, "metrics.json").read_text()
    rows = json.loads(text, parse_constant=refuse)
    aligned, _ = read_npz(run.compared(split, "aligned.npz"))
    scales = ms_ssim_scales(aligned["mask"].shape)

    assert [row["arm"] for row in rows] == list(arms_of(run.design))
    for row in rows:
        assert METRICS.keys() <= row.keys()
        assert (row["dose"], row["view"], row["split"]) == (DOSE, VIEW, split)
        assert row["ms_ssim_scales"] == scales < 5, "fewer fit, and that is written down"
        numbers = [value for value in row.values() if isinstance(value, float)]
        assert all(map(math.isfinite, numbers))
        assert row["cpu_s"] > 0
    with run.compared(split, "metrics.csv").open(encoding="ascii") as file:
        assert [row["arm"] for row in csv.DictReader(file)] == list(arms_of(run.design))


def test_scores_can_be_checked_from_the_aligned_file(run):
    """Anyone can recompute the mean phase error from what is stored, without this library."""
    aligned, _ = read_npz(run.compared("test", "aligned.npz"))

    for row in run.rows("test"):
        difference = np.angle(aligned[row["arm"]] * aligned["truth"].conj())[aligned["mask"]]
        assert np.abs(difference).mean() == pytest.approx(row["phase_mae_rad"], rel=1e-3)
        error = np.sqrt((difference**2).mean())
        limit = row["photon_limit_phase_rad"]
        assert error / limit == pytest.approx(row["phase_error_over_limit"], rel=1e-3)
        std_rad = aligned["photon_limit_phase_std_rad"]
        assert np.sqrt((std_rad[aligned["mask"]] ** 2).mean()) == pytest.approx(limit, rel=1e-3)
        assert np.isnan(std_rad[~aligned["mask"]]).all()


def test_the_photon_limit_is_one_for_all_arms_and_falls_with_the_dose(run):
    (limit_rad,) = {row["photon_limit_phase_rad"] for row in run.rows("test")}
    measurement = load_measurement(run.source("test"))
    arrays, _ = load_dataset(run.source("test"))
    crop, mask = scored_pixels(measurement, run.design.metrics.illumination_threshold)
    brighter = dataclasses.replace(measurement, probe=3 * measurement.probe)

    limit = limit_of(brighter, arrays["objectGuess"], crop, mask, run.design)

    assert limit_rad == pytest.approx(3 * limit.phase_rms_rad, rel=1e-3)
    assert limit.phase_rms_rad > limit.ideal_phase_rms_rad


def test_an_object_with_a_hole_has_no_photon_limit(run):
    measurement = load_measurement(run.source("test"))
    arrays, _ = load_dataset(run.source("test"))
    crop, mask = scored_pixels(measurement, run.design.metrics.illumination_threshold)
    holed = arrays["objectGuess"].copy()
    first = np.argwhere(mask)[0]
    holed[first[0] + crop[0].start, first[1] + crop[1].start] = 0

    limit = limit_of(measurement, holed, crop, mask, run.design)

    assert limit is None
    assert limit_row(limit, {"phase_mse_rad2": 1.0})["phase_error_over_limit"] is None


def test_a_design_that_asks_for_no_photon_limit_gets_none(run, tiny_design_with):
    design = tiny_design_with("metrics.photon_limit_solves=0")
    measurement = load_measurement(run.source("test"))
    arrays, _ = load_dataset(run.source("test"))
    crop, mask = scored_pixels(measurement, run.design.metrics.illumination_threshold)

    assert limit_of(measurement, arrays["objectGuess"], crop, mask, design) is None


@pytest.mark.parametrize(
    ("missing", "arms", "reason"),
    [
        (
            "E",
            {"pinn", "thinning-net"},
            r"\.pt is not there; run `study train",
        ),
        ("F", ARM_NAMES - {"pinn", "thinning-net"}, r"it was not run; run `study reconstruct`"),
    ],
)
def test_a_missing_arm_is_a_missing_row_with_its_reason(missing, arms, reason, run, tmp_path):
    roots = run.roots() | {f"phase_{missing.lower()}_root": tmp_path / "nothing"}

    rows = compare_view(run.design, DOSE, VIEW, "test", artifact_root=tmp_path, **roots)

    assert {row["arm"] for row in rows} == arms_of(run.design).keys() - arms
    folder = comparison_folder(tmp_path, DOSE, VIEW, "test")
    written = json.loads((folder / "missing_arms.json").read_text())
    assert written.keys() == arms
    assert all(re.search(reason, text) for text in written.values())
    assert read_npz(folder / "aligned.npz")[0].keys().isdisjoint(arms)
    assert reason_lines(write_summary(tmp_path, tmp_path / "H"), tmp_path / "H") == len(arms)


def reason_lines(rows: list[dict], folder: Path) -> int:
    """Return how many missing arms the summary of these rows tells."""
    assert rows
    text = (folder / "summary.md").read_text(encoding="utf-8")
    return sum(line.startswith("- missing: ") for line in text.splitlines())


def test_a_failed_algorithm_is_missing_with_its_error(run, tmp_path):
    """Not a result of an earlier run in its place."""
    folder = arm_folder(tmp_path / "F", DOSE, VIEW, "test", "LSQML")
    key = folder.relative_to(tmp_path / "F").as_posix()
    (tmp_path / "F").mkdir()
    record = {"status": "failed", "error": "StudyError: LSQML diverged"}
    (tmp_path / "F" / "reconstruction_manifest.json").write_text(
        json.dumps({"jobs": {key: record}})
    )
    roots = run.roots() | {"phase_f_root": tmp_path / "F"}

    compare_view(run.design, DOSE, VIEW, "test", artifact_root=tmp_path / "G", **roots)

    path = comparison_folder(tmp_path / "G", DOSE, VIEW, "test") / "missing_arms.json"
    assert json.loads(path.read_text())["lsqml"] == "LSQML: StudyError: LSQML diverged"


def test_comparison_without_any_arm_says_so(run, tmp_path):
    nothing = tmp_path / "nothing"
    roots = run.roots() | {"phase_e_root": nothing, "phase_f_root": nothing}

    with pytest.raises(InputError, match=r"no arm has a result: Ptycho.*; LSQML: .*; solver: "):
        compare_view(run.design, DOSE, VIEW, "test", artifact_root=tmp_path, **roots)


# --- summary


def test_summary_has_one_row_for_each_condition_and_arm(run, tmp_path):
    rows = write_summary(run.root / "G", tmp_path)

    assert len(rows) == 2 * len(arms_of(run.design))
    for name, split in (("table.csv", "test"), ("table_train.csv", "train")):
        with (tmp_path / name).open(encoding="ascii") as file:
            table = list(csv.DictReader(file))
        keys = [(float(row["dose"]), row["view"], row["arm"], row["split"]) for row in table]
        assert sorted(keys) == sorted((DOSE, VIEW, arm, split) for arm in arms_of(run.design))


def test_summary_shows_every_arm_and_existing_figures(run, tmp_path):
    write_summary(run.root / "G", tmp_path)

    text = (tmp_path / "summary.md").read_text(encoding="utf-8")
    for row in run.rows("test"):
        assert text.count(f" | {row['label']} | {row['patterns']} | ") == 2  # test and train
        assert text.count(f" | {row['label']} | ") == (2 if row["arm"] == "lsqml" else 4)
    assert "one replicate, so no spread" in text
    assert "held fixed per pattern" in text
    figures = [line.split("](")[1].rstrip(")") for line in text.splitlines() if "![" in line]
    assert len(figures) == 4
    for figure in figures:
        content = (tmp_path / figure).read_bytes()
        assert content.startswith(b"\x89PNG")
        assert len(content) > 10_000
        assert b"<svg" in (tmp_path / figure).with_suffix(".svg").read_bytes()


def test_summary_writes_what_the_plan_expects_and_twice_the_same(run, tmp_path):
    for name in ("once", "twice"):
        write_summary(run.root / "G", tmp_path / name)

    once, twice = (
        {path.name: path.read_bytes() for path in summary_files(tmp_path / name, [DOSE])}
        for name in ("once", "twice")
    )
    assert once == twice
    recorded = json.loads((tmp_path / "once" / "summary_manifest.json").read_text())
    outputs = recorded["jobs"]["summary"]["outputs"]
    assert {Path(name).name for name in outputs} == once.keys()


def test_summary_as_data_says_what_the_text_says(run, tmp_path):
    table = write_summary(run.root / "G", tmp_path)

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
    for phase in "CDEFG":
        shutil.copytree(run.root / phase, phase_root(tmp_path, phase))
    for _ in range(2):
        write_summary(phase_root(tmp_path, "G"), phase_root(tmp_path, "H"))

    with (phase_root(tmp_path, "H") / "inventory.csv").open(encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    assert len({row["path"] for row in rows}) == len(rows)
    assert [row["path"] for row in rows] == sorted(row["path"] for row in rows)
    for row in rows:
        path = tmp_path / row["path"]
        assert (int(row["bytes"]), row["sha256"]) == (path.stat().st_size, sha256_of(path))
    found = {row["phase"] for row in rows}
    assert found == {phase_root(tmp_path, phase).name for phase in "CDEFG"}
    assert any(row["path"].endswith("gs2/model.pt") for row in rows)


def test_replicates_from_before_and_after_an_arm_was_renamed_are_one_arm(run, tmp_path):
    first, second = (phase_root(tmp_path / place, "G") for place in ("", "replicate_1"))
    for root in (first, second):
        shutil.copytree(run.root / "G", root)
    old = {"arm": "pinn-thinned", "label": "PtychoPINN thinned"}
    for folder in (path.parent for path in first.rglob("metrics.json")):
        rows = json.loads((folder / "metrics.json").read_text())
        rows = [row | old if row["arm"] == "thinning-net" else row for row in rows]
        (folder / "metrics.json").write_text(json.dumps(rows))
        arrays, metadata = read_npz(folder / "aligned.npz")
        ours = [name for name in arrays if name.startswith("thinning-net")]
        assert len(ours) == 2
        for name in ours:
            arrays[name.replace("thinning-net", "pinn-thinned")] = arrays.pop(name)
        write_npz(folder / "aligned.npz", arrays, metadata)
    for path in second.rglob("metrics.json"):
        rows = [row | {"replicate": 1} for row in json.loads(path.read_text())]
        path.write_text(json.dumps(rows))

    table = write_summary(first, tmp_path / "H")

    assert {row["arm"] for row in table} == ARM_NAMES
    assert {row["replicates"] for row in table} == {2}
    assert {row["label"] for row in table if row["arm"] == "thinning-net"} == {"thinning network"}


def test_replicates_are_gathered_into_means_and_spreads(run, tmp_path):
    """From the folders that a run keeps its replicates in; figures show the first."""
    first, second = (phase_root(tmp_path / place, "G") for place in ("", "replicate_1"))
    scores = {}
    for replicate, root in enumerate((first, second)):
        shutil.copytree(run.root / "G", root)
        path = comparison_folder(root, DOSE, VIEW, "test") / "metrics.json"
        rows = json.loads(path.read_text())
        for row in rows:
            row["replicate"] = replicate
            row["phase_ms_ssim"] += 0.01 * replicate
            row["registration"] = "ok"
            scores.setdefault(row["arm"], []).append(row["phase_ms_ssim"])
        path.write_text(json.dumps(rows))

    table = write_summary(first, tmp_path / "H")

    for row in (row for row in table if row["split"] == "test"):
        assert row["replicates"] == 2
        assert row["phase_ms_ssim"] == pytest.approx(np.mean(scores[row["arm"]]))
        assert row["phase_ms_ssim_std"] == pytest.approx(0.01 / np.sqrt(2))
    text = (tmp_path / "H" / "summary.md").read_text(encoding="utf-8")
    assert f"{np.mean(scores['lsqml']):.3g} ± 0.0071" in text
    with (tmp_path / "H" / "table.csv").open(encoding="utf-8") as file:
        assert {row["replicate"] for row in csv.DictReader(file)} == {"0", "1"}


def test_summary_of_nothing_names_the_command(tmp_path):
    with pytest.raises(InputError, match="no comparison found; run `study compare` first"):
        write_summary(tmp_path, tmp_path / "H")
    assert not (tmp_path / "H").exists()


def test_overlap_and_target_are_those_the_patterns_were_chosen_with(run, tmp_path):
    """And not what the design wanted, where `study overlap` was called with another."""
    view = run.design.view(VIEW).model_copy(update={"target_overlap": None, "s_img": 0.7})
    design = run.design.model_copy(update={"views": (view,), "neighbor_count": 5})
    roots = {"phase_c_root": run.root / "C", "output_root": tmp_path, "artifact_root": tmp_path}
    metrics = write_view(design, DOSE, VIEW, diameter_px=11.0, **roots)["test"]
    path = view_path(run.root / "C", tmp_path, DOSE, VIEW, "test")

    made = view_record_of(load_dataset(path)[1], str(path))
    found = view_overlap(load_measurement(path), made, run.design)

    assert found == {"overlap": metrics["metric_2_image"], "overlap_target": None}
    rows = run.rows("test")
    bundle = json.loads((run.root / "D" / "dose_10000" / VIEW / "test_metrics.json").read_text())
    assert rows[0]["overlap"] == bundle["metric_2_image"]
    assert rows[0]["overlap_target"] == run.design.view(VIEW).target_overlap


def test_a_curve_that_never_falls_below_the_threshold_says_so(rng):
    truth = np.exp(1j * rng.normal(size=(12, 16)))
    frequency = np.linspace(0, 1, 8)
    curves = {"sharp": (frequency, np.full(8, 0.9)), "blurred": (frequency, 1 - frequency)}

    figure = condition_figure(
        truth,
        {"sharp": truth, "blurred": truth},
        np.ones(truth.shape, bool),
        curves,
        threshold=0.5,
        ceiling=np.array([]),
        title="t",
    )

    labels = [text.get_text() for text in figure.legends[0].get_texts()]
    assert labels == ["sharp, never below", "blurred", "threshold 0.5"]


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
