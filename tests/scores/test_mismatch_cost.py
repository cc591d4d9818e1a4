"""What an unknown error costs, on made-up rows whose answer is known."""

import math

import pytest
from made_runs import row_of

from study_lib.scores.mismatch_cost import (
    LEVEL,
    level_at_loss,
    level_table,
    levels_at_loss,
    loss_table,
)

LEVELS = (0.0, 0.5, 1.0, 2.0)


def psnr_db(level: float, *, alone_db: float = 25.0, doubled_at: float = 1.0) -> float:
    """Of an error that adds to the noise in the square, and is as large as it at one value."""
    return alone_db - 10 * math.log10(1 + (level / doubled_at) ** 2)


def levels(*arms, values=LEVELS, changed=None, **columns):
    """Return rows by value; an arm has its name, and the value that doubles its square error."""
    return {
        value: [
            row_of(
                arm,
                phase_psnr_db=psnr_db(value, doubled_at=doubled_at),
                **columns | (changed or {}).get((arm, value), {}),
            )
            for arm, doubled_at in arms
        ]
        for value in values
    }


@pytest.mark.parametrize("loss_db", [0.2, 1.0, 3.0, 6.0])
@pytest.mark.parametrize("values", [(0.0, 2.0), (0.0, 0.1, 2.0), (0.0, 0.3, 0.9, 1.1, 2.0)])
def test_errors_that_add_in_the_square_lose_a_decibel_where_the_law_says(values, loss_db):
    """Whatever values the study has: the mean square error is a straight line in their square."""
    curve = {value: psnr_db(value) for value in values}

    found = level_at_loss(curve, loss_db)

    assert found.bound == ""
    assert found.value == pytest.approx(math.sqrt(10 ** (loss_db / 10) - 1))


def test_a_value_that_is_exactly_at_the_loss_is_the_answer():
    assert level_at_loss({0.0: 30.0, 2.0: 29.0, 4.0: 20.0}, 1.0).value == pytest.approx(2)


def test_another_law_is_bracketed_by_the_values_around_the_loss():
    curve = {0.0: 30.0, 1.0: 29.9, 2.0: 25.0, 3.0: 24.9}

    assert 1 < level_at_loss(curve, 1.0).value < 2


def test_what_has_not_lost_so_much_is_a_bound_and_nothing_is_extrapolated():
    found = level_at_loss({value: psnr_db(value, doubled_at=10) for value in LEVELS}, 1.0)

    assert (found.value, found.bound) == (2.0, "at least")


def test_the_first_loss_counts_also_where_a_larger_value_has_lost_less():
    assert level_at_loss({0.0: 30.0, 1.0: 28.0, 2.0: 29.5}, 1.0).value < 1


@pytest.mark.parametrize("curve", [{}, {0.0: 30.0}, {1.0: 30.0, 2.0: 20.0}])
def test_without_the_arm_before_the_error_there_is_no_loss(curve):
    assert level_at_loss(curve, 1.0) is None


def test_each_arm_view_and_dose_has_its_own_answer():
    rows = levels(("solver", 1.0), ("LSQML", 3.0))
    for value, part in levels(("solver", 2.0), view="sparse", overlap=0.2).items():
        rows[value] += part

    found = {(row["view"], row["arm"]): row[LEVEL] for row in levels_at_loss(rows)}

    at_one = math.sqrt(10**0.1 - 1)
    assert found[("dense", "solver")] == pytest.approx(at_one)
    assert found[("sparse", "solver")] == pytest.approx(2 * at_one)
    assert found[("dense", "LSQML")] == pytest.approx(3 * at_one)
    assert ("sparse", "LSQML") not in found


@pytest.mark.parametrize("column", [{"registration": "uncertain"}, {"fallback": "its base (TV)"}])
def test_a_curve_ends_before_the_value_without_a_score(column):
    ended = levels_at_loss(levels(("solver", 3.0), changed={("solver", 1.0): column}))
    never = levels_at_loss(levels(("solver", 3.0), changed={("solver", 0.5): column}))

    assert [(row[LEVEL], row["beyond"]) for row in ended] == [(None, 0.5)]
    assert [(row[LEVEL], row["beyond"]) for row in never] == [(None, None)]


def replicates(*doubled_at):
    """Return rows of as many replicates, each with the value that doubles its square error."""
    rows = levels()
    for number, at in enumerate(doubled_at):
        for value, part in levels(("solver", at), replicate=number).items():
            rows[value] = rows[value] + part
    return rows


def shown(rows):
    """Return the one number of the small table."""
    ((*_, text),) = loss_table("position_error_px", rows).rows
    return text


def test_replicates_have_a_geometric_mean_and_three_of_them_its_interval():
    (two,) = levels_at_loss(replicates(1, 4), 0.2)
    (three,) = levels_at_loss(replicates(1, 2, 4), 0.2)

    mean = 2 * math.sqrt(10**0.02 - 1)
    assert [row["replicates"] for row in (two, three)] == [2, 3]
    assert two[LEVEL] == pytest.approx(mean)
    assert three[LEVEL] == pytest.approx(mean)
    assert (two["low"], two["high"]) == (None, None)
    assert three["low"] < mean < three["high"]


def test_no_interval_leaves_the_values_of_the_study():
    (row,) = levels_at_loss(replicates(0.1, 1, 3.9))

    assert row["high"] == max(LEVELS)
    assert shown(replicates(0.1, 1, 3.9)).endswith(" to 2)")


def test_replicates_of_which_some_do_not_lose_so_much_have_no_mean():
    assert shown(replicates(1, 30)) == "in 1 of 2 replicates, beyond 2 in the rest"
    assert shown(replicates(30, 40)) == "more than 2"


def test_bounds_have_two_digits_and_the_least_of_the_replicates_is_one_for_all():
    rows = levels(("solver", 90.0), values=(0.0, 0.98765, 1.23456))
    for value, part in levels(("solver", 90.0), values=(0.0, 0.98765), replicate=1).items():
        rows[value] += part

    assert shown(rows) == "more than 0.98"


def test_a_replicate_without_a_curve_makes_a_dash():
    rows = replicates(1, 1)
    rows[0.0] = [row for row in rows[0.0] if row["replicate"] == 0]

    assert shown(rows) == "-"


def test_the_small_table_says_more_than_where_the_loss_is_not_reached():
    rows = levels(("solver", 1.0), ("LSQML", 30.0))

    table = loss_table("position_error_px", rows)

    assert table.title == "Position error [px] at which an arm has lost 1 dB of phase PSNR"
    assert table.columns == ("", "photons per pattern", "dense")
    assert table.rows == (("LSQML", "10000", "more than 2"), ("solver", "10000", "0.51"))


def test_the_table_has_each_arm_over_the_values_and_mixes_none_of_them():
    rows = levels(("solver", 1.0), ("LSQML", 3.0))
    for value in LEVELS[1:]:
        rows[value] = [row | {"mismatch_position_px": value} for row in rows[value]]

    table = level_table(rows)

    assert [(row["arm"], row[LEVEL]) for row in table] == [
        (arm, value) for arm in ("LSQML", "solver") for value in LEVELS
    ]
    assert {row["replicates"] for row in table} == {1}
    assert len({frozenset(row) for row in table}) == 1, "every row has every column"
    for row in table[len(LEVELS) :]:
        assert row["phase_psnr_db"] == pytest.approx(psnr_db(row[LEVEL]))
        assert row["mismatch_position_px"] == (row[LEVEL] or None)
