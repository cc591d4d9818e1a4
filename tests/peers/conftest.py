"""Files that we write for the peers, and what their own readers make of them."""

import subprocess
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from study_lib.data.formats import registry as formats
from study_lib.physics.forward import patterns_expected

ROOT = Path(__file__).resolve().parents[2]
WRITTEN = {
    "ptychodus": "scan.h5",
    "cxi": "scan.cxi",
    "slac": "slac.npz",
    "ptychopinn": "ptychopinn.npz",
}
OF_MODES = {"ptychodus": "modes.h5", "cxi": "modes.cxi", "ptychi": "modes_dp.hdf5"}


@pytest.fixture
def whole(acquisition):
    """The acquisition at whole pixels, where every program cuts the same patch."""
    return replace(acquisition, positions_px=np.round(acquisition.positions_px))


@pytest.fixture
def of_modes(whole):
    """The same with two orthogonal modes, and counts of both."""
    first = whole.probe.astype(np.complex128)
    second = first.T - (first.conj() * first.T).sum() / (np.abs(first) ** 2).sum() * first
    modes = np.stack([first, 0.5 * second]).astype(np.complex64)
    arrays = modes, whole.object_, whole.positions_px
    counts = np.round(patterns_expected(*map(torch.from_numpy, arrays)).numpy())
    return replace(
        whole, probe=modes, amplitudes=np.sqrt(counts * ~whole.bad_pixels).astype(np.float32)
    )


@pytest.fixture
def read_by(tmp_path, whole, of_modes):
    """Return a function that has a peer read our files; the folder is ``tmp_path``."""

    def run(peer: str) -> dict[str, np.ndarray]:
        python = ROOT / f".venv-peer-{peer}" / "bin" / "python"
        assert python.is_file(), f"{python.parent.parent.name} is not installed; run `make peers`"
        for name, file in WRITTEN.items():
            formats.writer_for(name, tmp_path / file, ROOT)(tmp_path / file, whole)
        for name, file in OF_MODES.items():
            formats.writer_for(name, tmp_path / file, ROOT)(tmp_path / file, of_modes)
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
