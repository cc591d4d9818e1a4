"""Streams are the same for the same purpose and independent for any other."""

import random

import numpy as np
import torch

from study_lib.seeding import generator, torch_seed

PURPOSES = [
    (42, "scan"),
    (43, "scan"),
    (42, "specimen"),
    (42, "noise", "train", 1000),
    (42, "noise", "test", 1000),
    (42, "noise", "train", 10000),
    (42, "train", "noise", 1000),
    (42,),
]


def test_the_same_purpose_gives_the_same_numbers():
    for purpose in PURPOSES:
        np.testing.assert_array_equal(generator(*purpose).random(9), generator(*purpose).random(9))


def test_other_purposes_are_uncorrelated():
    draws = np.array([generator(*purpose).standard_normal(20_000) for purpose in PURPOSES])

    correlations = np.corrcoef(draws)[~np.eye(len(draws), dtype=bool)]

    assert np.abs(correlations).max() < 5 / np.sqrt(20_000)


def test_drawing_for_one_purpose_moves_no_other():
    alone = generator(42, "scan").random(5)
    first, second = generator(42, "noise"), generator(42, "scan")
    first.random(1000)

    np.testing.assert_array_equal(second.random(5), alone)


def test_global_states_are_neither_read_nor_moved():
    np.random.seed(1)
    random.seed(1)
    torch.manual_seed(1)
    before = np.random.get_state()[1].copy(), random.getstate(), torch.get_rng_state()
    first = generator(42, "scan").random(5), torch_seed(42, "training")

    np.testing.assert_array_equal(np.random.get_state()[1], before[0])
    assert random.getstate() == before[1]
    assert torch.equal(torch.get_rng_state(), before[2])
    np.random.seed(2)
    np.testing.assert_array_equal(generator(42, "scan").random(5), first[0])


def test_torch_seeds_fit_and_differ_by_purpose():
    seeds = [torch_seed(*purpose) for purpose in PURPOSES]

    assert len(set(seeds)) == len(PURPOSES)
    assert seeds == [torch_seed(*purpose) for purpose in PURPOSES]
    for seed in seeds:
        assert 0 <= seed < 2**63
        torch.Generator().manual_seed(seed)


def test_a_stream_is_the_one_numpy_documents_for_its_key():
    """SeedSequence children: the first integer key is what ``spawn`` gives."""
    (child, *_) = np.random.SeedSequence(42).spawn(1)

    np.testing.assert_array_equal(
        generator(42, 0).random(5), np.random.default_rng(child).random(5)
    )
