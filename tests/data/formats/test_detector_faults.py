"""What a detector counted wrongly is found, each kind by itself, and diffraction is left alone."""

from pathlib import Path

import numpy as np
import pytest
import torch

from study_lib.data.formats.acquisition import RawScan, ReadChoices
from study_lib.data.formats.cleaning import acquisition_of
from study_lib.data.formats.detector_faults import faults_of_scan, invalid_values
from study_lib.data.formats.tike import read_tike
from study_lib.design.presets import load_design
from study_lib.errors import InputError
from study_lib.phases.scene import scene_of
from study_lib.physics.forward import exit_waves, expected_counts

FILE = Path("scan.cxi")
SIEMENS_STAR = (
    Path(__file__).resolve().parents[4] / "shared" / "data" / "siemens-star-small.npz.bz2"
)


def far_field(*settings: str) -> np.ndarray:
    """Return the expected patterns of the smoke preset for one photon in each."""
    scene = scene_of(load_design("smoke", list(settings)))
    positions = torch.from_numpy(scene.positions_of("test"))
    waves = exit_waves(torch.from_numpy(scene.probe), torch.from_numpy(scene.object_), positions)
    rates: np.ndarray = expected_counts(waves).double().numpy()
    return rates


@pytest.fixture(scope="module")
def rates():
    return far_field()


@pytest.fixture
def counts(rates, rng):
    return rng.poisson(1e6 * rates)


@pytest.mark.parametrize("photons", [1e2, 1e4, 1e6, 1e8])
@pytest.mark.parametrize("scan", ["raster", "fermat"])
def test_clean_patterns_have_no_fault_at_any_dose(photons, scan, rng):
    patterns = rng.poisson(photons * far_field(f"scan.kind={scan}"))

    assert faults_of_scan(patterns).remarks == ()
    assert faults_of_scan(np.sqrt(patterns).astype(np.float32), are_roots=True).remarks == ()


@pytest.mark.skipif(not SIEMENS_STAR.is_file(), reason="the measured Siemens star is not here")
def test_a_clean_measurement_has_no_fault():
    scan = read_tike(SIEMENS_STAR, ReadChoices(keep_all=True))

    assert faults_of_scan(scan.amplitudes, are_roots=True).remarks == ()


def test_no_number_no_count_is_masked_where_it_is(counts):
    patterns = counts.astype(np.float32)
    patterns[:, 3, 4] = np.nan
    patterns[7, 9, 9] = np.inf

    found = invalid_values(patterns)

    assert np.argwhere(found.bad_pixels).tolist() == [[3, 4]]
    assert np.argwhere(found.bad_values).tolist() == [[7, 9, 9]]
    assert found.remarks == (
        "1 pixel has no number in every frame: (3, 4)",
        "1 values are no number, in 1 frames: they have no say there",
    )


@pytest.mark.parametrize("dtype", [np.uint16, np.uint32, np.int32])
def test_the_largest_number_of_a_type_is_no_count(dtype, rates, rng):
    patterns = rng.poisson(1e3 * rates).astype(dtype)
    patterns[:, 30, 2] = np.iinfo(dtype).max

    assert np.argwhere(invalid_values(patterns).bad_pixels).tolist() == [[30, 2]]


def test_flags_of_gaps_are_no_counts_and_a_subtracted_dark_is_none_of_them(counts):
    flagged, subtracted = counts.astype(np.int32), counts - 3
    flagged[:, 10:12] = -1
    flagged[4, 20, 20] = -2

    found = invalid_values(flagged)

    assert found.bad_pixels.any(axis=1).nonzero()[0].tolist() == [10, 11]
    assert np.argwhere(found.bad_values).tolist() == [[4, 20, 20]]
    assert invalid_values(subtracted).remarks == ()
    raw = RawScan(np.zeros((len(counts), 2)), patterns=subtracted, domain="counts")
    with pytest.raises(InputError, match="negative patterns at index 0"):
        acquisition_of(FILE, raw, ReadChoices())


def test_read_noise_around_zero_is_no_flag(rates, rng):
    """Whole numbers after a dark was subtracted: -1 and -2 are low counts, not gaps."""
    noisy = np.rint(rng.poisson(1e4 * rates) + rng.normal(0, 0.45, rates.shape)).astype(np.int32)
    assert set(np.unique(noisy[noisy < 0])) <= {-1, -2}

    assert invalid_values(noisy).remarks == ()


def test_a_module_that_is_stuck_is_masked_and_a_detector_that_is_stuck_is_named(counts):
    module, whole = counts.copy(), counts.copy()
    module[:, :, 28:] = 700
    whole[:] = whole[0]

    found, named = faults_of_scan(module), faults_of_scan(whole)

    assert found.bad_pixels.any(axis=0).nonzero()[0].tolist() == [28, 29, 30, 31]
    assert any("of the lit detector has the same count" in remark for remark in named.remarks)
    assert named.bad_pixels.mean() < 0.1


def constant(patterns, rng):
    patterns[:, 5, 25] = 3000


def hot(patterns, rng):
    patterns[:, 5, 25] = rng.poisson(3000, len(patterns))


def flickering(patterns, rng):
    patterns[:, 5, 25] = np.where(rng.random(len(patterns)) < 0.3, rng.poisson(20_000), 0)


def dead(patterns, rng):
    patterns[:, 14, 17] = 0


PIXELS = {
    "constant": (constant, (5, 25), "the same count in every frame"),
    "hot": (hot, (5, 25), "more than 8 times the counts of the pixels around"),
    "flickering": (flickering, (5, 25), "more than 8 times the counts"),
    "dead": (dead, (14, 17), "no count in the whole scan, amid pixels that have"),
}


@pytest.mark.parametrize(("harm", "place", "words"), PIXELS.values(), ids=PIXELS)
def test_a_bad_pixel_is_found_and_no_other(harm, place, words, counts, rng):
    harm(counts, rng)

    found = faults_of_scan(counts)

    assert np.argwhere(found.bad_pixels).tolist() == [list(place)]
    (remark,) = found.remarks
    assert words in remark
    assert f"({place[0]}, {place[1]})" in remark


def lattice(kind, diameter_px):
    """Expected patterns (100, 64, 64) of a grating or an array of holes, from a disc of light."""
    side, length = 64, 128
    y, x = np.mgrid[:length, :length].astype(float)
    stripes = (0.96 * x + 0.3 * y) % 7.3 < 3.2
    holes = (x % 9 - 4.5) ** 2 + ((y + 0.1 * x) % 9 - 4.5) ** 2 < 6
    objects = {
        "grating": np.where(stripes, 1, 0.3),
        "phase grating": np.exp(1.2j * stripes),
        "holes": holes,
    }
    radius = np.hypot(*(np.mgrid[:side, :side] - side // 2))
    probe = 1 / (1 + np.exp(radius - diameter_px / 2))
    probe *= np.sqrt(1e6 / (probe**2).sum())
    places = np.random.default_rng(1).integers(0, length - side, (100, 2))
    waves = np.stack([probe * objects[kind][a : a + side, b : b + side] for a, b in places])
    spectra = np.fft.fft2(np.fft.ifftshift(waves, axes=(1, 2)), norm="ortho")
    rates: np.ndarray = np.abs(np.fft.fftshift(spectra, axes=(1, 2))) ** 2
    return rates


@pytest.mark.parametrize("diameter_px", [32, 44])
@pytest.mark.parametrize("kind", ["grating", "phase grating", "holes"])
def test_diffraction_orders_are_no_faults_and_hot_pixels_among_them_are(kind, diameter_px, rng):
    """Dozens of orders stand out by more than a factor of 8 and are as narrow as a hot pixel."""
    rates = lattice(kind, diameter_px)
    counts = rng.poisson(rates)
    far = [at for at in ((5, 40), (50, 9), (60, 58)) if rates.mean(axis=0)[at] < 100]

    clean = faults_of_scan(counts)
    for row, column in far:
        counts[:, row, column] = rng.poisson(4000, len(counts))
    found = faults_of_scan(counts)

    assert not clean.bad_pixels.any()
    assert [tuple(place) for place in np.argwhere(found.bad_pixels)] == sorted(far)
    assert len(far) >= 2


def test_a_pair_of_hot_pixels_does_not_hide_itself(counts, rng):
    counts[:, 4:6, 26:28] = rng.poisson(3000, (len(counts), 2, 2))

    assert faults_of_scan(counts).bad_pixels.sum() == 4


def test_a_hot_column_is_found_and_no_other(counts, rng):
    counts[:, :, 26] = rng.poisson(3000, (len(counts), 32))

    found = faults_of_scan(counts)

    assert found.bad_pixels.any(axis=0).nonzero()[0].tolist() == [26]
    assert found.bad_pixels[:, 26].all()


def test_frames_that_an_opaque_specimen_darkens_stay(counts):
    counts[: len(counts) // 4] //= 400

    assert faults_of_scan(counts).frames == {}


def test_the_rows_of_a_gap_are_dead(counts):
    counts[:, 12:14] = 0

    found = faults_of_scan(counts)

    assert found.bad_pixels.any(axis=1).nonzero()[0].tolist() == [12, 13]
    assert found.bad_pixels[12:14].all()


@pytest.mark.parametrize("photons", [1e5, 1e6])
def test_counts_that_end_at_the_largest_number_of_a_byte_are_saturated_alone(photons, rates, rng):
    """Pixels that are saturated in most frames have no spike and no heat in the others."""
    patterns = np.minimum(rng.poisson(photons * rates), 255).astype(np.uint8)
    raw = RawScan(np.arange(2.0 * len(patterns)).reshape(-1, 2), patterns, domain="counts")

    found = acquisition_of(FILE, raw, ReadChoices())

    at = np.broadcast_to(found.bad_pixels, patterns.shape)
    np.testing.assert_array_equal(at, patterns == 255)
    assert all("largest number of its type" in remark for remark in found.remarks)


def test_a_cosmic_ray_is_masked_in_its_frame_alone(counts):
    track = [(step + 3, 2 * step + 4) for step in range(9)]
    for row, column in track:
        counts[11, row, column] += 2_000_000

    found = faults_of_scan(counts)

    assert not found.bad_pixels.any()
    assert [tuple(place) for place in np.argwhere(found.bad_values)] == [(11, *at) for at in track]
    assert found.remarks[0].startswith("frame 11: values over 20 times")


def test_saturated_values_are_masked_and_their_level_is_named(counts):
    level = int(np.sort(counts.ravel())[-400])

    found = faults_of_scan(np.minimum(counts, level))

    np.testing.assert_array_equal(found.bad_values, counts >= level)
    assert f"a plateau at {level}, the largest" in found.remarks[0]
    assert "--saturation" in found.remarks[0]


@pytest.mark.parametrize(("factor", "words"), [(40, "others have at most"), (0, "0 counts where")])
def test_a_frame_far_brighter_or_blank_is_left_out(factor, words, counts):
    counts[33] *= factor

    found = faults_of_scan(counts)

    assert list(found.frames) == [33]
    assert words in found.frames[33]


def test_frames_that_the_file_itself_masks_are_left_out(counts):
    masks = np.zeros(counts.shape, bool)
    masks[8, 1:] = True

    assert list(faults_of_scan(counts, masks).frames) == [8]


def test_a_scan_of_few_frames_is_not_judged(counts):
    few = counts[:9]
    few[:, 5, 25] = 3000

    assert faults_of_scan(few).remarks == ()


def test_what_is_left_out_keeps_every_other_frame_with_its_position_and_name(counts):
    counts[33] *= 40
    counts[12, 3, 3] = 5_000_000
    positions = np.arange(2.0 * len(counts)).reshape(-1, 2)
    raw = RawScan(positions, patterns=counts, domain="counts")

    found = acquisition_of(FILE, raw, ReadChoices())
    kept = acquisition_of(FILE, raw, ReadChoices(keep_all=True))

    others = np.delete(np.arange(len(counts)), 33)
    np.testing.assert_array_equal(found.scan_index, others)
    np.testing.assert_array_equal(found.positions_px, positions[others])
    assert np.argwhere(found.bad_pixels).tolist() == [[12, 3, 3]]
    assert found.amplitudes[12, 3, 3] == 0
    np.testing.assert_array_equal(kept.counts(), counts)
    assert kept.bad_pixels is None
    assert kept.remarks == ()
