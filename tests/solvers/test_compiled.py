"""The solver's compiled loops: an adjoint pair, and objective and gradient by definition."""

import os
import subprocess
import sys

import numba
import numpy as np
import pytest
import torch

from study_lib.physics.forward import patterns_expected
from study_lib.solvers import compiled, pattern_model
from study_lib.solvers.pattern_model import OBJECTIVES, PatternModel, can_loop
from study_lib.system import own_code_only

SIDE, SHAPE, OFFSET = 16, (40, 37), 0.05


@pytest.fixture
def places(rng) -> torch.Tensor:
    """Sub-pixel centres of 23 patches, so that the last chunk of 8 is not full."""
    return torch.from_numpy(rng.uniform(SIDE / 2, np.array(SHAPE) - SIDE / 2, (23, 2)))


def lopsided(rng, *shape: int) -> torch.Tensor:
    """Return complex numbers without any symmetry, brighter on one side."""
    y, x = np.mgrid[:SIDE, :SIDE]
    spot = np.exp(-((y - 6) ** 2 + 1.5 * (x - 9) ** 2) / 20 + 0.3j * y - 0.02j * x * y)
    noise = rng.standard_normal((*shape, SIDE, SIDE)) + 1j * rng.standard_normal((SIDE, SIDE))
    return torch.from_numpy(spot * (1 + 0.2 * noise))


@pytest.mark.parametrize("modes", [(), (3,)])
def test_adding_back_is_the_adjoint_of_exit_waves(rng, modes):
    """<exit_waves(o), w> = <o, add_back(w)> for any w, though patches overlap."""
    width, patterns = 30, 5
    corners = torch.from_numpy(rng.integers(0, 12 * width, patterns).astype(np.int32))
    object_ = torch.view_as_complex(torch.from_numpy(rng.standard_normal((28 * width, 2))))
    object_ = object_.to(torch.complex64)
    probes = lopsided(rng, *modes, patterns).to(torch.complex64)
    waves = lopsided(rng, *modes, patterns).flip(-1).contiguous().to(torch.complex64)
    back = torch.zeros_like(object_)

    found = compiled.exit_waves(object_, probes, corners, width)
    compiled.add_back(back, probes, corners, width, waves)

    one = torch.vdot(found.flatten().cdouble(), waves.flatten().cdouble())
    other = torch.vdot(object_.cdouble(), back.cdouble())
    assert abs(one - other) < 1e-5 * abs(one)


def by_definition(name, object_, probe, places, roots, scored, dark):
    """The textbook sums in double precision, through the project's forward model."""
    expected = patterns_expected(probe, object_, places, dark)
    if name == "amplitude":
        return (scored * (expected.sqrt() - roots) ** 2).sum()
    model, counts = expected + OFFSET, roots**2 + OFFSET
    some = model - counts + counts * torch.log(counts / model)
    return (scored * torch.where(roots > 0, some, expected)).sum()


@pytest.mark.parametrize("masks", ["none", "one", "each"])
@pytest.mark.parametrize("modes", [(), (2,)])
@pytest.mark.parametrize("objective", OBJECTIVES)
def test_value_and_gradient_are_those_of_the_definition(
    rng, places, monkeypatch, objective, modes, masks
):
    probe = 3 * lopsided(rng, *modes)
    object_ = torch.from_numpy(rng.uniform(0.6, 1.0, SHAPE) * np.exp(1j * rng.uniform(0, 1, SHAPE)))
    dark = torch.from_numpy(rng.uniform(0.1, 0.4, (SIDE, SIDE)))
    roots = torch.from_numpy(
        np.sqrt(rng.poisson(patterns_expected(probe, object_, places, dark).numpy()))
    )
    shape = {"none": (SIDE, SIDE), "one": (SIDE, SIDE), "each": (len(places), SIDE, SIDE)}[masks]
    scored = torch.from_numpy(rng.random(shape) > (0.2 if masks != "none" else -1))
    at = (object_ * torch.from_numpy(rng.uniform(0.8, 1.2, SHAPE))).requires_grad_()
    by_definition(objective, at, probe, places, roots, scored, dark).backward()
    model = PatternModel(
        amplitudes=roots.float(),
        positions_px=places,
        scored=scored,
        held_out=torch.zeros_like(scored),
        objective=objective,
        offset=OFFSET,
        chunk=8,
        stored_bytes=2**20,
    )
    row, column = model.first_px.tolist()
    box = (slice(row, row + model.box[0]), slice(column, column + model.box[1]))
    flat = at.detach()[box].flatten().to(torch.complex64)
    monkeypatch.setattr(pattern_model, "LOOPED_FROM", 0)
    assert can_loop(flat, model.amplitudes)

    given = flat, probe.to(torch.complex64), places, dark.float()
    found, alone = model.run(*given), model.object_gradient(*given)

    value = float(by_definition(objective, at.detach(), probe, places, roots, scored, dark))
    expected = at.grad[box].flatten() / 2  # torch's is of both parts: twice the derivative to z*
    assert found.objective == pytest.approx(value / model.scored_pixels, rel=2e-5)
    for gradient in (found.object_gradient, alone):
        assert (gradient - expected).abs().max() < 1e-5 * expected.abs().max()


@pytest.mark.parametrize("masked", [False, True])
def test_rounding_is_that_of_the_excess_and_not_of_the_counts(rng, masked):
    """1e5 photons on every pixel, a model off by a thousandth of that: half the square is left."""
    roots = np.sqrt(rng.uniform(0.8e5, 1.2e5, (3, SIDE, SIDE))).astype(np.float32)
    moduli = (roots * np.sqrt(1 + 1e-3 * rng.standard_normal(roots.shape))).astype(np.float32)
    counts, model = (one.astype(np.float64) ** 2 for one in (roots, moduli))
    excess, smaller = model - counts, counts + OFFSET
    terms = excess - smaller * np.log1p(excess / smaller)
    waves = torch.complex(torch.from_numpy(moduli), torch.zeros(3, SIDE, SIDE))

    found = compiled.scale_by_residual(
        waves,
        torch.from_numpy(roots),
        torch.ones(SIDE, SIDE) if masked else None,
        None,
        is_poisson=True,
        offset=OFFSET,
        darkest=1e-12,
        with_value=True,
        least_excess=-1 + 2**-23,
    )

    assert found == pytest.approx(terms.sum(), rel=1e-2)
    np.testing.assert_allclose(waves.real, moduli * excess / (model + OFFSET), atol=1e-3)


def test_where_a_model_predicts_next_to_nothing_the_value_stays_finite():
    """Pixels with and without counts; without any, the whole expectation counts."""
    spectra = torch.full((1, 4, 4), 1e-12, dtype=torch.complex64)
    roots = torch.zeros(1, 4, 4)
    roots[0, 0, 0] = 1e4
    settings = {"is_poisson": True, "offset": OFFSET, "darkest": 1e-12, "least_excess": -1 + 2**-23}

    bright = compiled.scale_by_residual(spectra, roots, None, None, with_value=True, **settings)
    dim = torch.full((1, 4, 4), 0.5 + 0.5j)
    none = compiled.scale_by_residual(
        dim, torch.zeros(1, 4, 4), None, None, with_value=True, **settings
    )

    assert np.isfinite(bright)
    assert bright > 1e8
    assert bool(torch.isfinite(torch.view_as_real(spectra)).all())
    assert none == pytest.approx(16 * 0.5)


def test_a_loop_that_cannot_be_kept_is_compiled_all_the_same(monkeypatch):
    """A library that cannot be written to, of a user without a folder for caches."""
    compile_ = numba.njit

    def read_only(*loop, cache=False, **settings):
        if cache:
            raise RuntimeError("cannot cache function: no locator available")
        return compile_(*loop, **settings)

    monkeypatch.setattr(numba, "njit", read_only)

    def twice(values):
        total = 0.0
        for value in values:
            total += 2 * value
        return total

    assert compiled.compiled(twice)(np.array([1.0, 2.0])) == 6.0


LOOKS_FOR_SETTINGS = (
    "from numba.core import config; config.reload_config(); print(config.DISABLE_JIT)"
)


def test_settings_of_numba_in_the_working_folder_are_not_read(tmp_path):
    """Loops would be other machine code in a folder from somebody else."""
    (tmp_path / ".numba_config.yaml").write_text("disable_jit: 1\n")
    ours = f"import study_lib.solvers.compiled; {LOOKS_FOR_SETTINGS}"
    found = [
        subprocess.run(
            [sys.executable, "-c", code],
            cwd=tmp_path,
            env=os.environ | own_code_only(),
            capture_output=True,
            text=True,
            check=True,
        ).stdout.strip()
        for code in (LOOKS_FOR_SETTINGS, ours)
    ]

    assert found[0] == "1", "numba reads them by itself"
    assert found[1] == "0"
