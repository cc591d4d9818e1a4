"""Views that hold the same patterns: what was computed of the first is taken for the others.

Where a scan has no more overlap to give, a view that asks for more keeps every pattern, as the one
that leaves none out does. What does not depend on how patterns are grouped is the same for both.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from study_lib.data.datasets import load_measurement, pattern_count
from study_lib.files import manifest_jobs, sha256_of
from study_lib.phases.conditions import Condition
from study_lib.phases.records import provenance
from study_lib.physics.measurement import patterns_digest

OF_A_VIEW = ("view",)  # parameters in which records of two views differ
OF_AN_ORIGIN = ("versions", "git")


@dataclass(frozen=True)
class Computed:
    """What another view of the same dose and split has: its folder, its record, its name."""

    folder: Path
    results: dict[str, Any]
    view: str


def computed_before(
    condition: Condition,
    phase: str,
    parameters: dict[str, Any],
    *,
    arm: str = "",
    splits: Sequence[str] = (),
) -> Computed | None:
    """Return what an earlier view of the same patterns has, if it is done and as it was recorded.

    By the same code, packages and parameters. Only of measured counts, whose plan lets the views
    wait for the one that leaves no pattern out.

    Parameters
    ----------
    condition
        Whose result is asked for.
    phase
        A key of ``PHASES``.
    parameters
        Of its work; the view in them does not count.
    arm
        The arm's folder, of a phase that has one for each.
    splits
        Whose patterns decide; default: the condition's own.
    """
    if not condition.design.is_measured:
        return None
    for view in condition.design.views_at(condition.dose):
        if view == condition.view:
            return None
        other = replace(condition, view=view)
        parts = splits or (condition.split,)
        if all(_hold_the_same(condition.of(one), other.of(one)) for one in parts):
            return _of(other, phase, parameters, arm)
    return None


def _hold_the_same(condition: Condition, other: Condition) -> bool:
    if not (condition.file.is_file() and other.file.is_file()):
        return False
    if pattern_count(condition.file) != pattern_count(other.file):
        return False
    one, two = (patterns_digest(load_measurement(each.file)) for each in (condition, other))
    return one == two


def _of(other: Condition, phase: str, parameters: dict[str, Any], arm: str) -> Computed | None:
    """Return the record of a view's work if it holds here too."""
    folder, manifest = other.folder(phase) / arm, other.manifest(phase)
    key = folder.relative_to(other.root(phase)).as_posix()
    record = manifest_jobs(manifest).get(key, {}) if manifest.is_file() else {}
    if record.get("status") != "done" or not record.get("outputs"):
        return None
    asked, had = (_without_view(each) for each in (parameters, record["parameters"]))
    now = provenance()
    if asked != had or any(record.get(name) != now[name] for name in OF_AN_ORIGIN):
        return None
    for name, sha256 in record["outputs"].items():
        path = manifest.parent / name
        if path.suffix != ".log" and not (path.is_file() and sha256_of(path) == sha256):
            return None
    return Computed(folder, record["results"], other.view.name)


def _without_view(parameters: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in parameters.items() if name not in OF_A_VIEW}
