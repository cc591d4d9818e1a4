"""The names of arms: a key in options and files, a label in tables, figures and texts.

A key and its label belong together, in every view and every run. Names that finished runs still
have in their files are read as today's: whatever reads such a file passes them through here.
"""

from collections.abc import Mapping
from typing import Any

PINN, PINN_LABEL = "pinn", "PtychoPINN"
THINNING_NET, THINNING_NET_LABEL = "thinning-net", "thinning network"
STD = "_phase_std_rad"  # after an arm's key: the array of its own standard deviation
FORMER = {
    "pinn-thinned": THINNING_NET,
    "PtychoPINN thinned": THINNING_NET_LABEL,
    "PtychoPINN gs1": PINN_LABEL,
    "PtychoPINN gs2": PINN_LABEL,
}


def key_of(algorithm: str, *, denoised: bool = False) -> str:
    """Return the key of an iterative algorithm's arm."""
    return algorithm.lower() + ("-denoised" if denoised else "")


def label_of(algorithm: str, *, denoised: bool = False) -> str:
    """Return the label of an iterative algorithm's arm."""
    return algorithm + (" denoised" if denoised else "")


def current_arm(name: str) -> str:
    """Return today's key or label of an arm; any other text as it is."""
    return FORMER.get(name, name)


def current_array(name: str) -> str:
    """Return today's name of an array in ``aligned.npz``: an arm's object, or its deviation."""
    return current_arm(name.removesuffix(STD)) + (STD if name.endswith(STD) else "")


def current_row(row: Mapping[str, Any]) -> dict[str, Any]:
    """Return a row of scores with today's key and label of its arm."""
    names = {name: current_arm(row[name]) for name in ("arm", "label") if name in row}
    return {**row, **names}
