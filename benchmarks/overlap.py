"""How long metrics 1 to 3 take, how that grows with the number of positions, and in what memory.

    OMP_NUM_THREADS=1 python benchmarks/overlap.py

The scan is that of the laptop preset, made larger: a jittered raster with 54 positions within a
probe diameter of each. n log n would keep the last column constant.
"""

import time

import numpy as np

from study_lib.overlap.metrics import group_overlap, group_to_group_overlap, image_overlap
from study_lib.overlap.sampling import form_groups, selection_order
from study_lib.phases.records import peak_memory_mib
from study_lib.seeding import generator

STEP_PX = 4.5
JITTER_PX = 1.0
DIAMETER_PX = 18.7
NEIGHBOR_COUNT = 7
SIDES = (100, 316, 1000)


def main() -> None:
    """Print one line per number of positions."""
    print("positions  groups [s]  metric 1  metric 2  metric 3  metrics [s]  s / (n log n)  MiB")
    for side in SIDES:
        random = generator(0, "benchmark")
        lattice = np.stack(np.mgrid[:side, :side], axis=-1).reshape(-1, 2)
        positions = STEP_PX * lattice + random.uniform(-JITTER_PX, JITTER_PX, lattice.shape)
        clock = [time.perf_counter()]
        groups = form_groups(positions, gridsize=2, neighbor_count=NEIGHBOR_COUNT, random=random)
        clock.append(time.perf_counter())
        metric_1 = group_overlap(positions, groups, DIAMETER_PX)
        metric_2 = image_overlap(positions, NEIGHBOR_COUNT, DIAMETER_PX)
        metric_3, _ = group_to_group_overlap(positions, groups, DIAMETER_PX)
        clock.append(time.perf_counter())
        count = len(positions)
        grouping_s, metrics_s = np.diff(clock)
        per_unit = metrics_s / (count * np.log2(count))
        print(
            f"{count:9}  {grouping_s:10.2f}  {metric_1:8.3f}  {metric_2:8.3f}  {metric_3:8.3f}  "
            f"{metrics_s:11.2f}  {per_unit:13.2e}  {peak_memory_mib():.0f}"
        )

    print("positions  evenly spread order [s]")
    for side in SIDES[:2]:
        random = generator(0, "benchmark")
        positions = STEP_PX * random.uniform(0, side, (side**2, 2))
        start_s = time.perf_counter()
        selection_order(positions, "blue_noise", random)
        print(f"{side**2:9}  {time.perf_counter() - start_s:10.2f}")


if __name__ == "__main__":
    main()
