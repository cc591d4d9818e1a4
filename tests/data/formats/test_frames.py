"""Frames cropped, binned, padded: lengths, positions, probe and masks follow, by the command."""

import numpy as np
import pytest
from simulated_scan import DETECTOR_PIXEL_M, PIXEL_M, SIDE, Scan, far_field, made_probe

from study_lib.data.contract import load_dataset
from study_lib.data.formats.frames import centred_window


@pytest.fixture(scope="module")
def scan():
    return Scan()


@pytest.fixture
def imported(study, tmp_path):
    """Import with some words, which has to succeed; return arrays, metadata and what was said."""

    def call(*words):
        code, out, error = study("import", *words)
        assert code == 0, out + error
        return *load_dataset(tmp_path / "base.npz"), out + error

    return call


def write_npz(path, scan, **more):
    """Patterns, positions and what else is given, in pixels and without lengths."""
    y, x = scan.positions.T.astype(float)
    counts = scan.counts.astype(np.float32)
    np.savez(path, **{"diffraction": counts, "ycoords": y, "xcoords": x} | more)


@pytest.mark.parametrize("side", [31, 33])
def test_frames_of_an_odd_side_become_even_by_themselves(side, imported, tmp_path):
    """31 is padded and 33 cropped to 32; the object is found as from any other frames."""
    scan = Scan(side=side)
    scan.write_cxi(tmp_path / "odd.cxi", images=False)

    arrays, metadata, said = imported("odd.cxi", "base.npz")

    assert arrays["diffraction"].shape[1:] == (32, 32)
    assert f"frames of an odd side, {side}" in said
    kept = arrays["diffraction"] if side == 31 else np.sqrt(scan.counts)[:, :-1, :-1]
    whole = np.sqrt(scan.counts) if side == 31 else arrays["diffraction"]
    np.testing.assert_allclose(kept[:, 1:, 1:] if side == 31 else kept, whole, rtol=1e-6)
    if side == 31:
        added = np.zeros((32, 32), bool)
        added[0] = added[:, 0] = True
        np.testing.assert_array_equal(arrays["bad_pixels"], added)
    # In metres the scan is as wide as it was; the file has it for pixels of 32 x 32 frames.
    assert metadata["geometry"]["detector_pixel_m"] == DETECTOR_PIXEL_M
    assert np.ptp(arrays["ycoords"]) == pytest.approx(np.ptp(scan.positions[:, 0]), rel=1e-9)
    assert scan_r(arrays) < 0.06


def scan_r(arrays):
    """R-factor of the model in a data set, by whole-pixel patches where positions are near them."""
    probe, object_ = arrays["probeGuess"], arrays["objectGuess"]
    side = len(probe)
    positions = np.stack([arrays["ycoords"], arrays["xcoords"]], axis=1)
    near = np.rint(positions)
    frequencies = np.fft.fftfreq(side)
    good = ~arrays.get("bad_pixels", np.zeros((side, side), bool))
    off = total = 0.0
    for measured, position, whole in zip(arrays["diffraction"], positions, near, strict=True):
        shift = position - whole
        ramp = np.exp(-2j * np.pi * (frequencies[:, None] * shift[0] + frequencies * shift[1]))
        moved = np.fft.ifft2(np.fft.fft2(probe) * ramp)
        y, x = whole.astype(int) - side // 2
        model = np.abs(far_field(moved * object_[y : y + side, x : x + side]))
        off += np.abs(model - measured)[good].sum()
        total += measured[good].sum()
    return off / total


def test_cropped_frames_make_larger_pixels_of_the_object(scan, imported, tmp_path):
    """Half the frame sees half the resolution: pixels twice as wide, positions half the number."""
    scan.write_cxi(tmp_path / "scan.cxi", images=False)

    arrays, metadata, _ = imported("scan.cxi", "base.npz", "--crop", SIDE // 2, "--epochs", 200)

    half = SIDE // 4
    middle = np.sqrt(scan.counts)[:, half:-half, half:-half]
    np.testing.assert_allclose(arrays["diffraction"], middle, rtol=1e-6)
    spans = np.ptp(arrays["ycoords"]), np.ptp(scan.positions[:, 0])
    assert spans[0] == pytest.approx(spans[1] / 2, rel=1e-9)
    assert metadata["geometry"]["detector_pixel_m"] == DETECTOR_PIXEL_M


def test_a_stated_pixel_of_the_object_follows_its_frames(scan, imported, tmp_path):
    write_npz(tmp_path / "scan.npz", scan)
    pixel = ["--object-pixel-nm", PIXEL_M * 1e9]

    _, metadata, _ = imported(
        "scan.npz", "base.npz", "--domain", "counts", "--crop", 16, *pixel, "--epochs", 200
    )

    assert metadata["geometry"]["object_pixel_m"] == pytest.approx(2 * PIXEL_M, rel=1e-9)


@pytest.mark.parametrize("count", [2, 4])
def test_binned_frames_keep_photons_object_and_positions(count, imported, tmp_path):
    """The narrow probe that is left predicts the sums, whose middles lie half a pixel further.

    Were that not in its phase, the R-factor would be .13.
    """
    narrow = made_probe() * np.exp(-(sum(n**2 for n in np.mgrid[-16:16, -16:16])) / 3)
    scan = Scan(probe=narrow * np.sqrt(2e5 / (np.abs(narrow) ** 2).sum()))
    scan.write_cxi(tmp_path / "scan.cxi")

    arrays, metadata, _ = imported("scan.cxi", "base.npz", "--bin", count)

    side = SIDE // count
    sums = scan.counts.reshape(-1, side, count, side, count).sum(axis=(2, 4))
    np.testing.assert_allclose(arrays["diffraction"] ** 2, sums, rtol=1e-6)
    np.testing.assert_allclose(arrays["ycoords"], scan.positions[:, 0], atol=1e-9)
    assert arrays["probeGuess"].shape == (side, side)
    assert metadata["geometry"]["detector_pixel_m"] == pytest.approx(count * DETECTOR_PIXEL_M)
    if count == 2:
        assert scan_r(arrays) < 0.05


def test_a_bad_pixel_spoils_its_sum_and_no_other(scan, imported, tmp_path):
    counts = scan.counts.astype(np.float32)
    counts[:, 3, 4] = np.nan
    mask = np.zeros((SIDE, SIDE), np.uint32)
    mask[3, 4] = 1
    scan.write_cxi(tmp_path / "scan.cxi", counts=counts, mask=mask)

    arrays, _, _ = imported("scan.cxi", "base.npz", "--bin", 2, "--ignore", "object,probe")

    assert np.argwhere(arrays["bad_pixels"]).tolist() == [[1, 2]]
    assert np.isfinite(arrays["diffraction"]).all()


def test_roots_are_summed_as_counts(scan, imported, tmp_path):
    roots = np.sqrt(scan.counts).astype(np.float32)
    write_npz(tmp_path / "scan.npz", scan, diffraction=roots)
    words = ["--domain", "amplitude", "--bin", 2, "--epochs", 200]

    arrays, _, _ = imported("scan.npz", "base.npz", *words)

    sums = scan.counts.reshape(-1, 16, 2, 16, 2).sum(axis=(2, 4))
    np.testing.assert_allclose(arrays["diffraction"] ** 2, sums, rtol=1e-5)


def test_padding_is_bad_and_the_probe_of_the_file_is_resampled(scan, imported, tmp_path):
    write_npz(tmp_path / "scan.npz", scan, probeGuess=scan.probe.astype(np.complex64))

    arrays, _, said = imported("scan.npz", "base.npz", "--domain", "counts", "--pad", 40)

    assert "the probe was resampled to the 40 x 40 pixels of its frames" in said
    bad = np.ones((40, 40), bool)
    bad[4:-4, 4:-4] = False
    np.testing.assert_array_equal(arrays["bad_pixels"], bad)
    spans = np.ptp(arrays["xcoords"]), np.ptp(scan.positions[:, 1])
    assert spans[0] == pytest.approx(spans[1] * 40 / SIDE, rel=1e-9)


def test_crop_bin_and_pad_come_in_this_order(scan, imported, tmp_path):
    write_npz(tmp_path / "scan.npz", scan)
    sizes = ["--crop", 24, "--bin", 2, "--pad", 16]

    arrays, _, _ = imported("scan.npz", "base.npz", "--domain", "counts", *sizes, "--epochs", 200)

    inner = scan.counts[:, 4:-4, 4:-4].reshape(-1, 12, 2, 12, 2).sum(axis=(2, 4))
    np.testing.assert_allclose(arrays["diffraction"][:, 2:-2, 2:-2] ** 2, inner, rtol=1e-6)


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--crop", 40], "--crop 40: the frames are 32 x 32; give at most 32"),
        (["--crop", 15], "--crop 15: give an even number of pixels"),
        (["--pad", 16], "--pad 16: the frames are 32 x 32; give at least 32"),
        (["--bin", 3], "--bin 3: the frames are 32 x 32; both sides have to be 3 times"),
        (["--bin", 32], "--bin 32: the frames are 32 x 32"),
        (["--crop", 16], "changes the pixel of the object, and the file has one; leave it out"),
    ],
)
def test_sizes_that_do_not_fit_are_refused_before_any_epoch(words, message, scan, study, tmp_path):
    scan.write_cxi(tmp_path / "scan.cxi")

    code, _, error = study("import", "scan.cxi", "base.npz", *words)

    assert code == 2
    assert message in error
    assert "epoch" not in error
    assert not (tmp_path / "base.npz").exists()


@pytest.mark.parametrize(("length", "side"), [(7, 4), (8, 5), (8, 8), (5, 8), (6, 9), (5, 5)])
def test_the_zero_frequency_stays_in_the_centre_of_any_window(length, side):
    values = np.zeros((2, length, length))
    values[:, length // 2, length // 2] = 1

    found = centred_window(values, side)

    assert found.shape == (2, side, side)
    assert np.argwhere(found).tolist() == [[0, side // 2, side // 2], [1, side // 2, side // 2]]
