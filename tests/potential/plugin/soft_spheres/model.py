"""Soft spheres: φ_ij(r) = a_i a_j (1 − r²/c²)⁴ up to the cutoff c, half of it at each end.

As an alchemical potential, eqs. 4–7: E = Σ over directed edges of λ_receiver ω φ/2.
"""

import json

import numpy as np
from ase.data import chemical_symbols

from alchemdriver.potential.backends.base import (
    Backend,
    Potential,
    check_arguments,
    require_elements,
    require_finite,
)
from alchemdriver.potential.backends.neighbours import directed_edges, sum_rows
from alchemdriver.records import PotentialEvaluation


def open_file(name, path, device, dtype, evaluator):
    content = json.loads(path.read_text(encoding="utf-8"))
    return SoftSpheres(name, content["strength"], content["cutoff"])


class SoftSpheres(Backend):
    dtype = "float64"

    def __init__(self, name, strength, cutoff):
        self.name, self.strength, self.cutoff = name, strength, cutoff
        self.elements = frozenset(strength)

    def potential(self, sites):
        require_elements(self.name, self.elements, sites)
        return SoftPotential(self, sites)


class SoftPotential(Potential):
    def __init__(self, backend, sites):
        self.backend, self.sites = backend, sites
        self.strength = np.array(
            [backend.strength[chemical_symbols[z]] for z in sites.node_number]
        )  # [n] √eV

    def evaluate(self, positions, cell, pbc, weights):
        name, sites, c2 = self.backend.name, self.sites, self.backend.cutoff**2
        positions, cell, weights = check_arguments(name, sites, positions, cell, weights)
        senders, receivers, vectors = directed_edges(positions, cell, pbc, self.backend.cutoff)
        edges = sites.expand_edges(senders, receivers)
        d = vectors[edges.origin]  # [E', 3] Å
        half = 0.5 * self.strength[edges.senders] * self.strength[edges.receivers]
        x = 1.0 - (d * d).sum(axis=1) / c2
        lam, k = np.concatenate([[1.0], weights]), 1 + sites.n_weights
        own = sites.node_weight[edges.receivers]  # α of the receiver; of ω: edges.weight
        scale = lam[own] * lam[edges.weight]
        slope = (scale * half * -8.0 / c2 * x**3)[:, None] * d  # ∂E/∂d
        gradient = np.bincount(own, lam[edges.weight] * half * x**4, k)
        gradient += np.bincount(edges.weight, lam[own] * half * x**4, k)
        i, j = sites.node_atom[edges.senders], sites.node_atom[edges.receivers]
        forces = sum_rows(slope, i, sites.n_atoms) - sum_rows(slope, j, sites.n_atoms)
        virial = -d.T @ slope
        energy = float(scale @ (half * x**4))
        found = PotentialEvaluation(energy, forces, 0.5 * (virial + virial.T), gradient[1:])
        require_finite(name, found)
        return found
