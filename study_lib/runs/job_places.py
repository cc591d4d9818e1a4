"""Which job a file of a run belongs to."""

from collections.abc import Mapping, Sequence
from pathlib import PurePosixPath

from study_lib.runs.plan import PlannedJob


def owned_places(jobs: Sequence[PlannedJob]) -> dict[PurePosixPath, PlannedJob]:
    """Return the jobs of a plan by what is theirs alone: folder, executed notebook, record."""
    return {
        place: job
        for job in jobs
        for place in (
            PurePosixPath(job.folder),
            PurePosixPath(job.executed),
            PurePosixPath(job.done).parent,
        )
    }


def job_owning(place: str, owned: Mapping[PurePosixPath, PlannedJob]) -> PlannedJob | None:
    """Return the job that a file or folder of a run belongs to: the one with the nearest place.

    What several jobs write, or none, is nobody's: the manifests of phases, designs, the plan, the
    report.

    Parameters
    ----------
    place
        Relative to the run's folder.
    owned
        From :func:`owned_places`.
    """
    path = PurePosixPath(place)
    return next((owned[one] for one in (path, *path.parents) if one in owned), None)
