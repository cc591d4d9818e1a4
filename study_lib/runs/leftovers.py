"""What a run leaves behind that is no evidence."""

import shutil
from pathlib import Path

from study_lib.errors import InputError
from study_lib.runs.job_lock import is_held
from study_lib.runs.plan import PLAN_FILE, read_plan
from study_lib.runs.progress import is_being_run
from study_lib.runs.run import open_run

PATTERNS = (
    "notebooks/*.failed.ipynb",
    "**/.*.part.ipynb",
    "**/.ipynb_checkpoints",
    "**/*.lock",
    ".engine.json",
    "jobs/*/failed.json",
    "jobs/*/running.json",
)


def leftovers_of(run_folder: Path) -> list[Path]:
    """Return files of failed tries, notebook checkpoints and locks, none beyond a link.

    What lies in a folder that is returned is not returned itself: it goes with the folder.

    Raises
    ------
    InputError
        If the folder holds no run, or one that is being run.
    """
    open_run(run_folder)
    plan = run_folder / PLAN_FILE
    jobs = read_plan(plan) if plan.is_file() else []
    if is_being_run(run_folder) or any(is_held(run_folder, job) for job in jobs):
        raise InputError(f"{run_folder} is being run; wait for it, or stop it first")
    found = {path for pattern in PATTERNS for path in run_folder.glob(pattern)}
    own = run_folder.resolve()
    inside = [path for path in found if path.parent.resolve().is_relative_to(own)]
    return sorted(path for path in inside if found.isdisjoint(path.parents))


def remove(paths: list[Path]) -> int:
    """Remove files, folders and links, not what links lead to; return how many bytes that frees."""
    freed = 0
    for path in paths:
        is_folder = path.is_dir() and not path.is_symlink()
        inside = [path, *path.rglob("*")] if is_folder else [path]
        freed += sum(one.lstat().st_size for one in inside if one.is_file())
        if is_folder:
            shutil.rmtree(path)
        else:
            path.unlink()
    return freed
