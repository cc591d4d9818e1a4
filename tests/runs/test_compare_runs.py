"""`study compare-runs`: differences of paired replicates, and what else differs between runs."""

from typing import get_args

import numpy as np
import pandas as pd
import pytest
from made_runs import made_run, row_of
from scipy.stats import ttest_rel

from study_lib.design.notebooks import ComparedMetric
from study_lib.files import read_json, write_json
from study_lib.scores.across_runs import COMPARED

SCORED = "phase_g_comparison/dose_10000/dense/test/metrics.json"


@pytest.fixture
def compared(study, tmp_path):
    """Compare runs; return what was said and the table of all differences."""

    def call(*folders, metric="phase_ssim"):
        path = tmp_path / "differences.parquet"
        code, out, error = study("compare-runs", *folders, "--metric", metric, "--output", path)
        assert (code, error) == (0, "")
        return out, pd.read_parquet(path)

    return call


def lines_with(text: str, *words: str) -> list[str]:
    return [line for line in text.splitlines() if all(word in line for word in words)]


def test_every_number_that_can_be_asked_for_is_compared():
    assert set(COMPARED) == set(get_args(ComparedMetric))


def test_a_run_differs_in_nothing_from_itself(tmp_path, compared):
    folder = made_run(tmp_path / "a", [row_of(), row_of("pinn", phase_ssim=0.5)])

    out, table = compared(folder, folder)

    assert len(table) == 2 * len(COMPARED)
    assert (table["difference"] == 0).all()
    assert "phase SSIM: the same everywhere" in out
    assert out.splitlines()[-2] == "the same design, code, versions and machine"


def test_intervals_are_those_of_a_paired_test(tmp_path, compared, rng):
    """Replicates scatter much more than the two runs differ: unpaired, nothing would be seen."""
    noise = rng.normal(0, 0.1, 5)
    before, after = 0.5 + noise, 0.51 + noise + rng.normal(0, 0.002, 5)
    folders = [
        made_run(
            tmp_path / name,
            [row_of(replicate=i, phase_ssim=value) for i, value in enumerate(values)],
        )
        for name, values in (("a", before), ("b", after))
    ]

    out, table = compared(*folders)

    row = table[table["metric"] == "phase_ssim"].iloc[0]
    test = ttest_rel(after, before)
    interval = test.confidence_interval(0.95)
    assert row["pairs"] == 5
    assert row["difference"] == pytest.approx(np.mean(after - before), rel=1e-12)
    assert row["difference_low"] == pytest.approx(interval.low, rel=1e-9)
    assert row["difference_high"] == pytest.approx(interval.high, rel=1e-9)
    assert test.pvalue < 0.05 < ttest_ind_pvalue(before, after)
    (overview,) = lines_with(out, "phase SSIM  ")
    assert overview.split()[2:7] == ["1", "0", "0", "0", "0"], "one is better"
    (ms_ssim,) = lines_with(out, "phase MS-SSIM")
    assert ms_ssim.split()[2:7] == ["0", "0", "0", "1", "0"], "one is equal"


def ttest_ind_pvalue(one, other):
    from scipy.stats import ttest_ind

    return ttest_ind(one, other).pvalue


def test_a_difference_within_its_interval_is_neither_better_nor_worse(tmp_path, compared):
    folders = [
        made_run(
            tmp_path / name,
            [row_of(replicate=i, phase_ssim=0.8 + change) for i, change in enumerate(changes)],
        )
        for name, changes in (("a", (0, 0, 0)), ("b", (0.02, -0.01, 0.005)))
    ]

    out, _ = compared(*folders)

    (overview,) = lines_with(out, "phase SSIM  ")
    assert overview.split()[2:7] == ["0", "0", "1", "0", "0"], "one is unclear"
    assert "one in twenty" in out


def test_with_one_replicate_there_is_no_interval(tmp_path, compared):
    first = made_run(tmp_path / "a", [row_of()])
    second = made_run(tmp_path / "b", [row_of(phase_ssim=0.85)])

    out, table = compared(first, second)

    assert table[["difference_std", "difference_low", "difference_high"]].isna().all(axis=None)
    assert "one replicate, so better and worse are signs alone" in out


def test_the_other_way_round_every_difference_has_the_other_sign(tmp_path, compared, rng):
    folders = [
        made_run(
            tmp_path / name,
            [
                row_of(arm, replicate=i, phase_ssim=rng.uniform(), phase_mse_rad2=rng.uniform())
                for arm in ("solver", "pinn")
                for i in range(3)
            ],
        )
        for name in "ab"
    ]

    _, there = compared(*folders)
    _, back = compared(*reversed(folders))

    keys = ["arm", "metric"]
    both = there.merge(back, on=keys, suffixes=("", "_back"))
    assert len(both) == 2 * len(COMPARED)
    np.testing.assert_allclose(both["difference"], -both["difference_back"], atol=1e-15)
    np.testing.assert_allclose(both["difference_low"], -both["difference_high_back"], atol=1e-15)
    np.testing.assert_allclose(both["value"], both["reference_value_back"])


def test_the_worst_differences_come_first_whichever_way_a_number_is_better(tmp_path, compared):
    """Twelve doses, more than are shown: the five worst, the five best, and how many between."""
    doses = [float(dose) for dose in range(1000, 13000, 1000)]
    first = made_run(tmp_path / "a", [row_of(dose=dose) for dose in doses])
    errors = {dose: 0.1 + (index - 5.5) / 100 for index, dose in enumerate(doses)}
    rows = [row_of(dose=dose, phase_mse_rad2=error**2) for dose, error in errors.items()]
    second = made_run(tmp_path / "b", rows)

    out, table = compared(first, second, metric="phase_error_rad")

    listed = [float(line.split()[1]) for line in lines_with(out, "dense", "solver")]
    assert listed == doses[:6:-1] + doses[4::-1], "the largest error first: lower is better"
    assert "... 2 rows between these ..." in out
    found = table[table["metric"] == "phase_error_rad"].set_index("dose")["difference"]
    np.testing.assert_allclose(found, [errors[dose] - 0.1 for dose in found.index], atol=1e-12)


def test_what_is_no_score_is_named_and_not_compared(tmp_path, compared):
    """A replicate fell back on its base in the first run, an arm lost its place in the second."""
    fallback = {"label": "thinning network = its base (TV)", "fallback": "its base (TV)"}
    first = made_run(
        tmp_path / "a",
        [
            row_of("thinning-net", replicate=0, **fallback),
            *(row_of("thinning-net", replicate=i) for i in (1, 2)),
            *(row_of("pinn", replicate=i) for i in (0, 1, 2)),
        ],
    )
    second = made_run(
        tmp_path / "b",
        [
            *(row_of("thinning-net", replicate=i, phase_ssim=0.9) for i in (0, 1, 2)),
            *(row_of("pinn", replicate=i, registration="uncertain") for i in (0, 1, 2)),
        ],
    )

    out, table = compared(first, second)

    assert set(table["arm"]) == {"thinning-net"}
    assert set(table["pairs"]) == {2}
    (left_out,) = lines_with(out, "no score, not compared: thinning-net")
    assert left_out.endswith(
        "(thinning network = its base (TV)) in A: test 10000 dense replicate 0"
    )
    (lost,) = lines_with(out, "no score, not compared: pinn (uncertain) in B")
    assert all(f"replicate {i}" in lost for i in (0, 1, 2))


def test_a_crossing_that_only_one_run_has_is_said(tmp_path, compared):
    first = made_run(tmp_path / "a", [row_of()])
    never = {"frc_crossing": None, "frc_crossing_outcome": "never below"}
    second = made_run(tmp_path / "b", [row_of(**never)])

    out, table = compared(first, second, metric="frc_crossing")

    row = table[table["metric"] == "frc_crossing"].iloc[0]
    assert row["reference_value"] == 0.5
    assert np.isnan(row["value"])
    assert np.isnan(row["difference"])
    assert "FRC crossing / Nyquist, a number in A alone: test 10000 dense solver" in out


def test_what_only_one_run_has_is_said_in_whole_doses_views_and_arms_first(tmp_path, compared):
    first = made_run(
        tmp_path / "a",
        [
            *(row_of(dose=dose, view=view) for dose in (1e3, 1e4) for view in ("dense", "sparse")),
            row_of("lsqml"),
            row_of(replicate=1),
        ],
    )
    second = made_run(tmp_path / "b", [row_of(), row_of("pinn"), row_of(split="train")])

    out, table = compared(first, second)

    assert set(zip(table["dose"], table["view"], table["arm"], strict=True)) == {
        (1e4, "dense", "solver")
    }
    assert lines_with(out, "only in A:") == [
        "only in A: dose 1000 (2 rows); view sparse (1 row); arm lsqml (1 row); replicate 1 (1 row)"
    ]
    assert lines_with(out, "only in B:") == ["only in B: split train (1 row); arm pinn (1 row)"]


def test_patterns_that_differ_are_said(tmp_path, compared):
    first = made_run(tmp_path / "a", [row_of(), row_of(dose=1e3)])
    second = made_run(tmp_path / "b", [row_of(patterns_sha256="b" * 64), row_of(dose=1e3)])

    out, table = compared(first, second)

    assert "1 of them on other patterns, so with other noise" in out
    assert table.groupby("dose")["same_patterns"].all().to_dict() == {1e3: True, 1e4: False}


def test_design_code_versions_and_machine_that_differ_are_named(tmp_path, study):
    first = made_run(tmp_path / "a", [row_of()], versions={"torch": "2.12.0"})
    second = made_run(
        tmp_path / "b",
        [row_of()],
        "training.epochs=7",
        "views=[{name: dense, gridsize: 2, target_overlap: 0.5}]",
        commit="2" * 40,
        sources="fedcba9876543210",
        versions={"torch": "2.13.0"},
        machine={"cores": 64},
    )

    code, out, _ = study("compare-runs", first, second)

    assert code == 0
    for words in (
        ("training.epochs", "4 -> 7"),
        ("views.dense.target_overlap", "0.7 -> 0.5"),
        ("views.sparse", "set -> null"),
        ("torch", "2.12.0 -> 2.13.0", "04_reconstruct, 05_compare"),
        ("machine", "cores", "2 -> 64"),
        ("code", "sources", "changed", "04_reconstruct, 05_compare"),
    ):
        assert len(lines_with(out, *words)) == 1, words
    assert not lines_with(out, "numpy"), "the same version in both"
    assert f"commit {'1' * 12}," in lines_with(out, "A  ")[0]
    assert f"commit {'2' * 12}," in lines_with(out, "B  ")[0]


def test_a_network_that_one_design_lacks_is_one_line(tmp_path, study):
    first = made_run(tmp_path / "a", [row_of()])
    second = made_run(tmp_path / "b", [row_of()], "training=null", "thinned=null")

    _, out, _ = study("compare-runs", first, second)
    _, back, _ = study("compare-runs", second, first)

    for text, change in ((out, "set -> null"), (back, "null -> set")):
        names = [line.split()[1] for line in lines_with(text, change)]
        assert names == ["thinned", "training"]
        assert not lines_with(text, "training.")


def test_a_comparison_that_was_taken_from_another_run_is_no_repetition(tmp_path, study):
    first = made_run(tmp_path / "a", [row_of()])
    second = made_run(tmp_path / "b", [row_of()])
    path = second / "jobs" / "05_compare__dose_10000__dense__test" / "done.json"
    write_json(path, read_json(path) | {"taken_from": "a"})

    _, out, _ = study("compare-runs", first, second)

    assert lines_with(out, "B  ")[0].endswith("1 row, 1 comparison taken from a")
    assert "taken" not in lines_with(out, "A  ")[0]


def test_a_run_without_records_is_compared_all_the_same(tmp_path, study):
    first = made_run(tmp_path / "a", [row_of()])
    second = made_run(tmp_path / "b", [row_of(phase_ssim=0.9)], has_records=False)

    code, out, _ = study("compare-runs", first, second)

    assert code == 0
    assert "B: no record of a job, so code, versions and machine are not known" in out
    assert "the same design\n" in out
    assert not lines_with(out, "sources")


def test_several_runs_are_each_compared_with_the_first(tmp_path, compared):
    folders = [
        made_run(tmp_path / name, [row_of(phase_ssim=value)])
        for name, value in (("a", 0.5), ("b", 0.6), ("c", 0.3))
    ]

    out, table = compared(*folders)

    found = table[table["metric"] == "phase_ssim"].set_index("run")["difference"]
    assert found.to_dict() == pytest.approx({str(folders[1]): 0.1, str(folders[2]): -0.2})
    assert set(table["reference"]) == {str(folders[0])}
    assert [line[:8] for line in out.splitlines() if " less A:" in line] == ["B less A", "C less A"]


def test_rows_of_before_pair_with_those_of_today(tmp_path, compared):
    """An older run calls an arm otherwise, and does not say what its dose is counted on."""
    old = row_of("pinn-thinned", phase_ssim=0.7)
    del old["dose_per"], old["patterns_sha256"], old["fallback"]
    first = made_run(tmp_path / "a", [old])
    second = made_run(tmp_path / "b", [row_of("thinning-net")])

    _, table = compared(first, second)

    assert set(table["arm"]) == {"thinning-net"}
    found = table[table["metric"] == "phase_ssim"]["difference"]
    assert found.to_list() == pytest.approx([0.1])
    assert table["same_patterns"].isna().all()


def test_differences_can_be_had_as_csv(tmp_path, study):
    folder = made_run(tmp_path / "a", [row_of()])

    code, out, _ = study("compare-runs", folder, folder, "--output", "all.csv")

    assert code == 0
    assert out.endswith("all differences: all.csv\n")
    table = pd.read_csv(tmp_path / "all.csv")
    assert set(table["metric"]) == set(COMPARED)


@pytest.mark.parametrize(
    ("runs", "message"),
    [
        (["a"], "1 run: give two to 26, the reference first"),
        (["a", "none"], "none: no design.json here"),
        (["a", "empty"], "no comparison found; run `study compare` first"),
        (["a", "a", "--metric", "ssim"], "'--metric'"),
        (["a", "a", "--output", "x.xlsx"], "give it a name that ends in .parquet or .csv"),
        (["a", "damaged"], "damaged: a comparison of it is damaged"),
    ],
)
def test_a_wrong_call_says_why_and_writes_nothing(tmp_path, runs, message, study):
    made_run(tmp_path / "a", [row_of()])
    made_run(tmp_path / "empty", [])
    made_run(tmp_path / "damaged", [{**row_of(), "label": None}])
    before = sorted(tmp_path.rglob("*"))

    code, out, error = study("compare-runs", *runs)

    assert (code, out) == (2, "")
    assert message in error
    assert sorted(tmp_path.rglob("*")) == before


def test_runs_without_anything_in_common_are_refused_with_what_each_has(tmp_path, study):
    made_run(tmp_path / "a", [row_of(dose=1e3), row_of("pinn", dose=1e3)])
    made_run(tmp_path / "b", [row_of("lsqml", view="sparse", replicate=2)])

    code, _, error = study("compare-runs", "a", "b")

    assert code == 2
    _, a, b = error.splitlines()
    assert a.startswith("a: split test; dose 1000 photons per pattern; view dense; arm ")
    assert b == (
        "b: split test; dose 10000 photons per pattern; view sparse; arm lsqml; replicate 2"
    )


def test_the_notebook_takes_two_runs_or_more(tmp_path, study):
    called = study("notebook", "compare_runs", "out.ipynb", "-p", "runs=[a]", "-p", "metric=cpu_s")

    assert called.code == 2
    assert "compare_runs: runs: found ['a']; list should have at least 2 items" in called.err
    assert list(tmp_path.iterdir()) == []


@pytest.mark.slow
def test_two_copies_of_a_finished_run_differ_in_what_was_changed(sealed_run, sealed_copy, study):
    rows = read_json(sealed_copy / SCORED)
    (changed,) = [row for row in rows if row["arm"] == "solver"]
    assert changed["registration"] == "ok"
    changed["phase_ssim"] -= 0.25
    write_json(sealed_copy / SCORED, rows)

    code, out, error = study("compare-runs", sealed_run, sealed_copy)

    assert (code, error) == (0, "")
    assert len(lines_with(out, "test", "10000", "dense", "solver ", "-0.2500")) == 1
    (overview,) = lines_with(out, "phase SSIM  ")
    assert overview.split()[2:5] == ["0", "1", "0"]
    assert "on the same patterns" in out
    assert out.endswith("the same design, code, versions and machine\n")
