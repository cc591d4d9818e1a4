"""The base explains the measurement, whatever scale the probe came in; gauges are settled."""

import re
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from study_lib.data.datasets import read_dataset, write_dataset
from study_lib.data.formats.acquisition import Acquisition, ReadChoices
from study_lib.data.formats.tike import read_tike
from study_lib.errors import InputError
from study_lib.phases import blind
from study_lib.phases.base_data import fixed_gauge, with_scaled_probe
from study_lib.phases.blind import reconstructed, starting_probe
from study_lib.phases.import_check import checked
from study_lib.phases.import_fit import r_factor

pytestmark = pytest.mark.slow

SIEMENS_STAR = (
    Path(__file__).resolve().parents[3] / "shared" / "data" / "siemens-star-small.npz.bz2"
)


@pytest.fixture(autouse=True)
def _one_thread():
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


def test_gauge_moves_factors_and_mends_only_what_no_pattern_shows(rng):
    """Scale and phase go to the probe; the exit waves of well-lit patches stay."""
    y, x = np.mgrid[-8:8, -8:8]
    probe = (50 * np.exp(-(y**2 + x**2) / 30)).astype(np.complex64)
    positions = rng.uniform(20, 44, (200, 2))
    truth = np.exp(0.3j * rng.normal(size=(64, 64))) * rng.uniform(0.5, 1, (64, 64))
    factor = 3 * np.exp(2j)

    object_, moved, record = fixed_gauge(
        (truth * factor).astype(np.complex64), (probe / factor).astype(np.complex64), positions
    )

    inside = np.s_[24:40, 24:40]
    assert record["object_scale_moved_to_probe"] == pytest.approx(3, rel=0.01)
    assert np.abs(object_).max() <= 1
    assert abs(np.angle(object_[inside].sum())) < 0.1
    assert len(np.unique(object_[:8, :8])) == 1, "unlit pixels have one value"
    assert record["clipped_share_of_well_lit"] == pytest.approx(0.005, abs=0.002)
    kept = np.abs(object_[inside]) < 0.999
    before, after = truth[inside] * probe, object_[inside] * moved
    np.testing.assert_allclose(after[kept], before[kept], rtol=1e-4)


def test_r_factor_is_the_noise_for_the_truth_and_half_for_half_the_wave(acquisition):
    noise = r_factor(acquisition, acquisition.probe, acquisition.object_, acquisition.positions_px)
    half = r_factor(
        acquisition, acquisition.probe / 2, acquisition.object_, acquisition.positions_px
    )

    assert noise < 0.1
    assert half == pytest.approx(0.5, abs=0.05)


@pytest.mark.parametrize("factor", [0.01, 3.0])
def test_a_probe_of_any_scale_comes_to_predict_the_counts(acquisition, factor):
    raw = replace(
        acquisition, probe=acquisition.probe * np.complex64(factor), probe_is_scaled=False
    )

    scaled = with_scaled_probe(raw)

    np.testing.assert_allclose(scaled.probe, acquisition.probe, rtol=0.01)
    assert scaled.probe_is_scaled
    (record,) = scaled.transformations
    assert record["parameters"]["factor"] == pytest.approx(1 / factor, rel=0.01)


def test_a_probe_that_predicts_the_counts_stays_to_the_last_bit(acquisition):
    scaled = with_scaled_probe(replace(acquisition, probe_is_scaled=False))

    np.testing.assert_array_equal(scaled.probe, acquisition.probe)
    assert scaled.transformations == ()


def test_a_probe_off_scale_is_remarked(acquisition):
    raw = replace(acquisition, probe=acquisition.probe * 100, probe_is_scaled=False)

    (remark,) = with_scaled_probe(raw).remarks

    assert re.match(r"probe and object predict (1|9\.\d+)e\+0[34] times the measured power", remark)


def test_few_photons_do_not_move_the_probe(acquisition, rng):
    """Some fifty photons over the whole scan deviate by more than 2 % of themselves."""
    faint = acquisition.probe / np.float32(100)
    expected = acquisition.counts() / 1e4
    counts = rng.poisson(expected).astype(np.float32)
    assert abs(counts.sum() / expected.sum() - 1) > 0.02
    raw = replace(acquisition, probe=faint, amplitudes=np.sqrt(counts), probe_is_scaled=False)

    np.testing.assert_array_equal(with_scaled_probe(raw).probe, faint)


@pytest.mark.parametrize(("factor", "size"), [(-7e19, "1.5"), (1e3, "21")])
def test_positions_in_a_wrong_unit_are_refused(acquisition, factor, size):
    far = replace(acquisition, object_=None, positions_px=acquisition.positions_px * factor)

    with pytest.raises(InputError, match=rf"positions: they ask for an object of {size}.*20000"):
        reconstructed(far, algorithm="solver", epochs=1, seed=0)


def test_an_object_beyond_memory_is_refused(acquisition, monkeypatch):
    monkeypatch.setattr(blind, "memory_bytes", lambda: 2**10)

    with pytest.raises(InputError, match=r"positions: .*this process may use .* or use a larger"):
        reconstructed(acquisition, algorithm="solver", epochs=1, seed=0)


def test_bad_pixels_do_not_count_in_the_power(acquisition):
    """Half of the detector dead is not half of the photons."""
    bad = np.zeros((16, 16), bool)
    bad[:, :8] = True
    dead = replace(
        acquisition, amplitudes=acquisition.amplitudes * ~bad, bad_pixels=bad, probe_is_scaled=False
    )

    np.testing.assert_array_equal(with_scaled_probe(dead).probe, acquisition.probe)


def test_without_a_probe_the_mean_pattern_gives_the_start(acquisition):
    start = starting_probe(replace(acquisition, probe=None))

    far_field = np.abs(np.fft.fftshift(np.fft.fft2(np.fft.ifftshift(start), norm="ortho"))) ** 2
    mean = acquisition.counts().mean(axis=0)
    np.testing.assert_allclose(far_field / far_field.sum(), mean / mean.sum(), atol=1e-6)
    assert far_field.sum() == pytest.approx(np.median(acquisition.counts().sum(axis=(1, 2))))


def test_the_noise_of_a_background_is_no_light_to_start_from(rng):
    """Its root, of one phase all over the detector, would be a spike in the middle of the probe."""
    y, x = np.mgrid[:32, :32] - 16
    light = 2e3 * np.exp(-(y**2 + 1.5 * x**2) / 12)
    dark = np.full((32, 32), 100, np.float32)
    starts = [
        starting_probe(
            Acquisition(
                positions_px=np.zeros((60, 2)),
                amplitudes=np.sqrt(rng.poisson(light + background, (60, 32, 32))).astype("f4"),
                background=background if background.any() else None,
            )
        )
        for background in (0 * dark, dark)
    ]

    powers = [(np.abs(start) ** 2).sum() for start in starts]
    assert powers[1] == pytest.approx(powers[0], rel=0.01)
    alike = np.abs((starts[0].conj() * starts[1]).sum()) / np.sqrt(powers[0] * powers[1])
    assert alike > 0.995
    assert np.abs(starts[1]).max() == pytest.approx(np.abs(starts[0]).max(), rel=0.05)


def test_normalized_amplitudes_are_not_reconstructed(acquisition):
    bare = replace(acquisition, is_normalized=True, object_=None)

    with pytest.raises(InputError, match="normalized amplitudes cannot be reconstructed"):
        reconstructed(bare, algorithm="solver", epochs=1, seed=0)


@pytest.mark.parametrize("algorithm", ["solver", "LSQML"])
def test_bad_pixels_do_not_pull_the_reconstruction(acquisition, algorithm):
    """The dead half of the detector is filled by the model and not driven to zero."""
    bad = np.zeros((16, 16), bool)
    bad[:3] = bad[:, 13:] = True
    dead = replace(acquisition, amplitudes=acquisition.amplitudes * ~bad)

    masked = reconstructed(replace(dead, bad_pixels=bad), algorithm=algorithm, epochs=3, seed=0)
    believed = reconstructed(replace(dead, bad_pixels=None), algorithm=algorithm, epochs=3, seed=0)

    assert np.abs(masked.probe - believed.probe).max() > 0
    assert masked.metadata["r_factor_start"] != believed.metadata["r_factor_start"]


@pytest.mark.slow
@pytest.mark.skipif(not SIEMENS_STAR.is_file(), reason="the measured Siemens star is not here")
def test_measured_halves_and_algorithms_agree_at_low_frequencies():
    """A fifth of the scan; two halves cannot agree better than what both have seen."""
    scan = read_tike(SIEMENS_STAR, ReadChoices())
    near = np.sort(np.argsort(np.hypot(*(scan.positions_px - scan.positions_px[258]).T))[:100])
    part = replace(scan, amplitudes=scan.amplitudes[near], positions_px=scan.positions_px[near])
    reports = []

    report = checked(
        part, algorithm="solver", epochs=40, seed=0, progress=lambda *step: reports.append(step[0])
    )

    halves, algorithms = report["between_halves"], report["between_algorithms"]
    assert np.mean(algorithms["correlation"][:8]) > 0.9
    assert np.mean(halves["correlation"][:8]) > 0.7
    assert np.mean(algorithms["correlation"]) > np.mean(halves["correlation"])
    for name in ("half", "seventh", "half_bit", "one_bit"):
        number, outcome = halves[f"crossing_{name}"], halves[f"crossing_{name}_outcome"]
        assert (number is None) == (outcome != "crosses")
    assert report["algorithms"].keys() == {"solver", "LSQML"}
    assert set(reports) == {"solver", "LSQML", "solver, even patterns", "solver, odd patterns"}


@pytest.mark.skipif(not SIEMENS_STAR.is_file(), reason="the measured Siemens star is not here")
@pytest.mark.parametrize("algorithm", ["solver", "LSQML"])
def test_measured_star_gives_a_base_that_explains_it(tmp_path, algorithm):
    """Forty neighbouring patterns; the lens is a zone plate with a central stop."""
    scan = read_tike(SIEMENS_STAR, ReadChoices())
    near = np.argsort(np.hypot(*(scan.positions_px - scan.positions_px[258]).T))[:40]
    crop = replace(scan, amplitudes=scan.amplitudes[near], positions_px=scan.positions_px[near])

    found = reconstructed(crop, algorithm=algorithm, epochs=20, seed=0)
    write_dataset(tmp_path / "base.npz", found, "tike")

    assert read_dataset(tmp_path / "base.npz").scan_index is None
    assert np.abs(found.object_).max() <= 1
    metadata = found.metadata
    assert metadata["r_factor_reconstruction"] < 0.5 * metadata["r_factor_start"]
    assert metadata["r_factor_base"] < 0.6 * metadata["r_factor_start"]
    probe_power = (np.abs(found.probe) ** 2).sum()
    assert (np.abs(starting_probe(crop)) ** 2).sum() == pytest.approx(
        np.median(crop.counts().sum(axis=(1, 2))), rel=1e-4
    )
    far_field = np.abs(np.fft.fftshift(np.fft.fft2(found.probe, norm="ortho"))) ** 2
    y, x = np.mgrid[-64:64, -64:64]
    assert far_field[np.hypot(y, x) < 6].sum() < 0.05 * probe_power, "the stop is dark"
