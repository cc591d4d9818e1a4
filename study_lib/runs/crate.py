"""A run as an RO-Crate: which files there are, which action made each, from what, with what.

The crate keeps to Process Run Crate 0.5, https://w3id.org/ro/wfrun/process/0.5, on RO-Crate 1.1,
https://w3id.org/ro/crate/1.1.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

from rocrate.model import ContextEntity, Person, SoftwareApplication
from rocrate.rocrate import ROCrate

from study_lib import __version__
from study_lib.runs.evidence import Digest, sealed_names
from study_lib.runs.job import job_owning, owned_places
from study_lib.runs.plan import PlannedJob

CRATE = "ro-crate-metadata.json"
PROFILE = "https://w3id.org/ro/wfrun/process/0.5"
SOFTWARE_LICENSE = "https://spdx.org/licenses/BSD-3-Clause"
# "application/jsonl" is what its specification suggests, https://jsonlines.org
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


@dataclass(frozen=True)
class Credit:
    """Who made a run, and under which license its files may be used: for its owner to say."""

    authors: Sequence[str] = ()
    license: str | None = None


NO_CREDIT = Credit()


def research_object(
    run_folder: Path,
    jobs: Sequence[PlannedJob],
    records: Mapping[str, Mapping[str, Any]],
    digest: Digest,
    credit: Credit = NO_CREDIT,
) -> dict[str, Any]:
    """Return the metadata document of a run.

    The files are those of the seal, but for this document; so it is written when the others are.

    Parameters
    ----------
    run_folder
        The run.
    jobs
        Its plan.
    records
        The content of ``done.json`` of its jobs, by name.
    digest
        What hashes a file.
    credit
        Authors and license; without a license the crate says that none was given.
    """
    crate = ROCrate(gen_preview=False, version="1.1")
    crate.name = f"Ptychography study {run_folder.resolve().name}"
    crate.description = "Reconstruction quality and cost over photon dose and scan overlap."
    crate.license = crate.add(_license_of(crate, credit))
    authors = [
        crate.add(Person(crate, f"#author-{i}", {"name": name}))
        for i, name in enumerate(credit.authors, start=1)
    ]
    if authors:
        crate.creator = authors
    profile = {"@type": "CreativeWork", "name": "Process Run Crate", "version": "0.5"}
    crate.root_dataset["conformsTo"] = crate.add(ContextEntity(crate, PROFILE, profile))
    software = crate.add(SoftwareApplication(crate, "#study", _software(records)))
    terms = {"@type": "CreativeWork", "name": "BSD 3-Clause License"}
    software["license"] = crate.add(ContextEntity(crate, SOFTWARE_LICENSE, terms))
    owned, made = owned_places(jobs), _files(crate, run_folder, digest)
    results: dict[str, list[Any]] = {name: [] for name in records}
    for place, file in made.items():
        job = job_owning(place, owned)
        if job and job.name in results:
            results[job.name].append(file)
    for name, record in sorted(records.items()):
        times = {
            "name": name,
            "startTime": record["started"],
            "endTime": _end(record["started"], record["wall_s"]),
        }
        action = crate.add_action(
            software,
            identifier=f"#{name}",
            object=[made[path] for path in sorted(record.get("inputs", {})) if path in made],
            result=results[name],
            properties=times,
        )
        crate.root_dataset.append_to("mentions", action)
        if authors:
            action["agent"] = authors
    ends = [_end(record["started"], record["wall_s"]) for record in records.values()]
    if ends:
        crate.datePublished = datetime.fromisoformat(max(ends))
    content: dict[str, Any] = crate.metadata.generate()
    content["@context"] = [content["@context"], {"sha256": "http://schema.org/sha256"}]
    return content


def _files(crate: ROCrate, run_folder: Path, digest: Digest) -> dict[str, Any]:
    """Return the crate's entity of each file, by place, made here."""
    places = [
        place
        for place in sealed_names(run_folder)
        if place != CRATE and (run_folder / place).is_file()
    ]
    return {
        place: crate.add_file(
            run_folder / place,
            dest_path=place,
            properties={
                "contentSize": str((run_folder / place).stat().st_size),
                "encodingFormat": MEDIA_TYPES.get(Path(place).suffix, "application/octet-stream"),
                "sha256": digest(run_folder / place),
            },
        )
        for place in places
    }


def _software(records: Mapping[str, Mapping[str, Any]]) -> dict[str, Any]:
    versions = {item for record in records.values() for item in record["versions"].items()}
    return {
        "name": "study_lib",
        "softwareVersion": __version__,
        "softwareRequirements": [f"{name} {version}" for name, version in sorted(versions)],
    }


def _license_of(crate: ROCrate, credit: Credit) -> ContextEntity:
    """Return the license of the run's files: the owner's, never that of the software."""
    if credit.license:
        named = {"@type": "CreativeWork", "name": credit.license}
        return ContextEntity(crate, credit.license if ":" in credit.license else "#license", named)
    text = "No license was given for these files: ask their authors before using them."
    return ContextEntity(crate, "#license", {"@type": "CreativeWork", "name": text})


def _end(started: str, wall_s: float) -> str:
    return (datetime.fromisoformat(started) + timedelta(seconds=wall_s)).isoformat(
        timespec="seconds"
    )
