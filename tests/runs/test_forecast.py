"""What follows from a design agrees with the original study's figures and with the run itself."""

import json
import subprocess
import sys

import pytest
from command_line import exit_code
from jsonschema import ValidationError, validate
from tiny_runs import generated

from study_lib.data.contract import load_dataset
from study_lib.design.models import StudyDesign
from study_lib.design.presets import load_design
from study_lib.phases.scene import scene_of
from study_lib.runs.forecast import derived_matrix, table_text
from study_lib.runs.plan import plan_jobs


def derived(design: StudyDesign):
    return derived_matrix(design, scene_of(design))


@pytest.fixture(scope="module")
def fly64():
    return derived(load_design("fly64"))


def test_spacing_thresholds_are_those_of_the_original_study(fly64):
    thresholds = {row["view"]: row["spacing_threshold_px"] for row in fly64["views"]}
    assert thresholds == {
        "baseline": None,
        "dense": pytest.approx(38.4),
        "sparse": pytest.approx(102.4),
    }


def test_counts_per_pixel_are_those_the_original_study_recorded(fly64):
    """0.061, 0.61 and 6.1 photons per pixel at 1e3, 1e4 and 1e5 for N = 128."""
    per_pixel = {row["photons_per_pattern"]: row["counts_per_pixel"] for row in fly64["doses"]}

    assert per_pixel[1e3] == pytest.approx(0.061, abs=5e-4)
    assert per_pixel[1e5] == pytest.approx(6.1, abs=5e-2)


def test_the_guard_band_is_wider_than_a_patch(fly64):
    assert fly64["guard_band_px"] == 129
    assert fly64["positions"] == {"train": 5152, "test": 5152, "guard_band": 0}


def test_the_matrix_says_what_the_run_then_uses(tiny_run):
    dose, matrix = tiny_run.design.doses[0], derived(tiny_run.design)

    for row in matrix["views"]:
        arrays, _ = load_dataset(tiny_run.condition(dose, row["view"], row["split"]).file)
        assert row["patterns"] == len(arrays["diffraction"])
        assert row["groups"] == len(arrays.get("groups", arrays["diffraction"]))
    for split in ("train", "test"):
        arrays, _ = load_dataset(tiny_run.condition(dose, split=split).whole_file)
        assert matrix["positions"][split] == len(arrays["xcoords"])
        assert matrix["object_shape_px"] == list(arrays["objectGuess"].shape)
    assert sum(matrix["jobs"].values()) == len(plan_jobs(tiny_run.design))


def test_a_target_the_scan_cannot_reach_is_said(tiny_design_with):
    sparse_scan = tiny_design_with("scan.step_px=9.0", "specimen.largest_grain_px=8.0")

    text = table_text(derived(sparse_scan))

    assert "target not reached by this scan" in text


def test_more_epochs_and_doses_take_longer(tiny_design_with):
    minutes = [
        derived(tiny_design_with(*settings))["estimated_cpu_minutes"]
        for settings in (
            (),
            ("iterative.epochs=4",),
            ("training.epochs=3",),
            ("doses=[1.0e+3, 1.0e+4]",),
        )
    ]

    assert min(minutes[1:]) > minutes[0]


def test_the_true_patches_take_the_disk_space_that_is_forecast(tiny_design_with, tmp_path):
    forecast, found = [], []
    for patches in ("false", "true"):
        design = tiny_design_with(f"object_patches={patches}")
        forecast.append(1e9 * derived(design)["estimated_disk_gb"])
        generated(tmp_path / patches, design)
        found.append(sum(path.stat().st_size for path in (tmp_path / patches).rglob("*.npz")))

    assert forecast[1] - forecast[0] == pytest.approx(found[1] - found[0], rel=0.05)


def test_the_command_prints_the_whole_matrix(capsys):
    assert exit_code("design", "--preset", "fly64") == 0

    text = capsys.readouterr().out
    for expected in ("38.4", "102.4", "129 rows", "0.061", "90 jobs", "processor minutes"):
        assert expected in text


def test_json_holds_design_matrix_and_jobs(capsys):
    assert exit_code("design", "--preset", "smoke", "--json") == 0

    content = json.loads(capsys.readouterr().out)
    design = load_design("smoke")
    assert content["design"] == design.model_dump(mode="json")
    assert content["derived"]["digest"] == design.digest
    assert content["jobs"] == [job.name for job in plan_jobs(design)]


def test_the_schema_accepts_every_preset_and_refuses_a_misspelling(capsys):
    assert exit_code("design", "--schema") == 0

    schema = json.loads(capsys.readouterr().out)
    for preset in ("smoke", "laptop", "fly64"):
        validate(load_design(preset).model_dump(mode="json"), schema)
    misspelt = load_design("smoke").model_dump(mode="json") | {"neighbour_count": 7}
    with pytest.raises(ValidationError, match="neighbour_count"):
        validate(misspelt, schema)


@pytest.mark.slow
def test_the_command_line_answers_without_torch():
    code = (
        "import sys; sys.argv = ['study', 'design', '--preset', 'fly64']\n"
        "from study_lib.cli.main import main\n"
        "try:\n    main()\nexcept SystemExit:\n    pass\n"
        "assert 'torch' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code], check=True, capture_output=True)
