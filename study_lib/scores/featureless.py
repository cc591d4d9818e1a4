"""Whether a result shows anything of the object: one that does not has no score."""

import numpy as np
from jaxtyping import Bool, Complex

from study_lib.scores.frc import half_bit_threshold, ring_correlation
from study_lib.scores.metrics import mse, phase_pair

FEATURELESS = "featureless"
GAIN_MIN_DB = 0.5
FIRST_RINGS = 4
SAMPLES_MIN = 4.0  # of a ring: with fewer, half a bit is a correlation of nearly one
LOSS_FALL_MIN = 0.02


def is_featureless(
    object_: Complex[np.ndarray, "y x"],
    truth: Complex[np.ndarray, "y x"],
    mask: Bool[np.ndarray, "y x"],
) -> bool:
    """Return whether an aligned object is no nearer to the truth than an empty one.

    That is so if its phase PSNR is not at least half a decibel above that of the best constant
    phase, or if its Fourier ring correlation lies below half a bit from the start: on the mean of
    the first four rings that hold four independent samples.

    Parameters
    ----------
    object_, truth : (y, x)
        Complex transmissions, aligned.
    mask : (y, x)
        True where pixels are scored.

    Raises
    ------
    ValueError
        As :func:`study_lib.scores.frc.ring_correlation`.

    Examples
    --------
    >>> import numpy as np
    >>> import study_lib as study
    >>> from study_lib.scores.featureless import is_featureless
    >>> truth = study.scene_of(study.load_design("smoke")).object_[20:84, 10:70]
    >>> mask = np.ones(truth.shape, bool)
    >>> noise = study.generator(1, "noise").standard_normal(truth.shape)
    >>> [is_featureless(one, truth, mask) for one in (truth, np.ones_like(truth))]
    [False, True]
    >>> is_featureless(np.exp(0.2j * noise), truth, mask)
    True
    """
    truth_phase, phase = phase_pair(object_, truth)
    constant = float(truth_phase[mask].var())
    if mse(phase, truth_phase, mask) > constant * 10 ** (-GAIN_MIN_DB / 10):
        return True
    rings = ring_correlation(object_, truth, mask)
    excess = (rings.correlation - half_bit_threshold(rings))[rings.samples >= SAMPLES_MIN]
    return bool(len(excess) and excess[:FIRST_RINGS].mean() < 0)


def stays_featureless(loss: float, uniform_object: float) -> bool:
    """Return whether a training's loss is still that of the best featureless object.

    It has not fallen by a fiftieth of it.
    """
    return loss > (1 - LOSS_FALL_MIN) * uniform_object


def stayed_text(loss: float, uniform_object: float) -> str:
    """Return the warning of a training that learned nothing of the object."""
    return (
        f"its loss stayed that of a featureless object ({loss:.4f}, an empty one has "
        f"{uniform_object:.4f}); train it for longer, or on more patterns"
    )
