"""Repeated counts follow Poisson's law."""

import numpy as np
import pytest

from study_lib.errors import InputError
from study_lib.physics.simulation import count_statistics

PATTERN = np.arange(64, dtype=np.float32).reshape(8, 8)
SCATTERED = PATTERN < 20


@pytest.mark.parametrize("dose", [30.0, 1e3, 1e5])
@pytest.mark.parametrize("scale", [1.0, 1e-6])
def test_counts_follow_poissons_law_at_any_scale_of_the_pattern(dose, scale, rng):
    """Root of the dose, chance of no photon exp(-n); all to five standard errors or better."""
    draws = 4000
    found = count_statistics(scale * PATTERN, dose, scattered=SCATTERED, draws=draws, random=rng)

    rate = dose * PATTERN.astype(float) / PATTERN.sum()
    scattered = rate[SCATTERED].sum()
    assert found["1 / sqrt(dose)"] == pytest.approx(dose**-0.5)
    assert found["relative deviation"] == pytest.approx(dose**-0.5, rel=5 / np.sqrt(2 * draws))
    assert found["pixels with a photon [%]"] == pytest.approx(
        100 * (1 - np.exp(-rate)).mean(), abs=0.5
    )
    assert found["photons outside the bright field"] == pytest.approx(
        scattered, abs=5 * np.sqrt(scattered / draws)
    )


def test_a_dose_that_gives_no_photon_has_no_spread(rng):
    found = count_statistics(PATTERN, 1e-12, scattered=SCATTERED, draws=2, random=rng)

    assert found["relative deviation"] == 0


def test_what_has_no_spread_is_refused(rng):
    with pytest.raises(InputError, match="holds no light"):
        count_statistics(0 * PATTERN, 10.0, scattered=SCATTERED, draws=5, random=rng)
    with pytest.raises(InputError, match=r"draws = 1: .*at least 2"):
        count_statistics(PATTERN, 10.0, scattered=SCATTERED, draws=1, random=rng)
