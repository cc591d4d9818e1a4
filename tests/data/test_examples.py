"""Example data come with their licence, and only if they are what the project says they are."""

from pathlib import Path
from unittest.mock import Mock

import pytest

from study_lib.data import examples
from study_lib.data.examples import EXAMPLES
from study_lib.files import sha256_of

STAR = EXAMPLES["star"]
COPY = Path(__file__).resolve().parents[3] / "shared" / "data" / STAR.name


def test_a_copy_that_is_not_the_example_is_refused_with_both_hashes(study, tmp_path):
    (tmp_path / "copy.bz2").write_bytes(b"something else")

    code, _, error = study("example", "star", "folder", "--from", "copy.bz2")

    assert code == 2
    assert STAR.sha256 in error
    assert sha256_of(tmp_path / "copy.bz2") in error
    assert not (tmp_path / "folder").exists()


def test_a_missing_copy_is_said(study):
    code, _, error = study("example", "star", "--from", "none.bz2")

    assert (code, "none.bz2: no such file" in error) == (2, True)


@pytest.mark.parametrize("name", [STAR.name, STAR.licence])
def test_another_file_in_its_place_stays(name, study, tmp_path):
    (tmp_path / name).write_bytes(b"mine")

    code, _, error = study("example", "star")

    assert code == 2
    assert "is there; choose another folder" in error
    assert (tmp_path / name).read_bytes() == b"mine"
    assert [path.name for path in tmp_path.iterdir()] == [name]


@pytest.mark.parametrize(
    ("raised", "message"),
    [
        (OSError("no route to host"), "could not be fetched (no route to host)"),
        (ValueError("hash differs"), "what came is not it (hash differs)"),
    ],
)
def test_without_a_network_the_way_without_it_is_said(
    raised, message, study, tmp_path, monkeypatch
):
    monkeypatch.setattr(examples.pooch, "retrieve", Mock(side_effect=raised))

    code, _, error = study("example", "star")

    assert code == 1
    assert message in error
    assert STAR.url in error
    assert "--from FILE" in error
    assert list(tmp_path.iterdir()) == []


def test_what_is_fetched_is_named_by_a_commit_and_a_hash(study, tmp_path, monkeypatch):
    def retrieve(url, *, known_hash, fname, path, downloader):
        (Path(path) / fname).write_bytes(b"as if it had come")
        asked.update(url=url, known_hash=known_hash)

    asked = {}
    monkeypatch.setattr(examples.pooch, "retrieve", retrieve)

    code, out, error = study("example", "star", "folder")

    assert code == 0, error
    assert asked == {"url": STAR.url, "known_hash": f"sha256:{STAR.sha256}"}
    assert (tmp_path / "folder" / STAR.name).read_bytes() == b"as if it had come"
    assert "UChicago Argonne" in (tmp_path / "folder" / STAR.licence).read_text()
    assert "next: study import folder/siemens-star-small.npz.bz2 folder/star.npz" in out


@pytest.mark.skipif(not COPY.is_file(), reason="no copy of the example beside the project")
def test_the_example_is_taken_from_a_copy_and_a_second_call_changes_nothing(study, tmp_path):
    first = study("example", "star", "--from", COPY)
    times = {path: path.stat().st_mtime_ns for path in tmp_path.glob("*.bz2")}
    second = study("example", "star")

    assert (first.code, second.code) == (0, 0), first.err + second.err
    assert sha256_of(tmp_path / STAR.name) == STAR.sha256
    assert {path: path.stat().st_mtime_ns for path in tmp_path.glob("*.bz2")} == times
