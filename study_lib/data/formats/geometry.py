"""Lengths and energies of an experiment: as a file states them, as the user does, and together.

Nothing is invented here: a quantity is stated, follows from others by a law that the docstring
names, or is not known. Where a file contradicts itself it is refused with both numbers; where the
user contradicts a file, the user has the last word, and it is said.
"""

from collections.abc import Iterable
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from study_lib.data.hdf5 import Hdf5Reader
from study_lib.errors import InputError

PLANCK_TIMES_LIGHT_EV_M = 1.239841984332003e-6
ELECTRON_REST_ENERGY_EV = 510998.95
SQUARE_TOLERANCE = 1e-6
CONTRADICTION = 0.01  # of one number by another; below, it is rounding


def electron_wavelength_m(energy_ev: float) -> float:
    """Return the wavelength of electrons of a kinetic energy.

    ``h c / sqrt(E (E + 2 m c^2))``, which is relativistic: at 300 keV the classical formula is
    14 % off.

    Parameters
    ----------
    energy_ev
        Kinetic energy, as the accelerating voltage gives it.

    References
    ----------
    Kirkland, Advanced Computing in Electron Microscopy (2010), equation 2.5,
    doi:10.1007/978-1-4419-6533-2
    """
    momentum_ev = np.sqrt(energy_ev * (energy_ev + 2 * ELECTRON_REST_ENERGY_EV))
    return float(PLANCK_TIMES_LIGHT_EV_M / momentum_ev)


def energy_of_wavelength_ev(wavelength_m: float, electrons: bool = False) -> float:
    """Return the energy of photons, or the kinetic energy of electrons, of a wavelength.

    Parameters
    ----------
    wavelength_m
        In vacuum.
    electrons
        The inverse of :func:`electron_wavelength_m`; else ``h c / wavelength``.
    """
    momentum_ev = PLANCK_TIMES_LIGHT_EV_M / wavelength_m
    if not electrons:
        return momentum_ev
    return float(np.hypot(momentum_ev, ELECTRON_REST_ENERGY_EV) - ELECTRON_REST_ENERGY_EV)


@dataclass(frozen=True)
class Geometry:
    """Lengths in metres and energy, as far as they are known.

    ``photon_energy_ev`` is the kinetic energy where ``electrons`` is True.

    References
    ----------
    The pixel of the object is ``wavelength * distance / (N * detector pixel)`` in the far field:
    Rodenburg and Maiden, Ptychography, Springer Handbook of Microscopy (2019),
    doi:10.1007/978-3-030-00069-1_17
    """

    photon_energy_ev: float | None = None
    detector_distance_m: float | None = None
    detector_pixel_m: float | None = None
    object_pixel_m: float | None = None
    electrons: bool = False

    @property
    def wavelength_m(self) -> float | None:
        """Wavelength, if the energy is known."""
        if not self.photon_energy_ev:
            return None
        if self.electrons:
            return electron_wavelength_m(self.photon_energy_ev)
        return PLANCK_TIMES_LIGHT_EV_M / self.photon_energy_ev

    @property
    def photons_of_wavelength_ev(self) -> float | None:
        """Energy of photons of this wavelength, for programs that know no other particle."""
        return self.wavelength_m and PLANCK_TIMES_LIGHT_EV_M / self.wavelength_m

    def computed_pixel_m(self, side_px: int) -> float | None:
        """Return the pixel of the object that follows from the other lengths for N = ``side_px``.

        The lengths are those of the far field; None where one is not known.
        """
        if self.wavelength_m and self.detector_distance_m and self.detector_pixel_m:
            return self.wavelength_m * self.detector_distance_m / (side_px * self.detector_pixel_m)
        return None

    def pixel_of_object_m(self, side_px: int) -> float | None:
        """Return the pixel of the object: as stated, or from the lengths for N = ``side_px``."""
        return self.object_pixel_m or self.computed_pixel_m(side_px)

    def fresnel_number(self, field_m: float) -> float | None:
        """Return ``field_m ** 2 / (wavelength * distance)``; None where one is not known.

        Of an illuminated field: the far field asks for well below 1 after its curvature is taken
        into the probe; a number of hundreds is a hologram in the near field.

        Parameters
        ----------
        field_m
            Full width of the field of view, or of the probe.

        References
        ----------
        Goodman, Introduction to Fourier Optics (2005), section 4.2 and 4.3
        """
        if not self.wavelength_m or not self.detector_distance_m:
            return None
        return field_m**2 / (self.wavelength_m * self.detector_distance_m)

    def resized(self, factor: float, binned: int = 1) -> "Geometry":
        """Return the geometry of frames that were cropped, padded or binned.

        Parameters
        ----------
        factor
            Pixel of the object after it over the pixel before.
        binned
            Detector pixels that became one, along each axis.
        """
        return replace(
            self,
            object_pixel_m=self.object_pixel_m and self.object_pixel_m * factor,
            detector_pixel_m=self.detector_pixel_m and self.detector_pixel_m * binned,
        )

    def known(self) -> dict[str, float]:
        """Return what is known, for JSON."""
        return {key: value for key, value in asdict(self).items() if value}


UNKNOWN = Geometry()


# --- Plausible, or refused with the key that says so


class Span(NamedTuple):
    """The values a quantity can have in any experiment of this kind."""

    low: float
    high: float
    unit: str


LENGTH = Span(1e-13, 1e5, "m")
SPANS = {
    "photon_energy_ev": Span(10.0, 1e6, "eV"),
    "detector_distance_m": Span(1e-4, 300.0, "m"),
    "detector_pixel_m": Span(1e-7, 0.01, "m"),
    "object_pixel_m": LENGTH,
    "wavelength_m": Span(1e-13, 1e-6, "m"),
}
POSITIVE = "lengths are in metres; correct it, or give the right one by an option"
IN_EV = "the energy is in eV; correct it or leave it out"


def plausible_quantity(
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
        A field of :class:`Geometry`, or ``wavelength_m``.
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


def quantity_in(file: Hdf5Reader, name: str, quantity: str, **unit: Any) -> float | None:
    """Return a number of a file as :func:`plausible_quantity`, whose factor and remedy `unit` is.

    Raises
    ------
    InputError
        If it is not finite, not positive, or far from anything that can be measured.
    """
    return plausible_quantity(file.path, name, file.number(name), quantity, **unit)


def square_side(
    file: Hdf5Reader, name: str, sides: Iterable[float | None], remedy: str
) -> float | None:
    """Return the length that both sides of a pixel have; None where the file states neither.

    Raises
    ------
    InputError
        If pixels are not square or not positive.
    """
    known = [side for side in sides if side is not None]
    if not known:
        return None
    difference_max = SQUARE_TOLERANCE * max(known)
    if not np.isfinite(known).all() or min(known) <= 0 or max(known) - min(known) > difference_max:
        raise file.refusal(
            name,
            f"found pixels of {' x '.join(f'{side:g}' for side in known)} m",
            f"the study needs square pixels of a positive size; {remedy}",
        )
    return float(known[0])


# --- What the user says about it, and both together

GIVEN = {
    "photon_energy_ev": ("--energy-ev", "energy_ev", 1.0),
    "wavelength_m": ("--wavelength-m", "wavelength_m", 1.0),
    "detector_distance_m": ("--distance-m", "distance_m", 1.0),
    "detector_pixel_m": ("--detector-pixel-um", "detector_pixel_um", 1e-6),
    "object_pixel_m": ("--object-pixel-nm", "object_pixel_nm", 1e-9),
}


@dataclass(frozen=True)
class GivenLengths:
    """Lengths and energy by the options of the command line, in the units that their names say."""

    energy_ev: float | None = None
    wavelength_m: float | None = None
    distance_m: float | None = None
    detector_pixel_um: float | None = None
    object_pixel_nm: float | None = None
    electrons: bool = False

    def converted(self, path: Path) -> dict[str, float]:
        """Return those that are given, in metres and electronvolts, by the fields' names.

        Raises
        ------
        InputError
            If one cannot be.
        """
        found = {
            name: plausible_quantity(path, flag, getattr(self, key), name, factor=factor)
            for name, (flag, key, factor) in GIVEN.items()
        }
        return {name: value for name, value in found.items() if value is not None}


NO_LENGTHS = GivenLengths()


class Resolved(NamedTuple):
    """The geometry that holds, and what has to be said about how it came to be."""

    geometry: Geometry
    remarks: tuple[str, ...]


def resolved_geometry(
    path: Path,
    stated: Geometry,
    given: GivenLengths,
    side_px: int | None,
    wavelength_m: float | None = None,
) -> Resolved:
    """Return what file and user say together; the user has the last word.

    Parameters
    ----------
    path
        The file, for messages.
    stated
        What the file states.
    given
        What the user does.
    side_px
        N of the patterns in the file; None where there are none.
    wavelength_m
        Where the file states it, too.

    Raises
    ------
    InputError
        If energy and wavelength contradict each other and no option decides.
    """
    said = given.converted(path)
    geometry, remarks = _beam(path, stated, given, said, wavelength_m)
    for name in ("detector_distance_m", "detector_pixel_m", "object_pixel_m"):
        if name in said:
            remarks += _overruled(GIVEN[name][0], said[name], getattr(stated, name))
    geometry = replace(
        geometry,
        detector_distance_m=said.get("detector_distance_m", stated.detector_distance_m),
        detector_pixel_m=said.get("detector_pixel_m", stated.detector_pixel_m),
        object_pixel_m=said.get("object_pixel_m", stated.object_pixel_m),
    )
    computed_m = geometry.computed_pixel_m(side_px) if side_px else None
    if "object_pixel_m" in said:
        if computed_m and _apart(said["object_pixel_m"], computed_m):
            remarks.append(
                f"--object-pixel-nm says {said['object_pixel_m']:.4g} m, energy, distance and "
                f"detector pixel make it {computed_m:.4g} m; the option was taken"
            )
    elif (said or given.electrons) and computed_m and geometry.object_pixel_m:
        # The user changed what the pixel follows from: it follows.
        flags = ", ".join(GIVEN[name][0] for name in said) or "--electrons"
        remarks += _overruled(flags, computed_m, geometry.object_pixel_m, "an object pixel of ")
        geometry = replace(geometry, object_pixel_m=None)
    return Resolved(geometry, tuple(remarks))


def _beam(
    path: Path,
    stated: Geometry,
    given: GivenLengths,
    said: dict[str, float],
    wavelength_m: float | None,
) -> tuple[Geometry, list[str]]:
    """Return the geometry with the energy that holds, and whether it is that of electrons."""
    energy_ev, length_m = stated.photon_energy_ev, wavelength_m
    where = "the file states"
    if "photon_energy_ev" in said or "wavelength_m" in said:
        energy_ev, length_m = said.get("photon_energy_ev"), said.get("wavelength_m")
        where = "the options state"
    electrons = given.electrons or stated.electrons
    remarks: list[str] = []
    if energy_ev is None and length_m is not None:
        energy_ev = energy_of_wavelength_ev(length_m, electrons)
    elif energy_ev is not None and length_m is not None:
        photons_m = PLANCK_TIMES_LIGHT_EV_M / energy_ev
        electrons_m = electron_wavelength_m(energy_ev)
        if not _apart(length_m, electrons_m):
            if not electrons:
                remarks.append(
                    f"{where} {energy_ev:g} eV and {length_m:.5g} m, which is the wavelength of "
                    "electrons of this energy: taken as electrons"
                )
            electrons = True
        elif given.electrons and not said:
            remarks += _overruled("--electrons", electrons_m, length_m, "a wavelength of ")
        elif electrons or _apart(length_m, photons_m):
            raise InputError(
                f"{path}: {where} an energy of {energy_ev:g} eV and a wavelength of {length_m:.5g} "
                f"m; of this energy photons have {photons_m:.5g} m, electrons {electrons_m:.5g} m; "
                "say --energy-ev or --wavelength-m, which has the last word, and --electrons "
                "where they are"
            )
    geometry = replace(stated, photon_energy_ev=energy_ev, electrons=electrons)
    before, after = stated.wavelength_m or wavelength_m, geometry.wavelength_m
    if said.keys() & {"photon_energy_ev", "wavelength_m"} and after and before:
        flags = [flag for name, (flag, _, _) in GIVEN.items() if name in said]
        remarks += _overruled(flags[0], after, before, "a wavelength of ")
    return geometry, remarks


def _overruled(flag: str, said: float, stated: float | None, what: str = "") -> list[str]:
    if stated is None or not _apart(said, stated):
        return []
    return [f"{flag} makes it {what}{said:.5g} m, the file states {stated:.5g} m; the option holds"]


def _apart(first: float, second: float) -> bool:
    return abs(first - second) > CONTRADICTION * max(abs(first), abs(second))
