"""The two variables of a study: the photon dose, and which patterns overlap how much (views).

Every dose with every view, or single points of that plane.
"""

import csv
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any, Final, Literal

import numpy as np
from pydantic import BeforeValidator, Field, StringConstraints, model_validator

from study_lib.design.limits import (
    POSITIONS_MAX,
    POSITIONS_REASON,
    TIME_REASON,
    at_least,
    at_most,
)
from study_lib.design.settings import Frozen, is_unset
from study_lib.errors import InputError

# --- Numbers as people write them: 1e3, 2e4, or 1e3..1e6/4

RANGE = re.compile(r"(?P<first>[^./][^/]*?)\.\.(?P<last>[^/]+)/ *(?P<count>[0-9]+)")
COUNT_MAX = 1000
DIGITS = 3  # of the numbers of a range, which name folders


def numbers_of(text: str, *, name: str, by_ratio: bool) -> tuple[float, ...]:
    """Return the numbers of a text such as ``1e3, 2e4`` or ``1e3..1e6/4``.

    Parameters
    ----------
    text
        Numbers and ranges between commas; a range has its first and last number and how many there
        are, all of them rounded to three digits.
    name
        Of what the numbers are, for messages.
    by_ratio
        Whether the numbers of a range have one ratio between neighbours, or one difference.

    Raises
    ------
    InputError
        If a part is neither a number nor a range.

    Examples
    --------
    >>> from study_lib.design.axes import numbers_of
    >>> numbers_of("1e3..1e6/4", name="doses", by_ratio=True)
    (1000.0, 10000.0, 100000.0, 1000000.0)
    >>> numbers_of("0.8, 0.6..0.2/3", name="overlaps", by_ratio=False)
    (0.8, 0.6, 0.4, 0.2)
    """
    found: list[float] = []
    for part in (one.strip() for one in text.strip().strip("[]()").split(",")):
        whole = RANGE.fullmatch(part)
        try:
            if whole is None:
                found.append(float(part))
                continue
            first, last = float(whole["first"]), float(whole["last"])
        except ValueError:
            raise InputError(
                f"{name}: {part!r} is neither a number nor a range; write 1e3, 1e4 or 1e3..1e6/4 "
                "(first..last/how many)"
            ) from None
        count = int(whole["count"])
        is_sound = all(0 < end < np.inf for end in (first, last))
        if not is_sound or not 2 <= count <= COUNT_MAX:
            raise InputError(
                f"{name}: {part!r}: a range has numbers above zero at both ends and 2 to "
                f"{COUNT_MAX} of them"
            )
        make = np.geomspace if by_ratio else np.linspace
        found += [float(f"{one:.{DIGITS}g}") for one in make(first, last, count)]
    return tuple(found)


# --- Where counts come from

SIMULATED: Final = "simulated"
MEASURED: Final = "measured"
Source = Literal["simulated", "measured"]

# --- Doses

DosePer = Annotated[
    Literal["pattern", "pixel", "um2", "nm2"],
    BeforeValidator(lambda found: "pixel" if found == "area" else found),
]
UNITS: dict[str, str] = {
    "pattern": "photons per pattern",
    "pixel": "photons per object pixel",
    "um2": "photons per um2",
    "nm2": "photons per nm2",
}
PER_AREA_M2 = {"um2": 1e-12, "nm2": 1e-18}
Dose = Annotated[
    float,
    Field(gt=0),
    at_most(1e15, "more photons than any source gives to one measurement"),
]
PHOTONS_OF_A_PATTERN_MAX = 1e12


def _doses_of(found: Any) -> Any:
    """Return doses that were written as a text as numbers, and a list of them as it is checked."""
    if isinstance(found, str):
        return numbers_of(found, name="doses", by_ratio=True)
    if isinstance(found, int | float) and not isinstance(found, bool):
        return (float(found),)
    return tuple(found) if isinstance(found, list) else found


Doses = Annotated[tuple[Dose, ...], Field(min_length=1), BeforeValidator(_doses_of)]


def dose_text(dose: float) -> str:
    """Return a dose exactly, in as few characters as that takes.

    >>> from study_lib.design.axes import dose_text
    >>> dose_text(1e4), dose_text(2.5)
    ('10000', '2.5')
    """
    return str(int(dose)) if dose.is_integer() else repr(dose)


def dose_key(dose: float) -> int | str:
    """Return what names the random numbers of a dose: the number itself where it is whole."""
    return int(dose) if dose.is_integer() else repr(dose)


def dose_name(dose: float, per: str = "pattern") -> str:
    """Return the folder name of a dose, ``dose_1000``, with its unit if that is no pattern.

    >>> from study_lib.design.axes import dose_name
    >>> dose_name(1e3), dose_name(0.5, "pixel")
    ('dose_1000', 'dose_0.5_per_pixel')
    """
    return f"dose_{dose_text(dose)}" + ("" if per == "pattern" else f"_per_{per}")


# --- Views

ViewName = Annotated[str, StringConstraints(pattern="^[a-z0-9]+([_-][a-z0-9]+)*$", max_length=40)]
SplitName = Literal["train", "test"]
SelectionName = Literal["uniform", "blue_noise"]
SPLITS: tuple[SplitName, ...] = ("train", "test")
KEEPS = ("target_overlap", "s_img", "number", "step_px", "step_diameters")


class ViewDesign(Frozen):
    """Which patterns of a split are used, and how they are grouped.

    All of them, unless one of ``KEEPS`` says which are left out.

    Examples
    --------
    >>> from study_lib.design.axes import ViewDesign
    >>> ViewDesign(name="all", gridsize=1).is_whole
    True
    >>> ViewDesign(name="half", gridsize=1, s_img=0.5).is_whole
    False
    """

    name: ViewName = Field(description="short, in small letters: it names folders")
    gridsize: Literal[1, 2] = Field(description="of `pinn`: 1 for single patterns, 2 for groups")
    target_overlap: float | None = Field(
        gt=0, lt=1, default=None, description="metric 2 to reach by leaving positions out"
    )
    s_img: float | None = Field(
        gt=0, le=1, default=None, description="share of positions to keep, instead of a target"
    )
    number: Annotated[int | None, at_most(POSITIONS_MAX, POSITIONS_REASON)] = Field(
        ge=1,
        default=None,
        exclude_if=is_unset,
        description="how many positions to keep, instead of a target",
    )
    step_px: Annotated[
        float | None,
        at_most(1024, "the largest patch, beyond which patterns share nothing"),
        at_least(1e-3, "positions closer than any stage can be set"),
    ] = Field(
        gt=0,
        default=None,
        exclude_if=is_unset,
        description="keep one position per step x step pixels, on average",
    )
    step_diameters: Annotated[
        float | None,
        at_most(10, "patterns so far apart share nothing"),
        at_least(1e-3, "positions closer than any stage can be set"),
    ] = Field(
        gt=0,
        default=None,
        exclude_if=is_unset,
        description="the same step, in diameters of the probe",
    )
    selection: SelectionName = Field(
        default="uniform", description="which positions are kept: random ones, or evenly spread"
    )
    n_groups: Annotated[int | None, at_most(100_000_000, TIME_REASON)] = Field(
        ge=1, default=None, description="null: groups_per_pattern for each pattern"
    )
    oversampling: bool = Field(default=False, description="allow n_groups above the patterns")
    groups_per_pattern: Annotated[int, at_most(1000, TIME_REASON)] = Field(
        ge=1, default=1, description="groups that each pattern leads, on average"
    )

    @model_validator(mode="after")
    def check_choice(self) -> "ViewDesign":
        """Check that one thing says what is kept, and one how many groups there are."""
        said = [name for name in KEEPS if getattr(self, name) is not None]
        if len(said) > 1:
            both = " and ".join(f"{name} {getattr(self, name)}" for name in said)
            raise ValueError(f"{both} each say what is kept; set all but one of them to null")
        if self.n_groups is not None and self.groups_per_pattern > 1:
            raise ValueError(
                f"n_groups {self.n_groups} and groups_per_pattern {self.groups_per_pattern} both "
                "say how many groups; leave one of them out"
            )
        if self.gridsize == 1 and (self.groups_per_pattern > 1 or self.oversampling):
            raise ValueError(
                "gridsize 1: a pattern by itself is used once; leave out groups_per_pattern and "
                "oversampling, or set gridsize 2"
            )
        return self

    @property
    def keeps_all(self) -> bool:
        """Whether no position is left out."""
        return all(getattr(self, name) is None for name in KEEPS)

    @property
    def is_whole(self) -> bool:
        """Whether it is every pattern of the split by itself: it needs no file of its own."""
        return self.keeps_all and self.gridsize == 1 and self.n_groups is None


def views_of_overlaps(overlaps: Sequence[float]) -> list[dict[str, Any]]:
    """Return the views of a sweep over overlaps: single patterns, evenly spread.

    >>> from study_lib.design.axes import views_of_overlaps
    >>> [view["name"] for view in views_of_overlaps([0.8, 0.25])]
    ['overlap_80', 'overlap_25']
    """
    return [
        {
            "name": f"overlap_{format(100 * overlap, '.4g').replace('.', 'p').replace('-', 'm')}",
            "gridsize": 1,
            "target_overlap": overlap,
            "selection": "blue_noise",
        }
        for overlap in overlaps
    ]


# --- Points: chosen pairs of a dose and a view, instead of every dose with every view

Point = tuple[Dose, ViewName]
POINTS_MAX = 4000
DOSES_PER_DECADE, OVERLAP_STEP = 10, 0.02  # of drawn points
BETWEEN = re.compile(r"(?P<first>[^./][^/]*?)\.\.(?P<last>[^/]+)")
COLUMNS = ("dose", "overlap")


def settings_of_points(points: Sequence[tuple[float, float]]) -> dict[str, Any]:
    """Return the values of a design that computes these pairs of a dose and an overlap, no others.

    >>> from study_lib.design.axes import settings_of_points
    >>> made = settings_of_points([(1e3, 0.6), (1e4, 0.25)])
    >>> made["doses"], made["points"]
    ([1000.0, 10000.0], [(1000.0, 'overlap_60'), (10000.0, 'overlap_25')])
    """
    doses = sorted({dose for dose, _ in points})
    overlaps = sorted({overlap for _, overlap in points}, reverse=True)
    views = views_of_overlaps(overlaps)
    names = {overlap: view["name"] for overlap, view in zip(overlaps, views, strict=True)}
    pairs = [(dose, names[overlap]) for dose, overlap in points]
    return {"doses": doses, "views": views, "points": pairs}


def points_of_table(path: Path) -> list[tuple[float, float]]:
    """Return the doses and overlaps of a CSV table with the columns ``dose`` and ``overlap``.

    Raises
    ------
    InputError
        If there is no such file, it has other columns or no row, a value is no number, or a row
        occurs twice; names the line.
    """
    try:
        with path.open(newline="", encoding="utf-8-sig") as table:
            reader = csv.DictReader(table)
            columns = tuple(name.strip() for name in reader.fieldnames or ())
            if sorted(columns) != sorted(COLUMNS):
                raise InputError(
                    f"{path}: columns {', '.join(columns) or 'none'}; a table of points has "
                    f"{' and '.join(COLUMNS)}"
                )
            reader.fieldnames = columns
            lines = [(reader.line_num, row) for row in reader]
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise InputError(f"{path}: not readable as a CSV table ({error})") from None
    points: dict[tuple[float, float], int] = {}
    for number, row in lines:
        try:
            dose, overlap = (float(row[name]) for name in COLUMNS)
        except (TypeError, ValueError):
            dose = np.nan
        if np.isnan(dose) or None in row:  # None: what is beyond the columns
            raise InputError(
                f"{path}, line {number}: {', '.join(map(str, row.values()))}: not a dose and an "
                "overlap; write one point per line, like 1e4,0.6"
            )
        if (dose, overlap) in points:
            raise InputError(
                f"{path}, line {number}: {dose:g}, {overlap:g} is line {points[dose, overlap]} "
                "again; leave one out"
            )
        points[dose, overlap] = number
    if not points:
        raise InputError(f"{path}: no row; write one point per line, like 1e4,0.6")
    return list(points)


def drawn_points(count: int, doses: str, overlaps: str) -> list[tuple[float, float]]:
    """Return points that fill a range of doses and overlaps evenly, always the same ones.

    A scrambled Sobol sequence (Owen, J. Complexity 14, 466, 1998, doi:10.1006/jcom.1998.0487; by
    ``scipy.stats.qmc``), the dose by its logarithm. Doses are ten per decade (1, 1.3, 1.6, 2, 2.5,
    ...), overlaps lie .02 apart, so that points share simulations and patterns, and views have
    several doses.

    Parameters
    ----------
    count
        How many.
    doses, overlaps
        Ranges such as ``1e3..1e6`` and ``0.2..0.8``.

    Raises
    ------
    InputError
        If a text is no range, or holds fewer different points.

    Examples
    --------
    >>> from study_lib.design.axes import drawn_points
    >>> points = drawn_points(60, "1e3..1e6", "0.2..0.8")
    >>> len(set(points)), all(1e3 <= dose <= 1e6 for dose, _ in points)
    (60, True)
    """
    from scipy.stats import qmc  # noqa: PLC0415  # slow, and few designs draw their points

    if not 1 <= count <= POINTS_MAX:
        raise InputError(f"--sobol {count}: draw 1 to {POINTS_MAX} points")
    low, high = _ends(doses, "--doses")
    powers = range(
        *(round(DOSES_PER_DECADE * np.log10(end)) + side for end, side in ((low, -1), (high, 2)))
    )
    rungs = [float(f"{10 ** (power / DOSES_PER_DECADE):.2g}") for power in powers]
    rungs = [rung for rung in rungs if low <= rung <= high]
    sparse, dense = _ends(overlaps, "--overlaps")
    steps = [round(OVERLAP_STEP * step, 2) for step in range(round(dense / OVERLAP_STEP) + 2)]
    steps = [step for step in steps if sparse <= step <= dense]
    if len(rungs) * len(steps) < count:
        raise InputError(
            f"--sobol {count}: {doses} and {overlaps} hold only {len(rungs) * len(steps)} points, "
            f"of {DOSES_PER_DECADE} doses per decade and overlaps {OVERLAP_STEP:g} apart; draw "
            "fewer, widen the ranges, or give a table with --points"
        )
    found: dict[tuple[float, float], None] = {}
    sampler = qmc.Sobol(2, rng=0)
    while len(found) < count:  # a point that was drawn before counts once
        for first, second in sampler.random_base2(6) if not found else sampler.random(64):
            place = rungs[int(first * len(rungs))], steps[int(second * len(steps))]
            found[place] = None
            if len(found) == count:
                break
    return list(found)


def _ends(text: str, name: str) -> tuple[float, float]:
    """Return the ends of a range, the smaller one first."""
    ends = BETWEEN.fullmatch(text.strip())
    try:
        low, high = sorted((float(ends["first"]), float(ends["last"]))) if ends else (0.0, 0.0)
    except ValueError:
        low = high = 0.0
    if not 0 < low < high < np.inf:
        raise InputError(f"{name} {text}: --sobol draws from a range; write it like 1e3..1e6")
    return low, high


def conditions_of_options(
    doses: str | None, overlaps: str | None, points: Path | None, sobol: int | None
) -> dict[str, Any]:
    """Return the doses, views and points of a design that options of a call name.

    Raises
    ------
    InputError
        If two options say which, or one of them cannot be read.
    """
    if points is not None:
        if (doses, overlaps, sobol) != (None, None, None):
            raise InputError(
                "--points has the doses and overlaps; leave out --doses, --overlaps and --sobol"
            )
        return settings_of_points(points_of_table(points))
    if sobol is not None:
        if doses is None or overlaps is None:
            raise InputError(
                f"--sobol {sobol}: give the ranges too, like --doses 1e3..1e6 --overlaps 0.2..0.8"
            )
        return settings_of_points(drawn_points(sobol, doses, overlaps))
    values: dict[str, Any] = {}
    if doses is not None:
        values["doses"] = list(numbers_of(doses, name="--doses", by_ratio=True))
    if overlaps is not None:
        found = numbers_of(overlaps, name="--overlaps", by_ratio=False)
        values["views"] = views_of_overlaps(found)
    return values
