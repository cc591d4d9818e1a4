"""The project's own training: network, checkpoints, bundle, and what the test half looks like."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace

import numpy as np
import torch

from study_lib.data.contract import load_object
from study_lib.files import sha256_of, write_json
from study_lib.networks.checkpoints import CHECKPOINTS
from study_lib.networks.machine import device_of
from study_lib.networks.pinn.bundle import BUNDLE, TrainedNetwork, save_bundle, weights_sha256
from study_lib.networks.pinn.config import TrainingConfig
from study_lib.networks.pinn.inference import reconstruct
from study_lib.networks.pinn.training import train as train_network
from study_lib.phases.backends import TrainingRequest, TrainingResult
from study_lib.phases.patch_snapshots import PatchSnapshots
from study_lib.phases.training_jobs import TrainingJob
from study_lib.physics.measurement import Measurement
from study_lib.scores.scoring import scored_pixels, scores_of

SNAPSHOTS = "test_patches.npz"
KEPT_SCORES = ("phase_ssim", "phase_ms_ssim", "registration")


class NativeBackend:
    """Train with this project's own loop."""

    @contextmanager
    def bridged(self, config: TrainingConfig, job: TrainingJob) -> Iterator[TrainingConfig]:
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

        The checkpoints of an interrupted training are taken up, and left to whoever keeps the
        record: until that is written, a fault must not cost the training.
        """
        folder = request.job.artifact_dir
        threads = settings.threads or torch.get_num_threads()
        request.used(str(device_of(settings.device)), threads)
        truth, _ = load_object(request.job.test_data_path)
        snapshots = PatchSnapshots(test, truth)
        trained = train_network(
            train,
            settings,
            checkpoints=folder / CHECKPOINTS,
            progress=request.epoch,
            watch=snapshots.watch,
            note=request.note,
        )
        snapshots.look(trained.history.kept_epoch, trained.network)
        trained = replace(trained, measurement_sha256=request.train_sha256)
        bundle = folder / BUNDLE
        save_bundle(bundle, trained)
        history = trained.history
        snapshots.write(folder / SNAPSHOTS)
        write_json(folder / "history.json", history.as_dict())
        history.write_csv(folder / "history.csv")
        values = {
            "patterns": len(train.scan_index),
            "groups": len(train.groups),
            "precision": trained.config.precision,
            "parameters": sum(weight.numel() for weight in trained.network.parameters()),
            "final_loss": history.train[-1],
            "validation_loss": history.validation[-1],
            "uniform_object_loss": history.uniform_object,
            "epochs": len(history.train),
            "kept_epoch": history.kept_epoch,
            "stopped_early": history.stopped_early,
            "training_cpu_s": trained.training_cpu_s,
            "patterns_per_s": max(record.patterns_per_s for record in history.records),
            "weights_sha256": weights_sha256(trained.network),
            "bundle": bundle.name,
            "bundle_sha256": sha256_of(bundle),
            "bundle_bytes": bundle.stat().st_size,
            "test": _test_scores(trained, request, test, truth),
        }
        files = (bundle, *(folder / name for name in ("history.json", "history.csv", SNAPSHOTS)))
        return TrainingResult(values, files)


def _test_scores(
    trained: TrainedNetwork, request: TrainingRequest, test: Measurement, truth: np.ndarray
) -> dict[str, float | str | None]:
    """Return how the stitched test half compares with the truth: seen, and used for nothing."""
    metrics = request.design.metrics
    crop, mask = scored_pixels(test, metrics.illumination_threshold)
    scores, _ = scores_of(
        reconstruct(trained, test),
        truth,
        crop,
        mask,
        registration_limit_px=metrics.registration_limit_px,
        frc_threshold=metrics.frc_threshold,
    )
    return {name: scores[name] for name in KEPT_SCORES}
