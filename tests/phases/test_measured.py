"""A study on measured counts: reference, doses of the arms' photons, held-out measured counts."""

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from measured_data import DOSE, PHOTONS_PER_PATTERN, STUDY_SETTINGS, write_measurement
from scipy.ndimage import gaussian_filter

from study_lib.data.archive import read_npz
from study_lib.data.datasets import load_measurement
from study_lib.design.presets import load_design
from study_lib.errors import InputError
from study_lib.files import manifest_jobs, write_json
from study_lib.phases.arms import ArmResult, arms_of
from study_lib.phases.compare import compare
from study_lib.phases.conditions import read_aligned
from study_lib.phases.dataset import generate
from study_lib.phases.draws import sentences_on_measured, warnings_on_measured
from study_lib.phases.measured import HeldOutCounts, reference_of, share_of
from study_lib.phases.overlap import choose_view
from study_lib.phases.reconstruct import reconstruct
from study_lib.phases.reference import make_reference, reference_figure
from study_lib.phases.train_thinned import train_thinned
from study_lib.physics.measurement import photon_budget
from study_lib.physics.photons import SHARES
from study_lib.runs.run import Run, base_data, create_run, usual_source
from study_lib.scores.shown_tables import notes_of
from study_lib.scores.study_table import study_table

DOSES = (DOSE / 4, DOSE)


@pytest.fixture(scope="module")
def base(tmp_path_factory) -> tuple[Path, dict[str, np.ndarray]]:
    path = tmp_path_factory.mktemp("base") / "scan.npz"
    return path, write_measurement(path)


def run_of(folder: Path, base_npz: Path, *settings: str) -> Run:
    design = load_design(
        "smoke",
        [*STUDY_SETTINGS, "training=null", *settings],
        base_data(base_npz),
        source="measured",
    )
    return create_run(folder, design, base_npz)


@pytest.fixture(scope="module")
def run(tmp_path_factory, base) -> Run:
    """Two doses of the first draw, with the patterns of every view."""
    doses = f"doses=[{DOSES[0]}, {DOSES[1]}]"
    made = run_of(tmp_path_factory.mktemp("run"), base[0], doses)
    make_reference(made.condition(DOSES[0]))
    for dose in DOSES:
        generate(made.condition(dose))
        for view in made.design.views:
            choose_view(made.condition(dose, view.name))
    return made


def counts_in(path: Path) -> np.ndarray:
    return load_measurement(path).counts


def test_a_file_with_counts_is_studied_by_its_own_and_one_without_by_simulated_ones(
    base, base_file, tmp_path
):
    assert usual_source(base[0]) == "measured"
    assert usual_source(base_file()[0]) == "simulated"
    design = run_of(tmp_path, base[0]).design
    assert (design.replicates, design.trained_replicates) == (3, 1)
    assert design.patch_size_px == base[1]["diffraction"].shape[-1]
    assert load_design("smoke", ["replicates=5"], design.base, source="measured").replicates == 5


def test_each_measured_photon_goes_once_to_arms_reference_or_judge(run, base):
    parts, _ = read_npz(run.root("dataset") / "reference" / "photons.npz")
    total = sum(part.astype(np.int64) for part in parts.values())
    np.testing.assert_array_equal(total, np.round(base[1]["diffraction"].astype(float) ** 2))
    assert set(parts) == {"arms", "reference", "judge"}


@pytest.mark.parametrize("split", ["train", "test"])
def test_patterns_are_nested_thinnings_of_the_arms_photons(run, split):
    arms = read_npz(run.root("dataset") / "reference" / "photons.npz")[0]["arms"]
    files = [run.condition(dose, "baseline", split).file for dose in DOSES]
    low, high = map(counts_in, files)
    index = load_measurement(files[0]).scan_index
    assert (low <= high).all()
    assert (high <= arms[index]).all()


def test_doses_are_the_mean_over_both_splits_and_the_probe_predicts_them(run):
    for dose in DOSES:
        splits = [
            load_measurement(run.condition(dose, "baseline", one).file) for one in ("train", "test")
        ]
        amplitudes = np.concatenate([one.amplitudes for one in splits])
        photons = photon_budget(amplitudes)["photons_per_pattern_measured"]
        assert photons == pytest.approx(dose, abs=5 * np.sqrt(dose / len(amplitudes)))
        path = run.condition(dose).file
        share = share_of(read_npz(path, only=[])[1], path)
        assert share == pytest.approx(dose / PHOTONS_PER_PATTERN, rel=0.02)
        power = np.linalg.norm(splits[0].probe) ** 2
        assert 0.5 < photons / power <= 1.05  # the object absorbs the rest


def test_metadata_say_that_counts_are_measured_and_the_object_is_a_reference(run):
    _, metadata = read_npz(run.condition(DOSE).file, only=[])
    assert metadata["counts"] == "measured"
    assert "reference" in metadata["object"]
    assert [step["operation"] for step in metadata["transformations"]] == [
        "split",
        "thin",
        "canonicalise",
    ]
    assert "object_divided_by" not in metadata


def test_the_reference_is_the_specimen_up_to_its_noise_whatever_object_the_file_has(run, base):
    """The base data's object is blurred; the reference of sharp counts is not."""
    condition = run.condition(DOSE)
    truth, blurred = base[1]["truth"], base[1]["objectGuess"]
    crop, mask = condition.scored_pixels()
    of_reference, _ = condition.score_on(reference_of(condition).object_, truth, crop, mask)
    of_base, _ = condition.score_on(blurred, truth, crop, mask)
    assert of_reference["phase_ssim"] > 0.9 > of_base["phase_ssim"]


def test_the_record_of_the_reference_has_noise_algorithms_and_their_agreement(run):
    folder = run.root("dataset") / "reference"
    record = json.loads((folder / "reference.json").read_text())
    assert {record["first"], record["second"]} == {"solver", "LSQML"}
    nats = record["judge_nats_per_pattern"]
    assert nats[record["first"]] < nats[record["second"]]
    assert record["noise"]["whole_share"] == 1
    for end in record["ends"].values():
        assert end["epochs"] <= run.design.reference_epochs
        assert end["r_factor"] == pytest.approx(end["r_noise"], rel=0.3)
    assert 0.5 < record["between_algorithms"]["phase_ssim"] < 1
    assert record["photons_per_pattern"]["arms"] == pytest.approx(PHOTONS_PER_PATTERN / 2, rel=0.02)
    job = manifest_jobs(run.root("dataset") / "run_manifest.json")["reference"]
    assert job["seeds"]["photons"] == run.design.seeds.simulation
    assert set(job["outputs"]) >= {"reference/reference.npz", "reference/photons.npz"}


def test_a_reference_that_has_not_converged_is_a_warning(run, tmp_path):
    place = Path("phase_c_datasets") / "reference" / "reference.json"
    record = json.loads((run.root("dataset") / "reference" / "reference.json").read_text())
    record["ends"]["solver"] |= {"stop": "epochs used up", "epochs": 20}
    record["ends"]["LSQML"] |= {"stop": "converged"}
    write_json(tmp_path / "replicate_1" / place, record)
    (line,) = warnings_on_measured(tmp_path)
    assert "by solver has not converged in 20 epochs (R-factor" in line
    record["ends"]["solver"] |= {"stop": "converged"}
    write_json(tmp_path / "replicate_1" / place, record)
    assert warnings_on_measured(tmp_path) == []


def test_equal_seeds_give_equal_files_and_another_draw_another_share(run, base, tmp_path):
    again = run_of(tmp_path / "again", base[0], f"doses=[{DOSE}]")
    make_reference(again.condition(DOSE))
    generate(again.condition(DOSE))
    one, two = (counts_in(each.condition(DOSE).file) for each in (run, again))
    assert one.tobytes() == two.tobytes()  # and whatever other doses a run has
    other = Run(tmp_path / "other", again.design.repetitions[1])
    condition = replace(other.condition(DOSE), base_npz=base[0])
    make_reference(condition)
    generate(condition)
    assert counts_in(condition.file).tobytes() != one.tobytes()
    arms = [
        read_npz(each.root("dataset") / "reference" / "photons.npz")[0]["arms"]
        for each in (again, other)
    ]
    measured = np.round(base[1]["diffraction"].astype(float) ** 2)
    np.testing.assert_array_equal(arms[0] + arms[1], measured)


def test_at_a_dose_per_area_a_view_of_fewer_patterns_has_more_of_the_arms_photons(base, tmp_path):
    run = run_of(tmp_path, base[0], "dose_per=pixel", "doses=[100]")
    make_reference(run.condition(100.0))
    generate(run.condition(100.0))
    for view in ("baseline", "sparse"):
        choose_view(run.condition(100.0, view))
    whole, sparse = (run.condition(100.0, view).measurement() for view in ("baseline", "sparse"))
    kept = np.isin(whole.scan_index, sparse.scan_index)
    assert (sparse.counts >= whole.counts[kept]).all()
    totals = [one.counts.sum() for one in (whole, sparse)]
    assert totals[1] == pytest.approx(totals[0], rel=0.02)
    ratio = np.linalg.norm(sparse.probe) ** 2 / np.linalg.norm(whole.probe) ** 2
    assert ratio == pytest.approx(len(whole.scan_index) / len(sparse.scan_index), rel=0.02)


def test_values_that_are_no_whole_counts_are_refused(tmp_path):
    path = tmp_path / "gain.npz"
    write_measurement(path, counted=lambda counts: 1.37 * counts)
    run = run_of(tmp_path / "run", path)
    with pytest.raises(InputError, match=r"whole numbers; at least 99 %.*--simulated"):
        make_reference(run.condition(DOSE))


def test_noise_that_is_not_poisson_is_said(tmp_path):
    path = tmp_path / "gain.npz"
    write_measurement(path, counted=lambda counts: 3 * counts)
    noise = make_reference(run_of(tmp_path / "run", path).condition(DOSE))["noise"]
    assert noise["is_poisson"] is False
    assert noise["dispersion_neighbouring"] > 2.5
    assert "all of them are multiples of 3" in noise["sentence"]
    assert "NOT Poisson" in noise["sentence"]


def test_no_reference_is_made_for_simulated_counts(tiny_run):
    with pytest.raises(InputError, match="a reference is made of measured counts"):
        make_reference(tiny_run.condition(1e4))


# --- Masks of each pattern that hide too much of the detector from an algorithm with one for all


@pytest.fixture(scope="module")
def masked_run(tmp_path_factory) -> Run:
    folder = tmp_path_factory.mktemp("masked")
    write_measurement(folder / "scan.npz", each_masked=True)
    return run_of(folder / "run", folder / "scan.npz", "iterative.algorithms=[solver]")


def test_a_reference_is_made_by_the_algorithm_that_takes_the_masks_and_says_so(masked_run):
    condition = masked_run.condition(DOSE)
    record = make_reference(condition)

    assert (record["first"], record["second"]) == ("solver", None)
    assert record["between_algorithms"].keys() == {"why_none"}
    why = "LSQML takes one mask for all patterns, and pixels that are bad in any pattern are 0.62"
    assert why in record["between_algorithms"]["why_none"]
    log = (condition.folder("reference") / "reference.log").read_text()
    assert f"reference by LSQML is left out: pty-chi's {why}" in log
    _, sentence = sentences_on_measured(masked_run.folder, masked_run.design)
    assert "solver (draw 0) alone, and how far another algorithm agrees with it is not" in sentence
    assert why in sentence
    assert "better" not in sentence
    assert "by solver alone" in reference_figure(condition).get_suptitle()


def test_without_a_second_reference_no_number_is_held_against_one(masked_run):
    condition = masked_run.condition(DOSE, "baseline")
    if not (condition.folder("reference") / "reference.npz").is_file():
        make_reference(condition)
    generate(condition)
    choose_view(condition)
    for split in ("train", "test"):
        reconstruct(masked_run.condition(DOSE, "baseline", split))

    rows = compare(condition)

    assert [row["arm"] for row in rows] == ["solver", "solver-denoised"]
    assert all(row["measured_excess_nats"] is not None for row in rows)
    assert not [name for name in rows[0] if "second_reference" in name]
    arrays, _ = read_aligned(condition.folder("compare"))
    assert "second_reference" not in arrays
    (table,) = [study_table(rows)]
    assert not [note for note in notes_of(table) if "2nd reference" in note]


# --- Held-out measured counts


def test_held_out_counts_rank_a_better_object_first_and_need_no_reference(run, base):
    condition = run.condition(DOSE, "sparse")
    measurement = condition.measurement()
    share = share_of(read_npz(condition.file, only=[])[1], condition.file)
    judge = HeldOutCounts(condition, measurement, share, reference_of(condition))
    truth = base[1]["truth"]
    worse = [
        gaussian_filter(truth.real, sigma) + 1j * gaussian_filter(truth.imag, sigma)
        for sigma in (0.5, 1.0, 2.0)
    ]
    for column in ("measured_excess_nats", "measured_excess_left_out_nats"):
        excess = [judge.scores(_as_reference(one, condition))[column] for one in (truth, *worse)]
        assert excess == sorted(excess), column
        assert excess[0] < 5, column  # as likely as the reference, which was made for its probe
    of_reference = judge.scores(reference_of(condition).object_)
    assert of_reference["measured_excess_nats"] == 0


def _as_reference(object_: np.ndarray, condition) -> np.ndarray:
    """Return an object with the scale of the reference, whose probe is as much stronger."""
    crop, mask = condition.scored_pixels()
    given, own = reference_of(condition).object_[crop][mask], object_[crop][mask]
    return (object_ * (np.vdot(own, given) / np.vdot(own, own))).astype(np.complex64)


def test_an_arms_own_probe_is_scaled_to_the_judges_photons(run):
    condition = run.condition(DOSE, "sparse")
    measurement, reference = condition.measurement(), reference_of(condition)
    share = share_of(read_npz(condition.file, only=[])[1], condition.file)
    judge = HeldOutCounts(condition, measurement, share, reference)
    own = judge.scores(reference.object_, measurement.probe)
    assert own["measured_excess_nats"] == pytest.approx(0, abs=1e-3)
    weaker = judge.scores(reference.object_, measurement.probe * np.float32(0.9))
    assert weaker["measured_excess_nats"] > 10


def test_probes_are_scaled_to_the_judges_photons_whatever_share_those_are(run, monkeypatch):
    """Reference and arm have one probe, but for their photons: neither explains counts better."""
    monkeypatch.setitem(SHARES, "judge", 0.1)
    condition = run.condition(DOSE, "sparse")
    measurement, reference = condition.measurement(), reference_of(condition)
    share = share_of(read_npz(condition.file, only=[])[1], condition.file)
    judge = HeldOutCounts(condition, measurement, share, reference)
    own = judge.scores(reference.object_, measurement.probe)
    assert own["measured_excess_nats"] == pytest.approx(0, abs=1e-2)


def test_all_arms_are_judged_by_the_same_measured_counts(run, monkeypatch):
    """An arm that hands back the reference has no excess; one that is flat has much."""
    condition = run.condition(DOSE, "sparse")
    reference = reference_of(condition)

    def arm(object_: np.ndarray):
        return lambda condition, measurement, _: ArmResult(
            "an arm", "probe of the reference", object_, measurement.scan_index, 0.0, 0.0, ()
        )

    monkeypatch.setattr(
        "study_lib.phases.compare.arms_of",
        lambda design: {
            "same": arm(reference.object_),
            "second": arm(reference.second_object),
            "flat": arm(np.ones_like(reference.object_)),
        },
    )
    rows = {row["arm"]: row for row in compare(condition)}
    assert rows["same"]["measured_excess_nats"] == 0
    assert rows["second"]["phase_psnr_db_second_reference"] > 100  # it is that one
    assert rows["flat"]["measured_excess_nats"] > 20
    assert rows["flat"]["measured_excess_left_out_nats"] > 20
    assert "held_out_excess_nats" not in rows["same"]
    parts, _ = read_npz(run.root("dataset") / "reference" / "photons.npz", only=["reference"])
    of_reference = parts["reference"][load_measurement(condition.whole_file).scan_index].sum()
    expected = np.sqrt(1 + condition.measurement().counts.sum() / of_reference)
    for row in rows.values():  # errors of independent photons add in squares
        both, own = row["both_limits_phase_rad"], row["photon_limit_phase_rad"]
        assert both / own == pytest.approx(expected, rel=0.01)
        assert row["phase_error_over_both_limits"] * both == pytest.approx(
            row["phase_mse_rad2"] ** 0.5
        )
    assert {row["source"] for row in rows.values()} == {"measured"}
    arrays, _ = read_aligned(condition.folder("compare"))
    assert {"reference", "second_reference"} <= arrays.keys()
    assert "truth" not in arrays


def test_a_whole_view_has_no_positions_that_it_left_out(run):
    condition = run.condition(DOSE, "baseline")
    measurement = condition.measurement()
    share = share_of(read_npz(condition.file, only=[])[1], condition.file)
    reference = reference_of(condition)
    scores = HeldOutCounts(condition, measurement, share, reference).scores(reference.object_)
    assert scores["measured_excess_left_out_nats"] is None


def test_arms_say_that_they_are_given_the_probe_of_the_reference(run):
    condition = run.condition(DOSE, "baseline", "train")
    results = reconstruct(condition)
    assert {found["knows"] for found in results.values()} == {
        "probe of the reference, positions; uniform start"
    }


# --- Views that hold the same patterns


def test_a_view_with_the_same_patterns_takes_what_was_computed_of_them(run):
    """The scan does not reach the dense view's overlap, so that it keeps every pattern."""
    results = {}
    for view in ("baseline", "dense"):
        for split in ("train", "test"):
            results[view, split] = reconstruct(run.condition(DOSE, view, split))
        train_thinned(run.condition(DOSE, view))
    for split in ("train", "test"):
        for arm, found in results["dense", split].items():
            assert found["taken_from_view"] == "baseline", arm
            one, two = (
                read_npz(
                    run.condition(DOSE, view, split).folder("reconstruct")
                    / arm
                    / "reconstruction.npz"
                )[0]["object"]
                for view in ("baseline", "dense")
            )
            np.testing.assert_array_equal(one, two)
    rows = {view: compare(run.condition(DOSE, view)) for view in ("baseline", "dense")}
    for one, two in zip(*rows.values(), strict=True):
        assert one["patterns_sha256"] == two["patterns_sha256"]
        assert one["phase_ssim"] == two["phase_ssim"], one["arm"]
        assert one["training_cpu_s"] == two["training_cpu_s"]
    assert {row["arm"] for row in rows["dense"]} == set(arms_of(run.design))


def test_a_view_with_other_patterns_takes_nothing(run):
    results = reconstruct(run.condition(DOSE, "sparse", "train"))
    assert all("taken_from_view" not in found for found in results.values())
