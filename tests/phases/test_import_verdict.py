"""An import says whether it worked: through the command, on scans of a model of the tests' own."""

from dataclasses import replace

import numpy as np
import pytest
from simulated_scan import DETECTOR_PIXEL_M, PIXEL_M, SIDE, Scan, made_probe

from study_lib.data.contract import load_dataset
from study_lib.data.formats.acquisition import Acquisition
from study_lib.data.verdict import verdict_in
from study_lib.files import read_json
from study_lib.phases.import_fit import floor_of
from study_lib.phases.import_verdict import ImportFacts, Turn, explained_share, judged
from study_lib.runs.run import base_data

FACTS = ImportFacts(
    patterns=100,
    positions_apart_px=6.0,
    overlap=0.7,
    overlap_linear=0.75,
    neighbours=12.0,
    field_px=64,
    probe_diameter_px=25.0,
    probe_share_at_edge=0.001,
    masked_share=0.0,
    r_start=0.4,
    r_end=0.05,
    r_noise=0.05,
    stop="converged",
    epochs=120,
)


@pytest.fixture(scope="module")
def scan():
    return Scan()


def r_factors(printed):
    """The three R-factors that an import prints: at the start, at the end, of noise."""
    line = next(line for line in printed.splitlines() if "R-factor" in line)
    words = line.replace("(", " ").replace(")", " ").split()
    numbers = [float(word) for word in words if word.startswith("0.")]
    return numbers[:3]


def test_a_good_scan_converges_to_its_noise_by_default_and_is_called_good(scan, study, tmp_path):
    scan.write_cxi(tmp_path / "scan.cxi", images=False)

    code, printed, error = study("import", "scan.cxi", "base.npz")

    start, end, noise = r_factors(printed)
    assert code == 0, error
    assert "verdict: good" in printed
    assert "; converged after" in printed
    assert end == pytest.approx(scan.r_of(tmp_path / "base.npz"), abs=1e-3)
    assert noise == pytest.approx(scan.noise_r(), rel=0.15)
    assert end < 1.15 * noise < start
    assert (tmp_path / "base.png").stat().st_size > 10_000
    known = load_dataset(tmp_path / "base.npz")[1]["import_verdict"]["facts"]
    totals = scan.counts.sum(axis=(1, 2))
    assert known["photons_per_pattern"] == pytest.approx(
        [totals.min(), np.median(totals), totals.max()], rel=1e-6
    )
    assert known["field_m"] == pytest.approx(SIDE * PIXEL_M, rel=1e-6)
    # The field of view is wavelength * distance / pixel; its square over both is the number.
    wavelength_times_distance = PIXEL_M * SIDE * DETECTOR_PIXEL_M
    assert known["fresnel_number"] == pytest.approx(
        known["field_m"] ** 2 / wavelength_times_distance, rel=1e-6
    )


def hot(counts):
    counts[:, 3, 26] = 30_000
    return "1 pixel has the same count in every frame: (3, 26)"


def cosmic(counts):
    counts[11, 2:5, 4:7] = 2_000_000
    return "frame 11: values over 20 times what the same pixels reach in other frames"


def bright(counts):
    counts[50] *= 40
    return "frame 50: "


def saturated(counts):
    np.minimum(counts, 4000, out=counts)
    return "of all values lie on a plateau at 4000, the largest"


def gap(counts):
    counts[:, :, 20:22] = np.iinfo(np.uint32).max
    return "64 pixels have the largest number of its type in every frame: (0, 20), (0, 21)"


@pytest.mark.parametrize("harm", [hot, cosmic, bright, saturated, gap])
def test_a_fault_of_the_detector_is_named_and_costs_nothing(harm, scan, study, tmp_path):
    counts = scan.counts.copy()
    said = harm(counts)
    scan.write_cxi(tmp_path / "scan.cxi", counts=counts, images=False)

    code, printed, error = study("import", "scan.cxi", "base.npz")

    _, end, noise = r_factors(printed)
    assert code == 0, printed
    assert said in error
    assert "verdict: good" in printed
    assert end < 1.15 * noise


def block(counts, rng):
    counts[:, 4:8, 24:28] += rng.poisson(300, (len(counts), 4, 4)).astype(np.uint32)
    return "detector pixels (4-7, 24-27) have counts that the object would spread"


def in_the_beam(counts, rng):
    counts[:, 16, 16] += rng.poisson(20_000, len(counts)).astype(np.uint32)
    return "detector pixels (16, 16) have counts that the object would spread"


@pytest.mark.parametrize("harm", [block, in_the_beam, None])
def test_hot_pixels_that_look_like_light_are_named_once_there_is_a_model(
    harm, scan, study, tmp_path, rng
):
    counts = scan.counts.copy()
    said = harm(counts, rng) if harm else ""
    scan.write_cxi(tmp_path / "scan.cxi", counts=counts, images=False)

    _, printed, _ = study("import", "scan.cxi", "base.npz", "--epochs", "150")

    assert said in printed
    assert ("would spread" in printed) == (harm is not None)


def test_dark_frames_are_part_of_both_models(study, tmp_path, rng):
    scan = Scan(background=5.0)
    dark = rng.poisson(5.0, (50, SIDE, SIDE))
    scan.write_cxi(tmp_path / "scan.cxi", images=False, data_dark=dark)

    code, printed, error = study("import", "scan.cxi", "base.npz", "--check")

    assert code == 0, error
    found = read_json(tmp_path / "base.check.json")["algorithms"]
    _, end, noise = r_factors(printed)
    assert found["solver"]["r_factor"] == pytest.approx(end, rel=0.02)
    assert found["LSQML"]["r_factor"] < 1.3 * noise


@pytest.mark.parametrize("words", [[], ["--refine-background"]])
def test_counts_in_every_pixel_that_nobody_declared_are_suspected(words, study, tmp_path):
    """They are 1.0 % of the counts; where the model has them there is no doubt any more."""
    Scan(background=3.0).write_cxi(tmp_path / "scan.cxi", images=False)

    _, printed, _ = study("import", "scan.cxi", "base.npz", *words)

    if words:
        assert "verdict: good" in printed
        assert "in every pixel" not in printed
    else:
        assert "verdict: doubtful: 2.8 counts are in every pixel of every pattern alike" in printed
        assert "--dark, or take --refine-background" in printed


GOOD_SCANS = {
    "strong": {},
    "faint": {"photons": 300.0},
    "defocused": {"defocus_rad": 0.06},
    "on a coarse grid": {"step": 6},
    "of a grating": {"grating": True},
}


@pytest.mark.parametrize("how", GOOD_SCANS.values(), ids=GOOD_SCANS)
def test_diffracted_light_is_no_floor_and_a_floor_under_it_is(how, rng):
    """Of the dimmest pixels the mean is a little below the floor: so they were chosen."""
    rates = rates_of(**how)

    assert floor_of(counted(rng.poisson(rates))) == (0, 0)
    counts = rng.poisson(rates + 1)
    level, share = floor_of(counted(counts))
    assert level == pytest.approx(1, rel=0.2)
    assert share == pytest.approx(1 / counts.mean(), rel=0.2)
    # What is masked is in neither number, hot as it may be.
    masked = np.zeros(counts.shape[1:], bool)
    masked[:6] = True
    hot = np.where(masked, 10**6, counts)
    level, share = floor_of(replace(counted(hot), bad_pixels=masked))
    assert level == pytest.approx(1, rel=0.2)
    assert share == pytest.approx(1 / counts[:, ~masked].mean(), rel=0.2)


def rates_of(photons=2e5, defocus_rad=0.0, step=4, grating=False):
    """Expected counts of the scan of these tests, by other probes, steps and objects."""
    y, x = np.mgrid[:SIDE, :SIDE] - SIDE // 2
    probe = made_probe() * np.exp(1j * defocus_rad * (y**2 + x**2)) * np.sqrt(photons / 2e5)
    scan = Scan(probe=probe, step=step)
    if grating:
        columns = np.arange(scan.object_.shape[1])
        scan.object_ = np.broadcast_to(0.6 + 0.4 * np.sign(np.sin(columns)), scan.object_.shape)
    return scan.expected(probe, scan.object_, scan.positions)


def counted(counts):
    return Acquisition(np.zeros((len(counts), 2)), amplitudes=np.sqrt(counts).astype(np.float32))


def test_too_few_epochs_are_said_to_be_too_few(scan, study, tmp_path):
    scan.write_cxi(tmp_path / "scan.cxi", images=False)

    code, printed, _ = study("import", "scan.cxi", "base.npz", "--epochs", "3")

    assert code == 0
    assert "not converged in 3 epochs: R-factor ." in printed
    assert "raise --epochs" in printed
    assert "verdict: doubtful: " in printed


TURNS = {
    "x and y exchanged": (lambda m: m[:, [1, 0, 2]], ["--swap-xy"]),
    "y turned": (lambda m: m * [1, -1, 1], ["--flip-y"]),
    "x turned": (lambda m: m * [-1, 1, 1], ["--flip-y"]),  # both signs at once are none
    "exchanged and turned": (lambda m: m[:, [1, 0, 2]] * [1, -1, 1], ["--swap-xy", "--flip-y"]),
}


@pytest.mark.parametrize(("turn", "options"), TURNS.values(), ids=TURNS)
def test_turned_axes_are_wrong_and_the_options_that_mend_them_do(
    turn, options, scan, study, tmp_path, monkeypatch
):
    monkeypatch.setattr(Scan, "metres", property(lambda self: turn(Scan_metres(self))))
    scan.write_cxi(tmp_path / "scan.cxi", images=False)

    code, printed, _ = study("import", "scan.cxi", "base.npz")
    again, mended, _ = study("import", "scan.cxi", "base.npz", *options, "--overwrite")

    assert code == 1
    assert f"({' '.join(options)}" in printed
    assert "explain some of the patterns better" in printed
    assert again == 0
    assert "verdict: good" in mended
    assert r_factors(mended)[1] < 0.7 * r_factors(printed)[1]


Scan_metres = Scan.metres.fget


def test_both_signs_turned_is_the_turned_conjugate_and_as_good(scan, study, tmp_path, monkeypatch):
    monkeypatch.setattr(Scan, "metres", property(lambda self: -Scan_metres(self)))
    scan.write_cxi(tmp_path / "scan.cxi", images=False)

    code, printed, _ = study("import", "scan.cxi", "base.npz")

    assert (code, "verdict: good" in printed) == (0, True)


@pytest.mark.parametrize("first", [Turn(), Turn(swap=True, sign_x=-1), Turn(sign_y=-1)])
@pytest.mark.parametrize("second", [Turn(swap=True), Turn(swap=True, sign_y=-1), Turn(sign_x=-1)])
def test_two_turns_one_after_the_other_are_one(first, second, rng):
    places = rng.normal(size=(5, 2))

    np.testing.assert_array_equal(second.after(first).of(places), second.of(first.of(places)))


def test_what_is_judged_wrong_lies_beside_the_name_and_is_no_base_unless_accepted(
    scan, study, tmp_path
):
    wrong = replace_object(scan, scan.object_.conj())
    wrong.write_cxi(tmp_path / "scan.cxi")

    code, printed, _ = study("import", "scan.cxi", "base.npz")
    settings = ["--set", "patch_size_px=16", "--set", "scan.kind=measured", "--simulated"]
    settings += ["--set", "views=[{name: baseline, gridsize: 1}]"]
    plan = ["plan", "--preset", "smoke", *settings, "--base-npz", "base.doubtful.npz"]
    refused, _, why = study(*plan)
    accepted, _, said = study(*plan, "--accept-doubtful")

    assert code == 1
    assert not (tmp_path / "base.npz").exists()
    assert "the complex conjugate" in printed
    start, end, noise = r_factors(printed)
    assert end == pytest.approx(scan.r_of(tmp_path / "base.doubtful.npz"), abs=1e-3)
    assert end > start > noise
    assert refused == 2
    assert "its import was judged wrong: the object explains hardly anything" in why
    assert "--accept-doubtful" in why
    assert accepted == 0, said
    assert "base.doubtful.npz: warning: the object explains" in said
    metadata = load_dataset(tmp_path / "base.doubtful.npz")[1]
    assert verdict_in(metadata).level == "wrong"
    assert base_data(tmp_path / "base.doubtful.npz", accept_doubtful=True).doubts


@pytest.mark.parametrize("wrong", ["the object", "the probe"])
def test_of_two_given_arrays_the_conjugate_one_is_named(wrong, scan, study, tmp_path):
    other = replace_object(scan, scan.object_.conj() if wrong == "the object" else scan.object_)
    other.probe = scan.probe.conj() if wrong == "the probe" else scan.probe
    other.write_cxi(tmp_path / "scan.cxi")

    code, printed, _ = study("import", "scan.cxi", "base.npz")

    assert code == 1
    assert f"the complex conjugate of {wrong} explains the patterns better" in printed


def replace_object(scan, object_):
    """The same counts with another object in the file."""
    other = Scan()
    other.object_ = object_
    return other


def test_object_and_probe_of_the_file_are_judged_by_a_check_too(scan, study, tmp_path):
    other = replace_object(scan, np.exp(1j * np.angle(scan.object_) * 0.6))
    other.write_cxi(tmp_path / "scan.cxi")

    code, printed, _ = study("import", "scan.cxi", "base.npz", "--check", "--epochs", "60")

    assert code == 1
    assert "a reconstruction from the same patterns reaches" in printed
    assert "--ignore object,probe" in printed


def test_files_that_are_there_are_replaced_only_if_asked(scan, study, tmp_path):
    scan.write_cxi(tmp_path / "scan.cxi")
    (tmp_path / "base.png").write_text("a picture of mine")

    code, _, error = study("import", "scan.cxi", "base.npz")
    before = (tmp_path / "base.png").read_text()
    again, _, _ = study("import", "scan.cxi", "base.npz", "--overwrite")

    assert (code, again) == (2, 0)
    assert "base.png: already there; give another name, or replace with --overwrite" in error
    assert before == "a picture of mine"


def test_a_wrong_import_leaves_a_good_one_of_its_name_alone(scan, study, tmp_path):
    scan.write_cxi(tmp_path / "scan.cxi")
    replace_object(scan, scan.object_.conj()).write_cxi(tmp_path / "wrong.cxi")

    good = study("import", "scan.cxi", "base.npz")
    kept = {path.name: path.read_bytes() for path in tmp_path.glob("base.*")}
    wrong = study("import", "wrong.cxi", "base.npz", "--overwrite")
    names = sorted(path.name for path in tmp_path.glob("base.*"))
    again = study("import", "scan.cxi", "base.npz", "--overwrite")

    assert (good.code, wrong.code, again.code) == (0, 1, 0)
    assert names == ["base.doubtful.npz", "base.doubtful.png", "base.npz", "base.png"]
    assert sorted(kept) == sorted(path.name for path in tmp_path.glob("base.*"))
    assert kept["base.npz"] == (tmp_path / "base.npz").read_bytes()


def test_an_import_never_writes_over_its_source(scan, study, tmp_path):
    replace_object(scan, scan.object_.conj()).write_cxi(tmp_path / "scan.cxi")
    study("import", "scan.cxi", "base.npz")
    before = (tmp_path / "base.doubtful.npz").read_bytes()

    code, _, error = study(
        "import", "base.doubtful.npz", "base.npz", "--ignore", "object,probe", "--overwrite"
    )

    assert code == 2
    assert "base.doubtful.npz is what an import of that name may write" in error
    assert (tmp_path / "base.doubtful.npz").read_bytes() == before


def test_a_background_is_no_light_that_an_object_explains(study, tmp_path, rng):
    """A wrong object beside dark frames is as wrong as without; the right one is good."""
    scan = Scan(background=10.0)
    dark = rng.poisson(10.0, (100, SIDE, SIDE))
    scan.write_cxi(tmp_path / "right.cxi", data_dark=dark)
    scan.object_ = scan.object_.conj()
    scan.write_cxi(tmp_path / "wrong.cxi", data_dark=dark)

    right = study("import", "right.cxi", "right.npz")
    wrong = study("import", "wrong.cxi", "wrong.npz")

    assert (right.code, wrong.code) == (0, 1)
    assert "the complex conjugate" in wrong.out
    assert r_factors(right.out)[0] == pytest.approx(r_factors(wrong.out)[0], rel=0.02)


def test_patterns_that_share_no_light_are_refused_before_any_epoch(scan, study, tmp_path):
    """A near field: positions in the scale of the detector, which the far field does not have."""
    far = Scan()
    far.positions = scan.positions
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Scan, "metres", property(lambda self: 20 * Scan_metres(self)))
        far.write_cxi(tmp_path / "scan.cxi", images=False)

    code, _, error = study("import", "scan.cxi", "base.npz")

    assert code == 2
    assert "so that next to nothing overlaps" in error
    assert "near-field holograms of a parallel beam (Fresnel number of the detector" in error


def test_patterns_without_a_photon_scale_have_no_noise_to_compare_with(acquisition):
    assert judged(replace(FACTS, r_noise=None)).level == "good"


VERDICTS = {
    "noise alone is left": ({}, "good", ""),
    "nothing is explained": ({"r_end": 0.39}, "wrong", "the object explains hardly anything"),
    "worse than nothing": ({"r_end": 0.5}, "wrong", "the object explains hardly anything"),
    "half is explained": ({"r_end": 0.2}, "doubtful", "much of the patterns is not explained"),
    "noise from the start": (
        {"r_start": 0.052, "r_end": 0.05},
        "doubtful",
        "the patterns show hardly more than noise",
    ),
    "not converged": (
        {"r_end": 0.1, "stop": "epochs used up", "epochs": 60},
        "doubtful",
        "not converged in 60 epochs",
    ),
    "no overlap": ({"overlap": 0.001}, "wrong", "neighbours overlap by 0.1% of the probe's disc"),
    "little overlap": ({"overlap": 0.06}, "doubtful", "neighbours overlap by 6.0%"),
    "probe cut off": (
        {"probe_share_at_edge": 0.2},
        "doubtful",
        "20% of the probe lies at the edge",
    ),
    "a floor": (
        {"floor_counts": 3.0, "floor_share": 0.03},
        "doubtful",
        "3 counts are in every pixel of every pattern alike, 3.0% of all",
    ),
    "mostly masked": ({"masked_share": 0.6}, "doubtful", "60% of the values are masked"),
    "masked the wrong way round": ({"masked_share": 0.98}, "wrong", "is to be inverted"),
    "nearer than noise": (
        {"r_end": 0.02},
        "doubtful",
        "no plain counts, but scaled, averaged or mostly masked",
    ),
    "a bad frame": ({"far_frames": (11,)}, "doubtful", "frame 11: explained far worse"),
    "a loud pixel": (
        {"loudest_pixel": (5, 50), "loudest_share": 0.3},
        "doubtful",
        "detector pixel (5, 50) has 30% of the misfit",
    ),
    "halves that differ": ({"halves_agree": False}, "doubtful", "agree at no frequency"),
}


@pytest.mark.parametrize(("change", "level", "words"), VERDICTS.values(), ids=VERDICTS)
def test_every_doubt_has_its_reason(change, level, words):
    verdict = judged(replace(FACTS, **change))

    assert verdict.level == level
    assert words in str(verdict)


def test_the_share_explained_runs_from_a_uniform_object_to_noise():
    assert explained_share(FACTS) == pytest.approx(1)
    assert explained_share(replace(FACTS, r_end=0.4)) == pytest.approx(0)
    assert explained_share(replace(FACTS, r_end=0.225)) == pytest.approx(0.5)
