"""Lengths and energies as files state them: plausible, or refused with the key that says so."""

from pathlib import Path
from typing import NamedTuple

from study_lib.errors import InputError


class Span(NamedTuple):
    """The values a quantity can have in any experiment of this kind."""

    low: float
    high: float
    unit: str


LENGTH = Span(1e-13, 1e5, "m")
SPANS = {
    "photon_energy_ev": Span(10.0, 1e6, "eV"),
    "detector_distance_m": LENGTH,
    "detector_pixel_m": LENGTH,
    "object_pixel_m": LENGTH,
}
POSITIVE = "a length is positive and in metres; correct it or leave it out"
IN_EV = "the energy is in eV; correct it or leave it out"


def plausible(
    path: Path,
    key: str,
    value: float | None,
    quantity: str,
    *,
    factor: float = 1.0,
    remedy: str = POSITIVE,
) -> float | None:
    """Return a length in metres or an energy in eV; None where the file does not state it.

    Parameters
    ----------
    path, key
        Where it was found, for messages.
    value
        The number in the file.
    quantity
        A field of :class:`study_lib.data.formats.acquisition.Geometry`.
    factor
        From the unit of the file to that of the field.
    remedy
        What to do about a value that cannot be.

    Raises
    ------
    InputError
        If it is not finite, not positive, or far from anything that can be measured.
    """
    if value is None:
        return None
    span, converted = SPANS[quantity], value * factor
    if span.low <= converted <= span.high:
        return converted
    stated = f"{value:g}" + (f", which is {converted:g} {span.unit}" if factor != 1 else "")
    raise InputError(
        f"{path}: {key}: found {stated}; allowed are {span.low:g} to {span.high:g} {span.unit}; "
        f"{remedy}"
    )
