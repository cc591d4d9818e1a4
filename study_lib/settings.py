"""Settings as strict models, and their faults told in the words of whoever wrote the file."""

from typing import Any

from pydantic import BaseModel, ConfigDict, ValidationError


class Frozen(BaseModel):
    """Strict, immutable settings: unknown names, wrong types and infinities are errors."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True, allow_inf_nan=False)


def describe_faults(error: ValidationError, source: str, model: type[BaseModel]) -> str:
    """Return one line per fault of a pydantic validation, with the remedy where it is known."""
    lines = []
    for fault in error.errors(include_url=False):
        where = ".".join(str(part) for part in fault["loc"]) or "design"
        found = fault["input"]
        if fault["type"] == "extra_forbidden":
            message = f"unknown name; known here: {', '.join(_known_names(model, fault['loc']))}"
        elif fault["type"] == "missing":
            message = "missing; set it"
        elif isinstance(found, str) and _is_number(found):
            message = (
                f"{found!r} is text to YAML; write the number with a point and a signed exponent, "
                f"for example {float(found):.1e}"
            )
        elif fault["type"] == "value_error":
            message = str(fault["ctx"]["error"])
        else:
            message = f"found {found!r}; {fault['msg'][0].lower()}{fault['msg'][1:]}"
        lines.append(f"{source}: {where}: {message}")
    return "\n".join(lines)


def _known_names(model: type[BaseModel], location: tuple[int | str, ...]) -> list[str]:
    """Return the field names of the model that holds the last part of a location."""
    schema = model.model_json_schema()
    node: dict[str, Any] = schema
    for part in location[:-1]:
        node = node["items"] if isinstance(part, int) else node["properties"][part]
        options = node.get("anyOf", [node])
        node = next((option for option in options if "$ref" in option), node)
        if "$ref" in node:
            node = schema["$defs"][node["$ref"].rsplit("/", 1)[1]]
    return sorted(node.get("properties", {}))


def _is_number(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return False
    return True
