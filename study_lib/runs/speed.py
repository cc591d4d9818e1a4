"""How fast this machine is: from its earlier runs, or from a measurement of some seconds.

Costs of jobs are seconds of a reference machine; a factor makes them seconds of this one.
"""

import hashlib
import os
import platform
import subprocess
import sys
import time
from collections import defaultdict
from collections.abc import Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from study_lib.errors import StudyError
from study_lib.files import read_json, write_json
from study_lib.phases.scene import scene_of
from study_lib.runs.forecast import derived_matrix
from study_lib.runs.job import read_record
from study_lib.runs.plan import plan_jobs
from study_lib.runs.run import DESIGN_FILE, open_run
from study_lib.system import LIBRARY, THREADS, keep_freed_memory, private_cache

RUNS_MAX = 3
JOBS_MIN = 12
CACHE_FILE = "speed.json"
FRESH_S = 7 * 24 * 3600
REFERENCE_S = {"float32": 0.092, "bfloat16": 0.067}  # of the measurement's rounds
MEASUREMENT_LIMIT_S = 60
ROUNDS = 5


@dataclass(frozen=True)
class Speed:
    """Seconds of this machine for one of the reference machine, by notebook, and what says so."""

    factors: Mapping[str, float]
    other: float
    basis: str

    def of(self, notebook: str) -> float:
        """Return the factor of a notebook's jobs."""
        return self.factors.get(notebook, self.other)


def speed_of(reports: Path, precision: str, at_once: int) -> Speed:
    """Return how fast this machine is.

    Parameters
    ----------
    reports
        Folder of earlier runs; those of this machine are believed first.
    precision
        Of the convolutions that will be computed, as in the design.
    at_once
        Jobs at the same time, which share the processor.
    """
    return _from_earlier(reports) or _measured_once(precision, at_once)


def measured_factor(precision: Literal["float32", "bfloat16", "auto"]) -> float:
    """Return the processor seconds of some transforms and convolutions, over the reference's.

    In one thread, in the type that ``precision`` means on this machine.
    """
    import torch

    from study_lib.networks.machine import device_of, half_precision_on

    torch.set_num_threads(1)
    keep_freed_memory()  # as in a job
    chosen = "bfloat16" if half_precision_on(device_of("cpu"), precision) else "float32"
    waves = torch.randn(64, 64, 64, dtype=torch.complex64)
    images = torch.randn(8, 32, 64, 64).to(getattr(torch, chosen))
    layer = torch.nn.Conv2d(32, 32, 3, padding=1).to(images.dtype)
    found = []
    for _ in range(ROUNDS):
        started = time.process_time()
        for _ in range(20):
            torch.fft.ifft2(torch.fft.fft2(waves) * waves)
        for _ in range(5):
            layer(images).square().mean().backward()
        found.append(time.process_time() - started)
    return sorted(found)[ROUNDS // 2] / REFERENCE_S[chosen]


def _from_earlier(reports: Path) -> Speed | None:
    """Return what the newest runs of this machine took, by notebook; None without enough jobs."""
    newest = sorted(
        reports.glob(f"*/{DESIGN_FILE}"), key=lambda path: path.stat().st_mtime, reverse=True
    )
    taken: dict[str, float] = defaultdict(float)
    expected: dict[str, float] = defaultdict(float)
    jobs = runs = 0
    for path in newest:
        before = jobs
        for notebook, wall_s, cost_s in _jobs_of(path.parent):
            taken[notebook] += wall_s
            expected[notebook] += cost_s
            jobs += 1
        runs += jobs > before
        if runs == RUNS_MAX:
            break
    if jobs < JOBS_MIN:
        return None
    factors = {name: taken[name] / expected[name] for name in taken}
    other = sum(taken.values()) / sum(expected.values())
    return Speed(factors, other, f"from {jobs} earlier jobs on this machine")


def _jobs_of(folder: Path) -> Iterator[tuple[str, float, float]]:
    """Yield notebook, seconds taken and reference seconds of each job that this machine did."""
    try:
        run = open_run(folder)
        done = [
            (job.name, job.notebook, record)
            for job in plan_jobs(run.design)
            if (record := read_record(folder / job.done)) and _is_of_this_machine(record)
        ]
        costs_s = {}
        if done:
            derived = derived_matrix(run.design, scene_of(run.design, run.base_npz))
            costs_s = derived["estimated_job_cpu_s"]
    except (StudyError, OSError, KeyError):  # a run of another version says nothing
        return
    for name, notebook, record in done:
        wall_s = record.get("wall_s")
        if isinstance(wall_s, int | float) and wall_s > 0:
            yield notebook, float(wall_s), costs_s[name]


def _is_of_this_machine(record: Mapping[str, object]) -> bool:
    machine = record.get("machine")
    found = machine if isinstance(machine, dict) else {}
    own = (os.cpu_count(), platform.machine(), platform.platform())
    return (found.get("cores"), found.get("processor"), found.get("system")) == own


def _measured_once(precision: str, at_once: int) -> Speed:
    """Return what a measurement says, of this week if there is one in the private cache."""
    at_once = max(1, min(at_once, os.cpu_count() or 1))
    place = f"{platform.node()} {platform.platform()} {os.cpu_count()} {precision} {at_once}"
    key = hashlib.sha256(place.encode()).hexdigest()[:16]
    cache = private_cache() / CACHE_FILE
    kept: Any = {}
    try:
        kept = read_json(cache) if cache.is_file() else {}
        found = float(kept[key]["factor"])
        if not 0 <= time.time() - kept[key]["at"] < FRESH_S:
            raise KeyError(key)
        return _speed(found, "from a measurement kept for this machine, if nothing else runs")
    except (StudyError, KeyError, TypeError, ValueError):
        kept = kept if isinstance(kept, dict) else {}
    started = time.monotonic()
    code = (
        f"from study_lib.runs.speed import measured_factor; print(measured_factor({precision!r}))"
    )
    environment = os.environ | dict.fromkeys(THREADS, "1") | {"PYTHONPATH": str(LIBRARY.parent)}
    command = [sys.executable, "-P", "-c", code]
    processes = [
        subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, text=True)
        for _ in range(at_once)
    ]
    try:
        factor = max(float(one.communicate(timeout=MEASUREMENT_LIMIT_S)[0]) for one in processes)
    except (ValueError, subprocess.TimeoutExpired):
        for one in processes:
            one.kill()
        return _speed(1.0, "from no measurement of this machine, which failed")
    with suppress(OSError):  # read-only: measured again next time
        write_json(cache, {key: {"factor": factor, "at": time.time()}})
    took_s = time.monotonic() - started
    return _speed(factor, f"from a {took_s:.0f} s measurement, if nothing else runs")


def _speed(factor: float, basis: str) -> Speed:
    return Speed({}, factor, basis)
