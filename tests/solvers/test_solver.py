"""The solver: true gradients, exact recovery, honest stops, and a word for every bad input."""

import pickle
from dataclasses import replace

import numpy as np
import pytest
import torch

from study_lib.errors import InputError
from study_lib.physics.forward import exit_waves, expected_counts, illumination
from study_lib.solvers.checks import require_solvable
from study_lib.solvers.pattern_model import PatternModel
from study_lib.solvers.solver import SolverSettings, solve
from study_lib.solvers.steps import object_step, total_variation

SIDE = 16
SHAPE = (46, 42)
DOSE = 1e5


@pytest.fixture(autouse=True)
def _one_thread():
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.fixture
def bright(probe) -> torch.Tensor:
    """The lopsided probe with the light of one dose."""
    return probe * torch.sqrt(DOSE / (probe.abs() ** 2).sum())


@pytest.fixture
def specimen() -> torch.Tensor:
    """Slow phase without symmetry, a bar, some absorption."""
    y, x = np.mgrid[: SHAPE[0], : SHAPE[1]]
    phase = 0.5 * np.sin(y / 6 + x / 11) + 0.3 * np.cos(x / 4 - y / 13)
    phase += 0.5 * ((y > 15) & (y < 20) & (x > 12) & (x < 30))
    return torch.from_numpy((0.9 - 0.1 * np.sin(x / 5)) * np.exp(1j * phase))


@pytest.fixture
def places(rng) -> torch.Tensor:
    """A jittered raster of 2.5 pixels: neighbours overlap well."""
    rows, columns = np.meshgrid(np.arange(9, 37, 2.5), np.arange(9, 33, 2.5), indexing="ij")
    grid = np.stack([rows.ravel(), columns.ravel()], axis=1)
    return torch.from_numpy(grid + rng.uniform(-0.8, 0.8, grid.shape))


@pytest.fixture
def scan(bright, specimen, places) -> dict:
    """The arguments of a noise-free reconstruction."""
    counts = expected_counts(exit_waves(bright, specimen, places))
    return {
        "amplitudes": counts.sqrt().numpy().astype(np.float32),
        "positions_px": places.numpy(),
        "probe": bright.numpy(),
        "object_shape": SHAPE,
    }


@pytest.fixture
def noisy(scan, rng) -> dict:
    """The same with counted photons, a hundredth as many."""
    counts = rng.poisson(scan["amplitudes"].astype(np.float64) ** 2 / 100)
    amplitudes = np.sqrt(counts).astype(np.float32)
    return scan | {"amplitudes": amplitudes, "probe": scan["probe"] / 10}


def lit_error(found: np.ndarray, specimen: torch.Tensor, scan: dict) -> float:
    """Return the light-weighted relative error of an object, up to one phase."""
    truth = specimen.numpy()
    light = illumination(
        torch.from_numpy(scan["probe"]), torch.from_numpy(scan["positions_px"]), SHAPE
    ).numpy()
    overlap = (light * found.conj() * truth).sum()
    difference = found * overlap / np.abs(overlap) - truth
    return float(
        np.sqrt((light * np.abs(difference) ** 2).sum() / (light * np.abs(truth) ** 2).sum())
    )


def model_of(scan: dict, objective: str, *, scored=None, held_out=None, chunk: int = 7):
    nothing = torch.zeros(SIDE, SIDE, dtype=torch.bool)
    return PatternModel(
        amplitudes=torch.from_numpy(scan["amplitudes"].astype(np.float64)),
        positions_px=torch.from_numpy(scan["positions_px"]),
        scored=~nothing if scored is None else scored,
        held_out=nothing if held_out is None else held_out,
        objective=objective,
        offset=0.1,
        chunk=chunk,
        stored_bytes=2**30,
    )


# --- gradients


def objective_by_definition(name, object_, probe, scan, scored):
    """The textbook sums, through the project's forward model."""
    expected = expected_counts(exit_waves(probe, object_, torch.from_numpy(scan["positions_px"])))
    roots = torch.from_numpy(scan["amplitudes"].astype(np.float64))
    if name == "amplitude":
        terms = (expected.sqrt() - roots) ** 2
    else:
        model, counts = expected + 0.1, roots**2 + 0.1
        some = model - counts + counts * torch.log(counts / model)
        terms = torch.where(roots > 0, some, expected)
    return (terms * scored).sum()


@pytest.mark.parametrize("name", ["amplitude", "poisson"])
def test_gradients_are_those_of_the_definition(name, noisy, specimen, rng):
    """Automatic differentiation of the forward model, with bad pixels and a lopsided probe."""
    scored = torch.from_numpy(rng.random((SIDE, SIDE)) > 0.1)
    model = model_of(noisy, name, scored=scored)
    row, column = model.first_px.tolist()
    box = (slice(row, row + model.box[0]), slice(column, column + model.box[1]))
    object_ = (specimen * torch.from_numpy(rng.uniform(0.8, 1.2, SHAPE))).requires_grad_()
    probe = torch.from_numpy(noisy["probe"]).requires_grad_()

    loss = objective_by_definition(name, object_, probe, noisy, scored)
    loss.backward()
    found = model.run(
        object_.detach()[box].flatten(),
        probe.detach(),
        torch.from_numpy(noisy["positions_px"]),
        refine_probe=True,
    )

    assert found.objective == pytest.approx(float(loss.detach()) / model.scored_pixels, rel=1e-10)
    expected = object_.grad[box].flatten() / 2
    torch.testing.assert_close(found.object_gradient, expected, rtol=1e-8, atol=1e-9)
    torch.testing.assert_close(found.probe_gradient, probe.grad / 2, rtol=1e-8, atol=1e-9)


def test_position_steps_follow_the_slope(scan, specimen, places, rng):
    """Each pattern's step is downhill, by finite differences, and towards its true place."""
    errors = torch.from_numpy(rng.uniform(-0.15, 0.15, places.shape))
    model = model_of(scan, "amplitude")
    row, column = model.first_px.tolist()
    object_ = specimen[row : row + model.box[0], column : column + model.box[1]].flatten()
    probe = torch.from_numpy(scan["probe"])

    found = model.run(object_, probe, places + errors, refine_positions=True)
    after = model.run(object_, probe, places + errors + 1e-3 * found.position_steps_px)

    assert after.objective < found.objective
    left = errors + found.position_steps_px
    assert float(left.norm()) < 0.5 * float(errors.norm())


def test_total_variation_has_the_gradient_of_its_value(specimen, rng):
    change = torch.from_numpy(rng.standard_normal((2, *SHAPE)) * 1e-6)
    change = torch.complex(change[0], change[1]).flatten()

    _, gradient = total_variation(specimen.flatten(), SHAPE)
    moved, _ = total_variation(specimen.flatten() + change, SHAPE)
    back, _ = total_variation(specimen.flatten() - change, SHAPE)

    slope = 2 * float(torch.vdot(gradient, change).real)
    assert (moved - back) / 2 == pytest.approx(slope, rel=1e-5)


def test_a_unit_step_never_raises_the_amplitude_objective(noisy):
    """Without momentum and slow phases the squared distance falls in every epoch."""
    settings = SolverSettings(
        epochs=40,
        objective="amplitude",
        momentum=0.0,
        slow_phase=0.0,
        damping=1e-3,
        tolerance=0.0,
    )

    losses = solve(**noisy, settings=settings).losses

    assert (np.diff(losses) <= 1e-6 * losses[:-1]).all()


def test_slow_phases_take_longer_steps_and_nothing_else_does():
    """A slow phase of the gradient grows, slow modulus and fast phase stay."""
    y, x = torch.meshgrid(torch.arange(64), torch.arange(64), indexing="ij")
    slow, fast = torch.cos(2 * torch.pi * y / 64), torch.cos(2 * torch.pi * x / 4)
    ones = torch.ones(64 * 64, dtype=torch.complex64)

    def gain(gradient):
        flat = gradient.flatten().to(torch.complex64)
        step = object_step(
            ones, flat, ones.real * 3, box=(64, 64), damping=0.1, corner_per_px=1 / 32
        )
        return float((step * 3).abs().max() / flat.abs().max())

    assert gain(1j * slow) == pytest.approx(1 + 4 / 1.04, rel=0.05)
    assert gain(slow) == pytest.approx(1, rel=1e-4)
    assert gain(1j * fast) == pytest.approx(1, rel=0.02)


# --- what it finds


@pytest.mark.parametrize("looped_from", [0, 2**40])
@pytest.mark.slow
@pytest.mark.parametrize("objective", ["amplitude", "poisson"])
def test_noise_free_patterns_give_the_object_back(
    scan, specimen, monkeypatch, objective, looped_from
):
    """By torch alone, and by compiled loops."""
    monkeypatch.setattr("study_lib.solvers.pattern_model.LOOPED_FROM", looped_from)
    settings = SolverSettings(
        epochs=800, objective=objective, tolerance=0.0, momentum=0.99, damping=0.01
    )

    found = solve(**scan, settings=settings)

    assert lit_error(found.object_, specimen, scan) < 2e-4
    assert found.losses[-1] < 1e-7 * found.losses[0]
    assert found.probe.tobytes() == scan["probe"].astype(np.complex64).tobytes()


def test_objective_falls_and_says_it_converged(noisy):
    reports = []

    found = solve(**noisy, progress=lambda *step: reports.append(step))

    assert found.stop == "converged"
    assert len(found.losses) == len(found.wall_s) == len(found.cpu_s) < 100
    assert found.losses[-1] < 0.5 * found.losses[0]
    assert np.mean(np.diff(found.losses) <= 0) > 0.8
    assert reports == [(epoch + 1, 100, loss) for epoch, loss in enumerate(found.losses)]
    assert found.object_.dtype == found.probe.dtype == np.complex64
    assert found.remarks == ()


@pytest.mark.parametrize("chunk", [0, 1, 7, 1000])
def test_uniform_start_has_as_many_photons_as_were_counted(scan, chunk):
    """An absorbing plate is found at once."""
    half = scan | {"amplitudes": expected_counts(torch.from_numpy(scan["probe"])).sqrt() * 0.5}
    half["amplitudes"] = np.repeat(
        half["amplitudes"].numpy()[None].astype(np.float32), len(scan["positions_px"]), axis=0
    )

    found = solve(**half, settings=SolverSettings(epochs=1, chunk=chunk))

    assert found.losses[0] < 1e-6
    assert np.abs(found.object_[20, 20]) == pytest.approx(0.5, rel=1e-4)


def test_an_overstated_first_step_is_taken_back(scan, monkeypatch):
    """Steps far too long are halved until the objective falls; nothing diverges."""
    monkeypatch.setattr("study_lib.solvers.steps.SLOW_GAIN_MAX", 1e6)

    found = solve(**scan, settings=SolverSettings(epochs=60, slow_phase=4.0, tolerance=0.0))

    assert found.state.step < 1
    assert min(found.losses) < 0.5 * found.losses[0]
    assert np.isfinite(found.object_).all()


def test_bad_pixels_have_no_say(noisy, rng):
    bad = rng.random((SIDE, SIDE)) > 0.9
    spoilt = noisy["amplitudes"].copy()
    spoilt[:, bad] = 300.0

    clean = solve(**noisy, bad_pixels=bad)
    found = solve(**noisy | {"amplitudes": spoilt}, bad_pixels=bad)

    assert found.object_.tobytes() == clean.object_.tobytes()


@pytest.mark.slow
def test_unknown_probe_is_found(scan, specimen, rng):
    """A probe with wrong defocus and shape: patterns are explained, up to one complex factor."""
    y, x = np.indices((SIDE, SIDE)) - SIDE / 2
    wrong = scan["probe"] * np.exp(0.02j * (y**2 + x * y)) * (1 + 0.03 * x)
    settings = SolverSettings(epochs=300, tolerance=0.0, refine_probe=True)

    fixed = solve(**scan | {"probe": wrong}, settings=replace(settings, refine_probe=False))
    found = solve(**scan | {"probe": wrong}, settings=settings)

    def distance(probe):
        overlap = np.abs(np.vdot(probe, scan["probe"]))
        return 1 - overlap / np.linalg.norm(probe) / np.linalg.norm(scan["probe"])

    assert found.losses[-1] < 1e-2 * fixed.losses[-1]
    assert distance(found.probe) < 0.05 * distance(wrong)


@pytest.mark.slow
def test_wrong_positions_are_put_right(specimen, places, rng):
    """Inside the scan, up to what a stretched object explains too; a compact probe shows it."""
    y, x = np.indices((SIDE, SIDE)) - SIDE / 2
    phase = 0.12 * y**2 + 0.2 * x**2 + 0.1 * x * y
    wave = 60 * np.exp(-((y - 0.6) ** 2) / 7 - (x + 0.4) ** 2 / 5 + 1j * phase)
    truth = places.numpy()
    errors = rng.uniform(-0.5, 0.5, truth.shape)
    counts = expected_counts(exit_waves(torch.from_numpy(wave), specimen, places))

    found = solve(
        amplitudes=counts.sqrt().numpy().astype(np.float32),
        positions_px=truth + errors,
        probe=wave,
        object_shape=SHAPE,
        settings=SolverSettings(epochs=150, tolerance=0.0, damping=0.02, refine_positions=True),
    )

    stretches = np.column_stack([np.ones(len(truth)), truth])
    left = found.positions_px - truth
    left -= stretches @ np.linalg.lstsq(stretches, left)[0]
    inside = (truth > 12).all(axis=1) & (truth < (34, 29)).all(axis=1)
    assert np.abs(left[inside]).mean() < 0.3 * np.abs(errors[inside]).mean()
    assert found.losses[-1] < 1e-2 * found.losses[9]
    mean = (truth + errors).mean(axis=0)
    assert found.positions_px.mean(axis=0) == pytest.approx(mean, abs=1e-5)


def test_total_variation_smooths(noisy):
    rough = solve(**noisy)
    smooth = solve(**noisy, settings=SolverSettings(total_variation=20.0))

    def jumps(object_):
        return np.abs(np.diff(object_[15:30, 15:27], axis=0)).mean()

    assert jumps(smooth.object_) < 0.8 * jumps(rough.object_)


# --- when it stops


def test_held_out_counts_stop_it(noisy):
    """Few photons: after a while only their noise is fitted. The best object so far is returned."""
    dim = noisy | {
        "amplitudes": np.sqrt(
            np.random.default_rng(1).poisson(noisy["amplitudes"] ** 2 / 20)
        ).astype(np.float32),
        "probe": noisy["probe"] / np.sqrt(20),
    }
    settings = SolverSettings(held_out_share=0.05, tolerance=0.0, patience=6)

    found = solve(**dim, settings=settings)

    best = int(np.argmin(found.held_out))
    assert found.stop == "held-out counts rose"
    assert len(found.held_out) == len(found.losses) == best + 1 + 6
    again = solve(**dim, settings=replace(settings, epochs=best + 1))
    assert len(again.held_out) == best + 1
    assert found.object_.tobytes() != again.object_.tobytes(), "one step further than its best"


def test_held_out_pixels_are_not_fitted(noisy):
    """What the objective does not see may be anything."""
    settings = SolverSettings(held_out_share=0.1, epochs=5, tolerance=0.0)
    draw = torch.rand(SIDE, SIDE, generator=torch.Generator().manual_seed(0)).numpy()
    other = noisy["amplitudes"].copy()
    other[:, draw < 0.1] = 0

    start = solve(**noisy, settings=settings)
    found = solve(**noisy | {"amplitudes": other}, settings=settings)

    np.testing.assert_allclose(np.abs(found.object_), np.abs(start.object_), rtol=1e-6)
    assert not np.allclose(found.held_out, start.held_out)


def test_epochs_used_up(noisy):
    assert solve(**noisy, settings=SolverSettings(epochs=2)).stop == "epochs used up"


# --- the same numbers, whichever way


@pytest.mark.parametrize("chunk", [1, 33, 1000])
@pytest.mark.parametrize("stored_bytes", [0, 2**30])
def test_chunks_and_kept_probes_change_nothing(noisy, chunk, stored_bytes):
    settings = SolverSettings(epochs=8, tolerance=0.0)
    other = replace(settings, chunk=chunk, stored_bytes=stored_bytes)

    found = solve(**noisy, settings=settings)
    again = solve(**noisy, settings=other)

    np.testing.assert_allclose(again.object_, found.object_, atol=2e-5)
    np.testing.assert_allclose(again.losses, found.losses, rtol=1e-5)


@pytest.mark.parametrize("unknown", [{}, {"refine_probe": True, "refine_positions": True}])
def test_resuming_is_as_never_interrupted(noisy, unknown):
    whole = SolverSettings(epochs=16, tolerance=0.0, held_out_share=0.05, patience=50, **unknown)

    at_once = solve(**noisy, settings=whole)
    first = solve(**noisy, settings=replace(whole, epochs=7))
    state = pickle.loads(pickle.dumps(first.state))
    resumed = solve(**noisy, settings=whole, resume=state)

    assert resumed.object_.tobytes() == at_once.object_.tobytes()
    assert resumed.probe.tobytes() == at_once.probe.tobytes()
    assert resumed.positions_px.tobytes() == at_once.positions_px.tobytes()
    assert resumed.losses.tobytes() == at_once.losses.tobytes()
    assert len(resumed.cpu_s) == 16


def test_the_same_seed_gives_the_same_bytes(noisy):
    settings = SolverSettings(epochs=4, held_out_share=0.1)

    first, again = (solve(**noisy, settings=settings) for _ in range(2))
    other = solve(**noisy, settings=replace(settings, seed=1))

    assert first.object_.tobytes() == again.object_.tobytes()
    assert first.object_.tobytes() != other.object_.tobytes()


def test_inputs_stay_as_they_were(noisy):
    before = {name: np.array(value).tobytes() for name, value in noisy.items()}

    solve(**noisy, settings=SolverSettings(epochs=2, refine_probe=True))

    assert before == {name: np.array(value).tobytes() for name, value in noisy.items()}


@pytest.mark.parametrize("side", [15, 16])
def test_an_odd_side_is_solved_too(side, rng):
    y, x = np.indices((side, side)) - side // 2
    wave = 100 * np.exp(-((y - 1) ** 2) / 10 - x**2 / 14 + 0.1j * x * y)
    positions = np.stack(np.meshgrid(np.arange(9, 25, 2.3), np.arange(9, 25, 2.3)), -1)
    positions = positions.reshape(-1, 2)
    truth = np.exp(0.5j * np.sin(np.add.outer(np.arange(34) / 3, np.arange(34) / 5)))
    counts = expected_counts(
        exit_waves(torch.from_numpy(wave), torch.from_numpy(truth), torch.from_numpy(positions))
    )

    found = solve(
        amplitudes=counts.sqrt().numpy().astype(np.float32),
        positions_px=positions,
        probe=wave,
        object_shape=(34, 34),
        settings=SolverSettings(epochs=200, tolerance=0.0, damping=0.03),
    )

    assert found.losses[-1] < 1e-5 * found.losses[0]


# --- bad input


def changed(array: np.ndarray, index: tuple, value: float) -> np.ndarray:
    array = array.copy()
    array[index] = value
    return array


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (
            lambda s: {"amplitudes": s["amplitudes"][:0], "positions_px": s["positions_px"][:0]},
            "at least one",
        ),
        (lambda s: {"amplitudes": s["amplitudes"][:, :8]}, "amplitudes have shape"),
        (lambda s: {"positions_px": s["positions_px"][:3]}, "one .row, column. per pattern"),
        (lambda s: {"amplitudes": 0 * s["amplitudes"]}, "none of the .* patterns has a count"),
        (lambda s: {"amplitudes": changed(s["amplitudes"], (3, 1, 1), np.nan)}, "pattern 3 of"),
        (lambda s: {"amplitudes": changed(s["amplitudes"], (3, 1, 1), -1)}, "pattern 3 of"),
        (lambda s: {"positions_px": changed(s["positions_px"], (2, 0), np.nan)}, "pattern 2 of"),
        (lambda s: {"positions_px": changed(s["positions_px"], (2, 0), 400)}, "leaves the object"),
        (lambda s: {"probe": 0 * s["probe"]}, "zero everywhere"),
        (lambda s: {"probe": changed(s["probe"], (0, 0), np.inf)}, "not finite"),
        (lambda s: {"probe": s["probe"][:8]}, "square"),
        (lambda s: {"bad_pixels": np.ones((SIDE, SIDE), bool)}, "are bad"),
        (lambda s: {"bad_pixels": np.zeros((4, 4), bool)}, "one mask"),
    ],
)
def test_what_cannot_be_solved_is_refused(noisy, change, message):
    with pytest.raises(InputError, match=message):
        require_solvable(**{"bad_pixels": None} | noisy | change(noisy))


@pytest.mark.parametrize("at_once", [1, 2, 3, 100])
def test_the_first_bad_pattern_is_named_however_many_are_checked_at_once(
    noisy, monkeypatch, at_once
):
    monkeypatch.setattr("study_lib.solvers.checks.CHECKED", at_once)
    amplitudes = noisy["amplitudes"].copy()
    amplitudes[5, 0, 0], amplitudes[7, 1, 1] = -1, np.inf

    with pytest.raises(InputError, match=f"amplitudes: pattern 5 of {len(amplitudes)} has"):
        require_solvable(**{"bad_pixels": None} | noisy | {"amplitudes": amplitudes})


@pytest.mark.parametrize(
    ("setting", "message"),
    [
        ({"epochs": 0}, "epochs is 0"),
        ({"damping": 0.0}, "damping is 0"),
        ({"damping": float("nan")}, "damping is nan"),
        ({"device": "tpu"}, "cpu or cuda"),
        ({"held_out_share": 0.9}, "held_out_share is 0.9"),
    ],
)
def test_settings_out_of_range_are_refused(setting, message):
    with pytest.raises(InputError, match=message):
        SolverSettings(**setting)


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU here")
def test_a_gpu_that_is_not_there_is_refused():
    with pytest.raises(InputError, match="no GPU here; choose cpu"):
        SolverSettings(device="cuda")


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
def test_a_gpu_finds_the_same_object(noisy):
    here, there = (
        solve(**noisy, settings=SolverSettings(epochs=8, tolerance=0.0, device=device))
        for device in ("cpu", "cuda")
    )

    np.testing.assert_allclose(there.object_, here.object_, atol=1e-3)


def test_a_state_of_other_patterns_is_refused(noisy):
    state = solve(**noisy, settings=SolverSettings(epochs=1)).state
    fewer = noisy | {name: noisy[name][:50] for name in ("amplitudes", "positions_px")}

    with pytest.raises(InputError, match="state to resume"):
        solve(**fewer, resume=state)


def test_isolated_patterns_are_remarked_on(noisy):
    """One pattern, or two that share no light, end in a finite result with a remark."""
    one = noisy | {name: noisy[name][:1] for name in ("amplitudes", "positions_px")}
    apart = noisy | {name: noisy[name][[0, -1]] for name in ("amplitudes", "positions_px")}

    for some, text in ((one, "1 of 1 patterns"), (apart, "2 of 2 patterns")):
        found = solve(**some)
        assert np.isfinite(found.object_).all()
        assert text in found.remarks[0]


@pytest.mark.parametrize("scale", [1e-6, 1e6])
@pytest.mark.parametrize("objective", ["amplitude", "poisson"])
def test_a_probe_of_any_scale_gives_a_finite_object(noisy, objective, scale):
    found = solve(
        **noisy | {"probe": noisy["probe"] * scale},
        settings=SolverSettings(epochs=20, objective=objective),
    )

    assert np.isfinite(found.object_).all()
    assert np.abs(found.object_[20, 20]) == pytest.approx(0.9 / scale, rel=0.5)


# --- machines


def test_another_number_of_threads_changes_no_more_than_rounding(noisy, specimen):
    """Sums in another order differ in the last digits; the image does not."""
    objects = []
    for threads in (1, 2):
        torch.set_num_threads(threads)
        objects.append(solve(**noisy, settings=SolverSettings(epochs=15)).object_)

    one, two = objects
    difference = lit_error(two, torch.from_numpy(one), noisy)
    assert difference < 0.01 * lit_error(one, specimen, noisy)
