"""PtychoPINN: a network that maps diffraction to object patches.

Hoidn, Mishra and Mehta, Sci. Rep. 13, 22789 (2023), doi:10.1038/s41598-023-48351-7. Two decoders,
for amplitude and phase, share one encoder.
"""

from abc import ABC, abstractmethod

import torch
from jaxtyping import Complex, Float
from torch import Tensor, nn

from study_lib.physics.fourier import fourier, inverse_fourier

# --- How diffraction enters: amplitudes, or what they say about the object

VARIANCE_FLOOR = 0.05
SMALLEST_VARIANCE = 1e-12
PROBE_FLOOR = 0.05  # of the brightest pixel: where the probe is darker, it is not divided by
PATTERNS_AT_A_TIME = 256


class NetworkInput(nn.Module, ABC):
    """Turns the amplitudes of a group into ``fields`` images per pattern.

    Its constants come from the training patterns and the probe, before the first step; of several
    incoherent modes that is the strongest.
    """

    fields: int

    @abstractmethod
    def fit(self, amplitudes: Float[Tensor, "scan n n"], probe: Complex[Tensor, "n n"]) -> None:
        """Learn offset and scale."""

    @abstractmethod
    def forward(self, amplitudes: Float[Tensor, "batch c n n"]) -> Float[Tensor, "batch f n n"]:
        """Return the images, about 1 in size; f is ``fields`` times c."""


class StandardisedAmplitudes(NetworkInput):
    """Every detector pixel brought to mean 0 and deviation 1 over the training patterns.

    What differs between positions is only a small part of a pattern. The published network brings
    the mean power of its input to one number instead.
    """

    fields = 1
    mean: Tensor
    deviation: Tensor

    def __init__(self, side: int) -> None:
        super().__init__()
        self.register_buffer("mean", torch.zeros(side, side))
        self.register_buffer("deviation", torch.ones(side, side))

    def fit(self, amplitudes: Float[Tensor, "scan n n"], probe: Complex[Tensor, "n n"]) -> None:
        """Learn mean and deviation; a floor keeps single photons in dark pixels small."""
        variance = amplitudes.var(dim=0)
        self.mean.copy_(amplitudes.mean(dim=0))
        floor = (VARIANCE_FLOOR * variance.max()).clamp_min(SMALLEST_VARIANCE)
        self.deviation.copy_(torch.sqrt(variance + floor))

    def forward(self, amplitudes: Float[Tensor, "batch c n n"]) -> Float[Tensor, "batch c n n"]:
        """Return the standardised amplitudes."""
        return (amplitudes - self.mean) / self.deviation


class BackPropagation(NetworkInput):
    """Amplitudes with the phases of the bare probe's diffraction, propagated back to the object.

    ``P* F^-1[sqrt(n) exp(i arg F P)] / (|P|^2 + floor)``: the update that the first step of an
    iterative reconstruction makes from an object of ones. For a weak object ``1 + d`` it is half of
    ``d`` where it lies, and its twin image, which a curved probe spreads out: as in in-line
    holography (Gabor, Nature 161, 777 (1948), doi:10.1038/161777a0). What the network has to do is
    local then. Real and imaginary part, less their mean over the training patterns, in which all
    that is the probe's and the detector's lies.
    """

    fields = 2
    phases: Tensor
    backward_probe: Tensor
    mean: Tensor
    deviation: Tensor

    def __init__(self, side: int) -> None:
        super().__init__()
        # Real and imaginary parts: processes that train together exchange no complex numbers.
        self.register_buffer("phases", torch.zeros(side, side, 2))
        self.register_buffer("backward_probe", torch.zeros(side, side, 2))
        self.register_buffer("mean", torch.zeros(side, side, 2))
        self.register_buffer("deviation", torch.ones(()))

    def fit(self, amplitudes: Float[Tensor, "scan n n"], probe: Complex[Tensor, "n n"]) -> None:
        """Learn what the probe does, the mean, and the deviation where the probe is bright."""
        power = probe.abs() ** 2
        floor = (PROBE_FLOOR * power.max()).clamp_min(SMALLEST_VARIANCE)
        self.phases.copy_(torch.view_as_real(torch.sgn(fourier(probe))))
        self.backward_probe.copy_(torch.view_as_real(probe.conj() / (power + floor)))
        probe_weights = power / power.sum().clamp_min(SMALLEST_VARIANCE)
        mean = torch.zeros_like(probe)
        for part in amplitudes.split(PATTERNS_AT_A_TIME):
            mean += self._propagated(part.to(probe.device)).sum(dim=0) / len(amplitudes)
        variance = torch.zeros_like(power.sum())
        for part in amplitudes.split(PATTERNS_AT_A_TIME):
            apart = self._propagated(part.to(probe.device)) - mean
            variance += (apart.abs() ** 2 * probe_weights).sum() / (2 * len(amplitudes))
        self.mean.copy_(torch.view_as_real(mean))
        self.deviation.copy_(torch.sqrt(variance).clamp_min(SMALLEST_VARIANCE))

    def _propagated(self, amplitudes: Float[Tensor, "*batch n n"]) -> Complex[Tensor, "*batch n n"]:
        wave = inverse_fourier(amplitudes * torch.view_as_complex(self.phases))
        return wave * torch.view_as_complex(self.backward_probe)

    def forward(self, amplitudes: Float[Tensor, "batch c n n"]) -> Float[Tensor, "batch f n n"]:
        """Return real and imaginary parts, pattern by pattern."""
        seen = torch.view_as_real(self._propagated(amplitudes)) - self.mean
        return (seen / self.deviation).movedim(-1, 2).flatten(1, 2)


# --- The network

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
        self.centre = _convolution(width - BORDER_FEATURES, channels)
        self.border = nn.Sequential(
            nn.Upsample(scale_factor=2),
            _convolution(BORDER_FEATURES, BORDER_FEATURES),
            nn.SiLU(),
            _convolution(BORDER_FEATURES, channels),
        )
        self.margin = side // 4

    def forward(self, features: Float[Tensor, "batch f h w"]) -> Float[Tensor, "batch c n n"]:
        """Return the patch without activation: the border field, its central half replaced."""
        trunk = self.trunk(features)
        centre = self.centre(trunk[:, :-BORDER_FEATURES])
        patch: Tensor = self.border(trunk[:, -BORDER_FEATURES:]).clone()
        inner = slice(self.margin, -self.margin)
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
            amplitude, phase = self.amplitude(features), self.phase(features)
        return torch.polar(torch.sigmoid(amplitude.float()), torch.pi * torch.tanh(phase.float()))
