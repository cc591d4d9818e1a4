"""Phase E of the thinning network and the denoised arms, through the public commands."""

import csv
import errno
import json
import shutil
from dataclasses import replace

import numpy as np
import pytest
from command_line import exit_code
from tiny_runs import moved

from study_lib.errors import InputError
from study_lib.files import read_json, sha256_of, write_json
from study_lib.networks.thinned.ensemble import (
    ENSEMBLE,
    base_of,
    judged_anew,
    load_ensemble,
    reconstruct_thinned,
    save_ensemble,
)
from study_lib.networks.thinned.spread import phase_spread
from study_lib.networks.thinned.training import ThinnedRecord
from study_lib.networks.thinned.trust import Trust
from study_lib.phases import arms, records
from study_lib.phases import train_thinned as phase
from study_lib.phases.arms import ArmResult, arms_of, base_name
from study_lib.phases.conditions import Condition, conditions_of
from study_lib.phases.reconstruct import (
    DENOISER,
    chosen_by_train,
    read_denoiser,
    reconstruct,
    result_of,
)
from study_lib.phases.train_thinned import thinned_design_of
from study_lib.runs.run import Run
from study_lib.seeding import generator
from study_lib.solvers.denoising import LitPart

pytestmark = pytest.mark.slow

FLAGS = ("--dose=10000", "--view=dense")
KEY = "dose_10000/dense/thinned"


@pytest.fixture(scope="module")
def condition(matrix, tmp_path_factory) -> Condition:
    """A dense view of the matrix, whose results are kept in this module's own folder."""
    folder = tmp_path_factory.mktemp("artifacts")
    places = {"train_thinned": folder / "E", "reconstruct": folder / "F"}
    return moved(matrix.condition(1e4, "dense"), **places)


def call(matrix, artifact_root, command, *flags):
    """Run a phase command on the matrix; return its exit code."""
    arguments = [
        f"--phase-c-root={matrix.root('dataset')}",
        f"--phase-d-root={matrix.root('views')}",
        f"--artifact-root={artifact_root}",
    ]
    return exit_code(command, *arguments, *flags)


@pytest.fixture(scope="module")
def trained(matrix, condition):
    assert call(matrix, condition.root("train_thinned"), "train-thinned", *FLAGS) == 0
    return condition.folder("train_thinned")


@pytest.fixture(scope="module")
def reconstructed(matrix, condition):
    assert call(matrix, condition.root("reconstruct"), "reconstruct", *FLAGS) == 0
    return condition


def result(condition: Condition, arm: str) -> ArmResult:
    return arms_of(condition.design)[arm](condition, condition.measurement(), sha256_of)


def test_the_record_holds_every_choice_with_its_evidence(trained):
    record = read_json(trained.parents[2] / "training_manifest.json")["jobs"][KEY]
    written = read_json(trained / "thinned.json")

    assert record["status"] == "done"
    assert record["results"] == written
    assert written["bundle_sha256"] == sha256_of(trained / ENSEMBLE)
    for tried in (
        written["choices"]["after"]["tried"],
        written["choices"]["alternating"]["tried"],
        written["choices"]["last"]["tried"],
        written["smoothing"]["tried"],
    ):
        assert len(tried) >= 5
        assert all(np.isfinite(one["gain_nats"]) for one in tried)
    trust = written["trust"]
    given = trust.pop("given")
    assert given == Trust(**trust).given
    assert set(written["test"]) == {"base", "network"}
    assert written["training_cpu_s"] > 0
    assert not (trained / "checkpoints").exists()


def test_a_view_that_is_written_again_meanwhile_is_not_vouched_for(
    condition, trained, tmp_path, monkeypatch
):
    shutil.copytree(condition.root("views"), tmp_path / "D")
    copied = moved(condition, views=tmp_path / "D", train_thinned=tmp_path / "E")
    source = copied.of("train").file
    before = sha256_of(source)

    def meanwhile(*_, **__):
        source.write_bytes(b"other data")
        return load_ensemble(trained / ENSEMBLE), [ThinnedRecord(1, 1, 0.5, 0.1, 0.01, 1.0)]

    monkeypatch.setattr(phase, "train_networks", meanwhile)
    phase.train_thinned(copied)

    (record,) = read_json(tmp_path / "E" / "training_manifest.json")["jobs"].values()
    assert record["inputs"]["../D/dose_10000/dense/dense_train.npz"] == before
    bundle = copied.folder("train_thinned") / ENSEMBLE
    assert load_ensemble(bundle).measurement_sha256 == before


@pytest.mark.parametrize("fault", ["scores", "record"])
def test_a_fault_after_the_training_leaves_what_it_can_go_on_from(
    matrix, trained, tmp_path, monkeypatch, fault
):
    def trained_before(*_, checkpoints, **__):
        checkpoints.mkdir(parents=True)
        return load_ensemble(trained / ENSEMBLE), [ThinnedRecord(1, 1, 0.5, 0.1, 0.01, 1.0)]

    def full(*_, **__):
        raise OSError(errno.ENOSPC, "no space left")

    module, name = {"scores": (Condition, "score"), "record": (records, "merge_record")}[fault]
    monkeypatch.setattr(phase, "train_networks", trained_before)
    monkeypatch.setattr(module, name, full)

    assert call(matrix, tmp_path, "train-thinned", *FLAGS) != 0

    again = moved(matrix.condition(1e4, "dense"), train_thinned=tmp_path)
    assert (again.folder("train_thinned") / "checkpoints").is_dir()


def test_the_history_has_every_member(matrix, trained):
    with (trained / "history.csv").open(encoding="ascii") as file:
        rows = list(csv.DictReader(file))

    design = matrix.design.thinned
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
    assert printed["members"] == matrix.design.thinned.members
    assert not (tmp_path / "E").exists()


def test_a_design_without_it_says_so(matrix):
    without = matrix.design.model_copy(update={"thinned": None})

    with pytest.raises(InputError, match=r"thinned is null in this design, .*laptop\.yaml"):
        thinned_design_of(without)
    with pytest.raises(InputError, match=r"thinned is null"):
        phase.train_thinned(Run(matrix.folder, without).condition(1e4))
    assert "thinning-net" not in arms_of(without)


def test_every_condition_has_a_folder_of_its_own(matrix):
    folders = {one.folder("train_thinned") for one in conditions_of(matrix.design, matrix)}

    assert len(folders) == 9
    assert all(folder.name == "thinned" for folder in folders)


# --- arms


def test_the_arm_tells_its_object_and_how_far_off_it_is(condition, trained):
    own = result(condition, "thinning-net")

    ensemble = load_ensemble(trained / ENSEMBLE)
    measurement = condition.measurement()
    trust = judged_anew(ensemble, measurement, generator(ensemble.seed, "photon spread", "test"))
    found = reconstruct_thinned(ensemble, measurement, trust=trust)
    np.testing.assert_array_equal(own.object_, found.object_)
    random = generator(ensemble.seed, "photons counted again", "test")
    stated_rad = phase_spread(ensemble, measurement, found, trust, random)
    np.testing.assert_array_equal(own.phase_std_rad, stated_rad)
    assert stated_rad.max() > 0
    assert own.training_cpu_s == ensemble.training_cpu_s
    assert ("not trusted" in own.knows) == (not trust.given)
    assert bool(own.fallback) == bool(own.fallback_reason) == (not trust.given)
    again = result(condition, "thinning-net")
    np.testing.assert_array_equal(own.phase_std_rad, again.phase_std_rad)


def test_an_arm_whose_network_was_refused_says_what_it_is_and_by_which_numbers(
    trained, condition, tmp_path
):
    """On the split that taught it, by what its training kept back."""
    elsewhere = moved(condition, train_thinned=tmp_path).of("train")
    ensemble = load_ensemble(trained / ENSEMBLE)
    refused = replace(ensemble, trust=Trust(-0.25, 0.5))
    save_ensemble(elsewhere.folder("train_thinned") / ENSEMBLE, refused)

    own = result(elsewhere, "thinning-net")

    assert own.fallback == f"its base ({base_name(ensemble.choices.base)})"
    assert base_name("alternating total_variation") == "TV"
    assert "(-0.25 +- 0.50 nats a pattern)" in own.fallback_reason
    np.testing.assert_array_equal(own.object_, base_of(refused, elsewhere.measurement()))


@pytest.mark.parametrize("gain", [0.5, -0.5])
def test_patterns_that_did_not_teach_judge_a_network_anew(
    trained, condition, monkeypatch, tmp_path, gain
):
    """Whatever its training found: the test split's own photons decide, and are what is said."""
    elsewhere = moved(condition, train_thinned=tmp_path)
    ensemble = load_ensemble(trained / ENSEMBLE)
    save_ensemble(
        elsewhere.folder("train_thinned") / ENSEMBLE, replace(ensemble, trust=Trust(-gain, 0.1))
    )
    monkeypatch.setattr(arms, "judged_anew", lambda *given: Trust(gain, 0.1))

    own = result(elsewhere, "thinning-net")

    assert bool(own.fallback) == (gain < 0)
    assert ("(-0.50 +- 0.10 nats a pattern)" in own.fallback_reason) == (gain < 0)
    assert bool(own.learned_parameters) == (gain > 0)


def test_a_self_taught_network_has_learned_from_the_patterns_of_its_own_object(
    matrix, condition, trained
):
    """It lies beside the other, is made from other data, and of the train split is the other."""
    design = matrix.design.thinned.model_copy(update={"self_taught": True})
    study = matrix.design.model_copy(update={"thinned": design})
    places = dict.fromkeys(("train_thinned", "train_self_taught"), trained.parents[2])
    own_taught = moved(Run(matrix.folder, study).condition(1e4, "dense"), **places)
    flags = (*FLAGS, "--split=test")
    assert call(matrix, own_taught.root("train_thinned"), "train-thinned", *flags) == 0

    arm = arms_of(study)["self-taught"]
    found = arm(own_taught, own_taught.measurement(), sha256_of)

    (source,) = found.sources
    assert source == trained.parent / "self_taught" / ENSEMBLE
    assert load_ensemble(source).measurement_sha256 == sha256_of(own_taught.file)
    assert "these very patterns" in found.knows
    train = own_taught.of("train")
    same = [
        arms_of(study)[name](train, train.measurement(), sha256_of)
        for name in ("self-taught", "thinning-net")
    ]
    np.testing.assert_array_equal(same[0].object_, same[1].object_)
    assert read_json(source.parent / "thinned.json")["training_cpu_s"] == found.training_cpu_s


@pytest.mark.parametrize("algorithm", ["LSQML", "solver"])
def test_the_denoiser_is_chosen_on_the_train_split_and_used_on_both(reconstructed, algorithm):
    train, test = (reconstructed.of(split) for split in ("train", "test"))

    choice, written = read_denoiser(chosen_by_train(test, algorithm, DENOISER))

    assert chosen_by_train(test, algorithm, DENOISER).parent == result_of(train, algorithm).parent
    assert not (result_of(test, algorithm).parent / DENOISER).exists()
    assert written["measurement_sha256"] == sha256_of(train.file)
    assert written["choice_cpu_s"] > 0
    for one in (train, test):
        plain, smooth = (result(one, f"{algorithm.lower()}{kind}") for kind in ("", "-denoised"))
        expected = choice.applied(plain.object_, LitPart.of(one.measurement()))
        np.testing.assert_array_equal(smooth.object_, expected)
        assert smooth.training_cpu_s == written["choice_cpu_s"]
        assert choice.family in smooth.knows


def test_an_arm_that_no_denoiser_helped_says_that_it_is_the_plain_one(reconstructed, tmp_path):
    shutil.copytree(reconstructed.root("reconstruct"), tmp_path, dirs_exist_ok=True)
    elsewhere = moved(reconstructed, reconstruct=tmp_path)
    path = chosen_by_train(elsewhere, "solver", DENOISER)
    write_json(path, read_json(path) | {"family": "none", "strength": 0.0})

    plain, denoised = (result(elsewhere, f"solver{kind}") for kind in ("", "-denoised"))

    assert (plain.fallback, denoised.fallback) == ("", "solver")
    assert "no denoiser" in denoised.fallback_reason
    np.testing.assert_array_equal(denoised.object_, plain.object_)


def test_a_broken_choice_is_refused_with_the_remedy(tmp_path):
    (tmp_path / DENOISER).write_text('{"family": "gaussian"}')

    with pytest.raises(InputError, match=r"not the choice of a denoiser .* --split train"):
        read_denoiser(tmp_path / DENOISER)


def test_without_denoised_arms_nothing_is_chosen(matrix, tmp_path, tiny_design_with):
    design = tiny_design_with("iterative.denoised=false", "iterative.algorithms=[solver]")
    train = Run(matrix.folder, design).condition(1e4, "dense", "train")
    condition = moved(train, reconstruct=tmp_path)

    reconstruct(condition)

    assert result_of(condition, "solver").is_file()
    assert not chosen_by_train(condition, "solver", DENOISER).exists()
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
