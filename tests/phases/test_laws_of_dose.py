"""How errors fall with photons, on simulated data: the limit exactly, the solver nearly."""

import math

import pytest
from tiny_runs import generated, with_views

from study_lib.phases.compare import limit_of
from study_lib.phases.reconstruct import reconstruct_by, reconstructions_of

DOSES = (3e5, 1e7)


@pytest.fixture(scope="module")
def bright(tmp_path_factory, tiny_design_with):
    design = tiny_design_with(
        f"doses={list(DOSES)}",
        "views=[{name: every-one, gridsize: 1}]",
        "iterative.solver.tolerance=1e-6",
        "iterative.solver.epochs=1000",
        "scan.rows=10",
        "scan.columns=14",
        "patch_size_px=32",
        "probe.defocus_radius_px=7.0",
    )
    return with_views(generated(tmp_path_factory.mktemp("bright"), design))


def slope_of(values: dict[float, float]) -> float:
    low, high = min(values), max(values)
    return math.log(values[high] / values[low]) / math.log(high / low)


@pytest.fixture(scope="module")
def limits(bright):
    found = {}
    for dose in DOSES:
        condition = bright.condition(dose)
        crop, mask = condition.scored_pixels()
        found[dose] = limit_of(
            condition.measurement(), condition.truth(), crop, mask, bright.design
        ).phase_rms_rad
    return found


def test_the_photon_limit_falls_with_the_root_of_the_dose(limits):
    assert slope_of(limits) == pytest.approx(-0.5, abs=1e-4)


@pytest.mark.slow
def test_the_solver_falls_with_it_where_it_reaches_the_limit(bright, limits):
    errors = {}
    for dose in DOSES:
        condition = bright.condition(dose)
        reconstruct_by(condition, "solver")
        object_ = reconstructions_of(condition)["solver"]["object"]
        errors[dose] = math.sqrt(condition.score(object_)[0]["phase_mse_rad2"])
        assert 0.95 <= errors[dose] / limits[dose] <= 1.1

    assert slope_of(errors) == pytest.approx(-0.5, abs=0.05)
