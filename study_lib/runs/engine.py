"""Run the plan of a run with Snakemake, and report its progress every few seconds."""

import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Collection, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from pathlib import Path
from typing import TextIO

from filelock import FileLock, Timeout

from study_lib.errors import InputError, StudyError
from study_lib.files import open_to_append, require_no_link_out, write_json
from study_lib.runs.cluster import cancel as cancel_jobs
from study_lib.runs.cluster import executor_of, live_jobs, run_tag, submits_arrays
from study_lib.runs.job import (
    BEGUN,
    DONE,
    States,
    read_record,
    reason_to_run,
    this_process,
    writer_of,
)
from study_lib.runs.kernel_forks import SERVER, kernels_forked
from study_lib.runs.plan import PlannedJob, write_plan
from study_lib.runs.progress import ENGINE_FILE, LOCK_FILE, running_jobs
from study_lib.runs.resources import read_resources
from study_lib.runs.rules import PLAN_FILE, RULES_FILE, rules_of
from study_lib.system import PARENT, PROJECT, THREADS, own_code_only

SNAKEFILE = PROJECT / "workflow" / "Snakefile"
LOG_FILE = "engine.log"
POLL_S = 0.5
REPORT_S = 8.0
WAIT_S = 2.0
STOP_S = 5.0  # that an engine on this machine is given; its jobs end with it
CANCEL_S = 300.0  # that one on a cluster is given, whose scheduler may be slow to answer
RETRIES = 1
FORKED_FROM = 3  # jobs: with fewer, kernels start sooner by themselves
SILENT_END = "ended without saying why; it was killed, or ran out of memory or time"
TAG = "STUDY_RUN_TAG"
# Snakemake would outlive `study run` if that were killed. Asked to terminate, it waits for its
# jobs, on a cluster for hours; interrupted, it cancels them. In the background of a shell without
# job control it would ignore Ctrl-C's signal, so it takes another for it.
INTERRUPT = signal.SIGUSR1
ENGINE = (
    "import signal, sys; from study_lib.system import end_with_parent; "
    "signal.signal(signal.SIGUSR1, signal.default_int_handler); "
    "end_with_parent(signal.SIGKILL); from snakemake.cli import main; main(sys.argv[1:])"
)
Say = Callable[[str], None]


def run_plan(
    run_folder: Path,
    jobs: Sequence[PlannedJob],
    cores: int | None,
    say: Say,
    *,
    profile: Path | None = None,
    before: Callable[[], None] = lambda: None,
    retries: int = RETRIES,
    cancel: bool = False,
) -> None:
    """Execute what is not done yet; a job that fails does not stop those that do not need it.

    Jobs that an earlier engine left behind, on a cluster or here, are waited for first.

    Parameters
    ----------
    run_folder
        The run.
    jobs
        Its plan.
    cores
        Jobs at the same time; None leaves it to the profile.
    say
        What takes the lines to print.
    profile
        Folder of a profile, for a cluster; None runs everything on this machine.
    before
        Called when no other process writes in the folder, before anything runs.
    retries
        How often a job is tried again that was ended from outside or met a fault that may pass.
    cancel
        End the jobs of an earlier engine on its cluster instead of waiting for them.

    Raises
    ------
    InputError
        If another process runs this folder, or a link in it leads out of it.
    StudyError
        If a job failed; names the jobs and their notebooks.
    """
    run_folder.mkdir(parents=True, exist_ok=True)
    require_no_link_out(run_folder)
    with _only_engine_of(run_folder):
        _let_earlier_jobs_end(run_folder, jobs, say, on_cluster=bool(profile), cancel=cancel)
        write_plan(run_folder / PLAN_FILE, jobs)
        before()
        _settle(run_folder, jobs)
        is_array = profile is not None and submits_arrays(profile)
        if is_array and cores:
            say(f"--cores {cores} does not count: jobs go as arrays, the cluster limits them")
        _write_rules(run_folder, jobs, is_array=is_array)
        states = States(run_folder)
        log_path = run_folder / LOG_FILE
        environment = _environment() | {TAG: run_tag(run_folder)}
        with (
            open_to_append(log_path) as log,
            _kernels_of(run_folder, jobs, environment, log, on_cluster=bool(profile)) as kernels,
        ):
            process = subprocess.Popen(
                [
                    *_command(run_folder, cores, profile, len(jobs) if is_array else None),
                    *("--keep-going", "--keep-incomplete", "--rerun-incomplete", "--nolock"),
                    *("--retries", str(retries)),
                ],
                stdout=log,
                stderr=subprocess.STDOUT,
                env=environment | kernels,
            )
            try:
                _report_until_end(process, run_folder, jobs, states, say)
            finally:
                _end(process, on_cluster=bool(profile))
    failed = [job for job in jobs if not (run_folder / job.done).is_file()]
    if process.returncode or failed:
        states.update()
        raise StudyError(_describe_failure(run_folder, failed, states.by_job))


def _write_rules(run_folder: Path, jobs: Sequence[PlannedJob], *, is_array: bool) -> None:
    """Write what the workflow asks about the run, in a file that is small however many jobs."""
    needs = read_resources(run_folder, jobs)
    as_data = {name: need.model_dump() for name, need in needs.items()}
    waits = {job.name: job.after_same_notebook for job in jobs if job.after_same_notebook}
    rules = rules_of(list(needs), as_data, alike=is_array, waits=waits)
    write_json(run_folder / RULES_FILE, rules)


def _let_earlier_jobs_end(
    run_folder: Path, jobs: Sequence[PlannedJob], say: Say, *, on_cluster: bool, cancel: bool
) -> None:
    """Wait until no job of an earlier engine lives: a second one would write the same files."""
    shown = ""
    while live := live_jobs(run_folder, jobs, must_answer=on_cluster):
        text = "; ".join(job.text for job in live)
        if text != shown:
            say(f"jobs of an earlier `study run` still live, waiting for them: {text}")
        if not shown and cancel:
            cancel_jobs(live)
        elif not shown and any(job.number for job in live):
            say("to end them instead, stop this and give `study resume --cancel`")
        shown = text
        time.sleep(WAIT_S)


def _settle(run_folder: Path, jobs: Sequence[PlannedJob]) -> None:
    """Let the records of the jobs alone decide what is done, not what the engine remembers.

    An engine that was killed after a job had ended, and before it noticed, takes it for cut off.
    And it knows files by their times: not with which design, parameters and code a job ran, nor
    whether a file of it was changed.
    """
    for job in jobs:
        (run_folder / job.failed).unlink(missing_ok=True)
        if (run_folder / job.done).is_file() and reason_to_run(run_folder, job):
            (run_folder / job.done).unlink()
    # A memory of the last engine, read by pickle: in a folder from somebody else it could be code.
    for name in ("incomplete", "iocache"):
        place = run_folder / ".snakemake" / name
        if place.is_dir():
            shutil.rmtree(place)


def _command(
    folder: Path, cores: int | None, profile: Path | None = None, array: int | None = None
) -> list[str]:
    """Return the command of the engine; ``array`` is how many jobs there are to submit as arrays.

    A limit would leave some of an array's jobs ready and not chosen, for which the plugin waits.
    """
    limits = ["--cores", str(cores)]
    if profile:
        at_once = array or cores
        limits = ["--profile", str(profile), *(["--jobs", str(at_once)] if at_once else [])]
        if executor_of(profile) == "slurm":
            limits += ["--slurm-jobname-prefix", run_tag(folder)]
    return [
        sys.executable,
        "-P",
        "-c",
        ENGINE,
        *("--workflow-profile", "none"),  # or a profile in the working folder would be used
        "--snakefile",
        str(SNAKEFILE),
        "--directory",
        str(folder),
        *limits,
    ]


def _environment() -> dict[str, str]:
    """Return the environment of the engine: one thread per job, and no code of the run's folder."""
    inherited = {name: value for name, value in os.environ.items() if name != SERVER}
    return inherited | dict.fromkeys(THREADS, "1") | own_code_only() | {PARENT: str(os.getpid())}


def _kernels_of(
    run_folder: Path,
    jobs: Sequence[PlannedJob],
    environment: dict[str, str],
    log: TextIO,
    *,
    on_cluster: bool,
) -> AbstractContextManager[dict[str, str]]:
    """Have kernels forked where several are needed and run on this machine."""
    threads = {name: need.threads for name, need in read_resources(run_folder, jobs).items()}
    needed = sum(threads[job.name] == 1 and not (run_folder / job.done).is_file() for job in jobs)
    if on_cluster or needed < FORKED_FROM:
        return nullcontext({})
    return kernels_forked(environment, log)


@contextmanager
def _only_engine_of(run_folder: Path) -> Iterator[None]:
    """Hold the run's lock; the system frees it when the process ends, however it ends."""
    lock = FileLock(run_folder / LOCK_FILE, timeout=0)
    try:
        lock.acquire()
    except Timeout:
        raise InputError(
            f"{run_folder} is being run by {writer_of(run_folder / ENGINE_FILE)}; wait for it, or "
            "stop it first"
        ) from None
    try:
        write_json(run_folder / ENGINE_FILE, this_process())
        yield
    finally:
        (run_folder / ENGINE_FILE).unlink(missing_ok=True)
        lock.release()


def _report_until_end(
    process: subprocess.Popen[bytes],
    run_folder: Path,
    jobs: Sequence[PlannedJob],
    states: States,
    say: Say,
) -> None:
    """Print a line whenever a job ends, and at least every few seconds."""
    started = time.monotonic()
    last_report, last_count = started, -1
    by_name = {job.name: job for job in jobs}
    before = {job.name for job in jobs if (run_folder / job.done).is_file()}
    while True:
        ended = process.poll() is not None
        states.update()
        done = len((before - states.by_job.keys()) | (states.having(DONE) & by_name.keys()))
        now = time.monotonic()
        if done != last_count or now - last_report > REPORT_S or ended:
            begun = [by_name[name] for name in states.having(BEGUN) & by_name.keys()]
            running = [] if ended else running_jobs(run_folder, begun)
            minutes, seconds = divmod(int(now - started), 60)
            clock = f"{minutes:02d}:{seconds:02d}"
            text = "; ".join(running)
            say(f"{clock}  {done}/{len(jobs)} jobs done  {text}")
            last_report, last_count = now, done
        if ended:
            return
        time.sleep(POLL_S)


def _end(process: subprocess.Popen[bytes], *, on_cluster: bool) -> None:
    """Ask the engine to end its jobs and itself; end it if it does not, and its jobs with it.

    Snakemake's handler of a signal takes a lock that the code it interrupts may hold. Then it
    waits for itself, for ever: most often when the signal came to all processes of a group.
    """
    if process.poll() is not None:
        return
    process.send_signal(INTERRUPT if on_cluster else signal.SIGTERM)
    try:
        process.wait(CANCEL_S if on_cluster else STOP_S)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()


def _describe_failure(
    run_folder: Path, failed: Sequence[PlannedJob], begun: Collection[str]
) -> str:
    """Return one line per job that failed by itself, and how many waited for those in vain.

    One that had begun and left no record was ended from outside.
    """
    causes = []
    for job in failed:
        if (run_folder / job.failed).is_file():
            record = read_record(run_folder / job.failed)
            causes.append(f"{job.name}: {record.get('error', 'its record is damaged')}")
        elif job.name in begun:
            causes.append(f"{job.name}: {SILENT_END}")
    waiting = len(failed) - len(causes)
    lines = [f"{len(causes)} jobs failed, {waiting} were not run; the same command tries again"]
    return "\n  ".join([*lines, *causes, f"the whole log: {run_folder / LOG_FILE}"])
