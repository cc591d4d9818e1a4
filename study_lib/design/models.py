"""The design of a study: every number that decides a result, in one frozen model."""

import hashlib
import json
from typing import Annotated, Any, Literal

import numpy as np
from pydantic import Field, model_validator

from study_lib.design.limits import (
    EPOCHS_REASON,
    OBJECT_SIDE_MAX_PX,
    POSITIONS_MAX,
    POSITIONS_REASON,
    SIDE_REASON,
    TIME_REASON,
    Epochs,
    HeldBack,
    Kept,
    Length,
    Norm,
    Patience,
    Patterns,
    Rate,
    Share,
    Width,
    at_least,
    at_most,
)
from study_lib.design.settings import Frozen
from study_lib.errors import InputError

# --- What is measured: object, probe, scan, detector

PhaseRange = Annotated[
    float, Field(gt=0, lt=6.28, description="largest minus smallest phase, radian")
]
AmplitudeMin = Annotated[float, Field(gt=0, le=1, description="the largest amplitude is 1")]


def _in_order(smaller: str, larger: str) -> Any:
    """Return the check of a model that the first of two fields is not above the second."""

    def check(model: Frozen) -> Frozen:
        low, high = getattr(model, smaller), getattr(model, larger)
        if low > high:
            raise ValueError(f"{smaller} {low} > {larger} {high}; swap them")
        return model

    return model_validator(mode="after")(check)


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

    check_sizes = _in_order("smallest_grain_px", "largest_grain_px")


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

    check_sizes = _in_order("smallest_cell_px", "largest_cell_px")


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


# --- Iterative arms: algorithms of pty-chi and the project's own solver


class SolverDesign(Frozen):
    """The project's own solver; what it leaves out keeps the solver's defaults."""

    epochs: Epochs = Field(description="at most; it stops where it has converged")
    objective: Literal["amplitude", "poisson"] = Field(
        description="squared error of the roots, or likelihood of the counts"
    )
    tolerance: float = Field(
        ge=0, le=1, description="relative fall of the objective per epoch that is no progress"
    )
    held_out_share: float = Field(
        ge=0, le=0.5, description="detector pixels whose counts are kept back to stop by; 0: none"
    )
    total_variation: Annotated[
        float, at_most(1e9, "a jump would cost more than any pattern's photons")
    ] = Field(ge=0, description="photons a jump of 1, one pixel long, costs")


class IterativeDesign(Frozen):
    """Iterative reconstruction: engines of pty-chi by name, and the project's own solver."""

    algorithms: tuple[
        Literal["LSQML", "solver", "PIE", "ePIE", "rPIE", "DM", "RAAR", "BH", "autodiff"], ...
    ] = Field(min_length=1, description="each is an arm; all but solver are of pty-chi")
    probe: Literal["known", "refine"] = Field(
        description="refine: unknown to every algorithm, which starts from the given one"
    )
    epochs: Epochs = Field(description="of pty-chi's")
    batch_size: Patterns = Field(description="patterns per update of pty-chi's")
    noise_model: Literal["gaussian", "poisson"] = Field(description="of LSQML; others: gaussian")
    momentum: float = Field(ge=0, lt=1, description="gain of LSQML's acceleration; 0: none")
    solver: SolverDesign
    denoised: bool = Field(
        default=False,
        description="whether each is also shown denoised, an arm of its own, as held-out counts of "
        "the train split choose",
    )
    judged_share: Share = Field(
        default=0.8, description="photons left to the object that these counts judge"
    )

    @model_validator(mode="after")
    def check_algorithms(self) -> "IterativeDesign":
        """Check that no algorithm comes twice."""
        if len(set(self.algorithms)) < len(self.algorithms):
            raise ValueError(f"algorithms {', '.join(self.algorithms)}: name each once")
        return self


# --- The thinning network: it learns from thinned counts


class ThinnedDesign(Frozen):
    """A network trained on top of the solver, by counts that were kept from it."""

    members: Annotated[int, at_most(100, TIME_REASON)] = Field(
        ge=1, description="networks of other weights and order; their spread is shown"
    )
    sets: Annotated[int, at_most(1000, TIME_REASON)] = Field(
        ge=1, description="thinnings of the train split that they learn from"
    )
    steps: Epochs = Field(description="of each member")
    patterns_per_step: Patterns = Field(description="whose kept-back counts a step explains")
    learning_rate: Rate = Field(gt=0, description="the highest; it rises, then falls to zero")
    weight_decay: Annotated[float, at_most(100, "the weights would vanish in one step")] = Field(
        ge=0
    )
    gradient_clip_norm: Norm = Field(gt=0, description="of the loss in nats per pattern")
    photon_shares: tuple[Share, Share] = Field(
        description="least and most photons that an input is made from"
    )
    kept_positions: tuple[Kept, ...] = Field(
        min_length=1, description="shares of the positions that inputs are made from, in turn"
    )
    judged_share: Share = Field(description="photons left for choices, the rest judges them")
    validation_share: HeldBack = Field(
        description="of the train split, a strip at its end; decides on trust"
    )
    widths: tuple[Width, Width, Width] = Field(description="channels of the network's three stages")
    residual_scale: Annotated[
        float,
        at_most(10, "ten times the largest transmission"),
    ] = Field(ge=0, default=0.3, description="of the transmission that one unit of the output adds")
    data_steps: Annotated[int, at_most(100, "each has a network stage of its own")] = Field(
        ge=0,
        default=0,
        description="steps of data consistency after the network, each with a stage of its own",
    )
    turned_views: bool = Field(
        default=True, description="whether it learns from turned and mirrored objects too"
    )
    thinnings: Annotated[int, at_most(1000, TIME_REASON)] = Field(
        ge=2, description="of a measurement, whose spread is shown"
    )

    @model_validator(mode="after")
    def check_shares(self) -> "ThinnedDesign":
        """Check that the least share comes first, and that there is a whole input to judge by."""
        low, high = self.photon_shares
        if low > high:
            raise ValueError(f"photon_shares: {low} > {high}; swap them")
        if self.kept_positions[0] != 1:
            raise ValueError(
                f"kept_positions = {list(self.kept_positions)}: begin with 1, the network is "
                "judged on inputs of all positions"
            )
        if min(self.widths) < 1:
            raise ValueError(f"widths = {list(self.widths)}: use 1 or more")
        return self


# --- A study

ViewName = Literal["baseline", "dense", "sparse"]
SplitName = Literal["train", "test"]
SelectionName = Literal["uniform", "blue_noise"]
SPLITS: tuple[SplitName, ...] = ("train", "test")
Seed = Annotated[int, Field(ge=0, lt=2**32)]
Dose = Annotated[
    float, Field(gt=0), at_most(1e12, "beyond, single precision cannot tell one photon")
]


class ViewDesign(Frozen):
    """Which patterns of a split are used, and how they are grouped."""

    name: ViewName
    gridsize: Literal[1, 2]
    target_overlap: float | None = Field(
        gt=0, lt=1, default=None, description="metric 2 to reach by leaving positions out"
    )
    s_img: float | None = Field(
        gt=0, le=1, default=None, description="share of positions to keep, instead of a target"
    )
    selection: SelectionName = Field(
        default="uniform",
        description="which positions are kept: random ones, or evenly spread (default of sparse)",
    )
    n_groups: Annotated[int | None, at_most(100_000_000, TIME_REASON)] = Field(
        ge=1, default=None, description="null: groups_per_pattern for each pattern"
    )
    oversampling: bool = Field(default=False, description="allow n_groups above the patterns")
    groups_per_pattern: Annotated[int, at_most(1000, TIME_REASON)] = Field(
        ge=1, default=1, description="groups that each pattern leads, on average"
    )

    @model_validator(mode="before")
    @classmethod
    def choose_selection(cls, given: Any) -> Any:
        """Let the sparse view keep evenly spread positions, unless it says otherwise."""
        if isinstance(given, dict) and given.get("name") == "sparse":
            return {"selection": "blue_noise"} | given
        return given

    @model_validator(mode="after")
    def check_choice(self) -> "ViewDesign":
        """Check what is kept and grouped, and that the view has the gridsize it is named for."""
        if self.target_overlap is not None and self.s_img is not None:
            raise ValueError(
                f"target_overlap {self.target_overlap} and s_img {self.s_img} both say what is "
                "kept; set one of them to null"
            )
        plain = ViewDesign.model_construct(name="baseline", gridsize=1, selection=self.selection)
        if self.name == "baseline" and self != plain:
            raise ValueError(
                "baseline is every pattern by itself; set gridsize 1, leave out target_overlap, "
                "s_img, n_groups, oversampling and groups_per_pattern"
            )
        if self.n_groups is not None and self.groups_per_pattern > 1:
            raise ValueError(
                f"n_groups {self.n_groups} and groups_per_pattern {self.groups_per_pattern} both "
                "say how many groups; leave one of them out"
            )
        if self.name != "baseline" and self.gridsize != 2:
            raise ValueError(f"{self.name}: gridsize {self.gridsize}; set it to 2")
        return self


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


class TrainingDesign(Frozen):
    """Physics-informed network; original values of the study in the comments of the presets."""

    epochs: Epochs
    steps_min: Annotated[int, at_most(100_000_000, EPOCHS_REASON)] = Field(
        ge=0, description="small views get more epochs, up to this many steps"
    )
    batch_size: Patterns = Field(description="groups per step")
    learning_rate: Rate = Field(gt=0)
    learning_rate_min: Rate = Field(gt=0)
    schedule: Literal["cosine", "plateau"] = Field(
        description="the rate falls along half a cosine to learning_rate_min, or by half whenever "
        "the validation loss stops falling"
    )
    plateau_patience: Patience = Field(
        ge=0, description="epochs without progress before halving (plateau only)"
    )
    early_stopping_patience: Patience | None = Field(
        ge=1, description="epochs without progress before training ends; null: it never does"
    )
    final_weights: Literal["last", "best"] = Field(
        description="of the last epoch, or of the one with the smallest validation loss"
    )
    gradient_clip_norm: Norm | None = Field(
        gt=0, description="longest gradient of a step; null: gradients are left alone"
    )
    loss: Literal["poisson", "amplitude"] = Field(
        description="likelihood of the counts, or squared error of their roots"
    )
    network: str = Field(pattern="^[a-z0-9_-]+$", description="a registered network")
    filters_scale: Annotated[int, at_most(32, "weights and time grow with the square")] = Field(
        ge=1, description="width multiplier of the autoencoder"
    )
    validation_share: HeldBack
    precision: Literal["float32", "bfloat16", "auto"] = Field(
        description="of the convolutions; auto: bfloat16 where the processor has it"
    )

    check_rates = _in_order("learning_rate_min", "learning_rate")


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


class BaseData(Frozen):
    """A base NPZ that gives object, probe and scan positions instead of the synthetic ones."""

    name: str
    sha256: str = Field(pattern="^[0-9a-f]{64}$")
    probe_side_px: int = Field(ge=16, le=2**16)


class StudyDesign(Frozen):
    """One study: doses x overlap views, for every arm."""

    preset: str = Field(pattern="^[a-z0-9_-]+$")
    patch_size_px: Annotated[int, at_most(1024, "weights and time grow with the square")] = Field(
        ge=16, description="detector and patch side N"
    )
    doses: tuple[Dose, ...] = Field(min_length=1, description="mean photons per pattern")
    specimen: SpecimenDesign
    probe: ProbeDesign
    scan: ScanDesign
    detector: DetectorDesign = DetectorDesign()
    views: tuple[ViewDesign, ...] = Field(min_length=1)
    neighbor_count: Annotated[int, at_most(POSITIONS_MAX, POSITIONS_REASON)] = Field(
        ge=1, description="K nearest neighbours"
    )
    probe_power_share: float = Field(
        gt=0, lt=1, description="power inside the area that defines the probe diameter"
    )
    seeds: SeedDesign
    training: TrainingDesign
    iterative: IterativeDesign
    thinned: ThinnedDesign | None = Field(
        default=None, description="the network that learns from thinned counts; null: none"
    )
    metrics: MetricsDesign
    split: SplitDesign = SplitDesign()
    object_patches: bool = Field(
        default=False, description="write the true patches Y too: three times the disk space"
    )
    replicate: Annotated[int, at_most(2**31, "replicates name folders")] = Field(
        ge=0, default=0, description="repetition: another noise, training and choice of patterns"
    )
    replicates: int = Field(
        ge=1, default=1, description="repetitions of a run, counted from `replicate` on"
    )
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
            if self.neighbor_count < view.gridsize**2:
                raise ValueError(
                    f"neighbor_count = {self.neighbor_count} < {view.gridsize**2} patterns per "
                    f"group of view {view.name} (OVERSAMPLING-001); raise neighbor_count"
                )
        targets = {view.name: view.target_overlap for view in self.views}
        dense, sparse = targets.get("dense"), targets.get("sparse")
        if dense is not None and sparse is not None and dense < sparse:
            raise ValueError(f"views: target of dense {dense} < that of sparse {sparse}; swap them")
        band = self.split.guard_band_px
        if band is not None and band <= side:
            raise ValueError(
                f"split.guard_band_px = {band}: both splits would light the same object rows; set "
                f"at least {side + 1} for patch_size_px = {side}, or null"
            )
        if self.scan.kind == "measured" and self.base is None:
            raise ValueError(
                "scan.kind = measured: there are no measured positions without base data; give "
                "--base-npz or choose raster, spiral, fermat or uniform"
            )
        return self

    @model_validator(mode="after")
    def check_patch(self) -> "StudyDesign":
        """Check every length against the patch that it has to lie in."""
        side = self.patch_size_px
        around, scanned = "half a patch is all that surrounds the scored field", self.scan
        lengths = [
            ("metrics.registration_limit_px", self.metrics.registration_limit_px, side / 2, around),
            (
                "detector.beamstop_radius_px",
                self.detector.beamstop_radius_px,
                side / 2 - 1,
                "more hides the whole detector",
            ),
        ]
        if self.base is None:  # a base file has its own probe
            back = "beyond half a patch the wave comes in again on the other side"
            defocus_px = self.probe.defocus_radius_px
            lengths.append(("probe.defocus_radius_px", defocus_px, side / 2, back))
        if scanned.kind != "measured":
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
    def check_photons(self) -> "StudyDesign":
        """Check what a detector adds, loses and holds back against the photons of every dose."""
        pixels, detector = self.patch_size_px**2, self.detector
        least, most = min(self.doses), max(self.doses)
        dark = detector.dark_counts * pixels
        if dark > least:
            raise ValueError(
                f"detector.dark_counts = {detector.dark_counts:g}; at most {least / pixels:g}: "
                f"{pixels} pixels would count more of them than the {least:g} photons of a pattern"
            )
        limit = detector.saturation_counts
        if limit is not None and limit * pixels < most:
            raise ValueError(
                f"detector.saturation_counts = {limit}; at least {int(np.ceil(most / pixels))}: "
                f"{pixels} pixels could not count the {most:g} photons of a pattern"
            )
        solver = self.iterative.solver
        if 0 < solver.held_out_share * pixels < 1:
            raise ValueError(
                f"iterative.solver.held_out_share = {solver.held_out_share:g}; at least "
                f"{1 / pixels:g}, or 0 for none: less than one of {pixels} pixels is kept back"
            )
        if solver.total_variation > least:
            raise ValueError(
                f"iterative.solver.total_variation = {solver.total_variation:g}; at most "
                f"{least:g}: a jump one pixel long would cost more than the photons of a pattern, "
                "and the object would be flat"
            )
        return self

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
        others = (
            self.model_copy(update={"replicate": self.replicate + step, "replicates": 1})
            for step in range(1, self.replicates)
        )
        return (self, *others)

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
