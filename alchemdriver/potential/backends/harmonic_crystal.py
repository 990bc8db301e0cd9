"""An analytic crystal without torch: springs between the atoms of a reference structure.

    E = U0 + ½ Σ_pairs e·K e     e = minimum image of (r_j − r_i) − d⁰     K = k_∥ n nᵀ + k_iso 1

d⁰ is the vector between the reference positions of a pair, images included, and n its direction.
The Hessian is K's and exact, not diagonal, and invariant under a translation of all atoms, so every
free energy of this crystal is known in closed form: the model for tests of absolute free energies,
and for teaching.  The isotropic part keeps shear modes stiff that central forces leave soft.

Elements only choose the springs.  Under alchemical weights a pair is a message as in eqs. 4–7:
each end has half of it, weighted by λ of the receiver and ω of the sender.

d⁰ does not follow the cell, so compression costs energy, but it turns with it: with the cell R U
times the reference's, R a rotation and U symmetric, e is taken in the frame that R turns.  E is
then quadratic in that frame's positions and in U together, and turning alone costs nothing.
Positions belong to numbered atoms: the conformance suite's ``permutation`` cannot hold.

The file (lengths Å, energy eV, spring constants eV/Å²; positions in the order of the structure's
atoms, and one entry of springs for each pair of elements and distance):

    {"backend": "harmonic-crystal", "energy": -5.0, "positions": [[x, y, z], …],
     "cell": [[…], […], […]],
     "springs": [{"elements": ["Al", "Ni"], "distance": 2.5, "parallel": 2.0, "isotropic": 0.4}]}
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from ase.data import atomic_numbers

from ...contract.families import read_json
from ...errors import InputError, ModelError, did_you_mean
from ...paths.geometry import minimum_image
from ...records import PotentialEvaluation
from ..sites import AlchemicalSites
from .base import Backend, Potential, require_elements

__all__ = ["CrystalSpring", "HarmonicCrystalBackend", "HarmonicCrystalPotential", "open_file"]

_KEYS = ("backend", "energy", "positions", "cell", "springs")
_SPRING_KEYS = ("elements", "distance", "parallel", "isotropic")
_SAME_DISTANCE = 0.02  # Å


@dataclass(frozen=True)
class CrystalSpring:
    """All pairs of two elements at one reference distance."""

    elements: tuple[str, str]
    distance: float  # Å, within 0.02
    parallel: float  # eV/Å², along the bond, beyond the isotropic part
    isotropic: float  # eV/Å²

    @property
    def numbers(self) -> tuple[int, int]:
        """Atomic numbers, the smaller one first."""
        a, b = sorted(atomic_numbers[s] for s in self.elements)
        return a, b


class HarmonicCrystalBackend(Backend):
    """Springs of *springs* between all pairs of *positions* (N, 3) Å in *cell* (3, 3) Å.

    energy: U0 in eV, of the reference with any elements.  Two elements at a distance that no
    spring names do not see each other.  Raises ModelError for anything unphysical.
    """

    dtype = "float64"

    def __init__(
        self,
        positions: np.ndarray,
        cell: np.ndarray,
        springs: Sequence[CrystalSpring],
        energy: float = 0.0,
        name: str = "harmonic-crystal",
    ):
        from ase import Atoms
        from ase.neighborlist import neighbor_list

        self.name = name
        try:
            positions, cell = np.array(positions, dtype=float), np.array(cell, dtype=float)
            self.energy = float(energy)
        except (TypeError, ValueError):
            raise ModelError(f"{name}: positions, cell and energy must be numbers") from None
        if positions.ndim != 2 or positions.shape[1] != 3 or not np.isfinite(positions).all():
            raise ModelError(f"{name}: expected finite positions (N, 3), got {positions.shape}")
        if cell.shape != (3, 3) or not abs(np.linalg.det(cell)) > 1e-6:
            raise ModelError(f"{name}: expected a cell of three independent vectors in Å")
        if not np.isfinite(self.energy):
            raise ModelError(f"{name}: expected a finite energy, got {energy}")
        self.springs = tuple(springs)
        self._check_springs()
        self.elements = frozenset(z for s in self.springs for z in s.elements)
        self.n_atoms = len(positions)
        self.cell = cell
        self.cutoff = max(s.distance for s in self.springs) + _SAME_DISTANCE
        crystal = Atoms(f"H{len(positions)}", positions=positions, cell=cell, pbc=True)
        # directed: every pair twice, every image by itself
        self.senders, self.receivers, self.vectors = neighbor_list("ijD", crystal, self.cutoff)
        lengths = np.linalg.norm(self.vectors, axis=1)
        for s in self.springs:
            if not (np.abs(lengths - s.distance) < _SAME_DISTANCE).any():
                raise ModelError(
                    f"{name}: no two positions are {s.distance:g} Å apart "
                    f"({'-'.join(s.elements)}); check distance, positions and cell"
                )

    def _check_springs(self) -> None:
        if not self.springs:
            raise ModelError(f"{self.name}: expected at least one spring")
        for s in self.springs:
            what = f"{self.name}: spring {'-'.join(s.elements)}"
            for z in s.elements:
                if z not in atomic_numbers:
                    raise ModelError(f"{what}: '{z}' is not an element")
            if not (np.isfinite(s.distance) and s.distance > 0):
                raise ModelError(f"{what}: expected a positive distance in Å, got {s.distance}")
            if not (np.isfinite([s.parallel, s.isotropic]).all() and s.isotropic >= 0):
                raise ModelError(f"{what}: expected finite constants, isotropic not negative")
            if not s.parallel + s.isotropic > 0:
                raise ModelError(f"{what}: expected a positive stiffness along the bond")
        for k, s in enumerate(self.springs):
            for other in self.springs[:k]:
                near = abs(s.distance - other.distance) < 2 * _SAME_DISTANCE
                if near and s.numbers == other.numbers:
                    raise ModelError(
                        f"{self.name}: {'-'.join(s.elements)} at {s.distance:g} Å is given twice"
                    )

    @classmethod
    def from_file(cls, path: Path) -> HarmonicCrystalBackend:
        """Read the JSON of the module docstring.  Raises ModelError."""
        content = read_json(Path(path))
        _check_keys(f"model file {path}", content, _KEYS)
        if not isinstance(content["springs"], list):
            raise ModelError(f"model file {path}: expected a list of springs")
        springs = [_read_spring(f"model file {path}", entry) for entry in content["springs"]]
        return cls(content["positions"], content["cell"], springs, content["energy"], str(path))

    def potential(self, sites: AlchemicalSites) -> HarmonicCrystalPotential:
        """Raises InputError if the number of sites is not that of the positions, ModelError for an
        element without a spring."""
        if sites.n_atoms != self.n_atoms:
            raise InputError(
                f"{self.name} has positions for {self.n_atoms} atoms, the structure has "
                f"{sites.n_atoms}"
            )
        require_elements(self.name, self.elements, sites)
        return HarmonicCrystalPotential(self, sites)


def open_file(
    name: str, path: Path, device: str, dtype: str, evaluator: str
) -> HarmonicCrystalBackend:
    """The crystal in *path*; it has no device, precision or evaluator to choose."""
    return HarmonicCrystalBackend.from_file(path)


def _check_keys(where: str, content: Mapping[str, object], known: Sequence[str]) -> None:
    for key in content:
        if key not in known:
            raise ModelError(f"{where}: unknown key '{key}'{did_you_mean(key, known)}")
    for key in known:
        if key not in content:
            raise ModelError(f"{where}: key '{key}' is missing")


def _read_spring(where: str, entry: Any) -> CrystalSpring:
    if not isinstance(entry, dict):
        raise ModelError(f"{where}: expected an object for each of the springs, got {entry!r}")
    _check_keys(f"{where}: springs", entry, _SPRING_KEYS)
    try:
        a, b = map(str, entry["elements"])
        return CrystalSpring((a, b), *(float(entry[key]) for key in _SPRING_KEYS[1:]))
    except (TypeError, ValueError):
        raise ModelError(
            f"{where}: springs: expected two elements and three numbers, got {entry}"
        ) from None


class HarmonicCrystalPotential(Potential):
    """½ Σ over directed edges of λ_receiver ω ½ e·K e, plus U0; see the module docstring."""

    def __init__(self, backend: HarmonicCrystalBackend, sites: AlchemicalSites):
        self.sites = sites
        self._name, self._energy = backend.name, backend.energy
        self._reference = np.linalg.inv(backend.cell)
        edges = sites.expand_edges(backend.senders, backend.receivers)
        vectors = backend.vectors[edges.origin]
        lengths = np.linalg.norm(vectors, axis=1)
        pairs = np.sort(
            sites.node_number[np.stack([edges.senders, edges.receivers], axis=1)], axis=1
        )
        parallel, isotropic = np.zeros(len(lengths)), np.zeros(len(lengths))
        for spring in backend.springs:
            at = (pairs == spring.numbers).all(axis=1)
            at &= np.abs(lengths - spring.distance) < _SAME_DISTANCE
            parallel[at], isotropic[at] = spring.parallel, spring.isotropic
        kept = parallel + isotropic > 0
        n = vectors[kept] / lengths[kept, None]
        outer = n[:, :, None] * n[:, None, :]
        self._stiffness = parallel[kept, None, None] * outer + isotropic[kept, None, None] * np.eye(
            3
        )  # [e, a, b] eV/Å²
        self._vectors = vectors[kept]  # d⁰, from sender to receiver
        self._i = sites.node_atom[edges.senders[kept]]
        self._j = sites.node_atom[edges.receivers[kept]]
        self._receiver_weight = sites.node_weight[edges.receivers[kept]]
        self._omega = edges.weight[kept]

    def evaluate(
        self,
        positions: np.ndarray,
        cell: np.ndarray,
        pbc: Sequence[bool],
        weights: np.ndarray,
    ) -> PotentialEvaluation:
        """See ``Potential``.  RunError if two neighbours have left
        each other, InputError for a cell without a volume."""
        if not abs(np.linalg.det(cell)) > 1e-6:
            raise InputError("a harmonic crystal needs a cell of three independent vectors")
        deformation = (self._reference @ cell).T  # F: columns of the cell are F times d⁰'s
        turn, stretch, axes = _polar(deformation)
        away = positions[self._j] - positions[self._i] - self._vectors @ turn.T
        e = minimum_image(away, cell, pbc, self._j) @ turn
        pull = np.einsum("eab,eb->ea", self._stiffness, e)  # K e
        halves = 0.25 * np.einsum("ea,ea->e", e, pull)  # eV, of each directed edge
        lam = np.concatenate([[1.0], weights])
        received, omega = lam[self._receiver_weight], lam[self._omega]
        scale = received * omega
        k = len(lam)
        gradient = np.bincount(self._receiver_weight, omega * halves, k)
        gradient += np.bincount(self._omega, received * halves, k)
        force = 0.5 * scale[:, None] * pull  # on the sender; the receiver feels the opposite
        forces = np.zeros_like(positions)
        turned = force @ turn.T
        for a in range(3):
            forces[:, a] = np.bincount(self._i, turned[:, a], len(positions))
            forces[:, a] -= np.bincount(self._j, turned[:, a], len(positions))
        # ∂E/∂ε along the axes of U, where a strain ε turns the frame by
        # ω_ab = ε_ab (u_b − u_a)/(u_a + u_b)
        strain = axes.T @ (self._vectors + e).T @ force @ axes
        slip = (stretch[None, :] - stretch[:, None]) / (stretch[None, :] + stretch[:, None])
        strain = 0.5 * (strain + strain.T) + 0.5 * slip * (strain - strain.T)
        strain = turn @ axes @ strain @ axes.T @ turn.T
        energy = self._energy + float(scale @ halves)
        if not np.isfinite(energy):
            raise ModelError(f"{self._name}: the energy is not finite; check the positions")
        return PotentialEvaluation(energy, forces, -0.5 * (strain + strain.T), gradient[1:])


def _polar(deformation: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """R, and eigenvalues and axes (columns) of U, of F = R U."""
    if np.array_equal(deformation, deformation.T):  # nothing is turned, not even by rounding
        values, axes = np.linalg.eigh(deformation)
        return np.eye(3), values, axes
    left, values, right = np.linalg.svd(deformation)
    return left @ right, values, right.T
