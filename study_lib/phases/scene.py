"""The scene of a study before any photon is counted: object, probe, positions, splits."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Bool, Complex, Float

from study_lib.data.archive import open_npz
from study_lib.data.contract import load_dataset
from study_lib.design.experiment import CellsDesign, GrainsDesign
from study_lib.design.limits import OBJECT_SIDE_MAX_PX
from study_lib.design.models import StudyDesign
from study_lib.errors import InputError
from study_lib.physics.probe import central_window, probe_diameter_px, zone_plate_probe
from study_lib.physics.scan import two_blocks
from study_lib.physics.specimen import SPECIMENS
from study_lib.seeding import generator
from study_lib.system import memory_bytes


@dataclass(frozen=True)
class Scene:
    """Object, probe and scan positions before any photon is counted.

    ``splits`` has for ``train`` and ``test`` which positions are theirs; those in the guard band
    between them belong to neither. ``record`` says where object and probe come from. ``photons``
    (scan,) are those of each pattern where counts are measured.
    """

    object_: Complex[np.ndarray, "oy ox"]
    probe: Complex[np.ndarray, "*modes n n"]
    positions_px: Float[np.ndarray, "scan 2"]
    splits: Mapping[str, Bool[np.ndarray, " scan"]]
    record: Mapping[str, Any]
    photons: Float[np.ndarray, " scan"] | None = None

    def positions_of(self, split: str) -> Float[np.ndarray, "positions 2"]:
        """Return the positions of a split, ``train`` or ``test``."""
        chosen: np.ndarray = self.positions_px[self.splits[split]]
        return chosen


def scene_of(design: StudyDesign, base_npz: Path | None = None) -> Scene:
    """Return the scene of a design: the synthetic one, or that of a base NPZ.

    A base file gives object and probe; the positions are the measured ones, or a synthetic scan
    in the middle of the object, as the design says.

    Parameters
    ----------
    design
        Object, probe, scan and seeds.
    base_npz
        A file that holds the contract of base data.

    Returns
    -------
    Scene
        Object (oy, ox), probe (n, n) or (modes, n, n), of unit power if it is synthetic, positions
        (scan, 2) in object pixels, and a mask (scan,) for each split.

    Raises
    ------
    InputError
        If measured positions are asked for without a base file, the base file breaks the contract,
        its probe does not fit the patch size, or its object is too small for the synthetic scan.

    Examples
    --------
    >>> import study_lib as study
    >>> design = study.load_design("smoke")
    >>> scene = study.scene_of(design)
    >>> scene.object_.ndim, scene.probe.shape, scene.positions_px.shape
    (2, (32, 32), (300, 2))

    The rows of the two splits are farther apart than a patch is high:

    >>> train, test = scene.positions_of("train"), scene.positions_of("test")
    >>> bool(test[:, 0].min() - train[:, 0].max() > design.patch_size_px)
    True
    """
    if base_npz:
        return _scene_of_base(design, base_npz)
    if design.scan.kind == "measured":
        raise InputError(
            "scan.kind = measured, but no base file was given; give --base-npz, or set scan.kind "
            "to raster, spiral, fermat or uniform"
        )
    return _synthetic_scene(design)


def split_masks(
    positions_px: Float[np.ndarray, "scan 2"], guard_band_px: int
) -> dict[str, Bool[np.ndarray, " scan"]]:
    """Return which positions belong to the train and the test split.

    The range of rows is halved; positions in a guard band in the middle belong to neither, so that
    no object row is lit by both splits if the band is wider than a patch.

    Raises
    ------
    InputError
        If a split is left without positions.
    """
    rows = positions_px[:, 0]
    middle = (rows.min() + rows.max()) / 2
    half_band = guard_band_px / 2
    masks = {"train": rows <= middle - half_band, "test": rows >= middle + half_band}
    for name, mask in masks.items():
        if not mask.any():
            raise InputError(
                f"the scan spans {np.ptp(rows):.0f} rows; the guard band of {guard_band_px} rows "
                f"leaves no position for the {name} split; enlarge the scan or lower patch_size_px"
            )
    return masks


# The most that drawing an object takes, by kind; measured on 2000 x 2000 pixels.
DRAWING_BYTES_PER_PX = {"grains": 100, "siemens_star": 420, "power_law": 150, "cells": 160}
# Drawn one by one; the place of each cell depends on all before it.
DRAWN_MAX = {"grains": 1_000_000, "cells": 20_000}


def _synthetic_scene(design: StudyDesign) -> Scene:
    side, seed = design.patch_size_px, design.seeds.simulation
    positions = _synthetic_positions(design)
    rows, columns = (np.ceil(positions.max(axis=0)) + side // 2 + 1).astype(int).tolist()
    _check_drawing(design, rows, columns)
    object_ = SPECIMENS[design.specimen.kind](
        shape_px=(rows, columns),
        random=generator(seed, "specimen"),
        **design.specimen.model_dump(exclude={"kind"}),
    )
    probe = zone_plate_probe(side_px=side, **design.probe.model_dump())
    splits = split_masks(positions, design.guard_band_px)
    return Scene(object_, probe, positions, splits, {"source": "synthetic"})


def _check_drawing(design: StudyDesign, rows: int, columns: int) -> None:
    """Refuse an object that is longer, larger or fuller than can be drawn."""
    scan, kind = design.scan, design.specimen.kind
    found = (
        f"scan of {scan.rows} x {scan.columns} steps of {scan.step_px:g} pixels and a guard band "
        f"of {design.guard_band_px}: an object of {rows} x {columns} pixels"
    )
    remedy = "lower scan.rows, scan.columns, scan.step_px or split.guard_band_px"
    if max(rows, columns) > OBJECT_SIDE_MAX_PX:
        raise InputError(f"{found}; at most {OBJECT_SIDE_MAX_PX} along a side; {remedy}")
    # A texture is cut out of a square.
    pixels = max(rows, columns) ** 2 if kind == "power_law" else rows * columns
    needed, memory = DRAWING_BYTES_PER_PX[kind] * pixels, memory_bytes()
    if needed > memory:
        raise InputError(
            f"{found}, which takes {needed / 2**30:.1f} GiB to draw ({kind}); this process may use "
            f"{memory / 2**30:.1f} GiB; {remedy}"
        )
    if isinstance(design.specimen, GrainsDesign):
        per_area = design.specimen.grain_count
    elif isinstance(design.specimen, CellsDesign):
        per_area = design.specimen.cell_count
    else:
        return
    drawn = per_area * rows * columns / 1e4
    if drawn > DRAWN_MAX[kind]:
        raise InputError(
            f"{found} with {per_area} {kind} per 100 x 100 pixels, {drawn:.3g} in all; at most "
            f"{DRAWN_MAX[kind]} are drawn; lower their number, or {remedy}"
        )


def _scene_of_base(design: StudyDesign, base_npz: Path) -> Scene:
    arrays, _ = load_dataset(base_npz, base=True)
    probe, share = central_window(arrays["probeGuess"], design.patch_size_px)
    object_ = arrays["objectGuess"]
    if design.scan.kind == "measured":
        positions = np.stack([arrays["ycoords"], arrays["xcoords"]], axis=1)
    else:
        positions = _positions_amid(design, object_.shape, base_npz.name)
    # A transmission is at most 1; any common factor belongs to the probe, which is scaled anyway.
    factor = max(1.0, float(np.abs(object_).max()))
    record = {
        "source": base_npz.name,
        "object_divided_by": factor,
        "probe_window_px": design.patch_size_px,
        "probe_power_kept": share,
    }
    splits = split_masks(positions, design.guard_band_px)
    photons = _photons_in(base_npz) if design.is_measured else None
    settled = (object_ / factor).astype(np.complex64)
    return Scene(settled, probe, positions, splits, record, photons)


def _photons_in(base_npz: Path) -> Float[np.ndarray, " scan"]:
    """Return the photons of each pattern of base data, some patterns at a time.

    Raises
    ------
    InputError
        If the file has no patterns.
    """
    with open_npz(base_npz) as archive:
        if "diffraction" not in archive.members:
            raise InputError(
                f"{base_npz}: source = measured, but it has no diffraction patterns; import the "
                "data with their patterns, or choose --simulated"
            )
        return np.concatenate(
            [
                np.einsum("sij,sij->s", slab, slab, dtype=np.float64)
                for _, slab in archive.slabs("diffraction")
            ]
        )


def _synthetic_positions(design: StudyDesign) -> Float[np.ndarray, "scan 2"]:
    """Return the positions of both splits, patches reaching from row and column 0 on."""
    side, scan = design.patch_size_px, design.scan
    return two_blocks(
        **scan.model_dump(),
        gap_px=design.guard_band_px + 2 * scan.jitter_px,
        margin_px=side / 2,
        random=generator(design.seeds.simulation, "scan"),
    )


def _positions_amid(
    design: StudyDesign, shape_px: tuple[int, ...], name: str
) -> Float[np.ndarray, "scan 2"]:
    """Return the positions of both splits in the middle of an object that must hold them."""
    side, scan = design.patch_size_px, design.scan
    positions = _synthetic_positions(design)
    low, high = positions.min(axis=0), positions.max(axis=0)
    positions += np.array(shape_px) / 2 - (low + high) / 2
    first = np.round(positions.min(axis=0)) - side // 2
    last = np.round(positions.max(axis=0)) - side // 2 + side
    if (first < 0).any() or (last > shape_px).any():
        needed = np.ceil(high - low).astype(int) + side + 1
        raise InputError(
            f"two {scan.kind} blocks of {scan.rows} x {scan.columns} steps of {scan.step_px:g} "
            f"pixels, with patches of {side} and the guard band between them, need "
            f"{needed[0]} x {needed[1]} pixels, but the object of {name} has {shape_px[0]} x "
            f"{shape_px[1]}; lower scan.rows, scan.columns, scan.step_px or patch_size_px, or set "
            "scan.kind to measured"
        )
    return positions


def defocus_radius_px(design: StudyDesign, probe: Complex[np.ndarray, "*modes n n"]) -> float:
    """Return where the edge ray of a probe lands: half the diameter of one of base data."""
    if design.base is None:
        return design.probe.defocus_radius_px
    return probe_diameter_px(probe, design.probe_power_share) / 2


def require_room_for_defocus(design: StudyDesign, probe: Complex[np.ndarray, "*modes n n"]) -> None:
    """Check that a probe out of focus lies in its patch, at the largest error of the design.

    Parameters
    ----------
    design
        The design; without base data it has been checked when it was read.
    probe : (n, n) or (modes, n, n)
        The nominal one, of any scale.

    Raises
    ------
    InputError
        If its edge rays would land beyond half a patch.
    """
    percent = design.mismatch.largest("defocus_error_percent")
    if design.base is None or not percent:
        return
    side, radius_px = design.patch_size_px, defocus_radius_px(design, probe)
    most = max(0, int(100 * (side / 2 / radius_px - 1)))
    if percent > most:
        raise InputError(
            f"mismatch.defocus_error_percent = {percent:g}; at most {most} for the probe of "
            f"{design.base.name}, which is {2 * radius_px:.3g} pixels wide in a patch of {side}: "
            "beyond half a patch the wave comes in again on the other side; lower it"
        )
