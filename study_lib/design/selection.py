"""Which jobs a phase command is about: the design of its data, and the filters of the call."""

import itertools
from collections.abc import Collection, Sequence
from pathlib import Path
from typing import Any

from study_lib.design.models import SPLITS, StudyDesign
from study_lib.design.presets import parse_design
from study_lib.errors import InputError
from study_lib.files import read_json


def design_of(phase_c_root: Path) -> StudyDesign:
    """Return the design that the datasets were generated with."""
    path = phase_c_root / "design.json"
    return parse_design(read_json(path), str(path))


def overlap_design(
    study: StudyDesign,
    *,
    views: Collection[str],
    s_img: float | None,
    n_groups: int | None,
    neighbor_count: int | None,
    subsampling_seed: int | None,
) -> StudyDesign:
    """Return the design with what a call of `study overlap` changes in it; None changes nothing.

    Raises
    ------
    InputError
        If a value, or its use in one of the views, breaks a rule of the design.
    """
    if "baseline" in views and (s_img, n_groups) != (None, None):
        raise InputError(
            "baseline is every pattern by itself and takes no --s-img or --n-groups; choose other "
            "views with --view, or with --gridsize 2"
        )
    content = study.model_dump(mode="json")
    changes: dict[str, Any] = {}
    if s_img is not None:
        changes |= {"s_img": s_img, "target_overlap": None}
    if n_groups is not None:
        changes["n_groups"] = n_groups
    content["views"] = [
        view | changes if view["name"] in views else view for view in content["views"]
    ]
    if neighbor_count is not None:
        content["neighbor_count"] = neighbor_count
    if subsampling_seed is not None:
        content["seeds"]["subsampling"] = subsampling_seed
    return parse_design(content, "study overlap")


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
