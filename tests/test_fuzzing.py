"""Thousands of spoilt files for every reader, and those that once showed a fault."""

from contextlib import suppress
from pathlib import Path

import numpy as np
import pytest
from fuzzing.campaign import TARGETS, campaign
from fuzzing.targets import target

from study_lib.errors import StudyError

pytestmark = pytest.mark.slow
FILES = 300
CORPUS = Path(__file__).parent / "fuzzing" / "corpus"


@pytest.mark.parametrize("name", TARGETS)
def test_no_spoilt_file_crashes_hangs_or_bursts(name, tmp_path):
    found = campaign(name, FILES, seed=1, keep=tmp_path)

    assert found.faults == []
    assert found.read == FILES


@pytest.mark.parametrize("path", sorted(CORPUS.iterdir()), ids=lambda path: path.name)
def test_a_file_that_once_showed_a_fault_is_refused_or_read(path, tmp_path):
    """A name is the target's, then a dash and what is wrong with it."""
    reader = target(path.name.partition("-")[0], tmp_path)
    (tmp_path / reader.file).write_bytes(path.read_bytes())

    with suppress(StudyError):  # refusing is right; any other error fails the test
        reader.read(tmp_path / reader.file)


@pytest.mark.parametrize("name", TARGETS)
def test_the_sound_file_of_every_target_is_read(name, tmp_path):
    """Else the spoilt ones would be refused for another reason."""
    reader = target(name, tmp_path)
    for content in reader.sound:
        (tmp_path / reader.file).write_bytes(content)
        reader.read(tmp_path / reader.file)


def test_most_spoilt_files_differ_from_the_sound_one(tmp_path):
    for name in TARGETS:
        reader = target(name, tmp_path / name)
        random = np.random.default_rng(3)
        spoilt = {reader.change(reader.sound[0], random) for _ in range(20)}
        assert len(spoilt - set(reader.sound)) > 15
