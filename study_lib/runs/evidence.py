"""Whether the evidence of a run is complete and untouched."""

import json
import os
from functools import cache
from pathlib import Path
from typing import Any

from study_lib.errors import InputError, StudyError
from study_lib.files import manifest_jobs, read_json
from study_lib.phases.conditions import replicate_folder
from study_lib.phases.records import manifests_of
from study_lib.runs.plan import PLAN_FILE, plan_content, plan_jobs
from study_lib.runs.run import BASE_FILE, DESIGN_FILE, open_run
from study_lib.runs.seal import UNREADABLE, Digest, digest_of, faults_of_seal, seal

NAME_SHOWN = 500


def faults_of_run(run_folder: Path) -> list[str]:
    """Return one line per job that is not done and per file that is missing, changed or extra.

    What the jobs recorded, see :func:`faults_of_records`, and whatever else is not as sealed.

    Raises
    ------
    InputError
        If the folder holds no run.
    """
    digest = cache(digest_of)  # many records name one file
    faults = faults_of_records(run_folder, digest)
    told = {fault.split(": ")[0] for fault in faults}
    by_seal = faults_of_seal(run_folder, digest).items()
    return faults + [f"{name}: {fault}" for name, fault in by_seal if name not in told]


def finish(run_folder: Path) -> None:
    """Seal a run whose jobs are done.

    Raises
    ------
    StudyError
        If a record and its file differ: something has changed a file after its job.
    """
    faults = faults_of_records(run_folder, cache(digest_of))
    if faults:
        raise StudyError(
            "\n".join(
                ["the run is not sealed; remove these files and run `study resume`:", *faults]
            )
        )
    seal(run_folder)


def faults_of_records(run_folder: Path, digest: Digest = digest_of) -> list[str]:
    """Return one line per job that is not done and per recorded file that is missing or changed.

    The jobs are those that the run's design asks for, whatever the plan in the folder says. Every
    output of a job is held against its ``done.json``, and every input and output that a phase's
    manifest names against the hash recorded there. A missing file has one line, whoever names it.

    Parameters
    ----------
    run_folder
        The run.
    digest
        What hashes a file: one that remembers spares files that several records name.

    Raises
    ------
    InputError
        If the folder holds no run.
    """
    if not run_folder.is_dir():
        raise InputError(f"{run_folder}: no such folder; give a run below reports/")
    design = open_run(run_folder).design
    jobs = plan_jobs(design, BASE_FILE if design.base else None)
    faults = []
    if design.digest not in run_folder.resolve().name:
        faults.append(f"design.json: is design {design.digest}, the folder is named for another")
    if _read(run_folder / PLAN_FILE) != json.loads(json.dumps(plan_content(jobs))):
        faults.append(f"{PLAN_FILE}: is not the plan of this design")
    for job in jobs:
        recorded = _read(run_folder / job.done).get("sha256")
        if not isinstance(recorded, dict):
            faults.append(f"{job.name}: not done")
            continue
        for name in (job.executed, *job.outputs):
            faults += _fault_of(run_folder, name, recorded.get(name), job.done, digest)
    for other in design.repetitions[1:]:
        path = replicate_folder(other.replicate) / DESIGN_FILE
        if _read(run_folder / path) != other.model_dump(mode="json"):
            faults.append(f"{path.as_posix()}: is not the design of this replicate")
    for manifest in manifests_of(run_folder):
        faults += _faults_of_manifest(manifest, run_folder, digest)
    return list(dict.fromkeys(faults))


def _faults_of_manifest(manifest: Path, run_folder: Path, digest: Digest) -> list[str]:
    place = manifest.relative_to(run_folder).as_posix()
    faults = []
    try:
        jobs = manifest_jobs(manifest)
    except InputError:
        return [f"{place}: is not a manifest"]
    for key, record in jobs.items():
        if record.get("status") != "done":
            faults.append(f"{place}: {key} is {record.get('status')}: {record.get('error')}")
        files = [record.get("inputs", {}), record.get("outputs", {})]
        if not all(isinstance(part, dict) for part in files):
            faults.append(f"{place}: {key} names no files")
            continue
        for name, sha256 in {**files[0], **files[1]}.items():
            in_run = os.path.normpath(Path(place).parent / name)
            faults += _fault_of(run_folder, in_run, sha256, f"{place} ({key})", digest)
    return faults


def _fault_of(run_folder: Path, name: str, sha256: Any, record: str, digest: Digest) -> list[str]:
    """Return the line of a file, named from the run's folder, that is not as a record says."""
    path = run_folder / name
    try:
        is_there = path.is_file()
    except OSError:  # a name that no file can have
        is_there = False
    if not is_there:
        return [f"{name[:NAME_SHOWN]}: missing"]
    found = digest(path)
    if found is None:
        return [f"{name}: {UNREADABLE}"]
    return [] if sha256 == found else [f"{name}: differs from its record in {record}"]


def _read(path: Path) -> dict[str, Any]:
    """Return the content of a record; nothing if there is no readable one."""
    try:
        content = read_json(path)
    except StudyError:  # missing or damaged: then it vouches for nothing, which is told as a fault
        return {}
    return content if isinstance(content, dict) else {}
