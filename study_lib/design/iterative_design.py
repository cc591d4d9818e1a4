"""The numbers behind the iterative arms: algorithms of pty-chi and the project's own solver."""

from typing import Literal

from pydantic import Field, model_validator

from study_lib.design.settings import Frozen


class SolverDesign(Frozen):
    """The project's own solver; what it leaves out keeps the solver's defaults."""

    epochs: int = Field(ge=1, description="at most; it stops where it has converged")
    objective: Literal["amplitude", "poisson"] = Field(
        description="squared error of the roots, or likelihood of the counts"
    )
    tolerance: float = Field(
        ge=0, le=1, description="relative fall of the objective per epoch that is no progress"
    )
    held_out_share: float = Field(
        ge=0, le=0.5, description="detector pixels whose counts are kept back to stop by; 0: none"
    )
    total_variation: float = Field(ge=0, description="photons a jump of 1, one pixel long, costs")


class IterativeDesign(Frozen):
    """Iterative reconstruction: engines of pty-chi by name, and the project's own solver."""

    algorithms: tuple[
        Literal["LSQML", "solver", "PIE", "ePIE", "rPIE", "DM", "RAAR", "BH", "autodiff"], ...
    ] = Field(min_length=1, description="each is an arm; all but solver are of pty-chi")
    probe: Literal["known", "refine"] = Field(
        description="refine: unknown to every algorithm, which starts from the given one"
    )
    epochs: int = Field(ge=1, description="of pty-chi's")
    batch_size: int = Field(ge=1, description="patterns per update of pty-chi's")
    noise_model: Literal["gaussian", "poisson"] = Field(description="of LSQML; others: gaussian")
    momentum: float = Field(ge=0, lt=1, description="gain of LSQML's acceleration; 0: none")
    solver: SolverDesign
    denoised: bool = Field(
        default=False,
        description="whether each is also shown denoised, an arm of its own: by what counts of the "
        "train split choose that the object was not made from",
    )
    judged_share: float = Field(
        gt=0, lt=1, default=0.8, description="photons left to the object that these counts judge"
    )

    @model_validator(mode="after")
    def check_algorithms(self) -> "IterativeDesign":
        """Check that no algorithm comes twice."""
        if len(set(self.algorithms)) < len(self.algorithms):
            raise ValueError(f"algorithms {', '.join(self.algorithms)}: name each once")
        return self
