"""Ptychodus 1.7.0 reads what we write, sees the same physics, and we read what it writes."""

import numpy as np
import pytest
import torch

from study_lib.data.formats.acquisition import ReadChoices, centred_positions
from study_lib.data.formats.registry import read_file
from study_lib.physics.forward import exit_waves, expected_counts, patterns_expected

pytestmark = pytest.mark.peer


def predicted(acquisition):
    """Return our expected counts."""
    arrays = acquisition.probe, acquisition.object_, acquisition.positions_px
    return expected_counts(exit_waves(*map(torch.from_numpy, arrays))).numpy()


def metres_of(whole):
    """Return (y, x) in metres from the middle of the object."""
    pixel_m = whole.geometry.pixel_of_object_m(16)
    return centred_positions(whole.positions_px, 16, whole.object_.shape) * pixel_m


def test_ptychodus_reads_our_files(read_by, whole):
    found = read_by("ptychodus")

    for name in ("product", "cxi"):
        np.testing.assert_array_equal(found[f"{name}_probe"][0, 0], whole.probe)
        np.testing.assert_array_equal(found[f"{name}_object"][0], whole.object_)
        np.testing.assert_array_equal(found[f"{name}_indexes"], whole.scan_index)
        metres = np.stack([found[f"{name}_y_m"], found[f"{name}_x_m"]], axis=1)
        np.testing.assert_allclose(metres, metres_of(whole), rtol=1e-12)
        assert found[f"{name}_energy_ev"] == pytest.approx(8000.0, rel=1e-9)
        assert found[f"{name}_distance_m"] == 1.5
        np.testing.assert_allclose(
            found[f"{name}_predicted"], predicted(whole), rtol=1e-4, atol=1e-2
        )
    for name in ("patterns", "cxi_patterns", "slac_patterns"):
        np.testing.assert_array_equal(found[name], whole.counts())
    for name in ("bad_pixels", "cxi_bad_pixels"):
        np.testing.assert_array_equal(found[name], whole.bad_pixels)
    np.testing.assert_array_equal(found["patterns_indexes"], whole.scan_index)
    assert found["cxi_pixel_m"] == 75e-6


def test_ptychodus_reads_several_modes_and_predicts_their_patterns(read_by, of_modes):
    found = read_by("ptychodus")

    arrays = of_modes.probe, of_modes.object_, of_modes.positions_px
    ours = patterns_expected(*map(torch.from_numpy, arrays)).numpy()
    np.testing.assert_array_equal(found["modes_patterns"], of_modes.counts())
    for name in ("modes", "cxi_modes"):
        np.testing.assert_array_equal(found[f"{name}_probe"][0], of_modes.probe)
        np.testing.assert_allclose(found[f"{name}_predicted"], ours, rtol=1e-4, atol=1e-2)


def test_ptychodus_reads_slac_files_and_refuses_the_keys_of_ptychopinn(read_by, whole):
    """It writes diff3d for PtychoPINN and has no reader for it."""
    found = read_by("ptychodus")

    np.testing.assert_array_equal(found["slac_probe"][0, 0], whole.probe)
    np.testing.assert_array_equal(found["slac_object"][0], whole.object_)
    pixel_m = whole.geometry.pixel_of_object_m(16)
    np.testing.assert_allclose(found["slac_y_m"], whole.positions_px[:, 0] * pixel_m, rtol=1e-9)
    assert "diffraction" in str(found["refusal"])


def test_we_read_what_ptychodus_writes(read_by, whole, tmp_path):
    read_by("ptychodus")

    product, name = read_file(
        tmp_path / "theirs.h5", ReadChoices(), patterns=tmp_path / "theirs_diffraction.h5"
    )
    cxi, _ = read_file(tmp_path / "theirs_product.cxi", ReadChoices())
    training, _ = read_file(tmp_path / "theirs.npz", ReadChoices(domain="counts"))

    assert name == "ptychodus"
    np.testing.assert_array_equal(product.amplitudes, whole.amplitudes)
    np.testing.assert_array_equal(product.probe, whole.probe)
    np.testing.assert_allclose(product.positions_px, whole.positions_px, atol=1e-9)
    np.testing.assert_array_equal(product.scan_index, whole.scan_index)
    np.testing.assert_array_equal(cxi.object_, whole.object_)
    np.testing.assert_allclose(cxi.positions_px, whole.positions_px, atol=1e-9)
    np.testing.assert_array_equal(training.amplitudes, whole.amplitudes)
    np.testing.assert_array_equal(training.object_, whole.object_)
    np.testing.assert_allclose(
        training.positions_px, whole.positions_px - 0.5, atol=1e-9
    )  # its origin is the middle of a patch, half a pixel from ours on an even grid
