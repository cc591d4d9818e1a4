"""Schedulers of clusters: their profiles, and which of a run's jobs still live there.

Another scheduler: CANCEL, SUBMIT and live_jobs here; SCHEDULER_IDS in job; a profile in
workflow/profiles.
"""

import getpass
import hashlib
import importlib.util
import shutil
import subprocess
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from study_lib.design.presets import parse_yaml
from study_lib.errors import InputError, StudyError
from study_lib.runs.job import holder_of, is_held, read_record
from study_lib.runs.plan import PlannedJob
from study_lib.system import PROJECT

PROFILES = PROJECT / "workflow" / "profiles"
PROFILE_FILE = "config.yaml"
ARRAYS = "slurm-array-jobs"
ANSWER_S = 60
CANCEL = {"SLURM": "scancel", "PBS": "qdel"}
SUBMIT = {"slurm": "sbatch", "pbs": "qsub"}


@dataclass(frozen=True)
class LiveJob:
    """A job that an earlier engine left behind; it has a number if a scheduler can end it."""

    text: str
    scheduler: str | None = None
    number: str | None = None


def profile_folder(name: str) -> Path:
    """Return the folder of a profile: slurm, pbs, or the path of one of the user's own.

    Raises
    ------
    InputError
        If there is no such profile, or what it needs is not on this machine.
    """
    own = Path(name)
    folder = PROFILES / name if (PROFILES / name).is_dir() else own.resolve()
    if not (folder / PROFILE_FILE).is_file():
        known = ", ".join(sorted(path.name for path in PROFILES.iterdir()))
        raise InputError(
            f"profile {name!r}: no {PROFILE_FILE} there; choose {known}, or the path of a folder "
            f"that holds a {PROFILE_FILE}"
        )
    executor = executor_of(folder)
    plugin = f"snakemake_executor_plugin_{executor.replace('-', '_')}"
    if executor not in ("", "local") and importlib.util.find_spec(plugin) is None:
        raise InputError(
            f"profile {name}: the package {plugin.replace('_', '-')} is not installed; "
            "install the study with its extra slurm or pbs, see docs/clusters.md"
        )
    program = SUBMIT.get(name)
    if program and shutil.which(program) is None:
        raise InputError(
            f"profile {name}: no {program} on this machine; log in to a node of the cluster "
            "from which jobs are submitted"
        )
    return folder


def executor_of(folder: Path) -> str:
    """Return the executor that a profile names; empty if it names none.

    Raises
    ------
    InputError
        If the profile is not YAML, or has an alias.
    """
    return str(_options_of(folder).get("executor", ""))


def submits_arrays(folder: Path) -> bool:
    """Return whether a profile submits the jobs of a notebook as arrays of SLURM.

    Raises
    ------
    InputError
        If the profile is not YAML, or has an alias.
    """
    return executor_of(folder) == "slurm" and bool(_options_of(folder).get(ARRAYS))


def _options_of(folder: Path) -> Mapping[str, Any]:
    path = folder / PROFILE_FILE
    content = parse_yaml(path.read_bytes(), str(path))
    return content if isinstance(content, dict) else {}


def run_tag(run_folder: Path) -> str:
    """Return the name under which schedulers know every job of a run, at most 15 letters."""
    place = str(run_folder.resolve()).encode()
    return f"study-{hashlib.sha256(place).hexdigest()[:8]}"


def live_jobs(run_folder: Path, jobs: Sequence[PlannedJob], *, must_answer: bool) -> list[LiveJob]:
    """Return the jobs of a run that wait or run somewhere, although no engine of this run does.

    Known are those whose lock is held, and those that SLURM or PBS have under the run's tag, be
    they still in the queue.

    Parameters
    ----------
    run_folder
        The run.
    jobs
        Its plan.
    must_answer
        Whether a scheduler that is here and does not answer is an error.

    Raises
    ------
    StudyError
        If a scheduler does not answer.
    """
    tag = run_tag(run_folder)
    found = [*_slurm_jobs(tag, must_answer), *_pbs_jobs(tag, must_answer)]
    known = {job.number for job in found}
    for job in jobs:
        record = read_record(run_folder / job.running)
        if is_held(run_folder, job) and record.get("id") not in known:
            # Without its number: it may be that of an allocation in which the user works.
            found.append(LiveJob(f"{job.name} ({holder_of(run_folder, job)})"))
    return found


def cancel(live: Sequence[LiveJob]) -> None:
    """Have the schedulers end their jobs.

    Raises
    ------
    StudyError
        If a scheduler refuses.
    """
    for scheduler, program in CANCEL.items():
        numbers = [job.number for job in live if job.scheduler == scheduler and job.number]
        if numbers:
            _answer([program, *numbers], must_answer=True)


def _slurm_jobs(tag: str, must_answer: bool) -> list[LiveJob]:
    command = ["squeue", "--noheader", f"--user={getpass.getuser()}", "--format=%i|%j|%T|%k"]
    rows = [line.strip().split("|") for line in _answer(command, must_answer)]
    return [
        LiveJob(f"{row[3].removeprefix('rule_')} (SLURM {row[0]}, {row[2]})", "SLURM", row[0])
        for row in rows
        if len(row) == 4 and row[1].startswith(tag)
    ]


def _pbs_jobs(tag: str, must_answer: bool) -> list[LiveJob]:
    command = ["qselect", "-u", getpass.getuser(), "-N", tag, "-s", "EHQRTW"]
    numbers = [line.strip() for line in _answer(command, must_answer) if line.strip()]
    return [LiveJob(f"PBS {number}", "PBS", number) for number in numbers]


def _answer(command: Sequence[str], must_answer: bool) -> list[str]:
    """Return the lines a scheduler answers; none where it is not installed."""
    if shutil.which(command[0]) is None:
        return []
    try:
        result = subprocess.run(
            command, capture_output=True, text=True, check=True, timeout=ANSWER_S
        )
    except subprocess.SubprocessError as error:
        if not must_answer:
            return []
        said = " ".join((getattr(error, "stderr", None) or str(error)).split())
        raise StudyError(
            f"{command[0]} does not answer ({said}); whether jobs of this run still live there "
            "is unknown, so nothing was started; try again when it does"
        ) from None
    return result.stdout.splitlines()
