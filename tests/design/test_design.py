"""A design is complete, strict and frozen; its digest names every value."""

import json
import math
import time

import pytest
import yaml
from pydantic import ValidationError

from study_lib.design.models import BaseData
from study_lib.design.presets import (
    PRESET_FOLDER,
    changes_of_preset,
    load_design,
    parse_assignments,
    parse_design,
    preset_names,
)
from study_lib.errors import InputError

VIEWS = {
    "dense": "{name: dense, gridsize: 2, target_overlap: 0.7}",
    "baseline": "{name: baseline, gridsize: 1, target_overlap: null}",
}


def smoke_file(tmp_path, old: str, new: str) -> str:
    text = (PRESET_FOLDER / "smoke.yaml").read_text(encoding="utf-8")
    assert old in text
    (tmp_path / "mine.yaml").write_text(text.replace(old, new), encoding="utf-8")
    return str(tmp_path / "mine.yaml")


@pytest.mark.parametrize("preset", ["smoke", "laptop", "fly64"])
def test_presets_hold_the_design_of_the_study(preset):
    design = load_design(preset)

    assert design.preset == preset
    assert [view.name for view in design.views] == ["baseline", "dense", "sparse"]
    assert [view.target_overlap for view in design.views] == [None, 0.7, 0.2]
    assert design.neighbor_count == 7
    assert (design.seeds.simulation, design.seeds.grouping, design.seeds.subsampling) == (
        42,
        123,
        456,
    )


def test_every_preset_file_is_a_listed_preset():
    assert preset_names() == ["budget", "fly64", "laptop", "overlap", "science", "smoke"]


def test_fly64_has_the_pattern_count_of_the_original_study():
    scan = load_design("fly64").scan

    assert 2 * scan.rows * scan.columns == 10304


def test_an_unknown_preset_lists_the_presets():
    with pytest.raises(
        InputError, match=r"preset .smok. not found.*budget, fly64, laptop, overlap, science, smoke"
    ):
        load_design("smok")


def test_a_file_that_sets_every_field_is_a_preset_named_after_it(tmp_path):
    design = load_design(smoke_file(tmp_path, "epochs: 4 ", "epochs: 6 "))

    assert (design.preset, design.training.epochs) == ("mine", 6)


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        (
            "epochs: 4",
            "epoch: 4",
            r"training\.epoch: unknown name; known here: batch_size, early",
        ),
        ("step_px", "stepp_px", r"scan\.stepp_px: unknown name; known here: columns, jitter_px"),
        (
            "name: sparse ",
            "nam: sparse ",
            r"views\.2\.nam: unknown name; .*gridsize, groups_per_pattern, n_groups, name",
        ),
        ("neighbor_count", "neighbour_count", r"neighbour_count: unknown name;.*neighbor_count"),
    ],
)
def test_a_misspelt_name_is_named_beside_the_known_ones(old, new, message, tmp_path):
    with pytest.raises(InputError, match=message):
        load_design(smoke_file(tmp_path, old, new))


def test_all_faults_are_told_at_once(tmp_path):
    with pytest.raises(InputError) as caught:
        load_design(smoke_file(tmp_path, "epochs: 4", "epoch: 4"), ["scan.rows=1"])

    lines = str(caught.value).splitlines()
    assert len(lines) == 3
    assert any(line.endswith("training.epochs: missing; set it") for line in lines)


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("1e4", 10000),
        ("1.0e4", 1e4),
        ("1E+4", 10000),
        ("-2e-3", -0.002),
        (".5e3", 500.0),
        ("5.", 5.0),
        ("010", 10),
        ("10_000", 10000),
        ("1:30", "1:30"),
        ("1e", "1e"),
        ("e4", "e4"),
        ("'1e4'", "1e4"),
    ],
)
def test_a_number_is_one_however_it_is_written(text, value):
    """YAML 1.1 would take 1e4 and 1.0e4 for texts, 010 for eight and 1:30 for ninety."""
    (found,) = parse_assignments([f"name={text}"]).values()

    assert (found, type(found)) == (value, type(value))


def test_numbers_without_a_point_are_numbers_in_settings_and_in_files(tmp_path):
    by_setting = load_design("smoke", ["doses=[1e4]", "training.epochs=1e2"])
    by_file = load_design(smoke_file(tmp_path, "doses: [1.0e+4]", "doses: [1e4]"))

    assert (by_setting.doses, by_setting.training.epochs) == ((1e4,), 100)
    assert by_file.doses == (1e4,)


def test_a_number_in_quotes_is_a_text_and_gets_the_remedy():
    with pytest.raises(InputError, match="'1e4' is text; write the number without quotes"):
        load_design("smoke", ["doses=['1e4']"])


@pytest.mark.parametrize(
    "setting",
    [
        "training.epochs=true",
        "training.epochs=2.5",
        "training.epochs=five",
        "scan.step_px=true",
        "scan.step_px=[3.0]",
        "doses={a: 1}",
        "doses=true",
        "probe_power_share=1.0",
        "patch_size_px=8",
        "seeds.simulation=-1",
        "iterative.algorithm=ePIE",
        "scan.step_px=.inf",
        "training.learning_rate=.nan",
        "scan.step_px=2020-01-01",
    ],
)
def test_a_value_of_the_wrong_type_or_size_is_refused_by_name(setting):
    name = setting.partition("=")[0]
    with pytest.raises(InputError, match=rf"{name}|not JSON serializable"):
        load_design("smoke", [setting])


@pytest.mark.parametrize(
    ("setting", "message"),
    [
        (
            "views=[{name: dense, gridsize: 2, n_groups: 9, groups_per_pattern: 2}]",
            "n_groups 9 and groups_per_pattern 2 both say how many groups",
        ),
        ("patch_size_px=48", "patch_size_px = 48: the autoencoder halves"),
        ("doses=[0.5]", r"0\.5 photons in a pattern; at least 1; raise doses"),
        ("dose_per=um2", r"dose_per = um2: the size of an object pixel is not known; set pixel_"),
        ("dose_per=area,", r"dose_per: found 'area,'; input should be 'pattern', 'pixel', 'um2'"),
        ("views=[{name: Dense View, gridsize: 1}]", r"views.0.name: found 'Dense View'"),
        ("views=[{name: a__b, gridsize: 1}]", r"views.0.name: found 'a__b'"),
        ("views=[{name: a, gridsize: 1, groups_per_pattern: 2}]", "gridsize 1: a pattern by its"),
        ("views=[{name: a, gridsize: 1, oversampling: true}]", "gridsize 1: a pattern by its"),
        (
            "views=[{name: a, gridsize: 1, number: 9, step_px: 4.0}]",
            "number 9 and step_px 4.0 each",
        ),
        ("doses=[10.0, 10.0]", "leave out the repeated dose"),
        ("views=[{dense}, {dense}]", "leave out the repeated view"),
        (
            "views=[{dense}]|target_overlap: 0.7|target_overlap: 0.7, s_img: 0.5",
            "target_overlap 0.7 and s_img 0.5 each say what is kept; set all but one of them to",
        ),
        ("neighbor_count=3", "neighbor_count = 3 < 4 patterns per group of view dense"),
        ("specimen.smallest_grain_px=16.0", "smallest_grain_px 16.0 > largest_grain_px 15.0"),
        ("specimen={kind: cells, smallest_cell_px: 40.0}", "smallest_cell_px 40.0 > largest_cell"),
        ("scan.kind=measured", "no measured positions without base data; give --base-npz"),
        ("training.learning_rate_min=0.1", "learning_rate_min 0.1 > learning_rate 0.0005; lower"),
        (
            "detector.beamstop_radius_px=16.0",
            r"beamstop_radius_px = 16; at most 15 for.* hides the whole detector",
        ),
        ("split.guard_band_px=32", "split.guard_band_px = 32: both splits .* at least 33"),
    ],
)
def test_a_rule_between_fields_is_kept(setting, message):
    text, *change = setting.split("|")
    for name, view in VIEWS.items():
        text = text.replace(f"{{{name}}}", view)
    if change:
        text = text.replace(*change)
    with pytest.raises(InputError, match=message):
        load_design("smoke", [text])


@pytest.mark.parametrize(
    ("setting", "message"),
    [
        (
            "specimen.grain_cont=3",
            r"specimen\.grain_cont: unknown name; known here: amplitude_min, gr",
        ),
        ("specimen.kind=cell", r"specimen: kind 'cell' does not exist; choose one of grains, siem"),
        ("specimen={kind: cells, grain_count: 3}", r"specimen\.grain_count: unknown.*cell_count"),
        ("specimen={grain_count: 3}", r"specimen: it has no kind; set it"),
        ("detector.dark_count=3.0", r"detector\.dark_count: unknown.*dark_counts"),
        ("scan.kind=sprial", r"scan\.kind: found 'sprial'; input should be 'raster', 'spiral'"),
    ],
)
def test_a_fault_inside_a_choice_names_what_that_choice_knows(setting, message):
    with pytest.raises(InputError, match=message) as caught:
        load_design("smoke", [setting])

    assert len(str(caught.value).splitlines()) == 1


def test_a_fault_is_told_as_that_of_the_setting_that_made_it():
    with pytest.raises(InputError) as caught:
        load_design("smoke", ["training.epoch=3", "specimen.grain_count=0"])

    lines = str(caught.value).splitlines()
    assert lines[0].startswith("--set specimen.grain_count=0: specimen.grain_count: found 0;")
    assert lines[1].startswith("--set training.epoch=3: training.epoch: unknown name")


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        (
            ["patch_size_px=63", "seeds.training=1"],
            r"smoke.yaml --set patch_size_px=63 --set seeds.training=1: design: patch_size_px",
        ),
        (
            ["training.learning_rate=1e-5", "scan.rows=9"],
            r"smoke.yaml --set training.learning_rate=1e-5: training: .*0.0001 > .*1e-05; lower",
        ),
        (["specimen.kind=star"], r"smoke.yaml --set specimen.kind=star: specimen: kind 'star'"),
        (["views=[]"], "--set views=.*: empty; give at least one"),
        (["views=all"], "found 'all'; write a list, like"),
        (["thinned=none"], "found 'none'; write a table of names and values, or null"),
        (["probe_power_share=nan"], "found 'nan'; input should be a valid number"),
    ],
)
def test_a_message_names_what_was_set_and_what_to_write_instead(settings, message):
    with pytest.raises(InputError, match=message):
        load_design("smoke", settings)


def test_a_name_that_is_set_twice_is_shown_at_its_second_place(tmp_path):
    path = smoke_file(tmp_path, "epochs: 4", "epochs: 4\n  epochs: 5")
    lines = (tmp_path / "mine.yaml").read_text(encoding="utf-8").splitlines()

    with pytest.raises(InputError) as caught:
        load_design(path)

    number = next(i for i, line in enumerate(lines, start=1) if line.startswith("  epochs: 5"))
    assert f"line {number}, column 3" in str(caught.value)


def test_a_file_that_is_not_there_is_no_unknown_preset(tmp_path):
    with pytest.raises(InputError, match=r"mine\.yaml: no such file"):
        load_design(str(tmp_path / "mine.yaml"))


@pytest.mark.parametrize("text", ["[" * 3000, "{a: " * 3000, "- " * 3000, "? " * 3000])
def test_tables_without_end_are_refused_before_they_take_time(tmp_path, text):
    """PyYAML takes seconds for some thousand, its time growing with the square."""
    path = tmp_path / "deep.yaml"
    path.write_text(text)
    started = time.process_time()

    with pytest.raises(InputError, match=r"deep\.yaml: not readable .*nested more than 64 deep"):
        load_design(str(path))

    assert time.process_time() - started < 0.5


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        (
            "neighbor_count: 7",
            "neighbor_count: 7\nneighbor_count: 8",
            "neighbor_count is set twice",
        ),
        ("epochs: 4", "epochs: 4\n  epochs: 5", "epochs is set twice"),
        ("neighbor_count: 7", "neighbor_count: &a [*a]", "not readable as YAML|Circular reference"),
        ("neighbor_count: 7", "neighbor_count: " + 5000 * "[", "not readable as YAML"),
        ("neighbor_count: 7", "neighbor_count: 7\nbase: {name: x}", "set by --base-npz alone"),
    ],
)
def test_a_file_that_says_two_things_or_none_is_refused(old, new, message, tmp_path):
    with pytest.raises(InputError, match=message):
        load_design(smoke_file(tmp_path, old, new))


@pytest.mark.parametrize("kind", ["grains", "siemens_star", "power_law", "cells"])
def test_the_kind_of_object_is_one_setting(kind):
    assert load_design("smoke", [f"specimen.kind={kind}"]).specimen.kind == kind
    back = load_design("smoke", [f"specimen.kind={kind}", "specimen.kind=grains"])
    assert back.specimen.kind == "grains"


def test_another_replicate_has_other_seeds_and_another_digest():
    designs = [load_design("smoke", [f"replicate={index}"]) for index in range(3)]

    assert designs[0].noise_seeds == designs[0].seeds
    seeds = [tuple(design.noise_seeds.model_dump().values()) for design in designs]
    assert len({seed for row in seeds for seed in row}) == 15
    assert len({design.digest for design in designs}) == 3


@pytest.mark.parametrize(
    ("settings", "changes"),
    [
        ([], []),
        (["replicates=3", "doses=[1e4]"], []),
        (["doses=[1.5e3, 2e5]"], ["doses=[1500, 200000]"]),
        (
            ["thinned=null", "training.learning_rate=2e-3", "training.epochs=4"],
            ["training.learning_rate=0.002", "thinned=null"],
        ),
        (["views=[{name: baseline, gridsize: 1}]"], ["other views"]),
        (["specimen.kind=cells"], ["other specimen"]),
        (
            ["mismatch.position_error_px=1.5", "dose_per=area"],
            ['dose_per="pixel"', "mismatch.position_error_px=1.5"],
        ),
    ],
)
def test_what_a_design_changes_in_its_preset_is_named(settings, changes):
    assert changes_of_preset(load_design("smoke", settings)) == changes


def test_a_preset_of_ones_own_has_nothing_to_be_held_against(tmp_path):
    mine = load_design(smoke_file(tmp_path, "epochs: ", "epochs: 1"))

    assert mine.preset == "mine"
    assert changes_of_preset(mine) == []


def test_settings_are_applied_in_order():
    design = load_design("smoke", ["training.epochs=5", "doses=[5.0]", "training.epochs=7"])

    assert (design.training.epochs, design.doses) == (7, (5.0,))


@pytest.mark.parametrize(
    ("setting", "message"),
    [
        ("trainin.epochs=5", r"no table 'trainin' here; known: .*training"),
        ("training.plateau.epochs=5", "no table 'plateau' here"),
        ("training.epochs", "write it as name=value"),
        ("=5", "write it as name=value"),
        ("doses=[1.0", "not readable as YAML"),
    ],
)
def test_a_setting_that_sets_nothing_is_refused(setting, message):
    with pytest.raises(InputError, match=message):
        load_design("smoke", [setting])


def test_assignments_are_yaml_values_by_name():
    values = parse_assignments(
        ["dose=1.0e+4", "view=dense", "only=[a, b]", "text=a=b", "none=null"]
    )

    assert values == {"dose": 1e4, "view": "dense", "only": ["a", "b"], "text": "a=b", "none": None}


@pytest.mark.parametrize("text", ["- 1\n- 2\n", "just text", "a: [1"])
def test_a_file_that_is_no_table_is_refused(text, tmp_path):
    (tmp_path / "mine.yaml").write_text(text, encoding="utf-8")
    with pytest.raises(InputError, match=r"not a table|not readable as YAML"):
        load_design(str(tmp_path / "mine.yaml"))


def leaves(content: object, path: tuple = ()) -> list[tuple]:
    items = content.items() if isinstance(content, dict) else enumerate(content)
    found = []
    for key, value in items:
        if isinstance(value, dict | list):
            found += leaves(value, (*path, key))
        elif isinstance(value, int | float) and not isinstance(value, bool):
            found.append((*path, key))
    return found


def test_the_digest_changes_with_every_number_of_the_design():
    plain = load_design("smoke").model_dump(mode="json")
    digests = {load_design("smoke").digest}
    fixed = {"gridsize", "patch_size_px"}
    bound = {  # half or one more of these is refused
        ("views", 0, "groups_per_pattern"),
        ("thinned", "kept_positions", 0),
        ("thinned", "photon_shares", 1),
    }
    numbers = [path for path in leaves(plain) if path[-1] not in fixed and tuple(path) not in bound]
    for path in numbers:
        content = json.loads(json.dumps(plain))
        node = content
        for key in path[:-1]:
            node = node[key]
        value = node[path[-1]]
        node[path[-1]] = value + 1 if isinstance(value, int) or value >= 2 else value * 0.5 or 0.25
        digests.add(parse_design(content, "test").digest)

    assert len(numbers) > 25
    assert len(digests) == len(numbers) + 1


def test_a_mismatch_is_written_down_where_it_is_set_and_nowhere_else():
    plain = load_design("smoke")
    names = type(plain.mismatch).model_fields
    designs = {name: load_design("smoke", [f"mismatch.{name}=2.5"]) for name in names}
    zeros = load_design("smoke", [f"mismatch.{name}=0" for name in names])

    assert "mismatch" not in plain.model_dump()
    assert zeros == plain
    assert zeros.digest == plain.digest
    for name, design in designs.items():
        content = design.model_dump(mode="json")
        assert content["mismatch"] == {name: 2.5}
        assert parse_design(content, "again") == design
        assert list(design.mismatch.columns.values()) == [2.5]
    assert len({plain.digest, *(design.digest for design in designs.values())}) == len(names) + 1


def test_the_digest_does_not_depend_on_how_the_same_design_is_written(tmp_path):
    content = yaml.safe_load((PRESET_FOLDER / "smoke.yaml").read_text(encoding="utf-8"))
    reordered = yaml.safe_dump(dict(reversed(content.items())) | {"preset": "smoke"})
    (tmp_path / "other.yaml").write_text(reordered, encoding="utf-8")

    assert load_design(str(tmp_path / "other.yaml")).digest == load_design("smoke").digest
    assert load_design("smoke", ["scan.step_px=3"]).digest == load_design("smoke").digest


def test_a_design_survives_json():
    design = load_design("laptop")

    assert parse_design(json.loads(design.model_dump_json()), "test") == design


def test_a_design_is_frozen():
    with pytest.raises(ValidationError, match="frozen"):
        load_design("smoke").training.epochs = 9


@pytest.mark.parametrize("side_px", [16, 63, 64, 100])
def test_base_data_set_the_patch_to_the_next_smaller_power_of_two(side_px):
    base = BaseData(name="base.npz", sha256="0" * 64, probe_side_px=side_px)

    assert load_design("smoke", base=base).patch_size_px == 2 ** int(math.log2(side_px))
    assert load_design("smoke", ["patch_size_px=16"], base=base).patch_size_px == 16
    assert load_design("smoke", base=base).digest != load_design("smoke").digest


def test_a_view_or_dose_outside_the_design_is_refused_with_the_choice():
    design = load_design("smoke", [f"views=[{VIEWS['dense']}]"])

    assert design.view("dense").target_overlap == 0.7
    assert design.require_dose(1e4) == 1e4
    with pytest.raises(InputError, match="view 'sparse' is not in the design; choose one of dense"):
        design.view("sparse")
    with pytest.raises(InputError, match="dose 1000 is not in the design; choose one of 10000"):
        design.require_dose(1e3)
