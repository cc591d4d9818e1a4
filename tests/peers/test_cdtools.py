"""cdtools 0.3.2 reads our CXI file, predicts its patterns, and we read what it writes."""

import numpy as np
import pytest
import torch

from study_lib.data.formats.acquisition import ReadChoices, centred_positions
from study_lib.data.formats.cxi import read_cxi
from study_lib.physics.forward import exit_waves, expected_counts, patterns_expected

pytestmark = pytest.mark.peer


def test_cdtools_reads_our_file_and_predicts_its_patterns(read_by, whole):
    found = read_by("cdtools")

    np.testing.assert_array_equal(found["patterns"], whole.counts())
    np.testing.assert_array_equal(found["mask"], ~whole.bad_pixels)
    assert found["wavelength_m"] == pytest.approx(whole.geometry.wavelength_m, rel=1e-6)
    assert found["distance_m"] == 1.5
    np.testing.assert_allclose(found["corner_m"], [8 * 75e-6, 8 * 75e-6, 1.5], rtol=1e-6)
    vectors = centred_positions(whole.positions_px, 16, whole.object_.shape)
    np.testing.assert_allclose(found["vectors_px"], vectors, rtol=1e-4)
    arrays = whole.probe, whole.object_, whole.positions_px
    ours = expected_counts(exit_waves(*map(torch.from_numpy, arrays))).numpy()
    np.testing.assert_allclose(found["predicted"], ours, rtol=1e-3, atol=1e-2)


def test_cdtools_reads_several_modes_and_predicts_their_patterns(read_by, of_modes):
    found = read_by("cdtools")

    np.testing.assert_array_equal(found["modes_patterns"], of_modes.counts())
    arrays = of_modes.probe, of_modes.object_, of_modes.positions_px
    ours = patterns_expected(*map(torch.from_numpy, arrays)).numpy()
    np.testing.assert_allclose(found["modes_predicted"], ours, rtol=1e-3, atol=1e-2)


def test_we_read_what_cdtools_writes(read_by, whole, tmp_path):
    """It keeps no object: positions come back about an origin of their own."""
    read_by("cdtools")

    found = read_cxi(tmp_path / "from_cdtools.cxi", ReadChoices())

    np.testing.assert_array_equal(found.amplitudes, whole.amplitudes)
    np.testing.assert_array_equal(found.bad_pixels, whole.bad_pixels)
    vectors = centred_positions(whole.positions_px, 16, whole.object_.shape)
    np.testing.assert_allclose(found.positions_px, vectors, rtol=1e-4)
    assert found.geometry.photon_energy_ev == pytest.approx(8000.0, rel=1e-4)
