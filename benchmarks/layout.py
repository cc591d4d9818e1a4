"""What the layout of images in memory does to steps of the thinning network, on one core.

    OMP_NUM_THREADS=1 python benchmarks/layout.py

Each row is measured in turns, so that both layouts see the same machine.
"""

import time

import torch

from study_lib.design.presets import load_design
from study_lib.networks.machine import has_fast_bfloat16
from study_lib.networks.thinned.inputs import MAPS
from study_lib.networks.thinned.network import MixingNetwork

LAYOUTS = {"channels last": torch.channels_last, "channels first": torch.contiguous_format}
CANDIDATES = 9
OBJECTS_PX = ((120, 200), (256, 256))  # the laptop's scan; the window of a large object
TURNS = 6


def cpu_s_of_steps(network: MixingNetwork, images: torch.Tensor) -> dict[str, float]:
    """Return the processor time of one gradient in each layout, the least of some turns."""
    least = dict.fromkeys(LAYOUTS, float("inf"))
    for _ in range(TURNS):
        for name, layout in LAYOUTS.items():
            network.arrange(layout)
            started = time.process_time()
            network(images).square().mean().backward()
            least[name] = min(least[name], time.process_time() - started)
    return least


def main() -> None:
    """Print one row for each object size and precision."""
    torch.set_num_threads(1)
    thinned = load_design("laptop").thinned
    if thinned is None:
        raise SystemExit("the preset laptop has no thinning network")
    print(f"fast bfloat16: {has_fast_bfloat16()}; {torch.backends.cpu.get_cpu_capability()}")
    for half_precision in (False, True) if has_fast_bfloat16() else (False,):
        for shape in OBJECTS_PX:
            torch.manual_seed(0)
            network = MixingNetwork(
                candidates=CANDIDATES,
                base=0,
                widths=thinned.widths,
                half_precision=half_precision,
            )
            found = cpu_s_of_steps(network, torch.randn(1, 2 * CANDIDATES + MAPS, *shape))
            last, first = found["channels last"], found["channels first"]
            print(
                f"{'bfloat16' if half_precision else 'float32':<8} {shape[0]} x {shape[1]}: "
                f"channels last {last:.3f} s, first {first:.3f} s a step, ratio {last / first:.2f}"
            )


if __name__ == "__main__":
    main()
