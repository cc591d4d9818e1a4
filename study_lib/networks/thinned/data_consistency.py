"""How counts would have an object changed: the likelihood's gradient, and learned steps."""

from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Bool, Complex, Float, Shaped
from torch import Tensor, nn

from study_lib.physics.forward import add_patches, corners_of, patches_at, probes_at
from study_lib.physics.fourier import fourier, inverse_fourier
from study_lib.physics.measurement import Box, Measurement

OFFSET = 0.02  # photons per pixel that bound the gradient, as the solver's
DAMPING = 0.05  # share of the brightest pixel's light in that of every pixel
CHUNK = 64
FIRST_STEP = 0.3  # before training
COARSE_TO_FINE = (4, 2, 1)  # pixels behind one of a stage, in turn


@dataclass(frozen=True)
class CountsInBox:
    """The counts of a measurement, and where they lie in a box of the object.

    ``counts`` (scan, n, n), ``positions_px`` (scan, 2) in the frame of the box, ``probe`` and
    ``bad_pixels`` (n, n), ``light`` (y, x) in photons.
    """

    counts: Shaped[Tensor, "scan n n"]
    positions_px: Float[Tensor, "scan 2"]
    probe: Complex[Tensor, "n n"]
    light: Float[Tensor, "y x"]
    bad_pixels: Bool[Tensor, "n n"] | None

    @classmethod
    def of(
        cls, measurement: Measurement, box: Box, light: Float[np.ndarray, "oy ox"]
    ) -> "CountsInBox":
        """Return the counts of a measurement whose patches all lie in a box.

        ``light`` (oy, ox) are its photons on each object pixel, of :class:`LitPart`.
        """
        counts, bad = measurement.counts, measurement.bad_pixels
        first = np.array([box[0].start, box[1].start])
        return cls(
            counts=torch.from_numpy(counts.astype(np.min_scalar_type(int(counts.max())))),
            positions_px=torch.from_numpy(measurement.positions_px - first),
            probe=torch.from_numpy(measurement.probe.astype(np.complex64)),
            light=torch.from_numpy(light[box]),
            bad_pixels=None if bad is None else torch.from_numpy(bad),
        )

    def change(self, object_: Complex[Tensor, "y x"]) -> Complex[Tensor, "y x"]:
        """Return minus the gradient of the Poisson likelihood, over the light of every pixel.

        Of the size of the change that the counts ask for; can be differentiated.
        """
        side, shape = self.probe.shape[-1], (object_.shape[0], object_.shape[1])
        total = torch.zeros_like(object_)
        for start in range(0, len(self.counts), CHUNK):
            part = slice(start, start + CHUNK)
            positions, counts = self.positions_px[part], self.counts[part].float()
            probes, corners = probes_at(self.probe, positions), corners_of(positions, side)
            spectra = fourier(probes * patches_at(object_, corners, side))
            expected = spectra.real.square() + spectra.imag.square()
            residual = 1 - (counts + OFFSET * counts.sign()) / (expected + OFFSET)
            if self.bad_pixels is not None:
                residual = residual.masked_fill(self.bad_pixels, 0)
            waves = probes.conj() * inverse_fourier(spectra * residual)
            total = total + add_patches(waves, corners, shape)
        change: Tensor = -total / (self.light + DAMPING * self.light.max())
        return change


def _stage(inputs: int, width: int) -> nn.Sequential:
    """Return a small network that adds nothing before training."""
    layers = [
        *(nn.Conv2d(inputs, width, 3, padding=1), nn.GELU()),
        *(nn.Conv2d(width, width, 3, padding=1), nn.GELU()),
    ]
    last = nn.Conv2d(width, 2, 1)
    for weights in last.parameters():
        nn.init.zeros_(weights)
    return nn.Sequential(*layers, last)


class LearnedSteps(nn.Module):
    """Steps of data consistency with momentum, each followed by a small convolutional stage.

    The stages look at coarse images first, where the low frequencies lie that diffraction tells
    worst, then at finer ones. Before training a stage adds nothing.

    Parameters
    ----------
    steps
        How many.
    maps
        Images beside the object, its change and its start.
    width
        Channels of a stage.
    """

    def __init__(self, steps: int, *, maps: int, width: int) -> None:
        super().__init__()
        self.lengths = nn.Parameter(torch.full((steps,), FIRST_STEP))
        self.momenta = nn.Parameter(torch.zeros(steps))
        self.stages = nn.ModuleList(_stage(6 + maps, width) for _ in range(steps))

    def forward(
        self,
        start: Complex[Tensor, "y x"],
        phasor: Complex[Tensor, "y x"],
        maps: Float[Tensor, "maps y x"],
        data: CountsInBox,
        residual_scale: float,
    ) -> Complex[Tensor, "y x"]:
        """Return the object after all steps.

        Parameters
        ----------
        start, phasor : (y, x)
            Object over its slow phase, and that phase.
        maps : (maps, y, x)
            Images that help.
        data
            Counts that the object has to explain.
        residual_scale
            Of the transmission that one unit of a stage adds.
        """
        current = previous = start
        for index, stage in enumerate(self.stages):
            point = current + self.momenta[index] * (current - previous)
            change = phasor.conj() * data.change(phasor * point)
            point = point + self.lengths[index] * change
            seen = [point - 1, change, start - 1]
            images = torch.cat(
                [torch.stack([part for one in seen for part in (one.real, one.imag)]), maps]
            )[None]
            factor = min(COARSE_TO_FINE[index % len(COARSE_TO_FINE)], *images.shape[-2:])
            coarse = nn.functional.avg_pool2d(images, factor, ceil_mode=True)
            added = nn.functional.interpolate(
                stage(coarse), size=images.shape[-2:], mode="bilinear"
            )[0]
            previous, current = current, point + residual_scale * torch.complex(*added)
        return current
