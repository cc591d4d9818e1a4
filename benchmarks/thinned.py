"""What the thinning network costs and gains beside every other arm, in one run, over replicates.

    OMP_NUM_THREADS=1 python benchmarks/thinned.py             # laptop, sparse, 1e4 photons
    OMP_NUM_THREADS=1 python benchmarks/thinned.py --unrolled 2  # and with learned steps
    OMP_NUM_THREADS=1 python benchmarks/thinned.py --replicates 3 --no-limit --no-published
    OMP_NUM_THREADS=1 python benchmarks/thinned.py --seeds 10  # half an hour: collapses?

Goes through the phases of the study, in a scratch folder: data, view, both trainings, iterative
reconstructions of both splits, comparison of the test split. Seconds are of the processor, on one
core if called as above: ``train`` before any test pattern, ``test`` for those of the test split.
``patterns/s`` are those that a training step explains, and those that become an object. Of more
than one replicate means and sample standard deviations are shown. With ``--seeds`` only this
network is trained, one member of 200 steps for each seed and dose, and its test phase SSIM is
printed beside the base's, as if it were trusted, with what the held-out counts would have decided.
"""

import argparse
import tempfile
from collections.abc import Sequence
from pathlib import Path
from statistics import mean, stdev
from typing import Any

from study_lib.arm_names import PINN, SELF_TAUGHT, THINNING_NET
from study_lib.design.axes import SPLITS
from study_lib.design.models import StudyDesign
from study_lib.design.presets import load_design
from study_lib.files import read_json
from study_lib.networks.thinned.ensemble import reconstruct_thinned
from study_lib.networks.thinned.training import train_thinned
from study_lib.networks.thinned.trust import SURE
from study_lib.phases import train_thinned as thinned_phase
from study_lib.phases.compare import compare
from study_lib.phases.conditions import Condition
from study_lib.phases.dataset import generate
from study_lib.phases.overlap import choose_view
from study_lib.phases.reconstruct import reconstruct
from study_lib.phases.train import train
from study_lib.runs.run import Run

SHORT = {"members": 1, "steps": 200}
COLUMNS = {
    "phase_ssim": "phase SSIM",
    "phase_ms_ssim": "MS-SSIM",
    "phase_psnr_db": "PSNR [dB]",
    "amplitude_ssim": "ampl. SSIM",
    "frc_crossing": "FRC / Nyquist",
    "phase_error_over_limit": "error / limit",
    "held_out_excess_nats": "excess [nats]",
    "training_cpu_s": "train [s]",
    "cpu_s": "test [s]",
    "trained_per_s": "patterns/s train",
    "tested_per_s": "patterns/s test",
}


def with_data(design: StudyDesign, dose: float, view: str, root: Path) -> Condition:
    """Return the test split of a dose and view, whose patterns are made unless they are there."""
    condition = Run(root, design).condition(dose, view)
    if not condition.whole_file.exists():
        generate(condition)
        if view != "baseline":
            choose_view(condition)
    return condition


def rows_of(
    design: StudyDesign, dose: float, view: str, root: Path, *, published: bool
) -> list[dict[str, Any]]:
    """Return what the study says of the test split of one replicate."""
    condition = with_data(design, dose, view, root)
    if not condition.folder("reconstruct").exists():
        for split in SPLITS:
            reconstruct(condition.of(split))
        if published:
            train(condition)
    for split in design.thinned.taught_by:
        thinned_phase.train_thinned(condition, taught_by=split)
    rows = compare(condition)
    speeds = trained_per_s(condition)
    for row in rows:
        row["trained_per_s"] = speeds.get(row["arm"])
        row["tested_per_s"] = row["patterns"] / row["cpu_s"]
    return rows


def seeds_of(design: StudyDesign, dose: float, view: str, root: Path, *, seeds: int) -> str:
    """Return how trainings of several seeds on the same data end, in one line."""
    condition = with_data(design, dose, view, root)
    measured, test = condition.of("train").measurement(), condition.measurement()
    changed = design.thinned.model_copy(update=SHORT)
    found = []
    for seed in range(seeds):
        ensemble, _ = train_thinned(measured, changed, seed=seed)
        result = reconstruct_thinned(ensemble, test, trust=SURE)
        scores = [
            condition.score(object_)[0]["phase_ssim"] for object_ in (result.base, result.object_)
        ]
        found.append((*scores, ensemble.trust.given))
    pairs = "  ".join(
        f"{network:.3f} ({base:.3f}){'' if given else ' base kept'}"
        for base, network, given in found
    )
    return f"{dose:g}, {view}: phase SSIM of network (base) by seed: {pairs}"


def trained_per_s(condition: Condition) -> dict[str, float]:
    """Return how many patterns each training has explained per second."""
    speeds, thinned = {}, condition.design.thinned
    for key, job in read_json(condition.manifest("train"))["jobs"].items():
        arm = {"thinned": THINNING_NET, "self_taught": SELF_TAUGHT}.get(Path(key).name)
        if arm is not None and thinned is not None:
            shown = thinned.members * thinned.steps * thinned.patterns_per_step
            speeds[arm] = shown / job["results"]["training_cpu_s"]
        else:
            speeds[PINN] = job["results"]["patterns_per_s"]
    return speeds


def table(rows: Sequence[dict[str, Any]]) -> str:
    """Return one line per arm, means over replicates."""
    lines = [f"{'arm':22s}" + "".join(f"{name:>19s}" for name in COLUMNS.values())]
    for label in dict.fromkeys(row["label"] for row in rows):
        part = [row for row in rows if row["label"] == label]
        lines.append(f"{label:22s}" + "".join(f"{cell(part, name):>19s}" for name in COLUMNS))
    return "\n".join(lines)


def cell(rows: Sequence[dict[str, Any]], name: str) -> str:
    """Return a mean with its spread; a dash where a replicate has no value."""
    values = [row[name] for row in rows]
    if any(value is None for value in values):
        return "-"
    text = f"{mean(values):.4g}"
    return text if len(values) == 1 else f"{text} ± {stdev(values):.2g}"


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--preset", default="laptop")
    parser.add_argument("--view", default="sparse", choices=("baseline", "dense", "sparse"))
    parser.add_argument("--dose", type=float, default=1e4)
    parser.add_argument("--first", type=int, default=0, help="the first replicate")
    parser.add_argument("--replicates", type=int, default=1)
    parser.add_argument("--unrolled", type=int, help="also with so many steps of consistency")
    parser.add_argument("--no-limit", action="store_true", help="leave the photon limit out")
    parser.add_argument("--no-published", action="store_true", help="leave PtychoPINN out")
    parser.add_argument("--seeds", type=int, help="trainings by seed, at every dose of the preset")
    arguments = parser.parse_args()
    if arguments.seeds:
        design = load_design(arguments.preset)
        for dose in design.doses:
            with tempfile.TemporaryDirectory() as scratch:
                place = (dose, arguments.view, Path(scratch))
                print(seeds_of(design, *place, seeds=arguments.seeds), flush=True)
        return
    settings = [f"doses=[{arguments.dose:.1e}]", f"replicate={arguments.first}"]
    settings += [f"replicates={arguments.replicates}"]
    settings += ["metrics.photon_limit_solves=0"] * arguments.no_limit
    design = load_design(arguments.preset, settings)
    rows: list[dict[str, Any]] = []
    for one in design.repetitions:
        with tempfile.TemporaryDirectory() as scratch:
            place = (arguments.dose, arguments.view, Path(scratch))
            published = not arguments.no_published
            rows += rows_of(one, *place, published=published)
            if arguments.unrolled and one.thinned is not None:
                changed = one.thinned.model_copy(update={"data_steps": arguments.unrolled})
                again = one.model_copy(update={"thinned": changed})
                rows += [
                    row | {"label": "  and data steps"}
                    for row in rows_of(again, *place, published=published)
                    if row["arm"] == THINNING_NET
                ]
    print(
        f"{arguments.preset}, {arguments.view}, {arguments.dose:g} photons per pattern, test "
        f"split, replicates {arguments.first} to {arguments.first + arguments.replicates - 1}"
    )
    print(table(rows))


if __name__ == "__main__":
    main()
