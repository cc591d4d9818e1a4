"""The test bed as a whole: its runs, one a specimen, and what one arm gains over every other."""

import hashlib
import json
from collections.abc import Mapping, Sequence, Set
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from study_lib.arm_names import THINNING_NET, plain_label
from study_lib.design.models import StudyDesign
from study_lib.design.notebooks import deciding_part
from study_lib.errors import InputError
from study_lib.runs.results import read_run, read_table
from study_lib.runs.run import open_run
from study_lib.scores.across_runs import COMMIT_CHARACTERS
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

    def origin_lines(self) -> list[str]:
        """Return a sentence on each run, and on their code where it is not one."""
        lines = [
            f"{one['specimen']}, seeds {', '.join(map(str, one['seeds']))}: run {one['run']}, "
            f"design {one['design']}, {_code_text(one)}"
            for one in self.runs()
        ]
        codes = {_code_text(one) for one in self.runs()}
        if len(codes) > 1:
            lines.append(f"The runs are of different code: {'; '.join(sorted(codes))}.")
        return lines

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


def _code_text(run: Mapping[str, Any]) -> str:
    changes = " with changes that are in no commit" if run["dirty"] else ""
    return f"commit {(run['commit'] or 'unknown')[:COMMIT_CHARACTERS]}{changes}"


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
    arm: str = THINNING_NET,
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
        If a folder holds no run, no comparison or no tables of the split, adds no seed, or has a
        view of a specimen by other settings; or if the arm has no row.

    Examples
    --------
    >>> import study_lib as study
    >>> science = study.read_science({"grains": run.folder})  # run: study.open_run of a folder
    >>> "solver" in science.opponents
    True
    >>> {one.p_value for one in science.gains}  # a single seed
    {None}
    """
    rows = _rows_of_runs(runs, split)
    for folder in map(Path, earlier):
        added = _rows_of_tables(folder, split)
        _require_same_settings([*rows, *added])
        rows += _further_rows(folder, added, {_seed_of(row) for row in rows})
    rows.sort(key=lambda row: row["replicate"])
    arms = list(dict.fromkeys(row["arm"] for row in rows))
    if arm not in arms:
        places = ", ".join(map(str, (*runs.values(), *earlier)))
        raise InputError(
            f"arm {arm!r} has no row in the {split} split of {places}; "
            f"choose from {', '.join(arms) or 'no arm at all'}"
        )
    return Science(rows, arm, split)


def _seed_of(row: Row) -> tuple[str, float, str, int]:
    return row["specimen"], row["dose"], row["view"], row["replicate"]


def _further_rows(
    folder: Path, added: Sequence[Row], there: Set[tuple[str, float, str, int]]
) -> list[Row]:
    """Return the rows of seeds that are not there yet, or refuse the folder if it has none."""
    further = [row for row in added if _seed_of(row) not in there]
    if not further:
        raise InputError(
            f"{folder}: it adds no seed, all are there already; leave it out, or run others here, "
            "such as the second alone by --set replicate=1 --replicates 1"
        )
    return further


def _rows_of_runs(runs: Mapping[str, str | Path], split: str) -> list[Row]:
    """Return the rows of runs, each with its specimen, its run and what settings decided it."""
    rows: list[Row] = []
    for specimen, folder in runs.items():
        run = read_run(Path(folder))
        design = open_run(Path(folder)).design
        decided_by = settings_by_view(design)
        if split not in design.compared_splits:
            raise InputError(
                f"{folder}: its {split} split is not scored (compare_train: false); choose "
                f"{' or '.join(design.compared_splits)}"
            )
        rows += [
            {**row, "specimen": specimen, **run.origin, "decided_by": decided_by.get(row["view"])}
            for row in run.rows
            if row["split"] == split
        ]
    return rows


def _rows_of_tables(folder: Path, split: str) -> list[Row]:
    """Return the rows of a split that tables of the test bed hold."""
    path, remedy = folder / ROWS, "give a folder that `study science` wrote"
    rows: list[Row] = list(read_table(path, remedy))
    for name in ("specimen", "decided_by"):
        if not all(isinstance(row.get(name), str) for row in rows):
            raise InputError(f"{path}: not of the test bed, see its column {name}; {remedy}")
    splits = sorted({row["split"] for row in rows})
    if splits != [split]:
        raise InputError(f"{folder}: its rows are of the split {', '.join(splits)}, not {split}")
    return rows


def settings_by_view(design: StudyDesign) -> dict[str, str]:
    """Return, for each view, the digest of all that decides its scores, but for dose and seed."""
    content = design.model_dump(mode="json")
    found = {}
    for view in design.views:
        part = deciding_part(content, "05_compare", view.name)
        part.pop("replicate")
        text = json.dumps(part, sort_keys=True)
        found[view.name] = hashlib.sha256(text.encode()).hexdigest()[:8]
    return found


def require_addable(
    earlier: Sequence[str | Path], designs: Mapping[str, StudyDesign], split: str = "test"
) -> None:
    """Check, before runs are made, that tables can be added to those of designs by specimen.

    Raises
    ------
    InputError
        If a folder holds no tables, those of other settings, or no seed but theirs.
    """
    planned: list[Row] = [
        {"specimen": specimen, "view": view, "decided_by": digest, "run": "that is asked for"}
        for specimen, design in designs.items()
        for view, digest in settings_by_view(design).items()
    ]
    there = {
        (specimen, dose, view.name, one.replicate)
        for specimen, design in designs.items()
        for view in design.views
        for dose in design.doses_of(view.name)
        for one in design.repetitions
    }
    for folder in map(Path, earlier):
        added = _rows_of_tables(folder, split)
        _require_same_settings([*planned, *added])
        _further_rows(folder, added, there)


def _require_same_settings(rows: Sequence[Row]) -> None:
    for (specimen, view), part in grouped(rows, ("specimen", "view")).items():
        runs = {row["decided_by"]: row["run"] for row in reversed(part)}
        if len(runs) > 1:
            other, one = list(runs.values())[:2]
            raise InputError(
                f"{specimen}, {view}: the run {one} and the run {other} have different settings, "
                "so that their seeds say nothing together; leave one of them out"
            )
