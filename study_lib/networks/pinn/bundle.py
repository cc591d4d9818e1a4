"""A trained network as a file that anyone can load, and that runs no code when it is loaded."""

import hashlib
import pickle
from dataclasses import dataclass
from pathlib import Path

import torch

from study_lib.errors import InputError
from study_lib.files import atomic_path
from study_lib.networks.pinn.config import TrainingConfig
from study_lib.networks.pinn.history import History
from study_lib.networks.pinn.network import PatchNetwork, in_layout
from study_lib.networks.registry import NetworkShape, build_network

BUNDLE = "model.pt"


@dataclass(frozen=True)
class TrainedNetwork:
    """A network, how it came about, and the file it was trained on, if known."""

    network: PatchNetwork
    config: TrainingConfig
    history: History
    training_cpu_s: float
    measurement_sha256: str = ""


def shape_of(config: TrainingConfig) -> NetworkShape:
    """Return what the builder of the network is told; the precision has been decided."""
    return NetworkShape(
        channels=config.channels,
        side_px=config.side_px,
        filters_scale=config.filters_scale,
        half_precision=config.precision == "bfloat16",
    )


def weights_sha256(network: PatchNetwork) -> str:
    """Return the SHA-256 of all weights and buffers, whatever else is in a bundle beside them."""
    digest = hashlib.sha256()
    for name, value in sorted(network.state_dict().items()):
        digest.update(name.encode())
        digest.update(value.cpu().contiguous().numpy().tobytes())
    return digest.hexdigest()


def save_bundle(path: Path, trained: TrainedNetwork) -> None:
    """Write weights, configuration and history of a network; loads with ``weights_only=True``."""
    content = {
        "state": {name: value.cpu() for name, value in trained.network.state_dict().items()},
        "config": trained.config.model_dump(mode="json"),
        "history": trained.history.as_dict(),
        "training_cpu_s": trained.training_cpu_s,
        "measurement_sha256": trained.measurement_sha256,
    }
    with atomic_path(path) as temporary:
        torch.save(content, temporary)


def load_bundle(path: Path) -> TrainedNetwork:
    """Return the network that :func:`save_bundle` wrote; runs no code from the file.

    Raises
    ------
    InputError
        If the file is missing or is not such a bundle.
    """
    if not path.is_file():
        raise InputError(f"{path}: no trained network; run `study train` for this dose and view")
    try:
        content = torch.load(path, map_location="cpu", weights_only=True)
        config = TrainingConfig(**content["config"])
        with torch.random.fork_rng(devices=[]):
            network = build_network(config.network, shape_of(config))
        network.load_state_dict(content["state"])
        history = History.from_dict(content["history"])
        training_cpu_s = float(content["training_cpu_s"])
        measurement_sha256 = str(content["measurement_sha256"])
    except pickle.UnpicklingError:  # whose text advises to load it all the same
        raise InputError(
            f"{path}: not a network of this study (torn, or holds more than numbers and text); "
            "train it again"
        ) from None
    except Exception as error:  # torch raises many types here; each means the same to the user
        raise InputError(f"{path}: not a network of this study ({error}); train it again") from None
    channels_last = in_layout(network, torch.channels_last)
    return TrainedNetwork(channels_last.eval(), config, history, training_cpu_s, measurement_sha256)
