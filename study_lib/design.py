"""The design of a study: every number that decides a result, in one frozen model."""

import hashlib
import json
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any, Literal

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from study_lib.errors import InputError

PRESET_FOLDER = Path(__file__).resolve().parent.parent / "parameters" / "presets"

ViewName = Literal["baseline", "dense", "sparse"]
SplitName = Literal["train", "test"]
SPLITS: tuple[SplitName, ...] = ("train", "test")
Seed = Annotated[int, Field(ge=0, lt=2**32)]
Dose = Annotated[float, Field(gt=0, le=1e12)]


class Frozen(BaseModel):
    """Strict, immutable settings: unknown names, wrong types and infinities are errors."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True, allow_inf_nan=False)


class SpecimenDesign(Frozen):
    """Synthetic object: overlapping grains on a smooth phase."""

    grain_count: int = Field(ge=1, description="grains per 100 x 100 object pixels")
    smallest_grain_px: float = Field(gt=0)
    largest_grain_px: float = Field(gt=0)
    phase_range_rad: float = Field(gt=0, lt=6.28, description="largest minus smallest phase")
    amplitude_min: float = Field(gt=0, lt=1, description="the largest amplitude is 1")


class ProbeDesign(Frozen):
    """Synthetic probe: annular zone-plate pupil out of focus."""

    aperture_per_px: float = Field(gt=0, lt=0.5, description="pupil radius, cycles per pixel")
    stop_ratio: float = Field(ge=0, lt=1, description="central stop radius / pupil radius")
    defocus_radius_px: float = Field(ge=0, description="where the edge ray lands")


class ScanDesign(Frozen):
    """Raster of scan positions with uniform jitter; the guard band is left out of it."""

    rows: int = Field(ge=2, description="rows of one split")
    columns: int = Field(ge=2)
    step_px: float = Field(gt=0)
    jitter_px: float = Field(ge=0, description="largest shift along each axis")


class ViewDesign(Frozen):
    """Which patterns of a split are used, and how they are grouped."""

    name: ViewName
    gridsize: Literal[1, 2]
    target_overlap: float | None = Field(
        gt=0, lt=1, description="metric 2 to reach by leaving positions out; null keeps all"
    )


class SeedDesign(Frozen):
    """Seeds, one per kind of random choice."""

    simulation: Seed
    grouping: Seed
    subsampling: Seed
    training: Seed
    iterative: Seed


class TrainingDesign(Frozen):
    """Physics-informed network; original values of the study in the comments of the presets."""

    epochs: int = Field(ge=1)
    steps_min: int = Field(ge=0, description="small views get more epochs, up to this many steps")
    batch_size: int = Field(ge=1, description="groups per step")
    learning_rate: float = Field(gt=0)
    learning_rate_min: float = Field(gt=0)
    plateau_patience: int = Field(ge=0, description="epochs without progress before halving")
    filters_scale: int = Field(ge=1, description="width multiplier of the autoencoder")
    validation_share: float = Field(gt=0, lt=0.5)
    precision: Literal["float32", "bfloat16", "auto"] = Field(
        description="of the convolutions; auto: bfloat16 where the processor has it"
    )


class IterativeDesign(Frozen):
    """Iterative reconstruction by pty-chi."""

    algorithm: Literal["LSQML"]
    epochs: int = Field(ge=1)
    batch_size: int = Field(ge=1)
    noise_model: Literal["gaussian", "poisson"]


class MetricsDesign(Frozen):
    """How a reconstruction is compared with the truth."""

    registration_limit_px: float = Field(gt=0)
    illumination_threshold: float = Field(
        gt=0, lt=1, description="share of the median illumination that a scored pixel needs"
    )
    frc_threshold: float = Field(gt=0, lt=1)


class BaseData(Frozen):
    """A base NPZ that gives object, probe and scan positions instead of the synthetic ones."""

    name: str
    sha256: str = Field(pattern="^[0-9a-f]{64}$")
    probe_side_px: int = Field(ge=16)


class StudyDesign(Frozen):
    """One study: doses x overlap views, for every arm."""

    preset: str = Field(pattern="^[a-z0-9_-]+$")
    patch_size_px: int = Field(ge=16, le=1024, description="detector and patch side N")
    doses: tuple[Dose, ...] = Field(min_length=1, description="mean photons per pattern")
    specimen: SpecimenDesign
    probe: ProbeDesign
    scan: ScanDesign
    views: tuple[ViewDesign, ...] = Field(min_length=1)
    neighbor_count: int = Field(ge=1, description="K nearest neighbours")
    probe_power_share: float = Field(
        gt=0, lt=1, description="power inside the area that defines the probe diameter"
    )
    seeds: SeedDesign
    training: TrainingDesign
    iterative: IterativeDesign
    metrics: MetricsDesign
    base: BaseData | None = None

    @model_validator(mode="after")
    def check_rules(self) -> "StudyDesign":
        """Check what concerns several fields at once."""
        side = self.patch_size_px
        if side & (side - 1):
            raise ValueError(
                f"patch_size_px = {side}: the autoencoder halves the patch down to 8 pixels; "
                "use 16, 32, 64, 128, ..."
            )
        if any(dose != round(dose) for dose in self.doses):
            raise ValueError(f"doses = {list(self.doses)}: use whole photons; they name folders")
        if len(set(self.doses)) < len(self.doses):
            raise ValueError(f"doses = {list(self.doses)}: leave out the repeated dose")
        names = [view.name for view in self.views]
        if len(set(names)) < len(names):
            raise ValueError(f"views = {names}: leave out the repeated view")
        for view in self.views:
            if view.name == "baseline" and (view.gridsize, view.target_overlap) != (1, None):
                raise ValueError(
                    "views.baseline: it is every pattern by itself; set gridsize 1 and "
                    "target_overlap null"
                )
            if view.name != "baseline" and view.gridsize != 2:
                raise ValueError(f"views.{view.name}: gridsize {view.gridsize}; set it to 2")
            if self.neighbor_count < view.gridsize**2:
                raise ValueError(
                    f"neighbor_count = {self.neighbor_count} < {view.gridsize**2} patterns per "
                    f"group of view {view.name} (OVERSAMPLING-001); raise neighbor_count"
                )
        if self.specimen.smallest_grain_px > self.specimen.largest_grain_px:
            raise ValueError(
                f"specimen: smallest_grain_px {self.specimen.smallest_grain_px} > "
                f"largest_grain_px {self.specimen.largest_grain_px}; swap them"
            )
        return self

    @property
    def digest(self) -> str:
        """First eight hexadecimal digits of the SHA-256 of every value of the design."""
        text = json.dumps(self.model_dump(mode="json"), sort_keys=True)
        return hashlib.sha256(text.encode()).hexdigest()[:8]

    def view(self, name: str) -> ViewDesign:
        """Return a view by name.

        Raises
        ------
        InputError
            If the design has no such view.
        """
        for view in self.views:
            if view.name == name:
                return view
        raise InputError(
            f"view {name!r} is not in the design; choose one of "
            f"{', '.join(view.name for view in self.views)}"
        )

    def require_dose(self, dose: float) -> float:
        """Return ``dose`` if the design has it.

        Raises
        ------
        InputError
            If it has not.
        """
        if dose in self.doses:
            return dose
        raise InputError(
            f"dose {dose:g} is not in the design; choose one of "
            f"{', '.join(f'{dose:g}' for dose in self.doses)}"
        )


def preset_names() -> list[str]:
    """Return the presets that come with the study."""
    return sorted(path.stem for path in PRESET_FOLDER.glob("*.yaml"))


def load_design(
    preset: str, settings: Sequence[str] = (), base: BaseData | None = None
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

    Raises
    ------
    InputError
        If the preset is unknown, a name is misspelt or a value has the wrong type or size.
    """
    is_file = preset.endswith((".yaml", ".yml"))
    path = Path(preset) if is_file else PRESET_FOLDER / f"{preset}.yaml"
    if not path.is_file():
        raise InputError(
            f"preset {preset!r} not found; choose one of {', '.join(preset_names())}, "
            "or give the path of a YAML file"
        )
    content = _parse_yaml(path.read_bytes(), str(path))
    if not isinstance(content, dict):
        raise InputError(f"{path}: not a table of names and values; start from a preset")
    content.setdefault("preset", re.sub("[^a-z0-9_-]+", "-", path.stem.lower()))
    if base:
        content["patch_size_px"] = 2 ** (base.probe_side_px.bit_length() - 1)
    for setting in settings:
        _apply(content, setting)
    content["base"] = base.model_dump() if base else None
    return parse_design(content, str(path))


def parse_design(content: Any, source: str) -> StudyDesign:
    """Validate plain data as a design.

    Raises
    ------
    InputError
        One line per fault: where, what was found, and what to do.
    """
    try:
        return StudyDesign.model_validate_json(json.dumps(content))
    except ValidationError as error:
        raise InputError(describe_faults(error, source, StudyDesign)) from None
    except TypeError as error:
        raise InputError(f"{source}: {error}; use numbers, texts, lists and tables only") from None


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


def _parse_yaml(text: str | bytes, source: str) -> Any:
    try:
        return yaml.safe_load(text)
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise InputError(f"{source}: not readable as YAML ({error})") from None


def parse_assignments(assignments: Sequence[str]) -> dict[str, Any]:
    """Return the names and YAML values of texts such as ``dose=1.0e+4``.

    Raises
    ------
    InputError
        If a text is not an assignment.
    """
    values = {}
    for assignment in assignments:
        name, equals, text = assignment.partition("=")
        if not equals or not name:
            raise InputError(f"{assignment!r}: write it as name=value, like dose=1.0e+4")
        values[name] = _parse_yaml(text, assignment)
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
    node[last] = value
