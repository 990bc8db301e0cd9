"""ASE calculators on the same core as the i-PI client: with alchemical weights, and plain.

Everything that ASE does with a calculator (relaxation with cell filters, MD, NPT) works at any
weights; ``set_weights`` changes them between steps.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np
from ase import Atoms
from ase.calculators.calculator import Calculator, all_changes
from ase.stress import full_3x3_to_voigt_6_stress

from ..contract.occupancy import occupancies, written
from ..errors import InputError, RunError
from ..records import PotentialEvaluation, Structure
from .checks import check_evaluator
from .open import open_model
from .sites import AlchemicalSites

if TYPE_CHECKING:
    from .backends.base import Backend, Potential

__all__ = ["AlchemicalCalculator", "MaceCalculator"]

_MOST_POTENTIALS = 4  # sets of species that a plain calculator keeps


class _Results(dict[str, Any]):
    """ASE's own properties, and beside them ``weight_gradient``.

    It is read like the others, but is none of the keys: whoever passes results on, such as
    ``SinglePointCalculator(atoms, **calc.results)``, may pass only properties that ASE knows.
    """

    weight_gradient: np.ndarray  # (k,) eV

    def __contains__(self, name: object) -> bool:
        return name == "weight_gradient" or super().__contains__(name)

    def __missing__(self, name: str) -> np.ndarray:
        if name == "weight_gradient":
            return self.weight_gradient
        raise KeyError(name)


class _ModelCalculator(Calculator):  # type: ignore[misc]  # ASE has no types
    """A model, and the total charge and spin of the cell."""

    def __init__(
        self,
        model: str | Path | Backend,
        device: str,
        dtype: str,
        evaluator: str,
        head: str | None,
        charge: float | None,
        spin: float | None,
    ):
        super().__init__()
        if isinstance(model, (str, Path)):
            model = open_model(str(model), Path("."), device, dtype, evaluator, head)
        elif head is not None:
            raise InputError("head: a Backend has its own, give it there")
        self._model = model
        self._given = {"charge": charge, "spin": spin}
        self._state: tuple[float | None, float | None] = (charge, spin)  # of what is computed

    def _charge_and_spin(self, atoms: Atoms) -> tuple[float | None, float | None]:
        """As given, or as *atoms* say; None: neither does.  InputError for what is no number."""
        found = []
        for name, given in self._given.items():
            value = atoms.info.get(name) if given is None else given
            try:
                found.append(None if value is None else float(value))
            except (TypeError, ValueError):
                raise InputError(f"{name}: expected a number, got {value!r}") from None
        return found[0], found[1]

    def check_state(self, atoms: Atoms, tol: float = 1e-15) -> list[str]:
        """What differs from the atoms of ``results``, charge and spin in ``info`` included."""
        changes: list[str] = super().check_state(atoms, tol)
        return changes + ["info"] * (self._charge_and_spin(atoms) != self._state)

    def _results(self, found: PotentialEvaluation, atoms: Atoms) -> dict[str, Any]:
        """ASE's properties.  Raises RunError if not finite."""
        if not (np.isfinite(found.energy) and np.isfinite(found.forces).all()):
            raise RunError("energy or forces are not finite: atoms may overlap")
        results = {"energy": found.energy, "free_energy": found.energy, "forces": found.forces}
        volume = abs(np.linalg.det(atoms.cell.array))
        if volume > 0.0 and self._model.gives_stress:
            results["stress"] = full_3x3_to_voigt_6_stress(-found.virial / volume)
        return results


class AlchemicalCalculator(_ModelCalculator):
    """E(x, λ) of eqs. 4–7 for one list of sites.

    | paper   | here                 | meaning                                     |
    |---------|----------------------|---------------------------------------------|
    | α       | states[α]            | {site index: element} of state α            |
    | λ_α     | weights[α]           | one weight per state; need not sum to 1     |
    | ∂E/∂λ_α | weight_gradient[α]   | eV                                          |

    Results: ``energy`` eV, ``forces`` (N, 3) eV/Å, ``weight_gradient`` (k,) eV and, for a cell
    with a volume, ``stress`` (6,) eV/Å³ in ASE's order xx, yy, zz, yz, xz, xy.  ``free_energy`` is
    the same number as ``energy``: ASE means by it the energy whose derivatives the forces are.
    ``weight_gradient`` is no key of ``results``, since it is none of ASE's properties.

    The elements that *atoms* carry at alchemical sites do not enter the energy, but must stay the
    same: later atoms must have the species of the first.  ``model`` is a name, a path (relative
    to the working directory) or a Backend.  ``groups`` (k,) says which states compete for sites;
    by default all are one group.  ``evaluator`` of a named MACE model: see ``MaceBackend``; other
    ones than 'stock' are compared with stock modules on *atoms* first.

    ``head`` chooses among those of a multi-head model.  ``charge`` (e) and ``spin`` (2S + 1) of the
    cell are for models that take them; where they are not given, ``atoms.info['charge']`` and
    ``['spin']`` count, as for mace's own calculator.  They hold at any weights.

    Raises InputError for wrong sites, states or weights, ModelError for the model.
    """

    implemented_properties: ClassVar[list[str]] = [
        "energy",
        "free_energy",
        "forces",
        "stress",
        "weight_gradient",
    ]

    def __init__(
        self,
        atoms: Atoms,
        states: Sequence[Mapping[int, str]],
        weights: Sequence[float],
        model: str | Backend = "demo",
        device: str = "cpu",
        dtype: str = "float64",
        groups: Sequence[int] | None = None,
        evaluator: str = "auto",
        head: str | None = None,
        charge: float | None = None,
        spin: float | None = None,
    ):
        sites = AlchemicalSites.from_states(atoms.get_chemical_symbols(), states, groups)
        super().__init__(model, device, dtype, evaluator, head, charge, spin)
        self._numbers = atoms.numbers.copy()
        self._n_weights = sites.n_weights
        self.set_weights(weights)
        self._state = self._charge_and_spin(atoms)
        backend = self._model.of_charge(*self._state)
        _reject_disorder(atoms, sites)
        check_evaluator(backend, sites, _structure(atoms))
        self._potential = backend.potential(sites)

    @property
    def weights(self) -> np.ndarray:
        """The weights (k,), a copy; change them with :meth:`set_weights`."""
        return self._weights.copy()

    def set_weights(self, weights: Sequence[float]) -> None:
        """Set the weights (k,) and forget cached results.

        Raises InputError unless there is one finite number per state.
        """
        try:
            new = np.array(weights, dtype=float)
        except (TypeError, ValueError):
            raise InputError(
                f"weights: expected {self._n_weights} numbers, got {weights}"
            ) from None
        if new.shape != (self._n_weights,):
            raise InputError(
                f"weights: expected one per state, {self._n_weights}, got shape {new.shape}"
            )
        if not np.isfinite(new).all():
            raise InputError(f"weights: expected finite numbers, got {new.tolist()}")
        self._weights = new
        self.reset()  # ASE compares atoms only; without this it would serve the old energy

    def calculate(
        self,
        atoms: Atoms | None = None,
        properties: Sequence[str] = ("energy",),
        system_changes: Sequence[str] = tuple(all_changes),
    ) -> None:
        """Fill ``results``.  Raises InputError for other atoms, RunError if not finite."""
        atoms = atoms if atoms is not None else self.atoms
        if not np.array_equal(atoms.numbers, self._numbers):
            raise InputError(
                f"this calculator was made for {len(self._numbers)} atoms of fixed species, got "
                f"{len(atoms)} atoms ({atoms.get_chemical_formula()}): make a new calculator"
            )
        super().calculate(atoms, properties, system_changes)
        self.results: dict[str, Any] = {}
        state = self._charge_and_spin(atoms)
        if state != self._state:
            self._potential = self._model.of_charge(*state).potential(self._potential.sites)
            self._state = state
        found = self._potential.evaluate(
            atoms.get_positions(), atoms.cell.array, tuple(atoms.pbc), self._weights
        )
        results = _Results(self._results(found, atoms))
        results.weight_gradient = found.weight_gradient
        self.results = results


class MaceCalculator(_ModelCalculator):
    """A model without alchemy, for any atoms: the evaluator of this package in ASE.

    Results: ``energy`` eV, ``free_energy`` (the same), ``forces`` (N, 3) eV/Å, for a cell with a
    volume ``stress`` (6,) eV/Å³ in ASE's order and, of MACE models, ``energies`` (N,) eV, which sum
    to the energy.  The numbers of mace's own ``MACECalculator`` to rounding.

    ``model`` is a name, a path (relative to the working directory) or a Backend.  ``head``,
    ``charge`` and ``spin``, ``device``, ``dtype`` and ``evaluator``: see
    :class:`AlchemicalCalculator`.  Evaluators other than 'stock' are compared with stock modules
    once for each set of elements, on the first atoms that have it.

    Raises InputError for what is no model of that name or no number, ModelError for the model.
    """

    implemented_properties: ClassVar[list[str]] = [
        "energy",
        "free_energy",
        "forces",
        "stress",
        "energies",
    ]

    def __init__(
        self,
        model: str | Path | Backend = "demo",
        head: str | None = None,
        charge: float | None = None,
        spin: float | None = None,
        device: str = "cpu",
        dtype: str = "float64",
        evaluator: str = "auto",
    ):
        super().__init__(model, device, dtype, evaluator, head, charge, spin)
        self._compared: set[tuple[tuple[float | None, float | None], frozenset[str]]] = set()
        self._of_state: dict[tuple[float | None, float | None], Backend] = {}  # charge, spin
        self._potentials: dict[tuple[object, ...], Potential] = {}  # last used at the end

    def calculate(
        self,
        atoms: Atoms | None = None,
        properties: Sequence[str] = ("energy",),
        system_changes: Sequence[str] = tuple(all_changes),
    ) -> None:
        """Fill ``results``.  Raises ModelError if they are not finite."""
        atoms = atoms if atoms is not None else self.atoms
        super().calculate(atoms, properties, system_changes)
        self.results: dict[str, Any] = {}
        state = self._charge_and_spin(atoms)
        found = self._potential_of(atoms).evaluate(
            atoms.get_positions(), atoms.cell.array, tuple(atoms.pbc), np.zeros(0)
        )
        self._state = state
        self.results = self._results(found, atoms)

    def calculate_batch(self, images: Sequence[Atoms]) -> list[dict[str, Any]]:
        """Results of every image, computed in one pass where the model can; keeps none of them.

        Images must have the same species, boundary conditions, charge and spin: InputError.
        """
        if not images:
            return []
        first = images[0]
        for n, other in enumerate(images):
            if _key(other, self._charge_and_spin(other)) != _key(
                first, self._charge_and_spin(first)
            ):
                raise InputError(
                    f"image {n} has other species, boundary conditions, charge or spin than image "
                    "0: a batch is of one system"
                )
        found = self._potential_of(first).evaluate_batch(
            np.stack([atoms.get_positions() for atoms in images]),
            np.stack([atoms.cell.array for atoms in images]),
            tuple(first.pbc),
            np.zeros(0),
        )
        return [self._results(one, atoms) for one, atoms in zip(found, images, strict=True)]

    def _potential_of(self, atoms: Atoms) -> Potential:
        state = self._charge_and_spin(atoms)
        key = _key(atoms, state)
        potential = self._potentials.pop(key, None)
        if potential is None:
            # one for each state: a comparison may settle it on another evaluator
            backend = self._of_state.get(state) or self._model.of_charge(*state)
            self._of_state[state] = backend
            sites = AlchemicalSites.plain(atoms.get_chemical_symbols())
            _reject_disorder(atoms, sites)
            compared = (state, frozenset(sites.elements))
            if compared not in self._compared:
                check_evaluator(backend, sites, _structure(atoms))
                self._compared.add(compared)
            potential = backend.potential(sites)
        self._potentials[key] = potential
        if len(self._potentials) > _MOST_POTENTIALS:
            del self._potentials[next(iter(self._potentials))]
        return potential

    def _results(self, found: PotentialEvaluation, atoms: Atoms) -> dict[str, Any]:
        results = super()._results(found, atoms)
        if found.node_energies is not None:
            results["energies"] = found.node_energies
        return results


def _key(atoms: Atoms, state: tuple[float | None, float | None]) -> tuple[object, ...]:
    """What a potential is made for."""
    return (atoms.numbers.tobytes(), tuple(atoms.pbc), state)


def _structure(atoms: Atoms) -> Structure:
    symbols = tuple(atoms.get_chemical_symbols())
    return Structure(symbols, atoms.positions, atoms.cell.array, tuple(atoms.pbc))


def _reject_disorder(atoms: Atoms, sites: AlchemicalSites) -> None:
    """Raises InputError for sites that *atoms* say are no whole atoms and no state describes."""
    described = {i for state in sites.states for i in state}
    for i, shares in occupancies(atoms, "in atoms.info").items():
        if i not in described:
            raise InputError(
                f"site {i} is {written(shares)} by atoms.info['occupancy'], and {atoms.symbols[i]} "
                "would be computed: describe it by states and weights, or remove that entry if all "
                "atoms are whole"
            )
