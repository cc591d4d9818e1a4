"""Training by the upstream package PtychoPINN, where the user has installed it.

Hoidn, Mishra and Mehta, Sci. Rep. 13, 22789 (2023), doi:10.1038/s41598-023-48351-7. The package
keeps its settings in one global dictionary, which its loaders read: it is filled once per job,
before any of them, and put back afterwards.
"""

import copy
import importlib
import math
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np

from study_lib.data.archive import open_npz
from study_lib.errors import InputError, StudyError
from study_lib.files import sha256_of, write_json
from study_lib.networks.pinn.config import TrainingConfig
from study_lib.phases.backends import TrainingRequest, TrainingResult
from study_lib.phases.training_jobs import TrainingJob
from study_lib.physics.measurement import Measurement

UPSTREAM_BUNDLE = "wts.h5.zip"


class PtychoPinnBackend:
    """Train with ``ptycho_torch``."""

    @contextmanager
    def bridged(self, config: TrainingConfig, job: TrainingJob) -> Iterator[Any]:
        """Fill the package's configuration from ours, for the time of one job (CONFIG-001).

        Raises
        ------
        InputError
            If the package is missing, or a knob of ours is unknown to it.
        """
        upstream, params = _module("ptycho.config.config"), _module("ptycho.params")
        _require_known(config)
        gridsize = math.isqrt(config.channels)
        settings = upstream.TrainingConfig(
            model=upstream.ModelConfig(
                N=config.side_px,
                gridsize=gridsize,
                n_filters_scale=config.filters_scale,
                model_type="pinn",
            ),
            train_data_file=job.train_data_path,
            test_data_file=job.test_data_path,
            batch_size=config.batch_size,
            nepochs=config.epochs,
            nll_weight=1.0,
            mae_weight=0.0,
            nphotons=job.dose,
            n_groups=config.n_groups or _groups_in(job.train_data_path),
            neighbor_count=config.neighbor_count,
            subsample_seed=config.seed,
            output_dir=job.artifact_dir,
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
                f"{request.job.label}: ptycho_torch reported the training losses {losses}; the "
                "network is not kept"
            )
        folder = request.job.artifact_dir
        folder.mkdir(parents=True, exist_ok=True)
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
