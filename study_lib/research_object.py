"""A run as a research object: RO-Crate 1.1, https://w3id.org/ro/crate/1.1."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from study_lib.inventory import inventory

MEDIA_TYPES = {
    ".csv": "text/csv",
    ".html": "text/html",
    ".ipynb": "application/x-ipynb+json",
    ".json": "application/json",
    ".md": "text/markdown",
    ".npz": "application/zip",
    ".png": "image/png",
    ".svg": "image/svg+xml",
}
LICENSE = "https://spdx.org/licenses/BSD-3-Clause"


def research_object(run_folder: Path, records: Mapping[str, Mapping[str, Any]]) -> dict[str, Any]:
    """Return the metadata document of a run: its files, and the action that made each.

    Parameters
    ----------
    run_folder
        The run.
    records
        The content of ``done.json`` of its jobs, by name.
    """
    files = {row["path"]: row for row in inventory(run_folder) if row["bytes"] is not None}
    made: dict[str, dict[str, Any]] = {}
    actions = []
    for name, record in sorted(records.items()):
        for path, sha256 in record["sha256"].items():
            made[path] = {"sha256": sha256}
        actions.append(
            {
                "@id": f"#{name}",
                "@type": "CreateAction",
                "name": name,
                "startTime": record["started"],
                "instrument": {"@id": "#study"},
                "object": [{"@id": path} for path in sorted(record.get("inputs", {}))],
                "result": [{"@id": path} for path in sorted(record["sha256"])],
            }
        )
    for path, row in files.items():
        made[path] = {"sha256": row["sha256"]}
    entities = [
        {
            "@id": path,
            "@type": "File",
            "contentSize": str((run_folder / path).stat().st_size),
            "encodingFormat": MEDIA_TYPES.get(Path(path).suffix, "application/octet-stream"),
            **facts,
        }
        for path, facts in sorted(made.items())
        if (run_folder / path).is_file()
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
                "@id": "ro-crate-metadata.json",
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
