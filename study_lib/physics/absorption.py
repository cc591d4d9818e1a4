"""What a material takes up of the light: its mass photoabsorption coefficient, and its dose."""

import math
import re
from functools import cache

from study_lib.errors import InputError

JOULE_PER_EV = 1.602176634e-19  # exact, SI
ENERGY_MIN_EV, ENERGY_MAX_EV = 100.0, 800e3  # of the tables; beyond, they repeat their last value
ISOTOPES = re.compile(r"[DT](?![a-z])")  # the parser takes both for H, with its mass
HEAVIEST = 98  # atomic number of the last element in the tables, californium
FORMULA_CHARACTERS = 100


@cache
def mass_absorption_m2_per_kg(formula: str, energy_ev: float) -> float:
    r"""Return the mass photoabsorption coefficient of a material.

    Of a compound or mixture it is the mean over the elements, each weighted with its share
    :math:`w_i` of the mass, :math:`\mu/\rho = \sum_i w_i (\mu/\rho)_i`. Scattering is not in it.

    Parameters
    ----------
    formula
        Chemical formula, such as ``Au``, ``SiO2``, ``Ca5(PO4)3OH``; numbers may be fractions.
    energy_ev
        Photon energy [eV], 100 to 800000.

    Returns
    -------
    float
        In m^2/kg; a tenth of the same in cm^2/g.

    Raises
    ------
    InputError
        If the formula is none or names an isotope, or the tables lack an element or the energy.

    References
    ----------
    Elam, Ravel and Sieber, Radiat. Phys. Chem. 63, 121 (2002),
    doi:10.1016/S0969-806X(01)00227-4; read by XrayDB.

    Examples
    --------
    Water at 10 keV; NIST has 0.4944:

    >>> from study_lib.physics.absorption import mass_absorption_m2_per_kg
    >>> round(mass_absorption_m2_per_kg("H2O", 10e3), 4)
    0.4944
    """
    import xraydb  # takes most of a second

    example = "write it like Au, SiO2 or Ca5(PO4)3OH"
    if not ENERGY_MIN_EV <= energy_ev <= ENERGY_MAX_EV:
        raise InputError(
            f"photon energy {energy_ev:g} eV: the tables reach from {ENERGY_MIN_EV:g} to "
            f"{ENERGY_MAX_EV:g} eV"
        )
    if not 0 < len(formula.strip()) <= FORMULA_CHARACTERS:
        raise InputError(
            f"{len(formula)} characters are no chemical formula; give 1 to {FORMULA_CHARACTERS}, "
            f"and {example}"
        )
    isotope = ISOTOPES.search(formula)
    if isotope:
        raise InputError(
            f"{formula!r} holds {isotope[0]}: the tables are of natural elements and know no "
            "isotope; write H, and lower the dose in gray by hand for the larger mass (D2O weighs "
            "1.11 times as much as H2O and absorbs the same)"
        )
    try:
        atoms = xraydb.chemparse(formula)
    except ValueError as error:
        reason = str(error).partition("\n")[0].rstrip(":")
        raise InputError(f"{formula!r} is no chemical formula ({reason}); {example}") from None
    if not atoms or not all(0 < count < math.inf for count in atoms.values()):
        counted = ", ".join(f"{count:g} {name}" for name, count in atoms.items())
        raise InputError(
            f"{formula!r} holds {counted or 'no element'}; give each element a number above zero"
        )
    missing = [name for name in atoms if xraydb.atomic_number(name) > HEAVIEST]
    if missing:
        raise InputError(f"{formula!r}: the tables end at Cf and have no {', '.join(missing)}")
    masses = {name: count * xraydb.atomic_mass(name) for name, count in atoms.items()}
    absorbed = math.fsum(
        mass * float(xraydb.mu_elam(name, energy_ev, kind="photo")) for name, mass in masses.items()
    )
    return 0.1 * absorbed / math.fsum(masses.values())


def surface_dose_gy(photons_per_m2: float, energy_ev: float, absorption_m2_per_kg: float) -> float:
    r"""Return the energy that a mass takes up where the light enters it.

    The dose is :math:`D = N h\nu\,\mu/\rho`: of a specimen that is thin beside its absorption
    length, everywhere; of a thicker one the largest, at its surface. All energy of an absorbed
    photon is taken to stay, also what fluorescence carries away.

    Parameters
    ----------
    photons_per_m2
        Photons that fell on the surface [1/m^2].
    energy_ev
        Of a photon [eV].
    absorption_m2_per_kg
        From :func:`mass_absorption_m2_per_kg` [m^2/kg].

    Returns
    -------
    float
        In Gy = J/kg.

    References
    ----------
    Howells et al., J. Electron Spectrosc. Relat. Phenom. 170, 4 (2009),
    doi:10.1016/j.elspec.2008.10.008.

    Examples
    --------
    A million photons of 10 keV on a square micrometre of water:

    >>> from study_lib.physics.absorption import mass_absorption_m2_per_kg, surface_dose_gy
    >>> round(surface_dose_gy(1e6 * 1e12, 10e3, mass_absorption_m2_per_kg("H2O", 10e3)))
    792
    """
    return photons_per_m2 * energy_ev * JOULE_PER_EV * absorption_m2_per_kg
