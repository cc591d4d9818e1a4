"""Run one job of a plan: one notebook, in one process, whole or not at all."""

import resource
import signal
import tempfile
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import nbformat
import papermill
from jupyter_client.manager import AsyncKernelManager
from nbclient.exceptions import CellTimeoutError, DeadKernelError
from papermill.exceptions import PapermillExecutionError

from study_lib.errors import StudyError
from study_lib.files import hashes_of, write_json
from study_lib.job_evidence import check_evidence
from study_lib.job_record import inputs_of, job_of
from study_lib.notebook_parameters import parameters_of
from study_lib.plan import NOTEBOOK_FOLDER, PLAN_FILE, code_digest, read_plan
from study_lib.processes import end_on_terminate, end_with_parent
from study_lib.records import Job, peak_memory_mib, provenance, utc_now

GRACE_S = 2.0  # for the kernel and its sockets, when the engine is gone


class SocketKernelManager(AsyncKernelManager):
    """Kernel that listens on sockets in a private folder: no ports, so no two jobs can clash."""

    def __init__(self, **settings: Any) -> None:
        super().__init__(**settings)
        self._sockets = tempfile.TemporaryDirectory(prefix="study-")
        self.transport = "ipc"
        self.ip = f"{self._sockets.name}/k"

    async def cleanup_resources(  # type: ignore[override]  # the base class mixes both kinds
        self, restart: bool = False
    ) -> None:
        """Remove the sockets after the kernel."""
        await super().cleanup_resources(restart)
        if not restart:
            self._sockets.cleanup()


def execute_notebook(
    notebook: str, output: Path, parameters: Mapping[str, Any], working_folder: Path
) -> nbformat.NotebookNode:
    """Execute a notebook of the study with papermill and write it in one piece.

    A failed notebook is kept beside the output as ``.failed.ipynb``.

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
            kernel_manager_class=SocketKernelManager,
        )
    except PapermillExecutionError as error:
        partial.replace(failed)
        reason = " ".join(error.evalue.split()) or error.ename
        raise StudyError(
            f"cell {error.cell_index} failed: {reason}; the notebook is kept as {failed}"
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


def run_job(run_folder: Path, job_name: str) -> None:
    """Execute one job of the run's plan, check its evidence, and write its ``done.json`` last.

    Raises
    ------
    InputError
        If the plan has no such job.
    StudyError
        If the notebook fails or its evidence is missing.
    """
    plan = read_plan(run_folder / PLAN_FILE)
    job = job_of(plan, job_name, run_folder)
    end_on_terminate(GRACE_S)
    end_with_parent(signal.SIGTERM)
    done, failed = run_folder / job.done, run_folder / job.failed
    for record_path in (done, failed):
        record_path.unlink(missing_ok=True)
    events = Job(run_folder, job.name, run_folder / job.folder, {})
    events.progress("start kernel", 1, 1)
    started, start_s = utc_now(), time.perf_counter()
    try:
        executed = execute_notebook(
            job.notebook, run_folder / job.executed, job.parameters, run_folder
        )
        check_evidence(run_folder, job, executed)
    except StudyError as error:
        write_json(failed, {"job": job.name, "status": "failed", "error": str(error)})
        raise
    files = [run_folder / path for path in (job.executed, *job.outputs)]
    inputs = [run_folder / path for path in inputs_of(job, plan)]
    record = {
        "job": job.name,
        "status": "done",
        "parameters": dict(job.parameters),
        "code": code_digest(job.notebook),
        "started": started,
        "wall_s": round(time.perf_counter() - start_s, 3),
        "kernel_peak_memory_mib": round(peak_memory_mib(resource.RUSAGE_CHILDREN), 1),
        "sha256": hashes_of(files, run_folder),
        "inputs": hashes_of([path for path in inputs if path.is_file()], run_folder),
        **provenance(),
    }
    write_json(done, record)
