"""Means, spreads and signed differences over replicates, and the sentences made from them."""

import re

import numpy as np
import pytest
from scipy import stats

from study_lib.arm_names import NOT_TRUSTED, as_fallback
from study_lib.figures.common import plt
from study_lib.figures.results import heat_maps, phase_error_by_dose, quality_by_cost
from study_lib.scores.findings import findings, training_repaid_after
from study_lib.scores.metrics import METRICS
from study_lib.scores.shown_tables import (
    NOTES,
    arms_table,
    delta_table,
    markdown_table,
    notes_of,
    shown_table,
)
from study_lib.scores.study_table import mean_of, phase_deltas, spread_of, study_table

OVERLAP = {"baseline": 0.75, "dense": 0.7, "sparse": 0.2}


def row(arm, *, dose=1e3, view="baseline", replicate=0, registration="ok", **values):
    """Return a row as a comparison writes it; metrics that are not given are 0.5."""
    return {
        "dose": dose,
        "view": view,
        "overlap": OVERLAP[view],
        "overlap_target": None,
        "split": "test",
        "replicate": replicate,
        "arm": arm,
        "label": arm.upper(),
        "knows": "probe",
        "patterns": 100 if view == "baseline" else 20,
        "registration": registration,
        "fallback": "",
        "fallback_reason": "",
        "grouping": "",
        "photon_limit_phase_rad": 0.1 * np.sqrt(1e3 / dose),
        "ideal_limit_phase_rad": 0.09 * np.sqrt(1e3 / dose),
        "wiener_phase_rad": 0.08 * np.sqrt(1e3 / dose),
        **dict.fromkeys(METRICS, 0.5),
        **values,
    }


def replicates(arm, scores, **values):
    return [
        row(arm, replicate=index, phase_ms_ssim=score, **values)
        for index, score in enumerate(scores)
    ]


def refused(found, fallback="its base (TV)"):
    """Return a row of an arm that held-out counts refused."""
    return found | as_fallback(found, fallback, NOT_TRUSTED)


def numbers_of(line):
    return [cell.text for cell in line.cells if cell.is_number]


def test_replicates_become_mean_standard_deviation_and_students_interval_of_the_mean():
    scores = [0.7, 0.8, 0.95, 0.75]
    (found,) = study_table(replicates("lsqml", scores))

    assert found["replicates"] == 4
    assert found["phase_ms_ssim"] == pytest.approx(np.mean(scores))
    assert found["phase_ms_ssim_std"] == pytest.approx(np.std(scores, ddof=1))
    interval = stats.ttest_1samp(scores, 0).confidence_interval(0.95)
    assert found["phase_ms_ssim_low"] == pytest.approx(interval.low)
    assert found["phase_ms_ssim_high"] == pytest.approx(interval.high)
    assert "replicate" not in found


def test_the_interval_of_many_draws_is_that_of_the_normal_law():
    values = np.random.default_rng(3).normal(0.6, 0.05, 400)

    found = spread_of("x", list(values))

    half = 1.96 * values.std(ddof=1) / np.sqrt(len(values))
    assert found["x_low"] == pytest.approx(values.mean() - half, abs=0.1 * half)
    assert found["x_high"] == pytest.approx(values.mean() + half, abs=0.1 * half)


@pytest.mark.parametrize("replicates", [2, 3, 5, 10])
def test_the_interval_holds_the_true_mean_as_often_as_it_says(replicates):
    """Of values that scatter normally; a bootstrap of two has the mean in half of all cases."""
    trials = np.random.default_rng(29).normal(0.7, 0.02, (20_000, replicates))

    found = [spread_of("x", values) for values in trials.tolist()]

    covered = np.mean([one["x_low"] <= 0.7 <= one["x_high"] for one in found])
    assert 0.94 <= covered <= 0.96


def test_the_interval_of_a_paired_difference_is_that_of_a_paired_t_test():
    ours, theirs = [0.8, 0.83, 0.79], [0.7, 0.76, 0.72]
    (found,) = phase_deltas([*replicates("lsqml", theirs), *replicates("solver", ours)])

    interval = stats.ttest_rel(ours, theirs).confidence_interval(0.95)
    assert found["phase_ms_ssim_delta_low"] == pytest.approx(interval.low)
    assert found["phase_ms_ssim_delta_high"] == pytest.approx(interval.high)


def test_one_replicate_has_no_spread_and_says_so():
    table = study_table([row("lsqml"), row("solver")])

    for found in table:
        assert [found[f"phase_ms_ssim_{part}"] for part in ("std", "low", "high")] == [None] * 3
    assert "±" not in markdown_table(table)
    assert "no spread and no interval" in findings(table, [])[0]


def test_of_one_replicate_findings_state_numbers_and_no_difference_beyond_them(matrix):
    text = "\n".join(findings(matrix, []))

    assert "whether a difference would come again is not known" in text
    assert "so biased" not in text
    assert "interval of the" not in text
    assert "unbiased estimates in this replicate: LSQML in 0 of 4" in text


def test_equal_replicates_have_no_width():
    found = spread_of("x", [0.3, 0.3, 0.3])

    assert found == {"x_std": 0.0, "x_low": 0.3, "x_high": 0.3}


def test_a_number_that_one_replicate_lacks_has_no_mean():
    rows = [row("lsqml", frc_crossing=0.4), row("lsqml", replicate=1, frc_crossing=None)]

    (found,) = study_table(rows)

    assert found["frc_crossing"] is None
    assert found["frc_crossing_std"] is None
    assert mean_of([3, 3]) == 3
    assert isinstance(mean_of([3, 3]), int)


def test_a_doubtful_registration_of_one_replicate_marks_the_row():
    rows = [row("pinn"), row("pinn", replicate=1, registration="uncertain")]

    (found,) = study_table(rows)

    assert found["registration"] == "uncertain in 1 of 2"


def test_differences_are_signed_and_paired_by_replicate():
    """Paired: an offset common to both arms of a replicate has no part in the spread."""
    offsets = [0.0, 0.3, -0.2]
    rows = replicates("lsqml", [0.5 + offset for offset in offsets])
    rows += replicates("pinn", [0.45 + offset for offset in offsets], phase_mae_rad=0.2)

    (found,) = phase_deltas(rows)

    assert (found["arm"], found["reference"], found["pairs"]) == ("PINN", "LSQML", 3)
    assert found["phase_ms_ssim_delta"] == pytest.approx(-0.05)
    assert found["phase_ms_ssim_delta_std"] == pytest.approx(0, abs=1e-12)
    assert found["phase_mae_rad_delta"] == pytest.approx(-0.3)
    assert "| -0.050 ± 0.000 | -0.300000 ± 0.000000 |" in delta_table([found])


def test_a_replicate_without_the_reference_is_no_pair():
    rows = [*replicates("lsqml", [0.5]), *replicates("pinn", [0.6, 0.9])]

    (found,) = phase_deltas(rows)

    assert (found["pairs"], found["phase_ms_ssim_delta"]) == (1, pytest.approx(0.1))


def test_training_is_repaid_when_it_has_saved_what_it_cost():
    network = {"cpu_s": 1.0, "training_cpu_s": 90.0}

    assert training_repaid_after(network, {"cpu_s": 31.0, "training_cpu_s": 0.0}) == 3
    assert training_repaid_after(network, {"cpu_s": 30.9, "training_cpu_s": 0.0}) == 4
    assert training_repaid_after(network, {"cpu_s": 0.5, "training_cpu_s": 0.0}) is None
    assert training_repaid_after({"cpu_s": 9.0, "training_cpu_s": 0.0}, network) == 0


@pytest.fixture
def matrix():
    """Two doses, two views, two arms; the network is smooth, and lost in one condition."""
    rows = []
    for dose, limit in ((1e3, 0.1), (1e5, 0.01)):
        for view, gain in (("baseline", 0.2), ("sparse", 0.0)):
            place = {"dose": dose, "view": view}
            rows += [
                row(
                    "lsqml",
                    **place,
                    phase_ms_ssim=0.6 + gain,
                    phase_mse_rad2=(2 * limit) ** 2,
                    phase_error_over_limit=2.0,
                    phase_error_over_wiener=1.5,
                    cpu_s=40.0,
                    training_cpu_s=0.0,
                ),
                row(
                    "pinn",
                    **place,
                    phase_ms_ssim=0.5 + gain / 2,
                    phase_mse_rad2=(0.8 * 0.1) ** 2,
                    phase_error_over_limit=0.8 * 0.1 / limit,
                    phase_error_over_wiener=2.0 if dose == 1e3 else 3.0,
                    cpu_s=2.0,
                    training_cpu_s=100.0,
                    registration="uncertain" if (dose, view) == (1e3, "sparse") else "ok",
                ),
            ]
    return study_table(rows)


def test_findings_are_the_numbers_of_the_table(matrix):
    text = "\n".join(findings(matrix, []))

    assert "4 conditions of dose and view, arms LSQML, PINN; one replicate" in text
    assert "registration in doubt: PINN at 1000, sparse." in text
    assert "Highest phase MS-SSIM: LSQML in 3 of 3 conditions." in text
    lowest = "Lowest phase error over the photon limit: LSQML in 2 of 3 conditions, PINN in 1 of 3"
    assert lowest in text
    assert "0.80 (1000, baseline) to 8.00 (100000, baseline) times the photon limit" in text
    assert "Phase error of PINN: 2.00 (1000, baseline) to" in text
    below = "Below the photon limit of unbiased estimates in this replicate"
    assert f"{below}: LSQML in 0 of 4 conditions, PINN in 1 of 3 conditions." in text
    doses = "From 1000 to 100000 photons per pattern the phase error of"
    both = "10.00 (the limit by 10.00) in baseline, 10.00 (the limit by 10.00) in sparse"
    assert f"{doses} LSQML is divided by {both}." in text
    assert f"{doses} PINN is divided by 1.00 (the limit by 10.00) in baseline." in text
    views = "From sparse (overlap 0.20, 20 patterns) to baseline (0.75, 100), phase MS-SSIM of"
    assert f"{views} LSQML: +0.200 at 1000, +0.200 at 100000 photons per pattern." in text
    assert f"{views} PINN: +0.100 at 100000 photons per pattern." in text
    assert "the 3 conditions in which each of these arms has a score: LSQML 40, PINN 2.0." in text
    (training,) = [line for line in text.splitlines() if line.startswith("Training of PINN")]
    assert "median 100 processor seconds, not counted above." in training
    assert "Training included, it costs no more than LSQML after 3 scans of that size" in training


def test_findings_change_when_the_numbers_do(matrix):
    """A sentence that stands whatever the table says would be no finding."""
    swapped = [
        one | {"label": "PINN" if one["label"] == "LSQML" else "LSQML", "registration": "ok"}
        for one in matrix
    ]

    assert "Highest phase MS-SSIM: PINN in 4 of 4 conditions." in findings(swapped, [])


def test_findings_count_intervals_that_exclude_zero():
    rows = [
        *replicates("lsqml", [0.5, 0.52, 0.51]),
        *replicates("pinn", [0.6, 0.63, 0.605]),
        *replicates("lsqml", [0.5, 0.6, 0.4], view="sparse"),
        *replicates("pinn", [0.6, 0.5, 0.42], view="sparse"),
    ]

    text = findings(study_table(rows), phase_deltas(rows))[-1]

    assert "above zero in 1, below zero in 0 and around it in 1 of 2 conditions" in text


def test_figures_hold_every_number_of_the_table(matrix):
    titles = {"metric": "phase_ms_ssim", "name": "phase MS-SSIM", "title": "test"}
    heat = heat_maps(matrix, **titles)
    error = phase_error_by_dose(matrix, title="test")
    cost = quality_by_cost(matrix, **titles)
    try:
        written = [text.get_text() for axis in heat.axes for text in axis.texts]
        expected = [
            f"{one['phase_ms_ssim']:.3f}"
            if one["registration"] == "ok"
            else f"({one['phase_ms_ssim']:.3f})"
            for one in matrix
        ]
        assert sorted(written) == sorted(expected)
        lines = {line.get_label(): line for line in error.axes[0].lines}
        np.testing.assert_allclose(lines["photon limit"].get_ydata(), [0.1, 0.01])
        np.testing.assert_allclose(lines["Wiener"].get_ydata(), [0.08, 0.008])
        drawn = [line.get_ydata() for line in error.axes[0].lines]
        assert any(np.allclose(values, [0.2, 0.02]) for values in drawn if len(values) == 2)
        costs = {tuple(np.atleast_1d(line.get_xdata())) for line in cost.axes[0].lines}
        assert {(40.0,), (2.0,), (102.0,), (2.0, 102.0)} <= costs
    finally:
        plt.close("all")


def test_a_number_that_does_not_exist_is_a_dash():
    """A ring correlation that never falls below its threshold has no crossing."""
    (found,) = study_table([row("lsqml", frc_crossing=None)])

    (line,) = markdown_table([found]).splitlines()[2:]
    assert " | 0.500 | - | 0.500 | " in line


# --- An arm that held-out counts refused is its fall-back, and says so wherever its name stands

ROWS = [
    row("lsqml", phase_ms_ssim=0.6, cpu_s=1.0, training_cpu_s=0.0),
    row("solver", phase_ms_ssim=0.7, cpu_s=1.0, training_cpu_s=0.0),
    refused(row("net", phase_ms_ssim=0.9, cpu_s=2.0, training_cpu_s=50.0)),
    row("lsqml", view="sparse", phase_ms_ssim=0.4, cpu_s=1.0, training_cpu_s=0.0),
    row("solver", view="sparse", phase_ms_ssim=0.5, cpu_s=1.0, training_cpu_s=0.0),
    row("net", view="sparse", phase_ms_ssim=0.8, cpu_s=2.0, training_cpu_s=60.0),
]


def test_findings_count_a_network_only_where_it_was_used():
    table = study_table(ROWS)

    text = "\n".join(findings(table, phase_deltas(ROWS)))

    assert "Highest phase MS-SSIM: NET in 1 of 2 conditions, SOLVER in 1 of 2 conditions." in text
    (sentence,) = [line for line in text.splitlines() if "refused" in line]
    assert sentence.startswith("NET was refused in 1 of 2 conditions")
    assert "its base (TV) (1000, baseline)" in sentence
    assert f"Why: {NOT_TRUSTED}." in sentence
    assert "50 processor seconds of training (median), charged to no arm" in sentence
    assert "in 1 of these its phase MS-SSIM is above that of every arm counted" in sentence
    assert "Training of NET: median 60 " in text


def test_tables_name_what_a_refused_arm_is_and_neither_mark_nor_charge_it():
    table = study_table(ROWS)

    text, deltas = markdown_table(table), delta_table(phase_deltas(ROWS))

    (line,) = [line for line in text.splitlines() if "NET = its base (TV)" in line]
    assert "**" not in line
    assert line.endswith("| 2.00 | - |")
    assert "| **0.700** |" in text
    assert "NET = its base (TV)" in deltas
    assert [line.is_fallback for line in shown_table(table)] == [False, False, True] + 3 * [False]


def test_figures_name_what_a_refused_arm_is():
    table = study_table(ROWS)
    titles = {"metric": "phase_ms_ssim", "name": "phase MS-SSIM", "title": "test"}

    heat = heat_maps(table, **titles)
    others = [quality_by_cost(table, **titles), phase_error_by_dose(table, title="test")]

    written = [text.get_text() for axis in heat.axes for text in axis.texts]
    assert "0.900\n= its base (TV)" in written
    assert "0.800" in written
    for figure in others:
        (legend,) = figure.legends
        assert "fall-back" in [text.get_text() for text in legend.get_texts()]
    costs = {tuple(np.atleast_1d(line.get_xdata())) for line in others[0].axes[0].lines}
    assert (2.0, 62.0) in costs
    assert (2.0, 52.0) not in costs


def test_an_arm_that_was_refused_in_some_replicates_alone_says_in_how_many():
    rows = [
        *replicates("lsqml", [0.5, 0.5, 0.6]),
        row("net", phase_ms_ssim=0.9),
        refused(row("net", replicate=1, phase_ms_ssim=0.8, training_cpu_s=40.0)),
        row("net", replicate=2, phase_ms_ssim=0.9),
    ]

    table = study_table(rows)

    assert table[1]["label"] == "NET = its base (TV) in 1 of 3 replicates"
    assert table[1]["refused_training_cpu_s"] == 40.0
    text = "\n".join(findings(table, phase_deltas(rows)))
    assert "NET was refused in 1 of 1 condition" in text
    assert "of NET against" not in text


# --- Like with like


def test_views_with_the_same_patterns_count_once_and_it_is_said():
    """Nine of nine that are six are six."""
    rows = []
    for dose in (1e3, 1e4, 1e5):
        for view, patterns in (("baseline", "a"), ("dense", "a"), ("sparse", "b")):
            place = {"dose": dose, "view": view, "patterns_sha256": f"{patterns}{dose}"}
            rows += [row("lsqml", **place), row("solver", **place, phase_ms_ssim=0.6)]

    table = study_table(rows)

    same = [one["same_patterns_as"] for one in table[:6]]
    assert same == ["", "", "baseline", "baseline", "", ""]
    text = "\n".join(findings(table, []))
    assert "That leaves 6 of 9 conditions" in text
    assert "1000, dense holds those of baseline; 10000, dense" in text
    assert "Highest phase MS-SSIM: SOLVER in 6 of 6 conditions." in text
    assert text.count("of 9") == 1


def test_views_whose_patterns_differ_in_one_replicate_are_two_conditions():
    rows = [
        row("lsqml", view=view, replicate=replicate, patterns_sha256=patterns)
        for view, replicate, patterns in (
            *(("baseline", 0, "a"), ("dense", 0, "a")),
            *(("baseline", 1, "b"), ("dense", 1, "c")),
        )
    ]

    assert {one["same_patterns_as"] for one in study_table(rows)} == {""}


GROUPS = {"baseline": "single patterns", "dense": "groups of 4", "sparse": "groups of 4"}


def overlap_findings(views, **values):
    rows = [
        row("pinn", view=view, grouping=GROUPS[view], phase_ms_ssim=score, **values)
        for view, score in views.items()
    ]
    return [line for line in findings(study_table(rows), []) if "phase MS-SSIM of PINN" in line]


def test_overlap_is_compared_between_views_that_are_grouped_alike():
    (line,) = overlap_findings({"baseline": 0.9, "dense": 0.7, "sparse": 0.6})

    assert line.startswith("From sparse (overlap 0.20")
    assert "to dense" in line
    assert "+0.100 at 1000 photons per pattern." in line


def test_what_changes_beside_overlap_is_named():
    (line,) = overlap_findings({"baseline": 0.9, "dense": 0.7})

    assert "From dense" in line
    assert "beside the overlap, the grouping changes from groups of 4 to single patterns" in line


def test_costs_are_compared_over_the_same_conditions():
    """A large scan that one arm alone has must not make the other look cheap."""
    rows = [row(arm, cpu_s=2.0, training_cpu_s=0.0) for arm in ("lsqml", "solver")]
    rows += [row("lsqml", dose=1e5, cpu_s=90.0, training_cpu_s=0.0)]

    text = "\n".join(findings(study_table(rows), []))

    assert "the 1 condition in which each of these arms has a score: LSQML 2.0, SOLVER 2.0" in text


def test_a_training_is_held_against_arms_that_it_can_save_seconds_of():
    """A denoised arm adds to what its plain one costs; that is no finding."""
    values = {"LSQML": (30.0, 0.0), "LSQML denoised": (31.0, 20.0), "solver": (0.5, 0.0)}
    rows = [
        row(label.lower(), label=label, cpu_s=cpu_s, training_cpu_s=training_cpu_s)
        for label, (cpu_s, training_cpu_s) in values.items()
    ]
    rows.append(row("pinn", label="net", cpu_s=1.0, training_cpu_s=123.4))

    text = "\n".join(findings(study_table(rows), []))

    (denoised,) = [line for line in text.splitlines() if "Training of LSQML" in line]
    assert denoised.endswith("it costs more than solver after any number of scans.")
    assert "no more than LSQML after 5 scans of that size; more than solver after any" in text
    assert "Training of net: median 120 processor seconds" in text, "two digits repeat, no third"


# --- Numbers for people


def test_the_best_of_each_group_is_marked_where_all_have_a_number():
    table = study_table(
        [
            row("lsqml", phase_ms_ssim=0.7, phase_mae_rad=0.02, frc_crossing=None),
            row("solver", phase_ms_ssim=0.8, phase_mae_rad=0.03, frc_crossing=0.4),
            row("lsqml", view="sparse", phase_ms_ssim=0.3, phase_mae_rad=0.2),
        ]
    )

    lines = shown_table(table)

    best = [[cell.text for cell in line.cells if cell.is_best] for line in lines]
    assert best == [["0.0200"], ["0.800"], []]
    assert [line.begins_group for line in lines] == [True, False, True]


def test_a_row_without_registration_is_no_score_in_any_table():
    rows = [
        row("lsqml", phase_ms_ssim=0.4),
        row("solver", phase_ms_ssim=0.5),
        row("pinn", phase_ms_ssim=0.6, registration="uncertain"),
    ]
    table = study_table(rows)

    for text in (markdown_table(table), arms_table(rows)):
        assert "(0.600)" in text
        assert "**0.500**" in text
        assert " 0.600" not in text
    assert [line.kinds for line in shown_table(table)] == ["begins-group", "", "no-score"]
    assert "(+0.200)" in delta_table(phase_deltas(rows))


def test_numbers_of_a_column_have_the_same_decimals_and_a_leading_zero():
    values = {
        "phase_psnr_db": (9.5, 37.0),
        "phase_mae_rad": (0.02, 0.00041),
        "cpu_s": (0.0933, 300.0),
    }
    rows = [
        row(arm, **{name: pair[index] for name, pair in values.items()})
        for index, arm in enumerate(("lsqml", "solver"))
    ]
    table = study_table(rows)

    for column in zip(*map(numbers_of, shown_table(table)), strict=True):
        decimals = {len(text.partition(".")[2]) for text in column if text != "-"}
        assert len(decimals) <= 1, column
        assert all(re.match(r"-|[0-9]", text) for text in column)
    assert "| 37.00 | 0.00041 |" in markdown_table(table).replace("**", "")
    assert re.findall(r"---:|---", markdown_table(table))[:3] == ["---:", "---", "---:"]


def test_a_crossing_that_is_no_resolution_is_a_word():
    said = "below at first, then above"
    missing = {"frc_half_bit_crossing": None, "frc_half_bit_crossing_outcome": said}
    there = {"frc_half_bit_crossing": 0.4, "frc_half_bit_crossing_outcome": "crosses"}

    (alone,) = study_table([row("lsqml", **missing)])
    (mixed,) = study_table([row("lsqml", **missing), row("lsqml", replicate=1, **there)])
    (sound,) = study_table([row("lsqml", **there), row("lsqml", replicate=1, **there)])

    assert f"| {said} |" in markdown_table([alone])
    assert f"| {said} in 1 of 2 |" in markdown_table([mixed])
    assert "| 0.400 ± 0.000 |" in markdown_table([sound]).replace("**", "")


def test_how_well_the_photon_limit_is_known_is_said_below_the_table():
    rows = [
        row("lsqml", photon_limit_phase_uncertainty_rad=0.002),
        row("lsqml", view="sparse", photon_limit_phase_uncertainty_rad=0.004),
    ]

    notes = notes_of(study_table(rows))

    assert "root mean square is known to 4.0 % or better" in notes[-1]
    rows[1]["photon_limit_phase_uncertainty_rad"] = 0.00021
    rows[0]["photon_limit_phase_uncertainty_rad"] = 0.00023
    assert "known to 0.3 % or better" in notes_of(study_table(rows))[-1], ".2 would be too little"
    without = notes_of(study_table([row("lsqml")]))
    assert not [note for note in without if "random solves" in note], "a run of before has none"


def test_notes_explain_what_a_table_holds_and_nothing_else():
    plain = row("lsqml", label="LSQML", ms_ssim_scales=3)
    denoised = row("solver-denoised", label="solver denoised", ms_ssim_scales=3)
    net = refused(row("thinning-net", label="thinning network", ms_ssim_scales=3))

    few = "\n".join(notes_of(study_table([plain])))
    many = "\n".join(notes_of(study_table([plain, denoised, net, plain | {"replicate": 1}])))

    assert "LSQML is the engine of pty-chi" in few
    assert "MS-SSIM is taken over 3 scales" in few
    for said in ("The solver is", "A denoised arm is", "The thinning network", "plus-minus"):
        assert said in many
        assert said not in few
    assert "PtychoPINN is" not in many
    assert set(NOTES) <= set(notes_of(study_table([row("lsqml")])))
