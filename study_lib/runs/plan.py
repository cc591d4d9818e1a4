"""The frozen plan of a run: one job per notebook and what it depends on.

That is the replicate, the level of a mismatch, and of dose, view and split as many as the notebook
has.
"""

import hashlib
import json
import re
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path, PurePosixPath
from typing import Any

import yaml

from study_lib.design.axes import SPLITS, dose_text
from study_lib.design.models import StudyDesign
from study_lib.design.notebooks import deciding_part, parameters_of
from study_lib.errors import InputError
from study_lib.files import json_text, read_json, read_text, write_text
from study_lib.phases.conditions import (
    COMPARED,
    RECONSTRUCTED,
    REFERENCE,
    REFERENCE_FILES,
    THINNED_FILES,
    TRAINED_FILES,
    Condition,
    PlacesBelow,
    condition_of,
    runs_within,
    summary_files,
    taught_folder,
)
from study_lib.runs.rules import LAST_OF_A_CONDITION, done
from study_lib.runs.run import BASE_FILE
from study_lib.system import PROJECT

NOTEBOOK_FOLDER = PROJECT / "notebooks"
RUN = Path()
NAME_IN_LINE = re.compile(r'"name": "([^"]*)"')
# What the outputs of a job have to hold as finite numbers, by notebook and by the file's name.
TAKEN_FROM_A_VIEW = ("03_train_thinned", "04_reconstruct")
METRICS: dict[str, dict[str, tuple[str, ...]]] = {
    "01_reference": {"reference.json": ("whole_share", "phase_ssim")},
    "02_overlap": {"metrics_bundle.json": ("metric_2_image", "lit_share_of_scanned")},
    "03_train": {"history.json": ("train", "validation", "uniform_object")},
    "03_train_thinned": {"thinned.json": ("validation_gain_nats", "final_loss")},
    "04_reconstruct": {RECONSTRUCTED: ("residual", "final_loss")},
    "05_compare": {"metrics.json": ("phase_ssim", "phase_ms_ssim", "phase_psnr_db")},
    "06_summary": {"summary.json": ("phase_ssim", "phase_ms_ssim")},
}


@dataclass(frozen=True)
class PlannedJob:
    """One execution of a notebook; every path is relative to the run's folder.

    ``design_part`` is a hash of the values of the design that decide its results. ``folder``
    receives the events. ``outputs``, at least ``figures`` figures in the notebook, and
    ``metrics``, names of numbers in some of the outputs, are the evidence without which the job has
    failed. ``inputs`` are the outputs of the jobs that it waits for.
    """

    name: str
    notebook: str
    parameters: Mapping[str, Any]
    design_part: str
    after: Sequence[str]
    folder: str
    outputs: Sequence[str]
    metrics: Mapping[str, Sequence[str]] = field(default_factory=dict)
    figures: int = 1
    inputs: Sequence[str] = field(default=(), compare=False, repr=False)

    @property
    def after_same_notebook(self) -> list[str]:
        """The jobs of the same notebook that it waits for: those of a view of all patterns."""
        return [name for name in self.after if name.partition("__")[0] == self.notebook]

    @property
    def executed(self) -> str:
        """The executed notebook."""
        return f"notebooks/{self.name}.ipynb"

    @property
    def done(self) -> str:
        """The file that proves the job is done."""
        return done(self.name)

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


def plan_jobs(design: StudyDesign) -> list[PlannedJob]:
    """Return every job of a study in an order that respects what each one needs.

    Parameters
    ----------
    design
        Its doses, views, replicates and listed values of a mismatch make the jobs.

    Returns
    -------
    list of PlannedJob
        Each after those it needs, which ``after`` names.

    Raises
    ------
    InputError
        If the parameters of a job are wrong; nothing has been started then.

    Examples
    --------
    One dose, three views, two splits:

    >>> from collections import Counter
    >>> import study_lib as study
    >>> jobs = study.plan_jobs(study.load_design("smoke"))
    >>> for notebook, count in Counter(job.notebook for job in jobs).items():
    ...     print(count, notebook)
    1 00_design
    1 01_dataset
    3 02_overlap
    3 03_train
    3 03_train_thinned
    6 04_reconstruct
    6 05_compare
    1 06_summary
    >>> jobs[3].name, jobs[3].after
    ('03_train__dose_10000__baseline', ('02_overlap__dose_10000__baseline',))
    """
    base = BASE_FILE if design.base else None
    jobs = [
        _job(
            design,
            "00_design",
            after=[],
            folder=Path("phase_a_design"),
            outputs=[Path("phase_a_design/matrix.csv")],
            parameters={"run_folder": ".", "preset": None, "base_npz": base},
        )
    ]
    for one in runs_within(design):
        before = _reference_of(one.design, one.folder) if design.is_measured else []
        jobs += before
        for dose in one.design.doses:
            jobs += _jobs_of_dose(one.design, dose, one.folder, before)
    summary = PlacesBelow(RUN).root("summary")
    jobs.append(
        _job(
            design,
            "06_summary",
            after=[job for job in jobs if job.notebook in LAST_OF_A_CONDITION],
            folder=summary,
            outputs=summary_files(summary, design),
            parameters={"run_folder": "."},
        )
    )
    return jobs


def _reference_of(design: StudyDesign, run_folder: Path) -> list[PlannedJob]:
    """Return the job that divides measured photons and makes the reference, one for all doses."""
    dose = design.doses[0]
    first = condition_of(design, PlacesBelow(run_folder), dose, design.views_at(dose)[0].name)
    outputs = [first.folder(REFERENCE) / name for name in REFERENCE_FILES]
    return [_job_of("01_reference", first, run_folder, (), after=[], outputs=outputs)]


def _jobs_of_dose(
    design: StudyDesign, dose: float, run_folder: Path, before: Sequence[PlannedJob]
) -> list[PlannedJob]:
    """Return the jobs of one dose of a run inside the run, whose folder lies in the run's.

    Of measured counts a view may hold the patterns of one that leaves none out, where the scan has
    no more overlap to give: it waits for that one, and takes what was computed of them.
    """
    places = PlacesBelow(run_folder)
    views = design.views_at(dose)
    first = condition_of(design, places, dose, views[0].name)
    dataset = _job_of(
        "01_dataset",
        first,
        run_folder,
        ("dose",),
        after=before,
        outputs=_files(first, "whole_file"),
    )
    jobs = [dataset]
    whole: list[PlannedJob] = []
    for view in views:
        condition = condition_of(design, places, dose, view.name)
        made = _jobs_of_view(condition, run_folder, dataset, whole)
        jobs += made
        if design.is_measured and view.keeps_all and not whole:
            whole = [job for job in made if job.notebook in TAKEN_FROM_A_VIEW]
    return jobs


def _jobs_of_view(
    condition: Condition, run_folder: Path, dataset: PlannedJob, whole: Sequence[PlannedJob]
) -> list[PlannedJob]:
    """Return the jobs of one dose and view: its patterns, trainings, and both splits' objects.

    ``whole`` are the jobs of a view of all patterns that those of the same kind wait for.
    """
    design, folder = condition.design, condition.folder("overlap")
    measured = ["metrics_bundle.json", *(f"{split}_metrics.json" for split in SPLITS)]
    own = [] if condition.file == condition.whole_file else _files(condition, "file")
    axes = ("dose", "view")
    overlap = _job_of(
        "02_overlap",
        condition,
        run_folder,
        axes,
        after=[dataset],
        outputs=[*(folder / name for name in measured), *own],
    )
    learned = []
    if design.training is not None:
        files = [condition.folder("train") / name for name in TRAINED_FILES]
        job = _job_of("03_train", condition, run_folder, axes, after=[overlap], outputs=files)
        learned.append(job)
    if design.thinned is not None:
        learned += [
            _job_of(
                "03_train_thinned",
                condition.of(split),
                run_folder,
                (*axes, "split"),
                after=[overlap, *_of_split(split, "03_train_thinned", whole)],
                folder=taught_folder(condition, split),
                outputs=[taught_folder(condition, split) / name for name in THINNED_FILES],
            )
            for split in design.thinned.taught_by
        ]
    jobs = [overlap, *learned]
    chosen: list[PlannedJob] = []  # as the train split chose
    for one in (condition.of(split) for split in SPLITS):
        iterated = _job_of(
            "04_reconstruct",
            one,
            run_folder,
            (*axes, "split"),
            after=[overlap, *_of_split(one.split, "04_reconstruct", whole)],
            outputs=[one.folder("reconstruct") / RECONSTRUCTED],
        )
        if one.split == "train" and design.iterative.chooses:
            chosen.append(iterated)
        jobs.append(iterated)
        if one.split in design.compared_splits:
            compared = _job_of(
                "05_compare",
                one,
                run_folder,
                (*axes, "split"),
                after=[*learned, *chosen, iterated],
                outputs=[one.folder("compare") / name for name in COMPARED],
            )
            jobs.append(compared)
    return jobs


def _of_split(split: str, notebook: str, jobs: Iterable[PlannedJob]) -> list[PlannedJob]:
    """Return the jobs of a notebook on a split."""
    return [job for job in jobs if (job.notebook, job.parameters.get("split")) == (notebook, split)]


def _files(condition: Condition, kind: str) -> list[Path]:
    """Return a file of a condition, ``file`` or ``whole_file``, in each split."""
    return [getattr(condition.of(split), kind) for split in SPLITS]


def _job_of(
    notebook: str,
    condition: Condition,
    run_folder: Path,
    axes: Sequence[str],
    *,
    after: Sequence[PlannedJob],
    outputs: Sequence[Path],
    folder: Path | None = None,
) -> PlannedJob:
    """Return the job of a notebook for a condition; ``axes`` are those that its name tells.

    Its folder is that of the condition in the notebook's phase, unless another is given.
    """
    values = {"dose": condition.dose, "view": condition.view.name, "split": condition.split}
    labels = {**values, "dose": condition.design.dose_name(condition.dose)}
    suffix = () if run_folder == RUN else (run_folder.name,)
    return _job(
        condition.design,
        notebook,
        *(str(labels[axis]) for axis in axes),
        *suffix,
        after=after,
        folder=folder or condition.folder(notebook.partition("_")[2]),  # 03_train: a key of PHASES
        outputs=outputs,
        parameters={"run_folder": run_folder.as_posix()} | {axis: values[axis] for axis in axes},
    )


def _job(
    design: StudyDesign,
    notebook: str,
    *label: str,
    after: Sequence[PlannedJob],
    folder: Path,
    outputs: Sequence[Path],
    parameters: Mapping[str, Any],
) -> PlannedJob:
    parameters_of(notebook, parameters)
    return PlannedJob(
        name="__".join((notebook, *label)),
        notebook=notebook,
        parameters=parameters,
        design_part=digest_of_part(design_part(design, notebook, parameters)),
        after=tuple(dict.fromkeys(job.name for job in after)),
        inputs=_outputs_of(after),
        folder=folder.as_posix(),
        outputs=tuple(path.as_posix() for path in outputs),
        metrics={
            path.as_posix(): METRICS[notebook][path.name]
            for path in outputs
            if path.name in METRICS.get(notebook, {})
        },
    )


def design_part(
    design: StudyDesign, notebook: str, parameters: Mapping[str, Any]
) -> dict[str, Any]:
    """Return the values of a design, of the job's replicate, that decide a job, by dotted name."""
    return deciding_part(design.model_dump(mode="json"), notebook, parameters.get("view"))


def digest_of_part(part: Mapping[str, Any]) -> str:
    """Return a hash of what :func:`design_part` returns."""
    return hashlib.sha256(json_text(part).encode()).hexdigest()[:16]


def plan_content(jobs: Sequence[PlannedJob]) -> dict[str, Any]:
    """Return the plan as plain data."""
    jobs_as_data = [asdict(job) for job in jobs]
    for job in jobs_as_data:
        del job["inputs"]  # they follow from the rest
    return {"jobs": jobs_as_data}


def write_plan(path: Path, jobs: Sequence[PlannedJob]) -> None:
    """Write a plan as JSON with one job on each line, which can be read without the others."""
    lines = [json.dumps(job, sort_keys=True) for job in plan_content(jobs)["jobs"]]
    write_text(path, '{"jobs": [\n' + ",\n".join(lines) + "\n]}\n")


def _outputs_of(jobs: Iterable[PlannedJob]) -> tuple[str, ...]:
    """Return the outputs of some jobs, each job once."""
    return tuple(path for job in {job.name: job for job in jobs}.values() for path in job.outputs)


def read_plan(path: Path) -> list[PlannedJob]:
    """Return the jobs of a plan file.

    Raises
    ------
    InputError
        If the file is missing or is not a plan.
    """
    content = read_json(path)
    with _faults_of(path):
        jobs = [_read_job(job) for job in content["jobs"]]
        return _with_inputs(jobs, jobs)


def read_jobs(path: Path, names: Collection[str]) -> list[PlannedJob]:
    """Return some jobs of a plan file, in the order given; no others are read.

    Raises
    ------
    InputError
        If the file is missing or is not a plan, or has no such job.
    """
    lines = {}
    for line in read_text(path).splitlines():
        named = NAME_IN_LINE.search(line)
        if named:
            lines[named[1]] = line.rstrip(",")
    if not all(line.startswith("{") for line in lines.values()):  # not written by `write_plan`
        jobs = read_plan(path)
    else:
        with _faults_of(path):
            found = {name: _read_job(json.loads(lines[name])) for name in names if name in lines}
            before = {name for job in found.values() for name in job.after} - found.keys()
            others = [_read_job(json.loads(lines[name])) for name in before]
            jobs = _with_inputs(list(found.values()), [*found.values(), *others])
    by_name = {job.name: job for job in jobs}
    for name in names:
        if name not in by_name:
            raise InputError(f"job {name!r} is not in {path}; see `study plan`")
    return [by_name[name] for name in names]


@contextmanager
def _faults_of(path: Path) -> Iterator[None]:
    """Say of what cannot be read that the file is no plan."""
    try:
        yield
    except (KeyError, TypeError, AttributeError, ValueError) as error:
        raise InputError(
            f"{path}: not a plan of this study ({error}); `study resume` writes it again"
        ) from None


def _with_inputs(jobs: Iterable[PlannedJob], known: Iterable[PlannedJob]) -> list[PlannedJob]:
    """Return jobs with the outputs of those that they wait for."""
    by_name = {job.name: job for job in known}
    return [replace(job, inputs=_outputs_of(by_name[name] for name in job.after)) for job in jobs]


def _read_job(content: Mapping[str, Any]) -> PlannedJob:
    places = [content["name"], content["folder"], *content["outputs"]]
    for place in (*places, content["parameters"].get("run_folder", ".")):
        path = PurePosixPath(place)
        if path.is_absolute() or ".." in path.parts:
            raise InputError(
                f"plan: job {content['name']!r} names {place!r}, outside the run's folder; "
                "`study resume` writes the plan again"
            )
    metrics = {path: tuple(names) for path, names in content["metrics"].items()}
    sequences = {name: tuple(content[name]) for name in ("after", "outputs")}
    return PlannedJob(**{**content, **sequences, "metrics": metrics})


# --- Parameters of every notebook as files for papermill

# In the order of papermill's file names: dose, view, split; a whole study has the preset's name.
LABELS = ("dose", "view", "split")


def parameter_files(
    design: StudyDesign, run_folder: str, preset: str | None = None
) -> dict[Path, dict[str, Any]]:
    """Return the parameters of each job of a design, by the path of its file.

    Paths are like ``train/dose1000_baseline.yaml``. Jobs of other replicates and of levels of a
    mismatch are left out: they are runs of their own inside the first.

    Parameters
    ----------
    design
        The design.
    run_folder
        Folder of the run, as seen from where papermill is called.
    preset
        What the first notebook makes the run from; default: the design's.

    Raises
    ------
    InputError
        If a job's parameters are wrong.
    """
    single = design.model_copy(update={"replicates": 1, "mismatch": design.mismatch.with_one()})
    files = {}
    for job in plan_jobs(single):
        values = {**job.parameters, "run_folder": run_folder}
        if "preset" in values:
            values["preset"] = preset or design.preset
        files[_path_of(job, design)] = parameters_of(job.notebook, values).model_dump()
    return files


def write_parameter_files(
    folder: Path, design: StudyDesign, run_folder: str, preset: str | None = None
) -> list[Path]:
    """Write the files below a folder; return their paths."""
    written = []
    for place, values in parameter_files(design, run_folder, preset).items():
        write_text(folder / place, yaml.safe_dump(values, sort_keys=False))
        written.append(folder / place)
    return written


def _path_of(job: PlannedJob, design: StudyDesign) -> Path:
    values = [job.parameters[name] for name in LABELS if name in job.parameters]
    words = [
        f"dose{dose_text(value)}" if isinstance(value, float) else str(value) for value in values
    ]
    return Path(job.notebook[3:], f"{'_'.join(words) or design.preset}.yaml")
