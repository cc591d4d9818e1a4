"""A design that names a material has its doses in gray in rows, tables, answers and report."""

import sys

import numpy as np
import pytest
from made_runs import made_run, row_of
from tiny_runs import generated, with_views

from study_lib.data.contract import load_dataset
from study_lib.design.notebooks import deciding_part
from study_lib.design.presets import load_design
from study_lib.errors import InputError
from study_lib.files import read_csv, read_json, write_json
from study_lib.phases.arms import ARMS, ArmResult
from study_lib.phases.compare import compare
from study_lib.phases.summary import collect_rows, differing_numbers, summarize
from study_lib.runs.plan import plan_jobs
from study_lib.runs.report import write_site
from study_lib.runs.run import create_run

PIXEL_M = 20e-9
WATER = (f"pixel_size_m={PIXEL_M}", "material={formula: H2O, energy_ev: 10000}")
GRAY_OF_A_PHOTON_PER_M2 = 10e3 * 1.602176634e-19 * 0.4944  # NIST's coefficient of water
TITLE = "dose [Gy]"


def perfect(condition, measurement, hash_of):
    return ArmResult("perfect", "all", condition.truth(), measurement.scan_index, 1.0, 0.0, ())


@pytest.fixture(scope="module")
def run(tmp_path_factory, tiny_design_with):
    """Two views at one dose, compared with an arm that is the truth, and summarised."""
    views = "views=[{name: every-one, gridsize: 1}, {name: half, gridsize: 1, s_img: 0.5}]"
    design = tiny_design_with(*WATER, views, "training=null", "thinned=null", "doses=[1e4]")
    run = create_run(tmp_path_factory.mktemp("gray") / "run", design)
    with_views(generated(run.folder, design))
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(ARMS, "perfect", perfect)
        for view in design.views:
            compare(run.condition(1e4, view.name))
    summarize(run)
    return run


def test_the_dose_of_a_row_is_that_of_the_photons_counted_on_the_specimen(run):
    for row in read_csv(run.root("summary") / "table.csv"):
        condition = run.condition(1e4, row["view"])
        lit_px = load_dataset(condition.file)[1]["lit_object_px"]
        counted = float(condition.measurement().counts.sum(dtype=np.float64))
        fluence = counted / (lit_px * PIXEL_M**2)

        assert float(row["dose_gy"]) == pytest.approx(fluence * GRAY_OF_A_PHOTON_PER_M2, rel=1e-3)


def test_half_the_patterns_put_half_the_dose_on_the_specimen(run):
    table = {row["view"]: row for row in read_csv(run.root("summary") / "study_table.csv")}
    ratio = float(table["half"]["patterns"]) / float(table["every-one"]["patterns"])

    found = float(table["half"]["dose_gy"]) / float(table["every-one"]["dose_gy"])

    assert found == pytest.approx(ratio, rel=0.1)
    assert ratio == pytest.approx(0.5, rel=0.1)


def test_summary_and_report_say_what_the_dose_is_of(run):
    text = (run.root("summary") / "summary.md").read_text(encoding="utf-8")
    page = write_site(run.folder, plan_jobs(run.design)).read_text(encoding="utf-8")
    (row, *_) = read_csv(run.root("summary") / "table.csv")

    for shown in (text, page):
        assert TITLE in shown
        assert f"{float(row['dose_gy']):.2e}" in shown
        assert "mass photoabsorption coefficient 0.494 m2/kg" in shown
        assert "10.1016/j.elspec.2008.10.008" in shown
    assert "[Gy]" in read_json(run.root("summary") / "summary.json")["answer_tables"][-1]["title"]
    assert differing_numbers(run) == []


def test_a_dose_that_does_not_follow_from_the_counts_is_found(run):
    path = run.root("summary") / "summary.json"
    summary = read_json(path)
    first, *others = summary["study_table"]
    changed = {**first, "dose_gy": 2 * first["dose_gy"]}

    write_json(path, {**summary, "study_table": [changed, *others]})
    found = differing_numbers(run)
    write_json(path, summary)

    assert len(found) == 1
    assert "dose_gy" in found[0]


def rows_at(*doses, per_dose=2.0):
    return [
        row_of(dose=dose, photons_measured=dose, photons_per_object_pixel=per_dose * dose)
        | {"phase_mse_rad2": 100 / dose}
        for dose in doses
    ]


def test_the_least_dose_is_told_in_gray_too(tmp_path, study):
    """An error of 0.1 rad at 1e4: 2e4 photons on a pixel of 20 nm, 5e19 per m^2."""
    folder = made_run(tmp_path / "run", rows_at(1e3, 1e5), *WATER)

    found = study("answer", folder, "--wanted", "phase_error=0.1")

    gray = 2e4 / PIXEL_M**2 * GRAY_OF_A_PHOTON_PER_M2
    assert f"solver 10000 = {gray:.1e} Gy (dense)" in found.out


def test_a_dose_that_is_not_reached_stays_a_bound_in_gray(tmp_path, study):
    folder = made_run(tmp_path / "run", rows_at(1e4, 1e5), *WATER)

    found = study("answer", folder, "--wanted", "phase_error=0.5")

    assert "solver at most 10000 = at most " in found.out


def test_rows_that_do_not_know_their_area_have_no_dose_in_gray(tmp_path):
    folder = made_run(tmp_path / "run", [row_of()], *WATER)

    (row,) = collect_rows(folder / "phase_g_comparison")

    assert row["dose_gy"] is None


@pytest.mark.parametrize("mask", [(), ("detector.beamstop_radius_px=3",)])
def test_dark_counts_put_no_dose_on_the_specimen(mask, tmp_path, rng):
    """A hundred patterns of 10000 photons that are counted, on 1000 object pixels."""
    pixels = 32**2 - 25 * len(mask)  # pixels with a centre nearer than 3: 25
    counts = {dark: rng.poisson(1e4 + dark * pixels, 100).mean() for dark in (0, 9)}
    doses_gy = []
    for dark, mean in counts.items():
        row = row_of(photons_measured=mean, photons_per_object_pixel=mean * 100 / 1000)
        settings = (*WATER, *mask, f"detector.dark_counts={dark}")
        folder = made_run(tmp_path / f"dark_{dark}", [row], *settings)
        doses_gy.append(collect_rows(folder / "phase_g_comparison")[0]["dose_gy"])

    alone, with_dark = doses_gy
    assert with_dark == pytest.approx(alone, rel=0.01)
    assert alone == pytest.approx(1e3 / PIXEL_M**2 * GRAY_OF_A_PHOTON_PER_M2, rel=0.01)


def test_without_a_material_nothing_speaks_of_gray(tmp_path, study):
    folder = made_run(tmp_path / "run", rows_at(1e3, 1e5), WATER[0])

    found = study("answer", folder)

    assert "Gy" not in found.out
    assert all("dose_gy" not in row for row in collect_rows(folder / "phase_g_comparison"))


def test_a_design_without_a_material_is_the_design_of_before():
    plain = load_design("smoke")

    assert "material" not in plain.model_dump()
    assert load_design("smoke", ["material=null"]).digest == plain.digest
    assert load_design("smoke", WATER).digest != load_design("smoke", WATER[:1]).digest


def test_a_material_makes_no_job_run_again_but_the_summary():
    given, plain = (
        load_design("smoke", settings).model_dump(mode="json") for settings in (WATER, WATER[:1])
    )

    assert deciding_part(given, "05_compare") == deciding_part(plain, "05_compare")
    assert deciding_part(given, "06_summary") != deciding_part(plain, "06_summary")


@pytest.mark.parametrize(
    ("settings", "reason"),
    [
        (WATER[1:], "material = H2O: a dose in gray needs the size of an object pixel"),
        ([*WATER, "material.formula=Xx"], "--set material.formula=Xx: .*no chemical formula"),
        ([*WATER, "material.formula=Es"], "the tables end at Cf"),
        ([*WATER, "material.energy_ev=99"], "found 99; at least 100: the tables of absorption"),
        ([*WATER, "material.energy_ev=1e6"], "at most 800000: the tables of absorption end"),
        ([WATER[0], "material.formula=Au"], "material.energy_ev: missing; set it"),
        ([WATER[0], "material=Au"], "write a table of names and values, or null"),
    ],
)
def test_a_material_without_dose_is_refused_at_the_door(settings, reason):
    with pytest.raises(InputError, match=reason):
        load_design("smoke", settings)


def test_the_tables_are_read_only_where_a_design_has_a_material(monkeypatch):
    """They take most of a second, which no other design pays."""
    monkeypatch.setitem(sys.modules, "xraydb", None)  # None: to import it fails

    assert load_design("smoke", WATER[:1]).material is None
    with pytest.raises(ImportError):
        load_design("smoke", [WATER[0], "material={formula: Al2O3, energy_ev: 700}"])
