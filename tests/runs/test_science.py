"""The test bed: what one arm gains over the others in runs of several specimens."""

import csv
import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from made_runs import made_run, row_of

from study_lib.design.presets import load_design, preset_names
from study_lib.design.test_bed import PRESET, SPECIMENS, specimens_of
from study_lib.errors import InputError
from study_lib.figures.runs import gains_over_arms
from study_lib.files import read_json
from study_lib.phases.arms import arms_of
from study_lib.runs.plan import read_plan
from study_lib.runs.results import write_results
from study_lib.runs.science import read_science
from study_lib.runs.science_tables import write_science

SCRIPT = Path(__file__).parents[2] / "workflow" / "bed_table.py"
BEGIN, END = "<!-- test bed: written by workflow/bed_table.py -->", "<!-- end of the test bed -->"
SEEDS = 3
BETTER_DB = {"grains": 0.6, "cells": -0.4}


@pytest.fixture
def runs(tmp_path, rng) -> dict[str, Path]:
    """Two specimens, two doses, three arms; the network is above on one and below on the other."""
    return {
        specimen: made_run(
            tmp_path / specimen, rows_of(range(SEEDS), better, rng), "doses=[1e3, 1e4]"
        )
        for specimen, better in BETTER_DB.items()
    }


def rows_of(seeds, better, rng) -> list[dict]:
    rows = []
    for dose in (1e3, 1e4):
        for seed in seeds:
            psnr = 25 + rng.normal(0, 1)
            place = {"dose": dose, "replicate": seed, "phase_ssim_centred": 0.5}
            gain = better + rng.normal(0, 0.02)
            rows += [
                row_of("solver", phase_psnr_db=psnr, learned_parameters=0, **place),
                row_of(
                    "thinning-net",
                    phase_psnr_db=psnr + gain,
                    phase_error_over_wiener=0.9,
                    training_cpu_s=100.0,
                    learned_parameters=660_000,
                    **place | {"label": "thinning network"},
                ),
                row_of("lsqml", phase_psnr_db=10.0, registration="featureless", **place),
            ]
    return rows


def test_it_says_where_the_arm_is_ahead_and_where_behind(runs):
    science = read_science(runs)
    assert science.opponents == ["lsqml", "solver"]
    lsqml, solver = science.sentences()
    assert solver.startswith(
        "thinning network against solver, phase PSNR: ahead beyond chance in 2,"
    )
    assert "behind in 2 of 4 conditions" in solver
    assert "gains from -0.4" in solver
    assert "(cells" in solver
    assert "no condition has a score of both; without a score in 0 pairs" in lsqml
    assert lsqml.endswith("the other arm in 12.")


def test_means_have_no_number_where_a_seed_has_no_score(runs):
    means = {(one["specimen"], one["dose"], one["arm"]): one for one in read_science(runs).means()}
    assert means["grains", 1e3, "lsqml"]["phase_psnr_db"] is None
    assert means["grains", 1e3, "lsqml"]["no_score"] == SEEDS
    network = means["cells", 1e4, "thinning-net"]
    assert network["learned_parameters"] == 660_000
    assert network["phase_error_over_wiener"] == pytest.approx(0.9)
    assert network["phase_psnr_db_std"] > 0


def test_tables_hold_the_same_numbers(runs, tmp_path):
    science = read_science(runs)
    paths = write_science(science, tmp_path / "out")
    assert sorted(path.name for path in paths) == [
        "gains.csv",
        "rows.parquet",
        "science.json",
        "science.md",
    ]
    content = read_json(tmp_path / "out" / "science.json")
    with (tmp_path / "out" / "gains.csv").open(encoding="utf-8") as file:
        lines = list(csv.DictReader(file))
    assert len(lines) == len(content["gains"]) == len(science.gains)
    gains = [float(line["gain"]) for line in lines if line["gain"]]
    assert gains == pytest.approx([one.gain for one in science.gains if one.gain is not None])
    text = (tmp_path / "out" / "science.md").read_text(encoding="utf-8")
    assert "### grains, 1000 photons, dense" in text
    assert "| lsqml | no score |" in text.replace("LSQML", "lsqml")
    assert "over specimens" in text
    psnr = [one for one in science.gains if one.metric == "phase_psnr_db"]
    first = next(one for one in psnr if one.is_beyond_chance)
    assert f"{first.gain:+.2f} | {first.low:+.2f} to {first.high:+.2f}" in text


SETTINGS = ("doses=[1e3, 1e4]",)


def tables_of_seed(folder: Path, rows: list[dict], seed: int, *settings: str) -> tuple[Path, Path]:
    """Return the folders of a run of one seed and of its tables."""
    part = [row for row in rows if row["replicate"] == seed]
    run = made_run(folder / f"seed-{seed}", part, *SETTINGS, f"replicate={seed}", *settings)
    write_science(read_science({"grains": run}), folder / f"tables-{seed}")
    return run, folder / f"tables-{seed}"


def test_seeds_of_other_machines_are_added(tmp_path, rng):
    """The table of three runs of one seed each is that of one run of three seeds."""
    rows = rows_of(range(SEEDS), 0.6, rng)
    whole = read_science({"grains": made_run(tmp_path / "whole", rows, *SETTINGS)})
    (_, first), (_, second), (run, _) = (tables_of_seed(tmp_path, rows, n) for n in range(SEEDS))

    put_together = read_science({"grains": run}, earlier=[first, second])

    assert set(put_together.gains) == set(whole.gains)
    assert len(put_together.rows) == len(rows)
    assert [one["seeds"] for one in put_together.runs()] == [[0], [1], [2]]
    assert [one["run"] for one in put_together.runs()] == ["seed-0", "seed-1", "seed-2"]
    write_science(put_together, tmp_path / "all")
    again = read_science({}, earlier=[tmp_path / "all"])
    assert set(again.gains) == set(whole.gains)


def test_a_seed_that_is_there_twice_counts_once_as_it_is_in_the_run(tmp_path, rng):
    rows = rows_of(range(2), 0.6, rng)
    both = made_run(tmp_path / "both", rows, *SETTINGS)
    write_science(read_science({"grains": both}), tmp_path / "tables")
    other = rows_of([0], -9.0, rng)
    mine = made_run(tmp_path / "mine", other, *SETTINGS)

    found = read_science({"grains": mine}, earlier=[tmp_path / "tables"])

    assert [(one["run"], one["seeds"]) for one in found.runs()] == [("mine", [0]), ("both", [1])]
    psnr = {row["phase_psnr_db"] for row in found.rows if row["replicate"] == 0}
    assert psnr == {row["phase_psnr_db"] for row in other}


def test_tables_that_add_no_seed_are_refused(tmp_path, rng):
    run, tables = tables_of_seed(tmp_path, rows_of([0], 0.6, rng), 0)
    with pytest.raises(InputError, match=r"adds no seed, all are there already.* replicate=1"):
        read_science({"grains": run}, earlier=[tables])


def test_seeds_of_other_settings_are_not_put_together(tmp_path, rng):
    rows = rows_of(range(2), 0.6, rng)
    _, tables = tables_of_seed(tmp_path, rows, 0, "metrics.frc_threshold=0.3")
    one, _ = tables_of_seed(tmp_path, rows, 1)
    with pytest.raises(InputError, match="grains, dense: the run seed-1 and the run seed-0 have"):
        read_science({"grains": one}, earlier=[tables])
    apart = read_science({"cells": one}, earlier=[tables])  # another specimen may
    assert {row["specimen"] for row in apart.rows} == {"grains", "cells"}


def test_runs_of_different_code_are_named(tmp_path, rng):
    rows = rows_of(range(2), 0.6, rng)
    runs = [
        made_run(tmp_path / f"{seed}", rows_of([seed], 0.6, rng), *SETTINGS, commit=f"{seed}" * 40)
        for seed in range(2)
    ]
    write_science(read_science({"grains": runs[0]}), tmp_path / "tables")
    *_, last = read_science({"grains": runs[1]}, earlier=[tmp_path / "tables"]).origin_lines()
    assert last.startswith("The runs are of different code: commit 0000000")
    whole = read_science({"grains": made_run(tmp_path / "whole", rows, *SETTINGS)}).origin_lines()
    assert len(whole) == 1
    assert "grains, seeds 0, 1: run whole, design " in whole[0]


def test_a_folder_without_tables_is_refused_by_its_name(runs, tmp_path):
    with pytest.raises(InputError, match=r"rows\.parquet: not readable .* `study science` wrote"):
        read_science(runs, earlier=[tmp_path])


def test_rows_that_are_not_of_the_test_bed_are_refused(runs, tmp_path):
    other = write_results(runs["grains"])
    other.rename(tmp_path / "rows.parquet")
    with pytest.raises(InputError, match="not of the test bed, see its column specimen"):
        read_science(runs, earlier=[tmp_path])


def test_the_page_of_results_has_the_table_of_the_tables_that_are_kept(tmp_path):
    """With other numbers than theirs it is refused, and written anew."""
    rows = [
        row_of(arm, dose=1e3, replicate=seed, phase_psnr_db=psnr_db + seed, phase_ssim_centred=0.5)
        for arm, psnr_db in {"solver-alternating": 29, "self-taught": 30.5}.items()
        for seed in range(SEEDS)
    ]
    run = made_run(tmp_path / "run", rows, "doses=[1e3]")
    science = read_science({"grains": run}, arm="self-taught")
    write_science(science, tmp_path / "tables" / "science_grains")
    page = tmp_path / "results.md"
    page.write_text(f"Before.\n{BEGIN}\n| old |\n{END}\nAfter.\n")
    command = [sys.executable, SCRIPT, "--page", page, "--tables", tmp_path / "tables"]

    stale = subprocess.run([*command, "--check"], capture_output=True, text=True, check=False)
    assert stale.returncode == 1
    assert "other numbers than" in stale.stderr

    subprocess.run(command, check=True)
    subprocess.run([*command, "--check"], check=True)
    text = page.read_text()
    assert text.startswith("Before.\n")
    assert text.endswith(f"{END}\nAfter.\n")
    assert "| old |" not in text
    assert "| grains | 1e3 | dense | 3 |" in text
    assert "| 30.0 ± 1.0 / 0.500 |" in text
    assert "| 31.5 ± 1.0 / 0.500 | +1.50 |" in text


def test_the_numbers_of_the_page_of_results_are_those_of_the_tables_that_are_kept():
    found = subprocess.run([sys.executable, SCRIPT, "--check"], capture_output=True, check=False)
    assert not found.returncode, found.stderr.decode()


def test_a_split_that_was_not_scored_is_refused_with_that_reason(tmp_path, rng):
    run = made_run(tmp_path / "grains", rows_of([0], 0.5, rng), "compare_train=false")

    with pytest.raises(InputError, match=r"train split is not scored .*; choose test"):
        read_science({"grains": run}, split="train")


def test_tables_of_another_split_are_refused(tmp_path, rng):
    run, tables = tables_of_seed(tmp_path, rows_of([0], 0.6, rng), 0)
    with pytest.raises(InputError, match="rows are of the split test, not train"):
        read_science({"grains": run}, earlier=[tables], split="train")


def test_a_run_without_records_leaves_no_tables(tmp_path, rng):
    run = made_run(tmp_path / "run", rows_of([0], 0.6, rng), *SETTINGS, has_records=False)
    with pytest.raises(InputError, match="no record of a comparison; finish it with"):
        write_science(read_science({"grains": run}), tmp_path / "tables")
    assert not (tmp_path / "tables").exists()


def test_tables_of_other_settings_are_refused_before_anything_runs(tmp_path, rng, study):
    _, tables = tables_of_seed(tmp_path, rows_of([0], 0.6, rng), 0, "metrics.frc_threshold=0.3")
    words = ["--preset", "smoke", "--set=doses=[1e3,1e4]", "--arm", "solver"]
    found = study("science", "grains", *words, "--add", tables, "--reports", tmp_path / "reports")
    assert found.code == 2
    assert "grains, dense: the run that is asked for and the run seed-0 have different" in found.err
    assert not (tmp_path / "reports").exists()


def test_tables_that_would_add_no_seed_are_refused_before_anything_runs(tmp_path, rng, study):
    _, tables = tables_of_seed(tmp_path, rows_of([0], 0.6, rng), 0)
    words = ["--preset", "smoke", "--set=doses=[1e3,1e4]", "--arm", "solver", "--add", tables]
    words += ["--replicates", "1", "--reports", tmp_path / "reports"]
    found = study("science", "grains", *words)
    assert found.code == 2
    assert "adds no seed" in found.err
    assert not (tmp_path / "reports").exists()
    second = study("science", "grains", *words, "--set=replicate=1", "--dry-run")
    assert second.code == 0, second.err


def test_the_figure_draws_every_gain_with_its_intervals(runs):
    science = read_science(runs)
    gains = [one for one in science.gains if one.metric == "phase_psnr_db"]
    figure = gains_over_arms(gains, science.labels, title="gain [dB]")
    titles = [axis.get_title() for axis in figure.axes if axis.get_title()]
    assert titles == ["over solver"]  # LSQML has no score anywhere
    (axis,) = (axis for axis in figure.axes if axis.get_title())
    drawn = np.concatenate([line.get_xdata() for line in axis.lines])
    for one in gains:
        if one.gain is not None:
            assert np.isclose(drawn, one.gain).any()
            ends = [] if one.corrected_low is None else [one.corrected_low, one.corrected_high]
            assert all(np.isclose(drawn, end).any() for end in ends)


def test_an_arm_that_no_run_has_is_refused_with_those_there_are(runs):
    with pytest.raises(
        InputError, match=r"'pinn' has no row .* choose from lsqml, solver, thinning"
    ):
        read_science(runs, arm="pinn")


def test_what_is_kept_back_is_not_of_development():
    assert set(specimens_of(kept_back=False)) == {"grains", "cells"}
    kept = set(specimens_of(kept_back=True))
    assert kept == {"power_law", "siemens_star", "measured_star"}
    assert {one.replicates for name, one in SPECIMENS.items() if name in kept} == {5}


def test_the_preset_has_every_arm_and_seeds_of_no_other():
    design = load_design(PRESET)
    assert design.iterative.alternating
    assert design.iterative.denoised
    assert design.thinned.base_shown
    assert design.training is not None
    assert set(arms_of(design)) == {
        *("pinn", "thinning-net", "thinned-base", "solver-alternating"),
        *("self-taught", "self-taught-base"),
        *("lsqml", "lsqml-denoised", "lsqml-poisson", "lsqml-poisson-denoised", "lsqml-chosen"),
        *("solver", "solver-denoised", "solver-amplitude", "solver-amplitude-denoised"),
        "solver-chosen",
    }
    others = [load_design(name).seeds for name in preset_names() if name != PRESET]
    for name in type(design.seeds).model_fields:
        assert getattr(design.seeds, name) not in {getattr(one, name) for one in others}


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["rust"], "specimen 'rust': choose from grains, cells"),
        (["--kept-back"], "give --star star.npz"),
        (["measured_star"], "study example star"),
        (["grains", "--star", "star.npz"], "add measured_star or leave it out"),
        (["grains", "--kept-back"], "leave it out, or the names"),
        (["--set", "specimen.kind=cells"], "the test bed sets it"),
        (["--set", "replicates=9"], "the test bed sets it"),
        (["--arm", "fish"], "--arm fish: the design has pinn, thinning-net"),
        (["--add", "."], "give a folder that `study science` wrote"),
        (["--add", "nowhere"], "'nowhere' does not exist"),
    ],
)
def test_a_wrong_call_writes_nothing_and_says_what_to_do(study, tmp_path, words, message):
    found = study("science", *words, "--reports", tmp_path / "reports")
    assert found.code == 2
    assert message in found.err
    assert not (tmp_path / "reports").exists()


def test_a_dry_run_forecasts_every_specimen_and_writes_nothing(study, tmp_path):
    found = study("science", "--dry-run", "--reports", tmp_path / "reports")
    assert found.code == 0, found.err
    assert "specimen grains: 3 seeds" in found.out
    assert "specimen cells: 3 seeds" in found.out
    assert found.out.count("nothing was written") == 2
    assert not (tmp_path / "reports").exists()


@pytest.mark.slow
def test_the_command_runs_a_specimen_and_goes_on_with_what_is_done(
    study, tmp_path, sealed_settings
):
    changes = [f"--set={one}" for one in sealed_settings if not one.startswith("specimen")]
    thinned = load_design("smoke").thinned.model_dump(mode="json")
    thinned |= {"steps": 4, "self_taught": True, "base_shown": True}
    short = (
        "--set=training=null",
        "--set=views=[{name: baseline, gridsize: 1, target_overlap: null}]",
        "--set=doses=[1e4]",
        "--set=compare_train=false",  # as the bed itself has it
        f"--set=thinned={json.dumps(thinned)}",
    )
    words = ["science", "cells", "--preset", "smoke", *changes, *short]
    words += ["--replicates", "1", "--reports", tmp_path]
    found = study(*words)
    assert found.code == 0, found.err
    assert "self-taught network against solver, phase PSNR:" in found.out
    folder = tmp_path / "science_cells_self-taught"
    science = read_json(folder / "science.json")
    assert [one["specimen"] for one in science["runs"]] == ["cells"]
    (design,) = tmp_path.glob("*/design.json")
    assert read_json(design)["specimen"]["kind"] == "cells"
    assert {one["specimen"] for one in science["gains"]} == {"cells", "over specimens"}
    assert (folder / "science_summary.ipynb").is_file()
    again = study(*words, "--dry-run")
    assert "0 of 9 jobs" in again.out
    compared = {one["opponent"] for one in science["gains"]}
    assert {"thinning-net", "thinned-base", "self-taught-base"} <= compared
    (run,) = (path.parent for path in tmp_path.glob("*/design.json"))
    jobs = read_json(run / "phase_e_training" / "training_manifest.json")["jobs"]
    trained = {name: job["outputs"] for name, job in jobs.items()}
    assert set(trained) == {f"dose_10000/baseline/{one}" for one in ("thinned", "self_taught")}
    assert all("train.log" in "".join(outputs) for outputs in trained.values())
    owner = {path: job.name for job in read_plan(run / "plan.json") for path in job.outputs}
    for split, name in (("train", "thinned"), ("test", "self_taught")):
        path = f"phase_e_training/dose_10000/baseline/{name}/ensemble.pt"
        assert owner[path].endswith(f"__{split}")
    # Another run with other scores takes both networks, each from its own folder.
    more = study(*words, "--set=metrics.frc_threshold=0.4", "--dry-run")
    assert "03_train_thinned: 2 taken from" in more.out, more.out
