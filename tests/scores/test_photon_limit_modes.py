"""The photon limit with modes, a background map and masks of each pattern, by its laws."""

import numpy as np
import pytest
import torch
from scipy.stats import unitary_group

from study_lib.physics.forward import patterns_expected, probe_power
from study_lib.scores.photon_limit import FisherInformation, photon_limit

SHAPE = (24, 24)
SIDE = 12
DOSE = 1e5
CROP = (slice(5, 19), slice(4, 20))


@pytest.fixture
def scene() -> dict:
    """Two lopsided modes on a jittered raster over an object without symmetry."""
    y, x = np.mgrid[:SIDE, :SIDE] - SIDE // 2
    modulus = np.exp(-(y**2 / 18 + (x - 0.7) ** 2 / 12)) * (1 + 0.2 * np.tanh(y - x))
    first = modulus * np.exp(1j * (0.26 * y**2 + 0.23 * x**2 + 0.2 * x))
    modes = np.stack([first, 0.5 * first * (0.3 * y - 0.2j * x)])
    modes *= np.sqrt(DOSE / (np.abs(modes) ** 2).sum())
    rows, columns = np.meshgrid(np.arange(6, 18.1, 3), np.arange(6, 18.1, 3), indexing="ij")
    grid = np.stack([rows.ravel(), columns.ravel()], axis=1)
    jitter = np.random.default_rng(4).uniform(-0.4, 0.4, grid.shape)
    y, x = np.mgrid[: SHAPE[0], : SHAPE[1]]
    phase = 0.5 * np.sin(y / 3 + x / 5) + 0.4 * ((y > 9) & (y < 14) & (x > 7))
    return {
        "object_": torch.from_numpy((0.9 - 0.1 * np.cos(x / 2)) * np.exp(1j * phase)),
        "probe": torch.from_numpy(modes),
        "positions_px": torch.from_numpy(np.clip(grid + jitter, 6, 17.4)),
    }


@pytest.fixture
def background(rng) -> torch.Tensor:
    return torch.from_numpy(rng.uniform(0, 300, (SIDE, SIDE)))


@pytest.fixture
def masks(scene, rng) -> torch.Tensor:
    return torch.from_numpy(rng.random((len(scene["positions_px"]), SIDE, SIDE)) < 0.1)


def random_change(seed: int) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(SHAPE, dtype=torch.complex128, generator=generator)


def real_dot(first: torch.Tensor, second: torch.Tensor) -> float:
    return float((first.conj() * second).real.sum())


def mixed(modes: torch.Tensor) -> torch.Tensor:
    unitary = torch.from_numpy(unitary_group.rvs(len(modes), random_state=2))
    return torch.einsum("km,mij->kij", unitary, modes)


def limit_of(scene: dict, **settings: object):
    scored = np.zeros(SHAPE, dtype=bool)
    scored[7:17, 6:18] = True
    arrays = {name: part.numpy() for name, part in scene.items()}
    return photon_limit(**arrays, scored=scored, crop=CROP, seed=0, solves=3, **settings)


def test_information_is_the_squared_slope_over_the_counts(scene, background, masks):
    """The definition, by central differences of the expected counts."""
    information = FisherInformation(**scene, background=background, bad_pixels=masks)
    change, step = random_change(1), 1e-5

    def counts(by: float) -> torch.Tensor:
        moved = scene | {"object_": scene["object_"] + by * change}
        return patterns_expected(**moved, background=background)

    slopes = (counts(step) - counts(-step)) / (2 * step)
    expected = float(((slopes**2 / counts(0.0)) * ~masks).sum())
    assert real_dot(change, information.product(change)) == pytest.approx(expected, rel=1e-6)


def test_the_product_is_symmetric_with_modes(scene, background, masks):
    information = FisherInformation(**scene, background=background, bad_pixels=masks)
    first, second = random_change(1), random_change(2)

    left = real_dot(first, information.product(second))

    assert left == pytest.approx(real_dot(second, information.product(first)), rel=1e-10)


@pytest.mark.parametrize("pixel", [(11, 12), (8, 15), (3, 4)])
def test_single_pixels_are_those_of_the_product(scene, background, masks, pixel):
    """J of a change v of one pixel alone is a v + conj(b v) on that pixel."""
    information = FisherInformation(**scene, background=background, bad_pixels=masks)
    sizes, twists = information.of_single_pixels()
    unit = torch.zeros(SHAPE, dtype=torch.complex128)
    for value in (1.0, 1.0j, 0.6 - 0.8j):
        unit[pixel] = value
        expected = sizes[pixel] * value + (twists[pixel] * value).conj()
        found = information.product(unit)[pixel]
        assert abs(found - expected) < 1e-9 * float(sizes[pixel])


def test_a_unitary_mixture_of_modes_tells_the_same(scene, background, masks):
    one = FisherInformation(**scene, background=background, bad_pixels=masks)
    other = FisherInformation(
        **scene | {"probe": mixed(scene["probe"])}, background=background, bad_pixels=masks
    )
    change = random_change(3)

    torch.testing.assert_close(other.product(change), one.product(change))
    for first, second in zip(other.of_single_pixels(), one.of_single_pixels(), strict=True):
        torch.testing.assert_close(first, second)


def test_a_unitary_mixture_of_modes_has_the_same_limit(scene):
    one, other = limit_of(scene), limit_of(scene | {"probe": mixed(scene["probe"])})

    assert other.phase_rms_rad == pytest.approx(one.phase_rms_rad, rel=1e-3)


def test_a_dark_mode_changes_no_information(scene):
    dark = torch.cat([scene["probe"], 0 * scene["probe"][:1]])
    change = random_change(3)

    torch.testing.assert_close(
        FisherInformation(**scene | {"probe": dark}).product(change),
        FisherInformation(**scene).product(change),
    )


def test_modes_counted_together_tell_less_than_apart(scene):
    """Summing counts loses information; both carry all photons in a change of scale."""
    together = FisherInformation(**scene)
    apart = [FisherInformation(**scene | {"probe": mode}) for mode in scene["probe"]]
    change, scale = random_change(4), scene["object_"]

    known, more = (
        real_dot(change, together.product(change)),
        sum(real_dot(change, one.product(change)) for one in apart),
    )

    assert 0 < known < 0.9 * more
    assert real_dot(scale, together.product(scale)) == pytest.approx(
        sum(real_dot(scale, one.product(scale)) for one in apart), rel=1e-9
    )


def test_one_mask_for_all_patterns_is_the_same_as_that_mask_for_each(scene, masks):
    change = random_change(5)
    each = masks[:1].expand_as(masks).clone()

    torch.testing.assert_close(
        FisherInformation(**scene, bad_pixels=each).product(change),
        FisherInformation(**scene, bad_pixels=masks[0]).product(change),
    )


def test_masks_of_each_pattern_share_the_information_between_them(scene, masks):
    change = random_change(5)

    whole, kept, hidden = (
        real_dot(change, FisherInformation(**scene, bad_pixels=bad).product(change))
        for bad in (None, masks, ~masks)
    )

    assert kept + hidden == pytest.approx(whole, rel=1e-9)


def test_an_even_map_is_a_number(scene):
    change = random_change(6)
    even = torch.full((SIDE, SIDE), 50.0, dtype=torch.float64)

    torch.testing.assert_close(
        FisherInformation(**scene, background=even).product(change),
        FisherInformation(**scene, background=50.0).product(change),
    )


def test_less_coherence_a_background_and_masks_raise_the_limit(scene, background, masks):
    """The same light in one mode, and the same modes without more, allow a smaller error."""
    power = probe_power(scene["probe"]).sum()
    first = scene["probe"][0]
    coherent = scene | {"probe": first * (power / (first.abs() ** 2).sum()).sqrt()}
    best, plain, dulled, masked = (
        limit.phase_rms_rad
        for limit in (
            limit_of(coherent),
            limit_of(scene),
            limit_of(scene, background=background.numpy()),
            limit_of(scene, bad_pixels=masks.numpy()),
        )
    )

    assert best < plain < min(dulled, masked)
