"""Doses and overlaps of a study on the command line, and what is refused before a kernel starts."""

import json

import pytest


def design_of(study, *words):
    code, out, error = study("design", "--preset", "smoke", "--json", *words)
    assert code == 0, error
    return json.loads(out)


def test_doses_and_overlaps_make_the_study(study):
    found = design_of(study, "--doses", "1e3..1e5/3", "--overlaps", "0.7,0.5")

    assert found["design"]["doses"] == [1e3, 1e4, 1e5]
    assert [(view["name"], view["gridsize"]) for view in found["design"]["views"]] == [
        ("overlap_70", 1),
        ("overlap_50", 1),
    ]
    for row in found["derived"]["views"]:
        assert row["overlap"] == pytest.approx(row["target_overlap"], abs=0.02)
    assert sum("04_reconstruct" in name for name in found["jobs"]) == 3 * 2 * 2


def test_photons_of_a_pattern_are_shown_for_each_view_where_the_area_has_the_dose(study):
    words = (
        "--preset",
        "smoke",
        "--set",
        "dose_per=area",
        "--doses",
        "20",
        "--overlaps",
        "0.7,0.3",
    )
    code, out, _ = study("design", *words)
    found = design_of(study, *words[2:])

    assert code == 0
    assert "photons per object pixel  photons per pattern" in out
    totals = {
        (row["view"], row["split"]): row["patterns"] * row["photons_per_pattern"][0]
        for row in found["derived"]["views"]
    }
    for split in ("train", "test"):
        assert totals["overlap_70", split] == pytest.approx(totals["overlap_30", split])


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--doses", "1e3,many"], "--doses: 'many' is neither a number nor a range; write 1e3"),
        (["--doses", "1e3..1e6"], "--doses: '1e3..1e6' is neither a number nor a range"),
        (["--doses", "1e3,1e3"], "leave out the repeated dose"),
        (["--doses", "0.5"], "0.5 photons in a pattern; at least 1; raise doses"),
        (["--doses", "-3"], "found -3.0; input should be greater than 0"),
        (["--doses", "1e13"], "photons in a pattern; at most 1e+12: beyond, single precision"),
        (["--overlaps", "0.5,0.5"], "leave out the repeated view"),
        (["--overlaps", "1.5"], "views.0.target_overlap: found 1.5; input should be less than 1"),
        (["--overlaps", "0.99"], "target_overlap = 0.99; this scan's train split allows"),
        (["--sobol", "9"], "--sobol 9: give the ranges too, like --doses 1e3..1e6 --overlaps"),
        (["--points", "none.csv"], "none.csv: not readable as a CSV table"),
        (["--points", "some.csv", "--doses", "1e3"], "leave out --doses, --overlaps and --sobol"),
        (
            ["--sobol", "9", "--doses", "1e3..1e5", "--overlaps", "0.3..0.6", "--set", "doses=[5]"],
            "--sobol has the doses and overlaps; leave out --set doses=[5]",
        ),
        (["--overlaps", "half"], "--overlaps: 'half' is neither a number nor a range"),
        (["--wanted", "sharp"], "wanted 'sharp': write a score and a level, like phase_error=0.05"),
        (["--wanted", "frc=20nm"], "the size of an object pixel is not known; set pixel_size_m"),
        (["--set", "dose_per=um2"], "the size of an object pixel is not known; set pixel_size_m"),
        (["--set", "dose_per=area", "--doses", "0.001"], "photons in a pattern; at least 1"),
        (["--set", "pixel_size_m=1.0"], "at most 0.001: a millimetre"),
        (
            ["--set", "views=[{name: a, gridsize: 1, step_px: 1.0}]"],
            "a step of 1 pixels is wanted; the scan has one of",
        ),
        (
            ["--set", "views=[{name: a, gridsize: 1, number: 9999}]"],
            "9999 of 150 positions would be kept",
        ),
        (["--set", "trained_replicates=0"], "trained_replicates: found 0"),
    ],
)
@pytest.mark.parametrize("command", ["run", "plan"])
def test_what_no_study_can_be_made_of_is_refused(command, words, message, study, tmp_path):
    code, _, error = study(command, "--preset", "smoke", *words)

    assert code == 2
    assert message in error
    assert not list(tmp_path.glob("reports/*"))


def test_a_dose_of_a_phase_command_is_a_filter_and_says_so(study):
    assert "Only this dose of the design" in study("train", "--help").out


@pytest.mark.parametrize("preset", ["overlap", "budget"])
def test_the_sweeps_are_as_they_say(preset, study):
    code, out, _ = study("design", "--preset", preset, "--json")
    content = json.loads(out)
    design, views = content["design"], content["derived"]["views"]

    assert code == 0
    assert {view["gridsize"] for view in design["views"]} == {1}
    assert all(row["target_reached"] for row in views)
    assert (design["replicates"], design["trained_replicates"]) == (3, 1)
    counts = {"overlap": (2, 8), "budget": (4, 6)}[preset]
    assert (len(design["doses"]), len(design["views"])) == counts
