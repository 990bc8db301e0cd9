"""Interpolation schemes side by side (SI section I): energies along λ, linearity, time per step.

| scheme      | energy between the end states A (λ = 0) and B (λ = 1)                            |
|-------------|----------------------------------------------------------------------------------|
| asymmetric  | the alchemical potential, ω = λ_source towards ordinary atoms (eq. 5)            |
| symmetric   | the same graph with ω_αβ = λ_α λ_β, λ_0 = 1                                      |
| embedding   | one node per site, its element embedding (1 − λ) z_A + λ z_B; no extra nodes     |
| linear      | (1 − λ) E_A + λ E_B, two evaluations                                             |

The symmetric scheme needs no new model code: products of weights are handed to the potential as
further weights, of states without sites.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from ..errors import InputError, ModelError
from ..potential.backends.base import Backend
from ..potential.sites import AlchemicalSites, ExpandedEdges
from .mixture import Mixture

__all__ = ["SCHEMES", "Comparison", "compare", "time_per_step"]

SCHEMES = ("asymmetric", "symmetric", "embedding", "linear")


@dataclass(frozen=True)
class Comparison:
    """Energies (eV per cell) of each scheme along λ."""

    lam: np.ndarray  # (n,) weight of the second state
    energies: dict[str, np.ndarray]  # scheme -> (n,)

    def deviation(self, scheme: str) -> np.ndarray:
        """From the straight line between the end states (eV per cell), (n,)."""
        return self.energies[scheme] - self.energies["linear"]


def compare(mixture: Mixture, backend: Backend, lam: Sequence[float]) -> Comparison:
    """Energies of all schemes at the mixture's own structure; one sublattice with two states.

    Raises InputError for another mixture, ModelError for a model whose embeddings cannot be mixed.
    """
    _require_two_states(mixture)
    at = np.asarray(lam, dtype=float)
    args = (mixture.atoms.positions, mixture.atoms.cell.array, (True,) * 3)
    asymmetric = mixture.potential(backend)
    # fast evaluators know the asymmetric scheme only
    symmetric = backend.reference(SymmetricSites.of(mixture.sites))
    ends = [
        backend.potential(AlchemicalSites.plain(mixture.sites.endpoint([a])))
        .evaluate(*args, np.zeros(0))
        .energy
        for a in (0, 1)
    ]
    energies: dict[str, list[float]] = {scheme: [] for scheme in SCHEMES}
    for x in at:
        w = np.array([1.0 - x, x])
        energies["asymmetric"].append(asymmetric.evaluate(*args, w).energy)
        energies["symmetric"].append(symmetric.evaluate(*args, np.concatenate([w, w**2])).energy)
        mixed = embedding_potential(mixture, backend, w)
        energies["embedding"].append(mixed.evaluate(*args, np.zeros(0)).energy)
        energies["linear"].append(float(w @ ends))
    return Comparison(at, {scheme: np.array(e) for scheme, e in energies.items()})


class SymmetricSites(AlchemicalSites):
    """Sites whose edges carry λ_α λ_β; evaluate with the weights (λ_1 … λ_k, λ_1² … λ_k²).

    Edges run between an alchemical node and an ordinary one (product λ_α) or within a state (λ_α²),
    one group only.
    """

    @classmethod
    def of(cls, sites: AlchemicalSites) -> SymmetricSites:
        k = sites.n_weights
        if len(set(sites.groups)) != 1:
            raise InputError("the symmetric scheme is defined for one sublattice")
        return cls(sites.symbols, (*sites.states, *[{}] * k), (0,) * (2 * k))

    def expand_edges(self, senders: np.ndarray, receivers: np.ndarray) -> ExpandedEdges:
        edges = super().expand_edges(senders, receivers)
        a, b = self.node_weight[edges.senders], self.node_weight[edges.receivers]
        square = self.n_weights // 2 + a
        weight = np.where(b == 0, a, np.where(a == 0, b, square))
        return ExpandedEdges(edges.senders, edges.receivers, edges.origin, weight)


def embedding_potential(mixture: Mixture, backend, weights: np.ndarray):
    """The ordinary potential with the embeddings of mixed sites replaced by their weighted mean.

    Element-dependent constants (isolated atoms, references) are weighted too.  MACE: its one-hot
    node attributes, which enter every layer linearly.  Raises ModelError for other models than MACE
    and CHGNet.
    """
    parts = [
        backend.reference(AlchemicalSites.plain(mixture.sites.endpoint([a])))
        for a in range(len(weights))
    ]
    mixed = parts[0]
    if not hasattr(mixed, "embedded"):
        raise ModelError(f"model '{backend.name}' has no element embeddings that can be mixed")
    for name in ("embedded", "attrs"):
        if hasattr(mixed, name):
            mean = sum(float(w) * getattr(p, name) for w, p in zip(weights, parts, strict=True))
            setattr(mixed, name, mean)
    mixed.constant = sum(float(w) * p.constant for w, p in zip(weights, parts, strict=True))
    return mixed


def time_per_step(mixture: Mixture, backend, repeats: int) -> dict[str, float]:
    """Median seconds of one evaluation with all derivatives, alternately: Table SI.

    'linear' is two evaluations of the end states, as a step of linear mixing needs them.  On a CPU
    the seconds are those of this thread's own work, which a busy machine does not lengthen.
    """
    _require_two_states(mixture)
    args = (mixture.atoms.positions, mixture.atoms.cell.array, (True,) * 3)
    alchemical = mixture.potential(backend)
    ends = [backend.potential(AlchemicalSites.plain(mixture.sites.endpoint([a]))) for a in (0, 1)]
    half, none = np.array([0.5, 0.5]), np.zeros(0)

    def linear():
        for end in ends:
            end.evaluate(*args, none)

    tasks = {"linear": linear, "alchemical": lambda: alchemical.evaluate(*args, half)}
    clock = time.thread_time if backend.device_type == "cpu" else time.perf_counter
    times: dict[str, list[float]] = {name: [] for name in tasks}
    for n in range(repeats + 1):
        for name, task in tasks.items():
            begin = clock()
            task()
            if n:  # the first call builds graphs
                times[name].append(clock() - begin)
    return {name: statistics.median(t) for name, t in times.items()}


def _require_two_states(mixture: Mixture) -> None:
    if mixture.n_states != (2,):
        raise InputError("schemes are compared for one sublattice with two states, e.g. Na->K")
