"""What follows from a design before its first file: sizes, cost, and whether it can be run."""

from collections import Counter
from dataclasses import dataclass
from typing import Any

import numpy as np

from study_lib.design.models import SPLITS, StudyDesign
from study_lib.errors import InputError
from study_lib.networks.registry import require_network
from study_lib.overlap.metrics import legacy_spacing_px
from study_lib.overlap.views import view_of
from study_lib.phases.scene import Scene
from study_lib.physics.probe import probe_diameter_px
from study_lib.runs.plan import plan_jobs
from study_lib.runs.resources import job_costs, resources_of
from study_lib.scores.metrics import SMALLEST_RANGE, SSIM_WINDOW_PX

# --- Sizes, overlaps, jobs, cost


@dataclass(frozen=True)
class ViewRow:
    """One view of one split, as every dose has it."""

    view: str
    split: str
    gridsize: int
    target_overlap: float | None
    overlap: float
    target_reached: bool
    s_img: float
    patterns: int
    groups: int
    spacing_threshold_px: float | None


def derived_matrix(design: StudyDesign, scene: Scene) -> dict[str, Any]:
    """Return everything that a design implies, as plain data.

    Parameters
    ----------
    design
        The design.
    scene
        Its object, probe and positions.

    Raises
    ------
    InputError
        If a split has too few positions.
    """
    masks = scene.splits
    rows = [
        _view_row(design, scene, masks[split], view.name, split)
        for view in design.views
        for split in SPLITS
    ]
    jobs = plan_jobs(design)
    sizes = {(row.view, row.split): (row.patterns, row.groups) for row in rows}
    costs_s = job_costs(design, sizes, jobs)
    patterns = {split: int(mask.sum()) for split, mask in masks.items()}
    pixels = design.patch_size_px**2
    datasets = len(design.doses) * design.replicates
    # Amplitudes of the splits and, once more, of the views; complex true patches of the splits.
    pixel_bytes = 4 + 4 + 8 * design.object_patches
    return {
        "preset": design.preset,
        "digest": design.digest,
        "patch_size_px": design.patch_size_px,
        "object_shape_px": list(scene.object_.shape),
        "probe_diameter_px": probe_diameter_px(scene.probe, design.probe_power_share),
        "guard_band_px": design.guard_band_px,
        "positions": patterns | {"guard_band": len(scene.positions_px) - sum(patterns.values())},
        "seeds": design.noise_seeds.model_dump(),
        "doses": [
            {"photons_per_pattern": dose, "counts_per_pixel": dose / pixels}
            for dose in design.doses
        ],
        "views": [vars(row) for row in rows],
        "jobs": dict(Counter(job.notebook for job in jobs)),
        "estimated_cpu_minutes": sum(costs_s.values()) / 60,
        "estimated_job_cpu_s": costs_s,
        "job_resources": {
            name: one.model_dump()
            for name, one in resources_of(design, sizes, jobs, costs_s).items()
        },
        "estimated_disk_gb": 1e-9 * pixel_bytes * pixels * sum(patterns.values()) * datasets,
    }


def _view_row(
    design: StudyDesign, scene: Scene, mask: np.ndarray, view_name: str, split: str
) -> ViewRow:
    view = design.view(view_name)
    metrics = view_of(scene.positions_px[mask], scene.probe, view, split, design).metrics
    target = view.target_overlap
    spacing = None if target is None else legacy_spacing_px(target, design.patch_size_px)
    return ViewRow(
        view=view.name,
        split=split,
        gridsize=view.gridsize,
        target_overlap=target,
        overlap=metrics.metric_2_image,
        target_reached=metrics.target_reached,
        s_img=metrics.s_img,
        patterns=metrics.images_used,
        groups=metrics.group_count,
        spacing_threshold_px=spacing,
    )


def table_text(derived: dict[str, Any]) -> str:
    """Return the matrix for reading in a terminal."""
    positions = derived["positions"]
    rows, columns = derived["object_shape_px"]
    lines = [
        f"preset {derived['preset']}, design {derived['digest']}",
        f"patch {derived['patch_size_px']} px, object {rows} x {columns} px, probe diameter "
        f"{derived['probe_diameter_px']:.1f} px",
        f"positions: {positions['train']} train, {positions['test']} test, "
        f"{positions['guard_band']} in the guard band of {derived['guard_band_px']} rows",
        "",
        "photons per pattern   counts per pixel",
        *(
            f"{dose['photons_per_pattern']:19.6g}   {dose['counts_per_pixel']:16.3g}"
            for dose in derived["doses"]
        ),
        "",
        "view      split  gridsize  target  overlap  s_img  patterns  groups  spacing [px]",
    ]
    for row in derived["views"]:
        target = "-" if row["target_overlap"] is None else f"{row['target_overlap']:.2f}"
        spacing = row["spacing_threshold_px"]
        reached = "" if row["target_reached"] else "   target not reached by this scan"
        lines.append(
            f"{row['view']:9} {row['split']:5}  {row['gridsize']:8}  {target:>6}  "
            f"{row['overlap']:7.3f}  {row['s_img']:5.3f}  {row['patterns']:8}  {row['groups']:6}  "
            f"{'-' if spacing is None else f'{spacing:.1f}':>12}{reached}"
        )
    minutes = derived["estimated_cpu_minutes"]
    jobs = derived["jobs"]
    lines += [
        "",
        f"{sum(jobs.values())} jobs: "
        + ", ".join(f"{count} {notebook}" for notebook, count in sorted(jobs.items())),
        f"roughly {minutes:.0f} processor minutes, {minutes / 2:.0f} minutes on two cores, "
        f"{derived['estimated_disk_gb']:.1f} GB of data",
        "spacing is the original study's (1 - target) N; it is reported and gates nothing",
    ]
    return "\n".join(lines)


# --- Whether it can be run at all


def check_network(design: StudyDesign) -> None:
    """Check that the design names a network that there is.

    Raises
    ------
    InputError
        If it does not.
    """
    try:
        require_network(design.training.network)
    except InputError as error:
        raise InputError(f"{design.preset}: training.network: {error}") from None


def check_feasible(design: StudyDesign, scene: Scene) -> None:
    """Check the network's name, and splits, groups and the scored field of every view.

    Raises
    ------
    InputError
        If there is no such network, a split is empty or has too few positions, or the field of a
        view is too small or has no phase contrast.
    """
    check_network(design)
    for split in SPLITS:
        positions = scene.positions_of(split)
        for view in design.views:
            kept = view_of(positions, scene.probe, view, split, design).kept
            first = np.ceil(positions[kept].min(axis=0)).astype(int)
            last = np.floor(positions[kept].max(axis=0)).astype(int) + 1
            rows, columns = (last - first).tolist()
            if min(rows, columns) < SSIM_WINDOW_PX:
                raise InputError(
                    f"the {split} positions of view {view.name} span {rows} x {columns} pixels; "
                    f"scores need at least {SSIM_WINDOW_PX}; enlarge the scan"
                )
            field = scene.object_[first[0] : last[0], first[1] : last[1]]
            if np.ptp(np.angle(field)) < SMALLEST_RANGE:
                raise InputError(
                    f"the object has one phase all over the {split} field; there is nothing to "
                    "compare; use an object with phase contrast"
                )
