"""How time and memory grow with patterns and their size, for solver, LSQML, networks and limit.

    OMP_NUM_THREADS=1 python benchmarks/growth.py --out growth.csv      # all: hours
    OMP_NUM_THREADS=1 python benchmarks/growth.py --only solver --sides 128 --patterns 100000

Scans are simulated (Poisson counts, 1e4 photons per pattern, a raster with jitter) and written in
pieces to uncompressed files below ``--scans``, 6.6 GB for 100,000 patterns of 128 x 128. Each entry
is measured in a process of its own: processor time per pattern and unit (pass, epoch or solve), and
the peak of memory that belongs to the process alone, without what it has of the file, and with it.
``over_fewest`` compares with the fewest patterns of that size: 1 is linear growth. ``--converge``
lets the solver work to its end instead of three passes, and says how near to the truth it came.
"""

import argparse
import csv
import json
import subprocess
import sys
import tempfile
import threading
import time
import zipfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from scipy.ndimage import gaussian_filter

from study_lib.data.datasets import load_measurement
from study_lib.design.methods import ThinnedDesign
from study_lib.design.presets import load_design
from study_lib.networks.machine import in_layout
from study_lib.networks.pinn.bundle import History, TrainedNetwork, shape_of
from study_lib.networks.pinn.config import Machine, TrainingConfig, training_config
from study_lib.networks.pinn.inference import apply_network
from study_lib.networks.pinn.training import train
from study_lib.networks.registry import build_network
from study_lib.networks.thinned.ensemble import reconstruct_thinned
from study_lib.networks.thinned.training import train_thinned
from study_lib.networks.thinned.trust import SURE
from study_lib.physics.forward import patterns_expected
from study_lib.physics.measurement import Measurement, at_positions
from study_lib.scores.photon_limit import photon_limit
from study_lib.scores.scoring import scored_pixels, scores_of
from study_lib.solvers.algorithms import run_algorithm
from study_lib.solvers.solver import SolverSettings, solve_measurement

DOSE = 1e4
STEP_SHARE = 0.07  # of the side of a pattern, from position to position
AT_ONCE = 500
LEARNED_FROM = 1000  # patterns
PASSES, EPOCHS, SOLVES = 3, 2, 2
SAMPLED_S = 0.1
SIDES = (64, 128, 256)
PATTERNS = (1_000, 10_000, 100_000)
LARGEST_PIXELS = 1.7e9  # of all patterns of a scan: 6.6 GB
Cell = tuple[str, int, int]


# --- Scans


def write_scan(path: Path, patterns: int, side: int) -> None:
    """Write a simulated scan as the data contract asks, a piece at a time."""
    random = np.random.default_rng(1)
    step_px = STEP_SHARE * side
    columns = int(np.ceil(patterns**0.5))
    raster = np.stack(np.divmod(np.arange(patterns), columns), axis=1) * step_px
    positions_px = side / 2 + 2 + raster + random.uniform(0, step_px / 4, raster.shape)
    extent = int(positions_px.max()) + side // 2 + 3
    texture = gaussian_filter(random.standard_normal((extent, extent)).astype(np.float32), 3)
    truth = np.exp(0.5j * texture / texture.std()).astype(np.complex64)
    y, x = np.mgrid[:side, :side] - side / 2
    width_px = side / 8
    probe = np.exp(-(y**2 + x**2) / (2 * width_px**2) + 2j * (y**2 + x**2) / side**1.5)
    probe = (probe * np.sqrt(DOSE / (np.abs(probe) ** 2).sum())).astype(np.complex64)
    given = {
        "probeGuess": probe,
        "objectGuess": truth,
        "ycoords": positions_px[:, 0].copy(),
        "xcoords": positions_px[:, 1].copy(),
        "_metadata": np.array(json.dumps({"domain": "amplitude"})),
    }
    temporary = path.with_suffix(".partial")
    with zipfile.ZipFile(temporary, "w", zipfile.ZIP_STORED) as file:
        for name, array in given.items():
            with file.open(f"{name}.npy", "w") as stream:
                np.lib.format.write_array(stream, array, allow_pickle=False)
        with file.open("diffraction.npy", "w", force_zip64=True) as stream:
            header = {"descr": "<f4", "fortran_order": False, "shape": (patterns, side, side)}
            np.lib.format.write_array_header_1_0(stream, header)
            for start in range(0, patterns, AT_ONCE):
                rates = patterns_expected(
                    torch.from_numpy(probe),
                    torch.from_numpy(truth),
                    torch.from_numpy(positions_px[start : start + AT_ONCE]),
                )
                stream.write(np.sqrt(random.poisson(rates.numpy())).astype("<f4").tobytes())
    temporary.replace(path)


def truth_of(path: Path) -> np.ndarray:
    """Return the true object (oy, ox) of a scan that was written here."""
    with np.load(path) as archive:
        truth: np.ndarray = archive["objectGuess"]
    return truth


# --- What is measured, each with its unit


@dataclass(frozen=True)
class Work:
    """What is timed: it does ``units`` of work and returns what there is to say of them."""

    do: Callable[[], str]
    units: int = 1


def _silent(do: Callable[[], Any]) -> Callable[[], str]:
    """Return what does the same and has nothing to say."""

    def done() -> str:
        do()
        return ""

    return done


def _solver(path: Path, measurement: Measurement, ends: bool) -> Work:
    """Return passes of the solver, or all that it takes."""
    if not ends:
        settings = SolverSettings(epochs=PASSES, tolerance=0.0)
        return Work(_silent(lambda: solve_measurement(measurement, settings)), PASSES)

    def to_the_end() -> str:
        found = solve_measurement(measurement)
        crop, mask = scored_pixels(measurement, 0.1)
        limits = {"registration_limit_px": 3.0, "frc_threshold": 0.5}
        scores, _ = scores_of(found.object_, truth_of(path), crop, mask, **limits)
        return f"{found.stop} after {len(found.losses)} passes, {scores['phase_psnr_db']:.1f} dB"

    return Work(to_the_end)


def _lsqml(_: Path, measurement: Measurement, ends: bool) -> Work:
    design = load_design("fly64").iterative.model_copy(update={"epochs": EPOCHS})
    return Work(_silent(lambda: run_algorithm("LSQML", measurement, design, seed=1)), EPOCHS)


def _limit(path: Path, measurement: Measurement, ends: bool) -> Work:
    crop, mask = scored_pixels(measurement, 0.1)
    scored: np.ndarray = np.zeros(measurement.object_shape, bool)
    scored[crop] = mask
    truth = truth_of(path)
    return Work(
        _silent(
            lambda: photon_limit(
                object_=truth,
                probe=measurement.probe,
                positions_px=measurement.positions_px,
                scored=scored,
                crop=crop,
                seed=1,
                solves=SOLVES,
            )
        ),
        SOLVES,
    )


def _config(measurement: Measurement) -> TrainingConfig:
    base = training_config(
        load_design("laptop"), "baseline", Machine(device="cpu", threads=1, compile=False)
    )
    changes = {"side_px": measurement.probe.shape[-1], "epochs": 1, "steps_min": 0}
    return TrainingConfig(**(base.model_dump() | changes))


def _pinn_training(_: Path, measurement: Measurement, ends: bool) -> Work:
    return Work(_silent(lambda: train(measurement, _config(measurement))))


def _pinn_inference(_: Path, measurement: Measurement, ends: bool) -> Work:
    config = _config(measurement)
    network = in_layout(build_network(config.network, shape_of(config)), torch.channels_last)
    trained = TrainedNetwork(network.eval(), config, History((), 0.0, 0, stopped_early=False), 0.0)
    return Work(_silent(lambda: apply_network(trained, measurement, device="cpu")))


def _shortest() -> ThinnedDesign:
    thinned = load_design("laptop").thinned
    if thinned is None:
        raise SystemExit("the preset laptop has no thinning network")
    return thinned.model_copy(update={"members": 1, "sets": 1, "steps": 2})


def _thinning_training(_: Path, measurement: Measurement, ends: bool) -> Work:
    def trained() -> str:
        train_thinned(measurement, _shortest(), seed=1)
        return "choices, one thinning, two steps"

    return Work(trained)


def _thinning_inference(path: Path, measurement: Measurement, ends: bool) -> Work:
    """Return an ensemble's inference; it has learned from the first patterns of the scan."""
    first = min(len(measurement.scan_index), LEARNED_FROM)
    few = at_positions(measurement, np.arange(first))
    ensemble, _ = train_thinned(few, _shortest(), seed=1)
    return Work(_silent(lambda: reconstruct_thinned(ensemble, measurement, trust=SURE)))


Prepared = Callable[[Path, Measurement, bool], Work]
MEASURED: dict[str, tuple[str, int, Prepared]] = {  # name: unit, most patterns, what is timed
    "solver": ("pass", 10**9, _solver),
    "LSQML": ("epoch", 10**9, _lsqml),
    "photon limit": ("solve", 10**9, _limit),
    "pinn, training": ("epoch", 10_000, _pinn_training),
    "pinn, inference": ("scan", 10**9, _pinn_inference),
    "thinning network, training": ("start", 10_000, _thinning_training),
    "thinning network, inference": ("scan", 10_000, _thinning_inference),
}


# --- One entry in a process of its own


class Peak:
    """The largest memory of this process while it works, in GiB: its own, and with files."""

    def __init__(self) -> None:
        self.own = self.whole = 0.0
        self._ends = threading.Event()
        self._thread = threading.Thread(target=self._watch, daemon=True)

    def __enter__(self) -> "Peak":
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._ends.set()
        self._thread.join()

    def _watch(self) -> None:
        while True:
            status = Path("/proc/self/status").read_text()
            own, file, shared = (
                int(status.split(f"{name}:")[1].split()[0]) / 2**20
                for name in ("RssAnon", "RssFile", "RssShmem")
            )
            self.own, self.whole = max(self.own, own), max(self.whole, own + file + shared)
            if self._ends.wait(SAMPLED_S):
                return


def measure(name: str, path: Path, *, converge: bool) -> dict[str, Any]:
    """Return what one entry takes, in this process."""
    torch.set_num_threads(1)
    work = MEASURED[name][2](path, load_measurement(path, mapped=True), converge)
    with Peak() as peak:
        started = time.process_time()
        remark = work.do()
        cpu_s = (time.process_time() - started) / work.units
    return {
        "cpu_s": cpu_s,
        "own_gib": peak.own,
        "with_file_gib": peak.whole,
        "remark": remark,
    }


def entries(
    names: list[str], sides: list[int], counts: list[int], scans: Path, *, converge: bool
) -> Iterator[dict[str, Any]]:
    """Yield one row after the other; each scan is made once."""
    for side in sides:
        first: dict[str, float] = {}
        for patterns in sorted(counts):
            if patterns * side**2 > LARGEST_PIXELS:
                continue
            path = scans / f"scan_{side}_{patterns}.npz"
            if not path.exists():
                write_scan(path, patterns, side)
            for name in names:
                unit, most, _ = MEASURED[name]
                if patterns > most:
                    continue
                command = [sys.executable, __file__, "--entry", name, "--scan", str(path)]
                command += ["--converge"] if converge else []
                done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True)
                found = json.loads(done.stdout.splitlines()[-1])
                per_pattern_ms = 1e3 * found["cpu_s"] / patterns
                yield {
                    "what": name,
                    "side_px": side,
                    "patterns": patterns,
                    "unit": "whole" if converge and name == "solver" else unit,
                    "ms_per_pattern": round(per_pattern_ms, 4),
                    "own_gib": round(found["own_gib"], 2),
                    "with_file_gib": round(found["with_file_gib"], 2),
                    "over_fewest": round(
                        per_pattern_ms / first.setdefault(name, per_pattern_ms), 2
                    ),
                    "remark": found["remark"],
                }


def main() -> None:
    """Print a line for each entry."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--only", nargs="+", choices=MEASURED, default=list(MEASURED))
    parser.add_argument("--sides", nargs="+", type=int, default=SIDES)
    parser.add_argument("--patterns", nargs="+", type=int, default=PATTERNS)
    parser.add_argument("--converge", action="store_true", help="the solver to its end")
    parser.add_argument("--scans", type=Path, help="where scans are kept; default: for this run")
    parser.add_argument("--out", type=Path, metavar="FILE", help="the table as CSV")
    parser.add_argument("--entry", choices=MEASURED, help=argparse.SUPPRESS)
    parser.add_argument("--scan", type=Path, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.entry:
        print(json.dumps(measure(options.entry, options.scan, converge=options.converge)))
        return
    rows: list[dict[str, Any]] = []
    with tempfile.TemporaryDirectory() as folder:
        scans = options.scans or Path(folder)
        scans.mkdir(parents=True, exist_ok=True)
        for row in entries(
            options.only, options.sides, options.patterns, scans, converge=options.converge
        ):
            if not rows:
                print("| " + " | ".join(row) + " |\n|" + "---|" * len(row))
            rows.append(row)
            print("| " + " | ".join(map(str, row.values())) + " |", flush=True)
            if options.out:
                with options.out.open("w", newline="", encoding="utf-8") as file:
                    writer = csv.DictWriter(file, row)
                    writer.writeheader()
                    writer.writerows(rows)


if __name__ == "__main__":
    main()
