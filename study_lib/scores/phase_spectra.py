"""The photon limit of the phase per spatial frequency, and what a known spectrum makes of it.

The bound of unbiased estimates is the wrong curve where photons are few: there maximum likelihood
leaves out what the counts do not tell, and errs by the signal instead of by the noise. The best
*linear* estimate with a known spectrum (Wiener) is a reference, no bound: whoever knows more of
the object than its spectrum may do better.
"""

from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Complex, Float

from study_lib.scores.frc import ring_frequencies, ring_sums, window_of
from study_lib.scores.metrics import phase_pair
from study_lib.scores.registration import without_mean


@dataclass(frozen=True)
class PhaseSpectra:
    """Powers in rad^2, on rings from the first to the corner of the frequency plane.

    White noise of variance s^2 has the power s^2 on every ring. ``frequency`` is in fractions of
    Nyquist, ``samples`` the frequencies on a ring; ``noise`` is the photon limit's, ``signal`` that
    of the true phase less its mean and ramp.
    """

    frequency: Float[np.ndarray, " ring"]
    samples: Float[np.ndarray, " ring"]
    noise: Float[np.ndarray, " ring"]
    signal: Float[np.ndarray, " ring"]

    @property
    def shrinking_share(self) -> float:
        """Error over the unbiased bound's, if each ring errs by the smaller of noise and signal."""
        return self._share(np.minimum(self.noise, self.signal))

    @property
    def wiener_share(self) -> float:
        """Error over the unbiased bound's, of the linear estimate that knows both spectra.

        ``noise signal / (noise + signal)``, which is also van Trees' bound for a Gaussian object.
        """
        both = self.noise + self.signal
        product = self.noise * self.signal
        return self._share(np.divide(product, both, out=np.zeros_like(both), where=both > 0))

    def _share(self, power: Float[np.ndarray, " ring"]) -> float:
        return float(np.sqrt((self.samples * power).sum() / (self.samples * self.noise).sum()))


class RingTrace:
    """Collects the trace of a covariance on Fourier rings, from white images and solves.

    With white z and x = C z, ``Re sum conj(Z) X`` over a ring is on average the trace of C there.
    Divided by ``sum |Z|^2`` and multiplied by its mean it scatters less.

    Parameters
    ----------
    mask : (y, x)
        Scored pixels; images are taken under its soft window, less their means.
    variance : (y, x) or number
        Of the white images on each pixel.
    corners
        Whether rings go on to the corner of the frequency plane.
    """

    def __init__(
        self,
        mask: Bool[np.ndarray, "y x"],
        variance: Float[np.ndarray, "y x"] | float,
        *,
        corners: bool = False,
    ) -> None:
        self.window = window_of(mask)
        self._corners = corners
        self.samples = self._sums(np.ones(mask.shape))
        self._crossed, self._white = np.zeros((2, *self.samples.shape))
        self._expected = self._sums(_white_power(self.window, variance))

    def add(self, white: np.ndarray, found: np.ndarray) -> None:
        """Take in one solve: the white image z, and the covariance times z."""
        first, second = self._spectrum(white), self._spectrum(found)
        self._crossed += self._sums((first.conj() * second).real)
        self._white += self._sums(np.abs(first) ** 2)

    def power(self) -> Float[np.ndarray, " ring"]:
        """Return the summed power of the errors on each ring, as of ``fft2`` under the window."""
        ratio = np.divide(
            self._crossed, self._white, out=np.zeros_like(self._white), where=self._white > 0
        )
        power: np.ndarray = np.maximum(ratio * self._expected, 0)
        return power

    def power_of(self, image: np.ndarray) -> Float[np.ndarray, " ring"]:
        """Return the summed power of one image in the same measure."""
        return self._sums(np.abs(self._spectrum(image)) ** 2)

    def _spectrum(self, image: np.ndarray) -> Complex[np.ndarray, "y x"]:
        spectrum: np.ndarray = np.fft.fft2(without_mean(image, self.window))
        return spectrum

    def _sums(self, values: Float[np.ndarray, "y x"]) -> Float[np.ndarray, " ring"]:
        return ring_sums(values, corners=self._corners)


def _white_power(
    window: Float[np.ndarray, "y x"], variance: Float[np.ndarray, "y x"] | float
) -> Float[np.ndarray, "y x"]:
    """Return the mean power of a white image at each frequency, under a window, less its mean.

    Taking out the mean takes the window's own spectrum, which is wider than zero frequency.
    """
    weight = window**2 * variance
    mean = np.fft.fft2(window) / window.sum()
    power: np.ndarray = (
        weight.sum() * (1 + np.abs(mean) ** 2) - 2 * (np.fft.fft2(weight) * mean.conj()).real
    )
    return power


def phase_spectra(
    trace: RingTrace, truth: Complex[np.ndarray, "y x"], mask: Bool[np.ndarray, "y x"]
) -> PhaseSpectra:
    """Return the spectra of the phase's photon limit, collected by a trace, and of the truth.

    Parameters
    ----------
    trace
        Of phases in rad, with corners.
    truth : (y, x)
        Complex transmission.
    mask : (y, x)
        Scored pixels.
    """
    phase = phase_pair(truth, truth)[0]
    return PhaseSpectra(
        frequency=ring_frequencies(mask.shape, corners=True),
        samples=trace.samples,
        noise=trace.power() / (trace.samples * (trace.window**2).sum()),
        signal=ring_power(_without_ramp(phase, mask), mask),
    )


def ring_power(
    image: Float[np.ndarray, "y x"], mask: Bool[np.ndarray, "y x"]
) -> Float[np.ndarray, " ring"]:
    """Return the mean power of an image on each ring up to the corner, in its unit squared.

    Under the soft window of the mask, less the mean; white noise of variance s^2 has s^2 on each.
    """
    window = window_of(mask)
    power = np.abs(np.fft.fft2(without_mean(image, window))) ** 2
    samples = ring_sums(np.ones(mask.shape), corners=True)
    spectrum: np.ndarray = ring_sums(power, corners=True) / (samples * (window**2).sum())
    return spectrum


def _without_ramp(
    phase: Float[np.ndarray, "y x"], mask: Bool[np.ndarray, "y x"]
) -> Float[np.ndarray, "y x"]:
    """Return a phase less the plane that fits it best under the mask; 0 outside."""
    rows, columns = (axis.ravel() for axis in np.indices(phase.shape, dtype=float))
    planes = np.stack([np.ones_like(rows), rows, columns], axis=1)
    inside = mask.ravel()
    plane = np.linalg.lstsq(planes[inside], phase.ravel()[inside], rcond=None)[0]
    left: np.ndarray = np.where(mask, phase - (planes @ plane).reshape(phase.shape), 0)
    return left
