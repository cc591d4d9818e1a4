"""Whether the evidence of a run is complete and untouched."""

from pathlib import Path

from study_lib.errors import InputError
from study_lib.files import read_json, sha256_of
from study_lib.plan import PLAN_FILE, read_plan


def faults_of_run(run_folder: Path) -> list[str]:
    """Return one line per job that is not done and per file that is missing or has changed.

    Raises
    ------
    InputError
        If the folder holds no plan.
    """
    if not run_folder.is_dir():
        raise InputError(f"{run_folder}: no such folder; give a run below reports/")
    faults = []
    for job in read_plan(run_folder / PLAN_FILE):
        done = run_folder / job.done
        if not done.is_file():
            faults.append(f"{job.name}: not done")
            continue
        recorded = read_json(done)["sha256"]
        for name in (job.executed, *job.outputs):
            path = run_folder / name
            if not path.is_file():
                faults.append(f"{name}: missing")
            elif recorded.get(name) != sha256_of(path):
                faults.append(f"{name}: differs from its record in {job.done}")
    return faults
