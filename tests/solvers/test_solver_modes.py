"""The solver with incoherent modes, a background and masks of each pattern: laws, then recovery."""

import numpy as np
import pytest
import torch
from scipy.stats import unitary_group
from simulated_scan import Scan

from study_lib.errors import InputError
from study_lib.physics.forward import patterns_expected, probe_power
from study_lib.physics.likelihood import pattern_residuals
from study_lib.physics.measurement import Measurement
from study_lib.physics.probe import mode_shares, power_of, with_more_modes
from study_lib.solvers.alternating import alternate
from study_lib.solvers.checks import require_solvable
from study_lib.solvers.denoising import LitPart
from study_lib.solvers.pattern_model import PatternModel
from study_lib.solvers.solver import SolverSettings, solve, solve_measurement

SIDE = 16
SHAPE = (46, 42)
DOSE = 1e5
OBJECTIVES = pytest.mark.parametrize("objective", ["amplitude", "poisson"])


@pytest.fixture(autouse=True)
def _one_thread():
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.fixture
def light(modes) -> torch.Tensor:
    """Three lopsided modes with the light of one dose."""
    return modes * torch.sqrt(DOSE / probe_power(modes).sum())


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
def background(rng) -> np.ndarray:
    return rng.uniform(0, 200, (SIDE, SIDE)).astype(np.float32)


@pytest.fixture
def masks(rng, places) -> np.ndarray:
    return rng.random((len(places), SIDE, SIDE)) < 0.1


@pytest.fixture
def scan(light, specimen, places, background, masks) -> dict:
    """The arguments of a noise-free reconstruction; what stands on bad pixels is wrong."""
    dark = torch.from_numpy(background).double()
    expected = patterns_expected(light, specimen, places, dark).numpy()
    expected[masks] = 1e6
    return {
        "amplitudes": np.sqrt(expected).astype(np.float32),
        "positions_px": places.numpy(),
        "probe": light.numpy(),
        "object_shape": SHAPE,
        "bad_pixels": masks,
        "background": background,
    }


def model_of(scan: dict, objective: str = "poisson", held_out: np.ndarray | None = None):
    """Return a model of patterns in double precision, for exact differences."""
    good = torch.from_numpy(~scan["bad_pixels"])
    held = torch.zeros_like(good) if held_out is None else good & torch.from_numpy(held_out)
    return PatternModel(
        amplitudes=torch.from_numpy(scan["amplitudes"]).double(),
        positions_px=torch.from_numpy(scan["positions_px"]),
        scored=good & ~held,
        held_out=held,
        objective=objective,
        offset=0.02,
        chunk=20,
        stored_bytes=0,
    )


def phase_error_rad(found: np.ndarray, truth: torch.Tensor) -> float:
    """Return the error in the middle of the scan, apart from a constant and a ramp."""
    middle = np.s_[14:32, 14:28]
    difference = np.angle(found[middle] * truth.numpy()[middle].conj())
    y, x = np.indices(difference.shape)
    basis = np.stack([np.ones(difference.size), y.ravel(), x.ravel()], axis=1)
    centred = np.angle(np.exp(1j * (difference - np.median(difference)))).ravel()
    fitted, *_ = np.linalg.lstsq(basis, centred, rcond=None)
    return float(np.sqrt(np.mean((centred - basis @ fitted) ** 2)))


# --- Laws


@OBJECTIVES
@pytest.mark.parametrize("name", ["object", "probe"])
def test_gradients_are_those_of_the_definition(objective, name, scan, specimen, rng):
    """Central differences along a random change, at a place that is no minimum."""
    model = model_of(scan, objective)
    scale = model.scored_pixels
    row, column = model.first_px.tolist()
    box = specimen[row : row + model.box[0], column : column + model.box[1]]
    shapes = {"object": (box.numel(),), "probe": scan["probe"].shape}
    change = torch.from_numpy(rng.standard_normal(shapes[name]))
    change = change + 1j * torch.from_numpy(rng.standard_normal(shapes[name]))
    at = {
        "object": 0.9 * box.flatten() * torch.from_numpy(np.exp(0.1j * rng.standard_normal(1))),
        "probe": 1.1 * torch.from_numpy(scan["probe"]),
        "background": 0.7 * torch.from_numpy(scan["background"]).double(),
    }
    places = torch.from_numpy(scan["positions_px"])

    def objective_at(step: float) -> float:
        moved = at | {name: at[name] + step * change}
        return model.run(moved["object"], moved["probe"], places, moved["background"]).objective

    found = model.run(
        at["object"],
        at["probe"],
        places,
        at["background"],
        refine_probe=True,
        refine_background=True,
    )
    step = {"object": 1e-5, "probe": 1e-3}[name]
    slope = scale * (objective_at(step) - objective_at(-step)) / (2 * step)

    gradient = found.object_gradient if name == "object" else found.probe_gradient
    expected = 2 * float(torch.vdot(gradient.flatten(), change.flatten()).real)
    assert slope == pytest.approx(expected, rel=2e-5)
    alone = model.object_gradient(at["object"], at["probe"], places, at["background"])
    assert torch.equal(alone, found.object_gradient)


@OBJECTIVES
def test_a_unitary_mixture_of_modes_changes_no_objective_and_no_object(objective, scan):
    """From a known probe the whole reconstruction is the same."""
    unitary = unitary_group.rvs(3, random_state=4)
    mixed = np.einsum("km,mij->kij", unitary, scan["probe"])
    settings = SolverSettings(objective=objective, epochs=20)

    plain = solve(**scan, settings=settings)
    other = solve(**scan | {"probe": mixed}, settings=settings)

    np.testing.assert_allclose(other.losses, plain.losses, rtol=2e-4)
    np.testing.assert_allclose(other.object_, plain.object_, atol=2e-3)


def test_a_mixture_of_modes_changes_no_refined_light_and_no_position(scan, rng):
    unitary = unitary_group.rvs(3, random_state=4)
    settings = SolverSettings(
        objective="amplitude", epochs=15, refine_probe=True, refine_positions=True, position_start=3
    )
    errors = rng.normal(0, 0.3, scan["positions_px"].shape)
    moved = scan | {"positions_px": scan["positions_px"] + errors}

    plain = solve(**moved, settings=settings)
    mixed = np.einsum("km,mij->kij", unitary, scan["probe"])
    other = solve(**moved | {"probe": mixed}, settings=settings)

    np.testing.assert_allclose(other.positions_px, plain.positions_px, atol=2e-3)
    np.testing.assert_allclose(mode_shares(other.probe), mode_shares(plain.probe), atol=1e-3)
    np.testing.assert_allclose(
        power_of(other.probe), power_of(plain.probe), atol=2e-3 * power_of(plain.probe).max()
    )


@OBJECTIVES
def test_a_dark_mode_changes_nothing(objective, scan):
    dark = np.concatenate([scan["probe"], 0 * scan["probe"][:1]])
    settings = SolverSettings(objective=objective, epochs=10, refine_probe=True)

    plain = solve(**scan, settings=settings)
    other = solve(**scan | {"probe": dark}, settings=settings)

    np.testing.assert_allclose(other.object_, plain.object_, atol=2e-3)
    assert mode_shares(other.probe)[-1] < 1e-9


def test_one_mode_on_an_axis_of_its_own_is_a_coherent_probe(scan):
    one = scan | {"probe": scan["probe"][0], "background": None, "bad_pixels": None}
    settings = SolverSettings(epochs=10, refine_probe=True, refine_positions=True, position_start=2)

    plain = solve(**one, settings=settings)
    other = solve(**one | {"probe": one["probe"][None]}, settings=settings)

    np.testing.assert_allclose(other.object_, plain.object_, atol=1e-4)
    np.testing.assert_allclose(other.positions_px, plain.positions_px, atol=1e-4)


@OBJECTIVES
def test_one_mask_for_all_patterns_is_the_same_as_that_mask_for_each(objective, scan):
    one = scan | {"bad_pixels": scan["bad_pixels"][0]}
    each = scan | {"bad_pixels": np.repeat(scan["bad_pixels"][:1], len(scan["amplitudes"]), axis=0)}
    settings = SolverSettings(
        objective=objective, epochs=12, held_out_share=0.1, refine_positions=True, position_start=4
    )

    first, second = (solve(**part, settings=settings) for part in (one, each))

    np.testing.assert_allclose(second.losses, first.losses, rtol=1e-4)
    np.testing.assert_allclose(second.held_out, first.held_out, rtol=1e-4)
    np.testing.assert_allclose(second.object_, first.object_, atol=1e-3)


def test_bad_pixels_of_each_pattern_have_no_say(scan):
    other = scan | {"amplitudes": np.where(scan["bad_pixels"], 0, scan["amplitudes"])}
    settings = SolverSettings(epochs=8, refine_probe=True, held_out_share=0.1)

    first, second = (solve(**part, settings=settings) for part in (scan, other))

    np.testing.assert_array_equal(second.object_, first.object_)
    np.testing.assert_array_equal(second.held_out, first.held_out)


def test_the_uniform_start_has_the_light_that_the_background_leaves(scan, light):
    """Clear glass: the start is the answer, whatever the masks hide."""
    dark = torch.from_numpy(scan["background"]).double()
    places = torch.from_numpy(scan["positions_px"])
    glass = torch.full(SHAPE, 0.7 + 0j, dtype=torch.complex128)
    clear = patterns_expected(light, glass, places, dark).sqrt().numpy().astype(np.float32)

    found = solve(**scan | {"amplitudes": clear}, settings=SolverSettings(epochs=1))

    assert found.losses[0] == pytest.approx(0, abs=1e-4)


# --- Recovery


@OBJECTIVES
def test_noise_free_patterns_of_modes_give_the_object_back(objective, scan, specimen):
    settings = SolverSettings(objective=objective, epochs=150, tolerance=1e-5)

    found = solve(**scan, settings=settings)

    assert phase_error_rad(found.object_, specimen) < 0.01


@pytest.mark.parametrize("lost", ["probe", "background", "bad_pixels"])
def test_without_a_part_of_the_model_the_object_is_worse(lost, scan, specimen):
    less = {"probe": scan["probe"][:1], "background": None, "bad_pixels": None}[lost]

    full, without = (
        phase_error_rad(solve(**part).object_, specimen) for part in (scan, scan | {lost: less})
    )

    assert without > 2 * full


@pytest.mark.slow
def test_modes_are_found_from_a_single_guess(scan, specimen, light):
    """Two modes are lit, one is known; started beside it, the second gets its power."""
    two = light[:2] * torch.tensor([0.8, 0.2]).sqrt()[:, None, None]
    two = two / (two.abs() ** 2).sum(dim=(1, 2), keepdim=True).sqrt()
    two = two * torch.tensor([0.8 * DOSE, 0.2 * DOSE]).sqrt()[:, None, None]
    places = torch.from_numpy(scan["positions_px"])
    counts = patterns_expected(two, specimen, places)
    guess = (two[0] * DOSE**0.5 / (two[0].abs() ** 2).sum().sqrt()).numpy()
    known = {
        "amplitudes": counts.sqrt().numpy().astype(np.float32),
        "positions_px": scan["positions_px"],
        "object_shape": SHAPE,
    }
    settings = SolverSettings(epochs=150, objective="amplitude", refine_probe=True, tolerance=1e-4)

    single = solve(**known, probe=guess, settings=settings)
    double = solve(**known, probe=with_more_modes(guess, 2, seed=0), settings=settings)

    assert double.losses[-1] < single.losses[-1] / 10
    assert phase_error_rad(double.object_, specimen) < phase_error_rad(single.object_, specimen) / 2
    assert mode_shares(double.probe)[1] > 0.05


@pytest.mark.slow
def test_positions_are_put_right_with_several_modes(specimen, places, rng):
    """Inside the scan, up to what a stretched object explains too; a compact probe shows it."""
    y, x = np.indices((SIDE, SIDE)) - SIDE / 2
    phase = 0.12 * y**2 + 0.2 * x**2 + 0.1 * x * y
    wave = 60 * np.exp(-((y - 0.6) ** 2) / 7 - (x + 0.4) ** 2 / 5 + 1j * phase)
    two = np.stack([wave, 0.3 * wave * (x + 0.4)])
    truth = places.numpy()
    errors = rng.uniform(-0.5, 0.5, truth.shape)
    counts = patterns_expected(torch.from_numpy(two), specimen, places)

    found = solve(
        amplitudes=counts.sqrt().numpy().astype(np.float32),
        positions_px=truth + errors,
        probe=two,
        object_shape=SHAPE,
        settings=SolverSettings(epochs=150, tolerance=0.0, damping=0.02, refine_positions=True),
    )

    stretches = np.column_stack([np.ones(len(truth)), truth])
    left = found.positions_px - truth
    left -= stretches @ np.linalg.lstsq(stretches, left)[0]
    inside = (truth > 12).all(axis=1) & (truth < (34, 29)).all(axis=1)
    assert np.abs(left[inside]).mean() < 0.3 * np.abs(errors[inside]).mean()
    assert found.losses[-1] < 3e-2 * found.losses[9]


@OBJECTIVES
def test_each_step_of_a_background_makes_the_counts_likelier(objective, scan, light, specimen):
    """Of Poisson counts, whatever the objective; bad pixels hold wrong counts and have no say."""
    model, places = model_of(scan, objective), torch.from_numpy(scan["positions_px"])
    row, column = model.first_px.tolist()
    box = specimen[row : row + model.box[0], column : column + model.box[1]].flatten()
    counts = torch.from_numpy(scan["amplitudes"]).double() ** 2
    good = torch.from_numpy(~scan["bad_pixels"])
    dark = torch.full((SIDE, SIDE), 20.0, dtype=torch.float64)
    found = []
    for _ in range(4):
        expected = patterns_expected(light, specimen, places, dark)
        found.append(float((counts * expected.log() - expected)[good].sum()))
        dark = dark * model.run(box, light, places, dark, refine_background=True).background_share
    gains = np.diff(found)
    assert (gains > 0).all()
    assert gains[-1] < 0.2 * gains[0]


@pytest.mark.parametrize("strength", [0.1, 1.0, 10.0])
def test_a_faint_background_is_found_with_its_strength(strength):
    """The objective is of roots, which are biased where there are few counts.

    Faint light that such an object does not explain is added to the background where it falls: the
    pixels that the object lights by less than the background hold it against that.
    """
    measured = Scan(background=strength)
    found = _refined_background(measured)
    is_dark = measured.rates.mean(axis=0) < strength
    assert is_dark.mean() > 0.75
    assert found[is_dark].mean() == pytest.approx(strength, rel=0.1)
    assert found.mean() == pytest.approx(strength, rel=0.1, abs=0.025)


def test_a_scan_without_background_is_found_to_have_almost_none():
    found = _refined_background(Scan())
    assert np.median(found) < 1e-3
    assert found.mean() < 0.025  # of 200 counts per pixel


def _refined_background(measured: Scan) -> np.ndarray:
    found = solve(
        amplitudes=np.sqrt(measured.counts).astype(np.float32),
        positions_px=measured.positions.astype(float),
        probe=measured.probe.astype(np.complex64),
        object_shape=measured.object_.shape,
        background=np.full((measured.side, measured.side), 0.1, np.float32),
        settings=SolverSettings(
            epochs=150, objective="amplitude", refine_background=True, tolerance=2e-4
        ),
    )
    return found.background


def test_a_background_is_found_from_a_guess(scan):
    flat = np.full((SIDE, SIDE), scan["background"].mean(), np.float32)
    settings = SolverSettings(epochs=150, refine_background=True, tolerance=1e-5)

    found = solve(**scan | {"background": flat}, settings=settings)

    before = np.abs(flat - scan["background"]).mean()
    assert np.abs(found.background - scan["background"]).mean() < before / 4


def test_a_given_background_stays_as_it_is(scan):
    found = solve(**scan, settings=SolverSettings(epochs=3, refine_probe=True))

    np.testing.assert_array_equal(found.background, scan["background"])


def test_refined_modes_are_orthogonal_and_the_strongest_comes_first(scan):
    found = solve(**scan, settings=SolverSettings(epochs=5, refine_probe=True))

    flat = found.probe.reshape(3, -1).astype(np.complex128)
    gram = flat.conj() @ flat.T
    np.testing.assert_allclose(gram - np.diag(np.diag(gram)), 0, atol=1e-3 * DOSE)
    assert (np.diff(mode_shares(found.probe)) < 0).all()


def test_a_measurement_with_all_of_it_is_solved_denoised_and_judged(scan):
    index = np.arange(len(scan["amplitudes"]))
    measurement = Measurement(
        amplitudes=np.where(scan["bad_pixels"], 0, scan["amplitudes"]),
        positions_px=scan["positions_px"],
        probe=scan["probe"].astype(np.complex64),
        groups=index[:, None],
        scan_index=index,
        object_shape=SHAPE,
        bad_pixels=scan["bad_pixels"],
        background=scan["background"],
    )

    found = solve_measurement(measurement)
    # Noise-free patterns: nearly no smoothing keeps the object.
    after = alternate(measurement, found.object_, "gaussian", 1e-3, LitPart.of(measurement))

    plain, smooth, flat = (
        pattern_residuals(measurement, one, measurement.probe).mean()
        for one in (found.object_, after, np.ones_like(found.object_))
    )
    assert plain < flat / 100
    assert smooth < flat / 100


def test_resuming_with_modes_and_a_background_is_as_never_interrupted(scan):
    unknown = {"refine_probe": True, "refine_positions": True, "refine_background": True}
    settings = [
        SolverSettings(epochs=epochs, tolerance=0.0, position_start=3, **unknown)
        for epochs in (4, 8)
    ]

    first = solve(**scan, settings=settings[0])
    resumed = solve(**scan, settings=settings[1], resume=first.state)
    whole = solve(**scan, settings=settings[1])

    np.testing.assert_array_equal(resumed.object_, whole.object_)
    np.testing.assert_array_equal(resumed.probe, whole.probe)
    np.testing.assert_array_equal(resumed.background, whole.background)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"probe": np.ones((2, 2, 16, 16), complex)}, r"\(2, 2, 16, 16\); give one square probe"),
        ({"probe": np.zeros((0, 16, 16), complex)}, r"\(0, 16, 16\); give one square probe"),
        ({"bad_pixels": np.zeros((3, 16, 16), bool)}, r"bad_pixels have shape \(3, 16, 16\)"),
        ({"background": np.zeros((8, 8), np.float32)}, r"the background has shape \(8, 8\)"),
        ({"background": np.full((16, 16), -1.0)}, "the background has a value that is negative"),
        ({"background": np.full((16, 16), np.nan)}, "negative or not finite"),
    ],
)
def test_what_does_not_fit_is_refused(scan, change, message):
    with pytest.raises(InputError, match=message):
        require_solvable(**scan | change)


# --- Modes to start from


def test_new_modes_are_orthogonal_weak_and_keep_the_power(probe):
    start = with_more_modes(probe.numpy(), 4, seed=1)

    flat = start.reshape(4, -1)
    np.testing.assert_allclose(flat.conj() @ flat.T - np.diag(power_of_each(start)), 0, atol=1e-9)
    np.testing.assert_allclose(mode_shares(start), [0.94, 0.02, 0.02, 0.02])
    assert power_of_each(start).sum() == pytest.approx((np.abs(probe.numpy()) ** 2).sum())


def power_of_each(modes: np.ndarray) -> np.ndarray:
    return (np.abs(modes) ** 2).sum(axis=(1, 2))


def test_modes_that_are_known_stay_but_for_their_light(light):
    known = light[:2].numpy()

    start = with_more_modes(known, 3, seed=0, share=0.19)

    np.testing.assert_allclose(start[:2], 0.9 * known, rtol=1e-12)


def test_as_many_modes_as_are_known_are_those(probe, light):
    np.testing.assert_array_equal(with_more_modes(probe.numpy(), 1, seed=0), probe.numpy())
    np.testing.assert_array_equal(with_more_modes(light.numpy(), 3, seed=0), light.numpy())


def test_the_seed_decides_on_the_mixture(probe):
    first, again, other = (with_more_modes(probe.numpy(), 3, seed=seed) for seed in (0, 0, 1))

    np.testing.assert_array_equal(first, again)
    assert np.abs(first - other).max() > 1e-6


@pytest.mark.parametrize(("asked", "share"), [(2, 0.1), (9, 0.2)])
def test_modes_that_cannot_be_added_are_refused(asked, share, light):
    with pytest.raises(InputError, match=f"{asked} modes with a share of"):
        with_more_modes(light.numpy(), asked, seed=0, share=share)


@pytest.mark.parametrize("kind", ["one pixel", "a dark second mode", "a plane wave"])
def test_modes_are_added_beside_any_probe(kind):
    probe = np.zeros((2, SIDE, SIDE), np.complex64)
    probe[0] = kind == "a plane wave"
    probe[0, 5, 7] = 3
    known = probe if "second" in kind else probe[0]

    start = with_more_modes(known, 4, seed=0)

    assert np.isfinite(start).all()
    assert mode_shares(start)[-2:] == pytest.approx([0.02, 0.02])
    flat = start.reshape(4, -1).astype(complex)
    gram = flat.conj() @ flat.T
    np.testing.assert_allclose(gram - np.diag(np.diag(gram)), 0, atol=1e-4)
