"""The forward model conserves photons, has the adjoint it claims, and moves as a scan does."""

import numpy as np
import pytest
import torch

from study_lib.physics.forward import (
    add_patches,
    corners_of,
    exit_waves,
    exit_waves_adjoint,
    expected_counts,
    illumination,
    patches_at,
    probes_at,
)
from study_lib.physics.fourier import shift

SIDE = 16


def random_waves(count: int, rng: np.random.Generator) -> torch.Tensor:
    shape = (count, SIDE, SIDE)
    return torch.from_numpy(rng.standard_normal(shape) + 1j * rng.standard_normal(shape))


def inner(first: torch.Tensor, second: torch.Tensor) -> torch.Tensor:
    return torch.vdot(first.flatten(), second.flatten())


def test_a_pattern_holds_the_photons_of_its_exit_wave(probe, object_, positions_px):
    waves = exit_waves(probe, object_, positions_px)

    counts = expected_counts(waves).sum(dim=(1, 2))

    torch.testing.assert_close(counts, (waves.abs() ** 2).sum(dim=(1, 2)), rtol=1e-13, atol=0)


def test_an_empty_object_gives_the_probes_far_field_everywhere(probe, object_, positions_px):
    """A sub-pixel shift is a phase ramp on the detector, which no count sees."""
    patterns = expected_counts(exit_waves(probe, torch.ones_like(object_), positions_px))

    torch.testing.assert_close(patterns, expected_counts(probe).expand_as(patterns))


def test_exit_waves_adjoint_identity(probe, object_, positions_px, rng):
    """<A o, w> = <o, A* w>; the probe is complex, so a missing conjugate shows."""
    waves = random_waves(len(positions_px), rng)

    lhs = inner(exit_waves(probe, object_, positions_px), waves)
    rhs = inner(object_, exit_waves_adjoint(waves, probe, positions_px, tuple(object_.shape)))

    torch.testing.assert_close(lhs, rhs, rtol=1e-12, atol=0)


def test_reading_and_adding_patches_are_adjoint(object_, positions_px, rng):
    corners_px = corners_of(positions_px, SIDE)
    patches = random_waves(len(positions_px), rng)

    lhs = inner(patches_at(object_, corners_px, SIDE), patches)
    rhs = inner(object_, add_patches(patches, corners_px, tuple(object_.shape)))

    torch.testing.assert_close(lhs, rhs, rtol=1e-12, atol=0)


def test_adding_ones_counts_how_often_a_pixel_is_covered():
    """Two patches that share a corner, and one twice at the same place."""
    corners_px = torch.tensor([[0, 0], [2, 1], [2, 1]])

    coverage = add_patches(torch.ones(3, 3, 3), corners_px, (6, 5))

    expected = np.zeros((6, 5))
    for row, column in corners_px.tolist():
        expected[row : row + 3, column : column + 3] += 1
    np.testing.assert_array_equal(coverage.numpy(), expected)


def test_a_patch_is_centred_on_its_position(object_):
    patch = patches_at(object_, corners_of(torch.tensor([[20.4, 17.6]]).double(), SIDE), SIDE)[0]

    assert patch[SIDE // 2, SIDE // 2] == object_[20, 18]


@pytest.mark.parametrize("step", [(1, 0), (0, -1), (2, 3)])
def test_position_and_object_moved_together_change_no_pattern(step, probe, object_, positions_px):
    inside = positions_px[1:4]

    before = exit_waves(probe, object_, inside)
    moved = torch.roll(object_, step, dims=(0, 1))
    after = exit_waves(probe, moved, inside + torch.tensor(step).double())

    torch.testing.assert_close(after, before)


def test_a_position_moved_by_part_of_a_pixel_is_a_moved_probe(probe, object_):
    """Position + delta is the probe moved by + delta, towards larger row and column."""
    centre_px = torch.tensor([[18.0, 17.0]]).double()
    delta_px = torch.tensor([[0.3, -0.4]]).double()

    at_moved_position = exit_waves(probe, object_, centre_px + delta_px)
    with_moved_probe = exit_waves(shift(probe, delta_px)[0], object_, centre_px)

    torch.testing.assert_close(at_moved_position, with_moved_probe)


def test_the_probe_in_the_object_frame_follows_the_position():
    """Centre of mass of the light on the object moves as the position does, at any fraction."""
    y, x = np.indices((SIDE, SIDE)) - SIDE // 2
    spot = torch.from_numpy(np.exp(-(y**2 + x**2) / 8).astype(complex))
    rows, columns = torch.meshgrid(torch.arange(40.0), torch.arange(36.0), indexing="ij")

    for row in np.linspace(15, 17, 9):
        light = illumination(spot, torch.tensor([[row, 33.3 - row]]).double(), (40, 36))
        centre = [float((light * axis).sum() / light.sum()) for axis in (rows, columns)]
        assert centre == pytest.approx([row, 33.3 - row], abs=1e-3)


def test_illumination_holds_the_photons_of_every_position(probe, positions_px):
    light = illumination(probe, positions_px, (40, 36))

    photons = float((probe.abs() ** 2).sum())
    assert float(light.sum()) == pytest.approx(photons * len(positions_px), rel=1e-12)


def test_light_is_summed_some_patches_at_a_time_and_to_the_same_bits(
    probe, positions_px, monkeypatch
):
    at_once = illumination(probe, positions_px, (40, 36))
    made = []

    def watched(*arguments):
        made.append(probes_at(*arguments))
        return made[-1]

    monkeypatch.setattr("study_lib.physics.forward.SUMMED_PIXELS", 2 * SIDE**2 + 1)
    monkeypatch.setattr("study_lib.physics.forward.probes_at", watched)
    in_parts = illumination(probe, positions_px, (40, 36))

    assert max(map(len, made)) == 2 < len(positions_px)
    np.testing.assert_array_equal(in_parts.numpy(), at_once.numpy())


def test_a_patch_outside_is_named_by_its_place_in_the_whole_scan(probe, monkeypatch):
    monkeypatch.setattr("study_lib.physics.forward.SUMMED_PIXELS", SIDE**2)
    positions_px = torch.tensor([(8.0, 8.0), (32.0, 28.0), (33.0, 8.0)]).double()

    with pytest.raises(ValueError, match="scan position 2 of 3 leaves the object"):
        illumination(probe, positions_px, (40, 36))


def test_shifted_probes_stay_on_their_grid(probe, positions_px):
    """The whole part of a position never moves the probe, only its fraction does."""
    torch.testing.assert_close(probes_at(probe, positions_px), probes_at(probe, positions_px + 4))


@pytest.mark.parametrize("position", [(7.4, 20.0), (20.0, 7.0), (32.6, 20.0), (20.0, 29.0)])
def test_a_patch_outside_the_object_is_named(position, probe, object_):
    positions_px = torch.tensor([(8.0, 8.0), (32.0, 28.0), position]).double()

    with pytest.raises(ValueError, match=r"scan position 2 of 3 leaves the object.*40 x 36 pixels"):
        exit_waves(probe, object_, positions_px)
