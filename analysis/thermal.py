"""The thermal energy."""

from __future__ import annotations

from .. import units


def kT(temperature: float) -> float:
    """eV from K, with i-PI's Boltzmann constant."""
    return units.KB_EV * temperature
