"""The specimens on which arms are held against one another: two to develop on, three kept back."""

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType

from study_lib.errors import InputError

PRESET = "science"
SEEDS, SEEDS_KEPT_BACK = 3, 5


@dataclass(frozen=True)
class BedSpecimen:
    """One specimen: what it changes in the preset, or that its object comes from a file.

    ``kept_back``: no choice is made on it, and it is run once, when all have been made. With other
    seeds and settings of before, objects of its kind have been looked at.
    """

    settings: tuple[str, ...] = ()
    kept_back: bool = False
    from_file: bool = False

    @property
    def replicates(self) -> int:
        """Seeds, each with its own noise, choice of patterns and training."""
        return SEEDS_KEPT_BACK if self.kept_back else SEEDS


SPECIMENS: Mapping[str, BedSpecimen] = MappingProxyType(
    {
        "grains": BedSpecimen(),
        "cells": BedSpecimen(("specimen.kind=cells",)),
        "power_law": BedSpecimen(("specimen.kind=power_law",), kept_back=True),
        "siemens_star": BedSpecimen(("specimen.kind=siemens_star",), kept_back=True),
        "measured_star": BedSpecimen(kept_back=True, from_file=True),
    }
)


def specimens_of(*, kept_back: bool) -> dict[str, BedSpecimen]:
    """Return the specimens of development, or those kept back.

    >>> from study_lib.design.test_bed import specimens_of
    >>> list(specimens_of(kept_back=False))
    ['grains', 'cells']
    """
    return {name: one for name, one in SPECIMENS.items() if one.kept_back == kept_back}


def require_specimens(names: tuple[str, ...]) -> None:
    """Check that specimens exist.

    Raises
    ------
    InputError
        If one does not; names those there are.
    """
    unknown = [name for name in names if name not in SPECIMENS]
    if unknown:
        raise InputError(f"specimen {unknown[0]!r}: choose from {', '.join(SPECIMENS)}")
