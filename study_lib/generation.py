"""Phase C: simulate the patterns of one dose and split them (DATA-001 files)."""

from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import Bool, Float

from study_lib.contract import save_dataset
from study_lib.design import SPLITS, StudyDesign
from study_lib.errors import InputError
from study_lib.files import read_json, write_json
from study_lib.forward import exit_waves, expected_counts
from study_lib.paths import dataset_path, dose_name
from study_lib.presets import parse_design
from study_lib.records import Job, recorded
from study_lib.scene import Scene, scene_of, split_masks
from study_lib.seeding import generator

CHUNK = 256


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
