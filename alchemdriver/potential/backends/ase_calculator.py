"""Any ASE calculator as a model, for every path that needs ordinary evaluations only.

The model is a Python file with a function::

    def calculator(device, dtype):
        return EMT()

**Opening it runs it.**  A calculator knows whole atoms only, so there is no weighted graph between
end states; a linear mixture of both, Frenkel–Ladd, reversible scaling and plain dynamics need none.

ASE's calculators may keep neighbour lists and results from call to call.  Here every evaluation
says that everything has changed (``all_changes``), which by ASE's contract makes the calculator
start anew; ``assert_conforms`` finds those that do not.
"""

from __future__ import annotations

import runpy
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from ase import Atoms
from ase.calculators.calculator import Calculator, all_changes
from ase.data import chemical_symbols
from ase.stress import voigt_6_to_full_3x3_stress

from ...errors import ModelError
from ...records import PotentialEvaluation
from ..sites import AlchemicalSites
from .base import Backend, Potential, check_arguments, require_finite

__all__ = ["AseBackend", "AsePotential", "open_emt", "open_file"]

Factory = Callable[[str, str], Any]  # (device, dtype) → an ASE calculator

_FUNCTION = "calculator"


class AseBackend(Backend):
    """Calculators made by *factory*, one for each potential, so that none sees another's atoms.

    Arguments: factory(device, dtype) → an ASE calculator with energy and forces; name: what
    messages call it.  Energies and forces are ASE's, eV and eV/Å; the energy is the one whose slope
    the forces are, ``free_energy``, where there is one.  Raises ModelError if it makes something
    else.
    """

    # the calculator refuses what it does not know
    elements: frozenset[str] = frozenset(chemical_symbols[1:])
    cutoff = 0.0  # Å: not known

    def __init__(self, factory: Factory, name: str, device: str = "cpu", dtype: str = "float64"):
        self.name, self.dtype = name, dtype
        self.device_type = device.split(":")[0]
        self._factory, self._asked = factory, (device, dtype)
        can = _implemented(self.calculator(), name)
        self.gives_stress = "stress" in can
        self.force_consistent = "free_energy" in can

    def calculator(self) -> Calculator:
        """A new calculator.  Raises ModelError for whatever the user's function raises."""
        try:
            return self._factory(*self._asked)
        except Exception as err:
            raise ModelError(f"model '{self.name}': {_FUNCTION}() fails: {_reason(err)}") from err

    def potential(self, sites: AlchemicalSites) -> AsePotential:
        """Raises ModelError for sites with weights."""
        if sites.n_weights:
            raise ModelError(
                f"model '{self.name}' is an ASE calculator, which knows whole atoms only: there is "
                "no weighted graph between its end states; use 'interpolation: linear'"
            )
        return AsePotential(self, sites)


class AsePotential(Potential):
    """E(x, cell) of the atoms that are there."""

    def __init__(self, backend: AseBackend, sites: AlchemicalSites):
        self.sites = sites
        self._name = backend.name
        self._calculator = backend.calculator()
        self._energy = "free_energy" if backend.force_consistent else "energy"
        self._wanted = [self._energy, "forces"] + ["stress"] * backend.gives_stress
        self._present = sites.node_atom
        self._numbers = sites.node_number

    def evaluate(
        self,
        positions: np.ndarray,
        cell: np.ndarray,
        pbc: Sequence[bool],
        weights: np.ndarray,
    ) -> PotentialEvaluation:
        """See ``Potential``.  The virial is −V σ of ASE's stress; zero where there is none."""
        x, h, _ = check_arguments(self._name, self.sites, positions, cell, weights)
        atoms = Atoms(self._numbers, positions=x[self._present], cell=h, pbc=pbc)
        results = self._calculate(atoms)
        n = len(atoms)
        forces = np.zeros_like(x)
        forces[self._present] = self._array(results, "forces", (n, 3))
        virial = np.zeros((3, 3))
        if "stress" in self._wanted and abs(np.linalg.det(h)) > 1e-6:
            stress = self._array(results, "stress", (6,))
            virial = -atoms.get_volume() * voigt_6_to_full_3x3_stress(stress)
        found = PotentialEvaluation(
            float(self._array(results, self._energy, ())), forces, virial, np.zeros(0)
        )
        require_finite(self._name, found)
        return found

    def _calculate(self, atoms: Atoms) -> dict[str, Any]:
        calculator = self._calculator
        calculator.results = {}  # what it fails to compute must not be what it computed before
        try:
            calculator.calculate(atoms, self._wanted, all_changes)
        except Exception as err:
            raise ModelError(f"model '{self._name}' fails: {_reason(err)}") from err
        results: dict[str, Any] = calculator.results
        return results

    def _array(self, results: dict[str, Any], what: str, shape: tuple[int, ...]) -> np.ndarray:
        if results.get(what) is None:
            raise ModelError(f"model '{self._name}': its calculator gives no {what}")
        array = np.asarray(results[what], dtype=np.float64)
        if array.shape != shape:
            raise ModelError(
                f"model '{self._name}': expected {what} of shape {shape} from its calculator, got "
                f"{array.shape}"
            )
        return array


def open_file(name: str, path: Path, device: str, dtype: str, evaluator: str) -> AseBackend:
    """What ``calculator(device, dtype)`` in the Python file *path* makes.  Runs the file."""
    try:
        found = runpy.run_path(str(path)).get(_FUNCTION)
    except Exception as err:
        raise ModelError(f"model file {path} fails: {_reason(err)}") from err
    if not callable(found):
        raise ModelError(
            f"model file {path}: expected a function {_FUNCTION}(device, dtype) that returns an "
            "ASE calculator"
        )
    return AseBackend(found, name, device, dtype)


def gives_stress(path: Path) -> bool:
    """Whether the calculator of the Python file *path* has a stress.  Runs the file."""
    return open_file(path.name, path, "cpu", "float64", "auto").gives_stress


def open_emt(name: str, path: Path, device: str, dtype: str, evaluator: str) -> AseBackend:
    """ASE's effective medium theory; on the CPU in float64, whatever is asked for."""
    from ase.calculators.emt import EMT, parameters

    backend = AseBackend(lambda device, dtype: EMT(), name)
    backend.elements = frozenset(parameters)
    return backend


def _implemented(calculator: object, name: str) -> Sequence[str]:
    """What *calculator* can compute.  Raises ModelError if it is none, or has no forces."""
    can = getattr(calculator, "implemented_properties", None)
    if can is None or not callable(getattr(calculator, "calculate", None)):
        raise ModelError(
            f"model '{name}': expected {_FUNCTION}() to return an ASE calculator, got a "
            f"{type(calculator).__name__}"
        )
    for what in ("energy", "forces"):
        if what not in can:
            raise ModelError(f"model '{name}': its calculator gives no {what}, which dynamics need")
    return list(can)


def _reason(err: Exception) -> str:
    """*err* in one line."""
    return f"{type(err).__name__}: {' '.join(str(err).split())}"
