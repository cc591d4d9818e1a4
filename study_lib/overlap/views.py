"""An overlap view of one split: the patterns it keeps, their groups, and how much they overlap."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from jaxtyping import Complex, Float, Int
from pydantic import ConfigDict, Field, ValidationError

from study_lib.design.axes import ViewDesign
from study_lib.design.models import StudyDesign
from study_lib.design.settings import Frozen, describe_faults
from study_lib.errors import InputError
from study_lib.overlap.metrics import (
    METRICS_VERSION,
    check_positions,
    group_overlap,
    group_to_group_overlap,
    image_overlap,
    require_distinct,
)
from study_lib.overlap.sampling import form_groups, keep_for_target, keep_number, number_at_step
from study_lib.physics.probe import probe_diameter_px, probe_fwhm_px
from study_lib.seeding import generator

TARGET_TOLERANCE = 0.02
SELECTION_STEP = "select and group"


@dataclass(frozen=True)
class ViewMetrics:
    """Measured overlap of one view and split; `metrics_version` 1.0 of the original study.

    Metric 1 is the mean disc overlap inside groups (none for gridsize 1), metric 2 that of each
    pattern with its K nearest others, metric 3 that of each group's centre with the centres of
    other groups nearer than the probe diameter, of which there are ``groups_near_mean``; all of
    the patterns and groups in the view's file. Metric 3 is about 1/4 whatever the density.
    ``overlap_sparsest`` and ``overlap_densest`` are the metric 2 that this scan allows.
    ``images_subsampled`` are kept by `s_img`, ``images_used`` those of them that are in a group.
    """

    metrics_version: str
    gridsize: int
    neighbor_count: int
    probe_diameter_px: float
    probe_diameter_definition: str
    probe_fwhm_px: float
    target_overlap: float | None
    target_reached: bool
    overlap_sparsest: float
    overlap_densest: float
    selection: str
    s_img: float
    images_total: int
    images_subsampled: int
    images_used: int
    group_count: int
    metric_1_group: float | None
    metric_2_image: float
    metric_3_group_to_group: float
    groups_near_mean: float


@dataclass(frozen=True)
class View:
    """Which patterns of a split a view has: ``kept`` (used,) sorted; ``groups`` index these."""

    kept: Int[np.ndarray, " used"]
    groups: Int[np.ndarray, "group c"]
    metrics: ViewMetrics


def view_of(
    positions_px: Float[np.ndarray, "scan 2"],
    probe: Complex[np.ndarray, "*modes n n"],
    view: ViewDesign,
    split: str,
    design: StudyDesign,
    *,
    diameter_px: float | None = None,
) -> View:
    """Return a view of one split; the same for every dose.

    Patterns that are in no group, where fewer groups than patterns are asked for, are not kept:
    every arm gets the same ones.

    Parameters
    ----------
    positions_px : (scan, 2)
        (row, column) of all patterns of the split.
    probe : (n, n) or (modes, n, n)
        Its diameter measures overlap, unless one is given.
    view, split, design
        What is wanted, for which split, with which K and seeds.
    diameter_px
        In place of the probe's own.

    Raises
    ------
    InputError
        If the split has too few positions for K neighbours or for the groups asked for, or two at
        one place.
    """
    share = design.probe_power_share
    diameter, definition = diameter_px, "given"
    if diameter is None:
        diameter = probe_diameter_px(probe, share)
        definition = f"disc as large as the brightest pixels with {share:g} of the power"
    neighbor_count = design.neighbor_count
    choice: dict[str, Any] = {
        "selection": view.selection,
        "neighbor_count": neighbor_count,
        "diameter_px": diameter,
        "random": generator(design.noise_seeds.subsampling, "subsample", view.name, split),
    }
    try:
        check_positions(positions_px)
        require_distinct(positions_px)
        if view.target_overlap is None:
            number = _number_kept(positions_px, view, diameter)
            chosen = keep_number(positions_px, number=number, **choice)
        else:
            chosen = keep_for_target(positions_px, target_overlap=view.target_overlap, **choice)
        groups = form_groups(
            positions_px[chosen.indices],
            gridsize=view.gridsize,
            neighbor_count=neighbor_count,
            random=generator(design.noise_seeds.grouping, "groups", view.name, split),
            group_count=view.n_groups or view.groups_per_pattern * len(chosen.indices),
            oversampling=view.oversampling or view.groups_per_pattern > 1,
        )
    except InputError as error:
        raise InputError(f"{split} split, view {view.name}: {error}") from None
    used, flat = np.unique(groups, return_inverse=True)
    kept, groups = chosen.indices[used], flat.reshape(groups.shape)
    positions = positions_px[kept]
    reached, target = image_overlap(positions, neighbor_count, diameter), view.target_overlap
    metric_3, groups_near = group_to_group_overlap(positions, groups, diameter)
    metrics = ViewMetrics(
        metrics_version=METRICS_VERSION,
        gridsize=view.gridsize,
        neighbor_count=neighbor_count,
        probe_diameter_px=diameter,
        probe_diameter_definition=definition,
        probe_fwhm_px=probe_fwhm_px(probe),
        target_overlap=target,
        target_reached=target is None or abs(reached - target) <= TARGET_TOLERANCE,
        overlap_sparsest=chosen.sparsest,
        overlap_densest=chosen.densest,
        selection=view.selection,
        s_img=len(chosen.indices) / len(positions_px),
        images_total=len(positions_px),
        images_subsampled=len(chosen.indices),
        images_used=len(kept),
        group_count=len(groups),
        metric_1_group=group_overlap(positions, groups, diameter),
        metric_2_image=reached,
        metric_3_group_to_group=metric_3,
        groups_near_mean=groups_near,
    )
    return View(kept, groups, metrics)


def _number_kept(
    positions_px: Float[np.ndarray, "scan 2"], view: ViewDesign, diameter_px: float
) -> int:
    """Return how many positions a view without a target keeps."""
    if view.number is not None:
        return view.number
    if view.s_img is not None:
        return round(view.s_img * len(positions_px))
    step_px = view.step_px
    if view.step_diameters is not None:
        step_px = view.step_diameters * diameter_px
    return len(positions_px) if step_px is None else number_at_step(positions_px, step_px)


def overlap_sentence(split: str, metrics: Mapping[str, Any]) -> str:
    """Return in words what was kept of a split, what overlap that gives, and whether it was meant.

    Parameters
    ----------
    split
        Its name.
    metrics
        The fields of :class:`ViewMetrics`.
    """
    overlap, target = metrics["metric_2_image"], metrics["target_overlap"]
    used, subsampled = metrics["images_used"], metrics["images_subsampled"]
    low, high = metrics["overlap_sparsest"], metrics["overlap_densest"]
    nearest = min(metrics["neighbor_count"], used - 1)
    text = (
        f"{split}: {used} of {metrics['images_total']} patterns in "
        f"{metrics['group_count']} groups; a probe disc of {metrics['probe_diameter_px']:.1f} px "
        f"shares {overlap:.1%} of its area with its {nearest} nearest "
        "on average (metric 2)"
    )
    if target is None:
        return text + "; no target"
    if metrics["target_reached"]:
        return text + f"; target {target:g} reached"
    text += f"; target {target:g} NOT reached: "
    if not low <= target <= high:
        return text + (
            f"this scan allows {low:.3f} to {high:.3f}; change the scan step or the target"
        )
    if used < subsampled:
        return text + (
            f"{subsampled} patterns were kept for it, of which n_groups uses {used}; raise n_groups"
        )
    return text + "one pattern more or less changes too much; enlarge the scan"


class ViewRecord(Frozen):
    """How the patterns of a view's file were chosen, grouped and measured: of it what decides."""

    model_config = ConfigDict(extra="ignore")

    neighbor_count: int = Field(ge=1)
    n_groups: int | None = Field(ge=1)
    probe_diameter_px: float = Field(gt=0)
    target_overlap: float | None


def view_record_of(metadata: Mapping[str, Any], source: str) -> ViewRecord | None:
    """Return how a view's file was made, from its metadata; None for a whole split.

    Raises
    ------
    InputError
        If the record is not one that ``study overlap`` writes; it names ``source``.
    """
    try:
        steps = [_Step.model_validate(step) for step in metadata.get("transformations", [])]
    except (TypeError, ValidationError):
        raise InputError(
            f"{source}: _metadata: transformations is no list of steps, each with an operation and "
            "its parameters; make the view again with `study overlap`"
        ) from None
    chosen = [step.parameters for step in steps if step.operation == SELECTION_STEP]
    if not chosen:
        return None
    try:
        return ViewRecord.model_validate(chosen[-1])
    except ValidationError as error:
        place = f"{source}: _metadata: {SELECTION_STEP}"
        raise InputError(describe_faults(error, place, ViewRecord)) from None


class _Step(Frozen):
    model_config = ConfigDict(extra="ignore")

    operation: str
    parameters: dict[str, Any]
