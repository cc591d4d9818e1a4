"""Run jobs of a plan: each one notebook, whole or not at all."""

import signal
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import Any

import nbformat
import papermill
from jupyter_client.kernelspec import NoSuchKernel
from nbclient.exceptions import CellTimeoutError, DeadKernelError
from papermill.exceptions import PapermillExecutionError

from study_lib.design.notebooks import parameters_of
from study_lib.errors import InputError, LastingError, StudyError
from study_lib.files import hashes_of, write_json
from study_lib.phases.records import provenance, tell, utc_now
from study_lib.runs.job import inputs_of, is_done, job_of, read_record
from study_lib.runs.job_evidence import check_evidence
from study_lib.runs.job_lock import only_writer
from study_lib.runs.kernels import SharedKernel
from study_lib.runs.notebook_outputs import ENGINE, outputs_cut_bytes
from study_lib.runs.plan import NOTEBOOK_FOLDER, PLAN_FILE, PlannedJob, read_plan
from study_lib.runs.staleness import code_of
from study_lib.system import end_on_terminate, end_with_parent

# Names of errors that the study itself raises, and that another try would meet again.
OWN_REASONS = ("StudyError", "LastingError", "InputError", "MissingResultError")
GRACE_S = 2.0  # for the kernel and its sockets, when the engine is gone


def execute_notebook(
    notebook: str,
    output: Path,
    parameters: Mapping[str, Any],
    working_folder: Path,
    kernel: SharedKernel,
) -> nbformat.NotebookNode:
    """Execute a notebook of the study with papermill and write it in one piece.

    A failed notebook is kept beside the output as ``.failed.ipynb``. The kernel outlives it; its
    working folder is that of its first notebook.

    Raises
    ------
    InputError
        If a parameter is unknown, missing or wrong; no kernel has been started then.
    StudyError
        If a cell fails or the kernel dies.
    """
    values = parameters_of(notebook, parameters).model_dump()
    output.parent.mkdir(parents=True, exist_ok=True)
    partial = output.with_name(f".{output.stem}.part.ipynb")
    failed = output.with_name(f"{output.stem}.failed.ipynb")
    failed.unlink(missing_ok=True)
    try:
        executed = papermill.execute_notebook(
            NOTEBOOK_FOLDER / f"{notebook}.ipynb",
            partial,
            parameters=values,
            cwd=str(working_folder),
            progress_bar=False,
            engine_name=ENGINE,
            km=kernel.manager(),
        )
    except PapermillExecutionError as error:
        partial.replace(failed)
        reason = " ".join(error.evalue.split()) or error.ename
        kind = LastingError if error.ename in OWN_REASONS else StudyError
        raise kind(
            f"cell {error.cell_index} failed: {reason}; the notebook is kept as {failed}"
        ) from None
    except NoSuchKernel as error:
        partial.unlink(missing_ok=True)
        raise InputError(
            f"no Jupyter kernel {error.name!r} in this environment; install ipykernel, or let "
            "`make study` install everything"
        ) from None
    except (DeadKernelError, CellTimeoutError, RuntimeError) as error:
        if partial.exists():
            partial.replace(failed)
        raise StudyError(
            f"the kernel stopped ({type(error).__name__}: {error}); it may have run "
            "out of memory, or was killed"
        ) from None
    partial.replace(output)
    notebook_node: nbformat.NotebookNode = executed
    return notebook_node


def run_jobs(run_folder: Path, names: Sequence[str], attempt: int = 1) -> None:
    """Execute jobs of the run's plan in turn, in one kernel.

    Each has its evidence checked and its ``done.json`` written last. One that fails does not keep
    the next from running. One that another process runs is waited for, and not run again if it is
    done then. At a later attempt, one that failed for a reason of its own is not tried again.

    Raises
    ------
    InputError
        If the plan has no such job; nothing has been started then.
    StudyError
        If a notebook fails, its evidence is missing or the system refuses a file; one line for
        each.
    """
    plan = read_plan(run_folder / PLAN_FILE)
    jobs = [job_of(plan, name, run_folder) for name in names]
    end_on_terminate(GRACE_S)
    end_with_parent(signal.SIGTERM)
    say = partial(print, flush=True)
    faults = []
    with SharedKernel() as kernel:
        for job in jobs:
            try:
                if attempt > 1:
                    _refuse_lasting_failure(run_folder, job)
                with only_writer(run_folder, job, say):
                    if not is_done(run_folder, job, plan):
                        _run_job(run_folder, job, plan, kernel, say)
            except (StudyError, OSError) as error:
                faults.append(f"{job.name}: {error}" if len(jobs) > 1 else str(error))
    if faults:
        raise StudyError("\n".join(faults))


def _refuse_lasting_failure(run_folder: Path, job: PlannedJob) -> None:
    failure = read_record(run_folder / job.failed)
    if failure.get("lasts"):
        raise LastingError(f"not tried again: {failure['error']}")


def _run_job(
    run_folder: Path,
    job: PlannedJob,
    plan: Sequence[PlannedJob],
    kernel: SharedKernel,
    say: Callable[[str], None],
) -> None:
    """Execute one job; whatever ends it, ``done.json`` or ``failed.json`` says so."""
    try:
        for name in (job.done, job.failed):
            (run_folder / name).unlink(missing_ok=True)
        write_json(run_folder / job.done, _record_of(run_folder, job, plan, kernel, say))
    except (StudyError, OSError) as error:
        content = {"job": job.name, "status": "failed", "error": str(error)}
        lasts = isinstance(error, LastingError | InputError)
        with suppress(StudyError, OSError):  # where there is no room, the first error is the cause
            write_json(run_folder / job.failed, content | {"lasts": lasts})
        raise


def _record_of(
    run_folder: Path,
    job: PlannedJob,
    plan: Sequence[PlannedJob],
    kernel: SharedKernel,
    say: Callable[[str], None],
) -> dict[str, Any]:
    """Execute the notebook of a job, check its evidence, and return the record of both."""
    tell(run_folder / job.folder, "start kernel", 1, 1)
    started, start_s = utc_now(), time.perf_counter()
    executed = execute_notebook(
        job.notebook, run_folder / job.executed, job.parameters, run_folder, kernel
    )
    check_evidence(run_folder, job, executed)
    cut = outputs_cut_bytes(executed)
    if cut:
        say(f"{job.name}: warning: {cut} bytes of outputs were cut from the notebook")
    files = [run_folder / path for path in (job.executed, *job.outputs)]
    inputs = [run_folder / path for path in inputs_of(job, plan)]
    return {
        "job": job.name,
        "status": "done",
        "parameters": dict(job.parameters),
        "code": code_of(job.notebook),
        "started": started,
        "wall_s": round(time.perf_counter() - start_s, 3),
        "outputs_cut_bytes": cut,
        "kernel_peak_memory_mib": round(kernel.peak_memory_mib(), 1),
        "sha256": hashes_of(files, run_folder),
        "inputs": hashes_of([path for path in inputs if path.is_file()], run_folder),
        **provenance(),
    }
