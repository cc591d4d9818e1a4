"""What a process of the study asks of the system: private caches, and to end with its parent."""

import ctypes
import importlib
import os
import resource
import signal
import sys
import threading
from collections.abc import Iterator
from contextlib import chdir
from pathlib import Path, PurePosixPath
from types import ModuleType

LIBRARY = Path(__file__).resolve().parent
# Notebooks, parameters and workflow lie beside the library in a checkout, and in it in a wheel.
IS_CHECKOUT = (LIBRARY.parent / "workflow" / "Snakefile").is_file()
PROJECT = LIBRARY.parent if IS_CHECKOUT else LIBRARY / "project"

PARENT_DIES = 1  # PR_SET_PDEATHSIG
PARENT = "STUDY_PARENT_PROCESS"
INTERRUPTED = 130
THREADS = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS")
OWN_GROUPS = Path("/proc/self/cgroup")
GROUPS = Path("/sys/fs/cgroup")
# Of malloc.h in glibc: the free memory at the end of the heap beyond which some is given back, and
# the size from which a block is mapped by itself, and given back when it is freed.
M_TRIM_THRESHOLD, M_MMAP_THRESHOLD = -1, -3
LARGEST_INT = 2**31 - 1


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
        "NUMBA_CACHE_DIR": "numba",
    }
    for name, folder in folders.items():
        os.environ.setdefault(name, str(cache / folder))


def own_code_only() -> dict[str, str]:
    """Return the variables with which Python runs this library and no code of the working folder.

    The working folder, which may have come from somebody else, is off its path, and a checkout that
    runs without being installed is on it.
    """
    places = [place for place in os.environ.get("PYTHONPATH", "").split(os.pathsep) if place]
    kept = [place for place in places if Path(place).is_absolute()]
    own = [str(PROJECT)] if IS_CHECKOUT else []
    return {"PYTHONSAFEPATH": "1", "PYTHONPATH": os.pathsep.join(dict.fromkeys([*own, *kept]))}


def ignore_settings_here() -> None:
    """Have matplotlib not read a file of settings that lies in the working folder."""
    if Path("matplotlibrc").is_file():
        imported_apart("matplotlib")


def imported_apart(name: str) -> ModuleType:
    """Return a package that reads settings from the working folder when it is imported: not now."""
    with chdir(LIBRARY):
        return importlib.import_module(name)


def private_cache() -> Path:
    """Return the folder of the study's own cache, beside the interpreter unless set otherwise."""
    stated = os.environ.get("XDG_CACHE_HOME")
    return Path(stated) / "study" if stated else Path(sys.prefix) / "var" / "study" / "cache"


def use_threads(count: int) -> None:
    """Let the libraries that are imported from now on use so many threads."""
    for name in THREADS:
        os.environ[name] = str(count)


def keep_freed_memory() -> None:
    """Let this process keep the memory of freed arrays for those that come next (glibc only).

    Otherwise every array of some megabytes is made of new pages, which the system has to fill with
    zeros first: a quarter of the time of pty-chi's LSQML.
    """
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is not None:
        mallopt(M_MMAP_THRESHOLD, LARGEST_INT)
        mallopt(M_TRIM_THRESHOLD, LARGEST_INT)


def memory_bytes() -> int:
    """Return the memory that this process may have: no file may declare more.

    The least of the machine's, of its control groups' (a container, a job of a cluster), and of
    what ``ulimit -v`` allows.
    """
    machine = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    addresses, _ = resource.getrlimit(resource.RLIMIT_AS)  # -1: no limit
    return min(limit for limit in (machine, addresses, *_group_limits()) if limit > 0)


def _group_limits() -> Iterator[int]:
    """Yield the limits of this process's control groups and of those around them (Linux only)."""
    for line in _text_of(OWN_GROUPS).splitlines():
        controllers, _, place = line.partition(":")[2].partition(":")
        if controllers and "memory" not in controllers.split(","):
            continue
        # Version 2 has one tree, version 1 one for each controller.
        root = GROUPS / "memory" if controllers else GROUPS
        name = "memory.limit_in_bytes" if controllers else "memory.max"
        inner = [part for part in PurePosixPath(place).parts if part not in ("/", "..")]
        for depth in range(len(inner) + 1):
            text = _text_of(root.joinpath(*inner[:depth], name)).strip()
            if text.isdecimal():  # not "max"
                yield int(text)


def _text_of(path: Path) -> str:
    try:
        return path.read_text(encoding="ascii")
    except (OSError, ValueError):  # another system, or a group that a container does not see
        return ""


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
