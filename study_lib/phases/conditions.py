"""A condition of the study, one dose, view and split, and where each phase keeps its files."""

from collections.abc import Collection, Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, NamedTuple, Protocol, TypeVar, runtime_checkable

import numpy as np

from study_lib.arm_names import current_array, current_row
from study_lib.data.archive import read_npz
from study_lib.data.contract import load_object
from study_lib.data.datasets import load_measurement
from study_lib.design.axes import SPLITS, ViewDesign, dose_text
from study_lib.design.models import StudyDesign, require_split
from study_lib.design.presets import parse_design
from study_lib.errors import InputError
from study_lib.files import read_json, write_json
from study_lib.physics.measurement import Measurement

# Root folders by key. "views" is where the files of views lie, "overlap" where their record does:
# one folder in a run, two options of `study overlap`.
PHASES = {
    "dataset": "phase_c_datasets",
    "views": "phase_d_views",
    "overlap": "phase_d_views",
    "train": "phase_e_training",
    "train_thinned": "phase_e_training",
    "train_self_taught": "phase_e_training",
    "reconstruct": "phase_f_iterative",
    "compare": "phase_g_comparison",
    "summary": "phase_h_summary",
}
REFERENCE = "reference"  # of measured counts: below the data sets
REFERENCE_FILES = ("reference.npz", "photons.npz", "reference.json")
SECOND_REFERENCE = "second_reference"  # in a comparison's arrays: that of the other algorithm
SUMMARY_FILES = (
    "summary.md",
    "summary.json",
    "study_table.csv",
    "table.csv",
    "table_train.csv",
    "highlights.csv",
    "dose_saving.csv",
    "least_dose.csv",
    "inventory.csv",
)
QUALITY_MAP = "quality_map"
SUMMARY_FIGURES = (
    *("phase_ms_ssim", "phase_error", "phase_error_by_photons", "least_dose", QUALITY_MAP),
    "cost",
)
TRAINED_FILES = ("model.pt", "history.json", "history.csv", "test_patches.npz", "train.log")
# The thinning network by the split that teaches it.
TAUGHT_PHASE = {"train": "train_thinned", "test": "train_self_taught"}
THINNED_FILES = ("ensemble.pt", "thinned.json", "history.csv", "train.log")
RECONSTRUCTED = "reconstructions.json"
MISSING_ARMS = "missing_arms.json"
T = TypeVar("T")
COMPARED = ("metrics.csv", "metrics.json", MISSING_ARMS, "aligned.npz", "comparison.png")
SKIP_SUMMARY = "skip_summary.json"
MANIFESTS = {
    "dataset": "run_manifest.json",
    REFERENCE: "run_manifest.json",
    "overlap": "overlap_manifest.json",
    "train": "training_manifest.json",
    "train_thinned": "training_manifest.json",
    "train_self_taught": "training_manifest.json",
    "reconstruct": "reconstruction_manifest.json",
    "compare": "comparison_manifest.json",
    "summary": "summary_manifest.json",
}


@runtime_checkable
class Places(Protocol):
    """Whatever knows the root folder of each phase: a run, a condition, or a command's options."""

    def root(self, phase: str) -> Path:
        """Return the root folder of a phase, a key of ``PHASES``."""


class GivenPlaces:
    """Root folders that a command was given one by one.

    Examples
    --------
    >>> from pathlib import Path
    >>> from study_lib.phases.conditions import GivenPlaces
    >>> GivenPlaces(dataset=Path("C"), compare=Path("G")).root("compare").as_posix()
    'G'
    """

    def __init__(self, **folders: Path) -> None:
        unknown = folders.keys() - PHASES.keys()
        if unknown:
            raise ValueError(
                f"no phase {', '.join(sorted(unknown))}; there are {', '.join(PHASES)}"
            )
        self._folders = folders

    def root(self, phase: str) -> Path:
        """Return the root folder of a phase.

        Raises
        ------
        InputError
            If the command was not given it.
        """
        if phase not in self._folders:
            raise InputError(
                f"the folder of phase {phase} was not given; pass {phase}=FOLDER to GivenPlaces"
            )
        return self._folders[phase]


class PlacesBelow:
    """The phases' folders where a run keeps them, below one folder."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def root(self, phase: str) -> Path:
        """Return the root folder of a phase."""
        return self._folder / PHASES[phase]


@dataclass(frozen=True)
class Condition:
    """One dose, view and split of a study: its data, its folders, its scores.

    ``places`` knows the folders of the phases; ``base_npz`` is the base data, if there is any.

    Examples
    --------
    >>> from pathlib import Path
    >>> from study_lib.design.presets import load_design
    >>> from study_lib.phases.conditions import PlacesBelow, condition_of
    >>> condition = condition_of(load_design("smoke"), PlacesBelow(Path("run")), 1e4, "dense")
    >>> condition.title
    'dense view, test split, 10000 photons per pattern'
    >>> condition.file.as_posix()
    'run/phase_d_views/dose_10000/dense/dense_test.npz'
    >>> condition.folder("train").as_posix()
    'run/phase_e_training/dose_10000/dense/gs2'
    """

    design: StudyDesign
    dose: float
    view: ViewDesign
    split: str
    places: Places
    base_npz: Path | None = None

    @property
    def gridsize(self) -> int:
        """Patterns along one side of a group."""
        return self.view.gridsize

    @property
    def title(self) -> str:
        """The condition in words, for figures."""
        return f"{self.view.name} view, {self.split} split, {self.dose:g} {self.design.dose_unit}"

    @property
    def label(self) -> str:
        """The condition in a few words, for logs and command lines."""
        return f"dose={self.dose:g} view={self.view.name} split={self.split}"

    @property
    def training_label(self) -> str:
        """What is trained for this condition, whichever its split."""
        return f"dose={self.dose:g} view={self.view.name} gridsize={self.gridsize}"

    @property
    def whole_file(self) -> Path:
        """The file of all patterns of the split."""
        return self.folder("dataset") / f"patched_{self.split}.npz"

    @property
    def file(self) -> Path:
        """The file of the patterns that every arm uses; of a whole view, all of the split."""
        if self.view.is_whole:
            return self.whole_file
        return self.folder("views") / f"{self.view.name}_{self.split}.npz"

    def of(self, split: str) -> "Condition":
        """Return the same dose and view in a split, ``train`` or ``test``."""
        return replace(self, split=require_split(split))

    def root(self, phase: str) -> Path:
        """Return the root folder of a phase, a key of ``PHASES``."""
        return self.places.root(phase)

    def folder(self, phase: str) -> Path:
        """Return where a key of ``PHASES``, except ``summary``, keeps what is this condition's.

        The reference of measured counts, ``reference``, is one for all doses and views.
        """
        if phase == REFERENCE:
            return self.root("dataset") / REFERENCE
        view = Path(self.view.name)
        below = {
            "dataset": Path(),
            "views": view,
            "overlap": view,
            "train": view / f"gs{self.gridsize}",
            "train_thinned": view / "thinned",
            "train_self_taught": view / "self_taught",
        }
        dose = self.design.dose_name(self.dose)
        return self.root(phase) / dose / below.get(phase, view / self.split)

    def manifest(self, phase: str) -> Path:
        """Return the manifest of a phase, a key of ``MANIFESTS``: of this condition and others."""
        return self.root("dataset" if phase == REFERENCE else phase) / MANIFESTS[phase]

    def require_data(self) -> None:
        """Check that the file of the patterns is there.

        Raises
        ------
        InputError
            If it is missing; names the command that makes it.
        """
        if not self.file.is_file():
            command = "generate" if self.view.is_whole else "overlap"
            raise InputError(
                f"{self.file}: no such file; make it with `study {command}` for dose {self.dose:g}"
                + ("" if self.view.is_whole else f" and view {self.view.name}")
            )

    def measurement(self) -> Measurement:
        """Return the patterns, positions and probe: what an arm may know.

        Raises
        ------
        InputError
            If the file is missing or breaks the contract.
        """
        self.require_data()
        return load_measurement(self.file)

    def truth(self) -> np.ndarray:
        """Return the object (oy, ox) that the patterns were made from.

        Of measured counts it is not known; then it is the reference, from photons that no arm has.
        """
        self.require_data()
        object_, _ = load_object(self.file)
        return object_

    def scored_pixels(self) -> tuple[tuple[slice, slice], np.ndarray]:
        """Return the crop, and in it the mask (y, x), on which every arm is scored."""
        from study_lib.scores.scoring import scored_pixels

        return scored_pixels(self.measurement(), self.design.metrics.illumination_threshold)

    def score(self, object_: np.ndarray) -> tuple[dict[str, Any], np.ndarray]:
        """Return the scores of an object (oy, ox), and its crop aligned with the truth.

        On the pixels and with the limits of the comparison of every arm.
        """
        return self.score_on(object_, self.truth(), *self.scored_pixels())

    def score_on(
        self,
        object_: np.ndarray,
        truth: np.ndarray,
        crop: tuple[slice, slice],
        mask: np.ndarray,
    ) -> tuple[dict[str, Any], np.ndarray]:
        """Return the scores of an object (oy, ox) and its aligned crop, with the design's limits.

        ``truth`` is (oy, ox); ``crop`` and ``mask`` (y, x) are those of :meth:`scored_pixels`.
        """
        # torch comes with it, and conditions are planned without
        from study_lib.scores.scoring import scores_of

        limits = self.design.metrics
        return scores_of(
            object_,
            truth,
            crop,
            mask,
            registration_limit_px=limits.registration_limit_px,
            frc_threshold=limits.frc_threshold,
        )


def taught_folder(condition: Condition, taught_by: str) -> Path:
    """Return where the thinning network lies that one split of a dose and view has taught."""
    return condition.folder(TAUGHT_PHASE[taught_by])


def condition_of(
    design: StudyDesign,
    places: Places,
    dose: float,
    view: str,
    split: str = "test",
    base_npz: Path | None = None,
) -> Condition:
    """Return a condition that a design has.

    Raises
    ------
    InputError
        If the design does not have the dose, the view or both together, or there is no such split.
    """
    design.require_dose(dose)
    found = design.view(view)
    if found not in design.views_at(dose):
        raise InputError(
            f"dose {dose:g} and view {view}: no point of the design; at this dose it has "
            f"{', '.join(one.name for one in design.views_at(dose))}"
        )
    return Condition(design, dose, found, require_split(split), places, base_npz)


def claim_root(output_root: Path, design: StudyDesign) -> None:
    """Write the design beside its data sets; data of two designs never share a folder."""
    path = output_root / "design.json"
    if not path.exists():
        write_json(path, design.model_dump(mode="json"))
        return
    found = parse_design(read_json(path), str(path))
    if found != design:
        raise InputError(
            f"{output_root} holds data of design {found.digest} ({found.preset}), not "
            f"{design.digest} ({design.preset}); choose another folder or remove it"
        )


@dataclass(frozen=True)
class SkippedView:
    """A dose and view that is left out because its files are missing, and why."""

    dose: float
    view: str
    reason: str


def conditions_of(
    design: StudyDesign,
    places: Places,
    *,
    dose: float | None = None,
    view: str | None = None,
    gridsize: int | None = None,
    split: str | None = None,
    each_split: bool = False,
    base_npz: Path | None = None,
) -> list[Condition]:
    """Return the conditions that a command's filters leave, dose by dose, views in their order.

    Parameters
    ----------
    design
        Its doses and views: 3 x 3 of the original study make 9 conditions.
    places
        Where the phases keep their files.
    dose, view, gridsize, split
        Only these; default: all.
    each_split
        Whether the splits are conditions of their own; otherwise each stands for both.
    base_npz
        The base data, if there is any.

    Raises
    ------
    InputError
        If a filter names something that the design does not have, or nothing is left.
    """
    doses = design.doses if dose is None else (design.require_dose(dose),)
    asked = design.views if view is None else (design.view(view),)
    views = [entry for entry in asked if gridsize in (None, entry.gridsize)]
    if not views:
        known = ", ".join(f"{entry.name} (gridsize {entry.gridsize})" for entry in design.views)
        raise InputError(f"no job matches view {view} with gridsize {gridsize}; known: {known}")
    splits = SPLITS if split is None else (require_split(split),)
    found = [
        Condition(design, one, entry, part, places, base_npz)
        for one in doses
        for entry in views
        if entry in design.views_at(one)
        for part in (splits if each_split else ("test",))
    ]
    if not found:
        asked_for = {"dose": dose, "view": view, "gridsize": gridsize}
        named = ", ".join(f"{name} {one}" for name, one in asked_for.items() if one is not None)
        raise InputError(f"{named}: no point of the design has them together; leave one out")
    return found


def with_data(
    conditions: Sequence[Condition], *, splits: Sequence[str] = (), allow_missing: bool = True
) -> tuple[list[Condition], list[SkippedView]]:
    """Return the conditions whose files are there, and the views that are left out.

    Parameters
    ----------
    conditions
        In any order.
    splits
        Whose files a condition needs; default: that of its own split.
    allow_missing
        Whether a view without its files is left out; one of every pattern by itself never is.

    Raises
    ------
    InputError
        If files are missing that may not be.
    """
    skipped: dict[tuple[float, str], SkippedView] = {}
    for condition in conditions:
        try:
            for split in splits or (condition.split,):
                condition.of(split).require_data()
        except InputError as error:
            if condition.view.is_whole or not allow_missing:
                raise
            key = (condition.dose, condition.view.name)
            skipped.setdefault(key, SkippedView(*key, str(error)))
    complete = [one for one in conditions if (one.dose, one.view.name) not in skipped]
    return complete, list(skipped.values())


def write_skip_summary(folder: Path, skipped: Collection[SkippedView]) -> None:
    """Write which views are skipped; also when there is none."""
    views = [asdict(view) for view in skipped]
    write_json(folder / SKIP_SUMMARY, {"skipped_count": len(views), "skipped_views": views})


def read_scores(folder: Path) -> list[dict[str, Any]]:
    """Return the rows of a comparison, one per arm, by the names that arms have today.

    Raises
    ------
    InputError
        If the condition was not compared yet.
    """
    return [current_row(row) for row in read_json(_compared(folder / "metrics.json"))]


def read_aligned(folder: Path) -> tuple[dict[str, np.ndarray], dict[str, Any]]:
    """Return the arrays of a comparison by the names that arms have today, and their metadata.

    Raises
    ------
    InputError
        If the condition was not compared yet.
    """
    arrays, metadata = read_npz(_compared(folder / "aligned.npz"))
    return {current_array(name): array for name, array in arrays.items()}, metadata


def held_against(arrays: Collection[str]) -> str:
    """Return which of a comparison's arrays its objects are held against: truth, or reference."""
    return REFERENCE if REFERENCE in arrays else "truth"


def _compared(path: Path) -> Path:
    """Return the path of a comparison's file, which must be there."""
    if not path.is_file():
        raise InputError(
            f"{path}: no such file; run `study compare`, or `study resume` of the run, first"
        )
    return path


# --- The runs inside a run: its replicates, and the levels of a mismatch with theirs

REPLICATES, LEVELS = "replicate_*", "mismatch/*"


class RunWithin(NamedTuple):
    """A run, or one inside it, whose folder is relative to the run's; and what it is a level of.

    ``field`` of a mismatch, and its value there; none of the run itself and its replicates.
    """

    folder: Path
    design: StudyDesign
    field: str = ""
    level: float = 0.0


def runs_within(design: StudyDesign) -> Iterator[RunWithin]:
    """Yield a run itself, its other replicates, then each level of a mismatch with its replicates.

    Examples
    --------
    >>> from study_lib.design.presets import load_design
    >>> from study_lib.phases.conditions import runs_within
    >>> design = load_design("smoke", ["replicates=2", "mismatch.position_error_px=[0.5]"])
    >>> for one in runs_within(design):
    ...     print(one.folder.as_posix(), one.design.mismatch.amounts)
    . {}
    replicate_1 {}
    mismatch/position_error_px_0.5 {'position_error_px': 0.5}
    mismatch/position_error_px_0.5_replicate_1 {'position_error_px': 0.5}
    """
    first, *others = design.repetitions
    yield RunWithin(Path(), first)
    for other in others:
        yield RunWithin(replicate_folder(other.replicate), other)
    for field, level, repetitions in design.levels:
        for one in repetitions:
            name = f"{field}_{dose_text(level)}"
            if one.replicate != design.replicate:
                name += f"_{replicate_folder(one.replicate).name}"
            yield RunWithin(Path(LEVELS).with_name(name), one, field, level)


def found_within(run_folder: Path, pattern: str) -> list[Path]:
    """Return the files below a run and the runs inside it that match, sorted."""
    places = (pattern, f"{REPLICATES}/{pattern}", f"{LEVELS}/{pattern}")
    return sorted(path for place in places for path in run_folder.glob(place))


def replicate_folder(replicate: int) -> Path:
    """Return where a run keeps a replicate after its first: a folder like its own."""
    return Path(f"replicate_{replicate}")


# --- What a summary writes

PICTURED_MAX = 12


def pictured(values: Sequence[T]) -> list[T]:
    """Return so many of some values, first and last among them, as a reader looks through.

    >>> from study_lib.phases.conditions import pictured
    >>> pictured([1e3, 1e4]), len(pictured(range(1000)))
    ([1000.0, 10000.0], 12)
    """
    count = min(len(values), PICTURED_MAX)
    places = np.linspace(0, len(values) - 1, count).round().astype(int)
    return [values[place] for place in places]


def mismatch_name(field: str) -> str:
    """Return the name of the table and of the figure of a listed field of a mismatch."""
    return f"mismatch_{field}"


def summary_files(folder: Path, design: StudyDesign) -> list[Path]:
    """Return everything that a summary of a design's doses writes in its folder."""
    without = {QUALITY_MAP} if why_no_map(len(design.doses), len(design.views)) else set()
    over = [mismatch_name(field) for field in design.mismatch.lists]
    tables = [*over, "draws"] if design.is_measured else over
    figures = [name for name in SUMMARY_FIGURES if name not in without] + over
    figures += [f"phase_{design.dose_name(dose)}" for dose in pictured(sorted(design.doses))]
    return [
        *(folder / name for name in (*SUMMARY_FILES, *(f"{name}.csv" for name in tables))),
        *(path for name in figures for path in figure_files(folder, name)),
    ]


def why_no_map(doses: int, views: int) -> str:
    """Return why a study of so many doses and views has no map over both; empty if it has one."""
    if min(doses, views) > 1:
        return ""
    few = " and ".join(
        f"one {name}" for name, count in (("dose", doses), ("view", views)) if count < 2
    )
    return f"No map of quality over dose and overlap: the study has {few}; it takes two of each."


def figure_files(folder: Path, name: str) -> tuple[Path, Path]:
    """Return the two files of a figure of the summary: for screens, and for print."""
    return folder / "figures" / f"{name}.png", folder / "figures" / f"{name}.svg"
