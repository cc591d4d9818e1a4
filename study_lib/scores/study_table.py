"""One row per condition and arm: means over the replicates, with their spread."""

import math
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np
from scipy.stats import bootstrap

from study_lib.scores.metric_table import METRICS

CONFIDENCE = 0.95
RESAMPLINGS = 4999
BOOTSTRAP_SEED = 0  # of the resamplings alone; no result of the study
VIEW_ORDER = ("baseline", "dense", "sparse")
CONDITION = ("split", "dose", "view")
SPREADS = ("std", "low", "high")

Row = Mapping[str, Any]


def study_table(rows: Sequence[Row]) -> list[dict[str, Any]]:
    """Return one row per (split, dose, view, arm), in the order of the rows.

    Numbers are means over the replicates; a mean of which a replicate has no number is none. Each
    metric also has ``_std``, the sample standard deviation, and ``_low`` and ``_high``, the 95 %
    bootstrap interval of the mean; all three are none with a single replicate.
    """
    table = []
    for part in grouped(rows, (*CONDITION, "arm")).values():
        first = part[0]
        row = {name: first[name] for name in (*CONDITION, "arm", "label", "knows")}
        row["replicates"] = len(part)
        doubtful = [one["registration"] for one in part if one["registration"] != "ok"]
        count = f" in {len(doubtful)} of {len(part)}" if len(part) > 1 else ""
        row["registration"] = f"{doubtful[0]}{count}" if doubtful else "ok"
        for name in first:
            if name in row or name == "replicate":
                continue
            values = [one[name] for one in part]
            row[name] = mean_of(values)
            if name in METRICS:
                row |= spread_of(name, values)
        table.append(row)
    return table


def spread_of(name: str, values: Sequence[float | None]) -> dict[str, float | None]:
    """Return ``name_std``, ``name_low`` and ``name_high`` of repeated values."""
    names = [f"{name}_{part}" for part in SPREADS]
    if len(values) < 2 or None in values:
        return dict.fromkeys(names)
    numbers = np.array(values, dtype=float)
    if np.ptp(numbers) == 0:  # the interval of a constant is that constant
        return dict(zip(names, (0.0, float(numbers[0]), float(numbers[0])), strict=True))
    interval = bootstrap(
        (numbers,),
        np.mean,
        n_resamples=RESAMPLINGS,
        confidence_level=CONFIDENCE,
        method="percentile",
        rng=np.random.default_rng(BOOTSTRAP_SEED),
    ).confidence_interval
    found = (float(numbers.std(ddof=1)), float(interval.low), float(interval.high))
    return dict(zip(names, found, strict=True))


def mean_of(values: Sequence[float | int | None]) -> float | int | None:
    """Return the mean; none if a value is missing, and the value itself if all are equal."""
    numbers = [value for value in values if value is not None]
    if len(numbers) < len(values):
        return None
    return numbers[0] if len(set(numbers)) == 1 else math.fsum(numbers) / len(numbers)


def phase_deltas(rows: Sequence[Row]) -> list[dict[str, Any]]:
    """Return how much each arm's phase differs from the reference arm's, condition by condition.

    The reference is LSQML, or the first arm if that is missing. Replicates are compared pairwise:
    the differences have a mean and a spread of their own, and a positive one is an arm above the
    reference.
    """
    arms = sorted({row["arm"] for row in rows})
    reference = "lsqml" if "lsqml" in arms else arms[0]
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
            labels = {"arm": pairs[0][0]["label"], "reference": pairs[0][1]["label"]}
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
            table.append(line)
    return table


def grouped(rows: Iterable[Row], names: Sequence[str]) -> dict[tuple[Any, ...], list[Row]]:
    """Return the rows with the same values of some columns, in the order of the rows."""
    groups: dict[tuple[Any, ...], list[Row]] = {}
    for row in rows:
        groups.setdefault(tuple(row[name] for name in names), []).append(row)
    return groups
