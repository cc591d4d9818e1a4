"""What a notebook has to leave before its job counts as done: files, figures and metrics."""

import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import nbformat

from study_lib.errors import LastingError
from study_lib.files import read_json
from study_lib.runs.plan import PlannedJob


def check_evidence(run_folder: Path, job: PlannedJob, executed: nbformat.NotebookNode) -> None:
    """Check that a notebook which ran to its end has left all that its job promises.

    Raises
    ------
    LastingError
        If a file is missing, figures are too few, or a metric is absent or not a finite number.
    """
    missing = [path for path in job.outputs if not (run_folder / path).is_file()]
    if missing:
        raise LastingError(f"{job.name}: ran to its end but did not write {', '.join(missing)}")
    figures = sum(
        "image/png" in output.get("data", {})
        for cell in executed.cells
        if cell.cell_type == "code"
        for output in cell.outputs
    )
    if figures < job.figures:
        raise LastingError(
            f"{job.name}: ran to its end with {figures} figures, needs {job.figures}"
        )
    for path, names in job.metrics.items():
        content = read_json(run_folder / path)
        for name in names:
            values = list(_values_of(content, name))
            if not values or not all(_is_finite(value) for value in values):
                found = f"holds {values[:3]}" if values else "is missing"
                raise LastingError(
                    f"{job.name}: ran to its end but {name} in {path} {found}; it has to be a "
                    "finite number"
                )


def _values_of(content: Any, name: str) -> Iterator[Any]:
    """Yield every value with a name, at any depth; those of a list one by one.

    Mappings and texts under that name describe the metric or its figure.
    """
    if isinstance(content, list):
        for part in content:
            yield from _values_of(part, name)
    elif isinstance(content, dict):
        for key, value in content.items():
            if key == name:
                values = value if isinstance(value, list) else [value]
                yield from (one for one in values if not isinstance(one, dict | str))
            else:
                yield from _values_of(value, name)


def _is_finite(value: Any) -> bool:
    is_number = isinstance(value, int | float) and not isinstance(value, bool)
    return is_number and math.isfinite(value)
