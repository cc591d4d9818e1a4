"""Where measured and simulated counts order the arms otherwise."""

import pytest
from made_runs import row_of

from study_lib.scores.ranks import rank_differences, rank_sentences

PLACE = {"split": "test", "dose": 1e4, "view": "dense"}


def rows_of(scores: dict[str, tuple[float, float]], **columns) -> list[dict]:
    return [
        row_of(arm, phase_ssim=ssim, phase_psnr_db=psnr, **columns)
        for arm, (ssim, psnr) in scores.items()
    ]


def over_draws(rows: list[dict], draws: int, ssim: float, psnr_db: float) -> list[dict]:
    """Return means over so many draws, each with these standard deviations."""
    spread = {"replicates": draws, "phase_ssim_std": ssim, "phase_psnr_db_std": psnr_db}
    return [row | spread for row in rows]


# The first trial of a measured star: simulation flatters the solver.
MEASURED = rows_of({"lsqml": (0.712, 24.4), "solver": (0.647, 23.7), "thinning-net": (0.877, 28.3)})
SIMULATED = rows_of({"lsqml": (0.71, 24.0), "solver": (0.73, 25.5), "thinning-net": (0.9, 30.0)})


def test_an_arm_that_overtakes_another_with_measured_counts_is_named():
    rows = rank_differences(
        over_draws(MEASURED, 4, 0.01, 0.1), over_draws(SIMULATED, 4, 0.001, 0.01)
    )
    ranks = {
        row["arm"]: (row["phase_psnr_db_rank_measured"], row["phase_psnr_db_rank_simulated"])
        for row in rows
    }
    assert ranks == {"lsqml": (2, 3), "solver": (3, 2), "thinning-net": (1, 1)}
    by_arm = {row["arm"]: row["phase_psnr_db_difference"] for row in rows}
    assert by_arm["solver"] == pytest.approx(-1.8)
    sentences = "\n".join(rank_sentences(rows, "a-run"))
    assert "by phase PSNR, beyond the spread over draws, in 1 of 1 conditions" in sentences
    assert "lsqml is ahead of solver" in sentences


def test_a_swap_counts_beyond_two_standard_errors_alone():
    """lsqml is .7 dB ahead: two standard errors of the difference are .6 or .8 dB."""
    for std_db, counted in ((0.6 / 2**0.5, 1), (0.8 / 2**0.5, 0)):
        exact = over_draws(SIMULATED, 2, 0.0, 0.0)
        rows = rank_differences(over_draws(MEASURED, 4, 1.0, std_db), exact)
        sentences = "\n".join(rank_sentences(rows, "a-run"))
        assert f"by phase PSNR, beyond the spread over draws, in {counted} of 1" in sentences
        assert "By phase SSIM arms also change places within the spread over draws" in sentences
        simulated = over_draws(SIMULATED, 2, 0.0, 5.0)  # as wide a spread in the other run
        rows = rank_differences(over_draws(MEASURED, 4, 1.0, std_db), simulated)
        assert "by phase PSNR, beyond the spread over draws, in 0 of 1" in "\n".join(
            rank_sentences(rows, "a-run")
        )


def test_a_swap_of_arms_with_one_draw_in_either_run_is_said_but_not_counted():
    drawn = over_draws(MEASURED, 4, 0.01, 0.1), over_draws(SIMULATED, 4, 0.01, 0.1)
    for measured, simulated in ((MEASURED, drawn[1]), (drawn[0], SIMULATED)):
        sentences = "\n".join(rank_sentences(rank_differences(measured, simulated), "a-run"))
        assert "by phase PSNR, beyond the spread over draws, in 0 of 1 conditions." in sentences
        assert "where an arm has one draw alone, so that the spread is not known, in 1: lsqml" in (
            sentences
        )


def test_no_difference_of_scores_is_taken_for_what_the_model_gets_wrong():
    sentences = rank_sentences(rank_differences(MEASURED, SIMULATED), "a-run")
    assert "noise of its own" in sentences[-1]
    assert not any("dB" in sentence for sentence in sentences)


def test_where_scores_compare_each_arms_difference_is_said_worst_last():
    elsewhere = [
        rows_of({"solver": (ssim, psnr_db)}, dose=1e5)
        for ssim, psnr_db in ((0.8, 30.0), (0.81, 30.4))
    ]
    rows = rank_differences(MEASURED + elsewhere[0], SIMULATED + elsewhere[1])
    sentences = rank_sentences(rows, "a-run", scores_compare=True)
    # solver: -1.8 dB and -.4 dB; the network -1.7 dB; LSQML +.4 dB, computed by hand
    assert sentences[-1] == (
        "Measured less simulated phase PSNR [dB], mean over conditions: lsqml +0.40, "
        "solver -1.10 (-1.80 to -0.40 in 2 conditions), thinning-net -1.70."
    )
    assert not any("held-out" in sentence for sentence in sentences), "no row has them"


def test_equal_orders_are_said_to_be_equal():
    sentences = rank_sentences(rank_differences(MEASURED, MEASURED), "a-run")
    assert "in 0 of 1 conditions." in sentences[0]


def test_rows_that_are_no_scores_have_no_rank_and_other_conditions_no_partner():
    refused = rows_of({"solver-denoised": (0.99, 40.0)}, fallback="solver")
    elsewhere = rows_of({"lsqml": (0.9, 30.0), "solver": (0.8, 20.0)}, dose=1e5)
    rows = rank_differences(MEASURED + refused + elsewhere, SIMULATED + refused)
    assert {row["arm"] for row in rows} == {"lsqml", "solver", "thinning-net"}
    assert {row["dose"] for row in rows} == {1e4}


def test_nothing_to_compare_is_said():
    (sentence,) = rank_sentences(rank_differences(MEASURED, []), "a-run")
    assert "no condition has two arms with a score in both" in sentence
