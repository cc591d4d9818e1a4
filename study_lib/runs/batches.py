"""Which jobs share a process and a kernel, because starting one would cost as much as its work."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from study_lib.runs.job_resources import JobResources
from study_lib.runs.plan import PlannedJob

SHORT_MIN = 30  # asked for, which is several times what is expected: a long job has its own kernel
TOGETHER = {
    "02_overlap": ("dose",),
    "04_reconstruct": ("dose", "view"),
    "05_compare": ("dose", "view"),
}


@dataclass(frozen=True)
class Batch:
    """Jobs that one process executes in turn, and what they need together."""

    jobs: tuple[PlannedJob, ...]
    need: JobResources

    @property
    def name(self) -> str:
        """The first job's name, and how many follow it."""
        more = len(self.jobs) - 1
        return self.jobs[0].name + (f"__and_{more}_more" if more else "")

    @property
    def after(self) -> list[str]:
        """Names of the jobs that all of it waits for."""
        return list(dict.fromkeys(name for job in self.jobs for name in job.after))


def batches(jobs: Sequence[PlannedJob], needs: Mapping[str, JobResources]) -> list[Batch]:
    """Return the jobs in batches, in their order: all views of a dose, both splits of a view.

    Long jobs stay alone: there a kernel's start is nothing, and they can run beside one another.

    Parameters
    ----------
    jobs
        The plan.
    needs
        From :func:`study_lib.runs.job_resources.read_resources` with the same jobs.
    """
    groups: dict[tuple[object, ...], list[PlannedJob]] = {}
    for job in jobs:
        is_short = needs[job.name].runtime_min <= SHORT_MIN and not needs[job.name].gpus
        axes = TOGETHER.get(job.notebook, ()) if is_short else ()
        values = tuple(job.parameters[axis] for axis in axes)
        key = (job.notebook, job.parameters["run_folder"], *values) if values else (job.name,)
        groups.setdefault(key, []).append(job)
    return [Batch(tuple(group), _together(group, needs)) for group in groups.values()]


def _together(jobs: Sequence[PlannedJob], needs: Mapping[str, JobResources]) -> JobResources:
    """Return what jobs need that run in turn."""
    each = [needs[job.name] for job in jobs]
    return JobResources(
        threads=max(need.threads for need in each),
        mem_mb=max(need.mem_mb for need in each),
        runtime_min=sum(need.runtime_min for need in each),
        gpus=max(need.gpus for need in each),
    )
