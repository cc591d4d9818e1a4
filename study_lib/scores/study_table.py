"""The study table: rows over replicates, their spreads, and which of them are scores."""

import math
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from functools import cache
from typing import Any

from scipy.special import stdtrit

from study_lib.arm_names import IS, key_of, plain_label
from study_lib.design.axes import MEASURED, UNITS
from study_lib.scores.frc import CROSSES, OUTCOME
from study_lib.scores.metrics import METRICS, REFERENCE, TRUTH

# --- Means over the replicates, with their spread

CONFIDENCE = 0.95
CONDITION = ("split", "dose", "view")
REFERENCE_ARM = key_of("LSQML")
SPREADS = ("std", "low", "high")
# Columns that say how the replicates of a row were made; rows of finished runs may lack them.
TEXTS = (
    *("fallback", "fallback_reason", "grouping", "chosen_by", "dose_per", "patterns_sha256"),
    "source",
)

Row = Mapping[str, Any]


def study_table(rows: Sequence[Row]) -> list[dict[str, Any]]:
    """Return one row per (split, dose, view, arm), in the order of the rows.

    Numbers are means over the replicates; a mean of which a replicate has no number is none. Each
    metric also has ``_std``, the sample standard deviation, and ``_low`` and ``_high``, the 95 %
    interval of the mean by Student's t; all three are none with a single replicate.

    ``fallback`` says what the arm is where held-out counts refused what it adds, also in some
    replicates alone, and the label says it too. ``same_patterns_as`` names the earlier view that
    holds the same patterns; empty if there is none.
    """
    same = same_patterns(rows)
    table = []
    for part in grouped(rows, (*CONDITION, "arm")).values():
        first = part[0]
        row = {name: first[name] for name in (*CONDITION, "arm")}
        row |= {"label": _label_of(part), "knows": first["knows"]}
        row["replicates"] = len(part)
        row["registration"] = _in_some(part, "registration", "ok")
        row["fallback"] = _in_some(part, "fallback", "")
        reasons = [str(one["fallback_reason"]) for one in part if one.get("fallback_reason")]
        row["fallback_reason"] = "; ".join(dict.fromkeys(reasons))
        row["grouping"], row["chosen_by"] = first.get("grouping"), first.get("chosen_by")
        row["dose_per"] = dose_per(part)
        if is_measured(part):
            row["source"] = MEASURED
        row["same_patterns_as"] = same.get(tuple(row[name] for name in CONDITION), "")
        for name in dict.fromkeys(name for one in part for name in one):
            if name in row or name in TEXTS or name == "replicate":
                continue
            refused = name == "refused_training_cpu_s" and row["fallback"]
            values = [one.get(name) for one in part if one.get("fallback") or not refused]
            if name.endswith(OUTCOME):
                row[name] = outcome_of(values)
                continue
            row[name] = mean_of(values)
            if name in METRICS:
                row |= spread_of(name, values)
        table.append(row)
    return table


def views_in_order(rows: Sequence[Row]) -> list[str]:
    """Return the views of some rows, from the most overlap to the least; equal ones by name."""
    overlaps: dict[str, list[float]] = {}
    for row in rows:
        overlaps.setdefault(row["view"], []).append(row["overlap"])
    means = {view: round(math.fsum(found) / len(found), 6) for view, found in overlaps.items()}
    return sorted(means, key=lambda view: (-means[view], view))


def dose_per(rows: Sequence[Row]) -> str:
    """Return what the doses of some rows are counted on: a pattern, a pixel, um2 or nm2."""
    return str(rows[0].get("dose_per") or "pattern") if rows else "pattern"


def unit_of(rows: Sequence[Row]) -> str:
    """Return the unit of the doses of some rows, such as ``photons per pattern``."""
    return UNITS[dose_per(rows)]


def is_measured(rows: Sequence[Row]) -> bool:
    """Return whether rows of comparisons are of measured counts."""
    return any(row.get("source") == MEASURED for row in rows)


def held_against_in(rows: Sequence[Row]) -> str:
    """Return what the objects of some rows are held against.

    >>> from study_lib.scores.study_table import held_against_in
    >>> held_against_in([{"source": "measured"}]), held_against_in([{}])
    ('reference', 'truth')
    """
    return REFERENCE if is_measured(rows) else TRUTH


def _in_some(part: Sequence[Row], name: str, usual: str) -> str:
    """Return the first unusual text of some replicates, and in how many; else the usual one."""
    unusual = [one[name] for one in part if one.get(name, usual) != usual]
    if not unusual:
        return usual
    several = len(part) > 1 and (name == "registration" or len(unusual) < len(part))
    unit = "" if name == "registration" else " replicates"
    count = f" in {len(unusual)} of {len(part)}{unit}" if several else ""
    return f"{unusual[0]}{count}"


def _label_of(part: Sequence[Row]) -> str:
    fallback = _in_some(part, "fallback", "")
    plain = plain_label(part[0]["label"])
    return f"{plain}{IS}{fallback}" if fallback else plain


def same_patterns(rows: Sequence[Row]) -> dict[tuple[Any, ...], str]:
    """Return, of each condition whose patterns an earlier view holds in every replicate, that view.

    Rows of comparisons, or of a table of means. Those without a hash are compared by the number of
    patterns, their light and their overlap.
    """
    earlier: dict[tuple[Any, ...], str] = {}
    found = {}
    for condition, part in grouped(rows, CONDITION).items():
        split, dose, view = condition
        held = frozenset((row.get("replicate"), _patterns_of(row)) for row in part)
        first = earlier.setdefault((split, dose, held), view)
        if first != view:
            found[condition] = first
    return found


def _patterns_of(row: Row) -> Any:
    light = row.get("photons_measured")
    if row.get("patterns_sha256"):
        return row["patterns_sha256"]
    return row["view"] if light is None else (row["patterns"], light, row["overlap"])


@cache
def _half_width(count: int) -> float:
    """Return half the interval of the mean of repeated values, in standard deviations of one."""
    return float(stdtrit(count - 1, (1 + CONFIDENCE) / 2)) / math.sqrt(count)


def spread_of(name: str, values: Sequence[float | None]) -> dict[str, float | None]:
    """Return ``name_std``, ``name_low`` and ``name_high`` of repeated values.

    The sample standard deviation, and the 95 % interval of the mean by Student's t; of values that
    scatter normally the interval holds the true mean in 95 of 100 cases, whatever their number.
    None with fewer than two values, or if one is missing.

    References
    ----------
    Student, Biometrika 6, 1 (1908), doi:10.2307/2331554
    """
    names = [f"{name}_{part}" for part in SPREADS]
    numbers = [value for value in values if value is not None]
    if len(numbers) < max(2, len(values)):
        return dict.fromkeys(names)
    mean = math.fsum(numbers) / len(numbers)
    std = math.sqrt(math.fsum((one - mean) ** 2 for one in numbers) / (len(numbers) - 1))
    half = _half_width(len(numbers)) * std
    if len(set(numbers)) == 1:  # the interval of a constant is that constant
        mean, std, half = numbers[0], 0.0, 0.0
    return dict(zip(names, (std, mean - half, mean + half), strict=True))


def mean_of(values: Sequence[float | int | None]) -> float | int | None:
    """Return the mean; none if a value is missing, and the value itself if all are equal."""
    numbers = [value for value in values if value is not None]
    if len(numbers) < len(values):
        return None
    return numbers[0] if len(set(numbers)) == 1 else math.fsum(numbers) / len(numbers)


def outcome_of(outcomes: Sequence[str | None]) -> str:
    """Return what is to be said of a crossing over the replicates: why its mean has no number."""
    counts = Counter(outcome or "not known" for outcome in outcomes if outcome != CROSSES)
    if not counts:
        return CROSSES
    said = counts.most_common()
    if counts.total() == len(outcomes) and len(said) == 1:
        return said[0][0]
    return "; ".join(f"{outcome} in {count} of {len(outcomes)}" for outcome, count in said)


def phase_deltas(rows: Sequence[Row]) -> list[dict[str, Any]]:
    """Return how much each arm's phase differs from the reference arm's, condition by condition.

    The reference is LSQML, or the first arm if that is missing. Replicates are compared pairwise:
    the differences have a mean and a spread of their own, and a positive one is an arm above the
    reference. ``fallback`` and ``same_patterns_as`` are as in :func:`study_table`.
    """
    arms = sorted({row["arm"] for row in rows})
    reference = REFERENCE_ARM if REFERENCE_ARM in arms else arms[0]
    same = same_patterns(rows)
    table = []
    for condition, part in grouped(rows, CONDITION).items():
        by_key = {(row["arm"], row["replicate"]): row for row in part}
        for arm in arms:
            pairs = [
                (row, by_key[reference, replicate])
                for (name, replicate), row in by_key.items()
                if name == arm != reference and (reference, replicate) in by_key
            ]
            if not pairs:
                continue
            ours, theirs = ([pair[place] for pair in pairs] for place in (0, 1))
            labels = {"arm": _label_of(ours), "reference": _label_of(theirs)}
            line = dict(zip(CONDITION, condition, strict=True)) | labels | {"pairs": len(pairs)}
            for metric in ("phase_ms_ssim", "phase_mae_rad"):
                differences = [one[metric] - other[metric] for one, other in pairs]
                name = f"{metric}_delta"
                line |= {name: mean_of(differences)} | spread_of(name, differences)
            line["registration"] = (
                "ok"
                if all(row["registration"] == "ok" for pair in pairs for row in pair)
                else "uncertain"
            )
            line["fallback"] = _in_some(ours, "fallback", "")
            line["same_patterns_as"] = same.get(condition, "")
            table.append(line)
    return table


def grouped(rows: Iterable[Row], names: Sequence[str]) -> dict[tuple[Any, ...], list[Row]]:
    """Return the rows with the same values of some columns, in the order of the rows."""
    groups: dict[tuple[Any, ...], list[Row]] = {}
    for row in rows:
        groups.setdefault(tuple(row[name] for name in names), []).append(row)
    return groups


def is_score(row: Row) -> bool:
    """Return whether the numbers of a row are scores of what it is named for.

    They are not if it is featureless, if its place against the truth is in doubt, or if the arm is
    its own fall-back.
    """
    return row["registration"] == "ok" and not row.get("fallback")


def best_places(rows: Sequence[Row], names: Iterable[str]) -> set[tuple[int, str]]:
    """Return places and columns of the best scores, of two or more in a group that have one."""
    found: set[tuple[int, str]] = set()
    numbered = [{**row, "place": index} for index, row in enumerate(rows)]
    for part in grouped(numbered, ("dose", "view")).values():
        scores = [row for row in part if is_score(row)]
        for name in names:
            values = [row.get(name) for row in scores]
            numbers = [value for value in values if value is not None]
            if len(numbers) < max(2, len(values)) or len(set(numbers)) == 1:
                continue
            best = (min if METRICS[name].better == "lower" else max)(numbers)
            found |= {(row["place"], name) for row in scores if row[name] == best}
    return found
