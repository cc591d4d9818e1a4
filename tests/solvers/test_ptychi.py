"""pty-chi's engines land in our frame; LSQML is deterministic and leaves the process as it was."""

import json
import os
import subprocess
import sys
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pytest
import torch
from skimage.registration import phase_cross_correlation

from study_lib.errors import InputError, StudyError
from study_lib.physics.forward import exit_waves, expected_counts, illumination
from study_lib.physics.probe import zone_plate_probe
from study_lib.solvers import ptychi as ptychi_engine
from study_lib.solvers.ptychi import ENGINES, import_ptychi, run_ptychi

ROOT = Path(__file__).resolve().parents[2]
SIDE = 32


@dataclass(frozen=True)
class Scene:
    """A known object and the patterns it gives."""

    object_: np.ndarray
    probe: np.ndarray
    positions_px: np.ndarray
    amplitudes: np.ndarray

    @property
    def lit(self) -> np.ndarray:
        """Pixels with more than a tenth of the median illumination."""
        probe, positions = torch.from_numpy(self.probe), torch.from_numpy(self.positions_px)
        photons = illumination(probe, positions.float(), self.object_.shape).numpy()
        return photons > 0.1 * np.median(photons[photons > 0])


def asymmetric_object(shape: tuple[int, int]) -> np.ndarray:
    """Return a slow phase without any symmetry, a wedge, and a dot 3 pixels wide."""
    y, x = np.mgrid[: shape[0], : shape[1]]
    phase = 0.4 * np.sin(y / 9 + x / 23) + 0.3 * np.cos(x / 7 - y / 31)
    phase += 0.6 * ((y > 30) & (y < 40 + x / 8) & (x > 35) & (x < 60))
    phase += 0.8 * (np.hypot(y - 52, x - 31) < 2)
    return (0.9 * np.exp(1j * phase)).astype(np.complex64)


def scene_of(shape: tuple[int, int], *, half_pixels: bool = False, patterns: int = 110) -> Scene:
    """Return a scene with 1e7 photons per pattern."""
    rng = np.random.default_rng(3)
    margin = SIDE // 2
    last = np.array(shape) - SIDE + margin
    positions = rng.uniform(margin, last, (patterns, 2))
    if half_pixels:
        positions = np.round(2 * positions) / 2
    probe = zone_plate_probe(
        side_px=SIDE, aperture_per_px=0.3, stop_ratio=0.2, defocus_radius_px=6.0
    )
    probe = np.sqrt(1e7) * np.asarray(probe)
    object_ = asymmetric_object(shape)
    waves = exit_waves(
        torch.from_numpy(probe),
        torch.from_numpy(object_.astype(np.complex128)),
        torch.from_numpy(positions),
    )
    counts = np.round(expected_counts(waves).numpy())
    return Scene(object_, probe.astype(np.complex64), positions, np.sqrt(counts).astype(np.float32))


def arguments(scene: Scene, **changes: object) -> dict:
    """Return the arguments of `run_ptychi` for a scene."""
    return {
        "amplitudes": scene.amplitudes,
        "positions_px": scene.positions_px,
        "probe": scene.probe,
        "object_shape": scene.object_.shape,
        "epochs": 30,
        "batch_size": 22,
        "noise_model": "gaussian",
        "seed": 5,
        **changes,
    }


@pytest.fixture(autouse=True)
def _one_thread():
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.fixture(scope="module")
def small() -> Scene:
    return scene_of((64, 61), patterns=30)


@pytest.mark.slow
@pytest.mark.parametrize("photons", [1e3, 1e5])
def test_where_lsqml_stops_by_itself_the_epochs_left_would_change_less_than_the_noise(photons):
    scene = scene_of((96, 100), patterns=160)
    counts = np.random.default_rng(7).poisson(scene.amplitudes**2 * photons / 1e7)
    whole = arguments(
        replace(
            scene,
            amplitudes=np.sqrt(counts).astype(np.float32),
            probe=scene.probe * np.float32(np.sqrt(photons / 1e7)),
        ),
        epochs=150,
        batch_size=1000,
        momentum=0.5,
    )

    stopped, full = run_ptychi(**whole, tolerance=1e-4), run_ptychi(**whole)

    assert (stopped.stop, full.stop) == ("converged", "epochs used up")
    assert len(stopped.losses) < 130
    np.testing.assert_allclose(stopped.losses, full.losses[: len(stopped.losses)], rtol=1e-3)
    truth, lit = scene.object_[scene.lit], scene.lit
    change, noise = stopped.object_[lit] - full.object_[lit], full.object_[lit] - truth
    assert np.abs(change).std() < 0.25 * np.abs(noise).std()


@pytest.mark.slow
@pytest.mark.parametrize("noise_model", ["gaussian", "poisson"])
@pytest.mark.parametrize(
    ("shape", "half_pixels"), [((96, 100), False), ((101, 93), False), ((95, 98), True)]
)
def test_result_lies_in_the_frame_of_the_object(shape, half_pixels, noise_model):
    """An origin off by half a pixel, or swapped axes, would show as a shift."""
    scene = scene_of(shape, half_pixels=half_pixels)

    found = run_ptychi(**arguments(scene, noise_model=noise_model)).object_

    shift_px, correlation = against_truth(found, scene)
    assert np.abs(shift_px).max() < 0.05
    assert correlation > 0.9
    assert np.abs(found[scene.lit]).mean() == pytest.approx(0.9, rel=0.02), (
        "the probe keeps its scale"
    )


@pytest.mark.slow
@pytest.mark.parametrize(
    ("algorithm", "noise_model"),
    [(name, model) for name, engine in ENGINES.items() for model in engine.noise_models],
)
def test_every_engine_lands_in_the_frame_of_the_object(algorithm, noise_model):
    """Few epochs, as RAAR of pty-chi 2.2.0 leaves the solution again after some twenty."""
    scene = scene_of((95, 98), half_pixels=True)

    result = run_ptychi(**arguments(scene, algorithm=algorithm, noise_model=noise_model, epochs=15))

    shift_px, correlation = against_truth(result.object_, scene)
    assert np.abs(shift_px).max() < 0.1  # the origin would be off by half a pixel
    assert correlation > 0.6
    assert result.losses.shape == result.wall_s.shape == (15,)
    assert (np.diff(result.wall_s) > 0).all()
    assert result.options["algorithm"] == algorithm
    json.dumps(result.options, allow_nan=False)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"algorithm": "PIE2"}, "algorithm 'PIE2': pty-chi has LSQML, PIE, .*choose one"),
        (
            {"algorithm": "rPIE", "noise_model": "poisson"},
            "noise_model 'poisson': rPIE takes gaussian; poisson is for LSQML",
        ),
        (
            {"noise_model": "normal"},
            "noise_model 'normal': LSQML takes gaussian and poisson; choose one",
        ),
        ({"algorithm": "DM", "momentum": 0.5}, "momentum 0.5: DM has none, LSQML has"),
        ({"epochs": 0}, "epochs is 0"),
    ],
)
def test_what_an_engine_cannot_do_is_refused(small, changes, message):
    with pytest.raises(InputError, match=message):
        run_ptychi(**arguments(small, **changes))


@pytest.mark.slow
def test_momentum_takes_fewer_epochs(small):
    """It is what makes it worth its compact batches."""
    plain, fast = (
        run_ptychi(**arguments(small, epochs=20, batch_size=10, momentum=gain))
        for gain in (0.0, 0.5)
    )

    assert fast.options["batching_mode"] == "compact"
    assert fast.losses[-1] < plain.losses[-1]


def against_truth(found: np.ndarray, scene: Scene) -> tuple[np.ndarray, float]:
    """Return shift in pixels and correlation of the phase against the true one."""
    lit = scene.lit
    found = found * np.exp(1j * np.angle(np.vdot(found[lit], scene.object_[lit])))
    shift, _, _ = phase_cross_correlation(
        np.angle(scene.object_) * lit, np.angle(found) * lit, upsample_factor=200
    )
    correlation = np.corrcoef(np.angle(found[lit]), np.angle(scene.object_[lit]))[0, 1]
    return shift, float(correlation)


@pytest.mark.slow
def test_half_a_view_lies_in_the_frame_of_the_whole_object():
    """A split lights part of the object; the rest stays exactly one."""
    scene = scene_of((120, 96), patterns=160)
    half = scene.positions_px[:, 0] > 60
    part = Scene(scene.object_, scene.probe, scene.positions_px[half], scene.amplitudes[half])

    found = run_ptychi(**arguments(part)).object_

    first_row = int(np.round(part.positions_px[:, 0]).min()) - SIDE // 2
    assert found.shape == (120, 96)
    assert (found[:first_row] == 1).all()
    assert (found[first_row] != 1).any()
    lit = part.lit
    correlation = np.abs(np.vdot(found[lit], scene.object_[lit]))
    correlation /= np.linalg.norm(found[lit]) * np.linalg.norm(scene.object_[lit])
    assert correlation > 0.97


def test_loss_falls_and_progress_is_reported(small):
    reports = []

    result = run_ptychi(**arguments(small, epochs=8, progress=lambda *step: reports.append(step)))

    assert result.losses.shape == (8,)
    assert result.losses[-1] < 0.3 * result.losses[0]
    assert reports == [(epoch + 1, 8, loss) for epoch, loss in enumerate(result.losses)]
    assert result.cpu_s > 0
    json.dumps(result.options, allow_nan=False)


@pytest.mark.slow
@pytest.mark.parametrize("noise_model", ["gaussian", "poisson"])
def test_seed_settles_every_byte(small, noise_model):
    run = arguments(small, epochs=4, noise_model=noise_model)

    first, again = run_ptychi(**run), run_ptychi(**run)
    other = run_ptychi(**run | {"seed": 6})

    assert first.object_.tobytes() == again.object_.tobytes()
    assert first.losses.tobytes() == again.losses.tobytes()
    assert first.object_.tobytes() != other.object_.tobytes(), "the order of batches must change"


def test_running_epoch_by_epoch_changes_nothing(small, monkeypatch):
    """One call of the task for all epochs gives the same bytes as one call per epoch."""
    by_epoch = run_ptychi(**arguments(small, epochs=5))
    task = import_ptychi().api.task.PtychographyTask
    run = task.run

    def all_at_once(self, n_epochs, **_):
        if self.reconstructor.current_epoch == 0:
            run(self, n_epochs=5)

    monkeypatch.setattr(task, "run", all_at_once)

    assert run_ptychi(**arguments(small, epochs=5)).object_.tobytes() == by_epoch.object_.tobytes()


def test_the_lent_shift_is_pty_chis_own(small, monkeypatch):
    """Image by image; whole runs part, as a rounding turns the phase of a dark detector pixel."""
    image_proc, lent = import_ptychi().image_proc, ptychi_engine.shift
    own = image_proc.fourier_shift
    differences = []

    def compared(images, distances_px):
        shifted, expected = lent(images, distances_px), own(images, distances_px)
        differences.append(float((shifted - expected).abs().max() / expected.abs().max()))
        return shifted

    monkeypatch.setattr(ptychi_engine, "shift", compared)
    run_ptychi(**arguments(small, epochs=2, refine_probe=True))

    assert len(differences) >= 2 * 2 * 2  # two batches an epoch, forwards and back
    assert max(differences) < 1e-6
    assert image_proc.fourier_shift is own


def test_known_probe_stays_and_unknown_probe_is_found(small):
    wrong = (small.probe * 1.3).astype(np.complex64)

    known = run_ptychi(**arguments(small, epochs=3))
    refined = run_ptychi(**arguments(small, epochs=10, probe=wrong, refine_probe=True))

    assert known.probe.tobytes() == small.probe.tobytes()
    assert refined.probe.tobytes() != wrong.tobytes()
    assert refined.losses[-1] < 0.1 * refined.losses[0]


LEFT_AS_IT_WAS = """
import logging, random, sys
import numpy as np, torch
from study_lib.solvers.ptychi import run_ptychi
scene = dict(np.load(sys.argv[1]))
logger = logging.getLogger()
def state():
    return (logger.handlers[:], torch.get_default_dtype(), torch.initial_seed(),
        np.random.get_state()[1].tolist(), random.getstate(), torch.get_rng_state().tolist())
for seed in (np.random.seed, random.seed, torch.manual_seed):
    seed(99)
before = state()
run_ptychi(object_shape=tuple(scene.pop("shape").tolist()), **scene, epochs=1, batch_size=10,
    noise_model="gaussian", seed=3)
assert before == state()
"""


def test_process_is_left_as_it_was(small, tmp_path):
    """From the first import on, and in a process where no type checker draws random numbers."""
    np.savez(
        tmp_path / "scene.npz",
        amplitudes=small.amplitudes,
        positions_px=small.positions_px,
        probe=small.probe,
        shape=small.object_.shape,
    )

    result = subprocess.run(
        [sys.executable, "-c", LEFT_AS_IT_WAS, str(tmp_path / "scene.npz")],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )

    assert (result.returncode, result.stdout, result.stderr) == (0, "", "")


def test_arrays_that_do_not_fit_are_refused(small):
    with pytest.raises(InputError, match="leaves the object"):
        run_ptychi(**arguments(small, object_shape=(40, 40)))


def test_divergence_is_an_error(small):
    with pytest.raises(StudyError, match=r"LSQML (diverged|stopped)"):
        run_ptychi(**arguments(small, epochs=2, probe=1e25 * small.probe))


def test_missing_ptychi_names_the_remedy(small, monkeypatch):
    for name in [name for name in sys.modules if name.split(".")[0] == "ptychi"]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "ptychi", None)

    with pytest.raises(StudyError, match=r"pip install ptychi==2\.2\.0") as caught:
        run_ptychi(**arguments(small))

    assert "\n" not in str(caught.value)


HALF_LOADED = """
import torch
try:
    torch.ops.torchvision.nms
except AttributeError:
    raise RuntimeError("operator torchvision::nms does not exist") from None
"""


@pytest.mark.slow
def test_a_torchvision_whose_operators_do_not_load_is_mended(tmp_path):
    """As the released one beside a CPU torch, whatever is installed here."""
    (tmp_path / "torchvision").mkdir()
    (tmp_path / "torchvision" / "__init__.py").write_text(HALF_LOADED)
    code = (
        "from study_lib.solvers.ptychi import import_torchvision; import_torchvision(); "
        "import torchvision; print(torchvision.__file__)"
    )

    result = subprocess.run(
        [sys.executable, "-c", code],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
        env=os.environ | {"PYTHONPATH": str(tmp_path)},
    )

    assert result.stdout.startswith(str(tmp_path)), result.stderr


@pytest.mark.slow
def test_import_of_ptychi_is_lazy_and_leaves_torchmetrics_whole():
    """A torchvision that half loads breaks torchmetrics, which imports it too."""
    code = (
        "import sys; import study_lib.solvers.ptychi as engine; "
        "assert 'ptychi' not in sys.modules; "
        "assert engine.import_ptychi() is engine.import_ptychi(); "
        "import torchmetrics.image; print(torchmetrics.image.PeakSignalNoiseRatio.__name__)"
    )

    result = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=False
    )

    assert result.stdout.strip() == "PeakSignalNoiseRatio", result.stderr
