"""The largest and smallest values of a design's fields, each with the reason why it is one.

A limit is far beyond what anyone uses: it stands where the result would have no meaning, or where a
mistyped number would fill memory or take for ever.
"""

from typing import Annotated, Any

from pydantic import AfterValidator, Field, model_validator

from study_lib.design.settings import Frozen


def at_most(limit: float | int, reason: str) -> AfterValidator:
    """Return the check of a field that a number is not above a limit, and why that is one.

    Of a list each number is held against it.
    """

    def check(value: Any) -> Any:
        for one in value if isinstance(value, tuple) else (value,):
            if one is not None and one > limit:
                raise ValueError(f"found {_short(one)}; at most {_short(limit)}: {reason}")
        return value

    return AfterValidator(check)


def at_least(limit: float | int, reason: str) -> AfterValidator:
    """Return the check of a field that a number is not below a limit, and why that is one."""

    def check(value: float | int | None) -> float | int | None:
        if value is not None and value < limit:
            raise ValueError(f"found {_short(value)}; at least {_short(limit)}: {reason}")
        return value

    return AfterValidator(check)


def _short(value: float | int) -> str:
    """Return a number in a few digits, also a whole one that no float can hold."""
    if not isinstance(value, int):
        return f"{value:g}"
    return str(value) if abs(value) < 10**LONGEST else f"a number of over {LONGEST} digits"


def in_order(smaller: str, larger: str) -> Any:
    """Return the check of a model that the first of two fields is not above the second."""

    def check(model: Frozen) -> Frozen:
        low, high = getattr(model, smaller), getattr(model, larger)
        if low > high:
            raise ValueError(f"{smaller} {low} > {larger} {high}; lower the one or raise the other")
        return model

    return model_validator(mode="after")(check)


LONGEST = 16
POSITIONS_MAX = 2**21
POSITIONS_REASON = "a data set holds no more positions"
OBJECT_SIDE_MAX_PX = 20_000
LENGTH_REASON = "no patch is so wide"
SIDE_REASON = "the longest side of an object, in pixels"
EPOCHS_REASON = "longer than any training or reconstruction takes"
TIME_REASON = "more would take longer than anyone waits"
SHARE_MIN = 0.01
NOTHING_LEFT = "less leaves nothing to one of the two parts"

Patterns = Annotated[int, Field(ge=1), at_most(POSITIONS_MAX, POSITIONS_REASON)]
Epochs = Annotated[int, Field(ge=1), at_most(1_000_000, EPOCHS_REASON)]
Patience = Annotated[int, at_most(1_000_000, EPOCHS_REASON)]
Rate = Annotated[
    float,
    at_most(1.0, "a step as large as the weights themselves"),
    at_least(1e-12, "less than the rounding of the weights, which would not move"),
]
Length = Annotated[float, at_most(1000, LENGTH_REASON)]
Norm = Annotated[
    float,
    at_most(1e6, "no gradient is so long; null, where allowed, leaves gradients alone"),
    at_least(1e-6, "the weights would not move"),
]
Share = Annotated[
    float,
    Field(gt=0, lt=1),
    at_least(SHARE_MIN, NOTHING_LEFT),
    at_most(1 - SHARE_MIN, "more leaves nothing to the other part"),
]
Kept = Annotated[float, Field(gt=0, le=1), at_least(SHARE_MIN, "hardly a position is left")]
HeldBack = Annotated[float, Field(gt=0, lt=0.5), at_least(1e-3, "nothing is left to validate with")]
Width = Annotated[int, at_most(1024, "weights and time grow with the square")]
