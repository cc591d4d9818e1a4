"""Whether this machine has room for a run: memory and disk alone bound its number of conditions."""

import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from study_lib.design.axes import SPLITS
from study_lib.design.models import StudyDesign
from study_lib.errors import InputError
from study_lib.phases.scene import Scene
from study_lib.runs.plan import PlannedJob
from study_lib.runs.resources import expected_mb
from study_lib.system import memory_bytes

JOB_BYTES = 2500  # a planned job with its cost and what it asks for; 2200 measured
JOB_DISK_BYTES = 1_000_000  # its executed notebook and page in the smallest preset, figures and all


def job_count(design: StudyDesign) -> int:
    """Return how many jobs :func:`study_lib.runs.plan.plan_jobs` makes, without making them."""
    thinned = 0 if design.thinned is None else len(design.thinned.taught_by)
    networks = (design.training is not None) + thinned
    trained = min(design.trained_replicates or design.replicates, design.replicates)
    datasets = design.replicates * (len(design.doses) + design.is_measured)
    objects = len(SPLITS) + len(design.compared_splits)
    of_a_condition = design.replicates * (1 + objects) + trained * networks
    once = datasets + of_a_condition * design.condition_count
    return 2 + (1 + _levels(design)) * once


def data_bytes(design: StudyDesign, scene: Scene) -> int:
    """Return at most about how many bytes the patterns of a run take on disk.

    Amplitudes of the splits and of every view with a file of its own; complex true patches.
    """
    patterns = sum(int(mask.sum()) for mask in scene.splits.values())
    own_files = sum(not view.is_whole for dose in design.doses for view in design.views_at(dose))
    pixel_bytes = (4 + 8 * design.object_patches) * len(design.doses) + 4 * own_files
    if design.is_measured:  # the photons of arms, reference and judge, as whole numbers
        pixel_bytes += 3 * 2
    times = design.replicates * (1 + _levels(design))
    return pixel_bytes * design.patch_size_px**2 * patterns * times


def check_count(design: StudyDesign) -> None:
    """Check that the plan of a design fits into memory.

    Raises
    ------
    InputError
        If it does not.
    """
    needed, memory = JOB_BYTES * job_count(design), memory_bytes()
    if needed > memory:
        raise InputError(
            f"{_conditions(design)}; their plan takes {_size(needed)} of memory, this process may "
            f"use {_size(memory)}; lower replicates or the number of doses"
        )


def check_disk(design: StudyDesign, scene: Scene, folder: Path) -> None:
    """Check that the disk holds the patterns, notebooks and pages of a run that is new.

    Parameters
    ----------
    design, scene
        What is run.
    folder
        Of the run; one that exists holds some of them already, and is not checked.

    Raises
    ------
    InputError
        If it has no room for them.
    """
    if folder.exists():
        return
    needed = data_bytes(design, scene) + JOB_DISK_BYTES * job_count(design)
    place = next(path for path in folder.resolve().parents if path.is_dir())
    free = shutil.disk_usage(place).free
    if needed > free:
        raise InputError(
            f"{_conditions(design)}; they write about {_size(needed)}, {place} has {_size(free)} "
            "left; lower replicates, the number of doses or the scan, or give --reports a folder "
            "on a larger disk"
        )


def check_memory(
    design: StudyDesign,
    views: Sequence[Mapping[str, Any]],
    jobs: Sequence[PlannedJob],
    modes: int,
) -> None:
    """Check that this machine's memory holds the largest job of a plan.

    ``views`` has a row for each view and split, with its patterns and groups; ``modes`` are those
    of the probe.

    Raises
    ------
    InputError
        If it does not.
    """
    sizes = {(row["view"], row["split"]): (row["patterns"], row["groups"]) for row in views}
    needs = {job.name: expected_mb(design, sizes, job, modes) for job in jobs}
    largest, memory = max(needs, key=lambda name: needs[name]), memory_bytes()
    needed = int(needs[largest] * 2**20)
    if needed > memory:
        raise InputError(
            f"{largest}: takes about {_size(needed)} of memory, this process may use "
            f"{_size(memory)}; lower the scan, patch_size_px, training.batch_size or "
            "training.filters_scale, or run it on a cluster with --profile"
        )


def _conditions(design: StudyDesign) -> str:
    counts: tuple[int, ...] = (design.replicates, len(design.doses), len(design.views))
    names: tuple[str, ...] = ("replicates", "doses", "views")
    if design.points:
        counts, names = (design.replicates, len(design.points)), ("replicates", "points")
    product = ", ".join(f"{name} {count}" for count, name in zip(counts, names, strict=True))
    levels = _levels(design)
    times = f", {1 + levels} times for the mismatch" if levels else ""
    return f"{product}{times}: {job_count(design)} jobs"


def _levels(design: StudyDesign) -> int:
    """Return how many values of a mismatch are listed; ``design.levels`` builds their designs."""
    return sum(map(len, design.mismatch.lists.values()))


def _size(number: int) -> str:
    """Return bytes as GiB in a few digits, whatever their number."""
    return f"{number / 2**30:.3g} GiB" if number < 2**90 else "over 1e+15 GiB"
