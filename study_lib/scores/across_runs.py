"""Rows of several runs: paired differences between two of them, and a number from run to run."""

import math
import statistics
from collections.abc import Iterable, Mapping, Sequence
from types import MappingProxyType
from typing import Any

from study_lib.arm_names import current_arm, plain_label
from study_lib.design.axes import UNITS
from study_lib.errors import InputError
from study_lib.scores.metrics import METRICS
from study_lib.scores.mismatch_cost import LEVEL_OF
from study_lib.scores.shown_tables import COLUMNS, DECIMALS, USUAL_DECIMALS
from study_lib.scores.study_table import (
    Row,
    dose_per,
    grouped,
    is_score,
    mean_of,
    spread_of,
)

# Title of each number that is compared, and its decimals.
COMPARED: Mapping[str, tuple[str, int]] = MappingProxyType(
    {
        "phase_ms_ssim": ("phase MS-SSIM", 4),
        "phase_ssim": ("phase SSIM", 4),
        "phase_psnr_db": ("phase PSNR [dB]", 3),
        "phase_error_rad": ("phase error, root mean square [rad]", 5),
        "frc_crossing": ("FRC crossing / Nyquist", 4),
        "cpu_s": ("CPU [s]", 2),
    }
)
ROOT_OF = {"phase_error_rad": "phase_mse_rad2"}  # a number that rows hold squared
PLACE = ("split", "dose", "dose_per", "view")
ARM = (*PLACE, "arm")
KEY = (*ARM, "replicate")
VERDICTS = ("better", "worse", "unclear", "equal", "no number")
LISTED = 5
COMMIT_CHARACTERS = 12


def with_keys(row: Row) -> dict[str, Any]:
    """Return a row with every column that tells rows apart; older runs lack two of them."""
    return {
        **row,
        "dose_per": dose_per([row]),
        "replicate": row.get("replicate") or 0,
    }


def value_of(row: Row, metric: str) -> float | None:
    """Return a number of a row; none if it has none."""
    value = row.get(ROOT_OF.get(metric, metric))
    if not isinstance(value, int | float) or not math.isfinite(value):
        return None
    return math.sqrt(value) if metric in ROOT_OF else value


def title_of(metric: str) -> str:
    """Return the title of a number, compared or not."""
    return COMPARED[metric][0] if metric in COMPARED else COLUMNS.get(metric, metric)


def better_of(metric: str) -> str:
    """Return ``higher`` or ``lower``: which way a number is better."""
    return METRICS[ROOT_OF.get(metric, metric)].better


# --- Two runs, paired row by row


def differences(reference: Sequence[Row], rows: Sequence[Row]) -> list[dict[str, Any]]:
    """Return how much each number of each arm differs between two runs, condition by condition.

    Rows of the same condition, arm and replicate are a pair, if both are scores. A difference is
    that of the run to the reference, averaged over the pairs; ``difference_std``, ``_low`` and
    ``_high`` are as in :func:`study_lib.scores.study_table.spread_of`, none with one pair.

    Parameters
    ----------
    reference, rows
        Rows of comparisons, with the columns of :func:`with_keys`.

    Returns
    -------
    list of dict
        One row for each arm of a condition and each number of ``COMPARED``, in the order of the
        reference. ``same_patterns`` says whether all its pairs are of the same patterns.
    """
    others = by_key(rows)
    found = []
    for arm_key, part in grouped(reference, ARM).items():
        both = ((row, others.get(key_of_row(row))) for row in part)
        pairs = [(one, other) for one, other in both if other and is_score(one) and is_score(other)]
        if not pairs:
            continue
        place = dict(zip(ARM, arm_key, strict=True)) | {
            "label": plain_label(str(pairs[0][1]["label"])),
            "pairs": len(pairs),
            "same_patterns": _same_patterns(pairs),
        }
        for metric in COMPARED:
            ours, theirs = ([value_of(pair[index], metric) for pair in pairs] for index in (0, 1))
            deltas = [
                None if one is None or other is None else other - one
                for one, other in zip(ours, theirs, strict=True)
            ]
            found.append(
                {
                    **place,
                    "metric": metric,
                    "better": better_of(metric),
                    "reference_value": mean_of(ours),
                    "value": mean_of(theirs),
                    "difference": mean_of(deltas),
                    **spread_of("difference", deltas),
                }
            )
    return found


def key_of_row(row: Row) -> tuple[Any, ...]:
    """Return what tells a row apart from the others of its run."""
    return tuple(row[name] for name in KEY)


def by_key(rows: Iterable[Row]) -> dict[tuple[Any, ...], Row]:
    """Return rows by what tells them apart."""
    return {key_of_row(row): row for row in rows}


def _same_patterns(pairs: Sequence[tuple[Row, Row]]) -> bool | None:
    """Return whether each pair is of the same patterns; none where a row does not say of which."""
    hashes = [[row.get("patterns_sha256") for row in pair] for pair in pairs]
    if any(not one or not other for one, other in hashes):
        return None
    return all(one == other for one, other in hashes)


def only_in(rows: Sequence[Row], others: Sequence[Row]) -> list[str]:
    """Return what some rows have and others have not: whole doses, views and arms first.

    A line for each value of a column that the others lack, then what is left row by row.
    """
    theirs = by_key(others)
    left = {key: row for key, row in by_key(rows).items() if key not in theirs}
    lines = []
    for index, name in enumerate(KEY):
        if name == "dose_per":
            continue
        known = {key[index] for key in theirs}
        for value in dict.fromkeys(key[index] for key in left if key[index] not in known):
            gone = [key for key in left if key[index] == value]
            lines.append(f"{name} {_text(value)} ({count_text(len(gone), 'row')})")
            left = {key: row for key, row in left.items() if key not in gone}
    places = [f"{place_text(row)}, replicate {row['replicate']}" for row in left.values()]
    lines += places[:LISTED]
    if len(places) > LISTED:
        lines.append(f"{len(places) - LISTED} more rows")
    return lines


def contents_text(rows: Sequence[Row]) -> str:
    """Return which conditions, arms and replicates some rows have."""
    parts = []
    for name in ("split", "dose", "view", "arm", "replicate"):
        found = dict.fromkeys(row[name] for row in rows)
        ordered = sorted(found) if name in ("dose", "replicate") else found
        values = ", ".join(map(_text, ordered))
        unit = f" {UNITS[dose_per(rows)]}" if name == "dose" else ""
        parts.append(f"{name} {values}{unit}")
    return "; ".join(parts)


def no_scores(runs: Mapping[str, Sequence[Row]]) -> list[str]:
    """Return a line for each arm of which a row is no score, with conditions, runs and reasons.

    Parameters
    ----------
    runs
        Rows of each run by its letter.
    """
    found: dict[tuple[str, str], dict[str, list[str]]] = {}
    are_several = len({row["replicate"] for rows in runs.values() for row in rows}) > 1
    for letter, rows in runs.items():
        for row in rows:
            if not is_score(row):
                reason = row["label"] if row.get("fallback") else row["registration"]
                places = found.setdefault((row["arm"], str(reason)), {})
                replicate = f" replicate {row['replicate']}" if are_several else ""
                place = f"{place_text(row, with_arm=False)}{replicate}"
                places.setdefault(place, []).append(letter)
    lines = []
    for (arm, reason), places in found.items():
        by_letters: dict[str, list[str]] = {}
        for place, letters in places.items():
            by_letters.setdefault(" and ".join(letters), []).append(place)
        where = "; ".join(f"{names}: {', '.join(some)}" for names, some in by_letters.items())
        lines.append(f"{arm} ({reason}) in {where}")
    return lines


def place_text(row: Row, *, with_arm: bool = True) -> str:
    """Return a condition in a few words, such as ``test 10000 dense solver``."""
    words = [str(row["split"]), _text(row["dose"]), str(row["view"])]
    return " ".join([*words, str(row["arm"])] if with_arm else words)


def _text(value: Any) -> str:
    return f"{value:g}" if isinstance(value, float) else str(value)


def count_text(count: int, noun: str) -> str:
    """Return a number of things, such as ``1 row`` or ``2 rows``."""
    return f"{count} {noun}{'' if count == 1 else 's'}"


# --- What differences come to, as text


def verdict_of(row: Row, *, has_intervals: bool) -> str:
    """Return what a difference says, a word of ``VERDICTS``.

    Where differences have intervals, one is better or worse if its interval leaves out zero; else
    its sign alone decides, which chance may have made.
    """
    difference, low, high = (row[f"difference{end}"] for end in ("", "_low", "_high"))
    if difference is None:
        return "no number"
    if difference == 0 and not low and not high:
        return "equal"
    if has_intervals and (low is None or low <= 0 <= high):
        return "unclear"
    return "better" if gain_of(row) > 0 else "worse"


def gain_of(row: Row) -> float:
    """Return a difference with the sign that makes a positive one better."""
    sign = 1.0 if row["better"] == "higher" else -1.0
    return sign * float(row["difference"])


def overview_lines(rows: Sequence[Row]) -> list[str]:
    """Return a table of all numbers: how many differences are better or worse, and how large."""
    has_intervals = any(row["difference_low"] is not None for row in rows)
    lines = []
    for metric, (title, decimals) in COMPARED.items():
        part = [row for row in rows if row["metric"] == metric]
        verdicts = [verdict_of(row, has_intervals=has_intervals) for row in part]
        known = [row for row in part if row["difference"] is not None]
        ordered = sorted(known, key=gain_of)
        numbers = ["-"] * 3
        if ordered:
            middle = statistics.median(row["difference"] for row in ordered)
            ends = (ordered[0]["difference"], middle, ordered[-1]["difference"])
            numbers = [_signed(value, decimals) for value in ends]
        counts = [str(verdicts.count(word)) for word in VERDICTS]
        lines.append([title, *counts, *numbers])
    return aligned(["", *VERDICTS, "worst", "median", "best"], lines)


def extreme_lines(rows: Sequence[Row], metric: str, letter: str) -> list[str]:
    """Return a table of the worst and the best differences of a number, the worst first.

    ``letter`` is that of the run; the reference is A.
    """
    title, decimals = COMPARED[metric]
    part = [row for row in rows if row["metric"] == metric]
    known = [row for row in part if row["difference"] is not None]
    ordered = sorted((row for row in known if row["difference"]), key=gain_of)
    if not known:
        found = [f"{title}: no number in both"]
    elif not ordered:
        found = [f"{title}: the same everywhere"]
    else:
        titles = ["split", "dose", "view", "arm", "replicates", "A", letter, "difference"]
        cells = [_cells(row, decimals) for row in ordered]
        table = aligned([*titles, "95 % interval"], cells, texts=(0, 2, 3))
        hidden = len(ordered) - 2 * LISTED
        if hidden > 0:
            middle = f"  ... {count_text(hidden, 'row')} between these ..."
            table = [*table[: LISTED + 1], middle, *table[-LISTED:]]
        found = [f"{title}, worst first ({better_of(metric)} is better):", *table]
    for name, has, lacks in (
        ("A", "reference_value", "value"),
        (letter, "value", "reference_value"),
    ):
        alone = [place_text(row) for row in part if row[has] is not None and row[lacks] is None]
        found += [f"{title}, a number in {name} alone: {', '.join(alone)}"] if alone else []
    return found


def _cells(row: Row, decimals: int) -> list[str]:
    low, high = row["difference_low"], row["difference_high"]
    interval = "-" if low is None else f"{_signed(low, decimals)} to {_signed(high, decimals)}"
    return [
        *(str(row["split"]), _text(row["dose"]), str(row["view"]), str(row["arm"])),
        str(row["pairs"]),
        *(f"{row[name]:.{decimals}f}" for name in ("reference_value", "value")),
        *(_signed(row["difference"], decimals), interval),
    ]


def _signed(value: float, decimals: int) -> str:
    """Return a difference with its sign; one that its decimals would hide has an exponent."""
    text = f"{value:+.{decimals}f}"
    if value and not float(text):
        return f"{value:+.0e}"
    return text if value else f"{0:.{decimals}f}"


def aligned(
    titles: Sequence[str], lines: Sequence[Sequence[str]], texts: Sequence[int] = (0,)
) -> list[str]:
    """Return a table for the screen: columns as wide as they need, ``texts`` to the left."""
    table = [titles, *lines]
    widths = [max(len(line[index]) for line in table) for index in range(len(titles))]
    return [
        "  "
        + "  ".join(
            cell.ljust(width) if index in texts else cell.rjust(width)
            for index, (cell, width) in enumerate(zip(line, widths, strict=True))
        ).rstrip()
        for line in table
    ]


# --- One number from run to run


def history(
    rows: Sequence[Row],
    *,
    arm: str,
    metric: str,
    split: str,
    dose: float | None = None,
    view: str | None = None,
) -> list[dict[str, Any]]:
    """Return a number of an arm over the runs, a row for each run and condition, by date.

    Not of the listed values of a mismatch, which are no repetitions of a run's conditions.

    Parameters
    ----------
    rows
        Of runs, with ``run``, ``design``, ``date`` and ``commit``.
    arm
        By its key, or by the key it had before.
    metric
        A number of ``METRICS``, or ``phase_error_rad``, the root mean square.
    split, dose, view
        Only these; None: all.

    Returns
    -------
    list of dict
        ``value`` is the mean over the replicates that are scores, ``low`` and ``high`` its 95 %
        interval; all three are none where no replicate has the number.

    Raises
    ------
    InputError
        If there is no such number, or nothing is left; says what there is.
    """
    if metric not in METRICS and metric not in ROOT_OF:
        raise InputError(f"metric {metric!r}: choose one of {', '.join((*METRICS, *ROOT_OF))}")
    wanted = {"arm": current_arm(arm), "split": split, "dose": dose, "view": view}
    asked = {name: value for name, value in wanted.items() if value is not None}
    rows = [row for row in rows if not row.get(LEVEL_OF)]
    found = [row for row in rows if all(row[name] == value for name, value in asked.items())]
    if not found:
        texts = ", ".join(f"{name} {_text(value)}" for name, value in asked.items())
        raise InputError(f"no result of {texts}; there are: {contents_text(rows)}")
    history_rows = []
    for place, part in grouped(found, ("date", "run", *PLACE)).items():
        scores = [row for row in part if is_score(row)]
        values = [value_of(row, metric) for row in scores]
        spread = spread_of("value", values)
        first = part[0]
        history_rows.append(
            {
                **dict(zip(("date", "run", *PLACE), place, strict=True)),
                **{name: first[name] for name in ("design", "commit", "dirty", "arm")},
                "replicates": len(part),
                "scores": len(scores),
                "value": mean_of(values) if values else None,
                "low": spread["value_low"],
                "high": spread["value_high"],
            }
        )
    order = (*PLACE, "date", "run")
    return sorted(history_rows, key=lambda row: [row[name] for name in order])


def history_lines(rows: Sequence[Row], metric: str) -> list[str]:
    """Return the rows of :func:`history` as a table for the screen."""
    decimals = DECIMALS.get(metric, USUAL_DECIMALS)
    if metric in COMPARED:
        decimals = COMPARED[metric][1]
    lines = []
    for row in rows:
        value, low, high = row["value"], row["low"], row["high"]
        interval = "-" if low is None else f"{low:.{decimals}f} to {high:.{decimals}f}"
        lines.append(
            [
                f"{_text(row['dose'])} / {row['dose_per']}",
                str(row["view"]),
                f"{row['date']:%Y-%m-%d %H:%M}" if row["date"] else "-",
                f"{(row['commit'] or '-')[:COMMIT_CHARACTERS]}{' *' if row['dirty'] else ''}",
                str(row["run"]),
                f"{row['scores']} of {row['replicates']}",
                "-" if value is None else f"{value:.{decimals}f}",
                interval,
            ]
        )
    titles = ["photons", "view", "date, UTC", "commit", "run", "scores", "value", "95 % interval"]
    first = rows[0]
    title = f"{title_of(metric)} of {first['arm']}, {first['split']} split"
    notes = ["* with changes that are in no commit"] if any(row["dirty"] for row in rows) else []
    table = aligned(titles, lines, texts=(0, 1, 2, 3, 4))
    return [f"{title} ({better_of(metric)} is better):", *table, *notes]
