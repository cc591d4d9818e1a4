"""Conditions that a batch leaves out because their files are missing, and the record of them."""

from collections.abc import Callable, Collection, Iterable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, TypeVar

from study_lib.design.models import StudyDesign, ViewDesign
from study_lib.errors import InputError
from study_lib.files import write_json

SKIP_SUMMARY = "skip_summary.json"
JobT = TypeVar("JobT")


@dataclass(frozen=True)
class SkippedView:
    """A condition that is left out, and why."""

    dose: float
    view: str
    reason: str


def require_data(path: Path, dose: float, view: str) -> None:
    """Check that a view's file is there.

    Raises
    ------
    InputError
        If it is missing; names the command that makes it.
    """
    if not path.is_file():
        command = "generate" if view == "baseline" else "overlap"
        raise InputError(
            f"{path}: no such file; make it with `study {command}` for dose {dose:g}"
            + ("" if view == "baseline" else f" and view {view}")
        )


def jobs_by_view(
    design: StudyDesign,
    jobs_of: Callable[[float, ViewDesign], Iterable[JobT]],
    *,
    doses: Collection[float] | None,
    views: Collection[str] | None,
    allow_missing: bool,
) -> tuple[list[JobT], list[SkippedView]]:
    """Return the jobs of every condition, dose by dose in the order of the views, and the skipped.

    Parameters
    ----------
    design
        Its doses and views.
    jobs_of
        Returns the jobs of one condition; raises an InputError if a file of it is missing.
    doses, views
        Only these; None: all.
    allow_missing
        Whether a view without its files is skipped; the baseline never is.

    Raises
    ------
    InputError
        If files are missing that may not be.
    """
    jobs: list[JobT] = []
    skipped: list[SkippedView] = []
    for dose in design.doses if doses is None else doses:
        for view in design.views:
            if views is not None and view.name not in views:
                continue
            try:
                jobs += jobs_of(dose, view)
            except InputError as error:
                if view.name == "baseline" or not allow_missing:
                    raise
                skipped.append(SkippedView(dose, view.name, str(error)))
    return jobs, skipped


def write_skip_summary(artifact_root: Path, skipped: Collection[SkippedView]) -> dict[str, Any]:
    """Write and return which views are skipped; also when there is none."""
    summary = {
        "skipped_count": len(skipped),
        "skipped_views": [asdict(view) for view in skipped],
    }
    write_json(artifact_root / SKIP_SUMMARY, summary)
    return summary
