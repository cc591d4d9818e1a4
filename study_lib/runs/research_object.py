"""A run as a research object: RO-Crate 1.1, https://w3id.org/ro/crate/1.1."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from study_lib.files import sha256_of
from study_lib.runs.job_places import job_owning, owned_places
from study_lib.runs.plan import PlannedJob
from study_lib.runs.seal import sealed_names

CRATE = "ro-crate-metadata.json"
MEDIA_TYPES = {
    ".csv": "text/csv",
    ".html": "text/html",
    ".ipynb": "application/x-ipynb+json",
    ".json": "application/json",
    ".jsonl": "application/jsonl",
    ".log": "text/plain",
    ".md": "text/markdown",
    ".npz": "application/zip",
    ".png": "image/png",
    ".svg": "image/svg+xml",
}
LICENSE = "https://spdx.org/licenses/BSD-3-Clause"


def research_object(
    run_folder: Path, jobs: Sequence[PlannedJob], records: Mapping[str, Mapping[str, Any]]
) -> dict[str, Any]:
    """Return the metadata document of a run: its files, and the action that made each.

    The files are those of the seal, but for this document; so it is written when the others are.

    Parameters
    ----------
    run_folder
        The run.
    jobs
        Its plan.
    records
        The content of ``done.json`` of its jobs, by name.
    """
    places = [
        place
        for place in sealed_names(run_folder)
        if place != CRATE and (run_folder / place).is_file()
    ]
    owned = owned_places(jobs)
    made: dict[str, list[str]] = {name: [] for name in records}
    for place in places:
        job = job_owning(place, owned)
        if job and job.name in made:
            made[job.name].append(place)
    actions = [
        {
            "@id": f"#{name}",
            "@type": "CreateAction",
            "name": name,
            "startTime": record["started"],
            "instrument": {"@id": "#study"},
            "object": [{"@id": path} for path in sorted(record.get("inputs", {}))],
            "result": [{"@id": path} for path in made[name]],
        }
        for name, record in sorted(records.items())
    ]
    entities = [
        {
            "@id": place,
            "@type": "File",
            "contentSize": str((run_folder / place).stat().st_size),
            "encodingFormat": MEDIA_TYPES.get(Path(place).suffix, "application/octet-stream"),
            "sha256": sha256_of(run_folder / place),
        }
        for place in places
    ]
    started = [record["started"] for record in records.values()]
    versions: dict[str, str] = next((record["versions"] for record in records.values()), {})
    return {
        "@context": [
            "https://w3id.org/ro/crate/1.1/context",
            {"sha256": "http://schema.org/sha256"},
        ],
        "@graph": [
            {
                "@id": CRATE,
                "@type": "CreativeWork",
                "about": {"@id": "./"},
                "conformsTo": {"@id": "https://w3id.org/ro/crate/1.1"},
            },
            {
                "@id": "./",
                "@type": "Dataset",
                "name": f"Ptychography study {run_folder.resolve().name}",
                "description": "Reconstruction quality and cost over photon dose and scan overlap.",
                "license": {"@id": LICENSE},
                "hasPart": [{"@id": entity["@id"]} for entity in entities],
                "mentions": [{"@id": action["@id"]} for action in actions],
                **({"datePublished": max(started)} if started else {}),
            },
            {"@id": LICENSE, "@type": "CreativeWork", "name": "BSD 3-Clause License"},
            {
                "@id": "#study",
                "@type": "SoftwareApplication",
                "name": "study_lib",
                "softwareRequirements": [
                    f"{name} {version}" for name, version in sorted(versions.items())
                ],
            },
            *entities,
            *actions,
        ],
    }
