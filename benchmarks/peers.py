"""Other packages' reconstructions beside ours, in one run: one core, 40 minutes (estimated).

    OMP_NUM_THREADS=1 python benchmarks/peers.py                      # peers that are installed
    OMP_NUM_THREADS=1 python benchmarks/peers.py --arms solver phaser --views sparse   # minutes
    OMP_NUM_THREADS=1 python benchmarks/peers.py --check              # the adapters alone: minutes
    OMP_NUM_THREADS=1 python benchmarks/peers.py --arms bm3d --run reports/FOLDER   # its counts

Each peer runs in an environment of its own (`make peer-NAME`), by the adapter of its name in
``benchmarks/peers``. Every arm gets the same counts, positions and probe, which stays as it is, and
starts from a uniform object. Its settings, at most six candidates, are those whose object of four
fifths of the photons of the *train* split makes the other fifth likeliest; nothing is chosen by the
truth. They then reconstruct the *test* split, which is scored against the truth as the study does.

Before that an adapter has to reconstruct amplitudes without noise, all patterns at whole pixels,
with a phase SSIM above .97: if it does not, frame, transform or scale are wrong, and the peer gets
no score. The same at the given positions is printed beside it: some peers place patches at whole
pixels only, and then it says what that costs. ``--whole-pixels`` measures every arm's counts at
rounded positions instead, so that this is no difference between them.
"""

import argparse
import csv
import importlib.metadata
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import IO, Any

import numpy as np
import torch

from study_lib.design.models import StudyDesign
from study_lib.design.presets import load_design
from study_lib.errors import StudyError
from study_lib.phases.conditions import Condition, runs_within
from study_lib.phases.dataset import generate
from study_lib.phases.overlap import choose_view
from study_lib.physics.forward import patterns_expected
from study_lib.physics.likelihood import likelihood_judge
from study_lib.physics.measurement import Measurement, patterns_digest, split_photons
from study_lib.runs.run import Run, open_run
from study_lib.seeding import generator
from study_lib.solvers.algorithms import SOLVER, run_algorithm
from study_lib.solvers.denoising import LitPart, slow_phasor

ROOT = Path(__file__).resolve().parents[1]
PEERS = {"xptycho": "PMACE", "ptylab": "PtyLab", "phaser": "phaser", "ptyrad": "PtyRAD"}
DENOISERS = {"bm3d": "BM3D of the solver's object"}
NAMES = PEERS | DENOISERS
BY_NAME_ALONE = ("ptylab", "bm3d")  # licensed for academic or non-commercial use only
OURS: dict[str, list[dict[str, Any]]] = {
    # Every pattern at once: where it was tried, held-out counts of the train split were likelier
    # than with batches of 96 (docs/peers.md), and trying costs most of the time.
    "LSQML": [
        {"noise_model": "gaussian", "batch_size": 10_000, "momentum": 0.5},
        {"noise_model": "poisson", "batch_size": 10_000, "momentum": 0.5},
    ],
    SOLVER: [{}],  # its defaults
}
SPECIMENS = ("grains", "cells")
VIEWS = ("baseline", "sparse")
ONE_CORE = {
    "OMP_NUM_THREADS": "1",
    "OPENBLAS_NUM_THREADS": "1",
    "XLA_FLAGS": "--xla_cpu_multi_thread_eigen=false intra_op_parallelism_threads=1",
}
DOSES = (1e3, 1e4)
SHARE = 0.8  # of the photons, for the object that the others judge
CHECK_DOSE = 1e4
CHECK_SSIM = 0.97
COLUMNS = (
    "arm",
    "version",
    "dose",
    "view",
    "specimen",
    "replicate",
    "run",
    "patterns_sha256",
    "phase_ssim",
    "phase_ssim_centred",
    "phase_psnr_db",
    "cpu_s",
    "choosing_cpu_s",
    "settings",
)
HEAD = (
    "| specimen | seed | photons | view | arm | version | phase SSIM | centred "
    "| phase PSNR [dB] | CPU s | choosing, CPU s | settings chosen |"
)
Row = dict[str, Any]


@dataclass(frozen=True)
class Arm:
    """What reconstructs: name, version, candidates, and how.

    ``reconstruct`` takes a measurement and settings and returns the object (oy, ox) and the
    processor seconds; it raises a StudyError where it cannot.
    """

    name: str
    version: str
    candidates: list[dict[str, Any]]
    reconstruct: Callable[[Measurement, dict[str, Any]], tuple[np.ndarray, float]]


# --- Arms


def own_arm(name: str, design: StudyDesign) -> Arm:
    """Return an arm of the study: LSQML of pty-chi, or the solver."""

    def reconstruct(measurement: Measurement, settings: dict[str, Any]) -> tuple[np.ndarray, float]:
        chosen = dict(settings)
        if "batch_size" in chosen:
            chosen["batch_size"] = min(chosen["batch_size"], len(measurement.amplitudes))
        iterative = design.iterative.model_copy(update=chosen)
        found = run_algorithm(name, measurement, iterative, seed=design.seeds.iterative)
        return found.object_, found.cpu_s

    version = "this" if name == SOLVER else f"pty-chi {importlib.metadata.version('ptychi')}"
    return Arm(name, version, OURS[name], reconstruct)


class Peer:
    """A package in an environment of its own, which answers job by job.

    Parameters
    ----------
    name
        A key of ``NAMES``.
    scratch
        A folder for the arrays that go to and fro.
    """

    def __init__(self, name: str, scratch: Path) -> None:
        self.name = name
        self._scratch = scratch
        worker = ROOT / "benchmarks" / "peers" / "worker.py"
        environment = {key: value for key, value in os.environ.items() if key != "PYTHONPATH"}
        self._process = subprocess.Popen(
            [python_of(name), "-I", worker, name],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=(scratch / f"{name}.log").open("w"),
            text=True,
            cwd=scratch,
            env=environment | ONE_CORE,
        )
        self._first = self._answer()

    def arm(self) -> Arm:
        """Return the arm that this peer is."""
        return Arm(
            NAMES[self.name],
            f"{self.name} {self._first['version']}",
            self._first["candidates"],
            self.reconstruct,
        )

    def reconstruct(
        self, measurement: Measurement, settings: dict[str, Any]
    ) -> tuple[np.ndarray, float]:
        """Return the peer's object (oy, ox) of a measurement and its processor seconds."""
        return self.carry_out(
            settings,
            amplitudes=measurement.amplitudes.astype(np.float32),
            positions_px=measurement.positions_px.astype(np.float64),
            probe=measurement.probe.astype(np.complex64),
            object_shape=np.array(measurement.object_shape),
        )

    def carry_out(self, settings: dict[str, Any], **arrays: np.ndarray) -> tuple[np.ndarray, float]:
        """Return the object that the peer makes of arrays, and its processor seconds."""
        given, found = (self._scratch / f"{self.name}_{end}" for end in ("given.npz", "found.npy"))
        np.savez(given, allow_pickle=False, **arrays)
        job = {"given": str(given), "settings": settings, "found": str(found)}
        print(json.dumps(job), file=_pipe(self._process.stdin), flush=True)
        answer = self._answer()
        if "error" in answer:
            raise StudyError(f"{NAMES[self.name]} with {settings}: {answer['error']}")
        return np.load(found), float(answer["cpu_s"])

    def close(self) -> None:
        """End the peer's process."""
        _pipe(self._process.stdin).close()
        self._process.wait()

    def _answer(self) -> dict[str, Any]:
        line = _pipe(self._process.stdout).readline()
        if not line:
            log = (self._scratch / f"{self.name}.log").read_text()
            raise StudyError(f"{NAMES[self.name]} ended without an answer:\n{log[-2000:]}")
        answer: dict[str, Any] = json.loads(line)
        return answer


class PeerDenoiser(Peer):
    """A package that denoises what the study's solver has reconstructed.

    As the study's own denoisers: where light falls, without the slow phase, which would turn the
    object around the complex plane.
    """

    def __init__(self, name: str, scratch: Path, design: StudyDesign) -> None:
        super().__init__(name, scratch)
        self._solver = own_arm(SOLVER, design)

    def reconstruct(
        self, measurement: Measurement, settings: dict[str, Any]
    ) -> tuple[np.ndarray, float]:
        """Return the denoised object (oy, ox) of a measurement; the solver's seconds are added."""
        plain, solver_cpu_s = self._solver.reconstruct(measurement, {})
        lit = LitPart.of(measurement)
        found = plain.copy()
        slow = slow_phasor(found[lit.box])
        smooth, cpu_s = self.carry_out(
            settings,
            object_=found[lit.box] * slow.conj(),
            noise=np.array(lit.noise),
            object_shape=np.array(slow.shape),
        )
        found[lit.box] = smooth * slow
        return found, solver_cpu_s + cpu_s


def _pipe(stream: IO[str] | None) -> IO[str]:
    """Return a pipe of a process, which has it if it was started with one."""
    if stream is None:
        raise StudyError("a peer's process has no pipe; start it with stdin and stdout piped")
    return stream


def python_of(peer: str) -> Path:
    """Return the interpreter of a peer's environment, there or not."""
    return ROOT / f".venv-peer-{peer}" / "bin" / "python"


# --- Conditions


def conditions_of(
    folder: Path, specimen: str, doses: tuple[float, ...], views: tuple[str, ...]
) -> Iterator[Condition]:
    """Yield the conditions of a specimen, test split, and make their files."""
    design = load_design(
        "laptop", [f"specimen.kind={specimen}", f"doses={json.dumps(sorted(doses))}"]
    )
    run = Run(folder / specimen, design)
    for dose in sorted(doses):
        generate(run.condition(dose, "baseline"))
        for view in views:
            if view != "baseline":
                choose_view(run.condition(dose, view))
            yield run.condition(dose, view, "test")


def conditions_of_run(
    folder: Path, doses: list[float] | None, views: list[str] | None
) -> Iterator[Condition]:
    """Yield the conditions of a finished run and its replicates, test split, with their files."""
    for one in runs_within(open_run(folder).design):
        run = Run(folder / one.folder, one.design)
        for dose in one.design.doses:
            for view in (view.name for view in one.design.views_at(dose)):
                wanted = (doses is None or dose in doses) and (views is None or view in views)
                if wanted and not one.field:
                    yield run.condition(dose, view, "test")


def at_whole_pixels(condition: Condition) -> Measurement:
    """Return the measurement as it were at rounded positions, with Poisson counts."""
    whole = without_noise(rounded(condition.measurement()), condition.truth())
    random = generator(condition.design.seeds.simulation, "whole pixels", condition.split)
    return replace(whole, amplitudes=np.sqrt(random.poisson(whole.amplitudes**2)).astype("f4"))


def rounded(measurement: Measurement) -> Measurement:
    """Return the measurement with positions at whole pixels, its patterns as they are."""
    return replace(measurement, positions_px=np.rint(measurement.positions_px))


def without_noise(measurement: Measurement, truth: np.ndarray) -> Measurement:
    """Return the measurement with the amplitudes that the true object (oy, ox) has."""
    expected = patterns_expected(
        torch.from_numpy(measurement.probe),
        torch.from_numpy(truth),
        torch.from_numpy(measurement.positions_px),
    )
    return replace(measurement, amplitudes=expected.sqrt().numpy().astype(np.float32))


# --- What is measured


def check(arm: Arm, condition: Condition) -> bool:
    """Print what an arm makes of amplitudes without noise; say whether its adapter is right."""
    given, truth = condition.measurement(), condition.truth()
    found = {}
    for name, measurement in (("whole", rounded(given)), ("given", given)):
        object_, cpu_s = arm.reconstruct(without_noise(measurement, truth), arm.candidates[0])
        found[name] = float(condition.score(object_)[0]["phase_ssim"] or 0)
    right = found["whole"] > CHECK_SSIM
    print(
        f"{arm.name} ({arm.version}), amplitudes without noise: phase SSIM {found['whole']:.3f} at "
        f"whole pixels, {found['given']:.3f} at the given positions, {cpu_s:.1f} CPU s"
        + ("" if right else f"; below {CHECK_SSIM:g}: its adapter is wrong, it gets no score"),
        flush=True,
    )
    return right


def chosen(
    arm: Arm, train: Measurement, seed: int
) -> tuple[dict[str, Any], float, list[tuple[dict[str, Any], float]]]:
    """Return the settings that make held-out counts of the train split likeliest.

    Beside them the processor seconds of trying, and what each candidate reached, in nats per
    pattern. A single candidate is not tried.
    """
    if len(arm.candidates) == 1:
        return arm.candidates[0], 0.0, []
    part, held = split_photons(train, SHARE, generator(seed, "denoiser", arm.name))
    judge = likelihood_judge(held)
    tried, total_s = [], 0.0
    for settings in arm.candidates:
        try:
            object_, cpu_s = arm.reconstruct(part, settings)
        except StudyError as error:
            print(f"  {error}", flush=True)
            continue
        total_s += cpu_s
        tried.append((settings, float(judge(object_).mean())))
    if not tried:
        raise StudyError(f"{arm.name}: no candidate has a result")
    return min(tried, key=lambda pair: pair[1])[0], total_s, tried


def row_of(arm: Arm, condition: Condition, whole_pixels: bool, run: str) -> Row:
    """Return the row of an arm: settings chosen on the train split, scores of the test split."""

    def measured(split: str) -> Measurement:
        of = condition.of(split)
        return at_whole_pixels(of) if whole_pixels else of.measurement()

    settings, choosing_s, tried = chosen(arm, measured("train"), condition.design.seeds.iterative)
    for candidate, nats in tried:
        print(f"  {arm.name} {text_of(candidate)}: {nats:.2f} nats per pattern", flush=True)
    test = measured("test")
    object_, cpu_s = arm.reconstruct(test, settings)
    scores = condition.score(object_)[0]
    values = (
        arm.name,
        arm.version,
        condition.dose,
        condition.view.name,
        condition.design.specimen.kind,
        condition.design.replicate,
        run,
        patterns_digest(test),
        scores["phase_ssim"],
        scores["phase_ssim_centred"],
        scores["phase_psnr_db"],
        cpu_s,
        choosing_s,
        text_of(settings),
    )
    return dict(zip(COLUMNS, values, strict=True))


def text_of(settings: dict[str, Any]) -> str:
    """Return settings as text."""
    return " ".join(f"{name}={value}" for name, value in settings.items()) or "defaults"


def line_of(row: Row) -> str:
    """Return a row of the table, in markdown."""
    ssim, centred, psnr_db = (
        row[name] or 0 for name in ("phase_ssim", "phase_ssim_centred", "phase_psnr_db")
    )
    return (
        f"| {row['specimen']} | {row['replicate']} | {row['dose']:.0e} | {row['view']} "
        f"| {row['arm']} | {row['version']} | {ssim:.3f} | {centred:.3f} | {psnr_db:.2f} "
        f"| {row['cpu_s']:.1f} | {row['choosing_cpu_s']:.1f} | {row['settings']} |"
    )


def write(rows: list[Row], path: Path) -> None:
    """Write the rows so far as CSV."""
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, COLUMNS)
        writer.writeheader()
        writer.writerows(rows)


def parsed() -> argparse.Namespace:
    """Return the options."""
    names = [*OURS, *NAMES]
    parser = argparse.ArgumentParser(
        description=__doc__.splitlines()[0],
        epilog="Peers are installed one by one: make " + " ".join(f"peer-{peer}" for peer in NAMES),
    )
    default = [name for name in names if name not in BY_NAME_ALONE]
    parser.add_argument(
        "--arms",
        nargs="+",
        choices=names,
        help=f"default: all but {' and '.join(BY_NAME_ALONE)}, whose licence each user has to "
        "read; of a run the peers alone, for it has our own arms",
    )
    parser.add_argument("--doses", nargs="+", type=float, help="default: 1e3 and 1e4, or a run's")
    parser.add_argument("--views", nargs="+", help="default: baseline and sparse, or a run's")
    chosen = parser.add_mutually_exclusive_group()
    chosen.add_argument("--specimens", nargs="+", default=SPECIMENS)
    chosen.add_argument(
        "--run", type=Path, metavar="FOLDER", help="the counts of a finished run, all its seeds"
    )
    parser.add_argument(
        "--whole-pixels", action="store_true", help="counts as if measured at rounded positions"
    )
    parser.add_argument("--check", action="store_true", help="only the adapters' own check")
    parser.add_argument("--out", type=Path, metavar="FILE", help="the table as CSV")
    options = parser.parse_args()
    options.arms = options.arms or [one for one in default if not (options.run and one in OURS)]
    if options.run and set(options.arms) & set(OURS):
        parser.error(f"--run has {' and '.join(OURS)} in its own tables, with its seeds")
    return options


def started(
    names: list[str], design: StudyDesign, scratch: Path
) -> Iterator[tuple[Arm, Peer | None]]:
    """Yield the arms that are there; name those that are absent."""
    for name in names:
        if name in OURS:
            yield own_arm(name, design), None
        elif not python_of(name).is_file():
            print(f"{NAMES[name]}: absent; make peer-{name}", flush=True)
        else:
            denoises = name in DENOISERS
            peer = PeerDenoiser(name, scratch, design) if denoises else Peer(name, scratch)
            yield peer.arm(), peer


def main() -> int:
    """Print the checks, and a row for each arm and condition."""
    options = parsed()
    torch.set_num_threads(1)
    rows: list[Row] = []
    run = options.run.resolve().name if options.run else ""
    began_s = time.perf_counter()
    with tempfile.TemporaryDirectory() as folder:
        scratch = Path(folder)
        doses, views = tuple(options.doses or DOSES), tuple(options.views or VIEWS)
        if options.run:
            conditions = list(conditions_of_run(options.run, options.doses, options.views))
        else:
            conditions = [
                condition
                for specimen in options.specimens
                for condition in conditions_of(scratch / "data", specimen, doses, views)
            ]
        if not conditions:
            print(f"no condition with doses {doses} and views {views}", file=sys.stderr)
            return 2
        (checked,) = conditions_of(scratch / "check", "grains", (CHECK_DOSE,), ("baseline",))
        arms = list(started(options.arms, conditions[0].design, scratch))
        right = [arm for arm, peer in arms if peer is None or check(arm, checked)]
        for condition in [] if options.check else conditions:
            for arm in right:
                try:
                    rows.append(row_of(arm, condition, options.whole_pixels, run))
                except StudyError as error:
                    print(f"  no row: {error}", flush=True)
                    continue
                print(line_of(rows[-1]), flush=True)
                if options.out:
                    write(rows, options.out)
        for _, peer in arms:
            if peer:
                peer.close()
    if rows:
        print("\n" + HEAD + "\n|" + "---|" * (HEAD.count("|") - 1))
        print("\n".join(map(line_of, rows)))
    print(f"{time.perf_counter() - began_s:.0f} s")
    return 0 if len(right) == len(arms) else 1


if __name__ == "__main__":
    sys.exit(main())
