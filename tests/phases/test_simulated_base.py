"""A measurement with simulated counts: Poisson counts of its model, and nothing else changed."""

import numpy as np
import pytest
from simulated_scan import Scan, made_probe

from study_lib.data.contract import load_dataset, save_dataset
from study_lib.files import sha256_of
from study_lib.runs.run import base_data, usual_source

BACKGROUND = 0.5
BAD = (3, 8, 9)  # pattern, row, column


@pytest.fixture(scope="module")
def modes():
    """Two orthogonal modes of .8 and .2 of the light."""
    first = made_probe()
    second = np.roll(first, 5, axis=1) * np.exp(1j)
    second -= first * np.vdot(first, second) / np.vdot(first, first)
    second *= np.linalg.norm(first) / np.linalg.norm(second)
    return np.stack([first * 0.8**0.5, second * 0.2**0.5])


@pytest.fixture(scope="module")
def measured(tmp_path_factory, modes):
    """Base data with modes, background and a mask; their counts are twice what the model says."""
    scan = Scan(modes, background=BACKGROUND)
    masks = np.zeros(scan.counts.shape, bool)
    masks[BAD] = True
    counts = np.where(masks, 0, 2 * scan.counts)
    path = tmp_path_factory.mktemp("measured") / "scan.npz"
    arrays = {
        "diffraction": np.sqrt(counts).astype(np.float32),
        "probeGuess": modes.astype(np.complex64),
        "objectGuess": scan.object_.astype(np.complex64),
        "ycoords": scan.positions[:, 0].astype(float),
        "xcoords": scan.positions[:, 1].astype(float),
        "background": np.full(masks.shape[1:], BACKGROUND, np.float32),
        "bad_pixels": masks,
    }
    save_dataset(path, arrays, {"domain": "amplitude"}, base=True)
    return path


def simulated(study, source, target, *options):
    done = study("simulate", source, target, *options)
    assert done.code == 0, done.err
    arrays, metadata = load_dataset(target)
    return np.round(arrays["diffraction"].astype(float) ** 2), arrays, metadata


def test_counts_are_poisson_counts_of_the_model_and_not_of_what_was_measured(
    study, measured, modes, tmp_path
):
    counts, _, _ = simulated(study, measured, tmp_path / "simulated.npz")
    scan = Scan(modes)
    rates = scan.rates + BACKGROUND
    valid = np.ones(rates.shape, bool)
    valid[BAD] = False
    total = rates[valid].sum()
    assert abs(counts[valid].sum() - total) < 5 * np.sqrt(total)
    bright = valid & (rates > 20)
    dispersion = ((counts - rates) ** 2 / rates)[bright].mean()
    assert dispersion == pytest.approx(1, abs=5 * np.sqrt(2 / bright.sum()))
    assert counts[BAD] == 0


def test_all_but_the_counts_is_as_it_was_and_the_file_says_of_what_it_is(study, measured, tmp_path):
    _, arrays, metadata = simulated(study, measured, tmp_path / "simulated.npz")
    before, _ = load_dataset(measured)
    for name in before.keys() - {"diffraction"}:
        np.testing.assert_array_equal(arrays[name], before[name], err_msg=name)
    assert metadata["source_format"] == "simulated counts of scan.npz"
    base = base_data(tmp_path / "simulated.npz")
    assert base.simulated_from == sha256_of(measured)
    assert base_data(measured).simulated_from is None
    assert usual_source(tmp_path / "simulated.npz") == "measured"
    assert (tmp_path / "simulated.png").is_file()


def test_a_seed_gives_the_same_counts_again_and_another_seed_others(study, measured, tmp_path):
    first, again, other = (
        simulated(study, measured, tmp_path / f"{name}.npz", "--seed", str(seed))[0]
        for name, seed in (("first", 1), ("again", 1), ("other", 2))
    )
    np.testing.assert_array_equal(first, again)
    assert (first != other).mean() > 0.2


def test_what_has_no_counts_or_would_be_lost_is_refused(study, measured, tmp_path):
    arrays, metadata = load_dataset(measured)
    bare = {key: array for key, array in arrays.items() if key != "diffraction"}
    save_dataset(tmp_path / "bare.npz", bare, metadata, base=True)
    refused = study("simulate", tmp_path / "bare.npz", tmp_path / "target.npz")
    assert refused.code == 2
    assert "no patterns" in refused.err
    assert not list(tmp_path.glob("target*"))
    assert study("simulate", measured, measured).code == 2
    (tmp_path / "there.npz").write_bytes(b"mine")
    assert study("simulate", measured, tmp_path / "there.npz").code == 2
    assert (tmp_path / "there.npz").read_bytes() == b"mine"


@pytest.mark.parametrize(
    ("level", "code", "name"), [("doubtful", 0, "o"), ("wrong", 1, "o.doubtful")]
)
def test_simulated_counts_are_no_more_believed_than_the_measurement(
    level, code, name, study, measured, tmp_path
):
    arrays, metadata = load_dataset(measured)
    said = {"level": level, "reasons": ["of another scan"]}
    before = {"transformations": [{"operation": "leave out frames", "parameters": {}}]}
    save_dataset(
        tmp_path / "in.npz", arrays, {**metadata, "import_verdict": said, **before}, base=True
    )

    done = study("simulate", tmp_path / "in.npz", tmp_path / "o.npz")

    assert done.code == code
    assert f"verdict: {level}: the measurement: of another scan" in done.out
    _, written = load_dataset(tmp_path / f"{name}.npz")
    assert written["import_verdict"]["level"] == level
    assert [one["operation"] for one in written["transformations"]] == [
        "leave out frames",
        "counts simulated",
    ]
    assert ((tmp_path / "o.npz").exists()) == (level != "wrong")
