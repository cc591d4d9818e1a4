"""Training the thinning network: without a truth, by held-out counts."""

import copy
import math
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import Complex, Float, Int
from scipy.spatial import cKDTree
from torch import Tensor, nn

from study_lib.arm_names import THINNING_NET_LABEL
from study_lib.design.methods import ARMS_ALONE, ThinnedDesign
from study_lib.errors import InputError, StudyError
from study_lib.networks.checkpoints import CheckpointFolder, Warn
from study_lib.networks.machine import (
    StopRequest,
    TrainingStopped,
    borrowed_process,
    has_fast_bfloat16,
    stop_requests,
)
from study_lib.networks.thinned.ensemble import (
    RECIPE,
    Seen,
    Smoothing,
    ThinnedEnsemble,
    as_it_is,
    gains_of,
)
from study_lib.networks.thinned.inputs import (
    BoxedScan,
    ThinnedInput,
    ThinnedSet,
    thinned_choices,
    thinned_input,
    thinned_set,
)
from study_lib.networks.thinned.network import MixingNetwork, mixing_network
from study_lib.networks.thinned.trust import Trust, width_px
from study_lib.physics.forward import corners_of
from study_lib.physics.measurement import (
    Box,
    Measurement,
    box_of,
    measurement_digest,
    split_photons,
)
from study_lib.seeding import generator, torch_seed
from study_lib.solvers.solver import solve_measurement

# --- One member: its weights, their average, and its next step

TILE_PX = 256  # side of the window of a larger object that one step sees
WARM_UP = 0.05  # share of the steps in which the rate rises
AVERAGE = 0.99  # weight of the past in the averaged weights


class Member:
    """A network on its way, by AdamW with a rate that rises, then falls along half a cosine.

    Its ``average`` over the last steps is what is used afterwards.

    Parameters
    ----------
    shown
        Any of its inputs, for their number of images.
    design
        Every knob.
    seed, index
        Of the training, and which of its members this is: they give weights and order.
    half_precision
        Whether convolutions are computed in bfloat16.
    """

    def __init__(
        self,
        shown: ThinnedInput,
        design: ThinnedDesign,
        *,
        seed: int,
        index: int,
        half_precision: bool,
    ) -> None:
        torch.manual_seed(torch_seed(seed, "thinned weights", index))
        self.network = mixing_network(
            design,
            candidates=len(shown.candidates),
            base=shown.base,
            half_precision=half_precision,
        )
        self.design = design
        self.average = copy.deepcopy(self.network).requires_grad_(False)
        self.optimizer = torch.optim.AdamW(
            self.network.parameters(), lr=design.learning_rate, weight_decay=design.weight_decay
        )
        self.order = torch.Generator().manual_seed(torch_seed(seed, "thinned order", index))
        self.step = 0

    def learn(
        self,
        sets: Sequence[ThinnedSet],
        bases_nats: Sequence[Float[Tensor, " scan"]],
        boxed: BoxedScan,
        learned: Int[Tensor, " patterns"],
    ) -> tuple[float, float]:
        """Take one step on some patterns of one thinning.

        Parameters
        ----------
        sets
            The thinnings.
        bases_nats
            The loss of each one's base, by pattern.
        scene, learned
            Probe and positions, and the patterns that may be learned from.

        Returns
        -------
        The loss, and that of the base for the same patterns; in nats per pattern.
        """
        design = self.design
        share = (self.step + 0.5) / design.steps
        rate = min(1.0, share / WARM_UP) * (1 + math.cos(math.pi * share)) / 2
        for group in self.optimizer.param_groups:
            group["lr"] = design.learning_rate * rate
        index = self._draw(len(sets))
        one = sets[index]
        window = self._window(one, boxed, learned)
        inside = learned[lies_in(window, boxed, learned)]
        chosen = torch.randperm(len(inside), generator=self.order)[: design.patterns_per_step]
        view = (self._draw(4), bool(self._draw(2))) if design.turned_views else (0, False)
        object_ = one.shown.phasor.clone()
        object_[window] = self.network.object_of(one.shown.window(window), *view)
        loss = one.deviance_nats(object_, boxed, inside[chosen]).mean()
        self.optimizer.zero_grad()
        loss.backward()
        nn.utils.clip_grad_norm_(self.network.parameters(), design.gradient_clip_norm)
        self.optimizer.step()
        self.step += 1
        past = min(AVERAGE, self.step / (self.step + 9))
        weights = zip(self.average.parameters(), self.network.parameters(), strict=True)
        with torch.no_grad():
            for mean, weight in weights:
                mean.lerp_(weight, 1 - past)
        return float(loss.detach()), float(bases_nats[index][inside[chosen]].mean())

    def state(self) -> dict[str, Any]:
        """Return all that the next step needs."""
        return {
            "network": self.network.state_dict(),
            "average": self.average.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "order": self.order.get_state(),
            "step": self.step,
        }

    def restore(self, state: dict[str, Any]) -> None:
        """Go on from what :meth:`state` returned."""
        self.network.load_state_dict(state["network"])
        self.average.load_state_dict(state["average"])
        self.optimizer.load_state_dict(state["optimizer"])
        self.order.set_state(state["order"])
        self.step = state["step"]

    def _draw(self, count: int) -> int:
        return int(torch.randint(count, (1,), generator=self.order))

    def _window(self, one: ThinnedSet, boxed: BoxedScan, learned: Int[Tensor, " patterns"]) -> Box:
        """Return the part of the box that a step sees: all of it, if it is small.

        Data consistency is of the whole object.
        """
        shape = one.shown.phasor.shape
        whole = (slice(0, shape[0]), slice(0, shape[1]))
        if self.design.data_steps:
            return whole
        window = window_of(shape, boxed.probe.shape[-1], self._draw)
        return window if len(lies_in(window, boxed, learned)) else whole


def window_of(shape: Sequence[int], patch_side: int, draw: Callable[[int], int]) -> Box:
    """Return a window of `TILE_PX`, but of two patches at least, where it happens to lie.

    Parameters
    ----------
    shape
        (rows, columns) of the object.
    patch_side
        N.
    draw
        Gives a whole number below another.
    """
    parts = []
    for length in shape:
        side = min(length, max(TILE_PX, 2 * patch_side))
        start = draw(length - side + 1)
        parts.append(slice(start, start + side))
    return parts[0], parts[1]


def lies_in(
    window: Box, boxed: BoxedScan, patterns: Int[Tensor, " patterns"]
) -> Int[Tensor, " inside"]:
    """Return which of some patterns have their whole patch in a window, as places in `patterns`."""
    side = boxed.probe.shape[-1]
    corners = corners_of(boxed.positions_px[patterns], side)
    first = torch.tensor([window[0].start, window[1].start])
    last = torch.tensor([window[0].stop, window[1].stop])
    inside = ((corners >= first) & (corners + side <= last)).all(dim=1)
    return inside.nonzero()[:, 0]


# --- The training of all members

DEVICE = torch.device("cpu")
REPORTS = 10  # of a member's training
CHECKPOINT_INTERVAL_S = 20.0
FEWEST_PATTERNS = 8
Progress = Callable[[str, int, int, float], None]


def silent(*report: object) -> None:
    """Report nothing."""


@dataclass(frozen=True)
class ThinnedRecord:
    """Some steps of one member.

    ``loss`` in nats per pattern is the mean over the steps; ``validation_gain_nats`` how much
    likelier the counts of what the member left out are than under the base, per pattern.
    """

    member: int
    step: int
    loss: float
    validation_gain_nats: float
    validation_error_nats: float
    seconds: float


def train_thinned(
    measurement: Measurement,
    design: ThinnedDesign,
    *,
    seed: int,
    checkpoints: Path | None = None,
    progress: Progress = silent,
    warn: Warn = silent,
    seen_as: Seen = as_it_is,
) -> tuple[ThinnedEnsemble, list[ThinnedRecord]]:
    """Return an ensemble that improves the solver's object, and how it came about.

    Every choice is made by held-out counts of this measurement.

    Parameters
    ----------
    measurement
        The patterns of the train split.
    design
        Every knob.
    seed
        Of thinnings, weights and order.
    checkpoints
        Folder in which an interrupted training is found and goes on.
    progress
        Called with what is done, steps done, steps in all, and the loss over that of the base for
        the same photons, which tells more than the loss: thinnings differ by far more than an
        object improves.
    warn
        Called with a line on a damaged checkpoint or a change of machine.
    seen_as
        Changes every input before the networks see it, to learn what an input is good for.

    Raises
    ------
    InputError
        If there are too few patterns.
    StudyError
        If the loss is no longer a number.
    TrainingStopped
        If SIGTERM or Ctrl-C came, with ``checkpoints``; the last step, if any, is kept.
    """
    scan = len(measurement.positions_px)
    fewest = max(FEWEST_PATTERNS, 2 * design.members)  # each member leaves some out
    if scan < fewest:
        raise InputError(
            f"{scan} patterns: the thinning network learns from {fewest} or more; "
            "use a view with more, or set thinned to null"
        )
    with (
        stop_requests(watched=checkpoints is not None) as stop,
        borrowed_process(DEVICE, None, torch_seed(seed, "thinned weights")),
    ):
        training = _Training(measurement, design, seed, stop, checkpoints, progress, warn, seen_as)
        return training.to_the_end()


class _Training:
    """What all members share, and which of them is at work."""

    def __init__(
        self,
        measurement: Measurement,
        design: ThinnedDesign,
        seed: int,
        stop: StopRequest,
        checkpoints: Path | None,
        report_progress: Progress,
        warn: Warn,
        seen_as: Seen,
    ) -> None:
        self.measurement, self.design, self.seed = measurement, design, seed
        self.stop, self.report_progress, self.seen_as = stop, report_progress, seen_as
        self.started_s, self.saved_s = time.process_time(), time.monotonic()
        self.cpu_s_before = 0.0  # of a training that was interrupted
        self.box = box_of(measurement)
        self.half_precision = has_fast_bfloat16()
        self.left_out = left_out_of(
            measurement.positions_px,
            design.validation_share,
            design.members,
            generator(seed, "thinned left out"),
        )
        self.records: list[ThinnedRecord] = []
        self.losses: list[float] = []  # since the last record
        self.finished: list[MixingNetwork] = []
        self.checkpoints = None
        if checkpoints is not None:
            self.checkpoints = CheckpointFolder(
                checkpoints,
                {
                    **design.model_dump(mode="json", exclude=set(ARMS_ALONE)),
                    "recipe": RECIPE,
                    "seed": seed,
                    "measurement": measurement_digest(measurement),
                },
                {"threads": torch.get_num_threads(), "torch": str(torch.__version__)},
                warn,
            )

    def to_the_end(self) -> tuple[ThinnedEnsemble, list[ThinnedRecord]]:
        """Choose, thin, train every member, and decide whether they are to be trusted."""
        design = self.design
        total = design.members * design.steps
        state = self.checkpoints.load() if self.checkpoints else None
        part, held_out = split_photons(
            self.measurement, design.judged_share, generator(self.seed, "thinned choice")
        )
        self.boxed = BoxedScan.of(part, self.box)
        solved = solve_measurement(
            part, progress=lambda done, count, loss: self._end_if_asked()
        ).object_
        self.choices = thinned_choices(
            solved,
            part,
            held_out,
            epochs=design.epochs_in_turn,
            progress=lambda done, count: self._end_if_asked(),
        )
        choice_cpu_s = time.process_time() - self.started_s
        self.report_progress("choose", 1, 1, math.nan)
        self._end_if_asked()
        self.sets: list[ThinnedSet] = []
        random = generator(self.seed, "thinned sets")
        for index in range(design.sets):
            one = thinned_set(
                part,  # what was kept back for the choices teaches nothing
                self._shown,
                photon_share=float(random.uniform(*design.photon_shares)),
                kept_share=design.kept_positions[index % len(design.kept_positions)],
                random=random,
            )
            self.sets.append(one)
            self.report_progress("thin", index + 1, design.sets, math.nan)
            self._end_if_asked()
        self.bases_nats = [
            one.base_deviance_nats(self.boxed, patterns_at_a_time=design.patterns_per_step)
            for one in self.sets
        ]
        member = self._restored(state) if state else self._fresh_member(0)
        while True:
            self._train(member, total)
            is_last = len(self.finished) == design.members - 1
            if is_last:
                self._save(member)  # a fault in what follows must not cost the training
            self.finished.append(member.average)
            if is_last:
                break
            member = self._fresh_member(len(self.finished))
            self._save(member)
        smoothing = Smoothing.by_held_out_counts(self.finished, self._shown(part, solved), held_out)
        ensemble = ThinnedEnsemble(
            members=tuple(self.finished),
            choices=self.choices,
            smoothing=smoothing,
            trust=self._trust(dict(enumerate(self.finished)), smoothing),
            design=design,
            seed=self.seed,
            side_px=self.measurement.probe.shape[-1],
            half_precision=self.half_precision,
            training_cpu_s=self._cpu_s(),
            seen_as=self.seen_as,
            choice_cpu_s=choice_cpu_s,
        )
        return ensemble, self.records

    def _shown(
        self, part: Measurement, solved: Complex[np.ndarray, "oy ox"] | None = None
    ) -> ThinnedInput:
        """Return what the networks see of a part of the measurement."""
        with_data = self.design.data_steps > 0
        shown = thinned_input(part, self.choices, self.box, solved, with_data=with_data)
        return self.seen_as(shown)

    def _end_if_asked(self) -> None:
        """End before the steps of this process; those of an earlier one are kept as they are."""
        if self.stop.made:
            raise TrainingStopped(
                "asked to end while the training was prepared; it starts from what is kept"
            )

    def _trust(self, members: Mapping[int, MixingNetwork], smoothing: Smoothing) -> Trust:
        """Return what each of some members is worth on what it left out, taken together."""
        whole = [one for one in self.sets if one.is_whole]
        left_out = [self.left_out[index] for index in members]
        gains = [
            gains_of([member], smoothing, whole, self.boxed, left)
            for member, left in zip(members.values(), left_out, strict=True)
        ]
        return Trust.of(
            np.concatenate(gains),
            self.measurement.positions_px[torch.cat(left_out).numpy()],
            width_px(self.measurement.probe),
        )

    def _fresh_member(self, index: int) -> Member:
        return Member(
            self.sets[0].shown,
            self.design,
            seed=self.seed,
            index=index,
            half_precision=self.half_precision,
        )

    def _train(self, member: Member, total: int) -> None:
        design, started = self.design, time.perf_counter()
        index = len(self.finished)
        before = index * design.steps
        learned = others_than(self.left_out[index], len(self.measurement.positions_px))
        while member.step < design.steps:
            if self.stop.made:
                self._save(member)
                raise TrainingStopped("asked to end; the training is kept up to this step")
            loss, base = member.learn(self.sets, self.bases_nats, self.boxed, learned)
            if not math.isfinite(loss):
                raise StudyError(
                    f"{THINNING_NET_LABEL}: the loss is {loss} in step {member.step} of member "
                    f"{index + 1}; lower thinned.learning_rate "
                    f"({design.learning_rate:g})"
                )
            self.losses.append(loss)
            self.report_progress("train", before + member.step, total, loss / base)
            if member.step % max(1, design.steps // REPORTS) == 0 or member.step == design.steps:
                trust = self._trust({index: member.average}, Smoothing())
                self.records.append(
                    ThinnedRecord(
                        member=index + 1,
                        step=member.step,
                        loss=float(np.mean(self.losses)),
                        validation_gain_nats=trust.gain_nats,
                        validation_error_nats=trust.standard_error_nats,
                        seconds=time.perf_counter() - started,
                    )
                )
                self.losses, started = [], time.perf_counter()
            if time.monotonic() - self.saved_s > CHECKPOINT_INTERVAL_S:
                self._save(member)

    def _cpu_s(self) -> float:
        return self.cpu_s_before + time.process_time() - self.started_s

    def _save(self, member: Member) -> None:
        self.saved_s = time.monotonic()
        if self.checkpoints is None:
            return
        self.checkpoints.save(
            {
                "finished": [network.state_dict() for network in self.finished],
                "member": member.state(),
                "losses": self.losses,
                "records": [vars(record) for record in self.records],
                "cpu_s": self._cpu_s(),
            }
        )

    def _restored(self, state: dict[str, Any]) -> Member:
        """Return the member at work when the state was saved; those before it are finished."""
        for index, weights in enumerate(state["finished"]):
            done = self._fresh_member(index).average
            done.load_state_dict(weights)
            self.finished.append(done)
        member = self._fresh_member(len(self.finished))
        member.restore(state["member"])
        self.losses = list(state["losses"])
        self.records = [ThinnedRecord(**record) for record in state["records"]]
        self.cpu_s_before = state["cpu_s"]
        return member


def left_out_of(
    positions_px: Float[np.ndarray, "scan 2"],
    share: float,
    members: int,
    random: np.random.Generator,
) -> list[Int[Tensor, " left"]]:
    """Return the patterns that each member does not learn from: no two the same, all over the scan.

    Of every few neighbouring patterns each member leaves one out, drawn by lot. Their counts are
    independent of those that teach, though they lie between them: what they judge is an object of
    this scan, not what a member is worth elsewhere.

    Parameters
    ----------
    positions_px : (scan, 2)
        Where the patterns were taken.
    share
        Of all patterns that each member leaves out; at most one part of `members`.
    members
        How many.
    random
        Draws which.
    """
    scan = len(positions_px)
    count = min(max(2, round(share * scan)), scan // members - (members == 1))
    neighbours = np.array_split(cKDTree(positions_px, leafsize=1).indices, count)
    drawn = [random.choice(few, members, replace=False) for few in neighbours]
    return [torch.from_numpy(np.sort(one)) for one in np.array(drawn, dtype=np.int64).T]


def others_than(left: Int[Tensor, " left"], scan: int) -> Int[Tensor, " others"]:
    """Return the patterns of a scan that are not among these."""
    kept = torch.ones(scan, dtype=torch.bool)
    kept[left] = False
    return kept.nonzero()[:, 0]
