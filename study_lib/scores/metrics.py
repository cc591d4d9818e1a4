"""Scores of an aligned complex object against the truth, over the pixels of a mask.

The images are crops of one object frame. Pixels outside the mask do not count; where a score needs
whole images they are set to the truth's mean under the mask in both, so crop to the mask first: a
wide equal frame would flatter MS-SSIM.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Literal

import numpy as np
from jaxtyping import Bool, Complex, Float
from scipy.ndimage import gaussian_filter
from skimage.metrics import structural_similarity
from skimage.restoration import unwrap_phase

from study_lib.scores.alignment import require_comparable
from study_lib.scores.frc import (
    OUTCOME,
    SEVENTH,
    first_crossing,
    frc_crossing,
    half_bit_threshold,
    one_bit_threshold,
    ring_correlation,
    spectral_snr,
)

SSIM_SIGMA_PX = 1.5
SSIM_RADIUS_PX = 5
SSIM_WINDOW_PX = 2 * SSIM_RADIUS_PX + 1
MS_SSIM_WEIGHTS = (0.0448, 0.2856, 0.3001, 0.2363, 0.1333)
ROUNDING = 1e-12
# A narrower range, in rad or in transmission, is the rounding of a constant complex64 image.
SMALLEST_RANGE = 1e-5


def score(
    object_: Complex[np.ndarray, "y x"],
    truth: Complex[np.ndarray, "y x"],
    mask: Bool[np.ndarray, "y x"],
    *,
    frc_threshold: float,
) -> dict[str, float | int | str | None]:
    """Return every score by name, and the number of scales of MS-SSIM.

    :data:`SCORES` tells direction and implementation of each. None of a PSNR means no difference.
    Beside each crossing, of the FRC or of a spectral signal-to-noise ratio of 1, its ``_outcome``
    says why there is none: :data:`study_lib.scores.frc.Outcome`.

    SSIM compares means as ratios, so it needs an origin: phases count from the truth's smallest,
    or, in ``phase_ssim_centred``, from its mean. The first forgives a wrong local mean: where most
    of the object is background, an empty one may have half a point.

    Parameters
    ----------
    object_, truth : (y, x)
        Complex transmission, aligned.
    mask : (y, x)
        Scored pixels.
    frc_threshold
        Correlation below which a frequency counts as lost.

    Raises
    ------
    ValueError
        If shapes differ, the mask is empty, an image is zero under the mask or not finite, the
        crop is smaller than the SSIM window, or the truth's phase is constant there. Where its
        amplitude is, the scores that need its range are None.
    """
    require_comparable(object_, truth, mask)
    truth_phase, phase = phase_pair(object_, truth)
    origin = truth_phase[mask].min()
    scores: dict[str, float | int | str | None] = {}
    for name, unit, square, image, reference in (
        ("phase", "_rad", "_rad2", phase - origin, truth_phase - origin),
        ("amplitude", "", "", np.abs(object_), np.abs(truth)),
    ):
        # A pure-phase truth is ordinary; its amplitude has no range to compare with.
        is_flat = name == "amplitude" and np.ptp(reference[mask]) < SMALLEST_RANGE
        if not is_flat:
            _data_range(reference, mask, name=f"{name} of the truth")
        scores[f"{name}_ms_ssim"] = None if is_flat else ms_ssim(image, reference, mask)
        scores[f"{name}_ssim"] = None if is_flat else ssim(image, reference, mask)
        scores[f"{name}_psnr_db"] = None if is_flat else psnr_db(image, reference, mask)
        scores[f"{name}_mae{unit}"] = mae(image, reference, mask)
        scores[f"{name}_mse{square}"] = mse(image, reference, mask)
    mean = truth_phase[mask].mean()
    scores["phase_ssim_centred"] = ssim(phase - mean, truth_phase - mean, mask)
    frc = ring_correlation(object_, truth, mask)
    # In decibels a curve that is infinite has a finite neighbour to be interpolated with.
    snr_db = 10 * np.log10(np.clip(spectral_snr(object_, truth, mask), 1e-30, 1e30))
    scores["complex_nrmse"] = complex_nrmse(object_, truth, mask)
    for name, crossing in (
        ("frc_crossing", frc_crossing(frc, frc_threshold)),
        ("frc_half_bit_crossing", frc_crossing(frc, half_bit_threshold(frc))),
        ("frc_one_bit_crossing", frc_crossing(frc, one_bit_threshold(frc))),
        ("frc_seventh_crossing", frc_crossing(frc, SEVENTH)),
        ("spectral_snr_crossing", first_crossing(frc.frequency, snr_db, frc.samples)),
    ):
        scores[name] = crossing.frequency
        scores[f"{name}{OUTCOME}"] = crossing.outcome
    return scores | {"ms_ssim_scales": ms_ssim_scales(mask.shape)}


def phase_pair(
    object_: Complex[np.ndarray, "y x"], truth: Complex[np.ndarray, "y x"]
) -> tuple[Float[np.ndarray, "y x"], Float[np.ndarray, "y x"]]:
    """Return the phases in rad of truth and object, in this order, without wraps between them.

    The truth's phase is unwrapped if neighbours differ by more than pi (Herráez et al., Appl. Opt.
    41, 7437 (2002), doi:10.1364/AO.41.007437), so a true step must stay below pi per pixel.
    The object's phase is the branch nearest to the truth's, so no error exceeds pi.
    """
    truth_phase: np.ndarray = np.angle(truth).astype(np.float64)
    if any((np.abs(np.diff(truth_phase, axis=axis)) > np.pi).any() for axis in (0, 1)):
        truth_phase = unwrap_phase(truth_phase, rng=0)
    return truth_phase, truth_phase + np.angle(object_ * truth.conj())


def mae(
    image: Float[np.ndarray, "y x"], truth: Float[np.ndarray, "y x"], mask: Bool[np.ndarray, "y x"]
) -> float:
    """Return the mean absolute error under the mask, in the unit of the images."""
    return float(np.abs(image - truth)[mask].mean())


def mse(
    image: Float[np.ndarray, "y x"], truth: Float[np.ndarray, "y x"], mask: Bool[np.ndarray, "y x"]
) -> float:
    """Return the mean squared error under the mask, in the square of the unit of the images."""
    return float(((image - truth)[mask] ** 2).mean())


def psnr_db(
    image: Float[np.ndarray, "y x"], truth: Float[np.ndarray, "y x"], mask: Bool[np.ndarray, "y x"]
) -> float | None:
    """Return ``10 log10(range^2 / mean squared error)``; the range is the truth's under the mask.

    None if the images are equal, up to rounding.

    Raises
    ------
    ValueError
        If the truth is constant under the mask.
    """
    data_range = _data_range(truth, mask)
    squared_error = mse(image, truth, mask)
    if squared_error < (ROUNDING * data_range) ** 2:
        return None
    return float(10 * np.log10(data_range**2 / squared_error))


def ssim(
    image: Float[np.ndarray, "y x"], truth: Float[np.ndarray, "y x"], mask: Bool[np.ndarray, "y x"]
) -> float:
    """Return the mean structural similarity under the mask, Gaussian window of 1.5 pixels.

    Wang et al., IEEE Trans. Image Process. 13, 600 (2004), doi:10.1109/TIP.2003.819861

    Raises
    ------
    ValueError
        If the truth is constant under the mask or the crop is smaller than the window.
    """
    _require_window(mask.shape)
    _, similarity = structural_similarity(
        _filled(image, truth, mask),
        _filled(truth, truth, mask),
        gaussian_weights=True,
        sigma=SSIM_SIGMA_PX,
        use_sample_covariance=False,
        data_range=_data_range(truth, mask),
        full=True,
    )
    return float(similarity[mask].mean())


def ms_ssim_scales(shape: tuple[int, ...]) -> int:
    """Return how many scales of MS-SSIM a crop allows, at most 5.

    The window must fit after the last halving: 22, 44, 88 and 176 pixels along the shorter side
    for 2 to 5 scales.

    Raises
    ------
    ValueError
        If the crop is smaller than the window.
    """
    _require_window(shape)
    windows = min(shape) // SSIM_WINDOW_PX
    return min(windows.bit_length(), len(MS_SSIM_WEIGHTS))


def ms_ssim(
    image: Float[np.ndarray, "y x"], truth: Float[np.ndarray, "y x"], mask: Bool[np.ndarray, "y x"]
) -> float:
    """Return the multi-scale structural similarity, over :func:`ms_ssim_scales` scales.

    The weights are the first of the standard ones, scaled to a sum of 1; values for different
    numbers of scales do not compare. Negative similarities count as 0,
    because the product of their powers is not real. Means leave out the border that the window
    reaches over, except at the last scale, where it is mirrored.

    Wang, Simoncelli and Bovik, Asilomar Conf. 37, 1398 (2003), doi:10.1109/ACSSC.2003.1292216

    Raises
    ------
    ValueError
        If the truth is constant under the mask or the crop is smaller than the window.
    """
    scales = ms_ssim_scales(mask.shape)
    weights = np.array(MS_SSIM_WEIGHTS[:scales]) / sum(MS_SSIM_WEIGHTS[:scales])
    pair = np.stack([_filled(image, truth, mask), _filled(truth, truth, mask)])
    data_range = _data_range(truth, mask)
    product = 1.0
    for scale, weight in enumerate(weights, start=1):
        luminance, structure = _similarity_maps(pair[0], pair[1], data_range)
        inside = structure[SSIM_RADIUS_PX:-SSIM_RADIUS_PX, SSIM_RADIUS_PX:-SSIM_RADIUS_PX]
        similarity = inside.mean() if scale < scales else (luminance * structure).mean()
        product *= max(float(similarity), 0.0) ** float(weight)
        pair = _halved(pair)
    return product


def _similarity_maps(
    image: Float[np.ndarray, "y x"], truth: Float[np.ndarray, "y x"], data_range: float
) -> tuple[np.ndarray, np.ndarray]:
    """Return the luminance map and the contrast-structure map of SSIM, borders mirrored."""

    def smooth(values: np.ndarray) -> np.ndarray:
        return gaussian_filter(values, SSIM_SIGMA_PX, radius=SSIM_RADIUS_PX, mode="mirror")

    mean, mean_truth = smooth(image), smooth(truth)
    variance = np.maximum(smooth(image**2) - mean**2, 0)
    variance_truth = np.maximum(smooth(truth**2) - mean_truth**2, 0)
    covariance = smooth(image * truth) - mean * mean_truth
    first, second = (0.01 * data_range) ** 2, (0.03 * data_range) ** 2
    luminance = (2 * mean * mean_truth + first) / (mean**2 + mean_truth**2 + first)
    structure = (2 * covariance + second) / (variance + variance_truth + second)
    return luminance, structure


def _halved(images: Float[np.ndarray, "pair y x"]) -> Float[np.ndarray, "pair y2 x2"]:
    """Return the means of 2 x 2 pixels; an odd last row or column is left out."""
    rows, columns = images.shape[1] // 2, images.shape[2] // 2
    blocks = images[:, : 2 * rows, : 2 * columns].reshape(len(images), rows, 2, columns, 2)
    halved: np.ndarray = blocks.mean(axis=(2, 4))
    return halved


def complex_nrmse(
    object_: Complex[np.ndarray, "y x"],
    truth: Complex[np.ndarray, "y x"],
    mask: Bool[np.ndarray, "y x"],
) -> float:
    """Return ``sqrt(sum |O - T|^2 / sum |T|^2)`` under the mask.

    Raises
    ------
    ValueError
        If the truth is zero under the mask.
    """
    norm = float((np.abs(truth[mask]) ** 2).sum())
    if norm == 0:
        raise ValueError(f"the truth is zero on all {mask.sum()} scored pixels; check the crop")
    return float(np.sqrt((np.abs(object_ - truth)[mask] ** 2).sum() / norm))


def _filled(
    image: Float[np.ndarray, "y x"], truth: Float[np.ndarray, "y x"], mask: Bool[np.ndarray, "y x"]
) -> Float[np.ndarray, "y x"]:
    return np.where(mask, image, truth[mask].mean()).astype(np.float64)


def _data_range(
    truth: Float[np.ndarray, "y x"], mask: Bool[np.ndarray, "y x"], *, name: str = "truth"
) -> float:
    data_range = float(np.ptp(truth[mask]))
    if data_range < SMALLEST_RANGE:
        raise ValueError(
            f"the {name} is {truth[mask][0]:.6g} on all {mask.sum()} scored pixels, so scores "
            "relative to its range have no meaning; score pixels where it varies"
        )
    return data_range


def _require_window(shape: tuple[int, ...]) -> None:
    if min(shape) < SSIM_WINDOW_PX:
        raise ValueError(
            f"the crop is {shape[0]} x {shape[1]} pixels, smaller than the {SSIM_WINDOW_PX} pixel "
            "window of SSIM; score a larger crop"
        )


# --- What every number means: which way is better, and whose code computes it


@dataclass(frozen=True)
class Metric:
    """Direction and implementation of one column of a comparison."""

    better: Literal["higher", "lower"]
    implementation: str


_OWN = "study_lib.scores.metrics"
_SSIM = "scikit-image structural_similarity, Gaussian window of 1.5 px, range of the truth"
_MS_SSIM = f"{_OWN}.ms_ssim over ms_ssim_scales scales; as torchmetrics, where that takes the image"
_FRC = "study_lib.scores.frc, linear between rings; if empty, its outcome says why; threshold"
_SECOND = "held against the object of the other algorithm of the reference"
_LIMIT = "root mean square error over the Cramer-Rao bound of study_lib.scores.photon_limit"

SCORES: Mapping[str, Metric] = MappingProxyType(
    {
        "phase_ms_ssim": Metric("higher", _MS_SSIM),
        "phase_ssim": Metric("higher", _SSIM),
        "phase_ssim_centred": Metric("higher", f"{_SSIM}; phases about the true phase's mean"),
        "phase_psnr_db": Metric("higher", f"{_OWN}.psnr_db, range of the truth"),
        "phase_mae_rad": Metric("lower", f"{_OWN}.mae"),
        "phase_mse_rad2": Metric("lower", f"{_OWN}.mse"),
        "amplitude_ms_ssim": Metric("higher", _MS_SSIM),
        "amplitude_ssim": Metric("higher", _SSIM),
        "amplitude_psnr_db": Metric("higher", f"{_OWN}.psnr_db, range of the truth"),
        "amplitude_mae": Metric("lower", f"{_OWN}.mae"),
        "amplitude_mse": Metric("lower", f"{_OWN}.mse"),
        "complex_nrmse": Metric("lower", f"{_OWN}.complex_nrmse"),
        "frc_crossing": Metric("higher", f"{_FRC} of the design"),
        "frc_half_bit_crossing": Metric("higher", f"{_FRC} of half a bit"),
        "frc_one_bit_crossing": Metric("higher", f"{_FRC} of one bit"),
        "frc_seventh_crossing": Metric("higher", f"{_FRC} of 1/7"),
        "spectral_snr_crossing": Metric(
            "higher", "study_lib.scores.frc.spectral_snr below 1; if empty, its outcome says why"
        ),
    }
)
METRICS: Mapping[str, Metric] = MappingProxyType(
    {
        **SCORES,
        "held_out_excess_nats": Metric(
            "lower",
            "study_lib.physics.likelihood: log-likelihood per pattern of a second draw of counts, "
            "that of the truth less that of the arm",
        ),
        "measured_excess_nats": Metric(
            "lower",
            "study_lib.phases.measured.HeldOutCounts: log-likelihood per pattern of measured "
            "counts that neither an arm nor the reference has, that of the reference less that of "
            "the arm",
        ),
        "measured_excess_left_out_nats": Metric(
            "lower", "the same at the positions that the view left out"
        ),
        "phase_ssim_second_reference": Metric("higher", f"{_SSIM}; {_SECOND}"),
        "phase_psnr_db_second_reference": Metric("higher", f"{_OWN}.psnr_db; {_SECOND}"),
        "phase_error_over_limit": Metric("lower", _LIMIT),
        "phase_error_over_wiener": Metric(
            "lower",
            "the same over the error of the best linear estimate that knows the spectrum of the "
            "true phase (Wiener): a reference, no bound",
        ),
        "phase_error_over_shrinking": Metric(
            "lower", "the same over a bound whose noise is at most the true phase, ring by ring"
        ),
        "phase_error_over_both_limits": Metric(
            "lower",
            "the same over the bound of the arm's photons and that of the reference's, added in "
            "squares",
        ),
        "amplitude_error_over_limit": Metric("lower", _LIMIT),
        "cpu_s": Metric("lower", "processor seconds for these patterns"),
        "training_cpu_s": Metric("lower", "processor seconds of training before"),
    }
)


TRUTH, REFERENCE = "truth", "reference"
# The longer first: "the true phase" is not "the reference's" and a rest.
FOR_A_REFERENCE = (
    ("the true phase's", "the reference phase's"),
    ("the true phase", "the phase of the reference"),
    ("The true phase", "The phase of the reference"),
    ("true phase", "phase of the reference"),
    ("the true object", "the reference"),
    (TRUTH, REFERENCE),
)


def said_of(held_against: str, text: str) -> str:
    """Return a text on the truth as it is said of what objects are held against.

    That is the truth, or of measured counts a reference.

    >>> from study_lib.scores.metrics import said_of
    >>> said_of("reference", "FRC with the truth")
    'FRC with the reference'
    """
    if held_against == TRUTH:
        return text
    for words, others in FOR_A_REFERENCE:
        text = text.replace(words, others)
    return text


# Of which of the two kinds of counts alone a comparison has these.
OF_SIMULATED = ("held_out_excess_nats",)
OF_MEASURED = tuple(
    name
    for name in METRICS
    if "second_reference" in name or "both_limits" in name or name.startswith("measured_")
)


def metric_facts(held_against: str = TRUTH) -> dict[str, dict[str, str]]:
    """Return the metrics of comparisons as plain data.

    Parameters
    ----------
    held_against
        ``truth``, or ``reference`` of measured counts: they have other columns and words.
    """
    left_out = OF_MEASURED if held_against == TRUTH else OF_SIMULATED
    return {
        name: {
            "better": metric.better,
            "implementation": said_of(held_against, metric.implementation),
        }
        for name, metric in METRICS.items()
        if name not in left_out
    }
