"""The rules of the workflow order the jobs as the plan does, and short ones share a kernel."""

import re
import subprocess
import sys

import pytest

from study_lib.design.presets import load_design
from study_lib.files import write_json
from study_lib.runs.engine import SNAKEFILE
from study_lib.runs.plan import plan_jobs, write_plan
from study_lib.runs.resources import JobResources
from study_lib.runs.rules import PLAN_FILE, RULES_FILE, Rules, axes_of, rules_of

SHORT, LONG = JobResources(mem_mb=2000, runtime_min=12), JobResources(runtime_min=40)
TWO_DOSES = ["doses=[1.0e+3, 1.0e+4]", "replicates=2"]
POINTS = [*TWO_DOSES, 'points=[[1e3, "dense"], [1e4, "dense"], [1e4, "sparse"], [1e4, "baseline"]]']
PROOF = re.compile(r"jobs/([^/,\s]+)/done\.json")


def needs_of(jobs, need, **changed):
    return {job.name: changed.get(job.notebook[3:], need).model_dump() for job in jobs}


def executions(folder, jobs, needs, **options):
    """Return what Snakemake would execute: (jobs that are waited for, jobs of one process)."""
    write_plan(folder / PLAN_FILE, jobs)
    write_json(folder / RULES_FILE, rules_of(list(needs), needs, **options))
    command = [sys.executable, "-m", "snakemake", "--snakefile", str(SNAKEFILE)]
    command += ["--directory", str(folder), "--cores", "2", "--dry-run"]
    answer = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    found = []
    for part in re.split(r"\n(?=(?:local)?rule )", answer):
        lines = dict(re.findall(r"^    (input|output): (.*)$", part, re.MULTILINE))
        if "output" in lines:
            made = PROOF.findall(lines["output"])
            found.append((set(PROOF.findall(lines.get("input", ""))), made))
    return found


@pytest.mark.parametrize(
    ("settings", "jobs_of_a_kernel"),
    [
        (TWO_DOSES, {"02_overlap": 3, "04_reconstruct": 2, "05_compare": 2}),
        (
            [*TWO_DOSES, "trained_replicates=1"],
            {"02_overlap": 3, "04_reconstruct": 2, "05_compare": 2},
        ),
        (POINTS, {"04_reconstruct": 2, "05_compare": 2}),
        (["compare_train=false"], {"02_overlap": 3, "04_reconstruct": 2, "05_compare": 1}),
    ],
    ids=["grid", "one replicate trains", "points", "test split alone"],
)
def test_snakemake_executes_each_job_once_after_what_it_needs(tmp_path, settings, jobs_of_a_kernel):
    jobs = plan_jobs(load_design("smoke", settings))

    found = executions(tmp_path, jobs, needs_of(jobs, SHORT))

    names = [name for _, made in found for name in made]
    assert sorted(names) == sorted(job.name for job in jobs), "each job once"
    after = {job.name: set(job.after) for job in jobs}
    for before, made in found:
        assert set().union(*(after[name] for name in made)) <= before
        assert not before & set(made), "no process waits for itself"
        notebook, *others = {name.partition("__")[0] for name in made}
        assert not others, "one process executes one notebook"
        assert len(made) == jobs_of_a_kernel.get(notebook, 1)


def test_long_jobs_have_a_kernel_each(tmp_path):
    jobs = plan_jobs(load_design("smoke", TWO_DOSES))
    needs = needs_of(jobs, SHORT, reconstruct=LONG, compare=JobResources(gpus=1, runtime_min=12))

    found = executions(tmp_path, jobs, needs)

    sizes = {made[0].partition("__")[0]: len(made) for _, made in found}
    assert (sizes["02_overlap"], sizes["04_reconstruct"], sizes["05_compare"]) == (3, 1, 1)


def asked(tmp_path, monkeypatch, jobs, needs, notebook, *, alike=False):
    monkeypatch.chdir(tmp_path)
    write_json(tmp_path / RULES_FILE, rules_of(list(needs), needs, alike=alike))
    write_json(tmp_path / "resources.json", needs)
    first = next(job for job in jobs if job.notebook == notebook)
    places = type("Wildcards", (), axes_of(first.name))
    rules = Rules()
    given = {name: value for name, value in rules.resources(notebook).items() if name != "gpu"}
    return {name: value(places, attempt=2) for name, value in given.items()}


def test_a_kernel_asks_for_the_time_of_its_jobs_and_the_memory_of_the_largest(
    tmp_path, monkeypatch
):
    jobs = plan_jobs(load_design("smoke"))
    needs = needs_of(jobs, SHORT)
    needs["02_overlap__dose_10000__dense"] |= {"mem_mb": 5000}

    found = asked(tmp_path, monkeypatch, jobs, needs, "02_overlap")

    assert found == {"mem_mb": 10000, "runtime": 72, "attempt": 2}, "twice as much at a second try"


def test_jobs_of_an_array_ask_for_what_the_largest_of_their_notebook_needs(tmp_path, monkeypatch):
    """SLURM gives all jobs of an array the same; its plugin takes what the first one asks for."""
    jobs = plan_jobs(load_design("smoke"))
    needs = needs_of(jobs, SHORT)
    needs["03_train__dose_10000__sparse"] |= {"mem_mb": 7000, "runtime_min": 99}

    found = asked(tmp_path, monkeypatch, jobs, needs, "03_train", alike=True)

    assert found == {"mem_mb": 14000, "runtime": 198, "attempt": 2}
