"""What a notebook may do to its runner: die, fill memory, flood, be given odd values."""

import os
import socket
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from contextlib import nullcontext, suppress
from dataclasses import replace
from json import dumps
from pathlib import Path

import nbformat
import pytest

from study_lib.design.presets import load_design
from study_lib.errors import StudyError
from study_lib.files import read_json, write_json
from study_lib.runs.engine import run_plan
from study_lib.runs.evidence import exposed_values
from study_lib.runs.kernels import SharedKernel
from study_lib.runs.notebook import KEPT_BYTES, KEPT_MESSAGES, run_jobs
from study_lib.runs.plan import PlannedJob, plan_content, plan_jobs
from study_lib.runs.rules import PLAN_FILE
from study_lib.runs.run import create_run
from study_lib.runs.staleness import read_anew

pytestmark = pytest.mark.slow
FIGURE = "from IPython.display import Image, display; display(Image(data=b'x', format='png'))"


@pytest.fixture
def job_that_runs(tmp_path, monkeypatch):
    """Make the first notebook of a run hold other cells; return its folder and its job."""

    def made(*cells: str):
        run = create_run(tmp_path / "run", load_design("smoke"))
        place = tmp_path / "notebooks"
        place.mkdir()
        first = nbformat.v4.new_code_cell(
            "run_folder: str = ''\npreset: str = ''\nbase_npz: str | None = None",
            metadata={"tags": ["parameters"]},
        )
        others = [nbformat.v4.new_code_cell(cell) for cell in cells]
        notebook = nbformat.v4.new_notebook(cells=[first, *others])
        notebook.metadata["kernelspec"] = {
            "name": "python3",
            "display_name": "Python 3",
            "language": "python",
        }
        nbformat.write(notebook, place / "00_design.ipynb")
        monkeypatch.setattr("study_lib.runs.notebook.NOTEBOOK_FOLDER", place)
        (design_job,) = (job for job in plan_jobs(run.design) if job.notebook == "00_design")
        job = replace(design_job, after=(), outputs=(), metrics={}, figures=0)
        write_json(run.folder / PLAN_FILE, plan_content([job]))
        return run.folder, job

    return made


@pytest.mark.parametrize(
    "cell",
    [
        "import os, signal; os.kill(os.getpid(), signal.SIGKILL)",
        "import os; os._exit(137)",
    ],
)
def test_a_killed_kernel_fails_its_job_and_names_the_likely_cause(cell, job_that_runs, study):
    folder, job = job_that_runs("print('before')", cell)

    code, _, error = study("job", folder, job.name)

    assert code == 1
    assert error.startswith("study: the kernel stopped (")
    assert error.endswith("); it may have run out of memory, or was killed\n")
    assert not (folder / job.done).exists()
    assert "out of memory" in read_json(folder / job.failed)["error"]
    assert not read_json(folder / job.failed)["lasts"], "another try may have more memory"
    kept = folder / job.executed
    text = kept.with_name(f"{kept.stem}.failed.ipynb").read_text()
    assert "before" in text
    assert not kept.exists()


DIES_FIRST = """
import os, pathlib, signal
mark = pathlib.Path({mark!r})
if not mark.exists():
    mark.touch()
    os.kill(os.getpid(), signal.SIGKILL)
"""


@pytest.mark.parametrize("retries", [0, 1])
def test_a_job_whose_fault_may_pass_is_tried_again_as_often_as_asked(
    retries, tmp_path, monkeypatch
):
    startup = tmp_path / "ipython" / "profile_default" / "startup"
    startup.mkdir(parents=True)
    (startup / "00.py").write_text(DIES_FIRST.format(mark=str(tmp_path / "has_died")))
    monkeypatch.setenv("IPYTHONDIR", str(tmp_path / "ipython"))
    run = create_run(tmp_path / "run", load_design("smoke"))
    job = plan_jobs(run.design)[0]

    expected = (
        nullcontext() if retries else pytest.raises(StudyError, match="the kernel did not start")
    )
    with expected:
        run_plan(run.folder, [job], 1, print, retries=retries)

    events = (run.folder / job.folder / "events.jsonl").read_text()
    assert events.count('"start kernel"') == 1 + retries
    assert (run.folder / job.done).is_file() == bool(retries)
    assert (run.folder / job.failed).is_file() == (not retries)


def test_memory_that_runs_out_is_an_error_of_its_cell(job_that_runs, study):
    folder, job = job_that_runs(
        "import resource; resource.setrlimit(resource.RLIMIT_AS, (2**31, 2**31))",
        "import numpy; numpy.ones(2**30)",
    )

    code, _, error = study("job", folder, job.name)

    assert code == 1
    assert error.startswith("study: cell 3 failed: Unable to allocate")
    assert not (folder / job.done).exists()


@pytest.mark.parametrize(
    ("cell", "promised", "message"),
    [
        ("", {"outputs": ("a.json",)}, "did not write a.json"),
        ("", {"figures": 1}, "with 0 figures, needs 1"),
        (
            "open('a.json', 'w').write('[{\"phase_ssim\": 0.5}, {\"phase_ssim\": NaN}]')",
            {"outputs": ("a.json",), "metrics": {"a.json": ("phase_ssim",)}},
            "phase_ssim in a.json holds [0.5, nan]; it has to be a finite number",
        ),
    ],
)
def test_a_notebook_that_ends_without_its_evidence_fails_its_job(
    cell, promised, message, job_that_runs, study
):
    folder, job = job_that_runs(cell)
    write_json(folder / PLAN_FILE, plan_content([replace(job, **promised)]))

    code, _, error = study("job", folder, job.name)

    assert code == 1
    assert message in error
    assert not (folder / job.done).exists()
    record = read_json(folder / job.failed)
    assert record["status"] == "failed"
    assert message in record["error"]


@pytest.mark.parametrize(
    "cell",
    [
        "for _ in range(40): print('x' * 2**20)",
        "for _ in range(200): print('x' * 2**17, flush=True)",
        "import time\nfrom IPython.display import HTML, display\n"
        "for _ in range(3000): display(HTML('x')); time.sleep(0.001)",
    ],
)
def test_a_flood_of_outputs_is_cut_with_a_mark_and_the_job_goes_on(cell, job_that_runs, study):
    folder, job = job_that_runs(
        FIGURE, cell, "print('after')", "import pathlib; pathlib.Path('went_on').touch()"
    )

    code, printed, error = study("job", folder, job.name)

    assert code == 0, error
    executed = nbformat.read(folder / job.executed, as_version=4)
    outputs = [output for one in executed.cells for output in one.outputs]
    marks = [output.text for output in outputs if "outputs are cut" in output.get("text", "")]
    assert len(marks) == 1
    assert (folder / job.executed).stat().st_size < 1.2 * KEPT_BYTES
    assert len(outputs) <= KEPT_MESSAGES + 1
    assert (folder / "went_on").exists()
    cut = read_json(folder / job.done)["outputs_cut_bytes"]
    assert cut > 0
    assert f"00_design: warning: {cut} bytes of outputs were cut from the notebook" in printed


def test_an_error_after_a_flood_is_still_told(job_that_runs):
    folder, job = job_that_runs("for _ in range(40): print('x' * 2**20)", "1 / 0")

    with pytest.raises(StudyError, match="cell 3 failed: division by zero"):
        run_jobs(folder, [job.name])

    kept = (folder / job.executed).with_name("00_design.failed.ipynb")
    assert "ZeroDivisionError" in kept.read_text()


def test_usual_outputs_are_kept_whole(job_that_runs):
    folder, job = job_that_runs("for index in range(1000): print(index)")

    run_jobs(folder, [job.name])

    (output,) = nbformat.read(folder / job.executed, as_version=4).cells[-1].outputs
    assert output.text.split() == [str(index) for index in range(1000)]
    assert read_json(folder / job.done)["outputs_cut_bytes"] == 0


ODD = "it's \"quoted\"\n\\n \u2028\u2029 é 数 \\' {braces} # no comment \t end"


def test_an_odd_value_reaches_the_notebook_as_it_is(job_that_runs, tmp_path, study):
    """On its way through YAML, as the command line takes it, and through papermill."""
    job_that_runs("import json; json.dump([run_folder, base_npz], open('given.json', 'w'))")
    values = {"run_folder": ODD, "preset": "smoke", "base_npz": ODD}
    words = [word for name, value in values.items() for word in ("-p", f"{name}={dumps(value)}")]

    code, _, error = study("notebook", "00_design", "out.ipynb", *words)

    assert code == 0, error
    assert read_json(tmp_path / "given.json") == [ODD, ODD]


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ("dose=1.0\nimport os=2", "dose"),
        ("x; import os; os.system('touch ran')=1", "unknown name"),
        ("doze=1.0e+4", "doze: unknown name; known here: dose, run_folder"),
        ("dose=many", "dose: found 'many'"),
        ("dose=true", "dose: found True"),
        ("dose=-1", "dose: found -1"),
        ("run_folder=3", "run_folder: found 3"),
    ],
)
def test_a_wrong_parameter_stops_the_command_before_a_kernel(given, message, tmp_path):
    words = ["-p", "dose=1.0e+4", "-p", "run_folder=r", "-p", given]
    result = subprocess.run(
        [sys.executable, "-m", "study_lib", "notebook", "01_dataset", "out.ipynb", *words],
        capture_output=True,
        text=True,
        check=False,
        cwd=tmp_path,
    )

    assert result.returncode == 2, result.stderr
    assert message in result.stderr
    assert "Traceback" not in result.stderr
    assert list(tmp_path.iterdir()) == []


def test_a_truth_value_is_no_number(tmp_path, study):
    """To Python it is one."""
    words = ("-p", "run_folder=r", "-p", "dose=1.0e+4", "-p", "pattern=true")

    code, _, error = study("notebook", "explore_run", "out.ipynb", *words)

    assert code == 2
    assert "pattern: found True" in error
    assert list(tmp_path.iterdir()) == []


def test_without_a_kernel_the_remedy_is_named(job_that_runs, monkeypatch, study):
    """A job of a run has failed then; a single notebook was a wrong call."""
    folder, job = job_that_runs("1")
    monkeypatch.setattr("study_lib.runs.kernels.KERNEL_MODULE", "no_such_kernel")
    words = ("-p", "run_folder=r", "-p", "preset=smoke", "-p", "base_npz=null")

    for code, called in (
        (1, study("job", folder, job.name)),
        (2, study("notebook", "00_design", "out.ipynb", *words)),
    ):
        assert called.code == code
        (line,) = called.err.splitlines()
        assert "no package no_such_kernel in " in line
        assert "install ipykernel, or let `make study` install everything" in line

    assert not (folder / job.done).exists()


EDITS_ITSELF = """
import nbformat
notebook = nbformat.read({path!r}, 4)
notebook.cells.append(nbformat.v4.new_code_cell("1 + 1"))
nbformat.write(notebook, {path!r})
"""


def test_code_that_is_changed_while_its_job_runs_fails_the_job(
    job_that_runs, tmp_path, monkeypatch, study
):
    """What the kernel has loaded, and what the record would name, may be two things then."""
    place = tmp_path / "notebooks"
    folder, job = job_that_runs(EDITS_ITSELF.format(path=str(place / "00_design.ipynb")))
    monkeypatch.setattr("study_lib.runs.staleness.NOTEBOOK_FOLDER", place)

    read_anew()
    code, _, error = study("job", folder, job.name)
    monkeypatch.undo()
    read_anew()

    assert code == 1
    assert "was changed while this ran; the same command runs it again" in error
    assert not (folder / job.done).exists()
    assert not read_json(folder / job.failed)["lasts"]


LOOPBACK = f"{int.from_bytes(socket.inet_aton('127.0.0.1'), sys.byteorder):08X}"


def open_to_calls(process_id: int) -> list[str]:
    """Return the addresses, in hexadecimals, at which a process waits for calls, on Linux."""
    own = set()
    for entry in Path(f"/proc/{process_id}/fd").iterdir():
        with suppress(OSError):  # closed meanwhile
            own.add(str(entry.readlink()))
    tables = [Path(f"/proc/{process_id}/net/{name}") for name in ("tcp", "tcp6")]
    rows = [row.split() for path in tables if path.exists() for row in path.open()]
    return [row[1].split(":")[0] for row in rows if row[3] == "0A" and f"socket:[{row[9]}]" in own]


@pytest.mark.skipif(sys.platform != "linux", reason="looks for sockets in /proc")
def test_sixteen_kernels_start_at_once_on_sockets_of_their_own(tmp_path):
    """No channel takes a port: all that listens is what ipykernel opens for forked processes.

    That port is the system's choice, on this machine alone, and a kernel that gets none only warns.
    """
    kernels = [SharedKernel() for _ in range(16)]
    with socket.create_server(("127.0.0.1", 0)), socket.create_server(("", 0)):
        assert sorted(open_to_calls(os.getpid())) == ["00000000", LOOPBACK], "what listens is seen"
    try:
        with ThreadPoolExecutor(16) as pool:
            managers = list(pool.map(lambda kernel: kernel.manager(tmp_path), kernels))
        processes = [manager.provisioner.pid for manager in managers]
        assert all(kernel.peak_memory_mib() > 0 for kernel in kernels), "each answers"
        assert [open_to_calls(number) for number in processes] == [[LOOPBACK]] * 16
        assert {manager.transport for manager in managers} == {"ipc"}
        assert all(Path(f"{manager.ip}-{manager.shell_port}").is_socket() for manager in managers)
    finally:
        for kernel in kernels:
            kernel.__exit__()


SECRET = "correct-horse-battery"


@pytest.mark.parametrize(
    ("name", "value", "is_found"),
    [
        ("SITE_TOKEN", SECRET, True),
        ("db_password", SECRET, True),
        ("AWS_SECRET_ACCESS_KEY", SECRET, True),
        ("EDITOR", SECRET, False),
        ("TOKEN", "no", False),
    ],
)
def test_a_secret_in_an_output_is_found_and_not_repeated(name, value, is_found, tmp_path):
    (tmp_path / "notebooks").mkdir()
    for file in ("a.ipynb", "figure.svg"):
        (tmp_path / "notebooks" / file).write_text(f"... {value} ...")
    (tmp_path / "b.npz").write_bytes(value.encode())

    found = exposed_values(tmp_path, {name: value, "SHELL": "sh"})

    files = ("a.ipynb", "figure.svg") if is_found else ()
    assert found == [f"notebooks/{file} holds the value of ${name}" for file in files]
    assert SECRET not in "".join(found)


def test_a_report_with_a_secret_in_it_warns_before_it_is_published(job_that_runs):
    folder, job = job_that_runs(f"print('{SECRET}')", FIGURE)
    run_jobs(folder, [job.name])

    result = subprocess.run(
        [sys.executable, "-m", "study_lib", "report", str(folder)],
        capture_output=True,
        text=True,
        check=True,
        env=os.environ | {"UPLOAD_TOKEN": SECRET},
    )

    assert "notebooks/00_design.ipynb holds the value of $UPLOAD_TOKEN" in result.stderr
    assert "do not publish it" in result.stderr
    assert SECRET not in result.stderr


def test_planned_jobs_take_no_name_that_is_no_parameter(tmp_path):
    """The plan is a file that people can edit; so is what it gives to notebooks."""
    folder = create_run(tmp_path / "run", load_design("smoke")).folder
    parameters = {"run_folder": "run", "preset": "smoke", "base_npz": None, "a; b": 1}
    job = PlannedJob("00_design", "00_design", parameters, "", (), ".", (), {})
    write_json(folder / PLAN_FILE, plan_content([job]))

    with pytest.raises(StudyError, match="a; b: unknown name"):
        run_jobs(folder, [job.name])
