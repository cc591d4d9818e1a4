"""Kernels forked from one process that has loaded what all of them load.

A kernel that starts by itself spends seconds on loading torch, scipy and matplotlib, longer than
most jobs of a small design compute. So ``study run`` starts one process that loads them once
(:func:`kernels_forked`), and a job on this machine has it fork its kernel (:func:`forked_kernel`).
A kernel loads this library anew, as it may have been changed since the run began. Where no such
process answers, a kernel starts by itself.
"""

import gc
import json
import os
import runpy
import signal
import struct
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from importlib import import_module
from multiprocessing.connection import Connection, wait
from pathlib import Path
from socket import AF_UNIX, SO_RCVTIMEO, SOL_SOCKET, socket
from types import ModuleType
from typing import Any, TextIO, cast

from study_lib.system import PARENT, THREADS, end_with_parent

KERNEL_MODULE = "ipykernel_launcher"
SERVER = "STUDY_KERNEL_SERVER"  # the variable that holds the path of its socket
SOCKET_PATH_MAX = 60  # of the folder for temporary files; a socket's whole path may have 107 bytes
BEGUN, ENDED = b"begun", b"ended"  # before the number of a process, and its exit code
SHORT_FOLDER = Path("/tmp")  # noqa: S108  # a private folder is made in it
# Slow imports that jobs share. Not pty-chi: it changes global settings when it is imported.
LOADED = (
    "hdf5plugin",
    "jaxtyping",
    "numba",
    "pandas",
    "pydantic",
    "scipy.ndimage",
    "scipy.optimize",
    "scipy.spatial",
    "scipy.special",
    "scipy.stats",
    "skimage",
    "sklearn.cluster",
    "torch",
    "matplotlib.figure",
    "matplotlib.pyplot",
    "ipykernel.kernelapp",
    "ipykernel.ipkernel",
)
# pandas loads pyarrow, whose allocator would start a thread: a fork has one thread only.
NO_THREAD = {"JE_ARROW_MALLOC_CONF": "background_thread:false"}
FIGURES = "module://matplotlib_inline.backend_inline"  # what ipykernel sets before matplotlib loads
REQUESTS_MAX = 128  # that wait while the server still loads
REQUEST_BYTES_MAX = 2**22
REQUEST_S = 10  # for a caller to send it
ANSWER_S = 120.0
POLL_S = 0.1


def place_of_sockets() -> Path:
    """Return the folder for temporary files, or another where its path leaves sockets no room."""
    usual = Path(tempfile.gettempdir())
    return usual if len(os.fsencode(usual)) <= SOCKET_PATH_MAX else SHORT_FOLDER


# --- In the process of the run


@contextmanager
def kernels_forked(environment: Mapping[str, str], log: TextIO) -> Iterator[dict[str, str]]:
    """Have kernels forked while the block runs; yields the variable that says where.

    ``environment`` is that of the engine: libraries have one thread, and the parent is named.
    ``log`` takes what kernels say outside of their notebooks. Only Linux ends a process together
    with its parent: elsewhere nothing is started.
    """
    if sys.platform != "linux":
        yield {}
        return
    with tempfile.TemporaryDirectory(prefix="study-", dir=place_of_sockets()) as folder:
        path = str(Path(folder, "forks"))
        with socket(AF_UNIX) as listener:
            listener.bind(path)
            listener.listen(REQUESTS_MAX)
            server = subprocess.Popen(
                [sys.executable, "-P", "-m", __name__, str(listener.fileno())],
                pass_fds=[listener.fileno()],
                cwd=folder,
                env={**environment, **NO_THREAD},
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,  # Ctrl-C is for the run, which then ends the server
            )
        try:
            yield {SERVER: path}
        finally:
            server.kill()
            server.wait()


# --- In the process of a job


class ForkedKernel:
    """A kernel that another process has forked: what jupyter_client asks of a ``Popen``.

    If this object's process ends, however it ends, the server ends the kernel.
    """

    stdin = stdout = stderr = None

    def __init__(self, connection: Connection, process_id: int) -> None:
        self._connection = connection
        self.pid = process_id
        self.returncode: int | None = None

    def poll(self) -> int | None:
        """Return the exit code, negative for a signal; None while the kernel runs."""
        if self.returncode is None and self._connection.poll():
            try:
                _, code = self._connection.recv_bytes().split()
                self.returncode = int(code)
            except (EOFError, OSError):  # the server has ended, and its kernels with it
                self.returncode = -signal.SIGKILL
        return self.returncode

    def wait(self, timeout: float | None = None) -> int:
        """Return the exit code, when there is one."""
        end = None if timeout is None else time.monotonic() + timeout
        while (code := self.poll()) is None:
            if end is not None and time.monotonic() > end:
                raise subprocess.TimeoutExpired(KERNEL_MODULE, timeout or 0.0)
            time.sleep(POLL_S)
        return code

    def send_signal(self, number: int) -> None:
        """Send a signal to the kernel, if it runs."""
        if self.poll() is None:
            os.kill(self.pid, number)

    def terminate(self) -> None:
        """Ask the kernel to end."""
        self.send_signal(signal.SIGTERM)

    def kill(self) -> None:
        """End the kernel."""
        self.send_signal(signal.SIGKILL)


def forked_kernel(
    arguments: Sequence[str], environment: Mapping[str, str], folder: str
) -> ForkedKernel | None:
    """Return a kernel forked by the server of this run; None without one that answers.

    A job of more than one thread gets none: the server's libraries have been loaded for one.
    """
    path = os.environ.get(SERVER)
    if path is None or any(os.environ.get(name) != "1" for name in THREADS):
        return None
    request = {"arguments": list(arguments), "environment": dict(environment), "folder": folder}
    try:
        with socket(AF_UNIX) as caller:
            caller.connect(path)
            connection = Connection(caller.detach())
        connection.send_bytes(json.dumps(request).encode())
        if connection.poll(ANSWER_S):
            what, number = connection.recv_bytes().split()
            if what == BEGUN:
                return ForkedKernel(connection, int(number))
    except (OSError, EOFError):  # it has ended, or would have had more than one thread
        pass
    return None


# --- In the server, and in its forks


@dataclass(frozen=True)
class _Loaded:
    """What loading has left: variables that libraries have set, and a module to hold on to."""

    variables: dict[str, str]
    kept: ModuleType


def _load() -> _Loaded:
    """Load what kernels load, as a kernel would."""
    os.environ["MPLBACKEND"] = os.environ.get("MPLBACKEND") or FIGURES
    os.environ["JPY_PARENT_PID"] = str(os.getpid())  # ipykernel reads it when it is loaded
    before = dict(os.environ)
    for name in LOADED:
        with suppress(ImportError):  # a kernel that needs it will say so
            import_module(name)
    ptychi = import_module("study_lib.solvers.ptychi")  # holds on to the operators' schemas
    with suppress(ImportError, RuntimeError, OSError):  # a job that needs pty-chi says why
        ptychi.import_torchvision()
    threads = len(list(Path("/proc/self/task").iterdir()))
    if threads > 1:
        sys.exit(f"kernels are not forked, each starts by itself: {threads} threads are running")
    gc.collect()
    gc.freeze()  # what is shared stays shared: no collection writes to it
    set_by_them = {name: one for name, one in os.environ.items() if before.get(name) != one}
    return _Loaded(set_by_them, ptychi)


class _Server:
    """Forks a kernel for each request, ends it with its job, and reports its exit code."""

    def __init__(self, listener: socket) -> None:
        self._listener = listener
        self._callers: set[Connection] = set()
        self._jobs: dict[int, Connection] = {}  # by the number of the kernel's process
        self._ended, self._wake = os.pipe()  # a byte for each kernel that ends
        for end in (self._ended, self._wake):
            os.set_blocking(end, False)
        signal.signal(signal.SIGCHLD, lambda *_: None)
        signal.set_wakeup_fd(self._wake)

    def request(self) -> dict[str, Any]:
        """Return a request, in the process that was forked for it; the server never returns."""
        while True:
            for ready in wait([self._listener, self._ended, *self._callers, *self._jobs.values()]):
                if ready is self._listener:
                    self._accept()
                elif ready == self._ended:
                    self._report_ends()
                elif ready in self._callers:
                    request = self._answered(ready)
                    if request is not None:
                        return request
                else:
                    self._end_kernel_of(cast(Connection, ready))

    def _accept(self) -> None:
        """Take a caller, who has some seconds to say what is asked for."""
        with suppress(OSError):  # the job has ended meanwhile
            caller, _ = self._listener.accept()
            caller.setsockopt(SOL_SOCKET, SO_RCVTIMEO, struct.pack("ll", REQUEST_S, 0))
            self._callers.add(Connection(caller.detach()))

    def _answered(self, caller: Connection) -> dict[str, Any] | None:
        """Fork for what a caller asks; returns it in the process of the kernel alone."""
        self._callers.remove(caller)
        try:
            request = json.loads(caller.recv_bytes(REQUEST_BYTES_MAX))
            server, number = os.getpid(), os.fork()
        except (EOFError, OSError, ValueError, MemoryError):
            caller.close()  # which says no, to a job that still lives
            return None
        if number:
            self._jobs[number] = caller
            return None
        try:
            self._begin_alone(server, caller)
        except BaseException:  # as that the job has ended: no second server goes on
            os._exit(1)
        return dict(request)

    def _begin_alone(self, server: int, job: Connection) -> None:
        """Leave what is the server's: its session, signals and connections."""
        signal.set_wakeup_fd(-1)
        signal.signal(signal.SIGCHLD, signal.SIG_DFL)
        os.setsid()
        os.environ[PARENT] = str(server)
        end_with_parent(signal.SIGKILL)
        job.send_bytes(b"%s %d" % (BEGUN, os.getpid()))
        for connection in (job, *self._callers, *self._jobs.values()):
            connection.close()
        self._listener.close()
        os.close(self._ended)
        os.close(self._wake)

    def _end_kernel_of(self, job: Connection) -> None:
        """End the kernel of a job that has ended: a job says nothing after its request."""
        for number in [number for number, one in self._jobs.items() if one is job]:
            del self._jobs[number]
            job.close()
            with suppress(ProcessLookupError):  # it has ended by itself
                os.killpg(number, signal.SIGKILL)

    def _report_ends(self) -> None:
        """Say to the jobs of kernels that have ended with which code; end what these had started.

        A kernel's number is free for another process only after that.
        """
        with suppress(BlockingIOError):  # read already, for another kernel
            os.read(self._ended, 4096)
        with suppress(ChildProcessError):  # none is left
            while ended := os.waitid(os.P_ALL, 0, os.WEXITED | os.WNOHANG | os.WNOWAIT):
                number = ended.si_pid
                with suppress(ProcessLookupError, PermissionError):  # nothing else is left of it
                    os.killpg(number, signal.SIGKILL)
                _, status = os.waitpid(number, 0)
                job = self._jobs.pop(number, None)
                if job is not None:
                    with suppress(OSError):  # the job has ended, too
                        job.send_bytes(b"%s %d" % (ENDED, os.waitstatus_to_exitcode(status)))
                    job.close()


def _become(request: dict[str, Any], set_by_libraries: dict[str, str]) -> None:
    """Run the kernel that was asked for, in this process."""
    sys.modules["numpy"].random.seed()
    for name in [name for name in sys.modules if name.partition(".")[0] == "study_lib"]:
        del sys.modules[name]
    os.environ.clear()
    os.environ.update({**set_by_libraries, **request["environment"]})
    tempfile.tempdir = None  # looked up again
    os.chdir(request["folder"])
    sys.argv = [KERNEL_MODULE, *request["arguments"]]
    runpy.run_module(KERNEL_MODULE, run_name="__main__", alter_sys=True)


if __name__ == "__main__":
    end_with_parent(signal.SIGKILL)
    loaded = _load()
    _become(_Server(socket(fileno=int(sys.argv[1]))).request(), loaded.variables)
