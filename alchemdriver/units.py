"""Unit conversions, numerically identical to i-PI's own tables (``ipi.utils.units``).

Inside alchemdriver: eV, Å, fs, u, K, bar.  On the wire and in extras: atomic units.  Files and
the socket are written by i-PI with i-PI's constants, so ours must be the same numbers, not the
same quantities from another CODATA release (1e-8 to 1e-6 apart, the bar 3e-5).
``tests/test_units.py`` compares.
"""

from __future__ import annotations

ANGSTROM = 1.8897261  # bohr
ELECTRONVOLT = 0.036749326  # hartree
KELVIN = 3.1668152e-06  # hartree
FEMTOSECOND = 4.1341373e16 * 1e-15  # atomic units of time
DALTON = 1822.8885  # electron masses
BAR = 3.398827377e-09  # hartree / bohr^3; i-PI's, 3.1e-5 less than a bar (CODATA 2018)

EV_PER_ANGSTROM = ELECTRONVOLT / ANGSTROM  # hartree / bohr
KB_EV = KELVIN / ELECTRONVOLT  # Boltzmann constant, eV / K
HBAR_EV_FS = 1.0 / (ELECTRONVOLT * FEMTOSECOND)  # reduced Planck constant, eV fs
BAR_EV_PER_ANGSTROM3 = BAR * ANGSTROM**3 / ELECTRONVOLT  # eV / Å^3 per bar
# u Å^2 / fs^2 in eV: kinetic energies and harmonic frequencies from masses in u
DALTON_ANGSTROM2_PER_FS2_EV = DALTON * (ANGSTROM / FEMTOSECOND) ** 2 / ELECTRONVOLT


def kT(temperature: float) -> float:
    """eV from K, with i-PI's Boltzmann constant."""
    return KB_EV * temperature
