"""The answer of a study in sentences: photons saved, least dose, best overlap, no difference."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from study_lib.arm_names import plain_label
from study_lib.design.wanted import QUALITIES, Wanted
from study_lib.scores.dose_saving import (
    Error,
    Number,
    dose_savings,
    least_doses,
    phase_error,
    unresolved,
)
from study_lib.scores.study_table import (
    Row,
    dose_per,
    grouped,
    is_score,
    same_patterns,
    spread_of,
    unit_of,
    views_in_order,
)

FEWEST = 1e-12  # of an error, so that none has no logarithm
ADVICE = (
    "For comparison, at a given dose per pattern and for one algorithm each: a linear overlap of "
    "60 % (disc area 0.50) is advised by Bunk et al., Ultramicroscopy 108, 481 (2008), and one of "
    "40 % (0.28) by arXiv:2502.00762."
)


@dataclass(frozen=True)
class Answers:
    """Sentences of the answer, small tables beside them, and the rows that both are read from."""

    sentences: tuple[str, ...]
    tables: tuple["SmallTable", ...]
    savings: list[dict[str, Any]]
    least: list[dict[str, Any]]


@dataclass(frozen=True)
class SmallTable:
    """A table of texts: its title, its columns, and a row for each arm."""

    title: str
    columns: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]


def answers_of(
    rows: Sequence[Row],
    wanted: Sequence[Wanted],
    pixel_m: float | None = None,
    flux_per_s: float | None = None,
) -> Answers:
    """Return what a study answers: of one split, from its rows for each replicate.

    Views that hold the same patterns count once, and rows that are no scores do not count.

    Parameters
    ----------
    rows
        One per (dose, view, arm, replicate) of one split, as in ``table.csv``.
    wanted
        The qualities whose least dose is asked for.
    pixel_m
        Side of an object pixel, if it is known.
    flux_per_s
        Photons on the specimen in a second, if they are known: they make doses exposure times.

    Raises
    ------
    InputError
        If a wanted resolution is in nanometres and the pixel is not known, or is larger.
    """
    same = same_patterns(rows)
    once = [row for row in rows if (row["split"], row["dose"], row["view"]) not in same]
    counted = [{**row, "label": plain_label(row["label"])} for row in once if is_score(row)]
    savings = dose_savings(counted)
    least = [
        {"wanted": one.words, **line}
        for one in wanted
        for line in least_doses(counted, *error_and_level(one, pixel_m))
    ]
    if not counted:
        return Answers((), (), savings, least)
    leader, unit = _leader(counted), unit_of(counted)
    sentences = [
        *_saved(savings, leader, len({row["dose"] for row in rows})),
        *(text for one in wanted for text in _needed(least, one.words, counted, flux_per_s)),
        *_best_overlap(counted),
        *_undecided(counted, leader),
    ]
    if pixel_m:
        per_um2 = 1e-12 / pixel_m**2
        sentences.append(
            f"An object pixel is {pixel_m * 1e9:.3g} nm wide: one photon per object pixel is "
            f"{per_um2:.3g} photons per um2, and an FRC crossing of "
            f"1 (Nyquist) a half period of {pixel_m * 1e9:.3g} nm."
        )
    views = views_in_order(counted)
    tables = [
        _table(
            f"How many times fewer or more photons {leader} needs at equal {quality} than",
            views,
            [{**row, "arm": row["reference"]} for row in _of_leader(savings, leader, quality)],
            lambda row: _factor_text(row, "fewer", "more"),
        )
        for quality in dict.fromkeys(row["quality"] for row in savings)
    ]
    for one in wanted:
        part = [row for row in least if row["wanted"] == one.words]
        tables.append(_table(f"Least dose for {one.words} [{unit}]", views, part, _dose_text))
        in_gray = [row for row in part if row.get("dose_gy")]
        tables.append(_table(f"Least dose for {one.words} [Gy]", views, in_gray, _gray_text))
    filled = tuple(table for table in tables if table.rows)
    return Answers(tuple(sentences), filled, savings, least)


def _table(
    title: str, views: Sequence[str], rows: Sequence[Row], text: Callable[[Row], str]
) -> SmallTable:
    """Return a table with a row for each arm and a column for each view."""
    lines = [
        (arm, *(next((text(row) for row in part if row["view"] == view), "-") for view in views))
        for (arm,), part in grouped(rows, ("arm",)).items()
    ]
    return SmallTable(title, ("", *views), tuple(lines))


def error_and_level(wanted: Wanted, pixel_m: float | None) -> tuple[Error, float]:
    """Return a wanted score as an error above zero, of which less is better, and its level.

    Raises
    ------
    InputError
        If a resolution is wanted in nanometres and the pixel is not known, or is larger.
    """
    column, is_error, _, most = QUALITIES[wanted.name]
    level = wanted.level_at(pixel_m)
    if wanted.name == "phase_error":
        return phase_error, level
    if wanted.name == "frc":
        return unresolved, 1 / level

    def distance(row: Row) -> float | None:
        value = row.get(column)
        if value is None:
            return None
        return max(float(value if is_error else most - value), FEWEST)

    return distance, level if is_error else max(most - level, FEWEST)


def _leader(counted: Sequence[Row]) -> str:
    """Return the arm with the lowest phase error in most conditions and replicates."""
    wins: dict[str, int] = {}
    for part in grouped(counted, ("dose", "view", "replicate")).values():
        best = min(part, key=lambda row: row["phase_mse_rad2"])
        wins[best["label"]] = wins.get(best["label"], 0) + 1
    return max(sorted(wins), key=lambda arm: wins[arm])


def _of_leader(savings: Sequence[Row], leader: str, quality: str) -> list[Row]:
    """Return what the leading arm saves in each view, at the highest dose that tells a number."""
    part = [
        row
        for row in savings
        if (row["arm"], row["quality"]) == (leader, quality) and not _says_nothing(row)
    ]
    return [
        max(found, key=lambda row: (not row["bound"], row["dose"]))
        for found in grouped(part, ("reference", "view")).values()
    ]


def _says_nothing(row: Row) -> bool:
    """Return whether a bound leaves open which of two arms needs fewer photons."""
    return bool(row["bound"] == "at least" and row["factor"] <= 1) or (
        row["bound"] == "at most" and row["factor"] >= 1
    )


def _saved(savings: Sequence[Row], leader: str, doses: int) -> list[str]:
    """Return what the leading arm saves against each other one, over the views."""
    if not savings and doses == 1:
        return [
            "The study has one dose, so it cannot say how many photons an arm saves; give several, "
            "like --doses 1e3..1e5/3."
        ]
    if not savings:
        return [
            "No two arms have scores at two doses of one view, so the study cannot say how many "
            "photons one saves the other."
        ]
    lines = []
    for quality in dict.fromkeys(row["quality"] for row in savings):
        texts = []
        for (reference,), part in grouped(
            _of_leader(savings, leader, quality), ("reference",)
        ).items():
            least, most = _extremes(part, "factor")
            text = f"{_factor_text(least)} ({least['view']})"
            if least is not most:
                text += f" to {_factor_text(most)} ({most['view']})"
            texts.append(f"{text} than {reference}")
        if texts:
            lines.append(
                f"At equal {quality}, that of the other arm at the highest dose that tells a "
                f"number, {leader} needs {'; '.join(texts)}."
            )
    if {row["replicates"] for row in savings} == {1}:
        lines.append("One replicate: how certain these factors are is not known.")
    return lines


def _extremes(rows: Sequence[Row], name: str) -> tuple[Row, Row]:
    return min(rows, key=lambda row: row[name]), max(rows, key=lambda row: row[name])


def _factor_text(
    row: Row, fewer: str = "times fewer photons", more: str = "times more photons"
) -> str:
    """Return a factor of photons in words, with its interval if it has one."""
    value, low, high = row["factor"], row["low"], row["high"]
    if row["bound"] == "at most":
        return f"{Number(1 / value, 'at least').text()} {more}"
    if value >= 1:
        return f"{Number(value, row['bound'], low, high).text()} {fewer}"
    if low is None or high is None:
        return f"{Number(1 / value).text()} {more}"
    return f"{Number(1 / value, '', 1 / high, 1 / low).text()} {more}"


def _needed(
    least: Sequence[Row], wanted: str, counted: Sequence[Row], flux_per_s: float | None
) -> list[str]:
    """Return the least dose of each arm for a wanted quality, in the view where it is least."""
    part = [row for row in least if row["wanted"] == wanted]
    reached = [row for row in part if row["bound"] != "at least"]
    highest = max(row["dose"] for row in counted)
    if not reached:
        return [f"No arm reaches {wanted} at up to {highest:g} {unit_of(counted)}."]
    texts = []
    for (arm,), lines in grouped(part, ("arm",)).items():
        found = [row for row in lines if row["bound"] != "at least"]
        if not found:
            tops = sorted({row["dose"] for row in lines})
            reach = f"more than {tops[0]:g}" if len(tops) == 1 else f"nowhere up to {tops[-1]:g}"
            texts.append((float("inf"), f"{arm} {reach}"))
            continue
        best = min(found, key=lambda row: row["dose"])
        # Several views may need no more than the lowest dose: which of them least, is not known.
        tied = [row for row in found if (row["dose"], row["bound"]) == (best["dose"], "at most")]
        views = "; ".join(f"{row['view']}{_time(row, flux_per_s)}" for row in tied or [best])
        gray = f" = {_gray_text(best)} Gy" if best.get("dose_gy") else ""
        texts.append((best["dose"], f"{arm} {_dose_text(best)}{gray} ({views})"))
    ordered = [text for _, text in sorted(texts)]
    return [f"Least dose for {wanted}, in {unit_of(counted)}: {'; '.join(ordered)}."]


def _dose_text(row: Row) -> str:
    """Return a least dose in words; where the highest dose is too low, that it is more."""
    if row["bound"] == "at least":
        return f"more than {row['dose']:g}"
    return Number(row["dose"], row["bound"], row["low"], row["high"]).text()


def _gray_text(row: Row) -> str:
    """Return a least dose in gray, in two digits; which side of a bound it is on comes before."""
    before = {"at least": "more than ", "at most": "at most ", "": ""}[row["bound"]]
    return f"{before}{row['dose_gy']:.1e}"


def _time(row: Row, flux_per_s: float | None) -> str:
    if not flux_per_s:
        return ""
    frame_s = row["photons_per_pattern"] / flux_per_s
    return f", {frame_s:.2g} s a frame, {frame_s * row['patterns']:.2g} s in all"


def _best_overlap(counted: Sequence[Row]) -> list[str]:
    """Return each arm's best view at a fixed total dose, and which others may be as good."""
    if dose_per(counted) == "pattern" or len({row["view"] for row in counted}) < 2:
        return []
    lines = []
    for (arm,), part in grouped(counted, ("label",)).items():
        texts = []
        for (dose,), rows in grouped(part, ("dose",)).items():
            views = grouped(rows, ("view",))
            if len(views) < 2:
                continue
            best = min(views, key=lambda view: _mean(views[view]))
            tied = [
                view[0]
                for view in views
                if view != best and not _is_apart(views[view], views[best])
            ]
            text = f"{best[0]} at {dose:g} (disc area {_of(views[best], 'overlap'):.2f}"
            linear = _of(views[best], "overlap_linear")
            text += f", linear {linear:.2f})" if linear else ")"
            if tied and len(views[best]) > 1:
                text += f", no different beyond the spread from {', '.join(tied)}"
            texts.append(text)
        if not texts:
            continue
        lines.append(
            f"At equal photons on the object {arm} has the lowest phase error in "
            f"{'; '.join(texts)} {unit_of(counted)}."
        )
    return [*lines, ADVICE] if lines else []


def _mean(rows: Sequence[Row]) -> float:
    return float(sum(row["phase_mse_rad2"] for row in rows)) / len(rows)


def _of(rows: Sequence[Row], name: str) -> float:
    found = [row[name] for row in rows if row.get(name) is not None]
    return sum(found) / len(found) if found else 0.0


def _is_apart(rows: Sequence[Row], others: Sequence[Row]) -> bool:
    """Return whether the 95 % interval of the paired difference of phase errors leaves zero out."""
    ours, theirs = ({row["replicate"]: phase_error(row) for row in part} for part in (rows, others))
    differences = [
        (ours[one] or 0.0) - (theirs[one] or 0.0) for one in sorted(ours.keys() & theirs.keys())
    ]
    spread = spread_of("d", differences)
    low, high = spread["d_low"], spread["d_high"]
    return low is not None and high is not None and not low <= 0 <= high


def _undecided(counted: Sequence[Row], leader: str) -> list[str]:
    """Return where the leading arm is not apart from another one beyond the spread."""
    if max(row["replicate"] for row in counted) == min(row["replicate"] for row in counted):
        return []
    tied: dict[str, list[bool]] = {}
    for part in grouped(counted, ("dose", "view")).values():
        arms: Mapping[tuple[Any, ...], Sequence[Row]] = grouped(part, ("label",))
        ours = arms.get((leader,), ())
        for (arm,), theirs in arms.items():
            if arm != leader and min(len(ours), len(theirs)) > 1:
                tied.setdefault(arm, []).append(not _is_apart(ours, theirs))
    places = [
        f"{arm} in {sum(found)} of {len(found)} conditions"
        for arm, found in tied.items()
        if any(found)
    ]
    if not places:
        return []
    return [
        f"No difference in phase error beyond the spread (paired 95 % intervals) between {leader} "
        f"and: {'; '.join(places)}."
    ]
