"""A process whose parent has ended before it could ask to be told ends by itself."""

import os
import subprocess
import sys

import pytest

from study_lib.processes import INTERRUPTED, PARENT, THREADS

ASK = """
import signal
from study_lib.processes import end_with_parent
end_with_parent(signal.SIGTERM)
print("goes on")
"""
COUNT = """
from study_lib.processes import use_threads
use_threads(1)
import torch
print(torch.get_num_threads())
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


def test_threads_of_a_job_hold_whatever_its_environment_says():
    """On a cluster a job may start with an empty environment, or with one of a whole node."""
    assert python(COUNT, **dict.fromkeys(THREADS, "2")).stdout == "1\n"
