"""Steps of the solver: preconditioned gradients of object and probe, total variation, momentum."""

import math

import torch
from jaxtyping import Complex, Float
from torch import Tensor

from study_lib.physics.forward import summed_over_modes
from study_lib.physics.fourier import slow_part

SLOW_GAIN_MAX = 100.0
SMALLEST_WIDTH_PX = 0.5
TV_ROUNDING = 0.03  # jump of the transmission below which total variation is quadratic


def object_step(
    object_: Complex[Tensor, " pixel"],
    gradient: Complex[Tensor, " pixel"],
    light: Float[Tensor, " pixel"],
    *,
    box: tuple[int, int],
    damping: float,
    corner_per_px: float,
) -> Complex[Tensor, " pixel"]:
    """Return the gradient over the light on each pixel, and more of slow phases: minus the step.

    The first part alone cannot raise the amplitude objective by a unit step: the squared distance
    to the measured moduli has the curvature of the illumination, and the nearest waves only come
    nearer [1]_. A slow phase of the object hardly changes a pattern except to move it, by
    ``grad phase``; its curvature is smaller by ``(2 pi q sigma)^2`` for a probe of rms width sigma.
    The second part is the inverse of that, ``(q0 / q)^2`` with ``q0 = 1 / (2 pi sigma)``, of the
    gradient in the phase, over the brightest light: a truly slow phase, also where light is weak.

    Parameters
    ----------
    object_, gradient, light : (pixel,)
        Flattened box; light in photons.
    box
        (rows, columns).
    damping
        Share of the brightest pixel's light mixed into the light of every pixel.
    corner_per_px
        q0 in cycles per pixel; 0 for no amplification.

    References
    ----------
    .. [1] Fienup, Appl. Opt. 21, 2758 (1982), doi:10.1364/AO.21.002758; the damping is that of
       Maiden, Johnson and Li, Optica 4, 736 (2017), doi:10.1364/OPTICA.4.000736
    """
    inverse = 1 / torch.lerp(light, light.max(), damping)
    if corner_per_px == 0:
        return inverse * gradient
    phase = object_ / object_.abs().clamp_min(1e-6)
    turned = (phase.conj() * gradient).imag / light.max()
    slow = slow_part(turned.reshape(box), corner_per_px, SLOW_GAIN_MAX).flatten()
    return inverse * gradient + phase * torch.complex(torch.zeros_like(slow), slow)


def probe_step(
    gradient: Complex[Tensor, "*modes n n"], weight: Float[Tensor, "n n"], *, damping: float
) -> Complex[Tensor, "*modes n n"]:
    """Return the gradient over the summed ``|object|^2`` under each pixel: minus the step.

    That is the curvature of every mode: the squared distance of the stacked waves of all modes to
    the nearest that have the measured moduli has no larger one. Longer steps of weak modes, by the
    inverse of the modes' Gram matrix (Tong, Ma and Chi, arXiv:2005.08898), were tried: far from the
    solution they overshoot, and the fit ended worse.
    """
    return gradient / torch.lerp(weight, weight.max(), damping)


def rms_width_px(probe: Complex[Tensor, "*modes n n"]) -> float:
    """Return the root mean square distance of the light from its centre, along one axis."""
    power = summed_over_modes(probe.abs().double().unsqueeze(-3) ** 2)[0]
    axis = torch.arange(power.shape[-1], dtype=torch.float64, device=power.device)
    total = power.sum()
    variances = []
    for light in (power.sum(1), power.sum(0)):
        mean = (light * axis).sum() / total
        variances.append(float((light * (axis - mean) ** 2).sum() / total))
    return max(math.sqrt(sum(variances) / 2), SMALLEST_WIDTH_PX)


def total_variation(
    object_: Complex[Tensor, " pixel"], box: tuple[int, int]
) -> tuple[float, Complex[Tensor, " pixel"]]:
    """Return the isotropic total variation of the transmission, rounded at zero, and its gradient.

    Rudin, Osher and Fatemi, Physica D 60, 259 (1992), doi:10.1016/0167-2789(92)90242-F
    """
    image = object_.reshape(box)
    down, right = torch.zeros_like(image), torch.zeros_like(image)
    down[:-1] = image[1:] - image[:-1]
    right[:, :-1] = image[:, 1:] - image[:, :-1]
    length = torch.sqrt(
        down.real**2 + down.imag**2 + right.real**2 + right.imag**2 + TV_ROUNDING**2
    )
    down, right = down / (2 * length), right / (2 * length)
    gradient = -down - right
    gradient[1:] += down[:-1]
    gradient[:, 1:] += right[:, :-1]
    return float((length - TV_ROUNDING).sum(dtype=torch.float64)), gradient.flatten()


def tv_curvature(weight: float) -> float:
    """Return the largest curvature of the rounded total variation, in the unit of the light."""
    return 4 * weight / TV_ROUNDING


def next_momentum(age: float, limit: float) -> tuple[float, float]:
    """Return Nesterov's next age of the momentum and the weight of the last change.

    Nesterov, Soviet Math. Dokl. 27, 372 (1983); restarted as in O'Donoghue and Candès, Found.
    Comput. Math. 15, 715 (2015), doi:10.1007/s10208-013-9150-3
    """
    older = (1 + math.sqrt(1 + 4 * age**2)) / 2
    return older, min(limit, (age - 1) / older)
