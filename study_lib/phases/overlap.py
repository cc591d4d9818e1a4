"""Phase D: choose the patterns of a view, group them, measure their overlap, write them down."""

from collections.abc import Mapping
from dataclasses import asdict
from typing import Any

import numpy as np
from jaxtyping import Float, Int

from study_lib.data.contract import load_dataset, save_dataset
from study_lib.design.axes import SPLITS, ViewDesign
from study_lib.design.models import StudyDesign
from study_lib.files import write_json
from study_lib.overlap.metrics import coverage_of, legacy_spacing_px, nearest_px, spacing_report
from study_lib.overlap.views import SELECTION_STEP, View, view_of
from study_lib.phases.conditions import Condition
from study_lib.phases.dataset import counted, photons_on_area, stream_of, thinning_of
from study_lib.phases.measured import patterns_at, reference_of
from study_lib.phases.mismatch import ScanPart, field_of, stated_mismatch, true_light
from study_lib.phases.records import Work, recorded, work_of
from study_lib.physics.measurement import photon_budget

PER_SCAN = ("diffraction", "xcoords", "ycoords", "scan_index")
MASKS = "bad_pixels"  # one for all patterns, or one of each


def choose_view(condition: Condition, diameter_px: float | None = None) -> dict[str, Any]:
    """Choose, group and write the train and test patterns of a view, and measure their overlap.

    The groups in the file are those that training uses and that the metrics are computed on.
    Nothing is written before both splits are known to work, so that their files belong together.

    Parameters
    ----------
    condition
        Its split does not matter.
    diameter_px
        Of the probe; default: measured on it.

    Returns
    -------
    dict
        Metrics, distances and coverage by split; plain values.

    Raises
    ------
    InputError
        If the data set is missing, or a split has too few patterns.

    References
    ----------
    Overlap of discs as a measure of redundancy: Bunk et al., Ultramicroscopy 108, 481 (2008),
    doi:10.1016/j.ultramic.2007.08.003

    Examples
    --------
    >>> from pathlib import Path
    >>> from tempfile import TemporaryDirectory
    >>> import study_lib as study
    >>> with TemporaryDirectory() as folder:
    ...     run = study.create_run(Path(folder), study.load_design("smoke"))
    ...     photons = study.generate(run.condition(1e4))
    ...     measured = study.choose_view(run.condition(1e4, "dense"))["test"]
    ...     measurement = run.condition(1e4, "dense").measurement()

    Patterns were left out until the overlap is the one that the design asks for:

    >>> len(measurement.scan_index) < photons["test"]["patterns"]
    True
    >>> abs(measured["metric_2_image"] - run.design.view("dense").target_overlap) < 0.01
    True
    >>> measurement.groups.shape[1]  # of 2 x 2 patterns
    4
    """
    design, view, folder = condition.design, condition.view, condition.folder("overlap")
    splits = [condition.of(split) for split in SPLITS]
    work = work_of(
        condition,
        "overlap",
        parameters={
            "view": view.model_dump(),
            "neighbor_count": design.neighbor_count,
            "probe_diameter_px": diameter_px,  # null: measured on the probe
        },
        seeds=design.noise_seeds.model_dump(include={"grouping", "subsampling"}),
        inputs=[one.whole_file for one in splits],
    )
    with recorded(work):
        files = []
        for step, one in enumerate(splits, start=1):
            arrays, metadata = load_dataset(one.whole_file)
            positions = np.stack([arrays["ycoords"], arrays["xcoords"]], axis=1)
            probe = arrays["probeGuess"]
            chosen = view_of(positions, probe, view, one.split, design, diameter_px=diameter_px)
            if not view.is_whole:
                kept = {key: arrays[key][chosen.kept] for key in PER_SCAN if key in arrays}
                if MASKS in arrays and arrays[MASKS].ndim == 3:
                    kept[MASKS] = arrays[MASKS][chosen.kept]
                patterns = arrays | kept | {"groups": chosen.groups}
                lit_px = metadata["lit_object_px"]
                asked = design.photons_per_pattern(condition.dose, lit_px, len(chosen.kept))
                stated = _history(metadata, view, chosen, work)
                if design.dose_per != "pattern" and len(chosen.kept) < len(positions):
                    anew = _thinned_anew if design.is_measured else _counted_anew
                    counts, made, more = anew(one, arrays, chosen.kept, asked)
                    patterns |= counts
                    stated["transformations"].append(made)
                    stated |= more
                limit = design.detector.saturation_counts
                photons = photon_budget(patterns["diffraction"], limit)
                stated |= photons | photons_on_area(photons, lit_px, asked)
                files.append((one.file, patterns, stated))
            shape = arrays["objectGuess"].shape
            work.results[one.split] = _measured(positions, chosen, view, design, shape)
            work.progress("overlap", step, len(SPLITS))
        for path, patterns, stated in files:
            save_dataset(path, patterns, stated)
            work.outputs.append(path)
        measured = {f"{one.split}_metrics.json": work.results[one.split] for one in splits}
        for name, content in (measured | {"metrics_bundle.json": work.results}).items():
            write_json(folder / name, content)
            work.outputs.append(folder / name)
    return work.results


def _counted_anew(
    condition: Condition,
    arrays: Mapping[str, np.ndarray],
    kept: Int[np.ndarray, " kept"],
    photons_per_pattern: float,
) -> tuple[dict[str, np.ndarray], dict[str, Any], dict[str, Any]]:
    """Return patterns and probe of the positions that a view keeps, and how they were made.

    At a dose per area the photons of the positions left out are spent on those that are kept. Last
    comes what metadata say of a mismatch: positions and probe are as far off as in all patterns.
    """
    design, split, view = condition.design, condition.split, condition.view.name
    positions = np.stack([arrays["ycoords"], arrays["xcoords"]], axis=1)
    part = ScanPart(positions[kept], arrays["scan_index"][kept], field_of(positions))
    scan = counted(
        design,
        condition.dose,
        photons_per_pattern,
        {split: part.positions_px},
        object_=arrays["objectGuess"],
        probe=arrays["probeGuess"],
        bad_pixels=arrays.get("bad_pixels"),
        truth=true_light(design, arrays["probeGuess"], {split: part}),
        view=view,
    )
    parameters = {
        "dose": condition.dose,
        "photons_per_pattern": photons_per_pattern,
        "seed": design.noise_seeds.simulation,
        "stream": list(stream_of(design, condition.dose, split, view)),
        **design.detector.model_dump(),
        **design.mismatch.amounts,
    }
    counts = {"diffraction": scan.amplitudes[split], "probeGuess": scan.probe}
    step = {"operation": "simulate", "parameters": parameters}
    return counts, step, stated_mismatch(design, part.field_px, scan)


def _thinned_anew(
    condition: Condition,
    arrays: Mapping[str, np.ndarray],
    kept: Int[np.ndarray, " kept"],
    photons_per_pattern: float,
) -> tuple[dict[str, np.ndarray], dict[str, Any], dict[str, Any]]:
    """Return patterns and probe of the positions that a view keeps, and how they were made.

    As :func:`_counted_anew`, of measured counts: more of the arms' photons at these positions.
    """
    reference = reference_of(condition)
    rows = arrays["scan_index"][kept]
    made = patterns_at(condition, rows, photons_per_pattern, reference)
    step, stated = thinning_of(condition, made, reference)
    patterns = {"diffraction": made.amplitudes, "probeGuess": made.probe}
    if "background" in arrays:  # as much more of it as of the photons
        more = np.linalg.norm(made.probe) ** 2 / np.linalg.norm(arrays["probeGuess"]) ** 2
        patterns["background"] = (arrays["background"] * more).astype(np.float32)
    return patterns, step, stated


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
