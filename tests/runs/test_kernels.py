"""One kernel for several notebooks: what it keeps, what it forgets, and how it ends."""

import os
import time

import nbformat
import papermill
import pytest
from nbclient.exceptions import DeadKernelError
from papermill.exceptions import PapermillExecutionError

from study_lib.runs.kernels import SharedKernel

pytestmark = pytest.mark.slow


def printed(kernel, tmp_path, *cells):
    """Execute cells as a notebook; return what it printed and its execution counts."""
    source = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(cell) for cell in cells])
    nbformat.write(source, tmp_path / "in.ipynb")
    executed = papermill.execute_notebook(
        tmp_path / "in.ipynb",
        tmp_path / "out.ipynb",
        km=kernel.manager(tmp_path),
        progress_bar=False,
        kernel_name="python3",
    )
    text = "".join(output.text for cell in executed.cells for output in cell.outputs)
    return text.split(), [cell.execution_count for cell in executed.cells]


def is_running(pid):
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return True


PID = "import os; print(os.getpid())"


def test_notebooks_share_imports_and_nothing_else(tmp_path):
    with SharedKernel() as kernel:
        (pid,), first_counts = printed(kernel, tmp_path, "import colorsys; name = 1", PID)
        printed_line, counts = printed(
            kernel, tmp_path, PID, "import sys; print('name' in dir(), 'colorsys' in sys.modules)"
        )
        assert kernel.peak_memory_mib() > 10

    assert printed_line == [pid, "False", "True"]
    assert first_counts == counts == [1, 2], "counted from the start, as in a kernel of its own"
    deadline = time.monotonic() + 5
    while is_running(int(pid)) and time.monotonic() < deadline:
        time.sleep(0.05)
    assert not is_running(int(pid))


def test_a_cell_that_failed_does_not_end_the_kernel(tmp_path):
    with SharedKernel() as kernel:
        (pid,), _ = printed(kernel, tmp_path, PID)
        with pytest.raises(PapermillExecutionError):
            printed(kernel, tmp_path, "name = 1; 1 / 0")

        assert printed(kernel, tmp_path, PID, "print('name' in dir())")[0] == [pid, "False"]


def test_a_kernel_that_died_is_replaced(tmp_path):
    with SharedKernel() as kernel:
        (pid,), _ = printed(kernel, tmp_path, PID)
        with pytest.raises(DeadKernelError):
            printed(kernel, tmp_path, "import os; os._exit(1)")

        (other,), _ = printed(kernel, tmp_path, PID)

    assert other != pid
