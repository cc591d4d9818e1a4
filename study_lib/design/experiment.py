"""What is measured: the object, the probe, the scan, the detector, and what no arm knows."""

from collections.abc import Mapping, Sequence
from typing import Annotated, Any, Literal

import numpy as np
from pydantic import AfterValidator, Discriminator, Field, Tag, field_validator, model_validator

from study_lib.design.limits import (
    OBJECT_SIDE_MAX_PX,
    POSITIONS_MAX,
    POSITIONS_REASON,
    SIDE_REASON,
    Length,
    at_least,
    at_most,
    in_order,
)
from study_lib.design.settings import Frozen, is_zero
from study_lib.errors import InputError
from study_lib.physics.absorption import (
    ENERGY_MAX_EV,
    ENERGY_MIN_EV,
    FORMULA_CHARACTERS,
    mass_absorption_m2_per_kg,
)

PhaseRange = Annotated[
    float, Field(gt=0, lt=6.28, description="largest minus smallest phase, radian")
]
AmplitudeMin = Annotated[float, Field(gt=0, le=1, description="the largest amplitude is 1")]


class GrainsDesign(Frozen):
    """Overlapping discs and bars on a smooth phase."""

    kind: Literal["grains"]
    grain_count: Annotated[int, at_most(10_000, "one on each pixel")] = Field(
        ge=1, default=40, description="grains per 100 x 100 object pixels"
    )
    smallest_grain_px: Length = Field(ge=0.5, default=4.0, description="radius")
    largest_grain_px: Length = Field(ge=0.5, default=30.0, description="radius")
    phase_range_rad: PhaseRange = 1.0
    amplitude_min: AmplitudeMin = 0.7

    check_sizes = in_order("smallest_grain_px", "largest_grain_px")


class SiemensStarDesign(Frozen):
    """Siemens stars side by side, each turned by its own angle."""

    kind: Literal["siemens_star"]
    spoke_count: Annotated[int, at_most(10_000, "no star has a rim so long")] = Field(
        ge=2, default=36
    )
    star_diameter_px: Annotated[float, at_most(OBJECT_SIDE_MAX_PX, SIDE_REASON)] = Field(
        ge=8, default=80.0
    )
    phase_range_rad: PhaseRange = 1.0
    amplitude_min: AmplitudeMin = 0.7

    @model_validator(mode="after")
    def check_spokes(self) -> "SiemensStarDesign":
        """Check that the rim, where spokes are widest, has pixels enough for them."""
        most = int(np.pi * self.star_diameter_px / 2)
        if self.spoke_count > most:
            raise ValueError(
                f"spoke_count = {self.spoke_count}; at most {most}: at the rim of a star of "
                f"{self.star_diameter_px:g} pixels a spoke and a gap need two pixels"
            )
        return self


class PowerLawDesign(Frozen):
    """Texture with the spectrum of natural images."""

    kind: Literal["power_law"]
    exponent: Annotated[float, at_most(4, "smoother than any texture")] = Field(
        ge=0, default=2.0, description="of the fall of the power spectrum with frequency"
    )
    phase_range_rad: PhaseRange = 1.0
    amplitude_min: AmplitudeMin = 0.7


CellLength = Annotated[float, at_most(300, "one cell would fill the object")]


class CellsDesign(Frozen):
    """Weak-phase objects: cells with a membrane, a nucleus and granules, hardly absorbing."""

    kind: Literal["cells"]
    cell_count: Annotated[int, at_most(200, "cells would be smaller than their membranes")] = Field(
        ge=1, default=6, description="cells per 100 x 100 object pixels"
    )
    smallest_cell_px: CellLength = Field(ge=2, default=12.0, description="radius")
    largest_cell_px: CellLength = Field(ge=2, default=30.0, description="radius")
    phase_range_rad: PhaseRange = 0.3
    amplitude_min: AmplitudeMin = 0.98

    check_sizes = in_order("smallest_cell_px", "largest_cell_px")


SpecimenDesign = Annotated[
    GrainsDesign | SiemensStarDesign | PowerLawDesign | CellsDesign, Field(discriminator="kind")
]


class ProbeDesign(Frozen):
    """Synthetic probe: annular zone-plate pupil out of focus."""

    aperture_per_px: float = Field(gt=0, lt=0.5, description="pupil radius, cycles per pixel")
    stop_ratio: float = Field(ge=0, lt=1, description="central stop radius / pupil radius")
    defocus_radius_px: float = Field(ge=0, description="where the edge ray lands")


class ScanDesign(Frozen):
    """Scan positions of the two splits; the guard band between them is left out."""

    kind: Literal["raster", "spiral", "fermat", "uniform", "measured"] = Field(
        description="measured: the positions of the base data; uniform: independent random ones"
    )
    rows: Annotated[int, at_most(POSITIONS_MAX, POSITIONS_REASON)] = Field(
        ge=2, description="rows of one split"
    )
    columns: Annotated[int, at_most(POSITIONS_MAX, POSITIONS_REASON)] = Field(ge=2)
    step_px: Annotated[
        float,
        at_most(1024, "the largest patch, beyond which patterns share nothing"),
        at_least(1e-3, "positions closer than any stage can be set"),
    ] = Field(gt=0, description="one position per step x step pixels")
    jitter_px: Annotated[float, at_most(1024, "the largest patch; use scan.kind uniform")] = Field(
        ge=0, description="largest random shift along each axis"
    )

    @model_validator(mode="after")
    def check_count(self) -> "ScanDesign":
        """Check that a data set can hold the positions of one split, and a spiral draw them."""
        positions = self.rows * self.columns
        if self.kind in ("spiral", "fermat"):  # drawn in the circle around the block, then cut
            positions = int(np.pi * (np.hypot(self.rows, self.columns) / 2 + 1) ** 2 / 2)
        if self.kind != "measured" and positions > POSITIONS_MAX:
            raise ValueError(
                f"rows x columns = {self.rows} x {self.columns} make a {self.kind} of {positions} "
                f"positions or more; at most {POSITIONS_MAX}: {POSITIONS_REASON}"
            )
        return self


class DetectorDesign(Frozen):
    """What a real detector adds and loses; all of it off unless set.

    Every arm is given the mask of beamstop and bad pixels. No arm is given dark counts or
    saturation: the scores show what they cost an arm that ignores them.
    """

    dark_counts: Annotated[float, at_most(1e6, "more than any dose leaves to a pixel")] = Field(
        ge=0, default=0.0, description="mean dark counts per pixel"
    )
    saturation_counts: Annotated[
        int | None, at_most(10**12, "as many as the largest dose, so no limit; use null")
    ] = Field(ge=1, default=None, description="the most a pixel can count; null: no limit")
    beamstop_radius_px: Annotated[float, at_most(512, "half of the largest detector")] = Field(
        ge=0, default=0.0, description="masked disc in the centre"
    )
    bad_pixel_share: float = Field(
        ge=0, lt=0.5, default=0.0, description="share of dead pixels, placed by the seed"
    )


class MaterialDesign(Frozen):
    """What takes up the light, for doses in gray. Nothing that is simulated depends on it.

    The density is not asked for: photons are absorbed, and doses counted, by mass.
    """

    formula: Annotated[str, Field(min_length=1, max_length=FORMULA_CHARACTERS)] = Field(
        description="chemical formula, like Au or SiO2; numbers may be fractions"
    )
    energy_ev: Annotated[
        float,
        at_most(ENERGY_MAX_EV, "the tables of absorption end there"),
        at_least(ENERGY_MIN_EV, "the tables of absorption begin there"),
    ] = Field(description="of a photon")

    @field_validator("formula")
    @classmethod
    def check_formula(cls, formula: str, info: Any) -> str:
        """Check the formula of a new design; reading the tables takes most of a second."""
        if info.context and info.context.get("is_new"):
            try:
                mass_absorption_m2_per_kg(formula, ENERGY_MIN_EV)
            except InputError as error:
                raise ValueError(str(error)) from None
        return formula


# The field of each column of comparisons, and how it is said: "position error 1.5 px".
MISMATCH_COLUMNS = {
    "mismatch_position_px": ("position_error_px", "position error", "px"),
    "mismatch_defocus_percent": ("defocus_error_percent", "defocus error", "%"),
    "mismatch_aberration_percent": ("aberration_error_percent", "aberrations", "% of a wave"),
    "mismatch_flux_percent": ("flux_jitter_percent", "flux jitter", "%"),
    "mismatch_background_counts": ("background_counts", "background", "counts per pixel"),
    "mismatch_bandwidth_percent": ("bandwidth_percent", "bandwidth", "%"),
}

LONGEST_IN_TITLE = 50  # characters; two of the six
LEVELS_MAX = 20  # of a list: each is the whole study once more


def _kind_of(found: object) -> str:
    return "array" if isinstance(found, list | tuple) else "number"


def _checked_levels(levels: tuple[float, ...]) -> tuple[float, ...]:
    """Return the values of a list that name an error each, and each another one."""
    found = f"found [{', '.join(f'{one:g}' for one in levels)}]"
    if len(levels) > LEVELS_MAX:
        raise ValueError(
            f"found {len(levels)} values; at most {LEVELS_MAX}: each is the whole study once more"
        )
    if 0 in levels:
        raise ValueError(f"{found}; leave out 0: the run itself is without this error")
    if any(one < 0 for one in levels):
        raise ValueError(f"{found}; the values of a list are above 0")
    if len(set(levels)) < len(levels):
        raise ValueError(f"{found}; leave out the repeated value")
    return levels


# A number that all of a run has, or a list of numbers that it is repeated with, one by one.
OneOrLevels = Annotated[
    Annotated[float, Field(ge=0), Tag("number")]
    | Annotated[
        tuple[float, ...], Field(min_length=1), AfterValidator(_checked_levels), Tag("array")
    ],
    Discriminator(_kind_of),
]


class MismatchDesign(Frozen):
    """How the true experiment differs from what every arm is given; all of it off unless set.

    Light falls on the object with the true probe at the true positions; files hand on the nominal
    ones. Errors are drawn anew for each replicate, and are the same at all its doses.

    A number is in all conditions. A list leaves the run without that error, and repeats it beside
    itself with each of its values, one field at a time.

    Examples
    --------
    >>> from study_lib.design.presets import load_design
    >>> settings = ["mismatch.position_error_px=[0.5, 2]", "mismatch.flux_jitter_percent=5"]
    >>> mismatch = load_design("smoke", settings).mismatch
    >>> mismatch.amounts, mismatch.lists
    ({'flux_jitter_percent': 5.0}, {'position_error_px': (0.5, 2.0)})
    """

    position_error_px: Annotated[OneOrLevels, at_most(256, "a quarter of the largest patch")] = (
        Field(
            default=0.0,
            exclude_if=is_zero,
            description="root mean square of the normal error of each scan position along each "
            "axis; one that leads out of the split's field is turned round",
        )
    )
    defocus_error_percent: Annotated[
        OneOrLevels, at_most(100, "twice the defocus is another probe")
    ] = Field(
        default=0.0,
        exclude_if=is_zero,
        description="how much farther from the axis edge rays of the true probe land, in "
        "percent of probe.defocus_radius_px, or of half the diameter of a probe of base data",
    )
    aberration_error_percent: Annotated[
        OneOrLevels, at_most(50, "with half a wave a lens has no focus left")
    ] = Field(
        default=0.0,
        exclude_if=is_zero,
        description="astigmatism, coma and spherical aberration of the true probe, mixed at "
        "random: root mean square over the pupil, in percent of a wave",
    )
    flux_jitter_percent: Annotated[
        OneOrLevels, at_most(100, "few frames of such a source hold most of its photons")
    ] = Field(
        default=0.0,
        exclude_if=is_zero,
        description="relative standard deviation of the light from frame to frame, log-normal; "
        "the mean dose is kept",
    )
    background_counts: Annotated[
        OneOrLevels, at_most(1e6, "more than any dose leaves to a pixel")
    ] = Field(
        default=0.0,
        exclude_if=is_zero,
        description="mean counts of every detector pixel that do not come from the object, and "
        "that no arm is given; at every dose as many",
    )
    bandwidth_percent: Annotated[
        OneOrLevels, at_most(20, "beyond, object and probe are not the same at all wavelengths")
    ] = Field(
        default=0.0,
        exclude_if=is_zero,
        description="width of the light's flat spectrum, in percent of its mean wavelength: each "
        "wavelength scales the pattern",
    )

    @property
    def amounts(self) -> dict[str, float]:
        """What all conditions of a run have, by field; without what is off or a list."""
        return {name: value for name, value in self if value and not isinstance(value, tuple)}

    @property
    def lists(self) -> dict[str, tuple[float, ...]]:
        """The values that a run is repeated with, by field."""
        return {name: value for name, value in self if isinstance(value, tuple)}

    @property
    def columns(self) -> dict[str, float]:
        """What all conditions have, by the columns that comparisons have for it."""
        amounts = self.amounts
        return {
            column: amounts[field]
            for column, (field, _, _) in MISMATCH_COLUMNS.items()
            if field in amounts
        }

    def with_one(self, field: str = "", level: float = 0.0) -> "MismatchDesign":
        """Return it with numbers alone: those of all conditions, and one value of a list."""
        return MismatchDesign(**self.amounts | ({field: level} if field else {}))

    def largest(self, field: str) -> float:
        """Return the largest value of a field, in any part of the run."""
        return max(self.lists.get(field, (self.amounts.get(field, 0.0),)))


def mismatch_text(values: Mapping[str, Any]) -> str:
    """Return a mismatch in a few words, from its columns among other values; empty without one."""
    return ", ".join(
        f"{words} {values[column]:g} {unit}"
        for column, (_, words, unit) in MISMATCH_COLUMNS.items()
        if values.get(column)
    )


def levels_text(lists: Mapping[str, Sequence[float]]) -> str:
    """Return the lists of a mismatch in a few words; empty without one."""
    return ", ".join(
        f"{words} {', '.join(f'{level:g}' for level in lists[field])} {unit}"
        for field, words, unit in MISMATCH_COLUMNS.values()
        if field in lists
    )


def mismatch_title(values: Mapping[str, Any]) -> str:
    """Return :func:`mismatch_text` where it is short enough for the title of a figure."""
    text = mismatch_text(values)
    return text if len(text) <= LONGEST_IN_TITLE else "with a mismatch"
