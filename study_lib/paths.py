"""Where each phase of a run keeps its files, relative to the phase's root."""

from pathlib import Path

PHASES = {
    "C": "phase_c_datasets",
    "D": "phase_d_views",
    "E": "phase_e_training",
    "F": "phase_f_iterative",
    "G": "phase_g_comparison",
    "H": "phase_h_summary",
}
COMPARED = ("metrics.csv", "metrics.json", "missing_arms.json", "aligned.npz", "comparison.png")


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


def reconstruction_folder(phase_f_root: Path, dose: float, view: str, split: str) -> Path:
    """Return the folder of the iterative reconstructions of one split, one folder per arm in it."""
    return view_folder(phase_f_root, dose, view) / split


def comparison_folder(phase_g_root: Path, dose: float, view: str, split: str) -> Path:
    """Return the folder of one comparison."""
    return view_folder(phase_g_root, dose, view) / split
