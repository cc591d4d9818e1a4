"""Incoherent modes of a probe in the one basis in which they are orthogonal."""

import numpy as np
from jaxtyping import Complex

ORTHOGONAL = 1e-5  # of the product of two norms: what single precision leaves
POWER_MIN = 1e-7  # of all: below, a mode is the rounding of the others


def orthogonal_modes(
    modes: Complex[np.ndarray, "modes h w"],
) -> tuple[Complex[np.ndarray, "kept h w"], bool]:
    """Return the same illumination as orthogonal modes, strongest first, and whether it was so.

    Any unitary mixture of modes gives the same patterns, as only the sum of intensities is seen.
    The singular value decomposition finds the mixture that is orthogonal; it is unique but for
    phases, where the powers differ. Modes that are orthogonal and in order are returned as they
    are, to the last bit; others with a phase that makes their brightest pixel real.

    Parameters
    ----------
    modes : (modes, h, w)
        In any basis; not all zero.

    References
    ----------
    Thibault and Menzel, Nature 494, 68 (2013), doi:10.1038/nature11806: modes as a decomposition
    of the mutual coherence. Odstrcil et al., Opt. Express 24, 8360 (2016),
    doi:10.1364/OE.24.008360: their orthogonalisation.
    """
    rows = modes.reshape(len(modes), -1).astype(np.complex128)
    gram = rows @ rows.conj().T
    powers = gram.diagonal().real
    between = np.abs(gram - np.diag(gram.diagonal()))
    limits = ORTHOGONAL * np.sqrt(np.outer(powers, powers))
    in_order = bool((powers[1:] <= powers[:-1] * (1 + ORTHOGONAL)).all())
    if in_order and (between <= limits).all() and powers.min() > POWER_MIN * powers.sum():
        return modes, True
    _, strengths, basis = np.linalg.svd(rows, full_matrices=False)
    kept = strengths**2 > POWER_MIN * (strengths**2).sum()
    found = strengths[kept, None] * basis[kept]
    brightest = np.take_along_axis(found, np.abs(found).argmax(axis=1)[:, None], axis=1)
    found = found * (brightest.conj() / np.abs(brightest))
    return found.reshape(-1, *modes.shape[1:]), False
