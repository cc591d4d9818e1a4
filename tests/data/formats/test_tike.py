"""Tike files come in with their axes and corners right, or are refused in one line."""

import bz2
import io
from pathlib import Path

import numpy as np
import pytest

from study_lib.data.formats import tike
from study_lib.data.formats.acquisition import ReadChoices
from study_lib.data.formats.tike import read_tike, write_tike
from study_lib.errors import InputError

SIDE = 16


@pytest.fixture
def layout(rng) -> dict[str, np.ndarray]:
    """Seven patterns as tike stores them: the brightest pixel, the zero frequency, at a corner."""
    data = rng.poisson(3, (1, 7, SIDE, SIDE)).astype(np.float32)
    data[..., 0, 0] = 900
    data[..., 0, 1] = 500
    probe = rng.normal(size=(SIDE, SIDE)) + 1j * rng.normal(size=(SIDE, SIDE))
    scan = np.stack([np.arange(7), 100 + np.arange(7)], axis=1)[None] - 3.25
    return {
        "data": data,
        "probe": probe[None, None, None, None].astype(np.complex64),
        "scan": scan.astype(np.float32),
    }


def layout_file(path: Path, arrays: dict[str, np.ndarray]) -> Path:
    """Write a plain or a doubly compressed file, by its suffix."""
    buffer = io.BytesIO()
    np.savez(buffer, **arrays)
    content = buffer.getvalue()
    path.write_bytes(bz2.compress(content) if path.suffix == ".bz2" else content)
    return path


@pytest.mark.parametrize("name", ["scan.npz", "scan.npz.bz2"])
def test_corner_goes_to_the_centre_and_rows_come_first(tmp_path, layout, name):
    scan = read_tike(layout_file(tmp_path / name, layout), ReadChoices())

    counts = scan.counts()
    assert counts.shape == (7, SIDE, SIDE)
    assert scan.amplitudes.dtype == np.float32
    assert (counts[:, SIDE // 2, SIDE // 2] == 900).all()
    assert (counts[:, SIDE // 2, SIDE // 2 + 1] == 500).all(), "rows and columns stay"
    assert counts.sum() == layout["data"].sum()
    np.testing.assert_array_equal(scan.positions_px[0], [-3.25, 96.75])
    np.testing.assert_array_equal(scan.probe, layout["probe"][0, 0, 0, 0])
    assert scan.metadata["source"] == name
    assert scan.object_ is None
    assert not scan.probe_is_scaled


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"data": None}, "data: found nothing .*expected an array"),
        ({"scan": np.zeros((1, 6, 2))}, r"scan: found shape \(6, 2\); expected \(7, 2\)"),
        ({"scan": np.zeros((2, 7, 2))}, r"scan: found shape \(2, 7, 2\); expected 2 axes"),
        ({"probe": np.ones((1, 1, 1, 1, 8, 8))}, r"probe: found shape \(1, 8, 8\)"),
        ({"probe": np.ones((1, 2, 1, 3, SIDE, SIDE))}, r"probe: found float64 of shape \(1, 2"),
        ({"probe": np.full((SIDE, SIDE), "a")}, "probe: found <U1 of shape"),
        ({"data": np.full((1, 7, SIDE, SIDE), -1.0)}, "negative patterns at index 0, 1"),
        ({"data": np.full((1, 7, SIDE, SIDE), np.nan)}, "NaN or infinite patterns at index 0, 1"),
        ({"scan": np.full((1, 7, 2), "a")}, "scan: found type <U1"),
        ({"scan": np.array([{}])}, "scan holds pickled objects, which can run code"),
    ],
)
def test_wrong_layout_is_refused_in_one_line(tmp_path, layout, change, message):
    arrays = {key: value for key, value in (layout | change).items() if value is not None}
    path = layout_file(tmp_path / "scan.npz.bz2", arrays)

    with pytest.raises(InputError, match=message) as caught:
        read_tike(path, ReadChoices())

    assert str(path) in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("name", "damage"),
    [
        ("scan.npz.bz2", lambda content: content[: len(content) // 2]),
        ("scan.npz.bz2", lambda content: b"not bz2 at all"),
        ("scan.npz", lambda content: content[: len(content) // 2]),
        ("scan.npz", lambda content: b""),
        ("scan.npz", lambda content: content.replace(content[900:904], b"\0\1\2\3")),
    ],
)
def test_damaged_file_is_refused(tmp_path, layout, name, damage):
    path = layout_file(tmp_path / name, layout)
    path.write_bytes(damage(path.read_bytes()))

    with pytest.raises(InputError, match=r"damaged|not bz2|declares"):
        read_tike(path, ReadChoices())


def test_missing_file_is_refused(tmp_path):
    with pytest.raises(InputError, match="no such file"):
        read_tike(tmp_path / "absent.npz.bz2", ReadChoices())


def test_modes_of_any_order_come_strongest_first_with_all_their_power(tmp_path, layout):
    probe = layout["probe"][0, 0, 0, 0]
    modes = np.stack([0.5 * probe.T, probe])[None, None, None]

    scan = read_tike(layout_file(tmp_path / "scan.npz", layout | {"probe": modes}), ReadChoices())

    powers = (np.abs(scan.probe) ** 2).sum(axis=(1, 2))
    assert powers[0] > powers[1] > 0
    assert powers.sum() == pytest.approx((np.abs(modes) ** 2).sum(), rel=1e-5)
    assert abs((scan.probe[0].conj() * scan.probe[1]).sum()) < 1e-5 * powers[0]
    assert "make probe modes orthogonal" in [step["operation"] for step in scan.transformations]


def test_a_file_that_departs_from_the_layout_can_be_read(tmp_path, layout):
    """Said to be in the centre, the zero frequency stays; unsaid, the wrong place is remarked."""
    data = np.fft.fftshift(layout["data"], axes=(-2, -1))
    path = layout_file(tmp_path / "scan.npz", layout | {"data": data})

    said, unsaid = (
        read_tike(path, ReadChoices(zero_frequency=where)) for where in ("centre", None)
    )

    assert (said.counts()[:, SIDE // 2, SIDE // 2] == 900).all()
    assert "say --zero-frequency" in " ".join(unsaid.remarks)


@pytest.mark.parametrize("name", ["scan.npz", "scan.npz.bz2"])
def test_what_is_written_has_the_layout_and_comes_back(tmp_path, acquisition, name):
    write_tike(tmp_path / name, acquisition)
    found = read_tike(tmp_path / name, ReadChoices())

    np.testing.assert_array_equal(found.amplitudes, acquisition.amplitudes)
    np.testing.assert_array_equal(found.positions_px, acquisition.positions_px)
    np.testing.assert_array_equal(found.probe, acquisition.probe)


def test_a_file_that_grows_beyond_memory_or_disk_is_refused(tmp_path, layout, monkeypatch):
    monkeypatch.setattr(tike, "memory_bytes", lambda: 2**10)
    path = layout_file(tmp_path / "scan.npz.bz2", layout)

    with pytest.raises(InputError, match=r"grows beyond 0\.0 GiB, the memory or half of the disk"):
        read_tike(path, ReadChoices())


def test_a_bz2_bomb_is_refused_by_its_ratio(tmp_path):
    path = tmp_path / "bomb.npz.bz2"
    path.write_bytes(bz2.compress(bytes(2**24)))

    with pytest.raises(InputError, match=r"\d+ bytes grow to 2 MiB and more; at most 500 times"):
        read_tike(path, ReadChoices())
