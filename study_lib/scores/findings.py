"""What the study table says, in sentences that hold nothing but its numbers."""

import math
from collections.abc import Sequence
from statistics import median

from study_lib.scores.metric_table import METRICS
from study_lib.scores.study_table import Row, grouped

BEST_OF = {
    "phase_ms_ssim": "phase MS-SSIM",
    "phase_ssim": "phase SSIM",
    "phase_error_over_limit": "phase error over the photon limit",
}


def findings(table: Sequence[Row], deltas: Sequence[Row]) -> list[str]:
    """Return sentences on one split of a study.

    Rows whose registration is in doubt are named and count in none of the others.

    Parameters
    ----------
    table
        From :func:`study_lib.scores.study_table.study_table`, one split.
    deltas
        From :func:`study_lib.scores.study_table.phase_deltas`, the same split.
    """
    sound = [row for row in table if row["registration"] == "ok"]
    doubtful = [row for row in table if row["registration"] != "ok"]
    lines = [_extent(table)]
    if doubtful:
        lines.append(
            f"Not counted below, registration in doubt: {'; '.join(map(_place, doubtful))}."
        )
    if sound:
        lines += [_best(sound, metric) for metric in BEST_OF]
        lines += _limits(sound)
        lines += _dose_effects(sound)
        lines += _overlap_effects(sound)
        lines += _costs(sound)
    return lines + _decided(deltas)


def training_repaid_after(row: Row, other: Row) -> int | None:
    """Return after how many scans an arm with its training has cost no more than another arm.

    None if it never does.
    """
    saved = other["cpu_s"] - row["cpu_s"]
    extra = row["training_cpu_s"] - other["training_cpu_s"]
    if extra <= 0:
        return 0
    return math.ceil(extra / saved) if saved > 0 else None


def _extent(table: Sequence[Row]) -> str:
    replicates = sorted({row["replicates"] for row in table})
    conditions = len(grouped(table, ("dose", "view")))
    arms = sorted({row["arm"] for row in table})
    plural = "" if conditions == 1 else "s"
    told = f"{conditions} condition{plural} of dose and view, arms {', '.join(arms)}"
    if replicates == [1]:
        return f"{told}; one replicate, so no spread and no interval can be given."
    counts = " or ".join(map(str, replicates))
    return f"{told}; {counts} replicates, each with its own noise, choice of patterns and training."


def _best(sound: Sequence[Row], metric: str) -> str:
    lower = METRICS[metric].better == "lower"
    wins: dict[str, int] = {}
    counted = 0
    for part in grouped(sound, ("dose", "view")).values():
        told = [row for row in part if row[metric] is not None]
        if len(told) < 2:
            continue
        best = (min if lower else max)(told, key=lambda row: row[metric])
        wins[best["arm"]] = wins.get(best["arm"], 0) + 1
        counted += 1
    kind = "Lowest" if lower else "Highest"
    if not counted:
        return f"{kind} {BEST_OF[metric]}: no condition has two arms to compare."
    ranked = sorted(wins.items(), key=lambda item: (-item[1], item[0]))
    return (
        f"{kind} {BEST_OF[metric]}: "
        + ", ".join(f"{arm} in {count} of {counted} conditions" for arm, count in ranked)
        + "."
    )


def _limits(sound: Sequence[Row]) -> list[str]:
    told = [row for row in sound if row["phase_error_over_limit"] is not None]
    lines = []
    for (arm,), part in grouped(told, ("arm",)).items():
        low, high = _extremes(part, "phase_error_over_limit")
        lines.append(
            f"Phase error of {arm}: {low['phase_error_over_limit']:.2f} ({_where(low)}) to "
            f"{high['phase_error_over_limit']:.2f} ({_where(high)}) times the photon limit."
        )
    below = [row for row in told if row["phase_error_over_limit"] < 1]
    if below:
        counts = ", ".join(
            f"{arm} in {sum(row in below for row in part)} of {len(part)} conditions"
            for (arm,), part in grouped(told, ("arm",)).items()
        )
        lines.append(f"Below the photon limit of unbiased estimates, and so biased: {counts}.")
    return lines


def _dose_effects(sound: Sequence[Row]) -> list[str]:
    """Return, per arm, by how much the phase error falls with dose, and the limit beside it."""
    lines = []
    told = [row for row in sound if row["photon_limit_phase_rad"] is not None]
    for (arm,), rows in grouped(told, ("arm",)).items():
        by_span: dict[tuple[float, float], list[str]] = {}
        for (view,), part in grouped(rows, ("view",)).items():
            low, high = _extremes(part, "dose")
            if low is high:
                continue
            error = math.sqrt(low["phase_mse_rad2"] / high["phase_mse_rad2"])
            limit = low["photon_limit_phase_rad"] / high["photon_limit_phase_rad"]
            text = f"{error:.2f} (limit {limit:.2f}) in {view}"
            by_span.setdefault((low["dose"], high["dose"]), []).append(text)
        lines += [
            f"From {low:g} to {high:g} photons per pattern the phase error of {arm} is divided by "
            f"{', '.join(texts)}."
            for (low, high), texts in by_span.items()
        ]
    return lines


def _overlap_effects(sound: Sequence[Row]) -> list[str]:
    lines = []
    for (arm,), part in grouped(sound, ("arm",)).items():
        changes = []
        for (dose,), views in grouped(part, ("dose",)).items():
            low, high = _extremes(views, "overlap")
            if low is not high:
                change = high["phase_ms_ssim"] - low["phase_ms_ssim"]
                changes.append((f"{change:+.3f} at {dose:g}", low, high))
        if changes:
            _, low, high = changes[0]
            lines.append(
                f"From {low['view']} (overlap {low['overlap']:.2f}, {low['patterns']:g} patterns) "
                f"to {high['view']} ({high['overlap']:.2f}, {high['patterns']:g}), phase MS-SSIM "
                f"of {arm}: {', '.join(text for text, *_ in changes)} photons."
            )
    return lines


def _costs(sound: Sequence[Row]) -> list[str]:
    by_arm = grouped(sound, ("arm",))
    lines = [
        "Median processor seconds for the patterns of one split: "
        + ", ".join(
            f"{arm} {median(row['cpu_s'] for row in part):.3g}" for (arm,), part in by_arm.items()
        )
        + "."
    ]
    others = {(row["dose"], row["view"], row["arm"]): row for row in sound}
    for (arm,), part in by_arm.items():
        if not any(row["training_cpu_s"] for row in part):
            continue
        training = median(row["training_cpu_s"] for row in part)
        text = f"Training of {arm}: median {training:.3g} processor seconds, not counted above"
        untrained = [
            other
            for (other,), rows in by_arm.items()
            if not any(row["training_cpu_s"] for row in rows)
        ]
        for other in untrained:
            counts = [
                training_repaid_after(row, others[row["dose"], row["view"], other])
                for row in part
                if (row["dose"], row["view"], other) in others
            ]
            if counts:
                text += f"; {_repaid(counts, other)}"
        lines.append(text + ".")
    return lines


def _repaid(counts: Sequence[int | None], other: str) -> str:
    never = counts.count(None)
    found = sorted(count for count in counts if count is not None)
    if not found:
        return f"never repaid against {other}"
    span = f"{found[0]}" if found[0] == found[-1] else f"{found[0]} to {found[-1]}"
    tail = f", never in {never} of {len(counts)} conditions" if never else ""
    return f"repaid against {other} after {span} scans of that size{tail}"


def _decided(deltas: Sequence[Row]) -> list[str]:
    """Return, per arm, in how many conditions the interval of its difference excludes zero."""
    lines = []
    sound = [row for row in deltas if row["registration"] == "ok"]
    repeated = [row for row in sound if row["phase_ms_ssim_delta_low"] is not None]
    for (arm, reference), part in grouped(repeated, ("arm", "reference")).items():
        above = sum(row["phase_ms_ssim_delta_low"] > 0 for row in part)
        below = sum(row["phase_ms_ssim_delta_high"] < 0 for row in part)
        lines.append(
            f"Phase MS-SSIM of {arm} against {reference}, paired over replicates: the bootstrap "
            f"interval of the difference lies above zero in {above}, below zero in {below} and "
            f"around it in {len(part) - above - below} of {len(part)} conditions."
        )
    return lines


def _extremes(rows: Sequence[Row], name: str) -> tuple[Row, Row]:
    return min(rows, key=lambda row: row[name]), max(rows, key=lambda row: row[name])


def _where(row: Row) -> str:
    return f"{row['dose']:g}, {row['view']}"


def _place(row: Row) -> str:
    return f"{row['arm']} at {_where(row)}"
