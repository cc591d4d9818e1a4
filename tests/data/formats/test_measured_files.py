"""What beamlines write, read right by the command: scale, masks, dark frames, probes, units.

Every scan is simulated by a model of the tests' own, which also judges what was written.
"""

import h5py
import numpy as np
import pytest
from simulated_scan import (
    DETECTOR_PIXEL_M,
    DISTANCE_M,
    ENERGY_EV,
    JOULE_PER_EV,
    PHOTONS,
    PIXEL_M,
    SIDE,
    Scan,
    made_probe,
)

from study_lib.data.contract import load_dataset


@pytest.fixture(scope="module")
def scan():
    return Scan()


@pytest.fixture
def imported(study, tmp_path):
    """Import with some words, which has to succeed; return arrays, metadata and what was said."""

    def call(*words):
        code, out, error = study("import", *words)
        assert code == 0, out + error
        target = next(word for word in words if str(word).endswith("base.npz"))
        arrays, metadata = load_dataset(tmp_path / target)
        return arrays, metadata, out + error

    return call


@pytest.fixture
def refused(study, tmp_path):
    """Import with some words, which has to be refused as a wrong call; return what was said."""

    def call(*words):
        before = {path.name for path in tmp_path.iterdir()}
        code, _, error = study("import", *words)
        assert code == 2, error
        assert error.startswith("study: ")
        assert {path.name for path in tmp_path.iterdir()} == before
        return error

    return call


# --- Probes


def second_mode(probe, share):
    """A mode orthogonal to the probe, with a share of its power, and the rest of the probe."""
    y = np.arange(SIDE)[:, None] - SIDE // 2
    other = probe * y
    other = other - (probe.conj() * other).sum() / (np.abs(probe) ** 2).sum() * probe
    other *= np.sqrt((np.abs(probe) ** 2).sum() / (np.abs(other) ** 2).sum())
    return np.stack([np.sqrt(1 - share) * probe, np.sqrt(share) * other])


def test_the_first_opr_mode_is_the_probe_however_strong_the_others_are(
    scan, imported, tmp_path, rng
):
    """pty-chi normalises OPR modes after the first to a squared norm of n * n."""
    eigenmode = rng.normal(size=(SIDE, SIDE)) + 1j * rng.normal(size=(SIDE, SIDE))
    eigenmode *= SIDE * 100 / np.linalg.norm(eigenmode)
    scan.write_pair(tmp_path, probe=np.stack([scan.probe, eigenmode * SIDE])[:, None])

    arrays, _, said = imported("scan_dp.hdf5", "base.npz")

    assert arrays["probeGuess"].shape == (SIDE, SIDE)
    assert scan.r_of(tmp_path / "base.npz") == pytest.approx(scan.noise_r(), rel=1e-3)
    assert "2 OPR modes; their first, the mean probe, was taken" in said
    assert "incoherent modes are (modes, n, n)" in said


@pytest.mark.parametrize("angle", [0.0, 0.7, np.pi / 4])
def test_modes_mixed_by_a_rotation_are_the_same_modes(angle, imported, tmp_path):
    """Whatever basis a program keeps them in, they light the object alike."""
    modes = second_mode(made_probe(), 0.2)
    scan = Scan(probe=modes)
    turn = np.array([[np.cos(angle), np.sin(angle)], [-np.sin(angle), np.cos(angle)]])
    scan.write_pair(tmp_path, probe=np.tensordot(turn, modes, 1)[None])

    arrays, _, _ = imported("scan_dp.hdf5", "base.npz")

    found = arrays["probeGuess"]
    powers = (np.abs(found) ** 2).sum(axis=(1, 2))
    np.testing.assert_allclose(powers / powers.sum(), [0.8, 0.2], rtol=1e-3)
    for mode, right in zip(found, modes, strict=True):
        overlap = np.abs((mode.conj() * right).sum())
        assert overlap == pytest.approx(np.linalg.norm(mode) * np.linalg.norm(right), rel=1e-5)
    assert scan.r_of(tmp_path / "base.npz") == pytest.approx(scan.noise_r(), rel=1e-3)


def write_product(path, scan, probe_pixel_m):
    with h5py.File(path, "w") as file:
        file.attrs["photon_energy_eV"] = ENERGY_EV
        file.attrs["detector_object_distance_m"] = DISTANCE_M
        file["probe_position_indexes"] = np.arange(len(scan.counts))
        for axis, values in zip("yx", scan.centred_metres.T, strict=True):
            file[f"probe_position_{axis}_m"] = values
        file["probe"] = scan.probe[None, None].astype(np.complex64)
        file["object"] = scan.object_[None].astype(np.complex64)
        for name, pixel_m in (("probe", probe_pixel_m), ("object", PIXEL_M)):
            for key in ("pixel_height_m", "pixel_width_m"):
                file[name].attrs[key] = pixel_m
    with h5py.File(path.with_name("patterns.h5"), "w") as file:
        file["patterns"], file["indexes"] = scan.counts, np.arange(len(scan.counts))
        file["bad_pixels"] = np.zeros((SIDE, SIDE), bool)


def test_a_probe_whose_pixel_is_zero_has_an_unknown_pixel(scan, imported, tmp_path):
    write_product(tmp_path / "product.h5", scan, 0.0)

    imported("product.h5", "base.npz", "--patterns", "patterns.h5")

    assert scan.r_of(tmp_path / "base.npz") == pytest.approx(scan.noise_r(), rel=1e-3)


def test_a_probe_of_another_pixel_is_left_out_if_asked(scan, refused, study, tmp_path):
    write_product(tmp_path / "product.h5", scan, 2 * PIXEL_M)
    words = ["product.h5", "base.npz", "--patterns", "patterns.h5"]

    assert "leave it out with --ignore probe" in refused(*words)


# --- Scale


@pytest.mark.parametrize("brightness", [1.0, 10.0, 100.0, 1e4])
def test_roots_of_counts_of_any_brightness_are_roots_of_counts(brightness, tmp_path, imported):
    """The square of a rounded root is off by a share of the count, far more than 1e-3 of one."""
    scan = Scan()
    counts = np.random.default_rng(1).poisson(brightness * scan.rates)
    np.savez(
        tmp_path / "roots.npz",
        diffraction=np.sqrt(counts).astype(np.float32),
        probeGuess=(np.sqrt(brightness) * scan.probe).astype(np.complex64),
        objectGuess=scan.object_.astype(np.complex64),
        ycoords=scan.positions[:, 0],
        xcoords=scan.positions[:, 1],
    )

    arrays, metadata, said = imported("roots.npz", "base.npz", "--domain", "amplitude")

    assert metadata.get("photon_scale") != "none"
    assert "whole numbers" not in said
    np.testing.assert_array_equal(arrays["diffraction"], np.sqrt(counts).astype(np.float32))


def test_amplitudes_are_what_the_user_says_even_if_they_look_otherwise(scan, tmp_path, imported):
    np.savez(
        tmp_path / "halves.npz",
        diffraction=(np.sqrt(scan.counts) / 3).astype(np.float32),
        probeGuess=(scan.probe / 3).astype(np.complex64),
        objectGuess=scan.object_.astype(np.complex64),
        ycoords=scan.positions[:, 0],
        xcoords=scan.positions[:, 1],
    )

    _, counted, said = imported("halves.npz", "base.npz", "--domain", "amplitude")
    _, normalized, _ = imported("halves.npz", "other_base.npz", "--domain", "normalized")

    assert "photon_scale" not in counted
    assert "if they have no photon scale, say --domain normalized" in said
    assert normalized["photon_scale"] == "none"


def test_counts_in_a_format_of_counts_may_be_roots_by_the_users_word(scan, tmp_path, imported):
    scan.write_cxi(tmp_path / "roots.cxi", counts=np.sqrt(scan.counts).astype(np.float32))

    arrays, _, said = imported("roots.cxi", "base.npz", "--domain", "amplitude")

    np.testing.assert_allclose(arrays["diffraction"] ** 2, scan.counts, rtol=1e-6)
    assert "--domain amplitude was taken" in said


def test_roots_of_counts_that_are_called_counts_are_doubtful(scan, study, tmp_path):
    scan.write_cxi(tmp_path / "roots.cxi", counts=np.sqrt(scan.counts).astype(np.float32))
    done = study("import", "roots.cxi", "base.npz", "--domain", "counts", "--epochs", "5")
    assert "roots of whole numbers: if they are roots of counts, say --domain amplitude" in done.out
    assert "verdict: good" not in done.out


@pytest.mark.parametrize(
    ("values", "message"),
    [
        (np.full((120, SIDE, SIDE), 1e38), "it has to be more than zero and finite"),
        (np.zeros((120, SIDE, SIDE)), "empty patterns at index 0"),
    ],
)
def test_patterns_without_a_finite_power_are_refused(values, message, scan, refused, tmp_path):
    scan.write_cxi(tmp_path / "scan.cxi", counts=values * np.float64(1e3))

    assert message in refused("scan.cxi", "base.npz")


def test_a_mask_without_a_name_gets_the_names_in_its_file(scan, refused, tmp_path):
    scan.write_cxi(tmp_path / "scan.cxi")
    with h5py.File(tmp_path / "masks.h5", "w") as file:
        file["entry/mask"], file["entry/beam/stop"] = np.zeros((2, SIDE, SIDE))

    error = refused("scan.cxi", "base.npz", "--mask", "masks.h5")

    assert "found entry/mask, entry/beam/stop; say which with masks.h5:NAME" in error


def test_a_target_that_is_no_npz_and_a_file_of_junk_are_named(scan, refused, tmp_path):
    scan.write_cxi(tmp_path / "scan.cxi")
    (tmp_path / "junk.h5").write_bytes(b"junk" * 100)

    target = refused("scan.cxi", "base.h5")
    junk = refused("junk.h5", "base.npz")

    assert "base.h5: what an import writes is an NPZ file; end its name in .npz" in target
    assert "junk.h5: neither HDF5 nor NPZ by its first bytes" in junk


@pytest.mark.parametrize("name", ["scan.cxi", "scan.npz"])
def test_fewer_positions_than_patterns_are_two_numbers(name, scan, refused, tmp_path):
    y, x = scan.positions[:50].T.astype(float)
    counts = scan.counts.astype(float)
    np.savez(tmp_path / "scan.npz", diffraction=counts, ycoords=y, xcoords=x)
    scan.write_cxi(tmp_path / "scan.cxi", images=False)
    with h5py.File(tmp_path / "scan.cxi", "a") as file:
        del file["entry_1/sample_1/geometry_1/translation"]
        file["entry_1/sample_1/geometry_1/translation"] = scan.metres[:50]

    error = refused(name, "base.npz", "--domain", "counts")

    assert "50 positions" in error
    assert "120" in error
    assert "give one position for every pattern" in error
    assert "order the axes" not in error


def test_positions_in_micrometres_are_suspected(scan, study, tmp_path):
    y, x = scan.positions.T * PIXEL_M * 1e6
    np.savez(tmp_path / "scan.npz", diffraction=scan.counts.astype(float), ycoords=y, xcoords=x)
    words = ["--domain", "counts", "--object-pixel-nm", PIXEL_M * 1e9, "--epochs", 2]

    _, _, suspected = study("import", "scan.npz", "base.npz", *words)
    _, _, stated = study("import", "scan.npz", "um.npz", *words, "--position-unit", "um")

    assert "if they are micrometres, say --position-unit um" in suspected
    assert "micrometres" not in stated


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ("3,x", "--leave-out 3,x: found 'x'; give numbers of frames and ranges of them"),
        ("9-4", "found '9-4'"),
        ("3,40-1000000", "--leave-out: found no frame 120; the file has 120, with numbers from 0"),
        ("0-118", "119 of 120 frames are to be left out, and two have to stay"),
    ],
)
def test_frames_to_leave_out_are_numbers_of_the_file(words, message, scan, refused, tmp_path):
    scan.write_cxi(tmp_path / "scan.cxi")

    assert message in refused("scan.cxi", "base.npz", "--leave-out", words)


def test_frames_are_left_out_as_asked(scan, imported, tmp_path):
    scan.write_cxi(tmp_path / "scan.cxi")

    arrays, metadata, _ = imported("scan.cxi", "base.npz", "--leave-out", "3,17,40-52")

    gone = [3, 17, *range(40, 53)]
    kept = np.delete(scan.counts, gone, axis=0)
    np.testing.assert_allclose(arrays["diffraction"] ** 2, kept, rtol=1e-5)
    assert set(arrays["scan_index"]).isdisjoint(gone)
    steps = {step["operation"]: step["parameters"] for step in metadata["transformations"]}
    assert steps["leave out named frames"] == {"frames": gone}


def test_an_object_that_lets_no_light_through_is_refused(scan, refused, tmp_path):
    scan.write_cxi(tmp_path / "scan.cxi")
    with h5py.File(tmp_path / "scan.cxi", "a") as file:
        file["entry_1/image_2/data"][...] = 0

    assert "objectGuess: found all zero; expected some power" in refused("scan.cxi", "base.npz")


# --- Masks


def cosmic_rays(scan, share=0.01):
    """Masks of each frame, each with a few pixels of its own, and counts that are bright there."""
    bad = np.random.default_rng(4).random(scan.counts.shape) < share
    return bad, np.where(bad, 10**6, scan.counts).astype(np.uint32)


def test_weights_of_each_frame_stay_of_each_frame(scan, tmp_path, study):
    """Their union over 120 frames would hide 70 % of the detector."""
    bad, counts = cosmic_rays(scan)
    scan.write_ptyd(tmp_path / "scan.ptyd", weights=(~bad).astype(np.float32))
    with h5py.File(tmp_path / "scan.ptyd", "a") as file:
        file["chunks/0/data"][...] = counts

    code, out, error = study("import", "scan.ptyd", "base.npz")

    assert code == 0, out + error
    arrays, _ = load_dataset(tmp_path / "base.npz")
    np.testing.assert_array_equal(arrays["bad_pixels"], bad)
    assert scan.r_of(tmp_path / "base.npz") < scan.noise_r()


def test_masks_of_each_frame_are_read_from_cxi_and_written_again(scan, imported, study, tmp_path):
    bad, counts = cosmic_rays(scan)
    scan.write_cxi(tmp_path / "scan.cxi", counts=counts, mask=bad.astype(np.uint32))

    arrays, _, _ = imported("scan.cxi", "base.npz")
    assert study("export", "base.npz", "again.cxi", "--format", "cxi").code == 0
    again, _, _ = imported("again.cxi", "again_base.npz")

    np.testing.assert_array_equal(arrays["bad_pixels"], bad)
    np.testing.assert_array_equal(again["bad_pixels"], bad)
    good = arrays["diffraction"][~bad]
    np.testing.assert_allclose(good, np.sqrt(scan.counts)[~bad], rtol=1e-6)
    assert (arrays["diffraction"][bad] == 0).all()


@pytest.mark.parametrize("kind", ["npy", "npz", "h5", "tif"])
def test_a_mask_of_any_kind_of_file_is_added_to_that_of_the_scan(kind, scan, imported, tmp_path):
    declared, given = np.zeros((2, SIDE, SIDE), bool)
    declared[3, 4], given[:, 7] = True, True
    scan.write_cxi(tmp_path / "scan.cxi", mask=declared.astype(np.uint32))
    name = f"mask.{kind}"
    match kind:
        case "npy":
            np.save(tmp_path / name, given)
        case "npz":
            np.savez(tmp_path / name, other=np.zeros(3), mask=given)
            name += ":mask"
        case "h5":
            with h5py.File(tmp_path / name, "w") as file:
                file["detector/mask"] = given.astype(np.uint8)
            name += ":/detector/mask"
        case "tif":
            from skimage.io import imsave

            imsave(tmp_path / name, given.astype(np.uint8), check_contrast=False)

    arrays, _, _ = imported("scan.cxi", "base.npz", "--mask", name)

    np.testing.assert_array_equal(arrays["bad_pixels"], declared | given)


def test_a_mask_of_each_frame_and_one_of_all_become_masks_of_each(scan, imported, tmp_path):
    bad, counts = cosmic_rays(scan)
    dead = np.zeros((SIDE, SIDE), np.uint32)
    dead[5, 6] = 1
    scan.write_cxi(tmp_path / "scan.cxi", counts=counts, mask=dead)
    np.save(tmp_path / "cosmic.npy", bad)

    arrays, _, _ = imported("scan.cxi", "base.npz", "--mask", "cosmic.npy")

    np.testing.assert_array_equal(arrays["bad_pixels"], bad | (dead > 0))


@pytest.mark.parametrize(
    ("shape", "words", "message"),
    [
        ((SIDE, SIDE + 1), "mask.npy", r"found shape (32, 33); the patterns of scan.cxi need"),
        ((SIDE,), "mask.npy", "expected numbers with 2 or 3 axes"),
        ((SIDE, SIDE), "none.npy", "none.npy: no such file"),
        ((SIDE, SIDE), "scan.cxi", "say which with scan.cxi:NAME"),
        ((SIDE, SIDE), "text.csv", "not readable"),
    ],
)
def test_a_mask_that_does_not_fit_is_refused(shape, words, message, scan, refused, tmp_path):
    scan.write_cxi(tmp_path / "scan.cxi")
    with h5py.File(tmp_path / "scan.cxi", "a") as file:
        file["cxi_version"] = 160
    np.save(tmp_path / "mask.npy", np.zeros(shape, bool))
    (tmp_path / "text.csv").write_text("no, numbers\n")

    assert message in refused("scan.cxi", "base.npz", "--mask", words)


def test_a_mask_the_other_way_round_is_suspected(scan, imported, tmp_path):
    scan.write_cxi(tmp_path / "scan.cxi")
    bad = np.ones((SIDE, SIDE), bool)
    bad[4:-4, 4:-4] = False
    np.save(tmp_path / "mask.npy", np.pad(np.zeros((16, 16)), 8, constant_values=1))

    _, _, said = imported("scan.cxi", "base.npz", "--mask", "mask.npy")

    assert "--mask declares 75% of the detector bad; what is not zero is bad here" in said


def test_saturated_counts_are_bad_in_their_frames_alone(scan, imported, tmp_path):
    limit = int(np.percentile(scan.counts, 99.5))
    scan.write_cxi(tmp_path / "scan.cxi", counts=np.minimum(scan.counts, limit))

    arrays, metadata, _ = imported("scan.cxi", "base.npz", "--saturation", limit, "--keep-all")

    np.testing.assert_array_equal(arrays["bad_pixels"], scan.counts >= limit)
    steps = {step["operation"]: step["parameters"] for step in metadata["transformations"]}
    assert steps["mask saturated counts"]["values"] == (scan.counts >= limit).sum()
    good = scan.counts < limit
    off = np.abs(np.sqrt(scan.counts) - np.sqrt(scan.rates))[good].sum()
    truth_r = off / np.sqrt(scan.counts)[good].sum()
    assert scan.r_of(tmp_path / "base.npz") == pytest.approx(truth_r, rel=0.01)


# --- Dark frames

DARK = 40 + 12 * np.sin(np.arange(SIDE) / 5)[:, None] * np.ones((SIDE, SIDE))


@pytest.fixture(scope="module")
def dark_scan():
    return Scan(background=DARK)


def dark_frames(rng):
    return rng.poisson(DARK, (20, SIDE, SIDE)).astype(np.uint32)


def test_dark_frames_in_a_file_are_the_background_of_the_model(dark_scan, imported, tmp_path, rng):
    """Nothing is subtracted: the counts stay whole, and the model explains them to their noise."""
    frames = dark_frames(rng)
    dark_scan.write_cxi(tmp_path / "scan.cxi", data_dark=frames)

    arrays, _, said = imported("scan.cxi", "base.npz")

    np.testing.assert_allclose(arrays["background"], frames.mean(axis=0), rtol=1e-6)
    np.testing.assert_allclose(arrays["diffraction"] ** 2, dark_scan.counts, rtol=1e-6)
    assert "the mean of 20 dark frames" in said
    assert "nothing was subtracted" in said
    assert (
        dark_scan.r_of(tmp_path / "base.npz")
        < 1.05
        * np.abs(np.sqrt(dark_scan.counts) - np.sqrt(dark_scan.rates + DARK)).sum()
        / np.sqrt(dark_scan.counts).sum()
    )


def test_dark_frames_of_another_file_go_before_those_of_the_scan(
    dark_scan, imported, study, tmp_path, rng
):
    frames = dark_frames(rng)
    dark_scan.write_cxi(tmp_path / "scan.cxi", data_dark=np.zeros((SIDE, SIDE)))
    np.save(tmp_path / "dark.npy", frames)

    arrays, _, _ = imported("scan.cxi", "base.npz", "--dark", "dark.npy")
    assert study("export", "base.npz", "again.cxi", "--format", "cxi").code == 0
    again, _, _ = imported("again.cxi", "again_base.npz")

    np.testing.assert_allclose(arrays["background"], frames.mean(axis=0), rtol=1e-6)
    np.testing.assert_array_equal(again["background"], arrays["background"])


@pytest.mark.parametrize(
    ("frames", "message"),
    [
        (np.ones((2, 8, 8)), "dark frames: found shape (2, 8, 8); expected (frames, 32, 32)"),
        (np.full((SIDE, SIDE), 1e5), "beside the 1.229e+10 of the background"),
    ],
)
def test_dark_frames_that_cannot_be_are_refused(frames, message, scan, refused, tmp_path):
    scan.write_cxi(tmp_path / "scan.cxi")
    np.save(tmp_path / "dark.npy", frames)

    assert message in refused("scan.cxi", "base.npz", "--dark", "dark.npy")


# --- Units and lengths


def test_a_pair_as_it_was_measured_asks_for_the_pixel_of_the_object(scan, refused, study, tmp_path):
    scan.write_pair(tmp_path, images=False)

    error = refused("scan_dp.hdf5", "base.npz")
    code, out, said = study(
        "import", "scan_dp.hdf5", "base.npz", "--object-pixel-nm", PIXEL_M * 1e9
    )

    assert "--object-pixel-nm, or --energy-ev, --distance-m and --detector-pixel-um" in error
    assert code == 0, out + said
    assert scan.r_of(tmp_path / "base.npz") < scan.noise_r()


def test_the_lengths_of_the_beamline_do_for_the_pixel_of_the_object(scan, study, tmp_path):
    scan.write_pair(tmp_path, images=False)
    lengths = ["--energy-ev", ENERGY_EV, "--distance-m", DISTANCE_M]

    code, out, error = study(
        "import", "scan_dp.hdf5", "base.npz", *lengths, "--detector-pixel-um", 75
    )

    assert code == 0, out + error
    assert scan.r_of(tmp_path / "base.npz") < scan.noise_r()
    geometry = load_dataset(tmp_path / "base.npz")[1]["geometry"]
    assert geometry == pytest.approx(
        {
            "photon_energy_ev": ENERGY_EV,
            "detector_distance_m": DISTANCE_M,
            "detector_pixel_m": DETECTOR_PIXEL_M,
        }
    )


@pytest.mark.parametrize(
    ("unit", "factor"), [("mm", 1e3), ("um", 1e6), ("nm", 1e9), ("px", 1 / PIXEL_M)]
)
def test_positions_in_another_unit_are_refused_with_what_each_unit_would_give(
    unit, factor, scan, refused, imported, tmp_path
):
    scan.write_cxi(tmp_path / "scan.cxi", images=True)
    with h5py.File(tmp_path / "scan.cxi", "a") as file:
        file["entry_1/sample_1/geometry_1/translation"][...] *= factor

    error = refused("scan.cxi", "base.npz")
    arrays, _, _ = imported("scan.cxi", "base.npz", "--position-unit", unit)

    extent = np.ptp(scan.positions, axis=0).max()
    assert "positions: in m they ask for an object of" in error
    assert f"{unit} {extent:.3g}" in error
    np.testing.assert_allclose(arrays["ycoords"], scan.positions[:, 0], atol=1e-4)


def test_positions_in_pixels_may_be_lengths_by_the_users_word(scan, imported, refused, tmp_path):
    np.savez(
        tmp_path / "lengths.npz",
        diffraction=scan.counts.astype(np.float32),
        probeGuess=scan.probe.astype(np.complex64),
        objectGuess=scan.object_.astype(np.complex64),
        ycoords=scan.positions[:, 0] * PIXEL_M * 1e6,
        xcoords=scan.positions[:, 1] * PIXEL_M * 1e6,
    )
    words = ["lengths.npz", "base.npz", "--domain", "counts", "--position-unit", "um"]

    error = refused(*words)
    arrays, _, _ = imported(*words, "--object-pixel-nm", PIXEL_M * 1e9)

    assert "the pixel of the object is not known; give --object-pixel-nm" in error
    np.testing.assert_allclose(arrays["xcoords"], scan.positions[:, 1], rtol=1e-9)


def test_an_option_has_the_last_word_over_the_file_and_it_is_said(scan, imported, tmp_path):
    scan.write_cxi(tmp_path / "scan.cxi", distance=2 * DISTANCE_M)

    _, metadata, said = imported("scan.cxi", "base.npz", "--distance-m", DISTANCE_M)

    assert metadata["geometry"]["detector_distance_m"] == DISTANCE_M
    assert metadata["said_by_user"] == {"detector_distance_m": DISTANCE_M}
    assert "--distance-m makes it 2 m, the file states 4 m; the option holds" in said


def test_an_energy_in_another_unit_is_mended_by_an_option(scan, refused, imported, tmp_path):
    scan.write_cxi(tmp_path / "scan.cxi", **{"../source_1/energy": 8.0 * JOULE_PER_EV})
    assert "say the right one with --energy-ev" in refused("scan.cxi", "base.npz")
    _, metadata, _ = imported("scan.cxi", "base.npz", "--energy-ev", ENERGY_EV)
    assert metadata["geometry"]["photon_energy_ev"] == ENERGY_EV


def test_an_energy_against_the_wavelength_is_refused_with_both_and_decided_by_an_option(
    scan, refused, imported, tmp_path
):
    wavelength_m = 1.2398419843320026e-6 / ENERGY_EV
    scan.write_cxi(tmp_path / "scan.cxi", **{"../source_1/wavelength": 1.1 * wavelength_m})

    error = refused("scan.cxi", "base.npz")
    _, metadata, _ = imported("scan.cxi", "base.npz", "--energy-ev", ENERGY_EV)

    assert "an energy of 8000 eV and a wavelength of 1.7048e-10 m" in error
    assert "photons have 1.5498e-10 m, electrons" in error
    assert metadata["geometry"]["photon_energy_ev"] == ENERGY_EV


def test_the_wavelength_of_electrons_tells_them(scan, imported, study, tmp_path):
    """300 keV and 1.9687 pm: the relativistic wavelength, as tables of microscopes have it."""
    scan.write_cxi(
        tmp_path / "scan.cxi",
        distance=PIXEL_M * SIDE * DETECTOR_PIXEL_M / 1.9687e-12,
        **{"../source_1/wavelength": 1.9687e-12, "../source_1/energy": 3e5 * JOULE_PER_EV},
    )

    arrays, metadata, said = imported("scan.cxi", "base.npz")
    assert study("export", "base.npz", "again.cxi", "--format", "cxi").code == 0
    again, _, _ = imported("again.cxi", "again_base.npz")

    assert "taken as electrons" in said
    assert metadata["geometry"]["electrons"] is True
    np.testing.assert_allclose(arrays["ycoords"], scan.positions[:, 0], rtol=1e-3)
    np.testing.assert_allclose(again["ycoords"], arrays["ycoords"], rtol=1e-9)


def test_a_pixel_that_contradicts_the_lengths_is_said(scan, imported, tmp_path):
    scan.write_cxi(tmp_path / "scan.cxi", images=True)

    _, _, said = imported("scan.cxi", "base.npz", "--object-pixel-nm", PIXEL_M * 1.02e9)

    assert "the option was taken" in said


@pytest.mark.parametrize(
    ("positions", "message"),
    [
        (np.zeros((120, 2)), "all 120 positions are the same, (0, 0)"),
        (np.zeros((1, 2)), "found 1 pattern; ptychography needs several that overlap"),
        (np.random.default_rng(0).uniform(0, 0.3, (120, 2)), "all of them within a pixel"),
        (np.random.default_rng(0).uniform(0, 1e6, (120, 2)), "an object of 9"),
    ],
)
def test_a_scan_of_one_place_or_of_an_absurd_extent_is_refused(
    positions, message, scan, refused, tmp_path
):
    np.savez(
        tmp_path / "scan.npz",
        diffraction=scan.counts[: len(positions)].astype(np.float32),
        ycoords=positions[:, 0],
        xcoords=positions[:, 1],
    )

    assert message in refused("scan.npz", "base.npz", "--domain", "counts")


# --- What is left out


def test_a_wrong_object_is_reconstructed_anew_if_the_file_is_not_believed(scan, study, tmp_path):
    scan.write_cxi(tmp_path / "scan.cxi")
    with h5py.File(tmp_path / "scan.cxi", "a") as file:
        file["entry_1/image_2/data"][...] = file["entry_1/image_2/data"][...].conj()

    code, out, error = study("import", "scan.cxi", "base.npz", "--ignore", "object,probe")

    assert code == 0, out + error
    assert scan.r_of(tmp_path / "base.npz") < scan.noise_r()
    probe = load_dataset(tmp_path / "base.npz")[0]["probeGuess"]
    assert (np.abs(probe) ** 2).sum() == pytest.approx(PHOTONS, rel=0.1)


def test_electrons_by_the_users_word_are_electrons_whatever_wavelength_the_file_has(
    scan, imported, tmp_path
):
    """A program that knows photons alone writes their wavelength beside the energy."""
    photons_m = 1.239841984332003e-6 / 3e5
    scan.write_cxi(
        tmp_path / "scan.cxi",
        distance=PIXEL_M * SIDE * DETECTOR_PIXEL_M / 1.9687e-12,
        **{"../source_1/wavelength": photons_m, "../source_1/energy": 3e5 * JOULE_PER_EV},
    )

    arrays, _, said = imported("scan.cxi", "base.npz", "--electrons")

    np.testing.assert_allclose(arrays["ycoords"], scan.positions[:, 0], rtol=1e-3)
    assert "--electrons makes it a wavelength of 1.9687e-12 m, the file states 4.1328e-12" in said
