"""PtychoPINN: a network that maps diffraction to object patches.

Hoidn, Mishra and Mehta, Sci. Rep. 13, 22789 (2023), doi:10.1038/s41598-023-48351-7. Two decoders,
for amplitude and phase, share one encoder.
"""

from abc import ABC, abstractmethod
from typing import TypeVar

import torch
from jaxtyping import Complex, Float
from torch import Tensor, nn

from study_lib.networks.pinn.network_input import NetworkInput

BOTTLENECK_PX = 8
ENCODER_WIDTH = 128
DECODER_WIDTH = 32
BORDER_FEATURES = 4


def _convolution(inputs: int, outputs: int) -> nn.Conv2d:
    """Return a 3 x 3 convolution, Glorot-uniform as in the original's framework."""
    layer = nn.Conv2d(inputs, outputs, kernel_size=3, padding=1)
    nn.init.xavier_uniform_(layer.weight)
    nn.init.zeros_(layer.get_parameter("bias"))
    return layer


def _block(inputs: int, outputs: int) -> nn.Sequential:
    return nn.Sequential(
        _convolution(inputs, outputs), nn.ReLU(), _convolution(outputs, outputs), nn.ReLU()
    )


Module = TypeVar("Module", bound=nn.Module)


def in_layout(network: Module, layout: torch.memory_format) -> Module:
    """Return the network itself, its weights in this layout of memory."""
    arranged: Module = network.to(memory_format=layout)  # type: ignore[call-overload]  # torch's types lack it
    return arranged


class Head(nn.Module):
    """Decoder of one quantity: the central half of the patch in full, its border coarsely.

    The border comes from the last features of the trunk (the original's ``probe_big``). They pass
    through SiLU, not ReLU: so few features would die, and the border with them.
    """

    def __init__(self, *, channels: int, side: int, filters_scale: int) -> None:
        super().__init__()
        width = ENCODER_WIDTH * filters_scale
        layers: list[nn.Module] = []
        stages = (side // 2 // BOTTLENECK_PX).bit_length() - 1
        for stage in reversed(range(stages)):
            narrow = DECODER_WIDTH * filters_scale * 2**stage
            layers += [_block(width, narrow), nn.Upsample(scale_factor=2)]
            width = narrow
        self.trunk = nn.Sequential(*layers)
        self.channels = channels
        self.centre = _convolution(width - BORDER_FEATURES, channels)
        self.border = nn.Sequential(
            nn.Upsample(scale_factor=2),
            _convolution(BORDER_FEATURES, BORDER_FEATURES),
            nn.SiLU(),
            _convolution(BORDER_FEATURES, channels),
        )
        self.margin = side // 4

    def forward(
        self, features: Float[Tensor, "batch f h w"]
    ) -> tuple[Float[Tensor, "batch c half half"], Float[Tensor, "batch c n n"]]:
        """Return the central half and the whole-patch border field, both without activation."""
        trunk = self.trunk(features)
        return self.centre(trunk[:, :-BORDER_FEATURES]), self.border(trunk[:, -BORDER_FEATURES:])

    def whole(
        self, centre: Float[Tensor, "batch c half half"], border: Float[Tensor, "batch c n n"]
    ) -> Float[Tensor, "batch c n n"]:
        """Return the border field with its central half replaced."""
        inner = slice(self.margin, -self.margin)
        patch = border.clone()
        patch[..., inner, inner] = centre
        return patch


class PatchNetwork(nn.Module, ABC):
    """What training and inference ask of a network."""

    @abstractmethod
    def fit_input(
        self, amplitudes: Float[Tensor, "scan n n"], probe: Complex[Tensor, "n n"]
    ) -> None:
        """Learn the scale of the input from the training patterns, before the first step."""

    @abstractmethod
    def forward(self, amplitudes: Float[Tensor, "batch c n n"]) -> Complex[Tensor, "batch c n n"]:
        """Return one complex object patch per square root of a diffraction pattern."""


class PtychoPinn(PatchNetwork):
    """Amplitude and phase autoencoder: C diffraction amplitudes to C complex object patches.

    Parameters
    ----------
    channels
        Patterns per group, C = gridsize squared.
    side
        Side N of a pattern: a power of two, at least 16.
    filters_scale
        Width multiplier; 2 in the original study.
    inputs
        How the amplitudes enter.
    half_precision
        Whether convolutions are computed in bfloat16; the diffraction model never is.
    """

    def __init__(
        self,
        *,
        channels: int,
        side: int,
        filters_scale: int,
        inputs: NetworkInput,
        half_precision: bool = False,
    ) -> None:
        super().__init__()
        self.inputs = inputs
        stages = (side // BOTTLENECK_PX).bit_length() - 1
        layers: list[nn.Module] = []
        width = channels * inputs.fields
        for stage in reversed(range(stages)):
            wide = max(1, ENCODER_WIDTH * filters_scale // 2**stage)
            layers += [_block(width, wide), nn.MaxPool2d(2)]
            width = wide
        self.encoder = nn.Sequential(*layers)
        self.amplitude = Head(channels=channels, side=side, filters_scale=filters_scale)
        self.phase = Head(channels=channels, side=side, filters_scale=filters_scale)
        self.half_precision = half_precision

    def fit_input(
        self, amplitudes: Float[Tensor, "scan n n"], probe: Complex[Tensor, "n n"]
    ) -> None:
        """Learn offset and scale of the input from the training patterns and the probe."""
        self.inputs.fit(amplitudes, probe)

    def forward(self, amplitudes: Float[Tensor, "batch c n n"]) -> Complex[Tensor, "batch c n n"]:
        """Return object patches; amplitude in (0, 1), phase in (-pi, pi).

        Parameters
        ----------
        amplitudes : (batch, c, n, n)
            Square roots of the counts.
        """
        inputs = self.inputs(amplitudes).contiguous(memory_format=torch.channels_last)
        kind = amplitudes.device.type
        with torch.autocast(kind, dtype=torch.bfloat16, enabled=self.half_precision):
            features = self.encoder(inputs)
            amplitude = self.amplitude.whole(*self.amplitude(features))
            phase = self.phase.whole(*self.phase(features))
        return torch.polar(torch.sigmoid(amplitude.float()), torch.pi * torch.tanh(phase.float()))


def has_fast_bfloat16() -> bool:
    """Return whether this processor multiplies bfloat16 numbers itself."""
    capabilities = torch.cpu.get_capabilities()
    return any(bool(capabilities.get(name)) for name in ("avx512_bf16", "amx_bf16"))
