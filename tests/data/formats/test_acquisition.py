"""Geometry is that of the far field; nothing missing is made up; counts are whole again."""

from dataclasses import replace

import numpy as np
import pytest

from study_lib.data.datasets import read_dataset, write_dataset
from study_lib.data.formats.acquisition import centred_positions, positions_from_centred
from study_lib.data.formats.geometry import Geometry, energy_of_wavelength_ev
from study_lib.errors import InputError


def test_the_pixel_of_the_object_is_wavelength_times_distance_over_the_detector():
    """12.398 keV is one Angstrom: 1e-10 m * 2 m / (128 * 100 um) is 15.6 nm."""
    geometry = Geometry(12398.41984332003, 2.0, 100e-6)

    assert geometry.wavelength_m == pytest.approx(1e-10, rel=1e-12)
    assert geometry.pixel_of_object_m(128) == pytest.approx(15.625e-9, rel=1e-12)
    assert replace(geometry, detector_distance_m=None).pixel_of_object_m(128) is None
    assert replace(geometry, object_pixel_m=1e-8).pixel_of_object_m(128) == 1e-8


@pytest.mark.parametrize(("side", "centre"), [(16, [20, 18]), (15, [19.5, 17.5])])
def test_a_patch_in_the_middle_of_the_object_has_the_vector_zero(side, centre):
    """A 16-pixel patch named by pixel 20 covers 12..27 of 40 rows: as much below as above."""
    vector = centred_positions(np.array([centre], float), side, (40, 36))

    np.testing.assert_allclose(vector, 0, atol=1e-12)
    np.testing.assert_allclose(positions_from_centred(vector, side, (40, 36)), [centre])


def test_counts_are_whole_again_or_stay_as_they_are(acquisition):
    assert (acquisition.counts() % 1 == 0).all()

    fractions = replace(acquisition, amplitudes=np.full((5, 16, 16), 0.5, np.float32))
    assert (fractions.counts() == 0.25).all()


def test_what_is_missing_is_named(acquisition):
    bare = replace(acquisition, probe=None, object_=None, amplitudes=None)

    with pytest.raises(InputError, match="have no probe and no object, which this format needs"):
        bare.require("probe", "object_")
    with pytest.raises(InputError, match="neither patterns nor a probe"):
        bare.side_px()


def test_lengths_that_contradict_each_other_are_refused(acquisition):
    wrong = replace(acquisition, geometry=replace(acquisition.geometry, object_pixel_m=1e-8))

    with pytest.raises(InputError, match=r"stated as 1e-08 m, but .* make it 1.937e-07 m"):
        wrong.require_geometry("object_pixel_m")


def test_a_data_set_comes_back_with_all_it_knows(tmp_path, acquisition):
    write_dataset(tmp_path / "a.npz", replace(acquisition, is_normalized=True), "test")

    found = read_dataset(tmp_path / "a.npz")

    for name in ("amplitudes", "probe", "object_", "positions_px", "bad_pixels", "scan_index"):
        np.testing.assert_array_equal(getattr(found, name), getattr(acquisition, name))
    assert found.geometry == acquisition.geometry
    assert found.is_normalized


def test_data_that_break_the_contract_are_not_written(tmp_path, acquisition):
    outside = replace(acquisition, positions_px=acquisition.positions_px - 9)

    with pytest.raises(
        InputError, match=r"breaks DATA-001:\n  ycoords: found 3 of 5 patches outside"
    ):
        write_dataset(tmp_path / "a.npz", outside, "test")

    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("kiloelectronvolts", "picometres"),
    [(80, 4.1757), (200, 2.5079), (300, 1.9687), (1000, 0.8719)],
)
def test_electrons_have_the_wavelengths_of_the_tables(kiloelectronvolts, picometres):
    """Of Williams and Carter, Transmission Electron Microscopy (2009), table 1.2."""
    geometry = Geometry(photon_energy_ev=kiloelectronvolts * 1e3, electrons=True)

    assert geometry.wavelength_m * 1e12 == pytest.approx(picometres, rel=1e-3)
    energy_ev = energy_of_wavelength_ev(geometry.wavelength_m, electrons=True)
    assert energy_ev == pytest.approx(kiloelectronvolts * 1e3, rel=1e-9)


def test_the_fresnel_number_tells_a_hologram_from_a_far_field():
    """64 pixels of 1 um at 5 cm and 1 A, and a probe of 1 um at 2 m and 8 keV."""
    hologram = Geometry(energy_of_wavelength_ev(1e-10), 5e-2)
    diffraction = Geometry(8000.0, 2.0)

    assert hologram.fresnel_number(64e-6) == pytest.approx(819, rel=1e-3)
    assert diffraction.fresnel_number(1e-6) < 0.01
    assert Geometry(8000.0).fresnel_number(1e-6) is None
