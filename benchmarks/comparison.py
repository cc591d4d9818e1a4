"""What comparing one condition costs, with and without its photon limit, on one core.

    OMP_NUM_THREADS=1 python benchmarks/comparison.py                 # laptop: under a minute
    OMP_NUM_THREADS=1 python benchmarks/comparison.py --preset fly64  # N = 128, 10,304 patterns

Simulates one dose and compares three arms in its baseline view, test split. The arms are the truth
with a phase ramp, a shift and more or less noise: what they cost to make is not counted, and
alignment, scores, held-out counts and files cost the same for every arm. With fly64, give
``--no-limit`` unless there are minutes to spare.
"""

import argparse
import tempfile
import time
from pathlib import Path

import numpy as np
from scipy.ndimage import fourier_shift

from study_lib.design.presets import load_design
from study_lib.phases.arms import ARMS, Arm, ArmResult, HashOf
from study_lib.phases.compare import compare
from study_lib.phases.conditions import Condition
from study_lib.phases.dataset import generate
from study_lib.phases.records import peak_memory_mib
from study_lib.physics.measurement import Measurement
from study_lib.runs.run import Run

DOSE = 1e4
NOISE = (0.01, 0.05, 0.2)


def noisy_truth(truth: np.ndarray, noise: float) -> Arm:
    """Return an arm that hands out the truth, moved, tilted and with noise."""

    def arm(condition: Condition, measurement: Measurement, hash_of: HashOf) -> ArmResult:
        rng = np.random.default_rng(int(1e4 * noise))
        there = np.fft.ifft2(fourier_shift(np.fft.fft2(truth), (0.7, -1.2)))
        there *= np.exp(0.003j * np.arange(truth.shape[1]))
        there += noise * (rng.standard_normal(truth.shape) + 1j * rng.standard_normal(truth.shape))
        index = measurement.scan_index
        return ArmResult(
            f"noise {noise:g}", "the truth", there.astype(np.complex64), index, 0, 0, ()
        )

    return arm


def main() -> None:
    """Print seconds and memory."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--preset", default="laptop")
    parser.add_argument("--no-limit", action="store_true", help="leave the photon limit out")
    arguments = parser.parse_args()
    for solves in (0,) if arguments.no_limit else (0, 4):
        design = load_design(
            arguments.preset,
            [f"doses=[{DOSE:.1e}]", f"metrics.photon_limit_solves={solves}"],
        )
        with tempfile.TemporaryDirectory() as scratch:
            condition = Run(Path(scratch), design).condition(DOSE, "baseline")
            generate(condition)
            truth = condition.truth()
            ARMS.clear()
            ARMS.update({f"noise{noise:g}": noisy_truth(truth, noise) for noise in NOISE})
            wall_s, cpu_s = time.perf_counter(), time.process_time()
            rows = compare(condition)
            wall_s, cpu_s = time.perf_counter() - wall_s, time.process_time() - cpu_s
        arms = [row for row in rows if row["arm"] in ARMS]
        print(
            f"{arguments.preset}, N = {design.patch_size_px}, {rows[0]['patterns']} patterns, "
            f"object {truth.shape[0]} x {truth.shape[1]}, {len(arms)} arms, "
            f"photon limit of {solves} solves: "
            f"{wall_s:.1f} s, {cpu_s:.1f} CPU s, peak of the process {peak_memory_mib():.0f} MiB"
        )


if __name__ == "__main__":
    main()
