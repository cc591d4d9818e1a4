"""Compiled loops over the pixels of patches: what surrounds the solver's transforms on a processor.

Torch passes over memory a dozen times for what three loops do. numba compiles them when they are
first called, in a second or two, and keeps them for later processes.
"""

import inspect
import os
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from jaxtyping import Bool, Complex, Float, Int
from torch import Tensor

from study_lib.system import imported_apart

# The working folder may be a run from somebody else, and numba looks for settings in it: when it is
# imported, and before each compilation.
numba = imported_apart("numba")
numba.core.config._config_fname = os.devnull

Array = np.ndarray  # of single precision, flat or by pattern


def compiled(loop: Callable[..., Any]) -> Callable[..., Any]:
    """Return a loop as machine code, that of an earlier process where it can be kept.

    Sums may be taken in any order, and a division by zero gives infinity: then loops become vector
    instructions.
    """
    plain = inspect.unwrap(loop)  # without the checks that tests put around functions
    found: Callable[..., Any]
    try:
        found = numba.njit(plain, cache=True, fastmath=True, error_model="numpy", nogil=True)
    except RuntimeError:  # there is no folder to keep it in
        found = numba.njit(plain, fastmath=True, error_model="numpy", nogil=True)
    return found


# --- Loops over the pixels of one pattern; a complex number is two real ones in turn


@compiled
def _add_power(wave: Array, model: Array) -> None:
    for x in range(len(model)):
        model[x] += wave[2 * x] * wave[2 * x] + wave[2 * x + 1] * wave[2 * x + 1]


@compiled
def _poisson_residual(model: Array, roots: Array, offset: float, residual: Array) -> None:
    for x in range(len(model)):
        counts = roots[x] * roots[x]
        if counts > 0:
            counts += offset
        expected = model[x] + offset
        residual[x] = (expected - counts) / expected  # not 1 - counts / expected: rounding


@compiled
def _amplitude_residual(model: Array, roots: Array, darkest: float, residual: Array) -> None:
    for x in range(len(model)):
        model[x] = max(model[x], darkest)
        residual[x] = np.float32(1) - roots[x] / np.sqrt(model[x])


@compiled
def _multiply(values: Array, factors: Array) -> None:
    for x in range(len(factors)):
        values[x] *= factors[x]


@compiled
def _multiply_wave(wave: Array, factors: Array) -> None:
    for x in range(len(factors)):
        wave[2 * x] *= factors[x]
        wave[2 * x + 1] *= factors[x]


@compiled
def _deviance(model: Array, roots: Array, logs: Array, offset: float, good: Array) -> np.float32:
    total = np.float32(0)
    for x in range(len(model)):
        counts = roots[x] * roots[x]
        excess = model[x]
        if counts > 0:
            # From the very sums that the logarithm is of: rounding is then of the excess.
            counts += offset
            excess = (model[x] + offset) - counts
        total += good[x] * (excess + counts * logs[x])
    return total


@compiled
def _squares(model: Array, residual: Array) -> np.float32:
    total = np.float32(0)
    for x in range(len(model)):
        total += model[x] * residual[x] * residual[x]
    return total


# --- Loops over the patterns of a chunk


@compiled
def _modulate(object_: Array, probes: Array, corners: Array, width: int, waves: Array) -> None:
    modes, patterns, side = probes.shape[:3]
    for mode in range(modes):
        for pattern in range(patterns):
            for row in range(side):
                start = 2 * (corners[pattern] + row * width)
                line = object_[start : start + 2 * side]
                light, wave = probes[mode, pattern, row], waves[mode, pattern, row]
                for x in range(side):
                    a, b, c, d = light[2 * x], light[2 * x + 1], line[2 * x], line[2 * x + 1]
                    wave[2 * x] = a * c - b * d
                    wave[2 * x + 1] = a * d + b * c


@compiled
def _add_back(gradient: Array, probes: Array, corners: Array, width: int, waves: Array) -> None:
    modes, patterns, side = probes.shape[:3]
    for mode in range(modes):
        for pattern in range(patterns):
            for row in range(side):
                start = 2 * (corners[pattern] + row * width)
                line = gradient[start : start + 2 * side]
                light, wave = probes[mode, pattern, row], waves[mode, pattern, row]
                for x in range(side):
                    a, b, c, d = light[2 * x], light[2 * x + 1], wave[2 * x], wave[2 * x + 1]
                    line[2 * x] += a * c + b * d
                    line[2 * x + 1] += a * d - b * c


@compiled
def _scale(
    spectra: Array,
    roots: Array,
    good: Array,
    background: Array,
    offset: float,
    darkest: float,
    is_poisson: bool,
    model: Array,
    residual: Array,
) -> None:
    for pattern in range(len(roots)):
        model[pattern] = background
        for mode in range(len(spectra)):
            _add_power(spectra[mode, pattern], model[pattern])
        if is_poisson:
            _poisson_residual(model[pattern], roots[pattern], offset, residual[pattern])
        else:
            _amplitude_residual(model[pattern], roots[pattern], darkest, residual[pattern])
        _multiply(residual[pattern], good[pattern if len(good) > 1 else 0])
        for mode in range(len(spectra)):
            _multiply_wave(spectra[mode, pattern], residual[pattern])


@compiled
def _sum(
    model: Array,
    roots: Array,
    residual: Array,
    logs: Array,
    good: Array,
    offset: float,
    is_poisson: bool,
) -> float:
    total = 0.0
    for pattern in range(len(roots)):
        if is_poisson:
            own = good[pattern if len(good) > 1 else 0]
            total += _deviance(model[pattern], roots[pattern], logs[pattern], offset, own)
        else:
            total += _squares(model[pattern], residual[pattern])
    return total


# --- The same for tensors


def exit_waves(
    object_: Complex[Tensor, " pixel"],
    probes: Complex[Tensor, "*modes part n n"],
    corners: Int[Tensor, " part"],
    width: int,
) -> Complex[Tensor, "*modes part n n"]:
    """Return shifted probes times the patches of an object.

    Parameters
    ----------
    object_ : (pixel,)
        The box, ``width`` pixels to a row.
    probes : (part, n, n) or (modes, part, n, n)
        Of each pattern.
    corners : (part,)
        Index in the box of the first pixel of every patch.
    """
    waves = torch.empty_like(probes)
    _modulate(_reals(object_), _lines(probes), corners.numpy(), width, _lines(waves))
    return waves


def add_back(
    gradient: Complex[Tensor, " pixel"],
    probes: Complex[Tensor, "*modes part n n"],
    corners: Int[Tensor, " part"],
    width: int,
    waves: Complex[Tensor, "*modes part n n"],
) -> None:
    """Add waves times the conjugate probes to a box: the adjoint of :func:`exit_waves`."""
    _add_back(_reals(gradient), _lines(probes), corners.numpy(), width, _lines(waves))


def scale_by_residual(
    spectra: Complex[Tensor, "*modes part n n"],
    roots: Float[Tensor, "part n n"],
    scored: Bool[Tensor, "part n n"] | Float[Tensor, "n n"] | None,
    background: Float[Tensor, "n n"] | None,
    *,
    is_poisson: bool,
    offset: float,
    darkest: float,
    with_value: bool,
    least_excess: float,
) -> float:
    """Multiply spectra by the derivative of the objective in the expected counts; return its sum.

    Parameters
    ----------
    spectra : (part, n, n) or (modes, part, n, n)
        Of exit waves; overwritten.
    roots : (part, n, n)
        Of the counts.
    scored : (n, n) or (part, n, n)
        Zero or false where a pixel does not count.
    background : (n, n)
        Counts that do not come from the object.
    is_poisson, offset, darkest, least_excess
        The objective, and what keeps it finite, as in :mod:`study_lib.solvers.pattern_model`.
    with_value
        Whether the objective is summed; else 0 is returned.
    """
    patterns, pixels = len(roots), roots[0].numel()
    flat = roots.numpy().reshape(patterns, pixels)
    model, residual = (np.empty((patterns, pixels), np.float32) for _ in range(2))
    good, dark = np.ones((1, pixels), np.float32), np.zeros(pixels, np.float32)
    if scored is not None:
        good = scored.numpy().astype(np.float32).reshape(-1, pixels)
    if background is not None:
        dark = background.numpy().astype(np.float32).reshape(pixels)
    waves = _reals(spectra).reshape(-1, patterns, 2 * pixels)
    numbers = np.float32(offset), np.float32(darkest), is_poisson
    _scale(waves, flat, good, dark, *numbers, model, residual)
    if not with_value:
        return 0.0
    logs = residual
    if is_poisson:  # log1p of numba is no vector instruction
        logs = torch.from_numpy(residual).neg().clamp_min_(least_excess).log1p_().numpy()
    return float(_sum(model, flat, residual, logs, good, np.float32(offset), is_poisson))


def _reals(values: Complex[Tensor, "*any"]) -> Float[np.ndarray, " reals"]:
    """Return complex numbers as real ones, two in turn, in the same memory."""
    return torch.view_as_real(values).view(-1).numpy()  # an error, and no copy, if they lie apart


def _lines(waves: Complex[Tensor, "*modes part n n"]) -> Float[np.ndarray, "modes part n reals"]:
    """Return waves of every mode as real numbers, row by row, in the same memory."""
    part, side = waves.shape[-3], waves.shape[-1]
    return _reals(waves).reshape(-1, part, side, 2 * side)
