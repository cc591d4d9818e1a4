"""How fast and in how much memory data are generated and validated, on one core.

    OMP_NUM_THREADS=1 python benchmarks/data.py            # N = 64, a few seconds
    OMP_NUM_THREADS=1 python benchmarks/data.py --fly64    # the full size: minutes, 1.5 GB of disk

Machines are noisy: the ratios to plain numpy in the same run say more than the rates.
"""

import argparse
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch

from study_lib.data.contract import validate
from study_lib.design.presets import load_design
from study_lib.phases.dataset import generate
from study_lib.phases.records import peak_memory_mib
from study_lib.runs.run import Run
from study_lib.seeding import generator

DOSE = 1e4


def seconds(function: Callable[..., Any], *arguments: Any) -> float:
    """Return the wall time of one call."""
    start_s = time.perf_counter()
    function(*arguments)
    return time.perf_counter() - start_s


def poisson_and_write(shape: tuple[int, int, int], dose: float, path: Path) -> None:
    """Draw counts, take the root, write: what no generator can do without."""
    random = generator(0, "benchmark")
    patterns = np.full(shape, dose / (shape[1] * shape[2]), np.float32)
    for part in np.array_split(patterns, max(1, len(patterns) // 64)):
        part[...] = np.sqrt(random.poisson(part))
    np.savez(path, diffraction=patterns)


def read_whole(path: Path) -> None:
    """Read every array as numpy does, without looking at it."""
    with np.load(path) as archive:
        for name in archive.files:
            archive[name]


def small(folder: Path) -> None:
    """Time generation and validation at N = 64."""
    settings = ("scan.rows=50", "scan.columns=80", "scan.step_px=2.0")
    design = load_design("laptop", settings)
    count = 2 * design.scan.rows * design.scan.columns
    shape = (count, design.patch_size_px, design.patch_size_px)
    warm = Run(folder / "warm", design).condition(DOSE, split="train")
    generate(warm)
    for dose in design.doses:
        places = [Run(folder / f"data_{index}", design) for index in range(3)]
        runs = [seconds(generate, place.condition(dose)) for place in places]
        floor_file = folder / "floor.npz"
        floors = [seconds(poisson_and_write, shape, dose, floor_file) for _ in range(3)]
        print(
            f"generation  {count / min(runs):8.0f} patterns/s of 64 x 64 at {dose:g} photons, "
            f"{min(runs) / min(floors):.2f} x drawing and writing alone"
        )

    path = warm.whole_file
    size_mb = path.stat().st_size / 1e6
    validation_s = min(seconds(validate, path) for _ in range(5))
    reading_s = min(seconds(read_whole, path) for _ in range(5))
    print(f"validation  {size_mb / validation_s:8.0f} MB/s, a file of {size_mb:.0f} MB")
    print(f"            {validation_s / reading_s:8.2f} x reading with numpy")

    command = [sys.executable, "-m", "study_lib", "validate", str(path)]
    whole_s = min(seconds(subprocess.check_output, command) for _ in range(3))
    bare_s = min(
        seconds(subprocess.check_output, [sys.executable, "-c", "import numpy"]) for _ in range(3)
    )
    start_s = whole_s - validation_s
    print(
        f"start-up    {start_s:8.2f} s of `study validate`, {start_s / bare_s:.1f} x that of numpy"
    )


def fly64(folder: Path) -> None:
    """Generate four doses of 10304 patterns of 128 x 128, one after the other."""
    design = load_design("fly64")
    whole_s = 0.0
    for dose in design.doses:
        condition = Run(folder, design).condition(dose)
        spent_s = seconds(generate, condition)
        whole_s += spent_s
        report = validate(condition.whole_file)
        print(f"dose {dose:9.0f}  {spent_s:6.1f} s, holds the contract: {bool(report)}", flush=True)
        for path in condition.folder("dataset").glob("*.npz"):
            path.unlink()
    print(f"fly64       {whole_s:6.1f} s for all doses, peak memory {peak_memory_mib():.0f} MiB")


def main() -> None:
    """Print one line per figure."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--fly64", action="store_true", help="the size of the original study")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as folder:
        (fly64 if arguments.fly64 else small)(Path(folder))


if __name__ == "__main__":
    main()
