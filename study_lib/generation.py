"""Phase C: simulate the patterns of one dose and split them (DATA-001 files)."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import Bool, Complex, Float

from study_lib.contract import load_dataset, save_dataset
from study_lib.design import SPLITS, StudyDesign
from study_lib.errors import InputError
from study_lib.files import read_json, write_json
from study_lib.forward import exit_waves, expected_counts
from study_lib.paths import dataset_path, dose_name
from study_lib.presets import parse_design
from study_lib.probe import central_window, zone_plate_probe
from study_lib.records import Job, recorded
from study_lib.seeding import generator
from study_lib.specimen import SPECIMENS, raster_scan

CHUNK = 256


@dataclass(frozen=True)
class Scene:
    """Object, probe and scan positions before any photon is counted."""

    object_: Complex[np.ndarray, "oy ox"]
    probe: Complex[np.ndarray, "n n"]
    positions_px: Float[np.ndarray, "scan 2"]
    record: Mapping[str, Any]


def scene_of(design: StudyDesign, base_npz: Path | None = None) -> Scene:
    """Return the scene of a design: the synthetic one, or that of a base NPZ.

    Raises
    ------
    InputError
        If the base file breaks the contract or its probe does not fit the patch size.
    """
    return _scene_of_base(design, base_npz) if base_npz else _synthetic_scene(design)


def split_masks(
    positions_px: Float[np.ndarray, "scan 2"], side_px: int
) -> dict[str, Bool[np.ndarray, " scan"]]:
    """Return which positions belong to the train and the test split.

    The range of rows is halved; positions in a guard band of ``side_px`` rows (one more for the
    rounding to whole pixels) belong to neither, so that no object row is lit by both splits.

    Raises
    ------
    InputError
        If a split is left without positions.
    """
    rows = positions_px[:, 0]
    middle = (rows.min() + rows.max()) / 2
    half_band = (side_px + 1) / 2
    masks = {"train": rows <= middle - half_band, "test": rows >= middle + half_band}
    for name, mask in masks.items():
        if not mask.any():
            raise InputError(
                f"the scan spans {np.ptp(rows):.0f} rows; the guard band of {side_px + 1} rows "
                f"leaves no position for the {name} split; enlarge the scan or lower patch_size_px"
            )
    return masks


def expected_patterns(
    scene: Scene, positions_px: Float[np.ndarray, "scan 2"]
) -> Float[np.ndarray, "scan n n"]:
    """Return the noise-free photons per detector pixel, in double precision."""
    probe = torch.from_numpy(scene.probe.astype(np.complex128))
    object_ = torch.from_numpy(scene.object_.astype(np.complex128))
    side = scene.probe.shape[0]
    patterns = np.empty((len(positions_px), side, side))
    for start in range(0, len(positions_px), CHUNK):
        chunk = torch.from_numpy(positions_px[start : start + CHUNK])
        waves = exit_waves(probe, object_, chunk)
        patterns[start : start + CHUNK] = expected_counts(waves).numpy()
    return patterns


def generate_dose(
    design: StudyDesign, dose: float, output_root: Path, base_npz: Path | None = None
) -> dict[str, Any]:
    """Write the train and test patterns of one dose and return what was measured on them.

    The probe is scaled so that the mean over all patterns of both splits is ``dose`` photons; the
    counts are Poisson, from one seeded stream per dose and split.

    Raises
    ------
    InputError
        If the dose is not in the design, or the base file is not usable.
    """
    design.require_dose(dose)
    _claim_root(output_root, design)
    job = Job(
        manifest=output_root / "run_manifest.json",
        key=dose_name(dose),
        folder=output_root / dose_name(dose),
        parameters={"dose": dose, "design": design.digest},
        seeds={"simulation": design.seeds.simulation},
        inputs=[base_npz] if base_npz else [],
    )
    with recorded(job):
        scene = scene_of(design, base_npz)
        masks = split_masks(scene.positions_px, design.patch_size_px)
        expected = {
            split: expected_patterns(scene, scene.positions_px[masks[split]]) for split in SPLITS
        }
        total = sum(patterns.sum() for patterns in expected.values())
        scale = dose * sum(len(patterns) for patterns in expected.values()) / total
        for step, split in enumerate(SPLITS, start=1):
            random = generator(design.seeds.simulation, "noise", split, int(dose))
            counts = random.poisson(expected[split] * scale)
            path = dataset_path(output_root, dose, split)
            job.results[split] = _save_split(
                path, scene, masks[split], counts, np.sqrt(scale), dose, design
            )
            job.outputs.append(path)
            job.progress("generate", step, len(SPLITS))
        job.results["scene"] = dict(scene.record)
        job.results["positions_in_guard_band"] = int((~(masks["train"] | masks["test"])).sum())
    return job.results


def _claim_root(output_root: Path, design: StudyDesign) -> None:
    """Write the design beside its data sets; data of two designs never share a folder."""
    path = output_root / "design.json"
    if not path.exists():
        write_json(path, design.model_dump(mode="json"))
        return
    found = parse_design(read_json(path), str(path))
    if found != design:
        raise InputError(
            f"{output_root} holds data of design {found.digest} ({found.preset}), not "
            f"{design.digest} ({design.preset}); choose another folder or remove it"
        )


def _save_split(
    path: Path,
    scene: Scene,
    mask: Bool[np.ndarray, " scan"],
    counts: np.ndarray,
    probe_scale: float,
    dose: float,
    design: StudyDesign,
) -> dict[str, Any]:
    """Write one split and return its photon budget."""
    totals = counts.sum(axis=(1, 2))
    budget = {
        "patterns": len(counts),
        "photons_per_pattern_requested": dose,
        "photons_per_pattern_measured": float(totals.mean()),
        "photons_per_pixel_measured": float(counts.mean()),
        "largest_count": int(counts.max()),
    }
    positions = scene.positions_px[mask]
    arrays = {
        "diffraction": np.sqrt(counts).astype(np.float32),
        "probeGuess": (scene.probe * probe_scale).astype(np.complex64),
        "objectGuess": scene.object_,
        "xcoords": positions[:, 1].copy(),
        "ycoords": positions[:, 0].copy(),
        "scan_index": np.flatnonzero(mask).astype(np.int64),
    }
    metadata = {"domain": "amplitude", "design": design.digest, **budget, **scene.record}
    save_dataset(path, arrays, metadata)
    return budget


def _synthetic_scene(design: StudyDesign) -> Scene:
    side, scan, seed = design.patch_size_px, design.scan, design.seeds.simulation
    positions = raster_scan(
        rows=scan.rows,
        columns=scan.columns,
        step_px=scan.step_px,
        jitter_px=scan.jitter_px,
        gap_px=side + 1 + 2 * scan.jitter_px,
        margin_px=side / 2,
        random=generator(seed, "scan"),
    )
    rows, columns = (np.ceil(positions.max(axis=0)) + side // 2 + 1).astype(int).tolist()
    object_ = SPECIMENS[design.specimen.kind](
        shape_px=(rows, columns),
        random=generator(seed, "specimen"),
        **design.specimen.model_dump(exclude={"kind"}),
    )
    probe = zone_plate_probe(
        side_px=side,
        aperture_per_px=design.probe.aperture_per_px,
        stop_ratio=design.probe.stop_ratio,
        defocus_radius_px=design.probe.defocus_radius_px,
    )
    return Scene(object_, probe, positions, {"source": "synthetic"})


def _scene_of_base(design: StudyDesign, base_npz: Path) -> Scene:
    arrays, _ = load_dataset(base_npz, base=True)
    probe, share = central_window(arrays["probeGuess"], design.patch_size_px)
    positions = np.stack([arrays["ycoords"], arrays["xcoords"]], axis=1)
    object_ = arrays["objectGuess"]
    # A transmission is at most 1; any common factor belongs to the probe, which is scaled anyway.
    factor = max(1.0, float(np.abs(object_).max()))
    record = {
        "source": base_npz.name,
        "object_divided_by": factor,
        "probe_window_px": design.patch_size_px,
        "probe_power_kept": share,
    }
    return Scene((object_ / factor).astype(np.complex64), probe, positions, record)
