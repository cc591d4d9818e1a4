"""Photons at equal quality: the least dose that reaches a level, and what one arm saves another."""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from itertools import permutations
from typing import Any, Literal

from study_lib.scores.frc import NEVER_BELOW, OUTCOME
from study_lib.scores.study_table import Row, grouped, is_score, mean_of, spread_of

Bound = Literal["", "at least", "at most"]
Curve = Mapping[float, float]
ROUNDING = 1e-12


@dataclass(frozen=True)
class Number:
    """A number, or a bound where a curve does not reach far enough: nothing is extrapolated.

    ``low`` and ``high`` are the 95 % interval over replicates of its geometric mean, None where it
    is a bound or there is one replicate.
    """

    value: float
    bound: Bound = ""
    low: float | None = None
    high: float | None = None

    def text(self) -> str:
        """Return it as people read it: with two digits, and a bound stays one.

        Examples
        --------
        >>> from study_lib.scores.dose_saving import Number
        >>> Number(27384.0, "", 25210.0, 29900.0).text()
        '27000 (25000 to 30000)'
        >>> Number(3162.4, "at most").text(), Number(0.98769, "at least").text()
        ('at most 3200', 'at least 0.98')
        """
        if self.bound:
            return f"{self.bound} {_plain(self.value, self.bound)}"
        text = _plain(self.value)
        if self.low is None or self.high is None:
            return text
        return f"{text} ({_plain(self.low)} to {_plain(self.high)})"


def _plain(value: float, bound: Bound = "") -> str:
    """Return a number above zero in two digits, rounded to the side on which a bound holds."""
    decimals = 1 - math.floor(math.log10(value))
    count = value * 10.0**decimals
    whole = {
        "at least": math.floor(count * (1 + ROUNDING)),
        "at most": math.ceil(count * (1 - ROUNDING)),
        "": round(count),
    }[bound]
    text = f"{whole / 10.0**decimals:.{max(decimals, 0)}f}"
    return text.rstrip("0").rstrip(".") if "." in text else text


# --- Scores as errors: positive, less is better, so that one rule serves all


def phase_error(row: Row) -> float | None:
    """Return the root mean square phase error, in rad."""
    return math.sqrt(row["phase_mse_rad2"])


def unresolved(row: Row) -> float | None:
    """Return the inverse of the FRC crossing, at least 1; None if the curve crosses nowhere."""
    crossing = row.get("frc_crossing")
    if crossing is None and row.get(f"frc_crossing{OUTCOME}") == NEVER_BELOW:
        crossing = 1.0
    return 1 / crossing if crossing else None


def least_dose(curve: Curve, level: float) -> Number | None:
    """Return the dose from which on a curve stays at or below a level.

    Interpolated as a power law between two doses: linear in the logarithms of both.

    Parameters
    ----------
    curve
        Errors above zero by dose.
    level
        Of the error, above zero.

    Returns
    -------
    Number or None
        ``at most`` the lowest dose where that is good enough already; None if the highest dose does
        not reach the level, and the least dose is above it.

    Examples
    --------
    An error that falls with the root of the dose:

    >>> from study_lib.scores.dose_saving import least_dose
    >>> error = {1e3: 0.1, 1e4: 0.1 / 10**0.5, 1e5: 0.01}
    >>> round(least_dose(error, 0.05).value)
    4000
    >>> least_dose(error, 0.2).text()
    'at most 1000'
    >>> least_dose(error, 0.001) is None
    True
    """
    doses = sorted(curve)
    above = [dose for dose in doses if curve[dose] > level]
    if not above:
        return Number(doses[0], "at most")
    last = doses.index(above[-1])
    if last + 1 == len(doses):
        return None
    first, second = doses[last], doses[last + 1]
    start, end = math.log(curve[first]), math.log(curve[second])
    share = (start - math.log(level)) / (start - end)
    return Number(first * (second / first) ** share)


def saving(arm: Curve, reference: Curve, dose: float) -> Number:
    """Return by how many times fewer photons an arm reaches what a reference has at a dose.

    Above 1 the arm needs fewer; a bound where the arm's curve ends before it reaches that level.
    """
    needed = least_dose(arm, reference[dose])
    if needed is None:
        return Number(dose / max(arm), "at most")
    return Number(dose / needed.value, "at least" if needed.bound else "")


def over_replicates(numbers: Sequence[Number]) -> Number | None:
    """Return the geometric mean of repeated numbers, with its 95 % interval by Student's t.

    A mean with bounds of one direction among them is a bound; with both, there is none.
    """
    bounds = {one.bound for one in numbers} - {""}
    if not numbers or len(bounds) > 1:
        return None
    logs = [math.log(one.value) for one in numbers]
    is_one = len({one.value for one in numbers}) == 1
    mean = numbers[0].value if is_one else math.exp(math.fsum(logs) / len(logs))
    if bounds:
        return Number(mean, bounds.pop())
    spread = spread_of("log", logs)
    low, high = spread["log_low"], spread["log_high"]
    if low is None or high is None:
        return Number(mean)
    return Number(mean, "", math.exp(low), math.exp(high))


# --- Over the rows of a study

Error = Callable[[Row], float | None]


def curves_of(rows: Sequence[Row], error: Error) -> dict[tuple[str, str, int], dict[float, float]]:
    """Return the error by dose of each view, arm and replicate; only of rows that are scores."""
    curves: dict[tuple[str, str, int], dict[float, float]] = {}
    for row in rows:
        value = error(row) if is_score(row) else None
        if value is not None:
            key = (row["view"], row["label"], row["replicate"])
            curves.setdefault(key, {})[row["dose"]] = value
    return curves


def dose_savings(rows: Sequence[Row]) -> list[dict[str, Any]]:
    """Return what each arm saves against each other one, for each view and dose of the other.

    Parameters
    ----------
    rows
        One per (dose, view, arm, replicate) of one split, as in ``table.csv``.

    Returns
    -------
    list of dict
        ``quality`` (``phase error`` or ``resolution``), ``view``, ``arm``, ``reference``, ``dose``
        of the reference, ``factor`` of photons with ``bound``, ``low``, ``high``, and in how many
        ``replicates``. Nothing where a study has one dose.
    """
    table: list[dict[str, Any]] = []
    if len({row["dose"] for row in rows}) < 2:
        return table
    for quality, error in {"phase error": phase_error, "resolution": unresolved}.items():
        by_arm: dict[str, dict[str, dict[int, dict[float, float]]]] = {}
        for (view, arm, replicate), curve in curves_of(rows, error).items():
            by_arm.setdefault(view, {}).setdefault(arm, {})[replicate] = curve
        for view, arms in by_arm.items():
            for arm, reference in permutations(arms, 2):
                shared = sorted(arms[arm].keys() & arms[reference].keys())
                doses = {dose for one in shared for dose in arms[reference][one]}
                for dose in sorted(doses):
                    numbers = [
                        saving(arms[arm][one], arms[reference][one], dose)
                        for one in shared
                        if dose in arms[reference][one]
                    ]
                    found = over_replicates(numbers)
                    if found is None:
                        continue
                    table.append(
                        {
                            "quality": quality,
                            "view": view,
                            "arm": arm,
                            "reference": reference,
                            "dose": dose,
                            "factor": found.value,
                            "bound": found.bound,
                            "low": found.low,
                            "high": found.high,
                            "replicates": len(numbers),
                        }
                    )
    return table


def least_doses(rows: Sequence[Row], error: Error, level: float) -> list[dict[str, Any]]:
    """Return the least dose of each view and arm that reaches a level of an error.

    Returns
    -------
    list of dict
        ``view``, ``overlap``, ``arm``, ``dose`` with ``bound``, ``low``, ``high``; ``at least`` the
        highest dose of this view and arm where a replicate does not reach the level.
        ``photons_per_pattern`` and ``patterns`` say what that is in each frame, and of how many;
        ``dose_gy`` what it is in gray, of rows that know theirs.
    """
    table = []
    curves = curves_of(rows, error)
    for (view, arm), part in grouped(
        [row for row in rows if is_score(row)], ("view", "label")
    ).items():
        replicates = sorted({row["replicate"] for row in part})
        found = [
            least_dose(curves[view, arm, one], level)
            for one in replicates
            if (view, arm, one) in curves
        ]
        reached = [one for one in found if one is not None]
        number = over_replicates(reached)
        if len(reached) < len(replicates) or number is None:
            number = Number(max(row["dose"] for row in part), "at least")
        photons = mean_of([row["photons_measured"] / row["dose"] for row in part])
        gray = {}
        if "dose_gy" in part[0]:
            each = mean_of([row["dose_gy"] and row["dose_gy"] / row["dose"] for row in part])
            gray["dose_gy"] = None if each is None else number.value * each
        table.append(
            {
                "view": view,
                "overlap": mean_of([row["overlap"] for row in part]),
                "arm": arm,
                "dose": number.value,
                "bound": number.bound,
                "low": number.low,
                "high": number.high,
                "replicates": len(replicates),
                "photons_per_pattern": number.value * float(photons or 0.0),
                "patterns": mean_of([row["patterns"] for row in part]),
                **gray,
            }
        )
    return table
