"""Training a network on one view, without ground truth, and taking an interrupted one up again."""

import copy
import math
import time
import warnings
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Bool, Complex, Float, Int
from torch import Tensor, nn
from torch.optim import Optimizer
from torch.optim.lr_scheduler import CosineAnnealingLR, ReduceLROnPlateau

from study_lib.errors import InputError, StudyError
from study_lib.networks.checkpoints import CheckpointFolder, Warn
from study_lib.networks.machine import (
    ProcessGroup,
    StopRequest,
    TrainingStopped,
    borrowed_process,
    device_of,
    half_precision_on,
    in_layout,
    joined_processes,
    random_state,
    set_random_state,
    stop_requests,
)
from study_lib.networks.pinn.bundle import EpochRecord, History, TrainedNetwork, shape_of
from study_lib.networks.pinn.config import TrainingConfig
from study_lib.networks.pinn.network import PatchNetwork
from study_lib.networks.registry import build_network
from study_lib.physics.forward import corners_of, counts_of_modes, probe_power, probes_at
from study_lib.physics.likelihood import MEASURES, masks_of
from study_lib.physics.measurement import Measurement, measurement_digest
from study_lib.seeding import torch_seed

# --- How the learning rate falls


def schedule_of(
    optimizer: Optimizer, config: TrainingConfig, epochs: int
) -> CosineAnnealingLR | ReduceLROnPlateau:
    """Return what lowers the optimizer's rate after every epoch, to ``learning_rate_min``.

    cosine: half a cosine (Loshchilov and Hutter, arXiv:1608.03983, without restarts), the last of
    the epochs at the least rate. plateau: half of it whenever the validation loss has not fallen
    for ``plateau_patience`` epochs.
    """
    least = config.learning_rate_min
    if config.schedule == "cosine":
        return CosineAnnealingLR(optimizer, T_max=max(1, epochs - 1), eta_min=least)
    return ReduceLROnPlateau(optimizer, factor=0.5, patience=config.plateau_patience, min_lr=least)


# --- What a group shares: one region, in which every pattern of it has to be explained

MERGE_FLOOR = 1e-3


def merge_groups(
    patches: Complex[Tensor, "batch c n n"],
    corners_px: Int[Tensor, "batch c 2"],
    weights: Float[Tensor, "n n"],
) -> Complex[Tensor, "batch c n n"]:
    """Return the patches cut anew from the region that each group shares.

    The region is the weighted mean of the patches where they lie. A single patch is its own region.

    Parameters
    ----------
    patches : (batch, c, n, n)
    corners_px : (batch, c, 2)
        (row, column) of each patch's first pixel.
    weights : (n, n)
        Positive weight of each patch pixel, :func:`merge_weights`.
    """
    batch, channels, side, _ = patches.shape
    if channels == 1:
        return patches
    local = corners_px - corners_px.amin(dim=1, keepdim=True)
    region = side + int(local.max())
    offsets = torch.arange(side, device=patches.device)
    rows, columns = local[..., 0, None] + offsets, local[..., 1, None] + offsets
    first = torch.arange(batch, device=patches.device)[:, None, None, None] * region**2
    indices = (first + rows[..., :, None] * region + columns[..., None, :]).flatten()
    zeros = patches.new_zeros(batch * region**2)
    total = zeros.index_add(0, indices, (patches * weights).flatten())
    spread = weights.expand(patches.shape).flatten()
    weight = zeros.real.index_add(0, indices, spread)
    return (total[indices] / weight[indices]).reshape(patches.shape)


def merge_weights(probe: Complex[Tensor, "*modes n n"]) -> Float[Tensor, "n n"]:
    """Return the probe's intensity with a small floor: how well each patch pixel is known."""
    power = probe_power(probe)
    return power + MERGE_FLOOR * power.max()


# --- A measurement as tensors, batches of its groups, and what objects are judged by

PROCESSOR = torch.device("cpu")
EVALUATION_BATCH = 64
DEVICE_SHARE = 0.5  # of a CUDA device's free memory that patterns may fill


@dataclass(frozen=True)
class Batch:
    """Some groups on the device: square roots of counts, shifted probes, corners of patches.

    ``probes`` have an axis of modes before the others where there are several; ``bad_pixels`` are
    one mask (n, n), or those of each pattern.
    """

    amplitudes: Float[Tensor, "batch c n n"]
    probes: Complex[Tensor, "*modes batch c n n"]
    corners_px: Int[Tensor, "batch c 2"]
    bad_pixels: Bool[Tensor, "*each n n"] | None


@dataclass(frozen=True)
class GroupTensors:
    """A measurement indexed by pattern; ``groups`` (group, C) index patterns.

    The other fields are as in :class:`Measurement`. Patterns that would fill the device stay where
    they are, with masks of each, and follow batch by batch.
    """

    amplitudes: Float[Tensor, "scan n n"]
    positions_px: Float[Tensor, "scan 2"]
    groups: Int[Tensor, "group c"]
    probe: Complex[Tensor, "*modes n n"]
    weights: Float[Tensor, "n n"]
    bad_pixels: Bool[Tensor, "*each n n"] | None
    background: Float[Tensor, "n n"] | None
    device: torch.device

    @classmethod
    def of(cls, measurement: Measurement, device: torch.device = PROCESSOR) -> "GroupTensors":
        """Share the arrays of a measurement, or copy them to another device."""
        amplitudes = torch.from_numpy(measurement.amplitudes)
        if device.type == "cuda":
            free, _ = torch.cuda.mem_get_info(device)
            if amplitudes.nbytes < DEVICE_SHARE * free:
                amplitudes = amplitudes.to(device)
        probe = torch.from_numpy(measurement.probe).to(device)
        bad_pixels, background = measurement.bad_pixels, measurement.background
        place = device if bad_pixels is None or bad_pixels.ndim == 2 else amplitudes.device
        return cls(
            amplitudes=amplitudes,
            positions_px=torch.from_numpy(measurement.positions_px),
            groups=torch.from_numpy(measurement.groups),
            probe=probe,
            weights=merge_weights(probe),
            bad_pixels=None if bad_pixels is None else torch.from_numpy(bad_pixels).to(place),
            background=None if background is None else torch.from_numpy(background).to(device),
            device=device,
        )

    @property
    def strongest_mode(self) -> Complex[Tensor, "n n"]:
        """The first of the modes, which are given strongest first."""
        return self.probe if self.probe.ndim == 2 else self.probe[0]

    def batch(self, rows: Int[Tensor, " batch"]) -> Batch:
        """Return the groups in ``rows``, which may lie on any device."""
        return self.batch_of(self.groups[rows.to(self.groups.device)])

    def batch_of(self, groups: Int[Tensor, "batch c"]) -> Batch:
        """Return groups given by their patterns."""
        positions_px = self.positions_px[groups].to(self.device)
        flat = positions_px.flatten(0, 1)
        side = self.probe.shape[-1]
        there = groups.to(self.amplitudes.device)
        bad_pixels = masks_of(self.bad_pixels, there)
        return Batch(
            self.amplitudes[there].to(self.device),
            probes_at(self.probe, flat).unflatten(-3, groups.shape),
            corners_of(flat, side).reshape(*groups.shape, 2),
            None if bad_pixels is None else bad_pixels.to(self.device),
        )

    def corners_of_groups(self) -> Int[Tensor, "group c 2"]:
        """Return the (row, column) of the first pixel of every patch of every group."""
        return corners_of(self.positions_px, self.probe.shape[-1])[self.groups]

    def expected(
        self, batch: Batch, patches: Complex[Tensor, "batch c n n"]
    ) -> Float[Tensor, "batch c n n"]:
        """Return the photons that patches predict for their groups."""
        regions = merge_groups(patches, batch.corners_px, self.weights)
        return self.counts_behind(batch.probes * regions)

    def counts_behind(
        self, waves: Complex[Tensor, "*modes batch c n n"]
    ) -> Float[Tensor, "batch c n n"]:
        """Return the photons of exit waves of all modes, and of the background."""
        counts = counts_of_modes(waves.flatten(-4, -3), self.background)
        return counts.reshape(waves.shape[-4:])


def require_groups(
    measurement: Measurement, config: TrainingConfig, trained: str, remedy: str
) -> None:
    """Check that groups and patterns of a measurement are those of a training."""
    found = measurement.groups.shape[1], measurement.probe.shape[-1]
    wanted = config.channels, config.side_px
    if found != wanted:
        raise InputError(
            f"measurement with {found[0]} patterns of {found[1]} pixels per group, but the "
            f"{trained} for {wanted[0]} of {wanted[1]}; use the {remedy} of its own view"
        )


def uniform_object_loss(
    data: GroupTensors, loss: str, pause: Callable[[], None] = lambda: None
) -> float:
    """Return the loss of the best featureless object: one amplitude for every pixel.

    ``pause`` is called between batches.
    """
    measure = MEASURES[loss]
    patterns = torch.arange(len(data.amplitudes))[:, None]
    amplitude = _best_amplitude(data, loss, patterns, pause)
    total = 0.0
    for part in patterns.split(EVALUATION_BATCH):
        pause()
        batch = data.batch_of(part)
        expected = data.counts_behind(batch.probes * amplitude)
        total += float(measure(expected, batch.amplitudes**2, batch.bad_pixels)) * len(part)
    return total / len(patterns)


def _best_amplitude(
    data: GroupTensors, loss: str, patterns: Tensor, pause: Callable[[], None]
) -> float:
    """Return the amplitude that fits best: the likelihood's from sums of counts, or of roots.

    Beside a background it comes from sums of counts, less those of the background, for both.
    """
    light = counts_of_modes(data.probe.unsqueeze(-3))[0]
    by_counts = loss == "poisson" or data.background is not None
    found = 0.0
    for part in patterns.split(EVALUATION_BATCH):
        pause()
        amplitudes = data.amplitudes[part[:, 0].to(data.amplitudes.device)].to(data.device)
        terms = amplitudes**2 if by_counts else amplitudes * torch.sqrt(light)
        found += float(terms.sum(dtype=torch.float64))
    good, dark = torch.ones_like(light), data.background
    if data.bad_pixels is not None:  # in how many of the patterns
        bad = data.bad_pixels if data.bad_pixels.ndim == 3 else data.bad_pixels[None]
        good = good - bad.sum(dim=0).to(good) / len(bad)
    from_dark = 0.0 if dark is None else float((dark * good).sum(dtype=torch.float64))
    share = found / len(patterns) - from_dark
    share = max(share, 0.0) / float((light * good).sum(dtype=torch.float64))
    return float(share**0.5) if by_counts else share


# --- The loop: what changes from step to step, and how it is kept and taken up

CHECKPOINT_INTERVAL_S = 300.0
Progress = Callable[[EpochRecord, int], None]
Watch = Callable[[int, PatchNetwork], None]


class TrainingRun:
    """One training of a network, by one process or its share of one.

    Parameters
    ----------
    measurement, config
        As :func:`train` takes them, known to fit each other.
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
        self.network.fit_input(self.data.amplitudes[seen.to(own_place)], self.data.strongest_mode)
        # As steps call it: translated, and its gradients shared.
        self.stepped: nn.Module = self.network
        if config.compile:
            self.network.compile()
        if processes.count > 1:
            self.stepped = nn.parallel.DistributedDataParallel(self.network)
        self.optimizer = torch.optim.Adam(
            self.network.parameters(), lr=config.learning_rate, fused=True
        )
        self.steps = math.ceil(len(self.train_groups) / config.batch_size)
        self.epochs = max(config.epochs, math.ceil(config.steps_min / self.steps))
        self.schedule = schedule_of(self.optimizer, config, self.epochs)
        self.records: list[EpochRecord] = []
        self.uniform_object: float | None = None
        self.best: dict[str, Any] = {"loss": math.inf, "epoch": 0, "network": {}}
        self.order_before = self.order.get_state()
        self.step = 0
        self.totals = {"loss": 0.0, "gradient_norm": 0.0, "seconds": 0.0}
        self.saved_s = time.monotonic()

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
        if isinstance(self.schedule, ReduceLROnPlateau):
            self.schedule.step(record.validation)
        else:
            self.schedule.step()
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
        loss = share * MEASURES[self.config.loss](expected, counts, batch.bad_pixels)
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
                    loss = measure(expected, batch.amplitudes**2, batch.bad_pixels)
                    totals[index] += loss * len(rows)
        means = self.processes.sum(totals) / len(self.validation_groups)
        return dict(zip(MEASURES, means.tolist(), strict=True))


# --- Training, and taking an interrupted one up again


def train(
    measurement: Measurement,
    config: TrainingConfig,
    *,
    checkpoints: Path | None = None,
    progress: Progress | None = None,
    watch: Watch | None = None,
    warn: Warn | None = None,
) -> TrainedNetwork:
    """Train a network so that its object regions explain the counts.

    Adam, with a falling learning rate. The validation groups are held out of the gradient, not of
    the input: they belong to the same view and split.
    Processes started together by torchrun share every batch.

    Parameters
    ----------
    measurement
        Patterns, positions, probe and groups; the network never sees an object.
    config
        Every knob; see :class:`TrainingConfig` and :class:`study_lib.design.models.TrainingDesign`.
    checkpoints
        Folder of checkpoints, written after every epoch, every few minutes, and when the process
        is asked to end. A training found there goes on to the weights it would have had without
        the interruption, bit by bit on the same machine.
    progress
        Called after every epoch with its record and the number of all epochs.
    watch
        Called after every epoch with its number and the network, which it must not change.
    warn
        Called with a line on a damaged checkpoint or a change of machine; default: a warning.

    Raises
    ------
    InputError
        If the measurement does not fit the configuration, the device or the network does not
        exist, or the checkpoints belong to another training.
    StudyError
        If the loss is no longer a number, or no checkpoint is whole.
    TrainingStopped
        If SIGTERM or Ctrl-C came while there are checkpoints; the last step is in them.
    """
    started = time.process_time()
    device = device_of(config.device)
    half = half_precision_on(device, config.precision)
    config = config.model_copy(update={"precision": "bfloat16" if half else "float32"})
    require_groups(measurement, config, "training is", "file")
    if len(measurement.groups) < 2:
        raise InputError(
            f"measurement with {len(measurement.groups)} group: one has to be held out and one to "
            "be learned from; use a view with more patterns"
        )
    with (
        stop_requests(watched=checkpoints is not None) as stop,
        borrowed_process(device, config.threads, torch_seed(config.seed, "weights")),
        joined_processes(device) as processes,
    ):
        folder = None
        if checkpoints is not None:
            folder = CheckpointFolder(
                checkpoints,
                {**config.decisive, "measurement": measurement_digest(measurement)},
                {
                    "device": device.type,
                    "threads": torch.get_num_threads(),
                    "processes": processes.count,
                    "torch": str(torch.__version__),
                },
                warn or _warn,
            )
        run = TrainingRun(measurement, config, device, processes, folder, stop, started)
        state = processes.made_by_leader(folder.load) if folder else None
        if state:
            run.restore(state)
        return run.to_the_end(progress, watch)


def _warn(text: str) -> None:
    warnings.warn(text, stacklevel=3)
