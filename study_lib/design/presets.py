"""Designs from presets, files and single settings, and what a call changes in one."""

import json
import re
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from types import MappingProxyType
from typing import Any

import yaml
from pydantic import ValidationError

from study_lib.design.axes import MEASURED, SIMULATED, Source
from study_lib.design.models import OF_A_SIMULATION, BaseData, StudyDesign
from study_lib.design.settings import describe_faults
from study_lib.errors import InputError
from study_lib.files import read_json
from study_lib.system import PROJECT

# --- From files and settings to a design

TABLES_TO_SET = ("mismatch", "material")  # there for settings; without one, there is none
TABLES_OF_A_SIMULATION = ("specimen", "probe", "scan", "detector", "mismatch")
REPLICATES_OF_MEASURED = 3  # draws of the photons, for a spread
PRESET_FOLDER = PROJECT / "parameters" / "presets"
DEEPEST = 64  # tables and lists within one another; a design has four
LONGEST = 2**17  # bytes of a text, which takes seconds to read; a design has 3000


def preset_names() -> list[str]:
    """Return the presets that come with the study."""
    return sorted(path.stem for path in PRESET_FOLDER.glob("*.yaml"))


def load_design(
    preset: str,
    settings: Sequence[str] = (),
    base: BaseData | None = None,
    values: Mapping[str, Any] = MappingProxyType({}),
    source: Source = SIMULATED,
) -> StudyDesign:
    """Return the design of a preset.

    Parameters
    ----------
    preset
        Name of a preset, or path of a YAML file that sets every field.
    settings
        Changes such as ``training.epochs=5``, applied in order.
    base
        The base data, if the object, probe and positions come from a file; then the patch is as
        large as its probe (the next smaller power of two) unless a setting says otherwise.
    values
        Values of fields that count after the settings, as plain data.
    source
        Where counts come from, unless a setting says it. Measured patterns are used whole, and in
        ``REPLICATES_OF_MEASURED`` draws, of which the first trains networks, unless settings say
        how many.

    Returns
    -------
    StudyDesign
        Frozen; every length in object pixels, every dose in photons per pattern.

    Raises
    ------
    InputError
        If the preset is unknown, a name is misspelt or a value has the wrong type or size.

    Examples
    --------
    >>> import study_lib as study
    >>> design = study.load_design("smoke", ["doses=[1e3, 1e4]", "training.epochs=1"])
    >>> design.doses, design.training.epochs
    ((1000.0, 10000.0), 1)
    >>> [(view.name, view.target_overlap) for view in design.views]
    [('baseline', None), ('dense', 0.7), ('sparse', 0.2)]
    """
    is_file = preset.endswith((".yaml", ".yml"))
    path = Path(preset) if is_file else PRESET_FOLDER / f"{preset}.yaml"
    if is_file and not path.is_file():
        raise InputError(f"{preset}: no such file; give the path of a preset in YAML")
    if not path.is_file():
        raise InputError(
            f"preset {preset!r} not found; choose one of {', '.join(preset_names())}, "
            "or give the path of a YAML file"
        )
    content = parse_yaml(path.read_bytes(), str(path))
    if not isinstance(content, dict):
        raise InputError(f"{path}: not a table of names and values; start from a preset")
    for table in TABLES_TO_SET:
        content.setdefault(table, {})
    content.setdefault("preset", re.sub("[^a-z0-9_-]+", "-", path.stem.lower()))
    said = dict(setting.partition("=")[::2] for setting in settings)
    is_measured = str(said.get("source", content.setdefault("source", source))).strip() == MEASURED
    if base:
        content["patch_size_px"] = 2 ** (base.probe_side_px.bit_length() - 1)
        _apply(content, "scan.kind=measured")
    if base and is_measured:
        _require_no_simulation(said)
        content["patch_size_px"] = base.probe_side_px
        if not is_file:
            content["replicates"] = max(content.get("replicates", 1), REPLICATES_OF_MEASURED)
            content.setdefault("trained_replicates", 1)
    for setting in settings:
        _apply(content, setting)
    content.update(values)
    if content.get("base") is not None:
        raise InputError(f"{path}: base is set by --base-npz alone; leave it out")
    content["base"] = base.model_dump() if base else None
    content = {
        name: value for name, value in content.items() if value != {} or name not in TABLES_TO_SET
    }
    return parse_design(content, str(path), settings, is_new=True)


def _require_no_simulation(said: Mapping[str, str]) -> None:
    """Refuse settings of the object, the probe and the scan of a simulation, by name."""
    tables = {name: name.partition(".")[0] for name in said}
    found = [name for name, table in tables.items() if table in TABLES_OF_A_SIMULATION]
    if said.get("scan.kind", "").strip() == MEASURED:
        found.remove("scan.kind")
    if found:
        raise InputError(f"{', '.join(found)}: {OF_A_SIMULATION}")


def parse_design(
    content: Any, source: str, settings: Sequence[str] = (), *, is_new: bool = False
) -> StudyDesign:
    """Validate plain data as a design.

    Parameters
    ----------
    content
        Tables, lists, texts and numbers.
    source
        Where they come from, for messages.
    settings
        Settings that changed them; a fault in one of these is reported as that setting's.
    is_new
        Whether a person has just chosen them: then what takes time to check is checked too.

    Raises
    ------
    InputError
        One line per fault: where, what was found, and what to do.
    """
    try:
        return StudyDesign.model_validate_json(json.dumps(content), context={"is_new": is_new})
    except ValidationError as error:
        raise InputError(describe_faults(error, source, StudyDesign, settings)) from None
    except (TypeError, ValueError, RecursionError) as error:
        raise InputError(f"{source}: {error}; use numbers, texts, lists and tables only") from None


NOT_OF_A_PRESET = ("base", "preset", "replicate", "replicates")
LONGEST_CHANGE = 60  # characters; a longer one is named without its value
WHOLE_NUMBER = re.compile(r"(?<=[0-9])\.0(?![0-9e])")  # the end of one that JSON writes as 1.0


def changes_of_preset(design: StudyDesign) -> list[str]:
    """Return what a design sets otherwise than the preset it is named after, as settings.

    Nothing for a preset of one's own, which comes with no other design to compare with.

    Examples
    --------
    >>> from study_lib.design.presets import changes_of_preset, load_design
    >>> changes_of_preset(load_design("smoke", ["doses=[1e3]", "training.epochs=40"]))
    ['doses=[1000]', 'training.epochs=40']
    """
    if design.preset not in preset_names():
        return []
    try:
        usual = load_design(design.preset, base=design.base, source=design.source)
    except InputError:  # the preset as it is cannot use these base data
        return ["changes that its base data need"]
    return _differences(usual.model_dump(mode="json"), design.model_dump(mode="json"), "")


def _differences(usual: Any, found: Any, name: str) -> list[str]:
    if usual == found or name in NOT_OF_A_PRESET:
        return []
    is_nested = isinstance(usual, dict) and isinstance(found, dict)
    if is_nested and (not name or usual.keys() <= found.keys()):
        lines = []
        for key, value in found.items():
            off: Any = {} if isinstance(value, dict) else None  # what is off is not written down
            lines += _differences(usual.get(key, off), value, f"{name}.{key}".lstrip("."))
        return lines + [f"other {key}" for key in usual if key not in found]
    text = f"{name}={WHOLE_NUMBER.sub('', json.dumps(found))}"
    return [text if len(text) <= LONGEST_CHANGE else f"other {name}"]


class _PlainLoader(yaml.SafeLoader):
    """The safe loader, but a name that occurs twice in one table is an error, and so is an alias.

    A few lines of aliases of aliases stand for more values than fit into memory, and the time of
    nested tables grows with the square of their depth.
    """

    def fetch_more_tokens(self) -> None:
        """Read on, or refuse a text that is nested too deep."""
        if self.flow_level + len(self.indents) > DEEPEST:
            raise yaml.scanner.ScannerError(
                None, None, f"nested more than {DEEPEST} deep", self.get_mark()
            )
        super().fetch_more_tokens()

    def compose_node(self, parent: yaml.Node | None, index: Any) -> yaml.Node | None:
        """Return what a part of the text says, or refuse it."""
        if self.check_event(yaml.AliasEvent):
            event = self.peek_event()  # type: ignore[no-untyped-call]  # PyYAML types its loaders, not what they inherit
            raise yaml.composer.ComposerError(
                None, None, f"alias *{event.anchor}: write the value itself", event.start_mark
            )
        node: yaml.Node | None = super().compose_node(parent, index)
        return node

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        """Return a table, or refuse it."""
        seen = set()
        names = (key for key, _ in node.value if isinstance(key, yaml.ScalarNode))
        for key in names:
            if key.value in seen:
                raise yaml.constructor.ConstructorError(
                    None, None, f"{key.value} is set twice", key.start_mark
                )
            seen.add(key.value)
        table: dict[Any, Any] = super().construct_mapping(node, deep)
        return table


# YAML 1.1 takes 1e4 and 1.0e4 for texts, 010 for eight and 1:30 for ninety. Here a number is what
# it is everywhere else.
FLOAT_TAG = "tag:yaml.org,2002:float"
NUMBER_TAGS = (FLOAT_TAG, "tag:yaml.org,2002:int")
NUMBER = re.compile(r"[-+]?([0-9][0-9_]*(\.[0-9_]*)?|\.[0-9][0-9_]*)([eE][-+]?[0-9]+)?$")
INFINITE = re.compile(r"[-+]?\.(inf|Inf|INF)$|\.(nan|NaN|NAN)$")
WHOLE = 2.0**53


def _number_of(loader: _PlainLoader, node: yaml.ScalarNode) -> float | int:
    """Return a number; a whole one without a point is an integer, 1e4 too."""
    text = loader.construct_scalar(node).lower().replace("_", "")
    if "." not in text and "e" not in text:
        return int(text)
    value = float(text.replace(".inf", "inf").replace(".nan", "nan"))
    is_whole = "." not in text and abs(value) <= WHOLE and value == int(value)
    return int(value) if is_whole else value


_PlainLoader.yaml_implicit_resolvers = {
    first: [rule for rule in rules if rule[0] not in NUMBER_TAGS]
    for first, rules in yaml.SafeLoader.yaml_implicit_resolvers.items()
}
for pattern in (NUMBER, INFINITE):
    _PlainLoader.add_implicit_resolver(FLOAT_TAG, pattern, list("-+.0123456789"))
_PlainLoader.add_constructor(FLOAT_TAG, _number_of)


def parse_yaml(text: str | bytes, source: str) -> Any:
    """Return what a YAML text says.

    Raises
    ------
    InputError
        If it is no YAML, sets a name twice, has an alias, or is nested too deep or too long.
    """
    if len(text) > LONGEST:
        raise InputError(
            f"{source[:80]}: {len(text)} characters; at most {LONGEST} are read; a design has some "
            "thousand, start from a preset"
        )
    try:
        return yaml.load(text, _PlainLoader)  # noqa: S506  # a safe loader, without double names
    except (yaml.YAMLError, ValueError, RecursionError) as error:
        raise InputError(f"{source}: not readable as YAML ({error})") from None


def parse_assignments(assignments: Sequence[str]) -> dict[str, Any]:
    """Return the names and YAML values of texts such as ``dose=1e4``.

    Raises
    ------
    InputError
        If a text is not an assignment.
    """
    values = {}
    for assignment in assignments:
        name, equals, text = assignment.partition("=")
        if not equals or not name:
            raise InputError(f"{assignment!r}: write it as name=value, like dose=1e4")
        values[name] = parse_yaml(text, assignment)
    return values


def _apply(content: dict[str, Any], setting: str) -> None:
    """Set one value of nested tables, ``name.name=value``."""
    ((name, value),) = parse_assignments([setting]).items()
    *tables, last = name.split(".")
    node = content
    for table in tables:
        child = node.get(table)
        if not isinstance(child, dict):
            known = ", ".join(sorted(key for key in node if isinstance(node[key], dict)))
            raise InputError(f"setting {setting!r}: no table {table!r} here; known: {known}")
        node = child
    if name == "specimen.kind" and node.get("kind") != value:
        node.clear()  # the fields of one kind mean nothing to another, which has defaults
    node[last] = value


# --- What a phase command is about: the design of its data, and what the call changes in it


def design_of(phase_c_root: Path) -> StudyDesign:
    """Return the design that the datasets were generated with."""
    path = phase_c_root / "design.json"
    return parse_design(read_json(path), str(path))


def overlap_design(
    study: StudyDesign,
    *,
    views: Collection[str],
    s_img: float | None,
    n_groups: int | None,
    neighbor_count: int | None,
    subsampling_seed: int | None,
) -> StudyDesign:
    """Return the design with what a call of `study overlap` changes in it; None changes nothing.

    Raises
    ------
    InputError
        If a value, or its use in one of the views, breaks a rule of the design.
    """
    whole = [name for name in views if study.view(name).is_whole]
    if whole and (s_img, n_groups) != (None, None):
        raise InputError(
            f"{', '.join(whole)} is every pattern by itself and takes no --s-img or --n-groups; "
            "choose other views with --view, or with --gridsize 2"
        )
    content = study.model_dump(mode="json")
    changes: dict[str, Any] = {}
    if s_img is not None:
        changes |= {"s_img": s_img, "target_overlap": None}
    if n_groups is not None:
        changes["n_groups"] = n_groups
    content["views"] = [
        view | changes if view["name"] in views else view for view in content["views"]
    ]
    if neighbor_count is not None:
        content["neighbor_count"] = neighbor_count
    if subsampling_seed is not None:
        content["seeds"]["subsampling"] = subsampling_seed
    return parse_design(content, "study overlap")
