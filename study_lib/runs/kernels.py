"""Kernels: on sockets in a private folder, one notebook after the other."""

import ast
import importlib.util
import os
import sys
import tempfile
from pathlib import Path
from typing import Any

from jupyter_client.connect import KernelConnectionInfo
from jupyter_client.kernelspec import KernelSpec
from jupyter_client.manager import AsyncKernelManager
from jupyter_client.provisioning.local_provisioner import LocalProvisioner
from jupyter_core.utils import run_sync

from study_lib.errors import InputError, StudyError
from study_lib.runs.kernel_forks import (
    KERNEL_MODULE,
    ForkedKernel,
    forked_kernel,
    place_of_sockets,
)
from study_lib.system import own_code_only

KERNEL = "study"
# This interpreter and no other, whatever kernels a hub or a user has installed under any name; -P
# keeps the working folder off its path.
COMMAND = (sys.executable, "-P", "-m", KERNEL_MODULE)
# matplotlib reads a file of settings from the folder in which it is imported: not from a run's.
BEGIN = "import matplotlib; from study_lib.system import keep_freed_memory; keep_freed_memory()"
FRESH = "get_ipython().reset(new_session=True); __import__('os').chdir({folder!r})"
START_S = 120.0
ANSWER_S = 30.0


class ForkingProvisioner(LocalProvisioner):
    """Has a kernel forked by the server of the run; starts one by itself where there is none."""

    async def launch_kernel(self, cmd: list[str], **settings: Any) -> KernelConnectionInfo:
        """Launch a kernel with a command."""
        folder = str(settings["cwd"])
        forked = forked_kernel(cmd[len(COMMAND) :], settings["env"], folder)
        if forked is None:
            return await super().launch_kernel(cmd, **settings)
        self.process = forked  # type: ignore[assignment]  # a Popen as far as it is asked
        self.pid = self.pgid = forked.pid  # it leads a session of its own
        self.cwd = folder
        return self.connection_info

    async def send_signal(self, signum: int) -> None:
        """Send a signal to the kernel and what it has started; its server ends what is left."""
        is_gone = isinstance(self.process, ForkedKernel) and self.process.poll() is not None
        if not is_gone:
            await super().send_signal(signum)


class SocketKernelManager(AsyncKernelManager):
    """Kernel of this interpreter; its channels are sockets in a private folder.

    There are no ports, so no two jobs can clash.
    """

    def __init__(self, **settings: Any) -> None:
        super().__init__(**settings)
        self._sockets = tempfile.TemporaryDirectory(prefix="study-", dir=place_of_sockets())
        self.transport = "ipc"
        self.ip = f"{self._sockets.name}/k"
        self.provisioner = ForkingProvisioner(parent=self, kernel_spec=self.kernel_spec)

    @property
    def kernel_spec(self) -> KernelSpec:
        """How the kernel is started, not looked up on any path."""
        command = [*COMMAND, "-f", "{connection_file}"]
        return KernelSpec(argv=command, display_name=KERNEL, language="python")

    @property
    def private_folder(self) -> str:
        """An own folder, gone with the kernel."""
        return self._sockets.name

    async def cleanup_resources(  # type: ignore[override]  # its own base is typed as not async
        self, restart: bool = False
    ) -> None:
        """Remove the sockets after the kernel."""
        await super().cleanup_resources(restart)
        if not restart:
            self._sockets.cleanup()


class SharedKernel:
    """One kernel for several notebooks in turn, so that what they import is imported once.

    Names, history and counters of a notebook are gone before the next one; what the library's
    modules remember is not. A kernel that died is replaced by a new one.
    """

    def __init__(self) -> None:
        self._manager: SocketKernelManager | None = None

    def __enter__(self) -> "SharedKernel":
        """Start nothing yet: the first notebook does."""
        return self

    def __exit__(self, *_: object) -> None:
        """End the kernel."""
        self._end()

    def manager(self, folder: Path) -> SocketKernelManager:
        """Return the manager of a kernel without any names that works in a folder.

        The kernel begins in a folder of its own, and only then goes to the one given: nothing that
        lies there is read while it starts.

        Raises
        ------
        InputError
            If ipykernel is not installed.
        StudyError
            If the kernel does not start.
        """
        fresh = FRESH.format(folder=str(folder))
        if self._manager is None or _ask(self._manager, fresh) is None:
            self._end()
            self._manager = _started_kernel()
            _ask(self._manager, fresh)
        return self._manager

    def peak_memory_mib(self) -> float:
        """Return the largest resident size that the kernel has had, over all its notebooks."""
        return float(self._value_of("peak_memory_mib()") or 0.0)

    def versions(self) -> dict[str, str]:
        """Return the versions of the packages that the kernel has loaded."""
        return dict(self._value_of("loaded_versions()") or {})

    def _value_of(self, call: str) -> Any:
        """Return what a function of ``records`` returns in the kernel; none without an answer."""
        if self._manager is None:
            return None
        asked = f"__import__('study_lib.phases.records').phases.records.{call}"
        reply = _ask(self._manager, "", {"value": asked})
        answer = (reply or {}).get("user_expressions", {}).get("value", {})
        is_answer = answer.get("status") == "ok"
        return ast.literal_eval(answer["data"]["text/plain"]) if is_answer else None

    def _end(self) -> None:
        if self._manager is not None and self._manager.has_kernel:
            run_sync(self._manager.shutdown_kernel)(now=True)
        self._manager = None


def _started_kernel() -> SocketKernelManager:
    """Return the manager of a kernel that is ready."""
    if importlib.util.find_spec(KERNEL_MODULE) is None:
        raise InputError(
            f"no package {KERNEL_MODULE} in {sys.prefix}; install ipykernel, or let `make study` "
            "install everything"
        )
    manager = SocketKernelManager(kernel_name=KERNEL)
    run_sync(manager.start_kernel)(cwd=manager.private_folder, env=os.environ | own_code_only())
    client = manager.client()
    client.start_channels()
    try:
        run_sync(client.wait_for_ready)(timeout=START_S)
    except RuntimeError as error:
        run_sync(manager.shutdown_kernel)(now=True)
        raise StudyError(
            f"the kernel did not start ({error}); is the machine short of memory?"
        ) from None
    finally:
        client.stop_channels()
    _ask(manager, BEGIN)
    return manager


def _ask(
    manager: SocketKernelManager,
    code: str,
    expressions: dict[str, str] | None = None,
) -> dict[str, Any] | None:
    """Return a kernel's reply to some code; none if it does not live or does not answer."""
    if not (manager.has_kernel and run_sync(manager.is_alive)()):
        return None
    client = manager.client()
    client.start_channels()
    try:
        reply = run_sync(client.execute_interactive)(
            code, silent=True, user_expressions=expressions or {}, timeout=ANSWER_S
        )
    except (TimeoutError, RuntimeError):  # ended, or busy: both count as no answer
        return None
    finally:
        client.stop_channels()
    content: dict[str, Any] = reply["content"]
    return content if content["status"] == "ok" else None
