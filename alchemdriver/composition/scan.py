"""Relaxed cells against composition: scans, Vegard's line, tables."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Annotated, Any

import numpy as np

from .. import __version__
from ..contract.stored import Index, NotNegative, Shape
from ..potential.backends.base import Backend
from .journal import Crystal, Journal, fingerprint_of
from .mixture import Mixture
from .relaxation import Relaxed, Settings, relax

__all__ = ["COLUMNS", "Scan", "compositions_along", "scan", "simplex_grid", "table", "vegard"]

COLUMNS = ("a", "b", "c", "volume")  # Å, Å, Å, Å³


@dataclass(frozen=True)
class Scan:
    """Relaxed points in the order that was asked for."""

    mixture: Mixture
    points: tuple[Relaxed, ...]

    @property
    def weights(self) -> np.ndarray:
        """(n, k)"""
        return np.array([p.weights for p in self.points])

    def column(self, name: str) -> np.ndarray:
        """(n,) of 'a', 'b', 'c' (Å), 'volume' (Å³) or 'energy' (eV)."""
        if name in "abc":
            return np.array([p.lengths["abc".index(name)] for p in self.points])
        return np.array([getattr(p, name) for p in self.points])


def compositions_along(n: int) -> list[list[float]]:
    """n compositions (1 − x, x) of two states, x from 0 to 1."""
    return [[(n - 1 - i) / (n - 1), i / (n - 1)] for i in range(n)]


def simplex_grid(k: int, divisions: int) -> list[list[float]]:
    """Every composition of *k* states in steps of 1/divisions."""

    def parts(total: int, k: int):
        if k == 1:
            yield (total,)
            return
        for first in range(total, -1, -1):
            for rest in parts(total - first, k - 1):
                yield (first, *rest)

    return [[n / divisions for n in p] for p in parts(divisions, k)]


def scan(
    mixture: Mixture,
    weights: Sequence[Sequence[float]],
    backend: Backend,
    settings: Settings | None = None,
    journal: Path | None = None,
    report: Callable[[Relaxed], None] = lambda relaxed: None,
    model_digest: str = "",
) -> Scan:
    """Relax *mixture* at each of *weights*, every point from the mixture's own structure.

    journal: a file that keeps finished points; a second call reads them back, and refuses a file
    made for another structure, model (*model_digest*) or settings.  report: called after each.
    """
    settings = settings or Settings()
    log = None
    if journal is not None:
        log = Journal(journal, scan_header(mixture, backend, settings, model_digest), Point)
    points = []
    for w in weights:
        key = json.dumps([round(float(x), 12) for x in w])
        kept = log.get(key) if log else None
        if kept is None:
            relaxed = relax(mixture, w, backend, settings)
            if log:
                log.add(key, Point.of(relaxed))
        else:
            relaxed = kept.relaxed()
        points.append(relaxed)
        report(relaxed)
    return Scan(mixture, tuple(points))


def scan_header(
    mixture: Mixture, backend: Backend, settings: Settings, model_digest: str
) -> dict[str, Any]:
    """What decides the points of a scan."""
    return {
        "alchemdriver": __version__,
        "structure": fingerprint_of(mixture.labelled()),
        "sublattices": [
            [{str(i): s for i, s in x.items()} for x in y] for y in mixture.sublattices
        ],
        "model": backend.name,
        "model_digest": model_digest,
        "dtype": backend.dtype,
        "settings": asdict(settings),
    }


@dataclass(frozen=True)
class Point:
    """A relaxed mixture as it stands in ``scan.jsonl``."""

    weights: Annotated[np.ndarray, Shape("k")]
    energy_eV: float
    weight_gradient_eV: Annotated[np.ndarray, Shape("k")]
    stress_eV_per_A3: Annotated[np.ndarray, Shape("6")]
    force_eV_per_A: NotNegative
    steps: Index
    atoms: Crystal

    @classmethod
    def of(cls, relaxed: Relaxed) -> Point:
        return cls(
            weights=relaxed.weights,
            energy_eV=relaxed.energy,
            weight_gradient_eV=relaxed.weight_gradient,
            stress_eV_per_A3=relaxed.stress,
            force_eV_per_A=relaxed.force,
            steps=relaxed.steps,
            atoms=Crystal.of(relaxed.atoms),
        )

    def relaxed(self) -> Relaxed:
        """The inverse of :meth:`of`."""
        return Relaxed(
            atoms=self.atoms.atoms(),
            weights=self.weights,
            energy=self.energy_eV,
            weight_gradient=self.weight_gradient_eV,
            stress=self.stress_eV_per_A3,
            force=self.force_eV_per_A,
            steps=self.steps,
        )


def vegard(weights: np.ndarray, values: np.ndarray) -> np.ndarray | None:
    """Σ_α λ_α q_α at each of *weights* (n, k), q_α the value where λ_α = 1; (n,).

    Vegard's law: a property of the mixture is the weighted mean of those of its pure states.  None
    unless the scan holds every pure state, of one sublattice.
    """
    weights = np.asarray(weights)
    pure = np.full(weights.shape[1], np.nan)
    for w, q in zip(weights, values, strict=True):
        if np.count_nonzero(w) == 1:
            pure[np.flatnonzero(w)[0]] = q
    return None if np.isnan(pure).any() else weights @ pure


def table(found: Scan) -> str:
    """Composition, a, b, c, V and their deviations from Vegard's law, one line per point."""
    values = {name: found.column(name) for name in COLUMNS}
    lines = {
        name: line for name in COLUMNS if (line := vegard(found.weights, values[name])) is not None
    }
    names = [n for sublattice in found.mixture.labels for n in sublattice]
    head = [f"{n:>7s}" for n in names] + [f"{c:>9s}" for c in ("a/Å", "b/Å", "c/Å", "V/Å³")]
    if lines:
        head += [f"{c:>8s}" for c in ("Δa", "Δb", "Δc", "ΔV")]
    head += [f"{'E/eV':>12s}", f"{'steps':>6s}"]
    rows = ["".join(head)]
    for n, point in enumerate(found.points):
        row = [f"{w:7.4f}" for w in point.weights]
        row += [f"{values[c][n]:9.4f}" for c in COLUMNS]
        if lines:
            row += [f"{values[c][n] - lines[c][n]:8.4f}" for c in COLUMNS]
        row += [f"{point.energy:12.5f}", f"{point.steps:6d}"]
        rows.append("".join(row))
    if lines:
        rows.append("Δ: deviation from Vegard's line between the pure states of this table")
    return "\n".join(rows)
