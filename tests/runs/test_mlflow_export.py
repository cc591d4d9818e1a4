"""Rows of a run in MLflow: each once, with what it is of, its numbers and where it comes from."""

import math
import os
import sys

import pytest
from made_runs import COMMIT, made_run, row_of

from study_lib.files import write_json
from study_lib.runs.mlflow_export import metrics_of

NEEDS = "MLflow is not installed; it comes with the extra mlflow"
ROWS = (
    row_of(replicate=0),
    row_of(replicate=1, overlap_linear=0.76, mismatch_position_px=1.5),
    row_of("thinning-net", view="sparse", dose=0.5, phase_ssim=0.25, fallback="its base (TV)"),
)


@pytest.fixture(scope="module")
def uri(tmp_path_factory):
    """A store for all tests, each of which has an experiment: to make its tables takes seconds."""
    pytest.importorskip("mlflow", reason=NEEDS)
    pytest.importorskip("alembic", reason=NEEDS)
    return f"sqlite:///{tmp_path_factory.mktemp('store') / 'store.db'}"


@pytest.fixture
def experiment(request):
    return request.node.name


@pytest.fixture
def stored(study, monkeypatch, uri, experiment):
    """Export a run to the experiment of the test; return what was said, and what is there."""
    for name in ("MLFLOW_TRACKING_URI", "MLFLOW_DISABLE_TELEMETRY"):
        monkeypatch.delenv(name, raising=False)

    def exported(folder):
        called = study("mlflow-export", folder, "--uri", uri, "--experiment", experiment)
        assert called.code == 0, called.err
        return called.out.strip(), runs_at(uri, experiment)

    return exported


def runs_at(uri, experiment):
    """Return what an experiment holds, by the key of the row."""
    from mlflow import MlflowClient

    client = MlflowClient(tracking_uri=uri)
    place = client.get_experiment_by_name(experiment).experiment_id
    found = client.search_runs([place])
    keys = [one.data.tags["study.key"] for one in found]
    assert len(set(keys)) == len(keys), "a row is there twice"
    return dict(zip(keys, found, strict=True))


def test_each_row_is_a_run_with_its_condition_its_numbers_and_its_origin(
    tmp_path, stored, experiment
):
    folder = made_run(tmp_path / "dose_run", ROWS, versions={"torch": "2.13"})

    said, found = stored(folder)

    assert said == f"experiment {experiment}: 3 new, 0 replaced, 0 unchanged of 3 rows"
    assert sorted(found) == [
        "dose_run/test/0.5/pattern/sparse/thinning-net/0",
        "dose_run/test/10000/pattern/dense/solver/0",
        "dose_run/test/10000/pattern/dense/solver/1",
    ]
    network = found["dose_run/test/0.5/pattern/sparse/thinning-net/0"]
    assert network.info.status == "FINISHED"
    assert network.info.run_name == "thinning-net, 0.5, sparse, test"
    assert network.data.metrics["phase_ssim"] == 0.25
    wanted = {"dose": "0.5", "view": "sparse", "arm": "thinning-net", "overlap": "0.7"}
    assert wanted.items() <= network.data.params.items()
    assert network.data.params["fallback"] == "its base (TV)"
    tags = network.data.tags
    assert (tags["study.run"], tags["study.commit"]) == ("dose_run", COMMIT)
    assert (tags["version.torch"], tags["study.preset"]) == ("2.13", "smoke")
    assert len(tags["study.design"]) == 8
    assert network.info.start_time == 1772359200000, "the date of the run: 2026-03-01 10:00 UTC"


def test_every_finite_number_of_a_row_is_a_metric_and_nothing_else_is(tmp_path, stored):
    _, found = stored(made_run(tmp_path / "run", ROWS))

    first, second = (found[f"run/test/10000/pattern/dense/solver/{one}"] for one in (0, 1))
    assert first.data.metrics.keys() >= {"phase_ssim", "cpu_s", "overlap", "dose", "patterns"}
    assert not first.data.metrics.keys() & {"label", "registration", "training_cpu_s"}
    assert second.data.params["mismatch_position_px"] == "1.5"
    assert second.data.metrics["overlap_linear"] == 0.76


def test_numbers_that_are_not_finite_are_no_metrics():
    row = {"a": 0.5, "b": math.nan, "c": -math.inf, "d": True, "e": None, "f": 3, "g": "1.0"}

    assert dict(metrics_of(row)) == {"a": 0.5, "f": 3.0}


def test_a_second_export_doubles_nothing(tmp_path, stored):
    folder = made_run(tmp_path / "run", ROWS)
    _, before = stored(folder)

    said, after = stored(folder)

    assert "0 new, 0 replaced, 3 unchanged of 3 rows" in said
    assert {key: run.info.run_id for key, run in after.items()} == {
        key: run.info.run_id for key, run in before.items()
    }


def test_a_row_whose_numbers_changed_is_replaced_and_the_others_stay(tmp_path, stored):
    folder = made_run(tmp_path / "run", ROWS)
    _, before = stored(folder)
    made_run(folder, [ROWS[0], {**ROWS[1], "phase_ssim": 0.99}, ROWS[2]])

    said, after = stored(folder)

    key = "run/test/10000/pattern/dense/solver/1"
    assert "0 new, 1 replaced, 2 unchanged of 3 rows" in said
    assert after[key].data.metrics["phase_ssim"] == 0.99
    changed = {one for one in after if after[one].info.run_id != before[one].info.run_id}
    assert changed == {key}


def test_an_export_that_was_interrupted_is_completed(tmp_path, stored, monkeypatch):
    from mlflow import MlflowClient

    folder = made_run(tmp_path / "run", ROWS)
    with monkeypatch.context() as patch:
        patch.setattr(MlflowClient, "log_batch", interrupt)
        with pytest.raises(AssertionError):
            stored(folder)

    said, found = stored(folder)

    assert "2 new, 1 replaced, 0 unchanged" in said
    assert all(run.info.status == "FINISHED" and run.data.metrics for run in found.values())


def interrupt(*arguments, **named):
    raise KeyboardInterrupt


def test_runs_of_one_design_do_not_take_each_other_for_the_same(tmp_path, stored):
    first, second = (made_run(tmp_path / name, ROWS) for name in ("first", "second"))
    stored(first)

    said, found = stored(second)

    assert "3 new, 0 replaced, 0 unchanged" in said
    assert len(found) == 6


def test_two_runs_of_one_design_on_one_day_keep_their_rows(tmp_path, stored):
    """Their folders have the same name; the record of the first job tells them apart."""
    folders = [made_run(tmp_path / who / "run", ROWS) for who in ("mine", "yours")]
    for second, folder in enumerate(folders):
        record = {"status": "done", "started": f"2026-03-01T10:00:0{second}+00:00"}
        write_json(folder / "jobs" / "00_design" / "done.json", record)
    mine, yours = folders
    _, before = stored(mine)

    said, after = stored(yours)
    again, last = stored(mine)

    assert "3 new, 0 replaced, 0 unchanged" in said
    assert len(after) == 6
    assert before.keys() < after.keys() == last.keys()
    assert "0 new, 0 replaced, 3 unchanged" in again


def test_rows_of_a_listed_mismatch_are_there_with_field_and_value(tmp_path, stored):
    folder = made_run(tmp_path / "run", [row_of()], "mismatch.position_error_px=[0.5, 2]")
    for level in (0.5, 2.0):
        place = f"mismatch/position_error_px_{level:g}/phase_g_comparison/dose_10000/dense/test"
        row = row_of(mismatch_position_px=level, phase_ssim=0.8 - level / 10)
        write_json(folder / place / "metrics.json", [row])

    said, found = stored(folder)

    key = "run/test/10000/pattern/dense/solver/0"
    assert "3 new, 0 replaced, 0 unchanged of 3 rows" in said
    levels = {f"{key}/position_error_px={level}": level for level in (0.5, 2)}
    assert found.keys() == {key, *levels}
    for name, level in levels.items():
        data = found[name].data
        assert data.params["mismatch_level_of"] == "position_error_px"
        assert data.metrics["mismatch_position_px"] == level
        assert data.metrics["phase_ssim"] == pytest.approx(0.8 - level / 10)
    assert "mismatch_level_of" not in found[key].data.params


def test_a_row_that_is_there_twice_or_half_is_there_once_after_the_next_export(
    tmp_path, stored, uri, experiment
):
    """As two exports at one time leave it, and one that ended between two steps."""
    from mlflow import MlflowClient

    folder = made_run(tmp_path / "run", ROWS)
    _, before = stored(folder)
    whole = next(iter(before.values()))
    client, place = MlflowClient(tracking_uri=uri), whole.info.experiment_id
    for is_whole in (True, False):
        twin = client.create_run(place, tags=whole.data.tags)
        if is_whole:
            client.set_terminated(twin.info.run_id)

    said, after = stored(folder)

    assert "0 new, 0 replaced, 3 unchanged" in said
    assert after.keys() == before.keys()
    assert all(run.info.status == "FINISHED" for run in after.values())


def test_the_store_may_be_named_by_the_variable_of_mlflow(
    tmp_path, stored, study, monkeypatch, uri, experiment
):
    folder = made_run(tmp_path / "run", ROWS)
    stored(folder)
    monkeypatch.setenv("MLFLOW_TRACKING_URI", uri)

    again = study("mlflow-export", folder, "--experiment", experiment)

    assert "0 new, 0 replaced, 3 unchanged" in again.out


def test_reports_of_use_to_mlflows_makers_are_switched_off(tmp_path, stored):
    stored(made_run(tmp_path / "run", ROWS))

    assert os.environ["MLFLOW_DISABLE_TELEMETRY"] == "true"


@pytest.mark.parametrize("place", ["folder", "nosuch://place", "sqlite:///run/design.json"])
def test_a_place_that_is_no_store_is_refused_with_one_that_is(place, tmp_path, stored, study):
    """A folder, an unknown kind of address, and a file that is no database."""
    called = study("mlflow-export", made_run(tmp_path / "run", ROWS), "--uri", place)

    assert called.code == 2
    assert f"{place}: not usable as a store of MLflow (" in called.err
    assert "give --uri the address of a server, or a database such as sqlite:///" in called.err


def test_without_mlflow_the_command_names_the_extra(tmp_path, study, monkeypatch):
    monkeypatch.setitem(sys.modules, "mlflow", None)  # None: to import it fails

    called = study("mlflow-export", made_run(tmp_path / "run", ROWS))

    assert called.code == 2
    assert "MLflow is not installed" in called.err
    assert (
        "comes with the extra mlflow: pip install 'ptychography-dose-study[mlflow]'" in called.err
    )


def test_a_folder_without_a_run_is_refused_before_mlflow_is_asked_for(tmp_path, study, monkeypatch):
    monkeypatch.setitem(sys.modules, "mlflow", None)

    called = study("mlflow-export", tmp_path / "nothing")

    assert called.code == 2
    assert "nothing" in called.err
    assert "MLflow" not in called.err
