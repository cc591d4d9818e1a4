"""Paired gains against scipy's paired test, and Holm's procedure against a published example."""

import numpy as np
import pytest
from made_runs import row_of
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
    """Five p-values as in many textbooks: .01, .04 and .03 alone would be below .05 each."""

    def with_p(p_value):
        place = ("grains", 1e3, "sparse", "pinn", "solver", "phase_psnr_db")
        return PairedGain(*place, (0.9, 1.0, 1.1), 0, 0, 1.0, 0.7, 1.3, p_value)

    found = corrected([with_p(p) for p in (0.01, 0.04, 0.03, 0.005)])
    assert [one.is_beyond_chance for one in found] == [True, False, False, True]
    widths = [one.corrected_high - one.corrected_low for one in found]
    assert widths[3] > widths[0] > widths[2] > widths[1]
    assert widths[1] == pytest.approx(2 * 4.302653 * 0.1 / np.sqrt(3), rel=1e-6)


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
        assert over.low < means.mean() - means.std() < over.gain


def test_what_has_no_score_is_counted_and_not_compared(scores):
    rows = rows_with(scores)
    rows[0] |= {"registration": "featureless"}
    rows[-1] |= {"fallback": "its base (TV)"}
    found = paired_gains(rows, "pinn", ["solver"], ["phase_psnr_db"])
    by_dose = {one.dose: one for one in found if one.specimen == "grains"}
    assert (by_dose[1e3].no_score, len(by_dose[1e3].values)) == (1, 4)
    assert (by_dose[1e4].refused, len(by_dose[1e4].values)) == (1, 5)


def test_one_seed_has_a_gain_and_no_interval(scores):
    one_seed = {arm: values[:, :1] for arm, values in scores.items()}
    one = paired_gains(rows_with(one_seed), "pinn", ["solver"], ["phase_psnr_db"])[0]
    assert one.gain is not None
    assert (one.low, one.p_value, one.corrected_low, one.is_beyond_chance) == (None,) * 4


def test_an_arm_that_is_missing_has_no_gain(scores):
    assert paired_gains(rows_with(scores), "pinn", ["lsqml"]) == []
