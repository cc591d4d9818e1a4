"""Phase C: simulate the patterns of one dose, or thin measured ones, and split them (DATA-001).

The stages are those of the original study (simulate, canonicalise, patches, split, validate), as
functions of arrays; the split comes first, since positions in the guard band need no patterns.
"""

from collections.abc import Mapping
from dataclasses import replace
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Bool, Complex, Float

from study_lib.data.contract import save_dataset
from study_lib.data.rules import check_splits
from study_lib.design.axes import MEASURED, SPLITS, dose_key
from study_lib.design.models import StudyDesign
from study_lib.errors import StudyError
from study_lib.overlap.metrics import lit_area_px
from study_lib.phases.conditions import Condition, claim_root
from study_lib.phases.measured import (
    SHARE,
    Reference,
    ThinnedPatterns,
    base_measurement,
    patterns_at,
    reference_of,
)
from study_lib.phases.mismatch import ScanPart, field_of, stated_mismatch, true_light
from study_lib.phases.records import Work, recorded, work_of
from study_lib.phases.scene import Scene, scene_of
from study_lib.physics.measurement import at_positions, photon_budget
from study_lib.physics.photons import noise_test
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
    probe: Complex[np.ndarray, "*modes n n"],
    positions_px: Float[np.ndarray, "scan 2"],
    scan_index: np.ndarray,
    bad_pixels: Bool[np.ndarray, "..."] | None,
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
    split's photons on the area it lights where the dose is one per area; simulated counts are
    Poisson, from one seeded stream per dose and split, measured ones a thinning of those of the
    base data, with the reference in place of the unknown object.

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
        diameter_px = probe_diameter_px(scene.probe, design.probe_power_share)
        lit_px: dict[str, int] = {
            split: lit_area_px(scene.positions_of(split), diameter_px, scene.object_.shape)
            for split in SPLITS
        }
        make = _measured_splits if design.is_measured else _simulated_splits
        made = make(condition, scene, lit_px, work)
        parts = {split: one.arrays for split, one in made.items()}
        shared = check_splits(parts["train"], parts["test"])
        if shared:
            raise StudyError("; ".join(str(violation) for violation in shared))
        for step, split in enumerate(SPLITS, start=1):
            arrays = parts[split]
            if design.object_patches:
                positions = scene.positions_of(split)
                object_ = arrays["objectGuess"]
                patches = object_patches(object_, positions, design.patch_size_px)
                arrays = arrays | {"Y": patches}
            limit = design.detector.saturation_counts
            photons = photon_budget(arrays["diffraction"], limit)
            asked = design.photons_per_pattern(dose, lit_px[split], photons["patterns"])
            work.results[split] = photons | photons_on_area(photons, lit_px[split], asked)
            path = condition.of(split).whole_file
            metadata = work.results[split] | _history(design, split, scene, made[split])
            save_dataset(path, arrays, metadata)
            work.outputs.append(path)
            work.progress("generate", step, len(SPLITS))
        work.results["scene"] = dict(scene.record)
        outside = ~(scene.splits["train"] | scene.splits["test"])
        work.results["positions_in_guard_band"] = int(outside.sum())
    return work.results


class SplitPatterns(NamedTuple):
    """Arrays of a split under the names of DATA-001, how they were made, and what else is said."""

    arrays: Arrays
    step: dict[str, Any]
    stated: dict[str, Any]


def _simulated_splits(
    condition: Condition, scene: Scene, lit_px: Mapping[str, int], _: Work
) -> dict[str, SplitPatterns]:
    """Return the simulated patterns of each split."""
    design, dose = condition.design, condition.dose
    bad_pixels = bad_pixels_of(design)
    simulated = _simulated(design, dose, scene, lit_px, bad_pixels)
    detector = design.detector.model_dump(exclude_defaults=True)
    found = {}
    for split, scan in simulated.items():
        arrays = canonicalise(
            amplitudes=scan.amplitudes[split],
            object_=scene.object_,
            probe=scan.probe,
            positions_px=scene.positions_of(split),
            scan_index=np.flatnonzero(scene.splits[split]),
            bad_pixels=bad_pixels,
        )
        step = {
            "operation": "simulate",
            "parameters": {
                "dose": dose,
                "seed": design.noise_seeds.simulation,
                "stream": list(stream_of(design, dose, split)),
                **design.detector.model_dump(),
                **design.mismatch.amounts,
            },
        }
        stated: dict[str, Any] = {"detector": detector} if detector else {}
        stated |= stated_mismatch(design, field_of(scene.positions_of(split)), scan)
        if design.detector.saturation_counts is None:
            stated["photons_per_pattern_expected"] = scan.photons_expected[split]
        found[split] = SplitPatterns(arrays, step, stated)
    return found


def _measured_splits(
    condition: Condition, scene: Scene, lit_px: Mapping[str, int], work: Work
) -> dict[str, SplitPatterns]:
    """Return the thinned patterns of each split, with the reference of the draw.

    The noise is tested again, as it is at this dose.
    """
    design, dose = condition.design, condition.dose
    reference = reference_of(condition)
    work.add_inputs(reference.files)
    whole = base_measurement(condition)
    rows: dict[str, np.ndarray] = {split: np.flatnonzero(scene.splits[split]) for split in SPLITS}
    both = np.concatenate(list(rows.values()))
    found: dict[str, SplitPatterns] = {}
    made: dict[str, ThinnedPatterns] = {}
    if design.dose_per == "pattern":
        every = patterns_at(condition, both, dose, reference)
        first = len(rows[SPLITS[0]])
        for split, part in zip(SPLITS, (slice(first), slice(first, None)), strict=True):
            made[split] = replace(every, amplitudes=every.amplitudes[part])
    else:
        for split in SPLITS:
            asked = design.photons_per_pattern(dose, lit_px[split], len(rows[split]))
            made[split] = patterns_at(condition, rows[split], asked, reference)
    for split in SPLITS:
        some = at_positions(whole, rows[split])
        arrays = canonicalise(
            amplitudes=made[split].amplitudes,
            object_=reference.object_,
            probe=made[split].probe,
            positions_px=some.positions_px,
            scan_index=rows[split],
            bad_pixels=some.bad_pixels,
        )
        if whole.background is not None:
            arrays["background"] = (whole.background * made[split].share).astype(np.float32)
        step, stated = thinning_of(condition, made[split], reference)
        found[split] = SplitPatterns(arrays, step, stated)
    work.results["noise"] = noise_test(
        np.concatenate([made[split].amplitudes for split in SPLITS]),
        whole.positions_px[both],
        at_positions(whole, both).bad_pixels,
    ).record()
    return found


def thinning_of(
    condition: Condition, made: ThinnedPatterns, reference: Reference
) -> tuple[dict[str, Any], dict[str, Any]]:
    """Return how thinned patterns were made, and what else their metadata say."""
    design = condition.design
    step = {
        "operation": "thin",
        "parameters": {
            "dose": condition.dose,
            SHARE: made.share,
            "seed": design.seeds.simulation,
            "draw": design.replicate,
        },
    }
    stated = {
        "counts": MEASURED,
        SHARE: made.share,
        "object": f"reference by {reference.first}, from photons that no arm has; not the truth",
        "probe": "of the reference",
    }
    return step, stated


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
    probe: Complex[np.ndarray, "*modes n n"],
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


def _history(design: StudyDesign, split: str, scene: Scene, made: SplitPatterns) -> dict[str, Any]:
    """Return what was done to get the arrays of a split, for its metadata."""
    band = {"part": split, "axis": "y", "guard_band_px": design.guard_band_px}
    record = dict(scene.record)
    if design.is_measured:  # no photon falls on the object of the base data
        record = {"source": record["source"]}
    return {
        "domain": "amplitude",
        "design": design.digest,
        **record,
        "transformations": [
            {"operation": "split", "parameters": band},
            made.step,
            {"operation": "canonicalise", "parameters": {"object_patches": design.object_patches}},
        ],
        **made.stated,
    }
