"""The summary and the report of a study have its map of quality, or say why there is none."""

import numpy as np
import pytest
from tiny_runs import generated, with_views

from study_lib.files import read_json
from study_lib.phases.arms import ARMS, ArmResult
from study_lib.phases.compare import compare
from study_lib.phases.conditions import summary_files
from study_lib.phases.summary import summarize
from study_lib.runs.plan import plan_jobs
from study_lib.runs.report import write_site
from study_lib.runs.run import create_run

VIEWS = "views=[{name: every-one, gridsize: 1}, {name: half, gridsize: 1, s_img: 0.5}]"


def noisy(condition, measurement, hash_of):
    """Return the truth with a phase error that falls with the root of the photons."""
    object_ = condition.truth()
    width_rad = 5 / np.sqrt(condition.dose * len(measurement.scan_index))
    error = np.random.default_rng(0).normal(0, width_rad, object_.shape)
    found = (object_ * np.exp(1j * error)).astype(np.complex64)
    return ArmResult("noisy", "the truth", found, measurement.scan_index, 1.0, 0.0, ())


@pytest.fixture
def page_of(tmp_path, tiny_design_with, monkeypatch):
    """Compare and summarise a study of these doses; return its run and the text of its report."""

    def made(doses):
        design = tiny_design_with(VIEWS, "training=null", "thinned=null", f"doses={doses}")
        run = create_run(tmp_path / "run", design)
        with_views(generated(run.folder, design))
        monkeypatch.setitem(ARMS, "noisy", noisy)
        for dose in design.doses:
            for view in design.views:
                compare(run.condition(dose, view.name))
        summarize(run)
        return run, write_site(run.folder, plan_jobs(design)).read_text(encoding="utf-8")

    return made


def test_a_study_of_doses_and_overlaps_shows_its_map_behind_the_least_dose(page_of):
    run, page = page_of([1e3, 1e4])

    expected = summary_files(run.root("summary"), run.design)
    assert run.root("summary") / "figures" / "quality_map.svg" in expected
    assert [path for path in expected if not path.is_file()] == []
    assert page.index("least_dose.png") < page.index("quality_map.png") < page.index("cost.png")
    assert "between them errors are interpolated as power laws of the dose" in page
    assert read_json(run.root("summary") / "summary.json")["remarks"] == []


def test_a_study_of_one_dose_has_no_map_and_says_why(page_of):
    run, page = page_of([1e4])

    reason = "No map of quality over dose and overlap: the study has one dose; it takes two of each"
    assert reason in page
    assert reason in (run.root("summary") / "summary.md").read_text(encoding="utf-8")
    assert "quality_map" not in page
    assert not list(run.root("summary").rglob("quality_map*"))
    assert "quality_map" not in {
        path.stem for path in summary_files(run.root("summary"), run.design)
    }
