"""Whether probe, object and positions of a file can be computed with, and predict its patterns.

Part of DATA-001. Intensities are single precision: a probe or an object far from one overflows or
vanishes in it. One object pixel far above all others leaves these dark, as a transmission is at
most one. Where a file has patterns, the model's power may differ from theirs by a factor of two; a
difference of over a tenth, and amplitudes that fit worse than the mean pattern, are noted. Where
the metadata say that a mismatch was put in, a larger difference of power is noted too.
"""

from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
from jaxtyping import Bool, Complex, Float

from study_lib.data.rules import Violation

OBJECT_SPAN = (1e-6, 1e6)
PROBE_SPAN = (1e-12, 1e12)
WAVE_SPAN = (1e-12, 1e12)  # of the largest probe times the largest object
OUTLIER_FACTOR = 100.0
OUTLIER_PERCENTILE = 99.5
POWER_FACTOR = 2.0
POWER_TOLERANCE = 0.1
WORSE_SIGMAS = 3.0
FEWEST_TO_AVERAGE = 3
PATTERNS_MAX = 256
PIXELS_MAX = 2**22
CHUNK = 64
MISMATCH_MAX = 1e6  # pixels or percents


def check_arithmetic(
    probe: Complex[np.ndarray, "*modes a b"], object_: Complex[np.ndarray, "oy ox"]
) -> Iterator[Violation]:
    """Yield where probe and object, finite both, cannot be computed with in single precision."""
    largest = {}
    for key, array, span in (
        ("probeGuess", probe, PROBE_SPAN),
        ("objectGuess", object_, OBJECT_SPAN),
    ):
        largest[key] = size = float(np.abs(array.astype(np.complex128)).max())
        if not size:
            what = "give a probe" if key == "probeGuess" else "give an object that lets light pass"
            yield Violation(key, "all zero", "some power", what)
        elif not span[0] <= size <= span[1]:
            found = f"a largest amplitude of {size:.3g}"
            expected = f"{span[0]:g} to {span[1]:g}: beyond, intensities leave single precision"
            yield Violation(key, found, expected, "rescale it")
    wave = largest["probeGuess"] * largest["objectGuess"]
    if wave and not WAVE_SPAN[0] <= wave <= WAVE_SPAN[1]:
        found = f"a largest amplitude behind the object of {wave:.3g}"
        expected = f"{WAVE_SPAN[0]:g} to {WAVE_SPAN[1]:g}"
        yield Violation("probeGuess", found, expected, "rescale probe or object")
    usual = float(np.percentile(np.abs(object_), OUTLIER_PERCENTILE))
    size = largest["objectGuess"]
    if size > OUTLIER_FACTOR * usual:
        place = np.unravel_index(int(np.argmax(np.abs(object_))), object_.shape)
        found = f"an amplitude of {size:.3g} at row {place[0]}, column {place[1]}"
        expected = (
            f"at most {OUTLIER_FACTOR:g} times the {OUTLIER_PERCENTILE:g}th percentile, which is "
            f"{usual:.3g}: scaled to a transmission the others would be dark"
        )
        yield Violation("objectGuess", found, expected, "mend the pixels that stand out")


def sampled(count: int, side: int) -> np.ndarray:
    """Return which patterns of a file are compared with the model: some hundred, evenly spread."""
    most = max(1, min(PATTERNS_MAX, PIXELS_MAX // side**2))
    return np.unique(np.linspace(0, count - 1, min(count, most)).astype(np.int64))


def check_prediction(
    arrays: Mapping[str, np.ndarray],
    patterns: Float[np.ndarray, "sample n n"],
    chosen: np.ndarray,
    metadata: Mapping[str, Any],
) -> Iterator[Violation]:
    """Yield by how much the model misses the patterns, if it does.

    Parameters
    ----------
    arrays
        ``probeGuess``, ``objectGuess``, ``xcoords``, ``ycoords`` and, if there are any,
        ``background`` and ``bad_pixels``, one mask or those of the patterns ``chosen``; of the
        right shapes, finite, every patch inside the object.
    patterns : (sample, n, n)
        Amplitudes of the patterns ``chosen``, from :func:`sampled`.
    chosen
        Their places in the scan.
    metadata
        Those of the file; dark counts and saturation in them belong to the model, a mismatch is
        meant.
    """
    from study_lib.physics.likelihood import expected_in_parts  # torch comes with it

    places = np.stack([arrays["ycoords"], arrays["xcoords"]], axis=1)[chosen].astype(np.float64)
    probe, object_ = (arrays[key].astype(np.complex64) for key in ("probeGuess", "objectGuess"))
    good = _good_pixels(arrays.get("bad_pixels"), patterns.shape[1:])
    measured = patterns.astype(np.float64) * good
    model = np.empty_like(measured)
    background = arrays.get("background")
    if background is not None:
        background = background.astype(np.float32)
    for part, expected in expected_in_parts(object_, probe, places, CHUNK, background):
        model[part] = expected.double().numpy()
    dark, limit = _detector(metadata)
    model = np.minimum(model + dark, limit) * good
    power, predicted = float((measured**2).sum()), float(model.sum())
    patterns_text = f"{len(chosen)} of the patterns"
    meant = _mismatch(metadata)
    if not (np.isfinite(predicted) and predicted > 0):
        found = f"a model that predicts {predicted:g} photons for {patterns_text}"
        remedy = "give probe, object and positions that belong together"
        yield Violation("probeGuess", found, f"{power:.4g}, as counted", remedy)
        return
    if not power:
        return
    ratio = predicted / power
    if abs(ratio - 1) > POWER_TOLERANCE + 5 / np.sqrt(max(power, 1.0)):
        found = f"a model that predicts {ratio:.3g} times the counts of {patterns_text}"
        expected_text = f"1 within {POWER_TOLERANCE:.0%}, and within a factor of {POWER_FACTOR:g}"
        remedy = meant or f"multiply the probe by {ratio**-0.5:.4g}; `study import` does it"
        is_serious = not (meant or 1 / POWER_FACTOR <= ratio <= POWER_FACTOR)
        yield Violation("probeGuess", found, expected_text, remedy, is_serious)
    if len(chosen) < FEWEST_TO_AVERAGE:
        return
    counts = measured**2
    others = (counts.sum(axis=0) - counts) / (len(counts) - 1)  # a mean with itself in it fits it
    totals = np.maximum(others.sum(axis=(1, 2), keepdims=True), 1e-300)
    shares = counts.sum(axis=(1, 2), keepdims=True) / totals
    error, usual = (
        ((np.sqrt(guess) - measured) ** 2).sum(axis=(1, 2))
        for guess in (model / ratio, others * shares)
    )
    excess = error - usual
    sigma = float(excess.std()) / np.sqrt(len(excess))
    if excess.mean() > WORSE_SIGMAS * sigma > 0:
        error_share, usual_share = (np.sqrt(part.sum() / power) for part in (error, usual))
        found = (
            f"amplitudes that miss those of {patterns_text} by {error_share:.0%}, the mean of the "
            f"others misses them by {usual_share:.0%}"
        )
        remedy = meant or "check positions, object and the order of patterns"
        yield Violation("objectGuess", found, "a model better than the mean", remedy, False)


def _good_pixels(
    bad: Bool[np.ndarray, "*each n n"] | None, shape: tuple[int, ...]
) -> Float[np.ndarray, "*each n n"]:
    return np.ones(shape) if bad is None else (~bad.astype(bool)).astype(np.float64)


def _mismatch(metadata: Mapping[str, Any]) -> str:
    """Return which mismatch a file says was put into its patterns; empty without one."""
    stated = metadata.get("mismatch")
    settings = stated if isinstance(stated, dict) else {}
    values = [
        f"{name} {value:g}"
        for name, value in settings.items()
        if isinstance(value, int | float) and name.endswith(("_px", "_percent"))
        if 0 < value < MISMATCH_MAX
    ]
    return f"meant, by the mismatch in its metadata: {', '.join(values)[:80]}" if values else ""


def _detector(metadata: Mapping[str, Any]) -> tuple[float, float]:
    """Return the dark counts per pixel and the most that one counts, as far as a file says so."""
    stated = metadata.get("detector")
    settings = stated if isinstance(stated, dict) else {}
    dark, limit = settings.get("dark_counts"), settings.get("saturation_counts")
    return (
        float(dark) if isinstance(dark, int | float) and 0 <= dark < 1e12 else 0.0,
        float(limit) if isinstance(limit, int | float) and 1 <= limit < 1e12 else np.inf,
    )
