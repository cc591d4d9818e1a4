"""Views keep what arms then read, reach their targets or say so, and are the same at every dose."""

import re
import shutil
from itertools import combinations
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from command_line import exit_code
from tiny_runs import generated, moved, with_views

from study_lib.data.contract import load_dataset
from study_lib.design.axes import SPLITS
from study_lib.design.models import StudyDesign
from study_lib.design.presets import load_design, parse_design
from study_lib.errors import InputError
from study_lib.files import read_json, sha256_of
from study_lib.overlap.metrics import disc_overlap, image_overlap
from study_lib.overlap.views import (
    SELECTION_STEP,
    TARGET_TOLERANCE,
    overlap_sentence,
    view_of,
    view_record_of,
)
from study_lib.phases.conditions import Condition
from study_lib.phases.overlap import choose_view
from study_lib.phases.scene import scene_of
from study_lib.physics.probe import probe_diameter_px, probe_fwhm_px
from study_lib.runs.run import Run

DOSE = 1e4


def positions_in(arrays: dict[str, np.ndarray]) -> np.ndarray:
    return np.stack([arrays["ycoords"], arrays["xcoords"]], axis=1)


def measured_in(condition: Condition) -> dict[str, Any]:
    """Return what is written of the split's overlap."""
    return read_json(condition.folder("overlap") / f"{condition.split}_metrics.json")


def elsewhere(run: Run, folder: Path, view: str, design: StudyDesign | None = None) -> Condition:
    """Return a view of a run's patterns whose files come elsewhere, maybe of another design."""
    condition = Run(run.folder, design or run.design).condition(DOSE, view, "train")
    return moved(condition, views=folder, overlap=folder)


def with_view(design, name: str, **changes):
    """Return a design with one view changed."""
    content = design.model_dump(mode="json")
    index = [view["name"] for view in content["views"]].index(name)
    content["views"][index] |= changes
    return parse_design(content, "test")


@pytest.mark.parametrize("split", SPLITS)
@pytest.mark.parametrize("view", ["dense", "sparse"])
def test_the_metrics_are_those_of_the_file_that_arms_read(view, split, tiny_run):
    condition = tiny_run.condition(DOSE, view, split)
    arrays, metadata = load_dataset(condition.file)
    whole, _ = load_dataset(condition.whole_file)
    metrics = measured_in(condition)
    positions, groups = positions_in(arrays), arrays["groups"]
    diameter = probe_diameter_px(arrays["probeGuess"], 0.9)

    pairs = [
        disc_overlap([np.linalg.norm(positions[first] - positions[second])], diameter)
        for group in groups
        for first, second in combinations(group, 2)
    ]

    assert metadata["view"] == view
    assert metrics["metric_1_group"] == pytest.approx(np.mean(pairs))
    assert metrics["metric_2_image"] == pytest.approx(image_overlap(positions, 7, diameter))
    assert metrics["images_used"] == len(positions) == metrics["group_count"] == len(groups)
    np.testing.assert_array_equal(groups[:, 0], np.arange(len(positions)))
    assert metrics["s_img"] == len(positions) / len(whole["scan_index"])
    kept = np.isin(whole["scan_index"], arrays["scan_index"])
    for key in ("diffraction", "xcoords", "ycoords"):
        np.testing.assert_array_equal(arrays[key], whole[key][kept])


@pytest.mark.parametrize("split", SPLITS)
def test_distances_and_coverage_are_those_of_the_patterns_used(split, tiny_run):
    condition = tiny_run.condition(DOSE, "sparse", split)
    arrays, _ = load_dataset(condition.file)
    metrics = measured_in(condition)
    positions = positions_in(arrays)

    between = np.linalg.norm(positions[:, None] - positions, axis=-1)
    nearest = np.sort(between, axis=1)[:, 1]
    found = metrics["nearest_px"]
    summary = [nearest.min(), np.median(nearest), nearest.mean(), nearest.max()]
    assert [found[key] for key in ("min", "median", "mean", "max")] == pytest.approx(summary)
    pixels = np.indices(arrays["objectGuess"].shape).reshape(2, -1).T
    to_nearest = np.linalg.norm(pixels[:, None] - positions, axis=-1).min(axis=1)
    lit = (to_nearest <= metrics["probe_diameter_px"] / 2).sum()
    assert metrics["coverage"]["lit_px"] == lit


def test_the_record_says_how_the_probe_was_measured(tiny_run):
    condition = tiny_run.condition(DOSE, "dense", "train")
    metrics = measured_in(condition)
    probe = load_dataset(condition.whole_file)[0]["probeGuess"]

    assert metrics["probe_diameter_px"] == probe_diameter_px(probe, 0.9)
    assert "brightest pixels with 0.9 of the power" in metrics["probe_diameter_definition"]
    assert metrics["probe_fwhm_px"] == probe_fwhm_px(probe)


def test_the_original_rule_is_reported_of_the_whole_split(tiny_run):
    metrics = measured_in(tiny_run.condition(DOSE, "sparse"))

    rule = metrics["legacy_spacing"]
    assert rule["threshold_px"] == pytest.approx((1 - 0.4) * 16)
    assert rule["greedy_accepted"] == rule["greedy_acceptance_rate"] * metrics["images_total"]
    assert rule["greedy_accepted"] <= rule["packing_bound"]
    baseline = measured_in(tiny_run.condition(DOSE, "baseline"))
    assert baseline["legacy_spacing"] is None


@pytest.mark.parametrize("preset", ["smoke", "laptop"])
def test_views_of_the_presets_reach_their_targets_and_dense_is_denser(preset):
    """Metric 3 cannot tell: it is about 1/4 in both, which is why near groups are counted too."""
    design = load_design(preset)
    scene = scene_of(design)
    for split in SPLITS:
        positions = scene.positions_of(split)
        dense, sparse = (
            view_of(positions, scene.probe, design.view(name), split, design).metrics
            for name in ("dense", "sparse")
        )
        assert dense.metric_2_image == pytest.approx(0.70, abs=0.02)
        assert sparse.metric_2_image == pytest.approx(0.20, abs=0.03)
        assert dense.target_reached
        assert sparse.target_reached
        assert dense.metric_1_group > sparse.metric_1_group
        near = [  # as if there was one group per pattern
            metrics.groups_near_mean * metrics.images_used / metrics.group_count
            for metrics in (dense, sparse)
        ]
        assert near[0] > 4 * near[1]
        for metrics in (dense, sparse):
            assert metrics.metric_3_group_to_group == pytest.approx(0.3, abs=0.06)
        assert (dense.selection, sparse.selection) == ("uniform", "blue_noise")


def test_views_reach_their_targets_or_say_so(tiny_run):
    for view in tiny_run.design.views[1:]:
        folder = tiny_run.condition(DOSE, view.name).folder("overlap")
        bundle = read_json(folder / "metrics_bundle.json")
        for split, metrics in bundle.items():
            error = abs(metrics["metric_2_image"] - view.target_overlap)
            assert metrics["target_reached"] == (error <= TARGET_TOLERANCE)
            assert metrics["target_reached"]
            assert overlap_sentence(split, metrics).endswith("reached")


def test_a_target_that_the_scan_cannot_reach_is_said_with_what_it_can(tmp_path, tiny_run):
    design = with_view(tiny_run.design, "dense", target_overlap=0.99)

    measured = choose_view(elsewhere(tiny_run, tmp_path, "dense", design))

    for split, metrics in measured.items():
        assert not metrics["target_reached"]
        assert metrics["images_used"] == metrics["images_total"]
        low, high = metrics["overlap_sparsest"], metrics["overlap_densest"]
        assert low < high == metrics["metric_2_image"]
        sentence = overlap_sentence(split, metrics)
        assert f"NOT reached: this scan allows {low:.3f} to {high:.3f}" in sentence


def test_a_target_missed_for_want_of_groups_does_not_blame_the_scan(tmp_path, tiny_run):
    design = with_view(tiny_run.design, "dense", n_groups=2)

    measured = choose_view(elsewhere(tiny_run, tmp_path, "dense", design))

    for split, metrics in measured.items():
        assert metrics["overlap_sparsest"] < metrics["target_overlap"] < metrics["overlap_densest"]
        assert not metrics["target_reached"]
        used, kept = metrics["images_used"], metrics["images_subsampled"]
        sentence = overlap_sentence(split, metrics)
        assert f"NOT reached: {kept} patterns were kept for it, of which n_groups uses" in sentence
        assert sentence.endswith(f"uses {used}; raise n_groups")
        assert f"its {min(7, used - 1)} nearest" in sentence


def test_a_target_missed_between_two_counts_of_patterns_says_so(tiny_run):
    metrics = measured_in(tiny_run.condition(DOSE, "dense", "train"))
    missed = metrics | {"target_reached": False, "metric_2_image": 0.63}

    assert overlap_sentence("train", missed).endswith("too much; enlarge the scan")


def test_a_failure_in_one_split_leaves_the_files_of_both_as_they_were(tmp_path, tiny_run):
    shutil.copytree(tiny_run.folder, tmp_path / "run")
    changed = with_view(tiny_run.design, "dense", target_overlap=0.5)
    condition = Run(tmp_path / "run", changed).condition(DOSE, "dense")
    folder = condition.folder("views")
    before = {path.name: sha256_of(path) for path in folder.glob("*.[nj]*") if path.is_file()}
    condition.whole_file.write_bytes(b"broken")

    with pytest.raises(InputError, match=r"patched_test\.npz"):
        choose_view(condition)

    del before["events.jsonl"]
    assert {name: sha256_of(folder / name) for name in before} == before
    assert {"dense_train.npz", "dense_test.npz", "metrics_bundle.json"} < set(before)


def test_the_baseline_is_phase_c_itself_measured_but_not_copied(tiny_run):
    baseline = tiny_run.condition(DOSE, "baseline")
    folder = baseline.folder("overlap")
    bundle = read_json(folder / "metrics_bundle.json")

    assert not list(folder.glob("*.npz"))
    for split, metrics in bundle.items():
        assert baseline.of(split).file.parent.parent == tiny_run.root("dataset")
        assert (metrics["gridsize"], metrics["metric_1_group"], metrics["s_img"]) == (1, None, 1)


def test_fewer_groups_leave_the_file_without_the_patterns_that_no_group_has(tmp_path, tiny_run):
    design = with_view(tiny_run.design, "dense", target_overlap=None, s_img=0.8, n_groups=4)
    condition = elsewhere(tiny_run, tmp_path, "dense", design)

    metrics = choose_view(condition)["train"]

    arrays, _ = load_dataset(condition.file)
    assert arrays["groups"].shape == (4, 4)
    assert set(arrays["groups"].ravel()) == set(range(len(arrays["xcoords"])))
    assert metrics["images_used"] == len(arrays["xcoords"]) <= 16
    assert metrics["images_subsampled"] == round(0.8 * metrics["images_total"])
    assert metrics["s_img"] == metrics["images_subsampled"] / metrics["images_total"]
    assert metrics["metric_2_image"] == image_overlap(
        positions_in(arrays), 7, metrics["probe_diameter_px"]
    )


def test_single_values_of_the_file_stay_single(tiny_run):
    """The original made one metadata text per pattern of it."""
    condition = tiny_run.condition(DOSE, "sparse", "train")

    with np.load(condition.file, allow_pickle=False) as archive:
        assert archive["_metadata"].shape == ()
        assert archive["_metadata"].dtype.kind == "U"
    _, whole = load_dataset(condition.whole_file)
    _, part = load_dataset(condition.file)
    assert part["transformations"][: len(whole["transformations"])] == whole["transformations"]
    seeds = part["transformations"][-1]["parameters"]["seeds"]
    assert seeds == {"grouping": 123, "subsampling": 456}
    assert {key: part[key] for key in ("design", "domain")} == {
        key: whole[key] for key in ("design", "domain")
    }


def test_every_dose_keeps_the_same_patterns_and_groups(tmp_path, tiny_design_with):
    design = tiny_design_with("doses=[1.0e+3, 1.0e+5]")
    run = with_views(generated(tmp_path, design))
    views = [load_dataset(run.condition(dose, "sparse", "train").file)[0] for dose in design.doses]

    for key in ("scan_index", "groups", "xcoords"):
        np.testing.assert_array_equal(views[0][key], views[1][key])


def test_a_split_with_too_few_patterns_is_refused_and_recorded(tmp_path, tiny_design_with):
    run = generated(tmp_path, tiny_design_with("scan.rows=2", "scan.columns=3"))
    condition = run.condition(DOSE, "dense")

    with pytest.raises(InputError, match="train split, view dense: 6 patterns; 8 are needed"):
        choose_view(condition)

    job = read_json(condition.manifest("overlap"))["jobs"]["dose_10000/dense"]
    assert job["status"] == "failed"


def test_a_view_before_its_data_is_refused(tmp_path, tiny_design):
    with pytest.raises(InputError, match=r"patched_train\.npz: no such file"):
        choose_view(Run(tmp_path, tiny_design).condition(DOSE, "dense"))


def test_another_replicate_chooses_and_groups_other_patterns(tiny_run, tiny_design_with):
    """With the same positions and probe: both seeds are the replicate's."""
    arrays, _ = load_dataset(tiny_run.condition(DOSE, split="train").whole_file)
    found = []
    for replicate in (0, 1):
        design = tiny_design_with(f"replicate={replicate}")
        dense = design.view("dense").model_copy(update={"target_overlap": None})
        views = [
            view_of(positions_in(arrays), arrays["probeGuess"], view, "train", design)
            for view in (design.view("sparse"), dense)
        ]
        found.append((views[0].kept.tolist(), views[1].groups.tolist()))

    assert found[0][0] != found[1][0]
    assert found[0][1] != found[1][1]


@pytest.fixture
def overlap_call(tmp_path, tiny_run):
    """Run `study overlap` in this process; return the exit code."""

    def call(*flags: str, run: Run = tiny_run, folder: Path = tmp_path) -> int:
        roots = {
            "phase-c-root": run.root("dataset"),
            "output-root": folder / "D",
            "artifact-root": folder / "D",
        }
        return exit_code("overlap", *(f"--{name}={path}" for name, path in roots.items()), *flags)

    return call


def test_the_command_makes_every_view_and_says_what_it_reached(overlap_call, tmp_path, capsys):
    assert overlap_call() == 0

    printed = capsys.readouterr().out
    assert printed.count("target 0.6 reached") == printed.count("target 0.4 reached") == 2
    jobs = read_json(tmp_path / "D" / "overlap_manifest.json")["jobs"]
    assert {job["status"] for job in jobs.values()} == {"done"}
    assert set(jobs) == {f"dose_10000/{view}" for view in ("baseline", "dense", "sparse")}


def test_the_flags_of_the_original_replace_what_the_design_says(overlap_call, tmp_path, tiny_run):
    flags = ("--s-img=0.9", "--n-groups=5", "--neighbor-count=5", "--probe-diameter-px=9.5")

    assert overlap_call("--view=dense", "--gridsize=2", *flags) == 0

    metrics = measured_in(elsewhere(tiny_run, tmp_path / "D", "dense"))
    assert metrics["images_subsampled"] == round(0.9 * metrics["images_total"])
    assert (metrics["group_count"], metrics["neighbor_count"]) == (5, 5)
    assert (metrics["probe_diameter_px"], metrics["probe_diameter_definition"]) == (9.5, "given")
    job = read_json(tmp_path / "D" / "overlap_manifest.json")["jobs"]["dose_10000/dense"]
    assert job["parameters"]["view"]["s_img"] == 0.9
    assert job["parameters"]["neighbor_count"] == 5
    assert job["parameters"]["probe_diameter_px"] == 9.5


def test_the_file_says_with_what_its_overlap_was_measured(overlap_call, tmp_path, tiny_run):
    """A comparison takes these, and not what the design says."""
    flags = ("--view=dense", "--s-img=0.9", "--neighbor-count=5", "--probe-diameter-px=9.5")
    assert overlap_call(*flags) == 0
    condition = elsewhere(tiny_run, tmp_path / "D", "dense")

    how = view_record_of(load_dataset(condition.file)[1], "view")

    assert how is not None
    assert (how.neighbor_count, how.probe_diameter_px, how.target_overlap) == (5, 9.5, None)
    whole = load_dataset(condition.whole_file)[1]
    assert view_record_of(whole, "split") is None


def test_another_seed_keeps_other_patterns(overlap_call, tmp_path, tiny_run):
    kept = []
    for seed in ("1", "2"):
        flags = ("--view=sparse", f"--rng-seed-subsample={seed}")
        assert overlap_call(*flags, folder=tmp_path / seed) == 0
        path = elsewhere(tiny_run, tmp_path / seed / "D", "sparse").file
        kept.append(load_dataset(path)[0]["scan_index"].tolist())

    assert kept[0] != kept[1]


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["--view=dense", "--s-img=0"], r"s_img: found 0\.0; .*greater than 0"),
        (["--view=dense", "--s-img=1.5"], r"s_img: found 1\.5; .*less than or equal to 1"),
        (
            ["--view=dense", "--s-img=0.01"],
            "train split, view dense: 1 of 60 positions would be kept; at least 8",
        ),
        (["--view=dense", "--n-groups=0"], r"n_groups: found 0; .*greater than or equal to 1"),
        (["--view=dense", "--n-groups=99999"], "99999 groups asked for"),
        (["--view=dense", "--neighbor-count=3"], r"neighbor_count = 3 < 4 .*OVERSAMPLING-001"),
        (["--view=dense", "--neighbor-count=1000"], "needed for K = 1000"),
        (["--view=baseline", "--s-img=0.5"], "baseline is every pattern by itself"),
        (["--s-img=0.5"], "baseline .* takes no --s-img or --n-groups; choose other views with"),
        (["--n-groups=4"], "baseline .* takes no --s-img or --n-groups; choose other views with"),
        (["--view=dense", "--probe-diameter-px=0"], "probe-diameter-px 0: it must be above zero"),
        (["--view=dense", "--probe-diameter-px=inf"], "inf: it must be above zero and finite"),
        (["--view=thick"], "view 'thick' is not in the design; choose one of baseline, dense"),
        (["--gridsize=3"], r"no job matches .*gridsize 3; known: baseline \(gridsize 1\)"),
        (["--view=dense", "--gridsize=1"], "no job matches view dense with gridsize 1"),
        (["--dose=7"], "dose 7 is not in the design"),
    ],
)
def test_a_wrong_call_ends_with_2_and_says_why(flags, message, overlap_call, tmp_path, capsys):
    assert overlap_call(*flags) == 2

    assert re.search(message, capsys.readouterr().err)
    assert not list(tmp_path.rglob("*.npz"))


@pytest.mark.parametrize(
    ("broken", "message"),
    [
        (lambda places: np.where(np.arange(len(places)) == 3, np.nan, places), "xcoords"),
        (lambda places: np.full_like(places, places[0]), "scan positions repeat another exactly"),
    ],
    ids=["not a number", "all at one place"],
)
def test_broken_positions_end_with_2_and_name_the_key(
    broken, message, overlap_call, tmp_path, tiny_design, capsys
):
    run = generated(tmp_path, tiny_design)
    path = run.condition(DOSE, split="train").whole_file
    with np.load(path) as archive:
        arrays = {name: archive[name] for name in archive.files}
    np.savez(path, **arrays | {name: broken(arrays[name]) for name in ("xcoords", "ycoords")})

    assert overlap_call("--view=dense", run=run) == 2

    assert message in capsys.readouterr().err


def test_every_pattern_leads_as_many_groups_as_asked(tiny_design_with):
    design = tiny_design_with()
    scene = scene_of(design)
    positions = scene.positions_of("train")
    once, thrice = (
        view_of(
            positions,
            scene.probe,
            design.view("sparse").model_copy(update={"groups_per_pattern": count}),
            "train",
            design,
        )
        for count in (1, 3)
    )

    np.testing.assert_array_equal(once.kept, thrice.kept)
    assert np.isin(np.bincount(thrice.groups[:, 0]), (2, 3, 4)).all(), "about three each"
    assert len(np.unique(np.sort(thrice.groups, axis=1), axis=0)) == 3 * len(once.groups)


CHOSEN = {
    "neighbor_count": 7,
    "n_groups": None,
    "probe_diameter_px": 12.0,
    "target_overlap": 0.7,
    "seeds": {"grouping": 1},
}


def made_with(**changes) -> dict:
    return {"transformations": [{"operation": SELECTION_STEP, "parameters": CHOSEN | changes}]}


def test_how_a_view_was_made_is_read_from_its_last_selection():
    twice = [*made_with(neighbor_count=5)["transformations"], *made_with()["transformations"]]

    found = view_record_of({"transformations": twice}, "dense.npz")

    assert found is not None
    assert (found.neighbor_count, found.n_groups, found.target_overlap) == (7, None, 0.7)
    assert view_record_of({}, "train.npz") is None


@pytest.mark.parametrize(
    ("metadata", "message"),
    [
        ({"transformations": 3}, r"dense.npz: _metadata: .* make the view again with"),
        ({"transformations": [7]}, r"dense.npz: _metadata: .* make the view again with"),
        ({"transformations": [{"parameters": {}}]}, r"no list of steps"),
        (made_with(neighbor_count="7"), r"dense.npz: _metadata: select and group: neighbor_count"),
        (made_with(probe_diameter_px=-1.0), r"probe_diameter_px: found -1.0"),
    ],
)
def test_a_record_that_nobody_here_wrote_is_refused(metadata, message):
    with pytest.raises(InputError, match=message):
        view_record_of(metadata, "dense.npz")
