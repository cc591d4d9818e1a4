"""One arm against others: paired differences over seeds, corrected for how many are looked at."""

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from scipy.special import stdtr, stdtrit

from study_lib.scores.metrics import METRICS
from study_lib.scores.study_table import Row, grouped

ALPHA = 0.05
OVER_SPECIMENS = "over specimens"
PAIRED_METRICS = ("phase_error_over_wiener", "phase_psnr_db", "phase_ssim_centred", "phase_ssim")
CONDITION = ("dose", "view")
COUNTS = ("arm_failed", "opponent_failed", "refused")
FEWEST_SPECIMENS = 3  # for an interval over specimens: of two, Student's t says nothing


@dataclass(frozen=True)
class PairedGain:
    """How much better one arm is than another under one condition, in the unit of the metric.

    A positive ``gain`` is in favour of ``arm``, whichever way the metric counts. ``low`` and
    ``high`` are its 95 % interval by Student's t, ``p_value`` that of no difference, and
    ``corrected_low``, ``corrected_high`` the interval at the level at which Holm's procedure looks
    at this condition among all of the same two arms, metric and specimen: it holds zero wherever
    the procedure does not reject. All of these are None with a single pair, with equal
    differences, with two specimens, and where the arm has no score with one of the seeds: what is
    left would flatter it. ``values`` are the differences themselves: of seeds, or of specimens.
    ``arm_failed`` and ``opponent_failed`` count pairs that were left out since that object has no
    score, and ``refused`` those in which the arm is its fall-back, whose scores count as the arm's.
    """

    specimen: str
    dose: float
    view: str
    arm: str
    opponent: str
    metric: str
    values: tuple[float, ...]
    arm_failed: int
    opponent_failed: int
    refused: int
    gain: float | None
    low: float | None
    high: float | None
    p_value: float | None
    corrected_low: float | None = None
    corrected_high: float | None = None
    is_beyond_chance: bool | None = None


def paired_gains(
    rows: Sequence[Row],
    arm: str,
    opponents: Iterable[str],
    metrics: Sequence[str] = PAIRED_METRICS,
) -> list[PairedGain]:
    """Return what an arm gains over others, per specimen and over all specimens.

    Over specimens each one's mean over its seeds is one value: what a further specimen would show
    varies as they do among themselves.

    Parameters
    ----------
    rows
        Of comparisons, one split, each with its ``specimen`` and ``replicate``.
    arm, opponents
        By the name in ``arm``.
    metrics
        Names in ``METRICS``.

    Returns
    -------
    list of PairedGain
        By metric, opponent, specimen and condition; of conditions in which both arms have a row.

    References
    ----------
    Holm, Scand. J. Statist. 6, 65 (1979): of m p-values the smallest is held against .05 / m, the
    next one against .05 / (m - 1), and so on until one is not below.

    Examples
    --------
    Three seeds, each with the network half a decibel or so above:

    >>> from study_lib.scores.paired import paired_gains
    >>> def row(arm, seed, psnr):
    ...     place = {"specimen": "grains", "dose": 1e3, "view": "sparse", "replicate": seed}
    ...     return place | {"arm": arm, "phase_psnr_db": psnr, "registration": "ok"}
    >>> rows = [row("net", seed, 20.5 + 0.1 * seed) for seed in range(3)]
    >>> rows += [row("solver", seed, 20.0) for seed in range(3)]
    >>> found, over = paired_gains(rows, "net", ["solver"], ["phase_psnr_db"])
    >>> round(found.gain, 2), round(found.low, 2), round(found.high, 2), found.is_beyond_chance
    (0.6, 0.35, 0.85, True)
    >>> over.specimen, over.values == (found.gain,), over.low
    ('over specimens', True, None)
    """
    found: list[PairedGain] = []
    others = [one for one in opponents if one != arm]
    for metric in metrics:
        for opponent in others:
            per_specimen = []
            for (specimen,), part in grouped(rows, ("specimen",)).items():
                per_specimen += corrected(
                    [
                        _gain_of_pairs(specimen, condition, some, arm, opponent, metric)
                        for condition, some in grouped(part, CONDITION).items()
                        if {arm, opponent} <= {row["arm"] for row in some}
                    ]
                )
            over = [
                _gain(
                    replace(part[0], specimen=OVER_SPECIMENS),
                    [one.gain for one in part if one.gain is not None],
                    [sum(getattr(one, name) for one in part) for name in COUNTS],
                    fewest=FEWEST_SPECIMENS,
                )
                for part in _by_condition(per_specimen)
            ]
            found += [*per_specimen, *corrected(over)]
    return found


def _by_condition(gains: Sequence[PairedGain]) -> list[list[PairedGain]]:
    parts: dict[tuple[float, str], list[PairedGain]] = {}
    for one in gains:
        parts.setdefault((one.dose, one.view), []).append(one)
    return list(parts.values())


def _gain_of_pairs(
    specimen: str,
    condition: tuple[Any, ...],
    rows: Sequence[Row],
    arm: str,
    opponent: str,
    metric: str,
) -> PairedGain:
    """Return the gain over the seeds of one specimen and condition."""
    by_key = {(row["arm"], row["replicate"]): row for row in rows}
    sign = 1 if METRICS[metric].better == "higher" else -1
    values: list[float] = []
    arm_failed = opponent_failed = refused = 0
    for ours in (row for row in rows if row["arm"] == arm):
        theirs = by_key.get((opponent, ours["replicate"]))
        if theirs is None:
            continue
        failed = [one["registration"] != "ok" or one.get(metric) is None for one in (ours, theirs)]
        if any(failed):
            arm_failed, opponent_failed = arm_failed + failed[0], opponent_failed + failed[1]
            continue
        refused += bool(ours.get("fallback"))
        values.append(sign * float(ours[metric] - theirs[metric]))
    dose, view = condition
    nothing: tuple[None, None, None, None] = (None,) * 4
    place = PairedGain(specimen, dose, view, arm, opponent, metric, (), 0, 0, 0, *nothing)
    return _gain(place, values, [arm_failed, opponent_failed, refused])


def _gain(
    place: PairedGain, values: Sequence[float], counts: Sequence[int], fewest: int = 2
) -> PairedGain:
    """Return the gain of some differences; no interval of fewer, of equal ones or of failures."""
    arm_failed, opponent_failed, refused = counts
    mean = float(np.mean(values)) if values else None
    found = replace(
        place,
        values=tuple(values),
        arm_failed=arm_failed,
        opponent_failed=opponent_failed,
        refused=refused,
        gain=mean,
        low=None,
        high=None,
        p_value=None,
        corrected_low=None,
        corrected_high=None,
        is_beyond_chance=None,
    )
    if mean is None or len(values) < fewest or arm_failed or np.ptp(values) == 0:
        return found
    width = _half_width(values, ALPHA)
    p_value = 2 * float(stdtr(len(values) - 1, -abs(mean) / _error(values)))
    return replace(found, low=mean - width, high=mean + width, p_value=p_value)


def _error(values: Sequence[float]) -> float:
    return float(np.std(values, ddof=1)) / math.sqrt(len(values))


def _half_width(values: Sequence[float], alpha: float) -> float:
    return -float(stdtrit(len(values) - 1, alpha / 2)) * _error(values)


def corrected(gains: Sequence[PairedGain]) -> list[PairedGain]:
    """Return the gains with their intervals at Holm's levels, and whether they are beyond chance.

    Those without a p-value stay as they are.

    Parameters
    ----------
    gains
        Of one pair of arms, one metric and one specimen, condition by condition.
    """
    tested = [index for index, one in enumerate(gains) if one.p_value is not None]
    tested.sort(key=lambda index: gains[index].p_value or 0.0)
    result = list(gains)
    goes_on, level = True, ALPHA
    for rank, index in enumerate(tested):
        one = gains[index]
        if goes_on:  # where it stops, all that follow are looked at by the same level
            level = ALPHA / (len(tested) - rank)
            goes_on = (one.p_value or 0.0) < level
        width = _half_width(one.values, level)
        mean = one.gain or 0.0
        result[index] = replace(
            one, corrected_low=mean - width, corrected_high=mean + width, is_beyond_chance=goes_on
        )
    return result
