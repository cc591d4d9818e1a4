"""How fast the solver reaches what LSQML reaches, and what it costs, on one core.

    OMP_NUM_THREADS=1 python benchmarks/solver.py            # against LSQML, N = 64: ten minutes
    OMP_NUM_THREADS=1 python benchmarks/solver.py --tune     # how the defaults were chosen
    OMP_NUM_THREADS=1 python benchmarks/solver.py --best     # the best options of LSQML instead
    OMP_NUM_THREADS=1 python benchmarks/solver.py --loops    # compiled loops against torch: seconds
    OMP_NUM_THREADS=1 python benchmarks/solver.py --large    # N = 128, 10,304 patterns: minutes

LSQML has 100 epochs in batches of 96, as in preset fly64, or what ``--best`` chooses. Patterns,
probe and score are those of the laptop preset; scores are those of the test split, after
the project's own alignment. ``--tune`` and ``--best`` look at counts of the *train*
split alone: a twentieth of the detector pixels is hidden from the reconstruction and judges it.
Machines are noisy: ratios of one run say more than seconds.
"""

import argparse
import time
from collections.abc import Callable
from dataclasses import replace
from typing import Any
from unittest.mock import patch

import numpy as np
import torch

from study_lib.design.axes import SPLITS
from study_lib.design.models import StudyDesign
from study_lib.design.presets import load_design
from study_lib.errors import StudyError
from study_lib.phases.records import peak_memory_mib
from study_lib.phases.scene import scene_of
from study_lib.physics.forward import exit_waves, expected_counts
from study_lib.physics.measurement import Measurement
from study_lib.physics.simulation import simulate
from study_lib.scores.alignment import align
from study_lib.scores.metrics import score
from study_lib.scores.scoring import scored_pixels
from study_lib.seeding import generator
from study_lib.solvers import pattern_model
from study_lib.solvers import ptychi as ptychi_engine
from study_lib.solvers.pattern_model import OBJECTIVES
from study_lib.solvers.solver import SolverResult, SolverSettings, model_of, solve_measurement
from study_lib.system import keep_freed_memory

SETTINGS = ("scan.rows=16", "scan.columns=32")  # 512 patterns per split
HIDDEN_SHARE = 0.05
CHOICES: dict[str, tuple[Any, ...]] = {
    "objective": ("amplitude",),
    "offset": (0.1, 0.05, 0.01, 0.003),
    "damping": (0.03, 0.1, 0.6),
    "momentum": (0.5, 0.8, 0.98),
    "slow_phase": (0.0, 0.5, 2.0),
    "tolerance": (1e-2, 3e-3, 3e-4, 1e-4),
}
LSQML_CHOICES = (
    (0.0, "gaussian", 96),
    (0.0, "gaussian", 32),
    (0.0, "poisson", 96),
    (0.0, "poisson", 32),
    (0.5, "gaussian", 96),
    (0.5, "poisson", 96),
    (0.5, "gaussian", 1000),
    (0.5, "poisson", 1000),
)


def measured(design: StudyDesign, dose: float, split: str) -> tuple[Measurement, np.ndarray]:
    """Return the patterns of one split as the study makes them, and the truth."""
    scene = scene_of(design)
    simulated = simulate(
        object_=scene.object_,
        probe=scene.probe,
        positions_px={name: scene.positions_of(name) for name in SPLITS},
        dose=dose,
        dark_counts=0.0,
        saturation_counts=None,
        bad_pixels=None,
        random={
            name: generator(design.seeds.simulation, "noise", name, int(dose)) for name in SPLITS
        },
    )
    positions = scene.positions_of(split)
    every = np.arange(len(positions))
    measurement = Measurement(
        amplitudes=simulated.amplitudes[split],
        positions_px=positions,
        probe=simulated.probe,
        groups=every[:, None],
        scan_index=every,
        object_shape=(scene.object_.shape[0], scene.object_.shape[1]),
    )
    return measurement, scene.object_


def phase_scores(
    object_: np.ndarray, measurement: Measurement, truth: np.ndarray, design: StudyDesign
) -> tuple[float, float]:
    """Return phase SSIM and phase PSNR in dB on the scored pixels, aligned."""
    crop, mask = scored_pixels(measurement, design.metrics.illumination_threshold)
    limit = design.metrics.registration_limit_px
    aligned = align(object_[crop], truth[crop], mask, registration_limit_px=limit)
    scores = score(aligned.object_, truth[crop], mask, frc_threshold=0.5)
    return float(scores["phase_ssim"] or 0), float(scores["phase_psnr_db"] or 0)


def arguments_of(measurement: Measurement) -> dict[str, Any]:
    """Return what LSQML is given."""
    return {
        "amplitudes": measurement.amplitudes,
        "positions_px": measurement.positions_px,
        "probe": measurement.probe,
        "object_shape": measurement.object_shape,
        "seed": 1,
    }


def solved(measurement: Measurement, **settings: Any) -> tuple[SolverResult, float]:
    """Return a result and the processor time of the whole call."""
    start_s = time.process_time()
    result = solve_measurement(measurement, SolverSettings(**settings))
    return result, time.process_time() - start_s


def transforms_ms(side: int) -> float:
    """Return the processor time of one transform and its inverse: what no solver can avoid."""
    waves = torch.randn(max(1, 2**16 // side**2), side, side, dtype=torch.complex64)
    times = []
    for _ in range(100):
        start_s = time.process_time()
        torch.fft.ifft2(torch.fft.fft2(waves))
        times.append((time.process_time() - start_s) / len(waves))
    return 1e3 * float(np.median(times))


def epochs_to_reach(
    goal: tuple[float, float], measurement: Measurement, truth: np.ndarray, design: StudyDesign
) -> tuple[int, float] | None:
    """Return after how many epochs both scores are reached, and the processor time up to there.

    The time is that of a call with so many epochs, set-up included.
    """
    for epochs in range(1, 41):
        result, cpu_s = solved(measurement, epochs=epochs, tolerance=0.0)
        found = phase_scores(result.object_, measurement, truth, design)
        if found[0] >= goal[0] and found[1] >= goal[1]:
            return epochs, cpu_s
    return None


def against_lsqml(options: dict[float, dict[str, Any]]) -> None:
    """Print, dose by dose, both at their end and the solver on its way."""
    design = load_design("laptop", SETTINGS)
    floor = transforms_ms(design.patch_size_px)
    for dose in design.doses:
        measurement, truth = measured(design, dose, "test")
        count = len(measurement.amplitudes)
        chosen = options.get(dose, {"batch_size": 96, "noise_model": "gaussian"})
        reference = run_lsqml(measurement, 100, **chosen)
        goal = phase_scores(reference.object_, measurement, truth, design)
        result, cpu_s = solved(measurement)
        end = phase_scores(result.object_, measurement, truth, design)
        reached = epochs_to_reach(goal, measurement, truth, design)
        per_epoch_ms = 1e3 * float(np.median(result.cpu_s)) / count
        print(
            f"dose {dose:7.0f}  {count} patterns\n"
            f"  LSQML 100 epochs  phase SSIM {goal[0]:.3f}, PSNR {goal[1]:.1f} dB, "
            f"{reference.cpu_s:.2f} CPU s   {chosen}\n"
            f"  solver            phase SSIM {end[0]:.3f}, PSNR {end[1]:.1f} dB, "
            f"{cpu_s:.2f} CPU s, {len(result.losses)} epochs, {result.stop}\n"
            f"  one epoch         {per_epoch_ms:.4f} ms per pattern, "
            f"{per_epoch_ms / floor:.1f} x the two transforms ({floor:.4f} ms)"
        )
        if reached:
            print(
                f"  as good as LSQML  after {reached[0]} epochs, {reached[1]:.3f} CPU s: "
                f"1/{reference.cpu_s / reached[1]:.0f} of LSQML's time",
                flush=True,
            )
        else:
            print("  as good as LSQML  not within 40 epochs", flush=True)


def run_lsqml(
    measurement: Measurement,
    epochs: int,
    *,
    batch_size: int,
    noise_model: str,
    momentum: float = 0.0,
    hidden: np.ndarray | None = None,
) -> ptychi_engine.EngineResult:
    """Run LSQML on a measurement."""
    return ptychi_engine.run_ptychi(
        **arguments_of(measurement),
        epochs=epochs,
        batch_size=batch_size,
        noise_model=noise_model,
        momentum=momentum,
        bad_pixels=hidden,
    )


def held_out_deviance(object_: np.ndarray, measurement: Measurement, hidden: np.ndarray) -> float:
    """Return half the Poisson deviance per hidden pixel."""
    total = 0.0
    for part in np.array_split(np.arange(len(measurement.amplitudes)), 16):
        waves = exit_waves(
            torch.from_numpy(measurement.probe),
            torch.from_numpy(object_),
            torch.from_numpy(measurement.positions_px[part]),
        )
        model = expected_counts(waves).numpy()[:, hidden].clip(1e-3).astype(np.float64)
        counts = measurement.amplitudes[part][:, hidden].astype(np.float64) ** 2
        ratio = np.where(counts > 0, counts, 1) / model
        total += float((model - counts + counts * np.log(ratio)).sum())
    return total / (len(measurement.amplitudes) * int(hidden.sum()))


def tune() -> None:
    """Print how well train patterns explain hidden counts, one setting changed at a time.

    Half deviances per hidden pixel, in thousandths above that of the defaults, and epochs, for
    every dose; then the mean of the first, each over the deviance of the defaults.
    """
    design = load_design("laptop", SETTINGS)
    data = {dose: measured(design, dose, "train")[0] for dose in design.doses}
    side = design.patch_size_px
    hidden = generator(0, "hidden").random((side, side)) < HIDDEN_SHARE

    def judged(choice: dict[str, Any]) -> list[tuple[float, int]]:
        found = []
        for measurement in data.values():
            shown = measurement.amplitudes * ~hidden
            blind = replace(measurement, amplitudes=shown, bad_pixels=hidden)
            result, _ = solved(blind, **choice)
            deviance = held_out_deviance(result.object_, measurement, hidden)
            found.append((deviance, len(result.losses)))
        return found

    reference = judged({})
    texts = (f"{value:.5f} after {epochs}" for value, epochs in reference)
    print("defaults  " + "  ".join(texts), flush=True)
    for name, values in CHOICES.items():
        for value in values:
            found = judged({name: value})
            pairs = list(zip(found, reference, strict=True))
            texts = (f"{1e3 * (new[0] - old[0]):+.2f} after {new[1]}" for new, old in pairs)
            mean = np.mean([new[0] / old[0] - 1 for new, old in pairs])
            print(f"{name} {value}  " + "  ".join(texts) + f"  {mean:+.4f}", flush=True)


def best_lsqml(epochs: int) -> dict[float, dict[str, Any]]:
    """Return, for each dose, the options of LSQML that explain hidden train counts best."""
    design = load_design("laptop", SETTINGS)
    chosen: dict[float, dict[str, Any]] = {}
    for dose in design.doses:
        measurement, _ = measured(design, dose, "train")
        side = measurement.probe.shape[0]
        hidden = generator(0, "hidden").random((side, side)) < HIDDEN_SHARE
        shown = replace(measurement, amplitudes=measurement.amplitudes * ~hidden)
        rows = []
        for momentum, model, batch in LSQML_CHOICES:
            choice: dict[str, Any] = {
                "momentum": momentum,
                "noise_model": model,
                "batch_size": batch,
            }
            try:
                found = run_lsqml(shown, epochs, hidden=hidden, **choice)
            except StudyError as error:
                print(f"dose {dose:.0f}  {choice}  {error}", flush=True)
                continue
            deviance = held_out_deviance(found.object_, measurement, hidden)
            rows.append((deviance, choice))
            print(
                f"dose {dose:.0f}  {choice}  hidden {deviance:.5f}  {found.cpu_s:.1f} CPU s",
                flush=True,
            )
        chosen[dose] = min(rows, key=lambda row: row[0])[1]
    return chosen


def large() -> None:
    """Print memory and time of 10,304 patterns of 128 x 128, and how the time grows."""
    side, step_px = 128, 3.0
    floor = transforms_ms(side)
    random = generator(0, "large")
    rows, columns = 92, 112
    grid = np.stack(np.indices((rows, columns)), axis=-1).reshape(-1, 2)
    positions = side // 2 + 2 + step_px * grid + random.uniform(-1, 1, grid.shape)
    y, x = np.indices((side, side)) - side // 2
    probe = 4 * np.exp(-(y**2 + x**2) / 800 + 0.01j * (y**2 + 1.2 * x**2)).astype(np.complex64)
    shape = (int(positions[:, 0].max()) + side, int(positions[:, 1].max()) + side)
    phase = np.sin(np.add.outer(np.arange(shape[0]) / 9, np.arange(shape[1]) / 13))
    object_ = torch.from_numpy(np.exp(0.6j * phase).astype(np.complex64))
    amplitudes = np.empty((len(positions), side, side), np.float32)
    for start in range(0, len(positions), 32):
        part = slice(start, start + 32)
        waves = exit_waves(torch.from_numpy(probe), object_, torch.from_numpy(positions[part]))
        amplitudes[part] = np.sqrt(random.poisson(expected_counts(waves).numpy()))
    print(f"data {amplitudes.nbytes / 2**20:.0f} MiB, peak so far {peak_memory_mib():.0f} MiB")
    order = random.permutation(len(positions))
    every = np.arange(len(positions))
    for stored, name in ((0, "made anew"), (2**31, "kept")):
        for share, epochs in ((0.25, 2), (0.5, 2), (1.0, 2), (1.0, 4)):
            some = np.sort(order[: int(share * len(order))])
            part = amplitudes if share == 1 else amplitudes[some]
            measurement = Measurement(
                part, positions[some], probe, every[: len(some), None], some, shape
            )
            result, cpu_s = solved(measurement, epochs=epochs, tolerance=0.0, stored_bytes=stored)
            per_epoch = 1e3 * result.cpu_s.mean() / len(some)
            print(
                f"probes {name}: {len(some):6d} patterns, {epochs} epochs: {cpu_s:6.1f} CPU s, "
                f"of them {result.cpu_s.sum():6.1f} in epochs, {per_epoch:.3f} ms per pattern "
                f"and epoch, {per_epoch / floor:.1f} x the transforms; "
                f"peak {peak_memory_mib():.0f} MiB",
                flush=True,
            )
            del part, measurement


def loops(pairs: int = 25) -> None:
    """Print what a pass takes by compiled loops and by torch alone, in turn, in one process."""
    design = load_design("laptop", SETTINGS)
    measurement, _ = measured(design, 1e4, "test")
    floor = transforms_ms(design.patch_size_px) * len(measurement.scan_index)
    for objective in OBJECTIVES:
        model, probe, positions = model_of(
            measurement.amplitudes,
            measurement.positions_px,
            measurement.probe,
            None,
            SolverSettings(objective=objective),
        )
        object_ = torch.ones(model.box[0] * model.box[1], dtype=torch.complex64)
        for name, one_pass in (("pass", model.run), ("gradient alone", model.object_gradient)):
            taken_ms = np.array(
                [
                    [
                        _pass_ms(one_pass, object_, probe, positions, looped=looped)
                        for looped in (1, 0)
                    ]
                    for _ in range(pairs + 1)
                ][1:]  # the first compiles
            )
            ratios = taken_ms[:, 1] / taken_ms[:, 0]
            by_loops, by_torch = np.median(taken_ms, axis=0) / floor
            print(
                f"{objective}, {name}: {by_loops:.1f} x the two transforms by loops, "
                f"{by_torch:.1f} x by torch; {np.median(ratios):.2f} times as fast "
                f"({ratios.min():.2f} to {ratios.max():.2f} in {pairs} pairs)"
            )


def _pass_ms(one_pass: Callable[..., object], *at: torch.Tensor, looped: bool) -> float:
    with patch.object(pattern_model, "can_loop", lambda object_, patterns: bool(looped)):
        started = time.process_time()
        one_pass(*at)
        return 1e3 * (time.process_time() - started)


def main() -> None:
    """Print one block per dose."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--tune", action="store_true", help="choose the defaults of the solver")
    parser.add_argument("--best", action="store_true", help="choose the options of LSQML first")
    parser.add_argument("--best-epochs", type=int, default=30, help="LSQML epochs per choice")
    parser.add_argument(
        "--loops", action="store_true", help="a pass by compiled loops and by torch"
    )
    parser.add_argument("--large", action="store_true", help="memory and time at full size")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    keep_freed_memory()  # as jobs do
    if arguments.tune:
        tune()
    elif arguments.large:
        large()
    elif arguments.loops:
        loops()
    else:
        against_lsqml(best_lsqml(arguments.best_epochs) if arguments.best else {})


if __name__ == "__main__":
    main()
