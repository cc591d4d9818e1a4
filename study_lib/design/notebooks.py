"""The parameters of each notebook: checked before a kernel starts, and again inside it."""

from collections.abc import Mapping
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, Field, ValidationError

from study_lib.arm_names import current_arm
from study_lib.design.axes import SplitName, ViewName
from study_lib.design.methods import ARMS_ALONE
from study_lib.design.settings import Frozen, describe_faults
from study_lib.errors import InputError

NOTEBOOKS: dict[str, type["NotebookParameters"]] = {}
# The numbers of a comparison that are compared between runs; see study_lib/scores/across_runs.py.
ComparedMetric = Literal[
    "phase_ms_ssim", "phase_ssim", "phase_psnr_db", "phase_error_rad", "frc_crossing", "cpu_s"
]


class NotebookParameters(Frozen):
    """The parameters of a notebook; a class that names its notebook is one of ``NOTEBOOKS``."""

    def __init_subclass__(cls, *, notebook: str = "", **config: Any) -> None:
        super().__init_subclass__(**config)
        if notebook:
            NOTEBOOKS[notebook] = cls


class PhaseParameters(NotebookParameters):
    """The parameters of every notebook that is a phase of the study."""

    run_folder: str = Field(min_length=1, description="folder of the run")


class DesignParameters(PhaseParameters, notebook="00_design"):
    """Notebook 00."""

    preset: str | None = Field(
        min_length=1, description="a preset, the path of a YAML file, or None: as design.json says"
    )
    base_npz: str | None = Field(description="base data, or None for the synthetic object")


class ReferenceParameters(PhaseParameters, notebook="01_reference"):
    """Notebook 01 of measured counts: what comes before any dose."""


class DatasetParameters(PhaseParameters, notebook="01_dataset"):
    """Notebook 01."""

    dose: float = Field(gt=0, description="mean photons per pattern")


class OverlapParameters(DatasetParameters, notebook="02_overlap"):
    """Notebook 02."""

    view: ViewName


class TrainParameters(OverlapParameters, notebook="03_train"):
    """Notebook 03."""


class TrainThinnedParameters(OverlapParameters, notebook="03_train_thinned"):
    """Notebook 03 of the network that learns from thinned counts."""

    split: SplitName = Field(description="whose counts teach: test for the self-taught network")


class ReconstructParameters(OverlapParameters, notebook="04_reconstruct"):
    """Notebook 04."""

    split: SplitName


class CompareParameters(ReconstructParameters, notebook="05_compare"):
    """Notebook 05."""


class SummaryParameters(PhaseParameters, notebook="06_summary"):
    """Notebook 06."""


class ExploreObjectsParameters(NotebookParameters, notebook="explore_objects"):
    """A notebook beside the phases: it needs no run and writes nothing."""

    preset: str = Field(min_length=1, description="a preset, or the path of a YAML file")
    settings: list[str] = Field(description="changes of the design, for every object and scan")
    specimens: dict[str, list[str]] = Field(
        min_length=1, description="further changes that give each object, by its title"
    )
    scans: list[Literal["raster", "spiral", "fermat", "uniform"]] = Field(min_length=1)


class ExploreRunParameters(CompareParameters, notebook="explore_run"):
    """A notebook beside the phases: a finished run to look around in."""

    arm: Annotated[str, AfterValidator(current_arm)] = Field(
        min_length=1, description="arm beside the truth, as in aligned.npz"
    )
    pattern: int = Field(ge=0, description="index of the pattern that is shown first")
    row_share: float = Field(ge=0, le=1, description="where the cut lies, as a share of the rows")
    sliders: Literal["auto", "always", "never"] = Field(
        description="auto: where a person can move them"
    )


class ExploreNetworkParameters(OverlapParameters, notebook="explore_network"):
    """A notebook beside the phases: what each part of a run's thinning network is worth."""

    pattern: int = Field(ge=0, description="index of the pattern that is shown thinned")
    members: int = Field(ge=1, description="networks of each training without a part")
    steps: int = Field(ge=1, description="of each of them")


class CompareRunsParameters(NotebookParameters, notebook="compare_runs"):
    """A notebook beside the phases: what changed from one run to others."""

    runs: list[str] = Field(min_length=2, description="folders of runs, the reference first")
    metric: ComparedMetric = Field(description="the number whose differences are listed and drawn")


class ScienceSummaryParameters(NotebookParameters, notebook="science_summary"):
    """A notebook beside the phases: what one arm gains over the others, specimen by specimen."""

    runs: dict[str, str] = Field(min_length=1, description="folder of a run by its specimen")
    earlier: list[str] = Field(description="folders of earlier tables, whose seeds are added")
    arm: Annotated[str, AfterValidator(current_arm)] = Field(
        min_length=1, description="the arm that is held against all others"
    )
    split: SplitName


class WatchRunParameters(PhaseParameters, notebook="watch_run"):
    """A notebook beside the phases: a run while it goes on."""

    every_s: float = Field(gt=0, description="seconds between two looks")
    sliders: Literal["auto", "always", "never"] = Field(
        description="auto: repeated where a person looks on"
    )


class LessonParameters(NotebookParameters):
    """The parameters of every lesson: it needs no run and writes nothing."""

    preset: str = Field(min_length=1, description="a preset, or the path of a YAML file")
    settings: list[str] = Field(description="changes of the design")


class LessonForwardModelParameters(LessonParameters, notebook="lesson_forward_model"):
    """The lesson: what does the detector record."""

    dose: float = Field(gt=0, description="photons on the specimen at each position")
    position: int = Field(ge=0, description="index of the position that is shown")
    ramp_px: int = Field(description="detector columns by which a ramp moves the pattern")
    defocus_radii_px: list[float] = Field(min_length=1, description="defocus of each probe")


class LessonDoseAndOverlapParameters(LessonParameters, notebook="lesson_dose_and_overlap"):
    """The lesson: what do dose and overlap change in the data."""

    doses: list[float] = Field(min_length=1, description="mean photons per pattern")
    targets: list[float] = Field(min_length=1, description="mean overlap with the K nearest")
    draws: int = Field(ge=2, description="repetitions of the noise of one pattern")


class LessonResolutionParameters(LessonParameters, notebook="lesson_resolution"):
    """The lesson: what does an FRC number mean."""

    other_seed: int = Field(ge=0, description="simulation seed of the unrelated object")
    noise_levels: list[float] = Field(
        min_length=1, description="root mean square of each image's complex noise"
    )
    blur_px: float = Field(gt=0, description="standard deviation of the Gaussian blur")
    pairs: int = Field(ge=2, description="pairs of images behind a mean")


def parameters_of(notebook: str, values: Mapping[str, Any]) -> NotebookParameters:
    """Return the validated parameters of a notebook by name.

    Raises
    ------
    InputError
        If there is no such notebook; otherwise one line per unknown, missing or wrong value.
    """
    if notebook not in NOTEBOOKS:
        raise InputError(f"notebook {notebook!r} not found; choose one of {', '.join(NOTEBOOKS)}")
    model = NOTEBOOKS[notebook]
    try:
        return model.model_validate(dict(values))
    except ValidationError as error:
        raise InputError(describe_faults(error, notebook, model)) from None


def parameters(notebook: str, names: Mapping[str, Any]) -> NotebookParameters:
    """Return the parameters of a notebook that are among some names, such as its globals.

    Parameters
    ----------
    notebook
        Name without suffix, such as ``05_compare``.
    names
        Values by name; those that the notebook does not have are left alone.

    Returns
    -------
    NotebookParameters
        Frozen, one attribute for each parameter.

    Raises
    ------
    InputError
        If there is no such notebook, or a value is missing or wrong.

    Examples
    --------
    The first cell of a notebook sets names, the second one checks them:

    >>> import study_lib as study
    >>> run_folder = "reports/a-run"
    >>> dose, view, split = 1e4, "dense", "test"
    >>> parameters = study.parameters("05_compare", globals())
    >>> parameters.dose, parameters.view, parameters.split
    (10000.0, 'dense', 'test')
    """
    fields = NOTEBOOKS[notebook].model_fields if notebook in NOTEBOOKS else {}
    return parameters_of(notebook, {name: names[name] for name in fields if name in names})


# --- What of the design decides a job

SCORES_ALONE = ("metrics.frc_threshold", "metrics.photon_limit_solves")
# Fields without influence on what a notebook writes; whatever is not named here counts.
NOT_DECIDING = {
    "01_reference": (
        "views",
        "training",
        "iterative",
        "thinned",
        "dose_per",
        "neighbor_count",
        "metrics.photon_limit_solves",
        *(f"seeds.{name}" for name in ("grouping", "subsampling", "training")),
    ),
    "01_dataset": (
        "views",
        "training",
        "iterative",
        "thinned",
        "metrics",
        "neighbor_count",
        *(f"seeds.{name}" for name in ("grouping", "subsampling", "training", "iterative")),
    ),
    "02_overlap": (
        "training",
        "iterative",
        "thinned",
        "metrics",
        "seeds.training",
        "seeds.iterative",
    ),
    "03_train": ("iterative", "thinned", *SCORES_ALONE),
    "03_train_thinned": (
        "training",
        *(f"thinned.{name}" for name in ARMS_ALONE),
        *SCORES_ALONE,
    ),
    "04_reconstruct": ("training", "thinned", *SCORES_ALONE),
    "05_compare": (),
}
# A job knows its own dose, view, replicate and level of a mismatch; the preset's name is no number.
OF_THE_WHOLE_RUN = (
    "preset",
    "doses",
    "points",
    "replicates",
    "trained_replicates",
    "compare_train",
    "wanted",
    "flux_per_s",
    "material",
)


def deciding_part(
    design: Mapping[str, Any], notebook: str, view: str | None = None
) -> dict[str, Any]:
    """Return the values of a design that decide the results of a notebook, by dotted name.

    Parameters
    ----------
    design
        Its content, as in ``design.json``, of the job's replicate.
    notebook
        Name without suffix; one that does not stand for a single condition takes every value.
    view
        The job's view, if it has one: other views do not count.

    Examples
    --------
    >>> from study_lib.design.notebooks import deciding_part
    >>> from study_lib.design.presets import load_design
    >>> design = load_design("smoke").model_dump(mode="json")
    >>> part = deciding_part(design, "03_train", "dense")
    >>> part["views.dense.gridsize"], part["training.epochs"], "iterative.epochs" in part
    (2, 4, False)
    """
    left_out = set(NOT_DECIDING.get(notebook, ()))
    if notebook in NOT_DECIDING:
        left_out.update(OF_THE_WHOLE_RUN)
        listed = design.get("mismatch", {}).items()
        left_out.update(f"mismatch.{name}" for name, value in listed if isinstance(value, list))
        if listed and all(f"mismatch.{name}" in left_out for name, _ in listed):
            left_out.add("mismatch")
    kept = {name: value for name, value in design.items() if name not in left_out}
    if "views" in kept:
        kept["views"] = {one["name"]: one for one in design["views"] if view in (None, one["name"])}
    return {name: value for name, value in dotted(kept).items() if name not in left_out}


def dotted(values: Mapping[str, Any], before: str = "") -> dict[str, Any]:
    """Return nested values by dotted names, such as ``training.epochs``."""
    found: dict[str, Any] = {}
    for name, value in values.items():
        inner = isinstance(value, Mapping) and value
        found |= dotted(value, f"{before}{name}.") if inner else {f"{before}{name}": value}
    return found
