"""The pair: origin and scale are those of pty-chi itself, and each file finds the other."""

from dataclasses import replace

import h5py
import numpy as np
import pytest
import torch

from study_lib.data.formats.acquisition import ReadChoices
from study_lib.data.formats.ptychi import read_ptychi, write_ptychi
from study_lib.data.hdf5 import Hdf5Reader
from study_lib.errors import InputError
from study_lib.physics.forward import exit_waves, expected_counts
from study_lib.solvers import ptychi as ptychi_engine


def predicted_by_ptychi(patterns, parameters):
    """Return the counts that pty-chi expects, zero frequency in the centre."""
    ptychi = ptychi_engine.import_ptychi()
    options = ptychi.api.LSQMLOptions()
    options.reconstructor_options.default_device = ptychi.api.Devices.CPU
    with h5py.File(patterns) as dp, h5py.File(parameters) as file:
        pixel_m = file["object"].attrs["pixel_height_m"]
        task = ptychi.api.task.PtychographyTask(
            options,
            diffraction_data=dp["dp"][()],
            object_data=file["object"][()],
            probe_data=file["probe"][()],
            probe_position_y_px=file["probe_position_y_m"][()] / pixel_m,
            probe_position_x_px=file["probe_position_x_m"][()] / pixel_m,
        )
        indices = torch.arange(len(dp["dp"]))
    intensities = task.reconstructor.forward_model.forward(indices).detach()
    return torch.fft.fftshift(intensities, dim=(-2, -1))


@pytest.fixture
def pair(tmp_path, acquisition):
    write_ptychi(tmp_path / "star_dp.hdf5", acquisition)
    return tmp_path / "star_dp.hdf5"


def test_either_file_leads_to_the_pair(pair, acquisition):
    other = pair.with_name("star_para.hdf5")

    first, second = read_ptychi(pair, ReadChoices()), read_ptychi(other, ReadChoices())

    np.testing.assert_array_equal(first.amplitudes, second.amplitudes)
    np.testing.assert_array_equal(first.object_, acquisition.object_)


def test_pixel_sizes_are_attributes_and_positions_metres(pair, acquisition):
    pixel_m = acquisition.geometry.pixel_of_object_m(16)
    with h5py.File(pair.with_name("star_para.hdf5")) as file:
        assert file["object"].attrs["pixel_height_m"] == pixel_m
        moved = np.diff(file["probe_position_y_m"]) / pixel_m

    np.testing.assert_allclose(moved, np.diff(acquisition.positions_px[:, 0]), rtol=1e-9)


def test_the_record_gives_positions_on_file_back(pair):
    """By what it says was done to them, for an object that is not square."""
    found = read_ptychi(pair, ReadChoices())
    done = {step["operation"]: step["parameters"] for step in found.transformations}
    origin, pixel = done["shift origin of positions"], done["positions from metres to pixels"]

    at_origin = found.positions_px - (origin["y"], origin["x"])

    with h5py.File(pair.with_name("star_para.hdf5")) as file:
        on_file = [file[f"probe_position_{axis}_m"][()] for axis in "yx"]
    np.testing.assert_allclose(at_origin.T * pixel["object_pixel_m"], on_file, rtol=1e-6)


@pytest.mark.parametrize("more", [(0, 0), (1, 0), (2, 1), (3, 3)])
def test_pty_chi_predicts_the_patterns_from_the_files(tmp_path, acquisition, more):
    """Its own forward model, fed with nothing but the files, its origin left at the default."""
    whole = replace(
        acquisition,
        positions_px=np.round(acquisition.positions_px),
        object_=np.pad(acquisition.object_, ((0, more[0]), (0, more[1]))),
    )
    write_ptychi(tmp_path / "s_dp.hdf5", whole)

    with ptychi_engine._borrowed_globals():
        predicted = predicted_by_ptychi(tmp_path / "s_dp.hdf5", tmp_path / "s_para.hdf5")

    waves = exit_waves(*map(torch.from_numpy, (whole.probe, whole.object_, whole.positions_px)))
    torch.testing.assert_close(predicted, expected_counts(waves), rtol=1e-3, atol=1e-1)


@pytest.mark.parametrize(
    ("name", "harm", "message"),
    [
        ("para", lambda file: file["object"].attrs.clear(), "is not known; give --object-pixel-nm"),
        ("para", lambda file: file.__delitem__("object"), "is not known; give --object-pixel-nm"),
        ("dp", lambda file: file.__delitem__("dp"), "dp: found nothing"),
        (
            "para",
            lambda file: file["object"].attrs.modify("pixel_width_m", 1e-9),
            "needs square pixels of a positive size",
        ),
    ],
)
def test_what_is_missing_is_said(pair, name, harm, message):
    with h5py.File(pair.with_name(f"star_{name}.hdf5"), "a") as file:
        harm(file)

    with pytest.raises(InputError, match=message):
        read_ptychi(pair, ReadChoices())


def test_a_missing_partner_and_a_wrong_name_are_said(pair):
    pair.with_name("star_para.hdf5").rename(pair.with_name("other.hdf5"))

    with pytest.raises(InputError, match=r"star_para.hdf5: no such file"):
        read_ptychi(pair, ReadChoices())
    with pytest.raises(InputError, match="ends in neither _dp nor _para"):
        read_ptychi(pair.with_name("other.hdf5"), ReadChoices())


@pytest.mark.parametrize(
    ("key", "values", "message"),
    [
        ("object", np.complex64(1), r"object: found shape \(\); expected 2 or more axes"),
        ("probe", np.complex64(1), r"probe: found shape \(\); expected 2 or more axes"),
        ("probe", np.ones((1, 1, 8, 8), complex), r"probe: found shape .* as large as a pattern"),
        ("probe_position_x_m", np.zeros(4), r"found shapes \(5,\) and \(4,\); give one y and"),
    ],
)
def test_no_pattern_is_read_before_all_headers_fit(pair, monkeypatch, key, values, message):
    """A large file of patterns costs nothing if its partner is of no use."""
    with h5py.File(pair.with_name("star_para.hdf5"), "a") as file:
        attributes = dict(file[key].attrs)
        del file[key]
        file[key] = values
        file[key].attrs.update(attributes)
    read = []
    whole = Hdf5Reader.optional_array
    monkeypatch.setattr(
        Hdf5Reader,
        "optional_array",
        lambda *args, **more: read.append(args) or whole(*args, **more),
    )

    with pytest.raises(InputError, match=message):
        read_ptychi(pair, ReadChoices())

    assert read == []


def test_a_pixel_that_cannot_be_is_refused(pair):
    with h5py.File(pair.with_name("star_para.hdf5"), "a") as file:
        file["object"].attrs["pixel_height_m"] = file["object"].attrs["pixel_width_m"] = 1e-30

    with pytest.raises(InputError, match="object: pixel_height_m: found 1e-30; allowed are 1e-13"):
        read_ptychi(pair, ReadChoices())
