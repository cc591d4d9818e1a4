"""Quality over processor seconds of training, for every network, beside what learns nothing.

    OMP_NUM_THREADS=1 python benchmarks/learning_curves.py --view sparse    # laptop, 1e4 photons
    OMP_NUM_THREADS=1 python benchmarks/learning_curves.py --preset smoke --shares .5 1   # a minute

Each point is a training of its own, with a share of the preset's steps and a schedule that ends
with them: a training that is stopped midway would look worse than it is. Scores are of the test
split, against the truth. Beside them stands ``solver-alternating``, whose seconds are those of its
choice. With the usual shares all trainings together take four times as long as one of each.
"""

import argparse
import csv
import sys
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import matplotlib.pyplot as plt

from study_lib.design.models import StudyDesign
from study_lib.design.presets import load_design
from study_lib.files import sha256_of
from study_lib.phases.arms import ArmResult, arms_of
from study_lib.phases.conditions import Condition
from study_lib.phases.dataset import generate
from study_lib.phases.overlap import choose_view
from study_lib.phases.reconstruct import reconstruct
from study_lib.phases.train import train
from study_lib.phases.train_thinned import train_thinned
from study_lib.runs.run import Run

SHARES = (0.125, 0.25, 0.5, 1.0, 2.0)
NETWORKS = ("pinn", "thinning-net", "self-taught")
SCORES = ("phase_psnr_db", "phase_ssim", "phase_ssim_centred")


def design_with(share: float, arguments: argparse.Namespace) -> StudyDesign:
    """Return the preset with a share of the steps of every network."""
    usual = load_design(arguments.preset)
    if usual.training is None or usual.thinned is None:
        sys.exit(f"preset {arguments.preset} trains only one network or none; choose another")
    return load_design(
        arguments.preset,
        [
            f"doses=[{arguments.dose:.6g}]",
            f"training.epochs={max(1, round(share * usual.training.epochs))}",
            f"training.steps_min={round(share * usual.training.steps_min)}",
            f"thinned.steps={max(1, round(share * usual.thinned.steps))}",
            "thinned.self_taught=true",
            "iterative.algorithms=[solver]",
            "iterative.alternating=true",
            *arguments.changes,
        ],
    )


def condition_in(folder: Path, design: StudyDesign, arguments: argparse.Namespace) -> Condition:
    """Return the test split of the dose and view, whose patterns are made."""
    condition = Run(folder, design).condition(arguments.dose, arguments.view)
    generate(condition)
    if not condition.view.is_whole:
        choose_view(condition)
    return condition


def line(condition: Condition, arm: str, share: float | None) -> dict[str, Any]:
    """Return what an arm's scores are, and what its training cost."""
    found: ArmResult = arms_of(condition.design)[arm](condition, condition.measurement(), sha256_of)
    scores, _ = condition.score(found.object_)
    return {
        "arm": arm,
        "share_of_steps": share,
        "training_cpu_s": found.training_cpu_s,
        "fallback": found.fallback,
        **{name: scores[name] for name in SCORES},
    }


def lines(arguments: argparse.Namespace) -> Iterator[dict[str, Any]]:
    """Yield a line for each training, and one for what learns nothing."""
    for share in arguments.shares:
        with tempfile.TemporaryDirectory() as scratch:
            design = design_with(share, arguments)
            condition = condition_in(Path(scratch), design, arguments)
            train(condition)
            for split in design.thinned.taught_by if design.thinned else ():
                train_thinned(condition, taught_by=split)
            for arm in NETWORKS:
                yield line(condition, arm, share)
            if share == arguments.shares[-1]:
                for split in ("train", "test"):
                    reconstruct(condition.of(split))
                yield line(condition, "solver-alternating", None)


def draw(rows: Sequence[dict[str, Any]], path: Path) -> None:
    """Draw the score over the seconds, one line an arm."""
    figure, axis = plt.subplots(layout="constrained")
    for arm in dict.fromkeys(row["arm"] for row in rows):
        part = [row for row in rows if row["arm"] == arm]
        seconds = [row["training_cpu_s"] for row in part]
        axis.plot(seconds, [row["phase_psnr_db"] for row in part], "o-", label=arm)
    axis.set(xscale="log", xlabel="training or choice [processor s]", ylabel="phase PSNR [dB]")
    axis.legend()
    figure.savefig(path)


def main() -> None:
    """Print a line for each training, and write table and figure if asked for."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--preset", default="laptop")
    parser.add_argument("--set", action="append", default=[], dest="changes", metavar="NAME=VALUE")
    parser.add_argument("--dose", type=float, default=1e4)
    parser.add_argument("--view", default="sparse")
    parser.add_argument("--shares", type=float, nargs="+", default=SHARES)
    parser.add_argument("--out", type=Path, help="FILE.csv; a figure of the same name beside it")
    arguments = parser.parse_args()
    rows: list[dict[str, Any]] = []
    for row in lines(arguments):
        rows.append(row)
        share = "" if row["share_of_steps"] is None else f"{row['share_of_steps']:g} of the steps"
        scores = "  ".join(f"{name} {row[name]:.3f}" for name in SCORES)
        seconds = f"{row['training_cpu_s']:7.1f} s"
        refused = f"  (is {row['fallback']})" if row["fallback"] else ""
        print(f"{row['arm']:20s} {share:18s} {seconds}  {scores}{refused}", flush=True)
    if arguments.out:
        with arguments.out.open("w", newline="", encoding="utf-8") as file:
            writer = csv.DictWriter(file, list(rows[0]))
            writer.writeheader()
            writer.writerows(rows)
        draw(rows, arguments.out.with_suffix(".png"))


if __name__ == "__main__":
    main()
