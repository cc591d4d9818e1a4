"""The only likelihood: how well an object explains counts, seen and unseen."""

import math
from collections.abc import Callable, Iterator, Mapping
from types import MappingProxyType

import numpy as np
import torch
from jaxtyping import Bool, Complex, Float, Int
from torch import Tensor

from study_lib.physics.forward import patterns_expected
from study_lib.physics.measurement import Measurement

# --- The measures: 1/2 per pixel where noise alone is left and photons are many

COUNT_FLOOR = 1e-6  # photons per pixel, far below what matters; keeps gradients finite


def half_deviance(
    expected: Float[Tensor, "*batch n n"],
    counts: Float[Tensor, "*batch n n"],
    bad_pixels: Bool[Tensor, "*each n n"] | None = None,
) -> Float[Tensor, ""]:
    """Return the mean Poisson negative log-likelihood per pixel above that of a perfect model.

    ``lambda - n - n log(lambda / n)``; its gradient is the likelihood's. Where many photons fall
    on every pixel, noise alone gives 1/2. Bad pixels, one mask for all or one for each pattern,
    count neither in the sum nor in the mean.
    """
    ratio = torch.xlogy(counts, counts) - torch.xlogy(counts, expected + COUNT_FLOOR)
    terms = expected - counts + ratio
    return _mean_of_good(terms, bad_pixels)


def amplitude_error(
    expected: Float[Tensor, "*batch n n"],
    counts: Float[Tensor, "*batch n n"],
    bad_pixels: Bool[Tensor, "*each n n"] | None = None,
) -> Float[Tensor, ""]:
    """Return twice the mean squared difference of the amplitudes, ``2 (sqrt(lambda) - sqrt(n))^2``.

    The root of a Poisson count has the variance 1/4, whatever its mean; noise alone gives 1/2 here
    too. Bad pixels count neither in the sum nor in the mean.
    """
    terms = 2 * (torch.sqrt(expected + COUNT_FLOOR) - torch.sqrt(counts)) ** 2
    return _mean_of_good(terms, bad_pixels)


SMALLEST_SHARE = 1e-9  # of good pixels; patterns without any give zero


def _mean_of_good(
    terms: Float[Tensor, "*batch n n"], bad_pixels: Bool[Tensor, "*each n n"] | None
) -> Float[Tensor, ""]:
    if bad_pixels is None:
        return terms.mean()
    share = (~bad_pixels).float().mean().clamp_min(SMALLEST_SHARE)
    return terms.masked_fill(bad_pixels, 0).mean() / share


Measure = Callable[[Tensor, Tensor, Tensor | None], Tensor]
MEASURES: Mapping[str, Measure] = MappingProxyType(
    {"poisson": half_deviance, "amplitude": amplitude_error}
)

# --- Pattern by pattern: one measure for every way an object was found

PIXELS_AT_A_TIME = 2**21


def deviance_by_pattern(
    expected: Float[Tensor, "scan n n"],
    counts: Float[Tensor, "scan n n"],
    bad_pixels: Bool[Tensor, "*each n n"] | None = None,
) -> Float[Tensor, " scan"]:
    """Return :func:`half_deviance` of each pattern; 0 for one without a good pixel."""
    each: Tensor
    if bad_pixels is not None and bad_pixels.ndim == 3:
        each = torch.vmap(half_deviance)(expected, counts, bad_pixels)
        return each
    each = torch.vmap(lambda rate, count: half_deviance(rate, count, bad_pixels))(expected, counts)
    return each


def expected_in_parts(
    object_: Complex[np.ndarray, "oy ox"],
    probe: Complex[np.ndarray, "*modes n n"],
    positions_px: Float[np.ndarray, "scan 2"],
    patterns_at_a_time: int = 0,
    background: Float[np.ndarray, "n n"] | None = None,
) -> Iterator[tuple[slice, Float[Tensor, "patterns n n"]]]:
    """Yield the counts that an object predicts, some positions at a time: memory stays bounded.

    Parameters
    ----------
    object_ : (oy, ox)
        In the frame of the positions.
    probe : (n, n) or (modes, n, n)
        In sqrt(photons) per pixel.
    positions_px : (scan, 2)
        (row, column) patch centres.
    patterns_at_a_time
        Default: as many as have `PIXELS_AT_A_TIME` pixels.
    background : (n, n), optional
        Counts that do not come from the object.
    """
    light, transmission = torch.from_numpy(probe), torch.from_numpy(object_)
    dark = None if background is None else torch.from_numpy(background)
    step = patterns_at_a_time or max(1, PIXELS_AT_A_TIME // probe.size)
    for start in range(0, len(positions_px), step):
        part = slice(start, start + step)
        places = torch.from_numpy(positions_px[part])
        yield part, patterns_expected(light, transmission, places, dark)


def pattern_residuals(
    measurement: Measurement,
    object_: Complex[np.ndarray, "oy ox"],
    probe: Complex[np.ndarray, "*modes n n"],
) -> Float[np.ndarray, " scan"]:
    """Return half the Poisson deviance per good detector pixel, pattern by pattern.

    About 1/2 where the object explains a pattern up to noise and photons are many, less where
    pixels are mostly dark.

    Parameters
    ----------
    measurement
        Patterns, positions, bad pixels and background.
    object_ : (oy, ox)
        In the frame of the positions.
    probe : (n, n) or (modes, n, n)
        In sqrt(photons) per pixel.
    """
    bad = measurement.bad_pixels
    mask = None if bad is None else torch.from_numpy(bad)
    found = np.empty(len(measurement.amplitudes))
    parts = expected_in_parts(
        object_, probe, measurement.positions_px, background=measurement.background
    )
    for part, expected in parts:
        counts = torch.from_numpy(measurement.amplitudes[part]).square()
        found[part] = deviance_by_pattern(expected, counts, masks_of(mask, part)).numpy()
    return found


def masks_of(
    bad_pixels: Bool[Tensor, "*each n n"] | None, part: slice | Int[Tensor, "*chosen"]
) -> Bool[Tensor, "*some n n"] | None:
    """Return the masks of some patterns; the one of all patterns is theirs too."""
    if bad_pixels is None or bad_pixels.ndim == 2:
        return bad_pixels
    return bad_pixels[part]


def good_pixels_of(measurement: Measurement) -> int | Int[np.ndarray, " scan"]:
    """Return how many detector pixels of each pattern hold a valid count; one number if alike."""
    bad = measurement.bad_pixels
    if bad is None:
        return math.prod(measurement.probe.shape[-2:])
    good: np.ndarray = (~bad).sum(axis=(-2, -1))
    return int(good) if bad.ndim == 2 else good


# --- Counts that no arm has seen: a second draw of the same experiment

MOST_PATTERNS = 1000
CHUNK = 128


class FreshCounts:
    """Fresh Poisson counts from the true object, at the view's own positions.

    At most `MOST_PATTERNS` positions, evenly spread over the scan order.

    Parameters
    ----------
    truth : (oy, ox)
        The true object.
    probe : (n, n) or (modes, n, n)
        In sqrt(photons) per pixel.
    positions_px : (scan, 2)
        (row, column) patch centres in object pixels.
    random
        Draws the counts.
    background : (n, n) or a number
        Photons per detector pixel that do not come from the object.
    bad_pixels : (n, n) or (scan, n, n), optional
        Detector pixels without a count, of all patterns or of each.
    """

    def __init__(
        self,
        *,
        truth: Complex[np.ndarray, "oy ox"],
        probe: Complex[np.ndarray, "*modes n n"],
        positions_px: Float[np.ndarray, "scan 2"],
        random: np.random.Generator,
        background: float | Float[np.ndarray, "n n"] = 0.0,
        bad_pixels: Bool[np.ndarray, "*each n n"] | None = None,
    ) -> None:
        step = -(-len(positions_px) // MOST_PATTERNS)
        self._positions_px = positions_px[::step].astype(np.float64)
        self._probe = probe.astype(np.complex64)
        self._background = (
            torch.from_numpy(background.astype(np.float32))
            if isinstance(background, np.ndarray)
            else background
        )
        if bad_pixels is not None and bad_pixels.ndim == 3:
            bad_pixels = bad_pixels[::step]
        self._bad = None if bad_pixels is None else torch.from_numpy(bad_pixels)
        rates = self._expected(truth)
        self._counts = [
            torch.from_numpy(random.poisson(part.double().numpy()).astype(np.float32))
            for part in rates
        ]
        self._of_truth = self._deviance(rates)

    def excess_nats(self, object_: Complex[np.ndarray, "oy ox"]) -> float:
        """Return the negative log-likelihood per pattern above that of the true object.

        The object as the arm gave it: a ramp or a scale that alignment would remove does change
        the counts. 0 for the truth; on average the Kullback-Leibler divergence of the predicted
        counts, which is never negative.
        """
        return self._deviance(self._expected(object_)) - self._of_truth

    def _expected(self, object_: Complex[np.ndarray, "oy ox"]) -> list[Tensor]:
        parts = expected_in_parts(
            object_.astype(np.complex64), self._probe, self._positions_px, CHUNK
        )
        return [expected + self._background for _, expected in parts]

    def _deviance(self, expected: list[Tensor]) -> float:
        total = 0.0
        for number, (rates, counts) in enumerate(zip(expected, self._counts, strict=True)):
            masks = masks_of(self._bad, slice(number * CHUNK, number * CHUNK + len(counts)))
            good = counts.numel() if masks is None else int((~masks).expand_as(counts).sum())
            total += float(half_deviance(rates, counts, masks)) * good
        return total / len(self._positions_px)


# --- Counts held out of a measurement

Judge = Callable[[Complex[np.ndarray, "oy ox"]], Float[np.ndarray, " scan"]]


def likelihood_judge(held_out: Measurement) -> Judge:
    """Return what gives the negative log-likelihood of held-out counts, in nats per pattern.

    Above that of a perfect model; the object has to be made from other counts.
    """
    pixels = good_pixels_of(held_out)

    def judge(object_: Complex[np.ndarray, "oy ox"]) -> Float[np.ndarray, " scan"]:
        return pixels * pattern_residuals(held_out, object_, held_out.probe)

    return judge
