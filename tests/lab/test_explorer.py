"""Looking around in a run: what is shown is what the comparison left."""

import numpy as np
import pytest

from study_lib.data.archive import NpzArchive, read_npz
from study_lib.data.datasets import load_measurement, pattern_count
from study_lib.errors import InputError
from study_lib.files import write_json, write_npz
from study_lib.lab.explorer import Explorer, phase_along
from study_lib.physics.measurement import Measurement
from study_lib.runs.run import Run

CONDITION = (10000.0, "baseline", "test")
SHAPE = (12, 20)


@pytest.fixture
def explorer(tiny_run, rng):
    """A run with data, and a comparison of one condition."""
    folder = tiny_run.condition(*CONDITION).folder("compare")
    mask = np.ones(SHAPE, bool)
    mask[0, 3] = False
    truth = np.exp(1j * rng.uniform(-1, 1, SHAPE)).astype(np.complex64)
    arrays = {"solver": truth * 2, "truth": truth, "mask": mask, "spectrum": np.ones(SHAPE)}
    folder.mkdir(parents=True, exist_ok=True)
    write_npz(folder / "aligned.npz", arrays, {"origin_px": [40, 9]})
    write_json(
        folder / "metrics.json", [{"arm": "solver", "label": "solver", "phase_ssim": 0.987654}]
    )
    return Explorer(tiny_run)


def test_arms_of_a_run_from_before_they_were_renamed_have_the_names_of_today(explorer):
    folder = explorer.run.condition(*CONDITION).folder("compare")
    arrays, metadata = read_npz(folder / "aligned.npz")
    arrays["pinn-thinned"] = arrays.pop("solver")
    write_npz(folder / "aligned.npz", arrays, metadata)
    row = {"arm": "pinn-thinned", "label": "PtychoPINN thinned", "phase_ssim": 0.987654}
    write_json(folder / "metrics.json", [row])

    found = explorer.condition(*CONDITION)

    assert list(found.objects) == ["truth", "thinning-net"]
    assert found.phase_ssim == {"thinning-net": 0.987654}
    figure = explorer.objects(*CONDITION, arm="thinning-net")
    assert figure.get_suptitle().startswith("thinning network, baseline, test")


@pytest.mark.parametrize(
    ("compare_train", "offered"), [(True, ("train", "test")), (False, ("test",))]
)
def test_splits_that_are_not_scored_are_not_offered(tiny_run, compare_train, offered):
    design = tiny_run.design.model_copy(update={"compare_train": compare_train})
    explorer = Explorer(Run(tiny_run.folder, design))

    assert explorer.choices(*CONDITION)["split"].options == offered


def test_a_cut_through_a_plane_of_phase_is_a_line():
    y, x = np.mgrid[:30, :40]
    object_ = np.exp(1j * (0.02 * y - 0.03 * x))

    phase_rad = phase_along(object_, (4.0, 3.0), (16.0, 19.0))

    distance_px = np.arange(len(phase_rad))
    slope = (0.02 * 12 - 0.03 * 16) / np.hypot(12, 16)
    assert len(phase_rad) == 21
    np.testing.assert_allclose(phase_rad, 0.08 - 0.09 + slope * distance_px, atol=2e-4)


def test_a_cut_over_a_jump_of_a_turn_invents_no_phase_between():
    object_ = np.full((5, 8), np.exp(3.1j))
    object_[:, 4:] = np.exp(-3.1j)

    phase_rad = phase_along(object_, (1.0, 0.5), (3.0, 6.5))

    assert (np.abs(phase_rad) > 3.0).all()


def test_a_condition_is_the_truth_first_and_every_arm_on_scored_pixels(explorer):
    found = explorer.condition(*CONDITION)

    assert list(found.objects) == ["truth", "solver"]
    assert found.objects["solver"][0, 3] == 0
    assert (found.objects["solver"] == 2 * found.objects["truth"]).all()
    assert explorer.arm_choice(*CONDITION, "solver")["arm"].options == ("solver",)
    row = explorer.row_choice(*CONDITION, 1.0)["row"]
    assert row.first == row.highest(*CONDITION) == SHAPE[0] - 1
    assert explorer.condition(*CONDITION) is found, "it is read once"


def test_the_pattern_shown_is_the_one_asked_for(explorer):
    measurement = explorer.run.condition(*CONDITION).measurement()

    figure = explorer.pattern(*CONDITION, 7)

    pattern, place, _ = figure.axes[:3]
    assert f"pattern {measurement.scan_index[7]} of the scan" in figure.get_suptitle()
    assert pattern.get_title() == f"{measurement.counts[7].sum():,.0f} photons"
    shown = 10 ** pattern.images[0].get_array() - 1
    np.testing.assert_allclose(shown, measurement.counts[7], rtol=1e-5, atol=1e-5)
    marked = place.collections[1].get_offsets()[0]
    np.testing.assert_allclose(marked, measurement.positions_px[7][::-1] - (9, 40))
    last = explorer.pattern(*CONDITION, 10**6)
    assert f"position {len(measurement.scan_index)} of" in last.axes[1].get_title()


def test_patterns_are_counted_without_reading_one(explorer, monkeypatch):
    dose, design = CONDITION[0], explorer.run.design
    views = [(view.name, split) for view in design.views for split in ("train", "test")]
    paths = [explorer.run.condition(dose, *view).file for view in views]
    sizes = [len(load_measurement(path).scan_index) for path in paths]
    monkeypatch.setattr(NpzArchive, "read", lambda *given: pytest.fail("read"))

    assert [pattern_count(path) for path in paths] == sizes
    highest = explorer.pattern_choice(3)["index"].highest
    assert [highest(dose, *view) for view in views] == [size - 1 for size in sizes]


def test_a_pattern_is_shown_without_counting_the_others(explorer, monkeypatch):
    monkeypatch.setattr(Measurement, "counts", property(lambda self: pytest.fail("all counted")))

    explorer.pattern(*CONDITION, 2)


@pytest.mark.parametrize(
    ("arrays", "found"),
    [({"object": np.ones(3)}, "no diffraction"), ({"diffraction": np.ones(3)}, r"shape \(3,\)")],
)
def test_a_file_without_patterns_has_no_count_of_them(tmp_path, arrays, found):
    write_npz(tmp_path / "other.npz", arrays, {})

    with pytest.raises(InputError, match=rf"other\.npz: .*{found}; give a dataset with patterns"):
        pattern_count(tmp_path / "other.npz")


def test_objects_and_cut_carry_their_condition(explorer):
    objects = explorer.objects(*CONDITION, "solver")
    cut = explorer.cut(*CONDITION, 5)

    assert "10000 photons per pattern, phase SSIM 0.988" in objects.get_suptitle()
    assert "row 45 of the object, baseline, test" in cut.get_suptitle()
    truth, solver = cut.axes[1].lines
    np.testing.assert_allclose(truth.get_ydata(), solver.get_ydata(), atol=1e-6)


def test_what_a_run_does_not_have_is_told(explorer):
    with pytest.raises(InputError, match="run `study compare`"):
        explorer.condition(10000.0, "dense", "test")
    with pytest.raises(InputError, match="this condition has solver; choose one"):
        explorer.objects(*CONDITION, "pinn")
