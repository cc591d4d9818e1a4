"""A run's folder that somebody else made: no code in it runs, nothing is written out of it."""

import os
import pickle
import shutil
import subprocess
import sys
from pathlib import Path

import nbformat
import pytest

from study_lib.design.presets import load_design
from study_lib.files import write_json
from study_lib.runs.plan import plan_content, plan_jobs
from study_lib.runs.run import create_run, run_name
from study_lib.system import PROJECT

# Names that Python, the engine, a kernel, the report or the library import, early or late.
MODULES = (
    *("abc", "argparse", "ast", "asyncio", "base64", "bz2", "code", "collections", "copy", "csv"),
    *("ctypes", "decimal", "enum", "hashlib", "io", "json", "logging", "os", "pathlib", "pickle"),
    *("platform", "random", "re", "shutil", "signal", "site", "socket", "sitecustomize", "typing"),
    *("usercustomize", "h5py", "ipykernel", "IPython", "jinja2", "matplotlib", "nbconvert"),
    *("numpy", "pandas", "papermill", "pydantic", "requests", "scipy", "snakemake", "study_lib"),
    *("torch", "tqdm", "typer", "yaml", "zmq"),
)
FIGURE = "from IPython.display import Image, display; display(Image(data=b'x', format='png'))"


def plant(folder: Path, mark: Path) -> None:
    """Put code into a folder wherever something may look for it; what runs touches ``mark``."""
    touch = f"open({str(mark)!r}, 'a').write(__name__ + '\\n')\n"
    for name in MODULES:
        (folder / f"{name}.py").write_text(touch)
    for name in ("study_lib", "matplotlib", "torch"):
        (folder / name).mkdir()
        (folder / name / "__init__.py").write_text(touch)
    for name in ("ipython_config.py", "ipython_kernel_config.py", "jupyter_config.py"):
        (folder / name).write_text(touch)
    startup = folder / "profile_default" / "startup"
    startup.mkdir(parents=True)
    (startup / "00.py").write_text(touch)
    (folder / "matplotlibrc").write_text("backend: module://requests\nfigure.dpi: 7\n")
    command = f"touch {mark}"
    template = "{{ cycler.__init__.__globals__.os.system('" + command + "') }}"
    for name in ("basic", "base", "lab"):
        (folder / name).mkdir(exist_ok=True)
        (folder / name / "conf.json").write_text("{}")
        (folder / name / "index.html.j2").write_text(template)
    profile = folder / "profiles" / "default"
    profile.mkdir(parents=True)
    (profile / "config.yaml").write_text(f"config: [x={mark}]\nprinstshellcmds: true\nno-such: 1\n")
    memory = folder / ".snakemake" / "iocache"
    memory.mkdir(parents=True)
    (memory / "latest.pkl").write_bytes(pickle.dumps(Planted(mark)))


class Planted:
    """Unpickled, it touches a file."""

    def __init__(self, mark: Path) -> None:
        self.mark = mark

    def __reduce__(self):
        return os.system, (f"touch {self.mark}",)


def called(folder: Path, *words: str, **variables: str) -> subprocess.CompletedProcess[str]:
    """Call the command as in a shell that stands in a folder."""
    command = Path(sys.executable).with_name("study")
    environment = {**os.environ, "PYTHONPATH": str(PROJECT), **variables}
    return subprocess.run(
        [str(command), *words],
        cwd=folder,
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )


@pytest.fixture
def planted(tmp_path, tiny_design_with):
    """A run whose folder holds code; and the file that says if any of it ran."""
    view = "views=[{name: baseline, gridsize: 1, target_overlap: null}]"
    few = ("training=null", "thinned=null", 'iterative.algorithms=["solver"]')
    design = tiny_design_with(view, *few)
    run = create_run(tmp_path / run_name(design), design)
    mark = tmp_path / "ran"
    plant(run.folder, mark)
    return run, mark


@pytest.mark.slow
def test_no_code_in_a_runs_folder_runs(planted):
    run, mark = planted
    jobs = plan_jobs(run.design)
    write_json(run.folder / "plan.json", plan_content(jobs))
    first = jobs[0].name
    watch = ("-p", "run_folder=.", "-p", "every_s=1.0", "-p", "sliders=never")
    explore = (
        *("-p", "run_folder=.", "-p", "dose=1.0e+4", "-p", "view=baseline"),
        *("-p", "split=test", "-p", "arm=solver", "-p", "pattern=1"),
        *("-p", "row_share=0.5", "-p", "sliders=never"),
    )
    results = {
        "plan": called(run.folder, "plan", "--preset", "smoke", "--reports", ".."),
        "job": called(run.folder, "job", ".", first),
        "resume": called(run.folder, "resume", "."),
        "report": called(run.folder, "report", "."),
        "watch_run": called(run.folder, "notebook", "watch_run", "watched.ipynb", *watch),
        "explore_run": called(run.folder, "notebook", "explore_run", "seen.ipynb", *explore),
        "status": called(run.folder, "status", "."),
        "digest": called(run.folder, "digest", "."),
        "clean": called(run.folder, "clean", "."),
        "publish": called(run.folder, "publish", ".", "../shown"),
    }

    assert not mark.exists(), mark.read_text()
    assert "extra: not in seal.json" in results.pop("publish").stderr, "notebooks came afterwards"
    for name, result in results.items():
        assert result.returncode == 0, (name, result.stdout, result.stderr)
    done = nbformat.read(
        run.folder / "notebooks" / "05_compare__dose_10000__baseline__test.ipynb", 4
    )
    assert done.metadata["papermill"]["exception"] is None


@pytest.mark.slow
def test_python_m_in_a_checkout_uses_its_own_code_everywhere(tmp_path):
    """Command, engine, job and kernel: a copy that is installed stays out of it."""
    other = tmp_path / "other"
    for name in ("study_lib", "notebooks", "parameters", "workflow"):
        shutil.copytree(PROJECT / name, other / name)
    own = f"import study_lib; assert study_lib.__file__.startswith({str(other)!r})"
    engine = other / "workflow" / "Snakefile"
    everything = "RUN.all_done,"
    text = engine.read_text()
    assert everything in text
    only_first = text.replace(everything, "'jobs/00_design/done.json',")
    engine.write_text(f"{own}\n{only_first}")
    notebook = nbformat.read(other / "notebooks" / "00_design.ipynb", 4)
    notebook.cells.append(nbformat.v4.new_code_cell(f"{own}; print('its own')"))
    nbformat.write(notebook, other / "notebooks" / "00_design.ipynb")
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}

    result = subprocess.run(
        [sys.executable, "-m", "study_lib", "run", "--preset", "smoke", "--reports", "reports"],
        cwd=other,
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )

    assert "23 were not run" in result.stderr, result.stdout + result.stderr
    (executed,) = (other / "reports").glob("*/notebooks/00_design.ipynb")
    assert "its own" in nbformat.read(executed, 4).cells[-1].outputs[0].text


@pytest.mark.parametrize(
    "name",
    ["engine.log", "phase_h_summary", "jobs", ".snakemake", "phase_c_datasets/x/events.jsonl"],
)
def test_a_link_that_leads_out_is_refused_before_anything_is_written(name, tmp_path, study):
    design = load_design("smoke")
    run = create_run(tmp_path / run_name(design), design)
    outside = tmp_path / "outside"
    outside.mkdir()
    target = outside if "." not in name or name == ".snakemake" else outside / "file"
    link = run.folder / name
    link.parent.mkdir(parents=True, exist_ok=True)
    link.symlink_to(target)
    before = sorted(run.folder.rglob("*"))

    for command in ("resume", "report"):
        code, _, error = study(command, run.folder)

        assert code == 2
        assert f"{link}: is a link to {target}, outside" in error
        assert "remove the link" in error
    assert not list(outside.iterdir())
    assert sorted(run.folder.rglob("*")) == before


@pytest.mark.parametrize("place", ["../../outside/x", "/outside/x"])
@pytest.mark.parametrize("field", ["name", "folder", "run_folder", "outputs"])
def test_a_plan_that_names_places_outside_is_refused(field, place, tmp_path, study):
    """The plan is a file of the folder too, and a job writes where it says."""
    run = create_run(tmp_path / "run", load_design("smoke"))
    content = plan_content(plan_jobs(run.design)[:1])
    job = content["jobs"][0]
    name = job["name"]
    if field == "run_folder":
        job["parameters"] = {**job["parameters"], "run_folder": place}
    else:
        job[field] = [place] if field == "outputs" else place
    write_json(run.folder / "plan.json", content)

    code, _, error = study("job", run.folder, place if field == "name" else name)

    assert code == 2
    assert f"names '{place}', outside the run's folder; `study resume` writes the plan" in error
    assert sorted(path.name for path in tmp_path.iterdir()) == ["run"]


def test_a_log_is_not_written_through_a_link(tmp_path, study):
    """A phase by itself may write where a link leads; what it adds to a file must be that file."""
    design = load_design("smoke")
    run = create_run(tmp_path / run_name(design), design)
    folder = run.condition(1e4).folder("dataset")
    folder.mkdir(parents=True)
    (tmp_path / "kept").write_text("precious\n")
    (folder / "events.jsonl").symlink_to(tmp_path / "kept")

    code, _, error = study(
        "generate", "--dose", 1e4, "--output-root", run.folder / "phase_c_datasets"
    )

    assert code == 2
    assert "events.jsonl: is a link; nothing was written through it; remove it" in error
    assert (tmp_path / "kept").read_text() == "precious\n"


@pytest.mark.slow
def test_the_kernel_is_this_interpreter_whatever_is_installed_as_python3(
    tmp_path, monkeypatch, study
):
    other = tmp_path / "jupyter" / "kernels" / "python3"
    words = ["sh", "-c", f"touch {tmp_path}/other_ran; exit 1"]
    write_json(other / "kernel.json", {"argv": words, "display_name": "x", "language": "python"})
    monkeypatch.setenv("JUPYTER_PATH", str(tmp_path / "jupyter"))

    code, _, error = study(
        "notebook",
        "00_design",
        "out.ipynb",
        "-p",
        "run_folder=r",
        "-p",
        "preset=smoke",
        "-p",
        "base_npz=null",
    )

    assert code == 0, error
    assert not (tmp_path / "other_ran").exists()
