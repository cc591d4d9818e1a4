"""The report of a run as pages for a browser: nothing in them runs, nothing is fetched."""

from collections.abc import Mapping, Sequence
from functools import cache
from importlib import resources
from pathlib import Path
from typing import Any

import nh3
from jinja2 import Environment, PackageLoader, StrictUndefined, Template
from nbconvert import HTMLExporter
from pygments.formatters import HtmlFormatter
from traitlets.config import Config

from study_lib.arm_names import current_row
from study_lib.errors import InputError
from study_lib.files import read_json, require_no_link_out, write_csv, write_json, write_text
from study_lib.phases.conditions import SUMMARY_FIGURES, PlacesBelow, mismatch_name
from study_lib.phases.draws import (
    RANKS,
    ranks_against,
    simulated_beside,
    warnings_on_measured,
)
from study_lib.phases.records import mixed_codes
from study_lib.runs.crate import CRATE, NO_CREDIT, Credit, research_object
from study_lib.runs.evidence import Digest, digest_of
from study_lib.runs.job import read_record, records_of_work
from study_lib.runs.plan import PlannedJob
from study_lib.runs.reuse import counted_runs
from study_lib.runs.run import DESIGN_FILE, open_run
from study_lib.scores.findings import findings
from study_lib.scores.metrics import said_of
from study_lib.scores.shown_tables import (
    COLUMNS,
    MISMATCH_NOTE,
    NUMBERS,
    Line,
    columns_of,
    notes_of,
    origin_text,
    shown_table,
)
from study_lib.scores.study_table import CONDITION, held_against_in, same_patterns

# --- An executed notebook as a page: nothing in it could run


def notebook_page(path: Path, source: str, css: str) -> str:
    """Return the page of a notebook.

    Scripts, styles, event handlers and frames in outputs and texts are taken out, and links lose
    their targets on other hosts; the page also forbids the browser to run or to fetch anything.

    Parameters
    ----------
    path
        The executed notebook.
    source
        Its place relative to the report's index.
    css
        Style sheet.
    """
    marked_up, _ = _exporter().from_filename(str(path))
    body = _harmless(marked_up)  # the templates put metadata of outputs into attributes as they are
    return template("notebook.html.j2").render(
        title=path.stem.replace("__", " "),
        css=css,
        highlighting=HtmlFormatter(style="default").get_style_defs(".highlight"),
        body=body,
        source=source,
    )


@cache
def _exporter() -> HTMLExporter:
    """Return what makes markup of notebooks, one for all: its templates take long to compile."""
    settings = {
        "sanitize_html": True,
        "exclude_input_prompt": True,
        "exclude_output_prompt": True,
        "exclude_anchor_links": True,
        # Not the working folder, the default: a template is code.
        "extra_template_basedirs": [],
    }
    exporter = HTMLExporter(template_name="basic", config=Config({"HTMLExporter": settings}))
    exporter.register_filter("clean_html", _harmless)
    return exporter


@cache
def template(name: str) -> Template:
    """Return a page's template; what is put into it is text, never markup."""
    loader = PackageLoader("study_lib.runs")
    environment = Environment(loader=loader, autoescape=True, undefined=StrictUndefined)
    return environment.get_template(name)


def _harmless(markup: str) -> str:
    """Return markup with the tags of texts, tables and images alone, and no way out of the page."""
    return nh3.clean(
        str(markup),
        attributes=nh3.ALLOWED_ATTRIBUTES | {"*": {"class"}},  # the classes of highlighted code
        attribute_filter=_kept_attribute,
        link_rel=None,
        url_schemes=nh3.ALLOWED_URL_SCHEMES | {"data"},
    )


def _kept_attribute(_tag: str, name: str, value: str) -> str | None:
    if name == "src":
        return value if value.startswith("data:image/") else None
    if name in {"href", "cite"}:
        return value if value.startswith("#") else None
    return value


# --- The pages

INDEX = "index.html"
PAGES = "html"
Record = Mapping[str, Any]
CAPTIONS = {
    "phase_ms_ssim": "Phase MS-SSIM over dose and overlap, one panel per arm; bold is the best of "
    "its dose and view, a number in brackets no score.",
    "phase_error": "Phase error against dose, with the photon limit, which is that of unbiased "
    "estimates, and other references (How to read the tables); a diamond is an arm's fall-back.",
    "phase_error_by_photons": "Phase error against the photons on an object pixel, a line per "
    "view: views at equal photons; grey is the photon limit of the same view.",
    "least_dose": "The least dose that reaches a wanted quality, over overlap: each line holds one "
    "quality. A triangle is a bound, where the doses of the study end.",
    "quality_map": "Phase error over overlap and dose, one panel per arm on one scale. Each line "
    "holds one wanted quality: above it the arm is better. Dots are what was computed; between "
    "them errors are interpolated as power laws of the dose, beyond them nothing is claimed.",
    "cost": "Quality against processor time; an open mark includes the training, a diamond is an "
    "arm's fall-back, to which no training is charged.",
}
MISMATCH_CAPTION = (
    "Quality against an error that no arm knew of: at 0 are the conditions of the tables, all "
    "other points are of data made with that error; a diamond is an arm's fall-back, a cross no "
    "score."
)
DOSE_FIGURES = "phase_dose_"
DOSE_CAPTION = (
    "Object phase of the truth and of every arm at one dose, first replicate; rows are views."
)


def write_site(
    run_folder: Path,
    jobs: Sequence[PlannedJob],
    digest: Digest = digest_of,
    credit: Credit = NO_CREDIT,
) -> Path:
    """Write ``index.html``, a page for each executed notebook and the RO-Crate; return the index.

    A run that is not finished gets a page too, with what there is. ``digest`` hashes a file; one
    that remembers serves the seal too. ``credit`` is what the crate says of authors and license.

    Raises
    ------
    InputError
        If a link would lead a page out of the run's folder, or a record of the run is broken.
    """
    require_no_link_out(run_folder)
    records = {job.name: read_record(run_folder / job.done) for job in jobs}
    records = {name: record for name, record in records.items() if record}
    work: dict[str, list[Record]] = {}
    for job, record in records_of_work(run_folder, jobs):
        work.setdefault(job.notebook, []).append(record)
    pages = {}
    for job in jobs:
        source = run_folder / job.executed
        if job.name in records and source.is_file():
            page = f"{PAGES}/{job.name}.html"
            write_text(run_folder / page, notebook_page(source, job.executed, style()))
            pages[job.name.replace("__", " ")] = page
    summary_root = PlacesBelow(run_folder).root("summary")
    path = summary_root / "summary.json"
    summary = current_summary(read_json(path)) if path.is_file() else None
    content = {
        "title": "Ptychography: dose and overlap",
        "origin": origin_text(summary["origin"]) if summary else run_folder.name,
        "taken": _taken(records, len(jobs)),
        "css": style(),
        "warnings": [
            *_doubts_of_base(run_folder),
            *mixed_codes(run_folder),
            *_not_committed(records),
            *warnings_on_measured(run_folder),
        ],
        "summary": summary,
        "measured": _measured_lines(summary, summary_root),
        "summary_folder": summary_root.name,
        "columns": list(columns_of(summary["study_table"] if summary else ()).values()),
        "numbers": [COLUMNS[name] for name in NUMBERS],
        "tables": _tables(summary) if summary else {},
        "figures": _figures(summary) if summary else {},
        "captions": _captions(summary) if summary else {},
        "notes": notes_of(summary["study_table"] if summary else ()),
        "mismatch_note": MISMATCH_NOTE,
        "pages": pages,
        "times": _times(jobs, records, work),
        "provenance": _provenance(records, work),
        "done": len(records),
        "total": len(jobs),
    }
    write_text(run_folder / INDEX, template("index.html.j2").render(content))
    # The pages first: the crate names every file, and the seal has the hash of the crate.
    write_json(run_folder / CRATE, research_object(run_folder, jobs, records, digest, credit))
    return run_folder / INDEX


def _taken(records: Mapping[str, Record], total: int) -> str:
    """Return how many jobs were taken from which other runs; empty if none was."""
    taken = {
        name: str(record["taken_from"])
        for name, record in records.items()
        if record.get("taken_from")
    }
    if not taken:
        return ""
    return f"{len(taken)} of {total} jobs were taken from other runs: {counted_runs(taken)}."


def style() -> str:
    """Return the style sheet of every page."""
    return (
        resources.files("study_lib.runs").joinpath("templates/page.css").read_text(encoding="utf-8")
    )


def current_summary(summary: Mapping[str, Any]) -> dict[str, Any]:
    """Return a summary whose rows and sentences name the arms that are their own fall-back.

    One that was written before rows said so has its sentences made anew from its table; they leave
    out the paired differences, whose intervals were too narrow.
    """
    none: dict[str, Any] = {"answers": [], "answer_tables": [], "mismatch": None, "remarks": []}
    summary = {**none, **summary}
    rows = summary["study_table"]
    if all("fallback" in row for row in rows):
        return {**summary, "is_old": False}
    same = same_patterns(rows)
    places = [tuple(row[name] for name in CONDITION) for row in rows]
    table = [
        current_row(row) | {"same_patterns_as": same.get(place, "")}
        for row, place in zip(rows, places, strict=True)
    ]
    sentences = {
        split: findings([row for row in table if row["split"] == split], [])
        for split in summary["findings"]
    }
    return {**summary, "study_table": table, "findings": sentences, "is_old": True}


def _measured_lines(summary: Mapping[str, Any] | None, folder: Path) -> list[str]:
    """Return what is said of measured counts; last how ranks differ from simulated ones, if known.

    That may have been asked for after the summary was written.
    """
    if not summary or not summary.get("measured"):
        return []
    lines: list[str] = summary["measured"]["lines"]
    path = folder / f"{RANKS}.json"
    later = read_json(path)["sentences"] if path.is_file() else []
    return [line for line in lines if not (later and line in later)] + later


def write_ranks(run_folder: Path, against: Path | None = None) -> list[str]:
    """Write where a measured run orders its arms otherwise than a simulated one; return sentences.

    ``rank_differences.csv`` and ``.json`` beside the summary. Nothing of a run whose counts are
    simulated, or without a summary.

    Parameters
    ----------
    run_folder
        Of measured counts.
    against
        A run with simulated counts of the same base data; default: the newest beside this one.

    Raises
    ------
    InputError
        If a run is given and one of both does not fit.
    """
    design = open_run(run_folder).design
    folder = PlacesBelow(run_folder).root("summary")
    path = folder / "summary.json"
    if not design.is_measured or not path.is_file():
        if against is None:
            return []
        why = "it has no summary yet" if design.is_measured else "its own counts are simulated"
        raise InputError(
            f"--against {against}: {run_folder}: {why}; ranks of measured counts are held "
            "against simulated ones"
        )
    simulated = against or simulated_beside(run_folder, design)
    if simulated is None:
        return []
    rows, sentences = ranks_against(read_json(path)["study_table"], design, simulated)
    write_csv(folder / f"{RANKS}.csv", rows)
    write_json(folder / f"{RANKS}.json", {"against": simulated.name, "sentences": sentences})
    return sentences


def _tables(summary: Mapping[str, Any]) -> dict[str, list[Line]]:
    return {
        split: shown_table([row for row in summary["study_table"] if row["split"] == split])
        for split in summary["findings"]
    }


def _figures(summary: Mapping[str, Any]) -> dict[str, list[str]]:
    """Return the files of each figure: overviews, those over a mismatch, doses as they grow."""
    found: dict[str, list[str]] = summary["figures"]
    overviews = [name for name in SUMMARY_FIGURES if name in found]
    overviews += [name for name in found if name.startswith(mismatch_name(""))]
    names = sorted(found.keys() - set(overviews), key=lambda name: (len(name), name))
    return {name: found[name] for name in (*overviews, *names)}


def _captions(summary: Mapping[str, Any]) -> dict[str, str]:
    """Return what stands below each figure; of an old one only what was always so."""
    usual = {DOSE_FIGURES: DOSE_CAPTION, mismatch_name(""): MISMATCH_CAPTION}
    several = {
        name: caption
        for start, caption in usual.items()
        for name in summary["figures"]
        if name.startswith(start)
    }
    captions = several if summary["is_old"] else CAPTIONS | several
    held_against = held_against_in(summary["study_table"])
    return {name: said_of(held_against, caption) for name, caption in captions.items()}


def _times(
    jobs: Sequence[PlannedJob],
    records: Mapping[str, Record],
    work: Mapping[str, Sequence[Record]],
) -> list[list[str]]:
    """Return, per notebook: jobs, seconds, seconds of the phase's own work, longest, memory."""
    rows = []
    for notebook in dict.fromkeys(job.notebook for job in jobs):
        part = [
            records[job.name] for job in jobs if job.notebook == notebook and job.name in records
        ]
        if not part:
            continue
        seconds = [one["wall_s"] for one in part]
        own = work.get(notebook, [])
        work_s = f"{sum(one['wall_s'] for one in own):.1f}" if own else "-"
        memory = max(one["kernel_peak_memory_mib"] for one in part)
        rows.append(
            [
                notebook,
                str(len(part)),
                f"{sum(seconds):.1f}",
                work_s,
                f"{max(seconds):.1f}",
                f"{memory:.0f}",
            ]
        )
    return rows


def _provenance(
    records: Mapping[str, Record], work: Mapping[str, Sequence[Record]]
) -> dict[str, str]:
    """Return where and with what the jobs ran; several values where they differ."""
    found: dict[str, list[str]] = {}
    for record in records.values():
        git, machine = record["git"], record["machine"]
        dirty = " with changes that are not committed" if git["dirty"] else ""
        values = {
            "commit": f"{git['commit']}{dirty}",
            "machine": f"{machine['system']}, {machine['cores']} cores",
            "threads per job": machine["threads"],
            **{f"version of {name}": version for name, version in record["versions"].items()},
        }
        _add(found, values)
    for record in (one for part in work.values() for one in part):
        machine = record["machine"]
        values = {"device": machine["device"], "threads per job": machine["threads"]}
        _add(found, {name: value for name, value in values.items() if value is not None})
    started = sorted(record["started"] for record in records.values())
    times = {}
    if started:
        times = {"first job started": started[0], "last job started": started[-1]}
    return times | {name: "; ".join(values) for name, values in found.items()}


def _doubts_of_base(run_folder: Path) -> list[str]:
    """Return a line if the import of the base data was judged doubtful or wrong."""
    path = run_folder / DESIGN_FILE
    base = read_json(path).get("base") if path.is_file() else None
    if not base or not base.get("doubts"):
        return []
    return [f"the import of {base['name']} was judged doubtful: {'; '.join(base['doubts'])}"]


def _not_committed(records: Mapping[str, Record]) -> list[str]:
    """Return a line if jobs were computed by files that no commit has."""
    dirty = {str(record["git"]["commit"]) for record in records.values() if record["git"]["dirty"]}
    if not dirty:
        return []
    return [f"computed with changes that are in no commit, on top of {', '.join(sorted(dirty))}"]


def _add(found: dict[str, list[str]], values: Mapping[str, Any]) -> None:
    """Add values to those found before under their names, each value once."""
    for name, value in values.items():
        texts = found.setdefault(name, [])
        if str(value) not in texts:
            texts.append(str(value))
