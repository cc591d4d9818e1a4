"""The Fourier ring correlation and its thresholds by cdtools 0.3.2."""

import subprocess

import numpy as np
import pytest
from peers.conftest import ROOT

from study_lib.scores.frc import (
    FourierRingCorrelation,
    half_bit_threshold,
    one_bit_threshold,
    ring_correlation,
    window_of,
)

SIDE = 61

pytestmark = pytest.mark.peer


def images_on_rings(rng, noise):
    """Return two images, as they are under our window, that its rings and ours hold alike.

    Ours reach half a sample to both sides of a whole one, those of cdtools from one to the next:
    frequencies lie where both say the same ring, and there are none at zero.
    """
    cycles = np.fft.fftfreq(SIDE) * SIDE
    radius = np.hypot(*np.meshgrid(cycles, cycles))
    kept = (radius % 1 > 0.01) & (radius % 1 < 0.49) & (radius > 1)
    white = rng.normal(size=(3, 2, SIDE, SIDE))
    waves = white[:, 0] + 1j * white[:, 1]
    falling = np.where(kept, 1 / np.maximum(radius, 1), 0)
    spectra = falling * waves[0] + noise * kept * waves[1:]
    return np.fft.ifft2(spectra)


def test_cdtools_finds_the_same_correlation_and_the_same_thresholds(tmp_path, rng):
    first, second = images_on_rings(rng, noise=0.05)
    np.savez(tmp_path / "images.npz", first=first, second=second)
    python = ROOT / ".venv-peer-cdtools" / "bin" / "python"
    assert python.is_file(), f"{python.parent.parent.name} is not installed; run `make peers`"
    script = ROOT / "tests" / "peers" / "cdtools_correlates.py"

    subprocess.run([python, "-I", script, tmp_path], check=True, cwd=tmp_path)

    theirs = np.load(tmp_path / "correlated.npz")
    mask = np.ones((SIDE, SIDE), bool)
    window = window_of(mask)
    ours = ring_correlation(first / window, second / window, mask)
    # Its first bin is below the first ring, its last one holds the edge of the next.
    rings = np.s_[1 : SIDE // 2 - 1]
    np.testing.assert_allclose(2 * theirs["frequency"][rings], ours.frequency[:-2], rtol=0.02)
    np.testing.assert_allclose(ours.correlation[:-2], theirs["correlation"][rings], rtol=1e-6)
    assert ours.correlation[0] > 0.9
    assert ours.correlation[-3:].max() < 0.6
    cycles = np.fft.fftfreq(SIDE)
    radius = np.sqrt(cycles[:, None] ** 2 + cycles**2)  # to the last digit, as edges lie on some
    counts, _ = np.histogram(radius, bins=SIDE // 2, range=(0, cycles.max()))
    samples = counts[rings].astype(float)
    full = FourierRingCorrelation(samples, samples, samples)
    np.testing.assert_allclose(half_bit_threshold(full), theirs["half_bit"][rings], rtol=1e-6)
    np.testing.assert_allclose(one_bit_threshold(full), theirs["one_bit"][rings], rtol=1e-6)
