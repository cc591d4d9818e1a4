"""Previews agree with what the study simulates: photons, patterns, coverage."""

import numpy as np
import pytest

from study_lib.lab.lessons import evenness, photons_per_pixel, sample_patterns
from study_lib.phases.scene import scene_of
from study_lib.physics.scan import SCANS


@pytest.fixture(scope="module")
def scene(tiny_design):
    return scene_of(tiny_design)


def test_every_photon_of_every_pattern_lands_on_a_pixel(scene):
    landed = photons_per_pixel(7 * scene.probe, scene.positions_px, scene.object_.shape)

    assert landed.sum() == pytest.approx(49 * len(scene.positions_px), rel=1e-6)
    assert (landed >= 0).all()


def test_light_lies_about_a_single_position(scene):
    position = scene.positions_px[:1]
    landed = photons_per_pixel(scene.probe, position, scene.object_.shape)

    pixels = np.indices(landed.shape)
    middle = (pixels * landed).sum(axis=(1, 2)) / landed.sum()

    np.testing.assert_allclose(middle, position[0], atol=0.3)


@pytest.mark.parametrize("probe_scale", [1.0, 30.0])
def test_sample_patterns_have_their_doses_whatever_the_scale_of_the_probe(scene, probe_scale):
    """The mean over the scan is the dose, to five standard deviations of its photons."""
    doses = (100.0, 1e4)
    totals = np.array(
        [
            sample_patterns(
                scene.object_,
                probe_scale * scene.probe,
                scene.positions_px,
                index=index,
                doses=doses,
                random=np.random.default_rng(index),
            ).sum(axis=(1, 2))
            for index in range(len(scene.positions_px))
        ]
    )

    means = totals.mean(axis=0)

    assert (np.abs(means - doses) < 5 * np.sqrt(np.array(doses) / len(totals))).all()


def test_independent_positions_cover_less_evenly_than_a_raster(tiny_design_with):
    def spread(kind: str) -> float:
        scene = scene_of(tiny_design_with(f"scan.kind={kind}", "scan.rows=12"))
        landed = photons_per_pixel(scene.probe, scene.positions_px, scene.object_.shape)
        block = scene.positions_px[: len(scene.positions_px) // 2]
        return evenness(block, landed)["photons_std_over_mean"]

    spreads = {kind: spread(kind) for kind in SCANS}

    assert spreads["uniform"] > 2 * max(spreads["raster"], spreads["spiral"], spreads["fermat"])


def test_evenness_states_count_and_distances():
    block = np.stack(np.meshgrid(np.arange(5) * 3.0, np.arange(8) * 3.0), axis=-1).reshape(-1, 2)

    found = evenness(block + 4, np.ones((30, 30)))

    assert found == {
        "positions": 40,
        "nearest_smallest_px": pytest.approx(3),
        "nearest_median_px": pytest.approx(3),
        "photons_std_over_mean": pytest.approx(0),
        "photons_min_over_mean": pytest.approx(1),
    }
