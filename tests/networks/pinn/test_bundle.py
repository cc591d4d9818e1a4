"""A bundle gives back the network it was written from, and runs no code."""

import pickle
from pathlib import Path

import pytest
import torch
from hostile import Evil
from small_training import config_of, fingerprint, measurement_of

from study_lib.errors import InputError
from study_lib.networks.pinn.bundle import load_network, save_bundle
from study_lib.networks.pinn.inference import apply_network
from study_lib.networks.pinn.training import train
from study_lib.physics.measurement import Measurement


def trained_on(measurement: Measurement, **changes):
    return train(measurement, config_of(measurement, **changes))


@pytest.mark.slow
def test_bundle_gives_the_same_reconstruction(tmp_path):
    measurement = measurement_of(gridsize=2)
    trained = trained_on(measurement, epochs=2, filters_scale=2)
    save_bundle(tmp_path / "model.pt", trained)

    loaded = load_network(tmp_path / "model.pt")

    assert fingerprint(loaded) == fingerprint(trained)
    assert loaded.history == trained.history
    assert loaded.training_cpu_s == trained.training_cpu_s
    first, second = (apply_network(each, measurement) for each in (trained, loaded))
    assert first.tobytes() == second.tobytes()


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
        load_network(bundle)

    assert not trace.exists()
    run(bundle)
    assert trace.exists()  # the trap works


@pytest.mark.parametrize("share", [0.0, 0.5, 0.99])
def test_truncated_bundle_is_refused(share, tmp_path):
    bundle = tmp_path / "model.pt"
    save_bundle(bundle, trained_on(measurement_of(step_px=8.0)))
    content = bundle.read_bytes()
    bundle.write_bytes(content[: int(share * len(content))])

    with pytest.raises(InputError, match="train it again"):
        load_network(bundle)


@pytest.mark.parametrize(
    "change",
    [
        lambda content: content.pop("state"),
        lambda content: content["config"].update(channels=4),
        lambda content: content["state"].popitem(),
        lambda content: content.update(history={}),
    ],
)
def test_bundle_of_another_shape_is_refused(change, tmp_path):
    bundle = tmp_path / "model.pt"
    save_bundle(bundle, trained_on(measurement_of(step_px=8.0)))
    content = torch.load(bundle, weights_only=True)
    change(content)
    torch.save(content, bundle)

    with pytest.raises(InputError, match="train it again"):
        load_network(bundle)


def test_missing_bundle_names_the_command_that_makes_it(tmp_path):
    with pytest.raises(InputError, match="no trained network; run `study train`"):
        load_network(tmp_path / "model.pt")
