"""What a run has written, from the records of its phases."""

import os
from pathlib import Path
from typing import Any

from study_lib.files import manifest_jobs
from study_lib.phases.conditions import PHASES
from study_lib.phases.records import manifests_of


def inventory(run_folder: Path) -> list[dict[str, Any]]:
    """Return path, size, hash and origin of every file that the phases before H have recorded.

    Paths are relative to the run's folder and sorted. A file that two jobs wrote has the row of
    the later one; one that is gone has no size.
    """
    rows: dict[str, dict[str, Any]] = {}
    manifests = (path for path in manifests_of(run_folder) if path.parent.name != PHASES["H"])
    for manifest in manifests:
        jobs = manifest_jobs(manifest)
        for key, record in sorted(jobs.items(), key=lambda item: item[1].get("started", "")):
            for name, sha256 in record.get("outputs", {}).items():
                path = Path(os.path.normpath(manifest.parent / name))
                place = Path(os.path.relpath(path, run_folder)).as_posix()
                rows[place] = {
                    "path": place,
                    "bytes": path.stat().st_size if path.is_file() else None,
                    "sha256": sha256,
                    "phase": manifest.parent.name,
                    "job": key,
                }
    return [rows[place] for place in sorted(rows)]
