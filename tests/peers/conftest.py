"""Files that we write for the peers, and what their own readers make of them."""

import subprocess
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from study_lib.data.formats import registry as formats

ROOT = Path(__file__).resolve().parents[2]
WRITTEN = {
    "ptychodus": "scan.h5",
    "cxi": "scan.cxi",
    "slac": "slac.npz",
    "ptychopinn": "ptychopinn.npz",
}


@pytest.fixture
def whole(acquisition):
    """The acquisition at whole pixels, where every program cuts the same patch."""
    return replace(acquisition, positions_px=np.round(acquisition.positions_px))


@pytest.fixture
def read_by(tmp_path, whole):
    """Return a function that has a peer read our files; the folder is ``tmp_path``."""

    def run(peer: str) -> dict[str, np.ndarray]:
        python = ROOT / f".venv-peer-{peer}" / "bin" / "python"
        assert python.is_file(), f"{python.parent.parent.name} is not installed; run `make peers`"
        for name, file in WRITTEN.items():
            formats.writer_for(name, tmp_path / file, ROOT)(tmp_path / file, whole)
        script = Path(__file__).with_name(f"{peer}_reads.py")
        result = subprocess.run(
            [python, "-I", script, tmp_path],
            capture_output=True,
            text=True,
            check=False,
            cwd=tmp_path,
        )
        assert result.returncode == 0, result.stderr[-3000:]
        with np.load(tmp_path / f"{peer}.npz") as archive:
            return dict(archive)

    return run
