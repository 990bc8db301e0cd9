"""Optimisers on the simplex Δ = {λ : λ_α ≥ 0, Σ λ_α = 1}, as torch optimisers.

Each parameter is one composition (k,), or a batch (…, k) of them; several sublattices are several
parameters.  Every step ends on the simplex, to the last bit that the sum of k numbers allows.
"""

from __future__ import annotations

from collections.abc import Iterable

import torch

from ..errors import InputError

__all__ = ["ExponentiatedGradient", "ProjectedGradient", "project_to_simplex"]


def project_to_simplex(v: torch.Tensor) -> torch.Tensor:
    """The nearest point of the simplex to each row of v (…, k), in the Euclidean norm.

    λ_α = max(v_α − θ, 0) with θ such that they sum to 1: Duchi et al., ICML 2008, fig. 1.
    """
    k = v.shape[-1]
    u = v.sort(dim=-1, descending=True).values
    excess = u.cumsum(dim=-1) - 1.0
    counts = torch.arange(1, k + 1, dtype=v.dtype, device=v.device)
    kept = (u * counts > excess).sum(dim=-1, keepdim=True)  # at least 1
    theta = excess.gather(-1, kept - 1) / kept
    return _normalised((v - theta).clamp(min=0.0))


class _SimplexOptimizer(torch.optim.Optimizer):
    def __init__(self, params: Iterable[torch.Tensor], lr: float):
        if not lr > 0:
            raise InputError(f"learning rate: expected a positive number, got {lr}")
        super().__init__(params, {"lr": lr})
        for group in self.param_groups:
            for p in group["params"]:
                on = (p >= 0).all() and torch.allclose(p.sum(-1), torch.ones_like(p.sum(-1)))
                if not on:
                    raise InputError(f"expected compositions that sum to 1, got {p.tolist()}")

    @torch.no_grad()
    def step(self, closure=None):
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        for group in self.param_groups:
            for p in group["params"]:
                if p.grad is not None:
                    p.copy_(self._moved(p, p.grad, group["lr"]))
        return loss

    def _moved(self, p: torch.Tensor, gradient: torch.Tensor, lr: float) -> torch.Tensor:
        raise NotImplementedError


class ProjectedGradient(_SimplexOptimizer):
    """λ ← Π(λ − η ∂L/∂λ), Π the projection onto the simplex.

    Away from the edges this is the paper's rule (section IV.B), which subtracts the mean of the
    gradient; at an edge that rule leaves the simplex and this one does not.
    """

    def _moved(self, p, gradient, lr):
        return project_to_simplex(p - lr * gradient)


class ExponentiatedGradient(_SimplexOptimizer):
    """λ_α ← λ_α exp(−η ∂L/∂λ_α) / Σ_β λ_β exp(−η ∂L/∂λ_β), eq. 16 (η: ``lr``).

    A weight of exactly 0 stays 0: start inside the simplex.
    """

    def _moved(self, p, gradient, lr):
        exponent = -lr * gradient
        # the largest is 1, so nothing overflows; a common factor drops out
        exponent = exponent - exponent.masked_fill(p == 0, -torch.inf).amax(-1, keepdim=True)
        return _normalised(p * exponent.clamp(max=0.0).exp())


def _normalised(p: torch.Tensor) -> torch.Tensor:
    return p / p.sum(dim=-1, keepdim=True)
