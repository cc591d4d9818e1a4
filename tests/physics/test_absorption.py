"""Doses in gray: published coefficients, and the laws that any absorption keeps."""

import math

import pytest
import xraydb

from study_lib.errors import InputError
from study_lib.physics.absorption import mass_absorption_m2_per_kg, surface_dose_gy

PER_CM2_PER_G = 0.1  # m^2/kg
PROTEIN = "H48.6C32.9N8.9O8.9S0.6"  # Howells et al. 2009


@pytest.mark.parametrize(
    ("formula", "energy_ev", "published_cm2_per_g"),
    [("H2O", 1e3, 4065.0), ("H2O", 5e3, 41.92), ("H2O", 10e3, 4.944), ("C", 10e3, 2.078)],
)
def test_coefficients_are_those_that_nist_published(formula, energy_ev, published_cm2_per_g):
    """Mass energy-absorption coefficients of NISTIR 5632 (Hubbell and Seltzer).

    Of light elements below 20 keV they are the photoabsorption alone: hardly any energy leaves as
    fluorescence or comes from scattering.
    """
    found = mass_absorption_m2_per_kg(formula, energy_ev)

    assert found == pytest.approx(PER_CM2_PER_G * published_cm2_per_g, rel=0.005)


@pytest.mark.parametrize("element", ["Au", "Fe", "Si"])
@pytest.mark.parametrize("energy_ev", [8800.0, 15e3])
def test_another_table_of_photoabsorption_agrees(element, energy_ev):
    """Chantler's, from a calculation of its own, within the 5 % that such tables differ."""
    chantler = xraydb.mu_chantler(element, energy_ev, photo=True)

    found = mass_absorption_m2_per_kg(element, energy_ev)

    assert found == pytest.approx(PER_CM2_PER_G * float(chantler), rel=0.05)


def test_a_mixture_absorbs_as_its_parts_by_mass():
    """Nine waters and one quartz in one formula; masses from the table of the elements (IUPAC)."""
    water, quartz = 9 * (2 * 1.008 + 15.999), 28.085 + 2 * 15.999

    mixed = mass_absorption_m2_per_kg("(H2O)9SiO2", 8800.0)

    parts = [mass_absorption_m2_per_kg(one, 8800.0) for one in ("H2O", "SiO2")]
    expected = (water * parts[0] + quartz * parts[1]) / (water + quartz)
    assert mixed == pytest.approx(expected, rel=1e-5)
    assert parts[0] < mixed < parts[1]


def test_numbers_of_a_formula_are_ratios():
    whole, tenth = (mass_absorption_m2_per_kg(one, 5e3) for one in ("C20H40O10", "C2H4O"))

    assert whole == pytest.approx(tenth, rel=1e-12)
    assert mass_absorption_m2_per_kg(PROTEIN, 5e3) > 0


def test_the_dose_is_linear_in_the_photons_and_zero_without_them():
    absorption = mass_absorption_m2_per_kg("Au", 8800.0)

    one, many = (surface_dose_gy(count, 8800.0, absorption) for count in (1e15, 7e15))

    assert many == pytest.approx(7 * one, rel=1e-12)
    assert surface_dose_gy(0.0, 8800.0, absorption) == 0.0


def test_a_thin_slab_takes_up_the_surface_dose_and_a_thick_one_less():
    """Beer-Lambert: photons lost in a slab, times their energy, over the mass of the slab."""
    energy_ev, photons_per_m2, density_kg_per_m3 = 8800.0, 1e18, 19300.0
    absorption = mass_absorption_m2_per_kg("Au", energy_ev)

    def mean_dose_gy(thickness_m: float) -> float:
        lost = -math.expm1(-absorption * density_kg_per_m3 * thickness_m) * photons_per_m2
        return lost * energy_ev * 1.602176634e-19 / (density_kg_per_m3 * thickness_m)

    surface = surface_dose_gy(photons_per_m2, energy_ev, absorption)

    assert mean_dose_gy(1e-9) == pytest.approx(surface, rel=1e-3)
    assert mean_dose_gy(10e-6) < 0.5 * surface


@pytest.mark.parametrize(
    ("formula", "energy_ev", "reason"),
    [
        ("Xx", 8800.0, "'Xx' is no chemical formula .*; write it like Au, SiO2"),
        ("h2o", 8800.0, "'h2o' is no chemical formula"),
        ("H2O)", 8800.0, "no chemical formula"),
        ("  ", 8800.0, "2 characters are no chemical formula; give 1 to 100"),
        ("C" * 101, 8800.0, "101 characters are no chemical formula"),
        ("(" * 50 + "C" + ")" * 49, 8800.0, "no chemical formula"),
        ("C0", 8800.0, "holds 0 C; give each element a number above zero"),
        ("C1e999", 8800.0, "holds inf C"),
        ("EsO2", 8800.0, "the tables end at Cf and have no Es"),
        ("D2O", 10e3, "'D2O' holds D: the tables .* know no isotope; write H, and lower the dose"),
        ("(T2O)2", 10e3, "holds T: the tables"),
        ("C6D", 10e3, "holds D: the tables"),
        ("Au", 99.0, "photon energy 99 eV: the tables reach from 100 to 800000 eV"),
        ("Au", 1e6, "the tables reach from 100 to 800000 eV"),
        ("Au", math.nan, "the tables reach"),
    ],
)
def test_what_the_tables_lack_is_refused_with_what_they_have(formula, energy_ev, reason):
    with pytest.raises(InputError, match=reason):
        mass_absorption_m2_per_kg(formula, energy_ev)


def test_elements_whose_names_begin_as_isotopes_do_are_no_isotopes():
    for formula in ("Dy2O3", "TiO2", "TaC", "CdTe"):
        assert mass_absorption_m2_per_kg(formula, 10e3) > 0
