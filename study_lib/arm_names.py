"""The names of arms: a key in options and files, a label in tables, figures and texts.

A key and its label belong together, in every view and every run. Names that finished runs still
have in their files are read as today's: whatever reads such a file passes them through here.
"""

from collections.abc import Mapping
from typing import Any

PINN, PINN_LABEL = "pinn", "PtychoPINN"
THINNING_NET, THINNING_NET_LABEL = "thinning-net", "thinning network"
SELF_TAUGHT, SELF_TAUGHT_LABEL = "self-taught", "self-taught network"
SOLVER_ALTERNATING, SOLVER_ALTERNATING_LABEL = "solver-alternating", "solver alternating"
THINNED_BASE, THINNED_BASE_LABEL = "thinned-base", "base of the thinning network"
SELF_TAUGHT_BASE = "self-taught-base"
SELF_TAUGHT_BASE_LABEL = "base of the self-taught network"
# An algorithm with its other noise model is an arm of its own, where a design names it.
OTHER_NOISE_MODEL = {"LSQML": "LSQML-poisson", "solver": "solver-amplitude"}
CHOSEN = "chosen"  # the likelier of both, denoised or not, by held-out counts
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


def algorithm_of(name: str) -> str:
    """Return the algorithm behind a name that says its other noise model, too.

    >>> from study_lib.arm_names import algorithm_of
    >>> algorithm_of("LSQML-poisson"), algorithm_of("solver"), algorithm_of("ePIE")
    ('LSQML', 'solver', 'ePIE')
    """
    plain = {other: algorithm for algorithm, other in OTHER_NOISE_MODEL.items()}
    return plain.get(name, name)


def current_arm(name: str) -> str:
    """Return today's key or label of an arm; any other text as it is."""
    return FORMER.get(name, name)


def current_array(name: str) -> str:
    """Return today's name of an array in ``aligned.npz``: an arm's object, or its deviation."""
    return current_arm(name.removesuffix(STD)) + (STD if name.endswith(STD) else "")


def current_row(row: Mapping[str, Any]) -> dict[str, Any]:
    """Return a row of scores with today's key and label of its arm, and what it fell back on.

    Rows that were written before fall-backs had columns of their own say so in ``knows`` alone.
    """
    names = {name: current_arm(row[name]) for name in ("arm", "label") if name in row}
    found = {**row, **names}
    if "arm" not in row or "fallback" in row:
        return found
    # Whatever else such a row lacks is not known; only of PtychoPINN does the grouping matter.
    found |= {
        "fallback": "",
        "fallback_reason": "",
        "refused_training_cpu_s": 0.0,
        "grouping": None if found["arm"] == PINN else "",
    }
    knows = str(row.get("knows", ""))
    if "its network was not trusted" in knows:
        fallback, reason = "its base", NOT_TRUSTED_BEFORE
    elif "denoiser (none)" in knows:
        fallback, reason = str(found["label"]).removesuffix(" denoised"), NOT_DENOISED
    else:
        return found
    return found | as_fallback(found, fallback, reason)


# --- An arm of which held-out counts refused what it adds: it is then another object

IS = " = "  # between an arm's label and what it fell back on
NOT_TRUSTED = "the network did not make held-out counts likelier beyond chance"
NOT_TRUSTED_BEFORE = "the network did not make held-out counts likelier"  # by one error then
NOT_DENOISED = "no denoiser made held-out counts likelier"


def as_fallback(row: Mapping[str, Any], fallback: str, reason: str) -> dict[str, Any]:
    """Return the fields of a row that say what the arm is, and do not charge it what was refused.

    Parameters
    ----------
    row
        Its label, and its seconds of training if there are any.
    fallback
        What the arm is there: ``its base (TV)``.
    reason
        Why.
    """
    return {
        "label": f"{plain_label(row['label'])}{IS}{fallback}",
        "fallback": fallback,
        "fallback_reason": reason,
        "training_cpu_s": None,
        "refused_training_cpu_s": row.get("training_cpu_s"),
    }


def plain_label(label: str) -> str:
    """Return an arm's label without what it fell back on."""
    return label.partition(IS)[0]
