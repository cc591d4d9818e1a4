"""One scan: what a file says about it, and what the study makes of it."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Literal

import numpy as np
from jaxtyping import Bool, Complex, Float, Int

from study_lib.data.formats.geometry import NO_LENGTHS, UNKNOWN, Geometry, GivenLengths
from study_lib.errors import InputError
from study_lib.physics.photons import whole_share_of_roots

# --- In the study's conventions, whatever file it came from or goes to

PIXEL_TOLERANCE = 1e-3
WORDS = {"amplitudes": "patterns", "probe": "probe", "object_": "object"}
FLAGS = {
    "photon_energy_ev": "--energy-ev",
    "detector_distance_m": "--distance-m",
    "detector_pixel_m": "--detector-pixel-um",
    "object_pixel_m": "--object-pixel-nm (or energy, distance and detector pixel)",
}


@dataclass(frozen=True)
class Acquisition:
    """Patterns, positions and what else a file knows.

    Parameters
    ----------
    positions_px : (scan, 2)
        (row, column) of the patch centres, pixel ``N // 2`` of each patch, in pixels of
        ``object_`` if there is one, else from an origin of their own.
    amplitudes : (scan, n, n)
        sqrt(counts), zero frequency at pixel ``n // 2``; None where a file holds no patterns.
    probe : (n, n) or (modes, n, n)
        One coherent mode, or incoherent ones, strongest first and orthogonal, whose intensities
        add; in sqrt(photons) per pixel if ``probe_is_scaled``.
    object_ : (oy, ox)
        Complex transmission.
    bad_pixels : (n, n) or (scan, n, n)
        True where the detector has no valid count, in all patterns or in each.
    background : (n, n)
        Expected counts that do not come from the object, the same in every pattern; they are still
        in the counts. None for none.
    scan_index : (scan,)
        Number of each pattern in the whole scan.
    is_normalized
        True where the amplitudes carry no photon scale, so that their squares are not counts.
    geometry
        Lengths and energy.
    transformations
        What was done to the arrays on the way here, in order: see :func:`transformation`.
    remarks
        Sentences that the user should read.
    metadata
        What else is worth keeping as JSON.
    """

    positions_px: Float[np.ndarray, "scan 2"]
    amplitudes: Float[np.ndarray, "scan n n"] | None = None
    probe: Complex[np.ndarray, "*modes n n"] | None = None
    probe_is_scaled: bool = False
    object_: Complex[np.ndarray, "oy ox"] | None = None
    bad_pixels: Bool[np.ndarray, "*each n n"] | None = None
    background: Float[np.ndarray, "n n"] | None = None
    scan_index: Int[np.ndarray, " scan"] | None = None
    is_normalized: bool = False
    geometry: Geometry = UNKNOWN
    transformations: tuple[dict[str, Any], ...] = ()
    remarks: tuple[str, ...] = ()
    metadata: Mapping[str, Any] = field(default_factory=dict)

    @property
    def names(self) -> Int[np.ndarray, " scan"]:
        """Number of each pattern in the whole scan; its place in the file if there is none."""
        return np.arange(len(self.positions_px)) if self.scan_index is None else self.scan_index

    def counts(self) -> Float[np.ndarray, "scan n n"]:
        """Return photons per detector pixel, whole where the amplitudes are roots of whole numbers.

        Raises
        ------
        InputError
            If there are no patterns, or they carry no photon scale.
        """
        (amplitudes,) = self.require("amplitudes")
        if self.is_normalized:
            raise InputError(
                "the amplitudes are normalized and carry no photon scale, so there are no counts "
                "to write; use the format ptychopinn, which takes amplitudes"
            )
        squares = amplitudes.astype(np.float64) ** 2
        are_roots = whole_share_of_roots(amplitudes) == 1
        result: np.ndarray = (np.rint(squares) if are_roots else squares).astype(np.float32)
        return result

    def require(self, *names: str) -> list[Any]:
        """Return arrays that a format cannot do without.

        Raises
        ------
        InputError
            If one is missing.
        """
        values = [getattr(self, name) for name in names]
        missing = [WORDS[name] for name, value in zip(names, values, strict=True) if value is None]
        if missing:
            raise InputError(
                f"the data have no {' and no '.join(missing)}, which this format needs"
            )
        return values

    def strongest_mode(self) -> Complex[np.ndarray, "n n"]:
        """Return the probe where one mode is all that a format has a place for.

        Raises
        ------
        InputError
            If there is no probe.
        """
        (probe,) = self.require("probe")
        strongest: np.ndarray = probe if probe.ndim == 2 else probe[0]
        return strongest

    def side_px(self) -> int:
        """Return the side N of a pattern.

        Raises
        ------
        InputError
            If there are neither patterns nor a probe.
        """
        for array in (self.amplitudes, self.probe):
            if array is not None:
                return int(array.shape[-1])
        raise InputError(
            "the data have neither patterns nor a probe; this format needs one of them"
        )

    def require_geometry(self, *names: str) -> list[float]:
        """Return lengths (m) and the energy (eV) by the names of their fields.

        ``object_pixel_m`` is computed from the others where it is not stated.

        Raises
        ------
        InputError
            If one is not known, as lengths are never invented, or they contradict each other.
        """
        known = self.geometry.known()
        computed_m = self.geometry.computed_pixel_m(self.side_px())
        if computed_m:
            pixel_m = known.setdefault("object_pixel_m", computed_m)
            if abs(pixel_m / computed_m - 1) > PIXEL_TOLERANCE:
                raise InputError(
                    f"the pixel of the object is stated as {pixel_m:.4g} m, but energy, distance "
                    f"and detector pixel make it {computed_m:.4g} m; correct one of them"
                )
        missing = [name for name in names if name not in known]
        # The pixel of the object follows once the others are there.
        missing = [name for name in missing if name != "object_pixel_m"] or missing
        if missing:
            flags = ", ".join(FLAGS[name] for name in missing)
            raise InputError(
                f"this format is in metres and the data do not say {', '.join(missing)}; "
                f"give {flags}"
            )
        return [known[name] for name in names]


def transformation(operation: str, **parameters: Any) -> dict[str, Any]:
    """Return the record of one thing done to the arrays."""
    return {"operation": operation, "parameters": parameters}


def centred_positions(
    positions_px: Float[np.ndarray, "scan 2"], side_px: int, object_shape: tuple[int, int]
) -> Float[np.ndarray, "scan 2"]:
    """Return the vectors from the centre of the object to the centres of the patches, in pixels.

    Both centres are geometric, ``(length - 1) / 2``, and not the pixel ``length // 2`` that names a
    patch here: on an even grid the two are half a pixel apart.

    Parameters
    ----------
    positions_px : (scan, 2)
        (row, column) of pixel ``N // 2`` of each patch.
    side_px
        Side N of a patch.
    object_shape
        (rows, columns).
    """
    vectors: np.ndarray = positions_px - _geometric_origin(side_px, object_shape)
    return vectors


def positions_from_centred(
    vectors_px: Float[np.ndarray, "scan 2"], side_px: int, object_shape: tuple[int, int]
) -> Float[np.ndarray, "scan 2"]:
    """Return patch centres from vectors: the inverse of :func:`centred_positions`."""
    positions: np.ndarray = vectors_px + _geometric_origin(side_px, object_shape)
    return positions


def _geometric_origin(side_px: int, object_shape: tuple[int, int]) -> Float[np.ndarray, "2"]:
    centre: np.ndarray = (np.array(object_shape, np.float64) - 1) / 2
    return centre - (side_px - 1) / 2 + side_px // 2


# --- What a file says before any of it is checked, and what the user says about it

Domain = Literal["amplitude", "counts"]
PositionUnit = Literal["m", "mm", "um", "nm", "px"]

WHOLE_SHARE = 0.999


@dataclass(frozen=True)
class ReadChoices:
    """What the user says about a file; the user has the last word.

    Parameters
    ----------
    domain
        What the patterns are; ``normalized`` are amplitudes without a photon scale.
    axes
        Scan first or last, where the shape leaves it open.
    zero_frequency, flip_y, flip_x, swap_xy
        Where the file departs from its format; axes are exchanged before signs are turned.
    drop_bad_frames
        Leave out what cannot be used.
    leave_out
        Frames to leave out, as ranges of their numbers: see :attr:`RawScan.names`.
    keep_all
        Mask and leave out nothing that only looks like a fault of the detector.
    lengths
        Lengths and energy, before those of the file.
    position_unit
        Of the positions in the file, or in ``positions``.
    positions, mask, dark
        Arrays in other files: ``FILE``, or ``FILE:NAME`` for one of several in it. True or not zero
        in a mask is a bad pixel; of dark frames the mean is the background.
    saturation
        Counts of so many or more are no valid counts.
    crop, bin_, pad
        Side in pixels, detector pixels to sum along each axis, and side in pixels, in this order.
    ignore
        ``object``, ``probe``: what of the file is left out.
    entry
        One of several scans in a file, or ``all`` of them.
    links_below
        The folder in which files that an HDF5 file links to may lie.
    """

    domain: Literal["amplitude", "counts", "normalized"] | None = None
    axes: Literal["nhw", "hwn"] | None = None
    zero_frequency: Literal["centre", "corner"] | None = None
    flip_y: bool = False
    flip_x: bool = False
    swap_xy: bool = False
    drop_bad_frames: bool = False
    leave_out: tuple[range, ...] = ()
    keep_all: bool = False
    lengths: GivenLengths = NO_LENGTHS
    position_unit: PositionUnit | None = None
    positions: str | None = None
    mask: str | None = None
    dark: str | None = None
    saturation: float | None = None
    crop: int | None = None
    bin_: int | None = None
    pad: int | None = None
    ignore: frozenset[str] = frozenset()
    entry: str | None = None
    links_below: Path | None = None


@dataclass(frozen=True)
class RawScan:
    """What a file says, in its own types and scales.

    Parameters
    ----------
    positions_px : (scan, 2)
        As in :class:`Acquisition`.
    patterns : (scan, h, w)
        Counts or amplitudes, as ``domain`` says.
    domain
        What the patterns are; None where there are none.
    zero_frequency
        Where the format has it in the patterns.
    is_normalized
        True for amplitudes without a photon scale.
    probe : (..., n, n)
        Incoherent modes on the axis before the last two; those before it are OPR modes, of which
        the first is the mean probe.
    object_ : (..., oy, ox)
        Axes before the last two have length one.
    bad_pixels : (h, w) or (scan, h, w)
        True where the detector has no valid count, in all patterns or in each.
    background : (h, w)
        Counts that do not come from the object, in the order of pixels of the patterns.
    dark : (h, w) or (frames, h, w)
        Frames without light; their mean becomes the background.
    position_unit
        Unit in which the file has its positions, for messages; ``positions_px`` are in pixels.
    """

    positions_px: np.ndarray
    patterns: np.ndarray | None = None
    domain: Domain | None = None
    zero_frequency: Literal["centre", "corner"] = "centre"
    is_normalized: bool = False
    probe: np.ndarray | None = None
    object_: np.ndarray | None = None
    bad_pixels: np.ndarray | None = None
    background: np.ndarray | None = None
    dark: np.ndarray | None = None
    scan_index: np.ndarray | None = None
    position_unit: PositionUnit = "px"
    geometry: Geometry = UNKNOWN
    steps: tuple[dict[str, Any], ...] = ()
    remarks: tuple[str, ...] = ()
    metadata: dict[str, Any] | None = None

    def frames(self) -> np.ndarray:
        """Return the patterns where there have to be some.

        Raises
        ------
        InputError
            If there are none.
        """
        if self.patterns is None:
            raise InputError("the data have no patterns, which this needs")
        return self.patterns

    @property
    def names(self) -> np.ndarray:
        """Number of each frame in the whole scan; its place in the file if there is none."""
        return np.arange(len(self.positions_px)) if self.scan_index is None else self.scan_index

    def without_frames(self, frames: np.ndarray, step: dict[str, Any], *remarks: str) -> "RawScan":
        """Return the scan without some frames, given by their places; the others keep their names.

        Parameters
        ----------
        frames : (m,)
            Places of frames.
        step, remarks
            As for :meth:`after`.
        """
        kept = np.setdiff1d(np.arange(len(self.positions_px)), frames)
        bad = self.bad_pixels
        return self.after(
            step,
            *remarks,
            positions_px=self.positions_px[kept],
            patterns=None if self.patterns is None else self.patterns[kept],
            bad_pixels=bad if bad is None or bad.ndim == 2 else bad[kept],
            scan_index=self.names[kept],
        )

    def after(self, step: dict[str, Any], *remarks: str, **changes: Any) -> "RawScan":
        """Return the scan with some arrays changed by a step, which is recorded."""
        steps, remarks = (*self.steps, step), (*self.remarks, *remarks)
        return replace(self, steps=steps, remarks=remarks, **changes)


def check_shapes(
    path: Path,
    *,
    positions: tuple[int, ...],
    patterns: tuple[int, ...] | None = None,
    bad_pixels: tuple[int, ...] | None = None,
    background: tuple[int, ...] | None = None,
    scan_index: tuple[int, ...] | None = None,
    probe: tuple[int, ...] | None = None,
) -> None:
    """Refuse arrays that do not belong together; their shapes say so before any is read.

    Raises
    ------
    InputError
        If one does not fit.
    """
    if len(positions) != 2 or positions[1] != 2 or not positions[0]:
        raise InputError(
            f"{path}: positions: found shape {positions}; expected (scan, 2); "
            "give one (row, column) for every pattern"
        )
    if patterns is None:
        return
    if len(patterns) == 3 and 0 not in patterns and positions[0] not in patterns:
        raise InputError(
            f"{path}: found {patterns[0]} patterns and {positions[0]} positions; give one position "
            "for every pattern"
        )
    if len(patterns) != 3 or patterns[0] != positions[0] or 0 in patterns:
        raise InputError(
            f"{path}: patterns: found shape {patterns}; expected ({positions[0]}, n, n), one "
            "for every position; order the axes as (scan, row, column)"
        )
    frame = patterns[1:]
    each_pixel = "one value for every detector pixel"
    masks = frame if bad_pixels is None or len(bad_pixels) == 2 else patterns
    for name, shape, expected, what in (
        ("bad pixels", bad_pixels, masks, each_pixel),
        ("background", background, frame, each_pixel),
        ("indices", scan_index, positions[:1], "one for every pattern"),
    ):
        if shape not in (None, expected):
            raise InputError(f"{path}: {name}: found shape {shape}; expected {expected}, {what}")
    if probe is not None and probe[-2:] != frame:
        raise InputError(
            f"{path}: probe: found shape {probe}; expected (modes, {frame[0]}, "
            f"{frame[1]}), as large as a pattern; crop or pad it"
        )


def looks_like(values: np.ndarray) -> str:
    """Return in words what the values of patterns look like; counts are whole numbers."""
    whole = whole_share(values)
    peak = float(values.max()) if values.size else 0.0
    if whole >= WHOLE_SHARE and peak > 1:
        return f"whole numbers up to {peak:g}, which looks like counts"
    if whole_share_of_roots(values) >= WHOLE_SHARE and peak > 1:
        return f"square roots of whole numbers up to {peak:g}, which looks like amplitude"
    return f"{values.dtype} values up to {peak:g}, {whole:.0%} of them whole"


def whole_share(values: np.ndarray) -> float:
    """Return the share of whole numbers among those that are not zero, if any."""
    if values.dtype.kind in "iub":
        return 1.0
    lit = values[np.isfinite(values) & (values != 0)]
    return float(np.isclose(lit, np.round(lit), rtol=0, atol=1e-3).mean()) if lit.size else 1.0


def pair_by_index(
    path: Path, pattern_names: np.ndarray, position_names: np.ndarray
) -> tuple[np.ndarray, np.ndarray, tuple[dict[str, Any], ...]]:
    """Return which patterns and which positions belong together, and the record of it.

    Parameters
    ----------
    path
        The file, for messages.
    pattern_names, position_names : (n,), (m,)
        The number of each pattern and of each position in the whole scan.

    Raises
    ------
    InputError
        If a number occurs twice or none is common.
    """
    for name, values in (("patterns", pattern_names), ("positions", position_names)):
        if len(np.unique(values)) != len(values):
            raise InputError(f"{path}: {name}: an index occurs twice; give every frame its own")
    _, left, right = np.intersect1d(pattern_names, position_names, return_indices=True)
    if not len(left):
        raise InputError(f"{path}: patterns and positions have no index in common; pair them")
    if len(left) == len(pattern_names) == len(position_names) and (left == right).all():
        return left, right, ()
    record = transformation(
        "pair patterns and positions by index",
        pairs=len(left),
        patterns_without_position=len(pattern_names) - len(left),
        positions_without_pattern=len(position_names) - len(right),
    )
    return left, right, (record,)


# --- Several scans in one file: which is meant, and all of one object as one

ALL_SCANS = "all"


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
    if wanted == ALL_SCANS or (wanted is None and len(names) == 1):
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
