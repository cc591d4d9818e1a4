"""What objects are held against, in words: the truth, or of measured counts a reference."""

from collections.abc import Mapping, Sequence
from typing import Any

from study_lib.design.axes import MEASURED

TRUTH, REFERENCE = "truth", "reference"
# The longer first: "the true phase" is not "the reference's" and a rest.
FOR_A_REFERENCE = (
    ("the true phase's", "the reference phase's"),
    ("the true phase", "the phase of the reference"),
    ("The true phase", "The phase of the reference"),
    ("true phase", "phase of the reference"),
    ("the true object", "the reference"),
    (TRUTH, REFERENCE),
)


def is_measured(rows: Sequence[Mapping[str, Any]]) -> bool:
    """Return whether rows of comparisons are of measured counts."""
    return any(row.get("source") == MEASURED for row in rows)


def held_against_in(rows: Sequence[Mapping[str, Any]]) -> str:
    """Return what the objects of some rows are held against.

    >>> from study_lib.scores.words import held_against_in
    >>> held_against_in([{"source": "measured"}]), held_against_in([{}])
    ('reference', 'truth')
    """
    return REFERENCE if is_measured(rows) else TRUTH


def said_of(held_against: str, text: str) -> str:
    """Return a text on the truth as it is said of what objects are held against.

    >>> from study_lib.scores.words import said_of
    >>> said_of("reference", "FRC with the truth")
    'FRC with the reference'
    """
    if held_against == TRUTH:
        return text
    for words, others in FOR_A_REFERENCE:
        text = text.replace(words, others)
    return text
