"""What follows from a design before its first file: sizes, cost, and whether it can be run."""

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from jaxtyping import Int

from study_lib.design.axes import SPLITS
from study_lib.design.experiment import levels_text, mismatch_text
from study_lib.design.models import StudyDesign
from study_lib.errors import InputError
from study_lib.networks.registry import require_network
from study_lib.overlap.metrics import legacy_spacing_px, lit_area_px
from study_lib.overlap.views import ViewMetrics, view_of
from study_lib.phases.scene import Scene, require_room_for_defocus
from study_lib.physics.photons import SHARES
from study_lib.physics.probe import modes_of, power_of, probe_diameter_px
from study_lib.runs.plan import plan_jobs
from study_lib.runs.resources import job_costs, resources_of
from study_lib.runs.room import data_bytes
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
    photons_per_pattern: tuple[float, ...]  # at each dose that the view is computed at


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
    modes = len(modes_of(scene.probe))
    costs_s = job_costs(design, sizes, jobs, scene.object_.size, modes)
    patterns = {split: int(mask.sum()) for split, mask in masks.items()}
    return {
        "preset": design.preset,
        "digest": design.digest,
        "patch_size_px": design.patch_size_px,
        "object_shape_px": list(scene.object_.shape),
        "probe_diameter_px": probe_diameter_px(scene.probe, design.probe_power_share),
        "guard_band_px": design.guard_band_px,
        "positions": patterns | {"guard_band": len(scene.positions_px) - sum(patterns.values())},
        "seeds": design.noise_seeds.model_dump(),
        "dose_unit": design.dose_unit,
        "doses": _dose_rows(design, rows),
        "views": [vars(row) for row in rows],
        "jobs": dict(Counter(job.notebook for job in jobs)),
        "estimated_cpu_minutes": sum(costs_s.values()) / 60,
        "estimated_job_cpu_s": costs_s,
        "job_resources": {
            name: one.model_dump()
            for name, one in resources_of(design, sizes, jobs, costs_s, modes).items()
        },
        "estimated_disk_gb": 1e-9 * data_bytes(design, scene),
        **design.mismatch.columns,
        **({"mismatch_levels": levels_text(lists)} if (lists := design.mismatch.lists) else {}),
    }


def _dose_rows(design: StudyDesign, rows: Sequence[ViewRow]) -> list[dict[str, Any]]:
    """Return the photons of a pattern and the counts of a detector pixel, for each dose.

    For each view and split too, where their patterns share the photons of an area.
    """
    pixels = design.patch_size_px**2
    if design.dose_per == "pattern":
        return [
            {"photons_per_pattern": dose, "counts_per_pixel": dose / pixels}
            for dose in design.doses
        ]
    return [
        {
            "dose": dose,
            "view": row.view,
            "split": row.split,
            "photons_per_pattern": photons,
            "counts_per_pixel": photons / pixels,
        }
        for row in rows
        for dose, photons in zip(design.doses_of(row.view), row.photons_per_pattern, strict=True)
    ]


def _view_row(
    design: StudyDesign, scene: Scene, mask: np.ndarray, view_name: str, split: str
) -> ViewRow:
    view = design.view(view_name)
    positions = scene.positions_px[mask]
    metrics = view_of(positions, scene.probe, view, split, design).metrics
    lit_px = lit_area_px(positions, metrics.probe_diameter_px, scene.object_.shape)
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
        photons_per_pattern=tuple(
            design.photons_per_pattern(dose, lit_px, metrics.images_used)
            for dose in design.doses_of(view.name)
        ),
    )


def table_text(derived: dict[str, Any]) -> str:
    """Return the matrix for reading in a terminal."""
    positions = derived["positions"]
    rows, columns = derived["object_shape_px"]
    mismatch, levels = mismatch_text(derived), derived.get("mismatch_levels")
    width = max(len(row["view"]) for row in derived["views"])
    lines = [
        f"preset {derived['preset']}, design {derived['digest']}",
        f"patch {derived['patch_size_px']} px, object {rows} x {columns} px, probe diameter "
        f"{derived['probe_diameter_px']:.1f} px",
        f"positions: {positions['train']} train, {positions['test']} test, "
        f"{positions['guard_band']} in the guard band of {derived['guard_band_px']} rows",
        *([f"mismatch unknown to every arm: {mismatch}"] if mismatch else []),
        *([f"and again with each of these, one at a time: {levels}"] if levels else []),
        "",
        *_dose_lines(derived["doses"], derived["dose_unit"], width),
        "",
        f"{'view':{width}}  split  gridsize  target  overlap  s_img  patterns  groups  "
        "spacing [px]",
    ]
    for row in derived["views"]:
        target = "-" if row["target_overlap"] is None else f"{row['target_overlap']:.2f}"
        spacing = row["spacing_threshold_px"]
        reached = "" if row["target_reached"] else "   target not reached by this scan"
        lines.append(
            f"{row['view']:{width}}  {row['split']:5}  {row['gridsize']:8}  {target:>6}  "
            f"{row['overlap']:7.3f}  {row['s_img']:5.3f}  {row['patterns']:8}  {row['groups']:6}  "
            f"{'-' if spacing is None else f'{spacing:.1f}':>12}{reached}"
        )
    minutes = derived["estimated_cpu_minutes"]
    jobs = derived["jobs"]
    lines += [
        "",
        f"{sum(jobs.values())} jobs: "
        + ", ".join(f"{count} {notebook}" for notebook, count in sorted(jobs.items())),
        f"{minutes:.0f} processor minutes of the reference machine (`study plan` asks this one), "
        f"{derived['estimated_disk_gb']:.1f} GB of data",
        "spacing is the original study's (1 - target) N; it is reported and gates nothing",
    ]
    return "\n".join(lines)


def _dose_lines(doses: Sequence[dict[str, Any]], unit: str, width: int) -> list[str]:
    """Return the photons of each dose for reading; of each view too, where they differ."""
    if "view" not in doses[0]:
        numbers = (
            f"{one['photons_per_pattern']:19.6g}   {one['counts_per_pixel']:16.3g}" for one in doses
        )
        return ["photons per pattern   counts per pixel", *numbers]
    return [
        f"{'view':{width}}  split  {unit:>26}  photons per pattern  counts per pixel",
        *(
            f"{one['view']:{width}}  {one['split']:5}  {one['dose']:26.6g}  "
            f"{one['photons_per_pattern']:19.6g}  {one['counts_per_pixel']:16.3g}"
            for one in doses
        ),
    ]


# --- Whether it can be run at all

LIT_SHARE_MIN = 0.01
REACH = 0.03  # of overlap: a view is named and read for its target
PHOTONS_MIN = 100  # whose number is known to a tenth


def check_network(design: StudyDesign) -> None:
    """Check that the design names a network that there is.

    Raises
    ------
    InputError
        If it does not.
    """
    if design.training is None:
        return
    try:
        require_network(design.training.network)
    except InputError as error:
        raise InputError(f"{design.preset}: training.network: {error}") from None


def check_feasible(design: StudyDesign, scene: Scene) -> None:
    """Check the network's name, and splits, groups and the scored field of every view.

    Raises
    ------
    InputError
        If there is no such network, a split is empty or has too few positions, the field of a view
        is too small or has no phase contrast, its target is out of reach, its groups, its photons
        or a beamstop leave nothing to work with, or a probe out of focus leaves its patch.
    """
    check_network(design)
    require_room_for_defocus(design, scene.probe)
    _check_beamstop(design, scene)
    _check_measured(design, scene)
    for split in SPLITS:
        positions = scene.positions_of(split)
        for view in design.views:
            made = view_of(positions, scene.probe, view, split, design)
            kept = made.kept
            _check_target(design, made.metrics, view.name, split)
            lit_px = lit_area_px(positions, made.metrics.probe_diameter_px, scene.object_.shape)
            doses = design.doses_of(view.name)
            photons = [design.photons_per_pattern(one, lit_px, len(kept)) for one in doses]
            fault = design.fault_of_photons(min(photons), max(photons))
            if fault:
                raise InputError(f"view {view.name}, {split} split: {fault}")
            _check_photons(design, min(photons), len(kept), view.name, split)
            if split == "train":
                _check_groups(design, len(made.groups), view.name)
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


def _check_beamstop(design: StudyDesign, scene: Scene) -> None:
    """Refuse a beamstop that hides what the probe lights."""
    side, radius_px = design.patch_size_px, design.detector.beamstop_radius_px
    lit = power_of(np.fft.fftshift(np.fft.fft2(scene.probe), axes=(-2, -1)))
    offset_px = np.arange(side) - side // 2
    seen = np.hypot(offset_px[:, None], offset_px) >= radius_px
    share = float(lit[seen].sum() / lit.sum())
    if share < LIT_SHARE_MIN:
        raise InputError(
            f"detector.beamstop_radius_px = {radius_px:g} leaves {share:.2%} of the light that the "
            f"probe sends to the detector; at least {LIT_SHARE_MIN:.0%} is needed; lower it"
        )


def _check_measured(design: StudyDesign, scene: Scene) -> None:
    """Refuse doses of measured patterns that are more than the arms' share of the photons.

    Of the view that allows least of a dose, which is the largest one possible.
    """
    if scene.photons is None:
        return
    found = []
    for view, split, kept in _measured_parts(design, scene):
        places = scene.positions_of(split)
        held = float(scene.photons[scene.splits[split]][kept].mean())
        where = f"view {view}, {split} split"
        doses = design.doses_of(view)
        if design.dose_per == "pattern":  # the mean over both splits
            both = scene.splits["train"] | scene.splits["test"]
            held, where, doses = float(scene.photons[both].mean()), "both splits", design.doses
        diameter_px = probe_diameter_px(scene.probe, design.probe_power_share)
        lit_px = lit_area_px(places, diameter_px, scene.object_.shape)
        asked = design.photons_per_pattern(max(doses), lit_px, len(kept))
        most = SHARES["arms"] * held
        found.append((max(doses) * most / asked, max(doses), asked, held, where))
    possible, dose, asked, held, where = min(found)
    if dose <= possible:
        return
    name = design.base.name if design.base else "the base data"
    raise InputError(
        f"dose {dose:g} {design.dose_unit}, {where}: {asked:.4g} photons in a pattern; {name} has "
        f"{held:.4g}, of which half are the arms': the other half makes the reference and judges. "
        f"The largest dose possible is {_rounded_down(possible):g}; give --doses up to it, or "
        "choose --simulated"
    )


def _measured_parts(
    design: StudyDesign, scene: Scene
) -> Iterator[tuple[str, str, Int[np.ndarray, " kept"]]]:
    """Yield view, split and kept positions of all patterns that get photons of their own."""
    for view in design.views:
        for split in SPLITS:
            kept = view_of(scene.positions_of(split), scene.probe, view, split, design).kept
            yield view.name, split, kept
            if design.dose_per == "pattern":
                return


def _rounded_down(value: float) -> float:
    """Return a number of three digits that is not larger."""
    unit = 10.0 ** (np.floor(np.log10(value)) - 2)
    return float(np.floor(value / unit) * unit)


def _check_target(design: StudyDesign, metrics: ViewMetrics, view: str, split: str) -> None:
    """Refuse an overlap far from what any choice of a scan's positions has."""
    target = metrics.target_overlap
    low, high = metrics.overlap_sparsest, metrics.overlap_densest
    if target is None or low - REACH <= target <= high + REACH:
        return
    if target > high and design.scan.kind == "measured":
        return  # measured positions are what they are: all are kept, and the table says so
    raise InputError(
        f"view {view}: target_overlap = {target:g}; this scan's {split} split allows {low:.3f} to "
        f"{high:.3f} with neighbor_count = {design.neighbor_count} (at least "
        f"{design.neighbor_count + 1} positions are kept), and a target may lie {REACH:g} outside; "
        "change the target, neighbor_count or the scan"
    )


def _check_photons(design: StudyDesign, dose: float, patterns: int, view: str, split: str) -> None:
    """Refuse shares of the photons of a view that hold next to none."""
    shares = {"iterative.judged_share": design.iterative.judged_share}
    if not design.iterative.chooses:
        shares = {}
    if design.thinned is not None:
        shares["thinned.judged_share"] = design.thinned.judged_share
        for place, share in enumerate(design.thinned.photon_shares):
            shares[f"thinned.photon_shares.{place}"] = share
    for name, share in shares.items():
        photons = dose * patterns * min(share, 1 - share)
        if photons < PHOTONS_MIN:
            raise InputError(
                f"{name} = {share:g}: of {patterns} patterns with {dose:g} photons (view "
                f"{view}, {split} split) it leaves {photons:.3g} photons to one part; at least "
                f"{PHOTONS_MIN} are needed to judge by; raise doses or move the share to the middle"
            )


def _check_groups(design: StudyDesign, groups: int, view: str) -> None:
    """Refuse batches larger than the groups of a view that a network learns from."""
    training = design.training
    if training is None:
        return
    learned = groups - max(1, round(training.validation_share * groups))
    if training.batch_size > learned:
        raise InputError(
            f"training.batch_size = {training.batch_size}; at most {learned}: view {view} has "
            f"{groups} groups in its train split, of which {groups - learned} validate; lower it"
        )
