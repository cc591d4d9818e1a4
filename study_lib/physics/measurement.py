"""What an arm of the study may know: patterns, positions, probe, groups. Never the object.

Held out are photons here (split_photons); pixels in solvers/solver, groups in
networks/pinn/training, positions in networks/thinned/training; train and test halves in
phases/scene. A second draw from the truth (likelihood.FreshCounts) is called fresh.
"""

import hashlib
from dataclasses import dataclass, fields, replace
from typing import Any

import numpy as np
from jaxtyping import Bool, Complex, Float, Int

from study_lib.errors import InputError

Box = tuple[slice, slice]


@dataclass(frozen=True)
class Measurement:
    """The patterns of one view and split.

    ``amplitudes`` (scan, n, n) are sqrt(counts), zero frequency in the centre; ``positions_px``
    (scan, 2) are (row, column) patch centres in the frame of the object, whose ``object_shape`` is
    known; ``groups`` (group, C) index patterns; ``scan_index`` (scan,) names each pattern in the
    whole scan. ``probe`` is one coherent mode (n, n), or incoherent modes (modes, n, n), strongest
    first and orthogonal, whose intensities add. ``bad_pixels``, one mask (n, n) or one of each
    pattern (scan, n, n), is True where no count is valid, and the amplitudes are zero there; None
    if every pixel is good. ``background`` (n, n) are expected counts that do not come from the
    object, the same in every pattern and never subtracted from counts; None for none.
    """

    amplitudes: Float[np.ndarray, "scan n n"]
    positions_px: Float[np.ndarray, "scan 2"]
    probe: Complex[np.ndarray, "*modes n n"]
    groups: Int[np.ndarray, "group c"]
    scan_index: Int[np.ndarray, " scan"]
    object_shape: tuple[int, int]
    bad_pixels: Bool[np.ndarray, "*each n n"] | None = None
    background: Float[np.ndarray, "n n"] | None = None

    @property
    def counts(self) -> Float[np.ndarray, "scan n n"]:
        """Photons per detector pixel of every pattern, computed anew at each access."""
        return counts_of(self.amplitudes)


def counts_of(amplitudes: Float[np.ndarray, "*shape"]) -> Float[np.ndarray, "*shape"]:
    """Return the photons behind amplitudes: whole numbers again after the rounding of the root."""
    return np.round(amplitudes**2)


def box_of(measurement: Measurement) -> Box:
    """Return the smallest box of the object that holds every patch."""
    side = measurement.probe.shape[-1]
    corners = np.rint(measurement.positions_px).astype(np.int64) - side // 2
    first, last = corners.min(axis=0), corners.max(axis=0) + side
    return slice(int(first[0]), int(last[0])), slice(int(first[1]), int(last[1]))


def require_one_mode(method: str, measurement: Measurement) -> None:
    """Refuse what a method does not model: several modes, masks of each pattern, a background.

    As :func:`require_plain`, for all that a measurement holds.
    """
    require_plain(
        method,
        probe=measurement.probe,
        bad_pixels=measurement.bad_pixels,
        background=measurement.background,
    )


def require_plain(
    method: str,
    *,
    probe: Complex[np.ndarray, "*modes n n"],
    bad_pixels: Bool[np.ndarray, "*each n n"] | None = None,
    background: Float[np.ndarray, "n n"] | None = None,
) -> None:
    """Refuse what a method does not model: several modes, masks of each pattern, a background.

    Parameters
    ----------
    method
        What it is called in messages.
    probe, bad_pixels, background
        As in :class:`Measurement`.

    Raises
    ------
    InputError
        If there is any of these; names what can be done.
    """
    found = []
    if probe.ndim == 3:
        found.append(f"a probe of {len(probe)} modes")
    if bad_pixels is not None and bad_pixels.ndim == 3:
        found.append("a mask of each pattern")
    if background is not None:
        found.append("a background")
    if found:
        raise InputError(
            f"{method} takes one coherent mode, one mask for all patterns and no background; these "
            f"data have {' and '.join(found)}; use the solver, or import the data without them"
        )


def measurement_digest(measurement: Measurement) -> str:
    """Return the SHA-256 of everything an arm may know, whatever file it came from."""
    digest = hashlib.sha256()
    for field in fields(Measurement):
        if field.name == "background" and measurement.background is None:
            continue  # as it was before measurements had one
        value = np.asarray(getattr(measurement, field.name))
        digest.update(f"{field.name} {value.dtype} {value.shape}\0".encode())
        if value.dtype != object:  # no mask of bad pixels
            digest.update(np.ascontiguousarray(value).data)
    return digest.hexdigest()


def patterns_digest(measurement: Measurement) -> str:
    """Return the SHA-256 of the patterns and of what is known of them, however they are grouped."""
    ungrouped: np.ndarray = np.arange(len(measurement.scan_index))[:, None]
    return measurement_digest(replace(measurement, groups=ungrouped))


# --- Two independent measurements of one: each photon is given to one of two detectors
#
# If the counts of a pixel are Poisson of rate I, those kept with probability s are Poisson of rate
# s I, the others of rate (1 - s) I, and both are independent: what is made from the first part can
# be judged, or taught, by the second, without any truth.


def split_counts(
    counts: Float[np.ndarray, "*shape"], share: float, random: np.random.Generator
) -> tuple[Float[np.ndarray, "*shape"], Float[np.ndarray, "*shape"]]:
    """Return the photons that are kept, each with probability `share`, and the others.

    Their sum is the counts, exactly.

    Parameters
    ----------
    counts
        Whole photons per detector pixel.
    share
        Between 0 and 1, both left out.
    random
        Draws.

    Raises
    ------
    InputError
        If the share is not between 0 and 1.

    References
    ----------
    Splitting of a Poisson process: Kingman, Poisson Processes (1993), section 5.1. To judge without
    truth: Leiner et al., J. Am. Stat. Assoc. 120, 135 (2025), doi:10.1080/01621459.2023.2270748. To
    teach: Lehtinen et al., ICML 2018, arXiv:1803.04189
    """
    if not 0 < share < 1:
        raise InputError(f"share {share} of the photons; choose one between 0 and 1")
    kept = np.zeros_like(counts)
    lit = counts > 0  # most pixels are dark
    kept[lit] = random.binomial(counts[lit].astype(np.int64), share)
    return kept, counts - kept


def split_photons(
    measurement: Measurement, share: float, random: np.random.Generator
) -> tuple[Measurement, Measurement]:
    """Return the measurement as a share of its photons tells it, and as the others do.

    Each has the probe and the background that belong to its photons, so that the object is the
    same.

    Parameters
    ----------
    measurement
        Its counts are whole photons.
    share
        Chance of each photon to be in the first part; between 0 and 1, both left out.
    random
        Draws.

    Returns
    -------
    Two measurements of the same positions; their counts add up to the given ones. If those are
    Poisson numbers, the two parts are independent.

    Raises
    ------
    InputError
        If the share is not between 0 and 1.

    References
    ----------
    As for :func:`split_counts`.

    Examples
    --------
    Two patterns of 9 photons on every pixel. Each photon goes to one part or the other:

    >>> import numpy as np
    >>> import study_lib as study
    >>> from study_lib.physics.measurement import Measurement
    >>> measurement = Measurement(
    ...     amplitudes=np.full((2, 8, 8), 3.0, np.float32),
    ...     positions_px=np.array([[10.0, 10.0], [10.0, 12.0]]),
    ...     probe=np.full((8, 8), 3 + 0j, np.complex64),
    ...     groups=np.array([[0], [1]]),
    ...     scan_index=np.array([0, 1]),
    ...     object_shape=(20, 22),
    ... )
    >>> most, rest = study.split_photons(measurement, 0.75, study.generator(42, "split"))
    >>> bool((most.counts + rest.counts == measurement.counts).all())
    True
    >>> [round(float(abs(part.probe[0, 0]) ** 2), 4) for part in (measurement, most, rest)]
    [9.0, 6.75, 2.25]
    """
    kept, rest = split_counts(measurement.counts, share, random)
    return as_share(measurement, kept, share), as_share(measurement, rest, 1 - share)


def at_positions(measurement: Measurement, index: Int[np.ndarray, " kept"]) -> Measurement:
    """Return the patterns of some scan positions, each a group by itself."""
    bad = measurement.bad_pixels
    return replace(
        measurement,
        amplitudes=measurement.amplitudes[index],
        positions_px=measurement.positions_px[index],
        scan_index=measurement.scan_index[index],
        groups=np.arange(len(index), dtype=np.int64)[:, None],
        bad_pixels=bad if bad is None or bad.ndim == 2 else bad[index],
    )


def as_share(
    measurement: Measurement, counts: Float[np.ndarray, "scan n n"], share: float
) -> Measurement:
    """Return the measurement with these counts, a share of its photons, and the probe of them."""
    probe = (measurement.probe * np.sqrt(share)).astype(measurement.probe.dtype)
    background = measurement.background
    if background is not None:
        background = (background * share).astype(background.dtype)
    return replace(measurement, amplitudes=np.sqrt(counts), probe=probe, background=background)


# --- Photons: what a dose label is held against (SYNTH-POISSON-DOSE-001)


def photon_budget(
    amplitudes: Float[np.ndarray, "scan n n"], saturation_counts: int | None = None
) -> dict[str, Any]:
    """Return the photons of a set of patterns.

    Parameters
    ----------
    amplitudes : (scan, n, n)
        sqrt(counts).
    saturation_counts
        The most a pixel can count; if given, the pixels that reached it are counted too.
    """
    flat = amplitudes.reshape(len(amplitudes), -1)
    totals = np.vecdot(flat, flat).astype(np.float64)
    budget = {
        "patterns": len(amplitudes),
        "photons_per_pattern_measured": float(totals.mean()),
        "photons_per_pixel_measured": float(totals.mean() / flat.shape[1]),
        "largest_count": round(float(flat.max()) ** 2),
    }
    if saturation_counts is not None:
        limit = np.sqrt(np.float32(saturation_counts))
        budget["saturated_pixels"] = int((flat >= limit).sum())
    return budget
