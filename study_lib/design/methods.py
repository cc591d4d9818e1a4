"""How objects are reconstructed: the settings of iterative algorithms and of both networks."""

from typing import Annotated, Literal

from pydantic import Field, model_validator

from study_lib.arm_names import OTHER_NOISE_MODEL
from study_lib.design.limits import (
    EPOCHS_REASON,
    TIME_REASON,
    Epochs,
    HeldBack,
    Kept,
    Norm,
    Patience,
    Patterns,
    Rate,
    Share,
    Width,
    at_most,
    in_order,
)
from study_lib.design.settings import Frozen

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
        Literal[
            "LSQML",
            "LSQML-poisson",
            "solver",
            "solver-amplitude",
            "PIE",
            "ePIE",
            "rPIE",
            "DM",
            "RAAR",
            "BH",
            "autodiff",
        ],
        ...,
    ] = Field(
        min_length=1,
        description="each is an arm; all but solver are of pty-chi. LSQML-poisson and "
        "solver-amplitude are these two with the other noise model",
    )
    probe: Literal["known", "refine"] = Field(
        description="refine: unknown to every algorithm, which starts from the given one"
    )
    positions: Literal["given", "refine"] = Field(
        default="given",
        exclude_if=lambda positions: positions == "given",
        description="refine: found too, near the given ones, by every algorithm that can",
    )
    epochs: Epochs = Field(description="of pty-chi's, at most")
    batch_size: Patterns = Field(description="patterns per update of pty-chi's")
    noise_model: Literal["gaussian", "poisson"] = Field(
        description="of LSQML; others: gaussian, that is squared differences of amplitudes"
    )
    momentum: float = Field(ge=0, lt=1, description="gain of LSQML's acceleration; 0: none")
    tolerance: float = Field(
        ge=0,
        le=1,
        default=0.0,
        exclude_if=lambda tolerance: tolerance == 0,
        description="relative fall of LSQML's loss per epoch that is no progress; 0: all epochs",
    )
    solver: SolverDesign
    denoised: bool = Field(
        default=False,
        description="whether each is also shown denoised, an arm of its own, as held-out counts of "
        "the train split choose",
    )
    alternating: bool = Field(
        default=False,
        exclude_if=lambda alternating: not alternating,
        description="whether steps of the solver and a denoiser in turn are an arm, too, as "
        "held-out counts of the train split choose",
    )
    judged_share: Share = Field(
        default=0.8, description="photons left to the object that these counts judge"
    )

    @model_validator(mode="after")
    def check_algorithms(self) -> "IterativeDesign":
        """Check that no algorithm comes twice, and that what alternates is there."""
        if len(set(self.algorithms)) < len(self.algorithms):
            raise ValueError(f"algorithms {', '.join(self.algorithms)}: name each once")
        for name, setting, same in (
            ("LSQML", "noise_model", self.noise_model == "poisson"),
            ("solver", "solver.objective", self.solver.objective == "amplitude"),
        ):
            other = OTHER_NOISE_MODEL[name]
            if same and {name, other} <= set(self.algorithms):
                raise ValueError(f"with this {setting} {other} is {name}; leave one of both out")
        if self.alternating and "solver" not in self.algorithms:
            raise ValueError(
                "alternating = true starts from the solver's object; add solver to algorithms"
            )
        if self.alternating and self.solver.objective != "poisson":
            raise ValueError(
                "alternating = true goes down the likelihood, and solver.objective is "
                f"{self.solver.objective}; set it to poisson"
            )
        if self.alternating and (self.probe, self.positions) != ("known", "given"):
            raise ValueError(
                "alternating = true takes probe and positions as given, and they are refined here; "
                "leave one of both out"
            )
        return self

    @property
    def is_chosen(self) -> bool:
        """Whether one of an algorithm's noise models is chosen, by a known probe."""
        return self.denoised and (self.probe, self.positions) == ("known", "given")

    @property
    def chooses(self) -> bool:
        """Whether held-out counts of the train split choose something for an arm."""
        return self.denoised or self.alternating


# --- The networks


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

    check_rates = in_order("learning_rate_min", "learning_rate")


# Fields of the thinning network that add an arm and change no training.
ARMS_ALONE = ("base_shown", "self_taught")


class ThinnedDesign(Frozen):
    """A network trained on top of the solver, by counts that were kept from it."""

    members: Annotated[int, at_most(100, TIME_REASON)] = Field(
        ge=1, description="networks of other weights and order; their spread is shown"
    )
    sets: Annotated[int, at_most(1000, TIME_REASON)] = Field(
        ge=1, description="thinnings of the patterns that they learn from"
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
        description="of the patterns that each member leaves out, to be judged by; no two the same"
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
        ge=2,
        description="of a measurement, by which it is judged; and draws that its spread is from",
    )
    epochs_in_turn: Annotated[int, at_most(1000, TIME_REASON)] = Field(
        ge=1,
        default=40,
        exclude_if=lambda epochs: epochs == 40,
        description="of the solver's steps and a denoiser in turn, among what it is shown",
    )
    base_shown: bool = Field(
        default=False,
        exclude_if=lambda base_shown: not base_shown,
        description="whether what the network starts from is an arm, too",
    )
    self_taught: bool = Field(
        default=False,
        exclude_if=lambda self_taught: not self_taught,
        description="whether a network taught by the test split's own counts is an arm, too",
    )

    @property
    def taught_by(self) -> tuple[str, ...]:
        """The splits whose counts teach a network, each one of its own."""
        return ("train", "test") if self.self_taught else ("train",)

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
