"""The rules of DATA-001 between arrays, and between two splits."""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from study_lib.data.facts import NAMED_INDICES, ArrayFacts


@dataclass(frozen=True)
class Violation:
    """One breach of the contract; one that is not ``serious`` loses nothing."""

    key: str
    found: str
    expected: str
    remedy: str
    serious: bool = True

    def __str__(self) -> str:
        return f"{self.key}: found {self.found}; expected {self.expected}; {self.remedy}"


def check_together(
    facts: Mapping[str, ArrayFacts], *, stated_amplitude: bool = False
) -> list[Violation]:
    """Return the violations of the relations between arrays of the right rank.

    Parameters
    ----------
    facts
        Of ``probeGuess``, ``objectGuess``, ``xcoords``, ``ycoords`` and of what else there is.
    stated_amplitude
        Whether the metadata say that patterns are amplitudes; whole numbers then may be meant.
    """
    probe = facts["probeGuess"]
    side = probe.shape[0]
    stacked = [facts[key].shape[0] for key in ("xcoords", "ycoords", "diffraction") if key in facts]
    # What most arrays agree on is the length of the scan.
    count = max(stacked, key=lambda length: (stacked.count(length), length == stacked[0]))
    violations = []
    if probe.shape != (side, side):
        violations.append(
            Violation("probeGuess", f"shape {probe.shape}", "a square", "crop or pad it")
        )
    if side % 2:
        violations.append(
            Violation("probeGuess", f"side {side}", "an even side", "crop or pad by one pixel")
        )
    if probe.largest == 0:
        violations.append(Violation("probeGuess", "all zero", "some power", "give a probe"))
    for key, other in (("xcoords", "ycoords"), ("ycoords", "xcoords")):
        if facts[key].shape != (count,):
            expected = f"{count}, as many as {other}"
            found = f"{facts[key].shape[0]} values"
            violations.append(Violation(key, found, expected, "pair the positions"))
    violations += _check_places(facts, side)
    violations += _check_patterns(facts, side, count, stated_amplitude=stated_amplitude)
    violations += _check_indices(facts, side, count)
    return violations


def check_splits(
    train: Mapping[str, np.ndarray], test: Mapping[str, np.ndarray]
) -> list[Violation]:
    """Return what train and test share: patterns, or rows of the object.

    Parameters
    ----------
    train, test
        Arrays of ``probeGuess``, ``objectGuess``, ``ycoords`` and, if known, ``scan_index``.
    """
    violations = []
    if not np.array_equal(train["objectGuess"], test["objectGuess"]):
        remedy = "compare two splits of one dose"
        return [Violation("objectGuess", "two objects", "one object", remedy)]
    both = [arrays.get("scan_index") for arrays in (train, test)]
    if both[0] is not None and both[1] is not None:
        shared = np.intersect1d(both[0], both[1])
        if shared.size:
            found = f"{shared.size} patterns in both splits, first {shared[0]}"
            remedy = "give every pattern to one split"
            violations.append(Violation("scan_index", found, "none", remedy))
    side = train["probeGuess"].shape[0]
    first, second = sorted((train["ycoords"], test["ycoords"]), key=lambda rows: float(rows.min()))
    last_lit = int(np.round(first.max())) - side // 2 + side - 1
    first_lit = int(np.round(second.min())) - side // 2
    if last_lit >= first_lit:
        found = f"object rows {first_lit}..{last_lit} lit by both splits"
        remedy = f"leave a guard band of {side} rows between their patch centres"
        violations.append(Violation("ycoords", found, "no shared row", remedy))
    return violations


def _check_places(facts: Mapping[str, ArrayFacts], side: int) -> list[Violation]:
    """Return the violations of single positions and of pairs of them."""
    violations = []
    shape = facts["objectGuess"].shape
    for key, extent in (("ycoords", shape[0]), ("xcoords", shape[1])):
        values = facts[key].values
        if values is None:
            found = f"{facts[key].size} values"
            violations.append(
                Violation(key, found, "a scan of at most two million", "split the file")
            )
            continue
        corners = np.round(values) - side // 2
        outside = (corners < 0) | (corners + side > extent)
        if outside.any():
            violations.append(
                Violation(
                    key,
                    f"{int(outside.sum())} of {len(values)} patches outside the object, first at "
                    f"index {int(np.argmax(outside))} ({values[outside][0]:.1f} px)",
                    f"{side // 2} to {extent - side + side // 2} px",
                    "positions are patch centres in object pixels; shift them or pad the object",
                )
            )
    x, y = facts["xcoords"].values, facts["ycoords"].values
    if x is not None and y is not None and x.shape == y.shape:
        repeated = len(x) - len(np.unique(np.stack([y, x]), axis=1).T)
        if repeated:
            found = f"{repeated} positions that occur before"
            remedy = "leave out what was measured twice, unless it was meant"
            violations.append(Violation("xcoords", found, "every position once", remedy, False))
    return violations


def _check_patterns(
    facts: Mapping[str, ArrayFacts], side: int, count: int, *, stated_amplitude: bool
) -> list[Violation]:
    violations = []
    for key in ("diffraction", "Y"):
        found = facts.get(key)
        if found is None:
            continue
        if found.shape[1:] != (side, side):
            hwn = found.shape == (side, side, count)
            remedy = "order the axes as (scan, row, column)" + (
                "; `study import --axes hwn` does it" if hwn else ""
            )
            violations.append(
                Violation(key, f"shape {found.shape}", f"(n, {side}, {side})", remedy)
            )
        if found.shape[0] != count:
            what = "patterns" if key == "diffraction" else "patches"
            remedy = "pair patterns and positions"
            violations.append(
                Violation(key, f"{found.shape[0]} {what}", f"{count}, one per position", remedy)
            )
    patterns = facts.get("diffraction")
    if patterns is None:
        return violations
    if patterns.negative_count:
        message = f"{patterns.negative_count} negative values, first in pattern "
        message += str(patterns.negative[0])
        violations.append(
            Violation("diffraction", message, "amplitudes >= 0", "store sqrt(counts)")
        )
    if patterns.whole and patterns.largest > 1:
        violations.append(
            Violation(
                "diffraction",
                f"whole numbers only, up to {patterns.largest:.0f}: counts",
                "amplitudes, sqrt(counts)",
                "let `study import --domain counts` take the root",
                not stated_amplitude,
            )
        )
    if patterns.totals is not None and not patterns.faulty_count:
        blank = np.flatnonzero(patterns.totals == 0)
        if len(blank) == len(patterns.totals):
            violations.append(Violation("diffraction", "all zero", "some photons", "give counts"))
        elif blank.size:
            message = f"{blank.size} patterns without a photon: {_listed(blank, blank.size)}"
            remedy = "drop them if the beam was off (`study import --drop-bad-frames`)"
            violations.append(
                Violation("diffraction", message, "photons in every pattern", remedy, False)
            )
    return violations


def _check_indices(facts: Mapping[str, ArrayFacts], side: int, count: int) -> list[Violation]:
    violations = []
    names, groups, bad = (facts.get(key) for key in ("scan_index", "groups", "bad_pixels"))
    if names is not None and names.shape != (count,):
        expected = f"{count}, one per scan position"
        violations.append(
            Violation("scan_index", f"{names.size} values", expected, "name every pattern")
        )
    if names is not None and names.values is not None:
        repeated = names.size - len(np.unique(names.values))
        if repeated:
            message = f"{repeated} numbers that occur before"
            violations.append(
                Violation("scan_index", message, "every number once", "number the patterns anew")
            )
    if groups is not None and groups.values is not None:
        values = groups.values
        if ((values < 0) | (values >= count)).any():
            message = f"indices {values.min()}..{values.max()}"
            violations.append(
                Violation("groups", message, f"0..{count - 1}", "index the patterns of this file")
            )
        ordered = np.sort(values, axis=1)
        twice = int((np.diff(ordered, axis=1) == 0).any(axis=1).sum())
        if twice:
            message = f"{twice} groups with one pattern twice"
            violations.append(
                Violation("groups", message, "C different patterns", "form the groups anew")
            )
    if bad is not None:
        if bad.shape != (side, side):
            message = f"shape {bad.shape}"
            violations.append(
                Violation("bad_pixels", message, f"({side}, {side})", "crop it like the patterns")
            )
        if bad.values is not None and bad.values.all():
            violations.append(
                Violation("bad_pixels", "every pixel", "some valid pixels", "invert the mask")
            )
    return violations


def _listed(indices: np.ndarray, count: int) -> str:
    text = ", ".join(str(index) for index in indices[:NAMED_INDICES])
    return text + (", ..." if count > NAMED_INDICES else "")
