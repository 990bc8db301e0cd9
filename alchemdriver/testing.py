"""What every backend must satisfy, as functions that measure; no test framework needed.

A new backend is tested by one line::

    assert_conforms(backend, structure, states=[{0: "Na", 1: "Na"}, {0: "K"}])

Errors are relative: the largest deviation of a quantity divided by its largest magnitude, the
worst over energy, forces, virial and ∂E/∂λ.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import islice, product

import numpy as np

from .alchemy import AlchemicalSites
from .backends.base import Backend
from .errors import ModelError
from .records import PotentialEvaluation, Structure, Transformation

__all__ = [
    "TOLERANCES",
    "Tolerances",
    "assert_conforms",
    "check_evaluator",
    "check_limits",
    "difference",
    "difference_quotient",
    "measure",
    "relative",
]

log = logging.getLogger(__name__)

# A quantity smaller than this (eV, eV/Å) is noise, not a scale to divide by.
_FLOOR = 1e-3
_STEP = {"float64": 1e-3, "float32": 2e-2}  # of finite differences; Å, or of a weight or strain
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


def _limits(backend: Backend, sites: AlchemicalSites, structure: Structure, choices):
    """Name, found and expected evaluation of each limit; *choices* of one state per group."""
    potential = backend.potential(sites)
    plain = {}
    for chosen in choices:
        plain[chosen] = _evaluate(
            backend, AlchemicalSites.plain(sites.endpoint(chosen)), structure, []
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


def _evaluate(backend, sites, structure: Structure, weights) -> PotentialEvaluation:
    potential = backend.potential(sites)
    return potential.evaluate(
        structure.positions, structure.cell, structure.pbc, np.asarray(weights, dtype=float)
    )


def _absolute_difference(a: PotentialEvaluation, b: PotentialEvaluation) -> float:
    n = len(b.forces)
    force_scale = max(1.0, np.abs(b.forces).max(initial=0.0))
    return max(
        abs(a.energy - b.energy) / n,
        np.abs(a.virial - b.virial).max() / n,
        np.abs(a.forces - b.forces).max(initial=0.0) / force_scale,
    )


# --- the evaluator at start-up --------------------------------------------------------------

_LARGEST_CHECK = 1000  # atoms; stock modules need ten times the memory of the fast evaluator


def check_evaluator(
    backend: Backend, what: Transformation | AlchemicalSites, structure: Structure
) -> float | None:
    """Compare the evaluator of *backend* with stock modules on the user's own *structure*.

    On a GPU the evaluator may first become another one (``MaceBackend.keep_the_faster``).  Then one
    evaluation of each at weights between the end states; energy, forces, virial and ∂E/∂λ.  Of a
    large structure, the atoms around one that changes are taken as a free cluster.  Returns the
    worst error (units and tolerance of :func:`check_limits`), or None if there is nothing to
    compare.  Beyond the tolerance the backend falls back to stock modules with a warning;
    ModelError if this evaluator was demanded.
    """
    race = getattr(backend, "demanded", "") == "auto" and backend.device.type == "cuda"
    if getattr(backend, "evaluator", "stock") == "stock" and not race:
        return None
    if isinstance(what, AlchemicalSites):
        sites = what
    elif what.changed:
        sites = AlchemicalSites.from_transformation(what)
    else:
        sites = AlchemicalSites.plain(structure.symbols)
    sites, structure = _part(sites, structure)
    arguments = (structure.positions, structure.cell, structure.pbc, _shares(sites))
    if race:
        backend.keep_the_faster(sites, arguments)
        if backend.evaluator == "stock":
            return None
    found = backend.potential(sites).evaluate(*arguments)
    expected = backend.reference(sites).evaluate(*arguments)
    per_atom = np.abs(found.weight_gradient - expected.weight_gradient) / len(structure)
    error = max(_absolute_difference(found, expected), per_atom.max(initial=0.0))
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
    return float(error)


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


def relative(found, expected) -> float:
    """max abs(found − expected) / max abs(expected), the latter at least 1e-3."""
    found, expected = np.asarray(found), np.asarray(expected)
    scale = max(_FLOOR, np.abs(expected).max(initial=0.0))
    return float(np.abs(found - expected).max(initial=0.0) / scale)


def difference_quotient(function, step: float) -> float:
    """d function / dt at t = 0 to fourth order: (f₋₂ − 8 f₋₁ + 8 f₁ − f₂) / 12 h."""
    f = [function(n * step) for n in (-2, -1, 1, 2)]
    return (f[0] - 8.0 * f[1] + 8.0 * f[2] - f[3]) / (12.0 * step)


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
    step: of the finite differences; a model whose energy bends sharply needs a small one.
    """
    tolerances = tolerances or TOLERANCES[backend.dtype]
    sites = AlchemicalSites.from_states(structure.symbols, states, groups)
    errors = measure(backend, structure, sites, step)
    errors = {check: error for check, error in errors.items() if check not in skip}
    for check, error in errors.items():
        limit = tolerances.slopes if check.startswith("slope") else tolerances.exact
        if not error <= limit:
            raise ModelError(
                f"backend '{backend.name}' does not conform: {check}, relative error {error:.1e}, "
                f"expected below {limit:.0e}"
            )
    return errors


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
    errors["repetition"] = float(
        _bits(at)
        != _bits(potential.evaluate(structure.positions, structure.cell, structure.pbc, weights))
    )
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


def _batch(potential, s: Structure, weights) -> float:
    """Three structures in one call, each in a cell of its own, against one call each."""
    strains = [np.eye(3), 1.02 * np.eye(3), np.eye(3) + 0.03 * np.triu(np.ones((3, 3)), 1)]
    cells = np.stack([s.cell @ f for f in strains])
    positions = np.stack([s.positions @ f for f in strains])
    together = potential.evaluate_batch(positions, cells, s.pbc, weights)
    one_by_one = [
        potential.evaluate(x, h, s.pbc, weights) for x, h in zip(positions, cells, strict=True)
    ]
    return max(difference(a, b, True) for a, b in zip(together, one_by_one, strict=True))


def _translation(potential, s: Structure, weights, at, rng) -> float:
    moved = s.positions + rng.normal(size=3)
    return difference(potential.evaluate(moved, s.cell, s.pbc, weights), at, True)


def _wrapping(potential, s: Structure, weights, at, rng) -> float:
    """Whole lattice vectors on single atoms change nothing."""
    shifts = rng.integers(-2, 3, size=s.positions.shape) * np.array(s.pbc, dtype=int)
    moved = s.positions + shifts @ s.cell
    return difference(potential.evaluate(moved, s.cell, s.pbc, weights), at, True)


def _permutation(backend, sites: AlchemicalSites, s: Structure, weights, at, rng) -> float:
    order = rng.permutation(len(s))  # new row n is old row order[n]
    new = {int(old): n for n, old in enumerate(order)}
    symbols = [sites.symbols[old] for old in order]
    states = [{new[i]: element for i, element in state.items()} for state in sites.states]
    shuffled = AlchemicalSites.from_states(symbols, states, sites.groups)
    moved = replace(s, positions=s.positions[order])
    found = _evaluate(backend, shuffled, moved, weights)
    return difference(found, replace(at, forces=at.forces[order]), True)


def _state_order(backend, sites: AlchemicalSites, s: Structure, weights, at) -> float:
    """Naming the states in reverse reverses ∂E/∂λ and changes nothing else."""
    turned = AlchemicalSites.from_states(sites.symbols, sites.states[::-1], sites.groups[::-1])
    found = _evaluate(backend, turned, s, weights[::-1])
    return difference(found, replace(at, weight_gradient=at.weight_gradient[::-1]), True)


def _slope_weights(potential, s: Structure, weights, at, step) -> float:
    """∂E/∂λ_α of every weight by itself; their sum is not held."""
    slopes = [
        difference_quotient(
            lambda t, e=e: potential.evaluate(s.positions, s.cell, s.pbc, weights + t * e).energy,
            step,
        )
        for e in np.eye(len(weights))
    ]
    return relative(at.weight_gradient, slopes)


def _slope_positions(potential, s: Structure, weights, at, step, rng) -> float:
    """−F·u along a random displacement u of all atoms, abs(u) = 1; relative to abs(F)."""
    u = rng.normal(size=s.positions.shape)
    u /= np.linalg.norm(u)
    slope = difference_quotient(
        lambda t: potential.evaluate(s.positions + t * u, s.cell, s.pbc, weights).energy,
        step,
    )
    return abs(-np.sum(at.forces * u) - slope) / max(_FLOOR, float(np.linalg.norm(at.forces)))


def _slope_strain(potential, s: Structure, weights, at, step, rng) -> float:
    """−virial:ε along a random symmetric strain, x → x(1 + tε), cell → cell(1 + tε), abs(ε) = 1."""
    e = rng.normal(size=(3, 3))
    e = (e + e.T) / np.linalg.norm(e + e.T)

    def energy(t: float) -> float:
        f = np.eye(3) + t * e
        return potential.evaluate(s.positions @ f, s.cell @ f, s.pbc, weights).energy

    error = abs(-np.sum(at.virial * e) - difference_quotient(energy, step))
    return error / max(_FLOOR, float(np.linalg.norm(at.virial)))
