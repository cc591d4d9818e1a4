"""Doses and overlaps are read as people write them, and no view has a special name."""

import json

import pytest

from study_lib.design.axes import dose_name, numbers_of, views_of_overlaps
from study_lib.design.presets import load_design, parse_design
from study_lib.errors import InputError

# What the preset had, and has no more.
SMOKE_OF_BEFORE = (
    *("thinned.kept_positions=[1.0, 0.6]", "thinned.validation_share=0.15"),
    "thinned.epochs_in_turn=40",
)


@pytest.mark.parametrize(
    ("text", "numbers"),
    [
        ("1e3", (1e3,)),
        ("1e3,2e4", (1e3, 2e4)),
        (" [1e3, 2.5] ", (1e3, 2.5)),
        ("1e3..1e6/4", (1e3, 1e4, 1e5, 1e6)),
        ("1e3 .. 1e4 / 3", (1e3, 3160.0, 1e4)),
        ("1e4..1e2/3, 7", (1e4, 1e3, 1e2, 7.0)),
    ],
)
def test_doses_are_numbers_or_ranges_of_one_ratio(text, numbers):
    assert numbers_of(text, name="doses", by_ratio=True) == numbers


def test_overlaps_of_a_range_have_one_difference():
    found = numbers_of("0.8..0.1/8", name="overlaps", by_ratio=False)

    assert found == (0.8, 0.7, 0.6, 0.5, 0.4, 0.3, 0.2, 0.1)


@pytest.mark.parametrize(
    "text", ["", "1e3,", "many", "1e3..1e6", "1e3../4", "1e3..x/4", "1..2/3/4"]
)
def test_what_is_neither_number_nor_range_is_refused_with_an_example(text):
    with pytest.raises(InputError, match=r"doses: .* is neither a number nor a range; write 1e3"):
        numbers_of(text, name="doses", by_ratio=True)


@pytest.mark.parametrize(
    "text", ["1..2/1", "0..2/3", "-1..2/3", "1..inf/3", "1..nan/3", "1..2/1001"]
)
def test_a_range_has_two_ends_above_zero(text):
    with pytest.raises(InputError, match="a range has numbers above zero at both ends and 2 to"):
        numbers_of(text, name="doses", by_ratio=True)


@pytest.mark.parametrize(
    ("setting", "doses"),
    [
        ("doses=1e4", (1e4,)),
        ("doses=1e3, 1e4", (1e3, 1e4)),
        ("doses=1e3..1e5/3", (1e3, 1e4, 1e5)),
        ("doses=[1e3, 2500.5]", (1e3, 2500.5)),
    ],
)
def test_a_setting_takes_doses_as_they_are_written(setting, doses):
    assert load_design("smoke", [setting]).doses == doses


def test_a_dose_names_its_folder_exactly_and_with_its_unit():
    assert dose_name(1e6) == "dose_1000000"
    assert dose_name(2500.5) == "dose_2500.5"
    assert dose_name(1 / 3, "nm2") == "dose_0.3333333333333333_per_nm2"
    assert len({dose_name(dose) for dose in (0.1, 0.1 + 2**-55, 0.1 + 0.2, 0.3)}) == 4


def test_views_have_any_names_and_any_number():
    views = [
        {"name": "whole", "gridsize": 1},
        {"name": "groups", "gridsize": 2},
        {"name": "half-of-it", "gridsize": 1, "s_img": 0.5},
        {"name": "thirty", "gridsize": 1, "number": 30},
        {"name": "wide", "gridsize": 2, "step_px": 5.0, "selection": "blue_noise"},
        {"name": "wider", "gridsize": 1, "step_diameters": 0.5},
        *views_of_overlaps([0.5, 0.125]),
    ]
    design = load_design("smoke", [f"views={json.dumps(views)}"])

    assert [view.name for view in design.views][-2:] == ["overlap_50", "overlap_12p5"]
    assert [view.is_whole for view in design.views] == [True] + 7 * [False]
    assert design.view("groups").keeps_all


def test_what_is_not_set_is_not_written_so_that_designs_of_before_keep_their_hash():
    """The hash of the preset `smoke` as it was before doses per area and free views."""
    design = load_design("smoke", SMOKE_OF_BEFORE)

    assert design.digest == "0a348d93"
    assert not {"dose_per", "pixel_size_m"} & design.model_dump().keys()
    assert parse_design(design.model_dump(mode="json"), "again") == design


def test_the_photons_of_an_area_are_shared_by_the_patterns_that_are_kept():
    design = load_design("smoke", ["dose_per=area", "doses=[20]"])

    assert design.dose_per == "pixel"
    assert design.photons_per_pattern(20.0, lit_px=600, patterns=30) == 400.0
    assert design.photons_per_pattern(20.0, lit_px=600, patterns=15) == 800.0
    assert design.dose_name(20.0) == "dose_20_per_pixel"


def test_a_dose_per_um2_or_nm2_is_that_of_pixels_of_known_size():
    """Pixels of 10 nm: a um2 has 10^4 of them, a nm2 a hundredth of one."""
    common = ["pixel_size_m=1e-8", "doses=[1e6]"]
    um2 = load_design("smoke", [*common, "dose_per=um2"])
    nm2 = load_design("smoke", ["pixel_size_m=1e-8", "doses=[1.0]", "dose_per=nm2"])

    assert um2.photons_per_pattern(1e6, lit_px=600, patterns=30) == pytest.approx(2000.0)
    assert nm2.photons_per_pattern(1.0, lit_px=600, patterns=30) == pytest.approx(2000.0)
