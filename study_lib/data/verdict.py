"""The verdict on an import, as the metadata of a data set keep it."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, get_args

from study_lib.errors import InputError

Level = Literal["good", "doubtful", "wrong"]
VERDICT = "import_verdict"  # in the metadata
SIMULATED_FROM = "simulated_from_sha256"  # there too: the file whose scan was counted anew


@dataclass(frozen=True)
class Verdict:
    """``good``, ``doubtful`` or ``wrong``, and why."""

    level: Level
    reasons: tuple[str, ...] = ()

    def __str__(self) -> str:
        return self.level + (f": {'; '.join(self.reasons)}" if self.reasons else "")


def worse_of(first: Verdict, second: Verdict) -> Verdict:
    """Return the worse level of two verdicts, with the reasons of both."""
    levels = get_args(Level)
    worse = max(first.level, second.level, key=levels.index)
    return Verdict(worse, (*first.reasons, *second.reasons))


def verdict_in(metadata: Mapping[str, Any]) -> Verdict | None:
    """Return the verdict in the metadata of a data set; None where it was not imported here."""
    said = metadata.get(VERDICT)
    if not isinstance(said, dict) or said.get("level") not in get_args(Level):
        return None
    reasons = said.get("reasons")
    return Verdict(said["level"], tuple(map(str, reasons)) if isinstance(reasons, list) else ())


def require_believable(path: Path, metadata: Mapping[str, Any], *, accept: bool) -> None:
    """Refuse base data whose import was judged wrong, unless they are accepted all the same.

    Raises
    ------
    InputError
        With the reasons.
    """
    verdict = verdict_in(metadata)
    if verdict is not None and verdict.level == "wrong" and not accept:
        raise InputError(
            f"{path}: its import was judged {verdict}; import it again, or take it all the same "
            "with --accept-doubtful"
        )
