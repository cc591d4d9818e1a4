"""Forked kernels: the same as those that start by themselves, and they end with their job."""

import json
import os
import signal
import struct
import subprocess
import sys
from contextlib import suppress
from socket import AF_UNIX, socket

import pytest
from killing import has_ended
from nbclient.exceptions import DeadKernelError
from test_kernels import printed

from study_lib.runs.kernel_forks import forked_kernel, kernels_forked
from study_lib.runs.kernels import SharedKernel
from study_lib.system import INTERRUPTED, PARENT, THREADS, own_code_only

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(sys.platform != "linux", reason="forks on Linux alone"),
]

PARENT_AND_PID = "import os; print(os.getppid(), os.getpid())"


@pytest.fixture
def server(tmp_path, monkeypatch):
    """The process that forks kernels, for this process as if it were a job."""
    for name in THREADS:
        monkeypatch.setenv(name, "1")
    with (
        (tmp_path / "engine.log").open("w") as log,
        kernels_forked(os.environ | own_code_only() | {PARENT: str(os.getpid())}, log) as variables,
    ):
        for name, value in variables.items():
            monkeypatch.setenv(name, value)
        yield variables


def parent_and_pid(kernel, tmp_path):
    numbers, _ = printed(kernel, tmp_path, PARENT_AND_PID)
    return [int(number) for number in numbers]


LEARN = """
import torch
torch.manual_seed(3)
layers = torch.nn.Sequential(torch.nn.Conv2d(1, 8, 3), torch.nn.GELU(), torch.nn.Conv2d(8, 1, 3))
steps = torch.optim.Adam(layers.parameters(), 1e-2)
images = torch.randn(4, 1, 32, 32)
for _ in range(20):
    steps.zero_grad()
    loss = torch.fft.fft2(layers(images)).abs().square().mean()
    loss.backward()
    steps.step()
print(torch.get_num_threads(), loss.item().hex())
"""
MODULES = "import sys; print(*(name for name in sys.modules if name.startswith('study_lib')))"
FIGURE = """
import hashlib
import matplotlib.pyplot as plt
from IPython.utils.capture import capture_output
with capture_output() as shown:
    plt.plot([0, 1])
    plt.show()
print(hashlib.sha256(shown.outputs[0].data["image/png"].encode()).hexdigest())
"""


def test_a_forked_kernel_computes_what_one_that_starts_by_itself_does(
    server, tmp_path, monkeypatch
):
    """It has none of this library from before, for its code may have been changed since."""
    cells = (LEARN, FIGURE, MODULES)
    with SharedKernel() as kernel:
        forked, _ = printed(kernel, tmp_path, *cells)
        assert parent_and_pid(kernel, tmp_path)[0] != os.getpid()
    for name in server:
        monkeypatch.delenv(name)
    with SharedKernel() as kernel:
        by_itself, _ = printed(kernel, tmp_path, *cells)
        assert parent_and_pid(kernel, tmp_path)[0] == os.getpid()

    assert forked == by_itself
    assert forked[0] == "1"
    assert len(forked[2]) == 64, "of a picture"


def test_two_kernels_at_once_differ_in_what_chance_gives_them(server, tmp_path):
    chance = "import numpy; print(numpy.random.random())"
    with SharedKernel() as one, SharedKernel() as other:
        (parent, first), (same, second) = (parent_and_pid(each, tmp_path) for each in (one, other))
        drawn = [printed(each, tmp_path, chance)[0] for each in (one, other)]

    assert parent == same
    assert first != second
    assert not set(drawn[0]) & set(drawn[1])
    assert has_ended(first)
    assert has_ended(second)


def test_a_kernel_that_ends_takes_with_it_what_it_has_started(server, tmp_path):
    start = "import subprocess; print(subprocess.Popen(['sleep', '60']).pid)"
    with SharedKernel() as kernel:
        (child,), _ = printed(kernel, tmp_path, start)
        assert not has_ended(int(child), seconds=0)
        with pytest.raises(DeadKernelError):
            printed(kernel, tmp_path, "import os; os._exit(3)")

        assert has_ended(int(child))


@pytest.mark.parametrize("text", [b"no JSON", b"{}", b"x" * 2**23], ids=["text", "empty", "long"])
def test_a_request_that_is_none_ends_no_kernel(text, server, tmp_path):
    with SharedKernel() as kernel:
        before = parent_and_pid(kernel, tmp_path)
        with socket(AF_UNIX) as caller:
            caller.connect(*server.values())
            caller.settimeout(30)
            with suppress(BrokenPipeError, ConnectionResetError):  # refused before its end
                caller.sendall(struct.pack("!i", len(text)) + text)
                while caller.recv(100):
                    continue

        assert parent_and_pid(kernel, tmp_path) == before


def test_a_server_ends_with_its_run_even_if_that_ended_while_it_started(tmp_path):
    """As a run that is killed at once: then it asks too late to be ended with it."""
    path, folder = tmp_path / "socket", str(tmp_path)
    gone = {PARENT: str(os.getpid() + 1)}  # another than its parent
    with socket(AF_UNIX) as listener:
        listener.bind(str(path))
        ended = subprocess.run(
            [sys.executable, "-P", "-m", "study_lib.runs.kernel_forks", str(listener.fileno())],
            env=os.environ | own_code_only() | gone,
            pass_fds=[listener.fileno()],
            cwd=folder,
            check=False,
            timeout=60,
        )

    assert ended.returncode == INTERRUPTED


def test_a_forked_kernel_that_died_is_noticed_and_replaced(server, tmp_path):
    with SharedKernel() as kernel:
        _, first = parent_and_pid(kernel, tmp_path)
        with pytest.raises(DeadKernelError):
            printed(kernel, tmp_path, "import os; os._exit(3)")
        _, second = parent_and_pid(kernel, tmp_path)

    assert first != second


def test_kernels_that_end_at_any_moment_leave_the_server_as_it_was(server, tmp_path):
    """By themselves, by a signal, with their jobs, or with both before the server looks."""
    environment, place = dict(os.environ), str(tmp_path)
    with SharedKernel() as kernel:
        parent, number = parent_and_pid(kernel, tmp_path)
        brief = forked_kernel(["--version"], environment, place)
        long = [forked_kernel(["-f", f"{place}/{n}.json"], environment, place) for n in range(4)]
        numbers = [one.pid for one in (brief, *long)]
        request = json.dumps({"arguments": ["--version"], "environment": {}, "folder": place})
        with socket(AF_UNIX) as slow_caller:
            slow_caller.connect(*server.values())
            slow_caller.sendall(struct.pack("!i", len(request)))  # the server waits for the rest
            for one in long[:2]:
                one.kill()
            assert all(has_ended(one.pid) for one in long[:2])
            kept = long[1]
            del long, one  # the connections of the others are closed
            slow_caller.sendall(request.encode())

            assert (brief.wait(60.0), kept.wait(60.0)) == (0, -signal.SIGKILL)
            assert all(has_ended(one) for one in numbers)
            assert parent_and_pid(kernel, tmp_path) == [parent, number]
    with SharedKernel() as kernel:
        assert parent_and_pid(kernel, tmp_path)[0] == parent


JOB = """
import sys, time
from pathlib import Path
from study_lib.runs.kernels import SharedKernel
with SharedKernel() as kernel:
    manager = kernel.manager(Path.cwd())
    print(manager.provisioner.pid, flush=True)
    time.sleep(60)
"""


def test_a_kernel_ends_with_its_job(server, tmp_path):
    """However the job ends; another's kernel goes on."""
    with SharedKernel() as kernel:
        _, other = parent_and_pid(kernel, tmp_path)
        job = subprocess.Popen(
            [sys.executable, "-c", JOB], stdout=subprocess.PIPE, text=True, cwd=tmp_path
        )
        number = int(job.stdout.readline())
        assert not has_ended(number, seconds=0)

        job.kill()
        job.communicate()

        assert has_ended(number)
        assert parent_and_pid(kernel, tmp_path)[1] == other


def test_without_its_server_a_kernel_ends_and_the_next_starts_by_itself(server, tmp_path):
    with SharedKernel() as kernel:
        parent, number = parent_and_pid(kernel, tmp_path)
        os.kill(parent, signal.SIGKILL)
        assert has_ended(number)

        assert parent_and_pid(kernel, tmp_path)[0] == os.getpid()


def test_a_job_with_two_threads_starts_its_kernel_by_itself(server, tmp_path, monkeypatch):
    """The libraries that the server has loaded read how many they may have when they are loaded."""
    monkeypatch.setenv("OMP_NUM_THREADS", "2")
    with SharedKernel() as kernel:
        assert parent_and_pid(kernel, tmp_path)[0] == os.getpid()


STARTS_A_THREAD = """
import threading, time
threading.Thread(target=time.sleep, args=(60,), daemon=True).start()
"""


def test_a_server_that_has_threads_forks_nothing(tmp_path, monkeypatch):
    """A fork would have one of them, and locks that the others hold for ever."""
    for name in THREADS:
        monkeypatch.setenv(name, "1")
    (tmp_path / "hdf5plugin.py").write_text(STARTS_A_THREAD)
    log = tmp_path / "engine.log"
    environment = os.environ | own_code_only()
    environment["PYTHONPATH"] = f"{tmp_path}{os.pathsep}{environment['PYTHONPATH']}"
    with log.open("w") as file, kernels_forked(environment, file) as variables:
        for name, value in variables.items():
            monkeypatch.setenv(name, value)
        with SharedKernel() as kernel:
            assert parent_and_pid(kernel, tmp_path)[0] == os.getpid()

    assert "kernels are not forked, each starts by itself: 2 threads are running" in log.read_text()
