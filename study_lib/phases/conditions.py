"""Where each phase of a run keeps its files, relative to the phase's root."""

from collections.abc import Sequence
from pathlib import Path

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
