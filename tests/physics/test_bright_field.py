"""The bright field holds every photon that reaches the detector without an object."""

import numpy as np
import pytest

from study_lib.errors import InputError
from study_lib.physics.probe import bright_field, zone_plate_probe

APERTURE_PER_PX = 0.2


@pytest.mark.parametrize("side_px", [32, 33, 64])
@pytest.mark.parametrize("defocus_radius_px", [0.0, 5.0])
def test_without_an_object_no_photon_lands_outside(side_px, defocus_radius_px):
    probe = zone_plate_probe(
        side_px=side_px,
        aperture_per_px=APERTURE_PER_PX,
        stop_ratio=0.4,
        defocus_radius_px=defocus_radius_px,
    )
    pattern = np.abs(np.fft.fftshift(np.fft.fft2(probe, norm="ortho"))) ** 2

    inside = bright_field(side_px, APERTURE_PER_PX)

    assert pattern[~inside].sum() == pytest.approx(0, abs=1e-12)
    assert pattern[inside].sum() == pytest.approx(1)


def test_its_area_is_that_of_the_pupil():
    """No larger than needed: the disc of the radius and half a pixel, to a hundredth."""
    side_px = 512

    inside = bright_field(side_px, APERTURE_PER_PX)

    assert inside.sum() == pytest.approx(np.pi * (APERTURE_PER_PX * side_px + 0.5) ** 2, rel=0.01)


@pytest.mark.parametrize("aperture_per_px", [0.0, -0.1, 0.5, np.nan])
def test_a_pupil_beyond_the_detector_is_refused(aperture_per_px):
    with pytest.raises(InputError, match=r"aperture_per_px = .*up to 0.5 per object pixel"):
        bright_field(32, aperture_per_px)
