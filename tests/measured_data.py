"""A small measurement: base data with whole Poisson counts of a known object, as a file."""

from collections.abc import Callable
from functools import partial
from pathlib import Path

import numpy as np
from scipy.ndimage import gaussian_filter

from study_lib.data.contract import save_dataset
from study_lib.design.presets import load_design
from study_lib.phases.scene import scene_of
from study_lib.physics.simulation import simulate

PHOTONS_PER_PATTERN = 40_000.0
DOSE = 4000.0
SCENE_SETTINGS = (
    "patch_size_px=16",
    "probe.defocus_radius_px=3.0",
    "scan.rows=8",
    "scan.columns=10",
    "scan.step_px=2.0",
    "specimen.largest_grain_px=8.0",
)
# What the study of it changes in the preset smoke: as small as every phase still accepts.
STUDY_SETTINGS = (
    f"doses=[{DOSE}]",
    "views=[{name: baseline, gridsize: 1, target_overlap: null}, "
    "{name: dense, gridsize: 2, target_overlap: 0.9}, "
    "{name: sparse, gridsize: 2, target_overlap: 0.4}]",
    "reference_epochs=20",
    "training.epochs=1",
    "training.steps_min=0",
    "iterative.epochs=4",
    "thinned.steps=4",
)


def write_measurement(
    path: Path,
    *,
    photons_per_pattern: float = PHOTONS_PER_PATTERN,
    counted: Callable[[np.ndarray], np.ndarray] = lambda counts: counts,
    each_masked: bool = False,
) -> dict[str, np.ndarray]:
    """Write a measurement; return its arrays and, under ``truth``, the object that it is of.

    ``counted`` is what the detector makes of the photons. The object in the file is a blurred one,
    as a reconstruction may be: nothing but the counts knows the true one. ``each_masked``: one
    pixel is bad in each pattern, another one in the next, together most of the detector.
    """
    scene = scene_of(load_design("smoke", SCENE_SETTINGS))
    scan = simulate(
        object_=scene.object_,
        probe=scene.probe,
        positions_px={"all": scene.positions_px},
        dose=photons_per_pattern,
        dark_counts=0.0,
        saturation_counts=None,
        bad_pixels=None,
        random={"all": np.random.default_rng(7)},
    )
    blurred = partial(gaussian_filter, sigma=2.0)
    counts = counted(np.round(scan.amplitudes["all"].astype(np.float64) ** 2))
    arrays = {
        "diffraction": np.sqrt(counts).astype(np.float32),
        "probeGuess": scan.probe,
        "objectGuess": (blurred(scene.object_.real) + 1j * blurred(scene.object_.imag)).astype(
            np.complex64
        ),
        "ycoords": scene.positions_px[:, 0].copy(),
        "xcoords": scene.positions_px[:, 1].copy(),
    }
    if each_masked:
        masks = np.zeros(counts.shape, bool)
        number = np.arange(len(counts))
        masks.reshape(len(counts), -1)[number, number] = True
        arrays |= {"bad_pixels": masks}
        arrays["diffraction"][masks] = 0
    save_dataset(path, arrays, {"domain": "amplitude"}, base=True)
    return arrays | {"truth": scene.object_}
