"""What a training backend is asked for, and what it gives back."""

from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

from study_lib.design.models import StudyDesign
from study_lib.networks.pinn.bundle import EpochRecord
from study_lib.networks.pinn.config import TrainingConfig
from study_lib.phases.training_jobs import TrainingJob
from study_lib.physics.measurement import Measurement


@dataclass(frozen=True)
class TrainingRequest:
    """One training: what is trained how, on which patterns, and who is told of every epoch.

    ``train_sha256`` is that of the train split's file before it was read; ``epoch`` is called with
    its record and the number of all epochs, ``note`` with a line on anything that is not as it
    should be, ``used`` with the device and the threads that the training has.
    """

    job: TrainingJob
    config: TrainingConfig
    design: StudyDesign
    train_sha256: str
    epoch: Callable[[EpochRecord, int], None]
    note: Callable[[str], None]
    used: Callable[[str, int], None]


@dataclass(frozen=True)
class TrainingResult:
    """What a training left: plain values for its record, and the files that belong to it."""

    values: dict[str, Any]
    files: tuple[Path, ...]


@runtime_checkable
class Backend(Protocol):
    """A way to train."""

    def bridged(self, config: TrainingConfig, job: TrainingJob) -> AbstractContextManager[Any]:
        """Turn the configuration into the backend's own, for the time of one job (CONFIG-001)."""

    def train(
        self, settings: Any, request: TrainingRequest, train: Measurement, test: Measurement
    ) -> TrainingResult:
        """Train on the patterns of the train split and keep the network in the job's folder.

        Parameters
        ----------
        settings
            What :meth:`bridged` gave.
        request
            Job, configuration, and who is told.
        train, test
            The two splits; the network learns from the first alone.
        """
