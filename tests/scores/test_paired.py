"""Paired gains against scipy's paired test, and Holm's procedure by its definition."""

import numpy as np
import pytest
from made_runs import row_of
from scipy.stats import t as student_t
from scipy.stats import ttest_rel

from study_lib.scores.paired import OVER_SPECIMENS, PairedGain, corrected, paired_gains

DOSES = (1e3, 1e4)


def rows_with(scores, *, specimen="grains", metric="phase_psnr_db", **columns):
    """Return rows of each arm, dose and seed; ``scores[arm]`` is (dose, seed)."""
    return [
        row_of(arm, dose=dose, replicate=seed, view="sparse", **{metric: float(value)}, **columns)
        | {"specimen": specimen}
        for arm, values in scores.items()
        for dose, of_dose in zip(DOSES, values, strict=True)
        for seed, value in enumerate(of_dose)
    ]


@pytest.fixture
def scores():
    random = np.random.default_rng(3)
    base = random.normal(25, 2, (2, 5))
    return {"solver": base, "pinn": base + random.normal(0.5, 0.3, (2, 5))}


def test_the_interval_and_p_value_are_those_of_a_paired_test(scores):
    found = paired_gains(rows_with(scores), "pinn", ["solver"], ["phase_psnr_db"])
    for dose, ours, theirs in zip(DOSES, scores["pinn"], scores["solver"], strict=True):
        (one,) = (gain for gain in found if (gain.dose, gain.specimen) == (dose, "grains"))
        expected = ttest_rel(ours, theirs)
        interval = expected.confidence_interval(0.95)
        assert one.p_value == pytest.approx(expected.pvalue)
        assert (one.low, one.high) == pytest.approx((interval.low, interval.high))
        assert one.gain == pytest.approx(np.mean(ours - theirs))


def test_a_gain_is_in_favour_of_the_arm_whichever_way_the_metric_counts(scores):
    for metric, sign in (("phase_psnr_db", 1), ("phase_error_over_wiener", -1)):
        rows = rows_with(scores, metric=metric)
        one = paired_gains(rows, "pinn", ["solver"], [metric])[0]
        other = paired_gains(rows, "solver", ["pinn"], [metric])[0]
        assert one.gain == pytest.approx(sign * np.mean(scores["pinn"][0] - scores["solver"][0]))
        assert other.gain == pytest.approx(-one.gain)
        assert other.p_value == pytest.approx(one.p_value)


def test_holms_procedure_stops_at_the_first_that_is_not_below_its_level():
    """By hand: .005 < .05 / 4 and .01 < .05 / 3, but .03 > .05 / 2; alone, each is below .05."""
    wanted = (0.01, 0.04, 0.03, 0.005)
    found = corrected([gain_with(p_value) for p_value in wanted])
    assert [one.is_beyond_chance for one in found] == [True, False, False, True]
    for one, level in zip(found, (0.05 / 3, 0.05 / 2, 0.05 / 2, 0.05 / 4), strict=True):
        interval = ttest_rel(one.values, np.zeros(5)).confidence_interval(1 - level)
        assert (one.corrected_low, one.corrected_high) == pytest.approx(tuple(interval))


@pytest.mark.parametrize("seed", range(20))
def test_an_interval_at_holms_level_holds_zero_wherever_the_procedure_does_not_reject(seed):
    random = np.random.default_rng(seed)
    found = corrected([gain_with(p_value) for p_value in random.uniform(0.001, 0.06, 6)])
    for one in found:
        assert one.is_beyond_chance == (one.corrected_low > 0 or one.corrected_high < 0)


def gain_with(p_value):
    """Return the gain of five differences that have this p-value."""
    shape = np.array([-1.0, -0.5, 0.0, 0.5, 1.0])
    error = shape.std(ddof=1) / np.sqrt(5)
    values = tuple(shape + student_t.isf(p_value / 2, 4) * error)
    mean = float(np.mean(values))
    found = float(ttest_rel(values, np.zeros(5)).pvalue)
    assert found == pytest.approx(p_value)
    place = ("grains", 1e3, "sparse", "pinn", "solver", "phase_psnr_db")
    return PairedGain(*place, values, 0, 0, 0, mean, mean - 1, mean + 1, found)


def test_over_specimens_each_counts_once(scores):
    rows = rows_with(scores)
    for specimen, more in (("cells", 1.0), ("star", -0.2)):
        moved = {"solver": scores["solver"], "pinn": scores["pinn"] + more}
        rows += rows_with(moved, specimen=specimen)
    found = paired_gains(rows, "pinn", ["solver"], ["phase_psnr_db"])
    for dose, ours, theirs in zip(DOSES, scores["pinn"], scores["solver"], strict=True):
        (over,) = (one for one in found if (one.dose, one.specimen) == (dose, OVER_SPECIMENS))
        means = np.mean(ours - theirs) + np.array([0, 1.0, -0.2])
        assert over.values == pytest.approx(means)
        assert over.gain == pytest.approx(means.mean())
        interval = ttest_rel(means, np.zeros(3)).confidence_interval(0.95)
        assert (over.low, over.high) == pytest.approx((interval.low, interval.high))


def test_two_specimens_have_a_mean_and_no_interval(scores):
    rows = rows_with(scores) + rows_with(scores | {"pinn": scores["pinn"] + 1}, specimen="cells")
    found = paired_gains(rows, "pinn", ["solver"], ["phase_psnr_db"])
    over = [one for one in found if one.specimen == OVER_SPECIMENS]
    assert [(len(one.values), one.p_value) for one in over] == [(2, None)] * 2


def test_equal_differences_have_no_p_value(scores):
    rows = rows_with({"solver": scores["solver"], "pinn": scores["solver"]})
    assert {one.p_value for one in paired_gains(rows, "pinn", ["solver"])} == {None}


def test_an_arm_that_fails_with_some_seeds_is_not_called_ahead_for_the_others(scores):
    """What is left are the seeds with which it went well."""
    for failing, verdicts in (("pinn", {None}), ("solver", {True, False})):
        rows = rows_with(scores)
        for row in rows:
            if row["arm"] == failing and row["replicate"] < 2:
                row["registration"] = "featureless"
        found = paired_gains(rows, "pinn", ["solver"], ["phase_psnr_db"])
        of_grains = [one for one in found if one.specimen == "grains"]
        assert {one.is_beyond_chance for one in of_grains} <= verdicts
        assert {len(one.values) for one in of_grains} == {3}
        counted = {(one.arm_failed, one.opponent_failed) for one in of_grains}
        assert counted == {(2, 0) if failing == "pinn" else (0, 2)}


def test_what_has_no_score_is_counted_and_not_compared(scores):
    rows = rows_with(scores)
    rows[0] |= {"registration": "featureless"}
    rows[-1] |= {"fallback": "its base (TV)"}
    found = paired_gains(rows, "pinn", ["solver"], ["phase_psnr_db"])
    by_dose = {one.dose: one for one in found if one.specimen == "grains"}
    assert (by_dose[1e3].opponent_failed, len(by_dose[1e3].values)) == (1, 4)
    assert (by_dose[1e4].refused, len(by_dose[1e4].values)) == (1, 5)


def test_one_seed_has_a_gain_and_no_interval(scores):
    one_seed = {arm: values[:, :1] for arm, values in scores.items()}
    one = paired_gains(rows_with(one_seed), "pinn", ["solver"], ["phase_psnr_db"])[0]
    assert one.gain is not None
    assert (one.low, one.p_value, one.corrected_low, one.is_beyond_chance) == (None,) * 4


def test_an_arm_that_is_missing_has_no_gain(scores):
    assert paired_gains(rows_with(scores), "pinn", ["lsqml"]) == []
