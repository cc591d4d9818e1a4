"""Complex numbers as colours: hue is the phase, lightness the amplitude, both evenly spaced."""

import numpy as np
from jaxtyping import Complex, Float
from skimage.color import lab2rgb

LIGHTNESS = 72.0  # of the largest amplitude, on CIELAB's scale to 100
CHROMA = 36.0  # the most that sRGB holds at that lightness for every hue, with some to spare


def complex_colours(
    values: Complex[np.ndarray, "y x"], amplitude_max: float
) -> Float[np.ndarray, "y x 3"]:
    """Return sRGB colours, red to yellow to green to blue as the phase grows from 0 to 2 pi.

    Hue and lightness are those of CIELAB, in which equal steps look about equal; the usual hue of
    HSV has bright bands at some phases that pass for structure.

    Parameters
    ----------
    values : (y, x)
        Complex image.
    amplitude_max
        What gets full lightness; larger ones too. Zero is black.

    References
    ----------
    Kovesi, arXiv:1509.03700 (2015): on colour maps that are even and cyclic.
    """
    amplitude = np.clip(np.abs(values) / amplitude_max, 0, 1)
    phase = np.angle(values)
    lab = np.stack(
        [
            LIGHTNESS * amplitude,
            CHROMA * amplitude * np.cos(phase),
            CHROMA * amplitude * np.sin(phase),
        ],
        axis=-1,
    )
    colours: np.ndarray = lab2rgb(lab)
    return colours


def colour_wheel(side_px: int = 129) -> Float[np.ndarray, "y x 4"]:
    """Return the legend as sRGB with opacity: amplitude along the radius, phase around."""
    axis = np.linspace(-1, 1, side_px)
    disc = axis[None, :] + 1j * axis[:, None]
    opaque = (np.abs(disc) <= 1).astype(float)
    return np.dstack([complex_colours(disc, 1.0), opaque])
