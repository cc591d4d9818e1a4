"""The loop of a training: what changes from step to step, and how it is kept and taken up."""

import copy
import math
import time
from collections.abc import Callable
from dataclasses import asdict
from typing import Any

import torch
from torch import Tensor, nn

from study_lib.errors import StudyError
from study_lib.networks.checkpoints import CheckpointFolder
from study_lib.networks.machine import StopRequest, TrainingStopped, random_state, set_random_state
from study_lib.networks.pinn.bundle import TrainedNetwork, shape_of
from study_lib.networks.pinn.config import TrainingConfig
from study_lib.networks.pinn.history import EpochRecord, History
from study_lib.networks.pinn.learning_rate import Schedule
from study_lib.networks.pinn.network import PatchNetwork, in_layout
from study_lib.networks.pinn.training_data import (
    EVALUATION_BATCH,
    GroupTensors,
    uniform_object_loss,
)
from study_lib.networks.process_group import ProcessGroup
from study_lib.networks.registry import build_network
from study_lib.physics.likelihood import MEASURES
from study_lib.physics.measurement import Measurement
from study_lib.seeding import torch_seed

CHECKPOINT_INTERVAL_S = 300.0
Progress = Callable[[EpochRecord, int], None]
Watch = Callable[[int, PatchNetwork], None]


class TrainingRun:
    """One training of a network, by one process or its share of one.

    Parameters
    ----------
    measurement, config
        As :func:`study_lib.networks.pinn.training.train` takes them, known to fit each other.
    device
        On which the network is.
    processes
        Among which every batch is shared.
    checkpoints
        Where the state is kept; None: nowhere.
    stop
        Looked at before every step.
    started_cpu_s
        Processor time of this process when its training began.
    """

    def __init__(
        self,
        measurement: Measurement,
        config: TrainingConfig,
        device: torch.device,
        processes: ProcessGroup,
        checkpoints: CheckpointFolder | None,
        stop: StopRequest,
        started_cpu_s: float,
    ) -> None:
        self.config, self.device, self.processes = config, device, processes
        self.checkpoints, self.stop = checkpoints, stop
        self.started_cpu_s, self.cpu_s_before = started_cpu_s, 0.0
        self.data = GroupTensors.of(measurement, device)
        self.order = torch.Generator().manual_seed(torch_seed(config.seed, "order"))
        network = build_network(config.network, shape_of(config))
        self.network: PatchNetwork = in_layout(network.to(device), torch.channels_last)
        shuffled = torch.randperm(len(self.data.groups), generator=self.order)
        held_out = max(1, round(config.validation_share * len(shuffled)))
        self.validation_groups, self.train_groups = shuffled[:held_out], shuffled[held_out:]
        seen = self.data.groups[self.train_groups].unique()
        own_place = self.data.amplitudes.device
        self.network.fit_input(self.data.amplitudes[seen.to(own_place)], self.data.probe)
        self.stepped = self._stepped()
        self.optimizer = torch.optim.Adam(
            self.network.parameters(), lr=config.learning_rate, fused=True
        )
        self.steps = math.ceil(len(self.train_groups) / config.batch_size)
        self.epochs = max(config.epochs, math.ceil(config.steps_min / self.steps))
        self.schedule = Schedule(
            self.optimizer,
            kind=config.schedule,
            epochs=self.epochs,
            rate_min=config.learning_rate_min,
            patience=config.plateau_patience,
        )
        self.records: list[EpochRecord] = []
        self.uniform_object: float | None = None
        self.best: dict[str, Any] = {"loss": math.inf, "epoch": 0, "network": {}}
        self.order_before = self.order.get_state()
        self.step = 0
        self.totals = {"loss": 0.0, "gradient_norm": 0.0, "seconds": 0.0}
        self.saved_s = time.monotonic()

    def _stepped(self) -> nn.Module:
        """Return the network as steps call it: translated, and its gradients shared."""
        stepped: nn.Module = self.network
        if self.config.compile:
            stepped.compile()
        if self.processes.count > 1:
            stepped = nn.parallel.DistributedDataParallel(stepped)
        return stepped

    # --- keeping and taking up

    def state(self) -> dict[str, Any]:
        """Return all that decides the remaining steps, as tensors and plain values."""
        return {
            "network": self.network.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "schedule": self.schedule.state_dict(),
            "order_before": self.order_before,
            "random": random_state(self.device),
            "step": self.step,
            "totals": self.totals,
            "records": [asdict(record) for record in self.records],
            "uniform_object": self.uniform_object,
            "best": self.best,
            "cpu_s": self._cpu_s(),
        }

    def restore(self, state: dict[str, Any]) -> None:
        """Go back to where :meth:`state` was."""
        self.network.load_state_dict(state["network"])
        self.optimizer.load_state_dict(state["optimizer"])
        self.schedule.load_state_dict(state["schedule"])
        self.order_before = state["order_before"]
        self.order.set_state(self.order_before)
        set_random_state(state["random"], self.device)
        self.step, self.totals = state["step"], dict(state["totals"])
        self.records = [EpochRecord(**record) for record in state["records"]]
        self.uniform_object, self.best = state["uniform_object"], state["best"]
        self.cpu_s_before = state["cpu_s"]

    def _save(self) -> None:
        if self.checkpoints and self.processes.leads:
            self.checkpoints.save(self.state())
        self.saved_s = time.monotonic()

    def _cpu_s(self) -> float:
        return self.cpu_s_before + time.process_time() - self.started_cpu_s

    def _pause(self) -> None:
        """End here if that was asked for, in this or in another process."""
        if not self.processes.any(self.stop.made, self.device):
            return
        self._save()
        where = f"epoch {len(self.records) + 1}, step {self.step} of {self.steps}"
        raise TrainingStopped(f"training stopped on request in {where}; it can be taken up there")

    # --- the loop

    def to_the_end(self, progress: Progress | None, watch: Watch | None) -> TrainedNetwork:
        """Train what is left and return the network."""
        if self.uniform_object is None:
            self.uniform_object = uniform_object_loss(self.data, self.config.loss, self._pause)
        while len(self.records) < self.epochs and not self._is_stale():
            record = self._epoch()
            if progress:
                progress(record, self.epochs)
            if watch:
                watch(record.epoch, self.network)
        kept = len(self.records)
        if self.config.final_weights == "best":
            self.network.load_state_dict(self.best["network"])
            kept = self.best["epoch"]
        stopped_early = len(self.records) < self.epochs
        history = History(tuple(self.records), self.uniform_object, kept, stopped_early)
        return TrainedNetwork(self.network.eval(), self.config, history, self._cpu_s())

    def _is_stale(self) -> bool:
        patience = self.config.early_stopping_patience
        return patience is not None and len(self.records) - self.best["epoch"] >= patience

    def _epoch(self) -> EpochRecord:
        self.network.train()
        permuted = self.train_groups[torch.randperm(len(self.train_groups), generator=self.order)]
        for rows in permuted.split(self.config.batch_size)[self.step :]:
            self._pause()
            self._step(rows)
            if time.monotonic() - self.saved_s > CHECKPOINT_INTERVAL_S:
                self._save()
        step_seconds, started = self.totals["seconds"], time.perf_counter()
        losses = self._validation_losses()
        record = EpochRecord(
            epoch=len(self.records) + 1,
            train=self.totals["loss"] / len(permuted),
            validation=losses[self.config.loss],
            validation_poisson=losses["poisson"],
            validation_amplitude=losses["amplitude"],
            learning_rate=self.optimizer.param_groups[0]["lr"],
            gradient_norm=self.totals["gradient_norm"] / self.steps,
            seconds=step_seconds + time.perf_counter() - started,
            patterns_per_s=permuted.numel() * self.config.channels / step_seconds,
        )
        self.schedule.step(record.validation)
        self.records.append(record)
        if record.validation < self.best["loss"]:
            network = copy.deepcopy(self.network.state_dict())
            self.best = {"loss": record.validation, "epoch": record.epoch, "network": network}
        self.step = 0
        self.totals = dict.fromkeys(self.totals, 0.0)
        self.order_before = self.order.get_state()
        self._save()
        return record

    def _step(self, rows: Tensor) -> None:
        """Take one step on some groups, of which each process has its share."""
        started = time.perf_counter()
        own = self.processes.share(rows)
        share = len(own) / len(rows)
        batch = self.data.batch(own if len(own) else rows[:1])  # nothing to do: with weight 0
        expected = self.data.expected(batch, self.stepped(batch.amplitudes))
        counts = batch.amplitudes**2
        loss = share * MEASURES[self.config.loss](expected, counts, self.data.bad_pixels)
        self.optimizer.zero_grad()
        # The gradients of the processes are averaged; their shares have to be summed.
        (loss * self.processes.count).backward()
        gradients = [weight.grad for weight in self.network.parameters() if weight.grad is not None]
        norm = nn.utils.get_total_norm(gradients)
        if self.config.gradient_clip_norm is not None:
            nn.utils.clip_grads_with_norm_(
                self.network.parameters(), self.config.gradient_clip_norm, norm
            )
        self.optimizer.step()
        self.step += 1
        value = float(self.processes.sum(loss.detach()))
        if not math.isfinite(value):
            raise StudyError(
                f"training: the loss is {value} in epoch {len(self.records) + 1}, step {self.step} "
                f"of {self.steps}; lower learning_rate ({self.config.learning_rate:g}) or set "
                f"gradient_clip_norm (now {self.config.gradient_clip_norm})"
            )
        self.totals["loss"] += value * len(rows)
        self.totals["gradient_norm"] += float(norm)
        self.totals["seconds"] += time.perf_counter() - started

    def _validation_losses(self) -> dict[str, float]:
        """Return the mean loss of the validation groups in every measure."""
        self.network.eval()
        own = self.processes.share(self.validation_groups)
        # Every process pauses as often as the one with most to do, or the others would wait.
        most = math.ceil(len(self.validation_groups) / self.processes.count)
        totals = torch.zeros(len(MEASURES), dtype=torch.float64, device=self.device)
        with torch.no_grad():
            for first in range(0, most, EVALUATION_BATCH):
                self._pause()
                rows = own[first : first + EVALUATION_BATCH]
                if not len(rows):
                    continue
                batch = self.data.batch(rows)
                expected = self.data.expected(batch, self.network(batch.amplitudes))
                for index, measure in enumerate(MEASURES.values()):
                    loss = measure(expected, batch.amplitudes**2, self.data.bad_pixels)
                    totals[index] += loss * len(rows)
        means = self.processes.sum(totals) / len(self.validation_groups)
        return dict(zip(MEASURES, means.tolist(), strict=True))
