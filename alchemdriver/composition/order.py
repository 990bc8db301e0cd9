"""Order or disorder on a sublattice: mixed cell against every ordered arrangement (paper, Fig. 4).

For A2B'B''X6: the alchemical cell with B' and B'' half and half stands for full disorder, the six
distinct arrangements of the 2×2×2 cell for order.  ΔE = E(mixed) − min E(ordered), per formula unit
A2B'B''X6: the larger, the more the model prefers order.
"""

from __future__ import annotations

import csv
import logging
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from itertools import combinations
from math import comb
from pathlib import Path
from typing import Any

import numpy as np
from ase import Atoms
from matscipy.neighbours import neighbour_list

from .. import __version__
from ..contract.files import read_text, write_json
from ..contract.stored import Count, Positive, dump
from ..contract.transformation import element
from ..errors import InputError
from ..potential.backends.base import Backend
from .journal import Journal
from .mixture import Mixture
from .relaxation import Settings, relax, relax_atoms
from .supercells import distinct_orderings, primitive, sqs

__all__ = ["Case", "Ranking", "cosine_distance", "fingerprint", "rank", "read_cases", "study"]

log = logging.getLogger(__name__)

_COLUMNS = ("A", "B1", "B2", "X", "a", "label")
LABELS = ("ordered", "disordered")
_DISPLACEMENT = 0.05  # Å, standard deviation


@dataclass(frozen=True)
class Case:
    """One composition A2B'B''X6 and, where known, what experiments find."""

    a_site: str
    b_sites: tuple[str, str]
    x_site: str
    edge: float  # Å of the cubic ABX3 cell to start from
    label: str | None  # 'ordered', 'disordered' or unknown

    @property
    def name(self) -> str:
        return f"{self.a_site}2{self.b_sites[0]}{self.b_sites[1]}{self.x_site}6"

    def parent(self) -> Atoms:
        """Cubic ABX3, five atoms, Pm-3m; B is B'."""
        return Atoms(
            f"{self.a_site}{self.b_sites[0]}{self.x_site}3",
            scaled_positions=[[0.5, 0.5, 0.5], [0, 0, 0], [0.5, 0, 0], [0, 0.5, 0], [0, 0, 0.5]],
            cell=[self.edge] * 3,
            pbc=True,
        )

    def mixture(self, repeat: int) -> Mixture:
        """repeat³ cells, all B sites mixed."""
        atoms = self.parent().repeat(repeat)
        b = [n for n in range(len(atoms)) if n % 5 == 1]  # B' may be the element of A or X too
        states = tuple(dict.fromkeys(b, symbol) for symbol in self.b_sites)
        return Mixture(atoms, (states,), (self.b_sites,))


def read_cases(path: Path) -> list[Case]:
    """Rows of a CSV file with the columns A, B1, B2, X, a (Å) and label (or empty).

    Lines that begin with # are comments.  Raises InputError, naming the line.
    """
    lines = read_text(path).splitlines()
    numbered = [(n, s) for n, s in enumerate(lines, 1) if s.strip() and not s.startswith("#")]
    if not numbered or [c.strip() for c in numbered[0][1].split(",")] != list(_COLUMNS):
        raise InputError(f"list {path}: expected a header {','.join(_COLUMNS)}")
    cases: list[Case] = []
    for n, line in numbered[1:]:
        where = f"list {path}, line {n}"
        row = [cell.strip() for cell in next(csv.reader([line]))]
        if len(row) != len(_COLUMNS):
            raise InputError(f"{where}: expected {len(_COLUMNS)} columns, got {len(row)}")
        symbols = [element(s, where) for s in row[:4]]
        try:
            edge = float(row[4])
        except ValueError:
            edge = 0.0
        if not 2.0 < edge < 20.0:
            raise InputError(f"{where}: expected a cubic edge in Å, got '{row[4]}'")
        if row[5] and row[5] not in LABELS:
            raise InputError(f"{where}: label: expected ordered, disordered or empty")
        case = Case(symbols[0], (symbols[1], symbols[2]), symbols[3], edge, row[5] or None)
        if case.name in {c.name for c in cases}:
            raise InputError(f"{where}: {case.name} is there already")
        cases.append(case)
    return cases


@dataclass(frozen=True)
class Entry:
    """One relaxed cell of a study, per A2B'B''X6; a record of ``order.jsonl``."""

    energy_eV: float
    volume_A3: Positive
    atoms: Count  # of the cell
    fingerprint_distance: float  # of the start to what it relaxed to


def study(
    cases: Sequence[Case],
    backend: Backend,
    journal: Path,
    settings: Settings | None = None,
    mixed_cells: Sequence[int] = (1,),
    quasirandom: int | None = None,
    seed: int = 1,
    model_digest: str = "",
    largest: int | None = None,
    report: Callable[[str, Entry], None] = lambda name, entry: None,
) -> dict[str, dict[str, Entry]]:
    """Relax mixed cells, all orderings and, if asked, a quasirandom cell of every case.

    largest: leave out orderings whose cell has more atoms; of the six primitive ones three have 10,
    three 40.  mixed_cells: n of the n×n×n alchemical cells.  quasirandom: n of an n×n×n cell filled
    as an SQS.

    With ``settings.symmetry`` orderings are relaxed in their primitive cells, which gives the same
    energies: no octahedron tilts, and mixed cells of all sizes are the same crystal.  Without it
    everything starts from the whole cell with its atoms displaced, so that what lies lower is
    found.  A quasirandom cell has no symmetry to keep: it may tilt either way.

    Every relaxation is a record of *journal*, so an interrupted study resumes.  Returns
    {case: {'mixed 1': Entry, 'ordered Fm-3m 2': Entry, …}}.
    """
    settings = settings or Settings(optimiser="bfgs", force=5e-3, stress=5e-5)
    log_file = Journal(journal, study_header(backend, model_digest, settings, seed), Entry)
    results: dict[str, dict[str, Entry]] = {}
    for case in cases:
        tasks = _tasks(case, backend, settings, mixed_cells, quasirandom, seed, largest)
        results[case.name] = {}
        for name, task in tasks.items():
            key = f"{case.name} {case.edge:g} {name}"
            entry = log_file.get(key)
            if entry is None:
                before, after, energy = task()
                entry = log_file.add(
                    key,
                    Entry(
                        energy_eV=energy / (len(after) / 10),
                        volume_A3=after.get_volume() / (len(after) / 10),
                        atoms=len(after),
                        fingerprint_distance=cosine_distance(
                            fingerprint(before, case), fingerprint(after, case)
                        ),
                    ),
                )
            results[case.name][name] = entry
            report(f"{case.name} {name}", entry)
    return results


def study_header(backend: Backend, model_digest: str, settings: Settings, seed: int) -> dict:
    """What decides the energies of a study."""
    return {
        "alchemdriver": __version__,
        "model": backend.name,
        "model_digest": model_digest,
        "dtype": backend.dtype,
        "settings": asdict(settings),
        "seed": seed,
    }


def _tasks(case, backend, settings, mixed_cells, quasirandom, seed, largest) -> dict[str, Callable]:
    """Name -> function that returns start, relaxed structure and energy (eV)."""
    half = [0.5, 0.5]

    def displaced(atoms: Atoms) -> Atoms:
        """Off the saddle that a symmetric start is, when the symmetry need not be kept."""
        atoms = atoms.copy()
        if not settings.symmetry:
            atoms.rattle(_DISPLACEMENT, seed=seed)
        return atoms

    def mixed(n: int):
        mixture = case.mixture(n)
        found = relax(mixture, half, backend, settings, start=displaced(mixture.atoms))
        return mixture.atoms, found.atoms, found.energy

    def whole(atoms: Atoms):
        found = relax_atoms(displaced(atoms), backend, settings)
        return atoms, found, found.info["energy"]

    tasks: dict[str, Callable] = {f"mixed {n}": lambda n=n: mixed(n) for n in mixed_cells}
    for ordering in distinct_orderings(case.mixture(2), half):
        cell = primitive(ordering.atoms) if settings.symmetry else ordering.atoms
        name = f"ordered {ordering.spacegroup} {ordering.degeneracy}"
        if name in tasks:  # layers and columns are both P4/mmm 6
            name += " (2)"
        if largest is None or len(cell) <= largest:
            tasks[name] = lambda cell=cell: whole(cell)
    if not any(name.startswith("ordered") for name in tasks):
        raise InputError(f"no ordering has at most {largest} atoms: allow larger ones")
    if quasirandom:
        disordered = sqs(case.mixture(quasirandom), half, seed)
        tasks[f"sqs {quasirandom}"] = lambda: whole(disordered)
    return tasks


# --- fingerprints ---------------------------------------------------------------------------


def fingerprint(
    atoms: Atoms, case: Case, cutoff: float = 6.0, width: float = 0.15, bins: int = 120
) -> np.ndarray:
    """Smeared numbers of neighbours at each distance, for each pair of the sublattices A, B, X.

    (6 · bins,) in the same order for mixed, ordered and quasirandom cells, because B' and B'' count
    as one kind; per site, so that cells of any size compare.  The radial part of what the paper
    compares (its fingerprints also hold angles).
    """
    kind = {case.a_site: 0, case.x_site: 2, **dict.fromkeys(case.b_sites, 1)}
    kinds = np.array([kind[s] for s in atoms.get_chemical_symbols()])
    first, second, distance = neighbour_list("ijd", atoms, cutoff)
    centres = (np.arange(bins) + 0.5) * cutoff / bins
    parts = []
    for a in range(3):
        for b in range(a, 3):
            d = distance[(kinds[first] == a) & (kinds[second] == b)]
            smeared = np.exp(-0.5 * ((centres[:, None] - d[None]) / width) ** 2).sum(axis=1)
            # neighbours at r number as r²: without this only far shells would count
            parts.append(smeared / max(1, np.count_nonzero(kinds == a)) / centres**2)
    return np.concatenate(parts)


def cosine_distance(a: np.ndarray, b: np.ndarray) -> float:
    """1 − a·b/(|a||b|)."""
    return float(1.0 - a @ b / np.sqrt((a @ a) * (b @ b)))


# --- ranking --------------------------------------------------------------------------------


@dataclass(frozen=True)
class Ranking:
    """How well ΔE separates ordered from disordered compositions."""

    names: tuple[str, ...]
    energies: np.ndarray  # (n,) ΔE, eV per formula unit
    labels: tuple[str, ...]
    roc: np.ndarray  # (m, 2) false and true positive rates, positive: ordered
    auc: float
    p_value: float  # chance of such an AUC or higher if ΔE had nothing to do with order


def rank(
    results: dict[str, dict[str, Entry]], cases: Sequence[Case], mixed: str = "mixed 1"
) -> Ranking:
    """ROC of ΔE = E(*mixed*) − min E(ordered) over the labelled cases.

    AUC is the share of (ordered, disordered) pairs in the right order, ties one half.  Its p-value
    is exact: all ways to deal the labels are counted (with 6 + 6 cases there are 924, so nothing
    below 0.001 can be told); beyond 10⁵ ways, 20 000 random ones.  Raises InputError unless both
    labels occur.
    """
    known = [c for c in cases if c.label is not None]
    energies = np.array([ordering_energy(results[c.name], mixed) for c in known])
    positive = np.array([c.label == "ordered" for c in known], dtype=bool)
    if positive.all() or not positive.any():
        raise InputError("ranking: expected at least one ordered and one disordered composition")
    auc = _auc(energies, positive)
    n, k = len(known), int(positive.sum())
    if comb(n, k) <= 100_000:
        deals = (np.isin(np.arange(n), chosen) for chosen in combinations(range(n), k))
    else:
        rng = np.random.default_rng(0)
        deals = (rng.permutation(positive) for _ in range(20_000))
    p_value = float(np.mean([_auc(energies, deal) >= auc - 1e-12 for deal in deals]))
    cuts = [np.inf, *sorted(set(energies.tolist()), reverse=True)]
    roc = [[np.mean(energies[~positive] >= c), np.mean(energies[positive] >= c)] for c in cuts]
    return Ranking(
        tuple(c.name for c in known),
        energies,
        tuple(c.label or "" for c in known),
        np.array(roc, dtype=float),
        auc,
        p_value,
    )


def ordering_energy(entries: dict[str, Entry], mixed: str) -> float:
    """ΔE (eV per formula unit) of one case of :func:`study`."""
    ordered = [e.energy_eV for name, e in entries.items() if name.startswith("ordered")]
    return entries[mixed].energy_eV - min(ordered)


def _auc(energies: np.ndarray, positive: np.ndarray) -> float:
    difference = energies[positive][:, None] - energies[~positive][None]
    return float(np.mean((difference > 0) + 0.5 * (difference == 0)))


def save(
    path: Path,
    header: dict[str, Any],
    results: dict[str, dict[str, Entry]],
    rankings: dict[str, Ranking],
) -> None:
    """How the study was made, all energies and the rankings, as JSON."""
    content = {
        "schema": "alchemdriver-order/1",
        "made with": header,
        "energies": dump(results),
        "rankings": {
            mixed: {
                "dE_eV_per_formula_unit": dict(
                    zip(ranking.names, ranking.energies.tolist(), strict=True)
                ),
                "labels": dict(zip(ranking.names, ranking.labels, strict=True)),
                "auc": ranking.auc,
                "p_value": ranking.p_value,
            }
            for mixed, ranking in rankings.items()
        },
    }
    write_json(path, content)
