"""What each job of a plan asks a cluster for: threads, memory, minutes, GPUs."""

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from pydantic import Field, ValidationError

from study_lib.design.models import SPLITS, StudyDesign
from study_lib.design.settings import Frozen, describe_faults
from study_lib.errors import InputError
from study_lib.files import read_json, write_json
from study_lib.runs.plan import PlannedJob
from study_lib.runs.resources import Sizes

RESOURCES_FILE = "resources.json"
START_MIN = 10  # imports from a slow shared folder, twice the engine, a kernel
COST_MARGIN = {"03_train": 8.0}  # networks of the user's own may be slower
COST_MARGIN_ELSE = 5.0
# Largest resident kernels of the presets smoke and laptop, whose data differ twentyfold in size.
START_MB = {
    "01_dataset": 350,
    "03_train": 520,
    "03_train_thinned": 520,
    "04_reconstruct": 600,
    "05_compare": 420,
    "06_summary": 250,
}
START_MB_ELSE = 200
BYTES_PER_PIXEL = {"01_dataset": 10, "02_overlap": 10, "03_train": 20, "03_train_thinned": 80}
BYTES_PER_PIXEL_ELSE = 65
BYTES_PER_BATCH_PIXEL = 2000
MEMORY_MARGIN = 2.0
ENGINE_MB = 1000  # beside the kernel: the job itself and the engine's two processes on the node


class JobResources(Frozen):
    """What a job may use; a scheduler ends it beyond that."""

    threads: int = Field(default=1, ge=1)
    mem_mb: int = Field(default=4000, ge=1)
    runtime_min: int = Field(default=120, ge=1)
    gpus: int = Field(default=0, ge=0)


def resources_of(
    design: StudyDesign,
    sizes: Sizes,
    jobs: Sequence[PlannedJob],
    costs_s: Mapping[str, float],
) -> dict[str, JobResources]:
    """Return what each job asks for, by name: a multiple of what it is expected to need.

    Parameters
    ----------
    design
        The design.
    sizes
        (patterns, groups) of each (view, split).
    jobs
        From :func:`study_lib.runs.plan.plan_jobs` with the same design.
    costs_s
        From :func:`study_lib.runs.resources.job_costs` with the same jobs.
    """
    return {
        job.name: JobResources(
            mem_mb=_memory_mb(design, sizes, job),
            runtime_min=START_MIN
            + math.ceil(costs_s[job.name] / 60 * COST_MARGIN.get(job.notebook, COST_MARGIN_ELSE)),
        )
        for job in jobs
    }


def _memory_mb(design: StudyDesign, sizes: Sizes, job: PlannedJob) -> int:
    """Return the memory of a job, in steps of 500 MB; every pattern of its view may be held."""
    pixels = design.patch_size_px**2
    view = job.parameters.get("view")
    names = [str(view)] if view else [one.name for one in design.views]
    patterns = max(sum(sizes[name, split][0] for split in SPLITS) for name in names)
    held = 0.0
    if job.notebook not in ("00_design", "06_summary"):
        held = BYTES_PER_PIXEL.get(job.notebook, BYTES_PER_PIXEL_ELSE) * pixels * patterns
    if job.notebook == "03_train":
        training = design.training
        shown = training.batch_size * design.view(str(view)).gridsize ** 2 * pixels
        held += BYTES_PER_BATCH_PIXEL * training.filters_scale * shown
    expected_mb = START_MB.get(job.notebook, START_MB_ELSE) + held / 2**20
    return 500 * math.ceil((ENGINE_MB + MEMORY_MARGIN * expected_mb) / 500)


def write_resources(run_folder: Path, resources: Mapping[str, Mapping[str, int]]) -> None:
    """Write what the jobs of a run ask for, where the workflow reads it and a user may edit it."""
    write_json(run_folder / RESOURCES_FILE, resources)


def read_resources(run_folder: Path, jobs: Sequence[PlannedJob]) -> dict[str, JobResources]:
    """Return what each job of a run asks for, by name; the defaults where nobody has written it.

    Raises
    ------
    InputError
        If the file cannot be read, or a value in it is wrong; it names file, job and value.
    """
    path = run_folder / RESOURCES_FILE
    content = read_json(path) if path.is_file() else {}
    return {job.name: _resources_in(content, job.name, path) for job in jobs}


def _resources_in(content: Any, name: str, path: Path) -> JobResources:
    remedy = f"correct {path} or remove it, `study run` writes it again"
    asked = content.get(name, {}) if isinstance(content, dict) else content
    if not isinstance(asked, dict):
        raise InputError(f"{path}: {name}: found {asked!r}, no table of resources; {remedy}")
    try:
        return JobResources.model_validate(asked)
    except ValidationError as error:
        faults = describe_faults(error, f"{path}: {name}", JobResources)
        raise InputError(f"{faults}; {remedy}") from None
