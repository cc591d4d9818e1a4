"""Training explains counts without an object, is repeatable, and keeps to its own seeds."""

import dataclasses
import hashlib
import inspect
import pickle
from pathlib import Path

import numpy as np
import pytest
import torch

from study_lib.errors import InputError
from study_lib.measurement import Measurement
from study_lib.network import PtychoPinn
from study_lib.presets import load_design
from study_lib.training import History, TrainedNetwork, reconstruct, train
from study_lib.training_job import load_bundle, save_bundle

SIDE = 16
SHAPE = (40, 46)
HELD_OUT_SHARE = 0.2
SETTINGS = load_design("smoke").training.model_dump() | {
    "batch_size": 6,
    "filters_scale": 1,
    "steps_min": 0,
    "validation_share": HELD_OUT_SHARE,
    "precision": "float32",
}


@pytest.fixture(scope="module", autouse=True)
def one_thread():
    """Sums depend on how they are cut into threads."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


def true_object() -> np.ndarray:
    y, x = np.mgrid[: SHAPE[0], : SHAPE[1]]
    phase = 0.5 * np.sin(y / 3 + x / 7) + 0.4 * ((x > 18) & (y > 12) & (y < 12 + x / 2))
    return ((0.9 - 0.2 * (np.hypot(y - 22, x - 20) < 6)) * np.exp(1j * phase)).astype(np.complex64)


def cut(object_: np.ndarray, positions_px: np.ndarray) -> np.ndarray:
    corners = np.round(positions_px).astype(int) - SIDE // 2
    return np.array([object_[y : y + SIDE, x : x + SIDE] for y, x in corners])


def measurement_of(*, gridsize: int = 1, photons: float = 1e5, step_px: float = 4.0) -> Measurement:
    """Return Poisson counts of the true object at whole-pixel positions, numpy's FFT."""
    random = np.random.default_rng(17)
    rows, columns = np.arange(9, 31, step_px), np.arange(10, 37, step_px)
    positions = np.stack(np.meshgrid(rows, columns, indexing="ij"), -1).reshape(-1, 2)
    y, x = np.mgrid[:SIDE, :SIDE] - SIDE / 2
    probe = np.exp(-(y**2 + (x - 1) ** 2) / 18 + 0.06j * (y**2 + x**2))
    probe *= np.sqrt(photons / (np.abs(probe) ** 2).sum())
    waves = probe * cut(true_object(), positions)
    detector = np.fft.fftshift(np.fft.fft2(waves, norm="ortho"), axes=(-2, -1))
    every = np.arange(len(positions))
    nearest = np.linalg.norm(positions[:, None] - positions, axis=-1).argsort(axis=1, kind="stable")
    return Measurement(
        amplitudes=np.sqrt(random.poisson(np.abs(detector) ** 2)).astype(np.float32),
        positions_px=positions.astype(np.float64),
        probe=probe.astype(np.complex64),
        groups=nearest[:, : gridsize**2].astype(np.int64),
        scan_index=every,
        object_shape=SHAPE,
    )


def trained_on(measurement: Measurement, *, epochs: int = 1, seed: int = 3, **changes):
    return train(measurement, seed=seed, **(SETTINGS | {"epochs": epochs} | changes))


def fingerprint(trained: TrainedNetwork) -> str:
    """Return a hash of every weight."""
    digest = hashlib.sha256()
    for name, weight in sorted(trained.network.state_dict().items()):
        digest.update(name.encode() + weight.contiguous().numpy().tobytes())
    return digest.hexdigest()


class TrueNetwork(PtychoPinn):
    """Knows its patterns by heart and answers each with the true patch, turned by a phase."""

    def __init__(self, measurement: Measurement) -> None:
        super().__init__(channels=1, side=SIDE, filters_scale=1)
        self.known = torch.from_numpy(measurement.amplitudes)
        self.patches = torch.from_numpy(cut(true_object(), measurement.positions_px))

    def forward(self, amplitudes: torch.Tensor) -> torch.Tensor:
        distances = torch.cdist(amplitudes.flatten(2).flatten(0, 1), self.known.flatten(1))
        which = distances.argmin(dim=1).reshape(amplitudes.shape[:2])
        phase = which[:, 0].float()[:, None, None, None]  # its own for each group
        return self.patches[which] * torch.polar(torch.ones_like(phase), phase)


def test_arms_are_told_no_object():
    fields = {field.name for field in dataclasses.fields(Measurement)}

    assert fields == {
        "amplitudes",
        "positions_px",
        "probe",
        "groups",
        "scan_index",
        "object_shape",
        "bad_pixels",
    }
    assert "object_" not in inspect.signature(train).parameters


@pytest.mark.parametrize("gridsize", [1, 2])
def test_network_learns_more_than_a_featureless_object(gridsize):
    measurement = measurement_of(gridsize=gridsize, step_px=5.0)

    history = trained_on(
        measurement, epochs=15, batch_size=3, learning_rate=2e-3, plateau_patience=5
    ).history

    assert history.train[0] > history.uniform_object
    assert history.train[-1] < 0.8 * history.uniform_object
    assert history.validation[-1] < 0.5 * history.validation[0]


def test_uniform_object_loss_is_that_of_the_best_constant():
    """Brute force over constant amplitudes: none explains the counts better than the one used."""
    measurement = measurement_of()
    measured = measurement.counts
    detector = np.fft.fftshift(np.fft.fft2(measurement.probe, norm="ortho"), axes=(-2, -1))
    pattern = np.abs(detector).astype(np.float64) ** 2

    def half_deviance(amplitude):
        expected = amplitude**2 * pattern + 1e-6
        ratio = np.log(np.where(measured > 0, measured, 1) / expected)
        return (expected - measured + measured * ratio).mean()

    best = min(half_deviance(amplitude) for amplitude in np.linspace(0.6, 1, 401))

    reported = trained_on(measurement).history.uniform_object
    assert reported == pytest.approx(best, rel=1e-3)


def test_same_seed_gives_the_same_bytes_and_another_seed_does_not():
    measurement = measurement_of()

    first = fingerprint(trained_on(measurement, epochs=2))

    assert fingerprint(trained_on(measurement, epochs=2)) == first
    assert fingerprint(trained_on(measurement, epochs=2, seed=4)) != first


def test_training_neither_reads_nor_moves_the_global_random_state():
    measurement = measurement_of()
    torch.manual_seed(0)
    np.random.seed(0)
    before, before_numpy = torch.get_rng_state(), np.random.get_state()[1].copy()

    first = fingerprint(trained_on(measurement))

    assert torch.equal(torch.get_rng_state(), before)
    assert (np.random.get_state()[1] == before_numpy).all()
    torch.manual_seed(1)
    assert fingerprint(trained_on(measurement)) == first


def test_only_held_out_patterns_leave_the_weights_alone(monkeypatch):
    """Roll one pattern at a time: a fifth of them, the validation groups, changes no weight.

    Mean and deviation of the input are those of all patterns, so they are left out here.
    """
    monkeypatch.setattr(PtychoPinn, "fit_input", lambda network, amplitudes: None)
    measurement = measurement_of(photons=2e3, step_px=7.0)
    count = len(measurement.amplitudes)
    reference = trained_on(measurement)

    without_influence, validation_moved = 0, 0
    for index in range(count):
        amplitudes = measurement.amplitudes.copy()
        amplitudes[index] = np.roll(amplitudes[index], 3, axis=0)
        changed = trained_on(dataclasses.replace(measurement, amplitudes=amplitudes))
        if fingerprint(changed) == fingerprint(reference):
            without_influence += 1
            validation_moved += changed.history.validation != reference.history.validation

    held_out = round(HELD_OUT_SHARE * count)
    assert without_influence == validation_moved == held_out


def test_learning_rate_falls_to_its_floor_and_no_further():
    """Without patience, and at a rate that spoils every step, it halves until the floor."""
    history = trained_on(
        measurement_of(step_px=8.0),
        epochs=12,
        learning_rate=0.4,
        learning_rate_min=0.1,
        plateau_patience=0,
    ).history

    assert set(history.learning_rate) == {0.4, 0.2, 0.1}
    assert list(history.learning_rate) == sorted(history.learning_rate, reverse=True)
    assert len(history.train) == len(history.validation) == len(history.learning_rate) == 12


def test_small_view_gets_as_many_steps_as_asked_for():
    """Twelve patterns, two held out: ten groups are two steps of six an epoch."""
    measurement = measurement_of(step_px=8.0)
    assert len(measurement.groups) == 12

    assert len(trained_on(measurement, steps_min=9).history.train) == 5
    assert len(trained_on(measurement, steps_min=9, epochs=7).history.train) == 7


def test_progress_reports_every_epoch_with_its_loss():
    reports = []

    def note(*report):
        reports.append(report)

    trained = trained_on(measurement_of(), epochs=3, progress=note)

    assert reports == [(epoch, 3, loss) for epoch, loss in enumerate(trained.history.train, 1)]


@pytest.mark.parametrize("gridsize", [1, 2])
def test_true_patches_become_the_true_object(gridsize):
    """A perfect network is seen as perfect: nothing between it and the object moves or blurs."""
    measurement = measurement_of(gridsize=gridsize)
    nothing = History((0.0,), (0.0,), (0.0,), 0.0)
    perfect = TrainedNetwork(TrueNetwork(measurement), nothing, 0.0)

    object_ = reconstruct(perfect, measurement)

    rows, columns = slice(1, 37), slice(2, 42)
    lit, truth = object_[rows, columns], true_object()[rows, columns]
    lit = lit * np.exp(-1j * np.angle((lit * truth.conj()).sum()))
    np.testing.assert_allclose(lit, truth, atol=1e-4)


@pytest.mark.parametrize("gridsize", [1, 2])
def test_reconstruction_covers_the_patches_in_the_frame_of_the_object(gridsize):
    measurement = measurement_of(gridsize=gridsize)

    object_ = reconstruct(trained_on(measurement), measurement)

    covered = np.zeros(SHAPE, dtype=bool)
    for y, x in np.round(measurement.positions_px).astype(int) - SIDE // 2:
        covered[y : y + SIDE, x : x + SIDE] = True
    assert object_.shape == SHAPE
    assert (object_[~covered] == 1).all()
    assert (object_[covered] != 1).all()
    assert np.abs(object_).max() <= 1 + 1e-6


def test_bundle_gives_the_same_reconstruction(tmp_path):
    measurement = measurement_of(gridsize=2)
    trained = trained_on(measurement, epochs=2, filters_scale=2)
    save_bundle(tmp_path / "model.pt", trained, 2)

    loaded = load_bundle(tmp_path / "model.pt")

    assert fingerprint(loaded) == fingerprint(trained)
    assert loaded.history == trained.history
    assert loaded.training_cpu_s == trained.training_cpu_s
    first, second = (reconstruct(each, measurement) for each in (trained, loaded))
    assert first.tobytes() == second.tobytes()


class Evil:
    """Creates a file when it is unpickled."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self):
        return Path.touch, (self.path,)


def write_pickle(content: object, path: Path) -> None:
    path.write_bytes(pickle.dumps(content, protocol=2))


def read_pickle(path: Path) -> object:
    return pickle.loads(path.read_bytes())


@pytest.mark.parametrize(
    ("save", "run"),
    [(torch.save, lambda path: torch.load(path, weights_only=False)), (write_pickle, read_pickle)],
    ids=["torch", "pickle"],
)
def test_bundle_that_would_run_code_is_refused(save, run, tmp_path):
    trace, bundle = tmp_path / "was_here", tmp_path / "model.pt"
    save(Evil(trace), bundle)

    with pytest.raises(InputError, match=r"model\.pt: not a network of this study"):
        load_bundle(bundle)

    assert not trace.exists()
    run(bundle)
    assert trace.exists()  # the trap works


@pytest.mark.parametrize("share", [0.0, 0.5, 0.99])
def test_truncated_bundle_is_refused(share, tmp_path):
    bundle = tmp_path / "model.pt"
    save_bundle(bundle, trained_on(measurement_of(step_px=8.0)), 1)
    content = bundle.read_bytes()
    bundle.write_bytes(content[: int(share * len(content))])

    with pytest.raises(InputError, match="train it again"):
        load_bundle(bundle)


@pytest.mark.parametrize(
    "change",
    [
        lambda content: content.pop("state"),
        lambda content: content.update(channels=4),
        lambda content: content["state"].popitem(),
        lambda content: content.update(history={}),
    ],
)
def test_bundle_of_another_shape_is_refused(change, tmp_path):
    bundle = tmp_path / "model.pt"
    save_bundle(bundle, trained_on(measurement_of(step_px=8.0)), 1)
    content = torch.load(bundle, weights_only=True)
    change(content)
    torch.save(content, bundle)

    with pytest.raises(InputError, match="train it again"):
        load_bundle(bundle)


def test_missing_bundle_names_the_command_that_makes_it(tmp_path):
    with pytest.raises(InputError, match="no trained network; run `study train`"):
        load_bundle(tmp_path / "model.pt")
