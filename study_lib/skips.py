"""Conditions that a batch leaves out because their files are missing, and the record of them."""

from collections.abc import Collection
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from study_lib.errors import InputError
from study_lib.files import write_json

SKIP_SUMMARY = "skip_summary.json"


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


def write_skip_summary(artifact_root: Path, skipped: Collection[SkippedView]) -> dict[str, Any]:
    """Write and return which views are skipped; also when there is none."""
    summary = {
        "skipped_count": len(skipped),
        "skipped_views": [asdict(view) for view in skipped],
    }
    write_json(artifact_root / SKIP_SUMMARY, summary)
    return summary
