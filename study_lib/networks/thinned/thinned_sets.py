"""What the network of `pinn-thinned` learns from: one measurement thinned in many ways."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Bool, Complex, Float, Int, Shaped
from torch import Tensor

from study_lib.networks.thinned.inputs import ThinnedChoices, ThinnedInput, thinned_input
from study_lib.physics.forward import corners_of, expected_counts, patches_at, probes_at
from study_lib.physics.likelihood import half_deviance
from study_lib.physics.measurement import Box, Measurement
from study_lib.physics.thinning import at_positions, thinned

FEWEST_POSITIONS = 4  # that an input is made from, however sparse the scan


@dataclass(frozen=True)
class Scene:
    """What all thinnings of a measurement share, as tensors in a box of the object.

    ``probe`` (n, n); ``positions_px`` (scan, 2) in the frame of the box; ``bad_pixels`` (n, n).
    """

    probe: Complex[Tensor, "n n"]
    positions_px: Float[Tensor, "scan 2"]
    bad_pixels: Bool[Tensor, "n n"] | None

    @classmethod
    def of(cls, measurement: Measurement, box: Box) -> "Scene":
        """Return the scene of a measurement."""
        bad = measurement.bad_pixels
        first = np.array([box[0].start, box[1].start])
        return cls(
            torch.from_numpy(measurement.probe.astype(np.complex64)),
            torch.from_numpy(measurement.positions_px - first),
            None if bad is None else torch.from_numpy(bad),
        )


@dataclass(frozen=True)
class ThinnedSet:
    """One thinning: what the network is shown, and the counts that it was not made from.

    ``counts`` (scan, n, n) are of the probe times ``probe_scale`` (scan,): the other photons of a
    position that the input has, all photons of one that was left out. ``is_whole``: none was.
    """

    shown: ThinnedInput
    counts: Shaped[Tensor, "scan n n"]
    probe_scale: Float[Tensor, " scan"]
    is_whole: bool

    def deviance_nats(
        self, object_: Complex[Tensor, "y x"], scene: Scene, index: Int[Tensor, " patterns"]
    ) -> Float[Tensor, " patterns"]:
        """Return the negative log-likelihood of some patterns above that of a perfect model.

        Parameters
        ----------
        object_ : (y, x)
            In the box.
        scene
            Probe and positions.
        index
            Which patterns.
        """
        side = scene.probe.shape[-1]
        positions = scene.positions_px[index]
        probes = probes_at(scene.probe, positions) * self.probe_scale[index, None, None]
        expected = expected_counts(probes * patches_at(object_, corners_of(positions, side), side))
        counts = self.counts[index].to(expected.dtype)
        bad = scene.bad_pixels
        pixels = side**2 if bad is None else int((~bad).sum())
        each: Tensor = torch.vmap(lambda rate, count: half_deviance(rate, count, bad))(
            expected, counts
        )
        return pixels * each

    def base_deviance_nats(
        self, scene: Scene, *, patterns_at_a_time: int
    ) -> Float[Tensor, " scan"]:
        """Return :meth:`deviance_nats` of the base, for every pattern."""
        parts = torch.arange(len(self.counts)).split(patterns_at_a_time)
        with torch.no_grad():
            base = self.shown.base_object
            return torch.cat([self.deviance_nats(base, scene, part) for part in parts])


def thinned_set(
    measurement: Measurement,
    choices: ThinnedChoices,
    box: Box,
    *,
    photon_share: float,
    kept_share: float,
    random: np.random.Generator,
    with_data: bool = False,
) -> ThinnedSet:
    """Return one thinning of a measurement.

    Parameters
    ----------
    measurement
        Patterns, positions, probe.
    choices
        Strengths of everything classical in the input.
    box
        Part of the object that is shown.
    photon_share
        Of each kept pattern that the input is made from.
    kept_share
        Share of the scan positions that the input is made from.
    random
        Draws photons and positions.
    with_data
        Whether the input holds its counts.
    """
    scan = len(measurement.positions_px)
    count = min(scan, max(FEWEST_POSITIONS, round(kept_share * scan)))
    kept = np.sort(random.permutation(scan)[:count])
    part, rest = thinned(measurement, photon_share, random)
    counts = measurement.counts
    counts[kept] = rest.counts[kept]
    scale: np.ndarray = np.ones(scan, np.float32)
    scale[kept] = np.sqrt(1 - photon_share)
    return ThinnedSet(
        shown=thinned_input(at_positions(part, kept), choices, box, with_data=with_data),
        counts=torch.from_numpy(counts.astype(np.min_scalar_type(int(counts.max())))),
        probe_scale=torch.from_numpy(scale),
        is_whole=count == scan,
    )


def thinned_sets(
    measurement: Measurement,
    choices: ThinnedChoices,
    box: Box,
    *,
    count: int,
    photon_shares: tuple[float, float],
    kept_positions: Sequence[float],
    random: np.random.Generator,
    progress: Callable[[int, int], None],
    with_data: bool = False,
) -> list[ThinnedSet]:
    """Return many thinnings: photon shares evenly drawn, shares of kept positions in turn."""
    sets = []
    for index in range(count):
        sets.append(
            thinned_set(
                measurement,
                choices,
                box,
                photon_share=float(random.uniform(*photon_shares)),
                kept_share=kept_positions[index % len(kept_positions)],
                random=random,
                with_data=with_data,
            )
        )
        progress(index + 1, count)
    return sets
