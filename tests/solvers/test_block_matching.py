"""Denoising by similar blocks: laws, limits, and the other families on the same noise."""

import numpy as np
import pytest
import torch
from skimage.restoration import denoise_nl_means, denoise_tv_chambolle

from study_lib.physics.specimen import grains
from study_lib.seeding import generator
from study_lib.solvers.block_matching import by_similar_blocks

NOISE = 0.1


@pytest.fixture(scope="module")
def clean():
    """Real and imaginary part of grains, (2, 96, 104)."""
    object_ = grains(
        shape_px=(96, 104),
        grain_count=12,
        smallest_grain_px=4.0,
        largest_grain_px=25.0,
        phase_range_rad=1.0,
        amplitude_min=0.7,
        random=generator(3, "specimen"),
    )
    return np.stack([object_.real, object_.imag]).astype(np.float32)


def noise_like(image, seed=5):
    random = generator(seed, "noise")
    return (NOISE * random.standard_normal(image.shape)).astype(np.float32)


def found(image, noise, **options):
    return by_similar_blocks(torch.from_numpy(image), noise, **options).numpy()


def require_same_but_for_ties(one, other):
    """Of blocks that are alike, rounding may choose another."""
    assert np.median(np.abs(one - other)) < 1e-5
    assert np.abs(one - other).max() < NOISE / 5


def psnr_db(image, clean):
    return 10 * np.log10(1 / np.mean((image - clean) ** 2))


@pytest.mark.parametrize("again", [False, True])
def test_without_noise_nothing_changes(clean, again):
    np.testing.assert_allclose(found(clean, 1e-6, again=again), clean, atol=1e-4)


@pytest.mark.parametrize("again", [False, True])
def test_a_flat_image_stays_as_it_is(again):
    """All its blocks are equal, and each pixel still has to be covered by some."""
    flat = np.full((2, 90, 70), 0.7, np.float32)
    np.testing.assert_allclose(found(flat, NOISE, again=again), flat, atol=1e-6)
    quick = {"step_px": 4, "reach_px": 6, "group": 8}
    np.testing.assert_allclose(found(flat, NOISE, again=again, **quick), flat, atol=1e-6)


@pytest.mark.parametrize("again", [False, True])
def test_it_keeps_levels_and_scales(clean, again):
    noisy = clean + noise_like(clean)
    expected = found(noisy, NOISE, again=again)
    levels = np.array([4.0, -2.0], np.float32)[:, None, None]
    moved = found(noisy + levels, NOISE, again=again) - levels
    require_same_but_for_ties(moved, expected)
    scaled = found(4 * noisy, 4 * NOISE, again=again) / 4
    require_same_but_for_ties(scaled, expected)


def test_channels_that_are_alike_stay_so_and_are_denoised_as_one(clean):
    noisy = clean[:1] + noise_like(clean[:1])
    both = found(np.concatenate([noisy, noisy]), NOISE)
    np.testing.assert_allclose(both[0], both[1], atol=1e-6)
    require_same_but_for_ties(both[:1], found(noisy, NOISE))


def test_of_noise_alone_a_tenth_is_left():
    nothing = np.zeros((2, 96, 104), np.float32)
    left = found(noise_like(nothing), NOISE)
    assert left.std() < NOISE / 8


def test_it_leaves_less_than_the_other_families_at_their_best(clean):
    noisy = clean + noise_like(clean)
    parts = np.moveaxis(noisy, 0, -1)
    others = [
        denoise_tv_chambolle(parts, weight * NOISE, channel_axis=-1)
        for weight in (0.35, 0.5, 0.7, 1.0, 1.4, 2.0)
    ] + [
        denoise_nl_means(parts, 5, 6, h=weight * NOISE, channel_axis=-1)
        for weight in (0.35, 0.5, 0.7, 1.0, 1.4)
    ]
    best = max(psnr_db(np.moveaxis(one, -1, 0), clean) for one in others)
    assert psnr_db(found(noisy, NOISE), clean) > best
    once = found(noisy, NOISE, again=False)
    assert psnr_db(once, clean) < psnr_db(found(noisy, NOISE), clean)


@pytest.mark.parametrize("shape", [(1, 8, 8), (2, 9, 30), (2, 12, 8)])
def test_a_small_image_has_smaller_groups(shape):
    image = 1 + noise_like(np.zeros(shape, np.float32))
    assert np.isfinite(found(image, NOISE)).all()
    assert found(image, NOISE).std() <= image.std()


def test_an_image_smaller_than_a_block_is_refused():
    with pytest.raises(ValueError, match="7 x 40 pixels is smaller than a block of 8 x 8"):
        found(np.ones((1, 7, 40), np.float32), NOISE)
