"""Patterns that stay in their file: the same measurement, the same object, in less memory."""

import json
import subprocess
import sys
import textwrap
import zipfile

import numpy as np
import pytest
import torch

from study_lib.data.contract import load_dataset
from study_lib.data.datasets import load_measurement
from study_lib.errors import InputError
from study_lib.files import write_npz
from study_lib.physics.forward import patterns_expected
from study_lib.solvers.solver import SolverSettings, model_of, solve_measurement

SIDE_PX = 16
METADATA = {"domain": "amplitude"}


@pytest.fixture
def arrays(rng):
    """A small scan with whole counts, as the contract has it."""
    y, x = np.mgrid[:SIDE_PX, :SIDE_PX] - SIDE_PX / 2
    probe = (30 * np.exp(-(y**2 + x**2) / 12 + 0.02j * x * y)).astype(np.complex64)
    truth = np.exp(1j * rng.uniform(-0.5, 0.5, (40, 44))).astype(np.complex64)
    positions_px = np.stack(np.meshgrid(np.arange(9.0, 30, 4), np.arange(9.0, 34, 4)), -1)
    positions_px = positions_px.reshape(-1, 2)
    rates = patterns_expected(*map(torch.from_numpy, (probe, truth, positions_px))).numpy()
    return {
        "diffraction": np.sqrt(rng.poisson(rates)).astype(np.float32),
        "probeGuess": probe,
        "objectGuess": truth,
        "ycoords": positions_px[:, 0].copy(),
        "xcoords": positions_px[:, 1].copy(),
    }


@pytest.fixture
def path(arrays, tmp_path):
    write_npz(tmp_path / "scan.npz", arrays, METADATA)
    return tmp_path / "scan.npz"


def test_it_is_the_same_measurement_and_gives_the_same_object(path):
    whole, mapped = load_measurement(path), load_measurement(path, mapped=True)
    assert isinstance(mapped.amplitudes, np.memmap)
    np.testing.assert_array_equal(mapped.amplitudes, whole.amplitudes)
    found = [solve_measurement(one, SolverSettings(epochs=5)).object_ for one in (whole, mapped)]
    np.testing.assert_array_equal(*found)


def test_what_is_changed_in_memory_is_not_changed_in_the_file(path):
    before = path.read_bytes()
    load_measurement(path, mapped=True).amplitudes[0] = 7
    assert path.read_bytes() == before


@pytest.mark.parametrize("each", [False, True], ids=["one mask", "a mask of each pattern"])
def test_patterns_that_are_dark_on_bad_pixels_stay_in_the_file(tmp_path, arrays, each):
    bad = np.zeros(arrays["diffraction"].shape if each else (SIDE_PX, SIDE_PX), bool)
    bad[..., 3:5, 8] = True
    dark = np.where(bad, 0, arrays["diffraction"])
    write_npz(tmp_path / "scan.npz", arrays | {"diffraction": dark, "bad_pixels": bad}, METADATA)
    mapped = load_measurement(tmp_path / "scan.npz", mapped=True)
    assert isinstance(mapped.amplitudes, np.memmap)
    np.testing.assert_array_equal(mapped.bad_pixels, bad)


def test_both_ways_take_a_file_whose_model_does_not_fit_its_patterns(tmp_path, arrays):
    """That is for `study validate` to say."""
    brighter = arrays | {"diffraction": 3 * arrays["diffraction"]}
    write_npz(tmp_path / "scan.npz", brighter, METADATA)
    whole, mapped = (load_measurement(tmp_path / "scan.npz", mapped=way) for way in (False, True))
    np.testing.assert_array_equal(mapped.amplitudes, whole.amplitudes)


def test_of_a_base_file_there_are_no_patterns_to_leave(tmp_path, arrays):
    del arrays["diffraction"]
    write_npz(tmp_path / "base.npz", arrays, METADATA)
    found, _ = load_dataset(tmp_path / "base.npz", base=True, mapped=True)
    assert "objectGuess" in found


def no_patterns(path, arrays):
    np.savez(path, **{key: array for key, array in arrays.items() if key != "diffraction"})


def compressed(path, arrays):
    np.savez_compressed(path, **arrays)


def column_major(path, arrays):
    np.savez(path, **arrays | {"diffraction": np.asfortranarray(arrays["diffraction"])})


def other_byte_order(path, arrays):
    np.savez(path, **arrays | {"diffraction": arrays["diffraction"].astype(">f4")})


def double(path, arrays):
    np.savez(path, **arrays | {"diffraction": arrays["diffraction"].astype(np.float64)})


def counts_on_bad_pixels(path, arrays):
    bad: np.ndarray = np.zeros((SIDE_PX, SIDE_PX), bool)
    bad[8, 8] = True
    np.savez(path, **arrays, bad_pixels=bad)


def damaged(path, arrays):
    """One bit of a pattern is another: no header says so, the checksum does."""
    np.savez(path, **arrays)
    with zipfile.ZipFile(path) as file:
        start = file.getinfo("diffraction.npy").header_offset
    content = bytearray(path.read_bytes())
    content[start + 1000] ^= 1
    path.write_bytes(content)


@pytest.mark.parametrize(
    ("write", "message"),
    [
        (no_patterns, "add the patterns|rename diff3d"),
        (compressed, "diffraction is compressed; write it with numpy.savez"),
        (column_major, "column-major or foreign byte order"),
        (other_byte_order, "column-major or foreign byte order"),
        (double, "diffraction is float64; store float32"),
        (counts_on_bad_pixels, "counts on bad pixels; set them to zero there"),
        (damaged, "diffraction is damaged"),
    ],
)
def test_what_cannot_stay_in_the_file_is_refused_with_the_remedy(tmp_path, arrays, write, message):
    write(tmp_path / "scan.npz", arrays)
    with pytest.raises(InputError, match=message):
        load_measurement(tmp_path / "scan.npz", mapped=True)


PROGRAM = """
    import json, sys
    from pathlib import Path
    import study_lib.solvers.solver as solver
    from study_lib.data.datasets import load_measurement

    def own_bytes():  # what is not backed by a file
        status = Path("/proc/self/status").read_text()
        return 1024 * int(status.split("RssAnon:")[1].split()[0])

    settings = solver.SolverSettings(epochs=1, stored_bytes=0)
    solver.solve_measurement(load_measurement(Path(sys.argv[1])), settings)  # warm
    before, peak = own_bytes(), []
    measurement = load_measurement(Path(sys.argv[2]), mapped=True)
    solver.solve_measurement(
        measurement, settings, progress=lambda *_: peak.append(own_bytes())
    )
    print(json.dumps([measurement.amplitudes.nbytes, max(peak) - before]))
"""


def test_the_solver_computes_on_the_file_without_a_copy(path):
    mapped = load_measurement(path, mapped=True)
    model, _, _ = model_of(
        mapped.amplitudes, mapped.positions_px, mapped.probe, None, SolverSettings()
    )
    assert model.amplitudes.data_ptr() == mapped.amplitudes.ctypes.data


@pytest.mark.slow
@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="reads /proc/self/status")
def test_memory_does_not_grow_by_the_patterns(path, arrays, tmp_path):
    """A file of 170 MB is solved with less than half of it beside what a small one needs."""
    repeats = 4000
    many = {
        key: np.tile(array, (repeats, *[1] * (array.ndim - 1)))
        for key, array in arrays.items()
        if key in ("diffraction", "ycoords", "xcoords")
    }
    write_npz(tmp_path / "large.npz", arrays | many, METADATA)
    found = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(PROGRAM), path, tmp_path / "large.npz"],
        capture_output=True,
        text=True,
        check=True,
    )
    in_file, in_memory = json.loads(found.stdout)
    assert in_file > 150e6
    assert in_memory < 0.5 * in_file
