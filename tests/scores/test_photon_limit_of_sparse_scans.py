"""The photon limit where patterns hardly overlap, against a Fisher matrix written out here.

9 patterns of 16 x 16 pixels, 6 apart, on an object of 32 x 32: four solves by random signs are
negative on a seventh of these pixels.
"""

import numpy as np
import pytest
import torch

from study_lib.scores.photon_limit import FisherInformation, photon_limit

SIDE = 16
SHAPE = (32, 32)
CROP = (slice(8, 24), slice(8, 24))


@pytest.fixture(scope="module")
def places() -> np.ndarray:
    rows, columns = np.meshgrid((10, 16, 22), (10, 16, 22), indexing="ij")
    return np.stack([rows.ravel(), columns.ravel()], axis=1).astype(float)


@pytest.fixture(scope="module")
def light() -> np.ndarray:
    """A lopsided, curved probe of 10,000 photons."""
    y, x = np.mgrid[:SIDE, :SIDE] - SIDE // 2
    modulus = np.exp(-(y**2 / 32 + (x - 0.7) ** 2 / 22)) * (1 + 0.2 * np.tanh(y - x))
    probe = modulus * np.exp(1j * (0.15 * y**2 + 0.13 * x**2 + 0.2 * x))
    return probe * np.sqrt(1e4 / (np.abs(probe) ** 2).sum())


@pytest.fixture(scope="module")
def truth() -> np.ndarray:
    y, x = np.mgrid[: SHAPE[0], : SHAPE[1]]
    phase = 0.5 * np.sin(y / 3 + x / 5) + 0.4 * ((y > 9) & (y < 18) & (x > 12))
    return (0.9 - 0.1 * np.cos(x / 2)) * np.exp(1j * phase)


@pytest.fixture(scope="module")
def scored() -> np.ndarray:
    mask = np.zeros(SHAPE, dtype=bool)
    mask[CROP] = True
    return mask


@pytest.fixture(scope="module")
def matrix(truth, light, places) -> np.ndarray:
    """J of amplitude and phase times amplitude of every pixel: sum of s s^T / I over all counts.

    From a written-out Fourier matrix; s is the slope of one expected count I.
    """
    index = np.arange(SIDE) - SIDE // 2
    one_side = np.exp(-2j * np.pi * np.outer(index, index) / SIDE) / np.sqrt(SIDE)
    transform = np.kron(one_side, one_side)
    total = np.zeros((2 * truth.size, 2 * truth.size))
    turn = np.exp(1j * np.angle(truth))
    for row, column in places.astype(int) - SIDE // 2:
        patch = np.s_[row : row + SIDE, column : column + SIDE]
        waves = transform * (light * turn[patch]).ravel()
        wave = transform @ (light * truth[patch]).ravel()
        slopes = 2 * np.concatenate(
            [(wave.conj()[:, None] * waves).real, -(wave.conj()[:, None] * waves).imag], axis=1
        )
        pixels = np.arange(truth.size).reshape(SHAPE)[patch].ravel()
        both = np.concatenate([pixels, pixels + truth.size])
        total[np.ix_(both, both)] += slopes.T @ (slopes / np.abs(wave[:, None]) ** 2)
    return total


@pytest.fixture(scope="module")
def phase_variance(matrix, truth, light, places, scored) -> np.ndarray:
    """Of the scored pixels, less the plane and constant that alignment takes out."""
    photons = np.zeros(SHAPE)
    for row, column in places.astype(int) - SIDE // 2:
        photons[row : row + SIDE, column : column + SIDE] += np.abs(light) ** 2
    free = np.flatnonzero(photons > 1e-3 * np.median(photons[scored]))
    kept = np.concatenate([free, free + truth.size])
    covariance = np.zeros_like(matrix)
    # What is added fixes the global phase, which is no part of what is left after alignment.
    global_phase = np.concatenate([np.zeros(truth.size), np.abs(truth).ravel()])[kept]
    fixed = matrix[np.ix_(kept, kept)] + np.outer(global_phase, global_phase)
    covariance[np.ix_(kept, kept)] = np.linalg.inv(fixed)
    inside = np.flatnonzero(scored)
    amplitude = np.abs(truth)[scored]
    y, x = np.indices(SHAPE)
    planes = amplitude[:, None] * np.stack([np.ones(len(inside)), y[scored], x[scored]], axis=1)
    basis = np.linalg.qr(planes).Q
    remover = np.eye(len(inside)) - basis @ basis.T
    of_phase = covariance[np.ix_(inside + truth.size, inside + truth.size)]
    return np.diag(remover @ of_phase @ remover) / amplitude**2


@pytest.fixture(scope="module")
def limit_of(truth, light, places, scored):
    def limit(seed=0, solves=4, mask=scored):
        return photon_limit(
            object_=truth,
            probe=light,
            positions_px=places,
            scored=mask,
            crop=CROP,
            seed=seed,
            solves=solves,
        )

    return limit


def test_the_limit_is_known_everywhere_with_as_few_solves_as_two(limit_of, scored, phase_variance):
    """The scan is so sparse that limits differ fivefold; not one is zero or far too small."""
    limit = limit_of(solves=2)

    assert phase_variance.max() > 20 * phase_variance.min()
    share = limit.phase_std_rad[scored] / np.sqrt(phase_variance)
    assert share.min() > 0.2
    assert limit.amplitude_std[scored].min() > 0


@pytest.fixture(scope="module")
def limits(limit_of):
    return [limit_of(seed=seed, solves=8) for seed in range(6)]


@pytest.mark.slow
def test_pixels_are_off_the_dense_inverse_by_what_is_stated(limits, scored, phase_variance):
    """The six seeds' estimates scatter about the dense inverse as they say, one pixel by one."""
    std_rad = np.sqrt(phase_variance)
    found = np.array([limit.phase_std_rad[scored] for limit in limits])
    stated = np.array([limit.phase_std_uncertainty_rad[scored] for limit in limits])
    off = (found - std_rad) / stated
    # What chi-squared of 8 degrees of freedom leaves within its own one and two standard errors.
    assert (np.abs(off) < 1).mean() == pytest.approx(0.67, abs=0.06)
    assert (np.abs(off) < 2).mean() == pytest.approx(0.90, abs=0.05)
    np.testing.assert_allclose((found**2).mean() / phase_variance.mean(), 1, atol=0.1)
    np.testing.assert_allclose(np.sqrt((found**2).mean(axis=0)) / std_rad, 1, atol=0.35)


@pytest.mark.slow
def test_the_number_is_off_the_dense_inverse_by_what_is_stated(limits, phase_variance):
    aimed_rad = np.sqrt(phase_variance.mean())

    off = [(limit.phase_rms_rad - aimed_rad) / limit.phase_rms_error_rad for limit in limits]
    assert np.abs(off).max() < 5, "Student's t of 7 degrees of freedom"
    assert np.sqrt(np.mean(np.square(off))) < 2
    assert max(limit.phase_rms_error_rad for limit in limits) < 0.25 * aimed_rad


def test_the_diagonal_of_single_pixels_is_that_of_the_matrix(matrix, truth, light, places):
    information = FisherInformation(
        object_=torch.from_numpy(truth),
        probe=torch.from_numpy(light),
        positions_px=torch.from_numpy(places),
    )

    size, twist = information.of_single_pixels()

    turned = (twist * torch.from_numpy(np.exp(2j * np.angle(truth)))).numpy().ravel()
    amplitude, phase = np.diag(matrix).reshape(2, -1)
    between = matrix[np.arange(truth.size), np.arange(truth.size) + truth.size]
    tight = {"rtol": 1e-9, "atol": 1e-9 * phase.max()}
    np.testing.assert_allclose(size.numpy().ravel() + turned.real, amplitude, **tight)
    np.testing.assert_allclose(size.numpy().ravel() - turned.real, phase, **tight)
    np.testing.assert_allclose(-turned.imag, between, **tight)


def test_a_scored_pixel_in_the_dark_has_a_limit(limit_of, light, scored):
    """It receives less than the share of light below which pixels count as known."""
    wide = scored.copy()
    wide[2, 2] = True  # the corner of one pattern
    assert abs(light[0, 0]) ** 2 < 1e-3 * np.median(np.abs(light) ** 2)

    limit = limit_of(mask=wide)

    assert limit.phase_std_rad[2, 2] > 10 * np.median(limit.phase_std_rad[scored])
