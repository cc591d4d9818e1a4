"""How a network sees a few test patches while it learns: kept to be looked at, used for nothing."""

from pathlib import Path

import numpy as np
import torch
from jaxtyping import Complex

from study_lib.files import write_npz
from study_lib.networks.pinn.network import PatchNetwork
from study_lib.networks.pinn.training import GroupTensors
from study_lib.physics.forward import corners_of, patches_at
from study_lib.physics.measurement import Measurement

PATCHES = 3


class PatchSnapshots:
    """Patches of a few test patterns after epochs 1, 2, 4, 8 and so on, and the last.

    Parameters
    ----------
    test
        The test split; its patterns are passed through the network, nothing is learned from them.
    truth : (oy, ox)
        The object, for the true patches beside them.
    """

    def __init__(self, test: Measurement, truth: Complex[np.ndarray, "oy ox"]) -> None:
        count = len(test.groups)
        rows = np.linspace(0, count - 1, min(PATCHES, count) + 2).round().astype(int)[1:-1]
        self._data, self._rows = GroupTensors.of(test), torch.from_numpy(np.unique(rows))
        first = self._data.groups[self._rows][:, 0]
        positions = self._data.positions_px[first]
        side = test.probe.shape[-1]
        corners = corners_of(positions, side)
        self.truth = patches_at(torch.from_numpy(truth), corners, side).numpy()
        self.positions_px = positions.numpy()
        self.epochs: list[int] = []
        self.patches: list[np.ndarray] = []

    def watch(self, epoch: int, network: PatchNetwork) -> None:
        """Look at the network after an epoch, if it is 1, 2, 4, 8 and so on."""
        if epoch & (epoch - 1) == 0:
            self.look(epoch, network)

    def look(self, epoch: int, network: PatchNetwork) -> None:
        """Keep what the network makes of the patches now, unless this epoch is kept already."""
        if epoch in self.epochs:
            return
        device = next(network.parameters()).device
        training = network.training
        network.eval()
        with torch.no_grad():
            patches = network(self._data.batch(self._rows).amplitudes.to(device))[:, 0]
        network.train(training)
        self.epochs.append(epoch)
        self.patches.append(patches.cpu().numpy())

    def write(self, path: Path) -> None:
        """Write ``patches`` (epoch, patch, N, N), ``truth``, ``epochs`` and ``positions_px``."""
        arrays = {
            "patches": np.stack(self.patches),
            "truth": self.truth,
            "epochs": np.array(self.epochs),
            "positions_px": self.positions_px,
        }
        write_npz(path, arrays, {"split": "test"})
