"""Every format: what is written comes back the same, and predicts the same patterns."""

from dataclasses import replace
from typing import get_args
from unittest.mock import Mock

import numpy as np
import pytest
import torch

from study_lib.cli import files as cli_files
from study_lib.data.contract import check_arrays, load_dataset
from study_lib.data.datasets import read_dataset, write_dataset
from study_lib.data.formats import registry as formats
from study_lib.data.formats.acquisition import ReadChoices
from study_lib.errors import InputError
from study_lib.files import read_json
from study_lib.phases import import_check
from study_lib.phases.base_data import with_scaled_probe
from study_lib.physics.forward import patterns_expected

FILES = {
    "ptychopinn": "scan.npz",
    "ptychopinn-counts": "scan.npz",
    "slac": "scan.npz",
    "tike": "scan.npz",
    "ptychi": "scan_dp.hdf5",
    "ptychodus": "scan.h5",
    "cxi": "scan.cxi",
}
WITH_OBJECT = [name for name in FILES if name != "tike"]
WITH_METRES = ["slac", "ptychi", "ptychodus", "cxi"]

every_format = pytest.mark.parametrize("name", FILES)


def there_and_back(name, folder, acquisition, choices=None):
    """Write an acquisition in a format and read it again."""
    path = folder / FILES[name]
    formats.writer_for(name, path, folder / "source.npz")(path, acquisition)
    extra = folder / "scan_diffraction.h5" if name == "ptychodus" else None
    return formats.read_file(path, choices or ReadChoices(), name, extra)[0]


def predicted(acquisition):
    """Return the expected counts of an acquisition with probe and object."""
    arrays = acquisition.probe, acquisition.object_, acquisition.positions_px
    return patterns_expected(*map(torch.from_numpy, arrays)).numpy()


@every_format
def test_what_is_written_comes_back(name, tmp_path, acquisition):
    """A flip, a transpose, a conjugate, a root too many or a shifted origin would show."""
    found = there_and_back(name, tmp_path, acquisition)

    np.testing.assert_array_equal(found.amplitudes, acquisition.amplitudes)
    np.testing.assert_array_equal(found.probe, acquisition.probe)
    assert found.amplitudes.dtype == np.float32
    assert found.probe.dtype == np.complex64
    if name in WITH_OBJECT:
        np.testing.assert_array_equal(found.object_, acquisition.object_)
    np.testing.assert_allclose(found.positions_px, acquisition.positions_px, rtol=0, atol=1e-9)


@pytest.mark.parametrize("name", WITH_OBJECT)
def test_physics_survives(name, tmp_path, acquisition):
    found = with_scaled_probe(there_and_back(name, tmp_path, acquisition))

    np.testing.assert_allclose(predicted(found), predicted(acquisition), rtol=1e-4, atol=1e-2)


@pytest.mark.parametrize("name", WITH_OBJECT)
def test_odd_sides_come_back_too(name, tmp_path, rng, acquisition):
    """On an odd grid the middle is a pixel; half a pixel must neither appear nor vanish."""
    probe = (rng.normal(size=(15, 15)) + 1j * rng.normal(size=(15, 15))).astype(np.complex64)
    odd = replace(
        acquisition,
        amplitudes=acquisition.amplitudes[:, :15, :15],
        bad_pixels=None,
        probe=probe,
        object_=acquisition.object_[:39, :35],
    )

    found = there_and_back(name, tmp_path, odd, ReadChoices(ignore=frozenset({"object"})))

    # Padded to 16 the pixels of the object are 15/16 as wide.
    np.testing.assert_allclose(found.positions_px * 15 / 16, odd.positions_px, rtol=0, atol=1e-9)
    far, odd_far = (
        np.fft.fftshift(np.fft.fft2(np.fft.ifftshift(wave), norm="ortho"))
        for wave in (found.probe, odd.probe)
    )
    np.testing.assert_allclose(far[1:, 1:], odd_far, atol=1e-5)
    with pytest.raises(InputError, match="leave it out with --ignore object"):
        there_and_back(name, tmp_path, odd)


@pytest.mark.parametrize(
    "name", ["ptychopinn", "ptychopinn-counts", "slac", "ptychi", "ptychodus", "cxi"]
)
def test_bad_pixels_and_indices_come_back(name, tmp_path, acquisition):
    found = there_and_back(name, tmp_path, acquisition)

    np.testing.assert_array_equal(found.bad_pixels, acquisition.bad_pixels)
    np.testing.assert_array_equal(found.scan_index, acquisition.scan_index)


@pytest.mark.parametrize("name", ["slac", "ptychodus", "cxi", "ptychopinn"])
def test_lengths_come_back(name, tmp_path, acquisition):
    found = there_and_back(name, tmp_path, acquisition)

    assert found.geometry.photon_energy_ev == pytest.approx(8000.0, rel=1e-12)
    assert found.geometry.detector_distance_m == 1.5
    assert found.geometry.detector_pixel_m == 75e-6
    assert found.geometry.pixel_of_object_m(16) == pytest.approx(1.937e-7, rel=1e-3)


@pytest.mark.parametrize("name", WITH_METRES)
def test_lengths_are_never_invented(name, tmp_path, acquisition):
    unknown = replace(acquisition, geometry=type(acquisition.geometry)())

    with pytest.raises(InputError, match=r"do not say .*; give .*--"):
        there_and_back(name, tmp_path, unknown)

    assert list(tmp_path.iterdir()) == []


@every_format
def test_a_format_is_recognised_by_its_content(name, tmp_path, acquisition):
    path = tmp_path / FILES[name]
    formats.writer_for(name, path, tmp_path / "source.npz")(path, acquisition)

    assert formats.recognised(path) == name.split("-")[0].replace("slac", "ptychopinn")


@pytest.mark.parametrize("name", ["tike", "ptychi", "ptychodus", "cxi"])
def test_the_domain_that_the_user_says_goes_before_that_of_the_format(name, tmp_path, acquisition):
    found = there_and_back(name, tmp_path, acquisition, ReadChoices(domain="amplitude"))

    np.testing.assert_array_equal(found.amplitudes, acquisition.counts())
    assert "the file holds counts by its format" in " ".join(found.remarks)


@pytest.mark.parametrize("name", ["ptychopinn-counts", "slac", "tike", "ptychi", "cxi"])
def test_normalized_amplitudes_are_never_sold_as_counts(name, tmp_path, acquisition):
    with pytest.raises(InputError, match="carry no photon scale"):
        there_and_back(name, tmp_path, replace(acquisition, is_normalized=True))


@pytest.mark.parametrize("name", WITH_OBJECT)
def test_commands_bring_a_data_set_out_and_in(name, tmp_path, acquisition, study):
    write_dataset(tmp_path / "a.npz", acquisition, "test")

    path = FILES[name]
    out = study("export", "a.npz", path, "--format", name)
    extra = ["--patterns", "scan_diffraction.h5"] if name == "ptychodus" else []
    back = study("import", path, "b.npz", *extra)
    checked = study("validate", "b.npz")

    assert (out[0], back[0], checked[0]) == (0, 0, 0), out[2] + back[2] + checked[2]
    arrays, metadata = load_dataset(tmp_path / "b.npz")
    assert check_arrays(arrays, base=True)
    assert metadata["domain"] == "amplitude"
    assert metadata["source"] == path
    assert metadata["photons_per_pattern_measured"] == pytest.approx(
        acquisition.counts().sum(axis=(1, 2)).mean(), rel=1e-6
    )
    assert all(set(step) == {"operation", "parameters"} for step in metadata["transformations"])
    found = read_dataset(tmp_path / "b.npz")
    np.testing.assert_array_equal(found.amplitudes, acquisition.amplitudes)
    np.testing.assert_allclose(predicted(found), predicted(acquisition), rtol=1e-4, atol=1e-2)


def test_a_source_without_object_is_reconstructed(tmp_path, acquisition, study):
    write_dataset(tmp_path / "a.npz", acquisition, "test")
    study("export", "a.npz", "t.npz", "--format", "tike")

    code, printed, error = study("import", "t.npz", "b.npz", "--epochs", "2")

    assert code == 0, error
    assert "from tike" in printed
    arrays, metadata = load_dataset(tmp_path / "b.npz")
    np.testing.assert_array_equal(arrays["diffraction"], acquisition.amplitudes)
    assert metadata["r_factor_reconstruction"] < metadata["r_factor_start"]
    assert metadata["starting_probe"] == "file"


@pytest.mark.slow
@pytest.mark.parametrize("name", ["tike", "cxi"])
def test_a_check_tells_of_both_algorithms_and_both_halves(name, tmp_path, acquisition, study):
    """Of a file with its object, and of one without."""
    write_dataset(tmp_path / "a.npz", acquisition, "test")
    study("export", "a.npz", FILES[name], "--format", name)

    flags = ["--check", "--epochs", "2"]
    code, printed, error = study("import", FILES[name], "b.npz", *flags)

    assert code == 0, error
    report = read_json(tmp_path / "b.check.json")
    assert report["algorithms"].keys() == {"solver", "LSQML"}
    assert "LSQML: R-factor" in printed
    for pair in ("between_algorithms", "between_halves"):
        assert len(report[pair]["correlation"]) == len(report[pair]["frequency"]) > 1
        about = f"ring correlation {pair.replace('_', ' ')}, threshold"
        said = [line for line in printed.splitlines() if line.strip().startswith(about)]
        outcomes = [value for key, value in report[pair].items() if key.endswith("_outcome")]
        assert len(said) == {"between_algorithms": 1, "between_halves": 3}[pair]
        for line in said:
            found = any(f": no resolution, {outcome}" in line for outcome in outcomes)
            assert found or "falls below at" in line or "not below it up to Nyquist" in line


def test_a_check_of_data_whose_masks_one_algorithm_does_not_model_is_by_the_other(
    tmp_path, acquisition, study
):
    number = np.arange(len(acquisition.amplitudes))
    masks = np.zeros(acquisition.amplitudes.shape, bool)
    masks[number, :4, number % 16] = True  # another column in each
    amplitudes = np.where(masks, 0, acquisition.amplitudes)
    masked = replace(acquisition, amplitudes=amplitudes, bad_pixels=masks)
    write_dataset(tmp_path / "a.npz", masked, "test")
    words = ["import", "a.npz", "b.npz", "--check", "--epochs", "2"]

    code, printed, error = study(*words)
    refused = study(*words[:2], "c.npz", *words[3:], "--algorithm", "LSQML")

    assert code == 0, error
    report = read_json(tmp_path / "b.check.json")
    assert report["algorithms"].keys() == {"solver"}
    assert "LSQML takes one mask for all patterns" in report["between_algorithms"]["why_none"]
    assert "between algorithms: nothing to compare, pty-chi's LSQML takes one mask" in printed
    assert "ring correlation between halves, threshold 1/7" in printed
    assert refused[0] == 2
    assert "algorithm LSQML: pty-chi's LSQML takes one mask for all patterns" in refused[2]


@pytest.mark.slow
def test_a_check_that_fails_costs_no_reconstruction(tmp_path, monkeypatch, acquisition, study):
    write_dataset(tmp_path / "a.npz", acquisition, "test")
    study("export", "a.npz", "t.npz", "--format", "tike")
    monkeypatch.setattr(import_check, "scored_pixels", Mock(side_effect=InputError("dark")))

    flags = ["--check", "--epochs", "2"]
    code, _, error = study("import", "t.npz", "b.npz", *flags)

    assert (code, "dark" in error) == (2, True)
    assert load_dataset(tmp_path / "b.npz")[1]["starting_probe"] == "file"


def test_flags_that_change_nothing_are_said_to(tmp_path, acquisition, study):
    write_dataset(tmp_path / "a.npz", acquisition, "test")

    code, _, error = study("import", "a.npz", "b.npz", "--epochs", "9")

    assert code == 0
    assert "it has object and probe: --algorithm, --epochs, --seed, --modes and --refine" in error


@pytest.mark.parametrize("change", [{"amplitudes": None}, {"is_normalized": True}])
def test_a_check_without_counts_is_refused_before_anything_is_written(
    change, tmp_path, acquisition, study
):
    write_dataset(tmp_path / "a.npz", replace(acquisition, **change), "test")

    code, _, error = study("import", "a.npz", "b.npz", "--check")

    assert code == 2
    assert "a.npz: --check reconstructs from counts, and it has none" in error
    assert not (tmp_path / "b.npz").exists()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["export", "a.npz", "b.npz"], "Missing option '--format'"),
        (["export", "a.npz", "b.npz", "--format", "ptyd"], "'ptyd' is not one of"),
        (["export", "a.npz", "b.h5", "--format", "ptychopinn"], "ends in .npz; rename it"),
        (["export", "a.npz", "a.npz", "--format", "ptychopinn"], "this is the source"),
        (["export", "a.npz", "none/b.npz", "--format", "tike"], "its folder does not exist"),
        (["export", "a.npz", "b.hdf5", "--format", "ptychi"], "ends in neither _dp nor _para"),
        (["export", "none.npz", "b.npz", "--format", "tike"], "none.npz: no such file"),
        (["import", "a.npz", "a.npz"], "give the base file another name"),
        (["import", "a.npz", "b.npz", "--format", "matlab"], "'matlab' is not one of"),
        (["import", "a.npz", "b.npz", "--domain", "photons"], "'photons' is not one of"),
        (
            ["import", "a.npz", "b.npz", "--ignore", "positions"],
            "--ignore positions: choose object",
        ),
        (
            ["import", "a.npz", "b.npz", "--positions", "p.csv"],
            "ptychopinn has positions of its own",
        ),
        (
            ["import", "a.npz", "b.npz", "--entry", "x"],
            "a file of format ptychopinn holds one scan",
        ),
        (["import", "a.npz", "b.npz", "--allow-links", "x"], "--allow-links x: no such folder"),
        (["import", "text.npz", "b.npz"], "text.npz: damaged or not an NPZ file"),
        (["import", "a.npz", "b.npz", "--format", "cxi"], "a.npz: damaged or not an HDF5 file"),
        (["import", "a.npz", "b.npz", "--flip-y"], "the object in this file fixes the axes"),
        (["import", "a.npz", "b.npz", "--swap-xy"], "the object in this file fixes the axes"),
        (["import", "a.npz", "b.npz", "--patterns", "c.h5"], "--patterns is for a Ptychodus"),
    ],
)
def test_a_wrong_call_says_why_and_writes_nothing(arguments, message, tmp_path, acquisition, study):
    write_dataset(tmp_path / "a.npz", acquisition, "test")
    (tmp_path / "text.npz").write_text("no archive")
    before = {path: path.read_bytes() for path in tmp_path.iterdir()}

    code, _, error = study(*arguments)

    assert code == 2
    assert message in error
    assert error.startswith("study: ")
    assert len(error.splitlines()) <= 2
    assert {path: path.read_bytes() for path in tmp_path.iterdir()} == before


@pytest.mark.parametrize("patterns", [True, False])
def test_a_scan_that_leaves_its_object_is_refused_and_nothing_written(
    patterns, tmp_path, acquisition, study
):
    far = replace(
        acquisition,
        positions_px=acquisition.positions_px + 20,
        amplitudes=acquisition.amplitudes if patterns else None,
        probe_is_scaled=False,
    )
    path = tmp_path / ("far.npz" if patterns else "far.h5")
    name = "ptychopinn-counts" if patterns else "ptychodus"
    formats.writer_for(name, path, tmp_path / "source.npz")(path, far)

    code, _, error = study("import", path.name, "b.npz")

    assert code == 2
    assert f"{path.name}" in error
    assert "leaves the object" in error or "patches outside the object" in error
    assert not (tmp_path / "b.npz").exists()


def test_commands_know_every_format():
    assert get_args(cli_files.FormatName) == tuple(formats.FORMATS)
    assert get_args(cli_files.WrittenName) == formats.WRITABLE


def test_flags_give_the_lengths_that_a_file_lacks(tmp_path, acquisition, study):
    bare = replace(acquisition, geometry=type(acquisition.geometry)())
    write_dataset(tmp_path / "a.npz", bare, "test")
    lengths = ["--energy-ev", "8000", "--distance-m", "1.5", "--detector-pixel-um", "75"]

    refused = study("export", "a.npz", "b.cxi", "--format", "cxi")
    done = study("export", "a.npz", "b.cxi", "--format", "cxi", *lengths)

    assert refused[0] == 2
    assert "give --energy-ev, --distance-m, --detector-pixel-um" in refused[2]
    assert done[0] == 0, done[2]
    found, _ = formats.read_file(tmp_path / "b.cxi", ReadChoices())
    assert found.geometry.detector_pixel_m == pytest.approx(75e-6, rel=1e-12)


@pytest.mark.parametrize(
    ("flag", "value"),
    [
        ("--energy-ev", "0"),
        ("--energy-ev", "1e-15"),
        ("--distance-m", "-1.5"),
        ("--detector-pixel-um", "nan"),
        ("--object-pixel-nm", "inf"),
    ],
)
def test_lengths_that_cannot_be_are_refused(flag, value, tmp_path, acquisition, study):
    write_dataset(tmp_path / "a.npz", acquisition, "test")
    arguments = ("export", "a.npz", "b.cxi", "--format", "cxi", flag, value)

    code, _, error = study(*arguments)

    assert code == 2
    assert flag in error
    assert not (tmp_path / "b.cxi").exists()


@pytest.mark.parametrize(("factor", "warned"), [(1, False), (100, True)])
def test_the_scale_of_a_probe_is_compared_whatever_the_file_says(
    factor, warned, tmp_path, acquisition, study
):
    loud = replace(acquisition, probe=acquisition.probe * np.float32(factor))
    formats.FORMATS["ptychopinn"].writer(tmp_path / "a.npz", loud)

    code, _, error = study("import", "a.npz", "b.npz")

    assert code == 0, error
    assert ("warning: a.npz: probe and object predict" in error) == warned
    found = read_dataset(tmp_path / "b.npz")
    if warned:
        np.testing.assert_allclose(found.probe, acquisition.probe, rtol=0.01)
    else:
        np.testing.assert_array_equal(found.probe, acquisition.probe)
    metadata = load_dataset(tmp_path / "b.npz")[1]
    assert [step["operation"] for step in metadata["transformations"]].count(
        "scale probe to the mean power of the patterns"
    ) == warned


@every_format
def test_what_a_format_says_it_loses_is_what_does_not_come_back(name, tmp_path, acquisition):
    found = there_and_back(name, tmp_path, acquisition)

    geometry = found.geometry
    missing = {
        "object": found.object_ is None,
        "bad pixels": found.bad_pixels is None,
        "indices": found.scan_index is None,
        "energy": geometry.photon_energy_ev is None,
        "distance": geometry.detector_distance_m is None,
        "detector pixel": geometry.detector_pixel_m is None,
    }
    assert formats.not_representable(name, acquisition) == [
        what for what, gone in missing.items() if gone
    ]


def test_export_says_what_is_lost(tmp_path, acquisition, study):
    write_dataset(tmp_path / "a.npz", acquisition, "test")

    tike = study("export", "a.npz", "t.npz", "--format", "tike")
    cxi = study("export", "a.npz", "b.cxi", "--format", "cxi")

    assert tike[0] == cxi[0] == 0
    assert tike[2] == (
        "study: warning: t.npz: format tike has no place for object, bad pixels, indices, energy, "
        "distance, detector pixel; bad pixels are zeros there; keep a.npz\n"
    )
    assert cxi[2] == ""


# --- Incoherent modes, backgrounds, masks of each pattern


@pytest.fixture
def partly_coherent(acquisition, rng):
    """Two orthogonal modes, a background, and a mask of each pattern."""
    first = acquisition.probe.astype(np.complex128)
    second = first.T - (first.conj() * first.T).sum() / (np.abs(first) ** 2).sum() * first
    bad = rng.random(acquisition.amplitudes.shape) < 0.05
    return replace(
        acquisition,
        probe=np.stack([first, 0.4 * second]).astype(np.complex64),
        background=rng.uniform(0, 2, (16, 16)).astype(np.float32),
        bad_pixels=bad,
        amplitudes=acquisition.amplitudes * ~bad,
    )


@pytest.mark.parametrize("name", ["tike", "ptychi", "ptychodus", "cxi"])
def test_all_modes_come_back(name, tmp_path, partly_coherent):
    found = there_and_back(name, tmp_path, partly_coherent)

    np.testing.assert_allclose(found.probe, partly_coherent.probe, rtol=1e-6)


@pytest.mark.parametrize("name", ["ptychi", "cxi", "ptychopinn", "ptychopinn-counts", "slac"])
def test_masks_of_each_pattern_come_back(name, tmp_path, partly_coherent):
    found = there_and_back(name, tmp_path, partly_coherent)

    np.testing.assert_array_equal(found.bad_pixels, partly_coherent.bad_pixels)
    np.testing.assert_array_equal(found.amplitudes, partly_coherent.amplitudes)


@pytest.mark.parametrize("name", ["cxi", "ptychopinn", "ptychopinn-counts"])
def test_a_background_comes_back(name, tmp_path, partly_coherent):
    found = there_and_back(name, tmp_path, partly_coherent)

    np.testing.assert_array_equal(found.background, partly_coherent.background)


@pytest.mark.parametrize(
    ("name", "lost"),
    [
        ("ptychopinn", ["probe modes but the strongest"]),
        ("slac", ["probe modes but the strongest", "background"]),
        ("ptychi", ["background"]),
        ("ptychodus", ["bad pixels of single patterns", "background"]),
        ("tike", ["bad pixels", "background"]),
    ],
)
def test_what_a_format_has_no_place_for_is_named(name, lost, partly_coherent):
    left_out = formats.not_representable(name, partly_coherent)

    assert [what for what in left_out if what in lost] == lost


def test_the_strongest_mode_is_kept_by_ptychopinn_and_the_command_says_so(
    tmp_path, partly_coherent, study
):
    counts = np.round(predicted(partly_coherent)) * ~partly_coherent.bad_pixels
    exact = replace(partly_coherent, background=None, amplitudes=np.sqrt(counts).astype(np.float32))
    write_dataset(tmp_path / "a.npz", exact, "test")

    code, _, error = study("export", "a.npz", "b.npz", "--format", "ptychopinn")

    assert code == 0, error
    assert "format ptychopinn has no place for probe modes but the strongest; keep a.npz" in error
    found, _ = formats.read_file(tmp_path / "b.npz", ReadChoices())
    np.testing.assert_array_equal(found.probe, exact.probe[0])
