"""Photons at equal quality, on made-up curves whose answer is known."""

import math

import numpy as np
import pytest

from study_lib.design.wanted import wanted_of
from study_lib.errors import InputError
from study_lib.scores.answers import answers_of
from study_lib.scores.dose_saving import (
    Number,
    dose_savings,
    least_dose,
    least_doses,
    over_replicates,
    phase_error,
    saving,
)

DOSES = (1e3, 1e4, 1e5)


def root_law(error_at_1e3: float, doses=DOSES) -> dict[float, float]:
    return {dose: error_at_1e3 * math.sqrt(1e3 / dose) for dose in doses}


def row(arm, dose, error, *, view="dense", replicate=0, **values):
    return {
        "split": "test",
        "dose": dose,
        "view": view,
        "overlap": {"dense": 0.7, "sparse": 0.2}[view],
        "overlap_linear": {"dense": 0.76, "sparse": 0.33}[view],
        "arm": arm.lower(),
        "label": arm,
        "replicate": replicate,
        "patterns": 100,
        "photons_measured": dose,
        "photons_per_object_pixel": dose / 100,
        "patterns_sha256": f"{view} {dose} {replicate}",
        "phase_mse_rad2": error**2,
        "phase_ssim": 0.9,
        "frc_crossing": min(1.0, 0.05 / error),
        "registration": "ok",
        "fallback": "",
    } | values


def study(errors, doses=DOSES, **values):
    """Return rows of arms whose error falls with the root of the dose."""
    return [
        row(arm, dose, error, **values)
        for arm, at_1e3 in errors.items()
        for dose, error in root_law(at_1e3, doses).items()
    ]


def test_half_the_error_by_the_root_law_is_a_quarter_of_the_photons():
    found = saving(root_law(0.05), root_law(0.1), 1e5)

    assert found.value == pytest.approx(4.0, rel=1e-12)
    assert found.bound == ""
    assert saving(root_law(0.1), root_law(0.05), 1e4).value == pytest.approx(0.25, rel=1e-12)


def test_nothing_is_extrapolated():
    far_better = saving(root_law(0.001), root_law(0.1), 1e4)
    far_worse = saving(root_law(0.1), root_law(0.001), 1e4)

    assert (far_better.value, far_better.bound) == (10.0, "at least")
    assert (far_worse.value, far_worse.bound) == (0.1, "at most")


def test_the_least_dose_is_that_from_which_on_the_level_is_kept():
    """A curve that dips below the level and rises again has not reached it at the dip."""
    curve = {1e2: 0.04, 1e3: 0.2, 1e4: 0.1, 1e5: 0.01}

    found = least_dose(curve, 0.1)

    assert found == Number(1e4)
    assert least_dose(curve, 0.005) is None


def test_replicates_give_an_interval_in_ratios_and_bounds_stay_bounds():
    factors = [2.0, 4.0, 8.0]
    half = 4.302652729749464 * math.log(2) / math.sqrt(3)  # Student's t, two degrees of freedom

    exact = over_replicates([Number(one) for one in factors])
    bounded = over_replicates([Number(2.0), Number(8.0, "at least")])

    assert exact.value == pytest.approx(4.0)
    assert (exact.low, exact.high) == pytest.approx((4 * math.exp(-half), 4 * math.exp(half)))
    assert (bounded.value, bounded.bound, bounded.low) == (pytest.approx(4.0), "at least", None)
    assert over_replicates([Number(2.0, "at most"), Number(8.0, "at least")]) is None
    assert over_replicates([Number(2.0)]) == Number(2.0)


def test_every_pair_of_arms_has_its_factor_in_every_view():
    rows = study({"A": 0.1, "B": 0.05}) + study({"A": 0.1, "B": 0.2}, view="sparse")

    table = dose_savings(rows)

    factors = {
        (one["view"], one["arm"], one["reference"], one["dose"]): one["factor"]
        for one in table
        if one["quality"] == "phase error" and not one["bound"]
    }
    assert factors["dense", "B", "A", 1e5] == pytest.approx(4.0)
    assert factors["dense", "A", "B", 1e3] == pytest.approx(0.25)
    assert factors["sparse", "A", "B", 1e5] == pytest.approx(4.0)
    assert {one["quality"] for one in table} == {"phase error", "resolution"}


def test_rows_that_are_no_scores_save_nothing():
    rows = study({"A": 0.1, "B": 0.05}) + study({"C": 0.01}, fallback="A")
    rows += study({"D": 0.01}, registration="uncertain")

    assert {one["arm"] for one in dose_savings(rows)} == {"A", "B"}


def test_the_least_doses_of_a_known_law():
    """An error of 0.02 rad needs 25 times the photons that 0.1 rad at 1e3 has."""
    rows = study({"A": 0.1, "B": 0.01, "C": 5.0})

    found = {one["arm"]: one for one in least_doses(rows, phase_error, 0.02)}

    assert (found["A"]["dose"], found["A"]["bound"]) == (pytest.approx(25e3), "")
    assert found["A"]["photons_per_pattern"] == pytest.approx(25e3)
    assert (found["B"]["dose"], found["B"]["bound"]) == (1e3, "at most")
    assert (found["C"]["dose"], found["C"]["bound"]) == (1e5, "at least")


def test_noisy_replicates_of_a_known_law_have_the_true_factor_in_their_interval():
    """Of 200 studies with three replicates, 95 % of the intervals hold the factor of 4."""
    random, held = np.random.default_rng(0), 0
    for _ in range(200):
        numbers = []
        for _ in range(3):
            noise = random.normal(0, 0.02, (2, 3))
            curves = [
                {
                    dose: error * math.exp(one)
                    for (dose, error), one in zip(law.items(), part, strict=True)
                }
                for law, part in zip((root_law(0.05), root_law(0.1)), noise, strict=True)
            ]
            numbers.append(saving(*curves, 1e5))
        mean = over_replicates(numbers)
        held += mean.low <= 4.0 <= mean.high

    assert 0.9 <= held / 200 <= 0.99


def answers(rows, *wanted, **known):
    return answers_of(rows, [wanted_of(text) for text in wanted], **known)


def test_the_answer_says_what_the_leading_arm_saves_in_which_view():
    rows = study({"A": 0.1, "B": 0.05}) + study({"A": 0.2, "B": 0.16}, view="sparse")

    found = answers(rows, "phase_error=0.02")

    assert found.sentences[0] == (
        "At equal phase error, that of the other arm at the highest dose that tells a number, B "
        "needs 1.6 times fewer photons (sparse) to 4 times fewer photons (dense) than A."
    )
    assert "One replicate: how certain these factors are is not known." in found.sentences
    assert (
        "Least dose for phase error 0.02 rad, in photons per pattern: B 6200 (dense); A 25000 "
        "(dense)."
    ) in found.sentences


def test_views_that_the_lowest_dose_serves_are_all_named():
    """Which of them needs the least is not known; where no dose serves, it is more than all."""
    rows = study({"A": 0.01, "B": 5.0}) + study({"A": 0.02, "B": 5.0}, view="sparse")

    found = answers(rows, "phase_error=0.1")

    (line,) = [one for one in found.sentences if one.startswith("Least dose")]
    assert line.endswith("A at most 1000 (dense; sparse); B more than 100000.")
    (table,) = [one for one in found.tables if one.title.startswith("Least dose")]
    assert ("B", "more than 100000", "more than 100000") in table.rows


def test_with_one_dose_the_answer_claims_no_saving():
    found = answers(study({"A": 0.1, "B": 0.05}, doses=(1e4,)), "phase_error=0.001")

    assert found.sentences[0].startswith("The study has one dose, so it cannot say how many")
    assert (
        "No arm reaches phase error 0.001 rad at up to 10000 photons per pattern."
        in found.sentences
    )
    assert found.savings == []


def test_the_best_overlap_is_told_at_equal_photons_on_the_object_alone():
    per_pixel = {"dose_per": "pixel"}
    rows = study({"A": 0.1}, **per_pixel) + study({"A": 0.2}, view="sparse", **per_pixel)

    said = [line for line in answers(rows).sentences if "lowest phase error in" in line]

    assert len(said) == 1
    assert said[0].count("dense at") == 3
    assert "disc area 0.70, linear 0.76" in said[0]
    assert not [line for line in answers(study({"A": 0.1})).sentences if "lowest phase" in line]


def test_arms_that_replicates_do_not_tell_from_each_other_are_counted():
    rows = []
    for replicate, (ours, theirs) in enumerate([(0.10, 0.11), (0.12, 0.11), (0.11, 0.115)]):
        rows += study({"A": ours, "B": theirs}, replicate=replicate)
        rows += study(
            {"A": ours, "B": 2 * ours + replicate / 1e3}, view="sparse", replicate=replicate
        )

    said = [line for line in answers(rows).sentences if line.startswith("No difference in phase")]

    assert said == [
        "No difference in phase error beyond the spread (paired 95 % intervals) between A and: "
        "B in 3 of 6 conditions."
    ]


def test_a_resolution_in_nm_and_a_flux_make_nanometres_and_seconds():
    rows = study({"A": 0.1})

    found = answers(rows, "frc=20nm", pixel_m=1e-8, flux_per_s=1e6)

    (line,) = [one for one in found.sentences if "half-period resolution of 20 nm" in one]
    assert "A 1000" not in line
    assert "s a frame" in line
    assert any("An object pixel is 10 nm wide" in one for one in found.sentences)
    with pytest.raises(InputError, match="the size of an object pixel is not known"):
        answers(rows, "frc=20nm")
    with pytest.raises(InputError, match="finer than the object pixel of 10 nm can show"):
        answers(rows, "frc=5nm", pixel_m=1e-8)


@pytest.mark.parametrize(
    "text", ["", "frc", "frc=", "frc=a", "sharp=3", "ssim=0.9nm", "frc=1e", "phase_error=-1"]
)
def test_what_is_no_wanted_quality_is_refused_with_an_example(text):
    with pytest.raises(
        InputError, match=r"wanted '.*': (write a score and a level, like|the level)"
    ):
        wanted_of(text)


@pytest.mark.parametrize("text", ["frc=1.5", "ssim=0", "phase_error=11"])
def test_a_level_that_no_score_has_is_refused(text):
    with pytest.raises(InputError, match="the level is above 0 and at most"):
        wanted_of(text)


def test_a_view_is_judged_up_to_the_highest_dose_that_it_was_computed_at():
    """Conditions may be single points: what another view had says nothing of this one."""
    rows = [
        row("A", 1e3, 0.3),
        row("A", 1e5, 0.2, view="sparse"),
        row("A", 1e6, 0.15, view="sparse"),
    ]

    least = least_doses(rows, phase_error, 0.1)

    assert {one["view"]: (one["dose"], one["bound"]) for one in least} == {
        "dense": (1e3, "at least"),
        "sparse": (1e6, "at least"),
    }


def test_no_overlap_is_best_at_a_dose_that_has_one_view():
    alone = {"dose_per": "pixel"}
    rows = [row("A", 1.0, 0.3, **alone), row("A", 10.0, 0.1, view="sparse", **alone)]

    found = answers_of(rows, [wanted_of("phase_error=0.1")])

    assert not [one for one in found.sentences if "At equal photons" in one or "Bunk" in one]
    assert any("No two arms have scores at two doses of one view" in one for one in found.sentences)


def test_the_best_overlap_is_named_where_there_are_two():
    alone = {"dose_per": "pixel"}
    rows = [row("A", 10.0, 0.3, **alone), row("A", 10.0, 0.1, view="sparse", **alone)]

    found = answers_of(rows, [wanted_of("phase_error=0.1")])

    assert any("A has the lowest phase error in sparse at 10" in one for one in found.sentences)
