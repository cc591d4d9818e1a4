"""The photon limit: Fisher information by its laws, then a dense inverse, then real noise."""

import numpy as np
import pytest
import torch
from scipy.optimize import minimize

from study_lib.errors import StudyError
from study_lib.physics.forward import illumination
from study_lib.scores.frc import ring_correlation, ring_sums, window_of
from study_lib.scores.photon_limit import (
    FisherInformation,
    alignment_directions,
    photon_limit,
    ring_power,
    solve,
    without,
)

pytestmark = pytest.mark.slow

SHAPE = (24, 24)
SIDE = 12
DOSE = 1e5
CROP = (slice(5, 19), slice(4, 20))


@pytest.fixture
def places() -> np.ndarray:
    """A jittered raster of 3 pixels over all of the canvas where a patch fits."""
    rows, columns = np.meshgrid(np.arange(6, 18.1, 3), np.arange(6, 18.1, 3), indexing="ij")
    grid = np.stack([rows.ravel(), columns.ravel()], axis=1)
    jitter = np.random.default_rng(4).uniform(-0.4, 0.4, grid.shape)
    return np.clip(grid + jitter, 6, 17.4)


@pytest.fixture
def light() -> np.ndarray:
    """A lopsided probe of one dose, so curved that its light fills the detector.

    Where less than a photon is expected, maximum likelihood shrinks and undercuts the bound.
    """
    y, x = np.mgrid[:SIDE, :SIDE] - SIDE // 2
    modulus = np.exp(-(y**2 / 18 + (x - 0.7) ** 2 / 12)) * (1 + 0.2 * np.tanh(y - x))
    probe = modulus * np.exp(1j * (0.26 * y**2 + 0.23 * x**2 + 0.2 * x))
    return probe * np.sqrt(DOSE / (np.abs(probe) ** 2).sum())


@pytest.fixture
def truth() -> np.ndarray:
    y, x = np.mgrid[: SHAPE[0], : SHAPE[1]]
    phase = 0.5 * np.sin(y / 3 + x / 5) + 0.4 * ((y > 9) & (y < 14) & (x > 7))
    return (0.9 - 0.1 * np.cos(x / 2)) * np.exp(1j * phase)


@pytest.fixture
def scored() -> np.ndarray:
    mask = np.zeros(SHAPE, dtype=bool)
    mask[7:17, 6:18] = True
    mask[7, 6] = False
    return mask


@pytest.fixture
def scene(truth, light, places) -> dict[str, torch.Tensor]:
    return {
        "object_": torch.from_numpy(truth),
        "probe": torch.from_numpy(light),
        "positions_px": torch.from_numpy(places),
    }


def random_change(seed: int) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(SHAPE, dtype=torch.complex128, generator=generator)


def real_dot(first: torch.Tensor, second: torch.Tensor) -> float:
    return float((first.conj() * second).real.sum())


class Scan:
    """The experiment and its adjoint by numpy alone, independent of the code under test."""

    def __init__(self, light: np.ndarray, places: np.ndarray) -> None:
        whole = np.rint(places).astype(int)
        cycles = np.fft.fftfreq(SIDE)
        rest = places - whole
        turns = rest[:, 0, None, None] * cycles[:, None] + rest[:, 1, None, None] * cycles
        self.probes = np.fft.ifft2(np.fft.fft2(light) * np.exp(-2j * np.pi * turns))
        first = whole - SIDE // 2
        offsets = np.arange(SIDE)
        self.rows = first[:, 0, None, None] + offsets[:, None]
        self.columns = first[:, 1, None, None] + offsets

    def spectra(self, object_: np.ndarray) -> np.ndarray:
        return np.fft.fft2(self.probes * object_[self.rows, self.columns], norm="ortho")

    def adjoint(self, spectra: np.ndarray) -> np.ndarray:
        total = np.zeros(SHAPE, dtype=complex)
        waves = np.fft.ifft2(spectra, norm="ortho")
        np.add.at(total, (self.rows, self.columns), self.probes.conj() * waves)
        return total


def dense_jacobian(object_: np.ndarray, light: np.ndarray, places: np.ndarray) -> np.ndarray:
    """Slopes of every square root of expected counts in every real and imaginary part, by 2."""
    scan = Scan(light, places)
    phasors = np.exp(-1j * np.angle(scan.spectra(object_))).ravel()
    columns = []
    for index in range(object_.size):
        unit = np.zeros(object_.size)
        unit[index] = 1
        columns.append(phasors * scan.spectra(unit.reshape(SHAPE)).ravel())
    slopes = np.array(columns).T
    return 2 * np.concatenate([slopes.real, -slopes.imag], axis=1)


# --- laws


def test_the_product_is_symmetric_and_never_negative(scene):
    information = FisherInformation(**scene)
    first, second = random_change(1), random_change(2)

    left = real_dot(first, information.product(second))

    assert left == pytest.approx(real_dot(second, information.product(first)), rel=1e-10)
    assert real_dot(first, information.product(first)) > 0


def test_a_global_phase_changes_no_pattern(scene):
    information = FisherInformation(**scene)

    image = information.product(1j * scene["object_"])

    assert image.abs().max() < 1e-9 * information.product(scene["object_"]).abs().max()


def test_a_change_of_scale_carries_all_photons(scene):
    """With I = s^2 I_0 the information in s is 4 sum I_0."""
    information = FisherInformation(**scene)
    object_ = scene["object_"]
    photons = illumination(scene["probe"], scene["positions_px"], SHAPE)

    carried = real_dot(object_, information.product(object_))

    assert carried == pytest.approx(4 * float((photons * object_.abs() ** 2).sum()), rel=1e-9)


@pytest.mark.parametrize("pixel", [(11, 12), (8, 15), (3, 4)])
def test_real_and_imaginary_part_of_a_pixel_share_four_times_its_photons(scene, pixel):
    """Exact for every scan and object: half of what amplitude and phase could carry."""
    information = FisherInformation(**scene)
    total = 0.0
    for value in (1.0, 1.0j):
        unit = torch.zeros(SHAPE, dtype=torch.complex128)
        unit[pixel] = value
        total += real_dot(unit, information.product(unit))

    photons = illumination(scene["probe"], scene["positions_px"], SHAPE)
    assert total == pytest.approx(4 * float(photons[pixel]), rel=1e-9)


def test_information_grows_with_the_dose_and_falls_with_background(scene):
    change = random_change(3)
    plain = real_dot(change, FisherInformation(**scene).product(change))

    brighter = scene | {"probe": scene["probe"] * np.sqrt(3)}
    threefold = real_dot(change, FisherInformation(**brighter).product(change))
    dulled = real_dot(change, FisherInformation(**scene, background=50.0).product(change))

    assert threefold == pytest.approx(3 * plain, rel=1e-9)
    assert 0 < dulled < 0.95 * plain


def test_bad_pixels_tell_nothing(scene):
    change = random_change(5)
    half = torch.zeros((SIDE, SIDE), dtype=torch.bool)
    half[:, ::2] = True

    whole, even, odd = (
        real_dot(change, FisherInformation(**scene, bad_pixels=bad).product(change))
        for bad in (None, half, ~half)
    )

    assert even + odd == pytest.approx(whole, rel=1e-9)
    assert min(even, odd) > 0


# --- against the dense inverse


def dense_bound(
    truth: np.ndarray, light: np.ndarray, places: np.ndarray, scored: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Return phase and amplitude variance of scored pixels, from the explicit inverse."""
    jacobian = dense_jacobian(truth, light, places)
    photons = illumination(torch.from_numpy(light), torch.from_numpy(places), SHAPE).numpy()
    free = (photons > 1e-3 * np.median(photons[scored])).ravel()
    kept = np.flatnonzero(np.concatenate([free, free]))
    covariance = np.zeros((2 * truth.size, 2 * truth.size))
    covariance[np.ix_(kept, kept)] = np.linalg.pinv(
        (jacobian.T @ jacobian)[np.ix_(kept, kept)], rcond=1e-12, hermitian=True
    )
    turn = np.exp(1j * np.angle(truth)).ravel()
    weight = (np.abs(truth) * scored).ravel()
    y, x = (axis.ravel() for axis in np.mgrid[: SHAPE[0], : SHAPE[1]])
    amplitude_of = np.concatenate([np.diag(turn.real), np.diag(turn.imag)], axis=1)
    phase_of = np.concatenate([np.diag(-turn.imag), np.diag(turn.real)], axis=1)
    chosen = scored.ravel()
    variances = []
    for functional, gauge in (
        (phase_of, np.stack([weight, weight * y, weight * x], axis=1)),
        (amplitude_of, weight[:, None]),
    ):
        basis = np.linalg.svd(gauge, full_matrices=False)[0]
        remover = np.diag(chosen.astype(float)) - basis @ basis.T
        projected = remover @ functional
        variances.append(np.einsum("ij,jk,ik->i", projected, covariance, projected)[chosen])
    return variances[0] / np.abs(truth[scored]) ** 2, variances[1]


@pytest.mark.slow
def test_the_map_is_the_diagonal_of_the_dense_inverse(truth, light, places, scored):
    phase, amplitude = dense_bound(truth, light, places, scored)

    limit = photon_limit(
        object_=truth,
        probe=light,
        positions_px=places,
        scored=scored,
        crop=CROP,
        seed=0,
        solves=400,
    )

    np.testing.assert_allclose(limit.phase_std_rad[scored], np.sqrt(phase), rtol=0.08)
    np.testing.assert_allclose(limit.amplitude_std[scored], np.sqrt(amplitude), rtol=0.08)
    assert limit.phase_rms_rad == pytest.approx(np.sqrt(phase.mean()), rel=0.01)
    assert np.isnan(limit.phase_std_rad[~scored]).all()


def test_few_solves_give_the_root_mean_square_within_their_stated_error(
    truth, light, places, scored
):
    phase, _ = dense_bound(truth, light, places, scored)

    limit = photon_limit(
        object_=truth, probe=light, positions_px=places, scored=scored, crop=CROP, seed=1, solves=8
    )

    assert limit.phase_rms_error_rad < 0.05 * limit.phase_rms_rad
    off = abs(limit.phase_rms_rad - np.sqrt(phase.mean()))
    assert off < 4 * limit.phase_rms_error_rad


def test_the_full_bound_lies_above_the_ideal_one(truth, light, places, scored):
    limit = photon_limit(
        object_=truth, probe=light, positions_px=places, scored=scored, crop=CROP, seed=2
    )

    assert 1 < limit.phase_rms_rad / limit.ideal_phase_rms_rad < 2


def dense_errors(truth, light, places, scored, draws) -> np.ndarray:
    """Return Gaussian errors of the dense covariance, less what alignment takes out."""
    jacobian = dense_jacobian(truth, light, places)
    photons = illumination(torch.from_numpy(light), torch.from_numpy(places), SHAPE).numpy()
    free = (photons > 1e-3 * np.median(photons[scored])).ravel()
    kept = np.flatnonzero(np.concatenate([free, free]))
    values, vectors = np.linalg.eigh((jacobian.T @ jacobian)[np.ix_(kept, kept)])
    seen = values > 1e-9 * values.max()
    normal = np.random.default_rng(3).normal(size=(seen.sum(), draws))
    steps = np.zeros((2 * truth.size, draws))
    steps[kept] = (vectors[:, seen] / np.sqrt(values[seen])) @ normal
    errors = (steps[: truth.size] + 1j * steps[truth.size :]).T.reshape(-1, *SHAPE)
    gauge = alignment_directions(torch.from_numpy(np.abs(truth)), torch.from_numpy(scored))
    turn = np.exp(1j * np.angle(truth))
    return np.array(
        [without(gauge, torch.from_numpy(error / turn * scored)).numpy() * turn for error in errors]
    )


@pytest.mark.parametrize("dose", [2e3, 1e5])
def test_rings_are_those_of_errors_of_the_bound(truth, light, places, scored, dose):
    """400 objects with Gaussian errors of the dense covariance: their FRC and phase spectrum."""
    light = light * np.sqrt(dose / DOSE)
    errors = dense_errors(truth, light, places, scored, draws=400)
    inside = scored[CROP]
    curves = [
        ring_correlation((truth + error)[CROP], truth[CROP], inside).correlation for error in errors
    ]
    powers = [ring_power((error / truth).imag[CROP] * inside, inside) for error in errors]

    limit = photon_limit(
        object_=truth, probe=light, positions_px=places, scored=scored, crop=CROP, seed=0, solves=64
    )

    np.testing.assert_allclose(limit.frc_ceiling, np.mean(curves, axis=0), atol=0.03)
    assert dose == DOSE or limit.frc_ceiling.min() < 0.8, "a limit that says something"
    spectra = limit.spectra
    np.testing.assert_allclose(spectra.noise, np.mean(powers, axis=0), rtol=0.25)
    np.testing.assert_allclose(
        (spectra.samples * spectra.noise).sum(),
        (spectra.samples * np.mean(powers, axis=0)).sum(),
        rtol=0.05,
    )
    assert spectra.noise[:3].mean() > 1.3 * spectra.noise[-3:].mean(), (
        "low frequencies are the worst"
    )


def test_knowing_the_spectrum_helps_by_what_theory_says(truth, light, places, scored):
    """ab / (a + b) lies between half the smaller and it; with many photons nothing helps."""
    shares = []
    for dose in (10, 1e3, 1e5, 1e10):
        limit = photon_limit(
            object_=truth,
            probe=light * np.sqrt(dose / DOSE),
            positions_px=places,
            scored=scored,
            crop=CROP,
            seed=0,
            background=0.1,
        )
        shares.append((limit.spectra.wiener_share, limit.spectra.shrinking_share))
        assert limit.wiener_phase_rms_rad < limit.shrinking_phase_rms_rad <= limit.phase_rms_rad

    for wiener, shrinking in shares:
        assert shrinking / np.sqrt(2) <= wiener <= shrinking <= 1
    assert shares == sorted(shares)
    assert shares[0][1] < 0.5
    assert shares[-1][0] > 0.99


def test_powers_are_per_pixel_and_add_up(truth, scored):
    """White noise has its variance on every ring; all rings together are the windowed variance."""
    inside = scored[CROP]
    rng = np.random.default_rng(0)
    noise = [ring_power(rng.normal(0, 0.3, inside.shape), inside) for _ in range(300)]
    image = np.angle(truth[CROP])

    spectrum = ring_power(image, inside)

    np.testing.assert_allclose(np.mean(noise, axis=0), 0.09, rtol=0.25)
    window = window_of(inside)
    samples = ring_sums(np.ones(inside.shape), corners=True)
    assert samples.sum() == inside.size - 1
    mean = (window * image).sum() / window.sum()
    expected = inside.size * ((window * (image - mean)) ** 2).sum() / (window**2).sum()
    assert (samples * spectrum).sum() == pytest.approx(expected)


# --- against noise


@pytest.mark.slow
def test_maximum_likelihood_scatters_as_the_bound_says(truth, light, places, scored):
    """Over 120 draws, each converged from the truth and aligned like a reconstruction."""
    rng = np.random.default_rng(7)
    photons = illumination(torch.from_numpy(light), torch.from_numpy(places), SHAPE).numpy()
    free = (photons > 1e-3 * np.median(photons[scored])).ravel()
    kept = np.flatnonzero(np.concatenate([free, free]))
    jacobian = dense_jacobian(truth, light, places)[:, kept]
    values, vectors = np.linalg.eigh(jacobian.T @ jacobian)
    seen = values > 1e-9 * values.max()  # all but the global phase
    whitener = vectors[:, seen] / np.sqrt(values[seen])
    scan = Scan(light, places)
    expected = np.abs(scan.spectra(truth)) ** 2
    gauge = alignment_directions(torch.from_numpy(np.abs(truth)), torch.from_numpy(scored))

    def moved(whitened: np.ndarray) -> np.ndarray:
        step = np.zeros(2 * truth.size)
        step[kept] = whitener @ whitened
        return truth + (step[: truth.size] + 1j * step[truth.size :]).reshape(SHAPE)

    def loss(whitened: np.ndarray, counts: np.ndarray) -> tuple[float, np.ndarray]:
        waves = scan.spectra(moved(whitened))
        power = np.maximum(np.abs(waves) ** 2, 1e-12)
        slope = 2 * scan.adjoint((1 - counts / power) * waves)
        slopes = np.concatenate([slope.real.ravel(), slope.imag.ravel()])[kept]
        return float((power - counts * np.log(power)).sum()), whitener.T @ slopes

    errors, slopes_left = [], []
    for _ in range(120):
        found = minimize(
            loss,
            np.zeros(seen.sum()),
            args=(rng.poisson(expected),),
            jac=True,
            method="L-BFGS-B",
            options={"maxiter": 200, "ftol": 1e-15, "gtol": 0.02},
        )
        slopes_left.append(np.abs(found.jac).max())
        turned = (moved(found.x) - truth) * np.exp(-1j * np.angle(truth)) * scored
        errors.append(without(gauge, torch.from_numpy(turned)).numpy().imag[scored])
    assert np.median(slopes_left) < 0.05, "in standard deviations, what is left to go"
    variance = np.var(errors, axis=0) / np.abs(truth[scored]) ** 2

    limit = photon_limit(
        object_=truth,
        probe=light,
        positions_px=places,
        scored=scored,
        crop=CROP,
        seed=0,
        solves=300,
    )

    ratio = variance / limit.phase_std_rad[scored] ** 2
    # 120 draws tell a variance to sqrt(2 / 120) = 13 %; the mean of many pixels far better.
    assert 0.98 < ratio.mean() < 1.5
    assert ratio.min() > 1 - 4 * np.sqrt(2 / 120)
    assert ratio.max() < 2


# --- what cannot be


def test_a_solve_that_does_not_converge_is_an_error(scene):
    photons = illumination(scene["probe"], scene["positions_px"], SHAPE)
    free = photons > 1e-3 * photons.median()

    with pytest.raises(StudyError, match=r"did not converge: residual .* after 2 iterations"):
        solve(
            FisherInformation(**scene),
            scene["object_"],
            illumination=photons,
            free=free,
            tolerance=1e-6,
            iterations=2,
        )


def test_pixels_without_light_or_object_have_no_limit(truth, light, places, scored):
    dark = truth.copy()
    dark[10, 10] = 0

    with pytest.raises(ValueError, match="the true object is zero on 1 of 119 scored pixels"):
        photon_limit(
            object_=dark, probe=light, positions_px=places, scored=scored, crop=CROP, seed=0
        )
    with pytest.raises(ValueError, match="no pixel of \\(24, 24\\) is scored"):
        photon_limit(
            object_=truth,
            probe=light,
            positions_px=places,
            scored=scored & False,
            crop=CROP,
            seed=0,
        )
    with pytest.raises(ValueError, match="a spread needs at least 2"):
        photon_limit(
            object_=truth,
            probe=light,
            positions_px=places,
            scored=scored,
            crop=CROP,
            seed=0,
            solves=1,
        )
