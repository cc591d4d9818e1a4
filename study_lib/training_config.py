"""Every knob of one training in one frozen model, and the way to it from a design."""

from typing import Any

from pydantic import Field

from study_lib.design import StudyDesign, TrainingDesign
from study_lib.settings import Frozen

MACHINE_KNOBS = frozenset({"device", "threads", "compile"})


class Machine(Frozen):
    """What a training runs on: its weights depend on it in their last digits only."""

    device: str = Field(
        pattern=r"^(auto|cpu|cuda(:\d+)?)$",
        description="auto: a CUDA device if there is one; cuda:1 names one of several",
    )
    threads: int | None = Field(ge=1, description="null: as many as torch has now")
    compile: bool = Field(description="whether torch.compile translates the network first")


ANY_MACHINE = Machine(device="auto", threads=None, compile=False)


class TrainingConfig(TrainingDesign, Machine):
    """One training: the design's knobs, what the view and the replicate add, and the machine."""

    channels: int = Field(ge=1, description="patterns per group, gridsize squared")
    side_px: int = Field(ge=16, description="side N of a pattern")
    seed: int = Field(ge=0, lt=2**32)

    @property
    def decisive(self) -> dict[str, Any]:
        """All values but those of the machine."""
        return self.model_dump(mode="json", exclude=set(MACHINE_KNOBS))


def training_config(
    design: StudyDesign, view_name: str, machine: Machine = ANY_MACHINE
) -> TrainingConfig:
    """Return the training of one view of a design; the dose is in the data alone.

    Raises
    ------
    InputError
        If the design has no such view.
    """
    return TrainingConfig(
        **design.training.model_dump(),
        **machine.model_dump(),
        channels=design.view(view_name).gridsize ** 2,
        side_px=design.patch_size_px,
        seed=design.noise_seeds.training,
    )
