"""Which jobs a phase command is about: the design of its data, and the filters of the call."""

import itertools
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from study_lib.design import SPLITS, StudyDesign
from study_lib.errors import InputError
from study_lib.files import read_json
from study_lib.presets import parse_design


def design_of(phase_c_root: Path) -> StudyDesign:
    """Return the design that the datasets were generated with."""
    path = phase_c_root / "design.json"
    return parse_design(read_json(path), str(path))


def chosen(
    study: StudyDesign,
    *,
    dose: float | None = None,
    view: str | None = None,
    gridsize: int | None = None,
    split: str | None = None,
    axes: Sequence[str] = ("dose", "view"),
) -> list[dict[str, Any]]:
    """Return the jobs that the filters leave.

    Raises
    ------
    InputError
        If a filter names something that the design does not have, or no job is left.
    """
    doses = [study.require_dose(dose)] if dose is not None else list(study.doses)
    views = [study.view(view)] if view is not None else list(study.views)
    if split is not None and split not in SPLITS:
        raise InputError(f"split {split!r} does not exist; choose one of {', '.join(SPLITS)}")
    names = [entry.name for entry in views if gridsize in (None, entry.gridsize)]
    if not names:
        known = ", ".join(f"{entry.name} (gridsize {entry.gridsize})" for entry in study.views)
        raise InputError(f"no job matches view {view} with gridsize {gridsize}; known: {known}")
    values: dict[str, list[Any]] = {
        "dose": doses,
        "view": names,
        "split": [split] if split else list(SPLITS),
    }
    combinations = itertools.product(*(values[axis] for axis in axes))
    return [dict(zip(axes, combination, strict=True)) for combination in combinations]
