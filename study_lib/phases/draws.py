"""What a summary says of measured counts: noise, reference, draws, and simulated ranks."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from study_lib.data.archive import read_npz
from study_lib.design.models import StudyDesign
from study_lib.design.notebooks import dotted
from study_lib.design.presets import parse_design
from study_lib.errors import InputError
from study_lib.files import read_json
from study_lib.phases.conditions import (
    PHASES,
    REFERENCE,
    Condition,
    PlacesBelow,
    conditions_of,
    found_within,
    read_aligned,
    read_scores,
    runs_within,
)
from study_lib.phases.import_verdict import NOT_CONVERGED
from study_lib.phases.measured import PHOTONS, RECORD
from study_lib.physics.photons import share_no_photons
from study_lib.scores.alignment import align
from study_lib.scores.frc import (
    OUTCOME,
    SEVENTH,
    frc_crossing,
    half_bit_threshold,
    ring_correlation,
)
from study_lib.scores.ranks import rank_differences, rank_sentences
from study_lib.scores.scoring import describe_registration
from study_lib.scores.study_table import grouped

DRAWS_TABLE = "draws.csv"
COMPARED_FILES = ("aligned.npz", "metrics.json")
RANKS = "rank_differences"  # beside the summary, as CSV and JSON

# --- What was measured, and what it is worth


def sentences_on_measured(run_folder: Path, design: StudyDesign) -> list[str]:
    """Return what a run's references and its test of the noise say; nothing of a simulated run."""
    if not design.is_measured:
        return []
    records = {}
    for one in runs_within(design):
        place = PlacesBelow(run_folder / one.folder).root("dataset") / REFERENCE / RECORD
        if place.is_file():
            records[one.design.replicate] = read_json(place)
    if not records:
        return []
    first = next(iter(records.values()))
    photons = first["photons_per_pattern"]
    counts = "Counts are those measured,"
    if design.base and design.base.simulated_from:
        counts = (
            f"Counts are simulated: of object, probe and positions of {design.base.name}, which "
            "this run treats as it would a measurement, also where it calls them measured;"
        )
    return [
        f"{counts} {photons['measured']:.4g} photons in each of "
        f"{first['patterns']} patterns: half are the arms', a quarter makes the reference, a "
        f"quarter judges. {first['noise']['sentence']}",
        f"{_sentences_on_references(records, design.metrics.frc_threshold)} "
        "The reference is no truth.",
    ]


def _sentences_on_references(records: Mapping[int, Mapping[str, Any]], threshold: float) -> str:
    """Return by which algorithms the references of some draws are, and how far two agree."""
    between = {draw: record["between_algorithms"] for draw, record in records.items()}
    names = ", ".join(f"{record['first']} (draw {draw})" for draw, record in records.items())
    reasons = dict.fromkeys(one["why_none"] for one in between.values() if "why_none" in one)
    if reasons:
        return (
            f"The reference is made by {names} alone, and how far another algorithm agrees with it "
            f"is not known: {'; '.join(reasons)}."
        )
    low, high = (f([one["phase_ssim"] for one in between.values()]) for f in (min, max))
    reach = ", ".join(f"{_where_below(one)} (draw {draw})" for draw, one in between.items())
    return (
        f"The reference is made by {names}, the algorithm that explains the judge's counts better. "
        f"The object of the other one agrees with it to a phase SSIM of {low:.3f} to {high:.3f}. "
        f"Against a threshold of {threshold:g} the ring correlation of the two {reach}."
    )


def _where_below(scores: Mapping[str, Any]) -> str:
    """Return where a ring correlation falls below the design's threshold, in words."""
    frequency = scores["frc_crossing"]
    if frequency is None:
        return f"is {scores[f'frc_crossing{OUTCOME}']}"
    return f"falls below at {frequency:.2f} of Nyquist"


def warnings_on_measured(run_folder: Path) -> list[str]:
    """Return what is wrong with measured counts or references of a run's draws.

    Noise that is not that of photons, and algorithms that had used up their epochs before they
    converged.
    """
    paths = found_within(run_folder, f"{PHASES['dataset']}/{REFERENCE}/{RECORD}")
    records = [read_json(path) for path in paths]
    said = [one["noise"]["sentence"] for one in records if one["noise"]["is_poisson"] is False]
    for record in records:
        for name, end in record.get("ends", {}).items():
            if end["stop"] == NOT_CONVERGED:
                said.append(
                    f"the reference of draw {record['draw']} by {name} has not converged in "
                    f"{end['epochs']} epochs (R-factor {end['r_factor']:.4f}, of noise alone "
                    f"{end['r_noise']:.4f}); raise reference_epochs"
                )
    return list(dict.fromkeys(said))


# --- Objects of draws whose arms share no photon


def agreement_of_draws(run_folder: Path, design: StudyDesign) -> list[dict[str, Any]]:
    """Return how far the objects of one arm agree whose patterns share no photon.

    Draws 0 and 1 share no photon of their arms, nor do 2 and 3. The objects are not made of
    disjoint photons alone: the probe of each is that of its draw's reference, whose photons are
    among those of the other draw's arms. Scan and algorithm are the same, too.

    Returns
    -------
    list of dict
        A row for each pair of draws, condition and arm: the ring correlation's crossings, as
        fractions of Nyquist, with their outcomes. ``arms_photons_shared`` are the photons that
        the arms of both must have in common, as the files of their counts say: those that they have
        beyond what was measured; None where these files are not there. Empty with a single draw, or
        of simulated counts.

    References
    ----------
    1/7 between halves: Rosenthal and Henderson, J. Mol. Biol. 333, 721 (2003),
    doi:10.1016/j.jmb.2003.07.013
    """
    if not design.is_measured:
        return []
    runs = [one for one in runs_within(design) if not one.field]
    pairs = [
        (one, two)
        for place, one in enumerate(runs)
        for two in runs[place + 1 :]
        if share_no_photons(one.design.replicate, two.design.replicate)
    ]
    rows = []
    for pair in pairs:
        shared = _arms_photons_shared(*(run_folder / one.folder for one in pair))
        both = [
            conditions_of(one.design, PlacesBelow(run_folder / one.folder), each_split=True)
            for one in pair
        ]
        for one, two in zip(*both, strict=True):
            rows += [line | {"arms_photons_shared": shared} for line in _agreement_of(one, two)]
    return rows


def _arms_photons_shared(one: Path, two: Path) -> int | None:
    """Return how many photons the arms of two draws have beyond all that were measured."""
    files = [PlacesBelow(run).root("dataset") / REFERENCE / PHOTONS for run in (one, two)]
    if not all(path.is_file() for path in files):
        return None
    parts, _ = read_npz(files[0])
    (others,) = read_npz(files[1], only=["arms"])[0].values()
    left = sum(part.astype(np.int64) for name, part in parts.items() if name != "arms")
    return int(np.maximum(others - left, 0).sum())


def _agreement_of(one: Condition, two: Condition) -> list[dict[str, Any]]:
    folders = [each.folder("compare") for each in (one, two)]
    if not all((folder / name).is_file() for folder in folders for name in COMPARED_FILES):
        return []  # it was not compared: its arms are missing, and are listed as that
    found = [_compared(folder) for folder in folders]
    (arrays, origin, rows), (others, other_origin, other_rows) = found
    first, second, mask = _common(arrays["mask"], origin, others["mask"], other_origin)
    limits = one.design.metrics
    if not mask.any():
        return []
    lines = []
    for arm in rows.keys() & other_rows.keys():
        aligned = align(
            others[arm][second],
            arrays[arm][first],
            mask,
            registration_limit_px=limits.registration_limit_px,
        )
        rings = ring_correlation(aligned.object_, arrays[arm][first], mask)
        line: dict[str, Any] = {
            "split": one.split,
            "dose": one.dose,
            "view": one.view.name,
            "arm": arm,
            "label": rows[arm]["label"],
            "draws": f"{one.design.replicate} and {two.design.replicate}",
            "registration": describe_registration(aligned.registration),
        }
        for name, threshold in (
            ("frc_crossing", limits.frc_threshold),
            ("frc_seventh_crossing", SEVENTH),
            ("frc_half_bit_crossing", half_bit_threshold(rings)),
        ):
            crossing = frc_crossing(rings, threshold)
            line |= {name: crossing.frequency, f"{name}{OUTCOME}": crossing.outcome}
        lines.append(line)
    return sorted(lines, key=lambda line: str(line["arm"]))


def _compared(
    folder: Path,
) -> tuple[dict[str, np.ndarray], Sequence[int], dict[str, dict[str, Any]]]:
    arrays, metadata = read_aligned(folder)
    return arrays, metadata["origin_px"], {row["arm"]: row for row in read_scores(folder)}


def _common(
    mask: np.ndarray, origin: Sequence[int], other: np.ndarray, other_origin: Sequence[int]
) -> tuple[tuple[slice, slice], tuple[slice, slice], np.ndarray]:
    """Return the parts of two crops of one frame that they share, and where both are scored."""
    start = np.maximum(origin, other_origin)
    stop = np.minimum(np.add(origin, mask.shape), np.add(other_origin, other.shape))
    first, second = (
        tuple(slice(a, b) for a, b in zip(start - place, stop - place, strict=True))
        for place in (np.array(origin), np.array(other_origin))
    )
    return (first[0], first[1]), (second[0], second[1]), mask[first] & other[second]


ARMS_SHARE_NONE = (
    "whose arms share no photon, each with a probe from photons among those of the other's arms"
)


def sentences_on_draws(rows: Sequence[Mapping[str, Any]]) -> list[str]:
    """Return to what frequency objects of two draws agree, by arm, in the test split."""
    part = [row for row in rows if row["split"] == "test"]
    if not part:
        return []
    said = []
    for (label,), some in grouped(part, ("label",)).items():
        numbers = [row["frc_seventh_crossing"] for row in some]
        known = [one for one in numbers if one is not None]
        if known:
            span = f"{min(known):.2f} to {max(known):.2f}" if len(known) > 1 else f"{known[0]:.2f}"
            rest = len(numbers) - len(known)
            said.append(f"{label} {span}{f' ({rest} without a crossing)' if rest else ''}")
    draws = " and ".join(dict.fromkeys(str(row["draws"]) for row in part))
    if not said:
        return [f"Objects of draws {draws}, {ARMS_SHARE_NONE}, have no crossing of 1/7."]
    return [
        f"Objects of draws {draws}, {ARMS_SHARE_NONE}, agree with one another up to these "
        "fractions of Nyquist (ring correlation 1/7, over the conditions of the test split): "
        f"{', '.join(said)}. `{DRAWS_TABLE}` has each. An arm that leaves out "
        "what photons do not determine agrees with itself further than it is right."
    ]


# --- Against simulated counts of the same base data


def simulated_beside(run_folder: Path, design: StudyDesign) -> Path | None:
    """Return the newest finished run with simulated counts of the same base data and preset.

    One whose scores compare, too, comes before others: see :func:`ranks_against`.
    """
    if not design.is_measured or design.base is None:
        return None
    found = []
    for path in run_folder.resolve().parent.glob("*/design.json"):
        summary = path.parent / PHASES["summary"] / "summary.json"
        if not summary.is_file():
            continue
        try:
            other = parse_design(read_json(path), str(path))
        except InputError:  # of a later version, or damaged: no run to hold this one against
            continue
        if other.preset == design.preset and not _unlike(design, other):
            found.append((other.is_measured, path.stat().st_mtime, path.parent))
    return max(found)[-1] if found else None


MAY_DIFFER = {
    *("base", "doses", "views", "points", "replicate", "replicates", "trained_replicates"),
    *("wanted", "flux_per_s", "pixel_size_m", "material"),
}  # between two runs whose scores compare, condition by condition


def _unlike(design: StudyDesign, other: StudyDesign) -> str:
    """Return why ranks of two designs cannot be held against each other; empty if they can."""
    ours, theirs = (one.base.sha256 if one.base else None for one in (design, other))
    if other.is_measured:
        theirs = other.base.simulated_from if other.base else None
        if theirs is None:
            return (
                "its counts are measured too; give a run that was made with --simulated, or of "
                "what `study simulate` writes"
            )
        contents = [
            dotted(one.model_dump(mode="json", exclude=MAY_DIFFER)) for one in (design, other)
        ]
        differing = [
            name
            for name in contents[0] | contents[1]
            if contents[0].get(name) != contents[1].get(name)
        ]
        if differing:
            return f"it is not the same study: {', '.join(differing)} differ"
    if ours != theirs:
        names = [one[:12] if one else "the synthetic object" for one in (ours, theirs)]
        return f"it is of {names[1]} (SHA-256), the measured run of {names[0]}"
    if other.dose_per != design.dose_per:
        return f"its doses are per {other.dose_per}, those of the measured run {design.dose_per}"
    views = {view.name: view for view in other.views}
    named = [view.name for view in design.views if views.get(view.name, view) != view]
    if named:
        return f"views of one name keep other patterns: {', '.join(named)}"
    return ""


def ranks_against(
    table: Sequence[Mapping[str, Any]], design: StudyDesign, simulated_run: Path
) -> tuple[list[dict[str, Any]], list[str]]:
    """Return where the ranks of a study table differ from a simulated run's, as rows and sentences.

    Where the other run is of what ``study simulate`` wrote of the same measurement, its counts were
    divided and judged as the measured ones were, and by how much scores differ is said, too.

    Raises
    ------
    InputError
        If the other run has no summary, is one of other measured counts, or differs in the base
        data, in what doses are counted on, in a view of the same name, or, where scores are to
        compare, in any setting.
    """
    design_path = simulated_run / "design.json"
    other = parse_design(read_json(design_path), str(design_path))
    if why := _unlike(design, other):
        raise InputError(f"--against {simulated_run}: {why}; ranks would not compare")
    summary = read_json(simulated_run / PHASES["summary"] / "summary.json")
    rows = rank_differences(table, summary["study_table"])
    sentences = rank_sentences(rows, simulated_run.name, scores_compare=other.is_measured)
    return rows, sentences
