"""Files of networks: checkpoints of a training, and trained weights.

A checkpoint is whole or absent, its damage is noticed, and it is never taken for another's. Files
hold numbers and text, so that no code runs when they are read.
"""

import hashlib
import io
import pickle
import shutil
import warnings
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from study_lib.errors import InputError, StudyError
from study_lib.files import atomic_path

LAST, PREVIOUS = "last.ckpt", "previous.ckpt"
DAMAGED = "damaged.ckpt"
CHECKPOINTS = "checkpoints"  # the folder of them in that of a training
TITLE = b"ptychography training checkpoint 1, sha256 "

Warn = Callable[[str], None]


class DamagedError(StudyError):
    """A checkpoint's content is not what was written."""


@dataclass(frozen=True)
class CheckpointFolder:
    """The newest checkpoint of one training, and the one before it.

    Parameters
    ----------
    folder
        Made on the first :meth:`save`.
    origin
        What the training is made of, as plain values: a checkpoint of anything else is refused.
    machine
        What decides the last digits: a checkpoint from another one is used, with a warning.
    warn
        Called with one line on anything unexpected.
    """

    folder: Path
    origin: Mapping[str, Any]
    machine: Mapping[str, Any]
    warn: Warn

    def save(self, state: Mapping[str, Any]) -> None:
        """Write the newest checkpoint; the one before it is kept."""
        last = self.folder / LAST
        with atomic_path(last) as temporary:
            self._write(temporary, state)
            if last.exists():
                last.replace(self.folder / PREVIOUS)

    def load(self) -> dict[str, Any] | None:
        """Return the newest whole state; None if nothing has been saved.

        A damaged file is set aside, so that the next :meth:`save` does not push out the whole one.

        Raises
        ------
        InputError
            If it belongs to another configuration or to other data, or if there are checkpoints
            and none of them is whole.
        """
        present = [path for name in (LAST, PREVIOUS) if (path := self.folder / name).exists()]
        faults = []
        for path in present:
            try:
                content = read_checkpoint(path)
            except DamagedError as fault:
                faults.append(str(fault))
                continue
            for text in faults:
                self.warn(f"{text}; {path.name} before it is used")
                (self.folder / LAST).replace(self.folder / DAMAGED)
            if path.name == PREVIOUS and not faults:
                self.warn(f"{self.folder / LAST}: missing; {path.name} before it is used")
            self._check_origin(path, content)
            state: dict[str, Any] = content["state"]
            return state
        if faults:
            raise InputError(
                f"{'; '.join(faults)}; no whole checkpoint is left: remove {self.folder} to "
                "train from the beginning"
            )
        return None

    def _write(self, path: Path, state: Mapping[str, Any]) -> None:
        buffer = io.BytesIO()
        content = {"origin": self.origin, "machine": self.machine, "state": state}
        torch.save({name: dict(value) for name, value in content.items()}, buffer)
        payload = buffer.getbuffer()
        digest = hashlib.sha256(payload).hexdigest().encode()
        with path.open("wb") as file:
            file.write(TITLE + digest + b"\n")
            file.write(payload)

    def _check_origin(self, path: Path, content: Mapping[str, Any]) -> None:
        differing = _differences(content["origin"], self.origin)
        if differing:
            raise InputError(
                f"{path}: checkpoint of another training ({'; '.join(differing)}); train with its "
                f"values, or remove {self.folder} to train from the beginning"
            )
        differing = _differences(content["machine"], self.machine)
        if differing:
            self.warn(
                f"{path}: written on another machine ({'; '.join(differing)}); the weights may "
                "differ in their last digits from those of an uninterrupted training"
            )


def remove_checkpoints(folder: Path) -> None:
    """Remove the checkpoints of a training whose results and record are written.

    Those that cannot be removed give a warning and harm nothing: the same training would end at
    once.
    """
    try:
        shutil.rmtree(folder)
    except FileNotFoundError:  # none were written, or another process of the training was faster
        return
    except OSError as error:
        warnings.warn(f"{folder}: not removed ({error}); remove it", stacklevel=2)


def read_checkpoint(path: Path) -> dict[str, Any]:
    """Return what a checkpoint file holds: origin, machine and state; runs no code from it.

    Raises
    ------
    DamagedError
        If the file is not as it was written.
    """
    title, _, payload = path.read_bytes().partition(b"\n")
    expected = title.removeprefix(TITLE).decode("ascii", errors="replace")
    if not title.startswith(TITLE) or len(expected) != 64:
        raise DamagedError(f"{path}: not a checkpoint of this study")
    found = hashlib.sha256(payload).hexdigest()
    if found != expected:
        raise DamagedError(
            f"{path}: damaged, its content has SHA-256 {found[:8]}, not {expected[:8]}"
        )
    try:
        content = torch.load(io.BytesIO(payload), map_location="cpu", weights_only=True)
    except pickle.UnpicklingError:
        raise DamagedError(f"{path}: holds more than numbers and text; not loaded") from None
    except Exception as error:  # torch raises many types for what is no file of its own
        raise DamagedError(f"{path}: not a checkpoint of this study ({error})") from None
    checked: dict[str, Any] = content
    return checked


def _differences(found: Mapping[str, Any], wanted: Mapping[str, Any]) -> list[str]:
    return [
        f"{name}: {found.get(name)} there, {wanted.get(name)} here"
        for name in sorted(found.keys() | wanted.keys())
        if found.get(name) != wanted.get(name)
    ]


# --- Trained weights


@contextmanager
def content_of(path: Path, missing: str, kind: str) -> Iterator[dict[str, Any]]:
    """Give a block the content of a file; what it cannot use is a wrong input.

    Parameters
    ----------
    path
        Written by ``torch.save``.
    missing
        What is said of a file that is not there, with the command that writes it.
    kind
        What the file should hold, ``"a network"``.

    Raises
    ------
    InputError
        If the file is missing, torn, holds more than numbers and text, or not what the block needs.
    """
    if not path.is_file():
        raise InputError(f"{path}: {missing}")
    try:
        yield torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError:  # whose text advises to load it all the same
        raise InputError(
            f"{path}: not {kind} of this study (torn, or holds more than numbers and text); "
            "train it again"
        ) from None
    except Exception as error:  # torch raises many types here; each means the same to the user
        raise InputError(f"{path}: not {kind} of this study ({error}); train it again") from None
