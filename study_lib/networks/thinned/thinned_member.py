"""One network of `pinn-thinned` in training: its weights, their average, and its next step."""

import copy
import math
from collections.abc import Callable, Sequence
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from study_lib.design.thinned_design import ThinnedDesign
from study_lib.networks.thinned.inputs import MAPS, ThinnedInput
from study_lib.networks.thinned.network import MixingNetwork
from study_lib.networks.thinned.thinned_sets import Scene, ThinnedSet
from study_lib.physics.forward import corners_of
from study_lib.physics.measurement import Box
from study_lib.seeding import torch_seed

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
        self.network = MixingNetwork(
            candidates=len(shown.candidates),
            maps=MAPS,
            base=shown.base,
            widths=design.widths,
            data_steps=design.data_steps,
            residual_scale=design.residual_scale,
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
        scene: Scene,
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
        window = self._window(one, scene, learned)
        inside = learned[lies_in(window, scene, learned)]
        chosen = torch.randperm(len(inside), generator=self.order)[: design.patterns_per_step]
        view = (self._draw(4), bool(self._draw(2))) if design.turned_views else (0, False)
        object_ = one.shown.phasor.clone()
        object_[window] = self.network.object_of(one.shown.window(window), *view)
        loss = one.deviance_nats(object_, scene, inside[chosen]).mean()
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

    def _window(self, one: ThinnedSet, scene: Scene, learned: Int[Tensor, " patterns"]) -> Box:
        """Return the part of the box that a step sees: all of it, if it is small.

        Data consistency is of the whole object.
        """
        shape = one.shown.phasor.shape
        whole = (slice(0, shape[0]), slice(0, shape[1]))
        if self.design.data_steps:
            return whole
        window = window_of(shape, scene.probe.shape[-1], self._draw)
        return window if len(lies_in(window, scene, learned)) else whole


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
    window: Box, scene: Scene, patterns: Int[Tensor, " patterns"]
) -> Int[Tensor, " inside"]:
    """Return which of some patterns have their whole patch in a window, as places in `patterns`."""
    side = scene.probe.shape[-1]
    corners = corners_of(scene.positions_px[patterns], side)
    first = torch.tensor([window[0].start, window[1].start])
    last = torch.tensor([window[0].stop, window[1].stop])
    inside = ((corners >= first) & (corners + side <= last)).all(dim=1)
    return inside.nonzero()[:, 0]
