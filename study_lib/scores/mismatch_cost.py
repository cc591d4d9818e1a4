"""What an unknown error costs: quality over the listed values of one field of a mismatch."""

import math
from collections.abc import Mapping, Sequence
from itertools import pairwise
from typing import Any

from study_lib.arm_names import plain_label
from study_lib.design.experiment import MISMATCH_COLUMNS
from study_lib.scores.answers import SmallTable
from study_lib.scores.dose_saving import Curve, Number, over_replicates
from study_lib.scores.study_table import (
    Row,
    grouped,
    is_score,
    study_table,
    unit_of,
    views_in_order,
)

LEVEL = "level"  # the column of the value; 0 in the rows of the conditions without the error
LEVEL_OF = "mismatch_level_of"  # the column of the field, in rows of several
LOSS_DB = 1.0
REPLICATES_OF_AN_INTERVAL = 3  # of two it spans decades
WORDS = {field: (words, unit) for field, words, unit in MISMATCH_COLUMNS.values()}
# Rows for each replicate, by the value that they were made with; at 0 those without the error.
Levels = Mapping[float, Sequence[Row]]


def level_table(levels: Levels) -> list[dict[str, Any]]:
    """Return the study table of every value of a field, each arm's rows one after the other.

    Parameters
    ----------
    levels
        Rows of comparisons by the value, in the unit of the field.

    Returns
    -------
    list of dict
        As from :func:`study_lib.scores.study_table.study_table`, with ``level``.
    """
    table = [
        {LEVEL: level, **row} for level in sorted(levels) for row in study_table(levels[level])
    ]
    views = views_in_order(table)
    columns: dict[str, None] = {name: None for row in table for name in row}
    return sorted(
        (columns | row for row in table),
        key=lambda row: (row["split"], row["dose"], views.index(row["view"]), row["arm"]),
    )


def level_at_loss(psnr_db: Curve, loss_db: float = LOSS_DB) -> Number | None:
    """Return the value of an unknown error at which a curve has first lost so many decibels.

    Between two values the mean square error is taken as linear in the square of the value, as it is
    where errors that nobody knows of add to those of the noise.

    Parameters
    ----------
    psnr_db
        Peak signal-to-noise ratio in dB by the value, 0 among them: from there the loss is counted.
    loss_db
        Above zero.

    Returns
    -------
    Number or None
        ``at least`` the largest value where that has not lost so much: nothing is extrapolated.
        None where there is no curve.

    Examples
    --------
    A mean square error that is twice as large at 2, which is 3 dB:

    >>> import math
    >>> from study_lib.scores.mismatch_cost import level_at_loss
    >>> psnr_db = {level: 20 - 10 * math.log10(1 + level**2 / 4) for level in (0.0, 1.0, 2.0)}
    >>> round(level_at_loss(psnr_db, 3.0).value, 2)
    2.0
    >>> level_at_loss(psnr_db, 6.0).text()
    'at least 2'
    """
    levels = sorted(psnr_db)
    if len(levels) < 2 or levels[0] != 0:
        return None
    error = {level: 10 ** ((psnr_db[0.0] - psnr_db[level]) / 10) for level in levels}
    wanted = 10 ** (loss_db / 10)
    for below, above in pairwise(levels):
        if error[above] >= wanted:
            share = (wanted - error[below]) / (error[above] - error[below])
            return Number(math.sqrt(below**2 + share * (above**2 - below**2)))
    return Number(levels[-1], "at least")


def levels_at_loss(levels: Levels, loss_db: float = LOSS_DB) -> list[dict[str, Any]]:
    """Return at which value of a field each arm has lost so many decibels of phase PSNR.

    A curve ends before the first value at which the arm has no score.

    Parameters
    ----------
    levels
        Rows of one split, for each replicate, by the value.
    loss_db
        Above zero.

    Returns
    -------
    list of dict
        ``dose``, ``view``, ``arm`` (its label), and ``level``: the geometric mean where each of the
        ``replicates`` has ``reached`` the loss, of three or more with its interval ``low`` to
        ``high``, which ends with the values of the study. Where fewer have, ``beyond`` is the least
        of the values that the others end at, and ``level`` is none. Both are where a replicate has
        no curve.
    """
    curves: dict[tuple[float, str, str], dict[int, dict[float, float]]] = {}
    for level in sorted(levels):
        for row in levels[level]:
            place = (row["dose"], row["view"], plain_label(row["label"]))
            by_replicate = curves.setdefault(place, {})
            curve = by_replicate.setdefault(row["replicate"], {})
            is_whole = len(curve) == sum(one < level for one in levels)
            if is_whole and is_score(row) and row["phase_psnr_db"] is not None:
                curve[level] = row["phase_psnr_db"]
    table = []
    for (dose, view, arm), by_replicate in curves.items():
        numbers = [level_at_loss(curve, loss_db) for curve in by_replicate.values()]
        known = [number for number in numbers if number is not None]
        ends = [number.value for number in known if number.bound]
        is_known = len(known) == len(numbers)
        found = over_replicates(known) if is_known and not ends else None
        has_interval = len(numbers) >= REPLICATES_OF_AN_INTERVAL
        low, high = (found.low, found.high) if found and has_interval else (None, None)
        table.append(
            {
                "dose": dose,
                "view": view,
                "arm": arm,
                LEVEL: found.value if found else None,
                "beyond": min(ends) if is_known and ends else None,
                "low": low,
                "high": None if high is None else min(high, max(levels)),
                "reached": len(known) - len(ends),
                "replicates": len(numbers),
            }
        )
    return table


def loss_table(field: str, levels: Levels) -> SmallTable:
    """Return :func:`levels_at_loss` as a table: a row for each dose and arm, a column for a view.

    Parameters
    ----------
    field
        Of the design's mismatch, such as ``position_error_px``.
    levels
        Rows of one split, for each replicate, by the value.
    """
    words, unit = WORDS[field]
    rows = [row for part in levels.values() for row in part]
    views, found = views_in_order(rows), levels_at_loss(levels)
    lines = [
        (
            arm,
            f"{dose:g}",
            *(next((_text(row) for row in part if row["view"] == view), "-") for view in views),
        )
        for (dose, arm), part in sorted(grouped(found, ("dose", "arm")).items())
    ]
    title = f"{words.capitalize()} [{unit}] at which an arm has lost {LOSS_DB:g} dB of phase PSNR"
    return SmallTable(title, ("", unit_of(rows), *views), tuple(lines))


def _text(row: Row) -> str:
    if row[LEVEL] is not None:
        return Number(row[LEVEL], "", row["low"], row["high"]).text()
    if row["beyond"] is None:
        return "-"
    end = Number(row["beyond"], "at least").text().removeprefix("at least ")
    if not row["reached"]:
        return f"more than {end}"
    return f"in {row['reached']} of {row['replicates']} replicates, beyond {end} in the rest"


LOSS_NOTE = (
    "Beside the conditions of the tables above the study was made again with each of these errors, "
    "one at a time, unknown to every arm: networks learned from data with the same error, and no "
    "number above has any of it. The loss is against the same arm without the error; between two "
    "values the mean square error is taken as linear in the square of the value. More than, or "
    "beyond: the largest value with a score, of the replicate where that is least, has not lost so "
    "much. A dash: that dose and view is not computed, or in at least one replicate there is no "
    "score without the error or none at the smallest value. Several replicates that all lose so "
    "much have their geometric mean, three or more with its 95 % interval, which is cut at the "
    "largest value."
)
