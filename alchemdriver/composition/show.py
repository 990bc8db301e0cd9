"""What the verbs of composition read, show and write."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path

import ase.io
import numpy as np
import typer
from ase import Atoms
from rich.console import Console
from rich.table import Table

from ..contract import shelf
from ..contract.files import write_json, write_text, written_aside
from ..contract.text import parse_assignment, parse_counts, parse_supercell
from ..errors import InputError, did_you_mean
from ..potential.backends.base import Backend
from ..potential.open import open_model
from . import disorder, order, plots
from .journal import Crystal, Journal
from .mixture import Mixture, parse_composition
from .objectives import AtFixedCell, AtRelaxedCell, biaxial_stress, cell_length, hydrostatic_stress
from .optimize import OPTIMUM, Objective, Optimum, OptimumFile, Point, optimize
from .relaxation import Relaxed, Settings, relax_atoms
from .scan import Scan, compositions_along, scan, scan_header, table
from .schemes import SCHEMES, compare, time_per_step
from .supercells import cells, nearest, random_cells, sqs


def read_mixture(
    structure: Path,
    alchemy: list[str] | None,
    supercell: str,
    index: int | None,
    head: str | None = None,
) -> tuple[Mixture, np.ndarray | None]:
    """The crystal in *structure*, a along x and b in the xy plane, repeated, with its sublattices,
    and the weights that the file says.

    Raises InputError.
    """
    mixture, weights, remarks = disorder.read_mixture(
        structure, alchemy or [], parse_supercell(supercell), index, head
    )
    for remark in remarks:
        typer.echo(remark, err=True)
    return mixture, weights


def open_backend(model: str, device: str, dtype: str, head: str | None) -> tuple[Backend, str]:
    """The model, and what tells it from others: the sha256 of its file, and the head if given."""
    backend = open_model(model, device=device, dtype=dtype, head=head)
    return backend, shelf.model_digest(model) + (f" head {head}" if head else "")


def compositions(
    mixture: Mixture, weights: list[str] | None, n: int | None, own: np.ndarray | None
) -> list[np.ndarray]:
    """The weights to relax at, from --weights, --scan or the file's *own*."""
    if weights is None and n is None and own is not None:
        return [own]
    if (weights is None) == (n is None):
        raise InputError("give either --weights (one per sublattice) or --scan")
    if n is not None:
        if mixture.n_states != (2,):
            raise InputError(
                "--scan runs over one sublattice with two states; for others call relax once per "
                "--weights, or use alchemdriver.composition.scan from Python"
            )
        return [np.array(w) for w in compositions_along(n)]
    return [start_of(mixture, weights, own)]


def start_of(mixture: Mixture, weights: list[str] | None, own: np.ndarray | None) -> np.ndarray:
    """Weights (k,) from texts, or the file's *own*, or equal shares."""
    if weights is None and own is not None:
        return own
    if weights is None:
        return np.concatenate([np.full(k, 1.0 / k) for k in mixture.n_states])
    if len(weights) != len(mixture.sublattices):
        raise InputError(
            f"expected --weights once per sublattice, {len(mixture.sublattices)} times, got "
            f"{len(weights)}"
        )
    pairs = zip(weights, mixture.labels, strict=True)
    return mixture.weights([parse_composition(text, names).tolist() for text, names in pairs])


# --- relax ----------------------------------------------------------------------------------


def relax_and_print(
    mixture: Mixture,
    grid: list[np.ndarray],
    backend: Backend,
    digest: str,
    settings: Settings,
    out: Path,
    samples: int,
    with_sqs: bool,
    seed: int,
) -> None:
    """Relax at every composition; write scan.jsonl, relaxed.extxyz, table.txt and scan.png."""

    def report(point: Relaxed) -> None:
        typer.echo(f"{mixture.describe(point.weights)}: {point.steps} steps", err=True)

    at = [w.tolist() for w in grid]
    done = scan(mixture, at, backend, settings, out / "scan.jsonl", report, digest)
    text = table(done)
    whole = _supercells(mixture, grid, backend, digest, settings, out, samples, with_sqs, seed)
    text += whole
    print(text)
    write_text(out / "table.txt", text + "\n")
    with written_aside(out / "relaxed.extxyz") as aside:
        ase.io.write(aside, [_labelled_point(mixture, p) for p in done.points])
    written = ["scan.jsonl", "table.txt", "relaxed.extxyz"]
    if len(grid) > 1:
        written += [_plot_scan(done, out, column) for column in ("a", "b", "c", "volume")]
    print(f"\nwritten to {out}: {', '.join(written)}")


def _labelled_point(mixture: Mixture, point: Relaxed) -> Atoms:
    atoms = point.atoms.copy()
    atoms.info = {
        "composition": mixture.describe(point.weights),
        "energy_eV": point.energy,
        "elements_at_mixed_sites": "parent",
    }
    return atoms


def _plot_scan(done: Scan, out: Path, column: str) -> str:
    unit = "Å³" if column == "volume" else "Å"
    values = done.column(column)
    x = done.weights[:, 1]
    label = " → ".join(done.mixture.labels[0])
    plots.save(
        out / f"{column}.png",
        *((3.4, 3.0), plots.against_vegard, x, {label: values}, f"{column} ({unit})"),
    )
    return f"{column}.png"


@dataclass(frozen=True)
class Sample:
    """A relaxed cell with whole atoms; a record of ``supercells.jsonl``."""

    atoms: Crystal


def _supercells(
    mixture: Mixture,
    grid: list[np.ndarray],
    backend: Backend,
    digest: str,
    settings: Settings,
    out: Path,
    samples: int,
    with_sqs: bool,
    seed: int,
) -> str:
    """Lines of the cross-check with whole atoms: mean ± standard error, and the SQS."""
    if not (samples or with_sqs):
        return ""
    settings = replace(settings, symmetry=False)
    header = scan_header(mixture, backend, settings, digest) | {"seed": seed}
    journal = Journal(out / "supercells.jsonl", header, Sample)
    lines = ["", "", "whole atoms (cell lengths in Å, mean ± standard error; no symmetry kept)"]
    for n, w in enumerate(grid):
        whole = {
            f"random {m}": c
            for m, c in enumerate(random_cells(mixture, w.tolist(), samples, seed + n))
        }
        if with_sqs:
            whole["sqs"] = sqs(mixture, w.tolist(), seed)
        relaxed = {}
        for name, atoms in whole.items():
            key = f"{np.round(w, 12).tolist()} {name}"
            kept = journal.get(key)
            if kept is None:
                found = relax_atoms(atoms, backend, settings)
                kept = journal.add(key, Sample(Crystal.of(found)))
                typer.echo(f"{mixture.describe(w)}, {name}", err=True)
            relaxed[name] = kept.atoms.atoms()
        row = [f"{mixture.describe(w):24s}"]
        lengths = np.array([a.cell.lengths() for name, a in relaxed.items() if name != "sqs"])
        if samples == 1:
            row += [f"{v:9.4f} (one sample)" for v in lengths[0]]
        elif samples:
            error = lengths.std(axis=0, ddof=1) / np.sqrt(samples)
            row += [f"{v:9.4f} ± {e:.4f}" for v, e in zip(lengths.mean(axis=0), error, strict=True)]
        if with_sqs:
            row.append("  SQS " + " ".join(f"{v:.4f}" for v in relaxed["sqs"].cell.lengths()))
        lines.append(" ".join(row))
    return "\n".join(lines)


def write_cells(
    structure: Path,
    out: Path,
    alchemy: list[str] | None,
    weights: list[str] | None,
    supercell: str,
    index: int | None,
    method: str,
    samples: int,
    seed: int,
    take_nearest: bool,
) -> None:
    """Write cells of whole atoms, one extxyz file each, and say what they are."""
    mixture, own = read_mixture(structure, alchemy, supercell, index)
    if weights is None and own is None:
        raise InputError("give --weights, once per sublattice: the file says no shares")
    wanted = start_of(mixture, weights, own)
    if take_nearest:
        wanted = nearest(mixture, wanted)
    made = cells(mixture, wanted.tolist(), method, samples, seed)
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise InputError(f"{out} exists and is not empty: choose another folder")
    out.mkdir(parents=True, exist_ok=True)
    for n, atoms in enumerate(made, 1):
        name = f"{method.rstrip('s') if method == 'orderings' else method}-{n}.extxyz"
        with written_aside(out / name) as aside:
            ase.io.write(aside, atoms, format="extxyz")
        how = ", ".join(f"{k} {v}" for k, v in atoms.info.items() if k != "method")
        print(f"{out / name}: {len(atoms)} atoms, {how}")
    print(f"for dynamics: alchemdriver prepare PROTOCOL {out / name} FOLDER …")


# --- optimize -------------------------------------------------------------------------------

_TARGETS = ("a=", "b=", "c=", "biaxial", "hydrostatic")


def objective_of(
    mixture: Mixture, backend: Backend, target: str, symmetry: bool
) -> tuple[Objective, str, float]:
    """Objective, its unit and default tolerance, from text.  Raises InputError."""
    free = Settings(force=1e-4, stress=1e-6, optimiser="bfgs", symmetry=symmetry)
    if target == "hydrostatic":
        return AtFixedCell(mixture, backend, hydrostatic_stress), "eV/Å³", 1e-5
    if target == "biaxial":
        settings = replace(free, cell="c-only")
        return AtRelaxedCell(mixture, backend, biaxial_stress, settings), "eV/Å³", 1e-5
    axis, length = parse_assignment(target)
    if "=" not in target or axis not in ("a", "b", "c"):
        raise InputError(
            f"target: expected a=NUMBER (Å), b=…, c=…, biaxial or hydrostatic, got '{target}'"
            f"{did_you_mean(target, _TARGETS)}"
        )
    if length is None or not 0 < length < np.inf:
        raise InputError(f"target: expected a length in Å, got '{target.partition('=')[2]}'")
    return AtRelaxedCell(mixture, backend, cell_length(axis, length), free), "Å", 1e-4


def optimize_and_print(
    mixture: Mixture,
    start: np.ndarray,
    backend: Backend,
    digest: str,
    target: str,
    method: str,
    tolerance: float | None,
    max_steps: int,
    symmetry: bool,
    out: Path,
) -> Optimum:
    """Descend, print every accepted step, write optimum.json."""
    objective, unit, default = objective_of(mixture, backend, target, symmetry)
    tolerance = default if tolerance is None else tolerance
    first = [c.tolist() for c in mixture.compositions(start)]
    found = optimize(objective, first, tolerance, method, max_steps=max_steps)
    for step in found.history:
        where = mixture.describe(np.concatenate(step.compositions))
        print(f"{where:32s} {step.value:12.4e} {unit}")
    print(f"{found.message} ({found.evaluations} evaluations)")
    out.mkdir(parents=True, exist_ok=True)
    OPTIMUM.write(
        out / "optimum.json",
        OptimumFile(
            target=target,
            tolerance=tolerance,
            unit=unit,
            model=backend.name,
            model_digest=digest,
            met=found.met,
            states=mixture.labels,
            best=found.best.compositions,
            value=found.best.value,
            history=tuple(Point(s.compositions, s.value) for s in found.history),
        ),
    )
    return found


# --- order ----------------------------------------------------------------------------------


def order_and_print(
    list_file: Path,
    backend: Backend,
    digest: str,
    settings: Settings,
    mixed: str,
    sqs_cell: int | None,
    seed: int,
    largest: int | None,
    out: Path,
) -> None:
    """The study of every composition in *list_file*, its ranking, order.json and two figures."""
    cases = order.read_cases(list_file)
    sizes = parse_counts(mixed, "mixed")

    def report(name: str, entry: order.Entry) -> None:
        typer.echo(f"{name}: {entry.energy_eV:.4f} eV per formula unit", err=True)

    results = order.study(
        *(cases, backend, out / "order.jsonl", settings, sizes, sqs_cell, seed, digest),
        *(largest, report),
    )
    references = [f"mixed {n}" for n in sizes] + ([f"sqs {sqs_cell}"] if sqs_cell else [])
    shown = Table("composition", "label", *(f"{r} − min ordered (meV/f.u.)" for r in references))
    for case in cases:
        energies = [order.ordering_energy(results[case.name], r) for r in references]
        shown.add_row(case.name, case.label or "", *(f"{1e3 * e:.1f}" for e in energies))
    width = None if Console().is_terminal else 120
    Console(width=width, markup=False, emoji=False).print(shown)
    rankings = {}
    if {"ordered", "disordered"} <= {c.label for c in cases}:
        rankings = {r: order.rank(results, cases, r) for r in references}
        for name, r in rankings.items():
            print(
                f"{name}: AUC {r.auc:.2f} for {len(r.names)} labelled compositions; dealing the "
                f"labels at random gives as much with probability {r.p_value:.3f}"
            )
        plots.save(out / "roc.png", (3.0, 3.0), plots.roc, rankings)
        plots.save(
            out / "ordering.png", (5.5, 3.4), plots.ordering_energies, rankings[references[0]]
        )
    header = order.study_header(backend, digest, settings, seed)
    order.save(out / "order.json", header, results, rankings)
    print(f"\nwritten to {out}: order.json" + (", roc.png, ordering.png" if rankings else ""))


# --- schemes --------------------------------------------------------------------------------


def schemes_and_print(
    mixture: Mixture,
    alchemy: list[str],
    backend: Backend,
    points: int,
    sizes: str,
    repeats: int,
    out: Path,
) -> None:
    """Energies along λ, largest deviation from linearity, times; schemes.json and schemes.png."""
    found = compare(mixture, backend, np.linspace(0.0, 1.0, points).tolist())
    atoms = len(mixture.atoms)
    print("largest deviation from the straight line between the end states")
    for scheme in SCHEMES:
        worst = found.deviation(scheme)[np.abs(found.deviation(scheme)).argmax()]
        print(
            f"  {scheme:11s} {1e3 * worst:10.2f} meV per cell {1e3 * worst / atoms:9.2f} per atom"
        )
    timings = []
    for n in parse_counts(sizes, "cells") if sizes.strip() else ():
        large = Mixture.from_text(mixture.atoms.repeat(n), alchemy)
        times = time_per_step(large, backend, repeats)
        ratio = times["linear"] / times["alchemical"]
        timings.append({"cell": n, "atoms": len(large.atoms), **times, "ratio": ratio})
        print(
            f"{n}×{n}×{n}, {len(large.atoms)} atoms: linear {1e3 * times['linear']:.0f} ms, "
            f"alchemical {1e3 * times['alchemical']:.0f} ms per step, ratio {ratio:.2f}"
        )
    out.mkdir(parents=True, exist_ok=True)
    content = {
        "schema": "alchemdriver-schemes/1",
        "model": backend.name,
        "lambda": found.lam.tolist(),
        "energy_eV": {scheme: e.tolist() for scheme, e in found.energies.items()},
        "seconds_per_step": timings,
    }
    write_json(out / "schemes.json", content)
    plots.save(out / "schemes.png", (3.4, 3.0), plots.schemes, found, len(mixture.atoms))
    print(f"written to {out}: schemes.json, schemes.png")
