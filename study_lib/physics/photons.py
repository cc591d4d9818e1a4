"""The photons of a measurement: whether they are whole and Poisson, and who gets which of them."""

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from jaxtyping import Bool, Float, Int, Shaped

from study_lib.physics.measurement import counts_of, split_counts
from study_lib.seeding import generator

PATTERNS_AT_A_TIME = 64  # of one random stream: memory stays bounded

# --- Each photon goes once, by seed, to one of three: arms, reference or judge
#
# Four quarters, drawn once for two draws (replicates): the arms of the one get the quarters that
# the other gives to its reference and its judge. So two such draws share no photon at all.

SHARES = {"arms": 0.5, "reference": 0.25, "judge": 0.25}


def divided(
    counts: Float[np.ndarray, "scan n n"], *, draw: int, seed: int
) -> dict[str, Float[np.ndarray, "scan n n"]]:
    """Return the counts that each of ``SHARES`` gets: half, a quarter and a quarter of the photons.

    Their sum is the counts, exactly. Each photon falls by chance, so that parts of Poisson counts
    are Poisson counts, independent of one another.

    Parameters
    ----------
    counts : (scan, n, n)
        Whole photons.
    draw
        Number of the replicate. Draws 0 and 1 have no photon of their arms in common, nor have 2
        and 3, and so on.
    seed
        One for all draws.

    References
    ----------
    Splitting of a Poisson process: Kingman, Poisson Processes (1993), section 5.1.

    Examples
    --------
    >>> import numpy as np
    >>> from study_lib.physics.photons import divided
    >>> counts = np.full((3, 8, 8), 100.0, np.float32)
    >>> first, second = (divided(counts, draw=draw, seed=1) for draw in (0, 1))
    >>> bool((sum(first.values()) == counts).all())
    True
    >>> bool((first["arms"] + second["arms"] == counts).all())
    True
    """
    pair, is_second = divmod(draw, 2)
    parts = {name: np.empty_like(counts) for name in SHARES}
    for chunk, start in enumerate(range(0, len(counts), PATTERNS_AT_A_TIME)):
        some = slice(start, start + PATTERNS_AT_A_TIME)
        halves = split_counts(counts[some], 0.5, generator(seed, "photons", "halves", pair, chunk))
        arms, others = halves[::-1] if is_second else halves
        parts["arms"][some] = arms
        quarters = generator(seed, "photons", "quarters", pair, is_second, chunk)
        parts["reference"][some], parts["judge"][some] = split_counts(others, 0.5, quarters)
    return parts


def share_no_photons(draw: int, other: int) -> bool:
    """Return whether the arms of two draws of :func:`divided` have no photon in common.

    >>> from study_lib.physics.photons import share_no_photons
    >>> share_no_photons(0, 1), share_no_photons(1, 2)
    (True, False)
    """
    return draw != other and draw // 2 == other // 2


# --- Doses: nested thinnings of what the arms got


def thinned(
    counts: Shaped[np.ndarray, "scan n n"],
    share: float,
    *,
    seed: int,
    draw: int,
    rows: Int[np.ndarray, " some"] | None = None,
) -> Float[np.ndarray, "some n n"]:
    """Return the photons that are left at a share of them; those of a smaller share are among them.

    Each photon has a hidden number, uniform between 0 and 1, and is kept if that is below the
    share. The numbers are never drawn one by one: a node of a binary tree knows how many of the
    photons of a pixel have theirs in its half, and only halves that the share cuts are looked into.
    So the photons at one share do not depend on which other shares there are.

    Parameters
    ----------
    counts : (scan, n, n)
        Whole photons.
    share
        Above 0, at most 1.
    seed, draw
        Name the hidden numbers.
    rows
        Which patterns are returned, in this order; None: all. Each is as it is among all.

    Raises
    ------
    ValueError
        If there is no such share.

    References
    ----------
    As for :func:`divided`; the tree is that of Devroye, Non-Uniform Random Variate Generation
    (1986), chapter V.4: order statistics by recursive binomial splitting.

    Examples
    --------
    >>> import numpy as np
    >>> from study_lib.physics.photons import thinned
    >>> counts = np.full((3, 8, 8), 100)
    >>> some, fewer = (thinned(counts, share, seed=1, draw=0) for share in (0.5, 0.1))
    >>> bool((fewer <= some).all())
    True
    >>> round(float(some.mean()), -1), round(float(fewer.mean()), -1)
    (50.0, 10.0)
    """
    if not 0 < share <= 1:
        raise ValueError(f"share {share} of the photons: above 0, at most 1")
    wanted = np.arange(len(counts)) if rows is None else rows
    kept = np.zeros((len(wanted), *counts.shape[1:]), np.float32)
    # A chunk has a random stream of its own: those without a wanted pattern are left out.
    for chunk in np.unique(wanted // PATTERNS_AT_A_TIME).tolist():
        start = chunk * PATTERNS_AT_A_TIME
        part = counts[start : start + PATTERNS_AT_A_TIME]
        below = _below(part.astype(np.int64).ravel(), share, seed, draw, chunk).reshape(part.shape)
        places = np.flatnonzero(wanted // PATTERNS_AT_A_TIME == chunk)
        kept[places] = below[wanted[places] - start]
    return kept


def _below(
    counts: Shaped[np.ndarray, " pixel"], share: float, seed: int, draw: int, chunk: int
) -> Shaped[np.ndarray, " pixel"]:
    """Return of each pixel's photons how many have a hidden number below the share."""
    found = np.zeros_like(counts)
    places = np.flatnonzero(counts)
    rest = counts[places]
    low, high, node = 0.0, 1.0, 1
    while places.size and low < share:
        if share >= high:
            found[places] += rest
            break
        lower = generator(seed, "dose", draw, chunk, node).binomial(rest, 0.5)
        middle = (low + high) / 2
        if share >= middle:
            found[places] += lower
            rest, low, node = rest - lower, middle, 2 * node + 1
        else:
            rest, high, node = lower, middle, 2 * node
        is_left = rest > 0
        places, rest = places[is_left], rest[is_left]
    return found


# --- Are they Poisson? Asked before anything is made of them

WHOLE_SHARE_MIN = 0.99
ROUNDING_UNITS = 4  # in the last place of a count, whose root was rounded, perhaps twice
ROUNDING_MAX = 0.25  # from a whole number: where rounding is more, a value says nothing
DISPERSION_MIN, DISPERSION_MAX = 0.9, 1.1
REPEATED_PX = 0.05  # frames of one place, as far as the object is concerned
FAINT_COUNTS = 0.1  # mean of a pixel below which frames differ by noise alone
PHOTONS_MIN = 1000  # whose dispersion is known to some percent
PAIRS_MAX = 256
PIXELS_AT_A_TIME = 2**20  # of pairs of frames
LIT_MIN = 100  # values above zero, which hardly have a common divisor by chance
FAINT = "faint pixels"
OFF = (
    "Thinned counts have less of that fault the lower the dose; likelihoods, the photon limit and "
    "the spread over draws are those of Poisson counts, and are off by it."
)


@dataclass(frozen=True)
class NoiseTest:
    """How far counts are from Poisson numbers.

    A dispersion is ``sum (a - b)^2 / sum (a + b)`` over the pixels of pairs of frames: 1 for
    Poisson counts of one rate, whatever that is. ``repeated`` are frames of one place;
    ``faint`` are pixels of neighbouring frames with so few photons that a change of the object
    cannot matter; ``neighbouring`` are all pixels of neighbouring frames, where what changes of the
    object adds to the noise: it bounds the dispersion from above. None where there is nothing to
    compare. ``step`` is the greatest common divisor of all counts, 1 for photons.
    """

    whole_share: float
    step: int
    pairs: int
    dispersion_repeated: float | None
    dispersion_faint: float | None
    dispersion_neighbouring: float | None

    @property
    def dispersion(self) -> float | None:
        """The dispersion that decides: of repeated frames, of faint pixels, or of neighbours.

        That of neighbouring frames decides where it is no more than that of photons: then no change
        of the object is in it. It comes first where it is less than that of photons.
        """
        return self._deciding[1]

    @property
    def _deciding(self) -> tuple[str, float | None]:
        """Whose dispersion decides, in words, and that dispersion."""
        bound = self.dispersion_neighbouring
        neighbours = ("neighbouring frames", bound)
        if bound is not None and bound < DISPERSION_MIN:
            return neighbours
        if self.dispersion_repeated is not None:
            return "repeated frames", self.dispersion_repeated
        if self.dispersion_faint is not None:
            return FAINT, self.dispersion_faint
        return neighbours if bound is not None and bound <= DISPERSION_MAX else ("", None)

    @property
    def is_poisson(self) -> bool | None:
        """Whether the noise is that of photons; None if these data cannot say.

        It is not where frames differ by less than photons do, be they neighbours, whose objects
        only add to it, nor where all counts are multiples of a number. Faint pixels say little:
        those that count 0 or 1 have a dispersion of about 1 whatever a detector makes of two.
        """
        if self.step > 1:
            return False
        if self.dispersion is None:
            return None
        return DISPERSION_MIN <= self.dispersion <= DISPERSION_MAX

    @property
    def sentence(self) -> str:
        """What the test found, for people."""
        whole = f"{100 * self.whole_share:.4g} % of the counts are whole numbers"
        if self.step > 1:
            return (
                f"{whole}, and all of them are multiples of {self.step}: they are no single "
                f"photons, and the noise is NOT Poisson. Divide them by {self.step}, if that is "
                f"what the detector counts for a photon, and import them again. {OFF}"
            )
        of, dispersion = self._deciding
        if dispersion is None:
            return (
                f"{whole}. Whether the noise is Poisson cannot be said: no place was measured "
                f"twice, and hardly a pixel has a mean below {FAINT_COUNTS:g} counts."
            )
        found = (
            f"{whole}, and the variance of {of} is {dispersion:.3f} times their mean "
            f"(index of dispersion, {self.pairs} pairs of frames)"
        )
        if not self.is_poisson:
            return (
                f"{found}, outside {DISPERSION_MIN:g} to {DISPERSION_MAX:g}: the noise is NOT "
                f"Poisson. {OFF}"
            )
        if of == FAINT:
            return f"{found}: that is consistent with one count per photon."
        return f"{found}: the noise is Poisson."

    def record(self) -> dict[str, Any]:
        """Return it as plain data, with what it says."""
        said = {"dispersion": self.dispersion, "is_poisson": self.is_poisson}
        return asdict(self) | said | {"sentence": self.sentence}


def whole_share_of_roots(values: Shaped[np.ndarray, "..."]) -> float:
    """Return the share of values whose squares are whole numbers, but for rounding of the roots.

    Zeros do not count. The root of a count is off by half a unit in its last place, and its square
    by twice that: by a share of the count, and not by a number. Values so bright that this hides a
    whole number have no say; 1 if no other is there.

    Parameters
    ----------
    values : (scan, n, n)
        Roots of counts, looked at some patterns at a time.
    """
    precision = np.finfo(values.dtype if values.dtype == np.float16 else np.float32).eps
    whole = known = 0
    for start in range(0, len(values), PATTERNS_AT_A_TIME):
        squares = values[start : start + PATTERNS_AT_A_TIME].astype(np.float64) ** 2
        squares = squares[np.isfinite(squares) & (squares > 0)]
        rounding = ROUNDING_UNITS * float(precision) * squares
        off = np.abs(squares - np.rint(squares))
        is_known = rounding < ROUNDING_MAX
        whole += int((off <= rounding)[is_known].sum())
        known += int(is_known.sum())
    return whole / known if known else 1.0


def noise_test(
    amplitudes: Float[np.ndarray, "scan n n"],
    positions_px: Float[np.ndarray, "scan 2"],
    bad_pixels: Bool[np.ndarray, "..."] | None = None,
) -> NoiseTest:
    """Return how far counts are from Poisson numbers.

    Parameters
    ----------
    amplitudes : (scan, n, n)
        Roots of the counts.
    positions_px : (scan, 2)
        Where each was measured, in object pixels.
    bad_pixels : (n, n) or (scan, n, n), optional
        True where a count is not valid.

    References
    ----------
    The index of dispersion: Cox and Lewis, The Statistical Analysis of Series of Events (1966),
    section 6.3.

    Examples
    --------
    >>> import numpy as np
    >>> import study_lib as study
    >>> from study_lib.physics.photons import noise_test
    >>> random = study.generator(1, "noise")
    >>> places = np.zeros((40, 2))
    >>> photons = random.poisson(3.0, (40, 16, 16))
    >>> noise_test(np.sqrt(photons), places).is_poisson
    True

    A detector that counts four for each photon:

    >>> round(noise_test(np.sqrt(4 * photons), places).dispersion)
    4
    """
    pairs, is_repeated = _closest_pairs(positions_px)
    pixels = amplitudes.shape[1:]
    squared, total, squared_repeated, total_repeated = np.zeros((4, *pixels))
    valid = np.zeros(pixels, np.int64)
    at_a_time = max(1, PIXELS_AT_A_TIME // max(1, valid.size))
    for start in range(0, len(pairs), at_a_time):
        some = slice(start, start + at_a_time)
        ones, others = pairs[some].T
        first, second = (counts_of(amplitudes[side]).astype(np.float64) for side in (ones, others))
        good = np.ones(first.shape, bool)
        if bad_pixels is not None:
            bad = np.broadcast_to(bad_pixels, amplitudes.shape)
            good = ~(bad[ones] | bad[others])
        valid += good.sum(axis=0)
        differences, sums = (first - second) ** 2 * good, (first + second) * good
        squared += differences.sum(axis=0)
        total += sums.sum(axis=0)
        squared_repeated += differences[is_repeated[some]].sum(axis=0)
        total_repeated += sums[is_repeated[some]].sum(axis=0)
    is_faint = total / (2 * np.maximum(valid, 1)) < FAINT_COUNTS
    return NoiseTest(
        whole_share_of_roots(amplitudes),
        _common_divisor(amplitudes),
        int(is_repeated.sum() or len(pairs)),
        _dispersion(squared_repeated, total_repeated),
        _dispersion(squared[is_faint], total[is_faint]),
        _dispersion(squared, total),
    )


def _common_divisor(amplitudes: Float[np.ndarray, "scan n n"]) -> int:
    """Return the greatest common divisor of the counts; 1 of too few of them."""
    divisor = lit = 0
    for start in range(0, len(amplitudes), PATTERNS_AT_A_TIME):
        counts = counts_of(amplitudes[start : start + PATTERNS_AT_A_TIME]).astype(np.int64)
        divisor = int(np.gcd.reduce(counts, axis=None, initial=divisor))
        lit += int(np.count_nonzero(counts))
        if divisor == 1:
            return 1
    return divisor if lit >= LIT_MIN else 1


def _dispersion(
    squared: Float[np.ndarray, "*pixels"], total: Float[np.ndarray, "*pixels"]
) -> float | None:
    """Return a dispersion from sums over pairs of frames, pixel by pixel; None of few photons."""
    photons = float(total.sum())
    return float(squared.sum()) / photons if photons >= PHOTONS_MIN else None


def _closest_pairs(
    positions_px: Float[np.ndarray, "scan 2"],
) -> tuple[Shaped[np.ndarray, "pairs 2"], Bool[np.ndarray, " pairs"]]:
    """Return pairs of neighbouring frames, each frame in one pair at most, the closest first.

    At most ``PAIRS_MAX``, and whether each is of one place.
    """
    if len(positions_px) < 2:
        return np.empty((0, 2), np.int64), np.empty(0, bool)
    from scipy.spatial import cKDTree  # noqa: PLC0415  # slow, and every command loads this module

    distances, neighbours = map(np.asarray, cKDTree(positions_px).query(positions_px, k=2))
    # Of frames at one place the tree may name the frame itself second.
    own = np.arange(len(positions_px))
    other = np.where(neighbours[:, 1] == own, neighbours[:, 0], neighbours[:, 1])
    taken: set[int] = set()
    pairs: list[Sequence[int]] = []
    apart: list[float] = []
    for index in np.argsort(distances[:, 1], kind="stable").tolist():
        pair = (index, int(other[index]))
        if pair[0] == pair[1] or taken & set(pair):
            continue
        taken.update(pair)
        pairs.append(pair)
        apart.append(float(distances[index, 1]))
        if len(pairs) == PAIRS_MAX:
            break
    return np.array(pairs, np.int64).reshape(-1, 2), np.array(apart) <= REPEATED_PX
