"""What the photons allow: Cramer-Rao bounds of the object under Poisson noise, probe known.

No unbiased estimate of the object has a smaller variance. Estimates that are biased, as all are
that smooth or start from a flat object and stop, may have a smaller error; a ratio below 1 says
that they draw on more than the counts.
"""

from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Bool, Complex, Float
from torch import Tensor

from study_lib.physics.forward import illumination
from study_lib.scores.fisher import FisherInformation, solve
from study_lib.scores.phase_spectra import PhaseSpectra, RingTrace, phase_spectra

FREE_SHARE = 1e-3
TOLERANCE = 1e-3
ITERATIONS = 500


@dataclass(frozen=True)
class PhotonLimit:
    """Bounds on the scored pixels, and NaN elsewhere, of the object aligned with the truth.

    ``phase_std_rad`` and ``amplitude_std`` (oy, ox) are estimates of the full bound;
    ``ideal_phase_std_rad`` (oy, ox) is 1 / sqrt(2 E |O|^2) for E photons on the pixel, what the
    bound would be if pixels did not share patterns. ``phase_rms_rad`` is the bound of the error
    over all scored pixels, ``phase_rms_error_rad`` its standard error from the solves.
    ``frc_ceiling`` (ring,) is the mean Fourier ring correlation with the truth of an object whose
    errors are those of the bound, ring by ring as in :mod:`study_lib.scores.frc`.
    ``spectra`` is the bound of the phase per spatial frequency beside the true phase's spectrum.
    """

    phase_std_rad: Float[np.ndarray, "oy ox"]
    amplitude_std: Float[np.ndarray, "oy ox"]
    ideal_phase_std_rad: Float[np.ndarray, "oy ox"]
    phase_rms_rad: float
    phase_rms_error_rad: float
    frc_ceiling: Float[np.ndarray, " ring"]
    spectra: PhaseSpectra
    solves: int

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
    probe: Complex[np.ndarray, "n n"],
    positions_px: Float[np.ndarray, "scan 2"],
    scored: Bool[np.ndarray, "oy ox"],
    crop: tuple[slice, slice],
    seed: int,
    solves: int = 8,
    background: float = 0.0,
    bad_pixels: Bool[np.ndarray, "n n"] | None = None,
) -> PhotonLimit:
    """Return the Cramer-Rao bound of phase and amplitude.

    The diagonal of ``Q J^-1 Q`` is estimated by ``z * (Q J^-1 Q z)`` over random signs z [1]_,
    each solve by conjugate gradients. Q takes out what alignment takes out, over the scored pixels:
    global phase, scale and phase ramp. Free is every pixel that receives more than `FREE_SHARE` of
    the median light on scored pixels; darker ones count as known, which can only lower the bound.
    It is of the *given* photons per pattern: at a fixed dose per pattern, more overlap means more
    photons per area and a lower bound.

    Parameters
    ----------
    object_ : (oy, ox)
        The true object, nowhere zero on scored pixels.
    probe : (n, n)
        In sqrt(photons) per pixel.
    positions_px : (scan, 2)
        (row, column) patch centres in object pixels.
    scored : (oy, ox)
        Pixels whose error counts.
    crop
        Rows and columns, around the scored pixels, whose Fourier rings are meant.
    seed
        Of the random signs.
    solves
        More give a smoother map; the root mean square needs few.
    background, bad_pixels
        As in :class:`study_lib.scores.fisher.FisherInformation`.

    Raises
    ------
    ValueError
        If no pixel is scored, a scored one is dark, or the object is zero there.
    StudyError
        If a solve does not converge.

    References
    ----------
    .. [1] Bekas, Kokiopoulou and Saad, Appl. Numer. Math. 57, 1214 (2007),
       doi:10.1016/j.apnum.2007.01.003
    """
    if solves < 2:
        raise ValueError(f"solves = {solves}: a spread needs at least 2")
    truth, light = (torch.from_numpy(part).to(torch.complex64) for part in (object_, probe))
    positions = torch.from_numpy(positions_px).to(torch.float64)
    photons = illumination(light, positions, (truth.shape[0], truth.shape[1]))
    mask = torch.from_numpy(scored)
    modulus = truth.abs()
    _require_lit(photons, modulus, mask)

    free = photons > FREE_SHARE * photons[mask].median()
    information = FisherInformation(
        object_=truth,
        probe=light,
        positions_px=positions,
        background=background,
        bad_pixels=None if bad_pixels is None else torch.from_numpy(bad_pixels),
    )
    # In the frame of the truth's phase, a change is real in amplitude, imaginary in phase.
    turn = truth / modulus.clamp_min(1e-30)
    gauge = alignment_directions(modulus, mask)
    generator = torch.Generator().manual_seed(seed)
    total = torch.zeros_like(truth)
    means = []
    outline = scored[crop]
    inside = modulus[crop].double().numpy()
    weight = np.divide(1, inside, out=np.zeros_like(inside), where=outline)
    complex_rings = RingTrace(outline, 2.0)
    phase_rings = RingTrace(outline, weight**2, corners=True)
    for _ in range(solves):
        signs = torch.randint(0, 2, (2, *truth.shape), generator=generator).to(modulus.dtype)
        signs = torch.complex(*(2 * signs - 1)) * mask
        found = solve(
            information,
            turn * without(gauge, signs),
            illumination=photons,
            free=free,
            tolerance=TOLERANCE,
            iterations=ITERATIONS,
        )
        found = without(gauge, turn.conj() * found * mask)
        sample = torch.complex(signs.real * found.real, signs.imag * found.imag)
        total += sample
        complex_rings.add((turn * signs)[crop].numpy(), (turn * found)[crop].numpy())
        phase_rings.add(weight * signs.imag[crop].numpy(), weight * found.imag[crop].numpy())
        means.append(float((sample.imag / modulus**2)[mask].mean()))
    variance = total / solves
    mean_square, error = np.mean(means), np.std(means, ddof=1) / np.sqrt(solves)
    ideal = 1 / (2 * photons * modulus**2)
    return PhotonLimit(
        phase_std_rad=_root(variance.imag / modulus**2, mask),
        amplitude_std=_root(variance.real, mask),
        ideal_phase_std_rad=_root(ideal, mask),
        phase_rms_rad=float(np.sqrt(mean_square)),
        phase_rms_error_rad=float(error / (2 * np.sqrt(mean_square))),
        frc_ceiling=_ceiling(complex_rings, object_[crop]),
        spectra=phase_spectra(phase_rings, object_[crop], outline),
        solves=solves,
    )


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


def _ceiling(rings: RingTrace, truth: Complex[np.ndarray, "y x"]) -> Float[np.ndarray, " ring"]:
    """Return the mean correlation with the truth that the errors on the rings leave."""
    signal = rings.power_of(truth)
    both = signal + rings.power()
    ratio = np.divide(signal, both, out=np.zeros_like(both), where=both > 0)
    root: np.ndarray = np.sqrt(ratio)
    return root


def _root(variance: Float[Tensor, "oy ox"], mask: Bool[Tensor, "oy ox"]) -> np.ndarray:
    """Return the root where scored; a negative estimate, by too few solves, has none: 0."""
    root: np.ndarray = torch.where(mask, variance.clamp_min(0).sqrt(), torch.nan).numpy()
    return root


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
