"""What the photons allow: Cramer-Rao bounds of the object under Poisson noise, probe known.

No unbiased estimate of the object has a smaller variance. Estimates that are biased, as all are
that smooth or start from a flat object and stop, may have a smaller error; a ratio below 1 says
that they draw on more than the counts.
"""

import itertools
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Bool, Complex, Float
from torch import Tensor

from study_lib.errors import StudyError
from study_lib.physics.forward import (
    add_patches,
    corners_of,
    illumination,
    patches_at,
    probes_at,
    summed_over_modes,
)
from study_lib.physics.fourier import fourier, inverse_fourier
from study_lib.scores.alignment import without_mean
from study_lib.scores.frc import ring_frequencies, ring_sums, window_of
from study_lib.scores.metrics import phase_pair

# --- Fisher information of the object in Poisson counts, never stored as a matrix
#
# A pattern expects I = sum over modes of abs(Psi_m)^2, plus a background b, photons per detector
# pixel, Psi_m the unitary spectrum of mode m times object. A change v of the object changes I by
# ``2 Re sum conj(Psi_m) F(P_m v)``, so for real and imaginary part of every object pixel as
# parameters
#
#     J v = A^T diag(1 / I) A v,    A v = 2 Re sum conj(Psi_m) F(P_m v),
#
# one transform forth and one back per pattern and mode. Changes are complex images; their scalar
# product is ``Re sum conj(u) v``.

CHUNK = 128


class FisherInformation:
    """The Fisher information of one scan at one object; keeps two complex numbers a count and mode.

    Parameters
    ----------
    object_ : (oy, ox)
        Complex transmission at which the information is taken: the truth of a simulation.
    probe : (n, n) or (modes, n, n)
        Known probe in sqrt(photons) per pixel.
    positions_px : (scan, 2)
        (row, column) patch centres in object pixels.
    background
        Photons per detector pixel that do not come from the object; a number or (n, n).
    bad_pixels : (n, n) or (scan, n, n), optional
        Detector pixels without a count, of all patterns or of each.

    References
    ----------
    Wei, Gong, Dwivedi et al., Phys. Rev. A 102, 043516 (2020), doi:10.1103/PhysRevA.102.043516
    """

    def __init__(
        self,
        *,
        object_: Complex[Tensor, "oy ox"],
        probe: Complex[Tensor, "*modes n n"],
        positions_px: Float[Tensor, "scan 2"],
        background: float | Float[Tensor, "n n"] = 0.0,
        bad_pixels: Bool[Tensor, "*each n n"] | None = None,
    ) -> None:
        self.shape = (object_.shape[0], object_.shape[1])
        self._parts = []
        side = probe.shape[-1]
        each = bad_pixels is not None and bad_pixels.ndim == 3
        masks = (
            bad_pixels.split(CHUNK)
            if each and bad_pixels is not None
            else itertools.repeat(bad_pixels)
        )
        for part, mask in zip(positions_px.split(CHUNK), masks, strict=False):
            probes, corners = probes_at(probe, part), corners_of(part, side)
            spectra = fourier(probes * patches_at(object_, corners, side))
            # Scaled by the share of the light that is the object's, without light by nothing.
            scale = (summed_over_modes(spectra.abs() ** 2) + background).sqrt()
            phasors = torch.where(scale > 0, spectra / scale.clamp_min(1e-30), 0)
            if mask is not None:
                phasors.masked_fill_(mask, 0)
            self._parts.append((probes, corners, phasors))

    def product(self, change: Complex[Tensor, "oy ox"]) -> Complex[Tensor, "oy ox"]:
        """Return J times a change of the object."""
        total = torch.zeros_like(change)
        for probes, corners, phasors in self._parts:
            spectra = fourier(probes * patches_at(change, corners, probes.shape[-1]))
            changes = summed_over_modes((phasors.conj() * spectra).real)
            waves = inverse_fourier(changes * phasors)
            total += add_patches(summed_over_modes(4 * probes.conj() * waves), corners, self.shape)
        return total

    def draw(self, generator: torch.Generator) -> Complex[Tensor, "oy ox"]:
        """Return J times a random error of the bound: a change of mean zero and covariance J.

        What ``A^T diag(1 / sqrt(I))`` makes of one standard normal number a count.
        """
        parts = [torch.zeros(self.shape, dtype=self._parts[0][0].dtype)]
        for probes, corners, phasors in self._parts:
            normal = torch.randn(phasors.shape[-3:], generator=generator, dtype=phasors.real.dtype)
            waves = inverse_fourier(normal * phasors)
            pulls = summed_over_modes(2 * probes.conj() * waves)
            parts.append(add_patches(pulls, corners, self.shape))
        return torch.stack(parts).sum(dim=0)

    def of_single_pixels(self) -> tuple[Float[Tensor, "oy ox"], Complex[Tensor, "oy ox"]]:
        """Return a and b: J of a change v of one pixel alone is ``a v + conj(b v)`` on that pixel.

        A pixel's wave is a plane wave on the detector, so ``sum conj(phasor)^2 F(P v)^2`` is a
        transform of the squared phasors at twice the pixel's place: one transform a pattern. With
        modes there is one for every pair of them, and the plane waves cancel in what does not turn:
        ``mean conj(phasor_m) phasor_k`` over the detector, times ``P_m conj(P_k)``.
        """
        sizes, twists = (torch.zeros(self.shape, dtype=self._parts[0][0].dtype) for _ in range(2))
        for probes, corners, phasors in self._parts:
            side = probes.shape[-1]
            places = (2 * (torch.arange(side) - side // 2) + side // 2) % side
            lit, turned = (one if one.ndim == 4 else one[None] for one in (probes, phasors))
            for mode, phasor in zip(lit, turned, strict=True):
                doubled = fourier(phasor.conj() ** 2)[:, places][:, :, places] / side
                known = (phasor.abs() ** 2).mean(dim=(-2, -1))[:, None, None]
                sizes += add_patches(2 * known * mode.abs() ** 2 + 0j, corners, self.shape)
                twists += add_patches(2 * mode**2 * doubled, corners, self.shape)
            for first, second in itertools.combinations(range(len(lit)), 2):
                crossed = (turned[first] * turned[second]).conj()
                doubled = fourier(crossed)[:, places][:, :, places] / side
                known = (turned[first].conj() * turned[second]).mean(dim=(-2, -1))[:, None, None]
                both = 4 * known * lit[first] * lit[second].conj()
                sizes += add_patches(both.real + 0j, corners, self.shape)
                twists += add_patches(4 * lit[first] * lit[second] * doubled, corners, self.shape)
        return sizes.real, twists


def solve(
    information: FisherInformation,
    right: Complex[Tensor, "oy ox"],
    *,
    illumination: Float[Tensor, "oy ox"],
    free: Bool[Tensor, "oy ox"],
    tolerance: float,
    iterations: int,
) -> Complex[Tensor, "oy ox"]:
    """Return x with ``J x = right`` where the object is free, 0 elsewhere.

    Conjugate gradients, preconditioned by the mean diagonal ``2 illumination``; the pixels that
    are not free count as known. The right side must have no part along a global phase, which J
    does not see.

    Raises
    ------
    StudyError
        If the residual, over the right side, does not fall to the tolerance.
    """
    scale = torch.where(free, 1 / (2 * illumination.clamp_min(1e-30)), 0)
    residual = torch.where(free, right, 0)
    answer = torch.zeros_like(residual)
    aimed = tolerance * _dot(residual, scale * residual) ** 0.5
    direction = scale * residual
    power = _dot(residual, direction)
    for _ in range(iterations):
        if power**0.5 <= aimed:
            return answer
        image = torch.where(free, information.product(direction), 0)
        step = power / _dot(direction, image)
        answer += step * direction
        residual -= step * image
        before, preconditioned = power, scale * residual
        power = _dot(residual, preconditioned)
        direction = preconditioned + power / before * direction
    if power**0.5 <= aimed:
        return answer
    raise StudyError(
        f"the photon limit did not converge: residual {tolerance * power**0.5 / aimed:.1e} of the "
        f"right side after {iterations} iterations, wanted {tolerance:g}; allow more iterations"
    )


def _dot(first: Complex[Tensor, "oy ox"], second: Complex[Tensor, "oy ox"]) -> float:
    return float((first.conj() * second).real.sum(dtype=torch.float64))


# --- The limit of the phase per spatial frequency, and with a known spectrum
#
# The bound of unbiased estimates is the wrong curve where photons are few: there maximum
# likelihood leaves out what the counts do not determine, and errs by the signal instead of by the
# noise. The best *linear* estimate with a known spectrum (Wiener) is a reference, no bound:
# a method that knows more of the object than its spectrum may do better.


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


class RingPower:
    """Collects the mean power of random errors on Fourier rings.

    Parameters
    ----------
    mask : (y, x)
        Scored pixels; images are taken under its soft window, less their means.
    corners
        Whether rings go on to the corner of the frequency plane.
    """

    def __init__(self, mask: Bool[np.ndarray, "y x"], *, corners: bool = False) -> None:
        self.window = window_of(mask)
        self._corners = corners
        self.samples = self._sums(np.ones(mask.shape))
        self._total = np.zeros_like(self.samples)
        self._count = 0

    def add(self, errors: np.ndarray) -> None:
        """Take in one image of errors (y, x)."""
        self._total += self.power_of(errors)
        self._count += 1

    def power(self) -> Float[np.ndarray, " ring"]:
        """Return the summed power of the errors on each ring, as of ``fft2`` under the window."""
        mean: np.ndarray = self._total / max(self._count, 1)
        return mean

    def power_of(self, image: np.ndarray) -> Float[np.ndarray, " ring"]:
        """Return the summed power of one image in the same measure."""
        return self._sums(np.abs(np.fft.fft2(without_mean(image, self.window))) ** 2)

    def _sums(self, values: Float[np.ndarray, "y x"]) -> Float[np.ndarray, " ring"]:
        return ring_sums(values, corners=self._corners)


def phase_spectra(
    rings: RingPower, truth: Complex[np.ndarray, "y x"], mask: Bool[np.ndarray, "y x"]
) -> PhaseSpectra:
    """Return the spectra of the phase's photon limit, collected on rings, and of the truth.

    Parameters
    ----------
    rings
        Of phase errors in rad, with corners.
    truth : (y, x)
        Complex transmission.
    mask : (y, x)
        Scored pixels.
    """
    phase = phase_pair(truth, truth)[0]
    return PhaseSpectra(
        frequency=ring_frequencies(mask.shape, corners=True),
        samples=rings.samples,
        noise=rings.power() / (rings.samples * (rings.window**2).sum()),
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
    return np.where(mask, phase - (planes @ plane).reshape(phase.shape), 0)


# --- The bound of one scan

FREE_SHARE = 1e-3
TOLERANCE = 3e-4  # at 1e-3 the weakest directions of a scan with gaps are 1 % short
ITERATIONS = 500
SINGULAR = 1e-6


@dataclass(frozen=True)
class PhotonLimit:
    """Bounds on the scored pixels, and NaN elsewhere, of the object aligned with the truth.

    ``phase_std_rad`` and ``amplitude_std`` (oy, ox) are estimates of the full bound, never zero;
    ``phase_std_uncertainty_rad`` (oy, ox) is the standard error of the first by the number of
    solves. ``ideal_phase_std_rad`` (oy, ox) is 1 / sqrt(2 E |O|^2) for E photons on the pixel,
    what the bound would be if pixels did not share patterns. ``phase_rms_rad`` is the bound of the
    error over all scored pixels, ``phase_rms_error_rad`` its standard error, by how the solves
    scatter.
    ``frc_ceiling`` (ring,) is the mean Fourier ring correlation with the truth of an object whose
    errors are those of the bound, ring by ring as in :mod:`study_lib.scores.frc`.
    ``spectra`` is the bound of the phase per spatial frequency beside the true phase's spectrum.
    """

    phase_std_rad: Float[np.ndarray, "oy ox"]
    phase_std_uncertainty_rad: Float[np.ndarray, "oy ox"]
    amplitude_std: Float[np.ndarray, "oy ox"]
    ideal_phase_std_rad: Float[np.ndarray, "oy ox"]
    phase_rms_rad: float
    phase_rms_error_rad: float
    frc_ceiling: Float[np.ndarray, " ring"]
    spectra: PhaseSpectra

    @property
    def ideal_phase_rms_rad(self) -> float:
        """Root of the mean square of ``ideal_phase_std_rad``."""
        return float(np.sqrt(np.nanmean(self.ideal_phase_std_rad**2)))

    @property
    def amplitude_rms(self) -> float:
        """Bound of the amplitude's error over all scored pixels."""
        return float(np.sqrt(np.nanmean(self.amplitude_std**2)))

    @property
    def shrinking_phase_rms_rad(self) -> float:
        """What maximum likelihood is expected to reach: noise or signal, whichever is smaller."""
        return self.phase_rms_rad * self.spectra.shrinking_share

    @property
    def wiener_phase_rms_rad(self) -> float:
        """Error of the linear estimate that knows the spectra: a reference, no bound."""
        return self.phase_rms_rad * self.spectra.wiener_share


def photon_limit(
    *,
    object_: Complex[np.ndarray, "oy ox"],
    probe: Complex[np.ndarray, "*modes n n"],
    positions_px: Float[np.ndarray, "scan 2"],
    scored: Bool[np.ndarray, "oy ox"],
    crop: tuple[slice, slice],
    seed: int,
    solves: int = 8,
    background: float | Float[np.ndarray, "n n"] = 0.0,
    bad_pixels: Bool[np.ndarray, "*each n n"] | None = None,
) -> PhotonLimit:
    """Return the Cramer-Rao bound of phase and amplitude.

    Random errors e of covariance ``J^-1`` are the solutions, by conjugate gradients, of J e = y
    with y of :meth:`FisherInformation.draw` [1]_. Q takes out of them what alignment takes out over
    the scored pixels: global phase, scale and phase ramp. The variance of ``Q e`` in a pixel is the
    one that it has if all others are known, which is exact, and that of what the others foretell,
    the mean of ``(Q e - K y)^2`` over the solves for the inverse K of the pixel's own J [2]_. So no
    estimate is zero or negative, and only the second part scatters. Free is every scored pixel and
    every other that receives more than `FREE_SHARE` of their median light; darker ones count as
    known, which can only lower the bound.
    It is of the *given* photons per pattern: at a fixed dose per pattern, more overlap means more
    photons per area and a lower bound.

    Parameters
    ----------
    object_ : (oy, ox)
        The true object, nowhere zero on scored pixels.
    probe : (n, n) or (modes, n, n)
        In sqrt(photons) per pixel.
    positions_px : (scan, 2)
        (row, column) patch centres in object pixels.
    scored : (oy, ox)
        Pixels whose error counts.
    crop
        Rows and columns, around the scored pixels, whose Fourier rings are meant.
    seed
        Of the random errors.
    solves
        More give a smoother map; the root mean square needs few.
    background, bad_pixels
        As in :class:`FisherInformation`.

    Raises
    ------
    ValueError
        If no pixel is scored, a scored one is dark, or the object is zero there.
    StudyError
        If a solve does not converge.

    References
    ----------
    The information of a scan: Wei et al., Phys. Rev. A 102, 043516 (2020),
    doi:10.1103/PhysRevA.102.043516

    .. [1] Papandreou and Yuille, NIPS 23, 1858 (2010), perturbing each measurement
    .. [2] Siden, Lindgren, Bolin and Villani, J. Comput. Graph. Stat. 27, 898 (2018),
       doi:10.1080/10618600.2018.1473782

    Examples
    --------
    Four times the photons halve the error that no unbiased reconstruction can avoid:

    >>> import numpy as np
    >>> import study_lib as study
    >>> scene = study.scene_of(study.load_design("smoke", ["scan.rows=5", "scan.columns=5"]))
    >>> positions = scene.positions_of("test")
    >>> (top, left), (bottom, right) = positions.min(axis=0), positions.max(axis=0)
    >>> crop = np.s_[int(top) : int(bottom), int(left) : int(right)]
    >>> scored = np.zeros(scene.object_.shape, bool)
    >>> scored[crop] = True
    >>> weak, strong = (
    ...     study.photon_limit(
    ...         object_=scene.object_, probe=root * scene.probe, positions_px=positions,
    ...         scored=scored, crop=crop, seed=0, solves=2,
    ...     )
    ...     for root in (100, 200)  # square roots of the photons per pattern
    ... )
    >>> round(weak.phase_rms_rad / strong.phase_rms_rad, 2)
    2.0
    >>> weak.phase_std_rad.shape == scene.object_.shape
    True

    Pixels that share patterns cannot be known as well as each by itself:

    >>> weak.phase_rms_rad > weak.ideal_phase_rms_rad
    True
    """
    if solves < 2:
        raise ValueError(f"solves = {solves}: a spread needs at least 2")
    truth, light = (torch.from_numpy(part).to(torch.complex64) for part in (object_, probe))
    positions = torch.from_numpy(positions_px).to(torch.float64)
    photons = illumination(light, positions, (truth.shape[0], truth.shape[1]))
    mask = torch.from_numpy(scored)
    modulus = truth.abs()
    _require_lit(photons, modulus, mask)

    free = mask | (photons > FREE_SHARE * photons[mask].median())
    information = FisherInformation(
        object_=truth,
        probe=light,
        positions_px=positions,
        background=torch.from_numpy(background.astype(np.float32))
        if isinstance(background, np.ndarray)
        else background,
        bad_pixels=None if bad_pixels is None else torch.from_numpy(bad_pixels),
    )
    # In the frame of the truth's phase, a change is real in amplitude, imaginary in phase.
    turn = truth / modulus.clamp_min(1e-30)
    gauge = alignment_directions(modulus, mask)
    alone = _Alone(information, turn, gauge, mask)
    generator = torch.Generator().manual_seed(seed)
    total = torch.zeros_like(truth)
    means = []
    outline = scored[crop]
    complex_rings, phase_rings = RingPower(outline), RingPower(outline, corners=True)
    for _ in range(solves):
        pull = torch.where(free, information.draw(generator), 0)
        found = solve(
            information,
            pull,
            illumination=photons,
            free=free,
            tolerance=TOLERANCE,
            iterations=ITERATIONS,
        )
        errors = without(gauge, turn.conj() * found * mask)
        foretold = errors - alone.step(turn.conj() * pull)
        square = torch.complex(foretold.real**2, foretold.imag**2)
        total += square
        complex_rings.add((turn * errors)[crop].numpy())
        inside = torch.where(mask, errors.imag / modulus, 0)[crop]
        phase_rings.add(inside.numpy())
        means.append(float(((alone.variance + square).imag / modulus**2)[mask].double().mean()))
    spread = total / solves
    variance = alone.variance + spread
    mean_square, error = np.mean(means), np.std(means, ddof=1) / np.sqrt(solves)
    ideal = 1 / (2 * photons * modulus**2)
    # The spread of m squares of a normal number is known to sqrt(2 / m) of itself.
    unsure = spread.imag * (2 / solves) ** 0.5 / (2 * variance.imag.sqrt() * modulus)
    return PhotonLimit(
        phase_std_rad=_where(mask, variance.imag.sqrt() / modulus),
        phase_std_uncertainty_rad=_where(mask, unsure),
        amplitude_std=_where(mask, variance.real.sqrt()),
        ideal_phase_std_rad=_where(mask, ideal.sqrt()),
        phase_rms_rad=float(np.sqrt(mean_square)),
        phase_rms_error_rad=float(error / (2 * np.sqrt(mean_square))),
        frc_ceiling=_ceiling(complex_rings, object_[crop]),
        spectra=phase_spectra(phase_rings, object_[crop], outline),
    )


class _Alone:
    """Each scored pixel if all others were known, in the frame of the truth's phase.

    ``variance`` (oy, ox) has that of the aligned amplitude as real and of the phase, times the
    modulus, as imaginary part.
    """

    def __init__(
        self,
        information: FisherInformation,
        turn: Complex[Tensor, "oy ox"],
        gauge: Complex[Tensor, "4 oy ox"],
        mask: Bool[Tensor, "oy ox"],
    ) -> None:
        self._size, twist = information.of_single_pixels()
        self._twist = twist * turn**2
        determinant = self._size**2 - self._twist.abs() ** 2
        # A pixel that its own counts cannot tell is left to the solves alone.
        telling = mask & (determinant > SINGULAR * self._size**2)
        self._inverse = torch.where(telling, 1 / determinant.clamp_min(1e-30), 0)
        self._kept = 1 - (gauge.real**2).sum(dim=0), 1 - (gauge.imag**2).sum(dim=0)
        amplitude, phase = self._size - self._twist.real, self._size + self._twist.real
        self.variance = torch.complex(
            self._kept[0] ** 2 * self._inverse * amplitude,
            self._kept[1] ** 2 * self._inverse * phase,
        )

    def step(self, pull: Complex[Tensor, "oy ox"]) -> Complex[Tensor, "oy ox"]:
        """Return how far each pixel alone follows a pull, less what alignment takes out."""
        alone = self._inverse * (self._size * pull - (self._twist * pull).conj())
        return torch.complex(self._kept[0] * alone.real, self._kept[1] * alone.imag)


def alignment_directions(
    modulus: Float[Tensor, "oy ox"], mask: Bool[Tensor, "oy ox"]
) -> Complex[Tensor, "4 oy ox"]:
    """Return orthonormal changes that alignment removes: phase, two ramps, and scale.

    In the frame of the truth's phase: the phase ones are imaginary, the scale is real.
    """
    weight = modulus * mask
    axes = [torch.arange(side, dtype=weight.dtype) - side // 2 for side in weight.shape]
    rows, columns = torch.meshgrid(*axes, indexing="ij")
    phases = torch.stack([weight, weight * rows, weight * columns]).flatten(1)
    basis = torch.linalg.qr(phases.T).Q.T.reshape(3, *weight.shape)
    return torch.cat([1j * basis, (weight / weight.norm())[None].to(basis.dtype.to_complex())])


def without(
    directions: Complex[Tensor, "k oy ox"], change: Complex[Tensor, "oy ox"]
) -> Complex[Tensor, "oy ox"]:
    """Return a change less its parts along orthonormal directions."""
    shares = (directions.conj() * change).real.sum(dim=(1, 2))
    return change - (shares[:, None, None] * directions).sum(dim=0)


def _ceiling(rings: RingPower, truth: Complex[np.ndarray, "y x"]) -> Float[np.ndarray, " ring"]:
    """Return the mean correlation with the truth that the errors on the rings leave."""
    signal = rings.power_of(truth)
    both = signal + rings.power()
    ratio = np.divide(signal, both, out=np.zeros_like(both), where=both > 0)
    root: np.ndarray = np.sqrt(ratio)
    return root


def _where(mask: Bool[Tensor, "oy ox"], values: Float[Tensor, "oy ox"]) -> np.ndarray:
    """Return the values where scored, else NaN."""
    return torch.where(mask, values, torch.nan).numpy()


def _require_lit(
    photons: Float[Tensor, "oy ox"], modulus: Float[Tensor, "oy ox"], mask: Bool[Tensor, "oy ox"]
) -> None:
    if not mask.any():
        raise ValueError(f"no pixel of {tuple(mask.shape)} is scored; lower the threshold")
    for name, image in {"light": photons, "true object": modulus}.items():
        dark = int((image[mask] <= 0).sum())
        if dark:
            raise ValueError(
                f"the {name} is zero on {dark} of {int(mask.sum())} scored pixels, which no "
                "number of photons can determine; score fewer pixels"
            )
