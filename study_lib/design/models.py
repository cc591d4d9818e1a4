"""The design of a study: every number that decides a result, in one frozen model."""

import hashlib
import json
from typing import Annotated, Any, Literal

import numpy as np
from pydantic import Field, model_validator

from study_lib.design.axes import (
    MEASURED,
    PER_AREA_M2,
    PHOTONS_OF_A_PATTERN_MAX,
    POINTS_MAX,
    SIMULATED,
    SPLITS,
    UNITS,
    DosePer,
    Doses,
    Point,
    Source,
    SplitName,
    ViewDesign,
    dose_name,
)
from study_lib.design.experiment import (
    DetectorDesign,
    MaterialDesign,
    MismatchDesign,
    ProbeDesign,
    ScanDesign,
    SpecimenDesign,
)
from study_lib.design.limits import POSITIONS_MAX, POSITIONS_REASON, TIME_REASON, at_least, at_most
from study_lib.design.methods import IterativeDesign, ThinnedDesign, TrainingDesign
from study_lib.design.settings import Frozen, is_unset
from study_lib.design.wanted import WantedText, wanted_of
from study_lib.errors import InputError

REFERENCE_EPOCHS = 100
Seed = Annotated[int, Field(ge=0, lt=2**32)]
PixelSize = Annotated[
    float | None,
    Field(gt=0),
    at_most(1e-3, "a millimetre, far beyond any ptychography"),
    at_least(1e-13, "a thousandth of an atom"),
]


class SeedDesign(Frozen):
    """Seeds, one per kind of random choice."""

    simulation: Seed
    grouping: Seed
    subsampling: Seed
    training: Seed
    iterative: Seed


class SplitDesign(Frozen):
    """How positions are divided into train and test."""

    axis: Literal["y"] = "y"
    guard_band_px: Annotated[int | None, at_most(4096, "four of the largest patches")] = Field(
        ge=1, default=None, description="rows without positions; null: as few as share no row"
    )


class MetricsDesign(Frozen):
    """How a reconstruction is compared with the truth."""

    registration_limit_px: Annotated[float, at_most(512, "half of the largest patch")] = Field(gt=0)
    illumination_threshold: float = Field(
        gt=0, lt=1, description="share of the median illumination that a scored pixel needs"
    )
    frc_threshold: float = Field(gt=0, lt=1)
    photon_limit_solves: Annotated[int, at_most(10_000, TIME_REASON)] = Field(
        ge=0,
        default=4,
        description="random solves behind each photon limit, at least 2; 0: no photon limit",
    )

    @model_validator(mode="after")
    def check_solves(self) -> "MetricsDesign":
        """Check that a limit, if there is one, has a spread."""
        if self.photon_limit_solves == 1:
            raise ValueError("photon_limit_solves = 1 has no spread; set 2 or more, or 0 for none")
        return self


# Said of a setting that measured counts make void.
OF_A_SIMULATION = (
    "belongs to simulated counts, and these are measured; leave it out, or choose --simulated"
)


class BaseData(Frozen):
    """A base NPZ that gives object, probe and scan positions instead of the synthetic ones."""

    name: str
    sha256: str = Field(pattern="^[0-9a-f]{64}$")
    probe_side_px: int = Field(ge=16, le=2**16)
    pixel_size_m: PixelSize = Field(default=None, exclude_if=is_unset, description="of the object")
    doubts: tuple[str, ...] = Field(
        default=(),
        exclude_if=lambda doubts: not doubts,
        description="why its import was judged doubtful or wrong",
    )
    simulated_from: str | None = Field(
        default=None,
        pattern="^[0-9a-f]{64}$",
        exclude_if=is_unset,
        description="SHA-256 of the measurement of which its counts are a simulation",
    )


class StudyDesign(Frozen):
    """One study: doses x overlap views, for every arm."""

    preset: str = Field(pattern="^[a-z0-9_-]+$")
    patch_size_px: Annotated[int, at_most(1024, "weights and time grow with the square")] = Field(
        ge=16, description="detector and patch side N"
    )
    doses: Doses = Field(description="mean photons, of what `dose_per` says")
    dose_per: DosePer = Field(
        default="pattern",
        exclude_if=lambda per: per == "pattern",
        description="a dose is that of each pattern, or of each pixel (area), um2 or nm2 of the "
        "lit object, where a view of fewer patterns gets more photons in each",
    )
    source: Source = Field(
        default=SIMULATED,
        exclude_if=lambda source: source == SIMULATED,
        description="where counts come from: simulated on the object, or measured: those of the "
        "base data, thinned to each dose",
    )
    reference_epochs: Annotated[int, at_most(10_000, TIME_REASON)] = Field(
        ge=1,
        default=REFERENCE_EPOCHS,
        exclude_if=lambda epochs: epochs == REFERENCE_EPOCHS,
        description="passes of each algorithm that makes the reference of measured counts",
    )
    pixel_size_m: PixelSize = Field(
        default=None, exclude_if=is_unset, description="of the object; null: that of the base data"
    )
    specimen: SpecimenDesign
    probe: ProbeDesign
    scan: ScanDesign
    detector: DetectorDesign = DetectorDesign()
    mismatch: MismatchDesign = Field(
        default=MismatchDesign(),
        exclude_if=lambda mismatch: mismatch == MismatchDesign(),
        description="what the true experiment has and no arm knows of; off unless set",
    )
    views: tuple[ViewDesign, ...] = Field(min_length=1)
    points: tuple[Point, ...] = Field(
        default=(),
        max_length=POINTS_MAX,
        exclude_if=lambda points: not points,
        description="[dose, view] of each condition; none: each dose with each view",
    )
    neighbor_count: Annotated[int, at_most(POSITIONS_MAX, POSITIONS_REASON)] = Field(
        ge=1, description="K nearest neighbours"
    )
    probe_power_share: float = Field(
        gt=0, lt=1, description="power inside the area that defines the probe diameter"
    )
    seeds: SeedDesign
    training: TrainingDesign | None = Field(
        description="the physics-informed network; null: none is trained"
    )
    iterative: IterativeDesign
    thinned: ThinnedDesign | None = Field(
        default=None, description="the network that learns from thinned counts; null: none"
    )
    metrics: MetricsDesign
    split: SplitDesign = SplitDesign()
    compare_train: bool = Field(
        default=True,
        exclude_if=lambda compared: compared,
        description="score objects of the train split too, beside those of the test split",
    )
    object_patches: bool = Field(
        default=False, description="write the true patches Y too: three times the disk space"
    )
    replicate: Annotated[int, at_most(2**31, "replicates name folders")] = Field(
        ge=0, default=0, description="repetition: another noise, training and choice of patterns"
    )
    replicates: int = Field(
        ge=1, default=1, description="repetitions of a run, counted from `replicate` on"
    )
    wanted: tuple[WantedText, ...] = Field(
        default=(),
        exclude_if=lambda texts: not texts,
        description="qualities whose least dose the summary tells, like frc=20nm or "
        "phase_error=0.05; none: phase_error=0.1 and frc=0.5",
    )
    flux_per_s: Annotated[float | None, at_most(1e30, "more than any source gives")] = Field(
        gt=0,
        default=None,
        exclude_if=is_unset,
        description="photons on the specimen in a second: the summary tells exposure times",
    )
    material: MaterialDesign | None = Field(
        default=None,
        exclude_if=is_unset,
        description="what absorbs the light: the summary tells doses in gray too; null: it does "
        "not",
    )
    trained_replicates: Annotated[int | None, at_most(2**31, "replicates name folders")] = Field(
        ge=1,
        default=None,
        exclude_if=is_unset,
        description="the first so many replicates train networks, the others do without; null: all",
    )
    base: BaseData | None = None

    @model_validator(mode="after")
    def check_rules(self) -> "StudyDesign":
        """Check what concerns several fields at once."""
        side = self.patch_size_px
        if side & (side - 1):
            remedy = "use 16, 32, 64, 128, ..."
            if self.source == MEASURED:
                remedy = f"import patterns of {2 ** (side.bit_length() - 1)} with --crop or --bin"
            raise ValueError(
                f"patch_size_px = {side}: the autoencoder halves the patch down to 8 pixels; "
                f"{remedy}"
            )
        if len(set(self.doses)) < len(self.doses):
            raise ValueError(f"doses = {list(self.doses)}: leave out the repeated dose")
        names = [view.name for view in self.views]
        if len(set(names)) < len(names):
            raise ValueError(f"views = {names}: leave out the repeated view")
        for view in self.views:
            if self.neighbor_count < view.gridsize**2:
                raise ValueError(
                    f"neighbor_count = {self.neighbor_count} < {view.gridsize**2} patterns per "
                    f"group of view {view.name} (OVERSAMPLING-001); raise neighbor_count"
                )
        band = self.split.guard_band_px
        if band is not None and band <= side:
            raise ValueError(
                f"split.guard_band_px = {band}: both splits would light the same object rows; set "
                f"at least {side + 1} for patch_size_px = {side}, or null"
            )
        if self.scan.kind == MEASURED and self.base is None:
            raise ValueError(
                "scan.kind = measured: there are no measured positions without base data; give "
                "--base-npz or choose raster, spiral, fermat or uniform"
            )
        return self

    @model_validator(mode="after")
    def check_source(self) -> "StudyDesign":
        """Check that measured counts are there, and that nothing is asked of a simulation."""
        if self.source == SIMULATED:
            return self
        if self.base is None:
            raise ValueError(
                "source = measured: there are no counts without base data; give --base-npz with "
                "patterns in it, or leave source out"
            )
        simulated = {
            "detector": self.detector.model_dump(exclude_defaults=True),
            "mismatch": self.mismatch.model_dump(exclude_defaults=True),
            "scan": {} if self.scan.kind == MEASURED else {"kind": self.scan.kind},
        }
        found = [
            f"{table}.{name} = {value}"
            for table, values in simulated.items()
            for name, value in values.items()
        ]
        if found:
            raise ValueError(f"{'; '.join(found)}: {OF_A_SIMULATION}")
        side, own = self.patch_size_px, self.base.probe_side_px
        if side != own:
            raise ValueError(
                f"patch_size_px = {side}: the patterns of {self.base.name} have {own} pixels a "
                "side, and fewer of them are those of another object pixel; leave patch_size_px "
                "out, import the data with --crop or --bin, or choose --simulated"
            )
        return self

    @model_validator(mode="after")
    def check_points(self) -> "StudyDesign":
        """Check that points are of the design's doses and views, and leave none of these out."""
        if not self.points:
            return self
        if len(set(self.points)) < len(self.points):
            raise ValueError("points: one occurs twice; leave out the second")
        named: dict[str, tuple[set[Any], set[Any]]] = {
            "dose": ({dose for dose, _ in self.points}, set(self.doses)),
            "view": ({view for _, view in self.points}, {view.name for view in self.views}),
        }
        for axis, (used, known) in named.items():
            for found, fault in (
                (used - known, "not of the design"),
                (known - used, "in no point"),
            ):
                if found:
                    raise ValueError(
                        f"points: {axis} {min(found)} is {fault}; doses, views and points have to "
                        "name the same"
                    )
        return self

    @model_validator(mode="after")
    def check_patch(self) -> "StudyDesign":
        """Check every length against the patch that it has to lie in."""
        side, mismatch = self.patch_size_px, self.mismatch
        around, scanned = "half a patch is all that surrounds the scored field", self.scan
        lengths = [
            ("metrics.registration_limit_px", self.metrics.registration_limit_px, side / 2, around),
            (
                "detector.beamstop_radius_px",
                self.detector.beamstop_radius_px,
                side / 2 - 1,
                "more hides the whole detector",
            ),
            (
                "mismatch.position_error_px",
                mismatch.largest("position_error_px"),
                side / 4,
                "farther off, a patch is another one",
            ),
        ]
        if self.base is None:  # a base file has its own probe
            back = "beyond half a patch the wave comes in again on the other side"
            defocus_px = self.probe.defocus_radius_px
            lengths.append(("probe.defocus_radius_px", defocus_px, side / 2, back))
            percent = mismatch.largest("defocus_error_percent")
            if percent and not defocus_px:
                raise ValueError(
                    f"mismatch.defocus_error_percent = {percent:g}: the probe is in focus, which "
                    "leaves nothing to take percents of; raise probe.defocus_radius_px"
                )
            most = 100 * (side / 2 / (defocus_px or side) - 1)
            lengths.append(("mismatch.defocus_error_percent", percent, max(0, most), back))
        if scanned.kind != MEASURED:
            apart = "patches farther apart share nothing and leave rows dark"
            moved = "positions that are moved by more than a patch are scan.kind uniform"
            lengths.append(("scan.step_px", scanned.step_px, side, apart))
            lengths.append(("scan.jitter_px", scanned.jitter_px, side, moved))
        for name, found, limit, reason in lengths:
            if found > limit:
                raise ValueError(
                    f"{name} = {found:g}; at most {limit:g} for patch_size_px = {side}: {reason}"
                )
        if self.base is None and self.probe.aperture_per_px * side < 1:
            raise ValueError(
                f"probe.aperture_per_px = {self.probe.aperture_per_px:g}; at least {1 / side:g} "
                f"for patch_size_px = {side}: a smaller pupil is narrower than a detector pixel"
            )
        return self

    @model_validator(mode="after")
    def check_dose(self) -> "StudyDesign":
        """Check that a dose can be turned into photons, and those of a pattern against the rest."""
        if self.dose_per == "pattern":
            fault = self.fault_of_photons(min(self.doses), max(self.doses))
            if fault:
                raise ValueError(fault)
        if self.pixel_size_m and self.base and self.base.pixel_size_m:
            raise ValueError(
                f"pixel_size_m = {self.pixel_size_m:g}: {self.base.name} has its own, "
                f"{self.base.pixel_size_m:g}; set it to null"
            )
        for text in self.wanted:
            try:
                wanted_of(text).level_at(self.pixel_m)
            except InputError as error:
                raise ValueError(str(error)) from None
        if self.material and self.pixel_m is None:
            raise ValueError(
                f"material = {self.material.formula}: a dose in gray needs the size of an object "
                "pixel, which is not known; set pixel_size_m, or give base data that know it"
            )
        if self.dose_per in PER_AREA_M2 and self.pixel_m is None:
            raise ValueError(
                f"dose_per = {self.dose_per}: the size of an object pixel is not known; set "
                "pixel_size_m, give base data that know it, or use dose_per = pixel"
            )
        return self

    def fault_of_photons(self, least: float, most: float) -> str:
        """Return what is wrong with the photons of the faintest and the brightest pattern.

        Against what a detector adds and loses, and what the solver holds back; empty if nothing is.
        """
        pixels, detector, solver = self.patch_size_px**2, self.detector, self.iterative.solver
        limit = detector.saturation_counts
        background = self.mismatch.largest("background_counts")
        faults = {
            f"{least:.3g} photons in a pattern; at least 1; raise doses, or keep fewer positions": (
                least < 1
            ),
            f"{most:.3g} photons in a pattern; at most {PHOTONS_OF_A_PATTERN_MAX:g}: beyond, "
            "single precision cannot tell one photon": most > PHOTONS_OF_A_PATTERN_MAX,
            f"detector.dark_counts = {detector.dark_counts:g}; at most {least / pixels:g}: "
            f"{pixels} pixels would count more of them than the {least:g} photons of a pattern": (
                detector.dark_counts * pixels > least
            ),
            f"mismatch.background_counts = {background:g}; at most {least / pixels:g}: "
            f"{pixels} pixels would count more of them than the {least:g} photons of a pattern": (
                background * pixels > least
            ),
            f"detector.saturation_counts = {limit}; at least {int(np.ceil(most / pixels))}: "
            f"{pixels} pixels could not count the {most:g} photons of a pattern": (
                limit is not None and limit * pixels < most
            ),
            f"iterative.solver.held_out_share = {solver.held_out_share:g}; at least "
            f"{1 / pixels:g}, or 0 for none: less than one of {pixels} pixels is kept back": (
                0 < solver.held_out_share * pixels < 1
            ),
            f"iterative.solver.total_variation = {solver.total_variation:g}; at most {least:g}: a "
            "jump one pixel long would cost more than the photons of a pattern, and the object "
            "would be flat": solver.total_variation > least,
        }
        return next((text for text, holds in faults.items() if holds), "")

    @property
    def is_measured(self) -> bool:
        """Whether counts are those of the base data, and not simulated."""
        return self.source == MEASURED

    @property
    def held_against(self) -> str:
        """What every object is held against: the truth, or of measured counts a reference."""
        return "reference" if self.is_measured else "truth"

    @property
    def probe_known(self) -> str:
        """Which probe every arm is given, in words."""
        return "probe of the reference" if self.is_measured else "probe"

    @property
    def pixel_m(self) -> float | None:
        """The side of an object pixel, if it is known."""
        return self.pixel_size_m or (self.base.pixel_size_m if self.base else None)

    @property
    def dose_unit(self) -> str:
        """What a dose counts, such as ``photons per pattern``."""
        return UNITS[self.dose_per]

    def dose_name(self, dose: float) -> str:
        """Return the folder name of a dose, with its unit."""
        return dose_name(dose, self.dose_per)

    def photons_per_pattern(self, dose: float, lit_px: int, patterns: int) -> float:
        """Return the mean photons that each pattern of a view has at a dose.

        Parameters
        ----------
        dose
            In the design's unit.
        lit_px
            Object pixels that all positions of the split light.
        patterns
            How many of them the view keeps: those share the photons of the area.
        """
        if self.dose_per == "pattern":
            return dose
        per_pixel = dose
        if self.dose_per in PER_AREA_M2 and self.pixel_m:
            per_pixel = dose * self.pixel_m**2 / PER_AREA_M2[self.dose_per]
        return per_pixel * lit_px / patterns

    @property
    def compared_splits(self) -> tuple[SplitName, ...]:
        """The splits whose objects are scored."""
        return SPLITS if self.compare_train else ("test",)

    @property
    def digest(self) -> str:
        """First eight hexadecimal digits of the SHA-256 of every value of the design."""
        text = json.dumps(self.model_dump(mode="json"), sort_keys=True)
        return hashlib.sha256(text.encode()).hexdigest()[:8]

    @property
    def guard_band_px(self) -> int:
        """Rows between the patch centres of the two splits; one more than N, for the rounding."""
        return self.split.guard_band_px or self.patch_size_px + 1

    @property
    def noise_seeds(self) -> SeedDesign:
        """The seeds of this replicate; object, scan and detector keep those of the design."""
        if self.replicate == 0:
            return self.seeds
        return SeedDesign(
            **{
                name: int(np.random.SeedSequence([seed, self.replicate]).generate_state(1)[0])
                for name, seed in self.seeds.model_dump().items()
            }
        )

    @property
    def repetitions(self) -> tuple["StudyDesign", ...]:
        """The designs of a run's replicates; the first is this one."""
        mismatch = self.mismatch.with_one()
        return (self, *(self._repeated(step, mismatch) for step in range(1, self.replicates)))

    @property
    def levels(self) -> tuple[tuple[str, float, tuple["StudyDesign", ...]], ...]:
        """Each listed value of a mismatch: field, value, and the designs of its replicates."""
        return tuple(
            (
                field,
                level,
                tuple(
                    self._repeated(step, self.mismatch.with_one(field, level))
                    for step in range(self.replicates)
                ),
            )
            for field, levels in self.mismatch.lists.items()
            for level in levels
        )

    def _repeated(self, step: int, mismatch: MismatchDesign) -> "StudyDesign":
        """Return the design of one replicate alone, so many after the first."""
        trained = self.trained_replicates or self.replicates
        changes: dict[str, Any] = {"replicate": self.replicate + step, "mismatch": mismatch}
        changes |= {"replicates": 1, "trained_replicates": None}
        without = {} if step < trained else {"training": None, "thinned": None}
        return self.model_copy(update=changes | without)

    @property
    def precision(self) -> str:
        """The type of the convolutions; ``auto`` where no network says."""
        return self.training.precision if self.training else "auto"

    def views_at(self, dose: float) -> tuple[ViewDesign, ...]:
        """Return the views that are computed at a dose: all of them, unless there are points."""
        if not self.points:
            return self.views
        names = {view for other, view in self.points if other == dose}
        return tuple(view for view in self.views if view.name in names)

    def doses_of(self, view: str) -> tuple[float, ...]:
        """Return the doses at which a view is computed: all of them, unless there are points."""
        if not self.points:
            return self.doses
        doses = {dose for dose, other in self.points if other == view}
        return tuple(dose for dose in self.doses if dose in doses)

    @property
    def condition_count(self) -> int:
        """How many pairs of a dose and a view are computed."""
        return len(self.points) or len(self.doses) * len(self.views)

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


def require_split(split: str) -> str:
    """Return a split's name.

    Raises
    ------
    InputError
        If there is no such split.
    """
    if split not in SPLITS:
        raise InputError(f"split {split!r} does not exist; choose one of {', '.join(SPLITS)}")
    return split
