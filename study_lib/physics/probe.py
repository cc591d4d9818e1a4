"""The probe: a defocused zone plate, its diameter, its window, its errors, its bright field.

Probes are complex waves, one coherent mode (n, n) or incoherent ones (modes, n, n); intensity is
power per pixel, summed over modes; lengths are object pixels.

Examples
--------
The lens is given by its pupil, so the bright field holds the whole power on the detector:

>>> import numpy as np
>>> import study_lib as study
>>> lens = {"side_px": 64, "aperture_per_px": 0.2, "stop_ratio": 0.4}
>>> probe = study.probe.zone_plate_probe(**lens, defocus_radius_px=7.0)
>>> probe.shape, round(float((np.abs(probe) ** 2).sum()), 6)
((64, 64), 1.0)
>>> pattern = np.abs(np.fft.fftshift(np.fft.fft2(probe, norm="ortho"))) ** 2
>>> bright = study.probe.bright_field(64, lens["aperture_per_px"])
>>> round(float(pattern[bright].sum()), 6)
1.0

Out of focus it is wider:

>>> wider = study.probe.zone_plate_probe(**lens, defocus_radius_px=14.0)
>>> study.probe.probe_diameter_px(wider, 0.9) > study.probe.probe_diameter_px(probe, 0.9)
True
"""

from itertools import islice

import numpy as np
from jaxtyping import Bool, Complex, Float

from study_lib.errors import InputError

# --- Zone plate, diameter, window

KEPT_POWER_MIN = 0.9


def zone_plate_probe(
    *, side_px: int, aperture_per_px: float, stop_ratio: float, defocus_radius_px: float
) -> Complex[np.ndarray, "n n"]:
    """Return the wave of an annular lens out of focus, with unit power.

    The pupil is an annulus in frequency; the defocus is a quadratic phase over it. A ray at
    frequency ``q`` lands at ``(1 / 2 pi) d phase / dq``, so the phase that brings the edge ray
    ``q_max`` to the radius ``R`` is ``pi R q^2 / q_max``.

    Parameters
    ----------
    side_px
        Side N of the square grid.
    aperture_per_px
        Pupil radius in cycles per pixel; the bright field on the detector has this radius.
    stop_ratio
        Radius of the central stop over the pupil radius.
    defocus_radius_px
        Distance from the axis at which the edge ray crosses the specimen.

    References
    ----------
    Goodman, Introduction to Fourier Optics, section 6.4 (aberrated pupil function)
    """
    radius = _radius_per_px(side_px)
    edge = 0.5 / side_px
    inside = np.clip((aperture_per_px - radius) / edge, -1, 1) / 2 + 0.5
    outside = np.clip((radius - stop_ratio * aperture_per_px) / edge, -1, 1) / 2 + 0.5
    phase = np.pi * defocus_radius_px * radius**2 / aperture_per_px
    pupil = inside * (outside if stop_ratio else 1) * np.exp(1j * phase)
    wave: np.ndarray = np.fft.fftshift(np.fft.ifft2(np.fft.ifftshift(pupil), norm="ortho"))
    wave /= np.linalg.norm(wave)
    return wave


def central_window(
    probe: Complex[np.ndarray, "*modes a a"], side_px: int
) -> tuple[Complex[np.ndarray, "*modes n n"], float]:
    """Return the central window of a probe, of all modes, and the share of its power inside.

    A smaller window is the same illumination on a detector with larger pixels; object pixels keep
    their size.

    Raises
    ------
    InputError
        If the probe is smaller than the window, or loses more than a tenth of its power.
    """
    side = probe.shape[-1]
    if side < side_px:
        raise InputError(
            f"the base probe has {side} pixels a side, the design's patch {side_px}; "
            f"set patch_size_px to {side} or less"
        )
    start = side // 2 - side_px // 2
    window = probe[..., start : start + side_px, start : start + side_px]
    share = float((np.abs(window) ** 2).sum() / (np.abs(probe) ** 2).sum())
    if share < KEPT_POWER_MIN:
        raise InputError(
            f"a {side_px}-pixel window keeps {share:.1%} of the base probe's power, "
            f"at least {KEPT_POWER_MIN:.0%} is needed; raise patch_size_px"
        )
    return window, share


def probe_diameter_px(probe: Complex[np.ndarray, "*modes n n"], power_share: float) -> float:
    """Return the diameter of the disc as large as the brightest pixels that hold a power share."""
    power = np.sort(power_of(probe).ravel())[::-1].astype(np.float64)
    pixel_count = 1 + int(np.searchsorted(np.cumsum(power), power_share * power.sum()))
    return float(2 * np.sqrt(pixel_count / np.pi))


def probe_fwhm_px(probe: Complex[np.ndarray, "*modes n n"]) -> float:
    """Return the diameter of the disc as large as the pixels of at least half the top intensity."""
    power = power_of(probe)
    return float(2 * np.sqrt((power >= power.max() / 2).sum() / np.pi))


# --- Incoherent modes: intensities add, so a unitary mixture of modes is the same light


def modes_of(probe: Complex[np.ndarray, "*modes n n"]) -> Complex[np.ndarray, "each n n"]:
    """Return the modes of a probe on an axis of their own, also of a coherent one; a view."""
    return probe.reshape(-1, *probe.shape[-2:])


def power_of(probe: Complex[np.ndarray, "*modes n n"]) -> Float[np.ndarray, "n n"]:
    """Return the power on each pixel, summed over modes."""
    power: np.ndarray = np.abs(probe) ** 2
    return power if power.ndim == 2 else power.sum(axis=0)


def mode_shares(probe: Complex[np.ndarray, "*modes n n"]) -> Float[np.ndarray, " each"]:
    """Return the share of the power that each mode has."""
    powers = (np.abs(modes_of(probe).astype(np.complex128)) ** 2).sum(axis=(1, 2))
    shares: np.ndarray = powers / powers.sum()
    return shares


def orthogonal_modes(probe: Complex[np.ndarray, "*modes n n"]) -> Complex[np.ndarray, "*modes n n"]:
    """Return the orthogonal modes, strongest first, that light any object as the given ones do.

    A unitary mixture of modes changes no intensity, so of all that are the same light these are
    the ones to show and to compare. Each has the phase of the given mode nearest to it. A coherent
    probe is returned as it is.

    References
    ----------
    Thibault and Menzel, Nature 494, 68 (2013), doi:10.1038/nature11806

    Examples
    --------
    >>> import numpy as np
    >>> import study_lib as study
    >>> lens = {"side_px": 32, "aperture_per_px": 0.2, "stop_ratio": 0.0}
    >>> first = study.probe.zone_plate_probe(**lens, defocus_radius_px=4.0)
    >>> mixed = np.stack([first, first + 0.1 * np.roll(first, 3, axis=0)])
    >>> modes = study.probe.orthogonal_modes(mixed)
    >>> bool(abs(np.vdot(modes[0], modes[1])) < 1e-12)
    True
    >>> bool(np.allclose(study.probe.power_of(modes), study.probe.power_of(mixed)))
    True
    """
    if probe.ndim == 2:
        return probe
    flat = probe.reshape(len(probe), -1).astype(np.complex128)
    _, mixtures = np.linalg.eigh(flat.conj() @ flat.T)  # of the Gram matrix, weakest first
    # Rows of the mixture give each new mode from the old ones; the largest share keeps its phase.
    mixtures = mixtures[:, ::-1].T
    largest = np.take_along_axis(mixtures, np.abs(mixtures).argmax(axis=1)[:, None], axis=1)
    mixtures = mixtures * (largest.conj() / np.abs(largest))
    modes: np.ndarray = (mixtures @ flat).reshape(probe.shape).astype(probe.dtype)
    return modes


MIXED = 0.2  # of the other polynomials in a new mode
MORE_POLYNOMIALS = 2  # than there are new modes
TINY = 1e-6
WEAK_SHARE = 0.02  # of the power, that each new mode starts with


def with_more_modes(
    probe: Complex[np.ndarray, "*modes n n"], modes: int, seed: int, *, share: float = WEAK_SHARE
) -> Complex[np.ndarray, "*more n n"]:
    """Return a probe of more modes to start from: weak ones beside those that are known.

    The new modes are the strongest one times polynomials of the place, as the higher modes of a
    partly coherent beam nearly are (Hermite and Gauss), each mixed at random, orthogonal to all
    before; the power stays. To be refined: :class:`study_lib.solvers.solver.SolverSettings`.

    Parameters
    ----------
    probe : (n, n) or (modes, n, n)
        What is known, the strongest first.
    modes
        How many in all; at least as many as are known.
    seed
        Of the mixture, which keeps new modes from a symmetry that the true ones do not have.
    share
        Of the power, that each new mode gets.

    Returns
    -------
    (modes, n, n), strongest first; a coherent probe (n, n) if one mode is asked for.

    Raises
    ------
    InputError
        If there are already more modes, or the shares leave nothing for those that are known.

    References
    ----------
    Hermite-Gaussian modes of partly coherent light: Starikov and Wolf, J. Opt. Soc. Am. 72, 923
    (1982), doi:10.1364/JOSA.72.000923

    Examples
    --------
    >>> import numpy as np
    >>> import study_lib as study
    >>> lens = {"side_px": 32, "aperture_per_px": 0.2, "stop_ratio": 0.0}
    >>> first = study.probe.zone_plate_probe(**lens, defocus_radius_px=4.0)
    >>> start = study.probe.with_more_modes(first, 3, seed=0)
    >>> start.shape, study.probe.mode_shares(start).round(3).tolist()
    ((3, 32, 32), [0.96, 0.02, 0.02])
    """
    known = modes_of(probe)
    new = modes - len(known)
    if new == 0:
        return probe
    if new < 0 or not 0 < share * new < 1:
        raise InputError(
            f"{modes} modes with a share of {share:g} for each new one, of a probe that has "
            f"{len(known)}; ask for more modes, and for shares that leave light for those known"
        )
    random = np.random.default_rng(seed)
    before = [mode for mode in known.astype(np.complex128) if mode.any()]
    weak: list[np.ndarray] = []
    polynomials = _times_polynomials(known[0], new + MORE_POLYNOMIALS)
    for index in range(new):
        shares = MIXED * random.standard_normal((2, len(polynomials)))
        mixture = shares[0] + 1j * shares[1]
        mixture[index] += 1
        noise = random.standard_normal((2, *known[0].shape))
        mode = np.tensordot(mixture, polynomials, axes=1) + TINY * (noise[0] + 1j * noise[1])
        for other in (before + weak) * 2:  # the second time removes what rounding has left
            mode -= np.vdot(other, mode) / np.vdot(other, other) * other
        weak.append(mode / np.linalg.norm(mode))
    size = np.sqrt(share * power_of(probe).sum(dtype=np.float64))
    parts = [known * np.sqrt(1 - share * new), size * np.array(weak)]
    started: np.ndarray = np.concatenate(parts).astype(probe.dtype)
    return started


def _times_polynomials(
    mode: Complex[np.ndarray, "n n"], count: int
) -> Complex[np.ndarray, "count n n"]:
    """Return a mode times the lowest powers of the place, from its centre on, of unit power."""
    power = power_of(mode)
    y, x = _frequencies_around_mean(power)  # of places here: the grid is the same
    width = max(float(np.sqrt(np.average(y**2 + x**2, weights=power) / 2)), TINY)
    y, x = y / width, x / width
    orders = ((row, total - row) for total in range(1, count + 1) for row in range(total + 1))
    images = np.array([mode * y**row * x**column for row, column in islice(orders, count)])
    sizes = np.linalg.norm(images, axis=(1, 2), keepdims=True)
    unit: np.ndarray = images / np.maximum(sizes, TINY * np.linalg.norm(mode))
    return unit


# --- A probe that differs from another by errors of its lens

PUPIL_POWER = 0.95


def pupil_radius_per_px(probe: Complex[np.ndarray, "n n"]) -> float:
    """Return the radius of the disc of frequencies that holds 95 % of a probe's power.

    In cycles per object pixel, around their mean; at least one pixel of the detector.
    """
    power = np.abs(_pupil_of(probe)) ** 2
    radius = np.hypot(*_frequencies_around_mean(power)).ravel()
    order = np.argsort(radius)
    inside = np.cumsum(power.ravel()[order], dtype=np.float64)
    found = np.interp(PUPIL_POWER * inside[-1], inside, radius[order])
    return max(float(found), 1 / len(probe))


def aberrated_probe(
    probe: Complex[np.ndarray, "n n"],
    *,
    aperture_per_px: float,
    defocus_px: float,
    aberration_waves: float,
    random: np.random.Generator,
) -> Complex[np.ndarray, "n n"]:
    """Return a probe whose lens is further out of focus and has aberrations; its power is kept.

    Both are phases over the pupil, the probe's transform. Defocus is the quadratic one of
    :func:`zone_plate_probe`: an edge ray lands farther out by ``defocus_px``. The aberrations are
    the primary ones, astigmatism, coma and spherical, mixed at random; what they share with a
    shift of the probe or with defocus over this pupil is taken out.

    Parameters
    ----------
    probe : (n, n)
        Of any scale.
    aperture_per_px
        Radius of the pupil, around its mean frequency; beyond, phases stay those of its edge.
    defocus_px
        By how much farther from the axis the edge ray crosses the specimen.
    aberration_waves
        Root mean square of the aberrations over the power in the pupil.
    random
        How strong each of them is.

    Raises
    ------
    InputError
        If there is no pupil to have aberrations: a probe of one plane wave.

    References
    ----------
    Born and Wolf, Principles of Optics, sections 5.3 and 9.1
    """
    pupil = _pupil_of(probe)
    power = np.abs(pupil) ** 2
    y, x = _frequencies_around_mean(power)
    edge = aperture_per_px + 1 / len(probe)  # a pixel beyond, for the soft rim
    held = edge / np.maximum(np.hypot(y, x), edge) / aperture_per_px
    y, x = y * held, x * held
    phase = np.pi * defocus_px * aperture_per_px * (y**2 + x**2)
    if aberration_waves:
        mixed = random.standard_normal(5) @ _primary_aberrations(y, x, power)
        phase += 2 * np.pi * aberration_waves * (mixed / _rms(mixed, power)).reshape(phase.shape)
    turned = np.fft.ifftshift(pupil * np.exp(1j * phase))
    wave: np.ndarray = np.fft.fftshift(np.fft.ifft2(turned, norm="ortho"))
    return wave


def _primary_aberrations(
    y: Float[np.ndarray, "n n"], x: Float[np.ndarray, "n n"], power: Float[np.ndarray, "n n"]
) -> Float[np.ndarray, "5 pixels"]:
    """Return five polynomials of root mean square 1 over a pupil, free of tilt and defocus."""
    square = x**2 + y**2
    shapes = [x**2 - y**2, 2 * x * y, square * x, square * y, square**2]
    wanted, plain = (
        np.stack([one.ravel() for one in part])
        for part in (shapes, [np.ones_like(x), x, y, square])
    )
    root = np.sqrt(power.ravel())
    shared = np.linalg.lstsq((root * plain).T, (root * wanted).T)[0].T
    free = wanted - shared @ plain
    sizes = np.array([_rms(one, power) for one in free])
    if not (sizes > 1e-6).all():
        raise InputError(
            "the probe's pupil is a few frequencies, too small for aberrations; set "
            "mismatch.aberration_error_percent to 0"
        )
    unit: np.ndarray = free / sizes[:, None]
    return unit


def _rms(values: Float[np.ndarray, " pixels"], power: Float[np.ndarray, "n n"]) -> float:
    return float(np.sqrt(np.average(values**2, weights=power.ravel())))


def _pupil_of(probe: Complex[np.ndarray, "n n"]) -> Complex[np.ndarray, "n n"]:
    """Return the transform of a probe in double precision, zero frequency in the centre."""
    wave = np.fft.ifftshift(probe.astype(np.complex128))
    pupil: np.ndarray = np.fft.fftshift(np.fft.fft2(wave, norm="ortho"))
    return pupil


def _frequencies_around_mean(
    power: Float[np.ndarray, "n n"],
) -> tuple[Float[np.ndarray, "n n"], Float[np.ndarray, "n n"]]:
    """Return (row, column) frequencies in cycles per object pixel, from their mean on."""
    side = len(power)
    y, x = (np.indices(power.shape) - side // 2) / side
    return y - np.average(y, weights=power), x - np.average(x, weights=power)


# --- Bright field: what the pupil lights directly; beyond lies what was scattered


def bright_field(side_px: int, aperture_per_px: float) -> Bool[np.ndarray, "n n"]:
    """Return which detector pixels lie in the bright field, the central stop's shadow included.

    Its edge is half a detector pixel outside the pupil's, whose rim is one pixel soft.

    Parameters
    ----------
    side_px
        Side N of the detector; the beam hits pixel ``N // 2``.
    aperture_per_px
        Pupil radius in cycles per object pixel.

    Raises
    ------
    InputError
        If the pupil is not within the detector.
    """
    if not 0 < aperture_per_px < 0.5:
        raise InputError(
            f"aperture_per_px = {aperture_per_px:g}: a detector holds frequencies up to 0.5 per "
            "object pixel; give a radius above zero and below that"
        )
    return _radius_per_px(side_px) < aperture_per_px + 0.5 / side_px


def _radius_per_px(side_px: int) -> Float[np.ndarray, "n n"]:
    """Return the spatial frequency, in cycles per object pixel, that each detector pixel holds."""
    frequency = (np.arange(side_px) - side_px // 2) / side_px
    return np.hypot(frequency[:, None], frequency)
