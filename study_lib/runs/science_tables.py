"""The tables of the test bed: text for people, rows and gains for programs."""

import math
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

from study_lib.design.test_bed import SPECIMENS
from study_lib.errors import InputError
from study_lib.files import atomic_path, write_csv, write_json
from study_lib.runs.results import RESULT_TYPES, write_rows
from study_lib.runs.science import ROWS, TITLES, Science
from study_lib.scores.paired import PAIRED_METRICS
from study_lib.scores.study_table import grouped


def table_lines(science: Science) -> list[str]:
    """Return the means of every arm as lines of Markdown: one table a specimen and condition."""
    lines = []
    for (specimen, dose, view), part in grouped(
        science.means(), ("specimen", "dose", "view")
    ).items():
        kept = "kept back" if SPECIMENS.get(specimen) and SPECIMENS[specimen].kept_back else ""
        lines += [
            "",
            f"### {specimen}{f' ({kept})' if kept else ''}, {dose:g} photons, {view}",
            "",
            "| arm | phase error / Wiener | phase PSNR [dB] | phase SSIM, centred | phase SSIM "
            "| no score | refused | CPU [s] | training CPU [s] | learned parameters |",
            "|---|---|---|---|---|---|---|---|---|---|",
        ]
        for line in part:
            cells = [_mean_text(line, metric) for metric in TITLES]
            counts = [f"{line[name]} of {line['seeds']}" for name in ("no_score", "refused")]
            costs = [
                "" if line[name] is None else f"{line[name]:.1f}"
                for name in ("cpu_s", "training_cpu_s")
            ]
            costs.append(f"{line['learned_parameters']:,}")
            lines.append("| " + " | ".join([line["label"], *cells, *counts, *costs]) + " |")
    return lines


def gain_lines(science: Science, metric: str) -> list[str]:
    """Return the paired gains in one number as a table of Markdown."""
    title, unit, decimals = TITLES[metric]
    title = f"{title} [{unit.strip()}]" if unit else title
    lines = [
        "",
        f"### {science.labels[science.arm]} over each arm: {title}",
        "",
        "| opponent | specimen | photons | view | pairs | no score: arm, opponent | refused | gain "
        "| 95 % | at Holm's level | beyond chance |",
        "|---|---|---|---|---|---|---|---|---|---|---|",
    ]
    for one in (gain for gain in science.gains if gain.metric == metric):
        beyond = {None: "", True: "yes", False: "undecided"}[one.is_beyond_chance]
        cells = [
            science.labels[one.opponent],
            one.specimen,
            f"{one.dose:g}",
            one.view,
            f"{len(one.values)}",
            f"{one.arm_failed}, {one.opponent_failed}",
            f"{one.refused}",
            "" if one.gain is None else f"{one.gain:+.{decimals}f}",
            _interval(one.low, one.high, decimals),
            _interval(one.corrected_low, one.corrected_high, decimals),
            beyond,
        ]
        lines.append("| " + " | ".join(cells) + " |")
    return lines


def _interval(low: float | None, high: float | None, decimals: int) -> str:
    if low is None or high is None:
        return ""
    return f"{low:+.{decimals}f} to {high:+.{decimals}f}"


def _mean_text(line: Mapping[str, Any], metric: str) -> str:
    decimals, mean, spread = TITLES[metric][2], line[metric], line[f"{metric}_std"]
    if mean is None:
        return "no score"
    text = f"{mean:.{decimals}f}"
    return text if spread is None or math.isnan(spread) else f"{text} ± {spread:.{decimals}f}"


def write_science(science: Science, folder: Path) -> list[Path]:
    """Write the rows, the gains and all tables; return the files.

    ``rows.parquet`` and ``gains.csv`` are for programs, ``science.json`` has means, gains and with
    what each run was made, ``science.md`` is for people. ``read_science`` takes the folder as an
    earlier one.

    Raises
    ------
    InputError
        If rows are of a run without records.
    """
    undated = [row["run"] for row in science.rows if row["date"] is None]
    if undated:
        raise InputError(f"{undated[0]}: no record of a comparison; finish it with `study resume`")
    folder.mkdir(parents=True, exist_ok=True)
    gains = [asdict(one) for one in science.gains]
    content = {
        "arm": science.arm,
        "split": science.split,
        "runs": science.runs(),
        "means": science.means(),
        "gains": gains,
    }
    write_json(folder / "science.json", content)
    write_rows(folder / ROWS, science.rows, RESULT_TYPES)
    flat = [one | {"values": " ".join(f"{value:.6g}" for value in one["values"])} for one in gains]
    write_csv(folder / "gains.csv", flat)
    lines = [f"# {science.labels[science.arm]} and its opponents, {science.split} split", ""]
    lines += [f"- {sentence}" for metric in TITLES for sentence in science.sentences(metric)]
    lines += ["", "Made by:", "", *(f"- {line}" for line in science.origin_lines())]
    lines += table_lines(science)
    for metric in PAIRED_METRICS:
        lines += gain_lines(science, metric)
    with atomic_path(folder / "science.md") as temporary:
        temporary.write_text("\n".join(lines) + "\n", encoding="utf-8")
    return [folder / name for name in ("science.md", "science.json", ROWS, "gains.csv")]
