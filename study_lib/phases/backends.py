"""Who trains: the project's own loop, or the upstream package (CONFIG-001)."""

import copy
import importlib
import math
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from types import ModuleType
from typing import Any, Protocol, runtime_checkable

import numpy as np
import torch
from jaxtyping import Complex

from study_lib.data.archive import open_npz
from study_lib.errors import InputError, StudyError
from study_lib.files import sha256_of, write_json, write_npz
from study_lib.networks.checkpoints import CHECKPOINTS
from study_lib.networks.machine import device_of
from study_lib.networks.pinn.bundle import (
    BUNDLE,
    EpochRecord,
    save_bundle,
    weights_sha256,
)
from study_lib.networks.pinn.config import TrainingConfig
from study_lib.networks.pinn.inference import apply_network
from study_lib.networks.pinn.network import PatchNetwork
from study_lib.networks.pinn.training import GroupTensors
from study_lib.networks.pinn.training import train as train_network
from study_lib.phases.conditions import Condition
from study_lib.phases.records import Work
from study_lib.physics.forward import corners_of, patches_at
from study_lib.physics.measurement import Measurement, require_one_mode
from study_lib.scores.featureless import stayed_text, stays_featureless

# --- What a backend is asked for, and what it gives back


@dataclass(frozen=True)
class TrainingRequest:
    """One training: of which condition, with which knobs, and what takes its progress.

    ``work`` is the record of the training, with the hashes of its files and its log; ``epoch``
    takes the record of an epoch and the number of all.
    """

    condition: Condition
    config: TrainingConfig
    work: Work
    epoch: Callable[[EpochRecord, int], None]


@dataclass(frozen=True)
class TrainingResult:
    """What a training left: plain values for its record, and the files that belong to it."""

    values: dict[str, Any]
    files: tuple[Path, ...]


@runtime_checkable
class Backend(Protocol):
    """A way to train."""

    def bridged(self, config: TrainingConfig, condition: Condition) -> AbstractContextManager[Any]:
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
            Condition, configuration, and what takes its progress.
        train, test
            The two splits; the network learns from the first alone.
        """


# --- The upstream package PtychoPINN, where the user has installed it
#
# Hoidn, Mishra and Mehta, Sci. Rep. 13, 22789 (2023), doi:10.1038/s41598-023-48351-7. The package
# keeps its settings in one global dictionary, which its loaders read: it is filled once per job,
# before any of them, and put back afterwards.

UPSTREAM_BUNDLE = "wts.h5.zip"


class PtychoPinnBackend:
    """Train with ``ptycho_torch``."""

    @contextmanager
    def bridged(self, config: TrainingConfig, condition: Condition) -> Iterator[Any]:
        """Fill the package's configuration from ours, for the time of one job (CONFIG-001).

        Raises
        ------
        InputError
            If the package is missing, or a knob of ours is unknown to it.
        """
        upstream, params = _module("ptycho.config.config"), _module("ptycho.params")
        _require_known(config)
        gridsize = math.isqrt(config.channels)
        train_file = condition.of("train").file
        settings = upstream.TrainingConfig(
            model=upstream.ModelConfig(
                N=config.side_px,
                gridsize=gridsize,
                n_filters_scale=config.filters_scale,
                model_type="pinn",
            ),
            train_data_file=train_file,
            test_data_file=condition.of("test").file,
            batch_size=config.batch_size,
            nepochs=config.epochs,
            nll_weight=1.0,
            mae_weight=0.0,
            nphotons=condition.dose,
            n_groups=config.n_groups or _groups_in(train_file),
            neighbor_count=config.neighbor_count,
            subsample_seed=config.seed,
            output_dir=condition.folder("train"),
            backend="pytorch",
        )
        before = copy.deepcopy(params.cfg)
        try:
            upstream.update_legacy_dict(params.cfg, settings)
            yield settings
        finally:
            params.cfg.clear()
            params.cfg.update(before)

    def train(
        self, settings: Any, request: TrainingRequest, train: Measurement, test: Measurement
    ) -> TrainingResult:
        """Hand both splits to the upstream trainer and keep its bundle.

        The object that the package wants beside the patterns is a uniform one: it never sees the
        truth.

        Raises
        ------
        StudyError
            If the trainer reports no loss, or one that is not a number.
        """
        components = _module("ptycho_torch.workflows.components")
        manager = _module("ptycho_torch.model_manager")
        found = components.train_cdi_model_torch(_raw_data(train), _raw_data(test), settings)
        losses = [float(loss) for loss in found.get("history", {}).get("train_loss") or []]
        if not losses or not np.isfinite(losses).all():
            raise StudyError(
                f"{request.condition.training_label}: ptycho_torch reported the training losses "
                f"{losses}; the network is not kept"
            )
        folder = request.work.folder
        bundle = folder / UPSTREAM_BUNDLE
        manager.save_torch_bundle(found["models"], str(folder / "wts.h5"), settings)
        if not bundle.is_file():
            raise StudyError(f"{bundle}: ptycho_torch wrote no bundle; update the package")
        write_json(folder / "history.json", {"train": losses})
        values = {
            "patterns": len(train.scan_index),
            "groups": settings.n_groups,
            "final_loss": losses[-1],
            "epochs": len(losses),
            "bundle": bundle.name,
            "bundle_sha256": sha256_of(bundle),
            "bundle_bytes": bundle.stat().st_size,
        }
        return TrainingResult(values, (bundle, folder / "history.json"))


def _module(name: str) -> ModuleType:
    try:
        return importlib.import_module(name)
    except ImportError as error:
        raise InputError(
            f"backend ptychopinn: {error}; install the package PtychoPINN "
            "(https://github.com/hoidn/PtychoPINN), or use --backend native"
        ) from None


def _require_known(config: TrainingConfig) -> None:
    """Check that nothing is asked for that the package would pass over in silence.

    Raises
    ------
    InputError
        If something is.
    """
    wanted = {"loss": "poisson", "network": "pinn", "early_stopping_patience": None}
    other = [
        f"training.{name} = {getattr(config, name)} (it has {value})"
        for name, value in wanted.items()
        if getattr(config, name) != value
    ]
    if other:
        raise InputError(
            f"backend ptychopinn cannot do {', '.join(other)}; change it or use --backend native"
        )


def _groups_in(path: Path) -> int:
    """Return how many groups a file has, from its headers alone; no loader may run yet."""
    with open_npz(path) as archive:
        members = archive.members
        return int(members["groups" if "groups" in members else "diffraction"].shape[0])


def _raw_data(measurement: Measurement) -> Any:
    """Return the patterns as the package's own container; amplitudes, as it expects."""
    require_one_mode("the upstream package", measurement)
    y, x = measurement.positions_px.T
    return _module("ptycho.raw_data").RawData(
        xcoords=x,
        ycoords=y,
        xcoords_start=x,
        ycoords_start=y,
        diff3d=measurement.amplitudes,
        probeGuess=measurement.probe,
        scan_index=measurement.scan_index,
        objectGuess=np.ones(measurement.object_shape, np.complex64),
    )


# --- A few test patches while it learns: kept to be looked at, without influence on anything

PATCHES = 3


class PatchSnapshots:
    """Patches of a few test patterns after epochs 1, 2, 4, 8 and so on, and the last.

    Parameters
    ----------
    test
        The test split; its patterns are passed through the network, nothing is learned from them.
    truth : (oy, ox)
        The object, for the true patches beside them.
    """

    def __init__(self, test: Measurement, truth: Complex[np.ndarray, "oy ox"]) -> None:
        count = len(test.groups)
        rows = np.linspace(0, count - 1, min(PATCHES, count) + 2).round().astype(int)[1:-1]
        self._data, self._rows = GroupTensors.of(test), torch.from_numpy(np.unique(rows))
        first = self._data.groups[self._rows][:, 0]
        positions = self._data.positions_px[first]
        side = test.probe.shape[-1]
        corners = corners_of(positions, side)
        self.truth = patches_at(torch.from_numpy(truth), corners, side).numpy()
        self.positions_px = positions.numpy()
        self.epochs: list[int] = []
        self.patches: list[np.ndarray] = []

    def after_epoch(self, epoch: int, network: PatchNetwork) -> None:
        """Keep the patches after an epoch, if it is 1, 2, 4, 8 and so on."""
        if epoch & (epoch - 1) == 0:
            self.keep(epoch, network)

    def keep(self, epoch: int, network: PatchNetwork) -> None:
        """Keep what the network makes of the patches now, unless this epoch is kept already."""
        if epoch in self.epochs:
            return
        device = next(network.parameters()).device
        training = network.training
        network.eval()
        with torch.no_grad():
            patches = network(self._data.batch(self._rows).amplitudes.to(device))[:, 0]
        network.train(training)
        self.epochs.append(epoch)
        self.patches.append(patches.cpu().numpy())

    def write(self, path: Path) -> None:
        """Write ``patches`` (epoch, patch, N, N), ``truth``, ``epochs`` and ``positions_px``."""
        arrays = {
            "patches": np.stack(self.patches),
            "truth": self.truth,
            "epochs": np.array(self.epochs),
            "positions_px": self.positions_px,
        }
        write_npz(path, arrays, {"split": "test"})


# --- The project's own training

SNAPSHOTS = "test_patches.npz"
KEPT_SCORES = ("phase_ssim", "phase_ms_ssim", "registration")


class NativeBackend:
    """Train with this project's own loop."""

    @contextmanager
    def bridged(self, config: TrainingConfig, condition: Condition) -> Iterator[TrainingConfig]:
        """Give the configuration as it is; nothing global has to know it."""
        yield config

    def train(
        self,
        settings: TrainingConfig,
        request: TrainingRequest,
        train: Measurement,
        test: Measurement,
    ) -> TrainingResult:
        """Train or go on training; write bundle and history, and score the test half once.

        The checkpoints of an interrupted training are taken up, and the caller removes
        them when the record is written: until then a fault must not cost the training.
        """
        folder = request.work.folder
        threads = settings.threads or torch.get_num_threads()
        request.work.report_device(str(device_of(settings.device)), threads)
        condition = request.condition
        snapshots = PatchSnapshots(test, condition.of("test").truth())
        trained = train_network(
            train,
            settings,
            checkpoints=folder / CHECKPOINTS,
            progress=request.epoch,
            watch=snapshots.after_epoch,
            warn=request.work.log.warn,
        )
        snapshots.keep(trained.history.kept_epoch, trained.network)
        made_from = request.work.sha256_of_input(condition.of("train").file)
        trained = replace(trained, measurement_sha256=made_from)
        bundle = folder / BUNDLE
        save_bundle(bundle, trained)
        history = trained.history
        snapshots.write(folder / SNAPSHOTS)
        write_json(folder / "history.json", history.as_dict())
        history.write_csv(folder / "history.csv")
        scores, _ = condition.of("test").score(apply_network(trained, test))
        stays = stays_featureless(history.train[-1], history.uniform_object)
        if stays:
            request.work.log.warn(
                f"warning: {stayed_text(history.train[-1], history.uniform_object)}"
            )
        values = {
            "patterns": len(train.scan_index),
            "groups": len(train.groups),
            "precision": trained.config.precision,
            "parameters": sum(weight.numel() for weight in trained.network.parameters()),
            "final_loss": history.train[-1],
            "validation_loss": history.validation[-1],
            "uniform_object_loss": history.uniform_object,
            "stayed_featureless": stays,
            "epochs": len(history.train),
            "kept_epoch": history.kept_epoch,
            "stopped_early": history.stopped_early,
            "training_cpu_s": trained.training_cpu_s,
            "patterns_per_s": max(record.patterns_per_s for record in history.records),
            "weights_sha256": weights_sha256(trained.network),
            "bundle": bundle.name,
            "bundle_sha256": sha256_of(bundle),
            "bundle_bytes": bundle.stat().st_size,
            "test": {name: scores[name] for name in KEPT_SCORES},
        }
        files = (bundle, *(folder / name for name in ("history.json", "history.csv", SNAPSHOTS)))
        return TrainingResult(values, files)
