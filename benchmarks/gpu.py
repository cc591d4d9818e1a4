"""What a GPU is worth: rates of a CUDA device beside those of one core, in the same run.

    OMP_NUM_THREADS=1 python benchmarks/gpu.py       # two minutes

Wall seconds, the device waited for; the network at the laptop's and at the published width, the
solver at 2,576 patterns of 128 x 128. The last column is the ratio.
"""

import sys
import time
from collections.abc import Callable

import numpy as np
import torch
from training import Steps, config_for, synthetic

from study_lib.networks.pinn.bundle import History, TrainedNetwork, shape_of
from study_lib.networks.pinn.inference import apply_network
from study_lib.networks.registry import build_network
from study_lib.solvers.solver import SolverSettings, solve_measurement

SECONDS = 4.0
DEVICES = ("cpu", "cuda")
GROUPS = 512


def rate_of(work: Callable[[int], None], units: int, device: str) -> float:
    """Return units per wall second of repeated work, after one call that is not counted."""

    def wait() -> None:
        if device == "cuda":
            torch.cuda.synchronize()

    work(0)
    wait()
    started, number = time.perf_counter(), 0
    while time.perf_counter() - started < SECONDS:
        number += 1
        work(number)
        wait()
    return number * units / (time.perf_counter() - started)


def training(side: int, channels: int, width: int, batch: int, precision: str) -> list[float]:
    """Return patterns per second of training steps on each device."""
    config = config_for(side, channels, width, precision, batch)
    return [
        rate_of(Steps(config, groups=GROUPS, device=device), batch * channels, device)
        for device in DEVICES
    ]


def inference(patterns: int) -> list[float]:
    """Return patterns per second from a scan to its object on each device, N = 64."""
    config = config_for(64, 1, 1, "float32", 4)
    torch.manual_seed(0)
    network = build_network(config.network, shape_of(config)).eval()
    measurement = synthetic(64, patterns, 1)
    trained = TrainedNetwork(network, config, History((), 0.0, 0, stopped_early=False), 0.0)
    return [
        rate_of(
            lambda _, name=device: apply_network(trained, measurement, device=name), patterns, ""
        )
        for device in DEVICES
    ]


def solving(patterns: int, side: int, epochs: int) -> list[float]:
    """Return patterns times epochs per second of the solver on each device."""
    measurement = synthetic(side, patterns, 1)
    settings = [SolverSettings(epochs=epochs, tolerance=0.0, device=name) for name in DEVICES]
    return [
        rate_of(
            lambda _, chosen=chosen: solve_measurement(measurement, chosen),
            patterns * epochs,
            "",
        )
        for chosen in settings
    ]


def main() -> None:
    """Print a row for each kind of work."""
    if not torch.cuda.is_available():
        sys.exit("no CUDA device here; nothing to compare")
    torch.set_num_threads(1)
    torch.backends.cudnn.benchmark = False
    print(f"{torch.cuda.get_device_name()}, torch {torch.__version__}; numpy {np.__version__}")
    print(f"{'per wall second':<64}{'one core':>10}{'GPU':>10}{'ratio':>8}")
    for side, channels, width, batch in (
        *((64, 1, 1, 4), (64, 1, 2, 16), (64, 4, 2, 16)),
        *((128, 1, 2, 16), (128, 4, 2, 16)),
    ):
        for precision in ("float32", "bfloat16"):
            sizes = f"training patterns, N {side}, C {channels}, width {width}, batch {batch}"
            report(f"{sizes}, {precision}", training(side, channels, width, batch, precision))
    report("inference patterns, N 64, width 1, 1,024 patterns", inference(1024))
    report("solver patterns x epochs, N 64, 760 patterns, 20 epochs", solving(760, 64, 20))
    report("solver patterns x epochs, N 128, 2,576 patterns, 4 epochs", solving(2576, 128, 4))


def report(what: str, rates: list[float]) -> None:
    """Print one row."""
    core, gpu = rates
    print(f"{what:<64}{core:10.1f}{gpu:10.1f}{gpu / core:8.1f}", flush=True)


if __name__ == "__main__":
    main()
