"""The report: whole, offline, and nothing in it runs."""

import hashlib
import json
import re
from html.parser import HTMLParser

import nbformat
import numpy as np
import pytest
from tiny_runs import generated, with_views

from study_lib.arm_names import NOT_TRUSTED
from study_lib.design.presets import load_design
from study_lib.errors import InputError
from study_lib.files import hashes_of, merge_record, read_json, write_json, write_text
from study_lib.phases.arms import ARMS, ArmResult
from study_lib.phases.compare import compare
from study_lib.phases.records import provenance
from study_lib.phases.summary import summarize
from study_lib.runs.evidence import faults_of_seal, seal
from study_lib.runs.plan import plan_jobs
from study_lib.runs.report import notebook_page, style, write_site
from study_lib.runs.run import create_run


class Page(HTMLParser):
    """Collects what a page would load, link to and run."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.loads, self.links, self.tags, self.handlers = [], [], set(), []
        self.feed(text)

    def handle_starttag(self, tag, attrs):
        self.tags.add(tag)
        for name, value in attrs:
            if name == "src":
                self.loads.append(value)
            if name == "href":
                self.links.append(value)
            if name.startswith("on") or (value or "").strip().lower().startswith("javascript:"):
                self.handlers.append((tag, name, value))


HOSTILE = (
    "<script>document.title = 'run'</script>",
    "<img src=x onerror=\"document.title='run'\">",
    "<iframe src='https://example.org'></iframe>",
    "<a href='javascript:alert(1)'>here</a>",
    "<svg onload='alert(1)'></svg>",
)


def hostile_notebook(path):
    """Write a notebook that says fine words, and tries to run scripts wherever it can."""
    text = "# Title\n\nfine [words](https://example.org)\n\n" + "\n".join(HOSTILE)
    table = "<table><thead><tr><th>a</th></tr></thead><tbody><tr><td>1</td></tr></tbody></table>"
    cells = [nbformat.v4.new_markdown_cell(text), nbformat.v4.new_markdown_cell(table)]
    for text in HOSTILE:
        html = nbformat.v4.new_output("display_data", {"text/html": text, "text/plain": "x"})
        script = nbformat.v4.new_output(
            "display_data", {"application/javascript": "alert(1)", "text/plain": "x"}
        )
        stream = nbformat.v4.new_output("stream", name="stdout", text=text)
        svg = nbformat.v4.new_output("display_data", {"image/svg+xml": f"<svg>{text}</svg>"})
        cells.append(
            nbformat.v4.new_code_cell(f"print({text!r})", outputs=[html, script, stream, svg])
        )
    nbformat.write(nbformat.v4.new_notebook(cells=cells), path)


def test_a_notebook_page_runs_nothing_and_fetches_nothing(tmp_path):
    path = tmp_path / "01_dataset.ipynb"
    hostile_notebook(path)

    text = notebook_page(path, "notebooks/01_dataset.ipynb", style())

    page = Page(text)
    assert page.handlers == []
    assert not page.tags & {"script", "iframe", "object", "embed", "base", "form"}
    assert all(not source.startswith(("http", "//")) for source in page.loads)
    assert "words" in text
    assert {"h1", "p", "table", "th", "td"} <= page.tags, "what is harmless stays"
    assert page.links == ["../index.html", "../notebooks/01_dataset.ipynb"]
    assert "default-src 'none'" in text


@pytest.fixture
def run(tmp_path):
    return create_run(tmp_path / "run", load_design("smoke"))


def finish_job(run, job):
    """Leave what a job leaves, in small; the notebook tries to run a script."""
    (run.folder / job.executed).parent.mkdir(exist_ok=True)
    hostile_notebook(run.folder / job.executed)
    record = {
        "job": job.name,
        "status": "done",
        "started": "2026-01-02T03:04:05+00:00",
        "wall_s": 12.5,
        "kernel_peak_memory_mib": 321.0,
        "inputs": {},
        "sha256": hashes_of([run.folder / job.executed], run.folder),
        **provenance(),
    }
    write_json(run.folder / job.done, record)


def test_report_of_an_unfinished_run_says_how_far_it_is(run):
    jobs = plan_jobs(run.design)
    finish_job(run, jobs[0])

    text = write_site(run.folder, jobs).read_text(encoding="utf-8")

    assert f"1 of {len(jobs)} jobs are done" in text
    assert "study resume" in text
    page = Page(text)
    assert "html/00_design.html" in page.links
    assert not [link for link in page.links if "01_dataset" in link]
    assert "<td>12.5</td>" in text
    assert "<th>last job started</th><td>2026-01-02T03:04:05+00:00</td>" in text


def test_the_crate_names_the_packages_of_every_job(run):
    """The first job computes nothing with torch; the networks do."""
    jobs = plan_jobs(run.design)[:2]
    for job, packages in zip(jobs, ({}, {"torch": "2.13"}), strict=True):
        finish_job(run, job)
        versions = {"versions": {"numpy": "2.4"} | packages}
        write_json(run.folder / job.done, read_json(run.folder / job.done) | versions)

    write_site(run.folder, jobs)

    crate = json.loads((run.folder / "ro-crate-metadata.json").read_text())
    (software,) = [one for one in crate["@graph"] if one["@type"] == "SoftwareApplication"]
    assert software["softwareRequirements"] == ["numpy 2.4", "torch 2.13"]


def test_a_link_in_a_run_leads_no_page_out_of_it(run, tmp_path):
    jobs = plan_jobs(run.design)
    finish_job(run, jobs[0])
    outside = tmp_path / "outside"
    outside.mkdir()
    (run.folder / "html").symlink_to(outside)

    with pytest.raises(InputError, match=f"to {outside}, outside {run.folder}; nothing was"):
        write_site(run.folder, jobs)

    assert list(outside.iterdir()) == []


def test_links_that_stay_in_a_run_or_lead_to_it_are_followed(run, tmp_path):
    jobs = plan_jobs(run.design)
    finish_job(run, jobs[0])
    (run.folder / "pages").mkdir()
    (run.folder / "html").symlink_to("pages")
    (tmp_path / "link").symlink_to(run.folder)

    write_site(tmp_path / "link", jobs)

    assert (run.folder / "pages" / "00_design.html").is_file()


def test_each_notebook_has_the_work_of_its_own_jobs_that_were_done(run):
    """Two kinds of training share a manifest; a failed try is no work that led to anything."""
    jobs = plan_jobs(run.design)
    trainings = [job for job in jobs if job.notebook.startswith("03_train")]
    manifest = run.root("train") / "training_manifest.json"
    for index, job in enumerate(trainings):
        finish_job(run, job)
        key = (run.folder / job.folder).relative_to(manifest.parent).as_posix()
        failed = index == 0
        machine = {"threads": "7", "device": f"cuda:{len(job.notebook)}"}
        record = {
            "status": "failed" if failed else "done",
            "wall_s": 1000.0 if failed else 10.0 if job.notebook == "03_train" else 0.25,
            "machine": machine | ({"device": "gone"} if failed else {}),
        }
        merge_record(manifest, key, record)

    text = write_site(run.folder, jobs).read_text(encoding="utf-8")

    plain = [job for job in trainings if job.notebook == "03_train"]
    thinned = [job for job in trainings if job.notebook == "03_train_thinned"]
    assert len(plain) > 1 < len(thinned)
    for notebook, part, work_s in (
        ("03_train", plain, 10.0 * (len(plain) - 1)),
        ("03_train_thinned", thinned, 0.25 * len(thinned)),
    ):
        cells = (notebook, len(part), f"{12.5 * len(part):.1f}", f"{work_s:.1f}")
        assert "".join(f"<td>{cell}</td>" for cell in cells) in text
    assert "gone" not in text
    assert "<tr><th>device</th><td>cuda:16; cuda:8</td></tr>" in text
    assert re.search("<th>threads per job</th><td>[0-9]+; 7</td>", text)


def test_what_a_summary_says_is_text_and_never_markup(run):
    jobs = plan_jobs(run.design)
    summary = {
        "origin": {},
        "findings": {"test": [HOSTILE[0]]},
        "study_table": [],
        "missing": [HOSTILE[1]],
        "figures": {},
    }
    write_json(run.root("summary") / "summary.json", summary)

    text = write_site(run.folder, jobs).read_text(encoding="utf-8")

    page = Page(text)
    assert "script" not in page.tags
    assert page.handlers == []
    assert "&lt;script&gt;" in text


def test_the_crate_names_each_file_with_its_hash_and_the_job_that_made_it(run):
    """What is on the disk is in the crate, recorded or not; the seal comes after the crate."""
    jobs = plan_jobs(run.design)
    done = [jobs[0], next(job for job in jobs if job.notebook == "03_train"), jobs[-1]]
    for job in done:
        finish_job(run, job)
        write_text(run.folder / job.folder / "deeper" / "events.jsonl", job.name)
        write_text(run.folder / "jobs" / job.name / "job.lock", "")
    not_done = next(job for job in jobs if job.notebook == "03_train_thinned")
    write_text(run.folder / not_done.folder / "train.log", "epoch 1")
    write_text(run.folder / "engine.log", "3 jobs")
    write_json(run.root("train") / "training_manifest.json", {"jobs": {}})
    write_site(run.folder, jobs)
    seal(run.folder)

    crate = json.loads((run.folder / "ro-crate-metadata.json").read_text())

    by_id = {entity["@id"]: entity for entity in crate["@graph"]}
    assert by_id["ro-crate-metadata.json"]["about"] == {"@id": "./"}
    parts = [part["@id"] for part in by_id["./"]["hasPart"]]
    on_disk = {path.relative_to(run.folder).as_posix() for path in run.folder.rglob("*")}
    expected = {name for name in on_disk if (run.folder / name).is_file()}
    expected -= {"ro-crate-metadata.json", "seal.json"}
    assert sorted(parts) == sorted(name for name in expected if not name.endswith(".lock"))
    for place in parts:
        entity, content = by_id[place], (run.folder / place).read_bytes()
        assert entity["@type"] == "File"
        assert entity["contentSize"] == str(len(content))
        assert entity["sha256"] == hashlib.sha256(content).hexdigest()
    makers = {
        part["@id"]: name
        for name, entity in by_id.items()
        if entity["@type"] == "CreateAction"
        for part in entity["result"]
    }
    assert makers == {
        place: f"#{job.name}"
        for job in done
        for place in (job.executed, job.done, f"{job.folder}/deeper/events.jsonl")
    }
    assert faults_of_seal(run.folder) == {}


# --- What the pages say of a study: nothing that is not so

FAR = "views=[{name: baseline, gridsize: 1}, {name: dense, gridsize: 2, target_overlap: 0.95}]"
SMALL = (
    "patch_size_px=16",
    "scan={kind: raster, rows: 7, columns: 9, step_px: 3.0, jitter_px: 0.6}",
    "probe.defocus_radius_px=3.0",
    "iterative.algorithms=[solver]",
    "iterative.denoised=false",
    "thinned=null",
    "metrics.photon_limit_solves=0",
)
REFUSED = {"fallback": "its base (TV)", "fallback_reason": f"{NOT_TRUSTED} (-1.00 +- 0.50 nats)"}


def arm_of(label, error, **values):
    """Return an arm that hands out the truth with an error of its own."""

    def arm(condition, measurement, hash_of):
        truth = condition.truth()
        noise = np.random.default_rng(len(label)).normal(0, error, truth.shape)
        object_ = (truth * np.exp(1j * noise)).astype(np.complex64)
        index = measurement.scan_index
        return ArmResult(label, "the truth", object_, index, 2.0, 40.0, (), **values)

    return arm


@pytest.fixture
def compared(tmp_path, monkeypatch):
    """A run whose dense view keeps every pattern, as its baseline does, and one refused network."""
    design = load_design("smoke", [*SMALL, FAR])
    made = create_run(tmp_path / "compared", design)
    run = with_views(generated(made.folder, design))
    monkeypatch.setitem(ARMS, "pinn", arm_of("PtychoPINN", 0.05))
    monkeypatch.setitem(ARMS, "net", arm_of("thinning network", 0.02, **REFUSED))
    monkeypatch.setitem(ARMS, "lost", arm_of("Lost", 40.0))
    for view in ("baseline", "dense"):
        compare(run.condition(design.doses[0], view, "test"))
    return run


def body_rows(text):
    """Return the cells of each row of the study table, as markup."""
    study_table = text.partition("phase MS-SSIM</th>")[2]
    body = study_table.partition("<tbody>")[2].partition("</tbody>")[0]
    rows = re.findall(r"<tr(.*?)>(.*?)</tr>", body, re.DOTALL)
    return [(kind, re.findall(r"<td.*?>(.*?)</td>", cells)) for kind, cells in rows]


def test_the_report_names_what_a_refused_network_is_and_credits_it_with_nothing(compared, study):
    summarize(compared)
    assert study("report", compared.folder).code == 0

    page = (compared.folder / "index.html").read_text(encoding="utf-8")
    text = (compared.root("summary") / "summary.md").read_text(encoding="utf-8")
    for shown in (page, text):
        assert "thinning network was refused in 1 of 1 condition" in shown
        assert "(-1.00 +- 0.50 nats)" in shown
        assert "Highest phase MS-SSIM: no condition has two arms to compare" in shown
        assert "Training of thinning network" not in shown
    rows = [cells for _, cells in body_rows(page) if "thinning network" in cells[4]]
    assert len(rows) == 2
    for cells in rows:
        assert cells[4] == "thinning network = its base (TV)"
        assert cells[-1] == "-", "no training is charged"
        assert not [cell for cell in cells if "<strong>" in cell]


def test_the_report_counts_views_with_the_same_patterns_once(compared, study):
    summarize(compared)
    assert study("report", compared.folder).code == 0

    page = (compared.folder / "index.html").read_text(encoding="utf-8")
    assert "10000, dense holds those of baseline. That leaves 1 of 2 conditions" in page
    assert page.count("of 2 condition") == 1
    assert "From dense" not in page


def test_the_report_greys_out_what_is_no_score_and_rules_groups_off(compared, study):
    summarize(compared)
    assert study("report", compared.folder).code == 0

    page = (compared.folder / "index.html").read_text(encoding="utf-8")
    rows = body_rows(page)
    assert len(rows) == 6
    lost = [(kind, cells) for kind, cells in rows if cells[4] == "Lost"]
    for kind, cells in lost:
        assert "no-score" in kind
        assert re.fullmatch(r"\([0-9.]+\)", cells[7])
        assert not [cell for cell in cells if "<strong>" in cell]
    assert ["begins-group" in kind for kind, _ in rows] == [True, False, False] * 2
    assert (
        "Not counted below, no nearer to the truth than an empty object: Lost at 10000, baseline."
        in page
    )


def test_the_report_of_a_run_from_before_says_the_same(compared, study):
    """Its rows say in one sentence alone that a network was refused; that sentence is enough."""
    summarize(compared)
    path = compared.root("summary") / "summary.json"
    summary = read_json(path)
    fields = {
        *("fallback", "fallback_reason", "grouping", "refused_training_cpu_s", "same_patterns_as")
    }
    for row in summary["study_table"]:
        if row["fallback"]:
            row["knows"] += "; its network was not trusted, this is its base"
            row |= {"label": "PtychoPINN thinned", "arm": "pinn-thinned", "training_cpu_s": 40.0}
        for name in fields:
            del row[name]
    summary["findings"] = {"test": ["Highest phase MS-SSIM: pinn-thinned in 2 of 2 conditions."]}
    write_json(path, summary)

    assert study("report", compared.folder).code == 0

    page = (compared.folder / "index.html").read_text(encoding="utf-8")
    assert "Highest phase MS-SSIM: pinn-thinned" not in page
    assert "thinning network was refused in 1 of 1 condition" in page
    assert "<td>thinning network = its base</td>" in page
    assert "That leaves 1 of 2 conditions" in page
    assert "written by an older version" in page


def test_the_report_says_what_a_run_changed_in_its_preset(compared, study):
    """SMALL and FAR leave little of the preset smoke: a page that said smoke would be untrue."""
    summarize(compared)
    assert study("report", compared.folder).code == 0

    page = (compared.folder / "index.html").read_text(encoding="utf-8")
    (line,) = re.findall("<p class=.faint.>(Preset smoke.*?)</p>", page)
    for change in ("patch_size_px=16", "thinned=null", "probe.defocus_radius_px=3", "other views"):
        assert change in line
    assert "training" not in line, "what is as in the preset is no change"
    assert line in (compared.root("summary") / "summary.md").read_text(encoding="utf-8").replace(
        '"', "&#34;"
    )


def test_every_figure_of_the_report_has_a_caption_in_words(compared, study):
    summarize(compared)
    assert study("report", compared.folder).code == 0

    page = (compared.folder / "index.html").read_text(encoding="utf-8")
    captions = re.findall("<figcaption>(.*?)</figcaption>", page)
    assert len(captions) == len(list((compared.root("summary") / "figures").glob("*.png"))) > 3
    assert not [text for text in captions if " " not in text]
