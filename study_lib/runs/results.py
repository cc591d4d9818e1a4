"""Results of several runs: their rows as one Parquet file each, and what changed between runs."""

import json
import string
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from study_lib.design.models import StudyDesign
from study_lib.design.notebooks import ComparedMetric, deciding_part
from study_lib.errors import InputError
from study_lib.files import atomic_path, write_csv
from study_lib.phases.summary import collect_rows, rows_over_mismatch
from study_lib.runs.job import read_record
from study_lib.runs.run import open_run
from study_lib.scores.across_runs import (
    COMMIT_CHARACTERS,
    COMPARED,
    KEY,
    aligned,
    by_key,
    contents_text,
    count_text,
    differences,
    extreme_lines,
    no_scores,
    only_in,
    overview_lines,
    with_keys,
)
from study_lib.scores.frc import OUTCOME
from study_lib.scores.metrics import METRICS
from study_lib.scores.mismatch_cost import LEVEL_OF
from study_lib.scores.study_table import TEXTS, Row

RESULTS = "results"
SUFFIXES = (".parquet", ".csv")
SHOWN_CHARACTERS = 60

# --- Rows as files: a column has one type in every file, whatever values a run has

TEXT, NUMBER, WHOLE, TRUTH = pa.string(), pa.float64(), pa.int64(), pa.bool_()
ORIGIN = {
    "run": TEXT,
    "design": TEXT,
    "date": pa.timestamp("ms", tz="UTC"),
    "commit": TEXT,
    "dirty": TRUTH,
}
RESULT_TYPES = {
    **ORIGIN,
    **dict.fromkeys(("split", "view", "arm", "label", "knows", "registration", *TEXTS), TEXT),
    LEVEL_OF: TEXT,
    **dict.fromkeys(("replicate", "patterns", "ms_ssim_scales", "learned_parameters"), WHOLE),
    **dict.fromkeys(("dose", "overlap", *METRICS), NUMBER),
}
# Without these nobody can tell the rows of several runs apart.
NEEDED = (*KEY, "label", "registration")
NEVER_EMPTY = ("run", "design", "date", *NEEDED)
DIFFERENCE_TYPES = {
    **dict.fromkeys(("reference", "run", "split"), TEXT),
    "dose": NUMBER,
    **dict.fromkeys(("dose_per", "view", "arm", "label"), TEXT),
    "pairs": WHOLE,
    "same_patterns": TRUTH,
    **dict.fromkeys(("metric", "better"), TEXT),
    **dict.fromkeys(("reference_value", "value", "difference"), NUMBER),
    **dict.fromkeys(("difference_std", "difference_low", "difference_high"), NUMBER),
}


def parquet_table(rows: Sequence[Row], types: Mapping[str, pa.DataType]) -> pa.Table:
    """Return rows as a table that has every column of ``types``, and those besides that rows have.

    Of these, one with a text in it holds texts and any other numbers.
    """
    further = sorted({name for row in rows for name in row} - types.keys())
    arrays = {
        name: pa.array([row.get(name) for row in rows], types.get(name) or _type_of(name, rows))
        for name in (*types, *further)
    }
    return pa.table(arrays)


def _type_of(name: str, rows: Iterable[Row]) -> pa.DataType:
    is_text = name.endswith(OUTCOME) or any(isinstance(row.get(name), str) for row in rows)
    return TEXT if is_text else NUMBER


def write_rows(
    path: Path, rows: Sequence[Row], types: Mapping[str, pa.DataType] = DIFFERENCE_TYPES
) -> None:
    """Write rows as Parquet or CSV, as the name says, in one piece.

    Raises
    ------
    InputError
        If the name ends otherwise, or a value is not of its column's type.
    """
    require_suffix(path, SUFFIXES)
    if path.suffix == ".csv":
        write_csv(path, rows)
        return
    try:
        table = parquet_table(rows, types)
    except pa.ArrowException as error:
        raise InputError(f"{path}: not written, a row is damaged ({error})") from None
    with atomic_path(path) as temporary:
        pq.write_table(table, temporary)


def require_suffix(path: Path, suffixes: Sequence[str]) -> None:
    """Check that the name of a file to be written ends in one of some ways.

    Raises
    ------
    InputError
        If it does not.
    """
    if path.suffix not in suffixes:
        raise InputError(f"{path}: give it a name that ends in {' or '.join(suffixes)}")


def write_results(run_folder: Path) -> Path:
    """Write the rows of a run's comparisons beside it, where those of its fellows lie too.

    ``results/<run>.parquet`` has one row for each condition, arm and replicate, with the run's
    name, the digest of its design, the date of its newest job, and the commit of its newest
    comparison. Rows of the listed values of a mismatch name its field in ``mismatch_level_of``,
    which the others leave empty. It is no part of the run: it may be made again from it, or
    outlive it.

    Returns
    -------
    Path
        The file.

    Raises
    ------
    InputError
        If there is no comparison, or no record of a job that says when it was made.
    """
    run = read_run(run_folder)
    if run.date is None:
        raise InputError(f"{run_folder}: no record of a comparison; finish it with `study resume`")
    path = run.place.parent / RESULTS / f"{run.place.name}.parquet"
    rows = [run.origin | row for row in (*run.rows, *rows_of_levels(run_folder))]
    write_rows(path, rows, RESULT_TYPES)
    return path


def rows_of_levels(run_folder: Path) -> list[dict[str, Any]]:
    """Return the rows of a run's listed mismatches; ``mismatch_level_of`` names the field of each.

    Raises
    ------
    InputError
        If the folder holds no run.
    """
    found = rows_over_mismatch(open_run(run_folder).root("compare"), ())
    return [
        with_keys(row) | {LEVEL_OF: field}
        for field, levels in found.items()
        for part in levels.values()
        for row in part
    ]


def read_results(reports: Path) -> list[dict[str, Any]]:
    """Return the rows of every run that has left some in ``results``, file by file.

    Raises
    ------
    InputError
        If there is none, or a file is not of this kind.
    """
    folder = reports / RESULTS
    paths = [path for path in sorted(folder.glob("*.parquet")) if path.name[0] != "."]
    if not paths:
        raise InputError(
            f"{folder}: no results here; a run leaves them when it ends, and `study report RUN` "
            "writes those of a finished run"
        )
    remedy = "remove it, and write it again with `study report RUN`"
    return [row for path in paths for row in read_table(path, remedy)]


def read_table(path: Path, remedy: str) -> list[dict[str, Any]]:
    """Return the rows of one file that has those of runs.

    Raises
    ------
    InputError
        If it is not there or of another kind; ``remedy`` says what to do.
    """
    try:
        table = pq.read_table(path)
        rows: list[dict[str, Any]] = table.to_pylist()
    except (pa.ArrowException, OSError, ValueError) as error:
        raise InputError(f"{path}: not readable as Parquet ({error}); {remedy}") from None
    for name in (*NEVER_EMPTY, "commit", "dirty"):
        is_there = (
            name in table.column_names and table.schema.field(name).type == RESULT_TYPES[name]
        )
        if not is_there or (name in NEVER_EMPTY and table[name].null_count):
            raise InputError(f"{path}: not the results of a run, see its column {name}; {remedy}")
    return rows


# --- One run, as others are compared with it


@dataclass(frozen=True)
class ReadRun:
    """A run's rows, and with what they were made; ``facts`` by kind, name and notebook.

    ``date`` is that of its newest job, ``commit`` that of its newest comparison, and ``taken`` has
    the run from which each comparison was taken that it did not compute.
    """

    folder: Path
    rows: list[dict[str, Any]]
    preset: str
    design_digest: str
    date: datetime | None
    commit: str | None
    dirty: bool | None
    taken: Sequence[str]
    facts: Mapping[tuple[str, str, str], str]

    @property
    def place(self) -> Path:
        """Its folder under its own name: that of what a link or ``..`` leads to."""
        has_own_name = self.folder.name not in {"", ".."} and not self.folder.is_symlink()
        return self.folder if has_own_name else self.folder.resolve()

    @property
    def origin(self) -> dict[str, Any]:
        """With what its rows were made, as columns of them."""
        return {
            "run": self.place.name,
            "design": self.design_digest,
            "date": self.date,
            "commit": self.commit,
            "dirty": self.dirty,
        }

    @property
    def has_records(self) -> bool:
        """Whether a job of it left a record; notebooks that were run by hand leave none."""
        return any(kind != "design" for kind, _, _ in self.facts)

    @property
    def text(self) -> str:
        """Where it is and how it was made."""
        parts = [f"preset {self.preset}", f"design {self.design_digest}"]
        if self.date:
            parts.append(f"{self.date:%Y-%m-%d %H:%M} UTC")
        if self.commit:
            changes = " with changes that are in no commit" if self.dirty else ""
            parts.append(f"commit {self.commit[:COMMIT_CHARACTERS]}{changes}")
        replicates = len({row["replicate"] for row in self.rows})
        parts += [count_text(replicates, "replicate"), count_text(len(self.rows), "row")]
        if self.taken:
            parts.append(
                f"{count_text(len(self.taken), 'comparison')} taken from "
                f"{', '.join(sorted(set(self.taken)))}"
            )
        return f"{self.folder}: {', '.join(parts)}"


def read_run(folder: Path) -> ReadRun:
    """Return a run's rows, and with what they were made.

    Raises
    ------
    InputError
        If the folder holds no run or no comparison, or one is damaged.
    """
    run = open_run(folder)
    try:
        rows = [with_keys(row) for row in collect_rows(run.root("compare"))]
        damaged = [name for name in NEEDED for row in rows if row[name] is None]
    except (KeyError, TypeError, AttributeError, ValueError) as error:
        damaged = [str(error)]
    if damaged:
        raise InputError(
            f"{folder}: a comparison of it is damaged ({damaged[0]}); `study resume` makes it again"
        )
    records = {
        path.parent.name: record
        for path in sorted(folder.glob("jobs/*/done.json"))
        if (record := read_record(path))
    }
    compared = [record for name, record in records.items() if name.startswith("05_compare")]
    git = _mapping(max(compared, key=_started, default={}), "git")
    commit, dirty = git.get("commit"), git.get("dirty")
    return ReadRun(
        folder=folder,
        rows=rows,
        preset=run.design.preset,
        design_digest=run.design.digest,
        date=_time_of(_started(max(records.values(), key=_started, default={}))),
        commit=commit if isinstance(commit, str) else None,
        dirty=dirty if isinstance(dirty, bool) else None,
        taken=[str(record["taken_from"]) for record in compared if record.get("taken_from")],
        facts=_facts(run.design, records),
    )


def _started(record: Mapping[str, Any]) -> str:
    return str(record.get("started") or "")


def _time_of(text: str) -> datetime | None:
    try:
        return datetime.fromisoformat(text).astimezone(UTC)
    except ValueError:  # no record, or a damaged one
        return None


def _mapping(record: Mapping[str, Any], name: str) -> Mapping[str, Any]:
    """Return a table of a record; an empty one where that is missing or damaged."""
    found = record.get(name)
    return found if isinstance(found, dict) else {}


def _facts(
    design: StudyDesign, records: Mapping[str, Mapping[str, Any]]
) -> dict[tuple[str, str, str], str]:
    """Return with what a run was made: design, and by notebook code and versions; and machine."""
    values = deciding_part(design.model_dump(mode="json"), "06_summary")
    found: dict[tuple[str, str, str], set[str]] = {
        ("design", name, ""): {json.dumps(value)} for name, value in values.items()
    }
    for name, record in records.items():
        notebook = name.partition("__")[0]
        code = _mapping(record, "code")
        texts = {("code", "sources", notebook): code.get("sources")}
        versions = {**_mapping(code, "packages"), **_mapping(record, "versions")}
        texts |= {("versions", package, notebook): one for package, one in versions.items()}
        machine = {**_mapping(record, "machine"), **_mapping(record, "computed_with")}
        for fact, value in machine.items():
            for one in value if isinstance(value, list) else [value]:
                found.setdefault(("machine", fact, ""), set()).add(str(one))
        for key, value in texts.items():
            found.setdefault(key, set()).add(str(value))
    return {key: ", ".join(sorted(texts)) for key, texts in found.items()}


# --- Runs against a reference


@dataclass(frozen=True)
class _Pair:
    """A run and the reference, A: their differences, and the facts that differ."""

    letter: str
    reference: ReadRun
    run: ReadRun
    rows: Sequence[Row]
    facts: Sequence[Row]

    def lines(self, metric: ComparedMetric) -> list[str]:
        """Return what differs as text, with the worst and best differences of one number."""
        both = {"A": self.reference, self.letter: self.run}
        lines = [f"{self.letter} less A: {self._basis()}", *overview_lines(self.rows)]
        lines += extreme_lines(self.rows, metric, self.letter)
        for (name, own), other in zip(both.items(), (self.run, self.reference), strict=True):
            found = only_in(own.rows, other.rows)
            lines += [f"only in {name}: {'; '.join(found)}"] if found else []
        found = no_scores({name: run.rows for name, run in both.items()})
        lines += [f"no score, not compared: {line}" for line in found]
        return lines + self._lines_of_facts()

    def _basis(self) -> str:
        """Return on how many pairs the differences rest, and of which patterns."""
        places = [row for row in self.rows if row["metric"] == next(iter(COMPARED))]
        parts = [f"{count_text(len(places), 'arm')} in their conditions"]
        others = [row for row in places if row["same_patterns"] is False]
        if others:
            parts.append(f"{len(others)} of them on other patterns, so with other noise")
        elif places and all(row["same_patterns"] for row in places):
            parts.append("on the same patterns")
        if max((row["pairs"] for row in places), default=0) > 1:
            parts.append(
                "better or worse where the interval leaves out 0, as one in twenty does by chance"
            )
        else:
            parts.append("one replicate, so better and worse are signs alone")
        return ", ".join(parts)

    def _lines_of_facts(self) -> list[str]:
        cells = [
            [
                fact["kind"],
                fact["name"],
                f"{_short(fact['reference_value'])} -> {_short(fact['value'])}",
                str(fact["notebooks"]),
            ]
            for fact in self.facts
            if fact["kind"] != "code"
        ]
        sources = [str(fact["notebooks"]) for fact in self.facts if fact["kind"] == "code"]
        if sources:
            cells.append(["code", "sources", "changed", ", ".join(sources)])
        by_hand = [
            name
            for name, run in (("A", self.reference), (self.letter, self.run))
            if not run.has_records
        ]
        known = "design" if by_hand else "design, code, versions and machine"
        lines = [f"the same {known}"]
        if cells:
            title = f"design, code, versions and machine, A -> {self.letter}:"
            lines = [title, *aligned(cells[0], cells[1:], texts=(0, 1, 2, 3))]
        if by_hand:
            lines.append(
                f"{' and '.join(by_hand)}: no record of a job, so code, versions and machine are "
                "not known"
            )
        return lines


def _short(text: str) -> str:
    return text if len(text) <= SHOWN_CHARACTERS else f"{text[: SHOWN_CHARACTERS - 3]}..."


@dataclass(frozen=True)
class RunsCompared:
    """Runs against a reference, the first of them."""

    runs: Sequence[ReadRun]
    pairs: Sequence[_Pair]

    @property
    def rows(self) -> list[dict[str, Any]]:
        """A row for each number of each arm, condition and run, with the folders of both runs.

        See :func:`study_lib.scores.across_runs.differences`.
        """
        return [{**self._named(pair), **row} for pair in self.pairs for row in pair.rows]

    @property
    def facts(self) -> list[dict[str, Any]]:
        """A row for each fact that differs: of the design, code, versions and machine."""
        return [{**self._named(pair), **fact} for pair in self.pairs for fact in pair.facts]

    @staticmethod
    def _named(pair: _Pair) -> dict[str, Any]:
        return {"reference": str(pair.reference.folder), "run": str(pair.run.folder)}

    def lines(self, metric: ComparedMetric) -> list[str]:
        """Return all of it as text, with the worst and best differences of one number."""
        letters = ("A", *(pair.letter for pair in self.pairs))
        lines = [f"{name}  {run.text}" for name, run in zip(letters, self.runs, strict=True)]
        for pair in self.pairs:
            lines += ["", *pair.lines(metric)]
        return lines


def compare_runs(runs: Sequence[str | Path]) -> RunsCompared:
    """Return what differs between runs and the first of them.

    Rows of the same condition, arm and replicate are paired. Rows that are no scores are named and
    not compared.

    Parameters
    ----------
    runs
        Folders of two runs or more.

    Raises
    ------
    InputError
        If there are fewer, one holds no run or no comparison, or one has nothing in common with
        the first.

    Examples
    --------
    A run differs in nothing from itself:

    >>> import study_lib as study
    >>> compared = study.compare_runs([run.folder, run.folder])  # run: study.open_run of a run
    >>> {row["difference"] for row in compared.rows if row["metric"] == "phase_ssim"}
    {0.0}
    >>> compared.facts
    []
    """
    if not 2 <= len(runs) <= len(string.ascii_uppercase):
        raise InputError(
            f"{count_text(len(runs), 'run')}: give two to {len(string.ascii_uppercase)}, the "
            "reference first"
        )
    reference, *others = opened = [read_run(Path(folder)) for folder in runs]
    for run in others:
        if not by_key(reference.rows).keys() & by_key(run.rows).keys():
            contents = [f"{one.folder}: {contents_text(one.rows)}" for one in (reference, run)]
            raise InputError(
                "\n".join(
                    [
                        "no condition, arm and replicate that both have; compare runs that "
                        "share some, or look at what each has:",
                        *contents,
                    ]
                )
            )
    letters = string.ascii_uppercase[1:]
    pairs = [
        _Pair(
            letter,
            reference,
            run,
            differences(reference.rows, run.rows),
            _differing_facts(reference, run),
        )
        for letter, run in zip(letters, others, strict=False)
    ]
    return RunsCompared(opened, pairs)


def _differing_facts(reference: ReadRun, run: ReadRun) -> list[dict[str, Any]]:
    """Return a row for each fact that both runs tell and that differs, with its notebooks.

    What one design lacks is null there; of a notebook that one run did not have, its design tells.
    """
    merged: dict[tuple[str, str, str, str], list[str]] = {}
    for key in sorted(reference.facts.keys() & run.facts.keys()):
        kind, name, notebook = key
        values = reference.facts[key], run.facts[key]
        if values[0] != values[1]:
            merged.setdefault((kind, name, *values), []).append(notebook)
    for one, other, is_run in (
        (reference.facts, run.facts, False),
        (run.facts, reference.facts, True),
    ):
        for name, value in _designed_only_in(one, other).items():
            values = ("null", value) if is_run else (value, "null")
            merged[("design", name, *values)] = [""]
    names = ("kind", "name", "reference_value", "value")
    return [
        dict(zip(names, key, strict=True)) | {"notebooks": ", ".join(notebooks)}
        for key, notebooks in sorted(merged.items())
    ]


def _designed_only_in(
    facts: Mapping[tuple[str, str, str], str], others: Mapping[tuple[str, str, str], str]
) -> dict[str, str]:
    """Return what one design has and another lacks; a whole table, such as a view, as ``set``."""
    names = {name for kind, name, _ in others if kind == "design"}
    parts = {
        ".".join(words[:end])
        for name in names
        if (words := name.split("."))
        for end in range(1, len(words))
    }
    found = {}
    for (kind, name, _), value in facts.items():
        if kind != "design" or name in names or (value == "null" and name in parts):
            continue
        words = name.split(".")
        above = (".".join(words[:end]) for end in range(1, len(words)))
        table = next((one for one in above if one not in parts), None)
        found[table or name] = "set" if table else value
    return found
