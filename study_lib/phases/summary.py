"""Phase H: every comparison in one study table, with figures, findings and inventory."""

import math
from collections.abc import Collection, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from matplotlib.figure import Figure

from study_lib.arm_names import PINN_LABEL, plain_label
from study_lib.design.axes import dose_name
from study_lib.design.experiment import MaterialDesign, mismatch_title
from study_lib.design.models import StudyDesign
from study_lib.design.presets import changes_of_preset, parse_design
from study_lib.design.wanted import USUAL, Wanted, wanted_of
from study_lib.errors import InputError
from study_lib.figures.common import masked, phase_grid, save_figure
from study_lib.figures.quality_map import quality_map
from study_lib.figures.results import (
    heat_maps,
    least_dose_by_overlap,
    phase_error_by_dose,
    phase_error_by_photons,
    quality_by_cost,
    quality_over_mismatch,
)
from study_lib.files import (
    read_csv,
    read_json,
    write_csv,
    write_json,
    write_text,
)
from study_lib.phases.conditions import (
    LEVELS,
    MANIFESTS,
    MISSING_ARMS,
    PHASES,
    QUALITY_MAP,
    REPLICATES,
    SUMMARY_FIGURES,
    Places,
    figure_files,
    held_against,
    mismatch_name,
    pictured,
    read_aligned,
    read_scores,
    runs_within,
    why_no_map,
)
from study_lib.phases.draws import (
    DRAWS_TABLE,
    agreement_of_draws,
    ranks_against,
    sentences_on_draws,
    sentences_on_measured,
    simulated_beside,
)
from study_lib.phases.records import Work, inventory, mixed_codes, recorded
from study_lib.physics.absorption import mass_absorption_m2_per_kg, surface_dose_gy
from study_lib.scores.answers import answers_of
from study_lib.scores.featureless import stayed_text, stays_featureless
from study_lib.scores.findings import findings
from study_lib.scores.metrics import metric_facts
from study_lib.scores.mismatch_cost import (
    LEVEL,
    LOSS_NOTE,
    WORDS,
    Levels,
    level_table,
    loss_table,
)
from study_lib.scores.shown_tables import markdown
from study_lib.scores.study_table import (
    Row,
    dose_per,
    grouped,
    held_against_in,
    phase_deltas,
    study_table,
    unit_of,
    views_in_order,
)

SPLITS_IN_ORDER = ("test", "train")  # first what was not learned from


def summarize(places: Places) -> list[dict[str, Any]]:
    """Write tables, figures, findings and inventory; return the study table.

    ``study_table.csv`` has one row per condition and arm, ``table.csv`` (test split) and
    ``table_train.csv`` one per replicate too, ``highlights.csv`` signed differences in phase,
    ``inventory.csv`` every recorded file; ``summary.md`` and ``summary.json`` hold all of it for
    people and programs. Of each listed field of a mismatch there are a table and a figure more,
    such as ``mismatch_position_error_px.csv``; no other number has any of its values.

    Parameters
    ----------
    places
        A run, or whatever else knows the folders of its phases.

    Returns
    -------
    list of dict
        A row for each condition and arm, means and spreads over replicates; plain values.

    Raises
    ------
    InputError
        If there is no comparison to summarise.

    Examples
    --------
    >>> import study_lib as study
    >>> table = study.summarize(run)  # run: study.open_run of a finished run's folder
    >>> [row["arm"] for row in table if row["view"] == "dense" and row["split"] == "test"]
    ['pinn', 'solver', 'thinning-net']
    >>> all(row["phase_mse_rad2"] > 0 for row in table)
    True
    >>> (run.root("summary") / "summary.md").is_file()
    True
    """
    compared_root, folder = places.root("compare"), places.root("summary")
    rows = collect_rows(compared_root)
    work = Work(
        manifest=folder / MANIFESTS["summary"],
        key="summary",
        folder=folder,
        parameters={"replicates": len({row["replicate"] for row in rows})},
        inputs=compared_files(compared_root, "metrics.json", LEVELS),
    )
    with recorded(work):
        table, deltas = study_table(rows), phase_deltas(rows)
        answers = answers_of(_shown_first(rows), *_asked(compared_root))
        over = rows_over_mismatch(compared_root, rows)
        files = inventory(compared_root.parent)
        tables: dict[str, Sequence[Row]] = {
            "study_table.csv": table,
            "table.csv": [row for row in rows if row["split"] == "test"],
            "table_train.csv": [row for row in rows if row["split"] == "train"],
            "highlights.csv": deltas,
            "dose_saving.csv": answers.savings,
            "least_dose.csv": answers.least,
            "inventory.csv": files,
            **_mismatch_tables(over),
        }
        measured = _measured_content(compared_root, table)
        if measured:
            tables[DRAWS_TABLE] = measured.pop("draws")
        for name, lines in tables.items():
            write_csv(folder / name, lines)
            work.outputs.append(folder / name)
        figures = summary_figures(compared_root, rows, table, answers.least)
        figures |= mismatch_figures(over)
        saved = {}
        for step, (name, figure) in enumerate(figures.items(), start=1):
            paths = figure_files(folder, name)
            save_figure(figure, *paths)
            work.outputs += paths
            saved[name] = [path.relative_to(folder).as_posix() for path in paths]
            work.progress("figures", step, len(figures))
        warnings = _stayed_featureless(compared_root)
        sentences = {
            split: findings(*(_of_split(part, split) for part in (table, deltas))) + warnings
            for split in SPLITS_IN_ORDER
            if _of_split(table, split)
        }
        summary = {
            "origin": _origin(compared_root),
            "dose_held_fixed": unit_of(rows).removeprefix("photons "),
            "answers": list(answers.sentences),
            "answer_tables": [asdict(table) for table in answers.tables],
            "findings": sentences,
            "study_table": table,
            "highlights": deltas,
            "missing": _missing(compared_root),
            "mixed_codes": mixed_codes(compared_root.parent),
            "metrics": metric_facts(held_against_in(rows)),
            "remarks": [_no_map(rows)] if QUALITY_MAP not in saved else [],
            "figures": saved,
            **_mismatch_content(compared_root, over),
            **({"measured": measured} if measured else {}),
        }
        write_json(folder / "summary.json", summary)
        write_text(folder / "summary.md", markdown(summary, files))
        work.outputs += [folder / "summary.json", folder / "summary.md"]
    return table


def differing_numbers(places: Places) -> list[str]:
    """Return a line for each table of a summary with a number that its comparisons do not give.

    Raises
    ------
    InputError
        If there is no comparison, or no summary.
    """
    compared_root, folder = places.root("compare"), places.root("summary")
    rows = collect_rows(compared_root)
    table, deltas = study_table(rows), phase_deltas(rows)
    summary = read_json(folder / "summary.json")
    tables: list[tuple[str, Any, Sequence[Row]]] = [
        ("summary.json, study_table", summary.get("study_table"), table),
        ("summary.json, highlights", summary.get("highlights"), deltas),
        ("study_table.csv", read_csv(folder / "study_table.csv"), table),
        ("table.csv", read_csv(folder / "table.csv"), _of_split(rows, "test")),
        ("table_train.csv", read_csv(folder / "table_train.csv"), _of_split(rows, "train")),
        ("highlights.csv", read_csv(folder / "highlights.csv"), deltas),
    ]
    expected_over = _mismatch_tables(rows_over_mismatch(compared_root, rows))
    tables += [(name, read_csv(folder / name), lines) for name, lines in expected_over.items()]
    lines = []
    for name, found, expected in tables:
        where = _first_difference(found, expected, rows[0].keys())
        if where:
            lines.append(f"{folder.name}/{name}: {where}")
    return lines


def _first_difference(found: Any, expected: Sequence[Row], measured: Collection[str]) -> str:
    """Return where a number of rows differs by more than rounding, whatever their order and texts.

    ``measured`` are the columns of the comparisons, which no table may lack; others may be new.
    """
    if not isinstance(found, list) or len(found) != len(expected):
        return f"does not have the {len(expected)} rows that the comparisons give"
    pairs = zip(
        sorted(found, key=_place_in_table), sorted(expected, key=_place_in_table), strict=True
    )
    for number, (one, other) in enumerate(pairs, start=1):
        missing = sorted(other.keys() & set(measured) - one.keys())
        if missing:
            return f"row {number}: has no {missing[0]}, which the comparisons give"
        for key in sorted(one.keys() & other.keys()):
            if not isinstance(other[key], str) and not _is_same(one[key], other[key]):
                return f"row {number}, {key}: {one[key]}; the comparisons give {other[key]}"
    return ""


def _place_in_table(row: Row) -> list[str]:
    """Return where a row stands in its table, once that is sorted."""
    return [str(row.get(name)) for name in ("split", "dose", "view", "arm", "replicate", LEVEL)]


def _is_same(found: Any, expected: Any) -> bool:
    if isinstance(expected, float):
        try:
            return math.isclose(float(found), expected, rel_tol=1e-9, abs_tol=1e-12)
        except (TypeError, ValueError):
            return False
    if isinstance(found, str) and not isinstance(expected, str):
        return found == ("" if expected is None else str(expected))
    return bool(found == expected)


def compared_files(compared_root: Path, name: str, *more: str) -> list[Path]:
    """Return a file of every comparison of a run, of its other replicates, and of ``more`` inside.

    ``more`` are further patterns of the folders of runs inside it, such as ``LEVELS``.
    """
    roots = [compared_root]
    for place in (REPLICATES, *more):
        others = compared_root.parent.glob(f"{place}/{compared_root.name}")
        roots += sorted(others, key=lambda path: (len(path.parent.name), path))
    return [path for root in roots for path in sorted(root.glob(f"dose_*/*/*/{name}"))]


def collect_rows(compared_root: Path) -> list[dict[str, Any]]:
    """Return one row per (split, dose, view, arm, replicate), ordered.

    Where the design names a material, rows have their dose in gray too, ``dose_gy``.

    Raises
    ------
    InputError
        If no comparison is found, or the tables of absorption lack the material.
    """
    paths = compared_files(compared_root, "metrics.json")
    if not paths:
        raise InputError(f"{compared_root}: no comparison found; run `study compare` first")
    return _rows_in(paths, _design_of(compared_root))


def _rows_in(paths: Sequence[Path], design: StudyDesign | None) -> list[dict[str, Any]]:
    found = [row for path in paths for row in read_scores(path.parent)]
    # Replicates may be of different times: a column that some lack is empty there.
    columns: dict[str, None] = {name: None for row in found for name in row}
    rows = _with_gray([columns | row for row in found], design)
    views = views_in_order(rows)
    return sorted(
        rows,
        key=lambda row: (
            row["split"],
            row["dose"],
            views.index(row["view"]),
            plain_label(row["label"]),
            row["replicate"],
        ),
    )


def _with_gray(rows: list[dict[str, Any]], design: StudyDesign | None) -> list[dict[str, Any]]:
    """Return rows with their surface dose; as they are without a material and a pixel size."""
    if not design or not design.material or not design.pixel_m:
        return rows
    energy_ev = design.material.energy_ev
    absorption = mass_absorption_m2_per_kg(design.material.formula, energy_ev)
    gray_per_photon = surface_dose_gy(1 / design.pixel_m**2, energy_ev, absorption)
    dark = _dark_counts(design)
    counted = [_without_dark(row, dark) for row in rows]
    return [
        row | {"dose_gy": None if photons is None else photons * gray_per_photon}
        for row, photons in zip(rows, counted, strict=True)
    ]


def _dark_counts(design: StudyDesign) -> float:
    """Return the mean dark counts of a pattern: of a pixel, times the pixels that count."""
    if not design.detector.dark_counts:
        return 0.0
    from study_lib.phases.dataset import bad_pixels_of  # torch comes with it

    bad = bad_pixels_of(design)
    pixels = design.patch_size_px**2 - (0 if bad is None else int(bad.sum()))
    return design.detector.dark_counts * pixels


def _without_dark(row: Row, dark: float) -> float | None:
    """Return the photons on an object pixel, less so many mean dark counts of each pattern."""
    photons, of_a_pattern = row.get("photons_per_object_pixel"), row.get("photons_measured")
    if photons is None or not dark:
        return photons
    return photons * max(0.0, 1 - dark / of_a_pattern) if of_a_pattern else None


def rows_over_mismatch(
    compared_root: Path, rows: Sequence[Row] | None = None
) -> dict[str, dict[float, Sequence[Row]]]:
    """Return the rows of each value of each listed field of a mismatch; at 0 those of the run.

    Parameters
    ----------
    compared_root
        Of the comparisons of a run; without its design there are none.
    rows
        Those of the run, in place of :func:`collect_rows`.
    """
    if rows is None:
        rows = collect_rows(compared_root)
    design = _design_of(compared_root)
    found: dict[str, dict[float, Sequence[Row]]] = {}
    paths: dict[tuple[str, float], list[Path]] = {}
    for one in runs_within(design) if design else ():
        if one.field:
            root = compared_root.parent / one.folder / compared_root.name
            more = sorted(root.glob("dose_*/*/*/metrics.json"))
            paths.setdefault((one.field, one.level), []).extend(more)
    for (field, level), part in paths.items():
        levels = found.setdefault(field, {0.0: rows})
        if part:
            levels[level] = _rows_in(part, design)
    return found


def _mismatch_tables(over: Mapping[str, Levels]) -> dict[str, Sequence[Row]]:
    return {f"{mismatch_name(field)}.csv": level_table(levels) for field, levels in over.items()}


def mismatch_figures(over: Mapping[str, Levels]) -> dict[str, Figure]:
    """Return a figure of quality over each listed field of a mismatch, by name.

    ``over`` is from :func:`rows_over_mismatch`.
    """
    figures = {}
    for field, levels in over.items():
        part = _shown_first(level_table(levels))
        title = ", ".join(filter(None, [f"{part[0]['split']} split", mismatch_title(part[0])]))
        words, unit = WORDS[field]
        part, title = _pictured_of(part, ("dose", "view"), title, "pairs of dose and view")
        figures[mismatch_name(field)] = quality_over_mismatch(
            part, label=f"{words} [{unit}]", title=title
        )
    return figures


def _mismatch_content(compared_root: Path, over: Mapping[str, Levels]) -> dict[str, Any]:
    """Return what a summary says of listed mismatches; nothing without one."""
    if not over:
        return {}
    shown = {
        field: {level: _shown_first(rows) for level, rows in levels.items()}
        for field, levels in over.items()
    }
    tables = [asdict(loss_table(field, levels)) for field, levels in shown.items()]
    files = [f"{mismatch_name(field)}.csv" for field in over]
    remarks = [LOSS_NOTE, *_stayed_featureless(compared_root, LEVELS)]
    return {"mismatch": {"tables": tables, "remarks": remarks, "files": files}}


def _measured_content(compared_root: Path, table: Sequence[Row]) -> dict[str, Any]:
    """Return what a summary says of measured counts, and how draws agree; nothing of simulated."""
    design, run_folder = _design_of(compared_root), compared_root.parent
    if design is None or not design.is_measured:
        return {}
    draws = agreement_of_draws(run_folder, design)
    lines = sentences_on_measured(run_folder, design) + sentences_on_draws(draws)
    simulated = simulated_beside(run_folder, design)
    if simulated:
        lines += ranks_against(table, design, simulated)[1]
    return {"lines": lines, "draws": draws}


def _shown_first(rows: Sequence[Row]) -> list[Row]:
    """Return the rows of the test split; of the train split if there is no other."""
    return next(part for split in SPLITS_IN_ORDER if (part := _of_split(rows, split)))


def _pictured_of(
    rows: Sequence[Row], columns: Sequence[str], title: str, words: str
) -> tuple[list[Row], str]:
    """Return the rows of so many values of some columns as a figure shows; and its title.

    The title says how many of how many they are, where they are not all.
    """
    views = views_in_order(rows)
    ordered = sorted(rows, key=lambda row: (row["dose"], views.index(row["view"])))
    values = list(grouped(ordered, columns))
    chosen = pictured(values)
    if len(chosen) < len(values):
        title = f"{title}, {len(chosen)} of {len(values)} {words}"
    return [row for row in rows if tuple(row[name] for name in columns) in chosen], title


def summary_figures(
    compared_root: Path, rows: Sequence[Row], table: Sequence[Row], least: Sequence[Row]
) -> dict[str, Figure]:
    """Return the figures of the test split by name; of the train split if there is no other."""
    part = _shown_first(table)
    split = part[0]["split"]
    title = ", ".join(filter(None, [f"{split} split", mismatch_title(part[0])]))
    metric: dict[str, Any] = {"metric": "phase_ms_ssim", "name": "phase MS-SSIM", "title": title}
    design = _design_of(compared_root)
    some_views, title_of_views = _pictured_of(part, ("view",), title, "views")
    some_doses, title_of_doses = _pictured_of(part, ("dose",), title, "doses")
    wanted, pixel_m = (design.wanted, design.pixel_m) if design else ((), None)
    drawn = (
        heat_maps(part, **metric),
        phase_error_by_dose(some_views, title=title_of_views),
        phase_error_by_photons(part, title=title),
        least_dose_by_overlap(least, unit_of(part), title=title),
        None if _no_map(part) else quality_map(part, wanted, pixel_m=pixel_m, title=title),
        quality_by_cost(some_doses, **metric | {"title": title_of_doses}),
    )
    pairs = zip(SUMMARY_FIGURES, drawn, strict=True)
    figures = {name: figure for name, figure in pairs if figure is not None}
    first = min(row["replicate"] for row in rows)
    for dose in pictured(sorted({row["dose"] for row in part})):
        chosen = [
            row
            for row in _of_split(rows, split)
            if row["dose"] == dose and row["replicate"] == first
        ]
        figures[f"phase_{dose_name(dose, dose_per(part))}"] = dose_figure(compared_root, chosen)
    return figures


def _no_map(rows: Sequence[Row]) -> str:
    return why_no_map(*(len({row[name] for row in rows}) for name in ("dose", "view")))


def dose_figure(compared_root: Path, rows: Sequence[Row]) -> Figure:
    """Return the object phase of the truth and of every arm, one row of panels per view."""
    lines = []
    by_view = grouped(rows, ("view",))
    for view in pictured(list(by_view)):
        chosen = by_view[view]
        dose = dose_name(chosen[0]["dose"], dose_per(chosen))
        place = compared_root / dose / view[0] / chosen[0]["split"]
        arrays, _ = read_aligned(place)
        first = held_against(arrays)
        panels = {f"{first}, {view[0]}": arrays[first]}
        for row in chosen:
            is_void = row["registration"] != "ok"
            score = f"MS-SSIM {row['phase_ms_ssim']:.3f}"
            if is_void:
                score = f"no score, registration {row['registration']}"
            panels[f"{row['label']}, {score}"] = arrays[row["arm"]]
        lines.append(masked(panels, arrays["mask"]))
    dose, split, mismatch = rows[0]["dose"], rows[0]["split"], mismatch_title(rows[0])
    title = f"object phase [rad], {dose:g} {unit_of(rows)}, {split} split"
    return phase_grid(
        lines, title=", ".join(filter(None, [title, mismatch])) + " (blue: not scored)"
    )


def _of_split(rows: Sequence[Row], split: str) -> list[Row]:
    return [row for row in rows if row["split"] == split]


def answers_in(places: Places, wanted: Sequence[str] = ()) -> tuple[str, ...]:
    """Return what the comparisons of a run answer, in sentences.

    Parameters
    ----------
    places
        A run, or whatever else knows the folders of its phases.
    wanted
        Qualities such as ``phase_error=0.05``; default: those of the design.

    Raises
    ------
    InputError
        If there is no comparison, or a wanted quality is none.

    Examples
    --------
    >>> from study_lib.phases.summary import answers_in
    >>> for sentence in answers_in(run, ["ms_ssim=0.5"]):  # run: study.open_run of a finished run
    ...     print(sentence[:44])
    The study has one dose, so it cannot say how
    Least dose for phase MS-SSIM 0.5, in photons
    """
    compared_root = places.root("compare")
    rows = _shown_first(collect_rows(compared_root))
    return answers_of(rows, *_asked(compared_root, wanted)).sentences


def _asked(
    compared_root: Path, wanted: Sequence[str] = ()
) -> tuple[list[Wanted], float | None, float | None]:
    """Return which qualities are wanted, pixel size and flux; what is usual, without a design."""
    design = _design_of(compared_root)
    if design is None:
        return [wanted_of(text) for text in wanted or USUAL], None, None
    chosen = [wanted_of(text) for text in wanted or design.wanted or USUAL]
    return chosen, design.pixel_m, design.flux_per_s


def _design_of(compared_root: Path) -> StudyDesign | None:
    """Return the design of the run that comparisons lie in, if they lie in one."""
    path = compared_root.parent / "design.json"
    return parse_design(read_json(path), str(path)) if path.is_file() else None


def _origin(compared_root: Path) -> Mapping[str, Any]:
    """Return which run this is, if the comparisons lie in one."""
    design = _design_of(compared_root)
    if design is None:
        return {}
    return {
        "preset": design.preset,
        "changes": changes_of_preset(design),
        "design": design.digest,
        "object": design.base.name if design.base else design.specimen.kind,
        **({"source": design.source} if design.is_measured else {}),
        "patch_size_px": design.patch_size_px,
        "replicates": [one.replicate for one in design.repetitions],
        **design.mismatch.columns,
        **({"material": _material_text(design.material)} if design.material else {}),
    }


def _material_text(material: MaterialDesign) -> str:
    absorption = mass_absorption_m2_per_kg(material.formula, material.energy_ev)
    return (
        f"{material.formula} at {material.energy_ev:g} eV, mass photoabsorption coefficient "
        f"{absorption:.3g} m2/kg"
    )


def _stayed_featureless(compared_root: Path, *places: str) -> list[str]:
    """Return one sentence for each training that learned nothing of the object.

    ``places`` are patterns of folders in the run; default: the run's own and its replicates.
    """
    lines = []
    folder, run_folder = PHASES["train"], compared_root.parent
    found = [path for place in places or (REPLICATES,) for path in run_folder.glob(place)]
    for root in [*([] if places else [run_folder]), *sorted(found)]:
        for path in sorted((root / folder).glob("dose_*/*/*/history.json")):
            history = read_json(path)
            loss, uniform = history["train"][-1], history["uniform_object"]
            if stays_featureless(loss, uniform):
                place = path.parent.relative_to(compared_root.parent).as_posix()
                lines.append(
                    f"Warning: training of {PINN_LABEL} in {place}: {stayed_text(loss, uniform)}."
                )
    return lines


def _missing(compared_root: Path) -> list[str]:
    """Return one line for each arm that has no row, with its condition and the reason."""
    return [
        f"{path.parent.relative_to(compared_root.parent).as_posix()}: {reason}"
        for path in compared_files(compared_root, MISSING_ARMS, LEVELS)
        for reason in read_json(path).values()
    ]
