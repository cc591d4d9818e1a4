"""The frozen plan of a run: one job per notebook, dose, view and split."""

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from functools import cache
from pathlib import Path
from typing import Any

from study_lib.design import SPLITS, StudyDesign
from study_lib.errors import InputError
from study_lib.files import read_json
from study_lib.notebook_parameters import parameters_of
from study_lib.paths import (
    COMPARED,
    THINNED_FILES,
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

PLAN_FILE = "plan.json"
NOTEBOOK_FOLDER = Path(__file__).resolve().parent.parent / "notebooks"
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


def _jobs_of_dose(design: StudyDesign, dose: float, run_folder: Path) -> list[PlannedJob]:
    """Return the jobs of one dose of one replicate, whose folder lies in the run's."""
    roots = {phase: phase_root(run_folder, phase) for phase in "CDEFG"}
    place = {"run_folder": run_folder.as_posix()}
    suffix = () if run_folder == RUN else (run_folder.name,)
    dataset = _job(
        "01_dataset",
        dose_name(dose),
        *suffix,
        after=[],
        folder=roots["C"] / dose_name(dose),
        outputs=[dataset_path(roots["C"], dose, split) for split in SPLITS],
        parameters=place | {"dose": dose},
    )
    jobs = [dataset]
    for view in design.views:
        condition = place | {"dose": dose, "view": view.name}
        label = (dose_name(dose), view.name)
        view_files = [view_path(roots["C"], roots["D"], dose, view.name, split) for split in SPLITS]
        metrics = view_folder(roots["D"], dose, view.name) / "metrics_bundle.json"
        overlap = _job(
            "02_overlap",
            *label,
            *suffix,
            after=[dataset.name],
            folder=metrics.parent,
            outputs=[
                metrics,
                *(metrics.parent / f"{split}_metrics.json" for split in SPLITS),
                *(path for path in view_files if path.is_relative_to(roots["D"])),
            ],
            parameters=condition,
        )
        trained = training_folder(roots["E"], dose, view.name, view.gridsize)
        train = _job(
            "03_train",
            *label,
            *suffix,
            after=[overlap.name],
            folder=trained,
            outputs=[
                trained / name
                for name in (
                    "model.pt",
                    "history.json",
                    "history.csv",
                    "test_patches.npz",
                    "train.log",
                )
            ],
            parameters=condition,
        )
        learned = [train]
        if design.thinned is not None:
            folder = thinned_folder(roots["E"], dose, view.name)
            learned.append(
                _job(
                    "03_train_thinned",
                    *label,
                    *suffix,
                    after=[overlap.name],
                    folder=folder,
                    outputs=[folder / name for name in THINNED_FILES],
                    parameters=condition,
                )
            )
        jobs += [overlap, *learned]
        # What is denoised is denoised as the train split chose.
        chosen = "__".join(("04_reconstruct", *label, "train", *suffix))
        before = [chosen] if design.iterative.denoised else []
        for split in SPLITS:
            iterative = reconstruction_folder(roots["F"], dose, view.name, split)
            reconstruct = _job(
                "04_reconstruct",
                *label,
                split,
                *suffix,
                after=[overlap.name],
                folder=iterative,
                outputs=[iterative / "reconstructions.json"],
                parameters=condition | {"split": split},
            )
            compared = comparison_folder(roots["G"], dose, view.name, split)
            compare = _job(
                "05_compare",
                *label,
                split,
                *suffix,
                after=list(
                    dict.fromkeys([*(job.name for job in learned), *before, reconstruct.name])
                ),
                folder=compared,
                outputs=[compared / name for name in COMPARED],
                parameters=condition | {"split": split},
            )
            jobs += [reconstruct, compare]
    return jobs


def _job(
    notebook: str,
    *label: str,
    after: list[str],
    folder: Path,
    outputs: list[Path],
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


@cache
def code_digest(notebook: str) -> str:
    """Return a hash of the library's sources and one notebook's code cells, not its outputs."""
    digest = hashlib.sha256()
    for path in sorted(Path(__file__).parent.glob("*.py")):
        digest.update(path.name.encode() + b"\0" + path.read_bytes())
    for cell in read_json(NOTEBOOK_FOLDER / f"{notebook}.ipynb")["cells"]:
        digest.update("".join(cell["source"]).encode() + b"\0")
    return digest.hexdigest()[:16]
