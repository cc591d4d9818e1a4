"""Measured counts as phases use them: the reference of a draw, patterns of a dose, the judge.

:mod:`study_lib.phases.reference` makes what is read here.
"""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Complex, Float, Int, Shaped

from study_lib.data.archive import metadata_of, open_npz, read_npz
from study_lib.data.datasets import load_measurement
from study_lib.design.models import StudyDesign
from study_lib.errors import InputError
from study_lib.phases.conditions import REFERENCE, REFERENCE_FILES, Condition
from study_lib.physics.likelihood import likelihood_judge
from study_lib.physics.measurement import Measurement, as_share, at_positions
from study_lib.physics.photons import (
    SHARES,
    WHOLE_SHARE_MIN,
    thinned,
    whole_share_of_roots,
)

OBJECTS, PHOTONS, RECORD = REFERENCE_FILES
SHARE = "share_of_photons"  # what the metadata of patterns call it: of all that were measured


# --- What was measured


def base_of(condition: Condition) -> Path:
    """Return the base data of a condition whose counts are measured.

    Raises
    ------
    InputError
        If they are simulated, or there are no base data.
    """
    if not condition.design.is_measured:
        raise InputError(
            f"design {condition.design.digest}: its counts are simulated, on an object that is "
            "known; a reference is made of measured counts"
        )
    if condition.base_npz is None:
        raise InputError("source = measured: the counts are in the base data; give --base-npz")
    return condition.base_npz


def base_measurement(condition: Condition) -> Measurement:
    """Return what was measured: all photons of all positions of the base data.

    Raises
    ------
    InputError
        If the design is simulated, or the file is missing or breaks the contract.
    """
    return load_measurement(base_of(condition))


def require_whole(path: Path, amplitudes: Float[np.ndarray, "scan n n"]) -> None:
    """Check that what was measured are photons: whole numbers.

    Raises
    ------
    InputError
        If more than 1 % are not.
    """
    share = whole_share_of_roots(amplitudes)
    if share < WHOLE_SHARE_MIN:
        raise InputError(
            f"{path}: {100 * share:.3g} % of its counts are whole numbers; at least "
            f"{100 * WHOLE_SHARE_MIN:g} % have to be: what is no number of photons cannot be "
            "divided photon by photon; import raw counts, before dark or gain are corrected, or "
            "choose --simulated"
        )


def mean_photons(counts: Float[np.ndarray, "scan n n"]) -> float:
    """Return the photons of a pattern, on average."""
    return float(counts.sum(dtype=np.float64)) / len(counts)


# --- The reference of a draw


@dataclass(frozen=True)
class Reference:
    """The reference of a draw: objects (oy, ox) of two algorithms, and the probe of the first.

    The probe is in roots of the photons of the reference's own share. ``second`` and its object are
    None where the other algorithm does not model the masks of the data.
    """

    object_: Complex[np.ndarray, "oy ox"]
    probe: Complex[np.ndarray, "..."]
    second_object: Complex[np.ndarray, "oy ox"] | None
    first: str
    second: str | None
    files: tuple[Path, ...]


def reference_of(condition: Condition) -> Reference:
    """Return the reference of a condition's draw.

    Raises
    ------
    InputError
        If it has not been made.
    """
    folder = condition.folder(REFERENCE)
    if not all((folder / name).is_file() for name in REFERENCE_FILES):
        raise InputError(
            f"{folder}: there is no reference; make it with `study generate`, notebook "
            "01_reference or study.make_reference"
        )
    arrays, metadata = read_npz(folder / OBJECTS)
    return Reference(
        arrays["object"],
        arrays["probe"],
        arrays.get("second_object"),
        str(metadata["first"]),
        metadata["second"],
        (folder / OBJECTS, folder / PHOTONS),
    )


def counts_of_part(condition: Condition, part: str) -> Shaped[np.ndarray, "scan n n"]:
    """Return the whole counts of one of ``SHARES``, of every position of the base data."""
    path = condition.folder(REFERENCE) / PHOTONS
    return read_npz(path, only=[part])[0][part]


# --- The patterns of a dose


@dataclass(frozen=True)
class ThinnedPatterns:
    """Amplitudes (scan, n, n) of some positions at a dose, probe, and share of all photons."""

    amplitudes: Float[np.ndarray, "scan n n"]
    probe: Complex[np.ndarray, "..."]
    share: float


def patterns_at(
    condition: Condition,
    rows: Int[np.ndarray, " scan"],
    photons_per_pattern: float,
    reference: Reference,
) -> ThinnedPatterns:
    """Return the patterns of some positions with so many photons each, on average.

    They are a thinning of the arms' photons, and those of a lower dose are among those of a higher.

    Parameters
    ----------
    condition
        Its draw names the photons.
    rows
        Numbers of the positions in the base data.
    photons_per_pattern
        Mean over these positions.
    reference
        Whose probe is scaled to these photons.

    Raises
    ------
    InputError
        If the arms' photons are fewer.
    """
    arms = counts_of_part(condition, "arms")
    held = float(arms.sum(axis=(1, 2), dtype=np.float64)[rows].sum()) / len(rows)
    asked = photons_per_pattern / held
    if asked > 1 + HELD_TOLERANCE:
        raise InputError(too_many(photons_per_pattern, held, condition.design, condition.label))
    share = min(1.0, asked)
    seed, draw = condition.design.seeds.simulation, condition.design.replicate
    counts = thinned(arms, share, seed=seed, draw=draw, rows=rows)
    share *= SHARES["arms"]
    scale = np.sqrt(share / SHARES["reference"])
    return ThinnedPatterns(np.sqrt(counts), (reference.probe * scale).astype(np.complex64), share)


def share_of(metadata: Mapping[str, Any], path: Path) -> float:
    """Return which share of all measured photons the patterns of a file have.

    Raises
    ------
    InputError
        If its metadata do not say.
    """
    share = metadata.get(SHARE)
    if not isinstance(share, float) or not 0 < share <= 1:
        raise InputError(
            f"{path}: its metadata do not say which share of the measured photons it has; "
            "generate the data again"
        )
    return share


HELD_TOLERANCE = 0.01  # half of the photons are half only by chance


def too_many(asked: float, held: float, design: StudyDesign, where: str) -> str:
    """Return that a dose is more than the arms' share of the measured photons, and what is not."""
    name = design.base.name if design.base else "the base data"
    return (
        f"{where}: {asked:.4g} photons in a pattern; at most {held:.4g}, half of the "
        f"{held / SHARES['arms']:.4g} that {name} has: the other half makes the reference and "
        "judges; lower --doses"
    )


# --- Counts that judge: measured, and given to no arm and no reference


class HeldOutCounts:
    """The judge's counts at the positions of a view, and at those of its split that it left out.

    Parameters
    ----------
    condition
        One view and split.
    measurement
        Its patterns; the judge's are those of the same positions.
    share
        Of all photons, that these patterns have.
    reference
        What excess is counted from.
    """

    def __init__(
        self, condition: Condition, measurement: Measurement, share: float, reference: Reference
    ) -> None:
        counts = counts_of_part(condition, "judge")
        whole = load_measurement(condition.whole_file)
        with open_npz(condition.whole_file) as archive:
            of_whole = share_of(metadata_of(archive), condition.whole_file)
        is_kept = np.isin(whole.scan_index, measurement.scan_index)
        root = np.float32(np.sqrt(SHARES["judge"] / SHARES["reference"]))
        self._scale = np.sqrt(SHARES["judge"] / share)
        self._parts: dict[str, Measurement] = {}
        for name, chosen in (("", is_kept), (LEFT_OUT, ~is_kept)):
            if chosen.any():
                part = at_positions(whole, np.flatnonzero(chosen))
                some = counts[part.scan_index].astype(np.float32)
                weaker = as_share(part, some, SHARES["judge"] / of_whole)
                of_judge = (reference.probe * root).astype(reference.probe.dtype)
                self._parts[name] = replace(weaker, probe=of_judge)
        self._of_reference = self._nats(reference.object_, None)

    def scores(
        self,
        object_: Complex[np.ndarray, "oy ox"],
        probe: Complex[np.ndarray, "..."] | None = None,
    ) -> dict[str, float | None]:
        """Return by how many nats per pattern the counts are less likely than by the reference.

        Parameters
        ----------
        object_ : (oy, ox)
            As the arm gave it.
        probe
            The arm's own, in roots of the photons of its patterns; None: that of the reference.
        """
        found: dict[str, float | None] = dict.fromkeys(JUDGED_COLUMNS)
        for name, nats in self._nats(object_, probe).items():
            more = nats - self._of_reference[name]
            found[f"measured_excess{name}_nats"] = float(more.mean())
            if not name and len(more) > 1:
                error = float(more.std(ddof=1)) / len(more) ** 0.5
                found["measured_excess_error_nats"] = error
        return found

    def _nats(
        self, object_: Complex[np.ndarray, "oy ox"], probe: Complex[np.ndarray, "..."] | None
    ) -> dict[str, Float[np.ndarray, " scan"]]:
        found = {}
        for name, part in self._parts.items():
            lit = part
            if probe is not None:
                lit = replace(part, probe=(probe * self._scale).astype(part.probe.dtype))
            found[name] = likelihood_judge(lit)(object_.astype(np.complex64))
        return found


LEFT_OUT = "_left_out"
JUDGED_COLUMNS = (
    "measured_excess_nats",
    "measured_excess_error_nats",
    f"measured_excess{LEFT_OUT}_nats",
)
