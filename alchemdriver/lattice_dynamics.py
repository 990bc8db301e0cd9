"""Harmonic free energies, for users' own Python."""

from .workflow.lattice_dynamics import (
    LatticeDynamics,
    force_constants,
    forces_of,
    forces_of_term,
    lattice_dynamics,
)

__all__ = ["LatticeDynamics", "force_constants", "forces_of", "forces_of_term", "lattice_dynamics"]
