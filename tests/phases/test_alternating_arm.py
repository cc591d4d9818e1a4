"""The arms of steps and a denoiser in turn, and of what the thinning network starts from."""

import numpy as np
import pytest
from tiny_runs import moved

from study_lib.data.contract import load_object
from study_lib.errors import InputError
from study_lib.files import read_json, sha256_of, write_json
from study_lib.phases.arms import ArmResult, arms_of
from study_lib.phases.compare import fresh_counts
from study_lib.phases.conditions import Condition
from study_lib.phases.reconstruct import (
    ALTERNATION,
    chosen_by_train,
    read_alternation,
    reconstruct,
)
from study_lib.phases.train_thinned import train_thinned
from study_lib.runs.run import Run
from study_lib.solvers.denoising import LitPart

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def condition(tiny_run, tiny_design_with, tmp_path_factory) -> Condition:
    """A view of the tiny study with both arms, reconstructed and trained."""
    design = tiny_design_with(
        "iterative.algorithms=[solver]", "iterative.alternating=true", "thinned.base_shown=true"
    )
    folder = tmp_path_factory.mktemp("artifacts")
    places = {name: folder / name for name in ("train_thinned", "reconstruct")}
    found = moved(Run(tiny_run.folder, design).condition(1e4, "dense"), **places)
    for split in ("train", "test"):
        reconstruct(found.of(split))
    train_thinned(found)
    return found


def result(condition: Condition, arm: str) -> ArmResult:
    return arms_of(condition.design)[arm](condition, condition.measurement(), sha256_of)


def test_the_choice_is_made_on_the_train_split_and_used_on_both(condition):
    path = chosen_by_train(condition, "solver", ALTERNATION)
    choice, written = read_alternation(path)
    assert written["measurement_sha256"] == sha256_of(condition.of("train").file)
    assert not (condition.folder("reconstruct") / "solver" / ALTERNATION).exists()
    for split in ("train", "test"):
        one = condition.of(split)
        plain, better = (result(one, f"solver{kind}") for kind in ("", "-alternating"))
        measurement = one.measurement()
        expected = choice.applied(measurement, plain.object_, LitPart.of(measurement))
        np.testing.assert_array_equal(better.object_, expected)
        assert better.training_cpu_s == written["choice_cpu_s"]
        assert better.cpu_s > plain.cpu_s
        assert better.label == "solver alternating"


def test_it_is_charged_with_a_run_of_its_own_and_chose_among_all_numbers_of_epochs(condition):
    _, written = read_alternation(chosen_by_train(condition, "solver", ALTERNATION))
    families = {one["family"] for one in written["tried"]}
    assert {"total_variation", "non_local_means", "gaussian"} <= families
    assert {name.rpartition(" ")[2] for name in families if "epochs" in name} == {"10", "20", "40"}
    record = read_json(condition.manifest("reconstruct"))["jobs"]
    (job,) = (job for key, job in record.items() if key.endswith("train/solver"))
    assert job["results"]["alternation"]["choice_cpu_s"] == written["choice_cpu_s"]
    assert written["choice_cpu_s"] > job["results"]["reconstruction_cpu_s"]


def test_fresh_counts_are_likelier_under_it_than_under_the_solver(condition):
    measurement = condition.measurement()
    truth, _ = load_object(condition.file)
    fresh = fresh_counts(condition, measurement, truth)
    plain, better = (result(condition, f"solver{kind}").object_ for kind in ("", "-alternating"))
    assert fresh.excess_nats(better) < fresh.excess_nats(plain)


def test_what_no_count_asked_for_is_the_solver_and_says_so(condition, tmp_path):
    train = chosen_by_train(condition, "solver", ALTERNATION)
    kept = read_json(train)
    none = {"family": "none", "strength": 0.0, "epochs": 0, "last_family": "none"}
    write_json(train, kept | none)
    try:
        plain, refused = (result(condition, f"solver{kind}") for kind in ("", "-alternating"))
        assert refused.fallback == "solver"
        assert "no denoiser" in refused.fallback_reason
        np.testing.assert_array_equal(plain.object_, refused.object_)
        write_json(train, {"family": "total_variation"})
        with pytest.raises(InputError, match=r"not the choice of an alternation .* --split train"):
            result(condition, "solver-alternating")
    finally:
        write_json(train, kept)


def test_the_base_is_what_the_network_starts_from_and_costs_its_choice_alone(condition):
    base, network = (result(condition, arm) for arm in ("thinned-base", "thinning-net"))
    results = read_json(condition.folder("train_thinned") / "thinned.json")
    scores, _ = condition.score(base.object_)
    assert results["test"]["base"]["phase_psnr_db"] == scores["phase_psnr_db"]
    assert 0 < base.training_cpu_s < network.training_cpu_s


def test_alternating_without_the_solver_is_refused_by_name(tiny_design_with):
    with pytest.raises(InputError, match="add solver to algorithms"):
        tiny_design_with("iterative.algorithms=[LSQML]", "iterative.alternating=true")
