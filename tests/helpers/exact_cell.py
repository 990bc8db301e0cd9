"""A crystal that softens by a third, at constant volume and at constant pressure, exactly.

The CsCl crystal of ``exact_crystal``, all springs at λ = 1 two thirds of those at λ = 0.  With the
cell h = R U h0 (R a rotation, U symmetric) the energy is quadratic in the displacements seen from
the turned frame, and in U:

    E = U0 + ½ x·Φx + ½ (U − 1)·C(U − 1)

Every atom is a centre of inversion, so x and U do not couple.  Partition functions, centre of mass
fixed, over the cell as i-PI samples it: ∫ dV for an isotropic cell, ∫ Π_{i≤j} dh_ij for a flexible
one, by Gauss–Hermite quadrature with 9 nodes for the one mode and 5 for each of six.  Nothing here
uses alchemdriver's formulas.
"""

from __future__ import annotations

import itertools
import json
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import numpy as np
from ase.data import atomic_masses, atomic_numbers

from alchemdriver.records import Structure
from helpers import exact_crystal as exact

ALCHEMY = "Al->Ti Ni->Pd"
SOFTER = 2.0 / 3.0  # springs of the final state, of the initial state's
BAR = 1e5 * 1e-30 / exact.EV  # eV/Å³
TRIANGLE = np.triu_indices(3)


def structure() -> Structure:
    return exact.crystal(("Al", "Ni"), 2)


def write_model(path: Path) -> Path:
    """The JSON of the analytic backend, with both ends' springs."""
    s = structure()
    springs = [
        {
            "elements": [pair[a], pair[b]],
            "distance": d,
            "parallel": k * parallel,
            "isotropic": k * isotropic,
        }
        for pair, k in ((("Al", "Ni"), 1.0), (("Ti", "Pd"), SOFTER))
        for (a, b), d, parallel, isotropic in exact.SPRINGS
    ]
    content = {
        "backend": "harmonic-crystal",
        "energy": 0.0,
        "positions": s.positions.tolist(),
        "cell": s.cell.tolist(),
        "springs": springs,
    }
    path.write_text(json.dumps(content))
    return path


@dataclass(frozen=True)
class Exact:
    """Final minus initial state, eV per cell."""

    constant_pressure: float  # −kT ln of the ratio of both partition functions
    constant_volume: float  # Δ(F(h̄) + P V̄), h̄ the mean cell of either end
    # by the leading term in kT: what fluctuations measured without error would give
    term: float

    @property
    def difference(self) -> float:
        return self.constant_pressure - self.constant_volume


def strain_energy(stretch: np.ndarray, softness: float) -> np.ndarray:
    """½ (U − 1)·C(U − 1) in eV, for U (n, 3, 3)."""
    e = stretch - np.eye(3)
    return 0.5 * softness * np.einsum("nab,abcd,ncd->n", e, stiffness(), e, optimize=True)


@cache
def stiffness() -> np.ndarray:
    """C of the initial state in eV: half of Σ d_b K_ac d_d over directed pairs."""
    s, total = structure(), np.zeros((3, 3, 3, 3))
    for _, _, d, k in exact.couplings(s.positions, s.cell):
        total += 0.5 * np.einsum("ac,b,d->abcd", k, d, d)
    return total


def _stretch(cells: np.ndarray, reference: np.ndarray) -> np.ndarray:
    """U (n, 3, 3) of cells h (n, 3, 3), columns the lattice vectors: U² = Fᵀ F, F = h h0⁻¹."""
    f = cells @ np.linalg.inv(reference)
    values, axes = np.linalg.eigh(f.transpose(0, 2, 1) @ f)
    return np.einsum("nab,nb,ncb->nac", axes, np.sqrt(values), axes)


def _cells(x: np.ndarray, flexible: bool) -> np.ndarray:
    """h (n, 3, 3) Å of coordinates x: the volume in Å³, or the six entries of the triangle."""
    if not flexible:
        return x[:, :, None] ** (1.0 / 3.0) * np.eye(3)
    h = np.zeros((len(x), 3, 3))
    h[:, TRIANGLE[0], TRIANGLE[1]] = x
    return h


def _end(temperature: float, pressure: float, flexible: bool, softness: float):
    """−kT ln ∫ (cell alone), mean cell h̄, Cov of the strain about it, and E + P V of h̄."""
    kt, h0 = exact.KB * temperature / exact.EV, structure().cell.T
    start = h0[TRIANGLE] if flexible else np.array([np.linalg.det(h0)])

    def enthalpy(x: np.ndarray) -> np.ndarray:
        h = _cells(x, flexible)
        energy = strain_energy(_stretch(h, h0), softness)
        return energy + pressure * BAR * np.linalg.det(h)

    x, p, step = start, len(start), 1e-4 * start.max()
    shifts = step * np.eye(p)
    for _ in range(20):  # Newton, by differences
        up, down = enthalpy(x + shifts), enthalpy(x - shifts)
        pairs = [
            (enthalpy((x + a + b)[None]) - enthalpy((x + a - b)[None])
             - enthalpy((x - a + b)[None]) + enthalpy((x - a - b)[None]))[0]
            for a in shifts for b in shifts
        ]  # fmt: skip
        curvature = np.reshape(pairs, (p, p)) / (4 * step**2)
        x = x - np.linalg.solve(curvature, (up - down) / (2 * step))
    values, axes = np.linalg.eigh(curvature)
    nodes, weights = np.polynomial.hermite.hermgauss(9 if p == 1 else 5)
    grid = np.array(list(itertools.product(nodes, repeat=p)))
    weight = np.prod(list(itertools.product(weights, repeat=p)), axis=1)
    at = x + np.sqrt(2 * kt) * (grid / np.sqrt(values)) @ axes.T
    least = enthalpy(x[None])[0]
    density = weight * np.exp(-(enthalpy(at) - least) / kt + (grid**2).sum(axis=1))
    integral = density.sum() * np.prod(np.sqrt(2 * kt / values))
    mean = _cells((density @ at / density.sum())[None], flexible)[0]
    if flexible:
        strain = (_cells(at, True) @ np.linalg.inv(mean) - np.eye(3))[:, TRIANGLE[0], TRIANGLE[1]]
    else:
        strain = at / np.linalg.det(mean) - 1.0
    covariance = np.einsum("n,na,nb->ab", density / density.sum(), strain, strain)
    coordinate = mean[TRIANGLE] if flexible else np.array([np.linalg.det(mean)])
    return least - kt * np.log(integral), mean, covariance, enthalpy(coordinate[None])[0]


@cache
def change(temperature: float, pressure: float, flexible: bool) -> Exact:
    """temperature in K, pressure in bar; kinetic part of eq. 22 included."""
    kt, s = exact.KB * temperature / exact.EV, structure()
    ends = [_end(temperature, pressure, flexible, k) for k in (1.0, SOFTER)]
    modes = 0.5 * kt * (3 * len(s) - 3) * np.log(SOFTER)  # ln det Φ at fixed centre of mass
    final = {"Al": "Ti", "Ni": "Pd"}
    mass = [[atomic_masses[atomic_numbers[x]] for x in y] for y in
            (s.symbols, [final[x] for x in s.symbols])]  # fmt: skip
    momenta = 1.5 * kt * np.log(np.divide(*mass)).sum()
    volumes = [np.linalg.det(mean) for _, mean, _, _ in ends]
    # a free centre of mass has the whole box: V of Frenkel–Ladd's F
    box = -kt * np.log(volumes[1] / volumes[0])
    terms = [-0.5 * kt * np.linalg.slogdet(c)[1] for _, _, c, _ in ends]
    if flexible:
        terms = [t - kt * np.log(m[1, 1] * m[2, 2] ** 2)
                 for t, (_, m, _, _) in zip(terms, ends, strict=True)]  # fmt: skip
    return Exact(
        float(modes + momenta + ends[1][0] - ends[0][0]),
        float(modes + momenta + box + ends[1][3] - ends[0][3]),
        float(terms[1] - terms[0]),
    )
