"""What a process of the study asks of the system: private caches, and to end with its parent."""

import ctypes
import os
import signal
import sys
import threading
from pathlib import Path

PARENT_DIES = 1  # PR_SET_PDEATHSIG
PARENT = "STUDY_PARENT_PROCESS"
INTERRUPTED = 130
THREADS = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS")


def use_private_folders() -> None:
    """Keep caches and settings of the tools beside the interpreter, not in the user's home."""
    cache = Path(sys.prefix) / "var" / "study"
    folders = {
        "XDG_CACHE_HOME": "cache",
        "XDG_CONFIG_HOME": "config",
        "MPLCONFIGDIR": "matplotlib",
        "IPYTHONDIR": "ipython",
        "JUPYTER_RUNTIME_DIR": "jupyter",
        "JUPYTER_CONFIG_DIR": "jupyter_config",
    }
    for name, folder in folders.items():
        os.environ.setdefault(name, str(cache / folder))


def use_threads(count: int) -> None:
    """Let the libraries that are imported from now on use so many threads."""
    for name in THREADS:
        os.environ[name] = str(count)


def memory_bytes() -> int:
    """Return the memory of this machine: no file may declare more."""
    return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")


def end_with_parent(how: signal.Signals) -> None:
    """Ask the system to send this process a signal when its parent ends (Linux only).

    A parent that says in its environment who it is may have ended before: then this process does.
    """
    if sys.platform == "linux":
        ctypes.CDLL(None, use_errno=True).prctl(PARENT_DIES, how)
        parent = os.environ.pop(PARENT, None)
        if parent and parent != str(os.getppid()):
            sys.exit(INTERRUPTED)


def end_on_terminate(grace_s: float | None = None) -> None:
    """Take a request to terminate like Ctrl-C, so that children are ended and locks freed.

    With a grace, whatever still runs after that many seconds ends at once.
    """

    def interrupt(*_: object) -> None:
        if grace_s is not None:
            timer = threading.Timer(grace_s, os._exit, (INTERRUPTED,))
            timer.daemon = True
            timer.start()
        raise KeyboardInterrupt

    signal.signal(signal.SIGTERM, interrupt)
