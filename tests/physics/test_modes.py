"""Incoherent modes: intensities add, photons are conserved, a unitary mixture is the same light."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from scipy.stats import unitary_group

from study_lib.design.presets import load_design
from study_lib.errors import InputError
from study_lib.figures.common import object_and_probe
from study_lib.figures.reconstruction import probes
from study_lib.phases.mismatch import true_light
from study_lib.physics.forward import (
    exit_waves,
    exit_waves_adjoint,
    illumination,
    patterns_expected,
    probe_power,
)
from study_lib.physics.likelihood import FreshCounts, likelihood_judge, pattern_residuals
from study_lib.physics.measurement import (
    Measurement,
    at_positions,
    box_of,
    measurement_digest,
    require_one_mode,
    split_photons,
)
from study_lib.physics.probe import (
    central_window,
    mode_shares,
    modes_of,
    orthogonal_modes,
    power_of,
    probe_diameter_px,
    probe_fwhm_px,
)
from study_lib.physics.simulation import TrueLight, count_photons, expected_patterns, simulate
from study_lib.scores.scoring import light_of
from study_lib.solvers.checks import isolated_share

SIDE = 16


def inner(first: torch.Tensor, second: torch.Tensor) -> torch.Tensor:
    return torch.vdot(first.flatten(), second.flatten())


def mixed(modes: torch.Tensor, seed: int = 1) -> torch.Tensor:
    """Return a random unitary mixture of modes."""
    unitary = torch.from_numpy(unitary_group.rvs(len(modes), random_state=seed))
    return torch.einsum("km,mij->kij", unitary, modes)


@pytest.fixture
def background(rng) -> torch.Tensor:
    return torch.from_numpy(rng.uniform(0, 100, (SIDE, SIDE)))


@pytest.fixture
def measurement(modes, object_, positions_px, background, rng) -> Measurement:
    """Counts of all modes and a background; each pattern has its own dead pixels."""
    bright = 100 * modes
    counts = rng.poisson(patterns_expected(bright, object_, positions_px, background).numpy())
    bad_pixels = rng.random(counts.shape) < 0.1
    return Measurement(
        amplitudes=np.sqrt(np.where(bad_pixels, 0, counts)).astype(np.float32),
        positions_px=positions_px.numpy(),
        probe=bright.numpy().astype(np.complex64),
        groups=np.arange(len(counts))[:, None],
        scan_index=np.arange(len(counts)),
        object_shape=tuple(object_.shape),
        bad_pixels=bad_pixels,
        background=background.numpy().astype(np.float32),
    )


# --- Forward model


def test_patterns_are_the_sum_of_those_of_each_mode(modes, object_, positions_px, background):
    together = patterns_expected(modes, object_, positions_px, background)

    apart = sum(patterns_expected(mode, object_, positions_px) for mode in modes)
    torch.testing.assert_close(together, apart + background, rtol=1e-12, atol=1e-12)


def test_a_pattern_holds_the_photons_of_all_exit_waves_and_of_the_background(
    modes, object_, positions_px, background
):
    counts = patterns_expected(modes, object_, positions_px, background).sum(dim=(1, 2))

    landed = (exit_waves(modes, object_, positions_px).abs() ** 2).sum(dim=(0, 2, 3))
    torch.testing.assert_close(counts, landed + background.sum(), rtol=1e-13, atol=0)


def test_the_adjoint_identity_holds_with_modes(modes, object_, positions_px, rng):
    """<A o, w> = <o, A* w>, where each mode has its own wave."""
    shape = (len(modes), len(positions_px), SIDE, SIDE)
    waves = torch.from_numpy(rng.standard_normal(shape) + 1j * rng.standard_normal(shape))

    lhs = inner(exit_waves(modes, object_, positions_px), waves)
    rhs = inner(object_, exit_waves_adjoint(waves, modes, positions_px, tuple(object_.shape)))

    torch.testing.assert_close(lhs, rhs, rtol=1e-12, atol=0)


def test_a_unitary_mixture_of_modes_is_the_same_light(modes, object_, positions_px):
    shape = tuple(object_.shape)

    torch.testing.assert_close(
        patterns_expected(mixed(modes), object_, positions_px),
        patterns_expected(modes, object_, positions_px),
    )
    torch.testing.assert_close(
        illumination(mixed(modes), positions_px, shape), illumination(modes, positions_px, shape)
    )
    torch.testing.assert_close(probe_power(mixed(modes)), probe_power(modes))


def test_a_dark_mode_changes_nothing(modes, object_, positions_px):
    with_dark = torch.cat([modes, torch.zeros_like(modes[:1])])

    torch.testing.assert_close(
        patterns_expected(with_dark, object_, positions_px),
        patterns_expected(modes, object_, positions_px),
        rtol=1e-13,
        atol=0,
    )


def test_one_mode_on_an_axis_of_its_own_is_the_coherent_probe(probe, object_, positions_px):
    torch.testing.assert_close(
        patterns_expected(probe[None], object_, positions_px),
        patterns_expected(probe, object_, positions_px),
    )


def test_illumination_holds_the_photons_of_all_modes(modes, positions_px):
    light = illumination(modes, positions_px, (50, 48))

    total = len(positions_px) * (modes.abs() ** 2).sum()
    torch.testing.assert_close(light.sum(), total, rtol=1e-12, atol=0)


# --- Modes as such


def test_orthogonal_modes_are_orthogonal_and_the_strongest_comes_first(modes):
    found = orthogonal_modes(mixed(modes).numpy())

    flat = found.reshape(len(found), -1)
    gram = flat.conj() @ flat.T
    np.testing.assert_allclose(gram - np.diag(np.diag(gram)), 0, atol=1e-10)
    assert (np.diff(mode_shares(found)) < 0).all()


def test_orthogonal_modes_do_not_depend_on_the_mixture_they_came_from(modes):
    """Up to a phase of each, which no count sees."""
    first, second = (orthogonal_modes(mixed(modes, seed).numpy()) for seed in (1, 2))

    for one, other in zip(first, second, strict=True):
        overlap = abs(np.vdot(one, other)) / np.linalg.norm(one) / np.linalg.norm(other)
        assert overlap == pytest.approx(1, abs=1e-9)


def test_orthogonal_modes_are_the_same_light(modes, object_, positions_px):
    found = torch.from_numpy(orthogonal_modes(modes.numpy()))

    torch.testing.assert_close(
        patterns_expected(found, object_, positions_px),
        patterns_expected(modes, object_, positions_px),
    )


def test_modes_that_are_orthogonal_stay_as_they_are(modes):
    once = orthogonal_modes(modes.numpy())

    np.testing.assert_allclose(orthogonal_modes(once), once, atol=1e-12)


def test_a_coherent_probe_has_one_mode_of_all_the_power(probe):
    assert modes_of(probe.numpy()).shape == (1, SIDE, SIDE)
    np.testing.assert_array_equal(mode_shares(probe.numpy()), [1.0])
    np.testing.assert_array_equal(orthogonal_modes(probe.numpy()), probe.numpy())


def test_what_is_measured_on_a_probe_is_that_of_its_summed_power(modes):
    """A wave with the root of the power has the same diameter, width and window."""
    many = modes.numpy()
    alike = np.sqrt(power_of(many)).astype(complex)

    assert probe_diameter_px(many, 0.9) == probe_diameter_px(alike, 0.9)
    assert probe_fwhm_px(many) == probe_fwhm_px(alike)
    window, share = central_window(many, 14)
    assert window.shape == (3, 14, 14)
    assert share == pytest.approx(central_window(alike, 14)[1])


def test_how_far_patterns_are_isolated_follows_from_the_summed_power(modes, positions_px):
    alike = probe_power(modes).sqrt().to(modes.dtype)

    torch.testing.assert_close(
        isolated_share(modes, positions_px, (50, 48)), isolated_share(alike, positions_px, (50, 48))
    )


def test_figures_show_every_mode_and_the_summed_power(modes, object_):
    many = modes.numpy()

    assert len(probes({"solver": many, "LSQML": many[0]}, title="probes").axes) >= 2 * 4
    object_and_probe(object_.numpy(), many)


# --- Measurements


def test_parts_of_the_photons_have_their_share_of_probe_and_background(measurement, rng):
    most, rest = split_photons(measurement, 0.75, rng)

    np.testing.assert_array_equal(most.counts + rest.counts, measurement.counts)
    for part, share in ((most, 0.75), (rest, 0.25)):
        power = power_of(part.probe).sum() / power_of(measurement.probe).sum()
        assert power == pytest.approx(share, rel=1e-6)
        np.testing.assert_allclose(part.background, share * measurement.background, rtol=1e-6)


def test_masks_go_with_their_patterns(measurement):
    some = at_positions(measurement, np.array([3, 1]))

    np.testing.assert_array_equal(some.bad_pixels, measurement.bad_pixels[[3, 1]])
    assert not some.amplitudes[some.bad_pixels].any()


def test_a_background_and_modes_belong_to_the_digest(measurement):
    others = [
        replace(measurement, background=None),
        replace(measurement, background=2 * measurement.background),
        replace(measurement, probe=measurement.probe[:2]),
        replace(measurement, bad_pixels=measurement.bad_pixels[0]),
    ]
    digests = [measurement_digest(one) for one in (measurement, *others)]

    assert len(set(digests)) == 5


def test_the_digest_of_a_plain_measurement_is_that_of_before_modes():
    """Recorded before there were modes, a background, or masks of each pattern."""
    plain = Measurement(
        amplitudes=np.full((2, 4, 4), 3, np.float32),
        positions_px=np.array([[4.0, 5.0], [6.5, 5.0]]),
        probe=np.full((4, 4), 1 + 2j, np.complex64),
        groups=np.array([[0], [1]]),
        scan_index=np.array([0, 1]),
        object_shape=(12, 12),
    )

    assert measurement_digest(plain)[:16] == "6e38670c69bb6e2c"


def test_the_light_and_the_box_of_a_measurement_are_those_of_all_modes(measurement, modes):
    light = light_of(measurement)

    total = len(measurement.positions_px) * power_of(measurement.probe).sum()
    assert light.sum() == pytest.approx(total, rel=1e-5)
    outside = light.copy()
    outside[box_of(measurement)] = 0
    assert not outside.any()


@pytest.mark.parametrize(
    ("kept", "message"),
    [
        ({"background": None, "bad_pixels": None}, "a probe of 3 modes;"),
        ({"bad_pixels": None}, "a probe of 3 modes and a background;"),
        ({}, "a probe of 3 modes and a mask of each pattern and a background;"),
    ],
)
def test_what_a_method_does_not_model_is_named(measurement, kept, message):
    with pytest.raises(InputError, match=f"^LSQML takes one coherent mode.*{message} use the solv"):
        require_one_mode("LSQML", replace(measurement, **kept))


def test_errors_of_the_lens_are_those_of_one_mode(modes):
    design = load_design("smoke", ["mismatch.defocus_error_percent=10"])

    with pytest.raises(InputError, match=r"an error of the lens .* takes one coherent mode"):
        true_light(design, modes.numpy(), {})


# --- Likelihood


def test_the_residual_of_each_pattern_counts_its_own_good_pixels(measurement, object_):
    """What stands on a pixel that is bad in one pattern alone changes nothing there."""
    truth = object_.numpy().astype(np.complex64)
    before = pattern_residuals(measurement, truth, measurement.probe)
    spoilt = measurement.amplitudes.copy()
    spoilt[measurement.bad_pixels] = 1000
    after = pattern_residuals(replace(measurement, amplitudes=spoilt), truth, measurement.probe)

    np.testing.assert_array_equal(after, before)
    assert before.mean() == pytest.approx(0.5, abs=0.1)


def test_one_mask_for_all_patterns_is_the_same_as_that_mask_for_each(measurement, object_):
    truth = object_.numpy().astype(np.complex64)
    one = replace(measurement, bad_pixels=measurement.bad_pixels[0])
    each = replace(
        measurement, bad_pixels=np.repeat(measurement.bad_pixels[:1], len(one.amplitudes), axis=0)
    )

    np.testing.assert_allclose(
        likelihood_judge(each)(truth), likelihood_judge(one)(truth), rtol=1e-6
    )
    fresh = [
        FreshCounts(
            truth=truth,
            probe=part.probe,
            positions_px=part.positions_px,
            random=np.random.default_rng(3),
            background=part.background,
            bad_pixels=part.bad_pixels,
        ).excess_nats(np.ones_like(truth))
        for part in (one, each)
    ]
    assert fresh[0] == pytest.approx(fresh[1], rel=1e-6)


def test_a_pattern_without_a_good_pixel_says_nothing(measurement, object_):
    masks = measurement.bad_pixels.copy()
    masks[2] = True

    blind = pattern_residuals(
        replace(measurement, bad_pixels=masks),
        object_.numpy().astype(np.complex64),
        measurement.probe,
    )

    assert blind[2] == 0
    assert np.isfinite(blind).all()
    assert (np.delete(blind, 2) > 0).all()


def test_a_model_without_its_background_or_a_mode_explains_the_counts_less(measurement, object_):
    truth = object_.numpy().astype(np.complex64)
    full = pattern_residuals(measurement, truth, measurement.probe).mean()

    dark = pattern_residuals(replace(measurement, background=None), truth, measurement.probe).mean()
    fewer = pattern_residuals(measurement, truth, measurement.probe[:2]).mean()

    assert dark > 1.2 * full
    assert fewer > 1.2 * full


# --- Simulation


def test_a_simulated_scan_has_the_dose_of_all_modes_together(modes, object_, positions_px):
    """The given probe predicts the counts, mode by mode in the shares it had."""
    from_modes = simulate(
        object_=object_.numpy(),
        probe=modes.numpy(),
        positions_px={"test": positions_px.numpy()},
        dose=1e6,
        dark_counts=0.0,
        saturation_counts=None,
        bad_pixels=None,
        random={"test": np.random.default_rng(0)},
    )

    counted = (from_modes.amplitudes["test"] ** 2).sum(axis=(1, 2))
    assert counted.mean() == pytest.approx(1e6, rel=5e-3)
    assert from_modes.photons_expected["test"] == pytest.approx(1e6, rel=1e-5)
    np.testing.assert_allclose(mode_shares(from_modes.probe), mode_shares(modes.numpy()), rtol=1e-5)
    predicted = expected_patterns(object_.numpy(), from_modes.probe, positions_px.numpy())
    chi_square = ((from_modes.amplitudes["test"] ** 2 - predicted) ** 2 / predicted).mean()
    assert chi_square == pytest.approx(1, abs=0.15)


def test_a_simulated_background_adds_its_own_counts(modes, object_, positions_px, background):
    quiet, noisy = (
        simulate(
            object_=object_.numpy(),
            probe=modes.numpy(),
            positions_px={"test": positions_px.numpy()},
            dose=1e5,
            dark_counts=dark,
            saturation_counts=None,
            bad_pixels=None,
            random={"test": np.random.default_rng(0)},
        )
        for dark in (0.0, background.numpy())
    )

    added = float(background.sum())
    assert noisy.photons_expected["test"] - quiet.photons_expected["test"] == pytest.approx(
        added, rel=1e-5
    )
    more = (noisy.amplitudes["test"] ** 2 - quiet.amplitudes["test"] ** 2).sum(axis=(1, 2))
    assert more.mean() == pytest.approx(added, rel=0.05)


def test_light_of_more_modes_than_are_given_keeps_its_photons(modes, object_, positions_px):
    """An arm that is given one mode of partly coherent light: the ratio says how much is lost."""
    places = {"test": positions_px.numpy()}
    scan = simulate(
        object_=object_.numpy(),
        probe=modes[0].numpy(),
        positions_px=places,
        dose=1e5,
        dark_counts=0.0,
        saturation_counts=None,
        bad_pixels=None,
        random={"test": np.random.default_rng(0)},
        true_light=TrueLight(modes.numpy(), places, {}),
    )

    assert scan.probe.shape == (SIDE, SIDE)
    assert (scan.amplitudes["test"] ** 2).sum(axis=(1, 2)).mean() == pytest.approx(1e5, rel=0.01)
    given, true = (
        expected_patterns(object_.numpy(), part.numpy(), positions_px.numpy()).sum()
        for part in (modes[0], modes)
    )
    assert scan.photon_ratio == pytest.approx(given / true, rel=1e-4)


def test_each_pattern_loses_the_counts_under_its_own_mask(rng):
    expected = np.full((20, SIDE, SIDE), 50.0, np.float32)
    masks = rng.random(expected.shape) < 0.3

    count_photons(expected, bad_pixels=masks, random=rng)

    assert not expected[masks].any()
    assert expected[~masks].all()
