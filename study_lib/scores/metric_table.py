"""What every number of a comparison means: which way is better, and whose code computes it."""

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Literal


@dataclass(frozen=True)
class Metric:
    """Direction and implementation of one column of a comparison."""

    better: Literal["higher", "lower"]
    implementation: str


_OWN = "study_lib.scores.metrics"
_SSIM = "scikit-image structural_similarity, Gaussian window of 1.5 px, range of the truth"
_MS_SSIM = f"{_OWN}.ms_ssim, scales in ms_ssim_scales; equals torchmetrics where that can"
_FRC = "study_lib.scores.frc, linear between rings; empty: never below the threshold"
_LIMIT = "root mean square error over the Cramer-Rao bound of study_lib.scores.photon_limit"

SCORES: Mapping[str, Metric] = MappingProxyType(
    {
        "phase_ms_ssim": Metric("higher", _MS_SSIM),
        "phase_ssim": Metric("higher", _SSIM),
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
        "frc_seventh_crossing": Metric("higher", f"{_FRC} of 1/7"),
        "spectral_snr_crossing": Metric(
            "higher", "study_lib.scores.frc.spectral_snr below 1; empty: never"
        ),
    }
)
METRICS: Mapping[str, Metric] = MappingProxyType(
    {
        **SCORES,
        "held_out_excess_nats": Metric(
            "lower",
            "study_lib.physics.likelihood: likelihood of a second draw, truth less arm, a pattern",
        ),
        "phase_error_over_limit": Metric("lower", _LIMIT),
        "phase_error_over_shrinking": Metric(
            "lower", "the same over the bound where noise is capped by the signal, ring by ring"
        ),
        "amplitude_error_over_limit": Metric("lower", _LIMIT),
        "cpu_s": Metric("lower", "processor seconds for these patterns"),
        "training_cpu_s": Metric("lower", "processor seconds of training before"),
    }
)


def metric_facts() -> dict[str, dict[str, str]]:
    """Return the table as plain data."""
    return {
        name: {"better": metric.better, "implementation": metric.implementation}
        for name, metric in METRICS.items()
    }
