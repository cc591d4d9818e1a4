"""The thinning network: which denoised object to trust where, and what to add to it."""

import torch
from jaxtyping import Complex, Float
from torch import Tensor, nn

from study_lib.design.methods import ThinnedDesign
from study_lib.networks.machine import in_layout
from study_lib.networks.thinned.inputs import MAPS, CountsInBox, ThinnedInput

# --- Learned steps towards the counts

FIRST_STEP = 0.3  # before training
COARSE_TO_FINE = (4, 2, 1)  # pixels behind one of a stage, in turn


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


# --- The mixing network

TRUST_IN_BASE = 3.0  # its lead over the other candidates before training, in units of the softmax
COARSEST = 4  # pixels of the input behind one of the coarsest stage


class MixingNetwork(nn.Module):
    """A small U-Net (Ronneberger et al., arXiv:1505.04597) that mixes candidates pixel by pixel.

    Its object is a weighted mean of the candidates, with weights that sum to one in every pixel,
    plus a residual that is zero before training, less what is slow in its difference from the base.

    Parameters
    ----------
    candidates
        Complex candidates; their input has `MAPS` further images.
    base
        Candidate that has nearly all of the weight before training.
    widths
        Channels of the three stages.
    data_steps
        Steps of data consistency after it, see :class:`LearnedSteps`; each has its own stage.
    residual_scale
        Of the transmission that one unit of the output adds.
    half_precision
        Whether convolutions are computed in bfloat16; the last one never is.

    Attributes
    ----------
    layout
        Of images and weights in memory. In float32, channels last made a step take 1.5 to 1.9
        times as long on a processor with AVX2 (oneDNN's gradient of the weights; measured by
        ``benchmarks/layout.py``).
    """

    def __init__(
        self,
        *,
        candidates: int,
        base: int,
        widths: tuple[int, int, int],
        data_steps: int = 0,
        residual_scale: float = 0.3,
        half_precision: bool = False,
    ) -> None:
        super().__init__()
        fine, middle, coarse = widths
        self.candidates, self.half_precision = candidates, half_precision
        self.residual_scale = residual_scale
        self.enter = _block(2 * candidates + MAPS, fine)
        self.down = _block(fine, middle)
        self.deepest = _block(middle, coarse)
        self.up = _block(coarse + middle, middle)
        self.leave = _block(middle + fine, fine)
        self.output = nn.Conv2d(fine, candidates + 2, 1)
        self.steps = LearnedSteps(data_steps, maps=MAPS, width=fine) if data_steps else None
        with torch.no_grad():
            self.output.weight.zero_()
            bias = torch.zeros(candidates + 2)
            bias[base] = TRUST_IN_BASE
            self.output.bias = nn.Parameter(bias)
        self.arrange(torch.channels_last if half_precision else torch.contiguous_format)

    def arrange(self, layout: torch.memory_format) -> None:
        """Compute with images and weights in this layout from now on."""
        self.layout = layout
        in_layout(self, layout)

    def forward(self, images: Float[Tensor, "batch channels y x"]) -> Float[Tensor, "batch k y x"]:
        """Return trust in each candidate, then both parts of the residual, without scale."""
        rows, columns = images.shape[-2:]
        padding = (0, -columns % COARSEST, 0, -rows % COARSEST)
        images = nn.functional.pad(images, padding, mode="replicate")
        images = images.contiguous(memory_format=self.layout)
        with torch.autocast(images.device.type, torch.bfloat16, enabled=self.half_precision):
            fine = self.enter(images)
            middle = self.down(nn.functional.avg_pool2d(fine, 2))
            coarse = self.deepest(nn.functional.avg_pool2d(middle, 2))
            middle = self.up(torch.cat([_doubled(coarse), middle], dim=1))
            fine = self.leave(torch.cat([_doubled(middle), fine], dim=1))
        found: Tensor = self.output(fine.float())
        return found[..., :rows, :columns]

    def object_of(
        self, shown: ThinnedInput, quarter_turns: int = 0, mirrored: bool = False
    ) -> Complex[Tensor, "y x"]:
        """Return the object that the network makes of an input, seen turned and mirrored or not."""
        images = torch.rot90(shown.channels, quarter_turns, (-2, -1))
        found = self((images.flip(-1) if mirrored else images)[None])[0]
        found = torch.rot90(found.flip(-1) if mirrored else found, -quarter_turns, (-2, -1))
        trust = torch.softmax(found[: self.candidates], dim=0)
        residual = self.residual_scale * torch.complex(found[-2], found[-1])
        base = shown.candidates[shown.base]
        mixed = (trust * shown.candidates).sum(0) + residual
        mixed = base + shown.without_slow(mixed - base)
        if self.steps is not None and shown.data is not None:
            mixed = self.steps(mixed, shown.phasor, shown.maps, shown.data, self.residual_scale)
        return shown.phasor * mixed


def mixing_network(
    design: ThinnedDesign, *, candidates: int, base: int, half_precision: bool
) -> MixingNetwork:
    """Return a new network with the design's widths, steps and scale of the residual."""
    return MixingNetwork(
        candidates=candidates,
        base=base,
        widths=design.widths,
        data_steps=design.data_steps,
        residual_scale=design.residual_scale,
        half_precision=half_precision,
    )


def _doubled(images: Tensor) -> Tensor:
    return nn.functional.interpolate(images, scale_factor=2, mode="bilinear")


def _block(channels: int, width: int) -> nn.Sequential:
    return nn.Sequential(
        nn.Conv2d(channels, width, 3, padding=1),
        nn.GELU(),
        nn.Conv2d(width, width, 3, padding=1),
        nn.GELU(),
    )
