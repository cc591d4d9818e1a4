"""How the learning rate falls over the epochs of a training."""

from typing import Any, Literal

from torch.optim import Optimizer
from torch.optim.lr_scheduler import CosineAnnealingLR, ReduceLROnPlateau


class Schedule:
    """From the optimizer's rate to ``rate_min``, stepped after every epoch.

    cosine: half a cosine (Loshchilov and Hutter, arXiv:1608.03983, without restarts), the last of
    the epochs at ``rate_min``. plateau: half of it whenever the validation loss has not fallen
    for ``patience`` epochs.
    """

    def __init__(
        self,
        optimizer: Optimizer,
        *,
        kind: Literal["cosine", "plateau"],
        epochs: int,
        rate_min: float,
        patience: int,
    ) -> None:
        self._scheduler: CosineAnnealingLR | ReduceLROnPlateau
        if kind == "cosine":
            self._scheduler = CosineAnnealingLR(
                optimizer, T_max=max(1, epochs - 1), eta_min=rate_min
            )
        else:
            self._scheduler = ReduceLROnPlateau(
                optimizer, factor=0.5, patience=patience, min_lr=rate_min
            )

    def step(self, validation_loss: float) -> None:
        """Set the rate of the next epoch."""
        if isinstance(self._scheduler, ReduceLROnPlateau):
            self._scheduler.step(validation_loss)
        else:
            self._scheduler.step()

    def state_dict(self) -> dict[str, Any]:
        """Return what decides the rates to come."""
        return self._scheduler.state_dict()

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go back to where :meth:`state_dict` was."""
        self._scheduler.load_state_dict(state)
