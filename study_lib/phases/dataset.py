"""Phase C: simulate the patterns of one dose and split them (DATA-001 files).

The stages are those of the original study (simulate, canonicalise, patches, split, validate), as
functions of arrays; the split comes first, since positions in the guard band need no patterns.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Bool, Complex, Float

from study_lib.data.contract import save_dataset
from study_lib.data.rules import check_splits
from study_lib.design.axes import SPLITS, dose_key
from study_lib.design.models import StudyDesign
from study_lib.design.presets import parse_design
from study_lib.errors import InputError, StudyError
from study_lib.files import read_json, write_json
from study_lib.overlap.metrics import lit_area_px
from study_lib.phases.conditions import Condition
from study_lib.phases.mismatch import ScanPart, field_of, stated_mismatch, true_light
from study_lib.phases.records import recorded, work_of
from study_lib.phases.scene import Scene, scene_of
from study_lib.physics.measurement import photon_budget
from study_lib.physics.probe import probe_diameter_px
from study_lib.physics.simulation import (
    SimulatedScan,
    TrueLight,
    bad_pixel_mask,
    object_patches,
    simulate,
)
from study_lib.seeding import generator

Arrays = dict[str, np.ndarray]


def canonicalise(
    *,
    amplitudes: Float[np.ndarray, "scan n n"],
    object_: Complex[np.ndarray, "oy ox"],
    probe: Complex[np.ndarray, "n n"],
    positions_px: Float[np.ndarray, "scan 2"],
    scan_index: np.ndarray,
    bad_pixels: Bool[np.ndarray, "n n"] | None,
) -> Arrays:
    """Return the arrays of one split under the names and in the types of DATA-001."""
    arrays = {
        "diffraction": amplitudes,
        "probeGuess": probe,
        "objectGuess": object_,
        "xcoords": positions_px[:, 1].copy(),
        "ycoords": positions_px[:, 0].copy(),
        "scan_index": scan_index.astype(np.int64),
    }
    return arrays if bad_pixels is None else arrays | {"bad_pixels": bad_pixels}


def generate(condition: Condition) -> dict[str, Any]:
    """Write the train and test patterns of a dose and return what was measured on them.

    The probe is scaled so that the mean over all patterns of both splits is the dose, or each
    split's photons on the area it lights where the dose is one per area; the counts are Poisson,
    from one seeded stream per dose and split.

    Parameters
    ----------
    condition
        Its view and split do not matter: a view is chosen from all patterns of a dose.

    Returns
    -------
    dict
        Photons of each split, and the scene's record; plain values.

    Raises
    ------
    InputError
        If the base file is not usable, or the folder holds data of another design.
    StudyError
        If the two splits share patterns or object rows.

    Examples
    --------
    >>> from pathlib import Path
    >>> from tempfile import TemporaryDirectory
    >>> import study_lib as study
    >>> with TemporaryDirectory() as folder:
    ...     run = study.create_run(Path(folder), study.load_design("smoke"))
    ...     photons = study.generate(run.condition(1e4))
    ...     measurement = run.condition(1e4).measurement()
    >>> measurement.amplitudes.shape
    (150, 32, 32)

    Over both splits the mean is the dose, up to chance:

    >>> splits = [photons["train"], photons["test"]]
    >>> patterns = sum(split["patterns"] for split in splits)
    >>> total = sum(split["patterns"] * split["photons_per_pattern_measured"] for split in splits)
    >>> patterns, abs(total / (patterns * 1e4) - 1) < 0.003
    (300, True)
    """
    design, dose, base_npz = condition.design, condition.dose, condition.base_npz
    claim_root(condition.root("dataset"), design)
    work = work_of(
        condition,
        "dataset",
        parameters={},
        seeds={"simulation": design.noise_seeds.simulation},
        inputs=[base_npz] if base_npz else [],
    )
    with recorded(work):
        scene = scene_of(design, base_npz)
        bad_pixels = bad_pixels_of(design)
        diameter_px = probe_diameter_px(scene.probe, design.probe_power_share)
        lit_px: dict[str, int] = {
            split: lit_area_px(scene.positions_of(split), diameter_px, scene.object_.shape)
            for split in SPLITS
        }
        simulated = _simulated(design, dose, scene, lit_px, bad_pixels)
        parts = {
            split: canonicalise(
                amplitudes=simulated[split].amplitudes[split],
                object_=scene.object_,
                probe=simulated[split].probe,
                positions_px=scene.positions_of(split),
                scan_index=np.flatnonzero(scene.splits[split]),
                bad_pixels=bad_pixels,
            )
            for split in SPLITS
        }
        shared = check_splits(parts["train"], parts["test"])
        if shared:
            raise StudyError("; ".join(str(violation) for violation in shared))
        for step, split in enumerate(SPLITS, start=1):
            arrays = parts[split]
            if design.object_patches:
                positions = scene.positions_of(split)
                patches = object_patches(scene.object_, positions, design.patch_size_px)
                arrays = arrays | {"Y": patches}
            limit = design.detector.saturation_counts
            photons = photon_budget(arrays["diffraction"], limit)
            asked = design.photons_per_pattern(dose, lit_px[split], photons["patterns"])
            work.results[split] = photons | photons_on_area(photons, lit_px[split], asked)
            path = condition.of(split).whole_file
            metadata = work.results[split] | _history(design, dose, split, scene, simulated[split])
            save_dataset(path, arrays, metadata)
            work.outputs.append(path)
            work.progress("generate", step, len(SPLITS))
        work.results["scene"] = dict(scene.record)
        outside = ~(scene.splits["train"] | scene.splits["test"])
        work.results["positions_in_guard_band"] = int(outside.sum())
    return work.results


def _simulated(
    design: StudyDesign,
    dose: float,
    scene: Scene,
    lit_px: Mapping[str, int],
    bad_pixels: Bool[np.ndarray, "n n"] | None,
) -> dict[str, SimulatedScan]:
    """Return the counted patterns of each split.

    Photons per pattern are the mean over both splits, photons per area those of each split.
    """
    positions: dict[str, np.ndarray] = {split: scene.positions_of(split) for split in SPLITS}
    whole: dict[str, Any] = {
        "object_": scene.object_,
        "probe": scene.probe,
        "bad_pixels": bad_pixels,
        "truth": true_light(
            design,
            scene.probe,
            {
                split: ScanPart(part, np.flatnonzero(scene.splits[split]), field_of(part))
                for split, part in positions.items()
            },
        ),
    }
    if design.dose_per == "pattern":
        both = counted(design, dose, dose, positions, **whole)
        return dict.fromkeys(SPLITS, both)
    return {
        split: counted(
            design,
            dose,
            design.photons_per_pattern(dose, lit_px[split], len(part)),
            {split: part},
            **whole,
        )
        for split, part in positions.items()
    }


def counted(
    design: StudyDesign,
    dose: float,
    photons_per_pattern: float,
    positions_px: Mapping[str, Float[np.ndarray, "scan 2"]],
    *,
    object_: Complex[np.ndarray, "oy ox"],
    probe: Complex[np.ndarray, "n n"],
    bad_pixels: Bool[np.ndarray, "n n"] | None,
    truth: TrueLight | None,
    view: str | None = None,
) -> SimulatedScan:
    """Return patterns as the design's detector counts them, from one seeded stream per split.

    Parameters
    ----------
    design, dose
        The detector, and the seed and name of the streams.
    photons_per_pattern
        Mean over all patterns.
    positions_px : (scan, 2) by split
        (row, column) of the patch centres in object pixels.
    object_, probe, bad_pixels
        As in :func:`study_lib.physics.simulation.simulate`.
    truth
        How the object is really lit, from :func:`study_lib.phases.mismatch.true_light`.
    view
        Whose counts these are, if they are not those of the whole split.
    """
    return simulate(
        object_=object_,
        probe=probe,
        positions_px=positions_px,
        dose=photons_per_pattern,
        dark_counts=design.detector.dark_counts,
        saturation_counts=design.detector.saturation_counts,
        bad_pixels=bad_pixels,
        random={
            split: generator(design.noise_seeds.simulation, *stream_of(design, dose, split, view))
            for split in positions_px
        },
        true_light=truth,
    )


def stream_of(
    design: StudyDesign, dose: float, split: str, view: str | None = None
) -> tuple[str | int, ...]:
    """Return the name of the random numbers of a split's counts, or of a view's own ones."""
    per = () if design.dose_per == "pattern" else (design.dose_per,)
    return ("noise", split, dose_key(dose), *per, *filter(None, [view]))


def photons_on_area(
    photons: Mapping[str, Any], lit_px: int, photons_per_pattern: float
) -> dict[str, Any]:
    """Return what was asked for in each pattern, and what was measured on each lit object pixel.

    Parameters
    ----------
    photons
        From :func:`study_lib.physics.measurement.photon_budget`.
    lit_px
        Object pixels that all positions of the split light, also those that a view leaves out.
    photons_per_pattern
        What was asked for.
    """
    total = photons["patterns"] * photons["photons_per_pattern_measured"]
    return {
        "photons_per_pattern_requested": photons_per_pattern,
        "lit_object_px": lit_px,
        "photons_per_object_pixel_measured": total / lit_px,
    }


def bad_pixels_of(design: StudyDesign) -> Bool[np.ndarray, "n n"] | None:
    """Return the mask of the detector, the same for every dose; None if every pixel is good."""
    detector = design.detector
    if not (detector.beamstop_radius_px or detector.bad_pixel_share):
        return None
    return bad_pixel_mask(
        side_px=design.patch_size_px,
        beamstop_radius_px=detector.beamstop_radius_px,
        bad_pixel_share=detector.bad_pixel_share,
        random=generator(design.seeds.simulation, "detector"),
    )


def _history(
    design: StudyDesign, dose: float, split: str, scene: Scene, simulated: SimulatedScan
) -> dict[str, Any]:
    """Return what was done to get the arrays of a split, for its metadata."""
    detector = design.detector.model_dump(exclude_defaults=True)
    history: dict[str, Any] = {
        "domain": "amplitude",
        "design": design.digest,
        **scene.record,
        "transformations": [
            {
                "operation": "split",
                "parameters": {
                    "part": split,
                    "axis": "y",
                    "guard_band_px": design.guard_band_px,
                },
            },
            {
                "operation": "simulate",
                "parameters": {
                    "dose": dose,
                    "seed": design.noise_seeds.simulation,
                    "stream": list(stream_of(design, dose, split)),
                    **design.detector.model_dump(),
                    **design.mismatch.amounts,
                },
            },
            {"operation": "canonicalise", "parameters": {"object_patches": design.object_patches}},
        ],
    }
    if detector:
        history["detector"] = detector
    history |= stated_mismatch(design, field_of(scene.positions_of(split)), simulated)
    if design.detector.saturation_counts is None:
        history["photons_per_pattern_expected"] = simulated.photons_expected[split]
    return history


def claim_root(output_root: Path, design: StudyDesign) -> None:
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
