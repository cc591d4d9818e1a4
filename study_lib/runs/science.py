"""The test bed as a whole: its runs, one a specimen, and what one arm gains over every other."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from study_lib.arm_names import plain_label
from study_lib.design.test_bed import SPECIMENS
from study_lib.errors import InputError
from study_lib.files import atomic_path, write_csv, write_json
from study_lib.runs.results import read_run
from study_lib.scores.paired import (
    OVER_SPECIMENS,
    PAIRED_METRICS,
    PairedGain,
    paired_gains,
)
from study_lib.scores.study_table import Row, grouped

SIDES = ("arm", "opponent")
TITLES = {
    "phase_error_over_wiener": ("phase error / Wiener", "", 2),
    "phase_psnr_db": ("phase PSNR", " dB", 2),
    "phase_ssim_centred": ("phase SSIM, centred", "", 3),
    "phase_ssim": ("phase SSIM", "", 3),
}


@dataclass(frozen=True)
class Science:
    """The rows of one split of several runs, and what ``arm`` gains over the other arms.

    ``rows`` are those of comparisons, each with its ``specimen``; ``runs`` are folders by specimen.
    """

    runs: Mapping[str, Path]
    rows: Sequence[Row]
    arm: str
    split: str

    @cached_property
    def opponents(self) -> list[str]:
        """The other arms that have a row."""
        return [arm for arm in dict.fromkeys(row["arm"] for row in self.rows) if arm != self.arm]

    @cached_property
    def labels(self) -> dict[str, str]:
        """The label of every arm by its key."""
        return {row["arm"]: plain_label(row["label"]) for row in self.rows}

    @cached_property
    def gains(self) -> list[PairedGain]:
        """Paired gains of the arm, by metric, opponent, specimen and condition."""
        return paired_gains(self.rows, self.arm, self.opponents)

    def means(self) -> list[dict[str, Any]]:
        """Return the mean and the spread of every arm's scores, per specimen and condition.

        Numbers are None where a seed has no score; ``no_score`` says how many have none.
        """
        names = ("specimen", "dose", "view", "arm")
        table = []
        for place, part in grouped(self.rows, names).items():
            sound = [row for row in part if row["registration"] == "ok"]
            line = dict(zip(names, place, strict=True)) | {
                "label": self.labels[place[-1]],
                "seeds": len(part),
                "no_score": len(part) - len(sound),
                "refused": sum(bool(row.get("fallback")) for row in part),
            }
            for metric in TITLES:
                values = [row[metric] for row in sound if row.get(metric) is not None]
                whole = len(values) == len(part)
                line[metric] = float(np.mean(values)) if whole else None
                line[f"{metric}_std"] = (
                    float(np.std(values, ddof=1)) if whole and len(values) > 1 else None
                )
            for name in ("cpu_s", "training_cpu_s"):
                known = [row[name] for row in part if row.get(name) is not None]
                line[name] = float(np.mean(known)) if known else None
            counts = [row.get("learned_parameters") or 0 for row in part]
            line["learned_parameters"] = max(counts)  # a network that was refused has none
            table.append(line)
        return table

    def sentences(self, metric: str = "phase_psnr_db") -> list[str]:
        """Return, per opponent, in how many conditions the arm is ahead or behind beyond chance.

        Beyond chance is by Holm's procedure over the conditions of a specimen, for these two arms
        and on the one object of each specimen; the rest is undecided, and with one seed all is.
        """
        title, unit, decimals = TITLES[metric]
        lines = []
        for opponent in self.opponents:
            of_opponent = [
                one
                for one in self.gains
                if (one.metric, one.opponent) == (metric, opponent)
                and one.specimen != OVER_SPECIMENS
            ]
            ahead = [one for one in of_opponent if one.is_beyond_chance and (one.gain or 0) > 0]
            behind = [one for one in of_opponent if one.is_beyond_chance and (one.gain or 0) < 0]
            known = [one for one in of_opponent if one.gain is not None]
            span = "no condition has a score of both"
            if known:
                low, high = (f(known, key=lambda one: one.gain or 0.0) for f in (min, max))
                span = (
                    f"gains from {low.gain:+.{decimals}f}{unit} ({_where(low)}) to "
                    f"{high.gain:+.{decimals}f}{unit} ({_where(high)})"
                )
            lines.append(
                f"{self.labels[self.arm]} against {self.labels[opponent]}, {title}: ahead beyond "
                f"chance in {len(ahead)}, behind in {len(behind)} of {len(of_opponent)} "
                f"conditions, the rest undecided; {span}{_failures(of_opponent)}."
            )
        return lines


def _failures(gains: Sequence[PairedGain]) -> str:
    ours, theirs = (sum(getattr(one, f"{name}_failed") for one in gains) for name in SIDES)
    if not ours and not theirs:
        return ""
    return f"; without a score in {ours} pairs (no verdict where so), the other arm in {theirs}"


def _where(gain: PairedGain) -> str:
    return f"{gain.specimen}, {gain.dose:g}, {gain.view}"


def read_science(
    runs: Mapping[str, str | Path], *, arm: str = "thinning-net", split: str = "test"
) -> Science:
    """Return what the runs of the test bed show.

    Parameters
    ----------
    runs
        Folder of a finished run by the name of its specimen, any word.
    arm
        The arm that is held against all others.
    split
        ``test`` or ``train``.

    Raises
    ------
    InputError
        If a folder holds no run or no comparison, or the arm has no row in any.

    Examples
    --------
    >>> import study_lib as study
    >>> science = study.read_science({"grains": run.folder})  # run: study.open_run of a folder
    >>> "solver" in science.opponents
    True
    >>> {one.p_value for one in science.gains}  # a single seed
    {None}
    """
    folders = {specimen: Path(folder) for specimen, folder in runs.items()}
    rows = [
        {**row, "specimen": specimen}
        for specimen, folder in folders.items()
        for row in read_run(folder).rows
        if row["split"] == split
    ]
    arms = list(dict.fromkeys(row["arm"] for row in rows))
    if arm not in arms:
        raise InputError(
            f"arm {arm!r} has no row in the {split} split of {', '.join(map(str, runs.values()))}; "
            f"choose from {', '.join(arms) or 'no arm at all'}"
        )
    return Science(folders, rows, arm, split)


# --- As tables for people and programs


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


def _origin(folder: Path) -> dict[str, Any]:
    """Return with what a run was made: held against one another, runs should be of one code."""
    run = read_run(folder)
    return {
        "folder": str(folder),
        "design": run.design_digest,
        "preset": run.preset,
        "date": None if run.date is None else run.date.isoformat(),
        "commit": run.commit,
        "dirty": run.dirty,
    }


def write_science(science: Science, folder: Path) -> list[Path]:
    """Write the rows, the gains and all tables; return the files.

    ``rows.csv`` and ``gains.csv`` are for programs, ``science.json`` has both and the folders of
    the runs, ``science.md`` is for people.
    """
    folder.mkdir(parents=True, exist_ok=True)
    gains = [asdict(one) for one in science.gains]
    content = {
        "arm": science.arm,
        "split": science.split,
        "runs": {name: _origin(path) for name, path in science.runs.items()},
        "means": science.means(),
        "gains": gains,
    }
    write_json(folder / "science.json", content)
    write_csv(folder / "rows.csv", list(science.rows))
    flat = [one | {"values": " ".join(f"{value:.6g}" for value in one["values"])} for one in gains]
    write_csv(folder / "gains.csv", flat)
    lines = [f"# {science.labels[science.arm]} and its opponents, {science.split} split", ""]
    lines += [f"- {sentence}" for metric in TITLES for sentence in science.sentences(metric)]
    lines += table_lines(science)
    for metric in PAIRED_METRICS:
        lines += gain_lines(science, metric)
    with atomic_path(folder / "science.md") as temporary:
        temporary.write_text("\n".join(lines) + "\n", encoding="utf-8")
    return [folder / name for name in ("science.md", "science.json", "rows.csv", "gains.csv")]
