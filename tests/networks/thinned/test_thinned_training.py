"""Training by thinned counts: repeatable, taken up again, and never worse than its base."""

import copy
import signal
from dataclasses import replace

import numpy as np
import pytest
import torch
from scipy.spatial import cKDTree
from small_training import SMALL_THINNED, measurement_of, true_object

from study_lib.design.methods import ThinnedDesign
from study_lib.errors import InputError
from study_lib.networks.checkpoints import LAST, read_checkpoint
from study_lib.networks.machine import TrainingStopped
from study_lib.networks.thinned import training as thinned_training
from study_lib.networks.thinned.ensemble import (
    Smoothing,
    ThinnedEnsemble,
    gains_of,
    judged_anew,
    load_ensemble,
    mean_object,
    phase_std,
    reconstruct_thinned,
    save_ensemble,
)
from study_lib.networks.thinned.inputs import (
    BoxedScan,
    thinned_choices,
    thinned_input,
    thinned_set,
)
from study_lib.networks.thinned.network import FIRST_STEP
from study_lib.networks.thinned.training import left_out_of, others_than, train_thinned
from study_lib.networks.thinned.trust import SURE, Trust
from study_lib.physics.forward import exit_waves, expected_counts
from study_lib.physics.measurement import at_positions, box_of, split_photons
from study_lib.seeding import generator
from study_lib.solvers.solver import solve_measurement

pytestmark = pytest.mark.slow

DESIGN = SMALL_THINNED


@pytest.fixture(scope="module")
def measurement():
    return measurement_of(photons=5e3)


@pytest.fixture(scope="module")
def choices(measurement):
    part, held_out = split_photons(measurement, 0.8, np.random.default_rng(1))
    return thinned_choices(solve_measurement(part).object_, part, held_out, epochs=40)


def shown_by(choices, box):
    return lambda part: thinned_input(part, choices, box)


@pytest.fixture(scope="module")
def half_left_out(measurement, choices):
    """A thinning whose input is made from 0.7 of the photons of half of the positions."""
    return thinned_set(
        measurement,
        shown_by(choices, box_of(measurement)),
        photon_share=0.7,
        kept_share=0.5,
        random=np.random.default_rng(2),
    )


@pytest.fixture(scope="module")
def checkpoints(tmp_path_factory):
    return tmp_path_factory.mktemp("checkpoints")


@pytest.fixture(scope="module")
def trained(measurement, checkpoints):
    return train_thinned(measurement, DESIGN, seed=4, checkpoints=checkpoints)


def weights_of(ensemble) -> list[np.ndarray]:
    return [
        weight.numpy() for member in ensemble.members for weight in member.state_dict().values()
    ]


def same_weights(first, second) -> bool:
    return all(map(np.array_equal, weights_of(first), weights_of(second)))


# --- what it learns from


def test_the_target_of_a_thinning_is_independent_of_its_input(measurement, half_left_out):
    """Kept counts and target add up; where a position was left out, all of it is target."""
    one = half_left_out
    left_out = one.probe_scale == 1
    assert int(left_out.sum()) == len(measurement.scan_index) - round(
        0.5 * len(measurement.scan_index)
    )
    assert not one.is_whole
    counts = torch.from_numpy(measurement.counts)
    torch.testing.assert_close(one.counts[left_out].float(), counts[left_out])
    part = one.counts[~left_out].double().sum() / counts[~left_out].double().sum()
    assert float(part) == pytest.approx(0.3, abs=0.01)
    torch.testing.assert_close(one.probe_scale[~left_out].square().mean(), torch.tensor(0.3))


def test_the_deviance_is_least_at_the_truth(measurement, choices):
    box = box_of(measurement)
    scene, every = BoxedScan.of(measurement, box), torch.arange(len(measurement.scan_index))
    one = thinned_set(
        measurement,
        shown_by(choices, box),
        photon_share=0.5,
        kept_share=1.0,
        random=np.random.default_rng(3),
    )
    truth = torch.from_numpy(true_object()[box])

    at_truth = one.deviance_nats(truth, scene, every).mean()

    others = (
        one.shown.base_object,
        1.02 * truth,
        truth * torch.exp(0.05j * torch.arange(len(truth)))[:, None],
    )
    assert all(at_truth < one.deviance_nats(other, scene, every).mean() for other in others)
    scanned = torch.from_numpy(measurement.positions_px) - torch.tensor(
        [box[0].start, box[1].start]
    )
    rates = 0.5 * expected_counts(exit_waves(scene.probe, truth, scanned))
    assert float(rates.sum()) == pytest.approx(float(one.counts.sum()), rel=0.02)


def test_bad_pixels_have_no_say(measurement, choices):
    bad = np.zeros(measurement.probe.shape, bool)
    bad[3:6, 8] = True
    broken = measurement.amplitudes.copy()
    broken[:, bad] = 0
    masked = replace(measurement, amplitudes=broken, bad_pixels=bad)
    box = box_of(masked)

    found = []
    for value in (0.0, 40.0):
        one = thinned_set(
            masked,
            shown_by(choices, box),
            photon_share=0.5,
            kept_share=1.0,
            random=np.random.default_rng(3),
        )
        counts = one.counts.float()
        counts[:, torch.from_numpy(bad)] = value
        one = replace(one, counts=counts)
        index = torch.arange(5)
        found.append(one.deviance_nats(one.shown.base_object, BoxedScan.of(masked, box), index))

    torch.testing.assert_close(*found)


# --- training


def test_the_same_seed_gives_the_same_weights_and_another_seed_others(measurement, trained):
    again, _ = train_thinned(measurement, DESIGN, seed=4)
    other, _ = train_thinned(measurement, DESIGN, seed=5)

    assert same_weights(trained[0], again)
    assert not same_weights(trained[0], other)
    assert trained[0].trust == again.trust


def test_members_differ(trained):
    first, second = trained[0].members

    assert not torch.equal(first.output.weight, second.output.weight)


def test_the_base_is_judged_pattern_by_pattern_whatever_the_portions(measurement, half_left_out):
    one = half_left_out
    scene = BoxedScan.of(measurement, box_of(measurement))

    found = one.base_deviance_nats(scene, patterns_at_a_time=5)

    for index in (0, 7, len(found) - 1):
        alone = one.deviance_nats(one.shown.base_object, scene, torch.tensor([index]))
        torch.testing.assert_close(found[index], alone[0])
    assert len(found) == len(measurement.scan_index)


def test_reported_losses_are_over_that_of_the_base(measurement):
    reported = []
    design = DESIGN.model_copy(update={"members": 1, "photon_shares": (0.1, 0.9)})

    _, records = train_thinned(
        measurement,
        design,
        seed=4,
        progress=lambda what, done, total, loss: reported.append(loss) if what == "train" else None,
    )

    losses = [record.loss for record in records]  # one a step, so few are they
    assert max(losses) > 1.5 * min(losses), "few and many photons were drawn"
    assert 0.8 < min(reported) < max(reported) < 1.5
    assert np.std(np.log(reported)) < 0.6 * np.std(np.log(losses)), "what was drawn does not show"


@pytest.mark.parametrize("interrupted_at", [5, 12, 17])
def test_an_interrupted_training_ends_where_an_uninterrupted_one_does(
    measurement, trained, tmp_path, interrupted_at, monkeypatch
):
    monkeypatch.setattr("study_lib.networks.thinned.training.CHECKPOINT_INTERVAL_S", 0.0)

    def interrupt(what, done, total, loss):
        if (what, done) == ("train", interrupted_at):
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        train_thinned(measurement, DESIGN, seed=4, checkpoints=tmp_path, progress=interrupt)
    steps = []
    found, records = train_thinned(
        measurement,
        DESIGN,
        seed=4,
        checkpoints=tmp_path,
        progress=lambda what, done, total, loss: steps.append(done) if what == "train" else None,
    )

    assert 1 < steps[0] <= interrupted_at
    (before,) = {read_checkpoint(tmp_path / LAST)["state"]["cpu_s"]} - {0}
    assert found.training_cpu_s >= before, "of both sessions"
    assert same_weights(found, trained[0])
    assert [(one.member, one.step, one.loss) for one in records] == [
        (one.member, one.step, one.loss) for one in trained[1]
    ]


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
@pytest.mark.parametrize(
    ("asked_in", "expected"), [("choose", ["choose"]), ("thin", ["choose", "thin"])]
)
def test_a_stop_while_the_training_is_prepared_comes_at_once(
    measurement, tmp_path, number, asked_in, expected
):
    seen, handler = [], signal.getsignal(number)

    def ask(what, done, total, loss):
        seen.append(what)
        if what == asked_in:
            signal.raise_signal(number)

    with pytest.raises(TrainingStopped, match="while the training was prepared"):
        train_thinned(measurement, DESIGN, seed=4, checkpoints=tmp_path, progress=ask)

    assert seen == expected
    assert signal.getsignal(number) is handler


def test_a_stop_in_the_first_epoch_of_the_solver_waits_for_no_choice(
    measurement, tmp_path, monkeypatch
):
    left_out = thinned_training.left_out_of

    def ask(*given):
        signal.raise_signal(signal.SIGTERM)
        return left_out(*given)

    monkeypatch.setattr(thinned_training, "left_out_of", ask)
    monkeypatch.setattr(thinned_training, "thinned_choices", lambda *given: pytest.fail("went on"))

    with pytest.raises(TrainingStopped, match="while the training was prepared"):
        train_thinned(measurement, DESIGN, seed=4, checkpoints=tmp_path)


def test_a_finished_training_is_not_trained_again(measurement, trained, checkpoints):
    reports = []

    found, records = train_thinned(
        measurement,
        DESIGN,
        seed=4,
        checkpoints=checkpoints,
        progress=lambda what, *_: reports.append(what),
    )

    assert "choose" in reports
    assert "train" not in reports
    assert same_weights(found, trained[0])
    assert records == trained[1]


def test_checkpoints_of_another_training_are_refused(measurement, trained, checkpoints):
    with pytest.raises(InputError, match=r"checkpoint of another training .*seed: 4 there, 5 here"):
        train_thinned(measurement, DESIGN, seed=5, checkpoints=checkpoints)


def test_too_few_patterns_are_refused_with_the_remedy(measurement):
    with pytest.raises(InputError, match=r"5 patterns: .* learns from 8 or more; use a view with"):
        train_thinned(at_positions(measurement, np.arange(5)), DESIGN, seed=1)


def test_a_large_object_is_learned_window_by_window(measurement, monkeypatch):
    """A window holds whole patches of 16 pixels; the object of the others is not computed."""
    monkeypatch.setattr(
        "study_lib.networks.thinned.training.TILE_PX", 1
    )  # two patches wide, at least
    seen = []

    def watch(self, shown, *view):
        seen.append(tuple(shown.phasor.shape))
        return original(self, shown, *view)

    from study_lib.networks.thinned.network import MixingNetwork

    original = MixingNetwork.object_of
    monkeypatch.setattr(MixingNetwork, "object_of", watch)
    ensemble, _ = train_thinned(measurement, replace_steps(20), seed=2)

    box = box_of(measurement)
    whole = tuple(part.stop - part.start for part in box)
    assert {shape for shape in seen if shape != whole} == {(32, 32)}
    assert len(ensemble.members) == 1


def replace_steps(steps: int) -> ThinnedDesign:
    return DESIGN.model_copy(update={"steps": steps, "members": 1})


# --- trust, object, spread


def test_without_trust_the_arm_is_its_base(measurement, trained):
    ensemble, _ = trained
    doubtful, sure = Trust(0.3, standard_error_nats=0.2), Trust(0.5, standard_error_nats=0.2)

    kept, improved = (
        reconstruct_thinned(ensemble, measurement, trust=trust) for trust in (doubtful, sure)
    )

    np.testing.assert_array_equal(kept.object_, kept.base)
    assert not kept.members_rad.any()
    assert np.abs(improved.object_ - improved.base).max() > 1e-3
    assert improved.members_rad.max() > 0


def test_a_network_that_spoils_the_object_is_not_trusted(measurement, choices):
    """It goes back to the worst of its candidates, which the held-out counts refuse."""
    from study_lib.networks.thinned.network import MixingNetwork

    box = box_of(measurement)
    whole = thinned_set(
        measurement,
        shown_by(choices, box),
        photon_share=0.7,
        kept_share=1.0,
        random=np.random.default_rng(3),
    )
    network = MixingNetwork(
        candidates=len(whole.shown.candidates), base=whole.shown.base, widths=(6, 8, 10)
    )
    with torch.no_grad():
        network.output.bias[whole.shown.base] = 50
    scene, every = BoxedScan.of(measurement, box), torch.arange(len(measurement.scan_index))

    same = gains_of([network], Smoothing(), [whole], scene, every)
    gains = []
    for index in range(len(whole.shown.candidates)):
        with torch.no_grad():
            network.output.bias.zero_()
            network.output.bias[index] = 50
        gains.append(gains_of([network], Smoothing(), [whole], scene, every))
    worst = min(gains, key=np.mean)
    spoiled = Trust.of(worst, measurement.positions_px, 4.0)

    assert same.mean() == pytest.approx(0, abs=1e-3)
    assert spoiled.gain_nats < -3 * spoiled.standard_error_nats
    assert not spoiled.given


def test_the_object_is_one_where_no_light_falls(measurement, trained):
    found = reconstruct_thinned(trained[0], measurement, trust=SURE)

    outside = np.ones(measurement.object_shape, bool)
    outside[box_of(measurement)] = False
    for object_ in (found.object_, found.base):
        assert object_.shape == measurement.object_shape
        np.testing.assert_array_equal(object_[outside], 1)
    np.testing.assert_array_equal(found.members_rad[outside], 0)


def test_patterns_of_another_size_are_refused(measurement, trained):
    other = replace(trained[0], side_px=64)

    with pytest.raises(InputError, match=r"of 16 pixels, but the thinning network .* on 64"):
        reconstruct_thinned(other, measurement, trust=SURE)


def test_a_bundle_gives_the_same_object_again(measurement, trained, tmp_path):
    save_ensemble(tmp_path / "ensemble.pt", trained[0])

    loaded = load_ensemble(tmp_path / "ensemble.pt")

    assert (loaded.choices, loaded.smoothing, loaded.trust, loaded.design) == (
        trained[0].choices,
        trained[0].smoothing,
        trained[0].trust,
        trained[0].design,
    )
    np.testing.assert_array_equal(
        reconstruct_thinned(loaded, measurement, trust=SURE).object_,
        reconstruct_thinned(trained[0], measurement, trust=SURE).object_,
    )


def test_learned_steps_of_consistency_are_trained_kept_and_used(measurement, tmp_path):
    design = DESIGN.model_copy(update={"members": 1, "data_steps": 2})

    ensemble, _ = train_thinned(measurement, design, seed=4)
    save_ensemble(tmp_path / "ensemble.pt", ensemble)
    loaded = load_ensemble(tmp_path / "ensemble.pt")

    lengths = ensemble.members[0].steps.lengths.detach()
    assert lengths.shape == (2,)
    assert (lengths != FIRST_STEP).all()
    assert all(torch.isfinite(weight).all() for weight in ensemble.members[0].parameters())
    with_steps, again = (
        reconstruct_thinned(one, measurement, trust=SURE).object_ for one in (ensemble, loaded)
    )
    np.testing.assert_array_equal(with_steps, again)
    ensemble.members[0].steps.lengths.data.zero_()
    without = reconstruct_thinned(ensemble, measurement, trust=SURE).object_
    assert np.abs(with_steps - without).max() > 1e-4


@pytest.mark.parametrize("content", [b"", b"not a bundle", b"PK\x03\x04 torn"])
def test_a_broken_bundle_is_refused_with_the_remedy(tmp_path, content):
    (tmp_path / "ensemble.pt").write_bytes(content)

    with pytest.raises(InputError, match=r"ensemble\.pt: not an ensemble .* train it again"):
        load_ensemble(tmp_path / "ensemble.pt")
    with pytest.raises(InputError, match=r"no ensemble; run `study train-thinned`"):
        load_ensemble(tmp_path / "absent.pt")


def test_phase_spread_is_that_of_the_phases_and_not_of_the_global_phase():
    random = np.random.default_rng(3)
    noise = 0.05 * random.standard_normal((40, 30, 30))
    turns = random.uniform(-3, 3, 40)
    objects = [
        (0.8 * np.exp(1j * (phase + turn))).astype(np.complex64)
        for phase, turn in zip(noise, turns, strict=True)
    ]

    spread = phase_std(objects, np.full((30, 30), 0.8, np.complex64))

    assert np.sqrt((spread**2).mean()) == pytest.approx(0.05, rel=0.03)


def test_a_measurement_judges_an_ensemble_by_photons_that_its_objects_do_not_have(
    measurement, trained
):
    """Networks that spoil what they are shown are refused, on any measurement."""
    torch.manual_seed(1)
    spoiling = copy.deepcopy(trained[0].members)
    for member in spoiling:
        with torch.no_grad():
            member.output.weight[-2:].normal_(std=30.0)
    ensemble = replace(trained[0], members=spoiling)

    trust = judged_anew(ensemble, measurement, np.random.default_rng(5))

    assert trust.gain_nats < -2 * trust.standard_error_nats
    found = reconstruct_thinned(ensemble, measurement, trust=trust)
    np.testing.assert_array_equal(found.object_, found.base)


@pytest.mark.parametrize(("scan", "members"), [(100, 3), (100, 1), (8, 3), (9, 4)])
def test_every_member_leaves_out_patterns_of_its_own(scan, members):
    positions = np.random.default_rng(1).uniform((0, 0), (20, 90), (scan, 2))

    left_out = left_out_of(positions, 0.15, members, np.random.default_rng(2))

    assert len(left_out) == members
    together = torch.cat(left_out)
    assert len(together) == len(set(together.tolist()))
    for left in left_out:
        others = others_than(left, scan)
        assert 0 < len(left) == scan - len(others) < scan
        assert set(left.tolist()).isdisjoint(others.tolist())


@pytest.mark.parametrize("members", [1, 2, 3])
def test_what_a_member_leaves_out_lies_all_over_the_scan(members):
    """No pattern is far from one; from a strip of a fifth some would be 35 px away or more."""
    y, x = np.mgrid[0:60:3, 0:90:3]
    positions = np.stack([y.ravel(), x.ravel()], axis=1).astype(float)

    for left in left_out_of(positions, 0.2, members, np.random.default_rng(3)):
        distances, _ = cKDTree(positions[left.numpy()]).query(positions)
        assert len(left) == 120
        assert distances.max() < 15


def test_every_pattern_is_as_likely_to_be_left_out():
    positions = np.random.default_rng(4).uniform((0, 0), (60, 90), (60, 2))
    times = np.zeros(60)

    for seed in range(400):
        for left in left_out_of(positions, 0.25, 2, np.random.default_rng(seed)):
            times[left.numpy()] += 1

    assert times.sum() == 400 * 2 * 15
    np.testing.assert_allclose(times, 200, atol=6 * np.sqrt(400 * 0.25))


def test_a_member_learns_nothing_from_the_counts_that_it_leaves_out(measurement, monkeypatch):
    """Ten times as many of them change no weight; of another pattern they do."""
    alone = DESIGN.model_copy(update={"members": 1, "steps": 6})
    (left,) = left_out_of(
        measurement.positions_px,
        alone.validation_share,
        1,
        generator(4, "thinned left out"),
    )
    others = others_than(left, len(measurement.scan_index))
    own = thinned_training.thinned_set

    def trained_with_more_counts_of(patterns: torch.Tensor) -> ThinnedEnsemble:
        def brighter(*given, **named):
            one = own(*given, **named)
            counts = one.counts.to(torch.int32, copy=True)
            counts[patterns] *= 10
            return replace(one, counts=counts)

        monkeypatch.setattr(thinned_training, "thinned_set", brighter)
        return train_thinned(measurement, alone, seed=4)[0]

    usual = trained_with_more_counts_of(left[:0])
    assert same_weights(usual, trained_with_more_counts_of(left))
    assert not same_weights(usual, trained_with_more_counts_of(others))


def test_the_mean_object_is_the_mean_over_members(measurement, choices):
    box = box_of(measurement)
    whole = thinned_set(
        measurement,
        shown_by(choices, box),
        photon_share=0.7,
        kept_share=1.0,
        random=np.random.default_rng(3),
    )
    ensemble, _ = train_thinned(measurement, DESIGN, seed=4)

    with torch.no_grad():
        each = [member.object_of(whole.shown).numpy() for member in ensemble.members]

    np.testing.assert_allclose(mean_object(ensemble.members, whole.shown), sum(each) / 2, atol=1e-6)
