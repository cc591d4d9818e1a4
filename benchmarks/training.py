"""How fast networks train on one core, what bounds them, whether they learn, how scans stitch.

    OMP_NUM_THREADS=1 python benchmarks/training.py speed
    OMP_NUM_THREADS=1 python benchmarks/training.py profile
    OMP_NUM_THREADS=1 python benchmarks/training.py inference --patterns 100000
    OMP_NUM_THREADS=1 python benchmarks/training.py reliability --side 64 --seeds 5
    OMP_NUM_THREADS=1 python benchmarks/training.py reliability --preset smoke --view sparse

Rates are per second of processor time. Machines are noisy: the share of the peak measured in the
same run says more than the rates.
"""

import argparse
import itertools
import time

import numpy as np
import torch
from torch.profiler import profile
from torch.utils.flop_counter import FlopCounterMode

from study_lib.design.axes import SPLITS
from study_lib.design.models import StudyDesign
from study_lib.design.presets import load_design
from study_lib.networks.pinn.bundle import History, TrainedNetwork, shape_of
from study_lib.networks.pinn.config import Machine, TrainingConfig, training_config
from study_lib.networks.pinn.inference import apply_network
from study_lib.networks.pinn.training import GroupTensors, train
from study_lib.networks.registry import build_network
from study_lib.overlap.views import view_of
from study_lib.phases.compare import scored_pixels
from study_lib.phases.records import peak_memory_mib
from study_lib.phases.scene import scene_of
from study_lib.physics.likelihood import half_deviance
from study_lib.physics.measurement import Measurement
from study_lib.physics.simulation import simulate
from study_lib.scores.alignment import align
from study_lib.scores.metrics import phase_pair
from study_lib.seeding import generator

ONE_CORE = Machine(device="cpu", threads=1, compile=False)
SECONDS = 3.0
PEAK_SIDE = 1536
SMALL_SCENES = {  # by N; 150 to 760 patterns per split
    32: (
        *("patch_size_px=32", "probe.defocus_radius_px=7.0", "specimen.largest_grain_px=15.0"),
        *("specimen.smallest_grain_px=2.0", "specimen.grain_count=120"),
        *("scan.rows=10", "scan.columns=15", "scan.step_px=3.0", "scan.jitter_px=0.6"),
    ),
    64: (),  # the laptop preset itself
    128: (
        *("patch_size_px=128", "probe.defocus_radius_px=28.0", "specimen.largest_grain_px=60.0"),
        *("scan.rows=12", "scan.columns=20", "scan.step_px=7.0"),
    ),
}


def measured(
    side: int, view: str, preset: str = "laptop"
) -> tuple[StudyDesign, dict[str, Measurement], np.ndarray]:
    """Return a view of a small scene in memory: design, measurement of each split, true object."""
    design = load_design(preset, SMALL_SCENES[side])
    scene = scene_of(design)
    positions = {split: scene.positions_of(split) for split in SPLITS}
    views = {
        split: view_of(positions[split], scene.probe, design.view(view), split, design)
        for split in SPLITS
    }
    scan = simulate(
        object_=scene.object_,
        probe=scene.probe,
        positions_px={split: positions[split][views[split].kept] for split in SPLITS},
        dose=1e4,
        dark_counts=0.0,
        saturation_counts=None,
        bad_pixels=None,
        random={split: generator(0, "benchmark", split) for split in SPLITS},
    )
    measurements = {}
    for split in SPLITS:
        kept, groups = views[split].kept, views[split].groups
        measurements[split] = Measurement(
            amplitudes=scan.amplitudes[split],
            positions_px=positions[split][kept],
            probe=scan.probe,
            groups=groups,
            scan_index=kept,
            object_shape=(scene.object_.shape[0], scene.object_.shape[1]),
        )
    return design, measurements, scene.object_


def synthetic(side: int, patterns: int, channels: int, step_px: float = 4.0) -> Measurement:
    """Return patterns without meaning on a raster, for timing only."""
    random = np.random.default_rng(0)
    columns = int(np.ceil(np.sqrt(patterns)))
    raster = np.stack(np.divmod(np.arange(patterns), columns), axis=1) * step_px + side // 2 + 1
    y, x = np.mgrid[:side, :side] - side / 2
    probe = (30 * np.exp(-(y**2 + x**2) / (2 * (side / 6) ** 2))).astype(np.complex64)
    amplitudes = np.empty((patterns, side, side), np.float32)
    template = random.poisson(2.0, (257, side, side)).astype(np.float32)
    np.sqrt(template, out=template)
    for start in range(0, patterns, len(template)):
        part = amplitudes[start : start + len(template)]
        part[...] = template[: len(part)]
    neighbours = (np.arange(patterns)[:, None] + np.arange(channels)) % patterns
    extent = int(raster.max()) + side
    return Measurement(amplitudes, raster, probe, neighbours, np.arange(patterns), (extent, extent))


def config_for(
    side: int, channels: int, filters_scale: int, precision: str, batch_size: int
) -> TrainingConfig:
    """Return the laptop's training at another size."""
    base = training_config(load_design("laptop"), "baseline", ONE_CORE)
    changes = {
        "side_px": side,
        "channels": channels,
        "filters_scale": filters_scale,
        "precision": precision,
        "batch_size": batch_size,
    }
    return TrainingConfig(**(base.model_dump() | changes))


def peak_gflops(dtype: torch.dtype) -> float:
    """Return what this core reaches in one large matrix product, the best of five."""
    matrix = torch.randn(PEAK_SIDE, PEAK_SIDE).to(dtype)
    best = 0.0
    for _ in range(5):
        started = time.process_time()
        matrix @ matrix
        best = max(best, 2 * PEAK_SIDE**3 / (time.process_time() - started) / 1e9)
    return round(best, 1)


class Steps:
    """Training steps without the loop around them, for timing."""

    def __init__(self, config: TrainingConfig, *, groups: int = 256, device: str = "cpu") -> None:
        place = torch.device(device)
        self.data = GroupTensors.of(synthetic(config.side_px, groups, config.channels), place)
        torch.manual_seed(0)
        self.network = build_network(config.network, shape_of(config)).to(place)
        self.network.to(memory_format=torch.channels_last)
        self.optimizer = torch.optim.Adam(self.network.parameters(), lr=1e-3, fused=True)
        self.rows, self.size = torch.randperm(groups), config.batch_size

    def __call__(self, number: int) -> None:
        """Take one step."""
        first = number * self.size % (len(self.rows) - self.size + 1)
        batch = self.data.batch(self.rows[first : first + self.size])
        expected = self.data.expected(batch, self.network(batch.amplitudes))
        self.optimizer.zero_grad()
        half_deviance(expected, batch.amplitudes**2).backward()
        self.optimizer.step()

    def groups_per_s(self) -> float:
        """Return the rate over a few seconds of processor time."""
        self(0)
        started, number = time.process_time(), 0
        while time.process_time() - started < SECONDS:
            number += 1
            self(number)
        return number * self.size / (time.process_time() - started)

    def gflop_per_group(self) -> float:
        """Return the floating-point operations of one group's step, forward and backward."""
        with FlopCounterMode(display=False) as counter:
            self(0)
        return counter.get_total_flops() / self.size / 1e9


def speed() -> None:
    """Print the training rate of every size, and its share of the machine's peak."""
    peaks = {name: peak_gflops(getattr(torch, name)) for name in ("float32", "bfloat16")}
    print(f"a matrix product reaches {peaks} Gflop/s")
    print("N    C  width  batch  precision  groups/s  patterns/s  Gflop/group  share of peak")
    sizes = itertools.product(
        (64, 128), (1, 4), ((1, 4), (1, 16), (2, 16)), ("float32", "bfloat16")
    )
    for side, channels, (width, batch), precision in sizes:
        steps = Steps(config_for(side, channels, width, precision, batch))
        rate, cost = steps.groups_per_s(), steps.gflop_per_group()
        print(
            f"{side:<4} {channels}  {width:<5}  {batch:<5}  {precision:<9}  {rate:8.1f}  "
            f"{rate * channels:10.1f}  {cost:11.2f}  {rate * cost / peaks[precision]:13.0%}",
            flush=True,
        )


def profiled() -> None:
    """Print where the time of training steps goes at the laptop's and the published width."""
    for width, batch in ((1, 4), (2, 16)):
        steps = Steps(config_for(64, 1, width, "bfloat16", batch))
        steps(0)
        with profile() as seen:
            for number in range(10):
                steps(number)
        print(f"N = 64, width {width}, bfloat16")
        print(seen.key_averages().table(sort_by="self_cpu_time_total", row_limit=10))


def inference(patterns: int, gridsize: int) -> None:
    """Print time and peak memory of a large scan at N = 64."""
    config = config_for(64, gridsize**2, 1, "bfloat16", 4)
    torch.manual_seed(0)
    network = build_network(config.network, shape_of(config)).to(memory_format=torch.channels_last)
    network.eval()
    before = peak_memory_mib()
    measurement = synthetic(64, patterns, gridsize**2)
    with_data = peak_memory_mib()
    started = time.perf_counter()
    trained = TrainedNetwork(network, config, History((), 0.0, 0, stopped_early=False), 0.0)
    object_ = apply_network(trained, measurement, device="cpu")
    wall_s = time.perf_counter() - started
    print(
        f"{patterns} patterns, gridsize {gridsize}, object {object_.shape}: {wall_s:.0f} s, "
        f"{patterns / wall_s:.0f} patterns/s; peak memory {peak_memory_mib():.0f} MiB, of which "
        f"{before:.0f} program, {with_data - before:.0f} patterns"
    )


def phase_correlation(object_: np.ndarray, truth: np.ndarray, measurement: Measurement) -> float:
    """Return the correlation of an object's phase with the truth's where photons fell."""
    crop, mask = scored_pixels(measurement, 0.1)
    aligned = align(object_[crop], truth[crop], mask, registration_limit_px=3.0).object_
    expected, found = phase_pair(aligned, truth[crop])
    return float(np.corrcoef(expected[mask], found[mask])[0, 1])


def reliability(side: int, view: str, seeds: int, preset: str) -> None:
    """Print the phase correlation on the test half for several seeds."""
    design, measurements, truth = measured(side, view, preset)
    base = training_config(design, view, ONE_CORE)
    patterns = len(measurements["train"].scan_index)
    print(
        f"{preset}, N = {side}, {view}, groups of {base.channels}, {patterns} patterns", flush=True
    )
    for seed in range(seeds):
        started = time.perf_counter()
        trained = train(measurements["train"], base.model_copy(update={"seed": seed}))
        correlation = {
            split: phase_correlation(apply_network(trained, part), truth, part)
            for split, part in measurements.items()
        }
        print(
            f"seed {seed}: phase correlation train "
            f"{correlation['train']:.3f}, test {correlation['test']:.3f}; loss "
            f"{trained.history.train[-1]:.4f}, uniform {trained.history.uniform_object:.4f}; "
            f"{len(trained.history.records)} epochs, {time.perf_counter() - started:.0f} s",
            flush=True,
        )


def main() -> None:
    """Run one of the measurements."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("what", choices=["speed", "profile", "inference", "reliability"])
    parser.add_argument("--patterns", type=int, default=100_000)
    parser.add_argument("--gridsize", type=int, choices=[1, 2], default=1)
    parser.add_argument("--side", type=int, choices=list(SMALL_SCENES), default=64)
    parser.add_argument("--view", choices=["baseline", "dense", "sparse"], default="baseline")
    parser.add_argument("--preset", choices=["laptop", "smoke"], default="laptop")
    parser.add_argument("--seeds", type=int, default=5)
    options = parser.parse_args()
    torch.set_num_threads(1)
    if options.what == "speed":
        speed()
    elif options.what == "profile":
        profiled()
    elif options.what == "inference":
        inference(options.patterns, options.gridsize)
    else:
        side = 32 if options.preset == "smoke" else options.side
        reliability(side, options.view, options.seeds, options.preset)


if __name__ == "__main__":
    main()
