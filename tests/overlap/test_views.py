"""Views keep what arms then read, reach their targets or say so, and are the same at every dose."""

import re
import shutil
from itertools import combinations
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from command_line import exit_code

from study_lib.data.contract import load_dataset
from study_lib.design.models import SPLITS
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
from study_lib.phases.conditions import dataset_path, view_folder, view_path
from study_lib.phases.dataset import generate_dose
from study_lib.phases.overlap import write_view
from study_lib.phases.scene import scene_of, split_masks
from study_lib.physics.probe import probe_diameter_px, probe_fwhm_px

DOSE = 1e4


def positions_in(arrays: dict[str, np.ndarray]) -> np.ndarray:
    return np.stack([arrays["ycoords"], arrays["xcoords"]], axis=1)


def roots_in(folder: Path, phase_c: Path | None = None) -> dict[str, Path]:
    return {
        "phase_c_root": phase_c or folder / "C",
        "output_root": folder / "D",
        "artifact_root": folder / "D",
    }


def with_view(design, name: str, **changes):
    """Return a design with one view changed."""
    content = design.model_dump(mode="json")
    index = [view["name"] for view in content["views"]].index(name)
    content["views"][index] |= changes
    return parse_design(content, "test")


@pytest.mark.parametrize("split", SPLITS)
@pytest.mark.parametrize("view", ["dense", "sparse"])
def test_the_metrics_are_those_of_the_file_that_arms_read(view, split, phase_c, phase_d):
    arrays, metadata = load_dataset(view_path(phase_c, phase_d, DOSE, view, split))
    whole, _ = load_dataset(dataset_path(phase_c, DOSE, split))
    metrics = read_json(view_folder(phase_d, DOSE, view) / f"{split}_metrics.json")
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
def test_distances_and_coverage_are_those_of_the_patterns_used(split, phase_c, phase_d):
    arrays, _ = load_dataset(view_path(phase_c, phase_d, DOSE, "sparse", split))
    metrics = read_json(view_folder(phase_d, DOSE, "sparse") / f"{split}_metrics.json")
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


def test_the_record_says_how_the_probe_was_measured(phase_c, phase_d):
    metrics = read_json(view_folder(phase_d, DOSE, "dense") / "train_metrics.json")
    probe = load_dataset(dataset_path(phase_c, DOSE, "train"))[0]["probeGuess"]

    assert metrics["probe_diameter_px"] == probe_diameter_px(probe, 0.9)
    assert "brightest pixels with 0.9 of the power" in metrics["probe_diameter_definition"]
    assert metrics["probe_fwhm_px"] == probe_fwhm_px(probe)


def test_the_original_rule_is_reported_of_the_whole_split(phase_c, phase_d):
    metrics = read_json(view_folder(phase_d, DOSE, "sparse") / "test_metrics.json")

    rule = metrics["legacy_spacing"]
    assert rule["threshold_px"] == pytest.approx((1 - 0.4) * 16)
    assert rule["greedy_accepted"] == rule["greedy_acceptance_rate"] * metrics["images_total"]
    assert rule["greedy_accepted"] <= rule["packing_bound"]
    baseline = read_json(view_folder(phase_d, DOSE, "baseline") / "test_metrics.json")
    assert baseline["legacy_spacing"] is None


@pytest.mark.parametrize("preset", ["smoke", "laptop"])
def test_views_of_the_presets_reach_their_targets_and_dense_is_denser(preset):
    """Metric 3 cannot tell: it is about 1/4 in both, which is why near groups are counted too."""
    design = load_design(preset)
    scene = scene_of(design)
    for split, mask in split_masks(scene.positions_px, design.guard_band_px).items():
        positions = scene.positions_px[mask]
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


def test_views_reach_their_targets_or_say_so(phase_d, tiny_design):
    for view in tiny_design.views[1:]:
        bundle = read_json(view_folder(phase_d, DOSE, view.name) / "metrics_bundle.json")
        for split, metrics in bundle.items():
            error = abs(metrics["metric_2_image"] - view.target_overlap)
            assert metrics["target_reached"] == (error <= TARGET_TOLERANCE)
            assert metrics["target_reached"]
            assert overlap_sentence(split, metrics).endswith("reached")


def test_a_target_that_the_scan_cannot_reach_is_said_with_what_it_can(
    tmp_path, phase_c, tiny_design
):
    design = with_view(tiny_design, "dense", target_overlap=0.99)

    measured = write_view(design, DOSE, "dense", **roots_in(tmp_path, phase_c))

    for split, metrics in measured.items():
        assert not metrics["target_reached"]
        assert metrics["images_used"] == metrics["images_total"]
        low, high = metrics["overlap_sparsest"], metrics["overlap_densest"]
        assert low < high == metrics["metric_2_image"]
        sentence = overlap_sentence(split, metrics)
        assert f"NOT reached: this scan allows {low:.3f} to {high:.3f}" in sentence


def test_a_target_missed_for_want_of_groups_does_not_blame_the_scan(tmp_path, phase_c, tiny_design):
    design = with_view(tiny_design, "dense", n_groups=2)

    measured = write_view(design, DOSE, "dense", **roots_in(tmp_path, phase_c))

    for split, metrics in measured.items():
        assert metrics["overlap_sparsest"] < metrics["target_overlap"] < metrics["overlap_densest"]
        assert not metrics["target_reached"]
        used, kept = metrics["images_used"], metrics["images_subsampled"]
        sentence = overlap_sentence(split, metrics)
        assert f"NOT reached: {kept} patterns were kept for it, of which n_groups uses" in sentence
        assert sentence.endswith(f"uses {used}; raise n_groups")
        assert f"its {min(7, used - 1)} nearest" in sentence


def test_a_target_missed_between_two_counts_of_patterns_says_so(phase_d):
    metrics = read_json(view_folder(phase_d, DOSE, "dense") / "train_metrics.json")
    missed = metrics | {"target_reached": False, "metric_2_image": 0.63}

    assert overlap_sentence("train", missed).endswith("too much; enlarge the scan")


def test_a_failure_in_one_split_leaves_the_files_of_both_as_they_were(
    tmp_path, phase_c, tiny_design
):
    data = shutil.copytree(phase_c, tmp_path / "C")
    roots = roots_in(tmp_path)
    write_view(tiny_design, DOSE, "dense", **roots)
    folder = view_folder(tmp_path / "D", DOSE, "dense")
    before = {path.name: sha256_of(path) for path in folder.glob("*.[nj]*") if path.is_file()}
    dataset_path(data, DOSE, "test").write_bytes(b"broken")

    with pytest.raises(InputError, match=r"patched_test\.npz"):
        write_view(with_view(tiny_design, "dense", target_overlap=0.5), DOSE, "dense", **roots)

    del before["events.jsonl"]
    assert {name: sha256_of(folder / name) for name in before} == before
    assert {"dense_train.npz", "dense_test.npz", "metrics_bundle.json"} < set(before)


def test_the_baseline_is_phase_c_itself_measured_but_not_copied(phase_c, phase_d):
    folder = view_folder(phase_d, DOSE, "baseline")
    bundle = read_json(folder / "metrics_bundle.json")

    assert not list(folder.glob("*.npz"))
    for split, metrics in bundle.items():
        assert view_path(phase_c, phase_d, DOSE, "baseline", split).parent.parent == phase_c
        assert (metrics["gridsize"], metrics["metric_1_group"], metrics["s_img"]) == (1, None, 1)


def test_fewer_groups_leave_the_file_without_the_patterns_that_no_group_has(
    tmp_path, phase_c, tiny_design
):
    design = with_view(tiny_design, "dense", target_overlap=None, s_img=0.8, n_groups=4)
    roots = roots_in(tmp_path, phase_c)

    metrics = write_view(design, DOSE, "dense", **roots)["train"]

    arrays, _ = load_dataset(view_path(phase_c, tmp_path / "D", DOSE, "dense", "train"))
    assert arrays["groups"].shape == (4, 4)
    assert set(arrays["groups"].ravel()) == set(range(len(arrays["xcoords"])))
    assert metrics["images_used"] == len(arrays["xcoords"]) <= 16
    assert metrics["images_subsampled"] == round(0.8 * metrics["images_total"])
    assert metrics["s_img"] == metrics["images_subsampled"] / metrics["images_total"]
    assert metrics["metric_2_image"] == image_overlap(
        positions_in(arrays), 7, metrics["probe_diameter_px"]
    )


def test_single_values_of_the_file_stay_single(tmp_path, phase_c, phase_d):
    """The original made one metadata text per pattern of it."""
    path = view_path(phase_c, phase_d, DOSE, "sparse", "train")

    with np.load(path, allow_pickle=False) as archive:
        assert archive["_metadata"].shape == ()
        assert archive["_metadata"].dtype.kind == "U"
    _, whole = load_dataset(dataset_path(phase_c, DOSE, "train"))
    _, part = load_dataset(path)
    assert part["transformations"][: len(whole["transformations"])] == whole["transformations"]
    seeds = part["transformations"][-1]["parameters"]["seeds"]
    assert seeds == {"grouping": 123, "subsampling": 456}
    assert {key: part[key] for key in ("design", "domain")} == {
        key: whole[key] for key in ("design", "domain")
    }


def test_every_dose_keeps_the_same_patterns_and_groups(tmp_path, tiny_design_with):
    design = tiny_design_with("doses=[1.0e+3, 1.0e+5]")
    views = []
    for dose in design.doses:
        generate_dose(design, dose, tmp_path / "C")
        write_view(design, dose, "sparse", **roots_in(tmp_path))
        path = view_path(tmp_path / "C", tmp_path / "D", dose, "sparse", "train")
        views.append(load_dataset(path)[0])

    for key in ("scan_index", "groups", "xcoords"):
        np.testing.assert_array_equal(views[0][key], views[1][key])


def test_a_split_with_too_few_patterns_is_refused_and_recorded(tmp_path, tiny_design_with):
    design = tiny_design_with("scan.rows=2", "scan.columns=3")
    generate_dose(design, DOSE, tmp_path / "C")

    with pytest.raises(InputError, match="train split, view dense: 6 patterns; 8 are needed"):
        write_view(design, DOSE, "dense", **roots_in(tmp_path))

    job = read_json(tmp_path / "D" / "overlap_manifest.json")["jobs"]["dose_10000/dense"]
    assert job["status"] == "failed"


def test_a_view_before_its_data_is_refused(tmp_path, tiny_design):
    with pytest.raises(InputError, match=r"patched_train\.npz: no such file"):
        write_view(tiny_design, DOSE, "dense", **roots_in(tmp_path))


def test_another_replicate_chooses_and_groups_other_patterns(phase_c, tiny_design_with):
    """With the same positions and probe: both seeds are the replicate's."""
    arrays, _ = load_dataset(dataset_path(phase_c, DOSE, "train"))
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
def overlap_call(tmp_path):
    """Run `study overlap` in this process; return the exit code."""

    def call(phase_c: Path, *flags: str, folder: Path = tmp_path) -> int:
        roots = [
            f"--{name.replace('_', '-')}={path}" for name, path in roots_in(folder, phase_c).items()
        ]
        return exit_code("overlap", *roots, *flags)

    return call


def measured_by(folder: Path, view: str, split: str = "train") -> dict[str, Any]:
    return read_json(view_folder(folder / "D", DOSE, view) / f"{split}_metrics.json")


def test_the_command_makes_every_view_and_says_what_it_reached(
    overlap_call, tmp_path, phase_c, capsys
):
    assert overlap_call(phase_c) == 0

    printed = capsys.readouterr().out
    assert printed.count("target 0.6 reached") == printed.count("target 0.4 reached") == 2
    jobs = read_json(tmp_path / "D" / "overlap_manifest.json")["jobs"]
    assert {job["status"] for job in jobs.values()} == {"done"}
    assert set(jobs) == {f"dose_10000/{view}" for view in ("baseline", "dense", "sparse")}


def test_the_flags_of_the_original_replace_what_the_design_says(overlap_call, tmp_path, phase_c):
    flags = ("--s-img=0.9", "--n-groups=5", "--neighbor-count=5", "--probe-diameter-px=9.5")

    assert overlap_call(phase_c, "--view=dense", "--gridsize=2", *flags) == 0

    metrics = measured_by(tmp_path, "dense")
    assert metrics["images_subsampled"] == round(0.9 * metrics["images_total"])
    assert (metrics["group_count"], metrics["neighbor_count"]) == (5, 5)
    assert (metrics["probe_diameter_px"], metrics["probe_diameter_definition"]) == (9.5, "given")
    job = read_json(tmp_path / "D" / "overlap_manifest.json")["jobs"]["dose_10000/dense"]
    assert job["parameters"]["view"]["s_img"] == 0.9
    assert job["parameters"]["neighbor_count"] == 5
    assert job["parameters"]["probe_diameter_px"] == 9.5


def test_the_file_says_with_what_its_overlap_was_measured(overlap_call, tmp_path, phase_c):
    """A comparison takes these, and not what the design says."""
    flags = ("--view=dense", "--s-img=0.9", "--neighbor-count=5", "--probe-diameter-px=9.5")
    assert overlap_call(phase_c, *flags) == 0
    path = view_path(phase_c, tmp_path / "D", DOSE, "dense", "train")

    how = view_record_of(load_dataset(path)[1], "view")

    assert how is not None
    assert (how.neighbor_count, how.probe_diameter_px, how.target_overlap) == (5, 9.5, None)
    whole = load_dataset(dataset_path(phase_c, DOSE, "train"))[1]
    assert view_record_of(whole, "split") is None


def test_another_seed_keeps_other_patterns(overlap_call, tmp_path, phase_c):
    kept = []
    for seed in ("1", "2"):
        flags = ("--view=sparse", f"--rng-seed-subsample={seed}")
        assert overlap_call(phase_c, *flags, folder=tmp_path / seed) == 0
        path = view_path(phase_c, tmp_path / seed / "D", DOSE, "sparse", "train")
        kept.append(load_dataset(path)[0]["scan_index"].tolist())

    assert kept[0] != kept[1]


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["--view=dense", "--s-img=0"], r"s_img: found 0\.0; .*greater than 0"),
        (["--view=dense", "--s-img=1.5"], r"s_img: found 1\.5; .*less than or equal to 1"),
        (["--view=dense", "--s-img=0.01"], "train split, view dense: s_img = 0.01 leaves"),
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
def test_a_wrong_call_ends_with_2_and_says_why(
    flags, message, overlap_call, tmp_path, phase_c, capsys
):
    assert overlap_call(phase_c, *flags) == 2

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
    generate_dose(tiny_design, DOSE, tmp_path / "C")
    path = dataset_path(tmp_path / "C", DOSE, "train")
    with np.load(path) as archive:
        arrays = {name: archive[name] for name in archive.files}
    np.savez(path, **arrays | {name: broken(arrays[name]) for name in ("xcoords", "ycoords")})

    assert overlap_call(tmp_path / "C", "--view=dense") == 2

    assert message in capsys.readouterr().err


def test_every_pattern_leads_as_many_groups_as_asked(tiny_design_with):
    design = tiny_design_with()
    scene = scene_of(design)
    positions = scene.positions_px[split_masks(scene.positions_px, design.guard_band_px)["train"]]
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
