"""Means, spreads and signed differences over replicates, and the sentences made from them."""

import numpy as np
import pytest

from study_lib.figures.common import plt
from study_lib.figures.results import heat_maps, phase_error_by_dose, quality_by_cost
from study_lib.scores.metrics import METRICS
from study_lib.scores.study_table import (
    NOTES,
    cell_text,
    delta_table,
    findings,
    markdown_table,
    mean_of,
    notes_of,
    phase_deltas,
    spread_of,
    study_table,
    training_repaid_after,
)

OVERLAP = {"baseline": 0.75, "sparse": 0.2}


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


def test_replicates_become_mean_standard_deviation_and_an_interval_between_the_extremes():
    scores = [0.7, 0.8, 0.95, 0.75]
    (found,) = study_table(replicates("lsqml", scores))

    assert found["replicates"] == 4
    assert found["phase_ms_ssim"] == pytest.approx(np.mean(scores))
    assert found["phase_ms_ssim_std"] == pytest.approx(np.std(scores, ddof=1))
    assert min(scores) <= found["phase_ms_ssim_low"] < np.mean(scores)
    assert np.mean(scores) < found["phase_ms_ssim_high"] <= max(scores)
    assert "replicate" not in found


def test_the_interval_of_many_draws_is_that_of_the_normal_law():
    values = np.random.default_rng(3).normal(0.6, 0.05, 400)

    found = spread_of("x", list(values))

    half = 1.96 * values.std(ddof=1) / np.sqrt(len(values))
    assert found["x_low"] == pytest.approx(values.mean() - half, abs=0.1 * half)
    assert found["x_high"] == pytest.approx(values.mean() + half, abs=0.1 * half)


def test_one_replicate_has_no_spread_and_says_so():
    table = study_table([row("lsqml"), row("solver")])

    for found in table:
        assert [found[f"phase_ms_ssim_{part}"] for part in ("std", "low", "high")] == [None] * 3
    assert "±" not in markdown_table(table)
    assert "no spread and no interval" in findings(table, [])[0]


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
                    cpu_s=40.0,
                    training_cpu_s=0.0,
                ),
                row(
                    "pinn",
                    **place,
                    phase_ms_ssim=0.5 + gain / 2,
                    phase_mse_rad2=(0.8 * 0.1) ** 2,
                    phase_error_over_limit=0.8 * 0.1 / limit,
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
    assert "Phase error of PINN: 0.80 (1000, baseline) to 8.00 (100000, baseline) times" in text
    assert "so biased: LSQML in 0 of 4 conditions, PINN in 1 of 3 conditions." in text
    doses = "From 1000 to 100000 photons per pattern the phase error of"
    both = "10.00 (limit 10.00) in baseline, 10.00 (limit 10.00) in sparse"
    assert f"{doses} LSQML is divided by {both}." in text
    assert f"{doses} PINN is divided by 1.00 (limit 10.00) in baseline." in text
    views = "From sparse (overlap 0.20, 20 patterns) to baseline (0.75, 100), phase MS-SSIM of"
    assert f"{views} LSQML: +0.200 at 1000, +0.200 at 100000 photons." in text
    assert f"{views} PINN: +0.100 at 100000 photons." in text
    assert "one split: LSQML 40, PINN 2." in text
    assert "median 100 processor seconds, not counted above; repaid against LSQML after 3 s" in text


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
        *replicates("pinn", [0.6, 0.63, 0.6]),
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
        stars = {True: "", False: "*"}
        expected = [
            f"{one['phase_ms_ssim']:.3f}{stars[one['registration'] == 'ok']}" for one in matrix
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

    assert cell_text(found, "frc_crossing") == "-"
    assert cell_text(found, "phase_ssim") == "0.5"


def test_a_crossing_that_is_no_resolution_is_a_word():
    said = "below at first, then above"
    missing = {"frc_half_bit_crossing": None, "frc_half_bit_crossing_outcome": said}
    there = {"frc_half_bit_crossing": 0.4, "frc_half_bit_crossing_outcome": "crosses"}

    (alone,) = study_table([row("lsqml", **missing)])
    (mixed,) = study_table([row("lsqml", **missing), row("lsqml", replicate=1, **there)])
    (sound,) = study_table([row("lsqml", **there), row("lsqml", replicate=1, **there)])

    assert cell_text(alone, "frc_half_bit_crossing") == said
    assert cell_text(mixed, "frc_half_bit_crossing") == f"{said} in 1 of 2"
    assert f"| {said} in 1 of 2 |" in markdown_table([mixed])
    assert cell_text(sound, "frc_half_bit_crossing") == "0.4 ± 0"


def test_how_well_the_photon_limit_is_known_is_said_below_the_table():
    rows = [
        row("lsqml", photon_limit_phase_uncertainty_rad=0.002),
        row("lsqml", view="sparse", photon_limit_phase_uncertainty_rad=0.004),
    ]

    notes = notes_of(study_table(rows))

    assert notes[:-1] == NOTES
    assert "root mean square is known to 4.0 % or better" in notes[-1]
    assert notes_of(study_table([row("lsqml")])) == NOTES, "a run of before says nothing of it"
