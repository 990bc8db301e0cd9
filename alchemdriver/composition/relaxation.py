"""Relaxation of cell and positions at fixed weights, its symmetry kept when asked."""

from __future__ import annotations

import logging
import warnings
from dataclasses import dataclass

import numpy as np
from ase import Atoms
from ase.constraints import FixSymmetry
from ase.filters import FrechetCellFilter
from ase.optimize import BFGS, FIRE
from ase.spacegroup.symmetrize import symmetrize_rank2
from ase.stress import full_3x3_to_voigt_6_strain, voigt_6_to_full_3x3_strain

from ..errors import InputError, RunError, did_you_mean
from ..potential.backends.base import Backend
from ..potential.calculator import AlchemicalCalculator
from ..potential.checks import check_stress
from .mixture import Mixture, Weights

__all__ = ["CELLS", "OPTIMISERS", "Relaxed", "Settings", "relax", "relax_atoms"]

log = logging.getLogger(__name__)

OPTIMISERS = {"fire": FIRE, "bfgs": BFGS}
# Which strain components move: xx, yy, zz, yz, xz, xy.
CELLS = {
    "free": (True,) * 6,
    "fixed": (False,) * 6,
    "c-only": (False, False, True, False, False, False),
}


@dataclass(frozen=True)
class Settings:
    """How to relax; what decides the result is in here, so that a scan can be resumed safely."""

    cell: str = "free"  # 'free', 'fixed', or 'c-only': strain zz alone, c along z, for epitaxy
    symmetry: bool = True  # keep the space group of the start
    force: float = 1e-3  # eV/Å, largest component that may be left
    stress: float = 1e-5  # eV/Å³ (1.6 MPa), likewise of the free components
    steps: int = 2000  # at most
    optimiser: str = "fire"  # FIRE as in the paper (ref. 67), or 'bfgs', which soft crystals need
    symprec: float = 1e-3  # Å, of the space group

    def __post_init__(self) -> None:
        for name, value, known in (
            ("cell", self.cell, CELLS),
            ("optimiser", self.optimiser, OPTIMISERS),
        ):
            if value not in known:
                raise InputError(
                    f"{name}: expected one of {', '.join(known)}, got '{value}'"
                    f"{did_you_mean(value, known)}"
                )
        if not (self.force > 0 and self.stress > 0 and self.steps > 0 and self.symprec > 0):
            raise InputError("force, stress, steps and symprec: expected positive numbers")


@dataclass(frozen=True)
class Relaxed:
    """A relaxed mixture."""

    atoms: Atoms  # parent elements, relaxed positions and cell, no calculator
    weights: np.ndarray  # (k,)
    energy: float  # eV per cell
    weight_gradient: np.ndarray  # (k,) eV
    stress: np.ndarray  # (6,) eV/Å³, what is left
    force: float  # eV/Å, largest component left
    steps: int

    @property
    def lengths(self) -> np.ndarray:
        """a, b, c of the given cell, Å."""
        return self.atoms.cell.lengths()

    @property
    def angles(self) -> np.ndarray:
        """α, β, γ of the given cell, degrees."""
        return self.atoms.cell.angles()

    @property
    def volume(self) -> float:
        """Å³ of the given cell."""
        return self.atoms.get_volume()


def relax(
    mixture: Mixture,
    weights: Weights,
    backend: Backend,
    settings: Settings | None = None,
    start: Atoms | None = None,
) -> Relaxed:
    """Minimise E(x, cell) at fixed *weights* (k,).

    backend: a model, see ``open_model``.  start: positions and cell to begin
    from instead of the mixture's own.  Raises RunError if the tolerances are not reached.
    """
    settings = settings or Settings()
    atoms = mixture.atoms.copy()
    if start is not None:
        atoms.set_cell(start.cell)
        atoms.set_positions(start.positions)
    sites = mixture.sites
    calculator = AlchemicalCalculator(
        atoms, sites.states, list(weights), model=backend, groups=sites.groups
    )
    force, steps = _minimise(
        atoms, calculator, mixture.labelled(), settings, mixture.describe(weights)
    )
    results = calculator.results
    return Relaxed(
        atoms=atoms,
        weights=np.array(weights, dtype=float),
        energy=float(np.asarray(results["energy"])),
        weight_gradient=np.array(results["weight_gradient"]),
        stress=np.array(results["stress"]),
        force=force,
        steps=steps,
    )


def relax_atoms(atoms: Atoms, backend: Backend, settings: Settings | None = None) -> Atoms:
    """An ordinary crystal, relaxed; its energy (eV) is in ``info['energy']``."""
    check_stress(backend, constant_pressure=True)  # what is left of it is a criterion
    atoms = atoms.copy()
    calculator = AlchemicalCalculator(atoms, [], [], model=backend)
    _minimise(atoms, calculator, atoms.copy(), settings or Settings(), str(atoms.symbols))
    atoms.info["energy"] = float(np.asarray(calculator.results["energy"]))
    return atoms


def _minimise(
    atoms: Atoms, calculator: AlchemicalCalculator, labelled: Atoms, settings: Settings, name: str
) -> tuple[float, int]:
    """Relax *atoms* in place and leave it bare; largest force left (eV/Å) and steps taken."""
    free = np.array(CELLS[settings.cell])
    if settings.symmetry:
        labelled.set_cell(atoms.cell)
        labelled.set_positions(atoms.positions)
        constraint = FixSymmetry(labelled, symprec=settings.symprec)
        atoms.set_cell(labelled.cell)  # refined, within symprec
        atoms.set_positions(labelled.positions)
        _require_compatible(constraint, atoms, free, name)
        atoms.set_constraint(constraint)
    atoms.calc = calculator
    moving = FrechetCellFilter(atoms, mask=list(free)) if free.any() else atoms
    optimiser = OPTIMISERS[settings.optimiser](moving, logfile=None)

    def left() -> tuple[float, float]:
        force = float(np.abs(atoms.get_forces()).max(initial=0.0))
        stress = float(np.abs(atoms.get_stress()[free]).max(initial=0.0))
        return force, stress

    converged = False
    with warnings.catch_warnings():
        # of scipy, about errors of 1e-13 in the logarithm that ASE's cell filter takes
        warnings.filterwarnings("ignore", "logm result may be inaccurate")
        # ASE's own criterion mixes forces with cell gradients; ours does not
        for _ in optimiser.irun(fmax=0.0, steps=settings.steps):
            force, stress = left()
            converged = force < settings.force and stress < settings.stress
            if converged:
                break
    if not converged:
        raise RunError(
            f"{name}: not relaxed after {settings.steps} steps: force {force:.1e} eV/Å, stress "
            f"{stress:.1e} eV/Å³ left; allow more steps or less strict tolerances"
        )
    log.info("%s: %d steps", name, optimiser.nsteps)
    atoms.set_constraint()
    atoms.calc = None
    return force, optimiser.nsteps


def _require_compatible(constraint: FixSymmetry, atoms: Atoms, free: np.ndarray, name: str) -> None:
    """InputError if the space group ties a free strain to a held one, as cubic ones do c to a."""
    cell, inverse = atoms.cell.array, np.linalg.inv(atoms.cell.array)
    for n in np.flatnonzero(free):
        strain = voigt_6_to_full_3x3_strain(np.eye(6)[n])
        kept = symmetrize_rank2(cell, inverse, strain, constraint.rotations)
        held = full_3x3_to_voigt_6_strain(kept)[~free]
        if np.abs(held).max(initial=0.0) > 1e-6:
            raise InputError(
                f"{name}: the space group ties the free strains to held ones: start from a cell "
                "that is strained already, or do not keep the symmetry"
            )
