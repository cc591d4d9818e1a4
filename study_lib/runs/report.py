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

from study_lib.files import manifest_jobs, path_inside, read_json, sha256_of, write_json, write_text
from study_lib.phases.conditions import SUMMARY_FIGURES, PlacesBelow
from study_lib.phases.records import manifests_of
from study_lib.runs.evidence import sealed_names
from study_lib.runs.job import job_owning, owned_places, read_record
from study_lib.runs.plan import PlannedJob
from study_lib.scores.study_table import COLUMNS, cell_text, notes_of, origin_text

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
    body, _ = _exporter().from_filename(str(path))
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
    """Return markup with the tags of texts and tables alone, and no way out of the page."""
    attributes = nh3.ALLOWED_ATTRIBUTES | {"*": {"class"}}  # the classes of highlighted code
    return nh3.clean(
        str(markup), attributes=attributes, attribute_filter=_kept_attribute, link_rel=None
    )


def _kept_attribute(_tag: str, name: str, value: str) -> str | None:
    if name in {"href", "src", "cite"}:
        return value if value.startswith(("#", "data:image/")) else None
    return value


# --- RO-Crate 1.1, https://w3id.org/ro/crate/1.1

CRATE = "ro-crate-metadata.json"
MEDIA_TYPES = {
    ".csv": "text/csv",
    ".html": "text/html",
    ".ipynb": "application/x-ipynb+json",
    ".json": "application/json",
    ".jsonl": "application/jsonl",
    ".log": "text/plain",
    ".md": "text/markdown",
    ".npz": "application/zip",
    ".png": "image/png",
    ".svg": "image/svg+xml",
}
LICENSE = "https://spdx.org/licenses/BSD-3-Clause"


def research_object(
    run_folder: Path, jobs: Sequence[PlannedJob], records: Mapping[str, Mapping[str, Any]]
) -> dict[str, Any]:
    """Return the metadata document of a run: its files, and the action that made each.

    The files are those of the seal, but for this document; so it is written when the others are.

    Parameters
    ----------
    run_folder
        The run.
    jobs
        Its plan.
    records
        The content of ``done.json`` of its jobs, by name.
    """
    places = [
        place
        for place in sealed_names(run_folder)
        if place != CRATE and (run_folder / place).is_file()
    ]
    owned = owned_places(jobs)
    made: dict[str, list[str]] = {name: [] for name in records}
    for place in places:
        job = job_owning(place, owned)
        if job and job.name in made:
            made[job.name].append(place)
    actions = [
        {
            "@id": f"#{name}",
            "@type": "CreateAction",
            "name": name,
            "startTime": record["started"],
            "instrument": {"@id": "#study"},
            "object": [{"@id": path} for path in sorted(record.get("inputs", {}))],
            "result": [{"@id": path} for path in made[name]],
        }
        for name, record in sorted(records.items())
    ]
    entities = [
        {
            "@id": place,
            "@type": "File",
            "contentSize": str((run_folder / place).stat().st_size),
            "encodingFormat": MEDIA_TYPES.get(Path(place).suffix, "application/octet-stream"),
            "sha256": sha256_of(run_folder / place),
        }
        for place in places
    ]
    started = [record["started"] for record in records.values()]
    versions: dict[str, str] = next((record["versions"] for record in records.values()), {})
    return {
        "@context": [
            "https://w3id.org/ro/crate/1.1/context",
            {"sha256": "http://schema.org/sha256"},
        ],
        "@graph": [
            {
                "@id": CRATE,
                "@type": "CreativeWork",
                "about": {"@id": "./"},
                "conformsTo": {"@id": "https://w3id.org/ro/crate/1.1"},
            },
            {
                "@id": "./",
                "@type": "Dataset",
                "name": f"Ptychography study {run_folder.resolve().name}",
                "description": "Reconstruction quality and cost over photon dose and scan overlap.",
                "license": {"@id": LICENSE},
                "hasPart": [{"@id": entity["@id"]} for entity in entities],
                "mentions": [{"@id": action["@id"]} for action in actions],
                **({"datePublished": max(started)} if started else {}),
            },
            {"@id": LICENSE, "@type": "CreativeWork", "name": "BSD 3-Clause License"},
            {
                "@id": "#study",
                "@type": "SoftwareApplication",
                "name": "study_lib",
                "softwareRequirements": [
                    f"{name} {version}" for name, version in sorted(versions.items())
                ],
            },
            *entities,
            *actions,
        ],
    }


# --- The pages

INDEX = "index.html"
PAGES = "html"
Record = Mapping[str, Any]
CAPTIONS = {
    "phase_ms_ssim": "Phase MS-SSIM over dose and overlap, one panel per arm.",
    "phase_error": "Phase error against dose, with what the photons allow.",
    "cost": "Quality against processor time; open marks bear the training too.",
}


def write_site(run_folder: Path, jobs: Sequence[PlannedJob]) -> Path:
    """Write ``index.html``, a page for each executed notebook and the RO-Crate; return the index.

    A run that is not finished gets a page too, with what there is.

    Raises
    ------
    InputError
        If a link would lead a page out of the run's folder, or a record of the run is broken.
    """
    records = {job.name: read_record(run_folder / job.done) for job in jobs}
    records = {name: record for name, record in records.items() if record}
    work = _work(run_folder, jobs)
    pages = {}
    for job in jobs:
        source = run_folder / job.executed
        if job.name in records and source.is_file():
            page = f"{PAGES}/{job.name}.html"
            write_text(path_inside(run_folder, page), notebook_page(source, job.executed, style()))
            pages[job.name.replace("__", " ")] = page
    summary_root = PlacesBelow(run_folder).root("summary")
    path = summary_root / "summary.json"
    summary = read_json(path) if path.is_file() else None
    content = {
        "title": "Ptychography: dose and overlap",
        "origin": origin_text(summary["origin"]) if summary else run_folder.name,
        "css": style(),
        "summary": summary,
        "summary_folder": summary_root.name,
        "columns": list(COLUMNS.values()),
        "tables": _tables(summary) if summary else {},
        "figures": _figures(summary) if summary else {},
        "captions": CAPTIONS,
        "notes": notes_of(summary["study_table"] if summary else ()),
        "pages": pages,
        "times": _times(jobs, records, work),
        "provenance": _provenance(records, work),
        "done": len(records),
        "total": len(jobs),
    }
    write_text(path_inside(run_folder, INDEX), template("index.html.j2").render(content))
    # The pages first: the crate names every file, and the seal has the hash of the crate.
    write_json(path_inside(run_folder, CRATE), research_object(run_folder, jobs, records))
    return run_folder / INDEX


def style() -> str:
    """Return the style sheet of every page."""
    return (
        resources.files("study_lib.runs").joinpath("templates/page.css").read_text(encoding="utf-8")
    )


def _tables(summary: Mapping[str, Any]) -> dict[str, list[list[str]]]:
    return {
        split: [
            [cell_text(row, key) for key in COLUMNS]
            for row in summary["study_table"]
            if row["split"] == split
        ]
        for split in summary["findings"]
    }


def _figures(summary: Mapping[str, Any]) -> dict[str, list[str]]:
    """Return the files of each figure, overviews first, then doses as they grow."""
    found: dict[str, list[str]] = summary["figures"]
    names = sorted(found.keys() - set(SUMMARY_FIGURES), key=lambda name: (len(name), name))
    overviews = [name for name in SUMMARY_FIGURES if name in found]
    return {name: found[name] for name in (*overviews, *names)}


def _work(run_folder: Path, jobs: Sequence[PlannedJob]) -> dict[str, list[Record]]:
    """Return what the manifests record of work that was done, by the notebook that did it."""
    work: dict[str, list[Record]] = {}
    owned = owned_places(jobs)
    for manifest in manifests_of(run_folder):
        phase = manifest.parent.relative_to(run_folder).as_posix()
        for key, record in manifest_jobs(manifest).items():
            job = job_owning(f"{phase}/{key}", owned)
            if job and record.get("status") == "done":
                work.setdefault(job.notebook, []).append(record)
    return work


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
    times = {"first job": started[0], "last job": started[-1]} if started else {}
    return times | {name: "; ".join(values) for name, values in found.items()}


def _add(found: dict[str, list[str]], values: Mapping[str, Any]) -> None:
    """Add values to those found before under their names, each value once."""
    for name, value in values.items():
        texts = found.setdefault(name, [])
        if str(value) not in texts:
            texts.append(str(value))
