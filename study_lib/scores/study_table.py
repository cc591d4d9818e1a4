"""The study table: rows over replicates, what they say, and the summary as text."""

import math
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from statistics import median
from typing import Any

import numpy as np
from scipy.stats import bootstrap

from study_lib.arm_names import key_of
from study_lib.scores.metrics import METRICS

# --- Means over the replicates, with their spread

CONFIDENCE = 0.95
RESAMPLINGS = 4999
BOOTSTRAP_SEED = 0  # of the resamplings alone; no result of the study
VIEW_ORDER = ("baseline", "dense", "sparse")
CONDITION = ("split", "dose", "view")
REFERENCE = key_of("LSQML")
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
    reference = REFERENCE if REFERENCE in arms else arms[0]
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


# --- What the table says, in sentences that hold nothing but its numbers

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
        From :func:`study_table`, one split.
    deltas
        From :func:`phase_deltas`, the same split.
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
    arms = sorted({row["label"] for row in table}, key=str.casefold)
    plural = "" if conditions == 1 else "s"
    extent = f"{conditions} condition{plural} of dose and view, arms {', '.join(arms)}"
    if replicates == [1]:
        return f"{extent}; one replicate, so no spread and no interval can be given."
    counts = " or ".join(map(str, replicates))
    return (
        f"{extent}; {counts} replicates, each with its own noise, choice of patterns and training."
    )


def _best(sound: Sequence[Row], metric: str) -> str:
    lower = METRICS[metric].better == "lower"
    wins: Counter[str] = Counter()
    for part in grouped(sound, ("dose", "view")).values():
        scored = [row for row in part if row[metric] is not None]
        if len(scored) < 2:
            continue
        best = (min if lower else max)(scored, key=lambda row: row[metric])
        wins[best["label"]] += 1
    kind = "Lowest" if lower else "Highest"
    if not wins:
        return f"{kind} {BEST_OF[metric]}: no condition has two arms to compare."
    ranked = sorted(wins.items(), key=lambda item: (-item[1], item[0]))
    places = ", ".join(f"{arm} in {count} of {wins.total()} conditions" for arm, count in ranked)
    return f"{kind} {BEST_OF[metric]}: {places}."


def _limits(sound: Sequence[Row]) -> list[str]:
    limited = [row for row in sound if row["phase_error_over_limit"] is not None]
    by_arm = grouped(limited, ("label",))
    lines = []
    for (arm,), part in by_arm.items():
        low, high = _extremes(part, "phase_error_over_limit")
        lines.append(
            f"Phase error of {arm}: {low['phase_error_over_limit']:.2f} ({_where(low)}) to "
            f"{high['phase_error_over_limit']:.2f} ({_where(high)}) times the photon limit."
        )
    if any(row["phase_error_over_limit"] < 1 for row in limited):
        counts = ", ".join(
            f"{arm} in {sum(row['phase_error_over_limit'] < 1 for row in part)} of {len(part)} "
            "conditions"
            for (arm,), part in by_arm.items()
        )
        lines.append(f"Below the photon limit of unbiased estimates, and so biased: {counts}.")
    return lines


def _dose_effects(sound: Sequence[Row]) -> list[str]:
    """Return, per arm, by how much the phase error falls with dose, and the limit beside it."""
    lines = []
    limited = [row for row in sound if row["photon_limit_phase_rad"] is not None]
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


def _overlap_effects(sound: Sequence[Row]) -> list[str]:
    lines = []
    for (arm,), part in grouped(sound, ("label",)).items():
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
    by_arm = grouped(sound, ("label",))
    seconds = ", ".join(
        f"{arm} {median(row['cpu_s'] for row in part):.3g}" for (arm,), part in by_arm.items()
    )
    lines = [f"Median processor seconds for the patterns of one split: {seconds}."]
    learned = {arm for (arm,), part in by_arm.items() if any(row["training_cpu_s"] for row in part)}
    others = {(row["dose"], row["view"], row["label"]): row for row in sound}
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
NOTES = (
    "Overlap is the mean disc overlap of a pattern with its nearest neighbours (metric 2), as "
    "measured on the patterns used; the target is what was asked for. A scan sparser than its "
    "target keeps every pattern. Times are processor seconds; training is not part of CPU [s]. "
    "All arms of a row group (photons, view) used the same patterns, probe and mask.",
    "Phase error / photon limit is the root mean square phase error over the Cramer-Rao bound of "
    "the same pixels, from this view's photons. The dose is held fixed per pattern, so a denser "
    "view has more photons on each pixel and a lower bound. Below 1 is no mistake: the bound is "
    "that of unbiased estimates, and an arm that smooths, or shrinks what the counts do not "
    "determine, is biased. The Wiener line is such a reference: the least mean square error of a "
    "linear estimate that knows the mean spectrum of the true phase.",
    "Fresh-count excess is how much less likely a second draw of counts at the same positions is "
    "under the reconstruction than under the truth, per pattern; 0 is the truth.",
    "PtychoPINN was trained on the train split of the same view; it sees one pattern at a time in "
    "the baseline, groups of four in the other views. Featureless: the result is no nearer to the "
    "truth than an empty object. Registration uncertain: the shift against "
    "the truth could not be determined, so that row is no score. A dash in an FRC column: the "
    "curve never falls below the threshold in at least one replicate, so no crossing is stated.",
    "A number with a plus-minus sign is the mean and the sample standard deviation over "
    "replicates; `study_table.csv` has the 95 % percentile bootstrap intervals of the means too. "
    "Of few replicates these are narrower than they should be.",
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
    return _table(COLUMNS.values(), ([cell_text(row, key) for key in COLUMNS] for row in rows))


def delta_table(rows: Sequence[Row]) -> str:
    """Return signed differences in phase MS-SSIM (3 decimals) and phase MAE (6 decimals)."""
    titles = ["photons", "view", "arm", "phase MS-SSIM", "phase MAE [rad]", "registration"]
    cells = (
        [
            *(f"{row['dose']:g}", row["view"], row["arm"]),
            *(_signed(row, "phase_ms_ssim_delta", 3), _signed(row, "phase_mae_rad_delta", 6)),
            row["registration"],
        ]
        for row in rows
    )
    return _table(titles, cells)


def _table(titles: Iterable[str], cells: Iterable[Sequence[str]]) -> str:
    head = list(titles)
    lines = [head, ["---"] * len(head), *cells]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


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
    return f"{row[name]:+.{digits}f}{tail}"


def cell_text(row: Row, key: str) -> str:
    """Return one field of the study table, with its spread if it has one."""
    value, spread = row[key], row.get(f"{key}_std")
    if value is None:
        return "-"
    if isinstance(value, float):
        text = f"{value:.3g}" if abs(value) < 1000 else f"{value:.0f}"
        return text if spread is None else f"{text} ± {spread:.2g}"
    return str(value)
