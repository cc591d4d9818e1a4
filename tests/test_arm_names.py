"""Every arm has one key and one label, and the names of finished runs are read as these."""

import pytest

from study_lib.arm_names import current_array, current_row, plain_label
from study_lib.design.presets import load_design
from study_lib.phases.arms import arms_of


@pytest.mark.parametrize(
    ("name", "today"),
    [
        ("pinn-thinned", "thinning-net"),
        ("pinn-thinned_phase_std_rad", "thinning-net_phase_std_rad"),
        ("PtychoPINN gs2", "PtychoPINN"),
        ("solver-denoised", "solver-denoised"),
        ("photon_limit_phase_std_rad", "photon_limit_phase_std_rad"),
        ("truth", "truth"),
    ],
)
def test_an_array_is_called_after_its_arm_of_today(name, today):
    assert current_array(name) == today
    assert current_array(today) == today


def test_a_row_keeps_all_but_the_names_of_its_arm():
    row = {"arm": "pinn-thinned", "label": "PtychoPINN thinned", "knows": "pinn-thinned"}

    found = current_row(row)
    assert found.items() >= (row | {"arm": "thinning-net", "label": "thinning network"}).items()
    assert found["fallback"] == ""
    assert current_row({"dose": 1.0}) == {"dose": 1.0}


@pytest.mark.parametrize(
    ("arm", "label", "knows", "today"),
    [
        (
            *("pinn-thinned", "PtychoPINN thinned"),
            *("its network was not trusted, this is its base", "thinning network = its base"),
        ),
        (
            *("lsqml-denoised", "LSQML denoised"),
            *("denoiser (none) chosen on the train split", "LSQML denoised = LSQML"),
        ),
    ],
)
def test_a_row_of_a_finished_run_says_in_its_label_what_the_arm_fell_back_on(
    arm, label, knows, today
):
    row = {"arm": arm, "label": label, "knows": knows, "training_cpu_s": 4.5}

    found = current_row(row)

    assert found["label"] == today
    assert found["fallback_reason"]
    assert (found["training_cpu_s"], found["refused_training_cpu_s"]) == (None, 4.5)
    assert current_row(found) == found
    assert plain_label(today) == today.partition(" = ")[0]


def test_the_preset_has_the_arms_of_the_documentation():
    arms = ["pinn", "thinning-net", "lsqml", "lsqml-denoised", "solver", "solver-denoised"]

    assert list(arms_of(load_design("laptop"))) == arms
