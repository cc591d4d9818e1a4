"""PtyRAD's model and loss in PyTorch, with its Adam. Positions to a fraction of a pixel.

What it reads from files has energies and lengths of electrons or X-rays; here its model is given
arrays in pixels. A patch starts at the whole pixel ``crop_pos``, and the rest of the position
shifts the probe. There is one slice, so the propagator and every length are idle. Amplitude and
phase of the object are its unknowns. The loop over batches is written out here, as its solver has
it without constraints: the module of the solver needs Python 3.12 to be imported.
"""

import importlib
import sys
from typing import Any

import numpy as np
import torch


def import_torchvision() -> None:
    """Import what PtyRAD blurs with, beside a CPU build of torch too.

    Released wheels of torchvision bring operators for CUDA builds; where these do not load, the
    schemas of the two that its import looks up are enough.
    """
    try:
        importlib.import_module("torchvision")
    except RuntimeError:
        for name in [name for name in sys.modules if name.split(".")[0] == "torchvision"]:
            del sys.modules[name]
        library = torch.library.Library("torchvision", "FRAGMENT")
        KEPT.append(library)
        for name in ("nms", "qnms"):
            library.define(f"{name}(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")
        importlib.import_module("torchvision")


KEPT: list[torch.library.Library] = []  # its definitions go when it does
import_torchvision()

from ptyrad.core.losses import CombinedLoss  # noqa: E402  # after import_torchvision()
from ptyrad.core.models.ptycho import PtychoModel  # noqa: E402  # after import_torchvision()
from ptyrad.params.loss_params import LossParams  # noqa: E402  # after import_torchvision()

PACKAGE = "ptyrad"
CANDIDATES: list[dict[str, Any]] = [
    {"loss": "single", "rate": 0.005, "batch": 32, "iterations": 25},
    {"loss": "single", "rate": 0.02, "batch": 128, "iterations": 25},
    {"loss": "poissn", "rate": 0.02, "batch": 32, "iterations": 25},
    {"loss": "poissn", "rate": 0.005, "batch": 32, "iterations": 25},
]
IDLE = ("obj_tilts", "slice_thickness", "probe", "probe_pos_shifts")


def variables_of(
    amplitudes: np.ndarray,
    positions_px: np.ndarray,
    probe: np.ndarray,
    object_shape: tuple[int, int],
) -> dict[str, Any]:
    """Return what PtyRAD's model starts from."""
    side = probe.shape[-1]
    whole = np.rint(positions_px)
    return {
        "measurements": amplitudes**2,
        "obj": np.ones((1, 1, *object_shape), np.complex64),
        "obj_tilts": np.zeros((1, 2), np.float32),
        "slice_thickness": 1.0,
        "probe": probe[None],
        "probe_pos_shifts": (positions_px - whole).astype(np.float32),
        "omode_occu": np.ones(1, np.float32),
        "H": np.ones((side, side), np.complex64),
        "N_scan_slow": len(positions_px),
        "N_scan_fast": 1,
        "crop_pos": (whole - side // 2).astype(np.int32),
        "dx": 1.0,
        "dk": 1 / side,
        "lambd": 1e-3,
        "random_seed": 1,
        "length_unit": "px",
        "scan_affine": None,
        "meas_Npix": side,
        "simu_Npix": side,
        "simu_match_mode": None,
        "recon_provenance": None,
    }


def reconstruct(
    amplitudes: np.ndarray,
    positions_px: np.ndarray,
    probe: np.ndarray,
    object_shape: tuple[int, int],
    loss: str,
    rate: float,
    batch: int,
    iterations: int,
) -> np.ndarray:
    """Return the object (oy, ox) that the known probe (n, n) explains the amplitudes with."""
    torch.set_num_threads(1)
    torch.manual_seed(1)
    rates = {"obja": rate, "objp": rate} | dict.fromkeys(IDLE, 0.0)
    updates = {
        name: {"start_iter": 1 if of else None, "end_iter": None, "lr": of}
        for name, of in rates.items()
    }
    model = PtychoModel(
        variables_of(amplitudes, positions_px, probe, object_shape),
        {"detector_blur_std": None, "update_params": updates, "optimizer_params": None},
        device="cpu",
    )
    terms = {name: {"state": name == f"loss_{loss}"} for name in ("loss_single", "loss_poissn")}
    criterion = CombinedLoss(LossParams(**terms).model_dump(), device="cpu")
    adam = torch.optim.Adam(model.optimizable_params)
    order = np.random.permutation(len(positions_px))  # the worker seeds it
    batches = np.array_split(order, -(-len(order) // batch))
    for _ in range(iterations):
        for part in batches:
            adam.zero_grad()
            predicted = model(part)
            patches = model._current_object_patches
            error, _ = criterion(
                predicted, model.get_measurements(part), *patches, model.omode_occu
            )
            error.backward()
            adam.step()
    amplitude, phase = model.opt_obja.detach()[0, 0], model.opt_objp.detach()[0, 0]
    found: np.ndarray = torch.polar(amplitude, phase).numpy()
    return found
