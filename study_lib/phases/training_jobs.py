"""Which networks are to be trained, on which files, and what is left out because it is missing."""

from collections.abc import Collection
from dataclasses import dataclass
from pathlib import Path

from study_lib.design.models import SPLITS, StudyDesign, ViewDesign
from study_lib.errors import InputError
from study_lib.phases.conditions import training_folder, view_path
from study_lib.phases.skips import SkippedView, jobs_by_view, require_data


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
        Whether a view without its files is skipped, and told in the second list.

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
