"""Finished runs that nobody computed: designs, made-up rows of comparisons and records of jobs."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from study_lib.arm_names import label_of
from study_lib.design.presets import load_design
from study_lib.files import write_json
from study_lib.phases.conditions import PHASES, replicate_folder
from study_lib.runs.run import create_run

STARTED = "2026-03-01T10:00:00+00:00"
COMMIT = "1" * 40


def row_of(arm: str = "solver", **columns: Any) -> dict[str, Any]:
    """Return a row of a comparison as it lies in files; ``columns`` are what matters in it."""
    return {
        "split": "test",
        "dose": 1e4,
        "dose_per": "pattern",
        "view": "dense",
        "replicate": 0,
        "arm": arm,
        "label": label_of(arm),
        "knows": "probe, positions",
        "registration": "ok",
        "fallback": "",
        "fallback_reason": "",
        "grouping": "",
        "chosen_by": None,
        "overlap": 0.7,
        "patterns": 100,
        "patterns_sha256": "a" * 64,
        "phase_ms_ssim": 0.9,
        "phase_ssim": 0.8,
        "phase_psnr_db": 25.0,
        "phase_mse_rad2": 0.01,
        "frc_crossing": 0.5,
        "frc_crossing_outcome": "crosses",
        "cpu_s": 2.0,
        "training_cpu_s": None,
        **columns,
    }


def made_run(
    folder: Path,
    rows: Sequence[Mapping[str, Any]],
    *settings: str,
    started: str = STARTED,
    commit: str = COMMIT,
    sources: str = "0123456789abcdef",
    versions: Mapping[str, str] | None = None,
    machine: Mapping[str, Any] | None = None,
    has_records: bool = True,
) -> Path:
    """Return the folder of a run with these rows, and records of two of its jobs."""
    create_run(folder, load_design("smoke", settings))
    conditions: dict[Path, list[Mapping[str, Any]]] = {}
    for row in rows:
        top = folder / replicate_folder(row["replicate"]) if row["replicate"] else folder
        place = top / PHASES["compare"] / f"dose_{row['dose']:g}" / row["view"] / row["split"]
        conditions.setdefault(place, []).append(row)
    for place, part in conditions.items():
        write_json(place / "metrics.json", part)
    for notebook in ("04_reconstruct", "05_compare") if has_records else ():
        record = {
            "status": "done",
            "started": started,
            "git": {"commit": commit, "dirty": False},
            "code": {"sources": f"{notebook} {sources}", "packages": {"numpy": "2.4.6"}},
            "versions": {"python": "3.11.7", **(versions or {})},
            "machine": {"system": "Linux", "cores": 2, **(machine or {})},
            "computed_with": {"device": ["cpu"]},
        }
        write_json(folder / "jobs" / f"{notebook}__dose_10000__dense__test" / "done.json", record)
    return folder
