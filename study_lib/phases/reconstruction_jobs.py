"""Which iterative reconstructions are to be made, and what is left out because it is missing."""

from collections.abc import Collection
from dataclasses import dataclass
from pathlib import Path

from study_lib.design.models import SPLITS, StudyDesign, ViewDesign
from study_lib.phases.conditions import reconstruction_folder, view_path
from study_lib.phases.skips import SkippedView, jobs_by_view, require_data

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
        Whether a view without its files is skipped, and told in the second list.

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


def arm_of(algorithm: str) -> str:
    """Return the name of an algorithm's arm, in tables and folders."""
    return algorithm.lower()


def arm_folder(phase_f_root: Path, dose: float, view: str, split: str, algorithm: str) -> Path:
    """Return the folder of one algorithm's reconstruction."""
    return reconstruction_folder(phase_f_root, dose, view, split) / arm_of(algorithm)


def knowledge_of(probe: str) -> str:
    """Return in words what an iterative arm knew, by the design's ``known`` or ``refine``."""
    told = "probe" if probe == "known" else "a first probe, refined"
    return f"{told}, positions; uniform start"
