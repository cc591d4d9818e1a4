"""The study table, its notes and the whole summary as people read them."""

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from study_lib.arm_names import (
    CHOSEN,
    PINN_LABEL,
    SELF_TAUGHT_BASE_LABEL,
    SELF_TAUGHT_LABEL,
    SOLVER_ALTERNATING_LABEL,
    THINNED_BASE_LABEL,
    THINNING_NET_LABEL,
    label_of,
    plain_label,
)
from study_lib.design.experiment import mismatch_text
from study_lib.scores.frc import OUTCOME
from study_lib.scores.metrics import METRICS, OF_MEASURED, OF_SIMULATED, said_of
from study_lib.scores.study_table import (
    Row,
    best_places,
    dose_per,
    held_against_in,
    is_measured,
    unit_of,
)

COLUMNS = {
    "dose": "photons",
    "view": "view",
    "overlap": "overlap",
    "overlap_target": "target",
    "label": "arm",
    "patterns": "patterns",
    "photons_per_object_pixel": "photons / object pixel",
    "dose_gy": "dose [Gy]",
    "phase_ms_ssim": "phase MS-SSIM",
    "phase_ssim": "phase SSIM",
    "phase_ssim_centred": "phase SSIM, centred",
    "phase_psnr_db": "phase PSNR [dB]",
    "phase_mae_rad": "phase MAE [rad]",
    "phase_error_over_wiener": "phase error / Wiener",
    "phase_error_over_limit": "phase error / photon limit",
    "phase_error_over_both_limits": "phase error / limit of arm and reference",
    "amplitude_ssim": "amplitude SSIM",
    "frc_crossing": "FRC crossing / Nyquist",
    "frc_half_bit_crossing": "FRC half-bit / Nyquist",
    "frc_one_bit_crossing": "FRC 1-bit / Nyquist",
    "held_out_excess_nats": "fresh-count excess [nats]",
    "measured_excess_nats": "measured-count excess [nats]",
    "measured_excess_left_out_nats": "the same, positions left out [nats]",
    "phase_ssim_second_reference": "phase SSIM, 2nd reference",
    "phase_psnr_db_second_reference": "phase PSNR, 2nd reference [dB]",
    "registration": "registration",
    "cpu_s": "CPU [s]",
    "training_cpu_s": "training CPU [s]",
}
NUMBERS = tuple(name for name in COLUMNS if name not in {"view", "label", "registration"})
MARKED = tuple(name for name in NUMBERS if name in METRICS and name != "training_cpu_s")
ONLY_IF_KNOWN = (
    "dose_gy",
    "phase_ssim_centred",
    "phase_error_over_wiener",
    *OF_SIMULATED,
    *OF_MEASURED,
)  # columns of the tables of those runs alone that have it
COSTS = ("cpu_s", "training_cpu_s")
# After the point; more where smaller numbers of the same column need them.
DECIMALS = {
    "patterns": 1,
    "phase_psnr_db": 2,
    "phase_mae_rad": 4,
    "phase_error_over_wiener": 3,
    "phase_error_over_limit": 3,
    "phase_error_over_both_limits": 3,
    "held_out_excess_nats": 1,
    "measured_excess_nats": 1,
    "measured_excess_left_out_nats": 1,
    "phase_psnr_db_second_reference": 2,
    "cpu_s": 2,
    "training_cpu_s": 1,
    "photons_measured": 1,
    "photons_per_object_pixel": 1,
    "phase_mse_rad2": 6,
    "amplitude_mse": 6,
    "amplitude_mae": 4,
}
USUAL_DECIMALS, MORE_DECIMALS = 3, 2
DENOISED = label_of("", denoised=True)
ARM_NOTES = {
    PINN_LABEL: "PtychoPINN is a network trained on the diffraction patterns of the train split, "
    "without any object; it sees one pattern at a time, or groups of four, as `grouping` in "
    "`study_table.csv` says.",
    THINNING_NET_LABEL: "The thinning network improves the solver's object. What it knows it "
    "learned from photons of the train split that the solver was not given, without any object.",
    SELF_TAUGHT_LABEL: "The self-taught network is the same, taught by photons of the very "
    "patterns that it is applied to.",
    SELF_TAUGHT_BASE_LABEL: "The base of the self-taught network is chosen by these, too.",
    THINNED_BASE_LABEL: "The base of the thinning network is what it starts from: the solver's "
    "object after steps of the solver and a denoiser in turn, or after a denoiser, and a last "
    "smoothing, as held-out counts of the train split chose. Its training is that choice.",
    SOLVER_ALTERNATING_LABEL: "Solver alternating takes up to 40 steps of the solver and a "
    "denoiser in turn, and a last smoothing; held-out counts of the train split chose denoiser, "
    "strength and epochs. Nothing is learned; its training is that choice.",
    "LSQML": "LSQML is the engine of pty-chi. Its settings are those of the design's table "
    "`iterative`: in presets laptop, overlap, budget and science chosen by held-out counts of "
    "train patterns of laptop, in smoke and fly64 near pty-chi's defaults.",
    "LSQML-poisson": "LSQML-poisson is LSQML with the likelihood of Poisson counts in place of "
    "squared differences of amplitudes. Where a detector pixel has less than a photon its root "
    "is biased: amplitudes give less noise where patterns hardly overlap, and the larger error "
    "where they do.",
    "solver-amplitude": "Solver-amplitude is the solver with squared differences of amplitudes in "
    "place of the likelihood.",
    f"LSQML {CHOSEN}": "LSQML chosen is the likelier of both noise models, denoised or not, by "
    "the same held-out photons of the train split; its training is what both choices cost.",
    f"solver {CHOSEN}": "Solver chosen is the same of the solver's two noise models.",
    "solver": "The solver is the study's own, gradient descent on the likelihood of the counts. "
    "Its settings were tuned on held-out counts of train patterns like those of preset laptop.",
}
DENOISED_NOTE = (
    "A denoised arm is the object of the plain arm after a denoiser, which held-out counts of the "
    "train split chose; its training is that choice."
)
NOTES = (
    "Bold is the best of its group (photons, view). A number in brackets is no score: that object "
    "is no nearer to the truth than an empty one (featureless), or its place against the truth "
    "could not be determined (uncertain). Where the arm is written A = B, held-out counts "
    "refused what A adds, and the row is that of B: it is never the best, and no arm "
    "is charged the training of A (`refused_training_cpu_s` in the files).",
    "Overlap is the share of its area that a probe disc has in common with one of its nearest "
    "neighbours, the mean over neighbours and patterns (metric 2 of `02_overlap`), as measured on "
    "the patterns used; the target is what was asked for. A scan sparser than its target keeps "
    "every pattern. Times are processor seconds; training is not part of CPU [s]. "
    "All arms of a group used the same patterns, probe and mask. From view to view the number of "
    "patterns changes with the overlap, and the photons on the object with it; networks and "
    "denoisers learn from the train split of the same view (a self-taught network from its own "
    "patterns).",
    "Phase error / Wiener is the root mean square phase error over that of the best linear "
    "estimate from this view's photons that knows the mean spectrum of the true phase: below 1 is "
    "more than linear smoothing can do, and no bound. Phase error / photon limit is the same over "
    "the Cramer-Rao bound of the same pixels. Below 1 is no mistake: the bound is that of unbiased "
    "estimates, and an arm that smooths, or shrinks what the counts do not determine, is biased; "
    "where photons are few every arm that does so lies below it, and it ranks none of them.",
    "SSIM needs an origin of phases. That of phase SSIM is the smallest true phase, from which an "
    "empty object may have a half; that of the centred one is the mean, which is stricter.",
    "An FRC column holds the frequency at which the correlation with the truth first falls below "
    "its threshold; that of FRC crossing is `metrics.frc_threshold` of the design, 0.5 in the "
    "presets. Words stand there if in at least one replicate there is no such frequency; then "
    "no row of the group is bold. Never below: not up to Nyquist. Below at first, then above: it "
    "falls below on the first ring, or on one of fewer than 8 independent samples, and rises "
    "again, which is too little to call a resolution. Below from the first rings: hardly any "
    "agreement with the truth. The thresholds half-bit and 1-bit (van Heel and Schatz 2005) are "
    "higher on small rings, where two images agree more by chance; they were made for comparing "
    "two halves of the data.",
)
FRESH_NOTE = (
    "Fresh-count excess compares the reconstruction with the truth by a second draw of counts at "
    "the same positions: the log-likelihood of those counts under the truth less that under the "
    "reconstruction, per pattern. 0 is as good as the truth; larger is worse."
)
MEASURED_NOTES = (
    "The counts are measured, and no truth is known of them. Half of the photons went to the arms, "
    "whose doses are thinnings of them; a quarter made the reference, object and probe; a quarter "
    "judges. Scores hold every arm against the reference, which is a reconstruction itself: its "
    "noise and its faults are in every score, and an arm that is nearer to the specimen than the "
    "reference cannot show it there. Arms are given the probe of the reference. The photon limit "
    "is that of the reference's model, and bounds the error against the specimen: it is no bound "
    "on the errors shown, which hold the reference's noise too. The limit of arm and reference is "
    "the error to expect of an arm at the limit against a reference at its own: the photon limit "
    "times the root of 1 + (photons of the arm) / (photons of the reference), on the same part of "
    "the specimen. The root is 1.7 where an arm has half of all photons, and 1.02 at a hundredth.",
    "Measured-count excess needs no reference to be right: it is the log-likelihood, per pattern, "
    "of the judge's counts, which neither an arm nor the reference has, under the reference less "
    "that under the arm, at the patterns of the view, and at those positions of the split that the "
    "view left out. 0 is as good as the reference, larger is worse, and below 0 the arm explains "
    "measured counts better.",
)
SECOND_NOTE = (
    "Columns of the 2nd reference hold arms against the object that another algorithm made of the "
    "reference's photons."
)
SPREAD_NOTE = (
    "A number with a plus-minus sign is the mean and the sample standard deviation over "
    "replicates; `study_table.csv` has the 95 % intervals of the means too, by Student's t, which "
    "holds for few replicates whose results scatter normally. Of many such intervals one in twenty "
    "misses the true mean."
)

MISMATCH_NOTE = (
    "the light fell on the object with another probe, at other positions or with another "
    "brightness of each frame than every arm was given. Percents of defocus are of its radius, "
    "aberrations are root mean squares over the pupil, drawn anew for each replicate as positions "
    "and brightness are. Scores are against the true object; fresh counts and the photon limit are "
    "those of the true probe and positions, at the mean light of all frames. There is no limit "
    "where this light leaves a scored pixel in the dark."
)


GRAY_NOTE = (
    "A dose in Gy is the surface dose, of a specimen thin beside its absorption length: the "
    "photons on an area, times the energy of one, times the mass photoabsorption coefficient of "
    "the material that the design names (tables of Elam et al. 2002; Howells et al. 2009, "
    "doi:10.1016/j.elspec.2008.10.008). Scattering is not in it, and all energy of an absorbed "
    "photon is taken to stay. Photons are those counted, as in photons / object pixel, less the "
    "mean dark counts of the design. What the specimen absorbs, what a beamstop or dead pixels "
    "hide and what a saturated detector misses comes on top: with a beamstop most of the light "
    "may be missing, and the dose is a lower bound."
)


def _note_on_dose(table: Sequence[Row]) -> str:
    if dose_per(table) == "pattern":
        spent = (
            "The dose is that of each pattern, so a view of more patterns has more photons on each "
            "object pixel and a lower photon limit"
        )
    else:
        spent = (
            f"The dose is in {unit_of(table)} that all positions of the split light, the same for "
            "every view: a view of fewer patterns has more photons in each"
        )
    return (
        f"{spent}. Photons / object pixel are those counted in all patterns of the view, over the "
        "object pixels that probe discs at all positions of the split cover."
    )


def notes_of(table: Sequence[Row]) -> tuple[str, ...]:
    """Return what a reader of these tables has to know, of the arms and numbers they hold."""
    held_against = held_against_in(table)
    notes = [said_of(held_against, note) for note in NOTES]
    notes += MEASURED_NOTES if is_measured(table) else [FRESH_NOTE]
    notes += filter(None, [_arms_text(table), _scales_text(table)])
    notes.append(_note_on_dose(table))
    columns = columns_of(table)
    if "phase_ssim_second_reference" in columns:
        notes.append(SECOND_NOTE)
    if "dose_gy" in columns:
        notes.append(GRAY_NOTE)
    mismatch = mismatch_text(table[0]) if table else ""
    if mismatch:
        notes.append(f"Mismatch ({mismatch}): {MISMATCH_NOTE}")
    if any(row["replicates"] > 1 for row in table):
        notes.append(SPREAD_NOTE)
    name, of = "photon_limit_phase_uncertainty_rad", "photon_limit_phase_rad"
    shares = [row[name] / row[of] for row in table if row.get(name) is not None]
    if shares:
        percent = math.ceil(1000 * max(shares) - 1e-9) / 10  # rounded up: no condition is worse
        notes.append(
            "The photon limit is an estimate from a few random solves. Its root mean square is "
            f"known to {percent:.1f} % or better (one standard error, the largest of "
            "these conditions); how far the error of an arm would differ in another draw of the "
            "noise comes on top, and only replicates show it. `study_table.csv` has each limit's "
            "own uncertainty, the map of `05_compare` that of its pixels."
        )
    return tuple(notes)


def _arms_text(table: Sequence[Row]) -> str:
    """Return what the arms of a table are, as far as the study knows them."""
    labels = {plain_label(row["label"]) for row in table}
    plain = {label.removesuffix(DENOISED) for label in labels}
    known = [text for label, text in ARM_NOTES.items() if label in plain]
    return " ".join(known + [DENOISED_NOTE] * (labels != plain))


def _scales_text(table: Sequence[Row]) -> str:
    """Return over how many scales MS-SSIM was taken, where a table says so."""
    scales = sorted({row["ms_ssim_scales"] for row in table if row.get("ms_ssim_scales")})
    if not scales:
        return ""
    counts = " or ".join(f"{count:g}" for count in scales)
    return (
        f"MS-SSIM is taken over {counts} scales, as many as fit into the scored image, at most 5. "
        "Values over different numbers of scales cannot be compared."
    )


def markdown(summary: Mapping[str, Any], files: Sequence[Row]) -> str:
    """Return the text of ``summary.md`` from the content of ``summary.json`` and the inventory."""
    parts = ["# Summary", *filter(None, [origin_text(summary["origin"])])]
    if summary["answers"]:
        parts += ["## Answer", "\n".join(f"- {line}" for line in summary["answers"])]
    parts += map(small_table, summary["answer_tables"])
    if summary.get("measured"):
        lines = "\n".join(f"- {line}" for line in summary["measured"]["lines"])
        parts += ["## What was measured", lines]
    for split, lines in summary["findings"].items():
        table = [row for row in summary["study_table"] if row["split"] == split]
        parts += [
            f"## {split.capitalize()} split",
            "\n".join(f"- {line}" for line in lines),
            markdown_table(table),
        ]
        deltas = [row for row in summary["highlights"] if row["split"] == split]
        if deltas:
            parts += [
                f"### Phase, difference to {deltas[0]['reference']}, {split} split",
                delta_table(deltas),
                f"Each arm less {deltas[0]['reference']}. Where the MS-SSIM is above zero, or the "
                "mean absolute error below, the arm is ahead.",
            ]
    over = summary.get("mismatch")
    if over:
        parts += ["## What an unknown error costs", *map(small_table, over["tables"])]
        parts += [*over["remarks"], f"{MISMATCH_NOTE[0].upper()}{MISMATCH_NOTE[1:]}"]
    if summary["missing"]:
        parts += ["## Missing", "\n".join(f"- missing: {line}" for line in summary["missing"])]
    parts += ["## How to read the tables", *notes_of(summary["study_table"]), "## Figures"]
    parts += summary["remarks"]
    parts += [f"![{name}]({paths[0]})" for name, paths in summary["figures"].items()]
    size = sum(row["bytes"] or 0 for row in files)
    parts += [
        "## Files",
        f"`inventory.csv` lists {len(files)} files, {size / 2**20:.1f} MiB, with hash and origin.",
    ]
    return "\n\n".join(parts) + "\n"


def small_table(small: Mapping[str, Any]) -> str:
    """Return a small table of a summary, with its title."""
    kinds = [False] + [True] * (len(small["columns"]) - 1)
    return f"### {small['title']}\n\n{_table(small['columns'], kinds, small['rows'])}"


def markdown_table(rows: Sequence[Row]) -> str:
    """Return rows of the study table; a value that was not reached is a dash."""
    columns = columns_of(rows)
    kinds = [name in NUMBERS for name in columns]
    return _table(columns.values(), kinds, (map(_marked, line.cells) for line in shown_table(rows)))


def delta_table(rows: Sequence[Row]) -> str:
    """Return signed differences in phase MS-SSIM (3 decimals) and phase MAE (6 decimals)."""
    titles = ["photons", "view", "arm", "phase MS-SSIM", "phase MAE [rad]", "registration"]
    cells = (
        [
            *(number_text(row["dose"]), row["view"], row["arm"]),
            *(_signed(row, "phase_ms_ssim_delta", 3), _signed(row, "phase_mae_rad_delta", 6)),
            row["registration"],
        ]
        for row in rows
    )
    return _table(titles, [True, False, False, True, True, False], cells)


def arms_table(rows: Sequence[Row]) -> str:
    """Return one comparison as Markdown: a column an arm, a row each of its facts.

    Parameters
    ----------
    rows
        Of one condition, from :func:`study_lib.phases.compare.compare`.
    """
    titles = ["", *(row["label"] for row in rows)]
    best = best_places(rows, [name for name in METRICS if name != "training_cpu_s"])
    lines = []
    for name in rows[0]:
        if name in {"arm", "label", "patterns_sha256", "source"}:
            continue
        cells = (
            replace(cell, is_best=(index, name) in best)
            for index, cell in enumerate(_column(rows, name))
        )
        lines.append([f"`{name}`", *map(_marked, cells)])
    return _table(titles, [False] + [True] * len(rows), lines)


def _table(titles: Iterable[str], numeric: Sequence[bool], cells: Iterable[Iterable[str]]) -> str:
    lines = [list(titles), ["---:" if one else "---" for one in numeric], *map(list, cells)]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


@dataclass(frozen=True)
class Cell:
    """A field of a shown table: its text, and whether it is a number and the best of its group."""

    text: str
    is_number: bool = False
    is_best: bool = False


@dataclass(frozen=True)
class Line:
    """A row of a shown table; the first of a group, and what its numbers are worth."""

    cells: tuple[Cell, ...]
    begins_group: bool
    is_void: bool
    is_fallback: bool

    @property
    def kinds(self) -> str:
        """The names of what it is, as a style sheet knows them."""
        names = {
            "begins-group": self.begins_group,
            "no-score": self.is_void,
            "fallback": self.is_fallback,
        }
        return " ".join(name for name, holds in names.items() if holds)


def columns_of(rows: Sequence[Row]) -> dict[str, str]:
    """Return the titles of the columns that the table of some rows has, by name."""
    return {
        name: title
        for name, title in COLUMNS.items()
        if name not in ONLY_IF_KNOWN or any(name in row for row in rows)
    }


def shown_table(rows: Sequence[Row]) -> list[Line]:
    """Return the study table for people: the text of each of its columns, and its marks.

    All numbers of a column have the same decimals. Where the registration is in doubt scores stand
    in brackets. The best score of a group of photons and view is marked, among rows that are
    scores; none is where one of them has no number.
    """
    columns = {name: _column(rows, name) for name in columns_of(rows)}
    best = best_places(rows, MARKED)
    lines = []
    for index, row in enumerate(rows):
        before = rows[index - 1] if index else None
        cells = (
            replace(column[index], is_best=(index, name) in best)
            for name, column in columns.items()
        )
        lines.append(
            Line(
                tuple(cells),
                any(before is None or before[name] != row[name] for name in ("dose", "view")),
                row["registration"] != "ok",
                bool(row.get("fallback")),
            )
        )
    return lines


def _column(rows: Sequence[Row], name: str) -> list[Cell]:
    """Return one field of all rows; scores of a doubtful place in brackets."""
    decimals = decimals_of(rows, name)
    cells = []
    for row in rows:
        value = row.get(name)
        if value is None:  # runs of before say nothing beside a crossing that is missing
            value = row.get(f"{name}{OUTCOME}")
        text = number_text(value, decimals, row.get(f"{name}_std"))
        if name == "dose_gy" and value is not None:  # from single grays to giga-grays
            text = f"{value:.2e}"
        is_score_column = name in METRICS and name not in COSTS
        if is_score_column and isinstance(value, int | float) and row["registration"] != "ok":
            text = f"({text})"
        cells.append(Cell(text, is_number=name in NUMBERS))
    return cells


def decimals_of(rows: Sequence[Row], name: str) -> int:
    """Return how many decimals a column needs to show two digits of its least value."""
    values = [row.get(name) for row in rows]
    if not any(isinstance(value, float) and not value.is_integer() for value in values):
        return 0 if name not in METRICS else DECIMALS.get(name, USUAL_DECIMALS)
    usual = DECIMALS.get(name, USUAL_DECIMALS)
    needed = [1 - math.floor(math.log10(abs(value))) for value in values if value]
    return min(max(usual, *needed), usual + MORE_DECIMALS)


def number_text(value: Any, decimals: int = 0, spread: float | None = None) -> str:
    """Return a number as people read it, with its spread if it has one; a dash if there is none."""
    if value is None or value == "":
        return "-"
    if isinstance(value, str | bool):
        return str(value)
    text = f"{value:.{decimals}f}"
    if value and not float(text):
        text = f"< {10**-decimals:.{decimals}f}"
    return text if spread is None else f"{text} ± {spread:.{decimals}f}"


def _marked(cell: Cell) -> str:
    return f"**{cell.text}**" if cell.is_best else cell.text


def origin_text(origin: Mapping[str, Any]) -> str:
    """Return which run a summary is of; nothing if that is not known."""
    if not origin:
        return ""
    count = len(origin["replicates"])
    noise = "share of the photons" if is_measured([origin]) else "noise"
    spread = (
        "one set of seeds, no spread over repetitions"
        if count == 1
        else f"each with its own {noise}, choice of patterns and training"
    )
    kind = "measured counts of" if is_measured([origin]) else "object"
    numbers = ", ".join(map(str, origin["replicates"]))
    changes = ", ".join(origin.get("changes", ()))
    preset = origin["preset"] + (f" with {changes}" if changes else "")
    mismatch = mismatch_text(origin)
    gray = f" Doses in Gy are of {origin.get('material')}."
    unknown = f" The data were made with a mismatch unknown to every arm: {mismatch}."
    return (
        f"Preset {preset}, design {origin['design']}, {kind} {origin['object']}, patches "
        f"of {origin['patch_size_px']} pixels, replicate{'s' if count > 1 else ''} {numbers}: "
        f"{spread}.{unknown if mismatch else ''}{gray if origin.get('material') else ''}"
    )


def _signed(row: Row, name: str, digits: int) -> str:
    spread = row[f"{name}_std"]
    tail = "" if spread is None else f" ± {spread:.{digits}f}"
    text = f"{row[name]:+.{digits}f}{tail}"
    return text if row["registration"] == "ok" else f"({text})"
