"""What every format shares: modes, bad pixels, bad frames, squares, types, pairs."""

from pathlib import Path

import numpy as np
import pytest

from study_lib.data.formats.acquisition import RawScan, ReadChoices, pair_by_index
from study_lib.data.formats.cleaning import acquisition_of
from study_lib.errors import InputError

FILE = Path("scan.cxi")
POSITIONS = np.arange(12.0).reshape(6, 2)


@pytest.fixture
def patterns(rng):
    """Counts, brightest in the middle."""
    counts = rng.poisson(4, (6, 8, 8))
    counts[:, 4, 4] = 900
    return counts


def operations(found):
    return [step["operation"] for step in found.transformations]


def modes_of(rng, count):
    """Orthogonal modes (count, 8, 8), each with a quarter of the power of the one before."""
    waves = rng.normal(size=(64, count)) + 1j * rng.normal(size=(64, count))
    basis, _ = np.linalg.qr(waves)
    return (basis.T * 0.5 ** np.arange(count)[:, None]).reshape(count, 8, 8)


@pytest.mark.parametrize("axes", [(), (1,), (1, 1), (1, 1, 1, 1)])
def test_a_single_mode_is_a_plain_wave_under_any_axes(axes, rng):
    (wave,) = modes_of(rng, 1)

    found = acquisition_of(FILE, RawScan(POSITIONS, probe=wave.reshape(*axes, 8, 8)), ReadChoices())

    np.testing.assert_array_equal(found.probe, wave.astype(np.complex64))
    assert found.remarks == ()


@pytest.mark.parametrize("axes", [(3,), (1, 3), (1, 1, 1, 3)])
def test_orthogonal_modes_stay_to_the_last_bit(axes, rng):
    modes = modes_of(rng, 3)

    found = acquisition_of(
        FILE, RawScan(POSITIONS, probe=modes.reshape(*axes, 8, 8)), ReadChoices()
    )

    np.testing.assert_array_equal(found.probe, modes.astype(np.complex64))


def test_modes_in_any_basis_are_the_same_modes(rng):
    """Mixed by a unitary matrix they light every pattern alike, and there is one way back."""
    modes = modes_of(rng, 3)
    mixing, _ = np.linalg.qr(rng.normal(size=(3, 3)) + 1j * rng.normal(size=(3, 3)))
    mixed = np.tensordot(mixing, modes, 1)

    found = acquisition_of(FILE, RawScan(POSITIONS, probe=mixed), ReadChoices()).probe

    overlaps = np.abs(np.einsum("iyx,jyx->ij", found.conj(), modes))
    norms = np.linalg.norm(modes.reshape(3, -1), axis=1)
    np.testing.assert_allclose(overlaps, np.diag(norms**2), atol=1e-6)
    np.testing.assert_allclose((np.abs(found) ** 2).sum(0), (np.abs(modes) ** 2).sum(0), rtol=1e-4)


def test_a_mode_that_repeats_another_is_none(rng):
    (wave,) = modes_of(rng, 1)

    found = acquisition_of(FILE, RawScan(POSITIONS, probe=np.stack([wave, wave])), ReadChoices())

    assert found.probe.shape == (8, 8)
    np.testing.assert_allclose((np.abs(found.probe) ** 2).sum(), 2, rtol=1e-6)


def test_of_modes_for_each_pattern_the_mean_probe_is_taken(rng):
    """OPR modes after the first are normalised, and may have more power than the probe."""
    opr = np.stack([modes_of(rng, 2), 50 * modes_of(rng, 2)])

    found = acquisition_of(FILE, RawScan(POSITIONS, probe=opr), ReadChoices())

    np.testing.assert_array_equal(found.probe, opr[0].astype(np.complex64))
    assert "by 2 OPR modes; their first, the mean probe" in " ".join(found.remarks)


def test_a_trailing_axis_is_no_mode(rng):
    probe = rng.normal(size=(8, 8)) + 1j * rng.normal(size=(8, 8))

    found = acquisition_of(FILE, RawScan(POSITIONS, probe=probe[..., None]), ReadChoices())

    np.testing.assert_array_equal(found.probe, probe.astype(np.complex64))


FAULTS = {
    "NaN position": (lambda p, q: q.__setitem__((1, 0), np.nan), "positions that are no numbers"),
    "NaN": (lambda p, q: p.__setitem__((1, slice(5)), np.nan), "NaN or infinite patterns"),
    "infinite": (lambda p, q: p.__setitem__((1, slice(5)), np.inf), "NaN or infinite patterns"),
    "negative": (lambda p, q: p.__setitem__((1, 2, 3), -1.5), "negative patterns"),
    "empty": (lambda p, q: p.__setitem__(1, 0), "empty patterns"),
}


@pytest.mark.parametrize(("harm", "reason"), FAULTS.values(), ids=FAULTS)
def test_bad_frames_are_refused_with_their_indices_or_dropped(patterns, harm, reason):
    values, positions = patterns.astype(float), POSITIONS.copy()
    harm(values, positions)
    raw = RawScan(positions, patterns=values, domain="counts", scan_index=np.arange(6) + 10)

    with pytest.raises(InputError, match=f"{reason} at index 11; .*--drop-bad-frames"):
        acquisition_of(FILE, raw, ReadChoices(keep_all=True))
    found = acquisition_of(FILE, raw, ReadChoices(drop_bad_frames=True))

    np.testing.assert_array_equal(found.scan_index, [10, 12, 13, 14, 15])
    np.testing.assert_array_equal(found.positions_px, np.delete(POSITIONS, 1, axis=0))
    np.testing.assert_allclose(found.counts(), np.delete(patterns, 1, axis=0), rtol=1e-6)
    (record,) = [step for step in found.transformations if step["operation"] == "drop frames"]
    assert record["parameters"] == {reason: [11]}


@pytest.mark.parametrize("harm", ["NaN", "empty", "masked"])
def test_a_frame_that_says_nothing_is_left_out_and_named(patterns, harm):
    values, masks = patterns.astype(float), np.zeros(patterns.shape, bool)
    if harm == "masked":
        masks[1] = True
    else:
        values[1] = np.nan if harm == "NaN" else 0
    raw = RawScan(
        POSITIONS, patterns=values, domain="counts", bad_pixels=masks, scan_index=np.arange(6) + 10
    )

    found = acquisition_of(FILE, raw, ReadChoices())

    np.testing.assert_array_equal(found.scan_index, [10, 12, 13, 14, 15])
    np.testing.assert_array_equal(found.positions_px, np.delete(POSITIONS, 1, axis=0))
    assert "1 frame was left out: index 11" in " ".join(found.remarks)


def test_most_frames_that_say_nothing_are_no_accident(patterns):
    patterns[:4] = 0

    with pytest.raises(InputError, match="empty patterns at index 0, 1, 2, 3; mend them"):
        acquisition_of(FILE, RawScan(POSITIONS, patterns, domain="counts"), ReadChoices())


def test_named_frames_are_left_out_and_later_messages_keep_the_numbers(rng):
    counts = rng.poisson(40.0, (14, 8, 8))
    counts[9] *= 40
    counts[12] = 0
    raw = RawScan(np.arange(28.0).reshape(14, 2), counts, domain="counts")

    found = acquisition_of(FILE, raw, ReadChoices(leave_out=(range(3, 4), range(6, 8))))

    np.testing.assert_array_equal(found.scan_index, [0, 1, 2, 4, 5, 8, 10, 11, 13])
    assert found.remarks[0].startswith("1 frame was left out: index 12")
    assert found.remarks[1].startswith("frame 9: ")
    (record,) = [one for one in found.transformations if one["operation"].endswith("named frames")]
    assert record["parameters"] == {"frames": [3, 6, 7]}


NEGATIVES = {
    "a subtracted dark": (lambda p: p - 2.0 * (np.indices(p.shape).sum(0) % 2), "--dark"),
    "pixels": (
        lambda p: np.where(np.indices(p.shape)[1] > 6, -1 - 1e9 * p, p),
        r"8 detector pixels are negative in every frame, \(7, 0\), .*--mask",
    ),
    "one frame": (lambda p: np.where(np.indices(p.shape)[0] == 2, -1.5, p), "--drop-bad-frames"),
}


@pytest.mark.parametrize(("harm", "advice"), NEGATIVES.values(), ids=NEGATIVES)
def test_negative_values_get_the_advice_that_fits(patterns, harm, advice):
    raw = RawScan(POSITIONS, harm(patterns), domain="counts")

    with pytest.raises(InputError, match=f"negative patterns at .*{advice}"):
        acquisition_of(FILE, raw, ReadChoices())


def test_pixels_of_one_negative_number_are_no_counts(patterns):
    patterns[:, 2, 3] = -1_000_000_000

    found = acquisition_of(FILE, RawScan(POSITIONS, patterns, domain="counts"), ReadChoices())

    assert np.argwhere(found.bad_pixels).tolist() == [[2, 3]]
    assert "1 pixel has one negative number in every frame: (2, 3)" in found.remarks


def test_a_scan_without_a_good_frame_is_refused():
    raw = RawScan(POSITIONS, patterns=np.zeros((6, 8, 8)), domain="counts")

    with pytest.raises(InputError, match="no frame is left"):
        acquisition_of(FILE, raw, ReadChoices(drop_bad_frames=True))


def test_bad_pixels_are_zero_whatever_was_there(patterns):
    """A dead pixel may hold anything, NaN and negative numbers too; no frame is lost to it."""
    values = patterns.astype(float)
    bad = np.zeros((8, 8), bool)
    bad[2, 3] = bad[6, 1] = True
    values[:, 2, 3], values[:, 6, 1] = np.nan, -1

    found = acquisition_of(
        FILE, RawScan(POSITIONS, patterns=values, domain="counts", bad_pixels=bad), ReadChoices()
    )

    assert (found.amplitudes[:, bad] == 0).all()
    np.testing.assert_allclose(found.counts()[:, ~bad], patterns[:, ~bad], rtol=1e-6)
    np.testing.assert_array_equal(found.bad_pixels, bad)


def test_16_bit_counts_do_not_overflow():
    values = np.full((6, 8, 8), 60000, np.uint16)

    found = acquisition_of(
        FILE, RawScan(POSITIONS, patterns=values, domain="counts"), ReadChoices()
    )

    assert (found.counts() == 60000).all()
    assert found.counts().sum() == 6 * 64 * 60000
    assert "convert type" in operations(found)


def test_patterns_are_cropped_to_squares_about_their_zero_frequency(patterns):
    wide = np.pad(patterns, ((0, 0), (0, 0), (3, 3)))

    found = acquisition_of(FILE, RawScan(POSITIONS, patterns=wide, domain="counts"), ReadChoices())

    np.testing.assert_allclose(found.counts(), patterns, rtol=1e-6)
    assert "crop to a square" in operations(found)


@pytest.mark.parametrize("pad", [((0, 0), (3, 3)), ((2, 4), (0, 0)), ((0, 0), (0, 5))])
def test_patterns_are_centred_before_they_are_cropped(patterns, pad):
    """The bright corner pixel is the zero frequency: it comes to the middle of the square."""
    wide = np.pad(patterns, ((0, 0), *pad))
    shift = [n // 2 - 4 - side[0] for n, side in zip(wide.shape[1:], pad, strict=True)]
    wide = np.roll(wide, shift, (1, 2))
    bad = np.zeros(wide.shape[1:], bool)
    bad[0, 1] = True
    raw = RawScan(
        POSITIONS,
        patterns=np.fft.ifftshift(wide, axes=(1, 2)),
        domain="counts",
        bad_pixels=bad,
    )

    found = acquisition_of(FILE, raw, ReadChoices(zero_frequency="corner"))

    assert found.amplitudes.shape == (6, 8, 8)
    assert (found.counts()[:, 4, 4] == 900).all()
    assert np.argwhere(found.bad_pixels).tolist() == [[4, 5]]
    good = ~found.bad_pixels
    np.testing.assert_allclose(found.counts()[:, good], patterns[:, good], rtol=1e-6)
    assert found.remarks == ()


def test_a_probe_is_not_cropped_with_its_patterns(patterns):
    wide = np.pad(patterns, ((0, 0), (0, 0), (3, 3)))
    raw = RawScan(POSITIONS, patterns=wide, domain="counts", probe=np.ones((8, 14), complex))

    with pytest.raises(InputError, match=r"expected a square .n, n.*--ignore object,probe"):
        acquisition_of(FILE, raw, ReadChoices())


def test_a_zero_frequency_in_the_corner_is_suspected_and_moved_if_asked(patterns):
    corner = np.fft.ifftshift(patterns, axes=(1, 2))
    bad = np.zeros((8, 8), bool)
    bad[0, 1] = True
    raw = RawScan(POSITIONS, patterns=corner, domain="counts", bad_pixels=bad)

    left = acquisition_of(FILE, raw, ReadChoices())
    moved = acquisition_of(FILE, raw, ReadChoices(zero_frequency="corner"))

    assert "say --zero-frequency corner" in " ".join(left.remarks)
    assert moved.remarks == ()
    assert (moved.counts()[:, 4, 4] == 900).all()
    assert moved.bad_pixels[4, 5]
    assert (moved.counts()[:, 4, 5] == 0).all()


def test_signs_are_flipped_only_where_no_object_fixes_them():
    raw = RawScan(POSITIONS)

    found = acquisition_of(FILE, raw, ReadChoices(flip_y=True))

    np.testing.assert_array_equal(found.positions_px, POSITIONS * [-1, 1])
    with pytest.raises(InputError, match="leave out --swap-xy, --flip-y"):
        acquisition_of(
            FILE, RawScan(POSITIONS, object_=np.ones((9, 9), complex)), ReadChoices(flip_y=True)
        )


def test_patterns_and_positions_are_paired_by_index_not_by_order():
    patterns, positions, (record,) = pair_by_index(
        FILE, np.array([7, 3, 5, 9]), np.array([3, 4, 5, 7])
    )

    np.testing.assert_array_equal(patterns, [1, 2, 0])
    np.testing.assert_array_equal(positions, [0, 2, 3])
    assert record["parameters"] == {
        "pairs": 3,
        "patterns_without_position": 1,
        "positions_without_pattern": 1,
    }


@pytest.mark.parametrize(
    ("left", "right", "message"),
    [([1, 1], [1, 2], "patterns: an index occurs twice"), ([1], [2], "no index in common")],
)
def test_pairs_that_cannot_be_are_refused(left, right, message):
    with pytest.raises(InputError, match=message):
        pair_by_index(FILE, np.array(left), np.array(right))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"positions_px": np.zeros((6, 3))}, r"positions: found shape \(6, 3\)"),
        (
            {"patterns": np.ones((5, 8, 8))},
            r"found 5 patterns and 6 positions; give one position for every pattern",
        ),
        ({"bad_pixels": np.zeros((8, 7))}, r"bad pixels: found shape \(8, 7\); expected \(8, 8\)"),
        ({"scan_index": np.arange(4)}, r"indices: found shape \(4,\); expected \(6,\)"),
        (
            {"probe": np.ones((6, 6), complex)},
            r"probe: found shape \(6, 6\); expected .modes, 8, 8",
        ),
        ({"patterns": np.full((6, 8, 8), "a")}, r"patterns: found <U1; expected real numbers"),
        ({"object_": np.ones(4, complex)}, r"object: found shape \(4,\)"),
    ],
)
def test_arrays_that_do_not_fit_together_are_refused(patterns, change, message):
    content = {"positions_px": POSITIONS, "patterns": patterns, "domain": "counts"} | change

    with pytest.raises(InputError, match=message):
        acquisition_of(FILE, RawScan(**content), ReadChoices())
