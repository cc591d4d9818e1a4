"""Training jobs from the command line: the real runner, its bridge, its records, its skips."""

import errno
import hashlib
import io
import json
import shutil
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from fake_upstream import Upstream
from hostile import Evil
from tiny_runs import moved

from study_lib.errors import InputError, StudyError
from study_lib.files import read_json, sha256_of
from study_lib.networks.checkpoints import LAST, PREVIOUS, TITLE
from study_lib.networks.pinn.bundle import load_network
from study_lib.networks.pinn.config import TrainingConfig
from study_lib.phases import backends as native_backend
from study_lib.phases import records
from study_lib.phases import train as phase
from study_lib.phases.backends import TrainingRequest, TrainingResult
from study_lib.phases.conditions import Condition, conditions_of, with_data
from study_lib.phases.overlap import choose_view
from study_lib.phases.records import printed_output_kept
from study_lib.phases.train import BACKENDS
from study_lib.runs.run import Run

DOSES = (1e3, 1e4, 1e5)
KEY = "dose_1000/baseline/gs1"
ONE = ("--dose=1000", "--view=baseline")


class Recorder:
    """A runner that trains nothing and remembers what it was to train."""

    def __init__(self, failing: str = "") -> None:
        self.requests: list[TrainingRequest] = []
        self.failing = failing

    def __call__(self, request: TrainingRequest, backend: object, settings: object):
        self.requests.append(request)
        if request.condition.view.name == self.failing:
            raise StudyError("the network exploded")
        bundle = request.work.folder / "model.pt"
        bundle.write_bytes(b"weights")
        values = {
            "bundle": "model.pt",
            "bundle_sha256": sha256_of(bundle),
            "bundle_bytes": 7,
            "final_loss": 0.5,
        }
        return TrainingResult(values, (bundle,))


@pytest.fixture
def train(matrix, tmp_path, monkeypatch, study):
    """Run `study train` on the matrix with or without another runner."""

    def call(*flags: str, runner=None, phase_d: Path | None = None):
        if runner:
            monkeypatch.setattr(phase, "execute_training_job", runner)
        roots = {
            "phase-c-root": matrix.root("dataset"),
            "phase-d-root": phase_d or matrix.root("views"),
            "artifact-root": tmp_path / "E",
        }
        arguments = [f"--{name}={path}" for name, path in roots.items()]
        printed = study("train", *arguments, *flags)
        return printed.code, printed

    return call


@pytest.fixture
def baseline(matrix, tmp_path) -> Condition:
    """The baseline at 1000 photons, whose training is kept in the test's folder."""
    return moved(matrix.condition(1e3, "baseline"), train=tmp_path / "E")


@pytest.fixture
def dense(matrix, tmp_path) -> Condition:
    """The dense view at 1000 photons, whose training is kept in the test's folder."""
    return moved(matrix.condition(1e3, "dense"), train=tmp_path / "E")


def test_the_matrix_has_nine_conditions_dose_by_dose_and_planning_writes_nothing(matrix, tmp_path):
    run = Run(tmp_path / "run", matrix.design)
    planned = conditions_of(run.design, run)

    expected = [
        (dose, view, gridsize)
        for dose in DOSES
        for view, gridsize in (("baseline", 1), ("dense", 2), ("sparse", 2))
    ]
    assert [(one.dose, one.view.name, one.gridsize) for one in planned] == expected
    folders = [one.folder("train") for one in planned]
    assert folders == [
        run.root("train") / f"dose_{dose:.0f}" / view / f"gs{gridsize}"
        for dose, view, gridsize in expected
    ]
    assert not run.folder.exists()
    found, skipped = with_data(conditions_of(matrix.design, matrix), splits=("train", "test"))
    assert [(one.dose, one.view.name, one.gridsize) for one in found] == expected
    assert skipped == []


def test_training_cli_invokes_real_runner(train, matrix, tmp_path):
    """Without --dry-run the runner gets the resolved job and its whole configuration."""
    recorder = Recorder()

    code, _ = train("--dose=1000", "--view=baseline", "--gridsize=1", runner=recorder)

    assert code == 0
    (request,) = recorder.requests
    assert isinstance(request.config, TrainingConfig)
    condition = request.condition
    assert (condition.dose, condition.view.name, condition.gridsize) == (1e3, "baseline", 1)
    expected = matrix.root("dataset") / "dose_1000" / "patched_train.npz"
    assert condition.of("train").file == expected
    assert request.work.folder == tmp_path / "E" / KEY
    assert request.config.channels == 1
    assert request.config.neighbor_count == matrix.design.neighbor_count == 7
    assert request.config.epochs == matrix.design.training.epochs


@pytest.mark.slow
def test_training_cli_default_runner_trains_for_real(train, tmp_path):
    code, printed = train("--dose=10000", "--view=dense")

    folder = tmp_path / "E" / "dose_10000/dense/gs2"
    job = read_json(tmp_path / "E" / "training_manifest.json")["jobs"]["dose_10000/dense/gs2"]
    assert code == 0
    assert job["status"] == "done"
    trained = load_network(folder / "model.pt")
    assert len(trained.history.records) == job["results"]["epochs"] >= 1
    assert job["results"]["bundle_sha256"] == sha256_of(folder / "model.pt")
    assert job["results"]["bundle_bytes"] == (folder / "model.pt").stat().st_size
    assert job["results"]["bundle_sha256"] in printed.out
    assert job["outputs"]["dose_10000/dense/gs2/model.pt"] == job["results"]["bundle_sha256"]
    assert -1 <= job["results"]["test"]["phase_ssim"] <= 1
    assert "epoch 1/" in printed.out
    assert "epoch 1/" in (folder / "stdout.log").read_text()
    assert (folder / "history.csv").read_text().startswith("epoch,train,validation")
    assert not (folder / "checkpoints").exists()
    with np.load(folder / "test_patches.npz") as archive:
        assert archive["epochs"][-1] == trained.history.kept_epoch
        assert archive["patches"].shape == (len(archive["epochs"]), *archive["truth"].shape)


@pytest.mark.slow
def test_the_record_names_the_device_and_the_threads_of_the_training(train, tmp_path, monkeypatch):
    monkeypatch.setattr(native_backend, "device_of", lambda name: torch.device("cuda", 1))
    threads = torch.get_num_threads()

    assert (
        train("--dose=1000", "--view=baseline", "--device=cpu", f"--threads={threads + 1}")[0] == 0
    )

    machine = read_json(tmp_path / "E" / "training_manifest.json")["jobs"][KEY]["machine"]
    assert (machine["device"], machine["threads"]) == ("cuda:1", str(threads + 1))
    assert torch.get_num_threads() == threads


@pytest.mark.parametrize(
    ("flags", "count"),
    [
        ([], 9),
        (["--dose=1000"], 3),
        (["--view=sparse"], 3),
        (["--gridsize=2"], 6),
        (["--dose=1000", "--view=dense"], 1),
    ],
)
def test_training_cli_filters(train, flags, count):
    recorder = Recorder()

    assert train(*flags, runner=recorder)[0] == 0
    assert len(recorder.requests) == count


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["--dose=5"], "dose 5 is not in the design; choose one of 1000, 10000, 100000"),
        (["--view=thick"], "choose one of baseline, dense, sparse"),
        (["--gridsize=3"], "known: baseline (gridsize 1), dense (gridsize 2), sparse"),
        (["--view=dense", "--gridsize=1"], "no job matches view dense with gridsize 1"),
        (["--device=tpu"], "device: found 'tpu'"),
        (["--threads=0"], "threads: found 0"),
    ],
)
def test_training_cli_filters_and_flags_that_match_nothing_end_with_2(
    train, flags, message, tmp_path
):
    recorder = Recorder()

    code, printed = train(*flags, runner=recorder)

    assert code == 2
    assert message in printed.err
    assert not recorder.requests
    assert not (tmp_path / "E").exists()


def test_training_cli_unknown_backend_ends_with_2_and_names_the_known(train):
    code, printed = train("--backend=keras")

    assert code == 2
    assert "backend 'keras': choose one of native, ptychopinn" in printed.err


def test_training_cli_dry_run_writes_and_configures_nothing(
    train, baseline, matrix, tmp_path, monkeypatch
):
    """Both ways in: the command, and the function."""
    upstream, recorder = Upstream(), Recorder()
    upstream.install(monkeypatch)

    code, printed = train("--dry-run", "--backend=ptychopinn", runner=recorder)
    plan = phase.train(baseline, dry_run=True)

    assert code == 0
    lines = [json.loads(line) for line in printed.out.splitlines()]
    assert len(lines) == 9
    assert lines[0]["neighbor_count"] == 7
    assert plan["dry_run"]
    assert plan["epochs"] == matrix.design.training.epochs
    assert not upstream.calls
    assert not recorder.requests
    assert not (tmp_path / "E").exists()


def test_training_cli_manifest_is_merged_and_ascii_and_relative(train, tmp_path):
    for view in ("baseline", "dense"):
        assert train("--dose=1000", f"--view={view}", runner=Recorder())[0] == 0

    text = (tmp_path / "E" / "training_manifest.json").read_text(encoding="ascii")
    jobs = json.loads(text)["jobs"]
    assert set(jobs) == {KEY, "dose_1000/dense/gs2"}
    assert str(tmp_path) not in text
    record = jobs[KEY]
    assert record["parameters"]["backend"] == "native"
    assert record["parameters"]["neighbor_count"] == 7
    for kind in ("inputs", "outputs"):
        assert record[kind]
        assert not any(path.startswith("/") for path in record[kind])
    log = (tmp_path / "E" / KEY / "train.log").read_bytes()
    assert log.isascii()
    assert str(tmp_path).encode() not in log


def test_training_cli_a_failed_job_ends_with_1_after_the_others(train, tmp_path):
    recorder = Recorder(failing="dense")

    code, printed = train("--dose=1000", runner=recorder)

    jobs = read_json(tmp_path / "E" / "training_manifest.json")["jobs"]
    assert code == 1
    views = [request.condition.view.name for request in recorder.requests]
    assert views == ["baseline", "dense", "sparse"]
    assert {key.split("/")[1]: job["status"] for key, job in jobs.items()} == {
        "baseline": "done",
        "dense": "failed",
        "sparse": "done",
    }
    assert "the network exploded" in printed.err
    log = (tmp_path / "E" / "dose_1000/dense/gs2/train.log").read_text()
    assert "Traceback" in log
    assert "the network exploded" in log


def test_training_cli_missing_views_are_skipped_with_a_record(train, tmp_path):
    code, printed = train("--dose=1000", runner=Recorder(), phase_d=tmp_path / "nothing")

    summary = read_json(tmp_path / "E" / "skip_summary.json")
    assert code == 0
    assert summary["skipped_count"] == 2
    assert [view["view"] for view in summary["skipped_views"]] == ["dense", "sparse"]
    assert "study overlap" in summary["skipped_views"][0]["reason"]
    assert "skipped dose=1000 view=dense" in printed.out


def test_a_dry_run_has_only_plans_on_standard_output(train, tmp_path):
    code, printed = train("--dose=1000", "--dry-run", phase_d=tmp_path / "nothing")

    assert code == 0
    assert json.loads(printed.out)["dry_run"]
    assert "skipped dose=1000 view=dense" in printed.err


def test_training_cli_the_skip_summary_is_written_even_if_empty(train, tmp_path):
    assert train("--dose=1000", runner=Recorder())[0] == 0

    summary = read_json(tmp_path / "E" / "skip_summary.json")
    assert summary == {"skipped_count": 0, "skipped_views": []}


def test_training_cli_only_missing_views_end_with_2(train, tmp_path):
    code, printed = train("--view=dense", runner=Recorder(), phase_d=tmp_path / "nothing")

    assert code == 2
    assert "run `study overlap` first" in printed.err


def test_missing_views_are_an_error_unless_skipping_is_allowed(matrix, tmp_path):
    conditions = [moved(one, views=tmp_path) for one in conditions_of(matrix.design, matrix)]

    with pytest.raises(InputError, match=r"dense_train\.npz: no such file; .*`study overlap` for"):
        with_data(conditions, splits=("train", "test"), allow_missing=False)
    found, skipped = with_data(conditions, splits=("train", "test"))
    assert (len(found), len(skipped)) == (3, 6)
    with pytest.raises(InputError, match=r"dense_train\.npz: no such file; .*`study overlap` for"):
        phase.train(conditions[1])


@pytest.mark.parametrize("allowed", [True, False])
def test_a_missing_baseline_is_always_an_error(matrix, tmp_path, allowed):
    conditions = [moved(one, dataset=tmp_path) for one in conditions_of(matrix.design, matrix)]

    with pytest.raises(InputError, match="make it with `study generate` for dose 1000"):
        with_data(conditions, splits=("train", "test"), allow_missing=allowed)


def test_a_view_of_which_one_split_is_missing_is_left_out(matrix, tmp_path):
    dense = moved(matrix.condition(1e3, "dense", "train"), views=tmp_path)
    dense.file.parent.mkdir(parents=True)
    shutil.copy(matrix.condition(1e3, "dense", "train").file, dense.file)

    found, skipped = with_data([dense, dense.of("test")])

    assert found == []
    assert [(one.dose, one.view) for one in skipped] == [(1e3, "dense")]
    assert "dense_test.npz" in skipped[0].reason


def test_training_cli_bridging_happens_once_before_any_loader(dense, monkeypatch):
    upstream = Upstream()
    upstream.install(monkeypatch)
    seen = []
    load = Condition.measurement

    def loading(condition):
        seen.append(list(upstream.calls))
        return load(condition)

    monkeypatch.setattr(Condition, "measurement", loading)

    phase.train(dense, backend="ptychopinn")

    assert upstream.calls == ["bridge", "load", "load", "train", "save"]
    assert seen == [["bridge"], ["bridge"]]


def test_training_cli_native_bridging_happens_once(baseline, monkeypatch):
    calls = []
    native = BACKENDS["native"]
    bridged = native.bridged
    monkeypatch.setattr(native, "bridged", lambda *given: calls.append(given) or bridged(*given))
    monkeypatch.setattr(phase, "execute_training_job", Recorder())

    phase.train(baseline)

    assert len(calls) == 1


def test_the_configuration_has_the_groups_of_the_file_not_of_the_design(
    matrix, tmp_path, monkeypatch
):
    """Views can be made with another K and number of groups than the design has."""
    changed = matrix.design.model_copy(update={"neighbor_count": 5})
    places = {"views": tmp_path / "D", "overlap": tmp_path / "D", "train": tmp_path / "E"}
    choose_view(moved(Run(matrix.folder, changed).condition(1e3, "dense"), **places))
    runner = Recorder()
    monkeypatch.setattr(phase, "execute_training_job", runner)

    phase.train(moved(matrix.condition(1e3, "dense"), **places))

    assert matrix.design.neighbor_count != 5
    assert runner.requests[0].config.neighbor_count == 5


def test_the_upstream_package_gets_every_knob_and_never_the_object(dense, monkeypatch):
    upstream = Upstream()
    upstream.install(monkeypatch)

    results = phase.train(dense, backend="ptychopinn")

    design, settings = dense.design, upstream.settings
    assert (settings.model.N, settings.model.gridsize) == (design.patch_size_px, 2)
    assert (settings.nepochs, settings.nphotons) == (design.training.epochs, 1e3)
    assert (settings.neighbor_count, settings.batch_size) == (7, design.training.batch_size)
    with np.load(dense.of("train").file) as archive:
        assert settings.n_groups == len(archive["groups"])
        np.testing.assert_array_equal(upstream.train.diff3d, archive["diffraction"])
        np.testing.assert_array_equal(upstream.train.coordinates[0], archive["xcoords"])
        np.testing.assert_array_equal(upstream.train.coordinates[3], archive["ycoords"])
    np.testing.assert_array_equal(upstream.train.object, 1)
    assert upstream.cfg_at_training["gridsize"] == 2
    assert results["final_loss"] == 0.25
    assert results["bundle_sha256"] == sha256_of(dense.folder("train") / "wts.h5.zip")


@pytest.mark.parametrize("fails", [False, True])
def test_the_global_configuration_is_as_before_whether_the_job_fails_or_not(
    baseline, monkeypatch, fails
):
    upstream = Upstream(fails=fails)
    upstream.install(monkeypatch)
    random_before = torch.get_rng_state()
    threads_before = torch.get_num_threads()

    if fails:
        with pytest.raises(RuntimeError, match="out of memory"):
            phase.train(baseline, backend="ptychopinn")
    else:
        phase.train(baseline, backend="ptychopinn")

    assert upstream.cfg == {"N": 7, "left": "alone"}
    assert torch.equal(torch.get_rng_state(), random_before)
    assert torch.get_num_threads() == threads_before


@pytest.mark.parametrize("losses", [[], [0.5, float("nan")]])
def test_an_upstream_training_without_a_loss_is_not_kept(baseline, monkeypatch, losses):
    upstream = Upstream(losses=losses)
    upstream.install(monkeypatch)

    with pytest.raises(StudyError, match="the network is not kept"):
        phase.train(baseline, backend="ptychopinn")

    assert "save" not in upstream.calls


def test_a_knob_that_the_upstream_package_lacks_is_refused(baseline, monkeypatch, tiny_design_with):
    Upstream().install(monkeypatch)
    design = tiny_design_with("doses=[1.0e+3]", "training.loss=amplitude")

    with pytest.raises(InputError, match=r"cannot do training\.loss = amplitude"):
        phase.train(replace(baseline, design=design), backend="ptychopinn")


def test_training_cli_a_missing_upstream_package_is_one_line_with_the_remedy(train):
    code, printed = train("--dose=1000", "--view=baseline", "--backend=ptychopinn")

    assert code == 2
    (line,) = [
        line for line in printed.err.splitlines() if "failed" in line and "No module" in line
    ]
    assert "install the package PtychoPINN" in line
    assert "--backend native" in line


def test_training_cli_does_not_import_torch_before_it_trains():
    """Planning and skipping need none of it."""
    code = (
        "import sys, study_lib.phases.conditions, study_lib.cli.phases; "
        "sys.exit('torch' in sys.modules)"
    )

    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


@pytest.mark.slow
def test_the_same_job_twice_gives_the_same_weights(matrix, tmp_path):
    weights, digests = [], []
    for name in ("first", "second"):
        condition = moved(matrix.condition(1e3, "baseline"), train=tmp_path / name)
        digests.append(phase.train(condition)["weights_sha256"])
        weights.append(load_network(condition.folder("train") / "model.pt").network.state_dict())

    for one, other in zip(*(state.values() for state in weights), strict=True):
        assert torch.equal(one, other)
    assert digests[0] == digests[1]


def test_a_view_that_is_written_again_meanwhile_is_not_vouched_for(baseline, tmp_path, monkeypatch):
    """The network is of what was read, and says so: the arm refuses it for the new file."""
    shutil.copytree(baseline.root("dataset"), tmp_path / "C")
    condition = moved(baseline, dataset=tmp_path / "C")
    source = condition.of("train").file
    before, train_network = sha256_of(source), native_backend.train_network

    def meanwhile(*arguments, **named):
        source.write_bytes(b"other data")
        return train_network(*arguments, **named)

    monkeypatch.setattr(native_backend, "train_network", meanwhile)
    phase.train(condition)

    record = read_json(tmp_path / "E" / "training_manifest.json")["jobs"][KEY]
    assert record["inputs"]["../C/dose_1000/patched_train.npz"] == before
    assert load_network(condition.folder("train") / "model.pt").measurement_sha256 == before


@pytest.mark.slow
@pytest.mark.parametrize("fault", ["history", "scores", "record"])
def test_a_fault_after_the_training_does_not_cost_the_training(baseline, monkeypatch, fault):
    """The disk is full when the history, the scores or the record are made; then it is not."""

    def full(*_, **__):
        raise OSError(errno.ENOSPC, "no space left")

    module, name = {
        "history": (native_backend, "write_json"),
        "scores": (Condition, "score"),
        "record": (records, "merge_record"),
    }[fault]
    with monkeypatch.context() as patch:
        patch.setattr(module, name, full)
        with pytest.raises(OSError, match="no space left"):
            phase.train(baseline)

    phase.train(baseline)

    log = (baseline.folder("train") / "train.log").read_text(encoding="ascii")
    assert log.count(" epoch 1/") == 1, "the second try found the training done"
    assert not (baseline.folder("train") / "checkpoints").exists()


@pytest.fixture
def cut_off(train, tmp_path, monkeypatch):
    """Checkpoints of a training whose scores could not be written."""

    def no_scores(*_, **__):
        raise OSError(errno.EIO, "no answer")

    with monkeypatch.context() as patch:
        patch.setattr(Condition, "score", no_scores)
        assert train(*ONE)[0] == 1
    return tmp_path / "E" / KEY / "checkpoints"


def with_digest(path: Path, payload: bytes) -> None:
    """Write what nobody would take for damaged."""
    path.write_bytes(TITLE + hashlib.sha256(payload).hexdigest().encode() + b"\n" + payload)


@pytest.mark.slow
@pytest.mark.parametrize("damage", ["a flipped bit", "truncated"])
def test_training_cli_goes_on_from_the_checkpoint_before_a_damaged_one(damage, train, cut_off):
    last = cut_off / LAST
    shutil.copy(last, cut_off / PREVIOUS)
    content = bytearray(last.read_bytes())
    content[len(content) // 2] ^= 4
    last.write_bytes(content if damage == "a flipped bit" else content[:-700])

    code, printed = train(*ONE)

    assert code == 0, printed.err
    reason = f"{last}: damaged, its content has SHA-256"
    log = (cut_off.parent / "train.log").read_text()
    for text in (printed.out + printed.err, log):
        assert reason in text
        assert f"{PREVIOUS} before it is used" in text


@pytest.mark.slow
def test_training_cli_runs_nothing_from_a_checkpoint(train, cut_off, tmp_path):
    trace = tmp_path / "was_here"
    buffer = io.BytesIO()
    torch.save({"origin": {}, "machine": {}, "state": Evil(trace)}, buffer)
    with_digest(cut_off / LAST, buffer.getvalue())
    (cut_off / PREVIOUS).unlink(missing_ok=True)

    code, printed = train(*ONE)

    assert code == 2
    assert f"{cut_off / LAST}: holds more than numbers and text; not loaded" in printed.err
    assert f"remove {cut_off} to train from the beginning" in printed.err
    assert not trace.exists()


@pytest.mark.slow
def test_training_cli_takes_no_checkpoint_of_another_training(train, cut_off, tmp_path):
    other = tmp_path / "E" / "dose_10000/baseline/gs1" / "checkpoints"
    other.parent.mkdir(parents=True)
    cut_off.rename(other)

    code, printed = train("--dose=10000", "--view=baseline")

    assert code == 2
    assert "checkpoint of another training (measurement: " in printed.err
    assert f"remove {other} to train from the beginning" in printed.err


def test_printed_output_is_kept_and_still_printed(tmp_path, capsys):
    with printed_output_kept(tmp_path):
        sys.stdout.write("to the screen\n")
        sys.stderr.write("a warning\n")

    assert (tmp_path / "stdout.log").read_text() == "to the screen\n"
    assert (tmp_path / "stderr.log").read_text() == "a warning\n"
    assert capsys.readouterr() == ("to the screen\n", "a warning\n")


def test_a_new_try_adds_to_what_an_interrupted_one_printed(tmp_path):
    for text in ("epoch 1, inter", "epoch 1\n"):
        with printed_output_kept(tmp_path):
            sys.stdout.write(text)
            sys.stderr.write(f"of {text}")

    for name, before in (("stdout.log", ""), ("stderr.log", "of ")):
        first, mark, second = (tmp_path / name).read_text().splitlines()
        assert (first, second) == (f"{before}epoch 1, inter", f"{before}epoch 1")
        assert mark.startswith("--- another try, ")
