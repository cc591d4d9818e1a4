"""Base data with counts: studied by their own unless asked otherwise, and what is refused then."""

import json

import numpy as np
import pytest
from measured_data import DOSE, PHOTONS_PER_PATTERN, STUDY_SETTINGS, write_measurement

from study_lib.data.archive import read_npz
from study_lib.data.contract import save_dataset


@pytest.fixture
def words(tmp_path) -> list[str]:
    """A call about a small measurement, without its first word."""
    write_measurement(tmp_path / "scan.npz")
    words = ["--preset", "smoke", "--base-npz", "scan.npz"]
    for setting in STUDY_SETTINGS:
        words += ["--set", setting]
    return words


def design_in(out: str) -> dict:
    return json.loads(out)["design"]


def test_measured_counts_are_the_default_of_data_that_have_them(study, words):
    done = study("design", *words, "--json")
    assert done.code == 0
    design = design_in(done.out)
    assert design["source"] == "measured"
    assert design["replicates"] == 3
    assert "its own counts, patterns of 16 pixels a side, 3 draws of the photons" in done.err
    assert "networks in the first 1 (--set trained_replicates=3 for all)" in done.err


def test_simulated_counts_are_one_word_away_and_their_design_is_as_it_was(study, words):
    simulated = study("design", *words, "--simulated", "--json")
    assert simulated.code == 0
    design = design_in(simulated.out)
    assert not {"source", "reference_epochs", "trained_replicates"} & design.keys() - {
        "reference_epochs"  # set by the call
    }
    assert design["replicates"] == 1


def test_plan_has_the_references_before_any_dose(study, words):
    planned = study("plan", *words)
    assert planned.code == 0
    assert "01_reference: 3 to do" in planned.out


REFUSED = {
    "detector.dark_counts=1": "detector.dark_counts: belongs to simulated counts",
    "mismatch.position_error_px=1": "mismatch.position_error_px: belongs to simulated counts",
    "specimen.grain_count=3": "specimen.grain_count: belongs to simulated counts",
    "probe.stop_ratio=0.3": "probe.stop_ratio: belongs to simulated counts",
    "scan.kind=raster": "scan.kind: belongs to simulated counts",
    "patch_size_px=32": "patterns of scan.npz have 16 pixels a side",
    f"doses=[{PHOTONS_PER_PATTERN}]": "The largest dose possible is",
}


@pytest.mark.parametrize("setting", list(REFUSED))
def test_what_measured_counts_cannot_do_is_refused_by_name(study, words, setting):
    refused = study("design", *words, "--set", setting)
    assert refused.code == 2
    assert REFUSED[setting] in refused.err
    assert "--simulated" in refused.err


def test_the_largest_dose_that_is_named_is_possible_and_half_of_what_was_measured(study, words):
    refused = study("design", *words, "--doses", "1e3,1e9")
    largest = float(refused.err.partition("The largest dose possible is ")[2].partition(";")[0])
    assert largest == pytest.approx(PHOTONS_PER_PATTERN / 2, rel=0.02)
    assert study("design", *words, "--doses", f"1e3,{largest:g}").code == 0


def test_at_a_dose_per_area_the_view_that_allows_least_says_how_much(study, words):
    per_pixel = (*words, "--set", "dose_per=pixel")
    refused = study("design", *per_pixel, "--doses", "100,1e4")
    assert refused.code == 2
    assert "view sparse" in refused.err
    largest = float(refused.err.partition("The largest dose possible is ")[2].partition(";")[0])
    assert study("design", *per_pixel, "--doses", f"100,{largest:g}").code == 0
    assert study("design", *per_pixel, "--doses", f"100,{1.02 * largest:g}").code == 2


CALLS = {
    "generate": ("--output-root", "data", "--dose", DOSE),
    "plan": (),
    "run": ("--reports", "data"),
}


@pytest.mark.parametrize("command", list(CALLS))
def test_data_whose_values_are_no_photons_stop_before_anything_is_computed(
    study, words, tmp_path, command
):
    write_measurement(tmp_path / "scan.npz", counted=lambda counts: 1.5 * counts)
    refused = study(command, *words, *CALLS[command])
    assert refused.code == 2
    assert "of its counts are whole numbers" in refused.err
    assert "--simulated" in refused.err
    assert not list((tmp_path / "data").rglob("*.*"))


def test_an_arm_that_does_not_model_the_masks_is_refused_before_anything_is_computed(
    study, words, tmp_path
):
    """A different pixel is bad in each pattern, and pty-chi has one mask for all of them."""
    write_measurement(tmp_path / "scan.npz", each_masked=True)
    some = ["--set", "iterative.algorithms=[LSQML, solver, rPIE]"]

    refused = study("run", *words, *some, "--reports", "reports")

    assert refused.code == 2
    assert "iterative.algorithms: view baseline, train split: pty-chi's LSQML takes" in refused.err
    assert "pty-chi's rPIE takes one mask for all patterns" in refused.err
    remedy = refused.err.strip().rpartition("give --set ")[2].strip("'")
    assert remedy == "iterative.algorithms=[solver]"
    assert not (tmp_path / "reports").exists()
    assert study("plan", *words, "--set", remedy).code == 0


def test_an_arm_that_does_not_model_the_background_is_refused_before_anything_is_computed(
    study, words, tmp_path
):
    arrays, metadata = read_npz(tmp_path / "scan.npz")
    counts = np.round(arrays["diffraction"] ** 2)
    for strength, code in ((0.001, 0), (0.1, 2)):
        dark = np.full(counts.shape[1:], strength * counts.mean(), np.float32)
        save_dataset(tmp_path / "scan.npz", arrays | {"background": dark}, metadata, base=True)
        done = study("design", *words, "--set", "iterative.algorithms=[LSQML, DM]")
        assert done.code == code, done.err
    assert "pty-chi's DM has no background" in done.err
    assert "give --set 'iterative.algorithms=[LSQML]'" in done.err


def test_normalized_patterns_are_no_counts_and_their_object_is_simulated_on(study, words, tmp_path):
    arrays, metadata = read_npz(tmp_path / "scan.npz")
    scale = arrays["diffraction"].max()
    for name in ("diffraction", "probeGuess"):
        arrays[name] = (arrays[name] / scale).astype(arrays[name].dtype)
    metadata |= {"photon_scale": "none"}
    save_dataset(tmp_path / "scan.npz", arrays, metadata, base=True)
    done = study("design", *words, "--json")
    assert done.code == 0
    assert "source" not in design_in(done.out)


def test_measured_counts_without_base_data_are_refused(study):
    refused = study("design", "--preset", "smoke", "--set", "source=measured")
    assert refused.code == 2
    assert "there are no counts without base data" in refused.err
