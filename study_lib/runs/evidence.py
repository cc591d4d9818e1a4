"""Whether the evidence of a run is complete, untouched and free of secrets."""

import json
import os
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import Any

from study_lib.design.models import StudyDesign
from study_lib.errors import InputError, StudyError
from study_lib.files import json_text, manifest_jobs, read_json, sha256_of, write_json
from study_lib.phases.conditions import runs_within
from study_lib.phases.records import manifests_of, mixed_codes
from study_lib.runs.plan import PlannedJob, design_part, digest_of_part, plan_content, plan_jobs
from study_lib.runs.rules import PLAN_FILE
from study_lib.runs.run import DESIGN_FILE, faults_of_name, left_out, open_run

# --- The seal of a finished run: the hash of every file in its folder
#
# Not sealed, and no fault when changed or added: the engine's own folder ``.snakemake``, and files
# ``*.lock`` anywhere, which come and go with those who run or watch.

SEAL_FILE = "seal.json"
# What the engine keeps for itself, and what hides while a file is being written or locked.
NOT_SEALED = (".snakemake", ".lock")
UNREADABLE = "cannot be read as a file; a link to nothing or to a folder?"
Digest = Callable[[Path], str | None]


def digest_of(path: Path) -> str | None:
    """Return the hash of a file; none of what cannot be read as one."""
    try:
        return sha256_of(path)
    except OSError:  # a link to nothing or to a folder, or a file that is closed to this user
        return None


def seal(run_folder: Path, digest: Digest = digest_of) -> str:
    """Write the hash of every file of a run; return the hash of what was written.

    Parameters
    ----------
    run_folder
        The run.
    digest
        What hashes a file: one that remembers spares files that were hashed before.

    Raises
    ------
    StudyError
        If one cannot be read, such as a link to nothing or to a folder; nothing is sealed then.
    """
    files = {name: digest(run_folder / name) for name in sealed_names(run_folder)}
    unreadable = [f"{name}: {UNREADABLE}" for name, sha256 in files.items() if sha256 is None]
    if unreadable:
        raise StudyError(
            "\n".join(["the run is not sealed; remove these and run `study resume`:", *unreadable])
        )
    write_json(run_folder / SEAL_FILE, {"sha256": files})
    return sha256_of(run_folder / SEAL_FILE)


def faults_of_seal(run_folder: Path, digest: Digest = digest_of) -> dict[str, str]:
    """Return what is wrong with each file, by its name: missing, changed, extra or unreadable.

    Parameters
    ----------
    run_folder
        The run.
    digest
        What hashes a file: one that remembers spares files that were hashed before.
    """
    path = run_folder / SEAL_FILE
    if not path.is_file():
        return {SEAL_FILE: "missing: the run is not finished; go on with `study resume`"}
    try:
        content = read_json(path)
        known = dict(content["sha256"])
    except (StudyError, KeyError, TypeError, ValueError):
        return {SEAL_FILE: "is not a seal"}
    if path.read_text(encoding="utf-8") != json_text(content) or content.keys() != {"sha256"}:
        return {SEAL_FILE: "is not as it was written"}
    present = set(sealed_names(run_folder))
    faults = dict.fromkeys(known.keys() - present, "missing")
    faults |= dict.fromkeys(present - known.keys(), f"extra: not in {SEAL_FILE}")
    for name in sorted(present & known.keys()):
        found = digest(run_folder / name)
        if found is None:
            faults[name] = UNREADABLE
        elif found != known[name]:
            faults[name] = f"differs from {SEAL_FILE}"
    return faults


def sealed_names(run_folder: Path) -> Iterator[str]:
    """Yield every file of a run but the seal itself, locks and the engine's own, in POSIX form."""
    for path in sorted(run_folder.rglob("*")):
        place = path.relative_to(run_folder)
        is_own = place.parts[0] == NOT_SEALED[0] or path.suffix == NOT_SEALED[1]
        if not is_own and place.as_posix() != SEAL_FILE and (path.is_symlink() or path.is_file()):
            yield place.as_posix()


# --- Records and files

NAME_SHOWN = 500
WHOLE_DESIGN = "00_design"  # the notebook that every value decides


def faults_of_run(run_folder: Path, seal_sha256: str | None = None) -> list[str]:
    """Return one line per job that is not done and per file that is missing, changed or extra.

    What the jobs recorded, see :func:`faults_of_records`, and whatever else is not as sealed.

    Parameters
    ----------
    run_folder
        The run.
    seal_sha256
        Hash of the seal as it was printed when the run ended, if somebody kept it.

    Raises
    ------
    InputError
        If the folder holds no run.
    """
    digest = cache(digest_of)  # many records name one file
    faults = faults_of_records(run_folder, digest)
    named = {fault.split(": ")[0] for fault in faults}
    by_seal = faults_of_seal(run_folder, digest).items()
    faults += [f"{name}: {fault}" for name, fault in by_seal if name not in named]
    faults.sort(key=lambda fault: not fault.startswith(DESIGN_FILE))  # the cause before its effects
    found = digest(run_folder / SEAL_FILE)
    if seal_sha256 is not None and found != seal_sha256.lower():
        faults.append(
            f"{SEAL_FILE}: has the SHA-256 {found}, not {seal_sha256}: sealed again since that was "
            "printed, or that is the seal of another run"
        )
    return faults


def finish(run_folder: Path, digest: Digest | None = None) -> str:
    """Seal a run whose jobs are done; return the hash of the seal.

    Parameters
    ----------
    run_folder
        The run.
    digest
        As for :func:`seal`.

    Raises
    ------
    StudyError
        If a record and its file differ, or the jobs of a notebook were made by different designs
        or codes: something has been changed after its job.
    """
    digest = digest or cache(digest_of)
    faults = faults_of_records(run_folder, digest)
    if faults:
        raise StudyError(
            "\n".join(
                [
                    "the run is not sealed; `study resume` makes again what was changed (remove "
                    "what is still named here afterwards: no job makes it):",
                    *faults,
                ]
            )
        )
    return seal(run_folder, digest)


def faults_of_records(run_folder: Path, digest: Digest = digest_of) -> list[str]:
    """Return one line per job that is not done and per recorded file that is missing or changed.

    The jobs are those that the run's design asks for, whatever the plan in the folder says. Every
    output of a job is held against its ``done.json``, and every input and output that a phase's
    manifest names against the hash recorded there. A missing file has one line,
    however many name it.

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
    jobs = plan_jobs(design)
    faults = [f"{DESIGN_FILE}: {fault}" for fault in faults_of_name(run_folder, design)]
    if _read(run_folder / PLAN_FILE) != json.loads(json.dumps(plan_content(jobs))):
        faults.append(f"{PLAN_FILE}: is not the plan that this version makes of the design")
    designs = {one.folder.as_posix(): one.design for one in runs_within(design)}
    values = {folder: design_part(one, WHOLE_DESIGN, {}) for folder, one in designs.items()}
    for job in jobs:
        record = _read(run_folder / job.done)
        recorded = record.get("sha256")
        if not isinstance(recorded, dict):
            faults.append(f"{job.name}: not done")
            continue
        if record.get("parameters") != dict(job.parameters):
            faults.append(f"{job.name}: was made with other parameters than its design asks for")
        folder = job.parameters["run_folder"]
        faults += _faults_of_design(designs[folder], values[folder], job, record)
        inputs = record.get("inputs")
        for name, sha256 in inputs.items() if isinstance(inputs, dict) else ():
            faults += _fault_of(run_folder, name, sha256, job.done, digest)
        never = [name for name in job.outputs if name not in recorded]
        never = [name for name in never if not (run_folder / name).exists()]
        if never:
            faults.append(
                f"{job.name}: made no {never[0]}{_and_more(never)}, as this version would; "
                "`study resume` makes what is new"
            )
        for name in (job.executed, *job.outputs):
            if name not in never:
                faults += _fault_of(run_folder, name, recorded.get(name), job.done, digest)
    faults += mixed_codes(run_folder)
    _, *others = runs_within(design)
    for other in others:
        path = other.folder / DESIGN_FILE
        if _read(run_folder / path) != other.design.model_dump(mode="json"):
            what = "level of a mismatch" if other.field else "replicate"
            faults.append(f"{path.as_posix()}: is not the design of this {what}")
    for manifest in manifests_of(run_folder):
        faults += _faults_of_manifest(manifest, run_folder, digest)
    return list(dict.fromkeys(faults))


def _faults_of_design(
    design: StudyDesign, values: Mapping[str, Any], job: PlannedJob, record: Mapping[str, Any]
) -> list[str]:
    """Return a line if a job was made for other values than the design of its folder has.

    What a version of before took for deciding may be more than what this one does: it is held
    against all ``values`` of the design.
    """
    made_for: Any = record.get("design")
    part = made_for.get("part") if isinstance(made_for, dict) else None
    if not isinstance(part, dict):
        return [f"{job.name}: its record does not say for which design it was made"]
    if made_for.get("part_digest") != digest_of_part(part):
        return [f"{job.name}: its record of the design was changed"]
    now = design_part(design, job.notebook, job.parameters)
    changed = sorted(name for name in part if part[name] != values.get(name))
    changed += sorted(now.keys() - part.keys())
    if not changed:
        return []
    first = changed[0]
    return [
        f"{job.name}: was made with {first} = {part.get(first)}, {DESIGN_FILE} has "
        f"{values.get(first)}{_and_more(changed)}"
    ]


def _and_more(names: Sequence[str]) -> str:
    return f" (and {len(names) - 1} more)" if len(names) > 1 else ""


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
        return [] if name in left_out(run_folder) else [f"{name[:NAME_SHOWN]}: missing"]
    found = digest(path)
    if found is None:
        return [f"{name}: {UNREADABLE}"]
    return [] if sha256 == found else [f"{name}: differs from its record in {record}"]


def _read(path: Path) -> dict[str, Any]:
    """Return the content of a record; nothing if there is no readable one."""
    try:
        content = read_json(path)
    except StudyError:  # missing or damaged: a fault of its own
        return {}
    return content if isinstance(content, dict) else {}


# --- Secrets, looked for in what a run would publish

NAMES = re.compile(r"TOKEN|SECRET|PASSW|CREDENTIAL|(API|ACCESS|PRIVATE)_?KEY", re.IGNORECASE)
SHORTEST = 8  # a shorter value is in any text by chance
TEXTS = (".ipynb", ".json", ".jsonl", ".yaml", ".md", ".csv", ".html", ".log", ".txt", ".svg")


def exposed_values(run_folder: Path, environment: Mapping[str, str]) -> list[str]:
    """Return where the text files of a run hold the value of a secret variable, a line for each.

    A notebook that prints its environment, or a path with a password in it, ends up in a report.
    The lines name the variable and never the value.

    Parameters
    ----------
    run_folder
        The run.
    environment
        Variables by name; those whose name says token, secret, password, credential or key count.
    """
    secrets = {
        name: value.encode()
        for name, value in environment.items()
        if NAMES.search(name) and len(value) >= SHORTEST
    }
    return sorted(_found(run_folder, secrets)) if secrets else []


def _found(run_folder: Path, secrets: Mapping[str, bytes]) -> Iterator[str]:
    for path in run_folder.rglob("*"):
        if path.suffix not in TEXTS or not path.is_file():
            continue
        content = path.read_bytes()
        for name, value in secrets.items():
            if value in content:
                yield f"{path.relative_to(run_folder).as_posix()} holds the value of ${name}"
