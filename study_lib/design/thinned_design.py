"""The numbers behind `pinn-thinned`, the network that learns from thinned counts."""

from typing import Annotated

from pydantic import Field, model_validator

from study_lib.design.settings import Frozen

Share = Annotated[float, Field(gt=0, lt=1)]
Kept = Annotated[float, Field(gt=0, le=1)]


class ThinnedDesign(Frozen):
    """A network trained on top of the solver, by counts that were kept from it."""

    members: int = Field(
        ge=1, description="networks of other weights and order; their spread is shown"
    )
    sets: int = Field(ge=1, description="thinnings of the train split that they learn from")
    steps: int = Field(ge=1, description="of each member")
    patterns_per_step: int = Field(ge=1, description="whose kept-back counts a step explains")
    learning_rate: float = Field(gt=0, description="the highest; it rises, then falls to zero")
    weight_decay: float = Field(ge=0)
    gradient_clip_norm: float = Field(gt=0, description="of the loss in nats per pattern")
    photon_shares: tuple[Share, Share] = Field(
        description="least and most photons that an input is made from"
    )
    kept_positions: tuple[Kept, ...] = Field(
        min_length=1, description="shares of the positions that inputs are made from, in turn"
    )
    judged_share: Share = Field(description="photons left for choices, the rest judges them")
    validation_share: float = Field(
        gt=0, lt=0.5, description="of the train split, a strip at its end; decides on trust"
    )
    widths: tuple[int, int, int] = Field(description="channels of the network's three stages")
    residual_scale: float = Field(
        ge=0, default=0.3, description="of the transmission that one unit of the output adds"
    )
    data_steps: int = Field(
        ge=0,
        default=0,
        description="steps of data consistency after the network, each with a stage of its own",
    )
    turned_views: bool = Field(
        default=True, description="whether it learns from turned and mirrored objects too"
    )
    thinnings: int = Field(ge=2, description="of a measurement, whose spread is shown")

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
