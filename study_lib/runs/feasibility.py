"""Whether a study can be run at all: found out before its first file is written."""

import numpy as np

from study_lib.design.models import StudyDesign
from study_lib.errors import InputError
from study_lib.networks.registry import require_network
from study_lib.overlap.views import view_of
from study_lib.phases.scene import Scene, split_masks
from study_lib.scores.metrics import SMALLEST_RANGE, SSIM_WINDOW_PX


def check_network(design: StudyDesign) -> None:
    """Check that the design names a network that there is.

    Raises
    ------
    InputError
        If it does not.
    """
    try:
        require_network(design.training.network)
    except InputError as error:
        raise InputError(f"{design.preset}: training.network: {error}") from None


def check_feasible(design: StudyDesign, scene: Scene) -> None:
    """Check the network's name, and splits, groups and the scored field of every view.

    Raises
    ------
    InputError
        If there is no such network, a split is empty or has too few positions, or the field of a
        view is too small or has no phase contrast.
    """
    check_network(design)
    for split, mask in split_masks(scene.positions_px, design.guard_band_px).items():
        positions = scene.positions_px[mask]
        for view in design.views:
            kept = view_of(positions, scene.probe, view, split, design).kept
            first = np.ceil(positions[kept].min(axis=0)).astype(int)
            last = np.floor(positions[kept].max(axis=0)).astype(int) + 1
            rows, columns = (last - first).tolist()
            if min(rows, columns) < SSIM_WINDOW_PX:
                raise InputError(
                    f"the {split} positions of view {view.name} span {rows} x {columns} pixels; "
                    f"scores need at least {SSIM_WINDOW_PX}; enlarge the scan"
                )
            field = scene.object_[first[0] : last[0], first[1] : last[1]]
            if np.ptp(np.angle(field)) < SMALLEST_RANGE:
                raise InputError(
                    f"the object has one phase all over the {split} field; there is nothing to "
                    "compare; use an object with phase contrast"
                )
