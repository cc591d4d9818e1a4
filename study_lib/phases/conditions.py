"""One dose, view and split of a run: its files, its jobs, and what is left out of them."""

from collections.abc import Callable, Collection, Iterable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, TypeVar

import numpy as np

from study_lib.arm_names import current_array, current_row, key_of
from study_lib.data.archive import read_npz
from study_lib.design.models import SPLITS, StudyDesign, ViewDesign
from study_lib.errors import InputError
from study_lib.files import read_json, write_json

# --- Where each phase keeps its files, relative to its root

PHASES = {
    "C": "phase_c_datasets",
    "D": "phase_d_views",
    "E": "phase_e_training",
    "F": "phase_f_iterative",
    "G": "phase_g_comparison",
    "H": "phase_h_summary",
}
SUMMARY_FILES = (
    "summary.md",
    "summary.json",
    "study_table.csv",
    "table.csv",
    "table_train.csv",
    "highlights.csv",
    "inventory.csv",
)
SUMMARY_FIGURES = ("phase_ms_ssim", "phase_error", "cost")
TRAINED_FILES = ("model.pt", "history.json", "history.csv", "test_patches.npz", "train.log")
THINNED_FILES = ("ensemble.pt", "thinned.json", "history.csv", "train.log")
COMPARED = ("metrics.csv", "metrics.json", "missing_arms.json", "aligned.npz", "comparison.png")


def replicate_folder(replicate: int) -> Path:
    """Return where a run keeps a replicate after its first: a folder like its own."""
    return Path(f"replicate_{replicate}")


def dose_name(dose: float) -> str:
    """Return the folder name of a dose, ``dose_1000``."""
    return f"dose_{int(dose)}"


def phase_root(run_folder: Path, phase: str) -> Path:
    """Return the root of a phase inside a run's folder."""
    return run_folder / PHASES[phase]


def dataset_path(phase_c_root: Path, dose: float, split: str) -> Path:
    """Return the file of all patterns of a split."""
    return phase_c_root / dose_name(dose) / f"patched_{split}.npz"


def view_folder(root: Path, dose: float, view: str) -> Path:
    """Return the folder of one dose and view below a phase's root."""
    return root / dose_name(dose) / view


def view_path(phase_c_root: Path, phase_d_root: Path, dose: float, view: str, split: str) -> Path:
    """Return the file of the patterns that every arm uses in a view.

    The baseline view is the whole split as phase C wrote it.
    """
    if view == "baseline":
        return dataset_path(phase_c_root, dose, split)
    return view_folder(phase_d_root, dose, view) / f"{view}_{split}.npz"


def training_folder(phase_e_root: Path, dose: float, view: str, gridsize: int) -> Path:
    """Return the folder of one trained network."""
    return view_folder(phase_e_root, dose, view) / f"gs{gridsize}"


def thinned_folder(phase_e_root: Path, dose: float, view: str) -> Path:
    """Return the folder of the networks that thinned counts taught."""
    return view_folder(phase_e_root, dose, view) / "thinned"


def reconstruction_folder(phase_f_root: Path, dose: float, view: str, split: str) -> Path:
    """Return the folder of the iterative reconstructions of one split, one folder per arm in it."""
    return view_folder(phase_f_root, dose, view) / split


def comparison_folder(phase_g_root: Path, dose: float, view: str, split: str) -> Path:
    """Return the folder of one comparison."""
    return view_folder(phase_g_root, dose, view) / split


def read_scores(folder: Path) -> list[dict[str, Any]]:
    """Return the rows of a comparison, one per arm, by the names that arms have today.

    Raises
    ------
    InputError
        If the condition was not compared yet.
    """
    path = folder / "metrics.json"
    if not path.is_file():
        raise InputError(f"{path}: no such file; run 05_compare for this condition first")
    return [current_row(row) for row in read_json(path)]


def read_aligned(folder: Path) -> tuple[dict[str, np.ndarray], dict[str, Any]]:
    """Return the arrays of a comparison by the names that arms have today, and their metadata.

    Raises
    ------
    InputError
        If the condition was not compared yet.
    """
    path = folder / "aligned.npz"
    if not path.is_file():
        raise InputError(f"{path}: no such file; run 05_compare for this condition first")
    arrays, metadata = read_npz(path)
    return {current_array(name): array for name, array in arrays.items()}, metadata


def summary_files(phase_h_root: Path, doses: Sequence[float]) -> list[Path]:
    """Return everything that a summary of these doses writes."""
    figures = (*SUMMARY_FIGURES, *(f"phase_{dose_name(dose)}" for dose in doses))
    return [
        *(phase_h_root / name for name in SUMMARY_FILES),
        *(path for name in figures for path in figure_files(phase_h_root, name)),
    ]


def figure_files(phase_h_root: Path, name: str) -> tuple[Path, Path]:
    """Return the two files of a figure of the summary: for screens, and for print."""
    folder = phase_h_root / "figures"
    return folder / f"{name}.png", folder / f"{name}.svg"


# --- Views left out because their files are missing, and the record of them

SKIP_SUMMARY = "skip_summary.json"
JobT = TypeVar("JobT")


@dataclass(frozen=True)
class SkippedView:
    """A condition that is left out, and why."""

    dose: float
    view: str
    reason: str


def require_data(path: Path, dose: float, view: str) -> None:
    """Check that a view's file is there.

    Raises
    ------
    InputError
        If it is missing; names the command that makes it.
    """
    if not path.is_file():
        command = "generate" if view == "baseline" else "overlap"
        raise InputError(
            f"{path}: no such file; make it with `study {command}` for dose {dose:g}"
            + ("" if view == "baseline" else f" and view {view}")
        )


def jobs_by_view(
    design: StudyDesign,
    jobs_of: Callable[[float, ViewDesign], Iterable[JobT]],
    *,
    doses: Collection[float] | None,
    views: Collection[str] | None,
    allow_missing: bool,
) -> tuple[list[JobT], list[SkippedView]]:
    """Return the jobs of every condition, dose by dose in the order of the views, and the skipped.

    Parameters
    ----------
    design
        Its doses and views.
    jobs_of
        Returns the jobs of one condition; raises an InputError if a file of it is missing.
    doses, views
        Only these; None: all.
    allow_missing
        Whether a view without its files is skipped; the baseline never is.

    Raises
    ------
    InputError
        If files are missing that may not be.
    """
    jobs: list[JobT] = []
    skipped: list[SkippedView] = []
    for dose in design.doses if doses is None else doses:
        for view in design.views:
            if views is not None and view.name not in views:
                continue
            try:
                jobs += jobs_of(dose, view)
            except InputError as error:
                if view.name == "baseline" or not allow_missing:
                    raise
                skipped.append(SkippedView(dose, view.name, str(error)))
    return jobs, skipped


def write_skip_summary(artifact_root: Path, skipped: Collection[SkippedView]) -> dict[str, Any]:
    """Write and return which views are skipped; also when there is none."""
    summary = {
        "skipped_count": len(skipped),
        "skipped_views": [asdict(view) for view in skipped],
    }
    write_json(artifact_root / SKIP_SUMMARY, summary)
    return summary


# --- Which networks are to be trained


@dataclass(frozen=True)
class TrainingJob:
    """One network: its condition, the files of its two splits, and its own folder.

    Raises
    ------
    InputError
        If the gridsize is not that of the view, or a file is missing; names the command that
        makes it.
    """

    dose: float
    view: str
    gridsize: int
    train_data_path: Path
    test_data_path: Path
    artifact_dir: Path

    def __post_init__(self) -> None:
        """Check the condition and that its files are there."""
        wanted = 1 if self.view == "baseline" else 2
        if self.gridsize != wanted:
            raise InputError(
                f"training of view {self.view} with gridsize {self.gridsize}; set it to {wanted}"
            )
        for path in (self.train_data_path, self.test_data_path):
            require_data(path, self.dose, self.view)

    @property
    def log_path(self) -> Path:
        """Where the training says what it does."""
        return self.artifact_dir / "train.log"

    @property
    def label(self) -> str:
        """The condition in a few words."""
        return f"dose={self.dose:g} view={self.view} gridsize={self.gridsize}"


def build_training_jobs(
    design: StudyDesign,
    *,
    phase_c_root: Path,
    phase_d_root: Path,
    artifact_root: Path,
    doses: Collection[float] | None = None,
    views: Collection[str] | None = None,
    allow_missing_phase_d: bool = False,
) -> tuple[list[TrainingJob], list[SkippedView]]:
    """Return the networks to train, dose by dose in the order of the views; writes nothing.

    Parameters
    ----------
    design
        Its doses and views: 3 x 3 of the original study make 9 jobs.
    phase_c_root, phase_d_root, artifact_root
        Where `study generate` and `study overlap` wrote, and where training will.
    doses, views
        Only these; default: all of the design.
    allow_missing_phase_d
        Whether a view without its files is skipped, and listed in the second result.

    Raises
    ------
    InputError
        If a file is missing: that of the baseline always, that of a view unless it is allowed.
    """

    def jobs_of(dose: float, view: ViewDesign) -> list[TrainingJob]:
        train, test = (
            view_path(phase_c_root, phase_d_root, dose, view.name, split) for split in SPLITS
        )
        folder = training_folder(artifact_root, dose, view.name, view.gridsize)
        return [TrainingJob(dose, view.name, view.gridsize, train, test, folder)]

    return jobs_by_view(
        design, jobs_of, doses=doses, views=views, allow_missing=allow_missing_phase_d
    )


# --- Which iterative reconstructions are to be made

RESULT = "reconstruction.npz"
RECONSTRUCTIONS = "reconstruction_manifest.json"


@dataclass(frozen=True)
class ReconstructionJob:
    """One reconstruction: its condition, its algorithm, the file of its split, its own folder.

    Raises
    ------
    InputError
        If the file is missing; names the command that makes it.
    """

    dose: float
    view: str
    split: str
    algorithm: str
    data_path: Path
    artifact_dir: Path

    def __post_init__(self) -> None:
        """Check that the file is there."""
        require_data(self.data_path, self.dose, self.view)

    @property
    def log_path(self) -> Path:
        """Where the reconstruction says what it does."""
        return self.artifact_dir / "reconstruct.log"

    @property
    def label(self) -> str:
        """The condition in a few words."""
        return f"dose={self.dose:g} view={self.view} split={self.split} algorithm={self.algorithm}"


def build_reconstruction_jobs(
    design: StudyDesign,
    *,
    phase_c_root: Path,
    phase_d_root: Path,
    artifact_root: Path,
    doses: Collection[float] | None = None,
    views: Collection[str] | None = None,
    splits: Collection[str] = SPLITS,
    allow_missing_phase_d: bool = False,
) -> tuple[list[ReconstructionJob], list[SkippedView]]:
    """Return the reconstructions to make, dose by dose in the order of the views; writes nothing.

    Parameters
    ----------
    design
        Its doses, views and algorithms: 3 doses x 3 views x 2 splits make 18 jobs an algorithm.
    phase_c_root, phase_d_root, artifact_root
        Where `study generate` and `study overlap` wrote, and where reconstructions will.
    doses, views, splits
        Only these; default: all.
    allow_missing_phase_d
        Whether a view without its files is skipped, and listed in the second result.

    Raises
    ------
    InputError
        If a file is missing: that of the baseline always, that of a view unless it is allowed.
    """

    def jobs_of(dose: float, view: ViewDesign) -> list[ReconstructionJob]:
        return [
            ReconstructionJob(
                dose,
                view.name,
                split,
                algorithm,
                view_path(phase_c_root, phase_d_root, dose, view.name, split),
                arm_folder(artifact_root, dose, view.name, split, algorithm),
            )
            for split in splits
            for algorithm in design.iterative.algorithms
        ]

    return jobs_by_view(
        design, jobs_of, doses=doses, views=views, allow_missing=allow_missing_phase_d
    )


def arm_folder(phase_f_root: Path, dose: float, view: str, split: str, algorithm: str) -> Path:
    """Return the folder of one algorithm's reconstruction."""
    return reconstruction_folder(phase_f_root, dose, view, split) / key_of(algorithm)


def knowledge_of(probe: str) -> str:
    """Return in words what an iterative arm knew, by the design's ``known`` or ``refine``."""
    known = "probe" if probe == "known" else "a first probe, refined"
    return f"{known}, positions; uniform start"
