"""The part of a design that settles what is measured: object, probe, scan, detector."""

from typing import Annotated, Literal

from pydantic import Field, model_validator

from study_lib.design.settings import Frozen

PhaseRange = Annotated[
    float, Field(gt=0, lt=6.28, description="largest minus smallest phase, radian")
]
AmplitudeMin = Annotated[float, Field(gt=0, le=1, description="the largest amplitude is 1")]


def _require_order(**sizes: float) -> None:
    """Check that the first of two named values is not above the second."""
    (smallest, low), (largest, high) = sizes.items()
    if low > high:
        raise ValueError(f"{smallest} {low} > {largest} {high}; swap them")


class GrainsDesign(Frozen):
    """Overlapping discs and bars on a smooth phase."""

    kind: Literal["grains"]
    grain_count: int = Field(
        ge=1, le=10_000, default=40, description="grains per 100 x 100 object pixels"
    )
    smallest_grain_px: float = Field(ge=0.5, le=1000, default=4.0, description="radius")
    largest_grain_px: float = Field(ge=0.5, le=1000, default=30.0, description="radius")
    phase_range_rad: PhaseRange = 1.0
    amplitude_min: AmplitudeMin = 0.7

    @model_validator(mode="after")
    def check_sizes(self) -> "GrainsDesign":
        """Check that the smallest is not the largest."""
        _require_order(
            smallest_grain_px=self.smallest_grain_px, largest_grain_px=self.largest_grain_px
        )
        return self


class SiemensStarDesign(Frozen):
    """Siemens stars side by side, each turned by its own angle."""

    kind: Literal["siemens_star"]
    spoke_count: int = Field(ge=2, le=1000, default=36)
    star_diameter_px: float = Field(ge=8, default=80.0)
    phase_range_rad: PhaseRange = 1.0
    amplitude_min: AmplitudeMin = 0.7


class PowerLawDesign(Frozen):
    """Texture with the spectrum of natural images."""

    kind: Literal["power_law"]
    exponent: float = Field(
        ge=0, le=4, default=2.0, description="of the fall of the power spectrum with frequency"
    )
    phase_range_rad: PhaseRange = 1.0
    amplitude_min: AmplitudeMin = 0.7


class CellsDesign(Frozen):
    """Weak-phase objects: cells with a membrane, a nucleus and granules, hardly absorbing."""

    kind: Literal["cells"]
    cell_count: int = Field(
        ge=1, le=200, default=6, description="cells per 100 x 100 object pixels"
    )
    smallest_cell_px: float = Field(ge=2, le=300, default=12.0, description="radius")
    largest_cell_px: float = Field(ge=2, le=300, default=30.0, description="radius")
    phase_range_rad: PhaseRange = 0.3
    amplitude_min: AmplitudeMin = 0.98

    @model_validator(mode="after")
    def check_sizes(self) -> "CellsDesign":
        """Check that the smallest is not the largest."""
        _require_order(smallest_cell_px=self.smallest_cell_px, largest_cell_px=self.largest_cell_px)
        return self


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
    rows: int = Field(ge=2, description="rows of one split")
    columns: int = Field(ge=2)
    step_px: float = Field(gt=0, description="one position per step x step pixels")
    jitter_px: float = Field(ge=0, description="largest random shift along each axis")


class DetectorDesign(Frozen):
    """What a real detector adds and loses; all of it off unless set.

    Every arm is given the mask of beamstop and bad pixels. No arm is told of dark counts or of
    saturation: both are what they cost whoever takes the counts at their word.
    """

    dark_counts: float = Field(ge=0, le=1e6, default=0.0, description="mean dark counts per pixel")
    saturation_counts: int | None = Field(
        ge=1, lt=2**40, default=None, description="the most a pixel can count; null: no limit"
    )
    beamstop_radius_px: float = Field(ge=0, default=0.0, description="masked disc in the centre")
    bad_pixel_share: float = Field(
        ge=0, lt=0.5, default=0.0, description="share of dead pixels, placed by the seed"
    )
