"""The frozen plan of a run: one job per notebook, dose, view and split."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import yaml

from study_lib.design.models import SPLITS, StudyDesign, ViewDesign
from study_lib.design.notebooks import parameters_of
from study_lib.errors import InputError
from study_lib.files import read_json, write_text
from study_lib.phases.conditions import (
    COMPARED,
    THINNED_FILES,
    TRAINED_FILES,
    comparison_folder,
    dataset_path,
    dose_name,
    phase_root,
    reconstruction_folder,
    replicate_folder,
    summary_files,
    thinned_folder,
    training_folder,
    view_folder,
    view_path,
)
from study_lib.system import PROJECT

PLAN_FILE = "plan.json"
NOTEBOOK_FOLDER = PROJECT / "notebooks"
RUN = Path()
TRAINED_OR_COMPARED = ("03_train", "03_train_thinned", "05_compare")
# What the outputs of a job have to hold as finite numbers, by notebook and by the file's name.
METRICS: dict[str, dict[str, tuple[str, ...]]] = {
    "02_overlap": {"metrics_bundle.json": ("metric_2_image", "lit_share_of_scanned")},
    "03_train": {"history.json": ("train", "validation", "uniform_object")},
    "03_train_thinned": {"thinned.json": ("validation_gain_nats", "final_loss")},
    "04_reconstruct": {"reconstructions.json": ("residual", "final_loss")},
    "05_compare": {"metrics.json": ("phase_ssim", "phase_ms_ssim", "phase_psnr_db")},
    "06_summary": {"summary.json": ("phase_ssim", "phase_ms_ssim")},
}


@dataclass(frozen=True)
class PlannedJob:
    """One execution of a notebook; every path is relative to the run's folder.

    ``folder`` receives the events. ``outputs``, at least ``figures`` figures in the notebook, and
    ``metrics``, names of numbers in some of the outputs, are the evidence without which the job has
    failed.
    """

    name: str
    notebook: str
    parameters: Mapping[str, Any]
    after: Sequence[str]
    folder: str
    outputs: Sequence[str]
    metrics: Mapping[str, Sequence[str]] = field(default_factory=dict)
    figures: int = field(default=1)

    @property
    def executed(self) -> str:
        """The executed notebook."""
        return f"notebooks/{self.name}.ipynb"

    @property
    def done(self) -> str:
        """The file that proves the job is done."""
        return f"jobs/{self.name}/done.json"

    @property
    def failed(self) -> str:
        """The file that says why the last try failed."""
        return f"jobs/{self.name}/failed.json"

    @property
    def running(self) -> str:
        """The file that says who runs the job, while it does."""
        return f"jobs/{self.name}/running.json"

    @property
    def lock(self) -> str:
        """The file whose lock the process that runs the job holds."""
        return f"jobs/{self.name}/job.lock"


def plan_jobs(design: StudyDesign, base_npz: str | None = None) -> list[PlannedJob]:
    """Return every job of a study in an order that respects what each one needs.

    Raises
    ------
    InputError
        If the parameters of a job are wrong; nothing has been started then.
    """
    first = _job(
        "00_design",
        after=[],
        folder=Path("phase_a_design"),
        outputs=[Path("phase_a_design/matrix.csv")],
        parameters={"preset": design.preset, "base_npz": base_npz},
    )
    jobs = [first]
    for repetition in design.repetitions:
        is_first = repetition.replicate == design.replicate
        folder = RUN if is_first else replicate_folder(repetition.replicate)
        for dose in design.doses:
            jobs += _jobs_of_dose(repetition, dose, folder)
    summary = phase_root(RUN, "H")
    jobs.append(
        _job(
            "06_summary",
            after=[job.name for job in jobs if job.notebook in TRAINED_OR_COMPARED],
            folder=summary,
            outputs=summary_files(summary, design.doses),
            parameters={},
        )
    )
    return jobs


@dataclass(frozen=True)
class _Condition:
    """One dose of one replicate, whose folder lies in the run's, and one of its views."""

    design: StudyDesign
    dose: float
    run_folder: Path
    view: ViewDesign

    def root(self, phase: str) -> Path:
        """Return the folder of a phase, within the run."""
        return phase_root(self.run_folder, phase)

    def job(
        self,
        notebook: str,
        split: str | None = None,
        *,
        after: Sequence[PlannedJob],
        folder: Path,
        outputs: Sequence[Path],
    ) -> PlannedJob:
        """Return the job of a notebook for this condition, and for one split if it has one."""
        condition = {"dose": self.dose, "view": self.view.name}
        return _job(
            notebook,
            dose_name(self.dose),
            self.view.name,
            *([split] if split else []),
            *_suffix(self.run_folder),
            after=list(dict.fromkeys(job.name for job in after)),
            folder=folder,
            outputs=outputs,
            parameters=_place(self.run_folder) | condition | ({"split": split} if split else {}),
        )


def _jobs_of_dose(design: StudyDesign, dose: float, run_folder: Path) -> list[PlannedJob]:
    """Return the jobs of one dose of one replicate, whose folder lies in the run's."""
    root = phase_root(run_folder, "C")
    dataset = _job(
        "01_dataset",
        dose_name(dose),
        *_suffix(run_folder),
        after=[],
        folder=root / dose_name(dose),
        outputs=[dataset_path(root, dose, split) for split in SPLITS],
        parameters=_place(run_folder) | {"dose": dose},
    )
    jobs = [dataset]
    for view in design.views:
        condition = _Condition(design, dose, run_folder, view)
        overlap = _overlap_job(condition, dataset)
        learned = _training_jobs(condition, overlap)
        jobs += [overlap, *learned, *_split_jobs(condition, overlap, learned)]
    return jobs


def _overlap_job(condition: _Condition, dataset: PlannedJob) -> PlannedJob:
    root, dose, view = condition.root("D"), condition.dose, condition.view.name
    files = [view_path(condition.root("C"), root, dose, view, split) for split in SPLITS]
    folder = view_folder(root, dose, view)
    return condition.job(
        "02_overlap",
        after=[dataset],
        folder=folder,
        outputs=[
            folder / "metrics_bundle.json",
            *(folder / f"{split}_metrics.json" for split in SPLITS),
            *(path for path in files if path.is_relative_to(root)),
        ],
    )


def _training_jobs(condition: _Condition, overlap: PlannedJob) -> list[PlannedJob]:
    root, dose, view = condition.root("E"), condition.dose, condition.view
    folders: dict[str, tuple[Path, tuple[str, ...]]] = {
        "03_train": (training_folder(root, dose, view.name, view.gridsize), TRAINED_FILES)
    }
    if condition.design.thinned is not None:
        folders["03_train_thinned"] = (thinned_folder(root, dose, view.name), THINNED_FILES)
    return [
        condition.job(
            notebook, after=[overlap], folder=folder, outputs=[folder / name for name in names]
        )
        for notebook, (folder, names) in folders.items()
    ]


def _split_jobs(
    condition: _Condition, overlap: PlannedJob, learned: Sequence[PlannedJob]
) -> list[PlannedJob]:
    """Return for each split its reconstruction and its comparison."""
    dose, view = condition.dose, condition.view.name
    reconstructions = {}
    for split in SPLITS:
        folder = reconstruction_folder(condition.root("F"), dose, view, split)
        reconstructions[split] = condition.job(
            "04_reconstruct",
            split,
            after=[overlap],
            folder=folder,
            outputs=[folder / "reconstructions.json"],
        )
    # What is denoised is denoised as the train split chose.
    chosen = [reconstructions["train"]] if condition.design.iterative.denoised else []
    jobs = []
    for split, reconstruct in reconstructions.items():
        folder = comparison_folder(condition.root("G"), dose, view, split)
        compare = condition.job(
            "05_compare",
            split,
            after=[*learned, *chosen, reconstruct],
            folder=folder,
            outputs=[folder / name for name in COMPARED],
        )
        jobs += [reconstruct, compare]
    return jobs


def _place(run_folder: Path) -> dict[str, str]:
    return {"run_folder": run_folder.as_posix()}


def _suffix(run_folder: Path) -> tuple[str, ...]:
    """Return what names of jobs end in: nothing in the first replicate."""
    return () if run_folder == RUN else (run_folder.name,)


def _job(
    notebook: str,
    *label: str,
    after: list[str],
    folder: Path,
    outputs: Sequence[Path],
    parameters: Mapping[str, Any],
) -> PlannedJob:
    values = {"run_folder": ".", **parameters}
    parameters_of(notebook, values)
    return PlannedJob(
        name="__".join((notebook, *label)),
        notebook=notebook,
        parameters=values,
        after=tuple(after),
        folder=folder.as_posix(),
        outputs=tuple(path.as_posix() for path in outputs),
        metrics={
            path.as_posix(): METRICS[notebook][path.name]
            for path in outputs
            if path.name in METRICS.get(notebook, {})
        },
    )


def plan_content(jobs: Sequence[PlannedJob]) -> dict[str, Any]:
    """Return the plan as plain data."""
    return {"jobs": [asdict(job) for job in jobs]}


def read_plan(path: Path) -> list[PlannedJob]:
    """Return the jobs of a plan file.

    Raises
    ------
    InputError
        If the file is missing or is not a plan.
    """
    content = read_json(path)
    try:
        return [_read_job(job) for job in content["jobs"]]
    except (KeyError, TypeError, AttributeError) as error:
        raise InputError(f"{path}: not a plan of this study ({error})") from None


def _read_job(content: Mapping[str, Any]) -> PlannedJob:
    metrics = {path: tuple(names) for path, names in content["metrics"].items()}
    sequences = {name: tuple(content[name]) for name in ("after", "outputs")}
    return PlannedJob(**{**content, **sequences, "metrics": metrics})


# --- Parameters of every notebook as files for papermill

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
