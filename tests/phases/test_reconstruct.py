"""Iterative reconstructions from the command line: jobs, records, results, failures."""

import json
import shutil
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from tiny_runs import moved

from study_lib.data.archive import read_npz
from study_lib.errors import InputError, StudyError
from study_lib.files import read_json, sha256_of
from study_lib.phases import reconstruct as phase
from study_lib.phases.conditions import Condition, conditions_of, with_data
from study_lib.phases.reconstruct import RESULT, reconstructions_of
from study_lib.physics.forward import exit_waves, expected_counts
from study_lib.physics.likelihood import half_deviance, pattern_residuals
from study_lib.physics.measurement import Measurement
from study_lib.runs.run import Run
from study_lib.solvers import algorithms as iterative
from study_lib.solvers.algorithms import IterativeResult, run_algorithm
from study_lib.solvers.checks import require_solvable

DOSES = (1e3, 1e4, 1e5)
KEY = "dose_1000/dense/test/solver"


@pytest.fixture(scope="module", autouse=True)
def one_thread():
    """Sums depend on how they are cut into threads."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.fixture
def reconstruct(matrix, tmp_path, study):
    """Run `study reconstruct` on the matrix."""

    def call(*flags: str, phase_d: Path | None = None):
        roots = {
            "phase-c-root": matrix.root("dataset"),
            "phase-d-root": phase_d or matrix.root("views"),
            "artifact-root": tmp_path / "F",
        }
        arguments = [f"--{name}={path}" for name, path in roots.items()]
        printed = study("reconstruct", *arguments, *flags)
        return printed.code, printed

    return call


@pytest.fixture
def condition(matrix, tmp_path) -> Condition:
    """A dense view whose reconstructions are kept in the test's folder."""
    return moved(matrix.condition(1e3, "dense"), reconstruct=tmp_path / "F")


@pytest.fixture(scope="module")
def measurement(matrix) -> Measurement:
    return matrix.condition(1e4, "dense").measurement()


# --- which jobs


def test_there_are_eighteen_conditions_and_planning_them_writes_nothing(matrix, tmp_path):
    run = Run(tmp_path / "run", matrix.design)
    planned = conditions_of(run.design, run, each_split=True)

    expected = [
        (dose, view, split)
        for dose in DOSES
        for view in ("baseline", "dense", "sparse")
        for split in ("train", "test")
    ]
    assert run.design.iterative.algorithms == ("LSQML", "solver")
    assert [(one.dose, one.view.name, one.split) for one in planned] == expected
    assert len({one.folder("reconstruct") for one in planned}) == 18
    assert not run.folder.exists()
    here = conditions_of(matrix.design, matrix, each_split=True)
    assert with_data(here, allow_missing=False) == (here, [])


@pytest.mark.parametrize(
    ("flags", "count"),
    [
        ((), 36),
        (("--algorithm", "LSQML"), 18),
        (("--algorithm", "ePIE", "--algorithm", "DM", "--split", "test"), 18),
        (("--dose", "1e4", "--view", "sparse"), 4),
        (("--dose", "1e4", "--algorithm", "solver", "--algorithm", "DM", "--batch-size", "8"), 12),
        (("--gridsize", "1", "--split", "train", "--algorithm", "solver"), 3),
    ],
)
def test_filters_of_the_command(reconstruct, flags, count, tmp_path):
    code, printed = reconstruct(*flags, "--dry-run")

    plans = [json.loads(line) for line in printed.out.splitlines()]
    assert code == 0
    assert len(plans) == count
    assert all(plan["dry_run"] for plan in plans)
    assert not (tmp_path / "F").exists()


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (("--dose", "5"), "dose 5 is not in the design"),
        (("--view", "medium"), "view 'medium' is not in the design"),
        (("--split", "half"), "choose one of train, test"),
        (("--view", "dense", "--gridsize", "1"), "no job matches"),
        (
            ("--algorithm", "PIE2"),
            "found 'PIE2'; input should be 'LSQML', 'LSQML-poisson', 'solver'",
        ),
        (("--algorithm", "DM", "--algorithm", "DM"), "algorithms DM, DM: name each once"),
        (("--num-epochs", "0"), "iterative.epochs: found 0"),
        (("--noise-model", "normal"), "found 'normal'; input should be 'gaussian' or 'poisson'"),
        (("--probe", "free"), "found 'free'; input should be 'known' or 'refine'"),
        (
            ("--algorithm", "DM", "--noise-model", "poisson"),
            "--noise-model poisson: only LSQML takes it, and the algorithms are DM; add",
        ),
        (
            ("--algorithm", "solver", "--momentum", "0.5"),
            "--momentum 0.5: only LSQML takes it, and the algorithms are solver; add",
        ),
        (
            ("--algorithm", "solver", "--batch-size", "8"),
            "--batch-size 8: only those of pty-chi take it, and the algorithms are solver; add",
        ),
    ],
)
def test_what_does_not_exist_ends_with_2_and_names_what_does(reconstruct, flags, message):
    code, printed = reconstruct(*flags)

    assert code == 2
    assert message in printed.err


def test_missing_views_are_skipped_with_a_record(reconstruct, tmp_path):
    code, printed = reconstruct(
        *("--dose", "1e3", "--algorithm", "solver", "--num-epochs", "2"), phase_d=tmp_path / "none"
    )

    summary = read_json(tmp_path / "F" / "skip_summary.json")
    assert code == 0
    assert [entry["view"] for entry in summary["skipped_views"]] == ["dense", "sparse"]
    assert "skipped dose=1000 view=dense" in printed.out
    jobs = read_json(tmp_path / "F" / "reconstruction_manifest.json")["jobs"]
    assert jobs.keys() == {f"dose_1000/baseline/{split}/solver" for split in ("train", "test")}


def test_missing_views_are_an_error_where_nothing_may_be_missing(reconstruct, tmp_path):
    code, printed = reconstruct("--no-allow-missing-phase-d", phase_d=tmp_path / "none")

    assert code == 2
    assert "make it with `study overlap` for dose 1000 and view dense" in printed.err


# --- what a job leaves


def test_a_job_leaves_result_log_and_record(reconstruct, matrix, tmp_path):
    code, printed = reconstruct("--dose", "1e3", "--view", "dense", "--split", "test")

    record = read_json(tmp_path / "F" / "reconstruction_manifest.json")["jobs"][KEY]
    arrays, metadata = read_npz(tmp_path / "F" / KEY / RESULT)
    measurement = matrix.condition(1e3, "dense").measurement()
    assert code == 0
    assert record["status"] == "done"
    assert record["outputs"][f"{KEY}/{RESULT}"] == sha256_of(tmp_path / "F" / KEY / RESULT)
    assert arrays["object"].shape == measurement.object_shape
    assert arrays["probe"].tobytes() == measurement.probe.tobytes(), "known"
    assert len(arrays["losses"]) == len(arrays["wall_s"]) == record["results"]["epochs"]
    assert len(arrays["residuals"]) == len(arrays["positions_px"]) == len(measurement.scan_index)
    assert metadata["algorithm"] == metadata["arm"] == "solver"
    assert metadata["object_origin_px"] == [0, 0]
    assert metadata["frame"].startswith("object of the dataset file")
    assert metadata["options"]["objective"] == "poisson"
    assert metadata["versions"]["ptychi"] == "2.2.0"
    log = (tmp_path / "F" / KEY / "reconstruct.log").read_text(encoding="ascii")
    assert log.count(" epoch ") == len(arrays["losses"])
    assert "dose=1000 view=dense split=test algorithm=LSQML: done" in printed.out
    text = (tmp_path / "F" / "reconstruction_manifest.json").read_text(encoding="ascii")
    assert str(tmp_path) not in text


def test_the_record_names_the_device_and_the_threads(reconstruct, tmp_path):
    few = ("--dose", "1e3", "--view", "dense", "--split", "test", "--num-epochs", "2")
    assert reconstruct(*few, "--algorithm", "solver", "--threads", "2")[0] == 0
    torch.set_num_threads(1)

    machine = read_json(tmp_path / "F" / "reconstruction_manifest.json")["jobs"][KEY]["machine"]
    assert (machine["device"], machine["threads"]) == ("cpu", "2")


def test_a_view_that_is_written_again_meanwhile_is_not_vouched_for(
    condition, tmp_path, monkeypatch
):
    """The result is from what was read, and says so: the arm refuses it for the new file."""
    shutil.copytree(condition.root("views"), tmp_path / "D")
    train = moved(condition, views=tmp_path / "D").of("train")
    before = sha256_of(train.file)

    def meanwhile(*arguments, **named):
        train.file.write_bytes(b"other data")
        return run_algorithm(*arguments, **named)

    monkeypatch.setattr(phase, "run_algorithm", meanwhile)
    found = phase.reconstruct_by(train, "solver")

    (record,) = read_json(train.manifest("reconstruct"))["jobs"].values()
    assert record["inputs"] == {"../D/dose_1000/dense/dense_train.npz": before}
    denoiser = read_json(train.folder("reconstruct") / "solver" / "denoiser.json")
    assert found["measurement_sha256"] == denoiser["measurement_sha256"] == before


def test_records_of_other_jobs_stay(reconstruct, tmp_path):
    few = ("--dose", "1e3", "--view", "dense", "--num-epochs", "2")
    reconstruct(*few, "--split", "test", "--algorithm", "solver")
    reconstruct(*few, "--split", "train", "--algorithm", "rPIE")

    jobs = read_json(tmp_path / "F" / "reconstruction_manifest.json")["jobs"]
    assert jobs.keys() == {KEY, "dose_1000/dense/train/rpie"}
    assert jobs["dose_1000/dense/train/rpie"]["parameters"]["algorithm"] == "rPIE"


def test_the_same_job_twice_gives_the_same_object(reconstruct, tmp_path):
    few = ("--dose", "1e3", "--view", "dense", "--split", "test", "--num-epochs", "4")
    folder = (tmp_path / "F" / KEY).parent
    found = []
    for seed in ("5", "5", "6"):
        reconstruct(*few, "--seed", seed)
        found.append([read_npz(folder / arm / RESULT)[0] for arm in ("lsqml", "solver")])

    for arm in range(2):
        assert found[0][arm]["object"].tobytes() == found[1][arm]["object"].tobytes()
    assert found[0][0]["object"].tobytes() != found[2][0]["object"].tobytes(), "order of batches"


def test_an_unknown_probe_is_unknown_to_every_algorithm(reconstruct, matrix, tmp_path):
    reconstruct("--dose", "1e5", "--view", "dense", "--split", "test", "--probe", "refine")

    for arm in ("lsqml", "solver"):
        arrays, metadata = read_npz(
            tmp_path / "F" / "dose_100000" / "dense" / "test" / arm / RESULT
        )
        first = matrix.condition(1e5, "dense").measurement().probe
        assert arrays["probe"].tobytes() != first.tobytes()
        assert metadata["knows"] == "a first probe, refined, positions; uniform start"


def test_settings_of_the_command_arrive(reconstruct, tmp_path):
    reconstruct(
        *("--dose", "1e3", "--view", "dense", "--split", "test", "--algorithm", "LSQML"),
        *("--num-epochs", "3", "--batch-size", "7", "--noise-model", "poisson"),
        *("--momentum", "0.5", "--seed", "99"),
    )

    _, metadata = read_npz(tmp_path / "F" / "dose_1000" / "dense" / "test" / "lsqml" / RESULT)
    options = metadata["options"]
    assert (options["num_epochs"], options["batch_size"], options["random_seed"]) == (3, 7, 99)
    assert (options["noise_model"], options["momentum_acceleration_gain"]) == ("poisson", 0.5)


# --- what goes wrong


def diverging(algorithm: str, *arguments: object, **named: object) -> IterativeResult:
    """Stand for an algorithm of which LSQML diverges."""
    if algorithm == "LSQML":
        raise StudyError("LSQML diverged: 3 of 9 object pixels are not finite")
    return run_algorithm(algorithm, *arguments, **named)


def test_a_failed_job_ends_with_1_after_the_others(reconstruct, tmp_path, monkeypatch):
    monkeypatch.setattr(phase, "run_algorithm", diverging)
    folder = tmp_path / "F" / "dose_1000" / "dense" / "test"
    folder.joinpath("lsqml").mkdir(parents=True)
    (folder / "lsqml" / RESULT).write_bytes(b"of an earlier run")

    code, printed = reconstruct("--dose", "1e3", "--view", "dense", "--split", "test")

    jobs = read_json(tmp_path / "F" / "reconstruction_manifest.json")["jobs"]
    assert code == 1
    assert "algorithm=LSQML: failed: LSQML diverged" in printed.err
    assert {key.split("/")[-1]: job["status"] for key, job in jobs.items()} == {
        "lsqml": "failed",
        "solver": "done",
    }
    assert "Traceback" in (folder / "lsqml" / "reconstruct.log").read_text()
    assert not (folder / "lsqml" / RESULT).exists(), "nobody takes the old result for this run's"


def test_nothing_but_broken_input_ends_with_2(reconstruct, tmp_path, monkeypatch):
    def refuse(*arguments: object, **named: object) -> IterativeResult:
        raise InputError("the probe is zero")

    monkeypatch.setattr(phase, "run_algorithm", refuse)

    code, printed = reconstruct("--dose", "1e3", "--view", "dense", "--split", "test")

    assert code == 2
    assert "2 of 2 jobs failed" in printed.err


def test_an_interrupted_command_says_so_and_ends_with_130(reconstruct, monkeypatch):
    def interrupt(*arguments: object, **named: object) -> IterativeResult:
        raise KeyboardInterrupt("stopped in epoch 3")

    monkeypatch.setattr(phase, "run_algorithm", interrupt)

    code, printed = reconstruct("--dose", "1e3", "--view", "dense", "--split", "test")

    assert code == 130
    assert "algorithm=LSQML: stopped in epoch 3" in printed.err
    assert "study: stopped; the same command goes on from here" in printed.err


@pytest.mark.parametrize("broken", ["ptychi", "torchvision"])
def test_without_pty_chi_the_solver_still_runs_and_the_remedy_is_named(
    broken, reconstruct, monkeypatch, tmp_path
):
    """It is absent, or what it needs does not load, and no schema would mend that."""
    for name in [name for name in sys.modules if name.split(".")[0] in ("ptychi", broken)]:
        monkeypatch.delitem(sys.modules, name)
    if broken == "ptychi":
        monkeypatch.setitem(sys.modules, "ptychi", None)
    else:
        place = tmp_path / "site" / "torchvision"
        place.mkdir(parents=True)
        (place / "__init__.py").write_text("raise OSError('libcudart.so: cannot open')")
        monkeypatch.syspath_prepend(place.parent)

    code, printed = reconstruct("--dose", "1e3", "--view", "dense", "--split", "test")

    (line,) = [line for line in printed.err.splitlines() if "failed:" in line]
    assert code == 1
    assert "pip install ptychi==2.2.0" in line
    assert ("libcudart.so: cannot open" in line) == (broken == "torchvision")
    assert (tmp_path / "F" / KEY / RESULT).is_file()


def test_the_notebook_goes_on_without_an_algorithm_that_failed(condition, monkeypatch):
    monkeypatch.setattr(phase, "run_algorithm", diverging)

    results = phase.reconstruct(condition)

    assert results["lsqml"]["failed"].startswith("LSQML diverged")
    assert results["solver"]["residual"] > 0
    written = read_json(condition.folder("reconstruct") / "reconstructions.json")
    assert written == results
    assert written.keys() == {"lsqml", "solver"}
    (found,) = reconstructions_of(condition).items()
    assert found[0] == "solver"
    assert len(found[1]["losses"]) == results["solver"]["epochs"]


def test_the_notebook_fails_if_every_algorithm_does(condition, tmp_path, monkeypatch):
    def failing(algorithm: str, *_: object, **__: object) -> IterativeResult:
        raise StudyError(f"{algorithm} is out of order")

    monkeypatch.setattr(phase, "run_algorithm", failing)

    with pytest.raises(StudyError, match="lsqml: LSQML is out of order; solver: solver is out"):
        phase.reconstruct(condition)

    assert not list(tmp_path.rglob("reconstructions.json"))


def broken(measurement: Measurement, kind: str) -> Measurement:
    """Return a measurement that nobody can reconstruct, or hardly."""
    parts = dict(vars(measurement))
    if kind == "no counts":
        parts["amplitudes"] = np.zeros_like(measurement.amplitudes)
    elif kind == "dark probe":
        parts["probe"] = np.zeros_like(measurement.probe)
    elif kind == "outside":
        parts["positions_px"] = measurement.positions_px + 1000.0
    elif kind == "one pattern":
        parts |= {
            "amplitudes": measurement.amplitudes[:1],
            "positions_px": measurement.positions_px[:1],
            "scan_index": measurement.scan_index[:1],
            "groups": np.zeros((1, 1), np.int64),
        }
    elif kind == "no overlap":
        chosen = [0, len(measurement.amplitudes) - 1]
        parts |= {
            "amplitudes": measurement.amplitudes[chosen],
            "positions_px": measurement.positions_px[chosen],
            "scan_index": measurement.scan_index[chosen],
            "groups": np.arange(2)[:, None],
        }
    return Measurement(**parts)


@pytest.mark.parametrize("algorithm", ["solver", "LSQML", "rPIE"])
@pytest.mark.parametrize(
    ("kind", "message"),
    [
        ("no counts", "patterns has a count on a good pixel"),
        ("dark probe", "the probe is zero everywhere"),
        ("outside", "leaves the object"),
    ],
)
def test_what_cannot_be_reconstructed_is_refused(
    measurement, tiny_design, algorithm, kind, message
):
    with pytest.raises(InputError, match=message):
        run_algorithm(algorithm, broken(measurement, kind), tiny_design.iterative, seed=1)


@pytest.mark.parametrize("algorithm", ["solver", "LSQML"])
def test_the_patterns_are_checked_once(measurement, tiny_design, algorithm, monkeypatch):
    checks = []

    def counted(*arguments):
        checks.append(arguments)
        return require_solvable(*arguments)

    for module in ("study_lib.solvers.ptychi", "study_lib.solvers.solver"):
        monkeypatch.setattr(f"{module}.require_solvable", counted)

    run_algorithm(algorithm, measurement, tiny_design.iterative, seed=1)

    assert len(checks) == 1


@pytest.mark.parametrize("algorithm", ["solver", "LSQML", "rPIE", "BH", "autodiff"])
@pytest.mark.parametrize("kind", ["one pattern", "no overlap"])
def test_patterns_alone_give_a_flagged_result_never_nan(measurement, tiny_design, algorithm, kind):
    """One pattern has no unique object: nothing in the counts tells."""
    alone = broken(measurement, kind)

    found = run_algorithm(algorithm, alone, tiny_design.iterative, seed=1)

    assert np.isfinite(found.object_).all()
    assert any("overlap with no other" in remark for remark in found.remarks)


def test_a_result_worse_than_an_object_of_ones_is_flagged(measurement, tiny_design, monkeypatch):
    def lost(**arguments: object) -> object:
        found = honest(**arguments)
        object.__setattr__(found, "object_", 9 * found.object_)
        return found

    honest = iterative.ptychi_engine.run_ptychi
    monkeypatch.setattr(iterative.ptychi_engine, "run_ptychi", lost)

    found = run_algorithm("LSQML", measurement, tiny_design.iterative, seed=1)

    assert any("no better than an object of ones" in remark for remark in found.remarks)


# --- residuals


def test_residuals_are_the_deviance_pattern_by_pattern(matrix):
    """Of the true object about what Poisson noise leaves, and their mean is the total."""
    bright = matrix.condition(1e5, "dense")
    measurement, truth = bright.measurement(), bright.truth()

    residuals = pattern_residuals(measurement, truth, measurement.probe)
    worse = pattern_residuals(measurement, np.ones_like(truth), measurement.probe)

    waves = exit_waves(
        *(torch.from_numpy(part) for part in (measurement.probe, truth, measurement.positions_px))
    )
    total = half_deviance(expected_counts(waves), torch.from_numpy(measurement.amplitudes) ** 2)
    assert residuals.shape == (len(measurement.scan_index),)
    assert residuals.mean() == pytest.approx(float(total), rel=1e-4)
    assert 0.3 < residuals.mean() < 0.6
    assert (worse > residuals).all()


def test_residuals_leave_bad_pixels_out(matrix, measurement):
    truth = matrix.condition(1e4, "dense").truth()
    bad = np.zeros(measurement.probe.shape, bool)
    bad[3:6, 4:9] = True
    blinded = np.where(bad, 0, measurement.amplitudes).astype(np.float32)
    masked = Measurement(**vars(measurement) | {"amplitudes": blinded, "bad_pixels": bad})
    spoiled = Measurement(
        **vars(measurement) | {"amplitudes": np.where(bad, 50, blinded), "bad_pixels": bad}
    )

    first, second = (
        pattern_residuals(part, truth, measurement.probe) for part in (masked, spoiled)
    )

    np.testing.assert_array_equal(first, second)
