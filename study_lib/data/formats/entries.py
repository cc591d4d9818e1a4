"""Several scans in one file: which of them is meant, and all of one object as one scan."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from study_lib.data.formats.acquisition import RawScan, transformation
from study_lib.errors import InputError

ALL = "all"


def chosen_entries(path: Path, names: Sequence[str], wanted: str | None) -> list[str]:
    """Return the entries to read.

    Parameters
    ----------
    path
        The file, for messages.
    names
        Those that hold a scan.
    wanted
        What the user says: a name, or ``all``.

    Raises
    ------
    InputError
        If there are several and none is named, or the name is none of them.
    """
    if wanted == ALL or (wanted is None and len(names) == 1):
        return list(names)
    listed = ", ".join(names)
    if wanted is None:
        raise InputError(
            f"{path}: found {len(names)} scans, {listed}; say which with --entry NAME, or --entry "
            "all where they are scans of one object in one frame"
        )
    if wanted.strip("/") not in names:
        raise InputError(f"{path}: --entry {wanted}: found {listed}; choose one of them, or all")
    return [wanted.strip("/")]


def merged(path: Path, names: Sequence[str], scans: Sequence[RawScan]) -> RawScan:
    """Return several scans of one object, in one frame of positions, as one.

    Indices go on from scan to scan; the probe is that of the first.

    Raises
    ------
    InputError
        If frames or lengths differ, or one has no patterns.
    """
    first = scans[0]
    if len(scans) == 1:
        return first
    shapes = {None if scan.patterns is None else scan.patterns.shape[1:] for scan in scans}
    if len(shapes) > 1 or None in shapes or len({scan.geometry for scan in scans}) > 1:
        raise InputError(
            f"{path}: the scans {', '.join(names)} differ in their frames or lengths; import one "
            "of them with --entry NAME"
        )
    index, last = [], 0
    for scan in scans:
        own = np.arange(len(scan.positions_px)) if scan.scan_index is None else scan.scan_index
        index.append(own + last)
        last += int(own.max()) + 1
    record = transformation("merge scans", entries=list(names))
    return first.after(
        record,
        f"{len(scans)} scans were merged: {', '.join(names)}; their objects, if there are any, are "
        "left out, and the probe is that of the first",
        positions_px=np.concatenate([scan.positions_px for scan in scans]),
        patterns=np.concatenate([scan.frames() for scan in scans]),
        scan_index=np.concatenate(index),
        bad_pixels=_all_masks(scans),
        dark=_all_dark(scans),
    )


def _all_masks(scans: Sequence[RawScan]) -> np.ndarray | None:
    if all(scan.bad_pixels is None for scan in scans):
        return None
    masks = []
    for scan in scans:
        frame = scan.frames().shape[1:]
        bad = np.zeros(frame, bool) if scan.bad_pixels is None else scan.bad_pixels.astype(bool)
        masks.append(bad)
    if all(bad.ndim == 2 and (bad == masks[0]).all() for bad in masks):
        return masks[0]
    whole = [
        np.broadcast_to(bad, scan.frames().shape) for bad, scan in zip(masks, scans, strict=True)
    ]
    return np.concatenate(whole)


def _all_dark(scans: Sequence[RawScan]) -> np.ndarray | None:
    frames = [
        scan.dark.reshape(-1, *scan.dark.shape[-2:]) for scan in scans if scan.dark is not None
    ]
    return np.concatenate(frames) if frames else None
