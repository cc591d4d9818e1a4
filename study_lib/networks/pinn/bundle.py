"""A trained network as a file that anyone can load, and that runs no code when it is loaded."""

import csv
import hashlib
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any

import torch

from study_lib.files import atomic_path
from study_lib.networks.checkpoints import content_of
from study_lib.networks.machine import in_layout
from study_lib.networks.pinn.config import TrainingConfig
from study_lib.networks.pinn.network import PatchNetwork
from study_lib.networks.registry import NetworkShape, build_network

# --- What a training did, epoch by epoch, as plain columns


@dataclass(frozen=True)
class EpochRecord:
    """One pass over the training groups.

    ``train`` is the mean loss during the pass, ``validation`` that of the held-out groups after it,
    in the measure that is minimised; the same groups in both measures are ``validation_poisson``
    and ``validation_amplitude``. ``gradient_norm`` is the mean over the steps, before clipping.
    ``seconds`` of wall time are for the whole epoch, ``patterns_per_s`` for its steps alone.
    """

    epoch: int
    train: float
    validation: float
    validation_poisson: float
    validation_amplitude: float
    learning_rate: float
    gradient_norm: float
    seconds: float
    patterns_per_s: float


SINGLE_VALUES = ("uniform_object", "kept_epoch", "stopped_early")
COLUMNS = [field.name for field in fields(EpochRecord)]


@dataclass(frozen=True)
class History:
    """Every epoch, the epoch whose weights were kept, and what a featureless object would have."""

    records: tuple[EpochRecord, ...]
    uniform_object: float
    kept_epoch: int
    stopped_early: bool

    @property
    def train(self) -> tuple[float, ...]:
        """Mean training loss of every epoch."""
        return tuple(record.train for record in self.records)

    @property
    def validation(self) -> tuple[float, ...]:
        """Loss of the held-out groups after every epoch."""
        return tuple(record.validation for record in self.records)

    @property
    def learning_rate(self) -> tuple[float, ...]:
        """Learning rate of every epoch."""
        return tuple(record.learning_rate for record in self.records)

    def as_dict(self) -> dict[str, Any]:
        """Return columns and single values as plain data."""
        columns = {name: [getattr(record, name) for record in self.records] for name in COLUMNS}
        return columns | {name: getattr(self, name) for name in SINGLE_VALUES}

    @classmethod
    def from_dict(cls, content: Mapping[str, Any]) -> "History":
        """Return the history that :meth:`as_dict` was made from."""
        rows = zip(*(content[name] for name in COLUMNS), strict=True)
        records = tuple(EpochRecord(*row) for row in rows)
        return cls(records, *(content[name] for name in SINGLE_VALUES))

    def write_csv(self, path: Path) -> None:
        """Write one ASCII line per epoch below a line of names, in one piece."""
        with (
            atomic_path(path) as temporary,
            temporary.open("w", encoding="ascii", newline="") as file,
        ):
            writer = csv.DictWriter(file, COLUMNS, lineterminator="\n")
            writer.writeheader()
            writer.writerows(asdict(record) for record in self.records)


# --- Bundles

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
    """Return what the builder of the network needs; the precision is decided already."""
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


def load_network(path: Path) -> TrainedNetwork:
    """Return the network that :func:`save_bundle` wrote; runs no code from the file.

    Parameters
    ----------
    path
        ``model.pt`` in a condition's folder of the training.

    Returns
    -------
    TrainedNetwork
        On the CPU, ready to be applied, with configuration and history.

    Raises
    ------
    InputError
        If the file is missing or is not such a bundle.

    Examples
    --------
    >>> import study_lib as study
    >>> condition = run.condition(1e4, "dense")  # run: study.open_run of a finished run's folder
    >>> trained = study.load_network(condition.folder("train") / "model.pt")
    >>> trained.config.channels, trained.config.side_px  # groups of 4 patterns, 16 pixels a side
    (4, 16)
    >>> len(trained.history.train) == trained.config.epochs
    True

    The object that it sees in patterns it has not learned from, in the frame of the positions:

    >>> measurement = condition.measurement()
    >>> study.apply_network(trained, measurement).shape == measurement.object_shape
    True
    """
    missing = "no trained network; run `study train` for this dose and view"
    with content_of(path, missing, "a network") as content:
        config = TrainingConfig(**content["config"])
        with torch.random.fork_rng(devices=[]):
            network = build_network(config.network, shape_of(config))
        network.load_state_dict(content["state"])
        return TrainedNetwork(
            in_layout(network, torch.channels_last).eval(),
            config,
            History.from_dict(content["history"]),
            content["training_cpu_s"],
            content["measurement_sha256"],
        )
