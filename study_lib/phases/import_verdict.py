"""Whether an import worked: what is known of a scan and its model, and what follows from that."""

from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, replace
from typing import Any

import numpy as np
from jaxtyping import Float

from study_lib.data.formats.acquisition import Acquisition, ReadChoices
from study_lib.data.verdict import Verdict
from study_lib.errors import InputError
from study_lib.overlap.metrics import disc_overlap, linear_overlap, nearest_others
from study_lib.phases.import_fit import Fit, floor_of, hot_after_fit
from study_lib.physics.photons import WHOLE_SHARE_MIN, whole_share_of_roots
from study_lib.physics.probe import probe_diameter_px

# --- What is known

NEIGHBOURS = 6  # whose overlap is averaged, as in the study's metric of overlap
POWER_SHARE = 0.9  # of the probe, inside its diameter
FAR_FRAME, FAR_FRAME_SPREADS = 3.0, 10.0  # R of a frame over the median, and over the usual spread
FAR_FRAME_R = 0.1  # below, a frame is explained well, however little noise there is
NAMED_MAX = 6


@dataclass(frozen=True)
class ImportFacts:
    """What an import knows of a scan and of the model that it wrote.

    R-factors are :class:`study_lib.phases.import_fit.Fit`'s: of a uniform object with the first
    probe, of what is written, of photon noise alone. ``stop`` says what ended the iterations, or
    that object and probe are those of the file. Shares lie between 0 and 1; lengths in pixels are
    those of the object. ``fresnel_number`` is that of the field of view, ``wavelength * distance /
    detector pixel^2``; ``fresnel_number_detector`` that of the detector's extent, which is the
    field of a parallel beam. ``better_orientation`` and ``r_better`` name another orientation of
    the positions that explains some of the patterns better, and both R-factors on these.
    ``hot_after_fit`` has (row, column, side) of squares of pixels that seem to be hot.
    ``conjugate_of`` is what has to be conjugated to reach ``r_conjugate``.
    ``floor_counts`` are in every pixel of every pattern without being part of the model, and
    ``floor_share`` is their share of all counts. ``seem_roots``: what was taken for counts are
    roots of whole numbers.
    """

    patterns: int
    positions_apart_px: float
    overlap: float
    overlap_linear: float
    neighbours: float
    field_px: int
    probe_diameter_px: float
    probe_share_at_edge: float
    masked_share: float
    floor_counts: float = 0.0
    floor_share: float = 0.0
    seem_roots: bool = False
    r_start: float | None = None
    r_end: float | None = None
    r_noise: float | None = None
    stop: str = ""
    epochs: int = 0
    photons_per_pattern: tuple[float, float, float] | None = None
    field_m: float | None = None
    fresnel_number: float | None = None
    fresnel_number_detector: float | None = None
    far_frames: tuple[int, ...] = ()
    loudest_pixel: tuple[int, int] | None = None
    loudest_share: float = 0.0
    hot_after_fit: tuple[tuple[int, int, int], ...] = ()
    better_orientation: str = ""
    r_better: tuple[float, float] | None = None
    r_conjugate: float | None = None
    conjugate_of: str = ""
    r_reconstructed: float | None = None
    halves_agree: bool | None = None

    def as_dict(self) -> dict[str, Any]:
        """Return plain data for JSON."""
        return asdict(self)


def facts_of(
    acquisition: Acquisition,
    fit: Fit | None,
    *,
    r_start: float | None,
    stop: str,
    epochs: int,
) -> ImportFacts:
    """Return what is known of a scan with probe and object.

    Parameters
    ----------
    acquisition
        With probe and object, as they are written.
    fit
        Of these; None without patterns.
    r_start, stop, epochs
        As in :class:`ImportFacts`.
    """
    (probe,) = acquisition.require("probe")
    geometry, side = acquisition.geometry, probe.shape[-1]
    positions = acquisition.positions_px
    diameter = probe_diameter_px(probe, POWER_SHARE)
    known: dict[str, Any] = scan_facts(positions, diameter)
    power = (np.abs(probe.astype(np.complex128)) ** 2).reshape(-1, side, side).sum(axis=0)
    rim = max(1, side // 16)
    inner = power[rim:-rim, rim:-rim].sum()
    pixel_m = geometry.pixel_of_object_m(side)
    wavelength_m, distance_m = geometry.wavelength_m, geometry.detector_distance_m
    if wavelength_m and distance_m and geometry.detector_pixel_m:
        extent_m = side * geometry.detector_pixel_m
        known["fresnel_number"] = wavelength_m * distance_m / geometry.detector_pixel_m**2
        known["fresnel_number_detector"] = extent_m**2 / (wavelength_m * distance_m)
    if fit is not None:
        known |= {"r_end": fit.r_factor, "r_noise": fit.r_noise, **_loudest(fit)}
        known["hot_after_fit"] = hot_after_fit(fit)
        known["far_frames"] = tuple(int(one) for one in acquisition.names[far_frames(fit)])
    if acquisition.amplitudes is not None and not acquisition.is_normalized:
        totals = acquisition.amplitudes.reshape(len(positions), -1).astype(np.float64)
        photons = np.vecdot(totals, totals)
        known["photons_per_pattern"] = tuple(np.percentile(photons, (0, 50, 100)).tolist())
        some = acquisition.amplitudes[:SEEN_FOR_ROOTS].astype(np.float64) ** 2
        known["seem_roots"] = (
            whole_share_of_roots(acquisition.amplitudes[:SEEN_FOR_ROOTS]) < WHOLE_SHARE_MIN
            and whole_share_of_roots(some) >= WHOLE_SHARE_MIN
        )
        known["floor_counts"], known["floor_share"] = floor_of(acquisition)
    bad = acquisition.bad_pixels
    return ImportFacts(
        patterns=len(positions),
        field_px=side,
        field_m=pixel_m * side if pixel_m else None,
        probe_diameter_px=float(diameter),
        probe_share_at_edge=float(1 - inner / power.sum()),
        masked_share=0.0 if bad is None else float(bad.mean()),
        r_start=r_start,
        stop=stop,
        epochs=epochs,
        **known,
    )


def scan_facts(positions_px: Float[np.ndarray, "scan 2"], diameter_px: float) -> dict[str, float]:
    """Return distance, overlap and number of neighbours of the positions of a scan.

    The distance is the median of that to the nearest other place, the overlap the mean over the
    six nearest, and neighbours are those nearer than the probe's diameter.
    """
    places = np.unique(positions_px, axis=0)
    if len(places) == 1:
        return dict.fromkeys(("positions_apart_px", "overlap", "overlap_linear", "neighbours"), 0.0)
    distances, _ = nearest_others(places, min(NEIGHBOURS, len(places) - 1))
    overlap = float(disc_overlap(distances, diameter_px).mean())
    near, _ = nearest_others(places, min(64, len(places) - 1))
    return {
        "positions_apart_px": float(np.median(distances[:, 0])),
        "overlap": overlap,
        "overlap_linear": linear_overlap(overlap),
        "neighbours": float((near < diameter_px).sum(axis=1).mean()),
    }


def far_frames(fit: Fit) -> np.ndarray:
    """Return the frames that the model explains far worse than the others, noise considered."""
    found = fit.r_of_frames / fit.noise_of_frames
    median = np.nanmedian(found)
    spread = np.nanmedian(np.abs(found - median))
    limit = max(FAR_FRAME * median, median + FAR_FRAME_SPREADS * spread)
    far: np.ndarray = np.flatnonzero(
        (np.nan_to_num(found) > limit) & (np.nan_to_num(fit.r_of_frames) > FAR_FRAME_R)
    )
    return far


def _loudest(fit: Fit) -> dict[str, Any]:
    """Return the detector pixel with the largest part of the misfit, and that part."""
    size = np.abs(fit.misfit)
    total = float(size.sum())
    row, column = np.unravel_index(int(size.argmax()), size.shape)
    share = float(size.max()) / total if total else 0.0
    return {"loudest_pixel": (int(row), int(column)), "loudest_share": share}


# --- What follows


EXPLAINED_WRONG, EXPLAINED_DOUBTFUL = 0.1, 0.7
NOISE_FACTOR = 1.15  # of R at the end over that of noise: nothing is left to explain
BARELY = 0.05  # of R at the start over that of noise: hardly anything to explain
OVERLAP_MIN, OVERLAP_NONE = 0.1, 0.01
EDGE_SHARE_MAX = 0.05
LOUD_SHARE = 0.05
BETTER = 0.85  # R of another orientation, or of the conjugate, in units of R as it is
MASKED_MAX = 0.5
SEEN_FOR_ROOTS = 64  # patterns
MASKED_WRONG = 0.9  # of the values
FAR_BELOW_NOISE = 0.5  # R over that of noise; an object that fits a sparse scan's noise has .7
FLOOR_SHARE_MAX = 0.01  # of all counts: below, a floor is a hint
AGAINST_FLOOR = "give dark frames with --dark, or take --refine-background"


def judged(facts: ImportFacts) -> Verdict:
    """Return the verdict on an import.

    What the object explains is the part of R that falls between a uniform object and photon noise:
    ``(start - end) / (start - noise)``. Below a tenth it is wrong, below seven tenths doubtful,
    unless noise is all that is left.

    Examples
    --------
    >>> from study_lib.phases.import_verdict import ImportFacts, judged
    >>> scan = ImportFacts(
    ...     patterns=100, positions_apart_px=6.0, overlap=0.7, overlap_linear=0.75, neighbours=12.0,
    ...     field_px=64, probe_diameter_px=25.0, probe_share_at_edge=0.001, masked_share=0.0,
    ...     r_start=0.4, r_end=0.05, r_noise=0.05, stop="converged", epochs=120,
    ... )
    >>> print(judged(scan))
    good
    >>> from dataclasses import replace
    >>> print(judged(replace(scan, r_end=0.39, r_noise=None)))
    wrong: the object explains hardly anything: R-factor .390 after .400 for a uniform object
    """
    wrong, doubts = _of_model(facts)
    if facts.overlap < OVERLAP_MIN:
        (wrong if facts.overlap < OVERLAP_NONE else doubts).append(
            f"neighbours overlap by {_share(facts.overlap)} of the probe's disc (nearest "
            f"{facts.positions_apart_px:.3g} pixels apart, probe {facts.probe_diameter_px:.3g}, "
            f"field of view {facts.field_px}), and a scan needs {_share(OVERLAP_MIN)} at least"
            f"{_near_field(facts)}"
        )
    if facts.probe_share_at_edge > EDGE_SHARE_MAX:
        doubts.append(
            f"{_share(facts.probe_share_at_edge)} of the probe lies at the edge of its window: the "
            "detector is sampled too coarsely, or the probe has not been found"
        )
    if facts.seem_roots:
        doubts.append(
            "what was taken for counts are roots of whole numbers: if they are roots of counts, "
            "say --domain amplitude"
        )
    if facts.floor_share > FLOOR_SHARE_MAX:
        doubts.append(f"{floor_said(facts)}: {AGAINST_FLOOR}")
    if facts.masked_share > MASKED_WRONG:
        wrong.append(
            f"{_share(facts.masked_share)} of the values are masked: True or 1 has to be bad, and "
            "a mask that has it good is to be inverted"
        )
    elif facts.masked_share > MASKED_MAX:
        doubts.append(f"{_share(facts.masked_share)} of the values are masked")
    if facts.far_frames:
        shown = ", ".join(map(str, facts.far_frames[:NAMED_MAX]))
        more = len(facts.far_frames) - NAMED_MAX
        shown += f" and {more} more" if more > 0 else ""
        doubts.append(f"frame {shown}: explained far worse than the others")
    if facts.loudest_pixel is not None and facts.loudest_share > LOUD_SHARE:
        doubts.append(
            f"detector pixel {facts.loudest_pixel} has {_share(facts.loudest_share)} of the "
            "misfit: is it bad (--mask)?"
        )
    if facts.halves_agree is False:
        doubts.append("objects from two halves of the patterns agree at no frequency")
    if wrong:
        return Verdict("wrong", (*wrong, *doubts))
    return Verdict("doubtful", tuple(doubts)) if doubts else Verdict("good")


def floor_said(facts: ImportFacts) -> str:
    """Return in words the floor that is not part of the model."""
    return (
        f"{facts.floor_counts:.2g} counts are in every pixel of every pattern alike, "
        f"{_share(facts.floor_share)} of all, and the object does not make them"
    )


def explained_share(facts: ImportFacts) -> float:
    """Return which part of R the object explains, see :func:`judged`; 1 without patterns."""
    if facts.r_start is None or facts.r_end is None:
        return 1.0
    span = facts.r_start - (facts.r_noise or 0.0)
    return (facts.r_start - facts.r_end) / span if span > 0 else float(facts.r_end <= facts.r_start)


def _of_model(facts: ImportFacts) -> tuple[list[str], list[str]]:
    """Return what is wrong and what is doubtful about the model of the patterns."""
    wrong: list[str] = []
    doubts: list[str] = []
    if facts.r_start is None or facts.r_end is None:
        return wrong, doubts
    noise = facts.r_noise or 0.0
    figures = f"R-factor {_r(facts.r_end)} after {_r(facts.r_start)} for a uniform object" + (
        f", photon noise alone leaves {_r(noise)}" if facts.r_noise is not None else ""
    )
    share = explained_share(facts)
    at_noise = facts.r_noise is not None and facts.r_end <= NOISE_FACTOR * noise
    if facts.r_noise is not None and facts.r_start < (1 + BARELY) * noise and at_noise:
        dark = "; if a part of the counts is dark or scattered, give --dark or --refine-background"
        doubts.append(f"the patterns show hardly more than noise: {figures}{dark}")
    elif share < EXPLAINED_WRONG:
        wrong.append(f"the object explains hardly anything: {figures}{_near_field(facts)}")
    elif share < EXPLAINED_DOUBTFUL and not at_noise:
        doubts.append(
            f"much of the patterns is not explained: {figures}{_near_field(facts)}; are positions "
            "and frames in the same order, and is the zero frequency in the middle?"
        )
    if facts.r_noise is not None and facts.r_end < FAR_BELOW_NOISE * noise:
        doubts.append(
            f"the model is nearer to the values than photon noise lets it be ({figures}): they are "
            "no plain counts, but scaled, averaged or mostly masked"
        )
    if facts.r_better is not None:
        same, better = facts.r_better
        wrong.append(
            f"the positions {facts.better_orientation} explain some of the patterns better: "
            f"R-factor {_r(better)} instead of {_r(same)}"
        )
    if facts.r_conjugate is not None:
        wrong.append(
            f"the complex conjugate of {facts.conjugate_of} explains the patterns better: R-factor "
            f"{_r(facts.r_conjugate)} instead of {_r(facts.r_end)}; the file has the other sign "
            "convention there: take the conjugate of that in the file, or --ignore object,probe"
        )
    if facts.r_reconstructed is not None and facts.r_reconstructed < BETTER * facts.r_end:
        wrong.append(
            f"a reconstruction from the same patterns reaches {_r(facts.r_reconstructed)}, object "
            f"and probe of the file {_r(facts.r_end)}; take --ignore object,probe"
        )
    if facts.stop == NOT_CONVERGED and not at_noise:
        doubts.append(
            f"not converged in {facts.epochs} epochs: R-factor {_r(facts.r_end)}; raise --epochs"
        )
    return wrong, doubts


NOT_CONVERGED = "epochs used up"
FRESNEL_MAX = 1.0


def _near_field(facts: ImportFacts) -> str:
    """Return what the Fresnel number says where a far-field model does not fit."""
    if facts.fresnel_number is None or facts.fresnel_number < FRESNEL_MAX:
        return ""
    return (
        f"; Fresnel number {facts.fresnel_number:.2g} of the field of view, "
        f"{facts.fresnel_number_detector:.3g} of the detector: near-field holograms of a parallel "
        "beam are not far-field patterns, and out of scope here"
    )


def _share(share: float) -> str:
    return f"{share:.1%}" if share < 0.1 else f"{share:.0%}"


def _r(value: float) -> str:
    return f"{value:.3f}".removeprefix("0")


# --- Refused before any iteration


WINDOW_SHARE_MAX = 0.75  # of the window between neighbours: what is lit is smaller than it


def require_overlap(acquisition: Acquisition) -> None:
    """Check that patterns share object pixels: without, nothing ties their phases together.

    Raises
    ------
    InputError
        If there is one pattern, all positions are alike, or no two patterns share a pixel; says
        how far neighbours are apart, and the Fresnel number where the lengths are known.
    """
    source, side = acquisition.metadata.get("source"), acquisition.side_px()
    places = np.unique(acquisition.positions_px, axis=0)
    count = len(acquisition.positions_px)
    if len(places) == 1:
        found = "one pattern" if count == 1 else f"{count} patterns, all at one position"
        raise InputError(
            f"{source}: positions: found {found}; ptychography needs patterns that overlap at two "
            "positions at least; check the positions"
        )
    distances, _ = nearest_others(places, 1)
    apart = float(np.median(distances))
    if apart < WINDOW_SHARE_MAX * side:
        return
    geometry = acquisition.geometry
    pixel_m = geometry.pixel_of_object_m(side)
    lengths = ""
    if pixel_m:
        lengths = f" ({apart * pixel_m:.3g} m; a pattern covers {side * pixel_m:.3g} m)"
    near = ""
    wavelength_m, distance_m = geometry.wavelength_m, geometry.detector_distance_m
    if wavelength_m and distance_m and geometry.detector_pixel_m:
        extent_m = side * geometry.detector_pixel_m
        fresnel = extent_m**2 / (wavelength_m * distance_m)
        near = (
            "; if these are near-field holograms of a parallel beam (Fresnel number of the "
            f"detector {fresnel:.3g}), they are out of scope here"
        )
    raise InputError(
        f"{source}: positions: neighbours are {apart:.4g} pixels apart and a pattern covers "
        f"{side}{lengths}, so that next to nothing overlaps; check the unit of the positions, "
        f"energy, distance and detector pixel{near}"
    )


# --- The orientation of positions against detector


@dataclass(frozen=True)
class Turn:
    """How positions are turned before they are used: axes exchanged, then signs."""

    swap: bool = False
    sign_y: int = 1
    sign_x: int = 1

    def of(self, positions_px: Float[np.ndarray, "scan 2"]) -> Float[np.ndarray, "scan 2"]:
        """Return positions turned so."""
        turned = positions_px[:, ::-1] if self.swap else positions_px
        return np.ascontiguousarray(turned * [self.sign_y, self.sign_x])

    def after(self, first: "Turn") -> "Turn":
        """Return both turns as one, this one second."""
        signs = (first.sign_y, first.sign_x)
        if self.swap:
            signs = signs[::-1]
        return Turn(self.swap != first.swap, self.sign_y * signs[0], self.sign_x * signs[1])

    @property
    def options(self) -> str:
        """The options of `study import` that turn positions so, both signs together being none."""
        flip = self.sign_y != self.sign_x
        return " ".join(
            word for word, said in (("--swap-xy", self.swap), ("--flip-y", flip)) if said
        )


ORIENTATIONS: Mapping[str, Turn] = {
    "as they are": Turn(),
    "with the sign of one axis turned": Turn(sign_y=-1),
    "with x and y exchanged": Turn(swap=True),
    "with x and y exchanged and the sign of one axis turned": Turn(swap=True, sign_y=-1),
}
TRIED_PATTERNS = 100


def with_better_orientation(
    facts: ImportFacts,
    acquisition: Acquisition,
    choices: ReadChoices,
    r_of: Callable[[Acquisition], float],
) -> ImportFacts:
    """Return the facts with the orientation that explains some of the patterns best, if another.

    Eight orientations map a scan on a detector; turning both signs is the same as the conjugate
    object turned by 180 degrees, which no far-field pattern can tell, so that four are tried.

    Parameters
    ----------
    facts
        What is known so far.
    acquisition
        As it was read, without object.
    choices
        How the user had the positions turned already.
    r_of
        Reconstructs object and probe of an acquisition in a few epochs and returns the R-factor.
    """
    places = acquisition.positions_px
    nearest = np.argsort(np.hypot(*(places - np.median(places, axis=0)).T))[:TRIED_PATTERNS]
    part = at_frames(acquisition, np.sort(nearest))
    found = {
        name: r_of(replace(part, positions_px=turn.of(part.positions_px)))
        for name, turn in ORIENTATIONS.items()
    }
    same = found["as they are"]
    best = min(found, key=lambda name: found[name])
    if found[best] >= BETTER * same:
        return facts
    said = Turn(choices.swap_xy, -1 if choices.flip_y else 1, -1 if choices.flip_x else 1)
    options = ORIENTATIONS[best].after(said).options or "no option"
    if options.endswith("--flip-y"):
        options += ", or --flip-x: the data cannot tell, the phase has the other sign"
    return replace(facts, better_orientation=f"{best} ({options})", r_better=(same, found[best]))


def at_frames(acquisition: Acquisition, frames: np.ndarray) -> Acquisition:
    """Return some frames of an acquisition."""
    bad, amplitudes = acquisition.bad_pixels, acquisition.amplitudes
    return replace(
        acquisition,
        positions_px=acquisition.positions_px[frames],
        amplitudes=None if amplitudes is None else amplitudes[frames],
        scan_index=acquisition.names[frames],
        bad_pixels=bad[frames] if bad is not None and bad.ndim == 3 else bad,
    )
