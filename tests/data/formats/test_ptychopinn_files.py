"""Every dialect of the PtychoPINN NPZ gives the same scan; what a file leaves open is asked for."""

from dataclasses import replace

import numpy as np
import pytest

from study_lib.data.formats.acquisition import ReadChoices
from study_lib.data.formats.ptychopinn import (
    read_ptychopinn,
    write_ptychopinn,
    write_ptychopinn_counts,
)
from study_lib.errors import InputError
from study_lib.phases.base_data import with_scaled_probe

COUNTS = {"scale_contract_version": "ci_intensity_v2", "measurement_domain": "count_intensity"}
LEGACY = {"scale_contract_version": "legacy_v1", "measurement_domain": "normalized_amplitude"}


@pytest.fixture
def arrays(acquisition):
    """The acquisition as a file of PtychoPINN's core contract, which states no domain."""
    y, x = acquisition.positions_px.T
    return {
        "diff3d": acquisition.amplitudes,
        "probeGuess": acquisition.probe,
        "objectGuess": acquisition.object_,
        "xcoords": x,
        "ycoords": y,
        "scan_index": acquisition.scan_index,
    }


def saved(path, arrays, **more):
    """Write arrays that are not None."""
    content = {key: value for key, value in (arrays | more).items() if value is not None}
    np.savez(path, **content)
    return path


def read(path, **choices):
    return read_ptychopinn(path, ReadChoices(**choices))


DIALECTS = {
    "amplitude": (lambda amplitudes: {"diff3d": amplitudes}, {"domain": "amplitude"}),
    "float counts": (lambda amplitudes: {"diff3d": np.round(amplitudes**2)}, {"domain": "counts"}),
    "uint16": (
        lambda amplitudes: {"diff3d": np.round(amplitudes**2).astype(np.uint16)},
        {"domain": "counts"},
    ),
    "CI pair": (lambda amplitudes: {"diff3d": np.round(amplitudes**2), **COUNTS}, {}),
    "double": (
        lambda amplitudes: {"diff3d": amplitudes.astype(np.float64)},
        {"domain": "amplitude"},
    ),
    "scan last": (
        lambda amplitudes: {"diff3d": None, "diffraction": np.moveaxis(amplitudes, 0, 2)},
        {"domain": "amplitude"},
    ),
    "trailing axis": (
        lambda amplitudes: {"diff3d": amplitudes[..., None]},
        {"domain": "amplitude"},
    ),
}


@pytest.mark.parametrize(("change", "choices"), DIALECTS.values(), ids=DIALECTS)
def test_every_dialect_gives_the_same_scan(tmp_path, acquisition, arrays, change, choices):
    """16-bit counts up to 20000 would overflow if they were squared or summed as they are."""
    path = saved(tmp_path / "a.npz", arrays, **change(acquisition.amplitudes))

    found = read(path, **choices)

    np.testing.assert_allclose(found.amplitudes, acquisition.amplitudes, rtol=1e-6)
    np.testing.assert_array_equal(found.positions_px, acquisition.positions_px)
    np.testing.assert_array_equal(found.scan_index, acquisition.scan_index)
    assert found.amplitudes.dtype == np.float32
    assert not found.is_normalized
    assert found.remarks == ()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (
            {},
            r"roots of whole numbers up to .* looks like amplitude; say --domain counts, --domain",
        ),
        ({"diff3d": np.full((5, 16, 16), 7, np.uint16)}, r"whole numbers up to 7, .* like counts"),
        ({"diff3d": np.full((5, 16, 16), 0.3)}, r"float64 values up to 0.3, 0% of them whole"),
        (
            {"measurement_domain": "count_intensity"},
            r"found None and count_intensity; .*state both",
        ),
        (
            LEGACY | {"measurement_domain": "count_intensity"},
            r"found legacy_v1 and count_intensity",
        ),
        ({"xcoords": None}, r"xcoords: found nothing \(the file has diff3d, objectGuess"),
        ({"xcoords": np.arange(4.0)}, r"ycoords: found 5 values and 4 xcoords; pair them"),
        (
            {"xcoords": np.arange(5) * 1e-7, "ycoords": np.zeros(5)},
            r"4e-07, which look like metres",
        ),
        (
            {"diff3d": np.ones((5, 16, 12)), **COUNTS},
            r"shape \(5, 16, 12\) does not fit 5 positions",
        ),
        (
            {"diff3d": np.ones((6, 16, 16)), **COUNTS},
            r"5 positions, .*; \(5, n, n\) or \(n, n, 5\)",
        ),
        ({"diff3d": np.ones((5, 16, 16), complex), **COUNTS}, r"diff3d: found complex128 of shape"),
        (
            {"probeGuess": np.full((16, 16), np.nan), **COUNTS},
            r"probe: found float64 that is not complex and",
        ),
        ({"probeGuess": np.zeros((16, 16), complex), **COUNTS}, r"probe: all zero"),
        (
            {
                "objectGuess": np.ones((2, 40, 36), complex),
                "diff3d": np.random.default_rng(1).poisson(50, (5, 16, 16)).astype(np.float32),
                **COUNTS,
            },
            r"object: .* one slice",
        ),
    ],
)
def test_what_is_open_or_wrong_is_refused(tmp_path, arrays, change, message):
    path = saved(tmp_path / "a.npz", arrays, **change)

    with pytest.raises(InputError, match=message) as caught:
        read(path)

    assert "\n" not in str(caught.value)


def test_a_cube_needs_its_axes_said(tmp_path, rng):
    """16 patterns of 16 x 16: either axis may count them."""
    cube = rng.poisson(9, (16, 16, 16))
    arrays = {"diffraction": cube, "xcoords": np.arange(16.0), "ycoords": np.arange(16.0)}
    path = saved(tmp_path / "a.npz", arrays)

    with pytest.raises(InputError, match=r"say --axes nhw for .scan, row, column."):
        read(path, domain="counts")

    first, last = (read(path, domain="counts", axes=axes).counts() for axes in ("nhw", "hwn"))
    np.testing.assert_array_equal(first, cube)
    np.testing.assert_array_equal(last, np.moveaxis(cube, 2, 0))


def test_axes_that_cannot_be_are_refused(tmp_path, arrays):
    path = saved(tmp_path / "a.npz", arrays)

    with pytest.raises(InputError, match=r"shape \(5, 16, 16\) as hwn does not fit 5 positions"):
        read(path, domain="amplitude", axes="hwn")


def test_legacy_amplitudes_are_normalized_and_the_probe_comes_to_fit(tmp_path, acquisition, arrays):
    scaled = acquisition.amplitudes / 300
    path = saved(tmp_path / "a.npz", arrays, diff3d=scaled, **LEGACY)

    found = with_scaled_probe(read(path))

    assert found.is_normalized
    np.testing.assert_array_equal(found.amplitudes, scaled)
    np.testing.assert_allclose(found.probe, acquisition.probe / 300, rtol=0.01)
    assert "scale probe" in found.transformations[-1]["operation"]


def test_normalized_amplitudes_stay_so_out_and_in(tmp_path, acquisition):
    normalized = replace(acquisition, is_normalized=True)
    write_ptychopinn(tmp_path / "a.npz", normalized)

    assert read(tmp_path / "a.npz").is_normalized


def test_the_domain_that_the_user_says_holds_whatever_the_values_look_like(tmp_path, arrays):
    path = saved(tmp_path / "a.npz", arrays, diff3d=arrays["diff3d"] / np.float32(300))

    said = read(path, domain="amplitude")
    normalized = read(path, domain="normalized")

    assert not said.is_normalized
    assert "taken as counts all the same" in " ".join(said.remarks)
    assert normalized.is_normalized


@pytest.mark.parametrize(
    ("domain", "values", "remark"),
    [
        ("amplitude", np.full((5, 16, 16), 7.0), "all values are whole numbers, as counts are"),
        ("counts", np.full((5, 16, 16), 7.5), "100% of the values are not whole numbers"),
    ],
)
def test_values_that_speak_against_the_domain_are_remarked(
    tmp_path, study, arrays, domain, values, remark
):
    """The command goes on, and warns on standard error."""
    saved(tmp_path / "a.npz", arrays, diff3d=values)

    code, _, error = study("import", "a.npz", "b.npz", "--domain", domain)

    assert code == 0
    assert f"study: warning: a.npz: taken as {domain}, but {remark}" in error


@pytest.mark.parametrize("stated", [COUNTS, LEGACY])
def test_the_flag_wins_over_a_statement_and_says_so(tmp_path, arrays, stated):
    path = saved(tmp_path / "a.npz", arrays, **stated)
    other = "amplitude" if stated is COUNTS else "counts"

    found = read(path, domain=other)

    assert not found.is_normalized
    expected = arrays["diff3d"] if other == "amplitude" else np.sqrt(arrays["diff3d"])
    np.testing.assert_allclose(found.amplitudes, expected, rtol=1e-6)
    assert f"--domain {other} was taken" in " ".join(found.remarks)


def test_pickled_metadata_stay_unread(tmp_path, arrays):
    """Upstream writes JSON text into an object array, which only unpickling would give back."""
    path = tmp_path / "a.npz"
    np.savez(path, **arrays, _metadata=np.array("{}", dtype=object), allow_pickle=True)

    found = read(path, domain="amplitude")

    assert "pickled object and were left unread" in " ".join(found.remarks)


def test_every_frame_with_the_same_index_has_none(tmp_path, arrays):
    path = saved(tmp_path / "a.npz", arrays, scan_index=np.zeros(5, int))

    assert read(path, domain="amplitude").scan_index is None


def test_counts_and_amplitudes_written_state_themselves(tmp_path, acquisition):
    write_ptychopinn(tmp_path / "a.npz", acquisition)
    write_ptychopinn_counts(tmp_path / "c.npz", acquisition)

    with np.load(tmp_path / "a.npz") as a, np.load(tmp_path / "c.npz") as c:
        np.testing.assert_array_equal(np.round(a["diff3d"] ** 2), c["diff3d"])
        assert {key: str(c[key]) for key in COUNTS} == COUNTS
        assert not set(COUNTS) & set(a.files)


def test_coordinates_x_are_columns(tmp_path, acquisition):
    write_ptychopinn(tmp_path / "a.npz", acquisition)

    with np.load(tmp_path / "a.npz") as archive:
        np.testing.assert_array_equal(archive["xcoords"], acquisition.positions_px[:, 1])


@pytest.mark.parametrize(
    ("more", "message"),
    [
        ({"photon_energy_eV": 8.0}, "photon_energy_eV: found 8; allowed are 10 to 1e.06 eV"),
        ({"detector_distance_m": -1.5}, "detector_distance_m: found -1.5; allowed are 0.0001 to"),
        (
            {"_metadata": '{"geometry": {"detector_pixel_m": -1}}'},
            "_metadata: geometry: detector_pixel_m: found -1; allowed",
        ),
        ({"_metadata": '{"geometry": {"object_pixel_m": "4 nm"}}'}, "object_pixel_m: found nan"),
        (
            {"_metadata": '{"geometry": {"object_pixel_m": 1%s}}' % ("0" * 400)},
            "object_pixel_m: found inf; allowed",
        ),
    ],
)
def test_lengths_that_cannot_be_are_refused(tmp_path, arrays, more, message):
    path = saved(tmp_path / "a.npz", arrays, **more)

    with pytest.raises(InputError, match=message):
        read(path, domain="amplitude")
