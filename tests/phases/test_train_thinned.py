"""Phase E of the thinning network and the denoised arms, through the public commands."""

import csv
import dataclasses
import errno
import json
import shutil

import numpy as np
import pytest
from command_line import exit_code

from study_lib.data.datasets import load_measurement
from study_lib.errors import InputError
from study_lib.files import read_json, sha256_of
from study_lib.networks.thinned.ensemble import ENSEMBLE, load_ensemble, reconstruct_thinned
from study_lib.networks.thinned.training import ThinnedRecord
from study_lib.phases import records
from study_lib.phases import train_thinned as thinned_job
from study_lib.phases.arms import ArmRequest, arms_of
from study_lib.phases.conditions import arm_folder, thinned_folder, view_path
from study_lib.phases.reconstruct import DENOISER, read_denoiser, reconstruct_view
from study_lib.phases.train_thinned import build_thinned_jobs, run_thinned_job, thinned_design_of
from study_lib.solvers.denoising import LitPart

pytestmark = pytest.mark.slow

CONDITION = (1e4, "dense")
KEY = "dose_10000/dense/thinned"


@pytest.fixture(scope="module")
def artifacts(tmp_path_factory):
    return tmp_path_factory.mktemp("artifacts")


def call(matrix, artifact_root, command, *flags):
    """Run a phase command on the matrix; return its exit code."""
    root, _ = matrix
    arguments = [
        f"--phase-c-root={root / 'C'}",
        f"--phase-d-root={root / 'D'}",
        f"--artifact-root={artifact_root}",
    ]
    return exit_code(command, *arguments, *flags)


@pytest.fixture(scope="module")
def trained(matrix, artifacts):
    assert call(matrix, artifacts / "E", "train-thinned", "--dose=10000", "--view=dense") == 0
    return thinned_folder(artifacts / "E", *CONDITION)


@pytest.fixture(scope="module")
def reconstructed(matrix, artifacts):
    flags = ("--dose=10000", "--view=dense")
    assert call(matrix, artifacts / "F", "reconstruct", *flags) == 0
    return artifacts / "F"


def request_of(matrix, artifacts, split="test") -> ArmRequest:
    root, _ = matrix
    sources = {one: view_path(root / "C", root / "D", *CONDITION, one) for one in ("train", "test")}
    return ArmRequest(
        *CONDITION,
        gridsize=2,
        split=split,
        measurement=load_measurement(sources[split]),
        sha256=sha256_of(sources[split]),
        train_sha256=sha256_of(sources["train"]),
        phase_e_root=artifacts / "E",
        phase_f_root=artifacts / "F",
    )


def test_the_record_holds_every_choice_with_its_evidence(trained):
    record = read_json(trained.parents[2] / "training_manifest.json")["jobs"][KEY]
    written = read_json(trained / "thinned.json")

    assert record["status"] == "done"
    assert record["results"] == written
    assert written["bundle_sha256"] == sha256_of(trained / ENSEMBLE)
    for tried in (
        written["choices"]["after"]["tried"],
        written["choices"]["alternating"]["tried"],
        written["smoothing"]["tried"],
    ):
        assert len(tried) > 5
        assert all(np.isfinite(one["gain_nats"]) for one in tried)
    trust = written["trust"]
    assert trust["given"] == (trust["gain_nats"] > trust["standard_error_nats"])
    assert set(written["test"]) == {"base", "object"}
    assert written["training_cpu_s"] > 0
    assert not (trained / "checkpoints").exists()


def test_a_view_that_is_written_again_meanwhile_is_not_vouched_for(
    matrix, trained, tmp_path, monkeypatch
):
    root, design = matrix
    copy = tmp_path / "dense_train.npz"
    jobs, _ = build_thinned_jobs(
        design, phase_c_root=root / "C", phase_d_root=root / "D", artifact_root=tmp_path / "E"
    )
    shutil.copy(jobs[0].train_data_path, copy)
    before = sha256_of(copy)

    def meanwhile(*_, **__):
        copy.write_bytes(b"other data")
        return load_ensemble(trained / ENSEMBLE), [ThinnedRecord(1, 1, 0.5, 0.1, 0.01, 1.0)]

    monkeypatch.setattr(thinned_job, "train_thinned", meanwhile)
    job = dataclasses.replace(jobs[0], train_data_path=copy)
    run_thinned_job(job, design=design, artifact_root=tmp_path / "E")

    (record,) = read_json(tmp_path / "E" / "training_manifest.json")["jobs"].values()
    assert record["inputs"]["../dense_train.npz"] == before
    assert load_ensemble(job.artifact_dir / ENSEMBLE).measurement_sha256 == before


@pytest.mark.parametrize("fault", ["scores", "record"])
def test_a_fault_after_the_training_leaves_what_it_can_go_on_from(
    matrix, trained, tmp_path, monkeypatch, fault
):
    def trained_before(*_, checkpoints, **__):
        checkpoints.mkdir(parents=True)
        return load_ensemble(trained / ENSEMBLE), [ThinnedRecord(1, 1, 0.5, 0.1, 0.01, 1.0)]

    def full(*_, **__):
        raise OSError(errno.ENOSPC, "no space left")

    module, name = {"scores": (thinned_job, "scores_of"), "record": (records, "merge_record")}[
        fault
    ]
    monkeypatch.setattr(thinned_job, "train_thinned", trained_before)
    monkeypatch.setattr(module, name, full)

    assert call(matrix, tmp_path, "train-thinned", "--dose=10000", "--view=dense") != 0

    assert (thinned_folder(tmp_path, *CONDITION) / "checkpoints").is_dir()


def test_the_history_has_every_member(matrix, trained):
    with (trained / "history.csv").open(encoding="ascii") as file:
        rows = list(csv.DictReader(file))

    design = matrix[1].thinned
    assert {int(row["member"]) for row in rows} == set(range(1, design.members + 1))
    assert int(rows[-1]["step"]) == design.steps


def test_the_log_tells_choices_thinnings_and_steps(trained):
    log = (trained / "train.log").read_text(encoding="ascii")

    assert all(word in log for word in ("configuration", "choose 1/1", "thin 2/2", "train 8/8"))


def test_a_dry_run_writes_nothing(matrix, tmp_path, capsys):
    flags = ("--dose=1000", "--view=dense", "--dry-run")
    assert call(matrix, tmp_path / "E", "train-thinned", *flags) == 0

    printed = json.loads(capsys.readouterr().out)
    assert printed["dry_run"]
    assert printed["members"] == matrix[1].thinned.members
    assert not (tmp_path / "E").exists()


def test_a_design_without_it_says_so(matrix, tmp_path):
    without = matrix[1].model_copy(update={"thinned": None})

    with pytest.raises(InputError, match=r"thinned is null in this design, .*laptop\.yaml"):
        thinned_design_of(without)
    with pytest.raises(InputError, match=r"thinned is null"):
        build_thinned_jobs(
            without,
            phase_c_root=matrix[0] / "C",
            phase_d_root=matrix[0] / "D",
            artifact_root=tmp_path,
        )
    assert "thinning-net" not in arms_of(without)


def test_every_condition_has_a_folder_of_its_own(matrix, tmp_path):
    root, design = matrix
    jobs, skipped = build_thinned_jobs(
        design, phase_c_root=root / "C", phase_d_root=root / "D", artifact_root=tmp_path
    )

    assert len({job.artifact_dir for job in jobs}) == len(jobs) == 9
    assert all(job.artifact_dir.name == "thinned" for job in jobs)
    assert skipped == []


# --- arms


def test_the_arm_tells_its_object_and_how_far_off_it_is(matrix, artifacts, trained):
    request = request_of(matrix, artifacts)

    result = arms_of(matrix[1])["thinning-net"](request)

    ensemble = load_ensemble(trained / ENSEMBLE)
    found = reconstruct_thinned(ensemble, request.measurement)
    np.testing.assert_array_equal(result.object_, found.object_)
    assert result.phase_std_rad.shape == result.object_.shape
    assert result.phase_std_rad.max() > 0
    assert result.training_cpu_s == ensemble.training_cpu_s
    assert ("not trusted" in result.knows) == (not ensemble.trust.given)
    again = arms_of(matrix[1])["thinning-net"](request)
    np.testing.assert_array_equal(result.phase_std_rad, again.phase_std_rad)


@pytest.mark.parametrize("algorithm", ["LSQML", "solver"])
def test_the_denoiser_is_chosen_on_the_train_split_and_used_on_both(
    matrix, artifacts, reconstructed, algorithm
):
    train, test = (
        arm_folder(reconstructed, *CONDITION, split, algorithm) for split in ("train", "test")
    )

    choice, written = read_denoiser(train / DENOISER)

    assert not (test / DENOISER).exists()
    assert written["measurement_sha256"] == request_of(matrix, artifacts).train_sha256
    assert written["choice_cpu_s"] > 0
    for split in ("train", "test"):
        request = request_of(matrix, artifacts, split)
        arms = arms_of(matrix[1])
        plain, smooth = (arms[f"{algorithm.lower()}{kind}"](request) for kind in ("", "-denoised"))
        expected = choice.applied(plain.object_, LitPart.of(request.measurement))
        np.testing.assert_array_equal(smooth.object_, expected)
        assert smooth.training_cpu_s == written["choice_cpu_s"]
        assert choice.family in smooth.knows


def test_a_broken_choice_is_refused_with_the_remedy(tmp_path):
    (tmp_path / DENOISER).write_text('{"family": "gaussian"}')

    with pytest.raises(InputError, match=r"not the choice of a denoiser .* --split train"):
        read_denoiser(tmp_path / DENOISER)


def test_without_denoised_arms_nothing_is_chosen(matrix, tmp_path, tiny_design_with):
    design = tiny_design_with("iterative.denoised=false", "iterative.algorithms=[solver]")
    root, _ = matrix
    roots = {"phase_c_root": root / "C", "phase_d_root": root / "D"}

    reconstruct_view(design, *CONDITION, "train", **roots, artifact_root=tmp_path)

    assert (arm_folder(tmp_path, *CONDITION, "train", "solver") / "reconstruction.npz").is_file()
    assert not (arm_folder(tmp_path, *CONDITION, "train", "solver") / DENOISER).exists()
    assert set(arms_of(design)) == {"pinn", "thinning-net", "solver"}


@pytest.mark.parametrize(
    ("setting", "message"),
    [
        ("thinned.kept_positions=[0.5]", r"kept_positions = \[0\.5\]: begin with 1"),
        ("thinned.photon_shares=[0.9, 0.5]", r"photon_shares: 0\.9 > 0\.5; swap them"),
        ("thinned.widths=[8, 0, 8]", r"widths = \[8, 0, 8\]: use 1 or more"),
        ("thinned.judged_share=1.0", r"judged_share"),
        ("thinned.member=3", r"thinned\.member: unknown name"),
    ],
)
def test_wrong_numbers_stop_before_anything_runs(tiny_design_with, setting, message):
    with pytest.raises(InputError, match=message):
        tiny_design_with(setting)
