"""The detector loses and adds what it says; masked pixels reach neither arm's loss."""

import numpy as np
import pytest
import torch
from scipy.special import xlogy
from scipy.stats import chisquare, poisson
from tiny_runs import generated

from study_lib.data.contract import load_dataset, validate
from study_lib.data.datasets import load_measurement
from study_lib.design.axes import SPLITS
from study_lib.design.presets import load_design
from study_lib.networks.pinn.config import training_config
from study_lib.networks.pinn.training import GroupTensors, train, uniform_object_loss
from study_lib.phases.overlap import choose_view
from study_lib.physics.forward import exit_waves, expected_counts, probes_at
from study_lib.physics.likelihood import half_deviance
from study_lib.physics.measurement import photon_budget
from study_lib.physics.simulation import bad_pixel_mask, count_photons
from study_lib.solvers import ptychi as ptychi_engine

DOSE = 1e4


def counted(mean: float, *, seed: int = 0, **detector) -> np.ndarray:
    expected = np.full((50, 16, 16), mean, np.float32)
    count_photons(expected, random=np.random.default_rng(seed), **detector)
    return np.round(expected.astype(float) ** 2)


@pytest.mark.parametrize(
    ("mean", "dark"), [(0.5, 0.0), (2.0, 1.5), (0.0, 3.0), (0.2, 0.0), (0.1, 0.1)]
)
def test_photons_and_dark_counts_are_poisson_together(mean, dark):
    counts = counted(mean, dark_counts=dark).ravel()

    numbers = np.arange(0, int(mean + dark) + 4)
    observed = [(counts == number).sum() for number in numbers]
    observed.append(counts.size - sum(observed))
    law = poisson(mean + dark)
    expected = [*law.pmf(numbers), law.sf(numbers[-1])]
    assert chisquare(observed, np.array(expected) * counts.size).pvalue > 1e-3


def test_dark_pixels_are_independent_poisson_numbers_of_their_own_rates():
    """Rates from 1e-4 to 1, most of them so dark that their photons are placed together."""
    rates = np.geomspace(1e-4, 1, 256).reshape(16, 16).astype(np.float32)
    expected = np.repeat(rates[None], 20_000, axis=0)
    count_photons(expected, random=np.random.default_rng(0))
    counts = np.round(expected.astype(float) ** 2).reshape(len(expected), -1)

    mean, wanted = counts.mean(axis=0), rates.ravel().astype(float)
    assert (np.abs(mean - wanted) < 5 * np.sqrt(wanted / len(counts))).all()
    spread = ((counts - wanted) ** 2).mean(axis=0)
    fourth = wanted + 2 * wanted**2
    assert (np.abs(spread - wanted) < 6 * np.sqrt(fourth / len(counts))).all()
    bright = counts[:, wanted > 0.05]
    correlation = np.corrcoef(bright.T) - np.eye(bright.shape[1])
    assert np.abs(correlation).max() < 6 / np.sqrt(len(counts))
    total = counts.sum(axis=1)
    assert total.var() == pytest.approx(wanted.sum(), rel=0.06)


def test_a_pixel_counts_to_its_limit_and_the_budget_says_how_often():
    expected = np.full((20, 8, 8), 9.0, np.float32)
    count_photons(expected, saturation_counts=9, random=np.random.default_rng(0))

    counts = np.round(expected.astype(float) ** 2)
    saturated = photon_budget(expected, 9)["saturated_pixels"]
    assert counts.max() == 9
    assert saturated == (counts == 9).sum()
    assert saturated / counts.size == pytest.approx(poisson(9).sf(8), abs=0.05)
    assert "saturated_pixels" not in photon_budget(expected)


def test_bad_pixels_hold_nothing_and_the_others_what_they_had():
    mask = np.zeros((16, 16), bool)
    mask[3, 4] = mask[8, 8] = True

    counts = counted(5.0, bad_pixels=mask)

    assert not counts[:, mask].any()
    np.testing.assert_array_equal(counts[:, ~mask], counted(5.0)[:, ~mask])


def test_the_beamstop_is_a_disc_about_the_zero_frequency():
    mask = bad_pixel_mask(
        side_px=64, beamstop_radius_px=10.0, bad_pixel_share=0.0, random=np.random.default_rng(0)
    )

    rows, columns = np.nonzero(mask)
    assert (rows.mean(), columns.mean()) == (32, 32)
    assert mask.sum() == pytest.approx(np.pi * 10**2, rel=0.05)


def test_dead_pixels_are_a_share_placed_by_the_seed():
    masks = [
        bad_pixel_mask(
            side_px=64,
            beamstop_radius_px=0.0,
            bad_pixel_share=0.1,
            random=np.random.default_rng(seed),
        )
        for seed in (1, 1, 2)
    ]

    assert masks[0].mean() == pytest.approx(0.1, abs=0.02)
    assert (masks[0] == masks[1]).all()
    assert (masks[0] != masks[2]).any()


# --- through the whole study


@pytest.fixture(scope="module")
def masked(tiny_design_with, tmp_path_factory):
    """A run whose detector has a beamstop, dead pixels and dark counts."""
    design = tiny_design_with(
        "detector.beamstop_radius_px=1.5",
        "detector.bad_pixel_share=0.05",
        "detector.dark_counts=2.0",
    )
    return generated(tmp_path_factory.mktemp("masked"), design)


def test_files_carry_the_mask_and_hold_the_contract(masked):
    masks = []
    for split in SPLITS:
        path = masked.condition(DOSE, split=split).whole_file
        arrays, metadata = load_dataset(path)
        masks.append(arrays["bad_pixels"])
        assert validate(path).serious == ()
        assert not arrays["diffraction"][:, masks[-1]].any()
        assert metadata["detector"]["beamstop_radius_px"] == 1.5
        assert metadata["photons_per_pattern_measured"] < 0.9 * DOSE
    assert masks[0][8, 8]
    np.testing.assert_array_equal(*masks)


def test_saturation_is_recorded_of_a_split_and_of_a_view(tmp_path, tiny_design_with):
    design = tiny_design_with("detector.saturation_counts=50")
    condition = generated(tmp_path, design).condition(DOSE, "sparse", "train")
    choose_view(condition)

    for path in (condition.whole_file, condition.file):
        arrays, metadata = load_dataset(path)
        counts = np.round(arrays["diffraction"].astype(float) ** 2)
        assert metadata["saturated_pixels"] == (counts == 50).sum() > 0
        assert counts.max() == 50
        assert "photons_per_pattern_expected" not in metadata
    operations = [step["operation"] for step in metadata["transformations"]]
    assert operations == ["split", "simulate", "canonicalise", "select and group"]


def test_what_is_expected_of_the_detector_is_what_its_pixels_count(masked):
    """Dark counts and the mask included: from the scene in the file, written out."""
    for split in SPLITS:
        arrays, metadata = load_dataset(masked.condition(DOSE, split=split).whole_file)
        waves = exit_waves(
            torch.from_numpy(arrays["probeGuess"].astype(complex)),
            torch.from_numpy(arrays["objectGuess"].astype(complex)),
            torch.from_numpy(np.stack([arrays["ycoords"], arrays["xcoords"]], axis=1)),
        )
        patterns = expected_counts(waves).numpy() + 2.0

        valid = patterns[:, ~arrays["bad_pixels"]].sum(axis=1).mean()

        assert metadata["photons_per_pattern_expected"] == pytest.approx(valid, rel=1e-5)


def test_an_ideal_detector_leaves_no_mask(tiny_run):
    arrays, metadata = load_dataset(tiny_run.condition(DOSE, split="train").whole_file)

    assert "bad_pixels" not in arrays
    assert "detector" not in metadata


def test_what_a_file_holds_in_bad_pixels_is_not_handed_on(masked, tmp_path):
    arrays, _ = load_dataset(masked.condition(DOSE, split="train").whole_file)
    arrays["diffraction"][:, arrays["bad_pixels"]] = 99.0
    np.savez(tmp_path / "data.npz", **arrays)

    measurement = load_measurement(tmp_path / "data.npz")

    assert not measurement.amplitudes[:, measurement.bad_pixels].any()


def test_the_networks_loss_does_not_look_at_bad_pixels(rng):
    expected = torch.from_numpy(rng.uniform(1, 5, (3, 8, 8)))
    counts = torch.from_numpy(rng.poisson(3, (3, 8, 8)).astype(float))
    bad = torch.ones(8, 8, dtype=torch.bool)
    bad[2:, :6] = False
    model = expected.clone().requires_grad_()

    loss = half_deviance(model, counts, bad)
    loss.backward()

    assert not model.grad[:, bad].any()
    assert model.grad[:, ~bad].all()
    alone = half_deviance(expected[:, 2:, :6], counts[:, 2:, :6])
    assert float(loss.detach()) == pytest.approx(float(alone.detach()))


@pytest.mark.slow
def test_a_network_trained_with_a_mask_learns_from_the_other_pixels(masked):
    """The loss falls below that of a uniform object, which knows the mask too."""
    measurement = masked.condition(DOSE, split="train").measurement()

    settings = [
        "training.epochs=6",
        "training.steps_min=0",
        "training.steps_min=0",
        "training.validation_share=0.1",
        "training.precision=float32",
        "seeds.training=0",
        f"patch_size_px={measurement.probe.shape[-1]}",
    ]
    trained = train(measurement, training_config(load_design("smoke", settings), "baseline"))

    assert trained.history.train[-1] < trained.history.train[0]


def test_the_uniform_object_it_is_held_against_knows_the_mask(masked):
    """The best featureless object over the good pixels, from numpy alone."""
    measurement = masked.condition(DOSE, split="train").measurement()
    good = ~measurement.bad_pixels
    shifted = probes_at(
        torch.from_numpy(measurement.probe), torch.from_numpy(measurement.positions_px)
    )
    model = expected_counts(shifted).numpy().astype(float)[:, good]
    counts = measurement.counts[:, good]
    model *= counts.sum() / model.sum()
    terms = model - counts + xlogy(counts, counts) - xlogy(counts, model + 1e-6)

    uniform = uniform_object_loss(GroupTensors.of(measurement), "poisson")

    assert uniform == pytest.approx(terms.mean(), rel=1e-3)


def reconstructed(measurement, amplitudes, bad_pixels) -> np.ndarray:
    return ptychi_engine.run_ptychi(
        amplitudes=amplitudes,
        positions_px=measurement.positions_px,
        probe=measurement.probe,
        object_shape=measurement.object_shape,
        epochs=3,
        batch_size=30,
        noise_model="gaussian",
        seed=0,
        bad_pixels=bad_pixels,
    ).object_


@pytest.mark.slow
def test_lsqml_does_not_look_at_bad_pixels(masked):
    """Whatever stands in them, the object is the same but for rounding."""
    measurement = masked.condition(DOSE, split="train").measurement()
    garbage = measurement.amplitudes.copy()
    garbage[:, measurement.bad_pixels] = 30.0

    clean = reconstructed(measurement, measurement.amplitudes, measurement.bad_pixels)

    masked_garbage = reconstructed(measurement, garbage, measurement.bad_pixels)
    np.testing.assert_allclose(masked_garbage, clean, atol=1e-5)
    assert np.abs(reconstructed(measurement, garbage, None) - clean).max() > 0.1


@pytest.mark.parametrize(
    "scattered", [np.asfortranarray(np.ones((3, 4, 4), np.float32)), np.ones((6, 4, 4))[::2]]
)
def test_patterns_that_would_be_counted_in_a_copy_are_refused(scattered):
    with pytest.raises(ValueError, match="copy"):
        count_photons(scattered, random=np.random.default_rng(0))
