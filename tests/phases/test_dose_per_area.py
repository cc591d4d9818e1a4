"""At one dose per area every view has the same photons on the object, however many patterns."""

import numpy as np
import pytest
import torch
from tiny_runs import generated, with_views

from study_lib.data.contract import load_dataset
from study_lib.design.axes import SPLITS
from study_lib.physics.forward import exit_waves, expected_counts

VIEWS = (
    "views=[{name: every-one, gridsize: 1}, {name: grouped, gridsize: 2}, "
    "{name: half, gridsize: 1, s_img: 0.5}, "
    "{name: wide, gridsize: 2, step_px: 3.5, selection: blue_noise}]"
)
DOSE = 400.0


@pytest.fixture(scope="module")
def shared(tmp_path_factory, tiny_design_with):
    design = tiny_design_with(VIEWS, "dose_per=area", f"doses=[{DOSE}]")
    return with_views(generated(tmp_path_factory.mktemp("area"), design))


def metadata_of(run, view, split):
    return load_dataset(run.condition(DOSE, view, split).file)[1]


@pytest.mark.parametrize("split", SPLITS)
def test_measured_photons_per_area_agree_between_views(shared, split):
    """Within 1 % or three standard errors of the Poisson counts, of each split."""
    patterns, per_pixel = [], []
    for view in shared.design.views:
        metadata = metadata_of(shared, view.name, split)
        measurement = shared.condition(DOSE, view.name, split).measurement()
        total = float(measurement.counts.sum(dtype=np.float64))
        found = metadata["photons_per_object_pixel_measured"]
        patterns.append(len(measurement.scan_index))

        assert found == pytest.approx(total / metadata["lit_object_px"], rel=1e-6)
        assert abs(found - DOSE) <= max(0.01 * DOSE, 3 * DOSE / np.sqrt(total))
        per_pixel.append(metadata["lit_object_px"])

    assert len(set(per_pixel)) == 1, "one area for all views: that of all positions"
    assert patterns[0] == patterns[1] > patterns[2] > patterns[3]


@pytest.mark.parametrize("view", ["every-one", "half", "wide"])
def test_the_probe_of_a_view_predicts_its_own_counts(shared, view):
    condition = shared.condition(DOSE, view)
    measurement = condition.measurement()
    arrays = (measurement.probe, condition.truth(), measurement.positions_px)

    expected = float(expected_counts(exit_waves(*map(torch.from_numpy, arrays))).sum())

    counted = float(measurement.counts.sum(dtype=np.float64))
    assert abs(counted - expected) < 4 * np.sqrt(expected)


def test_patterns_of_a_view_are_a_draw_of_their_own_and_kept_where_all_are_kept(shared):
    whole, grouped, half = (
        shared.condition(DOSE, view).measurement() for view in ("every-one", "grouped", "half")
    )
    place = np.searchsorted(whole.scan_index, half.scan_index)

    assert np.array_equal(whole.amplitudes, grouped.amplitudes)
    assert half.counts.mean() == pytest.approx(2 * whole.counts[place].mean(), rel=0.05)
    independent = np.corrcoef(
        (half.counts - 2 * whole.counts[place]).ravel(), whole.counts[place].ravel()
    )
    assert independent[0, 1] < 0, "twice the same draw would leave nothing of its noise"


def test_a_dose_per_pattern_gives_each_pattern_of_a_view_the_same(tmp_path, tiny_design_with):
    design = tiny_design_with(VIEWS, "doses=[1000.5]")
    run = with_views(generated(tmp_path, design))

    for view in design.views:
        metadata = load_dataset(run.condition(1000.5, view.name).file)[1]
        assert metadata["photons_per_pattern_requested"] == 1000.5
        assert metadata["photons_per_pattern_measured"] == pytest.approx(1000.5, rel=0.2)
    assert run.condition(1000.5).whole_file.parent.name == "dose_1000.5"
