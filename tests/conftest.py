"""Small shared inputs: a lopsided probe, an object, sub-pixel positions, and one tiny study."""

import os
import shutil
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from command_line import Called, exit_code
from filelock import FileLock
from tiny_runs import generated, only_run, with_views

from study_lib.data.contract import save_dataset
from study_lib.data.formats.acquisition import Acquisition, Geometry
from study_lib.design.models import StudyDesign
from study_lib.design.presets import load_design
from study_lib.physics.forward import exit_waves, expected_counts
from study_lib.physics.specimen import grains
from study_lib.runs.run import Run

OBJECT_SHAPE = (40, 36)
TINY_SETTINGS = (
    "patch_size_px=16",
    "probe.defocus_radius_px=3.0",
    "scan.rows=6",
    "scan.columns=10",
    "scan.step_px=2.0",
    "specimen.largest_grain_px=8.0",
    "views=[{name: baseline, gridsize: 1, target_overlap: null}, "
    "{name: dense, gridsize: 2, target_overlap: 0.6}, "
    "{name: sparse, gridsize: 2, target_overlap: 0.4}]",
    "training.epochs=1",
    "training.steps_min=0",
    "iterative.epochs=2",
    "thinned.steps=4",
)


# Files whose tests run whole studies, minutes each: a process that gets one last is waited for.
LONGEST = (
    "test_measured_run",
    "test_run",
    "test_replicates",
    "test_colleagues_folder",
    "test_mismatch_levels",
    "test_reuse",
    "test_interrupted_run",
    "test_real_data",
    "test_notebooks",
    "test_evidence",
    "test_pbs",
    "test_compare_runs",
    "test_science",
)


def pytest_configure() -> None:
    # As the command line does: jsonschema would compile a grammar of web addresses for seconds.
    sys.modules.setdefault("rfc3987_syntax", None)  # None: not to be imported


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--peers", action="store_true", help="run the tests with other programs")
    parser.addoption("--slurm", action="store_true", help="run the tests on a SLURM of their own")


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    # Several processes share the files: the long ones first, or one would be left to the end alone.
    place = {name: index for index, name in enumerate(LONGEST)}
    items.sort(
        key=lambda item: (
            item.get_closest_marker("slow") is None,
            place.get(item.path.stem, len(LONGEST)),
        )
    )
    needed = {
        "peer": ("--peers", "needs other programs: run `make peers`"),
        "slurm": ("--slurm", "needs SLURM's daemons: run `make slurm-test`"),
    }
    for marker, (option, reason) in needed.items():
        if not config.getoption(option):
            for item in items:
                if item.get_closest_marker(marker):
                    item.add_marker(pytest.mark.skip(reason=reason))


@pytest.fixture(autouse=True)
def _no_open_figures() -> Iterator[None]:
    """Close what a test has drawn: another one may count the figures of the same process."""
    yield
    if "matplotlib.pyplot" in sys.modules:
        sys.modules["matplotlib.pyplot"].close("all")


@pytest.fixture
def study(tmp_path, monkeypatch, capsys) -> Callable[..., Called]:
    """Call the command line in this process, in the folder of the test."""

    def call(*words: object) -> Called:
        monkeypatch.chdir(tmp_path)
        capsys.readouterr()
        code = exit_code(*words)
        return Called(code, *capsys.readouterr())

    return call


@pytest.fixture
def rng() -> np.random.Generator:
    return np.random.default_rng(0)


@pytest.fixture
def probe() -> torch.Tensor:
    """Complex, off-centre, without any mirror symmetry: a missing conjugate or flip shows."""
    y, x = np.indices((16, 16)) - 8.0
    envelope = np.exp(-((y - 1.3) ** 2) / 18 - (x + 0.7) ** 2 / 9) * (1 + 0.2 * y + 0.1 * x * y)
    wave = envelope * np.exp(1j * (0.04 * y**2 + 0.09 * x**2 + 0.3 * y - 0.05 * x * y))
    return torch.from_numpy(wave)


@pytest.fixture
def modes(probe) -> torch.Tensor:
    """Three incoherent modes, lopsided and not orthogonal; the first is the probe."""
    y, x = np.indices((16, 16)) - 8.0
    second = 0.5 * probe.roll((2, -1), dims=(0, 1)) * torch.from_numpy(np.exp(0.2j * y))
    third = 0.3 * probe.conj() * torch.from_numpy(x + 0.4 * y)
    return torch.stack([probe, second, third])


@pytest.fixture
def object_(rng) -> torch.Tensor:
    phase_rad = rng.uniform(-1, 1, OBJECT_SHAPE)
    return torch.from_numpy(rng.uniform(0.5, 1, OBJECT_SHAPE) * np.exp(1j * phase_rad))


@pytest.fixture
def positions_px() -> torch.Tensor:
    """(row, column) patch centres with sub-pixel parts; neighbouring patches overlap."""
    return torch.tensor(
        [[9.0, 8.0], [12.3, 10.75], [14.45, 21.4], [23.6, 11.2], [30.9, 27.1]]
    ).double()


@pytest.fixture
def acquisition(rng, probe, object_, positions_px) -> Acquisition:
    """Counts of a lopsided probe on a lopsided object, with gaps in the indices and a bad pixel."""
    bright = probe * torch.sqrt(2e5 / (probe.abs() ** 2).sum())
    counts = rng.poisson(expected_counts(exit_waves(bright, object_, positions_px)).numpy())
    bad_pixels = np.zeros((16, 16), bool)
    bad_pixels[2, 13] = True
    return Acquisition(
        positions_px=positions_px.numpy(),
        amplitudes=np.sqrt(counts * ~bad_pixels).astype(np.float32),
        probe=bright.to(torch.complex64).numpy(),
        probe_is_scaled=True,
        object_=object_.to(torch.complex64).numpy(),
        bad_pixels=bad_pixels,
        scan_index=np.array([3, 4, 7, 8, 12]),
        geometry=Geometry(photon_energy_ev=8000.0, detector_distance_m=1.5, detector_pixel_m=75e-6),
    )


@pytest.fixture(scope="session")
def tiny_design_with() -> Callable[..., StudyDesign]:
    """The smoke preset made as small as every phase still accepts, with further settings.

    Base data, if given, set the scan to the measured one before the settings are applied.
    """
    return lambda *settings, base=None: load_design("smoke", [*TINY_SETTINGS, *settings], base)


@pytest.fixture(scope="session")
def tiny_design(tiny_design_with) -> StudyDesign:
    return tiny_design_with()


@pytest.fixture(scope="session")
def tiny_run(tmp_path_factory, tiny_design) -> Run:
    """The tiny study with its patterns and its views."""
    return with_views(generated(tmp_path_factory.mktemp("run"), tiny_design))


TWO_VIEWS = (
    "views=[{name: baseline, gridsize: 1, target_overlap: null}, "
    "{name: dense, gridsize: 2, target_overlap: 0.6}]",
    "thinned=null",
    "scan.rows=9",
)


@pytest.fixture(scope="session")
def sealed_settings() -> tuple[str, ...]:
    """What `sealed_run` changes in the preset smoke."""
    return (*TINY_SETTINGS, *TWO_VIEWS)


@pytest.fixture(scope="session")
def sealed_run(tmp_path_factory) -> Path:
    """A tiny study that `study run` has finished: one for all test processes, to be read only."""
    root = tmp_path_factory.getbasetemp()
    shared = root.parent if "PYTEST_XDIST_WORKER" in os.environ else root
    reports = shared / "sealed"
    words = ["run", "--preset", "smoke", "--reports", reports]
    for setting in (*TINY_SETTINGS, *TWO_VIEWS):
        words += ["--set", setting]
    with FileLock(shared / "sealed.lock"):
        if not list(reports.glob("*/seal.json")):
            assert exit_code(*words) == 0
    return only_run(reports)


@pytest.fixture
def sealed_copy(sealed_run, tmp_path) -> Path:
    """A copy of the finished study that a test may spoil."""
    return Path(shutil.copytree(sealed_run, tmp_path / sealed_run.name))


@pytest.fixture(scope="session")
def matrix(tmp_path_factory, tiny_design_with) -> Run:
    """Patterns and views of the whole original matrix, 3 doses x 3 views, in small."""
    design = tiny_design_with("doses=[1.0e+3, 1.0e+4, 1.0e+5]")
    return with_views(generated(tmp_path_factory.mktemp("matrix"), design))


@pytest.fixture
def base_file(tmp_path, rng) -> Callable[..., tuple[Path, dict[str, np.ndarray]]]:
    """Write a base NPZ whose object, probe and positions no preset would make."""

    def written(rows_px: float = 60.0, side: int = 16) -> tuple[Path, dict[str, np.ndarray]]:
        path = tmp_path / "base.npz"
        positions = rng.uniform(side // 2, (rows_px - side // 2, 31 - side // 2), (80, 2))
        object_ = grains(
            shape_px=(int(rows_px) + 1, 31),
            grain_count=100,
            smallest_grain_px=2.0,
            largest_grain_px=6.0,
            phase_range_rad=0.6,
            amplitude_min=0.9,
            random=rng,
        )
        y, x = np.indices((side, side)) - side // 2
        arrays = {
            "probeGuess": np.exp(-((y - 1) ** 2) / 8 - x**2 / 12 + 0.1j * y * x).astype(
                np.complex64
            ),
            "objectGuess": object_,
            "ycoords": positions[:, 0].copy(),
            "xcoords": positions[:, 1].copy(),
        }
        save_dataset(path, arrays, {}, base=True)
        return path, arrays

    return written
