"""What happened in a piece of work: parameters, seeds, hashes, versions, time, memory, progress."""

import json
import os
import platform
import resource
import subprocess
import sys
import time
import traceback
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import closing, contextmanager, redirect_stderr, redirect_stdout
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from functools import cache
from importlib import metadata
from pathlib import Path
from typing import Any, Literal, TextIO, cast

from tqdm import tqdm

from study_lib.data.datasets import load_measurement, pattern_count
from study_lib.errors import InputError
from study_lib.files import (
    manifest_jobs,
    merge_record,
    open_to_append,
    read_json,
    require_writable,
    sha256_of,
)
from study_lib.phases.conditions import PHASES, Condition, found_within
from study_lib.physics.measurement import patterns_digest
from study_lib.system import IS_CHECKOUT, PROJECT

PACKAGES = ("numpy", "scipy", "torch", "ptychi", "scikit-image", "papermill", "snakemake")
MODULES = {"scikit-image": "skimage"}  # where a package is imported by another name
EVENT_INTERVAL_S = 1.0


@dataclass
class Work:
    """One piece of work, which leaves a record in its phase's manifest.

    ``key`` is its name in the manifest. ``folder`` receives ``events.jsonl``; paths in the record
    are relative to the manifest. ``inputs`` are hashed when the work begins. ``log``, and so
    ``step``, are there only within :func:`performed`; under :func:`recorded` use ``progress``.
    """

    manifest: Path
    key: str
    folder: Path
    parameters: dict[str, Any]
    seeds: Mapping[str, int] = field(default_factory=dict)
    inputs: Sequence[Path] = ()
    outputs: list[Path] = field(default_factory=list)
    results: dict[str, Any] = field(default_factory=dict)
    _input_hashes: dict[Path, str] = field(default_factory=dict)
    log: "JobLog" = field(init=False)
    _devices: list[str] = field(default_factory=list)
    _threads: int | None = None
    _last_event_s: float = 0.0

    def add_inputs(self, paths: Iterable[Path]) -> None:
        """Name files that the work reads beside ``inputs``, with the hashes that they have now."""
        new = (path for path in paths if path not in self._input_hashes)
        self._input_hashes |= {path: sha256_of(path) for path in new if path.is_file()}

    def sha256_of_input(self, path: Path) -> str:
        """Return the hash that an input had when it was named.

        Raises
        ------
        InputError
            If there was no such file.
        ValueError
            If the file is there and was not named.
        """
        if path not in self._input_hashes:
            if path.is_file():
                raise ValueError(f"{path} is not among the inputs of this work; name it in inputs")
            raise InputError(f"{path}: no such file; run the phase that writes it first")
        return self._input_hashes[path]

    def report_device(self, device: str, threads: int | None = None) -> None:
        """Record a device of the computation, and its threads if they are not the process's."""
        if device not in self._devices:
            self._devices.append(device)
        self._threads = threads or self._threads

    @property
    def machine(self) -> dict[str, str | None]:
        """Devices and threads that were recorded; no device where there is none to choose."""
        threads = {} if self._threads is None else {"threads": str(self._threads)}
        return {"device": ", ".join(self._devices) or None, **threads}

    def progress(self, phase: str, step: int, total: int, **values: float) -> None:
        """Append one line to ``events.jsonl``, at most one a second except for the last step."""
        now = time.monotonic()
        if step < total and now - self._last_event_s < EVENT_INTERVAL_S:
            return
        self._last_event_s = now
        log_event(self.folder, phase, step, total, **values)

    def step(
        self,
        what: str,
        done: int,
        total: int,
        text: str,
        unit: str,
        lines: int = 0,
        *,
        log_all: bool = True,
        **values: float,
    ) -> None:
        """Record a step, add a line to the log and show it.

        Where nobody watches, about ``lines`` of all steps are shown, each if that is zero; the log
        has the others too, unless ``log_all`` is false.
        """
        self.progress(what, done, total, **values)
        if not lines or somebody_watches() or done % max(1, total // lines) == 0:
            self.log.show_step(text, done, total, unit)
        elif log_all:
            self.log.line(text)


def work_of(
    condition: Condition,
    phase: str,
    *,
    arm: str = "",
    parameters: Mapping[str, Any],
    seeds: Mapping[str, int] | None = None,
    inputs: Sequence[Path],
) -> Work:
    """Return the work of a phase on a condition, or on one of its arms, not begun.

    Dose and design are parameters of every work.

    Raises
    ------
    InputError
        If the root folder of the phase is not known.
    """
    folder = condition.folder(phase) / arm
    return Work(
        manifest=condition.manifest(phase),
        key=folder.relative_to(condition.root(phase)).as_posix(),
        folder=folder,
        parameters={"dose": condition.dose, "design": condition.design.digest, **parameters},
        seeds=seeds or {},
        inputs=inputs,
    )


@contextmanager
def performed(work: Work, log: str, title: str) -> Iterator[Work]:
    """As :func:`recorded`, with a log of what the block says and a copy of what it prints.

    An exception leaves its traceback in the log and goes on.
    """
    work.log = JobLog(work.folder / log, title)
    with recorded(work), printed_output_kept(work.folder), closing(work.log):
        try:
            work.log.line(title)
            work.log.line(f"configuration {json.dumps(work.parameters, sort_keys=True)}")
            yield work
            work.outputs += [work.folder / name for name in (log, "stdout.log", "stderr.log")]
            work.log.line(f"done: {json.dumps(work.results, sort_keys=True)}")
        except BaseException:
            work.log.line(traceback.format_exc())
            raise


def log_event(folder: Path, phase: str, step: int, total: int, **values: float) -> None:
    """Append one line to the ``events.jsonl`` of a job's folder, which is made if need be."""
    event = {"time": utc_now(), "phase": phase, "step": step, "total": total, **values}
    with open_to_append(folder / "events.jsonl") as file:
        file.write(json.dumps(event, ensure_ascii=True) + "\n")


@contextmanager
def recorded(work: Work) -> Iterator[Work]:
    """Run a block and write its record, whether it ends well or not.

    A folder that cannot be written is met before the block. The inputs are hashed first: who
    changes a file meanwhile must not have it vouched for.
    """
    require_writable(work.folder)
    started, wall_s, cpu_s = utc_now(), time.perf_counter(), time.process_time()
    status: Literal["done", "failed"] = "failed"
    error: str | None = None
    try:
        work.add_inputs(work.inputs)
        yield work
        status = "done"
    except BaseException as fault:
        error = "".join(traceback.format_exception_only(fault)).strip()
        raise
    finally:
        origin = provenance()
        root = work.manifest.parent
        written = [path for path in work.outputs if path.is_file()] if status == "done" else []
        outputs = {path: sha256_of(path) for path in written}
        record = {
            "status": status,
            "error": error,
            "parameters": work.parameters,
            "seeds": dict(work.seeds),
            "inputs": _relative_to(root, work._input_hashes),
            "outputs": _relative_to(root, outputs),
            "results": work.results,
            "started": started,
            "wall_s": round(time.perf_counter() - wall_s, 3),
            "cpu_s": round(time.process_time() - cpu_s, 3),
            "peak_memory_mib": round(peak_memory_mib(), 1),
            **origin,
            "machine": origin["machine"] | work.machine,
        }
        merge_record(work.manifest, work.key, record)


def manifests_of(run_folder: Path) -> list[Path]:
    """Return the manifest of every phase of a run and of the runs inside it."""
    return found_within(run_folder, "phase_*/*_manifest.json")


def mixed_codes(run_folder: Path) -> list[str]:
    """Return a line for each notebook whose jobs were computed by more than one code.

    Code is the sources of the library that a job reaches, and the versions that its kernel had
    loaded of the packages that decide numbers: what `study resume` repeats a job for.
    """
    found: dict[str, Counter[str]] = {}
    planned = _planned(run_folder)
    for path in sorted(run_folder.glob("jobs/*/done.json")):
        if planned is not None and path.parent.name not in planned:
            continue  # of a plan of before, which named its jobs otherwise
        record = read_json(path)
        code = record.get("code") if isinstance(record, dict) else None
        if not isinstance(code, dict) or not isinstance(code.get("packages"), dict):
            continue  # not a record: a fault of its own
        versions = code["packages"] | {
            name: version
            for name, version in record.get("versions", {}).items()
            if name in code["packages"]
        }
        packages = ", ".join(f"{name} {version}" for name, version in sorted(versions.items()))
        label = f"sources {code.get('sources')} with {packages}"
        found.setdefault(path.parent.name.partition("__")[0], Counter())[label] += 1
    return [
        f"{notebook}: its jobs were computed by {len(codes)} codes: "
        + "; ".join(f"{count} by {label}" for label, count in codes.most_common())
        for notebook, codes in found.items()
        if len(codes) > 1
    ]


def _planned(run_folder: Path) -> set[str] | None:
    """Return the names of the jobs of a run's plan; None if it has none."""
    path = run_folder / "plan.json"
    if not path.is_file():
        return None
    content = read_json(path)
    jobs = content.get("jobs") if isinstance(content, dict) else None
    return {job["name"] for job in jobs} if jobs else None


def inventory(run_folder: Path) -> list[dict[str, Any]]:
    """Return path, size, hash and origin of every file that the phases before H have recorded.

    Paths are relative to the run's folder and sorted. A file that two jobs wrote has the row of
    the later one; one that is gone has no size.
    """
    rows: dict[str, dict[str, Any]] = {}
    manifests = (path for path in manifests_of(run_folder) if path.parent.name != PHASES["summary"])
    for manifest in manifests:
        jobs = manifest_jobs(manifest)
        for key, record in sorted(jobs.items(), key=lambda item: item[1].get("started", "")):
            for name, sha256 in record.get("outputs", {}).items():
                path = Path(os.path.normpath(manifest.parent / name))
                place = Path(os.path.relpath(path, run_folder)).as_posix()
                rows[place] = {
                    "path": place,
                    "bytes": path.stat().st_size if path.is_file() else None,
                    "sha256": sha256,
                    "phase": manifest.parent.name,
                    "job": key,
                }
    return [rows[place] for place in sorted(rows)]


def utc_now() -> str:
    """Return the time as ISO 8601 in UTC."""
    return datetime.now(UTC).isoformat(timespec="seconds")


def peak_memory_mib() -> float:
    """Return the largest resident size this process has had."""
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak / 2**20 if platform.system() == "Darwin" else peak / 2**10


@cache
def _git(*arguments: str) -> str | None:
    if not IS_CHECKOUT:  # an installed copy may lie in somebody else's repository
        return None
    try:
        result = subprocess.run(
            ["git", "-C", str(PROJECT), *arguments],
            capture_output=True,
            text=True,
            check=True,
        )
    except (OSError, subprocess.CalledProcessError):  # no git, or no checkout: recorded as none
        return None
    return result.stdout.strip()


@cache
def _versions() -> dict[str, str]:
    versions = {"python": platform.python_version()}
    for name in PACKAGES:
        try:
            versions[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            versions[name] = "not installed"
    return versions


def loaded_versions() -> dict[str, str]:
    """Return the versions of Python and of the packages that this process has loaded."""
    modules = {name: sys.modules.get(MODULES.get(name, name)) for name in PACKAGES}
    loaded = {name: module for name, module in modules.items() if module is not None}
    return {
        "python": platform.python_version(),
        **{
            name: str(getattr(module, "__version__", _versions()[name]))
            for name, module in loaded.items()
        },
    }


def provenance() -> dict[str, Any]:
    """Return versions, commit, machine and threads of this process."""
    status = _git("status", "--porcelain")
    return {
        "versions": _versions(),
        "git": {
            "commit": _git("rev-parse", "HEAD"),
            "dirty": None if status is None else bool(status),
        },
        "machine": {
            "system": platform.platform(),
            "processor": platform.machine(),
            "cores": os.cpu_count(),
            "threads": _threads(),
        },
    }


def _threads() -> str:
    """Return how many threads torch has if it is loaded, otherwise how many it would have."""
    torch = sys.modules.get("torch")  # importing it takes seconds
    if torch is not None:
        return str(torch.get_num_threads())
    return os.environ.get("OMP_NUM_THREADS", str(os.cpu_count()))


def _relative_to(root: Path, hashes: Mapping[Path, str]) -> dict[str, str]:
    return {Path(os.path.relpath(path, root)).as_posix(): hashes[path] for path in sorted(hashes)}


# --- What a long job says while it runs: a log file, printed output, a line per step


class JobLog:
    """A log of ASCII lines, each with its time, and a display of the steps that are done.

    Parameters
    ----------
    path
        The log; lines are added to those of an interrupted run.
    title
        What the display calls the job.
    """

    def __init__(self, path: Path, title: str) -> None:
        self.path, self.title = path, title
        self._bar: Any = None

    def line(self, text: str) -> None:
        """Add one line, or several, each with the time."""
        with open_to_append(self.path) as file:
            for part in text.encode("ascii", "backslashreplace").decode().splitlines():
                file.write(f"{utc_now()} {part}\n")

    def warn(self, text: str) -> None:
        """Add a line on something unexpected, and show it."""
        self.line(text)
        tqdm.write(f"{self.title}: {text}", file=sys.stderr)

    def show_step(self, text: str, done: int, total: int, unit: str) -> None:
        """Add a line and show it: as a bar where somebody watches, otherwise as a line."""
        self.line(text)
        if not somebody_watches():
            sys.stdout.write(f"{text}\n")
            sys.stdout.flush()
            return
        if self._bar is None:
            self._bar = tqdm(total=total, initial=done - 1, desc=self.title, unit=unit)
        self._bar.total = total
        self._bar.update(done - self._bar.n)

    def close(self) -> None:
        """Leave the display as it is."""
        if self._bar is not None:
            self._bar.close()


def somebody_watches() -> bool:
    """Return whether a bar would be seen: in a terminal, or in a notebook opened in JupyterLab."""
    if "ipykernel" in sys.modules:
        return "JPY_SESSION_NAME" in os.environ  # set by the server for kernels of open notebooks
    return sys.stderr.isatty()


class _Doubled:
    """A text stream whose text also goes to a file."""

    def __init__(self, stream: Any, copy: Any) -> None:
        self._stream, self._copy = stream, copy

    def write(self, text: str) -> int:
        """Write to both."""
        self._copy.write(text)
        written: int = self._stream.write(text)
        return written

    def flush(self) -> None:
        """Flush both."""
        self._copy.flush()
        self._stream.flush()

    def __getattr__(self, name: str) -> object:
        return getattr(self._stream, name)


@contextmanager
def printed_output_kept(folder: Path) -> Iterator[None]:
    """Copy what a block prints to ``stdout.log`` and ``stderr.log`` in a folder.

    What an interrupted run printed stays there, and a line says where the new try begins.
    """
    with (
        open_to_append(folder / "stdout.log") as out,
        open_to_append(folder / "stderr.log") as err,
        redirect_stdout(cast(TextIO, _Doubled(sys.stdout, out))),
        redirect_stderr(cast(TextIO, _Doubled(sys.stderr, err))),
    ):
        for file in (out, err):
            if file.tell():
                file.write(f"\n--- another try, {utc_now()}\n")
        yield


# --- Views that hold the same patterns: what was computed of the first is taken for the others
#
# Where a scan has no more overlap to give, a view that asks for more keeps every pattern, as the
# one that leaves none out does. What does not depend on how patterns are grouped is the same.

OF_A_VIEW = ("view",)  # parameters in which records of two views differ
OF_AN_ORIGIN = ("versions", "git")


@dataclass(frozen=True)
class Computed:
    """What another view of the same dose and split has: its folder, its record, its name."""

    folder: Path
    results: dict[str, Any]
    view: str


def computed_before(
    condition: Condition,
    phase: str,
    parameters: dict[str, Any],
    *,
    arm: str = "",
    splits: Sequence[str] = (),
) -> Computed | None:
    """Return what an earlier view of the same patterns has, if it is done and as it was recorded.

    By the same code, packages and parameters. Only of measured counts, whose plan lets the views
    wait for the one that leaves no pattern out.

    Parameters
    ----------
    condition
        Whose result is asked for.
    phase
        A key of ``PHASES``.
    parameters
        Of its work; the view in them does not count.
    arm
        The arm's folder, of a phase that has one for each.
    splits
        Whose patterns decide; default: the condition's own.
    """
    if not condition.design.is_measured:
        return None
    for view in condition.design.views_at(condition.dose):
        if view == condition.view:
            return None
        other = replace(condition, view=view)
        parts = splits or (condition.split,)
        if all(_hold_the_same(condition.of(one), other.of(one)) for one in parts):
            return _of(other, phase, parameters, arm)
    return None


def _hold_the_same(condition: Condition, other: Condition) -> bool:
    if not (condition.file.is_file() and other.file.is_file()):
        return False
    if pattern_count(condition.file) != pattern_count(other.file):
        return False
    one, two = (patterns_digest(load_measurement(each.file)) for each in (condition, other))
    return one == two


def _of(other: Condition, phase: str, parameters: dict[str, Any], arm: str) -> Computed | None:
    """Return the record of a view's work if it holds here too."""
    folder, manifest = other.folder(phase) / arm, other.manifest(phase)
    key = folder.relative_to(other.root(phase)).as_posix()
    record = manifest_jobs(manifest).get(key, {}) if manifest.is_file() else {}
    if record.get("status") != "done" or not record.get("outputs"):
        return None
    asked, had = (_without_view(each) for each in (parameters, record["parameters"]))
    now = provenance()
    if asked != had or any(record.get(name) != now[name] for name in OF_AN_ORIGIN):
        return None
    for name, sha256 in record["outputs"].items():
        path = manifest.parent / name
        if path.suffix != ".log" and not (path.is_file() and sha256_of(path) == sha256):
            return None
    return Computed(folder, record["results"], other.view.name)


def _without_view(parameters: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in parameters.items() if name not in OF_A_VIEW}
