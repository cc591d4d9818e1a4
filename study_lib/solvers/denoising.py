"""Classical denoising of a complex object: what any reconstruction gains without a network.

Real and imaginary part together, after a slow phase has been taken off that would turn the object
around the complex plane; it is put on again unchanged.
"""

from collections.abc import Callable, Mapping
from types import MappingProxyType

import numpy as np
from jaxtyping import Complex, Float
from scipy.ndimage import gaussian_filter
from skimage.restoration import denoise_nl_means, denoise_tv_chambolle

SLOW_PX = 14.0  # standard deviation of the window in which a phase counts as slow
PATCH_PX, SEARCH_PX = 5, 6  # of non-local means
TV_STEPS = 100
LIT_SHARE = 0.05  # of the brightest pixel's light, from which on a pixel tells of the noise
Parts = Float[np.ndarray, "y x 2"]


def _gaussian(parts: Parts, width_px: float) -> Parts:
    smooth: np.ndarray = gaussian_filter(parts, (width_px, width_px, 0))
    return smooth


def _total_variation(parts: Parts, weight: float) -> Parts:
    smooth: np.ndarray = denoise_tv_chambolle(parts, weight, max_num_iter=TV_STEPS, channel_axis=-1)
    return smooth


def _non_local_means(parts: Parts, width: float) -> Parts:
    smooth: np.ndarray = denoise_nl_means(
        parts, PATCH_PX, SEARCH_PX, h=width, fast_mode=True, channel_axis=-1
    )
    return smooth


FAMILIES: Mapping[str, Callable[[Parts, float], Parts]] = MappingProxyType(
    {
        "gaussian": _gaussian,
        "total_variation": _total_variation,
        "non_local_means": _non_local_means,
    }
)
IN_UNITS_OF_NOISE = frozenset({"total_variation", "non_local_means"})


def slow_phasor(object_: Complex[np.ndarray, "y x"]) -> Complex[np.ndarray, "y x"]:
    """Return the phase of the smoothed object as numbers of modulus one."""
    smooth = gaussian_filter(object_.real, SLOW_PX) + 1j * gaussian_filter(object_.imag, SLOW_PX)
    phasor: np.ndarray = np.exp(1j * np.angle(smooth))
    return phasor.astype(object_.dtype)


def noise_level(light: Float[np.ndarray, "y x"]) -> float:
    """Return the standard deviation that photons leave in each part of a median lit pixel.

    ``1 / (2 sqrt(photons))``, as if every photon told of one pixel (Wei et al., Phys. Rev. A 102,
    043516 (2020), doi:10.1103/PhysRevA.102.043516): a scale for strengths, not a bound.

    Parameters
    ----------
    light : (y, x)
        Photons on each object pixel, :func:`study_lib.physics.forward.illumination`.
    """
    return float(0.5 / np.sqrt(np.median(light[light > LIT_SHARE * light.max()])))


def denoised(
    object_: Complex[np.ndarray, "y x"], family: str, strength: float, noise: float
) -> Complex[np.ndarray, "y x"]:
    """Return a denoised object.

    Parameters
    ----------
    object_ : (y, x)
        Complex transmission; crop it to what is lit.
    family
        ``gaussian``; ``total_variation`` (Chambolle, J. Math. Imaging Vis. 20, 89 (2004),
        doi:10.1023/B:JMIV.0000011325.36760.1e); ``non_local_means`` (Buades, Coll and Morel, CVPR
        2005, doi:10.1109/CVPR.2005.38); or ``none``.
    strength
        Standard deviation in pixels; weight of the variation and h of the weights, both in units
        of the noise, so that they suit any dose; not used.
    noise
        From :func:`noise_level`.
    """
    if family == "none":
        return object_
    slow = slow_phasor(object_)
    flat = object_ * slow.conj()
    parts = np.stack([flat.real, flat.imag], axis=-1)
    absolute = strength * noise if family in IN_UNITS_OF_NOISE else strength
    smooth = FAMILIES[family](parts, absolute)
    result: np.ndarray = (smooth[..., 0] + 1j * smooth[..., 1]) * slow
    return result.astype(object_.dtype)
