"""Tike files come in with their axes and corners right; the base explains the measurement."""

import bz2
import io
from pathlib import Path

import numpy as np
import pytest
import torch

from study_lib.contract import check_arrays
from study_lib.errors import InputError
from study_lib.forward import exit_waves, expected_counts
from study_lib.tike import TikeScan, base_from_scan, fixed_gauge, r_factor, read_tike, scaled_probe

SIEMENS_STAR = (
    Path(__file__).resolve().parents[2] / "shared" / "data" / "siemens-star-small.npz.bz2"
)
SIDE = 16


@pytest.fixture(autouse=True)
def _one_thread():
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.fixture
def rng() -> np.random.Generator:
    return np.random.default_rng(0)


@pytest.fixture
def layout(rng) -> dict[str, np.ndarray]:
    """Seven patterns as tike stores them: the brightest pixel, the zero frequency, at a corner."""
    data = rng.poisson(3, (1, 7, SIDE, SIDE)).astype(np.float32)
    data[..., 0, 0] = 900
    data[..., 0, 1] = 500
    probe = rng.normal(size=(SIDE, SIDE)) + 1j * rng.normal(size=(SIDE, SIDE))
    scan = np.stack([np.arange(7), 100 + np.arange(7)], axis=1)[None] - 3.25
    return {
        "data": data,
        "probe": probe[None, None, None, None].astype(np.complex64),
        "scan": scan.astype(np.float32),
    }


def write(path: Path, arrays: dict[str, np.ndarray]) -> Path:
    """Write a plain or a doubly compressed file, by its suffix."""
    buffer = io.BytesIO()
    np.savez(buffer, **arrays)
    content = buffer.getvalue()
    path.write_bytes(bz2.compress(content) if path.suffix == ".bz2" else content)
    return path


@pytest.mark.parametrize("name", ["scan.npz", "scan.npz.bz2"])
def test_corner_goes_to_the_centre_and_rows_come_first(tmp_path, layout, name):
    scan = read_tike(write(tmp_path / name, layout))

    assert scan.counts.shape == (7, SIDE, SIDE)
    assert scan.counts.dtype == np.float32
    assert (scan.counts[:, SIDE // 2, SIDE // 2] == 900).all()
    assert (scan.counts[:, SIDE // 2, SIDE // 2 + 1] == 500).all(), "rows and columns stay"
    assert scan.counts.sum() == layout["data"].sum()
    np.testing.assert_array_equal(scan.positions_px[0], [-3.25, 96.75])
    np.testing.assert_array_equal(scan.probe, layout["probe"][0, 0, 0, 0])
    assert scan.source == name


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"data": None}, "data: found nothing .*expected an array"),
        ({"scan": np.zeros((1, 6, 2))}, r"scan: found shape \(6, 2\); expected \(7, 2\)"),
        ({"scan": np.zeros((2, 7, 2))}, r"scan: found shape \(2, 7, 2\); expected 2 axes"),
        ({"probe": np.ones((1, 1, 1, 1, 8, 8))}, r"probe: found shape \(8, 8\)"),
        ({"probe": np.ones((1, 1, 1, 3, SIDE, SIDE))}, r"probe: found shape \(1, 1, 1, 3"),
        ({"data": np.full((1, 7, SIDE, SIDE), -1.0)}, "data: found a count of -1"),
        ({"data": np.full((1, 7, SIDE, SIDE), np.nan)}, "data: found NaN"),
        ({"scan": np.full((1, 7, 2), "a")}, "scan: found type <U1"),
        ({"scan": np.array([{}])}, "damaged, pickled or not a Tike file"),
    ],
)
def test_wrong_layout_is_refused_in_one_line(tmp_path, layout, change, message):
    arrays = {key: value for key, value in (layout | change).items() if value is not None}
    path = write(tmp_path / "scan.npz.bz2", arrays)

    with pytest.raises(InputError, match=message) as caught:
        read_tike(path)

    assert str(path) in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("name", "damage"),
    [
        ("scan.npz.bz2", lambda content: content[: len(content) // 2]),
        ("scan.npz.bz2", lambda content: b"not bz2 at all"),
        ("scan.npz", lambda content: content[: len(content) // 2]),
        ("scan.npz", lambda content: b""),
        ("scan.npz", lambda content: content.replace(content[900:904], b"\0\1\2\3")),
    ],
)
def test_damaged_file_is_refused(tmp_path, layout, name, damage):
    path = write(tmp_path / name, layout)
    path.write_bytes(damage(path.read_bytes()))

    with pytest.raises(InputError, match="damaged, pickled or not a Tike file"):
        read_tike(path)


def test_missing_file_is_refused(tmp_path):
    with pytest.raises(InputError, match="no such file"):
        read_tike(tmp_path / "absent.npz.bz2")


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


def test_r_factor_is_zero_for_the_truth(rng):
    probe = rng.normal(size=(SIDE, SIDE)) + 1j * rng.normal(size=(SIDE, SIDE))
    object_ = np.exp(1j * rng.normal(size=(40, 40)))
    positions = rng.uniform(10, 30, (9, 2))
    waves = exit_waves(*map(torch.from_numpy, (probe, object_, positions)))
    scan = TikeScan(expected_counts(waves).numpy(), probe, positions, "made up")

    assert r_factor(scan, probe, object_, positions) < 1e-12
    assert r_factor(scan, 2 * probe, object_, positions) == pytest.approx(1)


@pytest.mark.skipif(not SIEMENS_STAR.is_file(), reason="the measured Siemens star is not here")
def test_measured_star_gives_a_base_that_explains_it():
    """Forty neighbouring patterns; the lens is a zone plate with a central stop."""
    scan = read_tike(SIEMENS_STAR)
    near = np.argsort(np.hypot(*(scan.positions_px - scan.positions_px[258]).T))[:40]
    crop = TikeScan(scan.counts[near], scan.probe, scan.positions_px[near], scan.source)

    arrays, metadata = base_from_scan(crop, epochs=20, batch_size=10, seed=0)

    assert check_arrays(arrays, base=True), "the base holds the contract"
    assert np.abs(arrays["objectGuess"]).max() <= 1
    assert metadata["r_factor_reconstruction"] < 0.5 * metadata["r_factor_start"]
    assert metadata["r_factor_base"] < 0.6 * metadata["r_factor_start"]
    probe_power = (np.abs(arrays["probeGuess"]) ** 2).sum()
    assert (np.abs(scaled_probe(crop)) ** 2).sum() == pytest.approx(
        np.median(crop.counts.sum(axis=(1, 2))), rel=1e-4
    )
    far_field = np.abs(np.fft.fftshift(np.fft.fft2(arrays["probeGuess"], norm="ortho"))) ** 2
    y, x = np.mgrid[-64:64, -64:64]
    assert far_field[np.hypot(y, x) < 6].sum() < 0.05 * probe_power, "the stop is dark"
