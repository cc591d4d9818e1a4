"""One scan: what a file says about it, and what the study makes of it."""

from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any, Literal, NamedTuple

import numpy as np
from jaxtyping import Bool, Complex, Float, Int

from study_lib.data.hdf5 import Hdf5Reader
from study_lib.errors import InputError

# --- In the study's conventions, whatever file it came from or goes to

PLANCK_TIMES_LIGHT_EV_M = 1.239841984332003e-6
PIXEL_TOLERANCE = 1e-3
SQUARE_TOLERANCE = 1e-6
WORDS = {"amplitudes": "patterns", "probe": "probe", "object_": "object"}
FLAGS = {
    "photon_energy_ev": "--energy-ev",
    "detector_distance_m": "--distance-m",
    "detector_pixel_m": "--detector-pixel-um",
    "object_pixel_m": "--object-pixel-nm (or energy, distance and detector pixel)",
}


@dataclass(frozen=True)
class Geometry:
    """Lengths in metres and energy, as far as they are known.

    References
    ----------
    The pixel of the object is ``wavelength * distance / (N * detector pixel)`` in the far field:
    Rodenburg and Maiden, Ptychography, Springer Handbook of Microscopy (2019),
    doi:10.1007/978-3-030-00069-1_17
    """

    photon_energy_ev: float | None = None
    detector_distance_m: float | None = None
    detector_pixel_m: float | None = None
    object_pixel_m: float | None = None

    @property
    def wavelength_m(self) -> float | None:
        """Wavelength, if the energy is known."""
        return PLANCK_TIMES_LIGHT_EV_M / self.photon_energy_ev if self.photon_energy_ev else None

    def pixel_of_object_m(self, side_px: int) -> float | None:
        """Return the pixel of the object: as stated, or from the lengths for N = ``side_px``."""
        if self.object_pixel_m:
            return self.object_pixel_m
        if self.wavelength_m and self.detector_distance_m and self.detector_pixel_m:
            return self.wavelength_m * self.detector_distance_m / (side_px * self.detector_pixel_m)
        return None

    def known(self) -> dict[str, float]:
        """Return what is known, for JSON."""
        return {key: value for key, value in asdict(self).items() if value is not None}


UNKNOWN = Geometry()


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
        whole = np.round(squares)
        are_roots = np.allclose(squares, whole, rtol=1e-6, atol=1e-3)
        result: np.ndarray = (whole if are_roots else squares).astype(np.float32)
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
        computed_m = replace(self.geometry, object_pixel_m=None).pixel_of_object_m(self.side_px())
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

WHOLE_SHARE = 0.999


@dataclass(frozen=True)
class ReadChoices:
    """What the user says about a file.

    ``domain`` and ``axes`` say what the file does not; ``zero_frequency`` and the flips say where
    it departs from its format; ``drop_bad_frames`` leaves out what cannot be used.
    """

    domain: Domain | None = None
    axes: Literal["nhw", "hwn"] | None = None
    zero_frequency: Literal["centre", "corner"] | None = None
    flip_y: bool = False
    flip_x: bool = False
    drop_bad_frames: bool = False


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
        Modes on any axes before the last two.
    object_ : (..., oy, ox)
        Axes before the last two have length one.
    bad_pixels : (h, w) or (scan, h, w)
        True where the detector has no valid count, in all patterns or in each.
    background : (h, w)
        Counts that do not come from the object, in the order of pixels of the patterns.
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
    scan_index: np.ndarray | None = None
    geometry: Geometry = UNKNOWN
    steps: tuple[dict[str, Any], ...] = ()
    remarks: tuple[str, ...] = ()
    metadata: dict[str, Any] | None = None

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


def require_domain(path: Path, found: Domain, choices: ReadChoices) -> None:
    """Refuse a ``--domain`` that contradicts what a format or a file states.

    Raises
    ------
    InputError
        If they differ.
    """
    if choices.domain and choices.domain != found:
        raise InputError(
            f"{path}: the file holds {found} by its format or its own statement, not "
            f"{choices.domain}; leave out --domain, or correct the file"
        )


def looks_like(values: np.ndarray) -> str:
    """Return in words what the values of patterns look like; counts are whole numbers."""
    whole = whole_share(values)
    peak = float(values.max()) if values.size else 0.0
    if whole >= WHOLE_SHARE and peak > 1:
        return f"whole numbers up to {peak:g}, which looks like counts"
    squares = whole_share(np.square(values.astype(np.float64)))
    if squares >= WHOLE_SHARE and peak > 1:
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


# --- Lengths and energies: plausible, or refused with the key that says so


class Span(NamedTuple):
    """The values a quantity can have in any experiment of this kind."""

    low: float
    high: float
    unit: str


LENGTH = Span(1e-13, 1e5, "m")
SPANS = {
    "photon_energy_ev": Span(10.0, 1e6, "eV"),
    "detector_distance_m": LENGTH,
    "detector_pixel_m": LENGTH,
    "object_pixel_m": LENGTH,
}
POSITIVE = "a length is positive and in metres; correct it or leave it out"
IN_EV = "the energy is in eV; correct it or leave it out"


def plausible_quantity(
    path: Path,
    key: str,
    value: float | None,
    quantity: str,
    *,
    factor: float = 1.0,
    remedy: str = POSITIVE,
) -> float | None:
    """Return a length in metres or an energy in eV; None where the file does not state it.

    Parameters
    ----------
    path, key
        Where it was found, for messages.
    value
        The number in the file.
    quantity
        A field of :class:`Geometry`.
    factor
        From the unit of the file to that of the field.
    remedy
        What to do about a value that cannot be.

    Raises
    ------
    InputError
        If it is not finite, not positive, or far from anything that can be measured.
    """
    if value is None:
        return None
    span, converted = SPANS[quantity], value * factor
    if span.low <= converted <= span.high:
        return converted
    stated = f"{value:g}" + (f", which is {converted:g} {span.unit}" if factor != 1 else "")
    raise InputError(
        f"{path}: {key}: found {stated}; allowed are {span.low:g} to {span.high:g} {span.unit}; "
        f"{remedy}"
    )


def quantity_in(file: Hdf5Reader, name: str, quantity: str, **unit: Any) -> float | None:
    """Return a number of a file as :func:`plausible_quantity`, whose factor and remedy `unit` is.

    Raises
    ------
    InputError
        If it is not finite, not positive, or far from anything that can be measured.
    """
    return plausible_quantity(file.path, name, file.number(name), quantity, **unit)


def square_side(
    file: Hdf5Reader, name: str, sides: Iterable[float | None], remedy: str
) -> float | None:
    """Return the length that both sides of a pixel have; None where the file states neither.

    Raises
    ------
    InputError
        If pixels are not square or not positive.
    """
    known = [side for side in sides if side is not None]
    if not known:
        return None
    difference_max = SQUARE_TOLERANCE * max(known)
    if not np.isfinite(known).all() or min(known) <= 0 or max(known) - min(known) > difference_max:
        raise file.refusal(
            name,
            f"found pixels of {' x '.join(f'{side:g}' for side in known)} m",
            f"the study needs square pixels of a positive size; {remedy}",
        )
    return float(known[0])
