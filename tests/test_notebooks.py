"""The notebooks as a person runs them: in order, from the folder they lie in, nothing changed."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent


@pytest.mark.notebook
@pytest.mark.slow
def test_notebooks_run_in_order_and_print_what_is_stored(tmp_path):
    """Every cell runs, and cells tagged nbval-check-output print what the repository holds."""
    copies = tmp_path / "notebooks"
    shutil.copytree(ROOT / "notebooks", copies, ignore=shutil.ignore_patterns(".*"))
    expected = sorted(path.name for path in copies.glob("*.ipynb"))

    result = subprocess.run(
        [
            *(sys.executable, "-m", "pytest", "-q", "--nbval-lax", "--nbval-current-env"),
            *("--nbval-cell-timeout", "300", "-p", "no:cacheprovider", "--rootdir", str(tmp_path)),
            *("--nbval-sanitize-with", str(ROOT / "tests" / "nbval_sanitize.cfg")),
            *(str(copies / name) for name in expected),
        ],
        cwd=tmp_path,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        check=False,
    )

    assert result.returncode == 0, result.stdout[-4000:]
    assert sorted(path.name for path in tmp_path.iterdir()) == ["notebooks", "reports"]
    assert (tmp_path / "reports" / "lab" / "phase_h_summary" / "summary.md").is_file()
