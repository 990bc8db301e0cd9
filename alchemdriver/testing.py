"""What every backend must satisfy, as functions that measure; no test framework needed.

A new backend is tested by one line::

    assert_conforms(backend, structure, states=[{0: "Na", 1: "Na"}, {0: "K"}])

Errors are relative: the largest deviation of a quantity divided by its largest magnitude, the
worst over energy, forces, virial and ∂E/∂λ.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import islice, product

import numpy as np

from .errors import ModelError
from .potential.backends.base import Backend, Potential
from .potential.checks import _FLOOR, _evaluate, _limits, difference, difference_quotient, relative
from .potential.sites import AlchemicalSites
from .records import PotentialEvaluation, Structure

__all__ = [
    "TOLERANCES",
    "Tolerances",
    "assert_conforms",
    "difference",
    "difference_quotient",
    "measure",
    "relative",
]

_STEP = {"float64": 1e-3, "float32": 2e-2}  # of finite differences; Å, or of a weight or strain


# --- conformance ----------------------------------------------------------------------------


@dataclass(frozen=True)
class Tolerances:
    """Largest relative errors; the reasons stand beside :data:`TOLERANCES`."""

    exact: float  # identities between evaluations
    slopes: float  # derivatives against finite differences


TOLERANCES = {
    # Identities differ by the order of summation only.  A fourth-order difference with step h
    # truncates at h⁴ f⁽⁵⁾/30 and rounds at 1e-16 E/h: 1e-10 to 1e-9 of a slope at h = 1e-3.
    "float64": Tolerances(exact=1e-10, slopes=1e-8),
    # Rounding is 6e-8 per operation and hundreds of them enter a site energy, some cancelling; a
    # difference magnifies that by E/(h · slope), so h is larger.
    "float32": Tolerances(exact=1e-4, slopes=1e-2),
}


def assert_conforms(
    backend: Backend,
    structure: Structure,
    states: Sequence[Mapping[int, str]],
    groups: Sequence[int] | None = None,
    skip: Sequence[str] = (),
    tolerances: Tolerances | None = None,
    step: float | None = None,
) -> dict[str, float]:
    """Measure *backend* and raise ModelError, naming the check, beyond *tolerances*.

    Choose states with an element change, a site that is empty in one state, and a structure
    without symmetry.  Returns every error by the name of its check.

    skip: checks that are not meant to hold; for a potential that is fixed in space these are
    ``("translation", "permutation", "net force")``.
    step: of the finite differences, in Å, or of a weight or strain; by default 1e-3 (float64) or
    2e-2 (float32).  A model whose energy bends sharply needs a smaller one.
    """
    tolerances = tolerances or TOLERANCES[backend.dtype]
    step = step or _STEP[backend.dtype]
    sites = AlchemicalSites.from_states(structure.symbols, states, groups)
    errors = measure(backend, structure, sites, step)
    errors = {check: error for check, error in errors.items() if check not in skip}
    for check, error in errors.items():
        slope = check.startswith("slope")
        limit = tolerances.slopes if slope else tolerances.exact
        if error <= limit:
            continue
        found = _SAME_BITS.get(check, f"relative error {error:.1e}, expected below {limit:.0e}")
        if slope:
            found += (
                f"; of a finite difference with step {step:g}: if the energy bends sharply, "
                "give a smaller one"
            )
        raise ModelError(f"backend '{backend.name}' does not conform: {check}, {found}")
    return errors


# Checks that are passed or not; their error is 0 or 1.
_SAME_BITS = {
    "repetition": "equal arguments, one after the other, give other bits",
    "history": "the result depends on what was evaluated before",
}


def measure(
    backend: Backend, structure: Structure, sites: AlchemicalSites, step: float | None = None
) -> dict[str, float]:
    """Relative error of every check; names that begin with 'slope' are finite differences."""
    potential = backend.potential(sites)
    step = step or _STEP[backend.dtype]
    rng = np.random.default_rng(7)
    # in no group does this sum to 1: identities must hold all the same
    weights = rng.uniform(0.2, 0.7, sites.n_weights)
    at = potential.evaluate(structure.positions, structure.cell, structure.pbc, weights)

    errors = {"end states": 0.0, "identical states": 0.0}
    for limit, found, expected in _limits(backend, sites, structure, _combinations(sites)):
        check = limit if limit in errors else "end states"
        errors[check] = max(errors[check], difference(found, expected))
    again = potential.evaluate(structure.positions, structure.cell, structure.pbc, weights)
    errors["repetition"] = float(_bits(again) != _bits(at))
    errors["history"] = _history(backend, sites, potential, structure, weights, at)
    errors["batch"] = _batch(potential, structure, weights)
    errors["translation"] = _translation(potential, structure, weights, at, rng)
    errors["wrapping"] = _wrapping(potential, structure, weights, at, rng)
    errors["permutation"] = _permutation(backend, sites, structure, weights, at, rng)
    errors["order of states"] = _state_order(backend, sites, structure, weights, at)
    errors["net force"] = relative(at.forces.sum(axis=0) / max(1.0, np.abs(at.forces).max()), 0.0)
    errors["slope weights"] = _slope_weights(potential, structure, weights, at, step)
    errors["slope positions"] = _slope_positions(potential, structure, weights, at, step, rng)
    errors["slope strain"] = _slope_strain(potential, structure, weights, at, step, rng)
    return errors


def _combinations(sites: AlchemicalSites, most: int = 16) -> list[tuple[int, ...]]:
    """One state per group, in every combination (the first *most* of them)."""
    groups = sorted(set(sites.groups))
    members = [[a for a, g in enumerate(sites.groups) if g == group] for group in groups]
    return list(islice(product(*members), most))


def _bits(e: PotentialEvaluation) -> bytes:
    parts = (np.float64(e.energy), e.forces, e.virial, e.weight_gradient)
    return b"".join(np.ascontiguousarray(p).tobytes() for p in parts)


def _history(
    backend: Backend,
    sites: AlchemicalSites,
    potential: Potential,
    s: Structure,
    weights: np.ndarray,
    at: PotentialEvaluation,
) -> float:
    """Other atoms' places, weights, cells and a batch, then *at* again, and of a new potential.

    0.0 if both have the bits of *at*, else 1.0: neighbour lists and other things that are kept
    must not outlive what they were made for.
    """
    x = s.positions
    for positions, cell, lam in (
        (x + np.random.default_rng(8).normal(0.0, 0.1, x.shape), s.cell, weights),
        (x, s.cell, 0.5 * weights),
        (1.1 * x, 1.1 * s.cell, weights),
        (0.98 * x, 0.98 * s.cell, 1.0 - weights),
    ):
        potential.evaluate(positions, cell, s.pbc, lam)
    potential.evaluate_batch(*_strained(s), s.pbc, weights)
    used = potential.evaluate(x, s.cell, s.pbc, weights)
    fresh = backend.potential(sites).evaluate(x, s.cell, s.pbc, weights)
    return float(not _bits(used) == _bits(fresh) == _bits(at))


def _strained(s: Structure) -> tuple[np.ndarray, np.ndarray]:
    """Positions (3, N, 3) and cells (3, 3, 3) Å: as it is, larger, and sheared."""
    strains = [np.eye(3), 1.02 * np.eye(3), np.eye(3) + 0.03 * np.triu(np.ones((3, 3)), 1)]
    return np.stack([s.positions @ f for f in strains]), np.stack([s.cell @ f for f in strains])


def _batch(potential: Potential, s: Structure, weights: np.ndarray) -> float:
    """Three structures in one call, each in a cell of its own, against one call each."""
    positions, cells = _strained(s)
    together = potential.evaluate_batch(positions, cells, s.pbc, weights)
    one_by_one = [
        potential.evaluate(x, h, s.pbc, weights) for x, h in zip(positions, cells, strict=True)
    ]
    return max(difference(a, b, True) for a, b in zip(together, one_by_one, strict=True))


def _translation(
    potential: Potential,
    s: Structure,
    weights: np.ndarray,
    at: PotentialEvaluation,
    rng: np.random.Generator,
) -> float:
    moved = s.positions + rng.normal(size=3)
    return difference(potential.evaluate(moved, s.cell, s.pbc, weights), at, True)


def _wrapping(
    potential: Potential,
    s: Structure,
    weights: np.ndarray,
    at: PotentialEvaluation,
    rng: np.random.Generator,
) -> float:
    """Whole lattice vectors on single atoms change nothing."""
    shifts = rng.integers(-2, 3, size=s.positions.shape) * np.array(s.pbc, dtype=int)
    moved = s.positions + shifts @ s.cell
    return difference(potential.evaluate(moved, s.cell, s.pbc, weights), at, True)


def _permutation(
    backend: Backend,
    sites: AlchemicalSites,
    s: Structure,
    weights: np.ndarray,
    at: PotentialEvaluation,
    rng: np.random.Generator,
) -> float:
    order = rng.permutation(len(s))  # new row n is old row order[n]
    new = {int(old): n for n, old in enumerate(order)}
    symbols = [sites.symbols[old] for old in order]
    states = [{new[i]: element for i, element in state.items()} for state in sites.states]
    shuffled = AlchemicalSites.from_states(symbols, states, sites.groups)
    moved = replace(s, positions=s.positions[order])
    found = _evaluate(backend, shuffled, moved, weights)
    return difference(found, replace(at, forces=at.forces[order]), True)


def _state_order(
    backend: Backend,
    sites: AlchemicalSites,
    s: Structure,
    weights: np.ndarray,
    at: PotentialEvaluation,
) -> float:
    """Naming the states in reverse reverses ∂E/∂λ and changes nothing else."""
    turned = AlchemicalSites.from_states(sites.symbols, sites.states[::-1], sites.groups[::-1])
    found = _evaluate(backend, turned, s, weights[::-1])
    return difference(found, replace(at, weight_gradient=at.weight_gradient[::-1]), True)


def _slope_weights(
    potential: Potential,
    s: Structure,
    weights: np.ndarray,
    at: PotentialEvaluation,
    step: float,
) -> float:
    """∂E/∂λ_α of every weight by itself; their sum is not held."""

    def slope(e: np.ndarray) -> float:
        return difference_quotient(
            lambda t: potential.evaluate(s.positions, s.cell, s.pbc, weights + t * e).energy, step
        )

    return relative(at.weight_gradient, [slope(e) for e in np.eye(len(weights))])


def _slope_positions(
    potential: Potential,
    s: Structure,
    weights: np.ndarray,
    at: PotentialEvaluation,
    step: float,
    rng: np.random.Generator,
) -> float:
    """−F·u along a random displacement u of all atoms, abs(u) = 1; relative to abs(F)."""
    u = rng.normal(size=s.positions.shape)
    u /= np.linalg.norm(u)
    slope = difference_quotient(
        lambda t: potential.evaluate(s.positions + t * u, s.cell, s.pbc, weights).energy,
        step,
    )
    error = abs(-float(np.sum(at.forces * u)) - slope)
    return error / max(_FLOOR, float(np.linalg.norm(at.forces)))


def _slope_strain(
    potential: Potential,
    s: Structure,
    weights: np.ndarray,
    at: PotentialEvaluation,
    step: float,
    rng: np.random.Generator,
) -> float:
    """−virial:ε along a random symmetric strain, x → x(1 + tε), cell → cell(1 + tε), abs(ε) = 1."""
    e = rng.normal(size=(3, 3))
    e = (e + e.T) / np.linalg.norm(e + e.T)

    def energy(t: float) -> float:
        f = np.eye(3) + t * e
        return potential.evaluate(s.positions @ f, s.cell @ f, s.pbc, weights).energy

    error = abs(-float(np.sum(at.virial * e)) - difference_quotient(energy, step))
    return error / max(_FLOOR, float(np.linalg.norm(at.virial)))
