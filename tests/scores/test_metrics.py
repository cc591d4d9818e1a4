"""Scores obey their laws: closed forms, invariances, limits and an independent library."""

import json

import numpy as np
import pytest
from scipy.ndimage import gaussian_filter
from skimage.metrics import structural_similarity

from study_lib.scores.alignment import align, shifted
from study_lib.scores.frc import (
    Crossing,
    FourierRingCorrelation,
    frc_crossing,
    half_bit_threshold,
    one_bit_threshold,
    ring_correlation,
)
from study_lib.scores.metrics import (
    MS_SSIM_WEIGHTS,
    SCORES,
    complex_nrmse,
    mae,
    ms_ssim,
    ms_ssim_scales,
    phase_pair,
    psnr_db,
    score,
    ssim,
)
from study_lib.solvers.ptychi import import_torchvision

SHAPE = (112, 100)
MARGIN_PX = 16
EVERYWHERE = np.ones(SHAPE, dtype=bool)


def frame(seed: int = 0) -> np.ndarray:
    random = np.random.default_rng(seed)
    shape = (SHAPE[0] + 2 * MARGIN_PX, SHAPE[1] + 2 * MARGIN_PX)
    depth = gaussian_filter(random.standard_normal(shape), 2)
    depth /= np.abs(depth).max()
    return (0.8 - 0.15 * depth) * np.exp(1.2j * depth)


def crop(image: np.ndarray) -> np.ndarray:
    return image[MARGIN_PX:-MARGIN_PX, MARGIN_PX:-MARGIN_PX]


def inner_mask(rim_px: int = 8) -> np.ndarray:
    mask = np.zeros(SHAPE, dtype=bool)
    mask[rim_px:-rim_px, rim_px:-rim_px] = True
    return mask


def noise(seed: int, shape: tuple[int, int] = SHAPE) -> np.ndarray:
    random = np.random.default_rng(seed)
    return (random.standard_normal(shape) + 1j * random.standard_normal(shape)) / np.sqrt(2)


def real_pair(seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    truth = np.abs(crop(frame(seed)))
    return truth + 0.05 * noise(seed + 1).real, truth


def aligned_scores(reconstruction: np.ndarray) -> dict[str, float | int | str | None]:
    truth = crop(frame())
    alignment = align(reconstruction, truth, inner_mask(), registration_limit_px=3.0)
    return score(alignment.object_, truth, inner_mask(), frc_threshold=0.5)


def ramp() -> np.ndarray:
    y, x = np.indices(SHAPE)
    return np.exp(1j * (0.07 * y - 0.04 * x))


@pytest.mark.parametrize(
    "ambiguity", [np.exp(2j), 0.2 - 0.5j, ramp()], ids=["phase", "scale", "ramp"]
)
def test_scores_do_not_see_what_diffraction_cannot_tell(ambiguity):
    noisy = crop(frame()) + 0.05 * noise(1)

    assert aligned_scores(noisy * ambiguity) == nearly(aligned_scores(noisy), rel=1e-4)


def test_scores_do_not_see_a_shift():
    """The frame is moved before the crop; its noise is smooth, so that it moves with it."""
    object_ = frame() + 0.1 * gaussian_filter(noise(1, frame().shape), 0.7)

    moved = aligned_scores(crop(shifted(object_, (1.4, -0.7))))

    # Registration compensates the noise too: it may differ by its own error, here < 0.05 px.
    assert moved == nearly(aligned_scores(crop(object_)), rel=0.02)


def test_a_shift_that_is_not_removed_costs():
    moved = crop(shifted(frame(), (1.4, -0.7)))

    raw = score(moved, crop(frame()), inner_mask(), frc_threshold=0.5)

    assert raw["phase_mae_rad"] > 20 * aligned_scores(moved)["phase_mae_rad"]


def nearly(scores, **tolerance):
    """Return scores whose numbers need not be equal to the last digit."""
    return {
        name: value if isinstance(value, str) else pytest.approx(value, **tolerance)
        for name, value in scores.items()
    }


CROSSINGS = (
    "frc_crossing",
    "frc_half_bit_crossing",
    "frc_one_bit_crossing",
    "frc_seventh_crossing",
    "spectral_snr_crossing",
)


def test_equal_images_score_perfectly():
    scores = score(crop(frame()), crop(frame()), inner_mask(), frc_threshold=0.5)

    assert scores == {
        "phase_ms_ssim": pytest.approx(1),
        "phase_ssim": pytest.approx(1),
        "phase_ssim_centred": pytest.approx(1),
        "phase_psnr_db": None,
        "phase_mae_rad": pytest.approx(0, abs=1e-12),
        "phase_mse_rad2": pytest.approx(0, abs=1e-24),
        "amplitude_ms_ssim": pytest.approx(1),
        "amplitude_ssim": pytest.approx(1),
        "amplitude_psnr_db": None,
        "amplitude_mae": 0,
        "amplitude_mse": 0,
        "complex_nrmse": 0,
        **dict.fromkeys(CROSSINGS),
        **{f"{name}_outcome": "never below" for name in CROSSINGS},
        "ms_ssim_scales": 4,
    }
    json.dumps(scores, allow_nan=False)
    numbers = {name for name in scores if not name.endswith("_outcome")}
    assert SCORES.keys() == numbers - {"ms_ssim_scales"}


def test_an_empty_object_gains_least_from_phases_about_their_mean():
    truth = crop(frame())
    empty = np.full_like(truth, np.exp(1j * np.angle(truth)[inner_mask()].mean()))

    scores = score(empty, truth, inner_mask(), frc_threshold=0.5)

    assert scores["phase_ssim_centred"] < scores["phase_ssim"] - 0.05
    assert abs(scores["phase_ssim_centred"]) < 0.2


def test_every_score_falls_with_noise():
    levels = [
        score(crop(frame()) + sigma * noise(1), crop(frame()), inner_mask(), frc_threshold=0.5)
        for sigma in (0.02, 0.1, 0.4)
    ]

    for name, metric in SCORES.items():
        values = [level[name] for level in levels]
        assert values == sorted(values, reverse=metric.better == "higher"), name
        assert len(set(values)) == 3, name


def test_scores_do_not_see_pixels_outside_the_mask():
    truth = crop(frame())
    noisy = truth + 0.05 * noise(1)
    spoilt = np.where(inner_mask(), noisy, 7j)

    expected = score(noisy, truth, inner_mask(), frc_threshold=0.5)

    assert score(spoilt, truth, inner_mask(), frc_threshold=0.5) == nearly(expected)


def test_phase_errors_are_not_wraps():
    """A truth just below pi and an object just above it differ by 0.02, not by 2 pi - 0.02."""
    truth_phase = np.full(SHAPE, np.pi - 0.01)
    truth_phase[:, ::2] -= 0.3

    truth, object_ = phase_pair(np.exp(1j * (truth_phase + 0.02)), np.exp(1j * truth_phase))

    np.testing.assert_allclose(object_ - truth, 0.02, atol=1e-12)
    assert np.ptp(truth) == pytest.approx(0.3)
    assert np.ptp(object_) == pytest.approx(0.3)


def test_a_truth_of_more_than_one_turn_is_unwrapped():
    expected = np.linspace(0, 9, SHAPE[1]) * np.ones(SHAPE)

    truth, object_ = phase_pair(np.exp(1j * (expected - 0.1)), np.exp(1j * expected))

    np.testing.assert_allclose(truth - truth.min(), expected, atol=1e-9)
    np.testing.assert_allclose(object_ - truth, -0.1, atol=1e-12)


def test_scores_do_not_see_the_branch_of_the_phase():
    truth, object_ = crop(frame()), crop(frame()) + 0.05 * noise(1)
    expected = score(object_, truth, inner_mask(), frc_threshold=0.5)

    turned = score(object_ * np.exp(3j), truth * np.exp(3j), inner_mask(), frc_threshold=0.5)

    assert turned == nearly(expected, rel=1e-9)


@pytest.mark.parametrize("offset", [0.1, -0.03])
def test_psnr_and_mae_of_a_constant_offset(offset):
    _, truth = real_pair()
    data_range = truth[inner_mask()].max() - truth[inner_mask()].min()

    assert mae(truth + offset, truth, inner_mask()) == pytest.approx(abs(offset))
    assert psnr_db(truth + offset, truth, inner_mask()) == pytest.approx(
        20 * np.log10(data_range / abs(offset))
    )


def test_ssim_is_that_of_scikit_image():
    image, truth = real_pair()

    _, similarity = structural_similarity(
        image,
        truth,
        data_range=truth.max() - truth.min(),
        gaussian_weights=True,
        sigma=1.5,
        use_sample_covariance=False,
        full=True,
    )

    assert ssim(image, truth, EVERYWHERE) == pytest.approx(similarity.mean())


def test_ssim_under_a_mask_is_that_of_the_masked_part():
    image, truth = real_pair()
    half = EVERYWHERE.copy()
    half[:, 50:] = False

    expected = ssim(image[:, :50], truth[:, :50], EVERYWHERE[:, :50])

    assert ssim(image, truth, half) == pytest.approx(expected, abs=0.03)


def test_ms_ssim_with_one_scale_is_ssim_with_mirrored_borders():
    image, truth = (array[:21, :40] for array in real_pair())
    expected = structural_similarity(
        np.pad(image, 5, mode="reflect"),
        np.pad(truth, 5, mode="reflect"),
        data_range=np.ptp(truth),
        gaussian_weights=True,
        sigma=1.5,
        use_sample_covariance=False,
    )

    assert ms_ssim(image, truth, np.ones((21, 40), dtype=bool)) == pytest.approx(expected, rel=1e-6)


@pytest.mark.parametrize(
    ("side", "scales"), [(11, 1), (21, 1), (22, 2), (43, 2), (44, 3), (87, 3), (88, 4), (175, 4)]
)
def test_ms_ssim_takes_as_many_scales_as_fit(side, scales):
    random = np.random.default_rng(0)
    truth = random.random((side, side + 3))
    mask = np.ones(truth.shape, dtype=bool)

    assert ms_ssim_scales(truth.shape) == scales
    assert 0 < ms_ssim(truth + 0.1 * random.random(truth.shape), truth, mask) < 1


@pytest.mark.parametrize("shape", [(180, 200), (101, 130), (45, 60)])
def test_ms_ssim_agrees_with_torchmetrics(shape):
    """An independent implementation; it wants torchvision importable when that is installed."""
    import_torchvision()
    import torch
    from torchmetrics.functional.image import multiscale_structural_similarity_index_measure

    random = np.random.default_rng(3)
    truth = gaussian_filter(random.standard_normal(shape), 2.0)
    image = truth + 0.3 * truth.std() * random.standard_normal(shape)
    scales = ms_ssim_scales(shape)
    weights = MS_SSIM_WEIGHTS[:scales]
    expected = multiscale_structural_similarity_index_measure(
        torch.from_numpy(image)[None, None],
        torch.from_numpy(truth)[None, None],
        data_range=float(np.ptp(truth)),
        betas=tuple(weight / sum(weights) for weight in weights),
        normalize="relu",
    )

    assert ms_ssim(image, truth, np.ones(shape, dtype=bool)) == pytest.approx(
        float(expected), abs=1e-4
    )


def test_ms_ssim_never_takes_more_than_five_scales():
    assert ms_ssim_scales((176, 400)) == 5
    assert ms_ssim_scales((4000, 4000)) == 5


def test_ms_ssim_of_an_inverted_image_is_zero_and_finite():
    _, truth = real_pair()
    assert ms_ssim(truth.max() + truth.min() - truth, truth, EVERYWHERE) == 0


def test_complex_nrmse_of_a_wrong_scale():
    truth = crop(frame())
    assert complex_nrmse((1 + 0.3j) * truth, truth, inner_mask()) == pytest.approx(0.3)


def test_frc_of_equal_images_never_crosses():
    frc = ring_correlation(crop(frame()), crop(frame()), inner_mask())

    np.testing.assert_allclose(frc.correlation, 1)
    assert frc.frequency[-1] == pytest.approx(1)
    assert len(frc.frequency) == max(SHAPE) // 2
    assert frc_crossing(frc, 0.999) == Crossing(None, "never below")


def test_frc_is_signed_and_blind_to_scale():
    frc = ring_correlation(-2 * crop(frame()), crop(frame()), inner_mask())
    np.testing.assert_allclose(frc.correlation, -1)


def test_frc_of_independent_noise_is_zero():
    frc = ring_correlation(5 + noise(1), 5 + noise(2), EVERYWHERE)

    # A ring of n independent samples scatters by 1 / sqrt(2 n); the window makes n smaller.
    samples = 2 * np.pi * np.arange(1, len(frc.correlation) + 1) * SHAPE[1] / SHAPE[0]
    assert np.abs(frc.correlation * np.sqrt(samples)).max() < 4
    assert frc.correlation[10:].mean() == pytest.approx(0, abs=0.02)


@pytest.mark.parametrize("sigma", [0.5, 1.0, 2.0])
def test_frc_of_noise_added_to_a_signal(sigma):
    """FRC = sqrt(S / (S + N)) against a noiseless truth; S and N are white here."""
    truth = noise(3)

    frc = ring_correlation(truth + sigma * noise(4), truth, EVERYWHERE)

    assert frc.correlation[10:].mean() == pytest.approx(np.sqrt(1 / (1 + sigma**2)), abs=0.02)


def test_frc_rings_are_circles_in_cycles_per_pixel():
    """A wave spoils the ring of its own frequency, whichever side of the crop it runs along."""
    shape = (120, 60)
    truth = noise(5, shape)
    for cycles in np.indices(shape) / 4:
        spoilt = truth + 5 * np.exp(2j * np.pi * cycles)
        frc = ring_correlation(spoilt, truth, np.ones(shape, dtype=bool))
        lost = np.average(frc.frequency, weights=(1 - frc.correlation) ** 2)
        assert lost == pytest.approx(0.5, abs=0.02)


def test_frc_crossing_moves_down_with_noise():
    crossings = [
        frc_crossing(
            ring_correlation(crop(frame()) + sigma * noise(6), crop(frame()), EVERYWHERE), 0.5
        ).frequency
        for sigma in (0.01, 0.1, 0.5)
    ]
    assert crossings[0] > crossings[1] > crossings[2] > 0


def curve(correlation, samples=100.0) -> FourierRingCorrelation:
    """Return a curve on equal steps of frequency up to Nyquist."""
    count = len(correlation)
    frequency = np.arange(1, count + 1) / count
    return FourierRingCorrelation(frequency, np.array(correlation), np.zeros(count) + samples)


@pytest.mark.parametrize(
    ("correlation", "expected"),
    [
        ([1.0, 0.8, 0.4, 0.9], 0.6875),
        ([1.0, 0.3, 0.4, 0.2], 0.25 + 0.25 * 5 / 7),
        ([1.0, 0.9, 0.8, 0.5], None),
    ],
)
def test_frc_crossing_is_the_first_and_linear(correlation, expected):
    outcome = "never below" if expected is None else "crosses"

    found = frc_crossing(curve(correlation), 0.5)

    assert found.outcome == outcome
    assert found.frequency == (None if expected is None else pytest.approx(expected))


@pytest.mark.parametrize(
    ("correlation", "samples", "outcome"),
    [
        ([0.4, 0.9, 0.9, 0.2], [9, 20, 30, 40], "below at first, then above"),
        ([0.9, 0.4, 0.9, 0.2], [2, 4, 30, 40], "below at first, then above"),
        ([0.4, 0.4, 0.4, 0.9], [2, 4, 30, 40], "below at first, then above"),
        ([0.4, 0.3, 0.2, 0.1], [2, 4, 30, 40], "below from the first rings"),
        ([0.9, 0.3, 0.2, 0.1], [2, 4, 30, 40], "below from the first rings"),
        ([0.4, 0.9, 0.2, 0.1], [2, 4, 30, 40], "below from the first rings"),
        ([0.9, 0.9, 0.4, 0.9], [2, 9, 5, 40], "below at first, then above"),
        ([0.9, 0.9, 0.4, 0.3], [2, 9, 5, 40], "crosses"),
        ([0.9, 0.9, 0.4, 0.9], [2, 9, 9, 40], "crosses"),
        ([0.9, 0.4, 0.9, 0.9], [2, 9, 30, 40], "crosses"),
    ],
)
def test_rings_of_few_samples_end_no_agreement(correlation, samples, outcome):
    """A crossing that rings of under 8 samples decide alone is no resolution, but a word."""
    found = frc_crossing(curve(correlation, samples), 0.5)

    assert found.outcome == outcome
    assert (found.frequency is None) == (outcome != "crosses")


def test_an_object_that_is_wrong_at_the_lowest_frequency_alone_has_no_half_bit_resolution():
    """A slow wave added to a good object: its score is a word, where it was the first ring's."""
    truth = crop(frame())
    y, x = (np.linspace(-np.pi, np.pi, side) for side in truth.shape)
    slow = 0.3 * np.cos(x)[None, :] * np.cos(y)[:, None]

    scores = score(truth * np.exp(1j * slow), truth, inner_mask(), frc_threshold=0.5)

    assert scores["frc_half_bit_crossing"] is None
    assert scores["frc_half_bit_crossing_outcome"] == "below at first, then above"


@pytest.mark.parametrize("threshold", [half_bit_threshold, one_bit_threshold])
def test_crossings_are_the_same_for_copies_of_another_scale_and_phase(threshold):
    truth, found = crop(frame()), crop(frame()) + 0.1 * noise(5)
    plain = ring_correlation(found, truth, EVERYWHERE)
    scaled = ring_correlation(3 * np.exp(1j) * found, np.exp(1j) * truth / 7, EVERYWHERE)
    swapped = ring_correlation(truth, found, EVERYWHERE)

    expected = frc_crossing(plain, threshold(plain))

    assert expected.outcome == "crosses"
    for other in (scaled, swapped):
        assert frc_crossing(other, threshold(other)).frequency == pytest.approx(expected.frequency)


def test_a_threshold_that_bends_is_crossed_between_rings():
    frc = FourierRingCorrelation(np.array([0.5, 1.0]), np.array([0.8, 0.2]), np.full(2, 9.0))
    assert frc_crossing(frc, np.array([0.5, 0.5])).frequency == pytest.approx(0.75)
    assert frc_crossing(frc, np.array([0.7, 0.3])).frequency == pytest.approx(0.75)
    assert frc_crossing(frc, np.array([0.1, 0.1])).frequency is None


def test_half_bit_and_one_bit_are_the_published_curves():
    """van Heel and Schatz (2005): 1 for one sample, then as printed there, to four digits.

    On large rings half a bit is 0.1716, above 1 / 7, and one bit 1 / 3: s / (1 + s) of each image.
    """
    samples = np.array([1.0, 10.0, 1000.0, 1e12])
    frc = FourierRingCorrelation(np.ones(4), np.ones(4), samples)
    root = np.sqrt(samples)

    half, one = half_bit_threshold(frc), one_bit_threshold(frc)

    np.testing.assert_allclose(half[[0, -1]], [1, 0.1716], atol=1e-4)
    np.testing.assert_allclose(one[[0, -1]], [1, 1 / 3], atol=1e-4)
    published = (0.2071 + 1.9102 / root) / (1.2071 + 0.9102 / root)
    np.testing.assert_allclose(half, published, atol=1e-4)
    published = (0.5 + 2.4142 / root) / (1.5 + 1.4142 / root)
    np.testing.assert_allclose(one, published, atol=1e-4)


def test_unrelated_noise_correlates_as_the_samples_of_its_rings_say():
    """The correlation of independent noise has variance 1 / 2 n for n complex samples.

    Rings are thin: some of what the window ties to a frequency lies on other rings, so there are
    more samples than are counted, about a fifth, and the threshold is on the safe side.
    """
    mask = np.ones(SHAPE, dtype=bool)
    draws = [ring_correlation(noise(k), noise(k + 1000), mask) for k in range(60)]

    spread = np.var([draw.correlation for draw in draws], axis=0)

    expected = 1 / (2 * draws[0].samples)
    ratio = spread[4:] / expected[4:]
    assert 0.65 < ratio.mean() < 1.05
    assert draws[0].samples[-1] > 10 * draws[0].samples[0]


def test_a_constant_object_has_no_correlation_and_finite_scores():
    constant = np.full(SHAPE, 0.8 - 0.1j)

    scores = score(constant, crop(frame()), inner_mask(), frc_threshold=0.5)

    frc = ring_correlation(constant, crop(frame()), inner_mask())
    assert not frc.correlation.any()
    for name in CROSSINGS[:-1]:
        assert scores[name] is None
        assert scores[f"{name}_outcome"] == "below from the first rings", name
    json.dumps(scores, allow_nan=False)


@pytest.mark.parametrize(
    ("truth", "message"),
    [
        (np.full(SHAPE, 0.5 + 0.5j), "the phase of the truth is 0 on all 8064 scored pixels"),
    ],
)
def test_a_truth_without_contrast_is_refused(truth, message):
    with pytest.raises(ValueError, match=message):
        score(crop(frame()), truth, inner_mask(), frc_threshold=0.5)


def test_a_crop_smaller_than_the_window_is_refused():
    truth = crop(frame())[:10]
    with pytest.raises(ValueError, match="10 x 100 pixels, smaller than the 11 pixel window"):
        score(truth, truth, np.ones(truth.shape, dtype=bool), frc_threshold=0.5)


def test_an_object_that_is_not_finite_is_refused():
    broken = crop(frame())
    broken[3, 4] = np.inf
    with pytest.raises(ValueError, match=r"1 of 11200 pixels are not finite, first .* \(3, 4\)"):
        score(broken, crop(frame()), inner_mask(), frc_threshold=0.5)


def test_a_pure_phase_truth_is_scored_in_phase_alone():
    truth = crop(frame()) / np.abs(crop(frame()))

    scores = score(0.9 * truth * np.exp(0.01j), truth, inner_mask(), frc_threshold=0.5)

    assert scores["phase_ms_ssim"] > 0.99
    assert scores["amplitude_mae"] == pytest.approx(0.1, rel=1e-5)
    assert [scores[f"amplitude_{name}"] for name in ("ms_ssim", "ssim", "psnr_db")] == [None] * 3
