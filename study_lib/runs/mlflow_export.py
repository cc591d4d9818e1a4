"""The rows of a run as runs of MLflow, for those who keep their experiments there."""

import hashlib
import json
import logging
import math
import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from study_lib import __version__
from study_lib.design.axes import dose_text
from study_lib.design.experiment import MISMATCH_COLUMNS
from study_lib.errors import InputError, StudyError
from study_lib.runs.job import read_record
from study_lib.runs.results import ReadRun, read_run, rows_of_levels
from study_lib.scores.across_runs import KEY
from study_lib.scores.mismatch_cost import LEVEL_OF
from study_lib.scores.study_table import Row

if TYPE_CHECKING:
    from mlflow import MlflowClient

EXTRA = "mlflow"
USUAL_URI = "sqlite:///mlflow.db"
# Numbers that say of what a row is, beside its texts; they are metrics too, to be drawn against.
CONDITIONS = ("dose", "replicate", "overlap", "overlap_linear", "overlap_target", "patterns")
MISMATCH = "mismatch_"
COLUMN_OF = {field: column for column, (field, _, _) in MISMATCH_COLUMNS.items()}
IDENTITY_CHARACTERS = 8
TEXT_CHARACTERS = 500  # the most that every kind of store takes
KEY_TAG, HASH_TAG, DESIGN_TAG = "study.key", "study.row_sha256", "study.design"
PAGE = 1000
FINISHED = "FINISHED"
# Said to MLflow before it starts, unless the user says otherwise.
SETTINGS = {
    "MLFLOW_DISABLE_TELEMETRY": "true",
    "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "2",  # seven take minutes to say that nobody answers
}


@dataclass(frozen=True)
class Exported:
    """How many rows of a run were written anew, replaced, and left as they were."""

    new: int
    replaced: int
    unchanged: int


def export(run_folder: Path, *, uri: str | None = None, experiment: str) -> Exported:
    """Write the rows of a run's comparisons to MLflow, a run there for each.

    A row is one condition, arm and replicate; those of the listed values of a mismatch are among
    them, and ``mismatch_level_of`` names the field. What it is of are parameters, its finite
    numbers metrics; tags name run, design, commit and versions. A row that is there already is left
    alone, or replaced if its numbers have changed or its export was interrupted. Runs of one name
    differ by the record of their first job; without one, by their name alone.

    Parameters
    ----------
    run_folder
        A run below ``reports/``.
    uri
        Tracking server or database; default: ``MLFLOW_TRACKING_URI``, or else ``mlflow.db`` in the
        working folder.
    experiment
        Name of the experiment, which is made if it is not there.

    Raises
    ------
    InputError
        If MLflow is not installed, does not know such a store, or the folder has no comparison.
    StudyError
        If the store does not answer or refuses a row.
    """
    run = read_run(run_folder)
    for name, value in SETTINGS.items():
        os.environ.setdefault(name, value)
    try:
        from mlflow import MlflowClient
        from mlflow.exceptions import MlflowException
        from sqlalchemy.exc import SQLAlchemyError
    except ImportError as error:
        raise _not_installed(error) from None
    for name in ("alembic", "mlflow"):  # not every step of making a database
        logging.getLogger(name).setLevel(logging.WARNING)
    place = uri or os.environ.get("MLFLOW_TRACKING_URI") or USUAL_URI
    try:
        client = MlflowClient(tracking_uri=place)
        client.search_experiments(max_results=1)  # only now it opens the store
    except ImportError as error:
        raise _not_installed(error) from None
    except (MlflowException, SQLAlchemyError, OSError) as error:
        raise InputError(
            f"{place}: not usable as a store of MLflow ({_first_line(error)}); give --uri the "
            f"address of a server, or a database such as {USUAL_URI}"
        ) from None
    try:
        return _written(client, run, experiment)
    except (MlflowException, SQLAlchemyError, OSError) as error:
        raise StudyError(
            f"experiment {experiment} at {place}: not written ({_first_line(error)}); the same "
            "command goes on"
        ) from None


def _not_installed(error: ImportError) -> InputError:
    return InputError(
        f"MLflow is not installed ({error}); it comes with the extra {EXTRA}: "
        f"pip install 'ptychography-dose-study[{EXTRA}]', or '.[{EXTRA}]' in a checkout"
    )


def _first_line(error: Exception) -> str:
    return str(error).strip().partition("\n")[0]


def _written(client: "MlflowClient", run: ReadRun, experiment: str) -> Exported:
    found = client.get_experiment_by_name(experiment)
    identity = found.experiment_id if found else client.create_experiment(experiment)
    there = _rows_there(client, identity, run)
    tags, name = _tags_of(run), _name_of(run)
    counts = {"new": 0, "replaced": 0, "unchanged": 0}
    for row in (*run.rows, *rows_of_levels(run.folder)):
        key, digest = _key_of(name, row), _digest_of(row)
        before = there.get(key, [])
        kept = next((run_id for run_id, one in before if one == digest), None)
        if kept is None:
            _write(client, identity, run, row, {**tags, KEY_TAG: key, HASH_TAG: digest})
        for run_id, _ in before:  # of other numbers, interrupted, or there twice
            if run_id != kept:
                client.delete_run(run_id)
        counts["unchanged" if kept else "replaced" if before else "new"] += 1
    return Exported(**counts)


def _rows_there(
    client: "MlflowClient", experiment_id: str, run: ReadRun
) -> dict[str, list[tuple[str, str]]]:
    """Return the rows of a run that an experiment has: by key, identity and hash of each.

    One whose export was interrupted has an empty hash.
    """
    rows: dict[str, list[tuple[str, str]]] = {}
    token = None
    while True:
        page = client.search_runs(
            [experiment_id],
            filter_string=f"tags.`{DESIGN_TAG}` = '{run.design_digest}'",
            max_results=PAGE,
            page_token=token,
        )
        for one in page:
            is_whole = one.info.status == FINISHED
            digest = one.data.tags.get(HASH_TAG, "") if is_whole else ""
            rows.setdefault(one.data.tags.get(KEY_TAG, ""), []).append((one.info.run_id, digest))
        token = page.token
        if not token:
            return rows


def _name_of(run: ReadRun) -> str:
    """Return what tells a run apart from others of its design and day: its first job's record."""
    record = read_record(run.folder / "jobs" / "00_design" / "done.json")
    return (
        f"{run.place.name}@{_digest_of(record)[:IDENTITY_CHARACTERS]}" if record else run.place.name
    )


def _key_of(name: str, row: Row) -> str:
    """Return what tells a row of a run apart from all others of a store."""
    return "/".join([name, *(_text(row[column]) for column in KEY), *_levels_of(row)])


def _levels_of(row: Row) -> list[str]:
    """Return the field and value of the listed mismatch that a row is of, if it is of one."""
    field = row.get(LEVEL_OF)
    return [f"{field}={_text(row[COLUMN_OF[field]])}"] if field else []


def _digest_of(row: Row) -> str:
    text = json.dumps(row, sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()


def _tags_of(run: ReadRun) -> dict[str, str]:
    """Return the tags of all rows: where they come from, and what computed them."""
    tags = {
        "study.run": run.place.name,
        DESIGN_TAG: run.design_digest,
        "study.preset": run.preset,
        "study.version": __version__,
    }
    if run.date:
        tags["study.date"] = run.date.isoformat()
    if run.commit:
        tags["study.commit"] = run.commit + (" with changes" if run.dirty else "")
    for (kind, name, notebook), version in run.facts.items():
        if kind == "versions" and notebook == "05_compare":
            tags[f"version.{name}"] = version
    return tags


def _write(
    client: "MlflowClient", experiment_id: str, run: ReadRun, row: Row, tags: Mapping[str, str]
) -> None:
    """Write one row; it is finished only when all of it is there."""
    from mlflow.entities import Metric, Param

    time_ms = int(1000 * run.date.timestamp()) if run.date else None
    parts = [row["arm"], _text(row["dose"]), row["view"], row["split"], *_levels_of(row)]
    name = ", ".join(parts)
    made = client.create_run(experiment_id, start_time=time_ms, tags=dict(tags), run_name=name)
    start_ms = made.info.start_time
    client.log_batch(
        made.info.run_id,
        metrics=[Metric(name, value, start_ms, 0) for name, value in metrics_of(row)],
        params=[Param(name, value) for name, value in parameters_of_row(row)],
    )
    client.set_terminated(made.info.run_id, FINISHED, end_time=start_ms)


def metrics_of(row: Row) -> Iterator[tuple[str, float]]:
    """Yield the finite numbers of a row by name."""
    for name, value in row.items():
        is_number = isinstance(value, int | float) and not isinstance(value, bool)
        if is_number and math.isfinite(value):
            yield name, float(value)


def parameters_of_row(row: Row) -> Iterator[tuple[str, str]]:
    """Yield what a row is of, by name: its texts, and the numbers of its condition."""
    for name, value in row.items():
        is_condition = name in CONDITIONS or name.startswith(MISMATCH)
        if value not in (None, "") and (isinstance(value, str) or is_condition):
            yield name, _text(value)[:TEXT_CHARACTERS]


def _text(value: Any) -> str:
    return dose_text(value) if isinstance(value, float) else str(value)
