"""Averages over a crystal's space group, found by spglib on the structure that defines it."""

from __future__ import annotations

import warnings
from dataclasses import dataclass

import numpy as np
from scipy.spatial import cKDTree

from ..errors import RunError
from ..records import Structure

SYMPREC = 1e-3  # Å


@dataclass(frozen=True)
class SpaceGroup:
    """All operations of a box, its translations included: x' = R x + t on fractional columns."""

    name: str  # international symbol
    rotations: np.ndarray  # (n, 3, 3) int
    permutations: np.ndarray  # (n, N): the operation takes atom i to the site of permutations[i]
    equivalent: np.ndarray  # (N,) label of the orbit that an atom belongs to

    @property
    def cubic(self) -> bool:
        """Whether symmetry leaves only the volume free, so that an isotropic barostat is enough."""
        return self._free_metrics() == 1

    def _free_metrics(self) -> int:
        """Number of independent cell parameters that the point group leaves."""
        basis = []
        for a in range(3):
            for b in range(a, 3):
                g = np.zeros((3, 3))
                g[a, b] = g[b, a] = 1.0
                basis.append(self._average_metric(g).ravel())
        return int(np.linalg.matrix_rank(np.array(basis), tol=1e-8))

    def _average_metric(self, metric: np.ndarray) -> np.ndarray:
        r = self.rotations.astype(float)
        averaged: np.ndarray = np.einsum("nki,kl,nlj->ij", r, metric, r) / len(r)
        return averaged

    def mean_cell(self, cell: np.ndarray) -> np.ndarray:
        """The cell (3, 3) Å whose metric is the group average of *cell*'s; a along x, b in xy."""
        cell = np.asarray(cell, dtype=float)
        return np.linalg.cholesky(self._average_metric(cell @ cell.T))

    def mean_displacements(self, fractional: np.ndarray) -> np.ndarray:
        """Group average of displacements (N, 3) in fractional coordinates: u_P(i) = R u_i."""
        turned = np.einsum("nab,ib->nia", self.rotations.astype(float), fractional)
        total = np.zeros_like(fractional)
        for rotated, permutation in zip(turned, self.permutations, strict=True):
            total[permutation] += rotated
        return total / len(self.rotations)

    def over_equivalent(self, values: np.ndarray) -> np.ndarray:
        """Each atom's value (N,) replaced by the mean over its orbit."""
        values = np.asarray(values, dtype=float)
        result = np.empty_like(values)
        for label in np.unique(self.equivalent):
            same = self.equivalent == label
            result[same] = values[same].mean()
        return result

    def images(self, atoms: tuple[int, ...]) -> int:
        """Number of distinct sets of sites that symmetry makes of *atoms*."""
        return len({frozenset(p[list(atoms)].tolist()) for p in self.permutations})


def space_group(structure: Structure) -> SpaceGroup:
    """The space group of *structure*.  Raises RunError if spglib finds none."""
    import spglib

    kinds = {s: k for k, s in enumerate(dict.fromkeys(structure.symbols))}
    fractional = structure.positions @ np.linalg.inv(structure.cell)
    crystal = (structure.cell, fractional, [kinds[s] for s in structure.symbols])
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # spglib's own
        found = spglib.get_symmetry_dataset(crystal, symprec=SYMPREC)
    if found is None:
        raise RunError("spglib finds no symmetry in the structure: atoms may coincide")
    rotations = np.asarray(found.rotations)
    wrapped = fractional - np.floor(fractional)
    wrapped[wrapped >= 1.0] = 0.0  # -1e-17 rounds to 1
    tree = cKDTree(wrapped, boxsize=1.0)
    images = []
    for r, t in zip(rotations, found.translations, strict=True):
        image = fractional @ r.T + t
        image -= np.floor(image)
        image[image >= 1.0] = 0.0
        images.append(tree.query(image)[1])
    permutations = np.array(images)
    if (np.sort(permutations, axis=1) != np.arange(len(structure))).any():
        raise RunError(
            "spglib's operations do not map the structure onto itself: its symmetry is only "
            "approximate"
        )
    # spglib's own equivalent_atoms ignores pure translations of a supercell in some versions
    smallest = permutations.min(axis=0)
    return SpaceGroup(found.international, rotations, permutations, smallest)
