"""The study on a strip of measured data: import, then every notebook at smoke size."""

import bz2
import csv
import io
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from study_lib.data.contract import load_dataset
from study_lib.data.datasets import load_measurement

DATA = Path(__file__).resolve().parents[2] / "shared" / "data" / "siemens-star-small.npz.bz2"
STRIP_HALF_WIDTH_PX = 28

pytestmark = [
    pytest.mark.slow,
    pytest.mark.notebook,
    pytest.mark.skipif(
        not DATA.is_file(), reason="the measured Siemens star is not beside the project"
    ),
]


def study(*arguments, cwd):
    """Run the command line as a user does."""
    result = subprocess.run(
        [sys.executable, "-m", "study_lib", *arguments],
        cwd=cwd,
        capture_output=True,
        text=True,
        check=False,
    )
    assert result.returncode == 0, result.stdout[-3000:] + result.stderr[-3000:]
    return result.stdout


def write_strip(path):
    """Write the patterns of a strip along the columns' middle, in the layout they came in.

    A strip and not a patch: the guard band between the splits needs the whole height.
    """
    with np.load(io.BytesIO(bz2.decompress(DATA.read_bytes()))) as archive:
        scan = archive["scan"]
        strip = np.abs(scan[0, :, 1]) < STRIP_HALF_WIDTH_PX
        np.savez(path, data=archive["data"][:, strip], probe=archive["probe"], scan=scan[:, strip])
    return int(strip.sum())


def test_study_runs_on_a_strip_of_the_measured_siemens_star(tmp_path):
    count = write_strip(tmp_path / "strip.npz")

    study("import", "strip.npz", "base.npz", "--epochs", "10", cwd=tmp_path)
    base, metadata = load_dataset(tmp_path / "base.npz", base=True)
    printed = study(
        *("run", "--preset", "smoke", "--base-npz", "base.npz"),
        *("--set", "training.epochs=1", "--set", "training.steps_min=0"),
        *("--set", "iterative.epochs=5", "--set", "thinned.steps=4"),
        *("--set", "replicates=1", "--set", "reference_epochs=10"),
        *("--set", "views=[{name: dense, gridsize: 2, target_overlap: 0.6}]"),
        cwd=tmp_path,
    )

    assert len(base["xcoords"]) == count
    assert metadata["source"] == "strip.npz"
    (table,) = tmp_path.glob("reports/*/phase_h_summary/table.csv")
    with table.open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == 6, "one view, six arms"
    assert "11/11 jobs done" in printed
    datasets = list(tmp_path.glob("reports/*/phase_c_datasets/dose_10000/patched_test.npz"))
    part = load_measurement(datasets[0])
    measured = load_measurement(tmp_path / "base.npz").counts[part.scan_index]
    # The dose is the mean over both splits.
    assert part.counts.sum() / len(measured) == pytest.approx(1e4, rel=0.05)
    assert np.all(part.counts <= measured + 1e-3), "no pixel has photons that were not measured"
