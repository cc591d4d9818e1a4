"""Phase D: choose the patterns of a view, group them, measure their overlap, write them down."""

from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float

from study_lib.data.contract import load_dataset, save_dataset
from study_lib.design.models import SPLITS, StudyDesign, ViewDesign
from study_lib.files import write_json
from study_lib.overlap.metrics import coverage_of, legacy_spacing_px, nearest_px, spacing_report
from study_lib.overlap.views import SELECTION_STEP, View, view_of
from study_lib.phases.conditions import dataset_path, view_folder, view_path
from study_lib.phases.records import Work, recorded
from study_lib.physics.measurement import photon_budget

PER_SCAN = ("diffraction", "xcoords", "ycoords", "scan_index")


def write_view(
    design: StudyDesign,
    dose: float,
    view_name: str,
    *,
    phase_c_root: Path,
    output_root: Path,
    artifact_root: Path,
    diameter_px: float | None = None,
) -> dict[str, Any]:
    """Write the train and test patterns of one view with their groups, and the measured overlap.

    The groups in the file are those that training uses and that the metrics are computed on.
    Nothing is written before both splits are known to work, so that their files belong together.

    Raises
    ------
    InputError
        If dose or view are not in the design, phase C is missing, or a split has too few patterns.
    """
    design.require_dose(dose)
    view = design.view(view_name)
    folder = view_folder(artifact_root, dose, view.name)
    work = Work(
        manifest=artifact_root / "overlap_manifest.json",
        key=folder.relative_to(artifact_root).as_posix(),
        folder=folder,
        parameters={
            "dose": dose,
            "view": view.model_dump(),
            "neighbor_count": design.neighbor_count,
            "probe_diameter_px": diameter_px,  # null: measured on the probe
            "design": design.digest,
        },
        seeds=design.noise_seeds.model_dump(include={"grouping", "subsampling"}),
        inputs=[dataset_path(phase_c_root, dose, split) for split in SPLITS],
    )
    with recorded(work):
        files = []
        for step, split in enumerate(SPLITS, start=1):
            arrays, metadata = load_dataset(dataset_path(phase_c_root, dose, split))
            positions = np.stack([arrays["ycoords"], arrays["xcoords"]], axis=1)
            probe = arrays["probeGuess"]
            chosen = view_of(positions, probe, view, split, design, diameter_px=diameter_px)
            if view.name != "baseline":
                path = view_path(phase_c_root, output_root, dose, view.name, split)
                patterns = _take(arrays, chosen)
                limit = design.detector.saturation_counts
                photons = photon_budget(patterns["diffraction"], limit)
                stated = _history(metadata, view, chosen, work) | photons
                files.append((path, patterns, stated))
            shape = arrays["objectGuess"].shape
            work.results[split] = _measured(positions, chosen, view, design, shape)
            work.progress("overlap", step, len(SPLITS))
        for path, patterns, stated in files:
            save_dataset(path, patterns, stated)
            work.outputs.append(path)
        for split in SPLITS:
            write_json(folder / f"{split}_metrics.json", work.results[split])
            work.outputs.append(folder / f"{split}_metrics.json")
        write_json(folder / "metrics_bundle.json", work.results)
        work.outputs.append(folder / "metrics_bundle.json")
    return work.results


def _take(arrays: Mapping[str, np.ndarray], view: View) -> dict[str, np.ndarray]:
    taken = {key: array[view.kept] if key in PER_SCAN else array for key, array in arrays.items()}
    return taken | {"groups": view.groups}


def _history(
    metadata: Mapping[str, Any], view: ViewDesign, chosen: View, work: Work
) -> dict[str, Any]:
    """Return the metadata of the split with what was done to it here."""
    step = {
        "operation": SELECTION_STEP,
        "parameters": {
            **view.model_dump(),
            "s_img": chosen.metrics.s_img,
            "neighbor_count": chosen.metrics.neighbor_count,
            "probe_diameter_px": chosen.metrics.probe_diameter_px,
            "seeds": dict(work.seeds),
        },
    }
    # What the whole split was expected to count does not hold for a part of it.
    kept = {key: entry for key, entry in metadata.items() if key != "photons_per_pattern_expected"}
    return kept | {
        "view": view.name,
        "transformations": [*metadata.get("transformations", []), step],
    }


def _measured(
    positions_px: Float[np.ndarray, "scan 2"],
    chosen: View,
    view: ViewDesign,
    design: StudyDesign,
    object_shape: tuple[int, ...],
) -> dict[str, Any]:
    """Return metrics, distances and coverage of a view as plain data.

    With them what the original's spacing rule would keep of the whole split, `positions_px`.
    """
    used_px = positions_px[chosen.kept]
    distances_px = nearest_px(used_px)
    rows, columns = object_shape
    diameter_px = chosen.metrics.probe_diameter_px
    measured = asdict(chosen.metrics) | {
        "nearest_px": {
            "min": float(distances_px.min()),
            "median": float(np.median(distances_px)),
            "mean": float(distances_px.mean()),
            "max": float(distances_px.max()),
        },
        "coverage": asdict(coverage_of(used_px, diameter_px, (rows, columns))),
        "legacy_spacing": None,
    }
    if view.target_overlap is not None:
        threshold_px = legacy_spacing_px(view.target_overlap, design.patch_size_px)
        measured["legacy_spacing"] = asdict(spacing_report(positions_px, threshold_px))
    return measured
