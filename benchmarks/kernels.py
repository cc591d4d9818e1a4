"""What a job saves when its kernel is forked instead of started by itself.

    OMP_NUM_THREADS=1 python benchmarks/kernels.py --pairs 8

Each pair is two kernels in turn, until they have loaded what a comparison loads: one that starts by
itself, one that is forked by a process that has loaded torch, scipy and matplotlib, as in
`study run`. A line for each: wall seconds and the kernel's processor seconds; then the medians of
their ratios.
"""

import argparse
import os
import statistics
import tempfile
import time
from pathlib import Path

import nbformat
import papermill

from study_lib.runs.kernel_forks import SERVER, kernels_forked
from study_lib.runs.kernels import SharedKernel
from study_lib.system import THREADS, own_code_only

LOADS = "import time, study_lib.phases.compare; print(time.process_time())"


def cost_s(folder: Path) -> tuple[float, float]:
    """Return the wall and processor seconds of a kernel until it has loaded what a job loads."""
    notebook = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(LOADS)])
    nbformat.write(notebook, folder / "in.ipynb")
    begun = time.perf_counter()
    with SharedKernel() as kernel:
        executed = papermill.execute_notebook(
            folder / "in.ipynb",
            folder / "out.ipynb",
            km=kernel.manager(folder),
            progress_bar=False,
            kernel_name="python3",
        )
        wall_s = time.perf_counter() - begun
    return wall_s, float(executed.cells[0].outputs[0].text)


def main() -> None:
    """Print both costs of each pair, and the ratios."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--pairs", type=int, default=8)
    pairs = parser.parse_args().pairs
    os.environ.update(dict.fromkeys(THREADS, "1"))
    ratios = []
    with (
        tempfile.TemporaryDirectory() as name,
        Path(name, "log").open("w") as log,
        kernels_forked(os.environ | own_code_only(), log) as variables,
    ):
        os.environ.update(variables)
        cost_s(Path(name))  # waits for the process that forks
        print("by itself: wall s  CPU s   forked: wall s  CPU s")
        for _ in range(pairs):
            forked = cost_s(Path(name))
            del os.environ[SERVER]
            by_itself = cost_s(Path(name))
            os.environ.update(variables)
            ratios.append([one / other for one, other in zip(forked, by_itself, strict=True)])
            print(
                f"{by_itself[0]:17.2f} {by_itself[1]:6.2f} {forked[0]:16.2f} {forked[1]:6.2f}",
                flush=True,
            )
    wall, processor = (statistics.median(column) for column in zip(*ratios, strict=True))
    print(f"median of the ratios: wall {wall:.2f}, CPU {processor:.2f}")


if __name__ == "__main__":
    main()
