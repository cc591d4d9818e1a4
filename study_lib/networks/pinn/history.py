"""What a training did, epoch by epoch: losses, learning rate, time; kept as plain columns."""

import csv
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any

from study_lib.files import atomic_path


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
        names = [field.name for field in fields(EpochRecord)]
        columns = {name: [getattr(record, name) for record in self.records] for name in names}
        return columns | {
            "uniform_object": self.uniform_object,
            "kept_epoch": self.kept_epoch,
            "stopped_early": self.stopped_early,
        }

    @classmethod
    def from_dict(cls, content: Mapping[str, Any]) -> "History":
        """Return the history that :meth:`as_dict` was made from."""
        names = [field.name for field in fields(EpochRecord)]
        rows = zip(*(content[name] for name in names), strict=True)
        return cls(
            tuple(EpochRecord(**dict(zip(names, row, strict=True))) for row in rows),
            float(content["uniform_object"]),
            int(content["kept_epoch"]),
            bool(content["stopped_early"]),
        )

    def write_csv(self, path: Path) -> None:
        """Write one ASCII line per epoch below a line of names, in one piece."""
        names = [field.name for field in fields(EpochRecord)]
        with (
            atomic_path(path) as temporary,
            temporary.open("w", encoding="ascii", newline="") as file,
        ):
            writer = csv.DictWriter(file, names, lineterminator="\n")
            writer.writeheader()
            writer.writerows(asdict(record) for record in self.records)
