"""The test bed as a whole: its runs, one a specimen, and what one arm gains over every other."""

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from study_lib.arm_names import plain_label
from study_lib.design.models import StudyDesign
from study_lib.design.notebooks import deciding_part
from study_lib.errors import InputError
from study_lib.runs.results import read_run, read_table
from study_lib.runs.run import open_run
from study_lib.scores.paired import OVER_SPECIMENS, PairedGain, paired_gains
from study_lib.scores.study_table import Row, grouped

ROWS = "rows.parquet"
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

    ``rows`` are those of comparisons, each with its ``specimen`` and the name, date and commit of
    its run.
    """

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

    def runs(self) -> list[dict[str, Any]]:
        """Return with what the rows were made: held against one another, it should be one code."""
        names = ("specimen", "run", "design", "commit", "dirty")
        return [
            dict(zip(names, place, strict=True))
            | {
                "date": None if (date := part[0]["date"]) is None else date.isoformat(),
                "seeds": sorted({row["replicate"] for row in part}),
            }
            for place, part in grouped(self.rows, names).items()
        ]

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
    runs: Mapping[str, str | Path],
    *,
    earlier: Sequence[str | Path] = (),
    arm: str = "thinning-net",
    split: str = "test",
) -> Science:
    """Return what the runs of the test bed show.

    Parameters
    ----------
    runs
        Folder of a finished run by the name of its specimen, any word.
    earlier
        Folders of tables of the test bed, from other machines or days: their rows are added. A
        seed that is there twice counts once, as it is in ``runs`` or the first folder.
    arm
        The arm that is held against all others.
    split
        ``test`` or ``train``.

    Raises
    ------
    InputError
        If a folder holds no run, no comparison or no tables, the arm has no row in any, or rows of
        one condition were made with different settings.

    Examples
    --------
    >>> import study_lib as study
    >>> science = study.read_science({"grains": run.folder})  # run: study.open_run of a folder
    >>> "solver" in science.opponents
    True
    >>> {one.p_value for one in science.gains}  # a single seed
    {None}
    """
    found = [row for specimen, folder in runs.items() for row in _rows_of(specimen, Path(folder))]
    for folder in earlier:
        found += read_table(Path(folder) / ROWS, remedy="give a folder that `study science` wrote")
    first: dict[tuple[Any, ...], Row] = {}
    for row in found:
        if row["split"] == split:
            first.setdefault(tuple(row[name] for name in _ONE_ROW), row)
    rows = sorted(first.values(), key=lambda row: row["replicate"])
    _require_same_settings(rows)
    arms = list(dict.fromkeys(row["arm"] for row in rows))
    if arm not in arms:
        places = ", ".join(map(str, (*runs.values(), *earlier)))
        raise InputError(
            f"arm {arm!r} has no row in the {split} split of {places}; "
            f"choose from {', '.join(arms) or 'no arm at all'}"
        )
    return Science(rows, arm, split)


_ONE_ROW = ("specimen", "dose", "view", "arm", "replicate")


def _rows_of(specimen: str, folder: Path) -> list[Row]:
    """Return the rows of a run, each with its specimen, its run and what settings decided it."""
    run, design = read_run(folder), open_run(folder).design
    decided_by = {view.name: _digest_of_condition(design, view.name) for view in design.views}
    return [
        {
            **row,
            "specimen": specimen,
            **run.origin,
            "decided_by": decided_by[row["view"]],
        }
        for row in run.rows
    ]


def _digest_of_condition(design: StudyDesign, view: str) -> str:
    """Return the digest of all settings that decide the scores of a view, but dose and seed."""
    part = deciding_part(design.model_dump(mode="json"), "05_compare", view)
    part.pop("replicate")
    return hashlib.sha256(json.dumps(part, sort_keys=True).encode()).hexdigest()[:8]


def _require_same_settings(rows: Sequence[Row]) -> None:
    for (specimen, view), part in grouped(rows, ("specimen", "view")).items():
        runs = {row["decided_by"]: row["run"] for row in part}
        if len(runs) > 1:
            one, other = list(runs.values())[:2]
            raise InputError(
                f"{specimen}, {view}: the runs {one} and {other} have different settings, so that "
                "their seeds say nothing together; leave one of them out"
            )
