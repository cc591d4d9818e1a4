"""What a long job says while it runs: a log file, its printed output, a bar or a line per step."""

import os
import sys
import traceback
from collections.abc import Iterator
from contextlib import contextmanager, redirect_stderr, redirect_stdout
from pathlib import Path
from typing import Any, TextIO, cast

from tqdm import tqdm

from study_lib.phases.records import utc_now


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
        self.path.parent.mkdir(parents=True, exist_ok=True)
        with self.path.open("a", encoding="ascii", errors="backslashreplace") as file:
            for part in text.splitlines():
                file.write(f"{utc_now()} {part}\n")

    def note(self, text: str) -> None:
        """Add a line on what is not as it should be, and show it."""
        self.line(text)
        tqdm.write(f"{self.title}: {text}", file=sys.stderr)

    def step(self, text: str, done: int, total: int, unit: str) -> None:
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


@contextmanager
def logged(path: Path, title: str) -> Iterator[JobLog]:
    """Give a block a log; an exception leaves its traceback there and goes on."""
    log = JobLog(path, title)
    try:
        yield log
    except BaseException:
        log.line(traceback.format_exc())
        raise
    finally:
        log.close()


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
    folder.mkdir(parents=True, exist_ok=True)
    with (
        (folder / "stdout.log").open("a", encoding="utf-8") as out,
        (folder / "stderr.log").open("a", encoding="utf-8") as err,
        redirect_stdout(cast(TextIO, _Doubled(sys.stdout, out))),
        redirect_stderr(cast(TextIO, _Doubled(sys.stderr, err))),
    ):
        for file in (out, err):
            if file.tell():
                file.write(f"\n--- another try, {utc_now()}\n")
        yield
