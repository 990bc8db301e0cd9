"""Energy, stress and relaxed cells as differentiable functions of the composition, for torch.

    crystal = Crystal(mixture.potential(backend))
    energy, stress = crystal(weights, cell, fractional)
    loss = (stress[0, 0] + stress[1, 1]).abs()
    loss.backward()                                   # ∂loss/∂weights, ∂loss/∂cell, …

A potential gives first derivatives of E, exactly.  The gradient of a loss that contains the stress
needs second ones, and only in one direction: with G = ∂loss/∂σ,

    ∂(G:σ)/∂λ = (1/V) Σ_ij G_ij ∂²E/∂ε_ij∂λ = (1/V) d/dt [∂E/∂λ](strain tG)  at t = 0,

so the difference of *exact first derivatives* between four strained cells gives the whole
gradient, for any number of weights, with respect to cell and positions as well.  Error: h⁴ of the
fourth-order difference.  Relaxed cells use the same trick with the implicit function theorem: see
RelaxedCell.
"""

from __future__ import annotations

from functools import partial

import numpy as np
import torch
from ase.spacegroup.symmetrize import prep_symmetry, symmetrize_rank1, symmetrize_rank2
from torch.autograd.function import once_differentiable

from ..errors import InputError, RunError
from ..potential.checks import difference_quotient
from .mixture import Mixture
from .relaxation import CELLS, Relaxed, Settings, relax

__all__ = ["Crystal", "RelaxedCell"]

# Largest strain, or Å of displacement, of a difference: CHGNet bends over less than 1e-3 (at 1e-4
# the error is 3e-6, at 2e-5 1e-8), and exact first derivatives carry 1e-13 only.
_STEP = 2e-5


class Crystal:
    """E (eV) and σ = V⁻¹ ∂E/∂ε (3, 3) eV/Å³ of one potential.

    Call it with weights (k,), cell (3, 3) Å with lattice vectors as rows, and fractional
    coordinates (N, 3); float64 tensors on the CPU, any of them with ``requires_grad``.
    """

    def __init__(self, potential):
        self.potential = potential

    def __call__(
        self, weights: torch.Tensor, cell: torch.Tensor, fractional: torch.Tensor
    ) -> tuple[torch.Tensor, torch.Tensor]:
        return _EnergyStress.apply(weights, cell, fractional, self)

    def first_derivatives(self, weights, cell, fractional):
        """E, ∂E/∂λ (k,), S = ∂E/∂ε (3, 3), ∂E/∂fractional (N, 3), numpy in and out."""
        with torch.enable_grad():  # we are inside torch's own forward or backward
            found = self.potential.evaluate(fractional @ cell, cell, (True,) * 3, weights)
        return found.energy, found.weight_gradient, -found.virial, -found.forces @ cell.T


class _EnergyStress(torch.autograd.Function):
    @staticmethod
    def forward(ctx, weights, cell, fractional, crystal):
        for what, value in (("weights", weights), ("cell", cell), ("fractional", fractional)):
            if value.dtype != torch.float64 or value.device.type != "cpu":
                raise InputError(f"{what}: expected a float64 tensor on the CPU, got {value.dtype}")
        arrays = [t.detach().numpy() for t in (weights, cell, fractional)]
        energy, *derivatives = crystal.first_derivatives(*arrays)
        ctx.crystal, ctx.arrays, ctx.derivatives = crystal, arrays, derivatives
        volume = abs(np.linalg.det(arrays[1]))
        return torch.tensor(energy, dtype=torch.float64), torch.from_numpy(derivatives[1] / volume)

    @staticmethod
    @once_differentiable
    def backward(ctx, to_energy, to_stress):
        weights, cell, fractional = ctx.arrays
        by_weights, strain, by_fractional = ctx.derivatives
        factor = to_energy.item()
        out = [
            factor * by_weights,
            factor * np.linalg.solve(cell.T, strain),
            factor * by_fractional,
        ]
        g = 0.5 * (to_stress + to_stress.T).numpy()
        if np.abs(g).max() > 0:
            second = _stress_gradient(ctx.crystal, weights, cell, fractional, strain, g)
            out = [a + b for a, b in zip(out, second, strict=True)]
        return *(torch.from_numpy(np.ascontiguousarray(a)) for a in out), None


def _stress_gradient(crystal, weights, cell, fractional, strain, g):
    """∂(G:σ) by λ (k,), cell (3, 3) and fractional coordinates (N, 3).

    With P = ∂E/∂cell: S = cellᵀ P, and ∂(G:S)/∂cell = P G + d/dt P(cell (1 + tG)).
    """
    size = np.abs(g).max()
    direction = g / size
    volume = abs(np.linalg.det(cell))

    def at(t: float) -> np.ndarray:
        moved = cell @ (np.eye(3) + t * direction)
        _, by_weights, s, by_fractional = crystal.first_derivatives(weights, moved, fractional)
        by_cell = np.linalg.solve(moved.T, s)
        return np.concatenate([by_weights, by_cell.ravel(), by_fractional.ravel()])

    slopes = difference_quotient(at, _STEP) * size / volume
    k = len(weights)
    by_cell = slopes[k : k + 9].reshape(3, 3)
    by_cell = by_cell + np.linalg.solve(cell.T, strain) @ g / volume
    by_cell = by_cell - np.sum(g * strain) / volume * np.linalg.inv(cell).T
    return slopes[:k], by_cell, slopes[k + 9 :].reshape(fractional.shape)


class RelaxedCell:
    """weights (k,) → relaxed cell (3, 3) Å and fractional coordinates (N, 3), differentiable.

    At the minimum ∂E/∂u = 0 for the relaxed coordinates u, hence du/dλ = −H⁻¹ ∂²E/∂u∂λ with
    H = ∂²E/∂u².  The gradient of a loss L(u) is therefore

        dL/dλ = −wᵀ ∂²E/∂u∂λ = −d/dt [∂E/∂λ](u + t w),   H w = ∂L/∂u,

    one directional difference more; H comes from differences of exact gradients over the
    coordinates that the symmetry leaves free (one for fluorite, three for wurtzite).

    Arguments: mixture, backend and relaxation settings; with ``cell='fixed'`` or ``'c-only'`` the
    held components stay those of the mixture's own structure.  ``last`` is the latest Relaxed.
    Relaxations start from the previous one.
    """

    def __init__(self, mixture: Mixture, backend, settings: Settings | None = None):
        self.mixture = mixture
        self.backend = backend
        self.settings = settings or Settings(force=1e-4, stress=1e-6, optimiser="bfgs")
        self.crystal = Crystal(mixture.potential(backend))
        self.last: Relaxed | None = None

    def __call__(self, weights: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        return _Relaxation.apply(weights, self)

    def relax(self, weights: np.ndarray) -> Relaxed:
        start = None if self.last is None else self.last.atoms
        with torch.enable_grad():  # as above
            self.last = relax(self.mixture, weights, self.backend, self.settings, start)
        return self.last


class _Relaxation(torch.autograd.Function):
    @staticmethod
    def forward(ctx, weights, function):
        relaxed = function.relax(weights.detach().numpy())
        ctx.function, ctx.weights = function, weights.detach().numpy().copy()
        ctx.cell = relaxed.atoms.cell.array.copy()
        ctx.fractional = relaxed.atoms.get_scaled_positions(wrap=False)
        return torch.from_numpy(ctx.cell.copy()), torch.from_numpy(ctx.fractional.copy())

    @staticmethod
    @once_differentiable
    def backward(ctx, to_cell, to_fractional):
        f = ctx.function
        basis = _free_coordinates(f.mixture, ctx.cell, ctx.fractional, f.settings)
        downhill = np.concatenate(
            [
                (ctx.cell.T @ to_cell.numpy()).ravel(),  # d cell = cell ε
                (to_fractional.numpy() @ np.linalg.inv(ctx.cell).T).ravel(),  # d frac = d cell⁻¹
            ]
        )

        def gradients(u: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
            """∂E/∂u in the basis, and ∂E/∂λ, at the displacement u (9 + 3N)."""
            deformation = np.eye(3) + u[:9].reshape(3, 3)
            cell = ctx.cell @ deformation
            fractional = ctx.fractional + u[9:].reshape(-1, 3) @ np.linalg.inv(ctx.cell)
            _, by_weights, s, by_fractional = f.crystal.first_derivatives(
                ctx.weights, cell, fractional
            )
            by_strain = np.linalg.solve(deformation.T, s)  # F⁻ᵀ S
            by_displacement = by_fractional @ np.linalg.inv(ctx.cell).T
            full = np.concatenate([by_strain.ravel(), by_displacement.ravel()])
            return basis @ full, by_weights

        def slope_along(direction: np.ndarray, t: float) -> np.ndarray:
            return gradients(t * direction)[0]

        hessian = np.array([difference_quotient(partial(slope_along, b), _STEP) for b in basis])
        w = _solve(0.5 * (hessian + hessian.T), basis @ downhill) @ basis
        size = np.abs(w).max()
        if size == 0.0:
            return torch.zeros(len(ctx.weights), dtype=torch.float64), None
        slope = difference_quotient(lambda t: gradients(t * w / size)[1], _STEP) * size
        return torch.from_numpy(-slope), None


def _free_coordinates(mixture: Mixture, cell, fractional, settings: Settings) -> np.ndarray:
    """Orthonormal rows (r, 9 + 3N): strain (flattened) and displacements in Å that may relax.

    Strains are symmetric and within the free components; with ``settings.symmetry`` all rows keep
    the space group.  Uniform translations are left out.
    """
    n = len(fractional)
    free = CELLS[settings.cell]
    allowed = np.array(free)[[[0, 5, 4], [5, 1, 3], [4, 3, 2]]]  # Voigt order to a matrix
    symmetry = None
    if settings.symmetry:
        labelled = mixture.labelled()
        labelled.set_cell(cell)
        labelled.set_scaled_positions(fractional)
        symmetry = prep_symmetry(labelled, settings.symprec)
    inverse = np.linalg.inv(cell)

    def projected(row: np.ndarray) -> np.ndarray:
        e, d = row[:9].reshape(3, 3), row[9:].reshape(n, 3)
        e = 0.5 * (e + e.T) * allowed
        d = d - d.mean(axis=0)
        if symmetry is not None:
            rotations, translations, symm_map = symmetry
            e = symmetrize_rank2(cell, inverse, e, rotations) * allowed
            d = symmetrize_rank1(cell, inverse, d, rotations, translations, symm_map)
        return np.concatenate([e.ravel(), d.ravel()])

    rows = np.array([projected(row) for row in np.eye(9 + 3 * n)])
    _, sizes, vectors = np.linalg.svd(rows)
    return vectors[sizes > 1e-6]


def _solve(hessian: np.ndarray, right: np.ndarray) -> np.ndarray:
    values = np.linalg.eigvalsh(hessian) if len(hessian) else np.ones(1)
    if values.min() < 1e-6 * max(values.max(), 1.0):
        raise RunError(
            "the relaxed structure is not a minimum (lowest curvature "
            f"{values.min():.1e} eV/Å²): its derivative with the composition is not defined; "
            "relax without symmetry, or from another start"
        )
    return np.linalg.solve(hessian, right)
