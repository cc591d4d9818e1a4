"""The command line, called in this process."""

import sys
from typing import NamedTuple

import pytest

from study_lib.cli.main import main


class Called(NamedTuple):
    """What a call came to: exit code, standard output, standard error."""

    code: int
    out: str
    err: str


def exit_code(*words: object) -> int:
    """Run the command line with these words; return its exit code."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sys, "argv", ["study", *map(str, words)])
        with pytest.raises(SystemExit) as ended:
            main()
    return int(ended.value.code or 0)
