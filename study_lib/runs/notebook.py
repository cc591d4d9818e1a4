"""Execute one notebook, whole or not at all: its job, its outputs."""

import signal
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import Any

import nbformat
import papermill
from nbclient.exceptions import CellTimeoutError, DeadKernelError
from nbformat import NotebookNode
from nbformat.v4 import new_output
from papermill.clientwrap import PapermillNotebookClient
from papermill.engines import NBClientEngine, papermill_engines
from papermill.exceptions import PapermillExecutionError

from study_lib.design.notebooks import parameters_of
from study_lib.errors import InputError, LastingError, StudyError
from study_lib.files import hashes_of, require_no_link_out, write_json
from study_lib.phases.records import log_event, provenance, utc_now
from study_lib.runs.job import (
    BEGUN,
    DONE,
    FAILED,
    check_evidence,
    computed_with,
    is_done,
    note_state,
    only_writer,
    read_record,
)
from study_lib.runs.kernels import SharedKernel
from study_lib.runs.plan import (
    NOTEBOOK_FOLDER,
    PlannedJob,
    design_part,
    digest_of_part,
    read_jobs,
)
from study_lib.runs.rules import PLAN_FILE
from study_lib.runs.run import open_run
from study_lib.runs.staleness import code_of, require_same_code
from study_lib.system import end_on_terminate, end_with_parent

# --- Outputs: a flood is cut, and the notebook says so
#
# papermill writes the whole notebook again and again while it runs, so that outputs without a
# bound cost time, memory and disk, however little of them anybody reads.

ENGINE = "study"
KEPT_BYTES = 16 * 2**20  # of all outputs of a notebook; the largest of the study keeps 6 MiB
KEPT_MESSAGES = 2_000
METADATA = "study"
BACKLOG_S = 20  # to take in what a finished cell has printed; a flood takes a while to be cut


class BudgetedClient(PapermillNotebookClient):  # type: ignore[misc]  # papermill has no types
    """Client that keeps the outputs of a notebook up to a budget, and errors always."""

    def __init__(self, nb_man: Any, **settings: Any) -> None:
        super().__init__(nb_man, **settings)
        self._bytes = self._messages = self._cut = 0

    def output(
        self,
        outs: list[NotebookNode],
        msg: dict[str, Any],
        display_id: str | None,
        cell_index: int,
    ) -> NotebookNode | None:
        """Append an output to those of its cell, or a mark in place of the first that is cut."""
        size = _size_of(msg["content"])
        is_error = msg["msg_type"] == "error"
        fits = self._bytes + size <= KEPT_BYTES and self._messages < KEPT_MESSAGES
        if is_error or (fits and not self._cut):
            self._bytes += size
            self._messages += 1
            kept: NotebookNode | None = super().output(outs, msg, display_id, cell_index)
            return kept
        if not self._cut:
            text = (
                f"[outputs are cut from here: a notebook keeps {KEPT_BYTES // 2**20} MiB or "
                f"{KEPT_MESSAGES} messages; print less often, or save to a file]\n"
            )
            outs.append(new_output("stream", name="stderr", text=text))
        self._cut += size
        self.nb.metadata[METADATA] = {"outputs_cut_bytes": self._cut}
        return None


class BudgetedEngine(NBClientEngine):  # type: ignore[misc]  # papermill has no types
    """papermill's engine, with a client that has a budget."""

    @classmethod
    def execute_managed_notebook(cls, nb_man: Any, kernel_name: str, **settings: Any) -> Any:
        """Execute a notebook; settings are those of nbclient."""
        unused = {"input_path", "log_output", "stdout_file", "stderr_file"}
        kept = {name: value for name, value in settings.items() if name not in unused}
        startup = kept.pop("start_timeout", 60)
        timeout = kept.pop("execution_timeout", None)
        client = BudgetedClient(
            nb_man,
            kernel_name=kernel_name,
            startup_timeout=startup,
            timeout=timeout,
            iopub_timeout=BACKLOG_S,
            # In a flood the sockets drop messages, and the one that says "idle" may be among them;
            # the cell's own reply comes another way.
            raise_on_iopub_timeout=False,
            **kept,
        )
        return client.execute()


def outputs_cut_bytes(notebook: NotebookNode) -> int:
    """Return how many bytes of outputs an executed notebook did not keep."""
    return int(notebook.metadata.get(METADATA, {}).get("outputs_cut_bytes", 0))


def _size_of(content: dict[str, Any]) -> int:
    """Return about how many bytes a message adds to a notebook."""
    if "text" in content:
        return len(content["text"])
    data: dict[str, Any] = content.get("data") or {}
    return sum(
        len(value) if isinstance(value, str) else len(repr(value)) for value in data.values()
    )


papermill_engines.register(ENGINE, BudgetedEngine)

# --- Jobs: each one notebook, whole or not at all

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

    A failed notebook is kept beside the output as ``.failed.ipynb``. The kernel outlives it.

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
            progress_bar=False,
            engine_name=ENGINE,
            km=kernel.manager(working_folder),
        )
    except PapermillExecutionError as error:
        partial.replace(failed)
        reason = " ".join(error.evalue.split()) or error.ename
        kind = LastingError if error.ename in OWN_REASONS else StudyError
        raise kind(
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


def run_jobs(run_folder: Path, names: Sequence[str], attempt: int = 1) -> None:
    """Execute jobs of the run's plan in turn, in one kernel.

    Each has its evidence checked and its ``done.json`` written last. One that fails does not keep
    the next from running. One that another process runs is waited for, and not run again if it is
    done then. At a later attempt, one that failed for a reason of its own is not tried again.

    Raises
    ------
    InputError
        If the plan has no such job, or a link leads out of the run; nothing has been started then.
    StudyError
        If a notebook fails, its evidence is missing or the system refuses a file; one line for
        each.
    """
    jobs = read_jobs(run_folder / PLAN_FILE, names)
    require_no_link_out(run_folder)
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
                    if not is_done(run_folder, job):
                        _run_job(run_folder, job, kernel, say)
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
    kernel: SharedKernel,
    say: Callable[[str], None],
) -> None:
    """Execute one job; whatever ends it, ``done.json`` or ``failed.json`` says so."""
    try:
        for name in (job.done, job.failed):
            (run_folder / name).unlink(missing_ok=True)
        note_state(run_folder, job, BEGUN)
        write_json(run_folder / job.done, _record_of(run_folder, job, kernel, say))
    except (StudyError, OSError) as error:
        content = {"job": job.name, "status": "failed", "error": str(error)}
        lasts = isinstance(error, LastingError | InputError)
        with suppress(StudyError, OSError):  # where there is no room, the first error is the cause
            write_json(run_folder / job.failed, content | {"lasts": lasts})
            note_state(run_folder, job, FAILED)
        raise
    note_state(run_folder, job, DONE)


def _record_of(
    run_folder: Path,
    job: PlannedJob,
    kernel: SharedKernel,
    say: Callable[[str], None],
) -> dict[str, Any]:
    """Execute the notebook of a job, check its evidence, and return the record of both."""
    parameters_of(job.notebook, job.parameters)
    log_event(run_folder / job.folder, "start kernel", 1, 1)
    design = open_run(run_folder / job.parameters["run_folder"]).design
    part = design_part(design, job.notebook, job.parameters)
    code = code_of(job.notebook)
    started, start_s = utc_now(), time.perf_counter()
    executed = execute_notebook(
        job.notebook, run_folder / job.executed, job.parameters, run_folder, kernel
    )
    check_evidence(run_folder, job, executed)
    require_same_code(job.notebook, code)
    cut = outputs_cut_bytes(executed)
    if cut:
        say(f"{job.name}: warning: {cut} bytes of outputs were cut from the notebook")
    files = [run_folder / path for path in (job.executed, *job.outputs)]
    inputs = [run_folder / path for path in job.inputs]
    return {
        "job": job.name,
        "status": "done",
        "parameters": dict(job.parameters),
        "design": {"made_by": design.digest, "part": part, "part_digest": digest_of_part(part)},
        "code": code,
        "computed_with": computed_with(run_folder, job, started),
        "started": started,
        "wall_s": round(time.perf_counter() - start_s, 3),
        "outputs_cut_bytes": cut,
        "kernel_peak_memory_mib": round(kernel.peak_memory_mib(), 1),
        "sha256": hashes_of(files, run_folder),
        "inputs": hashes_of([path for path in inputs if path.is_file()], run_folder),
        **provenance(),
        "versions": kernel.versions(),
    }
