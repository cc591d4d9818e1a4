"""Phase H: one table and one figure per dose from every comparison."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from study_lib.archive import read_npz
from study_lib.comparison import write_csv
from study_lib.errors import InputError
from study_lib.figures import masked, phase_grid, save_figure
from study_lib.files import read_json, write_text
from study_lib.paths import comparison_folder, dose_name
from study_lib.presets import parse_design

COLUMNS = {
    "dose": "photons",
    "view": "view",
    "overlap": "overlap",
    "overlap_target": "target",
    "label": "arm",
    "patterns": "patterns",
    "phase_ms_ssim": "phase MS-SSIM",
    "phase_ssim": "phase SSIM",
    "phase_psnr_db": "phase PSNR [dB]",
    "phase_mae_rad": "phase MAE [rad]",
    "phase_error_over_limit": "phase error / photon limit",
    "amplitude_ssim": "amplitude SSIM",
    "frc_crossing": "FRC crossing / Nyquist",
    "frc_half_bit_crossing": "FRC half-bit / Nyquist",
    "registration": "registration",
    "cpu_s": "CPU [s]",
    "training_cpu_s": "training CPU [s]",
}
VIEW_ORDER = ("baseline", "dense", "sparse")


def write_summary(phase_g_root: Path, artifact_root: Path) -> list[dict[str, Any]]:
    """Write ``table.csv`` (test split), ``table_train.csv``, ``summary.md`` and the figures.

    Raises
    ------
    InputError
        If there is no comparison to summarise.
    """
    rows = collect_rows(phase_g_root)
    splits = {split: [row for row in rows if row["split"] == split] for split in ("test", "train")}
    for name, split in (("table.csv", "test"), ("table_train.csv", "train")):
        if splits[split]:
            write_csv(artifact_root / name, splits[split])
    doses = sorted({row["dose"] for row in splits["test"]})
    figures = []
    for dose in doses:
        chosen = [row for row in splits["test"] if row["dose"] == dose]
        path = artifact_root / "figures" / f"phase_{dose_name(dose)}.png"
        save_figure(dose_figure(phase_g_root, chosen), path)
        figures.append(path.relative_to(artifact_root).as_posix())
    origin, missing = _origin(phase_g_root), _missing(phase_g_root)
    write_text(artifact_root / "summary.md", _markdown(splits, figures, origin, missing))
    return rows


def collect_rows(phase_g_root: Path) -> list[dict[str, Any]]:
    """Return one row per (dose, view, arm, split), ordered.

    Raises
    ------
    InputError
        If no comparison is found.
    """
    paths = sorted(phase_g_root.glob("dose_*/*/*/metrics.json"))
    if not paths:
        raise InputError(f"{phase_g_root}: no comparison found; run `study compare` first")
    rows: list[dict[str, Any]] = [row for path in paths for row in read_json(path)]
    return sorted(
        rows,
        key=lambda row: (row["split"], row["dose"], VIEW_ORDER.index(row["view"]), row["label"]),
    )


def dose_figure(phase_g_root: Path, rows: Sequence[dict[str, Any]]) -> Any:
    """Return the object phase of the truth and of every arm, one row of panels per view."""
    lines = []
    for view in VIEW_ORDER:
        chosen = [row for row in rows if row["view"] == view]
        if not chosen:
            continue
        folder = comparison_folder(phase_g_root, chosen[0]["dose"], view, chosen[0]["split"])
        arrays, _ = read_npz(folder / "aligned.npz")
        panels = {f"truth, {view}": arrays["truth"]}
        for row in chosen:
            score = row["phase_ms_ssim"]
            doubt = "" if row["registration"] == "ok" else f", registration {row['registration']}"
            panels[f"{row['label']}, MS-SSIM {score:.3f}{doubt}"] = arrays[row["arm"]]
        lines.append(masked(panels, arrays["mask"]))
    dose, split = rows[0]["dose"], rows[0]["split"]
    return phase_grid(
        lines,
        title=f"object phase [rad], {dose:g} photons per pattern, {split} split (blue: not scored)",
    )


def markdown_table(rows: Sequence[dict[str, Any]]) -> str:
    """Return the rows as a Markdown table; a value that was not reached is a dash."""
    lines = ["| " + " | ".join(COLUMNS.values()) + " |", "|" + " --- |" * len(COLUMNS)]
    lines += ["| " + " | ".join(_cell(row[key]) for key in COLUMNS) + " |" for row in rows]
    return "\n".join(lines) + "\n"


def _cell(value: Any) -> str:
    if value is None:
        return "-"
    if isinstance(value, float):
        return f"{value:.3g}" if abs(value) < 1000 else f"{value:g}"
    return str(value)


def _origin(phase_g_root: Path) -> str:
    """Return one line that says which run this is, if the comparisons lie in one."""
    path = phase_g_root.parent / "design.json"
    if not path.is_file():
        return ""
    design = parse_design(read_json(path), str(path))
    source = design.base.name if design.base else f"synthetic object ({design.specimen.kind})"
    return (
        f"Preset {design.preset}, design {design.digest}, {source}, patches of "
        f"{design.patch_size_px} pixels, replicate {design.replicate}: one set of seeds, no spread "
        "over repetitions.\n"
    )


def _missing(phase_g_root: Path) -> list[str]:
    """Return one line for each arm that has no row, with its condition and the reason."""
    return [
        f"- missing: {path.parent.relative_to(phase_g_root).as_posix()}: {reason}"
        for path in sorted(phase_g_root.glob("dose_*/*/*/missing_arms.json"))
        for reason in read_json(path).values()
    ]


def _markdown(
    splits: dict[str, list[dict[str, Any]]],
    figures: Sequence[str],
    origin: str,
    missing: Sequence[str],
) -> str:
    parts = ["# Summary\n"] + ([origin] if origin else [])
    for split, rows in splits.items():
        if rows:
            parts.append(f"## {split.capitalize()} split\n\n{markdown_table(rows)}")
    if missing:
        parts.append("\n".join(missing) + "\n")
    parts.append(
        "Overlap is the mean disc overlap of a pattern with its nearest neighbours (metric 2), as "
        "measured on the patterns used; the target is what was asked for. A "
        "scan sparser than its target keeps every pattern. Times are processor seconds. "
        "All arms of a row group (photons, view) used the same patterns, probe and mask. "
        "Phase error / photon limit is the root mean square phase error over the Cramer-Rao bound "
        "of the same pixels, from this view's photons: the dose is held fixed per pattern, so a "
        "denser view has more photons on each pixel and a lower bound. Below 1 is no mistake: the "
        "bound is that of unbiased estimates, and whoever smooths, or shrinks what the counts do "
        "not tell, is biased. "
        "PtychoPINN was trained on the train split of the same view; gs1 sees one pattern at a "
        "time, gs2 groups of four. Registration uncertain: the shift against the truth could not "
        "be told, so that row is no score. A dash in an FRC column: "
        "the curve never falls below the threshold, so no crossing is stated.\n"
    )
    parts += [f"![object phase]({path})\n" for path in figures]
    return "\n".join(parts)
