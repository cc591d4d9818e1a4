"""Bad data through the public commands: one message, exit code 2, nothing written."""

import re
import zipfile

import h5py
import numpy as np
import pytest

from study_lib.data.archive import read_npz
from study_lib.physics.likelihood import expected_in_parts

COUNT, SIDE = 9, 16


def good() -> dict[str, np.ndarray]:
    random = np.random.default_rng(1)
    return {
        "diffraction": np.sqrt(random.poisson(4.0, (COUNT, SIDE, SIDE))).astype(np.float32),
        "probeGuess": np.full((SIDE, SIDE), 1.2 + 1.6j, np.complex64),  # 4 photons a pixel
        "objectGuess": np.ones((60, 50), np.complex64),
        "xcoords": random.uniform(10, 40, COUNT),
        "ycoords": random.uniform(10, 50, COUNT),
        "_metadata": np.array('{"domain": "amplitude"}'),
    }


def changed(**arrays: np.ndarray) -> dict[str, np.ndarray]:
    return good() | arrays


def with_value(key: str, index: object, value: complex) -> dict[str, np.ndarray]:
    arrays = good()
    arrays[key][index] = value
    return arrays


def without(key: str) -> dict[str, np.ndarray]:
    return {name: array for name, array in good().items() if name != key}


def lying_header(path) -> None:
    """391 GiB by the header of the patterns, the body of nine of them."""
    np.savez(path, **good())
    with zipfile.ZipFile(path) as file:
        members = {info.filename: file.read(info) for info in file.infolist()}
    name, old = "diffraction.npy", f"({COUNT}, {SIDE}, {SIDE})".encode()
    new = b"(410000000, 16, 16)"
    padded = members[name].replace(old + b", }", new + b", }", 1)
    members[name] = padded.replace(b" " * (len(new) - len(old)) + b"\n", b"\n", 1)
    with zipfile.ZipFile(path, "w") as file:
        for member, content in members.items():
            file.writestr(member, content)


def flipped_bit(path) -> None:
    np.savez(path, **good())
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 4
    path.write_bytes(content)


def truncated(path) -> None:
    np.savez(path, **good())
    path.write_bytes(path.read_bytes()[:-700])


def bomb(path) -> None:
    np.savez_compressed(path, **changed(diffraction=np.zeros((4096, 64, 64), np.float32)))


WRITTEN = {
    "zip bomb": (bomb, r"diffraction\.npy would grow from .* MiB to 64 MiB, \d+ times"),
    "lying header": (lying_header, r"header of diffraction declares shape \(410000000, 16, 16\)"),
    "truncated": (truncated, r"damaged or not an NPZ file .*; write it again"),
    "flipped bit": (flipped_bit, r"is damaged \(Bad CRC-32.*\); write it again"),
}
SAVED = {
    "pickled objects": (
        changed(scan_index=np.array([{}], dtype=object)),
        "scan_index holds pickled objects, which can run code; save plain arrays",
    ),
    "missing key": (without("objectGuess"), "objectGuess: found nothing; expected 2-D complex64"),
    "wrong rank": (
        changed(probeGuess=np.ones((1, 1, SIDE, SIDE), np.complex64)),
        r"probeGuess: found shape \(1, 1, 16, 16\); expected 2",
    ),
    "scan last": (
        changed(diffraction=np.moveaxis(good()["diffraction"], 0, 2)),
        r"shape \(16, 16, 9\); expected \(n, 16, 16\); .*`study import --axes hwn` does it",
    ),
    "too few patterns": (
        changed(diffraction=good()["diffraction"][:5]),
        "diffraction: found 5 patterns; expected 9, one per position",
    ),
    "counts": (
        changed(diffraction=np.rint(good()["diffraction"] ** 2), _metadata=np.array("{}")),
        r"whole numbers only, up to \d+: counts; .*`study import --domain counts`",
    ),
    "counts in whole numbers": (
        changed(diffraction=np.full((COUNT, SIDE, SIDE), 3, np.uint16)),
        "diffraction: found uint16; expected float32; store sqrt",
    ),
    "counts by their own word": (
        changed(_metadata=np.array('{"domain": "counts"}')),
        "_metadata: found domain 'counts'; expected 'amplitude'",
    ),
    "NaN": (
        with_value("diffraction", (4, 3, 3), np.nan),
        "diffraction: found 1 NaN or infinite, first at index 4; expected finite values",
    ),
    "infinite": (with_value("ycoords", 2, np.inf), "ycoords: found 1 NaN or infinite, .* index 2"),
    "negative": (
        with_value("diffraction", (7, 0, 0), -1),
        "diffraction: found 1 negative values, first in pattern 7; expected amplitudes >= 0",
    ),
    "no photon": (
        changed(diffraction=np.zeros((COUNT, SIDE, SIDE), np.float32)),
        "diffraction: found all zero; expected some photons",
    ),
    "dark probe": (
        changed(probeGuess=np.zeros((SIDE, SIDE), np.complex64)),
        "probeGuess: found all zero; expected some power",
    ),
    "outside": (
        with_value("xcoords", 3, 49.0),
        r"xcoords: found 1 of 9 patches outside the object, first at index 3 \(49\.0 px\); "
        "expected 8 to 42 px",
    ),
}


@pytest.mark.parametrize("case", [*WRITTEN, *SAVED])
def test_a_bad_file_is_refused_by_validate(case, tmp_path, study):
    path = tmp_path / "bad.npz"
    if case in WRITTEN:
        write, message = WRITTEN[case]
        write(path)
    else:
        arrays, message = SAVED[case]
        np.savez(path, **arrays)

    code, _, error = study("validate", path)

    assert code == 2
    assert "Traceback" not in error
    assert all("bad.npz" in line for line in error.splitlines())
    assert re.search(message, error), error
    assert list(tmp_path.iterdir()) == [path]


@pytest.mark.parametrize("case", [*WRITTEN, "missing key", "dark probe", "outside", "infinite"])
def test_a_bad_base_file_stops_a_run_before_it_starts(case, tmp_path, study):
    path = tmp_path / "bad.npz"
    if case in WRITTEN:
        WRITTEN[case][0](path)
    else:
        np.savez(path, **SAVED[case][0])

    code, _, error = study("run", "--preset", "smoke", "--base-npz", path)

    assert code == 2
    assert "bad.npz" in error
    assert list(tmp_path.iterdir()) == [path]


@pytest.mark.parametrize(
    ("arrays", "message"),
    [
        (
            with_value("diffraction", 3, 0),
            "note: diffraction: found 1 patterns without a photon: 3;",
        ),
        (
            changed(xcoords=np.full(COUNT, 20.0), ycoords=np.repeat([20.0, 21.0, 22.0], 3)),
            "note: xcoords: found 6 positions that occur before; expected every position once",
        ),
    ],
)
def test_what_may_be_meant_is_noted_and_refused_only_by_the_letter(
    arrays, message, tmp_path, study
):
    np.savez(tmp_path / "data.npz", **arrays)

    code, _, error = study("validate", "data.npz")
    strict, *_ = study("validate", "data.npz", "--strict")

    assert (code, strict) == (0, 2)
    assert message in error


def predicted(*, with_patterns: bool = True) -> dict[str, np.ndarray]:
    """A base file whose probe, object and positions predict its patterns."""
    random = np.random.default_rng(2)
    y, x = np.indices((SIDE, SIDE)) - SIDE // 2
    arrays = good() | {
        "probeGuess": (4 * np.exp(-(y**2) / 8 - (x - 1) ** 2 / 12 + 0.1j * y * x)).astype(
            np.complex64
        ),
        "objectGuess": np.exp(1j * random.uniform(-1, 1, (60, 50))).astype(np.complex64),
        "ycoords": random.uniform(10, 50, 40),
        "xcoords": random.uniform(10, 40, 40),
    }
    positions = np.stack([arrays["ycoords"], arrays["xcoords"]], axis=1)
    parts = expected_in_parts(arrays["objectGuess"], arrays["probeGuess"], positions)
    counts = np.concatenate([part.numpy() for _, part in parts])
    arrays["diffraction"] = np.sqrt(random.poisson(counts)).astype(np.float32)
    if not with_patterns:
        del arrays["diffraction"]
    return arrays


def bright_pixel(arrays: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    arrays["objectGuess"][30, 25] = 1e6
    return arrays


def times(key: str, factor: float):
    return lambda arrays: arrays | {key: (arrays[key] * np.float32(factor)).astype(np.complex64)}


UNCOMPUTABLE = {
    "one bright pixel": (bright_pixel, r"an amplitude of 1e\+06 at row 30, column 25; .*100 times"),
    "tiny object": (times("objectGuess", 1e-20), "largest amplitude of 1e-20; expected 1e-06 to"),
    "dark object": (times("objectGuess", 0), "objectGuess: found all zero; expected some power"),
    "huge object": (times("objectGuess", 1e20), r"largest amplitude of 1e\+20; expected 1e-06"),
    "huge probe": (times("probeGuess", 1e30), r"largest amplitude of 4e\+30; expected 1e-12 to"),
    "tiny probe": (times("probeGuess", 1e-30), "largest amplitude of 4e-30; expected 1e-12 to"),
    "subnormal probe": (times("probeGuess", 1e-40), "largest amplitude of 4e-40; expected 1e-12"),
    "endless probe": (times("probeGuess", np.inf), "probeGuess: found .* NaN or infinite"),
}


@pytest.mark.parametrize("case", UNCOMPUTABLE)
@pytest.mark.parametrize("with_patterns", [True, False])
def test_values_that_break_arithmetic_are_refused_by_every_command(
    case, with_patterns, tmp_path, study
):
    change, message = UNCOMPUTABLE[case]
    np.savez(tmp_path / "bad.npz", **change(predicted(with_patterns=with_patterns)))

    for words in (
        ("validate", "bad.npz", "--base"),
        ("import", "bad.npz", "new.npz", "--domain", "amplitude"),
        ("run", "--preset", "smoke", "--base-npz", "bad.npz"),
    ):
        code, _, error = study(*words)

        assert code == 2, words
        assert "Traceback" not in error
        assert words[0] == "import" or re.search(message, error), error
    assert [path.name for path in tmp_path.iterdir()] == ["bad.npz"]


def test_a_probe_of_another_scale_is_refused_and_mended_by_import(tmp_path, study):
    np.savez(tmp_path / "bad.npz", **times("probeGuess", 3)(predicted()))

    for words in (
        ("validate", "bad.npz", "--base"),
        ("run", "--preset", "smoke", "--base-npz", "bad.npz"),
    ):
        code, _, error = study(*words)

        assert code == 2
        assert "predicts 8.95" in error
        assert "times the counts of 40 of the patterns; expected 1 within 10%" in error
        assert "multiply the probe by 0.33" in error
    imported = study("import", "bad.npz", "new.npz")
    assert imported.code == 0
    assert "predict 8.95" in imported.err
    assert study("validate", "new.npz", "--base", "--strict").code == 0


def test_patterns_in_another_order_are_noted_with_both_errors(tmp_path, study):
    arrays = predicted()
    sound, shuffled = arrays["diffraction"], arrays["diffraction"][::-1].copy()
    np.savez(tmp_path / "sound.npz", **arrays)
    np.savez(tmp_path / "shuffled.npz", **arrays | {"diffraction": shuffled})
    assert not np.array_equal(sound, shuffled)

    code, _, error = study("validate", "shuffled.npz")

    assert code == 0
    assert re.search(
        r"amplitudes that miss .* by \d+%, the mean of the others misses .* by \d+%", error
    )
    assert study("validate", "sound.npz", "--strict").code == 0


def test_fewer_positions_than_neighbours_stop_a_run(tmp_path, study):
    settings = ("--set", "scan.rows=2", "--set", "scan.columns=3")

    code, _, error = study("run", "--preset", "smoke", *settings)

    assert code == 2
    assert "6 patterns; 8 are needed for K = 7 neighbours; enlarge the scan or lower" in error
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("domain", [None, "amplitude"])
def test_undeclared_patterns_are_not_guessed_on_import(domain, tmp_path, study):
    arrays = changed(diffraction=np.full((COUNT, SIDE, SIDE), 3, np.uint16))
    del arrays["_metadata"]
    np.savez(tmp_path / "data.npz", **arrays)
    flags = ("--domain", domain) if domain else ()

    code, _, error = study("import", "data.npz", "new.npz", *flags)

    said = "all values are whole numbers, as counts are" if domain else "which looks like counts"
    assert said in error
    # Patterns that are alike fit no object: what the user says is believed, the object is not.
    assert code == (1 if domain else 2)
    assert (tmp_path / "new.doubtful.npz").exists() == bool(domain)


def hdf5_pair(folder):
    """A pty-chi pair: counts in one file, probe, object and positions in the other."""
    with h5py.File(folder / "scan_dp.hdf5", "w") as file:
        file["dp"] = np.ones((COUNT, SIDE, SIDE), np.float32)
    return folder / "scan_dp.hdf5"


def test_a_truncated_hdf5_file_is_refused(tmp_path, study):
    path = hdf5_pair(tmp_path)
    path.write_bytes(path.read_bytes()[:-800])

    code, _, error = study("import", path, "new.npz", "--format", "ptychi")

    assert code == 2
    assert "scan_dp.hdf5: damaged or not an HDF5 file" in error
    assert not (tmp_path / "new.npz").exists()


def test_a_link_out_of_an_hdf5_file_is_refused_and_named(tmp_path, study):
    path = tmp_path / "scan.cxi"
    with h5py.File(tmp_path / "secret.h5", "w") as file:
        file["data"] = np.ones((COUNT, SIDE, SIDE))
    with h5py.File(path, "w") as file:
        file["entry_1/instrument_1/detector_1/data"] = h5py.ExternalLink("secret.h5", "data")

    code, _, error = study("import", path, "new.npz", "--format", "cxi")

    assert code == 2
    assert "a link to another file, 'secret.h5', is not followed" in error
    assert not (tmp_path / "new.npz").exists()


def test_bad_frames_are_refused_or_dropped_as_asked(tmp_path, study):
    arrays = good()
    for index, value in ((1, np.nan), (3, np.inf), (4, -1)):
        arrays["diffraction"][index, :10] = value
    arrays["diffraction"][6] = 0
    np.savez(tmp_path / "data.npz", **arrays)

    refused = study("import", "data.npz", "new.npz")
    there = (tmp_path / "new.npz").exists()
    dropped = study("import", "data.npz", "new.npz", "--drop-bad-frames", "--keep-all")

    assert (refused.code, there, dropped.code) == (2, False, 1)
    for fault in (
        "NaN or infinite patterns at index 1, 3",
        "negative patterns at index 4",
        "empty patterns at index 6",
    ):
        assert fault in refused.err
    assert "mend them or drop them with --drop-bad-frames" in refused.err
    assert "4 frames were left out: index 1, 3, 4, 6" in dropped.err
    # Five patterns of nine do not overlap enough for a good verdict.
    kept, _ = read_npz(tmp_path / "new.doubtful.npz")
    np.testing.assert_array_equal(kept["scan_index"], [0, 2, 5, 7, 8])
