"""A run with listed values of a mismatch: each is a run of its own inside its folder."""

import csv
import itertools
import json
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from made_runs import made_run, row_of

from study_lib.data.contract import save_dataset
from study_lib.design.presets import load_design, parse_design
from study_lib.errors import InputError
from study_lib.files import read_json, write_json
from study_lib.phases.conditions import PHASES, runs_within, summary_files
from study_lib.phases.scene import require_room_for_defocus, scene_of
from study_lib.phases.summary import (
    collect_rows,
    mismatch_figures,
    rows_over_mismatch,
    summary_figures,
)
from study_lib.physics.probe import probe_diameter_px
from study_lib.runs.evidence import faults_of_records, faults_of_run
from study_lib.runs.forecast import check_feasible, derived_matrix, table_text
from study_lib.runs.plan import parameter_files, plan_content, plan_jobs
from study_lib.runs.results import compare_runs, read_results, write_results
from study_lib.runs.room import job_count
from study_lib.runs.rules import PLAN_FILE
from study_lib.runs.run import BASE_FILE, base_data, create_run, open_run, run_name
from study_lib.scores.across_runs import history
from study_lib.scores.study_table import study_table

TWO_FIELDS = ("mismatch.position_error_px=[0.5, 2]", "mismatch.defocus_error_percent=[10]")
FOLDERS = (
    "mismatch/position_error_px_0.5",
    "mismatch/position_error_px_2",
    "mismatch/defocus_error_percent_10",
)


@pytest.fixture
def design():
    return load_design("smoke", TWO_FIELDS)


# --- The design and its plan


def test_designs_without_lists_keep_their_digest_and_those_with_them_survive_json(design):
    before = [
        *("thinned.kept_positions=[1.0, 0.6]", "thinned.validation_share=0.15"),
        "thinned.epochs_in_turn=40",
    ]
    digests = [
        load_design("smoke", [*before, *settings]).digest  # as the preset had them
        for settings in ([], ["mismatch.position_error_px=1.5"], ["replicates=2"])
    ]

    assert digests == ["0a348d93", "57008532", "42742e64"]
    assert design.digest not in digests
    assert parse_design(design.model_dump(mode="json"), "again") == design
    assert design.model_dump(mode="json")["mismatch"]["position_error_px"] == [0.5, 2.0]


def test_a_level_has_its_value_the_numbers_of_all_and_no_other_list():
    settings = [*TWO_FIELDS, "mismatch.flux_jitter_percent=5", "replicates=2"]
    first, *others = runs_within(load_design("smoke", settings))

    assert first.design.mismatch.columns == {"mismatch_flux_percent": 5}
    assert [one.folder.as_posix() for one in others] == [
        "replicate_1",
        *(f"{folder}{end}" for folder in FOLDERS for end in ("", "_replicate_1")),
    ]
    for one in others:
        alone = {one.field: one.level} if one.field else {}
        assert one.design.mismatch.amounts == {"flux_jitter_percent": 5.0} | alone
        assert one.design.mismatch.lists == {}
        assert one.design.replicates == 1
        assert one.design == parse_design(one.design.model_dump(mode="json"), "again")
    assert [one.design.replicate for one in others] == [1, 0, 1, 0, 1, 0, 1]


def test_networks_are_trained_in_the_first_replicates_of_each_level():
    settings = ["replicates=3", "trained_replicates=2", "mismatch.position_error_px=[1]"]

    trained = [
        one.design.training is not None for one in runs_within(load_design("smoke", settings))
    ]

    assert trained == [True, True, False] * 2


def test_every_level_has_every_job_but_design_and_summary(design):
    jobs = plan_jobs(design)
    single = [
        job for job in plan_jobs(load_design("smoke")) if job.notebook[:2] not in ("00", "06")
    ]

    names = [job.name for job in jobs]
    assert len(set(names)) == len(names) == 2 + 4 * len(single) == job_count(design)
    outputs = [path for job in jobs for path in job.outputs]
    assert len(set(outputs)) == len(outputs), "never two writers of one file"
    for job, folder in itertools.product(single, FOLDERS):
        label = Path(folder).name
        (twin,) = (one for one in jobs if one.name == f"{job.name}__{label}")
        assert twin.parameters == job.parameters | {"run_folder": folder}
        assert list(twin.outputs) == [f"{folder}/{path}" for path in job.outputs]
        assert list(twin.after) == [f"{name}__{label}" for name in job.after]
    *_, summary = jobs
    assert sum("05_compare" in name for name in summary.after) == 4 * 6


def test_replicates_multiply_the_jobs_of_every_level():
    settings = [*TWO_FIELDS, "replicates=3", "trained_replicates=1"]
    design = load_design("smoke", settings)

    assert len(plan_jobs(design)) == job_count(design)


def test_the_run_itself_is_decided_by_what_it_is_without_the_lists(design):
    """So that it can be taken from a run without lists, and a level from one with other values."""
    plain = {job.name: job.design_part for job in plan_jobs(load_design("smoke"))}
    more = load_design("smoke", ["mismatch.position_error_px=[2, 3]"])
    parts, other = ({job.name: job.design_part for job in plan_jobs(one)} for one in (design, more))

    of_all = {name for name in plain if not name.startswith(("00", "06"))}
    assert {name: parts[name] for name in of_all} == {name: plain[name] for name in of_all}
    assert parts["06_summary"] != plain["06_summary"]
    shared = [name for name in parts if name.endswith("position_error_px_2")]
    assert shared
    assert [parts[name] for name in shared] == [other[name] for name in shared]
    assert not {parts[name] for name in shared} & set(plain.values())


def test_the_plan_in_words_tells_the_levels_and_costs_as_many_times(design):
    plain = load_design("smoke")
    scene = scene_of(design)
    derived, alone = derived_matrix(design, scene), derived_matrix(plain, scene)

    levels = "position error 0.5, 2 px, defocus error 10 %"
    assert f"again with each of these, one at a time: {levels}" in table_text(derived)
    assert "one at a time" not in table_text(alone)
    ratio = derived["estimated_cpu_minutes"] / alone["estimated_cpu_minutes"]
    assert 3.5 < ratio <= 4
    assert derived["estimated_disk_gb"] == pytest.approx(4 * alone["estimated_disk_gb"])


def test_parameter_files_are_those_of_the_run_itself(design):
    assert parameter_files(design, "here") == parameter_files(load_design("smoke"), "here")


# --- The folder


def test_each_level_is_a_run_of_its_own_with_its_design(design, tmp_path):
    run = create_run(tmp_path / "run", design)

    for one in runs_within(design):
        assert open_run(run.folder / one.folder).design == one.design


def test_levels_share_the_base_data(tiny_run, tmp_path):
    from study_lib.data.contract import load_dataset

    base = tmp_path / "measured.npz"
    save_dataset(base, *load_dataset(tiny_run.condition(1e4, split="train").whole_file))
    settings = ["replicates=2", "mismatch.position_error_px=[1]"]
    run = create_run(tmp_path / "run", load_design("smoke", settings, base_data(base)), base)

    for name in ("position_error_px_1", "position_error_px_1_replicate_1"):
        nested = open_run(run.folder / "mismatch" / name)
        assert nested.base_npz.samefile(run.folder / BASE_FILE)
        assert [path.name for path in nested.folder.iterdir()] == ["design.json"]


def test_a_changed_design_of_a_level_is_a_fault(design, tmp_path):
    run = create_run(tmp_path / run_name(design), design)
    write_json(run.folder / PLAN_FILE, plan_content(plan_jobs(design)))
    faults = faults_of_records(run.folder)
    assert all(fault.endswith(": not done") for fault in faults)

    path = run.folder / FOLDERS[0] / "design.json"
    write_json(path, read_json(path) | {"mismatch": {"position_error_px": 0.6}})

    (new,) = set(faults_of_records(run.folder)) - set(faults)
    assert new == f"{FOLDERS[0]}/design.json: is not the design of this level of a mismatch"


def test_a_defocus_that_leads_a_base_probe_out_of_its_patch_is_refused(base_file, tiny_design_with):
    path, arrays = base_file()
    y, x = np.indices((16, 16)) - 8
    arrays["probeGuess"] = np.exp(-(y**2 + x**2) / 50).astype(np.complex64)
    save_dataset(path, arrays, {}, base=True)
    base = base_data(path)
    usual = tiny_design_with(base=base)
    diameter_px = probe_diameter_px(arrays["probeGuess"], usual.probe_power_share)
    most = int(100 * (usual.patch_size_px / diameter_px - 1))
    assert 0 < most < 100

    for text, fits in ((f"{most}", True), (f"{most + 1}", False), (f"[1, {most + 1}]", False)):
        design = tiny_design_with(f"mismatch.defocus_error_percent={text}", base=base)
        if fits:
            require_room_for_defocus(design, arrays["probeGuess"])
            continue
        with pytest.raises(InputError, match=f"= {most + 1}; at most {most} for the probe of"):
            check_feasible(design, scene_of(design, path))


# --- Its results


@pytest.fixture
def with_levels(tmp_path):
    """Return the folder of a run of two replicates whose levels have made-up rows."""

    def made(name="levels", values=(0.5, 2.0)):
        rows = [row_of(replicate=one, phase_psnr_db=30.0 - one) for one in (0, 1)]
        settings = [f"mismatch.position_error_px={list(values)}", "replicates=2"]
        folder = made_run(tmp_path / name, rows, *settings)
        for one in runs_within(open_run(folder).design):
            if one.field:
                psnr_db = 30.0 - one.design.replicate - one.level
                row = row_of(replicate=one.design.replicate, phase_psnr_db=psnr_db)
                place = folder / one.folder / PHASES["compare"] / "dose_10000" / "dense" / "test"
                write_json(place / "metrics.json", [row | {"mismatch_position_px": one.level}])
        return folder

    return made


def test_rows_of_a_level_are_never_among_those_of_the_run(with_levels):
    compared = with_levels() / PHASES["compare"]

    assert [row["phase_psnr_db"] for row in collect_rows(compared)] == [30.0, 29.0]
    over = rows_over_mismatch(compared)["position_error_px"]
    found = {level: [row["phase_psnr_db"] for row in rows] for level, rows in over.items()}
    assert found == {0.0: [30.0, 29.0], 0.5: [29.5, 28.5], 2.0: [28.0, 27.0]}


def test_the_figure_has_a_line_over_the_values_and_a_panel_for_each_quality(with_levels):
    figures = mismatch_figures(rows_over_mismatch(with_levels() / PHASES["compare"]))

    (figure,) = figures.values()
    assert [axis.get_ylabel() for axis in figure.axes] == [
        "phase error, root mean square [rad]",
        "phase SSIM",
        "FRC crossing / Nyquist",
    ]
    for axis in figure.axes:
        assert axis.get_xlabel() == "position error [px]"
        assert list(axis.lines[0].get_xdata()) == [0, 0.5, 2]


def test_the_results_of_all_runs_hold_the_levels_and_history_does_not_mix_them(with_levels):
    folder = with_levels()

    frame = pd.read_parquet(write_results(folder))

    assert len(frame) == 6
    levels = frame[frame["mismatch_level_of"] == "position_error_px"]
    assert sorted(levels["mismatch_position_px"]) == [0.5, 0.5, 2, 2]
    assert frame["mismatch_level_of"].isna().sum() == 2
    rows = read_results(folder.parent)
    (row,) = history(rows, arm="solver", metric="phase_psnr_db", split="test")
    assert (row["value"], row["replicates"]) == (29.5, 2)


def test_runs_with_other_levels_are_compared_by_what_both_have(with_levels):
    compared = compare_runs([with_levels("one"), with_levels("two", (1.0, 2.0))])

    assert {row["difference"] for row in compared.rows if row["metric"] == "phase_psnr_db"} == {0.0}
    assert [fact["name"] for fact in compared.facts] == ["mismatch.position_error_px"]


def test_a_summary_writes_a_table_and_a_figure_for_each_list(design):
    plain = {path.name for path in summary_files(Path(), load_design("smoke"))}

    more = {path.name for path in summary_files(Path(), design)} - plain

    fields = ("position_error_px", "defocus_error_percent")
    assert more == {f"mismatch_{field}.{end}" for field in fields for end in ("csv", "png", "svg")}


def diagonal(count):
    """Return rows of points that each have a dose and a view of their own."""
    return [
        row_of(
            dose=1000.0 + place,
            view=f"overlap_{place}",
            overlap=place / count,
            phase_error_over_limit=None,
            photon_limit_phase_rad=None,
        )
        for place in range(count)
    ]


@pytest.mark.parametrize(("count", "said"), [(6, ""), (14, ", 12 of 14 pairs of dose and view")])
def test_the_figure_has_panels_for_pairs_that_exist_and_for_twelve_at_most(count, said):
    rows = diagonal(count)

    (figure,) = mismatch_figures({"position_error_px": {0.0: rows, 1.0: rows}}).values()

    drawn = [axis.get_title() for axis in figure.axes if axis.axison]
    assert len(drawn) == 3 * min(count, 12), "three qualities"
    assert {"overlap_0, 1000 photons per pattern", drawn[-1]} <= set(drawn)
    assert drawn[-1] == f"overlap_{count - 1}, {999 + count} photons per pattern"
    assert all(axis.lines for axis in figure.axes if axis.axison)
    assert figure.get_suptitle() == f"test split{said}"


def test_figures_of_many_doses_and_views_show_twelve_and_say_so(tmp_path, monkeypatch):
    monkeypatch.setattr("study_lib.phases.summary.dose_figure", lambda *_: None)
    rows = diagonal(14)
    table = study_table(rows)

    found = summary_figures(tmp_path / PHASES["compare"], rows, table, [])

    for name, words in (("phase_error", "views"), ("cost", "doses")):
        assert found[name].get_suptitle() == f"test split, 12 of 14 {words}"
        assert sum(axis.axison for axis in found[name].axes) == 12
    heat, *_ = found["phase_ms_ssim"].axes
    assert not heat.texts
    assert np.isfinite(heat.images[0].get_array().filled(np.nan)).sum() == 14


@pytest.mark.slow
@pytest.mark.notebook
def test_quality_falls_with_the_error_and_the_run_itself_knows_nothing_of_it(study, tmp_path):
    """Solver alone; the run without the list takes all of its conditions, and has its tables."""
    settings = (
        "views=[{name: baseline, gridsize: 1}]",
        "training=null",
        "thinned=null",
        "iterative.algorithms=[solver]",
        "iterative.denoised=false",
        "metrics.photon_limit_solves=0",
    )
    words = ["run", "--preset", "smoke", *(part for one in settings for part in ("--set", one))]

    ended = study(*words, "--set", "mismatch.position_error_px=[1, 3]")
    assert ended.code == 0, ended.out[-2000:] + ended.err[-2000:]
    (folder,) = (path.parent for path in (tmp_path / "reports").glob("*/design.json"))
    alone = study(*words)
    assert alone.code == 0, alone.out[-2000:] + alone.err[-2000:]
    (plain,) = {path.parent for path in (tmp_path / "reports").glob("*/design.json")} - {folder}

    assert faults_of_run(folder) == []
    summary = folder / PHASES["summary"]
    with (summary / "mismatch_position_error_px.csv").open(encoding="utf-8") as file:
        rows = [row for row in csv.DictReader(file) if row["split"] == "test"]
    assert [float(row["level"]) for row in rows] == [0, 1, 3]
    for metric in ("phase_psnr_db", "phase_ssim", "frc_crossing"):
        first, second, third = (float(row[metric]) for row in rows)
        assert first > second > third
    content = json.loads((summary / "summary.json").read_text())
    ((_, _, level),) = content["mismatch"]["tables"][0]["rows"]
    assert 0 < float(level) < 1, "several decibels are lost at one pixel"
    assert "What an unknown error costs" in (folder / "index.html").read_text(encoding="utf-8")
    for name in ("table.csv", "table_train.csv", "study_table.csv", "least_dose.csv"):
        assert (summary / name).read_bytes() == (plain / PHASES["summary"] / name).read_bytes()
    taken = [read_json(path).get("taken_from") for path in plain.glob("jobs/0[1-5]*/done.json")]
    assert taken == [folder.name] * 6
    assert not list(plain.glob("mismatch*"))
