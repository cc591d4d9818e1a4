"""Fisher information of the object in Poisson counts, never stored as a matrix.

A pattern expects I = abs(Psi)^2 + b photons per detector pixel, Psi the unitary spectrum of probe
times object. A change v of the object changes I by ``2 Re(conj(Psi) F(P v))``, so for real and
imaginary part of every object pixel as parameters

    J v = A^T diag(1 / I) A v,    A v = 2 Re(conj(Psi) F(P v)),

one transform forth and one back per pattern. Changes are complex images; their scalar product is
``Re sum conj(u) v``.
"""

import torch
from jaxtyping import Bool, Complex, Float
from torch import Tensor

from study_lib.errors import StudyError
from study_lib.physics.forward import add_patches, corners_of, patches_at, probes_at
from study_lib.physics.fourier import fourier, inverse_fourier

CHUNK = 128


class FisherInformation:
    """The Fisher information of one scan at one object; keeps two complex numbers a count.

    Parameters
    ----------
    object_ : (oy, ox)
        Complex transmission at which the information is taken: the truth of a simulation.
    probe : (n, n)
        Known probe in sqrt(photons) per pixel.
    positions_px : (scan, 2)
        (row, column) patch centres in object pixels.
    background
        Photons per detector pixel that tell nothing of the object.
    bad_pixels : (n, n), optional
        Detector pixels without a count.

    References
    ----------
    Wei, Gong, Dwivedi et al., Phys. Rev. A 102, 043516 (2020), doi:10.1103/PhysRevA.102.043516
    """

    def __init__(
        self,
        *,
        object_: Complex[Tensor, "oy ox"],
        probe: Complex[Tensor, "n n"],
        positions_px: Float[Tensor, "scan 2"],
        background: float = 0.0,
        bad_pixels: Bool[Tensor, "n n"] | None = None,
    ) -> None:
        self.shape = (object_.shape[0], object_.shape[1])
        self._parts = []
        side = probe.shape[-1]
        for part in positions_px.split(CHUNK):
            probes, corners = probes_at(probe, part), corners_of(part, side)
            spectra = fourier(probes * patches_at(object_, corners, side))
            # Scaled by the share of the light that is the object's, without light by nothing.
            scale = (spectra.abs() ** 2 + background).sqrt()
            phasors = torch.where(scale > 0, spectra / scale.clamp_min(1e-30), 0)
            if bad_pixels is not None:
                phasors[:, bad_pixels] = 0
            self._parts.append((probes, corners, phasors))

    def product(self, change: Complex[Tensor, "oy ox"]) -> Complex[Tensor, "oy ox"]:
        """Return J times a change of the object."""
        total = torch.zeros_like(change)
        for probes, corners, phasors in self._parts:
            spectra = fourier(probes * patches_at(change, corners, probes.shape[-1]))
            waves = inverse_fourier((phasors.conj() * spectra).real * phasors)
            total += add_patches(4 * probes.conj() * waves, corners, self.shape)
        return total


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
