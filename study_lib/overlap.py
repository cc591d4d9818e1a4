"""Phase D: overlap of probe discs, subsampling to a target overlap, groups, metrics 1 to 3."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Complex, Float, Int
from numpy.typing import ArrayLike
from scipy.spatial import cKDTree

from study_lib.contract import load_dataset, save_dataset
from study_lib.design import SPLITS, StudyDesign, ViewDesign
from study_lib.errors import InputError
from study_lib.files import write_json
from study_lib.paths import dataset_path, view_folder, view_path
from study_lib.photons import photon_budget
from study_lib.probe import probe_diameter_px
from study_lib.records import Job, recorded
from study_lib.seeding import generator

METRICS_VERSION = "1.0"
TARGET_TOLERANCE = 0.02


@dataclass(frozen=True)
class OverlapMetrics:
    """Measured overlap of one view and split; `metrics_version` 1.0 of the original study.

    Metric 1 is the mean disc overlap inside groups (none for gridsize 1), metric 2 that of each
    pattern with its K nearest others, metric 3 that of each group's centre with the centres of
    other groups nearer than the probe diameter.
    """

    metrics_version: str
    gridsize: int
    neighbor_count: int
    probe_diameter_px: float
    target_overlap: float | None
    target_reached: bool
    s_img: float
    images_total: int
    images_used: int
    group_count: int
    metric_1_group: float | None
    metric_2_image: float
    metric_3_group_to_group: float


def disc_overlap(distance_px: ArrayLike, diameter_px: float) -> Float[np.ndarray, "..."]:
    """Return the share of a disc that another of the same diameter covers.

    ``f(d) = (2 / pi) (arccos u - u sqrt(1 - u^2))`` with ``u = d / D``; 1 at distance 0, 0 from
    ``D`` on.
    """
    ratio = np.clip(np.asarray(distance_px, dtype=np.float64) / diameter_px, 0, 1)
    overlap: np.ndarray = (2 / np.pi) * (np.arccos(ratio) - ratio * np.sqrt(1 - ratio**2))
    return overlap


def image_overlap(
    positions_px: Float[np.ndarray, "scan 2"], neighbor_count: int, diameter_px: float
) -> float:
    """Return metric 2: the mean overlap of each pattern with its K nearest others."""
    distances, _ = _neighbors(positions_px, neighbor_count)
    return float(disc_overlap(distances, diameter_px).mean())


def group_overlap(
    positions_px: Float[np.ndarray, "scan 2"],
    groups: Int[np.ndarray, "group c"],
    diameter_px: float,
) -> float | None:
    """Return metric 1: the mean overlap of the pairs inside groups; None for single patterns."""
    size = groups.shape[1]
    if size == 1:
        return None
    members = positions_px[groups]
    distances = np.linalg.norm(members[:, :, None] - members[:, None, :], axis=-1)
    pairs = distances[:, ~np.eye(size, dtype=bool)]
    return float(disc_overlap(pairs, diameter_px).mean())


def group_to_group_overlap(
    positions_px: Float[np.ndarray, "scan 2"],
    groups: Int[np.ndarray, "group c"],
    diameter_px: float,
) -> float:
    """Return metric 3: the mean over groups of the mean overlap with groups nearer than D."""
    centres = positions_px[groups].mean(axis=1)
    pairs = cKDTree(centres).query_pairs(diameter_px, output_type="ndarray")
    overlaps = disc_overlap(
        np.linalg.norm(centres[pairs[:, 0]] - centres[pairs[:, 1]], axis=1), diameter_px
    )
    ends = pairs.ravel()
    sums = np.bincount(ends, weights=np.repeat(overlaps, 2), minlength=len(centres))
    counts = np.bincount(ends, minlength=len(centres))
    return float((sums / np.maximum(counts, 1)).mean())


def subsample(
    positions_px: Float[np.ndarray, "scan 2"],
    *,
    target_overlap: float | None,
    neighbor_count: int,
    diameter_px: float,
    random: np.random.Generator,
) -> Int[np.ndarray, " kept"]:
    """Return the sorted indices of the positions to keep so that metric 2 comes near its target.

    The positions are put in one random order; the kept ones are its first ``m``, and ``m`` is
    found by bisection. A target denser than the whole scan keeps every position.
    """
    count = len(positions_px)
    if target_overlap is None:
        return np.arange(count)
    order = random.permutation(count)

    def overlap_of(kept: int) -> float:
        return image_overlap(positions_px[order[:kept]], neighbor_count, diameter_px)

    low, high = neighbor_count + 1, count
    if overlap_of(high) <= target_overlap:
        return np.arange(count)
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (low, middle) if overlap_of(middle) > target_overlap else (middle, high)
    best = min((low, high), key=lambda kept: abs(overlap_of(kept) - target_overlap))
    return np.sort(order[:best])


def form_groups(
    positions_px: Float[np.ndarray, "scan 2"],
    *,
    gridsize: int,
    neighbor_count: int,
    random: np.random.Generator,
) -> Int[np.ndarray, "group c"]:
    """Return one group per pattern: itself and ``gridsize**2 - 1`` random ones of its K nearest.

    Every pattern is the first member of exactly one group, so no pattern is left out.
    """
    seeds = np.arange(len(positions_px), dtype=np.int64)[:, None]
    if gridsize == 1:
        return seeds
    _, neighbors = _neighbors(positions_px, neighbor_count)
    choices = random.random(neighbors.shape).argsort(axis=1)[:, : gridsize**2 - 1]
    return np.hstack([seeds, np.take_along_axis(neighbors, choices, axis=1)])


def legacy_spacing_px(overlap: float, side_px: int) -> float:
    """Return the spacing the original study wanted, ``(1 - f) N``: 38.4 px for 0.7 at N = 128.

    It takes overlap as linear in the patch side, which neither the probe's shape nor its size
    bears out; it is reported, and gates nothing.
    """
    return (1 - overlap) * side_px


def write_view(
    design: StudyDesign,
    dose: float,
    view_name: str,
    *,
    phase_c_root: Path,
    output_root: Path,
    artifact_root: Path,
) -> dict[str, Any]:
    """Write the train and test patterns of one view with their groups, and the measured overlap.

    The groups in the file are those that training uses and that the metrics are computed on.

    Raises
    ------
    InputError
        If dose or view are not in the design, phase C is missing, or a split has too few patterns.
    """
    design.require_dose(dose)
    view = design.view(view_name)
    folder = view_folder(artifact_root, dose, view.name)
    job = Job(
        manifest=artifact_root / "overlap_manifest.json",
        key=folder.relative_to(artifact_root).as_posix(),
        folder=folder,
        parameters={"dose": dose, "view": view.model_dump(), "design": design.digest},
        seeds=design.noise_seeds.model_dump(include={"grouping", "subsampling"}),
        inputs=[dataset_path(phase_c_root, dose, split) for split in SPLITS],
    )
    with recorded(job):
        for split in SPLITS:
            arrays, metadata = load_dataset(dataset_path(phase_c_root, dose, split))
            positions = np.stack([arrays["ycoords"], arrays["xcoords"]], axis=1)
            probe = arrays["probeGuess"]
            kept, groups, metrics = view_of(positions, probe, view, split, design)
            if view.name != "baseline":
                path = view_path(phase_c_root, output_root, dose, view.name, split)
                chosen = _take(arrays, kept) | {"groups": groups}
                metadata.pop("photons_per_pattern_expected", None)  # that of the whole split
                limit = design.detector.saturation_counts
                photons = photon_budget(chosen["diffraction"], limit)
                step = {
                    "operation": "select and group",
                    "parameters": {
                        **view.model_dump(),
                        "s_img": metrics.s_img,
                        "neighbor_count": design.neighbor_count,
                        "seeds": job.seeds,
                    },
                }
                history = [*metadata.get("transformations", []), step]
                stated = {"view": view.name, "transformations": history}
                save_dataset(path, chosen, metadata | stated | photons)
                job.outputs.append(path)
            job.results[split] = asdict(metrics)
            write_json(folder / f"{split}_metrics.json", job.results[split])
            job.outputs.append(folder / f"{split}_metrics.json")
        write_json(folder / "metrics_bundle.json", job.results)
        job.outputs.append(folder / "metrics_bundle.json")
    return job.results


def view_of(
    positions: Float[np.ndarray, "scan 2"],
    probe: Complex[np.ndarray, "n n"],
    view: ViewDesign,
    split: str,
    design: StudyDesign,
) -> tuple[np.ndarray, np.ndarray, OverlapMetrics]:
    """Return kept indices, groups and metrics of one split; the same for every dose.

    Raises
    ------
    InputError
        If the split has too few positions for K neighbours.
    """
    neighbor_count = design.neighbor_count
    if len(positions) <= neighbor_count:
        raise InputError(
            f"the {split} split has {len(positions)} patterns; {neighbor_count + 1} are needed for "
            f"K = {neighbor_count} neighbours; enlarge the scan or lower neighbor_count"
        )
    diameter = probe_diameter_px(probe, design.probe_power_share)
    kept = subsample(
        positions,
        target_overlap=view.target_overlap,
        neighbor_count=neighbor_count,
        diameter_px=diameter,
        random=generator(design.noise_seeds.subsampling, "subsample", view.name, split),
    )
    used = positions[kept]
    groups = form_groups(
        used,
        gridsize=view.gridsize,
        neighbor_count=neighbor_count,
        random=generator(design.noise_seeds.grouping, "groups", view.name, split),
    )
    reached = image_overlap(used, neighbor_count, diameter)
    target = view.target_overlap
    metrics = OverlapMetrics(
        metrics_version=METRICS_VERSION,
        gridsize=view.gridsize,
        neighbor_count=neighbor_count,
        probe_diameter_px=diameter,
        target_overlap=target,
        target_reached=target is None or abs(reached - target) <= TARGET_TOLERANCE,
        s_img=len(kept) / len(positions),
        images_total=len(positions),
        images_used=len(kept),
        group_count=len(groups),
        metric_1_group=group_overlap(used, groups, diameter),
        metric_2_image=reached,
        metric_3_group_to_group=group_to_group_overlap(used, groups, diameter),
    )
    return kept, groups, metrics


def _take(arrays: Mapping[str, np.ndarray], kept: np.ndarray) -> dict[str, np.ndarray]:
    per_scan = ("diffraction", "xcoords", "ycoords", "scan_index")
    return {key: array[kept] if key in per_scan else array for key, array in arrays.items()}


def _neighbors(
    positions_px: Float[np.ndarray, "scan 2"], neighbor_count: int
) -> tuple[np.ndarray, np.ndarray]:
    """Return distances and indices (scan, K) of each position's nearest others."""
    nearest = cKDTree(positions_px).query(positions_px, k=neighbor_count + 1)
    distances, indices = np.asarray(nearest[0]), np.asarray(nearest[1])
    # A position at the same place as another may not be its own first neighbour.
    is_self = indices == np.arange(len(positions_px))[:, None]
    is_self[~is_self.any(axis=1), -1] = True
    shape = (len(positions_px), neighbor_count)
    return distances[~is_self].reshape(shape), indices[~is_self].reshape(shape)
