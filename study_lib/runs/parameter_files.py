"""Parameters of every notebook of a study as files for papermill."""

from pathlib import Path
from typing import Any

import yaml

from study_lib.design.models import StudyDesign
from study_lib.design.notebooks import parameters_of
from study_lib.files import write_text
from study_lib.runs.plan import PlannedJob, plan_jobs

# In the order of papermill's file names: dose, view, split; a whole study has the preset's name.
LABELS = ("dose", "view", "split")


def parameter_files(design: StudyDesign, run_folder: str) -> dict[Path, dict[str, Any]]:
    """Return the parameters of each job of a design, by the path of its file.

    Paths are like ``train/dose1000_baseline.yaml``. Jobs of other replicates are left out: they are
    runs of their own inside the first.

    Parameters
    ----------
    design
        The design.
    run_folder
        Folder of the run, as seen from where papermill is called.

    Raises
    ------
    InputError
        If a job's parameters are wrong.
    """
    single = design.model_copy(update={"replicates": 1})
    files = {}
    for job in plan_jobs(single):
        values = {**job.parameters, "run_folder": run_folder}
        files[_path_of(job, design)] = parameters_of(job.notebook, values).model_dump()
    return files


def write_parameter_files(folder: Path, design: StudyDesign, run_folder: str) -> list[Path]:
    """Write the files below a folder; return their paths."""
    written = []
    for place, values in parameter_files(design, run_folder).items():
        write_text(folder / place, yaml.safe_dump(values, sort_keys=False))
        written.append(folder / place)
    return written


def _path_of(job: PlannedJob, design: StudyDesign) -> Path:
    values = [job.parameters[name] for name in LABELS if name in job.parameters]
    words = [f"dose{value:.0f}" if isinstance(value, float) else str(value) for value in values]
    return Path(job.notebook[3:], f"{'_'.join(words) or design.preset}.yaml")
