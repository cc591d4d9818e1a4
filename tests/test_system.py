"""What a process asks of the system: its end with its parent, its files when it is installed."""

import os
import platform
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

from study_lib import system as processes
from study_lib.system import INTERRUPTED, PARENT, THREADS, memory_bytes

ASK = """
import signal
from study_lib.system import end_with_parent
end_with_parent(signal.SIGTERM)
print("goes on")
"""
COUNT = """
from study_lib.system import use_threads
use_threads(1)
import torch
print(torch.get_num_threads())
"""

FAULTS = """
import resource
import numpy as np
from study_lib.system import keep_freed_memory
keep_freed_memory()
def faults_of_an_array():
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    np.ones(3_000_000)
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before
print(faults_of_an_array(), faults_of_an_array())
"""


def python(code, **environment):
    return subprocess.run(
        [sys.executable, "-c", code],
        env={**os.environ, **environment},
        capture_output=True,
        text=True,
        check=False,
    )


@pytest.mark.skipif(sys.platform != "linux", reason="asks Linux to end children with their parent")
def test_an_orphan_ends_at_once():
    orphan = python(ASK, **{PARENT: str(os.getppid())})
    child = python(ASK, **{PARENT: str(os.getpid())})

    assert (orphan.returncode, orphan.stdout) == (INTERRUPTED, "")
    assert (child.returncode, child.stdout) == (0, "goes on\n")


@pytest.mark.slow
def test_threads_of_a_job_hold_whatever_its_environment_says():
    """On a cluster a job may start with an empty environment, or with one of a whole node."""
    assert python(COUNT, **dict.fromkeys(THREADS, "2")).stdout == "1\n"


@pytest.mark.skipif("glibc" not in platform.libc_ver(), reason="asks the allocator of glibc")
def test_an_array_is_made_of_the_memory_of_a_freed_one():
    """24 MB: 5,860 pages of 4 KiB, or 12 huge ones, the first time, and none the second."""
    result = python(FAULTS)
    first, second = map(int, result.stdout.split())

    assert first >= 12
    assert second <= 2


@pytest.mark.parametrize(
    ("own", "limits", "expected"),
    [
        ("0::/job/step", {"job/memory.max": "5000", "job/step/memory.max": "max"}, 5000),
        ("0::/job/step", {"job/memory.max": "5000", "job/step/memory.max": "3000"}, 3000),
        ("0::/../..", {"memory.max": "4000"}, 4000),
        ("4:cpu,memory:/job", {"memory/job/memory.limit_in_bytes": "6000"}, 6000),
        ("4:cpu:/job", {"memory/job/memory.limit_in_bytes": "6000"}, None),
        ("4:memory:/", {"memory/memory.limit_in_bytes": str(2**63 - 4096)}, None),
        ("0::/job", {"job/memory.max": "0"}, None),
        ("", {}, None),
    ],
)
def test_memory_is_the_least_that_any_group_around_the_process_has(
    tmp_path, monkeypatch, own, limits, expected
):
    machine = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    (tmp_path / "own").write_text(own)
    for place, limit in limits.items():
        (tmp_path / place).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / place).write_text(limit + "\n")
    monkeypatch.setattr(processes, "OWN_GROUPS", tmp_path / "own")
    monkeypatch.setattr(processes, "GROUPS", tmp_path)
    monkeypatch.setattr(processes.resource, "getrlimit", lambda _: (-1, -1))

    assert memory_bytes() == (expected or machine)


def test_memory_is_not_more_than_the_shell_allows(monkeypatch):
    monkeypatch.setattr(processes.resource, "getrlimit", lambda _: (2048, -1))

    assert memory_bytes() == 2048


def test_an_installed_library_finds_what_a_wheel_carries(tmp_path):
    """Without a checkout around it; `make wheel-test` builds, installs and runs a real one."""
    root = Path(__file__).resolve().parents[1]
    wheel = tomllib.loads((root / "pyproject.toml").read_text("utf-8"))["tool"]["hatch"]["build"]
    carried = wheel["targets"]["wheel"]["force-include"]
    site = tmp_path / "site-packages"
    ignored = shutil.ignore_patterns("__pycache__")
    shutil.copytree(root / "study_lib", site / "study_lib", ignore=ignored)
    for source, place in carried.items():
        shutil.copytree(root / source, site / place, ignore=ignored)
    empty = tmp_path / "empty"
    empty.mkdir()

    result = subprocess.run(
        [sys.executable, "-m", "study_lib", "plan", "--preset", "smoke"],
        cwd=empty,
        env={"PYTHONPATH": str(site), "PATH": ""},
        capture_output=True,
        text=True,
        check=False,
    )

    assert sorted(carried) == ["notebooks", "parameters", "workflow"]
    assert result.returncode == 0, result.stderr
    assert "24 of 24 jobs" in result.stdout
