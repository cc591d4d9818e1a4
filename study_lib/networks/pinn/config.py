"""Every knob of one training in one frozen model, and the way to it from a design."""

from typing import Any

from pydantic import Field, ValidationError

from study_lib.design.methods import TrainingDesign
from study_lib.design.models import StudyDesign
from study_lib.design.settings import Frozen, describe_faults
from study_lib.errors import InputError
from study_lib.overlap.views import ViewRecord

MACHINE_KNOBS = frozenset({"device", "threads", "compile"})


class Machine(Frozen):
    """What a training runs on: its weights depend on it in their last digits only."""

    device: str = Field(
        pattern=r"^(auto|cpu|cuda(:\d+)?)$",
        description="auto: a CUDA device if there is one; cuda:1 names one of several",
    )
    threads: int | None = Field(ge=1, description="null: as many as torch has now")
    compile: bool = Field(description="whether torch.compile translates the network first")


def machine_of(**knobs: Any) -> Machine:
    """Return the machine that a call asks for.

    Raises
    ------
    InputError
        If a value is not allowed.
    """
    try:
        return Machine(**knobs)
    except ValidationError as error:
        raise InputError(describe_faults(error, "study train", Machine)) from None


ANY_MACHINE = Machine(device="auto", threads=None, compile=False)


class TrainingConfig(TrainingDesign, Machine):
    """One training: the design's knobs, what the view and the replicate add, and the machine."""

    channels: int = Field(ge=1, description="patterns per group, gridsize squared")
    side_px: int = Field(ge=16, description="side N of a pattern")
    neighbor_count: int = Field(ge=1, description="K neighbours that the groups were chosen from")
    n_groups: int | None = Field(ge=1, description="groups asked for; null: one per pattern")
    seed: int = Field(ge=0, lt=2**32)

    @property
    def decisive(self) -> dict[str, Any]:
        """All values but those of the machine."""
        return self.model_dump(mode="json", exclude=set(MACHINE_KNOBS))


def training_config(
    design: StudyDesign,
    view_name: str,
    machine: Machine = ANY_MACHINE,
    *,
    view_record: ViewRecord | None = None,
) -> TrainingConfig:
    """Return the training of one view of a design; the dose is in the data alone.

    Parameters
    ----------
    design, view_name, machine
        Whose knobs.
    view_record
        How the view's file was grouped, where that need not be as the design has it: its
        ``neighbor_count`` and ``n_groups``.

    Raises
    ------
    InputError
        If the design has no such view, or trains no network.
    """
    view = design.view(view_name)
    if design.training is None:
        raise InputError(
            "training is null in this design, so it has no network to train; set its fields as in "
            "parameters/presets/laptop.yaml"
        )
    designed = {"neighbor_count": design.neighbor_count, "n_groups": view.n_groups}
    grouping = view_record.model_dump(include=set(designed)) if view_record else designed
    return TrainingConfig(
        **design.training.model_dump(),
        **machine.model_dump(),
        channels=view.gridsize**2,
        side_px=design.patch_size_px,
        **grouping,
        seed=design.noise_seeds.training,
    )
