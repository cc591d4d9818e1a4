"""A summary as Markdown."""

from collections.abc import Mapping, Sequence
from typing import Any

from study_lib.scores.study_table import Row

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
    "held_out_excess_nats": "held-out excess [nats]",
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
    "that of unbiased estimates, and whoever smooths, or shrinks what the counts do not tell, is "
    "biased. The Wiener line is such a reference: the least mean square error of a linear estimate "
    "that knows the mean spectrum of the true phase.",
    "Held-out excess is how much less likely a second draw of counts at the same positions is "
    "under the reconstruction than under the truth, per pattern; 0 is the truth.",
    "PtychoPINN was trained on the train split of the same view; gs1 sees one pattern at a time, "
    "gs2 groups of four. Registration uncertain: the shift against the truth could not be told, so "
    "that row is no score. A dash in an FRC column: the curve never falls below the threshold in "
    "at least one replicate, so no crossing is stated.",
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
    lines = ["| " + " | ".join(COLUMNS.values()) + " |", "|" + " --- |" * len(COLUMNS)]
    lines += ["| " + " | ".join(cell_text(row, key) for key in COLUMNS) + " |" for row in rows]
    return "\n".join(lines)


def delta_table(rows: Sequence[Row]) -> str:
    """Return signed differences in phase MS-SSIM (3 decimals) and phase MAE (6 decimals)."""
    lines = [
        "| photons | view | arm | phase MS-SSIM | phase MAE [rad] | registration |",
        "| --- | --- | --- | --- | --- | --- |",
    ]
    lines += [
        f"| {row['dose']:g} | {row['view']} | {row['arm']} "
        f"| {_signed(row, 'phase_ms_ssim_delta', 3)} | {_signed(row, 'phase_mae_rad_delta', 6)} "
        f"| {row['registration']} |"
        for row in rows
    ]
    return "\n".join(lines)


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
