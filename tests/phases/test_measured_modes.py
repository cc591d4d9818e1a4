"""A study on measured counts of partly coherent light: every arm is given all that is known."""

import numpy as np
import pytest
from measured_data import DOSE, PHOTONS_PER_PATTERN, SCENE_SETTINGS, STUDY_SETTINGS

from study_lib.data.contract import save_dataset
from study_lib.design.presets import load_design
from study_lib.phases.arms import arms_of
from study_lib.phases.compare import compare
from study_lib.phases.dataset import generate
from study_lib.phases.overlap import choose_view
from study_lib.phases.reconstruct import reconstruct
from study_lib.phases.reference import make_reference
from study_lib.phases.scene import scene_of
from study_lib.phases.train import train
from study_lib.phases.train_thinned import train_thinned
from study_lib.physics.probe import with_more_modes
from study_lib.physics.simulation import simulate
from study_lib.runs.run import base_data, create_run

BACKGROUND = 0.3


@pytest.fixture(scope="module")
def base_npz(tmp_path_factory):
    """Two modes, a background, and three pixels that are bad in one pattern each."""
    scene = scene_of(load_design("smoke", SCENE_SETTINGS))
    side = scene.probe.shape[-1]
    dark = np.full((side, side), BACKGROUND, np.float32)
    scan = simulate(
        object_=scene.object_,
        probe=with_more_modes(scene.probe, 2, seed=1, share=0.25),
        positions_px={"all": scene.positions_px},
        dose=PHOTONS_PER_PATTERN,
        dark_counts=dark,
        saturation_counts=None,
        bad_pixels=None,
        random={"all": np.random.default_rng(7)},
    )
    amplitudes = scan.amplitudes["all"]
    masks = np.zeros(amplitudes.shape, bool)
    masks[5, 3, 4] = masks[9, 8, 8] = masks[20, 1, 2] = True
    path = tmp_path_factory.mktemp("base") / "scan.npz"
    arrays = {
        "diffraction": np.where(masks, 0, amplitudes).astype(np.float32),
        "probeGuess": scan.probe,
        "objectGuess": scene.object_.astype(np.complex64),
        "ycoords": scene.positions_px[:, 0].copy(),
        "xcoords": scene.positions_px[:, 1].copy(),
        "background": dark,
        "bad_pixels": masks,
    }
    save_dataset(path, arrays, {"domain": "amplitude"}, base=True)
    return path


def test_all_arms_of_a_study_take_modes_a_background_and_masks_of_each_pattern(base_npz, tmp_path):
    settings = [*STUDY_SETTINGS, "iterative.algorithms=[LSQML, solver, DM]"]
    design = load_design("smoke", settings, base_data(base_npz), source="measured")
    run = create_run(tmp_path / "run", design, base_npz)
    condition = run.condition(DOSE, "baseline")
    make_reference(run.condition(DOSE))
    generate(run.condition(DOSE))
    choose_view(condition)
    for split in ("train", "test"):
        reconstruct(run.condition(DOSE, "baseline", split))
    train(run.condition(DOSE, "baseline", "train"))
    train_thinned(run.condition(DOSE, "baseline", "train"))

    rows = {row["arm"]: row for row in compare(condition)}

    assert set(rows) == set(arms_of(design))
    measurement = condition.measurement()
    assert measurement.probe.shape[0] == 2
    assert measurement.bad_pixels.shape == measurement.amplitudes.shape
    share = DOSE / PHOTONS_PER_PATTERN
    assert measurement.background.mean() == pytest.approx(BACKGROUND * share, rel=0.05)
    for arm in ("solver", "thinning-net", "lsqml"):
        assert rows[arm]["phase_ssim"] > 0.5, arm
