"""pty-chi's engines with incoherent modes, a background and masks of each pattern."""

from dataclasses import dataclass, replace

import numpy as np
import pytest
import torch
from scipy.stats import unitary_group

from study_lib.design.presets import load_design
from study_lib.errors import InputError
from study_lib.physics.forward import illumination, patterns_expected, probe_power
from study_lib.physics.likelihood import pattern_residuals
from study_lib.physics.measurement import Measurement
from study_lib.physics.probe import mode_shares, orthogonal_modes
from study_lib.solvers.algorithms import run_algorithm
from study_lib.solvers.ptychi import ENGINES, EngineResult, run_ptychi

SIDE, SHAPE, DOSE = 16, (46, 42), 1e5


@dataclass(frozen=True)
class Scan:
    """Counts of a known object, by modes at places between the pixels."""

    object_: np.ndarray
    modes: np.ndarray
    positions_px: np.ndarray
    amplitudes: np.ndarray

    def given(self, **changes: object) -> dict:
        """Return arguments of `run_ptychi`."""
        return {
            "amplitudes": self.amplitudes,
            "positions_px": self.positions_px,
            "probe": self.modes,
            "object_shape": SHAPE,
            "epochs": 3,
            "batch_size": 24,
            "noise_model": "gaussian",
            "seed": 5,
            **changes,
        }

    @property
    def lit(self) -> np.ndarray:
        """Pixels with more than a tenth of the median illumination."""
        places, modes = torch.from_numpy(self.positions_px), torch.from_numpy(self.modes)
        photons = illumination(modes, places, SHAPE).numpy()
        return photons > 0.1 * np.median(photons[photons > 0])

    def misfit(self, found: EngineResult, **known: object) -> float:
        """Return half the deviance per pixel; 1/2 is noise where photons are many."""
        measurement = Measurement(
            amplitudes=self.amplitudes,
            positions_px=found.positions_px,
            probe=found.probe,
            groups=np.arange(len(self.positions_px))[:, None],
            scan_index=np.arange(len(self.positions_px)),
            object_shape=SHAPE,
            **known,
        )
        return float(pattern_residuals(measurement, found.object_, found.probe).mean())


def counted(expected: torch.Tensor, seed: int = 2) -> np.ndarray:
    counts = np.random.default_rng(seed).poisson(expected.numpy())
    return np.sqrt(counts).astype(np.float32)


@pytest.fixture(autouse=True)
def _one_thread():
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.fixture
def scan(modes, rng) -> Scan:
    two = orthogonal_modes(modes[:2].numpy())
    light = torch.from_numpy(two) * torch.sqrt(DOSE / probe_power(torch.from_numpy(two)).sum())
    y, x = np.mgrid[: SHAPE[0], : SHAPE[1]]
    phase = 0.5 * np.sin(y / 6 + x / 11) + 0.3 * np.cos(x / 4 - y / 13)
    phase += 0.5 * ((y > 15) & (y < 20) & (x > 12) & (x < 30))
    object_ = torch.from_numpy(0.9 * np.exp(1j * phase))
    rows, columns = np.meshgrid(np.arange(9, 37, 2.5), np.arange(9, 33, 2.5), indexing="ij")
    grid = np.stack([rows.ravel(), columns.ravel()], axis=1)
    places = torch.from_numpy(grid + rng.uniform(-0.8, 0.8, grid.shape))
    expected = patterns_expected(light, object_, places)
    return Scan(
        object_.numpy().astype(np.complex64),
        light.numpy().astype(np.complex64),
        places.numpy(),
        counted(expected),
    )


# --- Modes


# The object's steps of PIE and rPIE, as published, weigh each mode by its own modulus.
@pytest.mark.parametrize("algorithm", [name for name in ENGINES if name not in {"PIE", "rPIE"}])
def test_another_mixture_of_the_same_light_gives_the_same_object(scan, algorithm):
    unitary = unitary_group.rvs(2, random_state=3)
    mixed = np.tensordot(unitary, scan.modes, axes=1).astype(np.complex64)

    ours = run_ptychi(**scan.given(algorithm=algorithm)).object_
    theirs = run_ptychi(**scan.given(algorithm=algorithm, probe=mixed)).object_

    assert np.abs(ours - theirs)[scan.lit].max() < 1e-3
    assert np.abs(ours - 1)[scan.lit].max() > 0.1


@pytest.mark.parametrize("algorithm", ENGINES)
def test_all_modes_explain_the_counts_better_than_the_first_alone(scan, algorithm):
    """Positions are between pixels, so that every mode has to be shifted there."""
    epochs = 30 if algorithm in {"PIE", "autodiff"} else 12
    run = scan.given(algorithm=algorithm, epochs=epochs)

    both = scan.misfit(run_ptychi(**run))
    first = scan.misfit(run_ptychi(**run | {"probe": scan.modes[0]}))

    assert both < 0.7 * first


def test_lsqml_with_all_modes_leaves_noise_alone(scan):
    """As little as the truth does, and less by what an object of so many pixels fits of noise."""
    found = run_ptychi(**scan.given(epochs=60))

    truth = scan.misfit(replace(found, object_=scan.object_))
    assert 0.8 * truth < scan.misfit(found) < truth
    assert found.options["modes"] == 2


@pytest.mark.parametrize("algorithm", ["LSQML", "rPIE", "DM"])
def test_a_mode_without_light_changes_nothing(scan, algorithm):
    dark = np.concatenate([scan.modes, np.zeros_like(scan.modes[:1])])

    ours = scan.misfit(run_ptychi(**scan.given(algorithm=algorithm, epochs=5)))
    theirs = scan.misfit(run_ptychi(**scan.given(algorithm=algorithm, epochs=5, probe=dark)))

    assert theirs == pytest.approx(ours, rel=0.01)


@pytest.mark.parametrize("algorithm", ["LSQML", "rPIE", "DM"])
def test_refined_modes_come_back_orthogonal_and_strongest_first(scan, algorithm):
    """From modes of the wrong shares: less is left unexplained than with those kept."""
    wrong = (scan.modes * np.array([0.9, 1.3])[:, None, None]).astype(np.complex64)
    run = scan.given(algorithm=algorithm, probe=wrong, epochs=20)

    kept, found = run_ptychi(**run), run_ptychi(**run, refine_probe=True)

    assert kept.probe.tobytes() == wrong.tobytes()
    assert found.probe.shape == scan.modes.shape
    first, second = found.probe
    assert abs(np.vdot(first, second)) < 1e-4 * np.linalg.norm(first) * np.linalg.norm(second)
    assert mode_shares(found.probe)[0] > 0.5
    assert scan.misfit(found) < 0.8 * scan.misfit(kept)


def test_the_first_pie_says_that_it_refines_one_mode(scan):
    with pytest.raises(InputError, match=r"PIE of pty-chi refines one coherent mode.* has 2; use"):
        run_ptychi(**scan.given(algorithm="PIE", refine_probe=True))


# --- Positions


def test_refined_positions_are_nearer_to_the_true_ones(scan):
    error = np.random.default_rng(4).normal(0, 0.4, scan.positions_px.shape)
    wrong = scan.positions_px + error - error.mean(axis=0)
    run = scan.given(positions_px=wrong, epochs=60)

    kept, found = run_ptychi(**run), run_ptychi(**run, refine_positions=True)

    def left_px(result: EngineResult) -> float:
        rest = result.positions_px - scan.positions_px
        return float(np.sqrt(((rest - rest.mean(axis=0)) ** 2).mean()))

    np.testing.assert_array_equal(kept.positions_px, wrong)
    assert left_px(found) < 0.93 * left_px(kept)
    assert scan.misfit(found) < 0.93 * scan.misfit(kept)
    assert found.options["refine_positions"]


# --- A background


@pytest.fixture
def dark(rng) -> np.ndarray:
    return rng.uniform(5, 15, (SIDE, SIDE)).astype(np.float32)


@pytest.fixture
def foggy(scan, dark) -> Scan:
    """The scan with other counts: those of a background too."""
    expected = patterns_expected(
        torch.from_numpy(scan.modes).to(torch.complex128),
        torch.from_numpy(scan.object_).to(torch.complex128),
        torch.from_numpy(scan.positions_px),
        torch.from_numpy(dark).double(),
    )
    return replace(scan, amplitudes=counted(expected))


@pytest.mark.parametrize(
    ("algorithm", "noise_model"),
    [("LSQML", "gaussian"), ("LSQML", "poisson"), ("autodiff", "gaussian")],
)
def test_a_known_background_is_part_of_what_is_predicted(foggy, dark, algorithm, noise_model):
    run = foggy.given(algorithm=algorithm, noise_model=noise_model, epochs=40)

    found = run_ptychi(**run, background=dark)
    without = run_ptychi(**run)

    assert foggy.misfit(found, background=dark) < 0.7 * foggy.misfit(without, background=dark)
    assert foggy.misfit(found, background=dark) < 0.7 * foggy.misfit(without)
    assert not found.remarks


@pytest.mark.parametrize("algorithm", ["PIE", "ePIE", "rPIE", "DM", "RAAR", "BH"])
def test_engines_without_a_background_refuse_one_that_counts(foggy, dark, algorithm):
    message = f"pty-chi's {algorithm} has no background, .* 0.031 of the counts.*use the solver, LS"
    with pytest.raises(InputError, match=message):
        run_ptychi(**foggy.given(algorithm=algorithm, background=dark))


def test_a_faint_background_is_ignored_and_said(scan, dark):
    run = scan.given(algorithm="rPIE")

    found = run_ptychi(**run, background=0.1 * dark)

    assert found.object_.tobytes() == run_ptychi(**run).object_.tobytes()
    assert found.remarks == ("it has no background: 0.0032 of the counts, which was ignored",)


def test_an_arm_of_the_study_is_given_modes_and_background(foggy, dark):
    measurement = Measurement(
        amplitudes=foggy.amplitudes,
        positions_px=foggy.positions_px,
        probe=foggy.modes,
        groups=np.arange(len(foggy.positions_px))[:, None],
        scan_index=np.arange(len(foggy.positions_px)),
        object_shape=SHAPE,
        background=dark,
    )
    design = load_design("smoke", ["iterative.epochs=40"]).iterative

    full = run_algorithm("LSQML", measurement, design, seed=0)
    less = run_algorithm("LSQML", replace(measurement, background=None), design, seed=0)

    assert full.residuals.mean() < 0.7 * less.residuals.mean()
    np.testing.assert_array_equal(full.probe, foggy.modes)


# --- Masks of each pattern


def test_masks_of_each_pattern_become_one_where_they_hide_little(scan):
    masks = np.zeros(scan.amplitudes.shape, bool)
    masks[3, 4, 5] = masks[7, 9, 2] = True
    spoilt = np.where(masks, 0, scan.amplitudes)

    found = run_ptychi(**scan.given(amplitudes=spoilt, bad_pixels=masks))
    together = run_ptychi(**scan.given(amplitudes=spoilt, bad_pixels=masks.any(axis=0)))

    assert found.object_.tobytes() == together.object_.tobytes()
    assert "pixels that are bad in any pattern are 0.0078 of the detector" in found.remarks[0]
    assert not together.remarks


def test_masks_that_are_alike_are_one_mask(scan):
    mask = np.zeros((SIDE, SIDE), bool)
    mask[5:9] = True
    each = np.repeat(mask[None], len(scan.amplitudes), axis=0)
    spoilt = np.where(mask, 0, scan.amplitudes)

    found = run_ptychi(**scan.given(amplitudes=spoilt, bad_pixels=each))

    one = run_ptychi(**scan.given(amplitudes=spoilt, bad_pixels=mask))
    assert found.object_.tobytes() == one.object_.tobytes()
    assert not found.remarks


def test_masks_that_together_hide_much_are_refused(scan):
    masks = np.random.default_rng(1).random(scan.amplitudes.shape) < 0.01

    with pytest.raises(InputError, match=r"one mask for all patterns, and .* more than 0.05; use"):
        run_ptychi(**scan.given(bad_pixels=masks))
