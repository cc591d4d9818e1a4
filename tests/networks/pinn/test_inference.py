"""What a network sees becomes an object of any size, in its frame, in bounded memory."""

import dataclasses

import numpy as np
import pytest
import torch
from small_training import (
    SHAPE,
    SIDE,
    config_of,
    cut,
    fingerprint,
    measurement_of,
    true_object,
)

from study_lib.errors import InputError
from study_lib.networks.pinn.bundle import History, TrainedNetwork
from study_lib.networks.pinn.inference import apply_network
from study_lib.networks.pinn.network import PtychoPinn, StandardisedAmplitudes
from study_lib.networks.pinn.training import train
from study_lib.physics.measurement import Measurement

NOTHING = History((), 0.0, 0, stopped_early=False)


class TrueNetwork(PtychoPinn):
    """Knows its patterns by heart and answers each with the true patch, turned by a phase."""

    def __init__(self, measurement: Measurement) -> None:
        super().__init__(
            channels=1, side=SIDE, filters_scale=1, inputs=StandardisedAmplitudes(SIDE)
        )
        self.register_buffer("known", torch.from_numpy(measurement.amplitudes))
        patches = torch.from_numpy(cut(true_object(), measurement.positions_px))
        self.register_buffer("patches", patches)

    def forward(self, amplitudes: torch.Tensor) -> torch.Tensor:
        distances = torch.cdist(amplitudes.flatten(2).flatten(0, 1), self.known.flatten(1))
        which = distances.argmin(dim=1).reshape(amplitudes.shape[:2])
        phase = which[:, 0].float()[:, None, None, None]  # its own for each group
        return self.patches[which] * torch.polar(torch.ones_like(phase), phase)


@pytest.mark.parametrize("gridsize", [1, 2])
def test_true_patches_become_the_true_object(gridsize):
    """A perfect network is seen as perfect: nothing between it and the object moves or blurs."""
    measurement = measurement_of(gridsize=gridsize)
    perfect = TrainedNetwork(TrueNetwork(measurement), config_of(measurement), NOTHING, 0.0)

    object_ = apply_network(perfect, measurement)

    rows, columns = slice(1, 37), slice(2, 42)
    lit, truth = object_[rows, columns], true_object()[rows, columns]
    lit = lit * np.exp(-1j * np.angle((lit * truth.conj()).sum()))
    np.testing.assert_allclose(lit, truth, atol=1e-4)


@pytest.mark.parametrize("gridsize", [1, 2])
def test_reconstruction_covers_the_patches_in_the_frame_of_the_object(gridsize):
    measurement = measurement_of(gridsize=gridsize)

    object_ = apply_network(train(measurement, config_of(measurement)), measurement)

    covered = np.zeros(SHAPE, dtype=bool)
    for y, x in np.round(measurement.positions_px).astype(int) - SIDE // 2:
        covered[y : y + SIDE, x : x + SIDE] = True
    assert object_.shape == SHAPE
    assert (object_[~covered] == 1).all()
    assert (object_[covered] != 1).all()
    assert np.abs(object_).max() <= 1 + 1e-6


@pytest.mark.parametrize("gridsize", [1, 2])
def test_object_is_the_same_whether_patches_are_kept_or_computed_again(gridsize):
    measurement = measurement_of(gridsize=gridsize)
    trained = train(measurement, config_of(measurement))

    kept, again = (apply_network(trained, measurement, kept_bytes=size) for size in (2**30, 0))

    assert kept.tobytes() == again.tobytes()


def test_on_a_processor_torch_is_not_asked_for_repeatable_algorithms(monkeypatch):
    """A processor is repeatable anyway, and torch would import its compiler: a second a job."""
    measurement = measurement_of()
    perfect = TrainedNetwork(TrueNetwork(measurement), config_of(measurement), NOTHING, 0.0)
    monkeypatch.setattr(torch, "use_deterministic_algorithms", pytest.fail)

    apply_network(perfect, measurement, device="cpu")


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
@pytest.mark.parametrize("gridsize", [1, 2])
def test_a_gpu_sees_the_same_object(gridsize):
    measurement = measurement_of(gridsize=gridsize)
    trained = train(measurement, config_of(measurement))

    here, there = (apply_network(trained, measurement, device=name) for name in ("cpu", "cuda"))

    np.testing.assert_allclose(there, here, atol=1e-3)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
def test_a_gpu_gives_the_same_bits_in_every_run():
    measurement = measurement_of()

    first, second = (train(measurement, config_of(measurement, device="cuda")) for _ in range(2))

    assert fingerprint(first) == fingerprint(second)
    objects = [apply_network(one, measurement, device="cuda") for one in (first, second)]
    np.testing.assert_array_equal(*objects)


def test_memory_map_is_read_like_an_array(tmp_path):
    measurement = measurement_of()
    np.save(tmp_path / "amplitudes.npy", measurement.amplitudes)
    mapped = np.load(tmp_path / "amplitudes.npy", mmap_mode="c")
    trained = train(measurement, config_of(measurement))

    from_map = apply_network(trained, dataclasses.replace(measurement, amplitudes=mapped))

    assert from_map.tobytes() == apply_network(trained, measurement).tobytes()


def test_plain_average_weighs_every_pixel_of_a_patch_alike():
    """Two constant patches, one twice as large as the other, in the pixels that both cover."""
    measurement = measurement_of()
    pair = dataclasses.replace(
        measurement,
        amplitudes=measurement.amplitudes[:2],
        positions_px=measurement.positions_px[:2],
        groups=measurement.groups[:2],
        scan_index=measurement.scan_index[:2],
    )
    network = TrueNetwork(pair)
    network.patches = torch.ones(2, SIDE, SIDE) * torch.tensor([1.0, 0.5])[:, None, None] + 0j
    trained = TrainedNetwork(network, config_of(pair), NOTHING, 0.0)

    plain = np.abs(apply_network(trained, pair, weighting="uniform"))
    weighted = np.abs(apply_network(trained, pair))

    lit = plain[plain != 1]
    assert set(np.round(lit, 5)) <= {0.5, 0.75}
    assert len(set(np.round(weighted, 5).ravel())) > 10


def test_positions_are_not_moved_to_their_centre():
    """A scan in one corner of a large object stays in that corner."""
    measurement = dataclasses.replace(measurement_of(), object_shape=(90, 80))
    trained = train(measurement, config_of(measurement))

    object_ = apply_network(trained, measurement)

    assert (object_[SHAPE[0] :] == 1).all()
    assert (object_[:, SHAPE[1] :] == 1).all()
    assert (object_[4:30, 6:30] != 1).all()


def test_patch_beyond_the_object_is_refused_not_dropped():
    measurement = dataclasses.replace(measurement_of(), object_shape=(36, 46))
    trained = train(measurement, config_of(measurement))

    with pytest.raises(ValueError, match=r"scan position \d+ of \d+ leaves the object"):
        apply_network(trained, measurement)


def test_network_of_another_view_is_refused():
    single, quadruple = measurement_of(gridsize=1), measurement_of(gridsize=2)

    with pytest.raises(InputError, match=r"trained for 1 of 16; use the network of its own view"):
        apply_network(train(single, config_of(single)), quadruple)
