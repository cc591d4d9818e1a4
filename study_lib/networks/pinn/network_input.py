"""How diffraction enters a network: standardised amplitudes, or what they say about the object."""

from abc import ABC, abstractmethod

import torch
from jaxtyping import Complex, Float
from torch import Tensor, nn

from study_lib.physics.fourier import fourier, inverse_fourier

VARIANCE_FLOOR = 0.05
SMALLEST_VARIANCE = 1e-12
PROBE_FLOOR = 0.05  # of the brightest pixel: where the probe is darker, it is not divided by
PATTERNS_AT_A_TIME = 256


class NetworkInput(nn.Module, ABC):
    """Turns the amplitudes of a group into ``fields`` images per pattern.

    Its constants come from the training patterns and the probe, before the first step.
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
        images: Tensor = (seen / self.deviation).movedim(-1, 2).flatten(1, 2)
        return images
