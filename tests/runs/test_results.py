"""What finished runs leave in results/ beside them, and `study history`, which reads it."""

import shutil

import numpy as np
import pandas as pd
import pyarrow.dataset
import pyarrow.parquet as pq
import pytest
from made_runs import made_run, row_of

from study_lib.files import read_json, sha256_of
from study_lib.phases.summary import collect_rows
from study_lib.runs.results import RESULT_TYPES, write_results

FIRST = "2026-03-01T10:00:00+00:00"
LATER = "2026-03-02T09:00:00+00:00"
LATEST = "2026-03-02T21:00:00+02:00"  # 19:00 in UTC


@pytest.fixture
def results(tmp_path):
    """Two runs whose names are not in the order of their dates; return the folder of results."""
    reports = tmp_path / "reports"
    rows = [row_of(replicate=i, phase_ssim=0.5 + i / 10) for i in range(3)]
    lone = [row_of(phase_ssim=0.7), row_of("pinn", view="sparse", registration="uncertain")]
    write_results(made_run(reports / "late", lone, "training.epochs=7", started=LATEST))
    write_results(made_run(reports / "soon", rows, started=FIRST, commit="2" * 40))
    return reports / "results"


# --- The files


@pytest.mark.slow
def test_a_run_leaves_its_rows_beside_it_and_not_in_its_seal(sealed_run, study):
    path = sealed_run.parent / "results" / f"{sealed_run.name}.parquet"

    table = pd.read_parquet(path)

    rows = collect_rows(sealed_run / "phase_g_comparison")
    assert len(table) == len(rows) > 0
    for name in ("phase_ssim", "phase_mse_rad2", "cpu_s"):
        np.testing.assert_array_equal(table[name], [row[name] for row in rows])
    done = read_json(sealed_run / "jobs" / "05_compare__dose_10000__dense__test" / "done.json")
    assert set(table["run"]) == {sealed_run.name}
    assert set(table["design"]) == {sealed_run.name[-8:]}
    assert set(table["commit"].dropna()) == {done["git"]["commit"]} - {None}
    assert table["date"].nunique() == 1
    assert table["date"].iloc[0] >= pd.Timestamp(done["started"])
    assert study("verify", sealed_run).code == 0
    assert not [
        name for name in read_json(sealed_run / "seal.json")["sha256"] if "results/" in name
    ]


@pytest.mark.slow
def test_every_column_of_a_real_run_has_the_type_that_is_written_for_it(sealed_run):
    """A text that is not declared would be a number in a run in which no row has it."""
    rows = collect_rows(sealed_run / "phase_g_comparison")
    texts = {name for row in rows for name, value in row.items() if isinstance(value, str)}
    whole = {name for row in rows for name, value in row.items() if type(value) is int}

    declared = {name for name, kind in RESULT_TYPES.items() if kind == "string"}
    assert {name for name in texts - declared if not name.endswith("_outcome")} == set()
    assert whole <= {name for name, kind in RESULT_TYPES.items() if kind == "int64"}


@pytest.mark.slow
def test_a_report_writes_them_again_and_is_done_without(sealed_copy, study):
    """What lies where they should go is named; the run is finished all the same."""
    path = sealed_copy.parent / "results" / f"{sealed_copy.name}.parquet"

    code, out, error = study("report", sealed_copy)
    assert (code, error) == (0, "")
    assert f"results:            {path}" in out
    written = sha256_of(path)
    shutil.rmtree(path.parent)

    path.parent.write_text("in the way")
    code, out, error = study("report", sealed_copy)
    assert code == 0
    assert "warning: the rows for `study history` were not written" in error
    assert "seal (SHA-256)" in out

    path.parent.unlink()
    assert study("report", sealed_copy).code == 0
    assert sha256_of(path) == written, "the same run has the same file"


def test_a_folder_of_results_is_taken_for_no_run(results, study):
    """The newest run is looked for by `study status`, earlier ones of this machine by `plan`."""
    shutil.copy(next(results.glob("*.parquet")), results / "again.parquet")

    code, out, _ = study("status")
    assert code == 0
    assert out.startswith("reports/soon: ")
    code, out, error = study("plan", "--preset", "smoke", "--set", "doses=[1e4]")
    assert (code, error) == (0, "")
    assert "jobs in reports/" in out


def with_empty_columns(tmp_path):
    """Write the results of two runs, each without a value where the other has one."""
    empty = dict.fromkeys(
        ("grouping", "chosen_by", "frc_crossing", "frc_crossing_outcome", "patterns_sha256",
         "training_cpu_s", "new_number"), None
    )  # fmt: skip
    full = {"chosen_by": "uniform", "training_cpu_s": 3.0, "new_number": 1.5}
    for name, columns in (("a", empty), ("b", full)):
        write_results(made_run(tmp_path / name, [row_of(**columns)]))
    return tmp_path / "results"


def test_files_of_several_runs_are_read_as_one_table(tmp_path):
    folder = with_empty_columns(tmp_path)

    schemas = [pq.read_schema(path) for path in sorted(folder.glob("*.parquet"))]
    by_pandas = pd.read_parquet(folder).set_index("run")
    by_arrow = pyarrow.dataset.dataset(folder).to_table().to_pylist()

    assert schemas[0].equals(schemas[1])
    assert by_pandas["training_cpu_s"].isna().to_dict() == {"a": True, "b": False}
    assert by_pandas.loc["b", "chosen_by"] == "uniform"
    assert [row["chosen_by"] for row in by_arrow] == [None, "uniform"]
    assert [row["new_number"] for row in by_arrow] == [None, 1.5]


def test_duckdb_reads_them_as_one_table(tmp_path):
    duckdb = pytest.importorskip("duckdb", reason="DuckDB is not installed; the study needs it not")
    folder = with_empty_columns(tmp_path)

    query = f"select run, chosen_by, new_number from '{folder}/*.parquet' order by run"

    assert duckdb.sql(query).fetchall() == [("a", None, None), ("b", "uniform", 1.5)]


# --- From run to run


def test_history_tells_runs_in_the_order_of_their_dates(results, study):
    code, out, error = study("history", "--arm", "solver", "--view", "dense", "--dose", "1e4")

    assert (code, error) == (0, "")
    title, _, first, second = out.splitlines()
    assert title == "phase SSIM of solver, test split (higher is better):"
    # The mean of .5, .6 and .7, and .1 / sqrt(3) times the quantile 4.303 of Student's t.
    assert (
        first.split()
        == (
            f"10000 / pattern dense 2026-03-01 10:00 {'2' * 12} soon 3 of 3 0.6000 0.3516 to 0.8484"
        ).split()
    )
    assert (
        second.split()
        == (f"10000 / pattern dense 2026-03-02 19:00 {'1' * 12} late 1 of 1 0.7000 -").split()
    )


def test_history_tells_of_a_run_that_has_no_score(results, study):
    code, out, _ = study("history", "--arm", "pinn", "--metric", "phase_error_rad")

    assert code == 0
    assert out.splitlines()[-1].split()[-5:] == ["0", "of", "1", "-", "-"]


@pytest.mark.parametrize(("name", "start"), [("h.png", b"\x89PNG"), ("h.svg", b"<?xml")])
def test_history_draws_a_figure(results, tmp_path, study, name, start):
    code, out, _ = study("history", "--arm", "solver", "--output", name)

    assert code == 0
    assert out.endswith(f"figure: {name}\n")
    assert (tmp_path / name).read_bytes().startswith(start)


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--arm", "solvr"], "no result of arm solvr, split test; there are: split test; dose"),
        (["--arm", "solver", "--dose", "2e4"], "there are: split test; dose 10000 photons"),
        (["--arm", "solver", "--metric", "ssim"], "'ssim': choose one of phase_ms_ssim, phase_"),
        (["--arm", "solver", "--output", "h.pdf"], "a name that ends in .png or .svg"),
        (["--arm", "solver", "--reports", "other"], "no results here; a run leaves them when it"),
        ([], "Missing option '--arm'"),
    ],
)
def test_history_says_what_is_wrong_with_a_call(results, tmp_path, study, words, message):
    code, out, error = study("history", *words)

    assert (code, out) == (2, "")
    assert message in error
    assert sorted(path.name for path in tmp_path.iterdir()) == ["reports"]


@pytest.mark.parametrize("damage", ["text", "torn", "other columns", "no date"])
def test_a_damaged_file_of_results_is_named(results, study, damage):
    path = results / "soon.parquet"
    content = path.read_bytes()
    if damage == "text":
        path.write_text("run,design\n")
    elif damage == "torn":
        path.write_bytes(content[: len(content) // 2])
    else:
        table = pd.read_parquet(path)
        pd.DataFrame(
            {"run": ["x"]} if damage == "other columns" else table.assign(date=None)
        ).to_parquet(path)

    code, _, error = study("history", "--arm", "solver")

    assert code == 2
    assert "soon.parquet: not" in error
    assert "write it again with `study report RUN`" in error
    assert "Traceback" not in error
