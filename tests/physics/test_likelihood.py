"""Groups share one region, the likelihood is Poisson's, the amplitude error has its scale."""

import numpy as np
import pytest
import torch
from scipy.stats import poisson

from study_lib.networks.pinn.training import merge_groups, merge_weights
from study_lib.physics.forward import expected_counts
from study_lib.physics.likelihood import amplitude_error, half_deviance

SIDE = 16
# A group of four patches, none of which lies square to another.
CORNERS_PX = torch.tensor([[[3, 5], [4, 11], [9, 6], [10, 13]], [[0, 2], [6, 1], [3, 9], [7, 7]]])


@pytest.fixture
def random() -> torch.Generator:
    return torch.Generator().manual_seed(11)


def lopsided_probe() -> torch.Tensor:
    """Return a complex probe without any symmetry, strong in the middle, weak at the border."""
    y, x = torch.meshgrid(torch.arange(SIDE), torch.arange(SIDE), indexing="ij")
    width = torch.exp(-((y - 6.5) ** 2) / 14 - ((x - 9.2) ** 2) / 9)
    return (100 * torch.polar(width, 0.03 * (y - 5.0) ** 2 - 0.2 * x)).to(torch.complex64)


def speckle(random: torch.Generator, *shape: int) -> torch.Tensor:
    """Return transmissions with amplitudes 0.5 to 1 and phases of +-1 rad."""
    amplitude = 0.5 + 0.5 * torch.rand(*shape, generator=random)
    return torch.polar(amplitude, 2 * torch.rand(*shape, generator=random) - 1)


def cut(object_: torch.Tensor, corners_px: torch.Tensor) -> torch.Tensor:
    """Return the patches of an object, by plain slices."""
    rows = [
        torch.stack([object_[y : y + SIDE, x : x + SIDE] for y, x in group.tolist()])
        for group in corners_px
    ]
    return torch.stack(rows)


def test_patches_of_one_object_are_their_own_region(random):
    """Merging must not move, mirror or blur what already agrees."""
    patches = cut(speckle(random, 30, 30), CORNERS_PX)

    merged = merge_groups(patches, CORNERS_PX, merge_weights(lopsided_probe()))

    torch.testing.assert_close(merged, patches, rtol=1e-5, atol=1e-6)


def test_merging_twice_is_merging_once(random):
    weights = merge_weights(lopsided_probe())
    once = merge_groups(speckle(random, 2, 4, SIDE, SIDE), CORNERS_PX, weights)

    twice = merge_groups(once, CORNERS_PX, weights)

    torch.testing.assert_close(twice, once, rtol=1e-4, atol=1e-5)


def test_single_patch_is_its_own_region(random):
    patches = speckle(random, 3, 1, SIDE, SIDE)
    corners_px = torch.randint(0, 40, (3, 1, 2), generator=random)

    assert torch.equal(merge_groups(patches, corners_px, merge_weights(lopsided_probe())), patches)


def test_patches_that_disagree_become_their_weighted_mean(random):
    """Patch 1 lies 4 rows down and 3 columns left of patch 0; alone, each stays as it is."""
    first, second = speckle(random, SIDE, SIDE), speckle(random, SIDE, SIDE)
    corners_px = torch.tensor([[[2, 9], [6, 6]]])
    weights = merge_weights(lopsided_probe())

    merged = merge_groups(torch.stack([first, second])[None], corners_px, weights)[0]

    in_first, in_second = (slice(4, None), slice(None, -3)), (slice(None, -4), slice(3, None))
    weight_0, weight_1 = weights[in_first], weights[in_second]
    mean = (weight_0 * first[in_first] + weight_1 * second[in_second]) / (weight_0 + weight_1)
    torch.testing.assert_close(merged[0][in_first], mean)
    torch.testing.assert_close(merged[1][in_second], mean)
    torch.testing.assert_close(merged[0][:4], first[:4])
    torch.testing.assert_close(merged[1][:, :3], second[:, :3])


def test_merge_depends_on_relative_corners_only(random):
    patches, weights = speckle(random, 2, 4, SIDE, SIDE), merge_weights(lopsided_probe())
    moved = CORNERS_PX + torch.tensor([[[100, 7]], [[3, 250]]])

    torch.testing.assert_close(
        merge_groups(patches, moved, weights), merge_groups(patches, CORNERS_PX, weights)
    )


def test_groups_of_a_batch_do_not_mix(random):
    patches, weights = speckle(random, 2, 4, SIDE, SIDE), merge_weights(lopsided_probe())

    together = merge_groups(patches, CORNERS_PX, weights)

    for row in range(2):
        alone = merge_groups(patches[row : row + 1], CORNERS_PX[row : row + 1], weights)
        torch.testing.assert_close(together[row : row + 1], alone)


def test_merge_weights_are_positive_where_no_photon_falls():
    probe = lopsided_probe()
    probe[:4] = 0

    weights = merge_weights(probe)

    assert weights.min() > 0
    assert weights.max() / weights[0, 0] > 100


def test_half_deviance_is_scipys_likelihood_ratio(random):
    expected = 8 * torch.rand(SIDE, SIDE, generator=random, dtype=torch.float64) + 0.1
    counts = torch.poisson(expected, generator=random)

    perfect = poisson.logpmf(counts.numpy(), counts.numpy())
    ratio = (perfect - poisson.logpmf(counts.numpy(), expected.numpy())).mean()

    assert float(half_deviance(expected, counts)) == pytest.approx(ratio, rel=1e-5)


def test_half_deviance_of_a_perfect_model_is_zero(random):
    expected = 50 * torch.rand(4, SIDE, SIDE, generator=random, dtype=torch.float64)

    assert float(half_deviance(expected, expected)) == pytest.approx(0, abs=1e-5)
    assert float(half_deviance(1.1 * expected, expected)) > 0.01
    assert float(half_deviance(0.9 * expected, expected)) > 0.01


def test_noise_alone_gives_one_half_at_many_photons(random):
    """Wilks: twice the log-likelihood ratio per pixel is chi-squared with one degree."""
    expected = torch.full((200, SIDE, SIDE), 1000.0, dtype=torch.float64)
    counts = torch.poisson(expected, generator=random)

    standard_error = np.sqrt(2) / 2 / np.sqrt(counts.numel())
    assert float(half_deviance(expected, counts)) == pytest.approx(0.5, abs=4 * standard_error)


def test_gradient_is_that_of_the_poisson_likelihood(random):
    expected = 5 * torch.rand(SIDE, SIDE, generator=random, dtype=torch.float64) + 0.5
    counts = torch.poisson(expected, generator=random)
    expected.requires_grad_()

    (gradient,) = torch.autograd.grad(half_deviance(expected, counts), expected)

    torch.testing.assert_close(
        gradient, (1 - counts / expected.detach()) / counts.numel(), rtol=1e-4, atol=1e-8
    )


def test_half_deviance_is_finite_without_photons():
    expected = torch.tensor([[0.0, 0.0], [3.0, 2.0]], requires_grad=True)
    counts = torch.tensor([[0.0, 4.0], [0.0, 2.0]])

    value = half_deviance(expected, counts)
    (gradient,) = torch.autograd.grad(value, expected)

    assert torch.isfinite(value)
    assert torch.isfinite(gradient).all()
    assert gradient[0, 1] < 0  # photons came where none were expected: expect more


def test_true_object_explains_the_counts_best(random):
    """No other region has a smaller deviance, and none of the usual mistakes comes near."""
    object_, weights = speckle(random, 30, 30), merge_weights(lopsided_probe())
    patches = cut(object_, CORNERS_PX)
    probes = lopsided_probe().expand(patches.shape)
    waves = (probes * patches).numpy().astype(np.complex128)
    detector = np.fft.fftshift(np.fft.fft2(np.fft.ifftshift(waves, axes=(-2, -1))), axes=(-2, -1))
    noise_free = torch.from_numpy(np.abs(detector) ** 2 / SIDE**2)
    counts = torch.poisson(noise_free, generator=random).float()

    def deviance(trial, corners_px=CORNERS_PX):
        waves = probes * merge_groups(trial, corners_px, weights)
        return float(half_deviance(expected_counts(waves), counts))

    best = deviance(patches)
    wrong = {
        "brighter": cut(1.05 * object_, CORNERS_PX),
        "conjugate": patches.conj().resolve_conj(),
        "uniform": torch.ones_like(patches),
        "other patch": patches.flip(1),
        "shifted": cut(object_.roll(1, dims=1), CORNERS_PX),
        "noisy": patches + 0.1 * speckle(random, *patches.shape),
        "phase ramp": cut(
            object_ * torch.polar(torch.ones(30), 0.1 * torch.arange(30)), CORNERS_PX
        ),
    }
    assert best < 0.6
    assert {name: deviance(trial) for name, trial in wrong.items() if deviance(trial) <= best} == {}
    assert deviance(patches, -CORNERS_PX) > 2 * best
    assert deviance(patches * torch.polar(torch.tensor(1.0), torch.tensor(0.7))) == pytest.approx(
        best, rel=1e-3
    )


@pytest.mark.parametrize("measure", [half_deviance, amplitude_error])
def test_bad_pixels_count_neither_in_the_sum_nor_in_the_mean(measure, random):
    expected = 9 * torch.rand(3, SIDE, SIDE, generator=random) + 1
    counts = torch.poisson(expected, generator=random)
    bad_pixels = torch.ones(SIDE, SIDE, dtype=torch.bool)
    bad_pixels[:10, :10] = False
    garbage = torch.where(bad_pixels, 1e3, expected)

    value = measure(garbage, counts, bad_pixels)

    torch.testing.assert_close(value, measure(expected[..., :10, :10], counts[..., :10, :10]))


def test_amplitude_error_of_noise_alone_is_one_half_at_many_photons(random):
    """The same scale as the likelihood's, so that one learning rate suits both."""
    expected = torch.full((200, SIDE, SIDE), 1000.0, dtype=torch.float64)
    counts = torch.poisson(expected, generator=random)

    assert float(amplitude_error(expected, counts)) == pytest.approx(0.5, abs=0.015)


def test_amplitude_error_is_finite_without_photons_and_asks_for_them():
    expected = torch.tensor([[0.0, 0.0], [3.0, 2.0]], requires_grad=True)
    counts = torch.tensor([[0.0, 4.0], [0.0, 2.0]])

    (gradient,) = torch.autograd.grad(amplitude_error(expected, counts), expected)

    assert torch.isfinite(gradient).all()
    assert gradient[0, 1] < 0 < gradient[1, 0]
