"""Where measured and simulated counts order the arms otherwise, and by how much they differ."""

from collections.abc import Mapping, Sequence
from statistics import median
from typing import Any

from study_lib.arm_names import plain_label
from study_lib.scores.metrics import METRICS
from study_lib.scores.study_table import Row, grouped, is_score

RANKED = {"phase_ssim": ("phase SSIM", "", 3), "phase_psnr_db": ("phase PSNR", " dB", 1)}
PLACE = ("split", "dose", "view")
SHOWN = 4


def rank_differences(measured: Sequence[Row], simulated: Sequence[Row]) -> list[dict[str, Any]]:
    """Return, for each condition and arm of two study tables, its ranks and scores in both.

    Rank 1 is the best of the arms that have a score in both, by each of ``RANKED``. A difference
    is that of the measured counts less that of the simulated ones.

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
    others = {(*(row[name] for name in PLACE), row["arm"]): row for row in simulated}
    found: list[dict[str, Any]] = []
    for place, part in grouped(measured, PLACE).items():
        pairs = [
            (row, others[*place, row["arm"]])
            for row in part
            if (*place, row["arm"]) in others
            and not row.get("same_patterns_as")
            and is_score(row)
            and is_score(others[*place, row["arm"]])
        ]
        lines = [
            dict(zip(PLACE, place, strict=True))
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


def rank_sentences(rows: Sequence[Mapping[str, Any]], simulated_run: str) -> list[str]:
    """Return what the differences say, of the test split; of the other if there is no test split.

    Parameters
    ----------
    rows
        From :func:`rank_differences`.
    simulated_run
        Which run the simulated counts are of.
    """
    part = [row for row in rows if row["split"] == "test"] or list(rows)
    conditions = grouped(part, PLACE)
    compared = {place: some for place, some in conditions.items() if len(some) > 1}
    against = f"against simulated counts of the same base data ({simulated_run})"
    if not compared:
        return [f"Measured counts {against}: no condition has two arms with a score in both."]
    lines = []
    for metric, (words, unit, digits) in RANKED.items():
        changed = {
            place: text for place, some in compared.items() if (text := _overtaken(some, metric))
        }
        where = "; ".join(
            f"at {dose:g}, {view} {text}" for (_, dose, view), text in list(changed.items())[:SHOWN]
        )
        more = len(changed) - SHOWN
        tail = f": {where}{f'; and {more} more' if more > 0 else ''}" if changed else ""
        lines.append(
            f"Measured counts {against} order the arms otherwise by {words} in {len(changed)} of "
            f"{len(compared)} conditions{tail}."
        )
        differences = {
            label: [row[f"{metric}_difference"] for row in some]
            for (label,), some in grouped(part, ("label",)).items()
        }
        known = {
            label: [one for one in some if one is not None] for label, some in differences.items()
        }
        said = ", ".join(
            f"{label} {median(some):+.{digits}f}{unit}" for label, some in known.items() if some
        )
        lines.append(f"By how much {words} is higher with measured counts (median): {said}.")
    return lines


def _overtaken(rows: Sequence[Mapping[str, Any]], metric: str) -> str:
    """Return which arms are ahead of which others with measured counts alone; empty if none is."""
    said = []
    for one in rows:
        behind = [
            other["label"]
            for other in rows
            if _is_ahead(one, other, f"{metric}_rank_measured")
            and _is_ahead(other, one, f"{metric}_rank_simulated")
        ]
        if behind:
            said.append(f"{one['label']} is ahead of {' and '.join(behind)}")
    return ", ".join(said)


def _is_ahead(one: Mapping[str, Any], other: Mapping[str, Any], rank: str) -> bool:
    return None not in (one[rank], other[rank]) and bool(one[rank] < other[rank])
