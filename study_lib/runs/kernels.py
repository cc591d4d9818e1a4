"""Kernels that execute notebooks: on sockets in a private folder, one notebook after the other."""

import os
import tempfile
from pathlib import Path
from typing import Any

from jupyter_client.manager import AsyncKernelManager
from jupyter_core.utils import run_sync

SOCKET_PATH_MAX = 60  # of the folder for temporary files; a socket's whole path may have 107 bytes
SHORT_FOLDER = Path("/tmp")  # noqa: S108  # a private folder is made in it
KERNEL = "python3"
FRESH = "get_ipython().reset(new_session=True)"
ANSWER_S = 30.0


class SocketKernelManager(AsyncKernelManager):
    """Kernel whose channels are sockets in a private folder: no ports, so no two jobs can clash."""

    def __init__(self, **settings: Any) -> None:
        super().__init__(**settings)
        self._sockets = tempfile.TemporaryDirectory(prefix="study-", dir=_place_of_sockets())
        self.transport = "ipc"
        self.ip = f"{self._sockets.name}/k"

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

    def manager(self) -> SocketKernelManager:
        """Return the manager of a kernel without any names, started or to be started."""
        if self._manager is not None and _ask(self._manager, FRESH) is None:
            self._end()
        if self._manager is None:
            self._manager = SocketKernelManager(kernel_name=KERNEL)
        return self._manager

    def peak_memory_mib(self) -> float:
        """Return the largest resident size that the kernel has had, over all its notebooks."""
        if self._manager is None:
            return 0.0
        asked = "__import__('study_lib.phases.records').phases.records.peak_memory_mib()"
        reply = _ask(self._manager, "", {"peak": asked})
        answer = (reply or {}).get("user_expressions", {}).get("peak", {})
        return float(answer["data"]["text/plain"]) if answer.get("status") == "ok" else 0.0

    def _end(self) -> None:
        if self._manager is not None and self._manager.has_kernel:
            run_sync(self._manager.shutdown_kernel)(now=True)
        self._manager = None


def _place_of_sockets() -> Path:
    """Return the folder for temporary files, or another where its path leaves sockets no room."""
    usual = Path(tempfile.gettempdir())
    return usual if len(os.fsencode(usual)) <= SOCKET_PATH_MAX else SHORT_FOLDER


def _ask(
    manager: SocketKernelManager, code: str, expressions: dict[str, str] | None = None
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
    except (TimeoutError, RuntimeError):  # dead or deaf: told as no answer
        return None
    finally:
        client.stop_channels()
    content: dict[str, Any] = reply["content"]
    return content if content["status"] == "ok" else None
