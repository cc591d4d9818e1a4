"""Files of trained networks: numbers and text, so that no code runs when they are read."""

import pickle
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch

from study_lib.errors import InputError


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
