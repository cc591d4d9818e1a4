"""Overlap follows the disc formula, metrics the brute-force loops, views their targets."""

from itertools import combinations

import numpy as np
import pytest

from study_lib.contract import load_dataset
from study_lib.design import SPLITS
from study_lib.errors import InputError
from study_lib.files import read_json
from study_lib.generation import generate_dose
from study_lib.overlap import (
    TARGET_TOLERANCE,
    disc_overlap,
    form_groups,
    group_overlap,
    group_to_group_overlap,
    image_overlap,
    subsample,
    view_of,
    write_view,
)
from study_lib.paths import dataset_path, view_folder, view_path
from study_lib.probe import probe_diameter_px

DIAMETER_PX = 8.0
DOSE = 1e4


def overlap_at(distance_px: float) -> float:
    """Two equal discs, from the area of the lens: 2 r^2 (theta - sin theta cos theta)."""
    if distance_px >= DIAMETER_PX:
        return 0.0
    theta = np.arccos(distance_px / DIAMETER_PX)
    return 2 * (theta - np.sin(theta) * np.cos(theta)) / np.pi


def scan_of(count: int, rng: np.random.Generator, extent_px: float = 20.0) -> np.ndarray:
    return rng.uniform(0, extent_px, (count, 2))


def lattice(side: int, step_px: float) -> np.ndarray:
    return step_px * np.stack(np.mgrid[:side, :side], axis=-1).reshape(-1, 2).astype(float)


def positions_in(arrays: dict[str, np.ndarray]) -> np.ndarray:
    return np.stack([arrays["ycoords"], arrays["xcoords"]], axis=1)


@pytest.mark.parametrize(
    ("ratio", "expected"),
    [(0.0, 1.0), (0.5, 2 / 3 - np.sqrt(3) / (2 * np.pi)), (1.0, 0.0), (1.7, 0.0)],
)
def test_disc_overlap_has_its_closed_values(ratio, expected):
    """At D / 2 it is 2/3 - sqrt(3) / 2 pi = 0.391002..."""
    assert disc_overlap([ratio * DIAMETER_PX], DIAMETER_PX) == pytest.approx(expected, abs=1e-12)


def test_disc_overlap_falls_with_distance_and_depends_on_the_ratio_only():
    distances = np.linspace(0, DIAMETER_PX, 200)
    overlaps = disc_overlap(distances, DIAMETER_PX)

    assert (np.diff(overlaps) < 0).all()
    np.testing.assert_allclose(disc_overlap(3 * distances, 3 * DIAMETER_PX), overlaps, atol=1e-12)


@pytest.mark.parametrize("distance_px", [1.0, 3.0, 6.5])
def test_disc_overlap_is_the_share_of_random_points_in_both_discs(distance_px, rng):
    points = rng.uniform(-DIAMETER_PX / 2, DIAMETER_PX / 2, (200_000, 2))
    inside = np.hypot(*points.T) < DIAMETER_PX / 2
    in_other = np.hypot(points[:, 0] - distance_px, points[:, 1]) < DIAMETER_PX / 2

    share = (inside & in_other).sum() / inside.sum()

    assert disc_overlap([distance_px], DIAMETER_PX) == pytest.approx(share, abs=5e-3)


def test_metric_2_of_a_lattice_inner_position_is_that_of_its_four_neighbours():
    """Four positions about a centre: it sees four at a step, they each other at sqrt(2), 2 too."""
    step_px = 2.0
    cross = step_px * np.array([[0, 0], [1, 0], [-1, 0], [0, 1], [0, -1]], dtype=float)

    measured = image_overlap(cross, 4, DIAMETER_PX)

    arm = overlap_at(2.0) + 2 * overlap_at(2 * np.sqrt(2)) + overlap_at(4.0)
    assert measured == pytest.approx((4 * overlap_at(2.0) + 4 * arm) / 20)


def test_metric_2_of_a_large_square_lattice_is_that_of_one_step():
    """With K = 2 every position, edge or corner, has two neighbours one step away."""
    assert image_overlap(lattice(12, 3.0), 2, DIAMETER_PX) == pytest.approx(overlap_at(3.0))


def test_metric_2_agrees_with_brute_force(rng):
    positions = scan_of(40, rng)
    per_pattern = []
    for index, position in enumerate(positions):
        others = np.delete(positions, index, axis=0)
        nearest = sorted(np.hypot(*(others - position).T))[:7]
        per_pattern.append(np.mean([overlap_at(distance) for distance in nearest]))

    assert image_overlap(positions, 7, DIAMETER_PX) == pytest.approx(np.mean(per_pattern))


def test_metric_1_agrees_with_brute_force(rng):
    positions = scan_of(30, rng)
    groups = rng.permuted(np.tile(np.arange(30), (12, 1)), axis=1)[:, :4]
    pairs = [
        overlap_at(float(np.linalg.norm(positions[first] - positions[second])))
        for group in groups
        for first, second in combinations(group, 2)
    ]

    assert group_overlap(positions, groups, DIAMETER_PX) == pytest.approx(np.mean(pairs))


def test_metric_1_of_single_patterns_is_none(rng):
    assert group_overlap(scan_of(9, rng), np.arange(9)[:, None], DIAMETER_PX) is None


@pytest.mark.parametrize("extent_px", [12.0, 60.0])
def test_metric_3_agrees_with_brute_force(extent_px, rng):
    positions = scan_of(40, rng, extent_px)
    groups = rng.permuted(np.tile(np.arange(40), (25, 1)), axis=1)[:, :4]
    centres = [positions[group].mean(axis=0) for group in groups]
    per_group = []
    for index, centre in enumerate(centres):
        distances = [
            np.linalg.norm(centre - other) for place, other in enumerate(centres) if place != index
        ]
        near = [overlap_at(distance) for distance in distances if distance < DIAMETER_PX]
        per_group.append(np.mean(near) if near else 0.0)

    measured = group_to_group_overlap(positions, groups, DIAMETER_PX)

    assert measured == pytest.approx(np.mean(per_group))


def test_metric_3_of_groups_far_apart_is_zero():
    positions = lattice(4, 10 * DIAMETER_PX)

    assert group_to_group_overlap(positions, np.arange(16)[:, None], DIAMETER_PX) == 0


def kept_of(positions: np.ndarray, target: float | None, seed: int = 0) -> np.ndarray:
    return subsample(
        positions,
        target_overlap=target,
        neighbor_count=7,
        diameter_px=DIAMETER_PX,
        random=np.random.default_rng(seed),
    )


@pytest.mark.parametrize("target", [0.2, 0.4, 0.6])
def test_leaving_positions_out_reaches_the_target(target):
    positions = lattice(20, 1.2)

    kept = kept_of(positions, target)

    assert image_overlap(positions[kept], 7, DIAMETER_PX) == pytest.approx(
        target, abs=TARGET_TOLERANCE
    )
    assert len(np.unique(kept)) == len(kept) < len(positions)
    assert (np.diff(kept) > 0).all()


def test_the_same_seed_keeps_the_same_positions_and_a_sparser_target_keeps_some_of_them():
    positions = lattice(20, 1.2)

    np.testing.assert_array_equal(kept_of(positions, 0.4), kept_of(positions, 0.4))
    assert not np.array_equal(kept_of(positions, 0.4, 0), kept_of(positions, 0.4, 1))
    assert set(kept_of(positions, 0.3)) < set(kept_of(positions, 0.5))


@pytest.mark.parametrize("target", [None, 0.95])
def test_no_target_or_one_denser_than_the_scan_keeps_all(target):
    np.testing.assert_array_equal(kept_of(lattice(10, 2.0), target), np.arange(100))


def test_a_target_sparser_than_the_scan_allows_keeps_the_fewest_that_have_neighbours():
    assert len(kept_of(lattice(10, 0.1), 0.1)) == 8


def groups_of(positions: np.ndarray, gridsize: int = 2, seed: int = 0) -> np.ndarray:
    return form_groups(
        positions, gridsize=gridsize, neighbor_count=7, random=np.random.default_rng(seed)
    )


def test_every_pattern_leads_one_group_of_distinct_near_patterns(rng):
    positions = scan_of(50, rng)

    groups = groups_of(positions)

    np.testing.assert_array_equal(groups[:, 0], np.arange(50))
    for group in groups:
        assert len(set(group)) == 4
        distances = np.hypot(*(positions - positions[group[0]]).T)
        assert set(group) <= set(np.argsort(distances)[:8])


def test_every_one_of_the_nearest_can_join_a_group(rng):
    positions = scan_of(12, rng)
    nearest = set(np.argsort(np.hypot(*(positions - positions[3]).T))[:8])

    joined = {member for seed in range(60) for member in groups_of(positions, seed=seed)[3]}

    assert joined == nearest


def test_patterns_at_one_place_are_still_grouped_with_others(rng):
    """Ten at the same place: none may be its own neighbour, though all are nearest."""
    positions = np.concatenate([np.full((10, 2), 5.0), scan_of(10, rng)])

    groups = groups_of(positions)

    np.testing.assert_array_equal(groups[:, 0], np.arange(20))
    assert all(len(set(group)) == 4 for group in groups)
    assert image_overlap(positions[:10], 7, DIAMETER_PX) == 1


def test_gridsize_1_leaves_each_pattern_by_itself(rng):
    np.testing.assert_array_equal(groups_of(scan_of(9, rng), gridsize=1), np.arange(9)[:, None])


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


def test_views_reach_their_targets_or_say_so(phase_d, tiny_design):
    for view in tiny_design.views[1:]:
        for metrics in read_json(
            view_folder(phase_d, DOSE, view.name) / "metrics_bundle.json"
        ).values():
            error = abs(metrics["metric_2_image"] - view.target_overlap)
            assert metrics["target_reached"] == (error <= TARGET_TOLERANCE)
            assert metrics["target_reached"]


def test_the_baseline_is_phase_c_itself_measured_but_not_copied(phase_c, phase_d):
    folder = view_folder(phase_d, DOSE, "baseline")
    bundle = read_json(folder / "metrics_bundle.json")

    assert not list(folder.glob("*.npz"))
    for split, metrics in bundle.items():
        assert view_path(phase_c, phase_d, DOSE, "baseline", split).parent.parent == phase_c
        assert (metrics["gridsize"], metrics["metric_1_group"], metrics["s_img"]) == (1, None, 1)


def test_every_dose_keeps_the_same_patterns_and_groups(tmp_path, tiny_design_with):
    design = tiny_design_with("doses=[1.0e+3, 1.0e+5]")
    roots = {"phase_c_root": tmp_path / "C", "output_root": tmp_path, "artifact_root": tmp_path}
    views = []
    for dose in design.doses:
        generate_dose(design, dose, tmp_path / "C")
        write_view(design, dose, "sparse", **roots)
        views.append(load_dataset(view_path(tmp_path / "C", tmp_path, dose, "sparse", "train"))[0])

    for key in ("scan_index", "groups", "xcoords"):
        np.testing.assert_array_equal(views[0][key], views[1][key])


def test_a_split_with_too_few_patterns_is_refused_and_recorded(tmp_path, tiny_design_with):
    design = tiny_design_with("scan.rows=2", "scan.columns=3")
    generate_dose(design, DOSE, tmp_path)
    roots = {"phase_c_root": tmp_path, "output_root": tmp_path, "artifact_root": tmp_path}

    with pytest.raises(InputError, match="train split has 6 patterns; 8 are needed for K = 7"):
        write_view(design, DOSE, "dense", **roots)

    job = read_json(tmp_path / "overlap_manifest.json")["jobs"]["dose_10000/dense"]
    assert job["status"] == "failed"


def test_a_view_before_its_data_is_refused(tmp_path, tiny_design):
    roots = {"phase_c_root": tmp_path, "output_root": tmp_path, "artifact_root": tmp_path}

    with pytest.raises(InputError, match=r"patched_train\.npz: no such file"):
        write_view(tiny_design, DOSE, "dense", **roots)


def test_another_replicate_chooses_and_groups_other_patterns(phase_c, tiny_design_with):
    """With the same positions and probe: both seeds are the replicate's."""
    arrays, _ = load_dataset(dataset_path(phase_c, 1e4, "train"))
    positions = np.stack([arrays["ycoords"], arrays["xcoords"]], axis=1)
    found = []
    for replicate in (0, 1):
        design = tiny_design_with(f"replicate={replicate}")
        dense = design.view("dense").model_copy(update={"target_overlap": None})
        kept, _, _ = view_of(
            positions, arrays["probeGuess"], design.view("sparse"), "train", design
        )
        _, groups, _ = view_of(positions, arrays["probeGuess"], dense, "train", design)
        found.append((kept.tolist(), groups.tolist()))

    assert found[0][0] != found[1][0]
    assert found[0][1] != found[1][1]
