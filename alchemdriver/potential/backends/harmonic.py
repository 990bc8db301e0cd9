"""An analytic backend without torch: every atom on a spring whose stiffness is its element's.

    E_(i,α) = ½ k_Z(i,α) abs(d_i)²            E = Σ_(i,α) λ_α E_(i,α)      (eq. 7)

d_i is the minimum image of r_i − r_i0; anchors keep their fractional coordinates in the cell,
periodic or not, so the cell must have a volume.
The partition function of every path is known in closed form, which makes this the model for tests
of works and free energies, and for teaching.  Being an external potential it has a net force and
changes under a translation or a renumbering of the atoms, which the conformance suite would refuse.

The file (lengths Å, spring constants eV/Å², one anchor per atom of the structure, in its order):

    {"backend": "harmonic", "spring_constants": {"H": 2.0, "Li": 3.0},
     "anchors": [[x, y, z], …], "cell": [[…], […], […]]}
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
from ase.data import atomic_numbers, chemical_symbols

from ...contract.families import read_json
from ...errors import InputError, ModelError, did_you_mean
from ...paths.geometry import minimum_image
from ...records import PotentialEvaluation
from ..sites import AlchemicalSites
from .base import Backend, Potential, require_elements

__all__ = ["HarmonicBackend", "HarmonicPotential", "open_file"]

_KEYS = ("backend", "spring_constants", "anchors", "cell")


class HarmonicBackend(Backend):
    """Springs for sites of any element in *spring_constants*.

    Arguments: spring_constants {element: eV/Å² > 0}, anchors (N, 3) Å and the cell (3, 3) Å in
    which they are given.  Raises ModelError for anything else.
    """

    cutoff = 0.0  # Å: atoms do not see each other
    dtype = "float64"

    def __init__(
        self,
        spring_constants: Mapping[str, float],
        anchors: np.ndarray,
        cell: np.ndarray,
        name: str = "harmonic",
    ):
        self.name = name
        try:
            self.spring_constants = {str(z): float(k) for z, k in spring_constants.items()}
            anchors = np.array(anchors, dtype=float)
            cell = np.array(cell, dtype=float)
        except (AttributeError, TypeError, ValueError):
            raise ModelError(
                f"{name}: spring_constants, anchors and cell must be numbers"
            ) from None
        for z, k in self.spring_constants.items():
            if z not in atomic_numbers:
                raise ModelError(
                    f"{name}: '{z}' is not an element{did_you_mean(z, atomic_numbers)}"
                )
            if not (np.isfinite(k) and k > 0):
                raise ModelError(f"{name}: expected a positive spring constant for {z}, got {k}")
        if anchors.ndim != 2 or anchors.shape[1] != 3 or not np.isfinite(anchors).all():
            raise ModelError(f"{name}: expected finite anchors (N, 3), got shape {anchors.shape}")
        if cell.shape != (3, 3) or not abs(np.linalg.det(cell)) > 1e-6:
            raise ModelError(f"{name}: expected a cell of three independent vectors in Å")
        self.fractional_anchors = anchors @ np.linalg.inv(cell)
        self.elements = frozenset(self.spring_constants)

    @classmethod
    def from_file(cls, path: Path) -> HarmonicBackend:
        """Read the JSON of the module docstring.  Raises ModelError."""
        content = read_json(Path(path))
        for key in content:
            if key not in _KEYS:
                raise ModelError(
                    f"model file {path}: unknown key '{key}'{did_you_mean(key, _KEYS)}"
                )
        for key in _KEYS:
            if key not in content:
                raise ModelError(f"model file {path}: key '{key}' is missing")
        return cls(content["spring_constants"], content["anchors"], content["cell"], str(path))

    def potential(self, sites: AlchemicalSites) -> HarmonicPotential:
        """Raises InputError if the number of sites is not that of the anchors, ModelError for an
        element without a spring constant."""
        if sites.n_atoms != len(self.fractional_anchors):
            raise InputError(
                f"{self.name} has anchors for {len(self.fractional_anchors)} atoms, the structure "
                f"has {sites.n_atoms}"
            )
        require_elements(self.name, self.elements, sites)
        return HarmonicPotential(self, sites)


def open_file(name: str, path: Path, device: str, dtype: str, evaluator: str) -> HarmonicBackend:
    """The springs in *path*; they have no device, precision or evaluator to choose."""
    return HarmonicBackend.from_file(path)


class HarmonicPotential(Potential):
    """Σ_i K_i(λ) ½ abs(d_i)² with K_i(λ) = Σ_α λ_α k_Z(i,α), λ = 1 for ordinary atoms."""

    def __init__(self, backend: HarmonicBackend, sites: AlchemicalSites):
        self.sites = sites
        self._name = backend.name
        self._fractional_anchors = backend.fractional_anchors
        stiffness = np.zeros((1 + sites.n_weights, sites.n_atoms))  # [α, i] eV/Å²
        nodes = zip(sites.node_weight, sites.node_atom, sites.node_number, strict=True)
        for a, i, z in nodes:
            stiffness[a, i] = backend.spring_constants[chemical_symbols[z]]
        self._stiffness = stiffness
        self._present = np.flatnonzero(stiffness.any(axis=0))  # removed atoms have no node

    def evaluate(
        self,
        positions: np.ndarray,
        cell: np.ndarray,
        pbc: Sequence[bool],
        weights: np.ndarray,
    ) -> PotentialEvaluation:
        """See ``Potential``.  RunError if an atom has left its
        site, InputError for a cell without a volume."""
        if not abs(np.linalg.det(cell)) > 1e-6:
            raise InputError("harmonic sites need a cell of three independent vectors")
        here = self._present
        away = positions[here] - self._fractional_anchors[here] @ cell
        d = np.zeros_like(positions)
        d[here] = minimum_image(away, cell, pbc, here)
        parts = 0.5 * self._stiffness @ np.sum(d * d, axis=1)  # [1+k] eV, energy of each α
        k = np.concatenate([[1.0], weights]) @ self._stiffness  # [i] eV/Å²
        pull = k[:, None] * d
        energy = float(parts[0] + weights @ parts[1:])
        if not np.isfinite(energy):
            raise ModelError(f"{self._name}: the energy is not finite; check the positions")
        return PotentialEvaluation(energy, -pull, -(pull.T @ d), parts[1:])
