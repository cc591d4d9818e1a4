"""What the study table says, in sentences that hold nothing but its numbers."""

import math
from collections import Counter
from collections.abc import Sequence
from statistics import median

from study_lib.arm_names import label_of, plain_label
from study_lib.scores.featureless import FEATURELESS
from study_lib.scores.metrics import METRICS, said_of
from study_lib.scores.study_table import (
    Row,
    grouped,
    held_against_in,
    is_measured,
    is_score,
    unit_of,
)

BEST_OF = {
    "phase_ms_ssim": "phase MS-SSIM",
    "phase_ssim": "phase SSIM",
    "phase_error_over_wiener": "phase error over the Wiener reference",
    "phase_error_over_limit": "phase error over the photon limit",
}

# An arm below the second is biased; few photons bring every arm below it.
TIMES = {
    "phase_error_over_wiener": "the Wiener reference",
    "phase_error_over_limit": "the photon limit",
}

BEST_OF_MEASURED = {"measured_excess_nats": "excess of held-out measured counts"}


def findings(table: Sequence[Row], deltas: Sequence[Row]) -> list[str]:
    """Return sentences on one split of a study.

    Featureless rows, rows whose registration is in doubt, and arms that held-out counts refused,
    are named and count in none of the others. Views that hold the same patterns count once.

    Parameters
    ----------
    table
        From :func:`study_table`, one split.
    deltas
        From :func:`phase_deltas`, the same split.
    """
    once = [row for row in table if not row.get("same_patterns_as")]
    counted = [row for row in once if is_score(row)]
    lines = [_extent(table), *_same(table), *_refused(once), *_not_counted(once)]
    if counted:
        of_measured = BEST_OF_MEASURED if is_measured(counted) else {}
        lines += [
            _best(counted, metric, words)
            for metric, words in (BEST_OF | of_measured).items()
            if all(metric in row for row in counted)  # runs of before lack the newer ones
        ]
        lines += _limits(counted)
        lines += _dose_effects(counted)
        lines += _overlap_effects(counted)
        lines += _costs(counted)
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
    arms = sorted({plain_label(row["label"]) for row in table}, key=str.casefold)
    plural = "" if conditions == 1 else "s"
    extent = f"{conditions} condition{plural} of dose and view, arms {', '.join(arms)}"
    if replicates == [1]:
        return (
            f"{extent}; one replicate, so no spread and no interval can be given, and whether a "
            "difference would come again is not known."
        )
    counts = " or ".join(map(str, replicates))
    own = "share of the photons" if is_measured(table) else "noise"
    return (
        f"{extent}; {counts} replicates, each with its own {own}, choice of patterns and training."
    )


def _same(table: Sequence[Row]) -> list[str]:
    """Return which views hold the patterns of another one."""
    conditions = grouped(table, ("dose", "view"))
    twice = [part[0] for part in conditions.values() if part[0].get("same_patterns_as")]
    if not twice:
        return []
    places = "; ".join(f"{_where(row)} holds those of {row['same_patterns_as']}" for row in twice)
    return [
        f"Views with the same patterns count once below: {places}. That leaves "
        f"{_of(len(conditions) - len(twice), len(conditions))}; of an arm that groups patterns, "
        "only the row of the view named second counts."
    ]


def _refused(rows: Sequence[Row]) -> list[str]:
    """Return, per arm that held-out counts refused somewhere, where, what it is there, and why."""
    lines = []
    for part in grouped(rows, ("arm",)).values():
        refused = [row for row in part if row.get("fallback")]
        if not refused:
            continue
        by_fallback = grouped(refused, ("fallback",))
        places = ", ".join(
            f"{fallback} ({'; '.join(map(_where, some))})"
            for (fallback,), some in by_fallback.items()
        )
        ahead = sum(_is_ahead(row, rows) for row in refused)
        if ahead:
            places += f"; in {ahead} of these its phase MS-SSIM is above that of every arm counted"
        reasons = "; ".join(dict.fromkeys(row["fallback_reason"] for row in refused))
        seconds = [row.get("refused_training_cpu_s") for row in refused]
        spent = [one for one in seconds if one is not None]
        cost = (
            f" What was refused took {_seconds(spent)} processor seconds of training (median), "
            "charged to no arm."
            if spent
            else ""
        )
        lines.append(
            f"{plain_label(part[0]['label'])} was refused in {_of(len(refused), len(part))}, whose "
            f"rows do not count below, as they hold its fall-back: {places}. Why: {reasons}.{cost}"
        )
    return lines


def _is_ahead(fallback: Row, rows: Sequence[Row]) -> bool:
    """Return whether a fall-back scores above every arm that counts in its condition."""
    place = (fallback["dose"], fallback["view"])
    scores = [
        row["phase_ms_ssim"]
        for row in rows
        if (row["dose"], row["view"]) == place and is_score(row)
    ]
    is_sound = fallback["registration"] == "ok"
    return is_sound and bool(scores) and bool(fallback["phase_ms_ssim"] > max(scores))


def _not_counted(rows: Sequence[Row]) -> list[str]:
    """Return which rows are no scores, by the reason."""
    empty = [row for row in rows if row["registration"].startswith(FEATURELESS)]
    doubtful = [row for row in rows if row["registration"] != "ok" and row not in empty]
    reasons = {
        "no nearer to the truth than an empty object": empty,
        "registration in doubt": doubtful,
    }
    return [
        f"Not counted below, {said_of(held_against_in(rows), reason)}: "
        f"{'; '.join(map(_place, part))}."
        for reason, part in reasons.items()
        if part
    ]


def _best(counted: Sequence[Row], metric: str, words: str) -> str:
    lower = METRICS[metric].better == "lower"
    wins: Counter[str] = Counter()
    for part in grouped(counted, ("dose", "view")).values():
        scored = [row for row in part if row[metric] is not None]
        if len(scored) < 2:
            continue
        best = (min if lower else max)(row[metric] for row in scored)
        wins[" and ".join(row["label"] for row in scored if row[metric] == best)] += 1
    kind = "Lowest" if lower else "Highest"
    mean = "mean " if any(row["replicates"] > 1 for row in counted) else ""
    if not wins:
        return f"{kind} {words}: no condition has two arms to compare."
    ranked = sorted(wins.items(), key=lambda item: (-item[1], item[0]))
    places = ", ".join(f"{arm} in {_of(count, wins.total())}" for arm, count in ranked)
    return f"{kind} {mean}{words}: {places}."


def _limits(counted: Sequence[Row]) -> list[str]:
    limited = [row for row in counted if row["phase_error_over_limit"] is not None]
    by_arm = grouped(limited, ("label",))
    lines = []
    for (arm,), part in by_arm.items():
        spans = [
            f"{_span(part, name)} times {words}"
            for name, words in TIMES.items()
            if all(row.get(name) is not None for row in part)
        ]
        lines.append(f"Phase error of {arm}: {', '.join(spans)}.")
    repeated = all(row.get("phase_error_over_limit_high") is not None for row in limited)
    bound = "phase_error_over_limit_high" if repeated else "phase_error_over_limit"
    if any(row[bound] < 1 for row in limited):
        counts = ", ".join(
            f"{arm} in {_of(sum(row[bound] < 1 for row in part), len(part))}"
            for (arm,), part in by_arm.items()
        )
        kind = "with its whole 95 % interval, and so biased" if repeated else "in this replicate"
        lines.append(f"Below the photon limit of unbiased estimates {kind}: {counts}.")
    return lines


def _span(rows: Sequence[Row], name: str) -> str:
    """Return the least and the largest value of a column, and where they are."""
    low, high = _extremes(rows, name)
    lowest = f"{low[name]:.2f} ({_where(low)})"
    return lowest if low is high else f"{lowest} to {high[name]:.2f} ({_where(high)})"


def _dose_effects(counted: Sequence[Row]) -> list[str]:
    """Return, per arm, by how much the phase error falls with dose, and the limit beside it."""
    lines = []
    limited = [row for row in counted if row["photon_limit_phase_rad"] is not None]
    for (arm,), rows in grouped(limited, ("label",)).items():
        by_span: dict[tuple[float, float], list[str]] = {}
        for (view,), part in grouped(rows, ("view",)).items():
            low, high = _extremes(part, "dose")
            if low is high:
                continue
            error = math.sqrt(low["phase_mse_rad2"] / high["phase_mse_rad2"])
            limit = low["photon_limit_phase_rad"] / high["photon_limit_phase_rad"]
            text = f"{error:.2f} (the limit by {limit:.2f}) in {view}"
            by_span.setdefault((low["dose"], high["dose"]), []).append(text)
        lines += [
            f"From {low:g} to {high:g} {unit_of(counted)} the phase error of {arm} is divided by "
            f"{', '.join(texts)}."
            for (low, high), texts in by_span.items()
        ]
    return lines


def _overlap_effects(counted: Sequence[Row]) -> list[str]:
    """Return, per arm, how the score differs between its least and its most overlap.

    Views that were grouped alike are preferred; what else differs is named. Rows that do not say
    how they were grouped are left out.
    """
    lines = []
    for (arm,), part in grouped(counted, ("label",)).items():
        changes: dict[tuple[str, str, str], list[tuple[str, Row, Row]]] = {}
        for (dose,), all_views in grouped(part, ("dose",)).items():
            views = _grouped_alike([row for row in all_views if row.get("grouping") is not None])
            if len(views) < 2:
                continue
            low, high = _extremes(views, "overlap")
            if low is not high:
                change = high["phase_ms_ssim"] - low["phase_ms_ssim"]
                pair = (low["view"], high["view"], _else_changed(low, high))
                changes.setdefault(pair, []).append((f"{change:+.3f} at {dose:g}", low, high))
        for (_, _, others), found in changes.items():
            _, low, high = found[0]
            lines.append(
                f"From {low['view']} (overlap {low['overlap']:.2f}, {low['patterns']:g} patterns) "
                f"to {high['view']} ({high['overlap']:.2f}, {high['patterns']:g}), phase MS-SSIM "
                f"of {arm}: {', '.join(text for text, *_ in found)} {unit_of(counted)}{others}."
            )
    return lines


def _grouped_alike(views: Sequence[Row]) -> Sequence[Row]:
    """Return the largest set of views with one grouping; all, if each has its own."""
    sets = grouped(views, ("grouping",)).values()
    largest = max(sets, key=len, default=views)
    return largest if len(largest) > 1 else views


def _else_changed(low: Row, high: Row) -> str:
    """Return what differs between two views beside overlap and the number of patterns."""
    changed = [
        f"{what} changes from {low[name]} to {high[name]}"
        for name, what in {
            "grouping": "the grouping",
            "chosen_by": "the choice of patterns",
        }.items()
        if low.get(name) and high.get(name) and low[name] != high[name]
    ]
    return f"; beside the overlap, {' and '.join(changed)}" if changed else ""


def _costs(counted: Sequence[Row]) -> list[str]:
    by_arm = grouped(counted, ("label",))
    conditions = grouped(counted, ("dose", "view")).values()
    shared = [row for part in conditions if len(part) == len(by_arm) for row in part]
    lines = []
    if shared:
        by_shared = grouped(shared, ("label",))
        seconds = ", ".join(
            f"{arm} {_seconds([row['cpu_s'] for row in part])}"
            for (arm,), part in by_shared.items()
        )
        count = len(shared) // len(by_arm)
        plural = "" if count == 1 else "s"
        lines.append(
            f"Median processor seconds for the patterns of one split, over the {count} "
            f"condition{plural} in which each of these arms has a score: {seconds}."
        )
    learned = {arm for (arm,), part in by_arm.items() if any(row["training_cpu_s"] for row in part)}
    others = {(row["dose"], row["view"], row["label"]): row for row in counted}
    for (arm,), part in by_arm.items():
        if arm not in learned:
            continue
        training = _seconds([row["training_cpu_s"] for row in part])
        text = f"Training of {arm}: median {training} processor seconds, not counted above."
        repaid = []
        for other in (name for (name,) in by_arm if name not in learned):
            if label_of(other, denoised=True) == arm:
                continue  # it adds to what the other costs
            counts = [
                training_repaid_after(row, others[row["dose"], row["view"], other])
                for row in part
                if (row["dose"], row["view"], other) in others
            ]
            if counts:
                repaid.append(_repaid(counts, other))
        if repaid:
            text += f" Training included, it costs {'; '.join(repaid)}."
        lines.append(text)
    return lines


def _repaid(counts: Sequence[int | None], other: str) -> str:
    """Return after how many scans an arm has cost no more than another, over its conditions."""
    never = counts.count(None)
    found = sorted(count for count in counts if count is not None)
    if not found:
        return f"more than {other} after any number of scans"
    span = f"{found[0]}" if found[0] == found[-1] else f"{found[0]} to {found[-1]}"
    scans = "scan" if found[-1] == 1 else "scans"
    tail = f" (more after any number in {_of(never, len(counts))})" if never else ""
    return f"no more than {other} after {span} {scans} of that size{tail}"


def _seconds(values: Sequence[float]) -> str:
    """Return the median of processor seconds, with the two digits that repeat from run to run."""
    middle = median(values)
    digits = 1 - math.floor(math.log10(middle)) if middle > 0 else 0
    return f"{round(middle, digits):.{max(digits, 0)}f}"


def _decided(deltas: Sequence[Row]) -> list[str]:
    """Return, per arm, in how many conditions the interval of its difference excludes zero."""
    lines = []
    sound = [row for row in deltas if is_score(row) and not row.get("same_patterns_as")]
    repeated = [row for row in sound if row["phase_ms_ssim_delta_low"] is not None]
    for (arm, reference), part in grouped(repeated, ("arm", "reference")).items():
        above = sum(row["phase_ms_ssim_delta_low"] > 0 for row in part)
        below = sum(row["phase_ms_ssim_delta_high"] < 0 for row in part)
        lines.append(
            f"Phase MS-SSIM of {arm} against {reference}, paired over replicates: the 95 % interval"
            f" of the mean difference lies above zero in {above}, below zero in {below} and around "
            f"it in {_of(len(part) - above - below, len(part))}."
        )
    return lines


def _extremes(rows: Sequence[Row], name: str) -> tuple[Row, Row]:
    return min(rows, key=lambda row: row[name]), max(rows, key=lambda row: row[name])


def _of(count: int, total: int) -> str:
    return f"{count} of {total} condition{'' if total == 1 else 's'}"


def _where(row: Row) -> str:
    return f"{row['dose']:g}, {row['view']}"


def _place(row: Row) -> str:
    return f"{row['label']} at {_where(row)}"
