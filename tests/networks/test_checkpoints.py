"""Checkpoints are whole or absent; damage, strangers and code in them are noticed."""

import shutil
import zipfile
from pathlib import Path

import pytest
import torch
from hostile import Evil

from study_lib.errors import InputError, StudyError
from study_lib.networks.checkpoints import (
    LAST,
    PREVIOUS,
    CheckpointFolder,
    DamagedError,
    read_checkpoint,
    remove_checkpoints,
)

ORIGIN = {"learning_rate": 1e-3, "measurement": "a" * 64}
MACHINE = {"threads": 1}


@pytest.fixture
def notes() -> list[str]:
    return []


@pytest.fixture
def folder(tmp_path, notes) -> CheckpointFolder:
    return CheckpointFolder(tmp_path / "checkpoints", ORIGIN, MACHINE, notes.append)


def state(epoch: int) -> dict:
    return {"weights": torch.full((5,), float(epoch)), "epoch": epoch, "best": {"loss": 0.5}}


def damage(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)


def test_nothing_saved_is_nothing_to_load(folder, notes):
    assert folder.load() is None
    assert notes == []


def test_newest_state_comes_back(folder, notes):
    for epoch in (1, 2, 3):
        folder.save(state(epoch))

    loaded = folder.load()

    assert loaded["epoch"] == 3
    assert torch.equal(loaded["weights"], state(3)["weights"])
    assert notes == []
    assert {path.name for path in folder.folder.iterdir()} == {LAST, PREVIOUS}


def test_single_flipped_bit_is_noticed_and_the_one_before_is_used(folder, notes):
    folder.save(state(1))
    folder.save(state(2))
    damage(folder.folder / LAST)

    assert folder.load()["epoch"] == 1

    (text,) = notes
    assert "last.ckpt: damaged, its content has SHA-256" in text
    assert text.endswith("previous.ckpt before it is used")


@pytest.mark.parametrize("share", [0.0, 0.01, 0.9])
def test_truncated_checkpoint_is_noticed(share, folder, notes):
    folder.save(state(1))
    folder.save(state(2))
    content = (folder.folder / LAST).read_bytes()
    (folder.folder / LAST).write_bytes(content[: int(share * len(content))])

    assert folder.load()["epoch"] == 1
    assert len(notes) == 1


def test_crash_between_the_two_renamings_costs_one_checkpoint(folder, notes):
    folder.save(state(1))
    folder.save(state(2))
    (folder.folder / LAST).unlink()

    assert folder.load()["epoch"] == 1
    assert notes == [f"{folder.folder / LAST}: missing; previous.ckpt before it is used"]


def test_damaged_checkpoint_does_not_push_out_the_whole_one(folder):
    """After a fallback the next save keeps a whole checkpoint beside the new one."""
    folder.save(state(1))
    folder.save(state(2))
    damage(folder.folder / LAST)
    folder.load()

    folder.save(state(3))

    damage(folder.folder / LAST)
    assert folder.load()["epoch"] == 1


def test_no_whole_checkpoint_is_an_error_with_a_remedy(folder):
    folder.save(state(1))
    folder.save(state(2))
    damage(folder.folder / LAST)
    damage(folder.folder / PREVIOUS)

    with pytest.raises(StudyError, match=r"no whole checkpoint is left: remove .*checkpoints to"):
        folder.load()


def test_checkpoint_of_another_training_is_refused_with_what_differs(folder):
    folder.save(state(1))
    other = CheckpointFolder(folder.folder, ORIGIN | {"learning_rate": 0.1}, MACHINE, print)

    with pytest.raises(InputError, match=r"learning_rate: 0.001 there, 0.1 here\); train with"):
        other.load()


def test_checkpoint_of_other_data_is_refused(folder):
    folder.save(state(1))
    other = CheckpointFolder(folder.folder, ORIGIN | {"measurement": "b" * 64}, MACHINE, print)

    with pytest.raises(InputError, match=r"checkpoint of another training \(measurement: aaa"):
        other.load()


def test_other_machine_is_noted_not_refused(folder, notes):
    folder.save(state(1))
    other = CheckpointFolder(folder.folder, ORIGIN, {"threads": 8}, notes.append)

    assert other.load()["epoch"] == 1
    assert "threads: 1 there, 8 here" in notes[0]


def test_failed_write_leaves_what_was_there(folder, monkeypatch):
    folder.save(state(1))
    monkeypatch.setattr(torch, "save", lambda *_: (_ for _ in ()).throw(OSError("disk is full")))

    with pytest.raises(OSError, match="disk is full"):
        folder.save(state(2))

    monkeypatch.undo()
    assert folder.load()["epoch"] == 1
    assert [path.name for path in folder.folder.iterdir()] == [LAST]


def test_checkpoints_are_removed_whether_there_are_any_or_not(folder):
    folder.save(state(1))

    for _ in range(2):
        remove_checkpoints(folder.folder)
        assert not folder.folder.exists()


def test_checkpoints_that_cannot_be_removed_are_told(folder, monkeypatch):
    folder.save(state(1))
    monkeypatch.setattr(shutil, "rmtree", lambda _: (_ for _ in ()).throw(OSError("busy")))

    with pytest.warns(UserWarning, match=r"checkpoints: not removed \(busy\); remove it"):
        remove_checkpoints(folder.folder)


def test_checkpoint_that_would_run_code_is_refused(folder, tmp_path):
    trace = tmp_path / "was_here"
    folder.save({"evil": Evil(trace)})

    with pytest.raises(StudyError, match=r"last.ckpt: holds more than numbers"):
        folder.load()

    assert not trace.exists()


@pytest.mark.parametrize("content", [b"", b"text\n", b"\x80\x02N.", b"PK\x03\x04"])
def test_other_files_are_no_checkpoints(content, tmp_path):
    path = tmp_path / "x.ckpt"
    path.write_bytes(content)

    with pytest.raises(DamagedError, match="not a checkpoint of this study"):
        read_checkpoint(path)


def test_checkpoint_is_a_line_and_a_plain_torch_file(folder, tmp_path):
    """Without this program: cut off the first line."""
    folder.save(state(4))
    line, _, payload = (folder.folder / LAST).read_bytes().partition(b"\n")
    (tmp_path / "plain.pt").write_bytes(payload)

    assert line.isascii()
    assert zipfile.is_zipfile(tmp_path / "plain.pt")
    assert torch.load(tmp_path / "plain.pt", weights_only=True)["state"]["epoch"] == 4
