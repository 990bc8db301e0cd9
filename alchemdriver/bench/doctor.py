"""``alchemdriver doctor``: is the evaluator right on this device, and how fast is it?

One page, made to be pasted into a report.  Right means: energy, forces, virial and ∂E/∂λ are those
of mace's own modules on the CPU in float64.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from importlib.metadata import PackageNotFoundError, version
from itertools import product

import numpy as np

from ..errors import ModelError, RunError
from ..potential.backends.base import Potential
from ..potential.backends.mace import MaceBackend, MacePotential
from ..potential.checks import difference
from ..potential.precision import require_device
from ..records import PotentialEvaluation
from . import memory, table
from .cases import System, perovskite
from .run import environment
from .timing import open_backend

__all__ = ["examine"]

MODELS = ("demo", "L=1", "MPA-0-like")  # without densities and pair repulsion, and with
BUDGET = 360.0  # s, after which no further speed is measured
BEADS = 4
EXACT = 1e-10  # float64; sums on a GPU come in another order, some in none
# Models that were trained in float32 store coupling coefficients rounded to that, 1e-8 off;
# cuEquivariance computes its own.  `demo`: 3e-9, and 2e-15 with exact coefficients.
CONVERTED = 1e-8
PACKAGES = ("cuequivariance-torch", "cuequivariance-ops-torch-cu12", "symmetrix-xl")


def examine(device: str) -> Iterator[str]:
    """Lines of the page.  Raises RunError at the end where a check failed."""
    require_device(device, "float32")
    start = time.monotonic()
    yield from _heading(device)
    yield ""
    yield "relative error against mace's modules on the CPU in float64, CsPbI3, 40 atoms, Pb split"
    yield _columns("", "evaluator", "float64", "float32", "stock f32", "batch", "again", "")
    failed = 0
    for model in MODELS:
        for line, good in _agreement(model, device):
            failed += not good
            yield line
    yield ""
    yield from _memory(device)
    yield ""
    yield from _speed(device, start + BUDGET)
    yield ""
    yield f"{time.monotonic() - start:.0f} s"
    if failed:
        raise RunError(f"doctor: {failed} checks failed on {device}: use evaluator stock there")


def _heading(device: str) -> Iterator[str]:
    where = environment(device)
    yield f"alchemdriver doctor on {device}: {where['hardware']}, {where['threads']} CPU threads"
    packages = [f"torch {where['torch']}", f"mace-torch {where['mace-torch']}"]
    for name in PACKAGES:
        try:
            packages.append(f"{name} {version(name)}")
        except PackageNotFoundError:
            packages.append(f"no {name}")
    yield ", ".join(packages)


def _columns(name: str, *cells: str) -> str:
    return f"{name:24}" + "".join(f"{cell:>12}" for cell in cells)


# --- right ----------------------------------------------------------------------------------


def _agreement(model: str, device: str) -> Iterator[tuple[str, bool]]:
    """A line for each evaluator there is, and whether all of it is within the limits.

    float64 within EXACT (CONVERTED on cuEquivariance); float32 within ten times what stock
    modules lose in float32; structures of a batch like single ones; the same twice (to the bit on
    a CPU).
    """
    system = perovskite(2)
    s = system.structure
    arguments = (s.positions, s.cell, s.pbc, system.weights)
    expected = open_backend(model, "cpu", "float64").reference(system.sites).evaluate(*arguments)
    float32 = open_backend(model, device, "float32")
    rounding = _error(float32.reference(system.sites).evaluate(*arguments), expected)
    float64 = None if device.startswith("mps") else open_backend(model, device, "float64")
    for name, of in _evaluators([float64, float32], system):
        errors = [None if p is None else _error(p.evaluate(*arguments), expected) for p in of]
        best = of[0] or of[1]
        assert best is not None
        exact = CONVERTED if name == "cueq" else EXACT
        limit = exact if of[0] is not None else 10.0 * rounding
        batch = _error(_in_batch(best, system), expected)
        again = _error(best.evaluate(*arguments), best.evaluate(*arguments))
        good = batch <= limit and again <= (0.0 if device == "cpu" and name == "fast" else limit)
        good &= errors[0] is None or errors[0] <= exact
        good &= errors[1] is not None and errors[1] <= 10.0 * max(rounding, 1e-7)
        cells = ["–" if e is None else f"{e:.0e}" for e in (*errors, rounding, batch, again)]
        yield _columns(model, name, *cells, "right" if good else "WRONG"), good


def _evaluators(
    backends: Sequence[MaceBackend | None], system: System
) -> Iterator[tuple[str, list[Potential | None]]]:
    """Ours, and cuEquivariance's layers where they can be had, each in both precisions."""
    there = [b for b in backends if b is not None]
    yield there[0].evaluator, [None if b is None else b.potential(system.sites) for b in backends]
    try:
        yield "cueq", [None if b is None else _on_cueq(b, system) for b in backends]
    except ModelError:  # not installed, or not for these layers
        return


def _on_cueq(backend: MaceBackend, system: System) -> Potential:
    return MacePotential(backend, system.sites, model=backend.on_cueq)


def _in_batch(potential: Potential, system: System) -> PotentialEvaluation:
    """The first of BEADS structures, the others with their atoms moved."""
    s = system.structure
    positions = np.concatenate([s.positions[None], system.frames(BEADS - 1)])
    cells = np.repeat(s.cell[None], BEADS, axis=0)
    return potential.evaluate_batch(positions, cells, s.pbc, system.weights)[0]


def _error(found: PotentialEvaluation, expected: PotentialEvaluation) -> float:
    return difference(found, expected, weight_gradient=True)


# --- fast -----------------------------------------------------------------------------------


def _memory(device: str) -> Iterator[str]:
    try:
        (row,) = memory.rows(["L=1"], ["float32"], [], 0, device)
    except RunError as err:  # measured on Linux only
        yield str(err)
        return
    yield (
        f"memory of an evaluation, L=1, float32, CsPbI3 with 135 atoms: {row['MB']:.0f} MB; "
        f"stock {row['stock, MB']:.0f} MB"
    )


def _speed(device: str, until: float) -> Iterator[str]:
    """Evaluations in ms, and others over ours, as long as there is time."""
    yield "CsPbI3, Pb split: ours alchemical; ours plain; others plain (symmetrix-xl is plain only)"
    yield _columns("", "ms", "µs/atom", "plain, ms", "stock", "cueq", "symmetrix-xl")
    sizes = ["perovskite-135"] if device == "cpu" else ["perovskite-135", "perovskite-1080"]
    for model, dtype, name in product(("demo", "small", "L=1"), ("float32", "float64"), sizes):
        if dtype == "float64" and device.startswith("mps"):
            continue
        if time.monotonic() > until:
            yield f"not measured, out of time: {model}, {dtype}, {name} and what follows"
            return
        for row in table.rows([model], [dtype], [name], 3, device):
            ms = {key: value["median"] for key, value in row["ms"].items()}
            others = [ms.get(key) for key in ("stock", "stock, cueq", "symmetrix-xl")]
            ours = ms["alchemical"]
            yield _columns(
                f"{model}, {dtype}, {row['atoms']}",
                f"{ours:.2f}",
                f"{1e3 * ours / row['atoms']:.1f}",
                f"{ms['plain']:.2f}",
                *("–" if t is None else f"{t:.2f}" for t in others),
            )
