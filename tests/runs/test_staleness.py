"""What runs again after a change: whatever its code, packages or parameters decide, and no more."""

import shutil
import subprocess
import sys
from pathlib import Path

import nbformat
import pytest

from study_lib.design.presets import load_design
from study_lib.files import hashes_of, read_json, write_json
from study_lib.runs.plan import plan_jobs
from study_lib.runs.run import create_run, run_name
from study_lib.runs.staleness import code_of, sources_of

ROOT = Path(__file__).resolve().parents[2]
LIBRARY = ROOT / "study_lib"
SOLVING = {"03_train_thinned", "04_reconstruct", "05_compare"}


@pytest.fixture
def project(tmp_path) -> Path:
    """A copy of the project with a run of its own in which every job is done."""
    copy = tmp_path / "project"
    for name in ("study_lib", "notebooks", "parameters", "workflow"):
        shutil.copytree(ROOT / name, copy / name, ignore=shutil.ignore_patterns("__pycache__"))
    design = load_design("smoke")
    run = create_run(copy / "reports" / run_name(design), design)
    jobs = plan_jobs(design)
    for job in jobs:
        files = [run.folder / name for name in (job.executed, *job.outputs)]
        for path in files:
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(path.as_posix())
    for job in jobs:
        files = [run.folder / name for name in (job.executed, *job.outputs)]
        inputs = [run.folder / name for name in job.inputs]
        record = {
            "status": "done",
            "parameters": dict(job.parameters),
            "design": {"part_digest": job.design_part},
            "code": code_of(job.notebook),
            "sha256": hashes_of(files, run.folder),
            "inputs": hashes_of(inputs, run.folder),
        }
        write_json(run.folder / job.done, record)
    return copy


def planned(project: Path) -> dict[str, str]:
    """Return the jobs that `study plan` lists, with its reasons."""
    result = subprocess.run(
        [sys.executable, "-m", "study_lib", "plan", "--preset", "smoke", "--jobs"],
        cwd=project,
        env={"PYTHONPATH": str(project), "PATH": ""},
        capture_output=True,
        text=True,
        check=True,
    )
    *lines, _ = result.stdout.splitlines()
    reasons = [line.removeprefix("    because ") for line in lines[1::2]]
    return dict(zip(lines[::2], reasons, strict=True))


def notebooks_of(jobs) -> set[str]:
    return {name.split("__")[0] for name in jobs}


def edit(project: Path, module: str, old: str, new: str) -> None:
    """Change a module of the copied library, wherever it lies."""
    (path,) = project.glob(f"study_lib/**/{module}.py")
    text = path.read_text(encoding="utf-8")
    assert old in text
    path.write_text(text.replace(old, new, 1), encoding="utf-8")


def append(project: Path, module: str, text: str) -> None:
    (path,) = project.glob(f"study_lib/**/{module}.py")
    path.write_text(path.read_text(encoding="utf-8") + text, encoding="utf-8")


def test_nothing_is_done_twice(project):
    assert planned(project) == {}


def test_comments_and_docstrings_repeat_nothing(project):
    append(project, "figures/lessons", "# a remark\n")
    append(project, "solvers/solver", "# another one\n")
    edit(project, "solvers/solver", '"""', '"""Said differently. ')

    assert planned(project) == {}


def test_a_changed_figure_repeats_only_what_writes_figures(project):
    append(project, "figures/common", "\nWIDTH = 3\n")

    assert notebooks_of(planned(project)) == {"05_compare", "06_summary"}


def test_a_changed_solver_repeats_every_job_that_uses_it_and_no_data_set(project):
    append(project, "solvers/solver", "\nSTEP = 3\n")

    jobs = planned(project)

    assert notebooks_of(jobs) == SOLVING | {"06_summary"}
    because_of_code = [name for name, why in jobs.items() if why == "its code has changed"]
    assert notebooks_of(because_of_code) == SOLVING
    assert "runs before it" in jobs["06_summary"]


def test_a_module_in_a_package_counts(project):
    package = project / "study_lib" / "inner"
    package.mkdir()
    (package / "__init__.py").write_text('"""A package."""\n')
    (package / "deep.py").write_text('"""A module."""\n\nVALUE = 1\n')
    append(project, "solvers/solver", "\nfrom study_lib.inner.deep import VALUE\n")
    code = "from study_lib.runs.staleness import sources_of; print(*sources_of('04_reconstruct'))"

    result = subprocess.run(
        [sys.executable, "-c", code],
        cwd=project,
        env={"PYTHONPATH": str(project), "PATH": ""},
        capture_output=True,
        text=True,
        check=True,
    )

    assert {"study_lib.inner", "study_lib.inner.deep"} <= set(result.stdout.split())


def test_a_changed_notebook_repeats_its_jobs(project):
    path = project / "notebooks" / "02_overlap.ipynb"
    notebook = nbformat.read(path, as_version=4)
    notebook.cells[-2].source += "\nprint(1)"
    nbformat.write(notebook, path)

    jobs = planned(project)

    assert "its code has changed" in {jobs[name] for name in jobs if "02_overlap" in name}
    assert not {"00_design", "01_dataset"} & notebooks_of(jobs)


def test_another_version_of_a_package_repeats_what_uses_it(project):
    """Here only the records say so: they are of an older pty-chi."""
    (run_folder,) = (project / "reports").iterdir()
    for path in run_folder.glob("jobs/*/done.json"):
        record = read_json(path)
        if "ptychi" in record["code"]["packages"]:
            record["code"]["packages"]["ptychi"] = "1.0.0"
            write_json(path, record)

    jobs = planned(project)

    because = [
        name for name, why in jobs.items() if why == "another version is installed of ptychi"
    ]
    assert "04_reconstruct" in notebooks_of(because)
    assert not {"01_dataset", "03_train"} & notebooks_of(jobs)


def test_changed_and_missing_files_are_named(project):
    (run_folder,) = (project / "reports").iterdir()
    places = {
        job.name: run_folder / job.outputs[0]
        for job in plan_jobs(load_design("smoke"))
        if job.name.startswith(("03_train__", "06"))
    }
    first, second, *_ = places
    places[first].unlink()
    places[second].write_text("something else")

    jobs = planned(project)

    assert jobs[first].endswith(f"{places[first].name} is missing")
    assert jobs[second].endswith(f"{places[second].name} has changed")


@pytest.mark.parametrize("notebook", sorted(path.stem for path in (ROOT / "notebooks").glob("0*")))
def test_every_notebook_reaches_its_imports(notebook):
    reached = sources_of(notebook)

    assert "study_lib" in reached
    assert all(path.is_file() and path.is_relative_to(LIBRARY) for path in reached.values())
    assert not {"study_lib.cli.main", "study_lib.runs.engine"} & set(reached)
