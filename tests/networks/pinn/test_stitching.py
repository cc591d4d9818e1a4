"""Patches become one object: every group's constant phase found, nothing invented outside."""

import numpy as np
import pytest
import torch

from study_lib.networks.pinn.inference import stitch

SIDE = 12
SHAPE = (48, 44)
LIT = (slice(3, 43), slice(2, 40))


@pytest.fixture
def random() -> np.random.Generator:
    return np.random.default_rng(23)


@pytest.fixture
def object_(random) -> np.ndarray:
    """Amplitudes 0.5 to 1, phases of +-1 rad, no two pixels alike."""
    return random.uniform(0.5, 1, SHAPE) * np.exp(1j * random.uniform(-1, 1, SHAPE))


def scan_corners(random: np.random.Generator, size: int) -> np.ndarray:
    """Return (group, size, 2) corners: a raster that covers LIT, with random company per group."""
    rows, columns = np.arange(3, 32, 4), np.arange(2, 29, 4)
    raster = np.stack(np.meshgrid([*rows, 31], [*columns, 28], indexing="ij"), -1).reshape(-1, 1, 2)
    company = raster + random.integers(-4, 5, (len(raster), size - 1, 2))
    return np.hstack([raster, np.clip(company, (3, 2), (31, 28))])


def cut(object_: np.ndarray, corners_px: np.ndarray) -> np.ndarray:
    return np.array(
        [[object_[y : y + SIDE, x : x + SIDE] for y, x in group] for group in corners_px]
    )


def stitched(patches: np.ndarray, corners_px: np.ndarray, shape=SHAPE) -> np.ndarray:
    """Stitch with weights that are strong in the middle and lopsided."""
    y, x = np.mgrid[:SIDE, :SIDE]
    weights = np.exp(-((y - 5.0) ** 2) / 20 - (x - 6.5) ** 2 / 12) + 1e-3
    result = stitch(
        lambda groups: torch.from_numpy(patches)[groups],
        torch.from_numpy(corners_px),
        torch.from_numpy(weights),
        shape,
        batch=64,
        kept_bytes=0,
    )
    return result.numpy()


def without_global_phase(image: np.ndarray, reference: np.ndarray) -> np.ndarray:
    return image * np.exp(-1j * np.angle((image * reference.conj()).sum()))


def test_patches_that_agree_give_the_object_itself(object_, random):
    corners_px = scan_corners(random, 4)

    image = stitched(cut(object_, corners_px), corners_px)

    np.testing.assert_allclose(image[LIT], object_[LIT], atol=1e-3)


@pytest.mark.parametrize("size", [1, 4])
def test_constant_phase_of_each_group_does_not_reach_the_object(size, object_, random):
    """One pattern cannot tell a constant phase; the object is found up to a single one."""
    corners_px = scan_corners(random, size)
    turns = np.exp(1j * random.uniform(-np.pi, np.pi, len(corners_px)))
    patches = cut(object_, corners_px) * turns[:, None, None, None]

    image = stitched(patches, corners_px)

    image = without_global_phase(image[LIT], object_[LIT])
    np.testing.assert_allclose(image, object_[LIT], atol=1e-4)


def test_dark_part_of_a_wide_field_finds_its_phase_too(random):
    """Bright groups agree more strongly than dark ones, but not more rightly."""
    shape = (24, 200)
    object_ = random.uniform(0.8, 1, shape) * np.exp(1j * random.uniform(-1, 1, shape))
    object_[:, 100:] *= 0.5
    rows, columns = np.arange(0, 13, 4), np.arange(0, 189, 4)
    corners_px = np.stack(np.meshgrid(rows, columns, indexing="ij"), -1).reshape(-1, 1, 2)
    turns = np.exp(1j * random.uniform(-np.pi, np.pi, len(corners_px)))
    patches = cut(object_, corners_px) * turns[:, None, None, None]

    image = without_global_phase(stitched(patches, corners_px, shape), object_)

    np.testing.assert_allclose(image, object_, atol=0.02)


@pytest.mark.parametrize("count", [1, 2, 3])
def test_few_groups_are_stitched_too(count, object_, random):
    corners_px = np.array([[[5, 5]], [[9, 8]], [[7, 11]]])[:count]
    turns = np.exp(1j * random.uniform(-np.pi, np.pi, count))

    image = stitched(cut(object_, corners_px) * turns[:, None, None, None], corners_px)

    lit = image != 1
    assert lit.sum() >= SIDE**2
    aligned = without_global_phase(image[lit], object_[lit])
    np.testing.assert_allclose(aligned, object_[lit], atol=1e-4)


def test_patches_without_common_pixels_keep_their_amplitude(object_):
    corners_px = np.array([[[0, 0]], [[20, 20]]])
    patches = cut(object_, corners_px) * np.array([1, 1j])[:, None, None, None]

    image = stitched(patches, corners_px)

    for y, x in corners_px[:, 0]:
        part = slice(y, y + SIDE), slice(x, x + SIDE)
        np.testing.assert_allclose(np.abs(image[part]), np.abs(object_[part]), atol=1e-6)


def test_pixels_under_no_patch_are_exactly_one(object_, random):
    corners_px = scan_corners(random, 4)
    dark = np.ones(SHAPE, dtype=bool)
    dark[LIT] = False

    image = stitched(0.3 * cut(object_, corners_px), corners_px)

    assert (image[dark] == 1).all()
    assert (np.abs(image[~dark]) < 0.31).all()


def test_object_does_not_depend_on_the_order_of_groups_or_of_their_patches(object_, random):
    corners_px = scan_corners(random, 4)
    noise = random.normal(size=(len(corners_px), 4, SIDE, SIDE))
    patches = cut(object_, corners_px) + 0.2 * noise
    order, inner = random.permutation(len(corners_px)), [2, 0, 3, 1]

    shuffled = stitched(patches[order][:, inner], corners_px[order][:, inner])

    np.testing.assert_allclose(shuffled, stitched(patches, corners_px), atol=1e-3)


def test_well_known_pixels_outweigh_the_others(object_):
    """The patch whose weight is larger somewhere decides there."""
    corners_px = np.array([[[10, 10], [10, 14]]])
    patches = np.stack([np.full((SIDE, SIDE), 1.0 + 0j), np.full((SIDE, SIDE), 0.5 + 0j)])[None]

    image = stitched(patches, corners_px).real

    # Column 17 is the middle of patch 0 and near the edge of patch 1, column 21 the reverse.
    assert image[15, 17] > 0.75 > image[15, 21]


def test_patch_beyond_the_object_is_refused(object_):
    corners_px = np.array([[[0, 0]], [[SHAPE[0] - SIDE + 1, 0]]])
    patches = np.ones((2, 1, SIDE, SIDE), dtype=complex)

    with pytest.raises(ValueError, match=r"scan position 1 of 2 leaves the object"):
        stitched(patches, corners_px)
