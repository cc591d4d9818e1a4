"""Settings as strict models, and their faults in the words of the file."""

import math
from collections.abc import Sequence
from typing import Any

from pydantic import BaseModel, ConfigDict, ValidationError


class Frozen(BaseModel):
    """Strict, immutable settings: unknown names, wrong types and infinities are errors."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True, allow_inf_nan=False)


def is_unset(value: object) -> bool:
    """Return whether a setting is null: what came later is written down only where it is set.

    So designs of before keep their text and their hash.
    """
    return value is None


def is_zero(value: object) -> bool:
    """Return whether a setting is zero: written down only where it is not, as :func:`is_unset`."""
    return value == 0


def describe_faults(
    error: ValidationError, source: str, model: type[BaseModel], settings: Sequence[str] = ()
) -> str:
    """Return one line per fault of a pydantic validation, with the remedy where it is known.

    Parameters
    ----------
    error
        What pydantic found.
    source
        Where the values come from.
    model
        What they were to become.
    settings
        Texts ``name=value`` that changed the source; they are blamed for what they set.
    """
    changed = {setting.partition("=")[0]: setting for setting in settings}
    lines = []
    faults = error.errors(include_url=False)
    for fault in faults:
        place = fault["loc"]
        names, known = _place(model, place)
        where = ".".join(names) or "design"
        found = fault["input"]
        has_faulty_entries = any(
            one["loc"][: len(place)] == place and one["loc"] != place for one in faults
        )
        if fault["type"] == "too_short" and has_faulty_entries:
            continue
        if fault["type"] == "extra_forbidden":
            message = f"unknown name; known here: {', '.join(known)}"
        elif fault["type"] == "missing":
            message = "missing; set it"
        elif fault["type"] == "union_tag_not_found":
            message = "it has no kind; set it, for example kind: grains"
        elif fault["type"] == "union_tag_invalid":
            allowed = fault["ctx"]["expected_tags"].replace("'", "")
            message = f"kind {fault['ctx']['tag']!r} does not exist; choose one of {allowed}"
        elif isinstance(found, str) and _is_number(found):
            message = f"{found!r} is text; write the number without quotes"
        elif fault["type"] == "value_error":
            message = str(fault["ctx"]["error"])
        elif fault["type"] == "too_short" and not found:
            message = "empty; give at least one"
        elif fault["type"] in REMEDIES:
            message = f"found {found!r}; {REMEDIES[fault['type']]}"
        else:
            message = f"found {found!r}; {fault['msg'][0].lower()}{fault['msg'][1:]}"
        prefixes = (".".join(names[:depth]) for depth in range(len(names), 0, -1))
        blamed = next((f"--set {changed[name]}" for name in prefixes if name in changed), None)
        if blamed is None:  # of a whole table: what was set in it may be why
            below = [changed[name] for name in changed if name.split(".")[: len(names)] == names]
            blamed = " ".join([source, *(f"--set {setting}" for setting in below)])
        lines.append(f"{blamed}: {where}: {message}")
    return "\n".join(lines)


A_LIST = "write a list, like [1, 2]"
REMEDIES = {
    "list_type": A_LIST,
    "tuple_type": A_LIST,
    "model_type": "write a table of names and values, or null for what may be left out",
}


def _place(model: type[BaseModel], location: tuple[int | str, ...]) -> tuple[list[str], list[str]]:
    """Return the names that lead to a fault, and the field names known beside the last of them.

    Where a value can be of several kinds, pydantic puts the kind into the location; nobody wrote
    it there, so it is left out.
    """
    schema = model.model_json_schema()
    node: dict[str, Any] = schema
    names, known = [], sorted(schema.get("properties", {}))
    for depth, part in enumerate(location, start=1):
        if "discriminator" in node:
            node = _resolved(schema, node["discriminator"]["mapping"][part])
        elif "oneOf" in node:  # tagged by the types of JSON, number or array
            node = next(option for option in node["oneOf"] if option["type"] == part)
        else:
            names.append(str(part))
            node = node.get("items", {}) if isinstance(part, int) else _field(node, part)
            options = node.get("anyOf", [node])
            node = next((option for option in options if "$ref" in option), node)
            node = _resolved(schema, node["$ref"]) if "$ref" in node else node
        if depth < len(location):
            known = sorted(node.get("properties", {}))
    return names, known


def _field(node: dict[str, Any], name: str) -> Any:
    return node.get("properties", {}).get(name, {})


def _resolved(schema: dict[str, Any], reference: str) -> Any:
    return schema["$defs"][reference.rsplit("/", 1)[1]]


def _is_number(text: str) -> bool:
    try:
        return math.isfinite(float(text))
    except ValueError:
        return False
