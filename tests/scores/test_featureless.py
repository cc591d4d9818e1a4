"""An empty object, noise, or a training that learned nothing is called that and has no score."""

import json

import numpy as np
import pytest
from tiny_runs import generated, with_views

from study_lib.phases.compare import compare
from study_lib.phases.summary import summarize
from study_lib.scores.featureless import is_featureless
from study_lib.scores.scoring import scores_of

CROP = np.s_[10:58, 12:72]


@pytest.fixture
def truth(tiny_design_with):
    from study_lib.phases.scene import scene_of

    design = tiny_design_with("patch_size_px=32", "scan.rows=10", "scan.columns=15")
    return scene_of(design).object_


@pytest.fixture
def noise(rng, truth):
    return rng.standard_normal(truth.shape)


@pytest.mark.parametrize("kind", ["empty", "weak noise", "strong noise", "darker", "turned"])
def test_an_object_without_features_has_no_score(kind, truth, noise):
    object_ = {
        "empty": np.ones_like(truth),
        "weak noise": np.exp(0.02j * noise),
        "strong noise": np.exp(0.8j * noise),
        "darker": np.full_like(truth, 0.3),
        "turned": np.full_like(truth, np.exp(2j)),
    }[kind].astype(np.complex64)
    mask = np.ones(truth[CROP].shape, bool)

    scores, _ = scores_of(object_, truth, CROP, mask, registration_limit_px=3.0, frc_threshold=0.5)

    assert scores["registration"] == "featureless"


@pytest.mark.parametrize("noise_rad", [0.0, 0.05, 0.1])
def test_an_object_with_features_has_one_however_noisy(noise_rad, truth, noise):
    mask = np.ones(truth[CROP].shape, bool)

    assert not is_featureless(truth[CROP] * np.exp(1j * noise_rad * noise[CROP]), truth[CROP], mask)


def test_fine_detail_alone_is_no_object(truth):
    """Nearer to the truth than a constant, but its first rings are wrong."""
    mask = np.ones(truth[CROP].shape, bool)
    spectrum = np.fft.fft2(np.angle(truth[CROP]))
    radius = np.hypot(*np.meshgrid(*map(np.fft.fftfreq, mask.shape), indexing="ij")) * max(
        mask.shape
    )
    slow = np.fft.ifft2(np.where(radius < 6.5, spectrum, 0)).real
    wrong = np.angle(truth[CROP]) - slow - 0.3 * slow[::-1, ::-1]

    assert is_featureless(np.abs(truth[CROP]) * np.exp(1j * wrong), truth[CROP], mask)


def test_a_training_that_learns_nothing_is_a_warning_on_screen_in_record_and_in_report(
    tmp_path, tiny_design_with, study
):
    rates = ("training.learning_rate=1e-9", "training.learning_rate_min=1e-9")
    run = with_views(generated(tmp_path / "run", tiny_design_with(*rates)))
    roots = [
        *("--phase-c-root", run.root("dataset"), "--phase-d-root", run.root("views")),
        *("--artifact-root", run.root("train"), "--view", "baseline"),
    ]

    code, _, error = study("train", *roots)
    condition = run.condition(1e4, "baseline")
    manifest = json.loads(condition.manifest("train").read_text())
    rows = compare(condition)
    summarize(run)
    said = (run.root("summary") / "summary.md").read_text()

    assert code == 0
    assert "warning: its loss stayed that of a featureless object (" in error
    assert '"stayed_featureless": true' in json.dumps(manifest)
    (row,) = [row for row in rows if row["arm"] == "pinn"]
    assert row["registration"] == "featureless"
    assert "its loss stayed that of a featureless object" in row["knows"]
    assert "Warning: training of PtychoPINN in phase_e_training/dose_10000/baseline" in said
