"""The study table: rows over replicates, what they say, and the summary as text."""

import math
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cache
from statistics import median
from typing import Any

from scipy.special import stdtrit

from study_lib.arm_names import IS, key_of, plain_label
from study_lib.scores.metrics import METRICS

# --- Means over the replicates, with their spread

CONFIDENCE = 0.95
VIEW_ORDER = ("baseline", "dense", "sparse")
CONDITION = ("split", "dose", "view")
REFERENCE = key_of("LSQML")
SPREADS = ("std", "low", "high")
# Columns that say how the replicates of a row were made; rows of finished runs may lack them.
TEXTS = ("fallback", "fallback_reason", "grouping", "chosen_by", "patterns_sha256")

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
    same = _same_patterns(rows)
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
        row["same_patterns_as"] = same.get(tuple(row[name] for name in CONDITION), "")
        for name in dict.fromkeys(name for one in part for name in one):
            if name in row or name in TEXTS or name == "replicate":
                continue
            refused = name == "refused_training_cpu_s" and row["fallback"]
            values = [one.get(name) for one in part if one.get("fallback") or not refused]
            row[name] = mean_of(values)
            if name in METRICS:
                row |= spread_of(name, values)
        table.append(row)
    return table


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


def _same_patterns(rows: Sequence[Row]) -> dict[tuple[Any, ...], str]:
    """Return, of each condition whose patterns an earlier view holds in every replicate, that view.

    Rows without a hash are told apart by the number of patterns, their light and their overlap.
    """
    earlier: dict[tuple[Any, ...], str] = {}
    found = {}
    for condition, part in grouped(rows, CONDITION).items():
        split, dose, view = condition
        held = frozenset((row["replicate"], _patterns_of(row)) for row in part)
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


def phase_deltas(rows: Sequence[Row]) -> list[dict[str, Any]]:
    """Return how much each arm's phase differs from the reference arm's, condition by condition.

    The reference is LSQML, or the first arm if that is missing. Replicates are compared pairwise:
    the differences have a mean and a spread of their own, and a positive one is an arm above the
    reference. ``fallback`` and ``same_patterns_as`` are as in :func:`study_table`.
    """
    arms = sorted({row["arm"] for row in rows})
    reference = REFERENCE if REFERENCE in arms else arms[0]
    same = _same_patterns(rows)
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

    They are not if its place against the truth is in doubt, or if the arm is its own fall-back.
    """
    return row["registration"] == "ok" and not row.get("fallback")


# --- What the table says, in sentences that hold nothing but its numbers

BEST_OF = {
    "phase_ms_ssim": "phase MS-SSIM",
    "phase_ssim": "phase SSIM",
    "phase_error_over_limit": "phase error over the photon limit",
}


def findings(table: Sequence[Row], deltas: Sequence[Row]) -> list[str]:
    """Return sentences on one split of a study.

    Rows whose registration is in doubt, and arms that held-out counts refused, are named and count
    in none of the others. Views that hold the same patterns count once.

    Parameters
    ----------
    table
        From :func:`study_table`, one split.
    deltas
        From :func:`phase_deltas`, the same split.
    """
    once = [row for row in table if not row.get("same_patterns_as")]
    counted = [row for row in once if is_score(row)]
    doubtful = [row for row in once if row["registration"] != "ok"]
    lines = [_extent(table), *_same(table), *_refused(once)]
    if doubtful:
        lines.append(
            f"Not counted below, registration in doubt: {'; '.join(map(_place, doubtful))}."
        )
    if counted:
        lines += [_best(counted, metric) for metric in BEST_OF]
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
    return (
        f"{extent}; {counts} replicates, each with its own noise, choice of patterns and training."
    )


def _same(table: Sequence[Row]) -> list[str]:
    """Return which views hold the patterns of another one."""
    conditions = grouped(table, ("dose", "view"))
    twice = [part[0] for part in conditions.values() if part[0].get("same_patterns_as")]
    if not twice:
        return []
    places = "; ".join(f"{_where(row)} those of {row['same_patterns_as']}" for row in twice)
    return [
        f"Same patterns in two views, counted once below: {places}. So {len(conditions)} conditions"
        f" are {len(conditions) - len(twice)}; of an arm that groups patterns, the row of the "
        "named view counts."
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
            f" What was refused took {median(spent):.3g} processor seconds of training (median), "
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


def _best(counted: Sequence[Row], metric: str) -> str:
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
        return f"{kind} {BEST_OF[metric]}: no condition has two arms to compare."
    ranked = sorted(wins.items(), key=lambda item: (-item[1], item[0]))
    places = ", ".join(f"{arm} in {_of(count, wins.total())}" for arm, count in ranked)
    return f"{kind} {mean}{BEST_OF[metric]}: {places}."


def _limits(counted: Sequence[Row]) -> list[str]:
    limited = [row for row in counted if row["phase_error_over_limit"] is not None]
    by_arm = grouped(limited, ("label",))
    lines = []
    for (arm,), part in by_arm.items():
        low, high = _extremes(part, "phase_error_over_limit")
        span = f"{low['phase_error_over_limit']:.2f} ({_where(low)})"
        if low is not high:
            span += f" to {high['phase_error_over_limit']:.2f} ({_where(high)})"
        lines.append(f"Phase error of {arm}: {span} times the photon limit.")
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
            text = f"{error:.2f} (limit {limit:.2f}) in {view}"
            by_span.setdefault((low["dose"], high["dose"]), []).append(text)
        lines += [
            f"From {low:g} to {high:g} photons per pattern the phase error of {arm} is divided by "
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
                f"of {arm}: {', '.join(text for text, *_ in found)} photons per pattern{others}."
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
        f"{what} from {low[name]} to {high[name]}"
        for name, what in {
            "grouping": "the grouping",
            "chosen_by": "the choice of patterns",
        }.items()
        if low.get(name) and high.get(name) and low[name] != high[name]
    ]
    return f"; what changes too: {' and '.join(changed)}" if changed else ""


def _costs(counted: Sequence[Row]) -> list[str]:
    by_arm = grouped(counted, ("label",))
    conditions = grouped(counted, ("dose", "view")).values()
    shared = [row for part in conditions if len(part) == len(by_arm) for row in part]
    lines = []
    if shared:
        by_shared = grouped(shared, ("label",))
        seconds = ", ".join(
            f"{arm} {median(row['cpu_s'] for row in part):.3g}"
            for (arm,), part in by_shared.items()
        )
        count = len(shared) // len(by_arm)
        plural = "" if count == 1 else "s"
        lines.append(
            f"Median processor seconds for the patterns of one split, in the {count} "
            f"condition{plural} where all of these count: {seconds}."
        )
    learned = {arm for (arm,), part in by_arm.items() if any(row["training_cpu_s"] for row in part)}
    others = {(row["dose"], row["view"], row["label"]): row for row in counted}
    for (arm,), part in by_arm.items():
        if arm not in learned:
            continue
        training = median(row["training_cpu_s"] for row in part)
        text = f"Training of {arm}: median {training:.3g} processor seconds, not counted above"
        for other in (name for (name,) in by_arm if name not in learned):
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
    tail = f", never in {_of(never, len(counts))}" if never else ""
    scans = "scan" if found[-1] == 1 else "scans"
    return f"repaid against {other} after {span} {scans} of that size{tail}"


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


# --- The summary as Markdown

COLUMNS = {
    "dose": "photons",
    "view": "view",
    "overlap": "overlap",
    "overlap_target": "target",
    "label": "arm",
    "patterns": "patterns",
    "phase_ms_ssim": "phase MS-SSIM",
    "phase_ssim": "phase SSIM",
    "phase_psnr_db": "phase PSNR [dB]",
    "phase_mae_rad": "phase MAE [rad]",
    "phase_error_over_limit": "phase error / photon limit",
    "amplitude_ssim": "amplitude SSIM",
    "frc_crossing": "FRC crossing / Nyquist",
    "frc_half_bit_crossing": "FRC half-bit / Nyquist",
    "held_out_excess_nats": "fresh-count excess [nats]",
    "registration": "registration",
    "cpu_s": "CPU [s]",
    "training_cpu_s": "training CPU [s]",
}
NUMBERS = tuple(name for name in COLUMNS if name not in {"view", "label", "registration"})
MARKED = tuple(name for name in NUMBERS if name in METRICS and name != "training_cpu_s")
COSTS = ("cpu_s", "training_cpu_s")
# After the point; more where smaller numbers of the same column need them.
DECIMALS = {
    "patterns": 1,
    "phase_psnr_db": 2,
    "phase_mae_rad": 4,
    "phase_error_over_limit": 3,
    "held_out_excess_nats": 1,
    "cpu_s": 2,
    "training_cpu_s": 1,
    "photons_measured": 1,
    "phase_mse_rad2": 6,
    "amplitude_mse": 6,
    "amplitude_mae": 4,
}
USUAL_DECIMALS, MORE_DECIMALS = 3, 2
NOTES = (
    "Bold is the best of its group (photons, view). A number in brackets is no score: the place of "
    "that object against the truth could not be determined. An arm = something else was refused by "
    "held-out counts of the train split and is what stands behind the sign; it is never the best, "
    "and what its training took is charged to no arm (`refused_training_cpu_s` in the files).",
    "Overlap is the mean disc overlap of a pattern with its nearest neighbours (metric 2), as "
    "measured on the patterns used; the target is what was asked for. A scan sparser than its "
    "target keeps every pattern. Times are processor seconds; training is not part of CPU [s]. "
    "All arms of a row group (photons, view) used the same patterns, probe and mask. From view to "
    "view the number of patterns changes with the overlap, and so do the photons on the object; "
    "what an arm learns it learns from the train split of the same view.",
    "Phase error / photon limit is the root mean square phase error over the Cramer-Rao bound of "
    "the same pixels, from this view's photons. The dose is held fixed per pattern, so a denser "
    "view has more photons on each pixel and a lower bound. Below 1 is no mistake: the bound is "
    "that of unbiased estimates, and an arm that smooths, or shrinks what the counts do not "
    "determine, is biased. The Wiener line is such a reference: the least mean square error of a "
    "linear estimate that knows the mean spectrum of the true phase.",
    "Fresh-count excess is how much less likely a second draw of counts at the same positions is "
    "under the reconstruction than under the truth, per pattern; 0 is the truth.",
    "PtychoPINN was trained on the train split of the same view; it sees one pattern at a time, or "
    "groups of four, as `grouping` in `study_table.csv` says. A dash in an FRC column: the curve "
    "never falls below the threshold in at least one replicate, so no crossing is stated, and none "
    "of its group is marked.",
    "A number with a plus-minus sign is the mean and the sample standard deviation over "
    "replicates; `study_table.csv` has the 95 % intervals of the means too, by Student's t, which "
    "holds for few replicates whose results scatter normally. Of many intervals one in twenty "
    "misses.",
)


def markdown(summary: Mapping[str, Any], files: Sequence[Row]) -> str:
    """Return the text of ``summary.md`` from the content of ``summary.json`` and the inventory."""
    parts = ["# Summary", *filter(None, [origin_text(summary["origin"])])]
    for split, lines in summary["findings"].items():
        table = [row for row in summary["study_table"] if row["split"] == split]
        parts += [
            f"## {split.capitalize()} split",
            "\n".join(f"- {line}" for line in lines),
            markdown_table(table),
        ]
        deltas = [row for row in summary["highlights"] if row["split"] == split]
        if deltas:
            parts += [
                f"### Phase, difference to {deltas[0]['reference']}, {split} split",
                delta_table(deltas),
            ]
    if summary["missing"]:
        parts += ["## Missing", "\n".join(f"- missing: {line}" for line in summary["missing"])]
    parts += ["## How to read the tables", *NOTES, "## Figures"]
    parts += [f"![{name}]({paths[0]})" for name, paths in summary["figures"].items()]
    size = sum(row["bytes"] or 0 for row in files)
    parts += [
        "## Files",
        f"`inventory.csv` lists {len(files)} files, {size / 2**20:.1f} MiB, with hash and origin.",
    ]
    return "\n\n".join(parts) + "\n"


def markdown_table(rows: Sequence[Row]) -> str:
    """Return rows of the study table; a value that was not reached is a dash."""
    kinds = [name in NUMBERS for name in COLUMNS]
    return _table(COLUMNS.values(), kinds, (map(_marked, line.cells) for line in shown_table(rows)))


def delta_table(rows: Sequence[Row]) -> str:
    """Return signed differences in phase MS-SSIM (3 decimals) and phase MAE (6 decimals)."""
    titles = ["photons", "view", "arm", "phase MS-SSIM", "phase MAE [rad]", "registration"]
    cells = (
        [
            *(number_text(row["dose"]), row["view"], row["arm"]),
            *(_signed(row, "phase_ms_ssim_delta", 3), _signed(row, "phase_mae_rad_delta", 6)),
            row["registration"],
        ]
        for row in rows
    )
    return _table(titles, [True, False, False, True, True, False], cells)


def arms_table(rows: Sequence[Row]) -> str:
    """Return one comparison as Markdown: a column an arm, a row each of its facts.

    Parameters
    ----------
    rows
        Of one condition, from :func:`study_lib.phases.compare.compare`.
    """
    titles = ["", *(row["label"] for row in rows)]
    best = best_places(rows, [name for name in METRICS if name != "training_cpu_s"])
    lines = []
    for name in rows[0]:
        if name in {"arm", "label", "patterns_sha256"}:
            continue
        cells = (
            replace(cell, is_best=(index, name) in best)
            for index, cell in enumerate(_column(rows, name))
        )
        lines.append([f"`{name}`", *map(_marked, cells)])
    return _table(titles, [False] + [True] * len(rows), lines)


def _table(titles: Iterable[str], numeric: Sequence[bool], cells: Iterable[Iterable[str]]) -> str:
    lines = [list(titles), ["---:" if one else "---" for one in numeric], *map(list, cells)]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


@dataclass(frozen=True)
class Cell:
    """A field of a shown table: its text, and whether it is a number and the best of its group."""

    text: str
    is_number: bool = False
    is_best: bool = False


@dataclass(frozen=True)
class Line:
    """A row of a shown table; the first of a group, and what its numbers are worth."""

    cells: tuple[Cell, ...]
    begins_group: bool
    is_void: bool
    is_fallback: bool

    @property
    def kinds(self) -> str:
        """The names of what it is, as a style sheet knows them."""
        names = {
            "begins-group": self.begins_group,
            "no-score": self.is_void,
            "fallback": self.is_fallback,
        }
        return " ".join(name for name, holds in names.items() if holds)


def shown_table(rows: Sequence[Row]) -> list[Line]:
    """Return the study table for people: the text of each field of ``COLUMNS``, and its marks.

    All numbers of a column have the same decimals. Where the registration is in doubt scores stand
    in brackets. The best score of a group of photons and view is marked, among rows that are
    scores; none is where one of them has no number.
    """
    columns = {name: _column(rows, name) for name in COLUMNS}
    best = best_places(rows, MARKED)
    lines = []
    for index, row in enumerate(rows):
        before = rows[index - 1] if index else None
        cells = (
            replace(column[index], is_best=(index, name) in best)
            for name, column in columns.items()
        )
        lines.append(
            Line(
                tuple(cells),
                any(before is None or before[name] != row[name] for name in ("dose", "view")),
                row["registration"] != "ok",
                bool(row.get("fallback")),
            )
        )
    return lines


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


def _column(rows: Sequence[Row], name: str) -> list[Cell]:
    """Return one field of all rows; scores of a doubtful place in brackets."""
    decimals = decimals_of(rows, name)
    cells = []
    for row in rows:
        value = row.get(name)
        text = number_text(value, decimals, row.get(f"{name}_std"))
        is_score_column = name in METRICS and name not in COSTS
        if is_score_column and value is not None and row["registration"] != "ok":
            text = f"({text})"
        cells.append(Cell(text, is_number=name in NUMBERS))
    return cells


def decimals_of(rows: Sequence[Row], name: str) -> int:
    """Return how many decimals a column needs to show two digits of its least value."""
    values = [row.get(name) for row in rows]
    if not any(isinstance(value, float) and not value.is_integer() for value in values):
        return 0 if name not in METRICS else DECIMALS.get(name, USUAL_DECIMALS)
    usual = DECIMALS.get(name, USUAL_DECIMALS)
    needed = [1 - math.floor(math.log10(abs(value))) for value in values if value]
    return min(max(usual, *needed), usual + MORE_DECIMALS)


def number_text(value: Any, decimals: int = 0, spread: float | None = None) -> str:
    """Return a number as people read it, with its spread if it has one; a dash if there is none."""
    if value is None or value == "":
        return "-"
    if isinstance(value, str | bool):
        return str(value)
    text = f"{value:.{decimals}f}"
    if value and not float(text):
        text = f"< {10**-decimals:.{decimals}f}"
    return text if spread is None else f"{text} ± {spread:.{decimals}f}"


def _marked(cell: Cell) -> str:
    return f"**{cell.text}**" if cell.is_best else cell.text


def origin_text(origin: Mapping[str, Any]) -> str:
    """Return which run a summary is of; nothing if that is not known."""
    if not origin:
        return ""
    count = len(origin["replicates"])
    spread = (
        "one set of seeds, no spread over repetitions"
        if count == 1
        else "each with its own noise, choice of patterns and training"
    )
    numbers = ", ".join(map(str, origin["replicates"]))
    return (
        f"Preset {origin['preset']}, design {origin['design']}, object {origin['object']}, patches "
        f"of {origin['patch_size_px']} pixels, replicate{'s' if count > 1 else ''} {numbers}: "
        f"{spread}."
    )


def _signed(row: Row, name: str, digits: int) -> str:
    spread = row[f"{name}_std"]
    tail = "" if spread is None else f" ± {spread:.{digits}f}"
    text = f"{row[name]:+.{digits}f}{tail}"
    return text if row["registration"] == "ok" else f"({text})"
