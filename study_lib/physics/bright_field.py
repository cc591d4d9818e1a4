"""The part of the detector that the pupil lights directly; what lies outside was scattered."""

import numpy as np
from jaxtyping import Bool

from study_lib.errors import InputError


def bright_field(side_px: int, aperture_per_px: float) -> Bool[np.ndarray, "n n"]:
    """Return which detector pixels lie in the bright field, the central stop's shadow included.

    Its edge is half a detector pixel outside the pupil's, whose rim is one pixel soft.

    Parameters
    ----------
    side_px
        Side N of the detector; the beam hits pixel ``N // 2``.
    aperture_per_px
        Pupil radius in cycles per object pixel.

    Raises
    ------
    InputError
        If the pupil is not within the detector.
    """
    if not 0 < aperture_per_px < 0.5:
        raise InputError(
            f"aperture_per_px = {aperture_per_px:g}: a detector holds frequencies up to 0.5 per "
            "object pixel; give a radius above zero and below that"
        )
    frequency_per_px = (np.arange(side_px) - side_px // 2) / side_px
    radius_per_px = np.hypot(frequency_per_px[:, None], frequency_per_px)
    inside: np.ndarray = radius_per_px < aperture_per_px + 0.5 / side_px
    return inside
