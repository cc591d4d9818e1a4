"""How well an object explains each pattern, by one measure for every way it was found."""

import numpy as np
import torch
from jaxtyping import Complex, Float

from study_lib.physics.forward import exit_waves, expected_counts
from study_lib.physics.likelihood import half_deviance
from study_lib.physics.measurement import Measurement

PIXELS_AT_A_TIME = 2**21


def pattern_residuals(
    measurement: Measurement,
    object_: Complex[np.ndarray, "oy ox"],
    probe: Complex[np.ndarray, "n n"],
) -> Float[np.ndarray, " scan"]:
    """Return half the Poisson deviance per good detector pixel, pattern by pattern.

    About 1/2 where the object explains a pattern up to noise and photons are many, less where
    pixels are mostly dark.

    Parameters
    ----------
    measurement
        Patterns, positions and bad pixels.
    object_ : (oy, ox)
        In the frame of the positions.
    probe : (n, n)
        In sqrt(photons) per pixel.
    """
    side = probe.shape[-1]
    light, transmission = torch.from_numpy(probe), torch.from_numpy(object_)
    bad = measurement.bad_pixels
    mask = None if bad is None else torch.from_numpy(bad)
    found = np.empty(len(measurement.amplitudes))
    step = max(1, PIXELS_AT_A_TIME // side**2)
    for start in range(0, len(found), step):
        part = slice(start, start + step)
        positions = torch.from_numpy(measurement.positions_px[part])
        expected = expected_counts(exit_waves(light, transmission, positions))
        counts = torch.from_numpy(measurement.amplitudes[part]).square()
        found[part] = torch.vmap(lambda a, b: half_deviance(a, b, mask))(expected, counts).numpy()
    return found
