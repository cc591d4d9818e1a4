"""Why LSQML and the solver differ: noise model, batches, epochs, each alone, on one train split.

    OMP_NUM_THREADS=1 python benchmarks/noise_models.py --view sparse   # minutes
    OMP_NUM_THREADS=1 python benchmarks/noise_models.py                 # baseline: an hour or two
    OMP_NUM_THREADS=1 python benchmarks/noise_models.py --epochs 25 50 500 --only-epochs

Every line is one setting, run on all photons of the train split, where its score against the truth
is taken, and on four fifths of them, where the other fifth judges: the mean deviance of held-out
counts per pattern. Nothing is chosen here by the truth; the test split is not looked at.
"""

import argparse
import tempfile
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from study_lib.design.methods import IterativeDesign
from study_lib.design.presets import load_design
from study_lib.phases.dataset import generate
from study_lib.phases.overlap import choose_view
from study_lib.physics.likelihood import likelihood_judge
from study_lib.physics.measurement import split_photons
from study_lib.runs.run import Run
from study_lib.seeding import generator
from study_lib.solvers.algorithms import run_algorithm

ALL_PATTERNS = 100_000


@dataclass(frozen=True)
class Setting:
    """One way to run an algorithm; an epoch of the solver always takes all patterns."""

    algorithm: str
    epochs: int = 100
    batch_size: int = ALL_PATTERNS
    momentum: float = 0.0

    def of(self, design: IterativeDesign) -> IterativeDesign:
        """Return a design with this setting, the solver's own where it has no say."""
        solver = design.solver.model_copy(
            update={"epochs": self.epochs, "tolerance": 1e-3 if self.epochs == 100 else 1e-5}
        )
        changed = {
            "epochs": self.epochs,
            "batch_size": self.batch_size,
            "momentum": self.momentum,
            "solver": solver,
        }
        return design.model_copy(update=changed)

    @property
    def text(self) -> str:
        """What is said of it in its line."""
        batch = "all" if self.batch_size == ALL_PATTERNS else str(self.batch_size)
        return f"{self.algorithm:16s} {self.epochs:4d} {batch:>6s} {self.momentum:8.1f}"


def settings(epochs: Sequence[int]) -> Iterator[Setting]:
    """Yield what is compared: one thing changes at a time."""
    for algorithm in ("LSQML", "LSQML-poisson"):
        yield Setting(algorithm, batch_size=96)
        yield Setting(algorithm)
        yield Setting(algorithm, momentum=0.5)
    yield from curve(epochs)
    for algorithm in ("solver-amplitude", "solver"):
        yield Setting(algorithm)
        yield Setting(algorithm, epochs=500)


def curve(epochs: Sequence[int]) -> Iterator[Setting]:
    """Yield the best of these with fewer or more epochs."""
    for count in epochs:
        for algorithm in ("LSQML", "LSQML-poisson"):
            yield Setting(algorithm, epochs=count, momentum=0.5)


def main() -> None:
    """Print a line for each setting."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--preset", default="laptop")
    parser.add_argument("--set", action="append", default=[], dest="changes", metavar="NAME=VALUE")
    parser.add_argument("--dose", type=float, default=1e4)
    parser.add_argument("--view", default="baseline")
    parser.add_argument(
        "--epochs", type=int, nargs="+", default=[], help="LSQML with these numbers of epochs, too"
    )
    parser.add_argument("--only-epochs", action="store_true", help="these alone")
    arguments = parser.parse_args()
    design = load_design(arguments.preset, [f"doses=[{arguments.dose:.6g}]", *arguments.changes])
    with tempfile.TemporaryDirectory() as scratch:
        condition = Run(Path(scratch), design).condition(arguments.dose, arguments.view, "train")
        generate(condition)
        if not condition.view.is_whole:
            choose_view(condition)
        measurement = condition.measurement()
        seed = design.noise_seeds.iterative
        part, held_out = split_photons(measurement, 0.8, generator(seed, "noise models"))
        judge = likelihood_judge(held_out)
        print(f"{design.preset}, {condition.label}, {len(measurement.scan_index)} patterns")
        print("algorithm         epochs  batch momentum   SSIM   PSNR  held-out nats   CPU s")
        chosen = curve if arguments.only_epochs else settings
        for one in chosen(arguments.epochs):
            iterative = one.of(design.iterative)
            started = time.process_time()
            found = run_algorithm(one.algorithm, measurement, iterative, seed=seed)
            spent_s = time.process_time() - started
            scores, _ = condition.score(found.object_)
            of_part = run_algorithm(one.algorithm, part, iterative, seed=seed)
            print(
                f"{one.text}  {scores['phase_ssim']:.3f}  {scores['phase_psnr_db']:5.2f}"
                f"  {judge(of_part.object_).mean():13.2f}  {spent_s:6.1f}",
                flush=True,
            )


if __name__ == "__main__":
    main()
