"""H(x, λ) as a sum of terms, each returning energy, forces, virial and ∂H/∂λ.

Signs and units: energies eV, lengths Å, forces −∂H/∂r, virial −∂H/∂ε for the homogeneous strain
x → x(1 + ε), cell → cell(1 + ε).  Positions may arrive wrapped into the cell or not.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Protocol

import numpy as np

from .. import units
from ..errors import InputError, RunError
from ..records import Evaluation
from .geometry import PERIODIC, minimum_image

__all__ = [
    "Hamiltonian",
    "OneByOne",
    "PressureVolume",
    "Scaled",
    "Springs",
    "Term",
    "check_constants",
    "fading",
    "growing",
    "scaling",
]


class Term(Protocol):
    """One summand of H(x, λ)."""

    def evaluate(self, positions: np.ndarray, cell: np.ndarray, lam: float) -> Evaluation:
        """Evaluate at positions (N, 3) Å, cell (3, 3) Å (rows are vectors), λ."""
        ...

    def evaluate_batch(
        self, positions: np.ndarray, cells: np.ndarray, lam: float
    ) -> list[Evaluation]:
        """Evaluate B structures, positions (B, N, 3) Å and cells (B, 3, 3) Å, at one λ."""
        ...


class OneByOne:
    """A batch is a loop over its structures."""

    def evaluate(self, positions: np.ndarray, cell: np.ndarray, lam: float) -> Evaluation:
        raise NotImplementedError

    def evaluate_batch(
        self, positions: np.ndarray, cells: np.ndarray, lam: float
    ) -> list[Evaluation]:
        return [self.evaluate(x, h, lam) for x, h in zip(positions, cells, strict=True)]


# --- λ-weights ------------------------------------------------------------------------------


def fading(lam: float) -> tuple[float, float]:
    """w(λ) = 1 − λ and dw/dλ."""
    return 1.0 - lam, -1.0


def growing(lam: float) -> tuple[float, float]:
    """w(λ) = λ and dw/dλ."""
    return lam, 1.0


def scaling(scale: float, excess: bool = False) -> Callable[[float], tuple[float, float]]:
    """The weight s(λ) = 1 + λ (scale − 1), or s(λ) − 1 if *excess*, and its slope."""

    def weight(lam: float) -> tuple[float, float]:
        return (0.0 if excess else 1.0) + lam * (scale - 1.0), scale - 1.0

    weight.__name__ = "excess" if excess else "scaled"
    return weight


# --- terms ----------------------------------------------------------------------------------


class Springs(OneByOne):
    """E = Σ_i ½ k_i abs(d_i)², d_i the minimum image of r_i − r_i0; no λ of its own.

    The anchors keep their fractional coordinates in the current cell h: with s_i0 = r_i0 h_ref⁻¹,
    d_i = (s_i − s_i0 − n_i) h, n_i integer.  Under x → x(1 + ε), h → h(1 + ε) the s stay as they
    are and d_i → d_i(1 + ε), hence

        F_i = −k_i d_i        virial = −∂E/∂ε = −Σ_i k_i d_i ⊗ d_i   (symmetric).

    Arguments: anchors (n, 3) Å, constants (n,) eV/Å² > 0, reference_cell (3, 3) Å in which the
    anchors are given, pbc, and the indices of the tethered atoms (n,), by default all of them in
    order.  Raises InputError for wrong shapes, constants that are not positive, repeated indices.
    """

    def __init__(
        self,
        anchors: np.ndarray,
        constants: np.ndarray,
        reference_cell: np.ndarray,
        pbc: Sequence[bool] = PERIODIC,
        atoms: Sequence[int] | None = None,
    ):
        anchors = np.array(anchors, dtype=float)
        constants = np.array(constants, dtype=float)
        reference_cell = np.array(reference_cell, dtype=float)
        if anchors.ndim != 2 or anchors.shape[1] != 3 or constants.shape != anchors.shape[:1]:
            raise InputError(
                "springs: expected anchors (n, 3) and constants (n,), got shapes "
                f"{anchors.shape} and {constants.shape}"
            )
        check_constants(constants, "springs")
        if not np.isfinite(anchors).all():
            raise InputError("springs: an anchor position is not finite")
        if reference_cell.shape != (3, 3) or not abs(np.linalg.det(reference_cell)) > 1e-6:
            raise InputError("springs: the reference cell must be three independent vectors in Å")
        self.atoms = np.arange(len(anchors)) if atoms is None else np.array(atoms, dtype=int)
        if self.atoms.shape != constants.shape or len(set(self.atoms.tolist())) != len(self.atoms):
            raise InputError("springs: expected one distinct atom index per anchor")
        self.constants = constants
        self.fractional_anchors = anchors @ np.linalg.inv(reference_cell)
        self.pbc = tuple(pbc)

    def __repr__(self) -> str:
        return f"springs on {len(self.atoms)} atoms"

    def evaluate(self, positions: np.ndarray, cell: np.ndarray, lam: float) -> Evaluation:
        """Raises RunError if an atom is so far from its anchor that the image is ambiguous."""
        away = positions[self.atoms] - self.fractional_anchors @ cell
        d = minimum_image(away, cell, self.pbc, self.atoms)
        pull = self.constants[:, None] * d  # [n, 3] eV/Å
        forces = np.zeros_like(positions)
        forces[self.atoms] = -pull
        return Evaluation(0.5 * float(np.sum(pull * d)), forces, -(pull.T @ d), 0.0)


class PressureVolume(OneByOne):
    """E = P V, no forces, virial −∂E/∂ε = −P V 1; no λ of its own.

    i-PI's barostat adds P V by itself; under reversible scaling this term, times s − 1, makes it
    s P V (de Koning, Antonelli, Yip, Phys. Rev. Lett. 83, 3973 (1999)).  pressure: bar.
    """

    def __init__(self, pressure: float):
        if not np.isfinite(pressure):
            raise InputError(f"pressure: expected a finite number of bar, got {pressure}")
        self.pressure = pressure * units.BAR_EV_PER_ANGSTROM3  # eV/Å³

    def __repr__(self) -> str:
        return "pressure times volume"

    def evaluate(self, positions: np.ndarray, cell: np.ndarray, lam: float) -> Evaluation:
        energy = self.pressure * float(abs(np.linalg.det(cell)))
        return Evaluation(energy, np.zeros_like(positions), -energy * np.eye(3), 0.0)


class Scaled:
    """w(λ) H_term: ∂/∂λ = w ∂H_term/∂λ + (dw/dλ) H_term.

    The term is evaluated where w = 0 too: its energy is then the whole of dH/dλ.
    """

    def __init__(self, term: Term, weight: Callable[[float], tuple[float, float]]):
        self.term = term
        self.weight = weight

    def __repr__(self) -> str:
        return f"{self.weight.__name__} {self.term!r}"

    def evaluate(self, positions: np.ndarray, cell: np.ndarray, lam: float) -> Evaluation:
        return self._scaled(self.term.evaluate(positions, cell, lam), lam)

    def evaluate_batch(
        self, positions: np.ndarray, cells: np.ndarray, lam: float
    ) -> list[Evaluation]:
        return [self._scaled(e, lam) for e in self.term.evaluate_batch(positions, cells, lam)]

    def _scaled(self, e: Evaluation, lam: float) -> Evaluation:
        w, slope = self.weight(lam)
        return Evaluation(
            w * e.energy, w * e.forces, w * e.virial, w * e.dHdlambda + slope * e.energy
        )


class Hamiltonian:
    """The sum of *terms*, itself a term.

    ``n_atoms``, if given, is the number of rows that positions must have.
    """

    def __init__(self, terms: Sequence[Term], n_atoms: int | None = None):
        if not terms:
            raise InputError("a Hamiltonian needs at least one term")
        self.terms = tuple(terms)
        self.n_atoms = n_atoms

    def __repr__(self) -> str:
        return " + ".join(map(repr, self.terms))

    def evaluate(self, positions: np.ndarray, cell: np.ndarray, lam: float) -> Evaluation:
        """Sum over the terms; arrays are checked for shape and finiteness, before and after.

        Raises RunError, naming the term, if anything is not finite (usually two overlapping
        atoms or a time step that is too long).
        """
        positions, cell = self._checked(positions, cell, lam)
        return self._sum([term.evaluate(positions, cell, lam) for term in self.terms], lam)

    def evaluate_batch(
        self, positions: np.ndarray, cells: np.ndarray, lam: float
    ) -> list[Evaluation]:
        """As :meth:`evaluate` for B structures at one λ: positions (B, N, 3), cells (B, 3, 3).

        Terms with a batch of their own evaluate it at once.
        """
        checked = [self._checked(x, h, lam) for x, h in zip(positions, cells, strict=True)]
        positions, cells = (np.stack(part) for part in zip(*checked, strict=True))
        parts = [term.evaluate_batch(positions, cells, lam) for term in self.terms]  # [term][b]
        return [self._sum(list(of_one), lam) for of_one in zip(*parts, strict=True)]

    def _sum(self, parts: list[Evaluation], lam: float) -> Evaluation:
        energy, slope = 0.0, 0.0
        forces, virial = np.zeros_like(parts[0].forces), np.zeros((3, 3))
        for term, e in zip(self.terms, parts, strict=True):
            for name in ("energy", "forces", "virial", "dHdlambda"):
                if not np.isfinite(getattr(e, name)).all():
                    raise RunError(
                        f"{term!r}: {name} is not finite at lambda = {lam:g}; atoms may overlap: "
                        "check the starting structure, the time step and the tether"
                    )
            energy += e.energy
            forces += e.forces
            virial += e.virial
            slope += e.dHdlambda
        return Evaluation(float(energy), forces, virial, float(slope))

    def _checked(
        self, positions: np.ndarray, cell: np.ndarray, lam: float
    ) -> tuple[np.ndarray, np.ndarray]:
        positions = np.asarray(positions, dtype=float)
        cell = np.asarray(cell, dtype=float)
        rows = len(positions) if self.n_atoms is None else self.n_atoms
        if positions.shape != (rows, 3) or cell.shape != (3, 3):
            raise RunError(
                f"expected positions ({rows}, 3) and a cell (3, 3), got shapes "
                f"{positions.shape} and {cell.shape}"
            )
        if not (np.isfinite(positions).all() and np.isfinite(cell).all() and np.isfinite(lam)):
            raise RunError(
                "positions, cell or lambda are not finite: the dynamics has diverged, "
                "check the time step and the starting structure"
            )
        return positions, cell


def check_constants(constants: np.ndarray, where: str) -> None:
    """Raise InputError, naming *where*, unless all of *constants* (n,) are positive."""
    wrong = ~(np.isfinite(constants) & (constants > 0))
    if wrong.any():
        i = int(np.argmax(wrong))
        raise InputError(
            f"{where}: spring constants must be positive, in eV/Å^2; number {i} is {constants[i]}"
        )
