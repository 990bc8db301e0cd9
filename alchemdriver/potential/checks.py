"""What is checked on the user's own structure before a run."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator, Sequence
from typing import TypeVar

import numpy as np
from numpy.typing import ArrayLike

from ..errors import ModelError
from ..records import PotentialEvaluation, Structure, Transformation
from .backends.base import Backend
from .sites import AlchemicalSites

log = logging.getLogger(__name__)

# A quantity smaller than this (eV, eV/Å) is noise, not a scale to divide by.
_FLOOR = 1e-3
_LIMIT_TOLERANCE = {"float64": 1e-9, "float32": 1e-4}


# --- the exact limits at start-up -----------------------------------------------------------


def check_limits(
    backend: Backend, what: Transformation | AlchemicalSites, structure: Structure
) -> float:
    """Verify the two exact limits on the user's own *structure*; the worst error, for the log.

    1. One weight of each group is 1, the others 0: the plain system with those states' elements,
       its removed atoms left out.  For every state.
    2. All states of a group are the same and their weights sum to 1: the plain system.

    Errors here are in units of 1 eV per atom (energy, virial) and 1 eV/Å or the largest force:
    forces of a perfect crystal vanish.  Tolerance 1e-9 in float64, 1e-4 in float32 (where rounding
    alone is 1e-6 to 1e-5 of a site energy).  Raises ModelError beyond it.
    """
    sites = what if isinstance(what, AlchemicalSites) else AlchemicalSites.from_transformation(what)
    worst = 0.0
    for limit, found, expected in _limits(backend, sites, structure, sites.endpoints()):
        error = _absolute_difference(found, expected)
        if not error <= _LIMIT_TOLERANCE[backend.dtype]:
            raise ModelError(
                f"model '{backend.name}' fails an exact limit ({limit}): error {error:.1e}, "
                f"expected below {_LIMIT_TOLERANCE[backend.dtype]:.0e} in {backend.dtype}; "
                "its results between the end states cannot be trusted"
            )
        worst = max(worst, error)
    return worst


def _limits(
    backend: Backend,
    sites: AlchemicalSites,
    structure: Structure,
    choices: Sequence[tuple[int, ...]],
) -> Iterator[tuple[str, PotentialEvaluation, PotentialEvaluation]]:
    """Name, found and expected evaluation of each limit; *choices* of one state per group."""
    potential = backend.potential(sites)
    plain = {}
    for chosen in choices:
        plain[chosen] = _evaluate(
            backend, AlchemicalSites.plain(sites.endpoint(chosen)), structure, np.zeros(0)
        )
        weights = np.zeros(sites.n_weights)
        weights[list(chosen)] = 1.0
        found = potential.evaluate(structure.positions, structure.cell, structure.pbc, weights)
        yield f"weights {weights.astype(int).tolist()}", found, plain[chosen]
    for chosen in choices[:1]:
        found = _evaluate(backend, sites.merged(chosen), structure, _shares(sites))
        yield "identical states", found, plain[chosen]


def _shares(sites: AlchemicalSites) -> np.ndarray:
    """Unequal weights (k,) that sum to 1 within every group."""
    weights = 1.0 + 0.5 * np.arange(sites.n_weights)
    groups = np.array(sites.groups)
    return np.array([w / weights[groups == g].sum() for w, g in zip(weights, groups, strict=True)])


def _evaluate(
    backend: Backend, sites: AlchemicalSites, s: Structure, weights: np.ndarray
) -> PotentialEvaluation:
    return backend.potential(sites).evaluate(s.positions, s.cell, s.pbc, weights)


def _absolute_difference(a: PotentialEvaluation, b: PotentialEvaluation) -> float:
    n = len(b.forces)
    force_scale = max(1.0, float(np.abs(b.forces).max(initial=0.0)))
    return max(
        abs(a.energy - b.energy) / n,
        float(np.abs(a.virial - b.virial).max()) / n,
        float(np.abs(a.forces - b.forces).max(initial=0.0)) / force_scale,
    )


# --- stress ---------------------------------------------------------------------------------


def check_stress(backend: Backend, constant_pressure: bool) -> None:
    """Raise ModelError for a cell that should move under a model that gives no stress."""
    if constant_pressure and not backend.gives_stress:
        raise ModelError(
            f"model '{backend.name}' gives no stress, so the cell cannot move: use a protocol at "
            "constant volume"
        )


# --- the evaluator at start-up --------------------------------------------------------------

_LARGEST_CHECK = 1000  # atoms; stock modules need ten times the memory of the fast evaluator


def check_evaluator(
    backend: Backend, what: Transformation | AlchemicalSites, structure: Structure
) -> float | None:
    """Compare the evaluator of *backend* with stock modules on the user's own *structure*.

    The backend may first choose another one (``Backend.choose_evaluator``).  Then one evaluation of
    each at weights between the end states; energy, forces, virial and ∂E/∂λ.  Of a large structure,
    the atoms around one that changes are taken as a free cluster.  Returns the worst error (units
    and tolerance of :func:`check_limits`), or None if the evaluator is the model's own code.
    Beyond the tolerance the backend falls back to that with a warning; ModelError if this evaluator
    was demanded.
    """
    if isinstance(what, AlchemicalSites):
        sites = what
    elif what.changed:
        sites = AlchemicalSites.from_transformation(what)
    else:
        sites = AlchemicalSites.plain(structure.symbols)
    sites, structure = _part(sites, structure)
    arguments = (structure.positions, structure.cell, structure.pbc, _shares(sites))
    backend.choose_evaluator(sites, arguments)
    if backend.evaluator == "stock":
        return None
    found = backend.potential(sites).evaluate(*arguments)
    expected = backend.reference(sites).evaluate(*arguments)
    per_atom = np.abs(found.weight_gradient - expected.weight_gradient) / len(structure)
    error = max(_absolute_difference(found, expected), float(per_atom.max(initial=0.0)))
    if error <= _LIMIT_TOLERANCE[backend.dtype]:
        log.info(
            "%s evaluator agrees with stock modules to %.1e on this structure",
            backend.evaluator,
            error,
        )
    else:
        backend.fall_back(
            f"on this structure it differs from stock modules by {error:.1e}, "
            f"expected below {_LIMIT_TOLERANCE[backend.dtype]:.0e} in {backend.dtype}"
        )
    return error


def _part(sites: AlchemicalSites, s: Structure) -> tuple[AlchemicalSites, Structure]:
    """*sites* and *s*, or the atoms nearest to a site (or to atom 0), not periodic."""
    if len(s) <= _LARGEST_CHECK:
        return sites, s
    centre = min((i for state in sites.states for i in state), default=0)
    distance = np.linalg.norm(s.positions - s.positions[centre], axis=1)
    kept = np.sort(np.argsort(distance, kind="stable")[:_LARGEST_CHECK])
    new = {int(old): n for n, old in enumerate(kept)}
    states = [{new[i]: e for i, e in state.items() if i in new} for state in sites.states]
    symbols = tuple(sites.symbols[i] for i in kept)
    part = AlchemicalSites(symbols, tuple(states), sites.groups)
    own = tuple(s.symbols[i] for i in kept)
    return part, Structure(own, s.positions[kept], np.zeros((3, 3)), (False,) * 3)


# --- comparing ------------------------------------------------------------------------------


def difference(
    found: PotentialEvaluation, expected: PotentialEvaluation, weight_gradient: bool = False
) -> float:
    """Relative error of energy, forces and virial (and, if asked, ∂E/∂λ), the worst of them."""
    names = ["energy", "forces", "virial"] + ["weight_gradient"] * weight_gradient
    return max(relative(getattr(found, n), getattr(expected, n)) for n in names)


def relative(found: ArrayLike, expected: ArrayLike) -> float:
    """max abs(found − expected) / max abs(expected), the latter at least 1e-3."""
    found, expected = np.asarray(found), np.asarray(expected)
    scale = max(_FLOOR, float(np.abs(expected).max(initial=0.0)))
    return float(np.abs(found - expected).max(initial=0.0)) / scale


Value = TypeVar("Value", float, np.ndarray)


def difference_quotient(function: Callable[[float], Value], step: float) -> Value:
    """d function / dt at t = 0 to fourth order: (f₋₂ − 8 f₋₁ + 8 f₁ − f₂) / 12 h."""
    f = [function(n * step) for n in (-2, -1, 1, 2)]
    quotient: Value = (f[0] - 8.0 * f[1] + 8.0 * f[2] - f[3]) / (12.0 * step)
    return quotient
