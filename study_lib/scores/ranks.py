"""Where measured and simulated counts order the arms otherwise, and by how much scores differ.

Simulated counts are of two kinds. A run with ``--simulated`` scores against the true object: its
ranks compare, its scores do not. A run on simulated counts of the same scan, divided and judged
like the measured ones, differs from the measured run by what the model does not describe, and by
chance; the noise of the import's object is part of the specimen there.
"""

import math
from collections.abc import Mapping, Sequence
from typing import Any

from study_lib.arm_names import plain_label
from study_lib.scores.metrics import METRICS
from study_lib.scores.study_table import CONDITION, Row, grouped, is_score

# Words and decimals of each number that arms are ranked by.
RANKED = {
    "phase_ssim": ("phase SSIM", 3),
    "phase_psnr_db": ("phase PSNR [dB]", 2),
    "measured_excess_nats": (
        "excess of held-out counts over its own reference [nats per pattern]",
        1,
    ),
}
OVERTAKEN_SHOWN = 4


def rank_differences(measured: Sequence[Row], simulated: Sequence[Row]) -> list[dict[str, Any]]:
    """Return, for each condition and arm of two study tables, its ranks and scores in both.

    Rank 1 is the best of the arms that have a score in both, by each of ``RANKED``. A difference
    is that of the measured counts less that of the simulated ones. Errors are standard errors of
    means over draws; none of a single one.

    Parameters
    ----------
    measured, simulated
        From :func:`study_lib.scores.study_table.study_table`, of the same doses and views.

    Examples
    --------
    >>> from study_lib.scores.ranks import rank_differences
    >>> def row(arm, ssim, **more):
    ...     place = {"split": "test", "dose": 1e4, "view": "dense", "registration": "ok"}
    ...     return place | {"arm": arm, "label": arm, "phase_ssim": ssim, "phase_psnr_db": 0.0}
    >>> found = rank_differences([row("a", 0.7), row("b", 0.6)], [row("a", 0.8), row("b", 0.9)])
    >>> [(one["arm"], one["phase_ssim_rank_measured"], one["phase_ssim_rank_simulated"])
    ...  for one in found]
    [('a', 1, 2), ('b', 2, 1)]
    """
    others = {(*(row[name] for name in CONDITION), row["arm"]): row for row in simulated}
    found: list[dict[str, Any]] = []
    for place, part in grouped(measured, CONDITION).items():
        pairs = [
            (row, others[*place, row["arm"]])
            for row in part
            if (*place, row["arm"]) in others
            and not row.get("same_patterns_as")
            and is_score(row)
            and is_score(others[*place, row["arm"]])
        ]
        lines = [
            dict(zip(CONDITION, place, strict=True))
            | {"arm": row["arm"], "label": plain_label(row["label"])}
            for row, _ in pairs
        ]
        for metric in RANKED:
            ranks = [_ranks([pair[side].get(metric) for pair in pairs], metric) for side in (0, 1)]
            for line, pair, one, two in zip(lines, pairs, *ranks, strict=True):
                values = [row.get(metric) for row in pair]
                both = None not in values
                line |= {
                    f"{metric}_measured": values[0],
                    f"{metric}_simulated": values[1],
                    f"{metric}_difference": values[0] - values[1] if both else None,
                    f"{metric}_error_measured": _error_of_mean(pair[0], metric),
                    f"{metric}_error_simulated": _error_of_mean(pair[1], metric),
                    f"{metric}_rank_measured": one,
                    f"{metric}_rank_simulated": two,
                }
        found += lines
    return found


def _ranks(values: Sequence[float | None], metric: str) -> list[int | None]:
    """Return the place of each value, 1 for the best; none of a missing one."""
    lower = METRICS[metric].better == "lower"
    numbers = [value for value in values if value is not None]
    return [
        None if value is None else 1 + sum(one < value if lower else one > value for one in numbers)
        for value in values
    ]


SCORES_DO_NOT_COMPARE = (
    "Scores of simulated counts are against the true object, those of measured ones against a "
    "reference, which has noise of its own and was made by an algorithm that is also an arm's, "
    "which that may favour. Their difference is no measure of what the model gets wrong: only "
    "ranks compare. For scores that compare, `study simulate` writes simulated counts of the same "
    "scan; run the study on them, and hold this run against that one."
)
SCORES_COMPARE = (
    "Both runs have the same settings, and divide, reconstruct and judge in the same way, so their "
    "scores compare too; by which algorithm each draw's reference is stands in the summary of each "
    "run. What differs is what object, probe and positions of the base data, with Poisson counts, "
    "do not describe of the measurement, and the chance of the counts."
)


def _error_of_mean(row: Row, metric: str) -> float | None:
    """Return the standard error of a mean over draws; none of a single draw."""
    spread = row.get(f"{metric}_std")
    draws = row.get("replicates") or 0
    return None if spread is None or draws < 2 else float(spread) / math.sqrt(draws)


def rank_sentences(
    rows: Sequence[Mapping[str, Any]], simulated_run: str, *, scores_compare: bool = False
) -> list[str]:
    """Return what the differences say, of the test split; of the other if there is no test split.

    An arm has overtaken another where the measured scores of the two differ by more than
    ``ERRORS_APART`` standard errors of their means over draws, and the simulated ones too.

    Parameters
    ----------
    rows
        From :func:`rank_differences`.
    simulated_run
        Which run the simulated counts are of.
    scores_compare
        Whether that run was divided and judged like the measured one, so that differences of scores
        mean something; they are then said, too.
    """
    part = [row for row in rows if row["split"] == "test"] or list(rows)
    conditions = grouped(part, CONDITION)
    compared = {place: some for place, some in conditions.items() if len(some) > 1}
    against = f"against simulated counts of the same base data ({simulated_run})"
    if not compared:
        return [f"Measured counts {against}: no condition has two arms with a score in both."]
    lines = []
    for metric, (words, _) in RANKED.items():
        if all(row[f"{metric}_difference"] is None for row in part):
            continue
        swaps = {place: _overtaken(some, metric) for place, some in compared.items()}
        changed = {place: text for place, found in swaps.items() if (text := found[BEYOND])}
        where = "; ".join(
            f"at {dose:g}, {view} {text}"
            for (_, dose, view), text in list(changed.items())[:OVERTAKEN_SHOWN]
        )
        more = len(changed) - OVERTAKEN_SHOWN
        tail = f": {where}{f'; and {more} more' if more > 0 else ''}" if changed else ""
        lines.append(
            f"Measured counts {against} order the arms otherwise by {_unitless(words)}, beyond the "
            f"spread over draws, in {len(changed)} of {len(compared)} conditions{tail}."
        )
        for kind in (WITHIN, UNKNOWN):
            count = sum(bool(found[kind]) for found in swaps.values())
            if count:
                first = next(text for found in swaps.values() if (text := found[kind]))
                lines.append(
                    f"By {_unitless(words)} arms also change places {kind}, in {count}: {first}."
                )
    if not scores_compare:
        return [*lines, SCORES_DO_NOT_COMPARE]
    return [*lines, SCORES_COMPARE, *_sentences_on_scores(part)]


def _unitless(words: str) -> str:
    return words.partition(" [")[0]


def _sentences_on_scores(rows: Sequence[Mapping[str, Any]]) -> list[str]:
    """Return by how much each arm's scores differ, on average and at the least and most."""
    lines = []
    for metric, (words, decimals) in RANKED.items():
        said = []
        for (label,), some in grouped(rows, ("label",)).items():
            found = [
                difference
                for row in some
                if (difference := row[f"{metric}_difference"]) is not None
            ]
            if found:
                mean = sum(found) / len(found)
                low, high = (f"{number:+.{decimals}f}" for number in (min(found), max(found)))
                span = f" ({low} to {high} in {len(found)} conditions)" if len(found) > 1 else ""
                said.append((mean, f"{label} {mean:+.{decimals}f}{span}"))
        if said:
            said.sort(key=lambda one: one[0], reverse=METRICS[metric].better == "higher")
            texts = ", ".join(text for _, text in said)
            lines.append(f"Measured less simulated {words}, mean over conditions: {texts}.")
    return lines


ERRORS_APART = 2.0
BEYOND = "beyond the spread over draws"
WITHIN = "within the spread over draws, which says nothing"
UNKNOWN = "where an arm has one draw alone, so that the spread is not known"


def _overtaken(rows: Sequence[Mapping[str, Any]], metric: str) -> dict[str, str]:
    """Return which arms are ahead of which others with measured counts alone, by kind of swap."""
    said: dict[str, list[str]] = {BEYOND: [], WITHIN: [], UNKNOWN: []}
    for one in rows:
        behind: dict[str, list[str]] = {}
        for other in rows:
            if _is_ahead(one, other, f"{metric}_rank_measured") and _is_ahead(
                other, one, f"{metric}_rank_simulated"
            ):
                behind.setdefault(_kind_of_swap(one, other, metric), []).append(other["label"])
        for kind, labels in behind.items():
            said[kind].append(f"{one['label']} is ahead of {' and '.join(labels)}")
    return {kind: ", ".join(texts) for kind, texts in said.items()}


def _kind_of_swap(one: Mapping[str, Any], other: Mapping[str, Any], metric: str) -> str:
    for source in ("measured", "simulated"):
        errors = [row[f"{metric}_error_{source}"] for row in (one, other)]
        if None in errors:
            return UNKNOWN
        apart = abs(one[f"{metric}_{source}"] - other[f"{metric}_{source}"])
        if apart <= ERRORS_APART * math.hypot(*errors):
            return WITHIN
    return BEYOND


def _is_ahead(one: Mapping[str, Any], other: Mapping[str, Any], rank: str) -> bool:
    return None not in (one[rank], other[rank]) and bool(one[rank] < other[rank])
