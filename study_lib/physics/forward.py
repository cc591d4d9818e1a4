"""The experiment: probe and object to exit waves to diffraction, with the adjoints.

A probe is one coherent mode, (n, n), or several incoherent ones, (modes, n, n): partly coherent
light, or a probe that moves while it is exposed. Waves then have an axis of modes before that of
the scan, and intensities add over it. Counts that do not come from the object, a background, are
added on the detector.

Positions are (row, column) in object pixels and name the centre of a patch, pixel ``N // 2`` along
each axis. Their whole part picks the patch; the rest shifts the probe, so that the object stays on
its grid and patches are read and added without interpolation.

References
----------
Rodenburg and Faulkner, Appl. Phys. Lett. 85, 4795 (2004), doi:10.1063/1.1823034; modes: Thibault
and Menzel, Nature 494, 68 (2013), doi:10.1038/nature11806

Examples
--------
A probe of 10,000 photons on clear glass: the detector counts all of them.

>>> import torch
>>> import study_lib as study
>>> scene = study.scene_of(study.load_design("smoke"))
>>> probe = 100 * torch.from_numpy(scene.probe)  # the scene's has unit power
>>> positions = torch.from_numpy(scene.positions_of("test"))[:3]
>>> glass = torch.ones(scene.object_.shape, dtype=probe.dtype)
>>> waves = study.forward.exit_waves(probe, glass, positions)
>>> counts = study.forward.expected_counts(waves)
>>> tuple(counts.shape)
(3, 32, 32)
>>> counts.sum(dim=(1, 2)).round().tolist()
[10000.0, 10000.0, 10000.0]

The specimen absorbs some of them:

>>> waves = study.forward.exit_waves(probe, torch.from_numpy(scene.object_), positions)
>>> bool((study.forward.expected_counts(waves).sum(dim=(1, 2)) < 10000).all())
True
"""

import torch
from jaxtyping import Complex, Float, Int
from torch import Tensor

from study_lib.physics.fourier import power_spectrum, shift

SUMMED_PIXELS = 2**23  # of shifted probes at once: some 300 MB in single precision


def corners_of(positions_px: Float[Tensor, "scan 2"], side: int) -> Int[Tensor, "scan 2"]:
    """Return the (row, column) of the first pixel of each patch of ``side`` pixels."""
    return torch.round(positions_px).to(torch.int64) - side // 2


def probes_at(
    probe: Complex[Tensor, "*modes n n"], positions_px: Float[Tensor, "scan 2"]
) -> Complex[Tensor, "*modes scan n n"]:
    """Return the probe, each of its modes, shifted by the sub-pixel part of each position."""
    fractions = positions_px - torch.round(positions_px)
    each = probe if probe.ndim == 2 else probe.unsqueeze(1)
    return shift(each, fractions.to(probe.real.dtype))


def summed_over_modes(of_modes: Tensor) -> Tensor:
    """Return images summed over incoherent modes, (scan, n, n) from (modes, scan, n, n).

    Those of a coherent probe, (scan, n, n), are returned as they are. The only place where modes
    are added: their intensities, and the gradients that they have in common.
    """
    return of_modes if of_modes.ndim == 3 else of_modes.sum(dim=0)


def probe_power(probe: Complex[Tensor, "*modes n n"]) -> Float[Tensor, "n n"]:
    """Return the power on each pixel, summed over modes."""
    return summed_over_modes(probe.abs().unsqueeze(-3) ** 2)[0]


def require_inside(
    corners_px: Int[Tensor, "scan 2"], side: int, object_shape: tuple[int, int]
) -> None:
    """Check that every patch of ``side`` pixels lies in the object.

    Raises
    ------
    ValueError
        If one does not; names the first such scan position.
    """
    limits = torch.tensor(object_shape, device=corners_px.device) - side
    outside = ((corners_px < 0) | (corners_px > limits)).any(dim=1)
    if outside.any():
        index = int(outside.nonzero()[0, 0])
        row, column = corners_px[index].tolist()
        raise ValueError(
            f"scan position {index} of {len(corners_px)} leaves the object: its patch covers rows "
            f"{row}..{row + side - 1} and columns {column}..{column + side - 1}, but the object is "
            f"{object_shape[0]} x {object_shape[1]} pixels; enlarge the object or shrink the scan"
        )


def pixel_indices(
    corners_px: Int[Tensor, "scan 2"], side: int, object_shape: tuple[int, int]
) -> Int[Tensor, "scan pixels"]:
    """Return the indices of each patch's pixels in the flattened object.

    Raises
    ------
    ValueError
        If a patch leaves the object; names the first such scan position.
    """
    require_inside(corners_px, side, object_shape)
    offsets = torch.arange(side, device=corners_px.device)
    rows = corners_px[:, 0, None] + offsets
    columns = corners_px[:, 1, None] + offsets
    return (rows[:, :, None] * object_shape[1] + columns[:, None, :]).flatten(1)


def patches_at(
    object_: Complex[Tensor, "oy ox"] | Float[Tensor, "oy ox"],
    corners_px: Int[Tensor, "scan 2"],
    side: int,
) -> Tensor:
    """Return the object patch under each scan position, (scan, side, side)."""
    indices = pixel_indices(corners_px, side, (object_.shape[0], object_.shape[1]))
    return object_.reshape(-1)[indices].reshape(-1, side, side)


def add_patches(
    patches: Complex[Tensor, "scan n n"] | Float[Tensor, "scan n n"],
    corners_px: Int[Tensor, "scan 2"],
    object_shape: tuple[int, int],
) -> Tensor:
    """Return the sum of all patches at their places, (oy, ox): the adjoint of `patches_at`."""
    indices = pixel_indices(corners_px, patches.shape[-1], object_shape)
    canvas = patches.new_zeros(object_shape[0] * object_shape[1])
    return canvas.index_add(0, indices.flatten(), patches.flatten()).reshape(object_shape)


def exit_waves(
    probe: Complex[Tensor, "*modes n n"],
    object_: Complex[Tensor, "oy ox"],
    positions_px: Float[Tensor, "scan 2"],
) -> Complex[Tensor, "*modes scan n n"]:
    """Return probe times object patch at every scan position (thin specimen).

    Parameters
    ----------
    probe : (n, n) or (modes, n, n)
        Illumination in sqrt(photons) per pixel.
    object_ : (oy, ox)
        Complex transmission.
    positions_px : (scan, 2)
        (row, column) of the patch centres in object pixels.

    References
    ----------
    Rodenburg and Faulkner, Appl. Phys. Lett. 85, 4795 (2004), doi:10.1063/1.1823034
    """
    side = probe.shape[-1]
    patches = patches_at(object_, corners_of(positions_px, side), side)
    return probes_at(probe, positions_px) * patches


def exit_waves_adjoint(
    waves: Complex[Tensor, "*modes scan n n"],
    probe: Complex[Tensor, "*modes n n"],
    positions_px: Float[Tensor, "scan 2"],
    object_shape: tuple[int, int],
) -> Complex[Tensor, "oy ox"]:
    """Return the adjoint of `exit_waves` in the object: conjugate probe times wave, summed."""
    products = summed_over_modes(probes_at(probe, positions_px).conj() * waves)
    return add_patches(products, corners_of(positions_px, probe.shape[-1]), object_shape)


def expected_counts(waves: Complex[Tensor, "*batch n n"]) -> Float[Tensor, "*batch n n"]:
    """Return the expected photons per detector pixel of each wave, zero frequency in the centre.

    The transform is unitary: a pattern's sum is its exit wave's. Nothing is summed over modes; see
    :func:`patterns_expected`.
    """
    return power_spectrum(waves)


def counts_of_modes(
    waves: Complex[Tensor, "*modes scan n n"],
    background: Float[Tensor, "*each n n"] | None = None,
) -> Float[Tensor, "scan n n"]:
    """Return the expected counts of exit waves: intensities add over modes, the background too."""
    expected = summed_over_modes(power_spectrum(waves))
    return expected if background is None else expected + background


def patterns_expected(
    probe: Complex[Tensor, "*modes n n"],
    object_: Complex[Tensor, "oy ox"],
    positions_px: Float[Tensor, "scan 2"],
    background: Float[Tensor, "n n"] | None = None,
) -> Float[Tensor, "scan n n"]:
    """Return the expected counts per detector pixel at every scan position.

    Parameters
    ----------
    probe : (n, n) or (modes, n, n)
        Illumination in sqrt(photons) per pixel.
    object_ : (oy, ox)
        Complex transmission.
    positions_px : (scan, 2)
        (row, column) of the patch centres in object pixels.
    background : (n, n), optional
        Counts that do not come from the object.

    References
    ----------
    Thibault and Menzel, Nature 494, 68 (2013), doi:10.1038/nature11806

    Examples
    --------
    Two modes of half the power each count as many photons as one of all of it:

    >>> import torch
    >>> import study_lib as study
    >>> scene = study.scene_of(study.load_design("smoke"))
    >>> one = 100 * torch.from_numpy(scene.probe)
    >>> two = torch.stack([one, one.roll(1, dims=0)]) / 2**0.5
    >>> glass = torch.ones(scene.object_.shape, dtype=one.dtype)
    >>> positions = torch.from_numpy(scene.positions_of("test"))[:3]
    >>> study.forward.patterns_expected(two, glass, positions).sum(dim=(1, 2)).round().tolist()
    [10000.0, 10000.0, 10000.0]
    """
    return counts_of_modes(exit_waves(probe, object_, positions_px), background)


def illumination(
    probe: Complex[Tensor, "*modes n n"],
    positions_px: Float[Tensor, "scan 2"],
    object_shape: tuple[int, int],
) -> Float[Tensor, "oy ox"]:
    """Return the photons that land on each object pixel over the whole scan, of all modes.

    Patches are added in the order of the scan, some at a time, so that memory stays bounded.

    Raises
    ------
    ValueError
        If a patch leaves the object; names the first such scan position.

    References
    ----------
    It sets the photon limit of every pixel: Wei et al., Phys. Rev. A 102, 043516 (2020),
    doi:10.1103/PhysRevA.102.043516
    """
    side = probe.shape[-1]
    corners = corners_of(positions_px, side)
    require_inside(corners, side, object_shape)
    light = probe.real.new_zeros(object_shape[0] * object_shape[1])
    count = max(1, SUMMED_PIXELS // probe.numel())
    for start in range(0, len(corners), count):
        part = slice(start, start + count)
        powers = summed_over_modes(probes_at(probe, positions_px[part]).abs() ** 2)
        indices = pixel_indices(corners[part], side, object_shape)
        light.index_add_(0, indices.flatten(), powers.flatten())
    return light.reshape(object_shape)
