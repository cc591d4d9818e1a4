"""What draws of measured counts are held against: one another, and runs of simulated counts."""

from pathlib import Path

import pytest
from made_runs import row_of
from measured_data import STUDY_SETTINGS

from study_lib.design.models import BaseData, StudyDesign
from study_lib.design.presets import load_design
from study_lib.errors import InputError
from study_lib.files import write_json, write_text
from study_lib.phases.conditions import PlacesBelow, conditions_of, runs_within
from study_lib.phases.draws import agreement_of_draws, ranks_against, simulated_beside

TABLE = [row_of(arm, phase_ssim=ssim) for arm, ssim in (("lsqml", 0.7), ("solver", 0.6))]


def design_of(
    source: str, *settings: str, sha256: str = "a" * 64, simulated_from: str | None = None
) -> StudyDesign:
    base = BaseData(name="scan.npz", sha256=sha256, probe_side_px=16, simulated_from=simulated_from)
    return load_design("smoke", [*STUDY_SETTINGS, *settings], base, source=source)


def finished(folder: Path, design: StudyDesign) -> Path:
    write_json(folder / "design.json", design.model_dump(mode="json"))
    write_json(folder / "phase_h_summary" / "summary.json", {"study_table": TABLE})
    return folder


VIEWS = "views=[{name: baseline, gridsize: 1, target_overlap: %s}]"
UNLIKE = {
    "base data": (design_of("simulated", sha256="b" * 64), "it is of bbbbbbbbbbbb"),
    "what was counted anew": (
        design_of("measured", sha256="c" * 64, simulated_from="b" * 64),
        "it is of bbbbbbbbbbbb",
    ),
    "unit of doses": (design_of("simulated", "dose_per=pixel"), "its doses are per pixel"),
    "a view": (design_of("simulated", VIEWS % 0.5), "keep other patterns: baseline"),
    "a setting of the same scan": (
        design_of("measured", "reference_epochs=21", sha256="c" * 64, simulated_from="a" * 64),
        "not the same study: reference_epochs differ",
    ),
    "source": (design_of("measured"), "its counts are measured too"),
}


@pytest.mark.parametrize("what", list(UNLIKE))
def test_ranks_of_unlike_runs_are_refused_with_what_differs(tmp_path, what):
    other, words = UNLIKE[what]
    path = finished(tmp_path / "other", other)
    with pytest.raises(InputError, match=words):
        ranks_against(TABLE, design_of("measured"), path)
    assert simulated_beside(tmp_path / "measured", design_of("measured")) is None


def test_a_run_of_the_same_base_and_views_is_found_although_another_cannot_be_read(tmp_path):
    path = finished(tmp_path / "other", design_of("simulated"))
    write_text(finished(tmp_path / "damaged", design_of("simulated")) / "design.json", "{")
    assert simulated_beside(tmp_path / "measured", design_of("measured")) == path.resolve()
    rows, _ = ranks_against(TABLE, design_of("measured"), path)
    assert {row["arm"] for row in rows} == {"lsqml", "solver"}


def test_scores_compare_with_a_run_of_simulated_counts_of_the_same_scan_and_it_comes_first(
    tmp_path,
):
    """The true object's run and the counterpart: only of the latter differences are said."""
    measured = design_of("measured")
    same_scan = design_of("measured", sha256="c" * 64, simulated_from="a" * 64)
    same = finished(tmp_path / "same", same_scan)
    truth = finished(tmp_path / "truth", design_of("simulated"))
    assert simulated_beside(tmp_path / "measured", measured) == same.resolve()
    _, sentences = ranks_against(TABLE, measured, same)
    assert any("Measured less simulated phase SSIM" in one for one in sentences)
    _, sentences = ranks_against(TABLE, measured, truth)
    assert "only ranks compare" in sentences[-1]
    assert simulated_beside(tmp_path / "measured", same_scan) is None


def test_draws_that_were_not_compared_have_no_row_and_damaged_comparisons_are_named(tmp_path):
    design = design_of("measured", "replicates=2")
    assert agreement_of_draws(tmp_path, design) == []
    for one in runs_within(design):
        for condition in conditions_of(one.design, PlacesBelow(tmp_path / one.folder)):
            for name in ("aligned.npz", "metrics.json"):
                write_text(condition.folder("compare") / name, "damaged")
    with pytest.raises(InputError, match=r"aligned\.npz"):
        agreement_of_draws(tmp_path, design)
